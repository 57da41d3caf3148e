/* The arithmetic of replicas: which pods go first, what counts as what, and how a Deployment moves
 * its replicas from old ReplicaSets to the new one. Pure functions. The rules are those of
 * Kubernetes 1.32's controllers. */
#ifndef PINTLE_CLIENTS_CONTROLLERS_REPLICAS_H
#define PINTLE_CLIENTS_CONTROLLERS_REPLICAS_H

#include "clients/controllers/controllers_int.h"

struct replicas_counts {
    int64_t replicas, labeled, ready, available;
};

/* Of a ReplicaSet's active pods; `ret_wait_ms`: when another becomes available by waiting, 0 =
 * none. */
struct replicas_counts replicas_count(const struct json *rs, const struct objects *pods,
                                      int64_t now_ms, int64_t *ret_wait_ms);

/* First those whose loss costs least: not assigned, then Pending before Unknown before Running, not
 * ready, lower deletion cost, more of the same owner on the node, shorter ready, more restarts,
 * younger. */
void replicas_sort_for_deletion(struct objects *pods, const struct informer *all, int by_node,
                                struct slice owner_uid);

/* maxSurge and maxUnavailable as numbers: percentages of `replicas`, surge rounded up, unavailable
 * down; never both 0. */
struct rolling {
    int64_t max_surge, max_unavailable;
};
struct rolling rolling_limits(const struct json *deployment_spec);

/* A ReplicaSet as the arithmetic sees it. */
struct rollout_set {
    int64_t replicas;     /* spec */
    int64_t available;    /* status */
    int64_t desired, max; /* annotations desired-replicas and max-replicas; -1 = none */
    int64_t created_ms;
    bool is_new;
    int64_t target; /* the answer; starts as replicas */
};

/* One step of a rolling update: sets targets. `olds` in order of creation; `new_set` may be NULL.
 */
void rollout_step(int64_t want, struct rolling limits, struct rollout_set *new_set,
                  struct rollout_set *olds, size_t n_olds);
/* Replicas that a new ReplicaSet starts with. */
int64_t rollout_new_replicas(int64_t want, struct rolling limits, int64_t total_now,
                             int64_t new_now);
/* The Deployment's replicas were changed: spreads the change over the active sets in proportion.
 * `status_replicas`: what the Deployment's status says, for sets without annotation. */
void rollout_scale(int64_t want, struct rolling limits, int64_t status_replicas,
                   bool rolling_update, struct rollout_set *sets, size_t n);

#endif
