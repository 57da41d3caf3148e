/* Deployments: one new ReplicaSet for the current template, and the old ones on their way out.
 *
 * A turn looks at the cache, makes the first step that is needed (create the new ReplicaSet, scale
 * some, write annotations), and when the requests have been answered writes status. Each write to a
 * ReplicaSet names the resourceVersion it was decided on, so that a decision on an old view is
 * refused and made again. What follows is done when the ReplicaSets' own changes arrive. */
#include "clients/controllers/deployment.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/kjson.h"
#include "clients/lib/selector.h"

struct deployment_controller {
    struct controllers *c;
    struct workqueue *queue;
};

/* ---- the ReplicaSets ------------------------------------------------------------------------ */

static int64_t annotation_int(const struct json *object, const char *name, int64_t otherwise)
{
    struct slice s = json_text(json_get(json_path(object, "metadata.annotations"), name));
    char text[24] = "";
    if (!s.len || s.len >= sizeof(text)) return otherwise;
    memcpy(text, s.data, s.len);
    return strtoll(text, NULL, 10);
}

int64_t deployment_revision(const struct json *object)
{
    return annotation_int(object, REVISION, 0);
}

static int64_t created_ms(const struct kube_object *o)
{
    int64_t ms;
    return kjson_parse_time(json_path_text(o->json, "metadata.creationTimestamp"), &ms) ? ms : 0;
}

/* Equal but for the hash label that we add ourselves. */
static bool same_template(struct arena *a, const struct json *x, const struct json *y)
{
    struct json *p = json_clone(a, x), *q = json_clone(a, y), *both[] = {p, q};
    for (int i = 0; i < 2; i++) {
        struct json *meta = json_get(both[i], "metadata"), *labels = json_get(meta, "labels");
        if (labels) json_remove(labels, SLICE_LIT(HASH_LABEL));
        if (labels && !labels->count) json_remove(meta, SLICE_LIT("labels"));
        const struct json *created = json_get(meta, "creationTimestamp");
        if (created && created->type == JSON_NULL)
            json_remove(meta, SLICE_LIT("creationTimestamp"));
    }
    return p && q && json_equal(p, q);
}

static int by_age(const void *x, const void *y)
{
    const struct rs_view *a = x, *b = y;
    int64_t p = created_ms(a->o), q = created_ms(b->o);
    return p != q ? (p > q) - (p < q) : slice_cmp(a->o->name, b->o->name);
}

static void view_fill(struct rs_view *v, struct kube_object *o)
{
    *v = (struct rs_view){.o = o};
    v->set.replicas = v->set.target = json_path_int(o->json, "spec.replicas", 1);
    v->set.available = json_path_int(o->json, "status.availableReplicas", 0);
    v->set.desired = annotation_int(o->json, DESIRED, -1);
    v->set.max = annotation_int(o->json, MAX_REPLICAS, -1);
    v->set.created_ms = created_ms(o);
    v->revision = deployment_revision(o->json);
}

/* Ours, oldest first; orphans that match are adopted on the way. */
static void collect(struct deployment *d)
{
    struct controllers *c = d->dc->c;
    const struct json *selector = json_path(d->o->json, "spec.selector");
    struct objects found = {0};
    for (struct kube_object *rs =
             informer_first(c->replicasets, c->replicasets_by_owner, d->o->uid);
         rs; rs = informer_next(rs, c->replicasets_by_owner)) {
        if (label_selector_matches(selector, json_path(rs->json, "metadata.labels")))
            objects_add(&found, rs);
        else if (!is_deleting(rs)) release_object(d->sync, &KUBE_REPLICASETS, rs, d->o->uid);
    }
    for (struct kube_object *rs = informer_first(c->replicasets, c->replicasets_by_ns, d->o->ns);
         rs && !is_deleting(d->o); rs = informer_next(rs, c->replicasets_by_ns)) {
        if (kube_controller_of(rs->json) || is_deleting(rs)) continue;
        if (!label_selector_matches(selector, json_path(rs->json, "metadata.labels"))) continue;
        adopt_object(d->sync, &KUBE_REPLICASETS, rs, &KUBE_DEPLOYMENTS, d->o);
    }
    d->sets = arena_calloc(&d->sync->arena, found.n + 1, sizeof(*d->sets));
    if (!d->sets) d->sync->failed = true;
    for (size_t i = 0; d->sets && i < found.n; i++) view_fill(&d->sets[d->n_sets++], found.list[i]);
    objects_release(&found);
    if (d->n_sets > 1) qsort(d->sets, d->n_sets, sizeof(*d->sets), by_age);
    for (size_t i = 0; i < d->n_sets; i++) {
        if (d->sets[i].revision > d->max_revision) d->max_revision = d->sets[i].revision;
        if (d->new_set ||
            !same_template(&d->sync->arena, json_path(d->sets[i].o->json, "spec.template"),
                           json_path(d->o->json, "spec.template")))
            continue;
        d->new_set = &d->sets[i];
        d->new_set->set.is_new = true;
    }
    for (size_t i = 0; i < d->n_sets; i++)
        if (&d->sets[i] != d->new_set && d->sets[i].revision > d->max_old_revision)
            d->max_old_revision = d->sets[i].revision;
}

/* ---- writing ReplicaSets -------------------------------------------------------------------- */

static void patch_set(struct deployment *d, const struct rs_view *v, struct json *annotations,
                      int64_t replicas)
{
    struct arena *a = &d->sync->arena;
    const char *version = arena_printf(a, "%lld", (long long)v->o->resource_version);
    struct json *spec = replicas >= 0 ? kjson(a, "{replicas:i}", replicas) : NULL;
    struct json *patch = kjson(a, "{metadata:{resourceVersion:s,annotations:o?},spec:o?}", version,
                               annotations, spec);
    sync_sent(d->sync);
    kube_patch(d->dc->c->app.client, &KUBE_REPLICASETS, v->o->ns, v->o->name, NULL, patch,
               sync_done, d->sync);
    d->wrote = true;
}

static struct json *size_annotations(struct deployment *d)
{
    struct arena *a = &d->sync->arena;
    return kjson(a, "{$:s,$:s}", DESIRED, arena_printf(a, "%lld", (long long)d->want), MAX_REPLICAS,
                 arena_printf(a, "%lld", (long long)(d->want + d->limits.max_surge)));
}

static void scale_set(struct deployment *d, struct rs_view *v)
{
    int64_t from = v->set.replicas, to = v->set.target;
    bool annotate = v->set.desired != d->want || v->set.max != d->want + d->limits.max_surge;
    if (from == to && !(annotate && from > 0)) return;
    patch_set(d, v, size_annotations(d), from == to ? -1 : to);
    if (from == to) return;
    recorder_event(d->dc->c->deployment_events, &KUBE_DEPLOYMENTS, d->o, "Normal",
                   "ScalingReplicaSet", "Scaled %s replica set %.*s from %lld to %lld",
                   to > from ? "up" : "down", (int)v->o->name.len, v->o->name.data, (long long)from,
                   (long long)to);
    log_info("scaled replicaset=%.*s/%.*s from=%lld to=%lld", (int)v->o->ns.len, v->o->ns.data,
             (int)v->o->name.len, v->o->name.data, (long long)from, (long long)to);
}

static bool skipped_annotation(struct slice name)
{
    static const char *const names[] = {"kubectl.kubernetes.io/last-applied-configuration",
                                        REVISION,
                                        REVISION_HISTORY,
                                        DESIRED,
                                        MAX_REPLICAS,
                                        "deprecated.deployment.rollback.to",
                                        NULL};
    for (const char *const *n = names; *n; n++)
        if (slice_eq_str(name, *n)) return true;
    return false;
}

/* The Deployment's annotations go to its new ReplicaSet (change-cause, for the history). */
static bool copy_annotations(struct deployment *d, struct json *to, const struct kube_object *rs)
{
    const struct json *from = json_path(d->o->json, "metadata.annotations");
    const struct json *have = rs ? json_path(rs->json, "metadata.annotations") : NULL;
    bool changed = false;
    for (size_t i = 0; i < (from ? from->count : 0); i++) {
        struct slice name = from->members[i].name, v = json_text(from->members[i].value);
        const struct json *old = json_get_slice(have, name);
        if (skipped_annotation(name) || (old && slice_eq(json_text(old), v))) continue;
        if (json_set(&d->sync->arena, to, name, json_string(&d->sync->arena, v)))
            d->sync->failed = true;
        changed = true;
    }
    return changed;
}

/* A name for the template: any function of it will do, as equality is what decides. */
static const char *template_hash(struct arena *a, const struct json *template, int64_t collisions)
{
    static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
    struct buf text = {0};
    json_write(&text, template);
    if (collisions) buf_printf(&text, "%lld", (long long)collisions);
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < text.len; i++) h = (h ^ text.data[i]) * 16777619u;
    buf_release(&text);
    char out[11] = "";
    for (int i = 0; i < 10 && (h || i == 0); i++, h /= 10) out[i] = alphabet[h % 10];
    return arena_strdup(a, slice_str(out));
}

static void write_deployment_status(struct deployment *d);

static void on_set_created(void *ctx, const struct kube_result *r)
{
    struct deployment *d = ctx;
    struct recorder *events = d->dc->c->deployment_events;
    const struct json *made = r->code ? NULL : kube_result_json(r);
    struct slice name = json_path_text(made, "metadata.name");
    if (!r->code) {
        d->created_name = arena_strdup(&d->sync->arena, name);
        recorder_event(events, &KUBE_DEPLOYMENTS, d->o, "Normal", "ScalingReplicaSet",
                       "Scaled up replica set %.*s from 0 to %lld", (int)name.len, name.data,
                       (long long)d->created_replicas);
    } else if (r->code == ERR_EXISTS &&
               !informer_get(d->dc->c->replicasets, d->o->ns, slice_str(d->created_key))) {
        /* Ours, most likely, and not yet in the cache: it will wake us. */
    } else if (r->code == ERR_EXISTS) {
        d->collision = true; /* another template has this hash */
    } else {
        d->create_error = arena_strdup(&d->sync->arena, slice_str(r->message));
        recorder_event(events, &KUBE_DEPLOYMENTS, d->o, "Warning", "ReplicaSetCreateError",
                       "Failed to create new replica set \"%s\": %s", d->created_key, r->message);
        log_warn("replicaset not created deployment=%.*s error=\"%s\"", (int)d->sync->key.len,
                 d->sync->key.data, r->message);
    }
    sync_release(d->sync);
}

static void create_set(struct deployment *d, int64_t replicas)
{
    struct arena *a = &d->sync->arena;
    const struct json *spec = json_get(d->o->json, "spec");
    struct json *template = json_clone(a, json_get(spec, "template")),
                *selector = json_clone(a, json_get(spec, "selector"));
    int64_t collisions = json_path_int(d->o->json, "status.collisionCount", 0);
    const char *hash = template ? template_hash(a, template, collisions) : NULL;
    struct json *meta = json_get(template, "metadata"), *labels = json_get(meta, "labels"),
                *match = json_get(selector, "matchLabels");
    if (hash && meta && !labels && (labels = json_object(a)))
        json_set_str(a, meta, "labels", labels);
    if (hash && selector && !match && (match = json_object(a)))
        json_set_str(a, selector, "matchLabels", match);
    struct json *annotations = size_annotations(d);
    if (!hash || !labels || !match || !annotations ||
        json_set_str(a, labels, HASH_LABEL, json_str(a, hash)) ||
        json_set_str(a, match, HASH_LABEL, json_str(a, hash))) {
        d->sync->failed = true;
        return;
    }
    json_set_str(
        a, annotations, REVISION,
        json_string(a, slice_str(arena_printf(a, "%lld", (long long)d->max_old_revision + 1))));
    copy_annotations(d, annotations, NULL);
    d->created_key = arena_printf(a, "%.*s-%s", (int)d->o->name.len, d->o->name.data, hash);
    d->created_replicas = replicas;
    struct json *rs =
        kjson(a,
              "{apiVersion:s,kind:'ReplicaSet',metadata:{name:s,namespace:t,labels:o,annotations:o,"
              "ownerReferences:[o]},"
              "spec:{replicas:i,minReadySeconds:i,selector:o,template:o}}",
              KUBE_REPLICASETS.api_version, d->created_key, d->o->ns, json_clone(a, labels),
              annotations, owner_reference(a, &KUBE_DEPLOYMENTS, d->o), replicas,
              json_path_int(spec, "minReadySeconds", 0), selector, template);
    sync_sent(d->sync);
    kube_create(d->dc->c->app.client, &KUBE_REPLICASETS, d->o->ns, rs, on_set_created, d);
    d->wrote = true;
}

/* The new set's revision is the highest, and its annotations are the Deployment's. */
static void sync_new_set(struct deployment *d)
{
    struct arena *a = &d->sync->arena;
    struct json *annotations = json_object(a);
    if (!annotations) return;
    bool changed = copy_annotations(d, annotations, d->new_set->o);
    int64_t revision = d->max_old_revision + 1;
    if (d->new_set->revision < revision) {
        struct slice history = json_text(
            json_get(json_path(d->new_set->o->json, "metadata.annotations"), REVISION_HISTORY));
        if (d->new_set->revision)
            json_set_str(
                a, annotations, REVISION_HISTORY,
                json_string(a, slice_str(arena_printf(a, "%.*s%s%lld", (int)history.len,
                                                      history.len ? (const char *)history.data : "",
                                                      history.len ? "," : "",
                                                      (long long)d->new_set->revision))));
        json_set_str(a, annotations, REVISION,
                     json_string(a, slice_str(arena_printf(a, "%lld", (long long)revision))));
        d->new_set->revision = revision;
        changed = true;
    }
    int64_t min_ready = json_path_int(d->o->json, "spec.minReadySeconds", 0);
    bool min_changed = min_ready != json_path_int(d->new_set->o->json, "spec.minReadySeconds", 0);
    if (!changed && !min_changed) return;
    const char *version = arena_printf(a, "%lld", (long long)d->new_set->o->resource_version);
    struct json *patch =
        kjson(a, "{metadata:{resourceVersion:s,annotations:o},spec:{minReadySeconds:i}}", version,
              annotations, min_ready);
    sync_sent(d->sync);
    kube_patch(d->dc->c->app.client, &KUBE_REPLICASETS, d->o->ns, d->new_set->o->name, NULL, patch,
               sync_done, d->sync);
    d->wrote = true;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static int64_t total_replicas(const struct deployment *d)
{
    int64_t n = 0;
    for (size_t i = 0; i < d->n_sets; i++) n += d->sets[i].set.replicas;
    return n;
}

static bool is_scaling(const struct deployment *d)
{
    for (size_t i = 0; i < d->n_sets; i++) {
        const struct rollout_set *s = &d->sets[i].set;
        if (s->replicas > 0 && s->desired >= 0 && s->desired != d->want) return true;
    }
    return false;
}

/* Runs the arithmetic on a plain array and carries out what it says. */
static void step_with(struct deployment *d, bool scaling)
{
    struct rollout_set *sets = arena_calloc(&d->sync->arena, d->n_sets + 1, sizeof(*sets)),
                       *new_set = NULL;
    size_t n = 0;
    if (!sets) return;
    if (scaling) {
        for (size_t i = 0; i < d->n_sets; i++) sets[i] = d->sets[i].set;
        rollout_scale(d->want, d->limits, json_path_int(d->o->json, "status.replicas", 0),
                      !d->recreate, sets, d->n_sets);
        for (size_t i = 0; i < d->n_sets; i++) d->sets[i].set.target = sets[i].target;
    } else {
        for (size_t i = 0; i < d->n_sets; i++)
            if (&d->sets[i] != d->new_set) sets[n++] = d->sets[i].set;
        if (d->new_set) new_set = &d->new_set->set;
        rollout_step(d->want, d->limits, new_set, sets, n);
        for (size_t i = 0, k = 0; i < d->n_sets; i++)
            if (&d->sets[i] != d->new_set) d->sets[i].set.target = sets[k++].target;
    }
    for (size_t i = 0; i < d->n_sets; i++) scale_set(d, &d->sets[i]);
}

static bool old_pods_running(const struct deployment *d)
{
    struct controllers *c = d->dc->c;
    for (size_t i = 0; i < d->n_sets; i++) {
        if (&d->sets[i] == d->new_set) continue;
        struct slice uid = d->sets[i].o->uid;
        for (struct kube_object *p = informer_first(c->pods, c->pods_by_owner, uid); p;
             p = informer_next(p, c->pods_by_owner)) {
            struct slice phase = json_path_text(p->json, "status.phase");
            if (!slice_eq_str(phase, "Succeeded") && !slice_eq_str(phase, "Failed")) return true;
        }
    }
    return false;
}

static void step_recreate(struct deployment *d)
{
    for (size_t i = 0; i < d->n_sets; i++) {
        if (&d->sets[i] == d->new_set || d->sets[i].set.replicas == 0) continue;
        d->sets[i].set.target = 0;
        scale_set(d, &d->sets[i]);
    }
    if (d->wrote || old_pods_running(d)) return;
    if (!d->new_set) {
        create_set(d, d->want);
        return;
    }
    d->new_set->set.target = d->want;
    scale_set(d, d->new_set);
}

static int by_revision(const void *x, const void *y)
{
    const struct rs_view *a = *(struct rs_view *const *)x, *b = *(struct rs_view *const *)y;
    return (a->revision > b->revision) - (a->revision < b->revision);
}

/* Old, empty sets beyond the history limit go. */
static void clean_up(struct deployment *d)
{
    int64_t limit = json_path_int(d->o->json, "spec.revisionHistoryLimit", 10);
    struct rs_view **olds = arena_calloc(&d->sync->arena, d->n_sets + 1, sizeof(*olds));
    size_t n = 0;
    for (size_t i = 0; olds && i < d->n_sets; i++)
        if (&d->sets[i] != d->new_set && !is_deleting(d->sets[i].o)) olds[n++] = &d->sets[i];
    if ((int64_t)n <= limit) return;
    qsort(olds, n, sizeof(*olds), by_revision);
    for (size_t i = 0; i < n - (size_t)limit; i++) {
        const struct kube_object *o = olds[i]->o;
        if (olds[i]->set.replicas || json_path_int(o->json, "status.replicas", 0) ||
            json_path_int(o->json, "metadata.generation", 0) >
                json_path_int(o->json, "status.observedGeneration", 0))
            continue;
        sync_sent(d->sync);
        kube_delete(d->dc->c->app.client, &KUBE_REPLICASETS, o->ns, o->name, o->uid, 0, -1,
                    "Background", sync_done, d->sync);
    }
}

static void step(struct deployment *d)
{
    bool paused = json_path_bool(d->o->json, "spec.paused", false);
    if (d->new_set) sync_new_set(d);
    if (d->wrote) return; /* the set moved on: scale it when we have seen that */
    if (paused || is_scaling(d)) {
        step_with(d, true);
        if (paused) clean_up(d);
        return;
    }
    if (d->recreate) {
        step_recreate(d);
    } else if (!d->new_set) {
        create_set(d, rollout_new_replicas(d->want, d->limits, total_replicas(d), 0));
    } else {
        step_with(d, false);
    }
    if (deployment_complete(d)) clean_up(d);
}

/* ---- the turn ------------------------------------------------------------------------------- */

static void deployment_unref(struct deployment *d)
{
    for (size_t i = 0; i < d->n_sets; i++) kube_object_unref(d->sets[i].o);
    kube_object_unref(d->o);
}

/* All requests of the step are answered: status, from what was known before them. */
static void finish(struct sync *s)
{
    struct deployment *d = s->data;
    if (!s->failed) write_deployment_status(d);
    deployment_unref(d);
    sync_release(s);
}

static void finish_failed(struct deployment *d)
{
    deployment_unref(d);
    sync_release(d->sync);
}

static void write_deployment_status(struct deployment *d)
{
    int64_t look_again_ms = 0;
    struct json *patch = deployment_status_patch(d, clock_wall_ms(), &look_again_ms);
    if (look_again_ms) workqueue_add_after(d->dc->queue, d->sync->key, (uint64_t)look_again_ms);
    int64_t revision = d->new_set        ? d->new_set->revision
                       : d->created_name ? d->max_old_revision + 1
                                         : 0;
    struct arena *a = &d->sync->arena;
    if (revision && revision != deployment_revision(d->o->json)) {
        sync_sent(d->sync);
        kube_patch(d->dc->c->app.client, &KUBE_DEPLOYMENTS, d->o->ns, d->o->name, NULL,
                   kjson(a, "{metadata:{uid:t,annotations:{$:s}}}", d->o->uid, REVISION,
                         arena_printf(a, "%lld", (long long)revision)),
                   sync_done, d->sync);
    }
    if (d->create_error) d->sync->failed = true;
    if (!patch) return;
    sync_sent(d->sync);
    kube_patch(d->dc->c->app.client, &KUBE_DEPLOYMENTS, d->o->ns, d->o->name, "status", patch,
               sync_done, d->sync);
}

static void process(void *ctx, struct slice key)
{
    struct deployment_controller *dc = ctx;
    struct kube_object *o = informer_get_key(dc->c->deployments, key);
    struct sync *s = sync_new(dc->c, dc->queue, key);
    struct deployment *d = o ? arena_calloc(&s->arena, 1, sizeof(*d)) : NULL;
    if (!d) {
        sync_release(s);
        return;
    }
    *d = (struct deployment){.dc = dc, .sync = s, .o = kube_object_ref(o)};
    d->want = json_path_int(o->json, "spec.replicas", 1);
    d->limits = rolling_limits(json_get(o->json, "spec"));
    d->recreate = json_is_str(json_path(o->json, "spec.strategy.type"), "Recreate");
    collect(d);
    for (size_t i = 0; i < d->n_sets; i++) kube_object_ref(d->sets[i].o);
    if (s->failed) {
        finish_failed(d);
        return;
    }
    const struct json *selector = json_path(o->json, "spec.selector");
    bool selects_all =
        selector && !json_get(selector, "matchLabels") && !json_get(selector, "matchExpressions");
    if (selects_all)
        recorder_event(dc->c->deployment_events, &KUBE_DEPLOYMENTS, o, "Warning", "SelectingAll",
                       "This deployment is selecting all pods. A non-empty selector is required.");
    else if (!is_deleting(o)) step(d);
    s->data = d;
    s->next = finish;
    sync_release(s);
}

/* ---- events --------------------------------------------------------------------------------- */

static void deployment_added(void *ctx, struct kube_object *o)
{
    workqueue_add(((struct deployment_controller *)ctx)->queue, kube_object_key(o));
}

static void deployment_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    deployment_added(ctx, o);
}

static void wake_owner(struct deployment_controller *dc, const struct kube_object *rs)
{
    const struct json *ref = kube_controller_of(rs->json);
    struct slice name = json_text(json_get(ref, "name"));
    if (json_is_str(json_get(ref, "kind"), "Deployment")) {
        struct kube_object *d = informer_get(dc->c->deployments, rs->ns, name);
        if (d) workqueue_add(dc->queue, kube_object_key(d));
        return;
    }
    if (ref) return;
    struct controllers *c = dc->c;
    for (struct kube_object *d = informer_first(c->deployments, c->deployments_by_ns, rs->ns); d;
         d = informer_next(d, c->deployments_by_ns))
        if (label_selector_matches(json_path(d->json, "spec.selector"),
                                   json_path(rs->json, "metadata.labels")))
            workqueue_add(dc->queue, kube_object_key(d));
}

static void set_added(void *ctx, struct kube_object *o)
{
    wake_owner(ctx, o);
}

static void set_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    if (!slice_eq(index_controller_uid(old), index_controller_uid(o))) wake_owner(ctx, old);
    wake_owner(ctx, o);
}

/* A Recreate deployment waits for its old pods to be gone. */
static void pod_deleted(void *ctx, struct kube_object *o)
{
    struct deployment_controller *dc = ctx;
    struct kube_object *rs = informer_get(dc->c->replicasets, o->ns,
                                          json_text(json_get(kube_controller_of(o->json), "name")));
    if (!rs || !is_controlled_by(o, rs)) return;
    struct slice name = json_text(json_get(kube_controller_of(rs->json), "name"));
    struct kube_object *d = informer_get(dc->c->deployments, o->ns, name);
    if (d && json_is_str(json_path(d->json, "spec.strategy.type"), "Recreate"))
        workqueue_add(dc->queue, kube_object_key(d));
}

void deployment_start(struct controllers *c)
{
    static const struct informer_handler deployments = {deployment_added, deployment_updated, NULL,
                                                        NULL};
    static const struct informer_handler sets = {set_added, set_updated, set_added, NULL};
    static const struct informer_handler pods = {NULL, NULL, pod_deleted, NULL};
    struct deployment_controller *dc = mem_must_calloc(1, sizeof(*dc));
    c->deployment = dc;
    dc->c = c;
    dc->queue = controllers_queue(c, "deployment", process, dc);
    informer_add_handler(c->deployments, &deployments, dc);
    informer_add_handler(c->replicasets, &sets, dc);
    informer_add_handler(c->pods, &pods, dc);
}

void deployment_free(struct controllers *c)
{
    mem_free(c->deployment);
}
