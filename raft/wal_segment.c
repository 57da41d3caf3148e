/* The life of a segment: written ahead as new.tmp (or taken over from spare.tmp), given its header,
 * renamed to its number; extended by zeros ahead of the appends; and, when none of its entries is
 * needed any more, turned into the spare or removed. All of it on the bulk lane, beside the
 * appends. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/wal_format_int.h"

const uint8_t wal_zeros[256 * 1024];

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

void wal_segment_path(char out[WAL_PATH_BYTES], uint64_t number)
{
    snprintf(out, WAL_PATH_BYTES, WAL_DIR "/%016" PRIx64 ".wal", number);
}

void wal_segment_head(uint8_t out[WAL_SEGMENT_HEAD], const struct wal_options *o, uint64_t number,
                      uint64_t salt)
{
    memset(out, 0, WAL_SEGMENT_HEAD);
    put64(out, WAL_MAGIC);
    put64(out + 8, o->cluster_id);
    put64(out + 16, o->member_id);
    put64(out + 24, number);
    put64(out + 32, salt);
    put32(out + 60, crc32c(0, out, 60));
}

int wal_segment_head_check(struct slice file, const struct wal_options *o, uint64_t number,
                           const char *path, uint64_t *ret_salt, struct err *e)
{
    struct reader r = reader_make(file);
    struct slice head = slice_sub(file, 0, 60);
    uint64_t magic = reader_u64(&r), cluster = reader_u64(&r), member = reader_u64(&r);
    uint64_t its_number = reader_u64(&r), salt = reader_u64(&r);
    (void)reader_bytes(&r, 20);
    uint32_t crc = reader_u32(&r);
    if (r.failed)
        return err_set(e, ERR_CORRUPT, "%s: offset %zu: header cut short", path, file.len);
    if (magic != WAL_MAGIC) return err_set(e, ERR_CORRUPT, "%s: offset 0: not a log segment", path);
    if (crc != crc32c(0, head.data, head.len)) {
        return err_set(e, ERR_CORRUPT, "%s: offset 0: header checksum does not match", path);
    }
    if (cluster != o->cluster_id || member != o->member_id) {
        return err_set(e, ERR_CLUSTER_MISMATCH,
                       "%s: belongs to member %" PRIx64 " of cluster %" PRIx64 ", not to %" PRIx64
                       " of %" PRIx64,
                       path, member, cluster, o->member_id, o->cluster_id);
    }
    if (its_number != number) {
        return err_set(e, ERR_CORRUPT, "%s: offset 24: is segment number %" PRIx64, path,
                       its_number);
    }
    *ret_salt = salt;
    return 0;
}

/* Pieces of zeros that add up to `bytes`; 16 pieces are 4 MiB. */
static void add_zeros(struct env_io *io, uint64_t bytes)
{
    while (bytes) {
        size_t n = bytes < sizeof wal_zeros ? (size_t)bytes : sizeof wal_zeros;
        CHECK(io->n_iov < ENV_IOV_MAX);
        io->iov[io->n_iov++] = slice_make(wal_zeros, n);
        bytes -= n;
    }
}

/* Of a new segment, before it is used. */
static uint64_t first_bytes(const struct wal *w)
{
    uint64_t part = w->o.segment_bytes / 16;
    return part < WAL_FIRST_BYTES ? part : WAL_FIRST_BYTES;
}

/* Written ahead in one go. */
static uint64_t prepare_bytes(const struct wal *w)
{
    uint64_t part = w->o.segment_bytes / 4;
    return part < WAL_PREPARE_BYTES ? part : WAL_PREPARE_BYTES;
}

static struct wal_segment *segment_new(struct wal *w)
{
    struct wal_segment *s = mem_must_calloc(1, sizeof *s);
    uint64_t newest = list_empty(&w->segments)
                          ? 0
                          : container_of(w->segments.prev, struct wal_segment, node)->number;
    s->number = newest + 1;
    do s->salt = w->o.env->ops->random(w->o.env);
    while (s->salt == 0);
    wal_segment_path(s->path, s->number);
    wal_segment_head(w->next_head, &w->o, s->number, s->salt);
    s->end = WAL_SEGMENT_HEAD;
    list_init(&s->node);
    return s;
}

/* The first segment of all, when the log is created. */
int wal_segment_create_sync(struct wal *w, struct err *e)
{
    struct env *env = w->o.env;
    struct wal_segment *s = segment_new(w);
    struct env_io io = {
        .op = ENV_IO_OPEN, .path = WAL_NEW, .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE};
    int rv = env->ops->io_sync(env, &io);
    if (rv) goto failed;
    io.op = ENV_IO_WRITE_SYNC;
    io.iov[0] = slice_make(w->next_head, WAL_SEGMENT_HEAD);
    io.n_iov = 1;
    add_zeros(&io, first_bytes(w) - WAL_SEGMENT_HEAD);
    rv = env->ops->io_sync(env, &io);
    if (rv) goto failed;
    struct env_io move = {.op = ENV_IO_RENAME, .path = WAL_NEW, .path2 = s->path};
    rv = env->ops->io_sync(env, &move);
    if (rv) {
        io.err = move.err;
        goto failed;
    }
    w->file = io.file;
    w->pos = WAL_SEGMENT_HEAD;
    w->prepared = first_bytes(w);
    s->from = s->to = w->at;
    list_push_back(&w->segments, &s->node);
    return 0;
failed:
    if (io.file) {
        struct env_io close = {.op = ENV_IO_CLOSE, .file = io.file};
        (void)env->ops->io_sync(env, &close);
    }
    mem_free(s);
    return err_set(e, rv, "%s: %.200s", WAL_NEW, io.err.text[0] ? io.err.text : err_text(rv));
}

/* The next step of something that takes several. */
static void bulk_submit(struct wal *w, struct env_io *io, enum env_io_op op, void (*done)(struct env_io *io))
{
    io->op = op;
    io->lane = ENV_LANE_BULK;
    io->status = 0;
    io->err.text[0] = 0;
    io->done = done;
    io->data = w;
    w->busy++;
    w->o.env->ops->io(w->o.env, io);
}

/* ---- extension ------------------------------------------------------------------------------- */

/* Through an open file of its own: the system tells of a write that it could not do once for each open file, and an append that
 * syncs the same one beside this must not miss it. */
static void extend_step(struct env_io *io);

static void extend_submit(struct wal *w, enum env_io_op op)
{
    bulk_submit(w, &w->extend_io, op, extend_step);
}

static void extend_step(struct env_io *io)
{
    struct wal *w = io->data;
    w->busy--;
    if (io->status) wal_fatal(w, io, "extend");
    if (io->op == ENV_IO_OPEN && !io->status) return extend_submit(w, ENV_IO_WRITE_SYNC);
    if (io->op == ENV_IO_WRITE_SYNC) {
        if (!io->status) w->prepared += io->len;
        extend_submit(w, ENV_IO_CLOSE);
    } else {
        w->extending = false;
    }
    wal_flush(w);
    wal_maybe_closed(w);
}

void wal_extend(struct wal *w)
{
    if (w->extending || w->closing || w->failed || w->prepared >= w->o.segment_bytes) return;
    uint64_t bytes = w->o.segment_bytes - w->prepared;
    if (w->prepared - w->pos > prepare_bytes(w)) return;
    if (bytes > prepare_bytes(w)) bytes = prepare_bytes(w);
    struct env_io *io = &w->extend_io;
    *io = (struct env_io){.path = container_of(w->segments.prev, struct wal_segment, node)->path,
                          .flags = ENV_OPEN_WRITE,
                          .offset = w->prepared,
                          .len = (size_t)bytes};
    add_zeros(io, bytes);
    w->extending = true;
    extend_submit(w, ENV_IO_OPEN);
}

/* ---- the next segment ------------------------------------------------------------------------ */

static void next_step(struct env_io *io);

static void next_submit(struct wal *w, enum env_io_op op, enum wal_next state)
{
    w->next_state = state;
    bulk_submit(w, &w->next_io, op, next_step);
}

static void next_write_head(struct wal *w)
{
    struct env_io *io = &w->next_io;
    w->next_file = io->file;
    io->offset = 0;
    io->iov[0] = slice_make(w->next_head, WAL_SEGMENT_HEAD);
    io->n_iov = 1;
    if (!w->next_prepared) {
        w->next_prepared = first_bytes(w);
        add_zeros(io, w->next_prepared - WAL_SEGMENT_HEAD);
    }
    next_submit(w, ENV_IO_WRITE_SYNC, WAL_NEXT_HEAD);
}

static void next_step(struct env_io *io)
{
    struct wal *w = io->data;
    w->busy--;
    if (io->status) {
        wal_fatal(w, io, "next segment");
        return wal_maybe_closed(w);
    }
    if (w->next_state == WAL_NEXT_OPEN) next_write_head(w);
    else if (w->next_state == WAL_NEXT_HEAD) {
        io->path2 = w->next->path;
        next_submit(w, ENV_IO_RENAME, WAL_NEXT_RENAME);
    } else {
        w->next_state = WAL_NEXT_READY;
        wal_flush(w);
    }
    wal_maybe_closed(w);
}

void wal_prepare_next(struct wal *w)
{
    if (w->next_state != WAL_NEXT_NONE || w->failed || w->spare_coming) return;
    struct env_io *io = &w->next_io;
    w->next = segment_new(w);
    io->path = w->have_spare ? WAL_SPARE : WAL_NEW;
    io->flags = w->have_spare ? ENV_OPEN_WRITE : ENV_OPEN_WRITE | ENV_OPEN_CREATE;
    w->next_prepared = w->have_spare ? w->spare_bytes : 0;
    w->have_spare = false;
    next_submit(w, ENV_IO_OPEN, WAL_NEXT_OPEN);
}

static void old_closed(struct env_io *io)
{
    struct wal *w = io->data;
    mem_free(io);
    w->busy--;
    wal_maybe_closed(w);
}

bool wal_switch(struct wal *w)
{
    if (w->next_state != WAL_NEXT_READY || w->extending) return false;
    struct env_io *io = mem_must_calloc(1, sizeof *io);
    *io = (struct env_io){
        .op = ENV_IO_CLOSE, .lane = ENV_LANE_LOG, .file = w->file, .done = old_closed, .data = w};
    w->busy++;
    w->o.env->ops->io(w->o.env, io);
    w->file = w->next_file;
    w->next_file = NULL;
    w->pos = WAL_SEGMENT_HEAD;
    w->prepared = w->next_prepared;
    w->next_prepared = 0;
    w->next->from = w->next->to = w->at;
    list_push_back(&w->segments, &w->next->node);
    w->next = NULL;
    w->next_state = WAL_NEXT_NONE;
    wal_free_segments(w);
    return true;
}

/* ---- giving back ----------------------------------------------------------------------------- */

static void freed(struct env_io *io)
{
    struct wal *w = io->data;
    w->busy--;
    w->free_busy = false;
    struct wal_segment *s = container_of(list_pop_front(&w->freeing), struct wal_segment, node);
    mem_free(s);
    if (io->status) wal_fatal(w, io, "remove segment");
    if (io->op == ENV_IO_RENAME) {
        w->spare_coming = false;
        w->have_spare = io->status == 0;
    }
    wal_free_segments(w);
    if (!w->failed) wal_flush(w);
    wal_maybe_closed(w);
}

/* One at a time and oldest first, so that what a crash leaves has no hole. */
void wal_free_segments(struct wal *w)
{
    if (w->free_busy || w->failed || w->closing || list_empty(&w->freeing)) return;
    struct wal_segment *s = container_of(w->freeing.next, struct wal_segment, node);
    struct env_io *io = &w->free_io;
    bool keep = !w->have_spare && w->next_state == WAL_NEXT_NONE;
    *io = (struct env_io){
        .op = keep ? ENV_IO_RENAME : ENV_IO_UNLINK, .lane = ENV_LANE_BULK, .path = s->path};
    io->path2 = keep ? WAL_SPARE : NULL;
    io->done = freed;
    io->data = w;
    if (keep) {
        w->spare_coming = true;
        w->spare_bytes = w->o.segment_bytes;
    }
    w->free_busy = true;
    w->busy++;
    w->o.env->ops->io(w->o.env, io);
}

void wal_release(struct wal *w, uint64_t index)
{
    if (w->closing || w->failed) return;
    while (w->segments.next != w->segments.prev) {
        struct wal_segment *s = container_of(w->segments.next, struct wal_segment, node);
        /* The newest record stays, also when the segments behind it are still empty: wal/mark knows of it. */
        if (s->max_index > index || s->to.seq == w->at.seq) break;
        list_remove(&s->node);
        list_push_back(&w->freeing, &s->node);
    }
    wal_free_segments(w);
}
