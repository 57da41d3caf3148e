/* What an etcd client port serves beside gRPC: /health, /livez, /readyz, /version, /metrics; and
 * gRPC's own health service. */
#include <stdio.h>

#include "api/etcd/etcd_int.h"
#include "base/mem.h"
#include "schemas/etcd/health.pb-c.h"

/* ---- plain HTTP --------------------------------------------------------------------------------
 */

/* A question to the core for one plain exchange. Lives until the core has answered, whatever became
 * of the exchange. */
struct plain {
    struct core_request r;
    struct etcd_api *api;
    struct http_stream *st; /* NULL: gone */
    bool health;            /* /health, else /readyz */
    bool ignore_nospace, ignore_corrupt;
    bool serializable;
};

static void plain_closed(struct http_stream *st, int error)
{
    struct plain *p = http_user(st);
    (void)error;
    if (p) p->st = NULL;
}

static void plain_done(struct plain *p)
{
    if (p->st) http_set_callbacks(p->st, &(struct http_callbacks){0}, NULL);
    core_request_release(&p->r);
    mem_free(p);
}

static void reply_json(struct http_stream *st, int status, const char *text)
{
    http_reply(st, status, "application/json", slice_str(text));
}

static struct plain *plain_begin(struct etcd_api *api, struct http_stream *st)
{
    static const struct http_callbacks callbacks = {.closed = plain_closed};
    struct plain *p = mem_calloc(1, sizeof(*p));
    if (!p) {
        reply_json(st, 503, "{\"health\":\"false\",\"reason\":\"OUT OF MEMORY\"}");
        return NULL;
    }
    p->api = api;
    p->st = st;
    http_set_callbacks(st, &callbacks, p);
    return p;
}

static void plain_ask(struct plain *p, enum core_request_type type,
                      void (*done)(struct core_request *r))
{
    p->r = (struct core_request){.type = type, .done = done};
    core_client_submit(p->api->core, &p->r);
}

/* ---- /health, /readyz --------------------------------------------------------------------------
 */

static void health_reply(struct plain *p, const char *problem)
{
    char text[128];
    bool ok = problem == NULL;
    etcd_count(p->api, ok ? COUNT_HEALTH_OK : COUNT_HEALTH_FAILED, 1);
    if (p->st && p->health) {
        snprintf(text, sizeof(text), "{\"health\":\"%s\",\"reason\":\"%s\"}", ok ? "true" : "false",
                 ok ? "" : problem);
        reply_json(p->st, ok ? 200 : 503, text);
    } else if (p->st) {
        snprintf(text, sizeof(text), "%s\n", ok ? "ok" : problem);
        http_reply(p->st, ok ? 200 : 503, "text/plain; charset=utf-8", slice_str(text));
    }
    plain_done(p);
}

static void on_read_point(struct core_request *r)
{
    struct plain *p = container_of(r, struct plain, r);
    health_reply(p, r->code == 0               ? NULL
                    : r->code == ERR_NO_LEADER ? "RAFT NO LEADER"
                                               : "QGET ERROR:etcdserver: request timed out");
}

static void on_alarms(struct core_request *r)
{
    struct plain *p = container_of(r, struct plain, r);
    const char *problem = r->code ? err_text(r->code) : NULL;
    for (size_t i = 0; i < r->n_alarms && !problem; i++) {
        if (r->alarms[i].alarm == ALARM_NOSPACE && !p->ignore_nospace) problem = "ALARM NOSPACE";
        if (r->alarms[i].alarm == ALARM_CORRUPT && !p->ignore_corrupt) problem = "ALARM CORRUPT";
    }
    if (!problem && !p->serializable && core_client_leader_id(p->api->core) == 0)
        problem = "RAFT NO LEADER";
    if (problem || p->serializable) {
        health_reply(p, problem);
        return;
    }
    core_request_release(r);
    plain_ask(p, CORE_READ_INDEX, on_read_point);
}

/* Whether the query has this `name=value`. */
static bool query_has(struct slice query, const char *pair)
{
    while (query.len > 0) {
        ptrdiff_t at = slice_index(query, '&');
        struct slice one = slice_sub(query, 0, at < 0 ? query.len : (size_t)at);
        if (slice_eq_str(one, pair)) return true;
        query = slice_sub(query, one.len + 1, SIZE_MAX);
    }
    return false;
}

static void health(struct etcd_api *api, struct http_stream *st, bool is_health)
{
    struct slice query = http_request(st)->query;
    struct plain *p = plain_begin(api, st);
    if (!p) return;
    p->health = is_health;
    p->serializable = query_has(query, "serializable=true");
    p->ignore_nospace = query_has(query, "exclude=NOSPACE");
    p->ignore_corrupt = query_has(query, "exclude=CORRUPT");
    plain_ask(p, CORE_ALARMS, on_alarms);
}

/* ---- /metrics ----------------------------------------------------------------------------------
 */

static void on_status(struct core_request *r)
{
    struct plain *p = container_of(r, struct plain, r);
    struct buf out = {0};
    if (r->code == 0) etcd_metrics_write(p->api, r->status, &out);
    if (p->st && r->code == 0 && !out.failed)
        http_reply(p->st, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&out));
    else if (p->st)
        http_reply(p->st, 503, "text/plain; charset=utf-8",
                   slice_str(err_text(r->code ? r->code : out.failed)));
    buf_release(&out);
    plain_done(p);
}

static void metrics(struct etcd_api *api, struct http_stream *st)
{
    struct plain *p = plain_begin(api, st);
    if (p) plain_ask(p, CORE_STATUS, on_status);
}

void etcd_plain_request(struct etcd_api *api, struct http_stream *st)
{
    const struct http_request *q = http_request(st);
    bool health_path = slice_eq_str(q->path, "/health"),
         ready_path = slice_eq_str(q->path, "/readyz");
    bool known = health_path || ready_path || slice_eq_str(q->path, "/livez") ||
                 slice_eq_str(q->path, "/version") || slice_eq_str(q->path, "/metrics");
    if (!known) {
        http_reply(st, 404, "text/plain; charset=utf-8", SLICE_LIT("404 page not found\n"));
    } else if (!slice_eq_str(q->method, "GET") && !slice_eq_str(q->method, "HEAD")) {
        const struct http_header headers[] = {
            {SLICE_LIT("allow"), SLICE_LIT("GET")},
            {SLICE_LIT("content-type"), SLICE_LIT("text/plain; charset=utf-8")}};
        http_respond(st, 405, headers, 2, false);
        http_write(st, SLICE_LIT("Method Not Allowed\n"));
        http_end(st);
    } else if (health_path || ready_path) {
        health(api, st, health_path);
    } else if (slice_eq_str(q->path, "/livez")) {
        http_reply(st, 200, "text/plain; charset=utf-8", SLICE_LIT("ok\n"));
    } else if (slice_eq_str(q->path, "/version")) {
        reply_json(st, 200,
                   "{\"etcdserver\":\"" ETCD_VERSION "\",\"etcdcluster\":\"" ETCD_CLUSTER_VERSION
                   "\"}");
    } else {
        metrics(api, st);
    }
}

/* ---- grpc.health.v1 ----------------------------------------------------------------------------
 */

static void check_reply(struct grpc_call *c, int status)
{
    uint8_t out[16], *p = pb_put_uint(out, 1, (uint64_t)status);
    struct grpc_piece piece = {.data = {out, (size_t)(p - out)}};
    grpc_reply(c, &piece, 1);
}

static void check_message(struct grpc_call *c, struct slice message)
{
    Grpc__Health__V1__HealthCheckRequest *m =
        etcd_unpack(c, &grpc__health__v1__health_check_request__descriptor, message);
    if (!m) return;
    bool whole_server = m->service[0] == 0;
    etcd_unpacked_free(m);
    if (whole_server)
        check_reply(c, GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING);
    else grpc_finish(c, GRPC_NOT_FOUND, "unknown service");
}

const struct grpc_method etcd_health_methods[] = {
    {.name = "Check", .message = check_message},
};
const size_t etcd_health_n_methods = sizeof(etcd_health_methods) / sizeof(etcd_health_methods[0]);
