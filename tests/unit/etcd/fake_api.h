/* The services between two fakes: gRPC calls that keep what is sent on them, and tests/lib's core. */
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
#include "tests/lib/fake_core.h"

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
static struct core_client core;
static struct worker worker;

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
void grpc_set_write_timeout(struct grpc_call *c, unsigned ms)
{
    (void)c;
    (void)ms;
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

/* ---- set-up ------------------------------------------------------------------------------------
 */

static int api_set_up(void **state)
{
    (void)state;
    memset(&api, 0, sizeof(api));
    fake_core_open(&core);
    api.worker = &worker;
    api.core = &core;
    api.cluster_id = 11;
    api.member_id = 77;
    api.progress_interval_ms = 1000;
    list_init(&api.watch_streams);
    list_init(&api.leader_calls);
    api.hub = core.hub;
    return watch_cache_new(&api.watch_cache);
}

static int api_tear_down(void **state)
{
    (void)state;
    watch_cache_free(api.watch_cache);
    fake_core_close(&core);
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
    fake_core_run(&core);
    assert_int_equal(c->code, GRPC_OK);
    call_close(c, 0);
}

static void expect_error(struct grpc_call *c, int code, const char *text)
{
    fake_core_run(&core);
    assert_true(c->finished);
    assert_int_equal(c->code, code);
    assert_string_equal(c->text, text);
    call_close(c, 0);
}

#endif
