/* What a kind does beyond its data, on its way into the store: the pod's service account, tolerations and priority, the namespace's
 * finalizer, service addresses; and who keeps spec and status apart. One place, so that the rest stays
 * generic. */
#include "api/kube/kube_int.h"

bool kind_is(const struct kind *k, const char *group, const char *kind)
{
    return strcmp(k->group, group) == 0 && strcmp(k->kind, kind) == 0;
}

/* Kinds outside the core group count generations of their spec. */
bool kind_has_generation(const struct kind *k)
{
    return (k->subresources & KIND_STATUS) && k->group[0];
}

bool kind_allows_create_on_update(const struct kind *k)
{
    return kind_is(k, "", "Service") || kind_is(k, "", "Endpoints") || kind_is(k, "", "Event") ||
           kind_is(k, "coordination.k8s.io", "Lease");
}

bool kind_needs_version_on_update(const struct kind *k)
{
    return kind_is(k, "coordination.k8s.io", "Lease");
}

bool kind_returns_deleted(const struct kind *k)
{
    return kind_is(k, "", "Pod") || kind_is(k, "", "Service") || kind_is(k, "", "ServiceAccount");
}

/* ---- small tools ------------------------------------------------------------------------------ */

static int set(struct kube_request *q, struct json *object, const char *name, struct json *value)
{
    if (!value || json_set_str(&q->arena, object, name, value)) return status_nomem(&q->status);
    return 0;
}

static int set_default(struct kube_request *q, struct json *object, const char *name, struct json *value)
{
    return json_get(object, name) ? 0 : set(q, object, name, value);
}

/* The object member of that name, made if it is missing; NULL: out of memory. */
static struct json *child(struct kube_request *q, struct json *object, const char *name)
{
    struct json *v = json_get(object, name);
    if (v && v->type == JSON_OBJECT) return v;
    v = json_object(&q->arena);
    return v && json_set_str(&q->arena, object, name, v) == 0 ? v : NULL;
}

static int copy_member(struct kube_request *q, struct json *to, const struct json *from, const char *name)
{
    struct json *v = json_get(from, name);
    if (v) return set(q, to, name, v);
    json_remove(to, slice_str(name));
    return 0;
}

/* ---- pods ------------------------------------------------------------------------------------- */

static int64_t milli(const struct json *resources, const char *list, const char *name)
{
    int64_t v = 0;
    struct slice text = json_text(json_get(json_get(resources, list), name));
    const struct json *raw = json_get(json_get(resources, list), name);
    if (!text.len && raw && raw->type == JSON_NUMBER) text = raw->text;
    return text.len && quantity_parse(text, &v) ? v : 0;
}

const char *pod_qos_class(const struct json *pod)
{
    static const char *const names[] = {"cpu", "memory"};
    static const char *const lists[] = {"containers", "initContainers"};
    bool any = false, guaranteed = true;
    for (size_t l = 0; l < 2; l++) {
        const struct json *containers = json_get(json_get(pod, "spec"), lists[l]);
        for (size_t i = 0; containers && i < containers->count; i++) {
            const struct json *resources = json_get(json_at(containers, i), "resources");
            for (size_t n = 0; n < 2; n++) {
                int64_t request = milli(resources, "requests", names[n]), limit = milli(resources, "limits", names[n]);
                if (request > 0 || limit > 0) any = true;
                if (limit <= 0 || (request > 0 && request != limit)) guaranteed = false;
            }
        }
    }
    if (!any) return "BestEffort";
    return guaranteed ? "Guaranteed" : "Burstable";
}

static bool tolerates(const struct json *tolerations, const char *key)
{
    for (size_t i = 0; tolerations && i < tolerations->count; i++) {
        const struct json *t = json_at(tolerations, i);
        struct slice effect = json_text(json_get(t, "effect")), have = json_text(json_get(t, "key"));
        bool effect_fits = !effect.len || slice_eq_str(effect, "NoExecute");
        if (effect_fits && (!have.len || slice_eq_str(have, key))) return true;
    }
    return false;
}

/* As the DefaultTolerationSeconds admission: five minutes on a node that went away. */
static int add_toleration(struct kube_request *q, struct json *spec, const char *key)
{
    struct arena *a = &q->arena;
    struct json *tolerations = json_get(spec, "tolerations"), *t;
    if (tolerates(tolerations, key)) return 0;
    if (!tolerations || tolerations->type != JSON_ARRAY) {
        tolerations = json_array(a);
        if (!tolerations || json_set_str(a, spec, "tolerations", tolerations)) return status_nomem(&q->status);
    }
    t = json_object(a);
    if (!t || json_set_str(a, t, "key", json_str(a, key)) || json_set_str(a, t, "operator", json_str(a, "Exists")) ||
        json_set_str(a, t, "effect", json_str(a, "NoExecute")) ||
        json_set_str(a, t, "tolerationSeconds", json_int(a, 300)) || json_push(a, tolerations, t)) {
        return status_nomem(&q->status);
    }
    return 0;
}

static int pod_priority(struct kube_request *q, struct json *spec)
{
    static const struct {
        const char *name;
        int64_t value;
    } classes[] = {{"", 0}, {"system-cluster-critical", 2000000000}, {"system-node-critical", 2000001000}};
    struct slice name = json_text(json_get(spec, "priorityClassName"));
    for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++) {
        if (!slice_eq_str(name, classes[i].name)) continue;
        int code = set(q, spec, "priority", json_int(&q->arena, classes[i].value));
        return code ? code : set_default(q, spec, "preemptionPolicy", json_str(&q->arena, "PreemptLowerPriority"));
    }
    return status_forbidden(&q->status, q->route.kind, q->route.name, "no PriorityClass with name %.*s was found",
                            (int)name.len, (const char *)name.data);
}

static int pod_create(struct kube_request *q, struct json *pod)
{
    struct arena *a = &q->arena;
    struct json *spec = child(q, pod, "spec"), *status = json_object(a);
    if (!spec || !status) return status_nomem(&q->status);
    struct json *account = json_get(spec, "serviceAccountName");
    if (!json_text(account).len) account = json_get(spec, "serviceAccount");
    if (!json_text(account).len) account = json_str(a, "default");
    int code = set(q, spec, "serviceAccountName", account);
    if (!code) code = set(q, spec, "serviceAccount", account);
    if (!code) code = add_toleration(q, spec, "node.kubernetes.io/not-ready");
    if (!code) code = add_toleration(q, spec, "node.kubernetes.io/unreachable");
    if (!code) code = pod_priority(q, spec);
    if (!code) code = set(q, status, "phase", json_str(a, "Pending"));
    if (!code) code = set(q, status, "qosClass", json_str(a, pod_qos_class(pod)));
    if (!code) code = set(q, pod, "status", status);
    return code;
}

/* ---- namespaces, secrets ---------------------------------------------------------------------- */

static int namespace_create(struct kube_request *q, struct json *ns)
{
    struct arena *a = &q->arena;
    struct json *spec = child(q, ns, "spec"), *status = child(q, ns, "status"), *meta = child(q, ns, "metadata");
    struct json *labels = meta ? child(q, meta, "labels") : NULL;
    if (!spec || !status || !labels) return status_nomem(&q->status);
    struct json *finalizers = json_get(spec, "finalizers");
    if (!finalizers) finalizers = json_array(a);
    bool there = false;
    for (size_t i = 0; finalizers && i < finalizers->count; i++) there |= json_is_str(json_at(finalizers, i), "kubernetes");
    if (!finalizers || (!there && json_push(a, finalizers, json_str(a, "kubernetes")))) return status_nomem(&q->status);
    int code = set(q, spec, "finalizers", finalizers);
    if (!code) code = set(q, status, "phase", json_str(a, "Active"));
    if (!code) code = set(q, labels, "kubernetes.io/metadata.name", json_get(meta, "name"));
    return code;
}

/* ---- create ----------------------------------------------------------------------------------- */

static int fresh_status(struct kube_request *q, struct json *object)
{
    const struct kind *k = q->route.kind;
    struct json *status = json_object(&q->arena);
    int code = status ? 0 : status_nomem(&q->status);
    if (!code && kind_is(k, "apps", "ReplicaSet")) code = set(q, status, "replicas", json_int(&q->arena, 0));
    if (!code && kind_is(k, "", "Service")) code = set(q, status, "loadBalancer", json_object(&q->arena));
    return code ? code : set(q, object, "status", status);
}

int strategy_create(struct kube_request *q, struct json *object)
{
    const struct kind *k = q->route.kind;
    int code = 0;
    if (kind_is(k, "", "Pod")) return pod_create(q, object);
    if (kind_is(k, "", "Namespace")) return namespace_create(q, object);
    if (kind_is(k, "", "Node")) return 0; /* an agent may bring its status along */
    if (k->subresources & KIND_STATUS) code = fresh_status(q, object);
    if (!code && kind_is(k, "", "Service")) code = service_allocate(q, object, NULL);
    return code;
}

/* ---- update ----------------------------------------------------------------------------------- */

/* PUT .../status: everything but status and metadata stays as it was. */
static int update_status(struct kube_request *q, struct json *object, struct json *old)
{
    const struct kind *k = q->route.kind;
    struct json *meta = json_get(object, "metadata"), *old_meta = json_get(old, "metadata");
    int code = 0;
    for (size_t i = object->count; !code && i-- > 0;) {
        struct slice name = object->members[i].name;
        if (slice_eq_str(name, "kind") || slice_eq_str(name, "apiVersion") || slice_eq_str(name, "metadata") ||
            slice_eq_str(name, "status") || json_get_slice(old, name)) {
            continue;
        }
        json_remove(object, name);
    }
    for (size_t i = 0; !code && i < old->count; i++) {
        struct slice name = old->members[i].name;
        if (slice_eq_str(name, "metadata") || slice_eq_str(name, "status")) continue;
        if (json_set(&q->arena, object, name, old->members[i].value)) code = status_nomem(&q->status);
    }
    if (!code) code = copy_member(q, meta, old_meta, "ownerReferences");
    if (!code && k->group[0]) code = copy_member(q, meta, old_meta, "labels");
    if (!code && kind_is(k, "", "Pod") && json_get(object, "status")) {
        code = copy_member(q, json_get(object, "status"), json_get(old, "status"), "qosClass");
    }
    return code;
}

/* PUT .../finalize of a namespace: spec.finalizers and nothing else. */
static int update_finalize(struct kube_request *q, struct json *object, struct json *old)
{
    struct json *spec = json_get(object, "spec"), *finalizers = json_get(spec, "finalizers");
    struct json *kept = child(q, old, "spec");
    struct json *fresh = json_object(&q->arena);
    if (!fresh || !kept) return status_nomem(&q->status);
    for (size_t i = 0; i < kept->count; i++) {
        if (slice_eq_str(kept->members[i].name, "finalizers")) continue;
        if (json_set(&q->arena, fresh, kept->members[i].name, kept->members[i].value)) return status_nomem(&q->status);
    }
    if (finalizers && json_set_str(&q->arena, fresh, "finalizers", finalizers)) return status_nomem(&q->status);
    int code = set(q, object, "spec", fresh);
    return code ? code : copy_member(q, object, old, "status");
}

int strategy_update(struct kube_request *q, struct json *object, struct json *old, struct slice sub)
{
    const struct kind *k = q->route.kind;
    int code = 0;
    if (slice_eq_str(sub, "status")) return update_status(q, object, old);
    if (slice_eq_str(sub, "finalize")) return update_finalize(q, object, old);
    if (k->subresources & KIND_STATUS) code = copy_member(q, object, old, "status");
    if (!code && kind_is(k, "", "Namespace")) {
        struct json *spec = child(q, object, "spec");
        code = spec ? copy_member(q, spec, json_get(old, "spec"), "finalizers") : status_nomem(&q->status);
    }
    if (!code && kind_is(k, "", "Service")) code = service_allocate(q, object, old);
    return code;
}
