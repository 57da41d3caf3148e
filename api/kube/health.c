/* /healthz and /readyz (a linearizable read must succeed), /livez (this answer is proof enough), /metrics, and the reviews by which
 * clients ask what they may do: everything. */
#include <stdatomic.h>
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/clock.h"
#include "base/mem.h"

/* ---- health ----------------------------------------------------------------------------------- */

static void respond_health(struct kube_request *q, int store_code)
{
    struct slice which = q->route.name;
    bool live = slice_eq_str(which, "livez");
    bool verbose = query_has(&q->query, "verbose") || store_code;
    struct buf b;
    buf_init(&b, 4 * LIMIT_KiB);
    if (verbose) {
        buf_append_str(&b, "[+]ping ok\n");
        if (!live) buf_printf(&b, store_code ? "[-]etcd failed: %s\n" : "[+]etcd ok%s\n", store_code ? err_text(store_code) : "");
        buf_printf(&b, "%.*s check %s\n", (int)which.len, (const char *)which.data, store_code ? "failed" : "passed");
    } else {
        buf_append_str(&b, "ok");
    }
    respond_bytes(q, store_code ? 500 : 200, "text/plain; charset=utf-8", buf_slice(&b));
    buf_release(&b);
}

static void read_done(struct kube_request *q)
{
    respond_health(q, q->core.code);
}

void health_handle(struct kube_request *q)
{
    struct slice check = q->route.sub;
    if (check.len && !slice_eq_str(check, "ping") && !slice_eq_str(check, "etcd")) {
        status_unknown_path(&q->status);
        respond_status(q);
        return;
    }
    if (slice_eq_str(q->route.name, "livez") || slice_eq_str(check, "ping")) {
        respond_health(q, 0);
        return;
    }
    request_core(q, CORE_READ_INDEX, read_done);
}

/* ---- metrics ---------------------------------------------------------------------------------- */

#define MAX_KINDS 64

static const int codes[] = {200, 201, 202, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503, 504, 507, 0};
#define N_CODES (sizeof(codes) / sizeof(*codes))

/* Of the process; the last kind is "none". */
static _Atomic uint64_t requests[VERB_COUNT][MAX_KINDS][N_CODES];

static size_t kind_index(const struct kind *k)
{
    for (size_t i = 0; k && i < kinds_count() && i < MAX_KINDS - 1; i++) {
        if (kinds_at(i) == k) return i;
    }
    return MAX_KINDS - 1;
}

void metrics_count(const struct kube_request *q)
{
    size_t c = 0;
    while (c < N_CODES - 1 && codes[c] != q->response_code) c++;
    atomic_fetch_add_explicit(&requests[q->verb][kind_index(q->route.kind)][c], 1, memory_order_relaxed);
}

static void write_counters(struct buf *b)
{
    buf_append_str(b, "# HELP apiserver_request_total Requests by verb, resource and HTTP response code.\n"
                      "# TYPE apiserver_request_total counter\n");
    for (size_t v = 0; v < VERB_COUNT; v++) {
        for (size_t k = 0; k < MAX_KINDS; k++) {
            for (size_t c = 0; c < N_CODES; c++) {
                uint64_t n = atomic_load_explicit(&requests[v][k][c], memory_order_relaxed);
                if (!n) continue;
                const struct kind *kind = k < MAX_KINDS - 1 ? kinds_at(k) : NULL;
                buf_printf(b, "apiserver_request_total{verb=\"%s\",group=\"%s\",resource=\"%s\",code=\"%d\"} %llu\n",
                           verb_name((enum kube_verb)v), kind ? kind->group : "", kind ? kind->plural : "", codes[c],
                           (unsigned long long)n);
            }
        }
    }
}

void metrics_handle(struct kube_request *q)
{
    struct watch_stats watches;
    struct http_stats http;
    struct buf b;
    watch_hub_stats(core_client_hub(q->api->worker->core), &watches);
    http_server_stats(q->api->worker->http, &http);
    buf_init(&b, 8 * LIMIT_MiB);
    write_counters(&b);
    buf_printf(&b,
               "# HELP apiserver_longrunning_requests Watches of this worker.\n"
               "# TYPE apiserver_longrunning_requests gauge\n"
               "apiserver_longrunning_requests{verb=\"watch\",worker=\"%u\"} %zu\n"
               "# HELP pintle_watch_events_total Events given to watchers of this worker.\n"
               "# TYPE pintle_watch_events_total counter\n"
               "pintle_watch_events_total{worker=\"%u\"} %llu\n"
               "# HELP process_resident_memory_bytes Resident memory size in bytes.\n"
               "# TYPE process_resident_memory_bytes gauge\n"
               "process_resident_memory_bytes %llu\n"
               "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n"
               "# TYPE process_cpu_seconds_total counter\n"
               "process_cpu_seconds_total %.6f\n"
               "# HELP pintle_http_connections Open connections of this worker.\n"
               "# TYPE pintle_http_connections gauge\n"
               "pintle_http_connections{worker=\"%u\"} %llu\n",
               q->api->worker->index, q->api->n_watches, q->api->worker->index, (unsigned long long)watches.events,
               (unsigned long long)mem_rss(), (double)clock_cpu_us() / 1e6, q->api->worker->index,
               (unsigned long long)http.connections);
    respond_bytes(q, 200, "text/plain; version=0.0.4", buf_slice(&b));
    buf_release(&b);
}

/* ---- reviews ---------------------------------------------------------------------------------- */

static struct json *user_info(struct kube_request *q)
{
    struct arena *a = &q->arena;
    struct json *u = json_object(a), *groups = json_array(a);
    if (!u || !groups || json_set_str(a, u, "username", json_string(a, q->user.name))) return NULL;
    if (q->user.uid.len && json_set_str(a, u, "uid", json_string(a, q->user.uid))) return NULL;
    bool authenticated = false;
    for (size_t i = 0; i < q->user.n_groups; i++) {
        authenticated |= slice_eq_str(q->user.groups[i], "system:authenticated");
        if (json_push(a, groups, json_string(a, q->user.groups[i]))) return NULL;
    }
    if (!authenticated && json_push(a, groups, json_str(a, "system:authenticated"))) return NULL;
    return json_set_str(a, u, "groups", groups) ? NULL : u;
}

static struct json *rules(struct arena *a)
{
    static const char text[] =
        "{\"resourceRules\":[{\"verbs\":[\"*\"],\"apiGroups\":[\"*\"],\"resources\":[\"*\"]}],"
        "\"nonResourceRules\":[{\"verbs\":[\"*\"],\"nonResourceURLs\":[\"*\"]}],\"incomplete\":false}";
    struct json *v;
    return json_parse(a, SLICE_LIT(text), 0, &v, NULL) ? NULL : v;
}

/* A token of the token file names its user; any other is not authenticated. */
static struct json *token_status(struct kube_request *q, const struct json *review)
{
    struct arena *a = &q->arena;
    const struct user *u = tokens_find(q->api->tokens, json_path_text(review, "spec.token"));
    struct json *s = json_object(a);
    if (!s || json_set_str(a, s, "authenticated", json_bool(a, u != NULL))) return NULL;
    if (!u) return s;
    struct user asking = q->user;
    q->user = *u;
    struct json *info = user_info(q);
    q->user = asking;
    return info && json_set_str(a, s, "user", info) == 0 ? s : NULL;
}

static struct json *review_status(struct kube_request *q, const struct json *review)
{
    struct arena *a = &q->arena;
    if (slice_eq_str(q->route.name, "selfsubjectrulesreviews")) return rules(a);
    if (slice_eq_str(q->route.name, "tokenreviews")) return token_status(q, review);
    struct json *s = json_object(a);
    if (!s) return NULL;
    if (slice_eq_str(q->route.name, "selfsubjectreviews")) {
        struct json *info = user_info(q);
        return info && json_set_str(a, s, "userInfo", info) == 0 ? s : NULL;
    }
    if (json_set_str(a, s, "allowed", json_bool(a, true)) ||
        json_set_str(a, s, "reason", json_str(a, "every authenticated user may do everything"))) {
        return NULL;
    }
    return s;
}

void review_handle(struct kube_request *q)
{
    struct json *review;
    if (request_body(q, &review) || (review->type != JSON_OBJECT && status_bad_request(&q->status, "the body is no object"))) {
        respond_status(q);
        return;
    }
    struct json *status = review_status(q, review);
    if (!status || json_set_str(&q->arena, review, "status", status)) {
        status_nomem(&q->status);
        respond_status(q);
        return;
    }
    q->format.media = MEDIA_JSON;
    respond_json(q, 201, review);
}
