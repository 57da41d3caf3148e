/* The model: nodes, pods on them, groups to be spread. The choice is in pick.c. */
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "clients/scheduler/fit_int.h"
#include "schemas/kube/kinds.h"

#define DEFAULT_CPU_MILLI                                                                          \
    100 /* for scores, where a container asks for nothing, as kube-scheduler */
#define DEFAULT_MEMORY (200 * 1024 * 1024LL)
#define DEFAULT_MAX_PODS 110

struct fit *fit_new(void)
{
    struct fit *f = mem_must_calloc(1, sizeof(*f));
    f->n_kinds = 3;
    f->kinds[RESOURCE_CPU] = mem_must_strdup("cpu");
    f->kinds[RESOURCE_MEMORY] = mem_must_strdup("memory");
    f->kinds[RESOURCE_EPHEMERAL] = mem_must_strdup("ephemeral-storage");
    return f;
}

static void node_free(struct fit *f, struct fit_node *n)
{
    smap_remove(&f->by_name, &n->node);
    f->slots[n->slot] = NULL;
    kube_object_unref(n->object);
    mem_free(n);
}

void fit_free(struct fit *f)
{
    if (!f) return;
    for (size_t i = 0; i < f->n_slots; i++)
        if (f->slots[i]) node_free(f, f->slots[i]);
    smap_release(&f->by_name);
    smap_release(&f->groups);
    for (int i = 0; i < f->n_kinds; i++) mem_free(f->kinds[i]);
    mem_free(f->slots);
    mem_free(f->scratch);
    mem_free(f);
}

/* ---- resources ------------------------------------------------------------------------------ */

/* The number of a resource; -1 if there are too many kinds of them. */
static int kind_number(struct fit *f, struct slice name)
{
    for (int i = 0; i < f->n_kinds; i++)
        if (slice_eq_str(name, f->kinds[i])) return i;
    if (f->n_kinds == RESOURCE_KINDS || name.len > 300) return -1;
    char text[304];
    snprintf(text, sizeof(text), "%.*s", (int)name.len, name.data);
    f->kinds[f->n_kinds] = mem_must_strdup(text);
    return f->n_kinds++;
}

static int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* Adds a ResourceList. CPU counts in thousandths, all else in units (rounded up). */
static void add_list(struct fit *f, const struct json *list, int64_t out[RESOURCE_KINDS])
{
    for (size_t i = 0; list && list->type == JSON_OBJECT && i < list->count; i++) {
        int64_t milli;
        const struct json *v = list->members[i].value;
        int kind = slice_eq_str(list->members[i].name, "pods")
                       ? -1
                       : kind_number(f, list->members[i].name);
        if (kind < 0 || !quantity_parse(v->text, &milli) || milli < 0) continue;
        out[kind] = add_capped(out[kind],
                               kind == RESOURCE_CPU ? milli : milli / 1000 + (milli % 1000 != 0));
    }
}

static void container_requests(struct fit *f, const struct json *container,
                               int64_t out[RESOURCE_KINDS], bool nonzero)
{
    const struct json *requests = json_path(container, "resources.requests");
    add_list(f, requests, out);
    if (!nonzero) return;
    if (!json_get(requests, "cpu"))
        out[RESOURCE_CPU] = add_capped(out[RESOURCE_CPU], DEFAULT_CPU_MILLI);
    if (!json_get(requests, "memory"))
        out[RESOURCE_MEMORY] = add_capped(out[RESOURCE_MEMORY], DEFAULT_MEMORY);
}

void fit_pod_requests(struct fit *f, const struct json *spec, int64_t request[RESOURCE_KINDS],
                      bool nonzero)
{
    int64_t sidecars[RESOURCE_KINDS] = {0}, largest[RESOURCE_KINDS] = {0};
    const struct json *containers = json_get(spec, "containers"),
                      *inits = json_get(spec, "initContainers");
    memset(request, 0, RESOURCE_KINDS * sizeof(*request));
    for (size_t i = 0; i < (containers ? containers->count : 0); i++)
        container_requests(f, json_at(containers, i), request, nonzero);
    for (size_t i = 0; i < (inits ? inits->count : 0); i++) {
        int64_t one[RESOURCE_KINDS] = {0};
        bool sidecar = json_is_str(json_get(json_at(inits, i), "restartPolicy"), "Always");
        container_requests(f, json_at(inits, i), one, nonzero);
        for (int k = 0; k < RESOURCE_KINDS; k++) {
            int64_t now = add_capped(sidecars[k], one[k]);
            if (now > largest[k]) largest[k] = now;
            if (sidecar) sidecars[k] = now;
        }
    }
    for (int k = 0; k < RESOURCE_KINDS; k++) {
        request[k] = add_capped(request[k], sidecars[k]);
        if (largest[k] > request[k]) request[k] = largest[k];
    }
    add_list(f, json_get(spec, "overhead"), request);
}

/* ---- groups --------------------------------------------------------------------------------- */

/* Who the pod is to be spread among: its controller's uid, or its namespace and labels. */
static void group_key(struct buf *out, const struct kube_object *o)
{
    struct slice owner = index_controller_uid(o);
    if (owner.len) {
        buf_append_slice(out, owner);
        return;
    }
    const struct json *labels = json_path(o->json, "metadata.labels");
    if (!labels || labels->count == 0) return;
    buf_append_slice(out, o->ns);
    buf_append_byte(out, '/');
    json_write(out, labels);
}

static struct fit_group *group_ref(struct fit *f, const struct kube_object *o)
{
    struct buf key = {0};
    group_key(&key, o);
    struct fit_group *g = NULL;
    if (key.len && !key.failed) {
        g = smap_entry(&f->groups, buf_slice(&key), struct fit_group, node);
        if (!g) {
            g = mem_must_calloc(1, sizeof(*g) + key.len);
            memcpy(g->key, key.data, key.len);
            smap_insert(&f->groups, &g->node, slice_make(g->key, key.len));
        }
        g->refs++;
    }
    buf_release(&key);
    return g;
}

static void group_unref(struct fit *f, struct fit_group *g)
{
    if (!g || --g->refs) return;
    smap_remove(&f->groups, &g->node);
    mem_free(g->counts);
    mem_free(g);
}

static void group_count(struct fit *f, struct fit_group *g, size_t slot, int by)
{
    if (!g) return;
    if (slot >= g->size) {
        size_t size = f->n_slots;
        g->counts = mem_must_realloc(g->counts, size * sizeof(*g->counts));
        memset(g->counts + g->size, 0, (size - g->size) * sizeof(*g->counts));
        g->size = size;
    }
    g->counts[slot] += by;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

struct fit_node *fit_node_get(const struct fit *f, struct slice name)
{
    return smap_entry(&f->by_name, name, struct fit_node, node);
}

size_t fit_nodes(const struct fit *f)
{
    return f->n_known;
}

static size_t free_slot(struct fit *f)
{
    for (size_t i = 0; i < f->n_slots; i++)
        if (!f->slots[i]) return i;
    size_t n = f->n_slots ? f->n_slots * 2 : 16, first = f->n_slots;
    f->slots = mem_must_realloc(f->slots, n * sizeof(struct fit_node *));
    memset(f->slots + f->n_slots, 0, (n - f->n_slots) * sizeof(struct fit_node *));
    f->n_slots = n;
    return first;
}

static struct fit_node *node_make(struct fit *f, struct slice name)
{
    struct fit_node *n = fit_node_get(f, name);
    if (n) return n;
    n = mem_must_calloc(1, sizeof(*n) + name.len + 1);
    memcpy(n->name, name.data, name.len);
    list_init(&n->pods);
    n->slot = free_slot(f);
    f->slots[n->slot] = n;
    smap_insert(&f->by_name, &n->node, slice_make(n->name, name.len));
    return n;
}

static bool same(const struct json *a, const struct json *b)
{
    if (!a || !b) return a == b;
    return json_equal(a, b);
}

bool fit_node_set(struct fit *f, struct kube_object *o)
{
    struct fit_node *n = node_make(f, o->name);
    struct kube_object *old = n->object;
    n->object = kube_object_ref(o);
    f->n_known += old == NULL;
    const struct json *status = json_get(o->json, "status");
    const struct json *list = json_get(status, "allocatable");
    if (!list) list = json_get(status, "capacity");
    bool changed = !old || !same(json_path(o->json, "metadata.labels"), n->labels) ||
                   !same(json_path(o->json, "spec.taints"), n->taints) ||
                   n->unschedulable != json_path_bool(o->json, "spec.unschedulable", false);
    int64_t before[RESOURCE_KINDS], pods_before = n->max_pods, milli;
    memcpy(before, n->allocatable, sizeof(before));
    memset(n->allocatable, 0, sizeof(n->allocatable));
    add_list(f, list, n->allocatable);
    const struct json *pods = json_get(list, "pods");
    n->max_pods = pods && quantity_parse(pods->text, &milli) ? milli / 1000 : DEFAULT_MAX_PODS;
    n->labels = json_path(o->json, "metadata.labels");
    n->taints = json_path(o->json, "spec.taints");
    n->unschedulable = json_path_bool(o->json, "spec.unschedulable", false);
    kube_object_unref(old);
    return changed || n->max_pods != pods_before ||
           memcmp(before, n->allocatable, sizeof(before)) != 0;
}

void fit_node_remove(struct fit *f, struct slice name)
{
    struct fit_node *n = fit_node_get(f, name);
    if (!n || !n->object) return;
    kube_object_unref(n->object);
    n->object = NULL;
    n->labels = n->taints = NULL;
    f->n_known--;
    if (list_empty(&n->pods)) node_free(f, n);
}

/* ---- pods ----------------------------------------------------------------------------------- */

static void read_ports(struct fit_pod *p, const struct json *spec)
{
    const struct json *containers = json_get(spec, "containers");
    bool host_network = json_path_bool(spec, "hostNetwork", false);
    for (size_t i = 0; i < (containers ? containers->count : 0); i++) {
        const struct json *ports = json_get(json_at(containers, i), "ports");
        for (size_t j = 0; j < (ports ? ports->count : 0); j++) {
            const struct json *port = json_at(ports, j);
            int64_t number = json_path_int(
                port, "hostPort", host_network ? json_path_int(port, "containerPort", 0) : 0);
            if (number <= 0) continue;
            p->ports = mem_must_realloc(p->ports, (p->n_ports + 1) * sizeof(*p->ports));
            struct slice protocol = json_text(json_get(port, "protocol")),
                         ip = json_text(json_get(port, "hostIP"));
            p->ports[p->n_ports++] =
                (struct fit_port){.ip = ip.len ? ip : SLICE_LIT("0.0.0.0"),
                                  .protocol = protocol.len ? protocol : SLICE_LIT("TCP"),
                                  .port = number};
        }
    }
}

void fit_pod_init(struct fit *f, struct fit_pod *p, struct kube_object *o)
{
    int64_t nonzero[RESOURCE_KINDS];
    *p = (struct fit_pod){.object = kube_object_ref(o)};
    list_init(&p->on_node);
    const struct json *spec = json_get(o->json, "spec");
    fit_pod_requests(f, spec, p->request, false);
    fit_pod_requests(f, spec, nonzero, true);
    p->nonzero_cpu = nonzero[RESOURCE_CPU];
    p->nonzero_memory = nonzero[RESOURCE_MEMORY];
    read_ports(p, spec);
    p->group = group_ref(f, o);
}

void fit_pod_release(struct fit *f, struct fit_pod *p)
{
    fit_unassign(f, p);
    group_unref(f, p->group);
    mem_free(p->ports);
    kube_object_unref(p->object);
    *p = (struct fit_pod){0};
}

static void count_pod(struct fit *f, struct fit_node *n, const struct fit_pod *p, int sign)
{
    for (int k = 0; k < f->n_kinds; k++) n->requested[k] += sign * p->request[k];
    n->nonzero_cpu += sign * p->nonzero_cpu;
    n->nonzero_memory += sign * p->nonzero_memory;
    n->n_pods += sign;
    group_count(f, p->group, n->slot, sign);
}

void fit_assign(struct fit *f, struct fit_pod *p, struct slice name)
{
    CHECK(!p->node);
    p->node = node_make(f, name);
    list_push_back(&p->node->pods, &p->on_node);
    count_pod(f, p->node, p, 1);
}

void fit_unassign(struct fit *f, struct fit_pod *p)
{
    struct fit_node *n = p->node;
    if (!n) return;
    count_pod(f, n, p, -1);
    list_remove(&p->on_node);
    p->node = NULL;
    if (!n->object && list_empty(&n->pods)) node_free(f, n);
}
