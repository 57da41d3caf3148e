/* Controllers against a scripted server: what they write when events come late, twice, or not at
 * all, and when leadership comes and goes. The file under test is taken in whole, because how a
 * process comes to lead is its own affair. */
#include "tests/unit/clients/mock_server.h"

#include "clients/controllers/controllers.c"

#include "base/clock.h"

struct world {
    struct controllers c;
    struct mock_server server;
    struct {
        char name[32], *list; /* plural; items */
        struct mock_exchange *watch;
    } kinds[INFORMERS_MAX];
    size_t n_kinds;
    char log[16384]; /* "METHOD path body\n" of everything else that was asked; Events left out */
    const char *refuse; /* a part of a line: that request is answered with `refuse_status` */
    const char *answer; /* of a GET; NULL: 404 */
    int refuse_status, version;
};

static size_t kind_at(struct world *w, const char *plural)
{
    size_t i = 0;
    while (i < w->n_kinds && strcmp(w->kinds[i].name, plural) != 0) i++;
    if (i == w->n_kinds) {
        assert_true(w->n_kinds++ < INFORMERS_MAX);
        snprintf(w->kinds[i].name, sizeof(w->kinds[i].name), "%s", plural);
    }
    return i;
}

static void serve_kind(struct world *w, struct mock_exchange *x, char *plural)
{
    char body[8192];
    size_t i = kind_at(w, plural);
    if (strstr(x->path, "watch=1")) {
        w->kinds[i].watch = x;
        mock_head(x, 200);
        return;
    }
    snprintf(body, sizeof(body), "{\"metadata\":{\"resourceVersion\":\"%d\"},\"items\":[%s]}",
             w->version, w->kinds[i].list ? w->kinds[i].list : "");
    mock_reply(x, 200, body);
}

static void handler(struct mock_server *m, struct mock_exchange *x)
{
    struct world *w = m->user;
    char path[2048], line[4096];
    snprintf(path, sizeof(path), "%s", x->path);
    path[strcspn(path, "?")] = 0;
    if (strstr(x->path, "watch=1") || strstr(x->path, "limit=")) {
        serve_kind(w, x, strrchr(path, '/') + 1);
        return;
    }
    if (strstr(path, "/events")) {
        mock_reply(x, 201, "{}");
        return;
    }
    snprintf(line, sizeof(line), "%s %s %.*s\n", x->method, path, (int)x->body_len,
             x->body_len ? x->body : "");
    assert_true(strlen(w->log) + strlen(line) < sizeof(w->log));
    strcat(w->log, line);
    if (w->refuse && strstr(line, w->refuse)) mock_reply(x, w->refuse_status, "{}");
    else if (!strcmp(x->method, "GET") && !w->answer) mock_reply(x, 404, "{}");
    else mock_reply(x, 200, w->answer ? w->answer : "{}");
}

/* An object, written with ' for ". */
static char *object(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *object(const char *format, ...)
{
    static char ring[8][1024];
    static unsigned turn;
    char *out = ring[turn++ & 7];
    va_list args;
    va_start(args, format);
    vsnprintf(out, sizeof(ring[0]), format, args);
    va_end(args);
    for (char *p = out; *p; p++)
        if (*p == '\'') *p = '"';
    return out;
}

static void send_event(struct world *w, const char *plural, const char *type, const char *o)
{
    char line[2048];
    snprintf(line, sizeof(line), "{\"type\":\"%s\",\"object\":%s}\n", type, o);
    mock_write(w->kinds[kind_at(w, plural)].watch, line, strlen(line));
}

static void nothing_on_signal(uv_signal_t *h, int number)
{
    (void)h;
    (void)number;
}

static struct world *world_new(uint64_t grace_ms)
{
    struct world *w = calloc(1, sizeof(*w));
    struct controllers *c = &w->c;
    struct err e;
    char url[64];
    uv_loop_init(&c->app.loop);
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&c->app.loop, &c->app.signals[i]);
        uv_signal_start(&c->app.signals[i], nothing_on_signal, SIGUSR2);
        uv_unref((uv_handle_t *)&c->app.signals[i]);
    }
    w->server.user = w;
    w->version = 100;
    mock_start(&w->server, &c->app.loop, 0, handler);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", w->server.port);
    assert_int_equal(kube_config_set_servers(&c->app.config, url, &e), 0);
    assert_int_equal(kube_client_new(&c->app.loop, &c->app.config, "test", &c->app.client, &e), 0);
    c->node_grace_ms = grace_ms;
    c->node_period_ms = 20;
    c->eviction_rate = "0";
    return w;
}

static bool all_watched(struct world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_kinds; i++) n += w->kinds[i].watch != NULL;
    return n && n == w->c.n_informers;
}

static void world_start(struct world *w)
{
    start(&w->c, NULL);
    run_until(&w->c.app.loop, all_watched(w));
}

/* Until nothing is under way, and where we lead all queues are empty. */
static void settle(struct world *w)
{
    struct controllers *c = &w->c;
    for (int quiet = 0; quiet < 50; quiet++) {
        uv_run(&c->app.loop, UV_RUN_NOWAIT);
        for (size_t i = 0; i < c->n_queues; i++)
            if (workqueue_in_work(c->queues[i]) || (c->leading && workqueue_length(c->queues[i])))
                quiet = 0;
    }
}

/* Requests under way are dropped without an answer at the end: there must be none. */
static void world_free(struct world *w)
{
    on_stopped_leading(&w->c);
    settle(w);
    release(&w->c);
    kube_config_release(&w->c.app.config);
    mock_stop(&w->server);
    while (uv_run(&w->c.app.loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&w->c.app.loop), 0);
    for (size_t i = 0; i < w->n_kinds; i++) free(w->kinds[i].list);
    free(w);
}

static void set_list(struct world *w, const char *plural, const char *items)
{
    size_t i = kind_at(w, plural);
    free(w->kinds[i].list);
    w->kinds[i].list = strdup(items);
}

static bool logged(struct world *w, const char *what)
{
    return strstr(w->log, what) != NULL;
}

static void pass(struct world *w, unsigned ms)
{
    uint64_t end = clock_mono_ms() + ms;
    run_until(&w->c.app.loop, clock_mono_ms() >= end);
}

static char *node(const char *name, const char *ready, const char *taints, int version)
{
    return object("{'metadata':{'name':'%s','uid':'u-%s','resourceVersion':'%d'},'spec':{'taints':"
                  "[%s]},'status':{'conditions':[{'type':'Ready','status':'%s'},"
                  "{'type':'MemoryPressure','status':'Unknown'},{'type':'DiskPressure','status':"
                  "'Unknown'},{'type':'PIDPressure','status':'Unknown'}]}}",
                  name, name, version, taints, ready);
}

static char *pod(const char *name, const char *node_name, const char *ready, int version)
{
    return object("{'metadata':{'name':'%s','namespace':'d','uid':'u-%s','resourceVersion':'%d'},"
                  "'spec':{'nodeName':'%s'},'status':{'phase':'Running','conditions':"
                  "[{'type':'Ready','status':'%s'}]}}",
                  name, name, version, node_name, ready);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

/* Its agent cannot say that the pod has ended, so nobody else would delete it. */
static void test_pods_of_a_node_that_is_gone(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    set_list(w, "nodes", node("n1", "True", "", 1));
    set_list(w, "pods", pod("here", "n1", "True", 2));
    world_start(w);
    send_event(w, "nodes", "DELETED", node("n1", "True", "", 101));
    send_event(w, "pods", "ADDED", pod("late", "n2", "True", 102));
    send_event(w, "pods", "ADDED", pod("nowhere", "", "False", 103));
    run_until(&w->c.app.loop, logged(w, "DELETE /api/v1/namespaces/d/pods/here ") &&
                                  logged(w, "DELETE /api/v1/namespaces/d/pods/late "));
    assert_true(logged(w, "\"preconditions\":{\"uid\":\"u-here\"},\"gracePeriodSeconds\":0"));
    assert_true(logged(w, "GET /api/v1/nodes/n1 ") && logged(w, "GET /api/v1/nodes/n2 "));
    settle(w);
    assert_false(logged(w, "nowhere"));
    world_free(w);
}

static void test_only_the_server_says_that_a_node_is_gone(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    w->answer = "{\"metadata\":{\"name\":\"n2\"}}";
    set_list(w, "pods", pod("here", "n2", "True", 2));
    world_start(w);
    run_until(&w->c.app.loop, logged(w, "GET /api/v1/nodes/n2 "));
    settle(w);
    assert_false(logged(w, "DELETE"));
    world_free(w);
}

/* What the leader before us allowed is not taken back: tolerationSeconds would begin anew. */
static void test_taints_outlive_a_leader(void **state)
{
    (void)state;
    static const char *const keys[] = {"node.kubernetes.io/unreachable",
                                       "node.kubernetes.io/not-ready"};
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(60000);
        char taints[512], both[2048];
        snprintf(taints, sizeof(taints),
                 "{'key':'node.kubernetes.io/unreachable','effect':'NoSchedule'},{'key':'%s',"
                 "'effect':'NoExecute','timeAdded':'2026-01-01T00:00:00Z'}",
                 keys[i]);
        /* the first one takes all that the rate limit allows */
        snprintf(both, sizeof(both), "%s,%s", node("n0", "Unknown", "", 1),
                 node("n1", "Unknown", taints, 2));
        set_list(w, "nodes", both);
        world_start(w);
        run_until(&w->c.app.loop, logged(w, "PATCH /api/v1/nodes/n0 "));
        settle(w);
        char *n1 = strstr(w->log, "PATCH /api/v1/nodes/n1 ");
        assert_true(i == 0 ? !n1 : n1 && strstr(n1, "NoExecute"));
        world_free(w);
    }
}

/* After a cut that cost us the lease, nobody has been silent but we ourselves. */
static void test_leading_again(void **state)
{
    (void)state;
    struct world *w = world_new(1000);
    set_list(w, "nodes", object("%s,%s", node("n1", "True", "", 1), node("n2", "True", "", 2)));
    world_start(w);
    on_stopped_leading(&w->c);
    pass(w, 1100);
    on_leading(&w->c);
    pass(w, 100);
    assert_false(logged(w, "PATCH"));
    run_until(&w->c.app.loop, logged(w, "PATCH /api/v1/nodes/n1/status "));
    world_free(w);
}

/* The turn that marked the node got no further: another one, perhaps another leader's, goes on. */
static void test_pods_are_marked_later_too(void **state)
{
    (void)state;
    struct world *w = world_new(100);
    char pods[2048];
    set_list(w, "nodes", node("n1", "Unknown", "", 1));
    snprintf(pods, sizeof(pods), "%s,%s", pod("left", "n1", "True", 2),
             pod("done", "n1", "False", 3));
    set_list(w, "pods", pods);
    world_start(w);
    run_until(&w->c.app.loop, logged(w, "PATCH /api/v1/namespaces/d/pods/left/status "));
    assert_false(logged(w, "pods/done"));
    world_free(w);
}

/* ---- garbage -------------------------------------------------------------------------------- */

static char *replicaset(const char *name, const char *uid, const char *more_meta, int replicas,
                        int version)
{
    return object("{'metadata':{'name':'%s','namespace':'d','uid':'%s','resourceVersion':'%d'%s},"
                  "'spec':{'replicas':%d,'selector':{'matchLabels':{'app':'a'}},'template':{"
                  "'metadata':{'labels':{'app':'a'}},'spec':{}}}}",
                  name, uid, version, more_meta, replicas);
}

static char *owned(const char *name, const char *owner_uid, const char *more_meta, int version)
{
    return object("{'metadata':{'name':'%s','namespace':'d','uid':'u-%s','resourceVersion':'%d',"
                  "'labels':{'app':'a'},'ownerReferences':[{'apiVersion':'apps/v1',"
                  "'kind':'ReplicaSet','name':'rs','uid':'%s','controller':true,"
                  "'blockOwnerDeletion':true}]%s},'spec':{'nodeName':''}}",
                  name, name, version, owner_uid, more_meta);
}

#define DELETING ",'deletionTimestamp':'2026-01-01T00:00:00Z'"

/* A pod that is let go of blocks its owner no more, just as one that is deleted. */
static void test_foreground_ends_when_let_go(void **state)
{
    (void)state;
    struct world *w = world_new(60000);
    set_list(w, "replicasets",
             replicaset("rs", "u-rs", DELETING ",'finalizers':['foregroundDeletion']", 1, 1));
    set_list(w, "pods", owned("p", "u-rs", DELETING ",'finalizers':['a/b']", 2));
    world_start(w);
    settle(w);
    w->log[0] = 0;
    send_event(w, "pods", "MODIFIED", pod("p", "", "False", 101));
    run_until(&w->c.app.loop, logged(w, "PATCH /apis/apps/v1/namespaces/d/replicasets/rs {") &&
                                  logged(w, "\"finalizers\":[]"));
    world_free(w);
}

/* What was decided on must still be so: the object may have been adopted meanwhile. */
static void test_garbage_is_deleted_as_it_was_seen(void **state)
{
    (void)state;
    struct world *w = world_new(60000);
    set_list(w, "pods", owned("p", "u-rs", "", 2));
    world_start(w);
    run_until(&w->c.app.loop, logged(w, "DELETE /api/v1/namespaces/d/pods/p "));
    assert_true(logged(w, "\"preconditions\":{\"uid\":\"u-p\",\"resourceVersion\":\"2\"}"));
    world_free(w);
}

/* ---- ReplicaSets ---------------------------------------------------------------------------- */

static int count(struct world *w, const char *what)
{
    int n = 0;
    for (const char *p = w->log; (p = strstr(p, what)); p++) n++;
    return n;
}

/* The pods that the first one made are never seen; the second one has not asked for them. */
static void test_expectations_end_with_their_set(void **state)
{
    (void)state;
    struct world *w = world_new(60000);
    set_list(w, "replicasets", replicaset("rs", "u-1", "", 1, 1));
    world_start(w);
    run_until(&w->c.app.loop, logged(w, "POST /api/v1/namespaces/d/pods "));
    settle(w);
    assert_int_equal(count(w, "POST"), 1);
    assert_int_equal(replicaset_expected(&w->c), 1);
    send_event(w, "replicasets", "DELETED", replicaset("rs", "u-1", "", 1, 101));
    send_event(w, "replicasets", "ADDED", replicaset("rs", "u-2", "", 1, 102));
    run_until(&w->c.app.loop, count(w, "POST") == 2);
    assert_true(logged(w, "\"uid\":\"u-2\""));
    world_free(w);
}

/* ---- Endpoints ------------------------------------------------------------------------------ */

static char *named(const char *name, const char *uid, int version)
{
    return object("{'metadata':{'name':'%s','namespace':'d','uid':'%s','resourceVersion':'%d'}}",
                  name, uid, version);
}

/* A standby sees Services go, and the leader's work on it; what it takes over is what is left. */
static void test_what_services_left_behind(void **state)
{
    (void)state;
    struct world *w = world_new(60000);
    set_list(w, "services", object("%s,%s", named("old", "s1", 1), named("new", "s2", 2)));
    set_list(w, "endpoints", object("%s,%s", named("old", "e1", 3), named("new", "e2", 4)));
    world_start(w);
    settle(w);
    on_stopped_leading(&w->c);
    send_event(w, "services", "DELETED", named("old", "s1", 101));
    send_event(w, "services", "DELETED", named("new", "s2", 102));
    run_until(&w->c.app.loop, informer_count(w->c.services) == 0);
    send_event(w, "endpoints", "DELETED", named("old", "e1", 103)); /* by the leader */
    send_event(w, "endpoints", "ADDED", named("old", "e3", 104));   /* a user's own */
    run_until(
        &w->c.app.loop,
        informer_get(w->c.endpoints, SLICE_LIT("d"), SLICE_LIT("old")) &&
            informer_get(w->c.endpoints, SLICE_LIT("d"), SLICE_LIT("old"))->resource_version ==
                104);
    on_leading(&w->c);
    run_until(&w->c.app.loop, logged(w, "DELETE /api/v1/namespaces/d/endpoints/new "));
    settle(w);
    assert_true(logged(w, "\"preconditions\":{\"uid\":\"e2\"}"));
    assert_int_equal(count(w, "DELETE"), 1);
    world_free(w);
}

static void quiet(enum log_level level, const char *line)
{
    (void)level;
    (void)line;
}

int main(void)
{
    struct err e;
    log_set_sink(quiet);
    if (kinds_load(&e)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pods_of_a_node_that_is_gone),
        cmocka_unit_test(test_only_the_server_says_that_a_node_is_gone),
        cmocka_unit_test(test_taints_outlive_a_leader),
        cmocka_unit_test(test_leading_again),
        cmocka_unit_test(test_pods_are_marked_later_too),
        cmocka_unit_test(test_foreground_ends_when_let_go),
        cmocka_unit_test(test_garbage_is_deleted_as_it_was_seen),
        cmocka_unit_test(test_expectations_end_with_their_set),
        cmocka_unit_test(test_what_services_left_behind),
    };
    return cmocka_run_group_tests_name("clients/control_loops", tests, NULL, NULL);
}
