/* An exchange: its head, its body on the way in, its answer on the way out. What differs between the versions is in h1.c and h2.c. */
#include "api/http/http_int.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"

/* ---- life --------------------------------------------------------------------------------------- */

static struct http_stream *stream_take(struct http_server *s)
{
    struct list *node = list_pop_front(&s->free_streams);
    if (!node) return mem_alloc(sizeof(struct http_stream));
    s->n_free_streams--;
    return container_of(node, struct http_stream, node);
}

static void stream_deadline(struct wheel_timer *t)
{
    struct http_stream *st = container_of(t, struct http_stream, deadline);
    st->deadline_passed(st);
}

struct http_stream *stream_new(struct http_conn *c, int32_t id)
{
    struct http_server *s = c->server;
    struct http_stream *st = stream_take(s);
    if (!st) return NULL;
    memset(st, 0, offsetof(struct http_stream, inline_headers));
    list_push_back(&c->streams, &st->node);
    list_init(&st->receiving);
    list_init(&st->waiting);
    list_init(&st->resuming);
    wheel_timer_init(&st->deadline, stream_deadline);
    st->conn = c;
    st->id = id;
    st->stall_ms = s->limits.body_stall_ms;
    st->headers = st->inline_headers;
    st->headers_size = STREAM_HEADERS;
    st->req.peer_address = c->peer;
    st->req.tls = c->tls != NULL;
    if (c->has_cert) {
        st->req.cert_common_name = c->cert_common_name;
        st->req.cert_organizations = c->cert_organizations;
        st->req.n_cert_organizations = c->n_cert_organizations;
    }
    c->n_streams++;
    s->held += sizeof(*st);
    stat_add(&s->stats.streams, 1);
    stat_add(&s->stats.streams_total, 1);
    return st;
}

static void stream_free(struct http_stream *st)
{
    struct http_server *s = st->conn->server;
    s->held -= sizeof(*st);
    while (st->chunks) {
        struct text_chunk *next = st->chunks->next;
        s->held -= st->chunks->size;
        mem_free(st->chunks);
        st->chunks = next;
    }
    if (st->headers != st->inline_headers) mem_free(st->headers);
    mem_free(st->trailers);
    buf_release(&st->held);
    out_queue_release(&st->q);
    if (s->n_free_streams >= HTTP_FREE_STREAMS) {
        mem_free(st);
        return;
    }
    list_push_front(&s->free_streams, &st->node);
    s->n_free_streams++;
}

/* Body that waits for a resume counts as what is queued does. */
static int hold(struct http_stream *st, struct slice piece)
{
    struct http_conn *c = st->conn;
    if (server_full(c->server) && c->holding + piece.len > HTTP_INPUT) return ERR_LIMIT;
    int rc = buf_append_slice(&st->held, piece);
    if (rc) return rc;
    c->holding += piece.len;
    c->server->held += piece.len;
    return 0;
}

/* The body that was held is no more, or is about to be delivered; how much it is. */
static size_t let_go(struct http_stream *st)
{
    st->conn->holding -= st->held.len;
    st->conn->server->held -= st->held.len;
    return st->held.len;
}

void stream_close(struct http_stream *st, int error)
{
    struct http_conn *c = st->conn;
    struct http_server *s = c->server;
    st->finished = true;
    st->reset = true; /* whatever the handler still says is dropped */
    list_remove(&st->node);
    list_remove(&st->receiving);
    list_remove(&st->waiting);
    list_remove(&st->resuming);
    wheel_unset(&st->deadline);
    if (st->error) error = st->error;
    if (st->cb.closed) st->cb.closed(st, error);
    h2_consume(st, let_go(st));
    c->queued -= st->q.bytes;
    s->held -= st->q.bytes;
    if (c->recent == st) c->recent = NULL;
    if (--c->n_streams == 0) {
        c->idle_since_ms = uv_now(s->loop);
        if (c->closing) conn_dirty(c);
    }
    atomic_store_explicit(&s->stats.streams,
                          atomic_load_explicit(&s->stats.streams, memory_order_relaxed) - 1, memory_order_relaxed);
    stream_free(st);
}

void stream_receiving(struct http_stream *st)
{
    struct http_conn *c = st->conn;
    if (!list_empty(&st->receiving)) return;
    list_push_back(&c->receiving, &st->receiving);
    st->progress_ms = uv_now(c->server->loop);
    const struct http_limits *limits = &c->server->limits;
    unsigned limit = st->dispatched ? st->stall_ms : limits->handshake_ms;
    if (limit) conn_check_by(c, st->progress_ms + limit);
}

/* ---- the head ------------------------------------------------------------------------------------ */

/* Room for `len` bytes of text; NULL when out of memory. */
static char *text_room(struct http_stream *st, size_t len)
{
    if (!st->chunks && STREAM_TEXT - st->text_used >= len) {
        char *at = st->text + st->text_used;
        st->text_used += len;
        return at;
    }
    struct text_chunk *k = st->chunks;
    if (!k || k->size - k->used < len) {
        size_t size = k ? k->size * 2 : 1024;
        while (size < len) size *= 2;
        k = mem_alloc(sizeof(*k) + size);
        if (!k) return NULL;
        *k = (struct text_chunk){.next = st->chunks, .size = size};
        st->chunks = k;
        st->conn->server->held += size;
    }
    char *at = k->bytes + k->used;
    k->used += len;
    return at;
}

bool stream_text(struct http_stream *st, struct slice *text, const char *data, size_t len)
{
    if (len == 0) return true;
    const char *end = (const char *)slice_end(*text);
    char *at;
    struct text_chunk *k = st->chunks;
    if (text->data && !k && end == st->text + st->text_used && STREAM_TEXT - st->text_used >= len) {
        at = st->text + st->text_used;
        st->text_used += len;
    } else if (text->data && k && end == k->bytes + k->used && k->size - k->used >= len) {
        at = k->bytes + k->used;
        k->used += len;
    } else {
        char *moved = text_room(st, text->len + len);
        if (!moved) return false;
        if (text->len) memcpy(moved, text->data, text->len);
        text->data = (const uint8_t *)moved;
        at = moved + text->len;
    }
    memcpy(at, data, len);
    text->len += len;
    return true;
}

bool stream_add_header(struct http_stream *st, struct slice name, struct slice value)
{
    if (st->req.n_headers == st->headers_size) {
        size_t size = st->headers_size * 2;
        struct http_header *h = mem_alloc(size * sizeof(*h));
        if (!h) return false;
        memcpy(h, st->headers, st->req.n_headers * sizeof(*h));
        if (st->headers != st->inline_headers) mem_free(st->headers);
        st->headers = h;
        st->headers_size = size;
    }
    st->headers[st->req.n_headers++] = (struct http_header){name, value};
    st->req.headers = st->headers;
    return true;
}

void stream_set_target(struct http_stream *st, struct slice target)
{
    ptrdiff_t q = slice_index(target, '?');
    st->req.path = q < 0 ? target : slice_sub(target, 0, (size_t)q);
    st->req.query = q < 0 ? (struct slice){0} : slice_sub(target, (size_t)q + 1, target.len);
}

void stream_dispatch(struct http_stream *st)
{
    struct http_conn *c = st->conn;
    st->dispatched = true;
    st->progress_ms = uv_now(c->server->loop);
    st->is_head = slice_eq(st->req.method, SLICE_LIT("HEAD"));
    if (st->over_limit) {
        stat_add(&c->server->stats.refused, 1);
        http_reply(st, 431, "text/plain", SLICE_LIT("request header fields too large\n"));
        return;
    }
    c->handler(c->ctx, st);
    const struct http_callbacks *cb = &st->cb;
    if (!st->responded && !st->reset && !cb->body && !cb->end && !cb->closed && !cb->writable && !st->user)
        http_reply(st, 500, "text/plain", SLICE_LIT("the request was not taken\n"));
}

/* ---- the body ------------------------------------------------------------------------------------ */

/* `closed` cannot come from inside, so the stream stays. */
static void stream_call_body(struct http_stream *st, struct slice piece)
{
    st->piece = piece;
    st->unread = 0;
    st->cb.body(st, piece);
    st->piece = (struct slice){0};
    h2_consume(st, piece.len - st->unread);
}

void http_unread(struct http_stream *st, size_t n)
{
    CHECK(st->paused && n <= st->piece.len && st->unread == 0);
    if (hold(st, slice_sub(st->piece, st->piece.len - n, n)) != 0)
        http_reset(st, NGHTTP2_ENHANCE_YOUR_CALM);
    else
        st->unread = n;
}

bool http_paused(const struct http_stream *st)
{
    return st->paused;
}

void stream_body(struct http_stream *st, struct slice piece)
{
    st->progress_ms = uv_now(st->conn->server->loop);
    if (st->reset || !st->cb.body) {
        h2_consume(st, piece.len);
        return;
    }
    if (!st->paused && st->held.len == 0) {
        stream_call_body(st, piece);
        return;
    }
    if (hold(st, piece) == 0) return;
    http_reset(st, NGHTTP2_ENHANCE_YOUR_CALM);
    h2_consume(st, piece.len);
}

void stream_end(struct http_stream *st)
{
    st->peer_done = true;
    list_remove(&st->receiving);
    if (st->paused || st->held.len || st->request_done) return;
    st->request_done = true;
    if (st->cb.end && !st->reset) st->cb.end(st);
}

void http_pause(struct http_stream *st)
{
    st->paused = true;
    list_remove(&st->resuming);
}

void http_resume(struct http_stream *st)
{
    if (!st->paused) return;
    st->paused = false;
    st->progress_ms = uv_now(st->conn->server->loop);
    if (st->finished || st->conn->dead) return;
    if (list_empty(&st->resuming)) list_push_back(&st->conn->resuming, &st->resuming);
    conn_dirty(st->conn);
}

static void stream_deliver_held(struct http_stream *st)
{
    struct buf held = st->held;
    (void)let_go(st);
    buf_init(&st->held, 0);
    if (held.len) {
        if (st->cb.body && !st->reset)
            stream_call_body(st, buf_slice(&held));
        else
            h2_consume(st, held.len);
        buf_release(&held);
    }
    if (st->paused) return;
    if (st->conn->proto == PROTO_H1) {
        h1_resume(st);
        return;
    }
    if (st->peer_done && !st->request_done) stream_end(st);
}

void conn_run_resuming(struct http_conn *c)
{
    struct list now = c->resuming;
    if (list_empty(&c->resuming)) return;
    now.next->prev = now.prev->next = &now;
    list_init(&c->resuming);
    for (struct list *node; !c->dead && (node = list_pop_front(&now));)
        stream_deliver_held(container_of(node, struct http_stream, resuming));
    while (list_pop_front(&now)) continue;
}

/* ---- the answer ---------------------------------------------------------------------------------- */

/* The answer goes nowhere any more. */
static bool is_over(const struct http_stream *st)
{
    return st->reset || st->ended || st->conn->dead;
}

void http_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n, bool end)
{
    if (is_over(st)) return;
    CHECK(!st->responded && status >= 200 && status <= 999);
    st->responded = true;
    st->no_body = st->is_head || status == 204 || status == 304;
    st->ended = end || st->no_body;
    if (st->conn->proto == PROTO_H2)
        h2_respond(st, status, headers, n);
    else
        h1_respond(st, status, headers, n, end);
    conn_dirty(st->conn);
}

static void queued(struct http_stream *st, size_t before, int rc)
{
    st->conn->queued += st->q.bytes - before;
    st->conn->server->held += st->q.bytes - before;
    if (rc != 0)
        http_reset(st, NGHTTP2_INTERNAL_ERROR);
    else
        h2_data(st);
    conn_dirty(st->conn);
}

void http_write(struct http_stream *st, struct slice data)
{
    if (is_over(st)) return;
    CHECK(st->responded);
    size_t before = st->q.bytes;
    queued(st, before, out_queue_copy(&st->q, data));
}

void http_write_ref(struct http_stream *st, struct slice data, void (*release)(void *owner), void *owner)
{
    if (is_over(st)) {
        if (release) release(owner);
        return;
    }
    CHECK(st->responded);
    size_t before = st->q.bytes;
    queued(st, before, out_queue_ref(&st->q, data, release, owner));
}

static void unref_blob(void *owner)
{
    blob_unref(owner);
}

void http_write_blob(struct http_stream *st, struct blob *b)
{
    if (is_over(st) || !b) return;
    http_write_ref(st, blob_slice(b), unref_blob, blob_ref(b));
}

void http_end(struct http_stream *st)
{
    if (is_over(st)) return;
    CHECK(st->responded);
    st->ended = true;
    h2_data(st);
    conn_dirty(st->conn);
}

static struct http_trailers *trailers_copy(const struct http_header *headers, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += headers[i].name.len + headers[i].value.len;
    struct http_trailers *t = mem_alloc(sizeof(*t) + n * sizeof(*headers) + bytes);
    if (!t) return NULL;
    t->n = n;
    uint8_t *at = (uint8_t *)(t->headers + n);
    for (size_t i = 0; i < n; i++) {
        const struct slice from[2] = {headers[i].name, headers[i].value};
        struct slice *to[2] = {&t->headers[i].name, &t->headers[i].value};
        for (int k = 0; k < 2; k++) {
            if (from[k].len) memcpy(at, from[k].data, from[k].len);
            *to[k] = slice_make(at, from[k].len);
            at += from[k].len;
        }
    }
    return t;
}

void http_end_trailers(struct http_stream *st, const struct http_header *trailers, size_t n)
{
    if (is_over(st)) return;
    CHECK(st->responded);
    st->trailers = n ? trailers_copy(trailers, n) : NULL;
    if (n && !st->trailers) {
        http_reset(st, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    http_end(st);
}

void http_reply(struct http_stream *st, int status, const char *content_type, struct slice body)
{
    char length[24];
    size_t at = sizeof(length);
    for (size_t v = body.len; v || at == sizeof(length); v /= 10) length[--at] = (char)('0' + v % 10);
    struct http_header headers[2] = {{SLICE_LIT("content-length"), slice_make(length + at, sizeof(length) - at)},
                                     {SLICE_LIT("content-type"), slice_str(content_type)}};
    st->whole = true;
    http_respond(st, status, headers, content_type ? 2 : 1, false);
    http_write(st, body);
    http_end(st);
}

void http_reset(struct http_stream *st, uint32_t http2_error)
{
    if (st->reset || st->finished) return;
    st->reset = true;
    if (!st->error) st->error = ERR_CANCELED;
    if (st->conn->dead) return;
    if (st->conn->proto == PROTO_H2)
        h2_reset(st, http2_error);
    else
        conn_kill(st->conn, st->error);
    conn_dirty(st->conn);
}

/* ---- back-pressure --------------------------------------------------------------------------------- */

/* Below `share` of both limits: of the stream's, and of what all streams of a slow connection may hold; and nothing queued at all while the
 * whole server holds too much. */
static bool below(const struct http_stream *st, size_t divisor)
{
    const struct http_limits *l = &st->conn->server->limits;
    return st->q.bytes < l->out_bytes / divisor &&
           ((st->conn->queued < l->conn_out_bytes / divisor && !server_full(st->conn->server)) || st->q.bytes == 0);
}

static void begin_waiting(struct http_stream *st)
{
    list_push_back(&st->conn->waiting, &st->waiting);
    http_set_write_timeout(st, st->take_ms);
}

bool http_writable(const struct http_stream *st)
{
    if (below(st, 1)) return true;
    if (!st->finished && list_empty(&st->waiting)) begin_waiting((struct http_stream *)(uintptr_t)st);
    return false;
}

void stream_took(struct http_stream *st, size_t n)
{
    st->conn->queued -= n;
    st->conn->server->held -= n;
    st->took_ms = st->conn->took_ms = uv_now(st->conn->server->loop);
}

bool conn_run_waiting(struct http_conn *c)
{
    if (list_empty(&c->waiting)) return false;
    bool called = false;
    struct list now = c->waiting;
    now.next->prev = now.prev->next = &now;
    list_init(&c->waiting);
    for (struct list *node; (node = list_pop_front(&now));) {
        struct http_stream *st = container_of(node, struct http_stream, waiting);
        if (c->dead || !below(st, 2)) {
            list_push_back(&c->waiting, node);
            continue;
        }
        if (!st->cb.writable || st->reset) continue;
        st->cb.writable(st);
        called = true;
    }
    return called;
}

/* ---- small ----------------------------------------------------------------------------------------- */

const struct http_request *http_request(const struct http_stream *st)
{
    return &st->req;
}

struct slice http_request_header(const struct http_stream *st, const char *name)
{
    struct slice want = slice_str(name);
    for (size_t i = 0; i < st->req.n_headers; i++)
        if (slice_eq(st->headers[i].name, want)) return st->headers[i].value;
    return (struct slice){0};
}

int http_version(const struct http_stream *st)
{
    return st->conn->proto == PROTO_H2 ? 2 : 1;
}

void http_set_callbacks(struct http_stream *st, const struct http_callbacks *cb, void *user)
{
    st->cb = *cb;
    st->user = user;
}

void *http_user(const struct http_stream *st)
{
    return st->user;
}

struct http_server *http_stream_server(const struct http_stream *st)
{
    return st->conn->server;
}

void http_set_body_timeout(struct http_stream *st, unsigned ms)
{
    st->stall_ms = ms;
    st->progress_ms = uv_now(st->conn->server->loop);
    if (ms && !list_empty(&st->receiving)) conn_check_by(st->conn, st->progress_ms + ms);
}

void http_set_write_timeout(struct http_stream *st, unsigned ms)
{
    st->take_ms = ms;
    st->took_ms = uv_now(st->conn->server->loop);
    if (ms && !list_empty(&st->waiting)) conn_check_by(st->conn, st->took_ms + ms);
}

void http_set_deadline(struct http_stream *st, uint64_t mono_ms, void (*passed)(struct http_stream *st))
{
    wheel_unset(&st->deadline);
    if (mono_ms == 0 || st->finished) return;
    st->deadline_passed = passed;
    wheel_set(&st->conn->server->wheel, &st->deadline, mono_ms);
}
