/* Term and vote in two copies: what is damaged, missing or old in one comes from the other; a crash
 * between the two loses nothing that was answered. */
#include "cluster.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "raft/consensus_int.h"

static struct sim *sim;
static struct env *env;

static int setup(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 1, 1);
    sim = sim_new(&o);
    env = sim_boot(sim, 1);
    return 0;
}

static void set_flag(void *ctx)
{
    *(bool *)ctx = true;
}

static bool flag_set(void *arg)
{
    return *(bool *)arg;
}

static int teardown(void **state)
{
    (void)state;
    bool stopped = false;
    env->ops->stop(env, set_flag, &stopped);
    assert_true(sim_run_until(sim, flag_set, &stopped, SECOND));
    sim_release(env);
    sim_free(sim);
    return 0;
}

static struct meta some(void)
{
    struct meta m = {.term = 7, .voted_for = 3, .boots = 12, .flags = META_RECOVERING, .n_seen = 2};
    m.seen[0] = (struct meta_seen){2, 5, 99};
    m.seen[1] = (struct meta_seen){3, 6, 98};
    snprintf(m.why, sizeof m.why, "wal/1: offset 64");
    return m;
}

static void write_some(struct meta *m)
{
    struct err e = {{0}};
    *m = some();
    assert_int_equal(meta_write(env, 1, 1, m, &e), 0);
}

static void assert_reads(const struct meta *want)
{
    struct meta got;
    struct err e = {{0}};
    if (meta_read(env, 1, 1, &got, &e)) fail_msg("%s", e.text);
    assert_memory_equal(&got, want, sizeof got);
}

static void load(const char *path, struct buf *out)
{
    buf_clear(out);
    assert_int_equal(sim_disk_read(sim, 1, path, out), 0);
}

static void assert_copies_equal(void)
{
    struct buf a = {0}, b = {0};
    load(meta_paths[0], &a);
    load(meta_paths[1], &b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    buf_release(&a);
    buf_release(&b);
}

static void test_comes_back(void **state)
{
    (void)state;
    struct meta m, got;
    struct err e = {{0}};
    assert_int_equal(meta_read(env, 1, 1, &got, &e), ERR_NOT_FOUND);
    write_some(&m);
    assert_reads(&m);
    assert_int_equal(meta_read(env, 2, 1, &got, &e), ERR_CLUSTER_MISMATCH);
    assert_int_equal(meta_read(env, 1, 2, &got, &e), ERR_CLUSTER_MISMATCH);
}

static void test_every_bit_of_one_copy(void **state)
{
    (void)state;
    struct meta m;
    struct buf file = {0};
    write_some(&m);
    for (int copy = 0; copy < META_COPIES; copy++) {
        load(meta_paths[copy], &file);
        for (size_t bit = 0; bit < 8 * file.len; bit++) {
            file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            sim_disk_write(sim, 1, meta_paths[copy], buf_slice(&file));
            assert_reads(&m);
            assert_copies_equal();
            file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (size_t len = 0; len < file.len; len++) { /* cut, and as long as before with zeros */
            sim_disk_write(sim, 1, meta_paths[copy], slice_sub(buf_slice(&file), 0, len));
            assert_reads(&m);
            assert_copies_equal();
        }
        sim_disk_write(sim, 1, meta_paths[copy], SLICE_LIT(""));
        assert_int_equal(env->ops->unlink_file(env, meta_paths[copy], NULL), 0);
        assert_reads(&m);
        assert_copies_equal();
    }
    buf_release(&file);
}

static void test_both_copies(void **state)
{
    (void)state;
    struct meta m, got;
    struct buf file = {0};
    struct err e = {{0}};
    write_some(&m);
    load(meta_paths[0], &file);
    for (size_t i = 0; i < file.len; i++) {
        file.data[i] ^= 0x10;
        sim_disk_write(sim, 1, meta_paths[0], buf_slice(&file));
        sim_disk_write(sim, 1, meta_paths[1], buf_slice(&file));
        assert_int_equal(meta_read(env, 1, 1, &got, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "meta: offset"));
        assert_non_null(strstr(e.text, "meta2: offset"));
        file.data[i] ^= 0x10;
    }
    /* One damaged and one missing is no new member either. */
    file.data[30] ^= 1;
    sim_disk_write(sim, 1, meta_paths[1], buf_slice(&file));
    assert_int_equal(env->ops->unlink_file(env, meta_paths[0], NULL), 0);
    assert_int_equal(meta_read(env, 1, 1, &got, &e), ERR_CORRUPT);
    buf_release(&file);
}

/* A failure or a crash between the copies: what the first one holds counts, and an old copy put back does not. */
static void test_between_the_copies(void **state)
{
    (void)state;
    struct meta first, second, got;
    struct buf old = {0};
    struct err e = {{0}};
    for (int copy = 0; copy < META_COPIES; copy++) {
        write_some(&first);
        load(meta_paths[copy], &old);
        second = first;
        second.term = 8;
        second.voted_for = 2;
        assert_int_equal(meta_write(env, 1, 1, &second, &e), 0);
        sim_disk_write(sim, 1, meta_paths[copy], buf_slice(&old));
        assert_reads(&second);
        assert_copies_equal();
    }
    for (unsigned nth = 1; nth <= META_COPIES; nth++) {
        first = second;
        second.term++;
        sim_disk_fail_nth(sim, 1, nth);
        assert_int_equal(meta_write(env, 1, 1, &second, &e), ERR_IO);
        assert_int_equal(meta_read(env, 1, 1, &got, &e), 0);
        assert_int_equal(got.term, nth == 1 ? first.term : second.term);
        assert_copies_equal();
        second = got;
    }
    buf_release(&old);
}

/* A folder of an earlier version: one copy, 48 bytes. */
static void test_first_format(void **state)
{
    (void)state;
    static const uint8_t file[48] = {0x00, 'P', 'N', 'T', 'M', 'T', 'A', '1', 1, 0, 0, 0, 0, 0, 0, 0,
                                     1,    0,   0,   0,   0,   0,   0,   0,   5, 0, 0, 0, 0, 0, 0, 0,
                                     2,    0,   0,   0,   0,   0,   0,   0,   0, 0, 0, 0};
    uint8_t whole[48];
    struct meta want = {.term = 5, .voted_for = 2};
    memcpy(whole, file, sizeof whole);
    uint32_t crc = crc32c(0, whole, 40);
    for (int i = 0; i < 4; i++) whole[40 + i] = (uint8_t)(crc >> (8 * i));
    sim_disk_write(sim, 1, meta_paths[0], slice_make(whole, sizeof whole));
    assert_reads(&want);
    assert_copies_equal();
    want.term = 6;
    struct err e = {{0}};
    assert_int_equal(meta_write(env, 1, 1, &want, &e), 0);
    assert_reads(&want);
    assert_copies_equal();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_bit_of_one_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_between_the_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_format, setup, teardown),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
