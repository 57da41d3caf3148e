#include "schemas/etcd/request.h"

#include "base/limits.h"
#include "schemas/etcd/pb.h"

/* Most filters that a watch may name; there are two. */
#define MAX_FILTERS 64

/* Setters: false when the field's wire type is not the one it must have. */

static bool set_bytes(const struct pb_field *f, struct slice *ret)
{
    *ret = f->bytes;
    return f->wire == PB_BYTES;
}

static bool set_int(const struct pb_field *f, int64_t *ret)
{
    *ret = (int64_t)f->value;
    return f->wire == PB_VARINT;
}

static bool set_bool(const struct pb_field *f, bool *ret)
{
    *ret = f->value != 0;
    return f->wire == PB_VARINT;
}

/* Enums are 32-bit on the wire; what is beyond the known values is the caller's to refuse. */
static bool set_enum(const struct pb_field *f, int *ret)
{
    *ret = (int)(int32_t)(uint32_t)f->value;
    return f->wire == PB_VARINT;
}

static bool range_field(const struct pb_field *f, struct range_op *r)
{
    int value = 0;
    bool ok;
    switch (f->number) {
    case 1: return set_bytes(f, &r->key);
    case 2: return set_bytes(f, &r->range_end);
    case 3: return set_int(f, &r->limit);
    case 4: return set_int(f, &r->revision);
    case 5:
        ok = set_enum(f, &value);
        r->sort_order = (enum sort_order)value;
        return ok;
    case 6:
        ok = set_enum(f, &value);
        r->sort_target = (enum sort_target)value;
        return ok;
    case 7: return set_bool(f, &r->serializable);
    case 8: return set_bool(f, &r->keys_only);
    case 9: return set_bool(f, &r->count_only);
    case 10: return set_int(f, &r->min_mod_revision);
    case 11: return set_int(f, &r->max_mod_revision);
    case 12: return set_int(f, &r->min_create_revision);
    case 13: return set_int(f, &r->max_create_revision);
    default: return true;
    }
}

int etcd_range_decode(struct slice in, struct range_op *ret)
{
    struct range_op r = {0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (!range_field(&f, &r)) return ERR_INVALID;
    }
    if (rv == 0) *ret = r;
    return rv;
}

static bool put_field(const struct pb_field *f, struct put_op *p)
{
    switch (f->number) {
    case 1: return set_bytes(f, &p->key);
    case 2: return set_bytes(f, &p->value);
    case 3: return set_int(f, &p->lease);
    case 4: return set_bool(f, &p->prev_kv);
    case 5: return set_bool(f, &p->ignore_value);
    case 6: return set_bool(f, &p->ignore_lease);
    default: return true;
    }
}

int etcd_put_decode(struct slice in, struct put_op *ret)
{
    struct put_op p = {0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (!put_field(&f, &p)) return ERR_INVALID;
    }
    if (rv == 0) *ret = p;
    return rv;
}

int etcd_delete_decode(struct slice in, struct delete_op *ret)
{
    struct delete_op d = {0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        bool ok = true;
        if (f.number == 1) ok = set_bytes(&f, &d.key);
        if (f.number == 2) ok = set_bytes(&f, &d.range_end);
        if (f.number == 3) ok = set_bool(&f, &d.prev_kv);
        if (!ok) return ERR_INVALID;
    }
    if (rv == 0) *ret = d;
    return rv;
}

/* ---- transactions ------------------------------------------------------------------------------
 */

struct txn_decoder {
    struct arena *arena;
    size_t ops; /* of all levels so far */
};

enum { COMPARE_VERSION_FIELD = 4, COMPARE_VALUE_FIELD = 7, COMPARE_LEASE_FIELD = 8 };

/* Which field of the union holds what a target is compared with. */
static unsigned target_field(enum compare_target target)
{
    switch (target) {
    case COMPARE_VERSION: return 4;
    case COMPARE_CREATE: return 5;
    case COMPARE_MOD: return 6;
    case COMPARE_VALUE: return 7;
    case COMPARE_LEASE: return 8;
    }
    return 0;
}

/* As etcd: a union that does not fit the target counts as zero. */
static int compare_decode(struct slice in, struct compare *ret)
{
    struct compare c = {0};
    struct pb_field f;
    unsigned in_union = 0;
    int rv, value;
    while ((rv = pb_next(&in, &f)) == 1) {
        bool ok = true;
        if (f.number >= COMPARE_VERSION_FIELD && f.number <= COMPARE_LEASE_FIELD) {
            in_union = f.number;
            ok = f.number == COMPARE_VALUE_FIELD ? set_bytes(&f, &c.value) : set_int(&f, &c.number);
        }
        if (f.number == 1 || f.number == 2) {
            ok = set_enum(&f, &value);
            if (f.number == 1) c.result = (enum compare_result)value;
            if (f.number == 2) c.target = (enum compare_target)value;
        }
        if (f.number == 3) ok = set_bytes(&f, &c.key);
        if (f.number == 64) ok = set_bytes(&f, &c.range_end);
        if (!ok) return ERR_INVALID;
    }
    if (rv != 0) return rv;
    if (in_union != target_field(c.target) || in_union == COMPARE_VALUE_FIELD) c.number = 0;
    if (in_union != target_field(c.target) || in_union != COMPARE_VALUE_FIELD)
        c.value = (struct slice){0};
    *ret = c;
    return 0;
}

static int txn_decode(struct txn_decoder *d, struct slice in, unsigned depth, struct txn_op *ret);

static int op_decode(struct txn_decoder *d, struct slice in, unsigned depth, struct op *ret)
{
    struct op op = {0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (f.number < 1 || f.number > 4) continue;
        if (f.wire != PB_BYTES) return ERR_INVALID;
        if (f.number == 1) rv = etcd_range_decode(f.bytes, &op.range);
        if (f.number == 2) rv = etcd_put_decode(f.bytes, &op.put);
        if (f.number == 3) rv = etcd_delete_decode(f.bytes, &op.del);
        if (f.number == 4) {
            op.txn = arena_calloc(d->arena, 1, sizeof(*op.txn));
            rv = op.txn ? txn_decode(d, f.bytes, depth + 1, op.txn) : ERR_NOMEM;
        }
        if (rv < 0) return rv;
        op.type = (enum op_type)f.number; /* RequestOp numbers them as we do */
    }
    if (rv == 0) *ret = op;
    return rv;
}

_Static_assert(OP_RANGE == 1 && OP_PUT == 2 && OP_DELETE == 3 && OP_TXN == 4,
               "fields of RequestOp");

/* Makes room for what the message holds; a branch that is too long is refused before that. */
static int txn_room(struct txn_decoder *d, struct slice in, struct txn_op *t)
{
    struct pb_field f;
    size_t n[4] = {0};
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (f.number > 3) continue;
        if (f.wire != PB_BYTES) return ERR_INVALID;
        if (++n[f.number] > LIMIT_TXN_OPS) return ERR_TOO_MANY_OPS;
    }
    if (rv != 0) return rv;
    d->ops += n[2] + n[3];
    if (d->ops > LIMIT_TXN_TOTAL_OPS) return ERR_TOO_MANY_OPS;
    t->compares = arena_calloc(d->arena, n[1], sizeof(*t->compares));
    t->success = arena_calloc(d->arena, n[2], sizeof(*t->success));
    t->failure = arena_calloc(d->arena, n[3], sizeof(*t->failure));
    return t->compares && t->success && t->failure ? 0 : ERR_NOMEM;
}

static int txn_decode(struct txn_decoder *d, struct slice in, unsigned depth, struct txn_op *ret)
{
    struct txn_op t = {0};
    struct pb_field f;
    if (depth > LIMIT_TXN_DEPTH) return ERR_TOO_MANY_OPS;
    int rv = txn_room(d, in, &t);
    if (rv != 0) return rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (f.number == 1) rv = compare_decode(f.bytes, &t.compares[t.n_compares++]);
        if (f.number == 2) rv = op_decode(d, f.bytes, depth, &t.success[t.n_success++]);
        if (f.number == 3) rv = op_decode(d, f.bytes, depth, &t.failure[t.n_failure++]);
        if (rv < 0) return rv;
    }
    if (rv == 0) *ret = t;
    return rv;
}

int etcd_txn_decode(struct arena *a, struct slice in, struct txn_op *ret)
{
    struct txn_decoder d = {.arena = a};
    return txn_decode(&d, in, 0, ret);
}

/* ---- streams -----------------------------------------------------------------------------------
 */

static bool filters_field(const struct pb_field *f, struct etcd_watch_request *w)
{
    uint64_t values[MAX_FILTERS];
    size_t n = 0;
    if (pb_numbers(f, values, &n, MAX_FILTERS) != 0) return false;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)values[i] == 0) w->no_put = true;
        if ((uint32_t)values[i] == 1) w->no_delete = true;
    }
    return true;
}

static bool create_field(const struct pb_field *f, struct etcd_watch_request *w)
{
    switch (f->number) {
    case 1: return set_bytes(f, &w->key);
    case 2: return set_bytes(f, &w->range_end);
    case 3: return set_int(f, &w->start_revision);
    case 4: return set_bool(f, &w->progress_notify);
    case 5: return filters_field(f, w);
    case 6: return set_bool(f, &w->prev_kv);
    case 7: return set_int(f, &w->watch_id);
    case 8: return set_bool(f, &w->fragment);
    default: return true;
    }
}

static int watch_body_decode(struct slice in, enum etcd_watch_kind kind,
                             struct etcd_watch_request *ret)
{
    struct pb_field f;
    int rv;
    *ret = (struct etcd_watch_request){.kind = kind};
    while ((rv = pb_next(&in, &f)) == 1) {
        bool ok = true;
        if (kind == ETCD_WATCH_CREATE) ok = create_field(&f, ret);
        if (kind == ETCD_WATCH_CANCEL && f.number == 1) ok = set_int(&f, &ret->watch_id);
        if (!ok) return ERR_INVALID;
    }
    return rv;
}

int etcd_watch_decode(struct slice in, struct etcd_watch_request *ret)
{
    struct etcd_watch_request w = {0};
    struct pb_field f;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (f.number > ETCD_WATCH_PROGRESS) continue;
        if (f.wire != PB_BYTES) return ERR_INVALID;
        rv = watch_body_decode(f.bytes, (enum etcd_watch_kind)f.number, &w);
        if (rv < 0) return rv;
    }
    if (rv == 0) *ret = w;
    return rv;
}

int etcd_keepalive_decode(struct slice in, int64_t *ret_id)
{
    struct pb_field f;
    int64_t id = 0;
    int rv;
    while ((rv = pb_next(&in, &f)) == 1) {
        if (f.number == 1 && !set_int(&f, &id)) return ERR_INVALID;
    }
    if (rv == 0) *ret_id = id;
    return rv;
}
