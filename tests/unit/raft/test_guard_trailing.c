/* How much of the log a leader keeps behind a snapshot: some for everybody, more for a member that would need another
 * snapshot right after the one it was sent. */
#include "cluster.h"
#include "raft/snapshots_int.h"

#define SLOTS 256u
#define FIRST 101u
#define LAST 300u

/* A leader whose log has entries 101 to 300 of 1 MiB each, and has been told what two others have. */
struct leader {
    struct consensus *c;
    struct raft_entry entries[SLOTS];
    struct raft_server servers[3];
    struct raft_progress progress[3];
};

static struct leader *leader_new(void)
{
    struct leader *l = mem_must_calloc(1, sizeof *l);
    struct consensus *c = l->c = mem_must_calloc(1, sizeof *c);
    struct raft_log *log = &c->raft.log;
    c->guard.r = &c->raft;
    c->trailing_log_bytes = 3 * LIMIT_MiB + 1;
    *log = (struct raft_log){.entries = l->entries, .size = SLOTS, .front = 200, .offset = FIRST - 1};
    log->back = (log->front + LAST - FIRST + 1) % SLOTS;
    for (unsigned i = 0; i <= LAST - FIRST; i++) l->entries[(log->front + i) % SLOTS].buf.len = LIMIT_MiB;
    for (unsigned i = 0; i < 3; i++) {
        l->servers[i] = (struct raft_server){.id = i + 1, .role = RAFT_VOTER};
        l->progress[i] = (struct raft_progress){.state = GUARD_PIPELINE, .match_index = LAST, .recent_recv = true};
    }
    c->raft.id = 1;
    c->raft.state = RAFT_LEADER;
    c->raft.configuration = (struct raft_configuration){.servers = l->servers, .n = 3};
    c->raft.leader_state.progress = l->progress;
    return l;
}

static void leader_free(struct leader *l)
{
    mem_free(l->c);
    mem_free(l);
}

/* What is kept of the log up to `index` while member 2 is like this. */
static unsigned kept(uint64_t index, struct raft_progress p)
{
    struct leader *l = leader_new();
    l->progress[1] = p;
    unsigned n = snap_trailing_entries(l->c, index);
    leader_free(l);
    return n;
}

static struct raft_progress behind(enum guard_sending sending, uint64_t match, uint64_t snapshot, bool heard)
{
    return (struct raft_progress){
        .state = (unsigned short)sending, .match_index = match, .snapshot_index = snapshot, .recent_recv = heard};
}

static void test_nobody_behind(void **state)
{
    (void)state;
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, LAST, 0, true)), 3);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 290, 0, true)), 3);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 288, 0, true)), 3); /* has enough in these */
}

static void test_one_behind(void **state)
{
    (void)state;
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 280, 0, true)), 11); /* 280 itself: its term is asked for */
    assert_int_equal(kept(290, behind(GUARD_PROBE, 280, 0, true)), 11);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 280, 0, false)), 3); /* not there */
    assert_int_equal(kept(290, behind(GUARD_PROBE, 0, 0, true)), 3);       /* nothing is known of it */
}

static void test_snapshot_on_its_way(void **state)
{
    (void)state;
    assert_int_equal(kept(290, behind(GUARD_SNAPSHOT, 0, 280, false)), 11);
    assert_int_equal(kept(290, behind(GUARD_SNAPSHOT, 120, 280, true)), 11);
    assert_int_equal(kept(290, behind(GUARD_SNAPSHOT, 0, 0, true)), 3);
}

static void test_bounded(void **state)
{
    (void)state;
    unsigned more = CONSENSUS_CATCH_UP_BYTES / LIMIT_MiB;
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 290 - 3 - more, 0, true)), 3 + more);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 290 - 2 - more, 0, true)), 3 + more);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 290 - 1 - more, 0, true)), 2 + more);
    assert_int_equal(kept(290, behind(GUARD_PIPELINE, 150, 0, true)), 3 + more);
    assert_int_equal(kept(110, behind(GUARD_PIPELINE, 102, 0, true)), 9);
    assert_int_equal(kept(110, behind(GUARD_PIPELINE, 50, 0, true)), 10); /* all that there is */
}

static void test_only_a_leader_knows(void **state)
{
    (void)state;
    struct leader *l = leader_new();
    l->progress[1].match_index = 280;
    assert_int_equal(snap_trailing_entries(l->c, 290), 11);
    l->c->trailing_log_bytes = 20 * LIMIT_MiB;
    assert_int_equal(snap_trailing_entries(l->c, 290), 20);
    l->c->raft.state = RAFT_FOLLOWER; /* the same place in memory means something else then */
    assert_int_equal(snap_trailing_entries(l->c, 290), 20);
    l->c->trailing_log_bytes = 0;
    assert_int_equal(snap_trailing_entries(l->c, 290), 1); /* whoever is sent this snapshot asks for its term later */
    leader_free(l);
}

/* ---- the whole of it --------------------------------------------------------------------------------- */

static bool receives(void *arg)
{
    const struct node *n = arg;
    return n->c->snapshots && n->c->snapshots->receiving.state == RECV_WRITING;
}

static uint64_t snapshot_index(const struct node *n)
{
    struct consensus_status s;
    consensus_get_status(n->c, &s);
    return s.snapshot_index;
}

/* The leader goes on writing, and takes a newer snapshot, while one is on its way to a member: that one is enough. */
static void one_is_enough(uint64_t seed)
{
    struct cluster k;
    struct consensus_status s;
    cluster_init(&k, 3, seed);
    k.config.snapshot_log_bytes = 20000;
    k.config.trailing_log_bytes = 2000;
    for (unsigned i = 1; i <= 3; i++) k.nodes[i].padding = 2000; /* more than one piece on the wire */
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k), *slow = &k.nodes[n->id % 3 + 1];
    uint64_t v = 1;
    node_write(n, v);
    node_crash(slow, SIM_POWER);
    sim_run_for(k.sim, SECOND); /* it does not answer any more */
    while (v < 400) node_write_sized(n, ++v, 5000);
    node_boot(&k, slow->id);
    assert_true(sim_run_until(k.sim, receives, slow, 10 * SECOND));
    sim_cut(k.sim, n->id, slow->id, false); /* for a while */
    for (uint64_t first = snapshot_index(n); snapshot_index(n) == first;) node_write_sized(n, ++v, 20000);
    assert_true(receives(slow)); /* else this shows nothing */
    sim_heal_all(k.sim);
    assert_true(cluster_wait_value(&k, v, 0));
    consensus_get_status(slow->c, &s);
    assert_int_equal(s.snapshots_installed, 1);
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_one_is_enough(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) one_is_enough(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_behind),       cmocka_unit_test(test_one_behind),
        cmocka_unit_test(test_snapshot_on_its_way), cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_only_a_leader_knows), cmocka_unit_test(test_one_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
