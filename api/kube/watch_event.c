/* From a change of a key to an event of a watch: with selectors, an object that comes into view is ADDED and one that goes out of
 * view is DELETED, whatever happened to it. */
#include "api/kube/watch_int.h"
#include "base/clock.h"

static const char *const type_names[] = {"", "ADDED", "MODIFIED", "DELETED", "BOOKMARK"};

static bool in_view(struct kube_watch *w, struct record *r)
{
    struct kube_request *q = w->q;
    if (!r || r->tombstone) return false;
    if (selector_empty(&q->selector)) return true;
    const struct json *object = kube_cache_object(q->api->cache, r);
    return object && selector_matches(&q->selector, object);
}

enum watch_type watch_classify(struct kube_watch *w, const struct event *e, struct record **ret_shown)
{
    bool now = in_view(w, e->record);
    bool before = in_view(w, e->prev);
    *ret_shown = now ? e->record : e->prev;
    if (now) return before ? WATCH_MODIFIED : WATCH_ADDED;
    if (before) return WATCH_DELETED;
    return WATCH_NOTHING;
}

/* At the compact revision itself the store still has the change, but not what was there before it: whether an object went out of
 * view, and which, cannot be told. */
bool watch_lost_before(const struct event *e)
{
    return !e->prev && (e->record->tombstone || e->record->version > 1);
}

/* A number for the format, as a key of the cache. Columns make a different event. */
static unsigned format_id(const struct kube_watch *w)
{
    const struct format *f = &w->q->format;
    unsigned id = (unsigned)f->media * 4 + (unsigned)f->include;
    if (f->media == MEDIA_JSON) return 0;
    return id * 2 + (f->version && strcmp(f->version, "v1") != 0);
}

static int write_transformed(struct kube_watch *w, struct buf *out, struct slice stored, int64_t revision)
{
    struct kube_request *q = w->q;
    struct arena *a = &w->scratch;
    struct json *object, *row, *rows;
    int code = object_parse(a, stored, revision, &object);
    if (code) return code;
    if (q->format.media == MEDIA_PARTIAL) {
        struct json *partial = object_partial(a, object, q->format.version);
        if (!partial) return ERR_NOMEM;
        json_write(out, partial);
        return out->failed;
    }
    const char *rv = arena_printf(a, "%lld", (long long)revision);
    struct json *table = rv ? table_new(a, q->route.kind, &q->format, !w->columns_sent, rv) : NULL;
    rows = json_array(a);
    if (!table || !rows) return ERR_NOMEM;
    code = table_row(a, q->route.kind, &q->format, object, clock_wall_ms() / 1000, &row);
    if (!code) code = json_push(a, rows, row);
    if (!code) code = json_set_str(a, table, "rows", rows);
    if (code) return code;
    json_write(out, table);
    return out->failed;
}

static struct blob *finish(struct kube_watch *w, struct buf *b, int code)
{
    struct blob *blob = NULL;
    buf_append_str(b, "}\n");
    if (code == ERR_CORRUPT) w->corrupt = true;
    if (!code && !b->failed) blob = blob_copy(buf_slice(b));
    buf_release(b);
    return blob;
}

struct blob *watch_encode(struct kube_watch *w, enum watch_type type, struct record *event, struct record *shown)
{
    struct kube_request *q = w->q;
    struct kube_cache *cache = q->api->cache;
    bool table = q->format.media == MEDIA_TABLE;
    bool cacheable = !table || w->columns_sent;
    unsigned format = format_id(w);
    struct blob *blob = cacheable ? kube_cache_event(cache, event, type, format) : NULL;
    if (blob) return blob_ref(blob);
    struct buf b;
    int code;
    buf_init(&b, 64 * LIMIT_MiB);
    buf_printf(&b, "{\"type\":\"%s\",\"object\":", type_names[type]);
    if (q->format.media == MEDIA_JSON) {
        code = object_serve(&b, q->route.kind, record_value(shown), event->mod_rev, 0);
    } else {
        code = write_transformed(w, &b, record_value(shown), event->mod_rev);
        arena_reset(&w->scratch);
    }
    blob = finish(w, &b, code);
    if (blob && cacheable) kube_cache_put_event(cache, event, type, format, blob);
    if (blob && table) w->columns_sent = true;
    return blob;
}

struct blob *watch_encode_bookmark(struct kube_watch *w, int64_t revision, bool initial_end)
{
    const struct kube_request *q = w->q;
    const struct kind *k = q->route.kind;
    const char *kind = k->kind, *api_version = k->api_version;
    struct buf b;
    if (q->format.media == MEDIA_TABLE) kind = "Table";
    if (q->format.media == MEDIA_PARTIAL) kind = "PartialObjectMetadata";
    if (q->format.media != MEDIA_JSON) {
        api_version = strcmp(q->format.version, "v1") == 0 ? "meta.k8s.io/v1" : "meta.k8s.io/v1beta1";
    }
    buf_init(&b, 4 * LIMIT_KiB);
    buf_printf(&b, "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\",\"metadata\":{"
               "\"resourceVersion\":\"%lld\",\"creationTimestamp\":null", kind, api_version, (long long)revision);
    if (initial_end) buf_append_str(&b, ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}");
    buf_append_byte(&b, '}');
    if (q->format.media == MEDIA_TABLE) buf_append_str(&b, ",\"columnDefinitions\":[],\"rows\":[]");
    buf_append_byte(&b, '}');
    return finish(w, &b, 0);
}

struct blob *watch_encode_error(struct kube_watch *w, const struct status *s)
{
    struct buf b;
    buf_init(&b, 256 * LIMIT_KiB);
    buf_append_str(&b, "{\"type\":\"ERROR\",\"object\":");
    status_write(&b, s);
    return finish(w, &b, 0);
}
