/* The life of a request, keys, time and randomness.
 *
 * A request has two owners, the exchange and a core request under way; it is freed when both are gone. A client that hangs up
 * does not undo a write that was submitted. */
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "api/kube/kube_int.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

#define READ_PATIENCE_MS 10000
#define READ_RETRY_MS 50
#define REQUEST_ARENA_BYTES (256 * LIMIT_MiB)

void request_ref(struct kube_request *q)
{
    q->refs++;
}

void request_drop_body(struct kube_request *q)
{
    q->api->body_bytes -= q->body_counted;
    q->body_counted = 0;
    buf_release(&q->body);
}

void request_unref(struct kube_request *q)
{
    CHECK(q->refs > 0);
    if (--q->refs) {
        if (q->responded && q->refs == 1) request_drop_body(q); /* only the exchange is left, for as long as its client wants */
        return;
    }
    mutate_release(&q->mut);
    list_remove(&q->node);
    core_request_release(&q->core);
    request_drop_body(q);
    arena_release(&q->arena);
    struct kube_api *api = q->api;
    struct kube_request *parent = q->parent;
    mem_free(q);
    if (parent) request_unref(parent);
    kube_api_unref(api);
}

struct kube_request *request_new(struct kube_api *api)
{
    struct kube_request *q = mem_calloc(1, sizeof(*q));
    if (!q) return NULL;
    api->refs++;
    q->api = api;
    q->refs = 1;
    q->started_ms = clock_mono_ms();
    list_init(&q->node);
    arena_init(&q->arena, REQUEST_ARENA_BYTES);
    buf_init(&q->body, LIMIT_KUBE_BODY_BYTES);
    status_init(&q->status, &q->arena);
    return q;
}

struct kube_request *request_inner(struct kube_request *parent, const struct kind *k, enum kube_verb verb,
                                   struct slice ns, struct slice name, void (*answered)(struct kube_request *q))
{
    struct kube_request *q = request_new(parent->api);
    if (!q) return NULL;
    request_ref(parent);
    q->parent = parent;
    q->verb = verb;
    q->answered = answered;
    q->validation = FIELDS_IGNORE;
    q->route = (struct route){.type = ROUTE_RESOURCE, .kind = k};
    q->route.ns = ns.len ? arena_dup(&q->arena, ns) : ns;
    q->route.name = name.len ? arena_dup(&q->arena, name) : name;
    q->user.name = SLICE_LIT("system:apiserver");
    if ((ns.len && !q->route.ns.data) || (name.len && !q->route.name.data)) {
        request_unref(q);
        return NULL;
    }
    return q;
}

void request_run(struct kube_request *inner, void (*handler)(struct kube_request *q))
{
    request_ref(inner); /* it may be answered, and let go of, before the handler returns */
    handler(inner);
    request_unref(inner);
}

static void submit_again(struct kube_request *q)
{
    request_ref(q);
    core_client_submit(q->api->worker->core, &q->core);
}

/* A read that found no leader waits for the next one, as long as somebody is there to be answered. */
static bool read_later(struct kube_request *q)
{
    struct core_request had = q->core;
    bool read = had.type == CORE_RANGE || had.type == CORE_TXN_READ || had.type == CORE_CURSOR_OPEN;
    bool leaderless = had.code == ERR_NO_LEADER || had.code == ERR_LEADER_CHANGED;
    if (!read || !leaderless || (!q->st && !q->answered)) return false;
    if (clock_mono_ms() > q->started_ms + READ_PATIENCE_MS) return false;
    request_core_reset(q);
    q->core.type = had.type;
    q->core.done = had.done;
    q->core.data = q;
    q->core.range = had.range;
    q->core.txn = had.txn;
    q->core.serializable = had.serializable;
    request_later(q, READ_RETRY_MS, submit_again);
    return true;
}

static void core_done(struct core_request *r)
{
    struct kube_request *q = r->data;
    if (r->code && read_later(q)) {
        request_unref(q);
        return;
    }
    void (*done)(struct kube_request *) = q->core_done;
    q->core_done = NULL;
    done(q);
    request_unref(q);
}

void request_core(struct kube_request *q, enum core_request_type type, void (*done)(struct kube_request *q))
{
    CHECK(!q->core_done);
    q->core.type = type;
    q->core.done = core_done;
    q->core.data = q;
    q->core_done = done;
    request_ref(q);
    core_client_submit(q->api->worker->core, &q->core);
}

void request_core_reset(struct kube_request *q)
{
    struct core_cursor *cursor = q->core.cursor;
    core_request_release(&q->core);
    q->core = (struct core_request){.cursor = cursor};
}

static void cursor_closed(struct core_request *r)
{
    core_request_release(r);
    mem_free(r);
}

void request_close_cursor(struct kube_request *q)
{
    if (!q->core.cursor) return;
    struct core_request *r = mem_must_calloc(1, sizeof(*r));
    r->type = CORE_CURSOR_CLOSE;
    r->cursor = q->core.cursor;
    r->done = cursor_closed;
    q->core.cursor = NULL;
    core_client_submit(q->api->worker->core, r);
}

static void retry_due(uv_timer_t *timer)
{
    struct kube_api *api = timer->data;
    struct list due;
    list_init(&due);
    while (!list_empty(&api->retries)) list_push_back(&due, list_pop_front(&api->retries));
    while (!list_empty(&due)) {
        struct kube_request *q = container_of(list_pop_front(&due), struct kube_request, node);
        q->retry(q);
        request_unref(q);
    }
}

void request_later(struct kube_request *q, unsigned ms, void (*retry)(struct kube_request *q))
{
    q->retry = retry;
    request_ref(q);
    list_push_back(&q->api->retries, &q->node);
    if (!uv_is_active((uv_handle_t *)q->api->retry_timer)) uv_timer_start(q->api->retry_timer, retry_due, ms, 0);
}

void request_warn(struct kube_request *q, const char *text)
{
    if (q->n_warnings < sizeof(q->warnings) / sizeof(*q->warnings)) q->warnings[q->n_warnings++] = text;
}

/* ---- randomness and time ---------------------------------------------------------------------- */

uint64_t kube_random(struct kube_api *api)
{
    if (!api->random_left) {
        size_t got = 0;
        while (got < sizeof(api->random)) {
            ssize_t n = getrandom((uint8_t *)api->random + got, sizeof(api->random) - got, 0);
            if (n > 0) got += (size_t)n;
        }
        api->random_left = sizeof(api->random) / sizeof(*api->random);
    }
    return api->random[--api->random_left];
}

void kube_uuid(struct kube_api *api, char out[37])
{
    uint64_t high = kube_random(api), low = kube_random(api);
    high = (high & ~0xf000ULL) | 0x4000ULL;              /* version 4 */
    low = (low & ~(3ULL << 62)) | (2ULL << 62);          /* the RFC 9562 variant */
    snprintf(out, 37, "%08x-%04x-%04x-%04x-%012llx", (unsigned)(high >> 32), (unsigned)(high >> 16 & 0xffff),
             (unsigned)(high & 0xffff), (unsigned)(low >> 48), (unsigned long long)(low & 0xffffffffffffULL));
}

void kube_time(int64_t unix_s, char out[32])
{
    if (unix_s < KUBE_TIME_MIN) unix_s = KUBE_TIME_MIN;
    if (unix_s > KUBE_TIME_MAX) unix_s = KUBE_TIME_MAX;
    time_t t = (time_t)unix_s;
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    strftime(out, 32, "%4Y-%m-%dT%H:%M:%SZ", &tm);
}

int kube_time_parse(struct slice text, int64_t *ret_unix_s)
{
    char copy[40];
    struct tm tm = {0};
    if (text.len < 20 || text.len >= sizeof(copy)) return ERR_INVALID;
    memcpy(copy, text.data, text.len);
    copy[text.len] = 0;
    const char *end = strptime(copy, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end) return ERR_INVALID;
    if (*end == '.') end += strspn(end + 1, "0123456789") + 1;
    if (strcmp(end, "Z") != 0) return ERR_INVALID;
    *ret_unix_s = timegm(&tm);
    return 0;
}

/* ---- keys ------------------------------------------------------------------------------------- */

struct slice key_prefix(struct arena *a, const struct kind *k, struct slice ns)
{
    const char *text =
        ns.len ? arena_printf(a, KUBE_REGISTRY "%s/%.*s/", k->storage_prefix, (int)ns.len, (const char *)ns.data)
               : arena_printf(a, KUBE_REGISTRY "%s/", k->storage_prefix);
    return slice_str(text);
}

struct slice key_of(struct arena *a, const struct kind *k, struct slice ns, struct slice name)
{
    struct slice prefix = key_prefix(a, k, k->namespaced ? ns : (struct slice){0});
    const char *text = prefix.data ? arena_printf(a, "%s%.*s", (const char *)prefix.data, (int)name.len,
                                                  (const char *)name.data)
                                   : NULL;
    return slice_str(text);
}

struct slice key_prefix_end(struct arena *a, struct slice prefix)
{
    struct slice end = arena_dup(a, prefix);
    if (end.data && end.len) ((uint8_t *)end.data)[end.len - 1]++; /* '/' becomes '0' */
    return end;
}

struct slice namespace_key(struct arena *a, struct slice ns)
{
    const struct kind *k = kind_by_resource((struct slice){0}, SLICE_LIT("v1"), SLICE_LIT("namespaces"));
    return k ? key_of(a, k, (struct slice){0}, ns) : (struct slice){0};
}

/* ---- the parts of a request ------------------------------------------------------------------- */

int request_selectors(struct kube_request *q)
{
    struct err e = {0};
    const struct kind *k = q->route.kind;
    int code = selector_parse_labels(&q->arena, query_get(&q->query, "labelSelector"), &q->selector, &e);
    if (!code) code = selector_parse_fields(&q->arena, query_get(&q->query, "fieldSelector"), k, &q->selector, &e);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) return status_bad_request(&q->status, "%s", e.text);
    return 0;
}

int request_body(struct kube_request *q, struct json **ret)
{
    struct slice text = buf_slice(&q->body);
    struct json_error je = {0};
    struct err e = {0};
    if (q->body_type != BODY_JSON && q->body_type != BODY_YAML && q->body_type != BODY_PROTOBUF) {
        return status_set(&q->status, 415, "UnsupportedMediaType",
                          "the body of the request was in an unknown format - accepted media types include: "
                          "application/json, application/yaml, application/vnd.kubernetes.protobuf");
    }
    if (!text.len) return status_bad_request(&q->status, "the request has no body");
    if (q->body_type == BODY_PROTOBUF) {
        int failed = protobuf_to_json(&q->arena, text, ret, &e);
        if (failed == ERR_NOMEM) return status_nomem(&q->status);
        if (failed) return status_bad_request(&q->status, "%s", e.text);
        return 0;
    }
    if (q->body_type == BODY_YAML) {
        int code = yaml_to_json(&q->arena, text, ret, &e);
        if (code == ERR_NOMEM) return status_nomem(&q->status);
        if (code) return status_bad_request(&q->status, "error converting YAML to JSON: %s", e.text);
        return 0;
    }
    int code = json_parse(&q->arena, text, 0, ret, &je);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) {
        return status_bad_request(&q->status, "the body is no valid JSON: %s at offset %zu", je.text, je.offset);
    }
    return 0;
}
