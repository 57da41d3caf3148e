/* The state machine: an MVCC keyspace with etcd v3's semantics, its revision log, leases, alarms and
 * member attributes.
 *
 * Pure: no threads, I/O, clock or randomness. The same commands in the same order make the same
 * state on every member, whatever ran between them. One thread (the core) calls everything here;
 * only records and event batches (record.h) leave it.
 *
 * How it is made:
 *  - an ordered index over the live and deleted-but-not-compacted keys, with subtree counts, so that
 *    a count and the n-th key are O(log n);
 *  - each key points to its newest record, records link to the older ones;
 *  - the revision log lists all records in order of (revision, sub); compaction cuts its head.
 * Memory beyond keys and values is meant to be under 100 bytes a key. Nothing allocated in apply may
 * fail softly: out of memory there stops the process (mem_must_alloc).
 *
 * Source of the semantics: etcd's api/etcdserverpb/rpc.proto and server/storage/mvcc. */
#ifndef PINTLE_STORE_STORE_H
#define PINTLE_STORE_STORE_H

#include "base/arena.h"
#include "base/err.h"
#include "schemas/command.h"
#include "store/record.h"

struct store;

struct store_options {
    int64_t quota_bytes; /* 0 = LIMIT_QUOTA_BYTES_DEFAULT; must be the same on all members */
};

struct store *store_new(const struct store_options *options);
/* NULL is fine. Cursors, hashes and snapshots still open say ERR_CLOSED (a hash: done) from then on, and are closed as ever. */
void store_free(struct store *s);

/* ---- results -------------------------------------------------------------------------------- */

/* All arrays live in the arena given to the call; the records in them are references that
 * result_release drops. A result may be released on another thread than the core's. */
struct range_result {
    struct record **records;
    size_t n;
    int64_t count; /* keys in the range, regardless of the limit */
    bool more;
};

struct op_result {
    enum op_type type;
    union {
        struct range_result range;
        struct {
            struct record *prev; /* only if asked for and there was one */
        } put;
        struct {
            int64_t deleted;
            struct record **prevs; /* only if asked for */
            size_t n_prevs;
        } del;
        struct {
            bool succeeded;
            struct op_result *results;
            size_t n;
        } txn;
    };
};

struct result {
    int code;         /* 0 or an ERR_ of the operation itself */
    int64_t revision; /* of the store after it (header.revision) */
    enum command_type type;
    union {
        struct op_result op; /* COMMAND_OP */
        struct {
            int64_t id, ttl;
        } lease; /* COMMAND_LEASE_GRANT */
    };
};

void result_release(struct result *r);

/* ---- changing ------------------------------------------------------------------------------- */

/* Applies one committed command. A refused one (compare of a missing lease, compacted revision, no
 * space ...) leaves the state as it was and says so in ret->code; the revision stays. A txn that
 * changes nothing does not make a revision either. Never fails otherwise. */
void store_apply(struct store *s, const struct command *c, struct arena *a, struct result *ret);

/* A command that changes many keys at once (a deletion, also in a txn; a revocation) in steps of so many: the same in the end. Only of commands
 * that are long. Command, arena and result are borrowed until a step says true, which frees the handle; until then the store must
 * not be changed otherwise (no apply, no work), and not be read at the present: what is shown up to store_revision - cursors,
 * history, hashes, snapshots - stays as it is. */
struct store_apply;
bool store_apply_is_long(const struct store *s, const struct command *c, size_t keys);
struct store_apply *store_apply_begin(struct store *s, const struct command *c, struct arena *a, struct result *ret);
bool store_apply_step(struct store_apply *p, size_t max_keys);

/* The changes since the last call as one batch (one reference, the caller's), or NULL if none. The
 * core calls it after each entry. */
struct event_batch *store_take_events(struct store *s);

/* Does up to `budget` small steps of deferred work (freeing compacted versions); true if more is
 * left. Never changes anything that a read, a hash or a snapshot shows. */
bool store_work(struct store *s, unsigned budget);

/* ---- reading -------------------------------------------------------------------------------- */

int64_t store_revision(const struct store *s);         /* 1 in an empty store, as etcd */
int64_t store_compact_revision(const struct store *s); /* -1 before the first, as etcd's HashKV shows it */
/* Bytes of keys, values and bookkeeping: what Status calls dbSize, and what is in use of it. */
int64_t store_size(const struct store *s);
int64_t store_size_in_use(const struct store *s);
int64_t store_keys(const struct store *s); /* live keys */

/* A read at the present (op->revision <= 0) or an earlier revision: 0, ERR_COMPACTED, ERR_FUTURE_REV
 * or ERR_NOMEM. */
int store_range(struct store *s, const struct range_op *op, struct arena *a,
                struct range_result *ret) MUST_CHECK;
/* A txn that writes nothing (txn_op_read_only), without a log entry. */
void store_txn_read(struct store *s, const struct txn_op *txn, struct arena *a, struct result *ret);

/* A range read in slices at one pinned revision while writes go on: compaction does not free what a
 * pinned revision still shows. For key order without filters only (sort and min/max fields unset);
 * `limit` counts over all slices. */
struct store_cursor;
int store_cursor_open(struct store *s, const struct range_op *op, struct store_cursor **ret) MUST_CHECK;
int64_t store_cursor_revision(const struct store_cursor *c);
/* At most `max_records` and about `max_bytes` more; ret->count is set in the first slice only,
 * ret->more says whether calling again brings more. */
int store_cursor_next(struct store_cursor *c, size_t max_records, size_t max_bytes, struct arena *a,
                      struct range_result *ret) MUST_CHECK;
void store_cursor_close(struct store_cursor *c); /* NULL is fine */

/* History: whole revisions from `from_rev` on, up to `to_rev` inclusive, until `max_events` or
 * `max_bytes` is passed (at least one revision). ERR_COMPACTED if from_rev < the compact revision
 * (as etcd: watching from the compact revision itself is allowed); *ret = NULL if there is nothing. */
int store_events(struct store *s, int64_t from_rev, int64_t to_rev, size_t max_events, size_t max_bytes,
                 struct event_batch **ret) MUST_CHECK;

/* etcd's HashKV: CRC-32C over what a member's backend would hold from the compact revision to
 * `revision` (0 = the newest), equal to etcd's own for the same history. In slices. ERR_COMPACTED below the
 * compact revision, ERR_FUTURE_REV, ERR_NOMEM. */
struct store_hash;
int store_hash_open(struct store *s, int64_t revision, struct store_hash **ret) MUST_CHECK;
/* About `max_bytes` more; true when done. */
bool store_hash_step(struct store_hash *h, size_t max_bytes);
uint32_t store_hash_value(const struct store_hash *h);
int64_t store_hash_revision(const struct store_hash *h);
int64_t store_hash_compact_revision(const struct store_hash *h);
void store_hash_close(struct store_hash *h);

/* A hash of the whole state at the call, equal on all members that have applied the same commands: what a snapshot holds and
 * what reads find. In slices, from memory as it is then, while applies go on. */
#define STORE_CHECK_VERSION 2 /* raised when it comes out otherwise than before: members of two versions are not compared */
struct store_check;
struct store_check *store_check_open(struct store *s);
/* About `max_bytes` more; true when done. */
bool store_check_step(struct store_check *c, size_t max_bytes);
uint64_t store_check_value(const struct store_check *c); /* once done */
int64_t store_check_revision(const struct store_check *c);
void store_check_close(struct store_check *c); /* NULL is fine */

/* ---- leases, alarms, members ----------------------------------------------------------------- */
/* Time is not known here: the core keeps the clocks of leases and proposes their revocation. */

struct lease_info {
    int64_t id, ttl;        /* as granted, seconds */
    int64_t remaining_ttl;  /* last checkpoint; 0 = none */
    size_t n_keys;
};

bool store_lease(const struct store *s, int64_t id, struct lease_info *ret);
/* Ids in ascending order behind `after` (0 = from the first); returns how many were written. */
size_t store_leases(const struct store *s, int64_t after, int64_t *ids, size_t max);
/* The keys attached, in key order, copied into `a`. ERR_LEASE_NOTFOUND or ERR_NOMEM. */
int store_lease_keys(const struct store *s, int64_t id, struct arena *a, struct slice **ret, size_t *ret_n);
/* Called at the end of each apply that granted or revoked a lease; and once from inside here if there are leases already, as in a
 * loaded store (id 0: look at them all). */
void store_on_lease(struct store *s, void (*changed)(void *ctx, int64_t id, bool granted), void *ctx);

struct alarm {
    uint64_t member_id; /* CORRUPT by a comparison: 0 = it is not known whose state is wrong */
    enum alarm_type alarm;
};
size_t store_alarms(const struct store *s, struct alarm *alarms, size_t max);
/* Whether a comparison of states (COMMAND_VERDICT) raised CORRUPT for that member and has not cleared it. */
bool store_member_corrupt(const struct store *s, uint64_t member_id);

struct member_attributes {
    uint64_t member_id;
    struct slice name;
    const struct slice *client_urls;
    size_t n_client_urls;
};
/* Borrowed until the next apply. false if that member has not published any. */
bool store_member_attributes(const struct store *s, uint64_t member_id, struct member_attributes *ret);
/* The next member behind `id`, in order of ids, of whom anything is remembered: attributes, or an alarm that a comparison raised.
 * 0 = none. */
uint64_t store_member_after(const struct store *s, uint64_t id);

/* ---- snapshots ------------------------------------------------------------------------------- */
/* A snapshot is a byte stream (docs/formats.md): header, the history from the compact revision on
 * (all records in revision order, so that watches resume after a restart), leases, alarms, members,
 * trailer with counts and a checksum. It is cut at the revision of `open` while applies go on. */

struct store_snapshot;
struct store_snapshot *store_snapshot_open(struct store *s);
/* Appends about `max_bytes` to `out`; *ret_done when that was the end. ERR_NOMEM. */
int store_snapshot_next(struct store_snapshot *snap, size_t max_bytes, struct buf *out,
                        bool *ret_done) MUST_CHECK;
void store_snapshot_close(struct store_snapshot *snap);

/* The other way, into a new store, fed with pieces of any size. A damaged stream is ERR_CORRUPT with the
 * offset in `e`. `finish` hands over the store only if the stream was whole. */
struct store_loader;
struct store_loader *store_loader_new(const struct store_options *options);
int store_loader_feed(struct store_loader *l, struct slice piece, struct err *e) MUST_CHECK;
int store_loader_finish(struct store_loader *l, struct store **ret, struct err *e) MUST_CHECK;
void store_loader_free(struct store_loader *l);

#endif
