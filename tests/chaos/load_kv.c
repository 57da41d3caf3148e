/* KV requests. In the history an operation is ["p", key, value, lease, prev], ["d", key, end, prev] or
 * ["r", key, end, revision, limit, order, target, keys_only, count_only]; its answer ["p", kv or null], ["d", deleted, [kv...]] or
 * ["r", [kv...], more, count]. */
#include <inttypes.h>

#include "load_int.h"

bool kv_is_write(const struct kv_request *q)
{
    for (unsigned i = 0; i < q->n_then; i++)
        if (q->then[i].type != KV_RANGE) return true;
    for (unsigned i = 0; i < q->n_else; i++)
        if (q->other[i].type != KV_RANGE) return true;
    return false;
}

/* As in etcd: a txn too is serializable if it consists of serializable reads only. */
bool kv_is_linearizable(const struct kv_request *q)
{
    bool serializable = true;
    for (unsigned i = 0; i < q->n_then; i++) serializable = serializable && q->then[i].type == KV_RANGE && q->then[i].serializable;
    for (unsigned i = 0; i < q->n_else; i++) serializable = serializable && q->other[i].type == KV_RANGE && q->other[i].serializable;
    return !serializable;
}

const char *kv_method(const struct kv_request *q, const char **ret_name)
{
    static const char *const methods[] = {"/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.KV/DeleteRange"},
                      *const names[] = {"range", "put", "delete"};
    *ret_name = q->txn ? "txn" : names[q->then[0].type];
    return q->txn ? "/etcdserverpb.KV/Txn" : methods[q->then[0].type];
}

/* ---- encoding ------------------------------------------------------------------------------------- */

static void encode_op(const struct kv_op *op, struct buf *out)
{
    pb_bytes(out, 1, slice_str(op->key));
    if (op->type == KV_PUT) {
        struct buf value = {0};
        value_make(&value, op->value);
        pb_bytes(out, 2, buf_slice(&value));
        pb_uint(out, 3, (uint64_t)op->lease);
        pb_bool(out, 4, op->prev);
        buf_release(&value);
        return;
    }
    pb_bytes(out, 2, slice_str(op->end));
    if (op->type == KV_DELETE) {
        pb_bool(out, 3, op->prev);
        return;
    }
    pb_uint(out, 3, (uint64_t)op->limit);
    pb_uint(out, 4, (uint64_t)op->rev);
    pb_uint(out, 5, (uint64_t)op->order);
    pb_uint(out, 6, (uint64_t)op->target);
    pb_bool(out, 7, op->serializable);
    pb_bool(out, 8, op->keys_only);
    pb_bool(out, 9, op->count_only);
}

static void encode_compare(const struct kv_compare *c, struct buf *out)
{
    struct buf m = {0}, value = {0};
    pb_uint(&m, 1, (uint64_t)c->result);
    pb_uint(&m, 2, (uint64_t)c->target);
    pb_bytes(&m, 3, slice_str(c->key));
    if (c->target == 3) {
        value_make(&value, c->value);
        pb_bytes(&m, 7, buf_slice(&value));
    } else {
        pb_varint(&m, (uint64_t)(4 + c->target) << 3);
        pb_varint(&m, (uint64_t)c->number);
    }
    pb_message(out, 1, buf_slice(&m));
    buf_release(&m);
    buf_release(&value);
}

static void encode_branch(const struct kv_op *ops, unsigned n, unsigned field, struct buf *out)
{
    for (unsigned i = 0; i < n; i++) {
        struct buf op = {0}, request = {0};
        encode_op(&ops[i], &op);
        pb_message(&request, ops[i].type == KV_RANGE ? 1 : ops[i].type == KV_PUT ? 2 : 3, buf_slice(&op));
        pb_message(out, field, buf_slice(&request));
        buf_release(&op);
        buf_release(&request);
    }
}

void kv_encode(const struct kv_request *q, struct buf *out)
{
    if (!q->txn) {
        encode_op(&q->then[0], out);
        return;
    }
    for (unsigned i = 0; i < q->n_compare; i++) encode_compare(&q->compare[i], out);
    encode_branch(q->then, q->n_then, 2, out);
    encode_branch(q->other, q->n_else, 3, out);
}

/* ---- writing down ----------------------------------------------------------------------------------- */

static void record_op(struct rec *r, const struct kv_op *op)
{
    struct buf *b = &r->line;
    static const char *const letters = "rpd";
    buf_printf(b, "[\"%c\",\"%s\"", letters[op->type], op->key);
    if (op->type == KV_PUT) {
        buf_printf(b, ",\"v%" PRIu64 "\",%" PRId64 ",%d]", op->value, op->lease, op->prev);
        return;
    }
    buf_printf(b, ",\"%s\"", op->end);
    if (op->type == KV_DELETE) buf_printf(b, ",%d]", op->prev);
    else buf_printf(b, ",%" PRId64 ",%" PRId64 ",%d,%d,%d,%d]", op->rev, op->limit, op->order, op->target, op->keys_only, op->count_only);
}

static void record_branch(struct rec *r, const char *name, const struct kv_op *ops, unsigned n)
{
    rec_name(r, name);
    buf_append_byte(&r->line, '[');
    for (unsigned i = 0; i < n; i++) {
        if (i) buf_append_byte(&r->line, ',');
        record_op(r, &ops[i]);
    }
    buf_append_byte(&r->line, ']');
}

void kv_record_request(struct rec *r, const struct kv_request *q)
{
    rec_int(r, "lin", kv_is_linearizable(q));
    if (q->txn) {
        rec_name(r, "cmp");
        buf_append_byte(&r->line, '[');
        for (unsigned i = 0; i < q->n_compare; i++) {
            const struct kv_compare *c = &q->compare[i];
            buf_printf(&r->line, "%s[\"%s\",%d,%d,", i ? "," : "", c->key, c->target, c->result);
            if (c->target == 3) buf_printf(&r->line, "\"v%" PRIu64 "\"]", c->value);
            else buf_printf(&r->line, "%" PRId64 "]", c->number);
        }
        buf_append_byte(&r->line, ']');
    }
    record_branch(r, "then", q->then, q->n_then);
    if (q->txn) record_branch(r, "else", q->other, q->n_else);
}

struct answer {
    struct rec *rec;
    void (*saw)(void *ctx, const struct kv_seen *kv);
    void *ctx;
    int64_t rev;
    bool bad;
};

static void one_kv(struct answer *a, struct slice message)
{
    struct kv_seen kv;
    if (kv_decode(message, &kv) != 0) {
        a->bad = true;
        return;
    }
    rec_kv(a->rec, &kv);
    a->saw(a->ctx, &kv);
}

/* The answer of one operation; `inner` if it stands in a txn's. */
static void record_result(struct answer *a, enum kv_type type, struct slice m, struct slice *ret_header)
{
    struct buf *b = &a->rec->line;
    struct pb_field f;
    uint64_t count = 0, more = 0, kvs = 0;
    struct slice scan = m;
    int rv;
    while ((rv = pb_next(&scan, &f)) == 1) {
        if (f.number == 1) *ret_header = f.bytes;
        if (type == KV_RANGE && f.number == 3) more = f.value;
        if (type == KV_RANGE && f.number == 4) count = f.value;
        if (type == KV_DELETE && f.number == 2) count = f.value;
    }
    if (rv < 0) a->bad = true;
    static const char *const letters = "rpd";
    buf_printf(b, "[\"%c\",", letters[type]);
    if (type == KV_DELETE) buf_printf(b, "%" PRIu64 ",", count);
    if (type != KV_PUT) buf_append_byte(b, '[');
    unsigned field = type == KV_DELETE ? 3 : 2;
    while (pb_next(&m, &f) == 1) {
        if (f.number != field || f.wire != PB_BYTES) continue;
        if (kvs++) buf_append_byte(b, ',');
        one_kv(a, f.bytes);
    }
    if (type == KV_PUT) buf_append_str(b, kvs ? "]" : "null]");
    else if (type == KV_DELETE) buf_append_str(b, "]]");
    else buf_printf(b, "],%" PRIu64 ",%" PRIu64 "]", more, count);
}

static void record_txn(struct answer *a, struct slice m, struct slice *ret_header)
{
    static const enum kv_type types[] = {KV_RANGE, KV_RANGE, KV_PUT, KV_DELETE};
    struct pb_field f, op;
    struct slice scan = m, inner = {0};
    bool ok = false, first = true;
    while (pb_next(&scan, &f) == 1) {
        if (f.number == 1) *ret_header = f.bytes;
        if (f.number == 2) ok = f.value != 0;
    }
    rec_int(a->rec, "ok", ok);
    rec_name(a->rec, "res");
    buf_append_byte(&a->rec->line, '[');
    while (pb_next(&m, &f) == 1) {
        if (f.number != 3) continue;
        if (!first) buf_append_byte(&a->rec->line, ',');
        first = false;
        if (pb_next(&f.bytes, &op) != 1 || op.number > 3) a->bad = true;
        else record_result(a, types[op.number], op.bytes, &inner);
    }
    buf_append_byte(&a->rec->line, ']');
}

int64_t kv_record_answer(struct rec *r, const struct kv_request *q, struct slice message,
                         void (*saw)(void *ctx, const struct kv_seen *kv), void *ctx)
{
    struct answer a = {.rec = r, .saw = saw, .ctx = ctx};
    struct slice header = {0};
    if (q->txn) {
        record_txn(&a, message, &header);
    } else {
        rec_name(r, "res");
        buf_append_byte(&r->line, '[');
        record_result(&a, q->then[0].type, message, &header);
        buf_append_byte(&r->line, ']');
    }
    int64_t rev = rec_header(r, header);
    return a.bad ? -1 : rev;
}
