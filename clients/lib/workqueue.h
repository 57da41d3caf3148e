/* Keys to work on: each at most once in the queue and at most once in work, however often it is
 * added; added again while in work it comes back after it. Failures come back after a pause that
 * doubles per key. As client-go's workqueue.
 *
 * `process` is given a key and finishes it later (or at once) by workqueue_done. One thread, one
 * loop. */
#ifndef PINTLE_CLIENTS_LIB_WORKQUEUE_H
#define PINTLE_CLIENTS_LIB_WORKQUEUE_H

#include <uv.h>

#include "base/slice.h"

struct workqueue;

struct workqueue_options {
    const char *name;
    /* The key is valid until workqueue_done for it. */
    void (*process)(void *ctx, struct slice key);
    void *ctx;
    unsigned workers;        /* keys in work at a time; 0 = 16 */
    unsigned backoff_min_ms; /* 0 = 5 */
    unsigned backoff_max_ms; /* 0 = 60,000 */
};

struct workqueue *workqueue_new(uv_loop_t *loop, const struct workqueue_options *o);
/* Keys in work may still be finished after it: call it when nothing is under way, or never call
 * workqueue_done again. */
void workqueue_free(struct workqueue *q);
void workqueue_add(struct workqueue *q, struct slice key);
/* Not before that many milliseconds; an earlier time already planned stays. */
void workqueue_add_after(struct workqueue *q, struct slice key, uint64_t ms);
/* `failed`: again after the key's next pause, else its pauses start anew. */
void workqueue_done(struct workqueue *q, struct slice key, bool failed);
/* Nothing is handed out while paused (no leadership); adds are kept. */
void workqueue_pause(struct workqueue *q, bool paused);
size_t workqueue_length(const struct workqueue *q); /* ready to be worked on */
size_t workqueue_in_work(const struct workqueue *q);
unsigned workqueue_failures(const struct workqueue *q, struct slice key);

#endif
