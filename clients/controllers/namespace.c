/* Deleted namespaces: everything in them goes, then the finalizer `kubernetes`, then the API server
 * removes the namespace.
 *
 * What there is to delete comes from discovery, asked anew for each round. A round deletes every
 * collection, then counts what is left; as long as something is (pods that are being stopped,
 * finalizers), the next round follows. */
#include <stdio.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"

#define ROUND_MS 500

struct namespace_controller {
    struct controllers *c;
    struct workqueue *queue;
};

/* One round on one namespace. */
struct round {
    struct namespace_controller *nc;
    struct sync *sync;
    char ns[64];
    char **paths; /* of collections: "/api/v1/namespaces/x/pods" */
    size_t n_paths;
    size_t left; /* objects that were still there */
};

static void delete_all(struct sync *s);
static void count_all(struct sync *s);
static void finalize(struct sync *s);

static void round_free(struct round *r)
{
    for (size_t i = 0; i < r->n_paths; i++) mem_free(r->paths[i]);
    mem_free(r->paths);
    mem_free(r);
}

static bool has_verb(const struct json *resource, const char *verb)
{
    const struct json *verbs = json_get(resource, "verbs");
    for (size_t i = 0; i < (verbs ? verbs->count : 0); i++)
        if (json_is_str(json_at(verbs, i), verb)) return true;
    return false;
}

/* ---- discovery ------------------------------------------------------------------------------ */

static void on_resources(void *ctx, const struct kube_result *res)
{
    struct sync *s = ctx;
    struct round *r = s->data;
    const struct json *doc = res->code ? NULL : kube_result_json(res),
                      *list = json_get(doc, "resources");
    struct slice gv = json_text(json_get(doc, "groupVersion"));
    for (size_t i = 0; i < (list ? list->count : 0); i++) {
        const struct json *x = json_at(list, i);
        struct slice name = json_text(json_get(x, "name"));
        if (!json_path_bool(x, "namespaced", false) || slice_index(name, '/') >= 0) continue;
        if (!has_verb(x, "list") || !has_verb(x, "deletecollection")) continue;
        struct buf path = {0};
        buf_printf(&path, "%s/%.*s/namespaces/%s/%.*s", slice_index(gv, '/') < 0 ? "/api" : "/apis",
                   (int)gv.len, gv.data, r->ns, (int)name.len, name.data);
        r->paths = mem_must_realloc(r->paths, (r->n_paths + 1) * sizeof(char *));
        r->paths[r->n_paths++] = (char *)buf_cstr(&path);
    }
    sync_done(s, res);
}

static void get(struct sync *s, const char *path, kube_done *done)
{
    sync_sent(s);
    kube_send(s->c->app.client, &(struct kube_request){.verb = KUBE_GET, .path = path}, done, s);
}

static void on_groups(void *ctx, const struct kube_result *res)
{
    struct sync *s = ctx;
    const struct json *groups = res->code ? NULL : json_get(kube_result_json(res), "groups");
    for (size_t i = 0; i < (groups ? groups->count : 0); i++) {
        struct slice gv = json_path_text(json_at(groups, i), "preferredVersion.groupVersion");
        char path[300];
        snprintf(path, sizeof(path), "/apis/%.*s", (int)gv.len,
                 gv.len ? (const char *)gv.data : "");
        if (gv.len) get(s, path, on_resources);
    }
    sync_done(s, res);
}

/* ---- a round -------------------------------------------------------------------------------- */

static void give_up(struct sync *s)
{
    round_free(s->data);
    sync_release(s);
}

static void delete_all(struct sync *s)
{
    struct round *r = s->data;
    if (s->failed || !r->n_paths) { /* without discovery nothing is certain */
        s->failed = true;
        give_up(s);
        return;
    }
    for (size_t i = 0; i < r->n_paths; i++) {
        sync_sent(s);
        kube_send(s->c->app.client,
                  &(struct kube_request){.verb = KUBE_DELETE, .path = r->paths[i]}, sync_done, s);
    }
    s->next = count_all;
    sync_release(s);
}

static void on_counted(void *ctx, const struct kube_result *res)
{
    struct sync *s = ctx;
    struct round *r = s->data;
    const struct json *list = res->code ? NULL : json_get(kube_result_json(res), "items");
    if (list) r->left += list->count;
    sync_done(s, res);
}

static void count_all(struct sync *s)
{
    struct round *r = s->data;
    char path[700];
    s->next = finalize;
    for (size_t i = 0; i < r->n_paths; i++) {
        snprintf(path, sizeof(path), "%s?limit=1", r->paths[i]);
        get(s, path, on_counted);
    }
    sync_release(s);
}

static void finalize(struct sync *s)
{
    struct round *r = s->data;
    struct arena *a = &s->arena;
    struct kube_object *o = informer_get_key(s->c->namespaces, s->key);
    if (r->left && !s->failed) workqueue_add_after(s->queue, s->key, ROUND_MS);
    if (s->failed || r->left || !o) {
        give_up(s);
        return;
    }
    struct json *body = json_clone(a, o->json), *rest = json_array(a);
    const struct json *have = json_path(o->json, "spec.finalizers");
    for (size_t i = 0; rest && i < (have ? have->count : 0); i++)
        if (!json_is_str(json_at(have, i), "kubernetes"))
            json_push(a, rest, json_clone(a, json_at(have, i)));
    struct json *spec = json_get(body, "spec");
    if (!body || !rest || !spec || json_set_str(a, spec, "finalizers", rest) ||
        json_set_str(a, body, "apiVersion", json_str(a, "v1")) ||
        json_set_str(a, body, "kind", json_str(a, "Namespace"))) {
        s->failed = true;
        give_up(s);
        return;
    }
    log_info("namespace is empty, removing it name=%s", r->ns);
    sync_sent(s);
    struct kube_request q = {.verb = KUBE_UPDATE,
                             .resource = &KUBE_NAMESPACES,
                             .name = o->name,
                             .subresource = "finalize",
                             .body = body};
    kube_send(s->c->app.client, &q, sync_done, s);
    give_up(s);
}

static bool has_finalizer(const struct kube_object *o)
{
    const struct json *list = json_path(o->json, "spec.finalizers");
    for (size_t i = 0; i < (list ? list->count : 0); i++)
        if (json_is_str(json_at(list, i), "kubernetes")) return true;
    return false;
}

static void process(void *ctx, struct slice key)
{
    struct namespace_controller *nc = ctx;
    struct sync *s = sync_new(nc->c, nc->queue, key);
    struct kube_object *o = informer_get_key(nc->c->namespaces, key);
    if (!o || !is_deleting(o) || !has_finalizer(o) || o->name.len > 63) {
        sync_release(s);
        return;
    }
    struct round *r = mem_must_calloc(1, sizeof(*r));
    r->nc = nc;
    r->sync = s;
    memcpy(r->ns, o->name.data, o->name.len);
    s->data = r;
    s->next = delete_all;
    get(s, "/api/v1", on_resources);
    get(s, "/apis", on_groups);
    sync_release(s);
}

static void namespace_added(void *ctx, struct kube_object *o)
{
    if (is_deleting(o)) workqueue_add(((struct namespace_controller *)ctx)->queue, o->name);
}

static void namespace_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    namespace_added(ctx, o);
}

void namespace_start(struct controllers *c)
{
    static const struct informer_handler handler = {namespace_added, namespace_updated, NULL, NULL};
    struct namespace_controller *nc = mem_must_calloc(1, sizeof(*nc));
    c->namespace_ = nc;
    nc->c = c;
    nc->queue = controllers_queue(c, "namespace", process, nc);
    informer_add_handler(c->namespaces, &handler, nc);
}

void namespace_free(struct controllers *c)
{
    mem_free(c->namespace_);
}
