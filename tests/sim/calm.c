/* Trials in calm: the faults are over, disks and links are quick. One small thing is done to the cluster, of
 * which it must take no harm: leadership is moved, a follower is cut off for a while and comes back, the leader
 * goes silent, followers' disks are much slower than the leader's. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

enum {
    WAIT_US = 60000000,
    SLICE_US = 10000,
    SURGE_PUTS = 300,
    SURGE_GAP_US = 5000,
    SURGE_ANSWER_US = 600000,
    SURGE_SYNC_US = 12000,
};

static bool failed(void *arg)
{
    return run_failed(arg);
}

static void pass(struct run *r, uint64_t us)
{
    sim_run_until(r->sim, failed, r, us);
}

static struct consensus_status status_of(const struct life *l)
{
    struct consensus_status s;
    consensus_get_status(core_consensus(l->core), &s);
    return s;
}

/* Some voter that is not `id`. */
static uint64_t other_voter(struct run *r, uint64_t id)
{
    const struct consensus_member *list;
    struct life *l = cluster_leader(r);
    size_t n = l ? consensus_members(core_consensus(l->core), &list) : 0, from = n ? sim_random_below(&r->random, n) : 0;
    for (size_t i = 0; i < n; i++) {
        const struct consensus_member *m = &list[(from + i) % n];
        if (!m->learner && m->id != id) return m->id;
    }
    return 0;
}

/* ---- leadership moves when it is asked to
 * --------------------------------------------------------- */

static void on_transfer(struct core_request *q)
{
    bool *done = q->data;
    *done = true;
}

static void try_transfer(struct run *r)
{
    struct life *l = cluster_leader(r);
    if (!l) return;
    struct core_request q = {
        .type = CORE_MOVE_LEADER, .member_id = other_voter(r, l->id), .done = on_transfer};
    bool done = false;
    uint64_t began = sim_now_us(r->sim), id = l->id;
    q.data = &done;
    core_submit(l->core, &q);
    while (!done && !run_failed(r) && sim_now_us(r->sim) - began < WAIT_US) pass(r, SLICE_US);
    if (!done) {
        run_stuck(r, "a transfer of leadership is not answered");
        CHECK(r->verdict.failed);
    } else if (q.code != 0) {
        verdict_fail(&r->verdict,
                     "in calm, leadership does not move from member %" PRIu64 " to %" PRIu64 ": %s", id,
                     q.member_id, err_name(q.code));
    }
    if (done) core_request_release(&q);
}

/* ---- a follower that was away does not depose the leader
 * ------------------------------------------- */

static void try_isolation(struct run *r)
{
    struct life *l = cluster_leader(r);
    if (!l) return;
    uint64_t id = l->id, term = status_of(l).term, election_us = 1000ull * r->o.election_ms;
    uint64_t away = other_voter(r, id);
    sim_partition(r->sim, 1u << away, sim_chance(&r->random, 500000));
    pass(r, 5 * election_us);
    sim_heal_all(r->sim);
    pass(r, 3 * election_us);
    l = cluster_leader(r);
    if (run_failed(r)) return;
    if (!l || l->id != id || status_of(l).term != term) {
        verdict_fail(&r->verdict,
                     "in calm, member %" PRIu64 " comes back after a while, and leader %" PRIu64
                     " of term %" PRIu64 " is deposed",
                     away, id, term);
    }
}

/* ---- another leads soon after the leader has gone silent
 * ------------------------------------------- */

static bool another_leads(struct run *r, uint64_t old)
{
    struct life *l = cluster_leader(r);
    return l && l->id != old && r->led_us;
}

static void try_silence(struct run *r)
{
    struct life *l = cluster_leader(r);
    if (!l) return;
    uint64_t id = l->id, began = sim_now_us(r->sim), election_us = 1000ull * r->o.election_ms;
    r->led_us = 0;
    sim_partition(r->sim, 1u << id, false);
    while (!run_failed(r) && !another_leads(r, id)) {
        if (sim_now_us(r->sim) - began > 10 * election_us) {
            verdict_fail(&r->verdict, "in calm, nobody follows leader %" PRIu64 " in %.1f election timeouts",
                         id, 10.0);
        }
        pass(r, 1000);
    }
    sim_heal_all(r->sim);
    if (run_failed(r)) return;
    r->result->counts.failovers++;
    r->result->failover_share += (double)(r->led_us - began) / (double)election_us;
    pass(r, 4 * election_us);
}

/* ---- commits go on while followers' disks lag behind the leader's
 * ---------------------------------- */

struct surge {
    struct run *run;
    struct life *life;
    unsigned n;
};

struct surge_put {
    struct core_request request;
    struct run *run;
    uint64_t began_us;
    struct buf command;
};

static void surge_done(struct core_request *q)
{
    struct surge_put *p = container_of(q, struct surge_put, request);
    struct run *r = p->run;
    uint64_t took = sim_now_us(r->sim) - p->began_us;
    if (!run_failed(r) && !r->ending && (q->code || took > SURGE_ANSWER_US)) {
        verdict_fail(&r->verdict,
                     "in calm, with followers' disks slower than the leader's, a put is answered after "
                     "%.3f s: %s",
                     (double)took / 1e6, q->code ? err_name(q->code) : "late");
    }
    core_request_release(q);
    buf_release(&p->command);
    mem_free(p);
}

static void surge_next(void *arg)
{
    struct surge *s = arg;
    struct run *r = s->run;
    if (life_gone(s->life) || s->n++ == SURGE_PUTS) return;
    struct surge_put *p = mem_must_calloc(1, sizeof *p);
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_PUT}};
    c.op.put = (struct put_op){.key = SLICE_LIT("s"), .value = SLICE_LIT("surge")};
    command_encode(&p->command, &c);
    p->run = r;
    p->began_us = sim_now_us(r->sim);
    p->request = (struct core_request){.type = CORE_COMMAND, .done = surge_done};
    p->request.command = buf_slice(&p->command);
    core_submit(s->life->core, &p->request);
    sim_at_member(r->sim, s->life->id, SURGE_GAP_US, surge_next, s);
}

static void try_lag(struct run *r)
{
    if (r->o.quota_bytes) return; /* there may be no room */
    struct surge *s = r->surge = mem_must_calloc(1, sizeof *s);
    *s = (struct surge){.run = r, .life = cluster_leader(r)};
    if (!s->life) return;
    for (uint64_t id = 1; id <= r->top; id++)
        sim_disk_slow(r->sim, id, id == s->life->id ? 1 : 1 + SURGE_SYNC_US / (sim_disk(r->sim)->sync_max_us + 100));
    sim_at_member(r->sim, s->life->id, 0, surge_next, s);
    pass(r, SURGE_PUTS * SURGE_GAP_US + SURGE_ANSWER_US + 100000);
    for (uint64_t id = 1; id <= r->top; id++) sim_disk_slow(r->sim, id, 1);
}

/* ---- a bit that flips in a member's memory is found by comparison, and heals
 * ------------------------------- */

static void put_done(struct core_request *q)
{
    bool *done = q->data;
    *done = true;
}

/* A key that no client touches. */
static bool put_stone(struct run *r, struct life *l)
{
    struct core_request q = {.type = CORE_COMMAND, .done = put_done};
    struct buf bytes = {0};
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_PUT}};
    bool done = false;
    uint64_t began = sim_now_us(r->sim);
    c.op.put = (struct put_op){.key = RUN_STONE, .value = SLICE_LIT("stone")};
    command_encode(&bytes, &c);
    q.command = buf_slice(&bytes);
    q.data = &done;
    core_submit(l->core, &q);
    while (!done && !run_failed(r) && sim_now_us(r->sim) - began < WAIT_US) pass(r, SLICE_US);
    bool ok = done && q.code == 0;
    if (done) core_request_release(&q);
    buf_release(&bytes);
    return ok;
}

static bool flip_stone(struct life *l)
{
    struct arena arena = {0};
    struct range_op op = {.key = RUN_STONE};
    struct range_result got = {0};
    int rv = store_range((struct store *)(uintptr_t)core_store(l->core), &op, &arena, &got);
    bool there = rv == 0 && got.n == 1;
    if (there) *(uint8_t *)(uintptr_t)record_value(got.records[0]).data ^= 4;
    for (size_t i = 0; rv == 0 && i < got.n; i++) record_unref(got.records[i]);
    arena_release(&arena);
    return there;
}

static void try_memory(struct run *r)
{
    struct life *l = cluster_leader(r);
    if (!l || !put_stone(r, l)) return;
    pass(r, 1000000);
    l = cluster_leader(r);
    uint64_t id = l && sim_chance(&r->random, 500000) ? other_voter(r, l->id) : l ? l->id : 0;
    struct member *m = &r->members[id];
    if (!id || !m->life || !flip_stone(m->life)) return;
    run_trace(r, "** a bit flips in the memory of m%" PRIu64, id);
    uint64_t began = sim_now_us(r->sim), serial = m->life->serial;
    r->lying = id;
    m->damaged = true;
    m->damaged_at = model_last_index(r->model);
    while (!run_failed(r) && (!disk_healed(r, id) || m->life->serial == serial)) {
        if (sim_now_us(r->sim) - began > 4000 * r->o.check_ms + WAIT_US) {
            verdict_fail(&r->verdict, "a bit flipped in the memory of member %" PRIu64 ": the members %s", id,
                         m->life && m->life->serial == serial ? "do not find it" : "do not heal it");
        }
        pass(r, SLICE_US);
    }
    r->lying = 0;
    m->damaged = false;
    pass(r, 2000000);
}

void calm_trials(struct run *r)
{
    struct members_view v;
    if (!members_in_force(r, &v) || v.voters < 3) return;
    static void (*const trials[])(struct run *r) = {try_transfer, try_isolation, try_silence, try_lag, try_memory};
    for (unsigned i = 0; i < CALM_TRIALS && !run_failed(r); i++) {
        if (!(r->o.calm >> i & 1)) continue;
        trials[i](r);
        pass(r, 500000);
    }
}
