/* The hub. A watcher is in one of three states:
 *
 *   synced ----- its sink is not ready for events of a live batch ------> waiting (for its sink)
 *     ^                                                                     |  watch_sink_writable
 *     |                                                                     v
 *     +---- has read history up to the hub's revision ------------------ wanting (history)
 *                                                                           ^  sink not ready: back
 * to waiting a start in the past ----------------------------------------------------+
 *
 * The happy path is watch_hub_live: the events of a batch are matched with the range index, which
 * gives for each touched group the list of its events; every synced watcher of the group gets that
 * list. A watcher that nothing matched is not looked at.
 *
 * Cursors: wanting watchers are kept in buckets by their next revision, so that those near each
 * other share a request for history, and an answer that covers [from, upto] serves whoever stands
 * in that window, whatever asked for it. An answer is therefore never wrong for anyone, however
 * late it comes; one that helps nobody is dropped. Buckets take turns.
 *
 * What fails: memory for matching. The batch is then not delivered at all: live watchers become
 * cursors, cursors stay where they are, and read the same revisions again. */
#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"
#include "watch/watch_int.h"

#define LAG_BUCKETS 256
#define LAG_SPAN LIMIT_WATCH_BATCH_EVENTS /* revisions a bucket: about what one answer covers */

enum watcher_state { SYNCED, WANTING, WAITING, ENDED };

struct watcher {
    struct list in_group;   /* group->synced, or group->behind */
    struct list in_sink;    /* sink->watchers */
    struct list in_waiting; /* WANTING: a bucket; WAITING: sink->waiting */
    struct watch_group *group;
    struct watch_sink *sink;
    void *data;
    int64_t next_rev; /* the first revision that may be delivered */
    uint8_t filters;
    uint8_t state;
};

struct match {
    uint32_t event;
    size_t next;
};

struct history_request {
    uint64_t id; /* 0 = free */
    int64_t from;
    unsigned bucket;
};

/* The events of one group in the batch at hand, without and with filters. */
struct run {
    const struct event **all, **filtered[2]; /* [WATCH_NO_x - 1] */
    size_t n, n_filtered[2];
    bool has_filtered[2];
    const struct event *const *last_events; /* what the run number stands for */
    size_t last_n;
    uint64_t number;
    size_t size; /* room of each array */
};

struct watch_hub {
    struct watch_upstream up;
    void *ctx;
    int64_t revision;
    struct range_index index;
    size_t watchers, behind, wanting;
    struct list buckets[LAG_BUCKETS]; /* WANTING watchers by next_rev */
    unsigned turn;
    struct history_request requests[LIMIT_WATCH_HISTORY_REQUESTS];
    uint64_t last_request;
    unsigned asked; /* requests under way */
    bool stopped;   /* the core answers no more */

    struct match *matches;
    size_t n_matches, matches_size;
    bool match_failed;
    struct run run;
    uint64_t n_events, n_batches, n_history;
};

int watch_hub_new(const struct watch_upstream *up, void *ctx, int64_t revision, uint64_t seed,
                  struct watch_hub **ret)
{
    struct watch_hub *h = mem_calloc(1, sizeof(*h));
    if (!h) return ERR_NOMEM;
    h->up = *up;
    h->ctx = ctx;
    h->revision = revision;
    h->index.seed = h->index.random = seed;
    for (unsigned i = 0; i < LAG_BUCKETS; i++) list_init(&h->buckets[i]);
    *ret = h;
    return 0;
}

/* ---- states ---------------------------------------------------------------------------------- */

static unsigned bucket_number(int64_t rev)
{
    return (unsigned)((uint64_t)rev / LAG_SPAN % LAG_BUCKETS);
}

static void set_state(struct watch_hub *h, struct watcher *w, enum watcher_state state)
{
    if (w->state == WANTING) h->wanting--;
    if (w->state != SYNCED && state == SYNCED) h->behind--;
    if (w->state == SYNCED && state != SYNCED) h->behind++;
    list_remove(&w->in_waiting);
    list_remove(&w->in_group);
    w->state = (uint8_t)state;
    list_push_back(state == SYNCED ? &w->group->synced : &w->group->behind, &w->in_group);
    if (state == WANTING) {
        h->wanting++;
        list_push_back(&h->buckets[bucket_number(w->next_rev)], &w->in_waiting);
    }
    if (state == WAITING) list_push_back(&w->sink->waiting, &w->in_waiting);
}

/* Everything below `next_rev` is done with for this watcher. */
static void advance(struct watch_hub *h, struct watcher *w, int64_t next_rev)
{
    if (w->next_rev < next_rev) w->next_rev = next_rev;
    set_state(h, w, w->next_rev > h->revision ? SYNCED : WANTING);
}

static void group_drop(struct watch_hub *h, struct watch_group *g)
{
    if (g->watchers == 0 && g->pins == 0) range_index_remove(&h->index, g);
}

/* Takes it out of every list; the struct is still there. */
static void detach(struct watch_hub *h, struct watcher *w)
{
    if (w->state == WANTING) h->wanting--;
    if (w->state != SYNCED) h->behind--;
    h->watchers--;
    list_remove(&w->in_waiting);
    list_remove(&w->in_group);
    list_remove(&w->in_sink);
    w->state = ENDED;
    w->group->watchers--;
    group_drop(h, w->group);
    w->group = NULL;
}

/* ---- asking for history ---------------------------------------------------------------------- */

/* The lowest revision that a bucket's watchers want; those whose sink is not ready wait for it. 0 =
 * nobody is left. */
static int64_t bucket_first(struct watch_hub *h, unsigned bucket)
{
    int64_t first = 0;
    list_for_each(node, &h->buckets[bucket])
    {
        struct watcher *w = container_of(node, struct watcher, in_waiting);
        if (!w->sink->ready(w->sink)) set_state(h, w, WAITING);
        else if (first == 0 || w->next_rev < first) first = w->next_rev;
    }
    return first;
}

static struct history_request *request_slot(struct watch_hub *h, unsigned bucket)
{
    struct history_request *free_slot = NULL;
    for (size_t i = 0; i < LIMIT_WATCH_HISTORY_REQUESTS; i++) {
        if (h->requests[i].id == 0) free_slot = &h->requests[i];
        else if (h->requests[i].bucket == bucket) return NULL;
    }
    return free_slot;
}

static void ask(struct watch_hub *h)
{
    if (h->stopped) return;
    for (unsigned i = 0;
         i < LAG_BUCKETS && h->wanting > 0 && h->asked < LIMIT_WATCH_HISTORY_REQUESTS; i++) {
        unsigned bucket = h->turn++ % LAG_BUCKETS;
        if (list_empty(&h->buckets[bucket])) continue;
        struct history_request *r = request_slot(h, bucket);
        int64_t from = r ? bucket_first(h, bucket) : 0;
        if (from == 0) continue;
        *r = (struct history_request){.id = ++h->last_request, .from = from, .bucket = bucket};
        h->n_history++;
        h->asked++;
        h->up.request(h->ctx, r->id, from);
    }
}

/* ---- watchers -------------------------------------------------------------------------------- */

void watch_sink_init(struct watch_sink *sink)
{
    list_init(&sink->watchers);
    list_init(&sink->waiting);
}

int watch_add(struct watch_hub *h, struct watch_sink *sink, const struct watch_options *o,
              struct watcher **ret)
{
    if (o->start_rev < 0) return ERR_INVALID;
    if (h->watchers >= LIMIT_WATCHES_PER_PROCESS) return ERR_LIMIT;
    struct watcher *w = mem_alloc(sizeof(*w));
    if (!w) return ERR_NOMEM;
    struct watch_group *g = range_index_get(&h->index, o->key, o->range_end);
    if (!g) {
        mem_free(w);
        return ERR_NOMEM;
    }
    g->watchers++;
    h->watchers++;
    *w = (struct watcher){
        .group = g, .sink = sink, .data = o->data, .filters = (uint8_t)o->filters, .state = SYNCED};
    list_init(&w->in_group);
    list_init(&w->in_waiting);
    list_push_back(&sink->watchers, &w->in_sink);
    advance(h, w, o->start_rev > 0 ? o->start_rev : h->revision + 1);
    *ret = w;
    ask(h);
    return 0;
}

void watch_remove(struct watch_hub *h, struct watcher *w)
{
    if (w->state == ENDED) return; /* from inside `canceled` */
    detach(h, w);
    mem_free(w);
}

void watch_sink_release(struct watch_hub *h, struct watch_sink *sink)
{
    while (!list_empty(&sink->watchers))
        watch_remove(h, container_of(sink->watchers.next, struct watcher, in_sink));
}

void watch_sink_writable(struct watch_hub *h, struct watch_sink *sink)
{
    list_for_each(node, &sink->waiting)
    {
        struct watcher *w = container_of(node, struct watcher, in_waiting);
        set_state(h, w, WANTING);
    }
    ask(h);
}

void *watcher_data(const struct watcher *w)
{
    return w->data;
}

int64_t watcher_progress(const struct watch_hub *h, const struct watcher *w)
{
    return w->state == SYNCED ? h->revision : w->next_rev - 1;
}

bool watcher_synced(const struct watch_hub *h, const struct watcher *w)
{
    return w->state == SYNCED && w->next_rev <= h->revision + 1;
}

/* ---- matching a batch ------------------------------------------------------------------------ */

struct matching {
    struct watch_hub *h;
    struct list touched; /* groups that have events in the batch, in the order of the first one */
    uint32_t event;
    bool live;
};

static void add_match(void *ctx, struct watch_group *g)
{
    struct matching *m = ctx;
    struct watch_hub *h = m->h;
    if (list_empty(m->live ? &g->synced : &g->behind)) return;
    if (h->n_matches == h->matches_size) {
        size_t size = h->matches_size ? h->matches_size * 2 : 256;
        struct match *grown = mem_realloc(h->matches, size * sizeof(*grown));
        if (!grown) {
            h->match_failed = true;
            return;
        }
        h->matches = grown;
        h->matches_size = size;
    }
    size_t at = h->n_matches++;
    h->matches[at] = (struct match){.event = m->event, .next = NO_MATCH};
    if (g->n_matches++ == 0) {
        g->first_match = at;
        g->pins++;
        list_push_back(&m->touched, &g->touched);
    } else {
        h->matches[g->last_match].next = at;
    }
    g->last_match = at;
}

static bool run_room(struct run *r, size_t n)
{
    if (n <= r->size) return true;
    size_t size = r->size ? r->size : 64;
    while (size < n) size *= 2;
    const struct event **all = mem_alloc(3 * size * sizeof(const struct event *));
    if (!all) return false;
    mem_free(r->all);
    r->all = all;
    r->filtered[0] = all + size;
    r->filtered[1] = all + 2 * size;
    r->size = size;
    return true;
}

/* Finds the groups that events after `after_rev` are for; ERR_NOMEM: none is reported. */
static int match_batch(struct matching *m, const struct event_batch *b, int64_t after_rev)
{
    struct watch_hub *h = m->h;
    list_init(&m->touched);
    h->n_matches = 0;
    h->match_failed = !run_room(&h->run, b->count);
    for (size_t i = 0; i < b->count && !h->match_failed; i++) {
        const struct record *r = b->events[i].record;
        m->event = (uint32_t)i;
        if (r->mod_rev > after_rev) range_index_match(&h->index, record_key(r), add_match, m);
    }
    return h->match_failed ? ERR_NOMEM : 0;
}

/* The next touched group, or NULL; it stays pinned until group_done. */
static struct watch_group *next_touched(struct matching *m)
{
    struct list *node = list_pop_front(&m->touched);
    return node ? container_of(node, struct watch_group, touched) : NULL;
}

static void group_done(struct watch_hub *h, struct watch_group *g)
{
    g->n_matches = 0;
    g->first_match = g->last_match = NO_MATCH;
    g->pins--;
    group_drop(h, g);
}

static void collect_run(struct watch_hub *h, const struct watch_group *g,
                        const struct event_batch *b)
{
    struct run *r = &h->run;
    r->n = 0;
    r->has_filtered[0] = r->has_filtered[1] = false;
    r->last_events = NULL;
    for (size_t at = g->first_match; at != NO_MATCH; at = h->matches[at].next) {
        r->all[r->n++] = &b->events[h->matches[at].event];
    }
}

/* The group's events that a watcher's filters let through. */
static size_t select_events(struct run *r, unsigned filters, const struct event *const **ret)
{
    *ret = r->all;
    if (filters == 0) return r->n;
    if (filters == (WATCH_NO_PUT | WATCH_NO_DELETE)) return 0;
    unsigned f = filters - 1;
    if (!r->has_filtered[f]) {
        r->has_filtered[f] = true;
        r->n_filtered[f] = 0;
        for (size_t i = 0; i < r->n; i++) {
            if (r->all[i]->record->tombstone == (filters == WATCH_NO_PUT))
                r->filtered[f][r->n_filtered[f]++] = r->all[i];
        }
    }
    *ret = r->filtered[f];
    return r->n_filtered[f];
}

/* Gives a watcher its part of the run, after which it has seen all up to `last_rev`; or makes it
 * wait. The watcher may be gone afterwards. */
static void offer(struct watch_hub *h, struct watcher *w, int64_t last_rev)
{
    struct run *r = &h->run;
    const struct event *const *events;
    size_t n = select_events(r, w->filters, &events);
    while (n > 0 && events[0]->record->mod_rev < w->next_rev) {
        events++;
        n--;
    }
    if (n > 0 && !w->sink->ready(w->sink)) {
        set_state(h, w, WAITING);
        return;
    }
    advance(h, w, last_rev + 1);
    if (n == 0) return;
    if (r->last_events != events || r->last_n != n) {
        r->last_events = events;
        r->last_n = n;
        r->number++;
    }
    h->n_events += n;
    w->sink->events(w->sink, w, events, n, last_rev);
}

uint64_t watch_hub_run(const struct watch_hub *h)
{
    return h->run.number;
}

static void list_move_all(struct list *from, struct list *to)
{
    list_init(to);
    if (list_empty(from)) return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    list_init(from);
}

/* ---- live ------------------------------------------------------------------------------------ */

struct falling {
    struct watch_hub *h;
    int64_t seen;
};

static void group_fall_behind(void *ctx, struct watch_group *g)
{
    struct falling *f = ctx;
    struct list todo, *node; /* those that start in the future go back into the same list */
    list_move_all(&g->synced, &todo);
    while ((node = list_pop_front(&todo)) != NULL) {
        advance(f->h, container_of(node, struct watcher, in_group), f->seen + 1);
    }
}

/* All synced watchers have seen `seen`, and not what came after it. */
static void fall_behind(struct watch_hub *h, int64_t seen)
{
    struct falling f = {h, seen};
    range_index_each(&h->index, group_fall_behind, &f);
}

static void deliver_live(struct watch_hub *h, struct watch_group *g, int64_t seen, int64_t last_rev)
{
    struct list todo, *node;
    list_move_all(&g->synced, &todo);
    while ((node = list_pop_front(&todo)) != NULL) {
        struct watcher *w = container_of(node, struct watcher, in_group);
        list_push_back(&g->synced, node);
        if (w->next_rev <= seen) w->next_rev = seen + 1;
        offer(h, w, last_rev);
    }
}

void watch_hub_live(struct watch_hub *h, struct event_batch *batch)
{
    if (batch->count == 0 || batch->last_rev <= h->revision) return;
    if (batch->first_rev > h->revision + 1) watch_hub_reset(h, batch->first_rev - 1);
    int64_t seen = h->revision;
    h->revision = batch->last_rev;
    h->n_batches++;
    struct matching m = {.h = h, .live = true};
    bool failed = match_batch(&m, batch, seen) != 0;
    for (struct watch_group *g; (g = next_touched(&m)) != NULL; group_done(h, g)) {
        if (failed) continue;
        collect_run(h, g, batch);
        deliver_live(h, g, seen, batch->last_rev);
    }
    if (failed) fall_behind(h, seen);
    ask(h);
}

void watch_hub_reset(struct watch_hub *h, int64_t revision)
{
    if (revision <= h->revision) return;
    int64_t seen = h->revision;
    h->revision = revision;
    fall_behind(h, seen);
    ask(h);
}

int64_t watch_hub_revision(const struct watch_hub *h)
{
    return h->revision;
}

/* ---- history --------------------------------------------------------------------------------- */

static bool in_window(const struct watcher *w, int64_t from, int64_t upto)
{
    return w->state == WANTING && w->next_rev >= from && w->next_rev <= upto;
}

static void deliver_history(struct watch_hub *h, struct watch_group *g, int64_t from, int64_t upto)
{
    struct list todo, *node;
    list_move_all(&g->behind, &todo);
    while ((node = list_pop_front(&todo)) != NULL) {
        struct watcher *w = container_of(node, struct watcher, in_group);
        list_push_back(&g->behind, node);
        if (in_window(w, from, upto)) offer(h, w, upto);
    }
}

/* Those in the window that no event was for. */
static void advance_rest(struct watch_hub *h, int64_t from, int64_t upto)
{
    int64_t last = upto / LAG_SPAN - from / LAG_SPAN >= LAG_BUCKETS
                       ? from + (LAG_BUCKETS - 1) * (int64_t)LAG_SPAN
                       : upto;
    for (int64_t rev = from / LAG_SPAN * LAG_SPAN; rev <= last; rev += LAG_SPAN) {
        list_for_each(node, &h->buckets[bucket_number(rev)])
        {
            struct watcher *w = container_of(node, struct watcher, in_waiting);
            if (in_window(w, from, upto)) advance(h, w, upto + 1);
        }
    }
}

static void serve_history(struct watch_hub *h, int64_t from, struct event_batch *batch,
                          int64_t upto)
{
    if (batch && batch->count > 0) {
        struct matching m = {.h = h, .live = false};
        bool failed = match_batch(&m, batch, from - 1) != 0;
        upto = batch->last_rev;
        for (struct watch_group *g; (g = next_touched(&m)) != NULL; group_done(h, g)) {
            if (failed) continue;
            collect_run(h, g, batch);
            deliver_history(h, g, from, upto);
        }
        if (failed) return;
    }
    advance_rest(h, from, upto);
}

/* What stood at `from` was compacted, and so was all below `compact_rev`. */
static void cancel_compacted(struct watch_hub *h, int64_t from, int64_t compact_rev)
{
    for (unsigned i = 0; i < LAG_BUCKETS; i++) {
        struct list todo, *node;
        list_move_all(&h->buckets[i], &todo);
        while ((node = list_pop_front(&todo)) != NULL) {
            struct watcher *w = container_of(node, struct watcher, in_waiting);
            list_push_back(&h->buckets[i], node);
            if (w->next_rev > from && w->next_rev >= compact_rev) continue;
            struct watch_sink *sink = w->sink;
            detach(h, w);
            sink->canceled(sink, w, ERR_COMPACTED, compact_rev);
            mem_free(w);
        }
    }
}

void watch_hub_history(struct watch_hub *h, uint64_t request_id, int code,
                       struct event_batch *batch, int64_t upto_rev, int64_t compact_rev)
{
    struct history_request *r = NULL;
    for (size_t i = 0; i < LIMIT_WATCH_HISTORY_REQUESTS; i++) {
        if (request_id != 0 && h->requests[i].id == request_id) r = &h->requests[i];
    }
    if (!r) return;
    int64_t from = r->from;
    r->id = 0;
    h->asked--;
    if (code == 0) serve_history(h, from, batch, upto_rev);
    else if (code == ERR_COMPACTED) cancel_compacted(h, from, compact_rev);
    else if (code == ERR_STOPPED || code == ERR_CLOSED) h->stopped = true;
    ask(h);
}

/* ---- the rest -------------------------------------------------------------------------------- */

void watch_hub_stats(const struct watch_hub *h, struct watch_stats *ret)
{
    *ret = (struct watch_stats){.watchers = h->watchers,
                                .slow_watchers = h->behind,
                                .events = h->n_events,
                                .batches = h->n_batches,
                                .history_requests = h->n_history};
}

static void unlink_watchers(struct list *watchers)
{
    struct list *node;
    while ((node = list_pop_front(watchers)) != NULL) {
        struct watcher *w = container_of(node, struct watcher, in_group);
        list_remove(&w->in_sink);
        list_remove(&w->in_waiting);
        mem_free(w);
    }
}

static void keep_group(void *ctx, struct watch_group *g)
{
    list_push_back(ctx, &g->touched);
}

void watch_hub_free(struct watch_hub *h)
{
    if (!h) return;
    struct list groups, *node;
    list_init(&groups);
    range_index_each(&h->index, keep_group, &groups);
    while ((node = list_pop_front(&groups)) != NULL) {
        struct watch_group *g = container_of(node, struct watch_group, touched);
        unlink_watchers(&g->synced);
        unlink_watchers(&g->behind);
        range_index_remove(&h->index, g);
    }
    range_index_release(&h->index);
    mem_free(h->matches);
    mem_free(h->run.all);
    mem_free(h);
}
