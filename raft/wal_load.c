/* Reading the log back. Segments in order; in each, records in order, every one chained to the one
 * before. The first record that does not fit ends the segment: the next segment must go on exactly
 * where it ended (each begins by saying where it goes on), nothing valid may lie behind it, the mark
 * (wal_mark.c) must not know of more, and it must not be a whole record but for one bit. Then it was
 * the torn end of the last write, and is cut. Everything else is ERR_CORRUPT. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/frames_int.h"
#include "raft/wal_format_int.h"

#define READ_BYTES (4 * LIMIT_MiB)
#define FILE_MAX_BYTES (2048 * LIMIT_MiB)

struct loading {
    struct wal *w;
    struct wal_contents *c;
    size_t size; /* of c->entries */
    uint64_t *numbers;
    size_t n_numbers, numbers_size;
    bool have_spare, bad_name;
    char name[WAL_PATH_BYTES];
    bool started; /* a record was seen: its place in the chain is known */
    const struct wal_segment *before;
    struct wal_place mark;
    struct wal_segment *last; /* with the last record, which lies at last_pos */
    uint64_t last_pos, last_bytes;
    struct wal_segment *bad; /* where something lies that is no record */
};

void wal_contents_release(struct wal_contents *c)
{
    for (size_t i = 0; i < c->n; i++) raft_free(c->entries[i].data);
    mem_free(c->entries);
    *c = (struct wal_contents){0};
}

void wal_head_decode(const uint8_t *in, struct wal_head *h)
{
    struct reader r = reader_make(slice_make(in, WAL_RECORD_HEAD));
    h->salt = reader_u64(&r);
    h->crc = reader_u32(&r);
    h->prev_crc = reader_u32(&r);
    h->seq = reader_u64(&r);
    h->index = reader_u64(&r);
    h->term = reader_u64(&r);
    h->kind = reader_u32(&r);
    h->count = reader_u32(&r);
    h->length = reader_u32(&r);
    h->check = reader_u32(&r);
}

/* Whether a whole record with this salt starts at `pos`. */
static bool record_at(struct slice file, uint64_t pos, uint64_t salt, struct wal_head *h)
{
    if (pos > file.len || file.len - pos < WAL_RECORD_HEAD) return false;
    wal_head_decode(file.data + pos, h);
    if (h->salt != salt || h->length > file.len - pos - WAL_RECORD_HEAD) return false;
    if (h->crc != crc32c(0, file.data + pos + 12, WAL_RECORD_HEAD - 12 + h->length)) return false;
    struct slice payload = slice_make(file.data + pos + WAL_RECORD_HEAD, h->length);
    return h->check == 0 || h->check == wal_record_check(file.data + pos, salt, &payload, 1) ||
           h->check == wal_record_check(file.data + pos, 0, &payload, 1);
}

static int read_file(struct wal *w, const char *path, struct buf *out, struct err *e)
{
    struct env *env = w->o.env;
    struct env_io io = {.op = ENV_IO_OPEN, .path = path};
    int rv = env->ops->io_sync(env, &io);
    if (rv) return err_set(e, rv, "%s: %.200s", path, io.err.text);
    for (;;) {
        io.op = ENV_IO_READ;
        io.offset = out->len;
        io.len = READ_BYTES;
        io.buffer = buf_reserve(out, READ_BYTES);
        if (!io.buffer) {
            rv = err_set(e, out->failed, "%s: %s", path, err_text(out->failed));
            break;
        }
        rv = env->ops->io_sync(env, &io);
        if (rv) {
            (void)err_set(e, rv, "%s: %.200s", path, io.err.text);
            break;
        }
        out->len += io.ret_len;
        if (io.ret_len < READ_BYTES) break;
    }
    /* If only the process died, the last record was perhaps read from memory that no disk has yet.
     */
    io.op = ENV_IO_SYNC;
    if (!rv && (rv = env->ops->io_sync(env, &io)))
        (void)err_set(e, rv, "%s: %.200s", path, io.err.text);
    struct env_io close = {.op = ENV_IO_CLOSE, .file = io.file};
    (void)env->ops->io_sync(env, &close);
    return rv;
}

/* ---- what a record says ---------------------------------------------------------------------- */

static void drop_from(struct wal_contents *c, uint64_t index)
{
    while (c->n && c->first_index + c->n > index) raft_free(c->entries[--c->n].data);
    if (c->n == 0) c->first_index = 0;
}

static int push_entry(struct loading *l, uint64_t index, uint64_t term, unsigned short type,
                      struct slice data)
{
    struct wal_contents *c = l->c;
    if (c->n == l->size) {
        size_t size = l->size ? 2 * l->size : 256;
        struct wal_entry *entries = mem_realloc(c->entries, size * sizeof *entries);
        if (!entries) return ERR_NOMEM;
        c->entries = entries;
        l->size = size;
    }
    void *copy = raft_malloc(data.len ? data.len : 1);
    if (!copy) return ERR_NOMEM;
    if (data.len) memcpy(copy, data.data, data.len);
    if (c->n == 0) c->first_index = index;
    c->entries[c->n++] = (struct wal_entry){term, type, copy, data.len};
    return 0;
}

/* 0, ERR_NOMEM or ERR_CORRUPT: a record whose checksum is right and that still makes no sense. */
static int take_entries(struct loading *l, const struct wal_head *h, struct slice payload)
{
    if (h->count == 0 || h->index == 0 || h->count > payload.len / WAL_TABLE_ENTRY)
        return ERR_CORRUPT;
    struct reader table = reader_make(slice_sub(payload, 0, (size_t)h->count * WAL_TABLE_ENTRY));
    struct reader data =
        reader_make(slice_sub(payload, (size_t)h->count * WAL_TABLE_ENTRY, SIZE_MAX));
    if (l->c->n && h->index > l->c->first_index + l->c->n) return ERR_CORRUPT;
    if (l->c->n == 0 && l->c->reset_index && h->index != l->c->reset_index + 1) return ERR_CORRUPT;
    drop_from(l->c, h->index);
    for (uint32_t i = 0; i < h->count; i++) {
        uint64_t term = reader_u64(&table);
        uint32_t type = reader_u32(&table), len = reader_u32(&table);
        struct slice bytes = reader_bytes(&data, len);
        if (data.failed || term == 0 || type < RAFT_COMMAND || type > RAFT_CHANGE)
            return ERR_CORRUPT;
        if (type == RAFT_CHANGE && !frame_configuration_ok(bytes)) return ERR_CORRUPT;
        if (l->c->n && term < l->c->entries[l->c->n - 1].term) return ERR_CORRUPT;
        int rv = push_entry(l, h->index + i, term, (unsigned short)type, bytes);
        if (rv) return rv;
    }
    return reader_left(&data) ? ERR_CORRUPT : 0;
}

static int take_record(struct loading *l, struct wal_segment *s, const struct wal_head *h,
                       struct slice payload)
{
    int rv = 0;
    switch (h->kind) {
    case WAL_ENTRIES:
        rv = take_entries(l, h, payload);
        if (!rv && h->index + h->count - 1 > s->max_index) s->max_index = h->index + h->count - 1;
        break;
    case WAL_TRUNCATE: drop_from(l->c, h->index); break;
    case WAL_RESET:
        drop_from(l->c, 0);
        l->c->reset_index = h->index;
        l->c->reset_term = h->term;
        list_for_each(node, &l->w->segments) container_of(node, struct wal_segment, node)
            ->max_index = 0;
        s->max_index = 0;
        break;
    default: rv = ERR_CORRUPT;
    }
    return rv;
}

/* ---- segments -------------------------------------------------------------------------------- */

/* Whether anything valid lies behind a bad record: then it was not the last one. */
static bool valid_behind(struct slice file, uint64_t pos, uint64_t salt, uint64_t *ret_pos)
{
    uint8_t want[8];
    for (int i = 0; i < 8; i++) want[i] = (uint8_t)(salt >> (8 * i));
    struct wal_head h;
    for (uint64_t p = pos + WAL_ALIGN; p + WAL_RECORD_HEAD <= file.len; p += WAL_ALIGN) {
        if (memcmp(file.data + p, want, sizeof want) == 0 && record_at(file, p, salt, &h)) {
            *ret_pos = p;
            return true;
        }
    }
    return false;
}

static int corrupt(struct err *e, const struct wal_segment *s, uint64_t pos, const char *why)
{
    return err_set(e, ERR_CORRUPT, "%s: offset %" PRIu64 ": %s", s->path, pos, why);
}

/* The record, which is whole, must be the next one of the chain. */
static int check_place(struct loading *l, const struct wal_segment *s, const struct wal_head *h,
                       struct err *e)
{
    const struct wal *w = l->w;
    if (l->started && (h->seq != w->at.seq || h->prev_crc != w->at.crc)) {
        /* What is missing was where the segment before ended. */
        if (l->before && w->pos == WAL_SEGMENT_HEAD)
            return corrupt(e, l->before, l->before->end, "damaged record");
        return corrupt(e, s, w->pos, "record does not follow the one before it");
    }
    bool counts = h->kind != WAL_SEAL && h->kind != WAL_BEGIN;
    if (counts && h->seq + 1 == l->mark.seq && h->crc != l->mark.crc)
        return corrupt(e, s, w->pos, "not the record that " WAL_MARK " knows to be here");
    return 0;
}

/* Reads records until one does not fit; *ret_sealed: a seal says that there never was one. */
static int load_records(struct loading *l, struct wal_segment *s, struct slice file,
                        bool *ret_sealed, struct err *e)
{
    struct wal *w = l->w;
    struct wal_head h;
    w->pos = WAL_SEGMENT_HEAD;
    *ret_sealed = false;
    while (record_at(file, w->pos, s->salt, &h)) {
        int rv = check_place(l, s, &h, e);
        if (rv) return rv;
        if (!l->started) s->from = (struct wal_place){h.seq, h.prev_crc};
        l->started = true;
        w->at = (struct wal_place){h.seq, h.prev_crc};
        if (h.kind == WAL_SEAL) {
            *ret_sealed = true;
            return 0;
        }
        uint64_t bytes = wal_record_bytes(h.length);
        if (h.kind != WAL_BEGIN || w->pos != WAL_SEGMENT_HEAD) {
            struct slice payload = slice_make(file.data + w->pos + WAL_RECORD_HEAD, h.length);
            rv = take_record(l, s, &h, payload);
            if (rv == ERR_NOMEM) return err_set(e, rv, "%s: out of memory", s->path);
            if (rv)
                return corrupt(e, s, w->pos, "record makes no sense although its checksum is right");
            w->at = (struct wal_place){h.seq + 1, h.crc};
            l->last = s;
            l->last_pos = w->pos;
            l->last_bytes = bytes;
        }
        w->pos += bytes;
    }
    return 0;
}

/* ---- one bit ----------------------------------------------------------------------------------- */

/* Which flipped bit puts a checksum over `len` bytes off by `wrong`: it depends only on the distance to the end. */
static bool bit_of_crc(uint32_t wrong, size_t len, size_t *ret_byte, unsigned *ret_bit)
{
    uint32_t change[8], table[256];
    uint8_t byte = 0;
    uint32_t none = crc32c(0, &byte, 1);
    for (unsigned i = 0; i < 256; i++) {
        byte = (uint8_t)i;
        table[i] = crc32c(0, &byte, 1) ^ none;
    }
    for (unsigned b = 0; b < 8; b++) change[b] = table[1u << b];
    for (size_t at = len; at-- > 0;) {
        for (unsigned b = 0; b < 8; b++) {
            if (change[b] == wrong) {
                *ret_byte = at;
                *ret_bit = b;
                return true;
            }
            change[b] = (change[b] >> 8) ^ table[change[b] & 0xff];
        }
    }
    return false;
}

static bool record_but_for(uint8_t *data, size_t len, uint64_t pos, uint64_t salt, uint64_t byte,
                           unsigned bit)
{
    struct wal_head h;
    data[byte] ^= (uint8_t)(1u << bit);
    bool whole = record_at(slice_make(data, len), pos, salt, &h) && h.check != 0;
    data[byte] ^= (uint8_t)(1u << bit);
    return whole;
}

static bool only_zeros(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i]) return false;
    return true;
}

/* Whether one flipped bit is all that keeps the record at `pos` from being whole: no torn write looks like that, for its 64
 * bits of checksums would have to agree by chance. (Unless the very end is missing, and that was a single bit.) */
static bool one_bit_off(struct buf *file, uint64_t pos, uint64_t salt)
{
    struct wal_head h;
    size_t byte;
    unsigned bit;
    if (pos > file->len || file->len - pos < WAL_RECORD_HEAD) return false;
    wal_head_decode(file->data + pos, &h);
    if (__builtin_popcountll(h.salt ^ salt) > 1) return false;
    /* In salt, checksum or length: tried one by one, as is the head's other checksum. */
    static const unsigned fields[][2] = {{0, 12}, {48, 56}};
    for (int f = 0; f < 2; f++) {
        for (unsigned i = 8 * fields[f][0]; i < 8 * fields[f][1]; i++) {
            bool salted = h.salt == salt || i < 64;
            if (salted && record_but_for(file->data, file->len, pos, salt, pos + i / 8, i % 8)) return true;
        }
    }
    if (h.salt != salt || h.length > file->len - pos - WAL_RECORD_HEAD) return false;
    size_t len = WAL_RECORD_HEAD - 12 + h.length;
    uint32_t wrong = h.crc ^ crc32c(0, file->data + pos + 12, len);
    return bit_of_crc(wrong, len, &byte, &bit) &&
           !only_zeros(file->data + pos + 12 + byte + 1, len - byte - 1) &&
           record_but_for(file->data, file->len, pos, salt, pos + 12 + byte, bit);
}

/* ---- a segment --------------------------------------------------------------------------------- */

/* A nonzero head where the next record would be: something was being written there. */
static uint64_t torn_bytes(struct slice file, uint64_t pos, uint64_t salt)
{
    struct wal_head h;
    if (pos > file.len || file.len - pos < WAL_RECORD_HEAD) return 0;
    wal_head_decode(file.data + pos, &h);
    return h.salt == salt ? WAL_RECORD_HEAD + (uint64_t)h.length : 0;
}

static int load_segment(struct loading *l, uint64_t number, struct err *e)
{
    struct wal *w = l->w;
    struct wal_segment *s = mem_must_calloc(1, sizeof *s);
    s->number = number;
    wal_segment_path(s->path, number);
    list_init(&s->node);
    struct buf file;
    buf_init(&file, FILE_MAX_BYTES + READ_BYTES);
    int rv = read_file(w, s->path, &file, e);
    if (!rv) rv = wal_segment_head_check(buf_slice(&file), &w->o, number, s->path, &s->salt, e);
    if (rv) goto out;
    uint64_t behind;
    bool sealed;
    s->from = w->at;
    rv = load_records(l, s, buf_slice(&file), &sealed, e);
    if (!rv && (valid_behind(buf_slice(&file), w->pos, s->salt, &behind) ||
                (!sealed && one_bit_off(&file, w->pos, s->salt)))) {
        rv = corrupt(e, s, w->pos, "damaged record");
    }
    if (rv) goto out;
    s->end = w->pos;
    s->to = w->at;
    w->prepared = file.len;
    l->c->torn_bytes = sealed ? 0 : torn_bytes(buf_slice(&file), w->pos, s->salt);
    if (l->c->torn_bytes && !l->bad) l->bad = s;
    list_push_back(&w->segments, &s->node);
    l->before = s;
    s = NULL;
out:
    if (s && l->last == s) l->last = NULL;
    buf_release(&file);
    mem_free(s);
    return rv;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static void each_name(void *ctx, const char *name)
{
    struct loading *l = ctx;
    uint64_t number = 0;
    char check[WAL_PATH_BYTES];
    if (strlen(name) == 20 && sscanf(name, "%16" SCNx64 ".wal", &number) == 1) {
        wal_segment_path(check, number);
        if (strcmp(check + sizeof WAL_DIR, name) == 0) {
            if (l->n_numbers == l->numbers_size) {
                l->numbers_size = l->numbers_size ? 2 * l->numbers_size : 16;
                l->numbers = mem_must_realloc(l->numbers, l->numbers_size * sizeof *l->numbers);
            }
            l->numbers[l->n_numbers++] = number;
            return;
        }
    }
    if (strcmp(name, WAL_SPARE + sizeof WAL_DIR) == 0) l->have_spare = true;
    else if (strncmp(name, "new.tmp", 7) != 0 && strcmp(name, "mark") != 0 && strcmp(name, "mark.tmp") != 0 && !l->bad_name) {
        l->bad_name = true;
        snprintf(l->name, sizeof l->name, "%.39s", name);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int load_segments(struct loading *l, struct err *e)
{
    for (size_t i = 0; i < l->n_numbers; i++) {
        if (i && l->numbers[i] != l->numbers[i - 1] + 1) {
            return err_set(e, ERR_CORRUPT, WAL_DIR "/%016" PRIx64 ".wal: missing",
                           l->numbers[i - 1] + 1);
        }
        int rv = load_segment(l, l->numbers[i], e);
        if (rv) return rv;
    }
    if (l->mark.seq <= l->w->at.seq) return 0;
    const struct wal_segment *s = l->bad ? l->bad : l->before;
    return corrupt(e, s, s->end, "a record is missing or damaged that " WAL_MARK " knows of");
}

/* Where only the process died, and a sync had failed before, the last record may have been read from memory that the
 * system will never write. Those before it were synced before the next was begun. */
static int write_last_again(struct loading *l, struct err *e)
{
    struct env *env = l->w->o.env;
    struct buf b;
    if (!l->last || l->mark.seq >= l->w->at.seq) return 0;
    buf_init(&b, FILE_MAX_BYTES);
    struct env_io io = {.op = ENV_IO_OPEN, .path = l->last->path, .flags = ENV_OPEN_WRITE};
    int rv = env->ops->io_sync(env, &io);
    if (rv) goto out;
    struct env_io close = {.op = ENV_IO_CLOSE, .file = io.file};
    io.offset = l->last_pos;
    io.len = l->last_bytes;
    io.buffer = buf_reserve(&b, io.len);
    io.op = ENV_IO_READ;
    rv = io.buffer ? env->ops->io_sync(env, &io) : ERR_NOMEM;
    if (!rv) {
        io.op = ENV_IO_WRITE_SYNC;
        io.iov[0] = slice_make(io.buffer, io.ret_len);
        io.n_iov = 1;
        rv = env->ops->io_sync(env, &io);
    }
    (void)env->ops->io_sync(env, &close);
out:
    buf_release(&b);
    return rv ? err_set(e, rv, "%s: %.200s", l->last->path, io.err.text[0] ? io.err.text : err_text(rv)) : 0;
}

/* The log goes on in its last segment, also when that was only made ready and never used: what is
 * chained is the records, wherever they are. */
static int open_last(struct wal *w, struct err *e)
{
    struct wal_segment *last = container_of(w->segments.prev, struct wal_segment, node);
    struct env_io io = {.op = ENV_IO_OPEN, .path = last->path, .flags = ENV_OPEN_WRITE};
    int rv = w->o.env->ops->io_sync(w->o.env, &io);
    if (rv) return err_set(e, rv, "%s: %.200s", last->path, io.err.text);
    w->file = io.file;
    return 0;
}

/* The mark is lost, and there is nobody to heal from. A crash never does that (it tears one copy at most), so the mark was damaged
 * by itself; where the log ends in order nothing is missing, and the mark is made again. Where something lies behind its last
 * record, two things are wrong, and nobody can say whether that record was only begun. */
static int replace_mark(struct loading *l, const struct err *why, struct err *e)
{
    struct wal *w = l->w;
    if (!l->before || l->bad) return err_set(e, ERR_CORRUPT, "%.230s", why->text);
    log_error("raft: %s; the log ends in order after record %" PRIu64 ", " WAL_MARK " is made again member=%" PRIx64,
              why->text, w->at.seq - 1, w->o.member_id);
    return wal_mark_make(w, w->at, e);
}

int wal_load(struct wal *w, struct wal_contents *c, struct err *e)
{
    struct loading l = {.w = w, .c = c};
    struct env *env = w->o.env;
    struct err why = {{0}};
    int rv = env->ops->mkdir(env, WAL_DIR, e);
    int mark = rv ? 0 : wal_mark_open(w, &l.mark, &why);
    bool mark_lost = mark == ERR_CORRUPT && w->o.alone;
    if (mark && !mark_lost) rv = err_set(e, mark, "%.230s", why.text);
    w->at = (struct wal_place){.seq = 1};
    if (!rv) rv = env->ops->list(env, WAL_DIR, each_name, &l, e);
    if (rv) goto out;
    if (l.bad_name) {
        rv = err_set(e, ERR_INVALID, WAL_DIR "/%s: not a file of the log", l.name);
        goto out;
    }
    if (l.n_numbers) {
        qsort(l.numbers, l.n_numbers, sizeof *l.numbers, compare);
        rv = load_segments(&l, e);
        if (!rv) rv = write_last_again(&l, e);
        if (!rv && mark_lost) rv = replace_mark(&l, &why, e);
        if (!rv) rv = open_last(w, e);
    } else if (mark_lost) {
        rv = replace_mark(&l, &why, e);
    } else if (l.mark.seq > 1) {
        rv = err_set(e, ERR_CORRUPT, WAL_DIR ": offset 0: no segment of the log is left, but " WAL_MARK " knows of records");
    } else if (w->o.begun) {
        rv = err_set(e, ERR_CORRUPT, WAL_DIR ": offset 0: no segment of the log is left, although this member was started before");
    } else {
        rv = wal_segment_create_sync(w, e);
    }
    if (l.have_spare && !rv) rv = env->ops->unlink_file(env, WAL_SPARE, e);
    w->last_index = c->n ? c->first_index + c->n - 1 : c->reset_index;
out:
    mem_free(l.numbers);
    return rv;
}

int wal_open(const struct wal_options *o, struct wal **ret, struct wal_contents *contents,
             struct err *e)
{
    struct wal *w = mem_must_calloc(1, sizeof *w);
    w->o = *o;
    if (!w->o.segment_bytes) w->o.segment_bytes = WAL_SEGMENT_DEFAULT;
    if (w->o.segment_bytes < WAL_SEGMENT_MIN) w->o.segment_bytes = WAL_SEGMENT_MIN;
    list_init(&w->segments);
    list_init(&w->queue);
    list_init(&w->flying);
    list_init(&w->freeing);
    *contents = (struct wal_contents){0};
    int rv = wal_load(w, contents, e);
    if (rv) {
        struct env_file *files[] = {w->file, w->mark_file};
        for (int i = 0; i < 2; i++) {
            struct env_io close = {.op = ENV_IO_CLOSE, .file = files[i]};
            if (files[i]) (void)o->env->ops->io_sync(o->env, &close);
        }
        wal_contents_release(contents);
        wal_free(w);
        return rv;
    }
    *ret = w;
    return 0;
}
