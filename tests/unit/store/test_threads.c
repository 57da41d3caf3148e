/* Records and event batches leave the core: other threads read them and drop the last reference.
 * Meant for the thread sanitizer; without it a wrong count shows as a leak or a double free. */
#include "tests/unit/store/helpers.h"

#include <pthread.h>
#include <stdio.h>

enum { WORKERS = 3, SLOTS = 64, ROUNDS = 4000 };

struct parcel {
    struct result result;
    struct event_batch *events;
    struct arena arena;
};

struct worker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct parcel *slots[SLOTS];
    size_t from, to;
    bool stop;
    uint64_t sum;
};

static void read_result(struct worker *w, const struct op_result *r)
{
    if (r->type == OP_RANGE) {
        for (size_t i = 0; i < r->range.n; i++)
            w->sum += record_value(r->range.records[i]).len + r->range.records[i]->sub;
    } else if (r->type == OP_PUT && r->put.prev) {
        w->sum += r->put.prev->data[0];
    } else if (r->type == OP_TXN) {
        for (size_t i = 0; i < r->txn.n; i++) read_result(w, &r->txn.results[i]);
    }
}

static void use_parcel(struct worker *w, struct parcel *p)
{
    read_result(w, &p->result.op);
    for (size_t i = 0; p->events && i < p->events->count; i++) {
        const struct event *e = &p->events->events[i];
        w->sum +=
            (uint64_t)e->record->mod_rev + e->record->data[0] + (e->prev ? e->prev->data[0] : 0u);
    }
    result_release(&p->result);
    event_batch_unref(p->events);
    arena_release(&p->arena);
    free(p);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        if (w->from != w->to) {
            struct parcel *p = w->slots[w->from++ % SLOTS];
            pthread_cond_signal(&w->changed);
            pthread_mutex_unlock(&w->mutex);
            use_parcel(w, p);
            pthread_mutex_lock(&w->mutex);
        } else if (w->stop) {
            break;
        } else {
            pthread_cond_wait(&w->changed, &w->mutex);
        }
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static void hand_over(struct worker *w, struct parcel *p)
{
    pthread_mutex_lock(&w->mutex);
    while (w->to - w->from == SLOTS) pthread_cond_wait(&w->changed, &w->mutex);
    w->slots[w->to++ % SLOTS] = p;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->mutex);
}

static struct parcel *make_parcel(struct store *s, unsigned i)
{
    struct parcel *p = calloc(1, sizeof(*p));
    char key[20];
    sprintf(key, "key%u", i % 50);
    struct op ops[] = {
        {OP_PUT, .put = {.key = slice_str(key), .value = SLICE_LIT("value"), .prev_kv = true}},
        {OP_RANGE, .range = {.key = SLICE_LIT("\0"), .range_end = SLICE_LIT("\0")}},
    };
    struct txn_op txn = {.success = ops, .n_success = 2};
    store_apply(s, &(struct command){COMMAND_OP, .op = {OP_TXN, .txn = &txn}}, &p->arena,
                &p->result);
    assert_int_equal(p->result.code, 0);
    p->events = store_take_events(s);
    return p;
}

static void test_release_elsewhere(void **state)
{
    (void)state;
    static struct worker workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        pthread_mutex_init(&workers[i].mutex, NULL);
        pthread_cond_init(&workers[i].changed, NULL);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    struct store *s = store_new(NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct parcel *p = make_parcel(s, i);
        struct parcel *shared =
            calloc(1, sizeof(*shared)); /* the same batch to another worker, as the core does */
        shared->events = event_batch_ref(p->events);
        hand_over(&workers[i % WORKERS], p);
        hand_over(&workers[(i + 1) % WORKERS], shared);
        if (i % 20 == 0) assert_int_equal(compact_to(s, store_revision(s)), 0);
        store_work(s, 30);
    }
    store_free(s); /* before the workers are done: what they hold lives on */
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++) {
        pthread_mutex_lock(&workers[i].mutex);
        workers[i].stop = true;
        pthread_cond_signal(&workers[i].changed);
        pthread_mutex_unlock(&workers[i].mutex);
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].sum;
    }
    assert_true(sum > ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_release_elsewhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
