/* ReplicaSets: as many pods as asked for.
 *
 * A turn: the pods that are ours (adopt what matches and has no controller, release what no longer
 * matches), then create or delete the difference, then status. The cache lags behind our own
 * writes: `expectations` remember what was created and deleted and not yet seen, and until all of
 * it has been seen (or five minutes have passed) nothing more is created or deleted. Creations go
 * in batches of 1, 2, 4, ... so that a template that is refused fails once and not a thousand
 * times. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/controllers/replicas.h"
#include "clients/lib/kjson.h"
#include "clients/lib/selector.h"

#define BURST 500
#define EXPECTATIONS_MS 300000

/* What we did to a ReplicaSet and have not seen yet. */
struct expected {
    struct smap_node node; /* key: namespace/name */
    int64_t creates;
    struct list deletes; /* struct expected_delete */
    uint64_t since_ms;
    char key[];
};

struct expected_delete {
    struct list link;
    size_t len;
    uint8_t uid[];
};

struct replicaset_controller {
    struct controllers *c;
    struct workqueue *queue;
    struct smap expected;
};

/* ---- expectations --------------------------------------------------------------------------- */

static struct expected *expected_find(struct replicaset_controller *rc, struct slice key)
{
    return smap_entry(&rc->expected, key, struct expected, node);
}

static void expected_free(struct replicaset_controller *rc, struct expected *x)
{
    for (struct list *node; (node = list_pop_front(&x->deletes));)
        mem_free(container_of(node, struct expected_delete, link));
    smap_remove(&rc->expected, &x->node);
    mem_free(x);
}

static struct expected *expected_get(struct replicaset_controller *rc, struct slice key)
{
    struct expected *x = expected_find(rc, key);
    if (!x) {
        x = mem_must_calloc(1, sizeof(*x) + key.len);
        memcpy(x->key, key.data, key.len);
        list_init(&x->deletes);
        smap_insert(&rc->expected, &x->node, slice_make(x->key, key.len));
    }
    x->since_ms = clock_mono_ms();
    return x;
}

static bool expected_all_seen(struct replicaset_controller *rc, struct slice key)
{
    struct expected *x = expected_find(rc, key);
    if (!x) return true;
    if ((x->creates > 0 || !list_empty(&x->deletes)) &&
        clock_mono_ms() < x->since_ms + EXPECTATIONS_MS)
        return false;
    expected_free(rc, x);
    return true;
}

static void create_seen(struct replicaset_controller *rc, struct slice key)
{
    struct expected *x = expected_find(rc, key);
    if (x && x->creates > 0) x->creates--;
}

static void expect_delete(struct replicaset_controller *rc, struct slice key, struct slice uid)
{
    struct expected *x = expected_get(rc, key);
    struct expected_delete *d = mem_must_alloc(sizeof(*d) + uid.len);
    d->len = uid.len;
    memcpy(d->uid, uid.data, uid.len);
    list_push_back(&x->deletes, &d->link);
}

static void delete_seen(struct replicaset_controller *rc, struct slice key, struct slice uid)
{
    struct expected *x = expected_find(rc, key);
    if (!x) return;
    list_for_each(node, &x->deletes)
    {
        struct expected_delete *d = container_of(node, struct expected_delete, link);
        if (!slice_eq(slice_make(d->uid, d->len), uid)) continue;
        list_remove(node);
        mem_free(d);
        return;
    }
}

size_t replicaset_expected(const struct controllers *c)
{
    size_t n = 0;
    smap_for_each(node, &c->replicaset->expected)
    {
        const struct expected *x = container_of(node, struct expected, node);
        n += (size_t)x->creates;
        list_for_each(d, &x->deletes) n++;
    }
    return n;
}

/* ---- creating and deleting ------------------------------------------------------------------ */

/* One turn's creations, batch by batch. */
struct creation {
    struct sync *sync;
    struct replicaset_controller *rc;
    struct kube_object *rs;
    struct buf body;
    int64_t left, batch, in_flight, failed;
    char error[256];
};

/* Not one of the same name that was deleted. */
static bool is_current(struct replicaset_controller *rc, const struct kube_object *rs)
{
    const struct kube_object *now = informer_get_key(rc->c->replicasets, kube_object_key(rs));
    return now && slice_eq(now->uid, rs->uid);
}

static void create_batch(struct creation *cr);
static void write_status(struct sync *s, struct replicaset_controller *rc, struct kube_object *rs,
                         const char *failure, const char *reason);

static void creation_end(struct creation *cr)
{
    struct sync *s = cr->sync;
    if (cr->failed) {
        s->failed = true;
        write_status(s, cr->rc, cr->rs, cr->error, "FailedCreate");
    } else {
        write_status(s, cr->rc, cr->rs, NULL, NULL);
    }
    buf_release(&cr->body);
    kube_object_unref(cr->rs);
    mem_free(cr);
    sync_release(s);
}

static void on_created(void *ctx, const struct kube_result *r)
{
    struct creation *cr = ctx;
    struct recorder *events = cr->rc->c->replicaset_events;
    cr->in_flight--;
    if (r->code) {
        create_seen(cr->rc, kube_object_key(cr->rs));
        cr->failed++;
        snprintf(cr->error, sizeof(cr->error), "%s", r->message);
        recorder_event(events, &KUBE_REPLICASETS, cr->rs, "Warning", "FailedCreate",
                       "Error creating: %s", r->message);
    } else {
        struct slice name = json_path_text(kube_result_json(r), "metadata.name");
        recorder_event(events, &KUBE_REPLICASETS, cr->rs, "Normal", "SuccessfulCreate",
                       "Created pod: %.*s", (int)name.len, name.data);
    }
    if (cr->in_flight) return;
    if (cr->failed || cr->left == 0 || !cr->rc->c->leading || !is_current(cr->rc, cr->rs))
        creation_end(cr);
    else create_batch(cr);
}

static void create_batch(struct creation *cr)
{
    int64_t n = cr->batch < cr->left ? cr->batch : cr->left;
    struct expected *x = expected_get(cr->rc, kube_object_key(cr->rs));
    cr->batch *= 2;
    cr->left -= n;
    x->creates += n;
    cr->in_flight += n;
    struct kube_request r = {.verb = KUBE_CREATE,
                             .resource = &KUBE_PODS,
                             .ns = cr->rs->ns,
                             .raw_body = buf_slice(&cr->body)};
    for (int64_t i = 0; i < n; i++) kube_send(cr->rc->c->app.client, &r, on_created, cr);
}

static void create_pods(struct sync *s, struct replicaset_controller *rc, struct kube_object *rs,
                        int64_t n)
{
    const struct json *template = json_path(rs->json, "spec.template"),
                      *meta = json_get(template, "metadata");
    struct arena *a = &s->arena;
    struct json *pod =
        kjson(a,
              "{apiVersion:'v1',kind:'Pod',metadata:{generateName:s,namespace:t,labels:o?,"
              "annotations:o?,finalizers:o?,"
              "ownerReferences:[o]},spec:o}",
              arena_printf(a, "%.*s-", (int)rs->name.len, rs->name.data), rs->ns,
              json_get(meta, "labels") ? json_clone(a, json_get(meta, "labels")) : NULL,
              json_get(meta, "annotations") ? json_clone(a, json_get(meta, "annotations")) : NULL,
              json_get(meta, "finalizers") ? json_clone(a, json_get(meta, "finalizers")) : NULL,
              owner_reference(a, &KUBE_REPLICASETS, rs),
              json_get(template, "spec") ? json_clone(a, json_get(template, "spec")) : NULL);
    struct creation *cr = mem_must_calloc(1, sizeof(*cr));
    if (pod) json_write(&cr->body, pod);
    if (!pod || cr->body.failed) {
        buf_release(&cr->body);
        mem_free(cr);
        s->failed = true;
        return;
    }
    cr->sync = s;
    cr->rc = rc;
    cr->rs = kube_object_ref(rs);
    cr->left = n < BURST ? n : BURST;
    cr->batch = 1;
    sync_sent(s);
    create_batch(cr);
}

struct deletion {
    struct sync *sync;
    struct replicaset_controller *rc;
    struct kube_object *rs, *pod;
};

static void on_deleted(void *ctx, const struct kube_result *r)
{
    struct deletion *d = ctx;
    struct recorder *events = d->rc->c->replicaset_events;
    if (r->code) {
        delete_seen(d->rc, kube_object_key(d->rs), d->pod->uid);
        if (r->code != ERR_NOT_FOUND)
            recorder_event(events, &KUBE_REPLICASETS, d->rs, "Warning", "FailedDelete",
                           "Error deleting: %s", r->message);
    } else {
        recorder_event(events, &KUBE_REPLICASETS, d->rs, "Normal", "SuccessfulDelete",
                       "Deleted pod: %.*s", (int)d->pod->name.len, d->pod->name.data);
    }
    struct sync *s = d->sync;
    kube_object_unref(d->rs);
    kube_object_unref(d->pod);
    mem_free(d);
    sync_done(s, r);
}

static void delete_pods(struct sync *s, struct replicaset_controller *rc, struct kube_object *rs,
                        struct objects *pods, int64_t n)
{
    replicas_sort_for_deletion(pods, rc->c->pods, rc->c->pods_by_node, rs->uid);
    if (n > BURST) n = BURST;
    for (int64_t i = 0; i < n && i < (int64_t)pods->n; i++)
        expect_delete(rc, kube_object_key(rs), pods->list[i]->uid);
    for (int64_t i = 0; i < n && i < (int64_t)pods->n; i++) {
        struct deletion *d = mem_must_calloc(1, sizeof(*d));
        *d = (struct deletion){s, rc, kube_object_ref(rs), kube_object_ref(pods->list[i])};
        sync_sent(s);
        kube_delete(rc->c->app.client, &KUBE_PODS, d->pod->ns, d->pod->name, d->pod->uid, 0, -1,
                    NULL, on_deleted, d);
    }
}

/* ---- status --------------------------------------------------------------------------------- */

/* The pods of the cache that are the ReplicaSet's. */
static void owned_pods(struct replicaset_controller *rc, const struct kube_object *rs,
                       struct objects *out)
{
    struct controllers *c = rc->c;
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_owner, rs->uid); p;
         p = informer_next(p, c->pods_by_owner))
        objects_add(out, p);
}

static struct json *failure_conditions(struct arena *a, const struct kube_object *rs,
                                       const char *failure, const char *reason)
{
    const struct json *old = json_path(rs->json, "status.conditions");
    struct json *list = json_array(a);
    bool had = false;
    for (size_t i = 0; list && i < (old ? old->count : 0); i++) {
        const struct json *c = json_at(old, i);
        if (!json_is_str(json_get(c, "type"), "ReplicaFailure")) {
            if (json_push(a, list, json_clone(a, c))) return NULL;
            continue;
        }
        had = true;
        if (failure && json_is_str(json_get(c, "reason"), reason) &&
            json_is_str(json_get(c, "message"), failure))
            return NULL;
    }
    if (!failure) return had ? list : NULL;
    struct json *c =
        kjson(a, "{type:'ReplicaFailure',status:'True',lastTransitionTime:s,reason:s,message:s}",
              kjson_time(a, clock_wall_ms()), reason, failure);
    return list && json_push(a, list, c) == 0 ? list : NULL;
}

static void write_status(struct sync *s, struct replicaset_controller *rc, struct kube_object *rs,
                         const char *failure, const char *reason)
{
    struct objects pods = {0};
    struct arena *a = &s->arena;
    owned_pods(rc, rs, &pods);
    int64_t wait_ms = 0;
    struct replicas_counts n = replicas_count(rs->json, &pods, clock_wall_ms(), &wait_ms);
    objects_release(&pods);
    if (wait_ms) workqueue_add_after(rc->queue, kube_object_key(rs), (uint64_t)wait_ms);
    const struct json *old = json_get(rs->json, "status");
    int64_t generation = json_path_int(rs->json, "metadata.generation", 0);
    struct json *conditions = failure_conditions(a, rs, failure, reason);
    if (!conditions && n.replicas == json_path_int(old, "replicas", -1) &&
        n.ready == json_path_int(old, "readyReplicas", 0) &&
        n.labeled == json_path_int(old, "fullyLabeledReplicas", 0) &&
        n.available == json_path_int(old, "availableReplicas", 0) &&
        generation == json_path_int(old, "observedGeneration", 0))
        return;
    struct json *patch =
        kjson(a,
              "{metadata:{uid:t},status:{replicas:i,fullyLabeledReplicas:i,readyReplicas:i,"
              "availableReplicas:i,observedGeneration:i,"
              "conditions:o?}}",
              rs->uid, n.replicas, n.labeled, n.ready, n.available, generation, conditions);
    sync_sent(s);
    kube_patch(rc->c->app.client, &KUBE_REPLICASETS, rs->ns, rs->name, "status", patch, sync_done,
               s);
}

/* ---- the turn ------------------------------------------------------------------------------- */

static void claim_pods(struct sync *s, struct replicaset_controller *rc, struct kube_object *rs,
                       struct objects *active)
{
    struct controllers *c = rc->c;
    const struct json *selector = json_path(rs->json, "spec.selector");
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_owner, rs->uid); p;
         p = informer_next(p, c->pods_by_owner)) {
        if (!label_selector_matches(selector, json_path(p->json, "metadata.labels"))) {
            if (!is_deleting(p) && !is_deleting(rs)) release_object(s, &KUBE_PODS, p, rs->uid);
        } else if (pod_is_active(p)) {
            objects_add(active, p);
        }
    }
    if (is_deleting(rs)) return;
    for (struct kube_object *p = informer_first(c->pods, c->orphan_pods_by_ns, rs->ns); p;
         p = informer_next(p, c->orphan_pods_by_ns)) {
        if (!pod_is_active(p) ||
            !label_selector_matches(selector, json_path(p->json, "metadata.labels")))
            continue;
        adopt_object(s, &KUBE_PODS, p, &KUBE_REPLICASETS, rs);
        objects_add(active, p);
    }
}

static void process(void *ctx, struct slice key)
{
    struct replicaset_controller *rc = ctx;
    struct sync *s = sync_new(rc->c, rc->queue, key);
    struct kube_object *rs = informer_get_key(rc->c->replicasets, key);
    if (!rs) {
        struct expected *x = expected_find(rc, key);
        if (x) expected_free(rc, x);
        sync_release(s);
        return;
    }
    kube_object_ref(rs);
    bool settled = expected_all_seen(rc, key);
    /* What came and went while nobody watched is never seen: then nothing else would wake it. */
    if (!settled) workqueue_add_after(rc->queue, key, EXPECTATIONS_MS + 1000);
    struct objects active = {0};
    claim_pods(s, rc, rs, &active);
    int64_t want = json_path_int(rs->json, "spec.replicas", 1), diff = (int64_t)active.n - want;
    bool creating = false;
    if (settled && !is_deleting(rs) && diff < 0) {
        creating = true; /* status is written after it */
        create_pods(s, rc, rs, -diff);
    } else if (settled && !is_deleting(rs) && diff > 0) {
        delete_pods(s, rc, rs, &active, diff);
    }
    if (!creating) write_status(s, rc, rs, NULL, NULL);
    objects_release(&active);
    kube_object_unref(rs);
    sync_release(s);
}

/* ---- events --------------------------------------------------------------------------------- */

static struct kube_object *owner_of(struct replicaset_controller *rc, const struct kube_object *pod)
{
    const struct json *ref = kube_controller_of(pod->json);
    if (!json_is_str(json_get(ref, "kind"), "ReplicaSet")) return NULL;
    struct kube_object *rs =
        informer_get(rc->c->replicasets, pod->ns, json_text(json_get(ref, "name")));
    return rs && slice_eq(rs->uid, json_text(json_get(ref, "uid"))) ? rs : NULL;
}

/* A pod without a controller: whoever selects it may want it. */
static void wake_matching(struct replicaset_controller *rc, const struct kube_object *pod)
{
    struct controllers *c = rc->c;
    const struct json *labels = json_path(pod->json, "metadata.labels");
    for (struct kube_object *rs = informer_first(c->replicasets, c->replicasets_by_ns, pod->ns); rs;
         rs = informer_next(rs, c->replicasets_by_ns))
        if (label_selector_matches(json_path(rs->json, "spec.selector"), labels))
            workqueue_add(rc->queue, kube_object_key(rs));
}

static void pod_added(void *ctx, struct kube_object *o)
{
    struct replicaset_controller *rc = ctx;
    struct kube_object *rs = owner_of(rc, o);
    if (rs) {
        create_seen(rc, kube_object_key(rs));
        workqueue_add(rc->queue, kube_object_key(rs));
    } else if (!kube_controller_of(o->json) && !is_deleting(o)) {
        wake_matching(rc, o);
    }
}

static void pod_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    struct replicaset_controller *rc = ctx;
    struct kube_object *before = owner_of(rc, old), *rs = owner_of(rc, o);
    if (before && before != rs) workqueue_add(rc->queue, kube_object_key(before));
    if (rs) {
        if (is_deleting(o)) delete_seen(rc, kube_object_key(rs), o->uid);
        workqueue_add(rc->queue, kube_object_key(rs));
    } else if (!kube_controller_of(o->json)) {
        wake_matching(rc, o);
    }
}

static void pod_deleted(void *ctx, struct kube_object *o)
{
    struct replicaset_controller *rc = ctx;
    struct kube_object *rs = owner_of(rc, o);
    if (!rs) return;
    delete_seen(rc, kube_object_key(rs), o->uid);
    workqueue_add(rc->queue, kube_object_key(rs));
}

static void set_added(void *ctx, struct kube_object *o)
{
    workqueue_add(((struct replicaset_controller *)ctx)->queue, kube_object_key(o));
}

static void set_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    set_added(ctx, o);
}

/* The next one of its name must not wait for what this one expected. */
static void set_deleted(void *ctx, struct kube_object *o)
{
    struct replicaset_controller *rc = ctx;
    struct expected *x = expected_find(rc, kube_object_key(o));
    if (x) expected_free(rc, x);
    set_added(ctx, o);
}

void replicaset_start(struct controllers *c)
{
    static const struct informer_handler pods = {pod_added, pod_updated, pod_deleted, NULL};
    static const struct informer_handler sets = {set_added, set_updated, set_deleted, NULL};
    struct replicaset_controller *rc = mem_must_calloc(1, sizeof(*rc));
    c->replicaset = rc;
    rc->c = c;
    rc->queue = controllers_queue(c, "replicaset", process, rc);
    informer_add_handler(c->pods, &pods, rc);
    informer_add_handler(c->replicasets, &sets, rc);
}

void replicaset_free(struct controllers *c)
{
    struct replicaset_controller *rc = c->replicaset;
    smap_for_each(node, &rc->expected) expected_free(rc, container_of(node, struct expected, node));
    smap_release(&rc->expected);
    mem_free(rc);
}
