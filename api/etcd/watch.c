/* The Watch service: one stream carries any number of watches, which are watchers of the worker's
 * hub; the stream is their sink. A stream that the client does not read is a sink that is not
 * ready: its watches become cursors, and no more of its requests are read either, so what one
 * client can make us queue is bounded.
 *
 * Answers about watches (created, canceled) go out in the order of the requests, and before any
 * event of the watch. */
#include "api/etcd/etcd_int.h"
#include "api/etcd/watch_encode.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "schemas/etcd/request.h"

#define NO_WATCH_ID (-1)

struct watch_stream {
    struct watch_sink sink;
    struct leader_watch leader;
    struct list node;   /* etcd_api.watch_streams */
    struct map watches; /* by watch id */
    int64_t next_id;
    uint64_t progress_due_ms;
    size_t n_progress; /* watches that want progress notifications */
    bool paused;
};

struct etcd_watch {
    struct watch_stream *stream;
    struct watcher *watcher; /* NULL: was compacted away; the id is taken until the client cancels
                                it, as in etcd */
    int64_t id, start_revision;
    bool prev_kv, fragment, progress_notify;
    bool quiet; /* nothing was sent since the last tick */
};

static struct grpc_call *call_of(const struct watch_stream *ws)
{
    return grpc_call_of(ws);
}

static struct etcd_api *api_of(const struct watch_stream *ws)
{
    return grpc_ctx(call_of(ws));
}

static struct header head_at(const struct watch_stream *ws, int64_t revision)
{
    const struct etcd_api *api = api_of(ws);
    return etcd_header(api, revision, core_client_term(api->core));
}

static int64_t now_revision(const struct watch_stream *ws)
{
    return watch_hub_revision(api_of(ws)->hub);
}

static void send_control(struct watch_stream *ws, const struct watch_control *w)
{
    uint8_t out[WATCH_CONTROL_MAX];
    size_t len = encode_watch_control(out, w);
    grpc_send_copy(call_of(ws), slice_make(out, len));
}

/* ---- what the hub says -------------------------------------------------------------------------
 */

static void on_events(struct watch_sink *sink, struct watcher *watcher,
                      const struct event *const *events, size_t n, int64_t last_rev)
{
    struct watch_stream *ws = container_of(sink, struct watch_stream, sink);
    struct etcd_watch *w = watcher_data(watcher);
    struct etcd_api *api = api_of(ws);
    struct watch_send send = {.call = call_of(ws),
                              .head = head_at(ws, last_rev),
                              .watch_id = w->id,
                              .run = watch_hub_run(api->hub),
                              .events = events,
                              .n = n,
                              .prev_kv = w->prev_kv,
                              .fragment = w->fragment};
    w->quiet = false;
    etcd_count(api, COUNT_EVENTS, (int64_t)n);
    /* Out of memory: the client must not miss these, so its stream ends, and it resumes from where
     * it was. */
    if (watch_send_events(api->watch_cache, &send) != 0)
        grpc_finish(call_of(ws), GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory");
}

static void forget_watcher(struct watch_stream *ws, struct etcd_watch *w)
{
    if (!w->watcher) return;
    w->watcher = NULL;
    if (w->progress_notify) ws->n_progress--;
    etcd_count(api_of(ws), COUNT_WATCHERS, -1);
}

static void on_canceled(struct watch_sink *sink, struct watcher *watcher, int code,
                        int64_t compact_rev)
{
    struct watch_stream *ws = container_of(sink, struct watch_stream, sink);
    struct etcd_watch *w = watcher_data(watcher);
    (void)code; /* compacted is the only way a watcher ends by itself */
    forget_watcher(ws, w);
    send_control(ws, &(struct watch_control){.head = head_at(ws, 0),
                                             .watch_id = w->id,
                                             .canceled = true,
                                             .compact_revision = compact_rev});
}

static bool on_ready(struct watch_sink *sink)
{
    const struct grpc_call *c = call_of(container_of(sink, struct watch_stream, sink));
    return !grpc_done(c) && grpc_writable(c);
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static void refuse(struct watch_stream *ws, const char *reason)
{
    send_control(ws, &(struct watch_control){.head = head_at(ws, now_revision(ws)),
                                             .watch_id = NO_WATCH_ID,
                                             .created = true,
                                             .canceled = true,
                                             .reason = slice_str(reason)});
}

/* What is wrong with a request, in etcd's words; NULL if nothing. */
static const char *create_problem(const struct watch_stream *ws, const struct etcd_watch_request *q)
{
    bool bounded = q->range_end.len > 1 || (q->range_end.len == 1 && q->range_end.data[0] != 0);
    if (q->start_revision < 0) return "etcdserver: mvcc: required revision has been compacted";
    if (bounded && slice_cmp(q->key, q->range_end) >= 0) return "mvcc: watcher range is empty";
    if (q->watch_id != 0 && map_get(&ws->watches, (uint64_t)q->watch_id))
        return "mvcc: duplicate watch ID provided on the WatchStream";
    if (ws->watches.count >= LIMIT_WATCHES_PER_STREAM)
        return "etcdserver: too many watches on the stream";
    return NULL;
}

static int64_t choose_id(struct watch_stream *ws, int64_t wanted)
{
    if (wanted != 0) return wanted;
    while (map_get(&ws->watches, (uint64_t)ws->next_id)) ws->next_id++;
    return ws->next_id++;
}

static void create(struct watch_stream *ws, struct etcd_watch_request *q)
{
    struct etcd_api *api = api_of(ws);
    if (q->key.len == 0) q->key = slice_make("", 1); /* the smallest key */
    const char *problem =
        core_client_refusing(api->core) ? etcd_status_of(ERR_CORRUPT).text : create_problem(ws, q);
    struct etcd_watch *w = problem ? NULL : mem_calloc(1, sizeof(*w));
    if (!w) {
        refuse(ws, problem ? problem : "etcdserver: out of memory");
        return;
    }
    struct watch_options o = {
        .key = q->key, .range_end = q->range_end, .start_rev = q->start_revision, .data = w};
    if (q->no_put) o.filters |= WATCH_NO_PUT;
    if (q->no_delete) o.filters |= WATCH_NO_DELETE;
    int rv = watch_add(api->hub, &ws->sink, &o, &w->watcher);
    if (rv != 0) {
        mem_free(w);
        refuse(ws, rv == ERR_LIMIT ? "etcdserver: too many watches" : "etcdserver: out of memory");
        return;
    }
    w->stream = ws;
    w->id = choose_id(ws, q->watch_id);
    w->start_revision = q->start_revision;
    w->prev_kv = q->prev_kv;
    w->fragment = q->fragment;
    w->progress_notify = q->progress_notify;
    w->quiet = true;
    if (w->progress_notify) ws->n_progress++;
    map_put(&ws->watches, (uint64_t)w->id, w);
    etcd_count(api, COUNT_WATCHERS, 1);
    send_control(ws, &(struct watch_control){.head = head_at(ws, now_revision(ws)),
                                             .watch_id = w->id,
                                             .created = true});
}

static void cancel(struct watch_stream *ws, int64_t id)
{
    struct etcd_watch *w = map_remove(&ws->watches, (uint64_t)id);
    if (!w) return; /* as etcd: not answered */
    if (w->watcher) watch_remove(api_of(ws)->hub, w->watcher);
    forget_watcher(ws, w);
    mem_free(w);
    send_control(ws, &(struct watch_control){
                         .head = head_at(ws, now_revision(ws)), .watch_id = id, .canceled = true});
}

/* Whether all of the watch's changes up to the hub's revision were sent. */
static bool in_step(const struct watch_stream *ws, const struct etcd_watch *w)
{
    return w->watcher && watcher_synced(api_of(ws)->hub, w->watcher) && w->start_revision <= now_revision(ws);
}

/* Answered, with id -1, only if that is true of all watches of the stream. */
static void progress(struct watch_stream *ws)
{
    size_t at = 0;
    struct etcd_watch *w;
    bool any = false;
    while ((w = map_next(&ws->watches, &at)) != NULL) {
        if (!w->watcher) continue;
        if (!in_step(ws, w)) return;
        any = true;
    }
    if (any)
        send_control(ws, &(struct watch_control){.head = head_at(ws, now_revision(ws)),
                                                 .watch_id = NO_WATCH_ID});
}

static void watch_message(struct grpc_call *c, struct slice message)
{
    struct watch_stream *ws = grpc_state(c);
    struct etcd_watch_request q;
    int rv = etcd_watch_decode(message, &q);
    if (rv != 0) {
        grpc_finish(c, GRPC_INTERNAL,
                    "grpc: failed to unmarshal the received message: malformed protobuf");
        return;
    }
    if (q.kind == ETCD_WATCH_CREATE) create(ws, &q);
    if (q.kind == ETCD_WATCH_CANCEL) cancel(ws, q.watch_id);
    if (q.kind == ETCD_WATCH_PROGRESS) progress(ws);
    if (!grpc_done(c) && !grpc_writable(c)) {
        ws->paused = true;
        grpc_pause(c);
    }
}

/* ---- the stream --------------------------------------------------------------------------------
 */

static void watch_open(struct grpc_call *c)
{
    struct watch_stream *ws = grpc_state(c);
    struct etcd_api *api = grpc_ctx(c);
    ws->sink = (struct watch_sink){.events = on_events, .canceled = on_canceled, .ready = on_ready};
    watch_sink_init(&ws->sink);
    list_push_back(&api->watch_streams, &ws->node);
    leader_watch_begin(&ws->leader, c);
    etcd_count(api, COUNT_WATCH_STREAMS, 1);
    if (!etcd_refuse_learner(c)) etcd_refuse_without_leader(c);
}

static void watch_half_closed(struct grpc_call *c)
{
    grpc_finish(c, GRPC_OK, NULL);
}

static void watch_writable(struct grpc_call *c)
{
    struct watch_stream *ws = grpc_state(c);
    if (ws->paused) {
        ws->paused = false;
        grpc_resume(c);
    }
    watch_sink_writable(api_of(ws)->hub, &ws->sink);
}

static void watch_closed(struct grpc_call *c, int error)
{
    struct watch_stream *ws = grpc_state(c);
    struct etcd_api *api = grpc_ctx(c);
    (void)error;
    watch_sink_release(api->hub, &ws->sink);
    size_t at = 0;
    struct etcd_watch *w;
    while ((w = map_next(&ws->watches, &at)) != NULL) {
        forget_watcher(ws, w);
        mem_free(w);
    }
    map_release(&ws->watches);
    list_remove(&ws->node);
    leader_watch_end(&ws->leader);
    etcd_count(api, COUNT_WATCH_STREAMS, -1);
}

/* ---- progress notifications --------------------------------------------------------------------
 */

/* As etcd: every interval, to those that had no event since the last one and are in step. */
static void notify(struct watch_stream *ws)
{
    size_t at = 0;
    struct etcd_watch *w;
    while ((w = map_next(&ws->watches, &at)) != NULL) {
        if (!w->progress_notify) continue;
        if (w->quiet && in_step(ws, w) && on_ready(&ws->sink))
            send_control(ws, &(struct watch_control){.head = head_at(ws, now_revision(ws)),
                                                     .watch_id = w->id});
        w->quiet = true;
    }
}

void etcd_watch_tick(struct etcd_api *api, uint64_t now_ms)
{
    list_for_each(node, &api->watch_streams)
    {
        struct watch_stream *ws = container_of(node, struct watch_stream, node);
        if (ws->n_progress == 0) continue;
        if (ws->progress_due_ms == 0) ws->progress_due_ms = now_ms + api->progress_interval_ms;
        if (now_ms < ws->progress_due_ms) continue;
        ws->progress_due_ms = now_ms + api->progress_interval_ms;
        notify(ws);
    }
}

const struct grpc_method etcd_watch_methods[] = {
    {.name = "Watch",
     .client_streaming = true,
     .state_size = sizeof(struct watch_stream),
     .open = watch_open,
     .message = watch_message,
     .half_closed = watch_half_closed,
     .writable = watch_writable,
     .closed = watch_closed},
};
const size_t etcd_watch_n_methods = sizeof(etcd_watch_methods) / sizeof(etcd_watch_methods[0]);
