/* The program: informers shared by all controllers, one lease for the lot. Work begins when we lead
 * and all caches are filled; until then the queues collect. A standby's caches are warm, so that it
 * takes over at once. */
#include "clients/controllers/controllers.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"
#include "schemas/kube/kinds.h"

static const struct kube_resource configmaps = {"v1", "configmaps", "ConfigMap", true},
                                  secrets = {"v1", "secrets", "Secret", true};

/* ---- what the caches keep ------------------------------------------------------------------- */

static const char *const meta_names[] = {
    "name",       "namespace",         "uid", "resourceVersion", "ownerReferences",
    "finalizers", "deletionTimestamp", NULL};

static void trim_to_metadata(struct json *o)
{
    static const char *const top[] = {"metadata", NULL};
    kjson_keep(o, top);
    kjson_keep(json_get(o, "metadata"), meta_names);
}

static void trim_pod(struct json *pod)
{
    static const char *const top[] = {"metadata", "spec", "status", NULL};
    static const char *const meta[] = {
        "name",       "namespace",         "uid",    "resourceVersion", "ownerReferences",
        "finalizers", "deletionTimestamp", "labels", "annotations",     "creationTimestamp",
        NULL};
    static const char *const notes[] = {"controller.kubernetes.io/pod-deletion-cost", NULL};
    static const char *const spec[] = {"nodeName", "containers", "tolerations",
                                       "hostname", "subdomain",  NULL};
    static const char *const container[] = {"ports", NULL};
    static const char *const status[] = {"phase", "conditions", "podIP", "containerStatuses", NULL};
    static const char *const condition[] = {"type", "status", "lastTransitionTime", NULL},
                             *const restarts[] = {"restartCount", NULL};
    kjson_keep(pod, top);
    kjson_keep(json_get(pod, "metadata"), meta);
    kjson_keep(json_path(pod, "metadata.annotations"), notes);
    kjson_keep(json_get(pod, "spec"), spec);
    kjson_keep(json_get(pod, "status"), status);
    const struct json *list = json_path(pod, "spec.containers");
    for (size_t i = 0; i < (list ? list->count : 0); i++) kjson_keep(json_at(list, i), container);
    list = json_path(pod, "status.conditions");
    for (size_t i = 0; i < (list ? list->count : 0); i++) kjson_keep(json_at(list, i), condition);
    list = json_path(pod, "status.containerStatuses");
    for (size_t i = 0; i < (list ? list->count : 0); i++) kjson_keep(json_at(list, i), restarts);
}

static void trim_node(struct json *node)
{
    static const char *const status[] = {"conditions", NULL};
    kjson_keep(json_get(node, "metadata"), meta_names);
    kjson_keep(json_get(node, "status"), status);
}

static void trim_lease(struct json *lease)
{
    static const char *const spec[] = {"renewTime", NULL};
    kjson_keep(json_get(lease, "metadata"), meta_names);
    kjson_keep(json_get(lease, "spec"), spec);
}

/* What kubectl apply keeps there is as long as the object itself. */
static void trim_applied(struct json *o)
{
    struct json *notes = json_path(o, "metadata.annotations");
    if (notes) json_remove(notes, SLICE_LIT("kubectl.kubernetes.io/last-applied-configuration"));
}

/* ---- queues and leadership ------------------------------------------------------------------ */

struct workqueue *controllers_queue(struct controllers *c, const char *name,
                                    void (*process)(void *ctx, struct slice key), void *ctx)
{
    struct workqueue *q = workqueue_new(
        &c->app.loop,
        &(struct workqueue_options){.name = name, .process = process, .ctx = ctx, .workers = 64});
    workqueue_pause(q, true);
    c->queues[c->n_queues++] = q;
    return q;
}

static void set_paused(struct controllers *c)
{
    bool work = c->leading && c->n_synced == c->n_informers && !c->app.stopping;
    for (size_t i = 0; i < c->n_queues; i++) workqueue_pause(c->queues[i], !work);
}

static void on_synced(void *ctx)
{
    struct controllers *c = ctx;
    c->n_synced++;
    if (c->n_synced == c->n_informers) log_info("caches are filled informers=%zu", c->n_informers);
    set_paused(c);
}

static void on_leading(void *ctx)
{
    struct controllers *c = ctx;
    c->leading = true;
    node_leading(c);
    set_paused(c);
}

static void on_stopped_leading(void *ctx)
{
    struct controllers *c = ctx;
    c->leading = false;
    set_paused(c);
}

/* ---- start and stop ------------------------------------------------------------------------- */

static struct informer *add_informer(struct controllers *c, const struct informer_options *o)
{
    static const struct informer_handler handler = {.synced = on_synced};
    struct informer *inf = informer_new(c->app.client, o);
    c->all[c->n_informers++] = inf;
    informer_add_handler(inf, &handler, c);
    return inf;
}

static struct slice index_orphan_ns(const struct kube_object *o)
{
    return kube_controller_of(o->json) ? (struct slice){0} : o->ns;
}

static void make_informers(struct controllers *c)
{
    c->namespaces = add_informer(c, &(struct informer_options){.resource = &KUBE_NAMESPACES});
    c->nodes =
        add_informer(c, &(struct informer_options){.resource = &KUBE_NODES, .trim = trim_node});
    c->leases =
        add_informer(c, &(struct informer_options){
                            .resource = &KUBE_LEASES, .ns = "kube-node-lease", .trim = trim_lease});
    c->deployments = add_informer(
        c, &(struct informer_options){.resource = &KUBE_DEPLOYMENTS, .trim = trim_applied});
    c->replicasets = add_informer(
        c, &(struct informer_options){.resource = &KUBE_REPLICASETS, .trim = trim_applied});
    c->pods = add_informer(c, &(struct informer_options){.resource = &KUBE_PODS, .trim = trim_pod});
    c->services = add_informer(
        c, &(struct informer_options){.resource = &KUBE_SERVICES, .trim = trim_applied});
    c->endpoints = add_informer(c, &(struct informer_options){.resource = &KUBE_ENDPOINTS});
    c->endpointslices =
        add_informer(c, &(struct informer_options){.resource = &KUBE_ENDPOINTSLICES});
    c->accounts = add_informer(
        c, &(struct informer_options){.resource = &KUBE_SERVICEACCOUNTS, .trim = trim_to_metadata});
    add_informer(c, &(struct informer_options){.resource = &configmaps, .trim = trim_to_metadata});
    add_informer(c, &(struct informer_options){.resource = &secrets, .trim = trim_to_metadata});
    c->pods_by_owner = informer_add_index(c->pods, index_controller_uid);
    c->pods_by_ns = informer_add_index(c->pods, index_namespace);
    c->pods_by_node = informer_add_index(c->pods, index_node_name);
    c->orphan_pods_by_ns = informer_add_index(c->pods, index_orphan_ns);
    c->replicasets_by_owner = informer_add_index(c->replicasets, index_controller_uid);
    c->replicasets_by_ns = informer_add_index(c->replicasets, index_namespace);
    c->deployments_by_ns = informer_add_index(c->deployments, index_namespace);
    c->endpointslices_by_owner = informer_add_index(c->endpointslices, index_controller_uid);
    c->services_by_ns = informer_add_index(c->services, index_namespace);
}

static void release(struct controllers *c)
{
    leader_free(c->leader);
    for (size_t i = 0; i < c->n_informers; i++) informer_free(c->all[i]);
    app_stopped(&c->app);
    recorder_free(c->deployment_events);
    recorder_free(c->replicaset_events);
    recorder_free(c->node_events);
    gc_free(c);
    account_free(c);
    node_free(c);
    namespace_free(c);
    endpoints_free(c);
    deployment_free(c);
    replicaset_free(c);
    for (size_t i = 0; i < c->n_queues; i++) workqueue_free(c->queues[i]);
}

static void on_released(void *ctx)
{
    release(ctx);
}

static void on_stop(void *ctx)
{
    struct controllers *c = ctx;
    c->leading = false;
    set_paused(c);
    if (c->leader) leader_release(c->leader, on_released, c);
    else release(c);
}

/* What it still has to do, as far as it knows. */
static void on_report(void *ctx, FILE *out)
{
    const struct controllers *c = ctx;
    size_t queued = 0;
    for (size_t i = 0; i < c->n_queues; i++)
        queued += workqueue_length(c->queues[i]) + workqueue_in_work(c->queues[i]);
    fprintf(out, "report leading %d queued %zu expected %zu\n", c->leading, queued,
            replicaset_expected(c));
}

static void start(struct controllers *c, const struct leader_config *config)
{
    c->deployment_events = recorder_new(c->app.client, "deployment-controller", NULL);
    c->replicaset_events = recorder_new(c->app.client, "replicaset-controller", NULL);
    c->node_events = recorder_new(c->app.client, "node-controller", NULL);
    make_informers(c);
    replicaset_start(c);
    deployment_start(c);
    endpoints_start(c);
    namespace_start(c);
    node_start(c);
    account_start(c);
    gc_start(c);
    for (size_t i = 0; i < c->n_informers; i++) informer_start(c->all[i]);
    c->app.stop = on_stop;
    c->app.report = on_report;
    c->app.ctx = c;
    if (c->election.elect)
        c->leader = leader_new(c->app.client, config, on_leading, on_stopped_leading, c);
    else on_leading(c);
}

static int check_flags(const struct controllers *c)
{
    char *end;
    double rate = strtod(c->eviction_rate, &end);
    struct err e = {{0}};
    if (*end || !(rate >= 0)) {
        fprintf(stderr,
                "controllers: --node-eviction-rate: \"%s\" is not a number of nodes per second\n",
                c->eviction_rate);
        return 2;
    }
    if (c->node_period_ms < 10 || c->node_grace_ms < c->node_period_ms) {
        fprintf(stderr, "controllers: --node-monitor-grace-period must be longer than "
                        "--node-monitor-period, and that at least 10ms\n");
        return 2;
    }
    if (kinds_load(&e) != 0) {
        fprintf(stderr, "controllers: %s\n", e.text);
        return 1;
    }
    return -1;
}

int cmd_controllers(int argc, char **argv)
{
    struct controllers *c = mem_must_calloc(1, sizeof(*c));
    c->node_grace_ms = 40000;
    c->node_period_ms = 5000;
    c->eviction_rate = "0.1";
    app_leader_defaults(&c->election);
    const struct app_flag flags[] = {
        {"node-monitor-grace-period", FLAG_DURATION_MS, &c->node_grace_ms, "40s",
         "silence after which a node is Unknown"},
        {"node-monitor-period", FLAG_DURATION_MS, &c->node_period_ms, "5s",
         "between looks at the nodes"},
        {"node-eviction-rate", FLAG_STRING, &c->eviction_rate, "0.1",
         "nodes per second whose pods may be evicted"},
        APP_LEADER_FLAGS(&c->election),
    };
    int rc = app_init(&c->app, "controllers", "pintle controllers [flags]", flags,
                      sizeof(flags) / sizeof(*flags), argc, argv);
    struct leader_config config;
    if (rc < 0 && app_leader_config(&c->election, "kube-controller-manager", &config)) rc = 2;
    if (rc < 0) rc = check_flags(c);
    if (rc < 0) {
        start(c, &config);
        rc = app_run(&c->app);
    }
    mem_free(c);
    return rc;
}
