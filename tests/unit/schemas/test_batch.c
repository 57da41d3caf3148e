/* The payload of Raft entries: what goes in comes out, and damage is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "schemas/batch.h"

static int count(struct slice entry, uint64_t *ret_sum)
{
    struct batch_reader r;
    int n = 0, rc = batch_open(&r, entry);
    if (rc) return rc;
    uint64_t seq;
    struct slice command;
    while ((rc = batch_next(&r, &seq, &command)) > 0) {
        *ret_sum += seq + command.len;
        n++;
    }
    return rc ? rc : n;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct batch_writer w = {0};
    for (int round = 0; round < 2; round++) {
        batch_begin(&w, 0xfedcba9876543210u, 1 << 20);
        char text[300];
        memset(text, 'x', sizeof(text));
        for (uint64_t i = 0; i < 300; i++)
            assert_int_equal(batch_add(&w, i << (i % 60), slice_make(text, i)), 0);
        struct batch_reader r;
        assert_int_equal(batch_open(&r, batch_finish(&w)), 0);
        assert_true(r.origin == 0xfedcba9876543210u);
        for (uint64_t i = 0; i < 300; i++) {
            uint64_t seq;
            struct slice command;
            assert_int_equal(batch_next(&r, &seq, &command), 1);
            assert_true(seq == i << (i % 60));
            assert_true(slice_eq(command, slice_make(text, i)));
        }
        uint64_t seq;
        struct slice command;
        assert_int_equal(batch_next(&r, &seq, &command), 0);
    }
    batch_release(&w);
}

static void test_empty(void **state)
{
    (void)state;
    struct batch_writer w = {0};
    batch_begin(&w, 7, 100);
    uint64_t sum = 0;
    assert_int_equal(count(batch_finish(&w), &sum), 0);
    batch_release(&w);
}

static void test_cap(void **state)
{
    (void)state;
    struct batch_writer w = {0};
    batch_begin(&w, 7, 64);
    uint8_t bytes[40] = {0};
    assert_int_equal(batch_add(&w, 1, slice_make(bytes, 40)), 0);
    assert_int_equal(batch_add(&w, 2, slice_make(bytes, 40)), ERR_LIMIT);
    assert_int_equal(batch_add(&w, 3, slice_make(bytes, 5)), 0);
    uint64_t sum = 0;
    assert_int_equal(count(batch_finish(&w), &sum), 2);
    assert_true(sum == 1 + 40 + 3 + 5);
    batch_release(&w);
}

static void test_memory(void **state)
{
    (void)state;
    static uint8_t bytes[5000];
    for (uint64_t nth = 1;; nth++) {
        struct batch_writer w = {0};
        mem_fail_nth(nth);
        batch_begin(&w, 7, 1 << 20);
        int rc = batch_add(&w, 1, slice_make(bytes, sizeof(bytes)));
        bool fired = mem_fail_nth(0);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        batch_release(&w);
        if (!fired) break;
    }
}

static void test_damage(void **state)
{
    (void)state;
    struct batch_writer w = {0};
    batch_begin(&w, 300, 1 << 20);
    assert_int_equal(batch_add(&w, 1, SLICE_LIT("one")), 0);
    assert_int_equal(batch_add(&w, 100000, SLICE_LIT("two two two")), 0);
    struct slice whole = batch_finish(&w);
    uint64_t sum = 0;
    for (size_t len = 0; len < whole.len; len++) /* every cut is told */
        assert_int_equal(count(slice_sub(whole, 0, len), &sum), ERR_CORRUPT);
    uint8_t copy[100];
    assert_true(whole.len < sizeof(copy));
    memcpy(copy, whole.data, whole.len);
    copy[whole.len] = 0;
    assert_int_equal(count(slice_make(copy, whole.len + 1), &sum),
                     ERR_CORRUPT); /* and every addition */
    for (size_t bit = 0; bit < whole.len * 8;
         bit++) { /* a flip is told, or is in what the entry carries */
        memcpy(copy, whole.data, whole.len);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int n = count(slice_make(copy, whole.len), &sum);
        assert_true(n == 2 || n == ERR_CORRUPT || n == ERR_UNSUPPORTED);
    }
    copy[0] = 0x93;
    copy[1] = 2; /* a version of the future */
    copy[2] = 7;
    assert_int_equal(count(slice_make(copy, 3), &sum), ERR_CORRUPT);
    copy[0] = 0x92;
    assert_int_equal(count(slice_make(copy, 3), &sum), ERR_UNSUPPORTED);
    batch_release(&w);
}

static void test_random(void **state)
{
    (void)state;
    srand(42);
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[64];
        size_t len = (size_t)rand() % sizeof(bytes);
        for (size_t k = 0; k < len; k++) bytes[k] = (uint8_t)rand();
        bytes[0] = (uint8_t)(0x90 | (bytes[0] & 0xf));
        bytes[1] = 1;
        uint64_t sum = 0;
        int n = count(slice_make(bytes, len), &sum);
        assert_true(n >= 0 || n == ERR_CORRUPT || n == ERR_UNSUPPORTED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_empty),
        cmocka_unit_test(test_cap),        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
