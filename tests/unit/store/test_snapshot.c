/* Snapshots: every kind of damage is told with its place, whatever the pieces; memory that fails;
 * crafted content. What a whole snapshot holds is compared by test_model.c. */
#include "tests/unit/store/helpers.h"

#include <stdio.h>

#include "base/mem.h"
#include "store/snapshot_int.h"

static struct store *sample(void)
{
    struct store *s = store_new(NULL);
    grant(s, 7, 60);
    grant(s, -8, 60);
    put(s, "a", "1");
    put_lease(s, "b", "2", 7);
    put(s, "a", "3");
    del(s, "b");
    compact_to(s, 4);
    put(s, "c", "some more text");
    put_lease(s, "d", "", -8);
    alarm_set(s, 99, ALARM_CORRUPT, true);
    struct slice url = SLICE_LIT("http://x");
    run(s, &(struct command){COMMAND_MEMBER_ATTRIBUTES, .member = {5, SLICE_LIT("n"), &url, 1}});
    drop_events(s);
    return s;
}

static struct buf cut(struct store *s)
{
    struct buf out = {0};
    struct store_snapshot *snap = store_snapshot_open(s);
    bool done = false;
    while (!done) assert_int_equal(store_snapshot_next(snap, 100, &out, &done), 0);
    store_snapshot_close(snap);
    return out;
}

static int load(struct slice stream, size_t piece, struct store **ret, struct err *e)
{
    struct store_loader *l = store_loader_new(NULL);
    int rc = 0;
    for (size_t at = 0; at < stream.len && !rc; at += piece)
        rc = store_loader_feed(l, slice_sub(stream, at, piece), e);
    if (!rc) rc = store_loader_finish(l, ret, e);
    store_loader_free(l);
    return rc;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct store *s = sample();
    struct buf first = cut(s);
    for (size_t piece = 1; piece < 70; piece += 3) {
        struct store *t;
        assert_int_equal(load(buf_slice(&first), piece, &t, NULL), 0);
        struct buf second = cut(t);
        assert_true(slice_eq(buf_slice(&first), buf_slice(&second)));
        assert_true(store_size_in_use(s) == store_size_in_use(t));
        struct member_attributes m;
        struct alarm alarm;
        assert_true(store_member_attributes(t, 5, &m) &&
                    slice_eq_str(m.client_urls[0], "http://x"));
        assert_true(store_alarms(t, &alarm, 1) == 1 && alarm.member_id == 99);
        buf_release(&second);
        store_free(t);
    }
    work_off(s); /* what is freed in between does not show */
    struct buf third = cut(s);
    assert_true(slice_eq(buf_slice(&first), buf_slice(&third)));
    buf_release(&third);
    buf_release(&first);
    store_free(s);
}

static void test_empty(void **state)
{
    (void)state;
    struct store *s = store_new(NULL), *t;
    struct buf b = cut(s);
    assert_int_equal(load(buf_slice(&b), 1000, &t, NULL), 0);
    assert_true(store_revision(t) == 1 && store_compact_revision(t) == -1);
    assert_int_equal(put(t, "k", "v"), 0);
    drop_events(t);
    buf_release(&b);
    store_free(s);
    store_free(t);
}

static void test_truncated(void **state)
{
    (void)state;
    struct store *s = sample(), *t;
    struct buf b = cut(s);
    for (size_t len = 0; len < b.len; len++) {
        struct err e = {{0}};
        uint8_t *copy = malloc(len);
        if (len) memcpy(copy, b.data, len);
        assert_int_equal(load(slice_make(copy, len), 17, &t, &e), ERR_CORRUPT);
        char place[40];
        sprintf(place, "at offset %zu,", len);
        assert_non_null(strstr(e.text, place));
        free(copy);
    }
    buf_append_byte(&b, 0);
    assert_int_equal(load(buf_slice(&b), 1000, &t, NULL), ERR_CORRUPT);
    buf_release(&b);
    store_free(s);
}

static void test_flipped(void **state)
{
    (void)state;
    struct store *s = sample(), *t;
    struct buf b = cut(s);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        struct err e = {{0}};
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(load(buf_slice(&b), bit % 2 ? 33 : 5000, &t, &e), ERR_CORRUPT);
        const char *place = strstr(e.text, "offset ");
        assert_non_null(place);
        assert_true(strtoull(place + 7, NULL, 10) <=
                    b.len); /* the start of the unit that the bit is in, or the cut end */
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    buf_release(&b);
    store_free(s);
}

/* Blocks left out, doubled or exchanged have good checksums of their own, but not in that place. */
static void test_shuffled(void **state)
{
    (void)state;
    struct store *s = store_new(NULL), *t;
    char key[20];
    static char value[3000];
    memset(value, 'x', sizeof(value) - 1);
    for (int i = 0; i < 10; i++) {
        sprintf(key, "key%d", i);
        put(s, key, value);
    }
    drop_events(s);
    struct buf b = cut(s);
    size_t starts[20], n = 0;
    for (size_t at = SNAPSHOT_HEADER_BYTES; at < b.len;) {
        starts[n++] = at;
        struct reader r = reader_make(slice_sub(buf_slice(&b), at + 4, 4));
        at += SNAPSHOT_BLOCK_HEAD + reader_u32(&r);
    }
    starts[n] = b.len;
    assert_true(n > 3);
    for (size_t i = 0; i < n; i++) {
        struct buf without = {0}, twice = {0};
        buf_append(&without, b.data, starts[i]);
        buf_append(&without, b.data + starts[i + 1], b.len - starts[i + 1]);
        buf_append(&twice, b.data, starts[i + 1]);
        buf_append(&twice, b.data + starts[i], b.len - starts[i]);
        assert_int_equal(load(buf_slice(&without), 1000, &t, NULL), ERR_CORRUPT);
        assert_int_equal(load(buf_slice(&twice), 1000, &t, NULL), ERR_CORRUPT);
        buf_release(&without);
        buf_release(&twice);
    }
    buf_release(&b);
    store_free(s);
}

static void test_garbage(void **state)
{
    (void)state;
    srand(3);
    struct store *t;
    for (int i = 0; i < 2000; i++) {
        uint8_t bytes[300];
        for (size_t k = 0; k < sizeof(bytes); k++) bytes[k] = (uint8_t)rand();
        assert_int_equal(load(slice_make(bytes, (size_t)rand() % sizeof(bytes)), 50, &t, NULL),
                         ERR_CORRUPT);
    }
}

/* Good checksums around a bad content: a stream made by something else than our writer. */
static struct buf crafted(struct slice payload, uint32_t type, int64_t revision,
                          int64_t compact_rev)
{
    struct buf b = {0};
    buf_append(&b, SNAPSHOT_MAGIC, 8);
    buf_append_u32(&b, SNAPSHOT_VERSION);
    buf_append_u32(&b, 0);
    buf_append_u64(&b, (uint64_t)revision);
    buf_append_u64(&b, (uint64_t)compact_rev);
    uint64_t hash = XXH3_64bits(b.data, b.len), chain = snapshot_chain(0, hash);
    buf_append_u64(&b, hash);
    struct buf head = {0};
    buf_append_u32(&head, type);
    buf_append_u32(&head, (uint32_t)payload.len);
    hash = snapshot_block_hash(b.len, head.data, payload);
    chain = snapshot_chain(chain, hash);
    buf_append_u64(&head, hash);
    buf_append_slice(&b, buf_slice(&head));
    buf_append_slice(&b, payload);
    buf_release(&head);
    size_t offset = b.len;
    struct buf trailer = {0};
    uint64_t numbers[] = {type == BLOCK_RECORDS ? 1 : 0, type == BLOCK_LEASES ? 1 : 0,
                          type > BLOCK_LEASES ? 1 : 0, offset, chain};
    for (int i = 0; i < 5; i++) buf_append_u64(&trailer, numbers[i]);
    buf_append_u32(&head, BLOCK_END);
    buf_append_u32(&head, (uint32_t)trailer.len);
    buf_append_u64(&head, snapshot_block_hash(offset, head.data, buf_slice(&trailer)));
    buf_append_slice(&b, buf_slice(&head));
    buf_append_slice(&b, buf_slice(&trailer));
    buf_release(&head);
    buf_release(&trailer);
    return b;
}

static int load_crafted(struct slice payload, uint32_t type, int64_t revision, int64_t compact_rev)
{
    struct buf b = crafted(payload, type, revision, compact_rev);
    struct store *t = NULL;
    int rc = load(buf_slice(&b), 1000, &t, NULL);
    if (!rc) index_check(&t->index);
    store_free(rc ? NULL : t);
    buf_release(&b);
    return rc;
}

#define RECORD(...)                                                                                \
    slice_make((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_crafted(void **state)
{
    (void)state;
    enum { R = BLOCK_RECORDS, BAD = ERR_CORRUPT };
    /* flags, revision, key length, age, version, value length, key */
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 0, 1, 0, 'k'), R, 5, -1), 0);
    assert_int_equal(load_crafted(RECORD(0, 6, 1, 0, 1, 0, 'k'), R, 5, -1),
                     BAD);                                                   /* of the future */
    assert_int_equal(load_crafted(RECORD(0, 5, 0, 0, 1, 0), R, 5, -1), BAD); /* no key */
    assert_int_equal(load_crafted(RECORD(0, 5, 9, 0, 1, 0, 'k'), R, 5, -1),
                     BAD); /* a key beyond the end */
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 0, 1, 9, 'k'), R, 5, -1), BAD);
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 0, 2, 0, 'k'), R, 5, -1),
                     BAD); /* a version without its first */
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 2, 2, 0, 'k'), R, 5, -1), BAD);
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 2, 2, 0, 'k'), R, 5, 5),
                     0); /* compacted away: fine */
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 2, 0, 0, 'k'), R, 5, 5), BAD);
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 5, 1, 0, 'k'), R, 5, 5), BAD);
    assert_int_equal(load_crafted(RECORD(1, 5, 1, 'k'), R, 5, 5),
                     0); /* a deletion right at the compaction */
    assert_int_equal(load_crafted(RECORD(1, 5, 1, 'k'), R, 5, -1), BAD);
    assert_int_equal(load_crafted(RECORD(1, 4, 1, 'k'), R, 5, 5), BAD);
    assert_int_equal(load_crafted(RECORD(8, 5, 1, 0, 1, 0, 'k'), R, 5, -1), BAD);
    assert_int_equal(load_crafted(RECORD(4, 5, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'k'), R, 5, -1),
                     BAD); /* no such lease */
    assert_int_equal(load_crafted(RECORD(0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                         0x7f, 1, 0, 1, 0, 'k'),
                                  R, 5, -1),
                     BAD);
    assert_int_equal(load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 10, 0), BLOCK_LEASES, 1, -1), 0);
    assert_int_equal(load_crafted(RECORD(0, 0, 0, 0, 0, 0, 0, 0, 10, 0), BLOCK_LEASES, 1, -1), BAD);
    assert_int_equal(load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 10), BLOCK_LEASES, 1, -1), BAD);
    assert_int_equal(load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 1, 0), BLOCK_ALARMS, 1, -1), 0);
    assert_int_equal(load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 0, 0), BLOCK_ALARMS, 1, -1), BAD);
    assert_int_equal(load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 1, 'n', 0), BLOCK_MEMBERS, 1, -1),
                     0);
    assert_int_equal(
        load_crafted(RECORD(1, 0, 0, 0, 0, 0, 0, 0, 1, 'n', 200, 1), BLOCK_MEMBERS, 1, -1), BAD);
    assert_int_equal(load_crafted(RECORD(1), 6, 1, -1), BAD);
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 0, 1, 0, 'k'), R, 5, 6), BAD);
    assert_int_equal(load_crafted(RECORD(0, 5, 1, 0, 1, 0, 'k'), R, 5, -2), BAD);
}

static void test_newer_version(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append(&b, SNAPSHOT_MAGIC, 8);
    buf_append_u32(&b, SNAPSHOT_VERSION + 1);
    buf_append_u32(&b, 0);
    buf_append_u64(&b, 1);
    buf_append_u64(&b, 1);
    buf_append_u64(&b, XXH3_64bits(b.data, b.len));
    struct store *t;
    assert_int_equal(load(buf_slice(&b), 1000, &t, NULL), ERR_UNSUPPORTED);
    buf_release(&b);
}

static void test_memory(void **state)
{
    (void)state;
    struct store *s = sample(), *t;
    struct buf b = cut(s);
    uint64_t nth = 1;
    for (;; nth++) {
        struct err e = {{0}};
        mem_fail_nth(nth);
        int rc = load(buf_slice(&b), 33, &t, &e);
        bool fired = mem_fail_nth(0);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        if (!rc) store_free(t);
        if (!fired) break;
    }
    assert_true(nth > 3);
    struct store_snapshot *snap = store_snapshot_open(s);
    struct buf out = {0};
    for (bool done = false; !done;) { /* what failed can be asked again */
        struct buf piece = {0};
        mem_fail_nth(1);
        int rc = store_snapshot_next(snap, 100, &piece, &done);
        assert_true(rc == (mem_fail_nth(0) ? ERR_NOMEM : 0) && (!rc || piece.len == 0));
        piece.failed = 0;
        if (rc) assert_int_equal(store_snapshot_next(snap, 100, &piece, &done), 0);
        buf_append_slice(&out, buf_slice(&piece));
        buf_release(&piece);
    }
    store_snapshot_close(snap);
    assert_true(slice_eq(buf_slice(&out), buf_slice(&b)));
    buf_release(&out);
    buf_release(&b);
    store_free(s);
}

/* The index of a loaded store is sorted by eight bytes at a time: keys that differ late, by length,
 * by zeros. */
static void test_sorting(void **state)
{
    (void)state;
    struct store *s = store_new(NULL), *t;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        uint8_t key[64] = "/registry/pods/default/";
        size_t len = 1 + (size_t)rand() % 60;
        for (size_t k = 20; k < len; k++) key[k] = (uint8_t)(rand() % 3 ? 0 : rand() % 4);
        run(s, &(struct command){COMMAND_OP, .op = {OP_PUT, .put = {.key = slice_make(key, len)}}});
    }
    drop_events(s);
    struct buf b = cut(s);
    assert_int_equal(load(buf_slice(&b), 100000, &t, NULL), 0);
    index_check(&t->index);
    assert_true(t->index.entries == s->index.entries && store_keys(t) == store_keys(s));
    struct index_path p, q;
    struct record *y = index_seek(&t->index, (struct slice){0}, &q);
    for (struct record *x = index_seek(&s->index, (struct slice){0}, &p); x;
         x = index_next(&s->index, &p)) {
        assert_true(slice_eq(record_key(x), record_key(y)) && x->mod_rev == y->mod_rev &&
                    x->version == y->version);
        y = index_next(&t->index, &q);
    }
    buf_release(&b);
    store_free(s);
    store_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_truncated),  cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_shuffled),   cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_crafted),    cmocka_unit_test(test_newer_version),
        cmocka_unit_test(test_memory),     cmocka_unit_test(test_sorting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
