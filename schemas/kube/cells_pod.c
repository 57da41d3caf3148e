/* The cells of Pods. kubectl's STATUS is not the phase: it is what a person wants to know first,
 * made from the states of init containers, containers and the deletion. */
#include "schemas/kube/table.h"

#include <stdio.h>

struct pod_view {
    const char *status;
    size_t ready, total;
    int64_t restarts;
    int64_t last_restart_s; /* 0 = none */
    bool failed;            /* out of memory */
};

static bool condition_is_true(const struct json *pod, const char *type)
{
    const struct json *conditions = json_path(pod, "status.conditions");
    for (size_t i = 0; i < cell_count(conditions); i++) {
        const struct json *c = json_at(conditions, i);
        if (json_is_str(json_get(c, "type"), type))
            return json_is_str(json_get(c, "status"), "True");
    }
    return false;
}

static void set_status(struct pod_view *v, const char *text)
{
    v->status = text;
    if (!text) v->failed = true;
}

static const char *text_of(struct arena *a, const char *prefix, struct slice s)
{
    return arena_printf(a, "%s%.*s", prefix, (int)s.len, (const char *)s.data);
}

/* "Error", or "ExitCode:1" when nobody gave a reason. */
static const char *terminated_text(struct arena *a, const char *prefix,
                                   const struct json *terminated)
{
    struct slice reason = json_text(json_get(terminated, "reason"));
    long long signal = json_path_int(terminated, "signal", 0);
    if (reason.len) return text_of(a, prefix, reason);
    if (signal) return arena_printf(a, "%sSignal:%lld", prefix, signal);
    return arena_printf(a, "%sExitCode:%lld", prefix,
                        (long long)json_path_int(terminated, "exitCode", 0));
}

static int64_t last_restart(const struct json *status)
{
    int64_t t;
    return time_parse(json_path_text(status, "lastState.terminated.finishedAt"), &t, NULL) ? t : 0;
}

static void count_restarts(const struct json *status, int64_t *restarts, int64_t *last)
{
    int64_t t = last_restart(status);
    *restarts += json_path_int(status, "restartCount", 0);
    if (t > *last) *last = t;
}

/* The names of init containers that go on running beside the others. NULL when out of memory. As a
 * set, because a client decides how many there are. */
static struct json *sidecar_names(struct arena *a, const struct json *pod)
{
    const struct json *list = json_path(pod, "spec.initContainers");
    struct json *names = json_object(a);
    for (size_t i = 0; i < cell_count(list) && names; i++) {
        struct json *name = json_get(json_at(list, i), "name");
        if (!name || !json_is_str(json_get(json_at(list, i), "restartPolicy"), "Always")) continue;
        if (json_set(a, names, json_text(name), name)) names = NULL;
    }
    return names;
}

struct init_view {
    bool initializing;
    int64_t sidecar_restarts, sidecar_last_s;
};

/* Whether this init container is behind us; else says in the status what it is doing. */
static bool init_is_done(struct arena *a, struct pod_view *v, const struct json *pod,
                         const struct json *status, size_t index, bool sidecar)
{
    const struct json *terminated = json_path(status, "state.terminated");
    struct slice waiting = json_path_text(status, "state.waiting.reason");
    if (terminated && json_path_int(terminated, "exitCode", 0) == 0) return true;
    if (sidecar && json_path_bool(status, "started", false)) {
        v->ready += json_path_bool(status, "ready", false);
        return true;
    }
    if (terminated) set_status(v, terminated_text(a, "Init:", terminated));
    else if (waiting.len && !slice_eq_str(waiting, "PodInitializing"))
        set_status(v, text_of(a, "Init:", waiting));
    else
        set_status(v, arena_printf(a, "Init:%zu/%zu", index,
                                   cell_count(json_path(pod, "spec.initContainers"))));
    return false;
}

static void view_init(struct arena *a, struct pod_view *v, const struct json *pod,
                      struct init_view *init)
{
    const struct json *list = json_path(pod, "status.initContainerStatuses");
    const struct json *sidecars = sidecar_names(a, pod);
    if (!sidecars) v->failed = true;
    for (size_t i = 0; i < cell_count(list) && !init->initializing; i++) {
        const struct json *status = json_at(list, i);
        bool sidecar = json_get_slice(sidecars, json_text(json_get(status, "name")));
        count_restarts(status, &v->restarts, &v->last_restart_s);
        if (sidecar) count_restarts(status, &init->sidecar_restarts, &init->sidecar_last_s);
        init->initializing = !init_is_done(a, v, pod, status, i, sidecar);
    }
}

static void view_containers(struct arena *a, struct pod_view *v, const struct json *pod)
{
    const struct json *list = json_path(pod, "status.containerStatuses");
    bool running = false;
    for (size_t i = cell_count(list); i-- > 0;) {
        const struct json *status = json_at(list, i);
        const struct json *terminated = json_path(status, "state.terminated");
        struct slice waiting = json_path_text(status, "state.waiting.reason");
        count_restarts(status, &v->restarts, &v->last_restart_s);
        if (waiting.len) set_status(v, text_of(a, "", waiting));
        else if (terminated) set_status(v, terminated_text(a, "", terminated));
        else if (json_path_bool(status, "ready", false) && json_path(status, "state.running")) {
            running = true;
            v->ready++;
        }
    }
    if (running && v->status && strcmp(v->status, "Completed") == 0)
        v->status = condition_is_true(pod, "Ready") ? "Running" : "NotReady";
}

static void view_phase(struct arena *a, struct pod_view *v, const struct json *pod)
{
    const struct json *conditions = json_path(pod, "status.conditions");
    struct slice reason = json_path_text(pod, "status.reason");
    set_status(v, text_of(a, "", reason.len ? reason : json_path_text(pod, "status.phase")));
    for (size_t i = 0; i < cell_count(conditions); i++) {
        const struct json *c = json_at(conditions, i);
        if (json_is_str(json_get(c, "type"), "PodScheduled") &&
            json_is_str(json_get(c, "reason"), "SchedulingGated"))
            v->status = "SchedulingGated";
    }
}

static struct pod_view view_pod(struct arena *a, const struct json *pod)
{
    struct pod_view v = {.total = cell_count(json_path(pod, "spec.containers"))};
    struct init_view init = {0};
    const struct json *inits = json_path(pod, "spec.initContainers");
    for (size_t i = 0; i < cell_count(inits); i++)
        v.total += json_is_str(json_get(json_at(inits, i), "restartPolicy"), "Always");
    view_phase(a, &v, pod);
    view_init(a, &v, pod, &init);
    if (!init.initializing || condition_is_true(pod, "Initialized")) {
        v.restarts = init.sidecar_restarts;
        v.last_restart_s = init.sidecar_last_s;
        view_containers(a, &v, pod);
    }
    const struct json *phase = json_path(pod, "status.phase");
    if (json_path(pod, "metadata.deletionTimestamp")) {
        if (json_is_str(json_path(pod, "status.reason"), "NodeLost")) v.status = "Unknown";
        else if (!json_is_str(phase, "Succeeded") && !json_is_str(phase, "Failed"))
            v.status = "Terminating";
    }
    return v;
}

static struct json *cell_pod_ready(struct arena *a, const struct json *pod, int64_t now_s,
                                   const char *const *args)
{
    struct pod_view v = view_pod(a, pod);
    (void)now_s, (void)args;
    return v.failed ? NULL : cell_text(a, arena_printf(a, "%zu/%zu", v.ready, v.total));
}

static struct json *cell_pod_status(struct arena *a, const struct json *pod, int64_t now_s,
                                    const char *const *args)
{
    struct pod_view v = view_pod(a, pod);
    (void)now_s, (void)args;
    return v.failed ? NULL : cell_text(a, v.status);
}

static struct json *cell_pod_restarts(struct arena *a, const struct json *pod, int64_t now_s,
                                      const char *const *args)
{
    struct pod_view v = view_pod(a, pod);
    (void)args;
    if (v.failed) return NULL;
    if (!v.restarts || !v.last_restart_s)
        return cell_text(a, arena_printf(a, "%lld", (long long)v.restarts));
    const char *ago = cell_duration(a, now_s - v.last_restart_s);
    return ago ? cell_text(a, arena_printf(a, "%lld (%s ago)", (long long)v.restarts, ago)) : NULL;
}

static struct json *cell_pod_ip(struct arena *a, const struct json *pod, int64_t now_s,
                                const char *const *args)
{
    struct slice ip = json_text(json_get(json_at(json_path(pod, "status.podIPs"), 0), "ip"));
    (void)now_s, (void)args;
    if (!ip.len) ip = json_path_text(pod, "status.podIP");
    return ip.len ? json_string(a, ip) : json_str(a, "<none>");
}

static struct json *cell_pod_readiness_gates(struct arena *a, const struct json *pod, int64_t now_s,
                                             const char *const *args)
{
    const struct json *gates = json_path(pod, "spec.readinessGates");
    const struct json *conditions = json_path(pod, "status.conditions");
    struct json *met = json_object(a);
    size_t open = 0;
    (void)now_s, (void)args;
    if (!cell_count(gates)) return json_str(a, "<none>");
    for (size_t i = 0; i < cell_count(conditions); i++) {
        struct json *type = json_get(json_at(conditions, i), "type");
        if (type && json_is_str(json_get(json_at(conditions, i), "status"), "True") &&
            json_set(a, met, json_text(type), type))
            return NULL;
    }
    for (size_t i = 0; i < gates->count; i++)
        open +=
            json_get_slice(met, json_text(json_get(json_at(gates, i), "conditionType"))) != NULL;
    return cell_text(a, arena_printf(a, "%zu/%zu", open, gates->count));
}

kind_cell_fn kind_pod_cell_by_name(struct slice name)
{
    static const struct cell_entry cells[] = {
        {"pod-ready", cell_pod_ready},
        {"pod-status", cell_pod_status},
        {"pod-restarts", cell_pod_restarts},
        {"pod-ip", cell_pod_ip},
        {"pod-readiness-gates", cell_pod_readiness_gates},
    };
    for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++)
        if (slice_eq_str(name, cells[i].name)) return cells[i].fn;
    return NULL;
}
