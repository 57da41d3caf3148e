/* gRPC calls: routing, framing, limits, deadlines, cancellation, trailers. */
#include "http_client.h"

#include "api/etcd/grpc.h"
#include "base/limits.h"
#include "base/log.h"

static struct grpc_server *server;
static int opened, closed_count, closed_error, half_closes;
static struct grpc_call *kept; /* of Hang, with a reference */

/* ---- the services --------------------------------------------------------------------------------- */

static void count_open(struct grpc_call *c)
{
    (void)c;
    opened++;
}

static void count_closed(struct grpc_call *c, int error)
{
    assert_true(grpc_done(c));
    closed_count++;
    closed_error = error;
}

static void echo_message(struct grpc_call *c, struct slice message)
{
    int *seen = grpc_state(c);
    assert_ptr_equal(grpc_call_of(seen), c);
    assert_int_equal((*seen)++, 0);
    const struct grpc_piece pieces[2] = {{.data = SLICE_LIT("re:")}, {.data = message}};
    grpc_reply(c, pieces, 2);
}

static void fail_message(struct grpc_call *c, struct slice message)
{
    grpc_finishf(c, GRPC_OUT_OF_RANGE, "bad \"%.*s\" 100%% \xc3\xa4\n", (int)message.len, (const char *)message.data);
}

static void hang_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    kept = grpc_ref(c);
}

static void stream_message(struct grpc_call *c, struct slice message)
{
    int *seen = grpc_state(c);
    if (slice_eq_str(message, "pause")) {
        grpc_pause(c);
        return;
    }
    if (slice_eq_str(message, "finish")) {
        grpc_finish(c, GRPC_ABORTED, "asked to");
        grpc_send_copy(c, SLICE_LIT("too late"));
        return;
    }
    struct buf b = {0};
    buf_printf(&b, "%d:", ++*seen);
    buf_append_slice(&b, message);
    grpc_send_buf(c, &b);
}

static void stream_half_closed(struct grpc_call *c)
{
    half_closes++;
    struct blob *b = blob_copy(SLICE_LIT("bye"));
    grpc_send_blob(c, b);
    blob_unref(b);
    grpc_finish(c, GRPC_OK, NULL);
}

static const struct grpc_method echo_methods[] = {
    {.name = "Echo", .state_size = sizeof(int), .message = echo_message, .open = count_open, .closed = count_closed},
    {.name = "Fail", .message = fail_message, .closed = count_closed},
    {.name = "Hang", .message = hang_message, .closed = count_closed},
    {.name = "Stream",
     .client_streaming = true,
     .state_size = sizeof(int),
     .message = stream_message,
     .half_closed = stream_half_closed,
     .closed = count_closed},
};
static const struct grpc_service services[] = {{"test.Echo", echo_methods, 4}};

static void app(void *ctx, struct http_stream *st)
{
    (void)ctx;
    if (!grpc_serve(server, st)) http_reply(st, 200, "text/plain", SLICE_LIT("plain\n"));
}

/* ---- helpers -------------------------------------------------------------------------------------- */

static struct fixture f;
static struct h2_client c;

static int setup(void **state)
{
    (void)state;
    opened = closed_count = half_closes = 0;
    closed_error = 1;
    log_set_level(LOG_ERROR);
    kept = NULL;
    assert_int_equal(grpc_server_new(services, 1, 0, NULL, &server), 0);
    fixture_start_with(&f, NULL, app, NULL);
    f.server->limits.linger_ms = 50;
    h2c_open(&c, &f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    h2c_close(&c);
    fixture_stop(&f);
    grpc_server_free(server);
    return 0;
}

static size_t frame(uint8_t *to, uint8_t flag, const char *message)
{
    size_t len = strlen(message);
    const uint8_t head[5] = {flag, 0, 0, (uint8_t)(len >> 8), (uint8_t)len};
    memcpy(to, head, 5);
    memcpy(to + 5, message, len);
    return 5 + len;
}

static const char *const grpc_headers[] = {"content-type", "application/grpc", "te", "trailers", NULL};

/* One call with those body bytes; waits for its end. */
static void call(struct h2_answer *a, const char *path, const char *const *headers, const void *body, size_t len)
{
    h2c_request(&c, a, "POST", path, headers ? headers : grpc_headers, body, len);
    assert_true(h2c_wait(&c, &a->closed));
}

static void unary(struct h2_answer *a, const char *path, const char *message)
{
    uint8_t body[1024];
    size_t n = frame(body, 0, message);
    call(a, path, NULL, body, n);
}

/* ---- tests ---------------------------------------------------------------------------------------- */

static void test_unary(void **state)
{
    (void)state;
    struct h2_answer a = {0};
    unary(&a, "/test.Echo/Echo", "hi");
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "content-type: application/grpc\n"));
    assert_true(answer_has(&a, "grpc-status: 0\n"));
    assert_false(answer_has(&a, "grpc-message"));
    assert_int_equal(a.body.len, 5 + 5);
    assert_memory_equal(a.body.data, "\0\0\0\0\5re:hi", 10);
    assert_int_equal(opened, 1);
    assert_int_equal(closed_count, 1);
    assert_int_equal(closed_error, 0);
    answer_release(&a);
}

static void test_status_text(void **state)
{
    (void)state;
    struct h2_answer a = {0};
    unary(&a, "/test.Echo/Fail", "x");
    assert_true(answer_has(&a, "grpc-status: 11\n"));
    assert_true(answer_has(&a, "grpc-message: bad \"x\" 100%25 %C3%A4%0A\n"));
    assert_int_equal(a.body.len, 0);
    answer_release(&a);
}

static void refused(const char *path, const char *const *headers, const void *body, size_t len, const char *status,
                    const char *message)
{
    struct h2_answer a = {0};
    call(&a, path, headers, body, len);
    if (!answer_has(&a, status) || !answer_has(&a, message))
        fail_msg("%s: %.*s", path, (int)a.fields.len, (char *)a.fields.data);
    answer_release(&a);
}

static void test_unknown(void **state)
{
    (void)state;
    refused("/test.Echo/Nope", NULL, "", 0, "grpc-status: 12\n", "grpc-message: unknown method Nope for service test.Echo\n");
    refused("/test.Nope/Echo", NULL, "", 0, "grpc-status: 12\n", "grpc-message: unknown service test.Nope\n");
    refused("/nothing", NULL, "", 0, "grpc-status: 12\n", "grpc-message: malformed method name: \"/nothing\"\n");
    assert_int_equal(opened, 0);
}

static void test_bad_heads(void **state)
{
    (void)state;
    static const char *const gzip[] = {"content-type", "application/grpc+proto", "grpc-encoding", "gzip", NULL};
    refused("/test.Echo/Echo", gzip, "", 0, "grpc-status: 12\n", "Decompressor is not installed for grpc-encoding \"gzip\"");
    refused("/test.Echo/Echo", gzip, "", 0, "grpc-status: 12\n", "grpc-accept-encoding: identity");
    static const char *const timeouts[] = {"", "5", "S", "123456789S", "5x", "-1S", "1 S", NULL};
    for (int i = 0; timeouts[i]; i++) {
        const char *const headers[] = {"content-type", "application/grpc", "grpc-timeout", timeouts[i], NULL};
        refused("/test.Echo/Echo", headers, "", 0, "grpc-status: 13\n", "malformed grpc-timeout");
    }
    struct h2_answer a = {0};
    h2c_request(&c, &a, "GET", "/test.Echo/Echo", grpc_headers, NULL, 0);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 405);
    answer_release(&a);
    static const char *const plain[] = {"content-type", "application/grpcweb", NULL};
    call(&a, "/test.Echo/Echo", plain, "", 0);
    assert_memory_equal(a.body.data, "plain\n", 6);
    answer_release(&a);
    assert_int_equal(opened, 0);
}

static void test_bad_messages(void **state)
{
    (void)state;
    uint8_t body[64];
    size_t n = frame(body, 1, "zip");
    refused("/test.Echo/Echo", NULL, body, n, "grpc-status: 13\n", "compressed flag set");
    n = frame(body, 7, "what");
    refused("/test.Echo/Echo", NULL, body, n, "grpc-status: 13\n", "unexpected payload format 7");
    n = frame(body, 0, "cut off");
    refused("/test.Echo/Echo", NULL, body, n - 1, "grpc-status: 13\n", "unexpected EOF");
    refused("/test.Echo/Echo", NULL, body, 3, "grpc-status: 13\n", "unexpected EOF");
    refused("/test.Echo/Echo", NULL, "", 0, "grpc-status: 13\n", "received no request message");
    n = frame(body, 0, "one");
    n += frame(body + n, 0, "two");
    struct h2_answer a = {0};
    call(&a, "/test.Echo/Hang", NULL, body, n);
    assert_true(answer_has(&a, "multiple request messages"));
    grpc_unref(kept);
    answer_release(&a);
    const uint8_t huge[5] = {0, 0, 0x20, 0, 1};
    refused("/test.Echo/Echo", NULL, huge, 5, "grpc-status: 8\n",
            "grpc-message: grpc: received message larger than max (2097153 vs. 2097152)\n");
}

static void test_largest_message(void **state)
{
    (void)state;
    size_t len = LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES;
    uint8_t *body = mem_must_calloc(1, len + 5);
    body[1] = (uint8_t)(len >> 24);
    body[2] = (uint8_t)(len >> 16);
    for (size_t i = 0; i < len; i++) body[5 + i] = (uint8_t)(i * 31);
    struct h2_answer a = {0};
    call(&a, "/test.Echo/Echo", NULL, body, len + 5);
    assert_true(answer_has(&a, "grpc-status: 0\n"));
    assert_int_equal(a.body.len, 5 + 3 + len);
    assert_memory_equal(a.body.data + 8, body + 5, len);
    answer_release(&a);
    mem_free(body);
}

static void test_streaming(void **state)
{
    (void)state;
    uint8_t body[256];
    size_t n = frame(body, 0, "a");
    n += frame(body + n, 0, "");
    n += frame(body + n, 0, "ccc");
    struct h2_answer a = {0};
    call(&a, "/test.Echo/Stream", NULL, body, n);
    assert_true(answer_has(&a, "grpc-status: 0\n"));
    assert_int_equal(half_closes, 1);
    static const char want[] = "\0\0\0\0\3"
                               "1:a\0\0\0\0\2"
                               "2:\0\0\0\0\5"
                               "3:ccc\0\0\0\0\3"
                               "bye";
    assert_int_equal(a.body.len, sizeof(want) - 1);
    assert_memory_equal(a.body.data, want, sizeof(want) - 1);
    answer_release(&a);
}

/* Messages that are cut at every place of their bytes, frame by frame. */
static void test_split_frames(void **state)
{
    (void)state;
    uint8_t body[64];
    size_t n = frame(body, 0, "abcdef");
    n += frame(body + n, 0, "gh");
    for (size_t cut = 1; cut < n; cut++) {
        struct h2_answer a = {.send_open = true};
        h2c_request(&c, &a, "POST", "/test.Echo/Stream", grpc_headers, body, cut);
        for (int i = 0; i < 3; i++) h2c_turn(&c);
        a.send = body + cut;
        a.send_len = n - cut;
        a.send_open = false;
        nghttp2_session_resume_data(c.session, a.id);
        assert_true(h2c_wait(&c, &a.closed));
        assert_int_equal(a.body.len, 5 + 8 + 5 + 4 + 5 + 3);
        answer_release(&a);
    }
}

static void test_finish_early(void **state)
{
    (void)state;
    uint8_t body[64];
    size_t n = frame(body, 0, "x");
    n += frame(body + n, 0, "finish");
    n += frame(body + n, 0, "never seen");
    struct h2_answer a = {.send_open = true};
    h2c_request(&c, &a, "POST", "/test.Echo/Stream", grpc_headers, body, n);
    assert_true(h2c_wait(&c, &a.closed)); /* though the client has not half-closed */
    assert_int_equal(a.close_code, 0);
    assert_true(answer_has(&a, "grpc-status: 10\n"));
    assert_int_equal(a.body.len, 5 + 3);
    assert_int_equal(closed_error, 0);
    answer_release(&a);
}

static void test_pause(void **state)
{
    (void)state;
    uint8_t body[64];
    size_t n = frame(body, 0, "pause");
    n += frame(body + n, 0, "x");
    struct h2_answer a = {.send_open = true};
    h2c_request(&c, &a, "POST", "/test.Echo/Stream", grpc_headers, body, n);
    for (int i = 0; i < 20; i++) h2c_turn(&c);
    assert_int_equal(a.body.len, 0);
    struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
    struct http_stream *st = container_of(conn->streams.next, struct http_stream, node);
    assert_true(http_paused(st));
    assert_int_equal(st->held.len, 6);
    http_resume(st);
    a.send_open = false;
    nghttp2_session_resume_data(c.session, a.id);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.body.len, 5 + 3 + 5 + 3);
    answer_release(&a);
}

static void test_cancel(void **state)
{
    (void)state;
    uint8_t body[16];
    size_t n = frame(body, 0, "x");
    struct h2_answer a = {0};
    h2c_request(&c, &a, "POST", "/test.Echo/Hang", grpc_headers, body, n);
    while (!kept) h2c_turn(&c);
    nghttp2_submit_rst_stream(c.session, 0, a.id, NGHTTP2_CANCEL);
    while (!closed_count) h2c_turn(&c);
    assert_int_equal(closed_error, ERR_CANCELED);
    /* The call outlives its stream as long as somebody holds it; what is said now goes nowhere. */
    assert_true(grpc_done(kept));
    assert_null(grpc_http_request(kept));
    grpc_send_copy(kept, SLICE_LIT("late"));
    grpc_finish(kept, GRPC_OK, NULL);
    grpc_unref(kept);
    answer_release(&a);
}

static void test_deadline(void **state)
{
    (void)state;
    static const char *const headers[] = {"content-type", "application/grpc", "grpc-timeout", "100m", NULL};
    uint8_t body[16];
    size_t n = frame(body, 0, "x");
    struct h2_answer a = {0};
    uint64_t before = clock_mono_ms();
    call(&a, "/test.Echo/Hang", headers, body, n);
    assert_true(clock_mono_ms() - before >= 100);
    assert_true(answer_has(&a, "grpc-status: 4\n"));
    assert_true(answer_has(&a, "grpc-message: context deadline exceeded\n"));
    assert_int_equal(closed_error, ERR_TIMEOUT);
    assert_true(grpc_deadline_ms(kept) >= before + 100);
    grpc_unref(kept);
    answer_release(&a);
}

static void test_connection_lost(void **state)
{
    (void)state;
    uint8_t body[16];
    size_t n = frame(body, 0, "x");
    struct h2_answer a = {0};
    h2c_request(&c, &a, "POST", "/test.Echo/Hang", grpc_headers, body, n);
    while (!kept) h2c_turn(&c);
    shutdown(c.raw.fd, SHUT_RDWR);
    while (!closed_count) h2c_turn(&c);
    assert_int_equal(closed_error, ERR_CLOSED);
    grpc_unref(kept);
    answer_release(&a);
}

/* Each allocation of a call fails once: the call ends with some status or the connection does, and the next call works. */
static void test_no_memory(void **state)
{
    (void)state;
    uint8_t body[600];
    memset(body, 'x', sizeof(body));
    body[0] = body[1] = body[2] = 0;
    body[3] = (sizeof(body) - 5) >> 8;
    body[4] = (sizeof(body) - 5) & 255;
    h2c_turn(&c); /* accepted before */
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        struct h2_client k;
        struct h2_answer a = {0};
        h2c_open(&k, &f);
        h2c_request(&k, &a, "POST", "/test.Echo/Echo", grpc_headers, body, sizeof(body));
        nghttp2_session_send(k.session);
        mem_fail_nth(nth);
        for (int i = 0; i < 5; i++) fixture_turn(&f);
        fired = mem_fail_nth(0);
        if (!h2c_wait(&k, &a.closed) && !k.raw.eof) fail_msg("no answer after allocation %d failed", (int)nth);
        if (!fired) assert_true(answer_has(&a, "grpc-status: 0\n"));
        answer_release(&a);
        h2c_close(&k);
        assert_true(nth < 1000);
    }
    struct h2_answer a = {0};
    unary(&a, "/test.Echo/Echo", "still here");
    assert_true(answer_has(&a, "grpc-status: 0\n"));
    answer_release(&a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_unary),      T(test_status_text),     T(test_unknown),    T(test_bad_heads),
        T(test_bad_messages), T(test_largest_message), T(test_streaming),  T(test_split_frames),
        T(test_finish_early), T(test_pause),           T(test_cancel),     T(test_deadline),
        T(test_connection_lost), T(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
