/* The scrub: what lies on the disk is read again in the background, so that damage is found while the
 * others can still heal it, and not when it is needed. A round goes through all files of the member:
 * term and vote, the members, the mark, each segment of the log, the snapshots. Then a pause.
 *
 * On the bulk lane, a piece at a time, no more bytes a second than allowed; the log never waits for
 * it. Files are opened COLD, else the system would answer from its memory. Segments and snapshots that
 * are given back meanwhile are left alone: whether a file still counts is asked when a piece has
 * been read, and what reuses it is on the same lane behind that read.
 *
 *   IDLE -pause over-> OPENING -> READING -end, or damage-> CLOSING -> next file, or IDLE */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "raft/snapshots_int.h"

#define PIECE_BYTES (256 * LIMIT_KiB)

enum item { SCRUB_META, SCRUB_META2, SCRUB_MEMBERS, SCRUB_MARK, SCRUB_SEGMENTS, SCRUB_OLDER, SCRUB_NEWEST, SCRUB_END };

struct scrub {
    struct consensus *c;
    enum { IDLE, OPENING, READING, CLOSING } state;
    bool waiting; /* for the rate to allow the next piece */
    enum item item;
    struct env_io io;
    struct env_file *file;
    uint8_t *buffer;
    const char *path;
    uint64_t offset, end; /* end 0: where the file ends */
    struct wal_check segment;
    struct snapfile_decoder decoder;
    char snapshot[SNAP_PATH_BYTES];
    bool found; /* damage in this file */
    struct err e;
    uint64_t next_round_ms, allowed_ms;
    int64_t allowed;
    uint64_t bytes, rounds, errors;
};

static void step(struct env_io *io);

static void submit(struct scrub *s, enum env_io_op op)
{
    bulk_io(s->c, &s->io, op, step, s);
}

/* ---- which file -------------------------------------------------------------------------------- */

static bool take_snapshot(struct scrub *s, const struct snap_info *i)
{
    if (i->index == 0) return false;
    snprintf(s->snapshot, sizeof s->snapshot, "%s", i->path);
    s->path = s->snapshot;
    snapfile_decoder_init(&s->decoder);
    return true;
}

static bool take_segment(struct scrub *s)
{
    uint64_t after = s->segment.number;
    if (!wal_check_next(s->c->wal, after, &s->segment)) return false;
    s->path = s->segment.path;
    s->end = s->segment.end;
    return true;
}

static bool take_item(struct scrub *s)
{
    switch (s->item) {
    case SCRUB_META:
    case SCRUB_META2: s->path = meta_paths[s->item - SCRUB_META]; return true;
    case SCRUB_MEMBERS: s->path = MEMBERS_PATH; return true;
    case SCRUB_MARK:
        s->path = WAL_MARK;
        s->end = WAL_MARK_BYTES;
        return true;
    case SCRUB_SEGMENTS: return take_segment(s);
    case SCRUB_OLDER: return take_snapshot(s, &s->c->snapshots->older);
    case SCRUB_NEWEST: return take_snapshot(s, &s->c->snapshots->newest);
    default: return false;
    }
}

static void next_file(struct scrub *s)
{
    s->offset = s->end = 0;
    s->found = false;
    while (s->item < SCRUB_END && !take_item(s)) s->item++;
    if (s->item == SCRUB_END) {
        s->state = IDLE;
        s->rounds++;
        s->next_round_ms = consensus_now(s->c) + s->c->scrub_interval_ms;
        return;
    }
    s->state = OPENING;
    s->io.path = s->path;
    s->io.flags = ENV_OPEN_COLD;
    submit(s, ENV_IO_OPEN);
}

/* ---- what was read ------------------------------------------------------------------------------ */

/* Both copies have been read cold before this looks at them. */
static void check_meta(struct scrub *s)
{
    struct consensus *c = s->c;
    unsigned bad = 0;
    int rv = meta_check(c->env, c->cluster_id, c->id, &c->meta, &bad, &s->e);
    s->errors += bad;
    if (rv) consensus_fatal(c, rv, "%s", s->e.text);
}

static void written_again(struct scrub *s)
{
    s->errors++;
    log_error("raft: scrub: damage in %s, written again member=%" PRIx64, s->path, s->c->id);
}

static int check_piece(struct scrub *s, struct slice piece)
{
    switch (s->item) {
    case SCRUB_SEGMENTS: return wal_check_feed(&s->segment, piece, &s->e);
    case SCRUB_OLDER:
    case SCRUB_NEWEST: {
        struct err why;
        int rv = snapfile_feed(&s->decoder, piece, NULL, NULL, &why);
        if (!rv && piece.len < s->io.len) rv = snapfile_finish(&s->decoder, &why);
        return rv ? err_set(&s->e, rv, "%s: %.180s", s->path, why.text) : 0;
    }
    case SCRUB_MARK:
        if (!wal_check_mark(s->c->wal, piece)) written_again(s);
        return 0;
    case SCRUB_MEMBERS:
        if (!membership_check(s->c, piece)) written_again(s);
        return 0;
    default: return 0;
    }
}

/* Whether the file is still one that counts. */
static bool current(const struct scrub *s)
{
    if (s->item == SCRUB_SEGMENTS) return wal_check_current(s->c->wal, &s->segment);
    return s->item < SCRUB_OLDER || snap_kept(s->c, s->path);
}

/* A single member has nobody to heal from, and its state in memory is whole: what it still has on the disk is judged
 * when it is opened again. */
void scrub_found(struct consensus *c, const char *path, const char *why)
{
    c->scrub->errors++;
    log_error("raft: damage found: %s member=%" PRIx64, why, c->id);
    if (strcmp(path, c->snapshots->older.path) == 0) { /* not needed: the newest is there */
        snap_unlink(c, path);
        snap_info_release(&c->snapshots->older);
    } else if (heal_alone(c)) {
        consensus_fatal(c, ERR_CORRUPT, "%s", why);
    } else {
        consensus_distrust(c, why);
    }
}

static void close_file(struct scrub *s)
{
    s->state = CLOSING;
    s->waiting = false;
    s->io.file = s->file;
    s->file = NULL;
    submit(s, ENV_IO_CLOSE);
}

static void read_on(struct scrub *s)
{
    s->waiting = false;
    if (s->end && s->offset == s->end) return close_file(s);
    if (s->allowed <= 0) {
        s->waiting = true;
        return;
    }
    uint64_t left = s->end ? s->end - s->offset : PIECE_BYTES;
    s->io.file = s->file;
    s->io.offset = s->offset;
    s->io.buffer = s->buffer;
    s->io.len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    submit(s, ENV_IO_READ);
}

static void piece_read(struct scrub *s)
{
    size_t n = s->io.ret_len;
    s->bytes += n;
    s->allowed -= (int64_t)n;
    s->offset += n;
    bool short_of = n < s->io.len;
    int rv = check_piece(s, slice_make(s->buffer, n));
    if (!rv && short_of && s->item == SCRUB_SEGMENTS)
        rv = err_set(&s->e, ERR_CORRUPT, "%s: offset %" PRIu64 ": the file ends too early", s->path, s->offset);
    s->found = rv != 0;
    if (rv || short_of) return close_file(s);
    read_on(s);
}

static void closed(struct scrub *s)
{
    if (s->item == SCRUB_OLDER || s->item == SCRUB_NEWEST) snapfile_decoder_release(&s->decoder);
    if (s->item == SCRUB_META2 && !s->c->dead) check_meta(s);
    if (s->found && current(s)) scrub_found(s->c, s->path, s->e.text);
    if (s->item != SCRUB_SEGMENTS) s->item++;
    if (s->c->dead || s->c->closing) s->state = IDLE;
    else next_file(s);
}

/* The disk has lost some of it. What is held elsewhere is as good as empty: written again, term and vote by check_meta. */
static void unreadable(struct scrub *s)
{
    s->found = s->item >= SCRUB_SEGMENTS;
    if (s->found) (void)err_set(&s->e, ERR_CORRUPT, "%s: %.180s", s->path, s->io.err.text);
    else (void)check_piece(s, (struct slice){0});
    if (s->file) close_file(s);
    else closed(s);
}

static void step(struct env_io *io)
{
    struct scrub *s = io->data;
    struct consensus *c = s->c;
    if (io->op == ENV_IO_OPEN && !io->status) s->file = io->file;
    bool gone = io->op == ENV_IO_OPEN && io->status == ERR_NOT_FOUND; /* given back, or damage that meta_check finds */
    bool lost = io->status == ERR_CORRUPT;
    if (io->status && !gone && !lost) consensus_fatal(c, io->status, "scrub: %s: %s", s->path, io->err.text);
    if (s->state == CLOSING || gone) closed(s);
    else if (c->dead || c->closing || !current(s)) {
        if (s->file) close_file(s);
        else s->state = IDLE;
    } else if (lost) {
        unreadable(s);
    } else if (s->state == OPENING) {
        s->state = READING;
        read_on(s);
    } else {
        piece_read(s);
    }
    if (s->state == IDLE) consensus_snapshots_idle(c);
}

/* ---- the rest of raft/ --------------------------------------------------------------------------- */

void scrub_open(struct consensus *c)
{
    struct scrub *s = c->scrub = mem_must_calloc(1, sizeof *s);
    s->c = c;
    s->allowed_ms = consensus_now(c);
    s->next_round_ms = s->allowed_ms + c->scrub_interval_ms;
}

static void begin_round(struct scrub *s)
{
    if (!s->buffer) s->buffer = mem_must_alloc(PIECE_BYTES);
    s->item = SCRUB_META;
    s->segment.number = 0;
    next_file(s);
}

void scrub_tick(struct consensus *c)
{
    struct scrub *s = c->scrub;
    uint64_t now = consensus_now(c), passed = now - s->allowed_ms;
    if (passed > 1000) passed = 1000;
    s->allowed_ms = now;
    if (s->allowed <= 0) s->allowed += (int64_t)(c->scrub_rate * passed / 1000);
    if (s->state == IDLE && c->scrub_interval_ms != CONSENSUS_NO_SCRUB && now >= s->next_round_ms) begin_round(s);
    else if (s->waiting) read_on(s);
}

void scrub_soon(struct consensus *c)
{
    c->scrub->next_round_ms = 0;
}

bool scrub_idle(const struct consensus *c)
{
    return c->scrub->state == IDLE;
}

/* Closing: what waits does not wait any longer. */
void scrub_cancel(struct consensus *c)
{
    if (c->scrub->waiting) close_file(c->scrub);
}

void scrub_release(struct consensus *c)
{
    struct scrub *s = c->scrub;
    if (!s) return;
    if (s->state != IDLE && (s->item == SCRUB_OLDER || s->item == SCRUB_NEWEST)) snapfile_decoder_release(&s->decoder);
    mem_free(s->buffer);
    mem_free(s);
    c->scrub = NULL;
}

void scrub_status(const struct consensus *c, struct consensus_status *ret)
{
    ret->scrub_bytes = c->scrub->bytes;
    ret->scrub_rounds = c->scrub->rounds;
    ret->scrub_errors = c->scrub->errors;
}
