/* Quantities, names and the loading of tables. */
#include "tests/unit/kinds/kinds_test.h"

#include "schemas/kube/kinds_int.h"

static void test_quantities(void **state)
{
    (void)state;
    static const struct {
        const char *text, *canonical; /* NULL: refused */
        int64_t milli;
    } cases[] = {
        {"0", "0", 0},
        {"1", "1", 1000},
        {"100m", "100m", 100},
        {"0.1", "100m", 100},
        {"1.5", "1500m", 1500},
        {"1000", "1k", 1000000},
        {"1024", "1024", 1024000},
        {"1Ki", "1Ki", 1024000},
        {"1024Ki", "1Mi", 1048576000},
        {"1.5Gi", "1536Mi", 1610612736000},
        {"100000", "100k", 100000000},
        {"1e3", "1e3", 1000000},
        {"12E2", "1200", 1200000},
        {"1u", "1u", 1},
        {"1n", "1n", 1},
        {"0.0000000001", "1n", 1},
        {"-1", "-1", -1000},
        {"+5", "5", 5000},
        {"500Ki", "500Ki", 512000000},
        {"1.7Ki", "1740800m", 1740800},
        {"0.5Ki", "512", 512000},
        {"1000m", "1", 1000},
        {"0.5", "500m", 500},
        {"1E", "1E", INT64_MAX},
        {"1500M", "1500M", 1500000000000},
        {".5", "500m", 500},
        {"5.", "5", 5000},
        {"1023Ki", "1023Ki", 1047552000},
        {"99999999999999999999", "99999999999999999999", INT64_MAX},
        {"99999Ei", "9223372036854775807", INT64_MAX},
        {"", NULL, 0},
        {".", NULL, 0},
        {"1.2.3", NULL, 0},
        {"1KB", NULL, 0},
        {"m", NULL, 0},
        {"1 ", NULL, 0},
        {" 1", NULL, 0},
        {"1e", NULL, 0},
        {"0x1", NULL, 0},
        {"--1", NULL, 0},
        {"1ki", NULL, 0},
        {"NaN", NULL, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice canonical = {0};
        int64_t milli = 0;
        int rc = quantity_canonical(&arena, slice_str(cases[i].text), &canonical);
        bool parsed = quantity_parse(slice_str(cases[i].text), &milli);
        if (!cases[i].canonical) {
            if (rc != ERR_INVALID || parsed) fail_msg("%s was taken", cases[i].text);
            continue;
        }
        if (rc || !slice_eq_str(canonical, cases[i].canonical) || milli != cases[i].milli)
            fail_msg("%s: %.*s, %lld", cases[i].text, (int)canonical.len,
                     (const char *)canonical.data, (long long)milli);
    }
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text, *canonical;
        int64_t seconds;
    } cases[] = {
        {"1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 0},
        {"2000-02-29T12:34:56Z", "2000-02-29T12:34:56Z", 951827696},
        {"2026-11-20T21:03:25.123456789Z", "2026-11-20T21:03:25Z", 1795208605},
        {"2026-11-20T23:03:25+02:00", "2026-11-20T21:03:25Z", 1795208605},
        {"2026-12-31T20:00:00-05:00", "2027-01-01T01:00:00Z", 1798765200},
        {"1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z", -1},
        {"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", -62135596800},
        {"9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", 253402300799},
        {"2023-02-29T00:00:00Z", NULL, 0},
        {"2023-13-01T00:00:00Z", NULL, 0},
        {"2023-01-01", NULL, 0},
        {"2023-01-01T24:00:00Z", NULL, 0},
        {"2023-01-01T00:00:00", NULL, 0},
        {"2023-01-01 00:00:00Z", NULL, 0},
        {"2023-01-01T00:00:00.Z", NULL, 0},
        {"", NULL, 0},
        {"2023-01-01T00:00:00+0200", NULL, 0},
        {"2023-01-01T00:00:00Zx", NULL, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice out = {0};
        int64_t s = 0;
        int rc = time_canonical(&arena, slice_str(cases[i].text), false, &out);
        if (!cases[i].canonical) {
            if (rc != ERR_INVALID) fail_msg("%s was taken", cases[i].text);
            continue;
        }
        assert_true(time_parse(slice_str(cases[i].text), &s, NULL));
        if (rc || !slice_eq_str(out, cases[i].canonical) || s != cases[i].seconds)
            fail_msg("%s: %.*s %lld", cases[i].text, (int)out.len, (const char *)out.data,
                     (long long)s);
    }
    struct slice micro;
    assert_int_equal(time_canonical(&arena, SLICE_LIT("2026-11-20T21:03:25.5Z"), true, &micro), 0);
    assert_true(slice_eq_str(micro, "2026-11-20T21:03:25.500000Z"));
}

static void test_base64(void **state)
{
    (void)state;
    size_t at;
    assert_true(base64_is_valid(SLICE_LIT(""), &at));
    assert_true(base64_is_valid(SLICE_LIT("aGVsbG8="), &at));
    assert_int_equal(base64_decoded_length(SLICE_LIT("aGVsbG8=")), 5);
    assert_false(base64_is_valid(SLICE_LIT("aGVsbG8"), &at));
    assert_false(base64_is_valid(SLICE_LIT("aG!sbG8="), &at));
    assert_int_equal(at, 2);
    assert_false(base64_is_valid(SLICE_LIT("a==="), &at));
}

static void test_names(void **state)
{
    (void)state;
    char label[65];
    memset(label, 'a', 64);
    label[64] = 0;
    assert_true(name_is_dns1123_label(SLICE_LIT("my-name1")));
    assert_false(name_is_dns1123_label(SLICE_LIT("My")));
    assert_false(name_is_dns1123_label(SLICE_LIT("-a")));
    assert_false(name_is_dns1123_label(SLICE_LIT("a.b")));
    assert_false(name_is_dns1123_label(SLICE_LIT("")));
    assert_true(name_is_dns1123_label(slice_make(label, 63)));
    assert_false(name_is_dns1123_label(slice_make(label, 64)));
    assert_true(name_is_dns1123_subdomain(SLICE_LIT("a.b-c.d")));
    assert_false(name_is_dns1123_subdomain(SLICE_LIT("a..b")));
    assert_false(name_is_dns1123_subdomain(SLICE_LIT("a.")));
    assert_true(name_is_qualified(SLICE_LIT("example.com/My_Name.x")));
    assert_true(name_is_qualified(SLICE_LIT("app")));
    assert_false(name_is_qualified(SLICE_LIT("a/b/c")));
    assert_false(name_is_qualified(SLICE_LIT("/b")));
    assert_false(name_is_qualified(SLICE_LIT("Example.com/b")));
    assert_false(name_is_qualified(SLICE_LIT("a b")));
    assert_true(label_value_is_valid(SLICE_LIT("")));
    assert_true(label_value_is_valid(SLICE_LIT("1.2_3-X")));
    assert_false(label_value_is_valid(SLICE_LIT("-x")));
}

/* ---- tables -----------------------------------------------------------------------------------
 */

static void test_the_embedded_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *api_version, *kind, *plural, *storage;
        bool namespaced;
        unsigned subresources;
    } want[] = {
        {"v1", "Namespace", "namespaces", "namespaces", false, KIND_STATUS | KIND_FINALIZE},
        {"v1", "Node", "nodes", "minions", false, KIND_STATUS},
        {"v1", "Pod", "pods", "pods", true, KIND_STATUS | KIND_BINDING | KIND_EVICTION},
        {"v1", "Service", "services", "services/specs", true, KIND_STATUS},
        {"v1", "Endpoints", "endpoints", "services/endpoints", true, 0},
        {"v1", "ConfigMap", "configmaps", "configmaps", true, 0},
        {"v1", "Secret", "secrets", "secrets", true, 0},
        {"v1", "ServiceAccount", "serviceaccounts", "serviceaccounts", true, 0},
        {"v1", "Event", "events", "events", true, 0},
        {"coordination.k8s.io/v1", "Lease", "leases", "leases", true, 0},
        {"discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "endpointslices", true, 0},
        {"apps/v1", "ReplicaSet", "replicasets", "replicasets", true, KIND_STATUS | KIND_SCALE},
        {"apps/v1", "Deployment", "deployments", "deployments", true, KIND_STATUS | KIND_SCALE},
    };
    assert_int_equal(kinds_count(), sizeof(want) / sizeof(want[0]));
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        const struct kind *k =
            kind_by_name(slice_str(want[i].api_version), slice_str(want[i].kind));
        assert_non_null(k);
        assert_string_equal(k->plural, want[i].plural);
        assert_string_equal(k->storage_prefix, want[i].storage);
        assert_int_equal(k->namespaced, want[i].namespaced);
        assert_int_equal(k->subresources, want[i].subresources);
        assert_string_equal(k->selectable_fields[0], "metadata.name");
        assert_ptr_equal(
            kind_by_resource(slice_str(k->group), slice_str(k->version), slice_str(k->plural)), k);
    }
    assert_null(kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Deployment")));
    assert_null(kind_by_resource(SLICE_LIT("apps"), SLICE_LIT("v1"), SLICE_LIT("pods")));
    assert_null(kinds_at(kinds_count()));
    /* a few of all the fields */
    const struct kind_type *spec = kind_type_named("PodSpec");
    assert_int_equal(spec->n_fields, 40);
    const struct kind_field *f = kind_field_find(spec, SLICE_LIT("containers"));
    assert_string_equal(f->merge_key, "name");
    assert_true((f->flags & FIELD_REQUIRED) && (f->flags & FIELD_MERGE));
    assert_null(kind_field_find(spec, SLICE_LIT("")));
    assert_null(kind_field_find(spec, SLICE_LIT("container")));
}

static int load_text(struct arena *a, const char *text, struct err *e)
{
    struct kinds_source source = {"t.kinds", slice_str(text)};
    struct kinds_tables tables;
    return kinds_load_from(a, &source, 1, &tables, e);
}

#define HEAD "group core\nversion v1\npackage p\n"

static void test_bad_data_is_refused_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"type A\n", "t.kinds:1: group, version and package come first: type"},
        {"grope core\n", "t.kinds:1: unknown word: grope"},
        {"group\n", "t.kinds:1: a word is missing behind: group"},
        {"  a string\n", "t.kinds:1: an indented line outside of a type or kind:   a string"},
        {HEAD "type A\n  a strnig\n", "t.kinds:5: unknown type: strnig"},
        {HEAD "type A\n  a\n", "t.kinds:5: a field has a name and a type: a"},
        {HEAD "type A\n  a string\n  a bool\n", "t.kinds:6: field twice: a"},
        {HEAD "type A\ntype A\n", "t.kinds:5: type twice: A"},
        {HEAD "type A\n  a B\n", "type A, field a: unknown type B"},
        {HEAD "type A\n  a string shiny\n", "t.kinds:5: unknown word: shiny"},
        {HEAD "type A\n  a string required=yes\n", "t.kinds:5: unknown word: required=yes"},
        {HEAD "type A\n  a int32 min=x\n", "t.kinds:5: not a number: x"},
        {HEAD "type A\n  a int32 min=\n", "t.kinds:5: not a number: "},
        {HEAD "type A\n  a string default={\n", "t.kinds:5: the default is no JSON: {"},
        {HEAD "type A\n  a string enum=A||B\n", "t.kinds:5: empty part: B"},
        {HEAD "type A\n  a string format=colour\n", "t.kinds:5: unknown format: colour"},
        {HEAD "type A check=nothing\n", "t.kinds:4: no such function: nothing"},
        {HEAD "kind A\n  scope galaxy\n", "t.kinds:5: a scope is namespaced or cluster: galaxy"},
        {HEAD "kind A\n  subresources moon\n", "t.kinds:5: unknown subresource: moon"},
        {HEAD "kind A\n  column A string - @nothing\n", "t.kinds:5: unknown cell: @nothing"},
        {HEAD "kind A\n  column A string\n",
         "t.kinds:5: a column has a name, a type, a format and a cell: column"},
        {HEAD "kind A\n  column \"A\n", "t.kinds:5: quote without its end:   column \"A"},
        {HEAD "kind A\n  plural as\n", "kind A: its type, plural or storage is missing"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err e = {0};
        assert_int_equal(load_text(&arena, bad[i].text, &e), ERR_INVALID);
        assert_string_equal(e.text, bad[i].says);
    }
}

/* Any change of one byte is loaded or refused, but never more. */
static void test_damaged_data(void **state)
{
    (void)state;
    struct kinds_source apps = kinds_embedded(4), meta = kinds_embedded(0);
    uint8_t *copy = mem_must_alloc(apps.text.len);
    unsigned refused = 0;
    for (size_t i = 0; i < apps.text.len; i++) {
        struct arena a = {0};
        struct err e = {0};
        memcpy(copy, apps.text.data, apps.text.len);
        copy[i] = (uint8_t)(i % 3 ? '"' : copy[i] ^ (1 << (i % 8)));
        struct kinds_source sources[] = {meta, {"apps", {copy, i % 2 ? apps.text.len : i}}};
        struct kinds_tables tables;
        refused += kinds_load_from(&a, sources, 2, &tables, &e) != 0;
        arena_release(&a);
    }
    assert_true(refused > 100);
    mem_free(copy);
}

static void test_loading_without_memory(void **state)
{
    (void)state;
    struct kinds_source sources[16];
    size_t n = kinds_embedded_count();
    for (size_t i = 0; i < n; i++) sources[i] = kinds_embedded(i);
    for (uint64_t nth = 1;; nth++) {
        struct arena a = {0};
        struct kinds_tables tables = {0};
        mem_fail_nth(nth);
        int rc = kinds_load_from(&a, sources, n, &tables, NULL);
        bool fired = mem_fail_nth(0);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        arena_release(&a);
        if (!fired) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_quantities),
        TEST(test_times),
        TEST(test_base64),
        TEST(test_names),
        TEST(test_the_embedded_kinds),
        TEST(test_bad_data_is_refused_with_its_line),
        TEST(test_damaged_data),
        TEST(test_loading_without_memory),
    };
    return cmocka_run_group_tests(tests, load_kinds, NULL);
}
