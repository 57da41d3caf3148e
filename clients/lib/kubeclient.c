#include "clients/lib/kubeclient.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/list.h"
#include "base/mem.h"

#define DEFAULT_TIMEOUT_MS 30000
#define MAX_ATTEMPTS 10
#define BAD_ANSWERS 3 /* in a row, and we try another member */
#define BAD_PAUSE_MS 2000

const struct kube_resource KUBE_PODS = {"v1", "pods", "Pod", true},
                           KUBE_NODES = {"v1", "nodes", "Node", false},
                           KUBE_SERVICES = {"v1", "services", "Service", true},
                           KUBE_ENDPOINTS = {"v1", "endpoints", "Endpoints", true},
                           KUBE_NAMESPACES = {"v1", "namespaces", "Namespace", false},
                           KUBE_EVENTS = {"v1", "events", "Event", true},
                           KUBE_SERVICEACCOUNTS = {"v1", "serviceaccounts", "ServiceAccount", true},
                           KUBE_LEASES = {"coordination.k8s.io/v1", "leases", "Lease", true},
                           KUBE_REPLICASETS = {"apps/v1", "replicasets", "ReplicaSet", true},
                           KUBE_DEPLOYMENTS = {"apps/v1", "deployments", "Deployment", true},
                           KUBE_ENDPOINTSLICES = {"discovery.k8s.io/v1", "endpointslices",
                                                  "EndpointSlice", true};

struct kube_client {
    uv_loop_t *loop;
    struct h2_client *h2;
    char *authorization;
    struct arena scratch; /* of kube_result_json */
    struct list calls;    /* under way */
    struct list delayed;  /* waiting for another attempt, or to be told that they failed */
    uv_timer_t timer;
    unsigned bad_answers;
    uint64_t moved_ms;
    int closing_parts;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct kube_call {
    struct list link;
    struct kube_client *client;
    struct h2_stream *stream;
    enum kube_verb verb;
    char *path;
    struct buf body, answer;
    kube_done *done;
    void *ctx;
    int status, failed, attempts;
    unsigned retry_after_ms;
    bool has_retry_after;
    uint64_t due_ms, deadline_ms;
};

/* ---- paths ---------------------------------------------------------------------------------- */

static void append_encoded(struct buf *out, struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     strchr("-._~", c);
        if (plain && c) buf_append_byte(out, c);
        else buf_printf(out, "%%%02X", c);
    }
}

void kube_path(struct buf *out, const struct kube_resource *r, struct slice ns, struct slice name,
               const char *subresource)
{
    buf_append_str(out, strchr(r->api_version, '/') ? "/apis/" : "/api/");
    buf_append_str(out, r->api_version);
    if (r->namespaced && ns.len) {
        buf_append_str(out, "/namespaces/");
        append_encoded(out, ns);
    }
    buf_append_byte(out, '/');
    buf_append_str(out, r->plural);
    if (name.len) {
        buf_append_byte(out, '/');
        append_encoded(out, name);
    }
    if (subresource) {
        buf_append_byte(out, '/');
        buf_append_str(out, subresource);
    }
}

void kube_query(struct buf *out, const char *name, struct slice value)
{
    bool first = !out->len || !memchr(out->data, '?', out->len);
    buf_append_byte(out, first ? '?' : '&');
    buf_append_str(out, name);
    buf_append_byte(out, '=');
    append_encoded(out, value);
}

int kube_error_code(int status, struct slice reason)
{
    if (status >= 200 && status < 300) return 0;
    switch (status) {
    case 400:
    case 422: return ERR_INVALID;
    case 401: return ERR_AUTH;
    case 403: return ERR_DENIED;
    case 404: return ERR_NOT_FOUND;
    case 405:
    case 406:
    case 415: return ERR_UNSUPPORTED;
    case 409: return slice_eq_str(reason, "AlreadyExists") ? ERR_EXISTS : ERR_CONFLICT;
    case 410: return ERR_COMPACTED;
    case 413: return ERR_TOO_LARGE;
    case 429: return ERR_TOO_MANY_REQUESTS;
    case 504: return ERR_TIMEOUT;
    default: return ERR_UNAVAILABLE;
    }
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void attempt(struct kube_call *call);

static void call_free(struct kube_call *call)
{
    list_remove(&call->link);
    mem_free(call->path);
    buf_release(&call->body);
    buf_release(&call->answer);
    mem_free(call);
}

static void on_timer(uv_timer_t *t);

static void delay(struct kube_call *call, unsigned ms)
{
    struct kube_client *c = call->client;
    list_remove(&call->link);
    list_push_back(&c->delayed, &call->link);
    call->due_ms = uv_now(c->loop) + ms;
    if (!uv_is_active((uv_handle_t *)&c->timer) || uv_timer_get_due_in(&c->timer) > ms)
        uv_timer_start(&c->timer, on_timer, ms, 0);
}

static void report(struct kube_call *call, struct kube_result *r)
{
    struct kube_client *c = call->client;
    r->client = c;
    r->body = buf_slice(&call->answer);
    if (!r->message) r->message = "";
    if (!r->reason) r->reason = "";
    list_remove(&call->link);
    if (call->done) call->done(call->ctx, r);
    arena_reset(&c->scratch);
    call_free(call);
}

static void report_answer(struct kube_call *call)
{
    struct kube_client *c = call->client;
    struct kube_result r = {.status = call->status, .client = c, .body = buf_slice(&call->answer)};
    if (call->status >= 200 && call->status < 300) {
        report(call, &r);
        return;
    }
    struct json *status = kube_result_json(&r);
    struct slice reason = json_text(json_get(status, "reason")),
                 message = json_text(json_get(status, "message"));
    r.code = kube_error_code(call->status, reason);
    r.reason = arena_strdup(&c->scratch, reason);
    r.message = message.len ? arena_strdup(&c->scratch, message)
                            : arena_printf(&c->scratch, "HTTP status %d", call->status);
    report(call, &r);
}

static bool may_repeat(const struct kube_call *call, int code)
{
    if (call->attempts >= MAX_ATTEMPTS || uv_now(call->client->loop) >= call->deadline_ms)
        return false;
    if (code) return call->verb == KUBE_GET && code == ERR_UNAVAILABLE;
    return call->status == 429 ||
           (call->status == 503 && (call->has_retry_after || call->verb == KUBE_GET));
}

static unsigned repeat_delay(const struct kube_call *call)
{
    if (call->has_retry_after && call->retry_after_ms) return call->retry_after_ms;
    return 20u << (call->attempts < 7 ? call->attempts : 7);
}

/* A member that answers, but only that it cannot (no quorum), is left: with its watches too, which
 * would show nothing new. */
static void judge_member(struct kube_client *c, int status, int code)
{
    bool bad = code == ERR_TIMEOUT || status == 503 || status == 504;
    if (!bad) {
        if (!code) c->bad_answers = 0;
        return;
    }
    uint64_t now = uv_now(c->loop);
    if (++c->bad_answers < BAD_ANSWERS || now < c->moved_ms + BAD_PAUSE_MS) return;
    c->bad_answers = 0;
    c->moved_ms = now;
    h2_client_disconnect(c->h2);
}

static void on_done(struct h2_stream *s, int code)
{
    struct kube_call *call = h2_user(s);
    call->stream = NULL;
    if (!code && call->failed) code = call->failed;
    judge_member(call->client, call->status, code);
    if (may_repeat(call, code)) {
        delay(call, repeat_delay(call));
        return;
    }
    if (code) {
        struct kube_result r = {.code = code, .message = h2_stream_error(s)};
        if (!*r.message) r.message = err_text(code);
        report(call, &r);
        return;
    }
    report_answer(call);
}

static void on_head(struct h2_stream *s, int status, const struct h2_header *headers, size_t n)
{
    struct kube_call *call = h2_user(s);
    call->status = status;
    struct slice after = h2_header_get(headers, n, "retry-after");
    call->has_retry_after = after.data != NULL;
    call->retry_after_ms = 0;
    for (size_t i = 0; i < after.len && i < 4 && after.data[i] >= '0' && after.data[i] <= '9'; i++)
        call->retry_after_ms = call->retry_after_ms * 10 + (after.data[i] - '0') * 1000u;
}

static void on_data(struct h2_stream *s, struct slice piece)
{
    struct kube_call *call = h2_user(s);
    if (!call->failed) call->failed = buf_append_slice(&call->answer, piece);
}

static const struct h2_callbacks callbacks = {.head = on_head, .data = on_data, .done = on_done};

static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "PATCH", "PATCH", "DELETE"};
static const char *const content_types[] = {"application/json",
                                            "application/json",
                                            "application/json",
                                            "application/merge-patch+json",
                                            "application/strategic-merge-patch+json",
                                            "application/json-patch+json",
                                            "application/json"};

static void attempt(struct kube_call *call)
{
    struct kube_client *c = call->client;
    list_remove(&call->link);
    list_push_back(&c->calls, &call->link);
    buf_clear(&call->answer);
    call->status = call->failed = 0;
    call->attempts++;
    struct h2_header headers[3];
    size_t n = 0;
    headers[n++] = (struct h2_header){SLICE_LIT("accept"), SLICE_LIT("application/json")};
    if (call->body.len)
        headers[n++] =
            (struct h2_header){SLICE_LIT("content-type"), slice_str(content_types[call->verb])};
    if (c->authorization)
        headers[n++] = (struct h2_header){SLICE_LIT("authorization"), slice_str(c->authorization)};
    uint64_t now = uv_now(c->loop);
    struct h2_request r = {.method = methods[call->verb],
                           .path = slice_str(call->path),
                           .headers = headers,
                           .n_headers = n,
                           .body = buf_slice(&call->body),
                           .timeout_ms =
                               call->deadline_ms > now ? (unsigned)(call->deadline_ms - now) : 1};
    int rc = h2_request(c->h2, &r, &callbacks, call, &call->stream);
    if (rc) {
        call->failed = rc;
        delay(call, 0);
    }
}

static void on_timer(uv_timer_t *t)
{
    struct kube_client *c = t->data;
    uint64_t now = uv_now(c->loop), next = UINT64_MAX;
    struct list due;
    list_init(&due);
    list_for_each(node, &c->delayed)
    {
        struct kube_call *call = container_of(node, struct kube_call, link);
        if (call->due_ms > now) {
            if (call->due_ms < next) next = call->due_ms;
            continue;
        }
        list_remove(node);
        list_push_back(&due, node);
    }
    if (next != UINT64_MAX) uv_timer_start(&c->timer, on_timer, next - now, 0);
    for (struct list *node; (node = list_pop_front(&due));) {
        struct kube_call *call = container_of(node, struct kube_call, link);
        if (!call->failed || call->attempts == 0) {
            attempt(call);
            continue;
        }
        struct kube_result r = {.code = call->failed, .message = err_text(call->failed)};
        report(call, &r);
    }
}

void kube_send(struct kube_client *c, const struct kube_request *r, kube_done *done, void *ctx)
{
    struct kube_call *call = mem_must_calloc(1, sizeof(*call));
    list_init(&call->link);
    call->client = c;
    call->verb = r->verb;
    call->done = done;
    call->ctx = ctx;
    call->deadline_ms = uv_now(c->loop) + (r->timeout_ms ? r->timeout_ms : DEFAULT_TIMEOUT_MS);
    buf_init(&call->answer, LIMIT_CLIENT_RESPONSE_BYTES);
    struct buf path = {0};
    if (r->path) buf_append_str(&path, r->path);
    else kube_path(&path, r->resource, r->ns, r->name, r->subresource);
    if (r->query) {
        buf_append_byte(&path, memchr(path.data, '?', path.len) ? '&' : '?');
        buf_append_str(&path, r->query);
    }
    if (r->body) json_write(&call->body, r->body);
    else buf_append_slice(&call->body, r->raw_body);
    call->path = (char *)buf_cstr(&path);
    bool wants_body = r->verb != KUBE_GET && r->verb != KUBE_DELETE;
    if (!call->path || call->body.failed || (wants_body && call->body.len == 0)) {
        if (!call->path) buf_release(&path);
        call->failed = ERR_NOMEM; /* a body that could not be built comes as NULL */
        call->attempts = 1;
        delay(call, 0);
        return;
    }
    attempt(call);
}

struct json *kube_result_json(const struct kube_result *r)
{
    struct json *v;
    return json_parse(&r->client->scratch, r->body, 0, &v, NULL) ? NULL : v;
}

void kube_get(struct kube_client *c, const struct kube_resource *r, struct slice ns,
              struct slice name, kube_done *done, void *ctx)
{
    kube_send(c, &(struct kube_request){.verb = KUBE_GET, .resource = r, .ns = ns, .name = name},
              done, ctx);
}

void kube_create(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 const struct json *object, kube_done *done, void *ctx)
{
    kube_send(c,
              &(struct kube_request){.verb = KUBE_CREATE, .resource = r, .ns = ns, .body = object},
              done, ctx);
}

void kube_update(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 struct slice name, const struct json *object, kube_done *done, void *ctx)
{
    kube_send(c,
              &(struct kube_request){
                  .verb = KUBE_UPDATE, .resource = r, .ns = ns, .name = name, .body = object},
              done, ctx);
}

void kube_patch(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                struct slice name, const char *subresource, const struct json *merge_patch,
                kube_done *done, void *ctx)
{
    struct kube_request q = {.verb = KUBE_MERGE_PATCH,
                             .resource = r,
                             .ns = ns,
                             .name = name,
                             .subresource = subresource,
                             .body = merge_patch};
    kube_send(c, &q, done, ctx);
}

void kube_delete(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 struct slice name, struct slice uid, int64_t version, int64_t grace_s,
                 const char *propagation, kube_done *done, void *ctx)
{
    struct buf body = {0};
    buf_append_str(&body, "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\"");
    if (uid.len) {
        buf_append_str(&body, ",\"preconditions\":{\"uid\":");
        json_write_string(&body, uid);
        if (version) buf_printf(&body, ",\"resourceVersion\":\"%lld\"", (long long)version);
        buf_append_byte(&body, '}');
    }
    if (grace_s >= 0) buf_printf(&body, ",\"gracePeriodSeconds\":%lld", (long long)grace_s);
    if (propagation) buf_printf(&body, ",\"propagationPolicy\":\"%s\"", propagation);
    buf_append_byte(&body, '}');
    struct kube_request q = {
        .verb = KUBE_DELETE, .resource = r, .ns = ns, .name = name, .raw_body = buf_slice(&body)};
    kube_send(c, &q, done, ctx);
    buf_release(&body);
}

int kube_stream(struct kube_client *c, struct slice path, const struct h2_callbacks *cb, void *user,
                unsigned timeout_ms, struct h2_stream **ret)
{
    struct h2_header headers[2] = {{SLICE_LIT("accept"), SLICE_LIT("application/json")}};
    size_t n = 1;
    if (c->authorization)
        headers[n++] = (struct h2_header){SLICE_LIT("authorization"), slice_str(c->authorization)};
    struct h2_request r = {.method = "GET",
                           .path = path,
                           .headers = headers,
                           .n_headers = n,
                           .timeout_ms = timeout_ms};
    return h2_request(c->h2, &r, cb, user, ret);
}

/* ---- the client ----------------------------------------------------------------------------- */

int kube_client_new(uv_loop_t *loop, const struct kube_config *config, const char *user_agent,
                    struct kube_client **ret, struct err *e)
{
    struct kube_client *c = mem_calloc(1, sizeof(*c));
    if (!c) return ERR_NOMEM;
    c->loop = loop;
    list_init(&c->calls);
    list_init(&c->delayed);
    struct h2_client_options o = {.endpoints = config->servers,
                                  .n_endpoints = config->n_servers,
                                  .first_endpoint =
                                      config->n_servers ? (size_t)random() % config->n_servers : 0,
                                  .tls = &config->tls,
                                  .user_agent = user_agent};
    int rc = h2_client_new(loop, &o, &c->h2, e);
    if (rc) {
        mem_free(c);
        return rc;
    }
    if (config->token) {
        struct buf text = {0};
        buf_printf(&text, "Bearer %s", config->token);
        c->authorization = (char *)buf_cstr(&text);
    }
    uv_timer_init(loop, &c->timer);
    c->timer.data = c;
    *ret = c;
    return 0;
}

static void part_closed(struct kube_client *c)
{
    if (--c->closing_parts) return;
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    arena_release(&c->scratch);
    mem_free(c->authorization);
    mem_free(c);
    if (closed) closed(ctx);
}

static void h2_closed(void *ctx)
{
    part_closed(ctx);
}

static void timer_closed(uv_handle_t *h)
{
    part_closed(h->data);
}

void kube_client_close(struct kube_client *c, void (*closed)(void *ctx), void *ctx)
{
    if (!c) return;
    c->closing_parts = 2;
    c->closed = closed;
    c->closed_ctx = ctx;
    while (!list_empty(&c->calls)) call_free(container_of(c->calls.next, struct kube_call, link));
    while (!list_empty(&c->delayed))
        call_free(container_of(c->delayed.next, struct kube_call, link));
    h2_client_close(c->h2, h2_closed, c);
    uv_close((uv_handle_t *)&c->timer, timer_closed);
}

struct h2_client *kube_client_h2(struct kube_client *c)
{
    return c->h2;
}

uv_loop_t *kube_client_loop(struct kube_client *c)
{
    return c->loop;
}
