/* The nodes: registration, the lease that says we live, node status. A node that was deleted from
 * the API stays away until the agent starts again, as with a kubelet. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/agent/agent_int.h"
#include "clients/lib/kjson.h"

#define NODE_LEASE_NS "kube-node-lease"

/* Nodes of one name prefix get neighbouring subnets, other prefixes begin elsewhere. */
unsigned node_subnet(struct slice name)
{
    size_t at = name.len;
    unsigned number = 0, hash = 2166136261u;
    while (at && name.len - at < 6 && name.data[at - 1] >= '0' && name.data[at - 1] <= '9') at--;
    for (size_t i = at; i < name.len; i++) number = number * 10 + (name.data[i] - '0');
    for (size_t i = 0; i < at; i++) hash = (hash ^ name.data[i]) * 16777619u;
    return (hash + number) & 0x3fff;
}

void node_add(struct agent *a, const char *name)
{
    struct agent_node *n = mem_must_calloc(1, sizeof(*n));
    n->agent = a;
    n->name = mem_must_strdup(name);
    unsigned subnet = node_subnet(slice_str(name));
    snprintf(n->ip, sizeof(n->ip), "10.%u.%u.1", (64 + subnet / 256) & 255, subnet % 256);
    list_init(&n->renewals);
    smap_insert(&a->by_node, &n->node, slice_str(n->name));
}

static void uid_set(struct agent_node *n, struct slice uid)
{
    if (slice_eq(n->uid, uid)) return;
    mem_free((void *)n->uid.data);
    uint8_t *copy = mem_must_alloc(uid.len + 1);
    if (uid.len) memcpy(copy, uid.data, uid.len);
    n->uid = slice_make(copy, uid.len);
}

void nodes_free(struct agent *a)
{
    smap_for_each(node, &a->by_node)
    {
        struct agent_node *n = container_of(node, struct agent_node, node);
        mem_free((void *)n->uid.data);
        mem_free(n->name);
        mem_free(n);
    }
    smap_release(&a->by_node);
}

/* ---- what a node says of itself ------------------------------------------------------------- */

static const char *go_arch(const char *machine)
{
    if (!strcmp(machine, "x86_64")) return "amd64";
    return !strcmp(machine, "aarch64") ? "arm64" : machine;
}

static struct json *labels_of(const struct agent_node *n, struct arena *a, const char *arch)
{
    struct json *labels = kjson(a, "{$:s,$:s,$:'linux',$:s,$:'linux'}", "kubernetes.io/hostname",
                                n->name, "kubernetes.io/arch", arch, "kubernetes.io/os",
                                "beta.kubernetes.io/arch", arch, "beta.kubernetes.io/os");
    const char *p = n->agent->labels;
    while (labels && p && *p) {
        size_t len = strcspn(p, ","), key = strcspn(p, "=,");
        struct slice value = key < len ? slice_make(p + key + 1, len - key - 1) : (struct slice){0};
        if (json_set(a, labels, slice_make(p, key), json_string(a, value))) return NULL;
        p += len + (p[len] == ',');
    }
    return labels;
}

static const struct json *old_condition(const struct kube_object *o, const char *type)
{
    const struct json *list = o ? json_path(o->json, "status.conditions") : NULL;
    for (size_t i = 0; i < (list ? list->count : 0); i++)
        if (json_is_str(json_get(json_at(list, i), "type"), type)) return json_at(list, i);
    return NULL;
}

static struct json *condition(const struct agent_node *n, struct arena *a, const char *type,
                              const char *status, const char *reason, const char *message,
                              const char *now)
{
    const struct json *old =
        old_condition(informer_get_key(n->agent->nodes, slice_str(n->name)), type);
    const char *since = json_is_str(json_get(old, "status"), status)
                            ? arena_strdup(a, json_text(json_get(old, "lastTransitionTime")))
                            : now;
    return kjson(a, "{type:s,status:s,lastHeartbeatTime:s,lastTransitionTime:s,reason:s,message:s}",
                 type, status, now, since, reason, message);
}

static struct json *resources(const struct agent *g, struct arena *a)
{
    return kjson(a, "{cpu:s,memory:s,$:s,pods:s}", g->cpu, g->memory, "ephemeral-storage",
                 g->storage, arena_printf(a, "%lld", (long long)g->max_pods));
}

static struct json *status_of(struct agent_node *n, struct arena *a)
{
    struct utsname u = {0};
    uname(&u);
    const char *now = kjson_time(a, clock_wall_ms());
    struct json *conditions = kjson(
        a, "[o,o,o,o]",
        condition(n, a, "MemoryPressure", "False", "KubeletHasSufficientMemory",
                  "kubelet has sufficient memory available", now),
        condition(n, a, "DiskPressure", "False", "KubeletHasNoDiskPressure",
                  "kubelet has no disk pressure", now),
        condition(n, a, "PIDPressure", "False", "KubeletHasSufficientPID",
                  "kubelet has sufficient PID available", now),
        condition(n, a, "Ready", "True", "KubeletReady", "kubelet is posting ready status", now));
    return kjson(a,
                 "{capacity:o,allocatable:o,conditions:o,addresses:[{type:'InternalIP',address:s},{"
                 "type:'Hostname',address:s}],"
                 "daemonEndpoints:{kubeletEndpoint:{Port:i}},nodeInfo:{machineID:s,systemUUID:s,"
                 "bootID:s,kernelVersion:s,"
                 "osImage:'hollow',containerRuntimeVersion:s,kubeletVersion:'v1.32.0',"
                 "kubeProxyVersion:'v1.32.0',"
                 "operatingSystem:'linux',architecture:s}}",
                 resources(n->agent, a), resources(n->agent, a), conditions, n->ip, n->name,
                 (int64_t)10250, n->name, n->name, n->name, arena_strdup(a, slice_str(u.release)),
                 n->agent->runtime->ops->version, arena_strdup(a, slice_str(go_arch(u.machine))));
}

static void on_status(void *ctx, const struct kube_result *r)
{
    struct agent_node *n = ctx;
    n->status_flying = false;
    if (!r->code) return;
    n->status_ms = 0; /* again with the next renewal */
    log_warn("node status not written node=%s error=\"%s\"", n->name, r->message);
}

static void post_status(struct agent_node *n)
{
    if (n->status_flying) return;
    struct arena a = {0};
    struct json *body = kjson(&a, "{status:o}", status_of(n, &a));
    struct kube_request r = {.verb = KUBE_STRATEGIC_PATCH,
                             .resource = &KUBE_NODES,
                             .name = slice_str(n->name),
                             .subresource = "status",
                             .body = body};
    n->status_flying = true;
    n->status_ms = clock_mono_ms();
    kube_send(n->agent->app.client, &r, on_status, n);
    arena_release(&a);
}

/* ---- the lease ------------------------------------------------------------------------------ */

static void on_renew_timer(uv_timer_t *t);

static void plan_renewal(struct agent_node *n, uint64_t after_ms)
{
    struct agent *a = n->agent;
    n->renew_ms = clock_mono_ms() + after_ms;
    list_remove(&n->renewals);
    struct list *at = a->renewals.prev;
    while (at != &a->renewals &&
           container_of(at, struct agent_node, renewals)->renew_ms > n->renew_ms)
        at = at->prev;
    list_push_front(at, &n->renewals);
    if (a->renewals.next == &n->renewals)
        uv_timer_start(&a->renew_timer, on_renew_timer, after_ms, 0);
}

static void on_renewed(void *ctx, const struct kube_result *r)
{
    struct agent_node *n = ctx;
    if (!n->registered) return;
    uint64_t period = n->agent->lease_ms;
    if (!r->code) {
        bool first = !n->spread && n->agent->hollow_nodes > 1;
        n->failures = 0;
        n->lease_known = n->spread = true;
        plan_renewal(n, first ? (uint64_t)random() % period
                              : period); /* many nodes: not all at once */
        return;
    }
    if (r->code == ERR_NOT_FOUND && n->lease_known) n->failures = 0;
    n->lease_known = r->code == ERR_EXISTS || (n->lease_known && r->code != ERR_NOT_FOUND);
    uint64_t pause = n->failures < 7 ? (uint64_t)50 << n->failures : period;
    n->failures++;
    if (n->failures > 3) log_warn("lease not renewed node=%s error=\"%s\"", n->name, r->message);
    plan_renewal(n, pause < period ? pause : period);
}

/* Short, so that a member that cannot answer is left (after three bad answers) well before the
 * lease has run out; not so short that a busy one is. */
static unsigned renewal_timeout_ms(const struct agent *a)
{
    uint64_t ms = a->lease_duration_ms / 8;
    return ms < 1000 ? 1000 : (unsigned)ms;
}

static void renew(struct agent_node *n)
{
    struct arena a = {0};
    const char *now = kjson_micro_time(&a, clock_wall_ms());
    int64_t seconds = (int64_t)n->agent->lease_duration_ms / 1000;
    struct json *spec =
        kjson(&a, "{holderIdentity:s,leaseDurationSeconds:i,renewTime:s}", n->name, seconds, now);
    struct kube_request r = {.verb = n->lease_known ? KUBE_MERGE_PATCH : KUBE_CREATE,
                             .resource = &KUBE_LEASES,
                             .ns = SLICE_LIT(NODE_LEASE_NS),
                             .timeout_ms = renewal_timeout_ms(n->agent)};
    if (n->lease_known) {
        r.name = slice_str(n->name);
        r.body = kjson(&a, "{spec:o}", spec);
    } else {
        struct json *owners =
            n->uid.len ? kjson(&a, "[{apiVersion:'v1',kind:'Node',name:s,uid:t}]", n->name, n->uid)
                       : NULL;
        r.body = kjson(
            &a,
            "{apiVersion:s,kind:'Lease',metadata:{name:s,namespace:s,ownerReferences:o?},spec:o}",
            KUBE_LEASES.api_version, n->name, NODE_LEASE_NS, owners, spec);
    }
    kube_send(n->agent->app.client, &r, on_renewed, n);
    arena_release(&a);
}

static void on_renew_timer(uv_timer_t *t)
{
    struct agent *a = t->data;
    uint64_t now = clock_mono_ms();
    while (!list_empty(&a->renewals)) {
        struct agent_node *n = container_of(a->renewals.next, struct agent_node, renewals);
        if (n->renew_ms > now) {
            uv_timer_start(t, on_renew_timer, n->renew_ms - now, 0);
            return;
        }
        list_remove(&n->renewals); /* on_renewed puts it back */
        renew(n);
        if (!n->status_ms || now - n->status_ms >= a->status_ms) post_status(n);
    }
}

/* ---- registration --------------------------------------------------------------------------- */

static void registered(struct agent_node *n)
{
    if (n->registered) return;
    n->registered = true;
    post_status(n);
    renew(n);
    log_info("node is registered node=%s", n->name);
}

static void node_register(struct agent_node *n);

static void on_registered(void *ctx, const struct kube_result *r)
{
    struct agent_node *n = ctx;
    n->registering = false;
    if (!r->code) {
        struct json *o = kube_result_json(r);
        uid_set(n, json_path_text(o, "metadata.uid"));
        registered(n);
    } else if (r->code == ERR_EXISTS) {
        registered(n);
    } else {
        log_warn("node not registered node=%s error=\"%s\"", n->name, r->message);
        plan_renewal(n, 1000);
    }
}

static void node_register(struct agent_node *n)
{
    struct utsname u = {0};
    struct arena a = {0};
    uname(&u);
    n->registering = true;
    struct json *body = kjson(
        &a, "{apiVersion:'v1',kind:'Node',metadata:{name:s,labels:o},spec:{providerID:s},status:o}",
        n->name, labels_of(n, &a, go_arch(u.machine)), arena_printf(&a, "hollow://%s", n->name),
        status_of(n, &a));
    kube_create(n->agent->app.client, &KUBE_NODES, (struct slice){0}, body, on_registered, n);
    arena_release(&a);
}

/* Labels that a node of that name, registered earlier, may not have. */
static void patch_labels(struct agent_node *n)
{
    struct utsname u = {0};
    struct arena a = {0};
    uname(&u);
    struct json *patch = kjson(&a, "{metadata:{labels:o}}", labels_of(n, &a, go_arch(u.machine)));
    kube_patch(n->agent->app.client, &KUBE_NODES, (struct slice){0}, slice_str(n->name), NULL,
               patch, NULL, NULL);
    arena_release(&a);
}

void nodes_start(struct agent *a)
{
    a->nodes_started = true;
    smap_for_each(node, &a->by_node)
    {
        struct agent_node *n = container_of(node, struct agent_node, node);
        struct kube_object *o = informer_get_key(a->nodes, slice_str(n->name));
        if (!o) {
            node_register(n);
            continue;
        }
        uid_set(n, o->uid);
        patch_labels(n);
        n->lease_known = true;
        registered(n);
    }
}

void node_seen(struct agent *a, struct kube_object *o)
{
    struct agent_node *n = smap_entry(&a->by_node, o->name, struct agent_node, node);
    if (!n || !n->registered) return;
    uid_set(n, o->uid);
    const struct json *ready = old_condition(o, "Ready");
    if (!json_is_str(json_get(ready, "status"), "True"))
        post_status(n); /* somebody thought that we are gone */
}

void node_gone(struct agent *a, struct kube_object *o)
{
    struct agent_node *n = smap_entry(&a->by_node, o->name, struct agent_node, node);
    if (!n || !n->registered) return;
    n->registered = n->lease_known = false;
    list_remove(&n->renewals);
    log_warn("node was deleted; start the agent again to register it node=%s", n->name);
}
