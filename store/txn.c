/* What a txn decides before it changes anything, as etcd does it (server/etcdserver/txn): all
 * compares, nested ones too, see the state before the txn; then the puts on the path taken are
 * checked, then its ranges. */
#include "store/store_int.h"

#include "base/check.h"

static int order(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* `r` NULL = a missing key, whose numbers are 0. */
static bool compare_one(const struct compare *c, const struct record *r)
{
    int o = 0;
    switch (c->target) {
    case COMPARE_VERSION: o = order(r ? r->version : 0, c->number); break;
    case COMPARE_CREATE: o = order(r ? r->create_rev : 0, c->number); break;
    case COMPARE_MOD: o = order(r ? r->mod_rev : 0, c->number); break;
    case COMPARE_LEASE: o = order(r ? r->lease : 0, c->number); break;
    case COMPARE_VALUE:
        if (!r) return false;
        o = slice_cmp(record_value(r), c->value);
        break;
    }
    switch (c->result) {
    case COMPARE_EQUAL: return o == 0;
    case COMPARE_NOT_EQUAL: return o != 0;
    case COMPARE_GREATER: return o > 0;
    case COMPARE_LESS: return o < 0;
    }
    return true;
}

static bool compare_holds(const struct store *s, const struct compare *c)
{
    if (range_is_single(c->range_end)) {
        const struct record *r = index_get(&s->index, c->key);
        return compare_one(c, r && !r->tombstone ? r : NULL);
    }
    struct index_path path;
    bool any = false;
    for (struct record *r = index_seek(&s->index, c->key, &path);
         r && range_has(c->range_end, record_key(r)); r = index_next(&s->index, &path)) {
        if (r->tombstone) continue;
        if (!compare_one(c, r)) return false;
        any = true;
    }
    return any || compare_one(c, NULL);
}

int txn_plan(const struct view *v, const struct txn_op *txn, struct op_result *ret)
{
    ret->type = OP_TXN;
    ret->txn.succeeded = true;
    ret->txn.n = 0;
    for (size_t i = 0; i < txn->n_compares && ret->txn.succeeded; i++)
        ret->txn.succeeded = compare_holds(v->store, &txn->compares[i]);
    const struct op *ops = txn_branch(txn, ret);
    size_t n = ret->txn.succeeded ? txn->n_success : txn->n_failure;
    ret->txn.results = arena_calloc(v->arena, n, sizeof(*ret->txn.results));
    if (!ret->txn.results) return ERR_NOMEM;
    ret->txn.n = n;
    for (size_t i = 0; i < n; i++) {
        ret->txn.results[i].type = ops[i].type;
        int rc = ops[i].type == OP_TXN ? txn_plan(v, ops[i].txn, &ret->txn.results[i]) : 0;
        if (rc) return rc;
    }
    return 0;
}

static int check_put(const struct store *s, const struct put_op *op)
{
    if (op->ignore_value || op->ignore_lease) {
        const struct record *r = index_get(&s->index, op->key);
        if (!r || r->tombstone) return ERR_KEY_NOT_FOUND;
    }
    return op->lease && !lease_find(&s->leases, op->lease) ? ERR_LEASE_NOT_FOUND : 0;
}

int txn_check_puts(const struct store *s, const struct txn_op *txn, const struct op_result *plan)
{
    const struct op *ops = txn_branch(txn, plan);
    int rc = 0;
    for (size_t i = 0; i < plan->txn.n && !rc; i++) {
        if (ops[i].type == OP_PUT) rc = check_put(s, &ops[i].put);
        else if (ops[i].type == OP_TXN) rc = txn_check_puts(s, ops[i].txn, &plan->txn.results[i]);
    }
    return rc;
}

/* Unlike a lone range, one in a txn may not ask for a negative revision once there was a
 * compaction. */
static int check_revision(const struct store *s, int64_t rev)
{
    if (rev == 0) return 0;
    if (rev > s->revision) return ERR_FUTURE_REV;
    return rev < s->compact_rev ? ERR_COMPACTED : 0;
}

int txn_check_ranges(const struct store *s, const struct txn_op *txn, const struct op_result *plan)
{
    const struct op *ops = txn_branch(txn, plan);
    int rc = 0;
    for (size_t i = 0; i < plan->txn.n && !rc; i++) {
        if (ops[i].type == OP_RANGE) rc = check_revision(s, ops[i].range.revision);
        else if (ops[i].type == OP_TXN) rc = txn_check_ranges(s, ops[i].txn, &plan->txn.results[i]);
    }
    return rc;
}

int64_t txn_cost(const struct txn_op *txn, const struct op_result *plan)
{
    const struct op *ops = txn_branch(txn, plan);
    int64_t cost = 0;
    for (size_t i = 0; i < plan->txn.n; i++) {
        if (ops[i].type == OP_PUT)
            cost += RECORD_COST + (int64_t)ops[i].put.key.len + (int64_t)ops[i].put.value.len;
        else if (ops[i].type == OP_TXN) cost += txn_cost(ops[i].txn, &plan->txn.results[i]);
    }
    return cost;
}

/* ---- txns that only read -------------------------------------------------------------------- */

static int read_branch(const struct view *v, const struct txn_op *txn, struct op_result *plan)
{
    const struct op *ops = txn_branch(txn, plan);
    int rc = 0;
    for (size_t i = 0; i < plan->txn.n && !rc; i++) {
        struct op_result *ret = &plan->txn.results[i];
        if (ops[i].type == OP_RANGE) {
            struct view at = *v;
            if (ops[i].range.revision > 0) at.rev = ops[i].range.revision;
            rc = range_read(&at, &ops[i].range, &ret->range);
        } else if (ops[i].type == OP_TXN) {
            rc = read_branch(v, ops[i].txn, ret);
        } else {
            rc = ERR_INVALID;
        }
    }
    return rc;
}

void store_txn_read(struct store *s, const struct txn_op *txn, struct arena *a, struct result *ret)
{
    const struct view v = {s, a, INT64_MAX};
    *ret = (struct result){.type = COMMAND_OP, .op.type = OP_TXN};
    int rc = txn_op_read_only(txn) ? txn_plan(&v, txn, &ret->op) : ERR_INVALID;
    if (!rc) rc = txn_check_ranges(s, txn, &ret->op);
    if (!rc) rc = read_branch(&v, txn, &ret->op);
    if (rc) {
        result_release(ret);
        *ret = (struct result){.type = COMMAND_OP, .op.type = OP_TXN, .code = rc};
    }
    ret->revision = s->revision;
}
