/* wal/mark: a record of the log that was durable, written again at each tick in which the log has
 * grown, and synced when it is closed in order. With it the end of the log is known from a second
 * place: records up to there cannot be missing, so a bad one is damage and no torn write, and a
 * segment that was put back from an old copy is noticed. It is never ahead of the log, and when a
 * power failure takes it back it only knows less.
 *
 * Two copies, one sector each, in one write: a crash tears at most one of them. */
#include <inttypes.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "raft/wal_format_int.h"

#define MARK_MAGIC 0x314b524d544e5000u /* "\0PNTMRK1" */

static void put(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void encode(struct wal *w, struct wal_place at)
{
    uint8_t *p = w->mark;
    memset(p, 0, WAL_MARK_BYTES);
    put(p, MARK_MAGIC, 8);
    put(p + 8, w->o.cluster_id, 8);
    put(p + 16, w->o.member_id, 8);
    put(p + 24, at.seq, 8);
    put(p + 32, at.crc, 4);
    put(p + WAL_MARK_COPY - 4, crc32c(0, p, WAL_MARK_COPY - 4), 4);
    memcpy(p + WAL_MARK_COPY, p, WAL_MARK_COPY);
    w->marked_seq = at.seq;
}

static bool decode(struct slice copy, const struct wal_options *o, struct wal_place *ret)
{
    struct reader r = reader_make(copy);
    uint64_t magic = reader_u64(&r), cluster = reader_u64(&r), member = reader_u64(&r);
    struct wal_place at = {.seq = reader_u64(&r)};
    at.crc = reader_u32(&r);
    struct reader sum = reader_make(slice_sub(copy, WAL_MARK_COPY - 4, 4));
    if (copy.len != WAL_MARK_COPY || magic != MARK_MAGIC || cluster != o->cluster_id ||
        member != o->member_id)
        return false;
    if (reader_u32(&sum) != crc32c(0, copy.data, WAL_MARK_COPY - 4)) return false;
    *ret = at;
    return true;
}

bool wal_mark_decode(struct slice file, const struct wal_options *o, struct wal_place *ret,
                     unsigned *ret_whole)
{
    *ret_whole = 0;
    for (int i = 0; i < 2; i++) {
        struct wal_place at;
        if (!decode(slice_sub(file, i * WAL_MARK_COPY, WAL_MARK_COPY), o, &at)) continue;
        if (!*ret_whole || at.seq > ret->seq) *ret = at;
        ++*ret_whole;
    }
    return *ret_whole > 0;
}

static int read_mark(struct wal *w, struct wal_place *ret, struct err *e)
{
    struct env *env = w->o.env;
    struct buf b;
    unsigned whole;
    buf_init(&b, 2 * WAL_MARK_BYTES);
    int rv = env->ops->read_file(env, WAL_MARK, WAL_MARK_BYTES, &b, e);
    if (rv == ERR_LIMIT || (!rv && b.len != WAL_MARK_BYTES))
        rv = err_set(e, ERR_CORRUPT, WAL_MARK ": offset %zu: not of its length", b.len);
    if (!rv && !wal_mark_decode(buf_slice(&b), &w->o, ret, &whole))
        rv = err_set(e, ERR_CORRUPT, WAL_MARK ": offset 0: neither copy is whole");
    if (!rv) encode(w, *ret);
    if (!rv && whole == 1) { /* the next write could tear the other one */
        log_warn("raft: " WAL_MARK ": one of its copies is not whole, written again from the other");
        rv = env->ops->write_file(env, WAL_MARK, slice_make(w->mark, WAL_MARK_BYTES), e);
    }
    buf_release(&b);
    return rv;
}

static int open_file(struct wal *w, struct err *e)
{
    struct env *env = w->o.env;
    struct env_io io = {.op = ENV_IO_OPEN, .path = WAL_MARK, .flags = ENV_OPEN_WRITE};
    int rv = env->ops->io_sync(env, &io);
    if (rv) return err_set(e, rv, WAL_MARK ": %.200s", io.err.text);
    w->mark_file = io.file;
    return 0;
}

int wal_mark_make(struct wal *w, struct wal_place at, struct err *e)
{
    struct env *env = w->o.env;
    encode(w, at);
    int rv = env->ops->write_file(env, WAL_MARK, slice_make(w->mark, WAL_MARK_BYTES), e);
    return rv ? rv : open_file(w, e);
}

int wal_mark_open(struct wal *w, struct wal_place *ret, struct err *e)
{
    int rv = read_mark(w, ret, e);
    if (rv == ERR_NOT_FOUND) {
        *ret = (struct wal_place){.seq = 1};
        return wal_mark_make(w, *ret, e);
    }
    return rv ? rv : open_file(w, e);
}

static void marked(struct env_io *io)
{
    struct wal *w = io->data;
    w->marking = false;
    w->busy--;
    if (io->status) wal_fatal(w, io, "mark");
    wal_maybe_closed(w);
}

bool wal_mark_write(struct wal *w, bool sync)
{
    if (w->marking || (w->marked_seq == w->at.seq && !sync)) return false;
    encode(w, w->at);
    struct env_io *io = &w->mark_io;
    *io = (struct env_io){.op = sync ? ENV_IO_WRITE_SYNC : ENV_IO_WRITE, .lane = ENV_LANE_BULK};
    io->file = w->mark_file;
    io->iov[0] = slice_make(w->mark, WAL_MARK_BYTES);
    io->n_iov = 1;
    io->done = marked;
    io->data = w;
    w->marking = true;
    w->busy++;
    w->o.env->ops->io(w->o.env, io);
    return true;
}
