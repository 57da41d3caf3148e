/* A pod's status, worked out from what its containers do. */
#include <stdio.h>

#include "base/clock.h"
#include "clients/agent/agent_int.h"
#include "clients/lib/kjson.h"

static bool restarts_always(const struct agent_pod *p)
{
    struct slice policy = json_path_text(p->object->json, "spec.restartPolicy");
    return policy.len == 0 || slice_eq_str(policy, "Always");
}

bool pod_will_restart(const struct agent_pod *p, const struct agent_container *c)
{
    if (p->stopping || p->finished) return false;
    if (c->sidecar) return true;
    if (!c->init && restarts_always(p)) return true;
    return c->exit_code != 0 &&
           !slice_eq_str(json_path_text(p->object->json, "spec.restartPolicy"), "Never");
}

enum pod_phase pod_phase(const struct agent_pod *p)
{
    if (p->reason) return POD_FAILED;
    size_t waiting = 0, running = 0, failed = 0, ended = 0, main_containers = 0;
    for (size_t i = 0; i < p->n_containers; i++) {
        const struct agent_container *c = &p->containers[i];
        if (c->init) {
            bool done = c->sidecar ? c->phase != CONTAINER_WAITING
                                   : c->phase == CONTAINER_EXITED && c->exit_code == 0;
            if (done) continue;
            return c->phase == CONTAINER_EXITED && !pod_will_restart(p, c) ? POD_FAILED
                                                                           : POD_PENDING;
        }
        main_containers++;
        if (c->phase == CONTAINER_RUNNING) {
            running++;
        } else if (c->phase == CONTAINER_EXITED && !pod_will_restart(p, c)) {
            ended++;
            failed += c->exit_code != 0;
        } else if (c->phase == CONTAINER_EXITED || c->has_last) {
            running++; /* between two runs */
        } else {
            waiting++;
        }
    }
    if (waiting) return POD_PENDING;
    if (running || ended < main_containers || main_containers == 0) return POD_RUNNING;
    return failed ? POD_FAILED : POD_SUCCEEDED;
}

bool pod_is_ready(const struct agent_pod *p)
{
    if (pod_phase(p) != POD_RUNNING || p->stopping || !runtime_hollow_ready(p->object->json))
        return false;
    for (size_t i = 0; i < p->n_containers; i++)
        if (!p->containers[i].init && p->containers[i].phase != CONTAINER_RUNNING) return false;
    return true;
}

static bool initialized(const struct agent_pod *p)
{
    for (size_t i = 0; i < p->n_containers; i++) {
        const struct agent_container *c = &p->containers[i];
        if (c->init && (c->sidecar ? c->phase != CONTAINER_RUNNING
                                   : c->phase != CONTAINER_EXITED || c->exit_code))
            return false;
    }
    return true;
}

static struct json *terminated(struct arena *a, const struct agent_container *c, bool last)
{
    int code = last ? c->last_exit_code : c->exit_code;
    return kjson(a, "{terminated:{exitCode:i,reason:s,startedAt:s,finishedAt:s,containerID:s?}}",
                 (int64_t)code, code ? "Error" : "Completed",
                 kjson_time(a, last ? c->last_started_ms : c->started_ms),
                 kjson_time(a, last ? c->last_finished_ms : c->finished_ms), last ? NULL : c->id);
}

static struct json *container_state(struct arena *a, const struct agent_container *c)
{
    if (c->phase == CONTAINER_RUNNING)
        return kjson(a, "{running:{startedAt:s}}", kjson_time(a, c->started_ms));
    if (c->phase == CONTAINER_EXITED) return terminated(a, c, false);
    return kjson(a, "{waiting:{reason:s}}", c->waiting[0] ? c->waiting : "ContainerCreating");
}

static struct json *container_status(struct arena *a, const struct agent_pod *p,
                                     const struct agent_container *c)
{
    bool running = c->phase == CONTAINER_RUNNING;
    bool ready = c->init && !c->sidecar ? c->phase == CONTAINER_EXITED && c->exit_code == 0
                                        : running && runtime_hollow_ready(p->object->json);
    struct json *last = c->has_last ? terminated(a, c, true) : json_object(a);
    const char *image_id = running || c->phase == CONTAINER_EXITED
                               ? arena_printf(a, "hollow://%.*s", (int)c->image.len, c->image.data)
                               : "";
    return kjson(a,
                 "{name:t,image:t,imageID:s,containerID:s?,ready:b,started:b,restartCount:i,state:"
                 "o,lastState:o}",
                 c->name, c->image, image_id, c->id, (int)ready, (int)running, (int64_t)c->restarts,
                 container_state(a, c), last);
}

static struct json *container_statuses(struct arena *a, const struct agent_pod *p, bool init)
{
    struct json *list = json_array(a);
    size_t n = 0;
    for (size_t i = 0; list && i < p->n_containers; i++) {
        if (p->containers[i].init != init) continue;
        n++;
        if (json_push(a, list, container_status(a, p, &p->containers[i]))) return NULL;
    }
    return n ? list : NULL;
}

static bool is_mine(struct slice type)
{
    return slice_eq_str(type, "Initialized") || slice_eq_str(type, "Ready") ||
           slice_eq_str(type, "ContainersReady") || slice_eq_str(type, "PodScheduled") ||
           slice_eq_str(type, "PodReadyToStartContainers");
}

static struct json *condition(struct arena *a, const char *type, bool yes, int64_t since_ms,
                              const char *reason, const char *message)
{
    return kjson(a, "{type:s,status:s,lastProbeTime:N,lastTransitionTime:s,reason:s?,message:s?}",
                 type, yes ? "True" : "False", kjson_time(a, since_ms), reason, message);
}

static const char *unready_names(struct arena *a, const struct agent_pod *p)
{
    const char *names = "";
    for (size_t i = 0; i < p->n_containers; i++) {
        const struct agent_container *c = &p->containers[i];
        if (c->init || (c->phase == CONTAINER_RUNNING && runtime_hollow_ready(p->object->json)))
            continue;
        names =
            arena_printf(a, "%s%s%.*s", names, *names ? " " : "", (int)c->name.len, c->name.data);
        if (!names) return NULL;
    }
    return arena_printf(a, "containers with unready status: [%s]", names);
}

/* Ours, and those that others keep there. */
static struct json *conditions(struct arena *a, struct agent_pod *p)
{
    enum pod_phase phase = pod_phase(p);
    bool ready = pod_is_ready(p), init = initialized(p);
    if (ready != p->ready || !p->ready_ms) p->ready_ms = clock_wall_ms();
    p->ready = ready;
    if (init && !p->initialized_ms) p->initialized_ms = clock_wall_ms();
    const char *reason = ready                    ? NULL
                         : phase == POD_SUCCEEDED ? "PodCompleted"
                         : phase == POD_FAILED    ? "PodFailed"
                                                  : "ContainersNotReady";
    const char *message = ready || phase >= POD_SUCCEEDED ? NULL : unready_names(a, p);
    struct json *list =
        kjson(a, "[o,o,o,o,o]",
              condition(a, "PodReadyToStartContainers", p->ip[0] && phase < POD_SUCCEEDED,
                        p->start_ms, NULL, NULL),
              condition(a, "Initialized", init, init ? p->initialized_ms : p->start_ms,
                        init ? NULL : "ContainersNotInitialized", NULL),
              condition(a, "Ready", ready, p->ready_ms, reason, message),
              condition(a, "ContainersReady", ready, p->ready_ms, reason, message),
              condition(a, "PodScheduled", true, p->start_ms, NULL, NULL));
    const struct json *old = json_path(p->object->json, "status.conditions");
    for (size_t i = 0; list && i < (old ? old->count : 0); i++)
        if (!is_mine(json_text(json_get(json_at(old, i), "type"))) &&
            json_push(a, list, json_clone(a, json_at(old, i))))
            return NULL;
    return list;
}

struct json *pod_status_patch(struct agent_pod *p, struct arena *a)
{
    static const char *const phases[] = {"Pending", "Running", "Succeeded", "Failed"};
    struct json *ips = p->ip[0] ? kjson(a, "[{ip:s}]", p->ip) : NULL;
    return kjson(a,
                 "{metadata:{uid:t},status:{phase:s,reason:s?,message:s?,conditions:o,hostIP:s,"
                 "hostIPs:[{ip:s}],podIP:s?,podIPs:o?,"
                 "startTime:s,initContainerStatuses:o?,containerStatuses:o?}}",
                 p->object->uid, phases[pod_phase(p)], p->reason, p->message, conditions(a, p),
                 p->on->ip, p->on->ip, p->ip, ips, kjson_time(a, p->start_ms),
                 container_statuses(a, p, true), container_statuses(a, p, false));
}
