/* Tables: what kubectl get shows. */
#include "tests/unit/kinds/kinds_test.h"

#include "base/clock.h"

#define NOW 1795208605 /* 2026-11-20T21:03:25Z */

static void cells(const char *object, const char *want)
{
    struct json *v = parse(object), *out;
    assert_int_equal(kind_table_cells(&arena, kind_of(v), v, NOW, &out), 0);
    assert_string_equal(shown(out), want);
}

static void columns(const char *api_version, const char *kind, const char *want)
{
    struct json *list;
    struct buf b = {0};
    assert_int_equal(
        kind_table_columns(&arena, kind_by_name(slice_str(api_version), slice_str(kind)), &list),
        0);
    for (size_t i = 0; i < list->count; i++) {
        struct slice name = json_text(json_get(list->items[i], "name"));
        buf_printf(&b, "%s%.*s%s", i ? "|" : "", (int)name.len, (const char *)name.data,
                   json_path_int(list->items[i], "priority", 9) ? "+" : "");
    }
    assert_string_equal(buf_cstr(&b), want);
    buf_release(&b);
}

static void test_columns(void **state)
{
    (void)state;
    columns("v1", "Pod",
            "Name|Ready|Status|Restarts|Age|IP+|Node+|Nominated Node+|Readiness Gates+");
    columns("apps/v1", "Deployment",
            "Name|Ready|Up-to-date|Available|Age|Containers+|Images+|Selector+");
    columns("apps/v1", "ReplicaSet",
            "Name|Desired|Current|Ready|Age|Containers+|Images+|Selector+");
    columns("v1", "Service", "Name|Type|Cluster-IP|External-IP|Port(s)|Age|Selector+");
    columns("v1", "Node",
            "Name|Status|Roles|Age|Version|Internal-IP+|External-IP+|OS-Image+|Kernel-Version+|"
            "Container-Runtime+");
    columns("v1", "Event",
            "Last Seen|Type|Reason|Object|Subobject+|Source+|Message|First Seen+|Count+|Name+");
    columns("v1", "Namespace", "Name|Status|Age");
    columns("v1", "Secret", "Name|Type|Data|Age");
    columns("v1", "ConfigMap", "Name|Data|Age");
    columns("v1", "Endpoints", "Name|Endpoints|Age");
    columns("v1", "ServiceAccount", "Name|Secrets|Age");
    columns("coordination.k8s.io/v1", "Lease", "Name|Holder|Age");
    columns("discovery.k8s.io/v1", "EndpointSlice", "Name|AddressType|Ports|Endpoints|Age");
    struct json *list;
    assert_int_equal(
        kind_table_columns(&arena, kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Pod")), &list), 0);
    assert_string_equal(
        shown(list->items[0]),
        "{'name':'Name','type':'string','format':'name','description':'','priority':0}");
}

static void test_ages(void **state)
{
    (void)state;
    static const struct {
        long ago;
        const char *text;
    } cases[] = {
        {-5, "<invalid>"},
        {-1, "0s"},
        {0, "0s"},
        {119, "119s"},
        {120, "2m"},
        {125, "2m5s"},
        {599, "9m59s"},
        {600, "10m"},
        {3600 * 3 - 1, "179m"},
        {3600 * 3, "3h"},
        {3600 * 3 + 300, "3h5m"},
        {3600 * 8, "8h"},
        {3600 * 48 - 1, "47h"},
        {3600 * 48, "2d"},
        {3600 * 51, "2d3h"},
        {86400 * 8, "8d"},
        {86400 * 729, "729d"},
        {86400 * 730, "2y"},
        {86400 * 731, "2y1d"},
        {86400L * 365 * 9, "9y"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct json *v = parse("{'apiVersion':'v1','kind':'ServiceAccount','metadata':{'name':'x','"
                               "creationTimestamp':'2026-11-20T21:03:25Z'}}"),
                    *out;
        assert_int_equal(kind_table_cells(&arena, kind_of(v), v, NOW + cases[i].ago, &out), 0);
        if (!json_is_str(json_at(out, 2), cases[i].text))
            fail_msg("%ld: %s", cases[i].ago, shown(out));
    }
    cells("{'apiVersion':'v1','kind':'ServiceAccount','metadata':{'name':'x'},'secrets':[{}]}",
          "['x',1,'<unknown>']");
}

#define POD(meta, spec, status)                                                                    \
    "{'apiVersion':'v1','kind':'Pod','metadata':{'name':'p'" meta                                  \
    "},'spec':{'containers':[{'name':'a'},{'name':'b'}]" spec "},'status':{" status "}}"
#define REST ",'<unknown>','<none>','<none>','<none>','<none>']"

static void test_pods(void **state)
{
    (void)state;
    cells(POD("", "", "'phase':'Pending'"), "['p','0/2','Pending','0'" REST);
    cells(
        POD("", ",'nodeName':'n'",
            "'phase':'Running','podIPs':[{'ip':'10.0.0.1'}],'containerStatuses':[{'ready':true,'"
            "restartCount':1,'state':{'running':{}},"
            "'lastState':{'terminated':{'finishedAt':'2026-11-20T21:00:25Z'}}},{'ready':false,'"
            "restartCount':2,'state':{'waiting':{'reason':'CrashLoopBackOff'}}}]"),
        "['p','1/2','CrashLoopBackOff','3 (3m ago)','<unknown>','10.0.0.1','n','<none>','<none>']");
    cells(POD("", "", "'phase':'Failed','reason':'Evicted'"), "['p','0/2','Evicted','0'" REST);
    cells(
        POD("", "",
            "'phase':'Pending','conditions':[{'type':'PodScheduled','reason':'SchedulingGated'}]"),
        "['p','0/2','SchedulingGated','0'" REST);
    cells(POD("", "",
              "'phase':'Running','containerStatuses':[{'state':{'terminated':{'exitCode':3}}}]"),
          "['p','0/2','ExitCode:3','0'" REST);
    cells(POD("", "",
              "'phase':'Running','containerStatuses':[{'state':{'terminated':{'signal':9,'exitCode'"
              ":137}}}]"),
          "['p','0/2','Signal:9','0'" REST);
    cells(POD("", "",
              "'phase':'Running','conditions':[{'type':'Ready','status':'True'}],'"
              "containerStatuses':[{'state':{'terminated':{'reason':'Completed'}}},{'ready':true,'"
              "state':{'running':{}}}]"),
          "['p','1/2','Running','0'" REST);
    cells(POD("", "",
              "'phase':'Running','containerStatuses':[{'state':{'terminated':{'reason':'Completed'}"
              "}},{'ready':true,'state':{'running':{}}}]"),
          "['p','1/2','NotReady','0'" REST);
    cells(POD("", "",
              "'phase':'Succeeded','containerStatuses':[{'state':{'terminated':{'reason':'"
              "Completed'}}}]"),
          "['p','0/2','Completed','0'" REST);
    cells(POD(",'deletionTimestamp':'2026-11-20T21:00:00Z'", "", "'phase':'Running'"),
          "['p','0/2','Terminating','0'" REST);
    cells(POD(",'deletionTimestamp':'2026-11-20T21:00:00Z'", "",
              "'phase':'Running','reason':'NodeLost'"),
          "['p','0/2','Unknown','0'" REST);
    cells(POD(",'deletionTimestamp':'2026-11-20T21:00:00Z'", "", "'phase':'Succeeded'"),
          "['p','0/2','Succeeded','0'" REST);
}

static void test_pods_with_init_containers(void **state)
{
    (void)state;
#define INIT ",'initContainers':[{'name':'x'},{'name':'y'}]"
    cells(POD("", INIT,
              "'phase':'Pending','initContainerStatuses':[{'name':'x','state':{'running':{}}},{'"
              "name':'y'}]"),
          "['p','0/2','Init:0/2','0'" REST);
    cells(POD("", INIT,
              "'phase':'Pending','initContainerStatuses':[{'name':'x','state':{'terminated':{'"
              "exitCode':0}}},{'name':'y','state':{'waiting':{'reason':'PodInitializing'}}}]"),
          "['p','0/2','Init:1/2','0'" REST);
    cells(POD("", INIT,
              "'phase':'Pending','initContainerStatuses':[{'name':'x','restartCount':2,'state':{'"
              "waiting':{'reason':'CrashLoopBackOff'}}}]"),
          "['p','0/2','Init:CrashLoopBackOff','2'" REST);
    cells(POD("", INIT,
              "'phase':'Pending','initContainerStatuses':[{'name':'x','state':{'terminated':{'"
              "exitCode':1}}}]"),
          "['p','0/2','Init:ExitCode:1','0'" REST);
    cells(POD("", INIT,
              "'phase':'Pending','initContainerStatuses':[{'name':'x','state':{'terminated':{'"
              "exitCode':1,'reason':'Error'}}}]"),
          "['p','0/2','Init:Error','0'" REST);
    cells(POD("", INIT,
              "'phase':'Running','initContainerStatuses':[{'name':'x','restartCount':4,'state':{'"
              "terminated':{'exitCode':0}}},{'name':'y','state':{'terminated':{'exitCode':0}}}],"
              "'containerStatuses':[{'ready':true,'state':{'running':{}}},{'ready':true,'state':{'"
              "running':{}}}]"),
          "['p','2/2','Running','0'" REST);
    cells(POD("", ",'initContainers':[{'name':'x','restartPolicy':'Always'}]",
              "'phase':'Running','initContainerStatuses':[{'name':'x','restartCount':1,'started':"
              "true,'ready':true,'state':{'running':{}}}],"
              "'containerStatuses':[{'ready':true,'state':{'running':{}}}]"),
          "['p','2/3','Running','1'" REST);
    cells(POD("", ",'readinessGates':[{'conditionType':'a/b'},{'conditionType':'c'}]",
              "'phase':'Running','conditions':[{'type':'a/b','status':'True'}],'podIP':'1.2.3.4'"),
          "['p','0/2','Running','0','<unknown>','1.2.3.4','<none>','<none>','1/2']");
}

#define OBJECT(api_version, kind, more)                                                            \
    "{'apiVersion':'" api_version "','kind':'" kind                                                \
    "','metadata':{'name':'x','creationTimestamp':'2026-11-20T21:03:20Z'}" more "}"

static void test_the_others(void **state)
{
    (void)state;
    cells(OBJECT("apps/v1", "Deployment",
                 ",'spec':{'replicas':3,'selector':{'matchLabels':{'b':'2','a':'1'},'"
                 "matchExpressions':[{'key':'k','operator':'In','values':['x','y']},"
                 "{'key':'n','operator':'DoesNotExist'}]},'template':{'spec':{'containers':[{'name'"
                 ":'c','image':'i:1'},{'name':'d','image':'j'}]}}},'status':{'readyReplicas':2,'"
                 "updatedReplicas':1,'availableReplicas':2}"),
          "['x','2/3',1,2,'5s','c,d','i:1,j','a=1,b=2,k in (x,y),!n']");
    cells(OBJECT("apps/v1", "ReplicaSet",
                 ",'spec':{'replicas':3},'status':{'replicas':2,'readyReplicas':1}"),
          "['x',3,2,1,'5s','','','<none>']");
    cells(
        OBJECT(
            "v1", "Service",
            ",'spec':{'type':'NodePort','clusterIP':'10.0.0.1','ports':[{'port':80,'nodePort':"
            "30080,'protocol':'TCP'},{'port':53,'protocol':'UDP'}],'selector':{'b':'2','a':'1'}}"),
        "['x','NodePort','10.0.0.1','<none>','80:30080/TCP,53/UDP','5s','a=1,b=2']");
    cells(OBJECT("v1", "Service", ",'spec':{'type':'LoadBalancer','clusterIP':'10.0.0.1'}"),
          "['x','LoadBalancer','10.0.0.1','<pending>','<none>','5s','<none>']");
    cells(OBJECT("v1", "Service",
                 ",'spec':{'type':'LoadBalancer','externalIPs':['5.6.7.8']},'status':{'"
                 "loadBalancer':{'ingress':[{'ip':'1.2.3.4'},{'hostname':'h'}]}}"),
          "['x','LoadBalancer','<none>','1.2.3.4,h,5.6.7.8','<none>','5s','<none>']");
    cells(OBJECT("v1", "Service", ",'spec':{'type':'ExternalName','externalName':'a.b'}"),
          "['x','ExternalName','<none>','a.b','<none>','5s','<none>']");
    cells(OBJECT("v1", "Node",
                 ",'spec':{'unschedulable':true},'status':{'conditions':[{'type':'Ready','status':'"
                 "True'}],'addresses':[{'type':'InternalIP','address':'10.0.0.1'}],"
                 "'nodeInfo':{'kubeletVersion':'v1.32.0','osImage':'Debian'}}"),
          "['x','Ready,SchedulingDisabled','<none>','5s','v1.32.0','10.0.0.1','<none>','Debian','<"
          "unknown>','<unknown>']");
    cells("{'apiVersion':'v1','kind':'Node','metadata':{'name':'x','labels':{'node-role.kubernetes."
          "io/b':'','node-role.kubernetes.io/a':'','kubernetes.io/role':'z'}}}",
          "['x','Unknown','a,b,z','<unknown>','','<none>','<none>','<unknown>','<unknown>','<"
          "unknown>']");
    cells(OBJECT("v1", "Endpoints", ""), "['x','<none>','5s']");
    cells(OBJECT("v1", "Endpoints",
                 ",'subsets':[{'addresses':[{'ip':'10.0.0.1'},{'ip':'fd00::1'}],'ports':[{'port':"
                 "80},{'port':81}]}]"),
          "['x','10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more...','5s']");
    cells(OBJECT("discovery.k8s.io/v1", "EndpointSlice", ",'addressType':'IPv4'"),
          "['x','IPv4','<unset>','<unset>','5s']");
    cells(OBJECT("discovery.k8s.io/v1", "EndpointSlice",
                 ",'addressType':'IPv4','ports':[{'name':'','port':80},{'name':'all'},{},{}],"
                 "'endpoints':[{'addresses':['10.0.0.1','10.0.0.2']},{'addresses':['10.0.0.3',"
                 "'10.0.0.4','10.0.0.5']}]"),
          "['x','IPv4','80,all,* + 1 more...','10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...','5s']");
    cells(OBJECT("v1", "ConfigMap", ",'data':{'a':'','b':''},'binaryData':{'c':''}"),
          "['x',3,'5s']");
    cells(OBJECT("v1", "Secret", ",'type':'Opaque','data':{'a':''}"), "['x','Opaque',1,'5s']");
    cells(OBJECT("v1", "Namespace", ",'status':{'phase':'Active'}"), "['x','Active','5s']");
    cells(OBJECT("coordination.k8s.io/v1", "Lease", ",'spec':{'holderIdentity':'n1'}"),
          "['x','n1','5s']");
    cells(OBJECT("v1", "Event",
                 ",'lastTimestamp':'2026-11-20T21:03:15Z','firstTimestamp':'2026-11-20T21:01:15Z','"
                 "type':'Normal','reason':'Started','message':' hello\\n',"
                 "'count':4,'source':{'component':'agent','host':'n1'},'involvedObject':{'kind':'"
                 "Pod','name':'p','fieldPath':'spec'}"),
          "['10s','Normal','Started','pod/p','spec','agent, n1','hello','2m10s',4,'x']");
    cells(OBJECT("v1", "Event",
                 ",'eventTime':'2026-11-20T21:03:15.000000Z','reportingComponent':'sched','"
                 "involvedObject':{'kind':'Pod','name':'p'}"),
          "['10s','','','pod/p','','sched','','10s',1,'x']");
    cells(OBJECT("v1", "Event",
                 ",'eventTime':'2026-11-20T21:03:15.000000Z','series':{'count':7,'lastObservedTime'"
                 ":'2026-11-20T21:03:24.000000Z'},'involvedObject':{}"),
          "['1s','','','','','','','10s',7,'x']");
}

/* 20,000 init containers and as many statuses in another order: not quadratic. */
static void test_many_init_containers(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append_str(&b, "{'apiVersion':'v1','kind':'Pod','spec':{'initContainers':[");
    for (int i = 0; i < 20000; i++)
        buf_printf(&b, "%s{'name':'c%d','restartPolicy':'Always'}", i ? "," : "", i);
    buf_append_str(&b, "]},'status':{'phase':'Running','initContainerStatuses':[");
    for (int i = 0; i < 20000; i++)
        buf_printf(&b, "%s{'name':'c%d','restartCount':1,'started':true,'ready':true}",
                   i ? "," : "", 19999 - i);
    buf_append_str(&b, "]}}");
    struct json *v = parse(buf_cstr(&b)), *out;
    uint64_t start = clock_cpu_us();
    assert_int_equal(kind_table_cells(&arena, kind_of(v), v, NOW, &out), 0);
    assert_true(json_is_str(json_at(out, 1), "20000/20000"));
    assert_true(json_is_str(json_at(out, 3), "20000"));
    assert_true(clock_cpu_us() - start < 5 * 1000 * 1000);
    buf_release(&b);
}

static void test_without_memory(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        struct arena a = {0};
        struct json *v = parse(OBJECT(
                        "apps/v1", "Deployment",
                        ",'spec':{'replicas':3,'selector':{'matchLabels':{'b':'2','a':'1'}}}")),
                    *out;
        struct json *pod = parse(
            POD("", "",
                "'phase':'Running','containerStatuses':[{'state':{'terminated':{'exitCode':3}}}]"));
        mem_fail_nth(nth);
        int rc = kind_table_columns(&a, kind_of(v), &out);
        if (!rc) rc = kind_table_cells(&a, kind_of(v), v, NOW, &out);
        if (!rc) rc = kind_table_cells(&a, kind_of(pod), pod, NOW, &out);
        bool fired = mem_fail_nth(0);
        arena_release(&a);
        assert_int_equal(rc, fired ? ERR_NOMEM : 0);
        if (!fired) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_columns),        TEST(test_ages),
        TEST(test_pods),           TEST(test_pods_with_init_containers),
        TEST(test_the_others),     TEST(test_many_init_containers),
        TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, load_kinds, NULL);
}
