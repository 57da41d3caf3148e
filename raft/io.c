/* The raft_io that really does it, over struct env: the log, term and vote, messages, time. All
 * completions come in later turns, appends in order. Everything that goes wrong with the disk is
 * fatal and is never reported to libraft, which would go on. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

#define SELF(io) ((struct consensus *)(io)->impl)

/* ---- loading --------------------------------------------------------------------------------- */

static int io_do_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io, (void)id, (void)address;
    return 0;
}

static int io_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                   struct raft_snapshot **snapshot, raft_index *start_index,
                   struct raft_entry *entries[], size_t *n_entries)
{
    struct consensus *c = SELF(io);
    struct wal_contents *l = &c->loaded;
    *term = c->meta.term;
    *voted_for = c->meta.voted_for;
    *snapshot = snapshots_newest(c);
    *entries = l->n ? raft_calloc(l->n, sizeof **entries) : NULL;
    *n_entries = l->n;
    *start_index = l->n ? l->first_index : *snapshot ? (*snapshot)->index + 1 : 1;
    for (size_t i = 0; i < l->n; i++) {
        const struct wal_entry *from = &l->entries[i];
        (*entries)[i] = (struct raft_entry){
            .term = from->term, .type = from->type, .buf = {from->data, from->len}};
    }
    l->n = 0; /* libraft owns the bytes now */
    wal_contents_release(l);
    return 0;
}

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    (void)msecs;
    SELF(io)->tick = tick;
    SELF(io)->recv = recv;
    return 0;
}

static int io_refuse(struct raft_io *io, const struct raft_configuration *conf)
{
    (void)io, (void)conf;
    return RAFT_CANTBOOTSTRAP; /* consensus_open writes the first entry itself */
}

/* ---- term and vote --------------------------------------------------------------------------- */

/* A failure is final (consensus_fatal), and never told to libraft, whose way out of an election
 * that cannot store its term reads a union wrongly. It goes on in memory, and nothing that it does
 * leaves or reaches the disk any more. */
static int save_meta(struct consensus *c, struct meta *m)
{
    struct err e = {{0}};
    if (c->dead) return 0;
    int rv = meta_write(c->env, c->cluster_id, c->id, m, &e);
    if (rv == 0) {
        c->meta = *m;
        return 0;
    }
    consensus_fatal(c, rv, "term and vote: %s", e.text);
    return 0;
}

static int io_set_term(struct raft_io *io, raft_term term)
{
    struct meta m = SELF(io)->meta;
    m.term = term;
    m.voted_for = 0;
    return save_meta(SELF(io), &m);
}

static int io_set_vote(struct raft_io *io, raft_id id)
{
    struct meta m = SELF(io)->meta;
    m.voted_for = id;
    return save_meta(SELF(io), &m);
}

/* ---- the log --------------------------------------------------------------------------------- */

struct io_append {
    struct wal_append a;
    struct list node;
    struct raft_io_append *req;
    raft_io_append_cb cb;
};

static void append_done(struct wal_append *a)
{
    struct io_append *mine = a->data;
    struct raft_io_append *req = mine->req;
    raft_io_append_cb cb = mine->cb;
    list_remove(&mine->node);
    mem_free(mine);
    cb(req, 0);
}

static int io_append(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct consensus *c = SELF(io);
    struct io_append *mine = mem_must_calloc(1, sizeof *mine);
    mine->req = req;
    mine->cb = cb;
    mine->a.first_index = consensus_last_index(c) - n + 1;
    mine->a.entries = entries;
    mine->a.n = n;
    mine->a.done = append_done;
    mine->a.data = mine;
    list_push_back(&c->appends, &mine->node);
    if (!c->dead)
        wal_append(
            c->wal,
            &mine->a); /* else it stays open: what is in memory only must not reach the disk */
    return 0;
}

void io_release(struct consensus *c)
{
    for (struct list *n; (n = list_pop_front(&c->appends));)
        mem_free(container_of(n, struct io_append, node));
}

static int io_truncate(struct raft_io *io, raft_index index)
{
    if (!SELF(io)->dead) wal_truncate(SELF(io)->wal, index);
    return 0;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void run_completions(struct env_task *t)
{
    struct consensus *c = t->data;
    struct list now;
    list_init(&now);
    for (struct list *n; (n = list_pop_front(&c->completions));) list_push_back(&now, n);
    for (struct list *n; (n = list_pop_front(&now));) {
        struct completion *x = container_of(n, struct completion, node);
        c->guard.depth++;
        x->cb(x->req, x->status);
        c->guard.depth--;
        mem_free(x);
    }
    if (!c->dead) guard_poll(&c->guard);
}

void io_complete_send(struct consensus *c, struct raft_io_send *req, raft_io_send_cb cb, int status)
{
    struct completion *x = mem_must_alloc(sizeof *x);
    *x = (struct completion){.req = req, .cb = cb, .status = status};
    list_push_back(&c->completions, &x->node);
    c->env->ops->defer(c->env, &c->completions_task);
}

/* One AppendEntries of libraft, in as many frames as it takes. */
struct append_send {
    struct consensus *c;
    struct raft_io_send *req;
    raft_io_send_cb cb;
    unsigned left; /* frames under way, and one while they are being made */
    int status;
};

static void append_frame_done(struct append_send *s)
{
    if (--s->left) return;
    s->c->guard.depth++;
    s->cb(s->req, s->status);
    s->c->guard.depth--;
    mem_free(s);
}

static void append_frame_sent(struct out_frame *o, int status)
{
    struct append_send *s = o->arg;
    if (status) s->status = RAFT_NOCONNECTION;
    append_frame_done(s);
}

/* How many of the entries go into the next frame. */
static unsigned frame_entries(const struct raft_entry *e, unsigned n, size_t *ret_bytes)
{
    size_t bytes = 0;
    unsigned k = 0;
    while (k < n && k < FRAME_ENTRIES_MAX &&
           (k == 0 || bytes + e[k].buf.len <= CONSENSUS_FRAME_BYTES)) {
        bytes += e[k].buf.len;
        k++;
    }
    *ret_bytes = bytes;
    return k;
}

static void send_append_frame(struct append_send *s, uint64_t peer_id, const struct frame_append *a,
                              const struct raft_entry *entries)
{
    struct out_frame *o = out_new(s->c, peer_id, ENV_CHANNEL_RAFT);
    o->done = append_frame_sent;
    o->arg = s;
    frame_encode_append(&o->head, a, entries);
    for (unsigned i = 0; i < a->n; i++)
        out_piece(o, slice_make(entries[i].buf.base, entries[i].buf.len));
    s->left++;
    out_send(o);
}

/* What may be under way to this peer: little until it is known where its log stands. */
static size_t send_window(struct consensus *c, const struct peer *p)
{
    struct guard_progress g;
    if (guard_progress(&c->guard, p->id, &g) && g.sending != GUARD_PIPELINE)
        return p->queued_bytes < CONSENSUS_PROBE_BYTES ? CONSENSUS_PROBE_BYTES : 0;
    return p->queued_bytes < CONSENSUS_PEER_BYTES ? CONSENSUS_PEER_BYTES - p->queued_bytes : 0;
}

static int send_append(struct consensus *c, struct raft_io_send *req,
                       const struct raft_append_entries *m, struct peer *p, raft_io_send_cb cb)
{
    struct append_send *s = mem_must_calloc(1, sizeof *s);
    *s = (struct append_send){.c = c, .req = req, .cb = cb, .left = 1};
    struct frame_append a = {
        .term = m->term, .prev_index = m->prev_log_index, .prev_term = m->prev_log_term};
    size_t window = send_window(c, p), sent = 0;
    unsigned at = 0;
    do {
        size_t bytes;
        a.n = frame_entries(m->entries + at, m->n_entries - at, &bytes);
        if (m->n_entries && sent + bytes > window && (sent || window == 0)) break;
        /* Beyond what the frame verifies, a follower must not commit. */
        uint64_t end = a.prev_index + a.n;
        a.leader_commit = m->leader_commit < end ? m->leader_commit : end;
        send_append_frame(s, p->id, &a, m->entries + at);
        p->told_commit = a.leader_commit;
        p->told_term = a.term;
        sent += bytes;
        at += a.n;
        if (a.n) a.prev_term = m->entries[at - 1].term;
        a.prev_index = end;
    } while (at < m->n_entries);
    if (at < m->n_entries) s->status = RAFT_NOCONNECTION; /* libraft offers the rest again */
    if (s->left == 1) {                                   /* no room for even one */
        io_complete_send(c, req, cb, s->status);
        mem_free(s);
    } else {
        append_frame_done(s);
    }
    return 0;
}

/* libraft tells a follower of a commit with the next entries or heartbeat. Who writes or reads through a follower would
 * wait for that: when nothing else is on its way, a member that waits gets an append without entries at once. It says only
 * what the follower is known to have (its match index), as any heartbeat may. */
void io_tell_commit(struct consensus *c)
{
    const struct raft *r = &c->raft;
    if (r->state != RAFT_LEADER || !guard_may_serve(&c->guard)) return;
    uint64_t commit = r->commit_index, term = guard_log_term(r, commit), now = consensus_now(c);
    if (term == 0 || commit != consensus_last_index(c)) return;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        struct peer *p = peers_find(c, r->configuration.servers[i].id);
        if (!p || p->id == c->id || now >= p->wants_commit_ms) continue;
        if (p->told_term == r->current_term && p->told_commit >= commit) continue;
        if (r->leader_state.progress[i].match_index < commit) continue;
        struct frame_append a = {.term = r->current_term, .prev_index = commit, .prev_term = term, .leader_commit = commit};
        struct out_frame *o = out_new(c, p->id, ENV_CHANNEL_RAFT);
        frame_encode_append(&o->head, &a, NULL);
        p->told_commit = commit;
        p->told_term = r->current_term;
        out_send(o);
    }
}

struct plain_send {
    struct raft_io_send *req;
    raft_io_send_cb cb;
};

static void plain_sent(struct out_frame *o, int status)
{
    struct plain_send *s = o->arg;
    o->c->guard.depth++;
    s->cb(s->req, status ? RAFT_NOCONNECTION : 0);
    o->c->guard.depth--;
    mem_free(s);
}

static bool to_frame(const struct raft_message *m, struct frame *f)
{
    switch (m->type) {
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        *f = (struct frame){.kind = FRAME_APPEND_RESULT, .append_result = m->append_entries_result};
        return true;
    case RAFT_IO_REQUEST_VOTE:
        *f = (struct frame){.kind = FRAME_VOTE, .vote = m->request_vote};
        return true;
    case RAFT_IO_REQUEST_VOTE_RESULT:
        *f = (struct frame){.kind = FRAME_VOTE_RESULT, .vote_result = m->request_vote_result};
        return true;
    case RAFT_IO_TIMEOUT_NOW:
        *f = (struct frame){.kind = FRAME_TIMEOUT_NOW, .timeout_now = m->timeout_now};
        return true;
    default: return false;
    }
}

static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                   raft_io_send_cb cb)
{
    struct consensus *c = SELF(io);
    if (c->dead) {
        if (cb) io_complete_send(c, req, cb, RAFT_CANCELED);
        return 0;
    }
    struct peer *p = peers_find(c, m->server_id);
    if (!p || p->id == c->id || c->env_stopped || !heal_gate(c, p)) {
        if (cb) io_complete_send(c, req, cb, RAFT_NOCONNECTION);
        return 0;
    }
    if (m->type == RAFT_IO_APPEND_ENTRIES) return send_append(c, req, &m->append_entries, p, cb);
    if (m->type == RAFT_IO_INSTALL_SNAPSHOT) return stream_send(c, req, m, cb);
    struct frame f;
    if (!to_frame(m, &f)) return RAFT_INVALID;
    if (!cb) { /* its request may be gone once we have returned */
        peers_send(c, p->id, ENV_CHANNEL_RAFT, &f);
        return 0;
    }
    struct out_frame *o = out_new(c, p->id, ENV_CHANNEL_RAFT);
    struct plain_send *s = mem_must_alloc(sizeof *s);
    *s = (struct plain_send){req, cb};
    o->done = plain_sent;
    o->arg = s;
    frame_encode(&o->head, &f);
    out_send(o);
    return 0;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* libraft wants the entries in one array and their bytes in one batch, both its own. */
static void take_entries(const struct frame_append *a, struct raft_append_entries *m)
{
    m->n_entries = a->n;
    if (a->n == 0) return;
    uint8_t *batch = raft_malloc(a->data.len ? a->data.len : 1);
    m->entries = raft_malloc(a->n * sizeof *m->entries);
    if (a->data.len) memcpy(batch, a->data.data, a->data.len);
    size_t at = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        size_t start = at;
        m->entries[i] = frame_append_entry(a, i, &at);
        m->entries[i].buf.base = batch + start;
        m->entries[i].batch = batch;
    }
}

void io_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct raft_message m = {.server_id = p->id, .server_address = p->address};
    switch (f->kind) {
    case FRAME_APPEND:
        m.type = RAFT_IO_APPEND_ENTRIES;
        m.append_entries = (struct raft_append_entries){.term = f->append.term};
        m.append_entries.prev_log_index = f->append.prev_index;
        m.append_entries.prev_log_term = f->append.prev_term;
        m.append_entries.leader_commit = f->append.leader_commit;
        take_entries(&f->append, &m.append_entries);
        break;
    case FRAME_APPEND_RESULT:
        m.type = RAFT_IO_APPEND_ENTRIES_RESULT;
        m.append_entries_result = f->append_result;
        break;
    case FRAME_VOTE:
        if (f->vote.candidate_id != p->id) return; /* nobody asks for another's sake */
        m.type = RAFT_IO_REQUEST_VOTE;
        m.request_vote = f->vote;
        break;
    case FRAME_VOTE_RESULT:
        m.type = RAFT_IO_REQUEST_VOTE_RESULT;
        m.request_vote_result = f->vote_result;
        break;
    case FRAME_TIMEOUT_NOW:
        m.type = RAFT_IO_TIMEOUT_NOW;
        m.timeout_now = f->timeout_now;
        break;
    default: return;
    }
    c->recv(&c->io, &m);
}

void io_install(struct consensus *c, struct peer *p, const struct frame_snapshot *s,
                const struct raft_snapshot *snapshot)
{
    struct raft_message m = {
        .type = RAFT_IO_INSTALL_SNAPSHOT, .server_id = p->id, .server_address = p->address};
    m.install_snapshot = (struct raft_install_snapshot){.term = s->term, .last_index = s->index};
    m.install_snapshot.last_term = s->index_term;
    m.install_snapshot.conf = snapshot->configuration;
    m.install_snapshot.conf_index = snapshot->configuration_index;
    m.install_snapshot.data = snapshot->bufs[0];
    c->recv(&c->io, &m);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int io_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *s, raft_io_snapshot_put_cb cb)
{
    (void)trailing; /* counted in bytes, when it is done */
    return snapshots_put(SELF(io), req, s, cb);
}

static int io_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb)
{
    return snapshots_get(SELF(io), req, cb);
}

static raft_time io_time(struct raft_io *io)
{
    return consensus_now(SELF(io));
}

static int io_random(struct raft_io *io, int min, int max)
{
    struct consensus *c = SELF(io);
    struct env *env = c->env;
    if (max <= min) return min;
    if (c->raft.state ==
        RAFT_CANDIDATE) { /* votes split, or are under way: try again before a whole timeout */
        max = min * 3 / 4;
        min /= 4;
    }
    return min + (int)(env->ops->random(env) % (uint64_t)(max - min));
}

static void env_stopped(void *ctx)
{
    struct consensus *c = ctx;
    c->env_stopped = true;
    if (!list_empty(&c->completions)) run_completions(&c->completions_task);
    c->io_closed(&c->io);
}

static void io_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct consensus *c = SELF(io);
    c->io_closed = cb;
    c->env->ops->stop(c->env, env_stopped, c);
}

void io_init(struct consensus *c)
{
    list_init(&c->completions);
    list_init(&c->appends);
    c->completions_task.run = run_completions;
    c->completions_task.data = c;
    c->io = (struct raft_io){
        .version = 1,
        .impl = c,
        .init = io_do_init,
        .close = io_close,
        .load = io_load,
        .start = io_start,
        .bootstrap = io_refuse,
        .recover = io_refuse,
        .set_term = io_set_term,
        .set_vote = io_set_vote,
        .send = io_send,
        .append = io_append,
        .truncate = io_truncate,
        .snapshot_put = io_snapshot_put,
        .snapshot_get = io_snapshot_get,
        .time = io_time,
        .random = io_random,
    };
}
