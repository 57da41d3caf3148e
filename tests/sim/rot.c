/* Disks that lie, in two ways.
 *
 * Tried out (disk_try): a member is stopped in order, something of what its disk holds is damaged (a bit, a sector,
 * a write that never got to its place, a file that is cut or gone), and it is opened. It must refuse and say why
 * (or, where it does not matter, go on), and what it applies while it opens must be what all others applied. That
 * life is then thrown away with its disk, and the member goes on from the disk as it was.
 *
 * For good (disk_damage): the disk stays as it is - damaged while the member runs, lies still or dies; an old copy of
 * itself; or empty. The member must find that out, say so, and heal from the others; nothing may be lost and no
 * other member may be harmed. A minority at a time: more than that no log can bear.
 * What a disk has lost without a trace only the others can know, and what it voted only those whom it told. So there is a
 * truce from when such a member starts until it has faced what it is - has said so itself, or has heard all other voters: they are
 * there to tell, hold all that it held, and only the member itself may be struck. While it heals there is none. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "harness.h"
#include "raft/consensus_int.h"

static void give_back(struct run *r, struct member *m)
{
    sim_disk_put_back(r->sim, m->id, m->saved);
    m->saved = NULL;
    m->rotting = false;
}

/* It has opened, and its log is read: nothing of it may be missing, for it was closed in order. */
static void tried(void *arg)
{
    struct member *m = arg;
    struct run *r = m->run;
    uint64_t before = m->last_index, after = cluster_tried(r, m->id);
    if (after < before) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": %s: its log ends at %" PRIu64 " instead of %" PRIu64
                     ", and it did not say so",
                     m->id, m->damage, after, before);
    }
    give_back(r, m);
}

static bool do_damage(struct member *m)
{
    struct run *r = m->run;
    const char *words = sim_disk_damage(r->sim, m->id, m->damage_how, &r->random);
    if (!words) return false;
    snprintf(m->damage, sizeof m->damage, "%s", words);
    r->result->counts.damages++;
    run_trace(r, "m%" PRIu64 ": %s", m->id, m->damage);
    return true;
}

/* Whether it opened. */
static bool damage_and_open(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    if (!do_damage(m)) return false;
    struct err e = {{0}};
    int rv = cluster_try(r, id, &e);
    run_trace(r, "m%" PRIu64 ": opens: %s: %s", id, rv ? err_name(rv) : "yes", e.text);
    bool named = (rv == ERR_CORRUPT || rv == ERR_RESTART) && e.text[0];
    if (named) r->result->counts.damages_found++;
    bool trouble = r->members[id].disk_trouble && (rv == ERR_IO || rv == ERR_NO_SPACE);
    if (rv != 0 && !trouble && !named) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": %s: it does not open, but not as it should: %s: '%s'", id,
                     m->damage, err_name(rv), e.text);
    }
    return rv == 0;
}

static void rot(void *arg)
{
    struct member *m = arg;
    struct run *r = m->run;
    if (sim_env(r->sim, m->id)) { /* still closing */
        sim_at(r->sim, 10000, rot, m);
        return;
    }
    m->saved = sim_disk_save(r->sim, m->id);
    if (damage_and_open(r, m->id)) sim_at(r->sim, 0, tried, m);
    else give_back(r, m);
}

void disk_try(struct run *r, uint64_t id, enum sim_damage how)
{
    struct member *m = &r->members[id];
    if (!m->life || life_gone(m->life) || m->rotting || m->restarting || m->disk_trouble || m->damaged) return;
    sim_crash_after(r->sim, id, SIM_KILL, 0); /* in order: nothing strikes it on the way */
    cluster_stop(r, id, 1000);
    m->rotting = true;
    m->damage_how = how;
    sim_at(r->sim, 0, rot, m);
}

/* ---- for good
 * ------------------------------------------------------------------------------------- */

bool disk_healed(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    struct life *l = m->life;
    if (r->twin.of == id) return false;
    if (!m->damaged) return true;
    if (!l || !l->core || life_gone(l) || l->applied < m->damaged_at) return false;
    struct consensus_status s;
    consensus_get_status(core_consensus(l->core), &s);
    return s.ready && !s.recovering && !l->refusing && !m->pending && !m->unread;
}

unsigned disk_unhealed(struct run *r, uint64_t but)
{
    unsigned n = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct member *m = &r->members[id];
        n += id != but && m->wanted && (m->held || !disk_healed(r, id));
    }
    return n;
}

/* Begins or goes on; true once the others are all there and hold all that it can have held. */
bool disk_truce(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    bool there = true;
    if (!r->truce) run_trace(r, "** a truce for m%" PRIu64, id);
    r->truce = id;
    nemesis_rest(r, id);
    uint64_t upto = m->damaged_at > m->last_index ? m->damaged_at : m->last_index;
    for (uint64_t other = 1; other <= r->top; other++) {
        struct life *l = r->members[other].life;
        if (other == id || !r->members[other].wanted || r->members[other].damaged) continue;
        there = there && l && l->core && !life_gone(l) && l->applied >= upto;
    }
    return there;
}

static bool has_heard_all(const struct life *l)
{
    if (!l || !l->core || life_gone(l)) return false;
    const struct consensus *c = core_consensus(l->core);
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        if (p->id != l->id && !p->learner && !p->known) return false;
    }
    return c->n_peers > 1;
}

void disk_truce_ends(struct run *r)
{
    struct member *m = &r->members[r->truce];
    if (!r->truce) return;
    m->faced = m->faced || has_heard_all(m->life);
    if (m->wanted && !m->faced) return;
    run_trace(r, "** m%" PRIu64 " knows what it is, the truce is over", r->truce);
    r->truce = 0;
}

void disk_settles(struct life *l)
{
    struct run *r = l->run;
    struct member *m = &r->members[l->id];
    if (!m->damaged || !m->faced || m->saved || r->lying == l->id || !disk_healed(r, l->id)) return;
    run_trace(r, "** m%" PRIu64 " is whole", l->id);
    m->damaged = false;
}

static unsigned voters_in(const struct raft_configuration *conf)
{
    unsigned n = 0;
    for (unsigned i = 0; i < conf->n; i++) n += conf->servers[i].role == RAFT_VOTER;
    return n;
}

/* The fewest that any member knows of or may soon: a change may be on its way. */
static unsigned fewest_voters(struct run *r)
{
    unsigned fewest = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        const struct life *l = r->members[id].life;
        if (!l || !l->core || life_gone(l)) continue;
        const struct consensus *c = core_consensus(l->core);
        unsigned newest = voters_in(&c->raft.configuration) - (c->membership.state != CHANGE_NONE);
        unsigned committed = voters_in(&c->membership.committed);
        if (c->raft.configuration.n == 0 || c->membership.committed_index == 0) continue;
        unsigned n = newest < committed ? newest : committed;
        if (!fewest || n < fewest) fewest = n;
    }
    return fewest;
}

static bool is_borne(struct run *r, uint64_t id)
{
    unsigned voters = fewest_voters(r), leaving = members_leave(r);
    return voters >= 3 + leaving && disk_unhealed(r, id) + 1 <= (voters - leaving - 1) / 2;
}

/* A minority at a time. */
static bool may_damage(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    if (r->truce || m->rotting || m->saved || m->disk_trouble || m->held) return false;
    if (!disk_healed(r, id) || !is_borne(r, id)) return false;
    m->damaged = m->pending = true;
    m->faced = false;
    m->damaged_at = model_last_index(r->model);
    return true;
}

bool disk_doubted(struct run *r, uint64_t id)
{
    if (!may_damage(r, id)) return false;
    r->members[id].pending = false;
    return r->members[id].unread = true;
}

/* It lies still: now. */
static void damage_at_rest(void *arg)
{
    struct member *m = arg;
    struct run *r = m->run;
    if (sim_env(r->sim, m->id)) { /* still closing, or already up again */
        struct life *l = m->life;
        if (l && !life_gone(l)) cluster_crash(r, m->id, SIM_POWER, 20000);
        if (!r->winding_down) sim_at(r->sim, 1000, damage_at_rest, m);
        else m->pending = false;
        return;
    }
    if (!is_borne(r, m->id)) { /* any more: others have gone meanwhile */
        sim_disk_free(m->saved);
        m->saved = NULL;
        m->damaged = m->wipe = m->pending = false;
        return;
    }
    if (m->saved) {
        run_trace(r, "m%" PRIu64 ": its disk is an old copy of itself", m->id);
        sim_disk_put_back(r->sim, m->id, m->saved);
        m->saved = NULL;
    } else if (m->wipe) {
        run_trace(r, "m%" PRIu64 ": its disk is empty", m->id);
        sim_disk_wipe(r->sim, m->id);
    } else {
        do_damage(m);
    }
    m->damaged_at = model_last_index(r->model); /* what the others must hold before it may start: all that it had */
    m->wipe = m->pending = false;
}

static void damage_later(void *arg)
{
    struct member *m = arg;
    cluster_crash(m->run, m->id, SIM_POWER, 20000);
    damage_at_rest(m);
}

void disk_damage(struct run *r, uint64_t id, enum sim_damage how, bool while_it_runs)
{
    struct member *m = &r->members[id];
    if (!may_damage(r, id)) return;
    m->damage_how = how;
    if (while_it_runs) {
        r->result->counts.rotted += do_damage(m);
        m->pending = false;
        m->unread = true;
    } else {
        damage_later(m);
    }
}

void disk_old_copy(struct run *r, uint64_t id, uint64_t age_us)
{
    struct member *m = &r->members[id];
    if (!sim_env(r->sim, id) || !may_damage(r, id)) return;
    run_trace(r, "m%" PRIu64 ": a copy of its disk is made", id);
    m->saved = sim_disk_copy(r->sim, id);
    sim_at(r->sim, age_us, damage_later, m);
}

void disk_lost(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    if (r->o.members < 3) return; /* its flags name nobody else: it would begin a cluster of its own */
    if (!may_damage(r, id)) return;
    m->wipe = true;
    damage_later(m);
}
