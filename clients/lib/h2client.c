/* The client: endpoints and the choice among them, requests that wait for a connection, time.
 *
 * All work is done in `turn`, which runs in the loop's prepare phase, right before it would sleep:
 * dead connections are taken apart, a connection is made if requests wait, they are given to it,
 * and frames go out: one write for everything that one turn of the loop asked. */
#include "clients/lib/h2client.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"
#include "clients/lib/h2_int.h"

uint64_t h2_now(const struct h2_client *c)
{
    return uv_now(c->loop) + 1; /* never 0 */
}

/* ---- endpoints ------------------------------------------------------------------------------ */

static int parse_port(const char *text, int *ret)
{
    char *end;
    long v = strtol(text, &end, 10);
    if (end == text || *end || v < 1 || v > 65535) return ERR_INVALID;
    *ret = (int)v;
    return 0;
}

static int parse_endpoint(const char *url, struct h2_endpoint *ep, struct err *e)
{
    const char *p = url;
    ep->tls = false;
    if (!strncasecmp(p, "https://", 8)) {
        ep->tls = true;
        p += 8;
    } else if (!strncasecmp(p, "http://", 7)) {
        p += 7;
    } else if (strstr(p, "://")) {
        return err_set(e, ERR_INVALID, "endpoint \"%s\": only http:// and https:// are known", url);
    }
    size_t len = strcspn(p, "/?#");
    if (p[len] && strcmp(p + len, "/") != 0)
        return err_set(e, ERR_INVALID, "endpoint \"%s\": a path is not possible here", url);
    char host[256];
    if (len == 0 || len >= sizeof(host))
        return err_set(e, ERR_INVALID, "endpoint \"%s\": no host", url);
    memcpy(host, p, len);
    host[len] = 0;
    ep->port = ep->tls ? 443 : 80;
    char *name = host, *colon;
    if (*name == '[') {
        char *end = strchr(++name, ']');
        if (!end) return err_set(e, ERR_INVALID, "endpoint \"%s\": no ]", url);
        *end = 0;
        colon = end[1] == ':' ? end + 1 : NULL;
        if (end[1] && !colon)
            return err_set(e, ERR_INVALID, "endpoint \"%s\": not a host and port", url);
    } else {
        colon = strchr(name, ':');
        if (colon && strchr(colon + 1, ':'))
            return err_set(e, ERR_INVALID, "endpoint \"%s\": IPv6 needs []", url);
    }
    if (colon) {
        *colon = 0;
        if (parse_port(colon + 1, &ep->port))
            return err_set(e, ERR_INVALID, "endpoint \"%s\": bad port", url);
    }
    if (!*name) return err_set(e, ERR_INVALID, "endpoint \"%s\": no host", url);
    bool v6 = strchr(name, ':') != NULL;
    char authority[300];
    snprintf(authority, sizeof(authority), v6 ? "[%s]:%d" : "%s:%d", name, ep->port);
    ep->url = mem_must_strdup(url);
    ep->host = mem_must_strdup(name);
    ep->authority = mem_must_strdup(authority);
    return 0;
}

static void free_settings(struct h2_client *c)
{
    for (size_t i = 0; i < c->n_endpoints; i++) {
        mem_free(c->endpoints[i].url);
        mem_free(c->endpoints[i].host);
        mem_free(c->endpoints[i].authority);
    }
    mem_free(c->endpoints);
    mem_free(c->server_name);
    mem_free(c->user_agent);
    if (c->tls) SSL_CTX_free(c->tls);
}

static int take_settings(struct h2_client *c, const struct h2_client_options *o, struct err *e)
{
    if (o->n_endpoints == 0) return err_set(e, ERR_INVALID, "no endpoint given");
    if (o->n_endpoints > LIMIT_CLIENT_ENDPOINTS) return err_set(e, ERR_LIMIT, "too many endpoints");
    c->endpoints = mem_calloc(o->n_endpoints, sizeof(*c->endpoints));
    if (!c->endpoints) return ERR_NOMEM;
    bool tls = false;
    for (size_t i = 0; i < o->n_endpoints; i++) {
        int rc = parse_endpoint(o->endpoints[i], &c->endpoints[i], e);
        if (rc) return rc;
        c->n_endpoints++;
        tls = tls || c->endpoints[i].tls;
    }
    c->next = o->first_endpoint % o->n_endpoints;
    c->user_agent = mem_must_strdup(o->user_agent ? o->user_agent : "pintle");
    c->fail_fast = o->fail_fast;
    c->connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 3000;
    c->keepalive_ms = o->keepalive_ms ? o->keepalive_ms : 3000;
    c->keepalive_timeout_ms = o->keepalive_timeout_ms ? o->keepalive_timeout_ms : 3000;
    c->backoff_min_ms = o->backoff_min_ms ? o->backoff_min_ms : 50;
    c->backoff_max_ms = o->backoff_max_ms ? o->backoff_max_ms : 2000;
    c->window = o->window_bytes ? o->window_bytes : (unsigned)(8 * LIMIT_MiB);
    c->verify = !(o->tls && o->tls->insecure);
    if (o->tls && o->tls->server_name) c->server_name = mem_must_strdup(o->tls->server_name);
    return tls ? h2_tls_context(o->tls, &c->tls, e) : 0;
}

/* ---- streams -------------------------------------------------------------------------------- */

void h2_stream_free(struct h2_stream *s)
{
    if (s->in_callback) {
        s->canceled = true; /* leave_callback comes back here */
        return;
    }
    s->client->n_streams--;
    buf_release(&s->body);
    mem_free(s);
}

/* `s` is in no list any more. */
void h2_stream_finish(struct h2_stream *s, int code)
{
    list_remove(&s->link);
    if (code && !s->error[0]) snprintf(s->error, sizeof(s->error), "%s", err_text(code));
    s->in_callback = false;
    if (s->cb->done) s->cb->done(s, code);
    h2_stream_free(s);
}

void h2_stream_requeue(struct h2_stream *s)
{
    s->id = 0;
    s->status = 0;
    s->body_sent = 0;
    s->deferred = false;
    list_push_back(&s->client->waiting, &s->link);
    h2_client_arm(s->client, h2_now(s->client));
}

static struct slice put_text(char **at, struct slice s)
{
    if (s.len) memcpy(*at, s.data, s.len);
    struct slice copy = {(uint8_t *)*at, s.len};
    *at += s.len;
    return copy;
}

static struct h2_stream *stream_new(const struct h2_request *r)
{
    struct slice method = slice_str(r->method);
    size_t text = method.len + r->path.len;
    for (size_t i = 0; i < r->n_headers; i++)
        text += r->headers[i].name.len + r->headers[i].value.len;
    size_t headers = r->n_headers * sizeof(struct h2_header);
    struct h2_stream *s = mem_alloc(sizeof(*s) + headers + text);
    if (!s) return NULL;
    memset(s, 0, sizeof(*s));
    s->headers = (struct h2_header *)(s + 1);
    char *at = (char *)(s + 1) + headers;
    s->n_headers = r->n_headers;
    s->method = put_text(&at, method);
    s->path = put_text(&at, r->path);
    for (size_t i = 0; i < r->n_headers; i++)
        s->headers[i] = (struct h2_header){put_text(&at, r->headers[i].name),
                                           put_text(&at, r->headers[i].value)};
    buf_append_slice(&s->body, r->body);
    if (s->body.failed) {
        mem_free(s);
        return NULL;
    }
    s->body_end = s->whole_body = !r->more_body;
    list_init(&s->link);
    return s;
}

int h2_request(struct h2_client *c, const struct h2_request *r, const struct h2_callbacks *cb,
               void *user, struct h2_stream **ret)
{
    if (c->closing) return ERR_CLOSED;
    if (c->n_streams >= LIMIT_CLIENT_STREAMS) return ERR_LIMIT;
    struct h2_stream *s = stream_new(r);
    if (!s) return ERR_NOMEM;
    s->client = c;
    s->cb = cb;
    s->user = user;
    c->n_streams++;
    c->streams_total++;
    list_push_back(&c->waiting, &s->link);
    h2_set_timeout(s, r->timeout_ms);
    if (!c->current) h2_client_arm(c, h2_now(c));
    *ret = s;
    return 0;
}

void *h2_user(const struct h2_stream *s)
{
    return s->user;
}

struct h2_client *h2_stream_client(const struct h2_stream *s)
{
    return s->client;
}

int h2_stream_endpoint(const struct h2_stream *s)
{
    return s->conn ? s->conn->endpoint : -1;
}

const char *h2_stream_error(const struct h2_stream *s)
{
    return s->error;
}

static void resume_body(struct h2_stream *s)
{
    if (!s->deferred) return;
    s->deferred = false;
    nghttp2_session_resume_data(s->conn->session, s->id);
}

int h2_write(struct h2_stream *s, struct slice data)
{
    if (s->body_end) return ERR_CLOSED;
    if (s->body.len - s->body_sent + data.len > 4 * LIMIT_HTTP_OUT_BYTES) return ERR_LIMIT;
    if (buf_append_slice(&s->body, data)) {
        int rc = s->body.failed;
        s->body.failed = 0;
        return rc;
    }
    if (!h2_writable(s) && !s->was_full && s->conn) {
        s->was_full = true;
        s->conn->n_full++;
    }
    resume_body(s);
    return 0;
}

bool h2_writable(const struct h2_stream *s)
{
    return s->body.len - s->body_sent < LIMIT_HTTP_OUT_BYTES;
}

void h2_end(struct h2_stream *s)
{
    if (s->body_end) return;
    s->body_end = true;
    resume_body(s);
}

void h2_cancel(struct h2_stream *s)
{
    if (s->canceled) return;
    if (s->conn) {
        nghttp2_session *session = s->conn->session;
        nghttp2_session_set_stream_user_data(session, s->id, NULL);
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
        h2_stream_detach(s->conn, s);
    }
    list_remove(&s->link);
    s->code = ERR_CANCELED;
    h2_stream_free(s);
}

void h2_set_timeout(struct h2_stream *s, unsigned timeout_ms)
{
    s->deadline_ms = timeout_ms ? h2_now(s->client) + timeout_ms : 0;
    if (s->deadline_ms) h2_client_arm(s->client, s->deadline_ms);
}

struct slice h2_header_get(const struct h2_header *headers, size_t n, const char *name)
{
    struct slice want = slice_str(name);
    for (size_t i = 0; i < n; i++)
        if (slice_eq(headers[i].name, want)) return headers[i].value;
    return (struct slice){0};
}

/* ---- connections ---------------------------------------------------------------------------- */

static void handle_closed(struct h2_client *c)
{
    if (--c->open_handles > 0 || !c->closing) return;
    void (*closed)(void *ctx) = c->closed;
    void *ctx = c->closed_ctx;
    free_settings(c);
    mem_free(c);
    if (closed) closed(ctx);
}

static void on_conn_closed(uv_handle_t *h)
{
    struct h2_conn *conn = h->data;
    struct h2_client *c = conn->client;
    h2_conn_free(conn);
    handle_closed(c);
}

void h2_conn_close_handles(struct h2_conn *conn)
{
    conn->handles_open = false;
    uv_close((uv_handle_t *)&conn->tcp, on_conn_closed);
}

/* After a failed attempt: the next endpoint at once, after each whole round a growing pause with
 * jitter. */
static void plan_retry(struct h2_client *c)
{
    c->failures++;
    c->failed_in_row++;
    if (c->failed_in_row % c->n_endpoints) return;
    unsigned rounds = c->failed_in_row / (unsigned)c->n_endpoints - 1;
    uint64_t pause = (uint64_t)c->backoff_min_ms << (rounds < 16 ? rounds : 16);
    if (pause > c->backoff_max_ms) pause = c->backoff_max_ms;
    pause = pause / 2 + (uint64_t)random() % (pause / 2 + 1);
    c->retry_at_ms = h2_now(c) + pause;
    if (!c->fail_fast) return;
    struct list all;
    list_init(&all);
    while (!list_empty(&c->waiting)) list_push_back(&all, list_pop_front(&c->waiting));
    for (struct list *node; (node = list_pop_front(&all));) {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        snprintf(s->error, sizeof(s->error), "%s", c->last_error);
        h2_stream_finish(s, ERR_UNAVAILABLE);
    }
}

void h2_client_conn_lost(struct h2_conn *conn)
{
    struct h2_client *c = conn->client;
    conn->state = H2_CLOSING;
    if (c->current == conn) {
        c->current = NULL;
        c->next = (size_t)(conn->endpoint + 1) % c->n_endpoints;
    }
    if (conn->fail_code) snprintf(c->last_error, sizeof(c->last_error), "%s", conn->fail_text);
    while (!list_empty(&conn->streams)) {
        struct h2_stream *s = container_of(conn->streams.next, struct h2_stream, link);
        h2_stream_detach(conn, s);
        if (!s->error[0]) snprintf(s->error, sizeof(s->error), "%s", conn->fail_text);
        h2_stream_finish(s, s->code ? s->code : ERR_UNAVAILABLE);
    }
    if (conn->fail_code && !conn->heard && !c->closing) plan_retry(c);
}

static void reap(struct h2_client *c)
{
    list_for_each(node, &c->conns)
    {
        struct h2_conn *conn = container_of(node, struct h2_conn, link);
        if (!conn->dead) continue;
        if (conn->state != H2_CLOSING) h2_client_conn_lost(conn);
        if (conn->resolving) {
            uv_cancel((uv_req_t *)&conn->resolve); /* on_resolved comes in any case */
            continue;
        }
        if (!conn->handles_open) continue;
        h2_conn_close_handles(conn);
    }
}

static void connect_if_needed(struct h2_client *c)
{
    if (c->current || list_empty(&c->waiting)) return;
    uint64_t now = h2_now(c);
    if (now < c->retry_at_ms) {
        h2_client_arm(c, c->retry_at_ms);
        return;
    }
    c->current = h2_conn_new(c, (int)c->next);
    h2_client_arm(c, now + (c->current ? c->connect_timeout_ms : c->backoff_min_ms));
}

static void submit_waiting(struct h2_client *c)
{
    while (c->current && c->current->state == H2_OPEN && !c->current->dead &&
           !list_empty(&c->waiting)) {
        if (h2_now(c) < c->hold_until_ms) {
            h2_client_arm(c, c->hold_until_ms);
            return;
        }
        struct h2_stream *s = container_of(c->waiting.next, struct h2_stream, link);
        list_remove(&s->link);
        if (c->current->n_streams == 0) {
            c->current->last_read_ms = h2_now(c); /* silence before this does not count */
            h2_client_arm(c, h2_now(c) + c->keepalive_ms);
        }
        int rc = h2_conn_submit(c->current, s);
        if (rc == ERR_CLOSED && s->whole_body) list_push_front(&c->waiting, &s->link);
        else if (rc) h2_stream_finish(s, rc);
    }
}

static bool work_left(const struct h2_client *c)
{
    for (const struct list *node = c->conns.next; node != &c->conns; node = node->next) {
        const struct h2_conn *conn = container_of(node, struct h2_conn, link);
        if (conn->dead && conn->state != H2_CLOSING) return true;
    }
    if (list_empty(&c->waiting)) return false;
    uint64_t now = h2_now(c);
    return c->current ? c->current->state == H2_OPEN && now >= c->hold_until_ms
                      : now >= c->retry_at_ms;
}

static void turn(uv_prepare_t *h)
{
    struct h2_client *c = h->data;
    for (int round = 0; round < 4; round++) {
        reap(c);
        connect_if_needed(c);
        submit_waiting(c);
        list_for_each(node, &c->conns)
        {
            struct h2_conn *conn = container_of(node, struct h2_conn, link);
            if (!conn->dead) h2_conn_flush(conn);
        }
        if (c->closing || !work_left(c)) return;
    }
    h2_client_arm(c, h2_now(c));
}

/* ---- time ----------------------------------------------------------------------------------- */

static uint64_t tick_waiting(struct h2_client *c, uint64_t now)
{
    uint64_t next = 0;
    struct list late;
    list_init(&late);
    list_for_each(node, &c->waiting)
    {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        if (!s->deadline_ms) continue;
        if (now < s->deadline_ms) {
            if (!next || s->deadline_ms < next) next = s->deadline_ms;
            continue;
        }
        list_remove(&s->link);
        list_push_back(&late, &s->link);
    }
    for (struct list *node; (node = list_pop_front(&late));) {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        snprintf(s->error, sizeof(s->error), "no connection in time: %s",
                 c->last_error[0] ? c->last_error : "still connecting");
        h2_stream_finish(s, ERR_TIMEOUT);
    }
    return next;
}

static void on_timer(uv_timer_t *t)
{
    struct h2_client *c = t->data;
    c->timer_at_ms = 0;
    uint64_t now = h2_now(c);
    uint64_t next = tick_waiting(c, now);
    list_for_each(node, &c->conns)
    {
        struct h2_conn *conn = container_of(node, struct h2_conn, link);
        uint64_t at = h2_conn_tick(conn, now);
        if (at && (!next || at < next)) next = at;
    }
    /* A lost connection is cleared away in the next turn: there must be one, also where nothing
     * else keeps the loop going. */
    if (work_left(c)) next = now + 1;
    if (next) h2_client_arm(c, next);
}

void h2_client_arm(struct h2_client *c, uint64_t at_ms)
{
    if (c->closing || (c->timer_at_ms && c->timer_at_ms <= at_ms)) return;
    c->timer_at_ms = at_ms;
    uint64_t now = h2_now(c);
    uv_timer_start(&c->timer, on_timer, at_ms > now ? at_ms - now : 0, 0);
}

/* ---- the client ----------------------------------------------------------------------------- */

int h2_client_new(uv_loop_t *loop, const struct h2_client_options *o, struct h2_client **ret,
                  struct err *e)
{
    struct h2_client *c = mem_calloc(1, sizeof(*c));
    if (!c) return ERR_NOMEM;
    c->loop = loop;
    list_init(&c->conns);
    list_init(&c->waiting);
    int rc = take_settings(c, o, e);
    if (rc) {
        free_settings(c);
        mem_free(c);
        return rc;
    }
    uv_timer_init(loop, &c->timer);
    uv_prepare_init(loop, &c->prepare);
    uv_prepare_start(&c->prepare, turn);
    uv_unref((uv_handle_t *)&c->prepare);
    c->timer.data = c->prepare.data = c;
    c->open_handles = 2;
    *ret = c;
    return 0;
}

static void on_handle_closed(uv_handle_t *h)
{
    handle_closed(h->data);
}

/* Frees a list of streams without telling anybody. */
static void drop_streams(struct list *streams)
{
    for (struct list *node; (node = list_pop_front(streams));) {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        if (s->conn) nghttp2_session_set_stream_user_data(s->conn->session, s->id, NULL);
        s->conn = NULL;
        h2_stream_free(s);
    }
}

void h2_client_close(struct h2_client *c, void (*closed)(void *ctx), void *ctx)
{
    if (!c) return;
    CHECK(!c->closing);
    c->closing = true;
    c->closed = closed;
    c->closed_ctx = ctx;
    drop_streams(&c->waiting);
    list_for_each(node, &c->conns)
    {
        struct h2_conn *conn = container_of(node, struct h2_conn, link);
        drop_streams(&conn->streams);
        conn->n_streams = conn->n_full = 0;
        if (!conn->dead && conn->state == H2_OPEN && !conn->in_recv) {
            nghttp2_session_terminate_session(conn->session, NGHTTP2_NO_ERROR);
            h2_conn_flush(conn);
        }
        conn->dead = true;
        conn->state = H2_CLOSING;
        if (!conn->handles_open) continue;
        if (conn->resolving)
            uv_cancel((uv_req_t *)&conn->resolve); /* on_resolved closes the handle */
        else h2_conn_close_handles(conn);
    }
    c->current = NULL;
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
    uv_close((uv_handle_t *)&c->prepare, on_handle_closed);
}

void h2_client_next_endpoint(struct h2_client *c)
{
    if (c->current) h2_conn_drain(c->current);
}

void h2_client_disconnect(struct h2_client *c)
{
    list_for_each(node, &c->conns)
    {
        struct h2_conn *conn = container_of(node, struct h2_conn, link);
        h2_conn_fail(conn, ERR_UNAVAILABLE, "disconnected");
    }
}

void h2_client_stats(const struct h2_client *c, struct h2_client_stats *ret)
{
    bool open = c->current && c->current->state == H2_OPEN;
    *ret = (struct h2_client_stats){
        .connects = c->connects,
        .failures = c->failures,
        .streams_total = c->streams_total,
        .bytes_in = c->bytes_in,
        .bytes_out = c->bytes_out,
        .streams = c->n_streams,
        .endpoint = open ? c->current->endpoint : -1,
        .connected = open,
    };
}

const char *h2_client_endpoint_url(const struct h2_client *c, int endpoint)
{
    return endpoint >= 0 && (size_t)endpoint < c->n_endpoints ? c->endpoints[endpoint].url : "";
}
