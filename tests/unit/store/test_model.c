/* Random commands to the store and to a plain model of etcd's semantics side by side; every answer
 * must agree, through compaction, cursors that stay open, and snapshots that are taken while
 * commands go on and then taken in.
 *
 * STORE_SEED=n repeats one run, STORE_RUNS=n makes more of them. */
#include <stdio.h>

#include "base/mem.h"
#include "tests/unit/store/model.h"

static uint64_t random_state;
static uint64_t current_seed; /* 0 = none under way */

static uint32_t rnd(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

enum { CURSORS = 3, KEYS = 40 };

struct open_cursor {
    struct store_cursor *c;
    struct version *expect;
    size_t n, at;
    int64_t count;
    bool first;
};

struct run {
    struct store *s;
    struct model m;
    struct arena arena;
    struct open_cursor cursors[CURSORS];
    struct store_snapshot *snapshot;
    struct model at_open; /* the model as it was when the snapshot was opened */
    struct buf stream;
    struct store_hash *hash;
    uint32_t expect_hash;
    struct store_check *check;
    uint64_t expect_check, snapshot_check; /* the check's value at the open of itself, and of the snapshot */
    bool in_steps; /* half of a command is applied */
    unsigned keys; /* how many different ones */
};

/* ---- making up commands --------------------------------------------------------------------- */

static struct slice bytes(struct run *t, const void *data, size_t len)
{
    return arena_dup(&t->arena, slice_make(data, len));
}

static struct slice some_key(struct run *t)
{
    uint32_t i = rnd(t->keys);
    char text[MODEL_KEY];
    if (i == 0) return bytes(t, "a", 1);
    if (i == 1) return bytes(t, "a\0", 2);
    if (i == 2) return bytes(t, "a\0\0", 3);
    if (i == 3) return bytes(t, "\xff\xff", 2);
    int n = i % 3 ? snprintf(text, sizeof(text), "/registry/pods/%x", i)
                  : snprintf(text, sizeof(text), "k%u", i);
    return bytes(t, text, (size_t)n);
}

static struct slice some_end(struct run *t)
{
    switch (rnd(6)) {
    case 0: return bytes(t, "\0", 1);
    case 1:
    case 2: return some_key(t);
    case 3: return bytes(t, "/registry0", 10);
    default: return (struct slice){0};
    }
}

static struct slice some_value(struct run *t)
{
    char text[MODEL_VALUE];
    int n = snprintf(text, sizeof(text), "%.*s%u", (int)rnd(16), "aaaaaaaaaaaaaaaaa", rnd(30));
    return rnd(10) ? bytes(t, text, (size_t)n) : (struct slice){0};
}

static int64_t some_lease(struct run *t)
{
    if (rnd(3) || !t->m.n_leases) return 0;
    return rnd(20) ? t->m.leases[rnd((uint32_t)t->m.n_leases)].id : 999;
}

static int64_t some_rev(struct run *t)
{
    if (rnd(3) == 0) return 0;
    return t->m.rev - (int64_t)rnd(30) + (rnd(20) ? 0 : 32);
}

static struct range_op some_range(struct run *t)
{
    struct range_op op = {.key = rnd(4) ? some_key(t) : bytes(t, "\0", 1),
                          .range_end = some_end(t)};
    if (rnd(2)) op.limit = rnd(8);
    if (rnd(2)) op.revision = some_rev(t);
    if (rnd(3) == 0) op.sort_order = (enum sort_order)rnd(3);
    if (rnd(3) == 0) op.sort_target = (enum sort_target)rnd(5);
    op.keys_only = rnd(8) == 0;
    op.count_only = rnd(8) == 0;
    if (rnd(6) == 0) op.min_mod_revision = t->m.rev - rnd(40);
    if (rnd(6) == 0) op.max_mod_revision = t->m.rev - rnd(40);
    if (rnd(8) == 0) op.min_create_revision = t->m.rev - rnd(80);
    if (rnd(8) == 0) op.max_create_revision = t->m.rev - rnd(80);
    return op;
}

static struct put_op some_put(struct run *t)
{
    struct put_op op = {.key = some_key(t), .prev_kv = rnd(2)};
    op.ignore_value = rnd(10) == 0;
    op.ignore_lease = rnd(10) == 0;
    if (!op.ignore_value) op.value = some_value(t);
    if (!op.ignore_lease) op.lease = some_lease(t);
    return op;
}

static struct compare some_compare(struct run *t)
{
    struct compare c = {.result = (enum compare_result)rnd(4),
                        .target = (enum compare_target)rnd(5),
                        .key = some_key(t)};
    if (rnd(4) == 0) c.range_end = some_end(t);
    if (c.target == COMPARE_VALUE) c.value = some_value(t);
    else if (c.target == COMPARE_VERSION) c.number = rnd(4);
    else if (c.target == COMPARE_LEASE) c.number = some_lease(t);
    else c.number = rnd(3) ? t->m.rev - rnd(40) : 0;
    return c;
}

static struct txn_op *some_txn(struct run *t, unsigned depth);

static struct op *some_ops(struct run *t, unsigned depth, size_t *ret_n)
{
    size_t n = rnd(4);
    struct op *ops = arena_calloc(&t->arena, n, sizeof(*ops));
    for (size_t i = 0; i < n; i++) {
        switch (rnd(depth < 3 ? 8 : 6)) {
        case 0:
        case 1: ops[i] = (struct op){OP_RANGE, .range = some_range(t)}; break;
        case 2: ops[i] = (struct op){OP_DELETE, .del = {some_key(t), some_end(t), rnd(2)}}; break;
        case 6:
        case 7: ops[i] = (struct op){OP_TXN, .txn = some_txn(t, depth + 1)}; break;
        default: ops[i] = (struct op){OP_PUT, .put = some_put(t)}; break;
        }
    }
    *ret_n = n;
    return ops;
}

static struct txn_op *some_txn(struct run *t, unsigned depth)
{
    struct txn_op *txn = arena_calloc(&t->arena, 1, sizeof(*txn));
    txn->n_compares = rnd(3);
    txn->compares = arena_calloc(&t->arena, txn->n_compares, sizeof(*txn->compares));
    for (size_t i = 0; i < txn->n_compares; i++) txn->compares[i] = some_compare(t);
    txn->success = some_ops(t, depth, &txn->n_success);
    txn->failure = some_ops(t, depth, &txn->n_failure);
    return txn;
}

static struct command some_command(struct run *t)
{
    struct command c = {.type = COMMAND_OP};
    uint32_t dice = rnd(100);
    if (dice < 50) {
        c.op = (struct op){OP_PUT, .put = some_put(t)};
    } else if (dice < 62) {
        c.op = (struct op){OP_DELETE,
                           .del = {some_key(t), rnd(3) ? (struct slice){0} : some_end(t), rnd(2)}};
    } else if (dice < 85) {
        do c.op = (struct op){OP_TXN, .txn = some_txn(t, 1)};
        while (command_check(&c)); /* overlaps */
    } else if (dice < 90) {
        c.type = COMMAND_COMPACT;
        c.compact.revision = rnd(4) ? t->m.rev - (int64_t)rnd(20) : t->m.rev + rnd(2);
    } else if (dice < 94) {
        c.type = COMMAND_LEASE_GRANT;
        c.lease_grant.id = 1 + rnd(MODEL_LEASES - 1);
        c.lease_grant.ttl = rnd(100);
    } else if (dice < 97) {
        c.type = COMMAND_LEASE_REVOKE;
        c.lease_revoke.id = 1 + rnd(MODEL_LEASES);
    } else {
        c.type = COMMAND_LEASE_CHECKPOINT;
        c.checkpoint.count = 1;
        c.checkpoint.leases = arena_calloc(&t->arena, 1, sizeof(struct lease_checkpoint));
        c.checkpoint.leases[0] = (struct lease_checkpoint){1 + rnd(MODEL_LEASES), rnd(100)};
    }
    return c;
}

/* ---- comparing ------------------------------------------------------------------------------ */

/* The command as it comes out of the log. */
static struct command through_codec(struct run *t, const struct command *c)
{
    struct buf b = {0};
    struct command ret;
    command_encode(&b, c);
    struct slice copy = arena_dup(&t->arena, buf_slice(&b));
    assert_int_equal(command_decode(&t->arena, copy, &ret), 0);
    buf_release(&b);
    return ret;
}

static void between_steps(struct run *t);

/* A deletion or revocation in steps: nobody who reads at an earlier revision sees the half of it. */
static void apply_in_steps(struct run *t, const struct command *c, struct result *r)
{
    struct store_apply *p = store_apply_begin(t->s, c, &t->arena, r);
    t->in_steps = true;
    while (!store_apply_step(p, 1 + rnd(2))) between_steps(t);
    t->in_steps = false;
}

static void apply_one(struct run *t)
{
    struct command made = some_command(t), c = through_codec(t, &made);
    struct result r;
    int64_t before = t->m.rev;
    if (store_apply_is_long(t->s, &c, 1) && rnd(3)) apply_in_steps(t, &c, &r);
    else store_apply(t->s, &c, &t->arena, &r);
    model_apply(&t->m, &c, &r);
    result_release(&r);
    struct event_batch *b = store_take_events(t->s);
    assert_true((b != NULL) == (t->m.rev > before));
    same_events(&t->m, before + 1, t->m.rev, b);
    event_batch_unref(b);
    assert_true(store_revision(t->s) == t->m.rev && store_compact_revision(t->s) == t->m.compact);
}

static int read_code(const struct model *m, int64_t rev)
{
    return rev > m->rev ? ERR_FUTURE_REV : rev > 0 && rev < m->compact ? ERR_COMPACTED : 0;
}

static void check_range(struct run *t, struct store *s, const struct model *m)
{
    struct range_op op = some_range(t);
    struct range_result r;
    int rc = store_range(s, &op, &t->arena, &r);
    assert_int_equal(rc, read_code(m, op.revision));
    if (rc) return;
    same_range(m, &op, op.revision > 0 ? op.revision : m->rev, &r);
    for (size_t i = 0; i < r.n; i++) record_unref(r.records[i]);
}

static void make_read_only(struct txn_op *txn)
{
    struct op *lists[] = {txn->success, txn->failure};
    size_t n[] = {txn->n_success, txn->n_failure};
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n[k]; i++) {
            if (lists[k][i].type == OP_TXN) make_read_only(lists[k][i].txn);
            else if (lists[k][i].type != OP_RANGE)
                lists[k][i] = (struct op){OP_RANGE, .range = {.key = lists[k][i].put.key}};
        }
    }
}

static void check_read_txn(struct run *t, struct store *s, struct model *m)
{
    struct txn_op *txn = some_txn(t, 1);
    make_read_only(txn);
    struct result r;
    store_txn_read(s, txn, &t->arena, &r);
    int rc = model_check(m, txn, OP_RANGE);
    assert_int_equal(r.code, rc);
    assert_int_equal(r.revision, m->rev);
    if (!rc) model_run(m, txn, &r.op);
    result_release(&r);
}

static void check_history(struct run *t, struct store *s, const struct model *m)
{
    int64_t from = m->compact + (int64_t)rnd(20) - 3, to = from + (int64_t)rnd(60);
    size_t max = 1 + rnd(50);
    struct event_batch *b;
    if (t->in_steps && to > m->rev) to = m->rev;
    int rc = store_events(s, from, to, max, SIZE_MAX, &b);
    assert_int_equal(rc, from < m->compact ? ERR_COMPACTED : 0);
    if (rc) return;
    if (b && b->count >= max && b->last_rev < to) {
        to = b->last_rev; /* cut: whole revisions, and not one too many */
        assert_true(b->events[b->count - 1].record->mod_rev == to);
        size_t before_last = 0;
        while (b->events[before_last].record->mod_rev < to) before_last++;
        assert_true(before_last < max);
    }
    same_events(m, from, to, b);
    event_batch_unref(b);
}

static void check_leases(struct run *t, struct store *s, const struct model *m)
{
    int64_t ids[MODEL_LEASES + 1], after = 0;
    size_t n = 0, some;
    while ((some = store_leases(s, after, ids + n, 1 + rnd(3)))) {
        n += some;
        after = ids[n - 1];
    }
    assert_int_equal(n, m->n_leases);
    for (size_t i = 0; i < n; i++) {
        size_t at = lease_at(m, ids[i]), n_shown, n_keys, k = 0;
        assert_true(at < m->n_leases && (i == 0 || ids[i - 1] < ids[i]));
        struct lease_info info;
        assert_true(store_lease(s, ids[i], &info));
        assert_true(info.ttl == m->leases[at].ttl && info.remaining_ttl == m->leases[at].remaining);
        struct slice *keys;
        assert_int_equal(store_lease_keys(s, ids[i], &t->arena, &keys, &n_keys), 0);
        const struct version **v = all_shown(m, SLICE_LIT("\0"), SLICE_LIT("\0"), m->rev, &n_shown);
        for (size_t j = 0; j < n_shown; j++)
            if (v[j]->lease == ids[i]) assert_true(k < n_keys && slice_eq(keys[k++], v_key(v[j])));
        assert_true(k == n_keys && info.n_keys == k);
        free(v);
    }
}

static void check_hash(struct run *t, struct store *s, const struct model *m)
{
    int64_t rev = some_rev(t);
    struct store_hash *h;
    int rc = store_hash_open(s, rev, &h);
    assert_int_equal(rc, rev > m->rev                  ? ERR_FUTURE_REV
                         : rev > 0 && rev < m->compact ? ERR_COMPACTED
                                                       : 0);
    if (rc) return;
    while (!store_hash_step(h, 1 + rnd(20))) {
    }
    assert_int_equal(store_hash_value(h), model_hash(m, rev ? rev : m->rev));
    assert_true(store_hash_compact_revision(h) == m->compact);
    assert_true(store_hash_revision(h) == (rev ? rev : m->rev));
    store_hash_close(h);
}

static int64_t model_size(const struct model *m)
{
    int64_t size = LEASE_COST * (int64_t)m->n_leases;
    for (size_t i = 0; i < m->n; i++) {
        const struct version *v = &m->versions[i];
        if (v->rev > m->compact || shown(m, v_key(v), m->compact) == v)
            size += RECORD_COST + v->key_len + v->value_len;
    }
    return size;
}

static void check_all(struct run *t, struct store *s, struct model *m)
{
    index_check(&s->index);
    for (int i = 0; i < 4; i++) check_range(t, s, m);
    check_read_txn(t, s, m);
    check_history(t, s, m);
    check_leases(t, s, m);
    check_hash(t, s, m);
    assert_int_equal(store_size_in_use(s), model_size(m));
    assert_true(store_size(s) >= store_size_in_use(s));
    size_t n;
    free(all_shown(m, SLICE_LIT("\0"), SLICE_LIT("\0"), m->rev, &n));
    assert_int_equal(store_keys(s), n);
}

/* ---- things that stay open ------------------------------------------------------------------ */

static void close_cursor(struct open_cursor *o)
{
    store_cursor_close(o->c);
    free(o->expect);
    *o = (struct open_cursor){0};
}

static void open_cursor(struct run *t, struct open_cursor *o)
{
    struct range_op op = {.key = rnd(2) ? some_key(t) : bytes(t, "\0", 1),
                          .range_end = some_end(t)};
    op.revision = some_rev(t);
    op.limit = rnd(3) ? 0 : rnd(10);
    int rc = store_cursor_open(t->s, &op, &o->c);
    assert_int_equal(rc, read_code(&t->m, op.revision));
    if (rc) return;
    int64_t rev = op.revision > 0 ? op.revision : t->m.rev;
    assert_true(store_cursor_revision(o->c) == rev);
    const struct version **v = all_shown(&t->m, op.key, op.range_end, rev, &o->n);
    o->count = (int64_t)o->n;
    o->first = true;
    if (op.limit > 0 && (size_t)op.limit < o->n) o->n = (size_t)op.limit;
    o->expect = malloc((o->n + 1) * sizeof(*o->expect));
    for (size_t i = 0; i < o->n; i++) o->expect[i] = *v[i];
    free(v);
}

static void step_cursor(struct run *t, struct open_cursor *o)
{
    struct range_result r;
    size_t max = 1 + rnd(5);
    assert_int_equal(store_cursor_next(o->c, max, rnd(4) ? SIZE_MAX : 1, &t->arena, &r), 0);
    assert_true(r.count == (o->first ? o->count : 0) && r.n <= max);
    o->first = false;
    for (size_t i = 0; i < r.n; i++) {
        assert_true(o->at < o->n);
        same_record(r.records[i], &o->expect[o->at++]);
        record_unref(r.records[i]);
    }
    assert_true(r.more == (o->at < o->n) && (r.n > 0 || !r.more));
    if (!r.more) close_cursor(o);
}

static void close_all(struct run *t)
{
    for (int i = 0; i < CURSORS; i++) close_cursor(&t->cursors[i]);
    store_hash_close(t->hash);
    t->hash = NULL;
    store_check_close(t->check);
    t->check = NULL;
    store_snapshot_close(t->snapshot);
    t->snapshot = NULL;
    buf_release(&t->stream);
}

/* At once, with nothing between its steps. */
static uint64_t check_value(struct store *s)
{
    struct store_check *c = store_check_open(s);
    while (!store_check_step(c, 1 + rnd(2000))) {
    }
    uint64_t value = store_check_value(c);
    store_check_close(c);
    return value;
}

static struct store *load(struct run *t, struct slice stream)
{
    struct store_loader *l = store_loader_new(NULL);
    struct err e;
    for (size_t at = 0; at < stream.len;) {
        size_t len = rnd(3) ? 1 + rnd(40) : 1 + rnd(5000);
        struct slice piece = slice_sub(stream, at, len);
        assert_int_equal(store_loader_feed(l, piece, &e), 0);
        at += piece.len;
    }
    struct store *s;
    assert_int_equal(store_loader_finish(l, &s, &e), 0);
    store_loader_free(l);
    (void)t;
    return s;
}

/* The whole stream is there: what it makes must be the state at `open`, whatever happened since. */
static void finish_snapshot(struct run *t)
{
    struct store *s = load(t, buf_slice(&t->stream));
    for (int i = 0; i < 3; i++) {
        check_all(t, s, &t->at_open);
        assert_true(check_value(s) == t->snapshot_check);
        store_work(s, rnd(50));
    }
    if (rnd(2)) { /* go on from there */
        close_all(t);
        store_free(t->s);
        model_free(&t->m);
        t->s = s;
        t->m = t->at_open;
    } else {
        store_snapshot_close(t->snapshot);
        t->snapshot = NULL;
        buf_release(&t->stream);
        store_free(s);
        model_free(&t->at_open);
    }
}

static void step_snapshot(struct run *t)
{
    if (!t->snapshot) {
        if (rnd(50)) return;
        t->snapshot = store_snapshot_open(t->s);
        t->at_open = model_copy(&t->m);
        t->snapshot_check = check_value(t->s);
    }
    bool done;
    assert_int_equal(store_snapshot_next(t->snapshot, 4096, &t->stream, &done), 0);
    if (done) finish_snapshot(t);
}

static void step_hash(struct run *t)
{
    if (!t->hash) {
        if (rnd(10)) return;
        assert_int_equal(store_hash_open(t->s, 0, &t->hash), 0);
        t->expect_hash = model_hash(&t->m, t->m.rev);
    }
    if (!store_hash_step(t->hash, 1 + rnd(30))) return;
    assert_int_equal(store_hash_value(t->hash), t->expect_hash);
    store_hash_close(t->hash);
    t->hash = NULL;
}

static void between_steps(struct run *t)
{
    struct open_cursor *o = &t->cursors[rnd(CURSORS)];
    if (o->c) step_cursor(t, o);
    if (t->hash) step_hash(t);
    check_history(t, t->s, &t->m);
    assert_true(store_revision(t->s) == t->m.rev);
}

/* Whatever is applied between its steps, its value is that of the moment it was opened at. */
static void step_check(struct run *t)
{
    if (!t->check) {
        if (rnd(6)) return;
        t->check = store_check_open(t->s);
        t->expect_check = check_value(t->s);
    }
    if (!store_check_step(t->check, 1 + rnd(1500))) return;
    assert_true(store_check_value(t->check) == t->expect_check);
    store_check_close(t->check);
    t->check = NULL;
}

static void one_run(uint64_t seed, unsigned steps)
{
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    struct run t = {.s = store_new(NULL), .m = {.rev = 1, .compact = -1}};
    t.keys = 5 + rnd(KEYS - 5);
    for (unsigned i = 0; i < steps; i++) {
        apply_one(&t);
        if (rnd(3) == 0) store_work(t.s, rnd(30));
        if (rnd(5) == 0) check_all(&t, t.s, &t.m);
        struct open_cursor *o = &t.cursors[rnd(CURSORS)];
        if (!o->c) open_cursor(&t, o);
        else step_cursor(&t, o);
        step_hash(&t);
        step_check(&t);
        step_snapshot(&t);
        arena_reset(&t.arena);
    }
    if (t.snapshot) model_free(&t.at_open);
    close_all(&t);
    while (store_work(t.s, 7)) {
    }
    check_all(&t, t.s, &t.m);
    store_free(t.s);
    model_free(&t.m);
    arena_release(&t.arena);
}

static void test_against_model(void **state)
{
    (void)state;
    const char *seed = getenv("STORE_SEED"), *runs = getenv("STORE_RUNS");
    if (seed) {
        one_run(strtoull(seed, NULL, 0), 400);
        return;
    }
    uint64_t n = runs ? strtoull(runs, NULL, 0) : 60;
    for (current_seed = 1; current_seed <= n; current_seed++) one_run(current_seed, 400);
    print_message("# seeds 1 to %llu\n", (unsigned long long)n);
    current_seed = 0;
}

static int tell_seed(void **state)
{
    (void)state;
    if (current_seed)
        print_message("# repeat it with STORE_SEED=%llu\n", (unsigned long long)current_seed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_against_model, tell_seed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
