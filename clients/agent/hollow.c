/* The hollow runtime: events in a heap by time, delivered by one timer. An event names its pod by
 * number and its container by start count, so that events of what is gone are recognised and
 * dropped. */
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "clients/agent/runtime.h"
#include "clients/lib/app.h"
#include "clients/lib/kjson.h"
#include "clients/lib/smap.h"

#define STOP_MS 100 /* a well-behaved process ends soon after it is asked */

struct planned {
    uint64_t due_ms, order, pod;
    enum runtime_event_type type;
    size_t container;
    unsigned start; /* which start of the container it belongs to */
    int exit_code;
};

struct subnet {
    struct smap_node node; /* key: the node's name */
    unsigned number;
    uint8_t used[32]; /* bit per address */
    char name[];
};

struct hollow;

struct runtime_pod {
    struct smap_node node; /* key: `id` */
    uint64_t id;
    struct hollow *hollow;
    void *owner;
    struct subnet *subnet;
    int address; /* last byte; 0 = none */
    char ip[16];
    uint64_t start_ms, run_ms, stop_ms;
    int exit_code;
    size_t n_containers;
    struct {
        unsigned starts;
        bool running, stopping;
        bool once; /* an init container: over as soon as it has run */
    } containers[];
};

struct hollow {
    struct runtime base;
    uv_loop_t *loop;
    uv_timer_t *timer;
    unsigned (*subnet_of)(struct slice node);
    runtime_listener *listener;
    void *ctx;
    struct smap pods, subnets;
    struct planned *heap;
    size_t n_heap, heap_size;
    uint64_t next_id, next_order;
};

/* ---- the heap ------------------------------------------------------------------------------- */

static bool before(const struct planned *a, const struct planned *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static void deliver_due(uv_timer_t *t);

static void plan(struct hollow *h, struct planned e, uint64_t after_ms)
{
    e.due_ms = uv_now(h->loop) + after_ms;
    e.order = h->next_order++;
    if (h->n_heap == h->heap_size) {
        h->heap_size = h->heap_size ? h->heap_size * 2 : 64;
        h->heap = mem_must_realloc(h->heap, h->heap_size * sizeof(*h->heap));
    }
    size_t at = h->n_heap++;
    for (; at && before(&e, &h->heap[(at - 1) / 2]); at = (at - 1) / 2)
        h->heap[at] = h->heap[(at - 1) / 2];
    h->heap[at] = e;
    if (at == 0) uv_timer_start(h->timer, deliver_due, after_ms, 0);
}

static struct planned pop(struct hollow *h)
{
    struct planned first = h->heap[0], last = h->heap[--h->n_heap];
    size_t at = 0;
    for (size_t child; (child = at * 2 + 1) < h->n_heap; at = child) {
        if (child + 1 < h->n_heap && before(&h->heap[child + 1], &h->heap[child])) child++;
        if (!before(&h->heap[child], &last)) break;
        h->heap[at] = h->heap[child];
    }
    h->heap[at] = last;
    return first;
}

static void plan_container(struct runtime_pod *p, enum runtime_event_type type, size_t container,
                           int exit_code, uint64_t after_ms)
{
    struct planned e = {.pod = p->id,
                        .type = type,
                        .container = container,
                        .start = p->containers[container].starts,
                        .exit_code = exit_code};
    plan(p->hollow, e, after_ms);
}

/* ---- addresses ------------------------------------------------------------------------------ */

static struct subnet *subnet_get(struct hollow *h, struct slice node)
{
    struct subnet *s = smap_entry(&h->subnets, node, struct subnet, node);
    if (s) return s;
    s = mem_must_calloc(1, sizeof(*s) + node.len);
    if (node.len) memcpy(s->name, node.data, node.len);
    s->number = h->subnet_of(node);
    smap_insert(&h->subnets, &s->node, slice_make(s->name, node.len));
    return s;
}

static bool take_address(struct runtime_pod *p, int wanted)
{
    uint8_t *used = p->subnet->used;
    int first = wanted ? wanted : 2, last = wanted ? wanted : 254;
    for (int i = first; i <= last; i++) {
        if (used[i / 8] >> (i % 8) & 1) continue;
        used[i / 8] |= (uint8_t)(1u << (i % 8));
        p->address = i;
        snprintf(p->ip, sizeof(p->ip), "10.%u.%u.%d", (64 + p->subnet->number / 256) & 255,
                 p->subnet->number % 256, i);
        return true;
    }
    return false;
}

/* The last byte of an address of that subnet, or 0. */
static int address_in(const struct subnet *s, struct slice ip)
{
    unsigned a, b, c;
    char text[20], end;
    if (!ip.len || ip.len >= sizeof(text)) return 0;
    memcpy(text, ip.data, ip.len);
    text[ip.len] = 0;
    if (sscanf(text, "10.%u.%u.%u%c", &a, &b, &c, &end) != 3 || c < 2 || c > 254) return 0;
    return a == ((64 + s->number / 256) & 255) && b == s->number % 256 ? (int)c : 0;
}

/* ---- operations ----------------------------------------------------------------------------- */

static struct slice annotation(const struct json *pod, const char *name)
{
    return json_text(json_get(json_path(pod, "metadata.annotations"), name));
}

static uint64_t duration_of(const struct json *pod, const char *name, uint64_t otherwise)
{
    char text[32];
    uint64_t ms;
    struct slice s = annotation(pod, name);
    if (!s.len || s.len >= sizeof(text)) return otherwise;
    memcpy(text, s.data, s.len);
    text[s.len] = 0;
    return app_parse_duration(text, &ms) ? ms : otherwise;
}

bool runtime_hollow_ready(const struct json *pod)
{
    return !slice_eq_str(annotation(pod, "hollow.pintle/ready"), "false");
}

static size_t count(const struct json *list)
{
    return list && list->type == JSON_ARRAY ? list->count : 0;
}

static int pod_create(struct runtime *rt, const struct runtime_pod_config *c, void *owner,
                      struct runtime_pod **ret)
{
    struct hollow *h = (struct hollow *)rt;
    size_t n = count(json_path(c->pod, "spec.initContainers")) +
               count(json_path(c->pod, "spec.containers"));
    struct runtime_pod *p = mem_calloc(1, sizeof(*p) + n * sizeof(p->containers[0]));
    if (!p) return ERR_NOMEM;
    p->hollow = h;
    p->owner = owner;
    p->id = h->next_id++;
    p->n_containers = n;
    p->subnet = subnet_get(h, c->node);
    p->start_ms = duration_of(c->pod, "hollow.pintle/start-after", 0);
    p->run_ms = duration_of(c->pod, "hollow.pintle/run-for", 0);
    p->stop_ms = duration_of(c->pod, "hollow.pintle/stop-after", STOP_MS);
    p->exit_code = slice_eq_str(annotation(c->pod, "hollow.pintle/exit-code"), "")
                       ? 0
                       : atoi((const char *)annotation(c->pod, "hollow.pintle/exit-code").data);
    for (size_t i = 0; i < count(json_path(c->pod, "spec.initContainers")); i++) {
        const struct json *init = json_at(json_path(c->pod, "spec.initContainers"), i);
        p->containers[i].once = !json_is_str(json_get(init, "restartPolicy"), "Always");
    }
    int wanted = address_in(p->subnet, c->adopt_ip);
    bool ok = (wanted && take_address(p, wanted)) || take_address(p, 0);
    smap_insert(&h->pods, &p->node, slice_make(&p->id, sizeof(p->id)));
    plan(
        h,
        (struct planned){.pod = p->id, .type = ok ? RUNTIME_SANDBOX_READY : RUNTIME_SANDBOX_FAILED},
        0);
    *ret = p;
    return 0;
}

static void container_start(struct runtime_pod *p, size_t container)
{
    CHECK(container < p->n_containers);
    p->containers[container].starts++;
    p->containers[container].stopping = false;
    plan_container(p, RUNTIME_CONTAINER_STARTED, container, 0, p->start_ms);
}

static void container_stop(struct runtime_pod *p, size_t container, uint64_t grace_ms)
{
    if (!p->containers[container].running || p->containers[container].stopping) return;
    p->containers[container].stopping = true;
    bool in_time = p->stop_ms <= grace_ms;
    plan_container(p, RUNTIME_CONTAINER_EXITED, container, in_time ? 0 : 137,
                   in_time ? p->stop_ms : grace_ms);
}

static void pod_free(struct runtime_pod *p)
{
    if (p->address) p->subnet->used[p->address / 8] &= (uint8_t) ~(1u << (p->address % 8));
    smap_remove(&p->hollow->pods, &p->node);
    mem_free(p);
}

static void pod_remove(struct runtime_pod *p)
{
    plan(p->hollow, (struct planned){.pod = p->id, .type = RUNTIME_SANDBOX_REMOVED}, 0);
}

/* Updates the pod; false = the event belongs to what is gone. */
static bool apply(struct runtime_pod *p, const struct planned *e)
{
    if (e->type == RUNTIME_SANDBOX_READY || e->type == RUNTIME_SANDBOX_FAILED ||
        e->type == RUNTIME_SANDBOX_REMOVED)
        return true;
    if (e->start != p->containers[e->container].starts) return false;
    bool started = e->type == RUNTIME_CONTAINER_STARTED;
    if (!started && !p->containers[e->container].running) return false;
    p->containers[e->container].running = started;
    return true;
}

static void deliver(struct hollow *h, const struct planned *e)
{
    struct runtime_pod *p =
        smap_entry(&h->pods, slice_make(&e->pod, sizeof(e->pod)), struct runtime_pod, node);
    if (!p || !apply(p, e)) return;
    char id[96];
    snprintf(id, sizeof(id), "hollow://%llx-%zu-%u", (unsigned long long)p->id, e->container,
             e->start);
    struct runtime_event out = {
        .type = e->type, .container = e->container, .exit_code = e->exit_code, .text = ""};
    if (e->type == RUNTIME_SANDBOX_READY) out.text = p->ip;
    if (e->type == RUNTIME_SANDBOX_FAILED) out.text = "no free address in the node's subnet";
    if (e->type == RUNTIME_CONTAINER_STARTED) {
        out.text = id;
        if (p->containers[e->container].once)
            plan_container(p, RUNTIME_CONTAINER_EXITED, e->container, 0, 0);
        else if (p->run_ms)
            plan_container(p, RUNTIME_CONTAINER_EXITED, e->container, p->exit_code, p->run_ms);
    }
    void *owner = p->owner;
    if (e->type == RUNTIME_SANDBOX_REMOVED) pod_free(p);
    h->listener(h->ctx, owner, &out);
}

static void deliver_due(uv_timer_t *t)
{
    struct hollow *h = t->data;
    /* A slice a turn; what is planned meanwhile waits for the next. */
    for (int i = 0; i < 512 && h->n_heap && h->heap[0].due_ms <= uv_now(h->loop); i++) {
        struct planned e = pop(h);
        deliver(h, &e);
    }
    if (!h->n_heap) return;
    uint64_t now = uv_now(h->loop), due = h->heap[0].due_ms;
    uv_timer_start(t, deliver_due, due > now ? due - now : 0, 0);
}

/* ---- the runtime ---------------------------------------------------------------------------- */

static void trim_containers(const struct json *list)
{
    static const char *const names[] = {"name", "image", "restartPolicy", NULL};
    for (size_t i = 0; i < count(list); i++) kjson_keep(json_at(list, i), names);
}

static void trim(struct json *pod)
{
    static const char *const top[] = {"metadata", "spec", "status", NULL};
    static const char *const meta[] = {"name",
                                       "namespace",
                                       "uid",
                                       "annotations",
                                       "deletionTimestamp",
                                       "deletionGracePeriodSeconds",
                                       "resourceVersion",
                                       NULL};
    static const char *const spec[] = {
        "nodeName",       "containers", "initContainers", "restartPolicy", "activeDeadlineSeconds",
        "readinessGates", NULL};
    static const char *const notes[] = {"hollow.pintle/start-after", "hollow.pintle/run-for",
                                        "hollow.pintle/stop-after",  "hollow.pintle/exit-code",
                                        "hollow.pintle/ready",       NULL};
    kjson_keep(pod, top);
    kjson_keep(json_get(pod, "metadata"), meta);
    kjson_keep(json_path(pod, "metadata.annotations"), notes);
    kjson_keep(json_get(pod, "spec"), spec);
    trim_containers(json_path(pod, "spec.containers"));
    trim_containers(json_path(pod, "spec.initContainers"));
}

static void timer_closed(uv_handle_t *t)
{
    mem_free(t);
}

static void hollow_free(struct runtime *rt)
{
    struct hollow *h = (struct hollow *)rt;
    uv_close((uv_handle_t *)h->timer, timer_closed);
    smap_for_each(node, &h->pods) pod_free(container_of(node, struct runtime_pod, node));
    smap_release(&h->pods);
    smap_for_each(node, &h->subnets) mem_free(container_of(node, struct subnet, node));
    smap_release(&h->subnets);
    mem_free(h->heap);
    mem_free(h);
}

static const struct runtime_ops ops = {.version = "hollow://1.0.0",
                                       .pod_create = pod_create,
                                       .container_start = container_start,
                                       .container_stop = container_stop,
                                       .pod_remove = pod_remove,
                                       .trim = trim,
                                       .free = hollow_free};

struct runtime *runtime_hollow_new(uv_loop_t *loop, unsigned (*subnet_of)(struct slice node),
                                   runtime_listener *listener, void *ctx)
{
    struct hollow *h = mem_must_calloc(1, sizeof(*h));
    h->base.ops = &ops;
    h->loop = loop;
    h->subnet_of = subnet_of;
    h->listener = listener;
    h->ctx = ctx;
    h->next_id = 1;
    h->timer = mem_must_calloc(1, sizeof(*h->timer));
    uv_timer_init(loop, h->timer);
    h->timer->data = h;
    return &h->base;
}
