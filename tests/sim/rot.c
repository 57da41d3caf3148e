/* Bit rot: a member is stopped, one bit of its files is flipped, and it is opened. It must refuse
 * with ERR_CORRUPT (or, where the bit does not matter, go on), and what it applies while it opens
 * must be what all others applied. That life is then thrown away with its disk, and the member goes
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
    if (after < before && !only_record) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": after a bit has flipped its log ends at %" PRIu64
                     " instead of %" PRIu64 ", and it did not say so",
                     m->id, after, before);
    }
    give_back(r, m);
}

/* Whether it opened. */
static bool flip_and_open(struct run *r, uint64_t id)
{
    const char *path = NULL;
    uint64_t offset = 0;
    if (!sim_disk_flip(r->sim, id, "", &path, &offset)) return false;
    r->result->bit_flips++;
    run_trace(r, "m%" PRIu64 ": a bit flips in %s at %" PRIu64, id, path, offset);
    struct err e = {{0}};
    int rv = cluster_try(r, id, &e);
    run_trace(r, "m%" PRIu64 ": opens: %s: %s", id, rv ? err_name(rv) : "yes", e.text);
    if (rv == ERR_CORRUPT) r->result->bit_flips_found++;
    bool trouble = r->members[id].disk_trouble && (rv == ERR_IO || rv == ERR_NO_SPACE);
    if (rv != 0 && !trouble && (rv != ERR_CORRUPT || e.text[0] == 0)) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": after a bit has flipped it does not open: %s: '%s'", id,
                     err_name(rv), e.text);
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
    if (flip_and_open(r, m->id)) sim_at(r->sim, 0, tried, m);
    else give_back(r, m);
}

void bit_rot(struct run *r, uint64_t id)
{
    struct member *m = &r->members[id];
    if (!m->life || life_gone(m->life) || m->rotting || m->restarting || m->disk_trouble) return;
    m->rotting = true;
    cluster_stop(r, id, 1000);
    sim_at(r->sim, 0, rot, m);
}
