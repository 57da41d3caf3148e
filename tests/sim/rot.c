/* Disks that lie: a member is stopped, something of what its disk holds is damaged (a bit, a sector, a write that
 * never got to its place, a file that is cut or gone), and it is opened. It must refuse and say why (or, where it
 * does not matter, go on), and what it applies while it opens must be what all others applied. That life is then thrown away with its disk, and the member goes
 * on from the disk as it was: a member that has lost what it acknowledged is not one that Raft can
 * bear. */
#include <inttypes.h>

#include "base/check.h"
#include "harness.h"

static void give_back(struct run *r, struct member *m)
{
    sim_disk_put_back(r->sim, m->id, m->saved);
    m->saved = NULL;
    m->rotting = false;
}

/* It has opened, and its log is read: nothing of it may be missing, for it was closed in order. One case is known to go
 * unseen (docs/raft.md): where nothing but one record is left of the log, in a segment that is not the last, damage to it
 * cannot be told from a write that was torn there in an earlier life. */
static void tried(void *arg)
{
    struct member *m = arg;
    struct run *r = m->run;
    uint64_t before = m->last_index, after = cluster_tried(r, m->id);
    bool only_record = after < before && m->snapshot_index == after;
    /* An end that is gone looks as if it had never been there. */
    bool no_end = m->damage_how == SIM_DAMAGE_CUT || m->damage_how == SIM_DAMAGE_REMOVED;
    if (after < before && !only_record && !no_end) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": %s: its log ends at %" PRIu64 " instead of %" PRIu64
                     ", and it did not say so",
                     m->id, m->damage, after, before);
    }
    give_back(r, m);
}

/* Whether it opened. */
static bool damage_and_open(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    m->damage = sim_disk_damage(r->sim, id, m->damage_how, &r->random);
    if (!m->damage) return false;
    r->result->counts.damages++;
    run_trace(r, "m%" PRIu64 ": %s", id, m->damage);
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

void bit_rot(struct run *r, uint64_t id, enum sim_damage how)
{
    struct member *m = &r->members[id];
    if (!m->life || life_gone(m->life) || m->rotting || m->restarting || m->disk_trouble) return;
    m->rotting = true;
    m->damage_how = how;
    cluster_stop(r, id, 1000);
    sim_at(r->sim, 0, rot, m);
}
