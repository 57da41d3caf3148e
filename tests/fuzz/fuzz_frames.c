/* Frames of other members: whatever is accepted borrows only from the input. */
#include <stdlib.h>

#include "raft/frames_int.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame f;
    struct err e;
    if (frame_decode(slice_make(data, size), &f, &e) != 0 || f.kind != FRAME_APPEND) return 0;
    size_t at = 0;
    for (uint32_t i = 0; i < f.append.n; i++) {
        struct raft_entry entry = frame_append_entry(&f.append, i, &at);
        const uint8_t *p = entry.buf.base;
        if (entry.buf.len && (p < data || p + entry.buf.len > data + size)) abort();
    }
    return 0;
}
