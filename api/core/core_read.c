/* Everything that reads: at a read point that all waiting requests share, or at once where the request says serializable or
 * asks about this member only. Long reads are handles (cursor, snapshot, hash) that pin the state they were opened on. */

#include "api/core/core_int.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"

#define CORE_CURSOR_BYTES (512 * LIMIT_KiB)
#define CORE_HASH_BYTES (256 * LIMIT_KiB)
#define CORE_LEASES_AT_ONCE 4096

struct core_cursor {
    struct core_state *state;
    struct store_cursor *cursor;
};

struct core_snapshot {
    struct core_state *state;
    struct store_snapshot *snapshot;
};

struct core_hash {
    struct list node;
    struct core_state *state;
    struct store_hash *hash;
    struct core_request *request;
};

/* ---- cursors --------------------------------------------------------------------------------- */

static void cursor_close(struct core_cursor *h)
{
    store_cursor_close(h->cursor);
    core_state_unref(h->state);
    mem_free(h);
}

static int cursor_next(const struct core *c, struct core_request *r)
{
    size_t most = c->config.range_slice_keys ? c->config.range_slice_keys : LIMIT_RANGE_SLICE;
    r->result.type = COMMAND_OP;
    r->result.op.type = OP_RANGE;
    r->result.revision = store_cursor_revision(r->cursor->cursor);
    return store_cursor_next(r->cursor->cursor, most, CORE_CURSOR_BYTES, &r->arena, &r->result.op.range);
}

static int cursor_open(struct core *c, struct core_request *r)
{
    struct store_cursor *cursor;
    if (c->n_cursors >= LIMIT_CORE_CURSORS) return ERR_TOO_MANY_REQUESTS;
    int rv = store_cursor_open(c->state->store, &r->range, &cursor);
    if (rv != 0) return rv;
    r->cursor = mem_must_calloc(1, sizeof(*r->cursor));
    r->cursor->state = c->state;
    r->cursor->cursor = cursor;
    core_state_ref(c->state);
    rv = cursor_next(c, r);
    if (rv != 0) {
        cursor_close(r->cursor);
        r->cursor = NULL;
    } else {
        c->n_cursors++;
    }
    return rv;
}

/* ---- snapshots ------------------------------------------------------------------------------- */

static int snapshot_open(struct core *c, struct core_request *r)
{
    if (c->n_snapshots >= LIMIT_CORE_SNAPSHOTS) return ERR_TOO_MANY_REQUESTS;
    struct core_snapshot *h = mem_must_calloc(1, sizeof(*h));
    h->state = c->state;
    h->snapshot = store_snapshot_open(c->state->store);
    core_state_ref(c->state);
    r->snapshot = h;
    r->snapshot_size = store_size_in_use(c->state->store);
    c->n_snapshots++;
    return 0;
}

static int snapshot_next(struct core_request *r)
{
    struct buf out;
    buf_init(&out, 4 * LIMIT_SNAPSHOT_CHUNK_BYTES);
    int rv = store_snapshot_next(r->snapshot->snapshot, LIMIT_SNAPSHOT_CHUNK_BYTES, &out, &r->done_all);
    if (rv == 0 && !(r->piece = blob_copy(buf_slice(&out)))) rv = ERR_NOMEM;
    buf_release(&out);
    return rv;
}

static void snapshot_close(struct core_snapshot *h)
{
    store_snapshot_close(h->snapshot);
    core_state_unref(h->state);
    mem_free(h);
}

void core_close_handle(struct core_request *r)
{
    if (r->type == CORE_CURSOR_CLOSE) cursor_close(r->cursor);
    if (r->type == CORE_SNAPSHOT_CLOSE) snapshot_close(r->snapshot);
}

/* ---- hashes ---------------------------------------------------------------------------------- */

static void hash_close(struct core *c, struct core_hash *h)
{
    c->n_hashes--;
    list_remove(&h->node);
    store_hash_close(h->hash);
    core_state_unref(h->state);
    mem_free(h);
}

static int hash_open(struct core *c, struct core_request *r)
{
    struct store_hash *hash;
    if (c->n_hashes >= LIMIT_CORE_HASHES) return ERR_TOO_MANY_REQUESTS;
    int rv = store_hash_open(c->state->store, r->revision, &hash);
    if (rv != 0) return rv;
    struct core_hash *h = mem_must_calloc(1, sizeof(*h));
    *h = (struct core_hash){.state = c->state, .hash = hash, .request = r};
    core_state_ref(c->state);
    c->n_hashes++;
    list_push_back(&c->hashes, &h->node);
    if (!c->hash_work.queued) c->env->ops->defer(c->env, &c->hash_work);
    return 0;
}

void core_hash_step(struct env_task *t)
{
    struct core *c = t->data;
    struct list *node = c->hashes.next;
    if (node == &c->hashes || c->closing) return;
    struct core_hash *h = container_of(node, struct core_hash, node);
    if (store_hash_step(h->hash, CORE_HASH_BYTES)) {
        struct core_request *r = h->request;
        r->hash = store_hash_value(h->hash);
        r->hash_revision = store_hash_revision(h->hash);
        r->compact_rev = store_hash_compact_revision(h->hash);
        hash_close(c, h);
        core_answer(c, r, 0);
    }
    if (!list_empty(&c->hashes) && !t->queued) c->env->ops->defer(c->env, t);
}

/* ---- facts about this member ------------------------------------------------------------------ */

static int history(struct core *c, struct core_request *r)
{
    r->upto_rev = store_revision(c->state->store);
    r->compact_rev = store_compact_revision(c->state->store);
    return store_events(c->state->store, r->from_rev, r->upto_rev, LIMIT_WATCH_BATCH_EVENTS,
                        LIMIT_WATCH_BATCH_BYTES, &r->events);
}

static bool listed(const struct alarm *alarms, size_t n, struct alarm a)
{
    for (size_t i = 0; i < n; i++)
        if (alarms[i].member_id == a.member_id && alarms[i].alarm == a.alarm) return true;
    return false;
}

/* At most CORE_ALARMS_MAX in all; who heals finds room, whatever alarms clients have raised. */
static void list_alarms(struct core *c, struct alarm *alarms, size_t *ret_n, size_t *ret_healing)
{
    const struct consensus_member *all;
    size_t n = store_alarms(c->state->store, alarms, CORE_ALARMS_MAX - LIMIT_MEMBERS), healing = 0;
    size_t n_members = consensus_members(c->consensus, &all);
    for (size_t i = 0; i < n_members && healing < LIMIT_MEMBERS; i++) {
        struct alarm a = {.member_id = all[i].id, .alarm = ALARM_CORRUPT};
        if (consensus_heals(c->consensus, a.member_id) && !listed(alarms, n, a)) alarms[n + healing++] = a;
    }
    *ret_n = n;
    *ret_healing = healing;
}

static int status(struct core *c, struct core_request *r)
{
    struct core_status *s = arena_calloc(&r->arena, 1, sizeof(*s));
    const struct store *store = c->state->store;
    if (!s) return ERR_NOMEM;
    consensus_get_status(c->consensus, &s->raft);
    s->revision = store_revision(store);
    s->compact_revision = store_compact_revision(store);
    s->db_size = store_size(store);
    s->db_size_in_use = store_size_in_use(store);
    s->keys = store_keys(store);
    s->quota = c->config.store.quota_bytes ? c->config.store.quota_bytes : (int64_t)LIMIT_QUOTA_BYTES_DEFAULT;
    s->leases = c->leases.count;
    s->pending = c->pending;
    list_alarms(c, s->alarms, &s->n_alarms, &s->n_healing);
    s->applied_entries = c->applied_entries;
    s->applied_commands = c->applied_commands;
    s->batches = c->n_batches;
    s->slow_applies = c->slow_applies;
    s->check_index = c->check.index;
    s->checks = c->n_checks;
    s->check_mismatches = c->n_mismatches;
    s->learner = c->learner;
    s->refusing = c->refusing;
    r->status = s;
    return 0;
}

static int member_describe(struct core *c, struct core_request *r, const struct consensus_member *from,
                           struct core_member *to)
{
    struct member_attributes have;
    to->id = from->id;
    to->learner = from->learner && !from->promote;
    to->peer_url = arena_dup(&r->arena, slice_str(from->peer_url));
    if (!to->peer_url.data) return ERR_NOMEM;
    if (!store_member_attributes(c->state->store, from->id, &have)) return 0;
    struct slice *urls = arena_calloc(&r->arena, have.n_client_urls, sizeof(*urls));
    if (!urls) return ERR_NOMEM;
    for (size_t i = 0; i < have.n_client_urls; i++) {
        urls[i] = arena_dup(&r->arena, have.client_urls[i]);
        if (!urls[i].data) return ERR_NOMEM;
    }
    to->name = arena_dup(&r->arena, have.name);
    to->client_urls = urls;
    to->n_client_urls = have.n_client_urls;
    return to->name.data ? 0 : ERR_NOMEM;
}

static int by_id(const void *a, const void *b)
{
    const struct core_member *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

int core_read_members(struct core *c, struct core_request *r)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    r->members = arena_calloc(&r->arena, n, sizeof(*r->members));
    if (!r->members) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        int rv = member_describe(c, r, &all[i], &r->members[i]);
        if (rv != 0) return rv;
    }
    qsort(r->members, n, sizeof(*r->members), by_id); /* as etcd lists them */
    r->n_members = n;
    return 0;
}

static int lease_list(struct core *c, struct core_request *r)
{
    size_t total = c->leases.count;
    r->lease_ids = arena_calloc(&r->arena, total + 1, sizeof(*r->lease_ids));
    if (!r->lease_ids) return ERR_NOMEM;
    int64_t after = 0;
    while (r->n_lease_ids < total) {
        size_t room = total - r->n_lease_ids;
        if (room > CORE_LEASES_AT_ONCE) room = CORE_LEASES_AT_ONCE;
        size_t n = store_leases(c->state->store, after, r->lease_ids + r->n_lease_ids, room);
        if (n == 0) break;
        r->n_lease_ids += n;
        after = r->lease_ids[r->n_lease_ids - 1];
    }
    return 0;
}

static int alarms(struct core *c, struct core_request *r)
{
    r->alarms = arena_calloc(&r->arena, CORE_ALARMS_MAX, sizeof(*r->alarms));
    if (!r->alarms) return ERR_NOMEM;
    list_alarms(c, r->alarms, &r->n_alarms, &r->n_healing);
    return 0;
}

static int lease_info(struct core *c, struct core_request *r)
{
    struct lease_info info;
    if (!store_lease(c->state->store, r->lease_id, &info)) return ERR_LEASE_NOT_FOUND;
    r->granted_ttl = info.ttl;
    if (!r->want_keys) return 0;
    return store_lease_keys(c->state->store, r->lease_id, &r->arena, &r->keys, &r->n_keys);
}

static void transfer_done(void *data, int error)
{
    struct core *c = data;
    struct core_request *r = c->transfer;
    c->transfer = NULL;
    if (r) core_answer(c, r, error); /* else it was answered when the core closed */
}

static int transfer(struct core *c, struct core_request *r)
{
    if (c->transfer) return ERR_BUSY;
    int rv = consensus_transfer(c->consensus, r->member_id, transfer_done, c);
    if (rv == 0) c->transfer = r;
    return rv;
}

/* ---- dispatch -------------------------------------------------------------------------------- */

/* Whether the request must see all that was acknowledged before it. */
static bool needs_read_point(const struct core *c, const struct core_request *r)
{
    switch (r->type) {
    case CORE_READ_INDEX:
    case CORE_LEASE_INFO:
    case CORE_LEASES: return true;
    case CORE_LEASE_RENEW: return c->leader; /* see core_lease.c; elsewhere the leader asks for it */
    case CORE_RANGE:
    case CORE_TXN_READ:
    case CORE_CURSOR_OPEN:
    case CORE_MEMBERS: return !r->serializable;
    default: return false;
    }
}

/* Whether it has to wait: for the end of a long command that the present is in the middle of; or, what watches ask for, until this
 * member's state is believed again. */
static bool must_wait(const struct core *c, const struct core_request *r)
{
    switch (r->type) {
    case CORE_HISTORY: return c->refusing;
    case CORE_RANGE:
    case CORE_TXN_READ:
    case CORE_CURSOR_OPEN:
    case CORE_READ_INDEX:
    case CORE_LEASE_INFO:
    case CORE_LEASES:
    case CORE_LEASE_RENEW:
    case CORE_MEMBERS: return !list_empty(&c->backlog);
    default: return false;
    }
}

/* Runs the request on the state as it is. Answers it, or leaves it to something that was started. */
static void serve(struct core *c, struct core_request *r)
{
    struct store *store = c->state->store;
    int rv = 0;
    if (r->type != CORE_MEMBER_CHANGE && core_refuse(c, r)) return; /* found wrong while the request waited */
    if (must_wait(c, r)) {
        list_push_back(&c->held, &r->node);
        return;
    }
    switch (r->type) {
    case CORE_RANGE:
        r->result.type = COMMAND_OP;
        r->result.op.type = OP_RANGE;
        r->result.revision = store_revision(store);
        rv = store_range(store, &r->range, &r->arena, &r->result.op.range);
        break;
    case CORE_TXN_READ:
        store_txn_read(store, r->txn, &r->arena, &r->result);
        rv = r->result.code;
        break;
    case CORE_CURSOR_OPEN: rv = cursor_open(c, r); break;
    case CORE_CURSOR_NEXT: rv = cursor_next(c, r); break;
    case CORE_CURSOR_CLOSE:
        cursor_close(r->cursor);
        c->n_cursors--;
        break;
    case CORE_HISTORY: rv = history(c, r); break;
    case CORE_LEASES: rv = lease_list(c, r); break;
    case CORE_STATUS: rv = status(c, r); break;
    case CORE_MEMBER_CHANGE: /* it is made */
    case CORE_MEMBERS: rv = core_read_members(c, r); break;
    case CORE_ALARMS: rv = alarms(c, r); break;
    case CORE_SNAPSHOT_OPEN: rv = snapshot_open(c, r); break;
    case CORE_SNAPSHOT_NEXT: rv = snapshot_next(r); break;
    case CORE_SNAPSHOT_CLOSE:
        snapshot_close(r->snapshot);
        c->n_snapshots--;
        break;
    case CORE_READ_INDEX: break;
    case CORE_HASH_KV:
        rv = hash_open(c, r);
        if (rv == 0) return;
        break;
    case CORE_LEASE_INFO:
        rv = lease_info(c, r);
        if (rv != 0) break;
        core_lease_ask(c, r);
        return;
    case CORE_LEASE_RENEW: core_lease_ask(c, r); return;
    case CORE_MOVE_LEADER:
        rv = transfer(c, r);
        if (rv == 0) return;
        break;
    default: rv = ERR_UNSUPPORTED; break;
    }
    core_answer(c, r, rv);
}

static void on_read_point(struct consensus_read *read, int error)
{
    struct core_read_group *g = container_of(read, struct core_read_group, read);
    struct core *c = g->core;
    struct list *node;
    while ((node = list_pop_front(&g->requests)) != NULL) {
        struct core_request *r = container_of(node, struct core_request, node);
        if (error)
            core_answer(c, r, error);
        else
            serve(c, r);
    }
    list_remove(&g->node);
    mem_free(g);
}

void core_read_submit(struct core *c, struct core_request *r)
{
    if (needs_read_point(c, r))
        list_push_back(&c->reads, &r->node);
    else
        serve(c, r);
}

void core_read_held(struct core *c)
{
    struct list held = c->held, *node;
    if (list_empty(&c->held)) return;
    held.next->prev = held.prev->next = &held;
    list_init(&c->held);
    while ((node = list_pop_front(&held)) != NULL) serve(c, container_of(node, struct core_request, node));
}

void core_read_flush(struct core *c)
{
    if (list_empty(&c->reads)) return;
    struct core_read_group *g = mem_must_calloc(1, sizeof(*g));
    g->core = c;
    g->read.done = on_read_point;
    list_init(&g->requests);
    list_init(&g->read.node);
    list_push_back(&c->groups, &g->node);
    struct list *node;
    while ((node = list_pop_front(&c->reads)) != NULL) list_push_back(&g->requests, node);
    consensus_read(c->consensus, &g->read);
}

void core_read_stop(struct core *c)
{
    list_for_each(node, &c->hashes) {
        struct core_hash *h = container_of(node, struct core_hash, node);
        struct core_request *r = h->request;
        hash_close(c, h);
        core_answer(c, r, ERR_STOPPED);
    }
    if (c->transfer) transfer_done(c, ERR_STOPPED);
}

void core_read_close(struct core *c)
{
    struct list *node;
    while ((node = list_pop_front(&c->groups)) != NULL)
        mem_free(container_of(node, struct core_read_group, node));
}
