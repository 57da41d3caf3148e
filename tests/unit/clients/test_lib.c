/* The parts without a server: maps, patterns, times, selectors, kubeconfig, work queue, leader
 * election on a fake clock. */
#include "tests/unit/clients/mock_server.h"

#include "base/clock.h"
#include "base/mem.h"
#include "clients/lib/app.h"
#include "clients/lib/kjson.h"
#include "clients/lib/leader.h"
#include "clients/lib/selector.h"
#include "clients/lib/smap.h"
#include "clients/lib/workqueue.h"

static struct json *parse(struct arena *a, const char *text)
{
    struct buf b = {0};
    for (const char *p = text; *p; p++) buf_append_byte(&b, *p == '\'' ? '"' : (uint8_t)*p);
    struct json *v = NULL;
    struct json_error e = {0};
    int rc = json_parse(a, buf_slice(&b), JSON_COPY, &v, &e);
    if (rc) fail_msg("%s: %s at %zu", text, e.text, e.offset);
    buf_release(&b);
    return v;
}

/* ---- smap, kjson, time ---------------------------------------------------------------------- */

struct thing {
    struct smap_node node;
    char key[16];
};

static void test_smap(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct smap m = {0};
    struct thing *t = calloc(N, sizeof(*t));
    assert_null(smap_find(&m, SLICE_LIT("x")));
    for (int i = 0; i < N; i++) {
        snprintf(t[i].key, sizeof(t[i].key), "k%d", i);
        smap_insert(&m, &t[i].node, slice_str(t[i].key));
    }
    for (int i = 0; i < N; i += 2) smap_remove(&m, &t[i].node);
    for (int i = 0; i < N; i++)
        assert_ptr_equal(smap_entry(&m, slice_str(t[i].key), struct thing, node),
                         i % 2 ? &t[i] : NULL);
    size_t seen = 0;
    smap_for_each(node, &m)
    {
        seen++;
        smap_remove(&m, node);
    }
    assert_int_equal(seen, N / 2);
    assert_int_equal(m.count, 0);
    smap_release(&m);
    free(t);
}

static void test_kjson(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buf out = {0};
    struct json *v =
        kjson(&a,
              "{metadata:{name:s,labels:o?,uid:s?,annotations:{$:t}},spec:{n:i,on:b,list:[s,{k:'v'}"
              ",[]]},x:N,y:T}",
              "web", (struct json *)NULL, "", "a.b/c", SLICE_LIT("d\"e"), (int64_t)7, 1, "first");
    assert_non_null(v);
    json_write(&out, v);
    assert_string_equal(
        buf_cstr(&out),
        "{\"metadata\":{\"name\":\"web\",\"annotations\":{\"a.b/c\":\"d\\\"e\"}},\"spec\":{\"n\":7,"
        "\"on\":true,\"list\":[\"first\",{\"k\":\"v\"},[]]},\"x\":null,\"y\":true}");
    buf_release(&out);
    arena_release(&a);
    for (uint64_t nth = 1; nth < 4; nth++) {
        mem_fail_nth(nth);
        v = kjson(&a, "{a:{b:[s,s,s]},c:o}", "1", "2", "3", (struct json *)NULL);
        if (mem_fail_nth(0)) assert_null(v);
        arena_release(&a);
    }
}

static void test_time(void **state)
{
    (void)state;
    struct arena a = {0};
    int64_t ms;
    assert_true(kjson_parse_time(SLICE_LIT("2026-11-20T21:05:07.250Z"), &ms));
    assert_int_equal(ms % 1000, 250);
    assert_string_equal(kjson_time(&a, ms), "2026-11-20T21:05:07Z");
    assert_string_equal(kjson_micro_time(&a, ms), "2026-11-20T21:05:07.250000Z");
    int64_t other;
    assert_true(kjson_parse_time(SLICE_LIT("2026-11-20T23:05:07.250000+02:00"), &other));
    assert_int_equal(ms, other);
    const char *bad[] = {"", "2026-11-20", "2026-11-20T21:05:07", "2026-11-20T21:05:07X",
                         "yesterday, at some time or so"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(kjson_parse_time(slice_str(bad[i]), &ms));
    uint64_t d;
    assert_true(app_parse_duration("1m30s", &d) && d == 90000);
    assert_true(app_parse_duration("300ms", &d) && d == 300);
    assert_true(app_parse_duration("40", &d) && d == 40000);
    assert_true(app_parse_duration("1.5h", &d) && d == 5400000);
    assert_false(app_parse_duration("", &d) || app_parse_duration("-1s", &d) ||
                 app_parse_duration("1x", &d) || app_parse_duration("s", &d) ||
                 app_parse_duration("1sm", &d));
    arena_release(&a);
}

static void test_flags(void **state)
{
    (void)state;
    const char *name = NULL;
    int64_t n = 3;
    bool on = false;
    uint64_t t = 0;
    struct app_flag f[] = {{"name", FLAG_STRING, &name, "N", ""},
                           {"count", FLAG_INT, &n, "3", ""},
                           {"on", FLAG_BOOL, &on, "true|false", ""},
                           {"wait", FLAG_DURATION_MS, &t, "1s", ""}};
    char *ok[] = {"x", "--name=a=b", "--count", "12", "--on", "--wait", "2s", NULL};
    assert_int_equal(app_flags("x", f, 4, 7, ok), -1);
    assert_string_equal(name, "a=b");
    assert_true(n == 12 && on && t == 2000);
    char *bad[][3] = {{"x", "--nope", NULL}, {"x", "--count=1z", NULL}, {"x", "--count", NULL},
                      {"x", "word", NULL},   {"x", "--on=maybe", NULL}, {"x", "--wait=soon", NULL}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_int_equal(app_flags("x", f, 4, 2, bad[i]), 2);
}

/* ---- selectors ------------------------------------------------------------------------------ */

static void test_label_selectors(void **state)
{
    (void)state;
    static const struct {
        const char *selector, *labels;
        bool fits;
    } t[] = {
        {"{}", "{}", true},
        {"{'matchLabels':{'a':'1'}}", "{'a':'1','b':'2'}", true},
        {"{'matchLabels':{'a':'1'}}", "{'a':'2'}", false},
        {"{'matchLabels':{'a':'1','c':'1'}}", "{'a':'1'}", false},
        {"{'matchExpressions':[{'key':'a','operator':'In','values':['1','2']}]}", "{'a':'2'}",
         true},
        {"{'matchExpressions':[{'key':'a','operator':'In','values':['1','2']}]}", "{}", false},
        {"{'matchExpressions':[{'key':'a','operator':'NotIn','values':['1']}]}", "{}", true},
        {"{'matchExpressions':[{'key':'a','operator':'NotIn','values':['1']}]}", "{'a':'1'}",
         false},
        {"{'matchExpressions':[{'key':'a','operator':'Exists'}]}", "{'a':''}", true},
        {"{'matchExpressions':[{'key':'a','operator':'DoesNotExist'}]}", "{'a':''}", false},
        {"{'matchExpressions':[{'key':'a','operator':'Gt','values':['5']}]}", "{'a':'6'}", true},
        {"{'matchExpressions':[{'key':'a','operator':'Gt','values':['5']}]}", "{'a':'5'}", false},
        {"{'matchExpressions':[{'key':'a','operator':'Lt','values':['5']}]}", "{'a':'-6'}", true},
        {"{'matchExpressions':[{'key':'a','operator':'Lt','values':['5']}]}", "{'a':'x'}", false},
        {"{'matchExpressions':[{'key':'a','operator':'Odd','values':['5']}]}", "{'a':'5'}", false},
        {"{'matchLabels':{'a':'1'},'matchExpressions':[{'key':'b','operator':'Exists'}]}",
         "{'a':'1'}", false},
    };
    struct arena a = {0};
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
        if (label_selector_matches(parse(&a, t[i].selector), parse(&a, t[i].labels)) != t[i].fits)
            fail_msg("%s on %s: expected %d", t[i].selector, t[i].labels, t[i].fits);
    assert_false(label_selector_matches(NULL, parse(&a, "{}")));
    assert_false(selector_map_matches(parse(&a, "{}"), parse(&a, "{'a':'1'}")));
    assert_true(selector_map_matches(parse(&a, "{'a':'1'}"), parse(&a, "{'a':'1','b':'1'}")));
    assert_false(selector_map_matches(parse(&a, "{'a':'1'}"), NULL));
    struct err e;
    assert_int_equal(
        selector_check(parse(&a, "{'matchExpressions':[{'key':'a','operator':'Gt'}]}"), &e),
        ERR_INVALID);
    arena_release(&a);
}

static void test_node_selectors(void **state)
{
    (void)state;
    struct arena a = {0};
    struct json *labels = parse(&a, "{'zone':'a','cpu':'8'}");
    static const struct {
        const char *selector;
        bool fits;
    } t[] = {
        {"{'nodeSelectorTerms':[]}", false},
        {"{'nodeSelectorTerms':[{}]}", false},
        {"{'nodeSelectorTerms':[{'matchExpressions':[{'key':'zone','operator':'In','values':['a']}]"
         "}]}",
         true},
        {"{'nodeSelectorTerms':[{'matchExpressions':[{'key':'zone','operator':'In','values':['b']}]"
         "},"
         "{'matchExpressions':[{'key':'cpu','operator':'Gt','values':['4']}]}]}",
         true},
        {"{'nodeSelectorTerms':[{'matchExpressions':[{'key':'zone','operator':'In','values':['a']},"
         "{'key':'cpu','operator':'Lt','values':['4']}]}]}",
         false},
        {"{'nodeSelectorTerms':[{'matchFields':[{'key':'metadata.name','operator':'In','values':['"
         "n1']}]}]}",
         true},
        {"{'nodeSelectorTerms':[{'matchFields':[{'key':'metadata.name','operator':'NotIn','values':"
         "['n1']}]}]}",
         false},
        {"{'nodeSelectorTerms':[{'matchFields':[{'key':'metadata.uid','operator':'In','values':['"
         "n1']}]}]}",
         false},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
        if (node_selector_matches(parse(&a, t[i].selector), labels, SLICE_LIT("n1")) != t[i].fits)
            fail_msg("%s: expected %d", t[i].selector, t[i].fits);
    assert_true(node_selector_matches(NULL, labels, SLICE_LIT("n1")));
    arena_release(&a);
}

static void test_tolerations(void **state)
{
    (void)state;
    struct arena a = {0};
    struct json *taint = parse(&a, "{'key':'k','value':'v','effect':'NoSchedule'}");
    static const struct {
        const char *toleration;
        bool fits;
    } t[] = {
        {"{'key':'k','operator':'Equal','value':'v','effect':'NoSchedule'}", true},
        {"{'key':'k','value':'v'}", true},
        {"{'key':'k','value':'other'}", false},
        {"{'key':'k','operator':'Exists'}", true},
        {"{'key':'j','operator':'Exists'}", false},
        {"{'operator':'Exists'}", true},
        {"{'operator':'Exists','effect':'NoExecute'}", false},
        {"{'key':'k','operator':'Exists','effect':'NoExecute'}", false},
        {"{}", false},
        {"{'operator':'Sometimes','key':'k'}", false},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
        if (toleration_tolerates(parse(&a, t[i].toleration), taint) != t[i].fits)
            fail_msg("%s: expected %d", t[i].toleration, t[i].fits);
    arena_release(&a);
}

/* ---- kubeconfig ----------------------------------------------------------------------------- */

static const char good_config[] =
    "apiVersion: v1\nkind: Config\ncurrent-context: one\n"
    "clusters:\n- name: c\n  cluster:\n    server: https://127.0.0.1:6443\n"
    "    certificate-authority: pki/ca.crt\n    extensions:\n    - name: pintle/servers\n"
    "      extension: {servers: [\"https://127.0.0.1:1\", \"https://127.0.0.1:2\"]}\n"
    "- name: d\n  cluster: {server: \"http://a:1, http://b:2/\", certificate-authority-data: "
    "aGVsbG8=}\n"
    "users:\n- name: u\n  user: {client-certificate: /abs/c.crt, client-key-data: a2V5, token: "
    "0123}\n"
    "contexts:\n- name: one\n  context: {cluster: c, user: u, namespace: ns1}\n"
    "- name: two\n  context: {cluster: d, user: \"\"}\n"
    "- name: lost\n  context: {cluster: nowhere, user: u}\n";

static void test_kubeconfig(void **state)
{
    (void)state;
    struct kube_config c;
    struct err e = {{0}};
    assert_int_equal(kube_config_parse(slice_str(good_config), "/etc/k", NULL, &c, &e), 0);
    assert_int_equal(c.n_servers, 2);
    assert_string_equal(c.servers[1], "https://127.0.0.1:2");
    assert_string_equal(c.tls.ca_file, "/etc/k/pki/ca.crt");
    assert_string_equal(c.tls.cert_file, "/abs/c.crt");
    assert_true(slice_eq_str(c.tls.key_pem, "key"));
    assert_string_equal(c.namespace_, "ns1");
    kube_config_release(&c);
    assert_int_equal(kube_config_parse(slice_str(good_config), "/etc/k", "two", &c, &e), 0);
    assert_int_equal(c.n_servers, 2);
    assert_string_equal(c.servers[1], "http://b:2");
    assert_true(slice_eq_str(c.tls.ca_pem, "hello"));
    assert_null(c.token);
    kube_config_release(&c);
    assert_int_equal(kube_config_parse(slice_str(good_config), "", "lost", &c, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "nowhere"));
    assert_int_equal(kube_config_parse(slice_str(good_config), "", "absent", &c, &e),
                     ERR_NOT_FOUND);
}

static void test_kubeconfig_bad(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "a: [",
        "current-context: x",
        "\t",
        "current-context: o\ncontexts: [{name: o, context: {cluster: c}}]\nclusters: [{name: c, "
        "cluster: {}}]",
        "current-context: o\ncontexts: [{name: o, context: {cluster: c}}]\nclusters: [{name: c, "
        "cluster: {server: s, "
        "certificate-authority-data: '***'}}]",
        "current-context: o\ncontexts: [{name: o, context: {cluster: c, user: u}}]\nclusters: "
        "[{name: c, cluster: {server: s}}]\n"
        "users: [{name: u, user: {exec: {command: x}}}]",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct kube_config c;
        struct err e = {{0}};
        int rc = kube_config_parse(slice_str(bad[i]), NULL, NULL, &c, &e);
        if (rc == 0 || !e.text[0]) fail_msg("accepted, or without a sentence: %s", bad[i]);
    }
    struct kube_config c;
    struct err e = {{0}};
    assert_int_equal(kube_config_load("/nonexistent/kubeconfig", NULL, &c, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nonexistent/kubeconfig"));
    for (size_t len = 0; len < sizeof(good_config);
         len++) { /* every truncation: an error or a config, never a crash */
        if (kube_config_parse(slice_make(good_config, len), NULL, "one", &c, &e) == 0)
            kube_config_release(&c);
    }
    for (uint64_t nth = 1; nth < 30; nth++) {
        mem_fail_nth(nth);
        int rc = kube_config_parse(slice_str(good_config), NULL, NULL, &c, &e);
        mem_fail_nth(0);
        if (rc == 0) kube_config_release(&c);
    }
}

/* ---- work queue ----------------------------------------------------------------------------- */

struct work {
    struct workqueue *q;
    char log[512], held[64];
    int n, fail_first, hold;
    uint64_t at[16];
};

static void process(void *ctx, struct slice key)
{
    struct work *w = ctx;
    if (w->n < 16) w->at[w->n] = clock_mono_ms();
    w->n++;
    size_t at = strlen(w->log);
    snprintf(w->log + at, sizeof(w->log) - at, "%.*s ", (int)key.len, key.data);
    if (w->hold) {
        snprintf(w->held, sizeof(w->held), "%.*s", (int)key.len, key.data);
        return;
    }
    workqueue_done(w->q, key, w->n <= w->fail_first);
}

static void run_loop(uv_loop_t *loop)
{
    while (uv_run(loop, UV_RUN_NOWAIT)) {
    }
}

static void test_workqueue(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct work w = {0};
    w.q = workqueue_new(&loop,
                        &(struct workqueue_options){.process = process, .ctx = &w, .workers = 1});
    workqueue_add(w.q, SLICE_LIT("a"));
    workqueue_add(w.q, SLICE_LIT("b"));
    workqueue_add(w.q, SLICE_LIT("a"));
    assert_int_equal(w.n, 0); /* never from inside an add */
    run_until(&loop, w.n == 2);
    assert_string_equal(w.log, "a b ");
    /* added while in work: once more after it, however often */
    w.hold = 1;
    workqueue_add(w.q, SLICE_LIT("c"));
    run_until(&loop, w.held[0]);
    workqueue_add(w.q, SLICE_LIT("c"));
    workqueue_add(w.q, SLICE_LIT("c"));
    workqueue_add(w.q, SLICE_LIT("d"));
    run_loop(&loop);
    assert_int_equal(w.n, 3); /* one worker */
    w.hold = 0;
    workqueue_done(w.q, SLICE_LIT("c"), false);
    run_until(&loop, w.n == 5);
    run_loop(&loop);
    assert_int_equal(w.n, 5);
    assert_string_equal(w.log, "a b c d c ");
    workqueue_free(w.q);
    run_loop(&loop);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_workqueue_backoff_and_delay(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct work w = {.fail_first = 4};
    w.q = workqueue_new(
        &loop, &(struct workqueue_options){.process = process, .ctx = &w, .backoff_min_ms = 8});
    workqueue_add(w.q, SLICE_LIT("f"));
    run_until(&loop, w.n == 3);
    assert_int_equal(workqueue_failures(w.q, SLICE_LIT("f")), 3);
    run_until(&loop, w.n == 5);
    for (int i = 1; i < 5; i++) assert_true(w.at[i] - w.at[i - 1] + 2 >= (uint64_t)8 << (i - 1));
    assert_int_equal(workqueue_failures(w.q, SLICE_LIT("f")), 0);
    /* delayed: the earlier time wins, an add does not wait, and it is done once */
    w.n = w.fail_first = 0;
    w.log[0] = 0;
    workqueue_add_after(w.q, SLICE_LIT("late"), 30);
    workqueue_add_after(w.q, SLICE_LIT("late"), 60000);
    workqueue_add_after(w.q, SLICE_LIT("now"), 60000);
    for (int i = 0; i < 50; i++) {
        char key[16];
        snprintf(key, sizeof(key), "x%d", i);
        workqueue_add_after(w.q, slice_str(key), 50000 - (uint64_t)i * 100);
    }
    workqueue_add(w.q, SLICE_LIT("now"));
    run_until(&loop, w.n == 2);
    assert_string_equal(w.log, "now late ");
    workqueue_pause(w.q, true);
    workqueue_add(w.q, SLICE_LIT("paused"));
    uint64_t until = clock_mono_ms() + 30;
    while (clock_mono_ms() < until) uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(w.n, 2);
    workqueue_pause(w.q, false);
    run_until(&loop, w.n == 3);
    workqueue_free(w.q);
    run_loop(&loop);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- leader election ------------------------------------------------------------------------ */

/* Two candidates and one lease with optimistic concurrency; each has a clock of its own. */
struct lease_world {
    struct arena arena;
    struct json *lease;
    int version;
    struct leader_core a, b;
};

static struct leader_config leader_options(const char *id)
{
    return (struct leader_config){"ns", "l", id, 15000, 10000, 2000};
}

/* One try of a candidate at its own time `now`; wall clock `wall`. Returns whether it leads after
 * it. */
static bool try_once(struct lease_world *w, struct leader_core *c, uint64_t now, int64_t wall)
{
    enum leader_step step = leader_core_try(c, now);
    if (step == LEADER_READ) step = leader_core_read(c, now, w->lease);
    if (step == LEADER_WAIT) return c->leading;
    struct json *lease = leader_core_lease(c, &w->arena, wall, false);
    assert_non_null(lease);
    struct slice version = json_path_text(lease, "metadata.resourceVersion");
    struct slice current = json_path_text(w->lease, "metadata.resourceVersion");
    if (step == LEADER_CREATE ? w->lease != NULL : !slice_eq(version, current))
        return c->leading; /* conflict */
    char text[16];
    snprintf(text, sizeof(text), "%d", ++w->version);
    json_set(&w->arena, json_get(lease, "metadata"), SLICE_LIT("resourceVersion"),
             json_string_copy(&w->arena, slice_str(text)));
    w->lease = json_clone(&w->arena, lease);
    leader_core_written(c, now, w->lease);
    return c->leading;
}

static void lease_world_init(struct lease_world *w)
{
    memset(w, 0, sizeof(*w));
    struct leader_config a = leader_options("a"), b = leader_options("b");
    leader_core_init(&w->a, &a);
    leader_core_init(&w->b, &b);
}

static void test_leader_fails_over(void **state)
{
    (void)state;
    struct lease_world w;
    lease_world_init(&w);
    /* b's wall clock is an hour ahead and its monotonic clock is elsewhere: it must not matter */
    const uint64_t skew = 1000000;
    assert_true(try_once(&w, &w.a, 1000, 5000));
    assert_false(try_once(&w, &w.b, skew + 1000, 3605000));
    for (uint64_t t = 3000; t <= 31000; t += 2000) {
        assert_true(try_once(&w, &w.a, t, (int64_t)t + 4000));
        assert_false(try_once(&w, &w.b, skew + t, (int64_t)t + 3604000));
        assert_false(leader_core_lost(&w.a, t));
    }
    /* a stops at 31,000; b last saw it change then, and may take it at 46,000 and not before */
    uint64_t t;
    for (t = 33000; t < 46000; t += 1000) assert_false(try_once(&w, &w.b, skew + t, 0));
    assert_false(leader_core_lost(&w.a, 40999));
    assert_true(leader_core_lost(&w.a, 41000)); /* renew deadline: before b may start */
    assert_false(w.a.leading);
    assert_true(try_once(&w, &w.b, skew + 46000, 0));
    assert_int_equal(json_path_int(w.lease, "spec.leaseTransitions", -1), 1);
    /* a comes back and waits */
    assert_false(try_once(&w, &w.a, 47000, 51000));
    arena_release(&w.arena);
}

static void test_leader_release_and_theft(void **state)
{
    (void)state;
    struct lease_world w;
    lease_world_init(&w);
    assert_true(try_once(&w, &w.a, 0, 0));
    assert_false(try_once(&w, &w.b, 0, 0));
    /* released: the other takes it at its next try */
    w.lease = json_clone(&w.arena, leader_core_lease(&w.a, &w.arena, 100, true));
    assert_true(json_is_str(json_path(w.lease, "spec.holderIdentity"), ""));
    w.a.leading = false;
    assert_true(try_once(&w, &w.b, 100, 100));
    /* somebody else's name appears in the lease: we stop as soon as we see it */
    w.lease = json_clone(&w.arena, w.lease);
    json_set(&w.arena, json_get(w.lease, "spec"), SLICE_LIT("holderIdentity"),
             json_str(&w.arena, "c"));
    json_set(&w.arena, json_get(w.lease, "metadata"), SLICE_LIT("resourceVersion"),
             json_str(&w.arena, "99"));
    try_once(&w, &w.b, 200, 200); /* its optimistic update conflicts */
    assert_int_equal(leader_core_read(&w.b, 300, w.lease), LEADER_WAIT);
    assert_true(leader_core_lost(&w.b, 300));
    /* deleted: it is made again */
    assert_int_equal(leader_core_read(&w.b, 400, NULL), LEADER_CREATE);
    arena_release(&w.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smap),
        cmocka_unit_test(test_kjson),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_label_selectors),
        cmocka_unit_test(test_node_selectors),
        cmocka_unit_test(test_tolerations),
        cmocka_unit_test(test_kubeconfig),
        cmocka_unit_test(test_kubeconfig_bad),
        cmocka_unit_test(test_workqueue),
        cmocka_unit_test(test_workqueue_backoff_and_delay),
        cmocka_unit_test(test_leader_fails_over),
        cmocka_unit_test(test_leader_release_and_theft),
    };
    return cmocka_run_group_tests_name("clients/lib", tests, NULL, NULL);
}
