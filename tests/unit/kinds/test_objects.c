/* The way in: pruning, defaults, validation. */
#include "tests/unit/kinds/kinds_test.h"

static void check_pruned(const char *in, const char *out, const char *problems)
{
    struct json *v = parse(in);
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_prune(&arena, kind_of(v), v, &p), 0);
    assert_string_equal(problems_text(&p), problems);
    if (out) assert_string_equal(shown(v), out);
}

#define CM "{'apiVersion':'v1','kind':'ConfigMap'"
#define POD "{'apiVersion':'v1','kind':'Pod'"

static void test_unknown_fields_go_and_are_told(void **state)
{
    (void)state;
    check_pruned(CM ",'foo':1,'data':{'a':'b'}}", CM ",'data':{'a':'b'}}", "unknown field \"foo\"");
    check_pruned(
        POD ",'spec':{'containers':[{'name':'a','imagee':'x'},{'name':'b','ports':[{'port':1}]}]}}",
        POD ",'spec':{'containers':[{'name':'a'},{'name':'b','ports':[{}]}]}}",
        "unknown field \"spec.containers[0].imagee\"\n"
        "unknown field \"spec.containers[1].ports[0].port\"");
}

static void test_nothing_is_left_out_that_says_something(void **state)
{
    (void)state;
    check_pruned(CM ",'metadata':null,'data':{}}", CM "}", "");
    check_pruned(POD ",'spec':{'restartPolicy':'','hostNetwork':false,'nodeSelector':{},"
                     "'automountServiceAccountToken':false,'priority':0,'tolerations':[],"
                     "'securityContext':{},'containers':[]}}",
                 POD ",'spec':{'automountServiceAccountToken':false,'priority':0,"
                     "'securityContext':{},'containers':[]}}",
                 "");
    check_pruned(CM ",'data':{'a':null}}", CM ",'data':{'a':''}}", "");
    check_pruned(POD ",'spec':{'containers':[null]}}", POD ",'spec':{'containers':[{}]}}", "");
    check_pruned("{'apiVersion':'apps/v1','kind':'Deployment','spec':{'replicas':0}}",
                 "{'apiVersion':'apps/v1','kind':'Deployment','spec':{'replicas':0}}", "");
}

static void test_texts_get_their_canonical_form(void **state)
{
    (void)state;
    check_pruned(
        POD ",'spec':{'containers':[{'resources':{'limits':{'cpu':0.5,'memory':'1024Mi'}}}]}}",
        POD ",'spec':{'containers':[{'resources':{'limits':{'cpu':'500m','memory':'1Gi'}}}]}}", "");
    check_pruned(CM ",'metadata':{'creationTimestamp':'2026-11-20T22:00:00+01:00'}}",
                 CM ",'metadata':{'creationTimestamp':'2026-11-20T21:00:00Z'}}", "");
    check_pruned("{'apiVersion':'coordination.k8s.io/"
                 "v1','kind':'Lease','spec':{'renewTime':'2026-11-20T21:00:00Z'}}",
                 "{'apiVersion':'coordination.k8s.io/"
                 "v1','kind':'Lease','spec':{'renewTime':'2026-11-20T21:00:00.000000Z'}}",
                 "");
}

static void test_wrong_types(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{'apiVersion':'apps/v1','kind':'Deployment','spec':{'replicas':'3'}}",
         "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type "
         "int32"},
        {"{'apiVersion':'apps/v1','kind':'Deployment','spec':{'replicas':1.5}}",
         "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of "
         "type int32"},
        {"{'apiVersion':'apps/v1','kind':'Deployment','spec':{'replicas':3000000000}}",
         "json: cannot unmarshal number 3000000000 into Go struct field "
         "DeploymentSpec.spec.replicas of type int32"},
        {POD ",'spec':{'containers':{}}}", "json: cannot unmarshal object into Go struct field "
                                           "PodSpec.spec.containers of type []Container"},
        {POD ",'spec':{'containers':['x']}}", "json: cannot unmarshal string into Go struct field "
                                              "PodSpec.spec.containers[0] of type Container"},
        {POD ",'spec':[]}",
         "json: cannot unmarshal array into Go struct field Pod.spec of type PodSpec"},
        {CM ",'data':{'a':1}}",
         "json: cannot unmarshal number 1 into Go struct field ConfigMap.data[a] of type string"},
        {CM ",'data':['a']}", "json: cannot unmarshal array into Go struct field ConfigMap.data of "
                              "type map[string]string"},
        {CM ",'immutable':'yes'}",
         "json: cannot unmarshal string into Go struct field ConfigMap.immutable of type bool"},
        {CM ",'binaryData':{'a':'!'}}", "binaryData[a]: illegal base64 data at input byte 0"},
        {CM ",'metadata':{'creationTimestamp':'now'}}",
         "parsing time \"now\": not an RFC 3339 time"},
        {CM ",'metadata':{'creationTimestamp':5}}",
         "json: cannot unmarshal number 5 into Go struct field "
         "ObjectMeta.metadata.creationTimestamp of type v1.Time"},
        {POD ",'spec':{'overhead':{'cpu':'lots'}}}",
         "quantities must match the regular expression "
         "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': \"lots\""},
        {POD ",'spec':{'containers':[{'livenessProbe':{'httpGet':{'port':true}}}]}}",
         "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers[0]."
         "livenessProbe.httpGet.port of type intstr.IntOrString"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_pruned(cases[i][0], NULL, cases[i][1]);
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    struct json *v = parse("[1]");
    assert_int_equal(kind_prune(&arena, kind_by_name(SLICE_LIT("v1"), SLICE_LIT("Pod")), v, &p), 0);
    assert_string_equal(problems_text(&p),
                        "json: cannot unmarshal array into Go value of type Pod");
}

static void test_duplicate_fields_are_told(void **state)
{
    (void)state;
    struct json *v = parse(CM ",'data':{'a':'1','a':'2'},'immutable':true,'immutable':false}");
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_prune(&arena, kind_of(v), v, &p), 0);
    assert_int_equal(p.count, 2);
    assert_string_equal(p.first->detail, "duplicate field \"data.a\"");
    assert_string_equal(p.first->next->detail, "duplicate field \"immutable\"");
}

/* ---- defaults ---------------------------------------------------------------------------------
 */

static void check_default(const char *in, const char *out)
{
    struct json *v = parse(in), *want = parse(out);
    assert_int_equal(kind_default(&arena, kind_of(v), v), 0);
    if (!json_equal(v, want)) assert_string_equal(shown(v), shown(want));
    /* a second time changes nothing */
    struct json *again = json_clone(&arena, v);
    assert_int_equal(kind_default(&arena, kind_of(again), again), 0);
    assert_true(json_equal(v, again));
}

#define CONTAINER_DEFAULTS                                                                         \
    "'resources':{},'terminationMessagePath':'/dev/"                                               \
    "termination-log','terminationMessagePolicy':'File'"
#define SPEC_DEFAULTS                                                                              \
    "'restartPolicy':'Always','terminationGracePeriodSeconds':30,'dnsPolicy':'ClusterFirst',"      \
    "'securityContext':{},'schedulerName':'default-scheduler'"

static void test_pod_defaults(void **state)
{
    (void)state;
    check_default(
        POD ",'spec':{'serviceAccountName':'sa','containers':[{'name':'a','image':'nginx','ports':["
            "{'containerPort':80}],"
            "'livenessProbe':{'httpGet':{'port':80}},'env':[{'name':'A','valueFrom':{'fieldRef':{'"
            "fieldPath':'x'}}}]}],"
            "'volumes':[{'name':'v','secret':{'secretName':'s'}},{'name':'w'},{'name':'h','"
            "hostPath':{'path':'/'}}]}}",
        POD
        ",'spec':{'serviceAccountName':'sa','serviceAccount':'sa','containers':[{'name':'a','image'"
        ":'nginx',"
        "'imagePullPolicy':'Always','ports':[{'containerPort':80,'protocol':'TCP'}],"
        "'livenessProbe':{'httpGet':{'port':80,'path':'/','scheme':'HTTP'},'timeoutSeconds':1,"
        "'periodSeconds':10,'successThreshold':1,'failureThreshold':3},"
        "'env':[{'name':'A','valueFrom':{'fieldRef':{'apiVersion':'v1','fieldPath':'x'}}}]"
        "," CONTAINER_DEFAULTS "}],"
        "'volumes':[{'name':'v','secret':{'secretName':'s','defaultMode':420}},{'name':'w','"
        "emptyDir':{}},"
        "{'name':'h','hostPath':{'path':'/','type':''}}],'enableServiceLinks':true," SPEC_DEFAULTS
        "},"
        "'status':{'phase':'Pending'}}");
}

static void test_image_decides_the_pull_policy(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"nginx", "Always"},
        {"nginx:latest", "Always"},
        {"nginx:1.27", "IfNotPresent"},
        {"localhost:5000/nginx", "Always"},
        {"localhost:5000/nginx:1", "IfNotPresent"},
        {"nginx@sha256:abc", "IfNotPresent"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *text =
            arena_printf(&arena, POD ",'spec':{'containers':[{'image':'%s'}]}}", cases[i][0]);
        struct json *v = parse(text);
        assert_int_equal(kind_default(&arena, kind_of(v), v), 0);
        assert_true(json_is_str(
            json_get(json_at(json_path(v, "spec.containers"), 0), "imagePullPolicy"), cases[i][1]));
    }
}

static void test_requests_follow_limits_in_pods_only(void **state)
{
    (void)state;
    struct json *v = parse(POD ",'spec':{'containers':[{'resources':{'limits':{'cpu':'2','memory':'"
                               "1Gi'},'requests':{'cpu':'1'}}}]}}");
    assert_int_equal(kind_default(&arena, kind_of(v), v), 0);
    const struct json *c = json_at(json_path(v, "spec.containers"), 0);
    assert_string_equal(shown(json_path(c, "resources.requests")), "{'cpu':'1','memory':'1Gi'}");
    v = parse(
        "{'apiVersion':'apps/v1','kind':'Deployment','spec':{'template':{'spec':{'containers':["
        "{'resources':{'limits':{'cpu':'2'}}}]}}}}");
    assert_int_equal(kind_default(&arena, kind_of(v), v), 0);
    c = json_at(json_path(v, "spec.template.spec.containers"), 0);
    assert_null(json_path(c, "resources.requests"));
    assert_null(json_path(v, "spec.template.spec.enableServiceLinks"));
}

static void test_workload_defaults(void **state)
{
    (void)state;
    check_default("{'apiVersion':'apps/v1','kind':'Deployment','spec':{'template':{'spec':{}}}}",
                  "{'apiVersion':'apps/"
                  "v1','kind':'Deployment','spec':{'replicas':1,'template':{'spec':{" SPEC_DEFAULTS
                  "}},'strategy':{'type':'RollingUpdate','rollingUpdate':{'maxUnavailable':'25%','"
                  "maxSurge':'25%'}},"
                  "'revisionHistoryLimit':10,'progressDeadlineSeconds':600},'status':{}}");
    check_default("{'apiVersion':'apps/"
                  "v1','kind':'Deployment','spec':{'replicas':0,'strategy':{'type':'Recreate'}}}",
                  "{'apiVersion':'apps/"
                  "v1','kind':'Deployment','spec':{'replicas':0,'strategy':{'type':'Recreate'},"
                  "'revisionHistoryLimit':10,'progressDeadlineSeconds':600},'status':{}}");
    check_default("{'apiVersion':'apps/v1','kind':'ReplicaSet'}",
                  "{'apiVersion':'apps/v1','kind':'ReplicaSet','spec':{'replicas':1},'status':{}}");
}

#define SVC "{'apiVersion':'v1','kind':'Service'"

static void test_service_defaults(void **state)
{
    (void)state;
    check_default(
        SVC ",'spec':{'ports':[{'port':80},{'port':81,'targetPort':'web'}]}}", SVC
        ",'spec':{'ports':[{'port':80,'protocol':'TCP','targetPort':80},"
        "{'port':81,'targetPort':'web','protocol':'TCP'}],'type':'ClusterIP','sessionAffinity':'"
        "None',"
        "'internalTrafficPolicy':'Cluster','ipFamilyPolicy':'SingleStack','ipFamilies':['IPv4']},"
        "'status':{}}");
    check_default(
        SVC ",'spec':{'type':'LoadBalancer','clusterIP':'fd00::1','sessionAffinity':'ClientIP'}}",
        SVC ",'spec':{'type':'LoadBalancer','clusterIP':'fd00::1','clusterIPs':['fd00::1'],"
            "'sessionAffinity':'ClientIP','sessionAffinityConfig':{'clientIP':{'timeoutSeconds':"
            "10800}},"
            "'externalTrafficPolicy':'Cluster','internalTrafficPolicy':'Cluster',"
            "'allocateLoadBalancerNodePorts':true,'ipFamilyPolicy':'SingleStack','ipFamilies':['"
            "IPv6']},"
            "'status':{}}");
    check_default(SVC ",'spec':{'type':'ExternalName','externalName':'x.y'}}",
                  SVC ",'spec':{'type':'ExternalName','externalName':'x.y','sessionAffinity':'None'"
                      "},'status':{}}");
}

static void test_other_defaults(void **state)
{
    (void)state;
    check_default("{'apiVersion':'v1','kind':'Secret','data':{'a':'YQ=='},'stringData':{'a':'hello'"
                  ",'b':'','c':'xy'}}",
                  "{'apiVersion':'v1','kind':'Secret','data':{'a':'aGVsbG8=','b':'','c':'eHk='},'"
                  "type':'Opaque'}");
    check_default("{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n'}}",
                  "{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n','labels':{'"
                  "kubernetes.io/metadata.name':'n'}},"
                  "'spec':{'finalizers':['kubernetes']},'status':{'phase':'Active'}}");
    check_default("{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n','uid':'1'},'spec':{"
                  "},'status':{'phase':'Terminating'}}",
                  "{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n','uid':'1','labels':"
                  "{'kubernetes.io/metadata.name':'n'}},"
                  "'spec':{},'status':{'phase':'Terminating'}}");
    check_default("{'apiVersion':'v1','kind':'Node','status':{'capacity':{'cpu':'1'}}}",
                  "{'apiVersion':'v1','kind':'Node','spec':{},'status':{'capacity':{'cpu':'1'},'"
                  "allocatable':{'cpu':'1'}}}");
}

/* ---- validation -------------------------------------------------------------------------------
 */

static struct json *prepared(const char *text)
{
    struct json *v = parse(text);
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_prune(&arena, kind_of(v), v, &p), 0);
    if (p.count) fail_msg("%s: %s", text, problems_text(&p));
    assert_int_equal(kind_default(&arena, kind_of(v), v), 0);
    return v;
}

static void check_update(const char *in, const char *before, const char *problems)
{
    struct json *v = prepared(in), *old = before ? prepared(before) : NULL;
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_validate(&arena, kind_of(v), v, old, &p), 0);
    if (strncmp(problems_text(&p), problems, strlen(problems)) != 0 || (!*problems && p.count))
        assert_string_equal(problems_text(&p), problems);
}

/* `problems` is how the text begins; "" = none. */
static void check_valid(const char *in, const char *problems)
{
    check_update(in, NULL, problems);
}

#define META ",'metadata':{'name':'x','namespace':'default'}"
#define PODS(spec) POD META ",'spec':{" spec "}}"
#define BOX(more) "'containers':[{'name':'c','image':'i'" more "}]"

static void test_metadata(void **state)
{
    (void)state;
    check_valid(CM META "}", "");
    check_valid(CM ",'metadata':{'namespace':'d'}}",
                "metadata.name: Required value: name or generateName is required");
    check_valid(CM ",'metadata':{'name':'Bad_Name','namespace':'d'}}",
                "metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must "
                "consist of");
    check_valid(CM ",'metadata':{'name':'x'}}", "metadata.namespace: Required value");
    check_valid("{'apiVersion':'v1','kind':'Node','metadata':{'name':'x','namespace':'d'}}",
                "metadata.namespace: Forbidden: not allowed on this type");
    check_valid(
        "{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'a.b'}}",
        "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of");
    check_valid(SVC ",'metadata':{'name':'1a','namespace':'d'},'spec':{'ports':[{'port':1}]}}",
                "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of");
    check_valid(CM ",'metadata':{'name':'x-abc','generateName':'x-','namespace':'d'}}", "");
    check_valid(CM ",'metadata':{'name':'x-abc','generateName':'X','namespace':'d'}}",
                "metadata.generateName: Invalid value");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','labels':{'a b':'c'}}}",
                "metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric "
                "characters");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','labels':{'/b':'c'}}}",
                "metadata.labels: Invalid value: \"/b\": prefix part must be non-empty");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','labels':{'a':'-c'}}}",
                "metadata.labels: Invalid value: \"-c\": a valid label must be an empty string or "
                "consist of");
    check_valid(
        CM ",'metadata':{'name':'x','namespace':'d','annotations':{'Example.com/a':'-c - '}}}", "");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','finalizers':['a b']}}",
                "metadata.finalizers[0]: Invalid value");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','ownerReferences':[{'kind':'Pod','name'"
                   ":'p','uid':'1'}]}}",
                "metadata.ownerReferences[0].apiVersion: Required value");
    check_valid(CM ",'metadata':{'name':'x','namespace':'d','ownerReferences':["
                   "{'apiVersion':'v1','kind':'Pod','name':'p','uid':'1','controller':true},"
                   "{'apiVersion':'v1','kind':'Pod','name':'q','uid':'2','controller':true}]}}",
                "metadata.ownerReferences: Invalid value: ");
    check_update(CM ",'metadata':{'name':'x','namespace':'d','uid':'2'}}",
                 CM ",'metadata':{'name':'x','namespace':'d','uid':'1'}}",
                 "metadata.uid: Invalid value: \"2\": field is immutable");
}

static void test_annotations_have_a_limit(void **state)
{
    (void)state;
    for (size_t extra = 0; extra < 2; extra++) {
        struct buf b = {0};
        buf_append_str(&b, CM ",'metadata':{'name':'x','namespace':'d','annotations':{'a':'");
        for (size_t i = 0; i < 256 * 1024 - 1 + extra; i++) buf_append_byte(&b, 'x');
        buf_append_str(&b, "'}}}");
        check_valid(buf_cstr(&b),
                    extra ? "metadata.annotations: Too long: may not be more than 262144 bytes"
                          : "");
        buf_release(&b);
    }
}

static const char *const pod_cases[][2] = {
    {PODS(BOX("")), ""},
    {PODS("'restartPolicy':'Never'"), "spec.containers: Required value"},
    {PODS("'containers':[{'image':'i'}]"), "spec.containers[0].name: Required value"},
    {PODS("'containers':[{'name':'c'}]"), "spec.containers[0].image: Required value"},
    {PODS("'containers':[{'name':'C','image':'i'}]"),
     "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label"},
    {PODS("'containers':[{'name':'c','image':' i'}]"),
     "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing "
     "whitespace"},
    {PODS("'containers':[{'name':'c','image':'i'},{'name':'c','image':'i'}]"),
     "spec.containers[1].name: Duplicate value: \"c\""},
    {PODS(BOX("") ",'initContainers':[{'name':'c','image':'i'}]"),
     "spec.initContainers[0].name: Duplicate value: \"c\""},
    {PODS(BOX("") ",'restartPolicy':'Sometimes'"),
     "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", "
     "\"OnFailure\", \"Never\""},
    {PODS(BOX(",'ports':[{'containerPort':0}]")),
     "spec.containers[0].ports[0].containerPort: Required value"},
    {PODS(BOX(",'ports':[{'containerPort':70000}]")),
     "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 "
     "and 65535, inclusive"},
    {PODS(BOX(",'ports':[{'containerPort':1,'name':'Web'}]")),
     "spec.containers[0].ports[0].name: Invalid value: \"Web\": must contain only "
     "alphanumeric characters (a-z, 0-9), and hyphens (-)"},
    {PODS(BOX(",'ports':[{'containerPort':1,'name':'12'}]")),
     "spec.containers[0].ports[0].name: Invalid value: \"12\": must contain at least one "
     "letter (a-z)"},
    {PODS(BOX(",'ports':[{'containerPort':1,'hostPort':8},{'containerPort':2,'hostPort':8}]")),
     "spec.containers[0].ports[1].hostPort: Duplicate value: 8"},
    {PODS("'hostNetwork':true," BOX(",'ports':[{'containerPort':1,'hostPort':8}]")),
     "spec.containers[0].ports[0].containerPort: Invalid value: 1: must match `hostPort` "
     "when `hostNetwork` is true"},
    {PODS(BOX(",'volumeMounts':[{'name':'v','mountPath':'/v'}]")),
     "spec.containers[0].volumeMounts[0].name: Not found: \"v\""},
    {PODS(BOX(",'volumeMounts':[{'name':'v','mountPath':'/v'},{'name':'v','mountPath':'/"
              "v'}]") ",'volumes':[{'name':'v'}]"),
     "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"},
    {PODS(BOX(",'volumeMounts':[{'name':'v','mountPath':'/v','subPath':'../x'}]") ",'volumes':[{"
                                                                                  "'name':'v'}"
                                                                                  "]"),
     "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not "
     "contain '..'"},
    {PODS(BOX("") ",'volumes':[{'name':'v','emptyDir':{},'hostPath':{'path':'/'}}]"),
     "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"},
    {PODS(BOX("") ",'volumes':[{'name':'v'},{'name':'v'}]"),
     "spec.volumes[1].name: Duplicate value: \"v\""},
    {PODS(BOX(",'livenessProbe':{}")),
     "spec.containers[0].livenessProbe: Required value: must specify a handler type"},
    {PODS(BOX(",'livenessProbe':{'exec':{'command':['a']},'tcpSocket':{'port':1}}")),
     "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 "
     "handler type"},
    {PODS(BOX(",'livenessProbe':{'tcpSocket':{'port':99999}}")),
     "spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 99999: must be "
     "between 1 and 65535, inclusive"},
    {PODS(BOX(",'livenessProbe':{'tcpSocket':{'port':1},'successThreshold':2}")),
     "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"},
    {PODS(BOX(",'env':[{'name':'A=B'}]")), "spec.containers[0].env[0].name: Invalid value: "
                                           "\"A=B\": a valid environment variable name"},
    {PODS(BOX(",'env':[{'name':'A','value':'x','valueFrom':{'fieldRef':{'fieldPath':'x'}}}]")),
     "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when "
     "`value` is not empty"},
    {PODS(BOX(",'env':[{'name':'A','valueFrom':{}}]")),
     "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of"},
    {PODS(BOX(",'resources':{'requests':{'cpu':'2'},'limits':{'cpu':'1'}}")),
     "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or "
     "equal to cpu limit of 1"},
    {PODS(BOX(",'resources':{'limits':{'cpu':'-1'}}")),
     "spec.containers[0].resources.limits[cpu]: Invalid value: \"-1\": must be greater "
     "than or equal to 0"},
    {PODS(BOX(",'resources':{'limits':{'gpu':'1'}}")),
     "spec.containers[0].resources.limits[gpu]: Invalid value: \"gpu\": must be a standard "
     "resource type or fully qualified"},
    {PODS(BOX(",'resources':{'requests':{'x.y/z':'1'},'limits':{'x.y/z':'2'}}")),
     "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to x.y/z "
     "limit of 2"},
    {PODS(BOX(",'restartPolicy':'Always'")),
     "spec.containers[0].restartPolicy: Forbidden: may not be set for non-init containers"},
    {PODS(BOX("") ",'initContainers':[{'name':'d','image':'i','readinessProbe':{'tcpSocket'"
                  ":{'port':1}}}]"),
     "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers "
     "without restartPolicy=Always"},
    {PODS(BOX("") ",'tolerations':[{'effect':'NoSchedule'}]"),
     "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when "
     "`key` is empty"},
    {PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists','tolerationSeconds':1}]"),
     "spec.tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when "
     "`tolerationSeconds` is set"},
    {PODS(BOX("") ",'dnsPolicy':'None'"), "spec.dnsConfig.nameservers: Required value"},
    {PODS(BOX("") ",'nodeSelector':{'a':'b c'}"),
     "spec.nodeSelector: Invalid value: \"b c\": a valid label"},
    {PODS(BOX("") ",'activeDeadlineSeconds':0"),
     "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, "
     "inclusive"},
    {PODS(BOX("") ",'affinity':{'nodeAffinity':{'"
                  "requiredDuringSchedulingIgnoredDuringExecution':{'nodeSelectorTerms':[{'"
                  "matchExpressions':[{'key':'a','operator':'In'}]}]}}}"),
     "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution."
     "nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified "
     "when `operator` is 'In' or 'NotIn'"},
};

static void test_pods(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pod_cases) / sizeof(pod_cases[0]); i++)
        check_valid(pod_cases[i][0], pod_cases[i][1]);
}

static void test_pod_updates(void **state)
{
    (void)state;
    static const char forbidden[] = "spec: Forbidden: pod updates may not change fields other than";
    const char *old = PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1");
    static const char *const fine[] = {
        PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1"),
        PODS("'containers':[{'name':'c','image':'i2','imagePullPolicy':'Always'}],'tolerations':[{'"
             "key':'a','operator':'Exists'}],'priority':1"),
        PODS(BOX("") ",'tolerations':[{'key':'b','operator':'Exists'},{'key':'a','operator':'"
                     "Exists'}],'priority':1"),
        PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1,'"
                     "activeDeadlineSeconds':5"),
        PODS(BOX(
            "") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1,'nodeName':'n1'"),
    };
    static const char *const refused[] = {
        PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':2"),
        PODS(BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}]"),
        PODS(BOX("") ",'priority':1"),
        PODS(BOX(
            ",'command':['x']") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1"),
        PODS("'containers':[{'name':'c','image':'i'},{'name':'d','image':'i'}],'tolerations':[{'"
             "key':'a','operator':'Exists'}],'priority':1"),
        PODS(
            BOX("") ",'tolerations':[{'key':'a','operator':'Exists'}],'priority':1,'hostIPC':true"),
    };
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) check_update(fine[i], old, "");
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        check_update(refused[i], old, forbidden);
    check_update(PODS(BOX("") ",'nodeName':'n2'"), PODS(BOX("") ",'nodeName':'n1'"), forbidden);
}

#define DEPLOY(spec) "{'apiVersion':'apps/v1','kind':'Deployment'" META ",'spec':{" spec "}}"
#define LABELLED                                                                                   \
    "'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},'spec':"     \
    "{" BOX("") "}}"

static void test_workloads(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {DEPLOY(LABELLED), ""},
        {DEPLOY("'replicas':-1," LABELLED),
         "spec.replicas: Invalid value: -1: must be greater than or equal to 0"},
        {DEPLOY("'template':{'spec':{" BOX("") "}}"), "spec.selector: Required value"},
        {DEPLOY("'selector':{'matchLabels':{'a':'b'}}"), "spec.template: Required value"},
        {DEPLOY("'selector':{},'template':{'spec':{" BOX("") "}}"),
         "spec.selector: Invalid value: {}: empty selector is invalid for deployment"},
        {DEPLOY("'selector':{'matchLabels':{'a':'c'}},'template':{'metadata':{'labels':{'a':'b'}},'"
                "spec':{" BOX("") "}}"),
         "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match "
         "template `labels`"},
        {DEPLOY("'selector':{'matchExpressions':[{'key':'a','operator':'NotIn','values':['b']}]},'"
                "template':{'metadata':{'labels':{'a':'b'}},'spec':{" BOX("") "}}"),
         "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match "
         "template `labels`"},
        {DEPLOY(
             "'selector':{'matchExpressions':[{'key':'a','operator':'Exists'},{'key':'z','operator'"
             ":'DoesNotExist'}]},'template':{'metadata':{'labels':{'a':'b'}},'spec':{" BOX(
                 "") "}}"),
         ""},
        {DEPLOY("'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b'}},'"
                "spec':{'restartPolicy':'Never'," BOX("") "}}"),
         "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: "
         "\"Always\""},
        {DEPLOY(LABELLED ",'strategy':{'type':'Recreate','rollingUpdate':{}}"),
         "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is "
         "'Recreate'"},
        {DEPLOY(LABELLED ",'strategy':{'rollingUpdate':{'maxSurge':0,'maxUnavailable':'0%'}}"),
         "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when "
         "`maxSurge` is 0"},
        {DEPLOY(LABELLED ",'strategy':{'rollingUpdate':{'maxUnavailable':'101%'}}"),
         "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater "
         "than 100%"},
        {DEPLOY(LABELLED ",'strategy':{'rollingUpdate':{'maxSurge':'x'}}"),
         "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string"},
        {DEPLOY(LABELLED ",'progressDeadlineSeconds':5,'minReadySeconds':5"),
         "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_valid(cases[i][0], cases[i][1]);
    check_update(
        DEPLOY("'selector':{'matchLabels':{'a':'b'}},'template':{'metadata':{'labels':{'a':'b','c':"
               "'d'}},'spec':{" BOX("") "}}"),
        DEPLOY("'selector':{'matchLabels':{'c':'d'}},'template':{'metadata':{'labels':{'a':'b','c':"
               "'d'}},'spec':{" BOX("") "}}"),
        "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: field is immutable");
}

#define SERVICE(spec) SVC META ",'spec':{" spec "}}"

static void test_services(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {SERVICE("'ports':[{'port':80}]"), ""},
        {SERVICE("'selector':{'a':'b'}"), "spec.ports: Required value"},
        {SERVICE("'clusterIP':'None'"), ""},
        {SERVICE("'ports':[{'port':0}]"), "spec.ports[0].port: Required value"},
        {SERVICE("'ports':[{'port':80,'targetPort':0}]"), ""},
        {SERVICE("'ports':[{'port':80,'targetPort':70000}]"),
         "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"},
        {SERVICE("'ports':[{'port':80},{'port':81}]"), "spec.ports[0].name: Required value"},
        {SERVICE("'ports':[{'port':80,'name':'a'},{'port':81,'name':'a'}]"),
         "spec.ports[1].name: Duplicate value: \"a\""},
        {SERVICE("'ports':[{'port':80,'name':'a'},{'port':80,'name':'b'}]"),
         "spec.ports[1]: Duplicate value: "},
        {SERVICE("'ports':[{'port':80,'nodePort':30000}]"),
         "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"},
        {SERVICE("'type':'NodePort','ports':[{'port':80,'nodePort':30000}]"), ""},
        {SERVICE("'type':'ExternalName'"), "spec.externalName: Required value"},
        {SERVICE("'type':'ExternalName','externalName':'a.b'"), ""},
        {SERVICE("'clusterIP':'1.2.3','ports':[{'port':80}]"),
         "spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address"},
        {SERVICE("'type':'Fancy','ports':[{'port':80}]"),
         "spec.type: Unsupported value: \"Fancy\": supported values: \"ClusterIP\", \"NodePort\", "
         "\"LoadBalancer\", \"ExternalName\""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_valid(cases[i][0], cases[i][1]);
    check_update(SERVICE("'clusterIP':'10.0.0.2','ports':[{'port':80}]"),
                 SERVICE("'clusterIP':'10.0.0.1','ports':[{'port':80}]"),
                 "spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set");
}

static void test_configuration(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {CM META ",'data':{'a.b-c_D':'x'}}", ""},
        {CM META ",'data':{'a b':'x'}}",
         "data[a b]: Invalid value: \"a b\": a valid config key must consist of"},
        {CM META ",'data':{'..a':'x'}}",
         "data[..a]: Invalid value: \"..a\": must not start with '..'"},
        {CM META ",'data':{'a':'x'},'binaryData':{'a':'eA=='}}",
         "data[a]: Invalid value: \"a\": duplicate of key present in binaryData"},
        {"{'apiVersion':'v1','kind':'Secret'" META
         ",'type':'kubernetes.io/tls','data':{'tls.crt':''}}",
         "data[tls.key]: Required value"},
        {"{'apiVersion':'v1','kind':'Secret'" META ",'type':'kubernetes.io/service-account-token'}",
         "metadata.annotations[kubernetes.io/service-account.name]: Required value"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_valid(cases[i][0], cases[i][1]);
    check_update(CM META ",'immutable':true,'data':{'a':'y'}}",
                 CM META ",'immutable':true,'data':{'a':'x'}}",
                 "data: Forbidden: field is immutable when `immutable` is set");
    check_update(CM META ",'data':{'a':'x'}}", CM META ",'immutable':true,'data':{'a':'x'}}",
                 "immutable: Forbidden: field is immutable when `immutable` is set");
    check_update(CM META ",'immutable':true,'data':{'a':'x'}}",
                 CM META ",'immutable':true,'data':{'a':'x'}}", "");
    check_update("{'apiVersion':'v1','kind':'Secret'" META ",'type':'a'}",
                 "{'apiVersion':'v1','kind':'Secret'" META ",'type':'b'}",
                 "type: Invalid value: \"a\": field is immutable");
}

#define NODE "{'apiVersion':'v1','kind':'Node','metadata':{'name':'n'}"
#define EVENT(ns, object)                                                                          \
    "{'apiVersion':'v1','kind':'Event','metadata':{'name':'e','namespace':'" ns                    \
    "'},'involvedObject':{" object "}}"
#define LEASE(spec)                                                                                \
    "{'apiVersion':'coordination.k8s.io/v1','kind':'Lease'" META ",'spec':{" spec "}}"
#define ENDPOINT_SLICE(members)                                                                    \
    "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice'" META "," members "}"
#define ENDPOINTS(subsets) "{'apiVersion':'v1','kind':'Endpoints'" META ",'subsets':[" subsets "]}"
static const char *const other_cases[][2] = {
    {NODE ",'spec':{'taints':[{'key':'a','effect':'NoSchedule'}]}}", ""},
    {NODE ",'spec':{'taints':[{'key':'a'}]}}", "spec.taints[0].effect: Required value"},
    {NODE ",'spec':{'taints':[{'key':'a','effect':'NoSchedule'},{'key':'a','effect':'"
          "NoSchedule','value':'x'}]}}",
     "spec.taints[1]: Duplicate value: "},
    {NODE ",'spec':{'podCIDR':'10.0.0.0/33'}}",
     "spec.podCIDR: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value"},
    {EVENT("default", "'kind':'Node','name':'n'"), ""},
    {EVENT("a", "'kind':'Pod','namespace':'a'"), ""},
    {EVENT("a", "'kind':'Pod','namespace':'b'"),
     "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"},
    {LEASE("'leaseDurationSeconds':15"), ""},
    {LEASE("'leaseDurationSeconds':0"),
     "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"},
    {LEASE("'leaseTransitions':-1"),
     "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"},
    {ENDPOINTS("{'addresses':[{'ip':'10.0.0.1'}],'ports':[{'port':80}]}"), ""},
    {ENDPOINTS("{'ports':[{'port':80}]}"),
     "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"},
    {ENDPOINTS("{'addresses':[{'ip':'x'}]}"),
     "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address"},
    {ENDPOINTS("{'addresses':[{'ip':'::1'}],'ports':[{'port':80},{'port':81,'name':'b'}]}"),
     "subsets[0].ports[0].name: Required value"},
    {ENDPOINT_SLICE("'addressType':'IPv4','endpoints':[{'addresses':['10.0.0.1']}],'ports':"
                    "[{'port':80},{'name':'b'}]"),
     ""},
    {ENDPOINT_SLICE("'addressType':'IPv6','endpoints':[{'addresses':['fd00::1']}]"), ""},
    {ENDPOINT_SLICE("'addressType':'FQDN','endpoints':[{'addresses':['a.example']}]"), ""},
    {ENDPOINT_SLICE("'endpoints':[]"), "addressType: Required value"},
    {ENDPOINT_SLICE("'addressType':'ipv4','endpoints':[]"),
     "addressType: Unsupported value: \"ipv4\": supported values: \"IPv4\", \"IPv6\", "
     "\"FQDN\""},
    {ENDPOINT_SLICE("'addressType':'IPv4','endpoints':[{'addresses':[]}]"),
     "endpoints[0].addresses: Required value: must contain at least 1 address"},
    {ENDPOINT_SLICE("'addressType':'IPv4','endpoints':[{'addresses':['fd00::1']}]"),
     "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"},
    {ENDPOINT_SLICE("'addressType':'IPv6','endpoints':[{'addresses':['10.0.0.1']}]"),
     "endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address"},
    {ENDPOINT_SLICE("'addressType':'IPv4','endpoints':[],'ports':[{'port':80},{'port':81}]"),
     "ports[1].name: Duplicate value: \"\""},
    {ENDPOINT_SLICE("'addressType':'IPv4','endpoints':[],'ports':[{'protocol':'x'}]"),
     "ports[0].protocol: Unsupported value: \"x\": supported values: \"TCP\", \"UDP\", "
     "\"SCTP\""},
    {"{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n'},'spec':{'finalizers':['"
     "mine']}}",
     "spec.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name "
     "nor is it fully qualified"},
    {"{'apiVersion':'v1','kind':'ServiceAccount'" META "}", ""},
};

static void test_the_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(other_cases) / sizeof(other_cases[0]); i++)
        check_valid(other_cases[i][0], other_cases[i][1]);
    check_update(
        NODE ",'spec':{'podCIDR':'10.0.1.0/24'}}", NODE ",'spec':{'podCIDR':'10.0.0.0/24'}}",
        "spec.podCIDR: Forbidden: node updates may not change podCIDR except from \"\" to valid");
}

#define GOING(finalizers)                                                                          \
    CM ",'metadata':{'name':'x','namespace':'d','deletionTimestamp':'2026-11-20T21:00:00Z',"       \
       "'finalizers':[" finalizers "]}}"

static void test_what_goes_takes_no_finalizers(void **state)
{
    (void)state;
    check_update(GOING("'x.io/a'"), GOING("'x.io/b','x.io/a'"), "");
    check_update(GOING(""), GOING("'x.io/a'"), "");
    check_update(GOING("'x.io/c','x.io/b','x.io/a','x.io/c'"), GOING("'x.io/a'"),
                 "metadata.finalizers: Forbidden: no new finalizers can be added if the object is "
                 "being deleted, found new finalizers []string{\"x.io/b\", \"x.io/c\"}");
    check_update(CM ",'metadata':{'name':'x','namespace':'d','finalizers':['x.io/a']}}",
                 CM ",'metadata':{'name':'x','namespace':'d'}}", "");
}

static void test_many_new_finalizers_are_told_briefly(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 100000; i++) buf_printf(&b, "%s'x.io/%06d'", i ? "," : "", i);
    struct json *v = parse(GOING("")), *old = parse(GOING("")), *list = NULL;
    char *text = mem_alloc(b.len + 3);
    snprintf(text, b.len + 3, "[%s]", buf_cstr(&b));
    list = parse(text);
    assert_int_equal(json_set_str(&arena, json_get(v, "metadata"), "finalizers", list), 0);
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_validate(&arena, kind_of(v), v, old, &p), 0);
    assert_int_equal(p.count, 1);
    assert_non_null(strstr(p.first->detail, "\"x.io/000001\", "));
    assert_non_null(strstr(p.first->detail, ", ...}"));
    mem_free(text);
    buf_release(&b);
}

/* ---- hostile ----------------------------------------------------------------------------------
 */

static void test_many_problems_are_bounded(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append_str(&b, POD META ",'spec':{'containers':[");
    for (int i = 0; i < 20000; i++) buf_printf(&b, "%s{'name':'c%d'}", i ? "," : "", i % 10000);
    buf_append_str(&b, "]}}");
    struct json *v = parse(buf_cstr(&b));
    struct kind_problems p;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_validate(&arena, kind_of(v), v, NULL, &p), 0);
    assert_true(p.count >= 100 && p.count < 1000);
    buf_release(&b);
}

static void test_a_wrong_type_is_always_told(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append_str(&b, "{'apiVersion':'v1','kind':'Namespace'");
    for (int i = 0; i < 1000; i++) buf_printf(&b, ",'u%d':1", i);
    buf_append_str(&b, ",'spec':{'finalizers':{'a':1}}}");
    struct json *v = parse(buf_cstr(&b));
    struct kind_problems p;
    bool told = false;
    kind_problems_init(&p, &arena);
    assert_int_equal(kind_prune(&arena, kind_of(v), v, &p), 0);
    for (const struct kind_problem *x = p.first; x; x = x->next) told |= x->type == PROBLEM_TYPE;
    assert_true(told && p.count < 1000);
    buf_release(&b);
}

static int way_in(struct arena *a, const char *text)
{
    struct json *v = parse_in(a, text);
    struct kind_problems p;
    if (!v) return ERR_NOMEM;
    kind_problems_init(&p, a);
    const struct kind *k = kind_by_name(json_path_text(v, "apiVersion"), json_path_text(v, "kind"));
    int rc = kind_prune(a, k, v, &p);
    if (!rc) rc = kind_default(a, k, v);
    if (!rc) rc = kind_validate(a, k, v, v, &p);
    for (struct kind_problem *x = p.first; x && !rc; x = x->next)
        if (!kind_problem_text(a, x)) rc = ERR_NOMEM;
    return rc;
}

static void test_every_allocation_fails_once(void **state)
{
    (void)state;
    static const char
        *const
            objects
                [] =
                    {
                        PODS(
                            "'what':1,'overhead':{'cpu':'x'}," BOX(
                                ",'livenessProbe':{},'resources':{'limits':{'cpu':'0.5','zzz':'1'}"
                                "}") ",'volumes':[{'name':'v'},{'name':'v'}],'restartPolicy':'X'"),
                        DEPLOY("'replicas':-1," LABELLED),
                        SERVICE("'ports':[{'port':1},{'port':1}]"),
                        "{'apiVersion':'v1','kind':'Secret'" META
                        ",'stringData':{'a b':'x'},'type':'kubernetes.io/tls'}",
                        "{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n','"
                        "creationTimestamp':'2020-01-01T00:00:00+01:00'}}",
                    };
    for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
        for (uint64_t nth = 1;; nth++) {
            struct arena a = {0};
            mem_fail_nth(nth);
            int rc = way_in(&a, objects[i]);
            bool fired = mem_fail_nth(0);
            arena_release(&a);
            if (rc != (fired ? ERR_NOMEM : 0))
                fail_msg("object %zu, allocation %d: %d", i, (int)nth, rc);
            if (!fired) break;
        }
    }
}

/* Whatever JSON is where an object should be: an answer, never more. */
static void test_mutated_objects(void **state)
{
    (void)state;
    static const char *const seeds[] = {
        PODS(BOX(",'ports':[{'containerPort':80,'name':'web'}],'env':[{'name':'A','value':'b'}],'"
                 "resources':{'limits':{'cpu':'1'}}") ",'tolerations':[{'key':'a','operator':'"
                                                      "Exists'}],'volumes':[{'name':'v','secret':{'"
                                                      "secretName':'s'}}]"),
        DEPLOY(LABELLED),
        SERVICE("'ports':[{'port':80}]"),
    };
    static const char *const values[] = {"null",  "true", "0",  "-1",   "1.5",    "\"\"",
                                         "\"x\"", "[]",   "{}", "[{}]", "[null]", "{\"a\":null}"};
    uint64_t rng = 88172645463325252ull;
    for (int round = 0; round < 20000; round++) {
        struct arena a = {0};
        struct json *v = parse_in(&a, seeds[round % 3]), *at = v, *up = NULL;
        size_t place = 0;
        rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
        for (uint64_t r = rng; at && at->type >= JSON_ARRAY && at->count && (up == NULL || r % 4);
             r /= 8) {
            up = at;
            place = (size_t)(r % up->count);
            at = up->type == JSON_ARRAY ? up->items[place] : up->members[place].value;
        }
        struct json *other =
            parse_in(&a, values[(rng >> 32) % (sizeof(values) / sizeof(values[0]))]);
        const struct kind *k =
            kind_by_name(json_path_text(v, "apiVersion"), json_path_text(v, "kind"));
        if (up->type == JSON_ARRAY) up->items[place] = other;
        else up->members[place].value = other;
        struct json *old = json_clone(&a, v), *cells;
        struct kind_problems p;
        kind_problems_init(&p, &a);
        assert_int_equal(kind_prune(&a, k, v, &p), 0);
        assert_int_equal(kind_table_cells(&a, k, old, 1800000000, &cells),
                         0); /* even unchecked ones */
        if (p.count == 0) {
            assert_int_equal(kind_default(&a, k, v), 0);
            assert_int_equal(kind_validate(&a, k, v, old, &p), 0);
            assert_int_equal(kind_table_cells(&a, k, v, 1800000000, &cells), 0);
        }
        arena_release(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unknown_fields_go_and_are_told),
        TEST(test_nothing_is_left_out_that_says_something),
        TEST(test_texts_get_their_canonical_form),
        TEST(test_wrong_types),
        TEST(test_duplicate_fields_are_told),
        TEST(test_pod_defaults),
        TEST(test_image_decides_the_pull_policy),
        TEST(test_requests_follow_limits_in_pods_only),
        TEST(test_workload_defaults),
        TEST(test_service_defaults),
        TEST(test_other_defaults),
        TEST(test_metadata),
        TEST(test_annotations_have_a_limit),
        TEST(test_pods),
        TEST(test_pod_updates),
        TEST(test_workloads),
        TEST(test_services),
        TEST(test_configuration),
        TEST(test_the_others),
        TEST(test_what_goes_takes_no_finalizers),
        TEST(test_many_new_finalizers_are_told_briefly),
        TEST(test_many_problems_are_bounded),
        TEST(test_a_wrong_type_is_always_told),
        TEST(test_every_allocation_fails_once),
        TEST(test_mutated_objects),
    };
    return cmocka_run_group_tests(tests, load_kinds, NULL);
}
