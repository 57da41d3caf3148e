/* The program: informers of pods and nodes feed the model (fit.h) and the queue (queue.h); while we
 * lead, ready pods are given their best node, counted on it at once, and bound by requests that
 * overlap. What cannot be bound is taken off the node and tried again. */
#include "clients/scheduler/scheduler.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/app.h"
#include "clients/lib/kjson.h"
#include "clients/lib/recorder.h"
#include "clients/scheduler/queue.h"

#define PODS_PER_TURN 256
#define BINDINGS_MAX 512

struct scheduler {
    struct app app;
    struct app_leader election;
    const char *name; /* spec.schedulerName */
    struct informer *pods, *nodes;
    struct recorder *recorder;
    struct leader *leader;
    bool leading, changed; /* changed: unschedulable pods may fit now */
    struct fit *fit;
    struct sched_queue queue;
    struct smap by_key;
    uv_idle_t idle;
    uv_timer_t timer;
    size_t n_binding;
};

static void wake(struct scheduler *s);

/* ---- pods ----------------------------------------------------------------------------------- */

/* What neither filters nor scores look at does not stay in memory. */
static void trim_pod(struct json *pod)
{
    static const char *const top[] = {"metadata", "spec", "status", NULL};
    static const char *const meta[] = {"name",
                                       "namespace",
                                       "uid",
                                       "resourceVersion",
                                       "labels",
                                       "ownerReferences",
                                       "deletionTimestamp",
                                       NULL};
    static const char *const spec[] = {"nodeName",
                                       "schedulerName",
                                       "containers",
                                       "initContainers",
                                       "nodeSelector",
                                       "affinity",
                                       "tolerations",
                                       "priority",
                                       "overhead",
                                       "schedulingGates",
                                       "hostNetwork",
                                       "topologySpreadConstraints",
                                       NULL};
    static const char *const container[] = {"resources", "ports", "restartPolicy", NULL};
    static const char *const status[] = {"phase", "conditions", NULL};
    kjson_keep(pod, top);
    kjson_keep(json_get(pod, "metadata"), meta);
    kjson_keep(json_get(pod, "spec"), spec);
    kjson_keep(json_get(pod, "status"), status);
    const char *const lists[] = {"spec.containers", "spec.initContainers"};
    for (int l = 0; l < 2; l++) {
        const struct json *list = json_path(pod, lists[l]);
        for (size_t i = 0; i < (list ? list->count : 0); i++)
            kjson_keep(json_at(list, i), container);
    }
}

static void trim_node(struct json *node)
{
    static const char *const meta[] = {"name", "uid", "resourceVersion", "labels", NULL};
    static const char *const status[] = {"capacity", "allocatable", NULL};
    kjson_keep(json_get(node, "metadata"), meta);
    kjson_keep(json_get(node, "status"), status);
}

static bool is_over(const struct kube_object *o)
{
    struct slice phase = json_path_text(o->json, "status.phase");
    return slice_eq_str(phase, "Succeeded") || slice_eq_str(phase, "Failed");
}

static bool is_ours(const struct scheduler *s, const struct kube_object *o)
{
    struct slice name = json_path_text(o->json, "spec.schedulerName");
    const struct json *gates = json_path(o->json, "spec.schedulingGates");
    return (name.len == 0 || slice_eq_str(name, s->name)) &&
           !json_path(o->json, "metadata.deletionTimestamp") && !(gates && gates->count);
}

static void pod_free(struct scheduler *s, struct sched_pod *p)
{
    smap_remove(&s->by_key, &p->node);
    sched_queue_set(&s->queue, p, POD_NONE);
    if (p->fit.node) s->changed = true;
    fit_pod_release(s->fit, &p->fit);
    mem_free(p);
}

/* A pod that is being bound stays until the answer is here, but counts no more. */
static void pod_drop(struct scheduler *s, struct sched_pod *p)
{
    if (p->state != POD_BINDING) {
        pod_free(s, p);
        return;
    }
    if (p->gone) return;
    p->gone = true;
    fit_unassign(s->fit, &p->fit);
    s->changed = true;
}

static void pod_settle(struct scheduler *s, struct sched_pod *p)
{
    struct slice node = json_path_text(p->fit.object->json, "spec.nodeName");
    if (node.len) {
        fit_assign(s->fit, &p->fit, node);
        sched_queue_set(&s->queue, p, POD_BOUND);
    } else {
        sched_queue_set(&s->queue, p, is_ours(s, p->fit.object) ? POD_READY : POD_NONE);
    }
}

static void pod_added(void *ctx, struct kube_object *o)
{
    struct scheduler *s = ctx;
    struct slice key = kube_object_key(o);
    struct sched_pod *old = smap_entry(&s->by_key, key, struct sched_pod, node);
    bool busy = old && old->state == POD_BINDING; /* `old` may be freed by pod_drop */
    if (old) pod_drop(s, old);
    if (is_over(o) || busy) {
        wake(s);
        return;
    }
    struct sched_pod *p = mem_must_calloc(1, sizeof(*p) + key.len);
    memcpy(p->key, key.data, key.len);
    list_init(&p->link);
    p->owner = s;
    p->priority = json_path_int(o->json, "spec.priority", 0);
    smap_insert(&s->by_key, &p->node, slice_make(p->key, key.len));
    fit_pod_init(s->fit, &p->fit, o);
    pod_settle(s, p);
    wake(s);
}

static bool same_part(const struct kube_object *a, const struct kube_object *b, const char *path)
{
    const struct json *x = json_path(a->json, path), *y = json_path(b->json, path);
    return x && y ? json_equal(x, y) : x == y;
}

static void pod_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    struct scheduler *s = ctx;
    struct sched_pod *p = smap_entry(&s->by_key, kube_object_key(o), struct sched_pod, node);
    if (!p || !slice_eq(old->uid, o->uid)) {
        pod_added(s, o);
        return;
    }
    if (p->gone) return;
    struct slice node = json_path_text(o->json, "spec.nodeName");
    if (is_over(o)) {
        pod_drop(s, p);
        wake(s);
        return;
    }
    if (p->state == POD_BINDING && !node.len) return; /* not yet */
    bool waits = p->state == POD_RESTING || p->state == POD_UNSCHEDULABLE || p->state == POD_READY;
    bool relevant = !same_part(old, o, "spec") || !same_part(old, o, "metadata.labels") ||
                    !same_part(old, o, "metadata.deletionTimestamp");
    bool binding = p->state == POD_BINDING;
    fit_pod_release(s->fit, &p->fit);
    fit_pod_init(s->fit, &p->fit, o);
    if (waits && !relevant) return; /* a status: our own, most likely */
    if (binding) {                  /* the answer still comes */
        fit_assign(s->fit, &p->fit, node);
        return;
    }
    pod_settle(s, p);
    wake(s);
}

static void pod_deleted(void *ctx, struct kube_object *o)
{
    struct scheduler *s = ctx;
    struct sched_pod *p = smap_entry(&s->by_key, kube_object_key(o), struct sched_pod, node);
    if (p) pod_drop(s, p);
    wake(s);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static void node_added(void *ctx, struct kube_object *o)
{
    struct scheduler *s = ctx;
    s->changed |= fit_node_set(s->fit, o);
    wake(s);
}

static void node_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    node_added(ctx, o);
}

static void node_deleted(void *ctx, struct kube_object *o)
{
    struct scheduler *s = ctx;
    fit_node_remove(s->fit, o->name);
}

static void on_synced(void *ctx)
{
    wake(ctx);
}

/* ---- binding -------------------------------------------------------------------------------- */

/* What a pod asks for and does not get is said. */
static void warn_ignored(struct scheduler *s, const struct kube_object *o)
{
    const struct json *spec = json_get(o->json, "spec");
    if (json_path(spec, "affinity.podAffinity") || json_path(spec, "affinity.podAntiAffinity") ||
        json_get(spec, "topologySpreadConstraints"))
        recorder_event(s->recorder, &KUBE_PODS, o, "Warning", "ConstraintsIgnored",
                       "pod affinity and topology spread constraints are not supported by this "
                       "scheduler: placed without them");
}

static void on_bound(void *ctx, const struct kube_result *r)
{
    struct sched_pod *p = ctx;
    struct scheduler *s = p->owner;
    s->n_binding--;
    if (p->gone) {
        struct kube_object *now = informer_get_key(s->pods, p->node.key);
        if (now) kube_object_ref(now);
        pod_free(s, p);
        if (now) pod_added(s, now); /* a new pod of that name came meanwhile */
        kube_object_unref(now);
    } else if (r->code) {
        struct slice known = json_path_text(p->fit.object->json, "spec.nodeName");
        log_warn("binding failed pod=%.*s node=%s error=\"%s\"", (int)p->node.key.len, p->key,
                 p->fit.node ? p->fit.node->name : "", r->message);
        if (known.len) { /* bound after all */
            sched_queue_set(&s->queue, p, POD_BOUND);
        } else {
            fit_unassign(s->fit, &p->fit);
            s->changed = true;
            sched_queue_failed(&s->queue, p, clock_mono_ms(), false);
        }
    } else {
        warn_ignored(s, p->fit.object);
        recorder_event(s->recorder, &KUBE_PODS, p->fit.object, "Normal", "Scheduled",
                       "Successfully assigned %.*s to %s", (int)p->node.key.len, p->key,
                       p->fit.node->name);
        sched_queue_set(&s->queue, p, POD_BOUND);
        p->attempts = 0;
    }
    wake(s);
}

static void bind_pod(struct scheduler *s, struct sched_pod *p, struct fit_node *n)
{
    fit_assign(s->fit, &p->fit, slice_str(n->name));
    sched_queue_set(&s->queue, p, POD_BINDING);
    s->n_binding++;
    struct arena a = {0};
    const struct kube_object *o = p->fit.object;
    struct json *body =
        kjson(&a,
              "{apiVersion:'v1',kind:'Binding',metadata:{name:t,namespace:t,uid:t?},"
              "target:{apiVersion:'v1',kind:'Node',name:s}}",
              o->name, o->ns, o->uid, n->name);
    struct kube_request r = {.verb = KUBE_CREATE,
                             .resource = &KUBE_PODS,
                             .ns = o->ns,
                             .name = o->name,
                             .subresource = "binding",
                             .body = body,
                             .timeout_ms = 10000};
    kube_send(s->app.client, &r, on_bound, p);
    arena_release(&a);
}

static const struct json *scheduled_condition(const struct kube_object *o)
{
    const struct json *list = json_path(o->json, "status.conditions");
    for (size_t i = 0; i < (list ? list->count : 0); i++)
        if (json_is_str(json_get(json_at(list, i), "type"), "PodScheduled"))
            return json_at(list, i);
    return NULL;
}

static void tell_unschedulable(struct scheduler *s, struct sched_pod *p, const char *why)
{
    const struct kube_object *o = p->fit.object;
    recorder_event(s->recorder, &KUBE_PODS, o, "Warning", "FailedScheduling", "%s", why);
    const struct json *have = scheduled_condition(o);
    bool was_false = json_is_str(json_get(have, "status"), "False");
    if (was_false && json_is_str(json_get(have, "message"), why)) return;
    struct arena a = {0};
    const char *since = was_false
                            ? arena_strdup(&a, json_text(json_get(have, "lastTransitionTime")))
                            : kjson_time(&a, clock_wall_ms());
    struct json *body = kjson(&a,
                              "{metadata:{uid:t?},status:{conditions:[{type:'PodScheduled',status:'"
                              "False',reason:'Unschedulable',"
                              "message:s,lastProbeTime:N,lastTransitionTime:s}]}}",
                              o->uid, why, since);
    struct kube_request r = {.verb = KUBE_STRATEGIC_PATCH,
                             .resource = &KUBE_PODS,
                             .ns = o->ns,
                             .name = o->name,
                             .subresource = "status",
                             .body = body};
    kube_send(s->app.client, &r, NULL, NULL);
    arena_release(&a);
}

static void try_pod(struct scheduler *s, struct sched_pod *p)
{
    struct buf why = {0};
    struct fit_node *n = fit_pick(s->fit, &p->fit, &why);
    if (n) {
        bind_pod(s, p, n);
    } else {
        sched_queue_failed(&s->queue, p, clock_mono_ms(), true);
        const char *text = buf_cstr(&why);
        log_debug("unschedulable pod=%.*s why=\"%s\"", (int)p->node.key.len, p->key,
                  text ? text : "");
        if (text) tell_unschedulable(s, p, text);
    }
    buf_release(&why);
}

/* ---- the loop ------------------------------------------------------------------------------- */

static bool may_work(const struct scheduler *s)
{
    return s->leading && informer_synced(s->nodes) && informer_synced(s->pods) &&
           s->n_binding < BINDINGS_MAX;
}

static void on_timer(uv_timer_t *t)
{
    wake(t->data);
}

static void on_idle(uv_idle_t *idle)
{
    struct scheduler *s = idle->data;
    uint64_t now = clock_mono_ms();
    if (s->changed) sched_queue_move(&s->queue, now);
    s->changed = false;
    uint64_t next = sched_queue_tick(&s->queue, now);
    for (int i = 0; i < PODS_PER_TURN && may_work(s); i++) {
        struct sched_pod *p = sched_queue_next(&s->queue);
        if (!p) break;
        try_pod(s, p);
    }
    if (s->queue.n_ready && may_work(s)) return; /* more next turn */
    uv_idle_stop(idle);
    if (s->queue.n_resting + s->queue.n_unschedulable && !next)
        next = now + 1000; /* put there just now */
    if (next) uv_timer_start(&s->timer, on_timer, next > now ? next - now : 1, 0);
}

static void wake(struct scheduler *s)
{
    if (may_work(s) && !s->app.stopping) uv_idle_start(&s->idle, on_idle);
}

static void on_leading(void *ctx)
{
    struct scheduler *s = ctx;
    s->leading = true;
    wake(s);
}

static void on_stopped_leading(void *ctx)
{
    ((struct scheduler *)ctx)->leading = false;
}

/* ---- the program ---------------------------------------------------------------------------- */

static void release(struct scheduler *s)
{
    leader_free(s->leader);
    informer_free(s->pods);
    informer_free(s->nodes);
    app_stopped(&s->app);
    recorder_free(s->recorder);
    smap_for_each(node, &s->by_key) pod_free(s, container_of(node, struct sched_pod, node));
    smap_release(&s->by_key);
    fit_free(s->fit);
    uv_close((uv_handle_t *)&s->idle, NULL);
    uv_close((uv_handle_t *)&s->timer, NULL);
}

static void on_released(void *ctx)
{
    release(ctx);
}

static void on_stop(void *ctx)
{
    struct scheduler *s = ctx;
    s->leading = false;
    if (s->leader) leader_release(s->leader, on_released, s);
    else release(s);
}

/* How full it believes each node to be. */
static void on_report(void *ctx, FILE *out)
{
    const struct scheduler *s = ctx;
    fprintf(out, "report leading %d binding %zu\n", s->leading, s->n_binding);
    for (const struct kube_object *o = informer_first_object(s->nodes); o;
         o = informer_next_object(s->nodes, o)) {
        const struct fit_node *n = fit_node_get(s->fit, o->name);
        if (!n) continue;
        fprintf(out, "report node %s pods=%lld cpu=%lld memory=%lld\n", n->name,
                (long long)n->n_pods, (long long)n->requested[RESOURCE_CPU],
                (long long)n->requested[RESOURCE_MEMORY]);
    }
}

static void start(struct scheduler *s, const struct leader_config *config)
{
    static const struct informer_handler pods = {pod_added, pod_updated, pod_deleted, on_synced};
    static const struct informer_handler nodes = {node_added, node_updated, node_deleted,
                                                  on_synced};
    s->fit = fit_new();
    sched_queue_init(&s->queue);
    uv_idle_init(&s->app.loop, &s->idle);
    uv_timer_init(&s->app.loop, &s->timer);
    s->idle.data = s->timer.data = s;
    s->recorder = recorder_new(s->app.client, s->name, NULL);
    s->pods = informer_new(s->app.client,
                           &(struct informer_options){.resource = &KUBE_PODS, .trim = trim_pod});
    s->nodes = informer_new(s->app.client,
                            &(struct informer_options){.resource = &KUBE_NODES, .trim = trim_node});
    informer_add_handler(s->pods, &pods, s);
    informer_add_handler(s->nodes, &nodes, s);
    informer_start(s->nodes);
    informer_start(s->pods);
    s->app.stop = on_stop;
    s->app.report = on_report;
    s->app.ctx = s;
    if (s->election.elect)
        s->leader = leader_new(s->app.client, config, on_leading, on_stopped_leading, s);
    else on_leading(s);
}

int cmd_scheduler(int argc, char **argv)
{
    struct scheduler *s = mem_must_calloc(1, sizeof(*s));
    s->name = "default-scheduler";
    app_leader_defaults(&s->election);
    const struct app_flag flags[] = {
        {"scheduler-name", FLAG_STRING, &s->name, "NAME",
         "pods with this spec.schedulerName are ours"},
        APP_LEADER_FLAGS(&s->election),
    };
    int rc = app_init(&s->app, "scheduler", "pintle scheduler [flags]", flags,
                      sizeof(flags) / sizeof(*flags), argc, argv);
    struct leader_config config;
    if (rc < 0 && app_leader_config(&s->election, "kube-scheduler", &config)) rc = 2;
    if (rc < 0) {
        start(s, &config);
        rc = app_run(&s->app);
    }
    mem_free(s);
    return rc;
}
