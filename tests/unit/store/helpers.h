/* Short ways to drive a store in tests. */
#ifndef PINTLE_TESTS_STORE_HELPERS_H
#define PINTLE_TESTS_STORE_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "store/store_int.h"

/* Applies and drops the result; returns its code. */
static inline int run(struct store *s, const struct command *c)
{
    struct arena a = {0};
    struct result r;
    store_apply(s, c, &a, &r);
    int code = r.code;
    result_release(&r);
    arena_release(&a);
    return code;
}

static inline int put_lease(struct store *s, const char *key, const char *value, int64_t lease)
{
    return run(s, &(struct command){COMMAND_OP, .op = {OP_PUT, .put = {.key = slice_str(key),
                                                                       .value = slice_str(value),
                                                                       .lease = lease}}});
}

static inline int put(struct store *s, const char *key, const char *value)
{
    return put_lease(s, key, value, 0);
}

static inline int del(struct store *s, const char *key)
{
    return run(s, &(struct command){COMMAND_OP, .op = {OP_DELETE, .del = {.key = slice_str(key)}}});
}

static inline int del_all(struct store *s)
{
    return run(
        s, &(struct command){COMMAND_OP, .op = {OP_DELETE, .del = {.key = SLICE_LIT("\0"),
                                                                   .range_end = SLICE_LIT("\0")}}});
}

static inline int compact_to(struct store *s, int64_t rev)
{
    return run(s, &(struct command){COMMAND_COMPACT, .compact = {rev}});
}

static inline int grant(struct store *s, int64_t id, int64_t ttl)
{
    return run(s, &(struct command){COMMAND_LEASE_GRANT, .lease_grant = {id, ttl}});
}

static inline int revoke(struct store *s, int64_t id)
{
    return run(s, &(struct command){COMMAND_LEASE_REVOKE, .lease_revoke = {id}});
}

static inline int alarm_set(struct store *s, uint64_t member, enum alarm_type type, bool on)
{
    return run(s, &(struct command){COMMAND_ALARM, .alarm = {member, type, on}});
}

static inline void drop_events(struct store *s)
{
    event_batch_unref(store_take_events(s));
}

static inline void work_off(struct store *s)
{
    while (store_work(s, 100)) {
    }
}

#endif
