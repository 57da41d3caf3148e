/* One server per loop: hand-over of connections, the flush at the end of each turn, and the end of it all. */
#include <errno.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "api/http/http_int.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

const struct http_limits http_default_limits = {
    .handshake_ms = LIMIT_HTTP_HANDSHAKE_MS,
    .idle_ms = LIMIT_HTTP_IDLE_MS,
    .body_stall_ms = LIMIT_HTTP_BODY_STALL_MS,
    .write_stall_ms = LIMIT_HTTP_WRITE_STALL_MS,
    .linger_ms = LIMIT_HTTP_LINGER_MS,
    .resets_per_second = LIMIT_HTTP2_RESETS_PER_SECOND,
    .control_frames = LIMIT_HTTP2_CONTROL_FRAMES,
    .streams = LIMIT_HTTP2_STREAMS,
    .header_bytes = LIMIT_HTTP_HEADER_BYTES,
    .headers = LIMIT_HTTP_HEADERS,
    .out_bytes = LIMIT_HTTP_OUT_BYTES,
    .conn_out_bytes = LIMIT_HTTP_CONN_OUT_BYTES,
    .server_bytes = LIMIT_HTTP_SERVER_BYTES,
    .connections = LIMIT_CONNECTIONS,
};

_Atomic size_t http_open_connections;

/* Flushing may make other connections dirty (a handler answers on a stream of one from a callback of another); after some
 * rounds the loop gets its turn first. */
static void flush_dirty(struct http_server *s)
{
    for (int round = 0; round < 8 && !list_empty(&s->dirty); round++) {
        struct list now = s->dirty;
        now.next->prev = now.prev->next = &now;
        list_init(&s->dirty);
        for (struct list *node; (node = list_pop_front(&now));)
            conn_flush(container_of(node, struct http_conn, dirty));
    }
    if (!list_empty(&s->dirty)) uv_async_send(&s->async);
}

static void on_prepare(uv_prepare_t *h)
{
    flush_dirty(container_of(h, struct http_server, prepare));
}

static void on_check(uv_check_t *h)
{
    flush_dirty(container_of(h, struct http_server, check));
}

static void adoption_drop(struct adoption *a)
{
    close(a->fd);
    SSL_CTX_free(a->tls);
    mem_free(a);
    atomic_fetch_sub(&http_open_connections, 1);
}

static void take_inbox(struct http_server *s)
{
    struct adoption *a = atomic_exchange(&s->inbox, NULL), *in_order = NULL;
    while (a) {
        struct adoption *next = a->next;
        a->next = in_order;
        in_order = a;
        a = next;
    }
    while (in_order) {
        a = in_order;
        in_order = a->next;
        if (s->closing)
            adoption_drop(a);
        else
            conn_open(s, a);
    }
}

static void on_async(uv_async_t *h)
{
    take_inbox(container_of(h, struct http_server, async));
}

void http_server_adopt(struct http_server *s, struct adoption *a)
{
    struct adoption *head = atomic_load(&s->inbox);
    do {
        a->next = head;
    } while (!atomic_compare_exchange_weak(&s->inbox, &head, a));
    if (!head) uv_async_send(&s->async);
}

/* nghttp2 1.52 frees a DATA item twice when the allocation behind it fails (nghttp2_stream_attach_item), so that its small
 * and bounded structures must be had. */
static void *h2_malloc(size_t size, void *user)
{
    (void)user;
    return mem_must_alloc(size);
}

static void h2_free(void *p, void *user)
{
    (void)user;
    mem_free(p);
}

static void *h2_calloc(size_t n, size_t size, void *user)
{
    (void)user;
    return mem_must_calloc(n, size);
}

static void *h2_realloc(void *p, size_t size, void *user)
{
    (void)user;
    return mem_must_realloc(p, size);
}

static void on_grace_over(struct wheel_timer *t)
{
    struct http_server *s = container_of(t, struct http_server, grace);
    list_for_each(node, &s->conns) conn_kill(container_of(node, struct http_conn, node), ERR_CLOSED);
}

static size_t most_connections(void)
{
    struct rlimit r;
    size_t most = http_default_limits.connections;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == RLIM_INFINITY) return most;
    size_t files = (size_t)r.rlim_cur, kept = files / 2 < LIMIT_FILES_KEPT ? files / 2 : LIMIT_FILES_KEPT;
    return files - kept < most ? files - kept : most;
}

int http_server_new(uv_loop_t *loop, struct http_server **ret)
{
    struct http_server *s = mem_calloc(1, sizeof(*s));
    if (!s) return ERR_NOMEM;
    s->loop = loop;
    s->limits = http_default_limits;
    s->limits.connections = most_connections();
    list_init(&s->conns);
    list_init(&s->dirty);
    list_init(&s->free_streams);
    s->mem = (nghttp2_mem){NULL, h2_malloc, h2_free, h2_calloc, h2_realloc};
    wheel_timer_init(&s->grace, on_grace_over);
    buf_init(&s->cipher, 0);
    int rc = h2_server_init(s);
    if (rc == 0 && uv_async_init(loop, &s->async, on_async) != 0) rc = ERR_IO;
    if (rc != 0) {
        nghttp2_session_callbacks_del(s->callbacks);
        nghttp2_option_del(s->option);
        mem_free(s);
        return rc;
    }
    uv_prepare_init(loop, &s->prepare); /* these cannot fail */
    uv_check_init(loop, &s->check);
    wheel_init(&s->wheel, loop);
    uv_prepare_start(&s->prepare, on_prepare);
    uv_check_start(&s->check, on_check);
    uv_unref((uv_handle_t *)&s->prepare);
    uv_unref((uv_handle_t *)&s->check);
    s->open_handles = 4;
    *ret = s;
    return 0;
}

static struct http_server *handle_server(uv_handle_t *h)
{
    return h->data;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct http_server *s = handle_server(h);
    if (--s->open_handles > 0) return;
    take_inbox(s);
    s->closed = true;
    if (s->on_closed) s->on_closed(s->closed_ctx);
}

static void close_handles(struct http_server *s)
{
    s->prepare.data = s->check.data = s->async.data = s->wheel.timer.data = s;
    uv_close((uv_handle_t *)&s->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&s->check, on_handle_closed);
    uv_close((uv_handle_t *)&s->async, on_handle_closed);
    wheel_close(&s->wheel, on_handle_closed);
}

void http_server_close(struct http_server *s, unsigned grace_ms, void (*closed)(void *ctx), void *ctx)
{
    CHECK(!s->closing);
    s->closing = true;
    s->on_closed = closed;
    s->closed_ctx = ctx;
    take_inbox(s);
    if (s->n_conns == 0) {
        close_handles(s);
        return;
    }
    list_for_each(node, &s->conns) conn_shutdown(container_of(node, struct http_conn, node));
    wheel_set(&s->wheel, &s->grace, uv_now(s->loop) + grace_ms);
}

void server_conn_gone(struct http_server *s)
{
    s->n_conns--;
    if (s->closing && s->n_conns == 0) close_handles(s);
}

void http_server_free(struct http_server *s)
{
    if (!s) return;
    CHECK(s->closed);
    take_inbox(s); /* a listener on another loop may have handed connections over until it was closed itself */
    for (struct list *node; (node = list_pop_front(&s->free_streams));)
        mem_free(container_of(node, struct http_stream, node));
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->option);
    buf_release(&s->cipher);
    mem_free(s);
}

void http_server_stats(const struct http_server *s, struct http_stats *ret)
{
    const struct stats_atomic *a = &s->stats;
#define READ(field) .field = atomic_load_explicit(&a->field, memory_order_relaxed)
    *ret = (struct http_stats){READ(connections), READ(connections_total), READ(streams), READ(streams_total),
                               READ(bytes_in),    READ(bytes_out),         READ(refused), READ(resets)};
#undef READ
}

void server_log(struct http_conn *c, const char *reason)
{
    struct http_server *s = c->server;
    uint64_t now = uv_now(s->loop);
    if (s->log_ms && now - s->log_ms < 1000) {
        s->log_suppressed++;
        return;
    }
    s->log_ms = now;
    log_info("http: connection closed peer=%s reason=\"%s\" not_logged=%u", c->peer, reason, s->log_suppressed);
    s->log_suppressed = 0;
}

/* RFC 9110, section 6.6.1; made once a second. */
struct slice server_date(struct http_server *s)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if ((uint64_t)now.tv_sec != s->date_s) {
        struct tm tm;
        gmtime_r(&now.tv_sec, &tm);
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = (uint64_t)now.tv_sec;
    }
    return slice_make(s->date, 29);
}
