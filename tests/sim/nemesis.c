/* The nemesis carries out the plan: each fault at its time or moment, and mends it after a while. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

/* A fault of the plan on its way. */
struct armed {
    struct run *run;
    const struct fault *f;
    unsigned seen; /* moments so far */
    bool waiting;  /* for its moment */
    uint64_t subject, other;
    uint64_t id;   /* whom it has hit */
    unsigned left; /* FLAP: how often still */
    uint64_t cut_from, cut_to; /* what it has cut: from and to its victim, a bit for each member */
};

static uint64_t victim(struct armed *a)
{
    struct run *r = a->run;
    const struct fault *f = a->f;
    struct life *leader = f->who == WHO_LEADER || f->who == WHO_FOLLOWER ? cluster_leader(r) : NULL;
    switch (f->who) {
    case WHO_SUBJECT: return a->subject ? a->subject : f->id;
    case WHO_OTHER: return a->other ? a->other : f->id;
    case WHO_LEADER: return leader ? leader->id : members_pick(r, f->number);
    case WHO_FOLLOWER: {
        uint64_t id = members_pick(r, f->id);
        return leader && id == leader->id ? members_pick(r, f->id + 1) : id;
    }
    case WHO_ID: break;
    }
    return members_pick(r, f->id - 1);
}

/* ---- links
 * --------------------------------------------------------------------------------------- */

static void cut(struct armed *a, uint64_t from, uint64_t to)
{
    sim_cut(a->run->sim, from, to, a->f->a);
}

static void cut_off(struct armed *a, bool in, bool out, uint64_t others)
{
    for (uint64_t other = 1; other <= a->run->top; other++) {
        if (other == a->id || !(others >> other & 1)) continue;
        if (in) cut(a, other, a->id);
        if (out) cut(a, a->id, other);
        a->cut_from |= in ? 1u << other : 0;
        a->cut_to |= out ? 1u << other : 0;
    }
}

static void heal(struct armed *a)
{
    for (uint64_t other = 1; other <= a->run->top; other++) {
        if (a->cut_from >> other & 1) sim_heal(a->run->sim, other, a->id);
        if (a->cut_to >> other & 1) sim_heal(a->run->sim, a->id, other);
    }
    a->cut_from = a->cut_to = 0;
}

static void partition(struct armed *a, bool heals)
{
    struct run *r = a->run;
    for (uint64_t x = 1; x <= r->top; x++) {
        for (uint64_t y = 1; y <= r->top; y++) {
            if ((a->f->b >> x & 1) == (a->f->b >> y & 1)) continue;
            if (heals) sim_heal(r->sim, x, y);
            else cut(a, x, y);
        }
    }
}

static void flap(void *arg)
{
    struct armed *a = arg;
    struct run *r = a->run;
    if (a->cut_from) heal(a);
    else if (a->left-- > 0 && !r->winding_down && !r->truce) cut_off(a, true, true, UINT64_MAX);
    else return;
    sim_at(r->sim, 1000 + a->f->lasts_us / (2 * a->f->b), flap, a);
}

static void delay(struct armed *a, uint64_t us)
{
    struct run *r = a->run;
    for (uint64_t other = 1; other <= r->top; other++) {
        if (other == a->id) continue;
        if (a->f->b & 1) sim_link_delay(r->sim, other, a->id, us);
        if (a->f->b & 2) sim_link_delay(r->sim, a->id, other, us);
    }
}

static void calm_net(struct run *r)
{
    struct sim_net_options *n = sim_net(r->sim);
    n->drop_ppm = n->duplicate_ppm = n->reorder_ppm = 0;
}

static void harsh_net(struct armed *a)
{
    struct sim_net_options *n = sim_net(a->run->sim);
    n->duplicate_ppm = (unsigned)a->f->a;
    n->reorder_ppm = (unsigned)a->f->b;
    n->drop_ppm = (unsigned)(a->f->b / 4);
}

/* ---- members
 * ------------------------------------------------------------------------------------- */

static void ask_snapshot(struct armed *a)
{
    struct life *l = a->run->members[a->id].life;
    if (!l || !l->core || life_gone(l)) return;
    int rv = consensus_snapshot((struct consensus *)(uintptr_t)core_consensus(l->core));
    run_trace(a->run, "m%" PRIu64 " is asked for a snapshot: %s", l->id, rv ? err_name(rv) : "yes");
}

static void moved(struct core_request *q)
{
    core_request_release(q);
    mem_free(q);
}

static void ask_transfer(struct armed *a)
{
    struct life *l = cluster_leader(a->run);
    if (!l) return;
    struct core_request *q = mem_must_calloc(1, sizeof *q);
    q->type = CORE_MOVE_LEADER;
    q->member_id = members_pick(a->run, a->f->a - 1);
    q->done = moved;
    run_trace(a->run, "m%" PRIu64 " is asked to move leadership to m%" PRIu64, l->id, q->member_id);
    core_submit(l->core, q);
}

static void blackout(struct armed *a)
{
    for (uint64_t id = 1; id <= a->run->top; id++)
        cluster_crash(a->run, id, (enum sim_crash_mode)a->f->a, 1000 + a->f->lasts_us / id);
}

static void mend_disk(struct run *r, uint64_t id)
{
    sim_disk_capacity(r->sim, id, 0);
    sim_disk_fail_nth(r->sim, id, 0);
    r->members[id].disk_mended = true;
}

static void disk_in_trouble(struct member *m)
{
    m->disk_trouble = true;
    m->disk_mended = false;
}

/* ---- a fault comes, and goes
 * ---------------------------------------------------------------------- */

static void fault_ends(void *arg)
{
    struct armed *a = arg;
    struct run *r = a->run;
    if (r->winding_down) return; /* it was mended then */
    switch (a->f->kind) {
    case FAULT_ISOLATE:
    case FAULT_DEAF:
    case FAULT_MUTE: heal(a); break;
    case FAULT_PARTITION: partition(a, true); break;
    case FAULT_DELAY: delay(a, 0); break;
    case FAULT_HARSH_NET: calm_net(r); break;
    case FAULT_SLOW_DISK: sim_disk_slow(r->sim, a->id, 1); break;
    case FAULT_DISK_ERROR:
    case FAULT_DISK_FULL: mend_disk(r, a->id); break;
    default: break;
    }
}

static void strike_member(struct armed *a)
{
    struct run *r = a->run;
    const struct fault *f = a->f;
    struct member *m = &r->members[a->id];
    switch (f->kind) {
    case FAULT_KILL: cluster_crash(r, a->id, SIM_KILL, f->lasts_us); break;
    case FAULT_POWER: cluster_crash(r, a->id, SIM_POWER, f->lasts_us); break;
    case FAULT_CRASH_AT_IO:
        m->downtime_us = f->lasts_us;
        sim_crash_after(r->sim, a->id, (enum sim_crash_mode)f->b, (unsigned)f->a);
        break;
    case FAULT_RESTARTS:
        m->deaths = (unsigned)f->a;
        m->downtime_us = f->lasts_us;
        m->death_by = (unsigned)f->b;
        cluster_crash(r, a->id, f->b == SIM_POWER ? SIM_POWER : SIM_KILL, f->lasts_us);
        break;
    case FAULT_STOP: cluster_stop(r, a->id, f->lasts_us); break;
    case FAULT_BLACKOUT: blackout(a); break;
    case FAULT_PAUSE:
        if (!r->members[a->id].rotting) sim_pause(r->sim, a->id, f->lasts_us); /* what is only tried is looked at at once */
        break;
    case FAULT_CLOCK_JUMP:
        model_clock_jumped(r->model, sim_now_us(r->sim), f->a);
        sim_clock_jump(r->sim, a->id, f->a);
        break;
    case FAULT_CLOCK_DRIFT: sim_clock_drift(r->sim, a->id, (int64_t)f->a - 1000000); break;
    case FAULT_ROT: disk_try(r, a->id, (enum sim_damage)f->a); break;
    case FAULT_DAMAGE: disk_damage(r, a->id, (enum sim_damage)f->a, f->b); break;
    case FAULT_OLD_COPY: disk_old_copy(r, a->id, f->lasts_us); break;
    case FAULT_LOST_DISK: disk_lost(r, a->id); break;
    case FAULT_CHANGE: members_change(r, (enum member_change)f->a, a->id); break;
    case FAULT_TRANSFER: ask_transfer(a); break;
    case FAULT_SNAPSHOT: ask_snapshot(a); break;
    case FAULT_TWIN: twin_start(r, a->id, (enum twin_how)f->a, f->lasts_us); break;
    case FAULT_NAMESAKE: joining_namesake(r, a->id, (enum namesake_how)f->a); break;
    default: break;
    }
}

static void strike_world(struct armed *a)
{
    struct run *r = a->run;
    const struct fault *f = a->f;
    struct member *m = &r->members[a->id];
    switch (f->kind) {
    case FAULT_ISOLATE: cut_off(a, true, true, f->b); break;
    case FAULT_DEAF: cut_off(a, true, false, f->b); break;
    case FAULT_MUTE: cut_off(a, false, true, f->b); break;
    case FAULT_PARTITION: partition(a, false); break;
    case FAULT_FLAP:
        a->left = (unsigned)f->b;
        flap(a);
        return;
    case FAULT_DELAY: delay(a, f->a); break;
    case FAULT_RESET:
        for (uint64_t other = 1; other <= r->top; other++) sim_reset(r->sim, a->id, other);
        break;
    case FAULT_HARSH_NET: harsh_net(a); break;
    case FAULT_SLOW_DISK: sim_disk_slow(r->sim, a->id, (unsigned)f->a); break;
    case FAULT_STALL_DISK: sim_disk_stall(r->sim, a->id, f->a); break;
    case FAULT_DISK_ERROR:
        disk_in_trouble(m);
        sim_disk_fail_nth(r->sim, a->id, (unsigned)f->a);
        break;
    case FAULT_DISK_FULL:
        disk_in_trouble(m);
        sim_disk_capacity(r->sim, a->id, sim_disk_used(r->sim, a->id) + f->a);
        break;
    default: return;
    }
    sim_at(r->sim, f->lasts_us, fault_ends, a);
}

/* During a truce only the member that it is for may be struck, and by what passes. */
static bool bears_truce(const struct run *r, const struct armed *a)
{
    if (a->id != r->truce) return false;
    switch (a->f->kind) {
    case FAULT_KILL:
    case FAULT_POWER:
    case FAULT_CRASH_AT_IO:
    case FAULT_RESTARTS:
    case FAULT_STOP:
    case FAULT_SLOW_DISK:
    case FAULT_STALL_DISK:
    case FAULT_SNAPSHOT: return true;
    default: return false;
    }
}

static void strike(void *arg)
{
    struct armed *a = arg;
    struct run *r = a->run;
    char text[256];
    if (r->winding_down) return;
    a->id = victim(a);
    if (r->truce && !bears_truce(r, a)) return;
    r->result->counts.faults++;
    if (r->o.trace) {
        fault_print(a->f, text, sizeof text);
        run_trace(r, "** fault %s: hits m%" PRIu64, text, a->id);
    }
    strike_member(a);
    strike_world(a);
}

/* ---- when
 * ---------------------------------------------------------------------------------------- */

static void wait_for_moment(void *arg)
{
    struct armed *a = arg;
    a->waiting = true;
    a->run->n_waiting++;
}

static void moment_comes(struct run *r, enum fault_when when, unsigned detail, uint64_t id, uint64_t other)
{
    for (unsigned i = 0; i < r->plan.n; i++) {
        struct armed *a = &r->armed[i];
        if (!a->waiting || a->f->when != when || a->f->detail != detail) continue;
        if (++a->seen < a->f->nth) continue;
        a->waiting = false;
        r->n_waiting--;
        a->subject = id;
        a->other = other;
        sim_at(r->sim, a->f->delay_us, strike, a);
    }
}

static void on_moment(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice frame,
                      int op, const char *path)
{
    struct run *r = ctx;
    if (what == SIM_HEARS && frame.len > 1) acquaint_heard(r, id, other, frame);
    if (r->n_waiting == 0 || r->members[id].twin_of || r->members[other].twin_of) return;
    if (what == SIM_DISK) {
        enum disk_class class = disk_class_of(op, path);
        if (class != DISK_CLASSES) moment_comes(r, WHEN_DISK, class, id, other);
    } else if (frame.len > 1) {
        moment_comes(r, what == SIM_SENDS ? WHEN_SENDS : WHEN_HEARS, frame.data[1], id, other);
    }
}

void nemesis_history(struct run *r, uint64_t id)
{
    if (r->n_waiting) moment_comes(r, WHEN_HISTORY, 0, id, id);
}

void nemesis_start(struct run *r)
{
    r->armed = mem_must_calloc(r->plan.n + 1, sizeof *r->armed);
    for (unsigned i = 0; i < r->plan.n; i++) {
        struct armed *a = &r->armed[i];
        *a = (struct armed){.run = r, .f = &r->plan.faults[i]};
        sim_at(r->sim, a->f->at_us, a->f->when == WHEN_TIME ? strike : wait_for_moment, a);
    }
    acquaint_start(r);
    sim_on_moment(r->sim, on_moment, r);
}

void nemesis_free(struct run *r)
{
    mem_free(r->armed);
    mem_free(r->told);
}

void nemesis_rest(struct run *r, uint64_t but)
{
    sim_heal_all(r->sim);
    calm_net(r);
    for (uint64_t id = 1; id <= r->top; id++) {
        if (id == but) continue;
        sim_disk_slow(r->sim, id, 1);
        sim_disk_stall(r->sim, id, 0);
        mend_disk(r, id);
        r->members[id].deaths = 0;
        sim_crash_after(r->sim, id, SIM_KILL, 0);
        sim_pause(r->sim, id, 0);
        sim_clock_drift(r->sim, id, 0);
    }
}

void nemesis_stop(struct run *r)
{
    r->winding_down = true;
    for (unsigned i = 0; i < r->plan.n; i++) r->armed[i].waiting = false;
    r->n_waiting = 0;
    nemesis_rest(r, 0);
    for (uint64_t id = 1; id <= r->top; id++) { /* what its disk has become is found when it starts */
        if (r->members[id].unread) cluster_crash(r, id, SIM_KILL, 1000);
    }
}
