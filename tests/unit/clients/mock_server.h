/* A small scripted HTTP/2 server on the test's own loop: each request is handed whole to a handler,
 * which answers now or keeps the exchange open and writes later. For tests only; one thread. */
#ifndef PINTLE_TESTS_UNIT_CLIENTS_MOCK_SERVER_H
#define PINTLE_TESTS_UNIT_CLIENTS_MOCK_SERVER_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* cmocka.h needs those before it */
#include <cmocka.h>

struct mock_server;

struct mock_exchange {
    struct mock_exchange *next;
    struct mock_conn *conn;
    int32_t id;
    char method[16], path[2048];
    char headers[2048]; /* "name: value\n" */
    char *body;
    size_t body_len;
    char *out;
    size_t out_len, out_sent;
    int out_end, deferred, responded, trailers;
    void *user;
};

struct mock_conn {
    struct mock_conn *next;
    struct mock_server *server;
    uv_tcp_t tcp;
    nghttp2_session *session;
    SSL *ssl;
    struct mock_exchange *exchanges;
    int closing;
};

struct mock_server {
    uv_loop_t *loop;
    uv_tcp_t listener;
    uv_prepare_t prepare;
    struct mock_conn *conns;
    int port, connections, requests, listening, deaf; /* deaf: reads nothing any more */
    SSL_CTX *tls;
    void (*handler)(struct mock_server *m, struct mock_exchange *x);
    void (*piece)(struct mock_server *m, struct mock_exchange *x, const uint8_t *data,
                  size_t len); /* may be NULL */
    void *user;
};

static inline ssize_t mock_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t size,
                                uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)user;
    struct mock_exchange *x = source->ptr;
    size_t n = x->out_len - x->out_sent;
    if (n > size) n = size;
    if (n) memcpy(buf, x->out + x->out_sent, n);
    x->out_sent += n;
    if (x->out_sent == x->out_len && x->out_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (x->trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_nv nv = {(uint8_t *)"grpc-status", (uint8_t *)"0", 11, 1, 0};
            nghttp2_submit_trailer(s, id, &nv, 1);
        }
    } else if (n == 0) {
        x->deferred = 1;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

static inline void mock_head(struct mock_exchange *x, int status)
{
    char text[8];
    snprintf(text, sizeof(text), "%d", status);
    nghttp2_nv nv[] = {
        {(uint8_t *)":status", (uint8_t *)text, 7, 3, 0},
        {(uint8_t *)"content-type", (uint8_t *)"application/json", 12, 16, 0},
    };
    nghttp2_data_provider p = {.source.ptr = x, .read_callback = mock_read};
    x->responded = 1;
    nghttp2_submit_response(x->conn->session, x->id, nv, 2, &p);
}

/* Room for so many more bytes and a NUL, by powers of two. */
static inline char *mock_grow(char *p, size_t have, size_t more)
{
    size_t size = 1024;
    while (size < have + 1) size *= 2;
    if (p && have + more + 1 <= size) return p;
    while (size < have + more + 1) size *= 2;
    return realloc(p, size);
}

static inline void mock_write(struct mock_exchange *x, const char *data, size_t len)
{
    x->out = mock_grow(x->out, x->out_len, len);
    if (len) memcpy(x->out + x->out_len, data, len);
    x->out_len += len;
    if (x->deferred) {
        x->deferred = 0;
        nghttp2_session_resume_data(x->conn->session, x->id);
    }
}

static inline void mock_end(struct mock_exchange *x)
{
    x->out_end = 1;
    if (x->deferred) {
        x->deferred = 0;
        nghttp2_session_resume_data(x->conn->session, x->id);
    }
}

static inline void mock_reply(struct mock_exchange *x, int status, const char *body)
{
    mock_write(x, body, strlen(body));
    x->out_end = 1;
    mock_head(x, status);
}

static inline int mock_on_begin(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
    struct mock_conn *c = user;
    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct mock_exchange *x = calloc(1, sizeof(*x));
    x->conn = c;
    x->id = f->hd.stream_id;
    x->next = c->exchanges;
    c->exchanges = x;
    nghttp2_session_set_stream_user_data(s, x->id, x);
    return 0;
}

static inline int mock_on_header(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *n,
                                 size_t nl, const uint8_t *v, size_t vl, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    struct mock_exchange *x = nghttp2_session_get_stream_user_data(s, f->hd.stream_id);
    if (!x) return 0;
    if (nl == 7 && !memcmp(n, ":method", 7))
        snprintf(x->method, sizeof(x->method), "%.*s", (int)vl, v);
    if (nl == 5 && !memcmp(n, ":path", 5)) snprintf(x->path, sizeof(x->path), "%.*s", (int)vl, v);
    size_t at = strlen(x->headers);
    snprintf(x->headers + at, sizeof(x->headers) - at, "%.*s: %.*s\n", (int)nl, n, (int)vl, v);
    return 0;
}

static inline int mock_on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data,
                               size_t len, void *user)
{
    (void)flags;
    struct mock_conn *c = user;
    struct mock_exchange *x = nghttp2_session_get_stream_user_data(s, id);
    if (!x) return 0;
    x->body = mock_grow(x->body, x->body_len, len);
    memcpy(x->body + x->body_len, data, len);
    x->body_len += len;
    x->body[x->body_len] = 0;
    if (c->server->piece) c->server->piece(c->server, x, data, len);
    return 0;
}

static inline int mock_on_frame(nghttp2_session *s, const nghttp2_frame *f, void *user)
{
    struct mock_conn *c = user;
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) return 0;
    if (!(f->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    struct mock_exchange *x = nghttp2_session_get_stream_user_data(s, f->hd.stream_id);
    if (!x) return 0;
    c->server->requests++;
    c->server->handler(c->server, x);
    return 0;
}

static inline int mock_on_close(nghttp2_session *s, int32_t id, uint32_t code, void *user)
{
    (void)code;
    struct mock_conn *c = user;
    struct mock_exchange *x = nghttp2_session_get_stream_user_data(s, id);
    for (struct mock_exchange **p = &c->exchanges; *p; p = &(*p)->next) {
        if (*p != x) continue;
        *p = x->next;
        free(x->body);
        free(x->out);
        free(x);
        break;
    }
    return 0;
}

static inline void mock_conn_closed(uv_handle_t *h)
{
    struct mock_conn *c = h->data;
    nghttp2_session_del(c->session);
    if (c->ssl) SSL_free(c->ssl);
    while (c->exchanges) {
        struct mock_exchange *x = c->exchanges;
        c->exchanges = x->next;
        free(x->body);
        free(x->out);
        free(x);
    }
    free(c);
}

static inline void mock_conn_close(struct mock_conn *c)
{
    if (c->closing) return;
    c->closing = 1;
    for (struct mock_conn **p = &c->server->conns; *p; p = &(*p)->next) {
        if (*p != c) continue;
        *p = c->next;
        break;
    }
    uv_close((uv_handle_t *)&c->tcp, mock_conn_closed);
}

static inline void mock_freed(uv_write_t *w, int status)
{
    (void)status;
    free(w->data);
    free(w);
}

static inline void mock_wire(struct mock_conn *c, const void *data, size_t n)
{
    uv_write_t *w = calloc(1, sizeof(*w));
    w->data = malloc(n);
    memcpy(w->data, data, n);
    uv_buf_t b = uv_buf_init(w->data, (unsigned)n);
    if (uv_write(w, (uv_stream_t *)&c->tcp, &b, 1, mock_freed)) {
        free(w->data);
        free(w);
    }
}

static inline void mock_flush(struct mock_conn *c)
{
    const uint8_t *p;
    ssize_t n;
    if (c->closing || (c->ssl && !SSL_is_init_finished(c->ssl))) n = 0;
    else
        while ((n = nghttp2_session_mem_send(c->session, &p)) > 0) {
            if (c->ssl) SSL_write(c->ssl, p, (int)n);
            else mock_wire(c, p, (size_t)n);
        }
    if (c->ssl && !c->closing) {
        char buf[16384];
        int got;
        while ((got = BIO_read(SSL_get_wbio(c->ssl), buf, sizeof(buf))) > 0)
            mock_wire(c, buf, (size_t)got);
    }
}

static inline void mock_prepare(uv_prepare_t *h)
{
    struct mock_server *m = h->data;
    for (struct mock_conn *c = m->conns, *next; c; c = next) {
        next = c->next;
        mock_flush(c);
    }
}

static inline void mock_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    static char buf[65536];
    (void)h;
    (void)n;
    *b = uv_buf_init(buf, sizeof(buf));
}

static inline void mock_input(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct mock_conn *c = s->data;
    if (c->closing) return;
    if (n < 0) {
        mock_conn_close(c);
        return;
    }
    if (c->server->deaf) return;
    if (!c->ssl) {
        if (nghttp2_session_mem_recv(c->session, (uint8_t *)b->base, (size_t)n) < 0)
            mock_conn_close(c);
        return;
    }
    BIO_write(SSL_get_rbio(c->ssl), b->base, (int)n);
    if (!SSL_is_init_finished(c->ssl)) SSL_do_handshake(c->ssl);
    char plain[16384];
    int got;
    while ((got = SSL_read(c->ssl, plain, sizeof(plain))) > 0)
        if (nghttp2_session_mem_recv(c->session, (uint8_t *)plain, (size_t)got) < 0) {
            mock_conn_close(c);
            return;
        }
}

static inline void mock_accept(uv_stream_t *l, int status)
{
    struct mock_server *m = l->data;
    if (status < 0) return;
    struct mock_conn *c = calloc(1, sizeof(*c));
    c->server = m;
    uv_tcp_init(m->loop, &c->tcp);
    c->tcp.data = c;
    c->next = m->conns;
    m->conns = c;
    m->connections++;
    uv_accept(l, (uv_stream_t *)&c->tcp);
    uv_tcp_nodelay(&c->tcp, 1);
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, mock_on_begin);
    nghttp2_session_callbacks_set_on_header_callback(cb, mock_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, mock_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, mock_on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, mock_on_close);
    nghttp2_session_server_new(&c->session, cb, c);
    nghttp2_session_callbacks_del(cb);
    nghttp2_settings_entry e[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 200},
                                  {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(c->session, 0, e, 2);
    nghttp2_session_set_local_window_size(c->session, 0, 0, 1 << 24);
    if (m->tls) {
        c->ssl = SSL_new(m->tls);
        SSL_set_bio(c->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_accept_state(c->ssl);
    }
    uv_read_start((uv_stream_t *)&c->tcp, mock_alloc, mock_input);
}

static inline int mock_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                            const unsigned char *in, unsigned inlen, void *arg)
{
    (void)ssl;
    (void)arg;
    return nghttp2_select_next_protocol((unsigned char **)out, outlen, in, inlen) == 1
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

/* Tries ports of the tests' range until one is free; port != 0: that one (a restart). */
static inline void mock_start(struct mock_server *m, uv_loop_t *loop, int port,
                              void (*handler)(struct mock_server *m, struct mock_exchange *x))
{
    m->loop = loop;
    m->handler = handler;
    if (m->tls) SSL_CTX_set_alpn_select_cb(m->tls, mock_alpn, NULL);
    int first = port ? port : 25000 + (int)(getpid() % 400) * 2, last = port ? port : 25999;
    for (int p = first; p <= last; p++) {
        struct sockaddr_in a;
        uv_ip4_addr("127.0.0.1", p, &a);
        uv_tcp_init(loop, &m->listener);
        m->listener.data = m;
        if (!uv_tcp_bind(&m->listener, (struct sockaddr *)&a, 0) &&
            !uv_listen((uv_stream_t *)&m->listener, 128, mock_accept)) {
            m->port = p;
            m->listening = 1;
            break;
        }
        uv_close((uv_handle_t *)&m->listener, NULL);
        uv_run(loop, UV_RUN_NOWAIT);
    }
    assert_int_not_equal(m->listening, 0);
    uv_unref((uv_handle_t *)&m->listener);
    uv_prepare_init(loop, &m->prepare);
    m->prepare.data = m;
    uv_prepare_start(&m->prepare, mock_prepare);
    uv_unref((uv_handle_t *)&m->prepare);
}

/* Cuts all connections; goes on listening. */
static inline void mock_cut(struct mock_server *m)
{
    while (m->conns) mock_conn_close(m->conns);
}

static inline void mock_stop(struct mock_server *m)
{
    mock_cut(m);
    if (m->listening) {
        uv_close((uv_handle_t *)&m->listener, NULL);
        uv_close((uv_handle_t *)&m->prepare, NULL);
    }
    m->listening = 0;
}

/* Runs the loop until the condition holds; fails the test after 10 s. */
#define run_until(loop, cond)                                                                      \
    do {                                                                                           \
        uint64_t until_ = uv_hrtime() + 10000000000ull;                                            \
        while (!(cond)) {                                                                          \
            uv_run((loop), UV_RUN_NOWAIT);                                                         \
            if (uv_hrtime() > until_) fail_msg("waited too long for: %s", #cond);                  \
        }                                                                                          \
    } while (0)

#endif
