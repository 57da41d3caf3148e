/* Taking a snapshot in. The leader's chunks are written to snap/received.tmp; when it is whole and
 * synced it is read back, every checksum looked at, and fed to the state machine beside the old
 * state. All that can fail has then been done, and only then libraft hears of it: it drops its log,
 * and what is left is a rename, a reset of the log on disk and a swap of pointers. Should one of
 * these fail, the member stops, and continues from what is on its disk.
 *
 *   NONE -offer-> OPENING -> WRITING -all bytes-> SYNCING -> CHECKING -good-> READY -libraft takes
 * it-> RENAMING ^                                                        | bad            | libraft
 * does not     |
 *     |<------------------------ DROPPING <--------------------+<---------------+ v
 *     +<------------------------------------------------------------------------------------
 * RESETTING */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "raft/snapshots_int.h"

#define RECEIVER_GIVE_UP_MS 60000u

static struct consensus *owner(struct snap_receiving *r)
{
    return container_of(r, struct snapshots, receiving)->c;
}

static void step(struct env_io *io);

static void submit(struct snap_receiving *r, enum env_io_op op)
{
    r->io_busy = true;
    bulk_io(owner(r), &r->io, op, step, r);
}

static void answer(struct consensus *c, enum frame_kind kind, int32_t status)
{
    const struct snap_receiving *r = &c->snapshots->receiving;
    struct frame f = {.kind = kind};
    f.snapshot.id = r->id;
    f.snapshot.term = r->term > c->raft.current_term ? r->term : c->raft.current_term;
    f.snapshot.index = r->index;
    f.snapshot.index_term = r->index_term;
    f.snapshot.size = r->size;
    f.snapshot.offset = r->written;
    f.snapshot.status = status;
    peers_send(c, r->peer_id, ENV_CHANNEL_BULK, &f);
}

static void forget_memory(struct snap_receiving *r)
{
    struct consensus *c = owner(r);
    for (struct list *n; (n = list_pop_front(&r->chunks));)
        mem_free(container_of(n, struct snap_chunk, node));
    if (r->restore) c->cb.restore_abort(c->ctx, r->restore);
    r->restore = NULL;
    if (r->decoding) snapfile_decoder_release(&r->decoder);
    r->decoding = false;
    mem_free(r->buffer);
    r->buffer = NULL;
    snap_info_release(&r->info);
}

static void finished(struct snap_receiving *r)
{
    struct consensus *c = owner(r);
    r->state = RECV_NONE;
    r->drop = false;
    consensus_snapshots_idle(c);
}

/* Lets go of it all: memory, file handle, file. */
static void drop(struct snap_receiving *r)
{
    if (r->io_busy) {
        r->drop = true;
        return;
    }
    forget_memory(r);
    r->state = RECV_DROPPING;
    if (r->file) {
        r->io.file = r->file;
        r->file = NULL;
        return submit(r, ENV_IO_CLOSE);
    }
    r->io.path = SNAP_RECEIVED;
    submit(r, ENV_IO_UNLINK);
}

/* ---- reading it back ------------------------------------------------------------------------- */

static void refuse_file(struct snap_receiving *r)
{
    answer(owner(r), FRAME_SNAPSHOT_ABORT, ERR_CORRUPT);
    drop(r);
}

static int feed(void *ctx, struct slice raw, struct err *e)
{
    struct snap_receiving *r = ctx;
    struct consensus *c = owner(r);
    return c->cb.restore_feed(c->ctx, r->restore, raw, e);
}

static void read_back(struct snap_receiving *r, uint64_t offset)
{
    r->io.file = r->file;
    r->io.offset = offset;
    r->io.buffer = r->buffer;
    r->io.len = SNAP_CHUNK_BYTES;
    submit(r, ENV_IO_READ);
}

static void begin_checking(struct snap_receiving *r)
{
    struct consensus *c = owner(r);
    r->state = RECV_CHECKING;
    r->buffer = mem_must_alloc(SNAP_CHUNK_BYTES);
    snapfile_decoder_init(&r->decoder);
    r->decoding = true;
    if (c->cb.restore_begin(c->ctx, &r->restore)) return refuse_file(r);
    read_back(r, 0);
}

static bool header_fits(struct snap_receiving *r)
{
    const struct consensus *c = owner(r);
    const struct snapfile_header *h = &r->decoder.header;
    return h->cluster_id == c->cluster_id && h->index == r->index && h->term == r->index_term;
}

static void hand_over(struct snap_receiving *r)
{
    struct consensus *c = owner(r);
    struct peer *p = peers_find(c, r->peer_id);
    r->info = (struct snap_info){.index = r->index, .term = r->index_term, .size = r->size};
    r->info.configuration_index = r->decoder.header.configuration_index;
    (void)buf_append_slice(&r->info.configuration, r->decoder.header.configuration);
    snap_path(r->info.path, r->index, r->index_term);
    if (!p || r->info.configuration.failed) return drop(r);
    r->state = RECV_READY;
    answer(c, FRAME_SNAPSHOT_ACK, 1);
    struct raft_snapshot *s = snap_for_raft(&r->info);
    struct frame_snapshot f = {.term = r->term, .index = r->index, .index_term = r->index_term};
    io_install(c, p, &f, s); /* takes configuration and ticket */
    raft_free(s->bufs);
    raft_free(s);
}

static void check_piece(struct snap_receiving *r)
{
    size_t n = r->io.ret_len;
    int rv = snapfile_feed(&r->decoder, slice_make(r->buffer, n), feed, r, NULL);
    if (rv) return refuse_file(r);
    if (n == SNAP_CHUNK_BYTES) return read_back(r, r->io.offset + n);
    if (snapfile_finish(&r->decoder, NULL) || !header_fits(r)) return refuse_file(r);
    r->io.file = r->file;
    r->file = NULL;
    submit(r, ENV_IO_CLOSE);
}

/* ---- writing --------------------------------------------------------------------------------- */

static void write_next(struct snap_receiving *r)
{
    if (r->io_busy) return;
    if (list_empty(&r->chunks)) {
        if (r->written < r->size) return;
        r->state = RECV_SYNCING;
        r->io.file = r->file;
        return submit(r, ENV_IO_SYNC);
    }
    const struct snap_chunk *k = container_of(r->chunks.next, struct snap_chunk, node);
    r->io.file = r->file;
    r->io.offset = r->written;
    r->io.iov[0] = slice_make(k->data, k->len);
    r->io.n_iov = 1;
    submit(r, ENV_IO_WRITE);
}

static void chunk_written(struct snap_receiving *r)
{
    struct snap_chunk *k = container_of(list_pop_front(&r->chunks), struct snap_chunk, node);
    r->written += k->len;
    mem_free(k);
    answer(owner(r), FRAME_SNAPSHOT_ACK, 0);
    write_next(r);
}

static void reset_done(struct wal_append *a)
{
    struct snap_receiving *r = a->data;
    struct consensus *c = owner(r);
    struct snapshots *s = c->snapshots;
    s->installed++;
    s->log_bytes = 0;
    snap_remember(c, &r->info);
    r->cb(r->req, 0); /* libraft restores: install_restore */
    snap_trim_log(c);
    finished(r);
}

static void step(struct env_io *io)
{
    struct snap_receiving *r = io->data;
    struct consensus *c = owner(r);
    r->io_busy = false;
    if (io->op == ENV_IO_OPEN && !io->status) r->file = io->file;
    bool lost = r->state == RECV_CHECKING && io->status == ERR_CORRUPT; /* what was just written: it is sent again */
    if (io->status && !lost && !(io->op == ENV_IO_UNLINK && io->status == ERR_NOT_FOUND)) {
        consensus_fatal(c, io->status, "%s: %s", SNAP_RECEIVED, io->err.text);
    }
    if (c->dead) return consensus_snapshots_idle(c);
    if (r->drop && r->state != RECV_DROPPING && r->state < RECV_RENAMING) return drop(r);
    switch (r->state) {
    case RECV_OPENING:
        if (io->op == ENV_IO_OPEN) { /* what an earlier one left */
            io->offset = 0;
            submit(r, ENV_IO_TRUNCATE);
            return;
        }
        r->state = RECV_WRITING;
        answer(c, FRAME_SNAPSHOT_ACK, 0);
        write_next(r);
        break;
    case RECV_WRITING: chunk_written(r); break;
    case RECV_SYNCING: begin_checking(r); break;
    case RECV_CHECKING:
        if (lost) refuse_file(r);
        else if (io->op == ENV_IO_CLOSE) hand_over(r);
        else check_piece(r);
        break;
    case RECV_RENAMING:
        r->state = RECV_RESETTING;
        r->reset.done = reset_done;
        r->reset.data = r;
        wal_reset(c->wal, &r->reset, r->index, r->index_term);
        break;
    case RECV_DROPPING:
        if (io->op == ENV_IO_CLOSE) drop(r);
        else finished(r);
        break;
    default: break;
    }
}

/* ---- libraft's side -------------------------------------------------------------------------- */

int install_put(struct consensus *c, struct raft_io_snapshot_put *req,
                const struct raft_snapshot *s, raft_io_snapshot_put_cb cb)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (r->state != RECV_READY || s->index != r->index || s->term != r->index_term)
        return RAFT_INVALID;
    r->req = req;
    r->cb = cb;
    r->bufs = s->bufs;
    r->state = RECV_RENAMING;
    r->io.path = SNAP_RECEIVED;
    r->io.path2 = r->info.path;
    submit(r, ENV_IO_RENAME);
    return 0;
}

int install_restore(struct consensus *c, const struct snap_ticket *t)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    struct err e = {{0}};
    CHECK(r->state == RECV_RESETTING && t->index == r->index && r->restore);
    void *restore = r->restore;
    r->restore = NULL;
    int rv = c->cb.restore_finish(c->ctx, restore, r->index, &e);
    forget_memory(r);
    if (rv) {
        consensus_fatal(c, rv, "snapshot %" PRIu64 ": %s", t->index, e.text);
        return RAFT_CORRUPT;
    }
    proposals_installed(c);
    return 0;
}

/* Handed over, and libraft has neither taken it nor is it held back: it was not wanted. */
void install_poll(struct consensus *c)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (r->state == RECV_READY && c->guard.n_messages == 0 && !r->io_busy) drop(r);
}

void install_tick(struct consensus *c)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    bool waiting = r->state == RECV_OPENING || r->state == RECV_WRITING;
    if (waiting && consensus_now(c) - r->progress_ms > RECEIVER_GIVE_UP_MS) drop(r);
}

/* ---- frames from the leader ------------------------------------------------------------------ */

static bool same_snapshot(const struct snap_receiving *r, uint64_t peer_id,
                          const struct frame_snapshot *s)
{
    return r->peer_id == peer_id && r->index == s->index && r->index_term == s->index_term &&
           r->size == s->size;
}

/* Whether libraft would answer that it has it all; then it is let say so, and nothing need be sent.
 */
static bool has_it(const struct consensus *c, const struct frame_snapshot *s)
{
    raft_term term = guard_log_term(&c->raft, s->index);
    return c->raft.log.snapshot.last_index >= s->index || (term != 0 && term >= s->index_term);
}

static void on_unneeded(struct consensus *c, struct peer *p, const struct frame_snapshot *s)
{
    const struct guard *g = &c->guard;
    bool at_once = g->n_messages == 0 && g->n_appends == 0 && !snapshots_busy(c);
    if (!at_once) return; /* it will be offered again */
    struct frame f = {.kind = FRAME_SNAPSHOT_ACK};
    f.snapshot = *s;
    f.snapshot.status = 1;
    f.snapshot.offset = 0;
    f.snapshot.data = (struct slice){0};
    peers_send(c, p->id, ENV_CHANNEL_BULK, &f);
    struct raft_buffer ticket = {raft_calloc(1, sizeof(struct snap_ticket)),
                                 sizeof(struct snap_ticket)};
    struct raft_snapshot none = {.bufs = &ticket, .n_bufs = 1};
    raft_configuration_init(&none.configuration);
    io_install(c, p, s, &none);
}

static void begin(struct consensus *c, struct peer *p, const struct frame_snapshot *s)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    CHECK(r->state == RECV_NONE);
    *r = (struct snap_receiving){
        .state = RECV_OPENING, .peer_id = p->id, .id = s->id, .term = s->term};
    r->index = s->index;
    r->index_term = s->index_term;
    r->size = s->size;
    r->progress_ms = consensus_now(c);
    list_init(&r->chunks);
    r->io.path = SNAP_RECEIVED;
    r->io.flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE;
    submit(r, ENV_IO_OPEN);
}

static void on_offer(struct consensus *c, struct peer *p, const struct frame_snapshot *s)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (s->term < c->raft.current_term || c->raft.state == RAFT_LEADER) return;
    if (r->state == RECV_NONE) {
        if (has_it(c, s)) return on_unneeded(c, p, s);
        if (c->snapshots->taking.active) return; /* one at a time: it will be offered again */
        return begin(c, p, s);
    }
    if (!same_snapshot(r, p->id, s)) {
        if (r->state <= RECV_WRITING && s->term >= r->term)
            drop(r); /* a newer leader, or a newer snapshot */
        return;
    }
    r->id = s->id;
    r->term = s->term;
    r->progress_ms = consensus_now(c);
    if (r->drop || r->state == RECV_OPENING || r->state == RECV_DROPPING) return;
    if (r->state != RECV_WRITING) { /* all of it is here, and being looked at or installed */
        answer(c, FRAME_SNAPSHOT_ACK, r->state >= RECV_READY);
        return;
    }
    /* What is queued and not written yet is sent again. */
    while (r->chunks.next != r->chunks.prev) {
        struct list *last = r->chunks.prev;
        list_remove(last);
        mem_free(container_of(last, struct snap_chunk, node));
    }
    uint64_t written = r->written;
    r->queued = written;
    if (!list_empty(&r->chunks))
        r->queued += container_of(r->chunks.next, struct snap_chunk, node)->len;
    r->written = r->queued;
    answer(c, FRAME_SNAPSHOT_ACK, 0); /* from there on */
    r->written = written;
}

static void on_chunk(struct consensus *c, const struct peer *p, const struct frame_snapshot *s)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (r->state != RECV_WRITING || r->drop || !same_snapshot(r, p->id, s) || r->id != s->id)
        return;
    if (s->offset != r->queued || r->queued - r->written > 2 * SNAP_WINDOW_BYTES) return;
    struct snap_chunk *k = mem_alloc(sizeof *k + s->data.len);
    if (!k) return; /* as if it had been lost */
    k->len = s->data.len;
    memcpy(k->data, s->data.data, s->data.len);
    list_push_back(&r->chunks, &k->node);
    r->queued += k->len;
    r->progress_ms = consensus_now(c);
    write_next(r);
}

void install_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    switch (f->kind) {
    case FRAME_SNAPSHOT_OFFER: on_offer(c, p, &f->snapshot); break;
    case FRAME_SNAPSHOT_CHUNK: on_chunk(c, p, &f->snapshot); break;
    default: /* the sender gives up */
        if (r->state != RECV_NONE && r->state <= RECV_WRITING && r->peer_id == p->id &&
            r->id == f->snapshot.id)
            drop(r);
        break;
    }
}

/* ---- closing --------------------------------------------------------------------------------- */

void install_cancel(struct consensus *c)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (r->state != RECV_NONE && r->state < RECV_RENAMING) drop(r);
}

void install_release(struct consensus *c)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    if (r->state == RECV_RENAMING || r->state == RECV_RESETTING) {
        struct raft_buffer *bufs = r->bufs;
        r->cb(r->req, RAFT_CANCELED); /* gives back what libraft holds, except: */
        raft_free(bufs);
    }
    forget_memory(r);
}
