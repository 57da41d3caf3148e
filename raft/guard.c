/* How libraft 0.15 is held to the thesis. Each function names the mask it belongs to; docs/raft.md
 * the reasons. */
#include "raft/guard_int.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"

unsigned guard_masks = GUARD_ALL;

struct guard_append {
    struct raft_io_append in;
    struct guard *g;
    struct raft_io_append *req;
    raft_io_append_cb cb;
    raft_term term;
    raft_index last;
    bool leader, done;
    int status;
    struct list node;
};

struct guard_message {
    struct raft_message m;
    char *address; /* whose it is may move, or be removed, while it waits */
    struct list node;
};

#define GUARD(io) ((struct guard *)(io)->impl)

static bool on(const struct guard *g, enum guard_mask mask)
{
    return g->masks & mask;
}

/* ---- libraft's state ------------------------------------------------------------------------- */

static raft_index log_first(const struct raft *r)
{
    return r->log.offset + 1;
}

static raft_index log_last(const struct raft *r)
{
    const struct raft_log *l = &r->log;
    size_t n = l->front <= l->back ? l->back - l->front : l->size - l->front + l->back;
    return l->offset + n;
}

raft_term guard_log_term(const struct raft *r, raft_index index)
{
    if (index == 0) return 0;
    if (index == r->log.snapshot.last_index) return r->log.snapshot.last_term;
    if (index < log_first(r) || index > log_last(r)) return 0;
    return r->log.entries[(r->log.front + (index - log_first(r))) % r->log.size].term;
}

static const struct raft_server *server_of(const struct raft *r, raft_id id, unsigned *ret_i)
{
    for (unsigned i = 0; i < r->configuration.n; i++) {
        if (r->configuration.servers[i].id == id) {
            if (ret_i) *ret_i = i;
            return &r->configuration.servers[i];
        }
    }
    return NULL;
}

static bool leads(const struct guard *g)
{
    return g->r->state == RAFT_LEADER;
}

bool guard_may_serve(const struct guard *g)
{
    if (!leads(g)) return false;
    return !on(g, GUARD_BARRIER) || (g->barrier_term == g->r->current_term && g->barrier_committed);
}

/* The highest index that enough peers have for a majority together with this member. */
static raft_index quorum_match(const struct guard *g)
{
    const struct raft *r = g->r;
    raft_index match[LIMIT_MEMBERS];
    unsigned n = 0, voters = 0;
    for (unsigned i = 0; i < r->configuration.n && n < LIMIT_MEMBERS; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        if (s->role != RAFT_VOTER) continue;
        voters++;
        if (s->id == r->id) continue;
        raft_index m = r->leader_state.progress[i].match_index;
        unsigned at = n++;
        for (; at > 0 && match[at - 1] < m; at--) match[at] = match[at - 1];
        match[at] = m;
    }
    unsigned needed = voters / 2; /* peers beside this member */
    return needed == 0 ? UINT64_MAX : needed <= n ? match[needed - 1] : 0;
}

/* ---- messages owned by the guard ------------------------------------------------------------- */

static void free_entries(struct raft_append_entries *a)
{
    if (a->entries) {
        if (a->n_entries) raft_free(a->entries[0].batch);
        raft_free(a->entries);
    }
    a->entries = NULL;
    a->n_entries = 0;
}

static void drop_message(struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES) free_entries(&m->append_entries);
    if (m->type == RAFT_IO_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        raft_free(m->install_snapshot.data.base);
    }
}

static void call_recv(struct guard *g, struct raft_message *m)
{
    g->depth++;
    g->recv(&g->io, m);
    g->depth--;
}

/* ---- entries on their way in ----------------------------------------------------------------- */

/* GUARD_COMPACTED: what a snapshot covers is committed and so the same everywhere; libraft would
 * append it once more at the end of its log. */
static void cut_compacted(struct guard *g, struct raft_append_entries *a)
{
    raft_index covered = g->r->log.snapshot.last_index;
    if (!on(g, GUARD_COMPACTED) || a->prev_log_index >= covered || a->term < g->r->current_term)
        return;
    unsigned cut = (unsigned)(covered - a->prev_log_index);
    if (covered - a->prev_log_index >= a->n_entries) {
        free_entries(a);
    } else {
        memmove(a->entries, a->entries + cut, (a->n_entries - cut) * sizeof *a->entries);
        a->n_entries -= cut;
    }
    a->prev_log_index = covered;
    a->prev_log_term = g->r->log.snapshot.last_term;
    g->masked++;
}

/* Another entry where the snapshot ends, in a leader's log: another history, and to cut that off would make one of the two. libraft
 * stops where it sees the like (a different previous entry that is committed). */
static bool contradicts_snapshot(const struct guard *g, const struct raft_append_entries *a)
{
    raft_index covered = g->r->log.snapshot.last_index;
    if (a->term < g->r->current_term || a->prev_log_index >= covered || covered - a->prev_log_index > a->n_entries)
        return false;
    return a->entries[covered - a->prev_log_index - 1].term != g->r->log.snapshot.last_term;
}

/* GUARD_COMMIT_CLAMP: beyond prev + n libraft would commit whatever happens to lie in its own log.
 */
static void clamp_commit(struct guard *g, struct raft_append_entries *a)
{
    raft_index end = a->prev_log_index + a->n_entries;
    if (!on(g, GUARD_COMMIT_CLAMP) || a->leader_commit <= end) return;
    a->leader_commit = end;
    g->masked++;
}

/* GUARD_CONFIGURATION: entries that are about to be cut off take their configurations with them; libraft would look for an
 * older one where it may no longer be, or not at all. */
static void cut_configurations(struct guard *g, const struct raft_append_entries *a)
{
    const struct raft *r = g->r;
    if (!on(g, GUARD_CONFIGURATION) || a->term < r->current_term) return;
    if (a->prev_log_index && guard_log_term(r, a->prev_log_index) != a->prev_log_term) return;
    for (unsigned i = 0; i < a->n_entries; i++) {
        raft_index index = a->prev_log_index + 1 + i;
        raft_term local = guard_log_term(r, index);
        if (local == 0) return;
        if (local == a->entries[i].term) continue;
        if (index > r->commit_index && guard_members_cut(g, index)) g->masked++;
        return;
    }
}

static void deliver_append(struct guard *g, struct raft_message *m)
{
    struct raft_append_entries *a = &m->append_entries;
    if (on(g, GUARD_SAME_TERM) && leads(g) && a->term == g->r->current_term) {
        g->masked++;
        return drop_message(m);
    }
    if (contradicts_snapshot(g, a)) {
        g->dead = true;
        if (g->fatal) g->fatal(g->ctx, "the leader has another entry where this member's snapshot ends: this is not the same cluster");
        return drop_message(m);
    }
    cut_compacted(g, a);
    clamp_commit(g, a);
    cut_configurations(g, a);
    g->context = GUARD_CTX_REPLY;
    g->clip = a->prev_log_index + a->n_entries;
    g->context_term = a->term;
    call_recv(g, m);
    g->context = GUARD_CTX_NONE;
}

static bool snapshot_under_way(const struct guard *g)
{
    return g->r->snapshot.put.data != NULL || g->r->snapshot.pending.term != 0;
}

static raft_term newest_append_term(const struct guard *g)
{
    return list_empty(&g->appends) ? 0
                                   : container_of(g->appends.prev, struct guard_append, node)->term;
}

/* GUARD_DRAIN: whether `m` has to wait until what is in flight is done. */
static bool must_wait(const struct guard *g, const struct raft_message *m)
{
    if (!on(g, GUARD_DRAIN)) return false;
    if (m->type == RAFT_IO_INSTALL_SNAPSHOT) return g->n_appends > 0 || snapshot_under_way(g);
    return g->n_appends > 0 && m->append_entries.term > newest_append_term(g);
}

static void deliver(struct guard *g, struct raft_message *m)
{
    if (m->type == RAFT_IO_APPEND_ENTRIES) return deliver_append(g, m);
    if (on(g, GUARD_SAME_TERM) && leads(g) && m->install_snapshot.term == g->r->current_term) {
        g->masked++;
        return drop_message(m);
    }
    call_recv(g, m);
}

static void hold_back(struct guard *g, const struct raft_message *m)
{
    struct raft_message copy = *m;
    if (g->n_messages >= GUARD_MESSAGES_MAX) return drop_message(&copy);
    struct guard_message *held = mem_must_alloc(sizeof *held);
    held->m = copy;
    held->m.server_address = held->address = mem_must_strdup(m->server_address);
    list_push_back(&g->messages, &held->node);
    g->n_messages++;
    g->masked++;
}

static void recv_entries(struct guard *g, struct raft_message *m)
{
    if (g->n_messages > 0 || must_wait(g, m)) hold_back(g, m);
    else deliver(g, m);
}

static void held_free(struct guard_message *held)
{
    mem_free(held->address);
    mem_free(held);
}

static void deliver_held(struct guard *g)
{
    while (!list_empty(&g->messages) && !g->dead) {
        struct guard_message *held = container_of(g->messages.next, struct guard_message, node);
        if (must_wait(g, &held->m)) return;
        list_remove(&held->node);
        g->n_messages--;
        deliver(g, &held->m);
        held_free(held);
    }
}

/* ---- answers on their way in ----------------------------------------------------------------- */

/* GUARD_BARRIER: libraft commits up to its own last stored entry whenever that is on a majority.
 * While its barrier is not there, that entry is of an older term, so nobody's acknowledgement may
 * arrive. */
static bool must_stash(const struct guard *g, const struct raft_append_entries_result *a)
{
    if (!on(g, GUARD_BARRIER) || !leads(g) || a->term != g->r->current_term || a->rejected)
        return false;
    return g->barrier_term != g->r->current_term || g->r->last_stored < g->barrier_index;
}

static void stash(struct guard *g, const struct raft_message *m)
{
    g->masked++;
    raft_index last = m->append_entries_result.last_log_index;
    for (unsigned i = 0; i < g->n_acks; i++) {
        if (g->acks[i].id != m->server_id) continue;
        if (last > g->acks[i].last_index) g->acks[i].last_index = last;
        return;
    }
    if (g->n_acks < LIMIT_MEMBERS) {
        g->acks[g->n_acks++] = (struct guard_ack){m->server_id, last};
    }
}

static void unstash(struct guard *g)
{
    if (!leads(g)) g->n_acks = 0;
    while (g->n_acks && leads(g) && g->barrier_term == g->r->current_term &&
           g->r->last_stored >= g->barrier_index) {
        struct guard_ack ack = g->acks[--g->n_acks];
        const struct raft_server *s = server_of(g->r, ack.id, NULL);
        if (!s) continue;
        struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT, .server_id = ack.id};
        m.server_address = s->address;
        m.append_entries_result.term = g->r->current_term;
        m.append_entries_result.last_log_index = ack.last_index;
        call_recv(g, &m);
    }
}

/* ---- votes ----------------------------------------------------------------------------------- */

/* GUARD_STALE_LEADER: libraft has a leader until its own timer expires, so that an election needs
 * the slowest timer; the thesis (4.2.3) says for the minimum election timeout after its last word.
 */
static void forget_stale_leader(struct guard *g)
{
    struct raft *r = g->r;
    if (!on(g, GUARD_STALE_LEADER) || r->state != RAFT_FOLLOWER ||
        r->follower_state.current_leader.id == 0)
        return;
    if (g->io.time(&g->io) - r->election_timer_start < r->election_timeout) return;
    r->follower_state.current_leader.id = 0;
    g->masked++;
}

static bool refuses_vote(const struct guard *g, const struct raft_message *m)
{
    const struct raft_request_vote *v = &m->request_vote;
    const struct raft *r = g->r;
    if (g->abstains || (on(g, GUARD_INSTALLING) && g->installing)) return true;
    return on(g, GUARD_DOUBLE_VOTE) && !v->pre_vote && v->term == r->current_term &&
           r->voted_for != 0 && r->voted_for != v->candidate_id;
}

/* GUARD_LEARNER_VOTE: libraft gives no vote while its own log does not make it a voter. Its promotion may stand in the log of
 * the candidate only, which then counts on this vote and may be the only one that can win (thesis 4.1: whoever is asked
 * answers, whatever its own configuration says). The candidate counts votes of its own voters only. */
static void deliver_vote_request(struct guard *g, struct raft_message *m)
{
    struct raft_server *self;
    if (!guard_members_may_vote(g, &self)) return call_recv(g, m);
    int role = self->role;
    g->masked++;
    self->role = RAFT_VOTER;
    call_recv(g, m);
    self->role = role;
}

static bool is_sole_voter(const struct raft *r)
{
    unsigned voters = 0, i;
    for (i = 0; i < r->configuration.n; i++) voters += r->configuration.servers[i].role == RAFT_VOTER;
    const struct raft_server *self = server_of(r, r->id, &i);
    return voters == 1 && self && self->role == RAFT_VOTER;
}

static bool refuses_timeout_now(const struct guard *g)
{
    if (on(g, GUARD_SOLE_VOTER) && is_sole_voter(g->r)) return true; /* it stands by itself */
    if (g->abstains || (on(g, GUARD_APPENDING) && g->n_appends > 0)) return true;
    return on(g, GUARD_INSTALLING) && g->installing;
}

/* libraft ends the sending of a snapshot only when an acknowledgement raises the match index up to the snapshot it thought of:
 * a peer that had all of it already, or that took in an older one, would be offered one after the other for ever. Whoever has an
 * entry whose term is still known needs none. */
static void leave_snapshot(struct guard *g, const struct raft_message *m)
{
    const struct raft_append_entries_result *a = &m->append_entries_result;
    unsigned i;
    if (!leads(g) || a->rejected || a->term != g->r->current_term || !server_of(g->r, m->server_id, &i)) return;
    struct raft_progress *p = &g->r->leader_state.progress[i];
    if (p->state != GUARD_SNAPSHOT || guard_log_term(g->r, a->last_log_index) == 0) return;
    p->state = GUARD_PROBE;
    p->snapshot_index = 0;
    p->next_index = a->last_log_index + 1;
    g->masked++;
}

/* ---- raft_io, inwards ------------------------------------------------------------------------ */

static void guard_recv(struct raft_io *in, struct raft_message *m)
{
    struct guard *g = in->data;
    if (g->dead) return drop_message(m);
    bool drop = false;
    switch (m->type) {
    case RAFT_IO_APPEND_ENTRIES:
    case RAFT_IO_INSTALL_SNAPSHOT:
        recv_entries(g, m);
        guard_poll(g);
        return;
    case RAFT_IO_APPEND_ENTRIES_RESULT:
        leave_snapshot(g, m);
        if (must_stash(g, &m->append_entries_result)) {
            stash(g, m);
            return;
        }
        break;
    case RAFT_IO_REQUEST_VOTE:
        forget_stale_leader(g);
        drop = refuses_vote(g, m);
        break;
    case RAFT_IO_REQUEST_VOTE_RESULT: drop = on(g, GUARD_INSTALLING) && g->installing; break;
    case RAFT_IO_TIMEOUT_NOW: drop = refuses_timeout_now(g); break;
    default: return;
    }
    if (drop) g->masked++;
    else if (m->type == RAFT_IO_REQUEST_VOTE) deliver_vote_request(g, m);
    else call_recv(g, m);
    guard_poll(g);
}

/* GUARD_TRANSFER: the target ignores TimeoutNow unless its log is exactly the leader's, and libraft
 * sends it once. */
static void repeat_timeout_now(struct guard *g)
{
    struct raft *r = g->r;
    unsigned i;
    if (!on(g, GUARD_TRANSFER) || !leads(g) || !r->transfer || !r->transfer->send.data) return;
    const struct raft_server *s = server_of(r, r->transfer->id, &i);
    if (!s || r->leader_state.progress[i].match_index != log_last(r)) return;
    struct raft_message m = {
        .type = RAFT_IO_TIMEOUT_NOW, .server_id = s->id, .server_address = s->address};
    m.timeout_now.term = r->current_term;
    m.timeout_now.last_log_index = log_last(r);
    m.timeout_now.last_log_term = guard_log_term(r, log_last(r));
    struct raft_io_send unused; /* not touched: it has no callback */
    (void)g->in->send(g->in, &unused, &m, NULL);
}

/* GUARD_PRE_VOTE: libraft asks for pre-votes once, and then raises its term at each attempt; cut
 * off from the others it would come back with a term that deposes their leader (thesis 9.6). */
static void begin_with_pre_vote(struct guard *g)
{
    struct raft *r = g->r;
    if (!on(g, GUARD_PRE_VOTE) || r->state != RAFT_CANDIDATE || !r->pre_vote) return;
    if (r->candidate_state.in_pre_vote) return;
    raft_time elapsed = g->io.time(&g->io) - r->election_timer_start;
    if (elapsed < r->candidate_state.randomized_election_timeout) return;
    r->candidate_state.in_pre_vote = true;
    r->candidate_state.disrupt_leader = false; /* a transfer's leave was for one attempt */
    g->masked++;
}

/* GUARD_SOLE_VOTER: libraft makes the only voter the leader of the term that is there, so that after a crash it
 * writes other entries in a term in which learners (or who was a voter) already have some. Its election is won, but in
 * a term of its own. */
static void begin_own_term(struct guard *g)
{
    struct raft *r = g->r;
    if (!on(g, GUARD_SOLE_VOTER) || !is_sole_voter(r)) return;
    if (g->in->set_term(g->in, r->current_term + 1)) return;
    r->current_term++;
    r->voted_for = g->in->set_vote(g->in, r->id) ? 0 : r->id;
    g->masked++;
}

static bool is_timer_over(struct guard *g)
{
    const struct raft *r = g->r;
    return g->io.time(&g->io) - r->election_timer_start >= r->follower_state.randomized_election_timeout;
}

static void guard_tick(struct raft_io *in)
{
    struct guard *g = in->data;
    if (g->dead) return;
    bool follower = g->r->state == RAFT_FOLLOWER;
    bool withhold = (on(g, GUARD_APPENDING) && follower && g->n_appends > 0) ||
                    (on(g, GUARD_INSTALLING) && g->installing) || g->abstains;
    if (withhold) {
        g->masked++;
    } else {
        begin_with_pre_vote(g);
        if (follower && is_timer_over(g)) begin_own_term(g);
        g->depth++;
        g->tick(&g->io);
        g->depth--;
        repeat_timeout_now(g);
    }
    guard_poll(g);
}

bool guard_progress(const struct guard *g, raft_id id, struct guard_progress *ret)
{
    unsigned i;
    if (!leads(g) || !server_of(g->r, id, &i)) return false;
    const struct raft_progress *p = &g->r->leader_state.progress[i];
    ret->sending = p->state;
    ret->has = p->state == GUARD_SNAPSHOT ? p->snapshot_index : p->match_index;
    ret->heard = p->recent_recv;
    return true;
}

void guard_forget_progress(struct guard *g, raft_id id)
{
    unsigned i;
    if (!leads(g) || !server_of(g->r, id, &i)) return;
    struct raft_progress *p = &g->r->leader_state.progress[i];
    p->state = GUARD_PROBE;
    p->match_index = p->snapshot_index = 0;
    p->next_index = log_last(g->r) + 1;
    for (unsigned k = 0; k < g->n_acks; k++)
        if (g->acks[k].id == id) g->acks[k].last_index = 0;
}

/* ---- appends --------------------------------------------------------------------------------- */

static bool held(const struct guard *g, const struct guard_append *a)
{
    if (!on(g, GUARD_HOLD) || !a->leader || !leads(g) || a->term != g->r->current_term)
        return false;
    if (g->n_messages > 0) return false; /* another term waits for us to finish */
    if (a->last <= g->barrier_index && g->barrier_term == a->term) return false;
    return a->last > quorum_match(g);
}

static void drain(struct guard *g)
{
    if (g->draining) return;
    g->draining = true;
    while (!list_empty(&g->appends)) {
        struct guard_append *a = container_of(g->appends.next, struct guard_append, node);
        if (!a->done || held(g, a)) break;
        list_remove(&a->node);
        g->n_appends--;
        g->context = a->leader ? GUARD_CTX_NONE : GUARD_CTX_APPENDED;
        g->context_term = a->term;
        g->clip = a->last;
        g->depth++;
        a->cb(a->req, a->status);
        g->depth--;
        g->context = GUARD_CTX_NONE;
        mem_free(a);
        unstash(g);
    }
    g->draining = false;
}

static void appended(struct raft_io_append *req, int status)
{
    struct guard_append *a = req->data;
    struct guard *g = a->g;
    a->done = true;
    a->status = status;
    drain(g);
    guard_poll(g);
}

static int guard_append(struct raft_io *io, struct raft_io_append *req,
                        const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct guard *g = GUARD(io);
    struct guard_append *a = mem_must_calloc(1, sizeof *a);
    a->g = g;
    a->req = req;
    a->cb = cb;
    a->in.data = a;
    a->term = g->r->current_term;
    a->leader = leads(g);
    a->last = log_last(g->r);
    list_push_back(&g->appends, &a->node);
    g->n_appends++;
    int rv = g->in->append(g->in, &a->in, entries, n, appended);
    if (rv) {
        list_remove(&a->node);
        g->n_appends--;
        mem_free(a);
    }
    return rv;
}

/* ---- raft_io, outwards ----------------------------------------------------------------------- */

/* GUARD_PROBE_BACK: libraft answers a failed send by starting over behind the match index, which is
 * 0 until the first acknowledgement, and by leaving a snapshot half sent. */
struct guard_send {
    struct raft_io_send in;
    struct guard *g;
    struct raft_io_send *req;
    raft_io_send_cb cb;
    raft_id id;
};

static void append_sent(struct raft_io_send *in, int status)
{
    struct guard_send *s = in->data;
    struct guard *g = s->g;
    unsigned i;
    if (status && leads(g) && server_of(g->r, s->id, &i)) {
        const struct raft_progress *p = &g->r->leader_state.progress[i];
        if (p->state != GUARD_PIPELINE || p->match_index == 0) {
            status = 0;
            g->masked++;
        }
    }
    g->depth++;
    s->cb(s->req, status);
    g->depth--;
    mem_free(s);
}

static int send_append(struct guard *g, struct raft_io_send *req, const struct raft_message *m,
                       raft_io_send_cb cb)
{
    if (on(g, GUARD_BARRIER) && g->barrier_term != g->r->current_term) {
        g->masked++;
        return RAFT_NOCONNECTION;
    }
    if (!on(g, GUARD_PROBE_BACK)) return g->in->send(g->in, req, m, cb);
    struct guard_send *s = mem_must_alloc(sizeof *s);
    *s = (struct guard_send){.g = g, .req = req, .cb = cb, .id = m->server_id};
    s->in.data = s;
    int rv = g->in->send(g->in, &s->in, m, append_sent);
    if (rv) mem_free(s);
    return rv;
}

/* GUARD_PRE_VOTE_TERM: libraft answers a pre-vote with the term it was asked for, so that a candidate whose term
 * is too low never learns of the higher one: if its log is the longer one, nobody is ever elected. */
static int send_vote_result(struct guard *g, struct raft_io_send *req, const struct raft_message *m, raft_io_send_cb cb)
{
    struct raft_message own = *m;
    struct raft_request_vote_result *v = &own.request_vote_result;
    if (on(g, GUARD_PRE_VOTE_TERM) && !v->vote_granted && v->term < g->r->current_term) {
        v->term = g->r->current_term;
        g->masked++;
    }
    return g->in->send(g->in, req, &own, cb);
}

static int guard_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                      raft_io_send_cb cb)
{
    struct guard *g = GUARD(io);
    if (m->type == RAFT_IO_APPEND_ENTRIES) return send_append(g, req, m, cb);
    if (m->type == RAFT_IO_REQUEST_VOTE_RESULT) return send_vote_result(g, req, m, cb);
    if (m->type != RAFT_IO_APPEND_ENTRIES_RESULT || g->context == GUARD_CTX_NONE)
        return g->in->send(g->in, req, m, cb);
    /* Only where libraft can take it (not in GUARD_CTX_REPLY) may it be told that nothing was sent.
     */
    bool other_term = g->context == GUARD_CTX_APPENDED && g->r->current_term != g->context_term;
    bool nobody =
        g->context != GUARD_CTX_REPLY && (m->server_id == 0 || g->r->state != RAFT_FOLLOWER);
    if (on(g, GUARD_STALE_RESULT) && (other_term || nobody)) {
        g->masked++;
        return RAFT_NOCONNECTION;
    }
    const struct raft_append_entries_result *a = &m->append_entries_result;
    if (!on(g, GUARD_CLIP) || a->rejected || a->last_log_index <= g->clip)
        return g->in->send(g->in, req, m, cb);
    struct raft_message clipped = *m;
    clipped.append_entries_result.last_log_index = g->clip;
    g->masked++;
    return g->in->send(g->in, req, &clipped, cb);
}

static void snapshot_put_done(struct raft_io_snapshot_put *req, int status)
{
    struct guard *g = req->data;
    struct raft_io_snapshot_put *outer = g->put;
    g->put = NULL;
    g->context = g->installing ? GUARD_CTX_INSTALLED : GUARD_CTX_NONE;
    g->context_term = g->r->current_term;
    g->clip = UINT64_MAX;
    bool installed = g->installing;
    g->installing = false;
    g->depth++;
    g->put_cb(outer, status);
    g->depth--;
    if (installed && status == 0) guard_members_installed(g);
    g->context = GUARD_CTX_NONE;
    guard_poll(g);
}

static int guard_snapshot_put(struct raft_io *io, unsigned trailing,
                              struct raft_io_snapshot_put *req,
                              const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct guard *g = GUARD(io);
    CHECK(!g->put);
    g->put = req;
    g->put_cb = cb;
    g->inner_put.data = g;
    g->installing = g->r->snapshot.pending.term == 0;
    guard_members_snapshot(g, snapshot);
    int rv = g->in->snapshot_put(g->in, trailing, &g->inner_put, snapshot, snapshot_put_done);
    if (rv) {
        g->put = NULL;
        g->installing = false;
    }
    return rv;
}

static int guard_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick,
                       raft_io_recv_cb recv)
{
    struct guard *g = GUARD(io);
    g->tick = tick;
    g->recv = recv;
    guard_members_started(g);
    int rv = g->in->start(g->in, msecs, guard_tick, guard_recv);
    if (rv == 0) begin_own_term(g); /* libraft looks next whether it is alone */
    return rv;
}

static void inner_closed(struct raft_io *in)
{
    struct guard *g = in->data;
    guard_release(g);
    if (g->close_cb) g->close_cb(&g->io);
}

void guard_abandon(struct guard *g)
{
    g->abandoned = true;
    raft_close(g->r, NULL);
}

static void guard_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct guard *g = GUARD(io);
    g->dead = true;
    if (g->abandoned) return cb(io);
    g->close_cb = cb;
    g->in->close(g->in, inner_closed);
}

/* ---- passed through -------------------------------------------------------------------------- */

static int guard_io_init(struct raft_io *io, raft_id id, const char *address)
{
    return GUARD(io)->in->init(GUARD(io)->in, id, address);
}

static int guard_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                      struct raft_snapshot **snapshot, raft_index *start_index,
                      struct raft_entry *entries[], size_t *n_entries)
{
    struct raft_io *in = GUARD(io)->in;
    int rv = in->load(in, term, voted_for, snapshot, start_index, entries, n_entries);
    if (rv == 0 && *snapshot) guard_members_snapshot(GUARD(io), *snapshot);
    return rv;
}

static int guard_bootstrap(struct raft_io *io, const struct raft_configuration *c)
{
    return GUARD(io)->in->bootstrap(GUARD(io)->in, c);
}

static int guard_recover(struct raft_io *io, const struct raft_configuration *c)
{
    return GUARD(io)->in->recover(GUARD(io)->in, c);
}

static int guard_set_term(struct raft_io *io, raft_term term)
{
    return GUARD(io)->in->set_term(GUARD(io)->in, term);
}

static int guard_set_vote(struct raft_io *io, raft_id id)
{
    return GUARD(io)->in->set_vote(GUARD(io)->in, id);
}

static int guard_truncate(struct raft_io *io, raft_index index)
{
    return GUARD(io)->in->truncate(GUARD(io)->in, index);
}

static int guard_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                              raft_io_snapshot_get_cb cb)
{
    return GUARD(io)->in->snapshot_get(GUARD(io)->in, req, cb);
}

static raft_time guard_time(struct raft_io *io)
{
    return GUARD(io)->in->time(GUARD(io)->in);
}

static int guard_random(struct raft_io *io, int min, int max)
{
    return GUARD(io)->in->random(GUARD(io)->in, min, max);
}

/* ---- after each call ------------------------------------------------------------------------- */

static void barrier_applied(struct raft_barrier *b, int status)
{
    struct guard *g = b->data;
    if (status == 0 && g->barrier_term == g->r->current_term) g->barrier_committed = true;
}

/* GUARD_BARRIER: a new leader's first deed. */
static void start_barrier(struct guard *g)
{
    struct raft *r = g->r;
    if (!on(g, GUARD_BARRIER) || !leads(g) || g->barrier_term == r->current_term) return;
    if (r->transfer) return; /* of an earlier leadership; it ends by itself */
    raft_term before = g->barrier_term;
    g->barrier_term = r->current_term;
    g->barrier_index = log_last(r) + 1;
    g->barrier_committed = false;
    g->barrier.data = g;
    g->depth++;
    int rv = raft_barrier(r, &g->barrier, barrier_applied);
    g->depth--;
    if (rv == 0) return;
    g->barrier_term = before;
    if (g->fatal) g->fatal(g->ctx, raft_strerror(rv));
}

void guard_poll(struct guard *g)
{
    if (g->dead || g->in_after || g->depth) return;
    g->in_after = true;
    if (g->r->state == RAFT_UNAVAILABLE) {
        g->dead = true;
        if (g->fatal) g->fatal(g->ctx, g->r->errmsg[0] ? g->r->errmsg : "libraft cannot go on");
    } else {
        start_barrier(g);
        unstash(g);
        drain(g);
        deliver_held(g);
        drain(g);
        start_barrier(g);
        if (g->after && !g->dead) g->after(g->ctx);
    }
    g->in_after = false;
}

void guard_release(struct guard *g)
{
    for (struct list *n; (n = list_pop_front(&g->messages));) {
        struct guard_message *m = container_of(n, struct guard_message, node);
        drop_message(&m->m);
        held_free(m);
    }
    g->n_messages = 0;
    /* libraft is unavailable by now: these give back memory and tell nobody. */
    for (struct list *n; (n = list_pop_front(&g->appends));) {
        struct guard_append *a = container_of(n, struct guard_append, node);
        a->cb(a->req, 0);
        mem_free(a);
    }
    g->n_appends = 0;
    guard_members_release(g);
}

void guard_init(struct guard *g, struct raft_io *in, struct raft *r)
{
    memset(g, 0, sizeof *g);
    g->in = in;
    g->r = r;
    g->masks = guard_masks;
    list_init(&g->appends);
    list_init(&g->messages);
    in->data = g;
    g->io = (struct raft_io){
        .version = 1,
        .impl = g,
        .init = guard_io_init,
        .close = guard_close,
        .load = guard_load,
        .start = guard_start,
        .bootstrap = guard_bootstrap,
        .recover = guard_recover,
        .set_term = guard_set_term,
        .set_vote = guard_set_vote,
        .send = guard_send,
        .append = guard_append,
        .truncate = guard_truncate,
        .snapshot_put = guard_snapshot_put,
        .snapshot_get = guard_snapshot_get,
        .time = guard_time,
        .random = guard_random,
    };
}
