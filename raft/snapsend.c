/* Sending a snapshot: the file as it is, in chunks on the bulk channel, so that appends and probes
 * never wait behind it. It is offered first; the receiver says from which byte on it wants it, so
 * that a lost connection costs only what was on its way. Bytes in flight are bounded by the
 * receiver's acknowledgements. Without progress it is offered again, and after a while given up.
 *
 * libraft asks again and again for a peer that lags; the requests join the stream that is under
 * way, and are answered when libraft itself has seen the peer catch up, or when the stream has
 * failed. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "raft/snapshots_int.h"

static void sender_step(struct env_io *io);

static void sender_submit(struct snap_sender *s, enum env_io_op op)
{
    s->io_busy = true;
    bulk_io(s->c, &s->io, op, sender_step, s);
}

static void answer_waiters(struct snap_sender *s, int status)
{
    for (struct list *n; (n = list_pop_front(&s->waiters));) {
        struct snap_waiter *w = container_of(n, struct snap_waiter, node);
        io_complete_send(s->c, w->req, w->cb, status);
        mem_free(w);
    }
}

static void sender_free(struct snap_sender *s)
{
    struct consensus *c = s->c;
    list_remove(&s->node);
    mem_free(s->buffer);
    mem_free(s);
    consensus_snapshots_idle(c);
}

static struct frame sender_frame_of(const struct snap_sender *s, enum frame_kind kind)
{
    struct frame f = {.kind = kind};
    f.snapshot.id = s->id;
    f.snapshot.term = s->term;
    f.snapshot.index = s->index;
    f.snapshot.index_term = s->index_term;
    f.snapshot.size = s->size;
    return f;
}

/* Ends it: `status` for libraft, 0 if the peer has it (or another stream takes over). */
static void sender_stop(struct snap_sender *s, int status)
{
    if (!s->stop && status && !s->c->dead) {
        struct frame f = sender_frame_of(s, FRAME_SNAPSHOT_ABORT);
        f.snapshot.status = ERR_CANCELED;
        peers_send(s->c, s->peer_id, ENV_CHANNEL_BULK, &f);
    }
    s->stop = true;
    answer_waiters(s, status);
    if (s->io_busy) return;
    if (!s->file) return sender_free(s);
    s->io.file = s->file;
    s->file = NULL;
    sender_submit(s, ENV_IO_CLOSE);
}

static void offer(struct snap_sender *s)
{
    s->id = ++s->c->snapshots->next_stream_id;
    s->offered = true;
    s->streaming = false;
    s->offer_ms = consensus_now(s->c);
    struct frame f = sender_frame_of(s, FRAME_SNAPSHOT_OFFER);
    peers_send(s->c, s->peer_id, ENV_CHANNEL_BULK, &f);
}

static void read_next(struct snap_sender *s)
{
    if (s->io_busy || s->stop || !s->streaming || s->read >= s->size) return;
    if (s->read - s->acked >= SNAP_WINDOW_BYTES) return;
    uint64_t left = s->size - s->read;
    s->buffer = mem_must_alloc(SNAP_CHUNK_BYTES);
    s->io.file = s->file;
    s->io.offset = s->read;
    s->io.buffer = s->buffer;
    s->io.len = left < SNAP_CHUNK_BYTES ? (size_t)left : SNAP_CHUNK_BYTES;
    sender_submit(s, ENV_IO_READ);
}

static void send_chunk(struct snap_sender *s)
{
    if (!s->streaming || s->io.offset != s->read) { /* it was offered anew meanwhile */
        mem_free(s->buffer);
        s->buffer = NULL;
        return read_next(s);
    }
    struct frame f = sender_frame_of(s, FRAME_SNAPSHOT_CHUNK);
    f.snapshot.offset = s->io.offset;
    struct out_frame *o = out_new(s->c, s->peer_id, ENV_CHANNEL_BULK);
    frame_encode(&o->head, &f);
    o->payload = s->buffer;
    s->buffer = NULL;
    out_piece(o, slice_make(o->payload, s->io.ret_len));
    s->read += s->io.ret_len;
    out_send(o);
    read_next(s);
}

/* It cannot be read, or ends too early. */
static void sender_damaged(struct snap_sender *s, const char *why)
{
    struct err e;
    (void)err_set(&e, ERR_CORRUPT, "%s: %.180s", s->path, why);
    if (!s->stop && snap_kept(s->c, s->path)) scrub_found(s->c, s->path, e.text);
    if (s->c->dead) return consensus_snapshots_idle(s->c);
    sender_stop(s, RAFT_NOCONNECTION);
}

static void sender_step(struct env_io *io)
{
    struct snap_sender *s = io->data;
    struct consensus *c = s->c;
    s->io_busy = false;
    if (io->op == ENV_IO_OPEN && !io->status) s->file = io->file;
    if (io->op == ENV_IO_READ && !io->status && io->ret_len != io->len)
        io->status = err_set(&io->err, ERR_CORRUPT, "offset %" PRIu64 ": the file ends too early", io->offset + io->ret_len);
    if (io->status == ERR_CORRUPT && !c->dead) return sender_damaged(s, io->err.text);
    if (io->status && !s->stop) {
        consensus_fatal(c, io->status, "%s: %s", s->path, io->err.text);
    }
    if (c->dead) return consensus_snapshots_idle(c);
    if (io->op == ENV_IO_CLOSE) return sender_free(s);
    if (s->stop) return sender_stop(s, 0);
    if (io->op == ENV_IO_OPEN) return offer(s);
    send_chunk(s);
}

/* ---- from libraft ---------------------------------------------------------------------------- */

static struct snap_sender *sender_for(struct consensus *c, uint64_t peer_id)
{
    list_for_each(node, &c->snapshots->senders)
    {
        struct snap_sender *s = container_of(node, struct snap_sender, node);
        if (s->peer_id == peer_id && !s->stop) return s;
    }
    return NULL;
}

static void wait_for(struct snap_sender *s, struct raft_io_send *req, raft_io_send_cb cb)
{
    struct snap_waiter *w = mem_must_alloc(sizeof *w);
    *w = (struct snap_waiter){.req = req, .cb = cb};
    list_push_back(&s->waiters, &w->node);
}

int stream_send(struct consensus *c, struct raft_io_send *req, const struct raft_message *m,
                raft_io_send_cb cb)
{
    const struct raft_install_snapshot *i = &m->install_snapshot;
    const struct snapshots *all = c->snapshots;
    struct snap_sender *s = sender_for(c, m->server_id);
    const struct snap_info *info = all->newest.index == i->last_index ? &all->newest : &all->older;
    if (s && s->index == i->last_index && s->term == i->term) {
        wait_for(s, req, cb);
        return 0;
    }
    if (s) sender_stop(s, 0); /* this one takes its place */
    if (info->index != i->last_index || info->term != i->last_term || c->closing) {
        io_complete_send(c, req, cb, RAFT_NOTFOUND);
        return 0;
    }
    s = mem_must_calloc(1, sizeof *s);
    *s = (struct snap_sender){
        .c = c, .peer_id = m->server_id, .term = i->term, .index = i->last_index};
    s->index_term = i->last_term;
    s->size = info->size;
    snprintf(s->path, sizeof s->path, "%s", info->path);
    list_init(&s->waiters);
    wait_for(s, req, cb);
    s->progress_ms = consensus_now(c);
    list_push_back(&c->snapshots->senders, &s->node);
    s->io.path = s->path;
    s->io.flags = 0;
    sender_submit(s, ENV_IO_OPEN);
    return 0;
}

/* ---- from the peer --------------------------------------------------------------------------- */

static void on_ack(struct snap_sender *s, const struct frame_snapshot *a)
{
    s->progress_ms = consensus_now(s->c);
    s->answered = true;
    if (a->status) {
        s->streaming = false;
        if (!s->received) s->c->snapshots->sent++;
        s->received = true; /* libraft will hear from the peer when it is installed */
        return;
    }
    if (s->offered) {
        s->offered = false;
        s->streaming = true;
        s->read = a->offset;
    }
    s->acked = a->offset;
    read_next(s);
}

void sender_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct snap_sender *s = sender_for(c, p->id);
    if (!s || s->id != f->snapshot.id || s->index != f->snapshot.index ||
        f->snapshot.offset > s->size)
        return;
    if (f->kind == FRAME_SNAPSHOT_ACK) return on_ack(s, &f->snapshot);
    if (f->snapshot.status == ERR_CORRUPT) scrub_soon(c); /* perhaps it was so before it was sent */
    sender_stop(s, RAFT_NOCONNECTION);
}

void stream_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    bool abort = f->kind == FRAME_SNAPSHOT_ABORT;
    if (f->kind == FRAME_SNAPSHOT_ACK || (abort && c->raft.state == RAFT_LEADER))
        sender_frame(c, p, f);
    else install_frame(c, p, f);
}

void stream_link(struct consensus *c, struct peer *p, bool up)
{
    struct snap_sender *s = sender_for(c, p->id);
    if (up && s && s->file && !s->received) offer(s); /* from where the receiver is */
}

static bool still_wanted(const struct snap_sender *s)
{
    struct guard_progress p;
    return guard_progress(&s->c->guard, s->peer_id, &p) && p.sending == GUARD_SNAPSHOT;
}

void stream_tick(struct consensus *c)
{
    uint64_t now = consensus_now(c);
    list_for_each(node, &c->snapshots->senders)
    {
        struct snap_sender *s = container_of(node, struct snap_sender, node);
        if (s->stop || !s->file) continue;
        if (c->raft.state != RAFT_LEADER || c->raft.current_term != s->term) {
            sender_stop(s, RAFT_NOCONNECTION);
        } else if (s->received && !still_wanted(s)) {
            sender_stop(s, 0);
        } else if (now - s->progress_ms > SNAP_GIVE_UP_MS) {
            sender_stop(s, RAFT_NOCONNECTION);
        } else if (!s->answered && c->snapshots->newest.index > s->index) {
            sender_stop(s, RAFT_NOCONNECTION); /* nobody there, and outdated by now: libraft starts
                                                  with the newest */
        } else {
            uint64_t patience = s->streaming || s->received ? SNAP_STALLED_MS : SNAP_OFFER_AGAIN_MS;
            if (now - s->progress_ms > patience && now - s->offer_ms > patience) offer(s);
        }
    }
}

/* ---- closing --------------------------------------------------------------------------------- */

void sender_cancel(struct consensus *c)
{
    list_for_each(node, &c->snapshots->senders)
    {
        struct snap_sender *s = container_of(node, struct snap_sender, node);
        if (!s->stop) sender_stop(s, RAFT_NOCONNECTION);
    }
}

void sender_release(struct consensus *c)
{
    for (struct list *n; (n = list_pop_front(&c->snapshots->senders));) {
        struct snap_sender *s = container_of(n, struct snap_sender, node);
        for (struct list *k; (k = list_pop_front(&s->waiters));) {
            struct snap_waiter *w = container_of(k, struct snap_waiter, node);
            w->cb(w->req, RAFT_CANCELED);
            mem_free(w);
        }
        mem_free(s->buffer);
        mem_free(s);
    }
}
