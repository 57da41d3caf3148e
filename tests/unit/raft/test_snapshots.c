/* Snapshots: taken, restored at a restart, streamed to a member that lags too far, and damaged. */
#include "cluster.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "raft/snapshots_int.h"

static void get_status(const struct node *n, struct consensus_status *s)
{
    consensus_get_status(n->c, s);
}

static bool has_snapshot(void *arg)
{
    struct consensus_status s;
    get_status(arg, &s);
    return s.snapshots_taken > 0;
}

static void small_limits(struct cluster *k)
{
    k->config.snapshot_log_bytes = 20000;
    k->config.trailing_log_bytes = 2000;
    k->config.segment_bytes = 64 * 1024;
}

struct sizes {
    uint64_t wal;
    unsigned wal_files, snap_files;
};

static void add_size(void *ctx, const char *path, uint64_t size)
{
    struct sizes *s = ctx;
    if (strncmp(path, "wal/", 4) == 0) {
        s->wal += size;
        s->wal_files++;
    }
    if (strncmp(path, "snap/", 5) == 0) s->snap_files++;
}

static void test_taken_by_bytes(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 1);
    small_limits(&k);
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 1000; v++) node_write_sized(n, v, 500);
    assert_true(cluster_wait_value(&k, 1000, 0));
    sim_run_for(k.sim, SECOND);
    for (unsigned i = 1; i <= 3; i++) {
        struct consensus_status s;
        struct sizes sizes = {0};
        get_status(&k.nodes[i], &s);
        assert_true(s.snapshots_taken >= 5);
        assert_true(s.snapshot_index > 900);
        sim_disk_each(k.sim, i, add_size, &sizes);
        assert_int_equal(sizes.snap_files, 2);
        assert_true(sizes.wal_files <= 4);
        assert_true(k.nodes[i].opened_snapshots == 0);
    }
    for (unsigned i = 1; i <= 3; i++) node_crash(&k.nodes[i], SIM_POWER);
    cluster_boot(&k);
    for (unsigned i = 1; i <= 3; i++) assert_int_equal(k.nodes[i].restores, 1);
    n = cluster_wait_leader(&k);
    node_write(n, 1001);
    assert_true(cluster_wait_value(&k, 1001, 0));
    assert_int_equal(n->n, 1001);
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_on_demand(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 1, 2);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 10; v++) node_write(n, v);
    assert_int_equal(consensus_snapshot(n->c), 0);
    assert_true(sim_run_until(k.sim, has_snapshot, n, 5 * SECOND));
    assert_int_equal(consensus_snapshot(n->c), 0); /* nothing new */
    node_close(n);
    node_boot(&k, 1);
    assert_int_equal(n->restores, 1);
    assert_int_equal(n->n, 10);
    cluster_wait_leader(&k);
    node_write(n, 11);
    assert_int_equal(n->n, 11);
    cluster_stop(&k);
}

struct lag {
    struct cluster *k;
    struct node *slow;
};

/* One member is away until only a snapshot can help it. */
static struct node *make_lagging(struct cluster *k, size_t padding)
{
    small_limits(k);
    for (unsigned i = 1; i <= 3; i++) k->nodes[i].padding = padding;
    cluster_boot(k);
    struct node *n = cluster_wait_leader(k);
    sim_run_for(k->sim, SECOND);
    node_write(n, 1);
    struct node *slow = &k->nodes[n->id % 3 + 1];
    node_crash(slow, SIM_POWER);
    for (uint64_t v = 2; v <= 400; v++) node_write_sized(n, v, 500);
    sim_run_for(k->sim, SECOND);
    struct consensus_status s;
    assert_int_equal(consensus_snapshot(n->c), 0); /* a large one is not due yet */
    sim_run_for(k->sim, 2 * SECOND);
    get_status(n, &s);
    assert_true(s.snapshot_index > 300);
    return slow;
}

static void test_install(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct cluster k;
        cluster_init(&k, 3, seed);
        struct node *slow = make_lagging(&k, 3000 * (seed - 1));
        node_boot(&k, slow->id);
        assert_true(cluster_wait_value(&k, 400, 0));
        struct consensus_status s;
        get_status(slow, &s);
        assert_int_equal(s.snapshots_installed, 1);
        struct node *n = cluster_wait_leader(&k);
        node_write(n, 401);
        assert_true(cluster_wait_value(&k, 401, 0));
        assert_same_logs(&k);
        node_crash(slow, SIM_POWER); /* what was installed is on its disk */
        node_boot(&k, slow->id);
        assert_true(slow->restores == 1);
        assert_true(cluster_wait_value(&k, 401, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
}

static void test_install_over_bad_links(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 14; seed++) {
        struct cluster k;
        cluster_init(&k, 3, seed);
        struct node *slow = make_lagging(&k, 20000); /* some 8 MB */
        node_boot(&k, slow->id);
        for (int i = 0; i < 6; i++) {
            sim_run_for(k.sim, 20000);
            for (unsigned j = 1; j <= 3; j++) {
                if (j == slow->id) continue;
                sim_reset(k.sim, j, slow->id);
                sim_reset(k.sim, slow->id, j);
            }
        }
        assert_true(cluster_wait_value(&k, 400, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
}

static void fail_behind_rename(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice frame, int op,
                               const char *path)
{
    struct lag *l = ctx;
    (void)other, (void)frame;
    if (what == SIM_DISK && id == l->slow->id && op == ENV_IO_RENAME && strcmp(path, SNAP_RECEIVED) == 0)
        sim_disk_fail_nth(l->k->sim, id, 1);
}

static bool is_resetting(void *arg)
{
    struct node *n = arg;
    return n->fatal || n->c->snapshots->receiving.state == RECV_RESETTING;
}

/* Closed in the middle of an install, whose reset of the log then fails: closing does not wait for it for ever. */
static void test_close_while_installing(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 16);
    struct lag l = {&k, make_lagging(&k, 100)};
    sim_on_moment(k.sim, fail_behind_rename, &l);
    node_boot(&k, l.slow->id);
    assert_true(sim_run_until(k.sim, is_resetting, l.slow, 30 * SECOND));
    assert_false(l.slow->fatal);
    node_close(l.slow);
    node_boot(&k, l.slow->id);
    sim_disk_fail_nth(k.sim, l.slow->id, 0);
    assert_true(cluster_wait_value(&k, 400, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_crash_at_every_step(void **state)
{
    (void)state;
    /* The member that installs loses its power at each of its disk operations in turn. */
    unsigned nth = 1;
    bool done = false;
    for (; nth < 200 && !done; nth++) {
        struct cluster k;
        cluster_init(&k, 3, 20 + nth);
        struct node *slow = make_lagging(&k, 1000);
        node_boot(&k, slow->id);
        sim_crash_after(k.sim, slow->id, SIM_POWER, nth);
        for (int i = 0; i < 1000 && sim_env(k.sim, slow->id); i++) sim_run_for(k.sim, 5000);
        done = sim_env(k.sim, slow->id) != NULL;
        sim_crash_after(k.sim, slow->id, SIM_POWER, 0);
        if (!done) {
            node_close(slow);
            node_boot(&k, slow->id);
        }
        if (!cluster_wait_value(&k, 400, 0)) fail_msg("step %u", nth);
        struct node *n = cluster_wait_leader(&k);
        node_write(n, 401);
        if (!cluster_wait_value(&k, 401, 0)) fail_msg("step %u", nth);
        assert_same_logs(&k);
        cluster_stop(&k);
    }
    assert_true(nth > 8);
}

static void test_damage(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 1, 3);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 30; v++) node_write(n, v);
    assert_int_equal(consensus_snapshot(n->c), 0);
    assert_true(sim_run_until(k.sim, has_snapshot, n, 5 * SECOND));
    node_close(n);
    const char *path;
    uint64_t offset;
    struct buf file = {0};
    assert_true(sim_disk_flip(k.sim, 1, "snap/", &path, &offset));
    char name[100];
    snprintf(name, sizeof name, "%s", path);
    assert_int_equal(sim_disk_read(k.sim, 1, name, &file), 0);
    struct err e = {{0}};
    assert_int_equal(node_try_boot(&k, 1, &e), ERR_CORRUPT);
    assert_non_null(strstr(e.text, name));
    assert_non_null(strstr(e.text, "offset"));
    cluster_stop(&k);
    buf_release(&file);
}

static void newest_snapshot(void *ctx, const char *path, uint64_t size)
{
    (void)size;
    char *newest = ctx; /* names sort as their indexes do */
    if (strncmp(path, "snap/0", 6) == 0 && strcmp(path, newest) > 0) snprintf(newest, 64, "%s", path);
}

/* The newest is damaged: the one before it and the log, if they hold all of it; else it is refused. */
static void test_older(void **state)
{
    (void)state;
    for (int kept = 0; kept < 2; kept++) {
        struct cluster k;
        cluster_init(&k, 1, 20);
        small_limits(&k);
        k.config.trailing_log_bytes = kept ? 1000000 : 2000;
        cluster_boot(&k);
        struct node *n = cluster_wait_leader(&k);
        for (uint64_t v = 1; v <= (kept ? 90 : 400); v++) node_write_sized(n, v, 500);
        uint64_t last = n->log[n->n - 1].value;
        node_close(n);
        char path[64] = "";
        struct buf file = {0};
        sim_disk_each(k.sim, 1, newest_snapshot, path);
        assert_int_equal(sim_disk_read(k.sim, 1, path, &file), 0);
        file.data[file.len / 2] ^= 8;
        sim_disk_write(k.sim, 1, path, buf_slice(&file));
        struct err e = {{0}};
        int rv = node_try_boot(&k, 1, &e);
        if (kept) {
            assert_int_equal(rv, 0);
            assert_true(cluster_wait_value(&k, last, 0));
            assert_int_equal(n->n, last);
            buf_clear(&file);
            assert_int_equal(sim_disk_read(k.sim, 1, "snap/damaged", &file), 0);
            node_close(n);
            node_boot(&k, 1);
            assert_true(cluster_wait_value(&k, last, 0));
        } else {
            assert_int_equal(rv, ERR_CORRUPT);
            assert_non_null(strstr(e.text, path));
            assert_non_null(strstr(e.text, "offset"));
        }
        buf_release(&file);
        cluster_stop(&k);
    }
}

/* Every single byte of a snapshot file flipped, and every shorter file. */
static int swallow(void *ctx, struct slice raw, struct err *e)
{
    (void)e;
    return buf_append_slice(ctx, raw);
}

#include "raft/snapfile_int.h"

/* out NULL: as the scrub does. */
static int decode(struct slice file, struct buf *out, size_t piece, struct err *e)
{
    struct snapfile_decoder d;
    snapfile_decoder_init(&d);
    int rv = 0;
    for (size_t at = 0; at < file.len && !rv; at += piece)
        rv = snapfile_feed(&d, slice_sub(file, at, piece), out ? swallow : NULL, out, e);
    if (!rv) rv = snapfile_finish(&d, e);
    snapfile_decoder_release(&d);
    return rv;
}

static void test_every_byte(void **state)
{
    (void)state;
    static const uint8_t conf[24] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 'u', 0, 1};
    struct snapfile_encoder enc;
    struct buf file = {0}, out = {0}, raw = {0};
    struct snapfile_header h = {
        .cluster_id = 1, .index = 2, .term = 3, .configuration = slice_make(conf, sizeof conf)};
    snapfile_encode_header(&enc, &h, &file);
    for (int i = 0; i < 300; i++)
        assert_int_equal(buf_append_byte(&raw, (uint8_t)(i < 200 ? 7 : i * 37)), 0);
    snapfile_encode_block(&enc, buf_slice(&raw), &file);
    snapfile_encode_block(&enc, slice_sub(buf_slice(&raw), 250, 40), &file);
    size_t before_end = file.len;
    uint32_t crc = enc.crc;
    snapfile_encode_end(&enc, &file);
    for (size_t piece = 1; piece <= file.len; piece += 7) {
        buf_clear(&out);
        assert_int_equal(decode(buf_slice(&file), &out, piece, NULL), 0);
        assert_int_equal(out.len, 340);
        assert_memory_equal(out.data, raw.data, raw.len);
    }
    for (uint64_t nth = 1;; nth++) { /* out of memory anywhere is an error, and nothing else */
        buf_release(&out);
        mem_fail_nth(nth);
        int rv = decode(buf_slice(&file), &out, 64, NULL);
        bool fired = mem_fail_nth(0);
        if (!fired) {
            assert_int_equal(rv, 0);
            assert_true(nth > 3);
            break;
        }
        assert_int_equal(rv, ERR_NOMEM);
    }
    for (size_t len = 0; len < file.len; len++) {
        struct err e = {{0}};
        assert_int_equal(decode(slice_sub(buf_slice(&file), 0, len), &out, 64, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "offset"));
    }
    for (size_t i = 0; i < file.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            file.data[i] ^= (uint8_t)(1 << bit);
            assert_int_equal(decode(buf_slice(&file), &out, 4096, NULL), ERR_CORRUPT);
            assert_int_equal(decode(buf_slice(&file), NULL, 100, NULL), ERR_CORRUPT);
            file.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_int_equal(buf_append_byte(&file, 0), 0);
    assert_int_equal(decode(buf_slice(&file), &out, 4096, NULL), ERR_CORRUPT);
    /* The trailer of an earlier version, without a digest. */
    uint8_t old[36] = {0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 340 & 0xff, 340 >> 8, 0, 0, 0, 0, 0, 0, 2};
    memcpy(old + 28, "\0PNTEND1", 8);
    crc = crc32c(crc32c(crc, old, 8), old + 12, 24);
    for (int i = 0; i < 4; i++) old[8 + i] = (uint8_t)(crc >> (8 * i));
    file.len = before_end;
    buf_clear(&out);
    assert_int_equal(buf_append(&file, old, sizeof old), 0);
    assert_int_equal(decode(buf_slice(&file), &out, 64, NULL), 0);
    assert_int_equal(out.len, 340);
    buf_release(&file);
    buf_release(&out);
    buf_release(&raw);
}

struct source {
    uint64_t next, last;
    int error;
};

static int read_source(void *ctx, struct buf *out, struct err *e)
{
    struct source *s = ctx;
    if (s->error && s->next > s->last / 2) return err_set(e, s->error, "damaged at offset 17");
    for (int i = 0; i < 100 && s->next <= s->last; i++, s->next++) {
        assert_int_equal(buf_append_u64(out, 1), 0);
        assert_int_equal(buf_append_u64(out, s->next), 0);
    }
    return 0;
}

static void test_write_restored(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 5);
    k.config.new_cluster = false;
    for (uint64_t id = 1; id <= 3; id++) {
        struct err e = {{0}};
        struct source bad = {.next = 1, .last = 1000, .error = ERR_CORRUPT},
                      good = {.next = 1, .last = 1000};
        struct env *env = sim_boot(k.sim, id);
        k.config.id = 99;
        assert_int_equal(consensus_write_restored(&k.config, env, read_source, &good, &e),
                         ERR_INVALID);
        k.config.id = id;
        assert_int_equal(consensus_write_restored(&k.config, env, read_source, &bad, &e),
                         ERR_CORRUPT);
        assert_string_equal(e.text, "damaged at offset 17");
        assert_int_equal(consensus_write_restored(&k.config, env, read_source, &good, &e), 0);
        assert_int_equal(consensus_write_restored(&k.config, env, read_source, &good, &e),
                         ERR_EXISTS);
        sim_release(env);
    }
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k);
    assert_int_equal(n->n, 1000);
    node_write(n, 5000);
    assert_true(cluster_wait_value(&k, 5000, 0));
    assert_same_logs(&k);
    for (unsigned i = 1; i <= 3; i++) node_crash(&k.nodes[i], SIM_POWER);
    cluster_boot(&k);
    n = cluster_wait_leader(&k);
    node_write(n, 5001);
    assert_true(cluster_wait_value(&k, 5001, 0));
    assert_int_equal(n->n, 1002);
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* A member of the restored cluster whose folder is filled; the others' are empty. */
static void restore_one(struct cluster *k, uint64_t id)
{
    struct err e = {{0}};
    struct source good = {.next = 1, .last = 1000};
    struct env *env = sim_boot(k->sim, id);
    k->config.id = id;
    assert_int_equal(consensus_write_restored(&k->config, env, read_source, &good, &e), 0);
    sim_release(env);
}

/* One member of the restored cluster has an empty folder: its disk was lost before it ever ran, or it was forgotten. It is sent what the
 * others have. */
static void test_one_not_restored(void **state)
{
    (void)state;
    for (uint64_t empty = 1; empty <= 3; empty++) {
        struct cluster k;
        cluster_init(&k, 3, 6);
        for (uint64_t id = 1; id <= 3; id++)
            if (id != empty) restore_one(&k, id);
        cluster_boot(&k);
        node_write(cluster_wait_leader(&k), 5000);
        assert_true(cluster_wait_value(&k, 5000, 0));
        assert_true(node_has(&k.nodes[empty], 500));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
}

/* Only one was restored, and the others have begun without it: it does not take what they have for the continuation. */
static void test_one_restored(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 7);
    restore_one(&k, 1);
    node_boot(&k, 2);
    node_boot(&k, 3);
    node_write(cluster_wait_leader(&k), 5000);
    node_boot(&k, 1);
    assert_true(sim_run_until(k.sim, is_fatal, &k.nodes[1], 20 * SECOND));
    assert_false(node_has(&k.nodes[1], 5000));
    cluster_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_taken_by_bytes),
        cmocka_unit_test(test_on_demand),
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_install_over_bad_links),
        cmocka_unit_test(test_close_while_installing),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_older),
        cmocka_unit_test(test_crash_at_every_step),
        cmocka_unit_test(test_write_restored),
        cmocka_unit_test(test_one_not_restored),
        cmocka_unit_test(test_one_restored),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
