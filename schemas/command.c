/* The codec of commands. An operation is [op type, fields...]; see docs/formats.md for the list. */
#include "schemas/command.h"

#include "base/check.h"
#include "base/limits.h"
#include "schemas/mp_int.h"

enum { FLAG_PREV_KV = 1, FLAG_IGNORE_VALUE = 2, FLAG_IGNORE_LEASE = 4 };
enum { FLAG_SERIALIZABLE = 1, FLAG_KEYS_ONLY = 2, FLAG_COUNT_ONLY = 4 };

enum {
    RANGE_FIELDS = 11,
    PUT_FIELDS = 4,
    DELETE_FIELDS = 3,
    TXN_FIELDS = 3,
    COMPARE_FIELDS = 6,
};

/* ---- writing -------------------------------------------------------------------------------- */

static void encode_range(struct buf *out, const struct range_op *op)
{
    mp_write_array(out, 1 + RANGE_FIELDS);
    mp_write_uint(out, OP_RANGE);
    mp_write_bin(out, op->key);
    mp_write_bin(out, op->range_end);
    mp_write_int(out, op->limit);
    mp_write_int(out, op->revision);
    mp_write_uint(out, op->sort_order);
    mp_write_uint(out, op->sort_target);
    mp_write_uint(out, (op->serializable ? FLAG_SERIALIZABLE : 0u) |
                           (op->keys_only ? FLAG_KEYS_ONLY : 0u) |
                           (op->count_only ? FLAG_COUNT_ONLY : 0u));
    mp_write_int(out, op->min_mod_revision);
    mp_write_int(out, op->max_mod_revision);
    mp_write_int(out, op->min_create_revision);
    mp_write_int(out, op->max_create_revision);
}

static void encode_put(struct buf *out, const struct put_op *op)
{
    mp_write_array(out, 1 + PUT_FIELDS);
    mp_write_uint(out, OP_PUT);
    mp_write_bin(out, op->key);
    mp_write_bin(out, op->value);
    mp_write_int(out, op->lease);
    mp_write_uint(out, (op->prev_kv ? FLAG_PREV_KV : 0u) |
                           (op->ignore_value ? FLAG_IGNORE_VALUE : 0u) |
                           (op->ignore_lease ? FLAG_IGNORE_LEASE : 0u));
}

static void encode_delete(struct buf *out, const struct delete_op *op)
{
    mp_write_array(out, 1 + DELETE_FIELDS);
    mp_write_uint(out, OP_DELETE);
    mp_write_bin(out, op->key);
    mp_write_bin(out, op->range_end);
    mp_write_uint(out, op->prev_kv ? FLAG_PREV_KV : 0u);
}

static void encode_compare(struct buf *out, const struct compare *c)
{
    mp_write_array(out, COMPARE_FIELDS);
    mp_write_uint(out, c->result);
    mp_write_uint(out, c->target);
    mp_write_bin(out, c->key);
    mp_write_bin(out, c->range_end);
    mp_write_int(out, c->number);
    mp_write_bin(out, c->value);
}

static void encode_op(struct buf *out, const struct op *op);

static void encode_ops(struct buf *out, const struct op *ops, size_t n)
{
    mp_write_array(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) encode_op(out, &ops[i]);
}

static void encode_txn(struct buf *out, const struct txn_op *txn)
{
    mp_write_array(out, 1 + TXN_FIELDS);
    mp_write_uint(out, OP_TXN);
    mp_write_array(out, (uint32_t)txn->n_compares);
    for (size_t i = 0; i < txn->n_compares; i++) encode_compare(out, &txn->compares[i]);
    encode_ops(out, txn->success, txn->n_success);
    encode_ops(out, txn->failure, txn->n_failure);
}

static void encode_op(struct buf *out, const struct op *op)
{
    switch (op->type) {
    case OP_RANGE: encode_range(out, &op->range); return;
    case OP_PUT: encode_put(out, &op->put); return;
    case OP_DELETE: encode_delete(out, &op->del); return;
    case OP_TXN: encode_txn(out, op->txn); return;
    }
    CHECK(!"an operation of no known type");
}

static void encode_checkpoint(struct buf *out, const struct command *c)
{
    mp_write_array(out, (uint32_t)c->checkpoint.count);
    for (size_t i = 0; i < c->checkpoint.count; i++) {
        mp_write_array(out, 2);
        mp_write_int(out, c->checkpoint.leases[i].id);
        mp_write_int(out, c->checkpoint.leases[i].remaining_ttl);
    }
}

static void encode_member(struct buf *out, const struct command *c)
{
    mp_write_uint(out, c->member.member_id);
    mp_write_bin(out, c->member.name);
    mp_write_array(out, (uint32_t)c->member.n_client_urls);
    for (size_t i = 0; i < c->member.n_client_urls; i++)
        mp_write_bin(out, c->member.client_urls[i]);
}

static void encode_check(struct buf *out, const struct command *c)
{
    mp_write_uint(out, c->check.member_id);
    mp_write_uint(out, c->check.index);
    mp_write_uint(out, c->check.state);
    mp_write_uint(out, c->check.log);
}

static const uint8_t command_fields[] = {
    [COMMAND_OP] = 1,
    [COMMAND_COMPACT] = 1,
    [COMMAND_LEASE_GRANT] = 2,
    [COMMAND_LEASE_REVOKE] = 1,
    [COMMAND_LEASE_CHECKPOINT] = 1,
    [COMMAND_ALARM] = 3,
    [COMMAND_MEMBER_ATTRIBUTES] = 3,
    [COMMAND_CHECK] = 1,
    [COMMAND_CHECK_REPORT] = 4,
    [COMMAND_VERDICT] = 5,
};

void command_encode(struct buf *out, const struct command *c)
{
    CHECK(c->type >= COMMAND_OP && c->type <= COMMAND_VERDICT);
    mp_write_array(out, 1u + command_fields[c->type]);
    mp_write_uint(out, c->type);
    switch (c->type) {
    case COMMAND_OP: encode_op(out, &c->op); break;
    case COMMAND_COMPACT: mp_write_int(out, c->compact.revision); break;
    case COMMAND_LEASE_GRANT:
        mp_write_int(out, c->lease_grant.id);
        mp_write_int(out, c->lease_grant.ttl);
        break;
    case COMMAND_LEASE_REVOKE: mp_write_int(out, c->lease_revoke.id); break;
    case COMMAND_LEASE_CHECKPOINT: encode_checkpoint(out, c); break;
    case COMMAND_ALARM:
        mp_write_uint(out, c->alarm.member_id);
        mp_write_uint(out, c->alarm.alarm);
        mp_write_uint(out, c->alarm.activate);
        break;
    case COMMAND_MEMBER_ATTRIBUTES: encode_member(out, c); break;
    case COMMAND_CHECK: mp_write_uint(out, c->check.version); break;
    case COMMAND_CHECK_REPORT: encode_check(out, c); break;
    case COMMAND_VERDICT:
        encode_check(out, c);
        mp_write_uint(out, c->check.corrupt);
        break;
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

struct decoder {
    struct reader r;
    struct arena *arena;
    int error; /* why, when it is not plain damage */
};

static void fail(struct decoder *d, int code)
{
    if (!d->error) d->error = code;
    d->r.failed = true;
}

/* Opens an array that has at least `fields`; returns how many more there are to skip at its end. */
static uint32_t open_array(struct decoder *d, uint32_t fields)
{
    uint32_t n = mp_read_array(&d->r);
    if (n < fields) {
        d->r.failed = true;
        return 0;
    }
    return n - fields;
}

static unsigned read_enum(struct decoder *d, unsigned last)
{
    uint64_t v = mp_read_uint(&d->r);
    if (v > last) d->r.failed = true;
    return d->r.failed ? 0 : (unsigned)v;
}

/* Room for the elements of the array that comes next, at most `limit` of them. */
static void *read_list(struct decoder *d, size_t limit, size_t size, size_t *ret_n)
{
    uint32_t n = mp_read_array(&d->r);
    *ret_n = 0;
    if (d->r.failed || n == 0) return NULL;
    if (n > limit) {
        fail(d, ERR_LIMIT);
        return NULL;
    }
    void *p = arena_calloc(d->arena, n, size);
    if (!p) {
        fail(d, ERR_NOMEM);
        return NULL;
    }
    *ret_n = n;
    return p;
}

static void decode_range(struct decoder *d, struct range_op *op)
{
    op->key = mp_read_bin(&d->r);
    op->range_end = mp_read_bin(&d->r);
    op->limit = mp_read_int(&d->r);
    op->revision = mp_read_int(&d->r);
    op->sort_order = (enum sort_order)read_enum(d, SORT_DESCEND);
    op->sort_target = (enum sort_target)read_enum(d, SORT_VALUE);
    uint64_t flags = mp_read_uint(&d->r);
    op->serializable = flags & FLAG_SERIALIZABLE;
    op->keys_only = flags & FLAG_KEYS_ONLY;
    op->count_only = flags & FLAG_COUNT_ONLY;
    op->min_mod_revision = mp_read_int(&d->r);
    op->max_mod_revision = mp_read_int(&d->r);
    op->min_create_revision = mp_read_int(&d->r);
    op->max_create_revision = mp_read_int(&d->r);
}

static void decode_put(struct decoder *d, struct put_op *op)
{
    op->key = mp_read_bin(&d->r);
    op->value = mp_read_bin(&d->r);
    op->lease = mp_read_int(&d->r);
    uint64_t flags = mp_read_uint(&d->r);
    op->prev_kv = flags & FLAG_PREV_KV;
    op->ignore_value = flags & FLAG_IGNORE_VALUE;
    op->ignore_lease = flags & FLAG_IGNORE_LEASE;
    if (!op->key.len) d->r.failed = true;
}

static void decode_delete(struct decoder *d, struct delete_op *op)
{
    op->key = mp_read_bin(&d->r);
    op->range_end = mp_read_bin(&d->r);
    op->prev_kv = mp_read_uint(&d->r) & FLAG_PREV_KV;
}

static void decode_compare(struct decoder *d, struct compare *c)
{
    uint32_t more = open_array(d, COMPARE_FIELDS);
    c->result = (enum compare_result)read_enum(d, COMPARE_NOT_EQUAL);
    c->target = (enum compare_target)read_enum(d, COMPARE_LEASE);
    c->key = mp_read_bin(&d->r);
    c->range_end = mp_read_bin(&d->r);
    c->number = mp_read_int(&d->r);
    c->value = mp_read_bin(&d->r);
    mp_skip(&d->r, more);
}

static void decode_op(struct decoder *d, unsigned depth, struct op *op);

static struct op *decode_ops(struct decoder *d, unsigned depth, size_t *ret_n)
{
    struct op *ops = read_list(d, LIMIT_TXN_OPS, sizeof(*ops), ret_n);
    for (size_t i = 0; i < *ret_n && !d->r.failed; i++) decode_op(d, depth, &ops[i]);
    return ops;
}

static struct txn_op *decode_txn(struct decoder *d, unsigned depth)
{
    struct txn_op *txn = arena_calloc(d->arena, 1, sizeof(*txn));
    if (!txn || depth > LIMIT_TXN_DEPTH) {
        fail(d, txn ? ERR_LIMIT : ERR_NOMEM);
        return NULL;
    }
    txn->compares = read_list(d, LIMIT_TXN_OPS, sizeof(*txn->compares), &txn->n_compares);
    for (size_t i = 0; i < txn->n_compares && !d->r.failed; i++)
        decode_compare(d, &txn->compares[i]);
    txn->success = decode_ops(d, depth + 1, &txn->n_success);
    txn->failure = decode_ops(d, depth + 1, &txn->n_failure);
    return txn;
}

static void decode_op(struct decoder *d, unsigned depth, struct op *op)
{
    static const uint8_t fields[] = {
        [OP_RANGE] = RANGE_FIELDS,
        [OP_PUT] = PUT_FIELDS,
        [OP_DELETE] = DELETE_FIELDS,
        [OP_TXN] = TXN_FIELDS,
    };
    uint32_t more = open_array(d, 1);
    uint64_t type = mp_read_uint(&d->r);
    if (d->r.failed) return;
    if (type < OP_RANGE || type > OP_TXN) {
        fail(d, type == 0 ? ERR_CORRUPT : ERR_UNSUPPORTED);
        return;
    }
    if (more < fields[type]) {
        d->r.failed = true;
        return;
    }
    op->type = (enum op_type)type;
    switch (op->type) {
    case OP_RANGE: decode_range(d, &op->range); break;
    case OP_PUT: decode_put(d, &op->put); break;
    case OP_DELETE: decode_delete(d, &op->del); break;
    case OP_TXN: op->txn = decode_txn(d, depth); break;
    }
    mp_skip(&d->r, more - fields[type]);
}

static void decode_checkpoint(struct decoder *d, struct command *c)
{
    c->checkpoint.leases =
        read_list(d, LIMIT_LEASES, sizeof(*c->checkpoint.leases), &c->checkpoint.count);
    for (size_t i = 0; i < c->checkpoint.count && !d->r.failed; i++) {
        uint32_t more = open_array(d, 2);
        c->checkpoint.leases[i].id = mp_read_int(&d->r);
        c->checkpoint.leases[i].remaining_ttl = mp_read_int(&d->r);
        mp_skip(&d->r, more);
    }
}

static void decode_member(struct decoder *d, struct command *c)
{
    c->member.member_id = mp_read_uint(&d->r);
    c->member.name = mp_read_bin(&d->r);
    c->member.client_urls =
        read_list(d, LIMIT_MEMBER_URLS, sizeof(*c->member.client_urls), &c->member.n_client_urls);
    for (size_t i = 0; i < c->member.n_client_urls; i++)
        c->member.client_urls[i] = mp_read_bin(&d->r);
}

static void decode_check(struct decoder *d, struct command *c)
{
    c->check.member_id = mp_read_uint(&d->r);
    c->check.index = mp_read_uint(&d->r);
    c->check.state = mp_read_uint(&d->r);
    c->check.log = mp_read_uint(&d->r);
}

static void decode_fields(struct decoder *d, struct command *c)
{
    switch (c->type) {
    case COMMAND_OP:
        decode_op(d, 1, &c->op);
        if (c->op.type == OP_RANGE) d->r.failed = true;
        return;
    case COMMAND_COMPACT: c->compact.revision = mp_read_int(&d->r); return;
    case COMMAND_LEASE_GRANT:
        c->lease_grant.id = mp_read_int(&d->r);
        c->lease_grant.ttl = mp_read_int(&d->r);
        return;
    case COMMAND_LEASE_REVOKE: c->lease_revoke.id = mp_read_int(&d->r); return;
    case COMMAND_LEASE_CHECKPOINT: decode_checkpoint(d, c); return;
    case COMMAND_ALARM:
        c->alarm.member_id = mp_read_uint(&d->r);
        c->alarm.alarm = (enum alarm_type)read_enum(d, ALARM_CORRUPT);
        c->alarm.activate = read_enum(d, 1);
        return;
    case COMMAND_MEMBER_ATTRIBUTES: decode_member(d, c); return;
    case COMMAND_CHECK: c->check.version = mp_read_uint(&d->r); return;
    case COMMAND_CHECK_REPORT: decode_check(d, c); return;
    case COMMAND_VERDICT:
        decode_check(d, c);
        c->check.corrupt = read_enum(d, 1);
        return;
    }
}

int command_decode(struct arena *a, struct slice in, struct command *ret)
{
    struct decoder d = {.r = reader_make(in), .arena = a};
    struct command c = {0};
    uint32_t more = open_array(&d, 1);
    uint64_t type = mp_read_uint(&d.r);
    if (d.r.failed || type < COMMAND_OP) return ERR_CORRUPT;
    if (type > COMMAND_VERDICT) return ERR_UNSUPPORTED;
    c.type = (enum command_type)type;
    if (more < command_fields[type]) return ERR_CORRUPT;
    decode_fields(&d, &c);
    mp_skip(&d.r, more - command_fields[type]);
    if (d.r.failed) return d.error ? d.error : ERR_CORRUPT;
    if (reader_left(&d.r)) return ERR_CORRUPT;
    *ret = c;
    return 0;
}
