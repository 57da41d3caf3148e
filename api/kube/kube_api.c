/* The door: one request from its head to the handler that answers it. */
#include "api/kube/kube_api.h"

#include "api/kube/kube_int.h"
#include "base/log.h"
#include "base/mem.h"

/* ---- making and freeing ----------------------------------------------------------------------- */

static void timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

static uv_timer_t *timer_new(struct kube_api *api)
{
    uv_timer_t *t = mem_calloc(1, sizeof(*t));
    if (!t) return NULL;
    uv_timer_init(api->worker->loop, t);
    t->data = api;
    return t;
}

static void timer_free(uv_timer_t *t)
{
    if (!t) return;
    uv_timer_stop(t);
    uv_close((uv_handle_t *)t, timer_closed);
}

int kube_api_new(struct worker *w, const struct kube_config *config, struct kube_api **ret)
{
    struct kube_api *api = mem_calloc(1, sizeof(*api));
    struct err e = {0};
    if (!api) return ERR_NOMEM;
    api->refs = 1;
    api->worker = w;
    list_init(&api->watches);
    list_init(&api->retries);
    int code = 0;
    if (config->token_file) code = tokens_load(config->token_file, &api->tokens, &e);
    if (code && e.text[0]) log_error("%s", e.text);
    if (!code) code = kube_cache_new(&api->cache);
    if (!code) {
        api->advertise_host = config->advertise_host ? mem_must_strdup(config->advertise_host) : NULL;
        api->advertise_port = config->advertise_port;
        api->watch_timer = timer_new(api);
        api->retry_timer = timer_new(api);
        if (!api->watch_timer || !api->retry_timer) code = ERR_NOMEM;
    }
    if (code) {
        kube_api_free(api);
        return code;
    }
    *ret = api;
    return 0;
}

void kube_api_unref(struct kube_api *api)
{
    if (--api->refs) return;
    tokens_free(api->tokens);
    kube_cache_free(api->cache);
    mem_free(api->advertise_host);
    mem_free(api);
}

void kube_api_free(struct kube_api *api)
{
    if (!api) return;
    while (!list_empty(&api->retries)) {
        struct kube_request *q = container_of(list_pop_front(&api->retries), struct kube_request, node);
        if (q->answered) request_unref(q); /* an inner request, which is not going to be answered */
        request_unref(q);
    }
    timer_free(api->watch_timer);
    timer_free(api->retry_timer);
    api->watch_timer = api->retry_timer = NULL;
    kube_api_unref(api);
}

/* ---- which verb ------------------------------------------------------------------------------- */

static enum kube_verb verb_of(const struct kube_request *q, struct slice method, bool watch)
{
    bool named = q->route.name.len != 0;
    if (slice_eq_str(method, "GET") || slice_eq_str(method, "HEAD")) {
        if (watch && !q->route.sub.len) return VERB_WATCH;
        return named ? VERB_GET : VERB_LIST;
    }
    if (slice_eq_str(method, "POST")) return VERB_CREATE;
    if (slice_eq_str(method, "PUT")) return VERB_UPDATE;
    if (slice_eq_str(method, "PATCH")) return VERB_PATCH;
    if (slice_eq_str(method, "DELETE")) return named ? VERB_DELETE : VERB_DELETECOLLECTION;
    return VERB_OTHER;
}

static int check_verb(struct kube_request *q)
{
    const struct route *r = &q->route;
    bool named = r->name.len != 0;
    bool ok = q->verb != VERB_OTHER;
    if (q->verb == VERB_CREATE && !r->sub.len) ok = !named && (!r->kind->namespaced || r->ns.len);
    if (q->verb == VERB_UPDATE || q->verb == VERB_PATCH) ok = named;
    if (q->verb == VERB_DELETECOLLECTION) ok = kind_has_deletecollection(r->kind) && (!r->kind->namespaced || r->ns.len);
    return ok ? 0 : status_method_not_allowed(&q->status, NULL, NULL);
}

/* ---- options common to all -------------------------------------------------------------------- */

static int parse_dry_run(struct kube_request *q)
{
    for (size_t i = 0; i < q->query.n; i++) {
        if (!slice_eq_str(q->query.pairs[i].name, "dryRun")) continue;
        struct slice v = q->query.pairs[i].value;
        if (!slice_eq_str(v, "All")) {
            return status_invalid_options(&q->status, "meta.k8s.io", "CreateOptions", "FieldValueNotSupported", "dryRun",
                                          "Unsupported value: \"%.*s\": supported values: \"All\"", (int)v.len,
                                          (const char *)v.data);
        }
        q->dry_run = true;
    }
    return 0;
}

static int parse_validation(struct kube_request *q)
{
    struct slice v = query_get(&q->query, "fieldValidation");
    if (!v.len || slice_eq_str(v, "Warn")) {
        q->validation = FIELDS_WARN;
    } else if (slice_eq_str(v, "Ignore")) {
        q->validation = FIELDS_IGNORE;
    } else if (slice_eq_str(v, "Strict")) {
        q->validation = FIELDS_STRICT;
    } else {
        return status_invalid_options(
            &q->status, "meta.k8s.io", "CreateOptions", "FieldValueNotSupported", "fieldValidation",
            "Unsupported value: \"%.*s\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"", (int)v.len,
            (const char *)v.data);
    }
    return 0;
}

static int parse_include(struct kube_request *q)
{
    struct slice v = query_get(&q->query, "includeObject");
    if (!v.len || slice_eq_str(v, "Metadata")) {
        q->format.include = INCLUDE_METADATA;
    } else if (slice_eq_str(v, "None")) {
        q->format.include = INCLUDE_NONE;
    } else if (slice_eq_str(v, "Object")) {
        q->format.include = INCLUDE_OBJECT;
    } else {
        return status_invalid_options(&q->status, "meta.k8s.io", "TableOptions", "FieldValueInvalid", "includeObject",
                                      "Invalid value: \"%.*s\": must be 'Metadata', 'Object', 'None', or empty",
                                      (int)v.len, (const char *)v.data);
    }
    return 0;
}

static int parse_options(struct kube_request *q, bool *ret_watch)
{
    struct http_stream *st = q->st;
    if (!negotiate_accept(http_request_header(st, "accept"), &q->format)) {
        return status_set(&q->status, 406, "NotAcceptable",
                          "only the following media types are accepted: application/json, application/yaml");
    }
    q->body_type = negotiate_body(http_request_header(st, "content-type"));
    if (query_bool(&q->query, "pretty", &q->format.pretty)) q->format.pretty = false;
    if (query_bool(&q->query, "watch", ret_watch)) return status_bad_request(&q->status, "invalid value for watch");
    int code = parse_dry_run(q);
    if (!code) code = parse_validation(q);
    if (!code) code = parse_include(q);
    return code;
}

/* ---- dispatch --------------------------------------------------------------------------------- */

static void dispatch_resource(struct kube_request *q)
{
    static void (*const handlers[VERB_COUNT])(struct kube_request *) = {
        [VERB_GET] = get_handle,       [VERB_LIST] = list_handle,     [VERB_WATCH] = watch_handle,
        [VERB_CREATE] = create_handle, [VERB_UPDATE] = update_handle, [VERB_PATCH] = patch_handle,
        [VERB_DELETE] = delete_handle, [VERB_DELETECOLLECTION] = delete_collection_handle,
    };
    if (q->route.sub.len) {
        subresource_handle(q);
    } else {
        handlers[q->verb](q);
    }
}

static void dispatch(struct kube_request *q)
{
    switch (q->route.type) {
    case ROUTE_RESOURCE: dispatch_resource(q); break;
    case ROUTE_HEALTH: health_handle(q); break;
    case ROUTE_METRICS: metrics_handle(q); break;
    case ROUTE_ACCESS_REVIEW: review_handle(q); break;
    default: discovery_handle(q); break;
    }
}

static bool is_public(enum route_type t)
{
    return t == ROUTE_HEALTH || t == ROUTE_VERSION;
}

/* All that can be told from the head. */
static int accept_head(struct kube_request *q)
{
    const struct http_request *r = http_request(q->st);
    struct status *s = &q->status;
    bool watch = false;
    int code = authenticate(q->api->tokens, q->st, &q->user);
    if (code == ERR_NOMEM) return status_nomem(s);
    int routed = route_parse(&q->arena, r->path, &q->route);
    if (code || (q->user.anonymous && !is_public(q->route.type))) {
        return status_set(s, 401, "Unauthorized", "Unauthorized");
    }
    if (routed == ERR_NOMEM) return status_nomem(s);
    if (routed) return status_bad_request(s, "the path is not well-formed");
    if (q->route.type == ROUTE_UNKNOWN) return status_unknown_path(s);
    code = query_parse(&q->arena, r->query, &q->query);
    if (code == ERR_NOMEM) return status_nomem(s);
    if (code) return status_bad_request(s, "the query is not well-formed");
    code = parse_options(q, &watch);
    if (code) return code;
    q->verb = verb_of(q, r->method, watch || q->route.watch);
    if (q->route.type == ROUTE_RESOURCE && core_client_refusing(q->api->worker->core))
        return status_set(s, 503, "ServiceUnavailable",
                          "this member's state differs from the others', or is being healed: it serves nothing until they agree");
    if (q->route.type == ROUTE_RESOURCE) return check_verb(q);
    bool post = q->route.type == ROUTE_ACCESS_REVIEW;
    bool ok = post ? q->verb == VERB_CREATE : q->verb == VERB_GET || q->verb == VERB_LIST || q->verb == VERB_WATCH;
    return ok ? 0 : status_method_not_allowed(s, NULL, NULL);
}

static void on_body(struct http_stream *st, struct slice piece)
{
    struct kube_request *q = http_user(st);
    if (q->responded) return;
    bool full = q->api->body_bytes + piece.len > LIMIT_KUBE_PARTIAL_BYTES;
    int code = full ? ERR_TOO_MANY_REQUESTS : buf_append_slice(&q->body, piece);
    if (!code) {
        q->api->body_bytes += piece.len;
        q->body_counted += piece.len;
        return;
    }
    if (full) {
        status_core(&q->status, ERR_TOO_MANY_REQUESTS, false);
    } else if (code == ERR_LIMIT) {
        status_set(&q->status, 413, "RequestEntityTooLarge", "Request entity too large: limit is %zu",
                   LIMIT_KUBE_BODY_BYTES);
    } else {
        status_nomem(&q->status);
    }
    respond_status(q);
    request_drop_body(q);
}

static void on_end(struct http_stream *st)
{
    struct kube_request *q = http_user(st);
    if (q->verb == VERB_GET || q->verb == VERB_LIST || q->verb == VERB_WATCH) request_drop_body(q);
    if (!q->responded) dispatch(q);
    if (q->responded) request_drop_body(q);
}

static void on_writable(struct http_stream *st)
{
    struct kube_request *q = http_user(st);
    if (q->watch) {
        watch_writable(q);
    } else if (q->list) {
        list_writable(q);
    }
}

static void on_closed(struct http_stream *st, int error)
{
    struct kube_request *q = http_user(st);
    (void)error;
    q->st = NULL;
    if (q->watch) watch_release(q);
    if (q->list) list_release(q);
    request_unref(q);
}

void kube_api_request(void *ctx, struct http_stream *st)
{
    static const struct http_callbacks callbacks = {
        .body = on_body, .end = on_end, .writable = on_writable, .closed = on_closed};
    struct kube_api *api = ctx;
    struct kube_request *q = request_new(api);
    if (!q) {
        http_reply(st, 503, "text/plain", SLICE_LIT("out of memory\n"));
        return;
    }
    q->st = st;
    http_set_callbacks(st, &callbacks, q);
    if (accept_head(q)) respond_status(q);
}
