/* What an agent runs pods with. The agent decides (order of init containers, restarts, deadlines,
 * status); a runtime carries out and reports. All calls return at once; everything that happens is
 * told by events, on the same loop, never from inside a call.
 *
 * A pod's life: pod_create -> SANDBOX_READY (its address) -> container_start for each container
 * when its turn comes -> CONTAINER_STARTED -> CONTAINER_EXITED (by itself, or after container_stop)
 * -> maybe started again -> pod_remove -> SANDBOX_REMOVED, after which the handle is gone.
 * SANDBOX_FAILED and CONTAINER_FAILED say why something could not be started; it may be tried
 * again. pod_remove is allowed at any time and kills what still runs. */
#ifndef PINTLE_CLIENTS_AGENT_RUNTIME_H
#define PINTLE_CLIENTS_AGENT_RUNTIME_H

#include <uv.h>

#include "base/json.h"

struct runtime;
struct runtime_pod; /* a sandbox and its containers */

/* Containers are numbered: the init containers first, then the others, as in the pod's spec. */
struct runtime_pod_config {
    const struct json *pod; /* borrowed until SANDBOX_REMOVED */
    struct slice node;      /* which node of this process it is for */
    /* The pod ran before the agent started: its address and which containers ran. The runtime looks
     * for what is still there and reports it as if it had just been started. */
    struct slice adopt_ip;
};

enum runtime_event_type {
    RUNTIME_SANDBOX_READY,
    RUNTIME_SANDBOX_FAILED,
    RUNTIME_CONTAINER_STARTED,
    RUNTIME_CONTAINER_FAILED,
    RUNTIME_CONTAINER_EXITED,
    RUNTIME_SANDBOX_REMOVED,
};

struct runtime_event {
    enum runtime_event_type type;
    size_t container;
    const char *text; /* READY: the address. STARTED: the container's id. FAILED: why. Borrowed for
                         the call */
    int exit_code;
};

typedef void runtime_listener(void *ctx, void *owner, const struct runtime_event *e);

struct runtime_ops {
    const char *version; /* of nodeInfo.containerRuntimeVersion: "hollow://1" */
    /* `owner` is what events name. ERR_LIMIT, ERR_NOMEM. */
    int (*pod_create)(struct runtime *rt, const struct runtime_pod_config *config, void *owner,
                      struct runtime_pod **ret);
    void (*container_start)(struct runtime_pod *p, size_t container);
    /* Asks it to end, kills it after the grace. */
    void (*container_stop)(struct runtime_pod *p, size_t container, uint64_t grace_ms);
    void (*pod_remove)(struct runtime_pod *p);
    /* What of a pod's JSON the runtime and the agent do not need; may be NULL. */
    void (*trim)(struct json *pod);
    void (*free)(struct runtime *rt); /* drops all pods without events */
};

/* The first member of each runtime's own struct. */
struct runtime {
    const struct runtime_ops *ops;
};

/* Pods without processes: everything succeeds at once, or as the pod's annotations say:
 *   hollow.pintle/start-after: 2s   until its containers have started      hollow.pintle/run-for:
 * 10s    containers end by themselves hollow.pintle/stop-after: 5s    until they end when asked to
 * hollow.pintle/exit-code: "1"  with this code hollow.pintle/ready: "false"    they never become
 * ready `subnet_of` numbers a node: its pods get addresses 10.(64 + n / 256).(n % 256).2 to .254.
 */
struct runtime *runtime_hollow_new(uv_loop_t *loop, unsigned (*subnet_of)(struct slice node),
                                   runtime_listener *listener, void *ctx);
bool runtime_hollow_ready(const struct json *pod);

#endif
