#include "clients/lib/workqueue.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "clients/lib/smap.h"

/* One key. It stays in the map while it is queued, planned, in work, or has failures to remember.
 */
struct item {
    struct smap_node node;
    struct list link; /* q->ready */
    bool queued, working, again;
    uint64_t due_ms; /* planned; 0 = not */
    size_t heap_at;
    unsigned failures;
    uint8_t key[];
};

struct workqueue {
    struct workqueue_options o;
    uv_loop_t *loop;
    uv_timer_t *timer;
    uv_idle_t *idle; /* hands out keys: never from inside an add */
    struct smap items;
    struct list ready;
    size_t n_ready, n_working;
    struct item **heap; /* by due_ms */
    size_t n_heap, heap_size;
    bool paused;
};

/* ---- the heap of planned keys --------------------------------------------------------------- */

static void heap_set(struct workqueue *q, size_t at, struct item *it)
{
    q->heap[at] = it;
    it->heap_at = at;
}

static void heap_up(struct workqueue *q, size_t at)
{
    struct item *it = q->heap[at];
    while (at && q->heap[(at - 1) / 2]->due_ms > it->due_ms) {
        heap_set(q, at, q->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_set(q, at, it);
}

static void heap_down(struct workqueue *q, size_t at)
{
    struct item *it = q->heap[at];
    for (size_t child; (child = at * 2 + 1) < q->n_heap; at = child) {
        if (child + 1 < q->n_heap && q->heap[child + 1]->due_ms < q->heap[child]->due_ms) child++;
        if (q->heap[child]->due_ms >= it->due_ms) break;
        heap_set(q, at, q->heap[child]);
    }
    heap_set(q, at, it);
}

static void heap_push(struct workqueue *q, struct item *it)
{
    if (q->n_heap == q->heap_size) {
        q->heap_size = q->heap_size ? q->heap_size * 2 : 16;
        q->heap = mem_must_realloc(q->heap, q->heap_size * sizeof(struct item *));
    }
    heap_set(q, q->n_heap++, it);
    heap_up(q, it->heap_at);
}

static void heap_remove(struct workqueue *q, struct item *it)
{
    size_t at = it->heap_at;
    struct item *last = q->heap[--q->n_heap];
    it->due_ms = 0;
    if (last == it) return;
    heap_set(q, at, last);
    heap_up(q, at);
    heap_down(q, last->heap_at);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static void item_drop_if_idle(struct workqueue *q, struct item *it)
{
    if (it->queued || it->working || it->due_ms || it->failures) return;
    smap_remove(&q->items, &it->node);
    mem_free(it);
}

static struct item *item_get(struct workqueue *q, struct slice key)
{
    struct item *it = smap_entry(&q->items, key, struct item, node);
    if (it) return it;
    it = mem_must_calloc(1, sizeof(*it) + key.len);
    if (key.len) memcpy(it->key, key.data, key.len);
    list_init(&it->link);
    smap_insert(&q->items, &it->node, slice_make(it->key, key.len));
    return it;
}

static void hand_out(uv_idle_t *idle)
{
    struct workqueue *q = idle->data;
    /* A bounded slice a turn, so that the loop goes on reading. */
    for (int i = 0; i < 64 && !q->paused && q->n_working < q->o.workers && !list_empty(&q->ready);
         i++) {
        struct item *it = container_of(list_pop_front(&q->ready), struct item, link);
        it->queued = false;
        it->working = true;
        q->n_ready--;
        q->n_working++;
        q->o.process(q->o.ctx, it->node.key);
    }
    if (q->paused || q->n_working >= q->o.workers || list_empty(&q->ready)) uv_idle_stop(idle);
}

static void wake(struct workqueue *q)
{
    if (!q->paused && q->n_working < q->o.workers && !list_empty(&q->ready))
        uv_idle_start(q->idle, hand_out);
}

static void enqueue(struct workqueue *q, struct item *it)
{
    if (it->due_ms) heap_remove(q, it);
    if (it->working) {
        it->again = true;
        return;
    }
    if (it->queued) return;
    it->queued = true;
    list_push_back(&q->ready, &it->link);
    q->n_ready++;
    wake(q);
}

static void on_timer(uv_timer_t *t)
{
    struct workqueue *q = t->data;
    uint64_t now = uv_now(q->loop) + 1;
    while (q->n_heap && q->heap[0]->due_ms <= now) {
        struct item *it = q->heap[0];
        heap_remove(q, it);
        enqueue(q, it);
    }
    if (q->n_heap) uv_timer_start(t, on_timer, q->heap[0]->due_ms - now, 0);
}

static void plan(struct workqueue *q, struct item *it, uint64_t ms)
{
    uint64_t now = uv_now(q->loop) + 1, due = now + ms;
    if (it->queued || (it->due_ms && it->due_ms <= due)) return;
    if (it->due_ms) heap_remove(q, it);
    it->due_ms = due;
    heap_push(q, it);
    if (q->heap[0] == it) uv_timer_start(q->timer, on_timer, ms, 0);
}

/* ---- the queue ------------------------------------------------------------------------------ */

struct workqueue *workqueue_new(uv_loop_t *loop, const struct workqueue_options *o)
{
    struct workqueue *q = mem_must_calloc(1, sizeof(*q));
    q->o = *o;
    q->loop = loop;
    if (!q->o.workers) q->o.workers = 16;
    if (!q->o.backoff_min_ms) q->o.backoff_min_ms = 5;
    if (!q->o.backoff_max_ms) q->o.backoff_max_ms = 60000;
    list_init(&q->ready);
    q->timer = mem_must_calloc(1, sizeof(*q->timer));
    q->idle = mem_must_calloc(1, sizeof(*q->idle));
    uv_timer_init(loop, q->timer);
    uv_idle_init(loop, q->idle);
    q->timer->data = q->idle->data = q;
    return q;
}

static void handle_closed(uv_handle_t *h)
{
    mem_free(h);
}

void workqueue_free(struct workqueue *q)
{
    if (!q) return;
    uv_close((uv_handle_t *)q->timer, handle_closed);
    uv_close((uv_handle_t *)q->idle, handle_closed);
    smap_for_each(node, &q->items) mem_free(container_of(node, struct item, node));
    smap_release(&q->items);
    mem_free(q->heap);
    mem_free(q);
}

void workqueue_add(struct workqueue *q, struct slice key)
{
    enqueue(q, item_get(q, key));
}

void workqueue_add_after(struct workqueue *q, struct slice key, uint64_t ms)
{
    if (ms == 0) workqueue_add(q, key);
    else plan(q, item_get(q, key), ms);
}

void workqueue_done(struct workqueue *q, struct slice key, bool failed)
{
    struct item *it = smap_entry(&q->items, key, struct item, node);
    CHECK(it && it->working);
    it->working = false;
    q->n_working--;
    bool again = it->again;
    it->again = false;
    if (!failed) {
        it->failures = 0;
        if (again) enqueue(q, it);
    } else {
        uint64_t pause = (uint64_t)q->o.backoff_min_ms << (it->failures < 20 ? it->failures : 20);
        if (pause > q->o.backoff_max_ms) pause = q->o.backoff_max_ms;
        it->failures++;
        plan(q, it, pause);
    }
    wake(q);
    item_drop_if_idle(q, it);
}

void workqueue_pause(struct workqueue *q, bool paused)
{
    q->paused = paused;
    wake(q);
}

size_t workqueue_length(const struct workqueue *q)
{
    return q->n_ready;
}

size_t workqueue_in_work(const struct workqueue *q)
{
    return q->n_working;
}

unsigned workqueue_failures(const struct workqueue *q, struct slice key)
{
    struct item *it = smap_entry(&q->items, key, struct item, node);
    return it ? it->failures : 0;
}
