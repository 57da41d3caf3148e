/* Peers: who may talk to us, an outgoing connection per peer and channel, and the incoming ones.
 *
 * On a connection: a hello each way, then frames of [u32 length][u32 CRC-32C][payload]; a length of 0 is a sign of life,
 * sent every second. What breaks any of this closes the connection with one logged line. An outgoing connection that
 * closes fails its sends and is made again after a pause that doubles from 50 ms to 2 s. */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/url.h"
#include "raft/env_uv_hello_int.h"
#include "raft/env_uv_int.h"

#define RETRY_FIRST_MS 50
#define RETRY_LAST_MS 2000
#define HELLO_TIMEOUT_MS 5000
#define SILENCE_MS 10000
#define SAME_ID_SILENCE_MS 3000
#define TWICE_MS 10000 /* of refusals because another process runs under our id, until that is final */

struct link {
    struct conn conn;
    struct list node;
    struct env_uv *u;
    uint64_t peer_id;
    enum env_channel channel;
    uv_timer_t retry;
    uv_getaddrinfo_t resolve;
    struct list queue; /* of env_send, while up and not yet written */
    size_t queued;
    struct buf in; /* the welcome */
    char host[256];
    int port;
    uint64_t began_ms, twice_ms;
    unsigned pause_ms;
    bool active, up, forgotten, resolving, told;
};

struct inbound {
    struct conn conn;
    struct list node;
    struct env_uv *u;
    struct buf in;
    uint64_t peer_id, instance, last_ms;
    enum env_channel channel;
    bool greeted; /* a member speaks */
    bool asked;   /* somebody who is none has had his answer */
};

static struct peer *peer_get(const struct env_uv *u, uint64_t id)
{
    return map_get(&u->peers, id);
}

static void peer_link_changed(struct env_uv *u, uint64_t id, bool up)
{
    struct peer *p = peer_get(u, id);
    if (!p || (!up && p->up == 0)) return; /* a connection of before it was removed */
    p->up += up ? 1 : (unsigned)-1;
    if (u->started && !u->stopping && (up ? p->up == 1 : p->up == 0)) u->handlers.link(u->ctx, id, up);
}

/* ---- completing sends -------------------------------------------------------------------------------- */

void net_complete(struct env_uv *u, struct env_send *s, int status)
{
    s->status = status;
    list_push_back(&u->completed, &s->node);
    env_uv_defer(&u->env, &u->completer);
}

static void fail_queue(struct link *l)
{
    struct list *node;
    while ((node = list_pop_front(&l->queue)) != NULL)
        net_complete(l->u, container_of(node, struct env_send, node), ERR_CLOSED);
    l->queued = 0;
}

void net_send(struct env *e, struct env_send *s)
{
    struct env_uv *u = env_uv_of(e);
    struct peer *p = peer_get(u, s->peer_id);
    struct link *l = p ? p->links[s->channel] : NULL;
    s->size = 0;
    for (unsigned i = 0; i < s->n_iov; i++) s->size += s->iov[i].len;
    CHECK(s->size > 0 && s->size <= LIMIT_PEER_FRAME_BYTES);
    if (!l || !l->up) {
        net_complete(u, s, ERR_CLOSED);
    } else if (l->queued + l->conn.writing + s->size > LIMIT_PEER_QUEUE_BYTES) {
        net_complete(u, s, ERR_LIMIT);
    } else {
        list_push_back(&l->queue, &s->node);
        l->queued += s->size;
    }
}

void net_flush(struct env_uv *u)
{
    list_for_each(node, &u->links) {
        struct link *l = container_of(node, struct link, node);
        if (!l->up || list_empty(&l->queue)) continue;
        l->queued = 0;
        conn_write_sends(&l->conn, &l->queue);
    }
}

/* ---- outgoing ------------------------------------------------------------------------------------------ */

static void link_connect(struct link *l);

static void on_retry(uv_timer_t *t)
{
    link_connect(t->data);
}

static void link_retry(struct link *l)
{
    if (l->forgotten || l->u->stopping) return;
    l->pause_ms = l->pause_ms ? l->pause_ms * 2 : RETRY_FIRST_MS;
    if (l->pause_ms > RETRY_LAST_MS) l->pause_ms = RETRY_LAST_MS;
    uv_timer_start(&l->retry, on_retry, l->pause_ms, 0);
}

static void link_free(uv_handle_t *h)
{
    struct link *l = h->data;
    struct env_uv *u = l->u;
    buf_release(&l->in);
    mem_free(l);
    env_uv_handle_closed(u);
}

static void link_drop(struct link *l)
{
    if (!l->forgotten || l->active || l->resolving) return;
    list_remove(&l->node);
    uv_close((uv_handle_t *)&l->retry, link_free);
}

static void link_on_up(struct conn *c)
{
    struct link *l = container_of(c, struct link, conn);
    const struct env_uv *u = l->u;
    struct buf out = {0};
    struct hello h = {.channel = (uint32_t)l->channel,
                      .cluster_id = u->options.cluster_id,
                      .from = u->options.id,
                      .to = l->peer_id,
                      .instance = u->instance,
                      .known = u->handlers.known ? u->handlers.known(u->ctx) : 0};
    hello_encode(&out, &h);
    conn_write(c, buf_slice(&out));
    buf_release(&out);
}

/* What is final is told; the rest may be otherwise the next time. */
static void link_refused(struct link *l, uint32_t status)
{
    struct env_uv *u = l->u;
    uint64_t now = clock_mono_ms();
    if (status != WELCOME_TWICE) l->twice_ms = 0;
    else if (l->twice_ms == 0) l->twice_ms = now;
    conn_close(&l->conn, "refused: %s", welcome_text(status));
    if (!u->handlers.refused || u->stopping) return;
    if (status == WELCOME_REMOVED) u->handlers.refused(u->ctx, l->peer_id, ERR_REMOVED);
    if (l->twice_ms && now - l->twice_ms >= TWICE_MS) u->handlers.refused(u->ctx, l->peer_id, ERR_EXISTS);
}

static void link_welcome(struct link *l)
{
    struct welcome w;
    if (!welcome_decode(buf_slice(&l->in), &w)) {
        conn_close(&l->conn, "no Pintle member answers there");
    } else if (w.status != WELCOME_OK) {
        link_refused(l, w.status);
    } else if (w.id != l->peer_id) {
        conn_close(&l->conn, "another member answers there: %llx", (unsigned long long)w.id);
    } else {
        l->up = true;
        l->pause_ms = 0;
        l->twice_ms = 0;
        l->told = false;
        peer_link_changed(l->u, l->peer_id, true);
    }
}

static void link_on_read(struct conn *c, struct slice bytes)
{
    struct link *l = container_of(c, struct link, conn);
    if (l->up || l->in.len + bytes.len > WELCOME_BYTES) {
        conn_close(c, "unexpected bytes from the peer");
        return;
    }
    buf_append_slice(&l->in, bytes);
    if (l->in.len == WELCOME_BYTES) link_welcome(l);
}

static void link_on_closed(struct conn *c, const char *reason)
{
    struct link *l = container_of(c, struct link, conn);
    bool was_up = l->up;
    l->up = l->active = false;
    fail_queue(l);
    if (!l->forgotten && !l->u->stopping && !l->told) {
        log_info("raft: no connection to peer=%llx address=%s:%d channel=%d: %s", (unsigned long long)l->peer_id,
                 l->host, l->port, (int)l->channel, reason);
        l->told = true; /* once, until it has been up again */
    }
    if (was_up) peer_link_changed(l->u, l->peer_id, false);
    link_retry(l);
    link_drop(l);
}

static const struct conn_events link_events = {link_on_up, link_on_read, link_on_closed};

static void link_dial(struct link *l, const struct sockaddr *addr)
{
    buf_clear(&l->in);
    if (conn_init(&l->conn, l->u, &link_events) != 0) {
        link_retry(l);
        return;
    }
    l->active = true;
    l->began_ms = clock_mono_ms();
    if (conn_connect(&l->conn, addr, l->host) != 0) return; /* `closed` follows */
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct link *l = container_of(req, struct link, resolve);
    l->resolving = false;
    if (status == 0 && !l->forgotten && !l->u->stopping) link_dial(l, res->ai_addr);
    else link_retry(l);
    uv_freeaddrinfo(res);
    link_drop(l);
    env_uv_maybe_stopped(l->u);
}

static void link_connect(struct link *l)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    if (l->forgotten || l->active || l->u->stopping) return;
    if (uv_ip4_addr(l->host, l->port, &v4) == 0) {
        link_dial(l, (const struct sockaddr *)&v4);
    } else if (uv_ip6_addr(l->host, l->port, &v6) == 0) {
        link_dial(l, (const struct sockaddr *)&v6);
    } else {
        char port[16];
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
        snprintf(port, sizeof(port), "%d", l->port);
        l->resolving = uv_getaddrinfo(l->u->loop, &l->resolve, on_resolved, l->host, port, &hints) == 0;
        if (!l->resolving) link_retry(l);
    }
}

static struct link *link_new(struct env_uv *u, uint64_t peer_id, enum env_channel channel, const struct url *url)
{
    struct link *l = mem_must_calloc(1, sizeof(*l));
    l->u = u;
    l->peer_id = peer_id;
    l->channel = channel;
    memcpy(l->host, url->host, sizeof(l->host));
    l->port = url->port;
    buf_init(&l->in, WELCOME_BYTES);
    list_init(&l->queue);
    uv_timer_init(u->loop, &l->retry);
    l->retry.data = l;
    u->open_handles++;
    list_push_back(&u->links, &l->node);
    return l;
}

static void link_forget(struct link *l)
{
    l->forgotten = true;
    uv_timer_stop(&l->retry);
    if (l->active) conn_close(&l->conn, "the peer was removed");
    link_drop(l);
}

/* Of a peer that is one no more, or of somebody who becomes one: its end is that of no link. */
static void close_inbound(struct env_uv *u, uint64_t peer_id, const char *why)
{
    list_for_each(node, &u->inbound) {
        struct inbound *in = container_of(node, struct inbound, node);
        if (in->peer_id != peer_id) continue;
        in->greeted = false;
        conn_close(&in->conn, "%s", why);
    }
}

int net_set_peer(struct env *e, uint64_t peer_id, const char *text)
{
    struct env_uv *u = env_uv_of(e);
    struct url url;
    if (text && (url_parse(text, &url, NULL) != 0 || url.tls != (u->client_tls != NULL))) return ERR_INVALID;
    if (peer_id == u->options.id) return 0;
    struct peer *p = map_remove(&u->peers, peer_id);
    bool is_new = !p;
    unsigned still_up = p ? p->up : 0; /* they are counted off as they close */
    if (p) {
        for (int i = 0; i < ENV_CHANNELS; i++) link_forget(p->links[i]);
        mem_free(p);
    }
    if (!text || is_new) close_inbound(u, peer_id, text ? "it was no peer until now" : "the peer was removed");
    if (!text) return 0;
    p = mem_must_calloc(1, sizeof(*p));
    p->id = peer_id;
    p->up = still_up;
    map_put(&u->peers, peer_id, p);
    for (int i = 0; i < ENV_CHANNELS; i++) {
        p->links[i] = link_new(u, peer_id, (enum env_channel)i, &url);
        if (u->started) link_connect(p->links[i]);
    }
    return 0;
}

/* ---- incoming -------------------------------------------------------------------------------------------- */

static void welcome(struct inbound *in, enum welcome_status status)
{
    struct buf out = {0};
    welcome_encode(&out, &(struct welcome){status, in->u->options.cluster_id, in->u->options.id});
    conn_write(&in->conn, buf_slice(&out));
    buf_release(&out);
}

/* Somebody who is nobody yet asks who the members are. */
static void answer_question(struct inbound *in)
{
    struct env_uv *u = in->u;
    struct buf body = {0}, out = {0};
    bool known = u->started && u->handlers.describe && u->handlers.describe(u->ctx, &body) && !body.failed;
    welcome(in, known ? WELCOME_OK : WELCOME_NO_ANSWER);
    if (known) {
        buf_append_u32(&out, (uint32_t)body.len);
        buf_append_u32(&out, crc32c(0, body.data, body.len));
        buf_append_slice(&out, buf_slice(&body));
        conn_write(&in->conn, buf_slice(&out));
    }
    buf_release(&out);
    buf_release(&body);
}

/* Whether another live process speaks under the same id on that channel; a dead one's connection is closed. */
static bool spoken_for(struct inbound *in)
{
    uint64_t now = clock_mono_ms();
    list_for_each(node, &in->u->inbound) {
        struct inbound *other = container_of(node, struct inbound, node);
        if (other == in || !other->greeted || other->conn.closing || other->peer_id != in->peer_id ||
            other->channel != in->channel)
            continue;
        if (other->instance != in->instance && now - other->last_ms < SAME_ID_SILENCE_MS) return true;
        conn_close(&other->conn, "replaced by a newer connection");
    }
    return false;
}

static enum welcome_status judge(struct inbound *in, const struct hello *h)
{
    const struct env_uv *u = in->u;
    if (h->version != HELLO_VERSION || in->channel >= ENV_CHANNELS) return WELCOME_VERSION;
    if (h->cluster_id != u->options.cluster_id) return WELCOME_CLUSTER;
    if (in->peer_id == u->options.id) return WELCOME_OWN_ID;
    if (h->to != u->options.id) return WELCOME_WRONG_TARGET;
    if (!peer_get(u, in->peer_id)) {
        enum env_stranger s = ENV_STRANGER_UNKNOWN;
        if (u->started && u->handlers.stranger) s = u->handlers.stranger(u->ctx, in->peer_id, h->known);
        if (s != ENV_STRANGER_HEARD) return s == ENV_STRANGER_REMOVED ? WELCOME_REMOVED : WELCOME_UNKNOWN;
    }
    return spoken_for(in) ? WELCOME_TWICE : WELCOME_OK;
}

static const char *refusal_text(enum welcome_status status)
{
    switch (status) {
    case WELCOME_VERSION: return "peer protocol version not supported";
    case WELCOME_CLUSTER: return "it is of another cluster (cluster ID mismatch)";
    case WELCOME_UNKNOWN: return "it is not a member of this cluster";
    case WELCOME_WRONG_TARGET: return "it wants another member";
    case WELCOME_REMOVED: return "it was removed from the cluster";
    case WELCOME_OWN_ID: return "it has our own member ID";
    default: return "another process already runs under this member ID";
    }
}

static void inbound_hello(struct inbound *in)
{
    struct hello h;
    if (!hello_decode(slice_sub(buf_slice(&in->in), 0, HELLO_BYTES), &h)) {
        conn_close(&in->conn, "no hello of a Pintle member");
        return;
    }
    if (h.version == HELLO_VERSION && h.channel == HELLO_CHANNEL_ASK) {
        answer_question(in); /* who asked closes the connection, or is closed in a moment */
        in->asked = true;
        return;
    }
    in->channel = (enum env_channel)h.channel;
    in->peer_id = h.from;
    in->instance = h.instance;
    enum welcome_status status = judge(in, &h);
    welcome(in, status);
    if (status != WELCOME_OK) {
        uint64_t id = in->peer_id;
        in->peer_id = 0;
        conn_close(&in->conn, "refused peer=%llx: %s", (unsigned long long)id, refusal_text(status));
        return;
    }
    in->greeted = true;
    in->last_ms = clock_mono_ms();
    peer_link_changed(in->u, in->peer_id, true);
}

/* Handles what is whole at the front of `bytes`; how much that was. */
static size_t inbound_frames(struct inbound *in, struct slice bytes)
{
    size_t used = 0;
    while (!in->conn.closing && bytes.len - used >= FRAME_HEADER_BYTES) {
        struct reader r = reader_make(slice_sub(bytes, used, FRAME_HEADER_BYTES));
        uint32_t len = reader_u32(&r), crc = reader_u32(&r);
        if (len > LIMIT_PEER_FRAME_BYTES) {
            conn_close(&in->conn, "a frame of %u bytes is over the limit", len);
            break;
        }
        if (bytes.len - used - FRAME_HEADER_BYTES < len) break;
        struct slice frame = slice_sub(bytes, used + FRAME_HEADER_BYTES, len);
        used += FRAME_HEADER_BYTES + len;
        if (crc32c(0, frame.data, frame.len) != crc) {
            conn_close(&in->conn, "a frame has a wrong checksum");
            break;
        }
        if (len && !in->u->stopping) in->u->handlers.frame(in->u->ctx, in->peer_id, in->channel, frame);
    }
    return used;
}

static void inbound_on_up(struct conn *c)
{
    (void)c;
}

static void inbound_on_read(struct conn *c, struct slice bytes)
{
    struct inbound *in = container_of(c, struct inbound, conn);
    if (in->asked) {
        conn_close(c, "something follows a question");
        return;
    }
    if (in->greeted) in->last_ms = clock_mono_ms(); /* who says nothing of itself has no time but the one it began with */
    if (in->greeted && in->in.len == 0) {
        size_t used = inbound_frames(in, bytes);
        bytes = slice_sub(bytes, used, bytes.len);
        if (!bytes.len || c->closing) return;
    }
    if (buf_append_slice(&in->in, bytes) != 0) {
        conn_close(c, "more bytes than a frame may have");
        return;
    }
    if (!in->greeted) {
        if (in->in.len < HELLO_BYTES) return;
        inbound_hello(in);
        if (c->closing) return;
        buf_consume(&in->in, HELLO_BYTES);
        if (in->asked && in->in.len) conn_close(c, "something follows a question");
        if (in->asked) return;
    }
    size_t used = inbound_frames(in, buf_slice(&in->in));
    buf_consume(&in->in, used);
    if (in->in.len == 0 && in->in.size > LIMIT_MiB) buf_release(&in->in);
}

static void inbound_on_closed(struct conn *c, const char *reason)
{
    struct inbound *in = container_of(c, struct inbound, conn);
    struct env_uv *u = in->u;
    if (!u->stopping)
        log_info("raft: peer connection closed from=%s peer=%llx: %s", c->address, (unsigned long long)in->peer_id,
                 reason);
    if (in->greeted) peer_link_changed(u, in->peer_id, false);
    list_remove(&in->node);
    u->n_inbound--;
    buf_release(&in->in);
    mem_free(in);
}

static const struct conn_events inbound_events = {inbound_on_up, inbound_on_read, inbound_on_closed};

/* Room for the newest: who has been silent for longest goes, unless all are members. */
static void close_silent(struct env_uv *u)
{
    list_for_each(node, &u->inbound) {
        struct inbound *in = container_of(node, struct inbound, node);
        if (in->greeted || in->conn.closing) continue;
        conn_close(&in->conn, "too many peer connections");
        return;
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct env_uv *u = listener->data;
    if (status != 0 || u->stopping) return;
    struct inbound *in = mem_must_calloc(1, sizeof(*in));
    in->u = u;
    in->last_ms = clock_mono_ms();
    buf_init(&in->in, 2 * LIMIT_PEER_FRAME_BYTES);
    list_push_back(&u->inbound, &in->node);
    u->n_inbound++;
    if (conn_init(&in->conn, u, &inbound_events) != 0) log_fatal("raft: out of memory");
    if (conn_accept(&in->conn, listener) != 0) return; /* `closed` follows */
    if (u->n_inbound > LIMIT_PEER_CONNECTIONS) close_silent(u);
}

/* ---- once a second ---------------------------------------------------------------------------------------- */

void net_second(struct env_uv *u)
{
    static const uint8_t sign_of_life[FRAME_HEADER_BYTES];
    uint64_t now = clock_mono_ms();
    list_for_each(node, &u->links) {
        struct link *l = container_of(node, struct link, node);
        if (l->up && l->conn.writing == 0) conn_write(&l->conn, slice_make(sign_of_life, sizeof(sign_of_life)));
        else if (l->active && !l->up && now - l->began_ms > HELLO_TIMEOUT_MS)
            conn_close(&l->conn, "no answer within %d ms", HELLO_TIMEOUT_MS);
    }
    list_for_each(node, &u->inbound) {
        struct inbound *in = container_of(node, struct inbound, node);
        uint64_t silent = now - in->last_ms;
        if (silent > (in->greeted ? SILENCE_MS : HELLO_TIMEOUT_MS)) conn_close(&in->conn, "silent for %llu ms", (unsigned long long)silent);
    }
}

/* ---- opening and closing ------------------------------------------------------------------------------------ */

static void on_listener_closed(uv_handle_t *h)
{
    env_uv_handle_closed(h->data);
}

static int resolve_now(const struct url *url, struct sockaddr_storage *ret, struct err *e)
{
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *res = NULL;
    snprintf(port, sizeof(port), "%d", url->port);
    int rv = getaddrinfo(url->host, port, &hints, &res);
    if (rv != 0) return err_set(e, ERR_INVALID, "cannot resolve %s: %s", url->host, gai_strerror(rv));
    memcpy(ret, res->ai_addr, res->ai_addrlen);
    freeaddrinfo(res);
    return 0;
}

int net_open(struct env_uv *u, struct err *e)
{
    struct url url;
    struct sockaddr_storage addr;
    if (!u->options.listen_url) return 0; /* offline: no peers */
    int rv = url_parse(u->options.listen_url, &url, e);
    if (rv != 0) return rv;
    if (url.tls && (rv = peer_tls_open(u, e)) != 0) return rv;
    if ((rv = resolve_now(&url, &addr, e)) != 0) return rv;
    uv_tcp_init(u->loop, &u->listener);
    u->listener.data = u;
    u->listener_open = true;
    u->open_handles++;
    rv = uv_tcp_bind(&u->listener, (const struct sockaddr *)&addr, 0);
    if (rv == 0) rv = uv_listen((uv_stream_t *)&u->listener, 128, on_connection);
    if (rv == UV_EADDRINUSE)
        return err_set(e, ERR_EXISTS, "address already in use: %s:%d (--listen-peer-urls)", url.host, url.port);
    if (rv != 0) return err_set(e, ERR_IO, "cannot listen on %s:%d: %s", url.host, url.port, uv_strerror(rv));
    return 0;
}

int net_start(struct env_uv *u)
{
    list_for_each(node, &u->links) link_connect(container_of(node, struct link, node));
    return 0;
}

void net_stop(struct env_uv *u)
{
    if (u->listener_open) {
        u->listener_open = false;
        uv_close((uv_handle_t *)&u->listener, on_listener_closed);
    }
    list_for_each(node, &u->links) {
        struct link *l = container_of(node, struct link, node);
        uv_timer_stop(&l->retry);
        fail_queue(l);
        if (l->active) conn_close(&l->conn, "stopping");
    }
    list_for_each(node, &u->inbound) conn_close(&container_of(node, struct inbound, node)->conn, "stopping");
}

bool net_active(const struct env_uv *u)
{
    if (!list_empty(&u->completed) || u->n_inbound > 0) return true;
    list_for_each(node, &u->links)
        if (container_of(node, struct link, node)->active) return true;
    return false;
}

void net_close(struct env_uv *u)
{
    size_t at = 0;
    struct peer *p;
    net_stop(u);
    while ((p = map_next(&u->peers, &at)) != NULL) {
        for (int i = 0; i < ENV_CHANNELS; i++) link_forget(p->links[i]);
        mem_free(p);
    }
    map_release(&u->peers);
}
