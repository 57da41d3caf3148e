/* Consensus alone under everything at once: crashes, partitions, slow disks, frames lost, repeated
 * and out of order, snapshots all the time; in every third run one member after the other finds its
 * state damaged or its disk empty, and heals while all that goes on for the others, too. No
 * acknowledged entry is lost, none is applied twice, all members apply the same, and a read point
 * sees what was acknowledged before it. CHAOS_SEED=n runs one seed, CHAOS_SEEDS=n so many. */
#include <inttypes.h>

#include "cluster.h"

#define CLIENTS 6
#define VALUES_MAX 20000

struct chaos {
    struct cluster k;
    struct sim_random r;
    uint64_t seed, next_value;
    uint8_t state[VALUES_MAX]; /* 0 unknown, 1 acknowledged, 2 known not to be applied */
    uint64_t last_acknowledged;
    bool down[CLUSTER_MAX + 1];
    uint64_t damaged; /* this member is, and not whole again; 0 = none */
    bool told;        /* and it has said so */
    uint64_t healed;
    struct applied *history; /* by index: what the first member to apply it saw */
    size_t history_size;
    uint64_t applied, reads;
};

static struct chaos *chaos_of(struct node *n)
{
    return container_of(n->cluster, struct chaos, k);
}

static void chaos_apply(void *ctx, uint64_t index, uint64_t term, struct slice entry,
                        uint64_t own_tag)
{
    struct node *n = ctx;
    struct chaos *x = chaos_of(n);
    if (x->down[n->id]) return; /* a crashed life on its way out: nobody sees it */
    node_apply(ctx, index, term, entry, own_tag);
    uint64_t value = n->log[n->n - 1].value;
    if (index >= x->history_size) {
        size_t size = index * 2 + 64;
        x->history = mem_must_realloc(x->history, size * sizeof *x->history);
        memset(x->history + x->history_size, 0, (size - x->history_size) * sizeof *x->history);
        x->history_size = size;
    }
    struct applied *seen = &x->history[index];
    if (seen->index && (seen->value != value || seen->index != term)) {
        fail_msg("seed %" PRIu64 ": index %" PRIu64 " is %" PRIu64 " (term %" PRIu64
                 ") and %" PRIu64 " (term %" PRIu64 ")",
                 x->seed, index, seen->value, seen->index, value, term);
    }
    *seen = (struct applied){term, value}; /* the term in the place of the index */
    if (x->state[value] == 2)
        fail_msg("seed %" PRIu64 ": value %" PRIu64 " was said not to be applied", x->seed, value);
    if (own_tag) {
        assert_int_equal(own_tag, value);
        x->state[value] = 1;
        x->applied++;
    }
}

static void chaos_failed(void *ctx, uint64_t tag, int error)
{
    struct node *n = ctx;
    struct chaos *x = chaos_of(n);
    if (x->down[n->id]) return;
    if (error == ERR_NO_LEADER || error == ERR_TOO_MANY_REQUESTS) {
        if (x->state[tag] == 1)
            fail_msg("seed %" PRIu64 ": value %" PRIu64 " failed after it was applied", x->seed,
                     tag);
        x->state[tag] = 2;
    }
}

static struct consensus_callbacks chaos_callbacks;

static void chaos_boot(struct chaos *x, uint64_t id)
{
    struct node *n = &x->k.nodes[id];
    struct err e = {{0}};
    mem_free(n->log);
    *n = (struct node){.cluster = &x->k, .id = id};
    x->down[id] = false;
    n->env = sim_boot(x->k.sim, id);
    x->k.config.id = id;
    int rv = consensus_open(&x->k.config, n->env, &chaos_callbacks, n, &n->c, &e);
    if (rv) fail_msg("seed %" PRIu64 ": member %d does not open: %s", x->seed, (int)id, e.text);
}

struct chaos_read {
    struct consensus_read r;
    struct chaos *x;
    struct node *n;
    uint64_t *must_see;
    size_t n_must_see;
};

static void chaos_read_done(struct consensus_read *r, int error)
{
    struct chaos_read *q = container_of(r, struct chaos_read, r);
    for (size_t i = 0; i < q->n_must_see && error == 0 && !q->x->down[q->n->id]; i++) {
        if (!node_has(q->n, q->must_see[i])) {
            fail_msg("seed %" PRIu64 ": a read on %d does not see %" PRIu64, q->x->seed,
                     (int)q->n->id, q->must_see[i]);
        }
    }
    q->x->reads += error == 0;
    mem_free(q->must_see);
    mem_free(q);
}

static void chaos_read(struct chaos *x, struct node *n)
{
    struct chaos_read *q = mem_must_calloc(1, sizeof *q);
    q->x = x;
    q->n = n;
    q->r.done = chaos_read_done;
    q->must_see = mem_must_alloc(16 * sizeof *q->must_see);
    for (uint64_t v = x->next_value; v-- > 1 && q->n_must_see < 16;) {
        if (x->state[v] == 1) q->must_see[q->n_must_see++] = v;
    }
    consensus_read(n->c, &q->r);
}

static void chaos_crash(struct chaos *x, uint64_t id)
{
    struct node *n = &x->k.nodes[id];
    x->down[id] = true;
    sim_crash(x->k.sim, id, sim_chance(&x->r, 500000) ? SIM_KILL : SIM_POWER);
    node_close(n);
    n->leads = false;
}

/* One at a time: what a majority has lost is lost. */
static void chaos_damage(struct chaos *x, uint64_t id)
{
    struct node *n = &x->k.nodes[id];
    if (x->damaged || x->seed % 3) return;
    x->told = !x->down[id] && sim_chance(&x->r, 600000);
    x->damaged = id;
    if (x->told) {
        consensus_distrust(n->c, "chaos");
    } else {
        if (!x->down[id]) chaos_crash(x, id);
        sim_disk_wipe(x->k.sim, id);
    }
}

/* It is started again as often as it asks for that, and is as good as any when it says so. */
static void chaos_heal(struct chaos *x)
{
    struct node *n = &x->k.nodes[x->damaged];
    struct consensus_status s;
    if (!x->damaged || x->down[x->damaged]) return;
    if (n->fatal && n->fatal_error == ERR_RESTART) {
        x->told = true;
        chaos_crash(x, n->id);
        if (sim_chance(&x->r, 500000)) chaos_boot(x, n->id);
        return;
    }
    consensus_get_status(n->c, &s);
    if (!x->told || s.recovering || !s.ready) return;
    x->damaged = 0;
    x->healed++;
}

static void chaos_fault(struct chaos *x)
{
    struct sim *s = x->k.sim;
    uint64_t id = 1 + sim_random_below(&x->r, x->k.n);
    switch (sim_random_below(&x->r, 11)) {
    case 0:
    case 1:
        if (x->down[id]) chaos_boot(x, id);
        else chaos_crash(x, id);
        break;
    case 2:
        for (unsigned i = 1; i <= x->k.n; i++) {
            if (x->down[i]) chaos_boot(x, i);
        }
        break;
    case 3: sim_partition(s, (uint64_t)1 << id, sim_chance(&x->r, 500000)); break;
    case 4: sim_cut(s, id, 1 + id % x->k.n, sim_chance(&x->r, 500000)); break;
    case 5: sim_heal_all(s); break;
    case 6: sim_reset(s, id, 1 + id % x->k.n); break;
    case 7: sim_disk_slow(s, id, 1 + (unsigned)sim_random_below(&x->r, 40)); break;
    case 8:
        if (!x->down[id]) sim_pause(s, id, sim_random_below(&x->r, 900000));
        break;
    case 9: chaos_damage(x, id); break;
    default:
        sim_heal_all(s);
        for (unsigned i = 1; i <= x->k.n; i++) sim_disk_slow(s, i, 1);
        break;
    }
}

static int ignored;
static void chaos_transferred(void *data, int error)
{
    (void)data;
    ignored = error;
}

static void chaos_load(struct chaos *x)
{
    for (int i = 0; i < CLIENTS; i++) {
        uint64_t id = 1 + sim_random_below(&x->r, x->k.n);
        struct node *n = &x->k.nodes[id];
        if (x->down[id] || n->fatal) continue;
        if (x->next_value < VALUES_MAX) {
            uint64_t v = x->next_value;
            size_t size = sim_chance(&x->r, 20000) ? 40000 : 8 + sim_random_below(&x->r, 800);
            if (node_propose_sized(n, v, v, size) == 0) x->next_value++;
        }
        if (sim_chance(&x->r, 200000)) chaos_read(x, n);
        if (sim_chance(&x->r, 3000)) ignored = consensus_snapshot(n->c);
        if (sim_chance(&x->r, 2000))
            ignored = consensus_transfer(n->c, 1 + id % x->k.n, chaos_transferred, NULL);
    }
}

static void check_fatal(struct chaos *x)
{
    for (unsigned i = 1; i <= x->k.n; i++) {
        if (x->k.nodes[i].fatal && !x->down[i])
            fail_msg("seed %" PRIu64 ": member %u: %s", x->seed, i, x->k.nodes[i].fatal_text);
    }
}

static bool chaos_settled(void *arg)
{
    struct chaos *x = arg;
    struct node *l = cluster_leader(&x->k);
    struct consensus_status a, b;
    if (!l) return false;
    consensus_get_status(l->c, &a);
    for (unsigned i = 1; i <= x->k.n; i++) {
        if (x->down[i]) return false;
        consensus_get_status(x->k.nodes[i].c, &b);
        if (b.recovering || b.applied_index != a.last_index || b.leader_id != l->id) return false;
    }
    return true;
}

static void chaos_check(struct chaos *x)
{
    const struct node *n = &x->k.nodes[1];
    uint8_t *seen = mem_must_calloc(VALUES_MAX, 1);
    for (size_t i = 0; i < n->n; i++) {
        if (seen[n->log[i].value]++)
            fail_msg("seed %" PRIu64 ": %" PRIu64 " was applied twice", x->seed, n->log[i].value);
    }
    for (uint64_t v = 1; v < x->next_value; v++) {
        if (x->state[v] == 1 && !seen[v])
            fail_msg("seed %" PRIu64 ": acknowledged %" PRIu64 " is lost", x->seed, v);
        if (x->state[v] == 2 && seen[v])
            fail_msg("seed %" PRIu64 ": refused %" PRIu64 " was applied", x->seed, v);
    }
    mem_free(seen);
    assert_same_logs(&x->k);
}

static void chaos_init(struct chaos *x, uint64_t seed)
{
    memset(x, 0, sizeof *x);
    cluster_init(&x->k, seed % 4 == 3 ? 5 : 3, seed);
    x->seed = seed;
    x->next_value = 1;
    sim_random_init(&x->r, seed, 99);
    x->k.config.snapshot_log_bytes = 30000;
    x->k.config.trailing_log_bytes = seed % 3 * 5000 + 1;
    x->k.config.segment_bytes = 64 * 1024;
    if (seed % 2) {
        struct sim_net_options *net = sim_net(x->k.sim);
        net->drop_ppm = 5000;
        net->duplicate_ppm = 10000;
        net->reorder_ppm = 10000;
        net->spike_ppm = 5000;
        net->spike_us = 300000;
    }
    if (seed % 5 == 0) sim_disk(x->k.sim)->stall_ppm = 5000, sim_disk(x->k.sim)->stall_us = 200000;
}

static void chaos_run(uint64_t seed)
{
    struct chaos *x = mem_must_alloc(sizeof *x);
    chaos_init(x, seed);
    for (unsigned i = 1; i <= x->k.n; i++) chaos_boot(x, i);
    if (x->seed % 3 == 0) sim_run_for(x->k.sim, 2 * SECOND); /* they must have met to know one that was lost */
    for (int step = 0; step < 1500; step++) {
        sim_run_for(x->k.sim, 2000 + sim_random_below(&x->r, 10000));
        chaos_heal(x);
        check_fatal(x);
        chaos_load(x);
        if (sim_chance(&x->r, 40000)) chaos_fault(x);
    }
    struct sim_net_options *net = sim_net(x->k.sim);
    net->drop_ppm = net->duplicate_ppm = net->reorder_ppm = net->spike_ppm = 0;
    sim_heal_all(x->k.sim);
    for (unsigned i = 1; i <= x->k.n; i++) {
        sim_disk_slow(x->k.sim, i, 1);
        if (x->down[i]) chaos_boot(x, i);
    }
    for (int i = 0; i < 200 && x->damaged && !chaos_settled(x); i++) {
        sim_run_for(x->k.sim, SECOND / 10);
        chaos_heal(x);
        if (x->down[x->damaged]) chaos_boot(x, x->damaged);
    }
    if (!sim_run_until(x->k.sim, chaos_settled, x, 60 * SECOND)) {
        check_fatal(x);
        fail_msg("seed %" PRIu64 ": does not settle", seed);
    }
    chaos_check(x);
    if (getenv("CHAOS_SEED")) {
        print_message("seed %" PRIu64 ": %" PRIu64 " values, %" PRIu64 " acknowledged, %" PRIu64
                      " reads, %" PRIu64 " healed\n",
                      seed, x->next_value, x->applied, x->reads, x->healed);
    }
    assert_true(x->applied > 0);
    cluster_stop(&x->k);
    mem_free(x->history);
    mem_free(x);
}

static void test_chaos(void **state)
{
    (void)state;
    chaos_callbacks = node_callbacks;
    chaos_callbacks.apply = chaos_apply;
    chaos_callbacks.proposal_failed = chaos_failed;
    const char *one = getenv("CHAOS_SEED"), *many = getenv("CHAOS_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 0) : 1, n = one    ? 1
                                                           : many ? strtoull(many, NULL, 0)
                                                                  : 12;
    for (uint64_t seed = first; seed < first + n; seed++) chaos_run(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_chaos)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
