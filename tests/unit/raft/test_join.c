/* What a member finds out before it starts: the answer to its question, byte by byte, and whose folder it has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/crc32c.h"
#include "base/mem.h"
#include "raft/env_uv_hello_int.h"
#include "raft/join.h"

static const struct consensus_member members[] = {
    {.id = 7, .name = "n1", .peer_url = "http://127.0.0.1:2380"},
    {.id = UINT64_MAX, .name = "", .peer_url = "https://[::1]:1", .learner = true, .promote = true},
};

static void test_answer(void **state)
{
    (void)state;
    struct buf b = {0};
    struct arena a = {0};
    struct join_cluster j;
    join_encode(&b, 99, 17, members, 2);
    assert_int_equal(join_decode(buf_slice(&b), &a, &j), 0);
    assert_int_equal(j.cluster_id, 99);
    assert_int_equal(j.index, 17);
    assert_int_equal(j.n, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(j.members[i].id, members[i].id);
        assert_string_equal(j.members[i].name, members[i].name);
        assert_string_equal(j.members[i].peer_url, members[i].peer_url);
        assert_int_equal(j.members[i].learner, members[i].learner);
        assert_int_equal(j.members[i].promote, members[i].promote);
    }
    for (size_t len = 0; len < b.len; len++) { /* in a block of its own: a sanitizer sees what is read beyond it */
        uint8_t *cut = malloc(len ? len : 1);
        memcpy(cut, b.data, len);
        assert_int_equal(join_decode(slice_make(cut, len), &a, &j), ERR_CORRUPT);
        free(cut);
    }
    assert_int_equal(buf_append_byte(&b, 0), 0);
    assert_int_equal(join_decode(buf_slice(&b), &a, &j), ERR_CORRUPT);
    b.data[20] = 200; /* more members than there may be */
    assert_int_equal(join_decode(buf_slice(&b), &a, &j), ERR_CORRUPT);
    buf_release(&b);
    arena_release(&a);
}

static void test_hello(void **state)
{
    (void)state;
    struct buf b = {0};
    struct hello h = {.channel = HELLO_CHANNEL_ASK, .cluster_id = 1, .from = 2, .to = 3, .instance = 4, .known = 5}, got;
    struct welcome w = {WELCOME_REMOVED, 6, 7}, told;
    hello_encode(&b, &h);
    assert_true(hello_decode(buf_slice(&b), &got));
    assert_true(got.version == HELLO_VERSION && got.channel == HELLO_CHANNEL_ASK && got.cluster_id == 1 && got.from == 2);
    assert_true(got.to == 3 && got.instance == 4 && got.known == 5);
    for (size_t i = 0; i < b.len; i++) {
        b.data[i] ^= 1;
        assert_false(hello_decode(buf_slice(&b), &got));
        b.data[i] ^= 1;
    }
    assert_false(hello_decode(slice_make(b.data, b.len - 1), &got));
    buf_clear(&b);
    welcome_encode(&b, &w);
    assert_true(welcome_decode(buf_slice(&b), &told));
    assert_true(told.status == WELCOME_REMOVED && told.cluster_id == 6 && told.id == 7);
    b.data[9] ^= 1;
    assert_false(welcome_decode(buf_slice(&b), &told));
    assert_string_equal(welcome_text(12345), "unknown reason");
    buf_release(&b);
}

static void put(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void test_folder(void **state)
{
    (void)state;
    char dir[] = "/tmp/pintle-join-XXXXXX", path[300];
    uint64_t cluster, member, head[] = {0x3241544d544e5000u, 77, 88};
    struct arena a = {0};
    struct join_cluster j;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(join_folder("/nowhere/at/all", &cluster, &member), ERR_NOT_FOUND);
    assert_int_equal(join_folder(dir, &cluster, &member), ERR_NOT_FOUND);
    put(dir, "members", "garbage", 7);
    put(dir, "meta", "\0PN", 3);
    assert_int_equal(join_folder(dir, &cluster, &member), ERR_NOT_FOUND);
    assert_int_equal(join_folder_members(dir, &a, &j), ERR_NOT_FOUND);
    put(dir, "meta2", head, sizeof head); /* who it is can be said though the rest is lost */
    assert_int_equal(join_folder(dir, &cluster, &member), 0);
    assert_true(cluster == 77 && member == 88);
    mem_fail_nth(1); /* one of three that cannot be read */
    assert_int_equal(join_folder(dir, &cluster, &member), 0);
    assert_true(mem_fail_nth(0));
    for (const char *const *f = (const char *const[]){"members", "meta", "meta2", NULL}; *f; f++) {
        snprintf(path, sizeof path, "%s/%s", dir, *f);
        unlink(path);
    }
    rmdir(dir);
}

/* Nobody there, and somebody who is no member. */
static void test_ask(void **state)
{
    (void)state;
    struct arena a = {0};
    struct join_cluster j;
    struct err e = {{0}};
    struct env_uv_options none = {0};
    assert_int_equal(join_ask(&none, "http://127.0.0.1:1", &a, &j, &e), ERR_UNAVAILABLE);
    assert_non_null(strstr(e.text, "cannot connect"));
    assert_int_equal(join_ask(&none, "no url", &a, &j, &e), ERR_INVALID);
    arena_release(&a);
}

/* A member that says to whoever asks who the members are. */
static void *answer(void *listener)
{
    struct buf body = {0}, out = {0};
    uint8_t hello[HELLO_BYTES];
    join_encode(&body, 99, 17, members, 2);
    welcome_encode(&out, &(struct welcome){WELCOME_OK, 99, 7});
    (void)buf_append_u32(&out, (uint32_t)body.len);
    (void)buf_append_u32(&out, crc32c(0, body.data, body.len));
    (void)buf_append_slice(&out, buf_slice(&body));
    for (int fd; (fd = accept(*(int *)listener, NULL, NULL)) >= 0; close(fd)) {
        if (recv(fd, hello, sizeof hello, MSG_WAITALL) == sizeof hello) (void)!send(fd, out.data, out.len, MSG_NOSIGNAL);
    }
    buf_release(&body);
    buf_release(&out);
    return NULL;
}

/* Each allocation of who asks fails once: it is told so, and the next time gets the answer. */
static void test_out_of_memory(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer, &listener), 0);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d", ntohs(at.sin_port));
    bool fired = true;
    uint64_t nth = 1;
    for (; fired; nth++) {
        struct arena a = {0};
        struct join_cluster j;
        struct err e = {{0}};
        struct env_uv_options none = {0};
        mem_fail_nth(nth);
        int rv = join_ask(&none, url, &a, &j, &e);
        fired = mem_fail_nth(0);
        if (fired) {
            assert_int_equal(rv, ERR_NOMEM);
            assert_non_null(strstr(e.text, "out of memory"));
            rv = join_ask(&none, url, &a, &j, &e);
        }
        assert_int_equal(rv, 0);
        assert_true(j.n == 2 && j.index == 17 && j.cluster_id == 99);
        assert_string_equal(j.members[1].peer_url, members[1].peer_url);
        arena_release(&a);
    }
    assert_true(nth > 4); /* the question, the answer, what is kept of it */
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
