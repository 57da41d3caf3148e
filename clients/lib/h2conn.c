/* One connection of the client: TCP and TLS, an nghttp2 session, and the streams it carries.
 *
 * The happy path: resolve -> connect -> (TLS handshake) -> open; requests are submitted to nghttp2,
 * whose frames are gathered and written once a turn of the loop (h2_conn_flush, from the client's
 * prepare handle); bytes read go through TLS to nghttp2, whose callbacks below call the streams'
 * owners.
 *
 * When something fails, h2_conn_fail only notes why and marks the connection dead: callbacks may be
 * deep inside nghttp2 at that time. The client's next turn takes it apart (h2_client_conn_lost). */
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"
#include "clients/lib/h2_int.h"

void h2_conn_fail(struct h2_conn *conn, int code, const char *format, ...)
{
    if (conn->dead) return;
    conn->dead = true;
    conn->fail_code = code;
    va_list ap;
    va_start(ap, format);
    vsnprintf(conn->fail_text, sizeof(conn->fail_text), format, ap);
    va_end(ap);
    h2_client_arm(conn->client, h2_now(conn->client));
}

static const char *conn_url(const struct h2_conn *conn)
{
    return conn->client->endpoints[conn->endpoint].url;
}

/* ---- nghttp2's callbacks -------------------------------------------------------------------- */

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    (void)frame;
    struct h2_conn *conn = user;
    buf_clear(&conn->fields);
    conn->n_got = 0;
    return 0;
}

/* Ends one stream for a reason of ours; `done` comes when nghttp2 closes it. */
static void stream_give_up(struct h2_stream *s, int code, const char *why)
{
    if (!s->code) {
        s->code = code;
        snprintf(s->error, sizeof(s->error), "%s", why);
    }
    nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
}

static int parse_status(struct slice v)
{
    int status = 0;
    for (size_t i = 0; i < v.len; i++) {
        if (v.data[i] < '0' || v.data[i] > '9') return 0;
        status = status * 10 + (v.data[i] - '0');
        if (status > 999) return 0;
    }
    return status;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t namelen, const uint8_t *value, size_t valuelen, uint8_t flags,
                     void *user)
{
    (void)flags;
    struct h2_conn *conn = user;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s || s->code) return 0;
    if (namelen == 7 && !memcmp(name, ":status", 7)) {
        s->status = parse_status(slice_make(value, valuelen));
        return 0;
    }
    if (conn->n_got >= LIMIT_HTTP_HEADERS ||
        conn->fields.len + namelen + valuelen > LIMIT_HTTP_HEADER_BYTES) {
        stream_give_up(s, ERR_LIMIT, "the answer has too many or too long headers");
        return 0;
    }
    if (conn->n_got == conn->size_got) {
        size_t size = conn->size_got ? conn->size_got * 2 : 16;
        void *p = mem_realloc(conn->got, size * sizeof(*conn->got));
        if (!p) return NGHTTP2_ERR_CALLBACK_FAILURE;
        conn->got = p;
        conn->size_got = size;
    }
    buf_append(&conn->fields, name, namelen);
    buf_append(&conn->fields, value, valuelen);
    if (conn->fields.failed) return NGHTTP2_ERR_CALLBACK_FAILURE;
    conn->got[conn->n_got++] = (struct h2_header){{NULL, namelen}, {NULL, valuelen}};
    return 0;
}

/* The texts stay where they are from here on: set the pointers. */
static void fix_headers(struct h2_conn *conn)
{
    const uint8_t *p = conn->fields.data;
    for (size_t i = 0; i < conn->n_got; i++) {
        conn->got[i].name.data = p;
        p += conn->got[i].name.len;
        conn->got[i].value.data = p;
        p += conn->got[i].value.len;
    }
}

/* Around every call of the owner's: it may cancel the stream meanwhile. */
static void leave_callback(struct h2_stream *s)
{
    s->in_callback = false;
    if (s->canceled) h2_stream_free(s);
}

static void headers_received(struct h2_conn *conn, struct h2_stream *s)
{
    if (s->code) return;
    fix_headers(conn);
    s->in_callback = true;
    if (!s->head_seen) {
        if (s->status >= 200) {
            s->head_seen = true;
            if (s->cb->head) s->cb->head(s, s->status, conn->got, conn->n_got);
        }
    } else if (s->cb->trailers) {
        s->cb->trailers(s, conn->got, conn->n_got);
    }
    leave_callback(s);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *conn = user;
    conn->heard = true;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        struct h2_stream *s = stream_of(session, frame->hd.stream_id);
        if (s) headers_received(conn, s);
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        h2_conn_drain(conn);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t len, void *user)
{
    (void)flags;
    (void)user;
    struct h2_stream *s = stream_of(session, id);
    if (!s || s->code || !s->cb->data) return 0;
    s->in_callback = true;
    s->cb->data(s, slice_make(data, len));
    leave_callback(s);
    return 0;
}

void h2_stream_detach(struct h2_conn *conn, struct h2_stream *s)
{
    list_remove(&s->link);
    conn->n_full -= s->was_full;
    s->was_full = false;
    conn->n_streams--;
    s->conn = NULL;
}

static int close_code(struct h2_stream *s, uint32_t error)
{
    if (s->code) return s->code;
    if (error == NGHTTP2_NO_ERROR && s->head_seen) return 0;
    snprintf(s->error, sizeof(s->error), "the server reset the stream: %s",
             nghttp2_http2_strerror(error));
    return error == NGHTTP2_CANCEL ? ERR_CANCELED : ERR_UNAVAILABLE;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    struct h2_conn *conn = user;
    struct h2_stream *s = stream_of(session, id);
    if (!s) return 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    h2_stream_detach(conn, s);
    if (error == NGHTTP2_REFUSED_STREAM && !s->code && !s->head_seen && s->whole_body) {
        /* It has too much to do: asked again at once it would only refuse again. */
        conn->client->hold_until_ms = h2_now(conn->client) + H2_REFUSED_PAUSE_MS;
        h2_stream_requeue(s);
    } else {
        h2_stream_finish(s, close_code(s, error));
    }
    return 0;
}

/* A request that nghttp2 could not send, because the server is going away. */
static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error,
                             void *user)
{
    struct h2_conn *conn = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (!s) return 0;
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, NULL);
    h2_conn_drain(conn);
    h2_stream_detach(conn, s);
    if (s->whole_body && !s->code) {
        h2_stream_requeue(s);
    } else {
        if (!s->code) snprintf(s->error, sizeof(s->error), "not sent: %s", nghttp2_strerror(error));
        h2_stream_finish(s, s->code ? s->code : ERR_UNAVAILABLE);
    }
    return 0;
}

static int make_session(struct h2_conn *conn)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb)) return ERR_NOMEM;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_send);
    int rc = nghttp2_session_client_new(&conn->session, cb, conn);
    nghttp2_session_callbacks_del(cb);
    if (rc) return ERR_NOMEM;
    uint32_t window = conn->client->window;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window},
    };
    int32_t total = window > INT32_MAX / 4 ? INT32_MAX : (int32_t)window * 4;
    if (nghttp2_submit_settings(conn->session, NGHTTP2_FLAG_NONE, settings, 2) ||
        nghttp2_session_set_local_window_size(conn->session, NGHTTP2_FLAG_NONE, 0, total))
        return ERR_NOMEM;
    return 0;
}

/* ---- requests ------------------------------------------------------------------------------- */

static void body_drained(struct h2_stream *s)
{
    if (s->whole_body) return;
    buf_consume(&s->body, s->body_sent);
    s->body_sent = 0;
}

static ssize_t body_read(nghttp2_session *session, int32_t id, uint8_t *out, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)source;
    (void)user;
    struct h2_stream *s = stream_of(session, id);
    if (!s) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t n = s->body.len - s->body_sent;
    if (n > size) n = size;
    if (n) memcpy(out, s->body.data + s->body_sent, n);
    s->body_sent += n;
    bool empty = s->body_sent == s->body.len;
    if (empty && s->body_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (n == 0) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (empty || s->body_sent > 256 * 1024) body_drained(s);
    return (ssize_t)n;
}

static nghttp2_nv make_nv(struct slice name, struct slice value)
{
    return (nghttp2_nv){(uint8_t *)name.data, (uint8_t *)value.data, name.len, value.len,
                        NGHTTP2_NV_FLAG_NONE};
}

int h2_conn_submit(struct h2_conn *conn, struct h2_stream *s)
{
    const struct h2_endpoint *ep = &conn->client->endpoints[conn->endpoint];
    nghttp2_nv *nv = mem_alloc((s->n_headers + 5) * sizeof(*nv));
    if (!nv) return ERR_NOMEM;
    size_t n = 0;
    nv[n++] = make_nv(SLICE_LIT(":method"), s->method);
    nv[n++] = make_nv(SLICE_LIT(":path"), s->path);
    nv[n++] = make_nv(SLICE_LIT(":scheme"), ep->tls ? SLICE_LIT("https") : SLICE_LIT("http"));
    nv[n++] = make_nv(SLICE_LIT(":authority"), slice_str(ep->authority));
    nv[n++] = make_nv(SLICE_LIT("user-agent"), slice_str(conn->client->user_agent));
    for (size_t i = 0; i < s->n_headers; i++)
        nv[n++] = make_nv(s->headers[i].name, s->headers[i].value);
    nghttp2_data_provider body = {.read_callback = body_read};
    bool has_body = s->body.len || !s->body_end;
    int32_t id = nghttp2_submit_request(conn->session, NULL, nv, n, has_body ? &body : NULL, s);
    mem_free(nv);
    if (id < 0) {
        if (id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE) h2_conn_drain(conn);
        return id == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_CLOSED;
    }
    s->id = id;
    s->conn = conn;
    list_push_back(&conn->streams, &s->link);
    conn->n_streams++;
    s->was_full = !h2_writable(s);
    conn->n_full += s->was_full;
    return 0;
}

void h2_conn_drain(struct h2_conn *conn)
{
    conn->draining = true;
    if (conn->client->current == conn) {
        conn->client->current = NULL;
        conn->client->next = (size_t)(conn->endpoint + 1) % conn->client->n_endpoints;
        h2_client_arm(conn->client, h2_now(conn->client));
    }
}

/* ---- writing -------------------------------------------------------------------------------- */

static int tls_error(struct h2_conn *conn, const char *what)
{
    long verify = SSL_get_verify_result(conn->ssl);
    unsigned long code = ERR_peek_last_error();
    const char *reason = verify != X509_V_OK ? X509_verify_cert_error_string(verify)
                         : code              ? ERR_reason_error_string(code)
                                             : NULL;
    h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s: %s", conn_url(conn), what,
                 reason ? reason : "protocol error");
    ERR_clear_error();
    return ERR_IO;
}

/* What TLS has for the wire goes to `queue`. */
static int take_tls_output(struct h2_conn *conn)
{
    size_t n = BIO_ctrl_pending(conn->out);
    if (!n) return 0;
    uint8_t *p = buf_reserve(&conn->queue, n);
    if (!p) return ERR_NOMEM;
    int got = BIO_read(conn->out, p, (int)n);
    if (got > 0) conn->queue.len += (size_t)got;
    return 0;
}

static int gather_frame(struct h2_conn *conn, const uint8_t *p, size_t n)
{
    if (!conn->ssl) return buf_append(&conn->queue, p, n);
    int rc = SSL_write(conn->ssl, p, (int)n);
    return rc == (int)n ? take_tls_output(conn) : tls_error(conn, "TLS write");
}

static int gather(struct h2_conn *conn)
{
    if (conn->state != H2_OPEN) return conn->ssl ? take_tls_output(conn) : 0;
    while (conn->queue.len < H2_WRITE_BATCH) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(conn->session, &p);
        if (n < 0) {
            h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn), nghttp2_strerror((int)n));
            return ERR_IO;
        }
        if (n == 0) break;
        int rc = gather_frame(conn, p, (size_t)n);
        if (rc) return rc;
    }
    return 0;
}

static struct h2_stream *next_drained(struct h2_conn *conn)
{
    list_for_each(node, &conn->streams)
    {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        if (s->was_full && s->body.len - s->body_sent <= LIMIT_HTTP_OUT_BYTES / 2) return s;
    }
    return NULL;
}

static void tell_writable(struct h2_conn *conn)
{
    for (struct h2_stream *s; conn->n_full && (s = next_drained(conn));) {
        s->was_full = false;
        conn->n_full--;
        if (!s->cb->writable) continue;
        s->in_callback = true;
        s->cb->writable(s);
        leave_callback(s);
    }
}

static void on_written(uv_write_t *req, int status)
{
    struct h2_conn *conn = req->data;
    conn->writing = false;
    buf_clear(&conn->in_flight);
    if (status < 0 && status != UV_ECANCELED)
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: write: %s", conn_url(conn), uv_strerror(status));
    if (!conn->dead) tell_writable(conn);
}

/* Hands `queue` to the kernel: at once as far as it takes it, the rest by libuv. Returns whether
 * all went at once. */
static bool write_out(struct h2_conn *conn)
{
    uv_buf_t b = uv_buf_init((char *)conn->queue.data, (unsigned)conn->queue.len);
    int n = uv_try_write((uv_stream_t *)&conn->tcp, &b, 1);
    if (n < 0 && n != UV_EAGAIN) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: write: %s", conn_url(conn), uv_strerror(n));
        return false;
    }
    if (n > 0) {
        conn->client->bytes_out += (uint64_t)n;
        if ((size_t)n == conn->queue.len) {
            buf_clear(&conn->queue);
            return true;
        }
        buf_consume(&conn->queue, (size_t)n);
    }
    struct buf t = conn->in_flight;
    conn->in_flight = conn->queue;
    conn->queue = t;
    buf_clear(&conn->queue);
    b = uv_buf_init((char *)conn->in_flight.data, (unsigned)conn->in_flight.len);
    conn->client->bytes_out += conn->in_flight.len;
    conn->write.data = conn;
    int rc = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &b, 1, on_written);
    if (rc) h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: write: %s", conn_url(conn), uv_strerror(rc));
    else conn->writing = true;
    return false;
}

void h2_conn_flush(struct h2_conn *conn)
{
    if (conn->state < H2_HANDSHAKE) return;
    bool again = true;
    while (again && !conn->writing && !conn->dead) {
        int rc = gather(conn);
        if (rc && !conn->dead) h2_conn_fail(conn, rc, "%s: %s", conn_url(conn), err_text(rc));
        if (conn->dead || conn->queue.len == 0) break;
        again = write_out(conn);
        if (again) tell_writable(conn);
    }
    if (conn->dead || conn->writing || conn->state != H2_OPEN) return;
    if (conn->draining && conn->n_streams == 0) {
        h2_conn_fail(conn, 0, "drained");
    } else if (!nghttp2_session_want_read(conn->session) &&
               !nghttp2_session_want_write(conn->session)) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn),
                     conn->heard ? "the server ended the session" : "not HTTP/2");
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct h2_conn *conn = h->data;
    *buf = uv_buf_init((char *)conn->client->read_buf, H2_READ_BYTES);
}

static void session_recv(struct h2_conn *conn, const uint8_t *data, size_t len)
{
    conn->in_recv = true;
    ssize_t n = nghttp2_session_mem_recv(conn->session, data, len);
    conn->in_recv = false;
    if (n < 0) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: not HTTP/2: %s", conn_url(conn),
                     nghttp2_strerror((int)n));
    } else if (conn->heard) {
        conn->client->failed_in_row = 0;
        conn->client->retry_at_ms = 0;
    }
}

static void opened(struct h2_conn *conn)
{
    conn->state = H2_OPEN;
    conn->client->connects++;
    int rc = make_session(conn);
    if (rc) h2_conn_fail(conn, rc, "%s: %s", conn_url(conn), err_text(rc));
}

static void tls_advance(struct h2_conn *conn)
{
    if (conn->state == H2_HANDSHAKE) {
        int rc = SSL_do_handshake(conn->ssl);
        if (rc != 1) {
            int why = SSL_get_error(conn->ssl, rc);
            if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
                tls_error(conn, "TLS handshake");
            return;
        }
        const unsigned char *alpn;
        unsigned len;
        SSL_get0_alpn_selected(conn->ssl, &alpn, &len);
        if (len != 2 || memcmp(alpn, "h2", 2) != 0) {
            h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: the server does not speak HTTP/2",
                         conn_url(conn));
            return;
        }
        opened(conn);
    }
    uint8_t plain[16 * 1024];
    while (!conn->dead) {
        int n = SSL_read(conn->ssl, plain, sizeof(plain));
        if (n > 0) {
            session_recv(conn, plain, (size_t)n);
            continue;
        }
        int why = SSL_get_error(conn->ssl, n);
        if (why == SSL_ERROR_ZERO_RETURN)
            h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: closed by the server", conn_url(conn));
        else if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) tls_error(conn, "TLS");
        return;
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct h2_conn *conn = stream->data;
    if (conn->dead) return;
    if (n < 0) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn),
                     n == UV_EOF ? "closed by the server" : uv_strerror((int)n));
        return;
    }
    conn->last_read_ms = h2_now(conn->client);
    conn->ping_sent_ms = 0;
    conn->client->bytes_in += (uint64_t)n;
    if (!conn->ssl) {
        session_recv(conn, (const uint8_t *)buf->base, (size_t)n);
        return;
    }
    if (BIO_write(conn->in, buf->base, (int)n) != (int)n) {
        h2_conn_fail(conn, ERR_NOMEM, "%s: %s", conn_url(conn), err_text(ERR_NOMEM));
        return;
    }
    tls_advance(conn);
}

/* ---- connecting ----------------------------------------------------------------------------- */

static int start_tls(struct h2_conn *conn)
{
    conn->ssl = h2_tls_session(conn->client, &conn->client->endpoints[conn->endpoint]);
    if (!conn->ssl) return ERR_NOMEM;
    conn->in = BIO_new(BIO_s_mem());
    conn->out = BIO_new(BIO_s_mem());
    if (!conn->in || !conn->out) {
        BIO_free(conn->in);
        BIO_free(conn->out);
        return ERR_NOMEM;
    }
    SSL_set_bio(conn->ssl, conn->in, conn->out);
    conn->state = H2_HANDSHAKE;
    tls_advance(conn);
    return 0;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct h2_conn *conn = req->data;
    if (conn->dead) return;
    if (status < 0) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn), uv_strerror(status));
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    int rc = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    if (rc) {
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn), uv_strerror(rc));
        return;
    }
    conn->last_read_ms = h2_now(conn->client);
    if (!conn->client->endpoints[conn->endpoint].tls) {
        opened(conn);
        return;
    }
    rc = start_tls(conn);
    if (rc) h2_conn_fail(conn, rc, "%s: %s", conn_url(conn), err_text(rc));
}

static void connect_to(struct h2_conn *conn, const struct sockaddr *addr)
{
    conn->state = H2_CONNECTING;
    conn->connect.data = conn;
    int rc = uv_tcp_connect(&conn->connect, &conn->tcp, addr, on_connected);
    if (rc) h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn), uv_strerror(rc));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct h2_conn *conn = req->data;
    conn->resolving = false;
    if (!conn->dead) {
        if (status < 0)
            h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: the name cannot be resolved: %s",
                         conn_url(conn), uv_strerror(status));
        else connect_to(conn, res->ai_addr);
    }
    uv_freeaddrinfo(res);
    if (!conn->dead) return;
    if (conn->client->closing && conn->handles_open) h2_conn_close_handles(conn);
    else h2_client_arm(conn->client, h2_now(conn->client));
}

static void resolve(struct h2_conn *conn)
{
    const struct h2_endpoint *ep = &conn->client->endpoints[conn->endpoint];
    struct sockaddr_storage addr;
    if (uv_ip4_addr(ep->host, ep->port, (struct sockaddr_in *)&addr) == 0 ||
        uv_ip6_addr(ep->host, ep->port, (struct sockaddr_in6 *)&addr) == 0) {
        connect_to(conn, (struct sockaddr *)&addr);
        return;
    }
    char port[8];
    snprintf(port, sizeof(port), "%d", ep->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    conn->resolve.data = conn;
    int rc =
        uv_getaddrinfo(conn->client->loop, &conn->resolve, on_resolved, ep->host, port, &hints);
    if (rc) h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: %s", conn_url(conn), uv_strerror(rc));
    else conn->resolving = true;
}

struct h2_conn *h2_conn_new(struct h2_client *c, int endpoint)
{
    struct h2_conn *conn = mem_calloc(1, sizeof(*conn));
    if (!conn) return NULL;
    conn->client = c;
    conn->endpoint = endpoint;
    conn->opened_ms = h2_now(c);
    list_init(&conn->streams);
    buf_init(&conn->fields, LIMIT_HTTP_HEADER_BYTES + 1);
    if (uv_tcp_init(c->loop, &conn->tcp)) {
        mem_free(conn);
        return NULL;
    }
    conn->tcp.data = conn;
    conn->handles_open = true;
    c->open_handles++;
    list_push_back(&c->conns, &conn->link);
    resolve(conn);
    return conn;
}

void h2_conn_free(struct h2_conn *conn)
{
    CHECK(list_empty(&conn->streams) && !conn->in_recv);
    list_remove(&conn->link);
    nghttp2_session_del(conn->session);
    if (conn->ssl) SSL_free(conn->ssl);
    buf_release(&conn->fields);
    mem_free(conn->got);
    buf_release(&conn->queue);
    buf_release(&conn->in_flight);
    mem_free(conn);
}

/* ---- time ----------------------------------------------------------------------------------- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 || (b && b < a) ? b : a;
}

static uint64_t tick_keepalive(struct h2_conn *conn, uint64_t now)
{
    const struct h2_client *c = conn->client;
    if (conn->ping_sent_ms) {
        uint64_t end = conn->ping_sent_ms + c->keepalive_timeout_ms;
        if (now < end) return end;
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: no answer to PING", conn_url(conn));
        return 0;
    }
    if (conn->n_streams == 0) return 0;
    uint64_t at = conn->last_read_ms + c->keepalive_ms;
    if (now < at) return at;
    conn->ping_sent_ms = now;
    nghttp2_submit_ping(conn->session, NGHTTP2_FLAG_NONE, NULL);
    return now + c->keepalive_timeout_ms;
}

uint64_t h2_conn_tick(struct h2_conn *conn, uint64_t now)
{
    if (conn->dead) return 0;
    if (conn->state < H2_OPEN) {
        uint64_t end = conn->opened_ms + conn->client->connect_timeout_ms;
        if (now < end) return end;
        h2_conn_fail(conn, ERR_UNAVAILABLE, "%s: connecting took too long", conn_url(conn));
        return 0;
    }
    uint64_t next = tick_keepalive(conn, now);
    list_for_each(node, &conn->streams)
    {
        struct h2_stream *s = container_of(node, struct h2_stream, link);
        if (!s->deadline_ms || s->code) continue;
        if (now < s->deadline_ms) next = sooner(next, s->deadline_ms);
        else stream_give_up(s, ERR_TIMEOUT, "the server did not answer in time");
    }
    return next;
}
