/* Opening, turns, status, closing. Opening reads everything that can be wrong on the disk and
 * restores the snapshot; libraft itself starts in the first turn after it, because it may apply
 * entries at once (a cluster of one). From then on, everything happens in turns of the env: a tick,
 * a frame, a completion. After each call into libraft the guard calls `after_turn`, which looks at
 * what has changed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

#define TICKS_PER_HEARTBEAT 4u
#define HURRY_LEAST_MS 20u
#define HURRY_STEP_MS 75u
#define HURRY_SPAN_MS 25u
#define SCRUB_INTERVAL_MS (3600u * 1000u)

/* ---- libraft's memory ------------------------------------------------------------------------ */

static void *heap_malloc(void *data, size_t size)
{
    (void)data;
    /* libraft does not fill all it makes: the 8 bytes of a barrier, the padding of a configuration.
     */
    return size <= 4096 ? mem_must_calloc(1, size) : mem_must_alloc(size);
}

static void heap_free(void *data, void *p)
{
    (void)data;
    mem_free(p);
}

static void *heap_calloc(void *data, size_t n, size_t size)
{
    (void)data;
    return mem_must_calloc(n, size);
}

static void *heap_realloc(void *data, void *p, size_t size)
{
    (void)data;
    return mem_must_realloc(p, size);
}

static void *heap_aligned(void *data, size_t alignment, size_t size)
{
    (void)data;
    CHECK(alignment <= 16); /* only raft_uv asks for more, and it is not used */
    return mem_must_alloc(size);
}

static void heap_aligned_free(void *data, size_t alignment, void *p)
{
    (void)data, (void)alignment;
    mem_free(p);
}

static struct raft_heap heap = {
    NULL, heap_malloc, heap_free, heap_calloc, heap_realloc, heap_aligned, heap_aligned_free,
};

void consensus_use_heap(void)
{
    raft_heap_set(&heap);
}

/* ---- small questions ------------------------------------------------------------------------- */

uint64_t consensus_now(const struct consensus *c)
{
    return c->env->ops->now_ms(c->env);
}

uint64_t consensus_last_index(const struct consensus *c)
{
    return raft_last_index((struct raft *)(uintptr_t)&c->raft);
}

bool consensus_leads(const struct consensus *c)
{
    return c->started && guard_may_serve(&c->guard);
}

uint64_t consensus_leader(const struct consensus *c)
{
    if (!c->started) return 0;
    if (c->raft.state == RAFT_LEADER) return guard_may_serve(&c->guard) ? c->id : 0;
    if (c->raft.state != RAFT_FOLLOWER) return 0;
    return c->raft.follower_state.current_leader.id;
}

void consensus_fatal(struct consensus *c, int error, const char *format, ...)
{
    if (c->dead) return;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->dead = true;
    c->guard.dead = true;
    if (!c->closing) c->cb.fatal(c->ctx, error, text);
}

static void wal_failed(void *ctx, int error, const char *text)
{
    struct consensus *c = ctx;
    consensus_fatal(c, error, "%s", text);
    consensus_snapshots_idle(c); /* closing does not wait for an install whose log will not be reset any more */
}

static void guard_failed(void *ctx, const char *text)
{
    consensus_fatal(ctx, ERR_UNAVAILABLE, "consensus: %s", text);
}

/* ---- the state machine's side of libraft ----------------------------------------------------- */

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct consensus *c = fsm->data;
    uint64_t index = c->raft.last_applied + 1, origin, life, tag;
    struct slice entry = slice_make(buf->base, buf->len), payload;
    *result = NULL;
    snapshots_applied(c, buf->len);
    if (c->dead) return 0;
    consensus_decode_entry(entry, &origin, &life, &tag, &payload);
    if (origin == 0) {
        consensus_fatal(c, ERR_CORRUPT, "entry %" PRIu64 " of the log is of no known kind", index);
        return 0;
    }
    uint64_t own = proposals_applied(c, origin, life, tag);
    c->cb.apply(c->ctx, index, guard_log_term(&c->raft, index), payload, own);
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
    return snapshots_fsm_snapshot(fsm->data, bufs, n_bufs);
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    int rv = snapshots_fsm_restore(fsm->data, buf);
    if (rv == 0) raft_free(buf->base);
    return rv;
}

/* ---- after each call into libraft ------------------------------------------------------------ */

static void check_members(struct consensus *c)
{
    const struct raft *r = &c->raft;
    bool same = c->configured && c->configuration_index == r->configuration_index &&
                c->configuration_uncommitted_index == r->configuration_uncommitted_index;
    if (same || r->configuration.n == 0) return;
    c->configured = true;
    c->configuration_index = r->configuration_index;
    c->configuration_uncommitted_index = r->configuration_uncommitted_index;
    membership_changed(c);
}

static void check_leader(struct consensus *c)
{
    uint64_t leader = consensus_leader(c), term = c->raft.current_term;
    bool self = leader == c->id;
    if (leader == c->seen_leader && self == c->seen_self && (leader == 0 || term == c->seen_term))
        return;
    if (leader && leader != c->seen_leader) c->leader_changes++;
    c->seen_leader = leader;
    c->seen_self = self;
    c->seen_term = term;
    c->cb.leader_changed(c->ctx, leader, term, self);
}

static void finish_transfer(struct consensus *c, int error)
{
    c->transferring = false;
    c->transfer_done(c->transfer_data, error);
}

static void check_transfer(struct consensus *c)
{
    if (!c->transferring) return;
    if (consensus_leader(c) == c->transfer_to) finish_transfer(c, 0);
    else if (consensus_now(c) >= c->transfer_deadline_ms) finish_transfer(c, ERR_TIMEOUT);
}

static void after_turn(void *ctx)
{
    struct consensus *c = ctx;
    if (c->dead || c->closing) return;
    check_members(c);
    if (!c->dead) check_leader(c);
    if (!c->dead) proposals_poll(c);
    if (!c->dead) reads_poll(c);
    if (!c->dead) check_transfer(c);
    if (!c->dead) membership_poll(c);
    if (!c->dead) snapshots_poll(c);
    if (!c->dead) io_tell_commit(c);
    if (!c->dead) heal_poll(c);
}

static void ready_done(struct consensus_read *r, int error)
{
    struct consensus *c = r->data;
    c->ready_asked = false;
    if (error == 0) c->ready = true;
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void on_tick(void *ctx)
{
    struct consensus *c = ctx;
    if (c->dead || c->closing) return;
    if (!c->ready && !c->ready_asked) {
        c->ready_asked = true;
        c->ready_read = (struct consensus_read){.done = ready_done, .data = c};
        consensus_read(c, &c->ready_read);
    }
    c->tick(&c->io);
    if (!c->dead) proposals_tick(c);
    if (!c->dead) reads_tick(c);
    if (!c->dead) snapshots_tick(c);
    if (!c->dead) stream_tick(c);
    if (!c->dead) wal_tick(c->wal);
    if (!c->dead) heal_tick(c);
    if (!c->dead) scrub_tick(c);
    if (!c->dead) guard_poll(&c->guard);
}

static void on_frame(void *ctx, uint64_t peer_id, enum env_channel channel, struct slice bytes)
{
    struct consensus *c = ctx;
    struct frame f;
    struct peer *p = peers_find(c, peer_id);
    if (c->dead || c->closing || peer_id == c->id || !peer_id) return;
    if (frame_decode(bytes, &f, NULL)) return;
    if (f.kind == FRAME_MEMBERS && channel == ENV_CHANNEL_RAFT) membership_frame(c, peer_id, &f);
    if (!p || f.kind == FRAME_MEMBERS) return;
    bool gated = f.kind <= FRAME_PROBE_ACK || f.kind >= FRAME_SNAPSHOT_OFFER;
    if (gated && !heal_gate(c, p)) return;
    if ((channel == ENV_CHANNEL_BULK) != (f.kind >= FRAME_SNAPSHOT_OFFER)) return;
    switch (f.kind) {
    case FRAME_APPEND:
    case FRAME_APPEND_RESULT:
    case FRAME_VOTE:
    case FRAME_VOTE_RESULT:
    case FRAME_TIMEOUT_NOW:
        if (f.kind == FRAME_APPEND_RESULT) p->answered_ms = consensus_now(c);
        heal_spoke(p, &f);
        io_frame(c, p, &f);
        break;
    case FRAME_HELLO:
    case FRAME_KNOWN: heal_frame(c, p, &f); break;
    case FRAME_PROBE:
    case FRAME_PROBE_ACK:
    case FRAME_READ_INDEX:
    case FRAME_READ_INDEX_RESULT: reads_frame(c, p, &f); break;
    case FRAME_PROPOSE:
    case FRAME_PROPOSE_REFUSED: proposals_frame(c, p, &f); break;
    case FRAME_MEMBERS: break;
    case FRAME_MESSAGE: c->cb.message(c->ctx, p->id, f.message); break;
    case FRAME_SNAPSHOT_OFFER:
    case FRAME_SNAPSHOT_CHUNK:
    case FRAME_SNAPSHOT_ACK:
    case FRAME_SNAPSHOT_ABORT: stream_frame(c, p, &f); break;
    }
}

/* Lets an election come before the whole timeout has passed: the connection to the leader broke, so
 * it has probably died, or this member has just started. If there is a leader, its next heartbeat
 * comes first, or the others refuse the pre-vote. One member after the other, in the order of their
 * ids, so that votes do not split. */
static void hurry_election(struct consensus *c, uint64_t least_ms)
{
    struct raft *r = &c->raft;
    if (r->state != RAFT_FOLLOWER) return;
    uint64_t rank = 0;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        rank +=
            s->role == RAFT_VOTER && s->id < r->id && s->id != r->follower_state.current_leader.id;
    }
    uint64_t now = consensus_now(c), timeout = r->follower_state.randomized_election_timeout;
    uint64_t wait = least_ms + rank * HURRY_STEP_MS + c->env->ops->random(c->env) % HURRY_SPAN_MS;
    uint64_t elapsed = now - r->election_timer_start;
    if (elapsed < timeout && timeout - elapsed > wait)
        r->election_timer_start = now + wait - timeout;
}

static void on_link(void *ctx, uint64_t peer_id, bool up)
{
    struct consensus *c = ctx;
    struct peer *p = peers_find(c, peer_id);
    if (c->dead || c->closing || !p) return;
    p->up = up;
    if (!up && c->raft.state == RAFT_FOLLOWER &&
        c->raft.follower_state.current_leader.id == peer_id) {
        hurry_election(c, HURRY_LEAST_MS);
    }
    heal_link(c, p, up);
    stream_link(c, p, up);
}

/* ---- opening --------------------------------------------------------------------------------- */

static void start_raft(struct env_task *t)
{
    struct consensus *c = t->data;
    if (c->dead || c->closing) return;
    c->guard.depth++;
    int rv = raft_start(&c->raft);
    c->guard.depth--;
    if (rv) {
        consensus_fatal(c, ERR_CORRUPT, "consensus: cannot start: %s", raft_errmsg(&c->raft));
        return;
    }
    c->started = true;
    static const struct env_handlers handlers = {.tick = on_tick,
                                                 .frame = on_frame,
                                                 .link = on_link,
                                                 .known = membership_known,
                                                 .stranger = membership_stranger,
                                                 .refused = membership_refused,
                                                 .describe = membership_describe};
    unsigned tick_ms = c->heartbeat_ms / TICKS_PER_HEARTBEAT;
    rv = c->env->ops->start(c->env, tick_ms ? tick_ms : 1, &handlers, c);
    if (rv) {
        consensus_fatal(c, rv, "consensus: cannot start the network: %s", err_text(rv));
        return;
    }
    hurry_election(c, c->heartbeat_ms);
    guard_poll(&c->guard);
}

/* The first entry of a new cluster, the same on all its members. */
static int bootstrap(struct consensus *c, const struct consensus_config *config, struct err *e)
{
    struct raft_configuration conf;
    struct raft_buffer buf;
    int rv = peers_configuration(config, &conf, e);
    if (rv) return rv;
    bool member = false;
    for (unsigned i = 0; i < conf.n; i++) member |= conf.servers[i].id == c->id;
    if (!member) {
        raft_configuration_close(&conf);
        return err_set(e, ERR_INVALID,
                       "member %" PRIx64 " is not among the members of the new cluster", c->id);
    }
    CHECK(raft_configuration_encode(&conf, &buf) == 0);
    c->meta.term = 1;
    if (conf.n == 1) c->meta.flags |= META_ALONE;
    rv = meta_write(c->env, c->cluster_id, c->id, &c->meta, e);
    if (!rv) rv = wal_append_sync(c->wal, 1, 1, RAFT_CHANGE, slice_make(buf.base, buf.len), e);
    if (rv) {
        raft_configuration_close(&conf);
        raft_free(buf.base);
        return rv;
    }
    c->loaded.entries = mem_must_alloc(sizeof *c->loaded.entries);
    c->loaded.entries[0] = (struct wal_entry){1, RAFT_CHANGE, buf.base, buf.len};
    c->loaded.first_index = 1;
    c->loaded.n = 1;
    return membership_begin(c, &conf, e);
}

static void drop_loaded_before(struct wal_contents *l, uint64_t index)
{
    size_t k = 0;
    while (k < l->n && l->first_index + k < index) raft_free(l->entries[k++].data);
    if (k == 0) return;
    memmove(l->entries, l->entries + k, (l->n - k) * sizeof *l->entries);
    l->n -= k;
    l->first_index += k;
}

/* Makes log and snapshot one: the log goes on where the snapshot ends, or what it holds is not
 * needed. */
static int join_snapshot(struct consensus *c, uint64_t index, uint64_t term, struct err *e)
{
    struct wal_contents *l = &c->loaded;
    uint64_t last = l->n ? l->first_index + l->n - 1 : 0;
    if (l->n && l->first_index > index + 1) {
        return err_set(e, ERR_CORRUPT,
                       "wal: offset 0: the log begins at entry %" PRIu64
                       ", the snapshot ends at %" PRIu64,
                       l->first_index, index);
    }
    if (index == 0) {
        if (l->n && l->entries[0].type != RAFT_CHANGE) {
            return err_set(e, ERR_CORRUPT,
                           "wal: offset 0: the log does not begin with the members");
        }
        return 0;
    }
    bool follows = l->n && last >= index &&
                   (index < l->first_index || l->entries[index - l->first_index].term == term);
    if (!follows) {
        /* A snapshot that was installed: the log before it was another history, or shorter. */
        bool known = l->n == 0 && l->reset_index == index;
        drop_loaded_before(l, UINT64_MAX);
        return known ? 0 : wal_reset_sync(c->wal, index, term, e);
    }
    uint64_t keep = c->trailing_log_bytes, first = index + 1;
    while (first > l->first_index && l->entries[first - 1 - l->first_index].len <= keep) {
        keep -= l->entries[first - 1 - l->first_index].len;
        first--;
    }
    drop_loaded_before(l, first);
    return 0;
}

static int open_files(struct consensus *c, const struct consensus_config *config,
                      bool *ret_meta_lost, struct err *e)
{
    struct wal_options o = {.env = c->env, .cluster_id = c->cluster_id, .member_id = c->id};
    o.segment_bytes = config->segment_bytes;
    o.alone = heal_alone(c);
    o.fatal = wal_failed;
    o.ctx = c;
    bool no_meta = false;
    int rv = meta_read(c->env, c->cluster_id, c->id, &c->meta, e);
    *ret_meta_lost = rv == ERR_CORRUPT;
    if (rv == ERR_NOT_FOUND) {
        no_meta = true;
        rv = 0;
    }
    if (!rv && (c->meta.flags & META_REMOVED)) {
        return err_set(e, ERR_REMOVED,
                       "this member was removed from the cluster and cannot come back with this data: "
                       "add a member (member add) and start it with an empty data folder");
    }
    if (!rv) rv = heal_open(c, e);
    o.begun = c->meta.boots > 0 && !heal_recovering(c);
    if (!rv) rv = wal_open(&o, &c->wal, &c->loaded, e);
    if (!rv) rv = snapshots_open(c, e);
    if (rv) return rv;
    uint64_t term, index = snapshots_restored_index(c, &term);
    if (c->loaded.reset_index > index) {
        return err_set(e, ERR_CORRUPT, "snap: offset 0: the log goes on behind entry %" PRIu64 ", and no snapshot reaches it",
                       c->loaded.reset_index);
    }
    bool empty = c->loaded.n == 0 && index == 0;
    *ret_meta_lost = no_meta && !empty;
    if (*ret_meta_lost)
        return err_set(e, ERR_CORRUPT, "meta: missing, although there is a log or a snapshot");
    if (empty && heal_recovering(c)) return 0; /* the leader sends all of it */
    if (empty && (c->meta.term > 1 || c->membership.committed_index) && config->new_cluster) {
        *ret_meta_lost = no_meta; /* a new cluster's members are noted when term and vote are there */
        return err_set(e, ERR_CORRUPT, "wal: empty, although this member has been in term %" PRIu64,
                       c->meta.term);
    }
    if (empty && config->new_cluster) return bootstrap(c, config, e);
    if (!empty && c->loaded.n && c->loaded.entries[c->loaded.n - 1].term > c->meta.term) {
        return err_set(e, ERR_CORRUPT,
                       "meta: offset 24: term %" PRIu64 ", but the log is in term %" PRIu64,
                       c->meta.term, c->loaded.entries[c->loaded.n - 1].term);
    }
    return join_snapshot(c, index, term, e);
}

static int open_state(struct consensus *c, const struct consensus_config *config, struct err *e)
{
    bool meta_lost = false;
    int rv = open_files(c, config, &meta_lost, e);
    if (rv == ERR_CORRUPT) rv = heal_damaged(c, meta_lost, e);
    return rv ? rv : heal_opened(c, e);
}

static void copy_config(struct consensus *c, const struct consensus_config *config)
{
    c->id = config->id;
    c->cluster_id = config->cluster_id;
    c->heartbeat_ms = config->heartbeat_ms ? config->heartbeat_ms : 100;
    c->election_ms = config->election_ms ? config->election_ms : 500;
    c->max_appends = config->max_appends ? config->max_appends : 4;
    c->snapshot_log_bytes =
        config->snapshot_log_bytes ? config->snapshot_log_bytes : 64 * LIMIT_MiB;
    c->trailing_log_bytes =
        config->trailing_log_bytes ? config->trailing_log_bytes : 16 * LIMIT_MiB;
    c->scrub_interval_ms = config->scrub_interval_ms ? config->scrub_interval_ms : SCRUB_INTERVAL_MS;
    c->scrub_rate = config->scrub_rate ? config->scrub_rate : LIMIT_SCRUB_BYTES_PER_S;
}

static void init_raft(struct consensus *c)
{
    char address[32];
    snprintf(address, sizeof address, "%" PRIx64, c->id);
    c->fsm = (struct raft_fsm){.version = 1, .data = c};
    c->fsm.apply = fsm_apply;
    c->fsm.snapshot = fsm_snapshot;
    c->fsm.restore = fsm_restore;
    io_init(c);
    guard_init(&c->guard, &c->io, &c->raft);
    c->guard.ctx = c;
    c->guard.after = after_turn;
    c->guard.fatal = guard_failed;
    CHECK(raft_init(&c->raft, &c->guard.io, &c->fsm, c->id, address) == 0);
    raft_set_election_timeout(&c->raft, c->election_ms);
    raft_set_heartbeat_timeout(&c->raft, c->heartbeat_ms);
    raft_set_pre_vote(&c->raft, true);
    raft_set_install_snapshot_timeout(&c->raft,
                                      24 * 3600 * 1000); /* the stream says itself when it fails */
    raft_set_snapshot_threshold(&c->raft, UINT32_MAX);   /* snapshots.c lowers it when it is time */
    c->raft_started = true;
}

static void consensus_free(struct consensus *c)
{
    wal_contents_release(&c->loaded);
    io_release(c);
    proposals_release(c);
    membership_release(c);
    snapshots_release(c);
    scrub_release(c);
    peers_release(c);
    mem_free(c);
}

int consensus_open(const struct consensus_config *config, struct env *env,
                   const struct consensus_callbacks *callbacks, void *ctx, struct consensus **ret,
                   struct err *e)
{
    if (config->id == 0) return err_set(e, ERR_INVALID, "member id 0");
    consensus_use_heap();
    struct consensus *c = mem_must_calloc(1, sizeof *c);
    c->env = env;
    c->cb = *callbacks;
    c->ctx = ctx;
    copy_config(c, config);
    if (c->election_ms < 2 * c->heartbeat_ms) {
        mem_free(c);
        return err_set(e, ERR_INVALID, "the election timeout must be at least twice the heartbeat");
    }
    do c->life = env->ops->random(env);
    while (c->life == 0);
    proposals_init(c);
    reads_init(c);
    init_raft(c);
    int rv = membership_open(c, config, e);
    if (!rv) rv = open_state(c, config, e);
    if (rv) {
        c->closing = c->dead = true;
        wal_free(c->wal);
        guard_abandon(&c->guard);
        consensus_free(c);
        return rv;
    }
    scrub_open(c);
    c->start_task.run = start_raft;
    c->start_task.data = c;
    env->ops->defer(env, &c->start_task);
    *ret = c;
    return 0;
}

/* ---- closing --------------------------------------------------------------------------------- */

static void raft_closed(struct raft *r)
{
    struct consensus *c = container_of(r, struct consensus, raft);
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    wal_free(c->wal);
    consensus_free(c);
    closed(ctx);
}

static void wal_closed(void *ctx)
{
    struct consensus *c = ctx;
    c->wal = NULL;
    raft_close(&c->raft, raft_closed);
}

/* What is in flight completes first; what has failed is let go of. */
static void close_disk(struct consensus *c)
{
    if (c->dead) {
        raft_close(&c->raft,
                   raft_closed); /* the env lets operations under way finish before it stops */
        return;
    }
    wal_close(c->wal, wal_closed, c);
}

void consensus_snapshots_idle(struct consensus *c)
{
    if (c->closing && c->closed && snapshots_idle(c) && (c->dead || scrub_idle(c))) {
        void (*once)(struct consensus *) = c->close_disk;
        c->close_disk = NULL;
        if (once) once(c);
    }
}

void consensus_close(struct consensus *c, void (*closed)(void *ctx), void *ctx)
{
    CHECK(!c->closing);
    c->closing = true;
    c->guard.dead = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    reads_fail_all(c, ERR_CLOSED);
    c->close_disk = close_disk;
    scrub_cancel(c);
    snapshots_cancel(c);
    consensus_snapshots_idle(c);
}

/* ---- the rest of the interface --------------------------------------------------------------- */

int consensus_message(struct consensus *c, uint64_t to_id, struct slice payload)
{
    struct peer *p = peers_find(c, to_id);
    if (payload.len > LIMIT_PEER_FRAME_BYTES / 2) return ERR_LIMIT;
    if (c->dead || c->closing || !c->started || !p || p->id == c->id) return ERR_CLOSED;
    if (p->queued_bytes > LIMIT_PEER_QUEUE_BYTES / 2) return ERR_LIMIT;
    struct out_frame *o = out_new(c, to_id, ENV_CHANNEL_RAFT);
    frame_encode(&o->head, &(struct frame){.kind = FRAME_MESSAGE});
    o->payload = mem_must_alloc(payload.len);
    if (payload.len) memcpy(o->payload, payload.data, payload.len);
    out_piece(o, slice_make(o->payload, payload.len));
    out_send(o);
    return 0;
}

int consensus_transfer(struct consensus *c, uint64_t to_id, void (*done)(void *data, int error),
                       void *data)
{
    if (c->dead || c->closing) return ERR_CLOSED;
    if (!consensus_leads(c)) return ERR_NOT_LEADER;
    if (c->transferring || c->raft.transfer) return ERR_BUSY;
    if (to_id == c->id) return ERR_INVALID;
    c->guard.depth++;
    int rv = raft_transfer(&c->raft, &c->transfer, to_id, NULL);
    c->guard.depth--;
    if (rv == RAFT_BADID || rv == RAFT_NOTFOUND) return ERR_MEMBER_NOT_FOUND;
    if (rv) return ERR_NOT_LEADER;
    c->transferring = true;
    c->transfer_to = to_id;
    c->transfer_done = done;
    c->transfer_data = data;
    c->transfer_deadline_ms = consensus_now(c) + 2 * (uint64_t)c->election_ms;
    return 0;
}

size_t consensus_members(const struct consensus *c, const struct consensus_member **ret)
{
    *ret = c->members;
    return c->n_members;
}

uint64_t consensus_match_index(const struct consensus *c, uint64_t member_id)
{
    const struct raft *r = &c->raft;
    if (!c->started || r->state != RAFT_LEADER) return 0;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        if (r->configuration.servers[i].id == member_id)
            return r->leader_state.progress[i].match_index;
    }
    return 0;
}

void consensus_get_status(const struct consensus *c, struct consensus_status *ret)
{
    const struct raft *r = &c->raft;
    struct wal_stats w = {0};
    if (c->wal) wal_get_stats(c->wal, &w);
    *ret = (struct consensus_status){.id = c->id, .cluster_id = c->cluster_id};
    ret->leader_id = consensus_leader(c);
    ret->term = c->started ? r->current_term : c->meta.term;
    ret->commit_index = r->commit_index;
    ret->applied_index = r->last_applied;
    ret->last_index = consensus_last_index(c);
    ret->role = consensus_leads(c)                        ? CONSENSUS_LEADER
                : c->started && r->state != RAFT_FOLLOWER ? CONSENSUS_CANDIDATE
                                                          : CONSENSUS_FOLLOWER;
    ret->recovering = heal_recovering(c);
    ret->healed = c->healed;
    ret->set_aside = c->heal.set_aside;
    ret->ready = c->ready && ret->leader_id != 0 && !ret->recovering;
    ret->fsyncs = w.syncs;
    ret->fsync_us_total = w.sync_ms * 1000;
    ret->appends = w.appends;
    ret->proposals = c->proposals.made;
    ret->proposals_failed = c->proposals.failed;
    ret->leader_changes = c->leader_changes;
    ret->read_rounds = c->reads.rounds;
    ret->masked_defects = c->guard.masked;
    snapshots_status(c, ret);
    scrub_status(c, ret);
}
