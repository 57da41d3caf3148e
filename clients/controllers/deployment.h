/* What deployment.c (the turn) and deployment_status.c (status and conditions) share. */
#ifndef PINTLE_CLIENTS_CONTROLLERS_DEPLOYMENT_H
#define PINTLE_CLIENTS_CONTROLLERS_DEPLOYMENT_H

#include "clients/controllers/controllers_int.h"
#include "clients/controllers/replicas.h"

#define HASH_LABEL "pod-template-hash"
#define REVISION "deployment.kubernetes.io/revision"
#define REVISION_HISTORY "deployment.kubernetes.io/revision-history"
#define DESIRED "deployment.kubernetes.io/desired-replicas"
#define MAX_REPLICAS "deployment.kubernetes.io/max-replicas"

struct deployment_controller;

struct rs_view {
    struct kube_object *o;
    struct rollout_set set;
    int64_t revision;
};

/* One turn on one Deployment; in the sync's arena. */
struct deployment {
    struct deployment_controller *dc;
    struct sync *sync;
    struct kube_object *o;
    struct rs_view *sets; /* oldest first */
    size_t n_sets;
    struct rs_view *new_set; /* NULL: there is none yet */
    int64_t want, max_revision, max_old_revision;
    struct rolling limits;
    bool recreate, wrote, collision;
    const char *created_key, *created_name, *create_error;
    int64_t created_replicas;
};

int64_t deployment_revision(const struct json *object);
/* All replicas are of the new template and available, and the status says so of the current
 * generation. */
bool deployment_complete(const struct deployment *d);
/* A merge patch of the status, NULL if nothing changes (or memory is short). `ret_wait_ms`: when to
 * look again for the progress deadline, 0 = not. */
struct json *deployment_status_patch(struct deployment *d, int64_t now_ms, int64_t *ret_wait_ms);

#endif
