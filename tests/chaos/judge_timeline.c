/* The timeline is what the watchers of everything were told: each revision, in order, none missing, and the same by all of them. */
#include "judge_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool in_range(struct slice key, struct slice from, struct slice end)
{
    if (end.len == 0) return slice_eq(key, from);
    bool all = end.len == 1 && end.data[0] == 0;
    if (all && from.len == 1 && from.data[0] == 0) return true;
    return slice_cmp(key, from) >= 0 && (all || slice_cmp(key, end) < 0);
}

bool same_kv(const struct kv *kv, const struct change *c, bool keys_only)
{
    return slice_eq(kv->key, c->key) && (keys_only ? kv->value.len == 0 : slice_eq(kv->value, c->value)) && kv->create == c->create &&
           kv->mod == c->rev && kv->version == c->version && kv->lease == c->lease;
}

static bool same_event(const struct watch_event *e, const struct change *c)
{
    if (e->tombstone != c->tombstone || e->kv.mod != c->rev) return false;
    return c->tombstone ? slice_eq(e->kv.key, c->key) : same_kv(&e->kv, c, false);
}

static void add(struct judge *j, const struct watch_event *e)
{
    if (j->n_changes == j->changes_size) {
        j->changes_size = j->changes_size ? 2 * j->changes_size : 4096;
        j->changes = mem_must_realloc(j->changes, j->changes_size * sizeof(*j->changes));
    }
    j->changes[j->n_changes++] = (struct change){.rev = e->kv.mod,
                                                 .create = e->kv.create,
                                                 .version = e->kv.version,
                                                 .lease = e->kv.lease,
                                                 .tombstone = e->tombstone,
                                                 .key = e->kv.key,
                                                 .value = e->kv.value};
}

/* Where each of the watchers of everything stands: how many changes it was told. */
struct oracle {
    bool used, all;
    size_t at;
};

static size_t first_of(const struct judge *j, int64_t rev)
{
    size_t lo = 0, hi = j->n_changes;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (j->changes[mid].rev < rev) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void told(struct judge *j, const struct watch_line *w, struct oracle *o)
{
    for (size_t i = 0; i < w->n; i++, o->at++) {
        const struct watch_event *e = &w->events[i];
        if (o->at < j->n_changes) {
            const struct change *c = &j->changes[o->at];
            if (same_event(e, c)) continue;
            violation(j, w->line, "watcher %" PRId64 " of everything on member %" PRId64 " was told of %s at revision %" PRId64
                      ", another one of %s at revision %" PRId64, w->watcher, w->member + 1, show(e->kv.key), e->kv.mod, show(c->key), c->rev);
            return;
        }
        if (e->kv.mod != j->top && e->kv.mod != j->top + 1) {
            violation(j, w->line, "watcher %" PRId64 " of everything on member %" PRId64 " was told of revision %" PRId64 " after %" PRId64, w->watcher,
                      w->member + 1, e->kv.mod, j->top);
            return;
        }
        add(j, e);
        j->top = e->kv.mod;
    }
}

/* A session that broke in the middle of a message of several fragments is begun again from its start. */
static void collect(struct judge *j)
{
    struct oracle *oracles = mem_must_calloc(1024, sizeof(*oracles));
    for (size_t i = 0; i < j->n_watches; i++) {
        const struct watch_line *w = &j->watches[i];
        struct oracle *o = &oracles[w->watcher & 1023];
        if (w->what == WATCH_CREATE) {
            o->all = w->all;
            o->at = first_of(j, w->start);
        } else if (w->what == WATCH_CANCELED && o->all) {
            violation(j, w->line, "watcher %" PRId64 " of everything was canceled at revision %" PRId64 " (%s)", w->watcher, w->compact_rev, show(w->text));
        } else if (o->all) {
            told(j, w, o);
        }
    }
    mem_free(oracles);
}

/* ---- keys ---------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return slice_cmp(((const struct key *)a)->name, ((const struct key *)b)->name);
}

static size_t key_from(const struct judge *j, struct slice name)
{
    size_t lo = 0, hi = j->n_keys;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (slice_cmp(j->keys[mid].name, name) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void make_keys(struct judge *j)
{
    j->keys = mem_must_calloc(j->n_changes + 1, sizeof(*j->keys));
    for (size_t i = 0; i < j->n_changes; i++) j->keys[i].name = j->changes[i].key;
    if (j->n_changes) qsort(j->keys, j->n_changes, sizeof(*j->keys), by_name);
    for (size_t i = 0; i < j->n_changes; i++)
        if (!j->n_keys || !slice_eq(j->keys[j->n_keys - 1].name, j->keys[i].name)) j->keys[j->n_keys++] = j->keys[i];
}

/* Versions and creation revisions follow from what was before. */
static void check_change(struct judge *j, const struct change *c, const struct change *before)
{
    bool live = before && !before->tombstone;
    if (before && before->rev == c->rev) {
        violation(j, 0, "%s changes twice at revision %" PRId64, show(c->key), c->rev);
    } else if (c->tombstone) {
        if (!live) violation(j, 0, "%s is deleted at revision %" PRId64 ", but it is not there", show(c->key), c->rev);
    } else if (c->create != (live ? before->create : c->rev) || c->version != (live ? before->version + 1 : 1)) {
        violation(j, 0, "%s at revision %" PRId64 " has version %" PRId64 " and was created at %" PRId64 ", but it %s", show(c->key), c->rev, c->version,
                  c->create, live ? "had another history" : "was not there");
    }
}

static void link_changes(struct judge *j)
{
    for (size_t i = 0; i < j->n_changes; i++) {
        struct change *c = &j->changes[i];
        struct key *k = &j->keys[key_from(j, c->key)];
        c->key_place = (size_t)(k - j->keys);
        c->before = k->n ? k->changes[k->n - 1] + 1 : 0;
        check_change(j, c, c->before ? &j->changes[c->before - 1] : NULL);
        if (k->n == k->size) {
            k->size = k->size ? 2 * k->size : 8;
            k->changes = mem_must_realloc(k->changes, k->size * sizeof(*k->changes));
        }
        k->changes[k->n++] = i;
    }
}

static const struct change *key_at(const struct judge *j, const struct key *k, size_t at)
{
    size_t lo = 0, hi = k->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (k->changes[mid] < at) lo = mid + 1;
        else hi = mid;
    }
    const struct change *c = lo ? &j->changes[k->changes[lo - 1]] : NULL;
    return c && !c->tombstone ? c : NULL;
}

const struct change *timeline_get(const struct judge *j, struct slice key, size_t at)
{
    size_t i = key_from(j, key);
    return i < j->n_keys && slice_eq(j->keys[i].name, key) ? key_at(j, &j->keys[i], at) : NULL;
}

const struct change **timeline_range(const struct judge *j, struct slice key, struct slice end, size_t at, size_t *ret_n)
{
    static const struct change **out;
    static size_t size;
    *ret_n = 0;
    for (size_t i = key_from(j, key); i < j->n_keys && in_range(j->keys[i].name, key, end); i++) {
        const struct change *c = key_at(j, &j->keys[i], at);
        if (!c) continue;
        if (*ret_n == size) {
            size = size ? 2 * size : 256;
            out = mem_must_realloc(out, size * sizeof(const struct change *));
        }
        out[(*ret_n)++] = c;
    }
    return out;
}

size_t timeline_at(const struct judge *j, int64_t rev)
{
    if (rev <= j->start) return 0;
    return rev > j->top ? j->n_changes : j->at_rev[rev];
}

int64_t compacted_by(const struct judge *j, int64_t t, bool acked)
{
    int64_t rev = 0;
    for (size_t i = 0; i < j->n_compactions; i++) {
        const struct op *op = j->compactions[i];
        if (acked ? op->outcome == OUTCOME_OK && op->t1 < t && op->arg > rev : op->t0 < t && op->arg > rev) rev = op->arg;
    }
    return rev;
}

static void find_compactions(struct judge *j)
{
    j->compactions = mem_must_calloc(j->n_ops + 1, sizeof(struct op *));
    for (size_t i = 0; i < j->n_ops; i++)
        if (j->ops[i].kind == OP_COMPACT && j->ops[i].outcome <= OUTCOME_UNKNOWN) j->compactions[j->n_compactions++] = &j->ops[i];
}

/* ---- when each revision was first seen -------------------------------------------------------------------- */

static void see(struct judge *j, int64_t rev, int64_t t, unsigned line)
{
    if (rev > j->top && !j->unfinished) {
        violation(j, line, "revision %" PRId64 " was shown, but no watcher of everything was told of it (they came to %" PRId64 ")", rev, j->top);
    } else if (rev > j->start && rev <= j->top && t < j->seen_ns[rev]) {
        j->seen_ns[rev] = t;
    }
}

static void when_seen(struct judge *j)
{
    for (int64_t r = 0; r <= j->top; r++) j->seen_ns[r] = INT64_MAX;
    for (size_t i = 0; i < j->n_ops; i++)
        if (j->ops[i].outcome == OUTCOME_OK) see(j, j->ops[i].rev, j->ops[i].t1, j->ops[i].line);
    for (size_t i = 0; i < j->n_watches; i++) {
        const struct watch_line *w = &j->watches[i];
        if (w->what != WATCH_CREATE && w->what != WATCH_END && w->what != WATCH_ASK) see(j, w->rev, w->t, w->line);
        if (w->n) see(j, w->events[w->n - 1].kv.mod, w->t, w->line);
    }
    for (int64_t r = j->top; r > 0; r--)
        if (j->seen_ns[r] < j->seen_ns[r - 1]) j->seen_ns[r - 1] = j->seen_ns[r];
}

void timeline_build(struct judge *j)
{
    j->start = j->top = 1;
    collect(j);
    j->at_rev = mem_must_calloc((size_t)j->top + 2, sizeof(*j->at_rev));
    j->seen_ns = mem_must_calloc((size_t)j->top + 2, sizeof(*j->seen_ns));
    j->owner = mem_must_calloc((size_t)j->top + 2, sizeof(struct op *));
    for (size_t i = j->n_changes; i-- > 0;) j->at_rev[j->changes[i].rev] = i;
    j->at_rev[j->top + 1] = j->n_changes;
    find_compactions(j);
    make_keys(j);
    link_changes(j);
    when_seen(j);
}
