/* The informer and the API client against a scripted server: pages, events, disconnects, 410,
 * duplicates, bookmarks, garbage. */
#include "tests/unit/clients/mock_server.h"

#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/informer.h"

struct world {
    uv_loop_t loop;
    struct mock_server server;
    struct kube_client *client;
    struct informer *inf;
    struct mock_exchange *watch;
    char last_watch[2048];
    int lists, watches, gone_once, fail_lists, garbage, other_uids;
    int added, updated, deleted, synced;
    char log[1024];
};

static const char *pod(const char *name, int version, const char *node)
{
    static char buf[4][512];
    static int turn;
    char *b = buf[turn++ & 3];
    snprintf(b, 512,
             "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"ns\",\"uid\":\"u-%s\","
             "\"resourceVersion\":\"%d\",\"managedFields\":[{}]},"
             "\"spec\":{\"nodeName\":\"%s\"}}",
             name, name, version, node);
    return b;
}

static void send_event(struct world *w, const char *type, const char *object)
{
    char line[1024];
    snprintf(line, sizeof(line), "{\"type\":\"%s\",\"object\":%s}\n", type, object);
    mock_write(w->watch, line, strlen(line));
}

static void handler(struct mock_server *m, struct mock_exchange *x)
{
    struct world *w = m->user;
    char body[2048];
    if (strstr(x->path, "watch=1")) {
        w->watches++;
        snprintf(w->last_watch, sizeof(w->last_watch), "%s", x->path);
        if (w->gone_once) {
            w->gone_once = 0;
            mock_reply(x, 410, "{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}");
            return;
        }
        w->watch = x;
        mock_head(x, 200);
        return;
    }
    w->lists++;
    if (w->fail_lists-- > 0) {
        mock_reply(x, 500, "{}");
    } else if (w->garbage) {
        w->garbage = 0;
        mock_reply(x, 200, "{\"items\":[");
    } else if (w->lists > 5) { /* a relist: b is gone, a is newer, d is new */
        snprintf(body, sizeof(body),
                 "{\"metadata\":{\"resourceVersion\":\"50\"},\"items\":[%s,%s]}",
                 pod("a", 40, "n1"), pod("d", 45, "n2"));
        mock_reply(x, 200, body);
    } else if (w->other_uids) { /* a relist: the same name, but not the same object */
        mock_reply(x, 200,
                   "{\"metadata\":{\"resourceVersion\":\"50\"},\"items\":[{\"metadata\":{\"name\":"
                   "\"a\",\"namespace\":\"ns\",\"uid\":\"new\",\"resourceVersion\":\"40\"}}]}");
    } else if (strstr(x->path, "continue=more")) {
        snprintf(body, sizeof(body), "{\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[%s]}",
                 pod("c", 3, "n2"));
        mock_reply(x, 200, body);
    } else {
        snprintf(
            body, sizeof(body),
            "{\"metadata\":{\"resourceVersion\":\"10\",\"continue\":\"more\"},\"items\":[%s,%s]}",
            pod("a", 1, "n1"), pod("b", 2, "n1"));
        mock_reply(x, 200, body);
    }
}

static void note(struct world *w, const char *what, struct kube_object *o)
{
    size_t at = strlen(w->log);
    snprintf(w->log + at, sizeof(w->log) - at, "%s%.*s ", what, (int)o->name.len, o->name.data);
}

static void on_added(void *ctx, struct kube_object *o)
{
    struct world *w = ctx;
    w->added++;
    assert_null(json_path(o->json, "metadata.managedFields"));
    note(w, "+", o);
}

static void on_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    struct world *w = ctx;
    w->updated++;
    assert_true(o->resource_version > old->resource_version);
    note(w, "~", o);
}

static void on_deleted(void *ctx, struct kube_object *o)
{
    struct world *w = ctx;
    w->deleted++;
    note(w, "-", o);
}

static void on_synced(void *ctx)
{
    ((struct world *)ctx)->synced++;
}

static struct world *world_new(void)
{
    static const struct informer_handler h = {on_added, on_updated, on_deleted, on_synced};
    struct world *w = calloc(1, sizeof(*w));
    uv_loop_init(&w->loop);
    w->server.user = w;
    mock_start(&w->server, &w->loop, 0, handler);
    static struct kube_config config;
    struct err e;
    char url[64];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", w->server.port);
    config = (struct kube_config){0};
    assert_int_equal(kube_config_set_servers(&config, url, &e), 0);
    assert_int_equal(kube_client_new(&w->loop, &config, "test", &w->client, &e), 0);
    kube_config_release(&config);
    w->inf = informer_new(
        w->client, &(struct informer_options){
                       .resource = &KUBE_PODS, .page = 2, .field_selector = "spec.nodeName!="});
    assert_int_equal(informer_add_index(w->inf, index_node_name), 0);
    informer_add_handler(w->inf, &h, w);
    return w;
}

static void world_free(struct world *w)
{
    informer_free(w->inf);
    kube_client_close(w->client, NULL, NULL);
    mock_stop(&w->server);
    while (uv_run(&w->loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&w->loop), 0);
    free(w);
}

static void test_list_and_watch(void **state)
{
    (void)state;
    struct world *w = world_new();
    informer_start(w->inf);
    run_until(&w->loop, w->watch);
    assert_int_equal(w->synced, 1);
    assert_int_equal(w->lists, 2);
    assert_string_equal(w->log, "+a +b +c ");
    assert_non_null(strstr(w->last_watch, "resourceVersion=10"));
    assert_non_null(strstr(w->last_watch, "allowWatchBookmarks=true"));
    assert_non_null(strstr(w->last_watch, "fieldSelector=spec.nodeName%21%3D"));
    assert_int_equal(informer_index_count(w->inf, 0, SLICE_LIT("n1")), 2);
    w->log[0] = 0;
    send_event(w, "ADDED", pod("d", 11, "n1"));
    send_event(w, "MODIFIED", pod("a", 12, "n2"));
    send_event(w, "MODIFIED", pod("a", 12, "n2")); /* a repeat */
    send_event(w, "MODIFIED", pod("a", 5, "n1"));  /* older than what is known */
    send_event(w, "ADDED", pod("d", 11, "n1"));
    send_event(w, "DELETED", pod("b", 13, "n1"));
    send_event(w, "DELETED", pod("b", 13, "n1"));
    send_event(w, "ADDED", pod("b", 14, "n1")); /* the same name again */
    run_until(&w->loop, w->added == 5);
    assert_string_equal(w->log, "+d ~a -b +b ");
    assert_int_equal(informer_index_count(w->inf, 0, SLICE_LIT("n1")), 2);
    assert_int_equal(informer_index_count(w->inf, 0, SLICE_LIT("n2")), 2);
    assert_int_equal(informer_get(w->inf, SLICE_LIT("ns"), SLICE_LIT("a"))->resource_version, 12);
    size_t seen = 0;
    for (struct kube_object *o = informer_first(w->inf, 0, SLICE_LIT("n2")); o;
         o = informer_next(o, 0))
        seen++;
    assert_int_equal(seen, 2);
    world_free(w);
}

static void test_resume_after_disconnects(void **state)
{
    (void)state;
    struct world *w = world_new();
    informer_start(w->inf);
    run_until(&w->loop, w->watch);
    send_event(w, "MODIFIED", pod("a", 15, "n1"));
    send_event(w, "BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"20\"}}");
    run_until(&w->loop, w->updated == 1);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    for (int i = 0; i < 5; i++) {
        w->watch = NULL;
        mock_cut(&w->server);
        run_until(&w->loop, w->watch);
        assert_non_null(strstr(w->last_watch, "resourceVersion=20&")); /* the bookmark's */
    }
    assert_int_equal(w->lists, 2);
    /* half a line is lost with its connection, and comes again */
    mock_write(w->watch, "{\"type\":\"ADDED\",\"obj", 20);
    for (int i = 0; i < 20; i++) uv_run(&w->loop, UV_RUN_NOWAIT);
    w->watch = NULL;
    mock_cut(&w->server);
    run_until(&w->loop, w->watch);
    send_event(w, "ADDED", pod("e", 21, "n1"));
    run_until(&w->loop, w->added == 4);
    /* the server ends the watch in peace */
    struct mock_exchange *x = w->watch;
    w->watch = NULL;
    mock_end(x);
    run_until(&w->loop, w->watch);
    assert_non_null(strstr(w->last_watch, "resourceVersion=21&"));
    assert_int_equal(w->lists, 2);
    world_free(w);
}

static void relist_checked(struct world *w)
{
    run_until(&w->loop, w->lists >= 6 && w->watch);
    assert_int_equal(informer_count(w->inf), 2);
    assert_null(informer_get(w->inf, SLICE_LIT("ns"), SLICE_LIT("b")));
    assert_int_equal(w->deleted, 2); /* b and c: told, though no event came */
    assert_int_equal(w->updated, 1);
    assert_int_equal(w->synced, 1);
    assert_non_null(strstr(w->last_watch, "resourceVersion=50&"));
}

static void test_gone_lists_again(void **state)
{
    (void)state;
    for (int way = 0; way < 4; way++) {
        struct world *w = world_new();
        informer_start(w->inf);
        run_until(&w->loop, w->watch);
        w->lists = 5;
        if (way == 0) { /* as a status, when it resumes */
            w->gone_once = 1;
            w->watch = NULL;
            mock_cut(&w->server);
        } else {
            struct mock_exchange *x = w->watch;
            w->watch = NULL;
            const char *lines[] = {"",
                                   "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":"
                                   "410,\"reason\":\"Expired\"}}\n",
                                   "{\"type\":\"ADDED\",\"object\":{}}\n", "this is no JSON\n"};
            mock_write(x, lines[way], strlen(lines[way]));
        }
        relist_checked(w);
        world_free(w);
    }
}

/* Deleted and made anew while nobody watched: both are told, so that nobody keeps the old one. */
static void test_another_of_the_same_name(void **state)
{
    (void)state;
    struct world *w = world_new();
    informer_start(w->inf);
    run_until(&w->loop, w->watch);
    w->log[0] = 0;
    w->gone_once = w->other_uids = 1;
    w->watch = NULL;
    mock_cut(&w->server);
    run_until(&w->loop, w->watch);
    assert_memory_equal(w->log, "-a +a ", 6);
    assert_int_equal(w->updated, 0);
    assert_int_equal(informer_count(w->inf), 1);
    assert_int_equal(informer_index_count(w->inf, 0, SLICE_LIT("n1")), 0);
    world_free(w);
}

static void test_lists_that_fail(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->fail_lists = 3;
    w->garbage = 1;
    informer_start(w->inf);
    run_until(&w->loop, w->lists == 4);
    assert_false(informer_synced(w->inf));
    w->lists = 0;
    run_until(&w->loop, w->watch);
    assert_int_equal(w->synced, 1);
    assert_int_equal(informer_count(w->inf), 3);
    world_free(w);
}

static void test_memory_failures(void **state)
{
    (void)state;
    struct world *w = world_new();
    informer_start(w->inf);
    run_until(&w->loop, w->watch);
    for (uint64_t nth = 1; nth < 40; nth++) {
        w->lists = 0;
        send_event(w, "MODIFIED", pod("a", 100 + (int)nth, "n1"));
        mem_fail_nth(nth);
        int before = w->watches; /* their addresses may come again */
        for (int i = 0; i < 6; i++) uv_run(&w->loop, UV_RUN_NOWAIT);
        bool fired = mem_fail_nth(0);
        if (!fired) break;
        /* whatever failed: it goes on, by resuming or listing again */
        run_until(&w->loop, informer_get(w->inf, SLICE_LIT("ns"), SLICE_LIT("a")) &&
                                (w->watches != before || w->updated > 0));
        run_until(&w->loop, w->watch && w->watch->conn);
    }
    assert_true(informer_count(w->inf) >= 2);
    world_free(w);
}

/* ---- the API client ------------------------------------------------------------------------- */

struct answer {
    int done, code, status;
    char reason[64], message[256], name[64];
};

static void on_answer(void *ctx, const struct kube_result *r)
{
    struct answer *a = ctx;
    a->done++;
    a->code = r->code;
    a->status = r->status;
    snprintf(a->reason, sizeof(a->reason), "%s", r->reason);
    snprintf(a->message, sizeof(a->message), "%s", r->message);
    struct slice name =
        r->code ? (struct slice){0} : json_path_text(kube_result_json(r), "metadata.name");
    snprintf(a->name, sizeof(a->name), "%.*s", (int)name.len,
             name.len ? (const char *)name.data : "");
}

static int busy_times;

static void api_handler(struct mock_server *m, struct mock_exchange *x)
{
    (void)m;
    if (busy_times-- > 0) {
        mock_reply(x, 429, "{\"kind\":\"Status\",\"reason\":\"TooManyRequests\"}");
    } else if (!strcmp(x->path, "/api/v1/namespaces/ns/pods/none")) {
        mock_reply(x, 404,
                   "{\"kind\":\"Status\",\"reason\":\"NotFound\",\"message\":\"pods \\\"none\\\" "
                   "not found\",\"code\":404}");
    } else if (!strcmp(x->method, "POST")) {
        mock_reply(x, 409,
                   "{\"kind\":\"Status\",\"reason\":\"AlreadyExists\",\"message\":\"there\"}");
    } else if (!strcmp(x->method, "PATCH")) {
        assert_non_null(strstr(x->headers, "content-type: application/merge-patch+json"));
        assert_string_equal(x->path, "/apis/apps/v1/namespaces/ns/deployments/d/status");
        mock_reply(x, 409, "{\"kind\":\"Status\",\"reason\":\"Conflict\"}");
    } else if (!strcmp(x->method, "DELETE")) {
        assert_non_null(strstr(x->body, "\"preconditions\":{\"uid\":\"u1\"}"));
        assert_non_null(strstr(x->body, "\"gracePeriodSeconds\":0"));
        mock_reply(x, 200, "{}");
    } else {
        mock_reply(x, 200, "{\"metadata\":{\"name\":\"x\"}}");
    }
}

static void test_kube_client(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->server.handler = api_handler;
    struct answer a[6] = {0};
    struct arena arena = {0};
    struct json *body = json_object(&arena);
    busy_times = 2;
    kube_get(w->client, &KUBE_PODS, SLICE_LIT("ns"), SLICE_LIT("x"), on_answer, &a[0]);
    run_until(&w->loop, a[0].done);
    assert_int_equal(a[0].code, 0); /* asked again after "too many requests" */
    assert_string_equal(a[0].name, "x");
    kube_get(w->client, &KUBE_PODS, SLICE_LIT("ns"), SLICE_LIT("none"), on_answer, &a[1]);
    kube_create(w->client, &KUBE_PODS, SLICE_LIT("ns"), body, on_answer, &a[2]);
    kube_patch(w->client, &KUBE_DEPLOYMENTS, SLICE_LIT("ns"), SLICE_LIT("d"), "status", body,
               on_answer, &a[3]);
    kube_delete(w->client, &KUBE_PODS, SLICE_LIT("ns"), SLICE_LIT("p"), SLICE_LIT("u1"), 0, 0, NULL,
                on_answer, &a[4]);
    kube_create(w->client, &KUBE_PODS, SLICE_LIT("ns"), NULL, on_answer,
                &a[5]); /* a body that could not be built */
    assert_int_equal(a[5].done, 0);
    for (int i = 1; i < 6; i++) run_until(&w->loop, a[i].done);
    assert_int_equal(a[1].code, ERR_NOT_FOUND);
    assert_string_equal(a[1].reason, "NotFound");
    assert_string_equal(a[1].message, "pods \"none\" not found");
    assert_int_equal(a[2].code, ERR_EXISTS);
    assert_int_equal(a[3].code, ERR_CONFLICT);
    assert_int_equal(a[4].code, 0);
    assert_int_equal(a[5].code, ERR_NOMEM);
    arena_release(&arena);
    world_free(w);
}

static int stale_requests, good_requests;

static void stale_handler(struct mock_server *m, struct mock_exchange *x)
{
    (void)m;
    stale_requests++;
    mock_reply(x, 503, "{\"kind\":\"Status\",\"reason\":\"ServiceUnavailable\"}");
}

static void good_handler(struct mock_server *m, struct mock_exchange *x)
{
    (void)m;
    good_requests++;
    mock_reply(x, 200, "{\"metadata\":{\"name\":\"x\"}}");
}

/* A member without a quorum answers, but nothing of use: the client goes to another by itself. */
static void test_useless_member_is_left(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct mock_server a = {0}, b = {0};
    mock_start(&a, &loop, 0, stale_handler);
    mock_start(&b, &loop, 0, good_handler);
    struct kube_config config = {0};
    struct kube_client *client;
    struct err e;
    char url[128];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d,http://127.0.0.1:%d", a.port, b.port);
    assert_int_equal(kube_config_set_servers(&config, url, &e), 0);
    assert_int_equal(kube_client_new(&loop, &config, "test", &client, &e), 0);
    struct arena arena = {0};
    struct json *body = json_object(&arena);
    for (int i = 0; i < 20 && !good_requests; i++) {
        struct answer x = {0};
        kube_create(client, &KUBE_PODS, SLICE_LIT("ns"), body, on_answer, &x);
        run_until(&loop, x.done);
        assert_int_equal(x.code, x.status == 503 ? ERR_UNAVAILABLE : 0);
    }
    assert_true(stale_requests <= 3);
    assert_true(good_requests > 0);
    struct answer x = {0};
    kube_get(client, &KUBE_PODS, SLICE_LIT("ns"), SLICE_LIT("x"), on_answer, &x);
    run_until(&loop, x.done);
    assert_int_equal(x.code, 0);
    arena_release(&arena);
    kube_client_close(client, NULL, NULL);
    kube_config_release(&config);
    mock_stop(&a);
    mock_stop(&b);
    while (uv_run(&loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void quiet(enum log_level level, const char *line)
{
    (void)level;
    (void)line;
}

int main(void)
{
    log_set_sink(quiet);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_and_watch),   cmocka_unit_test(test_resume_after_disconnects),
        cmocka_unit_test(test_gone_lists_again), cmocka_unit_test(test_another_of_the_same_name),
        cmocka_unit_test(test_lists_that_fail),  cmocka_unit_test(test_memory_failures),
        cmocka_unit_test(test_kube_client),      cmocka_unit_test(test_useless_member_is_left),
    };
    return cmocka_run_group_tests_name("clients/informer", tests, NULL, NULL);
}
