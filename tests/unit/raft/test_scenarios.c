/* Runs with every message and crash in its place, for mistakes that chance meets too seldom (docs/mutants.md). */
#include "cluster.h"
#include "raft/consensus_int.h"

/* ---- what only memory holds ------------------------------------------------------------------------ */

/* Whether the value lies in the log's first file, durable or not. */
static bool on_disk(struct cluster *k, uint64_t id, uint64_t value)
{
    struct buf b;
    bool found = false;
    buf_init(&b, 64u << 20);
    assert_int_equal(sim_disk_read(k->sim, id, "wal/0000000000000001.wal", &b), 0);
    for (size_t i = 0; i + sizeof value <= b.len && !found; i += 1)
        found = memcmp(b.data + i, &value, sizeof value) == 0;
    buf_release(&b);
    return found;
}

/* A member dies while an entry is on its way to its disk, so that only the page cache has it; it starts again, acknowledges the
 * entry, and loses its power. What it has acknowledged it must have. */
static void lose_page_cache(uint64_t seed)
{
    const uint64_t value = 0x6c6f7374206f6e65;
    struct cluster k;
    cluster_start(&k, 3, seed);
    struct node *a = cluster_wait_leader(&k), *f = &k.nodes[a->id % 3 + 1], *c = &k.nodes[f->id % 3 + 1];
    node_write(a, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    sim_cut(k.sim, a->id, c->id, true);
    sim_cut(k.sim, c->id, a->id, true);
    sim_cut(k.sim, f->id, c->id, true);
    sim_cut(k.sim, c->id, f->id, true);
    assert_int_equal(node_propose(a, value, value), 0);
    for (int i = 0; i < 100000 && !on_disk(&k, f->id, value); i++) sim_step(k.sim);
    node_crash(f, SIM_KILL);
    node_boot(&k, f->id);
    assert_true(cluster_wait_value(&k, value, (uint64_t)1 << a->id));
    sim_crash(k.sim, f->id, SIM_POWER);
    node_close(f);
    node_crash(a, SIM_KILL);
    sim_heal_all(k.sim);
    node_boot(&k, f->id);
    sim_run_for(k.sim, 10 * SECOND);
    if (!f->c || f->fatal || !node_has(f, value))
        fail_msg("seed %d: what was acknowledged is gone: %s", (int)seed, f->fatal_text);
    cluster_stop(&k);
}

static void test_page_cache(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) lose_page_cache(seed);
}

/* ---- a leader that has committed nothing of its own ------------------------------------------------- */

static bool drop_appends(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct frame f;
    (void)ctx, (void)from, (void)to, (void)ch;
    return frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_APPEND;
}

static void change_done(void *data, int error)
{
    (void)data, (void)error;
}

static void no_read(struct consensus_read *r, int error)
{
    if (error == 0) *(bool *)r->data = true;
}

/* It is elected, and nobody hears its entries: it changes no members and serves no reads. */
static void test_new_leader_waits(void **state)
{
    (void)state;
    struct cluster k;
    bool served = false;
    struct consensus_change add = {CONSENSUS_ADD, {.id = 9, .name = "n9", .peer_url = "http://10.0.0.9:2380"}};
    struct consensus_read reads[CLUSTER_MAX + 1];
    cluster_start(&k, 3, 41);
    struct node *old = cluster_wait_leader(&k);
    node_write(old, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    node_crash(old, SIM_KILL);
    old->leads = false;
    sim_on_frame(k.sim, drop_appends, NULL);
    for (unsigned i = 1; i <= 3; i++) {
        reads[i] = (struct consensus_read){.done = no_read, .data = &served};
        if (k.nodes[i].c) consensus_read(k.nodes[i].c, &reads[i]);
    }
    for (int t = 0; t < 400; t++) {
        sim_run_for(k.sim, SECOND / 100);
        for (unsigned i = 1; i <= 3; i++) {
            if (!k.nodes[i].c) continue;
            assert_int_equal(consensus_change(k.nodes[i].c, &add, change_done, NULL), ERR_NOT_LEADER);
            assert_false(k.nodes[i].leads);
        }
        assert_false(served);
    }
    sim_on_frame(k.sim, NULL, NULL);
    node_write(cluster_wait_leader(&k), 2);
    node_boot(&k, old->id);
    assert_true(cluster_wait_value(&k, 2, 0));
    cluster_stop(&k);
}

/* ---- a leader that does not know that it was deposed --------------------------------------------------- */

/* Nothing reaches the old leader but answers to its probes. */
static bool only_probe_acks(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    const struct node *old = ctx;
    struct frame f;
    (void)from, (void)ch;
    return to != old->id || (frame_decode(bytes, &f, NULL) == 0 && f.kind == FRAME_PROBE_ACK);
}

static bool other_leads(void *arg)
{
    const struct node *old = arg, *now = cluster_leader(old->cluster);
    return now && now != old && now->term > old->term;
}

/* It asks members of a later term whether it still leads: they do not say so, and it serves no read. */
static void test_probe_of_an_older_term(void **state)
{
    (void)state;
    struct cluster k;
    bool served = false, moved = false;
    cluster_start(&k, 3, 43);
    struct node *old = cluster_wait_leader(&k), *next = &k.nodes[old->id % 3 + 1];
    node_write(old, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    assert_int_equal(consensus_transfer(old->c, next->id, change_done, &moved), 0);
    sim_on_frame(k.sim, only_probe_acks, old);
    assert_true(sim_run_until(k.sim, other_leads, old, 5 * SECOND));
    node_write(next, 2);
    assert_true(old->leads); /* it has heard of nothing */
    struct consensus_read r = {.done = no_read, .data = &served};
    consensus_read(old->c, &r);
    sim_run_for(k.sim, SECOND / 5);
    assert_false(served);
    sim_on_frame(k.sim, NULL, NULL);
    assert_true(cluster_wait_value(&k, 2, 0));
    sim_run_for(k.sim, 10 * SECOND); /* the read is over, one way or the other */
    cluster_stop(&k);
}

/* ---- a snapshot that ends with an entry of an older term ------------------------------------------------ */

static bool elected(void *arg)
{
    const struct cluster *k = arg;
    for (unsigned i = 1; i <= k->n; i++)
        if (k->nodes[i].c && k->nodes[i].c->raft.state == RAFT_LEADER) return true;
    return false;
}

static bool leads(void *arg)
{
    return ((const struct node *)arg)->leads;
}

/* Nobody hears the leader: so many entries come onto its own disk, and no further. */
static void write_alone(struct node *n, uint64_t first, unsigned count)
{
    for (uint64_t v = first; v < first + count; sim_run_for(n->cluster->sim, SECOND / 4000)) {
        assert_int_equal(n->c->raft.state, RAFT_LEADER);
        v += node_propose_sized(n, v, v, 500) == 0;
    }
    sim_run_for(n->cluster->sim, SECOND / 50);
    node_crash(n, SIM_KILL);
}

/* A leader's entries are only on its own disk when the next one is elected, whose entries in the same places are on its own only
 * as well. The first leads again: now its old entries are committed. A member that catches up with them and takes a snapshot in
 * the middle becomes the leader: who still has the second one's entries must not pass for having what is in that snapshot, although
 * they are of the later term. */
static void test_later_term_where_a_snapshot_ends(void **state)
{
    (void)state;
    struct cluster k;
    bool moved = false;
    cluster_start(&k, 5, 47);
    struct node *a = cluster_wait_leader(&k), *late = &k.nodes[a->id % 5 + 1], *c = NULL;
    node_write(a, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    node_crash(late, SIM_KILL);
    sim_on_frame(k.sim, drop_appends, NULL);
    write_alone(a, 1001, 150);
    assert_true(sim_run_until(k.sim, elected, &k, 20 * SECOND));
    for (unsigned i = 1; i <= 5; i++) {
        struct node *n = &k.nodes[i];
        if (n->c && n->c->raft.state == RAFT_LEADER) c = n;
        else if (n->c) node_crash(n, SIM_KILL);
    }
    write_alone(c, 2001, 190);
    sim_on_frame(k.sim, NULL, NULL);
    for (unsigned i = 1; i <= 5; i++)
        if (&k.nodes[i] != c && &k.nodes[i] != late) node_boot(&k, i);
    assert_ptr_equal(cluster_wait_leader(&k), a);
    node_write(a, 2);
    k.config.snapshot_log_bytes = 20000;
    k.config.trailing_log_bytes = 2000;
    node_boot(&k, late->id);
    assert_true(cluster_wait_value(&k, 2, 0));
    assert_int_equal(consensus_transfer(a->c, late->id, change_done, &moved), 0);
    assert_true(sim_run_until(k.sim, leads, late, 5 * SECOND));
    node_boot(&k, c->id);
    node_write(late, 3);
    assert_true(cluster_wait_value(&k, 3, 0));
    assert_false(node_has(c, 2001));
    cluster_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_cache),
        cmocka_unit_test(test_new_leader_waits),
        cmocka_unit_test(test_probe_of_an_older_term),
        cmocka_unit_test(test_later_term_where_a_snapshot_ends),
    };
    return cmocka_run_group_tests_name("scenarios", tests, NULL, NULL);
}
