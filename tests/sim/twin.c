/* A second process under a member's id, on a copy of its disk and at a place where nobody looks for that member. One of the
 * two must be refused by the others, and end: the second one, or the member itself where the others have come to believe the
 * second (it slept, was cut off or down). Then the second one is stopped, as its operator would do, and the member is started
 * again; so it is when nobody is left who would refuse it. The second one is never answered, so it may have no leader.
 * Whoever the others have believed, they may doubt the member's disk until it has started again: it is counted among the
 * damaged ones. */
#include <inttypes.h>

#include "harness.h"

enum { LOOK_US = 100000, RESTART_US = 3000000 };

static void start_again(void *arg)
{
    struct member *m = arg;
    if (m->unread && m->wanted) cluster_crash(m->run, m->id, SIM_KILL, 1000);
}

static void is_over(struct run *r)
{
    struct member *m = &r->members[r->twin.of];
    run_trace(r, "** the second process of m%" PRIu64 " is over", m->id);
    r->result->counts.twins++;
    r->twin.of = 0;
    m->unread = true;
    m->faced = false;
    sim_at(r->sim, sim_random_below(&r->random, RESTART_US), start_again, m);
}

static void look(void *arg)
{
    struct run *r = arg;
    struct member *t = &r->members[r->twin.id];
    if (r->ending) return;
    if (!t->life) return is_over(r);
    bool unheard = t->life->core && !life_gone(t->life) && members_knows_nobody(r, t->life);
    if (r->twin.won || unheard || !r->members[r->twin.of].wanted) cluster_crash(r, t->id, SIM_KILL, 0);
    sim_at(r->sim, LOOK_US, look, r);
}

void twin_start(struct run *r, uint64_t of, enum twin_how how, uint64_t us)
{
    struct member *m = &r->members[of], *t = &r->members[r->twin.id];
    if (r->twin.of || t->life || sim_env(r->sim, r->twin.id) || !m->life || life_gone(m->life) || !disk_doubted(r, of)) return;
    run_trace(r, "** a second process of m%" PRIu64 " starts as m%" PRIu64, of, r->twin.id);
    *t = (struct member){.run = r, .id = r->twin.id, .twin_of = of, .joins = m->joins, .url = 1, .old_url = 1};
    r->twin.of = of;
    r->twin.won = false;
    sim_disk_put_back(r->sim, t->id, sim_disk_copy(r->sim, of));
    sim_speak_as(r->sim, t->id, of);
    if (how == TWIN_WHILE_ASLEEP) sim_pause(r->sim, of, us);
    if (how == TWIN_AT_START) cluster_crash(r, of, SIM_KILL, 1000);
    cluster_boot(r, t->id);
    sim_at(r->sim, LOOK_US, look, r);
}

void twin_stop(struct run *r)
{
    if (r->twin.id) cluster_stop(r, r->twin.id, 3600000000);
}
