/* What a backup is for: the members of a new cluster are made from the last one that was saved, in a world of its own; the power
 * fails as soon as that is done; they are started, must elect a leader and hold what the model held at the backup's revision. The leases are
 * those of the backup; none ends before its time, then all do. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

enum { RESTORED_MEMBERS = 3, RESTORED_CLUSTER = 78, START_US = 30000000, SLICE_US = 10000, TICK_US = 100000, LOOK_US = 250000, LEASES_US = 60000000 };

struct restored {
    struct run *run;
    struct sim *sim;
    struct slice bytes;
    struct consensus_member members[RESTORED_MEMBERS];
    struct core *cores[RESTORED_MEMBERS];
    struct env *envs[RESTORED_MEMBERS];
    unsigned closed;
    struct store *backup; /* what the file holds */
    uint64_t began_us;
    struct ticking {
        struct restored *of;
        uint64_t id;
    } ticking[RESTORED_MEMBERS];
};

struct reading {
    struct slice left;
};

static int read_piece(void *ctx, struct buf *out, struct err *e)
{
    struct reading *r = ctx;
    size_t n = r->left.len < 10000 ? r->left.len : 10000;
    (void)e;
    int rv = buf_append_slice(out, slice_sub(r->left, 0, n));
    r->left = slice_sub(r->left, n, r->left.len - n);
    return rv;
}

static void on_live(void *ctx, struct event_batch *batch)
{
    (void)ctx, (void)batch;
}

static void on_reset(void *ctx, int64_t revision)
{
    (void)ctx, (void)revision;
}

static void on_fatal(void *ctx, int error, const char *text)
{
    struct restored *n = ctx;
    verdict_fail(&n->run->verdict, "a member of a restored cluster stops: %s: %s", err_name(error), text);
}

static void on_leader(void *ctx, uint64_t leader_id, bool is_self)
{
    (void)ctx, (void)leader_id, (void)is_self;
}

static const struct core_events restored_events = {
    .live = on_live, .reset = on_reset, .fatal = on_fatal, .leader_changed = on_leader};

static struct core_config config_of(const struct restored *n, uint64_t id)
{
    const struct run_options *o = &n->run->o;
    return (struct core_config){.consensus = {.id = id,
                                              .cluster_id = RESTORED_CLUSTER,
                                              .members = n->members,
                                              .n_members = RESTORED_MEMBERS,
                                              .new_cluster = true,
                                              .heartbeat_ms = o->heartbeat_ms,
                                              .election_ms = o->election_ms,
                                              .segment_bytes = o->segment_bytes},
                                .store = {.quota_bytes = o->quota_bytes},
                                .name = n->members[id - 1].name,
                                .client_urls = &n->members[id - 1].name,
                                .n_client_urls = 1};
}

static void make_folder(struct restored *n, uint64_t id)
{
    struct core_config c = config_of(n, id);
    struct reading r = {n->bytes};
    struct err e = {{0}};
    struct env *env = sim_boot(n->sim, id);
    int rv = consensus_write_restored(&c.consensus, env, read_piece, &r, &e);
    if (rv) verdict_fail(&n->run->verdict, "a backup cannot be restored: %s: %s", err_name(rv), e.text);
    sim_crash(n->sim, id, SIM_POWER);
    sim_release(env);
}

static void flush(void *ctx, uint64_t id)
{
    struct restored *n = ctx;
    if (n->cores[id - 1]) core_flush(n->cores[id - 1]);
}

static void tick(void *arg)
{
    struct ticking *t = arg;
    struct restored *n = t->of;
    if (!n->cores[t->id - 1]) return;
    sim_at_member(n->sim, t->id, TICK_US, tick, t);
    core_tick(n->cores[t->id - 1]);
}

static void start(struct restored *n, uint64_t id)
{
    struct core_config c = config_of(n, id);
    struct err e = {{0}};
    n->envs[id - 1] = sim_boot(n->sim, id);
    int rv = core_open(&c, n->envs[id - 1], &restored_events, n, &n->cores[id - 1], &e);
    if (rv == 0) {
        n->ticking[id - 1] = (struct ticking){n, id};
        return tick(&n->ticking[id - 1]);
    }
    n->cores[id - 1] = NULL;
    verdict_fail(&n->run->verdict, "a restored member %" PRIu64 " does not open: %s: %s", id, err_name(rv), e.text);
}

static bool all_ready(void *ctx)
{
    struct restored *n = ctx;
    for (unsigned i = 0; i < RESTORED_MEMBERS && !run_failed(n->run); i++) {
        struct consensus_status s;
        consensus_get_status(core_consensus(n->cores[i]), &s);
        if (!s.ready || !s.leader_id) return false;
    }
    return true;
}

static struct store *load(struct run *r, struct slice bytes)
{
    struct store_options options = {.quota_bytes = r->o.quota_bytes};
    struct store_loader *l = store_loader_new(&options);
    struct store *out = NULL;
    struct err e = {{0}};
    CHECK(store_loader_feed(l, bytes, &e) == 0 && store_loader_finish(l, &out, &e) == 0); /* it was loaded when it was saved */
    store_loader_free(l);
    return out;
}

static struct store *store_of(const struct restored *n, unsigned i)
{
    return (struct store *)(uintptr_t)core_store(n->cores[i]);
}

/* Whether all are as they should be by now; false: there are leases left. */
static bool leases_ended(struct restored *n)
{
    bool ended = true;
    int64_t id;
    for (unsigned i = 0; i < RESTORED_MEMBERS && !run_failed(n->run); i++) {
        state_restored(n->run, i + 1, store_of(n, i), n->backup, sim_now_us(n->sim) - n->began_us);
        ended = ended && store_leases(store_of(n, i), 0, &id, 1) == 0;
    }
    return ended;
}

static void wait_for_leases(struct restored *n)
{
    uint64_t began = sim_now_us(n->sim);
    while (!leases_ended(n) && !run_failed(n->run)) {
        if (sim_now_us(n->sim) - began > LEASES_US)
            verdict_fail(&n->run->verdict, "in a restored cluster the leases do not end in %.0f s", LEASES_US / 1e6);
        sim_run_for(n->sim, LOOK_US);
    }
}

static void on_closed(void *ctx)
{
    struct restored *n = ctx;
    n->closed++;
}

static void close_all(struct restored *n)
{
    unsigned open = 0;
    for (unsigned i = 0; i < RESTORED_MEMBERS; i++) {
        if (!n->cores[i]) continue;
        core_close(n->cores[i], on_closed, n);
        n->cores[i] = NULL;
        open++;
    }
    for (unsigned i = 0; i < 1000 && n->closed < open; i++) sim_run_for(n->sim, SLICE_US);
    CHECK(n->closed == open);
    for (unsigned i = 0; i < RESTORED_MEMBERS; i++) {
        if (n->envs[i]) sim_release(n->envs[i]);
    }
}

void restore_check(struct run *r, struct slice backup, int64_t revision)
{
    struct restored n = {.run = r, .bytes = backup};
    static const char *const names[] = {"r1", "r2", "r3"}, *const urls[] = {"http://m1:1", "http://m2:1", "http://m3:1"};
    struct sim_options o;
    sim_options_default(&o, r->o.seed, RESTORED_MEMBERS);
    n.sim = sim_new(&o);
    sim_trace(n.sim, r->o.trace);
    sim_on_turn(n.sim, flush, &n);
    for (unsigned i = 0; i < RESTORED_MEMBERS; i++)
        n.members[i] = (struct consensus_member){.id = i + 1, .name = names[i], .peer_url = urls[i]};
    run_trace(r, "** a cluster is made from a backup of revision %" PRId64, revision);
    for (uint64_t id = 1; id <= RESTORED_MEMBERS && !run_failed(r); id++) make_folder(&n, id);
    n.backup = load(r, backup);
    n.began_us = sim_now_us(n.sim);
    for (uint64_t id = 1; id <= RESTORED_MEMBERS && !run_failed(r); id++) start(&n, id);
    if (!run_failed(r) && !sim_run_until(n.sim, all_ready, &n, START_US))
        verdict_fail(&r->verdict, "a restored cluster has no leader after %.0f s", START_US / 1e6);
    for (unsigned i = 0; i < RESTORED_MEMBERS && !run_failed(r); i++) {
        clients_check_store(r, store_of(&n, i), revision, "a restored cluster", i + 1);
    }
    if (!run_failed(r)) wait_for_leases(&n);
    close_all(&n);
    store_free(n.backup);
    sim_forget(n.sim);
    sim_free(n.sim);
}
