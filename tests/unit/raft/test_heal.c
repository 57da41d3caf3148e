/* Damaged, old and lost states: found, set aside, brought back by the others; and what a member must not do meanwhile. */
#include "cluster.h"
#include "base/limits.h"
#include "raft/consensus_int.h"
#include "raft/frames_int.h"

#define VALUES 60u

static void write_many(struct node *n, uint64_t from, uint64_t count, size_t size)
{
    for (uint64_t v = from; v < from + count; v++) node_write_sized(n, v, size);
}

static struct node *other_than(struct cluster *k, const struct node *a, const struct node *b)
{
    for (unsigned i = 1; i <= k->n; i++)
        if (&k->nodes[i] != a && &k->nodes[i] != b) return &k->nodes[i];
    return NULL;
}

/* Flips a bit in the middle of what is written of the file. */
static void damage(struct cluster *k, uint64_t id, const char *path)
{
    struct buf b;
    buf_init(&b, 64u << 20);
    assert_int_equal(sim_disk_read(k->sim, id, path, &b), 0);
    size_t end = b.len;
    while (end > 0 && b.data[end - 1] == 0) end--;
    size_t at = end / 2;
    while (b.data[at] == 0) at++;
    b.data[at] ^= 0x10;
    sim_disk_write(k->sim, id, path, buf_slice(&b));
    buf_release(&b);
}

static char first_path[200];

static void find_first(void *ctx, const char *path, uint64_t size)
{
    const char *prefix = ctx;
    (void)size;
    if (strncmp(path, prefix, strlen(prefix))) return;
    if (!first_path[0] || strcmp(path, first_path) < 0) snprintf(first_path, sizeof first_path, "%s", path);
}

static const char *first_of(struct cluster *k, uint64_t id, const char *prefix)
{
    first_path[0] = 0;
    sim_disk_each(k->sim, id, find_first, (void *)(uintptr_t)prefix);
    return first_path[0] ? first_path : NULL;
}

/* What was found wrong asks for another start, and that one for the others' help. */
static void restart_healing(struct cluster *k, struct node *n)
{
    struct err e = {{0}};
    int rv = node_try_boot(k, n->id, &e);
    assert_int_equal(rv, ERR_RESTART);
    assert_non_null(strstr(e.text, "offset"));
    node_boot(k, n->id);
    assert_true(status_of(n).recovering);
}

static void wait_healed(struct cluster *k, struct node *n)
{
    assert_true(sim_run_until(k->sim, is_whole, n, 60 * SECOND));
}

static void test_damaged_log(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 1);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, VALUES, 100);
    assert_true(cluster_wait_value(&k, VALUES, 0));
    node_close(n);
    damage(&k, n->id, first_of(&k, n->id, "wal/0000000000000001"));
    restart_healing(&k, n);
    assert_non_null(first_of(&k, n->id, "damaged/"));
    wait_healed(&k, n);
    assert_same_logs(&k);
    assert_int_equal(status_of(n).healed, 1);
    /* it votes again: the two that remain elect a leader and take writes */
    leader = cluster_leader(&k);
    node_crash(leader, SIM_KILL);
    struct node *other = other_than(&k, leader, n);
    sim_run_for(k.sim, 5 * SECOND);
    node_write(other, 1000);
    node_boot(&k, leader->id);
    assert_true(cluster_wait_value(&k, 1000, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* The leader still leads, and believes that all it sent is stored there; its log no longer begins at 1. */
static void test_same_leader_sends_a_snapshot(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 2);
    k.config.snapshot_log_bytes = 4096;
    k.config.trailing_log_bytes = 512;
    cluster_boot(&k);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 200, 100);
    assert_true(cluster_wait_value(&k, 200, 0));
    sim_run_for(k.sim, SECOND);
    uint64_t term = status_of(leader).term;
    node_close(n);
    damage(&k, n->id, first_of(&k, n->id, "wal/"));
    restart_healing(&k, n);
    wait_healed(&k, n);
    assert_int_equal(status_of(leader).term, term);
    assert_int_equal(status_of(n).snapshots_installed, 1);
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* Entry acknowledged by the leader and n; n loses it, the leader dies: the third must not win with n's vote. */
static void test_no_vote_while_recovering(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 3);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    struct node *third = other_than(&k, leader, n);
    write_many(leader, 1, 10, 100);
    assert_true(cluster_wait_value(&k, 10, 0));
    node_crash(third, SIM_KILL);
    write_many(leader, 11, 10, 100); /* on the leader and n only */
    assert_true(cluster_wait_value(&k, 20, 0));
    node_close(n);
    node_crash(leader, SIM_KILL);
    damage(&k, n->id, first_of(&k, n->id, "wal/0000000000000001"));
    restart_healing(&k, n);
    node_boot(&k, third->id);
    sim_run_for(k.sim, 60 * SECOND);
    assert_null(cluster_leader(&k)); /* rather nothing than without what was acknowledged */
    assert_true(status_of(n).recovering);
    node_boot(&k, leader->id);
    wait_healed(&k, n);
    assert_true(cluster_wait_value(&k, 20, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_distrust(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 4);
    struct node *leader = cluster_wait_leader(&k);
    write_many(leader, 1, VALUES, 50);
    assert_true(cluster_wait_value(&k, VALUES, 0));
    consensus_distrust(leader->c, "its hash is another");
    assert_true(leader->fatal);
    assert_int_equal(leader->fatal_error, ERR_RESTART);
    assert_string_equal(leader->fatal_text, "its hash is another");
    node_close(leader);
    node_boot(&k, leader->id);
    assert_true(status_of(leader).recovering);
    wait_healed(&k, leader);
    assert_true(cluster_wait_value(&k, VALUES, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_one_member(void **state)
{
    (void)state;
    struct cluster k;
    struct err e = {{0}};
    cluster_start(&k, 1, 5);
    struct node *n = cluster_wait_leader(&k);
    write_many(n, 1, VALUES, 100);
    node_close(n);
    struct sim_disk *whole = sim_disk_save(k.sim, 1);
    damage(&k, 1, first_of(&k, 1, "wal/0000000000000001"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(node_try_boot(&k, 1, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "wal/"));
        assert_non_null(strstr(e.text, "offset"));
    }
    sim_disk_put_back(k.sim, 1, whole);
    node_boot(&k, 1);
    assert_true(cluster_wait_value(&k, VALUES, 0));
    n = cluster_wait_leader(&k);
    consensus_distrust(n->c, "found by the scrub");
    assert_int_equal(n->fatal_error, ERR_CORRUPT);
    node_close(n);
    assert_int_equal(node_try_boot(&k, 1, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.text, "backup"));
    cluster_stop(&k);
}

/* A folder as it was some starts ago. */
static void test_old_folder(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 6);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    node_close(n);
    struct sim_disk *old = sim_disk_save(k.sim, n->id);
    node_boot(&k, n->id);
    write_many(cluster_wait_leader(&k), 21, 20, 100);
    assert_true(cluster_wait_value(&k, 40, 0));
    node_close(n);
    sim_disk_put_back(k.sim, n->id, old);
    node_boot(&k, n->id);
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_int_equal(n->fatal_error, ERR_RESTART);
    assert_non_null(strstr(n->fatal_text, "has seen start number 2"));
    node_close(n);
    keep_starting(&k, n);
    assert_true(cluster_wait_value(&k, 40, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* Copied while it ran, put back after the same start: the others know what it had applied. */
static void test_old_folder_of_the_same_start(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 7);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    node_crash(n, SIM_KILL);
    struct sim_disk *old = sim_disk_save(k.sim, n->id);
    /* what the copy misses is written in a start that the copy's own number hides */
    node_boot(&k, n->id);
    write_many(cluster_wait_leader(&k), 21, 20, 100);
    assert_true(cluster_wait_value(&k, 40, 0));
    sim_run_for(k.sim, 3 * SECOND);
    node_crash(n, SIM_KILL);
    sim_disk_put_back(k.sim, n->id, old);
    node_boot(&k, n->id);
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_non_null(strstr(n->fatal_text, "not what this member left"));
    node_close(n);
    keep_starting(&k, n);
    assert_same_logs(&k);
    cluster_stop(&k);
}

static const char *const copied[] = {"wal/0000000000000001.wal", "wal/mark", "meta", "meta2"};
enum { COPIED = sizeof copied / sizeof copied[0] };

static void take_copy(struct cluster *k, struct node *n, struct buf old[COPIED])
{
    for (int i = 0; i < COPIED; i++) {
        buf_init(&old[i], 64u << 20);
        assert_int_equal(sim_disk_read(k->sim, n->id, copied[i], &old[i]), 0);
    }
}

/* The member, which is down, comes up with the copy, is told what it has lost, and heals. */
static void old_copy_heals(struct cluster *k, struct node *n, struct buf old[COPIED])
{
    for (int i = 0; i < COPIED; i++) {
        sim_disk_write(k->sim, n->id, copied[i], buf_slice(&old[i]));
        buf_release(&old[i]);
    }
    node_boot(k, n->id);
    assert_true(sim_run_until(k->sim, is_fatal, n, 10 * SECOND));
    assert_non_null(strstr(n->fatal_text, "not what this member left"));
    node_close(n);
    keep_starting(k, n);
}

/* Copied and put back between two words to the others: what they have heard it say is in the copy, but the leader knows
 * what it has acknowledged since. */
static void test_old_folder_of_the_same_life(void **state)
{
    (void)state;
    struct buf old[COPIED];
    struct cluster k;
    cluster_start(&k, 3, 8);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    sim_run_for(k.sim, 3 * SECOND);
    write_many(leader, 21, 1, 100); /* it says so at once, and then nothing for a second */
    sim_run_for(k.sim, SECOND / 4);
    take_copy(&k, n, old);
    write_many(leader, 22, 3, 100);
    assert_true(cluster_wait_value(&k, 24, 0));
    node_crash(n, SIM_KILL);
    old_copy_heals(&k, n, old);
    assert_true(cluster_wait_value(&k, 24, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* A leader's old copy: it has said nothing of itself since, but the others know what it made them commit. */
static void test_old_folder_of_a_leader(void **state)
{
    (void)state;
    struct buf old[COPIED];
    struct cluster k;
    cluster_start(&k, 3, 10);
    struct node *n = cluster_wait_leader(&k);
    write_many(n, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    sim_run_for(k.sim, 3 * SECOND);
    write_many(n, 21, 1, 100); /* it says so at once, and then nothing for a second */
    sim_run_for(k.sim, SECOND / 4);
    take_copy(&k, n, old);
    write_many(n, 22, 3, 100);
    assert_true(cluster_wait_value(&k, 24, 0)); /* and so the others have heard of the commit */
    node_crash(n, SIM_KILL);
    n->leads = false;
    old_copy_heals(&k, n, old);
    assert_true(cluster_wait_value(&k, 24, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void word_sent(struct env_send *s)
{
    assert_int_equal(s->status, 0);
}

/* A second process has said HELLO under its id while it slept, and is gone again: it has promised what this one knows nothing of,
 * though this one was known to all. */
static void test_second_process(void **state)
{
    (void)state;
    struct cluster k;
    struct buf bytes;
    struct frame f = {.kind = FRAME_HELLO, .hello = {.life = 4711, .boots = 2, .term = 1}};
    cluster_start(&k, 3, 13);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *third = other_than(&k, leader, n);
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    buf_init(&bytes, LIMIT_MiB);
    frame_encode(&bytes, &f);
    struct env_send word = {.peer_id = third->id, .iov = {buf_slice(&bytes)}, .n_iov = 1, .done = word_sent};
    n->env->ops->send(n->env, &word);
    sim_run_for(k.sim, SECOND / 10);
    assert_false(n->fatal);
    sim_reset(k.sim, n->id, third->id);
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_int_equal(n->fatal_error, ERR_RESTART);
    assert_non_null(strstr(n->fatal_text, "has seen start number 2 of this member (this is number 1)"));
    buf_release(&bytes);
    node_close(n);
    keep_starting(&k, n);
    write_many(cluster_wait_leader(&k), 21, 20, 100);
    assert_true(cluster_wait_value(&k, 40, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void cut_between(struct cluster *k, uint64_t a, uint64_t b)
{
    sim_cut(k->sim, a, b, true);
    sim_cut(k->sim, b, a, true);
}

/* What it has acknowledged to a leader of whom a majority knew nothing was cut off by the next one: that is not an old folder. */
static void test_cut_off_is_not_old(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 5, 12);
    struct node *old = cluster_wait_leader(&k), *n = &k.nodes[old->id % 5 + 1];
    uint64_t term = old->term;
    write_many(old, 1, 5, 100);
    assert_true(cluster_wait_value(&k, 5, 0));
    sim_run_for(k.sim, SECOND);
    for (uint64_t id = 1; id <= 5; id++)
        if (id != old->id && id != n->id) cut_between(&k, id, old->id), cut_between(&k, id, n->id);
    uint64_t before = consensus_match_index(old->c, n->id);
    for (uint64_t v = 100; v < 120; v++) {
        (void)node_propose(old, v, v); /* as many as it takes */
        sim_run_for(k.sim, SECOND / 200);
    }
    assert_true(consensus_match_index(old->c, n->id) >= before + 3);
    node_crash(n, SIM_KILL);
    node_boot(&k, n->id);
    sim_run_for(k.sim, SECOND / 5);
    assert_true(old->leads && old->term == term);
    sim_heal_all(k.sim);
    for (uint64_t id = 1; id <= 5; id++)
        if (id != old->id) cut_between(&k, id, old->id);
    old->leads = false;
    struct node *leader = cluster_wait_leader(&k);
    assert_true(leader != n && leader->term > term);
    write_many(leader, 6, 1, 100);
    assert_true(cluster_wait_value(&k, 6, (uint64_t)1 << n->id));
    node_crash(n, SIM_KILL);
    sim_heal_all(k.sim);
    node_boot(&k, n->id);
    sim_run_for(k.sim, 5 * SECOND);
    if (n->fatal) fail_msg("%s", n->fatal_text);
    assert_true(cluster_wait_value(&k, 6, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* Everything is gone, term and vote as well: not before every other voter has told what it knows. */
static void test_lost_folder(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 8);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    struct node *third = other_than(&k, leader, n);
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    node_close(n);
    sim_disk_wipe(k.sim, n->id);
    node_boot(&k, n->id);
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_int_equal(n->fatal_error, ERR_RESTART);
    node_close(n);
    node_crash(third, SIM_KILL);
    node_boot(&k, n->id);
    sim_run_for(k.sim, 20 * SECOND);
    assert_true(status_of(n).recovering);
    assert_int_equal(n->n, 0); /* it took nothing */
    node_boot(&k, third->id);
    keep_starting(&k, n);
    assert_true(cluster_wait_value(&k, 20, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static bool whole_or_fatal(void *arg)
{
    return is_whole(arg) || is_fatal(arg);
}

static bool believed_whole(void *arg)
{
    const struct node *n = arg;
    for (unsigned i = 1; i <= n->cluster->n; i++)
        if (consensus_heals(n->cluster->nodes[i].c, n->id)) return false;
    return true;
}

/* Who heals is known to whoever has met it, until it says that it is whole, which it does without being asked. */
static void test_others_know(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 13);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    struct node *third = other_than(&k, leader, n);
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    assert_true(believed_whole(n));
    node_close(n);
    sim_disk_wipe(k.sim, n->id);
    node_crash(third, SIM_KILL); /* whose word it needs */
    for (int i = 0; i < 4 && !n->c; i++) {
        node_boot(&k, n->id);
        if (sim_run_until(k.sim, is_fatal, n, 5 * SECOND)) node_close(n);
    }
    assert_true(consensus_heals(n->c, n->id) && consensus_heals(leader->c, n->id));
    assert_false(consensus_heals(leader->c, leader->id) || consensus_heals(n->c, leader->id));
    node_crash(leader, SIM_KILL);
    leader->leads = false;
    node_boot(&k, leader->id);
    sim_run_for(k.sim, 5 * SECOND);
    assert_true(consensus_heals(leader->c, n->id));
    node_crash(n, SIM_KILL);
    sim_run_for(k.sim, 5 * SECOND);
    assert_true(consensus_heals(leader->c, n->id)); /* down, and not whole */
    node_boot(&k, third->id);
    sim_run_for(k.sim, SECOND);
    assert_false(consensus_heals(third->c, n->id)); /* was down when it was up */
    for (int i = 0; i < 8 && !is_whole(n); i++) {
        node_close(n);
        node_boot(&k, n->id);
        assert_true(sim_run_until(k.sim, whole_or_fatal, n, 60 * SECOND));
    }
    assert_true(is_whole(n));
    assert_true(sim_run_until(k.sim, believed_whole, n, SECOND / 4)); /* at once */
    assert_true(status_of(n).set_aside > 0);
    assert_int_equal(status_of(leader).set_aside, 0);
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_both_metas_damaged(void **state)
{
    (void)state;
    struct cluster k;
    struct err e = {{0}};
    cluster_start(&k, 3, 9);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    uint64_t term = status_of(n).term;
    node_close(n);
    damage(&k, n->id, "meta");
    damage(&k, n->id, "meta2");
    assert_int_equal(node_try_boot(&k, n->id, &e), ERR_RESTART);
    assert_non_null(strstr(e.text, "meta"));
    keep_starting(&k, n);
    assert_true(status_of(n).term >= term);
    assert_same_logs(&k);
    /* The others knew of later starts, too, and it began to heal once more: what it had before all that is still there. */
    assert_true(sim_run_until(k.sim, is_whole, n, 60 * SECOND));
    assert_non_null(first_of(&k, n->id, "damaged/0-wal-0000000000000001"));
    cluster_stop(&k);
}

/* Nothing is left but the members: term and vote are lost as well, whether or not those who are reached first remember it. */
static void test_only_members_are_left(void **state)
{
    (void)state;
    struct cluster k;
    struct err e = {{0}};
    struct buf members, meta;
    struct slice flags;
    cluster_start(&k, 3, 14);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 20, 100);
    assert_true(cluster_wait_value(&k, 20, 0));
    node_close(n);
    buf_init(&members, LIMIT_MiB);
    buf_init(&meta, LIMIT_MiB);
    assert_int_equal(sim_disk_read(k.sim, n->id, "members", &members), 0);
    sim_disk_wipe(k.sim, n->id);
    sim_disk_write(k.sim, n->id, "members", buf_slice(&members));
    assert_int_equal(node_try_boot(&k, n->id, &e), ERR_RESTART);
    assert_int_equal(sim_disk_read(k.sim, n->id, "meta", &meta), 0);
    flags = slice_sub(buf_slice(&meta), 56, 60);
    assert_int_equal(flags.data[0], META_DISTRUSTED | META_ROLLED_BACK);
    keep_starting(&k, n);
    assert_same_logs(&k);
    buf_release(&members);
    buf_release(&meta);
    cluster_stop(&k);
}

/* One that is damaged, with a crash at the disk operation `nth` of its start number `start`; whether it came to that. */
static bool crashed_while_healing(unsigned start, unsigned nth)
{
    struct cluster k;
    struct err e = {{0}};
    bool crashed = false;
    cluster_start(&k, 3, 100 + nth);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    write_many(leader, 1, 30, 1000);
    assert_true(cluster_wait_value(&k, 30, 0));
    node_close(n);
    damage(&k, n->id, first_of(&k, n->id, "wal/0000000000000001"));
    for (unsigned i = 0; i < 6 && !is_whole(n); i++) {
        n->crash_nth = i == start ? nth : 0;
        n->crash_mode = nth % 2 ? SIM_POWER : SIM_KILL;
        uint64_t before = sim_disk_operations(k.sim, n->id);
        if (node_try_boot(&k, n->id, &e)) {
            crashed |= i == start && sim_disk_operations(k.sim, n->id) - before >= nth;
            continue;
        }
        (void)sim_run_until(k.sim, is_whole, n, 5 * SECOND);
        if (sim_env(k.sim, n->id) == n->env) continue;
        crashed = true;
        node_close(n);
    }
    if (!is_whole(n)) fail_msg("crash at operation %u of start %u: not healed: %s", nth, start, e.text);
    assert_true(cluster_wait_value(&k, 30, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
    return crashed;
}

/* From the finding to the last byte brought back. */
static void test_crash_anywhere(void **state)
{
    (void)state;
    unsigned crashes = 0;
    for (unsigned start = 0; start < 2; start++)
        for (unsigned nth = 1; nth <= 40; nth++) crashes += crashed_while_healing(start, nth);
    print_message("# %u crashes\n", crashes);
    assert_true(crashes > 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_log),
        cmocka_unit_test(test_same_leader_sends_a_snapshot),
        cmocka_unit_test(test_no_vote_while_recovering),
        cmocka_unit_test(test_distrust),
        cmocka_unit_test(test_one_member),
        cmocka_unit_test(test_old_folder),
        cmocka_unit_test(test_old_folder_of_the_same_start),
        cmocka_unit_test(test_old_folder_of_the_same_life),
        cmocka_unit_test(test_old_folder_of_a_leader),
        cmocka_unit_test(test_second_process),
        cmocka_unit_test(test_cut_off_is_not_old),
        cmocka_unit_test(test_lost_folder),
        cmocka_unit_test(test_others_know),
        cmocka_unit_test(test_both_metas_damaged),
        cmocka_unit_test(test_only_members_are_left),
        cmocka_unit_test(test_crash_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
