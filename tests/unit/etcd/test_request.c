/* The hand-written readers of hot requests, against protobuf-c: random messages written by
 * protobuf-c must be read alike; then cut off, flipped and random bytes, which must be refused or
 * read, never more (run under asan); limits; no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "schemas/etcd/pb.h"
#include "schemas/etcd/request.h"
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

/* Numbers of all sizes, negative ones too. */
static int64_t number(void)
{
    return rnd(3) == 0 ? 0 : (int64_t)(rnd64() >> rnd(64));
}

static uint8_t pool[64];

static ProtobufCBinaryData bytes(void)
{
    return (ProtobufCBinaryData){.len = rnd(3) ? rnd(40) : 0, .data = pool + rnd(16)};
}

static void same_bytes(struct slice a, ProtobufCBinaryData b)
{
    assert_true(slice_eq(a, slice_make(b.data, b.len)));
}

static struct slice pack(const ProtobufCMessage *m, struct arena *a)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = arena_alloc(a, n + 1);
    assert_int_equal(protobuf_c_message_pack(m, p), n);
    /* What borrows must not read behind the end: an allocation of just that size. */
    uint8_t *exact = mem_must_alloc(n);
    memcpy(exact, p, n);
    return slice_make(exact, n);
}

static void drop(struct slice s)
{
    mem_free((void *)(uintptr_t)s.data);
}

/* ---- making random messages --------------------------------------------------------------------
 */

static Etcdserverpb__RangeRequest *make_range(struct arena *a)
{
    Etcdserverpb__RangeRequest *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__range_request__init(m);
    m->key = bytes();
    m->range_end = bytes();
    m->limit = number();
    m->revision = number();
    m->sort_order = (Etcdserverpb__RangeRequest__SortOrder)rnd(3);
    m->sort_target = (Etcdserverpb__RangeRequest__SortTarget)rnd(5);
    m->serializable = (int)rnd(2);
    m->keys_only = (int)rnd(2);
    m->count_only = (int)rnd(2);
    m->min_mod_revision = number();
    m->max_mod_revision = number();
    m->min_create_revision = number();
    m->max_create_revision = number();
    return m;
}

static Etcdserverpb__PutRequest *make_put(struct arena *a)
{
    Etcdserverpb__PutRequest *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__put_request__init(m);
    m->key = bytes();
    m->value = bytes();
    m->lease = number();
    m->prev_kv = (int)rnd(2);
    m->ignore_value = (int)rnd(2);
    m->ignore_lease = (int)rnd(2);
    return m;
}

static Etcdserverpb__DeleteRangeRequest *make_delete(struct arena *a)
{
    Etcdserverpb__DeleteRangeRequest *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__delete_range_request__init(m);
    m->key = bytes();
    m->range_end = bytes();
    m->prev_kv = (int)rnd(2);
    return m;
}

static Etcdserverpb__Compare *make_compare(struct arena *a)
{
    Etcdserverpb__Compare *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__compare__init(m);
    m->result = (Etcdserverpb__Compare__CompareResult)rnd(4);
    m->target = (Etcdserverpb__Compare__CompareTarget)rnd(5);
    m->key = bytes();
    m->range_end = bytes();
    switch (rnd(6)) {
    case 0:
        m->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        m->version = number();
        break;
    case 1:
        m->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        m->create_revision = number();
        break;
    case 2:
        m->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        m->mod_revision = number();
        break;
    case 3:
        m->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
        m->value = bytes();
        break;
    case 4:
        m->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE;
        m->lease = number();
        break;
    default: break;
    }
    return m;
}

static Etcdserverpb__TxnRequest *make_txn(struct arena *a, unsigned depth);

static Etcdserverpb__RequestOp *make_op(struct arena *a, unsigned depth)
{
    Etcdserverpb__RequestOp *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__request_op__init(m);
    switch (rnd(depth < 4 ? 5 : 4)) {
    case 0:
        m->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        m->request_range = make_range(a);
        break;
    case 1:
        m->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        m->request_put = make_put(a);
        break;
    case 2:
        m->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        m->request_delete_range = make_delete(a);
        break;
    case 4:
        m->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
        m->request_txn = make_txn(a, depth + 1);
        break;
    default: break; /* an empty one */
    }
    return m;
}

static Etcdserverpb__TxnRequest *make_txn(struct arena *a, unsigned depth)
{
    Etcdserverpb__TxnRequest *m = arena_alloc(a, sizeof(*m));
    etcdserverpb__txn_request__init(m);
    m->n_compare = rnd(4);
    m->compare = arena_calloc(a, 4, sizeof(*m->compare));
    for (size_t i = 0; i < m->n_compare; i++) m->compare[i] = make_compare(a);
    m->n_success = rnd(4);
    m->success = arena_calloc(a, 4, sizeof(*m->success));
    for (size_t i = 0; i < m->n_success; i++) m->success[i] = make_op(a, depth);
    m->n_failure = rnd(3);
    m->failure = arena_calloc(a, 4, sizeof(*m->failure));
    for (size_t i = 0; i < m->n_failure; i++) m->failure[i] = make_op(a, depth);
    return m;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

static void same_range(const struct range_op *r, const Etcdserverpb__RangeRequest *m)
{
    same_bytes(r->key, m->key);
    same_bytes(r->range_end, m->range_end);
    assert_int_equal(r->limit, m->limit);
    assert_int_equal(r->revision, m->revision);
    assert_int_equal(r->sort_order, m->sort_order);
    assert_int_equal(r->sort_target, m->sort_target);
    assert_int_equal(r->serializable, m->serializable);
    assert_int_equal(r->keys_only, m->keys_only);
    assert_int_equal(r->count_only, m->count_only);
    assert_int_equal(r->min_mod_revision, m->min_mod_revision);
    assert_int_equal(r->max_mod_revision, m->max_mod_revision);
    assert_int_equal(r->min_create_revision, m->min_create_revision);
    assert_int_equal(r->max_create_revision, m->max_create_revision);
}

static void same_put(const struct put_op *p, const Etcdserverpb__PutRequest *m)
{
    same_bytes(p->key, m->key);
    same_bytes(p->value, m->value);
    assert_int_equal(p->lease, m->lease);
    assert_int_equal(p->prev_kv, m->prev_kv);
    assert_int_equal(p->ignore_value, m->ignore_value);
    assert_int_equal(p->ignore_lease, m->ignore_lease);
}

static void same_delete(const struct delete_op *d, const Etcdserverpb__DeleteRangeRequest *m)
{
    same_bytes(d->key, m->key);
    same_bytes(d->range_end, m->range_end);
    assert_int_equal(d->prev_kv, m->prev_kv);
}

static void same_compare(const struct compare *c, const Etcdserverpb__Compare *m)
{
    int64_t want = 0;
    ProtobufCBinaryData value = {0};
    if (m->target == 0 && m->target_union_case == 4) want = m->version;
    if (m->target == 1 && m->target_union_case == 5) want = m->create_revision;
    if (m->target == 2 && m->target_union_case == 6) want = m->mod_revision;
    if (m->target == 3 && m->target_union_case == 7) value = m->value;
    if (m->target == 4 && m->target_union_case == 8) want = m->lease;
    assert_int_equal(c->result, m->result);
    assert_int_equal(c->target, m->target);
    assert_int_equal(c->number, want);
    same_bytes(c->value, value);
    same_bytes(c->key, m->key);
    same_bytes(c->range_end, m->range_end);
}

static void same_txn(const struct txn_op *t, const Etcdserverpb__TxnRequest *m);

static void same_op(const struct op *op, const Etcdserverpb__RequestOp *m)
{
    assert_int_equal(op->type, m->request_case);
    if (op->type == OP_RANGE) same_range(&op->range, m->request_range);
    if (op->type == OP_PUT) same_put(&op->put, m->request_put);
    if (op->type == OP_DELETE) same_delete(&op->del, m->request_delete_range);
    if (op->type == OP_TXN) same_txn(op->txn, m->request_txn);
}

static void same_txn(const struct txn_op *t, const Etcdserverpb__TxnRequest *m)
{
    assert_int_equal(t->n_compares, m->n_compare);
    assert_int_equal(t->n_success, m->n_success);
    assert_int_equal(t->n_failure, m->n_failure);
    for (size_t i = 0; i < t->n_compares; i++) same_compare(&t->compares[i], m->compare[i]);
    for (size_t i = 0; i < t->n_success; i++) same_op(&t->success[i], m->success[i]);
    for (size_t i = 0; i < t->n_failure; i++) same_op(&t->failure[i], m->failure[i]);
}

static void test_random_messages(void **state)
{
    (void)state;
    struct arena a = {0}, out = {0};
    for (seed = 1; seed < 3000000; seed += 1000) {
        struct range_op range;
        struct put_op put;
        struct delete_op del;
        struct txn_op txn;
        Etcdserverpb__RangeRequest *r = make_range(&a);
        struct slice in = pack(&r->base, &a);
        assert_int_equal(etcd_range_decode(in, &range), 0);
        same_range(&range, r);
        drop(in);
        Etcdserverpb__PutRequest *p = make_put(&a);
        in = pack(&p->base, &a);
        assert_int_equal(etcd_put_decode(in, &put), 0);
        same_put(&put, p);
        drop(in);
        Etcdserverpb__DeleteRangeRequest *d = make_delete(&a);
        in = pack(&d->base, &a);
        assert_int_equal(etcd_delete_decode(in, &del), 0);
        same_delete(&del, d);
        drop(in);
        Etcdserverpb__TxnRequest *t = make_txn(&a, 0);
        in = pack(&t->base, &a);
        assert_int_equal(etcd_txn_decode(&out, in, &txn), 0);
        same_txn(&txn, t);
        drop(in);
        arena_reset(&a);
        arena_reset(&out);
    }
    arena_release(&a);
    arena_release(&out);
}

static void test_watch_requests(void **state)
{
    (void)state;
    struct arena a = {0};
    for (seed = 7; seed < 2000007; seed += 1000) {
        Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
        Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
        Etcdserverpb__WatchCancelRequest cancel = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
        Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
        Etcdserverpb__WatchCreateRequest__FilterType filters[2] = {0, 1};
        struct etcd_watch_request w;
        m.request_union_case = (Etcdserverpb__WatchRequest__RequestUnionCase)rnd(4);
        create.key = bytes();
        create.range_end = bytes();
        create.start_revision = number();
        create.progress_notify = (int)rnd(2);
        create.prev_kv = (int)rnd(2);
        create.fragment = (int)rnd(2);
        create.watch_id = number();
        unsigned which = rnd(4); /* no filter, each, both */
        create.filters = filters + (which == 2);
        create.n_filters = which == 3 ? 2 : which > 0;
        cancel.watch_id = number();
        if (m.request_union_case == 1) m.create_request = &create;
        if (m.request_union_case == 2) m.cancel_request = &cancel;
        if (m.request_union_case == 3) m.progress_request = &progress;
        struct slice in = pack(&m.base, &a);
        assert_int_equal(etcd_watch_decode(in, &w), 0);
        assert_int_equal(w.kind, m.request_union_case);
        if (w.kind == ETCD_WATCH_CREATE) {
            same_bytes(w.key, create.key);
            same_bytes(w.range_end, create.range_end);
            assert_int_equal(w.start_revision, create.start_revision);
            assert_int_equal(w.progress_notify, create.progress_notify);
            assert_int_equal(w.prev_kv, create.prev_kv);
            assert_int_equal(w.fragment, create.fragment);
            assert_int_equal(w.watch_id, create.watch_id);
            assert_int_equal(w.no_put, which == 1 || which == 3);
            assert_int_equal(w.no_delete, which == 2 || which == 3);
        }
        if (w.kind == ETCD_WATCH_CANCEL) assert_int_equal(w.watch_id, cancel.watch_id);
        drop(in);
        arena_reset(&a);
    }
    arena_release(&a);
}

/* ---- bad input ---------------------------------------------------------------------------------
 */

static void decode_all(struct arena *a, struct slice in)
{
    struct range_op range;
    struct put_op put;
    struct delete_op del;
    struct txn_op txn;
    struct etcd_watch_request watch;
    int64_t id;
    int codes[] = {etcd_range_decode(in, &range), etcd_put_decode(in, &put),
                   etcd_delete_decode(in, &del),  etcd_txn_decode(a, in, &txn),
                   etcd_watch_decode(in, &watch), etcd_keepalive_decode(in, &id)};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        int c = codes[i];
        assert_true(c == 0 || c == ERR_INVALID || c == ERR_LIMIT || c == ERR_TOO_MANY_OPS);
    }
    arena_reset(a);
}

static void test_damaged_messages(void **state)
{
    (void)state;
    struct arena a = {0}, out = {0};
    for (seed = 3; seed < 600003; seed += 1000) {
        Etcdserverpb__TxnRequest *t = make_txn(&a, 0);
        struct slice in = pack(&t->base, &a);
        uint8_t *b = (uint8_t *)(uintptr_t)in.data;
        for (int i = 0; i < 20 && in.len; i++) {
            size_t len = rnd((unsigned)in.len + 1);
            uint8_t *cut = mem_must_alloc(len);
            if (len) memcpy(cut, b, len);
            decode_all(&out, slice_make(cut, len));
            mem_free(cut);
            size_t at = rnd((unsigned)in.len);
            uint8_t was = b[at];
            b[at] = (uint8_t)rnd(256);
            decode_all(&out, in);
            if (rnd(2)) b[at] = was;
        }
        drop(in);
        uint8_t noise[64];
        for (size_t i = 0; i < sizeof(noise); i++)
            noise[i] = (uint8_t)(rnd(4) ? rnd(128) : rnd(256));
        decode_all(&out, slice_make(noise, rnd(65)));
        arena_reset(&a);
    }
    arena_release(&a);
    arena_release(&out);
}

#define REFUSED(text) assert_int_equal(etcd_put_decode(SLICE_LIT(text), &put), ERR_INVALID)

static void test_refused(void **state)
{
    (void)state;
    struct put_op put;
    REFUSED("\x0a"); /* a tag and no length */
    REFUSED("\x0a\x05"
            "abcd");                                             /* shorter than it says */
    REFUSED("\x08\x01");                                         /* key as a number */
    REFUSED("\x1a\x01x");                                        /* lease as bytes */
    REFUSED("\x00\x01");                                         /* field 0 */
    REFUSED("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");     /* 65 bits */
    REFUSED("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"); /* 11 bytes */
    REFUSED("\x0e");                                             /* wire type 6 */
    REFUSED("\x7b\x08\x01");                                     /* a group without its end */
    REFUSED("\x7c");                                             /* an end without its group */
    REFUSED("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f");         /* a length beyond everything */
    assert_int_equal(
        etcd_put_decode(SLICE_LIT("\x7b\x08\x01\x7c\x0a\x01k\xa0\x06\x05\xad\x06zzzz"), &put), 0);
    assert_true(
        slice_eq_str(put.key, "k")); /* what is unknown is skipped: a group, a number, four bytes */
    assert_int_equal(etcd_put_decode(SLICE_LIT("\x0a\x01"
                                               "a\x0a\x01"
                                               "b"),
                                     &put),
                     0);
    assert_true(slice_eq_str(put.key, "b")); /* the last one counts */
}

static void test_limits(void **state)
{
    (void)state;
    struct arena a = {0};
    struct txn_op txn;
    struct put_op put;
    struct buf b = {0};
    for (int i = 0; i < LIMIT_TXN_OPS; i++)
        buf_append(&b, "\x12\x02\x12\x00", 4); /* success: an empty put */
    assert_int_equal(etcd_txn_decode(&a, buf_slice(&b), &txn), 0);
    assert_int_equal(txn.n_success, LIMIT_TXN_OPS);
    buf_append(&b, "\x12\x02\x12\x00", 4);
    assert_int_equal(etcd_txn_decode(&a, buf_slice(&b), &txn), ERR_TOO_MANY_OPS);
    buf_clear(&b);
    for (int depth = 0; depth < 40; depth++) { /* a txn in a txn in a txn */
        struct buf outer = {0};
        uint8_t head[32], *p = pb_put_len(head, 2, pb_len_size(b.len));
        p = pb_put_len(p, 4, b.len);
        buf_append(&outer, head, (size_t)(p - head));
        buf_append_slice(&outer, buf_slice(&b));
        buf_release(&b);
        b = outer;
        int want = depth + 1 > LIMIT_TXN_DEPTH ? ERR_TOO_MANY_OPS : 0;
        assert_int_equal(etcd_txn_decode(&a, buf_slice(&b), &txn), want);
    }
    buf_clear(&b);
    for (int i = 0; i < 200; i++) buf_append_byte(&b, 0x7b); /* groups in groups */
    assert_int_equal(etcd_put_decode(buf_slice(&b), &put), ERR_LIMIT);
    buf_release(&b);
    arena_release(&a);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct arena a = {0};
    seed = 99;
    Etcdserverpb__TxnRequest *t;
    do {
        arena_reset(&a);
        t = make_txn(&a, 0);
    } while (etcdserverpb__txn_request__get_packed_size(t) < 400);
    struct slice in = pack(&t->base, &a);
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        struct arena out = {0};
        struct txn_op txn;
        mem_fail_nth(nth);
        int code = etcd_txn_decode(&out, in, &txn);
        fired = mem_fail_nth(0);
        assert_int_equal(code, fired ? ERR_NOMEM : 0);
        arena_release(&out);
    }
    drop(in);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_messages),  cmocka_unit_test(test_watch_requests),
        cmocka_unit_test(test_damaged_messages), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),           cmocka_unit_test(test_out_of_memory),
    };
    for (size_t i = 0; i < sizeof(pool); i++) pool[i] = (uint8_t)(i * 37);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
