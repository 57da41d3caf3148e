/* One connection: reading, telling the protocols apart, the turn's flush, timeouts, the end. See http_int.h. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/http_int.h"
#include "base/check.h"
#include "base/mem.h"

enum { READS_PER_TURN = 4, FLUSH_ROUNDS = 4 };

static const char h2_preface[24] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void conn_check(struct wheel_timer *t);
static void on_poll(uv_poll_t *poll, int status, int events);

static void close_streams(struct http_conn *c);

static void set_socket_options(int fd)
{
    int one = 1, idle = 30, interval = 10, count = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    /* A peer that vanished without a word is found by the kernel, in a minute. */
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static struct http_conn *conn_new(struct http_server *s, const struct adoption *a)
{
    struct http_conn *c = mem_calloc(1, sizeof(*c));
    if (!c) return NULL;
    c->server = s;
    c->fd = a->fd;
    c->handler = a->handler;
    c->ctx = a->ctx;
    c->proto = a->tls ? PROTO_TLS_HANDSHAKE : PROTO_DETECT;
    memcpy(c->peer, a->peer, sizeof(c->peer));
    list_init(&c->node);
    list_init(&c->dirty);
    list_init(&c->streams);
    list_init(&c->receiving);
    list_init(&c->waiting);
    list_init(&c->resuming);
    wheel_timer_init(&c->timer, conn_check);
    c->opened_ms = c->read_ms = c->write_ms = c->idle_since_ms = uv_now(s->loop);
    if ((a->tls && tls_open(c, a->tls) != 0) || uv_poll_init(s->loop, &c->poll, c->fd) != 0) {
        tls_free(c);
        mem_free(c);
        return NULL;
    }
    c->handle_open = true;
    return c;
}

void conn_open(struct http_server *s, struct adoption *a)
{
    set_socket_options(a->fd);
    struct http_conn *c = conn_new(s, a);
    SSL_CTX_free(a->tls);
    if (!c) {
        close(a->fd);
        atomic_fetch_sub(&http_open_connections, 1);
        stat_add(&s->stats.refused, 1);
        mem_free(a);
        return;
    }
    mem_free(a);
    list_push_back(&s->conns, &c->node);
    s->n_conns++;
    stat_add(&s->stats.connections, 1);
    stat_add(&s->stats.connections_total, 1);
    conn_check_by(c, c->opened_ms + s->limits.handshake_ms);
    conn_poll(c);
}

void conn_poll(struct http_conn *c)
{
    int events = 0;
    if (!c->eof && !c->want_read_off) events |= UV_READABLE;
    if (c->rest || c->more || tls_pending(c)) events |= UV_WRITABLE;
    if (!(events & UV_READABLE) && !c->eof) events |= UV_DISCONNECT;
    if (events == 0) events = UV_PRIORITIZED; /* which nobody sends; a connection that is gone is told all the same */
    if (events == c->events) return;
    c->events = events;
    uv_poll_start(&c->poll, events, on_poll);
}

void conn_kill(struct http_conn *c, int error)
{
    if (c->dead) return;
    c->dead = true;
    c->error = error;
    conn_dirty(c);
}

/* ---- reading ------------------------------------------------------------------------------------ */

void conn_eof(struct http_conn *c)
{
    c->eof = true;
    if (c->proto == PROTO_H1)
        h1_eof(c);
    else
        conn_kill(c, ERR_CLOSED);
    conn_dirty(c);
}

static void conn_read(struct http_conn *c)
{
    struct http_server *s = c->server;
    for (int i = 0; i < READS_PER_TURN && !c->dead && !c->want_read_off && !c->eof; i++) {
        ssize_t n = read(c->fd, s->input, sizeof(s->input));
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK) conn_kill(c, ERR_CLOSED);
            return;
        }
        if (n == 0) {
            conn_eof(c);
            return;
        }
        stat_add(&s->stats.bytes_in, (uint64_t)n);
        c->read_ms = uv_now(s->loop);
        c->pinged = false;
        struct slice data = slice_make(s->input, (size_t)n);
        if (c->tls)
            tls_input(c, data);
        else
            conn_input(c, data);
        conn_dirty(c);
        if ((size_t)n < sizeof(s->input)) return;
    }
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_conn *c = container_of(poll, struct http_conn, poll);
    if (c->dead) return;
    if (status < 0 || (c->events == UV_PRIORITIZED && (events & UV_PRIORITIZED))) {
        conn_kill(c, ERR_CLOSED);
        return;
    }
    if (events & UV_WRITABLE) {
        c->more = false;
        conn_dirty(c);
    }
    if (events & UV_READABLE) conn_read(c);
    if ((events & UV_DISCONNECT) && c->want_read_off && !c->eof) conn_kill(c, ERR_CLOSED);
}

static void conn_detect(struct http_conn *c, struct slice data)
{
    uint8_t seen[sizeof(c->preface)];
    size_t before = c->preface_len, n = before;
    memcpy(seen, c->preface, before);
    while (n < sizeof(h2_preface) && n - before < data.len) {
        seen[n] = data.data[n - before];
        if (seen[n] != (uint8_t)h2_preface[n]) break;
        n++;
    }
    bool is_h2 = n == sizeof(h2_preface);
    if (!is_h2 && n - before == data.len) { /* all as the preface has it, so far */
        memcpy(c->preface, seen, n);
        c->preface_len = (unsigned)n;
        return;
    }
    c->proto = is_h2 ? PROTO_H2 : PROTO_H1;
    if ((is_h2 ? h2_open(c) : h1_open(c)) != 0) {
        conn_kill(c, ERR_NOMEM);
        return;
    }
    if (before) conn_input(c, slice_make(c->preface, before));
    conn_input(c, data);
}

void conn_input(struct http_conn *c, struct slice data)
{
    if (c->dead || data.len == 0) return;
    switch (c->proto) {
    case PROTO_DETECT: conn_detect(c, data); break;
    case PROTO_H2: h2_input(c, data); break;
    case PROTO_H1: h1_input(c, data); break;
    case PROTO_TLS_HANDSHAKE:
    case PROTO_LINGER: break;
    }
}

/* ---- writing ------------------------------------------------------------------------------------ */

static ssize_t write_vector(struct http_conn *c, const struct iovec *iov, unsigned n)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
    ssize_t done;
    do {
        done = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (done < 0 && errno == EINTR);
    if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) done = 0;
    if (done < 0) {
        conn_kill(c, ERR_CLOSED);
        return -1;
    }
    if (done > 0) {
        stat_add(&c->server->stats.bytes_out, (uint64_t)done);
        c->write_ms = uv_now(c->server->loop);
    }
    return done;
}

bool conn_write_gather(struct http_conn *c)
{
    struct gather *g = &c->server->gather;
    if (c->dead) {
        gather_reset(g);
        return false;
    }
    if (g->n == 0) return true;
    if (c->tls) return tls_write_gather(c);
    ssize_t done = write_vector(c, g->iov, g->n);
    if (done < 0 || (size_t)done == g->bytes) {
        gather_reset(g);
        return done >= 0;
    }
    c->rest = out_rest_new(g, (size_t)done);
    if (!c->rest) conn_kill(c, ERR_NOMEM);
    return false;
}

ssize_t conn_send(struct http_conn *c, const void *data, size_t len)
{
    struct iovec v = {(void *)(uintptr_t)data, len};
    return write_vector(c, &v, 1);
}

static bool conn_write_rest(struct http_conn *c)
{
    if (c->tls) return tls_flush(c);
    if (!c->rest) return true;
    ssize_t done = write_vector(c, c->rest->iov + c->rest->first, c->rest->n - c->rest->first);
    if (done < 0) return false;
    out_rest_advance(c->rest, (size_t)done);
    if (c->rest->bytes > 0) return false;
    out_rest_free(c->rest);
    c->rest = NULL;
    return true;
}

static void on_closed(uv_handle_t *h)
{
    struct http_conn *c = container_of((uv_poll_t *)h, struct http_conn, poll);
    struct http_server *s = c->server;
    list_remove(&c->dirty);
    mem_free(c);
    server_conn_gone(s);
}

static void close_streams(struct http_conn *c)
{
    while (!list_empty(&c->streams)) {
        struct http_stream *st = container_of(c->streams.next, struct http_stream, node);
        if (c->h2) nghttp2_session_set_stream_user_data(c->h2, st->id, NULL);
        stream_close(st, c->error ? c->error : ERR_CLOSED);
    }
}

static void conn_teardown(struct http_conn *c)
{
    c->torn = true;
    wheel_unset(&c->timer);
    close_streams(c);
    nghttp2_session_del(c->h2);
    c->h2 = NULL;
    h1_free(c);
    out_rest_free(c->rest);
    c->rest = NULL;
    tls_shutdown(c);
    tls_free(c);
    mem_free(c->cert_organizations); /* one block with the names */
    uv_poll_stop(&c->poll);
    uv_close((uv_handle_t *)&c->poll, on_closed);
    close(c->fd);
    list_remove(&c->node);
    atomic_fetch_sub(&http_open_connections, 1);
    atomic_fetch_sub_explicit(&c->server->stats.connections, 1, memory_order_relaxed);
}

/* Output that waits for the peer is looked after by the timer. */
static void watch_stall(struct http_conn *c)
{
    bool waiting = c->rest || c->queued > 0 || tls_pending(c);
    if (!waiting) {
        c->stalled_since_ms = 0;
        return;
    }
    if (c->stalled_since_ms) return;
    c->stalled_since_ms = uv_now(c->server->loop);
    conn_check_by(c, c->stalled_since_ms + c->server->limits.write_stall_ms / 2);
}

void conn_flush(struct http_conn *c)
{
    if (c->torn) return;
    bool flushed = false;
    for (int round = 0; round < FLUSH_ROUNDS && !c->dead; round++) {
        conn_run_resuming(c);
        flushed = conn_write_rest(c);
        if (!flushed || c->more) break;
        if (c->proto == PROTO_H2) h2_send(c);
        if (c->proto == PROTO_H1) h1_send(c);
        flushed = conn_write_gather(c) && !c->rest && !tls_pending(c);
        if (c->dead) break;
        bool called = conn_run_waiting(c);
        if (!flushed || (!called && list_empty(&c->resuming))) break;
        if (round == FLUSH_ROUNDS - 1) conn_dirty(c);
    }
    if (!c->dead && flushed && c->close_when_flushed && c->proto != PROTO_LINGER) conn_linger(c);
    if (c->dead) {
        conn_teardown(c);
        return;
    }
    watch_stall(c);
    conn_poll(c);
}

/* ---- the end ------------------------------------------------------------------------------------ */

void conn_shutdown(struct http_conn *c)
{
    if (c->dead || c->closing) return;
    c->closing = true;
    if (c->proto == PROTO_H2)
        h2_shutdown(c);
    else if (c->proto == PROTO_H1)
        h1_shutdown(c);
    else
        conn_kill(c, ERR_CLOSED);
    conn_dirty(c);
}

/* Closing with unread input would make the kernel send a reset, which may overtake our last words: say that we are done, and read
 * on for a while. */
void conn_linger(struct http_conn *c)
{
    close_streams(c);
    if (c->eof) {
        conn_kill(c, ERR_CLOSED);
        return;
    }
    c->proto = PROTO_LINGER;
    c->want_read_off = false;
    tls_shutdown(c);
    shutdown(c->fd, SHUT_WR);
    c->opened_ms = uv_now(c->server->loop);
    conn_check_by(c, c->opened_ms + c->server->limits.linger_ms);
}

/* ---- timeouts ----------------------------------------------------------------------------------- */

void conn_check_by(struct http_conn *c, uint64_t due_ms)
{
    if (list_empty(&c->timer.node) || c->timer.due_ms > due_ms) wheel_set(&c->server->wheel, &c->timer, due_ms);
}

struct check {
    uint64_t now, next;
};

/* Whether `since + limit` has passed; if not the next check is due then at the latest. */
static bool passed(struct check *k, uint64_t since, uint64_t limit)
{
    if (k->now >= since + limit) return true;
    if (since + limit < k->next) k->next = since + limit;
    return false;
}

static void time_out(struct http_conn *c, const char *reason)
{
    server_log(c, reason);
    conn_kill(c, ERR_TIMEOUT);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void check_stall(struct http_conn *c, struct check *k)
{
    if (!c->stalled_since_ms) return;
    uint64_t limit = c->server->limits.write_stall_ms, last = later(c->stalled_since_ms, c->write_ms);
    if (c->proto == PROTO_H2) last = later(last, c->read_ms);
    if (passed(k, last, limit)) {
        time_out(c, "the peer does not read");
        return;
    }
    /* A peer that only one stream of is slow to read is alive: it answers. */
    if (c->proto == PROTO_H2 && !c->pinged && passed(k, last, limit / 2)) {
        c->pinged = true;
        h2_ping(c);
    }
}

static void check_bodies(struct http_conn *c, struct check *k)
{
    list_for_each(node, &c->receiving)
    {
        struct http_stream *st = container_of(node, struct http_stream, receiving);
        if (st->paused || st->reset) continue;
        bool head = !st->dispatched;
        unsigned limit = head ? c->server->limits.handshake_ms : st->stall_ms;
        if (limit == 0 || !passed(k, st->progress_ms, limit)) continue;
        if (st->sent) {
            h2_enough(st);
            continue;
        }
        if (head || c->proto == PROTO_H1) {
            time_out(c, "the request does not go on");
            return;
        }
        st->error = ERR_TIMEOUT;
        http_reset(st, NGHTTP2_CANCEL);
    }
}

/* Who waits for a window of its own waits for its client; who has one waits for the connection, and that for all of them. */
static void check_takers(struct http_conn *c, struct check *k)
{
    if (c->proto != PROTO_H2) return;
    list_for_each(node, &c->waiting)
    {
        struct http_stream *st = container_of(node, struct http_stream, waiting);
        if (st->take_ms == 0 || st->reset) continue;
        uint64_t last = h2_has_window(st) ? later(st->took_ms, c->took_ms) : st->took_ms;
        if (!passed(k, last, st->take_ms)) continue;
        st->error = ERR_TIMEOUT;
        http_reset(st, NGHTTP2_CANCEL);
    }
}

static void conn_check(struct wheel_timer *t)
{
    struct http_conn *c = container_of(t, struct http_conn, timer);
    const struct http_limits *limits = &c->server->limits;
    struct check k = {.now = uv_now(c->server->loop), .next = UINT64_MAX};
    if (c->dead) return;
    if (c->proto == PROTO_TLS_HANDSHAKE || c->proto == PROTO_DETECT) {
        if (passed(&k, c->opened_ms, limits->handshake_ms)) time_out(c, "no request after connecting");
    } else if (c->proto == PROTO_LINGER) {
        if (passed(&k, c->opened_ms, limits->linger_ms)) conn_kill(c, ERR_CLOSED);
    } else {
        check_stall(c, &k);
        if (!c->dead) check_bodies(c, &k);
        if (!c->dead) check_takers(c, &k);
        if (!c->dead && c->n_streams == 0 && passed(&k, c->idle_since_ms, limits->idle_ms)) {
            if (c->closing) conn_kill(c, ERR_CLOSED); /* it has had its GOAWAY */
            conn_shutdown(c);
            c->idle_since_ms = k.now;
        }
        uint64_t idle = k.now + limits->idle_ms;
        if (idle < k.next) k.next = idle;
    }
    if (!c->dead) conn_check_by(c, k.next > k.now ? k.next : k.now + 1);
}
