/* The core on its thread, with workers as threads: answers and events come in order and on the
 * right loop, history joins live, a worker that stands still is reset, and stopping answers
 * everything. Meant for the thread sanitizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/core/core_thread.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define WAIT_MS 60000
#define WORKERS 4
#define PUTS 400 /* of each worker */
#define UNDER_WAY 16
#define LAG_PUTS (LIMIT_WATCH_LAG_BATCHES + 200)

static char root[64];
static struct core_thread *core;

/* One worker: puts keys of its own, and watches those of all from the first revision on. */
struct worker {
    uv_loop_t loop;
    uv_async_t signal;
    pthread_t thread;
    struct core_client *client;
    struct watch_sink sink;
    struct watcher *watcher;
    unsigned index;
    size_t puts, most_under_way, wanted_events, value_len;
    size_t sent, answered, stopped, other, under_way;
    int64_t last_rev;
    size_t events, canceled;
    struct watch_stats stats; /* at the end */
    bool endless;             /* goes on putting until it is told that the core has stopped */
    bool ready, late_watch;
    sem_t finished, hold;
    atomic_int phase; /* 1: hold still; 2: close */
};

struct put {
    struct core_request r;
    struct buf command;
    struct worker *w;
};

static void put_more(struct worker *w);

static void check_finished(struct worker *w)
{
    bool puts_done = w->endless ? w->stopped > 0 && w->under_way == 0 : w->answered == w->puts;
    bool events_done = w->endless || !w->watcher || w->events == w->wanted_events;
    if (!puts_done || !events_done || w->ready) return;
    w->ready = true;
    sem_post(&w->finished);
}

static void put_done(struct core_request *r)
{
    struct put *p = container_of(r, struct put, r);
    struct worker *w = p->w;
    assert_true(pthread_equal(pthread_self(), w->thread));
    w->under_way--;
    w->answered++;
    if (r->code == ERR_STOPPED) w->stopped++;
    else if (r->code != 0) w->other++;
    core_request_release(r);
    buf_release(&p->command);
    mem_free(p);
    put_more(w);
    check_finished(w);
}

static void submit_put(struct worker *w)
{
    struct put *p = mem_must_calloc(1, sizeof(*p));
    static char zeros[LIMIT_MiB];
    char key[32];
    snprintf(key, sizeof(key), "key-%u-%zu", w->index, w->sent++ % 64);
    struct command c = {
        .type = COMMAND_OP,
        .op = {.type = OP_PUT,
               .put = {.key = slice_str(key), .value = w->value_len ? slice_make(zeros, w->value_len) : slice_str(key)}}};
    command_encode(&p->command, &c);
    p->w = w;
    p->r = (struct core_request){.type = CORE_COMMAND, .done = put_done, .timeout_ms = WAIT_MS};
    p->r.command = buf_slice(&p->command);
    w->under_way++;
    core_client_submit(w->client, &p->r);
}

static void put_more(struct worker *w)
{
    while (w->under_way < w->most_under_way && (w->endless ? w->stopped == 0 : w->sent < w->puts))
        submit_put(w);
}

static void on_events(struct watch_sink *s, struct watcher *watcher,
                      const struct event *const *events, size_t n, int64_t last)
{
    struct worker *w = container_of(s, struct worker, sink);
    (void)watcher;
    assert_true(pthread_equal(pthread_self(), w->thread));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(events[i]->record->mod_rev, w->last_rev + 1); /* no gap, no repeat */
        w->last_rev = events[i]->record->mod_rev;
    }
    assert_true(last >= w->last_rev);
    w->events += n;
    check_finished(w);
}

static void on_canceled(struct watch_sink *s, struct watcher *watcher, int code,
                        int64_t compact_rev)
{
    struct worker *w = container_of(s, struct worker, sink);
    (void)watcher;
    (void)code;
    (void)compact_rev;
    w->watcher = NULL;
    w->canceled++;
}

static bool on_ready(struct watch_sink *s)
{
    (void)s;
    return true;
}

static void add_watcher(struct worker *w)
{
    struct watch_options o = {
        .key = SLICE_LIT("key-"), .range_end = SLICE_LIT("key."), .start_rev = 2};
    w->last_rev = 1;
    assert_int_equal(watch_add(core_client_hub(w->client), &w->sink, &o, &w->watcher), 0);
}

static void on_signal(uv_async_t *h)
{
    struct worker *w = h->data;
    int phase = atomic_load(&w->phase);
    if (phase == 1) {
        while (sem_wait(&w->hold) != 0) continue; /* the loop stands still */
        if (w->late_watch) add_watcher(w);
        put_more(w);
    }
    if (phase == 2) {
        watch_hub_stats(core_client_hub(w->client), &w->stats);
        core_client_close(w->client);
        uv_close((uv_handle_t *)h, NULL);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    uv_run(&w->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    return NULL;
}

static void worker_open(struct worker *w, unsigned index)
{
    *w = (struct worker){.index = index,
                         .puts = PUTS,
                         .most_under_way = UNDER_WAY,
                         .wanted_events = (size_t)WORKERS * PUTS};
    w->sink = (struct watch_sink){.events = on_events, .canceled = on_canceled, .ready = on_ready};
    watch_sink_init(&w->sink);
    sem_init(&w->finished, 0, 0);
    sem_init(&w->hold, 0, 0);
    assert_int_equal(uv_loop_init(&w->loop), 0);
    assert_int_equal(uv_async_init(&w->loop, &w->signal, on_signal), 0);
    w->signal.data = w;
    assert_int_equal(core_client_open(core, &w->loop, &w->client), 0);
}

static void worker_signal(struct worker *w, int phase)
{
    atomic_store(&w->phase, phase);
    uv_async_send(&w->signal);
}

static void worker_run(struct worker *w)
{
    assert_int_equal(pthread_create(&w->thread, NULL, worker_main, w), 0);
}

static void worker_wait(struct worker *w)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    if (sem_timedwait(&w->finished, &until) != 0)
        fail_msg("worker %u: answered %zu of %zu, %zu events, revision %lld", w->index, w->answered,
                 w->sent, w->events, (long long)w->last_rev);
}

static void worker_close(struct worker *w)
{
    worker_signal(w, 2);
    pthread_join(w->thread, NULL);
    sem_destroy(&w->finished);
    sem_destroy(&w->hold);
}

static int setup(void **state)
{
    (void)state;
    static struct consensus_member self = {.id = 7, .name = "n1", .peer_url = "http://127.0.0.1:1"};
    static const char *urls[] = {"http://127.0.0.1:2"};
    struct err e = {0};
    snprintf(root, sizeof(root), "/tmp/pintle-thread-XXXXXX");
    if (!mkdtemp(root)) return -1;
    log_set_level(LOG_ERROR);
    struct env_uv_options env = {.data_dir = root, .id = 7, .cluster_id = 9};
    struct core_config config = {.consensus = {.id = 7,
                                               .cluster_id = 9,
                                               .members = &self,
                                               .n_members = 1,
                                               .new_cluster = true,
                                               .segment_bytes = 1 << 20},
                                 .name = "n1",
                                 .client_urls = urls,
                                 .n_client_urls = 1};
    if (core_thread_start(&config, &env, &core, &e) == 0) return 0;
    print_error("%s\n", e.text);
    return -1;
}

static int teardown(void **state)
{
    char command[96];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static void wait_for_leader(const struct core_client *c)
{
    uint64_t until = clock_mono_ms() + WAIT_MS;
    while (core_client_leader_id(c) == 0 && clock_mono_ms() < until) usleep(1000);
    assert_int_equal(core_client_leader_id(c), 7);
}

/* Every worker writes; half watch from the start, half begin in the middle of it all, from the
 * first revision. */
static void test_many_workers(void **state)
{
    static struct worker workers[WORKERS];
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) worker_open(&workers[i], i);
    wait_for_leader(workers[0].client);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].late_watch = i % 2;
        if (!workers[i].late_watch) add_watcher(&workers[i]);
        worker_run(&workers[i]);
        worker_signal(&workers[i], 1);
    }
    for (unsigned i = 0; i < WORKERS; i++) sem_post(&workers[i].hold);
    for (unsigned i = 0; i < WORKERS; i++) worker_wait(&workers[i]);
    core_thread_stop(core);
    for (unsigned i = 0; i < WORKERS; i++) worker_close(&workers[i]);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(workers[i].other + workers[i].stopped, 0);
        assert_int_equal(workers[i].events, WORKERS * PUTS);
        assert_int_equal(workers[i].canceled, 0);
    }
}

/* Batches that a standing worker was not sent come to it as history, once it moves again. */
static void lag(size_t puts, size_t value_len)
{
    static struct worker writer, standing;
    writer = standing = (struct worker){0};
    worker_open(&writer, 0);
    worker_open(&standing, 1);
    writer.puts = puts;
    writer.value_len = value_len;
    writer.most_under_way = 1; /* a batch for each */
    standing.puts = 0;
    standing.wanted_events = puts;
    wait_for_leader(writer.client);
    add_watcher(&standing);
    worker_run(&standing);
    worker_signal(&standing, 1); /* holds */
    worker_run(&writer);
    worker_signal(&writer, 1);
    sem_post(&writer.hold);
    worker_wait(&writer);
    sem_post(&standing.hold);
    worker_wait(&standing);
    core_thread_stop(core);
    worker_close(&standing);
    worker_close(&writer);
    assert_int_equal(standing.last_rev, puts + 1);
    assert_true(standing.stats.history_requests > 0);
    assert_true(standing.stats.batches < puts);
}

static void test_lag(void **state)
{
    (void)state;
    lag(LAG_PUTS, 0);
}

static void test_lag_in_bytes(void **state)
{
    (void)state;
    lag(2 * LIMIT_WATCH_LAG_BYTES / LIMIT_MiB, LIMIT_MiB);
}

/* Requests are under way and go on being made while the core stops, and after it has. */
static void test_stop_under_load(void **state)
{
    static struct worker workers[WORKERS];
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) worker_open(&workers[i], i);
    wait_for_leader(workers[0].client);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].endless = true;
        add_watcher(&workers[i]);
        worker_run(&workers[i]);
        worker_signal(&workers[i], 1);
        sem_post(&workers[i].hold);
    }
    usleep(100000);
    core_thread_stop(core);
    for (unsigned i = 0; i < WORKERS; i++) worker_wait(&workers[i]);
    for (unsigned i = 0; i < WORKERS; i++) worker_signal(&workers[i], 2); /* all at once */
    for (unsigned i = 0; i < WORKERS; i++) pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_true(workers[i].stopped > 0);
        assert_int_equal(workers[i].other, 0);
        assert_int_equal(workers[i].under_way, 0);
        assert_int_equal(workers[i].canceled, 0);
    }
}

/* A request that nobody will take any more is answered too, and later than it was made. */
static void test_submit_after_stop(void **state)
{
    static struct worker w;
    (void)state;
    worker_open(&w, 0);
    core_thread_stop(core);
    w.endless = true;
    worker_run(&w);
    worker_signal(&w, 1);
    sem_post(&w.hold);
    worker_wait(&w);
    assert_int_equal(w.stopped, UNDER_WAY);
    worker_close(&w);
}

struct reading {
    struct core_request r;
    int stage;
};

/* Opens a cursor and a snapshot, and closes them when the core has gone. */
static void reading_done(struct core_request *r)
{
    static const enum core_request_type next[] = {CORE_SNAPSHOT_OPEN, CORE_CURSOR_CLOSE,
                                                  CORE_SNAPSHOT_CLOSE};
    struct reading *d = container_of(r, struct reading, r);
    struct worker *w = r->data;
    assert_int_equal(r->code, d->stage < 2 ? 0 : ERR_STOPPED);
    core_request_release(r);
    if (d->stage == 3) {
        sem_post(&w->finished);
        return;
    }
    if (d->stage == 1) {
        sem_post(&w->finished);
        while (sem_wait(&w->hold) != 0) continue;
    }
    d->r = (struct core_request){.type = next[d->stage++],
                                 .done = reading_done,
                                 .data = w,
                                 .cursor = r->cursor,
                                 .snapshot = r->snapshot};
    core_client_submit(w->client, &d->r);
}

static void test_handles_outlive_the_core(void **state)
{
    static struct worker w;
    static struct reading d;
    (void)state;
    worker_open(&w, 0);
    wait_for_leader(w.client);
    d = (struct reading){
        .r = {.type = CORE_CURSOR_OPEN, .done = reading_done, .data = &w, .serializable = true}};
    d.r.range = (struct range_op){.key = SLICE_LIT("a"), .range_end = SLICE_LIT("z")};
    core_client_submit(w.client, &d.r);
    worker_run(&w);
    worker_wait(&w);
    core_thread_stop(core);
    sem_post(&w.hold);
    worker_wait(&w);
    worker_close(&w);
}

static void test_too_many_clients(void **state)
{
    static struct worker workers[64], more;
    (void)state;
    for (unsigned i = 0; i < 64; i++) worker_open(&workers[i], i);
    wait_for_leader(workers[0].client); /* the core's files are open: the sanitizer does not see libuv close a number that they reuse */
    assert_int_equal(uv_loop_init(&more.loop), 0);
    assert_int_equal(core_client_open(core, &more.loop, &more.client), ERR_LIMIT);
    uv_run(&more.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&more.loop), 0);
    core_thread_stop(core);
    for (unsigned i = 0; i < 64; i++) {
        worker_run(&workers[i]);
        worker_close(&workers[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many_workers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lag, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lag_in_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_submit_after_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handles_outlive_the_core, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_clients, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
