/* The simulation as a whole judged: with the guard letting through what libraft does wrong at
 * elections, seeds must fail, and the same seeds pass with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/log.h"
#include "raft/guard_int.h"
#include "tests/sim/harness.h"

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
    };
    log_set_sink(no_log);
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
