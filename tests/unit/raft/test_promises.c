/* Promises between members, each with the few steps after which breaking it would show: two leaders in one term, a read that is
 * older than a write, a log that is another one on another member. Chance comes to them too seldom (docs/mutants.md). */
#include "cluster.h"
#include "raft/consensus_int.h"
#include "raft/frames_int.h"

#define WRITTEN 777u /* the value that it is about */

static struct node *other_leader(struct cluster *k, uint64_t than)
{
    for (unsigned i = 1; i <= k->n; i++)
        if (i != than && k->nodes[i].c && k->nodes[i].leads) return &k->nodes[i];
    return NULL;
}

static bool other_leads(void *arg)
{
    const struct node *than = arg;
    return other_leader(than->cluster, than->id) != NULL;
}

static struct node *wait_other_leader(struct node *than)
{
    assert_true(sim_run_until(than->cluster->sim, other_leads, than, 30 * SECOND));
    return other_leader(than->cluster, than->id);
}

static void ended_with(void *data, int error)
{
    *(int *)data = error ? error : 1;
}

static void make_leader(struct cluster *k, struct node *n)
{
    static int ended;
    for (int i = 0; !n->leads && i < 20; i++) {
        struct node *now = cluster_wait_leader(k);
        int rv = now == n ? 0 : consensus_transfer(now->c, n->id, ended_with, &ended);
        assert_true(rv == 0 || rv == ERR_BUSY);
        sim_run_for(k->sim, 2 * SECOND);
    }
    assert_true(n->leads);
}

/* `n` members of five, of which the first leads, and does not see for a minute that it has been deposed. The others keep nothing that
 * a snapshot covers. */
static void begin(struct cluster *k, unsigned n, uint64_t seed)
{
    cluster_init(k, CLUSTER_MAX, seed);
    k->config.n_members = n;
    k->config.election_ms = 60000;
    node_boot(k, 1);
    k->config.election_ms = 500;
    k->config.trailing_log_bytes = 1;
    for (unsigned i = 2; i <= n; i++) node_boot(k, i);
    k->config.trailing_log_bytes = 0;
    make_leader(k, &k->nodes[1]);
    node_write(&k->nodes[1], 1);
    assert_true(cluster_wait_value(k, 1, 0));
}

/* ---- one vote a term ------------------------------------------------------------------------------- */

struct ballot {
    uint64_t voter, first, term; /* whom it has voted for first, and when */
    bool twice;
};

/* It does not stand itself, and the first one it votes for is heard by it no more. */
static bool first_vote(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct ballot *b = ctx;
    struct frame f;
    (void)ch;
    if (frame_decode(bytes, &f, NULL) != 0) return true;
    bool vote = f.kind == FRAME_VOTE_RESULT && f.vote_result.vote_granted && f.vote_result.pre_vote != raft_tribool_true;
    if (from == b->voter && vote && b->first) b->twice |= to != b->first && f.vote_result.term == b->term;
    if (from == b->voter && vote && !b->first) b->first = to, b->term = f.vote_result.term;
    return !(from == b->voter && f.kind == FRAME_VOTE) && !(to == b->voter && from == b->first && f.kind == FRAME_APPEND);
}

static bool has_voted(void *arg)
{
    return ((struct ballot *)arg)->first != 0;
}

/* Two that do not hear each other stand in one term; the third votes for one, loses its power, and is asked by the other. */
static void one_vote(uint64_t seed)
{
    struct cluster k;
    cluster_start(&k, 3, seed);
    struct node *n = cluster_wait_leader(&k);
    node_write(n, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    uint64_t a_id = n->id % 3 + 1, b_id = a_id % 3 + 1;
    sim_cut(k.sim, a_id, b_id, true);
    sim_cut(k.sim, b_id, a_id, true);
    node_crash(n, SIM_KILL);
    struct ballot ballot = {.voter = n->id};
    sim_on_frame(k.sim, first_vote, &ballot);
    node_boot(&k, n->id);
    assert_true(sim_run_until(k.sim, has_voted, &ballot, 30 * SECOND));
    struct node *a = &k.nodes[ballot.first];
    sim_run_for(k.sim, SECOND / 20); /* its vote arrives */
    node_crash(n, SIM_POWER);
    (void)node_propose(a, 2, 2); /* the same place in the log, and the same term if it were to vote again */
    sim_partition(k.sim, (uint64_t)1 << a->id, true);
    node_boot(&k, n->id);
    struct node *next = wait_other_leader(a);
    assert_false(ballot.twice);
    node_write(next, WRITTEN);
    node_crash(next, SIM_KILL);
    next->leads = false;
    sim_on_frame(k.sim, NULL, NULL);
    sim_heal_all(k.sim);
    struct node *leader = cluster_wait_leader(&k);
    node_write(leader, 3);
    assert_true(node_has(leader, WRITTEN));
    node_boot(&k, next->id);
    assert_true(cluster_wait_value(&k, 3, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* Whether the other asks in the same term is a matter of chance. */
static void test_one_vote(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) one_vote(seed);
}

/* ---- reads and learners ---------------------------------------------------------------------------- */

static void add_learner(struct cluster *k, uint64_t id)
{
    int ended = 0;
    struct consensus_change add = {CONSENSUS_ADD, {.id = id, .name = k->names[id - 1], .peer_url = k->urls[id - 1], .learner = true}};
    assert_int_equal(consensus_change(cluster_leader(k)->c, &add, ended_with, &ended), 0);
    for (int i = 0; i < 100000 && !ended; i++) sim_step(k->sim);
    assert_int_equal(ended, 1);
}

static void start_learner(struct cluster *k, uint64_t id)
{
    struct consensus_config was = k->config;
    k->config.n_members = id;
    k->config.new_cluster = false;
    k->members[id - 1].learner = true;
    node_boot(k, id);
    k->config = was;
}

static void read_ends(struct consensus_read *r, int error)
{
    ended_with(r->data, error);
}

/* A deposed leader has two learners with it, and asks whether it still leads: the voters would know better. */
static void test_learners_confirm_nothing(void **state)
{
    (void)state;
    struct cluster k;
    int read = 0;
    begin(&k, 3, 92);
    struct node *old = &k.nodes[1];
    for (uint64_t id = 4; id <= 5; id++) {
        add_learner(&k, id);
        start_learner(&k, id);
    }
    node_write(old, 2);
    assert_true(cluster_wait_value(&k, 2, 0));
    sim_partition(k.sim, (uint64_t)1 << 2 | (uint64_t)1 << 3, true);
    node_write(wait_other_leader(old), WRITTEN);
    assert_true(old->leads); /* as it believes */
    struct consensus_read r = {.done = read_ends, .data = &read};
    consensus_read(old->c, &r);
    sim_run_for(k.sim, 2 * SECOND);
    assert_false(node_has(old, WRITTEN));
    assert_int_not_equal(read, 1);
    sim_heal_all(k.sim);
    for (int i = 0; i < 20 && !read; i++) sim_run_for(k.sim, SECOND);
    assert_true(read != 1 || node_has(old, WRITTEN));
    assert_true(cluster_wait_value(&k, WRITTEN, 0));
    cluster_stop(&k);
}

/* ---- "never sent" ------------------------------------------------------------------------------------ */

static const struct env_ops *whole;
static struct env_ops breaking;
static void (*sent)(struct env_send *s);

static void sent_but_broken(struct env_send *s)
{
    s->status = ERR_CLOSED;
    sent(s);
}

/* The connection breaks after a proposal has got through, and before its sender knows. */
static void send_breaking(struct env *e, struct env_send *s)
{
    if (s->iov[0].len > 1 && s->iov[0].data[1] == FRAME_PROPOSE) {
        sent = s->done;
        s->done = sent_but_broken;
    }
    whole->send(e, s);
}

static void test_lost_connection(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 93);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    whole = n->env->ops;
    breaking = *whole;
    breaking.send = send_breaking;
    n->env->ops = &breaking;
    assert_int_equal(node_propose(n, WRITTEN, WRITTEN), 0);
    assert_true(cluster_wait_value(&k, WRITTEN, 0));
    assert_int_equal(n->failed_tag, WRITTEN);
    assert_int_equal(n->failed_error, ERR_LEADER_CHANGED); /* not ERR_NO_LEADER: that it is in no log */
    n->env->ops = whole;
    cluster_stop(&k);
}

/* ---- what a snapshot replaces -------------------------------------------------------------------------- */

struct install {
    struct cluster *k;
    uint64_t id;
    unsigned nth;
    bool began;
};

static void on_install(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice frame, int op,
                       const char *path)
{
    struct install *i = ctx;
    (void)other, (void)frame;
    if (what != SIM_DISK || id != i->id || op != ENV_IO_RENAME || strncmp(path, "snap/", 5) || i->began) return;
    i->began = true;
    sim_crash_after(i->k->sim, id, SIM_POWER, i->nth);
}

static bool has_snapshot(void *arg)
{
    const struct node *n = arg;
    return status_of(n).snapshot_index > 5;
}

static void wait_snapshot(struct node *n)
{
    assert_true(sim_run_until(n->cluster->sim, has_snapshot, n, 30 * SECOND));
}

static bool is_gone(void *arg)
{
    const struct node *n = arg;
    return sim_env(n->cluster->sim, n->id) != n->env;
}

/* A leader writes on alone, far enough to reach the snapshot that replaces it; while that is installed its power fails, at the
 * `nth` operation of its disk from the rename on. Later it leads: what it sends to one that was away is what all have. */
static void replaced_history(uint64_t seed, unsigned nth)
{
    struct cluster k;
    begin(&k, 5, seed);
    struct node *old = &k.nodes[1], *away = &k.nodes[5];
    node_write(old, 2);
    assert_true(cluster_wait_value(&k, 2, 0));
    node_crash(away, SIM_KILL);
    sim_partition(k.sim, (uint64_t)1 << old->id, true);
    for (uint64_t v = 1000; v < 1040; v++)
        for (int i = 0; node_propose(old, v, v) != 0 && i < 1000; i++) sim_run_for(k.sim, 1000);
    struct node *leader = wait_other_leader(old);
    for (uint64_t v = 2000; v < 2020; v++) node_write(leader, v);
    for (unsigned i = 2; i <= 4; i++) assert_int_equal(consensus_snapshot(k.nodes[i].c), 0);
    node_write(leader, 2020);
    for (unsigned i = 2; i <= 4; i++) wait_snapshot(&k.nodes[i]);
    assert_true(status_of(old).last_index > status_of(leader).last_index);
    struct install install = {&k, old->id, nth, false};
    sim_on_moment(k.sim, on_install, &install);
    sim_heal_all(k.sim);
    if (sim_run_until(k.sim, is_gone, old, 10 * SECOND)) {
        node_close(old);
        node_boot(&k, old->id);
    }
    sim_crash_after(k.sim, old->id, SIM_KILL, 0);
    assert_true(install.began);
    assert_true(cluster_wait_value(&k, 2020, 0));
    make_leader(&k, old);
    node_boot(&k, away->id);
    node_write(old, WRITTEN);
    assert_true(cluster_wait_value(&k, WRITTEN, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_replaced_history(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        for (unsigned nth = 1; nth <= 4; nth++) replaced_history(10 * seed + nth, nth);
}

/* A change of the members that a member is told of by a snapshot only, and not by its first one. */
static void test_members_of_a_snapshot(void **state)
{
    (void)state;
    const struct consensus_member *all;
    struct cluster k;
    cluster_init(&k, CLUSTER_MAX, 95);
    k.config.n_members = 3;
    k.config.trailing_log_bytes = 1;
    for (unsigned i = 1; i <= 3; i++) node_boot(&k, i);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    for (uint64_t v = 1; v <= 9; v++) node_write(leader, v);
    assert_int_equal(consensus_snapshot(n->c), 0);
    node_write(leader, 10);
    wait_snapshot(n);
    node_close(n);
    node_boot(&k, n->id);
    assert_true(cluster_wait_value(&k, 10, 0));
    sim_partition(k.sim, (uint64_t)1 << n->id, true);
    add_learner(&k, 4);
    for (uint64_t v = 11; v <= 40; v++) {
        node_write(leader, v);
        if (v % 10 == 0) assert_int_equal(consensus_snapshot(leader->c), 0);
        sim_run_for(k.sim, SECOND / 10);
    }
    sim_heal_all(k.sim);
    assert_true(cluster_wait_value(&k, 40, 0));
    assert_true(status_of(n).snapshots_installed > 0);
    assert_int_equal(consensus_members(n->c, &all), 4);
    /* Not because the others say so: it is what counts again when a change of the members is cut off behind it. */
    struct raft_configuration committed;
    (void)guard_committed_configuration(&n->c->guard, &committed);
    assert_int_equal(committed.n, 4);
    raft_configuration_close(&committed);
    cluster_stop(&k);
}

/* ---- the mark ---------------------------------------------------------------------------------------- */

/* A single member's power fails while its slow disk writes an entry, and the mark beside the log: it opens, with all it had applied. */
static void marked(uint64_t seed)
{
    struct cluster k;
    cluster_init(&k, 1, seed);
    sim_disk(k.sim)->sync_min_us = SECOND / 50;
    sim_disk(k.sim)->sync_max_us = SECOND / 10;
    node_boot(&k, 1);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 10 + seed % 7; v++) {
        for (int i = 0; node_propose(n, v, v) != 0 && i < 10000; i++) sim_run_for(k.sim, 1000);
        sim_run_for(k.sim, 1000 * (7 * v * seed % 41));
    }
    sim_run_for(k.sim, 1000 * (37 * seed % 97));
    uint64_t applied = n->n ? n->log[n->n - 1].value : 0;
    node_crash(n, SIM_POWER);
    n->leads = false;
    node_boot(&k, 1);
    node_write(cluster_wait_leader(&k), WRITTEN);
    assert_true(n->n > applied);
    for (uint64_t v = 1; v <= applied; v++) assert_int_equal(n->log[v - 1].value, v);
    cluster_stop(&k);
}

static void test_mark(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 80; seed++) marked(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_vote),
        cmocka_unit_test(test_learners_confirm_nothing),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_replaced_history),
        cmocka_unit_test(test_members_of_a_snapshot),
        cmocka_unit_test(test_mark),
    };
    return cmocka_run_group_tests_name("promises", tests, NULL, NULL);
}
