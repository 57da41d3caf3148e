/* Reading ranges: counting by the index, collecting by walking its leaves, then filters, order and
 * limit as etcd's applier does them (server/etcdserver/apply.go of 3.4 and 3.5). */
#include "store/store_int.h"

#include "base/check.h"

bool range_is_single(struct slice range_end)
{
    return range_end.len == 0;
}

static bool is_open(struct slice range_end)
{
    return range_end.len == 1 && range_end.data[0] == 0;
}

bool range_has(struct slice range_end, struct slice key)
{
    return is_open(range_end) || slice_cmp(key, range_end) < 0;
}

static struct record *visible(struct record *newest, int64_t rev)
{
    struct record *r = version_at(newest, rev);
    return r && !r->tombstone ? r : NULL;
}

/* ---- counting ------------------------------------------------------------------------------- */

static int64_t count_present(const struct index *ix, struct slice key, struct slice range_end)
{
    size_t from = index_rank(ix, key),
           to = is_open(range_end) ? ix->live : index_rank(ix, range_end);
    return to > from ? (int64_t)(to - from) : 0;
}

static int64_t count_walking(const struct view *v, struct slice key, struct slice range_end)
{
    int64_t n = 0;
    struct index_path path;
    for (struct record *r = index_seek(&v->store->index, key, &path);
         r && range_has(range_end, record_key(r)); r = index_next(&v->store->index, &path))
        n += visible(r, v->rev) != NULL;
    return n;
}

/* The count now, less what was created and more what was deleted since. */
static int64_t count_undoing(const struct view *v, int64_t now, struct slice key,
                             struct slice range_end)
{
    struct rlog_iter it;
    for (struct record *r = rlog_seek(&v->store->log, v->rev + 1, 0, &it); r;
         r = rlog_next(&v->store->log, &it)) {
        if (r->version > 1 || slice_cmp(record_key(r), key) < 0 ||
            !range_has(range_end, record_key(r)))
            continue;
        now += r->tombstone ? 1 : -1;
    }
    return now;
}

int64_t range_count(const struct view *v, struct slice key, struct slice range_end)
{
    const struct store *s = v->store;
    if (range_is_single(range_end)) return visible(index_get(&s->index, key), v->rev) != NULL;
    if (!is_open(range_end) && slice_cmp(key, range_end) >= 0) return 0;
    int64_t now = count_present(&s->index, key, range_end);
    if (v->rev >= s->revision + (s->sub ? 1 : 0)) return now;
    if (rlog_records_from(&s->log, v->rev + 1) < (size_t)now)
        return count_undoing(v, now, key, range_end);
    return count_walking(v, key, range_end);
}

/* ---- collecting ----------------------------------------------------------------------------- */

/* How far ahead records are fetched into the cache: a walk of a range is bound by their headers. */
enum { PREFETCH = 8 };

/* The first `want` visible records, in key order; there are as many. */
static void collect(const struct view *v, struct slice key, struct record **out, size_t want)
{
    const struct index *ix = &v->store->index;
    struct index_path path;
    size_t n = 0;
    if (want == 0) return;
    CHECK(index_seek(ix, key, &path));
    while (n < want) {
        struct record *const *run;
        size_t len = index_run(&path, &run);
        for (size_t i = 0; i < len && i < PREFETCH; i++) __builtin_prefetch(run[i], 1);
        for (size_t i = 0; i < len && n < want; i++) {
            if (i + PREFETCH < len) __builtin_prefetch(run[i + PREFETCH], 1);
            struct record *r = visible(run[i], v->rev);
            if (r) out[n++] = r;
        }
        CHECK(index_skip(ix, &path, len) || n == want);
    }
}

static size_t filter(const struct range_op *op, struct record **records, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const struct record *r = records[i];
        if (op->max_mod_revision && r->mod_rev > op->max_mod_revision) continue;
        if (op->min_mod_revision && r->mod_rev < op->min_mod_revision) continue;
        if (op->max_create_revision && r->create_rev > op->max_create_revision) continue;
        if (op->min_create_revision && r->create_rev < op->min_create_revision) continue;
        records[kept++] = records[i];
    }
    return kept;
}

/* ---- sorting -------------------------------------------------------------------------------- */

static int compare_numbers(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare(enum sort_target target, const struct record *a, const struct record *b)
{
    switch (target) {
    case SORT_KEY: return slice_cmp(record_key(a), record_key(b));
    case SORT_VERSION: return compare_numbers(a->version, b->version);
    case SORT_CREATE: return compare_numbers(a->create_rev, b->create_rev);
    case SORT_MOD: return compare_numbers(a->mod_rev, b->mod_rev);
    case SORT_VALUE: return slice_cmp(record_value(a), record_value(b));
    }
    return 0;
}

static void merge(struct record **from, struct record **to, size_t lo, size_t mid, size_t hi,
                  enum sort_target target, int sign)
{
    size_t a = lo, b = mid;
    for (size_t k = lo; k < hi; k++) {
        bool left = a < mid && (b >= hi || sign * compare(target, from[a], from[b]) <= 0);
        to[k] = left ? from[a++] : from[b++];
    }
}

/* Stable: what is equal stays in key order (etcd leaves that order open). */
static int sort(struct arena *a, struct record **records, size_t n, enum sort_target target,
                bool descend)
{
    if (n < 2) return 0;
    struct record **other = arena_alloc(a, n * sizeof(*other)), **from = records;
    if (!other) return ERR_NOMEM;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n,
                   hi = lo + 2 * width < n ? lo + 2 * width : n;
            merge(from, other, lo, mid, hi, target, descend ? -1 : 1);
        }
        struct record **swap = from;
        from = other;
        other = swap;
    }
    if (from != records) memcpy(records, from, n * sizeof(*records));
    return 0;
}

static void reverse(struct record **records, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        struct record *r = records[i];
        records[i] = records[n - 1 - i];
        records[n - 1 - i] = r;
    }
}

static int put_in_order(const struct range_op *op, struct arena *a, struct record **records,
                        size_t n)
{
    if (op->sort_target == SORT_KEY) {
        if (op->sort_order == SORT_DESCEND) reverse(records, n);
        return 0;
    }
    return sort(a, records, n, op->sort_target, op->sort_order == SORT_DESCEND);
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool has_filters(const struct range_op *op)
{
    return op->min_mod_revision || op->max_mod_revision || op->min_create_revision ||
           op->max_create_revision;
}

int range_read(const struct view *v, const struct range_op *op, struct range_result *ret)
{
    struct range_result out = {.count = range_count(v, op->key, op->range_end)};
    size_t n = op->count_only ? 0 : (size_t)out.count;
    /* As etcd: the limit cuts before sorting when only the target, not the order, is given. */
    if (op->limit > 0 && op->sort_order == SORT_NONE && !has_filters(op) && n > (size_t)op->limit)
        n = (size_t)op->limit + 1;
    if (n) {
        out.records = arena_alloc(v->arena, n * sizeof(*out.records));
        if (!out.records) return ERR_NOMEM;
        if (range_is_single(op->range_end))
            out.records[0] = visible(index_get(&v->store->index, op->key), v->rev);
        else collect(v, op->key, out.records, n);
        if (has_filters(op)) n = filter(op, out.records, n);
        int rc = put_in_order(op, v->arena, out.records, n);
        if (rc) return rc;
        if (op->limit > 0 && n > (size_t)op->limit) {
            n = (size_t)op->limit;
            out.more = true;
        }
    }
    for (size_t i = 0; i < n; i++) record_ref(out.records[i]);
    out.n = n;
    *ret = out;
    return 0;
}

int store_range(struct store *s, const struct range_op *op, struct arena *a,
                struct range_result *ret)
{
    if (op->revision > s->revision) return ERR_FUTURE_REV;
    if (op->revision > 0 && op->revision < s->compact_rev) return ERR_COMPACTED;
    struct view v = {s, a, op->revision > 0 ? op->revision : INT64_MAX};
    return range_read(&v, op, ret);
}
