/* The happy path: LISTING (pages, `continue`) -> WATCHING (lines) -> the server ends the watch ->
 * WATCHING from the last version.
 *
 * What fails: a list or a watch that cannot be had is tried again after a pause that grows to 10 s;
 * a watch that broke is resumed at once the first time; 410 Gone, as a status or as an ERROR event,
 * goes back to LISTING. A relist marks what it sees with a new generation and then deletes what it
 * did not see, so that handlers hear of deletions that happened meanwhile. */
#include "clients/lib/informer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/frames.h"

#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 10000
#define WATCH_SECONDS 300
#define WATCH_LIVED_MS 1000 /* one that broke later than this had worked */

enum state { IDLE, LISTING, WATCHING, PAUSED, CLOSED };

struct informer_bucket {
    struct smap_node node;
    struct list objects;
    size_t count;
    uint8_t value[];
};

struct informer {
    struct list all; /* of the process, for informer_report_all */
    struct kube_client *client;
    struct informer_options options;
    enum state state;
    bool synced, must_list, progress;
    struct smap objects;
    struct {
        struct slice (*value)(const struct kube_object *o);
        struct smap buckets;
    } index[INFORMER_INDEXES];
    int n_indexes;
    struct {
        struct informer_handler h;
        void *ctx;
    } handlers[INFORMER_HANDLERS];
    int n_handlers;
    struct h2_stream *stream;
    int status;
    struct buf page;      /* of a list */
    struct frames frames; /* of a watch */
    struct arena scratch;
    uint32_t generation;
    struct buf resume, next_page; /* resourceVersion; continue token */
    uv_timer_t *timer;
    unsigned pause_ms;
    uint64_t watch_began_ms;
    struct informer_stats stats;
};

/* ---- objects -------------------------------------------------------------------------------- */

struct kube_object *kube_object_ref(struct kube_object *o)
{
    o->refs++;
    return o;
}

void kube_object_unref(struct kube_object *o)
{
    if (!o || --o->refs) return;
    arena_release(&o->arena);
    mem_free(o);
}

static size_t aligned(size_t n)
{
    return (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
}

/* About what json_clone takes from an arena. */
static size_t clone_size(const struct json *v)
{
    size_t n = aligned(sizeof(*v));
    if (v->type == JSON_STRING || v->type == JSON_NUMBER) return n + aligned(v->text.len + 1);
    if (v->type == JSON_ARRAY) {
        n += aligned(v->count * sizeof(*v->items));
        for (size_t i = 0; i < v->count; i++) n += clone_size(v->items[i]);
    } else if (v->type == JSON_OBJECT) {
        n += aligned(v->count * sizeof(*v->members));
        for (size_t i = 0; i < v->count; i++)
            n += aligned(v->members[i].name.len + 1) + clone_size(v->members[i].value);
    }
    return n;
}

/* One chunk that fits, instead of several that double: objects stay for long. */
static void arena_fit(struct arena *a, const struct json *json)
{
    size_t key =
        json_path_text(json, "metadata.name").len + json_path_text(json, "metadata.namespace").len;
    if (arena_alloc(a, clone_size(json) + aligned(key + 2))) arena_reset(a);
}

struct kube_object *kube_object_new(const struct json *json)
{
    struct kube_object *o = mem_calloc(1, sizeof(*o));
    if (!o) return NULL;
    o->refs = 1;
    arena_fit(&o->arena, json);
    o->json = json_clone(&o->arena, json);
    const struct json *meta = json_get(o->json, "metadata");
    o->name = json_text(json_get(meta, "name"));
    o->ns = json_text(json_get(meta, "namespace"));
    o->uid = json_text(json_get(meta, "uid"));
    struct slice rv = json_text(json_get(meta, "resourceVersion"));
    for (size_t i = 0; i < rv.len && i < 18; i++)
        o->resource_version = o->resource_version * 10 + (rv.data[i] - '0');
    const char *key = !o->name.len ? NULL
                      : o->ns.len ? arena_printf(&o->arena, "%.*s/%.*s", (int)o->ns.len, o->ns.data,
                                                 (int)o->name.len, o->name.data)
                                  : arena_strdup(&o->arena, o->name);
    if (!key) {
        kube_object_unref(o);
        return NULL;
    }
    o->node.key = slice_str(key);
    return o;
}

static void index_insert(struct informer *inf, int i, struct kube_object *o)
{
    list_init(&o->index[i].link);
    struct slice v = inf->index[i].value(o);
    if (v.len == 0) return;
    struct informer_bucket *b = smap_entry(&inf->index[i].buckets, v, struct informer_bucket, node);
    if (!b) {
        b = mem_must_calloc(1, sizeof(*b) + v.len);
        memcpy(b->value, v.data, v.len);
        list_init(&b->objects);
        smap_insert(&inf->index[i].buckets, &b->node, slice_make(b->value, v.len));
    }
    list_push_back(&b->objects, &o->index[i].link);
    o->index[i].bucket = b;
    b->count++;
}

static void index_remove(struct informer *inf, int i, struct kube_object *o)
{
    struct informer_bucket *b = o->index[i].bucket;
    if (!b) return;
    list_remove(&o->index[i].link);
    o->index[i].bucket = NULL;
    if (--b->count) return;
    smap_remove(&inf->index[i].buckets, &b->node);
    mem_free(b);
}

static void cache_insert(struct informer *inf, struct kube_object *o)
{
    smap_insert(&inf->objects, &o->node, o->node.key);
    for (int i = 0; i < inf->n_indexes; i++) index_insert(inf, i, o);
}

static void cache_remove(struct informer *inf, struct kube_object *o)
{
    for (int i = 0; i < inf->n_indexes; i++) index_remove(inf, i, o);
    smap_remove(&inf->objects, &o->node);
}

/* ---- changes -------------------------------------------------------------------------------- */

static void trim(struct informer *inf, struct json *object)
{
    struct json *meta = json_get(object, "metadata");
    if (meta) json_remove(meta, SLICE_LIT("managedFields"));
    if (inf->options.trim) inf->options.trim(object);
}

static void drop_object(struct informer *inf, struct kube_object *o)
{
    cache_remove(inf, o);
    inf->stats.events++;
    for (int i = 0; i < inf->n_handlers; i++)
        if (inf->handlers[i].h.deleted) inf->handlers[i].h.deleted(inf->handlers[i].ctx, o);
    kube_object_unref(o);
}

static int put_object(struct informer *inf, struct json *json)
{
    trim(inf, json);
    struct kube_object *o = kube_object_new(json);
    if (!o) return ERR_NOMEM;
    o->generation = inf->generation;
    struct kube_object *old = informer_get_key(inf, o->node.key);
    if (old && slice_eq(old->uid, o->uid) && o->resource_version <= old->resource_version) {
        old->generation = inf->generation;
        inf->stats.dropped++;
        kube_object_unref(o);
        return 0;
    }
    if (old && !slice_eq(old->uid, o->uid)) { /* another object: the first one's end was missed */
        drop_object(inf, old);
        old = NULL;
    }
    if (old) cache_remove(inf, old);
    cache_insert(inf, o);
    inf->stats.events++;
    for (int i = 0; i < inf->n_handlers; i++) {
        if (old && inf->handlers[i].h.updated)
            inf->handlers[i].h.updated(inf->handlers[i].ctx, old, o);
        if (!old && inf->handlers[i].h.added) inf->handlers[i].h.added(inf->handlers[i].ctx, o);
    }
    kube_object_unref(old);
    return 0;
}

static int delete_object(struct informer *inf, struct json *json)
{
    struct kube_object *last = kube_object_new(json);
    if (!last) return ERR_NOMEM;
    struct kube_object *o = informer_get_key(inf, last->node.key);
    if (o && slice_eq(o->uid, last->uid) && last->resource_version >= o->resource_version)
        drop_object(inf, o);
    else inf->stats.dropped++;
    kube_object_unref(last);
    return 0;
}

static void set_resume(struct informer *inf, struct slice version)
{
    if (version.len == 0) return;
    buf_clear(&inf->resume);
    buf_append_slice(&inf->resume, version);
}

/* ---- pauses --------------------------------------------------------------------------------- */

static void start_list(struct informer *inf);
static void start_watch(struct informer *inf);

static void proceed(struct informer *inf)
{
    if (inf->must_list) start_list(inf);
    else start_watch(inf);
}

static void on_pause_over(uv_timer_t *t)
{
    struct informer *inf = t->data;
    if (inf->state == PAUSED) proceed(inf);
}

static void pause_for(struct informer *inf, unsigned ms)
{
    inf->state = PAUSED;
    uv_timer_start(inf->timer, on_pause_over, ms, 0);
}

/* After something went wrong: at once if there had been progress, else ever later. */
static void retry(struct informer *inf, const char *what, const char *why)
{
    if (inf->progress) inf->pause_ms = 0;
    inf->progress = false;
    if (inf->pause_ms)
        log_warn("%s of %s failed, retrying retry_ms=%u error=\"%s\"", what,
                 inf->options.resource->plural, inf->pause_ms, why);
    else log_debug("%s of %s ended: %s", what, inf->options.resource->plural, why);
    unsigned ms = inf->pause_ms;
    inf->pause_ms = ms ? ms * 2 : PAUSE_MIN_MS;
    if (inf->pause_ms > PAUSE_MAX_MS) inf->pause_ms = PAUSE_MAX_MS;
    pause_for(inf, ms ? ms / 2 + (unsigned)random() % (ms / 2 + 1) : 0);
}

static void add_selectors(const struct informer *inf, struct buf *path)
{
    if (inf->options.label_selector)
        kube_query(path, "labelSelector", slice_str(inf->options.label_selector));
    if (inf->options.field_selector)
        kube_query(path, "fieldSelector", slice_str(inf->options.field_selector));
}

static void on_head(struct h2_stream *s, int status, const struct h2_header *h, size_t n)
{
    (void)h;
    (void)n;
    ((struct informer *)h2_user(s))->status = status;
}

static void request(struct informer *inf, struct buf *path, const struct h2_callbacks *cb,
                    unsigned timeout_ms)
{
    inf->status = 0;
    int rc = path->failed
                 ? path->failed
                 : kube_stream(inf->client, buf_slice(path), cb, inf, timeout_ms, &inf->stream);
    buf_release(path);
    if (rc) retry(inf, "request", err_text(rc));
}

/* ---- listing -------------------------------------------------------------------------------- */

static void list_complete(struct informer *inf)
{
    smap_for_each(node, &inf->objects)
    {
        struct kube_object *o = container_of(node, struct kube_object, node);
        if (o->generation != inf->generation) drop_object(inf, o);
    }
    inf->must_list = false;
    inf->progress = true;
    if (!inf->synced) {
        inf->synced = true;
        for (int i = 0; i < inf->n_handlers; i++)
            if (inf->handlers[i].h.synced) inf->handlers[i].h.synced(inf->handlers[i].ctx);
    }
    if (inf->state == LISTING) start_watch(inf);
}

/* Items of a list carry neither kind nor apiVersion; nobody here needs them. */
static int take_page(struct informer *inf)
{
    struct json *list;
    struct json_error e;
    int rc = json_parse(&inf->scratch, buf_slice(&inf->page), 0, &list, &e);
    if (rc) return rc;
    const struct json *items = json_get(list, "items");
    for (size_t i = 0; items && items->type == JSON_ARRAY && i < items->count; i++) {
        rc = put_object(inf, items->items[i]);
        if (rc) return rc;
    }
    set_resume(inf, json_path_text(list, "metadata.resourceVersion"));
    buf_clear(&inf->next_page);
    buf_append_slice(&inf->next_page, json_path_text(list, "metadata.continue"));
    return inf->next_page.failed;
}

static void list_page(struct informer *inf);

static void list_data(struct h2_stream *s, struct slice piece)
{
    struct informer *inf = h2_user(s);
    buf_append_slice(&inf->page, piece);
}

static void list_done(struct h2_stream *s, int code)
{
    struct informer *inf = h2_user(s);
    inf->stream = NULL;
    char why[200];
    snprintf(why, sizeof(why), "%s", h2_stream_error(s));
    if (!code && inf->status != 200) {
        code = kube_error_code(inf->status, (struct slice){0});
        snprintf(why, sizeof(why), "HTTP status %d: %.*s", inf->status,
                 (int)(inf->page.len < 120 ? inf->page.len : 120),
                 inf->page.len ? (const char *)inf->page.data : "");
    }
    if (!code) code = inf->page.failed;
    if (code == ERR_LIMIT && inf->options.page > 1) inf->options.page /= 2; /* huge objects */
    if (!code) {
        code = take_page(inf);
        if (code) snprintf(why, sizeof(why), "%s", err_text(code));
    }
    arena_reset(&inf->scratch);
    buf_release(&inf->page);
    if (code) {
        retry(inf, "list", why);
    } else if (inf->next_page.len) {
        list_page(inf);
    } else {
        list_complete(inf);
    }
}

static void list_page(struct informer *inf)
{
    static const struct h2_callbacks cb = {.head = on_head, .data = list_data, .done = list_done};
    struct buf path = {0};
    kube_path(&path, inf->options.resource, slice_str(inf->options.ns ? inf->options.ns : ""),
              (struct slice){0}, NULL);
    char limit[16];
    snprintf(limit, sizeof(limit), "%u", inf->options.page);
    kube_query(&path, "limit", slice_str(limit));
    if (inf->next_page.len) kube_query(&path, "continue", buf_slice(&inf->next_page));
    add_selectors(inf, &path);
    request(inf, &path, &cb, 60000);
}

static void start_list(struct informer *inf)
{
    inf->state = LISTING;
    inf->must_list = true;
    inf->generation++;
    inf->stats.lists++;
    buf_clear(&inf->next_page);
    list_page(inf);
}

/* ---- watching ------------------------------------------------------------------------------- */

static void watch_error(struct informer *inf, const struct json *status)
{
    int64_t code = json_path_int(status, "code", 0);
    struct slice message = json_text(json_get(status, "message"));
    if (code == 410) inf->must_list = true;
    log_debug("watch of %s: error code=%lld message=\"%.*s\"", inf->options.resource->plural,
              (long long)code, (int)message.len, message.data);
    inf->frames.stop = true;
}

static void watch_line(void *ctx, struct slice line)
{
    struct informer *inf = ctx;
    struct json *event;
    int rc = json_parse(&inf->scratch, line, 0, &event, NULL);
    struct json *object = rc ? NULL : json_get(event, "object");
    struct slice type = json_text(rc ? NULL : json_get(event, "type"));
    struct slice version = json_path_text(object, "metadata.resourceVersion");
    if (slice_eq_str(type, "ADDED") || slice_eq_str(type, "MODIFIED")) rc = put_object(inf, object);
    else if (slice_eq_str(type, "DELETED")) rc = delete_object(inf, object);
    else if (slice_eq_str(type, "ERROR")) watch_error(inf, object);
    else if (!slice_eq_str(type, "BOOKMARK")) rc = ERR_INVALID;
    if (rc) {
        log_warn("watch of %s: bad event, listing again error=\"%s\"",
                 inf->options.resource->plural, err_text(rc));
        inf->must_list = true;
        inf->frames.stop = true;
    } else if (!inf->frames.stop) {
        set_resume(inf, version);
        inf->progress = true;
    }
    arena_reset(&inf->scratch);
}

static void watch_over(struct informer *inf, const char *why)
{
    inf->stream = NULL;
    bool lived = uv_now(kube_client_loop(inf->client)) >= inf->watch_began_ms + WATCH_LIVED_MS;
    if (inf->status == 200 && lived) inf->progress = true;
    frames_release(&inf->frames);
    retry(inf, "watch", why);
}

static void watch_data(struct h2_stream *s, struct slice piece)
{
    struct informer *inf = h2_user(s);
    if (inf->status != 200) return;
    int rc = frames_feed_lines(&inf->frames, piece, watch_line, inf);
    if (rc) inf->must_list = true;
    if (!rc && !inf->frames.stop) return;
    if (inf->state != WATCHING) return; /* freed by a handler */
    h2_cancel(s);
    watch_over(inf, rc ? err_text(rc) : "the server said so");
}

static void watch_done(struct h2_stream *s, int code)
{
    struct informer *inf = h2_user(s);
    if (!code && inf->status == 410) inf->must_list = true;
    char why[200];
    snprintf(why, sizeof(why), "HTTP status %d", inf->status);
    if (code) snprintf(why, sizeof(why), "%s", h2_stream_error(s));
    watch_over(inf, why);
}

static void start_watch(struct informer *inf)
{
    static const struct h2_callbacks cb = {.head = on_head, .data = watch_data, .done = watch_done};
    inf->state = WATCHING;
    inf->watch_began_ms = uv_now(kube_client_loop(inf->client));
    inf->stats.watches++;
    frames_init(&inf->frames, LIMIT_CLIENT_OBJECT_BYTES);
    struct buf path = {0};
    kube_path(&path, inf->options.resource, slice_str(inf->options.ns ? inf->options.ns : ""),
              (struct slice){0}, NULL);
    kube_query(&path, "watch", SLICE_LIT("1"));
    kube_query(&path, "allowWatchBookmarks", SLICE_LIT("true"));
    kube_query(&path, "resourceVersion", buf_slice(&inf->resume));
    char seconds[16];
    snprintf(seconds, sizeof(seconds), "%ld", WATCH_SECONDS + random() % WATCH_SECONDS);
    kube_query(&path, "timeoutSeconds", slice_str(seconds));
    add_selectors(inf, &path);
    request(inf, &path, &cb, 0);
}

/* ---- the informer --------------------------------------------------------------------------- */

static struct list all_informers = {&all_informers, &all_informers};

static const char *or_none(const char *text)
{
    return text ? text : "";
}

void informer_report_all(FILE *out)
{
    list_for_each(n, &all_informers)
    {
        const struct informer *inf = container_of(n, struct informer, all);
        const struct informer_options *o = &inf->options;
        fprintf(out, "report informer %s/%s ns=%s labels=%s fields=%s synced=%d objects=%zu\n",
                o->resource->api_version, o->resource->plural, or_none(o->ns),
                or_none(o->label_selector), or_none(o->field_selector), inf->synced,
                inf->objects.count);
        smap_for_each(node, &inf->objects)
        {
            const struct kube_object *k = container_of(node, struct kube_object, node);
            fprintf(out, "report object %.*s %lld\n", (int)k->node.key.len, k->node.key.data,
                    (long long)k->resource_version);
        }
    }
}

struct informer *informer_new(struct kube_client *client, const struct informer_options *o)
{
    struct informer *inf = mem_must_calloc(1, sizeof(*inf));
    list_push_back(&all_informers, &inf->all);
    inf->client = client;
    inf->options = *o;
    if (!inf->options.page) inf->options.page = LIMIT_CLIENT_LIST_PAGE;
    buf_init(&inf->page, LIMIT_CLIENT_RESPONSE_BYTES);
    inf->timer = mem_must_calloc(1, sizeof(*inf->timer));
    uv_timer_init(kube_client_loop(client), inf->timer);
    inf->timer->data = inf;
    return inf;
}

static void timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

void informer_free(struct informer *inf)
{
    if (!inf) return;
    list_remove(&inf->all);
    inf->state = CLOSED;
    if (inf->stream) h2_cancel(inf->stream);
    uv_close((uv_handle_t *)inf->timer, timer_closed);
    smap_for_each(node, &inf->objects)
    {
        struct kube_object *o = container_of(node, struct kube_object, node);
        cache_remove(inf, o);
        kube_object_unref(o);
    }
    smap_release(&inf->objects);
    for (int i = 0; i < inf->n_indexes; i++) smap_release(&inf->index[i].buckets);
    frames_release(&inf->frames);
    buf_release(&inf->page);
    buf_release(&inf->resume);
    buf_release(&inf->next_page);
    arena_release(&inf->scratch);
    mem_free(inf);
}

void informer_add_handler(struct informer *inf, const struct informer_handler *h, void *ctx)
{
    CHECK(inf->n_handlers < INFORMER_HANDLERS && inf->state == IDLE);
    inf->handlers[inf->n_handlers].h = *h;
    inf->handlers[inf->n_handlers++].ctx = ctx;
}

int informer_add_index(struct informer *inf, struct slice (*value)(const struct kube_object *o))
{
    CHECK(inf->n_indexes < INFORMER_INDEXES && inf->state == IDLE);
    inf->index[inf->n_indexes].value = value;
    return inf->n_indexes++;
}

void informer_start(struct informer *inf)
{
    if (inf->state == IDLE) start_list(inf);
}

bool informer_synced(const struct informer *inf)
{
    return inf->synced;
}

size_t informer_count(const struct informer *inf)
{
    return inf->objects.count;
}

struct kube_object *informer_get_key(const struct informer *inf, struct slice key)
{
    return smap_entry(&inf->objects, key, struct kube_object, node);
}

struct kube_object *informer_get(const struct informer *inf, struct slice ns, struct slice name)
{
    char key[600];
    if (!ns.len) return informer_get_key(inf, name);
    int n = snprintf(key, sizeof(key), "%.*s/%.*s", (int)ns.len, ns.data, (int)name.len, name.data);
    return n > 0 && (size_t)n < sizeof(key) ? informer_get_key(inf, slice_make(key, (size_t)n))
                                            : NULL;
}

static struct kube_object *from_link(const struct list *link, int index)
{
    return (struct kube_object *)(void *)((char *)link - offsetof(struct kube_object, index) -
                                          (size_t)index *
                                              sizeof(((struct kube_object *)0)->index[0]));
}

struct kube_object *informer_first(const struct informer *inf, int index, struct slice value)
{
    struct informer_bucket *b =
        smap_entry(&inf->index[index].buckets, value, struct informer_bucket, node);
    return b ? from_link(b->objects.next, index) : NULL;
}

struct kube_object *informer_next(const struct kube_object *o, int index)
{
    const struct list *next = o->index[index].link.next;
    return next == &o->index[index].bucket->objects ? NULL : from_link(next, index);
}

size_t informer_index_count(const struct informer *inf, int index, struct slice value)
{
    struct informer_bucket *b =
        smap_entry(&inf->index[index].buckets, value, struct informer_bucket, node);
    return b ? b->count : 0;
}

struct kube_object *informer_first_object(const struct informer *inf)
{
    struct smap_node *n = smap_first(&inf->objects);
    return n ? container_of(n, struct kube_object, node) : NULL;
}

struct kube_object *informer_next_object(const struct informer *inf, const struct kube_object *o)
{
    struct smap_node *n = smap_next(&inf->objects, &o->node);
    return n ? container_of(n, struct kube_object, node) : NULL;
}

const struct kube_resource *informer_resource(const struct informer *inf)
{
    return inf->options.resource;
}

void informer_stats(const struct informer *inf, struct informer_stats *ret)
{
    *ret = inf->stats;
}

struct slice index_namespace(const struct kube_object *o)
{
    return o->ns;
}

const struct json *kube_controller_of(const struct json *object)
{
    const struct json *refs = json_path(object, "metadata.ownerReferences");
    for (size_t i = 0; refs && refs->type == JSON_ARRAY && i < refs->count; i++)
        if (json_path_bool(refs->items[i], "controller", false)) return refs->items[i];
    return NULL;
}

struct slice index_controller_uid(const struct kube_object *o)
{
    return json_text(json_get(kube_controller_of(o->json), "uid"));
}

struct slice index_node_name(const struct kube_object *o)
{
    return json_path_text(o->json, "spec.nodeName");
}
