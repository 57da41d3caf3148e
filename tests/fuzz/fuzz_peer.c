/* The port for other members: hello, frames and their decoder, over a real connection to the real
 * env; and the answer that a member gets to its own hello. Checksums always fit (fake_crc.h). First
 * byte: 0 = bytes as they are; 1 = a good hello, then bytes; 2 = a good hello, then frames with
 * right lengths (two bytes of length before each); 3 = bytes answer the member's own hello. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "raft/env_uv_int.h"
#include "raft/frames_int.h"
#include "tests/fuzz/fake_crc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/records.h"

#define CLUSTER 7u

static bool made_of_frames(uint8_t first)
{
    return first % 4 == 2;
}

const struct record_shape record_shape = {.prefix = 1, .applies = made_of_frames};

static uv_loop_t loop;
static struct env_uv *u;
static struct sockaddr_in address; /* of the member */
static int own_listener;
static char own_url[64];

static void on_tick(void *ctx)
{
    (void)ctx;
}

static void on_frame(void *ctx, uint64_t peer, enum env_channel channel, struct slice bytes)
{
    struct frame f;
    struct err e;
    (void)ctx;
    if (peer != 2 || channel >= ENV_CHANNELS) abort();
    if (frame_decode(bytes, &f, &e) != 0 || f.kind != FRAME_APPEND) return;
    size_t at = 0;
    for (uint32_t i = 0; i < f.append.n; i++) {
        struct raft_entry entry = frame_append_entry(&f.append, i, &at);
        const uint8_t *p = entry.buf.base;
        if (entry.buf.len && (p < bytes.data || p + entry.buf.len > bytes.data + bytes.len))
            abort();
    }
}

static void on_link(void *ctx, uint64_t peer, bool up)
{
    (void)ctx, (void)up;
    if (peer != 2 && peer != 3) abort();
}

static void turn(void)
{
    env_uv_flush(&u->env);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void start(void)
{
    static char dir[] = "/tmp/pintle-fuzz-XXXXXX";
    static const struct env_handlers handlers = {on_tick, on_frame, on_link};
    const struct env_uv_options o = {.listen_url = "http://127.0.0.1:0",
                                     .data_dir = mkdtemp(dir),
                                     .id = 1,
                                     .cluster_id = CLUSTER};
    struct env *env;
    struct err e;
    socklen_t len = sizeof(address);
    int n = (int)sizeof(address);
    log_set_level(LOG_ERROR);
    uv_loop_init(&loop);
    CHECK(env_uv_open(&loop, &o, &env, &e) == 0);
    u = env_uv_of(env);
    CHECK(uv_tcp_getsockname(&u->listener, (struct sockaddr *)&address, &n) == 0);
    CHECK(env->ops->start(env, 60000, &handlers, NULL) == 0);
    CHECK(env->ops->set_peer(env, 2, "http://127.0.0.1:1") == 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    own_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(bind(own_listener, (struct sockaddr *)&any, sizeof(any)) == 0 &&
          listen(own_listener, 8) == 0);
    CHECK(getsockname(own_listener, (struct sockaddr *)&any, &len) == 0);
    snprintf(own_url, sizeof(own_url), "http://127.0.0.1:%d", ntohs(any.sin_port));
    char command[64];
    snprintf(command, sizeof(command), "%s/lock", dir);
    unlink(command); /* nothing else is written there */
    rmdir(dir);
}

static void put(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (int tries = 0; len && tries < 1000; tries++) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
        turn();
    }
}

static void hello(int fd, uint8_t channel)
{
    struct buf out = {0};
    buf_append_str(&out, "PNTLPEER");
    buf_append_u32(&out, 2);
    buf_append_u32(&out, channel % 2);
    buf_append_u64(&out, CLUSTER);
    buf_append_u64(&out, 2);
    buf_append_u64(&out, 1);
    buf_append_u64(&out, 99);
    buf_append_u64(&out, 1);
    buf_append_u32(&out, crc32c(0, NULL, 0));
    put(fd, out.data, out.len);
    buf_release(&out);
}

static void frames(int fd, struct slice in)
{
    while (in.len >= 2) {
        size_t len = (size_t)in.data[0] << 8 | in.data[1];
        struct slice frame = slice_sub(in, 2, len);
        struct buf head = {0};
        in = slice_sub(in, 2 + frame.len, in.len);
        buf_append_u32(&head, (uint32_t)frame.len);
        buf_append_u32(&head, crc32c(0, NULL, 0));
        put(fd, head.data, head.len);
        put(fd, frame.data, frame.len);
        buf_release(&head);
    }
}

static void hang_up(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static void call(uint8_t kind, struct slice in)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) !=
        0) { /* all ports wait for their end: after 20,000 calls a minute */
        close(fd);
        return;
    }
    while (u->n_inbound == 0) turn();
    fuzz_memory_on();
    if (kind) hello(fd, in.len ? in.data[0] : 0);
    if (kind == 2) frames(fd, in);
    else put(fd, in.data, in.len);
    for (int i = 0; i < 3; i++) turn();
    fuzz_memory_off();
    hang_up(fd);
    while (u->n_inbound > 0) turn();
}

static void answer(struct slice in)
{
    int fd = -1;
    CHECK(net_set_peer(&u->env, 3, own_url) == 0);
    for (int i = 0; i < 1000 && fd < 0; i++) {
        turn();
        fd = accept4(own_listener, NULL, NULL, SOCK_CLOEXEC);
    }
    CHECK(fd >= 0);
    put(fd, in.data, in.len);
    turn();
    hang_up(fd);
    CHECK(net_set_peer(&u->env, 3, NULL) == 0);
    for (int i = 0; i < 8; i++) {
        turn();
        fd = accept4(own_listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) hang_up(fd);
    }
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 50;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!u) start();
    if (size < 1) return 0;
    struct slice in = slice_make(data + 1, size - 1);
    if (data[0] % 4 == 3) answer(in);
    else call(data[0] % 4, in);
    return 0;
}
