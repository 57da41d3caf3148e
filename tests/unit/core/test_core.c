/* The core on a real env, one member: commands, read points, long reads, lease clocks, restart, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/core/core.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/log.h"
#include "raft/env_uv.h"

#define WAIT_MS 20000

static char root[64];
static uv_loop_t loop;
static uv_prepare_t prepare;
static uv_timer_t tick;
static struct env *env;
static struct core *core;
static size_t live_events, resets;
static int64_t live_rev;
static bool flag_closed;

static void on_live(void *ctx, struct event_batch *b)
{
    (void)ctx;
    assert_true(b->first_rev == live_rev + 1 || live_rev == 0);
    live_rev = b->last_rev;
    live_events += b->count;
}

static void on_reset(void *ctx, int64_t revision)
{
    (void)ctx;
    live_rev = revision;
    resets++;
}

static void on_fatal(void *ctx, int error, const char *text)
{
    (void)ctx;
    fail_msg("fatal: %s %s", err_name(error), text);
}

static void on_leader(void *ctx, uint64_t leader, bool self)
{
    (void)ctx;
    (void)leader;
    (void)self;
}

static const struct core_events events = {on_live, on_reset, on_fatal, on_leader};

static void on_prepare(uv_prepare_t *h)
{
    (void)h;
    if (core) core_flush(core);
    if (env) env_uv_flush(env);
}

static void on_tick(uv_timer_t *t)
{
    (void)t;
    if (core) core_tick(core);
}

static void set_true(void *ctx)
{
    *(bool *)ctx = true;
}

#define wait_for(cond)                                                                             \
    do {                                                                                           \
        uint64_t until = clock_mono_ms() + WAIT_MS;                                                \
        while (!(cond) && clock_mono_ms() < until) uv_run(&loop, UV_RUN_ONCE);                     \
        if (!(cond)) fail_msg("%s did not happen", #cond);                                         \
    } while (0)

static void open_core(void)
{
    struct err e = {0};
    static struct consensus_member self = {.id = 7, .name = "n1", .peer_url = "http://127.0.0.1:1"};
    static const char *urls[] = {"http://127.0.0.1:2"};
    struct env_uv_options o = {.data_dir = root, .id = 7, .cluster_id = 9};
    struct core_config c = {.consensus = {.id = 7, .cluster_id = 9, .members = &self, .n_members = 1, .new_cluster = true, .segment_bytes = 1 << 20},
                            .name = "n1", .client_urls = urls, .n_client_urls = 1, .lease_checkpoint_ms = 200};
    live_rev = 0;
    live_events = 0;
    if (env_uv_open(&loop, &o, &env, &e) != 0) fail_msg("%s", e.text);
    if (core_open(&c, env, &events, NULL, &core, &e) != 0) fail_msg("%s", e.text);
}

static void close_core(void)
{
    bool closed = false;
    struct core *c = core;
    core = NULL;
    core_close(c, set_true, &closed);
    wait_for(closed);
    flag_closed = false;
    env_uv_close(env, set_true, &flag_closed);
    env = NULL;
    wait_for(flag_closed);
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/pintle-core-XXXXXX");
    if (!mkdtemp(root)) return -1;
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    uv_prepare_init(&loop, &prepare);
    uv_prepare_start(&prepare, on_prepare);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 50, 50);
    open_core();
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    if (core) close_core();
    uv_close((uv_handle_t *)&prepare, NULL);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

/* ---- calls ---------------------------------------------------------------------------------------------- */

struct call {
    struct core_request r;
    struct buf bytes;
    bool done;
};

static void on_done(struct core_request *r)
{
    struct call *c = container_of(r, struct call, r);
    assert_false(c->done);
    c->done = true;
}

static void submit(struct call *c)
{
    c->r.done = on_done;
    core_submit(core, &c->r);
}

static void release(struct call *c)
{
    core_request_release(&c->r);
    buf_release(&c->bytes);
}

static void start_command(struct call *c, const struct command *command)
{
    *c = (struct call){.r = {.type = CORE_COMMAND}};
    command_encode(&c->bytes, command);
    c->r.command = buf_slice(&c->bytes);
    submit(c);
}

static int command(const struct command *command, int64_t *ret_revision)
{
    struct call c;
    start_command(&c, command);
    wait_for(c.done);
    if (ret_revision) *ret_revision = c.r.ret_revision;
    int code = c.r.code;
    release(&c);
    return code;
}

static struct command put_command(const char *key, const char *value, int64_t lease)
{
    return (struct command){.type = COMMAND_OP, .op = {.type = OP_PUT, .put = {.key = slice_str(key), .value = slice_str(value), .lease = lease}}};
}

static int put(const char *key, const char *value, int64_t lease)
{
    struct command c = put_command(key, value, lease);
    return command(&c, NULL);
}

static void wait_leader(void)
{
    struct call c = {.r = {.type = CORE_READ_INDEX}};
    for (;;) {
        c = (struct call){.r = {.type = CORE_READ_INDEX}};
        submit(&c);
        wait_for(c.done);
        int code = c.r.code;
        release(&c);
        if (code == 0) return;
        usleep(10000);
    }
}

static size_t count(const char *key, const char *end, bool serializable)
{
    struct call c = {.r = {.type = CORE_RANGE, .serializable = serializable, .range = {.key = slice_str(key), .range_end = slice_str(end)}}};
    submit(&c);
    wait_for(c.done);
    assert_int_equal(c.r.code, 0);
    size_t n = c.r.result.op.range.n;
    release(&c);
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------------------- */

static void test_put_get_restart(void **state)
{
    (void)state;
    wait_leader();
    char key[16];
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%02d", i);
        assert_int_equal(put(key, "v", 0), 0);
    }
    assert_int_equal(count("k", "l", false), 50);
    assert_int_equal(count("k", "l", true), 50);
    assert_int_equal(live_events, 50);
    int64_t revision = core_revision(core);
    close_core();
    open_core();
    wait_leader();
    assert_true(core_revision(core) == revision);
    assert_int_equal(count("k", "l", false), 50);
}

static void test_batches(void **state)
{
    enum { N = 20000 };
    static struct call calls[N];
    char key[16];
    (void)state;
    wait_leader();
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof(key), "b%05d", i);
        struct command c = put_command(key, "value", 0);
        start_command(&calls[i], &c);
    }
    for (int i = 0; i < N; i++) {
        wait_for(calls[i].done);
        assert_int_equal(calls[i].r.code, 0);
        assert_true(i == 0 || calls[i].r.ret_revision == calls[i - 1].r.ret_revision + 1);
    }
    for (int i = 0; i < N; i++) release(&calls[i]);
    struct call s = {.r = {.type = CORE_STATUS}};
    submit(&s);
    wait_for(s.done);
    assert_true(s.r.status->batches < N / 100);
    assert_int_equal(s.r.status->keys, N);
    release(&s);
}

static void test_refusals(void **state)
{
    (void)state;
    wait_leader();
    int64_t before = core_revision(core);
    assert_int_equal(put("k", "v", 12345), ERR_LEASE_NOT_FOUND);
    assert_true(core_revision(core) == before);
    struct command c = {.type = COMMAND_COMPACT, .compact = {.revision = 1000}};
    assert_int_equal(command(&c, NULL), ERR_FUTURE_REV);
    struct call r = {.r = {.type = CORE_RANGE, .range = {.key = SLICE_LIT("k"), .revision = 1000}}};
    submit(&r);
    wait_for(r.done);
    assert_int_equal(r.r.code, ERR_FUTURE_REV);
    release(&r);
    static char large[LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES + 1];
    memset(large, 'x', sizeof(large) - 1);
    assert_int_equal(put("large", large, 0), ERR_TOO_LARGE);
    assert_true(core_revision(core) == before);
}

static void test_too_many(void **state)
{
    enum { N = LIMIT_CORE_PENDING_REQUESTS + 10 };
    struct call *calls = calloc(N, sizeof(*calls));
    size_t refused = 0;
    (void)state;
    wait_leader();
    struct command c = put_command("k", "v", 0);
    struct call open = {.r = {.type = CORE_CURSOR_OPEN, .range = {.key = SLICE_LIT("c"), .range_end = SLICE_LIT("d")}}};
    submit(&open);
    wait_for(open.done);
    assert_int_equal(open.r.code, 0);
    for (int i = 0; i < N; i++) start_command(&calls[i], &c);
    /* What gives room back is never refused, or it would be lost for good. */
    struct call closing = {.r = {.type = CORE_CURSOR_CLOSE, .cursor = open.r.cursor}}, history = {.r = {.type = CORE_HISTORY, .from_rev = 1}};
    submit(&closing);
    submit(&history);
    assert_true(closing.done && closing.r.code == 0 && history.done && history.r.code == 0);
    release(&open);
    release(&closing);
    release(&history);
    for (int i = 0; i < N; i++) {
        wait_for(calls[i].done);
        refused += calls[i].r.code == ERR_TOO_MANY_REQUESTS;
        assert_true(calls[i].r.code == 0 || calls[i].r.code == ERR_TOO_MANY_REQUESTS);
        release(&calls[i]);
    }
    assert_in_range(refused, 9, 12);
    free(calls);
}

static void test_lease_expires(void **state)
{
    (void)state;
    wait_leader();
    struct command grant = {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = 5, .ttl = 1}};
    assert_int_equal(command(&grant, NULL), 0);
    assert_int_equal(command(&grant, NULL), ERR_LEASE_EXISTS);
    assert_int_equal(put("leased", "v", 5), 0);
    struct call r = {.r = {.type = CORE_LEASE_INFO, .lease_id = 5, .want_keys = true}};
    submit(&r);
    wait_for(r.done);
    assert_int_equal(r.r.code, 0);
    assert_int_equal(r.r.n_keys, 1);
    assert_int_equal(r.r.granted_ttl, 2); /* the least there is, as in etcd */
    release(&r);
    r = (struct call){.r = {.type = CORE_LEASE_RENEW, .lease_id = 5}};
    submit(&r);
    wait_for(r.done);
    assert_int_equal(r.r.code, 0);
    assert_int_equal(r.r.ttl, 2);
    release(&r);
    wait_for(count("leased", "", true) == 0);
    r = (struct call){.r = {.type = CORE_LEASE_RENEW, .lease_id = 5}};
    submit(&r);
    wait_for(r.done);
    assert_int_equal(r.r.code, ERR_LEASE_NOT_FOUND);
    release(&r);
}

static int64_t remaining(int64_t lease)
{
    struct lease_info info;
    assert_true(store_lease(core_store(core), lease, &info));
    return info.remaining_ttl;
}

/* What a checkpoint has left of a lease is what a next leader gives it: a renewal takes that back before it is answered. */
static void test_renewal_after_checkpoint(void **state)
{
    (void)state;
    wait_leader();
    struct command grant = {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = 6, .ttl = 1000}};
    assert_int_equal(command(&grant, NULL), 0);
    wait_for(remaining(6) > 0 && remaining(6) < 999);
    struct call r = {.r = {.type = CORE_LEASE_RENEW, .lease_id = 6}};
    submit(&r);
    wait_for(r.done);
    assert_int_equal(r.r.code, 0);
    assert_int_equal(r.r.ttl, 1000);
    assert_true(remaining(6) == 0 || remaining(6) >= 999); /* the next checkpoint may have come since */
    release(&r);
    close_core();
    open_core();
    wait_leader();
    assert_true(remaining(6) == 0 || remaining(6) >= 999);
}

static void test_cursor_snapshot_history(void **state)
{
    char key[16];
    (void)state;
    wait_leader();
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "c%04d", i);
        assert_int_equal(put(key, "v", 0), 0);
    }
    struct call o = {.r = {.type = CORE_CURSOR_OPEN, .range = {.key = SLICE_LIT("c"), .range_end = SLICE_LIT("d")}}};
    submit(&o);
    wait_for(o.done);
    assert_int_equal(o.r.code, 0);
    assert_int_equal(o.r.result.op.range.count, 300);
    size_t n = o.r.result.op.range.n;
    bool more = o.r.result.op.range.more;
    struct core_cursor *cursor = o.r.cursor;
    release(&o);
    while (more) {
        struct call nx = {.r = {.type = CORE_CURSOR_NEXT, .cursor = cursor}};
        submit(&nx);
        wait_for(nx.done);
        n += nx.r.result.op.range.n;
        more = nx.r.result.op.range.more;
        release(&nx);
    }
    assert_int_equal(n, 300);
    struct call cl = {.r = {.type = CORE_CURSOR_CLOSE, .cursor = cursor}};
    submit(&cl);
    wait_for(cl.done);
    release(&cl);
    struct call h = {.r = {.type = CORE_HISTORY, .from_rev = 2}};
    submit(&h);
    wait_for(h.done);
    assert_int_equal(h.r.code, 0);
    assert_int_equal(h.r.events->count, 300);
    assert_int_equal(h.r.upto_rev, 301);
    release(&h);
    struct call s = {.r = {.type = CORE_SNAPSHOT_OPEN}};
    submit(&s);
    wait_for(s.done);
    struct store_loader *loader = store_loader_new(&(struct store_options){0});
    for (bool all = false; !all;) {
        struct call p = {.r = {.type = CORE_SNAPSHOT_NEXT, .snapshot = s.r.snapshot}};
        submit(&p);
        wait_for(p.done);
        assert_int_equal(p.r.code, 0);
        assert_int_equal(store_loader_feed(loader, blob_slice(p.r.piece), NULL), 0);
        all = p.r.done_all;
        release(&p);
    }
    struct store *copy;
    assert_int_equal(store_loader_finish(loader, &copy, NULL), 0);
    assert_true(store_keys(copy) == 300);
    store_free(copy);
    store_loader_free(loader);
    struct call sc = {.r = {.type = CORE_SNAPSHOT_CLOSE, .snapshot = s.r.snapshot}};
    submit(&sc);
    wait_for(sc.done);
    release(&sc);
    release(&s);
    struct call hash = {.r = {.type = CORE_HASH_KV}};
    submit(&hash);
    wait_for(hash.done);
    assert_int_equal(hash.r.code, 0);
    assert_int_equal(hash.r.hash_revision, 301);
    release(&hash);
}

/* Each open handle keeps what it shows: so many and no more; what is closed makes room. */
static void test_too_many_handles(void **state)
{
    static struct call open[LIMIT_CORE_CURSORS], close, more;
    (void)state;
    wait_leader();
    assert_int_equal(put("c", "v", 0), 0);
    for (size_t i = 0; i < LIMIT_CORE_CURSORS; i++) {
        open[i] = (struct call){.r = {.type = CORE_CURSOR_OPEN, .serializable = true, .range = {.key = SLICE_LIT("c")}}};
        submit(&open[i]);
        assert_true(open[i].done && open[i].r.code == 0);
    }
    for (int i = 0; i < 2; i++) {
        more = (struct call){.r = {.type = CORE_CURSOR_OPEN, .serializable = true, .range = {.key = SLICE_LIT("c")}}};
        submit(&more);
        assert_int_equal(more.r.code, i == 0 ? ERR_TOO_MANY_REQUESTS : 0);
        if (i == 0) release(&more);
        close = (struct call){.r = {.type = CORE_CURSOR_CLOSE, .cursor = i == 0 ? open[0].r.cursor : more.r.cursor}};
        submit(&close);
        release(&close);
    }
    release(&more);
    for (size_t i = 0; i < LIMIT_CORE_CURSORS; i++) {
        close = (struct call){.r = {.type = CORE_CURSOR_CLOSE, .cursor = open[i].r.cursor}};
        if (i) submit(&close);
        release(&close);
        release(&open[i]);
    }
    for (size_t i = 0; i <= LIMIT_CORE_SNAPSHOTS; i++) {
        open[i] = (struct call){.r = {.type = CORE_SNAPSHOT_OPEN}};
        submit(&open[i]);
        assert_int_equal(open[i].r.code, i < LIMIT_CORE_SNAPSHOTS ? 0 : ERR_TOO_MANY_REQUESTS);
    }
    for (size_t i = 0; i <= LIMIT_CORE_SNAPSHOTS; i++) {
        close = (struct call){.r = {.type = CORE_SNAPSHOT_CLOSE, .snapshot = open[i].r.snapshot}};
        if (i < LIMIT_CORE_SNAPSHOTS) submit(&close);
        release(&close);
        release(&open[i]);
    }
    for (size_t i = 0; i <= LIMIT_CORE_HASHES; i++) {
        open[i] = (struct call){.r = {.type = CORE_HASH_KV}};
        submit(&open[i]);
    }
    for (size_t i = 0; i <= LIMIT_CORE_HASHES; i++) {
        wait_for(open[i].done);
        assert_int_equal(open[i].r.code, i < LIMIT_CORE_HASHES ? 0 : ERR_TOO_MANY_REQUESTS);
        release(&open[i]);
    }
}

static void test_close_answers_all(void **state)
{
    struct call a, b = {.r = {.type = CORE_RANGE, .range = {.key = SLICE_LIT("k")}}}, h = {.r = {.type = CORE_HASH_KV}};
    (void)state;
    wait_leader();
    struct command c = put_command("k", "v", 0);
    start_command(&a, &c);
    submit(&b);
    submit(&h);
    close_core();
    assert_true(a.done && b.done && h.done);
    release(&a);
    release(&b);
    release(&h);
}

static void test_members(void **state)
{
    struct call m;
    (void)state;
    wait_leader();
    for (;;) { /* the name is published after the election */
        m = (struct call){.r = {.type = CORE_MEMBERS}};
        submit(&m);
        wait_for(m.done);
        assert_int_equal(m.r.n_members, 1);
        if (m.r.members[0].name.len) break;
        release(&m);
    }
    assert_true(slice_eq_str(m.r.members[0].name, "n1"));
    assert_true(slice_eq_str(m.r.members[0].client_urls[0], "http://127.0.0.1:2"));
    release(&m);
}

static bool remembers(uint64_t id)
{
    struct member_attributes have;
    return store_member_attributes(core_store(core), id, &have) || store_member_corrupt(core_store(core), id);
}

/* What the store remembers of members that are none goes, as after a removal or from a backup of another cluster; what it
 * remembers of this one stays, and an alarm that somebody has set, too. */
static void test_forgets_strangers(void **state)
{
    struct slice url = SLICE_LIT("http://127.0.0.1:3");
    struct command c = {.type = COMMAND_MEMBER_ATTRIBUTES, .member = {.name = SLICE_LIT("gone"), .client_urls = &url, .n_client_urls = 1}};
    struct command verdict = {.type = COMMAND_VERDICT, .check = {.member_id = 5, .corrupt = true}};
    struct command set = {.type = COMMAND_ALARM, .alarm = {.member_id = 6, .alarm = ALARM_NOSPACE, .activate = true}};
    (void)state;
    wait_leader();
    wait_for(remembers(7));
    for (c.member.member_id = 3; c.member.member_id <= 8; c.member.member_id += 5) assert_int_equal(command(&c, NULL), 0);
    assert_int_equal(command(&verdict, NULL), 0);
    assert_int_equal(command(&set, NULL), 0);
    wait_for(!remembers(3) && !remembers(5) && !remembers(8));
    assert_true(remembers(7));
    struct alarm alarms[4];
    assert_int_equal(store_alarms(core_store(core), alarms, 4), 1);
    assert_int_equal(alarms[0].member_id, 6);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_put_get_restart), T(test_batches), T(test_refusals), T(test_too_many), T(test_lease_expires), T(test_renewal_after_checkpoint),
        T(test_cursor_snapshot_history), T(test_too_many_handles), T(test_close_answers_all), T(test_members),
        T(test_forgets_strangers),
    };
    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
