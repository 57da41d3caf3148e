/* The HTTP/2 client against a server that says anything: two requests (one of them gRPC through the
 * framing of clients/lib), and answers made of the input. First byte: bit 0 = frames with right
 * lengths (type, flags, stream, two bytes of length, payload), else bytes as they are. A frame of
 * type 0x80 and more is the head of a good answer (bit 0 of the type: with END_STREAM). */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "clients/lib/grpc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/records.h"
#include "tests/fuzz/wire.h"

static bool made_of_frames(uint8_t first)
{
    return first & 1;
}

static bool bare(const uint8_t head[])
{
    return head[0] >= 0x80;
}

const struct record_shape record_shape = {
    .prefix = 1, .head = 3, .applies = made_of_frames, .bare = bare};

static uv_loop_t loop;
static int listener;
static char url[64];
static unsigned open_requests;

static void on_data(struct h2_stream *s, struct slice piece)
{
    (void)s;
    if (piece.len && piece.data[0] == 0xfe) h2_client_next_endpoint(h2_stream_client(s));
}

static void on_head(struct h2_stream *s, int status, const struct h2_header *headers, size_t n)
{
    (void)s;
    if (status < 200) abort();
    (void)h2_header_get(headers, n, "content-type");
}

static void on_done(struct h2_stream *s, int code)
{
    if (code && !h2_stream_error(s)) abort();
    open_requests--;
}

static const struct h2_callbacks callbacks = {
    .head = on_head, .data = on_data, .trailers = NULL, .done = on_done};

static void on_message(struct grpc_client_call *c, struct slice message)
{
    (void)c;
    (void)message;
}

static void on_grpc_done(struct grpc_client_call *c, int status, const char *text)
{
    (void)c;
    (void)text;
    if (status < 0) abort();
    open_requests--;
}

static void start(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(any);
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(bind(listener, (struct sockaddr *)&any, sizeof(any)) == 0 && listen(listener, 8) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&any, &len) == 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(any.sin_port));
}

static void put(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (int tries = 0; len && tries < 100; tries++) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
        uv_run(&loop, UV_RUN_NOWAIT);
    }
}

static void frame(int fd, uint8_t type, uint8_t flags, uint8_t stream, struct slice payload)
{
    const uint8_t head[9] = {
        0, (uint8_t)(payload.len >> 8), (uint8_t)payload.len, type, flags, 0, 0, 0, stream};
    put(fd, head, sizeof(head));
    put(fd, payload.data, payload.len);
}

static void answer(int fd, struct slice in)
{
    frame(fd, 4, 0, 0, (struct slice){0});
    while (in.len) {
        uint8_t type = take_byte(&in), flags = take_byte(&in), stream = take_byte(&in);
        if (type >= 0x80) {
            struct buf block = {0};
            hpack_field(&block, ":status", SLICE_LIT("200"));
            hpack_field(&block, "content-type", SLICE_LIT("application/grpc"));
            if (flags & 1) hpack_field(&block, "grpc-status", SLICE_LIT("5"));
            if (flags & 2) hpack_field(&block, "grpc-message", SLICE_LIT("a%20b%zz"));
            frame(fd, 1, type & 1 ? 5 : 4, stream, buf_slice(&block));
            buf_release(&block);
            continue;
        }
        size_t len = (size_t)take_byte(&in) << 8;
        len |= take_byte(&in);
        frame(fd, type % 12, flags, stream, take_bytes(&in, len));
    }
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static struct h2_client *make_client(struct grpc_client_call *call)
{
    const char *endpoints[] = {url};
    const struct h2_client_options o = {
        .endpoints = endpoints, .n_endpoints = 1, .fail_fast = true, .backoff_min_ms = 1000};
    const struct h2_request r = {.method = "GET", .path = SLICE_LIT("/")};
    struct h2_client *c;
    struct h2_stream *s;
    struct err e;
    CHECK(h2_client_new(&loop, &o, &c, &e) == 0);
    CHECK(h2_request(c, &r, &callbacks, NULL, &s) == 0);
    call->message = on_message;
    call->done = on_grpc_done;
    CHECK(grpc_client_start(call, c, "/etcdserverpb.KV/Range", SLICE_LIT("\n\1a"), true, 0) == 0);
    open_requests = 2;
    return c;
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 10;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct grpc_client_call call = {0};
    bool closed = false;
    int fd = -1;
    if (!listener) start();
    if (size < 1) return 0;
    struct slice in = slice_make(data + 1, size - 1);
    struct h2_client *c = make_client(&call);
    for (int i = 0; i < 10000 && fd < 0; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    CHECK(fd >= 0);
    fuzz_memory_on();
    if (data[0] & 1) answer(fd, in);
    else put(fd, in.data, in.len);
    for (int i = 0; i < 3; i++) uv_run(&loop, UV_RUN_NOWAIT);
    fuzz_memory_off();
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
    grpc_client_cancel(&call);
    h2_client_close(c, on_closed, &closed);
    while (!closed) uv_run(&loop, UV_RUN_ONCE);
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) close(fd);
    return 0;
}
