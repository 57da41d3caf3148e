/* The choice: filters over all nodes (until enough are found), scores over those that passed. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "clients/lib/selector.h"
#include "clients/scheduler/fit_int.h"

/* kube-scheduler's percentageOfNodesToScore: all of up to 100 nodes, then a share that falls from
 * 50% to 5%. */
#define ALWAYS_SCORED 100
#define REASONS_MAX 64

/* Why nodes were refused, and how many each. */
struct reasons {
    struct {
        char text[160];
        size_t count;
    } list[REASONS_MAX];
    size_t n;
};

static void add_reason(struct reasons *r, const char *text)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->list[i].text, text) != 0) continue;
        r->list[i].count++;
        return;
    }
    if (r->n == REASONS_MAX) return;
    snprintf(r->list[r->n].text, sizeof(r->list[r->n].text), "%s", text);
    r->list[r->n++].count = 1;
}

/* ---- filters -------------------------------------------------------------------------------- */

static const struct json *pod_spec(const struct fit_pod *p)
{
    return json_get(p->object->json, "spec");
}

/* The first taint with NoSchedule or NoExecute that is not tolerated. */
static const struct json *hard_taint(const struct fit_node *n, const struct json *tolerations)
{
    for (size_t i = 0; i < (n->taints ? n->taints->count : 0); i++) {
        const struct json *taint = json_at(n->taints, i);
        if (json_is_str(json_get(taint, "effect"), "PreferNoSchedule")) continue;
        if (!tolerations_find(tolerations, taint)) return taint;
    }
    return NULL;
}

static bool ports_clash(const struct fit_port *a, const struct fit_port *b)
{
    if (a->port != b->port || !slice_eq(a->protocol, b->protocol)) return false;
    return slice_eq(a->ip, b->ip) || slice_eq_str(a->ip, "0.0.0.0") ||
           slice_eq_str(b->ip, "0.0.0.0");
}

static bool ports_taken(const struct fit_node *n, const struct fit_pod *p)
{
    if (!p->n_ports) return false;
    for (const struct list *l = n->pods.next; l != &n->pods; l = l->next) {
        const struct fit_pod *other = container_of(l, struct fit_pod, on_node);
        for (size_t i = 0; i < other->n_ports; i++)
            for (size_t j = 0; j < p->n_ports; j++)
                if (ports_clash(&other->ports[i], &p->ports[j])) return true;
    }
    return false;
}

static bool enough_resources(const struct fit *f, const struct fit_node *n, const struct fit_pod *p,
                             struct reasons *r)
{
    bool ok = true;
    char text[160];
    if (n->n_pods + 1 > n->max_pods) {
        add_reason(r, "Too many pods");
        ok = false;
    }
    for (int k = 0; k < f->n_kinds; k++) {
        if (p->request[k] == 0 || p->request[k] <= n->allocatable[k] - n->requested[k]) continue;
        snprintf(text, sizeof(text), "Insufficient %s", f->kinds[k]);
        add_reason(r, text);
        ok = false;
    }
    return ok;
}

static bool affinity_matches(const struct fit_node *n, const struct json *spec)
{
    const struct json *map = json_get(spec, "nodeSelector");
    if (map && map->count && !selector_map_matches(map, n->labels)) return false;
    const struct json *required =
        json_path(spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    return node_selector_matches(required, n->labels, slice_str(n->name));
}

/* The order is kube-scheduler's: the first filter that refuses a node names the reason. */
static bool passes(const struct fit *f, const struct fit_node *n, const struct fit_pod *p,
                   struct reasons *r)
{
    static const struct json effect = {.type = JSON_STRING, .text = SLICE_LIT("NoSchedule")};
    static const struct json key = {.type = JSON_STRING,
                                    .text = SLICE_LIT("node.kubernetes.io/unschedulable")};
    struct json_member members[] = {{SLICE_LIT("key"), (struct json *)&key},
                                    {SLICE_LIT("effect"), (struct json *)&effect}};
    struct json cordon = {.type = JSON_OBJECT, .count = 2, .size = 2, .members = members};
    const struct json *spec = pod_spec(p), *tolerations = json_get(spec, "tolerations");
    if (n->unschedulable && !tolerations_find(tolerations, &cordon)) {
        add_reason(r, "node(s) were unschedulable");
        return false;
    }
    const struct json *taint = n->taints ? hard_taint(n, tolerations) : NULL;
    if (taint) {
        struct slice k = json_text(json_get(taint, "key")), v = json_text(json_get(taint, "value"));
        char text[160];
        snprintf(text, sizeof(text), "node(s) had untolerated taint {%.*s: %.*s}", (int)k.len,
                 k.data, (int)v.len, v.len ? (const char *)v.data : "");
        add_reason(r, text);
        return false;
    }
    if (!affinity_matches(n, spec)) {
        add_reason(r, "node(s) didn't match Pod's node affinity/selector");
        return false;
    }
    if (ports_taken(n, p)) {
        add_reason(r, "node(s) didn't have free ports for the requested pod ports");
        return false;
    }
    return enough_resources(f, n, p, r);
}

/* ---- scores --------------------------------------------------------------------------------- */

static double share(int64_t used, int64_t of)
{
    if (of <= 0 || used >= of) return 1;
    return (double)used / (double)of;
}

static double preferred_weight(const struct fit_node *n, const struct json *preferred)
{
    double sum = 0;
    for (size_t i = 0; i < (preferred ? preferred->count : 0); i++) {
        const struct json *term = json_at(preferred, i);
        if (node_term_matches(json_get(term, "preference"), n->labels, slice_str(n->name)))
            sum += (double)json_path_int(term, "weight", 0);
    }
    return sum;
}

static double soft_taints(const struct fit_node *n, const struct json *tolerations)
{
    double count = 0;
    for (size_t i = 0; i < (n->taints ? n->taints->count : 0); i++) {
        const struct json *taint = json_at(n->taints, i);
        if (json_is_str(json_get(taint, "effect"), "PreferNoSchedule") &&
            !tolerations_find(tolerations, taint))
            count++;
    }
    return count;
}

static void score(struct candidate *c, const struct fit_pod *p)
{
    const struct fit_node *n = c->node;
    const struct json *spec = pod_spec(p);
    double cpu = share(n->nonzero_cpu + p->nonzero_cpu, n->allocatable[RESOURCE_CPU]);
    double memory = share(n->nonzero_memory + p->nonzero_memory, n->allocatable[RESOURCE_MEMORY]);
    double apart = cpu > memory ? cpu - memory : memory - cpu;
    c->least = 100 * (1 - (cpu + memory) / 2);
    c->balanced = 100 * (1 - apart / 2);
    c->affinity = preferred_weight(
        n,
        json_path(spec, "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution"));
    c->taints = n->taints ? soft_taints(n, json_get(spec, "tolerations")) : 0;
    c->spread = p->group && n->slot < p->group->size ? p->group->counts[n->slot] : 0;
}

static double share_of_best(double v, double max, bool less_is_better)
{
    if (max <= 0) return less_is_better ? 100 : 0;
    return less_is_better ? 100 * (max - v) / max : 100 * v / max;
}

static struct fit_node *best(struct candidate *c, size_t n)
{
    double affinity = 0, taints = 0, spread = 0, top = -1;
    for (size_t i = 0; i < n; i++) {
        if (c[i].affinity > affinity) affinity = c[i].affinity;
        if (c[i].taints > taints) taints = c[i].taints;
        if (c[i].spread > spread) spread = c[i].spread;
    }
    struct fit_node *winner = NULL;
    for (size_t i = 0; i < n; i++) {
        double total = c[i].least + c[i].balanced +
                       2 * share_of_best(c[i].affinity, affinity, false) +
                       3 * share_of_best(c[i].taints, taints, true) +
                       2 * share_of_best(c[i].spread, spread, true);
        if (total > top) { /* equals: the first, and the start moves on with each pod */
            top = total;
            winner = c[i].node;
        }
    }
    return winner;
}

/* ---- the choice ----------------------------------------------------------------------------- */

static size_t enough_nodes(size_t known)
{
    if (known <= ALWAYS_SCORED) return known;
    size_t percent = known / 125 < 45 ? 50 - known / 125 : 5;
    size_t n = known * percent / 100;
    return n < ALWAYS_SCORED ? ALWAYS_SCORED : n;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void explain(const struct fit *f, const struct reasons *r, struct buf *why)
{
    if (f->n_known == 0) {
        buf_append_str(why, "no nodes available to schedule pods");
        return;
    }
    char lines[REASONS_MAX][192], *sorted[REASONS_MAX];
    for (size_t i = 0; i < r->n; i++) {
        snprintf(lines[i], sizeof(lines[i]), "%zu %s", r->list[i].count, r->list[i].text);
        sorted[i] = lines[i];
    }
    qsort(sorted, r->n, sizeof(*sorted), by_text);
    buf_printf(why, "0/%zu nodes are available:", f->n_known);
    for (size_t i = 0; i < r->n; i++) buf_printf(why, "%s %s", i ? "," : "", sorted[i]);
    buf_append_byte(why, '.');
}

static void reserve_scratch(struct fit *f)
{
    if (f->scratch_size >= f->n_slots) return;
    f->scratch_size = f->n_slots;
    f->scratch = mem_must_realloc(f->scratch, f->n_slots * sizeof(*f->scratch));
}

struct fit_node *fit_pick(struct fit *f, const struct fit_pod *p, struct buf *why)
{
    struct reasons reasons;
    reasons.n = 0;
    reserve_scratch(f);
    size_t found = 0, want = enough_nodes(f->n_known), looked = 0;
    for (; looked < f->n_slots && found < want; looked++) {
        struct fit_node *n = f->slots[(f->start + looked) % f->n_slots];
        if (!n || !n->object || !passes(f, n, p, &reasons)) continue;
        f->scratch[found] = (struct candidate){.node = n};
        score(&f->scratch[found++], p);
    }
    if (f->n_slots)
        f->start = (f->start + (found == want && want < f->n_known ? looked : 1)) % f->n_slots;
    if (found) return best(f->scratch, found);
    explain(f, &reasons, why);
    return NULL;
}
