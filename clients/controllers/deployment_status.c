/* A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure in
 * Kubernetes' words. */
#include "clients/controllers/deployment.h"
#include "clients/lib/kjson.h"

struct counts {
    int64_t replicas, updated, ready, available, unavailable;
};

static struct counts count(const struct deployment *d)
{
    struct counts n = {0};
    int64_t specified = 0;
    for (size_t i = 0; i < d->n_sets; i++) {
        const struct json *status = json_get(d->sets[i].o->json, "status");
        n.replicas += json_path_int(status, "replicas", 0);
        n.ready += json_path_int(status, "readyReplicas", 0);
        n.available += json_path_int(status, "availableReplicas", 0);
        specified += d->sets[i].set.replicas;
        if (&d->sets[i] == d->new_set) n.updated = json_path_int(status, "replicas", 0);
    }
    n.unavailable = specified > n.available ? specified - n.available : 0;
    return n;
}

static bool all_done(const struct deployment *d, const struct counts *n)
{
    return n->updated == d->want && n->replicas == d->want && n->available == d->want;
}

bool deployment_complete(const struct deployment *d)
{
    struct counts n = count(d);
    return d->new_set && all_done(d, &n) &&
           json_path_int(d->o->json, "status.observedGeneration", 0) >=
               json_path_int(d->o->json, "metadata.generation", 0);
}

/* ---- conditions ----------------------------------------------------------------------------- */

struct verdict {
    const char *status, *reason, *message;
    bool refresh; /* lastUpdateTime moves even if nothing else does */
};

/* The condition with that verdict, or the old one if it says the same. */
static struct json *make_condition(struct arena *a, const struct json *old, const char *type,
                                   const struct verdict *v, const char *now)
{
    bool same = json_is_str(json_get(old, "status"), v->status);
    if (old && same && json_is_str(json_get(old, "reason"), v->reason) && !v->refresh)
        return json_clone(a, old);
    const char *since =
        same ? arena_strdup(a, json_text(json_get(old, "lastTransitionTime"))) : now;
    return kjson(a, "{type:s,status:s,lastUpdateTime:s,lastTransitionTime:s,reason:s,message:s}",
                 type, v->status, now, since, v->reason, v->message);
}

static const char *set_name(const struct deployment *d, struct arena *a)
{
    if (d->new_set) return arena_strdup(a, d->new_set->o->name);
    return d->created_name ? d->created_name : "";
}

static bool progressed(const struct deployment *d, const struct counts *n)
{
    const struct json *old = json_get(d->o->json, "status");
    int64_t updated = json_path_int(old, "updatedReplicas", 0),
            replicas = json_path_int(old, "replicas", 0);
    return n->updated > updated || n->replicas - n->updated < replicas - updated ||
           n->ready > json_path_int(old, "readyReplicas", 0) ||
           n->available > json_path_int(old, "availableReplicas", 0);
}

/* How long until the deadline since the last progress; <= 0: it is over. */
static int64_t time_left(const struct deployment *d, const struct json *old, int64_t now_ms)
{
    int64_t last, deadline = json_path_int(d->o->json, "spec.progressDeadlineSeconds", 600);
    if (!kjson_parse_time(json_text(json_get(old, "lastUpdateTime")), &last))
        return deadline * 1000;
    return last + deadline * 1000 - now_ms;
}

/* Whether there is a verdict on progress at all, and which. */
static bool judge_progress(struct deployment *d, const struct counts *n, const struct json *old,
                           int64_t now_ms, struct verdict *v, int64_t *ret_wait_ms)
{
    struct arena *a = &d->sync->arena;
    struct slice reason = json_text(json_get(old, "reason"));
    const char *name = set_name(d, a);
    bool paused = json_path_bool(d->o->json, "spec.paused", false);
    if (paused || slice_eq_str(reason, "DeploymentPaused")) {
        if (slice_eq_str(reason, "ProgressDeadlineExceeded") && paused) return false;
        *v = paused
                 ? (struct verdict){"Unknown", "DeploymentPaused", "Deployment is paused", false}
                 : (struct verdict){"Unknown", "DeploymentResumed", "Deployment is resumed", false};
        return true;
    }
    if (d->create_error) {
        *v = (struct verdict){"False", "ReplicaSetCreateError", d->create_error, false};
        return true;
    }
    if (d->created_name) {
        *v = (struct verdict){"True", "NewReplicaSetCreated",
                              arena_printf(a, "Created new replica set \"%s\"", name), true};
        return true;
    }
    if (d->new_set && all_done(d, n)) {
        *v = (struct verdict){
            "True", "NewReplicaSetAvailable",
            arena_printf(a, "ReplicaSet \"%s\" has successfully progressed.", name), false};
        return true;
    }
    if (!old && d->new_set) {
        *v = (struct verdict){"True", "FoundNewReplicaSet",
                              arena_printf(a, "Found new replica set \"%s\"", name), false};
        return true;
    }
    bool was_done = slice_eq_str(reason, "NewReplicaSetAvailable");
    if (was_done && n->replicas == n->updated && !d->wrote)
        return false; /* complete once: pods that fail later are another matter */
    if (progressed(d, n) || (was_done && d->wrote)) {
        *v = (struct verdict){"True", "ReplicaSetUpdated",
                              arena_printf(a, "ReplicaSet \"%s\" is progressing.", name), true};
        return true;
    }
    if (slice_eq_str(reason, "ProgressDeadlineExceeded") || was_done) return false;
    int64_t left = time_left(d, old, now_ms);
    if (left > 0) {
        *ret_wait_ms = left + 1000;
        return false;
    }
    *v = (struct verdict){"False", "ProgressDeadlineExceeded",
                          arena_printf(a, "ReplicaSet \"%s\" has timed out progressing.", name),
                          false};
    return true;
}

static struct json *failure_condition(const struct deployment *d, struct arena *a, const char *now)
{
    const struct json *failed = NULL;
    for (size_t i = 0; i < d->n_sets && !failed; i++)
        failed = condition_of(d->sets[i].o->json, "ReplicaFailure");
    if (!failed) return NULL;
    struct verdict v = {"True", arena_strdup(a, json_text(json_get(failed, "reason"))),
                        arena_strdup(a, json_text(json_get(failed, "message"))), false};
    return make_condition(a, condition_of(d->o->json, "ReplicaFailure"), "ReplicaFailure", &v, now);
}

static bool is_ours(struct slice type)
{
    return slice_eq_str(type, "Available") || slice_eq_str(type, "Progressing") ||
           slice_eq_str(type, "ReplicaFailure");
}

static struct json *make_conditions(struct deployment *d, const struct counts *n, int64_t now_ms,
                                    int64_t *ret_wait_ms)
{
    struct arena *a = &d->sync->arena;
    const char *now = kjson_time(a, now_ms);
    const struct json *all = json_path(d->o->json, "status.conditions");
    struct json *list = json_array(a), *c;
    struct verdict v = {"True", "MinimumReplicasAvailable", "Deployment has minimum availability.",
                        false};
    if (n->available < d->want - d->limits.max_unavailable)
        v = (struct verdict){"False", "MinimumReplicasUnavailable",
                             "Deployment does not have minimum availability.", false};
    if (!list) return NULL;
    c = make_condition(a, condition_of(d->o->json, "Available"), "Available", &v, now);
    if (!c || json_push(a, list, c)) return NULL;
    const struct json *old = condition_of(d->o->json, "Progressing");
    int64_t deadline = json_path_int(d->o->json, "spec.progressDeadlineSeconds", 600);
    if (deadline > 0 && deadline != INT32_MAX) {
        bool judged = judge_progress(d, n, old, now_ms, &v, ret_wait_ms);
        c = judged ? make_condition(a, old, "Progressing", &v, now)
            : old  ? json_clone(a, old)
                   : NULL;
        if (c && json_push(a, list, c)) return NULL;
    }
    c = failure_condition(d, a, now);
    if (c && json_push(a, list, c)) return NULL;
    for (size_t i = 0; i < (all ? all->count : 0); i++)
        if (!is_ours(json_text(json_get(json_at(all, i), "type"))) &&
            json_push(a, list, json_clone(a, json_at(all, i))))
            return NULL;
    return list;
}

struct json *deployment_status_patch(struct deployment *d, int64_t now_ms, int64_t *ret_wait_ms)
{
    struct arena *a = &d->sync->arena;
    struct counts n = count(d);
    const struct json *old = json_get(d->o->json, "status");
    int64_t generation = json_path_int(d->o->json, "metadata.generation", 0);
    int64_t collisions = json_path_int(old, "collisionCount", 0) + d->collision;
    struct json *conditions = make_conditions(d, &n, now_ms, ret_wait_ms);
    if (!conditions) return NULL;
    const struct json *had = json_get(old, "conditions");
    if (had && json_equal(conditions, had) && !d->collision &&
        n.replicas == json_path_int(old, "replicas", 0) &&
        n.updated == json_path_int(old, "updatedReplicas", 0) &&
        n.ready == json_path_int(old, "readyReplicas", 0) &&
        n.available == json_path_int(old, "availableReplicas", 0) &&
        n.unavailable == json_path_int(old, "unavailableReplicas", 0) &&
        generation == json_path_int(old, "observedGeneration", 0))
        return NULL;
    struct json *collided = collisions ? json_int(a, collisions) : NULL;
    return kjson(a,
                 "{metadata:{uid:t},status:{observedGeneration:i,replicas:i,updatedReplicas:i,"
                 "readyReplicas:i,availableReplicas:i,"
                 "unavailableReplicas:i,collisionCount:o?,conditions:o}}",
                 d->o->uid, generation, n.replicas, n.updated, n.ready, n.available, n.unavailable,
                 collided, conditions);
}
