/* HashKV against values that etcd 3.5.30 gave for the same history (tests/compat/test_hashkv.sh
 * asks a live one). */
#include "tests/unit/store/helpers.h"

static uint32_t hash_at(struct store *s, int64_t rev)
{
    struct store_hash *h;
    assert_int_equal(store_hash_open(s, rev, &h), 0);
    while (!store_hash_step(h, 2)) {
    }
    uint32_t value = store_hash_value(h);
    store_hash_close(h);
    return value;
}

/* Both with and without the memory freed, the answer is the same. */
static void compact_and_expect(struct store *s, int64_t rev, uint32_t hash)
{
    assert_int_equal(compact_to(s, rev), 0);
    assert_int_equal(hash_at(s, 0), hash);
    work_off(s);
    assert_int_equal(hash_at(s, 0), hash);
}

static void test_etcd_values(void **state)
{
    (void)state;
    struct store *s = store_new(NULL);
    assert_int_equal(hash_at(s, 0), 1084519789u);
    put(s, "/a", "1");
    put(s, "/b", "2");
    grant(s, 123, 600);
    put_lease(s, "/c", "3", 123);
    put(s, "/a", "4");
    struct op ops[] = {
        {OP_PUT, .put = {.key = SLICE_LIT("/d"), .value = SLICE_LIT("5")}},
        {OP_DELETE, .del = {.key = SLICE_LIT("/b")}},
        {OP_PUT, .put = {.key = SLICE_LIT("/e")}},
    };
    struct txn_op txn = {.success = ops, .n_success = 3};
    assert_int_equal(run(s, &(struct command){COMMAND_OP, .op = {OP_TXN, .txn = &txn}}), 0);
    del(s, "/c");
    assert_int_equal(store_revision(s), 7);
    assert_int_equal(hash_at(s, 0), 3514635287u);
    assert_int_equal(hash_at(s, 4), 106025517u);
    assert_int_equal(hash_at(s, -6), 1084519789u);
    compact_and_expect(s, 5, 632547782u);
    assert_int_equal(hash_at(s, 6), 1262101953u);
    put(s, "/c", "6");
    compact_and_expect(s, 7, 415053375u);
    del_all(s);
    compact_and_expect(s, 8, 2171243731u); /* nothing is live: etcd hashes what compaction left */
    compact_and_expect(s, 9, 1084519789u);
    put(s, "/z", "1");
    assert_int_equal(hash_at(s, 0), 2445832785u);
    struct store_hash *h;
    assert_int_equal(store_hash_open(s, 8, &h), ERR_COMPACTED);
    assert_int_equal(store_hash_open(s, 11, &h), ERR_FUTURE_REV);
    drop_events(s);
    store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_etcd_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
