/* One connection to an HTTP server without a network: a socket pair, and a loop that is turned by
 * hand. A target gives bytes, or makes HTTP/2 frames of its input with the functions here; what the
 * server says is read and dropped. */
#ifndef PINTLE_TESTS_FUZZ_WIRE_H
#define PINTLE_TESTS_FUZZ_WIRE_H

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/http_int.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "tests/fuzz/fuzz.h"

struct wire {
    uv_loop_t loop, *loop_ptr;
    struct http_server *server;
    http_handler *handler;
    void *ctx;
    void (*turned)(void *ctx); /* after each turn; may be NULL */
    int fd;
    bool deaf; /* the client reads nothing */
};

static inline void wire_init(struct wire *w, http_handler *handler, void *ctx)
{
    log_set_level(LOG_ERROR);
    w->loop_ptr = &w->loop;
    w->handler = handler;
    w->ctx = ctx;
    uv_loop_init(&w->loop);
    CHECK(http_server_new(&w->loop, &w->server) == 0);
    w->server->limits.linger_ms = 1;
}

static inline void wire_open(struct wire *w)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    struct adoption *a = mem_must_calloc(1, sizeof(*a));
    *a = (struct adoption){.fd = pair[0], .handler = w->handler, .ctx = w->ctx, .peer = "fuzz"};
    w->fd = pair[1];
    w->deaf = false;
    atomic_fetch_add(&http_open_connections, 1);
    conn_open(w->server, a);
}

static inline void wire_turn(struct wire *w)
{
    static uint8_t sink[256 * 1024];
    uv_run(&w->loop, UV_RUN_NOWAIT);
    if (w->turned) w->turned(w->ctx);
    while (!w->deaf && w->fd >= 0 && recv(w->fd, sink, sizeof(sink), 0) > 0) continue;
}

/* As much as the server takes. */
static inline void wire_send(struct wire *w, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (int tries = 0; len > 0 && tries < 8; tries++) {
        ssize_t n = send(w->fd, p, len, MSG_NOSIGNAL);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        } else {
            wire_turn(w);
        }
    }
}

static inline void wire_settle(struct wire *w)
{
    for (int i = 0; i < 4; i++) wire_turn(w);
}

/* The client goes; nothing of it may be left. */
static inline void wire_close(struct wire *w)
{
    close(w->fd);
    w->fd = -1;
    for (int i = 0; i < 1000 && w->server->n_conns > 0; i++) wire_turn(w);
    CHECK(w->server->n_conns == 0 && w->server->stats.streams == 0);
}

/* ---- HTTP/2
 * ----------------------------------------------------------------------------------------- */

static inline void wire_frame(struct wire *w, uint8_t type, uint8_t flags, uint32_t stream,
                              struct slice payload)
{
    const uint8_t head[9] = {(uint8_t)(payload.len >> 16),
                             (uint8_t)(payload.len >> 8),
                             (uint8_t)payload.len,
                             type,
                             flags,
                             (uint8_t)(stream >> 24),
                             (uint8_t)(stream >> 16),
                             (uint8_t)(stream >> 8),
                             (uint8_t)stream};
    wire_send(w, head, sizeof(head));
    wire_send(w, payload.data, payload.len);
}

static inline void wire_preface(struct wire *w)
{
    static const uint8_t bytes[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    wire_send(w, bytes, sizeof(bytes) - 1);
}

static inline void hpack_number(struct buf *out, size_t n)
{
    if (n < 127) {
        buf_append_byte(out, (uint8_t)n);
        return;
    }
    buf_append_byte(out, 127);
    for (n -= 127; n >= 128; n >>= 7) buf_append_byte(out, (uint8_t)(n | 128));
    buf_append_byte(out, (uint8_t)n);
}

/* Literal, never indexed (RFC 7541, section 6.2.3). */
static inline void hpack_field(struct buf *out, const char *name, struct slice value)
{
    buf_append_byte(out, 0x10);
    hpack_number(out, strlen(name));
    buf_append_str(out, name);
    hpack_number(out, value.len);
    buf_append_slice(out, value);
}

/* Pieces of the input. */
static inline uint8_t take_byte(struct slice *in)
{
    uint8_t byte = in->len ? in->data[0] : 0;
    *in = slice_sub(*in, 1, in->len);
    return byte;
}

static inline struct slice take_bytes(struct slice *in, size_t n)
{
    struct slice piece = slice_sub(*in, 0, n);
    *in = slice_sub(*in, n, in->len);
    return piece;
}

#endif
