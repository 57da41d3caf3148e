#include "api/etcd/encode.h"

static size_t header_body_size(const struct header *h)
{
    return pb_uint_size(h->cluster_id) + pb_uint_size(h->member_id) +
           pb_uint_size((uint64_t)h->revision) + pb_uint_size(h->raft_term);
}

size_t header_size(const struct header *h)
{
    return pb_len_size(header_body_size(h));
}

uint8_t *encode_header(uint8_t *p, const struct header *h)
{
    p = pb_put_len(p, 1, header_body_size(h));
    p = pb_put_uint(p, 1, h->cluster_id);
    p = pb_put_uint(p, 2, h->member_id);
    p = pb_put_uint(p, 3, (uint64_t)h->revision);
    return pb_put_uint(p, 4, h->raft_term);
}

/* ---- records -----------------------------------------------------------------------------------
 */

size_t kv_size(const struct record *r, bool keys_only)
{
    return pb_bytes_size(r->key_len) + pb_uint_size((uint64_t)r->create_rev) +
           pb_uint_size((uint64_t)r->mod_rev) + pb_uint_size((uint64_t)r->version) +
           (keys_only ? 0 : pb_bytes_size(r->value_len)) + pb_uint_size((uint64_t)r->lease);
}

static uint8_t *encode_kv_numbers(uint8_t *p, const struct record *r)
{
    p = pb_put_bytes(p, 1, record_key(r));
    p = pb_put_uint(p, 2, (uint64_t)r->create_rev);
    p = pb_put_uint(p, 3, (uint64_t)r->mod_rev);
    return pb_put_uint(p, 4, (uint64_t)r->version);
}

uint8_t *encode_kv(uint8_t *p, const struct record *r, bool keys_only)
{
    p = encode_kv_numbers(p, r);
    if (!keys_only) p = pb_put_bytes(p, 5, record_value(r));
    return pb_put_uint(p, 6, (uint64_t)r->lease);
}

uint8_t *encode_kv_head(uint8_t *p, const struct record *r)
{
    p = encode_kv_numbers(p, r);
    return r->value_len ? pb_put_len(p, 5, r->value_len) : p;
}

uint8_t *encode_kv_tail(uint8_t *p, const struct record *r)
{
    return pb_put_uint(p, 6, (uint64_t)r->lease);
}

/* A tombstone is shown as its key and the revision of the deletion. */
static size_t tombstone_size(const struct record *r)
{
    return pb_bytes_size(r->key_len) + pb_uint_size((uint64_t)r->mod_rev);
}

/* An event that creates its key shows none, also where the same txn has deleted an older one. */
static const struct record *shown_prev(const struct event *e, bool prev_kv)
{
    bool creates = !e->record->tombstone && e->record->create_rev == e->record->mod_rev;
    return prev_kv && !creates ? e->prev : NULL;
}

static size_t event_body_size(const struct event *e, bool prev_kv)
{
    const struct record *r = e->record, *prev = shown_prev(e, prev_kv);
    size_t n = r->tombstone ? 2 + pb_len_size(tombstone_size(r)) : pb_len_size(kv_size(r, false));
    return prev ? n + pb_len_size(kv_size(prev, false)) : n;
}

size_t event_size(const struct event *e, bool prev_kv)
{
    return pb_len_size(event_body_size(e, prev_kv));
}

uint8_t *encode_event(uint8_t *p, const struct event *e, bool prev_kv)
{
    const struct record *r = e->record, *prev = shown_prev(e, prev_kv);
    p = pb_put_len(p, 11, event_body_size(e, prev_kv));
    if (r->tombstone) {
        p = pb_put_uint(p, 1, 1); /* DELETE */
        p = pb_put_len(p, 2, tombstone_size(r));
        p = pb_put_bytes(p, 1, record_key(r));
        p = pb_put_uint(p, 3, (uint64_t)r->mod_rev);
    } else {
        p = pb_put_len(p, 2, kv_size(r, false));
        p = encode_kv(p, r, false);
    }
    if (!prev) return p;
    p = pb_put_len(p, 3, kv_size(prev, false));
    return encode_kv(p, prev, false);
}

/* ---- bodies of answers -------------------------------------------------------------------------
 */
/* Each has a size and a writer; inside a txn they are nested. */

static uint8_t *put_kv_field(uint8_t *p, unsigned field, const struct record *r, bool keys_only)
{
    p = pb_put_len(p, field, kv_size(r, keys_only));
    return encode_kv(p, r, keys_only);
}

static size_t put_size(const struct header *h, const struct record *prev)
{
    return header_size(h) + (prev ? pb_len_size(kv_size(prev, false)) : 0);
}

static uint8_t *put_write(uint8_t *p, const struct header *h, const struct record *prev)
{
    p = encode_header(p, h);
    return prev ? put_kv_field(p, 2, prev, false) : p;
}

static size_t delete_size(const struct header *h, const struct op_result *r)
{
    size_t n = header_size(h) + pb_uint_size((uint64_t)r->del.deleted);
    for (size_t i = 0; i < r->del.n_prevs; i++) n += pb_len_size(kv_size(r->del.prevs[i], false));
    return n;
}

static uint8_t *delete_write(uint8_t *p, const struct header *h, const struct op_result *r)
{
    p = encode_header(p, h);
    p = pb_put_uint(p, 2, (uint64_t)r->del.deleted);
    for (size_t i = 0; i < r->del.n_prevs; i++) p = put_kv_field(p, 3, r->del.prevs[i], false);
    return p;
}

static size_t range_size(const struct header *h, const struct range_result *r, bool keys_only)
{
    size_t n = header_size(h) + (r->more ? 2 : 0) + pb_uint_size((uint64_t)r->count);
    for (size_t i = 0; i < r->n; i++) n += pb_len_size(kv_size(r->records[i], keys_only));
    return n;
}

static uint8_t *range_write(uint8_t *p, const struct header *h, const struct range_result *r,
                            bool keys_only)
{
    p = encode_header(p, h);
    for (size_t i = 0; i < r->n; i++) p = put_kv_field(p, 2, r->records[i], keys_only);
    p = pb_put_uint(p, 3, r->more);
    return pb_put_uint(p, 4, (uint64_t)r->count);
}

/* ---- transactions ------------------------------------------------------------------------------
 */

/* The heads inside a txn hold a revision only, as the operation saw it: that before the txn until
 * something was changed, then the txn's own. */
struct txn_heads {
    int64_t before, after;
    bool changed;
};

static bool changes(const struct op_result *r)
{
    if (r->type == OP_PUT) return true;
    if (r->type == OP_DELETE) return r->del.deleted > 0;
    for (size_t i = 0; r->type == OP_TXN && i < r->txn.n; i++) {
        if (changes(&r->txn.results[i])) return true;
    }
    return false;
}

static struct header op_head(struct txn_heads *heads, const struct op_result *r)
{
    if (r->type == OP_TXN) return (struct header){0};
    heads->changed |= changes(r);
    return (struct header){.revision = heads->changed ? heads->after : heads->before};
}

static const struct op *branch(const struct txn_op *request, const struct op_result *r)
{
    return r->txn.succeeded ? request->success : request->failure;
}

static size_t txn_size(struct txn_heads *heads, const struct header *h,
                       const struct txn_op *request, const struct op_result *r);
static uint8_t *txn_write(uint8_t *p, struct txn_heads *heads, const struct header *h,
                          const struct txn_op *request, const struct op_result *r);

static size_t op_size(struct txn_heads *heads, const struct op *op, const struct op_result *r)
{
    struct header h = op_head(heads, r);
    switch (r->type) {
    case OP_RANGE: return range_size(&h, &r->range, op->range.keys_only);
    case OP_PUT: return put_size(&h, r->put.prev);
    case OP_DELETE: return delete_size(&h, r);
    case OP_TXN: return txn_size(heads, &h, op->txn, r);
    }
    return 0;
}

static uint8_t *op_write(uint8_t *p, struct txn_heads *heads, const struct op *op,
                         const struct op_result *r)
{
    struct txn_heads peek = *heads; /* the size comes first, from the same state */
    size_t size = op_size(&peek, op, r);
    struct header h = op_head(heads, r);
    p = pb_put_len(p, 3, pb_len_size(size));
    p = pb_put_len(p, r->type, size); /* ResponseOp numbers its kinds as we do */
    switch (r->type) {
    case OP_RANGE: return range_write(p, &h, &r->range, op->range.keys_only);
    case OP_PUT: return put_write(p, &h, r->put.prev);
    case OP_DELETE: return delete_write(p, &h, r);
    case OP_TXN: return txn_write(p, heads, &h, op->txn, r);
    }
    return p;
}

static size_t txn_size(struct txn_heads *heads, const struct header *h,
                       const struct txn_op *request, const struct op_result *r)
{
    const struct op *ops = branch(request, r);
    size_t n = header_size(h) + (r->txn.succeeded ? 2 : 0);
    for (size_t i = 0; i < r->txn.n; i++)
        n += pb_len_size(pb_len_size(op_size(heads, &ops[i], &r->txn.results[i])));
    return n;
}

static uint8_t *txn_write(uint8_t *p, struct txn_heads *heads, const struct header *h,
                          const struct txn_op *request, const struct op_result *r)
{
    const struct op *ops = branch(request, r);
    p = encode_header(p, h);
    p = pb_put_uint(p, 2, r->txn.succeeded);
    for (size_t i = 0; i < r->txn.n; i++) p = op_write(p, heads, &ops[i], &r->txn.results[i]);
    return p;
}

/* ---- whole answers -----------------------------------------------------------------------------
 */

/* Room for one gRPC message, which says its length in four bytes. */
static uint8_t *reserve(struct buf *out, size_t size)
{
    if (size > UINT32_MAX && !out->failed) out->failed = ERR_LIMIT;
    return buf_reserve(out, size);
}

void encode_put_response(struct buf *out, const struct header *h, const struct record *prev)
{
    uint8_t *p = reserve(out, put_size(h, prev));
    if (p) out->len += (size_t)(put_write(p, h, prev) - p);
}

void encode_delete_response(struct buf *out, const struct header *h, const struct op_result *r)
{
    uint8_t *p = reserve(out, delete_size(h, r));
    if (p) out->len += (size_t)(delete_write(p, h, r) - p);
}

void encode_range_response(struct buf *out, const struct header *h, const struct range_result *r,
                           bool keys_only)
{
    uint8_t *p = reserve(out, range_size(h, r, keys_only));
    if (p) out->len += (size_t)(range_write(p, h, r, keys_only) - p);
}

void encode_txn_response(struct buf *out, const struct header *h, const struct txn_op *request,
                         const struct op_result *r)
{
    bool changed = changes(r);
    struct txn_heads start = {.before = changed ? h->revision - 1 : h->revision,
                              .after = h->revision},
                     heads = start;
    uint8_t *p = reserve(out, txn_size(&heads, h, request, r));
    heads = start;
    if (p) out->len += (size_t)(txn_write(p, &heads, h, request, r) - p);
}
