/* Places that a disk cannot read any more: what a flipped bit would be there. Found at start, by the scrub and while a snapshot
 * is sent or taken in; a member of several sets the file aside and is healed, a single one names file and offset. */
#include "cluster.h"

#include "base/log.h"
#include "raft/snapshots_int.h"

#define VALUES 60u
#define SECTOR 512u

struct files {
    char path[32][64];
    uint64_t size[32];
    unsigned n;
};

static void add_file(void *ctx, const char *path, uint64_t size)
{
    struct files *f = ctx;
    assert_true(f->n < 32);
    snprintf(f->path[f->n], sizeof f->path[0], "%s", path);
    f->size[f->n++] = size;
}

static void find_newest(void *ctx, const char *path, uint64_t size)
{
    char *newest = ctx; /* names sort as their indexes do */
    (void)size;
    if (strncmp(path, "snap/0", 6) == 0 && strcmp(path, newest) > 0) snprintf(newest, 64, "%s", path);
}

static void small(struct cluster *k, unsigned n, uint64_t seed)
{
    cluster_init(k, n, seed);
    k->config.snapshot_log_bytes = 20000;
    k->config.trailing_log_bytes = 2000;
    k->config.segment_bytes = 64 * 1024;
    k->config.scrub_interval_ms = CONSENSUS_NO_SCRUB;
}

/* Three members, two snapshots each and some log behind them; one that does not lead is stopped in order. */
static struct node *one_stopped(struct cluster *k, uint64_t seed)
{
    small(k, 3, seed);
    cluster_boot(k);
    struct node *leader = cluster_wait_leader(k), *n = &k->nodes[leader->id % 3 + 1];
    for (uint64_t v = 1; v <= VALUES; v++) node_write_sized(leader, v, 1500);
    assert_true(cluster_wait_value(k, VALUES, 0));
    sim_run_for(k->sim, SECOND);
    node_close(n);
    return n;
}

/* ---- at start ----------------------------------------------------------------------------------- */

static void test_start_of_several(void **state)
{
    (void)state;
    struct files f = {.n = 0};
    struct cluster k;
    struct node *n = one_stopped(&k, 1);
    sim_disk_each(k.sim, n->id, add_file, &f);
    cluster_stop(&k);
    unsigned healed = 0, fine = 0;
    for (unsigned i = 0; i < f.n; i++) {
        struct err e = {{0}};
        n = one_stopped(&k, 1);
        assert_true(sim_disk_lose_sector(k.sim, n->id, f.path[i], f.size[i] / 3));
        int rv = node_try_boot(&k, n->id, &e);
        if (rv) {
            assert_int_equal(rv, ERR_RESTART);
            if (!strstr(e.text, f.path[i]) || !strstr(e.text, "offset")) fail_msg("%s: %s", f.path[i], e.text);
            node_boot(&k, n->id);
            assert_true(status_of(n).recovering);
            healed++;
        } else {
            fine++; /* there is another copy, or it is not needed */
        }
        if (!sim_run_until(k.sim, is_whole, n, 60 * SECOND)) fail_msg("%s: not healed", f.path[i]);
        assert_true(cluster_wait_value(&k, VALUES, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
    assert_true(healed >= 2); /* mark, a segment */
    assert_true(fine >= 4);   /* meta, meta2, members, a snapshot */
}

/* Both copies of term and vote: the careful way. */
static void test_start_without_meta(void **state)
{
    (void)state;
    struct cluster k;
    struct err e = {{0}};
    struct node *n = one_stopped(&k, 2);
    assert_true(sim_disk_lose_sector(k.sim, n->id, "meta", 0));
    assert_true(sim_disk_lose_sector(k.sim, n->id, "meta2", 0));
    assert_int_equal(node_try_boot(&k, n->id, &e), ERR_RESTART);
    assert_non_null(strstr(e.text, "meta: offset 0: cannot be read; and meta2: offset 0"));
    for (int i = 0; i < 5 && !is_whole(n); i++) {
        if (!n->c) node_boot(&k, n->id);
        (void)sim_run_until(k.sim, is_whole, n, 10 * SECOND);
        if (n->fatal) node_close(n);
    }
    assert_true(is_whole(n));
    assert_true(cluster_wait_value(&k, VALUES, 0));
    cluster_stop(&k);
}

/* Refused with file and offset as long as it is so, and nothing is changed; or nothing is missing. */
static void test_start_of_one(void **state)
{
    (void)state;
    struct cluster k;
    struct files f = {.n = 0};
    struct err e = {{0}};
    small(&k, 1, 3);
    k.config.trailing_log_bytes = 8000;
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= VALUES; v++) node_write_sized(n, v, 1500);
    sim_run_for(k.sim, SECOND);
    node_close(n);
    sim_disk_each(k.sim, 1, add_file, &f);
    unsigned refused = 0, fine = 0;
    for (unsigned i = 0; i < f.n; i++) {
        for (uint64_t at = 0; at < f.size[i]; at += f.size[i] / 4 + 1) {
            struct sim_disk *whole = sim_disk_save(k.sim, 1);
            assert_true(sim_disk_lose_sector(k.sim, 1, f.path[i], at));
            for (int attempt = 0; attempt < 2; attempt++) {
                int rv = node_try_boot(&k, 1, &e);
                if (rv) {
                    char want[100];
                    snprintf(want, sizeof want, "%s: offset %u: cannot be read", f.path[i], (unsigned)(at / SECTOR * SECTOR));
                    assert_int_equal(rv, ERR_CORRUPT);
                    if (!strstr(e.text, want)) fail_msg("%s: %s", want, e.text);
                    refused++;
                } else {
                    assert_true(cluster_wait_value(&k, VALUES, 0));
                    assert_int_equal(n->n, VALUES);
                    node_close(n);
                    fine++;
                }
            }
            sim_disk_put_back(k.sim, 1, whole);
        }
    }
    assert_true(refused >= 8);
    assert_true(fine >= 8);
    cluster_stop(&k);
}

/* ---- the scrub ---------------------------------------------------------------------------------- */

static bool scrubbed(void *arg)
{
    struct node *n = arg;
    return n->fatal || status_of(n).scrub_rounds >= 3;
}

static void test_scrub(void **state)
{
    (void)state;
    struct files f = {.n = 0};
    unsigned stopped = 0, written_again = 0;
    for (unsigned i = 0; i == 0 || i < f.n; i++) {
        struct cluster k;
        small(&k, 3, 4);
        k.config.scrub_interval_ms = 200;
        cluster_boot(&k);
        struct node *n = cluster_wait_leader(&k); /* a leader as any other */
        for (uint64_t v = 1; v <= VALUES; v++) node_write_sized(n, v, 1500);
        assert_true(cluster_wait_value(&k, VALUES, 0));
        sim_run_for(k.sim, SECOND);
        if (i == 0) sim_disk_each(k.sim, n->id, add_file, &f);
        uint64_t id = n->id, rounds = status_of(n).scrub_rounds;
        assert_true(sim_disk_lose_sector(k.sim, id, f.path[i], f.size[i] >= 64 * 1024 ? 100 : f.size[i] / 2));
        for (uint64_t r = 0; r < 3 && !n->fatal; r++) {
            (void)sim_run_until(k.sim, scrubbed, n, SECOND);
            sim_run_for(k.sim, SECOND);
        }
        assert_true(n->fatal || status_of(n).scrub_rounds >= rounds + 3);
        if (n->fatal) {
            assert_int_equal(n->fatal_error, ERR_RESTART);
            if (!strstr(n->fatal_text, f.path[i]) || !strstr(n->fatal_text, ": cannot be read"))
                fail_msg("%s: %s", f.path[i], n->fatal_text);
            stopped++;
            node_close(n);
            node_boot(&k, id);
        } else {
            written_again += status_of(n).scrub_errors > 0;
        }
        if (!sim_run_until(k.sim, is_whole, n, 60 * SECOND)) fail_msg("%s: not healed", f.path[i]);
        assert_true(cluster_wait_value(&k, VALUES, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
    assert_true(stopped >= 2);       /* a segment, the newest snapshot */
    assert_true(written_again >= 5); /* meta, meta2, members, mark, the older snapshot */
}

/* A learner has somebody to heal from, too: the only voter. */
static void test_scrub_of_a_learner(void **state)
{
    (void)state;
    struct cluster k;
    small(&k, 2, 8);
    k.members[1].learner = true;
    k.config.scrub_interval_ms = 200;
    cluster_boot(&k);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[2];
    assert_int_equal(leader->id, 1);
    for (uint64_t v = 1; v <= 5; v++) node_write(leader, v);
    assert_true(cluster_wait_value(&k, 5, 0));
    assert_true(sim_disk_lose_sector(k.sim, 2, "wal/0000000000000001.wal", 0));
    assert_true(sim_run_until(k.sim, is_fatal, n, 10 * SECOND));
    assert_int_equal(n->fatal_error, ERR_RESTART);
    node_close(n);
    node_boot(&k, 2);
    assert_true(sim_run_until(k.sim, is_whole, n, 60 * SECOND));
    assert_true(cluster_wait_value(&k, 5, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* ---- on the way to another ------------------------------------------------------------------------ */

/* One member is away until only a snapshot can help it. */
static struct node *one_lags(struct cluster *k, uint64_t seed)
{
    small(k, 3, seed);
    k->config.scrub_interval_ms = 24 * 3600 * 1000; /* none comes by itself */
    for (unsigned i = 1; i <= 3; i++) k->nodes[i].padding = 3000;
    cluster_boot(k);
    struct node *leader = cluster_wait_leader(k), *slow = &k->nodes[leader->id % 3 + 1];
    node_write(leader, 1);
    node_crash(slow, SIM_POWER);
    for (uint64_t v = 2; v <= 300; v++) node_write_sized(leader, v, 500);
    sim_run_for(k->sim, SECOND);
    assert_int_equal(consensus_snapshot(leader->c), 0);
    sim_run_for(k->sim, 2 * SECOND);
    assert_true(status_of(leader).snapshot_index > 200);
    return slow;
}

static void heals_as_leader(struct cluster *k, struct node *leader, const char *path)
{
    assert_true(sim_run_until(k->sim, is_fatal, leader, 60 * SECOND));
    assert_int_equal(leader->fatal_error, ERR_RESTART);
    if (!strstr(leader->fatal_text, path) || !strstr(leader->fatal_text, "offset")) fail_msg("%s", leader->fatal_text);
    node_close(leader);
    node_boot(k, leader->id);
    assert_true(sim_run_until(k->sim, is_whole, leader, 60 * SECOND));
    assert_true(cluster_wait_value(k, 300, 0));
    assert_same_logs(k);
}

/* The leader cannot read what it sends. */
static void test_sending(void **state)
{
    (void)state;
    struct cluster k;
    char path[64] = "";
    struct node *slow = one_lags(&k, 5), *leader = cluster_wait_leader(&k);
    sim_disk_each(k.sim, leader->id, find_newest, path);
    assert_true(sim_disk_lose_sector(k.sim, leader->id, path, 5000));
    node_boot(&k, slow->id);
    heals_as_leader(&k, leader, path);
    cluster_stop(&k);
}

/* What it sends was damaged before: the other one sees it, and the leader looks at its own file at once. */
static void test_sending_damaged(void **state)
{
    (void)state;
    struct cluster k;
    char path[64] = "";
    struct buf file = {0};
    struct node *slow = one_lags(&k, 6), *leader = cluster_wait_leader(&k);
    uint64_t id = leader->id;
    sim_disk_each(k.sim, id, find_newest, path);
    assert_int_equal(sim_disk_read(k.sim, id, path, &file), 0);
    file.data[file.len / 2] ^= 4;
    sim_disk_write(k.sim, id, path, buf_slice(&file));
    buf_release(&file);
    node_boot(&k, slow->id);
    heals_as_leader(&k, leader, path);
    cluster_stop(&k);
}

struct reading {
    struct cluster *k;
    uint64_t id;
    unsigned read;
};

static void lose_what_was_received(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice frame, int op,
                                   const char *path)
{
    struct reading *r = ctx;
    (void)other, (void)frame;
    if (what != SIM_DISK || id != r->id || op != ENV_IO_READ || strcmp(path, SNAP_RECEIVED) != 0) return;
    if (r->read++ == 0) (void)sim_disk_lose_sector(r->k->sim, id, SNAP_RECEIVED, 5000);
}

/* What was received cannot be read back: it is sent once more. */
static void test_receiving(void **state)
{
    (void)state;
    struct cluster k;
    struct node *slow = one_lags(&k, 7);
    struct reading r = {.k = &k, .id = slow->id};
    sim_on_moment(k.sim, lose_what_was_received, &r);
    node_boot(&k, slow->id);
    assert_true(cluster_wait_value(&k, 300, 0));
    assert_false(slow->fatal);
    assert_true(r.read >= 2);
    assert_int_equal(status_of(slow).snapshots_installed, 1);
    assert_same_logs(&k);
    cluster_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_of_several), cmocka_unit_test(test_start_without_meta),
        cmocka_unit_test(test_start_of_one),     cmocka_unit_test(test_scrub),
        cmocka_unit_test(test_scrub_of_a_learner),
        cmocka_unit_test(test_sending),          cmocka_unit_test(test_sending_damaged),
        cmocka_unit_test(test_receiving),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
