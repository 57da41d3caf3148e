/* The small parts of base: slices, buffers, the reader, arenas, blobs, checksums, failing memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/arena.h"
#include "base/blob.h"
#include "base/crc32c.h"
#include "base/flags.h"
#include "base/mem.h"
#include "base/slice.h"

static void test_slices(void **state)
{
    (void)state;
    struct slice a = SLICE_LIT("registry/pods");
    assert_true(slice_eq(slice_sub(a, 9, 99), SLICE_LIT("pods")));
    assert_int_equal(slice_sub(a, 50, 1).len, 0);
    assert_int_equal(slice_index(a, '/'), 8);
    assert_int_equal(slice_index((struct slice){0}, '/'), -1);
    assert_true(slice_has_prefix(a, (struct slice){0}));
    assert_true(slice_has_prefix(a, SLICE_LIT("reg")));
    assert_false(slice_has_prefix(SLICE_LIT("reg"), a));
    assert_true(slice_cmp(SLICE_LIT("a"), SLICE_LIT("ab")) < 0);
    assert_true(slice_cmp(SLICE_LIT("b"), SLICE_LIT("ab")) > 0);
    assert_true(slice_cmp(SLICE_LIT("\x80"), SLICE_LIT("\x7f")) > 0);
    assert_int_equal(slice_cmp((struct slice){0}, (struct slice){0}), 0);
}

static void test_buf_stops_at_its_cap_and_stays_failed(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    for (int i = 0; i < 10; i++) assert_int_equal(buf_append(&b, "0123456789", 10), 0);
    assert_int_equal(buf_append_byte(&b, 'x'), ERR_LIMIT);
    assert_int_equal(b.len, 100);
    buf_consume(&b, 95);
    assert_int_equal(buf_append_byte(&b, 'x'), ERR_LIMIT); /* sticky until cleared */
    assert_memory_equal(b.data, "56789", 5);
    buf_clear(&b);
    assert_int_equal(buf_printf(&b, "%d-%s", 42, "x"), 0);
    assert_string_equal(buf_cstr(&b), "42-x");
    buf_consume(&b, 1000);
    assert_int_equal(b.len, 0);
    buf_release(&b);
    assert_int_equal(b.cap, 100);
}

static void test_buf_without_memory(void **state)
{
    (void)state;
    struct buf b = {0};
    mem_fail_nth(1);
    assert_int_equal(buf_append_str(&b, "x"), ERR_NOMEM);
    assert_true(mem_fail_nth(0));
    assert_int_equal(buf_append_str(&b, "x"), ERR_NOMEM);
    assert_int_equal(b.len, 0);
    buf_release(&b);
}

static void test_reader_never_leaves_its_bytes(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append_byte(&b, 7);
    buf_append_u32(&b, 0x11223344);
    buf_append_u64(&b, 0x8877665544332211ull);
    for (size_t len = 0; len <= b.len; len++) {
        struct reader r = reader_make(slice_make(b.data, len));
        uint8_t first = reader_u8(&r);
        uint32_t second = reader_u32(&r);
        uint64_t third = reader_u64(&r);
        assert_int_equal(first, len >= 1 ? 7 : 0);
        assert_int_equal(second, len >= 5 ? 0x11223344 : 0);
        if (len == 13) assert_true(third == 0x8877665544332211ull);
        assert_int_equal(r.failed, len < 13);
        assert_int_equal(reader_bytes(&r, SIZE_MAX).len, 0);
        assert_true(r.failed);
    }
    buf_release(&b);
}

static void test_arena(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 64 * 1024);
    for (size_t size = 0; size < 300; size++) {
        uint8_t *p = arena_alloc(&a, size);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % alignof(max_align_t), 0);
        memset(p, 0xa5, size);
    }
    assert_null(arena_alloc(&a, 128 * 1024));
    assert_null(arena_calloc(&a, SIZE_MAX / 2, 4));
    assert_string_equal(arena_printf(&a, "%s/%d", "pods", 3), "pods/3");
    assert_string_equal(arena_strdup(&a, SLICE_LIT("x")), "x");
    arena_reset(&a);
    assert_true(a.used <= 1024);
    assert_non_null(arena_alloc(&a, 10));
    arena_release(&a);
    assert_int_equal(a.used, 0);
    mem_fail_nth(1);
    assert_null(arena_dup(&a, SLICE_LIT("x")).data);
    assert_true(mem_fail_nth(0));
    arena_release(&a);
}

static void *take_and_drop(void *p)
{
    for (int i = 0; i < 10000; i++) blob_unref(blob_ref(p));
    return NULL;
}

static void test_blob_is_shared_between_threads(void **state)
{
    (void)state;
    struct blob *b = blob_copy(SLICE_LIT("value"));
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_drop, b), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&b->refs), 1);
    assert_true(slice_eq(blob_slice(b), SLICE_LIT("value")));
    blob_unref(b);
    blob_unref(NULL);
    assert_int_equal(blob_slice(NULL).len, 0);
    assert_null(blob_new((size_t)UINT32_MAX + 1));
    mem_fail_nth(1);
    assert_null(blob_new(1));
    mem_fail_nth(0);
}

/* RFC 3720, B.4. */
static void test_crc32c_vectors(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++) bytes[i] = (uint8_t)(31 - i);
    assert_int_equal(crc32c(0, bytes, 32), 0x113fdb5c);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);
}

static void test_memory_fails_exactly_once(void **state)
{
    (void)state;
    void *p[4];
    mem_fail_nth(3);
    for (int i = 0; i < 4; i++) p[i] = i % 2 ? mem_calloc(1, 8) : mem_alloc(8);
    assert_true(p[0] && p[1] && !p[2] && p[3]);
    assert_true(mem_fail_nth(0));
    assert_false(mem_fail_nth(0));
    mem_fail_nth(1);
    assert_null(mem_realloc(p[0], 100)); /* and the old memory is still there */
    mem_fail_nth(1);
    mem_free(mem_must_alloc(8)); /* never fails this way */
    assert_false(mem_fail_nth(0));
    for (int i = 0; i < 4; i++) mem_free(p[i]);
    assert_true(mem_rss() > 0);
}

static void test_flags_tell_which_were_given(void **state)
{
    (void)state;
    int64_t members = 3, nodes = 3;
    bool secure = false, members_given = false, nodes_given = false, secure_given = false;
    const struct flag flags[] = {{"members", FLAG_INT, &members, NULL, NULL, &members_given},
                                 {"nodes", FLAG_INT, &nodes, NULL, NULL, &nodes_given},
                                 {"secure", FLAG_BOOL, &secure, NULL, NULL, &secure_given},
                                 {0}};
    char *argv[] = {"up", "--members", "3", "--secure=false", "argument"};
    struct err e;
    int argc;
    assert_int_equal(flags_parse(flags, 5, argv, &argc, &e), 0);
    assert_int_equal(argc, 2);
    assert_true(members == 3 && members_given && !secure && secure_given && !nodes_given);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_buf_stops_at_its_cap_and_stays_failed),
        cmocka_unit_test(test_buf_without_memory),
        cmocka_unit_test(test_reader_never_leaves_its_bytes),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_blob_is_shared_between_threads),
        cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_flags_tell_which_were_given),
        cmocka_unit_test(test_memory_fails_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
