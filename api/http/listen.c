/* Listening: one socket, accepted on its loop, handed to the servers in turn. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/http/http_int.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

enum { ACCEPTS_PER_TURN = 64, BACKLOG = 4096, PAUSE_MS = 100 };

struct http_listener {
    uv_poll_t poll;
    uv_timer_t timer; /* accepts again after descriptors ran out */
    int fd, reserve;  /* `reserve`: given up to accept and refuse when descriptors run out */
    int port;
    int open_handles;
    size_t next;
    struct http_tls *tls;
    http_handler *handler;
    struct http_server **servers;
    void **contexts;
    size_t n_servers;
    uint64_t log_ms;
};

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void peer_text(const struct sockaddr_storage *address, char *text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(text, size, "%s:%u", host, (unsigned)ntohs(v4->sin_port));
    } else {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(text, size, "[%s]:%u", host, (unsigned)ntohs(v6->sin6_port));
    }
}

static void log_accept(struct http_listener *l, const char *what)
{
    uint64_t now = uv_now(l->poll.loop);
    if (l->log_ms && now - l->log_ms < 1000) return;
    l->log_ms = now;
    log_warn("http: connection refused port=%d reason=\"%s\"", l->port, what);
}

static void hand_over(struct http_listener *l, int fd, const struct sockaddr_storage *address)
{
    struct http_server *s = l->servers[l->next];
    if (atomic_fetch_add(&http_open_connections, 1) >= s->limits.connections) {
        log_accept(l, "too many connections");
        goto refuse;
    }
    struct adoption *a = mem_alloc(sizeof(*a));
    if (!a) goto refuse;
    *a = (struct adoption){.fd = fd, .handler = l->handler, .ctx = l->contexts ? l->contexts[l->next] : NULL};
    a->tls = l->tls ? http_tls_context(l->tls) : NULL;
    peer_text(address, a->peer, sizeof(a->peer));
    l->next = (l->next + 1) % l->n_servers;
    if (s->loop == l->poll.loop && !s->closing)
        conn_open(s, a);
    else
        http_server_adopt(s, a);
    return;
refuse:
    atomic_fetch_sub(&http_open_connections, 1);
    atomic_fetch_add_explicit(&l->servers[0]->stats.refused, 1, memory_order_relaxed);
    close(fd);
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_timer(uv_timer_t *timer)
{
    struct http_listener *l = container_of(timer, struct http_listener, timer);
    if (l->reserve < 0) l->reserve = open_reserve();
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

/* Out of descriptors: the one in reserve lets us take a connection and close it, so that the client is told instead
 * of left waiting; then there is a pause, as the socket stays readable. */
static void out_of_descriptors(struct http_listener *l)
{
    log_accept(l, "no file descriptors left");
    if (l->reserve >= 0) {
        close(l->reserve);
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) close(fd);
        l->reserve = open_reserve();
    }
    uv_poll_stop(&l->poll);
    uv_timer_start(&l->timer, on_timer, PAUSE_MS, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct http_listener *l = container_of(poll, struct http_listener, poll);
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof(address);
        int fd = accept4(l->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            hand_over(l, fd, &address);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) out_of_descriptors(l);
        return;
    }
}

static int bind_to(const char *host, int port, int *ret_fd, int *ret_port, struct err *e)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *list = NULL;
    char service[16];
    snprintf(service, sizeof(service), "%d", port);
    int rc = getaddrinfo(host && *host ? host : NULL, service, &hints, &list);
    if (rc != 0) return err_set(e, ERR_INVALID, "cannot resolve the listen address %s: %s", host, gai_strerror(rc));
    struct addrinfo *a = list;
    for (struct addrinfo *i = list; i; i = i->ai_next)
        if (i->ai_family == AF_INET && a->ai_family != AF_INET) a = i;
    int one = 1, code = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        code = errno == EADDRINUSE ? err_set(e, ERR_EXISTS, "address already in use: %s:%d", host ? host : "", port)
                                   : err_set(e, ERR_IO, "cannot listen on %s:%d: %s", host ? host : "", port,
                                             strerror(errno));
        if (fd >= 0) close(fd);
        freeaddrinfo(list);
        return code;
    }
    freeaddrinfo(list);
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    getsockname(fd, (struct sockaddr *)&bound, &len);
    *ret_port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                 : ((struct sockaddr_in6 *)&bound)->sin6_port);
    *ret_fd = fd;
    return 0;
}

static void listener_free(struct http_listener *l)
{
    mem_free(l->servers);
    mem_free(l->contexts);
    mem_free(l);
}

static int copy_options(struct http_listener *l, const struct http_listen_options *o)
{
    l->tls = o->tls;
    l->handler = o->handler;
    l->n_servers = o->n_servers;
    l->servers = mem_alloc(o->n_servers * sizeof(*l->servers));
    if (!l->servers) return ERR_NOMEM;
    memcpy(l->servers, o->servers, o->n_servers * sizeof(*l->servers));
    if (!o->contexts) return 0;
    l->contexts = mem_alloc(o->n_servers * sizeof(*l->contexts));
    if (!l->contexts) return ERR_NOMEM;
    memcpy(l->contexts, o->contexts, o->n_servers * sizeof(*l->contexts));
    return 0;
}

int http_listen(const struct http_listen_options *o, struct http_listener **ret, struct err *e)
{
    if (o->n_servers == 0 || !o->handler || o->port < 0 || o->port > 65535)
        return err_set(e, ERR_INVALID, "nothing to listen for, or not a port: %d", o->port);
    struct http_listener *l = mem_calloc(1, sizeof(*l));
    if (!l) return err_set(e, ERR_NOMEM, "out of memory");
    int rc = copy_options(l, o);
    if (rc == 0) rc = bind_to(o->host, o->port, &l->fd, &l->port, e);
    if (rc != 0) {
        listener_free(l);
        return rc;
    }
    uv_loop_t *loop = o->servers[0]->loop;
    if (uv_poll_init(loop, &l->poll, l->fd) != 0) {
        close(l->fd);
        listener_free(l);
        return err_set(e, ERR_IO, "cannot watch the listening socket");
    }
    uv_timer_init(loop, &l->timer);
    l->reserve = open_reserve();
    l->open_handles = 2;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    *ret = l;
    return 0;
}

int http_listener_port(const struct http_listener *l)
{
    return l->port;
}

static void on_closed(uv_handle_t *h)
{
    struct http_listener *l = h->data;
    if (--l->open_handles == 0) listener_free(l);
}

void http_listener_close(struct http_listener *l)
{
    if (!l) return;
    l->poll.data = l->timer.data = l;
    uv_poll_stop(&l->poll);
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->timer, on_closed);
    close(l->fd);
    if (l->reserve >= 0) close(l->reserve);
}
