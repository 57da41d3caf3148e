/* DELETE of one object.
 *
 *   goes at once ------ no finalizers, no grace period left
 *   is marked --------- deletionTimestamp set, kept until its finalizers are gone, its agent has stopped it (pods), or its content
 *                       is removed (namespaces)
 *
 * Orphan and foreground propagation are finalizers for the garbage collector. */
#include "api/kube/kube_int.h"
#include "base/clock.h"

#define SHOW(s) (int)(s).len, (const char *)(s).data

struct delete_options {
    bool has_grace;
    int64_t grace_s;
    bool has_uid, has_version;   /* preconditions: what is given counts, even if it is empty */
    struct slice uid, version;
    struct slice propagation;    /* "Orphan", "Background", "Foreground" or empty */
    bool cascade_asked;          /* orphanDependents=false: 202 when the object stays */
    bool was_deleted;
};

/* So that it can be added to any time. A negative one counts as the shortest. */
static int64_t bounded_grace(int64_t grace_s)
{
    if (grace_s < 0) return 1;
    return grace_s > INT32_MAX ? INT32_MAX : grace_s;
}

/* ---- options ---------------------------------------------------------------------------------- */

static int options_from_query(struct kube_request *q, struct delete_options *o)
{
    bool orphan = false;
    o->has_grace = query_get(&q->query, "gracePeriodSeconds").len != 0;
    if (query_int(&q->query, "gracePeriodSeconds", &o->grace_s)) {
        return status_bad_request(&q->status, "invalid value for gracePeriodSeconds");
    }
    o->propagation = query_get(&q->query, "propagationPolicy");
    if (query_bool(&q->query, "orphanDependents", &orphan)) {
        return status_bad_request(&q->status, "invalid value for orphanDependents");
    }
    if (query_has(&q->query, "orphanDependents")) {
        if (o->propagation.len) goto both;
        if (orphan) o->propagation = SLICE_LIT("Orphan");
        o->cascade_asked = !orphan;
    }
    return 0;
both:
    return status_invalid_options(&q->status, "meta.k8s.io", "DeleteOptions", "FieldValueInvalid", "propagationPolicy",
                                  "Invalid value: \"%.*s\": orphanDependents and deletionPropagation cannot be both set",
                                  SHOW(o->propagation));
}

/* A text that may be left out. What is there and is no text is refused: a condition is never dropped silently. */
static int text_option(struct kube_request *q, const struct json *from, const char *name, bool *ret_has, struct slice *ret)
{
    const struct json *v = json_get(from, name);
    if (!v || v->type == JSON_NULL) return 0;
    if (v->type != JSON_STRING) return status_bad_request(&q->status, "%s must be a string", name);
    *ret_has = true;
    *ret = v->text;
    return 0;
}

static int preconditions_from_body(struct kube_request *q, struct delete_options *o, const struct json *body)
{
    const struct json *v = json_get(body, "preconditions");
    if (!v || v->type == JSON_NULL) return 0;
    if (v->type != JSON_OBJECT) return status_bad_request(&q->status, "preconditions must be an object");
    int code = text_option(q, v, "uid", &o->has_uid, &o->uid);
    return code ? code : text_option(q, v, "resourceVersion", &o->has_version, &o->version);
}

static int dry_run_from_body(struct kube_request *q, const struct json *body)
{
    const struct json *dry = json_get(body, "dryRun");
    if (!dry || dry->type == JSON_NULL) return 0;
    if (dry->type != JSON_ARRAY) return status_bad_request(&q->status, "dryRun must be a list of strings");
    for (size_t i = 0; i < dry->count; i++) {
        const struct json *v = json_at(dry, i);
        if (v->type != JSON_STRING) return status_bad_request(&q->status, "dryRun must be a list of strings");
        if (!json_is_str(v, "All")) {
            return status_invalid_options(&q->status, "meta.k8s.io", "DeleteOptions", "FieldValueNotSupported", "dryRun",
                                          "Unsupported value: \"%.*s\": supported values: \"All\"", SHOW(v->text));
        }
        q->dry_run = true;
    }
    return 0;
}

static int propagation_from_body(struct kube_request *q, struct delete_options *o, const struct json *body)
{
    const struct json *orphan = json_get(body, "orphanDependents");
    bool has_policy = false;
    int code = text_option(q, body, "propagationPolicy", &has_policy, &o->propagation);
    if (code || !orphan || orphan->type == JSON_NULL) return code;
    if (orphan->type != JSON_BOOL) return status_bad_request(&q->status, "orphanDependents must be a boolean");
    if (o->propagation.len) {
        return status_invalid_options(&q->status, "meta.k8s.io", "DeleteOptions", "FieldValueInvalid", "propagationPolicy",
                                      "Invalid value: \"%.*s\": orphanDependents and deletionPropagation cannot be both set",
                                      SHOW(o->propagation));
    }
    if (orphan->boolean) o->propagation = SLICE_LIT("Orphan");
    o->cascade_asked = !orphan->boolean;
    return 0;
}

static int options_from_body(struct kube_request *q, struct delete_options *o, const struct json *body)
{
    const struct json *grace = json_get(body, "gracePeriodSeconds"), *kind = json_get(body, "kind");
    if (body->type != JSON_OBJECT || (kind && !json_is_str(kind, "DeleteOptions"))) {
        return status_bad_request(&q->status, "decoded object cannot be converted to DeleteOptions");
    }
    o->has_grace = grace && grace->type != JSON_NULL;
    if (o->has_grace && !json_to_int(grace, &o->grace_s)) {
        return status_bad_request(&q->status, "gracePeriodSeconds must be an integer");
    }
    int code = preconditions_from_body(q, o, body);
    if (!code) code = propagation_from_body(q, o, body);
    return code ? code : dry_run_from_body(q, body);
}

int delete_options_parse(struct kube_request *q, const struct json *body)
{
    struct delete_options *o = arena_calloc(&q->arena, 1, sizeof(*o));
    if (!o) return status_nomem(&q->status);
    int code = body ? options_from_body(q, o, body) : options_from_query(q, o);
    if (code) return code;
    struct slice p = o->propagation;
    if (p.len && !slice_eq_str(p, "Orphan") && !slice_eq_str(p, "Background") && !slice_eq_str(p, "Foreground")) {
        return status_invalid_options(&q->status, "meta.k8s.io", "DeleteOptions", "FieldValueNotSupported", "propagationPolicy",
                                      "Unsupported value: \"%.*s\": supported values: \"Foreground\", \"Background\", "
                                      "\"Orphan\", \"nil\"", SHOW(p));
    }
    o->grace_s = bounded_grace(o->grace_s);
    q->delete_options = o;
    return 0;
}

/* ---- what happens to the object --------------------------------------------------------------- */

static int check_preconditions(struct kube_request *q, const struct json *object)
{
    const struct delete_options *o = q->delete_options;
    struct slice uid = json_path_text(object, "metadata.uid"), version = json_path_text(object, "metadata.resourceVersion");
    if (o->has_uid && !slice_eq(o->uid, uid)) {
        return status_conflict(&q->status, q->route.kind, q->route.name,
                               "the UID in the precondition (%.*s) does not match the UID in record (%.*s). The object might "
                               "have been deleted and then recreated", SHOW(o->uid), SHOW(uid));
    }
    if (o->has_version && !slice_eq(o->version, version)) {
        return status_conflict(&q->status, q->route.kind, q->route.name,
                               "the ResourceVersion in the precondition (%.*s) does not match the ResourceVersion in record "
                               "(%.*s). The object might have been modified", SHOW(o->version), SHOW(version));
    }
    return 0;
}

static bool drop_text(struct json *list, const char *text)
{
    for (size_t i = 0; list && i < list->count; i++) {
        if (json_is_str(json_at(list, i), text)) {
            json_remove_at(list, i);
            return true;
        }
    }
    return false;
}

/* metadata.finalizers as the propagation policy wants them; *ret_left: how many there are. */
static int set_finalizers(struct kube_request *q, struct json *meta, size_t *ret_left)
{
    struct arena *a = &q->arena;
    struct slice policy = q->delete_options->propagation;
    struct json *list = json_get(meta, "finalizers");
    const char *wanted = NULL;
    if (slice_eq_str(policy, "Orphan")) wanted = "orphan";
    if (slice_eq_str(policy, "Foreground")) wanted = "foregroundDeletion";
    if (policy.len) {
        drop_text(list, "orphan");
        drop_text(list, "foregroundDeletion");
    }
    if (wanted) {
        if (!list) list = json_array(a);
        if (!list || json_push(a, list, json_str(a, wanted)) || json_set_str(a, meta, "finalizers", list)) {
            return status_nomem(&q->status);
        }
    }
    *ret_left = list ? list->count : 0;
    if (list && !list->count) json_remove(meta, SLICE_LIT("finalizers"));
    return 0;
}

/* How long this pod may take to stop: its agent deletes it for good after that. */
static int64_t grace_of(const struct kube_request *q, const struct json *object)
{
    const struct delete_options *o = q->delete_options;
    struct slice phase = json_path_text(object, "status.phase");
    if (!kind_is(q->route.kind, "", "Pod")) return 0;
    if (!json_path_text(object, "spec.nodeName").len) return 0;
    if (slice_eq_str(phase, "Succeeded") || slice_eq_str(phase, "Failed")) return 0;
    if (o->has_grace) return o->grace_s;
    return bounded_grace(json_path_int(object, "spec.terminationGracePeriodSeconds", 30));
}

static int mark(struct kube_request *q, struct json *object, int64_t when_s, int64_t grace_s)
{
    struct arena *a = &q->arena;
    struct json *meta = json_get(object, "metadata");
    char *text = arena_alloc(a, 32);
    if (!text) return status_nomem(&q->status);
    kube_time(when_s, text);
    int64_t generation = json_path_int(object, "metadata.generation", 0);
    bool first = !json_get(meta, "deletionTimestamp");
    if (json_set_str(a, meta, "deletionTimestamp", json_str(a, text)) ||
        json_set_str(a, meta, "deletionGracePeriodSeconds", json_int(a, grace_s)) ||
        (first && generation > 0 && json_set_str(a, meta, "generation", json_int(a, generation + 1)))) {
        return status_nomem(&q->status);
    }
    return 0;
}

static int keep(struct kube_request *q)
{
    q->mut.value = record_value(q->mut.object);
    q->mut.action = MUTATE_KEEP;
    return 0;
}

/* A pod that is being deleted already: the time that is left can only get shorter. `ret_done`: nothing more to decide. */
static int shorten(struct kube_request *q, struct json *object, int64_t now_s, int64_t *grace, bool *ret_done)
{
    const struct delete_options *o = q->delete_options;
    int64_t had = bounded_grace(json_path_int(object, "metadata.deletionGracePeriodSeconds", 0)), when;
    *ret_done = false;
    *grace = 0;
    if (had == 0) return 0;
    if (!o->has_grace || o->grace_s >= had) {
        *ret_done = true;
        return keep(q);
    }
    if (kube_time_parse(json_path_text(object, "metadata.deletionTimestamp"), &when)) when = now_s + had;
    when = when - had + o->grace_s;
    *grace = o->grace_s;
    if (when < now_s) {
        when = now_s;
        if (*grace) *grace = 1;
    }
    return mark(q, object, when, *grace);
}

static int put_or_delete(struct kube_request *q, struct json *object, bool stays)
{
    int code = mutate_put(q, object);
    if (code || stays) return code;
    q->delete_options->was_deleted = true;
    q->mut.action = MUTATE_DELETE;
    return kind_is(q->route.kind, "", "Service") ? service_release(q, object) : 0;
}

static int delete_namespace(struct kube_request *q, struct json *object, size_t finalizers)
{
    static const char *const immortal[] = {"default", "kube-system", "kube-public"};
    const struct json *list = json_path(object, "spec.finalizers");
    bool marked = json_path_text(object, "metadata.deletionTimestamp").len != 0;
    for (size_t i = 0; i < sizeof(immortal) / sizeof(*immortal); i++) {
        if (slice_eq_str(q->route.name, immortal[i])) {
            return status_forbidden(&q->status, q->route.kind, q->route.name, "this namespace may not be deleted");
        }
    }
    bool stays = finalizers || (list && list->count);
    if (marked && stays) return keep(q);
    int code = 0;
    if (!marked) {
        struct json *status = json_get(object, "status");
        code = mark(q, object, clock_wall_ms() / 1000, 0);
        json_remove(json_get(object, "metadata"), SLICE_LIT("deletionGracePeriodSeconds"));
        if (!status) {
            status = json_object(&q->arena);
            if (!status || json_set_str(&q->arena, object, "status", status)) return status_nomem(&q->status);
        }
        if (json_set_str(&q->arena, status, "phase", json_str(&q->arena, "Terminating"))) return status_nomem(&q->status);
    }
    return code ? code : put_or_delete(q, object, stays);
}

int delete_compute(struct kube_request *q)
{
    struct json *object;
    int64_t now_s = clock_wall_ms() / 1000, grace;
    size_t finalizers = 0;
    bool done = false;
    q->delete_options->was_deleted = false;
    int code = mutate_current(q, &object);
    if (!code) code = check_preconditions(q, object);
    if (code) return code;
    bool marked = json_path_text(object, "metadata.deletionTimestamp").len != 0;
    bool pod = kind_is(q->route.kind, "", "Pod");
    grace = grace_of(q, object);
    if (marked && pod) {
        code = shorten(q, object, now_s, &grace, &done);
        if (code || done) return code;
    }
    code = set_finalizers(q, json_get(object, "metadata"), &finalizers);
    if (code) return code;
    if (kind_is(q->route.kind, "", "Namespace")) return delete_namespace(q, object, finalizers);
    bool stays = finalizers || grace > 0;
    if (!marked && (stays || pod)) code = mark(q, object, now_s + grace, grace);
    return code ? code : put_or_delete(q, object, stays);
}

bool delete_during_update(const struct kind *k, const struct json *object, const struct json *old)
{
    const struct json *finalizers = json_path(object, "metadata.finalizers");
    const struct json *spec_finalizers = json_path(object, "spec.finalizers");
    if (!json_path_text(old, "metadata.deletionTimestamp").len) return false;
    if (finalizers && finalizers->count) return false;
    if (kind_is(k, "", "Namespace") && spec_finalizers && spec_finalizers->count) return false;
    if (json_path_int(old, "metadata.deletionGracePeriodSeconds", 0) != 0) return false;
    return true;
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void respond_success(struct kube_request *q, int code)
{
    struct status s;
    struct json *object;
    struct buf b;
    status_init(&s, &q->arena);
    s.success = true;
    status_details(&s, q->route.kind, q->route.name);
    if (object_parse(&q->arena, q->mut.value, 0, &object) == 0) {
        s.uid = arena_strdup(&q->arena, json_path_text(object, "metadata.uid"));
    }
    buf_init(&b, 64 * LIMIT_KiB);
    status_write(&b, &s);
    respond_bytes(q, code, "application/json", buf_slice(&b));
    buf_release(&b);
}

static void delete_finish(struct kube_request *q)
{
    const struct delete_options *o = q->delete_options;
    if (o->was_deleted && !kind_returns_deleted(q->route.kind)) {
        respond_success(q, 200);
        return;
    }
    respond_stored(q, !o->was_deleted && o->cascade_asked ? 202 : 200, q->mut.value, q->mut.revision);
}

void delete_handle(struct kube_request *q)
{
    struct json *body = NULL;
    int code = q->body.len ? request_body(q, &body) : 0;
    if (!code) code = delete_options_parse(q, body);
    if (code) {
        respond_status(q);
        return;
    }
    q->mut.key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name);
    q->mut.compute = delete_compute;
    q->mut.finish = delete_finish;
    mutate_start(q);
}
