/* EndpointSlices: what Endpoints say in pieces of at most 100 endpoints, for one set of ports and
 * one family of addresses each. Their names follow from their owner's uid and their number, so that
 * making one twice is an error and no second slice. */
#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/endpoints.h"
#include "clients/lib/kjson.h"

#define ENDPOINTS_PER_SLICE 100
#define SKIP_MIRROR "endpointslice.kubernetes.io/skip-mirror"
#define NAME_CHARS "bcdfghjklmnpqrstvwxz2456789" /* of generated names */
#define NAME_BASE (sizeof(NAME_CHARS) - 1)
#define NAME_SUFFIX 5

/* The slices that one Service shall have. */
struct wanted {
    struct sync *sync;
    const struct kube_resource *owner_kind;
    struct kube_object *owner; /* of the Service's name */
    const char *manager;
    struct json *labels;
    struct json *slices; /* {addressType, endpoints, ports} */
};

/* ---- building ------------------------------------------------------------------------------- */

/* A slice's ports have a name always; "" if it is the only one. */
static struct json *slice_ports(struct arena *a, const struct json *ports)
{
    struct json *out = json_array(a);
    for (size_t i = 0; out && i < (ports ? ports->count : 0); i++) {
        const struct json *p = json_at(ports, i), *app = json_get(p, "appProtocol");
        struct slice protocol = json_text(json_get(p, "protocol"));
        if (json_push(a, out,
                      kjson(a, "{name:t,protocol:t,port:i,appProtocol:o?}",
                            json_get(p, "name") ? json_text(json_get(p, "name")) : SLICE_LIT(""),
                            protocol.len ? protocol : SLICE_LIT("TCP"),
                            json_path_int(p, "port", 0), app ? json_clone(a, app) : NULL)))
            return NULL;
    }
    return out;
}

static struct json *new_slice(struct wanted *w, const char *type, struct json *ports)
{
    struct arena *a = &w->sync->arena;
    struct json *s = kjson(a, "{addressType:s,endpoints:o,ports:o}", type, json_array(a), ports);
    return s && json_push(a, w->slices, s) == 0 ? s : NULL;
}

/* Into the last slice with these ports that has room. */
static void add_endpoint(struct wanted *w, const struct json *ports, struct slice ip,
                         struct json *endpoint)
{
    struct arena *a = &w->sync->arena;
    const char *type = slice_index(ip, ':') >= 0 ? "IPv6" : "IPv4";
    struct json *mine = slice_ports(a, ports), *to = NULL;
    if (!mine || !endpoint) {
        w->sync->failed = true;
        return;
    }
    for (size_t i = w->slices->count; i > 0 && !to; i--) {
        struct json *s = json_at(w->slices, i - 1);
        if (json_get(s, "endpoints")->count < ENDPOINTS_PER_SLICE &&
            json_is_str(json_get(s, "addressType"), type) && json_equal(json_get(s, "ports"), mine))
            to = s;
    }
    if (!to) to = new_slice(w, type, mine);
    if (!to || json_push(a, json_get(to, "endpoints"), endpoint)) w->sync->failed = true;
}

static struct json *pod_endpoint(struct arena *a, const struct address *v)
{
    const struct json *spec = json_get(v->pod->json, "spec");
    bool named = json_get(spec, "hostname") && json_get(spec, "subdomain");
    return kjson(a,
                 "{addresses:[t],conditions:{ready:b,serving:b,terminating:b},hostname:t?,"
                 "nodeName:t?,targetRef:{kind:'Pod',namespace:t,name:t,uid:t}}",
                 v->ip, (int)(v->ready && !v->leaving), (int)pod_is_ready(v->pod),
                 (int)is_deleting(v->pod),
                 named ? json_text(json_get(spec, "hostname")) : (struct slice){0},
                 json_text(json_get(spec, "nodeName")), v->pod->ns, v->pod->name, v->pod->uid);
}

static struct json *mirrored_endpoint(struct arena *a, const struct json *address, bool ready)
{
    const struct json *ref = json_get(address, "targetRef");
    return kjson(a, "{addresses:[t],conditions:{ready:b},hostname:t?,nodeName:t?,targetRef:o?}",
                 json_text(json_get(address, "ip")), (int)ready,
                 json_text(json_get(address, "hostname")), json_text(json_get(address, "nodeName")),
                 ref ? json_clone(a, ref) : NULL);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* Numbers below 27^5 give different names. */
static struct slice slice_name(struct wanted *w, size_t number)
{
    uint64_t x = 14695981039346656037u;
    for (size_t i = 0; i < w->owner->uid.len; i++)
        x = (x ^ w->owner->uid.data[i]) * 1099511628211u;
    x = (x >> 8) + number;
    char suffix[NAME_SUFFIX + 1] = {0};
    for (int i = NAME_SUFFIX - 1; i >= 0; i--, x /= NAME_BASE)
        suffix[i] = NAME_CHARS[x % NAME_BASE];
    const char *name = arena_printf(&w->sync->arena, "%.*s-%s", (int)w->owner->name.len,
                                    (const char *)w->owner->name.data, suffix);
    return name ? slice_str(name) : (struct slice){0};
}

static void create_slice(struct wanted *w, struct slice name, const struct json *want)
{
    struct sync *s = w->sync;
    struct arena *a = &s->arena;
    struct json *body = kjson(
        a,
        "{apiVersion:s,kind:s,metadata:{name:t,namespace:t,labels:o,ownerReferences:[o]},"
        "addressType:o,endpoints:o,ports:o}",
        KUBE_ENDPOINTSLICES.api_version, KUBE_ENDPOINTSLICES.kind, name, w->owner->ns,
        json_clone(a, w->labels), owner_reference(a, w->owner_kind, w->owner),
        json_clone(a, json_get(want, "addressType")), json_clone(a, json_get(want, "endpoints")),
        json_clone(a, json_get(want, "ports")));
    sync_sent(s);
    kube_create(s->c->app.client, &KUBE_ENDPOINTSLICES, w->owner->ns, body, sync_done, s);
}

static void delete_slice(struct wanted *w, const struct kube_object *o)
{
    struct sync *s = w->sync;
    if (is_deleting(o)) return;
    sync_sent(s);
    kube_delete(s->c->app.client, &KUBE_ENDPOINTSLICES, o->ns, o->name, o->uid, 0, -1, NULL,
                sync_done, s);
}

/* The addresses' family cannot change: another slice takes its place when this one is gone. */
static void update_slice(struct wanted *w, const struct kube_object *old, const struct json *want)
{
    struct sync *s = w->sync;
    struct arena *a = &s->arena;
    if (!json_equal(json_get(old->json, "addressType"), json_get(want, "addressType"))) {
        delete_slice(w, old);
        return;
    }
    if (is_controlled_by(old, w->owner) &&
        endpoints_same(json_get(old->json, "endpoints"), json_get(want, "endpoints")) &&
        endpoints_same(json_get(old->json, "ports"), json_get(want, "ports")) &&
        endpoints_same(json_path(old->json, "metadata.labels"), w->labels))
        return;
    struct json *labels = json_clone(a, w->labels);
    if (!labels) {
        s->failed = true;
        return;
    }
    endpoints_drop_labels(a, labels, old);
    struct json *patch = kjson(
        a, "{metadata:{resourceVersion:s,labels:o,ownerReferences:[o]},endpoints:o,ports:o}",
        arena_printf(a, "%lld", (long long)old->resource_version), labels,
        owner_reference(a, w->owner_kind, w->owner), json_clone(a, json_get(want, "endpoints")),
        json_clone(a, json_get(want, "ports")));
    sync_sent(s);
    kube_patch(s->c->app.client, &KUBE_ENDPOINTSLICES, old->ns, old->name, NULL, patch, sync_done,
               s);
}

static void apply(struct wanted *w)
{
    struct controllers *c = w->sync->c;
    struct arena *a = &w->sync->arena;
    size_t n = w->slices->count;
    struct slice *names = arena_calloc(a, n + 1, sizeof(*names));
    for (size_t i = 0; names && i < n; i++)
        if (!(names[i] = slice_name(w, i)).len) names = NULL;
    if (!names || w->sync->failed) {
        w->sync->failed = true;
        return;
    }
    for (struct kube_object *o =
             informer_first(c->endpointslices, c->endpointslices_by_owner, w->owner->uid);
         o; o = informer_next(o, c->endpointslices_by_owner)) {
        size_t i = 0;
        while (i < n && !slice_eq(names[i], o->name)) i++;
        bool ours = json_is_str(
            json_get(json_path(o->json, "metadata.labels"), ENDPOINTSLICE_MANAGER), w->manager);
        if (i == n && ours) delete_slice(w, o);
    }
    for (size_t i = 0; i < n; i++) {
        struct kube_object *old = informer_get(c->endpointslices, w->owner->ns, names[i]);
        if (old) update_slice(w, old, json_at(w->slices, i));
        else create_slice(w, names[i], json_at(w->slices, i));
    }
}

static bool wanted_init(struct wanted *w, struct json *labels)
{
    struct arena *a = &w->sync->arena;
    w->labels = labels;
    w->slices = json_array(a);
    if (w->labels && w->slices &&
        !json_set_str(a, labels, ENDPOINTSLICE_SERVICE, json_string(a, w->owner->name)) &&
        !json_set_str(a, labels, ENDPOINTSLICE_MANAGER, json_str(a, w->manager)))
        return true;
    w->sync->failed = true;
    return false;
}

void endpointslices_write(struct sync *s, struct kube_object *service, const struct addresses *v)
{
    struct wanted w = {.sync = s,
                       .owner_kind = &KUBE_SERVICES,
                       .owner = service,
                       .manager = "endpointslice-controller.k8s.io"};
    if (!wanted_init(&w, endpoints_labels(&s->arena, service->json))) return;
    for (size_t i = 0; i < v->n; i++)
        add_endpoint(&w, v->list[i].ports, v->list[i].ip, pod_endpoint(&s->arena, &v->list[i]));
    /* One without endpoints says that there are none. */
    bool v6 = slice_index(json_path_text(service->json, "spec.clusterIP"), ':') >= 0;
    if (!v->n && !new_slice(&w, v6 ? "IPv6" : "IPv4", json_array(&s->arena))) s->failed = true;
    apply(&w);
}

void endpointslices_mirror(struct sync *s, struct kube_object *endpoints)
{
    static const char *const lists[] = {"addresses", "notReadyAddresses"};
    struct arena *a = &s->arena;
    const struct json *have = json_path(endpoints->json, "metadata.labels");
    const struct json *subsets = json_get(endpoints->json, "subsets");
    struct wanted w = {.sync = s,
                       .owner_kind = &KUBE_ENDPOINTS,
                       .owner = endpoints,
                       .manager = "endpointslicemirroring-controller.k8s.io"};
    if (is_deleting(endpoints) || !wanted_init(&w, have ? json_clone(a, have) : json_object(a)))
        return;
    bool skip = json_is_str(json_get(have, SKIP_MIRROR), "true");
    for (size_t i = 0; !skip && i < (subsets ? subsets->count : 0); i++) {
        const struct json *subset = json_at(subsets, i);
        for (size_t l = 0; l < 2; l++) {
            const struct json *list = json_get(subset, lists[l]);
            for (size_t j = 0; j < (list ? list->count : 0); j++)
                add_endpoint(&w, json_get(subset, "ports"),
                             json_text(json_get(json_at(list, j), "ip")),
                             mirrored_endpoint(a, json_at(list, j), l == 0));
        }
    }
    apply(&w);
}
