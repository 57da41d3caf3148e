/* GUARD_CONFIGURATION and GUARD_LEARNER_VOTE: libraft's view of who the members are.
 *
 * libraft holds one configuration, the newest of its log, and two indexes: of the newest committed one, and of the newest
 * if that is not committed yet. A restart takes the newest for committed, a snapshot that is installed leaves the indexes
 * of the log before it, and a roll-back looks for the older configuration in the log, where it may no longer be.
 * Here the truth is found where it stands: in the log itself, and before its beginning in the newest snapshot. It is
 * put into libraft's fields after a start and after an install, and whenever entries are about to be cut off.
 *
 * A change is one entry that holds all the members: libraft appends it (raft_assign), but what stands in it is decided
 * here, so that a member can be added in any role, or get another address, by one entry. */
#include "raft/guard_int.h"

#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

static const struct raft_entry *entry_at(const struct raft *r, raft_index index)
{
    if (guard_log_term(r, index) == 0 || index <= r->log.offset) return NULL;
    return &r->log.entries[(r->log.front + (index - r->log.offset - 1)) % r->log.size];
}

static void copy(const struct raft_configuration *from, struct raft_configuration *to)
{
    raft_configuration_init(to);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        CHECK(raft_configuration_add(to, s->id, s->address, s->role) == 0);
    }
}

static void decode(const struct raft_entry *e, struct raft_configuration *ret)
{
    /* Every configuration was checked on its way into the log (frames.c, wal_load.c). */
    CHECK(peers_decode_configuration(slice_make(e->buf.base, e->buf.len), ret));
}

/* The newest configuration entry at or before `last`; the one in the snapshot (or 0) if the log has none. */
static raft_index newest(const struct guard *g, raft_index last)
{
    for (raft_index i = last; i > g->r->log.offset; i--) {
        const struct raft_entry *e = entry_at(g->r, i);
        if (e && e->type == RAFT_CHANGE) return i;
    }
    return g->base_index <= last ? g->base_index : 0;
}

static void read_at(const struct guard *g, raft_index index, struct raft_configuration *ret)
{
    const struct raft_entry *e = entry_at(g->r, index);
    if (e && e->type == RAFT_CHANGE) decode(e, ret);
    else if (index && index == g->base_index) copy(&g->base, ret);
    else raft_configuration_init(ret);
}

raft_index guard_committed_configuration(const struct guard *g, struct raft_configuration *ret)
{
    raft_index index = newest(g, g->r->last_applied);
    read_at(g, index, ret);
    return index;
}

bool guard_holds_configuration(const struct guard *g, raft_index index)
{
    const struct raft_entry *e = entry_at(g->r, index);
    return index <= g->r->last_applied || (e && e->type == RAFT_CHANGE);
}

enum guard_history guard_was_member(const struct guard *g, raft_index index, raft_id member)
{
    struct raft_configuration conf;
    bool is = false;
    if (index > g->r->last_applied || (!entry_at(g->r, index) && index != g->base_index)) return GUARD_HISTORY_UNKNOWN;
    read_at(g, index, &conf); /* empty where the entry is no configuration */
    for (unsigned i = 0; i < conf.n; i++) is |= conf.servers[i].id == member;
    raft_configuration_close(&conf);
    return is ? GUARD_HISTORY_SAME : GUARD_HISTORY_OTHER;
}

/* The newest at or before `last` is what libraft goes by, and which one is committed is known to it. */
static void tell_truth(struct guard *g, raft_index last)
{
    struct raft *r = g->r;
    raft_index index = newest(g, last), committed = newest(g, r->last_applied < last ? r->last_applied : last);
    struct raft_configuration now;
    if (index == 0) return; /* a member that has not been told anything yet */
    read_at(g, index, &now);
    raft_configuration_close(&r->configuration);
    r->configuration = now;
    r->configuration_index = committed;
    r->configuration_uncommitted_index = index > r->last_applied ? index : 0;
}

static raft_index log_end(const struct raft *r)
{
    return raft_last_index((struct raft *)(uintptr_t)r);
}

void guard_members_started(struct guard *g)
{
    if (g->masks & GUARD_CONFIGURATION) tell_truth(g, log_end(g->r));
}

void guard_members_snapshot(struct guard *g, const struct raft_snapshot *s)
{
    raft_configuration_close(&g->base);
    copy(&s->configuration, &g->base);
    g->base_index = s->configuration_index;
}

void guard_members_installed(struct guard *g)
{
    if (g->masks & GUARD_CONFIGURATION) g->r->configuration_uncommitted_index = 0;
}

bool guard_members_cut(struct guard *g, raft_index first)
{
    if (newest(g, log_end(g->r)) < first) return false;
    tell_truth(g, first - 1);
    return true;
}

void guard_members_release(struct guard *g)
{
    raft_configuration_close(&g->base);
    raft_configuration_init(&g->base);
}

bool guard_members_may_vote(struct guard *g, struct raft_server **ret_self)
{
    struct raft *r = g->r;
    *ret_self = NULL;
    for (unsigned i = 0; i < r->configuration.n; i++) {
        struct raft_server *s = &r->configuration.servers[i];
        if (s->id == r->id && s->role != RAFT_VOTER) *ret_self = s;
    }
    return *ret_self && (g->masks & GUARD_LEARNER_VOTE);
}

/* ---- changes ------------------------------------------------------------------------------------ */

/* libraft's array of what it knows of each member's log, for the members of `next`. */
static void rebuild_progress(struct raft *r, const struct raft_configuration *next)
{
    struct raft_progress *p = raft_calloc(next->n, sizeof *p);
    for (unsigned i = 0; i < next->n; i++) {
        p[i].next_index = log_end(r) + 1; /* a new member's is found by probing */
        for (unsigned j = 0; j < r->configuration.n; j++) {
            if (r->configuration.servers[j].id == next->servers[i].id)
                p[i] = r->leader_state.progress[j];
        }
    }
    raft_free(r->leader_state.progress);
    r->leader_state.progress = p;
}

int guard_change(struct guard *g, struct raft_change *req, const struct raft_configuration *next,
                 raft_change_cb cb)
{
    struct raft *r = g->r;
    unsigned self = 0;
    CHECK(guard_may_serve(g));
    if (r->transfer || r->configuration_uncommitted_index || r->leader_state.change) return ERR_BUSY;
    rebuild_progress(r, next);
    raft_configuration_close(&r->configuration);
    copy(next, &r->configuration);
    while (r->configuration.servers[self].id != r->id) CHECK(++self < r->configuration.n);
    /* Whoever is promoted and has all of the log: to libraft that is this member itself, whose role does not really change. */
    raft_index match = r->leader_state.progress[self].match_index;
    r->leader_state.progress[self].match_index = log_end(r);
    r->configuration.servers[self].role = RAFT_STANDBY;
    g->depth++;
    int rv = raft_assign(r, req, r->id, RAFT_VOTER, cb);
    g->depth--;
    r->leader_state.progress[self].match_index = match;
    CHECK(rv == 0); /* of what it refuses nothing is left, and our own I/O takes every append */
    return 0;
}
