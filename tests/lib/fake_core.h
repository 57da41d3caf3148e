/* A core without consensus, thread or clock: core_client_* over a store, answered when the test
 * says so. The services above it are the ones that ship. Include it in one file of a program. */
#ifndef PINTLE_TESTS_LIB_FAKE_CORE_H
#define PINTLE_TESTS_LIB_FAKE_CORE_H

#include "api/core/core_thread.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"
#include "watch/watch.h"

struct fake_wish {
    struct list node;
    uint64_t id;
    int64_t from;
};

struct core_client {
    struct store *store;
    struct watch_hub *hub;
    struct list requests, wishes;
    uint64_t leader;
    int fail_next; /* error of the next request that does not only close something */
    int lose_next; /* what the next command is answered with, though it was applied */
};

static inline void fake_core_wish(void *ctx, uint64_t id, int64_t from)
{
    struct core_client *c = ctx;
    struct fake_wish *w = mem_must_alloc(sizeof(*w));
    *w = (struct fake_wish){.id = id, .from = from};
    list_push_back(&c->wishes, &w->node);
}

static inline void fake_core_open(struct core_client *c)
{
    static const struct watch_upstream up = {fake_core_wish};
    *c = (struct core_client){.store = store_new(&(struct store_options){0}), .leader = 77};
    list_init(&c->requests);
    list_init(&c->wishes);
    CHECK(watch_hub_new(&up, c, store_revision(c->store), 0, &c->hub) == 0);
}

static inline void fake_core_drop_wishes(struct core_client *c)
{
    for (struct list *n; (n = list_pop_front(&c->wishes));)
        mem_free(container_of(n, struct fake_wish, node));
}

static inline void fake_core_close(struct core_client *c)
{
    CHECK(list_empty(&c->requests));
    fake_core_drop_wishes(c);
    watch_hub_free(c->hub);
    store_free(c->store);
}

void core_client_submit(struct core_client *c, struct core_request *r)
{
    list_push_back(&c->requests, &r->node);
}
struct watch_hub *core_client_hub(struct core_client *c)
{
    return c->hub;
}
uint64_t core_client_member_id(const struct core_client *c)
{
    (void)c;
    return 77;
}
uint64_t core_client_cluster_id(const struct core_client *c)
{
    (void)c;
    return 11;
}
uint64_t core_client_leader_id(const struct core_client *c)
{
    return c->leader;
}
bool core_client_learner(const struct core_client *c)
{
    (void)c;
    return false;
}

bool core_client_refusing(const struct core_client *c)
{
    (void)c;
    return false;
}

uint64_t core_client_term(const struct core_client *c)
{
    (void)c;
    return 5;
}

static inline int fake_core_cursor(struct core_request *r)
{
    r->result.type = COMMAND_OP;
    r->result.op.type = OP_RANGE;
    return store_cursor_next((struct store_cursor *)(void *)r->cursor, 1000, SIZE_MAX, &r->arena,
                             &r->result.op.range);
}

static inline int fake_core_lease(struct core_client *c, struct core_request *r)
{
    struct lease_info info;
    if (!store_lease(c->store, r->lease_id, &info)) return ERR_LEASE_NOT_FOUND;
    r->ttl = r->granted_ttl = info.ttl;
    return r->want_keys ? store_lease_keys(c->store, r->lease_id, &r->arena, &r->keys, &r->n_keys)
                        : 0;
}

static inline int fake_core_snapshot(struct core_request *r)
{
    struct buf out = {0};
    int code = store_snapshot_next((struct store_snapshot *)(void *)r->snapshot, 100000, &out,
                                   &r->done_all);
    if (code == 0) r->piece = blob_copy(buf_slice(&out));
    buf_release(&out);
    return code;
}

static inline int fake_core_serve(struct core_client *c, struct core_request *r)
{
    struct store *s = c->store;
    struct command cmd;
    int code;
    r->result.type = COMMAND_OP;
    switch (r->type) {
    case CORE_COMMAND:
        code = command_decode(&r->arena, r->command, &cmd);
        if (code == 0) code = command_check(&cmd);
        if (code == ERR_NOMEM) return code;
        CHECK(code == 0); /* the service has checked it */
        store_apply(s, &cmd, &r->arena, &r->result);
        return r->result.code;
    case CORE_RANGE:
        r->result.op.type = OP_RANGE;
        r->result.revision = store_revision(s);
        return store_range(s, &r->range, &r->arena, &r->result.op.range);
    case CORE_TXN_READ: store_txn_read(s, r->txn, &r->arena, &r->result); return r->result.code;
    case CORE_CURSOR_OPEN:
        code = store_cursor_open(s, &r->range, (struct store_cursor **)(void *)&r->cursor);
        if (code == 0 && (code = fake_core_cursor(r)) != 0) {
            store_cursor_close((struct store_cursor *)(void *)r->cursor);
            r->cursor = NULL;
        }
        return code;
    case CORE_CURSOR_NEXT: return fake_core_cursor(r);
    case CORE_CURSOR_CLOSE: store_cursor_close((struct store_cursor *)(void *)r->cursor); return 0;
    case CORE_LEASE_RENEW:
    case CORE_LEASE_INFO: return fake_core_lease(c, r);
    case CORE_STATUS:
        r->status = arena_calloc(&r->arena, 1, sizeof(*r->status));
        return r->status ? 0 : ERR_NOMEM;
    case CORE_ALARMS:
        r->alarms = arena_calloc(&r->arena, 16, sizeof(*r->alarms));
        if (!r->alarms) return ERR_NOMEM;
        r->n_alarms = store_alarms(s, r->alarms, 16);
        return 0;
    case CORE_SNAPSHOT_OPEN:
        r->snapshot = (struct core_snapshot *)(void *)store_snapshot_open(s);
        r->snapshot_size = store_size_in_use(s);
        return 0;
    case CORE_SNAPSHOT_NEXT: return fake_core_snapshot(r);
    case CORE_SNAPSHOT_CLOSE:
        store_snapshot_close((struct store_snapshot *)(void *)r->snapshot);
        return 0;
    case CORE_READ_INDEX: return 0;
    default: return ERR_UNSUPPORTED;
    }
}

static inline void fake_core_history(struct core_client *c, struct fake_wish *w)
{
    struct event_batch *b = NULL;
    int64_t upto = store_revision(c->store);
    int code = store_events(c->store, w->from, upto, 50, 1 << 20, &b);
    watch_hub_history(c->hub, w->id, code, b, upto, store_compact_revision(c->store));
    event_batch_unref(b);
    mem_free(w);
}

/* Answers one thing, requests first; false if nothing waits. */
static inline bool fake_core_step(struct core_client *c)
{
    struct list *n = list_pop_front(&c->requests);
    if (!n) {
        if (list_empty(&c->wishes)) return false;
        fake_core_history(c, container_of(list_pop_front(&c->wishes), struct fake_wish, node));
        return true;
    }
    struct core_request *r = container_of(n, struct core_request, node);
    bool closes = r->type == CORE_CURSOR_CLOSE || r->type == CORE_SNAPSHOT_CLOSE;
    r->code = c->fail_next && !closes ? c->fail_next : fake_core_serve(c, r);
    if (!closes) c->fail_next = 0;
    if (c->lose_next && r->type == CORE_COMMAND) {
        result_release(&r->result);
        r->code = c->lose_next;
        c->lose_next = 0;
    }
    r->ret_revision = store_revision(c->store);
    r->ret_term = 5;
    struct event_batch *b = store_take_events(c->store);
    r->done(r);
    if (b) watch_hub_live(c->hub, b);
    event_batch_unref(b);
    return true;
}

/* Answers all that waits, and what comes of it. */
static inline void fake_core_run(struct core_client *c)
{
    while (fake_core_step(c)) continue;
}

#endif
