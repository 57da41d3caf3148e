/* A member whose state is not to be believed, while the others quarrel: each step in its place, up to where a write that was
 * acknowledged would be lost if the member took part too early (raft/heal.c; docs/mutants.md names the mistakes). */
#include "cluster.h"
#include "raft/frames_int.h"

#define ACKED 777u /* the value that must not be lost */

static bool leads(void *arg)
{
    return ((struct node *)arg)->leads;
}

static void cut(struct cluster *k, const struct node *a, const struct node *b)
{
    sim_cut(k->sim, a->id, b->id, true);
    sim_cut(k->sim, b->id, a->id, true);
}

static void heal(struct cluster *k, const struct node *a, const struct node *b)
{
    sim_heal(k->sim, a->id, b->id);
    sim_heal(k->sim, b->id, a->id);
}

/* All is mended and everybody runs: what was acknowledged is there, on each of them. */
static void nothing_is_lost(struct cluster *k, struct node *n)
{
    sim_on_frame(k->sim, NULL, NULL);
    sim_heal_all(k->sim);
    sim_run_for(k->sim, 5 * SECOND);
    keep_starting(k, n);
    struct node *leader = cluster_wait_leader(k);
    node_write(leader, ACKED + 1);
    assert_true(node_has(leader, ACKED));
    assert_true(cluster_wait_value(k, ACKED + 1, 0));
    assert_same_logs(k);
    cluster_stop(k);
}

/* ---- half healed ----------------------------------------------------------------------------------- */

struct gap {
    uint64_t to, index;
};

/* No entry from this one on reaches that member. */
static bool all_before(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    const struct gap *g = ctx;
    struct frame f;
    (void)from, (void)ch;
    if (to != g->to || frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_APPEND) return true;
    return f.append.n == 0 || f.append.prev_index + f.append.n < g->index;
}

static bool half_healed(void *arg)
{
    const struct node *n = arg;
    return status_of(n).last_index > 8 && n->leader != 0;
}

/* The leader and one more have an entry. That one loses its log, and has got back what lies before the entry when the leader
 * dies. The third has as much: it must not become leader with the vote of the one that has forgotten what it acknowledged. */
static void test_half_healed(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 61);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *third = &k.nodes[n->id % 3 + 1];
    for (uint64_t v = 1; v <= 10; v++) node_write_sized(leader, v, 400000); /* several frames */
    assert_true(cluster_wait_value(&k, 10, 0));
    node_crash(third, SIM_KILL);
    node_write(leader, ACKED);
    assert_true(cluster_wait_value(&k, ACKED, 0));
    struct gap gap = {.to = n->id, .index = status_of(leader).last_index};
    sim_on_frame(k.sim, all_before, &gap);
    consensus_distrust(n->c, "for the test");
    node_close(n);
    node_boot(&k, n->id);
    assert_true(sim_run_until(k.sim, half_healed, n, 20 * SECOND));
    node_crash(leader, SIM_KILL);
    leader->leads = false;
    node_boot(&k, third->id);
    (void)sim_run_until(k.sim, leads, third, 20 * SECOND);
    node_boot(&k, leader->id);
    nothing_is_lost(&k, n);
}

/* ---- a promise that is forgotten ------------------------------------------------------------------- */

static void no_change(void *data, int error)
{
    (void)data, (void)error;
}

static bool one_of_two_leads(void *arg)
{
    const struct cluster *k = arg;
    return k->nodes[2].leads || k->nodes[3].leads;
}

/* A member votes for the next leader, whom only it can hear, and loses its disk. It hears the leader before, who knows nothing of
 * that, and must not store for it: what the two have would be overwritten by the next leader. */
static void test_forgotten_promise(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 62);
    k.config.election_ms = 60000; /* the first one does not see that it was deposed */
    node_boot(&k, 1);
    k.config.election_ms = 500;
    node_boot(&k, 2);
    node_boot(&k, 3);
    struct node *before = &k.nodes[1], *now = cluster_wait_leader(&k);
    if (now != before) assert_int_equal(consensus_transfer(now->c, 1, no_change, NULL), 0);
    assert_true(sim_run_until(k.sim, leads, before, 20 * SECOND));
    node_write(before, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    cut(&k, before, &k.nodes[2]);
    cut(&k, before, &k.nodes[3]);
    assert_true(sim_run_until(k.sim, one_of_two_leads, &k, 20 * SECOND));
    now = k.nodes[2].leads ? &k.nodes[2] : &k.nodes[3];
    struct node *n = &k.nodes[5 - now->id];
    cut(&k, now, n);
    node_crash(n, SIM_POWER);
    sim_disk_wipe(k.sim, n->id);
    heal(&k, before, n);
    assert_int_equal(node_propose(before, ACKED, ACKED), 0);
    for (int i = 0; i < 3; i++) {
        if (!n->c) node_boot(&k, n->id);
        (void)sim_run_until(k.sim, is_fatal, n, 5 * SECOND);
        if (n->fatal) node_close(n);
    }
    assert_false(node_has(before, ACKED)); /* the leader of the later term has nothing of it, and overwrites it */
    heal(&k, now, n);
    heal(&k, now, before);
    keep_starting(&k, n);
    node_write(cluster_wait_leader(&k), ACKED);
    nothing_is_lost(&k, n);
}

/* ---- a promise to a learner ------------------------------------------------------------------------- */

struct late_vote {
    struct cluster *k;
    bool elected; /* 1 */
    bool lost;    /* the disk of 3 */
    struct buf word; /* 4 asks 2 for its vote, and that is late */
};

/* 3 leads, and only 4 hears it; then 1 leads with the vote of 2, who does not hear it; then 4 stands. */
static bool out_of_step(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct late_vote *l = ctx;
    struct frame f;
    (void)ch;
    if (frame_decode(bytes, &f, NULL) != 0) return true;
    l->elected |= f.kind == FRAME_APPEND && from == 1;
    if (f.kind == FRAME_APPEND) return (from == 3 && to == 4) || (from == 1 && to == 3 && l->lost);
    if (f.kind != FRAME_VOTE) return true;
    if (from == 1) return to == 2;
    if (from != 4 || to == 1) return false;
    if (to == 3 || f.vote.pre_vote || l->lost) return true;
    buf_clear(&l->word);
    return buf_append_slice(&l->word, bytes) != 0;
}

static void make_leader(struct cluster *k, struct node *n)
{
    struct node *now = cluster_wait_leader(k);
    if (now != n) assert_int_equal(consensus_transfer(now->c, n->id, no_change, NULL), 0);
    assert_true(sim_run_until(k->sim, leads, n, 20 * SECOND));
}

static bool is_elected(void *arg)
{
    return ((struct late_vote *)arg)->elected;
}

static bool has_promised(void *arg)
{
    const struct late_vote *l = arg;
    return l->word.len > 0 && status_of(&l->k->nodes[3]).term > status_of(&l->k->nodes[1]).term;
}

static void late_word_sent(struct env_send *s)
{
    (void)s;
}

/* The leader, 3, makes a learner, 4, a voter, and only the two of them know. 1 leads next; then 4 stands, is promised the vote of 3, and
 * 3 loses its disk. The members that 3 is told of have 4 as a learner: all the same it must hear 4 before it stores anything for 1. */
static void test_promise_to_a_learner(void **state)
{
    (void)state;
    struct cluster k;
    struct late_vote late = {.k = &k};
    cluster_init(&k, 4, 66);
    k.members[3].learner = true;
    for (uint64_t id = 1; id <= 4; id++) {
        k.config.election_ms = id == 1 ? 60000 : id == 4 ? 20000 : 500; /* 1 does not see that it is deposed, 4 waits long for votes */
        node_boot(&k, id);
    }
    k.config.election_ms = 500;
    struct node *before = &k.nodes[1], *other = &k.nodes[2], *n = &k.nodes[3], *now = &k.nodes[4];
    make_leader(&k, n);
    node_write(n, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    sim_run_for(k.sim, 2 * SECOND);
    sim_on_frame(k.sim, out_of_step, &late);
    struct consensus_change ch = {CONSENSUS_PROMOTE, {.id = 4}};
    assert_int_equal(consensus_change(n->c, &ch, no_change, NULL), 0);
    sim_run_for(k.sim, SECOND);
    sim_reset(k.sim, 3, 1);
    assert_true(sim_run_until(k.sim, is_elected, &late, 120 * SECOND));
    assert_true(sim_run_until(k.sim, has_promised, &late, 300 * SECOND));
    sim_run_for(k.sim, SECOND / 50);
    cut(&k, n, now);
    node_crash(n, SIM_POWER);
    n->leads = false;
    sim_disk_wipe(k.sim, n->id);
    late.lost = true;
    for (int i = 0; i < 3; i++) {
        if (!n->c) node_boot(&k, n->id);
        (void)sim_run_until(k.sim, is_fatal, n, SECOND);
        if (before->leads) (void)node_propose(before, ACKED, ACKED);
        if (n->fatal) node_close(n);
    }
    bool acked = node_has(before, ACKED);
    struct env_send word = {.peer_id = 2, .iov = {buf_slice(&late.word)}, .n_iov = 1, .done = late_word_sent};
    now->env->ops->send(now->env, &word);
    sim_run_for(k.sim, SECOND / 5);
    assert_int_equal(status_of(other).term, status_of(now).term);
    heal(&k, n, now);
    sim_on_frame(k.sim, NULL, NULL);
    assert_false(acked); /* the leader of the later term has nothing of it, and overwrites it */
    assert_true(sim_run_until(k.sim, leads, now, 20 * SECOND));
    before->leads = false;
    keep_starting(&k, n);
    node_write(now, ACKED);
    buf_release(&late.word);
    nothing_is_lost(&k, n);
}

/* ---- a stranger -------------------------------------------------------------------------------------- */

static bool no_hello(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    const struct node *n = ctx;
    struct frame f;
    (void)to, (void)ch;
    return from != n->id || frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_HELLO;
}

/* A member runs on an old copy of its folder, and its words are late: it must not vote for one that does not know yet whom it asks,
 * and that lacks what the member has acknowledged since the copy was made. */
static void test_stranger(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 63);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *third = &k.nodes[n->id % 3 + 1];
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    node_close(n);
    struct sim_disk *old = sim_disk_save(k.sim, n->id);
    node_boot(&k, n->id);
    node_write(leader, 2);
    assert_true(cluster_wait_value(&k, 2, 0));
    node_close(third);
    node_write(leader, ACKED);
    assert_true(cluster_wait_value(&k, ACKED, 0));
    node_crash(leader, SIM_KILL);
    leader->leads = false;
    node_crash(n, SIM_KILL);
    sim_disk_put_back(k.sim, n->id, old);
    sim_on_frame(k.sim, no_hello, n);
    node_boot(&k, n->id);
    node_boot(&k, third->id);
    (void)sim_run_until(k.sim, leads, third, 10 * SECOND);
    node_boot(&k, leader->id);
    sim_run_for(k.sim, 3 * SECOND);
    nothing_is_lost(&k, n);
}

/* ---- who has forgotten whom --------------------------------------------------------------------------- */

/* A member that has lost its disk heals; at once the next one, from which it has healed, loses its own. What that one had acknowledged is
 * on the third, which is away: the two must know enough of each other not to begin without it. */
static void lost_one_after_the_other(uint64_t seed)
{
    struct cluster k;
    cluster_start(&k, 3, seed);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *third = &k.nodes[n->id % 3 + 1];
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    sim_run_for(k.sim, 2 * SECOND);
    node_crash(n, SIM_POWER);
    sim_disk_wipe(k.sim, n->id);
    for (int i = 0; i < 8 && !is_whole(n); i++) {
        if (!n->c) node_boot(&k, n->id);
        for (int t = 0; t < 5000 && !is_whole(n) && !n->fatal; t++) sim_run_for(k.sim, 1000);
        if (n->fatal) node_close(n);
    }
    assert_true(is_whole(n));
    node_crash(n, SIM_POWER);
    leader = cluster_wait_leader(&k);
    third = &k.nodes[6 - leader->id - n->id];
    node_write(leader, ACKED);
    assert_true(cluster_wait_value(&k, ACKED, 0));
    node_crash(third, SIM_KILL);
    third->leads = false;
    node_crash(leader, SIM_POWER);
    sim_disk_wipe(k.sim, leader->id);
    node_boot(&k, n->id);
    node_boot(&k, leader->id);
    (void)sim_run_until(k.sim, leads, n, 5 * SECOND);
    if (n->leads) node_write(n, 2);
    node_boot(&k, third->id);
    nothing_is_lost(&k, leader);
}

static void test_lost_one_after_the_other(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) lost_one_after_the_other(seed);
}

/* ---- a log that is gone ------------------------------------------------------------------------------ */

struct kept {
    const char *lost;
    char path[64][80];
    struct buf bytes[64];
    unsigned n;
};

static void keep_path(void *ctx, const char *path, uint64_t size)
{
    struct kept *f = ctx;
    (void)size;
    if (strncmp(path, f->lost, strlen(f->lost)) == 0) return;
    assert_true(f->n < 64);
    snprintf(f->path[f->n++], sizeof f->path[0], "%s", path);
}

/* A whole folder is gone: a disk of its own that was not mounted, say. */
static void lose_folder(struct cluster *k, uint64_t id, const char *folder)
{
    struct kept f = {.lost = folder};
    sim_disk_each(k->sim, id, keep_path, &f);
    for (unsigned i = 0; i < f.n; i++) assert_int_equal(sim_disk_read(k->sim, id, f.path[i], &f.bytes[i]), 0);
    sim_disk_wipe(k->sim, id);
    for (unsigned i = 0; i < f.n; i++) {
        sim_disk_write(k->sim, id, f.path[i], buf_slice(&f.bytes[i]));
        buf_release(&f.bytes[i]);
    }
}

/* The leader and one more have an entry; that one's log is gone, with all that says how long it was, and its newest snapshot is older.
 * Nobody who is there remembers what it had: it must not help the third to lead. */
static void log_is_gone(uint64_t snapshot_log_bytes, bool joined)
{
    struct cluster k;
    struct err e = {{0}};
    cluster_init(&k, 3, 64);
    k.config.snapshot_log_bytes = snapshot_log_bytes;
    cluster_boot(&k);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *third = &k.nodes[n->id % 3 + 1];
    for (uint64_t v = 1; v <= 20; v++) node_write_sized(leader, v, 1000);
    assert_true(cluster_wait_value(&k, 20, 0));
    sim_run_for(k.sim, SECOND);
    node_close(third);
    node_write(leader, ACKED);
    assert_true(cluster_wait_value(&k, ACKED, 0));
    node_close(leader);
    leader->leads = false;
    node_close(n);
    lose_folder(&k, n->id, "wal/");
    node_boot(&k, third->id);
    k.config.new_cluster = !joined;
    for (int i = 0; i < 3; i++) {
        if (!n->c && node_try_boot(&k, n->id, &e)) assert_non_null(strstr(e.text, "wal"));
        (void)sim_run_until(k.sim, leads, third, 5 * SECOND);
        if (n->fatal) node_close(n);
    }
    k.config.new_cluster = true;
    node_boot(&k, leader->id);
    nothing_is_lost(&k, n);
}

static void test_log_is_gone(void **state)
{
    (void)state;
    log_is_gone(8000, false);
    log_is_gone(8000, true);
    log_is_gone(0, false);
    log_is_gone(0, true);
}

/* Alone, with a snapshot that knows less: refused, and not only once. */
static void test_only_log_is_gone(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 1, 65);
    k.config.snapshot_log_bytes = 8000;
    cluster_boot(&k);
    for (uint64_t v = 1; v <= 20; v++) node_write_sized(&k.nodes[1], v, 1000);
    sim_run_for(k.sim, SECOND);
    node_write(&k.nodes[1], ACKED);
    assert_true(status_of(&k.nodes[1]).snapshots_taken > 0);
    node_close(&k.nodes[1]);
    lose_folder(&k, 1, "wal/");
    for (int i = 0; i < 2; i++) {
        struct err e = {{0}};
        assert_int_equal(node_try_boot(&k, 1, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "no segment of the log is left"));
    }
    cluster_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_healed),
        cmocka_unit_test(test_forgotten_promise),
        cmocka_unit_test(test_promise_to_a_learner),
        cmocka_unit_test(test_stranger),
        cmocka_unit_test(test_lost_one_after_the_other),
        cmocka_unit_test(test_log_is_gone),
        cmocka_unit_test(test_only_log_is_gone),
    };
    return cmocka_run_group_tests_name("unbelieved", tests, NULL, NULL);
}
