#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"

/* ---- sync ----------------------------------------------------------------------------------- */

struct sync *sync_new(struct controllers *c, struct workqueue *q, struct slice key)
{
    struct sync *s = mem_must_calloc(1, sizeof(*s));
    s->c = c;
    s->queue = q;
    s->pending = 1;
    s->key = key; /* the queue keeps it until it is done */
    return s;
}

void sync_sent(struct sync *s)
{
    s->pending++;
}

void sync_done(void *ctx, const struct kube_result *r)
{
    struct sync *s = ctx;
    if (r->code && r->code != ERR_NOT_FOUND) {
        s->failed = true;
        if (r->code != ERR_CONFLICT)
            log_warn("request failed key=%.*s error=\"%s\"", (int)s->key.len, s->key.data,
                     r->message);
    }
    sync_release(s);
}

void sync_release(struct sync *s)
{
    if (--s->pending) return;
    void (*next)(struct sync * s) = s->next;
    if (next) {
        s->next = NULL;
        s->pending = 1;
        next(s);
        return;
    }
    workqueue_done(s->queue, s->key, s->failed);
    arena_release(&s->arena);
    mem_free(s);
}

void key_split(struct slice key, struct slice *ns, struct slice *name)
{
    ptrdiff_t slash = slice_index(key, '/');
    *ns = slash < 0 ? (struct slice){0} : slice_sub(key, 0, (size_t)slash);
    *name = slice_sub(key, (size_t)(slash + 1), key.len);
}

/* ---- owners --------------------------------------------------------------------------------- */

struct json *owner_reference(struct arena *a, const struct kube_resource *kind,
                             const struct kube_object *owner)
{
    return kjson(a, "{apiVersion:s,kind:s,name:t,uid:t,controller:T,blockOwnerDeletion:T}",
                 kind->api_version, kind->kind, owner->name, owner->uid);
}

bool is_controlled_by(const struct kube_object *o, const struct kube_object *owner)
{
    return slice_eq(index_controller_uid(o), owner->uid);
}

static void patch_owners(struct sync *s, const struct kube_resource *what,
                         const struct kube_object *o, struct json *owners)
{
    struct arena *a = &s->arena;
    const char *version = arena_printf(a, "%lld", (long long)o->resource_version);
    struct json *patch =
        kjson(a, "{metadata:{uid:t,resourceVersion:s,ownerReferences:o}}", o->uid, version, owners);
    sync_sent(s);
    kube_patch(s->c->app.client, what, o->ns, o->name, NULL, patch, sync_done, s);
}

void adopt_object(struct sync *s, const struct kube_resource *what, const struct kube_object *o,
                  const struct kube_resource *kind, const struct kube_object *owner)
{
    const struct json *have = json_path(o->json, "metadata.ownerReferences");
    struct json *owners = have ? json_clone(&s->arena, have) : json_array(&s->arena);
    if (owners && json_push(&s->arena, owners, owner_reference(&s->arena, kind, owner)) == 0)
        patch_owners(s, what, o, owners);
    else s->failed = true;
}

void release_object(struct sync *s, const struct kube_resource *what, const struct kube_object *o,
                    struct slice owner_uid)
{
    const struct json *have = json_path(o->json, "metadata.ownerReferences");
    struct json *owners = json_array(&s->arena);
    for (size_t i = 0; owners && i < (have ? have->count : 0); i++) {
        const struct json *ref = json_at(have, i);
        if (slice_eq(json_text(json_get(ref, "uid")), owner_uid)) continue;
        if (json_push(&s->arena, owners, json_clone(&s->arena, ref))) owners = NULL;
    }
    if (owners) patch_owners(s, what, o, owners);
    else s->failed = true;
}

/* ---- objects -------------------------------------------------------------------------------- */

bool is_deleting(const struct kube_object *o)
{
    return json_path(o->json, "metadata.deletionTimestamp") != NULL;
}

bool pod_is_active(const struct kube_object *o)
{
    struct slice phase = json_path_text(o->json, "status.phase");
    return !slice_eq_str(phase, "Succeeded") && !slice_eq_str(phase, "Failed") && !is_deleting(o);
}

const struct json *condition_of(const struct json *object, const char *type)
{
    const struct json *list = json_path(object, "status.conditions");
    for (size_t i = 0; i < (list ? list->count : 0); i++)
        if (json_is_str(json_get(json_at(list, i), "type"), type)) return json_at(list, i);
    return NULL;
}

bool condition_is(const struct json *object, const char *type, const char *status)
{
    return json_is_str(json_get(condition_of(object, type), "status"), status);
}

bool pod_is_available(const struct kube_object *o, int64_t min_ready_s, int64_t now_ms,
                      int64_t *ret_wait_ms)
{
    if (ret_wait_ms) *ret_wait_ms = 0;
    if (!pod_is_ready(o)) return false;
    int64_t since;
    if (min_ready_s <= 0) return true;
    if (!kjson_parse_time(json_text(json_get(condition_of(o->json, "Ready"), "lastTransitionTime")),
                          &since))
        return false;
    int64_t left = since + min_ready_s * 1000 - now_ms;
    if (left <= 0) return true;
    if (ret_wait_ms) *ret_wait_ms = left;
    return false;
}

void objects_add(struct objects *v, struct kube_object *o)
{
    if (v->n == v->size) {
        v->size = v->size ? v->size * 2 : 16;
        v->list = mem_must_realloc(v->list, v->size * sizeof(struct kube_object *));
    }
    v->list[v->n++] = o;
}

void objects_release(struct objects *v)
{
    mem_free(v->list);
    *v = (struct objects){0};
}
