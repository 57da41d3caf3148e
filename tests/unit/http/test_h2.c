/* HTTP/2: answers, limits, floods, timeouts, garbage, the graceful end. */
#include "h2_test.h"

#include <sys/resource.h>

#include "base/limits.h"

/* ---- answers -------------------------------------------------------------------------------------- */

static void test_many_streams(void **state)
{
    (void)state;
    enum { N = 300 };
    struct h2_client c;
    static struct h2_answer a[N];
    memset(a, 0, sizeof(a));
    h2c_open(&c, &f);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N; i++) get(&c, &a[i], i % 3 == 0 ? "/" : i % 3 == 1 ? "/size?100000" : "/late?5");
        for (int i = 0; i < N; i++) {
            assert_true(h2c_wait(&c, &a[i].closed));
            assert_int_equal(a[i].status, 200);
            assert_int_equal(a[i].body.len, i % 3 == 0 ? 6 : i % 3 == 1 ? 100000 : 5);
            answer_release(&a[i]);
        }
    }
    h2c_close(&c);
}

static void test_head_and_early(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    h2c_open(&c, &f);
    h2c_request(&c, &a, "HEAD", "/", NULL, NULL, 0);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.body.len, 0);
    assert_true(answer_has(&a, "content-length: 6\n"));
    answer_release(&a);
    static uint8_t body[3 * 1024 * 1024];
    h2c_request(&c, &a, "POST", "/early", NULL, body, sizeof(body));
    assert_true(h2c_wait(&c, &a.closed)); /* without reading all of it */
    assert_int_equal(a.status, 413);
    assert_int_equal(a.close_code, 0);
    answer_release(&a);
    get(&c, &a, "/nothing");
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 500);
    answer_release(&a);
    h2c_close(&c);
}

static void test_echo_with_trailer(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    size_t len = 10 * 1024 * 1024;
    uint8_t *body = mem_must_alloc(len);
    for (size_t i = 0; i < len; i++) body[i] = (uint8_t)(i * 7 + i / 256);
    h2c_open(&c, &f);
    h2c_request(&c, &a, "POST", "/echo", NULL, body, len);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.body.len, len);
    assert_memory_equal(a.body.data, body, len);
    assert_true(answer_has(&a, "x-echoed: yes\n"));
    answer_release(&a);
    h2c_close(&c);
    mem_free(body);
}

/* ---- heads ---------------------------------------------------------------------------------------- */

static void test_head_too_large(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    static char value[40000];
    memset(value, 'v', sizeof(value) - 1);
    const char *const large[] = {"x-one", value, "x-two", value, NULL};
    const char *many[2 * (LIMIT_HTTP_HEADERS + 10) + 1];
    size_t n = 0;
    while (n < sizeof(many) / sizeof(many[0]) - 1) {
        many[n++] = "x-many";
        many[n++] = "1";
    }
    many[n] = NULL;
    h2c_open(&c, &f);
    h2c_request(&c, &a, "GET", "/", large, NULL, 0);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 431);
    answer_release(&a);
    h2c_request(&c, &a, "GET", "/", many, NULL, 0);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 431);
    answer_release(&a);
    const char *const most[] = {"x-one", value, NULL};
    h2c_request(&c, &a, "GET", "/who", most, NULL, 0);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 200);
    assert_int_equal(app_counts.requests, 1);
    answer_release(&a);
    h2c_close(&c);
}

/* What h2_head.h checks: no method, a connection header, an upper-case name, no scheme, a body that is not as long as it says. Each is a stream
 * error. */
static void test_malformed_heads(void **state)
{
    (void)state;
    static const uint8_t blocks[][24] = {
        {4, 0x84, 0x86, 0x41, 0x00},                               /* no :method */
        {16, 0x82, 0x84, 0x86, 0x41, 0x01, 'a', 0x00, 0x02, 'T', 'E', 0x01, 'x', 0x82, 0x82, 0x82, 0x82},
        {2, 0x82, 0x84},                                           /* no :scheme */
        {10, 0x82, 0x84, 0x86, 0x41, 0x01, 'a', 0x0f, 0x0d, 0x01, '3'}, /* content-length: 3, and no body */
        {7, 0x82, 0x84, 0x86, 0x41, 0x01, 'a', 0x82},              /* :method twice */
        {12, 0x82, 0x84, 0x86, 0x41, 0x01, 'a', 0x00, 0x02, 't', 'e', 0x01, 'x'}, /* te: x */
        {14, 0x82, 0x84, 0x86, 0x0f, 0x0d, 0x01, '0', 0x41, 0x01, 'a', 0x82, 0x82, 0x82, 0x82}, /* :authority behind a field */
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct raw r;
        raw_open(&r, &f);
        raw_preface(&r);
        raw_frame(&r, 1, 5, 1, blocks[i] + 1, blocks[i][0]);
        raw_frame(&r, 6, 0, 0, "12345678", 8);
        assert_true(raw_wait_for(&r, "12345678")); /* the ping's answer: all before it was handled */
        assert_true(raw_has(&r, "\x04\x03") || raw_goaway(&r) >= 0);
        raw_close(&r);
    }
    assert_int_equal(app_counts.requests, 0);
    still_serves();
}

/* Go's gRPC sends the address as it was given, scheme and all. */
static void test_authority_with_scheme(void **state)
{
    (void)state;
    static const uint8_t block[] = {0x82, 0x84, 0x86, 0x41, 0x10, 'h', 't', 't', 'p', ':', '/', '/', '1', '2', '7', '.', '0', '.', '0', '.', '1'};
    uint64_t before = app_counts.requests;
    struct raw r;
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 1, 5, 1, block, sizeof(block));
    raw_frame(&r, 6, 0, 0, "12345678", 8);
    assert_true(raw_wait_for(&r, "12345678"));
    assert_int_equal(app_counts.requests, before + 1);
    raw_close(&r);
}

/* ---- floods --------------------------------------------------------------------------------------- */

static const uint8_t get_block[] = {0x82, 0x84, 0x86, 0x41, 0x01, 'a'}; /* GET / http a */

static void test_reset_flood(void **state)
{
    (void)state;
    struct raw r;
    f.server->limits.resets_per_second = 20;
    raw_open(&r, &f);
    raw_preface(&r);
    for (uint32_t id = 1; id < 2000 && !r.eof; id += 2) {
        raw_frame(&r, 1, 5, id, get_block, sizeof(get_block));
        raw_frame(&r, 3, 0, id, "\0\0\0\x08", 4);
        if (id % 64 == 1) raw_turn(&r);
    }
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_true(app_counts.requests <= 101 + 64);
    raw_close(&r);
    still_serves();
}

/* The other way round (CVE-2025-8671): malformed frames make the server reset stream after stream. */
static void test_provoked_resets(void **state)
{
    (void)state;
    struct raw r;
    f.server->limits.resets_per_second = 20;
    raw_open(&r, &f);
    raw_preface(&r);
    static const uint8_t late[] = {0x82, 0x86, 0x41, 0x01, 'a', 0x04, 0x0a, '/', 'l', 'a', 't', 'e', '?', '9', '9', '9', '9'};
    for (uint32_t id = 1; id < 1000 && !r.eof; id += 2) {
        raw_frame(&r, 1, 5, id, late, sizeof(late));
        raw_frame(&r, 8, 0, id, "\x7f\xff\xff\xff", 4); /* more window than there can be */
        if (id % 64 == 1) raw_turn(&r);
    }
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_true(app_counts.requests < 250);
    raw_close(&r);
    still_serves();
}

/* The same from one that takes nothing of what we say, and has not agreed to our settings. */
static void test_provoked_resets_unread(void **state)
{
    (void)state;
    struct raw r;
    static const uint8_t window[] = {0, 4, 0x7f, 0xff, 0xff, 0xff}, more[] = {0x7f, 0, 0, 0};
    static const uint8_t get_much[] = "\x82\x86\x41\x01x\x04\x0e/size?90000000";
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 4, 0, 0, window, sizeof(window));
    raw_frame(&r, 8, 0, 0, more, sizeof(more));
    raw_frame(&r, 1, 5, 1, get_much, sizeof(get_much) - 1);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    size_t sent = 0;
    for (uint32_t id = 3; !app_counts.closed && clock_mono_ms() < end;) {
        const uint8_t frame[10] = {0, 0, 1, 1, 5, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id, 0x82};
        if (send(r.fd, frame, sizeof(frame), MSG_NOSIGNAL) == (ssize_t)sizeof(frame)) {
            id += 2;
            sent++;
        }
        if (id % 64 == 1 || app_counts.requests == 0) fixture_turn(&f);
    }
    assert_int_equal(app_counts.closed, 1);
    assert_true(sent < 100000);
    raw_close(&r);
    still_serves();
}

static void flood(uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t len, bool with_stream)
{
    struct raw r;
    raw_open(&r, &f);
    raw_preface(&r);
    static const uint8_t post[] = {0x83, 0x86, 0x41, 0x01, 'a', 0x04, 0x06, '/', 'c', 'o', 'u', 'n', 't'};
    if (with_stream) raw_frame(&r, 1, 4, 1, post, sizeof(post));
    raw_turn(&r);
    for (int i = 0; i < 200000 && !r.eof; i++) {
        raw_frame(&r, type, flags, stream, payload, len);
        if (i % 512 == 0) raw_turn(&r);
    }
    assert_true(raw_wait_eof(&r));
    if (type != 9) assert_int_equal(raw_goaway(&r), NGHTTP2_ENHANCE_YOUR_CALM);
    raw_close(&r);
    still_serves();
}

static void test_ping_flood(void **state)
{
    (void)state;
    flood(6, 0, 0, "12345678", 8, false);
}

static void test_settings_flood(void **state)
{
    (void)state;
    flood(4, 0, 0, "\0\3\0\0\0\x64", 6, false);
}

static void test_priority_flood(void **state)
{
    (void)state;
    flood(2, 0, 3, "\0\0\0\0\x10", 5, false);
}

static void test_empty_data_flood(void **state)
{
    (void)state;
    flood(0, 0, 1, "", 0, true);
}

static void test_unknown_frame_flood(void **state)
{
    (void)state;
    static uint8_t nothing[4000];
    flood(0xee, 0, 0, nothing, sizeof(nothing), false);
}

static void test_continuation_flood(void **state)
{
    (void)state;
    struct raw r;
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 1, 0, 1, get_block, sizeof(get_block));
    for (int i = 0; i < 200000 && !r.eof; i++) {
        raw_frame(&r, 9, 0, 1, "", 0);
        if (i % 512 == 0) raw_turn(&r);
    }
    assert_true(raw_wait_eof(&r));
    assert_int_equal(app_counts.requests, 0);
    raw_close(&r);
    still_serves();
}

static void test_too_many_streams(void **state)
{
    (void)state;
    enum { N = 20 };
    struct h2_client c;
    static struct h2_answer a[N];
    memset(a, 0, sizeof(a));
    f.server->limits.streams = 10;
    h2c_open(&c, &f);
    for (int i = 0; i < N; i++) get(&c, &a[i], "/late?50");
    nghttp2_session_send(c.session); /* before the server's SETTINGS have come */
    int served = 0, refused = 0;
    for (int i = 0; i < N; i++) {
        if (!h2c_wait(&c, &a[i].closed)) break;
        served += a[i].status == 200;
        refused += a[i].close_code == NGHTTP2_REFUSED_STREAM;
    }
    assert_int_equal(served, 10);
    assert_int_equal(refused, 10);
    for (int i = 0; i < N; i++) answer_release(&a[i]);
    h2c_close(&c);
}

static void test_too_many_connections(void **state)
{
    (void)state;
    struct raw r[6];
    f.server->limits.connections = 3;
    int open = 0;
    for (int i = 0; i < 6; i++) raw_open(&r[i], &f);
    for (int turn = 0; turn < 20; turn++) fixture_turn(&f);
    for (int i = 0; i < 6; i++) {
        raw_pull(&r[i]);
        open += !r[i].eof;
        raw_close(&r[i]);
    }
    assert_int_equal(open, 3);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    struct http_stats stats;
    do {
        fixture_turn(&f);
        http_server_stats(f.server, &stats);
    } while (stats.connections > 0 && clock_mono_ms() < end);
    assert_int_equal(stats.refused, 3);
    still_serves();
}

/* Descriptors run out while connections wait: they are told by being closed, the listener does not spin, and goes on
 * when there are some again. */
static void test_out_of_descriptors(void **state)
{
    (void)state;
    enum { N = 12 };
    struct raw r[N];
    struct rlimit before, low;
    for (int i = 0; i < N; i++) raw_open(&r[i], &f);
    getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    low.rlim_cur = (rlim_t)r[N - 1].fd + 4; /* three more */
    setrlimit(RLIMIT_NOFILE, &low);
    for (int i = 0; i < 20; i++) fixture_turn(&f);
    setrlimit(RLIMIT_NOFILE, &before);
    int closed = 0;
    struct http_stats stats;
    http_server_stats(f.server, &stats);
    assert_int_equal(stats.connections, 3);
    for (int i = 0; i < N; i++) {
        raw_pull(&r[i]);
        closed += r[i].eof;
    }
    assert_int_equal(closed, 1); /* one a pause */
    for (int i = 0; i < N; i++) {
        if (r[i].eof) continue;
        raw_send_str(&r[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(raw_wait_for(&r[i], "hello"));
    }
    for (int i = 0; i < N; i++) raw_close(&r[i]);
    still_serves();
}

/* ---- timeouts -------------------------------------------------------------------------------------- */

static void test_half_open(void **state)
{
    (void)state;
    static const char *const starts[] = {"", "PRI * HTTP/2.0\r\n", "P", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "};
    f.server->limits.handshake_ms = 100;
    for (int i = 0; i < 4; i++) {
        struct raw r;
        uint64_t before = clock_mono_ms();
        raw_open(&r, &f);
        raw_send_str(&r, starts[i]);
        assert_true(raw_wait_eof(&r));
        assert_true(clock_mono_ms() - before >= 90);
        raw_close(&r);
    }
    still_serves();
}

static void test_stalled_header_block(void **state)
{
    (void)state;
    struct raw r;
    f.server->limits.handshake_ms = 100;
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 1, 0, 1, get_block, sizeof(get_block)); /* no END_HEADERS */
    assert_true(raw_wait_eof(&r));
    raw_close(&r);
    still_serves();
}

static void test_stalled_body(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {.send_open = true}, b = {0};
    f.server->limits.body_stall_ms = 100;
    h2c_open(&c, &f);
    h2c_request(&c, &a, "POST", "/count", NULL, "some", 4);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.close_code, NGHTTP2_CANCEL);
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    answer_release(&a);
    /* A stream that said it may be silent is left alone, and so is the connection. */
    a.send_open = true;
    h2c_request(&c, &a, "POST", "/ticks?20", NULL, "some", 4);
    uint64_t end = clock_mono_ms() + 400;
    while (clock_mono_ms() < end) h2c_turn(&c);
    assert_false(a.closed);
    assert_true(a.body.len >= 25);
    get(&c, &b, "/");
    assert_true(h2c_wait(&c, &b.closed));
    assert_int_equal(b.status, 200);
    answer_release(&a);
    answer_release(&b);
    h2c_close(&c);
}

static void test_idle(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    f.server->limits.idle_ms = 150;
    f.server->limits.handshake_ms = 100;
    h2c_open(&c, &f);
    get(&c, &a, "/late?300"); /* longer than the limit, but not idle */
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 200);
    uint64_t before = clock_mono_ms();
    assert_true(h2c_wait_goaway(&c));
    assert_int_equal(c.goaway, NGHTTP2_NO_ERROR);
    assert_true(clock_mono_ms() - before >= 100);
    assert_true(raw_wait_eof(&c.raw));
    answer_release(&a);
    h2c_close(&c);
}

/* ---- the end --------------------------------------------------------------------------------------- */

static void test_graceful(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    struct fixture g;
    fixture_start(&g);
    h2c_open(&c, &g);
    get(&c, &a, "/late?200");
    while (app_counts.requests == 0) h2c_turn(&c);
    bool closed = false;
    http_listener_close(g.listener);
    http_server_close(g.server, 5000, fixture_set_true, &closed);
    assert_true(h2c_wait_goaway(&c));
    assert_int_equal(c.goaway, NGHTTP2_NO_ERROR);
    assert_false(a.closed);
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.len, 5);
    assert_true(raw_wait_eof(&c.raw));
    answer_release(&a);
    h2c_close(&c);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!closed && clock_mono_ms() < end) uv_run(&g.loop, UV_RUN_ONCE);
    assert_true(closed);
    http_server_free(g.server);
    uv_run(&g.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&g.loop), 0);
}

static struct {
    struct fixture f;
    unsigned requests;
    bool closed;
} ending;

/* The first request is the server's end. */
static void ending_app(void *ctx, struct http_stream *st)
{
    (void)ctx;
    if (ending.requests++ == 0) {
        http_listener_close(ending.f.listener);
        http_server_close(ending.f.server, 5000, fixture_set_true, &ending.closed);
    }
    http_reply(st, 200, "text/plain", SLICE_LIT("done\n"));
}

/* A request that comes in behind the end, and before the GOAWAY has gone out, is not in the number that this names: its client sends it
 * elsewhere, so it must not be done here. */
static void test_request_behind_the_end(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer first = {0}, second = {0};
    memset(&ending, 0, sizeof(ending));
    fixture_start_with(&ending.f, NULL, ending_app, NULL);
    h2c_open(&c, &ending.f);
    for (int i = 0; i < 5; i++) h2c_turn(&c);
    get(&c, &first, "/");
    get(&c, &second, "/"); /* both are read in one turn */
    assert_true(h2c_wait(&c, &second.closed));
    assert_int_equal(second.close_code, NGHTTP2_REFUSED_STREAM);
    assert_int_equal(ending.requests, 1);
    assert_true(first.closed && first.status == 200);
    answer_release(&first);
    answer_release(&second);
    h2c_close(&c);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!ending.closed && clock_mono_ms() < end) uv_run(&ending.f.loop, UV_RUN_ONCE);
    assert_true(ending.closed);
    http_server_free(ending.f.server);
    uv_run(&ending.f.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&ending.f.loop), 0);
}

/* A stream that does not end is cut off when the grace is over. */
static void test_grace_over(void **state)
{
    (void)state;
    struct h2_client c;
    struct h2_answer a = {0};
    struct fixture g;
    fixture_start(&g);
    h2c_open(&c, &g);
    get(&c, &a, "/ticks?20");
    while (a.body.len == 0) h2c_turn(&c);
    bool closed = false;
    http_listener_close(g.listener);
    http_server_close(g.server, 100, fixture_set_true, &closed);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!closed && clock_mono_ms() < end) h2c_turn(&c);
    assert_true(closed);
    assert_int_equal(app_counts.last_error, ERR_CLOSED);
    answer_release(&a);
    h2c_close(&c);
    http_server_free(g.server);
    uv_run(&g.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&g.loop), 0);
}

/* ---- garbage --------------------------------------------------------------------------------------- */

static uint32_t random_state = 1;

static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static void converse(const uint8_t *data, size_t len)
{
    struct raw r;
    raw_open(&r, &f);
    raw_send(&r, data, len);
    shutdown(r.fd, SHUT_WR);
    assert_true(raw_wait_eof(&r));
    raw_close(&r);
}

static void test_garbage(void **state)
{
    (void)state;
    uint8_t data[512];
    for (int i = 0; i < 200; i++) {
        for (size_t k = 0; k < sizeof(data); k++) data[k] = (uint8_t)next_random();
        converse(data, 1 + next_random() % sizeof(data));
    }
    still_serves();
}

static size_t conversation(uint8_t *to)
{
    size_t n = 0;
#define PUT(bytes, len)                                                                                                \
    do {                                                                                                               \
        memcpy(to + n, bytes, len);                                                                                    \
        n += len;                                                                                                      \
    } while (0)
    PUT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    PUT("\0\0\6\4\0\0\0\0\0\0\4\0\1\0\0", 15);
    PUT("\0\0\6\1\5\0\0\0\1", 9);
    PUT(get_block, sizeof(get_block));
    PUT("\0\0\15\1\4\0\0\0\3", 9);
    PUT("\x83\x86\x41\x01"
        "a\x04\x06/count",
        13);
    PUT("\0\0\4\0\1\0\0\0\3abcd", 13);
    PUT("\0\0\4\10\0\0\0\0\0\0\0\1\0", 13);
    PUT("\0\0\10\6\0\0\0\0\00012345678", 17);
    PUT("\0\0\4\3\0\0\0\0\1\0\0\0\10", 13);
#undef PUT
    return n;
}

static void test_bit_flips(void **state)
{
    (void)state;
    uint8_t good[256], bad[256];
    size_t n = conversation(good);
    converse(good, n);
    assert_int_equal(app_counts.requests, 2);
    for (size_t bit = 24 * 8; bit < n * 8; bit++) {
        memcpy(bad, good, n);
        bad[bit / 8] = (uint8_t)(bad[bit / 8] ^ 1 << bit % 8);
        converse(bad, n);
    }
    for (size_t cut = 1; cut < n; cut++) converse(good, cut);
    still_serves();
}

static void test_bad_preface(void **state)
{
    (void)state;
    struct raw r;
    raw_open(&r, &f);
    raw_send_str(&r, "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n");
    assert_true(raw_wait_for(&r, "HTTP/1.1 400 "));
    assert_true(raw_wait_eof(&r));
    raw_close(&r);
    raw_open(&r, &f);
    raw_send_str(&r, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw_frame(&r, 6, 0, 0, "12345678", 8); /* not SETTINGS */
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_PROTOCOL_ERROR);
    raw_close(&r);
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 0, 0, 0, "x", 1); /* DATA on no stream */
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_PROTOCOL_ERROR);
    raw_close(&r);
    static uint8_t large[20000];
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 1, 5, 1, large, sizeof(large)); /* more than a frame may have */
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_FRAME_SIZE_ERROR);
    raw_close(&r);
    raw_open(&r, &f);
    raw_preface(&r);
    raw_frame(&r, 1, 5, 1, "\xff\xff\xff\xff\xff\xff\xff\xff", 8); /* not HPACK */
    assert_true(raw_wait_eof(&r));
    assert_int_equal(raw_goaway(&r), NGHTTP2_COMPRESSION_ERROR);
    raw_close(&r);
    still_serves();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_many_streams),
        T(test_head_and_early),
        T(test_echo_with_trailer),
        T(test_head_too_large),
        T(test_malformed_heads),
        T(test_authority_with_scheme),
        T(test_reset_flood),
        T(test_provoked_resets), T(test_provoked_resets_unread),
        T(test_ping_flood),
        T(test_settings_flood),
        T(test_priority_flood),
        T(test_empty_data_flood),
        T(test_unknown_frame_flood),
        T(test_continuation_flood),
        T(test_too_many_streams),
        T(test_too_many_connections),
        T(test_out_of_descriptors),
        T(test_half_open),
        T(test_stalled_header_block),
        T(test_stalled_body),
        T(test_idle),
        T(test_graceful), T(test_request_behind_the_end),
        T(test_grace_over),
        T(test_garbage),
        T(test_bit_flips),
        T(test_bad_preface),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
