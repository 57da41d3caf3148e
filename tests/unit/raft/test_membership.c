/* Members that come, go and move, over the simulated world: what consensus_change promises, through crashes, leader changes,
 * snapshots and roll-backs. */
#include "raft/frames_int.h"
#include "raft/join.h"
#include "tests/unit/raft/cluster.h"

struct change_wait {
    bool done;
    int error;
};

static void change_done(void *data, int error)
{
    struct change_wait *w = data;
    w->done = true;
    w->error = error;
}

static bool is_done(void *arg)
{
    return ((struct change_wait *)arg)->done;
}

/* How it ended; ERR_BUSY and a leader that has just changed are tried again, on whoever leads. */
static int change(struct cluster *k, struct consensus_change ch)
{
    for (int i = 0; i < 400; i++) {
        struct change_wait w = {0};
        struct node *n = cluster_wait_leader(k);
        int rv = consensus_change(n->c, &ch, change_done, &w);
        if (rv == 0) {
            assert_true(sim_run_until(k->sim, is_done, &w, 60 * SECOND));
            rv = w.error;
        }
        if (rv != ERR_BUSY && rv != ERR_NOT_LEADER && rv != ERR_LEADER_CHANGED) return rv;
        sim_run_for(k->sim, SECOND / 20);
    }
    return ERR_TIMEOUT;
}

static int add(struct cluster *k, uint64_t id, bool learner)
{
    return change(k, (struct consensus_change){
                         CONSENSUS_ADD, {.id = id, .peer_url = k->urls[id - 1], .learner = learner}});
}

static int on_member(struct cluster *k, enum consensus_change_op op, uint64_t id)
{
    return change(k, (struct consensus_change){op, {.id = id}});
}

static uint64_t snapshot_log_bytes; /* of the next cluster; 0 = the default */

/* A sim of five, of which the first `n` are a cluster. */
static void begin(struct cluster *k, unsigned n, uint64_t seed)
{
    cluster_init(k, CLUSTER_MAX, seed);
    k->config.n_members = n;
    k->config.snapshot_log_bytes = snapshot_log_bytes;
    for (unsigned i = 1; i <= n; i++) node_boot(k, i);
    cluster_wait_leader(k);
}

/* Starts a member that was added: it knows whom the flags name, itself included. */
static void join_at(struct cluster *k, uint64_t id, uint64_t members_index)
{
    struct consensus_config was = k->config;
    struct consensus_member all[CLUSTER_MAX];
    size_t n = 0;
    for (size_t i = 0; i < was.n_members; i++) all[n++] = k->members[i];
    if (id > was.n_members) {
        all[n] = k->members[id - 1];
        all[n++].learner = true;
    }
    k->config.members = all;
    k->config.n_members = n;
    k->config.new_cluster = false;
    k->config.members_index = members_index;
    node_boot(k, id);
    k->config = was;
}

static void join(struct cluster *k, uint64_t id)
{
    join_at(k, id, 0);
}

/* The index of the membership that a member answers with. */
static uint64_t asked(struct cluster *k, uint64_t id)
{
    struct buf b = {0};
    struct arena a = {0};
    struct join_cluster j;
    assert_true(sim_ask(k->sim, id, &b));
    assert_int_equal(join_decode(buf_slice(&b), &a, &j), 0);
    buf_release(&b);
    arena_release(&a);
    return j.index;
}

static void cut_off(struct cluster *k, uint64_t id)
{
    for (uint64_t other = 1; other <= CLUSTER_MAX; other++)
        if (other != id) sim_cut(k->sim, id, other, true), sim_cut(k->sim, other, id, true);
}

static struct node *other_than(struct cluster *k, const struct node *a, const struct node *b)
{
    for (unsigned i = 1; i <= 3; i++)
        if (&k->nodes[i] != a && &k->nodes[i] != b) return &k->nodes[i];
    return NULL;
}

struct wait_role {
    struct cluster *k;
    uint64_t on, id;
    bool voter;
};

static const struct consensus_member *member_on(struct node *n, uint64_t id)
{
    const struct consensus_member *m;
    size_t count = consensus_members(n->c, &m);
    for (size_t i = 0; i < count; i++)
        if (m[i].id == id) return &m[i];
    return NULL;
}

static bool has_role(void *arg)
{
    struct wait_role *w = arg;
    struct node *n = w->on ? &w->k->nodes[w->on] : cluster_leader(w->k);
    const struct consensus_member *m = n && n->c ? member_on(n, w->id) : NULL;
    return m && m->learner == !w->voter;
}

static void wait_voter(struct cluster *k, uint64_t on, uint64_t id)
{
    struct wait_role w = {k, on, id, true};
    assert_true(sim_run_until(k->sim, has_role, &w, 60 * SECOND));
}

static bool is_settled(void *arg)
{
    return is_fatal(arg) || is_whole(arg);
}

static void wait_removed(struct node *n)
{
    assert_true(sim_run_until(n->cluster->sim, is_fatal, n, 60 * SECOND));
    assert_int_equal(n->fatal_error, ERR_REMOVED);
    node_close(n);
}

static void stop(struct cluster *k)
{
    cluster_stop(k);
}

static void test_one_three_five_three(void **state)
{
    struct cluster k;
    uint64_t value = 1;
    (void)state;
    begin(&k, 1, 7);
    for (uint64_t id = 2; id <= 5; id++) {
        node_write(cluster_wait_leader(&k), value++);
        assert_int_equal(add(&k, id, false), 0);
        const struct consensus_member *m = member_on(cluster_leader(&k), id);
        assert_true(m->learner && m->promote);
        node_write(cluster_wait_leader(&k), value++); /* one that has not started yet holds up nobody */
        join(&k, id);
        wait_voter(&k, id, id);
        assert_false(member_on(&k.nodes[id], id)->promote);
    }
    node_write(cluster_wait_leader(&k), value);
    assert_true(cluster_wait_value(&k, value++, 0));
    assert_same_logs(&k);
    for (int i = 0; i < 2; i++) { /* whoever leads */
        struct node *leader = cluster_wait_leader(&k);
        assert_int_equal(on_member(&k, CONSENSUS_REMOVE, leader->id), 0);
        wait_removed(leader);
        node_write(cluster_wait_leader(&k), value++);
    }
    const struct consensus_member *m;
    assert_int_equal(consensus_members(cluster_leader(&k)->c, &m), 3);
    stop(&k);
}

static void test_learner(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 3, 11);
    assert_int_equal(add(&k, 4, true), 0);
    assert_int_equal(add(&k, 4, true), ERR_EXISTS);
    assert_int_equal(change(&k, (struct consensus_change){CONSENSUS_ADD, {.id = 5, .peer_url = k.urls[3]}}), ERR_EXISTS);
    assert_int_equal(change(&k, (struct consensus_change){CONSENSUS_ADD, {.id = 5, .peer_url = "a b"}}), ERR_INVALID);
    assert_int_equal(change(&k, (struct consensus_change){CONSENSUS_ADD, {.id = 5, .peer_url = "https://a:1"}}), ERR_INVALID);
    assert_int_equal(change(&k, (struct consensus_change){CONSENSUS_UPDATE, {.id = 4, .peer_url = "https://a:1"}}), ERR_INVALID);
    assert_int_equal(on_member(&k, CONSENSUS_PROMOTE, 4), ERR_AGAIN);
    assert_int_equal(on_member(&k, CONSENSUS_PROMOTE, 1), ERR_CONFLICT);
    assert_int_equal(on_member(&k, CONSENSUS_PROMOTE, 5), ERR_MEMBER_NOT_FOUND);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 5), ERR_MEMBER_NOT_FOUND);
    join(&k, 4);
    node_write(cluster_wait_leader(&k), 1);
    assert_true(cluster_wait_value(&k, 1, 1 << 4));
    sim_run_for(k.sim, 3 * SECOND);
    assert_true(member_on(cluster_leader(&k), 4)->learner); /* not by itself */
    assert_int_equal(on_member(&k, CONSENSUS_PROMOTE, 4), 0);
    wait_voter(&k, 4, 4);
    assert_int_equal(on_member(&k, CONSENSUS_PROMOTE, 4), ERR_CONFLICT);
    stop(&k);
}

/* The new member comes back on an empty folder of its own flags, by a snapshot, while the leader dies and everything restarts. */
static void test_promotion_survives(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 3, 13);
    k.config.snapshot_log_bytes = 64 * 1024;
    assert_int_equal(add(&k, 4, false), 0);
    struct node *leader = cluster_wait_leader(&k);
    node_crash(leader, SIM_POWER);
    leader->leads = false;
    cluster_wait_leader(&k);
    node_boot(&k, leader->id);
    for (uint64_t i = 1; i <= 3; i++) node_close(&k.nodes[i]), k.nodes[i].leads = false;
    for (uint64_t i = 1; i <= 3; i++) node_boot(&k, i);
    for (uint64_t i = 0; i < 40; i++) node_write_sized(cluster_wait_leader(&k), 100 + i, 20000);
    join(&k, 4);
    wait_voter(&k, 4, 4);
    assert_true(k.nodes[4].restores > 0);
    assert_true(cluster_wait_value(&k, 139, 0));
    assert_same_logs(&k);
    stop(&k);
}

/* A member that was down when it was removed is told when it comes back, and stays removed. */
static void test_removed_while_down(void **state)
{
    struct cluster k;
    struct err e = {{0}};
    (void)state;
    begin(&k, 3, 17);
    struct node *leader = cluster_wait_leader(&k), *gone = &k.nodes[leader->id % 3 + 1];
    node_crash(gone, SIM_KILL);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, gone->id), 0);
    node_write(cluster_wait_leader(&k), 1);
    node_boot(&k, gone->id);
    wait_removed(gone);
    assert_int_equal(node_try_boot(&k, gone->id, &e), ERR_REMOVED);
    assert_non_null(strstr(e.text, "removed from the cluster"));
    uint64_t term = cluster_wait_leader(&k)->term;
    sim_run_for(k.sim, 5 * SECOND);
    assert_int_equal(cluster_wait_leader(&k)->term, term); /* nobody was disturbed */
    stop(&k);
}

/* Its log stands still. */
static bool no_entries(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct frame f;
    (void)from;
    return to != *(uint64_t *)ctx || ch != ENV_CHANNEL_RAFT || frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_APPEND;
}

/* Who is removed while it is down comes back, and reaches only one in whose log it still is, but who has been told. Power fails at the
 * n-th disk operation of that start: then it is told in the next one. */
static bool crashed_while_told(unsigned nth)
{
    struct cluster k;
    struct err e = {{0}};
    begin(&k, 4, 17);
    struct node *leader = cluster_wait_leader(&k), *gone = &k.nodes[leader->id % 4 + 1];
    uint64_t behind = gone->id % 4 + 1;
    node_crash(gone, SIM_KILL);
    sim_on_frame(k.sim, no_entries, &behind);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, gone->id), 0);
    sim_run_for(k.sim, SECOND);
    for (uint64_t id = 1; id <= 4; id++)
        if (id != gone->id && id != behind) sim_cut(k.sim, id, gone->id, true), sim_cut(k.sim, gone->id, id, true);
    gone->crash_nth = nth;
    gone->crash_mode = SIM_POWER;
    int rv = node_try_boot(&k, gone->id, &e);
    if (rv == 0) (void)sim_run_until(k.sim, is_fatal, gone, 2 * SECOND);
    bool crashed = sim_env(k.sim, gone->id) != gone->env || (rv && rv != ERR_REMOVED);
    sim_crash_after(k.sim, gone->id, SIM_POWER, 0);
    sim_heal_all(k.sim);
    if (rv == 0) node_close(gone);
    rv = node_try_boot(&k, gone->id, &e);
    if (rv) assert_int_equal(rv, ERR_REMOVED);
    else if (!sim_run_until(k.sim, is_fatal, gone, 20 * SECOND)) fail_msg("operation %u: not told", nth);
    else wait_removed(gone);
    stop(&k);
    return crashed;
}

static void at_each_operation(bool (*crashed_at)(unsigned nth))
{
    unsigned nth = 1;
    while (crashed_at(nth)) nth++;
    print_message("# %u\n", nth);
    assert_true(nth > 3);
}

static void test_crash_while_told(void **state)
{
    (void)state;
    at_each_operation(crashed_while_told);
}

static void test_update(void **state)
{
    struct cluster k;
    struct consensus_change ch = {CONSENSUS_UPDATE, {.id = 2, .peer_url = "http://10.0.9.9:1"}};
    (void)state;
    begin(&k, 3, 19);
    assert_int_equal(change(&k, ch), 0);
    ch.member.peer_url = k.urls[2];
    assert_int_equal(change(&k, ch), ERR_EXISTS);
    ch.member.id = 9;
    assert_int_equal(change(&k, ch), ERR_MEMBER_NOT_FOUND);
    node_write(cluster_wait_leader(&k), 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    for (uint64_t i = 1; i <= 3; i++) {
        assert_string_equal(member_on(&k.nodes[i], 2)->peer_url, "http://10.0.9.9:1");
        assert_string_equal(member_on(&k.nodes[i], 2)->name, "n2");
    }
    for (uint64_t i = 1; i <= 3; i++) node_close(&k.nodes[i]), k.nodes[i].leads = false;
    for (uint64_t i = 1; i <= 3; i++) node_boot(&k, i);
    node_write(cluster_wait_leader(&k), 2);
    for (uint64_t i = 1; i <= 3; i++) assert_string_equal(member_on(&k.nodes[i], 2)->peer_url, "http://10.0.9.9:1");
    stop(&k);
}

/* A voter was away when another was added, and their leader dies: only the new one's log is long enough to win, and only with the
 * vote of the one whose log does not know it. */
static void test_unknown_candidate(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 3, 41);
    struct node *leader = cluster_wait_leader(&k), *away = &k.nodes[leader->id % 3 + 1];
    struct node *third = other_than(&k, leader, away), *added = &k.nodes[4];
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    cut_off(&k, away->id);
    assert_int_equal(add(&k, 4, false), 0);
    join(&k, 4);
    wait_voter(&k, 4, 4);
    node_write(leader, 2);
    assert_true(cluster_wait_value(&k, 2, 1u << third->id | 1u << 4));
    cut_off(&k, third->id);
    assert_int_equal(node_propose(leader, 3, 3), 0); /* to the new one's log only */
    sim_run_for(k.sim, SECOND / 5);
    node_crash(leader, SIM_POWER);
    leader->leads = false;
    sim_heal_all(k.sim);
    assert_true(sim_run_until(k.sim, has_leader, &k, 30 * SECOND));
    assert_ptr_equal(cluster_leader(&k), added);
    node_write(added, 4);
    assert_true(cluster_wait_value(&k, 4, 0));
    assert_true(node_has(away, 3));
    assert_same_logs(&k);
    stop(&k);
}

/* One that moved leads, and who was away has a log that knows the old URL only, where nobody listens any more. */
static void test_moved_leader(void **state)
{
    static const char moved[] = "http://10.0.9.9:1";
    struct cluster k;
    (void)state;
    begin(&k, 3, 43);
    struct node *leader = cluster_wait_leader(&k), *away = &k.nodes[leader->id % 3 + 1], *n = other_than(&k, leader, away);
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    node_close(away);
    assert_int_equal(change(&k, (struct consensus_change){CONSENSUS_UPDATE, {.id = n->id, .peer_url = moved}}), 0);
    node_write(leader, 2);
    assert_true(cluster_wait_value(&k, 2, 0));
    node_close(n);
    sim_listen(k.sim, n->id, moved, NULL);
    node_boot(&k, n->id);
    node_write(leader, 3);
    assert_true(cluster_wait_value(&k, 3, 0));
    struct change_wait w = {0};
    assert_int_equal(consensus_transfer(leader->c, n->id, change_done, &w), 0);
    assert_true(sim_run_until(k.sim, is_done, &w, 30 * SECOND));
    node_crash(leader, SIM_KILL);
    leader->leads = false;
    node_boot(&k, away->id);
    node_write(cluster_wait_leader(&k), 4);
    assert_true(cluster_wait_value(&k, 4, 0));
    assert_string_equal(member_on(away, n->id)->peer_url, moved);
    assert_same_logs(&k);
    stop(&k);
}

/* Who was down while all others were replaced knows nobody who is still there; those who are there call it. */
static void test_nobody_left(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 3, 45);
    struct node *leader = cluster_wait_leader(&k), *away = &k.nodes[leader->id % 3 + 1], *third = other_than(&k, leader, away);
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    node_crash(away, SIM_KILL);
    for (uint64_t id = 4; id <= 5; id++) {
        assert_int_equal(add(&k, id, false), 0);
        join(&k, id);
        wait_voter(&k, id, id);
    }
    uint64_t gone[2] = {third->id, leader->id};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(on_member(&k, CONSENSUS_REMOVE, gone[i]), 0);
        wait_removed(&k.nodes[gone[i]]);
    }
    node_write(cluster_wait_leader(&k), 2);
    node_boot(&k, away->id);
    node_crash(cluster_wait_leader(&k), SIM_KILL); /* and it is needed */
    for (uint64_t id = 4; id <= 5; id++)
        if (!k.nodes[id].c) k.nodes[id].leads = false;
    node_write(cluster_wait_leader(&k), 3);
    assert_true(cluster_wait_value(&k, 3, 0));
    assert_true(node_has(away, 2));
    assert_same_logs(&k);
    stop(&k);
}

/* Removed before it has heard anything of the others: who joins knows what it was told before it started, who was there from the
 * beginning that it was. */
static void test_removed_unheard(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 2, 47);
    k.config.n_members = 2;
    assert_int_equal(add(&k, 4, true), 0);
    cut_off(&k, 4);
    join_at(&k, 4, asked(&k, cluster_wait_leader(&k)->id));
    sim_run_for(k.sim, SECOND);
    node_close(&k.nodes[4]);
    join(&k, 4); /* the folder remembers */
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 4), 0);
    sim_run_for(k.sim, SECOND);
    sim_heal_all(k.sim);
    wait_removed(&k.nodes[4]);
    stop(&k);

    cluster_init(&k, 3, 48);
    cut_off(&k, 3);
    cluster_boot(&k);
    cluster_wait_leader(&k);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 3), 0);
    sim_run_for(k.sim, SECOND);
    sim_heal_all(k.sim);
    wait_removed(&k.nodes[3]);
    stop(&k);
}

static int read_nothing(void *ctx, struct buf *out, struct err *e)
{
    (void)ctx, (void)out, (void)e;
    return 0;
}

/* One that began alone, has grown and lost its disk begins another cluster, as its flags say; whoever of the first one reaches it
 * ends that. */
static void test_second_cluster(void **state)
{
    struct cluster k;
    struct err e = {{0}};
    (void)state;
    begin(&k, 1, 53);
    for (uint64_t id = 2; id <= 3; id++) {
        assert_int_equal(add(&k, id, false), 0);
        join_at(&k, id, asked(&k, 1));
        wait_voter(&k, id, id);
    }
    struct node *n = &k.nodes[1];
    struct consensus_config alone = k.config;
    for (uint64_t v = 1; v <= 20; v++) node_write(cluster_wait_leader(&k), v);
    node_crash(n, SIM_KILL);
    n->leads = false;
    sim_disk_wipe(k.sim, 1);
    cut_off(&k, 1);
    node_boot(&k, 1);
    sim_run_for(k.sim, 5 * SECOND);
    assert_true(n->leads); /* nobody can tell it */
    sim_heal_all(k.sim);
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_int_equal(n->fatal_error, ERR_RESTART);
    assert_non_null(strstr(n->fatal_text, "another cluster"));
    for (int starts = 0; n->fatal; starts++) {
        assert_true(starts < 5);
        assert_int_equal(n->fatal_error, ERR_RESTART);
        n->leads = false;
        node_close(n);
        node_boot(&k, 1);
        assert_true(sim_run_until(k.sim, is_settled, n, 60 * SECOND));
    }
    node_write(cluster_wait_leader(&k), 21);
    assert_true(cluster_wait_value(&k, 21, 0));
    assert_same_logs(&k);

    node_close(n);
    sim_disk_wipe(k.sim, 1);
    struct env *env = sim_boot(k.sim, 1);
    k.config = alone;
    k.config.id = 1;
    assert_int_equal(consensus_write_restored(&k.config, env, read_nothing, NULL, &e), 0);
    sim_release(env);
    node_boot(&k, 1); /* a backup: to begin anew is the purpose */
    sim_run_for(k.sim, 10 * SECOND);
    assert_true(n->leads && !n->fatal);
    stop(&k);
}

static int change_at(struct cluster *k, struct node *n, struct consensus_change ch)
{
    for (int i = 0; i < 400; i++) {
        struct change_wait w = {0};
        int rv = consensus_change(n->c, &ch, change_done, &w);
        if (rv == 0) {
            assert_true(sim_run_until(k->sim, is_done, &w, 60 * SECOND));
            rv = w.error;
        }
        if (rv != ERR_BUSY && rv != ERR_NOT_LEADER) return rv;
        sim_run_for(k->sim, SECOND / 20);
    }
    return ERR_TIMEOUT;
}

/* The other cluster has grown before anybody of the first one reaches it: its members are of a later index, and those of the first one are
 * not among them. They were never removed, though, whatever is at that index in the other one's log: another membership, or nothing any more. */
static void second_cluster_grows(bool compacts)
{
    struct cluster k;
    snapshot_log_bytes = compacts ? 2000 : 0;
    begin(&k, 1, 54);
    k.config.trailing_log_bytes = compacts ? 500 : 0;
    for (uint64_t id = 2; id <= 3; id++) {
        assert_int_equal(add(&k, id, false), 0);
        join_at(&k, id, asked(&k, 1));
        wait_voter(&k, id, id);
    }
    struct node *n = &k.nodes[1];
    node_write(cluster_wait_leader(&k), 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    uint64_t index = asked(&k, 2);
    node_crash(n, SIM_KILL);
    sim_disk_wipe(k.sim, 1);
    for (uint64_t id = 2; id <= 3; id++)
        for (uint64_t other = 1; other <= 4; other += 3) sim_cut(k.sim, id, other, true), sim_cut(k.sim, other, id, true);
    node_boot(&k, 1);
    sim_run_for(k.sim, 2 * SECOND);
    assert_true(n->leads);
    struct consensus_change ch = {CONSENSUS_ADD, {.id = 4, .peer_url = k.urls[3]}};
    assert_int_equal(change_at(&k, n, ch), 0);
    join_at(&k, 4, asked(&k, 1));
    wait_voter(&k, 1, 4);
    ch.op = CONSENSUS_UPDATE;
    for (unsigned i = 0; asked(&k, 1) <= index; i++) {
        ch.member.peer_url = i % 2 ? k.urls[3] : "http://10.0.9.9:1";
        assert_int_equal(change_at(&k, n, ch), 0);
    }
    for (uint64_t v = 100; compacts && v < 120; v++) node_write_sized(n, v, 500);
    assert_true(!compacts || status_of(n).snapshots_taken > 0);
    sim_heal_all(k.sim);
    sim_run_for(k.sim, 10 * SECOND);
    for (uint64_t id = 2; id <= 3; id++) {
        if (k.nodes[id].fatal) fail_msg("%s", k.nodes[id].fatal_text);
        assert_true(node_has(&k.nodes[id], 1));
    }
    assert_true(k.nodes[2].leads || k.nodes[3].leads);
    snapshot_log_bytes = 0;
    stop(&k);
}

static void test_second_cluster_grows(void **state)
{
    (void)state;
    second_cluster_grows(false);
    second_cluster_grows(true);
}

/* Reached while it is alone, and nobody remembers more of the first one's life than how often it was started; power fails at the n-th disk operation
 * once it has been reached. */
static bool crashed_while_second_ends(unsigned nth)
{
    struct cluster k;
    struct err e = {{0}};
    begin(&k, 1, 53);
    for (uint64_t id = 2; id <= 3; id++) {
        assert_int_equal(add(&k, id, false), 0);
        join_at(&k, id, asked(&k, 1));
        wait_voter(&k, id, id);
    }
    struct node *n = &k.nodes[1];
    for (uint64_t v = 1; v <= 20; v++) node_write(cluster_wait_leader(&k), v);
    node_crash(n, SIM_KILL);
    n->leads = false;
    sim_disk_wipe(k.sim, 1);
    cut_off(&k, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        node_close(&k.nodes[id]);
        join_at(&k, id, 0);
    }
    for (int starts = 0; starts < 3; starts++) {
        if (n->c) node_close(n);
        node_boot(&k, 1);
        sim_run_for(k.sim, 2 * SECOND);
    }
    assert_true(n->leads);
    n->leads = false;
    cluster_wait_leader(&k);
    sim_heal_all(k.sim);
    sim_crash_after(k.sim, 1, SIM_POWER, nth);
    (void)sim_run_until(k.sim, is_fatal, n, 10 * SECOND);
    bool crashed = sim_env(k.sim, 1) != n->env;
    sim_crash_after(k.sim, 1, SIM_POWER, 0);
    for (int starts = 0; !n->c || !is_whole(n) || !node_has(n, 20); starts++) {
        if (starts >= 6) fail_msg("operation %u: still another cluster", nth);
        if (n->c) node_close(n);
        if (node_try_boot(&k, 1, &e) == 0) (void)sim_run_until(k.sim, is_fatal, n, 10 * SECOND);
    }
    node_write(cluster_wait_leader(&k), 21);
    assert_true(cluster_wait_value(&k, 21, 0));
    assert_same_logs(&k);
    stop(&k);
    return crashed;
}

static void test_crash_while_second_ends(void **state)
{
    (void)state;
    at_each_operation(crashed_while_second_ends);
}

static bool other_leads(void *arg)
{
    struct cluster *k = arg;
    for (unsigned i = 1; i <= k->n; i++)
        if (k->nodes[i].c && k->nodes[i].leads && k->nodes[i].term > k->pad) return true;
    return false;
}

/* The leader alone has the change in its log; the others elect another. Its entry is taken back, also across a restart. */
static void taken_back(bool restart, bool remove)
{
    struct cluster k;
    begin(&k, 3, 23 + restart + 2 * remove);
    struct node *old = cluster_wait_leader(&k);
    uint64_t victim = old->id % 3 + 1;
    k.pad = old->term;
    for (uint64_t i = 1; i <= 3; i++)
        if (i != old->id) sim_cut(k.sim, old->id, i, true), sim_cut(k.sim, i, old->id, true);
    struct change_wait w = {0};
    struct consensus_change ch = {remove ? CONSENSUS_REMOVE : CONSENSUS_ADD,
                                  {.id = remove ? victim : 4, .peer_url = k.urls[3]}};
    assert_int_equal(consensus_change(old->c, &ch, change_done, &w), 0);
    assert_true(sim_run_until(k.sim, other_leads, &k, 30 * SECOND));
    assert_true(sim_run_until(k.sim, is_done, &w, 60 * SECOND));
    assert_true(w.error != 0);
    const struct consensus_member *m;
    assert_int_equal(consensus_members(old->c, &m), 3);
    if (restart) {
        node_crash(old, SIM_POWER);
        old->leads = false;
        node_boot(&k, old->id);
        sim_run_for(k.sim, SECOND);
        assert_int_equal(consensus_members(old->c, &m), 3);
    }
    node_write(cluster_wait_leader(&k), 5);
    for (uint64_t i = 1; i <= 3; i++)
        if (i != old->id) sim_heal(k.sim, old->id, i), sim_heal(k.sim, i, old->id);
    assert_true(cluster_wait_value(&k, 5, 0));
    assert_false(old->fatal);
    assert_int_equal(consensus_members(old->c, &m), 3);
    assert_int_equal(add(&k, 4, true), 0); /* and changes go on */
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 4), 0);
    node_write(cluster_wait_leader(&k), 6);
    assert_true(cluster_wait_value(&k, 6, 0));
    stop(&k);
}

static void test_taken_back(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) taken_back(i & 1, i & 2);
}

/* A single member promotes a second one and dies before the other has the entry: the second has to vote although its own log
 * makes it a learner. */
static void test_learner_votes(void **state)
{
    struct cluster k;
    (void)state;
    begin(&k, 1, 31);
    assert_int_equal(add(&k, 2, true), 0);
    join(&k, 2);
    node_write(&k.nodes[1], 1);
    assert_true(cluster_wait_value(&k, 1, 1 << 2));
    sim_run_for(k.sim, SECOND);
    struct change_wait w = {0};
    sim_cut(k.sim, 1, 2, true);
    assert_int_equal(consensus_change(k.nodes[1].c, &(struct consensus_change){CONSENSUS_PROMOTE, {.id = 2}},
                                      change_done, &w), 0);
    sim_run_for(k.sim, SECOND / 5);
    node_crash(&k.nodes[1], SIM_KILL);
    k.nodes[1].leads = false;
    sim_heal(k.sim, 1, 2);
    node_boot(&k, 1);
    cluster_wait_leader(&k);
    node_write(cluster_leader(&k), 2);
    assert_true(cluster_wait_value(&k, 2, 0));
    wait_voter(&k, 2, 2);
    stop(&k);
}

/* A member's power fails at its n-th disk operation while members come, are promoted and go, and snapshots are taken; it starts
 * again at once. Whatever it had: the changes are made, all agree, and nothing that was written is lost. */
static bool crash_during_changes(unsigned nth, bool leads)
{
    static struct change_wait waits[512]; /* one that nobody waits for any more may still end */
    size_t n_waits = 0;
    struct cluster k;
    memset(waits, 0, sizeof waits);
    snapshot_log_bytes = 2000;
    begin(&k, 3, 100 + nth);
    snapshot_log_bytes = 0;
    struct node *leader = cluster_wait_leader(&k), *victim = leads ? leader : &k.nodes[leader->id % 3 + 1];
    static const struct consensus_change steps[] = {{CONSENSUS_ADD, {.id = 4, .learner = true}},
                                                    {CONSENSUS_REMOVE, {.id = 4}},
                                                    {CONSENSUS_ADD, {.id = 5, .learner = true}},
                                                    {CONSENSUS_UPDATE, {.id = 5}}};
    uint64_t value = 1;
    bool crashed = false;
    sim_crash_after(k.sim, victim->id, SIM_POWER, nth);
    for (size_t i = 0; i < 4; i++) {
        struct consensus_change ch = steps[i];
        ch.member.peer_url = i == 3 ? "http://10.0.0.99:1" : k.urls[ch.member.id - 1];
        for (;;) { /* a leader that dies knows nothing of it any more: the next one is asked, and may find it done */
            assert_true(n_waits < sizeof waits / sizeof waits[0]);
            struct change_wait *w = &waits[n_waits++];
            for (int tries = 0; !cluster_leader(&k) && tries < 20000 && sim_env(k.sim, victim->id); tries++) sim_step(k.sim);
            struct node *n = cluster_leader(&k);
            int rv = n && sim_env(k.sim, n->id) ? consensus_change(n->c, &ch, change_done, w) : ERR_NO_LEADER;
            for (int tries = 0; rv == 0 && !w->done && sim_env(k.sim, victim->id) && tries < 200000; tries++) sim_step(k.sim);
            if (!sim_env(k.sim, victim->id)) {
                crashed = true;
                victim->leads = false;
                node_close(victim);
                node_boot(&k, victim->id);
                rv = ERR_NO_LEADER;
            } else if (rv == 0) {
                rv = w->error;
            }
            bool done = rv == 0 || (ch.op == CONSENSUS_ADD && rv == ERR_EXISTS) ||
                        (ch.op == CONSENSUS_REMOVE && rv == ERR_MEMBER_NOT_FOUND);
            if (done) break;
            sim_run_for(k.sim, SECOND / 50);
        }
        for (int j = 0; j < 3; j++) {
            struct node *n = cluster_wait_leader(&k);
            if (sim_env(k.sim, n->id) && sim_env(k.sim, victim->id) && node_propose_sized(n, value, value, 500) == 0) value++;
            sim_run_for(k.sim, SECOND / 50);
            if (sim_env(k.sim, victim->id)) continue;
            crashed = true;
            victim->leads = false;
            node_close(victim);
            node_boot(&k, victim->id);
        }
    }
    sim_crash_after(k.sim, victim->id, SIM_POWER, 0);
    sim_run_for(k.sim, SECOND);
    node_write(cluster_wait_leader(&k), 1000);
    if (!cluster_wait_value(&k, 1000, 0)) fail_msg("operation %u", nth);
    assert_same_logs(&k);
    for (uint64_t id = 1; id <= 3; id++) {
        const struct consensus_member *m;
        assert_false(k.nodes[id].fatal);
        assert_int_equal(consensus_members(k.nodes[id].c, &m), 4);
        assert_null(member_on(&k.nodes[id], 4));
        assert_string_equal(member_on(&k.nodes[id], 5)->peer_url, "http://10.0.0.99:1");
    }
    stop(&k);
    return crashed;
}

static void test_crash_at_each_operation(void **state)
{
    (void)state;
    unsigned nth[2] = {0, 0};
    for (int leads = 0; leads < 2; leads++)
        while (crash_during_changes(nth[leads] + 1, leads)) nth[leads]++;
    assert_true(nth[0] > 20 && nth[1] > 20);
}

/* Nobody can be removed who is the last voter, and a change needs a leader. */
static void test_refused(void **state)
{
    struct cluster k;
    struct change_wait w = {0};
    (void)state;
    begin(&k, 1, 37);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 1), ERR_INVALID);
    assert_int_equal(add(&k, 2, true), 0);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 1), ERR_INVALID);
    join(&k, 2);
    struct consensus_change ch = {CONSENSUS_REMOVE, {.id = 2}};
    assert_int_equal(consensus_change(k.nodes[2].c, &ch, change_done, &w), ERR_NOT_LEADER);
    assert_int_equal(consensus_change(k.nodes[1].c, &ch, change_done, &w), 0);
    assert_int_equal(consensus_change(k.nodes[1].c, &ch, change_done, &w), ERR_BUSY);
    assert_true(sim_run_until(k.sim, is_done, &w, 60 * SECOND));
    assert_int_equal(w.error, 0);
    stop(&k);
}

struct first_lost {
    uint64_t to;
    unsigned lost[CLUSTER_MAX + 1];
};

/* What is said when one of the two connections comes up may have no way yet: the first two tellings do not arrive. */
static bool first_members_lost(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct first_lost *l = ctx;
    struct frame f;
    if (to != l->to || ch != ENV_CHANNEL_RAFT || frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_MEMBERS) return true;
    return l->lost[from]++ >= 2;
}

/* Its flags name one who is gone, and not the one who came: it must not wait for the former. */
static void test_folder_lost_after_a_change(void **state)
{
    struct cluster k;
    struct first_lost lost = {0};
    (void)state;
    begin(&k, 3, 11);
    assert_int_equal(add(&k, 4, false), 0);
    join(&k, 4);
    wait_voter(&k, 4, 4);
    assert_int_equal(on_member(&k, CONSENSUS_REMOVE, 3), 0);
    wait_removed(&k.nodes[3]);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id == 1 ? 2 : 1];
    node_write(leader, 7);
    node_close(n);
    sim_disk_wipe(k.sim, n->id);
    sim_on_frame(k.sim, first_members_lost, &lost);
    for (int starts = 0; !n->c || !is_whole(n); starts++) {
        assert_true(starts < 5);
        lost = (struct first_lost){.to = n->id};
        node_boot(&k, n->id);
        assert_true(sim_run_until(k.sim, is_settled, n, 60 * SECOND));
        if (!n->fatal) continue;
        assert_int_equal(n->fatal_error, ERR_RESTART);
        node_close(n);
    }
    sim_on_frame(k.sim, NULL, NULL);
    assert_true(node_has(n, 7));
    assert_non_null(member_on(n, 4));
    assert_null(member_on(n, 3));
    stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_three_five_three), cmocka_unit_test(test_learner),
        cmocka_unit_test(test_promotion_survives),   cmocka_unit_test(test_removed_while_down),
        cmocka_unit_test(test_update),               cmocka_unit_test(test_taken_back),
        cmocka_unit_test(test_learner_votes),        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unknown_candidate),    cmocka_unit_test(test_moved_leader),
        cmocka_unit_test(test_removed_unheard),      cmocka_unit_test(test_second_cluster),
        cmocka_unit_test(test_nobody_left),          cmocka_unit_test(test_crash_while_told),
        cmocka_unit_test(test_crash_while_second_ends), cmocka_unit_test(test_second_cluster_grows),
        cmocka_unit_test(test_crash_at_each_operation), cmocka_unit_test(test_folder_lost_after_a_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
