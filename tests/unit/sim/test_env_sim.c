/* The simulated world itself: what it keeps, what it loses, and that a seed is a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/mem.h"
#include "tests/sim/env_sim.h"

/* ---- a member whose only code is this
 * ------------------------------------------------------------ */

struct node {
    struct sim *sim;
    struct env *env;
    uint64_t id;
    struct buf heard; /* first bytes of the frames, in order */
    unsigned ticks, ups, downs, ended;
    int last_status;
    bool stopped;
};

static void on_tick(void *ctx)
{
    ((struct node *)ctx)->ticks++;
}

static void on_frame(void *ctx, uint64_t peer, enum env_channel ch, struct slice frame)
{
    struct node *n = ctx;
    (void)peer, (void)ch;
    assert_int_equal(buf_append(&n->heard, frame.data, 1), 0);
}

static void on_link(void *ctx, uint64_t peer, bool up)
{
    struct node *n = ctx;
    (void)peer;
    if (up) n->ups++;
    else n->downs++;
}

static const struct env_handlers handlers = {on_tick, on_frame, on_link};

static void node_boot(struct node *n, struct sim *s, uint64_t id, unsigned members)
{
    n->sim = s;
    n->id = id;
    n->env = sim_boot(s, id);
    n->stopped = false;
    for (uint64_t to = 1; to <= members; to++) {
        if (to != id) assert_int_equal(n->env->ops->set_peer(n->env, to, "http://peer"), 0);
    }
    assert_int_equal(n->env->ops->start(n->env, 50, &handlers, n), 0);
}

static void on_stopped(void *ctx)
{
    ((struct node *)ctx)->stopped = true;
}

static bool is_stopped(void *ctx)
{
    return ((struct node *)ctx)->stopped;
}

static void node_end(struct node *n)
{
    n->env->ops->stop(n->env, on_stopped, n);
    assert_true(sim_run_until(n->sim, is_stopped, n, 1000000));
    sim_release(n->env);
    n->env = NULL;
}

struct packet {
    struct env_send send;
    uint8_t byte;
    struct node *node;
};

static void packet_done(struct env_send *s)
{
    struct packet *p = container_of(s, struct packet, send);
    p->node->ended++;
    p->node->last_status = s->status;
    mem_free(p);
}

static void node_send(struct node *n, uint64_t to, uint8_t byte)
{
    struct packet *p = mem_must_calloc(1, sizeof *p);
    p->byte = byte;
    p->node = n;
    p->send = (struct env_send){.peer_id = to, .n_iov = 1, .done = packet_done};
    p->send.iov[0] = slice_make(&p->byte, 1);
    n->env->ops->send(n->env, &p->send);
}

/* ---- disk
 * ---------------------------------------------------------------------------------------- */

static int op(struct env *e, struct env_io *io)
{
    return e->ops->io_sync(e, io);
}

static struct env_file *make_file(struct env *e, const char *path)
{
    struct env_io io = {.op = ENV_IO_OPEN, .path = path, .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE};
    assert_int_equal(op(e, &io), 0);
    return io.file;
}

static void put(struct env *e, struct env_file *f, uint64_t at, const void *data, size_t len,
                bool sync)
{
    struct env_io io = {
        .op = sync ? ENV_IO_WRITE_SYNC : ENV_IO_WRITE, .file = f, .offset = at, .n_iov = 1};
    io.iov[0] = slice_make(data, len);
    assert_int_equal(op(e, &io), 0);
}

static void rename_file(struct env *e, const char *from, const char *to)
{
    struct env_io io = {.op = ENV_IO_RENAME, .path = from, .path2 = to};
    assert_int_equal(op(e, &io), 0);
}

static void power(struct sim *s, uint64_t id)
{
    struct env *e = sim_env(s, id);
    sim_crash(s, id, SIM_POWER);
    sim_release(e);
}

/* Synced bytes and names survive every power failure; of the rest each outcome happens. */
static void test_power_failure(void **state)
{
    (void)state;
    unsigned vanished = 0, whole = 0, torn = 0, none = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct sim_options o;
        sim_options_default(&o, seed, 1);
        struct sim *s = sim_new(&o);
        struct env *e = sim_boot(s, 1);
        uint8_t old[4096], new[4096];
        memset(old, 'o', sizeof old);
        memset(new, 'n', sizeof new);
        struct env_file *f = make_file(e, "wal.tmp");
        put(e, f, 0, old, sizeof old, true);
        rename_file(e, "wal.tmp", "wal");
        put(e, f, 0, new, sizeof new, false);
        put(e, make_file(e, "lonely"), 0, old, sizeof old, true);
        power(s, 1);
        struct buf b = {0};
        assert_int_equal(sim_disk_read(s, 1, "wal.tmp", &b), ERR_NOT_FOUND);
        assert_int_equal(sim_disk_read(s, 1, "wal", &b), 0);
        assert_int_equal(b.len, sizeof old);
        size_t n = 0;
        for (size_t i = 0; i < b.len; i++) {
            assert_int_equal(b.data[i], b.data[i / 512 * 512]); /* sectors are whole */
            n += b.data[i] == 'n';
        }
        whole += n == sizeof new;
        none += n == 0;
        torn += n > 0 && n < sizeof new;
        buf_clear(&b);
        vanished += sim_disk_read(s, 1, "lonely", &b) == ERR_NOT_FOUND;
        buf_release(&b);
        sim_free(s);
    }
    assert_in_range(vanished, 100, 200);
    assert_in_range(whole, 50, 150);
    assert_in_range(none, 50, 150);
    assert_in_range(torn, 80, 200);
}

static void test_kill_keeps_what_was_written(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 7, 1);
    struct sim *s = sim_new(&o);
    struct env *e = sim_boot(s, 1);
    put(e, make_file(e, "a"), 0, "hello", 5, false);
    sim_crash(s, 1, SIM_KILL);
    sim_release(e);
    struct buf b = {0};
    assert_int_equal(sim_disk_read(s, 1, "a", &b), 0);
    assert_true(slice_eq_str(buf_slice(&b), "hello"));
    buf_release(&b);
    sim_free(s);
}

/* A term written by write_file is there after any crash, whole. */
static void test_write_file_is_durable(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim_options o;
        sim_options_default(&o, seed, 1);
        struct sim *s = sim_new(&o);
        struct env *e = sim_boot(s, 1);
        struct err err;
        assert_int_equal(e->ops->mkdir(e, "d", &err), 0);
        assert_int_equal(e->ops->write_file(e, "d/term", SLICE_LIT("1"), &err), 0);
        assert_int_equal(e->ops->write_file(e, "d/term", SLICE_LIT("22"), &err), 0);
        assert_int_equal(e->ops->write_file(e, "x/term", SLICE_LIT("22"), &err), ERR_NOT_FOUND);
        power(s, 1);
        struct buf b = {0};
        assert_int_equal(sim_disk_read(s, 1, "d/term", &b), 0);
        assert_true(slice_eq_str(buf_slice(&b), "22"));
        buf_release(&b);
        sim_free(s);
    }
}

static void test_disk_errors(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 3, 1);
    o.disk.capacity = 1000;
    struct sim *s = sim_new(&o);
    struct env *e = sim_boot(s, 1);
    struct env_file *f = make_file(e, "a");
    uint8_t bytes[600] = {0};
    put(e, f, 0, bytes, sizeof bytes, true);
    struct env_io io = {.op = ENV_IO_WRITE, .file = f, .offset = 600, .n_iov = 1};
    io.iov[0] = slice_make(bytes, sizeof bytes);
    assert_int_equal(op(e, &io), ERR_NO_SPACE);
    sim_disk_fail_nth(s, 1, 1);
    io.offset = 0;
    assert_int_equal(op(e, &io), ERR_IO);
    assert_int_equal(op(e, &io), 0);
    struct env_io excl = {.op = ENV_IO_OPEN,
                          .path = "a",
                          .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE};
    assert_int_equal(op(e, &excl), ERR_EXISTS);
    struct env_io none = {.op = ENV_IO_OPEN, .path = "b"};
    assert_int_equal(op(e, &none), ERR_NOT_FOUND);
    struct buf b = {0};
    assert_int_equal(sim_disk_read(s, 1, "a", &b), 0);
    const char *path;
    uint64_t at;
    assert_true(sim_disk_flip(s, 1, "a", &path, &at));
    assert_string_equal(path, "a");
    struct buf c = {0};
    assert_int_equal(sim_disk_read(s, 1, "a", &c), 0);
    assert_int_equal(b.len, c.len);
    assert_int_not_equal(memcmp(b.data, c.data, b.len), 0);
    assert_false(sim_disk_flip(s, 1, "zzz", NULL, NULL));
    buf_release(&b);
    buf_release(&c);
    sim_release(e);
    sim_free(s);
}

struct lane_log {
    char text[16];
    unsigned n;
};

static void lane_done(struct env_io *io)
{
    struct lane_log *l = io->data;
    l->text[l->n++] = (char)io->offset;
}

/* Each lane is first in, first out, and `done` never comes from inside the call. */
static void test_lanes(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 5, 1);
    struct sim *s = sim_new(&o);
    struct env *e = sim_boot(s, 1);
    struct env_file *f = make_file(e, "a");
    struct lane_log l = {0};
    struct env_io ios[4];
    for (unsigned i = 0; i < 4; i++) {
        ios[i] = (struct env_io){.op = i == 0 ? ENV_IO_WRITE_SYNC : ENV_IO_WRITE,
                                 .lane = i == 3 ? ENV_LANE_BULK : ENV_LANE_LOG,
                                 .file = f,
                                 .offset = 'a' + i,
                                 .n_iov = 1,
                                 .done = lane_done,
                                 .data = &l};
        ios[i].iov[0] = SLICE_LIT("x");
        e->ops->io(e, &ios[i]);
        assert_int_equal(l.n, 0);
    }
    sim_run_for(s, 100000);
    assert_int_equal(l.n, 4);
    char log_lane[4] = {0};
    for (unsigned i = 0, n = 0; i < 4; i++) {
        if (l.text[i] != 'd') log_lane[n++] = l.text[i];
    }
    assert_memory_equal(log_lane, "abc", 3);
    assert_int_equal(l.text[0], 'd'); /* it did not wait for the sync on the other lane */
    sim_release(e);
    sim_free(s);
}

/* ---- network
 * ------------------------------------------------------------------------------------- */

static void test_frames_in_order(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 11, 2);
    o.net.spike_ppm = 300000;
    o.net.spike_us = 50000;
    struct sim *s = sim_new(&o);
    struct node a = {0}, b = {0};
    node_boot(&a, s, 1, 2);
    node_boot(&b, s, 2, 2);
    node_send(&a, 2, 'x'); /* no connection yet */
    sim_run_for(s, 1);
    assert_int_equal(a.last_status, ERR_CLOSED);
    sim_run_for(s, 200000);
    assert_true(a.ups >= 1 && b.ups >= 1);
    for (unsigned i = 0; i < 100; i++) node_send(&a, 2, (uint8_t)i);
    assert_int_equal(a.ended, 1);
    sim_run_for(s, 1000000);
    assert_int_equal(a.ended, 101);
    assert_int_equal(b.heard.len, 100);
    for (unsigned i = 0; i < 100; i++) assert_int_equal(b.heard.data[i], i);
    assert_in_range(a.ticks, 20, 25);
    node_end(&a);
    node_end(&b);
    buf_release(&b.heard);
    sim_free(s);
}

/* A cut that stalls delivers late and in order; one that resets loses a suffix. */
static void test_cuts(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 12, 2);
    struct sim *s = sim_new(&o);
    struct node a = {0}, b = {0};
    node_boot(&a, s, 1, 2);
    node_boot(&b, s, 2, 2);
    sim_run_for(s, 200000);
    sim_cut(s, 1, 2, false);
    node_send(&a, 2, 'a');
    node_send(&a, 2, 'b');
    node_send(&b, 1, 'z');
    sim_run_for(s, 1000000);
    assert_int_equal(b.heard.len, 0);
    assert_int_equal(a.heard.len, 1); /* the other way is open */
    sim_heal(s, 1, 2);
    sim_run_for(s, 100000);
    assert_int_equal(b.heard.len, 2);
    assert_memory_equal(b.heard.data, "ab", 2);
    sim_cut(s, 1, 2, true);
    node_send(&a, 2, 'c');
    sim_run_for(s, 1000000);
    assert_int_equal(a.last_status, ERR_CLOSED);
    assert_int_equal(a.downs, 0); /* the other connection is still there */
    sim_cut(s, 2, 1, true);
    sim_run_for(s, 100000);
    assert_int_equal(a.downs, 1);
    assert_int_equal(b.downs, 1);
    sim_heal_all(s);
    sim_run_for(s, 200000);
    node_send(&a, 2, 'd');
    sim_run_for(s, 100000);
    assert_int_equal(b.heard.len, 3);
    assert_int_equal(b.heard.data[2], 'd');
    sim_pause(s, 2, 500000);
    node_send(&a, 2, 'e');
    sim_run_for(s, 400000);
    assert_int_equal(b.heard.len, 3);
    sim_run_for(s, 200000);
    assert_int_equal(b.heard.len, 4);
    node_end(&a);
    node_end(&b);
    buf_release(&a.heard);
    buf_release(&b.heard);
    sim_free(s);
}

static void test_harsher_than_tcp(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 13, 2);
    o.net.duplicate_ppm = o.net.reorder_ppm = 200000;
    struct sim *s = sim_new(&o);
    struct node a = {0}, b = {0};
    node_boot(&a, s, 1, 2);
    node_boot(&b, s, 2, 2);
    sim_run_for(s, 200000);
    for (unsigned i = 0; i < 100; i++) node_send(&a, 2, (uint8_t)i);
    sim_run_for(s, 1000000);
    assert_in_range(b.heard.len, 105, 140);
    unsigned backwards = 0;
    for (size_t i = 1; i < b.heard.len; i++) backwards += b.heard.data[i] < b.heard.data[i - 1];
    assert_true(backwards > 5);
    node_end(&a);
    node_end(&b);
    buf_release(&b.heard);
    sim_free(s);
}

/* ---- lives and seeds
 * ----------------------------------------------------------------------------- */

static unsigned crashes_seen;

static void on_crash(void *ctx, uint64_t id)
{
    (void)ctx;
    crashes_seen += (unsigned)id;
}

/* The crash comes at exactly that operation, and what the dead code still does is seen by nobody.
 */
static void test_crash_after(void **state)
{
    (void)state;
    struct sim_options o;
    sim_options_default(&o, 21, 1);
    struct sim *s = sim_new(&o);
    crashes_seen = 0;
    sim_on_crash(s, on_crash, NULL);
    struct env *e = sim_boot(s, 1);
    struct err err;
    sim_crash_after(s, 1, SIM_POWER, 3);
    assert_int_equal(e->ops->write_file(e, "1", SLICE_LIT("x"), &err), 0);
    assert_int_equal(e->ops->write_file(e, "2", SLICE_LIT("x"), &err), 0);
    assert_ptr_equal(sim_env(s, 1), e);
    assert_int_equal(e->ops->write_file(e, "3", SLICE_LIT("x"), &err), 0);
    assert_null(sim_env(s, 1));
    assert_int_equal(e->ops->write_file(e, "4", SLICE_LIT("x"), &err), 0);
    sim_run_for(s, 1);
    assert_int_equal(crashes_seen, 1);
    struct buf b = {0};
    assert_int_equal(sim_disk_read(s, 1, "2", &b), 0);
    assert_int_equal(sim_disk_read(s, 1, "3", &b), ERR_NOT_FOUND);
    assert_int_equal(sim_disk_read(s, 1, "4", &b), ERR_NOT_FOUND);
    buf_release(&b);
    sim_release(e);
    sim_free(s);
}

static uint64_t one_run(uint64_t seed)
{
    struct sim_options o;
    sim_options_default(&o, seed, 3);
    o.net.duplicate_ppm = o.net.reorder_ppm = o.net.reset_ppm = 50000;
    o.clock_drift_ppm = 1000;
    struct sim *s = sim_new(&o);
    struct node n[4] = {0};
    for (uint64_t id = 1; id <= 3; id++) node_boot(&n[id], s, id, 3);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t from = 1 + i % 3;
        node_send(&n[from], 1 + (i + 1) % 3, (uint8_t)i);
        sim_run_for(s, 1000);
        if (i == 150) {
            struct env *e = n[2].env;
            sim_crash(s, 2, SIM_POWER);
            e->ops->stop(e, on_stopped, &n[2]);
            assert_true(sim_run_until(s, is_stopped, &n[2], 1000000));
            sim_release(e);
            node_boot(&n[2], s, 2, 3);
        }
    }
    for (uint64_t id = 1; id <= 3; id++) {
        node_end(&n[id]);
        buf_release(&n[id].heard);
    }
    uint64_t digest = sim_digest(s);
    sim_free(s);
    return digest;
}

static void test_same_seed_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t first = one_run(seed);
        void *shift = mem_must_alloc(1000 * seed); /* other addresses */
        assert_true(one_run(seed) == first);
        assert_true(one_run(seed + 1000) != first);
        mem_free(shift);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_failure),
        cmocka_unit_test(test_kill_keeps_what_was_written),
        cmocka_unit_test(test_write_file_is_durable),
        cmocka_unit_test(test_disk_errors),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_frames_in_order),
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_harsher_than_tcp),
        cmocka_unit_test(test_crash_after),
        cmocka_unit_test(test_same_seed_same_run),
    };
    return cmocka_run_group_tests_name("env_sim", tests, NULL, NULL);
}
