/* The world: its chances, its clock and queue of events, and the lives of its members. */
#include "env_sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "env_sim_int.h"

/* ---- chance: xoshiro256**, seeded by splitmix64
 * -------------------------------------------------- */

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void sim_random_init(struct sim_random *r, uint64_t seed, uint64_t stream)
{
    uint64_t x = seed;
    x = splitmix(&x) ^ (stream * 0xd1342543de82ef95u);
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&x);
}

uint64_t sim_random_u64(struct sim_random *r)
{
    uint64_t *s = r->s, x = s[1] * 5, result = ((x << 7) | (x >> 57)) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

uint64_t sim_random_below(struct sim_random *r, uint64_t n)
{
    CHECK(n > 0);
    return sim_random_u64(r) % n; /* the bias is of no concern here */
}

uint64_t sim_random_range(struct sim_random *r, uint64_t lo, uint64_t hi)
{
    return hi <= lo ? lo : lo + sim_random_below(r, hi - lo + 1);
}

bool sim_chance(struct sim_random *r, unsigned ppm)
{
    return ppm && sim_random_below(r, 1000000) < ppm;
}

/* ---- events
 * -------------------------------------------------------------------------------------- */

void sim_mix(struct sim *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = s->digest;
    for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * 0x100000001b3u;
    s->digest = h ^ (h >> 29);
}

void sim_trace_line(struct sim *s, const char *format, ...)
{
    if (!s->trace) return;
    fprintf(stderr, "%11.6f ", (double)s->now_us / 1e6);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static bool event_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time_us != b->time_us ? a->time_us < b->time_us : a->seq < b->seq;
}

static void heap_push(struct sim *s, const struct sim_event *ev)
{
    if (s->n_heap == s->heap_size) {
        s->heap_size = s->heap_size ? 2 * s->heap_size : 256;
        s->heap = mem_must_realloc(s->heap, s->heap_size * sizeof *s->heap);
    }
    size_t i = s->n_heap++;
    for (; i > 0 && event_before(ev, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = *ev;
}

static void heap_sift(struct sim *s, size_t i)
{
    struct sim_event moved = s->heap[i];
    for (size_t child; (child = 2 * i + 1) < s->n_heap; i = child) {
        if (child + 1 < s->n_heap && event_before(&s->heap[child + 1], &s->heap[child])) child++;
        if (!event_before(&s->heap[child], &moved)) break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = moved;
}

static struct sim_event heap_pop(struct sim *s)
{
    struct sim_event first = s->heap[0];
    s->heap[0] = s->heap[--s->n_heap];
    if (s->n_heap) heap_sift(s, 0);
    return first;
}

static void schedule(struct sim *s, uint64_t delay_us, struct sim_event ev)
{
    ev.time_us = s->now_us + delay_us;
    ev.seq = s->next_seq++;
    if (ev.env) ev.env->events++;
    heap_push(s, &ev);
}

void sim_schedule(struct sim *s, uint64_t delay_us, const char *what, struct sim_env *env,
                  sim_event_fn *fn, void *arg, uint64_t number)
{
    schedule(s, delay_us,
             (struct sim_event){.what = what, .env = env, .fn = fn, .arg = arg, .number = number});
}

void sim_at(struct sim *s, uint64_t delay_us, void (*fn)(void *arg), void *arg)
{
    schedule(s, delay_us, (struct sim_event){.what = "world", .user = fn, .arg = arg});
}

void sim_at_member(struct sim *s, uint64_t id, uint64_t delay_us, void (*fn)(void *arg), void *arg)
{
    struct sim_env *e = sim_member(s, id)->env;
    CHECK(e);
    schedule(s, delay_us, (struct sim_event){.what = "member", .env = e, .user = fn, .arg = arg});
}

/* What is not of the user (of `e`, or of all if it is NULL) moves to the front; how many those are.
 */
static size_t keep_events(struct sim_event *events, size_t n, const struct sim_env *e)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!events[i].user || (e && events[i].env != e)) events[kept++] = events[i];
        else if (events[i].env) events[i].env->events--;
    }
    return kept;
}

static void forget(struct sim *s, const struct sim_env *e)
{
    s->n_heap = keep_events(s->heap, s->n_heap, e);
    for (size_t i = s->n_heap / 2; i-- > 0;) heap_sift(s, i);
    for (uint64_t id = 1; id <= s->options.members; id++) {
        struct sim_member *m = &s->members[id];
        m->n_held = keep_events(m->held, m->n_held, e);
    }
}

void sim_forget(struct sim *s)
{
    forget(s, NULL);
}

void sim_forget_member(struct sim *s, uint64_t id)
{
    struct sim_env *e = sim_member(s, id)->env;
    if (e) forget(s, e);
}

static void env_free_if_unused(struct sim_env *e);

static bool is_life(const struct sim_env *e)
{
    return !e->zombie && !e->released && e->member->env == e;
}

static void dispatch(struct sim *s, const struct sim_event *ev)
{
    struct sim_env *e = ev->env;
    uint64_t words[4] = {ev->time_us,
                         (uint64_t)(unsigned char)ev->what[0] << 8 | (unsigned char)ev->what[1],
                         e ? e->member->id | e->incarnation << 8 : 0, ev->number};
    sim_mix(s, words, sizeof words);
    s->n_events++;
    if (s->trace > 1 && !ev->user) {
        sim_trace_line(s, "m%" PRIu64 "%s %s %" PRIu64 " [%08x]", e ? e->member->id : 0,
                       e && !is_life(e) ? "(dead)" : "", ev->what, ev->number, (unsigned)s->digest);
    }
    if (e && ev->user && !is_life(e)) return;
    if (ev->user) ev->user(ev->arg);
    else ev->fn(s, e, ev->arg, ev->number);
    if (e && is_life(e) && s->turn) s->turn(s->turn_ctx, e->member->id);
}

static void hold(struct sim_member *m, const struct sim_event *ev)
{
    if (m->n_held == m->held_size) {
        m->held_size = m->held_size ? 2 * m->held_size : 64;
        m->held = mem_must_realloc(m->held, m->held_size * sizeof *m->held);
    }
    m->held[m->n_held++] = *ev;
}

/* What was held back comes now, in its order, before anything that is scheduled from here on. */
static void let_go(struct sim *s, struct sim_member *m)
{
    for (size_t i = 0; i < m->n_held; i++) {
        struct sim_event *ev = &m->held[i];
        ev->time_us = s->now_us;
        ev->seq = s->next_seq++;
        heap_push(s, ev);
    }
    m->n_held = 0;
}

static void run_resume(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)e, (void)number;
    struct sim_member *m = arg;
    if (m->paused_until_us <= s->now_us) let_go(s, m);
}

bool sim_step(struct sim *s)
{
    if (s->n_heap == 0) return false;
    struct sim_event ev = heap_pop(s);
    CHECK(ev.time_us >= s->now_us);
    s->now_us = ev.time_us;
    struct sim_env *e = ev.env;
    if (e && is_life(e) && e->member->paused_until_us > s->now_us) {
        hold(e->member, &ev);
        return true;
    }
    dispatch(s, &ev);
    if (e) {
        e->events--;
        env_free_if_unused(e);
    }
    return true;
}

void sim_run_for(struct sim *s, uint64_t us)
{
    uint64_t end = s->now_us + us;
    while (s->n_heap && s->heap[0].time_us <= end) sim_step(s);
    s->now_us = end;
}

bool sim_run_until(struct sim *s, bool (*done)(void *arg), void *arg, uint64_t limit_us)
{
    uint64_t end = s->now_us + limit_us;
    while (!done(arg)) {
        if (s->n_heap == 0 || s->heap[0].time_us > end) {
            s->now_us = end;
            return false;
        }
        sim_step(s);
    }
    return true;
}

/* ---- one life
 * ------------------------------------------------------------------------------------ */

static uint64_t clock_us(const struct sim *s, const struct sim_member *m)
{
    uint64_t passed = s->now_us - m->clock_at_us;
    return m->clock_us + passed + (uint64_t)((int64_t)(passed / 1000) * m->drift_ppm / 1000);
}

static uint64_t member_us(const struct sim_env *e)
{
    return clock_us(e->sim, e->member);
}

static void clock_set(struct sim *s, struct sim_member *m, uint64_t us)
{
    m->clock_us = us;
    m->clock_at_us = s->now_us;
}

void sim_clock_jump(struct sim *s, uint64_t id, uint64_t us)
{
    struct sim_member *m = sim_member(s, id);
    sim_trace_line(s, "m%" PRIu64 " finds its clock %.3f s later", id, (double)us / 1e6);
    clock_set(s, m, clock_us(s, m) + us);
}

void sim_clock_drift(struct sim *s, uint64_t id, int64_t ppm)
{
    struct sim_member *m = sim_member(s, id);
    sim_trace_line(s, "m%" PRIu64 "'s clock drifts by %" PRId64 " ppm", id, ppm);
    clock_set(s, m, clock_us(s, m));
    m->drift_ppm = ppm;
}

static uint64_t env_now_ms(struct env *base)
{
    return member_us(sim_env_of(base)) / 1000;
}

static uint64_t env_random(struct env *base)
{
    return sim_random_u64(&sim_env_of(base)->random);
}

static void run_tasks(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)s, (void)arg, (void)number;
    e->tasks_pending = false;
    struct list now;
    list_init(&now);
    for (struct list *n; (n = list_pop_front(&e->tasks));) list_push_back(&now, n);
    for (struct list *n; (n = list_pop_front(&now));) {
        struct env_task *t = container_of(n, struct env_task, node);
        t->queued = false;
        t->run(t);
    }
    sim_env_settle(e);
}

static void env_defer(struct env *base, struct env_task *t)
{
    struct sim_env *e = sim_env_of(base);
    if (t->queued) return;
    t->queued = true;
    list_push_back(&e->tasks, &t->node);
    if (e->tasks_pending) return;
    e->tasks_pending = true;
    sim_schedule(e->sim, 0, "defer", e, run_tasks, NULL, 0);
}

static uint64_t tick_us(const struct sim_env *e)
{
    int64_t us = (int64_t)e->tick_ms * 1000;
    return (uint64_t)(us - us * e->member->drift_ppm / 1000000);
}

static void run_tick(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)arg, (void)number;
    if (e->zombie || e->stopping) return;
    sim_schedule(s, tick_us(e), "tick", e, run_tick, NULL, 0);
    e->handlers.tick(e->handlers_ctx);
}

static int env_start(struct env *base, unsigned tick_ms, const struct env_handlers *h, void *ctx)
{
    struct sim_env *e = sim_env_of(base);
    CHECK(!e->started && tick_ms > 0);
    e->started = true;
    e->tick_ms = tick_ms;
    e->handlers = *h;
    e->handlers_ctx = ctx;
    sim_schedule(e->sim, tick_us(e), "tick", e, run_tick, NULL, 0);
    sim_net_started(e);
    return 0;
}

static void run_stopped(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)s, (void)arg, (void)number;
    if (e->ios || e->sends || e->tasks_pending || e->stopped) return; /* settles again */
    e->stopped = true;
    e->on_stopped(e->stopped_ctx);
}

void sim_env_settle(struct sim_env *e)
{
    if (!e->stopping || e->stopped || e->ios || e->sends || e->tasks_pending) return;
    sim_schedule(e->sim, 0, "stopped", e, run_stopped, NULL, 0);
}

static void env_stop(struct env *base, void (*stopped)(void *ctx), void *ctx)
{
    struct sim_env *e = sim_env_of(base);
    CHECK(!e->stopping);
    e->stopping = true;
    e->on_stopped = stopped;
    e->stopped_ctx = ctx;
    if (!e->zombie) sim_net_down(e->sim, e); /* else the connections are another life's */
    sim_env_settle(e);
}

static const struct env_ops sim_ops = {
    .now_ms = env_now_ms,
    .random = env_random,
    .defer = env_defer,
    .start = env_start,
    .stop = env_stop,
    .io = sim_disk_submit,
    .list = sim_disk_list,
    .mkdir = sim_disk_mkdir,
    .read_file = sim_disk_read_file,
    .write_file = sim_disk_write_file,
    .unlink_file = sim_disk_unlink_file,
    .io_sync = sim_disk_sync_io,
    .set_peer = sim_net_set_peer,
    .send = sim_net_send,
};

/* ---- lives and deaths
 * ---------------------------------------------------------------------------- */

struct sim_member *sim_member(struct sim *s, uint64_t id)
{
    CHECK(id >= 1 && id <= s->options.members);
    return &s->members[id];
}

struct env *sim_env(struct sim *s, uint64_t id)
{
    struct sim_env *e = sim_member(s, id)->env;
    return e ? &e->base : NULL;
}

struct env *sim_boot(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(!m->env);
    struct sim_env *e = mem_must_calloc(1, sizeof *e);
    e->base.ops = &sim_ops;
    e->sim = s;
    e->member = m;
    e->disk = m->disk;
    e->incarnation = ++m->lives;
    sim_random_init(&e->random, s->options.seed, id << 32 | m->lives);
    list_init(&e->tasks);
    list_init(&e->files);
    for (int i = 0; i < 2; i++) list_init(&e->lanes[i].queue);
    list_push_back(&s->envs, &e->node);
    m->env = e;
    m->paused_until_us = 0;
    m->crash_nth = 0;
    sim_trace_line(s, "m%" PRIu64 " boots, life %" PRIu64, id, m->lives);
    return &e->base;
}

static void run_crashed(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)e, (void)arg;
    if (s->crashed) s->crashed(s->crashed_ctx, number);
}

void sim_crash(struct sim *s, uint64_t id, enum sim_crash_mode mode)
{
    struct sim_member *m = sim_member(s, id);
    struct sim_env *e = m->env;
    CHECK(e);
    sim_trace_line(s, "m%" PRIu64 " crashes (%s)", id, mode == SIM_KILL ? "kill" : "power");
    s->stats.crashes++;
    m->disk = sim_disk_after(s, e, mode);
    e->zombie = e->own_disk = true;
    m->env = NULL;
    m->crash_nth = 0;
    let_go(s, m);
    sim_net_down(s, e);
}

void sim_crash_after(struct sim *s, uint64_t id, enum sim_crash_mode mode, unsigned nth)
{
    struct sim_member *m = sim_member(s, id);
    m->crash_mode = mode;
    m->crash_nth = nth;
}

bool sim_disk_begins(struct sim_env *e, int op, const char *path)
{
    struct sim_member *m = e->member;
    struct sim *s = e->sim;
    if (e->zombie) return false;
    m->operations++;
    if (s->moment) s->moment(s->moment_ctx, SIM_DISK, m->id, m->id, (struct slice){0}, op, path);
    if (m->crash_nth == 0 || --m->crash_nth > 0) return false;
    sim_trace_line(s, "m%" PRIu64 " is struck at its disk operation %" PRIu64, m->id, m->operations);
    sim_crash(s, m->id, m->crash_mode);
    sim_schedule(s, 0, "crashed", NULL, run_crashed, NULL, m->id);
    return true;
}

uint64_t sim_disk_operations(struct sim *s, uint64_t id)
{
    return sim_member(s, id)->operations;
}

void sim_on_moment(struct sim *s,
                   void (*moment)(void *ctx, enum sim_moment what, uint64_t id, uint64_t other,
                                  struct slice frame, int op, const char *path),
                   void *ctx)
{
    s->moment = moment;
    s->moment_ctx = ctx;
}

void sim_on_describe(struct sim *s, bool (*describe)(struct slice frame, char *out, size_t size))
{
    s->describe = describe;
}

static void env_free_if_unused(struct sim_env *e)
{
    if (!e->released || e->events) return;
    list_remove(&e->node);
    sim_disk_close_files(e);
    if (e->own_disk) sim_disk_free(e->disk);
    mem_free(e);
}

void sim_release(struct env *base)
{
    struct sim_env *e = sim_env_of(base);
    CHECK(!e->released && (e->stopped || !e->started));
    CHECK(!e->ios && !e->sends);
    if (e->member->env == e) e->member->env = NULL;
    e->released = true;
    env_free_if_unused(e);
}

void sim_pause(struct sim *s, uint64_t id, uint64_t us)
{
    sim_trace_line(s, "m%" PRIu64 " pauses for %" PRIu64 " us", id, us);
    struct sim_member *m = sim_member(s, id);
    m->paused_until_us = s->now_us + us;
    sim_schedule(s, us, "resume", NULL, run_resume, m, id);
}

/* ---- the world's own life
 * ------------------------------------------------------------------------ */

void sim_options_default(struct sim_options *o, uint64_t seed, unsigned members)
{
    *o = (struct sim_options){
        .seed = seed,
        .members = members,
        .disk = {.latency_min_us = 20,
                 .latency_max_us = 80,
                 .sync_min_us = 100,
                 .sync_max_us = 900,
                 .bytes_per_us = 500},
        .net = {.latency_min_us = 100,
                .latency_max_us = 400,
                .bytes_per_us = 1000,
                .queue_bytes = 64 * 1024 * 1024,
                .connect_min_us = 1000,
                .connect_max_us = 50000,
                .stall_limit_us = 5000000},
    };
}

struct sim *sim_new(const struct sim_options *o)
{
    CHECK(o->members >= 1 && o->members <= SIM_MEMBERS_MAX);
    struct sim *s = mem_must_calloc(1, sizeof *s);
    s->options = *o;
    s->digest = 0xcbf29ce484222325u;
    list_init(&s->envs);
    sim_random_init(&s->random, o->seed, 1);
    sim_random_init(&s->disk_random, o->seed, 2);
    sim_random_init(&s->net_random, o->seed, 3);
    for (uint64_t id = 1; id <= o->members; id++) {
        struct sim_member *m = &s->members[id];
        m->id = m->speaks_as = id;
        m->slow = 1;
        m->disk = sim_disk_new();
        m->disk->capacity = o->disk.capacity;
        m->error_ppm = o->disk.error_ppm;
        uint64_t drift = sim_random_below(&s->random, 2 * (uint64_t)o->clock_drift_ppm + 1);
        m->drift_ppm = (int64_t)drift - (int64_t)o->clock_drift_ppm;
    }
    sim_net_init(s);
    return s;
}

void sim_free(struct sim *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n_heap; i++) {
        if (s->heap[i].env) s->heap[i].env->events--;
    }
    s->n_heap = 0;
    for (uint64_t id = 1; id <= s->options.members; id++) {
        struct sim_member *m = &s->members[id];
        for (size_t i = 0; i < m->n_held; i++) m->held[i].env->events--;
    }
    list_for_each(n, &s->envs)
    {
        struct sim_env *e = container_of(n, struct sim_env, node);
        CHECK(e->released);
        env_free_if_unused(e);
    }
    sim_net_release(s);
    for (uint64_t id = 1; id <= s->options.members; id++) {
        sim_disk_free(s->members[id].disk);
        mem_free(s->members[id].held);
    }
    mem_free(s->heap);
    mem_free(s);
}

uint64_t sim_now_us(const struct sim *s)
{
    return s->now_us;
}

uint64_t sim_digest(const struct sim *s)
{
    return s->digest;
}

uint64_t sim_events(const struct sim *s)
{
    return s->n_events;
}

void sim_trace(struct sim *s, unsigned level)
{
    s->trace = level;
}

void sim_on_turn(struct sim *s, void (*turn)(void *ctx, uint64_t id), void *ctx)
{
    s->turn = turn;
    s->turn_ctx = ctx;
}

void sim_on_crash(struct sim *s, void (*crashed)(void *ctx, uint64_t id), void *ctx)
{
    s->crashed = crashed;
    s->crashed_ctx = ctx;
}

void sim_on_frame(struct sim *s,
                  bool (*look)(void *ctx, uint64_t from, uint64_t to, enum env_channel ch,
                               struct slice frame),
                  void *ctx)
{
    s->look = look;
    s->look_ctx = ctx;
}

struct sim_net_options *sim_net(struct sim *s)
{
    return &s->options.net;
}

struct sim_disk_options *sim_disk(struct sim *s)
{
    return &s->options.disk;
}

const struct sim_stats *sim_get_stats(const struct sim *s)
{
    return &s->stats;
}
