/* From a filled log to a whole store. The records are sorted by key with all versions of a key in
 * log order, which links them, and then the index is built from the bottom.
 *
 * The sort is made for many long keys with common prefixes: a radix sort on eight bytes of the key
 * at a time, where a run of equal ones is sorted on by the eight bytes behind. It is stable, so
 * versions stay in log order. */
#include "base/mem.h"
#include "store/snapshot_int.h"

enum { SMALL = 24 };

struct item {
    uint64_t head; /* eight bytes of the key at the depth of the sort */
    struct record *r;
};

struct task {
    size_t from, n;
    uint32_t depth;
};

struct sorter {
    struct item *items, *other;
    struct task *tasks;
    size_t n_tasks, size;
};

static uint64_t head_at(const struct record *r, uint32_t depth)
{
    uint64_t v = 0;
    if (r->key_len >= depth + 8) {
        memcpy(&v, r->data + depth, 8);
        return __builtin_bswap64(v);
    }
    for (uint32_t i = depth; i < depth + 8; i++) v = v << 8 | (i < r->key_len ? r->data[i] : 0u);
    return v;
}

static int compare(const struct item *a, const struct item *b)
{
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    return slice_cmp(record_key(a->r), record_key(b->r));
}

static void insertion_sort(struct item *items, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct item x = items[i];
        size_t k = i;
        for (; k > 0 && compare(&items[k - 1], &x) > 0; k--) items[k] = items[k - 1];
        items[k] = x;
    }
}

/* By whole keys, for runs that heads cannot tell apart: keys that differ by zero bytes at their
 * end. */
static void merge_sort(struct item *items, struct item *other, size_t n)
{
    if (n < SMALL) {
        insertion_sort(items, n);
        return;
    }
    size_t mid = n / 2, a = 0, b = mid;
    merge_sort(items, other, mid);
    merge_sort(items + mid, other, n - mid);
    if (compare(&items[mid - 1], &items[mid]) <= 0) return;
    for (size_t k = 0; k < n; k++)
        other[k] =
            a < mid && (b >= n || compare(&items[a], &items[b]) <= 0) ? items[a++] : items[b++];
    memcpy(items, other, n * sizeof(*items));
}

static void radix_sort(struct item *items, struct item *other, size_t n)
{
    uint32_t counts[8][256] = {0};
    for (size_t i = 0; i < n; i++)
        for (unsigned b = 0; b < 8; b++) counts[b][items[i].head >> (8 * b) & 0xff]++;
    struct item *from = items;
    for (unsigned b = 0; b < 8; b++) {
        if (counts[b][from[0].head >> (8 * b) & 0xff] == n) continue;
        uint32_t at = 0;
        for (unsigned v = 0; v < 256; v++) {
            uint32_t count = counts[b][v];
            counts[b][v] = at;
            at += count;
        }
        for (size_t i = 0; i < n; i++) other[counts[b][from[i].head >> (8 * b) & 0xff]++] = from[i];
        struct item *swap = from;
        from = other;
        other = swap;
    }
    if (from != items) memcpy(items, from, n * sizeof(*items));
}

static int push(struct sorter *s, size_t from, size_t n, uint32_t depth)
{
    if (s->n_tasks == s->size) {
        size_t size = s->size ? s->size * 2 : 64;
        struct task *tasks = mem_realloc(s->tasks, size * sizeof(*tasks));
        if (!tasks) return ERR_NOMEM;
        s->tasks = tasks;
        s->size = size;
    }
    s->tasks[s->n_tasks++] = (struct task){from, n, depth};
    return 0;
}

/* Sorts one run whose keys agree before `depth`, and leaves the runs that are still undecided as
 * tasks. */
static int sort_run(struct sorter *s, struct task t)
{
    struct item *items = s->items + t.from, *other = s->other + t.from;
    bool ended = true, equal = true, sorted = true;
    for (size_t i = 0; i < t.n; i++) {
        if (i + 16 < t.n) __builtin_prefetch(items[i + 16].r);
        items[i].head = head_at(items[i].r, t.depth);
        ended &= items[i].r->key_len <= t.depth + 8;
        equal &= items[i].head == items[0].head;
        sorted &= i == 0 || items[i - 1].head <= items[i].head;
    }
    if (t.n < SMALL || (ended && equal)) {
        merge_sort(items, other, t.n);
        return 0;
    }
    if (equal) return push(s, t.from, t.n, t.depth + 8);
    if (!sorted) radix_sort(items, other, t.n);
    for (size_t from = 0, to; from < t.n; from = to) {
        for (to = from + 1; to < t.n && items[to].head == items[from].head; to++) {
        }
        int rc = to - from > 1 ? push(s, t.from + from, to - from, t.depth + 8) : 0;
        if (rc) return rc;
    }
    return 0;
}

static int sort_items(struct sorter *s, size_t n)
{
    int rc = push(s, 0, n, 0);
    while (!rc && s->n_tasks) {
        struct task t = s->tasks[--s->n_tasks];
        rc = sort_run(s, t);
    }
    return rc;
}

/* ---- linking -------------------------------------------------------------------------------- */

/* Whether `r` can follow `prev`, the version before it or NULL. */
static bool follows(const struct store *s, const struct record *r, const struct record *prev)
{
    if (r->mod_rev <= s->compact_rev) return !prev; /* compaction leaves one version */
    bool live = prev && !prev->tombstone;
    if (r->tombstone) return live;
    if (live) return r->version == prev->version + 1 && r->create_rev == prev->create_rev;
    return r->version == 1 && r->create_rev == r->mod_rev;
}

/* Links the sorted items; the newest of each key end up in front. Returns how many, or -1. */
static int64_t link_versions(const struct store *s, struct item *items, size_t n)
{
    struct record **newest = (struct record **)(void *)items; /* never ahead of what is read */
    size_t keys = 0;
    struct record *prev = NULL;
    for (size_t i = 0; i < n; i++) {
        if (i + 16 < n) __builtin_prefetch(items[i + 16].r, 1);
        struct record *r = items[i].r;
        bool same = prev && slice_eq(record_key(prev), record_key(r));
        if (!follows(s, r, same ? prev : NULL)) return -1;
        if (same) r->older = prev;
        else keys++;
        newest[keys - 1] = r;
        prev = r;
    }
    return (int64_t)keys;
}

/* In log order: the sums at each chunk, and at the compact revision. */
static void sum_up(struct store *s)
{
    struct rlog_iter it;
    for (struct record *r = rlog_seek(&s->log, 0, 0, &it); r; r = rlog_next(&s->log, &it)) {
        if (it.at == 0) s->log.entries[it.entry].before = s->sums;
        s->sums.written += record_cost(r);
        s->sums.live += live_cost(r) - live_cost(r->older);
        if (r->mod_rev <= s->compact_rev) s->compacted = s->sums;
    }
    s->held = s->sums.written;
}

static int attach_leases(struct store *s, struct record **newest, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!newest[i]->lease) continue;
        struct lease *l = lease_find(&s->leases, newest[i]->lease);
        if (!l) return ERR_CORRUPT;
        lease_attach(l, newest[i]);
    }
    return 0;
}

static int index_items(struct store *s, struct sorter *sorter, size_t n, struct err *e)
{
    struct rlog_iter it;
    size_t i = 0;
    for (struct record *r = rlog_seek(&s->log, 0, 0, &it); r; r = rlog_next(&s->log, &it))
        sorter->items[i++].r = r;
    int rc = sort_items(sorter, n);
    if (rc) return rc;
    int64_t keys = link_versions(s, sorter->items, n);
    if (keys < 0)
        return err_set(e, ERR_CORRUPT,
                       "snapshot: versions of a key that do not follow from each other");
    struct record **newest = (struct record **)(void *)sorter->items;
    rc = attach_leases(s, newest, (size_t)keys);
    if (rc) return err_set(e, rc, "snapshot: a key holds a lease that is not there");
    index_build(&s->index, newest, (size_t)keys);
    sum_up(s);
    return 0;
}

int loader_index(struct store *s, struct err *e)
{
    size_t n = s->log.records;
    if (n == 0) return 0;
    struct sorter sorter = {.items = mem_alloc(n * sizeof(struct item)),
                            .other = mem_alloc(n * sizeof(struct item))};
    int rc = sorter.items && sorter.other ? index_items(s, &sorter, n, e) : ERR_NOMEM;
    mem_free(sorter.items);
    mem_free(sorter.other);
    mem_free(sorter.tasks);
    return rc;
}
