/* Nodes that stop reporting. By our own clock: a node lives as long as its Lease or its status
 * changes. After the grace period its conditions become Unknown and its pods not ready; conditions
 * become taints (NoSchedule at once, NoExecute at a limited rate, and not at all while every node
 * is gone: then it is us who are cut off); pods that do not tolerate a NoExecute taint, or not for
 * longer, are deleted; so are, after the grace period, pods whose node is gone altogether. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"
#include "clients/lib/selector.h"

#define NOT_READY "node.kubernetes.io/not-ready"
#define UNREACHABLE "node.kubernetes.io/unreachable"

struct node_state {
    struct smap_node node; /* key: name */
    uint64_t seen_ms;      /* when something of it last changed, by our clock */
    bool evict;            /* NoExecute was allowed by the rate limit */
    char key[];
};

struct node_controller {
    struct controllers *c;
    struct workqueue *queue, *evictions; /* of nodes; of pods on tainted nodes */
    struct smap states;
    uv_timer_t *timer;
    double rate, tokens; /* NoExecute taints per second */
    uint64_t refilled_ms;
    bool all_gone;
};

static struct node_state *state_of(struct node_controller *nc, struct slice name)
{
    struct node_state *st = smap_entry(&nc->states, name, struct node_state, node);
    if (st) return st;
    st = mem_must_calloc(1, sizeof(*st) + name.len);
    memcpy(st->key, name.data, name.len);
    st->seen_ms = clock_mono_ms();
    smap_insert(&nc->states, &st->node, slice_make(st->key, name.len));
    return st;
}

static bool is_silent(struct node_controller *nc, const struct kube_object *o)
{
    return clock_mono_ms() >= state_of(nc, o->name)->seen_ms + nc->c->node_grace_ms;
}

/* ---- conditions ----------------------------------------------------------------------------- */

static struct json *unknown_conditions(struct arena *a, const struct kube_object *o,
                                       bool *ret_changed)
{
    static const char *const types[] = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure"};
    struct json *list = json_array(a);
    const char *now = kjson_time(a, clock_wall_ms());
    for (int i = 0; list && i < 4; i++) {
        const struct json *old = condition_of(o->json, types[i]);
        if (json_is_str(json_get(old, "status"), "Unknown")) continue;
        struct slice beat = json_text(json_get(old, "lastHeartbeatTime"));
        *ret_changed = true;
        struct json *c = kjson(
            a,
            "{type:s,status:'Unknown',lastHeartbeatTime:t,lastTransitionTime:s,reason:s,message:s}",
            types[i], beat.len ? beat : slice_str(now), now,
            old ? "NodeStatusUnknown" : "NodeStatusNeverUpdated",
            old ? "Kubelet stopped posting node status." : "Kubelet never posted node status.");
        if (json_push(a, list, c)) return NULL;
    }
    return list;
}

static void patch_status(struct sync *s, const struct kube_resource *r, const struct kube_object *o,
                         struct json *conditions)
{
    struct kube_request q = {
        .verb = KUBE_STRATEGIC_PATCH,
        .resource = r,
        .ns = o->ns,
        .name = o->name,
        .subresource = "status",
        .body = kjson(&s->arena, "{metadata:{uid:t},status:{conditions:o}}", o->uid, conditions)};
    sync_sent(s);
    kube_send(s->c->app.client, &q, sync_done, s);
}

/* So that no Service sends anything to them. */
static void pods_not_ready(struct sync *s, const struct kube_object *node)
{
    struct controllers *c = s->c;
    struct arena *a = &s->arena;
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_node, node->name); p;
         p = informer_next(p, c->pods_by_node)) {
        if (!condition_is(p->json, "Ready", "True")) continue;
        patch_status(s, &KUBE_PODS, p,
                     kjson(a, "[{type:'Ready',status:'False',lastTransitionTime:s}]",
                           kjson_time(a, clock_wall_ms())));
    }
}

static void mark_unknown(struct sync *s, const struct kube_object *o)
{
    bool changed = false;
    struct json *conditions = unknown_conditions(&s->arena, o, &changed);
    if (!conditions) s->failed = true;
    if (!conditions || !changed) return;
    log_warn("node stopped reporting node=%.*s", (int)o->name.len, o->name.data);
    recorder_event(s->c->node_events, &KUBE_NODES, o, "Normal", "NodeNotReady",
                   "Node %.*s status is now: NodeNotReady", (int)o->name.len, o->name.data);
    patch_status(s, &KUBE_NODES, o, conditions);
    pods_not_ready(s, o);
}

/* ---- taints --------------------------------------------------------------------------------- */

static bool is_managed(struct slice key)
{
    static const char *const keys[] = {NOT_READY,
                                       UNREACHABLE,
                                       "node.kubernetes.io/unschedulable",
                                       "node.kubernetes.io/memory-pressure",
                                       "node.kubernetes.io/disk-pressure",
                                       "node.kubernetes.io/pid-pressure",
                                       "node.kubernetes.io/network-unavailable",
                                       NULL};
    for (const char *const *k = keys; *k; k++)
        if (slice_eq_str(key, *k)) return true;
    return false;
}

static const struct json *find_taint(const struct json *list, struct slice key, struct slice effect)
{
    for (size_t i = 0; i < (list ? list->count : 0); i++) {
        const struct json *t = json_at(list, i);
        if (slice_eq(json_text(json_get(t, "key")), key) &&
            slice_eq(json_text(json_get(t, "effect")), effect))
            return t;
    }
    return NULL;
}

static void want_taint(struct arena *a, struct json *list, const struct json *have, const char *key,
                       const char *effect)
{
    const struct json *old = find_taint(have, slice_str(key), slice_str(effect));
    bool timed = !strcmp(effect, "NoExecute");
    struct json *t = old     ? json_clone(a, old)
                     : timed ? kjson(a, "{key:s,effect:s,timeAdded:s}", key, effect,
                                     kjson_time(a, clock_wall_ms()))
                             : kjson(a, "{key:s,effect:s}", key, effect);
    if (list && t) json_push(a, list, t);
}

static bool was_evicted(const struct json *taints)
{
    return find_taint(taints, SLICE_LIT(NOT_READY), SLICE_LIT("NoExecute")) ||
           find_taint(taints, SLICE_LIT(UNREACHABLE), SLICE_LIT("NoExecute"));
}

static bool may_evict(struct node_controller *nc, struct node_state *st)
{
    if (st->evict) return true;
    if (nc->all_gone) return false;
    uint64_t now = clock_mono_ms();
    nc->tokens = fmin(1, nc->tokens + (double)(now - nc->refilled_ms) / 1000 * nc->rate);
    nc->refilled_ms = now;
    if (nc->tokens < 1) return false;
    nc->tokens -= 1;
    st->evict = true;
    return true;
}

/* The taints that the node should have: others' as they are, then ours. */
static struct json *wanted_taints(struct node_controller *nc, struct arena *a,
                                  const struct kube_object *o, bool *ret_wait)
{
    static const struct {
        const char *type, *key;
    } pressures[] = {{"MemoryPressure", "node.kubernetes.io/memory-pressure"},
                     {"DiskPressure", "node.kubernetes.io/disk-pressure"},
                     {"PIDPressure", "node.kubernetes.io/pid-pressure"},
                     {"NetworkUnavailable", "node.kubernetes.io/network-unavailable"}};
    const struct json *have = json_path(o->json, "spec.taints");
    struct json *list = json_array(a);
    for (size_t i = 0; list && i < (have ? have->count : 0); i++)
        if (!is_managed(json_text(json_get(json_at(have, i), "key"))) &&
            json_push(a, list, json_clone(a, json_at(have, i))))
            return NULL;
    if (json_path_bool(o->json, "spec.unschedulable", false))
        want_taint(a, list, have, "node.kubernetes.io/unschedulable", "NoSchedule");
    for (int i = 0; i < 4; i++)
        if (condition_is(o->json, pressures[i].type, "True"))
            want_taint(a, list, have, pressures[i].key, "NoSchedule");
    struct node_state *st = state_of(nc, o->name);
    if (condition_is(o->json, "Ready", "True")) {
        st->evict = false;
        return list;
    }
    const char *key = condition_is(o->json, "Ready", "False") || !condition_of(o->json, "Ready")
                          ? NOT_READY
                          : UNREACHABLE;
    want_taint(a, list, have, key, "NoSchedule");
    if (!nc->all_gone && was_evicted(have)) st->evict = true; /* allowed by a leader before us */
    if (may_evict(nc, st)) want_taint(a, list, have, key, "NoExecute");
    else *ret_wait = true;
    return list;
}

static bool same_taints(const struct json *a, const struct json *b)
{
    size_t n = a ? a->count : 0;
    if (n != (b ? b->count : 0)) return false;
    for (size_t i = 0; i < n; i++)
        if (!find_taint(b, json_text(json_get(json_at(a, i), "key")),
                        json_text(json_get(json_at(a, i), "effect"))))
            return false;
    return true;
}

static void sync_taints(struct node_controller *nc, struct sync *s, const struct kube_object *o)
{
    bool wait = false;
    struct arena *a = &s->arena;
    struct json *want = wanted_taints(nc, a, o, &wait);
    if (wait) workqueue_add_after(nc->queue, o->name, nc->c->node_period_ms);
    if (!want) s->failed = true;
    if (!want || same_taints(json_path(o->json, "spec.taints"), want)) return;
    struct json *patch = kjson(a, "{metadata:{resourceVersion:s},spec:{taints:o}}",
                               arena_printf(a, "%lld", (long long)o->resource_version),
                               want->count ? want : json_null(a));
    sync_sent(s);
    kube_patch(nc->c->app.client, &KUBE_NODES, o->ns, o->name, NULL, patch, sync_done, s);
}

/* ---- evictions ------------------------------------------------------------------------------ */

/* How long the pod may stay: INT64_MAX = for good, <= now = not at all. Wall clock. */
static int64_t may_stay_until(const struct kube_object *pod, const struct kube_object *node)
{
    const struct json *taints = json_path(node->json, "spec.taints"),
                      *tolerations = json_path(pod->json, "spec.tolerations");
    int64_t until = INT64_MAX;
    for (size_t i = 0; i < (taints ? taints->count : 0); i++) {
        const struct json *taint = json_at(taints, i);
        if (!json_is_str(json_get(taint, "effect"), "NoExecute")) continue;
        bool tolerated = false;
        int64_t least = INT64_MAX, added;
        if (!kjson_parse_time(json_text(json_get(taint, "timeAdded")), &added))
            added = clock_wall_ms();
        for (size_t k = 0; k < (tolerations ? tolerations->count : 0); k++) {
            const struct json *t = json_at(tolerations, k);
            if (!toleration_tolerates(t, taint)) continue;
            tolerated = true;
            int64_t seconds = json_path_int(t, "tolerationSeconds", -1);
            if (!json_get(t, "tolerationSeconds")) continue;
            int64_t end = seconds <= 0 ? 0 : added + seconds * 1000;
            if (end < least) least = end;
        }
        if (!tolerated) return 0;
        if (least < until) until = least;
    }
    return until;
}

struct orphan {
    struct sync *sync;
    struct kube_object *pod;
};

static void on_node(void *ctx, const struct kube_result *r)
{
    struct orphan *q = ctx;
    struct sync *s = q->sync;
    struct kube_object *p = q->pod;
    if (r->code == ERR_NOT_FOUND) {
        log_info("deleting a pod whose node is gone pod=%.*s", (int)s->key.len, s->key.data);
        sync_sent(s);
        kube_delete(s->c->app.client, &KUBE_PODS, p->ns, p->name, p->uid, 0, 0, NULL, sync_done, s);
    }
    kube_object_unref(p);
    sync_done(s, r);
}

/* Nobody is left to stop it. The cache may lag, so the API server itself must say so. */
static void delete_if_node_gone(struct sync *s, struct kube_object *p)
{
    struct orphan *q = arena_alloc(&s->arena, sizeof(*q));
    if (!q) {
        s->failed = true;
        return;
    }
    *q = (struct orphan){s, kube_object_ref(p)};
    sync_sent(s);
    kube_get(s->c->app.client, &KUBE_NODES, (struct slice){0}, index_node_name(p), on_node, q);
}

static void process_pod(void *ctx, struct slice key)
{
    struct node_controller *nc = ctx;
    struct controllers *c = nc->c;
    struct sync *s = sync_new(c, nc->evictions, key);
    struct kube_object *p = informer_get_key(c->pods, key);
    struct kube_object *n = p ? informer_get_key(c->nodes, index_node_name(p)) : NULL;
    if (p && !n && index_node_name(p).len) delete_if_node_gone(s, p);
    int64_t now = clock_wall_ms(), until = n && !is_deleting(p) ? may_stay_until(p, n) : INT64_MAX;
    if (until <= now) {
        recorder_event(c->node_events, &KUBE_PODS, p, "Normal", "TaintManagerEviction",
                       "Marking for deletion Pod %.*s", (int)key.len, key.data);
        sync_sent(s);
        kube_delete(c->app.client, &KUBE_PODS, p->ns, p->name, p->uid, 0, -1, NULL, sync_done, s);
    } else if (until != INT64_MAX) {
        workqueue_add_after(nc->evictions, key, (uint64_t)(until - now));
    }
    sync_release(s);
}

static bool has_no_execute(const struct kube_object *o)
{
    const struct json *taints = json_path(o->json, "spec.taints");
    for (size_t i = 0; i < (taints ? taints->count : 0); i++)
        if (json_is_str(json_get(json_at(taints, i), "effect"), "NoExecute")) return true;
    return false;
}

static void wake_pods(struct node_controller *nc, const struct kube_object *node)
{
    struct controllers *c = nc->c;
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_node, node->name); p;
         p = informer_next(p, c->pods_by_node))
        workqueue_add(nc->evictions, kube_object_key(p));
}

/* ---- the turn ------------------------------------------------------------------------------- */

static void process(void *ctx, struct slice key)
{
    struct node_controller *nc = ctx;
    struct sync *s = sync_new(nc->c, nc->queue, key);
    struct kube_object *o = informer_get_key(nc->c->nodes, key);
    if (o && is_silent(nc, o) &&
        (condition_is(o->json, "Ready", "True") || !condition_of(o->json, "Ready"))) {
        mark_unknown(s, o); /* taints follow when the change is seen */
    } else if (o) {
        if (is_silent(nc, o) && condition_is(o->json, "Ready", "Unknown"))
            pods_not_ready(s, o); /* those that the turn that marked it did not get to */
        sync_taints(nc, s, o);
    }
    sync_release(s);
}

static void on_timer(uv_timer_t *t)
{
    struct node_controller *nc = t->data;
    size_t silent = 0;
    for (struct kube_object *o = informer_first_object(nc->c->nodes); o;
         o = informer_next_object(nc->c->nodes, o)) {
        if (!is_silent(nc, o)) continue;
        silent++;
        if (nc->c->leading) workqueue_add(nc->queue, o->name);
    }
    nc->all_gone = silent > 0 && silent == informer_count(nc->c->nodes);
}

static void node_added(void *ctx, struct kube_object *o)
{
    struct node_controller *nc = ctx;
    state_of(nc, o->name)->seen_ms = clock_mono_ms();
    workqueue_add(nc->queue, o->name);
    if (has_no_execute(o)) wake_pods(nc, o);
}

static void node_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    struct node_controller *nc = ctx;
    const struct json *before = condition_of(old->json, "Ready"),
                      *now = condition_of(o->json, "Ready");
    struct slice x = json_text(json_get(before, "lastHeartbeatTime")),
                 y = json_text(json_get(now, "lastHeartbeatTime"));
    if (!slice_eq(x, y) ||
        (condition_is(o->json, "Ready", "True") && !condition_is(old->json, "Ready", "True")))
        state_of(nc, o->name)->seen_ms = clock_mono_ms();
    workqueue_add(nc->queue, o->name);
    if (has_no_execute(o) || has_no_execute(old)) wake_pods(nc, o);
}

static void node_deleted(void *ctx, struct kube_object *o)
{
    struct node_controller *nc = ctx;
    struct controllers *c = nc->c;
    struct node_state *st = smap_entry(&nc->states, o->name, struct node_state, node);
    for (struct kube_object *p = informer_first(c->pods, c->pods_by_node, o->name); p;
         p = informer_next(p, c->pods_by_node))
        workqueue_add_after(nc->evictions, kube_object_key(p), c->node_grace_ms);
    if (!st) return;
    smap_remove(&nc->states, &st->node);
    mem_free(st);
}

static void lease_changed(void *ctx, struct kube_object *o)
{
    struct node_controller *nc = ctx;
    if (!informer_get_key(nc->c->nodes, o->name)) return;
    struct node_state *st = state_of(nc, o->name);
    st->seen_ms = clock_mono_ms();
}

static void lease_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    if (!slice_eq(json_path_text(old->json, "spec.renewTime"),
                  json_path_text(o->json, "spec.renewTime")))
        lease_changed(ctx, o);
}

static void pod_added(void *ctx, struct kube_object *p)
{
    struct node_controller *nc = ctx;
    struct kube_object *n = informer_get_key(nc->c->nodes, index_node_name(p));
    if (n && has_no_execute(n)) workqueue_add(nc->evictions, kube_object_key(p));
    if (!n && index_node_name(p).len) /* gone, or not seen yet */
        workqueue_add_after(nc->evictions, kube_object_key(p), nc->c->node_grace_ms);
}

static void pod_updated(void *ctx, struct kube_object *old, struct kube_object *p)
{
    if (!slice_eq(index_node_name(old), index_node_name(p))) pod_added(ctx, p);
}

void node_start(struct controllers *c)
{
    static const struct informer_handler nodes = {node_added, node_updated, node_deleted, NULL};
    static const struct informer_handler leases = {lease_changed, lease_updated, NULL, NULL};
    static const struct informer_handler pods = {pod_added, pod_updated, NULL, NULL};
    struct node_controller *nc = mem_must_calloc(1, sizeof(*nc));
    c->node = nc;
    nc->c = c;
    nc->rate = strtod(c->eviction_rate, NULL);
    nc->tokens = 1;
    nc->refilled_ms = clock_mono_ms();
    nc->queue = controllers_queue(c, "node", process, nc);
    nc->evictions = controllers_queue(c, "eviction", process_pod, nc);
    nc->timer = mem_must_calloc(1, sizeof(*nc->timer));
    uv_timer_init(&c->app.loop, nc->timer);
    nc->timer->data = nc;
    uv_timer_start(nc->timer, on_timer, c->node_period_ms, c->node_period_ms);
    informer_add_handler(c->nodes, &nodes, nc);
    informer_add_handler(c->leases, &leases, nc);
    informer_add_handler(c->pods, &pods, nc);
}

/* While we did not lead we may have been cut off, and then it was us who did not hear. */
void node_leading(struct controllers *c)
{
    smap_for_each(node, &c->node->states) container_of(node, struct node_state, node)->seen_ms =
        clock_mono_ms();
    c->node->all_gone = false;
}

static void timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

void node_free(struct controllers *c)
{
    struct node_controller *nc = c->node;
    uv_close((uv_handle_t *)nc->timer, timer_closed);
    smap_for_each(node, &nc->states)
    {
        smap_remove(&nc->states, node);
        mem_free(container_of(node, struct node_state, node));
    }
    smap_release(&nc->states);
    mem_free(nc);
}
