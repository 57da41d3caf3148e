/* The real env: files, the lock, frames between two members, and everything that must not be let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/env_uv.h"
#include "raft/env_uv_hello_int.h"

#define CLUSTER 0xc1u
#define WAIT_MS 60000

static char root[64];
static char last_log[4096];

static void sink(enum log_level level, const char *line)
{
    (void)level;
    size_t at = strlen(last_log);
    if (at + strlen(line) + 2 < sizeof(last_log)) snprintf(last_log + at, sizeof(last_log) - at, "%s\n", line);
}

/* ---- a member ---------------------------------------------------------------------------------------- */

struct member {
    struct env *env;
    uint64_t id;
    int port, ticks, links;
    size_t frames, bytes;
    uint64_t sum;
    char last[64];
    bool stopped, closed;
};

static uv_loop_t loop;
static uv_prepare_t prepare;
static struct member *members[4];
static size_t n_members;

static void on_prepare(uv_prepare_t *h)
{
    (void)h;
    for (size_t i = 0; i < n_members; i++)
        if (members[i]->env && !members[i]->closed) env_uv_flush(members[i]->env);
}

static void on_tick(void *ctx)
{
    ((struct member *)ctx)->ticks++;
}

static void on_frame(void *ctx, uint64_t peer, enum env_channel channel, struct slice frame)
{
    struct member *m = ctx;
    (void)peer;
    (void)channel;
    m->frames++;
    m->bytes += frame.len;
    for (size_t i = 0; i < frame.len; i += 997) m->sum += frame.data[i];
    size_t n = frame.len < sizeof(m->last) - 1 ? frame.len : sizeof(m->last) - 1;
    memcpy(m->last, frame.data, n);
    m->last[n] = 0;
}

static void on_link(void *ctx, uint64_t peer, bool up)
{
    struct member *m = ctx;
    (void)peer;
    m->links += up ? 1 : -1;
}

static const struct env_handlers handlers = {on_tick, on_frame, on_link};

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static const char *tls_dir;

static int member_try(struct member *m, uint64_t id, uint64_t cluster, const char *dir, struct err *e)
{
    char data[160], url[64], cert[160], key[160], ca[160];
    snprintf(data, sizeof(data), "%s/%s", root, dir);
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d", tls_dir ? "https" : "http", m->port);
    struct env_uv_options o = {.data_dir = data, .listen_url = url, .id = id, .cluster_id = cluster};
    if (tls_dir) {
        snprintf(cert, sizeof(cert), "%s/crt", tls_dir);
        snprintf(key, sizeof(key), "%s/key", tls_dir);
        snprintf(ca, sizeof(ca), "%s/crt", tls_dir);
        o.peer_cert_file = cert;
        o.peer_key_file = key;
        o.peer_trusted_ca_file = ca;
        o.peer_client_cert_auth = true;
    }
    m->id = id;
    return env_uv_open(&loop, &o, &m->env, e);
}

static void member_open(struct member *m, uint64_t id, uint64_t cluster, const char *dir)
{
    struct err e;
    *m = (struct member){.port = free_port()};
    int rv = member_try(m, id, cluster, dir, &e);
    if (rv != 0) fail_msg("%s", e.text);
    members[n_members++] = m;
}

static void meet(struct member *a, const struct member *b)
{
    char url[64];
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d", tls_dir ? "https" : "http", b->port);
    assert_int_equal(a->env->ops->set_peer(a->env, b->id, url), 0);
}

static void member_start(struct member *m)
{
    assert_int_equal(m->env->ops->start(m->env, 10, &handlers, m), 0);
}

static void set_flag(void *ctx)
{
    *(bool *)ctx = true;
}

#define wait_for(cond)                                                                             \
    do {                                                                                           \
        uint64_t until = clock_mono_ms() + WAIT_MS;                                                \
        while (!(cond) && clock_mono_ms() < until) {                                               \
            uv_run(&loop, UV_RUN_NOWAIT);                                                          \
            usleep(500);                                                                           \
        }                                                                                          \
        if (!(cond)) fail_msg("%s did not happen; log:\n%s", #cond, last_log);                     \
    } while (0)

static void member_close(struct member *m)
{
    m->env->ops->stop(m->env, set_flag, &m->stopped);
    assert_false(m->stopped);
    wait_for(m->stopped);
    env_uv_close(m->env, set_flag, &m->closed);
    wait_for(m->closed);
    for (size_t i = 0; i < n_members; i++)
        if (members[i] == m) members[i] = members[--n_members];
}

static int setup(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "/tmp/pintle-env-XXXXXX");
    if (!mkdtemp(root)) return -1;
    last_log[0] = 0;
    tls_dir = NULL;
    log_set_sink(sink);
    uv_loop_init(&loop);
    uv_prepare_init(&loop, &prepare);
    uv_prepare_start(&prepare, on_prepare);
    uv_unref((uv_handle_t *)&prepare);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    if (n_members > 0) exit(1); /* the test has failed: its members would keep the loop for ever */
    uv_close((uv_handle_t *)&prepare, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    log_set_sink(NULL);
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

/* ---- disk --------------------------------------------------------------------------------------------- */

struct waiting_io {
    struct env_io io;
    bool done;
};

static void io_done(struct env_io *io)
{
    container_of(io, struct waiting_io, io)->done = true;
}

static int run_io(struct member *m, struct waiting_io *w)
{
    w->done = false;
    w->io.done = io_done;
    m->env->ops->io(m->env, &w->io);
    assert_false(w->done);
    wait_for(w->done);
    return w->io.status;
}

static void test_files(void **state)
{
    struct member m;
    char back[16] = {0};
    (void)state;
    member_open(&m, 1, CLUSTER, "a");
    assert_int_equal(m.env->ops->mkdir(m.env, "wal", NULL), 0);
    assert_int_equal(m.env->ops->mkdir(m.env, "wal", NULL), 0);
    struct waiting_io w = {.io = {.op = ENV_IO_OPEN, .path = "wal/1", .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE}};
    assert_int_equal(run_io(&m, &w), 0);
    w.io.op = ENV_IO_WRITE_SYNC;
    w.io.offset = 4;
    w.io.iov[0] = SLICE_LIT("abc");
    w.io.iov[1] = SLICE_LIT("");
    w.io.iov[2] = SLICE_LIT("defg");
    w.io.n_iov = 3;
    assert_int_equal(run_io(&m, &w), 0);
    w.io.op = ENV_IO_READ;
    w.io.buffer = back;
    w.io.len = sizeof(back);
    w.io.offset = 5;
    assert_int_equal(run_io(&m, &w), 0);
    assert_int_equal(w.io.ret_len, 6);
    assert_memory_equal(back, "bcdefg", 6);
    w.io.op = ENV_IO_TRUNCATE;
    w.io.offset = 6;
    assert_int_equal(run_io(&m, &w), 0);
    w.io.op = ENV_IO_CLOSE;
    assert_int_equal(run_io(&m, &w), 0);
    w.io = (struct env_io){.op = ENV_IO_OPEN, .path = "wal/1", .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE | ENV_OPEN_EXCLUSIVE};
    assert_int_equal(run_io(&m, &w), ERR_EXISTS);
    assert_non_null(strstr(w.io.err.text, "wal/1"));
    w.io = (struct env_io){.op = ENV_IO_RENAME, .path = "wal/1", .path2 = "wal/2"};
    assert_int_equal(run_io(&m, &w), 0);
    w.io = (struct env_io){.op = ENV_IO_OPEN, .lane = ENV_LANE_BULK, .path = "wal/1"};
    assert_int_equal(run_io(&m, &w), ERR_NOT_FOUND);
    struct buf text = {0};
    assert_int_equal(m.env->ops->read_file(m.env, "wal/2", 100, &text, NULL), 0);
    assert_int_equal(text.len, 6);
    assert_int_equal(m.env->ops->read_file(m.env, "wal/2", 5, &text, NULL), ERR_LIMIT);
    assert_int_equal(m.env->ops->write_file(m.env, "meta", SLICE_LIT("x"), NULL), 0);
    assert_int_equal(m.env->ops->write_file(m.env, "nowhere/meta", SLICE_LIT("x"), NULL), ERR_NOT_FOUND);
    w.io = (struct env_io){.op = ENV_IO_UNLINK, .path = "wal/2"};
    assert_int_equal(run_io(&m, &w), 0);
    buf_release(&text);
    member_close(&m);
}

/* A disk that is full, as far as a process can make one: the file size limit. */
/* Instead of the C library's: what the kernel answers, and what it was asked. */
static int read_errno;
static char synced[512];

int fsync(int fd)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, synced, sizeof(synced) - 1);
    synced[n > 0 ? n : 0] = 0;
    return (int)syscall(SYS_fsync, fd);
}

ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    if (!read_errno || at + (off_t)n <= 4096) return syscall(SYS_pread64, fd, to, n, at);
    if (at < 4096) return syscall(SYS_pread64, fd, to, 4096 - at, at);
    errno = read_errno;
    return -1;
}

/* The place that cannot be read is damage, with its offset; a file that cannot be opened just now is not. */
static void test_unreadable(void **state)
{
    struct member m;
    struct err e = {{0}};
    struct buf text = {0};
    struct rlimit old, none = {0, 0};
    static char bytes[8192];
    (void)state;
    member_open(&m, 1, CLUSTER, "a");
    assert_int_equal(m.env->ops->write_file(m.env, "meta", slice_make(bytes, sizeof(bytes)), NULL), 0);
    struct waiting_io w = {.io = {.op = ENV_IO_OPEN, .path = "meta", .flags = ENV_OPEN_COLD}};
    assert_int_equal(run_io(&m, &w), 0);
    w.io.op = ENV_IO_READ;
    w.io.buffer = bytes;
    w.io.len = sizeof(bytes) - 100;
    w.io.offset = 100;
    static const int lost[] = {EIO, EUCLEAN, EBADMSG, EILSEQ, ENODATA};
    for (size_t i = 0; i < sizeof(lost) / sizeof(*lost); i++) {
        read_errno = lost[i];
        assert_int_equal(run_io(&m, &w), ERR_CORRUPT);
        assert_memory_equal(w.io.err.text, "offset 4096: cannot be read: ", 29);
        assert_int_equal(m.env->ops->read_file(m.env, "meta", sizeof(bytes), &text, &e), ERR_CORRUPT);
        assert_memory_equal(e.text, "meta: offset 4096: cannot be read: ", 35);
        assert_int_equal(text.len, 0);
    }
    read_errno = ENOMEM;
    assert_int_equal(run_io(&m, &w), ERR_NOMEM);
    read_errno = EBADF;
    assert_int_equal(run_io(&m, &w), ERR_IO);
    read_errno = 0;
    w.io.op = ENV_IO_CLOSE;
    assert_int_equal(run_io(&m, &w), 0);
    getrlimit(RLIMIT_NOFILE, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    int rv = m.env->ops->read_file(m.env, "meta", sizeof(bytes), &text, &e);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_int_equal(rv, ERR_IO);
    assert_non_null(strstr(e.text, "cannot open meta"));
    buf_release(&text);
    member_close(&m);
}

static void ignore_name(void *ctx, const char *name)
{
    (void)ctx, (void)name;
}

/* What is found in a folder may be known to the page cache only. */
static void test_list_syncs(void **state)
{
    struct member m;
    (void)state;
    member_open(&m, 1, CLUSTER, "a");
    assert_int_equal(m.env->ops->mkdir(m.env, "wal", NULL), 0);
    synced[0] = 0;
    assert_int_equal(m.env->ops->list(m.env, "wal", ignore_name, NULL, NULL), 0);
    assert_non_null(strstr(synced, "/a/wal"));
    assert_int_equal(m.env->ops->list(m.env, "snap", ignore_name, NULL, NULL), ERR_NOT_FOUND);
    member_close(&m);
}

static void test_full_disk(void **state)
{
    struct member m;
    static uint8_t zeros[8192];
    struct rlimit before, tight = {4096, RLIM_INFINITY};
    (void)state;
    member_open(&m, 1, CLUSTER, "a");
    struct waiting_io w = {.io = {.op = ENV_IO_OPEN, .path = "f", .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE}};
    assert_int_equal(run_io(&m, &w), 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    tight.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &tight);
    w.io.op = ENV_IO_WRITE_SYNC;
    w.io.iov[0] = slice_make(zeros, sizeof(zeros));
    w.io.n_iov = 1;
    int rv = run_io(&m, &w);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(rv, ERR_IO);
    assert_non_null(strstr(w.io.err.text, "cannot write f"));
    w.io.op = ENV_IO_CLOSE;
    assert_int_equal(run_io(&m, &w), 0);
    member_close(&m);
}

static void test_folder_in_use(void **state)
{
    struct member m, second = {.port = free_port()};
    struct err e;
    (void)state;
    member_open(&m, 1, CLUSTER, "a");
    assert_int_equal(member_try(&second, 1, CLUSTER, "a", &e), ERR_BUSY);
    assert_non_null(strstr(e.text, "in use"));
    second.port = m.port;
    assert_int_equal(member_try(&second, 1, CLUSTER, "b", &e), ERR_EXISTS);
    assert_non_null(strstr(e.text, "address already in use"));
    member_close(&m);
}

/* ---- frames --------------------------------------------------------------------------------------------- */

struct waiting_send {
    struct env_send s;
    bool done;
};

static void send_done(struct env_send *s)
{
    container_of(s, struct waiting_send, s)->done = true;
}

static void send_text(struct member *from, struct waiting_send *w, uint64_t to, const char *a, const char *b)
{
    *w = (struct waiting_send){.s = {.peer_id = to, .n_iov = 2, .done = send_done}};
    w->s.iov[0] = slice_str(a);
    w->s.iov[1] = slice_str(b);
    from->env->ops->send(from->env, &w->s);
    assert_false(w->done);
}

static void exchange(void)
{
    struct member a, b;
    struct waiting_send w;
    member_open(&a, 1, CLUSTER, "a");
    member_open(&b, 2, CLUSTER, "b");
    meet(&a, &b);
    meet(&b, &a);
    member_start(&a);
    member_start(&b);
    wait_for(a.links == 1 && b.links == 1 && a.ticks > 0);
    wait_for((send_text(&a, &w, 2, "hello ", "world"), uv_run(&loop, UV_RUN_NOWAIT), b.frames > 0) || (usleep(1000), false));
    assert_string_equal(b.last, "hello world");
    /* large frames, many at once, in order */
    static struct waiting_send many[40];
    static uint8_t large[1 << 20];
    uint64_t sum = b.sum;
    size_t frames = b.frames;
    for (size_t i = 0; i < sizeof(large); i++) large[i] = (uint8_t)(i * 7);
    for (int i = 0; i < 40; i++) {
        many[i] = (struct waiting_send){.s = {.peer_id = 2, .channel = ENV_CHANNEL_RAFT, .n_iov = 1, .done = send_done}};
        many[i].s.iov[0] = slice_make(large, sizeof(large) - (size_t)i);
        for (size_t k = 0; k < sizeof(large) - (size_t)i; k += 997) sum += large[k];
        a.env->ops->send(a.env, &many[i].s);
    }
    wait_for(b.frames == frames + 40);
    assert_true(b.sum == sum);
    for (int i = 0; i < 40; i++) assert_true(many[i].done && many[i].s.status == 0);
    /* the other one dies: sends fail, the link is told */
    member_close(&b);
    wait_for(a.links == 0);
    send_text(&a, &w, 2, "x", "y");
    wait_for(w.done);
    assert_int_equal(w.s.status, ERR_CLOSED);
    send_text(&a, &w, 77, "x", "y");
    wait_for(w.done);
    assert_int_equal(w.s.status, ERR_CLOSED);
    /* and comes back */
    struct err e;
    int port = b.port;
    b = (struct member){.port = port};
    assert_int_equal(member_try(&b, 2, CLUSTER, "b", &e), 0);
    members[n_members++] = &b;
    meet(&b, &a);
    member_start(&b);
    wait_for(a.links == 1 && b.links == 1);
    member_close(&a);
    member_close(&b);
}

static void test_frames(void **state)
{
    (void)state;
    exchange();
}

static void test_frames_tls(void **state)
{
    static char dir[80];
    char command[400];
    (void)state;
    snprintf(dir, sizeof(dir), "%s", root);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout %s/key -out %s/crt -days 2 "
             "-subj /CN=peer -addext subjectAltName=IP:127.0.0.1 >/dev/null 2>&1", dir, dir);
    assert_int_equal(system(command), 0);
    tls_dir = dir;
    exchange();
    tls_dir = NULL;
}

/* ---- what must not be let in ------------------------------------------------------------------------------- */

static void test_wrong_cluster(void **state)
{
    struct member a, b;
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_open(&b, 2, CLUSTER + 1, "b");
    meet(&a, &b);
    meet(&b, &a);
    member_start(&a);
    member_start(&b);
    wait_for(strstr(last_log, "cluster ID mismatch"));
    assert_int_equal(a.links, 0);
    assert_int_equal(a.frames, 0);
    member_close(&a);
    member_close(&b);
}

static void test_two_with_one_id(void **state)
{
    struct member a, b, c;
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_open(&b, 2, CLUSTER, "b");
    meet(&a, &b);
    meet(&b, &a);
    member_start(&a);
    member_start(&b);
    wait_for(a.links == 1 && b.links == 1);
    member_open(&c, 2, CLUSTER, "c");
    meet(&c, &a);
    member_start(&c);
    wait_for(strstr(last_log, "another process already runs under this member ID"));
    assert_int_equal(b.links, 1);
    member_close(&c);
    member_close(&a);
    member_close(&b);
}

static enum env_stranger heard_from_4_on(void *ctx, uint64_t peer, uint64_t known)
{
    (void)ctx, (void)peer;
    return known >= 4 ? ENV_STRANGER_HEARD : ENV_STRANGER_UNKNOWN;
}

static uint64_t known_index;

static uint64_t known(void *ctx)
{
    (void)ctx;
    return known_index;
}

/* Somebody who is no peer is heard when it is worth it; when it becomes one, it is connected like any other. */
static void test_stranger(void **state)
{
    static const struct env_handlers hears = {on_tick, on_frame, on_link, .stranger = heard_from_4_on, .known = known};
    struct member a, b;
    struct waiting_send w;
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_open(&b, 2, CLUSTER, "b");
    meet(&b, &a);
    known_index = 3;
    assert_int_equal(a.env->ops->start(a.env, 10, &hears, &a), 0);
    assert_int_equal(b.env->ops->start(b.env, 10, &hears, &b), 0);
    wait_for(strstr(last_log, "it is not a member of this cluster"));
    known_index = 4;
    wait_for(b.links == 1);
    assert_int_equal(a.links, 0);
    send_text(&b, &w, 1, "who the ", "members are");
    wait_for(a.frames == 1);
    assert_string_equal(a.last, "who the members are");
    meet(&a, &b);
    wait_for(a.links == 1);
    for (int i = 0; a.frames < 2; i++) { /* its connection is made anew: what is on its way then is lost */
        assert_true(i < 10000);
        send_text(&b, &w, 1, "as a ", "peer");
        wait_for(w.done);
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(500);
    }
    send_text(&a, &w, 2, "and ", "back");
    wait_for(w.done);
    member_close(&a);
    wait_for(b.links == 0);
    member_close(&b);
}

static int raw_connect(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static bool peer_hung_up(int fd)
{
    char byte[256];
    ssize_t n = recv(fd, byte, sizeof(byte), MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

static void test_garbage(void **state)
{
    struct member a;
    uint8_t noise[4096];
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_start(&a);
    srand(1);
    for (int round = 0; round < 20; round++) {
        int fd = raw_connect(a.port);
        for (size_t i = 0; i < sizeof(noise); i++) noise[i] = (uint8_t)rand();
        if (round % 2) memcpy(noise, "PNTLPEER", 8);
        assert_true(send(fd, noise, sizeof(noise), MSG_NOSIGNAL) > 0);
        wait_for(peer_hung_up(fd));
        close(fd);
    }
    assert_int_equal(a.frames, 0);
    assert_non_null(strstr(last_log, "no hello of a Pintle member"));
    member_close(&a);
}

/* Who asks who the members are is nobody: nothing that follows is heard, be it in the same packet or after the answer. */
static void test_question(void **state)
{
    struct member a;
    struct buf bytes = {0};
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_start(&a);
    hello_encode(&bytes, &(struct hello){.version = HELLO_VERSION, .channel = HELLO_CHANNEL_ASK});
    for (int round = 0; round < 4; round++) {
        int fd = raw_connect(a.port);
        struct slice frame = SLICE_LIT("a frame");
        if (round == 1) {
            buf_append_u32(&bytes, (uint32_t)frame.len);
            buf_append_u32(&bytes, crc32c(0, frame.data, frame.len));
            buf_append_slice(&bytes, frame);
        }
        assert_int_equal(send(fd, bytes.data, bytes.len, MSG_NOSIGNAL), bytes.len);
        if (round == 0) {
            uint8_t answer[4];
            wait_for(recv(fd, answer, 1, MSG_DONTWAIT) == 1);
            assert_false(peer_hung_up(fd));
            assert_int_equal(send(fd, bytes.data, bytes.len, MSG_NOSIGNAL), bytes.len);
        }
        wait_for(peer_hung_up(fd));
        close(fd);
        assert_non_null(strstr(last_log, "something follows a question"));
    }
    assert_int_equal(a.frames, 0);
    buf_release(&bytes);
    member_close(&a);
}

static void test_too_many_connections(void **state)
{
    struct member a;
    int fds[LIMIT_PEER_CONNECTIONS + 8], hung = 0;
    (void)state;
    member_open(&a, 1, CLUSTER, "a");
    member_start(&a);
    for (size_t i = 0; i < LIMIT_PEER_CONNECTIONS + 8; i++) {
        fds[i] = raw_connect(a.port);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    wait_for(peer_hung_up(fds[7])); /* the oldest of those that have said nothing: a member that comes now finds room */
    assert_false(peer_hung_up(fds[LIMIT_PEER_CONNECTIONS + 7]));
    for (size_t i = 0; i < LIMIT_PEER_CONNECTIONS + 8; i++) hung += peer_hung_up(fds[i]);
    assert_in_range(hung, 1, 8);
    for (size_t i = 0; i < LIMIT_PEER_CONNECTIONS + 8; i++) close(fds[i]);
    member_close(&a);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the server does */
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_files), T(test_unreadable), T(test_list_syncs), T(test_full_disk), T(test_folder_in_use), T(test_frames),
        T(test_frames_tls), T(test_wrong_cluster), T(test_two_with_one_id),
        T(test_stranger), T(test_garbage), T(test_question), T(test_too_many_connections),
    };
    return cmocka_run_group_tests_name("env_uv", tests, NULL, NULL);
}
