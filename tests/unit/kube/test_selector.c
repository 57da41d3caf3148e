/* Label and field selectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/mem.h"

static const char *const selectable[] = {"metadata.name", "metadata.namespace", "spec.nodeName", "spec.unschedulable",
                                         "status.phase", NULL};
static const struct kind pods = {.group = "", .version = "v1", .kind = "Pod", .plural = "pods", .namespaced = true,
                                 .selectable_fields = selectable};

static const char object_text[] =
    "{\"metadata\":{\"name\":\"web\",\"namespace\":\"default\",\"labels\":{\"app\":\"web\",\"tier\":\"front\",\"n\":\"7\","
    "\"example.com/x\":\"\"}},\"spec\":{\"nodeName\":\"n1\"},\"status\":{\"phase\":\"Running\"}}";

static bool labels_match(const char *text)
{
    struct arena a = {0};
    struct selector s = {0};
    struct json *o;
    struct err e = {0};
    assert_int_equal(json_parse(&a, SLICE_LIT(object_text), 0, &o, NULL), 0);
    int code = selector_parse_labels(&a, slice_str(text), &s, &e);
    if (code) fail_msg("%s: %s", text, e.text);
    bool yes = selector_matches(&s, o);
    arena_release(&a);
    return yes;
}

static void test_labels(void **state)
{
    (void)state;
    static const char *const yes[] = {
        "", " ", "app=web", "app==web", "app = web", "app!=db", "nope!=x", "app", "!nope", "! nope", "app in (web,db)",
        "app in (web)", "app notin (db)", "nope notin (a,b)", "app=web,tier=front", "app=web, tier in (front, back) ,!x",
        "n>6", "n<8", "example.com/x=", "example.com/x", "example.com/x in (,a)", "app notin (db,cache),n>0"};
    static const char *const no[] = {"app=db", "app!=web", "nope", "!app", "app in (db)", "app notin (web)", "nope=x",
                                     "nope in (x)", "app=web,tier=back", "n>7", "n<7", "app>1", "nope>1", "app="};
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
        if (!labels_match(yes[i])) fail_msg("%s does not match", yes[i]);
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
        if (labels_match(no[i])) fail_msg("%s matches", no[i]);
    }
}

static void test_bad_labels(void **state)
{
    (void)state;
    static const char *const bad[] = {"=", "app=web,", ",app", "app in", "app in web", "app in (web", "app in (web db)", "!app=x",
                                      "app===x", "app=a b", "a b", "app>x", "(a)", "app notin", "-bad=x", "app=-bad", "a/b/c=x",
                                      "app=web;x", "app in ()x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct arena a = {0};
        struct selector s = {0};
        struct err e = {0};
        if (selector_parse_labels(&a, slice_str(bad[i]), &s, &e) != ERR_INVALID) fail_msg("%s was taken", bad[i]);
        assert_true(e.text[0] != 0);
        arena_release(&a);
    }
}

static bool fields_of(const struct kind *k, const char *object, const char *text)
{
    struct arena a = {0};
    struct selector s = {0};
    struct json *o;
    struct err e = {0};
    assert_int_equal(json_parse(&a, slice_str(object), 0, &o, NULL), 0);
    int code = selector_parse_fields(&a, slice_str(text), k, &s, &e);
    if (code) fail_msg("%s: %s", text, e.text);
    bool yes = selector_matches(&s, o);
    arena_release(&a);
    return yes;
}

static bool fields_match(const char *text)
{
    return fields_of(&pods, object_text, text);
}

static void test_source_of_events(void **state)
{
    (void)state;
    static const char *const fields[] = {"source", NULL};
    static const struct kind events = {.group = "", .version = "v1", .kind = "Event", .plural = "events", .namespaced = true,
                                       .selectable_fields = fields};
    static const char old[] = "{\"source\":{\"component\":\"kubelet\",\"host\":\"n1\"},\"reportingComponent\":\"x\"}";
    static const char new[] = "{\"source\":{},\"reportingComponent\":\"scheduler\"}";
    assert_true(fields_of(&events, old, "source=kubelet"));
    assert_false(fields_of(&events, old, "source=x"));
    assert_true(fields_of(&events, new, "source=scheduler"));
    assert_false(fields_of(&events, new, "source="));
    assert_true(fields_of(&events, "{}", "source=,source!=kubelet"));
}

static void test_fields(void **state)
{
    (void)state;
    assert_true(fields_match(""));
    assert_true(fields_match("metadata.name=web"));
    assert_true(fields_match("metadata.name==web,spec.nodeName=n1"));
    assert_true(fields_match("status.phase!=Pending,status.phase!=Failed"));
    assert_true(fields_match("spec.unschedulable=false"));
    assert_false(fields_match("spec.unschedulable=true"));
    assert_false(fields_match("metadata.name=we"));
    assert_false(fields_match("spec.nodeName="));
    assert_true(fields_match("metadata.name!=a\\,b"));
    assert_false(fields_match("metadata.name=web\\\\"));
}

static void test_bad_fields(void **state)
{
    (void)state;
    static const char *const bad[] = {"metadata.name", "spec.x=1", "=x", "metadata.name=a\\x", "metadata.name>a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct arena a = {0};
        struct selector s = {0};
        struct err e = {0};
        if (selector_parse_fields(&a, slice_str(bad[i]), &pods, &s, &e) != ERR_INVALID) fail_msg("%s was taken", bad[i]);
        arena_release(&a);
    }
}

static void test_fixed(void **state)
{
    (void)state;
    struct arena a = {0};
    struct selector s = {0};
    assert_int_equal(selector_parse_fields(&a, SLICE_LIT("metadata.name=a,metadata.namespace!=b"), &pods, &s, NULL), 0);
    assert_true(slice_eq_str(selector_fixed(&s, "metadata.name"), "a"));
    assert_int_equal(selector_fixed(&s, "metadata.namespace").len, 0);
    arena_release(&a);
}

static void test_limits(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf b = {0};
    struct selector s = {0};
    struct err e;
    for (int i = 0; i < LIMIT_SELECTOR_REQUIREMENTS + 1; i++) buf_printf(&b, "%sk%d=v", i ? "," : "", i);
    assert_int_equal(selector_parse_labels(&a, buf_slice(&b), &s, &e), ERR_LIMIT);
    buf_clear(&b);
    buf_append_str(&b, "k in (");
    for (int i = 0; i < LIMIT_SELECTOR_REQUIREMENTS; i++) buf_append_str(&b, "a,");
    buf_append_str(&b, "b,b)");
    s = (struct selector){0};
    assert_int_equal(selector_parse_labels(&a, buf_slice(&b), &s, &e), ERR_LIMIT);
    buf_release(&b);
    arena_release(&a);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 20; n++) {
        struct arena a = {0};
        struct selector s = {0};
        mem_fail_nth(n);
        int code = selector_parse_labels(&a, SLICE_LIT("a in (b,c,d),e=f"), &s, NULL);
        if (!code) code = selector_parse_fields(&a, SLICE_LIT("metadata.name=a\\,b"), &pods, &s, NULL);
        bool fired = mem_fail_nth(0);
        assert_int_equal(code, fired ? ERR_NOMEM : 0);
        arena_release(&a);
        if (!fired) return;
    }
    fail();
}

static void test_format(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf b = {0};
    struct json *v;
    assert_int_equal(json_parse(&a, SLICE_LIT("{\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"},\"matchExpressions\":[{\"key\":\"e\","
                                              "\"operator\":\"In\",\"values\":[\"f\",\"g\"]},{\"key\":\"h\",\"operator\":"
                                              "\"DoesNotExist\"},{\"key\":\"i\",\"operator\":\"Exists\"}]}"), 0, &v, NULL), 0);
    assert_int_equal(selector_format(&b, v), 0);
    assert_string_equal(buf_cstr(&b), "a=b,c=d,e in (f,g),!h,i");
    buf_release(&b);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels),     cmocka_unit_test(test_bad_labels), cmocka_unit_test(test_fields),
        cmocka_unit_test(test_bad_fields), cmocka_unit_test(test_fixed),      cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_format),     cmocka_unit_test(test_source_of_events),
    };
    return cmocka_run_group_tests_name("kube selectors", tests, NULL, NULL);
}
