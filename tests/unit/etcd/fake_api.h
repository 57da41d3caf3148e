/* The services between two fakes: gRPC calls that keep what is sent on them, and a core that is a
 * real store without consensus, and answers when the test says so. */
#ifndef PINTLE_TESTS_ETCD_FAKE_API_H
#define PINTLE_TESTS_ETCD_FAKE_API_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "api/etcd/etcd_int.h"
#include "base/limits.h"
#include "base/mem.h"
#include "schemas/etcd/rpc.pb-c.h"
#include "store/store.h"

/* ---- calls -------------------------------------------------------------------------------------
 */

#define MAX_SENT 4096

struct grpc_call {
    struct etcd_api *api;
    const struct grpc_method *method;
    int refs;
    bool finished, closed, aborted, paused, half_closed;
    int code;
    char text[256];
    const char *hasleader;
    struct buf sent[MAX_SENT]; /* whole messages */
    size_t n_sent, left;       /* bytes of the last one that are still to come */
    long budget;               /* bytes it takes until it is not writable; LONG_MAX = no end */
    _Alignas(16) uint8_t state[];
};

static struct etcd_api api;
static struct worker worker;
static struct store *store;
static uint64_t leader = 77;

void *grpc_state(const struct grpc_call *c)
{
    return (void *)(uintptr_t)c->state;
}
struct grpc_call *grpc_call_of(const void *state)
{
    return (struct grpc_call *)((uintptr_t)state - offsetof(struct grpc_call, state));
}
void *grpc_ctx(const struct grpc_call *c)
{
    return c->api;
}
struct grpc_call *grpc_ref(struct grpc_call *c)
{
    c->refs++;
    return c;
}
void grpc_unref(struct grpc_call *c)
{
    if (--c->refs > 0) return;
    assert_true(c->closed);
    for (size_t i = 0; i < c->n_sent; i++) buf_release(&c->sent[i]);
    free(c);
}
bool grpc_done(const struct grpc_call *c)
{
    return c->finished;
}
struct slice grpc_metadata(const struct grpc_call *c, const char *name)
{
    return strcmp(name, "hasleader") == 0 ? slice_str(c->hasleader) : (struct slice){0};
}

void grpc_send_begin(struct grpc_call *c, size_t len)
{
    assert_int_equal(c->left, 0);
    if (c->finished) return;
    assert_true(c->n_sent < MAX_SENT);
    c->n_sent++;
    c->left = len;
}

static void keep(struct grpc_call *c, struct slice s)
{
    assert_true(s.len <= c->left);
    c->left -= s.len;
    if (c->budget != LONG_MAX) c->budget -= (long)s.len;
    struct buf *b = &c->sent[c->n_sent - 1];
    if (b->size < b->len + s.len) {
        b->size = 2 * (b->len + s.len);
        b->data = realloc(b->data, b->size); /* not ours to fail */
    }
    if (s.len) memcpy(b->data + b->len, s.data, s.len);
    b->len += s.len;
}

void grpc_send_part(struct grpc_call *c, const struct grpc_piece *p)
{
    if (!c->finished) keep(c, p->data);
    if (p->release) p->release(p->owner);
}

void grpc_send(struct grpc_call *c, const struct grpc_piece *pieces, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) len += pieces[i].data.len;
    grpc_send_begin(c, len);
    for (size_t i = 0; i < n; i++) grpc_send_part(c, &pieces[i]);
}

void grpc_send_copy(struct grpc_call *c, struct slice message)
{
    struct grpc_piece p = {.data = message};
    grpc_send(c, &p, 1);
}

void grpc_finish(struct grpc_call *c, enum grpc_code code, const char *message)
{
    if (c->finished) return;
    assert_int_equal(c->left, 0); /* never a cut message and then a status */
    c->finished = true;
    c->code = (int)code;
    snprintf(c->text, sizeof(c->text), "%s", message ? message : "");
}

void grpc_finishf(struct grpc_call *c, enum grpc_code code, const char *format, ...)
{
    (void)format;
    grpc_finish(c, code, "formatted");
}

void grpc_send_buf(struct grpc_call *c, struct buf *message)
{
    if (message->failed) grpc_finish(c, GRPC_INTERNAL, "out of memory");
    else grpc_send_copy(c, buf_slice(message));
    buf_release(message);
}

void grpc_reply(struct grpc_call *c, const struct grpc_piece *pieces, size_t n)
{
    grpc_send(c, pieces, n);
    grpc_finish(c, GRPC_OK, NULL);
}

void grpc_reply_buf(struct grpc_call *c, struct buf *message)
{
    grpc_send_buf(c, message);
    grpc_finish(c, GRPC_OK, NULL);
}

void grpc_abort(struct grpc_call *c)
{
    c->finished = c->aborted = true;
    c->left = 0;
}

bool grpc_writable(const struct grpc_call *c)
{
    return c->budget > 0;
}
void grpc_pause(struct grpc_call *c)
{
    c->paused = true;
}
void grpc_resume(struct grpc_call *c)
{
    c->paused = false;
}

static const struct grpc_method *method_of(const struct grpc_method *methods, size_t n,
                                           const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(methods[i].name, name) == 0) return &methods[i];
    }
    fail_msg("no method %s", name);
    return NULL;
}

static struct grpc_call *call_open(const struct grpc_method *m)
{
    struct grpc_call *c = calloc(1, sizeof(*c) + m->state_size);
    c->api = &api;
    c->method = m;
    c->refs = 1;
    c->budget = LONG_MAX;
    c->code = -1;
    if (m->open) m->open(c);
    return c;
}

/* A message in an allocation of just its size. */
static void call_message(struct grpc_call *c, struct slice s)
{
    uint8_t *exact = malloc(s.len + !s.len);
    if (s.len) memcpy(exact, s.data, s.len);
    if (!c->finished) c->method->message(c, slice_make(exact, s.len));
    free(exact);
}

static void call_send(struct grpc_call *c, const ProtobufCMessage *m)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = malloc(n + 1);
    protobuf_c_message_pack(m, p);
    call_message(c, slice_make(p, n));
    free(p);
}

/* The exchange is over: the last callback, and the framework's reference. */
static void call_close(struct grpc_call *c, int error)
{
    c->finished = true;
    c->left = 0;
    c->closed = true;
    if (c->method->closed) c->method->closed(c, error);
    grpc_unref(c);
}

static void call_writable(struct grpc_call *c, long budget)
{
    c->budget = budget;
    if (budget > 0 && !c->finished && c->method->writable) c->method->writable(c);
}

/* ---- the core ----------------------------------------------------------------------------------
 */

#define MAX_QUEUE 8192

struct history_wish {
    uint64_t id;
    int64_t from;
};

static struct {
    struct core_request *requests[MAX_QUEUE];
    size_t n;
    struct history_wish wishes[64];
    size_t n_wishes;
    int fail_next; /* error of the next request */
} core;

void core_client_submit(struct core_client *c, struct core_request *r)
{
    (void)c;
    assert_true(core.n < MAX_QUEUE);
    core.requests[core.n++] = r;
}

uint64_t core_client_leader_id(const struct core_client *c)
{
    (void)c;
    return leader;
}

bool core_client_learner(const struct core_client *c)
{
    (void)c;
    return false;
}

bool core_client_refusing(const struct core_client *c)
{
    (void)c;
    return false;
}

uint64_t core_client_term(const struct core_client *c)
{
    (void)c;
    return 5;
}

static void on_history_wish(void *ctx, uint64_t id, int64_t from)
{
    (void)ctx;
    assert_true(core.n_wishes < 64);
    core.wishes[core.n_wishes++] = (struct history_wish){id, from};
}

static int serve_lease(struct core_request *r)
{
    struct lease_info info;
    if (!store_lease(store, r->lease_id, &info)) return ERR_LEASE_NOT_FOUND;
    r->ttl = r->granted_ttl = info.ttl;
    return r->want_keys ? store_lease_keys(store, r->lease_id, &r->arena, &r->keys, &r->n_keys) : 0;
}

static int serve_snapshot(struct core_request *r)
{
    struct buf out = {0};
    int rv = store_snapshot_next((struct store_snapshot *)(void *)r->snapshot, 100000, &out,
                                 &r->done_all);
    if (rv == 0) r->piece = blob_copy(buf_slice(&out));
    buf_release(&out);
    return rv;
}

static int serve_cursor(struct core_request *r)
{
    r->result.type = COMMAND_OP;
    r->result.op.type = OP_RANGE;
    return store_cursor_next((struct store_cursor *)(void *)r->cursor, 1000, SIZE_MAX, &r->arena,
                             &r->result.op.range);
}

static int serve(struct core_request *r)
{
    struct command cmd;
    int rv = 0;
    switch (r->type) {
    case CORE_COMMAND:
        rv = command_decode(&r->arena, r->command, &cmd);
        if (rv == 0) store_apply(store, &cmd, &r->arena, &r->result);
        return rv ? rv : r->result.code;
    case CORE_RANGE:
        r->result.type = COMMAND_OP;
        r->result.op.type = OP_RANGE;
        r->result.revision = store_revision(store);
        return store_range(store, &r->range, &r->arena, &r->result.op.range);
    case CORE_TXN_READ: store_txn_read(store, r->txn, &r->arena, &r->result); return r->result.code;
    case CORE_CURSOR_OPEN:
        rv = store_cursor_open(store, &r->range, (struct store_cursor **)(void *)&r->cursor);
        if (rv == 0) rv = serve_cursor(r);
        if (rv != 0) store_cursor_close((struct store_cursor *)(void *)r->cursor);
        if (rv != 0) r->cursor = NULL;
        return rv;
    case CORE_CURSOR_NEXT: return serve_cursor(r);
    case CORE_CURSOR_CLOSE: store_cursor_close((struct store_cursor *)(void *)r->cursor); return 0;
    case CORE_LEASE_RENEW:
    case CORE_LEASE_INFO: return serve_lease(r);
    case CORE_ALARMS:
        r->alarms = arena_calloc(&r->arena, 16, sizeof(*r->alarms));
        r->n_alarms = store_alarms(store, r->alarms, 16);
        return 0;
    case CORE_SNAPSHOT_OPEN:
        r->snapshot = (struct core_snapshot *)(void *)store_snapshot_open(store);
        r->snapshot_size = store_size_in_use(store);
        return 0;
    case CORE_SNAPSHOT_NEXT: return serve_snapshot(r);
    case CORE_SNAPSHOT_CLOSE:
        store_snapshot_close((struct store_snapshot *)(void *)r->snapshot);
        return 0;
    default: return 0;
    }
}

static void answer_wish(void)
{
    struct history_wish w = core.wishes[0];
    memmove(core.wishes, core.wishes + 1, --core.n_wishes * sizeof(w));
    struct event_batch *b = NULL;
    int64_t upto = store_revision(store);
    int rv = store_events(store, w.from, upto, 50, 1 << 20, &b);
    watch_hub_history(api.hub, w.id, rv, b, upto, store_compact_revision(store));
    event_batch_unref(b);
}

/* Answers one thing; false if nothing waits. */
static bool core_step(void)
{
    if (core.n == 0 && core.n_wishes == 0) return false;
    if (core.n == 0) {
        answer_wish();
        return true;
    }
    struct core_request *r = core.requests[0];
    memmove(core.requests, core.requests + 1, --core.n * sizeof(r));
    bool closes = r->type == CORE_CURSOR_CLOSE || r->type == CORE_SNAPSHOT_CLOSE;
    r->code = core.fail_next && !closes ? core.fail_next : serve(r);
    if (!closes) core.fail_next = 0;
    r->ret_revision = store_revision(store);
    r->ret_term = 5;
    struct event_batch *b = store_take_events(store);
    r->done(r);
    if (b) watch_hub_live(api.hub, b);
    event_batch_unref(b);
    return true;
}

static void core_run(void)
{
    while (core_step()) continue;
}

/* ---- set-up ------------------------------------------------------------------------------------
 */

static int api_set_up(void **state)
{
    static const struct watch_upstream up = {on_history_wish};
    (void)state;
    memset(&api, 0, sizeof(api));
    memset(&core, 0, sizeof(core));
    leader = 77;
    store = store_new(&(struct store_options){0});
    api.worker = &worker;
    api.cluster_id = 11;
    api.member_id = 77;
    api.progress_interval_ms = 1000;
    list_init(&api.watch_streams);
    list_init(&api.leader_calls);
    return watch_hub_new(&up, NULL, store_revision(store), &api.hub) ||
           watch_cache_new(&api.watch_cache);
}

static int api_tear_down(void **state)
{
    (void)state;
    assert_int_equal(core.n, 0);
    watch_hub_free(api.hub);
    watch_cache_free(api.watch_cache);
    store_free(store);
    return 0;
}

#define KV(name) method_of(etcd_kv_methods, etcd_kv_n_methods, name)

static struct grpc_call *put_start(const char *key, struct slice value)
{
    Etcdserverpb__PutRequest m = ETCDSERVERPB__PUT_REQUEST__INIT;
    m.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    m.value = (ProtobufCBinaryData){value.len, (uint8_t *)(uintptr_t)value.data};
    struct grpc_call *c = call_open(KV("Put"));
    call_send(c, &m.base);
    return c;
}

static void put(const char *key, struct slice value)
{
    struct grpc_call *c = put_start(key, value);
    core_run();
    assert_int_equal(c->code, GRPC_OK);
    call_close(c, 0);
}

static void expect_error(struct grpc_call *c, int code, const char *text)
{
    core_run();
    assert_true(c->finished);
    assert_int_equal(c->code, code);
    assert_string_equal(c->text, text);
    call_close(c, 0);
}

#endif
