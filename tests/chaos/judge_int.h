/* The judge of `make chaos`: reads a history that load.c wrote, and says what in it cannot be.
 *
 *   judge.c           the program: phases, what was found, the summary
 *   judge_parse.c     lines of the history into the structs below
 *   judge_timeline.c  what happened at each revision, as the watchers of everything were told; the state at any revision
 *   judge_kv.c        each request and its answer against the timeline, in real time
 *   judge_linear.c    the same requests by values and moments alone: tests/sim/linear.h, key by key
 *   judge_watch.c     each watcher's stream against the timeline
 *   judge_lease.c     leases: none lost early, none dead and used
 *
 * Everything lives until the process ends. */
#ifndef PINTLE_TESTS_CHAOS_JUDGE_INT_H
#define PINTLE_TESTS_CHAOS_JUDGE_INT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/slice.h"

struct kv {
    struct slice key, value;
    int64_t create, mod, version, lease;
};

enum kv_type { KV_RANGE, KV_PUT, KV_DELETE };

struct kv_op {
    enum kv_type type;
    struct slice key, end, value;
    int64_t lease, rev, limit;
    int order, target;
    bool prev, keys_only, count_only;
};

struct kv_result {
    struct kv *kvs;
    size_t n;
    int64_t count; /* or deleted */
    bool more;
};

struct compare {
    struct slice key, value;
    int target, result;
    int64_t number;
};

enum op_kind { OP_KV, OP_COMPACT, OP_GRANT, OP_REVOKE, OP_KEEP, OP_HASH };
enum outcome { OUTCOME_OK, OUTCOME_UNKNOWN, OUTCOME_REFUSED, OUTCOME_ERROR };

struct op {
    enum op_kind kind;
    enum outcome outcome;
    unsigned line;
    int64_t client, member, connection, t0, t1;
    int code;
    struct slice text;
    bool lin, txn, ok;
    struct compare *compare;
    struct kv_op *then, *other;
    struct kv_result *results;
    size_t n_compare, n_then, n_else, n_results;
    int64_t rev, arg, lease, ttl, hash, compact_rev;
    /* found by the judge */
    int64_t floor;     /* the newest revision that anyone had been told of when it was asked */
    int64_t owns;      /* the revision it made; 0 = none */
    uint64_t rank0, rank1; /* t0, t1 as places in the order of all of them */
};

struct watch_event {
    bool tombstone, has_prev;
    struct kv kv, prev;
};
enum watch_what { WATCH_CREATE, WATCH_CREATED, WATCH_TOLD, WATCH_CANCELED, WATCH_END, WATCH_ASK };

struct watch_line {
    enum watch_what what;
    unsigned line;
    int64_t watcher, member, t, rev, start, compact_rev;
    struct slice key, end, text;
    bool prev, all, fragment;
    struct watch_event *events;
    size_t n;
};

struct final_line {
    unsigned line;
    int64_t member, rev, hash, compact_rev;
};

/* One change: an event of the timeline. */
struct change {
    int64_t rev, create, version, lease;
    bool tombstone;
    struct slice key, value;
    size_t key_place;
    size_t before; /* the change of the same key before it, plus one; 0 = none */
};

struct key {
    struct slice name;
    size_t *changes, n, size;
};

struct judge {
    struct arena arena;
    struct op *ops;
    struct watch_line *watches;
    struct final_line *finals;
    size_t n_ops, n_watches, n_finals, ops_size, watches_size, finals_size;
    struct change *changes;
    size_t n_changes, changes_size;
    size_t *at_rev;      /* by revision: the number of the first change of it; one more at the end */
    int64_t *seen_ns;    /* by revision: when anyone was first told of it or of a later one */
    struct op **owner;   /* by revision */
    int64_t top, start;  /* newest revision; the revision of an empty store */
    struct key *keys;
    struct op **compactions; /* those that may have been done */
    size_t n_keys, n_compactions;
    unsigned violations, lines;
    int64_t lease_slack_percent;
    bool unfinished; /* a history without its end: what is checked at the end is not */
    uint64_t n_ok, n_unknown, n_refused, n_errors, n_reads, n_writes, n_settled, events_checked, linear_ops, linear_steps, undecided,
        lease_ends, hashes;
};

void violation(struct judge *j, unsigned line, const char *format, ...) __attribute__((format(printf, 3, 4)));
const char *show(struct slice s); /* in one of a few static buffers */

/* judge_parse.c: 0, or -1 after saying which line is none of a history. */
int judge_read(struct judge *j, struct slice text);

/* judge_timeline.c */
void timeline_build(struct judge *j);
/* The number of the first change at or after this revision. */
size_t timeline_at(const struct judge *j, int64_t rev);
/* A state is the number `at` of the first change that has not happened in it. The key's live version in it, or NULL. */
const struct change *timeline_get(const struct judge *j, struct slice key, size_t at);
/* All live ones in [key, end) (end empty: the key alone), in key order, in a static array. */
const struct change **timeline_range(const struct judge *j, struct slice key, struct slice end, size_t at, size_t *ret_n);
bool in_range(struct slice key, struct slice from, struct slice end);
bool same_kv(const struct kv *kv, const struct change *c, bool keys_only);
/* The newest revision for which a compaction had been asked (acknowledged, if `acked`) at that time. */
int64_t compacted_by(const struct judge *j, int64_t t, bool acked);

void judge_kv(struct judge *j);
void judge_linear(struct judge *j);
void judge_watch(struct judge *j);
/* First: the rest asks lease_must_live. */
void leases_collect(struct judge *j);
void judge_leases(struct judge *j);
/* Whether an acknowledged grant or renewal says that the lease was there at that time. Its line, or 0. */
unsigned lease_must_live(const struct judge *j, int64_t lease, int64_t t);

#endif
