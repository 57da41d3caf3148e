/* The load of `make chaos`: clients and watchers of a running cluster over gRPC, and a history of all that they asked and were told.
 *
 *   load.c        flags, members, what the harness says on standard input, the end
 *   load_kv.c     one KV request: made by chance, encoded, and its answer written down
 *   load_ops.c    clients: each asks one thing at a time of some member
 *   load_watch.c  watchers, among them one of everything on each of the first members
 *   load_final.c  after the faults: what every member must come to hold
 *   record.c      lines of the history
 *
 * The history is one JSON object a line; judge.c says what must be true of it. One thread; times are CLOCK_MONOTONIC nanoseconds. */
#ifndef PINTLE_TESTS_CHAOS_LOAD_INT_H
#define PINTLE_TESTS_CHAOS_LOAD_INT_H

#include <stdio.h>
#include <uv.h>

#include "clients/lib/grpc.h"
#include "clients/lib/pbjson.h"

enum {
    MEMBERS_MAX = 9,
    SLOTS = 10,          /* keys that are in use at a time */
    SLOT_OPS = 300,      /* requests of one key until another takes its place: histories of keys stay short */
    LEASES_PER_CLIENT = 2,
    KEY_BYTES = 40,
    KV_OPS_MAX = 4,
    ORACLES_MAX = 3,
};

struct load;

/* ---- record.c */

/* A line is written by rec_open, fields, rec_close. */
struct rec {
    FILE *file;
    struct buf line;
    uint64_t lines;
};
void rec_open(struct rec *r, const char *what);
void rec_close(struct rec *r);
void rec_int(struct rec *r, const char *name, int64_t v);
void rec_str(struct rec *r, const char *name, const char *text);
void rec_name(struct rec *r, const char *name); /* a value follows, appended to `line` */
void rec_value(struct rec *r, struct slice value);
/* A KeyValue message as [key, value, create, mod, version, lease]. */
struct kv_seen {
    struct slice key, value;
    int64_t create, mod, version, lease;
};
int kv_decode(struct slice message, struct kv_seen *ret) MUST_CHECK;
void rec_kv(struct rec *r, const struct kv_seen *kv);
/* Values: "v<number>" and dots, as many as follow from the number; written down without them if they are right. */
void value_limit(unsigned max_bytes); /* once, before the others */
void value_make(struct buf *out, uint64_t number);
uint64_t value_number(struct slice value);
/* The ResponseHeader of an answer: "rev", "term", "mid". */
int64_t rec_header(struct rec *r, struct slice header);

/* ---- load_kv.c */

enum kv_type { KV_RANGE, KV_PUT, KV_DELETE };

struct kv_op {
    enum kv_type type;
    char key[KEY_BYTES], end[KEY_BYTES];
    uint64_t value;
    int64_t lease, rev, limit;
    int order, target; /* of etcd */
    bool prev, serializable, keys_only, count_only;
};
struct kv_compare {
    char key[KEY_BYTES];
    int target, result; /* etcd's numbers */
    int64_t number;
    uint64_t value;
};
/* A txn, or if it is none the one operation then[0]. */
struct kv_request {
    bool txn;
    unsigned n_compare, n_then, n_else;
    struct kv_compare compare[2];
    struct kv_op then[KV_OPS_MAX], other[KV_OPS_MAX];
};
const char *kv_method(const struct kv_request *q, const char **ret_name);
void kv_encode(const struct kv_request *q, struct buf *out);
void kv_record_request(struct rec *r, const struct kv_request *q);
/* Each kv of the answer is shown to `saw`. Returns the header's revision, or -1 if the answer does not decode. */
int64_t kv_record_answer(struct rec *r, const struct kv_request *q, struct slice message,
                         void (*saw)(void *ctx, const struct kv_seen *kv), void *ctx);
bool kv_is_write(const struct kv_request *q);
bool kv_is_linearizable(const struct kv_request *q);

/* ---- clients and watchers */

struct seen_key {
    unsigned generation;
    uint64_t value;
    int64_t mod;
};
struct client_lease {
    int64_t id, ttl;
    uint64_t next_ns; /* when it is renewed again */
    unsigned left;    /* renewals */
    unsigned keys;
};
enum op_kind { OP_KV, OP_COMPACT, OP_GRANT, OP_REVOKE, OP_KEEP, OP_HASH };

struct client {
    struct load *load;
    unsigned number, member;
    struct h2_client *connections[MEMBERS_MAX];
    struct grpc_client_call call;
    bool busy;
    enum op_kind kind;
    struct kv_request kv;
    int64_t arg, lease;
    unsigned slot;
    struct buf answer;
    bool answered;
    uint64_t called_ns;
    struct seen_key seen[SLOTS];
    struct client_lease leases[LEASES_PER_CLIENT];
    uv_timer_t timer;
};

struct watcher {
    struct load *load;
    unsigned number, member;
    bool oracle;             /* of everything, stays on its member, never dropped */
    struct h2_client *connection;
    struct grpc_client_call call;
    char key[KEY_BYTES], end[KEY_BYTES];
    int64_t start, next_rev; /* the first revision not told about */
    int64_t next_compact;    /* of an oracle: the first revision that may not be compacted yet */
    bool open, created, prev, fragment, progress;
    uint64_t until_ns;       /* then it leaves */
    uv_timer_t timer;
};

struct load {
    uv_loop_t loop;
    uv_pipe_t control;
    uv_timer_t tick;
    struct rec rec;
    uint64_t random;
    const char *endpoints[MEMBERS_MAX];
    unsigned n_members;
    bool active[MEMBERS_MAX];
    int64_t think_ms, n_clients, n_watchers, value_bytes, settle_s;
    struct client *clients;
    struct watcher *watchers;
    unsigned generation[SLOTS], slot_ops[SLOTS];
    uint64_t next_value;
    int64_t top_rev, start_rev, compacted;
    uint64_t acked, unknown, refused, errors, watch_events;
    bool stopping, finished;
    char control_line[256];
    size_t control_len;
};

uint64_t load_random(struct load *l);
static inline uint64_t load_below(struct load *l, uint64_t n)
{
    return load_random(l) % n;
}
static inline bool load_chance(struct load *l, unsigned percent)
{
    return load_below(l, 100) < percent;
}
/* A member that is meant to be there. */
unsigned load_member(struct load *l);
struct h2_client *load_connect(struct load *l, unsigned member);
void load_saw_revision(struct load *l, int64_t rev);
void slot_key(const struct load *l, unsigned slot, char *out);

void client_start(struct client *c);
void client_stop(struct client *c);
void watcher_start(struct watcher *w);
void watcher_stop(struct watcher *w);
/* "ok", "unknown", "refused" (certainly not done) or "error" (refused for what it asks). */
const char *outcome_of(int status, const char *text);

/* 0, or 1 after saying what did not come true. */
int load_final(struct load *l);

#endif
