/* Garbage collection by metadata.ownerReferences. A graph of all objects we watch: each knows its
 * owners by uid, each uid its dependents. Three jobs, one queue of uids:
 *   - an object all of whose owners are gone is deleted; if only some are, the references to those
 * are dropped;
 *   - a deleted object with the finalizer `orphan`: the dependents lose the reference, then the
 * finalizer goes;
 *   - a deleted object with `foregroundDeletion`: the dependents that block it are deleted first,
 * then the finalizer goes. The cache may lag, so an owner counts as gone only when the API server
 * itself says so, and every write names uid and resourceVersion. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"
#include "schemas/kube/kinds.h"

#define GONE_REMEMBERED 4096

struct gc_node;

struct gc_edge {
    struct list from_owner; /* owner->dependents */
    struct gc_node *owner, *dependent;
    bool blocks; /* blockOwnerDeletion */
};

/* A uid that exists, or that somebody names as owner. */
struct gc_node {
    struct smap_node node; /* key: uid */
    struct informer *from; /* NULL: only named */
    struct kube_object *o; /* of the cache; NULL: only named */
    struct list dependents;
    struct gc_edge *edges; /* to its owners */
    size_t n_edges;
    char uid[];
};

struct gc_gone {
    struct smap_node node; /* key: uid */
    struct list link;
    char uid[];
};

/* What an informer's events come with. */
struct gc_source {
    struct gc_controller *gc;
    struct informer *inf;
};

struct gc_controller {
    struct controllers *c;
    struct workqueue *queue;
    struct smap graph;
    struct smap gone; /* uids that the API server did not know */
    struct list gone_order;
    struct gc_source sources[INFORMERS_MAX];
};

/* ---- the graph ------------------------------------------------------------------------------ */

static struct gc_node *graph_get(struct gc_controller *gc, struct slice uid)
{
    struct gc_node *n = smap_entry(&gc->graph, uid, struct gc_node, node);
    if (n) return n;
    n = mem_must_calloc(1, sizeof(*n) + uid.len);
    memcpy(n->uid, uid.data, uid.len);
    list_init(&n->dependents);
    smap_insert(&gc->graph, &n->node, slice_make(n->uid, uid.len));
    return n;
}

static void drop_if_unused(struct gc_controller *gc, struct gc_node *n)
{
    if (n->o || !list_empty(&n->dependents)) return;
    smap_remove(&gc->graph, &n->node);
    mem_free(n->edges);
    mem_free(n);
}

static void cut_edges(struct gc_controller *gc, struct gc_node *n)
{
    for (size_t i = 0; i < n->n_edges; i++) {
        list_remove(&n->edges[i].from_owner);
        if (n->edges[i].owner != n) drop_if_unused(gc, n->edges[i].owner);
    }
    mem_free(n->edges);
    n->edges = NULL;
    n->n_edges = 0;
}

static void make_edges(struct gc_controller *gc, struct gc_node *n)
{
    const struct json *refs = json_path(n->o->json, "metadata.ownerReferences");
    cut_edges(gc, n);
    if (!refs || !refs->count) return;
    n->edges = mem_must_calloc(refs->count, sizeof(*n->edges));
    for (size_t i = 0; i < refs->count; i++) {
        struct slice uid = json_text(json_get(json_at(refs, i), "uid"));
        if (!uid.len || slice_eq(uid, n->o->uid)) continue;
        struct gc_edge *e = &n->edges[n->n_edges++];
        e->owner = graph_get(gc, uid);
        e->dependent = n;
        e->blocks = json_path_bool(json_at(refs, i), "blockOwnerDeletion", false);
        list_push_back(&e->owner->dependents, &e->from_owner);
    }
}

static bool has_finalizer(const struct kube_object *o, const char *name)
{
    const struct json *list = json_path(o->json, "metadata.finalizers");
    for (size_t i = 0; i < (list ? list->count : 0); i++)
        if (json_is_str(json_at(list, i), name)) return true;
    return false;
}

static bool is_foreground(const struct kube_object *o)
{
    return o && is_deleting(o) && has_finalizer(o, "foregroundDeletion");
}

static void wake_dependents(struct gc_controller *gc, struct gc_node *n)
{
    list_for_each(link, &n->dependents) workqueue_add(
        gc->queue, container_of(link, struct gc_edge, from_owner)->dependent->node.key);
}

/* An owner in the foreground may be free when a dependent goes, or names it no more. */
static void wake_foreground_owners(struct gc_controller *gc, struct gc_node *n)
{
    for (size_t i = 0; i < n->n_edges; i++)
        if (is_foreground(n->edges[i].owner->o))
            workqueue_add(gc->queue, n->edges[i].owner->node.key);
}

/* Whether an object has something to be done about at all. */
static bool is_interesting(const struct gc_node *n)
{
    if (is_deleting(n->o))
        return has_finalizer(n->o, "orphan") || has_finalizer(n->o, "foregroundDeletion");
    for (size_t i = 0; i < n->n_edges; i++)
        if (!n->edges[i].owner->o || is_foreground(n->edges[i].owner->o)) return true;
    return false;
}

static void object_seen(void *ctx, struct kube_object *o)
{
    struct gc_source *from = ctx;
    struct gc_controller *gc = from->gc;
    if (!o->uid.len) return;
    struct gc_node *n = graph_get(gc, o->uid);
    kube_object_unref(n->o);
    n->o = kube_object_ref(o);
    n->from = from->inf;
    wake_foreground_owners(gc, n);
    make_edges(gc, n);
    if (is_interesting(n))
        workqueue_add_after(gc->queue, n->node.key, n->n_edges && !is_deleting(o) ? 500 : 0);
    if (is_foreground(o)) wake_dependents(gc, n);
}

static void object_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    object_seen(ctx, o);
}

static void object_deleted(void *ctx, struct kube_object *o)
{
    struct gc_controller *gc = ((struct gc_source *)ctx)->gc;
    struct gc_node *n = smap_entry(&gc->graph, o->uid, struct gc_node, node);
    if (!n || !n->o) return;
    wake_foreground_owners(gc, n);
    cut_edges(gc, n);
    kube_object_unref(n->o);
    n->o = NULL;
    wake_dependents(gc, n);
    drop_if_unused(gc, n);
}

/* ---- owners that are gone ------------------------------------------------------------------- */

static bool known_gone(struct gc_controller *gc, struct slice uid)
{
    return smap_find(&gc->gone, uid) != NULL;
}

static void remember_gone(struct gc_controller *gc, struct slice uid)
{
    if (known_gone(gc, uid)) return;
    struct gc_gone *g = mem_must_calloc(1, sizeof(*g) + uid.len);
    memcpy(g->uid, uid.data, uid.len);
    smap_insert(&gc->gone, &g->node, slice_make(g->uid, uid.len));
    list_push_back(&gc->gone_order, &g->link);
    if (gc->gone.count <= GONE_REMEMBERED) return;
    g = container_of(list_pop_front(&gc->gone_order), struct gc_gone, link);
    smap_remove(&gc->gone, &g->node);
    mem_free(g);
}

struct question {
    struct sync *sync;
    struct gc_controller *gc;
    struct slice uid; /* in the sync's arena */
};

static void on_owner(void *ctx, const struct kube_result *r)
{
    struct question *q = ctx;
    struct sync *s = q->sync;
    struct kube_result out = *r;
    bool other = !r->code && !slice_eq(json_path_text(kube_result_json(r), "metadata.uid"), q->uid);
    if (r->code == ERR_NOT_FOUND || other) {
        remember_gone(q->gc, q->uid);
        workqueue_add(q->gc->queue, s->key);
    } else if (!r->code) { /* it is there: our cache lags, or does not have such objects */
        out.code = 0;
    }
    sync_done(s, &out);
}

/* Asks the API server for the owner that a reference names. */
static void ask_owner(struct gc_controller *gc, struct sync *s, const struct kube_object *o,
                      const struct json *ref)
{
    const struct kind *k =
        kind_by_name(json_text(json_get(ref, "apiVersion")), json_text(json_get(ref, "kind")));
    struct question *q = arena_alloc(&s->arena, sizeof(*q));
    if (!k || !q) { /* of a kind that this server does not have: leave it alone */
        log_debug("garbage: unknown kind of owner key=%.*s", (int)o->node.key.len,
                  o->node.key.data);
        return;
    }
    struct kube_resource r = {k->api_version, k->plural, k->kind, k->namespaced};
    *q = (struct question){s, gc, arena_dup(&s->arena, json_text(json_get(ref, "uid")))};
    sync_sent(s);
    kube_get(gc->c->app.client, &r, o->ns, json_text(json_get(ref, "name")), on_owner, q);
}

/* ---- work ----------------------------------------------------------------------------------- */

static void remove_finalizer(struct gc_controller *gc, struct sync *s, const struct gc_node *n,
                             const char *name)
{
    struct arena *a = &s->arena;
    const struct json *have = json_path(n->o->json, "metadata.finalizers");
    struct json *rest = json_array(a);
    for (size_t i = 0; rest && i < have->count; i++)
        if (!json_is_str(json_at(have, i), name))
            json_push(a, rest, json_clone(a, json_at(have, i)));
    struct json *patch = kjson(a, "{metadata:{uid:t,resourceVersion:s,finalizers:o}}", n->o->uid,
                               arena_printf(a, "%lld", (long long)n->o->resource_version), rest);
    sync_sent(s);
    kube_patch(gc->c->app.client, informer_resource(n->from), n->o->ns, n->o->name, NULL, patch,
               sync_done, s);
}

static void orphan(struct gc_controller *gc, struct sync *s, struct gc_node *n)
{
    bool left = false;
    list_for_each(link, &n->dependents)
    {
        struct gc_node *d = container_of(link, struct gc_edge, from_owner)->dependent;
        release_object(s, informer_resource(d->from), d->o, n->o->uid);
        left = true;
    }
    if (left) workqueue_add_after(gc->queue, s->key, 100); /* until none names it */
    else remove_finalizer(gc, s, n, "orphan");
}

static void delete_object(struct gc_controller *gc, struct sync *s, const struct gc_node *n,
                          const char *propagation)
{
    log_info("garbage: deleting %s %.*s", informer_resource(n->from)->plural,
             (int)n->o->node.key.len, n->o->node.key.data);
    sync_sent(s);
    kube_delete(gc->c->app.client, informer_resource(n->from), n->o->ns, n->o->name, n->o->uid,
                n->o->resource_version, -1, propagation, sync_done, s);
}

static void foreground(struct gc_controller *gc, struct sync *s, struct gc_node *n)
{
    bool blocked = false;
    list_for_each(link, &n->dependents)
    {
        struct gc_edge *e = container_of(link, struct gc_edge, from_owner);
        if (!e->blocks || !e->dependent->o) continue;
        blocked = true;
        if (!is_deleting(e->dependent->o)) workqueue_add(gc->queue, e->dependent->node.key);
    }
    if (!blocked) remove_finalizer(gc, s, n, "foregroundDeletion");
}

/* Drops the references to owners that are gone or going. */
static void drop_references(struct gc_controller *gc, struct sync *s, const struct gc_node *n)
{
    struct arena *a = &s->arena;
    const struct json *refs = json_path(n->o->json, "metadata.ownerReferences");
    struct json *rest = json_array(a);
    for (size_t i = 0; rest && i < refs->count; i++) {
        struct slice uid = json_text(json_get(json_at(refs, i), "uid"));
        struct gc_node *owner = smap_entry(&gc->graph, uid, struct gc_node, node);
        if (!known_gone(gc, uid) && !(owner && is_foreground(owner->o)) &&
            json_push(a, rest, json_clone(a, json_at(refs, i))))
            rest = NULL;
    }
    struct json *patch =
        kjson(a, "{metadata:{uid:t,resourceVersion:s,ownerReferences:o}}", n->o->uid,
              arena_printf(a, "%lld", (long long)n->o->resource_version), rest);
    if (!rest) patch = NULL;
    sync_sent(s);
    kube_patch(gc->c->app.client, informer_resource(n->from), n->o->ns, n->o->name, NULL, patch,
               sync_done, s);
}

static void judge(struct gc_controller *gc, struct sync *s, struct gc_node *n)
{
    const struct json *refs = json_path(n->o->json, "metadata.ownerReferences");
    size_t solid = 0, gone = 0, waiting = 0, unsure = 0;
    for (size_t i = 0; i < (refs ? refs->count : 0); i++) {
        const struct json *ref = json_at(refs, i);
        struct slice uid = json_text(json_get(ref, "uid"));
        struct gc_node *owner = smap_entry(&gc->graph, uid, struct gc_node, node);
        if (owner && is_foreground(owner->o)) {
            bool blocks = json_path_bool(ref, "blockOwnerDeletion", false);
            waiting += blocks;
            solid += !blocks;
        } else if (owner && owner->o) {
            solid++;
        } else if (known_gone(gc, uid)) {
            gone++;
        } else {
            unsure++;
            ask_owner(gc, s, n->o, ref);
        }
    }
    if (unsure || (gone == 0 && waiting == 0)) return;
    if (solid) drop_references(gc, s, n);
    else if (waiting && !list_empty(&n->dependents)) delete_object(gc, s, n, "Foreground");
    else delete_object(gc, s, n, has_finalizer(n->o, "orphan") ? "Orphan" : "Background");
}

static void process(void *ctx, struct slice key)
{
    struct gc_controller *gc = ctx;
    struct sync *s = sync_new(gc->c, gc->queue, key);
    struct gc_node *n = smap_entry(&gc->graph, key, struct gc_node, node);
    if (n && n->o) {
        if (is_deleting(n->o) && has_finalizer(n->o, "orphan")) orphan(gc, s, n);
        else if (is_foreground(n->o)) foreground(gc, s, n);
        else if (!is_deleting(n->o)) judge(gc, s, n);
    }
    sync_release(s);
}

void gc_start(struct controllers *c)
{
    static const struct informer_handler handler = {object_seen, object_updated, object_deleted,
                                                    NULL};
    struct gc_controller *gc = mem_must_calloc(1, sizeof(*gc));
    c->gc = gc;
    gc->c = c;
    list_init(&gc->gone_order);
    gc->queue = controllers_queue(c, "garbage", process, gc);
    for (size_t i = 0; i < c->n_informers; i++) {
        gc->sources[i].gc = gc;
        gc->sources[i].inf = c->all[i];
        informer_add_handler(c->all[i], &handler, &gc->sources[i]);
    }
}

void gc_free(struct controllers *c)
{
    struct gc_controller *gc = c->gc;
    smap_for_each(node, &gc->graph)
    {
        struct gc_node *n = container_of(node, struct gc_node, node);
        kube_object_unref(n->o);
        mem_free(n->edges);
        mem_free(n);
    }
    smap_release(&gc->graph);
    for (struct list *l; (l = list_pop_front(&gc->gone_order));)
        mem_free(container_of(l, struct gc_gone, link));
    smap_release(&gc->gone);
    mem_free(gc);
}
