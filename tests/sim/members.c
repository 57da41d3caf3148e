/* Members that come and go while the cluster works. The nemesis asks for them: a voter or a learner is added and started (before
 * or after the answer), a learner is promoted, somebody is removed, or is replaced for good - of any member, as clients do
 * (api/core/core_member.c sends it on to the leader, and again when leadership moves); or somebody moves to another URL, of the
 * leader. Whoever was added gets an id of its own; whoever was removed must be told, stop, and refuse to start again. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"
#include "raft/consensus_int.h"

struct change {
    struct run *run;
    uint64_t life; /* who was asked: its serial */
    uint64_t until_us; /* it may still be made, if nobody answers */
    enum member_change what;
    uint64_t id;
    unsigned url; /* of a move: the new one */
    bool refused; /* and as if it had never been asked for */
    char peer_url[32];
    struct core_request request; /* but for a move */
};

enum { CHANGE_MS = 5000 }; /* a client waits for one */

void members_url(const struct member *m, char out[32])
{
    snprintf(out, 32, "http://m%u:%u", (unsigned)m->id, m->url);
}

/* ---- who is there
 * --------------------------------------------------------------------------------- */

uint64_t members_pick(const struct run *r, uint64_t n)
{
    uint64_t ids[SIM_MEMBERS_MAX + 1];
    unsigned count = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        if (r->members[id].wanted) ids[count++] = id;
    }
    return count ? ids[n % count] : 1;
}

unsigned members_count(const struct run *r)
{
    unsigned count = 0;
    for (uint64_t id = 1; id <= r->top; id++) count += r->members[id].wanted;
    return count;
}

bool members_in_force(struct run *r, struct members_view *v)
{
    struct life *l = cluster_leader(r);
    const struct consensus_member *list;
    *v = (struct members_view){0};
    if (!l) return false;
    size_t n = consensus_members(core_consensus(l->core), &list);
    for (size_t i = 0; i < n; i++) {
        if (list[i].id < 1 || list[i].id > r->top)
            return verdict_fail(&r->verdict, "member %" PRIu64 " has a member %" PRIx64 " that nobody added", l->id, list[i].id);
        v->all |= 1u << list[i].id;
        v->voters += !list[i].learner;
        v->coming |= list[i].promote;
    }
    return true;
}

/* Whether this member sees the same members as the leader. */
static bool sees(const struct life *l, const struct members_view *v)
{
    const struct consensus_member *list;
    unsigned all = 0, voters = 0;
    size_t n = consensus_members(core_consensus(l->core), &list);
    for (size_t i = 0; i < n; i++) {
        all |= 1u << list[i].id;
        voters += !list[i].learner;
    }
    return all == v->all && voters == v->voters;
}

static bool leaves(enum member_change what)
{
    return what == MEMBERS_REMOVE || what == MEMBERS_REPLACE;
}

/* Whether some change may still be made: its client waits, or whoever was asked for it died with it on the way. */
static bool is_coming(const struct run *r, bool only_removals)
{
    uint64_t now = sim_now_us(r->sim);
    bool coming = false;
    for (unsigned i = 0; i < r->n_changes; i++) coming |= (!only_removals || leaves(r->changes[i].what)) && r->changes[i].until_us > now;
    return coming;
}

bool members_leave(const struct run *r)
{
    return is_coming(r, true);
}

bool members_agree(struct run *r)
{
    struct members_view v;
    if (!members_in_force(r, &v) || v.coming || is_coming(r, false)) return false;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct member *m = &r->members[id];
        bool in = v.all >> id & 1;
        if (in && (!m->life || !m->life->core || life_gone(m->life) || !sees(m->life, &v))) return false;
        if (!in && m->life) return false; /* must have been told, and have gone */
    }
    return true;
}

/* ---- changes
 * -------------------------------------------------------------------------------------- */

static void start_member(struct member *m)
{
    if (m->life || m->wanted || m->run->ending) return;
    m->wanted = true;
    cluster_boot(m->run, m->id);
}

/* Once the faults are over only who is a member is started (members_settle). */
static void start_added(void *arg)
{
    struct change *c = arg;
    if (!c->run->winding_down && !c->refused) start_member(&c->run->members[c->id]);
}

static void ask(struct run *r, enum member_change what, uint64_t id);

static bool adds(enum member_change what)
{
    return what == MEMBERS_ADD_VOTER || what == MEMBERS_ADD_LEARNER;
}

/* An addition that was refused for certain: the place is free again, unless somebody has started there meanwhile. */
static void give_up_addition(struct change *c)
{
    const struct member *m = &c->run->members[c->id];
    if (c->run->top != c->id || m->life || m->wanted) return;
    c->refused = true;
    c->run->top--;
}

static void change_done(void *data, int error)
{
    struct change *c = data;
    struct run *r = c->run;
    struct member *m = &r->members[c->id];
    struct life *l = cluster_by_serial(r, c->life);
    if (!l || life_gone(l)) return; /* whoever answers here is dead */
    c->until_us = 0;
    run_trace(r, "** %s of m%" PRIu64 ": %s", members_change_name(c->what), c->id, error ? err_name(error) : "done");
    if (error == 0) r->result->counts.changes++;
    if (adds(c->what) && (error == ERR_NOT_STARTED || error == ERR_UNHEALTHY || error == ERR_TOO_MANY_LEARNERS)) give_up_addition(c);
    if (c->what == MEMBERS_REPLACE) {
        m->held = false;
        m->wanted = error != 0;
        if (error == 0) ask(r, MEMBERS_ADD_VOTER, 0);
        else cluster_again(r, c->id);
    }
    if (c->what != MEMBERS_UPDATE) return;
    if (error == 0 && m->url == c->url) m->old_url = m->url; /* else it listens at both until it is known what became of it */
    cluster_stop(r, c->id, 10000);
}

static void answered(struct core_request *q)
{
    struct change *c = q->data;
    int code = q->code;
    core_request_release(q);
    change_done(c, code);
}

uint64_t members_next(struct run *r)
{
    if (r->top + (r->twin.id != 0) >= r->o.sim.members) return 0;
    struct member *m = &r->members[r->top + 1];
    m->run = r;
    m->id = r->top + 1;
    m->url = m->old_url = 1;
    m->joins = true;
    return m->id;
}

/* It was not even begun. */
static void give_up_replacement(struct member *m)
{
    m->held = false;
    cluster_again(m->run, m->id);
}

/* The leader, or anybody. */
static struct life *to_ask(struct run *r)
{
    struct life *l = r->members[1 + sim_random_below(&r->random, r->top)].life;
    return l && l->core && !life_gone(l) && sim_chance(&r->random, 500000) ? l : cluster_leader(r);
}

static int submit(struct change *c, struct life *l, enum consensus_change_op op, bool learner)
{
    if (c->what == MEMBERS_UPDATE) {
        struct consensus_change change = {op, {.id = c->id, .name = "", .peer_url = c->peer_url}};
        return consensus_change((struct consensus *)(uintptr_t)core_consensus(l->core), &change, change_done, c);
    }
    c->request = (struct core_request){.type = CORE_MEMBER_CHANGE, .done = answered, .data = c, .timeout_ms = CHANGE_MS,
                                       .change = {op, c->id, slice_str(c->peer_url), learner}};
    core_submit(l->core, &c->request);
    return 0;
}

static void ask(struct run *r, enum member_change what, uint64_t id)
{
    static const enum consensus_change_op ops[] = {CONSENSUS_ADD,    CONSENSUS_ADD,    CONSENSUS_PROMOTE,
                                                   CONSENSUS_REMOVE, CONSENSUS_UPDATE, CONSENSUS_REMOVE};
    struct life *l = what == MEMBERS_UPDATE ? cluster_leader(r) : to_ask(r);
    if (adds(what)) id = members_next(r);
    struct member *m = &r->members[id];
    if (!l || !id || r->n_changes == RUN_CHANGES_MAX) {
        if (what == MEMBERS_REPLACE) give_up_replacement(m);
        return;
    }
    struct change *c = &r->changes[r->n_changes++];
    unsigned old_url = m->url;
    *c = (struct change){.run = r, .life = l->serial, .until_us = sim_now_us(r->sim) + 2 * CHANGE_MS * 1000, .what = what, .id = id};
    if (what == MEMBERS_UPDATE) c->url = ++m->url;
    members_url(m, c->peer_url);
    r->changed = true;
    if (ops[what] == CONSENSUS_REMOVE) m->may_be_removed = true;
    if (adds(what)) r->top = id;
    run_trace(r, "** m%" PRIu64 " is asked for the %s of m%" PRIu64, l->id, members_change_name(what), id);
    int rv = submit(c, l, ops[what], what == MEMBERS_ADD_LEARNER);
    if (rv) {
        run_trace(r, "** %s of m%" PRIu64 ": %s", members_change_name(what), id, err_name(rv));
        m->url = old_url;
    } else if (adds(what) && r->top == id) {
        sim_at(r->sim, sim_random_below(&r->random, sim_chance(&r->random, 500000) ? 10000 : 3000000), start_added, c);
    }
}

void members_change(struct run *r, enum member_change what, uint64_t id)
{
    struct member *m = &r->members[id];
    struct members_view v;
    bool goes = leaves(what);
    if (r->truce || !members_in_force(r, &v)) return;
    if (disk_unhealed(r, goes ? id : 0) > (v.voters - goes - 1) / 2) return; /* who heals needs a majority of others */
    if (what == MEMBERS_REPLACE && members_count(r) > 2 && m->wanted) {
        m->held = true; /* its disk is gone with it; it comes back only if it cannot be removed */
        cluster_crash(r, id, SIM_POWER, 1000);
    } else if (what == MEMBERS_REPLACE) {
        return;
    }
    ask(r, what, id);
}

bool members_knows_nobody(const struct run *r, const struct life *l)
{
    const struct consensus *c = core_consensus(l->core);
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        const struct member *m = &r->members[p->id];
        unsigned url;
        CHECK(sscanf(p->url, "http://m%*u:%u", &url) == 1);
        if (p->id != c->id && m->wanted && (url == m->url || url == m->old_url)) return false;
    }
    return true;
}

/* It knows nobody, or has lost that it ever was a member. */
static bool cannot_be_told(const struct run *r, const struct life *l)
{
    return core_consensus(l->core)->membership.committed_index == 0 || members_knows_nobody(r, l);
}

void members_settle(struct run *r)
{
    struct members_view v;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct member *m = &r->members[id];
        if (m->life && m->url != m->old_url && m->life->url != m->url) cluster_stop(r, id, 10000);
        if (!m->held) continue;
        m->held = false;
        cluster_again(r, id);
    }
    if (!members_in_force(r, &v)) return;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct member *m = &r->members[id];
        if (m->is_namesake) {
            if (v.all >> id & 1) joining_settle(r, id);
            continue;
        }
        if (v.all >> id & 1) {
            if (m->joins) start_member(m);
        } else if ((m->joins && !m->may_be_removed) || /* it was never added after all: nobody can tell it */
                   (m->life && m->life->core && !life_gone(m->life) && cannot_be_told(r, m->life))) {
            m->wanted = false;
            cluster_stop(r, id, 3600000000);
        }
    }
}

/* Everybody knows everything: the old URLs are given up. */
void members_leave_old_urls(struct run *r)
{
    const struct consensus_member *list;
    struct life *l = cluster_leader(r);
    size_t n = l ? consensus_members(core_consensus(l->core), &list) : 0;
    for (size_t i = 0; i < n; i++) {
        struct member *m = &r->members[list[i].id];
        unsigned url;
        if (m->url == m->old_url) continue;
        CHECK(sscanf(list[i].peer_url, "http://m%*u:%u", &url) == 1);
        m->url = m->old_url = url; /* whichever it has become */
        cluster_stop(r, m->id, 10000);
    }
}

void members_start(struct run *r)
{
    r->changes = mem_must_calloc(RUN_CHANGES_MAX, sizeof *r->changes);
    r->top = r->o.members;
    r->twin.id = r->o.faults >> FAULT_TWIN & 1 ? r->o.sim.members : 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct member *m = &r->members[id];
        m->run = r;
        m->id = id;
        m->wanted = true;
        m->url = m->old_url = 1;
    }
}

const char *members_change_name(enum member_change what)
{
    static const char *const names[] = {"addition", "addition as a learner", "promotion", "removal",
                                        "move",     "replacement"};
    return names[what];
}
