/* The hollow runtime: order of events, addresses, grace, adoption, what comes too late. */
#include "tests/unit/clients/mock_server.h"

#include "base/mem.h"
#include "clients/agent/runtime.h"

struct world {
    uv_loop_t loop;
    struct runtime *rt;
    struct arena arena;
    char log[2048], ip[300][20];
    int n_ready, removed, exit_code;
};

static unsigned subnet_of(struct slice node)
{
    return node.data[node.len - 1] == 'b' ? 300 : 1;
}

static void listener(void *ctx, void *owner, const struct runtime_event *e)
{
    static const char *const names[] = {"ready",       "failed", "started",
                                        "not-started", "exited", "removed"};
    struct world *w = ctx;
    size_t at = strlen(w->log);
    if (e->type == RUNTIME_CONTAINER_STARTED || e->type == RUNTIME_CONTAINER_EXITED)
        snprintf(w->log + at, sizeof(w->log) - at, "%s:%s%zu ", (char *)owner, names[e->type],
                 e->container);
    else snprintf(w->log + at, sizeof(w->log) - at, "%s:%s ", (char *)owner, names[e->type]);
    if (e->type == RUNTIME_SANDBOX_READY && w->n_ready < 300)
        snprintf(w->ip[w->n_ready++], sizeof(w->ip[0]), "%s", e->text);
    w->removed += e->type == RUNTIME_SANDBOX_REMOVED;
    if (e->type == RUNTIME_CONTAINER_EXITED) w->exit_code = e->exit_code;
}

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    uv_loop_init(&w->loop);
    w->rt = runtime_hollow_new(&w->loop, subnet_of, listener, w);
    return w;
}

static void world_free(struct world *w)
{
    w->rt->ops->free(w->rt);
    while (uv_run(&w->loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&w->loop), 0);
    arena_release(&w->arena);
    free(w);
}

static struct runtime_pod *make_pod(struct world *w, const char *name, const char *annotations,
                                    const char *init, const char *adopt)
{
    struct buf b = {0};
    buf_printf(&b,
               "{'metadata':{'annotations':{%s}},'spec':{'initContainers':[%s],'containers':[{'"
               "name':'c'}]}}",
               annotations, init);
    for (size_t i = 0; i < b.len; i++)
        if (b.data[i] == '\'') b.data[i] = '"';
    struct json *pod;
    assert_int_equal(json_parse(&w->arena, buf_slice(&b), JSON_COPY, &pod, NULL), 0);
    buf_release(&b);
    struct runtime_pod_config c = {
        .pod = pod, .node = SLICE_LIT("node-a"), .adopt_ip = slice_str(adopt)};
    struct runtime_pod *p;
    assert_int_equal(w->rt->ops->pod_create(w->rt, &c, (void *)name, &p), 0);
    return p;
}

static void test_a_life(void **state)
{
    (void)state;
    struct world *w = world_new();
    const struct runtime_ops *ops = w->rt->ops;
    struct runtime_pod *p =
        make_pod(w, "a", "", "{'name':'i'},{'name':'s','restartPolicy':'Always'}", "");
    assert_string_equal(w->log, ""); /* never from inside a call */
    run_until(&w->loop, w->n_ready == 1);
    assert_string_equal(w->ip[0], "10.64.1.2");
    ops->container_start(p, 0); /* an init container ends by itself, a sidecar does not */
    run_until(&w->loop, strstr(w->log, "exited0"));
    ops->container_start(p, 1);
    ops->container_start(p, 2);
    run_until(&w->loop, strstr(w->log, "started2"));
    assert_string_equal(w->log, "a:ready a:started0 a:exited0 a:started1 a:started2 ");
    ops->container_stop(p, 2, 30000);
    ops->container_stop(p, 2, 30000); /* asked twice: one end */
    run_until(&w->loop, strstr(w->log, "exited2"));
    assert_int_equal(w->exit_code, 0);
    ops->pod_remove(p);
    run_until(&w->loop, w->removed);
    assert_string_equal(w->log,
                        "a:ready a:started0 a:exited0 a:started1 a:started2 a:exited2 a:removed ");
    world_free(w);
}

static void test_annotations_and_grace(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct runtime_pod *p =
        make_pod(w, "a", "'hollow.pintle/run-for':'20ms','hollow.pintle/exit-code':'7'", "", "");
    run_until(&w->loop, w->n_ready == 1);
    w->rt->ops->container_start(p, 0);
    run_until(&w->loop, strstr(w->log, "exited0"));
    assert_int_equal(w->exit_code, 7);
    p = make_pod(w, "b", "'hollow.pintle/stop-after':'1h'", "", "");
    run_until(&w->loop, w->n_ready == 2);
    w->rt->ops->container_start(p, 0);
    run_until(&w->loop, strstr(w->log, "b:started0"));
    w->rt->ops->container_stop(p, 0, 30); /* does not end in time: killed */
    run_until(&w->loop, strstr(w->log, "b:exited0"));
    assert_int_equal(w->exit_code, 137);
    p = make_pod(w, "c", "'hollow.pintle/start-after':'1h','hollow.pintle/stop-after':'soon'", "",
                 "");
    run_until(&w->loop, w->n_ready == 3);
    w->rt->ops->container_start(p, 0);
    w->rt->ops->pod_remove(p); /* while it starts: no event of it comes any more */
    run_until(&w->loop, w->removed == 1);
    assert_null(strstr(w->log, "c:started0"));
    world_free(w);
}

static void test_addresses(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct runtime_pod *first =
        make_pod(w, "p", "", "", "10.64.1.77"); /* adopted with its address */
    make_pod(w, "p", "", "", "10.64.1.77");     /* taken: another one */
    make_pod(w, "p", "", "", "10.99.1.5");      /* of another subnet */
    make_pod(w, "p", "", "", "nonsense");
    run_until(&w->loop, w->n_ready == 4);
    assert_string_equal(w->ip[0], "10.64.1.77");
    assert_string_equal(w->ip[1], "10.64.1.2");
    assert_string_equal(w->ip[2], "10.64.1.3");
    assert_string_equal(w->ip[3], "10.64.1.4");
    for (int i = 4; i < 253; i++) make_pod(w, "p", "", "", "");
    run_until(&w->loop, w->n_ready == 253);
    for (int i = 0; i < 253; i++)
        for (int j = 0; j < i; j++) assert_string_not_equal(w->ip[i], w->ip[j]);
    w->log[0] = 0;
    make_pod(w, "late", "", "", ""); /* none is left */
    run_until(&w->loop, w->log[0]);
    assert_string_equal(w->log, "late:failed ");
    w->rt->ops->pod_remove(first);
    run_until(&w->loop, w->removed == 1);
    make_pod(w, "next", "", "", "");
    run_until(&w->loop, w->n_ready == 254);
    assert_string_equal(w->ip[253], "10.64.1.77"); /* given back */
    world_free(w);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct json *pod = json_object(&w->arena);
    struct runtime_pod_config c = {.pod = pod, .node = SLICE_LIT("node-a")};
    struct runtime_pod *p;
    mem_fail_nth(1);
    assert_int_equal(w->rt->ops->pod_create(w->rt, &c, "x", &p), ERR_NOMEM);
    mem_fail_nth(0);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_life),
        cmocka_unit_test(test_annotations_and_grace),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("clients/agent", tests, NULL, NULL);
}
