/* The model judged: what it makes of a log, and which logs it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "schemas/batch.h"
#include "tests/sim/model.h"

static struct verdict verdict;

static struct model *fresh(void)
{
    verdict = (struct verdict){0};
    return model_new(&verdict);
}

static bool apply(struct model *m, uint64_t member, uint64_t last, uint64_t index, uint64_t term,
                  const struct command *c)
{
    struct batch_writer w = {0};
    struct buf bytes = {0};
    command_encode(&bytes, c);
    assert_int_equal(bytes.failed, 0);
    batch_begin(&w, 1, 1 << 20);
    assert_int_equal(batch_add(&w, 0, buf_slice(&bytes)), 0);
    bool ok = model_apply(m, member, last, index, term, batch_finish(&w), 1000000 * index);
    batch_release(&w);
    buf_release(&bytes);
    return ok;
}

static struct command put(const char *key, const char *value)
{
    return (struct command){
        .type = COMMAND_OP,
        .op = {.type = OP_PUT, .put = {.key = slice_str(key), .value = slice_str(value)}}};
}

static void test_versions(void **state)
{
    (void)state;
    struct model *m = fresh();
    struct command a = put("a", "v1"), b = put("a", "v2");
    struct command del = {.type = COMMAND_OP,
                          .op = {.type = OP_DELETE, .del = {.key = SLICE_LIT("a")}}};
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_true(apply(m, 1, 2, 3, 1, &b));
    assert_true(apply(m, 1, 3, 4, 1, &del));
    assert_true(apply(m, 1, 4, 5, 1, &del)); /* changes nothing */
    assert_true(apply(m, 1, 5, 6, 1, &a));
    assert_int_equal(model_revision(m), 5);
    assert_int_equal(model_revision_at(m, 3), 3);
    assert_null(model_get(m, SLICE_LIT("a"), 1));
    assert_int_equal(model_get(m, SLICE_LIT("a"), 2)->version, 1);
    assert_int_equal(model_get(m, SLICE_LIT("a"), 3)->version, 2);
    assert_int_equal(model_get(m, SLICE_LIT("a"), 3)->create_rev, 2);
    assert_null(model_get(m, SLICE_LIT("a"), 4));
    assert_int_equal(model_get(m, SLICE_LIT("a"), 5)->create_rev, 5);
    assert_int_equal(model_count(m, slice_make("\0", 1), slice_make("\0", 1), 5), 1);
    model_free(m);
}

/* What counts against the quota, what is refused, and when the alarm goes. */
static void test_quota(void **state)
{
    (void)state;
    struct model *m = fresh();
    struct command a = put("a", "12345"), del = {.type = COMMAND_OP, .op = {.type = OP_DELETE, .del = {.key = SLICE_LIT("a")}}};
    struct command compact = {.type = COMMAND_COMPACT, .compact = {.revision = 5}};
    struct command alarm = {.type = COMMAND_ALARM, .alarm = {.alarm = ALARM_NOSPACE, .activate = true}};
    model_quota(m, 400);
    for (uint64_t index = 2; index < 5; index++) assert_true(apply(m, 1, index - 1, index, 1, &a));
    assert_int_equal(model_size_at(m, 4), 3 * 106);
    assert_false(model_no_space_at(m, 4));
    assert_true(apply(m, 1, 4, 5, 1, &a)); /* refused */
    assert_int_equal(model_revision(m), 4);
    assert_true(model_no_space_at(m, 5));
    assert_true(apply(m, 1, 5, 6, 1, &del)); /* never refused */
    assert_int_equal(model_size_at(m, 6), 3 * 106 + 101);
    assert_true(model_no_space_at(m, 6));
    assert_true(apply(m, 1, 6, 7, 1, &compact));
    assert_int_equal(model_size_at(m, 7), 0);
    assert_false(model_no_space_at(m, 7));
    assert_true(apply(m, 1, 7, 8, 1, &alarm)); /* a client's does not go by itself, and refuses */
    assert_true(apply(m, 1, 8, 9, 1, &a));
    assert_int_equal(model_size_at(m, 9), 0);
    assert_true(model_no_space_at(m, 9));
    alarm.alarm.activate = false;
    assert_true(apply(m, 1, 9, 10, 1, &alarm));
    assert_true(apply(m, 1, 10, 11, 1, &a));
    assert_int_equal(model_size_at(m, 11), 106);
    model_free(m);
}

/* Members may be behind, but must apply the same. */
static void test_one_log(void **state)
{
    (void)state;
    struct command a = put("a", "v1"), b = put("a", "v2");
    struct model *m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_true(apply(m, 1, 2, 3, 1, &b));
    assert_true(apply(m, 2, 0, 2, 1, &a));
    assert_true(apply(m, 2, 2, 3, 1, &b));
    assert_true(apply(m, 1, 0, 2, 1, &a)); /* a restart */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_false(apply(m, 2, 0, 2, 1, &b)); /* another entry */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_false(apply(m, 2, 0, 2, 2, &a)); /* of another term */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_true(apply(m, 1, 2, 3, 1, &a));
    assert_false(apply(m, 2, 0, 3, 1, &a)); /* passes over one */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 3, 1, &a));
    assert_false(apply(m, 2, 0, 2, 1, &b)); /* one that the first passed over */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &a));
    assert_false(apply(m, 1, 2, 2, 1, &a)); /* twice */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 2, &a));
    assert_false(apply(m, 1, 2, 3, 1, &b)); /* terms go back */
    model_free(m);
}

static void test_leases(void **state)
{
    (void)state;
    struct command grant = {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = 7, .ttl = 5}};
    struct command revoke = {.type = COMMAND_LEASE_REVOKE, .lease_revoke = {.id = 7}};
    struct command held = put("l", "v1");
    held.op.put.lease = 7;
    struct model *m = fresh();
    assert_true(apply(m, 1, 0, 1, 1, &held)); /* refused: no such lease */
    assert_int_equal(model_revision(m), 1);
    assert_true(apply(m, 1, 1, 2, 1, &grant));
    assert_true(apply(m, 1, 2, 3, 1, &held));
    model_lease_renewed(m, 7, 4000000);
    assert_true(apply(m, 1, 3, 9, 1, &revoke)); /* 5 s after the renewal */
    assert_null(model_get(m, SLICE_LIT("l"), 3));
    assert_int_equal(model_revision(m), 3);
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &grant));
    model_lease_renewed(m, 7, 4000000);
    assert_false(apply(m, 1, 2, 8, 1, &revoke)); /* a second early, and nobody asked */
    model_free(m);
    m = fresh();
    assert_true(apply(m, 1, 0, 2, 1, &grant));
    model_clock_jumped(m, 3000000, 60000000);
    model_lease_renewed(m, 7, 4000000);
    assert_false(model_lease_may_end(m, model_lease(m, 7), 8000000)); /* what jumped before the renewal counts no more */
    model_clock_jumped(m, 4500000, 1000000);
    assert_true(model_lease_may_end(m, model_lease(m, 7), 8000000));
    assert_false(model_lease_may_end(m, model_lease(m, 7), 7999999));
    model_lease_tolerance(m, 100000, 100000); /* and a tenth of its TTL */
    assert_true(model_lease_may_end(m, model_lease(m, 7), 7400000));
    assert_false(model_lease_may_end(m, model_lease(m, 7), 7399999));
    model_free(m);
    m = fresh();
    model_lease_asked(m, 7);
    assert_true(apply(m, 1, 0, 2, 1, &grant));
    assert_true(apply(m, 1, 2, 3, 1, &revoke));
    model_free(m);
}

static void test_txn(void **state)
{
    (void)state;
    struct model *m = fresh();
    struct compare absent = {
        .result = COMPARE_EQUAL, .target = COMPARE_VERSION, .key = SLICE_LIT("a")};
    struct op yes[] = {put("a", "v1").op, put("b", "v2").op}, no[] = {put("c", "v3").op};
    struct txn_op t = {.compares = &absent,
                       .n_compares = 1,
                       .success = yes,
                       .n_success = 2,
                       .failure = no,
                       .n_failure = 1};
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_TXN, .txn = &t}};
    assert_true(apply(m, 1, 0, 1, 1, &c));
    assert_int_equal(model_revision(m), 2);
    assert_int_equal(model_get(m, SLICE_LIT("b"), 2)->sub, 1);
    assert_null(model_get(m, SLICE_LIT("c"), 2));
    assert_true(apply(m, 1, 1, 2, 1, &c));
    assert_non_null(model_get(m, SLICE_LIT("c"), 3));
    struct compare by_value = {.result = COMPARE_NOT_EQUAL,
                               .target = COMPARE_VALUE,
                               .key = SLICE_LIT("zz"),
                               .value = SLICE_LIT("x")};
    t.compares = &by_value; /* of a key that is absent: does not hold, whatever is asked */
    assert_true(apply(m, 1, 2, 3, 1, &c));
    assert_int_equal(model_get(m, SLICE_LIT("c"), 4)->version, 2);
    model_free(m);
}

static bool count(void *ctx, const struct model_event *ev)
{
    (void)ev;
    return ++*(unsigned *)ctx < 3;
}

static void test_events(void **state)
{
    (void)state;
    struct model *m = fresh();
    for (uint64_t i = 1; i <= 4; i++) {
        struct command c = put(i % 2 ? "a" : "b", "v1");
        assert_true(apply(m, 1, i - 1, i, 1, &c));
    }
    unsigned n = 0;
    struct slice all = slice_make("\0", 1);
    assert_false(model_events(m, all, all, 1, 99, count, &n));
    n = 0;
    assert_true(model_events(m, SLICE_LIT("a"), (struct slice){0}, 1, 99, count, &n));
    assert_int_equal(n, 2);
    n = 0;
    assert_true(model_events(m, all, all, 3, 4, count, &n));
    assert_int_equal(n, 2);
    assert_true(model_in_range(SLICE_LIT("b"), SLICE_LIT("a"), slice_make("\0", 1)));
    assert_false(model_in_range(SLICE_LIT("b"), SLICE_LIT("a"), SLICE_LIT("b")));
    model_free(m);
}

static void test_garbage_in_the_log(void **state)
{
    (void)state;
    struct model *m = fresh();
    assert_false(model_apply(m, 1, 0, 1, 1, SLICE_LIT("garbage"), 0));
    assert_true(verdict.failed);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_quota), cmocka_unit_test(test_one_log),
        cmocka_unit_test(test_leases),   cmocka_unit_test(test_txn),
        cmocka_unit_test(test_events),   cmocka_unit_test(test_garbage_in_the_log),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
