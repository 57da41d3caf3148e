/* The real env: the loop's own parts. See env_uv_disk.c for files, env_uv_net.c for peers. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"
#include "raft/env_uv_int.h"

static uint64_t now_ms(struct env *e)
{
    (void)e;
    return clock_mono_ms();
}

/* xoroshiro128+ (Blackman and Vigna), seeded from the kernel: for election time-outs, not for secrets. */
static uint64_t random_bits(struct env *e)
{
    uint64_t *s = env_uv_of(e)->random_state;
    uint64_t s0 = s[0], s1 = s[1], result = s0 + s1;
    s1 ^= s0;
    s[0] = ((s0 << 24) | (s0 >> 40)) ^ s1 ^ (s1 << 16);
    s[1] = (s1 << 37) | (s1 >> 27);
    return result;
}

/* ---- tasks -------------------------------------------------------------------------------------- */

static void run_tasks(uv_idle_t *idle)
{
    struct env_uv *u = idle->data;
    struct list now;
    list_init(&now);
    struct list *node;
    while ((node = list_pop_front(&u->tasks)) != NULL) list_push_back(&now, node);
    while ((node = list_pop_front(&now)) != NULL) {
        struct env_task *t = container_of(node, struct env_task, node);
        t->queued = false;
        t->run(t);
    }
    if (list_empty(&u->tasks)) uv_idle_stop(idle);
}

void env_uv_defer(struct env *e, struct env_task *t)
{
    struct env_uv *u = env_uv_of(e);
    if (t->queued) return;
    t->queued = true;
    list_push_back(&u->tasks, &t->node);
    if (!uv_is_closing((uv_handle_t *)&u->idle)) uv_idle_start(&u->idle, run_tasks);
}

/* ---- ticks, start, stop -------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *t)
{
    struct env_uv *u = t->data;
    if (!u->stopping) u->handlers.tick(u->ctx);
}

static void on_second(uv_timer_t *t)
{
    net_second(t->data);
}

static int start(struct env *e, unsigned tick_ms, const struct env_handlers *h, void *ctx)
{
    struct env_uv *u = env_uv_of(e);
    u->handlers = *h;
    u->ctx = ctx;
    u->started = true;
    uv_timer_start(&u->tick, on_tick, tick_ms, tick_ms);
    uv_timer_start(&u->second, on_second, 1000, 1000);
    return net_start(u);
}

void env_uv_maybe_stopped(struct env_uv *u)
{
    if (!u->stopping || !u->stopped || disk_active(u) > 0 || net_active(u)) return;
    void (*stopped)(void *ctx) = u->stopped;
    u->stopped = NULL;
    stopped(u->stopped_ctx);
}

static void stop(struct env *e, void (*stopped)(void *ctx), void *ctx)
{
    struct env_uv *u = env_uv_of(e);
    u->stopping = true;
    u->stopped = stopped;
    u->stopped_ctx = ctx;
    uv_timer_stop(&u->tick);
    uv_timer_stop(&u->second);
    net_stop(u);
    /* `stopped` must not run from inside this call: the completer of sends asks again. */
    env_uv_defer(e, &u->completer);
}

static const struct env_ops ops = {
    .now_ms = now_ms,
    .random = random_bits,
    .defer = env_uv_defer,
    .start = start,
    .stop = stop,
    .io = disk_io,
    .list = disk_list,
    .mkdir = disk_mkdir,
    .read_file = disk_read_file,
    .write_file = disk_write_file,
    .unlink_file = disk_unlink_file,
    .io_sync = disk_io_sync,
    .set_peer = net_set_peer,
    .send = net_send,
};

/* ---- opening and closing -------------------------------------------------------------------------- */

static char *dup_or_null(const char *s)
{
    return s ? mem_must_strdup(s) : NULL;
}

static void free_options(struct env_uv_options *o)
{
    mem_free((char *)o->data_dir);
    mem_free((char *)o->listen_url);
    mem_free((char *)o->peer_cert_file);
    mem_free((char *)o->peer_key_file);
    mem_free((char *)o->peer_trusted_ca_file);
}

static void run_completer(struct env_task *t)
{
    struct env_uv *u = t->data;
    struct list *node;
    while ((node = list_pop_front(&u->completed)) != NULL) {
        struct env_send *s = container_of(node, struct env_send, node);
        s->done(s);
    }
    env_uv_maybe_stopped(u);
}

int env_uv_open(uv_loop_t *loop, const struct env_uv_options *o, struct env **ret, struct err *e)
{
    struct env_uv *u = mem_must_calloc(1, sizeof(*u));
    u->env.ops = &ops;
    u->loop = loop;
    u->options = *o;
    u->options.data_dir = dup_or_null(o->data_dir);
    u->options.listen_url = dup_or_null(o->listen_url);
    u->options.peer_cert_file = dup_or_null(o->peer_cert_file);
    u->options.peer_key_file = dup_or_null(o->peer_key_file);
    u->options.peer_trusted_ca_file = dup_or_null(o->peer_trusted_ca_file);
    u->dir_fd = u->lock_fd = -1;
    u->completer = (struct env_task){.run = run_completer, .data = u};
    list_init(&u->tasks);
    list_init(&u->links);
    list_init(&u->inbound);
    list_init(&u->completed);
    if (getrandom(u->random_state, sizeof(u->random_state), 0) < 0 ||
        getrandom(&u->instance, sizeof(u->instance), 0) < 0)
        u->random_state[0] = u->instance = clock_mono_ns();
    uv_timer_init(loop, &u->tick);
    uv_timer_init(loop, &u->second);
    uv_idle_init(loop, &u->idle);
    u->tick.data = u->second.data = u->idle.data = u;
    u->open_handles = 3;
    int rv = disk_open(u, e);
    if (rv == 0) rv = net_open(u, e);
    if (rv != 0) {
        env_uv_close(&u->env, NULL, NULL);
        uv_run(loop, UV_RUN_NOWAIT); /* lets the handles go; the struct frees itself */
        return rv;
    }
    *ret = &u->env;
    return 0;
}

void env_uv_flush(struct env *e)
{
    net_flush(env_uv_of(e));
}

void env_uv_handle_closed(struct env_uv *u)
{
    if (--u->open_handles > 0) return;
    void (*closed)(void *ctx) = u->closed;
    void *ctx = u->closed_ctx;
    disk_close(u);
    peer_tls_close(u);
    map_release(&u->peers);
    free_options(&u->options);
    mem_free(u);
    if (closed) closed(ctx);
}

static void on_handle_closed(uv_handle_t *h)
{
    env_uv_handle_closed(h->data);
}

void env_uv_close(struct env *e, void (*closed)(void *ctx), void *ctx)
{
    struct env_uv *u = env_uv_of(e);
    u->closed = closed;
    u->closed_ctx = ctx;
    u->stopping = true;
    disk_stop(u);
    net_close(u);
    uv_close((uv_handle_t *)&u->tick, on_handle_closed);
    uv_close((uv_handle_t *)&u->second, on_handle_closed);
    uv_close((uv_handle_t *)&u->idle, on_handle_closed);
}
