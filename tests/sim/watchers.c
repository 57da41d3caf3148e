/* Watches: each lives on some member's hub, moves to another when that member dies or when it feels
 * like it, resumes at the revision after the last one it was told, and now and then takes nothing
 * for a while. What it is told must be exactly what the model says happened in its range, in order,
 * revision by revision, nothing twice and nothing missing. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

struct watch_client {
    struct run *run;
    unsigned number;
    struct watch_sink sink;
    struct watcher *watcher; /* NULL: on no hub */
    struct life *life;
    struct list node; /* in the life's watchers */
    struct slice key, range_end;
    char key_text[16];
    int64_t next_rev; /* the first that it was not told about */
    bool busy;
};

static bool bad(struct watch_client *w, const char *what, int64_t rev)
{
    return verdict_fail(&w->run->verdict,
                        "watcher %u of %s on member %" PRIu64 ", at revision %" PRId64
                        " (next was %" PRId64 "): %s",
                        w->number, w->key_text, w->life ? w->life->id : 0, rev, w->next_rev, what);
}

/* ---- what it is told
 * ----------------------------------------------------------------------------- */

struct expected {
    struct watch_client *w;
    const struct event *const *events;
    size_t n, at;
};

static bool same_record(const struct watch_client *w, const struct record *rec, const struct model_event *ev)
{
    const struct run *r = w->run;
    return rec->mod_rev == ev->rev && rec->sub == ev->sub && rec->tombstone == ev->tombstone &&
           rec->create_rev == ev->create_rev && rec->version == ev->version &&
           rec->lease == ev->lease &&
           slice_eq(record_key(rec), model_key_name(r->model, ev->key)) &&
           (r->lying == w->life->id || slice_eq(record_value(rec), buf_slice(&ev->value)));
}

static bool check_prev(struct watch_client *w, const struct event *got,
                       const struct model_event *ev)
{
    struct run *r = w->run;
    const struct model_event *before =
        model_get(r->model, model_key_name(r->model, ev->key), ev->rev - 1);
    if (!got->prev) {
        return !before || before->rev <= model_compact_revision(r->model) ||
               bad(w, "the previous value is missing", ev->rev);
    }
    return (before && same_record(w, got->prev, before)) || bad(w, "wrong previous value", ev->rev);
}

static bool check_next(void *ctx, const struct model_event *ev)
{
    struct expected *x = ctx;
    if (x->at == x->n) return bad(x->w, "an event is missing", ev->rev);
    const struct event *got = x->events[x->at++];
    if (!same_record(x->w, got->record, ev)) {
        return bad(x->w,
                   got->record->mod_rev > ev->rev ? "an event was passed over"
                                                  : "another event than the log says",
                   ev->rev);
    }
    x->w->run->result->counts.watch_events++;
    return check_prev(x->w, got, ev);
}

static void on_events(struct watch_sink *sink, struct watcher *watcher,
                      const struct event *const *events, size_t n, int64_t last_rev)
{
    struct watch_client *w = container_of(sink, struct watch_client, sink);
    struct run *r = w->run;
    struct expected x = {w, events, n, 0};
    if (run_failed(r) || watcher != w->watcher) return;
    if (last_rev < w->next_rev) bad(w, "time runs backwards", last_rev);
    else if (last_rev > model_revision(r->model))
        bad(w, "a revision that nobody has applied", last_rev);
    else if (model_events(r->model, w->key, w->range_end, w->next_rev, last_rev, check_next, &x) &&
             x.at != n) {
        bad(w, "an event too many", last_rev);
    }
    w->next_rev = last_rev + 1;
}

static bool on_ready(struct watch_sink *sink)
{
    return !container_of(sink, struct watch_client, sink)->busy;
}

/* ---- coming and going
 * ---------------------------------------------------------------------------- */

static void watch_attach(void *arg);

static void detach(struct watch_client *w, uint64_t again_us)
{
    list_remove(&w->node);
    w->watcher = NULL;
    w->life = NULL;
    sim_at(w->run->sim, again_us, watch_attach, w);
}

static bool nothing(void *ctx, const struct model_event *ev)
{
    return bad(ctx, "progress was claimed past an event", ev->rev);
}

/* It asks how far it is, and takes that for told: a progress notification, or a bookmark to go on from elsewhere. */
static void ask_progress(struct watch_client *w)
{
    struct run *r = w->run;
    int64_t progress = watcher_progress(w->life->hub, w->watcher);
    if (progress > model_revision(r->model)) bad(w, "progress to a revision that nobody has applied", progress);
    if (progress < w->next_rev) return;
    model_events(r->model, w->key, w->range_end, w->next_rev, progress, nothing, w);
    w->next_rev = progress + 1;
}

static void leave(struct watch_client *w, uint64_t again_us)
{
    ask_progress(w);
    watch_sink_release(w->life->hub, &w->sink);
    detach(w, again_us);
}

static void on_canceled(struct watch_sink *sink, struct watcher *watcher, int code,
                        int64_t compact_rev)
{
    struct watch_client *w = container_of(sink, struct watch_client, sink);
    struct run *r = w->run;
    (void)watcher;
    r->result->counts.watch_cancels++;
    if (code != ERR_COMPACTED) bad(w, err_name(code), compact_rev);
    else if (compact_rev <= w->next_rev) /* from the compacted revision itself on is allowed */
        bad(w, "canceled as compacted, but it was not", compact_rev);
    else if (compact_rev > model_compact_revision(r->model))
        bad(w, "canceled for a compaction that nobody has applied", compact_rev);
    else w->next_rev = compact_rev + (int64_t)sim_random_below(&r->random, 2);
    detach(w, 1000);
}

static void watch_attach(void *arg)
{
    struct watch_client *w = arg;
    struct run *r = w->run;
    struct life *l = cluster_some(r, &r->random);
    if (w->watcher) return;
    if (!l || !l->hub) {
        sim_at(r->sim, 100000, watch_attach, w);
        return;
    }
    if (model_compact_revision(r->model) > 0 && sim_chance(&r->random, 100000))
        w->next_rev = model_compact_revision(r->model); /* a new one, from the oldest revision there is */
    struct watch_options o = {
        .key = w->key, .range_end = w->range_end, .start_rev = w->next_rev, .data = w};
    watch_sink_init(&w->sink);
    int rv = watch_add(l->hub, &w->sink, &o, &w->watcher);
    if (rv != 0) {
        bad(w, err_name(rv), w->next_rev);
        return;
    }
    w->life = l;
    list_push_back(&l->watchers, &w->node);
    run_trace(r, "watcher %u joins m%" PRIu64 " at %" PRId64, w->number, l->id, w->next_rev);
}

static void watch_whim(void *arg)
{
    struct watch_client *w = arg;
    struct run *r = w->run;
    sim_at(r->sim, sim_random_range(&r->random, 100000, 3000000), watch_whim, w);
    if (w->busy) {
        w->busy = false;
        if (w->life && !life_gone(w->life)) ask_progress(w);
        if (w->life) watch_sink_writable(w->life->hub, &w->sink);
    } else if (r->winding_down || !w->life || life_gone(w->life)) {
        return;
    } else if (sim_chance(&r->random, 400000)) {
        w->busy = true;
    } else if (sim_chance(&r->random, 500000)) {
        ask_progress(w);
    } else {
        leave(w, sim_random_range(&r->random, 0, 500000));
    }
}

/* ---- a member's hub
 * ------------------------------------------------------------------------------ */

struct history_ask {
    struct core_request request;
    struct life *life;
    struct list node;
    uint64_t id;
    bool asked; /* of the core, which answers: later, when it refuses its clients */
};

static void history_free(struct history_ask *h)
{
    list_remove(&h->node);
    core_request_release(&h->request);
    mem_free(h);
}

static void on_history(struct core_request *q)
{
    struct history_ask *h = container_of(q, struct history_ask, request);
    struct life *l = h->life;
    if (!life_gone(l) && l->hub) {
        watch_hub_history(l->hub, h->id, q->code, q->events, q->upto_rev, q->compact_rev);
    }
    history_free(h);
}

static void history_submit(void *arg)
{
    struct history_ask *h = arg;
    if (life_gone(h->life)) return; /* freed with the hub */
    h->asked = true;
    core_submit(h->life->core, &h->request);
}

static void hub_request(void *ctx, uint64_t request_id, int64_t from_rev)
{
    struct life *l = ctx;
    struct history_ask *h = mem_must_calloc(1, sizeof *h);
    h->life = l;
    h->id = request_id;
    h->request.type = CORE_HISTORY;
    h->request.from_rev = from_rev;
    h->request.done = on_history;
    list_push_back(&l->history, &h->node);
    if (life_gone(l)) return; /* freed with the hub */
    nemesis_history(l->run, l->id);
    sim_at_member(l->run->sim, l->id, sim_random_range(&l->run->random, 0, 2000), history_submit,
                  h);
}

void hub_open(struct life *l)
{
    static const struct watch_upstream upstream = {hub_request};
    int rv = watch_hub_new(&upstream, l, core_revision(l->core), 0, &l->hub);
    CHECK(rv == 0);
}

void hub_close(struct life *l)
{
    if (!l->hub) return;
    list_for_each(n, &l->watchers)
    {
        struct watch_client *w = container_of(n, struct watch_client, node);
        watch_sink_release(l->hub, &w->sink);
        detach(w, sim_random_range(&l->run->random, 1000, 200000));
    }
    list_for_each(n, &l->history)
    {
        struct history_ask *h = container_of(n, struct history_ask, node);
        if (!h->asked) history_free(h);
    }
    watch_hub_free(l->hub);
    l->hub = NULL;
}

/* ---- all of them
 * --------------------------------------------------------------------------------- */

void watchers_start(struct run *r)
{
    for (unsigned i = 0; i < r->o.watchers; i++) {
        struct watch_client *w = r->watchers[i] = mem_must_calloc(1, sizeof *w);
        w->run = r;
        w->number = i;
        w->next_rev = 2;
        list_init(&w->node);
        w->sink =
            (struct watch_sink){.events = on_events, .canceled = on_canceled, .ready = on_ready};
        if (i % 3 == 0) {
            w->key = w->range_end = slice_make("\0", 1);
            snprintf(w->key_text, sizeof w->key_text, "everything");
        } else if (i % 3 == 1) {
            w->key = SLICE_LIT("k/");
            w->range_end = SLICE_LIT("k0");
            snprintf(w->key_text, sizeof w->key_text, "k/*");
        } else {
            snprintf(w->key_text, sizeof w->key_text, "k/%02u",
                     (unsigned)sim_random_below(&r->random, r->o.keys));
            w->key = slice_str(w->key_text);
        }
        sim_at(r->sim, sim_random_range(&r->random, 0, 2000000), watch_attach, w);
        watch_whim(w);
    }
}

void watchers_free(struct run *r)
{
    for (unsigned i = 0; i < r->o.watchers; i++) mem_free(r->watchers[i]);
}

bool watchers_caught_up(const struct run *r, int64_t revision)
{
    for (unsigned i = 0; i < r->o.watchers; i++) {
        const struct watch_client *w = r->watchers[i];
        if (!w->watcher || !w->life->hub || watcher_progress(w->life->hub, w->watcher) < revision)
            return false;
    }
    return true;
}
