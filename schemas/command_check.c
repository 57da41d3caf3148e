/* What may be proposed: the checks that etcd makes before Raft
 * (server/etcdserver/api/v3rpc/key.go), and those without which a member could not read the command
 * back (command.c). */
#include "schemas/command.h"

#include "base/limits.h"
#include "base/mem.h"

int range_op_check(const struct range_op *op)
{
    if (op->key.len == 0) return ERR_EMPTY_KEY;
    if ((unsigned)op->sort_order > SORT_DESCEND || (unsigned)op->sort_target > SORT_VALUE)
        return ERR_INVALID_SORT_OPTION;
    return 0;
}

static int check_put(const struct put_op *op)
{
    if (op->key.len == 0) return ERR_EMPTY_KEY;
    if (op->ignore_value && op->value.len) return ERR_VALUE_PROVIDED;
    if (op->ignore_lease && op->lease) return ERR_LEASE_PROVIDED;
    return 0;
}

static int check_compare(const struct compare *c)
{
    if (c->key.len == 0) return ERR_EMPTY_KEY;
    if ((unsigned)c->result > COMPARE_NOT_EQUAL || (unsigned)c->target > COMPARE_LEASE)
        return ERR_INVALID;
    return 0;
}

struct txn_check {
    size_t ops; /* of all levels */
};

static int check_txn(struct txn_check *t, const struct txn_op *txn, size_t max_ops, unsigned depth);

static int check_ops(struct txn_check *t, const struct op *ops, size_t n, size_t max_ops,
                     unsigned depth)
{
    t->ops += n;
    if (t->ops > LIMIT_TXN_TOTAL_OPS) return ERR_TOO_MANY_OPS;
    for (size_t i = 0; i < n; i++) {
        int rc;
        switch (ops[i].type) {
        case OP_RANGE: rc = range_op_check(&ops[i].range); break;
        case OP_PUT: rc = check_put(&ops[i].put); break;
        case OP_DELETE: rc = ops[i].del.key.len ? 0 : ERR_EMPTY_KEY; break;
        case OP_TXN: rc = check_txn(t, ops[i].txn, max_ops, depth + 1); break;
        default: rc = ERR_KEY_NOT_FOUND; /* an empty request, in etcd's words */
        }
        if (rc) return rc;
    }
    return 0;
}

/* A nested txn may hold only as many operations as the one around it left. */
static int check_txn(struct txn_check *t, const struct txn_op *txn, size_t max_ops, unsigned depth)
{
    size_t most = txn->n_compares;
    if (most < txn->n_success) most = txn->n_success;
    if (most < txn->n_failure) most = txn->n_failure;
    if (most > max_ops || depth > LIMIT_TXN_DEPTH) return ERR_TOO_MANY_OPS;
    for (size_t i = 0; i < txn->n_compares; i++) {
        int rc = check_compare(&txn->compares[i]);
        if (rc) return rc;
    }
    int rc = check_ops(t, txn->success, txn->n_success, max_ops - most, depth);
    return rc ? rc : check_ops(t, txn->failure, txn->n_failure, max_ops - most, depth);
}

/* ---- overlaps ------------------------------------------------------------------------------- */

/* A key that a list of operations puts, or a range that it deletes. */
struct touch {
    struct slice key, end;
    bool deletes;
    bool needs_key; /* a put that keeps the value or lease */
};

/* The touches of one list lie together at the end of a shared array, sized for all operations. */
struct touches {
    struct touch *items;
    size_t n;
};

/* As etcd: a delete of all keys from one on (the end "\0") overlaps with no put. But one that needs what was there is
 * refused; there etcd panics. */
static bool covers(const struct touch *range, const struct touch *put)
{
    if (range->end.len == 0) return slice_eq(range->key, put->key);
    if (slice_cmp(put->key, range->key) < 0) return false;
    if (range->end.len == 1 && range->end.data[0] == 0) return put->needs_key;
    return slice_cmp(put->key, range->end) < 0;
}

static bool deleted_in(const struct touches *t, size_t from, size_t to, const struct touch *put)
{
    for (size_t i = from; i < to; i++)
        if (t->items[i].deletes && covers(&t->items[i], put)) return true;
    return false;
}

static bool put_in(const struct touches *t, size_t from, size_t to, struct slice key)
{
    for (size_t i = from; i < to; i++)
        if (!t->items[i].deletes && slice_eq(t->items[i].key, key)) return true;
    return false;
}

static int collect_ops(struct touches *t, const struct op *ops, size_t n);

/* Adds what a nested txn touches to the list that began at `list`. Its branches exclude each other,
 * so a key in both is no overlap; its deletes are seen only by what comes after it. */
static int collect_nested(struct touches *t, size_t list, const struct txn_op *txn)
{
    size_t then = t->n;
    int rc = collect_ops(t, txn->success, txn->n_success);
    if (!rc) rc = collect_ops(t, txn->failure, txn->n_failure);
    for (size_t i = then; i < t->n && !rc; i++) {
        if (t->items[i].deletes) continue;
        const struct touch *put = &t->items[i];
        if (put_in(t, list, then, put->key) || deleted_in(t, list, then, put)) rc = ERR_DUPLICATE_KEY;
    }
    return rc;
}

static int collect_ops(struct touches *t, const struct op *ops, size_t n)
{
    size_t list = t->n;
    for (size_t i = 0; i < n; i++)
        if (ops[i].type == OP_DELETE)
            t->items[t->n++] = (struct touch){ops[i].del.key, ops[i].del.range_end, .deletes = true};
    for (size_t i = 0; i < n; i++) {
        int rc = ops[i].type == OP_TXN ? collect_nested(t, list, ops[i].txn) : 0;
        if (rc) return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (ops[i].type != OP_PUT) continue;
        const struct put_op *op = &ops[i].put;
        struct touch put = {.key = op->key, .needs_key = op->ignore_value || op->ignore_lease};
        if (put_in(t, list, t->n, put.key) || deleted_in(t, list, t->n, &put)) return ERR_DUPLICATE_KEY;
        t->items[t->n++] = put;
    }
    return 0;
}

static int check_overlaps(const struct txn_op *txn, size_t total)
{
    if (txn->n_success < 2 && txn->n_failure < 2 && total <= txn->n_success + txn->n_failure)
        return 0;
    struct touches t = {.items = mem_alloc(total * sizeof(*t.items))};
    if (!t.items) return ERR_NOMEM;
    int rc = collect_ops(&t, txn->success, txn->n_success);
    t.n = 0; /* the outermost branches exclude each other too */
    if (!rc) rc = collect_ops(&t, txn->failure, txn->n_failure);
    mem_free(t.items);
    return rc;
}

/* ---- commands ------------------------------------------------------------------------------- */

static int check_command_op(const struct op *op)
{
    switch (op->type) {
    case OP_PUT: return check_put(&op->put);
    case OP_DELETE: return op->del.key.len ? 0 : ERR_EMPTY_KEY;
    case OP_TXN: {
        struct txn_check t = {0};
        int rc = check_txn(&t, op->txn, LIMIT_TXN_OPS, 1);
        return rc ? rc : check_overlaps(op->txn, t.ops);
    }
    case OP_RANGE: break;
    }
    return ERR_INVALID;
}

static int check_member(const struct command *c)
{
    size_t bytes = c->member.name.len;
    if (c->member.member_id == 0) return ERR_INVALID;
    if (c->member.n_client_urls > LIMIT_MEMBER_URLS) return ERR_LIMIT;
    for (size_t i = 0; i < c->member.n_client_urls; i++) bytes += c->member.client_urls[i].len;
    return bytes <= LIMIT_MEMBER_BYTES ? 0 : ERR_LIMIT;
}

int command_check(const struct command *c)
{
    switch (c->type) {
    case COMMAND_OP: return check_command_op(&c->op);
    case COMMAND_LEASE_GRANT:
        if (c->lease_grant.ttl > LIMIT_LEASE_TTL) return ERR_LEASE_TTL_TOO_LARGE;
        return c->lease_grant.id ? 0 : ERR_LEASE_NOT_FOUND;
    case COMMAND_LEASE_CHECKPOINT: return c->checkpoint.count <= LIMIT_LEASES ? 0 : ERR_LIMIT;
    case COMMAND_ALARM: return (unsigned)c->alarm.alarm <= ALARM_CORRUPT ? 0 : ERR_INVALID;
    case COMMAND_MEMBER_ATTRIBUTES: return check_member(c);
    case COMMAND_CHECK_REPORT: return c->check.member_id ? 0 : ERR_INVALID;
    case COMMAND_COMPACT:
    case COMMAND_LEASE_REVOKE:
    case COMMAND_CHECK:
    case COMMAND_VERDICT: return 0;
    }
    return ERR_INVALID;
}

/* ---- questions ------------------------------------------------------------------------------ */

static bool ops_read_only(const struct op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i].type == OP_PUT || ops[i].type == OP_DELETE) return false;
        if (ops[i].type == OP_TXN && !txn_op_read_only(ops[i].txn)) return false;
    }
    return true;
}

bool txn_op_read_only(const struct txn_op *txn)
{
    return ops_read_only(txn->success, txn->n_success) &&
           ops_read_only(txn->failure, txn->n_failure);
}

static bool ops_put(const struct op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ops[i].type == OP_PUT || (ops[i].type == OP_TXN && txn_op_puts(ops[i].txn)))
            return true;
    return false;
}

bool txn_op_puts(const struct txn_op *txn)
{
    return ops_put(txn->success, txn->n_success) || ops_put(txn->failure, txn->n_failure);
}

static bool ops_serializable(const struct op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i].type == OP_RANGE && !ops[i].range.serializable) return false;
        if (ops[i].type == OP_TXN && !txn_op_serializable(ops[i].txn)) return false;
    }
    return true;
}

bool txn_op_serializable(const struct txn_op *txn)
{
    return ops_serializable(txn->success, txn->n_success) &&
           ops_serializable(txn->failure, txn->n_failure);
}
