/* What is decoded must be encoded to the same bytes that decode again; batches are read to their
 * end. */
#include <stdlib.h>

#include "schemas/batch.h"
#include "schemas/command.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct command c, again;
    struct batch_reader r;
    struct slice bytes, in = slice_make(data, size);
    struct buf out = {0};
    uint64_t seq;
    if (command_decode(&a, in, &c) == 0) {
        int valid = command_check(&c);
        if (valid == 0) {
            command_encode(&out, &c);
            FUZZ_CHECK(!out.failed && command_decode(&a, buf_slice(&out), &again) == 0 &&
                       command_check(&again) == 0);
        }
    }
    if (batch_open(&r, in) == 0)
        while (batch_next(&r, &seq, &bytes) == 1)
            if (bytes.data < data || bytes.data + bytes.len > data + size) abort();
    buf_release(&out);
    arena_release(&a);
    return 0;
}
