/* What the agent's files share: agent.c (program), node.c (registration, lease, node status), pod.c
 * (a pod's life), status.c (a pod's status as JSON). One thread. */
#ifndef PINTLE_CLIENTS_AGENT_AGENT_INT_H
#define PINTLE_CLIENTS_AGENT_AGENT_INT_H

#include "clients/agent/runtime.h"
#include "clients/lib/app.h"
#include "clients/lib/informer.h"

struct agent;

struct agent_node {
    struct smap_node node; /* key: name */
    struct agent *agent;
    char *name;
    char ip[16];
    struct list renewals; /* agent->renewals, by renew_ms */
    uint64_t renew_ms, status_ms;
    bool registered, registering, lease_known, spread, status_flying;
    unsigned failures;
    struct slice uid; /* of the Node; owned */
};

enum container_phase { CONTAINER_WAITING, CONTAINER_RUNNING, CONTAINER_EXITED };

struct agent_container {
    struct slice name, image; /* of the pod's spec */
    bool init, sidecar;       /* sidecar: an init container with restartPolicy Always */
    enum container_phase phase;
    bool asked; /* container_start was called, and no answer yet */
    char id[96];
    int64_t started_ms, finished_ms, last_started_ms, last_finished_ms;
    int exit_code, last_exit_code;
    bool has_last;
    unsigned restarts;
    uint64_t restart_at_ms; /* monotonic; 0 = not waiting for it */
    uint64_t backoff_ms;
    char waiting[64];
};

struct agent_pod {
    struct smap_node node; /* key: namespace/name */
    struct agent *agent;
    struct agent_node *on;
    struct kube_object *object,
        *spec_object;       /* newest; the one that containers' names point into */
    struct runtime_pod *rt; /* NULL: no sandbox */
    bool removing, finished, stopping, deleting, gone;
    bool sandbox_failed; /* being removed for that: the next one not at once */
    char ip[48];
    int64_t start_ms, initialized_ms,
        ready_ms; /* wall clock; ready_ms: since when Ready is what it is */
    bool ready;
    uint64_t deadline_at_ms;      /* monotonic; of activeDeadlineSeconds */
    uint64_t look_at_ms;          /* when pod_step has to be called again; 0 = not planned */
    struct list timed;            /* agent->timed */
    const char *reason, *message; /* of a failed pod */
    bool dirty, flying;
    struct list dirty_link; /* agent->dirty */
    size_t n_containers;
    struct agent_container *containers;
    char key[];
};

struct agent {
    struct app app;
    const char *node_name, *name_prefix, *cpu, *memory, *storage, *runtime_name, *labels;
    int64_t hollow_nodes, max_pods;
    uint64_t lease_ms, status_ms, lease_duration_ms;
    struct runtime *runtime;
    struct informer *pods, *nodes;
    struct smap by_node, by_pod;
    struct list renewals, timed, dirty;
    uv_timer_t renew_timer, step_timer;
    uv_idle_t flush; /* active while there are statuses to send */
    size_t n_flying;
    bool nodes_started;
};

/* node.c */
void node_add(struct agent *a, const char *name);
void nodes_start(struct agent *a);
void nodes_free(struct agent *a);
void node_seen(struct agent *a, struct kube_object *o); /* as the API server has it */
void node_gone(struct agent *a, struct kube_object *o);
unsigned node_subnet(struct slice name);

/* pod.c */
void pod_seen(struct agent *a, struct kube_object *o);
void pod_gone(struct agent *a, struct kube_object *o);
void pod_runtime_event(void *ctx, void *owner, const struct runtime_event *e);
void pods_free(struct agent *a);
void pods_flush(struct agent *a);
void pods_step_due(struct agent *a);

/* status.c */
enum pod_phase { POD_PENDING, POD_RUNNING, POD_SUCCEEDED, POD_FAILED };
enum pod_phase pod_phase(const struct agent_pod *p);
/* Whether a container that has exited (or now would) is to be started again. */
bool pod_will_restart(const struct agent_pod *p, const struct agent_container *c);
bool pod_is_ready(const struct agent_pod *p);
/* A merge patch for pods/status; NULL when out of memory. */
struct json *pod_status_patch(struct agent_pod *p, struct arena *a);

#endif
