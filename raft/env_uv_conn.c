/* One connection between members: bytes in and out over TCP, or TLS by memory BIOs. It knows nothing of frames but how to
 * write a list of them without copying where the connection is not encrypted. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/env_uv_int.h"

#define CONN_READ_BYTES ((size_t)64 * 1024)
#define CONN_USER_TIMEOUT_MS 10000

/* One for the loop: reads are handled to the end before the next one. */
static _Thread_local char read_buffer[CONN_READ_BYTES];

static void on_handle_closed(uv_handle_t *h)
{
    struct conn *c = h->data;
    struct env_uv *u = c->env;
    SSL_free(c->ssl);
    c->ssl = NULL;
    c->events->closed(c, c->reason);
    env_uv_maybe_stopped(u);
    env_uv_handle_closed(u);
}

void conn_close(struct conn *c, const char *format, ...)
{
    if (c->closing) return;
    va_list ap;
    va_start(ap, format);
    vsnprintf(c->reason, sizeof(c->reason), format, ap);
    va_end(ap);
    c->closing = true;
    c->is_up = false;
    uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
}

int conn_init(struct conn *c, struct env_uv *u, const struct conn_events *events)
{
    *c = (struct conn){.env = u, .events = events};
    if (uv_tcp_init(u->loop, &c->tcp) != 0) return ERR_NOMEM;
    c->tcp.data = c;
    u->open_handles++;
    return 0;
}

/* ---- writing -------------------------------------------------------------------------------------- */

static void finish_write(struct conn_write *w, int status)
{
    struct list *node;
    while ((node = list_pop_front(&w->sends)) != NULL) {
        struct env_send *s = container_of(node, struct env_send, node);
        s->status = status;
        s->done(s);
    }
    buf_release(&w->copy);
    mem_free(w);
}

static void on_written(uv_write_t *req, int status)
{
    struct conn_write *w = container_of(req, struct conn_write, req);
    struct conn *c = w->conn;
    if (status != 0) conn_close(c, "write failed: %s", uv_strerror(status));
    c->writing = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    finish_write(w, status == 0 ? 0 : ERR_CLOSED);
}

static struct conn_write *write_new(struct conn *c)
{
    struct conn_write *w = mem_must_calloc(1, sizeof(*w));
    w->conn = c;
    list_init(&w->sends);
    return w;
}

static void submit_write(struct conn_write *w, const uv_buf_t *bufs, unsigned n)
{
    struct conn *c = w->conn;
    int rv = uv_write(&w->req, (uv_stream_t *)&c->tcp, bufs, n, on_written);
    c->writing = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    if (rv == 0) return;
    conn_close(c, "write failed: %s", uv_strerror(rv));
    struct list *node;
    while ((node = list_pop_front(&w->sends)) != NULL)
        net_complete(c->env, container_of(node, struct env_send, node), ERR_CLOSED);
    finish_write(w, ERR_CLOSED);
}

/* Moves what TLS has to say into `w` and sends it; frees `w` if that is nothing. */
static void submit_tls(struct conn_write *w)
{
    struct conn *c = w->conn;
    size_t pending = BIO_ctrl_pending(c->to_peer);
    if (pending == 0) {
        finish_write(w, 0);
        return;
    }
    uint8_t *p = buf_reserve(&w->copy, pending);
    if (!p) {
        conn_close(c, "out of memory");
        finish_write(w, ERR_CLOSED);
        return;
    }
    int n = BIO_read(c->to_peer, p, (int)pending);
    CHECK(n == (int)pending);
    w->copy.len += pending;
    uv_buf_t b = uv_buf_init((char *)w->copy.data, (unsigned)w->copy.len);
    submit_write(w, &b, 1);
}

static void tls_put(struct conn *c, struct slice s)
{
    if (s.len && SSL_write(c->ssl, s.data, (int)s.len) <= 0) conn_close(c, "TLS write failed");
}

void conn_write(struct conn *c, struct slice bytes)
{
    if (c->closing) return;
    struct conn_write *w = write_new(c);
    if (c->ssl) {
        tls_put(c, bytes);
        submit_tls(w);
        return;
    }
    buf_append_slice(&w->copy, bytes);
    uv_buf_t b = uv_buf_init((char *)w->copy.data, (unsigned)w->copy.len);
    submit_write(w, &b, 1);
}

/* length, CRC-32C of the payload, payload */
static void make_header(struct env_send *s)
{
    uint32_t crc = 0, len = (uint32_t)s->size;
    for (unsigned i = 0; i < s->n_iov; i++) crc = crc32c(crc, s->iov[i].data, s->iov[i].len);
    for (int i = 0; i < 4; i++) {
        s->header[i] = (uint8_t)(len >> (8 * i));
        s->header[4 + i] = (uint8_t)(crc >> (8 * i));
    }
}

static void write_plain(struct conn *c, struct list *sends)
{
    size_t n = 0;
    list_for_each(node, sends) n += 1 + container_of(node, struct env_send, node)->n_iov;
    uv_buf_t *bufs = mem_must_alloc(n * sizeof(*bufs));
    struct conn_write *w = write_new(c);
    struct list *node;
    n = 0;
    while ((node = list_pop_front(sends)) != NULL) {
        struct env_send *s = container_of(node, struct env_send, node);
        make_header(s);
        bufs[n++] = uv_buf_init((char *)s->header, sizeof(s->header));
        for (unsigned i = 0; i < s->n_iov; i++)
            if (s->iov[i].len) bufs[n++] = uv_buf_init((char *)s->iov[i].data, (unsigned)s->iov[i].len);
        list_push_back(&w->sends, &s->node);
    }
    submit_write(w, bufs, (unsigned)n);
    mem_free(bufs);
}

void conn_write_sends(struct conn *c, struct list *sends)
{
    if (list_empty(sends)) return;
    if (!c->ssl) {
        write_plain(c, sends);
        return;
    }
    struct conn_write *w = write_new(c);
    struct list *node;
    while ((node = list_pop_front(sends)) != NULL) {
        struct env_send *s = container_of(node, struct env_send, node);
        make_header(s);
        tls_put(c, slice_make(s->header, sizeof(s->header)));
        for (unsigned i = 0; i < s->n_iov; i++) tls_put(c, s->iov[i]);
        list_push_back(&w->sends, &s->node);
    }
    submit_tls(w);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static void tls_flush(struct conn *c)
{
    if (!c->closing && BIO_ctrl_pending(c->to_peer) > 0) submit_tls(write_new(c));
}

static void tls_fail(struct conn *c, const char *what)
{
    char text[120];
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof(text));
    long verify = SSL_get_verify_result(c->ssl);
    if (verify != X509_V_OK) snprintf(text, sizeof(text), "%s", X509_verify_cert_error_string(verify));
    tls_flush(c); /* the alert */
    conn_close(c, "%s: %s", what, code || verify != X509_V_OK ? text : "connection closed");
}

static void tls_handshake(struct conn *c)
{
    ERR_clear_error();
    int rv = SSL_do_handshake(c->ssl);
    if (rv == 1) {
        tls_flush(c);
        if (c->closing) return;
        c->is_up = true;
        c->events->up(c);
    } else if (SSL_get_error(c->ssl, rv) == SSL_ERROR_WANT_READ) {
        tls_flush(c);
    } else {
        tls_fail(c, "TLS handshake failed");
    }
}

static void tls_read(struct conn *c, struct slice bytes)
{
    static _Thread_local uint8_t plain[CONN_READ_BYTES];
    if (BIO_write(c->from_peer, bytes.data, (int)bytes.len) != (int)bytes.len) {
        conn_close(c, "out of memory");
        return;
    }
    if (!c->is_up) tls_handshake(c);
    while (c->is_up && !c->closing) {
        ERR_clear_error();
        int n = SSL_read(c->ssl, plain, (int)sizeof(plain));
        if (n > 0) {
            c->events->read(c, slice_make(plain, (size_t)n));
            continue;
        }
        int why = SSL_get_error(c->ssl, n);
        if (why == SSL_ERROR_ZERO_RETURN) conn_close(c, "closed by the peer");
        else if (why != SSL_ERROR_WANT_READ) tls_fail(c, "TLS read failed");
        break;
    }
    if (!c->closing) tls_flush(c);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
    (void)h;
    (void)suggested;
    *b = uv_buf_init(read_buffer, sizeof(read_buffer));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct conn *c = s->data;
    if (c->closing || n == 0) return;
    if (n < 0) {
        conn_close(c, n == UV_EOF ? "closed by the peer" : "read failed: %s", uv_strerror((int)n));
        return;
    }
    struct slice bytes = slice_make(b->base, (size_t)n);
    if (c->ssl) tls_read(c, bytes);
    else c->events->read(c, bytes);
}

/* ---- connecting and accepting ----------------------------------------------------------------------- */

static int tls_begin(struct conn *c, SSL_CTX *tls, const char *host)
{
    c->ssl = SSL_new(tls);
    c->from_peer = BIO_new(BIO_s_mem());
    c->to_peer = BIO_new(BIO_s_mem());
    if (!c->ssl || !c->from_peer || !c->to_peer) {
        BIO_free(c->from_peer);
        BIO_free(c->to_peer);
        return ERR_NOMEM;
    }
    SSL_set_bio(c->ssl, c->from_peer, c->to_peer);
    if (!host) {
        SSL_set_accept_state(c->ssl);
        return 0;
    }
    SSL_set_connect_state(c->ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->ssl), host) == 1) return 0;
    SSL_set_tlsext_host_name(c->ssl, host);
    return SSL_set1_host(c->ssl, host) == 1 ? 0 : ERR_INVALID;
}

/* `host`: whom we called, NULL if we were called. */
static void begin(struct conn *c, SSL_CTX *tls, const char *host)
{
    uv_os_fd_t fd;
    unsigned timeout = CONN_USER_TIMEOUT_MS;
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, 10);
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
    if (tls && tls_begin(c, tls, host) != 0) {
        conn_close(c, "cannot begin TLS");
        return;
    }
    int rv = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (rv != 0) {
        conn_close(c, "cannot read: %s", uv_strerror(rv));
    } else if (tls) {
        tls_handshake(c);
    } else {
        c->is_up = true;
        c->events->up(c);
    }
}

static void name_address(struct conn *c)
{
    struct sockaddr_storage a;
    int len = sizeof(a), port = 0;
    char host[INET6_ADDRSTRLEN] = "?";
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&a, &len) == 0) {
        uv_ip_name((const struct sockaddr *)&a, host, sizeof(host));
        port = a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a)->sin6_port)
                                       : ntohs(((struct sockaddr_in *)&a)->sin_port);
    }
    snprintf(c->address, sizeof(c->address), "%s:%d", host, port);
}

int conn_accept(struct conn *c, uv_stream_t *listener)
{
    int rv = uv_accept(listener, (uv_stream_t *)&c->tcp);
    if (rv != 0) {
        conn_close(c, "cannot accept: %s", uv_strerror(rv));
        return ERR_IO;
    }
    name_address(c);
    begin(c, c->env->server_tls, NULL);
    return 0;
}


static void on_connected(uv_connect_t *req, int status)
{
    struct conn *c = req->handle->data;
    if (c->closing) return;
    if (status != 0) {
        conn_close(c, "cannot connect: %s", uv_strerror(status));
        return;
    }
    begin(c, c->env->client_tls, req->data);
}

int conn_connect(struct conn *c, const struct sockaddr *addr, const char *host)
{
    c->connect.data = (void *)host;
    int rv = uv_tcp_connect(&c->connect, &c->tcp, addr, on_connected);
    if (rv == 0) return 0;
    conn_close(c, "cannot connect: %s", uv_strerror(rv));
    return ERR_IO;
}
