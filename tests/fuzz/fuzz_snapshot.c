/* A snapshot stream that was written as it should be and then changed is refused, in whatever
 * pieces it comes, or makes a store that can be read and written again to a snapshot that loads.
 * Checksums always fit: XXH3 is the same for everything here.
 *
 * Input: how many commands, two bytes for each; then changes, four bytes each: where (two), what, a
 * byte. */
#include <stdlib.h>

#include "base/check.h"
#include "store/store.h"
#include "tests/fuzz/fuzz.h"

uint64_t XXH3_64bits(const void *data, size_t len);
uint64_t XXH3_64bits_withSeed(const void *data, size_t len, uint64_t seed);

uint64_t XXH3_64bits(const void *data, size_t len)
{
    (void)data, (void)len;
    return 0x5a5a5a5a5a5a5a5au;
}

uint64_t XXH3_64bits_withSeed(const void *data, size_t len, uint64_t seed)
{
    (void)seed;
    return XXH3_64bits(data, len);
}

static void apply(struct store *s, const struct command *c)
{
    struct arena a = {0};
    struct result r = {0};
    store_apply(s, c, &a, &r);
    result_release(&r);
    event_batch_unref(store_take_events(s));
    arena_release(&a);
}

static void fill(struct store *s, struct reader *in)
{
    for (int n = reader_u8(in) % 16; n > 0; n--) {
        uint8_t what = reader_u8(in), x = reader_u8(in);
        struct slice key = slice_make(&"abcdefghijklmnop"[x % 12], 1 + x % 5),
                     value = slice_make("0123456789", x % 11);
        struct command c = {
            .type = COMMAND_OP,
            .op = {.type = OP_PUT,
                   .put = {.key = key, .value = value, .lease = what & 64 ? 5 : 0}}};
        switch (what % 8) {
        case 0: c.op = (struct op){.type = OP_DELETE, .del = {.key = key}}; break;
        case 1:
            c = (struct command){.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = 5, .ttl = 60}};
            break;
        case 2:
            c = (struct command){.type = COMMAND_COMPACT, .compact = {.revision = x % 8}};
            break;
        default: break;
        }
        if (command_check(&c) == 0) apply(s, &c);
    }
}

static void save(struct store *s, struct buf *out)
{
    struct store_snapshot *snap = store_snapshot_open(s);
    bool done = !snap;
    while (!done)
        if (store_snapshot_next(snap, 4096, out, &done) != 0) break;
    store_snapshot_close(snap);
}

static void change(struct buf *b, struct reader *in)
{
    size_t at = reader_u8(in);
    at |= (size_t)reader_u8(in) << 8;
    uint8_t what = reader_u8(in), value = reader_u8(in);
    if (b->len == 0) return;
    at %= b->len;
    size_t len = value % 32u < b->len - at ? value % 32u : b->len - at;
    switch (what % 5) {
    case 0: b->data[at] = value; break;
    case 1: b->data[at] ^= (uint8_t)(1u << (value % 8)); break;
    case 2: memset(b->data + at, 0xff, len); break;
    case 3:
        memmove(b->data + at, b->data + at + len, b->len - at - len);
        b->len -= len;
        break;
    default: b->len = at; break;
    }
}

static int load(struct slice in, struct store **ret)
{
    struct store_options o = {0};
    struct store_loader *l = store_loader_new(&o);
    struct err e;
    int rv = 0;
    for (size_t at = 0, piece = 1; rv == 0 && at < in.len;
         at += piece, piece = piece * 7 % 4093 + 1)
        rv = store_loader_feed(l, slice_sub(in, at, piece), &e);
    if (rv == 0) rv = store_loader_finish(l, ret, &e);
    store_loader_free(l);
    return rv;
}

static void read_all(struct store *s)
{
    struct arena a = {0};
    struct range_op all = {.key = slice_make("", 1), .range_end = slice_make("", 1)};
    struct result r = {.type = COMMAND_OP, .op = {.type = OP_RANGE}};
    if (store_range(s, &all, &a, &r.op.range) == 0) {
        FUZZ_CHECK(r.op.range.count == store_keys(s));
        result_release(&r);
    }
    arena_release(&a);
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 10;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct reader in = reader_make(slice_make(data, size));
    struct buf bytes = {0}, again = {0};
    struct store *s = store_new(&(struct store_options){0}), *loaded = NULL, *third = NULL;
    fill(s, &in);
    save(s, &bytes);
    store_free(s);
    for (int n = 0; n < 64 && reader_left(&in); n++) change(&bytes, &in);
    fuzz_memory_on();
    int code = load(buf_slice(&bytes), &loaded);
    if (code == 0) read_all(loaded);
    fuzz_memory_off();
    if (code == 0) {
        save(loaded, &again);
        CHECK(load(buf_slice(&again), &third) == 0 && store_keys(third) == store_keys(loaded));
    }
    store_free(loaded);
    store_free(third);
    buf_release(&bytes);
    buf_release(&again);
    return 0;
}
