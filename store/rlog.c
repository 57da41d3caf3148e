#include "store/rlog_int.h"

#include "base/check.h"
#include "base/mem.h"

enum {
    CHUNK_RECORDS = 509,
    CHUNK_SPARSE = CHUNK_RECORDS / 4,
    CHUNK_MERGED = CHUNK_RECORDS * 3 / 4
};

struct rlog_chunk {
    size_t n;
    struct record *records[CHUNK_RECORDS];
};

static bool before(const struct record *r, int64_t rev, uint32_t sub)
{
    return r->mod_rev < rev || (r->mod_rev == rev && r->sub < sub);
}

void rlog_release(struct rlog *log)
{
    for (size_t i = 0; i < log->n; i++) {
        struct rlog_chunk *c = log->entries[i].chunk;
        for (size_t k = 0; k < c->n; k++) record_unref(c->records[k]);
        mem_free(c);
    }
    mem_free(log->entries);
    *log = (struct rlog){0};
}

void rlog_append(struct rlog *log, struct record *r, struct rlog_sums sums)
{
    struct rlog_chunk *c = log->n ? log->entries[log->n - 1].chunk : NULL;
    if (!c || c->n == CHUNK_RECORDS) {
        if (log->n == log->size) {
            log->size = log->size ? log->size * 2 : 8;
            log->entries = mem_must_realloc(log->entries, log->size * sizeof(*log->entries));
        }
        c = mem_must_alloc(sizeof(*c));
        c->n = 0;
        log->entries[log->n++] = (struct rlog_entry){r->mod_rev, r->sub, c, sums};
    }
    c->records[c->n++] = r;
    log->records++;
}

/* The last chunk that starts at or before (rev, sub); 0 if all start later. */
static size_t find_entry(const struct rlog *log, int64_t rev, uint32_t sub)
{
    size_t lo = 0, hi = log->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct rlog_entry *e = &log->entries[mid];
        if (e->rev < rev || (e->rev == rev && e->sub <= sub)) lo = mid + 1;
        else hi = mid;
    }
    return lo ? lo - 1 : 0;
}

static struct record *settle(const struct rlog *log, struct rlog_iter *it)
{
    while (it->entry < log->n) {
        struct rlog_chunk *c = log->entries[it->entry].chunk;
        if (it->at < c->n) return c->records[it->at];
        it->entry++;
        it->at = 0;
    }
    return NULL;
}

struct record *rlog_seek(const struct rlog *log, int64_t rev, uint32_t sub, struct rlog_iter *it)
{
    *it = (struct rlog_iter){find_entry(log, rev, sub), 0};
    if (it->entry >= log->n) return NULL;
    const struct rlog_chunk *c = log->entries[it->entry].chunk;
    size_t lo = 0, hi = c->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (before(c->records[mid], rev, sub)) lo = mid + 1;
        else hi = mid;
    }
    it->at = lo;
    return settle(log, it);
}

struct record *rlog_next(const struct rlog *log, struct rlog_iter *it)
{
    it->at++;
    return settle(log, it);
}

size_t rlog_records_from(const struct rlog *log, int64_t rev)
{
    size_t i = find_entry(log, rev, 0);
    return i < log->n ? (log->n - i) * CHUNK_RECORDS : 0;
}

bool rlog_checkpoint(const struct rlog *log, int64_t rev, int64_t *ret_rev, uint32_t *ret_sub,
                     struct rlog_sums *ret)
{
    size_t i = find_entry(log, rev, 0);
    if (i >= log->n) return false;
    *ret_rev = log->entries[i].rev;
    *ret_sub = log->entries[i].sub;
    *ret = log->entries[i].before;
    return true;
}

static void drop_chunk(struct rlog *log, size_t i)
{
    mem_free(log->entries[i].chunk);
    log->n--;
    memmove(&log->entries[i], &log->entries[i + 1], (log->n - i) * sizeof(log->entries[0]));
    if (log->size > 64 && log->n < log->size / 4) {
        log->size /= 2;
        log->entries = mem_must_realloc(log->entries, log->size * sizeof(*log->entries));
    }
}

/* Moves the records of chunk i + 1 behind those of chunk i if both are small. The last chunk stays:
 * it grows. */
static bool join(struct rlog *log, size_t i)
{
    if (i + 2 >= log->n) return false;
    struct rlog_chunk *a = log->entries[i].chunk, *b = log->entries[i + 1].chunk;
    if (a->n + b->n > CHUNK_MERGED) return false;
    memcpy(a->records + a->n, b->records, b->n * sizeof(b->records[0]));
    a->n += b->n;
    drop_chunk(log, i + 1);
    return true;
}

void rlog_remove(struct rlog *log, struct record *r)
{
    struct rlog_iter it;
    CHECK(rlog_seek(log, r->mod_rev, r->sub, &it) == r);
    struct rlog_chunk *c = log->entries[it.entry].chunk;
    c->n--;
    memmove(c->records + it.at, c->records + it.at + 1, (c->n - it.at) * sizeof(c->records[0]));
    log->records--;
    if (c->n == 0) drop_chunk(log, it.entry);
    else if (c->n <= CHUNK_SPARSE && !join(log, it.entry) && it.entry > 0)
        (void)join(log, it.entry - 1);
    record_unref(r);
}
