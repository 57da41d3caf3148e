/* Endpoints: the addresses of a Service's pods, ready and not, grouped by the ports they serve. The
 * same turn keeps the Service's EndpointSlices (endpointslices.c). */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/endpoints.h"
#include "clients/lib/kjson.h"
#include "clients/lib/selector.h"

#define ADDRESSES_MAX 1000 /* as Kubernetes: more are left out, and an annotation says so */
#define OVER_CAPACITY "endpoints.kubernetes.io/over-capacity"

struct endpoints_controller {
    struct controllers *c;
    struct workqueue *queue;
    struct smap left; /* struct leftover */
};

/* Endpoints whose Service is gone. Kept by standbys too, for the Service that goes while nobody
 * leads; forgotten when the Endpoints are gone, so that those that somebody makes later without a
 * Service are left alone. */
struct leftover {
    struct smap_node node; /* key: namespace/name */
    size_t uid_len;        /* 0: they had not been seen yet */
    uint8_t *uid;          /* behind the key */
    uint8_t key[];
};

/* ---- what Services leave behind ------------------------------------------------------------ */

static struct leftover *leftover_find(struct endpoints_controller *ec, struct slice key)
{
    return smap_entry(&ec->left, key, struct leftover, node);
}

static void leftover_free(struct endpoints_controller *ec, struct leftover *l)
{
    if (!l) return;
    smap_remove(&ec->left, &l->node);
    mem_free(l);
}

static void leftover_add(struct endpoints_controller *ec, struct slice key)
{
    const struct kube_object *o = informer_get_key(ec->c->endpoints, key);
    struct slice uid = o ? o->uid : (struct slice){0};
    leftover_free(ec, leftover_find(ec, key));
    if (!o && !ec->c->leading) return; /* the leader sees to it */
    struct leftover *l = mem_must_calloc(1, sizeof(*l) + key.len + uid.len);
    memcpy(l->key, key.data, key.len);
    l->uid = l->key + key.len;
    l->uid_len = uid.len;
    if (uid.len) memcpy(l->uid, uid.data, uid.len);
    smap_insert(&ec->left, &l->node, slice_make(l->key, key.len));
}

static void on_leftover_deleted(void *ctx, const struct kube_result *r)
{
    struct sync *s = ctx;
    struct endpoints_controller *ec = s->c->endpoint;
    if (!r->code || r->code == ERR_NOT_FOUND || r->code == ERR_CONFLICT) /* CONFLICT: others' */
        leftover_free(ec, leftover_find(ec, s->key));
    sync_done(s, r);
}

static void delete_leftover(struct endpoints_controller *ec, struct sync *s)
{
    struct leftover *l = leftover_find(ec, s->key);
    struct slice ns, name;
    if (!l) return;
    key_split(s->key, &ns, &name);
    sync_sent(s);
    kube_delete(ec->c->app.client, &KUBE_ENDPOINTS, ns, name, slice_make(l->uid, l->uid_len), 0, -1,
                NULL, on_leftover_deleted, s);
}

/* ---- building ------------------------------------------------------------------------------- */

/* The number of a container's port by name; 0 if no container has it. */
static int64_t named_port(const struct kube_object *pod, struct slice name, struct slice protocol)
{
    const struct json *containers = json_path(pod->json, "spec.containers");
    for (size_t i = 0; i < (containers ? containers->count : 0); i++) {
        const struct json *ports = json_get(json_at(containers, i), "ports");
        for (size_t j = 0; j < (ports ? ports->count : 0); j++) {
            const struct json *p = json_at(ports, j);
            struct slice have = json_text(json_get(p, "protocol"));
            if (!slice_eq(json_text(json_get(p, "name")), name)) continue;
            if (slice_eq(have.len ? have : SLICE_LIT("TCP"), protocol))
                return json_path_int(p, "containerPort", 0);
        }
    }
    return 0;
}

static struct json *ports_of(struct arena *a, const struct json *service_ports,
                             const struct kube_object *pod)
{
    struct json *out = json_array(a);
    for (size_t i = 0; out && i < (service_ports ? service_ports->count : 0); i++) {
        const struct json *p = json_at(service_ports, i), *target = json_get(p, "targetPort");
        struct slice protocol = json_text(json_get(p, "protocol"));
        if (!protocol.len) protocol = SLICE_LIT("TCP");
        int64_t number = json_path_int(p, "port", 0);
        if (target && target->type == JSON_NUMBER) number = json_path_int(p, "targetPort", number);
        if (target && target->type == JSON_STRING) number = named_port(pod, target->text, protocol);
        if (number <= 0) continue;
        const struct json *app = json_get(p, "appProtocol");
        if (json_push(a, out,
                      kjson(a, "{name:t?,port:i,protocol:t,appProtocol:o?}",
                            json_text(json_get(p, "name")), number, protocol,
                            app ? json_clone(a, app) : NULL)))
            return NULL;
    }
    return out;
}

static void add_address(struct arena *a, struct addresses *v, const struct json *service,
                        struct kube_object *pod)
{
    bool tolerate = json_path_bool(service, "spec.publishNotReadyAddresses", false);
    struct slice ip = json_path_text(pod->json, "status.podIP"),
                 phase = json_path_text(pod->json, "status.phase");
    if (!ip.len || slice_eq_str(phase, "Succeeded") || slice_eq_str(phase, "Failed")) return;
    const struct json *service_ports = json_path(service, "spec.ports");
    struct json *ports = ports_of(a, service_ports, pod);
    bool headless = json_is_str(json_path(service, "spec.clusterIP"), "None");
    if (!ports || (ports->count == 0 && !(headless && !(service_ports && service_ports->count))))
        return;
    if (v->n == v->size) {
        v->size = v->size ? v->size * 2 : 16;
        v->list = mem_must_realloc(v->list, v->size * sizeof(*v->list));
    }
    v->list[v->n++] = (struct address){
        pod, ip, tolerate || pod_is_ready(pod), is_deleting(pod) && !tolerate, ports};
}

static int by_ip(const void *x, const void *y)
{
    const struct address *a = x, *b = y;
    int c = slice_cmp(a->ip, b->ip);
    return c ? c : slice_cmp(a->pod->uid, b->pod->uid);
}

static struct json *address_json(struct arena *a, const struct address *v)
{
    const struct json *spec = json_get(v->pod->json, "spec");
    bool named = json_get(spec, "hostname") && json_get(spec, "subdomain");
    return kjson(a,
                 "{ip:t,hostname:t?,nodeName:t?,targetRef:{kind:'Pod',namespace:t,name:t,uid:t}}",
                 v->ip, named ? json_text(json_get(spec, "hostname")) : (struct slice){0},
                 json_text(json_get(spec, "nodeName")), v->pod->ns, v->pod->name, v->pod->uid);
}

/* One subset for each distinct set of ports; in it the ready and the others. */
static struct json *make_subsets(struct arena *a, struct addresses *v)
{
    struct json *subsets = json_array(a);
    bool *taken = arena_calloc(a, v->n + 1, sizeof(*taken));
    if (!subsets || !taken) return NULL;
    for (size_t i = 0; i < v->n; i++) {
        if (taken[i]) continue;
        struct json *ready = json_array(a), *others = json_array(a);
        for (size_t j = i; j < v->n; j++) {
            if (taken[j] || !json_equal(v->list[i].ports, v->list[j].ports)) continue;
            taken[j] = true;
            struct json *to = v->list[j].ready ? ready : others;
            if (!to || json_push(a, to, address_json(a, &v->list[j]))) return NULL;
        }
        if (!ready || !others) return NULL;
        struct json *subset =
            kjson(a, "{addresses:o?,notReadyAddresses:o?,ports:o?}", ready->count ? ready : NULL,
                  others->count ? others : NULL, v->list[i].ports->count ? v->list[i].ports : NULL);
        if (!subset || json_push(a, subsets, subset)) return NULL;
    }
    return subsets;
}

struct json *endpoints_labels(struct arena *a, const struct json *service)
{
    const struct json *have = json_path(service, "metadata.labels");
    struct json *labels = have ? json_clone(a, have) : json_object(a);
    if (!labels) return NULL;
    if (json_is_str(json_path(service, "spec.clusterIP"), "None"))
        json_set_str(a, labels, "service.kubernetes.io/headless", json_str(a, ""));
    else json_remove(labels, SLICE_LIT("service.kubernetes.io/headless"));
    return labels;
}

/* ---- the turn ------------------------------------------------------------------------------- */

bool endpoints_same(const struct json *a, const struct json *b)
{
    size_t n = a ? a->count : 0, m = b ? b->count : 0;
    return n == 0 || m == 0 ? n == m : json_equal(a, b);
}

void endpoints_drop_labels(struct arena *a, struct json *labels, const struct kube_object *old)
{
    const struct json *before = json_path(old->json, "metadata.labels");
    for (size_t i = 0; i < (before ? before->count : 0); i++)
        if (!json_get_slice(labels, before->members[i].name))
            json_set(a, labels, before->members[i].name, json_null(a));
}

/* Those that go on being endpoints; more than there may be are left out. */
static void keep_staying(struct addresses *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        if (!v->list[i].leaving) v->list[n++] = v->list[i];
    v->cut = n > ADDRESSES_MAX;
    v->n = v->cut ? ADDRESSES_MAX : n;
}

static void write_endpoints(struct sync *s, struct endpoints_controller *ec,
                            struct kube_object *service, struct addresses *v)
{
    struct arena *a = &s->arena;
    struct kube_object *old = informer_get_key(ec->c->endpoints, kube_object_key(service));
    struct json *subsets = make_subsets(a, v), *labels = endpoints_labels(a, service->json);
    if (!subsets || !labels) {
        s->failed = true;
        return;
    }
    const struct json *have =
        old ? json_get(json_path(old->json, "metadata.annotations"), OVER_CAPACITY) : NULL;
    if (old && endpoints_same(json_get(old->json, "subsets"), subsets) &&
        endpoints_same(json_path(old->json, "metadata.labels"), labels) &&
        (have != NULL) == v->cut)
        return;
    struct json *notes = v->cut ? kjson(a, "{$:'truncated'}", OVER_CAPACITY) : NULL;
    sync_sent(s);
    if (!old) {
        struct json *body = kjson(a,
                                  "{apiVersion:'v1',kind:'Endpoints',metadata:{name:t,namespace:t,"
                                  "labels:o,annotations:o?},subsets:o}",
                                  service->name, service->ns, labels, notes, subsets);
        kube_create(ec->c->app.client, &KUBE_ENDPOINTS, service->ns, body, sync_done, s);
        return;
    }
    if (have && !v->cut) notes = kjson(a, "{$:N}", OVER_CAPACITY);
    endpoints_drop_labels(a, labels, old);
    struct json *patch =
        kjson(a, "{metadata:{resourceVersion:s,labels:o,annotations:o?},subsets:o}",
              arena_printf(a, "%lld", (long long)old->resource_version), labels, notes, subsets);
    kube_patch(ec->c->app.client, &KUBE_ENDPOINTS, service->ns, service->name, NULL, patch,
               sync_done, s);
}

static void process(void *ctx, struct slice key)
{
    struct endpoints_controller *ec = ctx;
    struct controllers *c = ec->c;
    struct sync *s = sync_new(c, ec->queue, key);
    struct kube_object *service = informer_get_key(c->services, key);
    struct slice ns = service ? service->ns : (struct slice){0};
    if (!service) {
        delete_leftover(ec, s);
        sync_release(s);
        return;
    }
    const struct json *selector = json_path(service->json, "spec.selector");
    if (!selector || !selector->count || is_deleting(service)) { /* somebody else's to fill */
        struct kube_object *theirs = informer_get_key(c->endpoints, key);
        if (theirs && !is_deleting(service)) endpointslices_mirror(s, theirs);
        sync_release(s);
        return;
    }
    struct addresses v = {0};
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_ns, ns); p;
         p = informer_next(p, c->pods_by_ns))
        if (selector_map_matches(selector, json_path(p->json, "metadata.labels")))
            add_address(&s->arena, &v, service->json, p);
    if (v.n > 1) qsort(v.list, v.n, sizeof(*v.list), by_ip);
    endpointslices_write(s, service, &v);
    keep_staying(&v);
    write_endpoints(s, ec, service, &v);
    mem_free(v.list);
    sync_release(s);
}

/* ---- events --------------------------------------------------------------------------------- */

static void wake_services(struct endpoints_controller *ec, const struct kube_object *pod)
{
    struct controllers *c = ec->c;
    const struct json *labels = json_path(pod->json, "metadata.labels");
    /* A little later, so that a burst of pods is one update. */
    for (struct kube_object *s = informer_first(c->services, c->services_by_ns, pod->ns); s;
         s = informer_next(s, c->services_by_ns))
        if (selector_map_matches(json_path(s->json, "spec.selector"), labels))
            workqueue_add_after(ec->queue, kube_object_key(s), 50);
}

static void pod_changed(void *ctx, struct kube_object *o)
{
    wake_services(ctx, o);
}

static bool same_at(const struct kube_object *a, const struct kube_object *b, const char *path)
{
    const struct json *x = json_path(a->json, path), *y = json_path(b->json, path);
    return x && y ? json_equal(x, y) : x == y;
}

static void pod_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    bool labels = !same_at(old, o, "metadata.labels");
    if (!labels && pod_is_ready(old) == pod_is_ready(o) && is_deleting(old) == is_deleting(o) &&
        same_at(old, o, "status.podIP") && same_at(old, o, "status.phase"))
        return;
    if (labels) wake_services(ctx, old);
    wake_services(ctx, o);
}

static void service_changed(void *ctx, struct kube_object *o)
{
    struct endpoints_controller *ec = ctx;
    leftover_free(ec, leftover_find(ec, kube_object_key(o)));
    workqueue_add(ec->queue, kube_object_key(o));
}

static void service_deleted(void *ctx, struct kube_object *o)
{
    struct endpoints_controller *ec = ctx;
    leftover_add(ec, kube_object_key(o));
    workqueue_add(ec->queue, kube_object_key(o));
}

static void service_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    service_changed(ctx, o);
}

/* Somebody deleted or changed what is ours: put it right. Endpoints of no Service at all are left
 * alone. */
static void endpoints_changed(void *ctx, struct kube_object *o)
{
    struct endpoints_controller *ec = ctx;
    if (informer_get_key(ec->c->services, kube_object_key(o)))
        workqueue_add(ec->queue, kube_object_key(o));
}

static void endpoints_deleted(void *ctx, struct kube_object *o)
{
    struct endpoints_controller *ec = ctx;
    struct leftover *l = leftover_find(ec, kube_object_key(o));
    if (l && slice_eq(slice_make(l->uid, l->uid_len), o->uid)) leftover_free(ec, l);
    endpoints_changed(ctx, o);
}

static void endpoints_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    endpoints_changed(ctx, o);
}

static void slice_changed(void *ctx, struct kube_object *o)
{
    struct endpoints_controller *ec = ctx;
    struct slice name =
        json_text(json_get(json_path(o->json, "metadata.labels"), ENDPOINTSLICE_SERVICE));
    struct kube_object *service = name.len ? informer_get(ec->c->services, o->ns, name) : NULL;
    if (service) workqueue_add(ec->queue, kube_object_key(service));
}

/* The labels before count: they say whose it was. */
static void slice_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    slice_changed(ctx, old);
    slice_changed(ctx, o);
}

void endpoints_start(struct controllers *c)
{
    static const struct informer_handler pods = {pod_changed, pod_updated, pod_changed, NULL};
    static const struct informer_handler services = {service_changed, service_updated,
                                                     service_deleted, NULL};
    static const struct informer_handler endpoints = {endpoints_changed, endpoints_updated,
                                                      endpoints_deleted, NULL};
    static const struct informer_handler slices = {NULL, slice_updated, slice_changed, NULL};
    struct endpoints_controller *ec = mem_must_calloc(1, sizeof(*ec));
    c->endpoint = ec;
    ec->c = c;
    ec->queue = controllers_queue(c, "endpoints", process, ec);
    informer_add_handler(c->pods, &pods, ec);
    informer_add_handler(c->services, &services, ec);
    informer_add_handler(c->endpoints, &endpoints, ec);
    informer_add_handler(c->endpointslices, &slices, ec);
}

void endpoints_free(struct controllers *c)
{
    struct endpoints_controller *ec = c->endpoint;
    smap_for_each(node, &ec->left) leftover_free(ec, container_of(node, struct leftover, node));
    smap_release(&ec->left);
    mem_free(ec);
}
