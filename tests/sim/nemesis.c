/* The nemesis: at times by chance it breaks one thing of those that the seed allows, and mends it
 * after a while. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

static uint64_t some_time(struct run *r, uint64_t mean_us)
{
    return sim_random_range(&r->random, 1000, 2 * mean_us);
}

static uint64_t some_member(struct run *r)
{
    uint64_t id = 1 + sim_random_below(&r->random, r->o.members);
    struct life *leader = cluster_leader(r);
    return leader && sim_chance(&r->random, 400000) ? leader->id : id;
}

static void heal(void *arg)
{
    struct run *r = arg;
    sim_heal_all(r->sim);
}

static void break_crash(struct run *r, enum sim_crash_mode mode)
{
    unsigned n = sim_chance(&r->random, 850000)
                     ? 1
                     : 1 + (unsigned)sim_random_below(&r->random, r->o.members);
    for (unsigned i = 0; i < n; i++)
        cluster_crash(r, some_member(r), mode, some_time(r, r->o.fault_us));
}

static void break_partition(struct run *r)
{
    uint64_t side =
        sim_chance(&r->random, 500000) ? 1u << some_member(r) : sim_random_u64(&r->random);
    sim_partition(r->sim, side, sim_chance(&r->random, 500000));
    sim_at(r->sim, some_time(r, r->o.fault_us), heal, r);
}

static void break_one_way(struct run *r)
{
    uint64_t id = some_member(r);
    bool in = sim_chance(&r->random, 500000), reset = sim_chance(&r->random, 500000);
    for (uint64_t other = 1; other <= r->o.members; other++) {
        if (other == id || sim_chance(&r->random, 300000)) continue;
        if (in) sim_cut(r->sim, other, id, reset);
        else sim_cut(r->sim, id, other, reset);
    }
    sim_at(r->sim, some_time(r, r->o.fault_us), heal, r);
}

static void break_delay(struct run *r)
{
    uint64_t id = some_member(r);
    for (uint64_t other = 1; other <= r->o.members; other++) {
        if (other == id) continue;
        uint64_t us = sim_random_below(&r->random, 2ull * r->o.election_ms * 1000);
        if (sim_chance(&r->random, 500000)) sim_link_delay(r->sim, id, other, us);
        if (sim_chance(&r->random, 500000)) sim_link_delay(r->sim, other, id, us);
    }
    sim_at(r->sim, some_time(r, r->o.fault_us), heal, r);
}

static void calm_net(void *arg)
{
    struct run *r = arg;
    struct sim_net_options *n = sim_net(r->sim);
    n->drop_ppm = n->duplicate_ppm = n->reorder_ppm = 0;
}

static void break_net(struct run *r)
{
    struct sim_net_options *n = sim_net(r->sim);
    n->duplicate_ppm = (unsigned)sim_random_below(&r->random, 200000);
    n->reorder_ppm = (unsigned)sim_random_below(&r->random, 200000);
    n->drop_ppm = (unsigned)sim_random_below(&r->random, 50000);
    sim_at(r->sim, some_time(r, r->o.fault_us), calm_net, r);
}

static void fast_disk(void *arg)
{
    struct member *m = arg;
    sim_disk_slow(m->run->sim, m->id, 1);
}

static void break_slow_disk(struct run *r)
{
    struct member *m = &r->members[some_member(r)];
    sim_disk_slow(r->sim, m->id, (unsigned)sim_random_range(&r->random, 10, 1000));
    sim_at(r->sim, some_time(r, r->o.fault_us), fast_disk, m);
}

static void mend_disk(void *arg)
{
    struct member *m = arg;
    sim_disk_capacity(m->run->sim, m->id, 0);
    sim_disk_fail_nth(m->run->sim, m->id, 0);
}

static void break_full_disk(struct run *r)
{
    struct member *m = &r->members[some_member(r)];
    m->disk_trouble = true;
    sim_disk_capacity(r->sim, m->id,
                      sim_disk_used(r->sim, m->id) +
                          sim_random_below(&r->random, 4 * r->o.segment_bytes));
    sim_at(r->sim, some_time(r, r->o.fault_us), mend_disk, m);
}

static void break_disk(struct run *r)
{
    struct member *m = &r->members[some_member(r)];
    m->disk_trouble = true;
    sim_disk_fail_nth(r->sim, m->id, 1 + (unsigned)sim_random_below(&r->random, 20));
    sim_at(r->sim, some_time(r, r->o.fault_us), mend_disk, m);
}

static void break_at_io(struct run *r)
{
    enum sim_crash_mode mode = sim_chance(&r->random, 700000) ? SIM_POWER : SIM_KILL;
    sim_crash_after(r->sim, some_member(r), mode, 1 + (unsigned)sim_random_below(&r->random, 60));
}

static void ask_snapshot(struct run *r)
{
    struct life *l = cluster_some(r, &r->random);
    if (!l) return;
    int rv = consensus_snapshot((struct consensus *)(uintptr_t)core_consensus(l->core));
    run_trace(r, "m%" PRIu64 " is asked for a snapshot: %s", l->id, rv ? err_name(rv) : "yes");
}

static void moved(struct core_request *q)
{
    core_request_release(q);
    mem_free(q);
}

static void ask_transfer(struct run *r)
{
    struct life *l = cluster_leader(r);
    if (!l) return;
    struct core_request *q = mem_must_calloc(1, sizeof *q);
    q->type = CORE_MOVE_LEADER;
    q->member_id = 1 + sim_random_below(&r->random, r->o.members);
    q->done = moved;
    run_trace(r, "m%" PRIu64 " is asked to move leadership to m%" PRIu64, l->id, q->member_id);
    core_submit(l->core, q);
}

/* ---- when
 * ---------------------------------------------------------------------------------------- */

static void inject(struct run *r, unsigned fault)
{
    r->result->faults++;
    switch (fault) {
    case FAULT_KILL: break_crash(r, SIM_KILL); break;
    case FAULT_POWER: break_crash(r, SIM_POWER); break;
    case FAULT_CRASH_AT_IO: break_at_io(r); break;
    case FAULT_PARTITION: break_partition(r); break;
    case FAULT_ONE_WAY: break_one_way(r); break;
    case FAULT_DELAY: break_delay(r); break;
    case FAULT_RESET: sim_reset(r->sim, some_member(r), some_member(r)); break;
    case FAULT_PAUSE: sim_pause(r->sim, some_member(r), some_time(r, r->o.fault_us)); break;
    case FAULT_SLOW_DISK: break_slow_disk(r); break;
    case FAULT_DISK_ERROR: break_disk(r); break;
    case FAULT_DISK_FULL: break_full_disk(r); break;
    case FAULT_TRANSFER: ask_transfer(r); break;
    case FAULT_SNAPSHOT: ask_snapshot(r); break;
    case FAULT_HARSH_NET: break_net(r); break;
    case FAULT_STOP: cluster_stop(r, some_member(r), some_time(r, r->o.fault_us)); break;
    case FAULT_BIT_ROT: bit_rot(r, some_member(r)); break;
    default: break;
    }
}

static void run_fault(void *arg)
{
    struct run *r = arg;
    if (r->winding_down) return;
    unsigned allowed[32], n = 0;
    for (unsigned bit = 1; bit <= FAULT_ALL; bit <<= 1) {
        if (r->o.faults & bit) allowed[n++] = bit;
    }
    if (n) inject(r, allowed[sim_random_below(&r->random, n)]);
    sim_at(r->sim, some_time(r, r->o.fault_gap_us), run_fault, r);
}

void nemesis_start(struct run *r)
{
    sim_at(r->sim, some_time(r, r->o.fault_gap_us), run_fault, r);
}

void nemesis_stop(struct run *r)
{
    r->winding_down = true;
    heal(r);
    calm_net(r);
    for (uint64_t id = 1; id <= r->o.members; id++) {
        struct member *m = &r->members[id];
        fast_disk(m);
        mend_disk(m);
        sim_crash_after(r->sim, id, SIM_KILL, 0);
        sim_pause(r->sim, id, 0);
    }
}
