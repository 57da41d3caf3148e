/* What a cluster starts with, made by each member once it may serve: the system namespaces, the `kubernetes` Service, and this
 * member's address in its Endpoints. Ordinary requests that this server makes of itself, one after the other, again and again until
 * each is done: whichever member comes first makes the thing, the others find it there. */
#include "api/kube/kube_int.h"
#include "base/clock.h"
#include "base/log.h"

#define AGAIN_MS 500
#define N_NAMESPACES 4

static const char *const namespaces[N_NAMESPACES] = {"default", "kube-system", "kube-public", "kube-node-lease"};

struct bootstrap {
    unsigned step; /* the namespaces, then the service, then the endpoints */
};

static void next_step(struct kube_request *q);

static const struct kind *core_kind(const char *plural)
{
    return kind_by_resource((struct slice){0}, SLICE_LIT("v1"), slice_str(plural));
}

static void step_done(struct kube_request *inner)
{
    struct kube_request *q = inner->parent;
    struct bootstrap *b = q->extra;
    int code = inner->response_code;
    if (code < 300 || code == 409) {
        b->step++;
        next_step(q);
    } else {
        if (code == 422 || code == 400) {
            log_warn("kube: bootstrap step %u: %s", b->step, inner->status.message ? inner->status.message : "refused");
        }
        request_later(q, AGAIN_MS, next_step);
    }
}

/* ---- endpoints -------------------------------------------------------------------------------- */

static bool has_address(const struct json *addresses, const char *ip)
{
    for (size_t i = 0; addresses && i < addresses->count; i++) {
        if (json_is_str(json_get(json_at(addresses, i), "ip"), ip)) return true;
    }
    return false;
}

static int new_endpoints(struct kube_request *q, struct json **ret)
{
    const struct kube_api *api = q->api;
    char *uid = arena_alloc(&q->arena, 37), *now = arena_alloc(&q->arena, 32);
    if (!uid || !now) return status_nomem(&q->status);
    kube_uuid(q->api, uid);
    kube_time(clock_wall_ms() / 1000, now);
    const char *text = arena_printf(&q->arena,
                                    "{\"metadata\":{\"name\":\"kubernetes\",\"namespace\":\"default\",\"uid\":\"%s\","
                                    "\"creationTimestamp\":\"%s\"},"
                                    "\"subsets\":[{\"addresses\":[{\"ip\":\"%s\"}],\"ports\":[{\"name\":\"https\","
                                    "\"port\":%d,\"protocol\":\"TCP\"}]}]}", uid, now, api->advertise_host, api->advertise_port);
    if (!text || json_parse(&q->arena, slice_str(text), 0, ret, NULL)) return status_nomem(&q->status);
    return 0;
}

/* Members with the same port share a subset. */
static int add_member(struct kube_request *q, struct json *endpoints)
{
    const struct kube_api *api = q->api;
    struct arena *a = &q->arena;
    struct json *subsets = json_get(endpoints, "subsets"), *address = json_object(a), *fresh;
    if (!address || json_set_str(a, address, "ip", json_str(a, api->advertise_host))) return status_nomem(&q->status);
    for (size_t i = 0; subsets && i < subsets->count; i++) {
        struct json *subset = json_at(subsets, i), *addresses = json_get(subset, "addresses");
        int64_t port = 0;
        if (!json_to_int(json_get(json_at(json_get(subset, "ports"), 0), "port"), &port) || port != api->advertise_port) continue;
        if (has_address(addresses, api->advertise_host)) return 0;
        if (addresses) return json_push(a, addresses, address) ? status_nomem(&q->status) : 0;
    }
    int code = new_endpoints(q, &fresh);
    if (code) return code;
    struct json *subset = json_at(json_get(fresh, "subsets"), 0);
    if (!subsets) {
        subsets = json_array(a);
        if (!subsets || json_set_str(a, endpoints, "subsets", subsets)) return status_nomem(&q->status);
    }
    return json_push(a, subsets, subset) ? status_nomem(&q->status) : 0;
}

static int endpoints_compute(struct kube_request *q)
{
    struct json *endpoints;
    int code = q->mut.object ? mutate_current(q, &endpoints) : new_endpoints(q, &endpoints);
    struct json *labels = code ? NULL : json_path(endpoints, "metadata.labels");
    if (labels) json_remove(labels, SLICE_LIT("endpointslice.kubernetes.io/skip-mirror")); /* nobody else makes its slice */
    if (!code && q->mut.object) code = add_member(q, endpoints);
    return code ? code : mutate_put(q, endpoints);
}

static void start_endpoints(struct kube_request *inner)
{
    inner->mut.key = key_of(&inner->arena, inner->route.kind, inner->route.ns, inner->route.name);
    inner->mut.compute = endpoints_compute;
    inner->mut.finish = mutate_finish_object;
    mutate_start(inner);
}

/* ---- steps ------------------------------------------------------------------------------------ */

static int set_body(struct kube_request *inner, unsigned step)
{
    if (step < N_NAMESPACES) {
        return buf_printf(&inner->body, "{\"metadata\":{\"name\":\"%s\"}}", namespaces[step]);
    }
    return buf_printf(&inner->body,
                      "{\"metadata\":{\"name\":\"kubernetes\",\"labels\":{\"component\":\"apiserver\",\"provider\":\"kubernetes\"}},"
                      "\"spec\":{\"clusterIP\":\"10.96.0.1\",\"type\":\"ClusterIP\",\"ports\":[{\"name\":\"https\",\"port\":443,"
                      "\"protocol\":\"TCP\",\"targetPort\":%d}]}}", inner->api->advertise_port);
}

static void next_step(struct kube_request *q)
{
    struct bootstrap *b = q->extra;
    bool endpoints = b->step == N_NAMESPACES + 1;
    if (b->step > N_NAMESPACES + 1 || (endpoints && !q->api->advertise_host)) {
        log_debug("kube: the system objects are there");
        return;
    }
    const char *plural = b->step < N_NAMESPACES ? "namespaces" : endpoints ? "endpoints" : "services";
    bool cluster = b->step < N_NAMESPACES;
    struct kube_request *inner =
        request_inner(q, core_kind(plural), endpoints ? VERB_UPDATE : VERB_CREATE,
                      cluster ? (struct slice){0} : SLICE_LIT("default"),
                      endpoints ? SLICE_LIT("kubernetes") : (struct slice){0}, step_done);
    if (!inner) {
        request_later(q, AGAIN_MS, next_step);
        return;
    }
    if (endpoints) {
        request_run(inner, start_endpoints);
    } else if (set_body(inner, b->step) == 0) {
        request_run(inner, create_handle);
    } else {
        status_nomem(&inner->status);
        request_run(inner, respond_status);
    }
}

void kube_api_bootstrap(struct kube_api *api)
{
    struct kube_request *q = request_new(api);
    if (q && (q->extra = arena_calloc(&q->arena, 1, sizeof(struct bootstrap)))) next_step(q);
    else log_error("kube: out of memory at start");
    if (q) request_unref(q); /* the step under way holds it */
}
