/* CREATE and UPDATE: what a client sent on its way to what is stored. The order is Kubernetes': decode (prune, defaults), the
 * metadata that only the server writes, the kind's own rules, validation. */
#include "api/kube/kube_int.h"
#include "base/clock.h"

#define NAME_SUFFIX 5
#define MAX_GENERATED_BASE (63 - NAME_SUFFIX)
#define SHOW(s) (int)(s).len, (const char *)(s).data

/* ---- decoding --------------------------------------------------------------------------------- */

static int check_type(struct kube_request *q, struct json *object)
{
    const struct kind *k = q->route.kind;
    struct slice api_version = json_text(json_get(object, "apiVersion")), kind = json_text(json_get(object, "kind"));
    if (api_version.len && !slice_eq_str(api_version, k->api_version)) {
        return status_bad_request(&q->status, "the API version in the data (%.*s) does not match the expected API version (%s)",
                                  SHOW(api_version), k->api_version);
    }
    if (kind.len && !slice_eq_str(kind, k->kind)) {
        return status_bad_request(&q->status, "%.*s in version \"%s\" cannot be handled as a %s: the kind in the data does not "
                                  "match the expected kind", SHOW(kind), k->version, k->kind);
    }
    bool failed = json_set_str(&q->arena, object, "kind", json_str(&q->arena, k->kind)) ||
                  json_set_str(&q->arena, object, "apiVersion", json_str(&q->arena, k->api_version));
    return failed ? status_nomem(&q->status) : 0;
}

/* The problems that fieldValidation is about, as one sentence or as warnings. */
static int report_unknown(struct kube_request *q, const struct kind *k, const struct kind_problems *problems)
{
    struct buf b;
    const char *separator = "";
    if (q->validation == FIELDS_IGNORE) return 0;
    buf_init(&b, 16 * LIMIT_KiB);
    for (const struct kind_problem *p = problems->first; p; p = p->next) {
        if (p->type != PROBLEM_UNKNOWN_FIELD) continue;
        if (q->validation == FIELDS_WARN) {
            request_warn(q, p->detail); /* unknown or duplicate field "..." */
        } else {
            buf_printf(&b, "%s%s", separator, p->detail);
            separator = ", ";
        }
    }
    int code = 0;
    if (b.len) {
        code = status_bad_request(&q->status, "%s in version \"%s\" cannot be handled as a %s: strict decoding error: %.*s",
                                  k->kind, k->version, k->kind, (int)b.len, (const char *)b.data);
    }
    buf_release(&b);
    return code;
}

int write_prune(struct kube_request *q, const struct kind *k, struct json *object)
{
    struct kind_problems problems;
    kind_problems_init(&problems, &q->arena);
    int code = kind_prune(&q->arena, k, object, &problems);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    for (const struct kind_problem *p = problems.first; p; p = p->next) {
        if (p->type == PROBLEM_UNKNOWN_FIELD) continue;
        const char *text = kind_problem_text(&q->arena, p);
        return status_bad_request(&q->status, "%s in version \"%s\" cannot be handled as a %s: %s", k->kind, k->version,
                                  k->kind, text ? text : "a field has the wrong type");
    }
    if (code) return status_bad_request(&q->status, "%s in version \"%s\" cannot be handled", k->kind, k->version);
    return report_unknown(q, k, &problems);
}

static struct json *metadata_of(struct kube_request *q, struct json *object)
{
    struct json *meta = json_get(object, "metadata");
    if (meta && meta->type == JSON_OBJECT) return meta;
    meta = json_object(&q->arena);
    if (!meta || json_set_str(&q->arena, object, "metadata", meta)) return NULL;
    return meta;
}

static int decode(struct kube_request *q, struct json *object)
{
    if (object->type != JSON_OBJECT) return status_bad_request(&q->status, "the body is no object");
    int code = check_type(q, object);
    if (!code) code = write_prune(q, q->route.kind, object);
    if (code) return code;
    if (!metadata_of(q, object)) return status_nomem(&q->status);
    code = kind_default(&q->arena, q->route.kind, object);
    return code ? status_core(&q->status, code, false) : 0;
}

int write_validate(struct kube_request *q, const struct json *object, const struct json *old)
{
    struct kind_problems problems;
    kind_problems_init(&problems, &q->arena);
    int code = kind_validate(&q->arena, q->route.kind, object, old, &problems);
    if (problems.count) {
        return status_invalid(&q->status, q->route.kind, json_path_text(object, "metadata.name"), &problems);
    }
    return code ? status_core(&q->status, code, false) : 0;
}

static int invalid_field(struct kube_request *q, struct slice name, enum kind_problem_type type, const char *field,
                         const char *bad_value, const char *text)
{
    struct kind_problems problems;
    kind_problems_init(&problems, &q->arena);
    if (kind_problem_add(&problems, type, field, bad_value, "%s", text)) return status_nomem(&q->status);
    return status_invalid(&q->status, q->route.kind, name, &problems);
}

int write_check_names(struct kube_request *q, const struct json *meta, struct slice ns)
{
    const struct kind *k = q->route.kind;
    struct slice name = json_text(json_get(meta, "name")), have = json_text(json_get(meta, "namespace"));
    if (q->route.name.len && name.len && !slice_eq(name, q->route.name)) {
        return status_bad_request(&q->status, "the name of the object (%.*s) does not match the name on the URL (%.*s)",
                                  SHOW(name), SHOW(q->route.name));
    }
    if (have.len && (!k->namespaced || !slice_eq(have, ns))) {
        return status_bad_request(&q->status, "the namespace of the provided object does not match the namespace sent on the "
                                              "request");
    }
    return 0;
}

/* ---- create ----------------------------------------------------------------------------------- */

static const char *generate_name(struct kube_request *q, struct slice base)
{
    static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
    char suffix[NAME_SUFFIX + 1];
    for (size_t i = 0; i < NAME_SUFFIX; i++) suffix[i] = alphabet[kube_random(q->api) % (sizeof(alphabet) - 1)];
    suffix[NAME_SUFFIX] = 0;
    if (base.len > MAX_GENERATED_BASE) base.len = MAX_GENERATED_BASE;
    return arena_printf(&q->arena, "%.*s%s", SHOW(base), suffix);
}

static int set_text(struct kube_request *q, struct json *meta, const char *name, const char *text)
{
    if (!text) return status_nomem(&q->status);
    return json_set_str(&q->arena, meta, name, json_str(&q->arena, text)) ? status_nomem(&q->status) : 0;
}

static int name_object(struct kube_request *q, struct json *meta)
{
    struct slice name = json_text(json_get(meta, "name")), base = json_text(json_get(meta, "generateName"));
    if (name.len) return 0;
    if (q->route.name.len) return set_text(q, meta, "name", arena_strdup(&q->arena, q->route.name));
    if (base.len) return set_text(q, meta, "name", generate_name(q, base));
    return invalid_field(q, name, PROBLEM_REQUIRED, "metadata.name", NULL, "name or generateName is required");
}

static int system_metadata(struct kube_request *q, struct json *meta, struct slice ns)
{
    static const char *const dropped[] = {"deletionTimestamp", "deletionGracePeriodSeconds", "selfLink",
                                          "managedFields",     "resourceVersion",            "generation"};
    char *uid = arena_alloc(&q->arena, 37), *created = arena_alloc(&q->arena, 32);
    if (!uid || !created) return status_nomem(&q->status);
    for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++) json_remove(meta, slice_str(dropped[i]));
    kube_uuid(q->api, uid);
    kube_time(clock_wall_ms() / 1000, created);
    int code = set_text(q, meta, "uid", uid);
    if (!code) code = set_text(q, meta, "creationTimestamp", created);
    if (!code && q->route.kind->namespaced) code = set_text(q, meta, "namespace", arena_strdup(&q->arena, ns));
    if (!code && kind_has_generation(q->route.kind)) {
        if (json_set_str(&q->arena, meta, "generation", json_int(&q->arena, 1))) code = status_nomem(&q->status);
    }
    return code;
}

int write_prepare_create(struct kube_request *q, struct json *object, struct slice ns)
{
    int code = decode(q, object);
    if (code) return code;
    struct json *meta = metadata_of(q, object);
    if (json_text(json_get(meta, "resourceVersion")).len && !slice_eq_str(json_text(json_get(meta, "resourceVersion")), "0")) {
        return status_bad_request(&q->status, "resourceVersion should not be set on objects to be created");
    }
    code = write_check_names(q, meta, ns);
    if (!code) code = name_object(q, meta);
    if (!code) code = system_metadata(q, meta, ns);
    if (!code) code = strategy_create(q, object);
    if (!code) code = write_validate(q, object, NULL);
    return code;
}

int write_check_namespace(struct kube_request *q, struct slice name)
{
    const struct record *r = q->mut.guard;
    struct json *ns;
    const struct kind *k = kind_by_resource((struct slice){0}, SLICE_LIT("v1"), SLICE_LIT("namespaces"));
    if (!q->route.kind->namespaced || !k) return 0;
    if (!r) return status_not_found(&q->status, k, q->route.ns);
    if (object_parse(&q->arena, record_value(r), r->mod_rev, &ns)) {
        return status_internal(&q->status, "the namespace cannot be decoded");
    }
    if (!json_path_text(ns, "metadata.deletionTimestamp").len && !json_is_str(json_path(ns, "status.phase"), "Terminating")) {
        return 0;
    }
    status_forbidden(&q->status, q->route.kind, name,
                     "unable to create new content in namespace %.*s because it is being terminated", SHOW(q->route.ns));
    status_add_cause(&q->status, "NamespaceTerminating", "metadata.namespace", "namespace %.*s is being terminated",
                     SHOW(q->route.ns));
    return ERR_INVALID;
}

static int create_compute(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    struct json *object;
    int code = request_body(q, &object);
    if (!code) code = write_prepare_create(q, object, q->route.ns);
    if (code) return code;
    struct slice name = json_path_text(object, "metadata.name");
    code = write_check_namespace(q, name);
    if (code) return code;
    bool generated = !q->route.name.len && json_path_text(object, "metadata.generateName").len && m->attempts < 8 &&
                     !slice_eq(m->key, key_of(&q->arena, q->route.kind, q->route.ns, name));
    if (generated && m->object) { /* the last name was taken: this is another one */
        record_unref(m->object);
        m->object = NULL;
    }
    if (m->object) return status_exists(&q->status, q->route.kind, name);
    m->key = key_of(&q->arena, q->route.kind, q->route.ns, name);
    return m->key.data ? mutate_put(q, object) : status_nomem(&q->status);
}

static void set_guard(struct kube_request *q)
{
    if (q->route.kind->namespaced) q->mut.guard_key = namespace_key(&q->arena, q->route.ns);
}

void create_handle(struct kube_request *q)
{
    struct json *object;
    if (request_body(q, &object)) {
        respond_status(q);
        return;
    }
    struct slice name = json_path_text(object, "metadata.name");
    if (name.len) q->mut.key = key_of(&q->arena, q->route.kind, q->route.ns, name);
    set_guard(q);
    q->mut.compute = create_compute;
    q->mut.finish = mutate_finish_object;
    mutate_start(q);
}

/* ---- update ----------------------------------------------------------------------------------- */

/* A uid that is given is a condition, on what is missing as well (`old` NULL). */
static int check_uid(struct kube_request *q, const struct json *object, const struct json *old)
{
    struct slice uid = json_path_text(object, "metadata.uid"), have = json_path_text(old, "metadata.uid");
    if (!uid.len || slice_eq(uid, have)) return 0;
    return status_conflict(&q->status, q->route.kind, q->route.name,
                           "Precondition failed: UID in precondition: %.*s, UID in object meta: %.*s", SHOW(uid), SHOW(have));
}

int write_check_version(struct kube_request *q, const struct json *object, const struct json *old)
{
    struct slice want = json_path_text(object, "metadata.resourceVersion");
    int code = check_uid(q, object, old);
    if (code) return code;
    if (!want.len || slice_eq_str(want, "0")) {
        if (!kind_needs_version_on_update(q->route.kind)) return 0;
        return invalid_field(q, q->route.name, PROBLEM_INVALID, "metadata.resourceVersion", "0x0",
                             "must be specified for an update");
    }
    if (slice_eq(want, json_path_text(old, "metadata.resourceVersion"))) return 0;
    return status_modified(&q->status, q->route.kind, q->route.name);
}

/* What only the server writes stays as it was. */
static int keep_metadata(struct kube_request *q, struct json *meta, const struct json *old)
{
    static const char *const kept[] = {"name",      "namespace",         "uid", "creationTimestamp",
                                       "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"};
    static const char *const dropped[] = {"selfLink", "managedFields"};
    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        struct json *v = json_get(old, kept[i]);
        if (!v) {
            json_remove(meta, slice_str(kept[i]));
        } else if (json_set_str(&q->arena, meta, kept[i], v)) {
            return status_nomem(&q->status);
        }
    }
    for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++) json_remove(meta, slice_str(dropped[i]));
    return 0;
}

static bool same(const struct json *a, const struct json *b)
{
    if (!a || !b) return a == b;
    return json_equal(a, b);
}

/* A new generation when what is wanted changed. Deployments count their annotations as well, as Kubernetes does. */
static int bump_generation(struct kube_request *q, struct json *object, const struct json *old)
{
    const struct kind *k = q->route.kind;
    struct json *meta = json_get(object, "metadata");
    if (!kind_has_generation(k)) return 0;
    bool changed = !same(json_get(object, "spec"), json_get(old, "spec"));
    if (kind_is(k, "apps", "Deployment")) {
        changed |= !same(json_path(object, "metadata.annotations"), json_path(old, "metadata.annotations"));
    }
    if (!changed) return 0;
    int64_t generation = json_path_int(old, "metadata.generation", 0) + 1;
    return json_set_str(&q->arena, meta, "generation", json_int(&q->arena, generation)) ? status_nomem(&q->status) : 0;
}

int write_prepare_update(struct kube_request *q, struct json **object, struct json *old, struct slice sub)
{
    struct json *o = *object;
    int code = decode(q, o);
    if (code) return code;
    struct json *meta = metadata_of(q, o);
    code = write_check_names(q, meta, q->route.ns);
    if (!code) code = write_check_version(q, o, old);
    if (!code) code = keep_metadata(q, meta, json_get(old, "metadata"));
    if (!code) code = strategy_update(q, o, old, sub);
    if (!code) code = bump_generation(q, o, old);
    if (!code) code = write_validate(q, o, old);
    return code;
}

int write_finish_update(struct kube_request *q, struct json *object, const struct json *old)
{
    struct mutation *m = &q->mut;
    struct json *meta = json_get(object, "metadata"), *old_meta = json_get(old, "metadata");
    if (delete_during_update(q->route.kind, object, old)) {
        int code = mutate_put(q, object);
        m->n_claims = m->n_releases = 0; /* what is stored is what goes, not what the update would have made of it */
        if (!code && kind_is(q->route.kind, "", "Service")) code = service_release(q, old);
        m->action = MUTATE_DELETE;
        return code;
    }
    struct json *version = json_get(old_meta, "resourceVersion");
    if (version && json_set_str(&q->arena, meta, "resourceVersion", version)) return status_nomem(&q->status);
    if (m->object && json_equal(object, old)) {
        m->value = record_value(m->object);
        m->action = MUTATE_KEEP;
        return 0;
    }
    return mutate_put(q, object);
}

static int update_compute(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    struct json *object, *old;
    int code = request_body(q, &object);
    if (code) return code;
    if (!m->object && kind_allows_create_on_update(q->route.kind)) {
        code = check_uid(q, object, NULL);
        if (!code) code = write_prepare_create(q, object, q->route.ns);
        if (!code) code = write_check_namespace(q, q->route.name);
        return code ? code : mutate_put(q, object);
    }
    code = mutate_current(q, &old);
    if (!code) code = write_prepare_update(q, &object, old, (struct slice){0});
    return code ? code : write_finish_update(q, object, old);
}

void update_handle(struct kube_request *q)
{
    q->mut.key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name);
    if (kind_allows_create_on_update(q->route.kind)) set_guard(q);
    q->mut.compute = update_compute;
    q->mut.finish = mutate_finish_object;
    mutate_start(q);
}
