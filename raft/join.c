/* The question "who are the members?", before there is anything that could run: a hello of nobody on the peers' port
 * (env_uv_net.c), one answer, and the connection is closed. */
#include "raft/join.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "base/url.h"
#include "raft/env_uv_hello_int.h"
#include "raft/env_uv_int.h"

#define JOIN_TIMEOUT_MS 2000
#define JOIN_VERSION 2
#define JOIN_LEARNER 1u
#define JOIN_PROMOTE 2u

/* ---- the answer ---------------------------------------------------------------------------------- */

static void put_text(struct buf *out, const char *text)
{
    (void)buf_append_u32(out, (uint32_t)strlen(text));
    (void)buf_append_str(out, text);
}

void join_encode(struct buf *out, uint64_t cluster_id, uint64_t index, const struct consensus_member *members, size_t n)
{
    (void)buf_append_u32(out, JOIN_VERSION);
    (void)buf_append_u64(out, cluster_id);
    (void)buf_append_u64(out, index);
    (void)buf_append_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct consensus_member *m = &members[i];
        (void)buf_append_u64(out, m->id);
        (void)buf_append_u32(out, (m->learner ? JOIN_LEARNER : 0) | (m->promote ? JOIN_PROMOTE : 0));
        put_text(out, m->peer_url);
        put_text(out, m->name);
    }
}

static const char *get_text(struct reader *r, struct arena *a)
{
    struct slice s = reader_bytes(r, reader_u32(r));
    return r->failed ? "" : arena_strdup(a, s);
}

int join_decode(struct slice in, struct arena *a, struct join_cluster *ret)
{
    struct reader r = reader_make(in);
    uint32_t version = reader_u32(&r);
    *ret = (struct join_cluster){.cluster_id = reader_u64(&r)};
    ret->index = reader_u64(&r);
    uint32_t n = reader_u32(&r);
    if (r.failed || version != JOIN_VERSION || ret->index == 0 || n > LIMIT_MEMBERS) return ERR_CORRUPT;
    for (; ret->n < n; ret->n++) {
        struct consensus_member *m = &ret->members[ret->n];
        m->id = reader_u64(&r);
        uint32_t flags = reader_u32(&r);
        m->learner = flags & JOIN_LEARNER;
        m->promote = flags & JOIN_PROMOTE;
        m->peer_url = get_text(&r, a);
        m->name = get_text(&r, a);
        if (!m->peer_url || !m->name) return ERR_NOMEM;
        if (r.failed || m->id == 0 || flags & ~(JOIN_LEARNER | JOIN_PROMOTE)) return ERR_CORRUPT;
    }
    return reader_left(&r) ? ERR_CORRUPT : 0;
}

/* ---- asking -------------------------------------------------------------------------------------- */

static int unreachable(struct err *e, const char *url, const char *why)
{
    return err_set(e, ERR_UNAVAILABLE, "%s: %s", url, why);
}

static int connect_in_time(const struct addrinfo *to)
{
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct timeval limit = {.tv_sec = JOIN_TIMEOUT_MS / 1000};
    int error = 0;
    socklen_t len = sizeof error;
    if (fd < 0) return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        bool up = errno == EINPROGRESS && poll(&p, 1, JOIN_TIMEOUT_MS) == 1 &&
                  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
        if (!up) {
            close(fd);
            return -1;
        }
    }
    fcntl(fd, F_SETFL, 0); /* from here on it blocks, for a limited time */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return fd;
}

static int dial(const struct url *url)
{
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    int fd = -1;
    snprintf(port, sizeof port, "%d", url->port);
    if (getaddrinfo(url->host, port, &hints, &all) != 0) return -1;
    for (const struct addrinfo *to = all; to && fd < 0; to = to->ai_next) fd = connect_in_time(to);
    freeaddrinfo(all);
    return fd;
}

static ssize_t put_some(int fd, SSL *ssl, const void *p, size_t n)
{
    return ssl ? SSL_write(ssl, p, (int)n) : send(fd, p, n, MSG_NOSIGNAL);
}

/* Exactly so many bytes. */
static bool get_all(int fd, SSL *ssl, uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t got = ssl ? SSL_read(ssl, p, (int)n) : recv(fd, p, n, 0);
        if (got <= 0) return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static int no_memory(struct err *e, const char *url)
{
    return err_set(e, ERR_NOMEM, "%s: %s", url, err_text(ERR_NOMEM));
}

static int converse(int fd, SSL *ssl, const char *url, struct arena *a, struct join_cluster *ret, struct err *e)
{
    uint8_t welcome[WELCOME_BYTES], head[FRAME_HEADER_BYTES], *body = NULL;
    struct buf hello = {0};
    hello_encode(&hello, &(struct hello){.channel = HELLO_CHANNEL_ASK});
    if (hello.failed) {
        buf_release(&hello);
        return no_memory(e, url);
    }
    bool ok = put_some(fd, ssl, hello.data, hello.len) == (ssize_t)hello.len && get_all(fd, ssl, welcome, sizeof welcome);
    buf_release(&hello);
    if (!ok) return unreachable(e, url, "no answer");
    struct welcome w;
    if (!welcome_decode(slice_make(welcome, sizeof welcome), &w)) return unreachable(e, url, "no Pintle member answers there");
    if (w.status != WELCOME_OK) return unreachable(e, url, welcome_text(w.status));
    if (!get_all(fd, ssl, head, sizeof head)) return unreachable(e, url, "no answer");
    struct reader r = reader_make(slice_make(head, sizeof head));
    uint32_t len = reader_u32(&r), crc = reader_u32(&r);
    int rv = len <= LIMIT_MiB ? 0 : ERR_CORRUPT;
    if (!rv && !(body = mem_alloc(len + 1))) rv = ERR_NOMEM;
    if (!rv && !(get_all(fd, ssl, body, len) && crc32c(0, body, len) == crc)) rv = ERR_CORRUPT;
    if (!rv) rv = join_decode(slice_make(body, len), a, ret);
    mem_free(body);
    if (rv == ERR_NOMEM) return no_memory(e, url);
    return rv ? unreachable(e, url, "its answer cannot be read") : 0;
}

static int ask_over_tls(const struct env_uv_options *o, int fd, const struct url *url, const char *text, struct arena *a,
                        struct join_cluster *ret, struct err *e)
{
    struct env_uv u = {.options = *o};
    int rv = peer_tls_open(&u, e);
    SSL *ssl = rv == 0 ? SSL_new(u.client_tls) : NULL;
    if (ssl) {
        bool named = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), url->host) == 1 ||
                     (SSL_set_tlsext_host_name(ssl, url->host) == 1 && SSL_set1_host(ssl, url->host) == 1);
        bool up = named && SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1;
        rv = up ? converse(fd, ssl, text, a, ret, e) : unreachable(e, text, "TLS handshake failed");
    } else if (rv == 0) {
        rv = no_memory(e, text);
    }
    SSL_free(ssl);
    peer_tls_close(&u);
    return rv;
}

int join_ask(const struct env_uv_options *tls, const char *text, struct arena *a, struct join_cluster *ret,
             struct err *e)
{
    struct url url;
    int rv = url_parse(text, &url, e);
    if (rv) return rv;
    int fd = dial(&url);
    if (fd < 0) return unreachable(e, text, "cannot connect");
    rv = url.tls ? ask_over_tls(tls, fd, &url, text, a, ret, e) : converse(fd, NULL, text, a, ret, e);
    close(fd);
    return rv;
}
