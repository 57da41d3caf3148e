/* Reads that take their time: ranges at a pinned revision in slices, and history as event batches.
 */
#include "store/store_int.h"

#include "base/mem.h"

struct store_cursor {
    struct pin pin;
    struct slice end;    /* ours */
    struct buf next;     /* the key to go on from */
    int64_t count, left; /* still to deliver */
    bool first, single;
};

int store_cursor_open(struct store *s, const struct range_op *op, struct store_cursor **ret)
{
    if (op->revision > s->revision) return ERR_FUTURE_REV;
    if (op->revision > 0 && op->revision < s->compact_rev) return ERR_COMPACTED;
    int64_t rev = op->revision > 0 ? op->revision : s->revision;
    struct store_cursor *c = mem_calloc(1, sizeof(*c) + op->range_end.len);
    if (!c) return ERR_NOMEM;
    uint8_t *end = (uint8_t *)(c + 1);
    if (op->range_end.len) memcpy(end, op->range_end.data, op->range_end.len);
    c->end = (struct slice){end, op->range_end.len};
    if (buf_append_slice(&c->next, op->key)) {
        mem_free(c);
        return ERR_NOMEM;
    }
    const struct view v = {s, NULL, rev};
    c->count = range_count(&v, op->key, op->range_end);
    c->left = op->count_only ? 0 : op->limit > 0 && op->limit < c->count ? op->limit : c->count;
    c->single = range_is_single(op->range_end);
    c->first = true;
    pin_open(&c->pin, s, rev);
    *ret = c;
    return 0;
}

int64_t store_cursor_revision(const struct store_cursor *c)
{
    return c->pin.rev;
}

/* The next record to show from `r` on. */
static struct record *shown(const struct store_cursor *c, struct index_path *path, struct record *r)
{
    for (; r && (c->single || range_has(c->end, record_key(r)));
         r = index_next(&c->pin.store->index, path)) {
        struct record *at = version_at(r, c->pin.rev);
        if (at && !at->tombstone) return at;
    }
    return NULL;
}

int store_cursor_next(struct store_cursor *c, size_t max_records, size_t max_bytes, struct arena *a,
                      struct range_result *ret)
{
    if (!c->pin.store) return ERR_CLOSED;
    struct range_result out = {.count = c->first ? c->count : 0};
    size_t want = (size_t)c->left < max_records ? (size_t)c->left : max_records;
    if (want == 0 && c->left > 0) want = 1;
    if (want) out.records = arena_alloc(a, want * sizeof(*out.records));
    if (want && !out.records) return ERR_NOMEM;
    struct index_path path;
    const struct index *ix = &c->pin.store->index;
    struct record *r = want ? shown(c, &path, index_seek(ix, buf_slice(&c->next), &path)) : NULL;
    for (size_t bytes = 0; r && out.n < want && (out.n == 0 || bytes < max_bytes);) {
        bytes += sizeof(*r) + r->key_len + r->value_len;
        out.records[out.n++] = r;
        r = out.n < want ? shown(c, &path, index_next(ix, &path)) : NULL;
    }
    if (out.n) { /* go on right behind the last key: with a zero byte it is the next possible one */
        struct slice last = record_key(out.records[out.n - 1]);
        if (c->next.size < last.len + 1 && !buf_reserve(&c->next, last.len + 1)) {
            c->next.failed = 0;
            return ERR_NOMEM;
        }
        buf_clear(&c->next);
        buf_append_slice(&c->next, last);
        buf_append_byte(&c->next, 0);
    }
    for (size_t i = 0; i < out.n; i++) record_ref(out.records[i]);
    c->left -= (int64_t)out.n;
    c->first = false;
    out.more = c->left > 0;
    *ret = out;
    return 0;
}

void store_cursor_close(struct store_cursor *c)
{
    if (!c) return;
    pin_close(&c->pin);
    buf_release(&c->next);
    mem_free(c);
}

/* ---- history -------------------------------------------------------------------------------- */

bool is_newest_at(const struct store *s, const struct record *r, int64_t rev)
{
    return version_at(index_get(&s->index, record_key(r)), rev) == r;
}

/* At the compact revision itself only what compaction kept is shown, whether it is freed yet or
 * not. */
static bool in_history(const struct store *s, const struct record *r)
{
    return r->mod_rev > s->compact_rev || is_newest_at(s, r, s->compact_rev);
}

/* How many records make up the batch, and the last revision in it. */
static size_t measure(const struct store *s, struct rlog_iter it, struct record *r, int64_t to_rev,
                      size_t max_events, size_t max_bytes, int64_t *ret_last)
{
    size_t n = 0, bytes = 0;
    int64_t last = 0;
    for (; r && r->mod_rev <= to_rev; r = rlog_next(&s->log, &it)) {
        if (r->mod_rev != last && n > 0 && (n >= max_events || bytes >= max_bytes)) break;
        if (!in_history(s, r)) continue;
        n++;
        bytes += sizeof(*r) + r->key_len + r->value_len;
        last = r->mod_rev;
    }
    *ret_last = last;
    return n;
}

int store_events(struct store *s, int64_t from_rev, int64_t to_rev, size_t max_events,
                 size_t max_bytes, struct event_batch **ret)
{
    if (from_rev < s->compact_rev) return ERR_COMPACTED;
    struct rlog_iter it;
    struct record *r = rlog_seek(&s->log, from_rev, 0, &it);
    int64_t last;
    size_t n = measure(s, it, r, to_rev, max_events, max_bytes, &last);
    *ret = NULL;
    if (n == 0) return 0;
    struct event_batch *b = mem_alloc(sizeof(*b) + n * sizeof(b->events[0]));
    if (!b) return ERR_NOMEM;
    atomic_init(&b->refs, 1);
    b->count = b->bytes = 0;
    b->last_rev = last;
    for (; b->count < n; r = rlog_next(&s->log, &it)) {
        if (!in_history(s, r)) continue;
        struct record *prev = previous_of(s, r);
        b->events[b->count++] = (struct event){record_ref(r), prev ? record_ref(prev) : NULL};
    }
    b->first_rev = b->events[0].record->mod_rev;
    *ret = b;
    return 0;
}
