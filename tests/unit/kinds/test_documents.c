/* Discovery and OpenAPI. That kubectl understands them is shown in tests/compat; here: they are
 * sound JSON, every reference in them leads somewhere, and the protobuf form says the same as the
 * JSON. */
#include "tests/unit/kinds/kinds_test.h"

static struct json *parsed(struct buf *b)
{
    struct json *v = NULL;
    struct json_error e = {0};
    int rc = json_parse(&arena, buf_slice(b), JSON_COPY, &v, &e);
    if (rc) fail_msg("offset %zu: %s", e.offset, e.text);
    buf_release(b);
    return v;
}

static const struct json *with(const struct json *list, const char *member, const char *text)
{
    for (size_t i = 0; list && i < list->count; i++)
        if (json_is_str(json_get(list->items[i], member), text)) return list->items[i];
    fail_msg("no %s = %s", member, text);
    return NULL;
}

static void test_resources(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(kinds_discovery_resources(&b, "", "v1"), 0);
    struct json *v = parsed(&b), *list = json_get(v, "resources");
    assert_true(json_is_str(json_get(v, "groupVersion"), "v1"));
    assert_string_equal(shown(with(list, "name", "pods")),
                        "{'name':'pods','singularName':'pod','namespaced':true,'kind':'Pod','verbs'"
                        ":['create','delete',"
                        "'deletecollection','get','list','patch','update','watch'],'shortNames':['"
                        "po'],'categories':['all']}");
    assert_string_equal(shown(with(list, "name", "pods/eviction")),
                        "{'name':'pods/"
                        "eviction','singularName':'','namespaced':true,'group':'policy','version':'"
                        "v1','kind':'Eviction','verbs':['create']}");
    assert_string_equal(
        shown(with(list, "name", "pods/binding")),
        "{'name':'pods/"
        "binding','singularName':'','namespaced':true,'kind':'Binding','verbs':['create']}");
    assert_string_equal(
        shown(with(list, "name", "namespaces/finalize")),
        "{'name':'namespaces/"
        "finalize','singularName':'','namespaced':false,'kind':'Namespace','verbs':['update']}");
    for (size_t i = 0; i < list->count; i++)
        assert_false(json_is_str(json_get(list->items[i], "name"), "pods/log"));
    assert_int_equal(kinds_discovery_resources(&b, "apps", "v1"), 0);
    v = parsed(&b);
    assert_string_equal(
        shown(with(json_get(v, "resources"), "name", "deployments/scale")),
        "{'name':'deployments/"
        "scale','singularName':'','namespaced':true,'group':'autoscaling','version':'v1',"
        "'kind':'Scale','verbs':['get','patch','update']}");
    assert_int_equal(kinds_discovery_resources(&b, "discovery.k8s.io", "v1"), 0);
    v = parsed(&b);
    assert_string_equal(shown(json_get(v, "resources")),
                        "[{'name':'endpointslices','singularName':'endpointslice','namespaced':true,"
                        "'kind':'EndpointSlice','verbs':['create','delete','deletecollection','get',"
                        "'list','patch','update','watch']}]");
    assert_int_equal(kinds_discovery_resources(&b, "apps", "v2"), ERR_NOT_FOUND);
    assert_int_equal(b.len, 0);
}

static void test_groups(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(kinds_discovery_groups(&b), 0);
    struct json *v = parsed(&b);
    assert_string_equal(
        shown(json_at(json_get(v, "groups"), 0)),
        "{'name':'apps','versions':[{'groupVersion':'apps/"
        "v1','version':'v1'}],'preferredVersion':{'groupVersion':'apps/v1','version':'v1'}}");
    assert_int_equal(json_get(v, "groups")->count, 3);
    assert_int_equal(kinds_discovery_group(&b, "coordination.k8s.io"), 0);
    v = parsed(&b);
    assert_true(json_is_str(json_get(v, "kind"), "APIGroup"));
    assert_int_equal(kinds_discovery_group(&b, ""), ERR_NOT_FOUND);
    assert_int_equal(kinds_discovery_group(&b, "nope"), ERR_NOT_FOUND);
}

static void test_aggregated(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(kinds_discovery_aggregated(&b, true), 0);
    struct json *v = parsed(&b);
    const struct json *version = json_at(json_get(json_at(json_get(v, "items"), 0), "versions"), 0);
    const struct json *pods = with(json_get(version, "resources"), "resource", "pods");
    assert_true(json_is_str(json_get(pods, "scope"), "Namespaced"));
    assert_string_equal(shown(with(json_get(pods, "subresources"), "subresource", "eviction")),
                        "{'subresource':'eviction','responseKind':{'group':'policy','version':'v1',"
                        "'kind':'Eviction'},'verbs':['create']}");
    assert_int_equal(kinds_discovery_aggregated(&b, false), 0);
    v = parsed(&b);
    assert_int_equal(json_get(v, "items")->count, 3);
}

/* ---- OpenAPI ----------------------------------------------------------------------------------
 */

static size_t references(const struct json *v, const struct json *schemas, const char *prefix)
{
    size_t n = 0;
    if (v->type == JSON_OBJECT) {
        struct slice ref = json_text(json_get(v, "$ref"));
        if (ref.len) {
            assert_true(slice_has_prefix(ref, slice_str(prefix)));
            struct slice name = slice_sub(ref, strlen(prefix), ref.len);
            if (!json_get_slice(schemas, name))
                fail_msg("no %.*s", (int)name.len, (const char *)name.data);
            n++;
        }
        for (size_t i = 0; i < v->count; i++) n += references(v->members[i].value, schemas, prefix);
    }
    for (size_t i = 0; v->type == JSON_ARRAY && i < v->count; i++)
        n += references(v->items[i], schemas, prefix);
    return n;
}

static void test_openapi_v2(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(kinds_openapi_v2_json(&b), 0);
    struct json *v = parsed(&b), *definitions = json_get(v, "definitions");
    assert_true(references(v, definitions, "#/definitions/") > 500);
    const struct json *spec = json_get(definitions, "io.k8s.api.core.v1.PodSpec");
    assert_string_equal(shown(json_path(spec, "properties.containers")),
                        "{'type':'array','items':{'$ref':'#/definitions/"
                        "io.k8s.api.core.v1.Container'},'x-kubernetes-list-type':'map',"
                        "'x-kubernetes-list-map-keys':['name'],'x-kubernetes-patch-merge-key':'"
                        "name','x-kubernetes-patch-strategy':'merge'}");
    assert_string_equal(shown(json_path(spec, "properties.volumes.x-kubernetes-patch-strategy")),
                        "'merge,retainKeys'");
    assert_string_equal(shown(json_get(spec, "required")), "['containers']");
    assert_string_equal(shown(json_get(json_get(definitions, "io.k8s.api.core.v1.Pod"),
                                       "x-kubernetes-group-version-kind")),
                        "[{'group':'','kind':'Pod','version':'v1'}]");
    assert_string_equal(
        shown(json_get(definitions, "io.k8s.apimachinery.pkg.util.intstr.IntOrString")),
        "{'type':'string','format':'int-or-string'}");
    const struct json *patch = json_get(
        json_get(json_get(v, "paths"), "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"),
        "patch");
    assert_string_equal(shown(json_get(patch, "x-kubernetes-group-version-kind")),
                        "{'group':'apps','kind':'Deployment','version':'v1'}");
    assert_non_null(with(json_get(patch, "parameters"), "name", "dryRun"));
    assert_non_null(with(json_get(patch, "parameters"), "name", "fieldValidation"));
    assert_non_null(json_get(json_get(v, "paths"), "/api/v1/nodes/{name}/status"));
    assert_null(json_get(json_get(v, "paths"), "/api/v1/namespaces/{namespace}/nodes"));
}

static void test_openapi_v3(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(kinds_openapi_v3_index(&b), 0);
    struct json *index = json_get(parsed(&b), "paths");
    assert_int_equal(index->count, 4);
    assert_true(
        slice_has_prefix(json_text(json_get(json_get(index, "apis/apps/v1"), "serverRelativeURL")),
                         SLICE_LIT("/openapi/v3/apis/apps/v1?hash=")));
    assert_int_equal(kinds_openapi_v3(&b, "apps", "v1"), 0);
    struct json *v = parsed(&b), *schemas = json_path(v, "components.schemas");
    assert_true(references(v, schemas, "#/components/schemas/") > 200);
    assert_non_null(json_get(schemas, "io.k8s.api.core.v1.PodSpec"));
    assert_null(json_get(schemas, "io.k8s.api.core.v1.Node"));
    const struct json *patch = json_get(
        json_get(json_get(v, "paths"), "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"),
        "patch");
    assert_non_null(with(json_get(patch, "parameters"), "name", "fieldValidation"));
    assert_int_equal(kinds_openapi_v3(&b, "batch", "v1"), ERR_NOT_FOUND);
}

/* A tiny reader of protobuf: the `nth` field `number` of a message. */
static struct slice pb(struct slice m, uint32_t number, size_t nth)
{
    struct reader r = reader_make(m);
    while (reader_left(&r)) {
        uint64_t key = 0, len = 0;
        int shift = 0;
        uint8_t c;
        do c = reader_u8(&r), key |= (uint64_t)(c & 127) << shift, shift += 7;
        while (c & 128);
        shift = 0;
        do c = reader_u8(&r), len |= (uint64_t)(c & 127) << shift, shift += 7;
        while (c & 128);
        assert_false(r.failed);
        if ((key & 7) != 2) continue;
        struct slice value = reader_bytes(&r, (size_t)len);
        assert_false(r.failed);
        if (key >> 3 == number && nth-- == 0) return value;
    }
    return (struct slice){0};
}

static void test_openapi_v2_protobuf(void **state)
{
    (void)state;
    struct buf b = {0}, json = {0};
    assert_int_equal(kinds_openapi_v2_protobuf(&b), 0);
    assert_int_equal(kinds_openapi_v2_json(&json), 0);
    struct json *v = parsed(&json), *definitions = json_get(v, "definitions");
    assert_true(slice_eq_str(pb(buf_slice(&b), 1, 0), "2.0"));
    struct slice all = pb(buf_slice(&b), 9, 0), paths = pb(buf_slice(&b), 8, 0);
    for (size_t i = 0; i < definitions->count; i++) {
        struct slice named = pb(all, 1, i), schema = pb(named, 2, 0);
        const struct json_member *m = &definitions->members[i];
        assert_true(slice_eq(pb(named, 1, 0), m->name));
        const struct json *properties = json_get(m->value, "properties");
        struct slice encoded = pb(schema, 25, 0);
        for (size_t p = 0; properties && p < properties->count; p++) {
            struct slice field = pb(encoded, 1, p), value = pb(field, 2, 0);
            assert_true(slice_eq(pb(field, 1, 0), properties->members[p].name));
            assert_true(slice_eq(pb(value, 1, 0),
                                 json_text(json_get(properties->members[p].value, "$ref"))));
            assert_true(slice_eq(pb(pb(value, 22, 0), 1, 0),
                                 json_text(json_get(properties->members[p].value, "type"))));
        }
    }
    assert_int_equal(pb(all, 1, definitions->count).len, 0);
    const struct json *by_path = json_get(v, "paths");
    for (size_t i = 0; i < by_path->count; i++)
        assert_true(slice_eq(pb(pb(paths, 2, i), 1, 0), by_path->members[i].name));
    buf_release(&b);
}

static void test_without_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1, step = 1;;
         nth += step) { /* thousands of allocations: closely first, then in strides */
        struct buf b = {0};
        mem_fail_nth(nth);
        int rc = kinds_openapi_v2_protobuf(&b);
        bool fired = mem_fail_nth(0);
        buf_release(&b);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        if (!fired) break;
        if (nth > 100) step = 997;
    }
    for (uint64_t nth = 1;; nth++) {
        struct buf b = {0};
        mem_fail_nth(nth);
        int rc = kinds_discovery_aggregated(&b, true);
        bool fired = mem_fail_nth(0);
        buf_release(&b);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        if (!fired) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_resources),      TEST(test_groups),     TEST(test_aggregated),
        TEST(test_openapi_v2),     TEST(test_openapi_v3), TEST(test_openapi_v2_protobuf),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, load_kinds, NULL);
}
