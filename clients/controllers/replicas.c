#include "clients/controllers/replicas.h"

#include <stdlib.h>

#include "base/mem.h"
#include "clients/lib/kjson.h"
#include "clients/lib/selector.h"

struct replicas_counts replicas_count(const struct json *rs, const struct objects *pods,
                                      int64_t now_ms, int64_t *ret_wait_ms)
{
    struct replicas_counts n = {0};
    int64_t min_ready = json_path_int(rs, "spec.minReadySeconds", 0);
    const struct json *labels = json_path(rs, "spec.template.metadata.labels");
    *ret_wait_ms = 0;
    for (size_t i = 0; i < pods->n; i++) {
        const struct kube_object *p = pods->list[i];
        if (!pod_is_active(p)) continue;
        int64_t wait;
        n.replicas++;
        n.labeled += !labels || !labels->count ||
                     selector_map_matches(labels, json_path(p->json, "metadata.labels"));
        n.ready += pod_is_ready(p);
        n.available += pod_is_available(p, min_ready, now_ms, &wait);
        if (wait && (!*ret_wait_ms || wait < *ret_wait_ms)) *ret_wait_ms = wait;
    }
    return n;
}

/* ---- order of deletion ---------------------------------------------------------------------- */

struct ranked {
    struct kube_object *pod;
    bool assigned, ready;
    int phase;
    int64_t cost, rank, ready_since, restarts, created;
};

static int64_t time_of(const struct json *v)
{
    int64_t ms;
    return kjson_parse_time(json_text(v), &ms) ? ms : 0;
}

static struct ranked rank(struct kube_object *p, const struct informer *all, int by_node,
                          struct slice owner)
{
    struct ranked r = {.pod = p};
    struct slice node = json_path_text(p->json, "spec.nodeName"),
                 phase = json_path_text(p->json, "status.phase");
    r.assigned = node.len > 0;
    r.phase = slice_eq_str(phase, "Running") ? 2 : slice_eq_str(phase, "Unknown") ? 1 : 0;
    r.ready = pod_is_ready(p);
    r.ready_since =
        r.ready ? time_of(json_get(condition_of(p->json, "Ready"), "lastTransitionTime")) : 0;
    r.created = time_of(json_path(p->json, "metadata.creationTimestamp"));
    const struct json *cost = json_get(json_path(p->json, "metadata.annotations"),
                                       "controller.kubernetes.io/pod-deletion-cost");
    struct slice text = json_text(cost);
    char number[24] = "";
    if (text.len && text.len < sizeof(number)) memcpy(number, text.data, text.len);
    r.cost = strtoll(number, NULL, 10);
    const struct json *statuses = json_path(p->json, "status.containerStatuses");
    for (size_t i = 0; i < (statuses ? statuses->count : 0); i++) {
        int64_t n = json_path_int(json_at(statuses, i), "restartCount", 0);
        if (n > r.restarts) r.restarts = n;
    }
    if (!r.assigned || !all) return r;
    for (const struct kube_object *o = informer_first(all, by_node, node); o;
         o = informer_next(o, by_node))
        r.rank += slice_eq(index_controller_uid(o), owner) && pod_is_active(o);
    return r;
}

static int order(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* Negative: `a` is deleted before `b`. */
static int by_loss(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    int c = order(a->assigned, b->assigned);
    if (!c) c = order(a->phase, b->phase);
    if (!c) c = order(a->ready, b->ready);
    if (!c) c = order(a->cost, b->cost);
    if (!c) c = order(b->rank, a->rank);
    if (!c && a->ready && b->ready) c = order(b->ready_since, a->ready_since);
    if (!c) c = order(b->restarts, a->restarts);
    if (!c) c = order(b->created, a->created);
    return c ? c : slice_cmp(a->pod->name, b->pod->name);
}

void replicas_sort_for_deletion(struct objects *pods, const struct informer *all, int by_node,
                                struct slice owner_uid)
{
    if (pods->n < 2) return;
    struct ranked *r = mem_must_alloc(pods->n * sizeof(*r));
    for (size_t i = 0; i < pods->n; i++) r[i] = rank(pods->list[i], all, by_node, owner_uid);
    qsort(r, pods->n, sizeof(*r), by_loss);
    for (size_t i = 0; i < pods->n; i++) pods->list[i] = r[i].pod;
    mem_free(r);
}

/* ---- rolling updates ------------------------------------------------------------------------ */

static int64_t int_or_percent(const struct json *v, int64_t of, bool up, int64_t otherwise_percent)
{
    int64_t n, percent = otherwise_percent;
    if (v && v->type == JSON_NUMBER && json_to_int(v, &n)) return n < 0 ? 0 : n;
    struct slice s = json_text(v);
    if (s.len > 1 && s.data[s.len - 1] == '%') {
        percent = 0;
        for (size_t i = 0; i + 1 < s.len && i < 9; i++) percent = percent * 10 + (s.data[i] - '0');
    }
    return (of * percent + (up ? 99 : 0)) / 100;
}

struct rolling rolling_limits(const struct json *spec)
{
    int64_t want = json_path_int(spec, "replicas", 1);
    struct rolling r = {0, 0};
    if (json_is_str(json_path(spec, "strategy.type"), "Recreate")) return r;
    r.max_surge =
        int_or_percent(json_path(spec, "strategy.rollingUpdate.maxSurge"), want, true, 25);
    r.max_unavailable =
        int_or_percent(json_path(spec, "strategy.rollingUpdate.maxUnavailable"), want, false, 25);
    if (r.max_surge == 0 && r.max_unavailable == 0) r.max_unavailable = 1;
    if (r.max_unavailable > want) r.max_unavailable = want;
    return r;
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t rollout_new_replicas(int64_t want, struct rolling limits, int64_t total_now,
                             int64_t new_now)
{
    int64_t room = want + limits.max_surge - total_now;
    if (room <= 0) return new_now;
    return new_now + min64(room, want - new_now);
}

static void scale_down_olds(int64_t want, struct rolling limits, const struct rollout_set *new_set,
                            struct rollout_set *olds, size_t n)
{
    int64_t all = new_set ? new_set->replicas : 0, available = new_set ? new_set->available : 0,
            old = 0;
    for (size_t i = 0; i < n; i++) {
        old += olds[i].replicas;
        available += olds[i].available;
    }
    int64_t min_available = want - limits.max_unavailable;
    int64_t new_unavailable = new_set ? new_set->replicas - new_set->available : 0;
    int64_t may_go = all + old - min_available - new_unavailable;
    if (old == 0 || may_go <= 0) return;
    for (size_t i = 0; i < n && may_go > 0; i++) { /* unhealthy ones first: they cost nothing */
        int64_t gone = min64(may_go, olds[i].target - olds[i].available);
        if (olds[i].target == 0 || gone <= 0) continue;
        olds[i].target -= gone;
        may_go -= gone;
    }
    int64_t spare = available - min_available;
    for (size_t i = 0; i < n && spare > 0; i++) {
        int64_t gone = min64(olds[i].target, spare);
        olds[i].target -= gone;
        spare -= gone;
    }
}

void rollout_step(int64_t want, struct rolling limits, struct rollout_set *new_set,
                  struct rollout_set *olds, size_t n_olds)
{
    int64_t total = new_set ? new_set->replicas : 0;
    for (size_t i = 0; i < n_olds; i++) {
        total += olds[i].replicas;
        olds[i].target = olds[i].replicas;
    }
    if (new_set) {
        new_set->target = new_set->replicas > want
                              ? want
                              : rollout_new_replicas(want, limits, total, new_set->replicas);
        if (new_set->target != new_set->replicas)
            return; /* one thing at a time: the rest when this is seen */
    }
    scale_down_olds(want, limits, new_set, olds, n_olds);
}

/* ---- scaling in proportion ------------------------------------------------------------------ */

static int64_t rounded(double v)
{
    return (int64_t)(v < 0 ? v - 0.5 : v + 0.5);
}

/* What the set would gain or lose by itself. */
static int64_t fraction(const struct rollout_set *s, int64_t want, struct rolling limits,
                        int64_t status_replicas)
{
    if (want == 0) return -s->replicas;
    int64_t base = s->max > 0 ? s->max : status_replicas;
    if (base <= 0) return 0;
    return rounded((double)s->replicas * (double)(want + limits.max_surge) / (double)base) -
           s->replicas;
}

static int bigger_first(const struct rollout_set *a, const struct rollout_set *b, bool newer_first)
{
    if (a->replicas != b->replicas) return a->replicas > b->replicas ? -1 : 1;
    return newer_first ? order(b->created_ms, a->created_ms) : order(a->created_ms, b->created_ms);
}

static void sort_sets(struct rollout_set **s, size_t n, bool newer_first)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j && bigger_first(s[j - 1], s[j], newer_first) > 0; j--) {
            struct rollout_set *t = s[j];
            s[j] = s[j - 1];
            s[j - 1] = t;
        }
}

static void scale_in_proportion(int64_t want, struct rolling limits, int64_t status_replicas,
                                struct rollout_set **active, size_t n)
{
    int64_t total = 0, added = 0;
    for (size_t i = 0; i < n; i++) total += active[i]->replicas;
    int64_t to_add = (want > 0 ? want + limits.max_surge : 0) - total;
    sort_sets(active, n, to_add > 0);
    for (size_t i = 0; i < n && to_add; i++) {
        int64_t part = fraction(active[i], want, limits, status_replicas), allowed = to_add - added;
        part = to_add > 0 ? min64(part, allowed) : (part > allowed ? part : allowed);
        if (allowed == 0) part = 0;
        active[i]->target = active[i]->replicas + part;
        added += part;
    }
    if (n && to_add) active[0]->target += to_add - added;
    for (size_t i = 0; i < n; i++)
        if (active[i]->target < 0) active[i]->target = 0;
}

void rollout_scale(int64_t want, struct rolling limits, int64_t status_replicas,
                   bool rolling_update, struct rollout_set *sets, size_t n)
{
    struct rollout_set **active = mem_must_calloc(n ? n : 1, sizeof(struct rollout_set *)),
                       *new_set = NULL, *latest = NULL;
    size_t n_active = 0;
    for (size_t i = 0; i < n; i++) {
        sets[i].target = sets[i].replicas;
        if (sets[i].is_new) new_set = &sets[i];
        if (sets[i].replicas > 0) active[n_active++] = &sets[i];
        if (!latest || sets[i].created_ms > latest->created_ms) latest = &sets[i];
    }
    if (new_set) latest = new_set;
    if (n_active <= 1) {
        struct rollout_set *only = n_active ? active[0] : latest;
        if (only) only->target = want;
    } else if (new_set && new_set->replicas == want && new_set->desired == want &&
               new_set->available == want) {
        for (size_t i = 0; i < n_active; i++)
            if (!active[i]->is_new) active[i]->target = 0;
    } else if (rolling_update) {
        scale_in_proportion(want, limits, status_replicas, active, n_active);
    }
    mem_free(active);
}
