/* Output queues, the gather and what a partial write leaves; the timer wheel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* after the above, which it needs */
#include <cmocka.h>
#include <stdlib.h>

#include "api/http/out.h"
#include "api/http/wheel.h"
#include "base/mem.h"

static int released;

static void count_release(void *owner)
{
    (void)owner;
    released++;
}

static uint8_t pattern(size_t at)
{
    return (uint8_t)(at * 131 + at / 251);
}

/* ---- queues ----------------------------------------------------------------------------------------- */

/* Pieces of all sizes go through the gather, which is "written" in parts of random size: every byte comes out once and in order,
 * every reference is released once. */
static void run_queue(unsigned seed, bool copy_all)
{
    static struct gather g;
    static uint8_t source[400000], got[400000];
    struct out_queue q = {0};
    size_t len = 0, at = 0;
    int refs = 0;
    srand(seed);
    released = 0;
    memset(&g, 0, sizeof(g));
    g.copy_all = copy_all;
    for (size_t i = 0; i < sizeof(source); i++) source[i] = pattern(i);
    while (len < sizeof(source) - 60000) {
        size_t n = (size_t)rand() % (rand() % 3 == 0 ? 50000 : rand() % 2 ? 3000 : 40);
        struct slice piece = slice_make(source + len, n);
        if (rand() % 2) {
            assert_int_equal(out_queue_copy(&q, piece), 0);
        } else {
            assert_int_equal(out_queue_ref(&q, piece, count_release, NULL), 0);
            refs++;
        }
        len += n;
    }
    assert_int_equal(q.bytes, len);
    while (at < len) {
        while (q.bytes > 0 && gather_fits(&g, 9)) {
            size_t n = 1 + (size_t)rand() % OUT_FRAME;
            gather_queue(&g, &q, n < q.bytes ? n : q.bytes);
        }
        /* A kernel that takes a part. */
        size_t take = rand() % 3 == 0 ? g.bytes : (size_t)rand() % (g.bytes + 1), left = take;
        for (unsigned i = 0; i < g.n && left > 0; i++) {
            size_t n = g.iov[i].iov_len < left ? g.iov[i].iov_len : left;
            memcpy(got + at, g.iov[i].iov_base, n);
            at += n;
            left -= n;
        }
        if (take == g.bytes) {
            gather_reset(&g);
            continue;
        }
        struct out_rest *r = out_rest_new(&g, take);
        assert_non_null(r);
        assert_int_equal(g.n, 0);
        while (r->bytes > 0) {
            size_t n = 1 + (size_t)rand() % r->bytes;
            left = n;
            for (unsigned i = r->first; i < r->n && left > 0; i++) {
                size_t part = r->iov[i].iov_len < left ? r->iov[i].iov_len : left;
                memcpy(got + at, r->iov[i].iov_base, part);
                at += part;
                left -= part;
            }
            out_rest_advance(r, n);
            if (rand() % 50 == 0 && r->bytes > 0) continue;
        }
        out_rest_free(r);
    }
    assert_int_equal(at, len);
    assert_memory_equal(got, source, len);
    assert_int_equal(released, refs);
    assert_null(q.head);
    out_queue_release(&q);
}

static void test_queue(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 40; seed++) run_queue(seed, seed % 2);
}

static void test_dropped(void **state)
{
    (void)state;
    static uint8_t block[10000];
    static struct gather g;
    struct out_queue q = {0};
    released = 0;
    memset(&g, 0, sizeof(g));
    for (int i = 0; i < 5; i++) assert_int_equal(out_queue_ref(&q, slice_make(block, sizeof(block)), count_release, NULL), 0);
    gather_queue(&g, &q, 15000);
    assert_int_equal(released, 0); /* the first one is still to be written */
    out_queue_release(&q);
    assert_int_equal(released, 3);
    struct out_rest *r = out_rest_new(&g, 1);
    assert_int_equal(r->bytes, 14999);
    out_rest_free(r);
    assert_int_equal(released, 5);
    out_rest_free(NULL);
}

static void test_no_memory(void **state)
{
    (void)state;
    static uint8_t block[10000];
    static struct gather g;
    struct out_queue q = {0};
    released = 0;
    mem_fail_nth(1);
    assert_int_equal(out_queue_copy(&q, slice_make(block, 10)), ERR_NOMEM);
    mem_fail_nth(1);
    assert_int_equal(out_queue_ref(&q, slice_make(block, 5000), count_release, NULL), ERR_NOMEM);
    mem_fail_nth(1);
    assert_int_equal(out_queue_ref(&q, slice_make(block, 50), count_release, NULL), ERR_NOMEM);
    assert_int_equal(released, 2);
    assert_int_equal(q.bytes, 0);
    assert_int_equal(out_queue_ref(&q, slice_make(block, 5000), count_release, NULL), 0);
    memset(&g, 0, sizeof(g));
    gather_queue(&g, &q, 5000);
    mem_fail_nth(1);
    assert_null(out_rest_new(&g, 10));
    assert_int_equal(g.n, 0);
    assert_int_equal(released, 3);
    mem_fail_nth(0);
}

/* ---- the wheel --------------------------------------------------------------------------------------- */

enum { TIMERS = 200 };

struct timed {
    struct wheel_timer t;
    uint64_t fired_at;
    int fired;
};

static uv_loop_t loop;
static struct wheel wheel;
static struct timed timed[TIMERS];
static int fired_count;

static void on_fire(struct wheel_timer *t)
{
    struct timed *k = container_of(t, struct timed, t);
    k->fired++;
    k->fired_at = uv_now(&loop);
    fired_count++;
    if (k == &timed[0]) wheel_unset(&timed[1].t); /* due at the same time */
    if (k == &timed[2] && k->fired == 1) wheel_set(&wheel, &k->t, 0); /* again, and in the past: at once */
}

static void test_wheel(void **state)
{
    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(wheel_init(&wheel, &loop), 0);
    uv_ref((uv_handle_t *)&wheel.timer);
    uint64_t now = uv_now(&loop);
    srand(7);
    for (int i = 0; i < TIMERS; i++) {
        wheel_timer_init(&timed[i].t, on_fire);
        uint64_t due = now + (i < 3 ? 100u : i == 3 ? 10000000u : (unsigned)rand() % 600);
        wheel_set(&wheel, &timed[i].t, due);
    }
    wheel_set(&wheel, &timed[4].t, now + 400); /* moved */
    wheel_unset(&timed[5].t);
    int rounds = 0;
    while (fired_count < TIMERS - 2 && rounds++ < 5000) uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(fired_count, TIMERS - 2); /* without 1, 3, 5; and 2 twice */
    for (int i = 0; i < TIMERS; i++) {
        assert_int_equal(timed[i].fired, i == 1 || i == 3 || i == 5 ? 0 : i == 2 ? 2 : 1);
        if (!timed[i].fired || i == 2) continue;
        assert_true(timed[i].fired_at >= timed[i].t.due_ms);
    }
    assert_true(rounds < 50); /* it slept */
    wheel_close(&wheel, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_wheel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
