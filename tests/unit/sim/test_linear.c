/* The linearizability checker judged: histories known to be good and known to be bad, and random
 * ones against trying every order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/sim/env_sim.h"
#include "tests/sim/linear.h"

#define STEPS 1000000

#define W(v, c, r)                                                                                 \
    {                                                                                              \
        .kind = LINEAR_WRITE, .known = true, .value = (v), .call = (c), .ret = (r)                 \
    }
#define W_UNKNOWN(v, c)                                                                            \
    {                                                                                              \
        .kind = LINEAR_WRITE, .value = (v), .call = (c)                                            \
    }
#define R(v, c, r)                                                                                 \
    {                                                                                              \
        .kind = LINEAR_READ, .known = true, .got = (v), .call = (c), .ret = (r)                    \
    }
#define CAS(e, v, c, r)                                                                            \
    {                                                                                              \
        .kind = LINEAR_CAS, .known = true, .succeeded = true, .expect = (e), .value = (v),         \
        .call = (c), .ret = (r)                                                                    \
    }
#define CAS_FAIL(e, v, g, c, r)                                                                    \
    {                                                                                              \
        .kind = LINEAR_CAS, .known = true, .expect = (e), .value = (v), .got = (g), .call = (c),   \
        .ret = (r)                                                                                 \
    }
#define CAS_UNKNOWN(e, v, c)                                                                       \
    {                                                                                              \
        .kind = LINEAR_CAS, .expect = (e), .value = (v), .call = (c)                               \
    }

#define CHECK_HISTORY(result, ...)                                                                 \
    do {                                                                                           \
        const struct linear_op ops[] = {__VA_ARGS__};                                              \
        assert_int_equal(linear_check(ops, sizeof ops / sizeof ops[0], STEPS, NULL), (result));    \
    } while (0)

static void test_good(void **state)
{
    (void)state;
    assert_int_equal(linear_check(NULL, 0, STEPS, NULL), LINEAR_OK);
    CHECK_HISTORY(LINEAR_OK, R(0, 1, 2), W(7, 3, 4), R(7, 5, 6));
    /* a read beside a write may see either */
    CHECK_HISTORY(LINEAR_OK, W(7, 1, 10), R(0, 2, 3), R(7, 4, 5));
    CHECK_HISTORY(LINEAR_OK, W(7, 1, 4), W(8, 2, 5), R(7, 6, 7));
    CHECK_HISTORY(LINEAR_OK, W(7, 1, 4), W(8, 2, 5), R(8, 6, 7));
    /* a write of unknown outcome may come late, or never */
    CHECK_HISTORY(LINEAR_OK, W_UNKNOWN(7, 1), R(0, 2, 3), R(0, 4, 5), R(7, 6, 7), R(7, 8, 9));
    CHECK_HISTORY(LINEAR_OK, W_UNKNOWN(7, 1), R(0, 2, 3), R(0, 4, 5));
    /* asked for again: the first one may come late, after another write, or never */
    CHECK_HISTORY(LINEAR_OK, W_UNKNOWN(1, 1), W(1, 2, 3), R(1, 4, 5), W(2, 6, 7), R(2, 8, 9), R(1, 10, 11));
    CHECK_HISTORY(LINEAR_OK, W_UNKNOWN(1, 1), W(1, 2, 3), R(1, 4, 5), W(2, 6, 7), R(2, 8, 9));
    CHECK_HISTORY(LINEAR_VIOLATION, W_UNKNOWN(1, 1), W(1, 2, 3), W(2, 4, 5), R(1, 6, 7), R(2, 8, 9));
    /* compare and swap */
    CHECK_HISTORY(LINEAR_OK, W(1, 1, 2), CAS(1, 2, 3, 4), CAS_FAIL(1, 3, 2, 5, 6), R(2, 7, 8));
    CHECK_HISTORY(LINEAR_OK, W(1, 1, 2), CAS(1, 2, 3, 6), CAS_FAIL(1, 3, 2, 4, 5), R(2, 7, 8));
    CHECK_HISTORY(LINEAR_OK, CAS(0, 2, 1, 2), W(0, 3, 4), CAS(0, 3, 5, 6));
    CHECK_HISTORY(LINEAR_OK, CAS_UNKNOWN(0, 2, 1), R(0, 2, 3), CAS(2, 3, 4, 5));
    /* an unknown delete that takes effect between two reads, an unknown swap whose value was overwritten unseen */
    CHECK_HISTORY(LINEAR_OK, W(7, 1, 2), W_UNKNOWN(0, 3), R(7, 4, 5), R(0, 6, 7));
    CHECK_HISTORY(LINEAR_OK, CAS_UNKNOWN(0, 2, 1), W(5, 3, 4), R(5, 5, 6), CAS(5, 6, 7, 8));
    /* three writers at once, and readers that agree on one order of them */
    CHECK_HISTORY(LINEAR_OK, W(1, 1, 20), W(2, 2, 21), W(3, 3, 22), R(2, 4, 5), R(3, 6, 7), R(1, 8, 9), R(1, 23, 24));
    /* a chain of swaps that all overlap has one order only */
    CHECK_HISTORY(LINEAR_OK, CAS(2, 3, 1, 9), CAS(0, 1, 2, 10), CAS(1, 2, 3, 11), R(3, 12, 13));
    /* an unknown compare-and-swap to a value that only an unknown one expects */
    CHECK_HISTORY(LINEAR_OK, CAS_UNKNOWN(0, 2, 1), CAS_UNKNOWN(2, 3, 2), R(3, 4, 5));
}

static void test_bad(void **state)
{
    (void)state;
    /* a stale read; a lost write; a value from nowhere; a value from the future */
    CHECK_HISTORY(LINEAR_VIOLATION, W(7, 1, 2), W(8, 3, 4), R(7, 5, 6));
    CHECK_HISTORY(LINEAR_VIOLATION, W(7, 1, 2), R(0, 3, 4));
    CHECK_HISTORY(LINEAR_VIOLATION, R(9, 1, 2));
    CHECK_HISTORY(LINEAR_VIOLATION, R(9, 1, 2), W(9, 3, 4));
    /* two reads that disagree on the order of two writes */
    CHECK_HISTORY(LINEAR_VIOLATION, W(7, 1, 10), W(8, 2, 11), R(7, 3, 4), R(8, 5, 6), R(7, 7, 8));
    /* time runs backwards beside a write */
    CHECK_HISTORY(LINEAR_VIOLATION, W(7, 1, 10), R(7, 2, 3), R(0, 4, 5));
    /* an unknown write seen, then gone */
    CHECK_HISTORY(LINEAR_VIOLATION, W_UNKNOWN(7, 1), R(7, 2, 3), R(0, 4, 5));
    /* both compare-and-swaps win; one wins against nothing; one fails without cause */
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), CAS(1, 2, 3, 6), CAS(1, 3, 4, 7));
    CHECK_HISTORY(LINEAR_VIOLATION, CAS(5, 6, 1, 2));
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), CAS_FAIL(1, 2, 1, 3, 4));
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), CAS_FAIL(4, 2, 0, 3, 4));
    /* an unknown write may not come before it was asked for */
    CHECK_HISTORY(LINEAR_VIOLATION, R(7, 1, 2), W_UNKNOWN(7, 3));
    /* nor twice: seen, overwritten, and seen again */
    CHECK_HISTORY(LINEAR_VIOLATION, W_UNKNOWN(7, 1), R(7, 2, 3), W(8, 4, 5), R(8, 6, 7), R(7, 8, 9));
    /* readers that disagree, each right for itself */
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 20), W(2, 2, 21), R(1, 3, 6), R(2, 4, 7), R(1, 8, 9), R(2, 10, 11), R(1, 12, 13));
    /* a chain of swaps with a link missing; a swap that won although a read beside it saw another value all the time */
    CHECK_HISTORY(LINEAR_VIOLATION, CAS(2, 3, 1, 9), CAS(0, 1, 2, 10), R(3, 12, 13));
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), W(2, 3, 4), CAS(1, 5, 5, 8), R(5, 9, 10));
    /* what a later leader forgot: acknowledged, seen by one, gone for the next */
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), W(2, 3, 4), R(2, 5, 6), R(1, 7, 8));
    /* a delete that did not delete */
    CHECK_HISTORY(LINEAR_VIOLATION, W(1, 1, 2), W(0, 3, 4), R(1, 5, 6));
}

static void test_keys_apart(void **state)
{
    (void)state;
    struct linear_op ops[] = {W(7, 1, 2), W(8, 3, 4), R(7, 5, 6), R(8, 7, 8)};
    ops[0].key = ops[2].key = 1;
    assert_int_equal(linear_check(ops, 4, STEPS, NULL), LINEAR_OK);
    ops[2].key = 0;
    struct linear_report report;
    assert_int_equal(linear_check(ops, 4, STEPS, &report), LINEAR_VIOLATION);
    assert_int_equal(report.key, 0);
    assert_ptr_equal(report.stuck, &ops[2]);
}

static void test_gives_up(void **state)
{
    (void)state;
    const struct linear_op ops[] = {W(7, 1, 2), R(7, 3, 4)};
    assert_int_equal(linear_check(ops, 2, 1, NULL), LINEAR_UNDECIDED);
}

/* ---- against every order
 * ------------------------------------------------------------------------- */

static bool apply(const struct linear_op *op, uint64_t *state)
{
    if (op->kind == LINEAR_READ) return op->got == *state || !op->known;
    if (op->kind == LINEAR_WRITE) {
        *state = op->value;
        return true;
    }
    bool hit = *state == op->expect;
    if (op->known && hit != op->succeeded) return false;
    if (op->known && !hit && op->got != *state) return false;
    if (hit) *state = op->value;
    return true;
}

/* Tries every order of the operations that are left; unknown ones may stay out. */
static bool some_order(const struct linear_op *ops, unsigned n, unsigned left, uint64_t state)
{
    bool known_left = false;
    for (unsigned i = 0; i < n; i++) known_left |= (left >> i & 1) && ops[i].known;
    if (!known_left) return true;
    for (unsigned i = 0; i < n; i++) {
        if (!(left >> i & 1)) continue;
        bool can_be_next = true;
        for (unsigned j = 0; j < n; j++) {
            if (j != i && (left >> j & 1) && ops[j].known && ops[j].ret < ops[i].call)
                can_be_next = false;
        }
        uint64_t next = state;
        if (can_be_next && apply(&ops[i], &next) && some_order(ops, n, left & ~(1u << i), next))
            return true;
    }
    return false;
}

static void random_history(struct sim_random *r, struct linear_op *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = 2 * sim_random_below(r, 12), len = 1 + 2 * sim_random_below(r, 5);
        ops[i] = (struct linear_op){
            .kind = (enum linear_kind)sim_random_below(r, 3),
            .known = !sim_chance(r, 250000),
            .succeeded = sim_chance(r, 500000),
            .value = sim_chance(r, 200000) ? 0 : i > 0 && sim_chance(r, 200000) ? ops[i - 1].value : i + 1,
            .expect = sim_random_below(r, n + 1),
            .got = sim_random_below(r, n + 1),
            .call = start * 16 + i,
            .ret = (start + len) * 16 + i,
        };
        if (ops[i].kind == LINEAR_CAS && ops[i].got == ops[i].expect)
            ops[i].got = 0; /* still may be equal: a bad one */
    }
}

static void test_against_every_order(void **state)
{
    (void)state;
    struct sim_random r;
    sim_random_init(&r, 20261120, 1);
    unsigned good = 0, bad = 0;
    for (unsigned round = 0; round < 60000; round++) {
        struct linear_op ops[6];
        unsigned n = 2 + (unsigned)sim_random_below(&r, 5);
        random_history(&r, ops, n);
        bool expected = some_order(ops, n, (1u << n) - 1, 0);
        assert_int_equal(linear_check(ops, n, STEPS, NULL),
                         expected ? LINEAR_OK : LINEAR_VIOLATION);
        if (expected) good++;
        else bad++;
    }
    assert_true(good > 5000 && bad > 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_keys_apart),
        cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_against_every_order),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
