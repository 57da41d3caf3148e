/* What the controllers share: informers, one work queue each, and `struct sync`, the requests that
 * one turn of work on a key makes. One thread. Each controller is a file with a `<name>_start` and
 * a `<name>_free`. */
#ifndef PINTLE_CLIENTS_CONTROLLERS_CONTROLLERS_INT_H
#define PINTLE_CLIENTS_CONTROLLERS_CONTROLLERS_INT_H

#include "clients/lib/app.h"
#include "clients/lib/informer.h"
#include "clients/lib/recorder.h"
#include "clients/lib/workqueue.h"

#define QUEUES_MAX 16
#define INFORMERS_MAX 16

struct controllers {
    struct app app;
    struct app_leader election;
    struct leader *leader;
    bool leading;
    struct recorder *deployment_events, *replicaset_events, *node_events;
    struct informer *pods, *nodes, *services, *endpoints, *namespaces, *accounts, *leases,
        *replicasets, *deployments, *endpointslices;
    struct informer *all[INFORMERS_MAX]; /* those, and the ones only the garbage collector needs */
    size_t n_informers, n_synced;
    int pods_by_owner, pods_by_ns, orphan_pods_by_ns, pods_by_node, replicasets_by_owner,
        replicasets_by_ns, deployments_by_ns, services_by_ns, endpointslices_by_owner;
    struct workqueue *queues[QUEUES_MAX];
    size_t n_queues;
    uint64_t node_grace_ms, node_period_ms;
    const char *eviction_rate;
    struct replicaset_controller *replicaset;
    struct deployment_controller *deployment;
    struct endpoints_controller *endpoint;
    struct namespace_controller *namespace_;
    struct node_controller *node;
    struct gc_controller *gc;
    struct account_controller *account;
};

/* A queue that is paused while we do not lead or caches are not filled. */
struct workqueue *controllers_queue(struct controllers *c, const char *name,
                                    void (*process)(void *ctx, struct slice key), void *ctx);

void replicaset_start(struct controllers *c);
void replicaset_free(struct controllers *c);
/* Pods that were made or deleted, and whose coming or going has not been seen yet. */
size_t replicaset_expected(const struct controllers *c);
void deployment_start(struct controllers *c);
void deployment_free(struct controllers *c);
void endpoints_start(struct controllers *c);
void endpoints_free(struct controllers *c);
void namespace_start(struct controllers *c);
void namespace_free(struct controllers *c);
void node_start(struct controllers *c);
void node_free(struct controllers *c);
/* We lead, perhaps again: silence is counted from now on. */
void node_leading(struct controllers *c);
void gc_start(struct controllers *c);
void gc_free(struct controllers *c);
void account_start(struct controllers *c);
void account_free(struct controllers *c);

/* ---- one turn of work on a key -------------------------------------------------------------- */

/* Requests made with `sync_done` as callback and the sync as context, after sync_sent. When the
 * last has been answered and the maker has released its own part, `next` runs (once, also after
 * failures), and then the key is done; failed if any request was. */
struct sync {
    struct controllers *c;
    struct workqueue *queue;
    unsigned pending;
    bool failed;
    void (*next)(struct sync *s); /* takes the sync over: it must release it again */
    void *data;
    struct arena arena; /* lives as long as the sync */
    struct slice key;   /* valid as long as the sync */
};

struct sync *sync_new(struct controllers *c, struct workqueue *q, struct slice key);
void sync_sent(struct sync *s);
/* NOT_FOUND is no failure; CONFLICT is one that is not logged. */
void sync_done(void *ctx, const struct kube_result *r);
void sync_release(struct sync *s);
/* Splits "ns/name". */
void key_split(struct slice key, struct slice *ns, struct slice *name);

/* ---- owners --------------------------------------------------------------------------------- */

struct json *owner_reference(struct arena *a, const struct kube_resource *kind,
                             const struct kube_object *owner);
bool is_controlled_by(const struct kube_object *o, const struct kube_object *owner);
/* Make `o` ours, or no longer ours, by a patch of its ownerReferences. */
void adopt_object(struct sync *s, const struct kube_resource *what, const struct kube_object *o,
                  const struct kube_resource *kind, const struct kube_object *owner);
void release_object(struct sync *s, const struct kube_resource *what, const struct kube_object *o,
                    struct slice owner_uid);

bool is_deleting(const struct kube_object *o);
bool pod_is_active(const struct kube_object *o); /* neither over nor being deleted */
const struct json *condition_of(const struct json *object, const char *type);
bool condition_is(const struct json *object, const char *type, const char *status);
/* Ready for at least `min_ready_s`; `ret_wait_ms` (may be NULL): how long until it is, 0 = that is
 * not what it waits for. */
bool pod_is_available(const struct kube_object *o, int64_t min_ready_s, int64_t now_ms,
                      int64_t *ret_wait_ms);
static inline bool pod_is_ready(const struct kube_object *o)
{
    return condition_is(o->json, "Ready", "True");
}

/* Appends to a growing array of objects (borrowed). */
struct objects {
    struct kube_object **list;
    size_t n, size;
};
void objects_add(struct objects *v, struct kube_object *o);
void objects_release(struct objects *v);

#endif
