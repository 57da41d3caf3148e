#include "api/etcd/grpc.h"

#include <stdarg.h>
#include <stdalign.h>
#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"

enum { PREFIX = 5, STATUS_MESSAGE_MOST = 8192 };

struct route {
    const struct grpc_service *service;
    const struct grpc_method *method; /* NULL: an empty place */
};

struct grpc_server {
    const struct grpc_service *services;
    size_t n_services;
    size_t max_message;
    size_t partial_bytes; /* of messages that are not whole yet, all calls together */
    void *ctx;
    size_t mask; /* of routes, whose number is a power of two */
    struct route *routes;
};

struct grpc_call {
    struct grpc_server *server;
    struct http_stream *st; /* NULL once closed */
    const struct grpc_method *method;
    unsigned refs;
    bool head_sent : 1, finished : 1, deadline_hit : 1, got_message : 1, stalling : 1;
    uint8_t prefix_len;
    uint8_t prefix[PREFIX];
    uint32_t need; /* bytes of the message whose prefix is whole */
    struct buf partial;
    uint64_t deadline_ms;
    alignas(max_align_t) uint8_t state[];
};

/* ---- routes ----------------------------------------------------------------------------------------- */

static uint32_t hash_bytes(uint32_t h, struct slice s) /* FNV-1a */
{
    for (size_t i = 0; i < s.len; i++) h = (h ^ s.data[i]) * 16777619u;
    return h;
}

static uint32_t hash_route(struct slice service, struct slice method)
{
    uint32_t h = hash_bytes(hash_bytes(2166136261u, service), method);
    return h ^ h >> 15;
}

static const struct route *find_route(const struct grpc_server *s, struct slice service, struct slice method)
{
    for (size_t i = hash_route(service, method) & s->mask;; i = (i + 1) & s->mask) {
        const struct route *r = &s->routes[i];
        if (!r->method) return NULL;
        if (slice_eq_str(service, r->service->name) && slice_eq_str(method, r->method->name)) return r;
    }
}

static void add_routes(struct grpc_server *s, const struct grpc_service *service)
{
    for (size_t k = 0; k < service->n_methods; k++) {
        const struct grpc_method *m = &service->methods[k];
        CHECK(m->message || m->client_streaming);
        size_t i = hash_route(slice_str(service->name), slice_str(m->name)) & s->mask;
        while (s->routes[i].method) i = (i + 1) & s->mask;
        s->routes[i] = (struct route){service, m};
    }
}

int grpc_server_new(const struct grpc_service *services, size_t n_services, size_t max_message_bytes, void *ctx,
                    struct grpc_server **ret)
{
    struct grpc_server *s = mem_calloc(1, sizeof(*s));
    if (!s) return ERR_NOMEM;
    size_t n = 0, places = 8;
    for (size_t i = 0; i < n_services; i++) n += services[i].n_methods;
    while (places < 2 * n + 1) places *= 2;
    s->routes = mem_calloc(places, sizeof(*s->routes));
    if (!s->routes) {
        mem_free(s);
        return ERR_NOMEM;
    }
    s->services = services;
    s->n_services = n_services;
    s->mask = places - 1;
    s->max_message = max_message_bytes ? max_message_bytes : LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES;
    s->ctx = ctx;
    for (size_t i = 0; i < n_services; i++) add_routes(s, &services[i]);
    *ret = s;
    return 0;
}

void grpc_server_free(struct grpc_server *s)
{
    if (!s) return;
    mem_free(s->routes);
    mem_free(s);
}

/* ---- status ----------------------------------------------------------------------------------------- */

/* PROTOCOL-HTTP2.md, Percent-Encoded. */
static size_t percent_encode(const char *text, char *to, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    for (const uint8_t *p = (const uint8_t *)text; *p && n + 3 <= size; p++) {
        if (*p >= 0x20 && *p <= 0x7e && *p != '%') {
            to[n++] = (char)*p;
            continue;
        }
        to[n++] = '%';
        to[n++] = hex[*p >> 4];
        to[n++] = hex[*p & 15];
    }
    return n;
}

static const struct http_header content_type = {SLICE_LIT("content-type"), SLICE_LIT("application/grpc")};
static const struct http_header accept_encoding = {SLICE_LIT("grpc-accept-encoding"), SLICE_LIT("identity")};

/* `headers`: room for two. */
static size_t status_headers(struct http_header *headers, char digits[4], enum grpc_code code, const char *message,
                             char *encoded, size_t size)
{
    int n = snprintf(digits, 4, "%d", (int)code & 31);
    headers[0] = (struct http_header){SLICE_LIT("grpc-status"), slice_make(digits, (size_t)n)};
    if (!message || !*message) return 1;
    headers[1] = (struct http_header){SLICE_LIT("grpc-message"), slice_make(encoded, percent_encode(message, encoded, size))};
    return 2;
}

/* Trailers only: the status stands in the head, and there is nothing else. */
static void respond_status(struct http_stream *st, int http_status, enum grpc_code code, const char *message)
{
    char digits[4], encoded[STATUS_MESSAGE_MOST];
    struct http_header headers[4] = {content_type};
    size_t n = 1 + status_headers(headers + 1, digits, code, message, encoded, sizeof(encoded));
    if (code == GRPC_UNIMPLEMENTED) headers[n++] = accept_encoding;
    http_respond(st, http_status, headers, n, true);
}

void grpc_finish(struct grpc_call *c, enum grpc_code code, const char *message)
{
    if (c->finished) return;
    c->finished = true;
    if (!c->st) return;
    if (!c->head_sent) {
        respond_status(c->st, 200, code, message);
        return;
    }
    char digits[4], encoded[STATUS_MESSAGE_MOST];
    struct http_header headers[2];
    size_t n = status_headers(headers, digits, code, message, encoded, sizeof(encoded));
    http_end_trailers(c->st, headers, n);
}

void grpc_finishf(struct grpc_call *c, enum grpc_code code, const char *format, ...)
{
    char text[STATUS_MESSAGE_MOST / 3];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    grpc_finish(c, code, text);
}

void grpc_abort(struct grpc_call *c)
{
    if (c->finished) return;
    c->finished = true;
    if (c->st) http_reset(c->st, 0x8 /* CANCEL */);
}

/* ---- receiving -------------------------------------------------------------------------------------- */

static void partial_release(struct grpc_call *c)
{
    c->server->partial_bytes -= c->partial.len;
    buf_release(&c->partial);
    c->prefix_len = 0;
}

/* While a message is under way its rest is waited for with a limit; between messages a client-streaming call may be still
 * for ever. */
static void watch_stall(struct grpc_call *c)
{
    bool stalling = c->prefix_len > 0;
    if (!c->method->client_streaming || stalling == c->stalling) return;
    c->stalling = stalling;
    http_set_body_timeout(c->st, stalling ? LIMIT_HTTP_BODY_STALL_MS : 0);
}

static void deliver(struct grpc_call *c, struct slice message)
{
    if (!c->method->client_streaming && c->got_message) {
        grpc_finish(c, GRPC_INTERNAL, "cardinality violation: received multiple request messages for non-client-streaming RPC");
        return;
    }
    c->got_message = true;
    if (c->method->message) c->method->message(c, message);
}

/* Completes the prefix from `in`; false when it is not whole yet or the call was finished. */
static bool take_prefix(struct grpc_call *c, struct slice *in)
{
    size_t n = (size_t)(PREFIX - c->prefix_len);
    if (n > in->len) n = in->len;
    memcpy(c->prefix + c->prefix_len, in->data, n);
    c->prefix_len = (uint8_t)(c->prefix_len + n);
    *in = slice_sub(*in, n, in->len);
    if (c->prefix_len < PREFIX) return false;
    c->need = (uint32_t)c->prefix[1] << 24 | (uint32_t)c->prefix[2] << 16 | (uint32_t)c->prefix[3] << 8 | c->prefix[4];
    if (c->prefix[0] == 1)
        grpc_finish(c, GRPC_INTERNAL, "grpc: compressed flag set with identity or empty encoding");
    else if (c->prefix[0] != 0)
        grpc_finishf(c, GRPC_INTERNAL, "grpc: received unexpected payload format %d", c->prefix[0]);
    else if (c->need > c->server->max_message)
        grpc_finishf(c, GRPC_RESOURCE_EXHAUSTED, "grpc: received message larger than max (%u vs. %zu)", c->need,
                     c->server->max_message);
    return !c->finished;
}

static bool keep_partial(struct grpc_call *c, struct slice piece)
{
    struct grpc_server *s = c->server;
    if (s->partial_bytes + piece.len > LIMIT_GRPC_PARTIAL_BYTES || buf_append_slice(&c->partial, piece) != 0) {
        partial_release(c);
        grpc_finish(c, GRPC_RESOURCE_EXHAUSTED, "grpc: out of memory for incomplete messages");
        return false;
    }
    s->partial_bytes += piece.len;
    return true;
}

/* One message, or a part of one, from the front of `in`. */
static void take_message(struct grpc_call *c, struct slice *in)
{
    if (c->prefix_len < PREFIX && !take_prefix(c, in)) return;
    size_t missing = c->need - c->partial.len;
    struct slice piece = slice_sub(*in, 0, missing);
    *in = slice_sub(*in, piece.len, in->len);
    if (piece.len == c->need) { /* whole in one piece: no copy */
        c->prefix_len = 0;
        deliver(c, piece);
        return;
    }
    if (!keep_partial(c, piece) || piece.len < missing) return;
    struct buf whole = c->partial;
    c->server->partial_bytes -= whole.len;
    buf_init(&c->partial, 0);
    c->prefix_len = 0;
    deliver(c, buf_slice(&whole));
    buf_release(&whole);
}

static void on_body(struct http_stream *st, struct slice in)
{
    struct grpc_call *c = http_user(st);
    while (in.len > 0 && !c->finished) {
        take_message(c, &in);
        if (in.len > 0 && http_paused(st)) {
            http_unread(st, in.len);
            break;
        }
    }
    if (!c->finished) watch_stall(c);
}

static void on_end(struct http_stream *st)
{
    struct grpc_call *c = http_user(st);
    if (c->finished) return;
    if (c->prefix_len > 0)
        grpc_finish(c, GRPC_INTERNAL, "unexpected EOF");
    else if (!c->method->client_streaming && !c->got_message)
        grpc_finish(c, GRPC_INTERNAL, "cardinality violation: received no request message from non-client-streaming RPC");
    else if (c->method->client_streaming && c->method->half_closed)
        c->method->half_closed(c);
}

static void on_writable(struct http_stream *st)
{
    struct grpc_call *c = http_user(st);
    if (!c->finished && c->method->writable) c->method->writable(c);
}

static void on_closed(struct http_stream *st, int error)
{
    struct grpc_call *c = http_user(st);
    partial_release(c);
    c->finished = true;
    c->st = NULL;
    if (c->deadline_hit) error = ERR_TIMEOUT;
    if (c->method->closed) c->method->closed(c, error);
    grpc_unref(c);
}

static const struct http_callbacks callbacks = {on_body, on_end, on_writable, on_closed};

/* ---- the head of a call ------------------------------------------------------------------------------ */

/* At most 8 digits and a unit; false if it is malformed. */
static bool parse_timeout(struct slice v, uint64_t *ret_ms)
{
    if (v.len < 2 || v.len > 9) return false;
    uint64_t n = 0;
    for (size_t i = 0; i + 1 < v.len; i++) {
        if (v.data[i] < '0' || v.data[i] > '9') return false;
        n = n * 10 + (uint64_t)(v.data[i] - '0');
    }
    switch (v.data[v.len - 1]) {
    case 'H': n *= 3600000; break;
    case 'M': n *= 60000; break;
    case 'S': n *= 1000; break;
    case 'm': break;
    case 'u': n = (n + 999) / 1000; break;
    case 'n': n = (n + 999999) / 1000000; break;
    default: return false;
    }
    *ret_ms = n;
    return true;
}

static void on_deadline(struct http_stream *st)
{
    struct grpc_call *c = http_user(st);
    if (c->finished) return;
    c->deadline_hit = true;
    grpc_finish(c, GRPC_DEADLINE_EXCEEDED, "context deadline exceeded");
}

static bool is_grpc(struct slice type)
{
    struct slice prefix = SLICE_LIT("application/grpc");
    if (!slice_has_prefix(type, prefix)) return false;
    return type.len == prefix.len || type.data[prefix.len] == '+' || type.data[prefix.len] == ';';
}

static void respond_statusf(struct http_stream *st, int http_status, enum grpc_code code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void respond_statusf(struct http_stream *st, int http_status, enum grpc_code code, const char *format, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    respond_status(st, http_status, code, text);
}

#define SLICE_ARG(s) (int)((s).len < 512 ? (s).len : 512), (const char *)(s).data

static const struct route *route_of(const struct grpc_server *s, struct http_stream *st)
{
    struct slice path = http_request(st)->path;
    size_t at = path.len;
    while (at > 0 && path.data[at - 1] != '/') at--;
    if (at < 2 || path.data[0] != '/') {
        respond_statusf(st, 200, GRPC_UNIMPLEMENTED, "malformed method name: \"%.*s\"", SLICE_ARG(path));
        return NULL;
    }
    struct slice service = slice_sub(path, 1, at - 2), method = slice_sub(path, at, path.len);
    const struct route *r = find_route(s, service, method);
    if (r) return r;
    bool known = false;
    for (size_t i = 0; i < s->n_services; i++) known |= slice_eq_str(service, s->services[i].name);
    if (known)
        respond_statusf(st, 200, GRPC_UNIMPLEMENTED, "unknown method %.*s for service %.*s", SLICE_ARG(method),
                        SLICE_ARG(service));
    else
        respond_statusf(st, 200, GRPC_UNIMPLEMENTED, "unknown service %.*s", SLICE_ARG(service));
    return NULL;
}

/* What is wrong with the head is answered here; false then. */
static bool head_ok(struct http_stream *st, uint64_t *ret_timeout_ms, bool *ret_has_timeout)
{
    const struct http_request *r = http_request(st);
    if (http_version(st) != 2) {
        http_reply(st, 505, "text/plain", SLICE_LIT("gRPC needs HTTP/2\n"));
        return false;
    }
    if (!slice_eq(r->method, SLICE_LIT("POST"))) {
        respond_statusf(st, 405, GRPC_INTERNAL, "Received a HEADERS frame with :method \"%.*s\" which should be POST",
                        SLICE_ARG(r->method));
        return false;
    }
    struct slice encoding = http_request_header(st, "grpc-encoding");
    if (encoding.len && !slice_eq(encoding, SLICE_LIT("identity"))) {
        respond_statusf(st, 200, GRPC_UNIMPLEMENTED, "grpc: Decompressor is not installed for grpc-encoding \"%.*s\"",
                        SLICE_ARG(encoding));
        return false;
    }
    struct slice timeout = http_request_header(st, "grpc-timeout");
    *ret_has_timeout = timeout.data != NULL;
    if (timeout.data && !parse_timeout(timeout, ret_timeout_ms)) {
        respond_statusf(st, 200, GRPC_INTERNAL, "malformed grpc-timeout: \"%.*s\"", SLICE_ARG(timeout));
        return false;
    }
    return true;
}

bool grpc_serve(struct grpc_server *s, struct http_stream *st)
{
    if (!is_grpc(http_request_header(st, "content-type"))) return false;
    uint64_t timeout_ms = 0;
    bool has_timeout = false;
    if (!head_ok(st, &timeout_ms, &has_timeout)) return true;
    const struct route *r = route_of(s, st);
    if (!r) return true;
    struct grpc_call *c = mem_calloc(1, sizeof(*c) + r->method->state_size);
    if (!c) {
        respond_status(st, 200, GRPC_RESOURCE_EXHAUSTED, "out of memory");
        return true;
    }
    c->server = s;
    c->st = st;
    c->method = r->method;
    c->refs = 1;
    http_set_callbacks(st, &callbacks, c);
    if (c->method->client_streaming) http_set_body_timeout(st, 0);
    if (has_timeout) {
        c->deadline_ms = clock_mono_ms() + timeout_ms;
        http_set_deadline(st, c->deadline_ms, on_deadline);
    }
    if (c->method->open) c->method->open(c);
    return true;
}

/* ---- sending ---------------------------------------------------------------------------------------- */

static bool begin_message(struct grpc_call *c, size_t len)
{
    if (c->finished || !c->st) return false;
    CHECK(len <= UINT32_MAX);
    if (!c->head_sent) {
        c->head_sent = true;
        http_respond(c->st, 200, &content_type, 1, false);
    }
    const uint8_t prefix[PREFIX] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    http_write(c->st, slice_make(prefix, PREFIX));
    return true;
}

void grpc_send(struct grpc_call *c, const struct grpc_piece *pieces, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) len += pieces[i].data.len;
    bool open = begin_message(c, len);
    for (size_t i = 0; i < n; i++) {
        const struct grpc_piece *p = &pieces[i];
        if (!open) {
            if (p->release) p->release(p->owner);
        } else if (p->release) {
            http_write_ref(c->st, p->data, p->release, p->owner);
        } else {
            http_write(c->st, p->data);
        }
    }
}

void grpc_send_begin(struct grpc_call *c, size_t len)
{
    (void)begin_message(c, len);
}

void grpc_send_part(struct grpc_call *c, const struct grpc_piece *p)
{
    if (c->finished || !c->st) {
        if (p->release) p->release(p->owner);
    } else if (p->release) {
        http_write_ref(c->st, p->data, p->release, p->owner);
    } else {
        http_write(c->st, p->data);
    }
}

void grpc_send_copy(struct grpc_call *c, struct slice message)
{
    if (begin_message(c, message.len)) http_write(c->st, message);
}

void grpc_send_buf(struct grpc_call *c, struct buf *message)
{
    struct buf b = *message;
    buf_init(message, b.cap);
    if (b.failed) {
        enum grpc_code code = b.failed == ERR_LIMIT ? GRPC_RESOURCE_EXHAUSTED : GRPC_INTERNAL;
        grpc_finish(c, code, b.failed == ERR_LIMIT ? "the answer is too large" : "out of memory");
    } else if (begin_message(c, b.len)) {
        http_write_ref(c->st, buf_slice(&b), mem_free, b.data);
        return;
    }
    buf_release(&b);
}

static void unref_blob(void *owner)
{
    blob_unref(owner);
}

void grpc_send_blob(struct grpc_call *c, struct blob *message)
{
    struct slice data = blob_slice(message);
    if (begin_message(c, data.len) && message) http_write_ref(c->st, data, unref_blob, blob_ref(message));
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

bool grpc_writable(const struct grpc_call *c)
{
    return c->st && http_writable(c->st);
}

void grpc_set_write_timeout(struct grpc_call *c, unsigned ms)
{
    if (c->st) http_set_write_timeout(c->st, ms);
}

void grpc_pause(struct grpc_call *c)
{
    if (c->st) http_pause(c->st);
}

void grpc_resume(struct grpc_call *c)
{
    if (c->st) http_resume(c->st);
}

/* ---- small ------------------------------------------------------------------------------------------ */

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
    return c->server->ctx;
}

const struct grpc_method *grpc_call_method(const struct grpc_call *c)
{
    return c->method;
}

struct grpc_call *grpc_ref(struct grpc_call *c)
{
    c->refs++;
    return c;
}

void grpc_unref(struct grpc_call *c)
{
    if (c && --c->refs == 0) mem_free(c);
}

bool grpc_done(const struct grpc_call *c)
{
    return c->finished;
}

struct slice grpc_metadata(const struct grpc_call *c, const char *name)
{
    return c->st ? http_request_header(c->st, name) : (struct slice){0};
}

const struct http_request *grpc_http_request(const struct grpc_call *c)
{
    return c->st ? http_request(c->st) : NULL;
}

uint64_t grpc_deadline_ms(const struct grpc_call *c)
{
    return c->deadline_ms;
}
