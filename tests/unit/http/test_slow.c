/* HTTP/2 with peers that read slowly or not at all, and bodies that nobody takes. */
#include "h2_test.h"

#include "base/limits.h"

static void test_slow_window(void **state)
{
    (void)state;
    enum { LEN = 50000000 };
    struct h2_client c;
    struct h2_answer a = {0}, b = {0};
    h2c_open(&c, &f);
    c.hold_windows = true;
    get(&c, &a, "/size?50000000");
    for (int i = 0; i < 50; i++) h2c_turn(&c);
    struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
    assert_true(conn->queued > 0);
    assert_true(conn->queued <= LIMIT_HTTP_OUT_BYTES + sizeof(app_block));
    assert_int_equal(a.body.len, 65535);
    c.hold_windows = false;
    nghttp2_session_consume(c.session, a.id, a.body.len);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.body.len, LEN);
    assert_true(app_counts.writable > 5);
    assert_int_equal(conn->queued, 0);
    get(&c, &b, "/");
    assert_true(h2c_wait(&c, &b.closed));
    answer_release(&a);
    answer_release(&b);
    h2c_close(&c);
}

/* Does not read at all: first from the socket, then, alive but with its window shut, it answers our ping and stays. */
static void test_write_stall(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    f.server->limits.write_stall_ms = 200;
    h2c_open(&c, &f);
    nghttp2_session_set_local_window_size(c.session, 0, 0, 100000000);
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 100000000};
    nghttp2_submit_settings(c.session, 0, &window, 1);
    get(&c, &a, "/size?90000000");
    nghttp2_session_send(c.session);
    uint64_t before = clock_mono_ms(), end = before + CLIENT_WAIT_MS;
    while (!app_counts.closed && clock_mono_ms() < end) uv_run(&f.loop, UV_RUN_ONCE); /* nobody reads */
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    assert_true(clock_mono_ms() - before >= 150);
    answer_release(&a);
    h2c_close(&c);

    app_counts.closed = 0;
    h2c_open(&c, &f);
    c.hold_windows = true;
    get(&c, &a, "/size?1000000");
    end = clock_mono_ms() + 700;
    while (clock_mono_ms() < end) h2c_turn(&c);
    assert_int_equal(app_counts.closed, 0);
    assert_false(c.raw.eof);
    c.hold_windows = false;
    nghttp2_session_consume(c.session, a.id, a.body.len);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.body.len, 1000000);
    answer_release(&a);
    h2c_close(&c);
}

/* Turns of the client in which a little of a window is opened each time, until the limit has passed some times; false if this program was
 * itself so slow that the limit may have passed between two of them. */
static bool take_slowly(struct h2_client *c, int32_t id, int32_t bytes)
{
    uint64_t now = clock_mono_ms(), end = now + 4 * APP_TAKEN_MS, next = 0;
    bool in_time = true;
    for (uint64_t before = now; now < end; before = now) {
        h2c_turn(c);
        now = clock_mono_ms();
        in_time &= now - before < APP_TAKEN_MS / 2;
        if (now < next || bytes == 0) continue;
        next = now + APP_TAKEN_MS / 4;
        nghttp2_submit_window_update(c->session, 0, id, bytes);
    }
    return in_time;
}

static void take_all(struct h2_client *c, struct h2_answer *a)
{
    nghttp2_session_consume(c->session, a->id, a->body.len);
    nghttp2_submit_window_update(c->session, 0, a->id, 5000000);
    assert_true(h2c_wait(c, &a->closed));
    assert_int_equal(a->body.len, 5000000);
}

/* An answer that must be taken: who takes nothing loses it, and who is slow does not. */
static bool stream_stall(void)
{
    struct h2_client c;
    struct h2_answer none = {0}, slow = {0}, patient = {0}, b = {0};
    h2c_open(&c, &f);
    c.hold_windows = true;
    nghttp2_session_set_local_window_size(c.session, 0, 0, 100000000);
    get(&c, &none, "/taken?5000000");
    get(&c, &slow, "/taken?5000000");
    get(&c, &patient, "/size?5000000"); /* without the limit */
    bool in_time = take_slowly(&c, slow.id, 1000);
    assert_true(none.closed);
    assert_int_equal(none.close_code, NGHTTP2_CANCEL);
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    assert_false(patient.closed);
    c.hold_windows = false;
    if (in_time) {
        assert_int_equal(app_counts.closed, 1);
        take_all(&c, &slow);
    }
    take_all(&c, &patient);
    get(&c, &b, "/");
    assert_true(h2c_wait(&c, &b.closed));
    answer_release(&none);
    answer_release(&slow);
    answer_release(&patient);
    answer_release(&b);
    h2c_close(&c);
    return in_time;
}

/* The window of the connection, not of the stream, is shut: while any stream gets something of it all wait; then none does. */
static bool connection_stall(void)
{
    struct h2_client c;
    struct h2_answer a[2] = {{0}, {0}};
    h2c_open(&c, &f);
    c.hold_windows = true;
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 100000000};
    nghttp2_submit_settings(c.session, 0, &window, 1);
    get(&c, &a[0], "/taken?5000000");
    get(&c, &a[1], "/taken?5000000");
    bool in_time = take_slowly(&c, 0, 100);
    if (in_time) assert_int_equal(app_counts.closed, 0);
    (void)take_slowly(&c, 0, 0);
    assert_int_equal(app_counts.closed, 2);
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    answer_release(&a[0]);
    answer_release(&a[1]);
    h2c_close(&c);
    return in_time;
}

static void until_in_time(bool (*play)(void))
{
    for (int i = 0; i < 10; i++) {
        memset(&app_counts, 0, sizeof(app_counts));
        if (play()) return;
    }
    skip(); /* this machine does not let it run */
}

static void test_stream_stall(void **state)
{
    (void)state;
    until_in_time(stream_stall);
}

static void test_connection_stall(void **state)
{
    (void)state;
    until_in_time(connection_stall);
}

/* All streams together may hold so much for one connection; then new ones are refused, and can be tried again. */
static void test_connection_queue(void **state)
{
    (void)state;
    enum { N = 30 };
    struct h2_client c;
    static struct h2_answer a[N];
    memset(a, 0, sizeof(a));
    f.server->limits.conn_out_bytes = 1024 * 1024;
    f.server->limits.out_bytes = 256 * 1024;
    h2c_open(&c, &f);
    c.hold_windows = true;
    for (int i = 0; i < N; i++) get(&c, &a[i], "/size?250000");
    for (int i = 0; i < 50; i++) h2c_turn(&c);
    struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
    assert_true(conn->queued <= 1024 * 1024 + 256 * 1024 + N * sizeof(app_block));
    c.hold_windows = false;
    for (int i = 0; i < N; i++)
        if (a[i].body.len && !a[i].closed) nghttp2_session_consume(c.session, a[i].id, a[i].body.len);
    int served = 0, refused = 0;
    for (int i = 0; i < N; i++) {
        assert_true(h2c_wait(&c, &a[i].closed));
        served += a[i].body.len == 250000;
        refused += a[i].close_code == NGHTTP2_REFUSED_STREAM;
        answer_release(&a[i]);
    }
    assert_int_equal(served + refused, N);
    assert_true(served > 0);
    h2c_close(&c);
}

/* All connections together may make the server hold so much; then one that has a request open gets no other, and one that has none is
 * served. */
static void test_server_queue(void **state)
{
    (void)state;
    enum { N = 20 };
    struct h2_client hog, other;
    static struct h2_answer a[N];
    struct h2_answer b = {0};
    memset(a, 0, sizeof(a));
    f.server->limits.server_bytes = 1024 * 1024;
    h2c_open(&hog, &f);
    hog.hold_windows = true;
    for (int i = 0; i < N / 2; i++) get(&hog, &a[i], "/size?1000000");
    while (f.server->held < 1024 * 1024) h2c_turn(&hog);
    for (int i = N / 2; i < N; i++) get(&hog, &a[i], "/");
    for (int i = N / 2; i < N; i++) {
        assert_true(h2c_wait(&hog, &a[i].closed));
        assert_int_equal(a[i].close_code, NGHTTP2_REFUSED_STREAM);
    }
    assert_true(f.server->held <= 1024 * 1024 + N * (sizeof(app_block) + sizeof(struct http_stream)));
    h2c_open(&other, &f);
    get(&other, &b, "/size?3000000");
    assert_true(h2c_wait(&other, &b.closed));
    assert_int_equal(b.body.len, 3000000);
    answer_release(&b);
    h2c_close(&other);
    for (int i = 0; i < N; i++) answer_release(&a[i]);
    h2c_close(&hog);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (f.server->held > 0 && clock_mono_ms() < end) fixture_turn(&f);
    assert_int_equal(f.server->held, 0);
    still_serves();
}

/* Bodies that are sent on to streams that take no more are kept up to the connection's window, whatever the windows of the streams
 * allow, and delivered when those go on. */
static void test_held_bodies(void **state)
{
    (void)state;
    enum { N = 12, LEN = 1000000 };
    struct h2_client c;
    static struct h2_answer a[N];
    static uint8_t body[LEN];
    memset(a, 0, sizeof(a));
    f.server->limits.out_bytes = 1000;
    h2c_open(&c, &f);
    c.hold_windows = true;
    for (int i = 0; i < N; i++) h2c_request(&c, &a[i], "POST", "/echo", NULL, body, LEN);
    for (int i = 0; i < 500; i++) h2c_turn(&c);
    struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
    assert_true(conn->holding > LIMIT_MiB && conn->holding <= 4 * LIMIT_HTTP2_WINDOW_BYTES);
    assert_true(f.server->held >= conn->holding);
    c.hold_windows = false;
    for (int i = 0; i < N; i++)
        if (a[i].body.len) nghttp2_session_consume(c.session, a[i].id, a[i].body.len);
    for (int i = 0; i < N; i++) {
        assert_true(h2c_wait(&c, &a[i].closed));
        assert_int_equal(a[i].body.len, LEN);
        answer_release(&a[i]);
    }
    assert_int_equal(conn->holding, 0);
    h2c_close(&c);
}

/* While the server holds too much a connection may keep little of that; and what a lost stream held is given back to the window. */
static void test_held_bodies_when_full(void **state)
{
    (void)state;
    enum { N = 12, LEN = 1000000 };
    struct h2_client c;
    static struct h2_answer a[N];
    static uint8_t body[LEN];
    struct h2_answer b = {0};
    memset(a, 0, sizeof(a));
    f.server->limits.out_bytes = 1000;
    h2c_open(&c, &f);
    c.hold_windows = true;
    for (int i = 0; i < N; i++) h2c_request(&c, &a[i], "POST", "/echo", NULL, body, LEN);
    struct http_conn *conn = NULL;
    while (!conn || conn->holding < LIMIT_MiB) {
        h2c_turn(&c);
        if (!list_empty(&f.server->conns)) conn = container_of(f.server->conns.next, struct http_conn, node);
    }
    f.server->limits.server_bytes = 1;
    for (int i = 0; i < N; i++) {
        assert_true(h2c_wait(&c, &a[i].closed));
        assert_int_equal(a[i].close_code, NGHTTP2_ENHANCE_YOUR_CALM);
        nghttp2_session_consume_connection(c.session, a[i].body.len);
        answer_release(&a[i]);
    }
    assert_int_equal(conn->holding, 0);
    c.hold_windows = false;
    f.server->limits.server_bytes = http_default_limits.server_bytes;
    h2c_request(&c, &b, "POST", "/count", NULL, body, LEN);
    assert_true(h2c_wait(&c, &b.ended));
    answer_release(&b);
    h2c_close(&c);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_slow_window),
        T(test_write_stall),
        T(test_stream_stall),
        T(test_connection_stall),
        T(test_connection_queue),
        T(test_server_queue),
        T(test_held_bodies),
        T(test_held_bodies_when_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
