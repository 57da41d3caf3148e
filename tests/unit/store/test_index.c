/* The ordered index and the revision log against sorted arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/store_int.h"

static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

/* Keys of shapes that are hard for an index with prefixes and heads. */
static size_t make_key(unsigned shape, uint32_t i, char *out)
{
    switch (shape) {
    case 0: return (size_t)sprintf(out, "%u", i * 2654435761u);                /* short, random */
    case 1: return (size_t)sprintf(out, "/registry/pods/default/pod-%08u", i); /* one long prefix */
    case 2: memset(out, 0, 80); return 1 + i % 80; /* zero bytes only: lengths tell */
    case 3:
        memset(out, 'a', i % 300);
        return (size_t)sprintf(out + i % 300, "%u", i) + i % 300; /* all lengths */
    case 4:
        memset(out, 0xff, 8);
        out[7] = (char)i;
        return 8 + (size_t)sprintf(out + 8, "%x", i % 7);
    default:
        return (size_t)sprintf(out, "/registry/%s/ns-%u/%u", i % 3 ? "pods" : "endpointslices",
                               i % 13, i);
    }
}
enum { SHAPES = 6 };

struct sorted {
    struct record **r;
    size_t n;
};

static size_t place(const struct sorted *s, struct slice key, bool *found)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (slice_cmp(record_key(s->r[mid]), key) < 0) lo = mid + 1;
        else hi = mid;
    }
    *found = lo < s->n && slice_eq(record_key(s->r[lo]), key);
    return lo;
}

static size_t live_before(const struct sorted *s, size_t n)
{
    size_t live = 0;
    for (size_t i = 0; i < n; i++) live += !s->r[i]->tombstone;
    return live;
}

static void same(const struct index *ix, const struct sorted *s)
{
    index_check(ix);
    assert_int_equal(ix->entries, s->n);
    assert_int_equal(ix->live, live_before(s, s->n));
    struct index_path path;
    size_t i = 0;
    for (struct record *r = index_seek(ix, (struct slice){0}, &path); r; r = index_next(ix, &path))
        assert_ptr_equal(r, s->r[i++]);
    assert_int_equal(i, s->n);
}

static void probe(const struct index *ix, const struct sorted *s, struct slice key)
{
    bool found;
    size_t at = place(s, key, &found);
    assert_ptr_equal(index_get(ix, key), found ? s->r[at] : NULL);
    assert_int_equal(index_rank(ix, key), live_before(s, at));
    struct index_path path;
    assert_ptr_equal(index_seek(ix, key, &path), at < s->n ? s->r[at] : NULL);
}

static void set(struct index *ix, struct sorted *s, struct slice key, bool dead)
{
    struct record *r = record_new(NULL, key, (struct slice){0});
    r->tombstone = dead;
    struct index_path path;
    bool found;
    size_t at = place(s, key, &found);
    assert_ptr_equal(index_find(ix, key, &path), found ? s->r[at] : NULL);
    index_store(ix, &path, r);
    if (found) record_unref(s->r[at]);
    else memmove(s->r + at + 1, s->r + at, (s->n++ - at) * sizeof(*s->r));
    s->r[at] = r;
}

static void erase(struct index *ix, struct sorted *s, size_t at)
{
    struct index_path path;
    assert_ptr_equal(index_find(ix, record_key(s->r[at]), &path), s->r[at]);
    index_erase(ix, &path);
    record_unref(s->r[at]);
    memmove(s->r + at, s->r + at + 1, (--s->n - at) * sizeof(*s->r));
}

static void one_shape(unsigned shape, size_t keys, unsigned steps)
{
    struct index ix = {0};
    struct sorted s = {.r = malloc((keys + 1) * sizeof(*s.r))};
    char key[400];
    for (unsigned phase = 0; phase < 6; phase++) {
        bool growing = phase % 2 == 0;
        for (unsigned i = 0; i < steps; i++) {
            size_t len = make_key(shape, rnd((uint32_t)keys), key);
            if (rnd(10) < (growing ? 8 : 2)) set(&ix, &s, slice_make(key, len), rnd(3) == 0);
            else if (s.n) erase(&ix, &s, rnd(2) ? rnd((uint32_t)s.n) : s.n / 2);
            if (i % 16 == 0) probe(&ix, &s, slice_make(key, rnd((uint32_t)len + 1)));
            if (i % 512 == 0) same(&ix, &s);
        }
        same(&ix, &s);
        if (phase == 3) { /* a bulk-built one in its place */
            index_release(&ix);
            assert_int_equal(ix.bytes, 0);
            index_build(&ix, s.r, s.n);
            same(&ix, &s);
        }
    }
    while (s.n) erase(&ix, &s, rnd((uint32_t)s.n));
    same(&ix, &s);
    assert_null(ix.root);
    assert_int_equal(ix.bytes, 0);
    free(s.r);
}

static void test_index(void **state)
{
    (void)state;
    for (unsigned shape = 0; shape < SHAPES; shape++) {
        random_state = shape;
        one_shape(shape, 300, 1000);
        one_shape(shape, 20000, 6000);
    }
}

/* Ascending, as a log of events writes its keys; and the other way round. */
static void test_index_in_order(void **state)
{
    (void)state;
    enum { N = 20000 };
    for (int down = 0; down < 2; down++) {
        struct index ix = {0};
        struct sorted s = {.r = malloc((N + 1) * sizeof(*s.r))};
        char key[40];
        for (uint32_t i = 0; i < N; i++) {
            size_t len = (size_t)sprintf(key, "/registry/events/%08u", down ? N - i : i);
            set(&ix, &s, slice_make(key, len), false);
        }
        same(&ix, &s);
        assert_true(ix.bytes < N * 20);
        while (s.n) erase(&ix, &s, down ? s.n - 1 : 0);
        assert_null(ix.root);
        free(s.r);
    }
}

static void test_build(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 59, 60, 61, 64, 3600, 3601, 10000};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        struct index ix = {0};
        struct sorted s = {.r = malloc((sizes[k] + 2) * sizeof(*s.r)), .n = sizes[k]};
        char key[40];
        for (size_t i = 0; i < s.n; i++) {
            size_t len = (size_t)sprintf(key, "/registry/pods/%08zu", i);
            s.r[i] = record_new(NULL, slice_make(key, len), (struct slice){0});
            s.r[i]->tombstone = i % 5 == 0;
        }
        index_build(&ix, s.r, s.n);
        same(&ix, &s);
        probe(&ix, &s, SLICE_LIT("/registry/pods/00000033"));
        set(&ix, &s, SLICE_LIT("/registry/pods/000000331"), false);
        same(&ix, &s);
        while (s.n) erase(&ix, &s, s.n / 2);
        free(s.r);
    }
}

/* ---- the log -------------------------------------------------------------------------------- */

static void same_log(const struct rlog *log, struct record *const *all, size_t n)
{
    struct rlog_iter it;
    size_t i = 0;
    for (struct record *r = rlog_seek(log, 0, 0, &it); r; r = rlog_next(log, &it)) {
        while (i < n && !all[i]) i++;
        assert_true(i < n);
        assert_ptr_equal(r, all[i++]);
    }
    while (i < n && !all[i]) i++;
    assert_int_equal(i, n);
}

static void test_log(void **state)
{
    (void)state;
    enum { N = 20000 };
    random_state = 5;
    struct record **all = malloc(N * sizeof(*all));
    struct rlog log = {0};
    int64_t rev = 1;
    uint32_t sub = 0;
    for (size_t i = 0; i < N; i++) {
        struct record *r = record_new(NULL, SLICE_LIT("k"), (struct slice){0});
        if (rnd(3)) rev += 1 + rnd(3), sub = 0;
        r->mod_rev = rev;
        r->sub = sub++ & RECORD_SUB_MAX;
        all[i] = r;
        rlog_append(&log, r, (struct rlog_sums){(int64_t)i, 0});
        if (i % 3 == 1) { /* taken out in no order, mostly the old ones */
            size_t k = rnd(2) ? rnd((uint32_t)i) : rnd((uint32_t)i / 4 + 1);
            if (all[k]) rlog_remove(&log, all[k]);
            all[k] = NULL;
        }
    }
    same_log(&log, all, N);
    for (int i = 0; i < 2000; i++) {
        int64_t at = rnd((uint32_t)rev + 3);
        uint32_t at_sub = rnd(3);
        struct rlog_iter it;
        struct record *r = rlog_seek(&log, at, at_sub, &it), *expect = NULL;
        for (size_t k = 0; k < N && !expect; k++)
            if (all[k] &&
                (all[k]->mod_rev > at || (all[k]->mod_rev == at && all[k]->sub >= at_sub)))
                expect = all[k];
        assert_ptr_equal(r, expect);
    }
    size_t left = 0;
    for (size_t i = 0; i < N; i++) {
        if (all[i] && i % 50) rlog_remove(&log, all[i]), all[i] = NULL;
        left += all[i] != NULL;
    }
    same_log(&log, all, N);
    assert_int_equal(log.records, left);
    assert_true(log.n < 20); /* sparse chunks were joined */
    rlog_release(&log);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_index),
                                       cmocka_unit_test(test_index_in_order),
                                       cmocka_unit_test(test_build), cmocka_unit_test(test_log)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
