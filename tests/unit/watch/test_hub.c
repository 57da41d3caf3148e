/* The hub against a plain model: every watcher must get exactly the events of its range, from its
 * start on, in order, each once, whole revisions at a time, whatever sinks, history, compaction,
 * resets and memory do. Seeds: 300 runs from 1 (WATCH_SEED=n runs one). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "watch/watch_int.h"

/* ---- the model of a core ----------------------------------------------------------------------
 */

#define MAX_EVENTS 6000
#define MAX_WATCHERS 64
#define MAX_SINKS 6
#define MAX_MESSAGES 4096

struct model_watcher {
    bool used;
    struct watcher *w;
    struct model_sink *sink;
    char key[8], end[8];
    unsigned filters;
    int64_t next; /* the first revision that was not accounted for yet */
    int64_t progress;
};

struct model_sink {
    struct watch_sink sink;
    bool ready;
    int budget; /* deliveries until it is not ready any more; -1 = no end */
};

struct message {
    enum { LIVE, HISTORY, RESET } kind;
    struct event_batch *batch;
    uint64_t request;
    int code;
    int64_t upto, compact;
};

static struct {
    struct record *records[MAX_EVENTS];
    size_t n;
    int64_t revision, compacted;
    struct {
        uint64_t id;
        int64_t from;
    } requests[MAX_MESSAGES];
    size_t n_requests;
    struct message messages[MAX_MESSAGES];
    size_t n_messages;
    struct watch_hub *hub;
    struct model_watcher watchers[MAX_WATCHERS];
    struct model_sink sinks[MAX_SINKS];
    uint64_t random, deliveries, cancels, last_run;
    const struct event *const *last_events;
    size_t last_n;
} m;

static unsigned rnd(unsigned n)
{
    m.random = m.random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(m.random >> 33) % n;
}

static bool covers(const struct model_watcher *w, struct slice key)
{
    struct slice begin = slice_str(w->key), end = slice_str(w->end);
    if (end.len == 0) return slice_eq(begin, key);
    if (end.data[0] == '*') return slice_cmp(key, begin) >= 0;
    return slice_cmp(key, begin) >= 0 && slice_cmp(key, end) < 0;
}

static bool wants(const struct model_watcher *w, const struct record *r)
{
    if (!covers(w, record_key(r)) || r->mod_rev < w->next) return false;
    return !(w->filters & (r->tombstone ? WATCH_NO_DELETE : WATCH_NO_PUT));
}

/* ---- sinks ------------------------------------------------------------------------------------
 */

static void remove_watcher(struct model_watcher *w)
{
    watch_remove(m.hub, w->w);
    w->used = false;
}

static void on_events(struct watch_sink *sink, struct watcher *handle,
                      const struct event *const *events, size_t n, int64_t last_rev)
{
    struct model_watcher *w = watcher_data(handle);
    struct model_sink *s = container_of(sink, struct model_sink, sink);
    assert_true(w->used && w->sink == s && s->ready);
    assert_true(n > 0 && last_rev <= m.revision);
    size_t i = 0;
    for (size_t at = 0; at < m.n; at++) {
        struct record *r = m.records[at];
        if (r->mod_rev > last_rev || !wants(w, r)) continue;
        assert_true(i < n);
        assert_ptr_equal(events[i]->record, r);
        i++;
    }
    assert_int_equal(i, n);
    bool same = watch_hub_run(m.hub) == m.last_run;
    if (same) assert_true(m.last_events == events && m.last_n == n);
    m.last_run = watch_hub_run(m.hub);
    m.last_events = events;
    m.last_n = n;
    w->next = last_rev + 1;
    m.deliveries++;
    if (s->budget > 0 && --s->budget == 0) s->ready = false;
    if (rnd(40) == 0) remove_watcher(w);
    if (rnd(60) == 0) { /* its whole stream goes */
        watch_sink_release(m.hub, sink);
        for (size_t k = 0; k < MAX_WATCHERS; k++) {
            if (m.watchers[k].sink == s) m.watchers[k].used = false;
        }
    }
}

static void on_canceled(struct watch_sink *sink, struct watcher *handle, int code,
                        int64_t compact_rev)
{
    struct model_watcher *w = watcher_data(handle);
    assert_true(w->used && &w->sink->sink == sink);
    assert_int_equal(code, ERR_COMPACTED);
    assert_true(compact_rev <= m.compacted);
    /* Nothing that it could still have been told may be behind a cancellation: it was really behind
     * the compaction. */
    assert_true(w->next <= compact_rev && w->progress < compact_rev);
    watch_remove(m.hub, handle); /* allowed, and does nothing */
    w->used = false;
    m.cancels++;
}

static bool on_ready(struct watch_sink *sink)
{
    return container_of(sink, struct model_sink, sink)->ready;
}

static void on_request(void *ctx, uint64_t id, int64_t from)
{
    assert_ptr_equal(ctx, &m);
    assert_true(from > 0 && from <= m.revision);
    assert_true(m.n_requests < LIMIT_WATCH_HISTORY_REQUESTS);
    m.requests[m.n_requests].id = id;
    m.requests[m.n_requests++].from = from;
}

/* ---- the core's side --------------------------------------------------------------------------
 */

static struct record *new_record(const char *key, int64_t rev, uint32_t sub, bool tombstone)
{
    struct record *r = mem_must_calloc(1, sizeof(*r) + strlen(key));
    r->key_len = (uint32_t)strlen(key);
    memcpy(r->data, key, strlen(key));
    r->mod_rev = rev;
    r->sub = sub & 0xffffu;
    r->tombstone = tombstone;
    return r;
}

static struct event_batch *make_batch(int64_t from, int64_t upto)
{
    struct event_batch *b = mem_must_calloc(1, sizeof(*b) + m.n * sizeof(struct event));
    b->first_rev = from;
    b->last_rev = upto;
    for (size_t i = 0; i < m.n; i++) {
        if (m.records[i]->mod_rev >= from && m.records[i]->mod_rev <= upto)
            b->events[b->count++].record = m.records[i];
    }
    return b;
}

static void push(struct message msg)
{
    assert_true(m.n_messages < MAX_MESSAGES);
    m.messages[m.n_messages++] = msg;
}

static void random_key(char key[8])
{
    size_t len = 1 + rnd(3);
    for (size_t i = 0; i < len; i++) key[i] = (char)('a' + rnd(3));
    key[len] = 0;
}

static void core_commit(void)
{
    int64_t first = m.revision + 1;
    for (unsigned revs = 1 + rnd(3); revs > 0 && m.n + 4 < MAX_EVENTS; revs--) {
        m.revision++;
        unsigned events = 1 + rnd(3);
        for (unsigned i = 0; i < events; i++) {
            char key[8];
            random_key(key);
            m.records[m.n++] = new_record(key, m.revision, i, rnd(4) == 0);
        }
    }
    if (m.revision < first) return;
    if (rnd(50) == 0) { /* these came in a snapshot */
        push((struct message){.kind = RESET, .upto = m.revision});
    } else {
        push((struct message){.kind = LIVE,
                              .batch = make_batch(first - (rnd(10) ? 0 : rnd(5)),
                                                  m.revision)}); /* with or without an overlap */
        if (rnd(30) == 0)
            push((struct message){
                .kind = LIVE, .batch = make_batch(first, m.revision)}); /* a repeat does no harm */
    }
}

static void core_answer(void)
{
    if (m.n_requests == 0) return;
    size_t which = rnd((unsigned)m.n_requests);
    struct message msg = {.kind = HISTORY, .request = m.requests[which].id};
    int64_t from = m.requests[which].from;
    m.requests[which] = m.requests[--m.n_requests];
    int64_t upto = from + rnd(20);
    if (upto > m.revision || rnd(3) == 0) upto = m.revision;
    msg.compact = m.compacted;
    msg.upto = upto;
    if (rnd(20) == 0) msg.code = ERR_NOMEM;
    else if (from <= m.compacted) msg.code = ERR_COMPACTED;
    else if (from <= m.revision) msg.batch = make_batch(from, upto);
    push(msg);
}

static void hub_receive(void)
{
    if (m.n_messages == 0) return;
    struct message msg = m.messages[0];
    memmove(m.messages, m.messages + 1, --m.n_messages * sizeof(msg));
    if (msg.kind == LIVE) watch_hub_live(m.hub, msg.batch);
    else if (msg.kind == RESET) watch_hub_reset(m.hub, msg.upto);
    else watch_hub_history(m.hub, msg.request, msg.code, msg.batch, msg.upto, msg.compact);
    mem_free(msg.batch);
}

static void add_watcher(void)
{
    struct model_watcher *w = &m.watchers[rnd(MAX_WATCHERS)];
    if (w->used) return;
    *w = (struct model_watcher){.sink = &m.sinks[rnd(MAX_SINKS)], .filters = rnd(4) ? 0 : rnd(4)};
    random_key(w->key);
    unsigned kind = rnd(4);
    if (kind == 1) { /* a prefix */
        memcpy(w->end, w->key, sizeof(w->end));
        w->end[strlen(w->end) - 1]++;
    }
    if (kind == 2) random_key(w->end); /* empty ranges too */
    if (kind == 3) w->end[0] = '*';
    struct slice end = kind == 3 ? slice_make("", 1) : slice_str(w->end);
    struct watch_options o = {
        .key = slice_str(w->key), .range_end = end, .filters = w->filters, .data = w};
    unsigned start = rnd(4);
    int64_t seen = watch_hub_revision(m.hub);
    if (start == 1) o.start_rev = 1 + rnd((unsigned)seen + 1);
    if (start == 2) o.start_rev = seen + 1 + rnd(10);
    if (start == 3 && seen > 10) o.start_rev = seen - rnd(10);
    w->next = o.start_rev ? o.start_rev : seen + 1;
    int code = watch_add(m.hub, &w->sink->sink, &o, &w->w);
    assert_true(code == 0 || code == ERR_NOMEM);
    w->used = code == 0;
}

static void step(void)
{
    switch (rnd(12)) {
    case 0:
    case 1: core_commit(); break;
    case 2:
    case 3: core_answer(); break;
    case 4:
    case 5:
    case 6: hub_receive(); break;
    case 7: add_watcher(); break;
    case 8: {
        struct model_watcher *w = &m.watchers[rnd(MAX_WATCHERS)];
        if (w->used && rnd(3) == 0) remove_watcher(w);
        break;
    }
    case 9:
    case 10: {
        struct model_sink *s = &m.sinks[rnd(MAX_SINKS)];
        s->budget = rnd(2) ? (int)(1 + rnd(5)) : -1;
        s->ready = rnd(4) != 0;
        if (s->ready) watch_sink_writable(m.hub, &s->sink);
        break;
    }
    default:
        if (rnd(30) == 0) m.compacted += rnd((unsigned)(m.revision - m.compacted) + 1);
    }
}

/* Progress is a promise: it never goes back. */
static void check_progress(void)
{
    for (size_t k = 0; k < MAX_WATCHERS; k++) {
        struct model_watcher *w = &m.watchers[k];
        if (!w->used) continue;
        int64_t progress = watcher_progress(m.hub, w->w);
        assert_true(progress >= w->progress && progress <= m.revision);
        w->progress = progress;
    }
}

/* Lets everything come to rest, and looks at where each watcher stands. */
static void settle_all(void)
{
    for (size_t i = 0; i < MAX_SINKS; i++) {
        m.sinks[i].ready = true;
        m.sinks[i].budget = -1;
        watch_sink_writable(m.hub, &m.sinks[i].sink);
    }
    while (m.n_messages || m.n_requests) {
        core_answer();
        hub_receive();
    }
    assert_int_equal(watch_hub_revision(m.hub), m.revision);
    struct watch_stats stats;
    watch_hub_stats(m.hub, &stats);
    assert_int_equal(stats.slow_watchers, 0);
    for (size_t k = 0; k < MAX_WATCHERS; k++) {
        struct model_watcher *w = &m.watchers[k];
        if (!w->used) continue;
        stats.watchers--;
        assert_true(watcher_synced(m.hub, w->w) == (w->next <= m.revision + 1));
        assert_int_equal(watcher_progress(m.hub, w->w), m.revision);
        for (size_t at = 0; at < m.n; at++) assert_false(wants(w, m.records[at]));
    }
    assert_int_equal(stats.watchers, 0);
}

static void run_seed(uint64_t seed, bool failing_memory)
{
    memset(&m, 0, sizeof(m));
    m.random = seed * 7919;
    m.revision = 1;
    for (size_t i = 0; i < MAX_SINKS; i++) {
        m.sinks[i] = (struct model_sink){
            {.events = on_events, .canceled = on_canceled, .ready = on_ready}, true, -1};
        watch_sink_init(&m.sinks[i].sink);
    }
    struct watch_upstream up = {on_request};
    assert_int_equal(watch_hub_new(&up, &m, 1, 1, &m.hub), 0);
    for (int i = 0; i < 2500; i++) {
        if (failing_memory && rnd(4) == 0) mem_fail_nth(1 + rnd(3));
        step();
        mem_fail_nth(0);
        check_progress();
        if (i % 500 == 499) settle_all();
    }
    if (seed % 2 == 0) { /* freed with watchers, or after the last one */
        for (size_t k = 0; k < MAX_WATCHERS; k++) {
            if (m.watchers[k].used) remove_watcher(&m.watchers[k]);
        }
    }
    watch_hub_free(m.hub);
    for (size_t i = 0; i < m.n; i++) mem_free(m.records[i]);
}

static void test_against_model(void **state)
{
    (void)state;
    const char *one = getenv("WATCH_SEED");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1, last = one ? first : 300;
    uint64_t deliveries = 0, cancels = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        run_seed(seed, seed % 3 == 0);
        deliveries += m.deliveries;
        cancels += m.cancels;
    }
    if (!one) assert_true(deliveries > 100000 && cancels > 100); /* the runs did something */
}

/* ---- single cases -----------------------------------------------------------------------------
 */

struct counting_sink {
    struct watch_sink sink;
    size_t calls, events, cancels;
    int64_t last_rev;
    bool ready;
};

static void count_events(struct watch_sink *sink, struct watcher *w,
                         const struct event *const *events, size_t n, int64_t last_rev)
{
    struct counting_sink *s = container_of(sink, struct counting_sink, sink);
    (void)w, (void)events;
    s->calls++;
    s->events += n;
    s->last_rev = last_rev;
}

static void count_cancels(struct watch_sink *sink, struct watcher *w, int code, int64_t compact_rev)
{
    (void)w, (void)code, (void)compact_rev;
    container_of(sink, struct counting_sink, sink)->cancels++;
}

static bool counting_ready(struct watch_sink *sink)
{
    return container_of(sink, struct counting_sink, sink)->ready;
}

static struct counting_sink counting_sink(void)
{
    return (struct counting_sink){
        .sink = {.events = count_events, .canceled = count_cancels, .ready = counting_ready},
        .ready = true};
}

static struct {
    uint64_t ids[16];
    int64_t froms[16];
    size_t n;
} asked;

static void note_request(void *ctx, uint64_t id, int64_t from)
{
    (void)ctx;
    assert_true(asked.n < 16);
    asked.ids[asked.n] = id;
    asked.froms[asked.n++] = from;
}

static struct watch_hub *new_hub(int64_t revision)
{
    struct watch_hub *h;
    struct watch_upstream up = {note_request};
    asked.n = 0;
    assert_int_equal(watch_hub_new(&up, NULL, revision, 1, &h), 0);
    return h;
}

static struct watcher *add(struct watch_hub *h, struct counting_sink *s, const char *key,
                           struct slice end, int64_t start)
{
    struct watcher *w = NULL;
    struct watch_options o = {.key = slice_str(key), .range_end = end, .start_rev = start};
    assert_int_equal(watch_add(h, &s->sink, &o, &w), 0);
    return w;
}

static struct event_batch *one_event(const char *key, int64_t rev)
{
    struct event_batch *b = mem_must_calloc(1, sizeof(*b) + sizeof(struct event));
    *b = (struct event_batch){.first_rev = rev, .last_rev = rev, .count = 1};
    b->events[0].record = new_record(key, rev, 0, false);
    return b;
}

static void free_batch(struct event_batch *b)
{
    mem_free(b->events[0].record);
    mem_free(b);
}

static void test_lagging_watchers_share_requests(void **state)
{
    (void)state;
    struct watch_hub *h = new_hub(5000);
    struct counting_sink s = counting_sink();
    watch_sink_init(&s.sink);
    for (int i = 0; i < 500; i++)
        add(h, &s, "k", (struct slice){0}, 1000 + i); /* one neighbourhood */
    add(h, &s, "k", (struct slice){0}, 4500);
    assert_int_equal(asked.n, 2);
    assert_int_equal(asked.froms[0], 1000);
    assert_int_equal(asked.froms[1], 4500);
    /* The first covers all of them; the second request's answer finds its watcher already served.
     */
    struct event_batch *b = one_event("k", 5000);
    b->first_rev = 1000;
    watch_hub_history(h, asked.ids[0], 0, b, 5000, 0);
    assert_int_equal(s.events, 501);
    watch_hub_history(h, asked.ids[1], 0, b, 5000, 0);
    assert_int_equal(s.events, 501);
    struct watch_stats stats;
    watch_hub_stats(h, &stats);
    assert_int_equal(stats.slow_watchers, 0);
    assert_int_equal(stats.history_requests, 2);
    free_batch(b);
    watch_hub_free(h);
}

static void test_slow_sink_holds_nothing(void **state)
{
    (void)state;
    struct watch_hub *h = new_hub(1);
    struct counting_sink s = counting_sink();
    watch_sink_init(&s.sink);
    struct watcher *hit = add(h, &s, "a", (struct slice){0}, 0),
                   *other = add(h, &s, "b", (struct slice){0}, 0);
    s.ready = false;
    struct event_batch *b = one_event("a", 2);
    watch_hub_live(h, b);
    assert_false(watcher_synced(h, hit));
    assert_int_equal(watcher_progress(h, hit), 1);
    assert_true(watcher_synced(h, other)); /* nothing was for it */
    assert_int_equal(watcher_progress(h, other), 2);
    assert_int_equal(asked.n, 0); /* no history for a stream that cannot take it */
    s.ready = true;
    watch_sink_writable(h, &s.sink);
    assert_int_equal(s.calls, 0);
    assert_int_equal(asked.n, 1);
    assert_int_equal(asked.froms[0], 2);
    watch_hub_history(h, asked.ids[0], 0, b, 2, 0);
    assert_int_equal(s.events, 1);
    assert_true(watcher_synced(h, hit));
    free_batch(b);
    watch_hub_free(h);
}

static void test_canceled_when_compacted(void **state)
{
    (void)state;
    struct watch_hub *h = new_hub(100);
    struct counting_sink s = counting_sink();
    watch_sink_init(&s.sink);
    add(h, &s, "a", (struct slice){0}, 10);
    struct watcher *later = add(h, &s, "a", (struct slice){0}, 60),
                   *live = add(h, &s, "a", (struct slice){0}, 0);
    watch_hub_history(h, asked.ids[0], ERR_COMPACTED, NULL, 0, 50);
    assert_int_equal(s.cancels, 1);
    assert_int_equal(asked.n, 2);
    assert_int_equal(asked.froms[1], 60);
    watch_hub_history(h, asked.ids[1], 0, NULL, 100, 0);
    assert_true(watcher_synced(h, later) && watcher_synced(h, live));
    watch_hub_history(h, asked.ids[1], ERR_COMPACTED, NULL, 0,
                      1000); /* an answer that nobody waits for */
    assert_int_equal(s.cancels, 1);
    watch_hub_free(h);
}

/* A bookmark with the hub's revision would send these watchers' clients back. */
static void test_ahead_of_the_hub_is_not_synced(void **state)
{
    (void)state;
    struct watch_hub *h = new_hub(100);
    struct counting_sink s = counting_sink();
    watch_sink_init(&s.sink);
    struct watcher *next = add(h, &s, "a", (struct slice){0}, 101),
                   *future = add(h, &s, "a", (struct slice){0}, 103),
                   *lagging = add(h, &s, "a", (struct slice){0}, 50);
    assert_true(watcher_synced(h, next) && !watcher_synced(h, future) && !watcher_synced(h, lagging));
    struct event_batch *b = one_event("a", 102); /* the core is there already; this worker was left out */
    watch_hub_history(h, asked.ids[0], 0, b, 102, 0);
    assert_int_equal(s.last_rev, 102);
    assert_true(watcher_synced(h, next) && !watcher_synced(h, future) && !watcher_synced(h, lagging));
    watch_hub_reset(h, 102);
    assert_true(!watcher_synced(h, next) && watcher_synced(h, future) && watcher_synced(h, lagging));
    free_batch(b);
    watch_hub_free(h);
}

static void test_bad_start_is_refused(void **state)
{
    (void)state;
    struct watch_hub *h = new_hub(1);
    struct counting_sink s = counting_sink();
    watch_sink_init(&s.sink);
    struct watcher *w;
    struct watch_options o = {.key = slice_str("a"), .start_rev = -1};
    assert_int_equal(watch_add(h, &s.sink, &o, &w), ERR_INVALID);
    struct watch_stats stats;
    watch_hub_stats(h, &stats);
    assert_int_equal(stats.watchers, 0);
    watch_hub_free(h);
}

/* ---- the index at size ------------------------------------------------------------------------
 */

struct hits {
    size_t n;
    struct watch_group *last;
};

static void count_hit(void *ctx, struct watch_group *g)
{
    struct hits *hits = ctx;
    hits->n++;
    hits->last = g;
}

static void test_index_of_many_ranges(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct range_index ix = {0};
    static struct watch_group *groups[2 * N];
    char key[32], end[32];
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof(key), "/pods/ns-%05d/", i);
        snprintf(end, sizeof(end), "/pods/ns-%05d0", i);
        groups[2 * i] = range_index_get(&ix, slice_str(key), slice_str(end));
        snprintf(key, sizeof(key), "/pods/ns-%05d/web", i);
        groups[2 * i + 1] = range_index_get(&ix, slice_str(key), (struct slice){0});
        assert_non_null(groups[2 * i]);
        assert_non_null(groups[2 * i + 1]);
    }
    struct watch_group *all = range_index_get(&ix, slice_str("/"), slice_make("", 1));
    assert_ptr_equal(range_index_get(&ix, slice_str("/"), slice_make("", 1)), all);
    for (int i = 0; i < N; i += 7) {
        snprintf(key, sizeof(key), "/pods/ns-%05d/web", i);
        struct hits hits = {0};
        range_index_match(&ix, slice_str(key), count_hit, &hits);
        assert_int_equal(hits.n, 3); /* the key, the prefix, everything */
    }
    for (int i = 0; i < 2 * N; i += 2) range_index_remove(&ix, groups[i]);
    struct hits hits = {0};
    range_index_match(&ix, slice_str("/pods/ns-00007/web"), count_hit, &hits);
    assert_int_equal(hits.n, 2);
    range_index_remove(&ix, all);
    for (int i = 1; i < 2 * N; i += 2) range_index_remove(&ix, groups[i]);
    assert_null(ix.root);
    assert_int_equal(ix.n_single, 0);
    range_index_release(&ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_lagging_watchers_share_requests),
        cmocka_unit_test(test_slow_sink_holds_nothing),
        cmocka_unit_test(test_canceled_when_compacted),
        cmocka_unit_test(test_ahead_of_the_hub_is_not_synced),
        cmocka_unit_test(test_bad_start_is_refused),
        cmocka_unit_test(test_index_of_many_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
