/* WATCH: one watcher of the worker's hub and one long answer.
 *
 *   start at a revision ------------------------------+
 *   start with what is there: cursor, ADDED events,   +--> live: hub events -> one JSON line each
 *     then (sendInitialEvents) a bookmark ------------+
 *
 * It ends when the client goes, when its time is up (timeoutSeconds, else half an hour to an hour, as kube-apiserver), or with an
 * ERROR event: 410 when its history was compacted away. A client that reads slowly costs nothing but its place. */
#include "api/kube/watch_int.h"
#include "base/clock.h"

#define BOOKMARK_MS 60000
#define DEFAULT_TIMEOUT_S 1800
#define MAX_TIMEOUT_S (7 * 86400)
#define LIMIT_KUBE_WATCHES 500000 /* per worker */

static void read_initial(struct kube_request *q);

static struct watch_hub *hub_of(const struct kube_watch *w)
{
    return core_client_hub(w->q->api->worker->core);
}

static void emit(struct kube_watch *w, struct blob *b)
{
    struct kube_request *q = w->q;
    if (!b || !q->st || w->ended) return;
    http_write_blob(q->st, b);
}

static void end(struct kube_watch *w)
{
    if (w->ended) return;
    w->ended = true;
    if (w->q->st) http_end(w->q->st);
}

/* The last word of a watch that cannot go on. */
static void end_with_error(struct kube_watch *w)
{
    struct kube_request *q = w->q;
    if (!w->head_sent) {
        respond_status(q);
        w->ended = true;
        return;
    }
    struct blob *b = watch_encode_error(w, &q->status);
    emit(w, b);
    blob_unref(b);
    end(w);
}

static void end_expired(struct kube_watch *w)
{
    status_expired(&w->q->status, "The resourceVersion for the provided watch is too old.");
    end_with_error(w);
}

static void start_answer(struct kube_watch *w)
{
    if (w->head_sent) return;
    w->head_sent = true;
    respond_head(w->q, 200, "application/json");
}

/* ---- live ------------------------------------------------------------------------------------- */

static void sink_events(struct watch_sink *sink, struct watcher *watcher, const struct event *const *events, size_t n,
                        int64_t last_rev)
{
    struct kube_watch *w = container_of(sink, struct kube_watch, sink);
    (void)watcher;
    (void)last_rev;
    for (size_t i = 0; i < n && !w->ended; i++) {
        struct record *shown;
        if (watch_lost_before(events[i])) {
            end_expired(w);
            return;
        }
        enum watch_type type = watch_classify(w, events[i], &shown);
        if (type == WATCH_NOTHING) continue;
        struct blob *b = watch_encode(w, type, events[i]->record, shown);
        emit(w, b);
        blob_unref(b);
        if (!b) { /* leaving the event out would be a gap */
            status_internal(&w->q->status, "%s", w->corrupt ? "a stored object cannot be decoded" : "out of memory");
            end_with_error(w);
        }
    }
}

static void sink_canceled(struct watch_sink *sink, struct watcher *watcher, int code, int64_t compact_rev)
{
    struct kube_watch *w = container_of(sink, struct kube_watch, sink);
    (void)watcher;
    (void)compact_rev;
    w->watcher = NULL;
    if (code == ERR_COMPACTED) {
        end_expired(w);
        return;
    }
    status_core(&w->q->status, code, false);
    end_with_error(w);
}

static bool sink_ready(struct watch_sink *sink)
{
    const struct kube_watch *w = container_of(sink, struct kube_watch, sink);
    return w->q->st && !w->ended && http_writable(w->q->st);
}

static void go_live(struct kube_watch *w, int64_t from)
{
    struct watch_options o = {
        .key = w->key, .range_end = w->end, .start_rev = from < INT64_MAX ? from + 1 : from, .data = w};
    start_answer(w);
    int code = watch_add(hub_of(w), &w->sink, &o, &w->watcher);
    if (!code) return;
    status_core(&w->q->status, code == ERR_LIMIT ? ERR_TOO_MANY_REQUESTS : code, false);
    end_with_error(w);
}

/* ---- what is there at the start ---------------------------------------------------------------- */

static void initial_done(struct kube_watch *w)
{
    struct kube_request *q = w->q;
    request_close_cursor(q);
    http_set_write_timeout(q->st, 0);
    if (w->announce_initial && w->bookmarks) {
        struct blob *b = watch_encode_bookmark(w, w->initial_rev, true);
        emit(w, b);
        blob_unref(b);
        w->bookmarked = w->initial_rev;
    }
    go_live(w, w->initial_rev);
}

static void send_initial(struct kube_watch *w, const struct range_result *r)
{
    start_answer(w);
    http_set_write_timeout(w->q->st, LIMIT_HTTP_STREAM_STALL_MS);
    for (size_t i = 0; i < r->n && !w->ended; i++) {
        struct event e = {.record = r->records[i]};
        struct record *shown;
        if (watch_classify(w, &e, &shown) == WATCH_NOTHING) continue;
        struct blob *b = watch_encode(w, WATCH_ADDED, e.record, shown);
        emit(w, b);
        blob_unref(b);
        if (!b) {
            status_internal(&w->q->status, "%s", w->corrupt ? "a stored object cannot be decoded" : "out of memory");
            end_with_error(w);
        }
    }
}

static void slice_done(struct kube_request *q);

static void next_slice(struct kube_watch *w)
{
    request_core_reset(w->q);
    w->reading = true;
    request_core(w->q, CORE_CURSOR_NEXT, slice_done);
}

static void slice_done(struct kube_request *q)
{
    struct kube_watch *w = q->watch;
    w->reading = false;
    if (!q->st || w->ended) {
        watch_release(q);
        return;
    }
    if (q->core.code) {
        status_core(&q->status, q->core.code, false);
        end_with_error(w);
        return;
    }
    int64_t revision = q->core.result.revision;
    if (!w->head_sent && w->not_older > revision) {
        request_close_cursor(q);
        if (!w->linearizable) {
            w->linearizable = true;
            read_initial(q);
            return;
        }
        status_too_large_rv(&q->status, w->not_older, revision);
        end_with_error(w);
        return;
    }
    w->initial_rev = revision;
    bool more = q->core.result.op.range.more;
    send_initial(w, &q->core.result.op.range);
    if (w->ended) {
        request_close_cursor(q);
    } else if (!more) {
        initial_done(w);
    } else if (http_writable(q->st)) {
        next_slice(w);
    }
}

static void read_initial(struct kube_request *q)
{
    struct kube_watch *w = q->watch;
    request_core_reset(q);
    q->core.serializable = !w->linearizable;
    q->core.range = (struct range_op){.key = w->key, .range_end = w->end, .serializable = !w->linearizable};
    w->reading = true;
    request_core(q, CORE_CURSOR_OPEN, slice_done);
}

/* sendInitialEvents=false without a resourceVersion: from now on. */
static void now_known(struct kube_request *q)
{
    struct kube_watch *w = q->watch;
    w->reading = false;
    if (!q->st || w->ended) {
        watch_release(q);
    } else if (q->core.code) {
        status_core(&q->status, q->core.code, false);
        end_with_error(w);
    } else {
        go_live(w, q->core.ret_revision);
    }
}

void watch_writable(struct kube_request *q)
{
    struct kube_watch *w = q->watch;
    if (w->ended) return;
    if (w->watcher) {
        watch_sink_writable(hub_of(w), &w->sink);
    } else if (w->head_sent && !w->reading && q->core.cursor) {
        next_slice(w);
    }
}

void watch_release(struct kube_request *q)
{
    struct kube_watch *w = q->watch;
    if (!w) return;
    w->ended = true;
    if (w->watcher) {
        watch_sink_release(hub_of(w), &w->sink);
        w->watcher = NULL;
    }
    if (w->reading || q->st) return; /* when that comes back, or when the exchange is over */
    request_close_cursor(q);
    list_remove(&w->node);
    q->api->n_watches--;
    if (list_empty(&q->api->watches) && q->api->watch_timer) uv_timer_stop(q->api->watch_timer);
    arena_release(&w->scratch);
    q->watch = NULL;
}

/* ---- once a second ---------------------------------------------------------------------------- */

static void bookmark(struct kube_watch *w, uint64_t now_ms)
{
    if (now_ms < w->bookmark_at_ms || !w->watcher || !watcher_synced(hub_of(w), w->watcher) || !http_writable(w->q->st)) return;
    int64_t revision = watcher_progress(hub_of(w), w->watcher);
    w->bookmark_at_ms = now_ms + BOOKMARK_MS - 5000 + kube_random(w->q->api) % 10000;
    if (revision <= w->bookmarked) return;
    w->bookmarked = revision;
    struct blob *b = watch_encode_bookmark(w, revision, false);
    emit(w, b);
    blob_unref(b);
}

static void tick(uv_timer_t *timer)
{
    struct kube_api *api = timer->data;
    uint64_t now_ms = clock_mono_ms();
    kube_cache_idle(api->cache);
    list_for_each(node, &api->watches) {
        struct kube_watch *w = container_of(node, struct kube_watch, node);
        if (w->ended || !w->q->st || !w->head_sent) continue;
        if (now_ms >= w->deadline_ms) {
            if (w->watcher) watch_sink_release(hub_of(w), &w->sink);
            w->watcher = NULL;
            end(w);
        } else if (w->bookmarks) {
            bookmark(w, now_ms);
        }
    }
}

/* ---- what is asked for ------------------------------------------------------------------------ */

#define REFUSE(s, reason, field, ...) status_invalid_options(s, "meta.k8s.io", "ListOptions", reason, field, __VA_ARGS__)

static int check_initial_events(struct kube_request *q, bool given)
{
    struct slice match = query_get(&q->query, "resourceVersionMatch");
    bool not_older = slice_eq_str(match, "NotOlderThan");
    if (given && !not_older) {
        return REFUSE(&q->status, "FieldValueForbidden", "resourceVersionMatch",
                      "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if (match.len && !given) {
        return REFUSE(&q->status, "FieldValueForbidden", "resourceVersionMatch",
                      "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    }
    return 0;
}

static int parse_start(struct kube_request *q, struct kube_watch *w)
{
    struct slice rv = query_get(&q->query, "resourceVersion");
    bool given = query_has(&q->query, "sendInitialEvents"), initial = false;
    int64_t v = 0;
    if (query_int(&q->query, "resourceVersion", &v) || v < 0) {
        return status_bad_request(&q->status, "invalid resource version \"%.*s\"", (int)rv.len, (const char *)rv.data);
    }
    if (query_bool(&q->query, "sendInitialEvents", &initial) ||
        query_bool(&q->query, "allowWatchBookmarks", &w->bookmarks)) {
        return status_bad_request(&q->status, "a boolean parameter has another value than true or false");
    }
    int code = check_initial_events(q, given);
    if (code) return code;
    w->from = v;
    w->initial = given ? initial : v == 0;
    w->announce_initial = given && initial;
    w->linearizable = rv.len == 0;
    if (w->announce_initial) w->not_older = v;
    return 0;
}

static int parse_timeout(struct kube_request *q, struct kube_watch *w, uint64_t now_ms)
{
    int64_t seconds = 0;
    if (query_int(&q->query, "timeoutSeconds", &seconds)) {
        return status_bad_request(&q->status, "invalid value for timeoutSeconds");
    }
    if (seconds <= 0) seconds = DEFAULT_TIMEOUT_S + (int64_t)(kube_random(q->api) % DEFAULT_TIMEOUT_S);
    if (seconds > MAX_TIMEOUT_S) seconds = MAX_TIMEOUT_S;
    w->deadline_ms = now_ms + (uint64_t)seconds * 1000;
    w->bookmark_at_ms = now_ms + BOOKMARK_MS - 5000 + kube_random(q->api) % 10000;
    return 0;
}

static int set_range(struct kube_request *q, struct kube_watch *w)
{
    const struct kind *k = q->route.kind;
    struct slice ns = q->route.ns, name = q->route.name;
    if (!name.len) name = selector_fixed(&q->selector, "metadata.name");
    if (k->namespaced && !ns.len) ns = selector_fixed(&q->selector, "metadata.namespace");
    if (slice_index(ns, '/') >= 0 || slice_index(name, '/') >= 0) {
        ns = q->route.ns;
        name = q->route.name;
    }
    w->key = key_prefix(&q->arena, k, ns);
    w->end = key_prefix_end(&q->arena, w->key);
    if (name.len && (ns.len || !k->namespaced)) {
        w->key = key_of(&q->arena, k, ns, name);
        w->end = (struct slice){0};
    }
    return w->key.data ? 0 : status_nomem(&q->status);
}

static int parse_watch(struct kube_request *q, struct kube_watch *w)
{
    int code = request_selectors(q);
    if (!code) code = parse_start(q, w);
    if (!code) code = parse_timeout(q, w, clock_mono_ms());
    if (!code) code = set_range(q, w);
    if (!code && q->api->n_watches >= LIMIT_KUBE_WATCHES) code = status_core(&q->status, ERR_TOO_MANY_REQUESTS, false);
    return code;
}

void watch_handle(struct kube_request *q)
{
    struct kube_watch *w = arena_calloc(&q->arena, 1, sizeof(*w));
    struct kube_api *api = q->api;
    if (!w) status_nomem(&q->status);
    if (!w || parse_watch(q, w)) {
        respond_status(q);
        return;
    }
    w->q = q;
    w->sink = (struct watch_sink){.events = sink_events, .canceled = sink_canceled, .ready = sink_ready};
    watch_sink_init(&w->sink);
    arena_init(&w->scratch, 64 * LIMIT_MiB);
    q->watch = w;
    list_push_back(&api->watches, &w->node);
    api->n_watches++;
    if (!uv_is_active((uv_handle_t *)api->watch_timer)) uv_timer_start(api->watch_timer, tick, 1000, 1000);
    if (w->initial) {
        read_initial(q);
    } else if (w->from) {
        go_live(w, w->from);
    } else {
        w->reading = true;
        q->core.serializable = !w->linearizable;
        request_core(q, CORE_READ_INDEX, now_known);
    }
}
