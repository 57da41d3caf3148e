/* The simulation as a whole judged: with the guard letting through what libraft does wrong at
 * elections, seeds must fail, and the same seeds pass with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/log.h"
#include "raft/guard_int.h"
#include "tests/sim/shrink.h"

#define FIRST_SEED 5000000u
#define SEEDS_MAX 60u

static void no_log(enum log_level level, const char *line)
{
    (void)level, (void)line;
}

static bool seed_passes(uint64_t seed, struct run_result *ret)
{
    struct run_options o;
    run_options_from_seed(&o, seed);
    return run(&o, ret);
}

static void test_unmasked_defects_are_found(void **state)
{
    (void)state;
    struct run_result r;
    uint64_t seed = FIRST_SEED;
    guard_masks = GUARD_ALL & ~(unsigned)GUARD_BARRIER;
    while (seed < FIRST_SEED + SEEDS_MAX && seed_passes(seed, &r)) seed++;
    guard_masks = GUARD_ALL;
    assert_true(seed < FIRST_SEED + SEEDS_MAX);
    assert_true(r.verdict.failed && r.verdict.text[0]);
    assert_true(seed_passes(seed, &r));
    assert_true(r.counts.acked > 0 && r.counts.reads_checked > 0);
}

/* What is left after shrinking fails in the same way, and is less. */
static void test_shrinking(void **state)
{
    (void)state;
    static struct run_result r;
    static struct plan plan;
    static struct only only;
    struct run_options o;
    char text[4096];
    uint64_t seed = FIRST_SEED;
    guard_masks = GUARD_ALL & ~(unsigned)GUARD_BARRIER;
    while (seed < FIRST_SEED + SEEDS_MAX && seed_passes(seed, &r)) seed++;
    const char *how = r.verdict.format;
    run_options_from_seed(&o, seed);
    plan_make(&plan, &o);
    unsigned before = plan.n;
    only_init(&only);
    shrink(seed, &only, 25, NULL);
    assert_true(only.n_faults <= before);
    only_print(&only, text, sizeof text);
    only_init(&only);
    assert_true(only_parse(&only, text)); /* as a user would repeat it */
    run_options_from_seed(&o, seed);
    only_apply(&only, &o, &plan);
    assert_int_equal(plan.n, only.n_faults);
    bool passes = run(&o, &r);
    guard_masks = GUARD_ALL;
    assert_false(passes);
    assert_ptr_equal(r.verdict.format, how);
}

static void test_only(void **state)
{
    (void)state;
    static struct only only;
    only_init(&only);
    assert_true(only_parse(&only, "faults:3,7,9 clients:2 watchers:0 backup:0"));
    assert_true(only.n_faults == 3 && only.faults[2] == 9 && only.clients == 2 && only.watchers == 0 && only.no_backup);
    char text[100];
    only_print(&only, text, sizeof text);
    assert_string_equal(text, "faults:3,7,9 clients:2 watchers:0 backup:0");
    only_init(&only);
    assert_true(only_parse(&only, "faults:") && only.faults_given && only.n_faults == 0);
    assert_false(only_parse(&only, "faults:0"));
    assert_false(only_parse(&only, "faults:1;2"));
    assert_false(only_parse(&only, "fault"));
    assert_false(only_parse(&only, "members:3"));
}

static void test_plan_is_data(void **state)
{
    (void)state;
    static struct plan a, b;
    struct run_options o;
    unsigned kinds = 0;
    for (uint64_t seed = 1; seed < 300; seed++) {
        run_options_from_seed(&o, seed);
        plan_make(&a, &o);
        plan_make(&b, &o);
        assert_int_equal(a.n, b.n);
        for (unsigned i = 0; i < a.n; i++) {
            char one[256], other[256];
            fault_print(&a.faults[i], one, sizeof one);
            fault_print(&b.faults[i], other, sizeof other);
            assert_string_equal(one, other);
            assert_true(a.faults[i].number == i + 1 && a.faults[i].at_us < 4 * o.length_us);
            kinds |= 1u << a.faults[i].kind;
        }
    }
    assert_int_equal(kinds, (1u << FAULT_KINDS) - 1); /* every kind comes */
}

static void test_a_seed_is_a_run(void **state)
{
    (void)state;
    struct run_result a, b;
    for (uint64_t seed = 30000; seed < 30003; seed++) {
        (void)seed_passes(seed, &a);
        (void)seed_passes(seed, &b);
        assert_true(a.digest == b.digest && a.events == b.events);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unmasked_defects_are_found),
        cmocka_unit_test(test_a_seed_is_a_run),
        cmocka_unit_test(test_shrinking),
        cmocka_unit_test(test_only),
        cmocka_unit_test(test_plan_is_data),
    };
    log_set_sink(no_log);
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
