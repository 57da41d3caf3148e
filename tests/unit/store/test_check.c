/* The hash of the whole state sees every part of it: what was never written, and what rotted in memory after it was. That it is
 * the same whatever goes on meanwhile, and after a snapshot, is in test_model.c. */
#include "tests/unit/store/helpers.h"

#include "base/mem.h"

static uint64_t value(struct store *s)
{
    struct store_check *c = store_check_open(s);
    while (!store_check_step(c, 1)) {
    }
    uint64_t v = store_check_value(c);
    assert_true(store_check_revision(c) == store_revision(s));
    store_check_close(c);
    return v;
}

static void member(struct store *s, uint64_t id, const char *name)
{
    struct slice url = SLICE_LIT("http://x");
    run(s, &(struct command){COMMAND_MEMBER_ATTRIBUTES, .member = {id, slice_str(name), &url, 1}});
}

static void checkpoint(struct store *s, int64_t id, int64_t left)
{
    struct lease_checkpoint one = {id, left};
    run(s, &(struct command){COMMAND_LEASE_CHECKPOINT, .checkpoint = {&one, 1}});
}

/* The same each time but for what `without` leaves out or makes otherwise. */
static struct store *sample(int without)
{
    struct store *s = store_new(NULL);
    if (without != 1) grant(s, 7, 60);
    grant(s, -8, without == 2 ? 61 : 60);
    put(s, "a", "1");
    put(s, "b", without == 3 ? "3" : "2");
    if (without != 4) del(s, "b");
    else put(s, "b", "4");
    put_lease(s, "c", "leased", without == 5 ? 0 : -8);
    if (without != 6) checkpoint(s, -8, 30);
    if (without != 7) alarm_set(s, 99, ALARM_NOSPACE, true);
    member(s, 5, without == 8 ? "x" : "n");
    if (without != 9) compact_to(s, 3);
    if (without == 10) alarm_set(s, 99, ALARM_NOSPACE, true), alarm_set(s, 0, ALARM_NOSPACE, true);
    drop_events(s);
    return s;
}

static void test_differences(void **state)
{
    (void)state;
    struct store *whole = sample(0), *again = sample(0);
    work_off(again);
    assert_true(value(whole) == value(again)); /* also when one has freed what was compacted */
    for (int i = 1; i <= 10; i++) {
        struct store *s = sample(i);
        if (value(s) == value(whole)) fail_msg("difference %d is not seen", i);
        store_free(s);
    }
    store_free(whole);
    store_free(again);
}

static struct record *newest(struct store *s, const char *key)
{
    return index_get(&s->index, slice_str(key));
}

static void test_rot(void **state)
{
    (void)state;
    struct store *s = sample(0);
    uint64_t sound = value(s);
    struct record *c = newest(s, "c");
    for (size_t bit = 0; bit < 8 * ((size_t)c->key_len + c->value_len); bit++) {
        c->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(value(s) != sound);
        c->data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    c->version ^= 4;
    assert_true(value(s) != sound);
    c->version ^= 4;
    struct lease *l = lease_find(&s->leases, 7);
    l->ttl ^= 1;
    assert_true(value(s) != sound);
    l->ttl ^= 1;
    lease_detach(lease_find(&s->leases, -8), SLICE_LIT("c")); /* it would outlive its lease */
    assert_true(value(s) != sound);
    lease_attach(lease_find(&s->leases, -8), c);
    assert_true(value(s) == sound);
    struct index_path path; /* a key that is in the history but that no read finds */
    assert_non_null(index_find(&s->index, SLICE_LIT("a"), &path));
    struct record *a = newest(s, "a");
    index_erase(&s->index, &path);
    assert_true(value(s) != sound);
    index_find(&s->index, SLICE_LIT("a"), &path);
    index_store(&s->index, &path, a);
    assert_true(value(s) == sound);
    assert_non_null(index_find(&s->index, SLICE_LIT("c"), &path)); /* the same above the compact revision */
    index_erase(&s->index, &path);
    assert_true(value(s) != sound);
    index_find(&s->index, SLICE_LIT("c"), &path);
    index_store(&s->index, &path, c);
    assert_true(value(s) == sound);
    store_free(s);
}

/* Leases that come, go and change while the walk is under way. */
static void test_leases_meanwhile(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    for (int64_t id = -50; id <= 50; id++)
        if (id) grant(s, id * 10, 60);
    uint64_t sound = value(s);
    for (int64_t at = -500; at < 500; at += 70) {
        struct store_check *c = store_check_open(s);
        for (int64_t id = -500; id <= at; id += 10) store_check_step(c, 1);
        revoke(s, -500);
        revoke(s, 500);
        checkpoint(s, -490, 9);
        checkpoint(s, 490, 9);
        grant(s, -495, 10);
        grant(s, 495, 10);
        while (!store_check_step(c, 1)) {
        }
        assert_true(store_check_value(c) == sound);
        store_check_close(c);
        revoke(s, -495);
        revoke(s, 495);
        checkpoint(s, -490, 0);
        checkpoint(s, 490, 0);
        grant(s, -500, 60);
        grant(s, 500, 60);
        assert_true(value(s) == sound);
    }
    store_free(s);
}

static void test_store_gone(void **state)
{
    (void)state;
    struct store *s = sample(0);
    struct store_check *c = store_check_open(s);
    store_check_step(c, 1);
    store_free(s);
    assert_true(store_check_step(c, 1));
    store_check_close(c);
    store_check_close(NULL);
}

/* What a verdict does to the alarms: a named member leaves the others at work, doubt stops changes, a person's alarm is not the
 * comparison's to clear. */
static void test_verdicts(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    struct alarm alarms[4];
    struct command named = {COMMAND_VERDICT, .check = {.member_id = 3, .corrupt = true}}, doubt = named;
    doubt.check.member_id = 0;
    assert_int_equal(run(s, &named), 0);
    assert_int_equal(run(s, &named), 0);
    assert_int_equal(store_alarms(s, alarms, 4), 1);
    assert_true(store_member_corrupt(s, 3) && !store_member_corrupt(s, 0) && !store_member_corrupt(s, 4));
    assert_int_equal(put(s, "a", "1"), 0);
    assert_int_equal(run(s, &doubt), 0);
    assert_int_equal(put(s, "a", "1"), ERR_CORRUPT);
    assert_int_equal(grant(s, 1, 60), ERR_CORRUPT);
    assert_int_equal(compact_to(s, 2), ERR_CORRUPT);
    assert_int_equal(run(s, &(struct command){COMMAND_CHECK}), 0);
    doubt.check.corrupt = named.check.corrupt = false;
    assert_int_equal(run(s, &doubt), 0);
    assert_int_equal(put(s, "a", "1"), 0);
    assert_int_equal(run(s, &named), 0);
    assert_int_equal(store_alarms(s, alarms, 4), 0);
    alarm_set(s, 3, ALARM_CORRUPT, true);
    assert_int_equal(run(s, &named), 0);
    assert_int_equal(put(s, "a", "1"), ERR_CORRUPT);
    assert_false(store_member_corrupt(s, 3));
    alarm_set(s, 3, ALARM_CORRUPT, false);
    assert_int_equal(put(s, "a", "1"), 0);
    drop_events(s);
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences), cmocka_unit_test(test_rot),  cmocka_unit_test(test_leases_meanwhile),
        cmocka_unit_test(test_store_gone),  cmocka_unit_test(test_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
