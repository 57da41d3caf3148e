/* Query strings, routes, Accept, continue tokens, token files, YAML, times. */
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

static void test_query(void **state)
{
    (void)state;
    struct query q;
    bool b = false;
    int64_t n = -1;
    assert_int_equal(query_parse(&arena, SLICE_LIT("a=1&b=x%2Cy+z&c&a=2&&d=%3D&neg=-5&t=True&f=0&max=9223372036854775807"), &q), 0);
    assert_true(slice_eq_str(query_get(&q, "a"), "1"));
    assert_true(slice_eq_str(query_get(&q, "b"), "x,y z"));
    assert_true(query_has(&q, "c") && !query_has(&q, "zz"));
    assert_true(slice_eq_str(query_get(&q, "d"), "="));
    assert_int_equal(query_int(&q, "neg", &n), 0);
    assert_int_equal(n, -5);
    assert_int_equal(query_int(&q, "max", &n), 0);
    assert_true(n == INT64_MAX);
    assert_int_equal(query_int(&q, "b", &n), ERR_INVALID);
    assert_true(n == INT64_MAX);
    assert_int_equal(query_bool(&q, "t", &b), 0);
    assert_true(b);
    assert_int_equal(query_bool(&q, "f", &b), 0);
    assert_false(b);
    assert_int_equal(query_bool(&q, "c", &b), 0);
    assert_true(b);
    assert_int_equal(query_bool(&q, "b", &b), ERR_INVALID);
    assert_int_equal(query_parse(&arena, SLICE_LIT("a=%4"), &q), ERR_INVALID);
    assert_int_equal(query_parse(&arena, SLICE_LIT("a=%zz"), &q), ERR_INVALID);
    struct buf many = {0};
    for (int i = 0; i < 65; i++) buf_append_str(&many, "a=b&");
    assert_int_equal(query_parse(&arena, buf_slice(&many), &q), ERR_LIMIT);
    buf_release(&many);
    assert_int_equal(query_parse(&arena, SLICE_LIT("n=9223372036854775808&p=+&e="), &q), 0);
    assert_int_equal(query_int(&q, "n", &n), ERR_INVALID);
    assert_int_equal(query_int(&q, "p", &n), ERR_INVALID);
    assert_int_equal(query_int(&q, "e", &n), 0);
}

static struct route route(const char *path)
{
    struct route r;
    int code = route_parse(&arena, slice_str(path), &r);
    if (code) fail_msg("%s: %d", path, code);
    return r;
}

static void assert_resource(const char *path, const char *kind, const char *ns, const char *name, const char *sub)
{
    struct route r = route(path);
    if (r.type != ROUTE_RESOURCE) fail_msg("%s is no resource", path);
    assert_string_equal(r.kind->kind, kind);
    if (!slice_eq_str(r.ns, ns) || !slice_eq_str(r.name, name) || !slice_eq_str(r.sub, sub)) fail_msg("%s: wrong parts", path);
}

static void test_routes(void **state)
{
    (void)state;
    assert_resource("/api/v1/pods", "Pod", "", "", "");
    assert_resource("/api/v1/namespaces/default/pods", "Pod", "default", "", "");
    assert_resource("/api/v1/namespaces/default/pods/web", "Pod", "default", "web", "");
    assert_resource("/api/v1/namespaces/default/pods/web/", "Pod", "default", "web", "");
    assert_resource("/api/v1/namespaces/default/pods/web/status", "Pod", "default", "web", "status");
    assert_resource("/api/v1/namespaces/default/pods/status", "Pod", "default", "status", "");
    assert_resource("/api/v1/namespaces", "Namespace", "", "", "");
    assert_resource("/api/v1/namespaces/x", "Namespace", "", "x", "");
    assert_resource("/api/v1/namespaces/x/finalize", "Namespace", "", "x", "finalize");
    assert_resource("/api/v1/namespaces/x/status", "Namespace", "", "x", "status");
    assert_resource("/api/v1/nodes/n%31", "Node", "", "n1", "");
    assert_resource("/apis/apps/v1/deployments", "Deployment", "", "", "");
    assert_resource("/apis/apps/v1/namespaces/a/deployments/d/scale", "Deployment", "a", "d", "scale");
    assert_resource("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "Lease", "kube-node-lease", "n1", "");
    struct route w = route("/api/v1/watch/namespaces/default/pods");
    assert_true(w.type == ROUTE_RESOURCE && w.watch && slice_eq_str(w.ns, "default"));
    assert_int_equal(route("/api").type, ROUTE_API_VERSIONS);
    assert_int_equal(route("/api/v1").type, ROUTE_RESOURCES);
    assert_int_equal(route("/apis").type, ROUTE_GROUPS);
    assert_int_equal(route("/apis/apps").type, ROUTE_GROUP);
    assert_int_equal(route("/apis/apps/v1").type, ROUTE_RESOURCES);
    assert_int_equal(route("/openapi/v2").type, ROUTE_OPENAPI_V2);
    assert_int_equal(route("/openapi/v3").type, ROUTE_OPENAPI_V3);
    assert_int_equal(route("/openapi/v3/api/v1").type, ROUTE_OPENAPI_V3_GROUP);
    assert_int_equal(route("/openapi/v3/apis/apps/v1").type, ROUTE_OPENAPI_V3_GROUP);
    assert_int_equal(route("/healthz").type, ROUTE_HEALTH);
    assert_int_equal(route("/readyz/etcd").type, ROUTE_HEALTH);
    assert_int_equal(route("/").type, ROUTE_ROOT);
    assert_int_equal(route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").type, ROUTE_ACCESS_REVIEW);
}

static void test_no_routes(void **state)
{
    (void)state;
    static const char *const none[] = {
        "", "x", "///", "/api/v2", "/api/v1/flubbers", "/apis/none", "/apis/apps/v2", "/apis/apps/v1/pods", "/api/v1//pods",
        "/api/v1/namespaces/default/nodes", "/api/v1/namespaces/default/namespaces/x", "/api/v1/pods/web",
        "/api/v1/namespaces/default/pods/web/status/x", "/api/v1/namespaces/default/pods/..", "/api/v1/namespaces/../pods",
        "/api/v1/namespaces/default/pods/a%2fb", "/api/v1/namespaces/default/pods/a%00b", "/healthz/a/b", "/openapi",
        "/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x"};
    for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++) {
        if (route(none[i]).type != ROUTE_UNKNOWN) fail_msg("%s is a route", none[i]);
    }
    struct route r;
    assert_int_equal(route_parse(&arena, SLICE_LIT("/api/v1/nodes/%g1"), &r), ERR_INVALID);
}

static struct format accepted(const char *text)
{
    struct format f;
    if (!negotiate_accept(slice_str(text), &f)) fail_msg("%s is refused", text);
    return f;
}

static void test_accept(void **state)
{
    (void)state;
    static const char kubectl[] = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,"
                                  "application/json";
    static const char discovery[] =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;"
        "as=APIGroupDiscoveryList,application/json";
    struct format f = accepted(kubectl);
    assert_true(f.media == MEDIA_TABLE && strcmp(f.version, "v1") == 0);
    f = accepted("application/json; as=Table; v=v9; g=meta.k8s.io, application/json; as=Table; v=v1beta1; g=meta.k8s.io");
    assert_true(f.media == MEDIA_TABLE && strcmp(f.version, "v1beta1") == 0);
    f = accepted(discovery);
    assert_true(f.media == MEDIA_DISCOVERY && strcmp(f.version, "v2") == 0);
    assert_string_equal(format_content_type(&f), "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_int_equal(accepted("").media, MEDIA_JSON);
    assert_int_equal(accepted("*/*").media, MEDIA_JSON);
    assert_int_equal(accepted("application/vnd.kubernetes.protobuf").media, MEDIA_JSON);
    assert_int_equal(accepted("application/vnd.kubernetes.protobuf,application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").media,
                     MEDIA_PARTIAL);
    assert_int_equal(accepted("application/com.github.proto-openapi.spec.v2@v1.0+protobuf").media, MEDIA_PROTOBUF_OPENAPI);
    assert_false(negotiate_accept(SLICE_LIT("text/html"), &f));
    assert_false(negotiate_accept(SLICE_LIT("application/json;as=Table;v=v1;g=other"), &f));
    assert_false(negotiate_accept(SLICE_LIT("application/json;q=0"), &f));
    assert_false(negotiate_accept(SLICE_LIT(",;=,;;"), &f));
    assert_int_equal(negotiate_body(SLICE_LIT("Application/JSON; charset=utf-8")), BODY_JSON);
    assert_int_equal(negotiate_body(SLICE_LIT("")), BODY_JSON);
    assert_int_equal(negotiate_body(SLICE_LIT("application/apply-patch+yaml")), BODY_APPLY_PATCH);
    assert_int_equal(negotiate_body(SLICE_LIT("text/plain")), BODY_OTHER);
}

static void test_continue(void **state)
{
    (void)state;
    const char *token;
    int64_t rv = 0;
    struct slice start;
    struct err e = {0};
    uint8_t key[] = {'d', '/', 'w', 'e', 'b', 0};
    assert_int_equal(continue_encode(&arena, 42, slice_make(key, sizeof(key)), &token), 0);
    assert_null(strpbrk(token, "+/="));
    assert_int_equal(continue_decode(&arena, slice_str(token), &rv, &start, &e), 0);
    assert_int_equal(rv, 42);
    assert_true(slice_eq(start, slice_make(key, sizeof(key))));
    assert_int_equal(continue_encode(&arena, -1, SLICE_LIT("x"), &token), 0);
    assert_int_equal(continue_decode(&arena, slice_str(token), &rv, &start, &e), 0);
    assert_int_equal(rv, -1);
}

static void test_bad_continue(void **state)
{
    (void)state;
    static const struct slice starts[] = {{(const uint8_t *)"", 0}, {(const uint8_t *)"/a", 2}, {(const uint8_t *)"../a", 4},
                                          {(const uint8_t *)"a/../b", 6}, {(const uint8_t *)"a//b", 4}, {(const uint8_t *)"a/", 2}};
    static const char *const tokens[] = {"A", "AA", "AAAA", "!!!!", "e30", "bnVsbA", "W10", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"};
    const char *token;
    int64_t rv = 7;
    struct slice start;
    struct err e;
    for (size_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
        if (continue_decode(&arena, slice_str(tokens[i]), &rv, &start, &e) != ERR_INVALID) fail_msg("%s was taken", tokens[i]);
    }
    for (size_t i = 0; i < sizeof(starts) / sizeof(*starts); i++) {
        assert_int_equal(continue_encode(&arena, 5, starts[i], &token), 0);
        assert_int_equal(continue_decode(&arena, slice_str(token), &rv, &start, &e), ERR_INVALID);
    }
    assert_int_equal(continue_encode(&arena, 0, SLICE_LIT("a"), &token), 0);
    assert_int_equal(continue_decode(&arena, slice_str(token), &rv, &start, &e), ERR_INVALID);
    assert_int_equal(continue_encode(&arena, 9, SLICE_LIT("abc/def"), &token), 0);
    char copy[128];
    size_t len = strlen(token);
    for (size_t i = 0; i < len * 8; i++) { /* any flipped bit: an error or a token, never a crash */
        memcpy(copy, token, len + 1);
        copy[i / 8] = (char)(copy[i / 8] ^ (1 << i % 8));
        int code = continue_decode(&arena, slice_make(copy, len), &rv, &start, &e);
        assert_true(code == 0 || code == ERR_INVALID);
    }
    assert_int_equal(rv == 7 || rv == 9 || rv > 0 || rv == -1, 1);
}

static void test_tokens(void **state)
{
    (void)state;
    static const char text[] = "# people\nt1,alice,u1,\"dev,ops\"\r\nt2,bob,u2\n\n\"t,3\",\"ca\"\"rol\",u3,one\n";
    struct token_table *t;
    struct err e = {0};
    assert_int_equal(tokens_parse(SLICE_LIT(text), &t, &e), 0);
    const struct user *u = tokens_find(t, SLICE_LIT("t1"));
    assert_non_null(u);
    assert_true(slice_eq_str(u->name, "alice") && slice_eq_str(u->uid, "u1") && u->n_groups == 3);
    assert_true(slice_eq_str(u->groups[1], "ops") && slice_eq_str(u->groups[2], "system:authenticated"));
    assert_int_equal(tokens_find(t, SLICE_LIT("t2"))->n_groups, 1);
    assert_true(slice_eq_str(tokens_find(t, SLICE_LIT("t,3"))->name, "ca\"rol"));
    assert_null(tokens_find(t, SLICE_LIT("t")));
    assert_null(tokens_find(t, SLICE_LIT("t12")));
    assert_null(tokens_find(t, SLICE_LIT("")));
    tokens_free(t);
    static const char *const bad[] = {"x", "x,", ",user,uid", "t,\"open,u", "t,\"a\"b,u"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(tokens_parse(slice_str(bad[i]), &t, &e), ERR_INVALID);
        assert_non_null(strstr(e.text, "line 1"));
    }
    assert_int_equal(tokens_load("/nonexistent/tokens", &t, &e), ERR_IO);
    assert_non_null(strstr(e.text, "/nonexistent/tokens"));
    for (uint64_t n = 1; n < 20; n++) {
        mem_fail_nth(n);
        int code = tokens_parse(SLICE_LIT(text), &t, &e);
        bool fired = mem_fail_nth(0);
        assert_int_equal(code, fired ? ERR_NOMEM : 0);
        if (!code) tokens_free(t);
        if (!fired) return;
    }
    fail();
}

static void assert_yaml(const char *yaml, const char *json)
{
    struct json *v;
    struct err e = {0};
    struct buf b = {0};
    if (yaml_to_json(&arena, slice_str(yaml), &v, &e)) fail_msg("%s: %s", yaml, e.text);
    json_write(&b, v);
    assert_string_equal(buf_cstr(&b), json);
    buf_release(&b);
}

static void test_yaml(void **state)
{
    (void)state;
    assert_yaml("a: 1\nb: [x, 'y', \"z\"]\nc:\n- d: null\n  e: ~\n- true\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\"],\"c\":[{\"d\":null,\"e\":null},true]}");
    assert_yaml("a: 0xffffffffffffffff\n", "{\"a\":\"0xffffffffffffffff\"}"); /* not the greatest that fits */
    assert_yaml("a: '1'\nb: yes\nc: off\nd: 0x1f\ne: 0o17\nf: 017\ng: 1.50\nh: 1e3\ni: 1_000\nj: -5\nk: +5\n",
                "{\"a\":\"1\",\"b\":true,\"c\":false,\"d\":31,\"e\":15,\"f\":15,\"g\":1.50,\"h\":1e3,\"i\":\"1_000\",\"j\":-5,\"k\":5}");
    assert_yaml("a: |\n  x\n  y\nb: >-\n  p\n  q\n", "{\"a\":\"x\\ny\\n\",\"b\":\"p q\"}");
    assert_yaml("---\n{\"a\": {\"b\": []}}\n...\n", "{\"a\":{\"b\":[]}}");
    assert_yaml("v: 1.2.3\nw: 2020-01-01\nx: 10:30\n", "{\"v\":\"1.2.3\",\"w\":\"2020-01-01\",\"x\":\"10:30\"}");
    static const char *const bad[] = {"", "a: [", "a: b: c", "a: 1\na: 2\n", "x: &a 1\ny: *a\n", "---\na: 1\n---\nb: 2\n", "? [a]\n: b\n", "\t- x", "a: \"\\xZZ\"", "a: \xff\xfe"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct json *v;
        struct err e = {0};
        int code = yaml_to_json(&arena, slice_str(bad[i]), &v, &e);
        if (code != ERR_INVALID || !e.text[0]) fail_msg("%s: %d %s", bad[i], code, e.text);
    }
    struct buf deep = {0};
    struct json *v;
    for (int i = 0; i < 5000; i++) buf_append_str(&deep, "[");
    assert_int_equal(yaml_to_json(&arena, buf_slice(&deep), &v, NULL), ERR_LIMIT);
    buf_release(&deep);
}

static void test_time(void **state)
{
    (void)state;
    char text[32];
    int64_t s = 0;
    kube_time(1700000000, text);
    assert_string_equal(text, "2023-11-14T22:13:20Z");
    assert_int_equal(kube_time_parse(slice_str(text), &s), 0);
    assert_int_equal(s, 1700000000);
    assert_int_equal(kube_time_parse(SLICE_LIT("2023-11-14T22:13:20.123456Z"), &s), 0);
    assert_int_equal(kube_time_parse(SLICE_LIT("2023-11-14T22:13:20"), &s), ERR_INVALID);
    assert_int_equal(kube_time_parse(SLICE_LIT("yesterday"), &s), ERR_INVALID);
    assert_int_equal(kube_time_parse(SLICE_LIT("2023-11-14T22:13:20+01:00"), &s), ERR_INVALID);
}

static int load(void **state)
{
    (void)state;
    struct err e = {0};
    int code = kinds_load(&e);
    if (code) print_error("%s\n", e.text);
    return code;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_query, teardown),    cmocka_unit_test_teardown(test_routes, teardown),
        cmocka_unit_test_teardown(test_no_routes, teardown), cmocka_unit_test_teardown(test_accept, teardown),
        cmocka_unit_test_teardown(test_continue, teardown), cmocka_unit_test_teardown(test_bad_continue, teardown),
        cmocka_unit_test_teardown(test_tokens, teardown),   cmocka_unit_test_teardown(test_yaml, teardown),
        cmocka_unit_test_teardown(test_time, teardown),
    };
    return cmocka_run_group_tests_name("kube parsing", tests, load, NULL);
}
