#include "clients/scheduler/queue.h"

#define PAUSE_MIN_MS 1000
#define PAUSE_MAX_MS 10000
#define UNSCHEDULABLE_MAX_MS 60000

void sched_queue_init(struct sched_queue *q)
{
    *q = (struct sched_queue){0};
    list_init(&q->ready);
    list_init(&q->resting);
    list_init(&q->unschedulable);
}

static size_t *counter(struct sched_queue *q, enum pod_state state)
{
    if (state == POD_READY) return &q->n_ready;
    if (state == POD_RESTING) return &q->n_resting;
    return state == POD_UNSCHEDULABLE ? &q->n_unschedulable : NULL;
}

/* Behind all that are at least as important: from the back, as most are equal. */
static void insert_ready(struct sched_queue *q, struct sched_pod *p)
{
    struct list *at = q->ready.prev;
    while (at != &q->ready && container_of(at, struct sched_pod, link)->priority < p->priority)
        at = at->prev;
    list_push_front(at, &p->link);
}

void sched_queue_set(struct sched_queue *q, struct sched_pod *p, enum pod_state state)
{
    size_t *n = counter(q, p->state);
    if (n) --*n;
    list_remove(&p->link);
    p->state = state;
    n = counter(q, state);
    if (n) ++*n;
    if (state == POD_READY) insert_ready(q, p);
    else if (state == POD_RESTING) list_push_back(&q->resting, &p->link);
    else if (state == POD_UNSCHEDULABLE) list_push_back(&q->unschedulable, &p->link);
}

struct sched_pod *sched_queue_next(const struct sched_queue *q)
{
    return list_empty(&q->ready) ? NULL : container_of(q->ready.next, struct sched_pod, link);
}

void sched_queue_failed(struct sched_queue *q, struct sched_pod *p, uint64_t now,
                        bool unschedulable)
{
    uint64_t pause = (uint64_t)PAUSE_MIN_MS << (p->attempts < 8 ? p->attempts : 8);
    p->attempts++;
    p->tried_ms = now;
    p->ready_ms = now + (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
    sched_queue_set(q, p, unschedulable ? POD_UNSCHEDULABLE : POD_RESTING);
}

void sched_queue_move(struct sched_queue *q, uint64_t now)
{
    list_for_each(node, &q->unschedulable)
    {
        struct sched_pod *p = container_of(node, struct sched_pod, link);
        sched_queue_set(q, p, now >= p->ready_ms ? POD_READY : POD_RESTING);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a == 0 || b < a ? b : a;
}

uint64_t sched_queue_tick(struct sched_queue *q, uint64_t now)
{
    uint64_t next = 0;
    list_for_each(node, &q->resting)
    {
        struct sched_pod *p = container_of(node, struct sched_pod, link);
        if (now >= p->ready_ms) sched_queue_set(q, p, POD_READY);
        else next = sooner(next, p->ready_ms);
    }
    list_for_each(node, &q->unschedulable)
    {
        struct sched_pod *p = container_of(node, struct sched_pod, link);
        if (now >= p->tried_ms + UNSCHEDULABLE_MAX_MS) sched_queue_set(q, p, POD_READY);
        else next = sooner(next, p->tried_ms + UNSCHEDULABLE_MAX_MS);
    }
    return next;
}
