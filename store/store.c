/* Making a store, applying commands to it, and what it says about itself. */
#include "store/store_int.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"

struct store *store_new(const struct store_options *options)
{
    struct store *s = mem_must_calloc(1, sizeof(*s));
    s->quota =
        options && options->quota_bytes ? options->quota_bytes : (int64_t)LIMIT_QUOTA_BYTES_DEFAULT;
    s->slabs = slab_heap_new();
    s->revision = 1;
    s->compact_rev = -1;
    s->work_target = -1;
    s->work_rev = -1;
    list_init(&s->pins);
    list_init(&s->checks);
    return s;
}

void store_free(struct store *s)
{
    if (!s) return;
    while (!list_empty(&s->pins)) pin_close(container_of(s->pins.next, struct pin, node));
    event_batch_unref(s->events);
    lease_table_release(&s->leases);
    index_release(&s->index);
    rlog_release(&s->log);
    members_release(s);
    slab_heap_free(s->slabs);
    mem_free(s->alarms);
    mem_free(s);
}

void pin_open(struct pin *p, struct store *s, int64_t rev)
{
    p->store = s;
    p->rev = rev;
    list_push_back(&s->pins, &p->node);
}

void pin_close(struct pin *p)
{
    if (!p->store) return;
    list_remove(&p->node);
    p->store = NULL;
}

/* ---- applying ------------------------------------------------------------------------------- */

static int apply_put(struct store *s, const struct put_op *op, struct op_result *ret)
{
    if (op->lease && !lease_find(&s->leases, op->lease)) return ERR_LEASE_NOT_FOUND;
    if (op->ignore_value || op->ignore_lease) {
        const struct record *r = index_get(&s->index, op->key);
        if (!r || r->tombstone) return ERR_KEY_NOT_FOUND;
    }
    int rc = quota_check(s, RECORD_COST + (int64_t)op->key.len + (int64_t)op->value.len);
    if (rc) return rc;
    write_put(s, op, ret);
    return 0;
}

/* The path that a txn takes, one operation after the other, nested ones in their place. */
struct txn_run {
    struct arena *arena;
    struct txn_leaf {
        const struct op *op;
        struct op_result *ret;
    } *leaves;
    size_t n, at;
    bool deleting; /* in the middle of leaves[at] */
    struct deletion deletion;
};

static size_t count_leaves(const struct op_result *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->txn.n; i++) {
        const struct op_result *r = &plan->txn.results[i];
        n += r->type == OP_TXN ? count_leaves(r) : 1;
    }
    return n;
}

static void add_leaves(struct txn_run *run, const struct txn_op *txn, const struct op_result *plan)
{
    const struct op *ops = txn_branch(txn, plan);
    for (size_t i = 0; i < plan->txn.n; i++) {
        struct op_result *r = &plan->txn.results[i];
        if (r->type == OP_TXN) add_leaves(run, ops[i].txn, r);
        else run->leaves[run->n++] = (struct txn_leaf){&ops[i], r};
    }
}

/* Decides and checks; a txn that is refused has nothing to run. */
static int txn_run_begin(struct store *s, struct arena *a, const struct txn_op *txn, struct op_result *ret,
                         struct txn_run *run)
{
    const struct view v = {s, a, INT64_MAX};
    struct op_result plan = {.type = OP_TXN};
    *run = (struct txn_run){.arena = a};
    int rc = txn_plan(&v, txn, &plan);
    if (rc) apply_out_of_memory();
    rc = txn_op_read_only(txn) ? 0 : txn_check_puts(s, txn, &plan);
    if (!rc) rc = txn_check_ranges(s, txn, &plan);
    int64_t cost = rc ? 0 : txn_cost(txn, &plan);
    if (!rc && cost) rc = quota_check(s, cost);
    if (rc) return rc;
    *ret = plan;
    run->leaves = apply_alloc(a, count_leaves(ret) * sizeof(*run->leaves));
    add_leaves(run, txn, ret);
    return 0;
}

/* True when the leaf is done; `*most` is what is left of the keys that may be changed. */
static bool run_leaf(struct store *s, struct txn_run *run, const struct txn_leaf *leaf, size_t *most)
{
    const struct op *op = leaf->op;
    if (op->type == OP_DELETE) {
        if (!run->deleting) deletion_begin(s, run->arena, &op->del, leaf->ret, &run->deletion);
        size_t left = (size_t)run->deletion.left;
        run->deleting = !deletion_step(s, &run->deletion, *most);
        *most -= run->deleting || left > *most ? *most : left; /* one that is not done has passed by others that are deleted */
        return !run->deleting;
    }
    struct view at = {s, run->arena, op->type == OP_RANGE && op->range.revision > 0 ? op->range.revision : INT64_MAX};
    if (op->type == OP_PUT) write_put(s, &op->put, leaf->ret);
    else if (range_read(&at, &op->range, &leaf->ret->range)) apply_out_of_memory();
    --*most;
    return true;
}

static bool txn_run_step(struct store *s, struct txn_run *run, size_t most)
{
    while (run->at < run->n && most > 0)
        if (run_leaf(s, run, &run->leaves[run->at], &most)) run->at++;
    return run->at == run->n;
}

static int apply_txn(struct store *s, struct arena *a, const struct txn_op *txn,
                     struct op_result *ret)
{
    struct txn_run run;
    int rc = txn_run_begin(s, a, txn, ret, &run);
    txn_run_step(s, &run, SIZE_MAX);
    return rc;
}

static int apply_op(struct store *s, struct arena *a, const struct op *op, struct op_result *ret)
{
    switch (op->type) {
    case OP_PUT: return apply_put(s, &op->put, ret);
    case OP_DELETE: write_delete(s, a, &op->del, ret); return 0;
    case OP_TXN: return apply_txn(s, a, op->txn, ret);
    case OP_RANGE: break;
    }
    return ERR_INVALID;
}

static int apply_grant(struct store *s, int64_t id, int64_t ttl, struct result *ret)
{
    if (id == 0) return ERR_LEASE_NOT_FOUND;
    if (ttl > LIMIT_LEASE_TTL) return ERR_LEASE_TTL_TOO_LARGE;
    if (lease_find(&s->leases, id)) return ERR_LEASE_EXISTS;
    if (s->leases.n >= LIMIT_LEASES) return ERR_LIMIT;
    int rc = quota_check(s, LEASE_COST);
    if (rc) return rc;
    struct lease *l =
        lease_add(&s->leases, id, ttl < LIMIT_LEASE_MIN_TTL ? LIMIT_LEASE_MIN_TTL : ttl);
    store_check_lease(s, l, true);
    ret->lease.id = id;
    ret->lease.ttl = l->ttl;
    return 0;
}

/* All its keys go in one revision, in key order. */
struct revocation {
    struct lease *lease;
    struct index keys; /* taken over, so that deleting need not detach one by one */
    struct index_path path;
    struct record *next; /* not deleted yet */
};

static void revocation_begin(struct lease *l, struct revocation *v)
{
    v->lease = l;
    v->keys = l->keys;
    l->keys = (struct index){0};
    v->next = index_seek(&v->keys, (struct slice){0}, &v->path);
}

static bool revocation_step(struct store *s, struct revocation *v, size_t max_keys)
{
    struct index_path path;
    for (; v->next && max_keys > 0; max_keys--) {
        CHECK(index_find(&s->index, record_key(v->next), &path) == v->next);
        write_tombstone(s, &path, v->next);
        v->next = index_next(&v->keys, &v->path);
    }
    if (v->next) return false;
    index_release(&v->keys);
    store_check_lease(s, v->lease, false);
    lease_remove(&s->leases, v->lease);
    return true;
}

static int apply_revoke(struct store *s, int64_t id)
{
    struct revocation v;
    struct lease *l = lease_find(&s->leases, id);
    if (!l) return ERR_LEASE_NOT_FOUND;
    revocation_begin(l, &v);
    revocation_step(s, &v, SIZE_MAX);
    return 0;
}

static void apply_checkpoint(struct store *s, const struct command *c)
{
    for (size_t i = 0; i < c->checkpoint.count; i++) {
        struct lease *l = lease_find(&s->leases, c->checkpoint.leases[i].id);
        if (!l) continue;
        store_check_lease(s, l, false);
        l->remaining_ttl = c->checkpoint.leases[i].remaining_ttl;
        store_check_lease(s, l, true);
    }
}

static int apply_command(struct store *s, const struct command *c, struct arena *a,
                         struct result *ret)
{
    int rc = alarm_refusal(s, c);
    if (rc) return rc;
    switch (c->type) {
    case COMMAND_OP: return apply_op(s, a, &c->op, &ret->op);
    case COMMAND_COMPACT: return compact(s, c->compact.revision);
    case COMMAND_LEASE_GRANT: return apply_grant(s, c->lease_grant.id, c->lease_grant.ttl, ret);
    case COMMAND_LEASE_REVOKE: return apply_revoke(s, c->lease_revoke.id);
    case COMMAND_LEASE_CHECKPOINT: apply_checkpoint(s, c); return 0;
    case COMMAND_ALARM:
        alarm_apply(s, c->alarm.member_id, c->alarm.alarm, c->alarm.activate);
        return 0;
    case COMMAND_MEMBER_ATTRIBUTES:
        return member_apply(s, c->member.member_id, c->member.name, c->member.client_urls,
                            c->member.n_client_urls);
    case COMMAND_VERDICT: verdict_apply(s, c->check.member_id, c->check.corrupt); return 0;
    case COMMAND_CHECK:
    case COMMAND_CHECK_REPORT: return 0; /* the core's */
    }
    return ERR_INVALID;
}

static void begin_result(const struct command *c, struct result *ret)
{
    *ret = (struct result){.type = c->type};
    if (c->type == COMMAND_OP) ret->op.type = c->op.type;
}

static void finish_result(struct store *s, const struct command *c, struct result *ret)
{
    ret->revision = write_end(s);
    quota_relax(s);
    if (ret->code || !s->lease_changed) return;
    if (c->type == COMMAND_LEASE_GRANT) s->lease_changed(s->lease_ctx, c->lease_grant.id, true);
    if (c->type == COMMAND_LEASE_REVOKE) s->lease_changed(s->lease_ctx, c->lease_revoke.id, false);
}

void store_apply(struct store *s, const struct command *c, struct arena *a, struct result *ret)
{
    begin_result(c, ret);
    ret->code = apply_command(s, c, a, ret);
    finish_result(s, c, ret);
}

/* ---- applying in steps ------------------------------------------------------------------------ */

struct store_apply {
    struct store *store;
    const struct command *command;
    struct result *ret;
    union {
        struct deletion deletion;
        struct revocation revocation;
        struct txn_run txn;
    };
};

/* Whichever way a txn goes. */
static int64_t most_deleted(const struct store *s, const struct op *op)
{
    const struct view v = {s, NULL, INT64_MAX};
    int64_t n = 0;
    if (op->type == OP_DELETE && op->del.range_end.len) return range_count(&v, op->del.key, op->del.range_end);
    if (op->type != OP_TXN) return 0;
    for (size_t i = 0; i < op->txn->n_success; i++) n += most_deleted(s, &op->txn->success[i]);
    for (size_t i = 0; i < op->txn->n_failure; i++) n += most_deleted(s, &op->txn->failure[i]);
    return n;
}

bool store_apply_is_long(const struct store *s, const struct command *c, size_t keys)
{
    if (alarm_refusal(s, c)) return false;
    if (c->type == COMMAND_LEASE_REVOKE) {
        const struct lease *l = lease_find(&s->leases, c->lease_revoke.id);
        return l && l->keys.entries > keys;
    }
    return c->type == COMMAND_OP && most_deleted(s, &c->op) > (int64_t)keys;
}

struct store_apply *store_apply_begin(struct store *s, const struct command *c, struct arena *a,
                                      struct result *ret)
{
    struct store_apply *p = mem_must_calloc(1, sizeof(*p));
    p->store = s;
    p->command = c;
    p->ret = ret;
    begin_result(c, ret);
    if (c->type == COMMAND_LEASE_REVOKE)
        revocation_begin(lease_find(&s->leases, c->lease_revoke.id), &p->revocation);
    else if (c->op.type == OP_TXN) ret->code = txn_run_begin(s, a, c->op.txn, &ret->op, &p->txn);
    else deletion_begin(s, a, &c->op.del, &ret->op, &p->deletion);
    return p;
}

bool store_apply_step(struct store_apply *p, size_t max_keys)
{
    const struct command *c = p->command;
    bool done = c->type == COMMAND_LEASE_REVOKE ? revocation_step(p->store, &p->revocation, max_keys)
                : c->op.type == OP_TXN          ? txn_run_step(p->store, &p->txn, max_keys)
                                                : deletion_step(p->store, &p->deletion, max_keys);
    if (!done) return false;
    finish_result(p->store, p->command, p->ret);
    mem_free(p);
    return true;
}

/* ---- results -------------------------------------------------------------------------------- */

static void unref_all(struct record **records, size_t n)
{
    for (size_t i = 0; i < n; i++) record_unref(records[i]);
}

static void release_op(struct op_result *r)
{
    switch (r->type) {
    case OP_RANGE: unref_all(r->range.records, r->range.n); break;
    case OP_PUT: record_unref(r->put.prev); break;
    case OP_DELETE: unref_all(r->del.prevs, r->del.n_prevs); break;
    case OP_TXN:
        for (size_t i = 0; i < r->txn.n; i++) release_op(&r->txn.results[i]);
        break;
    }
}

void result_release(struct result *r)
{
    if (r->type == COMMAND_OP) release_op(&r->op);
    *r = (struct result){0};
}

/* ---- what there is -------------------------------------------------------------------------- */

int64_t store_revision(const struct store *s)
{
    return s->revision;
}

int64_t store_compact_revision(const struct store *s)
{
    return s->compact_rev;
}

int64_t store_size(const struct store *s)
{
    int64_t held = s->held + LEASE_COST * (int64_t)s->leases.n, in_use = store_size_in_use(s);
    return held > in_use ? held : in_use;
}

int64_t store_size_in_use(const struct store *s)
{
    return s->compacted.live + s->sums.written - s->compacted.written +
           LEASE_COST * (int64_t)s->leases.n;
}

int64_t store_keys(const struct store *s)
{
    return (int64_t)s->index.live;
}

bool store_lease(const struct store *s, int64_t id, struct lease_info *ret)
{
    const struct lease *l = lease_find(&s->leases, id);
    if (!l) return false;
    *ret = (struct lease_info){l->id, l->ttl, l->remaining_ttl, l->keys.live};
    return true;
}

size_t store_leases(const struct store *s, int64_t after, int64_t *ids, size_t max)
{
    size_t n = 0;
    for (; n < max; n++) {
        const struct lease *l = lease_after(&s->leases, after);
        if (!l) break;
        ids[n] = after = l->id;
    }
    return n;
}

int store_lease_keys(const struct store *s, int64_t id, struct arena *a, struct slice **ret,
                     size_t *ret_n)
{
    const struct lease *l = lease_find(&s->leases, id);
    if (!l) return ERR_LEASE_NOT_FOUND;
    struct slice *keys = arena_calloc(a, l->keys.entries, sizeof(*keys));
    if (!keys) return ERR_NOMEM;
    size_t n = 0;
    struct index_path path;
    for (struct record *r = index_seek(&l->keys, (struct slice){0}, &path); r;
         r = index_next(&l->keys, &path)) {
        keys[n] = arena_dup(a, record_key(r));
        if (!keys[n++].data) return ERR_NOMEM;
    }
    *ret = keys;
    *ret_n = n;
    return 0;
}

void store_on_lease(struct store *s, void (*changed)(void *ctx, int64_t id, bool granted),
                    void *ctx)
{
    s->lease_changed = changed;
    s->lease_ctx = ctx;
    if (changed && s->leases.n) changed(ctx, 0, true);
}
