/* The simulated network: for each direction and channel one connection that is up or down, a
 * sender's queue, and frames in flight. */
#include <string.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "env_sim_int.h"

enum {
    STALLED_BYTES_MAX = 64 * 1024, /* what the kernels buffer before the sender's queue stands still */
    TWICE_US = 10000000            /* of refusals because another process runs under the same id, until that is final */
};

static struct sim_conn *conn_at(struct sim *s, uint64_t from, uint64_t to, int channel)
{
    return &s->paths[from][to].conns[channel];
}

/* The member's code, if it takes part in the network. */
static struct sim_env *listener(struct sim *s, uint64_t id)
{
    struct sim_env *e = s->members[id].env;
    return e && e->started && !e->stopping && !e->zombie ? e : NULL;
}

static size_t send_bytes(const struct env_send *send)
{
    size_t n = 0;
    for (unsigned i = 0; i < send->n_iov; i++) n += send->iov[i].len;
    return n;
}

static void frame_free(struct sim_frame *f)
{
    list_remove(&f->node);
    mem_free(f);
}

/* ---- a send comes to its end
 * --------------------------------------------------------------------- */

static void run_send_failed(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)s, (void)number;
    struct env_send *send = arg;
    e->sends--;
    send->done(send);
    sim_env_settle(e);
}

static void send_fails(struct sim_env *e, struct env_send *send, int status)
{
    send->status = status;
    sim_schedule(e->sim, 0, "fail-send", e, run_send_failed, send, send->peer_id);
}

/* ---- up and down
 * --------------------------------------------------------------------------------- */

static void run_link(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)arg;
    if (listener(s, e->member->id) != e || !e->handlers.link) return;
    e->handlers.link(e->handlers_ctx, number >> 1, number & 1);
}

/* The id under which a process is known to others. */
static uint64_t voice(struct sim *s, uint64_t id)
{
    return s->members[id].speaks_as;
}

/* Between a member and all that speak as `b` does, in both directions and on all channels. */
static unsigned connections(struct sim *s, uint64_t a, uint64_t b)
{
    unsigned n = 0;
    for (uint64_t o = 1; o <= s->options.members; o++)
        for (int ch = 0; ch < ENV_CHANNELS && voice(s, o) == voice(s, b); ch++)
            n += conn_at(s, a, o, ch)->up + conn_at(s, o, a, ch)->up;
    return n;
}

/* As env_uv: of the first one that comes up, and of the last one that goes down. */
static void tell_link(struct sim *s, const struct sim_conn *c, bool up)
{
    struct sim_env *from = listener(s, c->from), *to = listener(s, c->to);
    if (from && connections(s, c->from, c->to) == up) sim_schedule(s, 0, "link", from, run_link, NULL, c->to << 1 | up);
    if (to && connections(s, c->to, c->from) == up) sim_schedule(s, 0, "link", to, run_link, NULL, voice(s, c->from) << 1 | up);
}

static void run_attempt(struct sim *s, struct sim_env *e, void *arg, uint64_t generation);

/* Tries to connect after a back-off, if the sender still wants to. */
static void attempt_later(struct sim *s, struct sim_conn *c)
{
    struct sim_env *e = listener(s, c->from);
    c->generation++;
    if (!e || !e->peers[c->to]) return;
    const struct sim_net_options *o = &s->options.net;
    uint64_t us = sim_random_range(&s->net_random, o->connect_min_us, o->connect_max_us);
    sim_schedule(s, us, "connect", e, run_attempt, c, c->generation);
}

static void run_refused(struct sim *s, struct sim_env *e, void *arg, uint64_t by)
{
    if (listener(s, e->member->id) != e || !e->handlers.refused) return;
    e->handlers.refused(e->handlers_ctx, by, (int)(intptr_t)arg);
}

static void refuse(struct sim *s, struct sim_env *from, uint64_t by, int error)
{
    sim_trace_line(s, "m%d refuses m%d: %s", (int)by, (int)from->member->id, err_name(error));
    sim_schedule(s, 0, "refused", from, run_refused, (void *)(intptr_t)error, by);
}

/* `to` does not know `from` as a peer. It may know that `from` was removed, or want to hear it. */
static bool hears_stranger(struct sim *s, struct sim_env *from, struct sim_env *to)
{
    const struct env_handlers *f = &from->handlers, *t = &to->handlers;
    uint64_t known = f->known ? f->known(from->handlers_ctx) : 0;
    uint64_t id = voice(s, from->member->id);
    enum env_stranger is = t->stranger ? t->stranger(to->handlers_ctx, id, known) : ENV_STRANGER_UNKNOWN;
    if (is == ENV_STRANGER_REMOVED) refuse(s, from, to->member->id, ERR_REMOVED);
    return is == ENV_STRANGER_HEARD;
}

static void conn_down(struct sim *s, struct sim_conn *c, struct sim_env *sender, bool keep_some);

/* Whether another process speaks under the same id on that channel; one that is silent loses its connection. (Real ones
 * are given three seconds.) */
static bool spoken_for(struct sim *s, const struct sim_conn *c)
{
    for (uint64_t o = 1; o <= s->options.members; o++) {
        struct sim_conn *other = conn_at(s, o, c->to, c->channel);
        if (o == c->from || voice(s, o) != voice(s, c->from) || !other->up) continue;
        struct sim_env *e = listener(s, o);
        if (e && e->member->paused_until_us <= s->now_us && !s->paths[o][c->to].cut) return true;
        conn_down(s, other, s->members[o].env, false);
    }
    return false;
}

/* As env_uv: after ten seconds of it, it is told for good. */
static bool is_twin(struct sim *s, struct sim_env *from, struct sim_conn *c)
{
    if (!spoken_for(s, c)) return false;
    if (!c->twice_us) c->twice_us = s->now_us;
    if (s->now_us - c->twice_us >= TWICE_US) refuse(s, from, c->to, ERR_EXISTS);
    return true;
}

void sim_speak_as(struct sim *s, uint64_t id, uint64_t as)
{
    sim_member(s, id)->speaks_as = as;
}

static bool listens_at(const struct sim_member *m, uint32_t url)
{
    return !m->listens[0] || m->listens[0] == url || m->listens[1] == url;
}

void sim_listen(struct sim *s, uint64_t id, const char *url, const char *other_url)
{
    struct sim_member *m = sim_member(s, id);
    m->listens[0] = url ? crc32c(1, url, strlen(url)) : 0;
    m->listens[1] = other_url ? crc32c(1, other_url, strlen(other_url)) : 0;
}

bool sim_ask(struct sim *s, uint64_t id, struct buf *out)
{
    struct sim_env *e = listener(s, id);
    return e && e->handlers.describe && e->handlers.describe(e->handlers_ctx, out);
}

static void run_attempt(struct sim *s, struct sim_env *e, void *arg, uint64_t generation)
{
    struct sim_conn *c = arg;
    if (c->generation != generation || listener(s, c->from) != e || !e->peers[c->to]) return;
    struct sim_env *to = listener(s, c->to);
    bool reached = to && listens_at(to->member, e->urls[c->to]) && !s->paths[c->from][c->to].cut && !s->paths[c->to][c->from].cut;
    bool peer = to && to->peers[voice(s, c->from)];
    if (!reached || !(peer || hears_stranger(s, e, to)) || is_twin(s, e, c)) {
        attempt_later(s, c);
        return;
    }
    c->stranger = !peer;
    c->twice_us = 0;
    c->generation++;
    c->up = true;
    sim_trace_line(s, "link m%d->m%d.%d up", (int)c->from, (int)c->to, (int)c->channel);
    tell_link(s, c, true);
}

/* Loses the connection: what waits fails, and of what is in flight a suffix (or all) is lost. */
static void conn_down(struct sim *s, struct sim_conn *c, struct sim_env *sender, bool keep_some)
{
    if (!c->up) return;
    sim_trace_line(s, "link m%d->m%d.%d down", (int)c->from, (int)c->to, (int)c->channel);
    s->stats.resets++;
    c->up = c->sending = false;
    c->queued_bytes = c->stalled_bytes = 0;
    for (struct list *n; (n = list_pop_front(&c->queue));) {
        send_fails(sender, container_of(n, struct env_send, node), ERR_CLOSED);
    }
    uint64_t n = 0, keep;
    list_for_each(node, &c->in_flight) n++;
    keep = keep_some ? sim_random_below(&s->net_random, n + 1) : 0;
    list_for_each(node, &c->in_flight)
    {
        if (keep) {
            keep--;
            continue;
        }
        container_of(node, struct sim_frame, node)->lost = true;
        s->stats.frames_lost++;
    }
    list_for_each(node, &c->stalled)
    {
        frame_free(container_of(node, struct sim_frame, node));
        s->stats.frames_lost++;
    }
    tell_link(s, c, false);
    attempt_later(s, c);
}

/* The member's own connections, and those to it. */
void sim_net_down(struct sim *s, struct sim_env *e)
{
    uint64_t id = e->member->id;
    for (uint64_t other = 1; other <= s->options.members; other++) {
        for (int ch = 0; ch < ENV_CHANNELS; ch++) {
            conn_down(s, conn_at(s, id, other, ch), e, true);
            struct sim_env *sender = s->members[other].env;
            if (other != id) conn_down(s, conn_at(s, other, id, ch), sender, false);
        }
    }
}

void sim_net_started(struct sim_env *e)
{
    for (uint64_t to = 1; to <= e->sim->options.members; to++) {
        for (int ch = 0; ch < ENV_CHANNELS; ch++) {
            struct sim_conn *c = conn_at(e->sim, e->member->id, to, ch);
            c->twice_us = 0;
            attempt_later(e->sim, c);
        }
    }
}

int sim_net_set_peer(struct env *base, uint64_t peer_id, const char *url)
{
    struct sim_env *e = sim_env_of(base);
    struct sim *s = e->sim;
    uint64_t id = e->member->id;
    if (url && strncmp(url, "http://", 7) != 0) return ERR_INVALID; /* the members do not speak TLS */
    if (peer_id < 1 || peer_id > s->options.members || peer_id == id)
        return 0; /* nobody is there */
    uint32_t hash = url ? crc32c(1, url, strlen(url)) : 0;
    bool was = e->peers[peer_id], known = was && e->urls[peer_id] == hash;
    e->peers[peer_id] = url != NULL;
    e->urls[peer_id] = hash;
    if (e->zombie) return 0;
    for (int ch = 0; ch < ENV_CHANNELS; ch++) {
        struct sim_conn *out = conn_at(s, id, peer_id, ch);
        if (url && !known && e->started) {
            conn_down(s, out, e, true); /* it has moved */
            attempt_later(s, out);
        }
        if (url && was) continue;
        if (!url) conn_down(s, out, e, true);
        for (uint64_t o = 1; o <= s->options.members; o++)
            if (voice(s, o) == peer_id) conn_down(s, conn_at(s, o, id, ch), s->members[o].env, false);
    }
    return 0;
}

/* ---- frames
 * -------------------------------------------------------------------------------------- */

static void run_arrive(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)number;
    struct sim_frame *f = arg;
    const struct sim_conn *c = f->conn;
    bool heard = !f->lost && listener(s, c->to) == e && e->incarnation == f->incarnation &&
                 (e->peers[voice(s, c->from)] || c->stranger);
    if (heard) {
        struct slice bytes = slice_make(f->bytes, f->len);
        uint32_t crc = crc32c(0, f->bytes, f->len);
        sim_mix(s, &crc, sizeof crc);
        if (s->moment) s->moment(s->moment_ctx, SIM_HEARS, c->to, c->from, bytes, 0, NULL);
        e->handlers.frame(e->handlers_ctx, voice(s, c->from), c->channel, bytes);
    }
    frame_free(f);
}

static void frame_flies(struct sim *s, struct sim_conn *c, struct sim_frame *f)
{
    struct sim_env *to = listener(s, c->to);
    if (!to) {
        s->stats.frames_lost++;
        frame_free(f);
        return;
    }
    const struct sim_net_options *o = &s->options.net;
    struct sim_random *r = &s->net_random;
    uint64_t us = sim_random_range(r, o->latency_min_us, o->latency_max_us) +
                  s->paths[c->from][c->to].delay_us;
    if (sim_chance(r, o->spike_ppm)) us += sim_random_below(r, (uint64_t)o->spike_us + 1);
    uint64_t at = s->now_us + us;
    if (sim_chance(r, o->reorder_ppm)) {
        at += sim_random_below(r, 20000); /* without holding up what comes behind it */
        s->stats.frames_reordered++;
    } else {
        if (at < c->last_arrival_us) at = c->last_arrival_us;
        c->last_arrival_us = at;
    }
    f->incarnation = to->incarnation;
    list_remove(&f->node);
    list_push_back(&c->in_flight, &f->node);
    sim_schedule(s, at - s->now_us, "frame", to, run_arrive, f, c->from << 32 | (uint64_t)f->len);
}

/* One line for each frame that says something else than the one before it on this way. */
static void tell_frame(struct sim *s, const struct sim_conn *c, const struct sim_frame *f)
{
    char text[256];
    struct sim_path *p = &s->paths[c->from][c->to];
    if (!s->trace || !s->describe || !s->describe(slice_make(f->bytes, f->len), text, sizeof text))
        return;
    uint64_t hash = crc32c(0, text, strlen(text)) + 1;
    if (hash == p->told) return;
    p->told = hash;
    sim_trace_line(s, "m%d -> m%d: %s%s", (int)c->from, (int)c->to, text,
                   p->cut ? " (stuck: the way is cut)" : "");
}

static struct sim_frame *frame_new(struct sim_conn *c, const struct env_send *send)
{
    size_t len = send_bytes(send), at = 0;
    struct sim_frame *f = mem_must_alloc(sizeof *f + len);
    *f = (struct sim_frame){.conn = c, .len = len};
    list_init(&f->node);
    for (unsigned i = 0; i < send->n_iov; i++) {
        if (send->iov[i].len) memcpy(f->bytes + at, send->iov[i].data, send->iov[i].len);
        at += send->iov[i].len;
    }
    return f;
}

static void frame_enters(struct sim *s, struct sim_conn *c, const struct env_send *send)
{
    const struct sim_net_options *o = &s->options.net;
    s->stats.frames++;
    unsigned copies = sim_chance(&s->net_random, o->duplicate_ppm) ? 2 : 1;
    if (copies == 2) s->stats.frames_duplicated++;
    if (sim_chance(&s->net_random, o->drop_ppm)) copies = 0;
    for (; copies > 0; copies--) {
        struct sim_frame *f = frame_new(c, send);
        tell_frame(s, c, f);
        if (s->moment)
            s->moment(s->moment_ctx, SIM_SENDS, c->from, c->to, slice_make(f->bytes, f->len), 0, NULL);
        if (s->look &&
            !s->look(s->look_ctx, c->from, c->to, c->channel, slice_make(f->bytes, f->len))) {
            s->stats.frames_lost++;
            frame_free(f);
        } else if (s->paths[c->from][c->to].cut) {
            list_push_back(&c->stalled, &f->node);
            c->stalled_bytes += f->len;
        } else {
            frame_flies(s, c, f);
        }
    }
}

static void conn_sends(struct sim *s, struct sim_conn *c);

static void run_sent(struct sim *s, struct sim_env *e, void *arg, uint64_t generation)
{
    struct sim_conn *c = arg;
    if (c->generation != generation || !c->up) return;
    struct env_send *send = container_of(list_pop_front(&c->queue), struct env_send, node);
    c->queued_bytes -= send->size;
    c->sending = false;
    frame_enters(s, c, send);
    if (sim_chance(&s->net_random, s->options.net.reset_ppm)) conn_down(s, c, e, true);
    else conn_sends(s, c);
    e->sends--;
    send->status = 0;
    send->done(send);
    sim_env_settle(e);
}

static void conn_sends(struct sim *s, struct sim_conn *c)
{
    if (!c->up || c->sending || list_empty(&c->queue)) return;
    if (s->paths[c->from][c->to].cut && c->stalled_bytes >= STALLED_BYTES_MAX) return;
    const struct env_send *send = container_of(c->queue.next, struct env_send, node);
    unsigned speed = s->options.net.bytes_per_us;
    c->sending = true;
    sim_schedule(s, 1 + (speed ? send->size / speed : 0), "sent", s->members[c->from].env, run_sent,
                 c, c->generation);
}

void sim_net_send(struct env *base, struct env_send *send)
{
    struct sim_env *e = sim_env_of(base);
    struct sim *s = e->sim;
    uint64_t to = send->peer_id;
    CHECK(!e->stopped && send->n_iov <= ENV_IOV_MAX && (unsigned)send->channel < ENV_CHANNELS);
    e->sends++;
    send->size = send_bytes(send);
    struct sim_conn *c = to >= 1 && to <= s->options.members
                             ? conn_at(s, e->member->id, to, (int)send->channel)
                             : NULL;
    if (e->zombie || e->stopping || !c || !c->up) {
        send_fails(e, send, ERR_CLOSED);
        return;
    }
    size_t most = s->options.net.queue_bytes;
    if (most && c->queued_bytes + send->size > most) {
        send_fails(e, send, ERR_LIMIT);
        return;
    }
    c->queued_bytes += send->size;
    list_push_back(&c->queue, &send->node);
    conn_sends(s, c);
}

/* ---- what tests do to links
 * ---------------------------------------------------------------------- */

static void run_stall_limit(struct sim *s, struct sim_env *e, void *arg, uint64_t generation)
{
    struct sim_conn *c = arg;
    if (c->generation == generation && c->up && s->paths[c->from][c->to].cut &&
        listener(s, c->from) == e) {
        conn_down(s, c, e, false);
    }
}

void sim_cut(struct sim *s, uint64_t from, uint64_t to, bool reset)
{
    struct sim_path *p = &s->paths[from][to];
    if (from == to) return;
    sim_trace_line(s, "cut m%d->m%d%s", (int)from, (int)to, reset ? " reset" : "");
    p->cut = true;
    for (int ch = 0; ch < ENV_CHANNELS; ch++) {
        struct sim_conn *c = &p->conns[ch];
        if (!c->up) continue;
        struct sim_env *e = s->members[from].env;
        if (reset) conn_down(s, c, e, true);
        else if (s->options.net.stall_limit_us) {
            sim_schedule(s, s->options.net.stall_limit_us, "stall", e, run_stall_limit, c,
                         c->generation);
        }
    }
}

void sim_heal(struct sim *s, uint64_t from, uint64_t to)
{
    struct sim_path *p = &s->paths[from][to];
    if (!p->cut) return;
    sim_trace_line(s, "heal m%d->m%d", (int)from, (int)to);
    p->cut = false;
    for (int ch = 0; ch < ENV_CHANNELS; ch++) {
        struct sim_conn *c = &p->conns[ch];
        c->stalled_bytes = 0;
        list_for_each(n, &c->stalled) frame_flies(s, c, container_of(n, struct sim_frame, node));
        conn_sends(s, c);
    }
}

void sim_heal_all(struct sim *s)
{
    for (uint64_t a = 1; a <= s->options.members; a++) {
        for (uint64_t b = 1; b <= s->options.members; b++) {
            s->paths[a][b].delay_us = 0;
            if (a != b) sim_heal(s, a, b);
        }
    }
}

void sim_reset(struct sim *s, uint64_t from, uint64_t to)
{
    for (int ch = 0; ch < ENV_CHANNELS; ch++) {
        conn_down(s, conn_at(s, from, to, ch), s->members[from].env, true);
        conn_down(s, conn_at(s, to, from, ch), s->members[to].env, true);
    }
}

void sim_partition(struct sim *s, uint64_t side, bool reset)
{
    for (uint64_t a = 1; a <= s->options.members; a++) {
        for (uint64_t b = 1; b <= s->options.members; b++) {
            if ((side >> a & 1) != (side >> b & 1)) sim_cut(s, a, b, reset);
        }
    }
}

void sim_link_delay(struct sim *s, uint64_t from, uint64_t to, uint64_t us)
{
    s->paths[from][to].delay_us = us;
}

void sim_net_init(struct sim *s)
{
    for (uint64_t a = 0; a <= SIM_MEMBERS_MAX; a++) {
        for (uint64_t b = 0; b <= SIM_MEMBERS_MAX; b++) {
            for (int ch = 0; ch < ENV_CHANNELS; ch++) {
                struct sim_conn *c = conn_at(s, a, b, ch);
                c->from = a;
                c->to = b;
                c->channel = (enum env_channel)ch;
                list_init(&c->queue);
                list_init(&c->in_flight);
                list_init(&c->stalled);
            }
        }
    }
}

void sim_net_release(struct sim *s)
{
    for (uint64_t a = 0; a <= SIM_MEMBERS_MAX; a++) {
        for (uint64_t b = 0; b <= SIM_MEMBERS_MAX; b++) {
            for (int ch = 0; ch < ENV_CHANNELS; ch++) {
                struct sim_conn *c = conn_at(s, a, b, ch);
                list_for_each(n, &c->in_flight) frame_free(container_of(n, struct sim_frame, node));
                list_for_each(n, &c->stalled) frame_free(container_of(n, struct sim_frame, node));
            }
        }
    }
}
