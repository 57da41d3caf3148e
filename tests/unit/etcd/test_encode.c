/* The hand-written answers, read back by protobuf-c: records, ranges, txns in txns, events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "api/etcd/encode.h"
#include "api/etcd/watch_encode.h"
#include "base/mem.h"
#include "schemas/etcd/rpc.pb-c.h"

static uint64_t seed;

static uint64_t rnd64(void)
{
    seed += 0x9e3779b97f4a7c15u;
    uint64_t x = seed;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static unsigned rnd(unsigned n)
{
    return (unsigned)(rnd64() % n);
}

static int64_t number(void)
{
    return (int64_t)(rnd64() >> (1 + rnd(63)));
}

static struct arena arena;

static struct record *make_record(bool tombstone)
{
    size_t key = 1 + rnd(30), value = tombstone || rnd(4) == 0 ? 0 : rnd(300);
    struct record *r = arena_calloc(&arena, 1, sizeof(*r) + key + value);
    r->key_len = (uint32_t)key;
    r->value_len = (uint32_t)value;
    for (size_t i = 0; i < key + value; i++) r->data[i] = (uint8_t)rnd(256);
    r->tombstone = tombstone;
    r->mod_rev = 1 + number();
    if (tombstone) return r;
    r->create_rev = 1 + number();
    r->version = 1 + number();
    r->lease = rnd(2) ? (int64_t)rnd64() : 0;
    return r;
}

static void same_kv(const struct record *r, const Mvccpb__KeyValue *kv, bool keys_only)
{
    assert_non_null(kv);
    assert_true(slice_eq(record_key(r), slice_make(kv->key.data, kv->key.len)));
    struct slice value = keys_only ? (struct slice){0} : record_value(r);
    assert_true(slice_eq(value, slice_make(kv->value.data, kv->value.len)));
    assert_int_equal(kv->create_revision, r->create_rev);
    assert_int_equal(kv->mod_revision, r->mod_rev);
    assert_int_equal(kv->version, r->version);
    assert_int_equal(kv->lease, r->lease);
}

static void same_header(const struct header *h, const Etcdserverpb__ResponseHeader *m)
{
    assert_non_null(m);
    assert_true(m->cluster_id == h->cluster_id && m->member_id == h->member_id);
    assert_true(m->revision == h->revision && m->raft_term == h->raft_term);
}

static struct header make_header(void)
{
    return (struct header){rnd64(), rnd64() >> rnd(64), number(), rnd(1000)};
}

/* ---- results -----------------------------------------------------------------------------------
 */

static void make_range(struct op *op, struct op_result *r)
{
    op->type = r->type = OP_RANGE;
    op->range.keys_only = rnd(3) == 0;
    r->range.n = rnd(5);
    r->range.records = arena_calloc(&arena, 5, sizeof(struct record *));
    for (size_t i = 0; i < r->range.n; i++) r->range.records[i] = make_record(false);
    r->range.count = (int64_t)rnd(100000);
    r->range.more = rnd(2);
}

static void make_delete(struct op *op, struct op_result *r)
{
    op->type = r->type = OP_DELETE;
    r->del.deleted = rnd(3);
    r->del.n_prevs = rnd(2) ? (size_t)r->del.deleted : 0;
    r->del.prevs = arena_calloc(&arena, 3, sizeof(struct record *));
    for (size_t i = 0; i < r->del.n_prevs; i++) r->del.prevs[i] = make_record(false);
}

static void make_result(struct op *op, struct op_result *r, unsigned depth);

static void make_txn(struct op *op, struct op_result *r, unsigned depth)
{
    op->type = r->type = OP_TXN;
    op->txn = arena_calloc(&arena, 1, sizeof(*op->txn));
    r->txn.succeeded = rnd(2);
    r->txn.n = rnd(4);
    r->txn.results = arena_calloc(&arena, 4, sizeof(*r->txn.results));
    struct op *ops = arena_calloc(&arena, 4, sizeof(*ops));
    if (r->txn.succeeded) {
        op->txn->success = ops;
        op->txn->n_success = r->txn.n;
    } else {
        op->txn->failure = ops;
        op->txn->n_failure = r->txn.n;
    }
    for (size_t i = 0; i < r->txn.n; i++) make_result(&ops[i], &r->txn.results[i], depth + 1);
}

static void make_result(struct op *op, struct op_result *r, unsigned depth)
{
    switch (rnd(depth < 4 ? 4 : 3)) {
    case 0: make_range(op, r); break;
    case 1: make_delete(op, r); break;
    case 2:
        op->type = r->type = OP_PUT;
        r->put.prev = rnd(2) ? make_record(false) : NULL;
        break;
    default: make_txn(op, r, depth);
    }
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

static void same_range(const struct range_result *r, bool keys_only,
                       const Etcdserverpb__RangeResponse *m)
{
    assert_int_equal(m->n_kvs, r->n);
    for (size_t i = 0; i < r->n; i++) same_kv(r->records[i], m->kvs[i], keys_only);
    assert_int_equal(m->count, r->count);
    assert_int_equal(m->more, r->more);
}

static void same_delete(const struct op_result *r, const Etcdserverpb__DeleteRangeResponse *m)
{
    assert_int_equal(m->deleted, r->del.deleted);
    assert_int_equal(m->n_prev_kvs, r->del.n_prevs);
    for (size_t i = 0; i < r->del.n_prevs; i++) same_kv(r->del.prevs[i], m->prev_kvs[i], false);
}

static void same_put(const struct op_result *r, const Etcdserverpb__PutResponse *m)
{
    assert_int_equal(m->prev_kv != NULL, r->put.prev != NULL);
    if (r->put.prev) same_kv(r->put.prev, m->prev_kv, false);
}

/* `revision`: what a head must say at this point of the txn, which changes move on. */
struct at {
    int64_t before, after;
    bool changed;
};

static void same_inner_header(struct at *at, bool changes, const Etcdserverpb__ResponseHeader *m)
{
    at->changed |= changes;
    assert_non_null(m);
    assert_true(m->cluster_id == 0 && m->member_id == 0 && m->raft_term == 0);
    assert_int_equal(m->revision, at->changed ? at->after : at->before);
}

static void same_txn(struct at *at, const struct op_result *r, const struct txn_op *t,
                     const Etcdserverpb__TxnResponse *m)
{
    const struct op *ops = r->txn.succeeded ? t->success : t->failure;
    assert_int_equal(m->succeeded, r->txn.succeeded);
    assert_int_equal(m->n_responses, r->txn.n);
    for (size_t i = 0; i < r->txn.n; i++) {
        const struct op_result *one = &r->txn.results[i];
        const Etcdserverpb__ResponseOp *o = m->responses[i];
        assert_int_equal(o->response_case, one->type);
        switch (one->type) {
        case OP_RANGE:
            same_inner_header(at, false, o->response_range->header);
            same_range(&one->range, ops[i].range.keys_only, o->response_range);
            break;
        case OP_PUT:
            same_inner_header(at, true, o->response_put->header);
            same_put(one, o->response_put);
            break;
        case OP_DELETE:
            same_inner_header(at, one->del.deleted > 0, o->response_delete_range->header);
            same_delete(one, o->response_delete_range);
            break;
        case OP_TXN:
            assert_non_null(o->response_txn->header);
            assert_int_equal(o->response_txn->header->revision, 0);
            same_txn(at, one, ops[i].txn, o->response_txn);
        }
    }
}

static bool changes(const struct op_result *r)
{
    bool any = r->type == OP_PUT || (r->type == OP_DELETE && r->del.deleted > 0);
    for (size_t i = 0; r->type == OP_TXN && i < r->txn.n; i++) any |= changes(&r->txn.results[i]);
    return any;
}

static void test_answers(void **state)
{
    (void)state;
    for (seed = 5; seed < 3000005; seed += 1000) {
        struct header h = make_header();
        struct buf out = {0};
        struct op op = {0};
        struct op_result r = {0};
        make_range(&op, &r);
        encode_range_response(&out, &h, &r.range, op.range.keys_only);
        Etcdserverpb__RangeResponse *range =
            etcdserverpb__range_response__unpack(NULL, out.len, out.data);
        assert_non_null(range);
        same_header(&h, range->header);
        same_range(&r.range, op.range.keys_only, range);
        etcdserverpb__range_response__free_unpacked(range, NULL);

        buf_clear(&out);
        memset(&r, 0, sizeof(r));
        make_delete(&op, &r);
        encode_delete_response(&out, &h, &r);
        Etcdserverpb__DeleteRangeResponse *del =
            etcdserverpb__delete_range_response__unpack(NULL, out.len, out.data);
        assert_non_null(del);
        same_header(&h, del->header);
        same_delete(&r, del);
        etcdserverpb__delete_range_response__free_unpacked(del, NULL);

        buf_clear(&out);
        memset(&r, 0, sizeof(r));
        make_txn(&op, &r, 0);
        encode_txn_response(&out, &h, op.txn, &r);
        Etcdserverpb__TxnResponse *txn =
            etcdserverpb__txn_response__unpack(NULL, out.len, out.data);
        assert_non_null(txn);
        same_header(&h, txn->header);
        struct at at = {.before = changes(&r) ? h.revision - 1 : h.revision, .after = h.revision};
        same_txn(&at, &r, op.txn, txn);
        etcdserverpb__txn_response__free_unpacked(txn, NULL);
        buf_release(&out);
        arena_reset(&arena);
    }
    arena_release(&arena);
}

static void test_record_in_two_parts(void **state)
{
    (void)state;
    for (seed = 11; seed < 500011; seed += 1000) {
        struct record *r = make_record(false);
        uint8_t whole[600], parts[600], *p;
        size_t len = (size_t)(encode_kv(whole, r, false) - whole);
        assert_int_equal(len, kv_size(r, false));
        p = encode_kv_head(parts, r);
        if (r->value_len) memcpy(p, record_value(r).data, r->value_len);
        p = encode_kv_tail(p + r->value_len, r);
        assert_true(slice_eq(slice_make(whole, len), slice_make(parts, (size_t)(p - parts))));
        arena_reset(&arena);
    }
    arena_release(&arena);
}

static void test_events(void **state)
{
    (void)state;
    for (seed = 21; seed < 1000021; seed += 1000) {
        struct event e = {.record = make_record(rnd(2)),
                          .prev = rnd(2) ? make_record(false) : NULL};
        bool prev_kv = rnd(2), creates = !e.record->tombstone && rnd(2);
        if (creates) e.record->create_rev = e.record->mod_rev;
        else if (!e.record->tombstone) e.record->mod_rev = e.record->create_rev + 1;
        uint8_t out[1600];
        size_t len = (size_t)(encode_event(out, &e, prev_kv) - out);
        assert_int_equal(len, event_size(&e, prev_kv));
        Etcdserverpb__WatchResponse *w = etcdserverpb__watch_response__unpack(NULL, len, out);
        assert_non_null(w);
        assert_int_equal(w->n_events, 1);
        const Mvccpb__Event *m = w->events[0];
        assert_int_equal(m->type, e.record->tombstone ? MVCCPB__EVENT__EVENT_TYPE__DELETE
                                                      : MVCCPB__EVENT__EVENT_TYPE__PUT);
        same_kv(e.record, m->kv, false);
        assert_int_equal(m->prev_kv != NULL, prev_kv && e.prev && !creates);
        if (m->prev_kv) same_kv(e.prev, m->prev_kv, false);
        etcdserverpb__watch_response__free_unpacked(w, NULL);
        arena_reset(&arena);
    }
    arena_release(&arena);
}

/* A message that gRPC has no length for is refused before there is memory for it. */
static void test_too_large(void **state)
{
    (void)state;
    struct record r = {.key_len = 1, .value_len = 1u << 30, .mod_rev = 2, .create_rev = 2, .version = 1};
    struct record *five[] = {&r, &r, &r, &r, &r};
    struct header h = {.revision = 3};
    struct op_result del = {.type = OP_DELETE, .del = {.deleted = 5, .prevs = five, .n_prevs = 5}};
    struct range_result range = {.records = five, .n = 5, .count = 5};
    struct buf out = {0};
    encode_delete_response(&out, &h, &del);
    assert_int_equal(out.failed, ERR_LIMIT);
    out = (struct buf){0};
    encode_range_response(&out, &h, &range, false);
    assert_int_equal(out.failed, ERR_LIMIT);
}

static void test_control(void **state)
{
    (void)state;
    char reason[200];
    memset(reason, 'r', sizeof(reason));
    struct watch_control c = {.head = {UINT64_MAX, UINT64_MAX, INT64_MAX, UINT64_MAX},
                              .watch_id = -1,
                              .compact_revision = INT64_MAX,
                              .created = true,
                              .canceled = true,
                              .reason = slice_make(reason, sizeof(reason))};
    uint8_t *out = mem_must_alloc(WATCH_CONTROL_MAX); /* the longest there is */
    size_t len = encode_watch_control(out, &c);
    assert_true(len <= WATCH_CONTROL_MAX);
    Etcdserverpb__WatchResponse *w = etcdserverpb__watch_response__unpack(NULL, len, out);
    assert_non_null(w);
    same_header(&c.head, w->header);
    assert_true(w->watch_id == -1 && w->created && w->canceled && w->compact_revision == INT64_MAX);
    assert_int_equal(strlen(w->cancel_reason), WATCH_REASON_MAX);
    etcdserverpb__watch_response__free_unpacked(w, NULL);
    mem_free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_record_in_two_parts),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_control),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
