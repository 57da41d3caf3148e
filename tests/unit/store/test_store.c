/* What the model does not cover: memory that fails or is given back, the quota and its alarm,
 * members, callbacks, big ranges, things left open when the store goes. */
#include "tests/unit/store/helpers.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"

static void test_empty(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    assert_true(store_revision(s) == 1 && store_compact_revision(s) == -1 && store_keys(s) == 0);
    assert_true(store_size(s) == 0 && store_size_in_use(s) == 0);
    assert_null(store_take_events(s));
    assert_false(store_work(s, 10));
    struct event_batch *b = NULL;
    assert_int_equal(store_events(s, 0, 100, 10, 1000, &b), 0);
    assert_null(b);
    assert_int_equal(compact_to(s, -1), ERR_COMPACTED);
    assert_int_equal(compact_to(s, 2), ERR_FUTURE_REV);
    assert_int_equal(compact_to(s, 0), 0); /* as etcd */
    assert_int_equal(compact_to(s, 0), ERR_COMPACTED);
    assert_int_equal(compact_to(s, 1), 0);
    assert_false(store_work(s, 10));
    store_free(s);
    store_free(NULL);
}

/* Keys that are deleted already are passed by in steps, too. */
static void test_steps_over_the_deleted(void **state)
{
    enum { KEYS = 2000, MOST = 200, RANGES = 3 };
    (void)state;
    struct store *s = store_new(NULL);
    struct arena a = {0};
    struct result r;
    char key[RANGES + 1][8] = {"a", "b", "c", "d"};
    struct op deletes[RANGES] = {{0}};
    for (int i = 0; i < RANGES; i++) {
        for (int k = 0; k <= KEYS; k++) {
            char name[16];
            snprintf(name, sizeof(name), "%c%04d", key[i][0], k);
            assert_int_equal(put(s, name, "x"), 0);
            if (k < KEYS) assert_int_equal(del(s, name), 0);
        }
        deletes[i] = (struct op){OP_DELETE, .del = {.key = slice_str(key[i]), .range_end = slice_str(key[i + 1])}};
    }
    drop_events(s);
    struct txn_op txn = {.success = deletes, .n_success = RANGES};
    struct command c = {COMMAND_OP, .op = {OP_TXN, .txn = &txn}};
    assert_true(store_apply_is_long(s, &c, RANGES - 1));
    struct store_apply *p = store_apply_begin(s, &c, &a, &r);
    unsigned steps = 1;
    while (!store_apply_step(p, MOST)) steps++;
    assert_true(steps >= RANGES * KEYS / MOST);
    assert_int_equal(r.code, 0);
    assert_true(store_keys(s) == 0);
    result_release(&r);
    arena_release(&a);
    drop_events(s);
    store_free(s);
}

/* All that a key, its versions and its deletion took goes once compaction has passed it. */
static void test_compaction_gives_all_back(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    char key[20];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3000; i++) {
            sprintf(key, "key%d", i % 700);
            assert_int_equal(i % 5 ? put(s, key, "value") : del(s, key), 0);
        }
        del_all(s);
        assert_int_equal(compact_to(s, store_revision(s)),
                         0); /* keeps the deletions at this very revision */
        work_off(s);
        assert_int_equal(store_keys(s), 0);
        assert_int_equal(store_size_in_use(s), 0);
    }
    put(s, "last", "1");
    assert_int_equal(compact_to(s, store_revision(s)), 0);
    work_off(s);
    drop_events(s);
    assert_int_equal(s->log.records, 1);
    assert_int_equal(s->log.n, 1);
    assert_int_equal(s->index.entries, 1);
    assert_int_equal(store_size(s), store_size_in_use(s));
    store_free(s);
}

static void test_pins_hold_memory(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    for (int i = 0; i < 100; i++) put(s, "k", "v");
    struct store_cursor *c;
    assert_int_equal(
        store_cursor_open(s, &(struct range_op){.key = SLICE_LIT("k"), .revision = 50}, &c), 0);
    assert_int_equal(compact_to(s, 101), 0);
    work_off(s);
    assert_int_equal(s->log.records, 101 - 50 + 1);
    struct arena a = {0};
    struct range_result r;
    assert_int_equal(store_cursor_next(c, 10, 1000, &a, &r), 0);
    assert_true(r.n == 1 && r.records[0]->mod_rev == 50 && !r.more);
    record_unref(r.records[0]);
    store_cursor_close(c);
    work_off(s);
    assert_int_equal(s->log.records, 1);
    arena_release(&a);
    store_free(s);
}

/* Whoever still has something open when the store is replaced is told, and can close it. */
static void test_store_goes_first(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    put(s, "k", "v");
    struct store_cursor *c;
    struct store_hash *h;
    assert_int_equal(store_cursor_open(s, &(struct range_op){.key = SLICE_LIT("k")}, &c), 0);
    assert_int_equal(store_hash_open(s, 0, &h), 0);
    struct store_snapshot *snap = store_snapshot_open(s);
    store_free(s);
    struct arena a = {0};
    struct range_result r;
    struct buf out = {0};
    bool done;
    assert_int_equal(store_cursor_next(c, 1, 1, &a, &r), ERR_CLOSED);
    assert_int_equal(store_snapshot_next(snap, 1000, &out, &done), ERR_CLOSED);
    assert_true(store_hash_step(h, 1));
    store_cursor_close(c);
    store_hash_close(h);
    store_snapshot_close(snap);
}

/* ---- quota and alarms ----------------------------------------------------------------------- */

static struct command txn_command(struct txn_op *t)
{
    return (struct command){COMMAND_OP, .op = {OP_TXN, .txn = t}};
}

static void test_quota(void **state)
{
    (void)state;
    struct store *s = store_new(&(struct store_options){.quota_bytes = 20000});
    char key[20];
    int n = 0, rc;
    do sprintf(key, "key%04d", n++);
    while ((rc = put(s, key, "0123456789")) == 0);
    assert_int_equal(rc, ERR_NO_SPACE);
    assert_int_equal(n - 1, 20000 / (RECORD_COST + 17));
    int64_t rev = store_revision(s);
    struct alarm alarms[2];
    assert_int_equal(store_alarms(s, alarms, 2), 1);
    assert_int_equal(alarms[0].alarm, ALARM_NOSPACE);

    struct op puts[] = {
        {OP_PUT, .put = {.key = SLICE_LIT("more"), .value = SLICE_LIT("0123456789")}},
        {OP_DELETE, .del = {.key = SLICE_LIT("key0001")}}};
    struct command t = txn_command(&(struct txn_op){.success = puts, .n_success = 2});
    assert_int_equal(run(s, &t), ERR_NO_SPACE);
    assert_true(store_revision(s) == rev && store_keys(s) == n - 1); /* nothing of it was done */
    t.op.txn->success++;
    t.op.txn->n_success = 1;
    assert_int_equal(run(s, &t), 0); /* deletes only */
    assert_int_equal(grant(s, 1, 10), ERR_NO_SPACE);
    assert_int_equal(store_alarms(s, alarms, 2), 1);
    assert_int_equal(del_all(s), 0);
    assert_int_equal(put(s, "more", "x"), ERR_NO_SPACE); /* deleting alone frees nothing */
    assert_int_equal(compact_to(s, store_revision(s)), 0);
    assert_int_equal(store_alarms(s, alarms, 2),
                     0); /* cleared by itself, before the memory is even freed */
    assert_int_equal(put(s, "more", "x"), 0);
    static char big[30000];
    memset(big, 'x', sizeof(big) - 1);
    assert_int_equal(put(s, "more", big), ERR_NO_SPACE);
    drop_events(s);
    store_free(s);
}

/* The alarm of a refused request is seen although one of 5% of the quota would still fit. */
static void test_quota_and_large_requests(void **state)
{
    (void)state;
    static char value[1000001];
    struct store *s = store_new(&(struct store_options){.quota_bytes = 16000000});
    struct alarm alarm;
    char key[20];
    int n = 0;
    memset(value, 'x', sizeof(value) - 1);
    do sprintf(key, "key%04d", n++);
    while (put(s, key, value) == 0);
    assert_int_equal(n, 16);
    assert_int_equal(store_alarms(s, &alarm, 1), 1);
    assert_int_equal(put(s, "small", "x"), 0); /* an alarm of the quota's own blocks nothing that has room */
    assert_int_equal(store_alarms(s, &alarm, 1), 1);
    assert_int_equal(del(s, "key0000"), 0);
    assert_int_equal(compact_to(s, store_revision(s)), 0);
    assert_int_equal(store_alarms(s, &alarm, 1), 0);
    drop_events(s);
    store_free(s);
}

static void test_alarms(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    struct alarm alarms[4];
    assert_int_equal(put(s, "k", "v"), 0);
    assert_int_equal(alarm_set(s, 7, ALARM_NONE, true), 0);
    assert_int_equal(store_alarms(s, alarms, 4), 0);
    assert_int_equal(alarm_set(s, 7, ALARM_NOSPACE, true), 0);
    assert_int_equal(alarm_set(s, 7, ALARM_NOSPACE, true), 0);
    assert_int_equal(alarm_set(s, 8, ALARM_NOSPACE, true), 0);
    assert_int_equal(store_alarms(s, alarms, 1), 1);
    assert_int_equal(store_alarms(s, alarms, 4), 2);
    assert_int_equal(put(s, "k", "v"), ERR_NO_SPACE);
    assert_int_equal(grant(s, 1, 10), ERR_NO_SPACE);
    struct op op = {OP_PUT, .put = {.key = SLICE_LIT("k")}};
    struct txn_op txn = {.failure = &op, .n_failure = 1};
    struct command t = txn_command(&txn);
    assert_int_equal(run(s, &t), ERR_NO_SPACE); /* as etcd: by what it could put */
    assert_int_equal(del(s, "k"), 0);
    assert_int_equal(compact_to(s, 2), 0);
    assert_int_equal(alarm_set(s, 7, ALARM_NOSPACE, false), 0);
    assert_int_equal(put(s, "k", "v"), ERR_NO_SPACE);
    assert_int_equal(alarm_set(s, 8, ALARM_NOSPACE, false), 0);
    assert_int_equal(alarm_set(s, 8, ALARM_NOSPACE, false), 0);
    assert_int_equal(put(s, "k", "v"), 0);
    assert_int_equal(alarm_set(s, 8, ALARM_CORRUPT, true), 0);
    assert_int_equal(put(s, "k", "v"), ERR_CORRUPT);
    assert_int_equal(del(s, "k"), ERR_CORRUPT);
    assert_int_equal(compact_to(s, 3), ERR_CORRUPT);
    assert_int_equal(alarm_set(s, 8, ALARM_CORRUPT, false), 0);
    assert_int_equal(compact_to(s, 3), 0);
    drop_events(s);
    store_free(s);
}

static void test_members(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    struct slice urls[] = {SLICE_LIT("http://a"), SLICE_LIT("http://b")};
    struct command c = {COMMAND_MEMBER_ATTRIBUTES, .member = {9, SLICE_LIT("n1"), urls, 2}};
    struct member_attributes m;
    assert_false(store_member_attributes(s, 9, &m));
    assert_int_equal(run(s, &c), 0);
    assert_int_equal(store_revision(s), 1);
    assert_true(store_member_attributes(s, 9, &m) && slice_eq_str(m.name, "n1") &&
                m.n_client_urls == 2);
    assert_true(slice_eq_str(m.client_urls[1], "http://b"));
    c.member.name = SLICE_LIT("other");
    c.member.n_client_urls = 0;
    assert_int_equal(run(s, &c), 0);
    assert_true(store_member_attributes(s, 9, &m) && slice_eq_str(m.name, "other") &&
                m.n_client_urls == 0);
    for (uint64_t id = 10; id < 9 + LIMIT_MEMBER_RECORDS; id++) {
        c.member.member_id = id;
        assert_int_equal(run(s, &c), 0);
    }
    c.member.member_id = 5;
    assert_int_equal(run(s, &c), ERR_LIMIT);
    /* Without name and URLs: forgotten, with its alarms. */
    assert_int_equal(alarm_set(s, 9, ALARM_NOSPACE, true), 0);
    assert_int_equal(alarm_set(s, 10, ALARM_NOSPACE, true), 0);
    assert_int_equal(run(s, &(struct command){COMMAND_VERDICT, .check = {.member_id = 9, .corrupt = true}}), 0);
    assert_true(store_member_corrupt(s, 9));
    assert_int_equal(store_member_after(s, 0), 9);
    struct alarm alarms[4];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run(s, &(struct command){COMMAND_MEMBER_ATTRIBUTES, .member = {.member_id = 9}}), 0);
        assert_false(store_member_attributes(s, 9, &m));
        assert_int_equal(store_member_after(s, 0), 10);
        assert_int_equal(store_alarms(s, alarms, 4), 1);
        assert_int_equal(alarms[0].member_id, 10);
    }
    assert_true(store_member_attributes(s, 10, &m) && slice_eq_str(m.name, "other"));
    assert_int_equal(run(s, &c), 0); /* there is room again */
    assert_int_equal(store_member_after(s, 0), 5);
    assert_int_equal(run(s, &(struct command){COMMAND_VERDICT, .check = {.member_id = 3, .corrupt = true}}), 0);
    assert_int_equal(store_member_after(s, 0), 3);
    assert_int_equal(store_member_after(s, 8 + LIMIT_MEMBER_RECORDS), 0);
    store_free(s);
}

/* ---- leases --------------------------------------------------------------------------------- */

struct calls {
    int64_t id[8];
    bool granted[8];
    int n;
};

static void on_lease(void *ctx, int64_t id, bool granted)
{
    struct calls *c = ctx;
    c->id[c->n] = id;
    c->granted[c->n++] = granted;
}

static void test_lease_calls(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    struct calls c = {0};
    store_on_lease(s, on_lease, &c);
    assert_int_equal(c.n, 0);
    assert_int_equal(grant(s, 5, 1), 0);
    assert_int_equal(grant(s, 5, 1), ERR_LEASE_EXISTS);
    assert_int_equal(grant(s, 0, 1), ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(s, 6, LIMIT_LEASE_TTL + 1), ERR_LEASE_TTL_TOO_LARGE);
    assert_int_equal(put_lease(s, "a", "1", 5), 0);
    assert_int_equal(put_lease(s, "b", "1", 6), ERR_LEASE_NOT_FOUND);
    assert_int_equal(revoke(s, 6), ERR_LEASE_NOT_FOUND);
    assert_true(c.n == 1 && c.id[0] == 5 && c.granted[0]);
    assert_int_equal(grant(s, -3, 1), 0);
    struct calls again = {0};
    store_on_lease(s, on_lease, &again); /* a store that has leases: all anew */
    assert_true(again.n == 1 && again.id[0] == 0 && again.granted[0]);
    assert_int_equal(revoke(s, 5), 0);
    assert_true(again.n == 2 && again.id[1] == 5 && !again.granted[1]);
    assert_int_equal(store_keys(s), 0);
    assert_int_equal(store_revision(s), 3);
    drop_events(s);
    store_free(s);
}

static void test_many_leases(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct store *s = store_new(NULL);
    for (int64_t i = 0; i < N; i++) assert_int_equal(grant(s, (i * 7919) % 65537 - 30000, 5), 0);
    assert_int_equal(grant(s, INT64_MIN, 5), 0);
    assert_int_equal(grant(s, INT64_MAX, 5), 0);
    int64_t ids[N + 3], after = 0;
    size_t n = 0, some;
    for (; (some = store_leases(s, after, ids + n, 100)); after = ids[n - 1]) n += some;
    assert_int_equal(n, N + 2);
    assert_true(ids[0] == INT64_MIN && ids[n - 1] == INT64_MAX);
    for (size_t i = 1; i < n; i++) assert_true(ids[i - 1] < ids[i]);
    for (size_t i = 0; i < n; i += 2) assert_int_equal(revoke(s, ids[i]), 0);
    for (size_t i = 0; i < n; i++) {
        struct lease_info info;
        assert_true(store_lease(s, ids[i], &info) == (i % 2 == 1));
    }
    for (size_t i = 1; i < n; i += 2) assert_int_equal(revoke(s, ids[i]), 0);
    assert_int_equal(store_leases(s, 0, ids, 10), 0);
    store_free(s);
}

/* ---- big ranges ----------------------------------------------------------------------------- */

static void test_counts_in_the_past(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct store *s = store_new(NULL);
    char key[20];
    for (int i = 0; i < N; i++) {
        sprintf(key, "key%05d", i);
        put(s, key, "");
    }
    for (int i = 0; i < 400; i++) { /* few changes behind many keys: counted from the log */
        sprintf(key, "key%05d", i * 3);
        if (i % 2) del(s, key);
        else put(s, key, "again");
        sprintf(key, "new%05d", i);
        put(s, key, "");
    }
    struct arena a = {0};
    for (int64_t rev = 1; rev <= store_revision(s); rev += 37) {
        struct range_op op = {
            .key = SLICE_LIT("key00010"), .range_end = SLICE_LIT("new00100"), .revision = rev};
        struct range_result r;
        assert_int_equal(store_range(s, &op, &a, &r), 0);
        assert_int_equal(r.n, r.count);
        size_t n = r.n;
        for (size_t i = 0; i < n; i++) record_unref(r.records[i]);
        const struct view v = {s, &a, rev};
        int64_t walked = 0;
        struct index_path path;
        for (struct record *x = index_seek(&s->index, op.key, &path);
             x && range_has(op.range_end, record_key(x)); x = index_next(&s->index, &path)) {
            struct record *at = version_at(x, rev);
            walked += at && !at->tombstone;
        }
        assert_int_equal(range_count(&v, op.key, op.range_end), walked);
        arena_reset(&a);
    }
    arena_release(&a);
    drop_events(s);
    store_free(s);
}

static void test_odd_ranges(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    put(s, "a", "1");
    put(s, "b", "2");
    static const struct {
        struct slice key, end;
        size_t n;
    } cases[] = {
        {SLICE_LIT("a"), SLICE_LIT("a"), 0},   {SLICE_LIT("b"), SLICE_LIT("a"), 0},
        {SLICE_LIT("\0"), SLICE_LIT("\0"), 2}, {SLICE_LIT("b"), SLICE_LIT("\0"), 1},
        {SLICE_LIT("c"), SLICE_LIT("\0"), 0},  {SLICE_LIT("a"), SLICE_LIT("a\0"), 1},
        {SLICE_LIT("a\0"), SLICE_LIT("b"), 0}, {SLICE_LIT("a"), SLICE_LIT(""), 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arena a = {0};
        struct range_result r;
        assert_int_equal(
            store_range(s, &(struct range_op){.key = cases[i].key, .range_end = cases[i].end}, &a,
                        &r),
            0);
        assert_true(r.n == cases[i].n && r.count == (int64_t)cases[i].n && !r.more);
        for (size_t k = 0; k < r.n; k++) record_unref(r.records[k]);
        arena_release(&a);
    }
    drop_events(s);
    store_free(s);
}

/* ---- memory --------------------------------------------------------------------------------- */

/* One of the reads; its code, and what it held is dropped again. */
static int read_something(struct store *s, int what)
{
    struct arena a = {0};
    struct range_op op = {
        .key = SLICE_LIT("\0"), .range_end = SLICE_LIT("\0"), .sort_target = SORT_VALUE};
    struct op ops[] = {{OP_RANGE, .range = op}, {OP_RANGE, .range = {.key = SLICE_LIT("k1")}}};
    struct txn_op txn = {.success = ops, .n_success = 2};
    struct result r = {.type = COMMAND_OP, .op.type = OP_RANGE};
    struct store_cursor *c = NULL;
    struct event_batch *b = NULL;
    struct store_hash *h = NULL;
    struct slice *keys;
    size_t n;
    int rc;
    if (what == 0) rc = store_range(s, &op, &a, &r.op.range);
    else if (what == 1) store_txn_read(s, &txn, &a, &r), rc = r.code;
    else if (what == 2) rc = store_events(s, 2, 100, 50, 1000, &b);
    else if (what == 3) rc = store_lease_keys(s, 1, &a, &keys, &n);
    else if (what == 4) rc = store_hash_open(s, 0, &h);
    else {
        rc = store_cursor_open(s, &op, &c);
        if (!rc) rc = store_cursor_next(c, 2, 1000, &a, &r.op.range);
    }
    if (rc) r.op.range.n = 0;
    result_release(&r);
    store_cursor_close(c);
    event_batch_unref(b);
    store_hash_close(h);
    arena_release(&a);
    return rc;
}

static void test_reads_without_memory(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    char key[200];
    grant(s, 1, 10);
    for (int i = 0; i < 40; i++) {
        memset(key, 'k', sizeof(key));
        sprintf(key + 150, "%d", i);
        put_lease(s, key, "value", 1);
    }
    drop_events(s);
    for (int what = 0; what < 6; what++) {
        uint64_t nth = 1;
        for (;; nth++) {
            mem_fail_nth(nth);
            int rc = read_something(s, what);
            bool fired = mem_fail_nth(0);
            assert_int_equal(rc, fired ? ERR_NOMEM : 0);
            if (!fired) break;
        }
        assert_true(nth > 1);
        assert_int_equal(read_something(s, what), 0);
    }
    store_free(s);
}

/* A cursor goes on where it was when memory ran out in between. */
static void test_cursor_without_memory(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    char key[300];
    for (int i = 0; i < 10; i++) {
        memset(key, 'k', sizeof(key));
        sprintf(key + 20 * i, "%d", i);
        put(s, key, "");
    }
    drop_events(s);
    struct store_cursor *c;
    assert_int_equal(
        store_cursor_open(
            s, &(struct range_op){.key = SLICE_LIT("\0"), .range_end = SLICE_LIT("\0")}, &c),
        0);
    size_t seen = 0;
    for (unsigned i = 0; seen < 10; i++) {
        struct arena a = {0};
        struct range_result r;
        mem_fail_nth(1 + i % 3);
        int rc = store_cursor_next(c, 1, SIZE_MAX, &a, &r);
        mem_fail_nth(0);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        if (!rc) {
            assert_int_equal(r.n, 1);
            record_unref(r.records[0]);
            seen++;
        }
        arena_release(&a);
    }
    store_cursor_close(c);
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_steps_over_the_deleted),
        cmocka_unit_test(test_compaction_gives_all_back),
        cmocka_unit_test(test_pins_hold_memory),
        cmocka_unit_test(test_store_goes_first),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_quota_and_large_requests),
        cmocka_unit_test(test_alarms),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_lease_calls),
        cmocka_unit_test(test_many_leases),
        cmocka_unit_test(test_counts_in_the_past),
        cmocka_unit_test(test_odd_ranges),
        cmocka_unit_test(test_reads_without_memory),
        cmocka_unit_test(test_cursor_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
