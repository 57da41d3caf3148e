/* Appending. The happy path: wal_append puts the request into the queue; wal_flush takes what fits
 * into one record - head, table of entries, payloads by reference - and gives it to the log lane as
 * one write + fdatasync; when that is done, the requests complete in order and the next record
 * forms from what came meanwhile.
 *
 * What makes it wait: a record under way; a segment that is full while the next one is not ready
 * yet; an extension that is writing zeros where the record would go. What makes it fail: any error
 * from the disk, for good. */
#define XXH_STATIC_LINKING_ONLY /* its state, to have it on the stack */
#include <xxhash.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/wal_format_int.h"

#define REFERENCED_MAX                                                                             \
    (ENV_IOV_MAX - 4) /* payloads in one write by reference; beyond, they are copied */

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

void wal_head_encode(uint8_t out[WAL_RECORD_HEAD], const struct wal_head *h)
{
    put64(out, h->salt);
    put32(out + 8, h->crc);
    put32(out + 12, h->prev_crc);
    put64(out + 16, h->seq);
    put64(out + 24, h->index);
    put64(out + 32, h->term);
    put32(out + 40, h->kind);
    put32(out + 44, h->count);
    put32(out + 48, h->length);
    put32(out + 52, h->check);
}

uint32_t wal_record_check(const uint8_t head[WAL_RECORD_HEAD], uint64_t seed, const struct slice *pieces, size_t n)
{
    XXH64_state_t x;
    XXH64_reset(&x, seed);
    XXH64_update(&x, head + 12, WAL_RECORD_HEAD - 16);
    for (size_t i = 0; i < n; i++) XXH64_update(&x, pieces[i].data, pieces[i].len);
    uint32_t check = (uint32_t)XXH64_digest(&x);
    return check ? check : 1; /* 0: a record of an earlier version, which has none */
}

struct wal_sums wal_record_sums(const uint8_t head[WAL_RECORD_HEAD], const struct slice *pieces,
                                size_t n)
{
    struct wal_sums sums;
    struct wal_head h;
    uint8_t field[4] = {0};
    wal_head_decode(head, &h);
    sums.check = wal_record_check(head, h.salt, pieces, n);
    put32(field, sums.check);
    sums.crc = crc32c(crc32c(0, head + 12, WAL_RECORD_HEAD - 16), field, sizeof field);
    for (size_t i = 0; i < n; i++) sums.crc = crc32c(sums.crc, pieces[i].data, pieces[i].len);
    return sums;
}

void wal_fatal(struct wal *w, const struct env_io *io, const char *what)
{
    if (w->failed) return;
    w->failed = true;
    struct err e;
    err_set(&e, 0, "write-ahead log: %s: %.160s", what,
            io->err.text[0] ? io->err.text : err_text(io->status));
    w->o.fatal(w->o.ctx, io->status, e.text);
}

bool wal_idle(const struct wal *w)
{
    return list_empty(&w->queue) && list_empty(&w->flying);
}

uint64_t wal_last_index(const struct wal *w)
{
    return w->last_index;
}

void wal_get_stats(const struct wal *w, struct wal_stats *ret)
{
    *ret = w->stats;
}

static struct wal_segment *current(struct wal *w)
{
    return container_of(w->segments.prev, struct wal_segment, node);
}

/* ---- forming a record ------------------------------------------------------------------------ */

static size_t append_bytes(const struct wal_append *a)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < a->n; i++) bytes += WAL_TABLE_ENTRY + a->entries[i].buf.len;
    return bytes;
}

static void drop_owned(struct wal_append *a)
{
    if (a->owned) mem_free(a);
}

static void take(struct wal *w, struct wal_append *a)
{
    list_remove(&a->node);
    list_push_back(&w->flying, &a->node);
}

/* Moves what makes the next record from the queue to `flying`; returns its payload's length. */
static uint64_t gather(struct wal *w)
{
    struct wal_append *first = container_of(w->queue.next, struct wal_append, node);
    /* A truncation is contained in the append that follows it. */
    while (first->kind == WAL_TRUNCATE && !first->done && first->node.next != &w->queue) {
        struct wal_append *after = container_of(first->node.next, struct wal_append, node);
        if (after->kind != WAL_ENTRIES || after->first_index > first->first_index) break;
        list_remove(&first->node);
        drop_owned(first);
        first = after;
    }
    struct wal_head *h = &w->record;
    *h = (struct wal_head){.kind = first->kind, .index = first->first_index, .term = first->term};
    uint64_t length = append_bytes(first);
    h->count = first->n;
    take(w, first);
    while (h->kind == WAL_ENTRIES && !list_empty(&w->queue)) {
        struct wal_append *a = container_of(w->queue.next, struct wal_append, node);
        if (a->kind != WAL_ENTRIES || a->first_index != h->index + h->count) break;
        uint64_t more = append_bytes(a);
        if (length + more > WAL_GROUP_BYTES) break;
        length += more;
        h->count += a->n;
        take(w, a);
    }
    return length;
}

static void add_piece(struct env_io *io, struct slice s)
{
    if (s.len == 0) return;
    CHECK(io->n_iov < ENV_IOV_MAX);
    io->iov[io->n_iov++] = s;
}

/* The payloads, by reference while they are few. */
static void add_payloads(struct wal *w, struct env_io *io)
{
    bool copy = w->record.count > REFERENCED_MAX;
    buf_clear(&w->copy);
    list_for_each(node, &w->flying)
    {
        struct wal_append *a = container_of(node, struct wal_append, node);
        for (unsigned i = 0; i < a->n; i++) {
            struct slice s = slice_make(a->entries[i].buf.base, a->entries[i].buf.len);
            if (copy) (void)buf_append_slice(&w->copy, s);
            else add_piece(io, s);
        }
    }
    if (copy) add_piece(io, buf_slice(&w->copy));
}

static void encode_table(struct wal *w)
{
    buf_clear(&w->head);
    uint8_t *head = buf_reserve(&w->head, WAL_RECORD_HEAD);
    if (head) w->head.len += WAL_RECORD_HEAD;
    list_for_each(node, &w->flying)
    {
        struct wal_append *a = container_of(node, struct wal_append, node);
        for (unsigned i = 0; i < a->n; i++) {
            (void)buf_append_u64(&w->head, a->entries[i].term);
            (void)buf_append_u32(&w->head, a->entries[i].type);
            (void)buf_append_u32(&w->head, (uint32_t)a->entries[i].buf.len);
        }
    }
}

/* Fills in where the record stands, and its checksums; `pieces` follow the head. */
static void finish_head(struct wal *w, struct wal_head *h, uint8_t out[WAL_RECORD_HEAD],
                        const struct slice *pieces, size_t n)
{
    h->salt = current(w)->salt;
    h->prev_crc = w->at.crc;
    h->seq = w->at.seq;
    wal_head_encode(out, h);
    struct wal_sums sums = wal_record_sums(out, pieces, n);
    h->crc = sums.crc;
    h->check = sums.check;
    wal_head_encode(out, h);
}

/* Of a record with so much payload; the first of a segment has a BEGIN before it. */
static uint64_t span(const struct wal *w, uint64_t length)
{
    return wal_record_bytes(length) + (w->pos == WAL_SEGMENT_HEAD ? WAL_RECORD_HEAD : 0);
}

static int encode_record(struct wal *w, struct env_io *io)
{
    struct wal_head *h = &w->record;
    io->n_iov = 0;
    if (w->pos == WAL_SEGMENT_HEAD) {
        struct wal_head begin = {.kind = WAL_BEGIN};
        finish_head(w, &begin, w->begin, NULL, 0);
        add_piece(io, slice_make(w->begin, WAL_RECORD_HEAD));
    }
    encode_table(w);
    if (w->head.failed) return w->head.failed;
    unsigned head = io->n_iov;
    io->iov[io->n_iov++] = buf_slice(&w->head);
    add_payloads(w, io);
    if (w->copy.failed) return w->copy.failed;
    /* The table lies behind the head in one buffer: as a piece of its own only for the sums. */
    struct slice all = io->iov[head];
    io->iov[head] = slice_sub(all, WAL_RECORD_HEAD, SIZE_MAX);
    finish_head(w, h, w->head.data, io->iov + head, io->n_iov - head);
    io->iov[head] = all;
    uint64_t bytes = WAL_RECORD_HEAD + h->length, padding = wal_record_bytes(h->length) - bytes;
    if (padding) io->iov[io->n_iov++] = slice_make(wal_zeros, padding);
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void written(struct env_io *io);

static void remember(struct wal *w)
{
    const struct wal_head *h = &w->record;
    struct wal_segment *s = current(w);
    w->at = (struct wal_place){h->seq + 1, h->crc};
    s->end = w->pos;
    s->to = w->at;
    if (h->kind == WAL_ENTRIES) w->last_index = h->index + h->count - 1;
    if (h->kind == WAL_TRUNCATE) w->last_index = h->index - 1;
    if (h->kind == WAL_RESET) {
        w->last_index = h->index;
        list_for_each(node, &w->segments) container_of(node, struct wal_segment, node)->max_index =
            0;
    }
    if (h->kind == WAL_ENTRIES && w->last_index > s->max_index) s->max_index = w->last_index;
}

static void submit(struct wal *w, uint64_t bytes)
{
    struct env_io *io = &w->io;
    io->op = ENV_IO_WRITE_SYNC;
    io->lane = ENV_LANE_LOG;
    io->file = w->file;
    io->offset = w->pos;
    io->status = 0;
    io->err.text[0] = 0;
    io->done = written;
    io->data = w;
    w->writing = true;
    w->busy++;
    w->pos += bytes;
    if (w->prepared < w->pos) w->prepared = w->pos;
    w->write_started_ms = w->o.env->ops->now_ms(w->o.env);
    w->o.env->ops->io(w->o.env, io);
}

/* Room for a record of `bytes`: in this segment, or in the next one. */
static bool has_room(struct wal *w, uint64_t bytes)
{
    if (w->pos + bytes > w->o.segment_bytes && w->pos > WAL_SEGMENT_HEAD) {
        if (!wal_switch(w)) {
            wal_prepare_next(w);
            return false;
        }
    }
    return !(w->extending && w->pos + bytes > w->prepared);
}

static uint64_t peek_bytes(struct wal *w)
{
    uint64_t length = 0;
    list_for_each(node, &w->queue)
    {
        uint64_t more = append_bytes(container_of(node, struct wal_append, node));
        if (length && length + more > WAL_GROUP_BYTES) break;
        length += more;
    }
    return span(w, length);
}

void wal_flush(struct wal *w)
{
    if (w->failed || w->writing || list_empty(&w->queue)) return;
    if (!has_room(w, peek_bytes(w))) return;
    uint64_t length = gather(w);
    CHECK(length <= UINT32_MAX);
    w->record.length = (uint32_t)length;
    int rv = encode_record(w, &w->io);
    if (rv) {
        w->io.status = rv;
        w->io.err.text[0] = 0;
        wal_fatal(w, &w->io, "record");
        return;
    }
    submit(w, span(w, length));
    wal_extend(w);
    if (w->pos > w->o.segment_bytes / 2) wal_prepare_next(w);
}

static void written(struct env_io *io)
{
    struct wal *w = io->data;
    w->writing = false;
    w->busy--;
    if (io->status) wal_fatal(w, io, "append");
    if (w->failed) return wal_maybe_closed(w);
    w->stats.syncs++;
    w->stats.sync_ms += w->o.env->ops->now_ms(w->o.env) - w->write_started_ms;
    w->stats.bytes += WAL_RECORD_HEAD + w->record.length;
    if (w->record.kind == WAL_ENTRIES) w->stats.appends += w->record.count;
    remember(w);
    /* The next record is on its way before anyone is told of this one. */
    struct list done;
    list_init(&done);
    for (struct list *n; (n = list_pop_front(&w->flying));) list_push_back(&done, n);
    wal_flush(w);
    for (struct list *n; (n = list_pop_front(&done));) {
        struct wal_append *a = container_of(n, struct wal_append, node);
        if (a->done && !w->failed) a->done(a);
        else drop_owned(a);
    }
    wal_maybe_closed(w);
}

static void enqueue(struct wal *w, struct wal_append *a, enum wal_kind kind)
{
    a->kind = kind;
    a->owned = false;
    list_push_back(&w->queue, &a->node);
    wal_flush(w);
}

void wal_append(struct wal *w, struct wal_append *a)
{
    CHECK(a->n > 0);
    a->term = 0;
    enqueue(w, a, WAL_ENTRIES);
}

static int write_now(struct wal *w, struct wal_append *a, struct err *e)
{
    list_push_back(&w->queue, &a->node);
    w->record.length = (uint32_t)gather(w);
    int rv = encode_record(w, &w->io);
    list_remove(&a->node);
    if (rv) return err_set(e, rv, "write-ahead log: %s", err_text(rv));
    w->io.op = ENV_IO_WRITE_SYNC;
    w->io.file = w->file;
    w->io.offset = w->pos;
    rv = w->o.env->ops->io_sync(w->o.env, &w->io);
    if (rv) return err_set(e, rv, "write-ahead log: %.200s", w->io.err.text);
    w->pos += span(w, w->record.length);
    if (w->prepared < w->pos) w->prepared = w->pos;
    remember(w);
    return 0;
}

int wal_append_sync(struct wal *w, uint64_t index, uint64_t term, unsigned short type,
                    struct slice data, struct err *e)
{
    struct raft_entry entry = {.term = term, .type = type};
    entry.buf.base = (void *)(uintptr_t)data.data;
    entry.buf.len = data.len;
    struct wal_append a = {.first_index = index, .entries = &entry, .n = 1, .kind = WAL_ENTRIES};
    return write_now(w, &a, e);
}

int wal_reset_sync(struct wal *w, uint64_t index, uint64_t term, struct err *e)
{
    struct wal_append a = {.first_index = index, .term = term, .kind = WAL_RESET};
    return write_now(w, &a, e);
}

void wal_truncate(struct wal *w, uint64_t index)
{
    struct wal_append *a = mem_must_calloc(1, sizeof *a);
    a->first_index = index;
    a->kind = WAL_TRUNCATE;
    a->owned = true;
    list_push_back(&w->queue, &a->node);
    /* Not flushed: an append follows at once and contains it, else the next tick writes it. */
}

void wal_truncate_sync(struct wal *w, struct wal_append *a, uint64_t index)
{
    a->first_index = index;
    a->n = 0;
    a->term = 0;
    enqueue(w, a, WAL_TRUNCATE);
}

void wal_reset(struct wal *w, struct wal_append *a, uint64_t index, uint64_t term)
{
    a->first_index = index;
    a->n = 0;
    a->term = term;
    enqueue(w, a, WAL_RESET);
}

/* ---- ticks, closing -------------------------------------------------------------------------- */

void wal_tick(struct wal *w)
{
    if (w->failed || w->closing) return;
    wal_flush(w);
    (void)wal_mark_write(w, false);
}

static void file_closed(struct env_io *io)
{
    struct wal *w = io->data;
    w->busy--;
    wal_maybe_closed(w);
}

static void drop_queue(struct wal *w)
{
    for (struct list *n; (n = list_pop_front(&w->queue));)
        drop_owned(container_of(n, struct wal_append, node));
    for (struct list *n; (n = list_pop_front(&w->flying));)
        drop_owned(container_of(n, struct wal_append, node));
}

void wal_free(struct wal *w)
{
    if (!w) return;
    drop_queue(w);
    for (struct list *n; (n = list_pop_front(&w->segments));)
        mem_free(container_of(n, struct wal_segment, node));
    for (struct list *n; (n = list_pop_front(&w->freeing));)
        mem_free(container_of(n, struct wal_segment, node));
    mem_free(w->next);
    buf_release(&w->head);
    buf_release(&w->copy);
    mem_free(w);
}

static void close_file(struct wal *w, struct env_file **file, struct env_io *io)
{
    *io = (struct env_io){
        .op = ENV_IO_CLOSE, .lane = ENV_LANE_LOG, .file = *file, .done = file_closed, .data = w};
    *file = NULL;
    w->busy++;
    w->o.env->ops->io(w->o.env, io);
}

void wal_maybe_closed(struct wal *w)
{
    if (!w->closing || w->busy) return;
    if (!w->failed) {
        if (!list_empty(&w->queue)) return wal_flush(w);
        if (!w->mark_synced) {
            w->mark_synced = wal_mark_write(w, true);
            return;
        }
    }
    if (w->mark_file) return close_file(w, &w->mark_file, &w->mark_io);
    if (w->file) return close_file(w, &w->file, &w->io);
    if (w->next_file) return close_file(w, &w->next_file, &w->next_io);
    void (*closed)(void *ctx) = w->closed;
    void *ctx = w->closed_ctx;
    wal_free(w);
    closed(ctx);
}

void wal_close(struct wal *w, void (*closed)(void *ctx), void *ctx)
{
    w->closing = true;
    w->closed = closed;
    w->closed_ctx = ctx;
    wal_maybe_closed(w);
}
