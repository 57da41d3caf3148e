/* Strategic merge patches. */
#include "tests/unit/kinds/kinds_test.h"

static void check_merge(const char *api_version, const char *kind, const char *original,
                        const char *patch, const char *want)
{
    struct json *v = parse(original);
    struct json *p = parse(patch), *before = json_clone(&arena, p);
    struct err e = {0};
    int rc = kind_strategic_merge(&arena, kind_by_name(slice_str(api_version), slice_str(kind)), v,
                                  p, &e);
    if (rc) fail_msg("%s: %s", patch, e.text);
    assert_string_equal(shown(v), want);
    assert_true(json_equal(p, before)); /* the patch may be used again */
}

static void pod(const char *original, const char *patch, const char *want)
{
    check_merge("v1", "Pod", original, patch, want);
}

static void refused(const char *original, const char *patch, const char *says)
{
    struct json *v = parse(original);
    struct err e = {0};
    int rc = kind_strategic_merge(&arena, kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Pod")), v,
                                  parse(patch), &e);
    assert_int_equal(rc, ERR_INVALID);
    if (!strstr(e.text, says)) assert_string_equal(e.text, says);
}

#define C(list) "{'spec':{'containers':[" list "]}}"

static void test_objects_and_scalars(void **state)
{
    (void)state;
    pod("{'a':1,'metadata':{'labels':{'x':'1','y':'2'}}}",
        "{'metadata':{'labels':{'y':null,'z':'3'}}}",
        "{'a':1,'metadata':{'labels':{'x':'1','z':'3'}}}");
    pod("{'spec':{'nodeName':'a'}}", "{'spec':{'nodeName':'b','hostNetwork':true}}",
        "{'spec':{'nodeName':'b','hostNetwork':true}}");
    pod("{}", "{'metadata':{'labels':{'x':null,'y':'1'}}}", "{'metadata':{'labels':{'y':'1'}}}");
    pod("{'spec':{'securityContext':{'runAsUser':1,'fsGroup':2}}}",
        "{'spec':{'securityContext':{'$patch':'replace','fsGroup':3}}}",
        "{'spec':{'securityContext':{'fsGroup':3}}}");
    pod("{'spec':{'securityContext':{'runAsUser':1}}}",
        "{'spec':{'securityContext':{'$patch':'delete'}}}", "{'spec':{'securityContext':{}}}");
    /* with nothing to replace or delete, $patch says nothing */
    pod("{'spec':{}}",
        "{'spec':{'nodeSelector':{'$patch':'replace','a':'b'},'securityContext':{'$patch':'delete'}"
        "}}",
        "{'spec':{}}");
    pod("{'spec':{'nodeSelector':{'a':'b'}}}", "{'spec':{'nodeSelector':null}}", "{'spec':{}}");
}

static void test_lists_with_a_key(void **state)
{
    (void)state;
    /* changed in place, added before what only the server has */
    pod(C("{'name':'a','image':'1'},{'name':'b','image':'1'}"), C("{'name':'b','image':'2'}"),
        C("{'name':'a','image':'1'},{'name':'b','image':'2'}"));
    pod(C("{'name':'a','image':'1'}"), C("{'name':'b','image':'2'}"),
        C("{'name':'b','image':'2'},{'name':'a','image':'1'}"));
    pod(C("{'name':'a'},{'name':'b'},{'name':'c'}"), C("{'name':'b','$patch':'delete'}"),
        C("{'name':'a'},{'name':'c'}"));
    pod(C("{'name':'a'},{'name':'b'}"), C("{'$patch':'replace'},{'name':'x','image':'i'}"),
        C("{'name':'x','image':'i'}"));
    pod("{'spec':{}}", C("{'name':'b','$patch':'delete'},{'name':'c','command':null}"),
        C("{'name':'c'}"));
    /* keys that are numbers, lists in lists */
    pod(C("{'name':'a','ports':[{'containerPort':80,'name':'x'},{'containerPort':81}]}"),
        C("{'name':'a','ports':[{'containerPort':80,'name':'y'}]}"),
        C("{'name':'a','ports':[{'containerPort':80,'name':'y'},{'containerPort':81}]}"));
    pod(C("{'name':'a','env':[{'name':'X','value':'1'}]}"),
        C("{'name':'a','env':[{'name':'X','value':'2'},{'name':'Y','value':'3'}]}"),
        C("{'name':'a','env':[{'name':'X','value':'2'},{'name':'Y','value':'3'}]}"));
    /* no merge strategy: replaced */
    pod(C("{'name':'a','command':['x','y']}"), C("{'name':'a','command':['z']}"),
        C("{'name':'a','command':['z']}"));
    pod("{'spec':{'tolerations':[{'key':'a'}]}}", "{'spec':{'tolerations':[{'key':'b'}]}}",
        "{'spec':{'tolerations':[{'key':'b'}]}}");
    /* conditions of a status, by type */
    pod("{'status':{'conditions':[{'type':'Ready','status':'False'},{'type':'PodScheduled','status'"
        ":'True'}]}}",
        "{'status':{'conditions':[{'type':'Ready','status':'True'}]}}",
        "{'status':{'conditions':[{'type':'Ready','status':'True'},{'type':'PodScheduled','status':"
        "'True'}]}}");
}

static void test_element_order(void **state)
{
    (void)state;
    pod(C("{'name':'a'},{'name':'b'},{'name':'c'}"),
        "{'spec':{'$setElementOrder/containers':[{'name':'c'},{'name':'a'},{'name':'b'}]}}",
        C("{'name':'c'},{'name':'a'},{'name':'b'}"));
    pod(C("{'name':'a','image':'1'},{'name':'b','image':'1'}"),
        "{'spec':{'$setElementOrder/containers':[{'name':'b'},{'name':'n'},{'name':'a'}],"
        "'containers':[{'name':'n','image':'new'},{'name':'a','image':'2'}]}}",
        C("{'name':'b','image':'1'},{'name':'n','image':'new'},{'name':'a','image':'2'}"));
    /* what only the server has keeps its place before what stood behind it */
    pod(C("{'name':'injected'},{'name':'a'},{'name':'b'}"),
        "{'spec':{'$setElementOrder/"
        "containers':[{'name':'b'},{'name':'a'}],'containers':[{'name':'b','image':'2'}]}}",
        C("{'name':'injected'},{'name':'b','image':'2'},{'name':'a'}"));
    pod(C("{'name':'a'}"),
        "{'spec':{'$setElementOrder/"
        "containers':[{'name':'a'}],'containers':[{'name':'gone','$patch':'delete'}]}}",
        C("{'name':'a'}"));
    refused(C("{'name':'a'}"),
            "{'spec':{'$setElementOrder/containers':[{'name':'a'},{'name':'b'}],"
            "'containers':[{'name':'b'},{'name':'a'}]}}",
            "does not match its $setElementOrder list");
    refused(C("{'name':'a'}"), "{'spec':{'$setElementOrder/containers':{'a':1}}}",
            "a directive that is no list");
}

static void test_lists_of_scalars(void **state)
{
    (void)state;
    pod("{'metadata':{'finalizers':['a','b']}}", "{'metadata':{'finalizers':['b','c']}}",
        "{'metadata':{'finalizers':['a','b','c']}}");
    pod("{'metadata':{'finalizers':['a','b','c']}}",
        "{'metadata':{'$deleteFromPrimitiveList/finalizers':['b','x']}}",
        "{'metadata':{'finalizers':['a','c']}}");
    pod("{'metadata':{'finalizers':['a','b','c']}}",
        "{'metadata':{'$deleteFromPrimitiveList/finalizers':['a'],'$setElementOrder/"
        "finalizers':['c','b','d'],'finalizers':['d']}}",
        "{'metadata':{'finalizers':['c','b','d']}}");
}

static void test_retain_keys(void **state)
{
    (void)state;
    check_merge("apps/v1", "Deployment",
                "{'spec':{'replicas':1,'strategy':{'type':'RollingUpdate','rollingUpdate':{'"
                "maxSurge':1}}}}",
                "{'spec':{'strategy':{'$retainKeys':['type'],'type':'Recreate'}}}",
                "{'spec':{'replicas':1,'strategy':{'type':'Recreate'}}}");
    pod("{'spec':{'volumes':[{'name':'v','emptyDir':{}},{'name':'w','emptyDir':{}}]}}",
        "{'spec':{'volumes':[{'name':'v','$retainKeys':['name','hostPath'],'hostPath':{'path':'/"
        "'}}]}}",
        "{'spec':{'volumes':[{'name':'v','hostPath':{'path':'/'}},{'name':'w','emptyDir':{}}]}}");
    refused("{'spec':{}}", "{'spec':{'$retainKeys':['a'],'b':1}}",
            "$retainKeys does not name every field");
}

static void test_bad_patches(void **state)
{
    (void)state;
    refused(C("{'name':'a'}"), C("{'image':'x'}"), "does not contain declared merge key name");
    refused(C("{'name':'a'}"), C("{'name':'a','$patch':'explode'}"), "unknown $patch in a list");
    refused(C("{'name':'a'}"), C("'a'"), "does not contain declared merge key name");
    refused("{'spec':{'nodeSelector':{}}}", "{'spec':{'nodeSelector':{'$patch':'explode'}}}",
            "unknown $patch");
    refused("{'spec':{}}", "{'spec':{'$retainKeys':'all'}}", "$retainKeys is no list");
    refused("{'metadata':{'finalizers':['a']}}", "{'metadata':{'finalizers':[{}]}}", "scalar");
    refused("{}", "[]", "an object can only be merged with an object");
}

static void test_unknown_fields_are_merged_plainly(void **state)
{
    (void)state;
    pod("{'spec':{'foo':{'a':1},'bar':[1]}}", "{'spec':{'foo':{'b':2},'bar':[2]}}",
        "{'spec':{'foo':{'a':1,'b':2},'bar':[2]}}");
}

/* Lists of 50,000 items with a key: a quadratic merge would take many seconds. */
static void test_long_lists(void **state)
{
    (void)state;
    struct buf x = {0}, y = {0};
    buf_append_str(&x, "{'spec':{'containers':[");
    buf_append_str(&y, "{'spec':{'containers':[");
    for (int i = 0; i < 50000; i++) {
        buf_printf(&x, "%s{'name':'c%d'}", i ? "," : "", i);
        buf_printf(&y, "%s{'name':'c%d','image':'i'}", i ? "," : "", 50000 - i);
    }
    buf_append_str(&x, "]}}");
    buf_append_str(&y, "]}}");
    struct json *v = parse(buf_cstr(&x));
    struct err e;
    assert_int_equal(kind_strategic_merge(&arena, kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Pod")),
                                          v, parse(buf_cstr(&y)), &e),
                     0);
    assert_int_equal(json_path(v, "spec.containers")->count, 50001);
    buf_release(&x);
    buf_release(&y);
}

static void test_without_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct arena a = {0};
        mem_fail_nth(nth);
        struct json *v = parse_in(&a, "{'metadata':{'finalizers':['a']},'spec':{'containers':[{'"
                                      "name':'a'},{'name':'b'}],'nodeSelector':{'q':'r'}}}");
        struct json *p = v ? parse_in(&a, "{'metadata':{'finalizers':['b']},'spec':{'$"
                                          "setElementOrder/containers':[{'name':'b'},{'name':'a'}],"
                                          "'containers':[{'name':'a','env':[{'name':'x','value':"
                                          "null}],'resources':{'limits':{'cpu':'1'}}}],"
                                          "'nodeSelector':{'$retainKeys':['z'],'z':'1'}}}")
                           : NULL;
        struct err e;
        int rc =
            p ? kind_strategic_merge(&a, kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Pod")), v, p, &e)
              : ERR_NOMEM;
        bool fired = mem_fail_nth(0);
        arena_release(&a);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        if (!fired) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_objects_and_scalars),
        TEST(test_lists_with_a_key),
        TEST(test_element_order),
        TEST(test_lists_of_scalars),
        TEST(test_retain_keys),
        TEST(test_bad_patches),
        TEST(test_unknown_fields_are_merged_plainly),
        TEST(test_long_lists),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, load_kinds, NULL);
}
