/* A damaged snapshot stream is refused, in whatever pieces it comes; a whole one makes a store that can be read. */
#include <stdlib.h>

#include "store/store.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store_options o = {0};
    struct store_loader *l = store_loader_new(&o);
    struct store *s = NULL;
    struct err e;
    int rv = 0;
    for (size_t at = 0, piece = 1; rv == 0 && at < size; at += piece, piece = piece * 7 % 4093 + 1)
        rv = store_loader_feed(l, slice_sub(slice_make(data, size), at, piece), &e);
    if (rv == 0 && store_loader_finish(l, &s, &e) == 0) {
        struct arena a = {0};
        struct range_op all = {.key = slice_make("", 1), .range_end = slice_make("", 1)};
        struct result r = {.type = COMMAND_OP, .op = {.type = OP_RANGE}};
        if (store_range(s, &all, &a, &r.op.range) == 0) {
            if (r.op.range.count != store_keys(s)) abort();
            result_release(&r);
        }
        arena_release(&a);
        store_free(s);
    }
    store_loader_free(l);
    return 0;
}
