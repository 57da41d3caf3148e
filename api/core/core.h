/* The core: the one thread that owns the state machine. It gathers requests into batches, gives them to
 * consensus, applies what comes back to the store in order, answers, and hands events to the workers.
 *
 * Two layers:
 *  - `struct core` is deterministic: it runs on any env (raft/env.h), so the simulation runs the code
 *    that ships. Requests go in by core_submit, answers come out through `done`, on the same thread.
 *  - `struct core_thread` (core_thread.h) gives it a thread, a libuv loop and queues to the workers.
 *
 * Raft entries are a msgpack array of commands: [[origin_seq, command], ...] (schemas/batch.h). While one append is in
 * flight, what arrives becomes the next entry. Linearizable reads that wait share one read point. */
#ifndef PINTLE_API_CORE_CORE_H
#define PINTLE_API_CORE_CORE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/list.h"
#include "raft/consensus.h"
#include "schemas/command.h"
#include "store/store.h"

struct core;
struct core_cursor;   /* an open long read; opaque, closed by CORE_CURSOR_CLOSE */
struct core_snapshot; /* an open snapshot stream; closed by CORE_SNAPSHOT_CLOSE */

enum core_request_type {
    CORE_COMMAND,      /* in: command (encoded)            out: result */
    CORE_RANGE,        /* in: range                        out: result.op.range */
    CORE_TXN_READ,     /* in: txn (read-only), serializable out: result.op.txn */
    CORE_READ_INDEX,   /* nothing but the read point: "is this member able to serve" */
    CORE_CURSOR_OPEN,  /* in: range                        out: cursor, result.op.range (first slice) */
    CORE_CURSOR_NEXT,  /* in: cursor                       out: result.op.range */
    CORE_CURSOR_CLOSE, /* in: cursor */
    CORE_HISTORY,      /* in: from_rev                     out: events (or NULL), upto_rev */
    CORE_LEASE_RENEW,  /* in: lease_id                     out: ttl (answered by the leader, from any member) */
    CORE_LEASE_INFO,   /* in: lease_id, want_keys          out: lease, ttl remaining, keys */
    CORE_LEASES,       /*                                  out: lease_ids */
    CORE_STATUS,       /*                                  out: status */
    CORE_HASH_KV,      /* in: revision                     out: hash */
    CORE_MEMBERS,      /* in: serializable                 out: members */
    CORE_MOVE_LEADER,  /* in: member_id */
    CORE_MEMBER_CHANGE, /* in: change                      out: members, member_id (of ADD) */
    CORE_ALARMS,       /*                                  out: alarms */
    CORE_SNAPSHOT_OPEN,  /*                                out: snapshot, snapshot_size (about) */
    CORE_SNAPSHOT_NEXT,  /* in: snapshot                   out: piece, done_all */
    CORE_SNAPSHOT_CLOSE, /* in: snapshot */
};

struct core_member {
    uint64_t id;
    struct slice name; /* empty until it has published its attributes */
    struct slice peer_url;
    const struct slice *client_urls;
    size_t n_client_urls;
    bool learner; /* as etcd means it: one that was added as a voter is none, though it does not vote before it has caught up */
};

/* A change of the members (etcdserverpb.Cluster). */
struct core_member_change {
    enum consensus_change_op op;
    uint64_t member_id; /* but for ADD, which chooses one */
    struct slice peer_url;
    bool learner;
};

/* Alarms as they are listed: n_alarms that are raised, then n_healing more: CORRUPT of each further member that heals. The latter
 * are this member's knowledge, not the log's: they refuse nothing, cannot be cleared, and go when that member is whole. */
#define CORE_ALARMS_MAX (LIMIT_MEMBERS * 3)

struct core_status {
    struct consensus_status raft;
    int64_t revision, compact_revision, db_size, db_size_in_use, keys, quota;
    size_t leases, pending, n_alarms, n_healing;
    struct alarm alarms[CORE_ALARMS_MAX];
    uint64_t applied_entries, applied_commands, batches, slow_applies;
    uint64_t check_index, checks, check_mismatches; /* of states: the newest one's index; made; that found a difference */
    bool learner;
    bool refusing; /* this member was found to differ from the others: it serves nothing */
};

/* How requests hang in the queues between threads. */
struct core_link {
    struct core_link *next;
    int kind;
};

/* One request, embedded or allocated by the caller. The core owns it from core_submit until `done`, which
 * comes exactly once, on the caller's thread. What the answer points to lives in `arena`, or is a reference
 * that core_request_release drops. */
struct core_request {
    enum core_request_type type;
    void (*done)(struct core_request *r);
    void *data;
    struct arena arena;   /* initialised (all zero is fine) by the caller */

    /* in; bytes are borrowed until `done` */
    bool serializable;
    bool want_keys;
    uint32_t timeout_ms;  /* 0 = LIMIT_REQUEST_TIMEOUT_MS */
    struct slice command; /* command_encode'd, checked by command_check */
    struct range_op range;
    const struct txn_op *txn;
    int64_t lease_id, from_rev, revision;
    uint64_t member_id;
    struct core_member_change change;

    /* in and out */
    struct core_cursor *cursor;
    struct core_snapshot *snapshot;

    /* out */
    int code; /* 0, or why there is no answer: ERR_TIMEOUT, ERR_NO_LEADER, ERR_LEADER_CHANGED, ERR_TOO_MANY_REQUESTS,
                 ERR_STOPPED, or the operation's own refusal (then result.code is the same) */
    int64_t ret_revision; /* store's, for response headers */
    uint64_t ret_term;
    struct result result;
    struct event_batch *events;
    int64_t upto_rev, compact_rev;
    int64_t ttl, granted_ttl;
    struct slice *keys;
    size_t n_keys;
    int64_t *lease_ids;
    size_t n_lease_ids;
    struct core_status *status;
    uint32_t hash;
    int64_t hash_revision;
    struct core_member *members;
    size_t n_members;
    struct alarm *alarms;
    size_t n_alarms, n_healing;
    struct blob *piece;
    int64_t snapshot_size;
    bool done_all;

    /* the core's */
    struct list node;
    uint64_t deadline_ms;
    bool own; /* nobody else has asked for it */
    void *client;
    void (*client_done)(struct core_request *r);
    struct core_link link;
};

/* Drops the references and the arena's memory; the struct itself stays the caller's. */
void core_request_release(struct core_request *r);

struct core_config {
    struct consensus_config consensus;
    struct store_options store;
    const char *name;
    const char *const *client_urls; /* published to the others */
    size_t n_client_urls;
    /* The leader compacts by itself, as etcd's --auto-compaction-mode: keeps so many revisions, or what is younger
     * than so many milliseconds; 0 = off. */
    int64_t auto_compaction_revisions;
    uint64_t auto_compaction_ms;
    /* Members compare hashes of their states (core_check.c): every check_ms (0 = not by itself), a tenth of it after the start and
     * while they differ; and after a compaction, at least compact_check_ms after the check before (0 = not for that). */
    uint64_t check_ms, compact_check_ms;
    uint64_t lease_checkpoint_ms; /* how often the leader notes what is left of leases longer than that; 0 = five minutes */
    size_t long_apply_keys;  /* a deletion or revocation of more keys is applied in steps; 0 = 20,000 */
    size_t range_slice_keys; /* a long read brings at most so many at once; 0 = LIMIT_RANGE_SLICE */
    /* Changes of the members: etcd's --strict-reconfig-check (refused if a majority would not be running), --max-learners. */
    bool any_reconfig;
    size_t max_learners; /* 0 = 1 */
};

struct core_events {
    /* Changes of the store, in order; a reference is the receiver's to take. */
    void (*live)(void *ctx, struct event_batch *batch);
    /* The store was replaced by a snapshot and is at `revision` now. */
    void (*reset)(void *ctx, int64_t revision);
    /* Consensus or the state machine cannot go on. */
    void (*fatal)(void *ctx, int error, const char *text);
    void (*leader_changed)(void *ctx, uint64_t leader_id, bool is_self);
    /* May be NULL. This member became a learner, or a voter. */
    void (*learner_changed)(void *ctx, bool learner);
    /* May be NULL. The others found this member's state wrong: every client is refused (ERR_CORRUPT) until they agree again. */
    void (*refusing)(void *ctx, bool on);
    /* What the state machine goes through, for the simulation's checks; may be NULL: an entry is about to be applied;
     * it has been, wholly; the state is that of a snapshot at `index`. */
    void (*applying)(void *ctx, uint64_t index, uint64_t term, struct slice entry);
    void (*applied)(void *ctx, uint64_t index);
    void (*restored)(void *ctx, uint64_t index);
};

int core_open(const struct core_config *config, struct env *env, const struct core_events *events, void *ctx,
              struct core **ret, struct err *e) MUST_CHECK;
/* Answers everything with ERR_STOPPED, then closes consensus. */
void core_close(struct core *c, void (*closed)(void *ctx), void *ctx);

/* `done` may come before this returns (a serializable read). */
void core_submit(struct core *c, struct core_request *r);
/* To be called once per loop turn, after all submits: sends the batch that has formed. */
void core_flush(struct core *c);
/* To be called about every 100 ms: time-outs, lease clocks, auto compaction. */
void core_tick(struct core *c);

/* Closes the handle of a CORE_CURSOR_CLOSE or CORE_SNAPSHOT_CLOSE whose core is closed already: a handle may outlive it. Others are left alone. */
void core_close_handle(struct core_request *r);

int64_t core_revision(const struct core *c);
const struct store *core_store(const struct core *c);
const struct consensus *core_consensus(const struct core *c);

#endif
