/* The scrub: nothing is found where nothing is wrong, whatever goes on meanwhile; damage to any file is found
 * while the member runs, named, and what can be put right is. */
#include "cluster.h"

#include "base/log.h"

static void configure(struct cluster *k, unsigned n, uint64_t seed)
{
    cluster_init(k, n, seed);
    k->config.scrub_interval_ms = 200;
    k->config.snapshot_log_bytes = 100 * 1000;
    k->config.trailing_log_bytes = 20 * 1000;
    cluster_boot(k);
}

static struct consensus_status status(const struct node *n)
{
    struct consensus_status s;
    consensus_get_status(n->c, &s);
    return s;
}

struct rounds {
    const struct node *n;
    uint64_t want;
};

static bool rounds_done(void *arg)
{
    const struct rounds *r = arg;
    return r->n->fatal || status(r->n).scrub_rounds >= r->want;
}

/* Two rounds more: one of them has begun after this call. */
static void wait_rounds(struct node *n)
{
    struct rounds r = {n, status(n).scrub_rounds + 2};
    assert_true(sim_run_until(n->cluster->sim, rounds_done, &r, 600 * SECOND));
}

static void test_clean(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        struct cluster k;
        configure(&k, 3, seed);
        struct node *n = cluster_wait_leader(&k);
        for (uint64_t v = 1; v <= 60; v++) {
            node_write_sized(n, v, 1000 * (v % 40) + 8);
            if (v % 20 == 0) sim_run_for(k.sim, SECOND);
            for (unsigned i = 1; i <= 3; i++) assert_false(k.nodes[i].fatal);
        }
        for (unsigned i = 1; i <= 3; i++) {
            wait_rounds(&k.nodes[i]);
            assert_int_equal(status(&k.nodes[i]).scrub_errors, 0);
            assert_true(status(&k.nodes[i]).scrub_bytes > 100 * 1000);
            assert_true(status(&k.nodes[i]).snapshots_taken > 1);
        }
        cluster_stop(&k);
    }
}

/* A round takes as long as its rate says. */
static void test_rate(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 1, 30);
    k.config.scrub_interval_ms = 1000;
    k.config.scrub_rate = 100 * 1000;
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 60; v++) node_write_sized(n, v, 50000);
    sim_run_for(k.sim, 15 * SECOND);
    struct consensus_status s = status(n);
    assert_int_equal(s.scrub_rounds, 0);
    assert_in_range(s.scrub_bytes, 1000 * 1000, 1800 * 1000);
    wait_rounds(n);
    cluster_stop(&k);
}

static void test_never(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 1, 31);
    k.config.scrub_interval_ms = CONSENSUS_NO_SCRUB;
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k);
    node_write(n, 1);
    sim_run_for(k.sim, 4000 * SECOND);
    assert_int_equal(status(n).scrub_bytes, 0);
    cluster_stop(&k);
}

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

static bool zeros_from(const struct buf *b, size_t at)
{
    for (; at < b->len; at++)
        if (b->data[at]) return false;
    return true;
}

/* One bit of one file flips while the member runs. */
static void flip_one(struct cluster *k, const char *path, size_t at, unsigned *fatal, unsigned *healed)
{
    struct node *n = &k->nodes[1];
    struct buf file = {0};
    assert_int_equal(sim_disk_read(k->sim, 1, path, &file), 0);
    bool meaning = !zeros_from(&file, at) && strcmp(path, "wal/spare.tmp") != 0;
    bool pads = strncmp(path, "wal/0", 5) == 0 && file.data[at] == 0;
    uint64_t errors = status(n).scrub_errors;
    file.data[at] ^= (uint8_t)(1 << at % 8);
    sim_disk_write(k->sim, 1, path, buf_slice(&file));
    wait_rounds(n);
    if (n->fatal) {
        assert_int_equal(n->fatal_error, ERR_CORRUPT);
        if (!strstr(n->fatal_text, path) || !strstr(n->fatal_text, "offset")) fail_msg("%s: %s", path, n->fatal_text);
        node_crash(n, SIM_KILL);
        file.data[at] ^= (uint8_t)(1 << at % 8);
        sim_disk_write(k->sim, 1, path, buf_slice(&file));
        node_boot(k, 1);
        cluster_wait_leader(k);
        ++*fatal;
    } else if (status(n).scrub_errors > errors) {
        ++*healed;
    } else if (meaning && !pads) {
        fail_msg("%s: offset %zu: not found", path, at);
    }
    buf_release(&file);
}

static void test_every_file(void **state)
{
    (void)state;
    struct cluster k;
    struct files f = {.n = 0};
    unsigned fatal = 0, healed = 0;
    configure(&k, 1, 40);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 40; v++) node_write_sized(n, v, 12000);
    sim_run_for(k.sim, SECOND);
    sim_disk_each(k.sim, 1, add_file, &f);
    assert_true(f.n >= 7);
    for (unsigned i = 0; i < f.n; i++) {
        uint64_t step = f.size[i] > 4000 ? f.size[i] / 60 : f.size[i] / 20;
        struct buf file = {0};
        for (uint64_t at = 0; at < f.size[i]; at += step + 1) {
            buf_clear(&file);
            if (sim_disk_read(k.sim, 1, f.path[i], &file)) break; /* the older snapshot has been removed */
            flip_one(&k, f.path[i], at, &fatal, &healed);
        }
        buf_release(&file);
    }
    assert_true(fatal > 60);
    assert_true(healed > 30);
    cluster_stop(&k);
}

/* In a cluster, the others heal it. */
static void test_distrust(void **state)
{
    (void)state;
    struct cluster k;
    configure(&k, 3, 50);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 20; v++) node_write_sized(n, v, 1000);
    struct buf file = {0};
    assert_int_equal(sim_disk_read(k.sim, n->id, "wal/0000000000000001.wal", &file), 0);
    file.data[1000] ^= 1;
    sim_disk_write(k.sim, n->id, "wal/0000000000000001.wal", buf_slice(&file));
    wait_rounds(n);
    assert_true(n->fatal);
    assert_int_equal(n->fatal_error, ERR_RESTART);
    assert_non_null(strstr(n->fatal_text, "wal/0000000000000001.wal: offset"));
    node_crash(n, SIM_KILL);
    node_boot(&k, n->id);
    assert_true(cluster_wait_value(&k, 20, 0));
    assert_same_logs(&k);
    buf_release(&file);
    cluster_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),      cmocka_unit_test(test_rate),     cmocka_unit_test(test_never),
        cmocka_unit_test(test_every_file), cmocka_unit_test(test_distrust),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
