/* Timers by the thousand for one loop: a wheel of 64 ms slots under one uv_timer, which sleeps while nothing is due.
 *
 * Setting and removing is O(1). A timer fires up to one slot late, never early. One thread. */
#ifndef PINTLE_API_HTTP_WHEEL_H
#define PINTLE_API_HTTP_WHEEL_H

#include <uv.h>

#include "base/list.h"

enum { WHEEL_SHIFT = 6, WHEEL_SLOTS = 512 };

struct wheel_timer {
    struct list node; /* ours, as the rest */
    uint64_t due_ms;
    void (*fire)(struct wheel_timer *t);
};

struct wheel {
    uv_timer_t timer;
    uint64_t done_tick;  /* all slots up to this tick were run */
    uint64_t armed_tick; /* when `timer` fires; 0 = not armed */
    struct list slots[WHEEL_SLOTS];
};

int wheel_init(struct wheel *w, uv_loop_t *loop);
/* Timers still set are forgotten. The wheel's memory is needed until `closed`. */
void wheel_close(struct wheel *w, uv_close_cb closed);
void wheel_timer_init(struct wheel_timer *t, void (*fire)(struct wheel_timer *t));
/* `due_ms` on uv_now()'s scale; a timer that is set is moved. */
void wheel_set(struct wheel *w, struct wheel_timer *t, uint64_t due_ms);
/* Safe on one that is not set. */
void wheel_unset(struct wheel_timer *t);

#endif
