/* The fixture as a server of its own, for curl, h2load and scripts: test_serve --serve [--port P] [--workers N] [--tls CERT KEY [CA]]
 * [--require] prints "port N" and serves until SIGTERM. Without --serve: that a server starts, refuses a port in use, and stops. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
/* after the above, which it needs */
#include <cmocka.h>

#include "base/list.h"
#include "http_fixture.h"

enum { WORKERS_MOST = 8 };

struct worker {
    uv_loop_t loop, *loop_ptr;
    uv_thread_t thread;
    uv_async_t stop;
    struct http_server *server;
    uv_signal_t term;
};

static struct worker workers[WORKERS_MOST];
static int n_workers = 1;
static struct http_listener *listener;

static void on_server_closed(void *ctx)
{
    (void)ctx;
}

static void on_stop(uv_async_t *h)
{
    struct worker *w = container_of(h, struct worker, stop);
    http_server_close(w->server, 2000, on_server_closed, w);
    uv_close((uv_handle_t *)h, NULL);
}

static void on_term(uv_signal_t *h, int signum)
{
    (void)signum;
    http_listener_close(listener);
    for (int i = 0; i < n_workers; i++) uv_async_send(&workers[i].stop);
    uv_close((uv_handle_t *)h, NULL);
}

static void run_worker(void *arg)
{
    struct worker *w = arg;
    uv_run(&w->loop, UV_RUN_DEFAULT);
}

static int start_workers(int port, struct http_tls *tls)
{
    struct http_server *servers[WORKERS_MOST];
    void *contexts[WORKERS_MOST];
    for (int i = 0; i < n_workers; i++) {
        struct worker *w = &workers[i];
        uv_loop_init(&w->loop);
        w->loop_ptr = &w->loop;
        if (http_server_new(&w->loop, &w->server) != 0) return 1;
        uv_async_init(&w->loop, &w->stop, on_stop);
        servers[i] = w->server;
        contexts[i] = &w->loop_ptr;
    }
    struct err e;
    const struct http_listen_options o = {.host = "127.0.0.1",
                                          .port = port,
                                          .tls = tls,
                                          .servers = servers,
                                          .contexts = contexts,
                                          .n_servers = (size_t)n_workers,
                                          .handler = http_app};
    if (http_listen(&o, &listener, &e) == 0) return 0;
    fprintf(stderr, "%s\n", e.text);
    return 1;
}

static int serve(int argc, char **argv)
{
    int port = 0;
    struct http_tls_options to = {0};
    struct http_tls *tls = NULL;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--port") == 0 && i + 1 < argc) port = atoi(argv[++i]);
        if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc) n_workers = atoi(argv[++i]);
        if (strcmp(argv[i], "--require") == 0) to.client_cert_required = true;
        if (strcmp(argv[i], "--tls") != 0 || i + 2 >= argc) continue;
        to.cert_file = argv[++i];
        to.key_file = argv[++i];
        if (i + 1 < argc && argv[i + 1][0] != '-') to.client_ca_file = argv[++i];
    }
    struct err e;
    if (to.cert_file && http_tls_new(&to, &tls, &e) != 0) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    if (n_workers < 1 || n_workers > WORKERS_MOST || start_workers(port, tls) != 0) return 1;
    uv_signal_init(&workers[0].loop, &workers[0].term);
    uv_signal_start(&workers[0].term, on_term, SIGTERM);
    printf("port %d\n", http_listener_port(listener));
    fflush(stdout);
    for (int i = 1; i < n_workers; i++) uv_thread_create(&workers[i].thread, run_worker, &workers[i]);
    run_worker(&workers[0]);
    for (int i = 1; i < n_workers; i++) uv_thread_join(&workers[i].thread);
    for (int i = 0; i < n_workers; i++) {
        http_server_free(workers[i].server);
        if (uv_loop_close(&workers[i].loop) != 0) fprintf(stderr, "handles left on loop %d\n", i);
    }
    http_tls_free(tls);
    return 0;
}

static void test_start_and_stop(void **state)
{
    (void)state;
    assert_int_equal(start_workers(0, NULL), 0);
    struct http_listener *second;
    struct err e;
    const struct http_listen_options o = {.host = "127.0.0.1",
                                          .port = http_listener_port(listener),
                                          .servers = &workers[0].server,
                                          .n_servers = 1,
                                          .handler = http_app};
    assert_int_equal(http_listen(&o, &second, &e), ERR_EXISTS);
    assert_non_null(strstr(e.text, "address already in use: 127.0.0.1:"));
    http_listener_close(listener);
    uv_async_send(&workers[0].stop);
    run_worker(&workers[0]);
    http_server_free(workers[0].server);
    assert_int_equal(uv_loop_close(&workers[0].loop), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--serve") == 0) return serve(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_start_and_stop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
