/* Snapshots: finding and restoring the newest one when the member starts, and taking new ones.
 * libraft decides the moment (it cuts between two applies), we decide when it may: when the log
 * since the last one has grown larger than the limit and than that snapshot. The state is then
 * written out in slices, a block for each turn of the bulk lane, beside the log, to a temporary
 * name; fsync; rename. A file with a final name is whole. */
#include "raft/snapshots_int.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#define READ_BYTES LIMIT_MiB

void bulk_io(struct consensus *c, struct env_io *io, enum env_io_op op, void (*done)(struct env_io *io), void *data)
{
    io->op = op;
    io->lane = ENV_LANE_BULK;
    io->status = 0;
    io->err.text[0] = 0;
    io->done = done;
    io->data = data;
    c->env->ops->io(c->env, io);
}

void snap_path(char out[SNAP_PATH_BYTES], uint64_t index, uint64_t term)
{
    snprintf(out, SNAP_PATH_BYTES, SNAP_DIR "/%016" PRIx64 "-%016" PRIx64 ".snap", index, term);
}

void snap_info_release(struct snap_info *i)
{
    buf_release(&i->configuration);
    *i = (struct snap_info){0};
}

/* ---- removing -------------------------------------------------------------------------------- */

struct doomed {
    struct list node;
    char path[SNAP_PATH_BYTES];
};

static void unlink_next(struct consensus *c);

static void unlinked(struct env_io *io)
{
    struct consensus *c = io->data;
    c->snapshots->unlinking = false;
    if (io->status && io->status != ERR_NOT_FOUND) {
        consensus_fatal(c, io->status, "%s: %s", c->snapshots->unlink_path, io->err.text);
    }
    unlink_next(c);
    consensus_snapshots_idle(c);
}

static void unlink_next(struct consensus *c)
{
    struct snapshots *s = c->snapshots;
    if (s->unlinking || list_empty(&s->doomed) || c->dead) return;
    struct doomed *d = container_of(list_pop_front(&s->doomed), struct doomed, node);
    snprintf(s->unlink_path, sizeof s->unlink_path, "%s", d->path);
    mem_free(d);
    s->unlink_io.path = s->unlink_path;
    s->unlinking = true;
    bulk_io(c, &s->unlink_io, ENV_IO_UNLINK, unlinked, c);
}

void snap_unlink(struct consensus *c, const char *path)
{
    struct doomed *d = mem_must_alloc(sizeof *d);
    snprintf(d->path, sizeof d->path, "%s", path);
    list_push_back(&c->snapshots->doomed, &d->node);
    unlink_next(c);
}

bool snap_kept(const struct consensus *c, const char *path)
{
    const struct snapshots *s = c->snapshots;
    return (s->older.index && strcmp(path, s->older.path) == 0) || strcmp(path, s->newest.path) == 0;
}

void snap_remember(struct consensus *c, struct snap_info *i)
{
    struct snapshots *s = c->snapshots;
    /* A sender keeps its file open, and reads on after the name is gone. */
    if (s->older.index) snap_unlink(c, s->older.path);
    snap_info_release(&s->older);
    s->older = s->newest;
    s->newest = *i;
    *i = (struct snap_info){0};
}

/* ---- opening --------------------------------------------------------------------------------- */

struct found {
    uint64_t index[64], term[64];
    unsigned n;
    bool temporary[2];
};

static void each_name(void *ctx, const char *name)
{
    struct found *f = ctx;
    uint64_t index, term;
    char check[SNAP_PATH_BYTES];
    if (strcmp(name, SNAP_TAKING + sizeof SNAP_DIR) == 0) f->temporary[0] = true;
    if (strcmp(name, SNAP_RECEIVED + sizeof SNAP_DIR) == 0) f->temporary[1] = true;
    if (sscanf(name, "%16" SCNx64 "-%16" SCNx64 ".snap", &index, &term) != 2) return;
    snap_path(check, index, term);
    if (strcmp(check + sizeof SNAP_DIR, name) != 0 || f->n == 64) return;
    unsigned at = f->n++;
    for (; at > 0 && f->index[at - 1] < index; at--) {
        f->index[at] = f->index[at - 1];
        f->term[at] = f->term[at - 1];
    }
    f->index[at] = index;
    f->term[at] = term;
}

static int feed_restore(void *ctx, struct slice raw, struct err *e)
{
    struct snap_receiving *r = ctx;
    struct consensus *c = container_of(r, struct snapshots, receiving)->c;
    return c->cb.restore_feed(c->ctx, r->restore, raw, e);
}

static int read_through(struct consensus *c, struct env_file *file, struct snapfile_decoder *d,
                        uint64_t *ret_size, struct err *e)
{
    uint8_t *buffer = mem_alloc(READ_BYTES);
    if (!buffer) return err_set(e, ERR_NOMEM, "out of memory");
    struct env_io io = {.op = ENV_IO_READ, .file = file, .buffer = buffer};
    int rv;
    do {
        io.len = READ_BYTES;
        rv = c->env->ops->io_sync(c->env, &io);
        if (rv) (void)err_set(e, rv, "%.200s", io.err.text);
        else
            rv = snapfile_feed(d, slice_make(buffer, io.ret_len), feed_restore,
                               &c->snapshots->receiving, e);
        io.offset += io.ret_len;
    } while (!rv && io.ret_len == READ_BYTES);
    if (!rv) rv = snapfile_finish(d, e);
    *ret_size = io.offset;
    mem_free(buffer);
    return rv;
}

static int check_header(const struct consensus *c, const struct snap_info *i,
                        const struct snapfile_header *h, struct err *e)
{
    if (h->cluster_id != c->cluster_id) {
        return err_set(e, ERR_CLUSTER_MISMATCH,
                       "offset 8: is of cluster %" PRIx64 ", not of %" PRIx64, h->cluster_id,
                       c->cluster_id);
    }
    if (h->index != i->index || h->term != i->term) {
        return err_set(e, ERR_CORRUPT, "offset 16: is of entry %" PRIu64 " of term %" PRIu64,
                       h->index, h->term);
    }
    return 0;
}

/* Restores the file and swaps it in. */
static int restore_file(struct consensus *c, struct snap_info *i, struct err *e)
{
    struct snap_receiving *r = &c->snapshots->receiving;
    struct err why = {{0}};
    struct env_io io = {.op = ENV_IO_OPEN, .path = i->path};
    int rv = c->env->ops->io_sync(c->env, &io);
    if (rv) return err_set(e, rv, "%s: %.180s", i->path, io.err.text);
    struct snapfile_decoder d;
    snapfile_decoder_init(&d);
    rv = c->cb.restore_begin(c->ctx, &r->restore);
    if (rv) (void)err_set(&why, rv, "%s", err_text(rv));
    else rv = read_through(c, io.file, &d, &i->size, &why);
    if (!rv) rv = check_header(c, i, &d.header, &why);
    if (!rv) {
        i->configuration_index = d.header.configuration_index;
        if (buf_append_slice(&i->configuration, d.header.configuration))
            rv = err_set(&why, ERR_NOMEM, "out of memory");
    }
    void *restore = r->restore;
    r->restore = NULL;
    if (!rv) rv = c->cb.restore_finish(c->ctx, restore, i->index, &why);
    else if (restore) c->cb.restore_abort(c->ctx, restore);
    snapfile_decoder_release(&d);
    struct env_io close = {.op = ENV_IO_CLOSE, .file = io.file};
    (void)c->env->ops->io_sync(c->env, &close);
    return rv ? err_set(e, rv, "%s: %.190s", i->path, why.text) : 0;
}

static uint64_t loaded_term(const struct wal_contents *l, uint64_t index)
{
    bool in = l->n && index >= l->first_index && index - l->first_index < l->n;
    return in ? l->entries[index - l->first_index].term : 0;
}

/* Whether the log holds all that is in the newest snapshot and not in the older one. */
static bool log_has_between(const struct consensus *c, const struct snap_info *older, const struct snap_info *newest)
{
    const struct wal_contents *l = &c->loaded;
    if (older->index == 0 || loaded_term(l, newest->index) != newest->term) return false;
    return l->first_index == older->index + 1 || loaded_term(l, older->index) == older->term;
}

/* The newest, or if that is damaged and the log still continues the older one, that: then nothing is missing. */
static int restore_newest(struct consensus *c, struct err *e)
{
    struct snapshots *s = c->snapshots;
    int rv = restore_file(c, &s->newest, e);
    if (rv != ERR_CORRUPT || !log_has_between(c, &s->older, &s->newest)) return rv;
    log_error("raft: %s: set aside as " SNAP_DAMAGED ", the one before it and the log have it all member=%" PRIx64, e->text,
              c->id);
    struct env_io io = {.op = ENV_IO_RENAME, .path = s->newest.path, .path2 = SNAP_DAMAGED};
    rv = c->env->ops->io_sync(c->env, &io);
    if (rv) return err_set(e, rv, "%s: %.180s", s->newest.path, io.err.text);
    snap_info_release(&s->newest);
    s->newest = s->older;
    s->older = (struct snap_info){0};
    return restore_file(c, &s->newest, e);
}

static int clean_up(struct consensus *c, const struct found *f, struct err *e)
{
    int rv = 0;
    if (f->temporary[0]) rv = c->env->ops->unlink_file(c->env, SNAP_TAKING, e);
    if (!rv && f->temporary[1]) rv = c->env->ops->unlink_file(c->env, SNAP_RECEIVED, e);
    for (unsigned i = SNAP_KEEP; i < f->n && !rv; i++) {
        char path[SNAP_PATH_BYTES];
        snap_path(path, f->index[i], f->term[i]);
        rv = c->env->ops->unlink_file(c->env, path, e);
    }
    return rv;
}

int snapshots_open(struct consensus *c, struct err *e)
{
    struct snapshots *s = c->snapshots = mem_must_calloc(1, sizeof *s);
    struct found f = {.n = 0};
    s->c = c;
    list_init(&s->senders);
    list_init(&s->doomed);
    list_init(&s->receiving.chunks);
    int rv = c->env->ops->mkdir(c->env, SNAP_DIR, e);
    if (!rv) rv = c->env->ops->list(c->env, SNAP_DIR, each_name, &f, e);
    if (!rv) rv = clean_up(c, &f, e);
    if (rv || f.n == 0) return rv;
    s->newest.index = f.index[0];
    s->newest.term = f.term[0];
    snap_path(s->newest.path, f.index[0], f.term[0]);
    if (f.n > 1) {
        s->older.index = f.index[1];
        s->older.term = f.term[1];
        snap_path(s->older.path, f.index[1], f.term[1]);
    }
    return restore_newest(c, e);
}

uint64_t snapshots_restored_index(const struct consensus *c, uint64_t *ret_term)
{
    *ret_term = c->snapshots->newest.term;
    return c->snapshots->newest.index;
}

/* ---- for libraft ----------------------------------------------------------------------------- */

struct raft_snapshot *snap_for_raft(const struct snap_info *i)
{
    struct raft_snapshot *r = raft_calloc(1, sizeof *r);
    struct snap_ticket *ticket = raft_malloc(sizeof *ticket);
    r->index = i->index;
    r->term = i->term;
    r->configuration_index = i->configuration_index;
    CHECK(peers_decode_configuration(buf_slice(&i->configuration),
                                     &r->configuration)); /* was checked when read */
    *ticket = (struct snap_ticket){i->index, i->term};
    r->bufs = raft_malloc(sizeof *r->bufs);
    r->bufs[0] = (struct raft_buffer){ticket, sizeof *ticket};
    r->n_bufs = 1;
    return r;
}

struct raft_snapshot *snapshots_newest(struct consensus *c)
{
    return c->snapshots->newest.index ? snap_for_raft(&c->snapshots->newest) : NULL;
}

struct get {
    struct consensus *c;
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
    struct raft_snapshot *snapshot;
    struct raft_io_send later;
};

static void get_done(struct raft_io_send *later, int status)
{
    struct get *g = container_of(later, struct get, later);
    if (g->c->env_stopped) { /* libraft would ask its log, which is going */
        raft_configuration_close(&g->snapshot->configuration);
        raft_free(g->snapshot->bufs[0].base);
        raft_free(g->snapshot->bufs);
        raft_free(g->snapshot);
        g->snapshot = NULL;
        status = RAFT_CANCELED;
    }
    g->cb(g->req, g->snapshot, status);
    mem_free(g);
}

int snapshots_get(struct consensus *c, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    /* libraft wants the one that its log begins behind; that is the newest that it has been told
     * of. */
    if (c->snapshots->newest.index != c->raft.log.snapshot.last_index) return RAFT_NOTFOUND;
    struct get *g = mem_must_alloc(sizeof *g);
    *g = (struct get){.c = c, .req = req, .cb = cb, .snapshot = snapshots_newest(c)};
    io_complete_send(c, &g->later, get_done, 0);
    return 0;
}

int snapshots_fsm_restore(struct consensus *c, const struct raft_buffer *ticket)
{
    CHECK(ticket->len == sizeof(struct snap_ticket));
    if (!c->started) return 0; /* consensus_open has done it */
    return install_restore(c, ticket->base);
}

/* ---- taking ---------------------------------------------------------------------------------- */

bool snapshots_busy(const struct consensus *c)
{
    const struct snapshots *s = c->snapshots;
    return s->taking.active || s->receiving.state != RECV_NONE || c->raft.snapshot.put.data != NULL;
}

/* libraft embeds whatever configuration it has, committed or not (GUARD_CONFIGURATION). */
static bool configuration_open(const struct consensus *c)
{
    const struct raft *r = &c->raft;
    if (!(c->guard.masks & GUARD_CONFIGURATION)) return false;
    return r->configuration_uncommitted_index != 0 || r->configuration_index > r->last_applied;
}

/* To libraft, who has an entry of a later term where a snapshot ends has all that is in it. That is so where its last entry was committed
 * in its own term, and then this member is in that term still; an older entry may be committed long after a later leader, that
 * did not have it, has put another one there (thesis 3.6.2). The next entry of this term will do. */
static bool ends_in_own_term(const struct consensus *c, const struct raft_snapshot *pending)
{
    return pending->term == c->raft.current_term;
}

int snapshots_fsm_snapshot(struct consensus *c, struct raft_buffer **bufs, unsigned *n_bufs)
{
    struct snapshots *s = c->snapshots;
    struct snap_taking *t = &s->taking;
    const struct raft_snapshot *pending = &c->raft.snapshot.pending;
    if (c->dead || c->closing || snapshots_busy(c) || c->raft.transfer || configuration_open(c) || !ends_in_own_term(c, pending))
        return RAFT_BUSY;
    void *handle;
    if (c->cb.snapshot_open(c->ctx, &handle)) return RAFT_BUSY;
    *t = (struct snap_taking){.active = true, .handle = handle, .log_bytes = s->log_bytes};
    t->info.index = pending->index;
    t->info.term = pending->term;
    snap_path(t->info.path, t->info.index, t->info.term);
    buf_init(&t->raw, 0);
    buf_init(&t->out, 0);
    s->asked = false;
    raft_set_snapshot_threshold(&c->raft, UINT32_MAX);
    struct snap_ticket *ticket = raft_malloc(sizeof *ticket);
    *ticket = (struct snap_ticket){t->info.index, t->info.term};
    *bufs = raft_malloc(sizeof **bufs);
    (*bufs)[0] = (struct raft_buffer){ticket, sizeof *ticket};
    *n_bufs = 1;
    return 0;
}

static void taking_step(struct env_io *io);

static void taking_submit(struct consensus *c, enum env_io_op op)
{
    bulk_io(c, &c->snapshots->taking.io, op, taking_step, c);
}

static void close_handle(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    if (t->handle) c->cb.snapshot_close(c->ctx, t->handle);
    t->handle = NULL;
    buf_release(&t->raw);
    buf_release(&t->out);
}

/* Appends blocks of what the state machine gives; true at the end. */
static int next_blocks(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    bool done = false;
    buf_clear(&t->raw);
    int rv = c->cb.snapshot_next(c->ctx, t->handle, SNAPFILE_BLOCK_BYTES, &t->raw, &done);
    if (rv) return rv;
    if (t->raw.failed) return t->raw.failed;
    for (size_t at = 0; at < t->raw.len; at += SNAPFILE_BLOCK_BYTES) {
        snapfile_encode_block(&t->encoder, slice_sub(buf_slice(&t->raw), at, SNAPFILE_BLOCK_BYTES),
                              &t->out);
    }
    if (done) {
        snapfile_encode_end(&t->encoder, &t->out);
        t->ended = true;
    }
    return t->out.failed;
}

static void taking_write(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    t->io.offset = t->info.size;
    t->io.iov[0] = buf_slice(&t->out);
    t->io.n_iov = 1;
    t->info.size += t->out.len;
    taking_submit(c, ENV_IO_WRITE);
}

static void taking_continue(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    buf_clear(&t->out);
    if (t->ended) {
        close_handle(c);
        return taking_submit(c, ENV_IO_SYNC);
    }
    int rv = next_blocks(c);
    if (rv) return consensus_fatal(c, rv, "%s: cannot be made: %s", SNAP_TAKING, err_text(rv));
    taking_write(c);
}

static void taking_begin(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    struct snapfile_header h = {
        .cluster_id = c->cluster_id, .index = t->info.index, .term = t->info.term};
    h.configuration_index = t->info.configuration_index;
    h.configuration = buf_slice(&t->info.configuration);
    snapfile_encode_header(&t->encoder, &h, &t->out);
    if (t->out.failed) return consensus_fatal(c, t->out.failed, "%s: out of memory", SNAP_TAKING);
    taking_write(c);
}

void snap_trim_log(struct consensus *c)
{
    if (c->raft.log.offset) wal_release(c->wal, c->raft.log.offset);
}

/* The first entry that is needed by those that are there: the last one that the one furthest behind has, or that the snapshot
 * on its way to it has, because the next one is sent with its term. At least the snapshot's own: it may be sent tomorrow. */
static uint64_t needed_behind(const struct consensus *c, uint64_t index)
{
    const struct raft_configuration *members = &c->raft.configuration;
    for (unsigned i = 0; i < members->n; i++) {
        uint64_t id = members->servers[i].id;
        struct guard_progress p;
        if (!guard_progress(&c->guard, id, &p)) continue;
        bool there = p.sending == GUARD_SNAPSHOT || p.heard || consensus_answers(c, id);
        if (p.has && p.has < index && there) index = p.has;
    }
    return index;
}

/* Counted in bytes, libraft counts entries. For one that would need another snapshot right after the one it was sent,
 * CONSENSUS_CATCH_UP_BYTES more. */
unsigned snap_trailing_entries(const struct consensus *c, uint64_t index)
{
    const struct raft_log *l = &c->raft.log;
    uint64_t keep = c->trailing_log_bytes, more = CONSENSUS_CATCH_UP_BYTES, needed = needed_behind(c, index);
    unsigned n = 0;
    while (index - n > l->offset && n < UINT32_MAX) {
        size_t len = l->entries[(l->front + (index - n - l->offset - 1)) % l->size].buf.len;
        uint64_t *from = len <= keep ? &keep : &more;
        if (len > *from || (from == &more && index - n < needed)) break;
        *from -= len;
        n++;
    }
    return n;
}

static void taking_end(struct consensus *c)
{
    struct snapshots *s = c->snapshots;
    struct snap_taking *t = &s->taking;
    s->log_bytes -= t->log_bytes;
    s->taken++;
    raft_set_snapshot_trailing(&c->raft, snap_trailing_entries(c, t->info.index));
    snap_remember(c, &t->info);
    t->active = false;
    t->cb(t->req, 0);
    snap_trim_log(c);
}

static void taking_cancelled(struct consensus *c)
{
    struct snap_taking *t = &c->snapshots->taking;
    close_handle(c);
    if (t->file) {
        t->io.file = t->file;
        t->file = NULL;
        return taking_submit(c, ENV_IO_CLOSE);
    }
    snap_info_release(&t->info);
    t->active = false;
    t->cb(t->req, RAFT_CANCELED);
    consensus_snapshots_idle(c);
}

static void taking_step(struct env_io *io)
{
    struct consensus *c = io->data;
    struct snap_taking *t = &c->snapshots->taking;
    if (io->status) consensus_fatal(c, io->status, "%s: %s", SNAP_TAKING, io->err.text);
    if (io->op == ENV_IO_OPEN && !io->status) t->file = io->file;
    if (c->dead) return consensus_snapshots_idle(c); /* snapshots_release lets go of it */
    if (t->cancelled) return taking_cancelled(c);
    switch (io->op) {
    case ENV_IO_OPEN: taking_begin(c); break;
    case ENV_IO_WRITE: taking_continue(c); break;
    case ENV_IO_SYNC:
        t->file = NULL;
        taking_submit(c, ENV_IO_CLOSE);
        break;
    case ENV_IO_CLOSE:
        io->path = SNAP_TAKING;
        io->path2 = t->info.path;
        taking_submit(c, ENV_IO_RENAME);
        break;
    default: taking_end(c); break;
    }
}

int snapshots_put(struct consensus *c, struct raft_io_snapshot_put *req,
                  const struct raft_snapshot *s, raft_io_snapshot_put_cb cb)
{
    struct snap_taking *t = &c->snapshots->taking;
    if (c->raft.snapshot.pending.term == 0) return install_put(c, req, s, cb);
    struct raft_buffer conf;
    CHECK(t->active && raft_configuration_encode(&s->configuration, &conf) == 0);
    t->req = req;
    t->cb = cb;
    t->info.configuration_index = s->configuration_index;
    int rv = buf_append(&t->info.configuration, conf.base, conf.len);
    raft_free(conf.base);
    if (rv) {
        consensus_fatal(c, rv, "%s: %s", SNAP_TAKING, err_text(rv));
        return 0;
    }
    t->io.path = SNAP_TAKING;
    t->io.flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE;
    taking_submit(c, ENV_IO_OPEN);
    return 0;
}

/* ---- policy ---------------------------------------------------------------------------------- */

void snapshots_applied(struct consensus *c, size_t entry_bytes)
{
    c->snapshots->log_bytes += entry_bytes;
}

void snapshots_poll(struct consensus *c)
{
    struct snapshots *s = c->snapshots;
    install_poll(c);
    if (c->dead || snapshots_busy(c)) return;
    bool due = s->log_bytes > c->snapshot_log_bytes && s->log_bytes > s->newest.size;
    if (due || s->asked) raft_set_snapshot_threshold(&c->raft, 1);
}

static void barrier_done(struct raft_barrier *b, int status)
{
    (void)status;
    mem_free(b);
}

int consensus_snapshot(struct consensus *c)
{
    if (c->dead || c->closing || !c->started) return ERR_CLOSED;
    if (snapshots_busy(c)) return ERR_BUSY;
    if (c->raft.last_applied == c->snapshots->newest.index) return 0; /* there is nothing new */
    c->snapshots->asked = true;
    raft_set_snapshot_threshold(&c->raft, 1);
    /* libraft looks only after it has applied something. */
    if (!consensus_leads(c) || c->guard.depth || c->raft.transfer) return 0;
    struct raft_barrier *b = mem_must_calloc(1, sizeof *b);
    c->guard.depth++;
    if (raft_barrier(&c->raft, b, barrier_done)) mem_free(b);
    c->guard.depth--;
    return 0;
}

void snapshots_tick(struct consensus *c)
{
    install_tick(c);
}

/* ---- closing --------------------------------------------------------------------------------- */

bool snapshots_idle(const struct consensus *c)
{
    const struct snapshots *s = c->snapshots;
    if (c->dead) return true;
    return !s->taking.active && s->receiving.state == RECV_NONE && list_empty(&s->senders) &&
           !s->unlinking && list_empty(&s->doomed);
}

void snapshots_cancel(struct consensus *c)
{
    c->snapshots->taking.cancelled = true;
    install_cancel(c);
    sender_cancel(c);
}

void snapshots_release(struct consensus *c)
{
    struct snapshots *s = c->snapshots;
    if (!s) return;
    close_handle(c);
    if (s->taking.active && s->taking.req) s->taking.cb(s->taking.req, RAFT_CANCELED);
    install_release(c);
    sender_release(c);
    snap_info_release(&s->newest);
    snap_info_release(&s->older);
    snap_info_release(&s->taking.info);
    for (struct list *n; (n = list_pop_front(&s->doomed));)
        mem_free(container_of(n, struct doomed, node));
    mem_free(s);
    c->snapshots = NULL;
}

void snapshots_status(const struct consensus *c, struct consensus_status *ret)
{
    const struct snapshots *s = c->snapshots;
    ret->snapshot_index = s->newest.index;
    ret->snapshot_bytes = s->newest.size;
    ret->log_bytes = s->log_bytes;
    ret->snapshots_taken = s->taken;
    ret->snapshots_sent = s->sent;
    ret->snapshots_installed = s->installed;
}
