/* The program: one watch on pods and one on nodes for all nodes of the process, which share the
 * connection, the runtime and the timers. */
#include "clients/agent/agent.h"

#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "clients/agent/agent_int.h"
#include "clients/lib/kjson.h"
#include "schemas/kube/kinds.h"

static void trim_node(struct json *node)
{
    static const char *const top[] = {"metadata", "status", NULL},
                             *const meta[] = {"name", "uid", "resourceVersion", NULL},
                             *const status[] = {"conditions", NULL};
    kjson_keep(node, top);
    kjson_keep(json_get(node, "metadata"), meta);
    kjson_keep(json_get(node, "status"), status);
}

static void pod_added(void *ctx, struct kube_object *o)
{
    pod_seen(ctx, o);
}

static void pod_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    pod_seen(ctx, o);
}

static void pod_deleted(void *ctx, struct kube_object *o)
{
    pod_gone(ctx, o);
}

static void node_added(void *ctx, struct kube_object *o)
{
    node_seen(ctx, o);
}

static void node_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    node_seen(ctx, o);
}

static void node_deleted(void *ctx, struct kube_object *o)
{
    node_gone(ctx, o);
}

/* The pods come after the nodes are known, so that a status finds its node. */
static void nodes_synced(void *ctx)
{
    struct agent *a = ctx;
    nodes_start(a);
    informer_start(a->pods);
}

static void on_stop(void *ctx)
{
    struct agent *a = ctx;
    informer_free(a->pods);
    informer_free(a->nodes);
    app_stopped(&a->app);
    a->runtime->ops->free(a->runtime);
    pods_free(a);
    nodes_free(a);
    uv_close((uv_handle_t *)&a->renew_timer, NULL);
    uv_close((uv_handle_t *)&a->step_timer, NULL);
    uv_close((uv_handle_t *)&a->flush, NULL);
}

static const char *field_of_one(const struct agent *a, char *buf, size_t size, const char *field)
{
    if (a->hollow_nodes) return NULL;
    snprintf(buf, size, "%s=%s", field, a->node_name);
    return buf;
}

static void start(struct agent *a, char *pod_field, char *node_field, size_t size)
{
    static const struct informer_handler pods = {pod_added, pod_updated, pod_deleted, NULL};
    static const struct informer_handler nodes = {node_added, node_updated, node_deleted,
                                                  nodes_synced};
    list_init(&a->renewals);
    list_init(&a->timed);
    list_init(&a->dirty);
    uv_timer_init(&a->app.loop, &a->renew_timer);
    uv_timer_init(&a->app.loop, &a->step_timer);
    uv_idle_init(&a->app.loop, &a->flush);
    a->renew_timer.data = a->step_timer.data = a->flush.data = a;
    a->runtime = runtime_hollow_new(&a->app.loop, node_subnet, pod_runtime_event, a);
    const char *field = field_of_one(a, pod_field, size, "spec.nodeName");
    struct informer_options o = {.resource = &KUBE_PODS,
                                 .field_selector = field ? field : "spec.nodeName!=",
                                 .trim = a->runtime->ops->trim};
    a->pods = informer_new(a->app.client, &o);
    o = (struct informer_options){.resource = &KUBE_NODES,
                                  .trim = trim_node,
                                  .field_selector =
                                      field_of_one(a, node_field, size, "metadata.name")};
    a->nodes = informer_new(a->app.client, &o);
    informer_add_handler(a->pods, &pods, a);
    informer_add_handler(a->nodes, &nodes, a);
    a->app.stop = on_stop;
    a->app.ctx = a;
    informer_start(a->nodes);
}

static int bad_flag(const char *text)
{
    fprintf(stderr, "agent: %s\n", text);
    return 2;
}

static int check_flags(struct agent *a)
{
    static char host[256];
    int64_t milli;
    if (strcmp(a->runtime_name, "hollow") != 0)
        return bad_flag("--runtime: only \"hollow\" is there");
    if (a->hollow_nodes < 0 || a->hollow_nodes > 16384)
        return bad_flag("--hollow-nodes must be between 1 and 16384");
    if (a->hollow_nodes && a->node_name)
        return bad_flag("--hollow-nodes names its nodes by --name-prefix, not by --node-name");
    if (a->max_pods < 1 || a->max_pods > 250)
        return bad_flag("--max-pods must be between 1 and 250");
    if (a->lease_ms < 100 || a->lease_duration_ms < 2 * a->lease_ms)
        return bad_flag("--node-lease-period must be at least 100ms, and at most half of "
                        "--node-lease-duration");
    const char *const quantities[] = {a->cpu, a->memory, a->storage};
    for (int i = 0; i < 3; i++)
        if (!quantity_parse(slice_str(quantities[i]), &milli) || milli <= 0)
            return bad_flag(
                "--cpu, --memory and --ephemeral-storage need quantities like 4, 8Gi, 100Gi");
    if (!a->node_name && !a->hollow_nodes) {
        if (gethostname(host, sizeof(host) - 1) != 0) return bad_flag("give --node-name");
        a->node_name = host;
    }
    const char *name = a->node_name ? a->node_name : a->name_prefix;
    char example[300];
    snprintf(example, sizeof(example), "%s%s", name, a->node_name ? "" : "1");
    if (!name_is_dns1123_subdomain(slice_str(example)))
        return bad_flag("a node's name must be lower case letters, digits, '-' and '.'");
    return -1;
}

static void add_nodes(struct agent *a)
{
    char name[300];
    if (!a->hollow_nodes) node_add(a, a->node_name);
    for (int64_t i = 1; i <= a->hollow_nodes; i++) {
        snprintf(name, sizeof(name), "%s%lld", a->name_prefix, (long long)i);
        node_add(a, name);
    }
}

int cmd_agent(int argc, char **argv)
{
    struct agent *a = mem_must_calloc(1, sizeof(*a));
    char pod_field[300], node_field[300];
    a->name_prefix = "hollow-";
    a->runtime_name = "hollow";
    a->cpu = "8";
    a->memory = "16Gi";
    a->storage = "100Gi";
    a->max_pods = 110;
    a->lease_ms = 10000;
    a->lease_duration_ms = 40000;
    a->status_ms = 300000;
    const struct app_flag flags[] = {
        {"node-name", FLAG_STRING, &a->node_name, "NAME", "the node (default: the host's name)"},
        {"hollow-nodes", FLAG_INT, &a->hollow_nodes, "N", "so many nodes in this process"},
        {"name-prefix", FLAG_STRING, &a->name_prefix, "PREFIX",
         "names of --hollow-nodes: PREFIX1, PREFIX2, ..."},
        {"node-labels", FLAG_STRING, &a->labels, "K=V,...", "more labels of the node"},
        {"runtime", FLAG_STRING, &a->runtime_name, "hollow", "what runs the pods"},
        {"cpu", FLAG_STRING, &a->cpu, "8", "capacity"},
        {"memory", FLAG_STRING, &a->memory, "16Gi", "capacity"},
        {"ephemeral-storage", FLAG_STRING, &a->storage, "100Gi", "capacity"},
        {"max-pods", FLAG_INT, &a->max_pods, "110", "capacity"},
        {"node-lease-period", FLAG_DURATION_MS, &a->lease_ms, "10s",
         "between renewals of the node's Lease"},
        {"node-lease-duration", FLAG_DURATION_MS, &a->lease_duration_ms, "40s",
         "leaseDurationSeconds of it"},
        {"node-status-period", FLAG_DURATION_MS, &a->status_ms, "5m",
         "between reports of an unchanged node status"},
    };
    int rc = app_init(&a->app, "agent", "pintle agent [flags]", flags,
                      sizeof(flags) / sizeof(*flags), argc, argv);
    if (rc < 0) rc = check_flags(a);
    if (rc < 0) {
        add_nodes(a);
        start(a, pod_field, node_field, sizeof(pod_field));
        rc = app_run(&a->app);
    }
    mem_free(a);
    return rc;
}
