/* Each allocation of the core's thread fails once, from opening to closing: core, raft, store,
 * schemas. Every request is answered, with success or an error, or the process stops with status 1;
 * and what it had acknowledged is there afterwards.
 *
 * Each try is a process of its own (so the whole is one mechanism for "answers an error" and for
 * "stops"), each on a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/core/core.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/env_uv.h"

enum { KEYS = 24, WAIT_MS = 60000, EXIT_NOT_REACHED = 10, EXIT_HANGS, EXIT_LOST, EXIT_OPEN };

static uv_loop_t loop;
static struct env *env;
static struct core *core;
static char root[64], said[80]; /* the folder; where the process under test writes its log */
static int told;                /* the pipe on which acknowledged keys are told, or -1 */

static void on_live(void *ctx, struct event_batch *b)
{
    (void)ctx, (void)b;
}

static void on_reset(void *ctx, int64_t revision)
{
    (void)ctx, (void)revision;
}

static void on_fatal(void *ctx, int error, const char *text)
{
    (void)ctx;
    log_fatal("%s: %s", err_name(error), text);
}

static void on_leader(void *ctx, uint64_t leader, bool self)
{
    (void)ctx, (void)leader, (void)self;
}

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

static void wait_until(const bool *flag)
{
    uint64_t end = clock_mono_ms() + WAIT_MS;
    while (!*flag && clock_mono_ms() < end) uv_run(&loop, UV_RUN_ONCE);
    if (!*flag) _exit(EXIT_HANGS);
}

static void set_true(void *ctx)
{
    *(bool *)ctx = true;
}

static int open_core(void)
{
    static const struct core_events events = {on_live, on_reset, on_fatal, on_leader};
    static struct consensus_member self = {.id = 7, .name = "n1", .peer_url = "http://127.0.0.1:1"};
    struct env_uv_options o = {.data_dir = root, .id = 7, .cluster_id = 9};
    struct core_config c = {.consensus = {.id = 7,
                                          .cluster_id = 9,
                                          .members = &self,
                                          .n_members = 1,
                                          .new_cluster = true,
                                          .segment_bytes = 1 << 16,
                                          .snapshot_log_bytes = 1 << 14},
                            .name = "n1"};
    struct err e = {0};
    int code = env_uv_open(&loop, &o, &env, &e);
    if (code == 0) code = core_open(&c, env, &events, NULL, &core, &e);
    return code;
}

static void close_core(void)
{
    bool closed = false, gone = false;
    struct core *c = core;
    core = NULL;
    core_close(c, set_true, &closed);
    wait_until(&closed);
    env_uv_close(env, set_true, &gone);
    env = NULL;
    wait_until(&gone);
}

/* ---- the requests
 * ------------------------------------------------------------------------------------ */

struct call {
    struct core_request r;
    bool done;
};

static void on_done(struct core_request *r)
{
    struct call *c = container_of(r, struct call, r);
    if (c->done) abort(); /* answered twice */
    c->done = true;
}

static int ask(struct call *c)
{
    c->r.done = on_done;
    core_submit(core, &c->r);
    wait_until(&c->done);
    return c->r.code;
}

static int ask_and_release(struct core_request request)
{
    struct call c = {.r = request};
    int code = ask(&c);
    core_request_release(&c.r);
    return code;
}

static int command(const struct command *command)
{
    struct buf bytes = {0};
    command_encode(&bytes, command);
    int code = bytes.failed;
    if (!code)
        code = ask_and_release(
            (struct core_request){.type = CORE_COMMAND, .command = buf_slice(&bytes)});
    buf_release(&bytes);
    return code;
}

static void put(int n, int64_t lease)
{
    static char value[2000];
    char key[16];
    snprintf(key, sizeof(key), "k%02d", n);
    memset(value, 'v', sizeof(value));
    struct command c = {.type = COMMAND_OP,
                        .op = {.type = OP_PUT,
                               .put = {.key = slice_str(key),
                                       .value = slice_make(value, sizeof(value)),
                                       .lease = lease}}};
    uint8_t number = (uint8_t)n;
    if (command(&c) == 0 && told >= 0 && write(told, &number, 1) != 1) abort();
}

static void long_read(void)
{
    struct call c = {.r = {.type = CORE_CURSOR_OPEN,
                           .range = {.key = slice_str("k"), .range_end = slice_str("l")}}};
    int code = ask(&c);
    struct core_cursor *cursor = c.r.cursor;
    core_request_release(&c.r);
    if (code != 0 || !cursor) return;
    (void)ask_and_release((struct core_request){.type = CORE_CURSOR_NEXT, .cursor = cursor});
    (void)ask_and_release((struct core_request){.type = CORE_CURSOR_CLOSE, .cursor = cursor});
}

static void snapshot(void)
{
    struct call c = {.r = {.type = CORE_SNAPSHOT_OPEN}};
    int code = ask(&c);
    struct core_snapshot *s = c.r.snapshot;
    core_request_release(&c.r);
    if (code != 0 || !s) return;
    (void)ask_and_release((struct core_request){.type = CORE_SNAPSHOT_NEXT, .snapshot = s});
    (void)ask_and_release((struct core_request){.type = CORE_SNAPSHOT_CLOSE, .snapshot = s});
}

static void all_requests(void)
{
    static const enum core_request_type simple[] = {CORE_STATUS, CORE_HASH_KV, CORE_MEMBERS,
                                                    CORE_ALARMS, CORE_LEASES,  CORE_READ_INDEX};
    const struct range_op all = {.key = slice_str("k"), .range_end = slice_str("l")};
    while (ask_and_release((struct core_request){.type = CORE_READ_INDEX}) == ERR_NO_LEADER)
        uv_run(&loop, UV_RUN_ONCE);
    (void)command(
        &(struct command){.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = 5, .ttl = 600}});
    for (int n = 0; n < KEYS; n++) put(n, n % 4 == 0 ? 5 : 0);
    (void)ask_and_release((struct core_request){.type = CORE_RANGE, .range = all});
    (void)ask_and_release(
        (struct core_request){.type = CORE_RANGE, .serializable = true, .range = all});
    (void)ask_and_release((struct core_request){.type = CORE_LEASE_RENEW, .lease_id = 5});
    (void)ask_and_release(
        (struct core_request){.type = CORE_LEASE_INFO, .lease_id = 5, .want_keys = true});
    (void)ask_and_release(
        (struct core_request){.type = CORE_HISTORY, .from_rev = 2, .upto_rev = 10});
    for (size_t i = 0; i < sizeof(simple) / sizeof(*simple); i++)
        (void)ask_and_release((struct core_request){.type = simple[i]});
    long_read();
    snapshot();
    (void)command(&(struct command){.type = COMMAND_COMPACT, .compact = {.revision = 5}});
}

/* ---- one process
 * ------------------------------------------------------------------------------------- */

static void run_with(uint64_t nth, void (*what)(void))
{
    static uv_prepare_t prepare;
    static uv_timer_t tick;
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    uv_prepare_init(&loop, &prepare);
    uv_prepare_start(&prepare, on_prepare);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 20, 20);
    mem_fail_nth(nth);
    int code = open_core();
    if (code != 0) _exit(nth && mem_fail_nth(0) ? 1 : EXIT_OPEN);
    what();
    bool reached = mem_fail_nth(0);
    close_core();
    uv_close((uv_handle_t *)&prepare, NULL);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    exit(reached || !nth ? 0 : EXIT_NOT_REACHED); /* leaks are looked for here */
}

static uint8_t acknowledged[KEYS];

static void check_acknowledged(void)
{
    struct call c = {
        .r = {.type = CORE_RANGE, .range = {.key = slice_str("k"), .range_end = slice_str("l")}}};
    int code;
    while ((code = ask_and_release((struct core_request){.type = CORE_READ_INDEX})) ==
           ERR_NO_LEADER)
        uv_run(&loop, UV_RUN_ONCE);
    if (ask(&c) != 0) _exit(EXIT_LOST);
    const struct range_result *r = &c.r.result.op.range;
    for (int n = 0; n < KEYS; n++) {
        char key[16];
        bool found = false;
        snprintf(key, sizeof(key), "k%02d", n);
        for (size_t i = 0; i < r->n; i++) found |= slice_eq_str(record_key(r->records[i]), key);
        if (acknowledged[n] && !found) _exit(EXIT_LOST);
    }
    core_request_release(&c.r);
}

static int child(uint64_t nth, void (*what)(void))
{
    int fds[2], status;
    assert_int_equal(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        told = nth ? fds[1] : -1;
        if (!freopen(said, "w", stderr)) _exit(EXIT_OPEN);
        run_with(nth, what);
    }
    close(fds[1]);
    uint8_t number;
    while (read(fds[0], &number, 1) == 1) acknowledged[number % KEYS] = 1;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* Fails with what the last process has said. */
static void complain(const char *what, uint64_t nth, int code)
{
    char text[4096] = "";
    FILE *f = fopen(said, "r");
    if (f) {
        text[fread(text, 1, sizeof(text) - 1, f)] = 0;
        fclose(f);
    }
    fail_msg("%s %d: status %d: %s", what, (int)nth, code, text);
}

static void remove_root(void)
{
    char text[192];
    snprintf(text, sizeof(text), "rm -rf %s %s", root, said);
    assert_int_equal(system(text), 0);
}

static void test_each_allocation(void **state)
{
    (void)state;
    int tries = 0, stopped = 0, code;
    uint64_t nth = 1;
    do {
        snprintf(root, sizeof(root), "/tmp/pintle-memory-XXXXXX");
        assert_non_null(mkdtemp(root));
        snprintf(said, sizeof(said), "%s.log", root);
        memset(acknowledged, 0, sizeof(acknowledged));
        code = child(nth, all_requests);
        if (code != 0 && code != 1 && code != EXIT_NOT_REACHED) complain("allocation", nth, code);
        int after = child(0, check_acknowledged);
        if (after != 0) complain("after allocation", nth, after);
        remove_root();
        tries++;
        stopped += code == 1;
        nth += getenv("PINTLE_LONG") ? 1 : 1 + nth / 8;
    } while (code != EXIT_NOT_REACHED && nth < 100000);
    print_message(
        "# %d allocations failed, one by one, of about %d; %d times the process stopped\n", tries,
        (int)nth, stopped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_allocation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
