/* The records' memory: slots do not overlap, other threads may free them, and all of it is given
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "store/slab_int.h"

static uint64_t random_state = 1;

static uint32_t rnd(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

struct piece {
    uint8_t *p;
    size_t size;
    uint8_t mark;
};

static struct piece make(struct slab_heap *h, size_t size)
{
    struct piece x = {slab_alloc(h, size), size, (uint8_t)rnd(256)};
    assert_non_null(x.p);
    assert_int_equal((uintptr_t)x.p % 16, 0);
    memset(x.p, x.mark, size);
    return x;
}

static void drop(struct piece *x)
{
    for (size_t i = 0; i < x->size; i++) assert_int_equal(x->p[i], x->mark);
    slab_free(x->p);
    x->p = NULL;
}

static void test_slots(void **state)
{
    (void)state;
    enum { N = 3000 };
    static struct piece all[N];
    struct slab_heap *h = slab_heap_new();
    assert_null(slab_alloc(h, SLAB_SLOT_MAX + 1));
    for (size_t size = 8; size <= SLAB_SLOT_MAX; size++) {
        struct piece x = make(h, size);
        drop(&x);
    }
    for (int phase = 0; phase < 4; phase++) {
        for (int i = 0; i < 20000; i++) {
            struct piece *x = &all[rnd(N)];
            if (x->p) drop(x);
            if (rnd(4) > (uint32_t)phase)
                *x = make(h, 8 + rnd(phase % 2 ? 600 : SLAB_SLOT_MAX - 8));
            if (rnd(100) == 0) slab_reclaim(h);
        }
    }
    for (int i = 0; i < N; i++)
        if (all[i].p) drop(&all[i]);
    slab_reclaim(h);
    assert_true(slab_bytes(h) < (size_t)25 << 20); /* one slab a class at most stays */
    slab_heap_free(h);
    slab_heap_free(NULL);
}

/* One class: after a burst only its current slab is left. */
static void test_gives_back(void **state)
{
    (void)state;
    enum { N = 100000 };
    void **all = malloc(N * sizeof(*all));
    struct slab_heap *h = slab_heap_new();
    for (int i = 0; i < N; i++) all[i] = slab_alloc(h, 345);
    size_t full = slab_bytes(h);
    assert_true(full >= (size_t)N * 345 && full < (size_t)N * 360);
    for (int i = 0; i < N; i++) slab_free(all[(i * 7919L) % N]);
    slab_reclaim(h);
    assert_true(slab_bytes(h) <= 256 * 1024);
    slab_heap_free(h);
    free(all);
}

/* ---- other threads -------------------------------------------------------------------------- */

enum { WORKERS = 3, BATCH = 500, BATCHES = 400 };

struct batch {
    struct batch *next;
    struct piece pieces[BATCH];
};

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct batch *first;
    int queued;
    bool stop;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0, false};

static void *work(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&queue.mutex);
        while (!queue.first && !queue.stop) pthread_cond_wait(&queue.changed, &queue.mutex);
        struct batch *b = queue.first;
        if (b) queue.first = b->next, queue.queued--;
        pthread_cond_broadcast(&queue.changed);
        pthread_mutex_unlock(&queue.mutex);
        if (!b) return NULL;
        for (int i = 0; i < BATCH; i++)
            if (b->pieces[i].p) drop(&b->pieces[i]);
        free(b);
    }
}

static void hand_over(struct batch *b)
{
    pthread_mutex_lock(&queue.mutex);
    while (queue.queued > 20) pthread_cond_wait(&queue.changed, &queue.mutex);
    b->next = queue.first;
    queue.first = b;
    queue.queued++;
    pthread_cond_broadcast(&queue.changed);
    pthread_mutex_unlock(&queue.mutex);
}

/* Several heaps one after the other, each gone while workers still hold slots of it. */
static void test_other_threads(void **state)
{
    (void)state;
    pthread_t threads[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, NULL), 0);
    for (int round = 0; round < 40; round++) {
        struct slab_heap *h = slab_heap_new();
        for (int i = 0; i < BATCHES / 40; i++) {
            struct batch *b = malloc(sizeof(*b));
            for (int k = 0; k < BATCH; k++) {
                b->pieces[k] = make(h, 40 + rnd(round % 2 ? 10 : 3000));
                if (rnd(4) == 0) drop(&b->pieces[k]);
            }
            hand_over(b);
            if (rnd(3) == 0) slab_reclaim(h);
        }
        slab_heap_free(h);
    }
    pthread_mutex_lock(&queue.mutex);
    queue.stop = true;
    pthread_cond_broadcast(&queue.changed);
    pthread_mutex_unlock(&queue.mutex);
    for (int i = 0; i < WORKERS; i++) pthread_join(threads[i], NULL);
}

/* The threads' slabs are all unmapped: what the process maps does not grow. */
static void test_no_leak(void **state)
{
    (void)state;
    for (int i = 0; i < 70000; i++) { /* more than a process may map at once (vm.max_map_count) */
        struct slab_heap *h = slab_heap_new();
        void *a = slab_alloc(h, 100), *b = slab_alloc(h, 3000);
        assert_true(a && b);
        slab_free(i % 2 ? a : b);
        slab_heap_free(h);
        slab_free(i % 2 ? b : a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots), cmocka_unit_test(test_gives_back),
        cmocka_unit_test(test_other_threads), cmocka_unit_test(test_no_leak)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
