/* The inside of the store, shared by its files. Read docs/store.md first. */
#ifndef PINTLE_STORE_STORE_INT_H
#define PINTLE_STORE_STORE_INT_H

#include "base/list.h"
#include "store/index_int.h"
#include "store/lease_int.h"
#include "store/rlog_int.h"
#include "store/slab_int.h"
#include "store/store.h"

/* What a version, a lease count for in sizes: near what they take, but the same on every member. */
enum { RECORD_COST = 100, LEASE_COST = 64 };
#define RECORD_SUB_MAX 0x3fffffffu

/* Keeps what revision `rev` shows from being freed. Embedded in cursors, hashes and snapshots. */
struct pin {
    struct list node;
    struct store *store; /* NULL once the store is gone */
    int64_t rev;
};

struct member_record {
    uint64_t id;
    struct slice name;
    struct slice *urls;
    size_t n_urls;
};

struct alarm_record {
    struct alarm alarm;
    bool automatic; /* raised by the quota or a comparison of states: clears itself; blocks nothing by itself, but for CORRUPT of
                       member 0 */
};

struct store {
    int64_t quota;
    struct slab_heap *slabs; /* the records' memory */
    int64_t revision, compact_rev;
    struct index index;
    struct rlog log;
    struct rlog_sums sums;      /* of the whole history */
    struct rlog_sums compacted; /* as they were at compact_rev */
    int64_t held;               /* cost of all records in the log, freed or not yet */
    struct lease_table leases;
    uint32_t sub; /* next place within the revision under way */

    struct list pins;
    struct list checks; /* open, whose walk may still come to leases */
    int64_t work_target; /* compaction up to here may have happened in memory */
    int64_t work_rev;    /* the next record it looks at */
    uint32_t work_sub;

    struct event_batch *events; /* since the last store_take_events */
    size_t events_size;

    struct alarm_record *alarms;
    size_t n_alarms;
    struct member_record *members;
    size_t n_members;

    void (*lease_changed)(void *ctx, int64_t id, bool granted);
    void *lease_ctx;
};

static inline int64_t record_cost(const struct record *r)
{
    return RECORD_COST + (int64_t)r->key_len + r->value_len;
}

static inline int64_t live_cost(const struct record *r)
{
    return r && !r->tombstone ? record_cost(r) : 0;
}

void pin_open(struct pin *p, struct store *s, int64_t rev);
void pin_close(struct pin *p); /* twice is fine */
/* Of a pin at the compact revision: whether the record is part of what compaction there leaves, be the rest freed already or
 * not. */
bool pin_holds(const struct pin *p, const struct record *r);

/* The version of a key that revision `rev` shows, tombstone or not, from any newer one; NULL =
 * none. */
static inline struct record *version_at(struct record *newest, int64_t rev)
{
    while (newest && newest->mod_rev > rev) newest = newest->older;
    return newest;
}

/* Whether `r` is its key's newest version at revision `rev`. */
bool is_newest_at(const struct store *s, const struct record *r, int64_t rev);

/* What a watcher is shown as the version before; NULL if there was none or it is compacted. */
struct record *previous_of(const struct store *s, const struct record *r);

/* range.c: reads. `rev` is INT64_MAX for the present. */
struct view {
    const struct store *store;
    struct arena *arena;
    int64_t rev;
};

bool range_is_single(struct slice range_end);
/* Whether `key` lies before the end. */
bool range_has(struct slice range_end, struct slice key);
int64_t range_count(const struct view *v, struct slice key, struct slice range_end);
/* ERR_NOMEM or 0. Takes references. */
int range_read(const struct view *v, const struct range_op *op,
               struct range_result *ret) MUST_CHECK;

/* txn.c: the parts of a txn that read. Builds the result tree with the branch taken, from the state
 * as it is. */
int txn_plan(const struct view *v, const struct txn_op *txn, struct op_result *ret) MUST_CHECK;
/* What etcd checks before it lets a txn write: 0 or the refusal. */
int txn_check_puts(const struct store *s, const struct txn_op *txn,
                   const struct op_result *plan) MUST_CHECK;
int txn_check_ranges(const struct store *s, const struct txn_op *txn,
                     const struct op_result *plan) MUST_CHECK;
int64_t txn_cost(const struct txn_op *txn, const struct op_result *plan);
static inline const struct op *txn_branch(const struct txn_op *txn, const struct op_result *plan)
{
    return plan->txn.succeeded ? txn->success : txn->failure;
}

/* write.c: one change within the revision under way. */
/* From the arena; never NULL: applying must not fail. */
void *apply_alloc(struct arena *a, size_t size);
void apply_out_of_memory(void) __attribute__((noreturn));
void write_put(struct store *s, const struct put_op *op, struct op_result *ret);
void write_delete(struct store *s, struct arena *a, const struct delete_op *op,
                  struct op_result *ret);
/* The same in steps, between which the index must not change otherwise. */
struct deletion {
    const struct delete_op *op;
    struct op_result *ret;
    struct index_path path;
    struct record *next; /* not looked at yet */
    int64_t left;        /* live keys still to delete */
};
void deletion_begin(struct store *s, struct arena *a, const struct delete_op *op, struct op_result *ret,
                    struct deletion *d);
bool deletion_step(struct store *s, struct deletion *d, size_t max_keys); /* true when done */
void write_tombstone(struct store *s, struct index_path *path, struct record *newest);
/* Appends a finished record: log, sums and the event. `prev` is the key's version before. */
void write_log(struct store *s, struct record *r, struct record *prev);
/* Ends the revision if anything was written; returns the store's revision. */
int64_t write_end(struct store *s);

/* compact.c */
int compact(struct store *s, int64_t rev) MUST_CHECK;

/* check.c: the lease is about to change, or has changed (`after`). */
void store_check_lease(const struct store *s, const struct lease *l, bool after);

/* alarm.c */
/* 0 or ERR_NO_SPACE for a write that adds `cost` bytes. Raises the alarm. */
int quota_check(struct store *s, int64_t cost) MUST_CHECK;
/* Clears the quota's alarm when there is room again. */
void quota_relax(struct store *s);
/* 0, or what an alarm refuses the command with. */
int alarm_refusal(const struct store *s, const struct command *c) MUST_CHECK;
void alarm_apply(struct store *s, uint64_t member_id, enum alarm_type type, bool activate);
void alarm_add(struct store *s, struct alarm alarm, bool automatic);
void verdict_apply(struct store *s, uint64_t member_id, bool corrupt);
int member_apply(struct store *s, uint64_t id, struct slice name, const struct slice *urls,
                 size_t n) MUST_CHECK;
void members_release(struct store *s);

#endif
