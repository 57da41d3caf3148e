/* The scheduler's model, filters, scores and queue. */
#include "tests/unit/clients/mock_server.h"

#include "clients/scheduler/queue.h"

struct world {
    struct fit *fit;
    struct arena arena;
    struct fit_pod pods[64];
    int n;
};

static struct kube_object *object(struct world *w, const char *text)
{
    struct buf b = {0};
    for (const char *p = text; *p; p++) buf_append_byte(&b, *p == '\'' ? '"' : (uint8_t)*p);
    struct json *v = NULL;
    struct json_error e = {0};
    if (json_parse(&w->arena, buf_slice(&b), JSON_COPY, &v, &e))
        fail_msg("%s: %s at %zu", text, e.text, e.offset);
    buf_release(&b);
    struct kube_object *o = kube_object_new(v);
    assert_non_null(o);
    return o;
}

static void add_node(struct world *w, const char *name, const char *labels, const char *spec,
                     const char *allocatable)
{
    char text[1024];
    snprintf(text, sizeof(text),
             "{'metadata':{'name':'%s','labels':{%s}},'spec':{%s},'status':{'allocatable':{%s}}}",
             name, labels, spec, allocatable);
    struct kube_object *o = object(w, text);
    fit_node_set(w->fit, o);
    kube_object_unref(o);
}

static struct fit_pod *add_pod(struct world *w, const char *spec)
{
    char text[2048];
    struct fit_pod *p = &w->pods[w->n];
    snprintf(text, sizeof(text),
             "{'metadata':{'name':'p%d','namespace':'d','labels':{'app':'a'}},'spec':{%s}}", w->n++,
             spec);
    struct kube_object *o = object(w, text);
    fit_pod_init(w->fit, p, o);
    kube_object_unref(o);
    return p;
}

static void setup(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->fit = fit_new();
}

static void teardown(struct world *w)
{
    for (int i = 0; i < w->n; i++) fit_pod_release(w->fit, &w->pods[i]);
    fit_free(w->fit);
    arena_release(&w->arena);
}

/* The node's name, or why there is none. */
static const char *pick(struct world *w, const struct fit_pod *p)
{
    static char text[512];
    struct buf why = {0};
    struct fit_node *n = fit_pick(w->fit, p, &why);
    snprintf(text, sizeof(text), "%s", n ? n->name : buf_cstr(&why));
    buf_release(&why);
    return text;
}

#define SMALL "'cpu':'1','memory':'1Gi','pods':'3'"
#define ASK(cpu, memory)                                                                           \
    "'containers':[{'resources':{'requests':{'cpu':'" cpu "','memory':'" memory "'}}}]"

static void test_resources(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    assert_string_equal(pick(&w, add_pod(&w, ASK("1", "1"))),
                        "no nodes available to schedule pods");
    add_node(&w, "n1", "", "", SMALL);
    assert_string_equal(pick(&w, add_pod(&w, ASK("1", "1Gi"))), "n1"); /* exactly full is allowed */
    assert_string_equal(pick(&w, add_pod(&w, ASK("1001m", "1"))),
                        "0/1 nodes are available: 1 Insufficient cpu.");
    assert_string_equal(pick(&w, add_pod(&w, ASK("2", "2Gi"))),
                        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.");
    assert_string_equal(
        pick(&w, add_pod(&w, "'containers':[{'resources':{'requests':{'nvidia.com/gpu':'1'}}}]")),
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
    struct fit_pod *p = add_pod(&w, ASK("600m", "1Mi")), *q = add_pod(&w, ASK("500m", "1Mi"));
    fit_assign(w.fit, p, SLICE_LIT("n1"));
    assert_string_equal(pick(&w, q), "0/1 nodes are available: 1 Insufficient cpu.");
    fit_unassign(w.fit, p);
    assert_string_equal(pick(&w, q), "n1");
    for (int i = 0; i < 3; i++)
        fit_assign(w.fit, add_pod(&w, "'containers':[{}]"), SLICE_LIT("n1"));
    assert_string_equal(pick(&w, add_pod(&w, "'containers':[{}]")),
                        "0/1 nodes are available: 1 Too many pods.");
    add_node(&w, "n2", "", "'unschedulable':true", SMALL);
    assert_string_equal(pick(&w, q),
                        "0/2 nodes are available: 1 Too many pods, 1 node(s) were unschedulable.");
    teardown(&w);
}

static void test_init_containers(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int64_t cpu;
    } t[] = {
        {"'containers':[{'resources':{'requests':{'cpu':'100m'}}},{'resources':{'requests':{'cpu':'"
         "200m'}}}]",
         300},
        /* the largest init container counts if it is larger than all containers together */
        {"'initContainers':[{'resources':{'requests':{'cpu':'500m'}}},{'resources':{'requests':{'"
         "cpu':'400m'}}}],"
         "'containers':[{'resources':{'requests':{'cpu':'100m'}}}]",
         500},
        {"'initContainers':[{'resources':{'requests':{'cpu':'50m'}}}],'containers':[{'resources':{'"
         "requests':{'cpu':'100m'}}}]",
         100},
        /* a sidecar runs beside the containers, and beside the init containers behind it */
        {"'initContainers':[{'restartPolicy':'Always','resources':{'requests':{'cpu':'50m'}}},"
         "{'resources':{'requests':{'cpu':'120m'}}}],'containers':[{'resources':{'requests':{'cpu':"
         "'100m'}}}]",
         170},
        {"'initContainers':[{'resources':{'requests':{'cpu':'120m'}}},{'restartPolicy':'Always','"
         "resources':{'requests':{'cpu':'50m'}}}],"
         "'containers':[{'resources':{'requests':{'cpu':'100m'}}}]",
         150},
        {"'overhead':{'cpu':'7m'},'containers':[{'resources':{'requests':{'cpu':'100m'}}}]", 107},
    };
    struct world w;
    setup(&w);
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
        struct fit_pod *p = add_pod(&w, t[i].spec);
        if (p->request[RESOURCE_CPU] != t[i].cpu)
            fail_msg("%s: %lld", t[i].spec, (long long)p->request[RESOURCE_CPU]);
    }
    struct fit_pod *none = add_pod(&w, "'containers':[{}]");
    assert_int_equal(none->request[RESOURCE_CPU], 0);
    assert_int_equal(none->nonzero_cpu, 100);
    assert_int_equal(none->nonzero_memory, 200 << 20);
    struct fit_pod *bytes = add_pod(&w, ASK("0", "1500m")); /* parts of a byte are rounded up */
    assert_int_equal(bytes->request[RESOURCE_MEMORY], 2);
    teardown(&w);
}

static void test_filters(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    add_node(&w, "n1", "'disk':'ssd'", "'taints':[{'key':'k','value':'v','effect':'NoSchedule'}]",
             SMALL);
    add_node(&w, "n2", "'disk':'hdd'", "'taints':[{'key':'gone','effect':'NoExecute'}]", SMALL);
    add_node(&w, "n3", "'disk':'hdd'",
             "'unschedulable':true,'taints':[{'key':'node.kubernetes.io/"
             "unschedulable','effect':'NoSchedule'}]",
             SMALL);
    assert_string_equal(pick(&w, add_pod(&w, "'containers':[{}]")),
                        "0/3 nodes are available: 1 node(s) had untolerated taint {gone: }, 1 "
                        "node(s) had untolerated taint {k: v}, 1 node(s) "
                        "were unschedulable.");
    assert_string_equal(
        pick(&w, add_pod(&w, "'tolerations':[{'key':'k','operator':'Exists'}],'containers':[{}]")),
        "n1");
    assert_string_equal(
        pick(&w, add_pod(&w, "'tolerations':[{'key':'node.kubernetes.io/"
                             "unschedulable','operator':'Exists'}],'containers':[{}]")),
        "n3");
    assert_string_equal(pick(&w, add_pod(&w, "'nodeSelector':{'disk':'ssd'},'tolerations':[{'"
                                             "operator':'Exists'}],'containers':[{}]")),
                        "n1");
    assert_string_equal(
        pick(&w, add_pod(&w, "'nodeSelector':{'disk':'tape'},'tolerations':[{'operator':'Exists'}],"
                             "'containers':[{}]")),
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.");
    assert_string_equal(
        pick(&w,
             add_pod(&w, "'affinity':{'nodeAffinity':{'"
                         "requiredDuringSchedulingIgnoredDuringExecution':{'nodeSelectorTerms':[{"
                         "'matchFields':[{'key':'metadata.name','operator':'In','values':['n2']}]}]"
                         "}}},'tolerations':[{'operator':'Exists'}],"
                         "'containers':[{}]")),
        "n2");
    teardown(&w);
}

static void test_ports(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    add_node(&w, "n1", "", "", "'cpu':'8','memory':'8Gi','pods':'100'");
    fit_assign(w.fit, add_pod(&w, "'containers':[{'ports':[{'hostPort':80,'hostIP':'10.0.0.1'}]}]"),
               SLICE_LIT("n1"));
    static const struct {
        const char *ports;
        bool fits;
    } t[] = {{"{'hostPort':80}", false},
             {"{'hostPort':80,'hostIP':'10.0.0.1'}", false},
             {"{'hostPort':80,'hostIP':'10.0.0.2'}", true},
             {"{'hostPort':80,'protocol':'UDP'}", true},
             {"{'hostPort':81}", true},
             {"{'containerPort':80}", true}};
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
        char spec[256];
        snprintf(spec, sizeof(spec), "'containers':[{'ports':[%s]}]", t[i].ports);
        const char *got = pick(&w, add_pod(&w, spec));
        if (t[i].fits != !strcmp(got, "n1")) fail_msg("%s: %s", t[i].ports, got);
    }
    assert_string_equal(
        pick(&w, add_pod(&w, "'hostNetwork':true,'containers':[{'ports':[{'containerPort':80}]}]")),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.");
    teardown(&w);
}

static void test_scores(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    add_node(&w, "busy", "", "", "'cpu':'8','memory':'8Gi','pods':'100'");
    add_node(&w, "idle", "", "", "'cpu':'8','memory':'8Gi','pods':'100'");
    add_node(&w, "soft", "", "'taints':[{'key':'x','effect':'PreferNoSchedule'}]",
             "'cpu':'80','memory':'80Gi','pods':'100'");
    struct fit_pod *big = add_pod(&w, "'schedulerName':'x'," ASK("4", "4Gi"));
    fit_assign(w.fit, big, SLICE_LIT("busy"));
    for (int i = 0; i < 3; i++) assert_string_equal(pick(&w, add_pod(&w, ASK("1", "1Gi"))), "idle");
    add_node(&w, "other", "", "", "'cpu':'8','memory':'8Gi','pods':'100'");
    for (int i = 0; i < 4; i++)
        assert_string_equal(
            pick(&w,
                 add_pod(
                     &w,
                     "'affinity':{'nodeAffinity':{'preferredDuringSchedulingIgnoredDuringExecution'"
                     ":[{'weight':100,'preference':{"
                     "'matchFields':[{'key':'metadata.name','operator':'In','values':['other']}]}}]"
                     "}}," ASK("1", "1Gi"))),
            "other");
    teardown(&w);
}

static void test_spread(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        add_node(&w, name, "", "", "'cpu':'8','memory':'8Gi','pods':'100'");
    }
    int count[5] = {0};
    for (int i = 0; i < 20; i++) { /* one group, by their labels */
        struct fit_pod *p = add_pod(&w, ASK("10m", "10Mi"));
        const char *n = pick(&w, p);
        count[n[1] - '0']++;
        fit_assign(w.fit, p, slice_str(n));
    }
    for (int i = 0; i < 5; i++) assert_int_equal(count[i], 4);
    /* a node that only pods name takes none, and goes away with its last pod */
    struct fit_pod *ghost = add_pod(&w, ASK("10m", "10Mi"));
    fit_assign(w.fit, ghost, SLICE_LIT("ghost"));
    assert_int_equal(fit_nodes(w.fit), 5);
    fit_unassign(w.fit, ghost);
    assert_null(fit_node_get(w.fit, SLICE_LIT("ghost")));
    fit_node_remove(w.fit, SLICE_LIT("n0"));
    assert_int_equal(fit_nodes(w.fit), 4);
    assert_string_not_equal(pick(&w, ghost), "n0");
    teardown(&w);
}

static void test_what_wakes(void **state)
{
    (void)state;
    struct world w;
    setup(&w);
    struct kube_object *o =
        object(&w, "{'metadata':{'name':'n'},'status':{'allocatable':{'cpu':'1'}}}");
    assert_true(fit_node_set(w.fit, o));
    assert_false(fit_node_set(w.fit, o)); /* a heartbeat */
    kube_object_unref(o);
    o = object(&w, "{'metadata':{'name':'n'},'status':{'allocatable':{'cpu':'2'}}}");
    assert_true(fit_node_set(w.fit, o));
    kube_object_unref(o);
    o = object(&w, "{'metadata':{'name':'n'},'spec':{'unschedulable':true},'status':{'allocatable':"
                   "{'cpu':'2'}}}");
    assert_true(fit_node_set(w.fit, o));
    kube_object_unref(o);
    teardown(&w);
}

static void test_queue(void **state)
{
    (void)state;
    struct sched_queue q;
    struct sched_pod p[4];
    memset(p, 0, sizeof(p));
    sched_queue_init(&q);
    for (int i = 0; i < 4; i++) list_init(&p[i].link);
    p[2].priority = 10;
    for (int i = 0; i < 4; i++) sched_queue_set(&q, &p[i], POD_READY);
    assert_ptr_equal(sched_queue_next(&q), &p[2]); /* the most important */
    sched_queue_set(&q, &p[2], POD_BOUND);
    assert_ptr_equal(sched_queue_next(&q), &p[0]); /* then the first */
    sched_queue_failed(&q, &p[0], 1000, true);
    sched_queue_failed(&q, &p[1], 1000, false);
    assert_int_equal(sched_queue_tick(&q, 1500), 2000);
    sched_queue_move(&q, 1500); /* something changed, but its pause is not over */
    assert_int_equal(p[0].state, POD_RESTING);
    sched_queue_tick(&q, 2000);
    assert_int_equal(p[0].state, POD_READY);
    assert_int_equal(p[1].state, POD_READY);
    uint64_t now = 2000;
    for (int i = 0; i < 8; i++) { /* 2, 4, 8, 10, 10 ... seconds */
        sched_queue_failed(&q, &p[0], now, false);
        uint64_t want = i < 3 ? 2000u << i : 10000;
        assert_int_equal(p[0].ready_ms - now, want);
        now = p[0].ready_ms;
        sched_queue_tick(&q, now);
    }
    sched_queue_failed(&q, &p[3], now, true);
    sched_queue_tick(&q, now + 59999);
    assert_int_equal(p[3].state, POD_UNSCHEDULABLE);
    sched_queue_tick(&q, now + 60000);
    assert_int_equal(p[3].state, POD_READY);
    assert_int_equal(q.n_unschedulable + q.n_resting, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resources),  cmocka_unit_test(test_init_containers),
        cmocka_unit_test(test_filters),    cmocka_unit_test(test_ports),
        cmocka_unit_test(test_scores),     cmocka_unit_test(test_spread),
        cmocka_unit_test(test_what_wakes), cmocka_unit_test(test_queue),
    };
    return cmocka_run_group_tests_name("clients/scheduler", tests, NULL, NULL);
}
