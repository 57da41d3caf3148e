#include "api/http/wheel.h"

#include "base/check.h"

static uint64_t tick_of(uint64_t ms)
{
    return (ms + (1u << WHEEL_SHIFT) - 1) >> WHEEL_SHIFT; /* rounded up: never early */
}

static void on_timer(uv_timer_t *timer);

static void arm(struct wheel *w, uint64_t tick)
{
    if (w->armed_tick && w->armed_tick <= tick) return;
    w->armed_tick = tick;
    uint64_t at = tick << WHEEL_SHIFT, now = uv_now(w->timer.loop);
    uv_timer_start(&w->timer, on_timer, at > now ? at - now : 0, 0);
}

/* Runs the due timers of one slot. A timer that fires may set or unset any timer, itself too: the due ones are
 * moved to a list of their own first, from which wheel_unset takes them like from any other. */
static void run_slot(struct wheel *w, uint64_t tick, uint64_t now_tick)
{
    struct list due;
    list_init(&due);
    struct list *slot = &w->slots[tick % WHEEL_SLOTS];
    list_for_each(node, slot)
    {
        struct wheel_timer *t = container_of(node, struct wheel_timer, node);
        if (tick_of(t->due_ms) > now_tick) continue;
        list_remove(node);
        list_push_back(&due, node);
    }
    for (struct list *node; (node = list_pop_front(&due));) {
        struct wheel_timer *t = container_of(node, struct wheel_timer, node);
        t->fire(t);
    }
}

static void arm_next(struct wheel *w)
{
    for (uint64_t i = 1; i <= WHEEL_SLOTS; i++) {
        if (list_empty(&w->slots[(w->done_tick + i) % WHEEL_SLOTS])) continue;
        arm(w, w->done_tick + i);
        return;
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct wheel *w = container_of(timer, struct wheel, timer);
    w->armed_tick = 0;
    uint64_t now_tick = uv_now(timer->loop) >> WHEEL_SHIFT;
    uint64_t first = w->done_tick + 1;
    if (now_tick >= first + WHEEL_SLOTS) first = now_tick - WHEEL_SLOTS + 1;
    for (uint64_t tick = first; tick <= now_tick; tick++) {
        w->done_tick = tick; /* first: what is set from now on goes behind it */
        run_slot(w, tick, now_tick);
    }
    arm_next(w);
}

int wheel_init(struct wheel *w, uv_loop_t *loop)
{
    for (int i = 0; i < WHEEL_SLOTS; i++) list_init(&w->slots[i]);
    w->done_tick = uv_now(loop) >> WHEEL_SHIFT;
    w->armed_tick = 0;
    int rc = uv_timer_init(loop, &w->timer);
    if (rc == 0) uv_unref((uv_handle_t *)&w->timer);
    return rc;
}

void wheel_close(struct wheel *w, uv_close_cb closed)
{
    for (int i = 0; i < WHEEL_SLOTS; i++)
        while (list_pop_front(&w->slots[i])) continue;
    uv_close((uv_handle_t *)&w->timer, closed);
}

void wheel_timer_init(struct wheel_timer *t, void (*fire)(struct wheel_timer *t))
{
    list_init(&t->node);
    t->due_ms = 0;
    t->fire = fire;
}

void wheel_set(struct wheel *w, struct wheel_timer *t, uint64_t due_ms)
{
    CHECK(t->fire);
    list_remove(&t->node);
    t->due_ms = due_ms;
    uint64_t tick = tick_of(due_ms);
    if (tick <= w->done_tick) {
        tick = w->done_tick + 1;
        t->due_ms = tick << WHEEL_SHIFT;
    }
    list_push_back(&w->slots[tick % WHEEL_SLOTS], &t->node);
    /* A later round of its slot is woken for once a round, which is cheap, and found not due. */
    uint64_t wake = tick - w->done_tick > WHEEL_SLOTS ? w->done_tick + WHEEL_SLOTS : tick;
    arm(w, wake);
}

void wheel_unset(struct wheel_timer *t)
{
    list_remove(&t->node);
}
