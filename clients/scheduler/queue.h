/* The scheduler's pods: those that wait (ready, resting after a failure, or unschedulable until the
 * cluster changes), and those that have a node. Order and pauses only; no I/O, time is given. One
 * thread. */
#ifndef PINTLE_CLIENTS_SCHEDULER_QUEUE_H
#define PINTLE_CLIENTS_SCHEDULER_QUEUE_H

#include "clients/scheduler/fit.h"

enum pod_state {
    POD_NONE,          /* not ours to schedule (gated, terminating, another scheduler's) */
    POD_READY,         /* in `ready`, by priority, then first come */
    POD_RESTING,       /* until ready_ms */
    POD_UNSCHEDULABLE, /* until something changes, or for a minute */
    POD_BINDING,       /* counted on a node; the API server does not know yet */
    POD_BOUND,
};

struct sched_pod {
    struct smap_node node; /* key: namespace/name */
    struct list link;      /* the list of its state */
    struct fit_pod fit;
    enum pod_state state;
    bool gone; /* deleted while it is being bound: freed after that */
    int64_t priority;
    unsigned attempts;
    uint64_t tried_ms, ready_ms;
    void *owner;
    char key[];
};

struct sched_queue {
    struct list ready, resting, unschedulable;
    size_t n_ready, n_resting, n_unschedulable;
};

void sched_queue_init(struct sched_queue *q);
/* Moves the pod to a waiting state, or out of the queue (any other state). */
void sched_queue_set(struct sched_queue *q, struct sched_pod *p, enum pod_state state);
/* The next one to try, or NULL. It stays in the queue until its state is set. */
struct sched_pod *sched_queue_next(const struct sched_queue *q);
/* After a try that failed: to RESTING or UNSCHEDULABLE with a pause of 1 s, doubling up to 10 s. */
void sched_queue_failed(struct sched_queue *q, struct sched_pod *p, uint64_t now,
                        bool unschedulable);
/* The cluster changed: the unschedulable may try again, when their pause is over. */
void sched_queue_move(struct sched_queue *q, uint64_t now);
/* Makes those ready whose pause is over, and those unschedulable for longer than a minute; returns
 * when to look again, 0 = never. */
uint64_t sched_queue_tick(struct sched_queue *q, uint64_t now);

#endif
