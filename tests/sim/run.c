/* A run: the time with faults; the time after them, in which all must come
 * right; the last checks. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

enum { RECOVERY_US = 60000000, SETTLE_US = 3000000, STEADY_US = 3000000, SLICE_US = 50000 };

/* ---- phases
 * -------------------------------------------------------------------------------------- */

static bool failed(void *arg)
{
    return run_failed(arg);
}

static void run_phase(struct run *r, uint64_t us)
{
    sim_run_until(r->sim, failed, r, us);
}

/* All members are up, have applied `last`, and know a leader. */
static bool agreed(struct run *r, uint64_t last)
{
    if (!members_agree(r) || r->twin.of) return false;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct life *l = r->members[id].life;
        if (!r->members[id].wanted) continue;
        if (!l || !l->core || !l->hub || life_gone(l) || l->applied < last) return false;
        struct consensus_status s;
        consensus_get_status(core_consensus(l->core), &s);
        if (!s.ready || !s.leader_id || s.recovering || !disk_healed(r, id)) return false;
    }
    return true;
}

static bool leases_ended(struct run *r)
{
    for (int64_t id = 1; id <= r->next_lease; id++) {
        const struct model_lease *l = model_lease(r->model, id);
        if (l && l->alive) return false;
    }
    return true;
}

void run_stuck(struct run *r, const char *what)
{
    char text[3000];
    size_t at = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct life *l = r->members[id].life;
        struct consensus_status s = {0};
        if (!r->members[id].wanted && !l) continue;
        if (l && l->core && !life_gone(l)) consensus_get_status(core_consensus(l->core), &s);
        at += (size_t)snprintf(
            text + at, sizeof text - at,
            "; m%" PRIu64 " %s role %d term %" PRIu64 " leader %" PRIu64 " commit %" PRIu64
            " applied %" PRIu64 " last %" PRIu64 " snapshot %" PRIu64,
            id, l ? (l->core ? "up" : "opening") : "down", (int)s.role, s.term, s.leader_id,
            s.commit_index, s.applied_index, s.last_index, s.snapshot_index);
    }
    verdict_fail(&r->verdict, "%s in %.0f s after the faults stopped%s", what, RECOVERY_US / 1e6,
                 text);
}

static bool overdue(const struct run *r, uint64_t began, uint64_t limit_us)
{
    return sim_now_us(r->sim) - began > limit_us;
}

/* From here on disks and links are quick and sure. */
static void calm_down(struct run *r)
{
    struct sim_disk_options *d = sim_disk(r->sim);
    struct sim_net_options *n = sim_net(r->sim);
    d->stall_ppm = n->spike_ppm = n->reset_ppm = 0;
    if (d->sync_max_us > 1000) d->sync_max_us = 1000;
    if (n->latency_max_us > 1000) n->latency_max_us = 1000;
}

/* Writes must succeed again, and all members and watchers catch up, in bounded time. */
static void recover(struct run *r)
{
    uint64_t began = sim_now_us(r->sim), acked = r->result->counts.acked;
    uint64_t index =
        model_last_index(r->model); /* members are always a little behind while clients go on */
    int64_t revision = model_revision(r->model);
    uint64_t settle = began;
    while (!run_failed(r) && !(r->result->counts.acked >= acked + 20 && agreed(r, index) &&
                               watchers_caught_up(r, revision))) {
        if (overdue(r, began, RECOVERY_US)) {
            run_stuck(r, r->result->counts.acked < acked + 20 ? "clients make no progress"
                       : !agreed(r, index)           ? "members do not agree"
                                                     : "watchers do not catch up");
        }
        if (overdue(r, settle, SETTLE_US)) {
            members_settle(r);
            settle = sim_now_us(r->sim);
        }
        run_phase(r, SLICE_US);
    }
    r->result->recovery_us += sim_now_us(r->sim) - began;
}

static bool at_rest(struct run *r)
{
    return clients_idle(r) && backup_idle(r) && reader_idle(r) && leases_ended(r) &&
           agreed(r, model_last_index(r->model)) && watchers_caught_up(r, model_revision(r->model));
}

/* All is well: nothing may fail now. Then everything is let come to its end. */
static void steady(struct run *r)
{
    run_phase(r, 1000000);
    calm_trials(r);
    run_phase(r, SETTLE_US);
    r->steady_us = sim_now_us(r->sim);
    uint64_t changes = r->result->counts.leader_changes;
    run_phase(r, STEADY_US);
    if (r->result->counts.leader_changes != changes)
        verdict_fail(&r->verdict, "in calm, the leader changes");
    r->ending = true;
    uint64_t began = sim_now_us(r->sim);
    while (!run_failed(r) && !at_rest(r)) {
        if (overdue(r, began, RECOVERY_US)) {
            run_stuck(r, !clients_idle(r)                         ? "requests are not answered"
                       : !backup_idle(r)                        ? "a backup does not end"
                       : !reader_idle(r)                        ? "a long read does not end"
                       : !leases_ended(r)                       ? "leases do not end"
                       : !agreed(r, model_last_index(r->model)) ? "members do not agree"
                                                                : "watchers do not catch up");
        }
        run_phase(r, SLICE_US);
    }
}

static uint32_t hash_of(struct store *s)
{
    struct store_hash *h = NULL;
    CHECK(store_hash_open(s, 0, &h) == 0);
    while (!store_hash_step(h, 1000)) continue;
    uint32_t value = store_hash_value(h);
    store_hash_close(h);
    return value;
}

static void final_checks(struct run *r)
{
    uint32_t first = 0;
    uint64_t first_id = 0;
    for (uint64_t id = 1; id <= r->top && !run_failed(r); id++) {
        if (!r->members[id].wanted) continue;
        struct store *s = (struct store *)(uintptr_t)core_store(r->members[id].life->core);
        uint32_t hash = hash_of(s);
        if (!first_id) first_id = id, first = hash;
        else if (hash != first)
            verdict_fail(&r->verdict, "HashKV at the end: member %" PRIu64 " %08x, member %" PRIu64 " %08x",
                         first_id, first, id, hash);
        if (!run_failed(r)) clients_check_member(r, r->members[id].life);
    }
    if (!run_failed(r)) clients_check_history(r);
    if (!run_failed(r) && r->o.restores) backup_restore(r);
}

/* Closes what still runs. After a failure too, so that the next seed begins clean. */
static void close_all(struct run *r)
{
    r->ending = r->winding_down = true;
    twin_stop(r);
    sim_run_for(r->sim, 1); /* what is being tried ends */
    for (uint64_t id = 1; id <= r->top; id++) {
        sim_pause(r->sim, id, 0);
        sim_crash_after(r->sim, id, SIM_KILL, 0);
        cluster_stop(r, id, 3600ull * 1000000);
    }
    for (unsigned i = 0; i < 600 && r->open_lives; i++) sim_run_for(r->sim, 100000);
    if (r->open_lives) verdict_fail(&r->verdict, "%u cores do not close", r->open_lives);
}

static void sum_up(struct run *r)
{
    struct run_result *t = r->result;
    const struct model_stats *m = model_get_stats(r->model);
    t->verdict = r->verdict;
    t->digest = sim_digest(r->sim);
    t->events = sim_events(r->sim);
    t->simulated_us = sim_now_us(r->sim);
    t->counts.entries = m->entries;
}

bool run(const struct run_options *o, struct run_result *ret)
{
    struct run *r = mem_must_calloc(1, sizeof *r);
    memset(ret, 0, sizeof *ret);
    r->o = *o;
    r->result = ret;
    r->sim = sim_new(&o->sim);
    r->model = model_new(&r->verdict);
    model_lease_tolerance(r->model, 2000ull * o->election_ms + 1000000, PLAN_DRIFT_PPM);
    model_quota(r->model, o->quota_bytes);
    sim_random_init(&r->random, o->seed, 4);
    sim_trace(r->sim, o->trace);
    sim_on_describe(r->sim, story_frame);
    if (o->plan) r->plan = *o->plan;
    else plan_make(&r->plan, o);
    sim_on_crash(r->sim, cluster_on_crash, r);
    sim_on_turn(r->sim, cluster_on_turn, r);
    members_start(r);
    for (uint64_t id = 1; id <= o->members; id++) cluster_boot(r, id);
    clients_start(r);
    if (!o->no_backup) backup_start(r);
    if (!o->no_backup) reader_start(r);
    watchers_start(r);
    nemesis_start(r);
    run_phase(r, o->length_us);
    nemesis_stop(r);
    calm_down(r);
    recover(r);
    if (r->changed && !run_failed(r)) members_leave_old_urls(r);
    if (!run_failed(r)) recover(r); /* what was under way on some disk when the faults stopped has ended then, too */
    if (!run_failed(r)) steady(r);
    if (!run_failed(r)) final_checks(r);
    close_all(r);
    sum_up(r);
    bool clean = r->open_lives == 0;
    if (clean) {
        sim_forget(r->sim);
        sim_free(r->sim);
    }
    clients_free(r);
    backup_free(r);
    reader_free(r);
    watchers_free(r);
    for (uint64_t id = 1; id <= r->top; id++) sim_disk_free(r->members[id].saved);
    nemesis_free(r);
    mem_free(r->states);
    mem_free(r->changes);
    mem_free(r->surge);
    model_free(r->model);
    bool ok = !r->verdict.failed;
    mem_free(r);
    return ok;
}
