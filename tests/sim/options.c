/* What a seed stands for. A swarm: each has its own small world, its own load and its own choice of faults. */
#include <inttypes.h>
#include <stdio.h>

#include "harness.h"

static uint64_t one_of(struct sim_random *r, const uint64_t *list, size_t n)
{
    return list[sim_random_below(r, n)];
}
#define ONE_OF(r, ...)                                                                             \
    one_of((r), (const uint64_t[]){__VA_ARGS__}, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void choose_world(struct run_options *o, struct sim_random *r)
{
    struct sim_disk_options *d = &o->sim.disk;
    struct sim_net_options *n = &o->sim.net;
    bool changes = o->faults >> FAULT_CHANGE & 1;
    sim_options_default(&o->sim, o->seed, changes ? SIM_MEMBERS_MAX : o->members);
    d->sync_max_us = (unsigned)ONE_OF(r, 300, 1000, 1000, 5000, 20000);
    d->stall_ppm = (unsigned)ONE_OF(r, 0, 0, 1000, 10000);
    d->stall_us = (unsigned)sim_random_range(r, 1000, 500000);
    d->keep_old = o->faults & (1u << FAULT_ROT | 1u << FAULT_DAMAGE);
    n->latency_max_us = (unsigned)ONE_OF(r, 200, 400, 1000, 5000, 20000);
    n->spike_ppm = (unsigned)ONE_OF(r, 0, 0, 1000, 20000);
    n->spike_us = (unsigned)sim_random_range(r, 1000, 300000);
    n->reset_ppm = (unsigned)ONE_OF(r, 0, 0, 100, 1000);
    n->queue_bytes = (size_t)ONE_OF(r, 64 * 1024 * 1024, 64 * 1024 * 1024, 9 * 1024 * 1024);
    n->stall_limit_us = (unsigned)ONE_OF(r, 500000, 2000000, 5000000, 0);
    o->sim.clock_drift_ppm = (unsigned)ONE_OF(r, 0, 100, 1000, 10000);
}

static void choose_faults(struct run_options *o, struct sim_random *r)
{
    unsigned share = (unsigned)ONE_OF(r, 100000, 250000, 350000, 500000);
    for (unsigned k = 0; k < FAULT_TWIN; k++) o->faults |= sim_chance(r, share) ? 1u << k : 0;
    if (sim_chance(r, 500000)) {
        for (unsigned k = 0; k < PLAN_STORIES; k++) o->stories |= sim_chance(r, 400000) ? 1u << k : 0;
    }
    if (sim_chance(r, 30000)) o->faults = o->stories = 0; /* nothing at all */
    o->fault_gap_us = ONE_OF(r, 100000, 300000, 1000000, 2000000, 5000000);
    o->fault_us = ONE_OF(r, 50000, 200000, 1000000, 3000000);
}

void run_options_from_seed(struct run_options *o, uint64_t seed)
{
    struct sim_random random, *r = &random;
    sim_random_init(r, seed, 0x0b7105);
    *o = (struct run_options){.seed = seed};
    o->members = (unsigned)ONE_OF(r, 1, 3, 3, 3, 3, 3, 5, 5);
    o->clients = (unsigned)(sim_chance(r, 100000) ? RUN_CLIENTS_MAX : sim_random_range(r, 2, 10));
    o->keys = (unsigned)(sim_chance(r, 100000) ? RUN_KEYS_MAX : sim_random_range(r, 2, 10)); /* many: a tree of several nodes */
    o->watchers = (unsigned)sim_random_range(r, 0, 6);
    choose_faults(o, r);
    o->length_us = ONE_OF(r, 5000000, 10000000, 20000000, 30000000, 60000000);
    o->shaped = sim_chance(r, 500000);
    o->think_us = ONE_OF(r, 2000, 10000, 50000, 200000);
    o->value_bytes = (size_t)ONE_OF(r, 0, 50, 500, 4000);
    if (sim_chance(r, 50000)) { /* entries larger than segments, frames and pieces of snapshots */
        o->value_bytes = 400000;
        if (o->keys > 10) o->keys = 10;
        o->think_us = 200000;
        o->shaped = false;
    }
    o->timeout_min_ms = (unsigned)ONE_OF(r, 1000, 1000, 100);
    o->timeout_max_ms = 5 * o->timeout_min_ms;
    o->snapshot_log_bytes = ONE_OF(r, 2048, 8192, 32768, 65536, 1048576);
    o->trailing_log_bytes = ONE_OF(r, 1, 512, 2048, 8192, 65536);
    o->segment_bytes = (size_t)ONE_OF(r, 65536, 65536, 262144);
    o->election_ms = (unsigned)ONE_OF(r, 200, 500, 1000);
    o->heartbeat_ms = o->election_ms / 5;
    o->max_appends = (unsigned)ONE_OF(r, 0, 1, 2, 16, 64);
    o->auto_compaction_revisions = (int64_t)ONE_OF(r, 0, 0, 0, 50, 500);
    o->calm = 1 | 1u << sim_random_below(r, 3 * CALM_TRIALS); /* most have one more, or none */
    o->check_ms = o->calm >> 4 & 1 ? 3000 : ONE_OF(r, 0, 0, 2000, 20000);
    choose_world(o, r);
    o->lease_checkpoint_ms = ONE_OF(r, 0, 0, 1000, 3000);
    o->long_apply_keys = (size_t)ONE_OF(r, 0, 1, 3);
    o->range_slice_keys = (size_t)ONE_OF(r, 1, 2, 5, 0);
    o->any_reconfig = sim_chance(r, 700000);
    o->retry_ppm = (unsigned)ONE_OF(r, 0, 500000, 900000);
    o->restores = sim_chance(r, 200000);
    o->quota_bytes = sim_chance(r, 150000) ? 5000 + 60 * (int64_t)o->value_bytes : 0;
    if (o->faults && o->members > 1 && sim_chance(r, 150000)) {
        if (!(o->faults >> FAULT_CHANGE & 1)) o->sim.members++;
        o->faults |= 1u << FAULT_TWIN;
    }
    if (o->faults >> FAULT_CHANGE & 1 && sim_chance(r, 400000)) o->faults |= 1u << FAULT_NAMESAKE;
}

void run_options_print(const struct run_options *o, char *out, size_t size)
{
    snprintf(out, size,
             "members=%u clients=%u keys=%u watchers=%u faults=%08x stories=%02x gap=%.1fs fault=%.1fs "
             "length=%.0fs think=%.0fms value=%zu snapshot=%" PRIu64 " trailing=%" PRIu64
             " segment=%zu election=%ums appends=%u",
             o->members, o->clients, o->keys, o->watchers, o->faults, o->stories, (double)o->fault_gap_us / 1e6,
             (double)o->fault_us / 1e6, (double)o->length_us / 1e6, (double)o->think_us / 1e3,
             o->value_bytes, o->snapshot_log_bytes, o->trailing_log_bytes, o->segment_bytes,
             o->election_ms, o->max_appends);
}
