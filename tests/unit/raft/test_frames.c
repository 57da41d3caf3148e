/* The codec of peer frames: what is encoded comes back; everything else is refused; nothing is read
 * out of bounds (every input lies at the end of an allocation of exactly its size, for the
 * sanitizers). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "raft/frames_int.h"

static int decode_copy(const uint8_t *data, size_t len, struct err *e)
{
    uint8_t *copy = mem_must_alloc(len);
    struct frame f;
    if (len) memcpy(copy, data, len);
    int rv = frame_decode(slice_make(copy, len), &f, e);
    if (rv == 0 && f.kind == FRAME_APPEND) {
        size_t at = 0, sum = 0;
        for (uint32_t i = 0; i < f.append.n; i++) {
            struct raft_entry entry = frame_append_entry(&f.append, i, &at);
            for (size_t k = 0; k < entry.buf.len; k++) sum += ((uint8_t *)entry.buf.base)[k];
        }
        assert_int_equal(at, f.append.data.len);
        assert_true(sum < SIZE_MAX);
    }
    mem_free(copy);
    return rv;
}

static void samples(struct buf out[], unsigned *ret_n)
{
    static const uint8_t conf[24] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 'u', 0, 1};
    struct raft_entry entries[3] = {
        {.term = 2, .type = RAFT_CHANGE, .buf = {(void *)(uintptr_t)conf, sizeof conf}},
        {.term = 2, .type = RAFT_BARRIER, .buf = {(void *)"12345678", 8}},
        {.term = 3, .type = RAFT_COMMAND, .buf = {(void *)"hello", 5}},
    };
    struct frame f;
    unsigned n = 0;
    for (unsigned kind = FRAME_APPEND; kind <= FRAME_SNAPSHOT_ABORT; kind++) {
        memset(&f, 0, sizeof f);
        f.kind = (enum frame_kind)kind;
        buf_init(&out[n], 0);
        switch (f.kind) {
        case FRAME_APPEND:
            f.append = (struct frame_append){
                .term = 3, .prev_index = 4, .prev_term = 2, .leader_commit = 5, .n = 3};
            frame_encode_append(&out[n], &f.append, entries);
            for (int i = 0; i < 3; i++)
                assert_int_equal(buf_append(&out[n], entries[i].buf.base, entries[i].buf.len), 0);
            n++;
            continue;
        case FRAME_APPEND_RESULT:
            f.append_result = (struct raft_append_entries_result){3, 4, 5};
            break;
        case FRAME_VOTE: f.vote = (struct raft_request_vote){3, 4, 5, 6, true, true}; break;
        case FRAME_VOTE_RESULT:
            f.vote_result = (struct raft_request_vote_result){3, true, raft_tribool_false};
            break;
        case FRAME_TIMEOUT_NOW: f.timeout_now = (struct raft_timeout_now){3, 4, 5}; break;
        case FRAME_HELLO:
            f.hello.life = 5;
            f.hello.boots = 2;
            f.hello.applied = 9;
            f.hello.recovering = true;
            break;
        case FRAME_KNOWN:
            f.known.boots = 2;
            f.known.leader_last = 11;
            break;
        case FRAME_MEMBERS:
            f.members.index = 12;
            f.members.configuration = slice_make(conf, sizeof conf);
            break;
        case FRAME_PROPOSE: f.propose.tag = 7; break;
        case FRAME_PROPOSE_REFUSED:
            f.propose.tag = 7;
            f.propose.status = ERR_NO_LEADER;
            break;
        case FRAME_SNAPSHOT_OFFER:
        case FRAME_SNAPSHOT_CHUNK:
        case FRAME_SNAPSHOT_ACK:
        case FRAME_SNAPSHOT_ABORT:
            f.snapshot = (struct frame_snapshot){
                .id = 1, .term = 3, .index = 9, .index_term = 2, .size = 100, .offset = 50};
            break;
        default: break;
        }
        frame_encode(&out[n], &f);
        if (kind == FRAME_PROPOSE || kind == FRAME_MESSAGE || kind == FRAME_SNAPSHOT_CHUNK) {
            assert_int_equal(buf_append_str(&out[n], "payload"), 0);
        }
        n++;
    }
    *ret_n = n;
}

static void release(struct buf b[], unsigned n)
{
    for (unsigned i = 0; i < n; i++) buf_release(&b[i]);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct buf b[32];
    struct frame f;
    unsigned n;
    samples(b, &n);
    assert_int_equal(n, FRAME_SNAPSHOT_ABORT);
    for (unsigned i = 0; i < n; i++) {
        struct err e = {{0}};
        int rv = frame_decode(buf_slice(&b[i]), &f, &e);
        if (rv) fail_msg("%s", e.text);
        assert_int_equal(f.kind, i + 1);
        switch (f.kind) {
        case FRAME_APPEND: {
            size_t at = 0;
            assert_int_equal(f.append.prev_index, 4);
            assert_int_equal(frame_append_entry(&f.append, 0, &at).type, RAFT_CHANGE);
            assert_int_equal(frame_append_entry(&f.append, 1, &at).term, 2);
            struct raft_entry last = frame_append_entry(&f.append, 2, &at);
            assert_int_equal(last.buf.len, 5);
            assert_memory_equal(last.buf.base, "hello", 5);
            break;
        }
        case FRAME_VOTE:
            assert_true(f.vote.pre_vote && f.vote.disrupt_leader);
            assert_int_equal(f.vote.last_log_term, 6);
            break;
        case FRAME_VOTE_RESULT:
            assert_true(f.vote_result.vote_granted);
            assert_int_equal(f.vote_result.pre_vote, raft_tribool_false);
            break;
        case FRAME_SNAPSHOT_CHUNK: assert_true(slice_eq_str(f.snapshot.data, "payload")); break;
        case FRAME_HELLO:
            assert_true(f.hello.recovering);
            assert_int_equal(f.hello.boots, 2);
            assert_int_equal(f.hello.applied, 9);
            break;
        case FRAME_KNOWN:
            assert_int_equal(f.known.boots, 2);
            assert_int_equal(f.known.leader_last, 11);
            break;
        case FRAME_PROPOSE: assert_true(slice_eq_str(f.propose.entry, "payload")); break;
        case FRAME_PROPOSE_REFUSED: assert_int_equal(f.propose.status, ERR_NO_LEADER); break;
        default: break;
        }
    }
    release(b, n);
}

static void test_cut_short(void **state)
{
    (void)state;
    struct buf b[32];
    unsigned n;
    samples(b, &n);
    for (unsigned i = 0; i < n; i++) {
        bool tail =
            i + 1 == FRAME_PROPOSE || i + 1 == FRAME_MESSAGE || i + 1 == FRAME_SNAPSHOT_CHUNK;
        for (size_t len = 0; len < b[i].len; len++) {
            struct err e = {{0}};
            int rv = decode_copy(b[i].data, len, &e);
            if (rv == 0)
                assert_true(tail && len + 7 >= b[i].len); /* a shorter payload is a payload */
            else assert_int_equal(rv, ERR_CORRUPT);
            if (rv) assert_true(e.text[0]);
        }
        assert_int_equal(buf_append_byte(&b[i], 0), 0);
        if (!tail) assert_int_equal(decode_copy(b[i].data, b[i].len, NULL), ERR_CORRUPT);
    }
    release(b, n);
}

static uint64_t random_state = 88172645463325252u;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void test_fuzz(void **state)
{
    (void)state;
    struct buf b[32];
    unsigned n, refused = 0;
    samples(b, &n);
    for (int round = 0; round < 60000; round++) {
        const struct buf *from = &b[next_random() % n];
        uint8_t bytes[300];
        size_t len = from->len;
        assert_true(len < sizeof bytes);
        memcpy(bytes, from->data, len);
        for (uint64_t k = 1 + next_random() % 4; k > 0; k--) {
            switch (next_random() % 3) {
            case 0: bytes[next_random() % len] ^= (uint8_t)(1u << next_random() % 8); break;
            case 1: bytes[next_random() % len] = (uint8_t)next_random(); break;
            default: len = 1 + next_random() % len; break;
            }
        }
        refused += decode_copy(bytes, len, NULL) != 0;
    }
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64] = {FRAME_VERSION, (uint8_t)(next_random() % 18)};
        size_t len = next_random() % sizeof bytes;
        for (size_t i = 4; i < len; i++) bytes[i] = (uint8_t)next_random();
        refused += decode_copy(bytes, len, NULL) != 0;
    }
    assert_true(refused > 30000);
    release(b, n);
}

/* What libraft must never be given. */
static void test_senseless(void **state)
{
    (void)state;
    struct frame f = {.kind = FRAME_APPEND};
    struct raft_entry e[2] = {{.term = 3, .type = RAFT_COMMAND, .buf = {(void *)"a", 1}},
                              {.term = 2, .type = RAFT_COMMAND, .buf = {(void *)"b", 1}}};
    struct {
        uint64_t term, prev, prev_term;
        unsigned n;
        unsigned short type;
        bool good;
    } cases[] = {
        {3, 4, 3, 1, RAFT_COMMAND, true},
        {3, 4, 3, 2, RAFT_COMMAND, false}, /* terms go back */
        {0, 4, 3, 0, RAFT_COMMAND, false},
        {2, 4, 2, 1, RAFT_COMMAND, false}, /* an entry of a later term */
        {3, 0, 3, 1, RAFT_COMMAND, false},
        {3, 4, 0, 1, RAFT_COMMAND, false},
        {3, 4, 4, 0, RAFT_COMMAND, false},
        {3, 4, 3, 1, 9, false},
        {3, 4, 3, 1, RAFT_CHANGE, false}, /* "a" is no configuration */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};
        e[0].type = cases[i].type;
        f.append = (struct frame_append){
            .term = cases[i].term, .prev_index = cases[i].prev, .n = cases[i].n};
        f.append.prev_term = cases[i].prev_term;
        frame_encode_append(&out, &f.append, e);
        for (unsigned k = 0; k < cases[i].n; k++)
            assert_int_equal(buf_append(&out, e[k].buf.base, 1), 0);
        assert_int_equal(decode_copy(out.data, out.len, NULL), cases[i].good ? 0 : ERR_CORRUPT);
        buf_release(&out);
    }
}

static void test_configurations(void **state)
{
    (void)state;
    uint8_t conf[40] = {1, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 'u', 0, 1};
    assert_true(frame_configuration_ok(slice_make(conf, 20)));
    assert_true(frame_configuration_ok(slice_make(conf, 24)));
    assert_false(frame_configuration_ok(slice_make(conf, 28)));
    for (size_t len = 0; len < 20; len++)
        assert_false(frame_configuration_ok(slice_make(conf, len)));
    conf[1] = LIMIT_MEMBERS + 1;
    assert_false(frame_configuration_ok(slice_make(conf, 24)));
    conf[1] = 1;
    conf[19] = 3; /* no such role */
    assert_false(frame_configuration_ok(slice_make(conf, 24)));
    conf[19] = 1;
    memset(conf + 17, 'u', sizeof conf - 17); /* an address without an end */
    assert_false(frame_configuration_ok(slice_make(conf, sizeof conf)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_fuzz),           cmocka_unit_test(test_senseless),
        cmocka_unit_test(test_configurations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
