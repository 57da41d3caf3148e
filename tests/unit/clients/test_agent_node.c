/* The agent's nodes against a scripted server. The program's file is taken in whole, because how an
 * agent starts is its own affair. */
#include "tests/unit/clients/mock_server.h"

#include "clients/agent/agent.c"

struct world {
    struct agent a;
    struct mock_server server;
    char pod_field[300], node_field[300];
    int renewals, creations, unanswered; /* so many requests about Leases get no answer */
    const char *nodes, *pods;
};

static void handler(struct mock_server *m, struct mock_exchange *x)
{
    struct world *w = m->user;
    char body[65536];
    if (strstr(x->path, "watch=1")) {
        mock_head(x, 200);
    } else if (strstr(x->path, "limit=")) {
        snprintf(body, sizeof(body), "{\"metadata\":{\"resourceVersion\":\"9\"},\"items\":[%s]}",
                 strstr(x->path, "/nodes") ? w->nodes
                 : w->pods                 ? w->pods
                                           : "");
        mock_reply(x, 200, body);
    } else if (strstr(x->path, "/leases")) {
        if (strcmp(x->method, "POST") == 0) w->creations++;
        else w->renewals++;
        if (w->unanswered-- <= 0) mock_reply(x, 200, "{}");
    } else {
        mock_reply(x, 200, "{\"metadata\":{\"name\":\"n1\",\"uid\":\"u1\"}}");
    }
}

static void ignore(uv_signal_t *h, int number)
{
    (void)h;
    (void)number;
}

static struct world *world_new(const char *nodes)
{
    struct world *w = calloc(1, sizeof(*w));
    struct app *app = &w->a.app;
    struct err e;
    char url[64];
    uv_loop_init(&app->loop);
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&app->loop, &app->signals[i]);
        uv_signal_start(&app->signals[i], ignore, SIGUSR2);
        uv_unref((uv_handle_t *)&app->signals[i]);
    }
    w->server.user = w;
    w->nodes = nodes;
    mock_start(&w->server, &app->loop, 0, handler);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", w->server.port);
    assert_int_equal(kube_config_set_servers(&app->config, url, &e), 0);
    assert_int_equal(kube_client_new(&app->loop, &app->config, "test", &app->client, &e), 0);
    w->a.node_name = "n1";
    w->a.cpu = "8";
    w->a.memory = w->a.storage = "1Gi";
    w->a.max_pods = 110;
    w->a.lease_ms = 100;
    w->a.lease_duration_ms = 4000;
    w->a.status_ms = 300000;
    add_nodes(&w->a);
    return w;
}

static void world_free(struct world *w)
{
    on_stop(&w->a);
    kube_config_release(&w->a.app.config);
    mock_stop(&w->server);
    while (uv_run(&w->a.app.loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&w->a.app.loop), 0);
    free(w);
}

/* A member without a leader keeps a write for as long as the client waits. */
static void test_a_renewal_is_not_waited_for_long(void **state)
{
    (void)state;
    static const char *const nodes[] = {"{\"metadata\":{\"name\":\"n1\",\"uid\":\"u1\"}}", ""};
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(nodes[i]);
        w->unanswered = 1;
        start(&w->a, w->pod_field, w->node_field, sizeof(w->pod_field));
        run_until(&w->a.app.loop, w->renewals + w->creations == 1);
        assert_int_equal(w->creations, i);
        run_until(&w->a.app.loop, w->renewals + w->creations == 3);
        world_free(w);
    }
}

static int sandboxes_failed;

static void quiet(enum log_level level, const char *line)
{
    (void)level;
    sandboxes_failed += strstr(line, "sandbox failed") != NULL;
}

/* More pods than the node has addresses. */
static void test_a_sandbox_that_fails_is_tried_with_pauses(void **state)
{
    (void)state;
    struct world *w = world_new("{\"metadata\":{\"name\":\"n1\",\"uid\":\"u1\"}}");
    struct buf pods = {0};
    for (int i = 0; i < 260; i++)
        buf_printf(&pods,
                   "%s{\"metadata\":{\"name\":\"p%d\",\"namespace\":\"d\",\"uid\":\"p%d\","
                   "\"resourceVersion\":\"1\"},\"spec\":{\"nodeName\":\"n1\"}}",
                   i ? "," : "", i, i);
    buf_append_byte(&pods, 0);
    w->pods = (const char *)pods.data;
    start(&w->a, w->pod_field, w->node_field, sizeof(w->pod_field));
    run_until(&w->a.app.loop, sandboxes_failed > 0);
    for (int i = 0; i < 1000; i++) uv_run(&w->a.app.loop, UV_RUN_NOWAIT);
    assert_in_range(sandboxes_failed, 1, 30);
    int before = sandboxes_failed;
    run_until(&w->a.app.loop, sandboxes_failed > before); /* but tried it is */
    world_free(w);
    buf_release(&pods);
}

int main(void)
{
    log_set_sink(quiet);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_renewal_is_not_waited_for_long),
        cmocka_unit_test(test_a_sandbox_that_fails_is_tried_with_pauses),
    };
    return cmocka_run_group_tests_name("clients/agent_node", tests, NULL, NULL);
}
