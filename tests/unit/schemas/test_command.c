/* The codec of commands, and which of them may be proposed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "schemas/command.h"

#define LIT(text) SLICE_LIT(text)

static struct compare compares[] = {
    {COMPARE_GREATER, COMPARE_MOD, LIT("k"), LIT(""), -5, LIT("")},
    {COMPARE_NOT_EQUAL, COMPARE_VALUE, LIT("a"), LIT("b"), 0, LIT("v")},
    {COMPARE_LESS, COMPARE_LEASE, LIT("a"), LIT("\0"), INT64_MAX, LIT("")},
};
static struct op nested_ops[] = {
    {OP_PUT, .put = {.key = LIT("nested"), .lease = INT64_MIN, .ignore_value = true}},
};
static struct txn_op nested = {.failure = nested_ops, .n_failure = 1};
static struct op success[] = {
    {OP_RANGE, .range = {LIT("a"), LIT("z"), 10, -1, SORT_DESCEND, SORT_VALUE, true, false, true, 1,
                         70000, -3, 1LL << 40}},
    {OP_DELETE, .del = {LIT("x"), LIT("y"), true}},
    {OP_TXN, .txn = &nested},
};
static struct op failure[] = {
    {OP_PUT, .put = {LIT("p"), LIT("value"), 0, true, false, true}},
    {OP_RANGE, .range = {.key = LIT("b"), .keys_only = true, .sort_target = SORT_MOD}},
};
static struct txn_op txn = {compares, 3, success, failure, 3, 2};
static struct lease_checkpoint checkpoints[] = {{1, 2}, {-3, 1000000}};
static struct slice urls[] = {LIT("http://a:1"), LIT("http://b:2")};

static const struct command samples[] = {
    {COMMAND_OP, .op = {OP_PUT, .put = {LIT("key"), LIT("value"), 0, true, false, false}}},
    {COMMAND_OP, .op = {OP_DELETE, .del = {LIT("key"), LIT("\0"), false}}},
    {COMMAND_OP, .op = {OP_TXN, .txn = &txn}},
    {COMMAND_COMPACT, .compact = {1234567}},
    {COMMAND_LEASE_GRANT, .lease_grant = {0x7fffffffffffffff, 60}},
    {COMMAND_LEASE_REVOKE, .lease_revoke = {-9}},
    {COMMAND_LEASE_CHECKPOINT, .checkpoint = {checkpoints, 2}},
    {COMMAND_ALARM, .alarm = {0xffffffffffffffff, ALARM_CORRUPT, true}},
    {COMMAND_MEMBER_ATTRIBUTES, .member = {0x8000000000000001, LIT("n1"), urls, 2}},
    {COMMAND_CHECK, .check = {.version = 300}},
    {COMMAND_CHECK_REPORT, .check = {0, 0x8000000000000001, 77, 0xffffffffffffffff, 1, false}},
    {COMMAND_VERDICT, .check = {0, 9, 1ull << 40, 5, 0, true}},
};
enum { N_SAMPLES = sizeof(samples) / sizeof(samples[0]) };

static struct buf encode(const struct command *c)
{
    struct buf b = {0};
    command_encode(&b, c);
    assert_int_equal(b.failed, 0);
    return b;
}

static void test_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct buf first = encode(&samples[i]);
        struct arena a = {0};
        struct command c;
        assert_int_equal(command_decode(&a, buf_slice(&first), &c), 0);
        assert_int_equal(c.type, samples[i].type);
        struct buf second = encode(&c);
        assert_true(slice_eq(buf_slice(&first), buf_slice(&second)));
        arena_release(&a);
        buf_release(&first);
        buf_release(&second);
    }
}

static struct command decode(struct arena *a, struct buf *b, const struct command *c)
{
    struct command ret;
    *b = encode(c);
    assert_int_equal(command_decode(a, buf_slice(b), &ret), 0);
    return ret;
}

static void test_fields(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf b;
    struct command c = decode(&a, &b, &samples[0]);
    assert_int_equal(c.op.type, OP_PUT);
    assert_true(slice_eq_str(c.op.put.key, "key") && slice_eq_str(c.op.put.value, "value"));
    assert_true(c.op.put.prev_kv && !c.op.put.ignore_lease && !c.op.put.ignore_value);
    buf_release(&b);
    c = decode(&a, &b, &samples[2]);
    const struct txn_op *t = c.op.txn;
    assert_int_equal(t->n_compares, 3);
    assert_true(t->compares[0].number == -5 && t->compares[0].target == COMPARE_MOD);
    assert_true(t->compares[1].result == COMPARE_NOT_EQUAL &&
                slice_eq_str(t->compares[1].value, "v"));
    assert_true(t->compares[2].number == INT64_MAX && t->compares[2].range_end.len == 1);
    const struct range_op *r = &t->success[0].range;
    assert_true(r->limit == 10 && r->revision == -1 && r->sort_order == SORT_DESCEND &&
                r->sort_target == SORT_VALUE);
    assert_true(r->serializable && !r->keys_only && r->count_only);
    assert_true(r->min_mod_revision == 1 && r->max_mod_revision == 70000);
    assert_true(r->min_create_revision == -3 && r->max_create_revision == 1LL << 40);
    assert_true(t->success[1].del.prev_kv && slice_eq_str(t->success[1].del.range_end, "y"));
    assert_true(t->success[2].txn->failure[0].put.lease == INT64_MIN);
    assert_true(t->success[2].txn->failure[0].put.ignore_value);
    assert_true(t->failure[0].put.ignore_lease && t->failure[0].put.prev_kv);
    assert_true(t->failure[1].range.keys_only && t->failure[1].range.sort_target == SORT_MOD);
    buf_release(&b);
    c = decode(&a, &b, &samples[6]);
    assert_true(c.checkpoint.count == 2 && c.checkpoint.leases[1].id == -3);
    buf_release(&b);
    c = decode(&a, &b, &samples[8]);
    assert_true(c.member.n_client_urls == 2 && slice_eq_str(c.member.client_urls[1], "http://b:2"));
    buf_release(&b);
    arena_release(&a);
}

static void test_damage(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) {
        struct buf b = encode(&samples[i]);
        struct arena a = {0};
        struct command c;
        for (size_t len = 0; len < b.len; len++) {
            uint8_t *cut = malloc(len); /* its own memory: a sanitizer sees a read behind it */
            if (len) memcpy(cut, b.data, len);
            assert_int_equal(command_decode(&a, slice_make(cut, len), &c), ERR_CORRUPT);
            free(cut);
        }
        for (size_t bit = 0; bit < b.len * 8; bit++) {
            b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            int rc = command_decode(&a, buf_slice(&b), &c);
            assert_true(rc == 0 || rc == ERR_CORRUPT || rc == ERR_UNSUPPORTED || rc == ERR_LIMIT);
            b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        buf_append_byte(&b, 0);
        assert_int_equal(command_decode(&a, buf_slice(&b), &c), ERR_CORRUPT);
        arena_release(&a);
        buf_release(&b);
    }
}

static void test_memory(void **state)
{
    (void)state;
    struct buf b = encode(&samples[2]);
    uint64_t nth = 1;
    for (;; nth++) {
        struct arena a = {0};
        struct command c;
        mem_fail_nth(nth);
        int rc = command_decode(&a, buf_slice(&b), &c);
        bool fired = mem_fail_nth(0);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        arena_release(&a);
        if (!fired) break;
    }
    assert_true(nth > 1);
    struct command put_twice = samples[2];
    mem_fail_nth(1);
    int rc = command_check(&put_twice);
    assert_int_equal(rc, mem_fail_nth(0) ? ERR_NOMEM : 0);
    buf_release(&b);
}

/* A newer member's fields at the end of what we know are passed over; its new types are not. */
static void test_newer(void **state)
{
    (void)state;
    static const uint8_t longer[] = {0x95, 2,    9, 0xa2, 'h', 'i', 0x82, 1, 2, 3, 0x91,
                                     0xc0, 0xcb, 1, 2,    3,   4,   5,    6, 7, 8};
    static const uint8_t new_type[] = {0x92, 100, 9}, new_op[] = {0x92, 1, 0x92, 9, 1};
    struct arena a = {0};
    struct command c;
    assert_int_equal(command_decode(&a, slice_make(longer, sizeof(longer)), &c), 0);
    assert_true(c.type == COMMAND_COMPACT && c.compact.revision == 9);
    assert_int_equal(command_decode(&a, slice_make(longer, sizeof(longer) - 1), &c), ERR_CORRUPT);
    assert_int_equal(command_decode(&a, slice_make(new_type, sizeof(new_type)), &c),
                     ERR_UNSUPPORTED);
    assert_int_equal(command_decode(&a, slice_make(new_op, sizeof(new_op)), &c), ERR_UNSUPPORTED);
    arena_release(&a);
}

static void test_random(void **state)
{
    (void)state;
    srand(7);
    struct arena a = {0};
    for (int i = 0; i < 300000; i++) {
        uint8_t bytes[80];
        size_t len = (size_t)rand() % sizeof(bytes);
        for (size_t k = 0; k < len; k++)
            bytes[k] = (uint8_t)(rand() % 3 ? 0x90 + rand() % 8 : rand() >> 5);
        if (len > 1) bytes[1] = (uint8_t)(1 + rand() % 7);
        struct command c;
        int rc = command_decode(&a, slice_make(bytes, len), &c);
        if (rc == 0) {
            struct buf b = encode(&c); /* whatever was read can be written and read again */
            assert_int_equal(command_decode(&a, buf_slice(&b), &c), 0);
            buf_release(&b);
        }
        arena_reset(&a);
    }
    arena_release(&a);
}

/* ---- limits --------------------------------------------------------------------------------- */

static int check_txn(const struct txn_op *t)
{
    return command_check(&(struct command){COMMAND_OP, .op = {OP_TXN, .txn = (struct txn_op *)t}});
}

static int decode_code(const struct command *c)
{
    struct buf b = encode(c);
    struct arena a = {0};
    struct command ret;
    int rc = command_decode(&a, buf_slice(&b), &ret);
    arena_release(&a);
    buf_release(&b);
    return rc;
}

static void test_limits(void **state)
{
    (void)state;
    static struct op many[LIMIT_TXN_OPS + 1];
    for (int i = 0; i <= LIMIT_TXN_OPS; i++)
        many[i] = (struct op){OP_RANGE, .range = {.key = LIT("k")}};
    struct txn_op t = {.success = many, .n_success = LIMIT_TXN_OPS};
    assert_int_equal(check_txn(&t), 0);
    t.n_success++;
    assert_int_equal(check_txn(&t), ERR_TOO_MANY_OPS);
    assert_int_equal(decode_code(&(struct command){COMMAND_OP, .op = {OP_TXN, .txn = &t}}),
                     ERR_LIMIT);

    struct txn_op deep[LIMIT_TXN_DEPTH + 1] = {0};
    struct op link[LIMIT_TXN_DEPTH + 1];
    for (int i = 0; i < LIMIT_TXN_DEPTH; i++) {
        link[i] = (struct op){OP_TXN, .txn = &deep[i + 1]};
        deep[i].success = &link[i];
        deep[i].n_success = 1;
    }
    struct command c = {COMMAND_OP, .op = {OP_TXN, .txn = &deep[1]}};
    assert_int_equal(command_check(&c), 0);
    assert_int_equal(decode_code(&c), 0);
    c.op.txn = &deep[0];
    assert_int_equal(command_check(&c), ERR_TOO_MANY_OPS);
    assert_int_equal(decode_code(&c), ERR_LIMIT);
}

/* A txn of this many nested txns of this many puts each. */
static int check_wide(size_t outer, size_t inner)
{
    static struct txn_op txns[128];
    static struct op outer_ops[128], inner_ops[128][128];
    static uint8_t keys[128][128][2];
    for (size_t i = 0; i < outer; i++) {
        outer_ops[i] = (struct op){OP_TXN, .txn = &txns[i]};
        txns[i] = (struct txn_op){.success = inner_ops[i], .n_success = inner};
        for (size_t k = 0; k < inner; k++) {
            keys[i][k][0] = (uint8_t)i;
            keys[i][k][1] = (uint8_t)k;
            inner_ops[i][k] = (struct op){OP_PUT, .put = {.key = {keys[i][k], 2}}};
        }
    }
    return check_txn(&(struct txn_op){.success = outer_ops, .n_success = outer});
}

static void test_total(void **state)
{
    (void)state;
    assert_int_equal(check_wide(10, 100), 0);
    assert_int_equal(check_wide(11, 100), ERR_TOO_MANY_OPS);
    assert_int_equal(check_wide(100, 28), ERR_TOO_MANY_OPS);
    assert_int_equal(check_wide(100, 29), ERR_TOO_MANY_OPS);
    assert_int_equal(check_wide(30, 99), ERR_TOO_MANY_OPS); /* as etcd: 128 less the 30 around it */
}

static int check_op(struct op op)
{
    return command_check(&(struct command){COMMAND_OP, .op = op});
}

static void test_checks(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++) assert_int_equal(command_check(&samples[i]), 0);
    assert_int_equal(check_op((struct op){OP_PUT, .put = {.value = LIT("v")}}), ERR_EMPTY_KEY);
    assert_int_equal(check_op((struct op){OP_DELETE, .del = {.range_end = LIT("v")}}),
                     ERR_EMPTY_KEY);
    assert_int_equal(check_op((struct op){OP_RANGE, .range = {.key = LIT("v")}}), ERR_INVALID);
    assert_int_equal(
        check_op(
            (struct op){OP_PUT, .put = {.key = LIT("k"), .value = LIT("v"), .ignore_value = true}}),
        ERR_VALUE_PROVIDED);
    assert_int_equal(
        check_op((struct op){OP_PUT, .put = {.key = LIT("k"), .lease = 1, .ignore_lease = true}}),
        ERR_LEASE_PROVIDED);
    assert_int_equal(range_op_check(&(struct range_op){.key = LIT("k")}), 0);
    assert_int_equal(range_op_check(&(struct range_op){.range_end = LIT("k")}), ERR_EMPTY_KEY);
    assert_int_equal(
        range_op_check(&(struct range_op){.key = LIT("k"), .sort_order = (enum sort_order)3}),
        ERR_INVALID_SORT_OPTION);
    assert_int_equal(
        range_op_check(&(struct range_op){.key = LIT("k"), .sort_target = (enum sort_target) - 1}),
        ERR_INVALID_SORT_OPTION);
    assert_int_equal(check_txn(&(struct txn_op){
                         .compares = &(struct compare){.target = COMPARE_MOD}, .n_compares = 1}),
                     ERR_EMPTY_KEY);
    assert_int_equal(check_txn(&(struct txn_op){.success = &(struct op){0}, .n_success = 1}),
                     ERR_KEY_NOT_FOUND);
    assert_int_equal(command_check(&(struct command){COMMAND_LEASE_GRANT,
                                                     .lease_grant = {1, LIMIT_LEASE_TTL + 1}}),
                     ERR_LEASE_TTL_TOO_LARGE);
    assert_int_equal(command_check(&(struct command){COMMAND_LEASE_GRANT, .lease_grant = {0, 5}}),
                     ERR_LEASE_NOT_FOUND);
    assert_int_equal(
        command_check(&(struct command){COMMAND_ALARM, .alarm = {1, (enum alarm_type)9, true}}),
        ERR_INVALID);
    assert_int_equal(command_check(&(struct command){(enum command_type)99, .op = {0}}),
                     ERR_INVALID);
}

/* ---- overlaps ------------------------------------------------------------------------------- */

static struct op put(const char *key)
{
    return (struct op){OP_PUT, .put = {.key = slice_str(key)}};
}

static struct op del(const char *key, const char *end)
{
    return (struct op){OP_DELETE, .del = {.key = slice_str(key), .range_end = slice_str(end)}};
}

#define OPS(...) ((struct op[]){__VA_ARGS__})
#define THEN(...)                                                                                  \
    .success = OPS(__VA_ARGS__), .n_success = sizeof(OPS(__VA_ARGS__)) / sizeof(struct op)
#define ELSE(...)                                                                                  \
    .failure = OPS(__VA_ARGS__), .n_failure = sizeof(OPS(__VA_ARGS__)) / sizeof(struct op)
#define TXN(...) ((struct op){OP_TXN, .txn = &(struct txn_op){__VA_ARGS__}})

static void test_overlaps(void **state)
{
    (void)state;
    enum { DUP = ERR_DUPLICATE_KEY };
    assert_int_equal(check_op(TXN(THEN(put("a"), put("b")), ELSE(put("a"), put("b")))), 0);
    assert_int_equal(check_op(TXN(THEN(put("a"), put("b"), put("a")))), DUP);
    assert_int_equal(check_op(TXN(ELSE(put("a"), put("a")))), DUP);
    assert_int_equal(check_op(TXN(THEN(put("a"), del("a", "")))), DUP);
    assert_int_equal(check_op(TXN(THEN(del("a", "b"), put("a")))), DUP);
    assert_int_equal(check_op(TXN(THEN(del("a", "b"), put("b")))), 0);
    assert_int_equal(check_op(TXN(THEN(del("a", "b"), del("a", "c"), put("c")))), 0);
    struct op open = del("b", "");
    open.del.range_end = LIT("\0");
    struct op keeps = put("zzz");
    keeps.put.ignore_lease = true;
    /* etcd's checkIntervals takes the end "\0" literally; it panics where we refuse */
    assert_int_equal(check_op(TXN(THEN(open, put("zzz")))), 0);
    assert_int_equal(check_op(TXN(THEN(open, TXN(THEN(put("zzz")))))), 0);
    assert_int_equal(check_op(TXN(THEN(open, keeps))), DUP);
    assert_int_equal(check_op(TXN(THEN(open, TXN(ELSE(keeps))))), DUP);
    keeps.put.key = LIT("a");
    assert_int_equal(check_op(TXN(THEN(open, put("a"), keeps))), DUP);
    assert_int_equal(check_op(TXN(THEN(open, keeps))), 0);
    /* nested: the branches of one exclude each other, what stands beside it does not */
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(put("a")), ELSE(put("a")))))), 0);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(put("a"))), put("a")))), DUP);
    assert_int_equal(check_op(TXN(THEN(TXN(ELSE(put("a"))), put("a")))), DUP);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(put("a"))), TXN(ELSE(put("a")))))), DUP);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(del("a", ""))), put("a")))), DUP);
    assert_int_equal(check_op(TXN(THEN(put("a"), TXN(THEN(del("a", "")))))), DUP);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(del("a", ""))), TXN(THEN(put("a")))))), DUP);
    /* etcd's checkIntervals lets this one pass: deletes are seen only by what comes later */
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(put("a"))), TXN(THEN(del("a", "")))))), 0);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(put("a")), ELSE(del("a", "")))))), 0);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(TXN(THEN(put("x")))))), ELSE(put("x")))), 0);
    assert_int_equal(check_op(TXN(THEN(TXN(THEN(TXN(THEN(put("x"))), put("x")))))), DUP);
}

static void test_questions(void **state)
{
    (void)state;
    struct op range = {OP_RANGE, .range = {.key = LIT("k"), .serializable = true}}, linear = range;
    linear.range.serializable = false;
    assert_true(txn_op_read_only(TXN(THEN(range), ELSE(linear)).txn));
    assert_false(txn_op_read_only(TXN(THEN(range), ELSE(TXN(ELSE(del("a", ""))))).txn));
    assert_false(txn_op_read_only(TXN(THEN(put("a"))).txn));
    assert_true(txn_op_serializable(TXN(THEN(range), ELSE(TXN(THEN(range)))).txn));
    assert_false(txn_op_serializable(TXN(THEN(range), ELSE(TXN(THEN(linear)))).txn));
    assert_true(txn_op_puts(TXN(ELSE(TXN(ELSE(put("a"))))).txn));
    assert_false(txn_op_puts(TXN(ELSE(TXN(ELSE(del("a", ""))))).txn));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_fields),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_newer),      cmocka_unit_test(test_random),
        cmocka_unit_test(test_limits),     cmocka_unit_test(test_total),
        cmocka_unit_test(test_checks),     cmocka_unit_test(test_overlaps),
        cmocka_unit_test(test_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
