/* The core's main path.
 *
 * A command: core_submit queues it; core_flush packs what is queued into one entry and proposes it; consensus calls
 * on_apply with the entry on every member, in order; the member that proposed it finds the waiting requests under the
 * entry's tag and answers them. A follower's proposal travels to the leader and comes back through its own log, so that
 * who writes on a member then reads its own write there.
 *
 * What fails: no leader or a full queue - refused before anything was sent; a lost leader or a time-out after that - the
 * outcome is unknown and the client is told so; the command may still be applied, without an answer. A committed command
 * that cannot be decoded means that members would differ from here on: the process stops. */
#include "api/core/core_int.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#define CORE_PUBLISH_RETRY_MS 1000

uint64_t core_now(const struct core *c)
{
    return c->env->ops->now_ms(c->env);
}

void core_state_ref(struct core_state *s)
{
    s->handles++;
}

void core_state_unref(struct core_state *s)
{
    CHECK(s->handles > 0);
    if (--s->handles > 0 || !s->retired) return;
    store_free(s->store);
    mem_free(s);
}

static struct core_state *state_new(struct store *store)
{
    struct core_state *s = mem_must_calloc(1, sizeof(*s));
    s->store = store;
    return s;
}

static void state_retire(struct core_state *s)
{
    if (!s) return;
    s->retired = true;
    core_state_ref(s);
    core_state_unref(s);
}

/* ---- answers --------------------------------------------------------------------------------- */

void core_answer(struct core *c, struct core_request *r, int code)
{
    if (code) r->code = code;
    r->ret_revision = store_revision(c->state->store);
    if (r->code == 0 && r->type == CORE_COMMAND) {
        r->code = r->result.code;
        r->ret_revision = r->result.revision;
    }
    r->ret_term = c->term;
    c->pending--;
    c->pending_bytes -= r->command.len;
    r->done(r);
}

void core_request_release(struct core_request *r)
{
    if (r->type == CORE_COMMAND || r->type == CORE_RANGE || r->type == CORE_TXN_READ ||
        r->type == CORE_CURSOR_OPEN || r->type == CORE_CURSOR_NEXT)
        result_release(&r->result);
    event_batch_unref(r->events);
    r->events = NULL;
    blob_unref(r->piece);
    r->piece = NULL;
    arena_release(&r->arena);
}

/* ---- proposing ------------------------------------------------------------------------------- */

static void batch_drop(struct core *c, struct core_batch *b)
{
    map_remove(&c->batches, b->tag);
    list_remove(&b->node);
    mem_free(b);
}

void core_batch_fail(struct core *c, struct core_batch *b, int error)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->requests[i]) core_answer(c, b->requests[i], error);
    batch_drop(c, b);
}

/* Moves queued requests into the writer until the entry is full; how many. Always takes at least one. */
static size_t fill_batch(struct core *c)
{
    size_t count = 0;
    batch_begin(&c->writer, c->config.consensus.id, LIMIT_BATCH_BYTES);
    list_for_each(node, &c->queued) {
        struct core_request *r = container_of(node, struct core_request, node);
        if (count == LIMIT_BATCH_COMMANDS || batch_add(&c->writer, count, r->command) != 0) break;
        count++;
    }
    return count;
}

static bool propose_batch(struct core *c)
{
    size_t count = fill_batch(c);
    if (count == 0) { /* larger than any entry may be */
        struct list *node = list_pop_front(&c->queued);
        core_answer(c, container_of(node, struct core_request, node), ERR_TOO_LARGE);
        return true;
    }
    uint64_t tag = ++c->next_tag;
    int rv = consensus_propose(c->consensus, batch_finish(&c->writer), tag);
    if (rv == ERR_AGAIN) {
        c->blocked = true;
        return false;
    }
    struct core_batch *b = mem_must_alloc(sizeof(*b) + count * sizeof(b->requests[0]));
    b->tag = tag;
    b->count = count;
    for (size_t i = 0; i < count; i++)
        b->requests[i] = container_of(list_pop_front(&c->queued), struct core_request, node);
    list_push_back(&c->batch_list, &b->node);
    map_put(&c->batches, tag, b);
    c->n_batches++;
    if (rv != 0) core_batch_fail(c, b, rv);
    return true;
}

void core_flush(struct core *c)
{
    if (c->closing) return;
    while (!c->blocked && !list_empty(&c->queued))
        if (!propose_batch(c)) break;
    core_read_flush(c);
}

static void submit_command(struct core *c, struct core_request *r)
{
    if (r->command.len > LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES) {
        core_answer(c, r, ERR_TOO_LARGE);
        return;
    }
    list_push_back(&c->queued, &r->node);
}

/* What gives room back, and what is bounded elsewhere (history: by each worker's hub), is never refused. */
static bool always_taken(const struct core_request *r)
{
    return r->type == CORE_CURSOR_CLOSE || r->type == CORE_SNAPSHOT_CLOSE || r->type == CORE_HISTORY;
}

/* A request of the core's own: it frees itself. */
static void own_done(struct core_request *r)
{
    struct buf *bytes = r->data;
    core_request_release(r);
    buf_release(bytes);
    mem_free(bytes);
    mem_free(r);
}

/* What a member still does whose state is not to be believed: it says what it is, and gives back what it lent. */
static bool served_when_refusing(const struct core_request *r)
{
    return r->type == CORE_STATUS || r->type == CORE_ALARMS || (r->type == CORE_MEMBERS && r->serializable) || r->type == CORE_HASH_KV ||
           r->type == CORE_MOVE_LEADER || r->own || always_taken(r);
}

bool core_refuse(struct core *c, struct core_request *r)
{
    if (!c->refusing || served_when_refusing(r)) return false;
    core_answer(c, r, store_member_corrupt(c->state->store, c->config.consensus.id) ? ERR_CORRUPT : ERR_UNAVAILABLE);
    return true;
}

void core_submit(struct core *c, struct core_request *r)
{
    r->code = 0;
    r->deadline_ms = core_now(c) + (r->timeout_ms ? r->timeout_ms : LIMIT_REQUEST_TIMEOUT_MS);
    list_init(&r->node);
    c->pending++;
    c->pending_bytes += r->command.len;
    if (c->closing && r->type != CORE_CURSOR_CLOSE && r->type != CORE_SNAPSHOT_CLOSE)
        core_answer(c, r, ERR_STOPPED);
    else if (core_refuse(c, r))
        return;
    else if (!always_taken(r) &&
             (c->pending > LIMIT_CORE_PENDING_REQUESTS || c->pending_bytes > LIMIT_CORE_PENDING_BYTES))
        core_answer(c, r, ERR_TOO_MANY_REQUESTS);
    else if (r->type == CORE_COMMAND)
        submit_command(c, r);
    else if (r->type == CORE_MEMBER_CHANGE)
        core_member_submit(c, r);
    else
        core_read_submit(c, r);
}

void core_propose_own(struct core *c, const struct command *command)
{
    struct core_request *r = mem_must_calloc(1, sizeof(*r));
    struct buf *bytes = mem_must_calloc(1, sizeof(*bytes));
    command_encode(bytes, command);
    if (bytes->failed) { /* lost, as without a leader */
        buf_release(bytes);
        mem_free(bytes);
        mem_free(r);
        return;
    }
    r->type = CORE_COMMAND;
    r->command = buf_slice(bytes);
    r->done = own_done;
    r->own = true;
    r->data = bytes;
    core_submit(c, r);
}

/* ---- applying -------------------------------------------------------------------------------- */

static void on_apply(void *ctx, uint64_t index, uint64_t term, struct slice entry, uint64_t own_tag)
{
    core_apply_entry(ctx, index, term, own_tag, entry);
}

static void on_proposal_failed(void *ctx, uint64_t tag, int error)
{
    struct core *c = ctx;
    struct core_batch *b = map_get(&c->batches, tag);
    if (b) core_batch_fail(c, b, error);
}

static void on_writable(void *ctx)
{
    struct core *c = ctx;
    c->blocked = false;
    core_flush(c);
}

/* ---- leadership and membership --------------------------------------------------------------- */

static bool attributes_published(const struct core *c)
{
    struct member_attributes have;
    if (!store_member_attributes(c->state->store, c->config.consensus.id, &have)) return false;
    if (!slice_eq_str(have.name, c->config.name) || have.n_client_urls != c->config.n_client_urls)
        return false;
    for (size_t i = 0; i < have.n_client_urls; i++)
        if (!slice_eq_str(have.client_urls[i], c->config.client_urls[i])) return false;
    return true;
}

static void publish_attributes(struct core *c)
{
    if (!c->leader_id || core_now(c) < c->next_publish_ms || attributes_published(c)) return;
    struct slice urls[16];
    size_t n = c->config.n_client_urls < 16 ? c->config.n_client_urls : 16;
    for (size_t i = 0; i < n; i++) urls[i] = slice_str(c->config.client_urls[i]);
    struct command command = {.type = COMMAND_MEMBER_ATTRIBUTES,
                              .member = {.member_id = c->config.consensus.id,
                                         .name = slice_str(c->config.name),
                                         .client_urls = urls,
                                         .n_client_urls = n}};
    c->next_publish_ms = core_now(c) + CORE_PUBLISH_RETRY_MS;
    core_propose_own(c, &command);
}

/* What this leader's clocks decided is not for the next leader to carry out: it may have renewed the lease since. */
static void drop_own(struct core *c)
{
    list_for_each(node, &c->queued) {
        struct core_request *r = container_of(node, struct core_request, node);
        if (!r->own) continue;
        list_remove(&r->node);
        core_answer(c, r, ERR_LEADER_CHANGED);
    }
}

static void on_leader_changed(void *ctx, uint64_t leader_id, uint64_t term, bool is_self)
{
    struct core *c = ctx;
    c->leader_id = leader_id;
    c->term = term;
    c->leader = is_self;
    c->blocked = false;
    drop_own(c);
    c->next_publish_ms = 0;
    core_lease_leader_changed(c);
    core_lease_fail_forwarded(c, ERR_LEADER_CHANGED);
    core_member_leader_changed(c);
    c->events.leader_changed(c->ctx, leader_id, is_self);
}

static void on_membership_changed(void *ctx)
{
    struct core *c = ctx;
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    bool learner = false;
    for (size_t i = 0; i < n; i++)
        if (all[i].id == c->config.consensus.id) learner = all[i].learner && !all[i].promote;
    if (learner == c->learner) return;
    c->learner = learner;
    if (c->events.learner_changed) c->events.learner_changed(c->ctx, learner);
}

static bool on_member_name(void *ctx, uint64_t member_id, char *ret, size_t size)
{
    struct core *c = ctx;
    struct member_attributes have;
    if (!store_member_attributes(c->state->store, member_id, &have) || have.name.len >= size) return false;
    memcpy(ret, have.name.data, have.name.len);
    ret[have.name.len] = 0;
    return have.name.len > 0;
}

static void on_message(void *ctx, uint64_t from_id, struct slice payload)
{
    if (!core_member_message(ctx, from_id, payload)) core_lease_message(ctx, from_id, payload);
}

static void on_fatal(void *ctx, int error, const char *text)
{
    struct core *c = ctx;
    if (error == ERR_REMOVED) core_member_removed(c);
    c->events.fatal(c->ctx, error, text);
}

/* ---- snapshots for consensus ----------------------------------------------------------------- */

struct core_cut {
    struct core_state *state;
    struct store_snapshot *snapshot;
};

static int on_snapshot_open(void *ctx, void **ret)
{
    struct core *c = ctx;
    struct core_cut *cut = mem_must_calloc(1, sizeof(*cut));
    core_apply_finish(c); /* consensus cuts at what it takes for applied */
    cut->state = c->state;
    cut->snapshot = store_snapshot_open(c->state->store);
    core_state_ref(cut->state);
    *ret = cut;
    return 0;
}

static int on_snapshot_next(void *ctx, void *snapshot, size_t max_bytes, struct buf *out, bool *done)
{
    struct core_cut *cut = snapshot;
    (void)ctx;
    return store_snapshot_next(cut->snapshot, max_bytes, out, done);
}

static void on_snapshot_close(void *ctx, void *snapshot)
{
    struct core_cut *cut = snapshot;
    (void)ctx;
    store_snapshot_close(cut->snapshot);
    core_state_unref(cut->state);
    mem_free(cut);
}

static int on_restore_begin(void *ctx, void **ret)
{
    struct core *c = ctx;
    struct store_loader *l = store_loader_new(&c->config.store);
    if (!l) return ERR_NOMEM;
    *ret = l;
    return 0;
}

static int on_restore_feed(void *ctx, void *restore, struct slice piece, struct err *e)
{
    (void)ctx;
    return store_loader_feed(restore, piece, e);
}

static int on_restore_finish(void *ctx, void *restore, uint64_t index, struct err *e)
{
    struct core *c = ctx;
    struct store *store = NULL;
    int rv = store_loader_finish(restore, &store, e);
    store_loader_free(restore);
    if (rv != 0) return rv;
    core_apply_finish(c);
    state_retire(c->state);
    c->state = state_new(store);
    c->applied_index = index;
    store_on_lease(store, core_lease_changed, c);
    core_lease_reset(c);
    core_check_restored(c);
    if (c->events.restored) c->events.restored(c->ctx, index);
    c->events.reset(c->ctx, store_revision(store));
    return 0;
}

static void on_restore_abort(void *ctx, void *restore)
{
    (void)ctx;
    store_loader_free(restore);
}

static const struct consensus_callbacks callbacks = {
    .apply = on_apply,
    .proposal_failed = on_proposal_failed,
    .writable = on_writable,
    .leader_changed = on_leader_changed,
    .membership_changed = on_membership_changed,
    .member_name = on_member_name,
    .snapshot_open = on_snapshot_open,
    .snapshot_next = on_snapshot_next,
    .snapshot_close = on_snapshot_close,
    .restore_begin = on_restore_begin,
    .restore_feed = on_restore_feed,
    .restore_finish = on_restore_finish,
    .restore_abort = on_restore_abort,
    .message = on_message,
    .fatal = on_fatal,
};

/* ---- ticks ----------------------------------------------------------------------------------- */

static void expire_list(struct core *c, struct list *l, uint64_t now)
{
    list_for_each(node, l) {
        struct core_request *r = container_of(node, struct core_request, node);
        if (r->deadline_ms > now) continue;
        list_remove(&r->node);
        core_answer(c, r, c->leader_id ? ERR_TIMEOUT : ERR_NO_LEADER);
    }
}

static void expire_requests(struct core *c, uint64_t now)
{
    expire_list(c, &c->queued, now);
    expire_list(c, &c->reads, now);
    expire_list(c, &c->held, now);
    list_for_each(g, &c->groups)
        expire_list(c, &container_of(g, struct core_read_group, node)->requests, now);
    list_for_each(node, &c->batch_list) {
        struct core_batch *b = container_of(node, struct core_batch, node);
        for (size_t i = 0; i < b->count; i++) {
            struct core_request *r = b->requests[i];
            if (!r || r->deadline_ms > now) continue;
            b->requests[i] = NULL;
            core_answer(c, r, ERR_TIMEOUT);
        }
    }
}

/* Where an automatic compaction would cut now; 0 = nowhere. */
static int64_t compaction_target(struct core *c, uint64_t now)
{
    int64_t revision = store_revision(c->state->store);
    if (c->config.auto_compaction_revisions > 0) return revision - c->config.auto_compaction_revisions;
    if (c->n_samples == CORE_COMPACTION_SAMPLES) {
        memmove(c->samples, c->samples + 1, sizeof(c->samples) - sizeof(c->samples[0]));
        c->n_samples--;
    }
    c->samples[c->n_samples++] = (struct core_compaction_sample){now, revision};
    int64_t target = 0;
    for (size_t i = 0; i < c->n_samples; i++)
        if (c->samples[i].ms + c->config.auto_compaction_ms <= now) target = c->samples[i].revision;
    return target;
}

static void auto_compact(struct core *c, uint64_t now)
{
    if (!c->config.auto_compaction_revisions && !c->config.auto_compaction_ms) return;
    if (now < c->next_compaction_ms) return;
    uint64_t period = c->config.auto_compaction_revisions ? 300000 : c->config.auto_compaction_ms / 10;
    c->next_compaction_ms = now + (period ? period : 1);
    int64_t target = compaction_target(c, now);
    if (!c->leader || target <= 0 || target <= store_compact_revision(c->state->store)) return;
    struct command command = {.type = COMMAND_COMPACT, .compact = {.revision = target}};
    core_propose_own(c, &command);
}

void core_tick(struct core *c)
{
    if (c->closing) return;
    uint64_t now = core_now(c);
    expire_requests(c, now);
    publish_attributes(c);
    core_lease_tick(c);
    core_member_tick(c);
    auto_compact(c, now);
    core_check_tick(c);
    core_flush(c);
}

/* ---- opening and closing --------------------------------------------------------------------- */

int core_open(const struct core_config *config, struct env *env, const struct core_events *events, void *ctx,
              struct core **ret, struct err *e)
{
    struct core *c = mem_must_calloc(1, sizeof(*c));
    c->config = *config;
    c->env = env;
    c->events = *events;
    c->ctx = ctx;
    c->state = state_new(store_new(&config->store));
    c->work = (struct env_task){.run = core_apply_work, .data = c};
    c->hash_work = (struct env_task){.run = core_hash_step, .data = c};
    list_init(&c->queued);
    list_init(&c->reads);
    list_init(&c->groups);
    list_init(&c->batch_list);
    list_init(&c->hashes);
    list_init(&c->changes);
    list_init(&c->held);
    list_init(&c->backlog);
    c->apply_work = (struct env_task){.run = core_apply_step, .data = c};
    c->check_work = (struct env_task){.run = core_check_work, .data = c};
    core_lease_open(c);
    core_check_open(c);
    store_on_lease(c->state->store, core_lease_changed, c);
    int rv = consensus_open(&config->consensus, env, &callbacks, c, &c->consensus, e);
    if (rv != 0) {
        core_lease_close(c);
        state_retire(c->state);
        mem_free(c);
        return rv;
    }
    core_check_opened(c);
    on_membership_changed(c);
    *ret = c;
    return 0;
}

static void on_consensus_closed(void *ctx)
{
    struct core *c = ctx;
    void (*closed)(void *ctx) = c->closed;
    void *closed_ctx = c->closed_ctx;
    core_lease_close(c);
    core_read_close(c);
    core_check_close(c);
    batch_release(&c->writer);
    map_release(&c->batches);
    arena_release(&c->scratch);
    state_retire(c->state);
    mem_free(c);
    closed(closed_ctx);
}

static void answer_all(struct core *c, struct list *l)
{
    struct list *node;
    while ((node = list_pop_front(l)) != NULL)
        core_answer(c, container_of(node, struct core_request, node), ERR_STOPPED);
}

void core_close(struct core *c, void (*closed)(void *ctx), void *ctx)
{
    core_apply_finish(c);
    c->closing = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    answer_all(c, &c->queued);
    answer_all(c, &c->reads);
    answer_all(c, &c->held);
    core_read_stop(c);
    list_for_each(g, &c->groups)
        answer_all(c, &container_of(g, struct core_read_group, node)->requests);
    list_for_each(node, &c->batch_list)
        core_batch_fail(c, container_of(node, struct core_batch, node), ERR_STOPPED);
    core_lease_fail_forwarded(c, ERR_STOPPED);
    core_member_stop(c);
    consensus_close(c->consensus, on_consensus_closed, c);
}

int64_t core_revision(const struct core *c)
{
    return store_revision(c->state->store);
}

const struct store *core_store(const struct core *c)
{
    return c->state->store;
}

const struct consensus *core_consensus(const struct core *c)
{
    return c->consensus;
}
