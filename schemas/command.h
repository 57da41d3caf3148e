/* What changes or reads the state machine: the operations of etcd's v3 API in plain structs, and the
 * msgpack codec by which the changing ones travel in the Raft log.
 *
 * The structs borrow all bytes. Field meanings are those of etcd's rpc.proto; a field of the same
 * name means the same. The encoding is a msgpack array per command: [type, fields...], read by
 * position; a reader accepts longer arrays than it knows (a newer member's) only for types that it
 * knows, and refuses unknown types with ERR_UNSUPPORTED.
 *
 * No threads, no I/O. Limits: LIMIT_TXN_OPS per txn and nested txn, LIMIT_TXN_DEPTH. */
#ifndef PINTLE_SCHEMAS_COMMAND_H
#define PINTLE_SCHEMAS_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/slice.h"

enum sort_order { SORT_NONE, SORT_ASCEND, SORT_DESCEND };
enum sort_target { SORT_KEY, SORT_VERSION, SORT_CREATE, SORT_MOD, SORT_VALUE };

/* `range_end` as in etcd: empty = the one key; "\0" = from key to the end of the keyspace; with key
 * "\0" too = everything. */
struct range_op {
    struct slice key, range_end;
    int64_t limit;    /* 0 = none */
    int64_t revision; /* <= 0 = the newest */
    enum sort_order sort_order;
    enum sort_target sort_target;
    bool serializable, keys_only, count_only;
    int64_t min_mod_revision, max_mod_revision, min_create_revision, max_create_revision; /* 0 = any */
};

struct put_op {
    struct slice key, value;
    int64_t lease;
    bool prev_kv, ignore_value, ignore_lease;
};

struct delete_op {
    struct slice key, range_end;
    bool prev_kv;
};

enum compare_result { COMPARE_EQUAL, COMPARE_GREATER, COMPARE_LESS, COMPARE_NOT_EQUAL };
enum compare_target { COMPARE_VERSION, COMPARE_CREATE, COMPARE_MOD, COMPARE_VALUE, COMPARE_LEASE };

struct compare {
    enum compare_result result;
    enum compare_target target;
    struct slice key, range_end;
    int64_t number;      /* VERSION, CREATE, MOD, LEASE */
    struct slice value;  /* VALUE */
};

enum op_type { OP_RANGE = 1, OP_PUT, OP_DELETE, OP_TXN };

struct txn_op;

struct op {
    enum op_type type;
    union {
        struct range_op range;
        struct put_op put;
        struct delete_op del;
        struct txn_op *txn;
    };
};

struct txn_op {
    struct compare *compares;
    size_t n_compares;
    struct op *success, *failure;
    size_t n_success, n_failure;
};

enum command_type {
    COMMAND_OP = 1,       /* put, delete or txn in `op` (a lone range is not a command) */
    COMMAND_COMPACT,      /* revision */
    COMMAND_LEASE_GRANT,  /* lease id (never 0 here: the proposer chose), ttl in seconds */
    COMMAND_LEASE_REVOKE, /* lease id; also how the leader expires a lease */
    COMMAND_LEASE_CHECKPOINT, /* remaining seconds of some leases, for the next leader */
    COMMAND_ALARM,        /* activate or clear an alarm of a member */
    COMMAND_MEMBER_ATTRIBUTES, /* a member publishes its name and client URLs; neither: it is gone, and its alarms with it */
    COMMAND_CHECK,        /* every member hashes its state as it is at this place in the log */
    COMMAND_CHECK_REPORT, /* ... and tells the hash */
    COMMAND_VERDICT,      /* what the leader makes of the reports: raises or clears a member's CORRUPT alarm */
};

enum alarm_type { ALARM_NONE, ALARM_NOSPACE, ALARM_CORRUPT };

struct lease_checkpoint {
    int64_t id, remaining_ttl;
};

struct command {
    enum command_type type;
    union {
        struct op op;
        struct {
            int64_t revision;
        } compact;
        struct {
            int64_t id, ttl;
        } lease_grant;
        struct {
            int64_t id;
        } lease_revoke;
        struct {
            struct lease_checkpoint *leases;
            size_t count;
        } checkpoint;
        struct {
            uint64_t member_id;
            enum alarm_type alarm;
            bool activate;
        } alarm;
        struct {
            uint64_t member_id;
            struct slice name;
            struct slice *client_urls;
            size_t n_client_urls;
        } member;
        struct { /* COMMAND_CHECK, COMMAND_CHECK_REPORT, COMMAND_VERDICT */
            uint64_t version;   /* CHECK only: of the way to hash; who does not know it makes no report */
            uint64_t member_id; /* VERDICT: 0 = it is not known whose state is wrong */
            uint64_t index;     /* of the entry with the COMMAND_CHECK */
            uint64_t state, log; /* hashes: of the state; of the entries since the check before, 0 = not all seen */
            bool corrupt;       /* VERDICT only; then state and log are what that member reported */
        } check;
    };
};

/* Appends the command's msgpack; check out->failed. The command must be valid (command_check). */
void command_encode(struct buf *out, const struct command *c);
/* Decodes one command that fills `in` exactly. Bytes are borrowed from `in`, arrays come from `a`.
 * ERR_CORRUPT, ERR_UNSUPPORTED, ERR_LIMIT or ERR_NOMEM. */
int command_decode(struct arena *a, struct slice in, struct command *ret) MUST_CHECK;

/* Whether a request may be proposed at all, as etcd checks it before Raft (server/etcdserver/api/v3rpc/key.go):
 * ERR_EMPTY_KEY, ERR_VALUE_PROVIDED, ERR_LEASE_PROVIDED, ERR_TOO_MANY_OPS, ERR_DUPLICATE_KEY (a key put
 * twice, or put and deleted, in one txn), ERR_INVALID_SORT_OPTION, ERR_LEASE_TTL_TOO_LARGE. */
int range_op_check(const struct range_op *op) MUST_CHECK;
int command_check(const struct command *c) MUST_CHECK;
/* Whether a txn writes nothing, and so needs no log entry; and whether all its ranges are serializable. */
bool txn_op_read_only(const struct txn_op *txn);
/* Whether any branch of it puts. */
bool txn_op_puts(const struct txn_op *txn);
bool txn_op_serializable(const struct txn_op *txn);

#endif
