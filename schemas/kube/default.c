/* Defaults. What data can say (`default=` of a field) is filled in by one walk; what depends on
 * other fields is one small function per type, named by `default-by=`. Source: the defaulting that
 * Kubernetes v1.32 does for these kinds. */
#include "base/base64.h"
#include "schemas/kube/kinds_int.h"

/* ---- the walk ---------------------------------------------------------------------------------
 */

static int default_object(struct arena *a, const struct json *root, const struct kind_type *t,
                          struct json *v);

/* Scalars of the tables are shared (nobody changes a scalar in place); containers are made anew. */
static struct json *fallback_value(struct arena *a, const struct json *fallback)
{
    if (fallback->type == JSON_OBJECT || fallback->type == JSON_ARRAY)
        return json_clone(a, fallback);
    struct json *v = json_null(a);
    if (v) *v = *fallback;
    return v;
}

static int default_below(struct arena *a, const struct json *root, const struct kind_field *f,
                         struct json *v)
{
    int rc = 0;
    if (f->container == HOLDS_ONE)
        return v->type == JSON_OBJECT ? default_object(a, root, f->type, v) : 0;
    if (v->type != (f->container == HOLDS_LIST ? JSON_ARRAY : JSON_OBJECT)) return 0;
    for (size_t i = 0; i < v->count && !rc; i++) {
        struct json *item = f->container == HOLDS_LIST ? v->items[i] : v->members[i].value;
        if (item->type == JSON_OBJECT) rc = default_object(a, root, f->type, item);
    }
    return rc;
}

static int default_object(struct arena *a, const struct json *root, const struct kind_type *t,
                          struct json *v)
{
    int rc = 0;
    for (size_t i = 0; i < t->n_fields && !rc; i++) {
        const struct kind_field *f = &t->fields[i];
        if (f->fallback && !json_get_slice(v, f->name))
            rc = json_set(a, v, f->name, fallback_value(a, f->fallback));
    }
    if (!rc && t->default_by) rc = t->default_by(a, root, v);
    for (size_t i = 0; i < v->count && !rc; i++) {
        if (v->members[i].value->type < JSON_ARRAY) continue;
        const struct kind_field *f = kind_field_find(t, v->members[i].name);
        if (f && f->type && f->type->has_defaults)
            rc = default_below(a, root, f, v->members[i].value);
    }
    return rc;
}

int kind_default(struct arena *a, const struct kind *k, struct json *object)
{
    return object->type == JSON_OBJECT ? default_object(a, object, k->type, object) : ERR_INVALID;
}

/* ---- helpers ----------------------------------------------------------------------------------
 */

static int set_default(struct arena *a, struct json *v, const char *name, struct json *value)
{
    return json_get(v, name) ? 0 : json_set_str(a, v, name, value);
}

static bool is_set(const struct json *v, const char *name)
{
    const struct json *x = json_get(v, name);
    return x && x->type != JSON_NULL && !(x->type == JSON_STRING && x->text.len == 0);
}

/* ---- Pods -------------------------------------------------------------------------------------
 */

/* An image without a tag, or with the tag "latest", is pulled each time. */
static bool pulls_always(struct slice image)
{
    if (slice_index(image, '@') >= 0) return false;
    ptrdiff_t slash;
    while ((slash = slice_index(image, '/')) >= 0)
        image = slice_sub(image, (size_t)slash + 1, image.len);
    ptrdiff_t colon = slice_index(image, ':');
    return colon < 0 ||
           slice_eq(slice_sub(image, (size_t)colon + 1, image.len), SLICE_LIT("latest"));
}

static int default_container(struct arena *a, const struct json *root, struct json *c)
{
    (void)root;
    bool always = pulls_always(json_text(json_get(c, "image")));
    return set_default(a, c, "imagePullPolicy", json_str(a, always ? "Always" : "IfNotPresent"));
}

static int default_volume(struct arena *a, const struct json *root, struct json *v)
{
    (void)root;
    size_t sources = v->count - (json_get(v, "name") != NULL);
    return sources ? 0 : json_set_str(a, v, "emptyDir", json_object(a));
}

/* Two names for one thing: the old one follows the new one. Ports of the host's network are the
 * host's. */
static int default_pod_spec(struct arena *a, const struct json *root, struct json *spec)
{
    (void)root;
    struct json *name = json_get(spec, "serviceAccountName"),
                *old = json_get(spec, "serviceAccount");
    int rc = 0;
    if (name) rc = json_set_str(a, spec, "serviceAccount", name);
    else if (old) rc = json_set_str(a, spec, "serviceAccountName", old);
    if (rc || !json_path_bool(spec, "hostNetwork", false)) return rc;
    static const char *const lists[] = {"containers", "initContainers"};
    for (size_t l = 0; l < 2; l++) {
        const struct json *containers = json_get(spec, lists[l]);
        for (size_t i = 0; containers && i < containers->count; i++) {
            const struct json *ports = json_get(json_at(containers, i), "ports");
            for (size_t p = 0; ports && p < ports->count && !rc; p++) {
                struct json *port = json_at(ports, p), *number = json_get(port, "containerPort");
                if (number) rc = set_default(a, port, "hostPort", number);
            }
        }
    }
    return rc;
}

/* What is limited but not requested is requested at its limit. */
static int requests_from_limits(struct arena *a, struct json *holder)
{
    struct json *resources = json_get(holder, "resources");
    const struct json *limits = json_get(resources, "limits");
    int rc = 0;
    if (!limits || limits->type != JSON_OBJECT || !limits->count) return 0;
    struct json *requests = json_get(resources, "requests");
    if (!requests) {
        requests = json_object(a);
        rc = json_set_str(a, resources, "requests", requests);
    }
    for (size_t i = 0; i < limits->count && !rc; i++) {
        const struct json_member *m = &limits->members[i];
        if (!json_get_slice(requests, m->name)) rc = json_set(a, requests, m->name, m->value);
    }
    return rc;
}

static int default_pod(struct arena *a, const struct json *root, struct json *pod)
{
    (void)root;
    static const char *const lists[] = {"containers", "initContainers"};
    struct json *spec = json_get(pod, "spec");
    int rc = set_default(a, spec, "enableServiceLinks", json_bool(a, true));
    for (size_t l = 0; l < 2; l++) {
        const struct json *containers = json_get(spec, lists[l]);
        for (size_t i = 0; containers && i < containers->count && !rc; i++)
            rc = requests_from_limits(a, json_at(containers, i));
    }
    if (rc) return rc;
    struct json *status = json_get(pod, "status"); /* made by the walk just before */
    return set_default(a, status, "phase", json_str(a, "Pending"));
}

/* ---- Services ---------------------------------------------------------------------------------
 */

static int default_service_port(struct arena *a, const struct json *root, struct json *port)
{
    (void)root;
    struct json *target = json_get(port, "targetPort"), *number = json_get(port, "port");
    int64_t i;
    bool zero = target && ((json_to_int(target, &i) && i == 0) ||
                           (target->type == JSON_STRING && target->text.len == 0));
    return number && (!target || zero) ? json_set_str(a, port, "targetPort", number) : 0;
}

static int default_affinity(struct arena *a, struct json *spec)
{
    const struct json *affinity = json_get(spec, "sessionAffinity");
    if (json_is_str(affinity, "None")) json_remove(spec, SLICE_LIT("sessionAffinityConfig"));
    if (!json_is_str(affinity, "ClientIP")) return 0;
    struct json *config = json_get(spec, "sessionAffinityConfig");
    if (!config) {
        config = json_object(a);
        int rc = json_set_str(a, spec, "sessionAffinityConfig", config);
        if (rc) return rc;
    }
    return set_default(a, config, "clientIP", json_object(a));
}

/* An address list and its first element say the same; families follow the address. */
static int default_addresses(struct arena *a, struct json *spec)
{
    struct json *ip = json_get(spec, "clusterIP"), *list = json_get(spec, "clusterIPs");
    int rc = 0;
    if (!ip && json_at(list, 0)) rc = json_set_str(a, spec, "clusterIP", ip = json_at(list, 0));
    if (!rc && ip && (!list || !list->count)) {
        list = json_array(a);
        rc = json_set_str(a, spec, "clusterIPs", list);
        if (!rc) rc = json_push(a, list, ip);
    }
    if (!rc) rc = set_default(a, spec, "ipFamilyPolicy", json_str(a, "SingleStack"));
    if (rc || json_get(spec, "ipFamilies")) return rc;
    bool v6 = slice_index(json_text(ip), ':') >= 0;
    struct json *families = json_array(a);
    rc = json_set_str(a, spec, "ipFamilies", families);
    return rc ? rc : json_push(a, families, json_str(a, v6 ? "IPv6" : "IPv4"));
}

static int default_service_spec(struct arena *a, const struct json *root, struct json *spec)
{
    (void)root;
    const struct json *type = json_get(spec, "type");
    bool balancer = json_is_str(type, "LoadBalancer");
    bool external = json_is_str(type, "ExternalName");
    int rc = default_affinity(a, spec);
    if (rc || external) return rc;
    if (balancer || json_is_str(type, "NodePort"))
        rc = set_default(a, spec, "externalTrafficPolicy", json_str(a, "Cluster"));
    if (!rc) rc = set_default(a, spec, "internalTrafficPolicy", json_str(a, "Cluster"));
    if (!rc && balancer)
        rc = set_default(a, spec, "allocateLoadBalancerNodePorts", json_bool(a, true));
    return rc ? rc : default_addresses(a, spec);
}

/* ---- the others -------------------------------------------------------------------------------
 */

static int default_strategy(struct arena *a, const struct json *root, struct json *strategy)
{
    (void)root;
    if (!json_is_str(json_get(strategy, "type"), "RollingUpdate")) return 0;
    return set_default(a, strategy, "rollingUpdate", json_object(a));
}

/* A new Namespace is held by a finalizer until it is empty, and labelled with its name. */
static int default_namespace(struct arena *a, const struct json *root, struct json *ns)
{
    (void)root;
    struct json *meta = json_get(ns, "metadata"), *spec = json_get(ns, "spec");
    int rc = 0;
    if (is_set(meta, "name")) {
        struct json *labels = json_get(meta, "labels");
        if (!labels) rc = json_set_str(a, meta, "labels", labels = json_object(a));
        if (!rc) rc = set_default(a, labels, "kubernetes.io/metadata.name", json_get(meta, "name"));
    }
    if (rc || is_set(meta, "uid") || json_get(spec, "finalizers")) return rc;
    struct json *finalizers = json_array(a);
    rc = json_set_str(a, spec, "finalizers", finalizers);
    return rc ? rc : json_push(a, finalizers, json_str(a, "kubernetes"));
}

static int default_node(struct arena *a, const struct json *root, struct json *node)
{
    (void)root;
    struct json *status = json_get(node, "status");
    const struct json *capacity = json_get(status, "capacity");
    if (!capacity || json_get(status, "allocatable")) return 0;
    return json_set_str(a, status, "allocatable", json_clone(a, capacity));
}

static struct json *base64_of(struct arena *a, struct slice in)
{
    const char *text = base64_encode(a, in);
    return text ? json_str(a, text) : NULL;
}

/* stringData is only for writing: it goes into data, over what is there. */
static int default_secret(struct arena *a, const struct json *root, struct json *secret)
{
    (void)root;
    const struct json *plain = json_get(secret, "stringData");
    if (!plain || plain->type != JSON_OBJECT) return 0;
    struct json *data = json_get(secret, "data");
    int rc = 0;
    if (!data) rc = json_set_str(a, secret, "data", data = json_object(a));
    for (size_t i = 0; i < plain->count && !rc; i++)
        rc = json_set(a, data, plain->members[i].name,
                      base64_of(a, json_text(plain->members[i].value)));
    if (!rc) json_remove(secret, SLICE_LIT("stringData"));
    return rc;
}

kind_default_fn kind_default_by_name(struct slice name)
{
    static const struct {
        const char *name;
        kind_default_fn fn;
    } functions[] = {
        {"container", default_container},
        {"volume", default_volume},
        {"pod-spec", default_pod_spec},
        {"pod", default_pod},
        {"service-port", default_service_port},
        {"service-spec", default_service_spec},
        {"strategy", default_strategy},
        {"namespace", default_namespace},
        {"node", default_node},
        {"secret", default_secret},
    };
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (slice_eq_str(name, functions[i].name)) return functions[i].fn;
    return NULL;
}
