/* Threads and queues around the core.
 *
 * Worker -> core: a stack of requests that workers push to with compare-and-swap; the core takes it whole and turns it
 * around. Core -> worker: the same, one stack per worker, with answers, live events and resets in one order. Each side
 * wakes the other once per turn. A worker that falls LIMIT_WATCH_LAG_BATCHES or _BYTES behind gets no more live batches but
 * one reset when it has caught up, and its watchers go back to history. */
#include "api/core/core_thread.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

#define CORE_TICK_MS 100
#define CORE_CLIENTS_MAX 64
#define CORE_SLOW_TURN_MS 10
#define CORE_REMOVED_MS 500

enum { LINK_ANSWER, LINK_LIVE, LINK_RESET };

typedef _Atomic(struct core_link *) link_stack;

struct core_live {
    struct core_link link;
    struct event_batch *batch;
    int64_t revision;
};

struct core_thread {
    atomic_uint refs;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t tick;
    struct env *env;
    struct core *core;
    uint64_t member_id, cluster_id;
    link_stack inbox;
    atomic_bool stopping, stopped;
    bool closing;
    uint64_t turn_began_ms;

    pthread_mutex_t lock; /* clients, revision; after the thread: who answers what is still in the inbox */
    struct core_client *clients[CORE_CLIENTS_MAX];
    size_t n_clients;
    int64_t revision;
    _Atomic uint64_t leader_id, term;
    atomic_bool refusing, learner;
};

struct core_client {
    struct core_thread *t;
    uv_loop_t *loop;
    uv_async_t wake;
    link_stack inbox;
    atomic_size_t lag, lag_bytes; /* live batches on their way */
    bool skipping;       /* the core's: no live batches until lag is down */
    bool dirty;          /* the core's */
    bool closing;        /* the lock's */
    struct watch_hub *hub;
};

/* ---- stacks ----------------------------------------------------------------------------------- */

/* Whether it was empty before. */
static bool push(link_stack *s, struct core_link *l)
{
    struct core_link *top = atomic_load_explicit(s, memory_order_relaxed);
    do l->next = top;
    while (!atomic_compare_exchange_weak_explicit(s, &top, l, memory_order_release, memory_order_relaxed));
    return top == NULL;
}

/* All of it, first in first. */
static struct core_link *take(link_stack *s)
{
    struct core_link *l = atomic_exchange_explicit(s, NULL, memory_order_acquire), *first = NULL;
    while (l) {
        struct core_link *next = l->next;
        l->next = first;
        first = l;
        l = next;
    }
    return first;
}

/* ---- on the core's thread ---------------------------------------------------------------------- */

static void to_client(struct core_client *client, struct core_link *l, int kind)
{
    l->kind = kind;
    push(&client->inbox, l);
    client->dirty = true;
}

/* What `done` of a worker's request is while the core has it. */
static void answer_to_client(struct core_request *r)
{
    to_client(r->client, &r->link, LINK_ANSWER);
}

static void drain_inbox(struct core_thread *t)
{
    struct core_link *next;
    for (struct core_link *l = take(&t->inbox); l; l = next) {
        next = l->next;
        core_submit(t->core, container_of(l, struct core_request, link));
    }
}

static void wake_clients(struct core_thread *t)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n_clients; i++) {
        if (!t->clients[i]->dirty) continue;
        t->clients[i]->dirty = false;
        uv_async_send(&t->clients[i]->wake);
    }
    pthread_mutex_unlock(&t->lock);
}

static void send_live(struct core_client *client, struct event_batch *batch, int64_t revision)
{
    struct core_live *m = mem_must_calloc(1, sizeof(*m));
    m->batch = batch ? event_batch_ref(batch) : NULL;
    m->revision = revision;
    if (batch) {
        atomic_fetch_add_explicit(&client->lag, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&client->lag_bytes, batch->bytes, memory_order_relaxed);
    }
    to_client(client, &m->link, batch ? LINK_LIVE : LINK_RESET);
}

/* Whether so many parts of the limits wait for it. */
static bool lags(const struct core_client *client, size_t part)
{
    return atomic_load_explicit(&client->lag, memory_order_relaxed) >= LIMIT_WATCH_LAG_BATCHES / part ||
           atomic_load_explicit(&client->lag_bytes, memory_order_relaxed) >= LIMIT_WATCH_LAG_BYTES / part;
}

static void live_to_client(struct core_thread *t, struct core_client *client, struct event_batch *batch)
{
    if (atomic_load(&t->refusing)) {
        client->skipping = true; /* watchers are told nothing that may be wrong */
    } else if (client->skipping) {
        if (lags(client, 2)) return;
        client->skipping = false;
        send_live(client, NULL, t->revision);
    } else if (lags(client, 1)) {
        client->skipping = true;
    } else {
        send_live(client, batch, 0);
    }
}

static void on_live(void *ctx, struct event_batch *batch)
{
    struct core_thread *t = ctx;
    pthread_mutex_lock(&t->lock);
    t->revision = batch->last_rev;
    for (size_t i = 0; i < t->n_clients; i++) live_to_client(t, t->clients[i], batch);
    pthread_mutex_unlock(&t->lock);
}

static void on_reset(void *ctx, int64_t revision)
{
    struct core_thread *t = ctx;
    log_info("state taken from a snapshot revision=%lld%s", (long long)revision, t->core ? " sent by the leader" : "");
    pthread_mutex_lock(&t->lock);
    t->revision = revision;
    for (size_t i = 0; i < t->n_clients; i++) {
        t->clients[i]->skipping = false;
        send_live(t->clients[i], NULL, revision);
    }
    pthread_mutex_unlock(&t->lock);
}

/* Live batches that a lagging worker was not sent must still lead to a reset when nothing more is written. */
static void end_skipping(struct core_thread *t)
{
    if (atomic_load(&t->refusing)) return;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n_clients; i++) {
        struct core_client *client = t->clients[i];
        if (!client->skipping || lags(client, 2)) continue;
        client->skipping = false;
        send_live(client, NULL, t->revision);
    }
    pthread_mutex_unlock(&t->lock);
}

static void (*restart)(const char *why);

void core_thread_on_restart(void (*again)(const char *why))
{
    restart = again;
}

static void on_removed(uv_timer_t *h)
{
    (void)h;
    log_fatal("stopped: this member was removed from the cluster");
}

static void on_fatal(void *ctx, int error, const char *text)
{
    struct core_thread *t = ctx;
    if (error == ERR_RESTART && restart) restart(text);
    if (error == ERR_REMOVED && t->core) { /* whoever asked for it still gets the answer */
        log_error("%s", text);
        uv_timer_start(&t->tick, on_removed, CORE_REMOVED_MS, 0);
        return;
    }
    log_fatal("stopped, it cannot go on safely: %s error=%s", text, err_name(error));
}

static void on_leader_changed(void *ctx, uint64_t leader_id, bool is_self)
{
    struct core_thread *t = ctx;
    struct consensus_status status = {0};
    atomic_store(&t->leader_id, leader_id);
    if (t->core) consensus_get_status(core_consensus(t->core), &status);
    atomic_store(&t->term, status.term);
    log_info("leader changed leader=%llx self=%d term=%llu", (unsigned long long)leader_id, is_self,
             (unsigned long long)status.term);
}

static void on_learner_changed(void *ctx, bool learner)
{
    struct core_thread *t = ctx;
    atomic_store(&t->learner, learner);
    log_info("this member is now a %s", learner ? "learner" : "voter");
}

static void on_refusing(void *ctx, bool on)
{
    struct core_thread *t = ctx;
    atomic_store(&t->refusing, on);
}

static void on_closed_env(void *ctx)
{
    struct core_thread *t = ctx;
    uv_unref((uv_handle_t *)&t->wake); /* workers may send it until they have let go of the thread */
    uv_close((uv_handle_t *)&t->prepare, NULL);
    uv_close((uv_handle_t *)&t->check, NULL);
    uv_close((uv_handle_t *)&t->tick, NULL);
}

static void on_closed_core(void *ctx)
{
    struct core_thread *t = ctx;
    t->core = NULL;
    wake_clients(t);
    env_uv_close(t->env, on_closed_env, t);
}

static void begin_close(struct core_thread *t)
{
    if (t->closing) return;
    t->closing = true;
    core_close(t->core, on_closed_core, t);
}

static void on_wake(uv_async_t *h)
{
    struct core_thread *t = h->data;
    if (!t->core) return;
    drain_inbox(t);
    if (atomic_load(&t->stopping)) begin_close(t);
}

/* Before the loop waits: what gathered in this turn goes out. */
static void on_prepare(uv_prepare_t *h)
{
    struct core_thread *t = h->data;
    if (t->core) core_flush(t->core);
    env_uv_flush(t->env);
    wake_clients(t);
    uint64_t took = uv_hrtime() / 1000000 - t->turn_began_ms;
    if (t->turn_began_ms && took > CORE_SLOW_TURN_MS)
        log_debug("a turn of the core took long ms=%llu", (unsigned long long)took);
}

static void on_check(uv_check_t *h)
{
    struct core_thread *t = h->data;
    t->turn_began_ms = uv_hrtime() / 1000000;
}

static void on_tick(uv_timer_t *h)
{
    struct core_thread *t = h->data;
    if (!t->core || t->closing) return;
    core_tick(t->core);
    end_skipping(t);
}

/* Once the thread is gone anyone may do its last work. Under the lock: a client that closes knows then that nobody else is about to
 * answer it. */
static void answer_stopped(struct core_thread *t)
{
    struct core_link *next;
    pthread_mutex_lock(&t->lock);
    for (struct core_link *l = take(&t->inbox); l; l = next) {
        struct core_request *r = container_of(l, struct core_request, link);
        struct core_client *client = r->client;
        next = l->next;
        r->code = ERR_STOPPED;
        core_close_handle(r);
        l->kind = LINK_ANSWER;
        push(&client->inbox, l);
        if (!client->closing) uv_async_send(&client->wake);
    }
    pthread_mutex_unlock(&t->lock);
}

static void run(void *arg)
{
    struct core_thread *t = arg;
    uv_run(&t->loop, UV_RUN_DEFAULT);
    atomic_store(&t->stopped, true);
    answer_stopped(t);
}

/* ---- starting and stopping ---------------------------------------------------------------------- */

static void thread_unref(struct core_thread *t)
{
    if (atomic_fetch_sub(&t->refs, 1) > 1) return;
    uv_close((uv_handle_t *)&t->wake, NULL);
    uv_run(&t->loop, UV_RUN_DEFAULT);
    uv_loop_close(&t->loop);
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

static void discard_loop(struct core_thread *t)
{
    if (t->env) env_uv_close(t->env, on_closed_env, t);
    else on_closed_env(t);
    uv_run(&t->loop, UV_RUN_DEFAULT);
    thread_unref(t);
}

int core_thread_start(const struct core_config *config, const struct env_uv_options *env, struct core_thread **ret,
                      struct err *e)
{
    static const struct core_events events = {
        .live = on_live, .reset = on_reset, .fatal = on_fatal, .leader_changed = on_leader_changed,
        .refusing = on_refusing, .learner_changed = on_learner_changed};
    struct core_thread *t = mem_must_calloc(1, sizeof(*t));
    atomic_init(&t->refs, 1);
    pthread_mutex_init(&t->lock, NULL);
    t->member_id = config->consensus.id;
    t->cluster_id = config->consensus.cluster_id;
    if (uv_loop_init(&t->loop) != 0) {
        pthread_mutex_destroy(&t->lock);
        mem_free(t);
        return err_set(e, ERR_NOMEM, "cannot make an event loop");
    }
    uv_async_init(&t->loop, &t->wake, on_wake);
    uv_prepare_init(&t->loop, &t->prepare);
    uv_check_init(&t->loop, &t->check);
    uv_timer_init(&t->loop, &t->tick);
    t->wake.data = t->prepare.data = t->check.data = t->tick.data = t;
    t->revision = 1;
    int rv = env_uv_open(&t->loop, env, &t->env, e);
    if (rv == 0) rv = core_open(config, t->env, &events, t, &t->core, e);
    if (rv != 0) {
        discard_loop(t);
        return rv;
    }
    t->revision = core_revision(t->core);
    uv_prepare_start(&t->prepare, on_prepare);
    uv_check_start(&t->check, on_check);
    uv_timer_start(&t->tick, on_tick, CORE_TICK_MS, CORE_TICK_MS);
    if (uv_thread_create(&t->thread, run, t) != 0) log_fatal("cannot start a thread");
    *ret = t;
    return 0;
}

void core_thread_stop(struct core_thread *t)
{
    atomic_store(&t->stopping, true);
    uv_async_send(&t->wake);
    uv_thread_join(&t->thread);
    thread_unref(t);
}

/* ---- on a worker's thread ----------------------------------------------------------------------- */

struct history_request {
    struct core_request r;
    uint64_t id;
};

static void history_done(struct core_request *r)
{
    struct history_request *h = container_of(r, struct history_request, r);
    struct core_client *client = r->data;
    if (client->hub && r->code != ERR_STOPPED) {
        int64_t upto = r->events ? r->events->last_rev : r->upto_rev;
        watch_hub_history(client->hub, h->id, r->code, r->events, upto, r->compact_rev);
    }
    core_request_release(r);
    mem_free(h);
}

static void ask_history(void *ctx, uint64_t request_id, int64_t from_rev)
{
    struct history_request *h = mem_must_calloc(1, sizeof(*h));
    h->id = request_id;
    h->r = (struct core_request){.type = CORE_HISTORY, .from_rev = from_rev, .done = history_done, .data = ctx};
    core_client_submit(ctx, &h->r);
}

static void deliver(struct core_client *client, struct core_link *l)
{
    if (l->kind == LINK_ANSWER) {
        struct core_request *r = container_of(l, struct core_request, link);
        r->done = r->client_done;
        r->done(r);
        return;
    }
    struct core_live *m = container_of(l, struct core_live, link);
    if (m->batch) {
        atomic_fetch_sub_explicit(&client->lag, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&client->lag_bytes, m->batch->bytes, memory_order_relaxed);
        watch_hub_live(client->hub, m->batch);
        event_batch_unref(m->batch);
    } else {
        watch_hub_reset(client->hub, m->revision);
    }
    mem_free(m);
}

static void drain_client(struct core_client *client)
{
    struct core_link *next;
    for (struct core_link *l = take(&client->inbox); l; l = next) {
        next = l->next;
        deliver(client, l);
    }
}

static void on_client_wake(uv_async_t *h)
{
    drain_client(h->data);
}

int core_client_open(struct core_thread *t, uv_loop_t *loop, struct core_client **ret)
{
    struct core_client *client = mem_must_calloc(1, sizeof(*client));
    static const struct watch_upstream upstream = {.request = ask_history};
    uint64_t seed;
    client->t = t;
    client->loop = loop;
    if (uv_random(NULL, NULL, &seed, sizeof(seed), 0, NULL) != 0 || uv_async_init(loop, &client->wake, on_client_wake) != 0) {
        mem_free(client);
        return ERR_NOMEM;
    }
    client->wake.data = client;
    pthread_mutex_lock(&t->lock);
    int rv = t->n_clients == CORE_CLIENTS_MAX ? ERR_LIMIT
                                              : watch_hub_new(&upstream, client, t->revision, seed, &client->hub);
    if (rv == 0) {
        t->clients[t->n_clients++] = client;
        atomic_fetch_add(&t->refs, 1);
    }
    pthread_mutex_unlock(&t->lock);
    if (rv != 0) {
        client->t = NULL;
        core_client_close(client);
        return rv;
    }
    *ret = client;
    return 0;
}

static void drain_all(struct core_client *client)
{
    while (atomic_load_explicit(&client->inbox, memory_order_relaxed)) drain_client(client);
}

static void on_client_closed(uv_handle_t *h)
{
    struct core_client *client = h->data;
    if (client->t) {
        answer_stopped(client->t);
        drain_all(client);
        thread_unref(client->t);
    }
    mem_free(client);
}

void core_client_close(struct core_client *client)
{
    struct core_thread *t = client->t;
    if (t) {
        pthread_mutex_lock(&t->lock);
        client->closing = true;
        for (size_t i = 0; i < t->n_clients; i++)
            if (t->clients[i] == client) t->clients[i] = t->clients[--t->n_clients];
        pthread_mutex_unlock(&t->lock);
        answer_stopped(t);
        drain_all(client);
        watch_hub_free(client->hub);
        client->hub = NULL;
    }
    uv_close((uv_handle_t *)&client->wake, on_client_closed);
}

void core_client_submit(struct core_client *client, struct core_request *r)
{
    struct core_thread *t = client->t;
    r->client = client;
    r->client_done = r->done;
    r->done = answer_to_client;
    if (push(&t->inbox, &r->link)) uv_async_send(&t->wake);
    if (atomic_load(&t->stopped)) answer_stopped(t);
}

struct watch_hub *core_client_hub(struct core_client *client)
{
    return client->hub;
}

uint64_t core_client_member_id(const struct core_client *client)
{
    return client->t->member_id;
}

uint64_t core_client_cluster_id(const struct core_client *client)
{
    return client->t->cluster_id;
}

uint64_t core_client_leader_id(const struct core_client *client)
{
    return atomic_load_explicit(&client->t->leader_id, memory_order_relaxed);
}

bool core_client_learner(const struct core_client *client)
{
    return atomic_load_explicit(&client->t->learner, memory_order_relaxed);
}

bool core_client_refusing(const struct core_client *client)
{
    return atomic_load_explicit(&client->t->refusing, memory_order_relaxed);
}

uint64_t core_client_term(const struct core_client *client)
{
    return atomic_load_explicit(&client->t->term, memory_order_relaxed);
}
