/* A client for the HTTP tests, on the loop's own thread: a raw socket, and an nghttp2 client session on top of one. Everything waits
 * for a condition while the loop is turned, ten seconds at most. */
#ifndef PINTLE_TESTS_UNIT_HTTP_CLIENT_H
#define PINTLE_TESTS_UNIT_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the above, which it needs */
#include <cmocka.h>

#include "api/http/http_int.h"
#include "base/clock.h"
#include "http_fixture.h"

enum { CLIENT_WAIT_MS = 10000 };

/* ---- a server on this thread ------------------------------------------------------------------- */

struct fixture {
    uv_loop_t loop, *loop_ptr;
    struct http_server *server;
    struct http_listener *listener;
    struct http_tls *tls;
    int port;
};

static inline void fixture_start_with(struct fixture *f, struct http_tls *tls, http_handler *handler, void *ctx)
{
    memset(f, 0, sizeof(*f));
    memset(&app_counts, 0, sizeof(app_counts));
    uv_loop_init(&f->loop);
    f->loop_ptr = &f->loop;
    assert_int_equal(http_server_new(&f->loop, &f->server), 0);
    void *contexts[1] = {ctx ? ctx : (void *)&f->loop_ptr};
    const struct http_listen_options o = {.host = "127.0.0.1",
                                          .tls = tls,
                                          .servers = &f->server,
                                          .contexts = contexts,
                                          .n_servers = 1,
                                          .handler = handler};
    struct err e;
    assert_int_equal(http_listen(&o, &f->listener, &e), 0);
    f->port = http_listener_port(f->listener);
}

static inline void fixture_start(struct fixture *f)
{
    fixture_start_with(f, NULL, http_app, NULL);
}

static inline void fixture_set_true(void *ctx)
{
    *(bool *)ctx = true;
}

static inline void fixture_stop(struct fixture *f)
{
    bool closed = false;
    http_listener_close(f->listener);
    http_server_close(f->server, 0, fixture_set_true, &closed);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!closed && clock_mono_ms() < end) uv_run(&f->loop, UV_RUN_ONCE);
    assert_true(closed);
    struct http_stats stats;
    http_server_stats(f->server, &stats);
    assert_int_equal(stats.connections, 0);
    assert_int_equal(stats.streams, 0);
    http_server_free(f->server);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

static inline void fixture_turn(struct fixture *f)
{
    uv_run(&f->loop, UV_RUN_NOWAIT);
}

/* ---- raw ----------------------------------------------------------------------------------------- */

struct raw {
    struct fixture *f;
    int fd;
    bool eof; /* or reset */
    struct buf in;
};

static inline void raw_open(struct raw *r, struct fixture *f)
{
    *r = (struct raw){.f = f, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)f->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(r->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    int one = 1;
    setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(r->fd, F_SETFL, O_NONBLOCK);
}

static inline void raw_close(struct raw *r)
{
    close(r->fd);
    buf_release(&r->in);
}

/* Takes what there is. */
static inline void raw_pull(struct raw *r)
{
    uint8_t block[65536];
    while (!r->eof) {
        ssize_t n = recv(r->fd, block, sizeof(block), 0);
        if (n > 0) {
            assert_int_equal(buf_append(&r->in, block, (size_t)n), 0);
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        r->eof = true;
    }
}

static inline void raw_turn(struct raw *r)
{
    fixture_turn(r->f);
    raw_pull(r);
    if (r->in.len == 0) poll(NULL, 0, 1);
}

/* Sends all, turning the loop while the socket is full; gives up silently when the peer has closed. */
static inline void raw_send(struct raw *r, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (len > 0 && !r->eof && clock_mono_ms() < end) {
        ssize_t n = send(r->fd, p, len, MSG_NOSIGNAL);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR) return;
        raw_turn(r);
    }
}

static inline void raw_send_str(struct raw *r, const char *text)
{
    raw_send(r, text, strlen(text));
}

/* Until `text` was received. */
static inline bool raw_wait_for(struct raw *r, const char *text)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (clock_mono_ms() < end) {
        raw_turn(r);
        if (r->in.len && memmem(r->in.data, r->in.len, text, strlen(text))) return true;
        if (r->eof) return false;
    }
    return false;
}

static inline bool raw_wait_eof(struct raw *r)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!r->eof && clock_mono_ms() < end) raw_turn(r);
    return r->eof;
}

static inline bool raw_has(const struct raw *r, const char *text)
{
    return r->in.len && memmem(r->in.data, r->in.len, text, strlen(text)) != NULL;
}

/* A cleartext HTTP/2 frame. */
static inline void raw_frame(struct raw *r, uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len)
{
    const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags,
                             (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    raw_send(r, head, 9);
    raw_send(r, payload, len);
}

static inline void raw_preface(struct raw *r)
{
    raw_send_str(r, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw_frame(r, 4, 0, 0, "", 0);
}

/* The error code of a GOAWAY that was received, or -1. */
static inline int64_t raw_goaway(const struct raw *r)
{
    for (size_t at = 0; at + 9 <= r->in.len;) {
        const uint8_t *p = r->in.data + at;
        size_t len = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        if (p[3] == 7 && at + 17 <= r->in.len)
            return (int64_t)((uint32_t)p[13] << 24 | (uint32_t)p[14] << 16 | (uint32_t)p[15] << 8 | p[16]);
        at += 9 + len;
    }
    return -1;
}

/* ---- HTTP/2 by nghttp2 ----------------------------------------------------------------------------- */

struct h2_answer {
    int32_t id;
    int status;
    struct buf body, fields; /* fields: "name: value\n", trailers too */
    bool ended, closed;
    uint32_t close_code;
    const uint8_t *send;
    size_t send_len;
    bool send_open; /* no END_STREAM after `send` */
};

struct h2_client {
    struct raw raw;
    nghttp2_session *session;
    bool hold_windows; /* nothing is acknowledged: a slow reader */
    int64_t goaway;
};

static inline ssize_t h2c_send(nghttp2_session *s, const uint8_t *data, size_t len, int flags, void *user)
{
    (void)s;
    (void)flags;
    struct h2_client *c = user;
    raw_send(&c->raw, data, len);
    return (ssize_t)len;
}

static inline int h2c_header(nghttp2_session *s, const nghttp2_frame *frame, const uint8_t *name, size_t nlen,
                             const uint8_t *value, size_t vlen, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    struct h2_answer *a = nghttp2_session_get_stream_user_data(s, frame->hd.stream_id);
    if (!a) return 0;
    if (nlen == 7 && memcmp(name, ":status", 7) == 0) a->status = atoi((const char *)value);
    buf_printf(&a->fields, "%.*s: %.*s\n", (int)nlen, name, (int)vlen, value);
    return 0;
}

static inline int h2c_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user)
{
    (void)flags;
    struct h2_client *c = user;
    struct h2_answer *a = nghttp2_session_get_stream_user_data(s, id);
    if (a) assert_int_equal(buf_append(&a->body, data, len), 0);
    if (!c->hold_windows) nghttp2_session_consume(s, id, len);
    return 0;
}

static inline int h2c_frame(nghttp2_session *s, const nghttp2_frame *frame, void *user)
{
    struct h2_client *c = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) c->goaway = frame->goaway.error_code;
    struct h2_answer *a = nghttp2_session_get_stream_user_data(s, frame->hd.stream_id);
    if (a && (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        a->ended = true;
    return 0;
}

static inline int h2c_closed(nghttp2_session *s, int32_t id, uint32_t code, void *user)
{
    (void)user;
    struct h2_answer *a = nghttp2_session_get_stream_user_data(s, id);
    if (!a) return 0;
    a->closed = true;
    a->close_code = code;
    return 0;
}

static inline ssize_t h2c_read(nghttp2_session *s, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                               nghttp2_data_source *source, void *user)
{
    (void)s;
    (void)id;
    (void)user;
    struct h2_answer *a = source->ptr;
    size_t n = a->send_len < len ? a->send_len : len;
    if (n == 0 && a->send_open) return NGHTTP2_ERR_DEFERRED;
    memcpy(buf, a->send, n);
    a->send += n;
    a->send_len -= n;
    if (a->send_len == 0 && !a->send_open) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static inline void h2c_open(struct h2_client *c, struct fixture *f)
{
    *c = (struct h2_client){.goaway = -1};
    raw_open(&c->raw, f);
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_send_callback(cb, h2c_send);
    nghttp2_session_callbacks_set_on_header_callback(cb, h2c_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, h2c_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, h2c_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, h2c_closed);
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_peer_max_concurrent_streams(option, 1000000);
    nghttp2_option_set_max_send_header_block_length(option, 1 << 20);
    nghttp2_session_client_new2(&c->session, cb, c, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(c->session, 0, NULL, 0);
}

static inline void h2c_close(struct h2_client *c)
{
    nghttp2_session_del(c->session);
    raw_close(&c->raw);
}

static inline nghttp2_nv h2c_nv(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value), 0};
}

/* Starts a request; `body` NULL = none; extra: pairs, NULL-terminated, may be NULL. */
static inline void h2c_request(struct h2_client *c, struct h2_answer *a, const char *method, const char *path,
                               const char *const *extra, const void *body, size_t len)
{
    bool open = a->send_open;
    *a = (struct h2_answer){.send = body, .send_len = len, .send_open = open};
    nghttp2_nv nva[256];
    size_t n = 0;
    nva[n++] = h2c_nv(":method", method);
    nva[n++] = h2c_nv(":path", path);
    nva[n++] = h2c_nv(":scheme", "http");
    nva[n++] = h2c_nv(":authority", "localhost");
    for (; extra && *extra; extra += 2) nva[n++] = h2c_nv(extra[0], extra[1]);
    nghttp2_data_provider provider = {.source.ptr = a, .read_callback = h2c_read};
    a->id = nghttp2_submit_request(c->session, NULL, nva, n, body || open ? &provider : NULL, a);
    assert_true(a->id > 0);
}

static inline void h2c_turn(struct h2_client *c)
{
    nghttp2_session_send(c->session);
    raw_turn(&c->raw);
    if (c->raw.in.len == 0) return;
    nghttp2_session_mem_recv(c->session, c->raw.in.data, c->raw.in.len);
    buf_clear(&c->raw.in);
    nghttp2_session_send(c->session);
}

/* Until *flag; false after ten seconds or when the connection is gone. */
static inline bool h2c_wait(struct h2_client *c, const bool *flag)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!*flag && clock_mono_ms() < end) {
        h2c_turn(c);
        if (c->raw.eof && !*flag) return false;
    }
    return *flag;
}

static inline bool h2c_wait_goaway(struct h2_client *c)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (c->goaway < 0 && !c->raw.eof && clock_mono_ms() < end) h2c_turn(c);
    return c->goaway >= 0;
}

static inline bool answer_has(struct h2_answer *a, const char *field)
{
    return a->fields.len && memmem(a->fields.data, a->fields.len, field, strlen(field));
}

static inline void answer_release(struct h2_answer *a)
{
    buf_release(&a->body);
    buf_release(&a->fields);
}

#endif
