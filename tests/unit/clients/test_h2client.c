/* The HTTP/2 client against a scripted server: concurrency, streaming, time-outs, fail-over,
 * reconnects, TLS, garbage. */
#include "tests/unit/clients/mock_server.h"

#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "clients/lib/frames.h"
#include "clients/lib/h2client.h"

struct call {
    int status, code, done, head, trailers;
    char body[4096];
    size_t body_len, bytes;
    char grpc_status[8];
    char error[256];
    int cancel_on_data, writable;
};

static void on_head(struct h2_stream *s, int status, const struct h2_header *h, size_t n)
{
    struct call *c = h2_user(s);
    (void)h;
    (void)n;
    c->status = status;
    c->head++;
}

static void on_data(struct h2_stream *s, struct slice piece)
{
    struct call *c = h2_user(s);
    c->bytes += piece.len;
    if (c->body_len + piece.len < sizeof(c->body)) {
        memcpy(c->body + c->body_len, piece.data, piece.len);
        c->body_len += piece.len;
    }
    if (c->cancel_on_data) h2_cancel(s);
}

static void on_trailers(struct h2_stream *s, const struct h2_header *h, size_t n)
{
    struct call *c = h2_user(s);
    c->trailers++;
    struct slice v = h2_header_get(h, n, "grpc-status");
    snprintf(c->grpc_status, sizeof(c->grpc_status), "%.*s", (int)v.len, v.data);
}

static void on_writable(struct h2_stream *s)
{
    ((struct call *)h2_user(s))->writable++;
}

static void on_done(struct h2_stream *s, int code)
{
    struct call *c = h2_user(s);
    c->code = code;
    c->done++;
    snprintf(c->error, sizeof(c->error), "%s", h2_stream_error(s));
}

static const struct h2_callbacks callbacks = {on_head, on_data, on_trailers, on_writable, on_done};

struct world {
    uv_loop_t loop;
    struct mock_server a, b;
    struct h2_client *client;
    struct mock_exchange *held;
    uint64_t busy_until;
};

static void handler(struct mock_server *m, struct mock_exchange *x)
{
    struct world *w = m->user;
    if (!strcmp(x->path, "/echo")) {
        mock_write(x, x->body ? x->body : "", x->body_len);
        x->out_end = 1;
        mock_head(x, 200);
    } else if (!strcmp(x->path, "/who")) {
        mock_reply(x, 200, m == &w->a ? "a" : "b");
    } else if (!strcmp(x->path, "/trailers")) {
        x->trailers = 1;
        mock_reply(x, 200, "data");
    } else if (!strcmp(x->path, "/hold")) {
        mock_head(x, 200);
        w->held = x;
    } else if (!strcmp(x->path, "/never")) {
        w->held = x;
    } else if (!strcmp(x->path, "/refuse") && m->requests == 1) {
        nghttp2_submit_rst_stream(x->conn->session, 0, x->id, NGHTTP2_REFUSED_STREAM);
    } else if (!strcmp(x->path, "/busy") && uv_hrtime() < w->busy_until) {
        nghttp2_submit_rst_stream(x->conn->session, 0, x->id, NGHTTP2_REFUSED_STREAM);
    } else if (!strcmp(x->path, "/goaway") && m->requests == 1) {
        nghttp2_submit_goaway(x->conn->session, 0, 0, NGHTTP2_NO_ERROR, NULL, 0);
    } else {
        mock_reply(x, 200, "ok");
    }
}

static struct world *world_new(int servers, struct h2_client_options o)
{
    struct world *w = calloc(1, sizeof(*w));
    uv_loop_init(&w->loop);
    w->a.user = w->b.user = w;
    mock_start(&w->a, &w->loop, 0, handler);
    if (servers > 1) mock_start(&w->b, &w->loop, 0, handler);
    char urls[2][64];
    snprintf(urls[0], 64, "http://127.0.0.1:%d", w->a.port);
    snprintf(urls[1], 64, "http://127.0.0.1:%d", w->b.port);
    const char *list[] = {urls[0], urls[1]};
    o.endpoints = list;
    o.n_endpoints = (size_t)servers;
    o.backoff_min_ms = 5;
    o.backoff_max_ms = 20;
    struct err e;
    assert_int_equal(h2_client_new(&w->loop, &o, &w->client, &e), 0);
    return w;
}

static void set_flag(void *ctx)
{
    *(int *)ctx = 1;
}

static void world_free(struct world *w)
{
    int closed = 0;
    if (w->client) {
        h2_client_close(w->client, set_flag, &closed);
        run_until(&w->loop, closed);
    }
    mock_stop(&w->a);
    mock_stop(&w->b);
    while (uv_run(&w->loop, UV_RUN_NOWAIT)) {
    }
    assert_int_equal(uv_loop_close(&w->loop), 0);
    free(w);
}

static struct h2_stream *send_call(struct world *w, struct call *c, const char *method,
                                   const char *path, const char *body, unsigned timeout)
{
    struct h2_request r = {
        .method = method, .path = slice_str(path), .body = slice_str(body), .timeout_ms = timeout};
    struct h2_stream *s;
    assert_int_equal(h2_request(w->client, &r, &callbacks, c, &s), 0);
    return s;
}

static void test_many_on_one_connection(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    enum { N = 1000 }; /* more than the server's limit of concurrent streams */
    struct call *calls = calloc(N, sizeof(*calls));
    char body[32];
    for (int i = 0; i < N; i++) {
        snprintf(body, sizeof(body), "body-%d", i);
        send_call(w, &calls[i], "POST", "/echo", body, 5000);
    }
    for (int i = 0; i < N; i++) {
        run_until(&w->loop, calls[i].done);
        snprintf(body, sizeof(body), "body-%d", i);
        assert_int_equal(calls[i].code, 0);
        assert_int_equal(calls[i].status, 200);
        calls[i].body[calls[i].body_len] = 0;
        assert_string_equal(calls[i].body, body);
    }
    assert_int_equal(w->a.connections, 1);
    struct h2_client_stats st;
    h2_client_stats(w->client, &st);
    assert_int_equal(st.streams, 0);
    assert_int_equal(st.streams_total, N);
    free(calls);
    world_free(w);
}

static void test_streaming_both_ways(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    struct call c = {0};
    struct h2_request r = {.method = "POST", .path = SLICE_LIT("/echo"), .more_body = true};
    struct h2_stream *s;
    assert_int_equal(h2_request(w->client, &r, &callbacks, &c, &s), 0);
    size_t sent = 0;
    static uint8_t block[100000];
    while (h2_writable(s)) {
        assert_int_equal(h2_write(s, slice_make(block, sizeof(block))), 0);
        sent += sizeof(block);
    }
    run_until(&w->loop, c.writable);
    assert_true(h2_writable(s));
    h2_end(s);
    assert_int_equal(h2_write(s, SLICE_LIT("x")), ERR_CLOSED);
    run_until(&w->loop, c.done);
    assert_int_equal(c.code, 0);
    assert_int_equal(c.bytes, sent);
    world_free(w);
}

static void test_trailers_and_cancel(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    struct call c = {0}, canceled = {.cancel_on_data = 1}, before = {0};
    send_call(w, &c, "POST", "/trailers", "x", 0);
    send_call(w, &canceled, "GET", "/hold", "", 0);
    h2_cancel(send_call(w, &before, "GET", "/who", "", 0));
    run_until(&w->loop, c.done && w->held);
    assert_int_equal(c.trailers, 1);
    assert_string_equal(c.grpc_status, "0");
    mock_write(w->held, "line\n", 5);
    run_until(&w->loop, canceled.bytes);
    struct call after = {0};
    send_call(w, &after, "GET", "/who", "", 1000);
    run_until(&w->loop, after.done);
    assert_int_equal(canceled.done, 0);
    assert_int_equal(before.done, 0);
    struct h2_client_stats st;
    h2_client_stats(w->client, &st);
    assert_int_equal(st.streams, 0);
    world_free(w);
}

static void test_timeouts(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    struct call c = {0}, ok = {0};
    send_call(w, &c, "GET", "/never", "", 50);
    send_call(w, &ok, "GET", "/who", "", 5000);
    run_until(&w->loop, c.done && ok.done);
    assert_int_equal(c.code, ERR_TIMEOUT);
    assert_int_equal(ok.code, 0);
    mock_stop(&w->a); /* nobody listens: it waits for a connection, in vain */
    struct call late = {0};
    send_call(w, &late, "GET", "/who", "", 80);
    run_until(&w->loop, late.done);
    assert_true(late.code == ERR_TIMEOUT || late.code == ERR_UNAVAILABLE);
    struct call later = {0};
    send_call(w, &later, "GET", "/who", "", 80);
    run_until(&w->loop, later.done);
    assert_int_equal(later.code, ERR_TIMEOUT);
    assert_non_null(strstr(later.error, "connection refused"));
    world_free(w);
}

static void test_fail_over_and_back(void **state)
{
    (void)state;
    struct world *w = world_new(2, (struct h2_client_options){0});
    struct call c = {0}, lost = {0}, next = {0}, third = {0};
    send_call(w, &c, "GET", "/who", "", 1000);
    run_until(&w->loop, c.done);
    assert_memory_equal(c.body, "a", 1);
    int port = w->a.port;
    send_call(w, &lost, "GET", "/never", "", 5000);
    run_until(&w->loop, w->held);
    mock_stop(&w->a);
    run_until(&w->loop, lost.done);
    assert_int_equal(lost.code, ERR_UNAVAILABLE);
    send_call(w, &next, "GET", "/who", "", 1000);
    run_until(&w->loop, next.done);
    assert_int_equal(next.code, 0);
    assert_memory_equal(next.body, "b", 1);
    mock_start(&w->a, &w->loop, port, handler);
    mock_stop(&w->b);
    run_until(&w->loop, !w->b.conns);
    struct h2_client_stats st;
    do {
        uv_run(&w->loop, UV_RUN_NOWAIT);
        h2_client_stats(w->client, &st);
    } while (st.connected);
    send_call(w, &third, "GET", "/who", "", 1000);
    run_until(&w->loop, third.done);
    assert_int_equal(third.code, 0);
    assert_memory_equal(third.body, "a", 1);
    world_free(w);
}

static void test_refused_and_goaway_are_repeated(void **state)
{
    (void)state;
    const char *paths[] = {"/refuse", "/goaway"};
    for (int i = 0; i < 2; i++) {
        struct world *w = world_new(1, (struct h2_client_options){0});
        struct call c = {0};
        send_call(w, &c, "POST", paths[i], "payload", 3000);
        run_until(&w->loop, c.done);
        assert_int_equal(c.code, 0);
        assert_memory_equal(c.body, "ok", 2);
        assert_int_equal(w->a.requests, 2);
        world_free(w);
    }
}

static void test_refused_with_pauses(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    struct call c = {0};
    w->busy_until = uv_hrtime() + 300000000;
    send_call(w, &c, "POST", "/busy", "payload", 3000);
    run_until(&w->loop, c.done);
    assert_int_equal(c.code, 0);
    assert_memory_equal(c.body, "ok", 2);
    assert_in_range(w->a.requests, 2, 8);
    world_free(w);
}

static void test_silent_server_is_left(void **state)
{
    (void)state;
    struct world *w =
        world_new(2, (struct h2_client_options){.keepalive_ms = 30, .keepalive_timeout_ms = 30});
    struct call c = {0}, watch = {0}, next = {0};
    send_call(w, &c, "GET", "/who", "", 1000);
    run_until(&w->loop, c.done);
    send_call(w, &watch, "GET", "/hold", "", 0);
    run_until(&w->loop, watch.head);
    /* answered PINGs keep it alive well beyond both times */
    uint64_t until = uv_hrtime() + 200000000;
    while (uv_hrtime() < until) uv_run(&w->loop, UV_RUN_NOWAIT);
    assert_int_equal(watch.done, 0);
    w->a.deaf = 1;
    run_until(&w->loop, watch.done);
    assert_int_equal(watch.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(watch.error, "PING"));
    send_call(w, &next, "GET", "/who", "", 1000);
    run_until(&w->loop, next.done);
    assert_memory_equal(next.body, "b", 1);
    world_free(w);
}

static void test_next_endpoint_keeps_streams(void **state)
{
    (void)state;
    struct world *w = world_new(2, (struct h2_client_options){0});
    struct call watch = {0}, next = {0};
    send_call(w, &watch, "GET", "/hold", "", 0);
    run_until(&w->loop, watch.head);
    h2_client_next_endpoint(w->client);
    send_call(w, &next, "GET", "/who", "", 1000);
    run_until(&w->loop, next.done);
    assert_memory_equal(next.body, "b", 1);
    mock_write(w->held, "still here", 10);
    mock_end(w->held);
    run_until(&w->loop, watch.done);
    assert_int_equal(watch.code, 0);
    assert_int_equal(watch.body_len, 10);
    world_free(w);
}

static void garbage_accept(uv_stream_t *l, int status)
{
    struct mock_server *m = l->data;
    (void)status;
    struct mock_conn *c = calloc(1, sizeof(*c));
    c->server = m;
    uv_tcp_init(m->loop, &c->tcp);
    c->tcp.data = c;
    c->next = m->conns;
    m->conns = c;
    m->connections++;
    uv_accept(l, (uv_stream_t *)&c->tcp);
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_server_new(&c->session, cb, c);
    nghttp2_session_callbacks_del(cb);
    mock_wire(c, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
}

static void test_garbage_and_fail_fast(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){.fail_fast = true});
    ((uv_stream_t *)&w->a.listener)->connection_cb = garbage_accept;
    struct call c = {0};
    send_call(w, &c, "GET", "/who", "", 5000);
    run_until(&w->loop, c.done);
    assert_int_equal(c.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(c.error, "not HTTP/2"));
    mock_stop(&w->a);
    struct call refused = {0};
    uint64_t start = uv_hrtime();
    send_call(w, &refused, "GET", "/who", "", 5000);
    run_until(&w->loop, refused.done);
    assert_int_equal(refused.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(refused.error, "refused"));
    assert_true(uv_hrtime() - start < 1000000000);
    world_free(w);
}

static void test_bad_endpoints(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    const char *bad[] = {"",
                         "http://",
                         "ftp://x:1",
                         "http://a:0",
                         "http://a:99999",
                         "http://a:1/path",
                         "http://[::1:80",
                         "http://1:2:3",
                         "http://a:12x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct h2_client *c = NULL;
        struct err e = {{0}};
        int rc = h2_client_new(
            &loop, &(struct h2_client_options){.endpoints = &bad[i], .n_endpoints = 1}, &c, &e);
        assert_int_equal(rc, ERR_INVALID);
        assert_null(c);
        assert_true(strlen(e.text) > 10);
    }
    const char *tls = "https://localhost:1";
    struct err e;
    struct h2_client *c;
    struct h2_tls_options t = {.ca_pem = SLICE_LIT("not pem")};
    struct h2_client_options o = {.endpoints = &tls, .n_endpoints = 1, .tls = &t};
    assert_int_equal(h2_client_new(&loop, &o, &c, &e), ERR_INVALID);
    t = (struct h2_tls_options){.insecure = true, .cert_file = "/nonexistent"};
    assert_int_equal(h2_client_new(&loop, &o, &c, &e), ERR_INVALID);
    uv_loop_close(&loop);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    struct world *w = world_new(1, (struct h2_client_options){0});
    struct call warm = {0};
    send_call(w, &warm, "GET", "/who", "", 1000);
    run_until(&w->loop, warm.done);
    for (uint64_t nth = 1; nth < 12; nth++) {
        struct call c = {0};
        struct h2_request r = {.method = "POST",
                               .path = SLICE_LIT("/echo"),
                               .body = SLICE_LIT("abc"),
                               .timeout_ms = 1000};
        struct h2_stream *s;
        mem_fail_nth(nth);
        int rc = h2_request(w->client, &r, &callbacks, &c, &s);
        if (rc) {
            assert_int_equal(rc, ERR_NOMEM);
            mem_fail_nth(0);
            continue;
        }
        run_until(&w->loop, c.done); /* succeeds or says why */
        bool fired = mem_fail_nth(0);
        if (!fired) assert_int_equal(c.code, 0);
    }
    struct call last = {0};
    send_call(w, &last, "GET", "/who", "", 1000);
    run_until(&w->loop, last.done);
    assert_int_equal(last.code, 0);
    world_free(w);
}

static int run_cmd(const char *cmd)
{
    return system(cmd);
}

static void test_tls_verifies(void **state)
{
    (void)state;
    char dir[] = "/tmp/pintle-h2-XXXXXX", cmd[1024], cert[64], key[64], other[64];
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof(cert), "%s/c.pem", dir);
    snprintf(key, sizeof(key), "%s/k.pem", dir);
    snprintf(other, sizeof(other), "%s/o.pem", dir);
    for (int i = 0; i < 2; i++) {
        snprintf(cmd, sizeof(cmd),
                 "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s "
                 "-out %s -days 2 -subj /CN=t "
                 "-addext subjectAltName=IP:127.0.0.1 2>/dev/null",
                 i ? key : other, i ? cert : other);
        assert_int_equal(run_cmd(cmd), 0);
    }
    struct world *w = calloc(1, sizeof(*w));
    uv_loop_init(&w->loop);
    w->a.user = w;
    w->a.tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate_chain_file(w->a.tls, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(w->a.tls, key, SSL_FILETYPE_PEM), 1);
    mock_start(&w->a, &w->loop, 0, handler);
    for (int i = 0; i < 3; i++) {
        char url[64];
        snprintf(url, sizeof(url), "https://127.0.0.1:%d", w->a.port);
        const char *list[] = {url};
        struct h2_tls_options t = {.ca_file = i == 0 ? cert : other, .insecure = i == 2};
        if (i == 1) { /* its own key text is no certificate of the server's */
            snprintf(cmd, sizeof(cmd), "openssl x509 -in %s -out /dev/null 2>/dev/null", other);
            t.server_name = "127.0.0.2";
            t.ca_file = cert;
        }
        struct h2_client_options o = {
            .endpoints = list, .n_endpoints = 1, .tls = &t, .fail_fast = true};
        struct err e;
        assert_int_equal(h2_client_new(&w->loop, &o, &w->client, &e), 0);
        struct call c = {0};
        send_call(w, &c, "GET", "/who", "", 3000);
        run_until(&w->loop, c.done);
        assert_int_equal(c.code, i == 1 ? ERR_UNAVAILABLE : 0);
        if (i == 1) assert_non_null(strstr(c.error, "IP address mismatch"));
        int closed = 0;
        h2_client_close(w->client, set_flag, &closed);
        run_until(&w->loop, closed);
        w->client = NULL;
    }
    SSL_CTX *ctx = w->a.tls;
    world_free(w);
    SSL_CTX_free(ctx);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(run_cmd(cmd), 0);
}

struct gathered {
    int n;
    char text[256];
};

static void gather(void *ctx, struct slice s)
{
    struct gathered *g = ctx;
    size_t at = strlen(g->text);
    snprintf(g->text + at, sizeof(g->text) - at, "[%.*s]", (int)s.len, s.data);
    g->n++;
}

static void test_frames(void **state)
{
    (void)state;
    const char *text = "one\r\n\ntwo\nthree\n";
    for (size_t cut = 1; cut < strlen(text); cut++) {
        struct frames f;
        frames_init(&f, 64);
        struct gathered g = {0};
        for (size_t at = 0; at < strlen(text); at += cut)
            assert_int_equal(frames_feed_lines(&f, slice_sub(slice_str(text), at, cut), gather, &g),
                             0);
        assert_string_equal(g.text, "[one][two][three]");
        assert_true(frames_whole(&f));
        frames_release(&f);
    }
    struct buf out = {0};
    const char *messages[] = {"alpha", "", "be"};
    for (int i = 0; i < 3; i++) {
        frames_put_grpc_head(&out, strlen(messages[i]));
        buf_append_str(&out, messages[i]);
    }
    for (size_t cut = 1; cut <= out.len; cut++) {
        struct frames f;
        frames_init(&f, 64);
        struct gathered g = {0};
        for (size_t at = 0; at < out.len; at += cut)
            assert_int_equal(frames_feed_grpc(&f, slice_sub(buf_slice(&out), at, cut), gather, &g),
                             0);
        assert_string_equal(g.text, "[alpha][][be]");
        frames_release(&f);
    }
    buf_release(&out);
    struct frames f;
    frames_init(&f, 8);
    struct gathered g = {0};
    assert_int_equal(frames_feed_lines(&f, SLICE_LIT("123456789"), gather, &g), ERR_LIMIT);
    frames_release(&f);
    frames_init(&f, 8);
    assert_int_equal(frames_feed_grpc(&f, slice_make("\0\0\0\0\x09", 5), gather, &g), ERR_LIMIT);
    assert_int_equal(frames_feed_grpc(&f, slice_make("\1\0\0\0\1x", 6), gather, &g), ERR_CORRUPT);
    frames_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_on_one_connection),
        cmocka_unit_test(test_streaming_both_ways),
        cmocka_unit_test(test_trailers_and_cancel),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_fail_over_and_back),
        cmocka_unit_test(test_refused_and_goaway_are_repeated),
        cmocka_unit_test(test_refused_with_pauses),
        cmocka_unit_test(test_silent_server_is_left),
        cmocka_unit_test(test_next_endpoint_keeps_streams),
        cmocka_unit_test(test_garbage_and_fail_fast),
        cmocka_unit_test(test_bad_endpoints),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_tls_verifies),
        cmocka_unit_test(test_frames),
    };
    return cmocka_run_group_tests_name("clients/h2client", tests, NULL, NULL);
}
