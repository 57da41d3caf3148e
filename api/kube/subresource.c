/* The parts of an object with paths of their own: status, scale, binding, eviction, finalize. */
#include "api/kube/kube_int.h"
#include "base/clock.h"

#define SHOW(s) (int)(s).len, (const char *)(s).data

static struct slice query_name(const struct json *body)
{
    return json_path_text(body, "metadata.name");
}

static void respond_created_status(struct kube_request *q)
{
    struct status s;
    struct buf b;
    status_init(&s, &q->arena);
    s.success = true;
    s.code = 201;
    buf_init(&b, 4 * LIMIT_KiB);
    status_write(&b, &s);
    respond_bytes(q, 201, "application/json", buf_slice(&b));
    buf_release(&b);
}

static void start(struct kube_request *q, int (*compute)(struct kube_request *), void (*finish)(struct kube_request *))
{
    q->mut.key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name);
    q->mut.compute = compute;
    q->mut.finish = finish;
    mutate_start(q);
}

/* ---- status, finalize ------------------------------------------------------------------------- */

static int update_sub_compute(struct kube_request *q)
{
    struct json *object, *old;
    int code = request_body(q, &object);
    if (!code) code = mutate_current(q, &old);
    if (!code) code = write_prepare_update(q, &object, old, q->route.sub);
    return code ? code : write_finish_update(q, object, old);
}

/* ---- scale ------------------------------------------------------------------------------------ */

static int copy_text(struct kube_request *q, struct json *to, const struct json *from, const char *name)
{
    struct json *v = json_get(from, name);
    return v && json_set_str(&q->arena, to, name, v) ? ERR_NOMEM : 0;
}

/* autoscaling/v1 Scale of an object with spec.replicas. */
static struct json *scale_of(struct kube_request *q, const struct json *object)
{
    static const char *const kept[] = {"name", "namespace", "uid", "resourceVersion", "creationTimestamp"};
    struct arena *a = &q->arena;
    struct json *out = json_object(a), *meta = json_object(a), *spec = json_object(a), *status = json_object(a);
    struct buf selector;
    if (!out || !meta || !spec || !status) return NULL;
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        if (copy_text(q, meta, json_get(object, "metadata"), kept[i])) return NULL;
    }
    buf_init(&selector, 64 * LIMIT_KiB);
    int code = selector_format(&selector, json_path(object, "spec.selector"));
    struct json *text = json_string_copy(a, buf_slice(&selector));
    buf_release(&selector);
    if (code || !text || json_set_str(a, out, "kind", json_str(a, "Scale")) ||
        json_set_str(a, out, "apiVersion", json_str(a, "autoscaling/v1")) || json_set_str(a, out, "metadata", meta) ||
        json_set_str(a, spec, "replicas", json_int(a, json_path_int(object, "spec.replicas", 0))) ||
        json_set_str(a, status, "replicas", json_int(a, json_path_int(object, "status.replicas", 0))) ||
        json_set_str(a, status, "selector", text) || json_set_str(a, out, "spec", spec) ||
        json_set_str(a, out, "status", status)) {
        return NULL;
    }
    return out;
}

static void respond_scale(struct kube_request *q, struct slice stored, int64_t revision)
{
    struct json *object, *scale = NULL;
    if (object_parse(&q->arena, stored, revision, &object) == 0) scale = scale_of(q, object);
    if (!scale) {
        status_internal(&q->status, "the stored object cannot be decoded");
        respond_status(q);
        return;
    }
    q->format.media = MEDIA_JSON;
    respond_json(q, 200, scale);
}

static void scale_got(struct kube_request *q)
{
    const struct range_result *r = &q->core.result.op.range;
    if (q->core.code) {
        status_core(&q->status, q->core.code, false);
        respond_status(q);
    } else if (!r->n) {
        status_not_found(&q->status, q->route.kind, q->route.name);
        respond_status(q);
    } else {
        respond_scale(q, record_value(r->records[0]), r->records[0]->mod_rev);
    }
}

static void scale_finish(struct kube_request *q)
{
    respond_scale(q, q->mut.value, q->mut.revision);
}

static int invalid_replicas(struct kube_request *q, int64_t n)
{
    status_set(&q->status, 422, "Invalid",
               "Scale.autoscaling \"%.*s\" is invalid: spec.replicas: Invalid value: %lld: must be greater than or equal to 0",
               SHOW(q->route.name), (long long)n);
    status_details(&q->status, NULL, q->route.name);
    q->status.group = "autoscaling";
    q->status.kind = "Scale";
    status_add_cause(&q->status, "FieldValueInvalid", "spec.replicas",
                     "Invalid value: %lld: must be greater than or equal to 0", (long long)n);
    return ERR_INVALID;
}

static int scale_to(struct kube_request *q, struct json *scale, struct json *old)
{
    const struct json *wanted = json_path(scale, "spec.replicas");
    int64_t n = 0;
    struct slice kind = json_text(json_get(scale, "kind"));
    if (scale->type != JSON_OBJECT || (kind.len && !slice_eq_str(kind, "Scale"))) {
        return status_bad_request(&q->status, "expected input object type to be Scale, but %.*s", SHOW(kind));
    }
    if (wanted && (!json_to_int(wanted, &n) || n > INT32_MAX)) {
        return status_bad_request(&q->status, "spec.replicas must be a 32-bit integer");
    }
    if (n < 0) return invalid_replicas(q, n);
    if (query_name(scale).len && !slice_eq(query_name(scale), q->route.name)) {
        return status_bad_request(&q->status, "the name of the object (%.*s) does not match the name on the URL (%.*s)",
                                  SHOW(query_name(scale)), SHOW(q->route.name));
    }
    int code = write_check_version(q, scale, old);
    if (code) return code;
    struct json *object = json_clone(&q->arena, old), *spec = json_get(object, "spec");
    if (!spec || json_set_str(&q->arena, spec, "replicas", json_int(&q->arena, n))) return status_nomem(&q->status);
    code = write_prepare_update(q, &object, old, (struct slice){0});
    return code ? code : write_finish_update(q, object, old);
}

static int scale_put_compute(struct kube_request *q)
{
    struct json *scale, *old;
    int code = request_body(q, &scale);
    if (!code) code = mutate_current(q, &old);
    return code ? code : scale_to(q, scale, old);
}

static int scale_patch_compute(struct kube_request *q)
{
    struct json *old, *scale, *patched;
    int code = mutate_current(q, &old);
    if (code) return code;
    scale = scale_of(q, old);
    if (!scale) return status_nomem(&q->status);
    if (q->body_type == BODY_STRATEGIC_PATCH) q->body_type = BODY_MERGE_PATCH; /* a Scale has no lists to merge */
    code = patch_apply(q, scale, q->body_json, q->route.kind, &patched);
    return code ? code : scale_to(q, patched, old);
}

static void handle_scale(struct kube_request *q)
{
    if (q->verb == VERB_GET) {
        q->core.range = (struct range_op){.key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name)};
        request_core(q, CORE_RANGE, scale_got);
    } else if (q->verb == VERB_UPDATE) {
        start(q, scale_put_compute, scale_finish);
    } else {
        q->mut.compute = scale_patch_compute;
        q->mut.finish = scale_finish;
        patch_handle(q);
    }
}

/* ---- binding ---------------------------------------------------------------------------------- */

static int binding_conflict(struct kube_request *q, const char *why)
{
    status_set(&q->status, 409, "Conflict", "Operation cannot be fulfilled on pods/binding \"%.*s\": %s", SHOW(q->route.name),
               why);
    status_details(&q->status, q->route.kind, q->route.name);
    q->status.kind = "pods/binding";
    return ERR_INVALID;
}

/* status.conditions with PodScheduled=True. */
static int set_scheduled(struct kube_request *q, struct json *pod)
{
    struct arena *a = &q->arena;
    struct json *status = json_get(pod, "status"), *conditions, *c = json_object(a);
    char *now = arena_alloc(a, 32);
    if (!status) {
        status = json_object(a);
        if (!status || json_set_str(a, pod, "status", status)) return ERR_NOMEM;
    }
    conditions = json_get(status, "conditions");
    if (!conditions || conditions->type != JSON_ARRAY) {
        conditions = json_array(a);
        if (!conditions || json_set_str(a, status, "conditions", conditions)) return ERR_NOMEM;
    }
    for (size_t i = conditions->count; i-- > 0;) {
        if (json_is_str(json_get(json_at(conditions, i), "type"), "PodScheduled")) json_remove_at(conditions, i);
    }
    if (!c || !now) return ERR_NOMEM;
    kube_time(clock_wall_ms() / 1000, now);
    bool failed = json_set_str(a, c, "type", json_str(a, "PodScheduled")) ||
                  json_set_str(a, c, "status", json_str(a, "True")) ||
                  json_set_str(a, c, "lastProbeTime", json_null(a)) ||
                  json_set_str(a, c, "lastTransitionTime", json_str(a, now)) || json_push(a, conditions, c);
    return failed ? ERR_NOMEM : 0;
}

static int merge_annotations(struct kube_request *q, struct json *pod, const struct json *binding)
{
    const struct json *extra = json_path(binding, "metadata.annotations");
    struct json *meta = json_get(pod, "metadata"), *have = json_get(meta, "annotations");
    if (!extra || extra->type != JSON_OBJECT || !extra->count) return 0;
    if (!have) {
        have = json_object(&q->arena);
        if (!have || json_set_str(&q->arena, meta, "annotations", have)) return ERR_NOMEM;
    }
    for (size_t i = 0; i < extra->count; i++) {
        if (json_set(&q->arena, have, extra->members[i].name, extra->members[i].value)) return ERR_NOMEM;
    }
    return 0;
}

/* A Binding is no kind that is stored: nothing else has looked at what of it is used. */
static int check_binding_types(struct kube_request *q, const struct json *binding)
{
    static const char *const texts[] = {"metadata.name", "metadata.namespace", "metadata.uid", "target.kind", "target.name"};
    const struct json *annotations = json_path(binding, "metadata.annotations");
    if (binding->type != JSON_OBJECT) return status_bad_request(&q->status, "the body is no Binding");
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        const struct json *v = json_path(binding, texts[i]);
        if (v && v->type != JSON_NULL && v->type != JSON_STRING) {
            return status_bad_request(&q->status, "%s of a Binding must be a string", texts[i]);
        }
    }
    if (!annotations || annotations->type == JSON_NULL) return 0;
    bool bad = annotations->type != JSON_OBJECT;
    for (size_t i = 0; !bad && i < annotations->count; i++) bad = annotations->members[i].value->type != JSON_STRING;
    return bad ? status_bad_request(&q->status, "metadata.annotations of a Binding must be strings") : 0;
}

static int check_binding(struct kube_request *q, const struct json *binding, const struct json *pod)
{
    struct slice node = json_path_text(binding, "target.name"), kind = json_path_text(binding, "target.kind");
    struct slice uid = json_path_text(binding, "metadata.uid"), bound = json_path_text(pod, "spec.nodeName");
    if (kind.len && !slice_eq_str(kind, "Node")) {
        return status_set(&q->status, 422, "Invalid", "Binding \"%.*s\" is invalid: target.kind: Unsupported value: \"%.*s\": "
                          "supported values: \"Node\", \"<empty>\"", SHOW(q->route.name), SHOW(kind));
    }
    if (!node.len) {
        return status_set(&q->status, 422, "Invalid", "Binding \"%.*s\" is invalid: target.name: Required value",
                          SHOW(q->route.name));
    }
    if (!name_is_dns1123_subdomain(node)) {
        return status_set(&q->status, 422, "Invalid", "Binding \"%.*s\" is invalid: target.name: Invalid value: \"%.*s\": a node's "
                          "name must be a lowercase RFC 1123 subdomain", SHOW(q->route.name), SHOW(node));
    }
    if (uid.len && !slice_eq(uid, json_path_text(pod, "metadata.uid"))) {
        return binding_conflict(q, arena_printf(&q->arena, "Precondition failed: UID in precondition: %.*s, UID in object meta: "
                                                "%.*s", SHOW(uid), SHOW(json_path_text(pod, "metadata.uid"))));
    }
    if (json_path_text(pod, "metadata.deletionTimestamp").len) {
        return binding_conflict(q, arena_printf(&q->arena, "pod %.*s is being deleted, cannot be assigned to a host",
                                                SHOW(q->route.name)));
    }
    if (bound.len) {
        return binding_conflict(q, arena_printf(&q->arena, "pod %.*s is already assigned to node \"%.*s\"",
                                                SHOW(q->route.name), SHOW(bound)));
    }
    return 0;
}

static int binding_compute(struct kube_request *q)
{
    struct json *binding, *pod;
    int code = request_body(q, &binding);
    if (!code) code = check_binding_types(q, binding);
    if (!code) code = write_check_names(q, json_get(binding, "metadata"), q->route.ns);
    if (!code) code = mutate_current(q, &pod);
    if (!code) code = check_binding(q, binding, pod);
    if (code) return code;
    struct json *old = json_clone(&q->arena, pod), *spec = json_get(pod, "spec");
    if (!old) return status_nomem(&q->status);
    if (!spec || json_set_str(&q->arena, spec, "nodeName", json_path(binding, "target.name")) || set_scheduled(q, pod) ||
        merge_annotations(q, pod, binding)) {
        return status_nomem(&q->status);
    }
    code = write_validate(q, pod, old);
    return code ? code : mutate_put(q, pod);
}

/* ---- eviction --------------------------------------------------------------------------------- */

static void handle_eviction(struct kube_request *q)
{
    struct json *eviction;
    int code = request_body(q, &eviction);
    struct json *options = code ? NULL : json_get(eviction, "deleteOptions");
    if (!code && eviction->type != JSON_OBJECT) code = status_bad_request(&q->status, "the body is no Eviction");
    if (!code && (!options || options->type == JSON_NULL)) {
        options = json_object(&q->arena);
        if (!options) code = status_nomem(&q->status);
    }
    if (!code) code = delete_options_parse(q, options);
    if (code) {
        respond_status(q);
        return;
    }
    start(q, delete_compute, respond_created_status);
}

/* ---- which one -------------------------------------------------------------------------------- */

void subresource_handle(struct kube_request *q)
{
    struct slice sub = q->route.sub;
    unsigned has = q->route.kind->subresources;
    enum kube_verb v = q->verb;
    bool known = true;
    if (slice_eq_str(sub, "status") && (has & KIND_STATUS)) {
        if (v == VERB_GET) {
            get_handle(q);
            return;
        }
        if (v == VERB_UPDATE) {
            start(q, update_sub_compute, mutate_finish_object);
            return;
        }
        if (v == VERB_PATCH) {
            patch_handle(q);
            return;
        }
    } else if (slice_eq_str(sub, "scale") && (has & KIND_SCALE)) {
        if (v == VERB_GET || v == VERB_UPDATE || v == VERB_PATCH) {
            handle_scale(q);
            return;
        }
    } else if (slice_eq_str(sub, "binding") && (has & KIND_BINDING)) {
        if (v == VERB_CREATE) {
            start(q, binding_compute, respond_created_status);
            return;
        }
    } else if (slice_eq_str(sub, "eviction") && (has & KIND_EVICTION)) {
        if (v == VERB_CREATE) {
            handle_eviction(q);
            return;
        }
    } else if (slice_eq_str(sub, "finalize") && (has & KIND_FINALIZE)) {
        if (v == VERB_UPDATE) {
            start(q, update_sub_compute, mutate_finish_object);
            return;
        }
    } else if (slice_eq_str(sub, "log") && (has & KIND_LOG) && v == VERB_GET) {
        status_set(&q->status, 503, "ServiceUnavailable",
                   "the server is currently unable to handle the request: the agent of this pod's node serves no logs");
        respond_status(q);
        return;
    } else {
        known = false;
    }
    if (known) {
        status_method_not_allowed(&q->status, NULL, NULL);
    } else {
        status_unknown_path(&q->status);
    }
    respond_status(q);
}
