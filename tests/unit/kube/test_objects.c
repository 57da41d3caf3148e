/* Objects as bytes, Status objects, JSON patch and merge patch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/mem.h"

static const struct kind cms = {.group = "", .version = "v1", .api_version = "v1", .kind = "ConfigMap", .plural = "configmaps"};
static const struct kind deployments = {.group = "apps", .version = "v1", .api_version = "apps/v1", .kind = "Deployment",
                                        .plural = "deployments"};
static struct arena arena;

static int teardown(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

static struct json *parse(const char *text)
{
    struct json *v;
    if (json_parse(&arena, slice_str(text), 0, &v, NULL)) fail_msg("%s", text);
    return v;
}

static void assert_written(const struct json *v, const char *want)
{
    struct buf b = {0};
    json_write(&b, v);
    assert_string_equal(buf_cstr(&b), want);
    buf_release(&b);
}

static void test_store_serve(void **state)
{
    (void)state;
    struct buf stored = {0}, served = {0};
    struct json *o = parse("{\"data\":{\"a\":\"b\"},\"metadata\":{\"labels\":{\"x\":\"y\"},\"resourceVersion\":\"9\",\"managedFields\":[],"
                           "\"name\":\"n\"},\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\"}");
    assert_int_equal(object_store(&arena, &cms, o, &stored), 0);
    assert_string_equal(buf_cstr(&stored), "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n\",\"labels\":{\"x\":\"y\"}},"
                                           "\"data\":{\"a\":\"b\"}}");
    assert_int_equal(object_serve(&served, &cms, buf_slice(&stored), 12, 0), 0);
    assert_string_equal(buf_cstr(&served), "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"12\",\"name\":\"n\","
                                           "\"labels\":{\"x\":\"y\"}},\"data\":{\"a\":\"b\"}}");
    buf_clear(&served);
    assert_int_equal(object_serve(&served, &cms, buf_slice(&stored), 12, ENCODE_ITEM), 0);
    assert_string_equal(buf_cstr(&served), "{\"metadata\":{\"resourceVersion\":\"12\",\"name\":\"n\",\"labels\":{\"x\":\"y\"}},\"data\":{\"a\":\"b\"}}");
    buf_clear(&served);
    assert_int_equal(object_serve(&served, &cms, buf_slice(&stored), 0, 0), 0);
    assert_true(slice_eq(buf_slice(&served), buf_slice(&stored)));
    buf_release(&stored);
    buf_release(&served);
}

static void test_serve_foreign(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(object_serve(&b, &cms, SLICE_LIT("{\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n\"},\"kind\":\"ConfigMap\"}"), 3, 0), 0);
    assert_string_equal(buf_cstr(&b), "{\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"n\",\"resourceVersion\":\"3\"},\"kind\":\"ConfigMap\"}");
    buf_clear(&b);
    assert_int_equal(object_serve(&b, &cms, SLICE_LIT("{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{}}"), 3, 0), 0);
    assert_string_equal(buf_cstr(&b), "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"3\"}}");
    static const char *const bad[] = {"", "x", "[]", "{}", "{\"metadata\":1}", "{\"kind\":\"ConfigMap\""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        buf_clear(&b);
        assert_int_equal(object_serve(&b, &cms, slice_str(bad[i]), 3, 0), ERR_CORRUPT);
    }
    buf_release(&b);
}

static const char *status_text(const struct status *s)
{
    struct buf b = {0};
    status_write(&b, s);
    const char *text = arena_strdup(&arena, buf_slice(&b));
    buf_release(&b);
    return text;
}

static void test_status(void **state)
{
    (void)state;
    struct status s;
    status_init(&s, &arena);
    status_not_found(&s, &deployments, SLICE_LIT("web"));
    assert_string_equal(status_text(&s),
                        "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"deployments.apps "
                        "\\\"web\\\" not found\",\"reason\":\"NotFound\",\"details\":{\"name\":\"web\",\"group\":\"apps\",\"kind\":"
                        "\"deployments\"},\"code\":404}");
    status_modified(&s, &cms, SLICE_LIT("x"));
    assert_string_equal(s.message, "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your "
                                   "changes to the latest version and try again");
    assert_int_equal(s.code, 409);
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_problem_add(&p, PROBLEM_REQUIRED, "spec.selector", NULL, "%s", ""), 0);
    assert_int_equal(kind_problem_add(&p, PROBLEM_INVALID, "spec.replicas", "-1", "must be greater than or equal to 0"), 0);
    status_invalid(&s, &deployments, SLICE_LIT("web"), &p);
    assert_string_equal(s.message, "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.replicas: Invalid value: -1: "
                                   "must be greater than or equal to 0]");
    assert_string_equal(s.causes->reason, "FieldValueRequired");
    assert_string_equal(s.causes->next->message, "Invalid value: -1: must be greater than or equal to 0");
    assert_string_equal(s.kind, "Deployment");
    status_too_large_rv(&s, 9, 5);
    assert_non_null(strstr(status_text(&s), "\"causes\":[{\"reason\":\"ResourceVersionTooLarge\",\"message\":\"Too large resource version\"}],"
                                            "\"retryAfterSeconds\":1},\"code\":504"));
}

/* Bytes of a request that are no UTF-8 do not make the answer unreadable. */
static void test_status_quotes_bytes(void **state)
{
    (void)state;
    struct status s;
    struct json *v;
    status_init(&s, &arena);
    status_bad_request(&s, "no \"%s\"", "\xff\xfe\xc3\xa4");
    struct buf b = {0};
    status_write(&b, &s);
    assert_int_equal(json_parse(&arena, buf_slice(&b), JSON_COPY, &v, NULL), 0);
    assert_true(slice_eq_str(json_path_text(v, "message"), "no \"????\""));
    buf_release(&b);
}

static void test_status_of_core(void **state)
{
    (void)state;
    static const struct {
        int error, code, retry;
        const char *reason;
    } want[] = {{ERR_NO_LEADER, 503, 1, "ServiceUnavailable"}, {ERR_TIMEOUT, 504, 1, "Timeout"}, {ERR_TOO_MANY_REQUESTS, 429, 1, "TooManyRequests"},
                {ERR_COMPACTED, 410, 0, "Expired"}, {ERR_NO_SPACE, 507, 0, "InternalError"}, {ERR_CORRUPT, 500, 0, "InternalError"},
                {ERR_TOO_LARGE, 413, 0, "RequestEntityTooLarge"}, {ERR_STOPPED, 503, 1, "ServiceUnavailable"}};
    struct status s;
    status_init(&s, &arena);
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        status_core(&s, want[i].error, false);
        assert_int_equal(s.code, want[i].code);
        assert_int_equal(s.retry_after_s, want[i].retry);
        assert_string_equal(s.reason, want[i].reason);
    }
    static const int transport[] = {ERR_TIMEOUT, ERR_LEADER_CHANGED, ERR_NO_LEADER, ERR_STOPPED, ERR_TOO_MANY_REQUESTS};
    for (size_t i = 0; i < sizeof(transport) / sizeof(*transport); i++) {
        status_init(&s, &arena);
        status_core(&s, transport[i], true); /* nobody should blindly repeat a write that may have been done */
        assert_int_equal(s.code, 504);
        assert_int_equal(s.retry_after_s, 0);
    }
}

/* RFC 6902 appendix A and more. `want` NULL: refused, and the document may not be used. */
static void assert_patch(const char *doc, const char *patch, const char *want)
{
    struct json *out;
    struct err e = {0};
    int code = json_patch_apply(&arena, parse(doc), parse(patch), &out, &e);
    if (!want) {
        if (code == 0 || !e.text[0]) fail_msg("%s was applied to %s", patch, doc);
        return;
    }
    if (code) fail_msg("%s: %s", patch, e.text);
    assert_written(out, want);
}

static void test_json_patch(void **state)
{
    (void)state;
    assert_patch("{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz\",\"value\":\"qux\"}]", "{\"foo\":\"bar\",\"baz\":\"qux\"}");
    assert_patch("{\"foo\":[\"bar\",\"baz\"]}", "[{\"op\":\"add\",\"path\":\"/foo/1\",\"value\":\"qux\"}]", "{\"foo\":[\"bar\",\"qux\",\"baz\"]}");
    assert_patch("{\"foo\":[\"a\",\"b\",\"c\"]}", "[{\"op\":\"remove\",\"path\":\"/foo/1\"}]", "{\"foo\":[\"a\",\"c\"]}");
    assert_patch("{\"baz\":\"q\",\"foo\":\"b\"}", "[{\"op\":\"replace\",\"path\":\"/baz\",\"value\":\"boo\"}]", "{\"baz\":\"boo\",\"foo\":\"b\"}");
    assert_patch("{\"foo\":{\"bar\":1,\"w\":2},\"q\":{\"c\":3}}", "[{\"op\":\"move\",\"from\":\"/foo/w\",\"path\":\"/q/t\"}]",
                 "{\"foo\":{\"bar\":1},\"q\":{\"c\":3,\"t\":2}}");
    assert_patch("{\"foo\":[1,2,3,4]}", "[{\"op\":\"move\",\"from\":\"/foo/1\",\"path\":\"/foo/3\"}]", "{\"foo\":[1,3,4,2]}");
    assert_patch("{\"baz\":\"qux\",\"foo\":[\"a\",2,\"c\"]}", "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"qux\"},{\"op\":\"test\",\"path\":"
                 "\"/foo/1\",\"value\":2.0}]", "{\"baz\":\"qux\",\"foo\":[\"a\",2,\"c\"]}");
    assert_patch("{\"baz\":\"qux\"}", "[{\"op\":\"test\",\"path\":\"/baz\",\"value\":\"bar\"}]", NULL);
    assert_patch("{\"foo\":\"bar\"}", "[{\"op\":\"add\",\"path\":\"/baz/bat\",\"value\":\"qux\"}]", NULL);
    assert_patch("{\"/\":9,\"~1\":10}", "[{\"op\":\"test\",\"path\":\"/~01\",\"value\":10},{\"op\":\"test\",\"path\":\"/~1\",\"value\":9}]",
                 "{\"/\":9,\"~1\":10}");
    assert_patch("{\"foo\":[1]}", "[{\"op\":\"add\",\"path\":\"/foo/-\",\"value\":[2]}]", "{\"foo\":[1,[2]]}");
    assert_patch("{\"a\":1}", "[{\"op\":\"replace\",\"path\":\"\",\"value\":{\"b\":2}}]", "{\"b\":2}");
    assert_patch("{\"a\":{\"b\":1}}", "[{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/c\"},{\"op\":\"replace\",\"path\":\"/c/b\",\"value\":2}]",
                 "{\"a\":{\"b\":1},\"c\":{\"b\":2}}");
    assert_patch("{\"\":1}", "[{\"op\":\"remove\",\"path\":\"/\"}]", "{}");
    static const char *const bad[] = {
        "{}", "[1]", "[{\"op\":\"add\",\"path\":\"/b\"}]", "[{\"op\":\"nop\",\"path\":\"/a\",\"value\":1}]", "[{\"op\":\"remove\",\"path\":\"/x\"}]",
        "[{\"op\":\"add\",\"path\":\"a\",\"value\":1}]", "[{\"op\":\"add\",\"path\":\"/l/3\",\"value\":1}]", "[{\"op\":\"add\",\"path\":\"/l/01\",\"value\":1}]",
        "[{\"op\":\"add\",\"path\":\"/l/-1\",\"value\":1}]", "[{\"op\":\"remove\",\"path\":\"/l/2\"}]", "[{\"op\":\"move\",\"from\":\"/o\",\"path\":\"/o/p\"}]",
        "[{\"op\":\"copy\",\"path\":\"/z\"}]", "[{\"op\":\"remove\",\"path\":\"\"}]", "[{\"op\":\"add\",\"path\":\"/a/b\",\"value\":1}]",
        "[{\"op\":\"add\",\"path\":\"/a~2\",\"value\":1}]", "[{\"value\":1}]"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) assert_patch("{\"a\":1,\"l\":[1,2],\"o\":{\"p\":1}}", bad[i], NULL);
}

/* A patch of a few hundred bytes that would double its document again and again. */
static void test_patch_bomb(void **state)
{
    (void)state;
    struct buf b = {0};
    struct json *out;
    struct err e;
    buf_append_str(&b, "[");
    for (int i = 0; i < 60; i++) buf_printf(&b, "%s{\"op\":\"copy\",\"from\":\"/a\",\"path\":\"/a/k%d\"}", i ? "," : "", i);
    buf_append_str(&b, "]");
    assert_int_equal(json_patch_apply(&arena, parse("{\"a\":{\"x\":\"0123456789\"}}"), parse(buf_cstr(&b)), &out, &e), ERR_LIMIT);
    buf_release(&b);
}

/* One that doubles the depth of its document: recursion over it would end the process. */
static void test_patch_depth(void **state)
{
    (void)state;
    struct buf b = {0};
    struct json *out;
    struct err e;
    buf_append_str(&b, "[{\"op\":\"add\",\"path\":\"/x\",\"value\":{\"\":{}}}");
    for (int i = 0, depth = 1; i < 18; i++, depth *= 2) {
        buf_append_str(&b, ",{\"op\":\"copy\",\"from\":\"/x\",\"path\":\"/x");
        for (int k = 0; k < depth; k++) buf_append_str(&b, "/");
        buf_append_str(&b, "\"}");
    }
    buf_append_str(&b, "]");
    assert_int_equal(json_patch_apply(&arena, parse("{}"), parse(buf_cstr(&b)), &out, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "levels deep"));
    buf_release(&b);
}

/* Members that were removed are not there for any later operation, and their places come back with a new value. */
static void test_patch_removals(void **state)
{
    (void)state;
    const char *doc = "{\"m\":{\"a\":1,\"b\":2,\"c\":3},\"l\":[1,2]}";
#define REMOVE_A "{\"op\":\"remove\",\"path\":\"/m/a\"}"
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"add\",\"path\":\"/m/a\",\"value\":4}]", "{\"m\":{\"a\":4,\"b\":2,\"c\":3},\"l\":[1,2]}");
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"copy\",\"from\":\"/m\",\"path\":\"/n\"}]",
                 "{\"m\":{\"b\":2,\"c\":3},\"l\":[1,2],\"n\":{\"b\":2,\"c\":3}}");
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"move\",\"from\":\"/m\",\"path\":\"/n\"}]", "{\"l\":[1,2],\"n\":{\"b\":2,\"c\":3}}");
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"test\",\"path\":\"/m\",\"value\":{\"b\":2,\"c\":3}},{\"op\":\"test\",\"path\":\"/m/a\",\"value\":null}]",
                 "{\"m\":{\"b\":2,\"c\":3},\"l\":[1,2]}");
    assert_patch(doc, "[" REMOVE_A "," REMOVE_A "]", NULL);
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"replace\",\"path\":\"/m/a\",\"value\":1}]", NULL);
    assert_patch(doc, "[" REMOVE_A ",{\"op\":\"add\",\"path\":\"/m/a/x\",\"value\":1}]", NULL);
}

static void assert_merge(const char *doc, const char *patch, const char *want)
{
    struct json *out;
    assert_int_equal(json_merge_apply(&arena, parse(doc), parse(patch), &out), 0);
    assert_written(out, want);
}

/* As many as a patch may have, on an object as large as one may be: in one pass. What cannot be done so is refused. */
static void test_large_patches(void **state)
{
    (void)state;
    enum { KEYS = 60000, REMOVED = 5000 };
    struct buf doc = {0}, remove = {0}, test = {0}, merge = {0};
    struct json *out;
    struct err e;
    for (int i = 0; i < KEYS; i++) buf_printf(&doc, "%c\"k%d\":{}", i ? ',' : '{', i);
    for (int i = KEYS; i-- > KEYS - REMOVED;) {
        char comma = i == KEYS - 1 ? '[' : ',';
        buf_printf(&remove, "%c{\"op\":\"remove\",\"path\":\"/k%d\"},{\"op\":\"add\",\"path\":\"/n%d\",\"value\":1}", comma, i, i);
        buf_printf(&test, "%c{\"op\":\"remove\",\"path\":\"/k%d\"},{\"op\":\"copy\",\"from\":\"/k0\",\"path\":\"/k1\"}", comma, i);
    }
    for (int i = KEYS; i-- > 0;) buf_printf(&merge, "%c\"k%d\":null", i == KEYS - 1 ? '{' : ',', i);
    buf_append_str(&doc, "}");
    buf_append_str(&remove, "]");
    buf_append_str(&test, "]");
    buf_append_str(&merge, "}");
    assert_int_equal(json_patch_apply(&arena, parse(buf_cstr(&doc)), parse(buf_cstr(&remove)), &out, &e), 0);
    assert_int_equal(out->count, KEYS);
    assert_null(json_get(out, "k59999"));
    assert_non_null(json_get(out, "n59999"));
    assert_int_equal(json_patch_apply(&arena, parse(buf_cstr(&doc)), parse(buf_cstr(&test)), &out, &e), ERR_LIMIT);
    assert_merge(buf_cstr(&doc), buf_cstr(&merge), "{}");
    buf_release(&doc);
    buf_release(&remove);
    buf_release(&test);
    buf_release(&merge);
}

static void test_merge_patch(void **state)
{
    (void)state; /* RFC 7386 appendix A */
    assert_merge("{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    assert_merge("{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}");
    assert_merge("{\"a\":\"b\"}", "{\"a\":null}", "{}");
    assert_merge("{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}");
    assert_merge("{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}");
    assert_merge("{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}");
    assert_merge("{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}");
    assert_merge("[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]");
    assert_merge("{\"a\":\"foo\"}", "null", "null");
    assert_merge("{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}");
    assert_merge("[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}");
    assert_merge("{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}");
}

static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 200; n++) {
        struct arena a = {0};
        struct json *doc, *patch, *out;
        struct buf b = {0};
        mem_fail_nth(n);
        int code = json_parse(&a, SLICE_LIT("{\"metadata\":{\"name\":\"x\"},\"data\":{\"a\":\"1\"}}"), 0, &doc, NULL);
        if (!code) code = json_parse(&a, SLICE_LIT("[{\"op\":\"copy\",\"from\":\"/data\",\"path\":\"/b~1c\"}]"), 0, &patch, NULL);
        if (!code) code = json_patch_apply(&a, doc, patch, &out, NULL);
        if (!code) code = json_merge_apply(&a, out, out, &out);
        if (!code) code = object_store(&a, &cms, out, &b);
        bool fired = mem_fail_nth(0);
        assert_int_equal(code, fired ? ERR_NOMEM : 0);
        buf_release(&b);
        arena_release(&a);
        if (!fired) return;
    }
    fail();
}

static void test_qos(void **state)
{
    (void)state;
    static const struct {
        const char *resources, *want;
    } cases[] = {{"{}", "BestEffort"},
                 {"{\"requests\":{\"cpu\":\"1\"}}", "Burstable"},
                 {"{\"requests\":{\"cpu\":\"1\",\"memory\":\"1Gi\"},\"limits\":{\"cpu\":\"1000m\",\"memory\":\"1024Mi\"}}", "Guaranteed"},
                 {"{\"limits\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}", "Guaranteed"},
                 {"{\"requests\":{\"cpu\":\"1\"},\"limits\":{\"cpu\":\"2\",\"memory\":\"1Gi\"}}", "Burstable"},
                 {"{\"limits\":{\"cpu\":\"1\"}}", "Burstable"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *text = arena_printf(&arena, "{\"spec\":{\"containers\":[{\"name\":\"c\",\"resources\":%s}]}}", cases[i].resources);
        assert_string_equal(pod_qos_class(parse(text)), cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_store_serve, teardown),    cmocka_unit_test_teardown(test_serve_foreign, teardown),
        cmocka_unit_test_teardown(test_status_quotes_bytes, teardown),
        cmocka_unit_test_teardown(test_status, teardown),         cmocka_unit_test_teardown(test_status_of_core, teardown),
        cmocka_unit_test_teardown(test_json_patch, teardown),     cmocka_unit_test_teardown(test_patch_bomb, teardown), cmocka_unit_test_teardown(test_patch_depth, teardown),
        cmocka_unit_test_teardown(test_patch_removals, teardown), cmocka_unit_test_teardown(test_large_patches, teardown),
        cmocka_unit_test_teardown(test_merge_patch, teardown),    cmocka_unit_test_teardown(test_no_memory, teardown),
        cmocka_unit_test_teardown(test_qos, teardown),
    };
    return cmocka_run_group_tests_name("kube objects", tests, NULL, NULL);
}
