/* HTTP/1.1: keep-alive, pipelining, chunks, Expect, HEAD; what could be read in two ways is refused; limits; garbage. */
#include "http_client.h"

#include "base/limits.h"
#include "base/log.h"

static struct fixture f;
static struct raw r;

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    fixture_start(&f);
    f.server->limits.linger_ms = 50;
    raw_open(&r, &f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    raw_close(&r);
    fixture_stop(&f);
    return 0;
}

static void reopen(void)
{
    raw_close(&r);
    raw_open(&r, &f);
}

static size_t count(const char *text)
{
    size_t n = 0, len = strlen(text);
    for (size_t at = 0; at + len <= r.in.len; at++) n += memcmp(r.in.data + at, text, len) == 0;
    return n;
}

static bool wait_count(const char *text, size_t n)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (count(text) < n && !r.eof && clock_mono_ms() < end) {
        raw_turn(&r);
        if (count(text) < n) poll(NULL, 0, 1);
    }
    return count(text) == n;
}

/* ---- what works ------------------------------------------------------------------------------------ */

static void test_keep_alive(void **state)
{
    (void)state;
    for (size_t i = 1; i <= 3; i++) {
        raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(wait_count("\r\n\r\nhello\n", i));
    }
    assert_int_equal(count("HTTP/1.1 200 OK\r\n"), 3);
    assert_int_equal(count("Content-Length: 6\r\n"), 3);
    assert_int_equal(count("Date: "), 3);
    raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(raw_wait_eof(&r));
    assert_int_equal(count("Connection: close\r\n"), 1);
    assert_int_equal(count("hello\n"), 4);
    reopen();
    raw_send_str(&r, "GET / HTTP/1.0\r\n\r\n");
    assert_true(raw_wait_eof(&r));
    assert_true(raw_has(&r, "hello\n"));
    reopen();
    raw_send_str(&r, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_true(raw_wait_for(&r, "hello\n"));
    assert_true(raw_has(&r, "Connection: keep-alive\r\n"));
    assert_false(r.eof);
}

static void test_request_as_understood(void **state)
{
    (void)state;
    raw_send_str(&r, "GET /who?a=b&c HTTP/1.1\r\nHoSt:  h:1 \t\r\nX-Y: z\r\n\r\n");
    assert_true(raw_wait_for(&r, "GET /who ? a=b&c @ h:1 n=2\n"));
    reopen();
    raw_send_str(&r, "POST http://other:2/who HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_true(raw_wait_for(&r, "POST /who ?  @ other:2 n=2\n"));
    reopen();
    raw_send_str(&r, "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_true(raw_wait_for(&r, "HTTP/1.1 404 "));
    reopen();
    raw_send_str(&r, "GET /who HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: \r\n\r\n");
    assert_true(raw_wait_for(&r, "http/1 tls=0"));
}

static void test_pipelining(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 500; i++)
        buf_printf(&b, "GET %s HTTP/1.1\r\nHost: a\r\nX-N: %d\r\n\r\n", i % 5 == 0 ? "/late?1" : "/", i);
    buf_append_str(&b, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /who HTTP/1.1\r\nHost: a\r\n\r\n");
    raw_send(&r, b.data, b.len);
    assert_true(raw_wait_for(&r, "GET /who"));
    assert_int_equal(count("hello\n"), 400);
    assert_int_equal(count("late\n"), 100);
    assert_int_equal(count("\r\n\r\n3\n"), 1);
    buf_release(&b);
}

static void test_head(void **state)
{
    (void)state;
    raw_send_str(&r, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /who HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "GET /who"));
    assert_true(raw_has(&r, "Content-Length: 6\r\n"));
    assert_false(raw_has(&r, "hello"));
    reopen();
    raw_send_str(&r, "HEAD /size?100 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "hello"));
}

static void test_chunked_in(void **state)
{
    (void)state;
    raw_send_str(&r, "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw_send_str(&r, "5\r\nabcde\r\n3;x=y\r\nfgh\r\n");
    raw_send_str(&r, "0\r\nX-Trailer: yes\r\n\r\n");
    assert_true(raw_wait_for(&r, "\r\n\r\n8\n"));
    raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "hello"));
}

/* Byte by byte: every state of the parser meets the end of its input. */
static void test_byte_by_byte(void **state)
{
    (void)state;
    const char *text = "POST /echo?q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                       "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (const char *p = text; *p; p++) {
        raw_send(&r, p, 1);
        fixture_turn(&f);
        fixture_turn(&f);
    }
    assert_true(raw_wait_for(&r, "hello\n"));
    assert_true(raw_has(&r, "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\nX-Echoed: yes\r\n\r\nHTTP/1.1 200"));
}

/* The answer's head, which says that the connection will close, goes out before the body has come. */
static void test_close_before_the_body(void **state)
{
    (void)state;
    static const char *const heads[] = {"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 6\r\n\r\n",
                                        "POST /echo HTTP/1.0\r\nContent-Length: 6\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        reopen();
        raw_send_str(&r, heads[i]);
        assert_true(raw_wait_for(&r, "\r\n\r\n"));
        raw_send_str(&r, "abcdef");
        assert_true(raw_wait_eof(&r));
        assert_true(raw_has(&r, "abcdef"));
        assert_int_equal(app_counts.last_error, 0);
    }
}

static void test_chunked_out(void **state)
{
    (void)state;
    raw_send_str(&r, "GET /size?3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "\r\n0\r\n\r\n"));
    uint8_t *at = (uint8_t *)memmem(r.in.data, r.in.len, "\r\n\r\n", 4) + 4;
    size_t total = 0;
    for (;;) {
        size_t n = strtoul((char *)at, NULL, 16);
        at = (uint8_t *)memmem(at, 20, "\r\n", 2) + 2;
        if (n == 0) break;
        total += n;
        at += n;
        assert_memory_equal(at, "\r\n", 2);
        at += 2;
    }
    assert_int_equal(total, 3000000);
    reopen();
    raw_send_str(&r, "GET /size?1000 HTTP/1.0\r\n\r\n"); /* no chunks there: the end is the connection's */
    assert_true(raw_wait_eof(&r));
    assert_false(raw_has(&r, "chunked"));
    assert_true(raw_has(&r, "Connection: close\r\n"));
}

static void test_expect(void **state)
{
    (void)state;
    raw_send_str(&r, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_true(raw_wait_for(&r, "HTTP/1.1 100 Continue\r\n\r\n"));
    raw_send_str(&r, "abc");
    assert_true(raw_wait_for(&r, "\r\n\r\n3\n"));
    assert_int_equal(count("100 Continue"), 1);
    raw_send_str(&r, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_true(raw_wait_eof(&r)); /* the body is not asked for */
    assert_true(raw_has(&r, "HTTP/1.1 413 "));
    assert_int_equal(count("100 Continue"), 1);
    reopen();
    raw_send_str(&r, "POST /count HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n");
    for (int turn = 0; turn < 5; turn++) raw_turn(&r);
    assert_int_equal(r.in.len, 0);
    reopen();
    raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n");
    assert_true(raw_wait_for(&r, "HTTP/1.1 417 "));
}

static void test_early_answer(void **state)
{
    (void)state;
    raw_send_str(&r, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    assert_true(raw_wait_for(&r, "too much\n"));
    raw_send_str(&r, "defGET / HTTP/1.1\r\nHost: a\r\n\r\n"); /* a small rest is read, and the connection goes on */
    assert_true(raw_wait_for(&r, "hello\n"));
    reopen();
    raw_send_str(&r, "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    static uint8_t body[65536];
    for (int i = 0; i < 1000 && !r.eof; i++) raw_send(&r, body, sizeof(body));
    assert_true(raw_has(&r, "too much\n")); /* and is not lost by a reset */
}

static void test_echo_and_pause(void **state)
{
    (void)state;
    enum { LEN = 20000000 };
    uint8_t *body = mem_must_alloc(LEN);
    for (size_t i = 0; i < LEN; i++) body[i] = (uint8_t)(i * 7 + i / 256);
    raw_send_str(&r, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n");
    /* Nobody reads: the echo stops taking when its output is full. */
    size_t sent = 0;
    for (int quiet = 0; quiet < 50 && sent < LEN;) {
        ssize_t n = send(r.fd, body + sent, LEN - sent, MSG_NOSIGNAL);
        quiet = n > 0 ? 0 : quiet + 1;
        if (n > 0) sent += (size_t)n;
        fixture_turn(&f);
    }
    struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
    assert_true(sent < LEN);
    assert_true(conn->queued <= LIMIT_HTTP_OUT_BYTES + HTTP_INPUT);
    assert_true(conn->want_read_off);
    raw_send(&r, body + sent, LEN - sent);
    assert_true(raw_wait_for(&r, "\r\n0\r\nX-Echoed: yes\r\n\r\n"));
    assert_true(r.in.len > LEN);
    mem_free(body);
}

/* Whoever closed its sending side and waits for a long answer is noticed when it goes, though there is nothing to say to it. */
static void test_half_closed_peer_goes(void **state)
{
    (void)state;
    raw_send_str(&r, "GET /late?100000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    shutdown(r.fd, SHUT_WR);
    uint64_t before = app_counts.closed, end = clock_mono_ms() + CLIENT_WAIT_MS;
    for (uint64_t until = clock_mono_ms() + 50; clock_mono_ms() < until;) raw_turn(&r);
    assert_int_equal(app_counts.closed, before); /* half closed only: it waits */
    setsockopt(r.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    reopen(); /* with a reset */
    while (app_counts.closed == before && clock_mono_ms() < end) raw_turn(&r);
    assert_int_equal(app_counts.closed, before + 1);
}

static void test_peer_closes(void **state)
{
    (void)state;
    raw_send_str(&r, "GET /ticks?10 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "tick\n"));
    reopen();
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!app_counts.closed && clock_mono_ms() < end) raw_turn(&r);
    assert_int_equal(app_counts.last_error, ERR_CLOSED);
    /* Only its sending side, having said that this is all: it gets its answer. */
    raw_send_str(&r, "GET /late?50 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    shutdown(r.fd, SHUT_WR);
    assert_true(raw_wait_eof(&r));
    assert_true(raw_has(&r, "late\n"));
}

/* ---- what is refused ------------------------------------------------------------------------------- */

static void refused(const char *text, size_t len, const char *status)
{
    uint64_t before = app_counts.requests;
    reopen();
    raw_send(&r, text, len);
    if (!raw_wait_eof(&r) || r.in.len < 12 || memcmp(r.in.data + 9, status, 3) != 0)
        fail_msg("%s\nwas answered: %.*s", text, (int)r.in.len, (char *)r.in.data);
    assert_int_equal(count("HTTP/1.1 "), 1);
    assert_int_equal(app_counts.requests, before);
}

#define HOST "Host: a\r\n"

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *text, *status;
    } cases[] = {
        {"GET\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n\r\n", "400"}, /* no Host */
        {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", "400"},
        {"GET / HTTP/2.0\r\n" HOST "\r\n", "505"},
        {"GET / HTTP/1.2\r\n" HOST "\r\n", "505"},
        {"GET / HTTQ/1.1\r\n" HOST "\r\n", "400"},
        {"FROB / HTTP/1.1\r\n" HOST "\r\n", "400"},
        {"CONNECT a:1 HTTP/1.1\r\n" HOST "\r\n", "400"},
        {"GET no-slash HTTP/1.1\r\n" HOST "\r\n", "400"},
        {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", "400"},
        {"GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X Y: z\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X : z\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X: a\r\n folded\r\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST " X: a\r\n\r\n", "400"},
        {"GET / HTTP/1.1\n" HOST "\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X: a\n\r\n", "400"},
        {"GET / HTTP/1.1\r\n" HOST "X: a\rb: c\r\n\r\n", "400"},
        /* the ways of smuggling */
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n\r\nabc", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"},
        {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "400"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(cases[i].text, strlen(cases[i].text), cases[i].status);
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    refused(nul, sizeof(nul) - 1, "400");
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"; /* a TLS client on the wrong port */
    refused(hello, sizeof(hello) - 1, "400");
}

/* In a chunked body what is wrong is found when the handler has the request: the exchange is cut off. */
static void test_malformed_chunks(void **state)
{
    (void)state;
    static const char *const bodies[] = {"x\r\n", "5\nabcde\n0\n\n", "3\r\nabcX\r\n0\r\n\r\n", "3 \rXabc", "-1\r\n",
                                         "fffffffffffffffff\r\n", "3\r\nabc\r0\r\n\r\n", "0\r\nX: a\nY: b\r\n\r\n"};
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        uint64_t ended = app_counts.ended, closed = app_counts.closed;
        reopen();
        raw_send_str(&r, "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        raw_send_str(&r, bodies[i]);
        if (!raw_wait_eof(&r)) fail_msg("accepted: %s", bodies[i]);
        if (app_counts.ended != ended) fail_msg("taken for a whole request: %s", bodies[i]);
        assert_int_equal(app_counts.closed, closed + 1);
        assert_int_not_equal(app_counts.last_error, 0);
    }
}

static void test_too_large(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_append_str(&b, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    for (size_t i = 0; i < LIMIT_HTTP_HEADER_BYTES; i++) buf_append_byte(&b, 'x');
    refused((const char *)b.data, b.len, "431");
    buf_clear(&b);
    buf_append_str(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < LIMIT_HTTP_HEADERS; i++) buf_printf(&b, "X%d: y\r\n", i);
    buf_append_str(&b, "\r\n");
    refused((const char *)b.data, b.len, "431");
    buf_clear(&b);
    buf_append_str(&b, "GET /");
    for (size_t i = 0; i < LIMIT_HTTP_HEADER_BYTES; i++) buf_append_byte(&b, 'x');
    refused((const char *)b.data, b.len, "414");
    buf_release(&b);
}

static void test_stalls(void **state)
{
    (void)state;
    f.server->limits.body_stall_ms = 100;
    f.server->limits.handshake_ms = 100;
    raw_send_str(&r, "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert_true(raw_wait_eof(&r));
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    reopen();
    raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_for(&r, "hello"));
    raw_send_str(&r, "GET / HTTP/1.1\r\nHo"); /* the second head is limited like the first */
    assert_true(raw_wait_eof(&r));
    reopen();
    f.server->limits.idle_ms = 100;
    raw_send_str(&r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(raw_wait_eof(&r));
    assert_true(raw_has(&r, "hello"));
}

/* A client that sends ahead without end, and does not read: bounded, and then closed. */
static void test_pipelining_without_reading(void **state)
{
    (void)state;
    static const char one[] = "GET /size?100000 HTTP/1.1\r\nHost: a\r\n\r\n";
    f.server->limits.write_stall_ms = 300;
    struct http_conn *conn = NULL;
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    bool lost = false;
    while (!lost && clock_mono_ms() < end) {
        ssize_t n = send(r.fd, one, sizeof(one) - 1, MSG_NOSIGNAL);
        lost = n < 0 && errno != EAGAIN;
        if (n < 0 && !lost) poll(NULL, 0, 1);
        fixture_turn(&f);
        if (list_empty(&f.server->conns)) continue;
        conn = container_of(f.server->conns.next, struct http_conn, node);
        if (conn->h1) assert_true(conn->h1->rest.len <= 2 * HTTP_INPUT);
        assert_true(conn->queued <= LIMIT_HTTP_OUT_BYTES + sizeof(app_block));
    }
    assert_true(lost);
}

static void test_mutations(void **state)
{
    (void)state;
    static const char good[] = "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                               "GET /who?x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    char bad[sizeof(good)];
    for (size_t bit = 0; bit < (sizeof(good) - 1) * 8; bit++) {
        memcpy(bad, good, sizeof(good));
        bad[bit / 8] = (char)(bad[bit / 8] ^ 1 << bit % 8);
        reopen();
        raw_send(&r, bad, sizeof(good) - 1);
        shutdown(r.fd, SHUT_WR);
        assert_true(raw_wait_eof(&r));
    }
    for (size_t cut = 0; cut < sizeof(good) - 1; cut++) {
        reopen();
        raw_send(&r, good, cut);
        shutdown(r.fd, SHUT_WR);
        assert_true(raw_wait_eof(&r));
    }
    reopen();
    raw_send_str(&r, good);
    assert_true(raw_wait_eof(&r));
    assert_true(raw_has(&r, "GET /who ? x @ b n=2\n"));
}

/* Each allocation fails once: an error answer, or the connection ends; and the next request works. */
static void test_no_memory(void **state)
{
    (void)state;
    static char long_value[3000];
    memset(long_value, 'x', sizeof(long_value) - 1);
    struct buf b = {0};
    buf_append_str(&b, "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n");
    for (int i = 0; i < 20; i++) buf_printf(&b, "X-%d: %s\r\n", i, long_value);
    buf_printf(&b, "\r\nbb7\r\n%s\r\n0\r\n\r\n", long_value);
    fixture_turn(&f);
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        reopen();
        raw_send(&r, b.data, b.len);
        mem_fail_nth(nth);
        for (int i = 0; i < 6; i++) fixture_turn(&f);
        fired = mem_fail_nth(0);
        if (!raw_wait_eof(&r)) fail_msg("no end after allocation %d failed", (int)nth);
        if (!fired) assert_true(raw_has(&r, "X-Echoed: yes"));
        assert_true(nth < 1000);
    }
    buf_release(&b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_keep_alive),
        T(test_request_as_understood),
        T(test_pipelining),
        T(test_head),
        T(test_chunked_in),
        T(test_byte_by_byte),
        T(test_close_before_the_body),
        T(test_chunked_out),
        T(test_expect),
        T(test_early_answer),
        T(test_echo_and_pause),
        T(test_peer_closes),
        T(test_half_closed_peer_goes),
        T(test_malformed),
        T(test_malformed_chunks),
        T(test_too_large),
        T(test_stalls),
        T(test_pipelining_without_reading),
        T(test_mutations),
        T(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
