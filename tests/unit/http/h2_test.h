/* What the tests of HTTP/2 share: a server for each, and a client that asks it. */
#ifndef PINTLE_TESTS_UNIT_HTTP_H2_TEST_H
#define PINTLE_TESTS_UNIT_HTTP_H2_TEST_H

#include "http_client.h"

#include "base/log.h"

static struct fixture f;

static inline int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    fixture_start(&f);
    f.server->limits.linger_ms = 50;
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    fixture_stop(&f);
    return 0;
}

static inline void get(struct h2_client *c, struct h2_answer *a, const char *path)
{
    h2c_request(c, a, "GET", path, NULL, NULL, 0);
}

/* The server still serves others. */
static inline void still_serves(void)
{
    struct h2_client c;
    struct h2_answer a = {0};
    h2c_open(&c, &f);
    get(&c, &a, "/");
    assert_true(h2c_wait(&c, &a.closed));
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.len, 6);
    answer_release(&a);
    h2c_close(&c);
}

#endif
