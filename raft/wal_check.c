/* Reading segments that were written long ago, piece by piece, without keeping anything: the scrub's
 * view of the log. What a segment must hold is known from memory: its number and salt, where in the
 * chain it begins and ends. */
#include <inttypes.h>

#include "base/crc32c.h"
#include "raft/wal_format_int.h"

static void check_segment(struct wal_check *k, const struct wal *w, const struct wal_segment *s)
{
    *k = (struct wal_check){.o = &w->o, .number = s->number, .salt = s->salt, .end = s->end};
    k->seq = s->from.seq;
    k->crc = s->from.crc;
    k->to_seq = s->to.seq;
    k->to_crc = s->to.crc;
    snprintf(k->path, sizeof k->path, "%s", s->path);
}

bool wal_check_next(const struct wal *w, uint64_t after, struct wal_check *k)
{
    list_for_each(node, &w->segments)
    {
        const struct wal_segment *s = container_of(node, struct wal_segment, node);
        if (s->number <= after) continue;
        check_segment(k, w, s);
        return true;
    }
    if (w->next_state != WAL_NEXT_READY || w->next->number <= after) return false;
    check_segment(k, w, w->next);
    return true;
}

bool wal_check_current(const struct wal *w, const struct wal_check *k)
{
    list_for_each(node, &w->segments)
    {
        if (container_of(node, struct wal_segment, node)->number == k->number) return true;
    }
    return w->next && w->next->number == k->number;
}

static int corrupt(const struct wal_check *k, uint64_t offset, const char *why, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "%s: offset %" PRIu64 ": %s", k->path, offset, why);
}

static int take_segment_head(struct wal_check *k, struct err *e)
{
    uint64_t salt;
    int rv = wal_segment_head_check(slice_make(k->head, WAL_SEGMENT_HEAD), k->o, k->number, k->path,
                                    &salt, e);
    if (rv) return rv == ERR_CLUSTER_MISMATCH ? ERR_CORRUPT : rv;
    return salt == k->salt ? 0 : corrupt(k, 32, "header of another life of this file", e);
}

static int take_record_head(struct wal_check *k, struct err *e)
{
    struct wal_head h;
    wal_head_decode(k->head, &h);
    bool begin = h.kind == WAL_BEGIN;
    if (h.salt != k->salt || h.seq != k->seq || h.prev_crc != k->crc ||
        h.length > k->end - k->record || wal_record_bytes(h.length) > k->end - k->record)
        return corrupt(k, k->record, "damaged record", e);
    k->want = h.crc;
    k->sum = crc32c(0, k->head + 12, WAL_RECORD_HEAD - 12);
    k->left = h.length;
    k->padding = wal_record_bytes(h.length) - WAL_RECORD_HEAD - h.length;
    k->begin = begin;
    return 0;
}

static int take_record_end(struct wal_check *k, struct err *e)
{
    if (k->sum != k->want) return corrupt(k, k->record, "damaged record", e);
    if (k->begin) return 0;
    k->seq++;
    k->crc = k->want;
    return 0;
}

/* Takes some of the piece; returns how much. */
static size_t take(struct wal_check *k, struct slice piece, int *ret_rv, struct err *e)
{
    size_t head = k->offset < WAL_SEGMENT_HEAD ? WAL_SEGMENT_HEAD : WAL_RECORD_HEAD;
    bool in_record = k->left || k->padding;
    uint64_t want = k->left ? k->left : k->padding ? k->padding : head - k->have;
    size_t n = piece.len < want ? piece.len : (size_t)want;
    if (!in_record) {
        if (k->have == 0) k->record = k->offset;
        memcpy(k->head + k->have, piece.data, n);
        k->have += n;
        if (k->have < head) return n;
        k->have = 0;
        *ret_rv = head == WAL_SEGMENT_HEAD ? take_segment_head(k, e) : take_record_head(k, e);
        if (!*ret_rv && head == WAL_RECORD_HEAD && k->left == 0) *ret_rv = take_record_end(k, e);
    } else if (k->left) {
        k->sum = crc32c(k->sum, piece.data, n);
        k->left -= n;
        if (k->left == 0) *ret_rv = take_record_end(k, e);
    } else {
        k->padding -= n;
    }
    return n;
}

int wal_check_feed(struct wal_check *k, struct slice piece, struct err *e)
{
    int rv = 0;
    while (piece.len && !rv) {
        size_t n = take(k, piece, &rv, e);
        k->offset += n;
        piece = slice_sub(piece, n, SIZE_MAX);
    }
    if (rv || k->offset < k->end) return rv;
    if (k->seq != k->to_seq || k->crc != k->to_crc) return corrupt(k, k->end, "records are missing", e);
    return 0;
}

bool wal_check_mark(struct wal *w, struct slice file)
{
    struct wal_place at;
    unsigned whole;
    bool good = wal_mark_decode(file, &w->o, &at, &whole) && whole == 2;
    if (!good) w->marked_seq = 0; /* written again at the next tick */
    return good;
}
