/* Bodies in Kubernetes' protobuf form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/mem.h"

static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

/* A small writer, so that the tests say what they mean. */
static void put_bytes(struct buf *b, unsigned number, struct slice s)
{
    buf_append_byte(b, (uint8_t)(number << 3 | 2));
    buf_append_byte(b, (uint8_t)s.len);
    assert_true(s.len < 128);
    buf_append_slice(b, s);
}

static void put_number(struct buf *b, unsigned number, uint64_t v)
{
    buf_append_byte(b, (uint8_t)(number << 3));
    for (; v >= 128; v >>= 7) buf_append_byte(b, (uint8_t)(v | 128));
    buf_append_byte(b, (uint8_t)v);
}

static struct slice object(const char *api_version, const char *kind, const struct buf *raw)
{
    struct buf meta = {0}, all = {0};
    put_bytes(&meta, 1, slice_str(api_version));
    put_bytes(&meta, 2, slice_str(kind));
    buf_append(&all, "k8s", 4);
    put_bytes(&all, 1, buf_slice(&meta));
    put_bytes(&all, 2, buf_slice(raw));
    struct slice s = arena_dup(&arena, buf_slice(&all));
    buf_release(&meta);
    buf_release(&all);
    return s;
}

static void assert_decoded(struct slice body, const char *want)
{
    struct json *v;
    struct err e = {0};
    struct buf b = {0};
    if (protobuf_to_json(&arena, body, &v, &e)) fail_msg("%s", e.text);
    json_write(&b, v);
    assert_string_equal(buf_cstr(&b), want);
    buf_release(&b);
}

static void test_config_map(void **state)
{
    (void)state;
    struct buf meta = {0}, entry = {0}, bytes = {0}, cm = {0}, label = {0};
    put_bytes(&label, 1, SLICE_LIT("k"));
    put_bytes(&label, 2, SLICE_LIT("v"));
    put_bytes(&meta, 1, SLICE_LIT("x"));
    put_bytes(&meta, 3, SLICE_LIT("")); /* an empty namespace is none */
    put_bytes(&meta, 11, buf_slice(&label));
    put_bytes(&entry, 1, SLICE_LIT("a"));
    put_bytes(&entry, 2, SLICE_LIT(""));
    put_bytes(&bytes, 1, SLICE_LIT("b"));
    put_bytes(&bytes, 2, SLICE_LIT("\xff\x01"));
    put_bytes(&cm, 1, buf_slice(&meta));
    put_bytes(&cm, 2, buf_slice(&entry));
    put_bytes(&cm, 3, buf_slice(&bytes));
    put_number(&cm, 4, 0); /* immutable is a pointer: false is a value */
    put_bytes(&cm, 15, SLICE_LIT("unknown"));
    assert_decoded(object("v1", "ConfigMap", &cm),
                   "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"x\",\"labels\":{\"k\":\"v\"}},\"data\":{\"a\":\"\"},"
                   "\"binaryData\":{\"b\":\"/wE=\"},\"immutable\":false}");
    buf_release(&meta);
    buf_release(&entry);
    buf_release(&bytes);
    buf_release(&cm);
    buf_release(&label);
}

/* Negative integers, times, IntOrString, inlined messages, repeated messages. */
static void test_values(void **state)
{
    (void)state;
    struct buf port = {0}, target = {0}, spec = {0}, svc = {0}, t = {0}, lease_spec = {0}, lease = {0};
    put_number(&target, 1, 1);
    put_number(&target, 2, 0);
    put_bytes(&target, 3, SLICE_LIT("http"));
    put_bytes(&port, 1, SLICE_LIT("web"));
    put_number(&port, 3, 80);
    put_bytes(&port, 4, buf_slice(&target));
    put_number(&port, 5, 0); /* no pointer: zero is nothing */
    put_bytes(&spec, 1, buf_slice(&port));
    put_bytes(&svc, 2, buf_slice(&spec));
    assert_decoded(object("v1", "Service", &svc), "{\"kind\":\"Service\",\"apiVersion\":\"v1\",\"spec\":{\"ports\":[{\"name\":\"web\",\"port\":80,"
                                                  "\"targetPort\":\"http\"}]}}");
    put_number(&t, 1, 1700000000);
    put_number(&t, 2, 123456000);
    put_bytes(&lease_spec, 1, SLICE_LIT("me"));
    put_number(&lease_spec, 2, (uint64_t)-5);
    put_bytes(&lease_spec, 4, buf_slice(&t));
    put_bytes(&lease, 2, buf_slice(&lease_spec));
    assert_decoded(object("coordination.k8s.io/v1", "Lease", &lease),
                   "{\"kind\":\"Lease\",\"apiVersion\":\"coordination.k8s.io/v1\",\"spec\":{\"holderIdentity\":\"me\",\"leaseDurationSeconds\":-5,"
                   "\"renewTime\":\"2023-11-14T22:13:20.123456Z\"}}");
    buf_release(&port);
    buf_release(&target);
    buf_release(&spec);
    buf_release(&svc);
    buf_release(&t);
    buf_release(&lease_spec);
    buf_release(&lease);
}

/* What RFC 3339 cannot say is refused, and the years at its ends have four digits. */
static void check_time(int64_t unix_s, const char *text)
{
    struct buf t = {0}, spec = {0}, lease = {0};
    struct json *v;
    struct err e = {0};
    put_number(&t, 1, (uint64_t)unix_s);
    put_bytes(&spec, 4, buf_slice(&t));
    put_bytes(&lease, 2, buf_slice(&spec));
    struct slice body = object("coordination.k8s.io/v1", "Lease", &lease);
    assert_int_equal(protobuf_to_json(&arena, body, &v, &e), text ? 0 : ERR_INVALID);
    if (text) assert_true(json_is_str(json_path(v, "spec.renewTime"), text));
    buf_release(&t);
    buf_release(&spec);
    buf_release(&lease);
}

static void test_times(void **state)
{
    (void)state;
    check_time(-62135596800, "0001-01-01T00:00:00.000000Z");
    check_time(253402300799, "9999-12-31T23:59:59.000000Z");
    check_time(-62135596801, NULL);
    check_time(253402300800, NULL);
    check_time(INT64_MAX, NULL);
    check_time(INT64_MIN, NULL);
}

static const uint8_t small[] = "k8s\0\x0a\x0f\x0a\x02v1\x12\x09" "ConfigMap\x12\x0f\x0a\x04\x0a\x02pb\x12\x07\x0a\x01k\x12\x02vv";

static void test_damage(void **state)
{
    (void)state;
    struct slice whole = slice_make(small, sizeof(small) - 1);
    struct json *v;
    struct err e;
    assert_decoded(whole, "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"pb\"},\"data\":{\"k\":\"vv\"}}");
    for (size_t n = 0; n < whole.len; n++) { /* cut anywhere: an error */
        uint8_t *copy = mem_alloc(n ? n : 1); /* exactly as long, so that a read beyond it is seen */
        memcpy(copy, whole.data, n);
        assert_true(protobuf_to_json(&arena, slice_make(copy, n), &v, &e) != 0);
        mem_free(copy);
    }
    for (size_t bit = 0; bit < whole.len * 8; bit++) { /* a flipped bit: an error or another object */
        uint8_t copy[sizeof(small)];
        memcpy(copy, small, sizeof(small));
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int code = protobuf_to_json(&arena, slice_make(copy, whole.len), &v, &e);
        assert_true(code == 0 || code == ERR_INVALID || code == ERR_UNSUPPORTED);
        if (code) continue;
        struct buf b = {0}; /* it can be read back: no text that is not UTF-8 */
        json_write(&b, v);
        assert_int_equal(json_parse(&arena, buf_slice(&b), JSON_COPY, &v, NULL), 0);
        buf_release(&b);
    }
}

static void test_unknown_kind(void **state)
{
    (void)state;
    struct buf none = {0};
    struct json *v;
    struct err e = {0};
    assert_int_equal(protobuf_to_json(&arena, object("v1", "Flubber", &none), &v, &e), ERR_UNSUPPORTED);
    assert_int_equal(protobuf_to_json(&arena, SLICE_LIT("{}"), &v, &e), ERR_INVALID);
    assert_int_equal(protobuf_to_json(&arena, (struct slice){0}, &v, &e), ERR_INVALID);
}

/* JSONSchemaProps-like recursion does not exist in these kinds; what nests deepest is still bounded. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 100; n++) {
        struct arena a = {0};
        struct json *v;
        arena_init(&a, 0);
        mem_fail_nth(n);
        int code = protobuf_to_json(&a, slice_make(small, sizeof(small) - 1), &v, NULL);
        bool fired = mem_fail_nth(0);
        assert_true(code == (fired ? ERR_NOMEM : 0) || (fired && code == ERR_UNSUPPORTED));
        arena_release(&a);
        if (!fired) return;
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_config_map, teardown), cmocka_unit_test_teardown(test_values, teardown),
        cmocka_unit_test_teardown(test_damage, teardown),     cmocka_unit_test_teardown(test_unknown_kind, teardown),
        cmocka_unit_test_teardown(test_no_memory, teardown),  cmocka_unit_test_teardown(test_times, teardown),
    };
    return cmocka_run_group_tests_name("kube protobuf", tests, NULL, NULL);
}
