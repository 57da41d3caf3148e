/* Consensus: an ordered log of entries that a majority of members holds on disk, and reads that see
 * all that was acknowledged before them. The only thing that the rest of Pintle sees of Raft; no
 * libraft type crosses it.
 *
 * Threads: everything, callbacks included, on one thread (the core's). Callbacks come in turns of the
 * env, never from inside a call made here, with one exception: `consensus_open` restores the
 * snapshot (restore_*) before it returns. Callbacks must not call consensus_close.
 *
 * Errors: a disk error, or a state that Raft says cannot be, ends in the `fatal` callback, after which
 * nothing else is called; the process is expected to stop. The library never goes on after it.
 *
 * Follows: Ongaro's thesis (3 replication and election, 3.10 transfer, 4 membership, 5 snapshots, 6.4
 * read index, 9.6 pre-vote). docs/raft.md says how libraft 0.15 is held to it. */
#ifndef PINTLE_RAFT_CONSENSUS_H
#define PINTLE_RAFT_CONSENSUS_H

#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"
#include "raft/env.h"

struct consensus;

struct consensus_member {
    uint64_t id; /* never 0 */
    const char *name;
    const char *peer_url;
    bool learner; /* does not count in any majority */
    bool promote; /* a learner that becomes a voter by itself once it has caught up: it was added as a voter */
};

struct consensus_config {
    uint64_t id, cluster_id;
    const struct consensus_member *members; /* of a new cluster; of an existing one they come from disk */
    size_t n_members;
    uint64_t members_index;   /* of one that joins: the committed membership that `members` are (raft/join.h); else 0 */
    bool new_cluster;         /* bootstrap if the data folder is empty; else an empty folder waits to be told */
    unsigned heartbeat_ms;    /* 0 = 100, as etcd */
    unsigned election_ms;     /* 0 = 500 (etcd: 1000), randomised up to twice */
    uint64_t snapshot_log_bytes; /* take a snapshot when the log since the last one is larger than this and
                                    than the last snapshot; 0 = 64 MiB */
    uint64_t trailing_log_bytes; /* of log kept behind a snapshot for slow followers; 0 = 16 MiB */
    unsigned max_appends;     /* entries proposed by this leader and not yet on its disk; 0 = 4 */
    size_t segment_bytes;     /* of the WAL; 0 = 64 MiB */
    uint64_t scrub_interval_ms; /* between two rounds of reading all files again; 0 = an hour; or: */
#define CONSENSUS_NO_SCRUB UINT64_MAX
    uint64_t scrub_rate;      /* bytes a second that a round reads at most; 0 = 16 MiB */
};

enum consensus_role { CONSENSUS_FOLLOWER, CONSENSUS_CANDIDATE, CONSENSUS_LEADER };

struct consensus_callbacks {
    /* A committed entry; each index once and in order, the same on every member. The bytes are borrowed.
     * `own_tag`: what this member gave consensus_propose for it, or 0 if another member did (or this one in
     * an earlier life). */
    void (*apply)(void *ctx, uint64_t index, uint64_t term, struct slice entry, uint64_t own_tag);
    /* A proposal of this member did not make it, as far as is known: ERR_TIMEOUT or ERR_LEADER_CHANGED
     * (it may still be applied later: unknown outcome), ERR_NO_LEADER or ERR_TOO_MANY_REQUESTS (it was
     * never sent: certainly not applied). `apply` may still come with its tag after an unknown one. */
    void (*proposal_failed)(void *ctx, uint64_t tag, int error);
    /* There is room for another proposal again after consensus_propose said ERR_AGAIN. */
    void (*writable)(void *ctx);
    /* leader 0 = none known. On the leader it comes once it may serve: its own entry of this term is committed. */
    void (*leader_changed)(void *ctx, uint64_t leader_id, uint64_t term, bool is_self);
    void (*membership_changed)(void *ctx);
    /* May be NULL. What a member calls itself, if it has said so; for those who want to join. */
    bool (*member_name)(void *ctx, uint64_t member_id, char *ret, size_t size);

    /* Cutting a snapshot of the applied state: open pins it, next appends about max_bytes, in slices between
     * applies. */
    int (*snapshot_open)(void *ctx, void **ret_snapshot);
    int (*snapshot_next)(void *ctx, void *snapshot, size_t max_bytes, struct buf *out, bool *ret_done);
    void (*snapshot_close)(void *ctx, void *snapshot);
    /* Taking one in: begin a new state beside the old one, feed it, and at finish swap it in (the state is then
     * that of `index`); abort throws the new one away. feed and finish: ERR_CORRUPT. */
    int (*restore_begin)(void *ctx, void **ret_restore);
    int (*restore_feed)(void *ctx, void *restore, struct slice piece, struct err *e);
    int (*restore_finish)(void *ctx, void *restore, uint64_t index, struct err *e);
    void (*restore_abort)(void *ctx, void *restore);

    /* A consensus_message of another member. */
    void (*message)(void *ctx, uint64_t from_id, struct slice payload);

    /* ERR_RESTART: to be started again at once (its disk is fine, or will be set aside). */
    void (*fatal)(void *ctx, int error, const char *text);
};

/* Opens or creates the member's state under the env's data folder (wal/, snap/, meta), restores the newest
 * whole snapshot, and replays the log after it through `apply` as it is known to be committed. ERR_CORRUPT
 * names file and offset. Both structs are copied; `env` is borrowed until consensus_close is done. */
int consensus_open(const struct consensus_config *config, struct env *env,
                   const struct consensus_callbacks *callbacks, void *ctx, struct consensus **ret,
                   struct err *e) MUST_CHECK;
/* Lets the disk finish, closes the files, calls `closed`. Frees it. */
void consensus_close(struct consensus *c, void (*closed)(void *ctx), void *ctx);

/* Proposes one entry, from any member: a follower sends it on to the leader. The bytes are copied. `tag` is
 * the caller's, not 0, and comes back in apply or proposal_failed. 0, ERR_AGAIN (wait for `writable`),
 * ERR_NO_LEADER, ERR_LIMIT. At most once: it is never sent twice. */
int consensus_propose(struct consensus *c, struct slice entry, uint64_t tag) MUST_CHECK;

/* A read point, from any member: `done` comes with 0 once this member has applied everything that was
 * acknowledged anywhere before the call (ReadIndex: the leader confirms its term with a majority, no log write).
 * All that wait share one round. Errors as proposal_failed. Embedded by the caller. */
struct consensus_read {
    void (*done)(struct consensus_read *r, int error);
    void *data;
    struct list node; /* ours */
    uint64_t index, seq, deadline_ms;
};
void consensus_read(struct consensus *c, struct consensus_read *r);

/* Sends a message of the caller's own to another member's `message` callback: at most once, may be lost. For
 * what is not replicated (lease renewals on their way to the leader). ERR_CLOSED, ERR_LIMIT. */
int consensus_message(struct consensus *c, uint64_t to_id, struct slice payload) MUST_CHECK;

/* Moves leadership; only on the leader (ERR_NOT_LEADER). `done`: 0 or ERR_TIMEOUT. One at a time. */
int consensus_transfer(struct consensus *c, uint64_t to_id, void (*done)(void *data, int error),
                       void *data) MUST_CHECK;

struct consensus_status {
    uint64_t id, cluster_id, leader_id, term, commit_index, applied_index, last_index, snapshot_index;
    uint64_t log_bytes, snapshot_bytes;
    enum consensus_role role;
    bool ready; /* has applied all that was committed when it started, and knows a leader */
    bool recovering; /* its log and snapshots were set aside, and are not all back */
    uint64_t fsyncs, fsync_us_total, proposals, proposals_failed, appends, snapshots_taken, snapshots_sent,
        snapshots_installed, leader_changes, read_rounds, masked_defects, healed;
    uint64_t scrub_bytes, scrub_rounds, scrub_errors; /* read again, how often all of it, damage found in it */
    uint64_t set_aside; /* files of an earlier damage that lay in the folder when it was opened */
};
void consensus_get_status(const struct consensus *c, struct consensus_status *ret);

/* The committed voters and learners, borrowed until the next turn. */
size_t consensus_members(const struct consensus *c, const struct consensus_member **ret);
/* On the leader: how far a member's log is known to match; 0 if unknown. */
uint64_t consensus_match_index(const struct consensus *c, uint64_t member_id);

/* On the leader: whether the member has answered within an election timeout. */
bool consensus_answers(const struct consensus *c, uint64_t member_id);

/* ---- membership ------------------------------------------------------------------------------- */

enum consensus_change_op {
    CONSENSUS_ADD,     /* a learner, or (learner = false) a voter: a learner that is promoted by itself once it has
                          caught up, whoever leads then */
    CONSENSUS_PROMOTE, /* a learner that has caught up with the leader: ERR_AGAIN if it has not */
    CONSENSUS_REMOVE,
    CONSENSUS_UPDATE,  /* another peer URL of the same member */
};
struct consensus_change {
    enum consensus_change_op op;
    struct consensus_member member; /* id, which must never have been a member's; peer_url (and name) for ADD, peer_url for UPDATE */
};
/* Changes the membership by one member; only on the leader, after its own entry of the term is committed
 * (ERR_NOT_LEADER), one at a time (ERR_BUSY). At once: ERR_EXISTS (id or peer URL), ERR_MEMBER_NOT_FOUND, ERR_CONFLICT (PROMOTE of
 * a voter), ERR_AGAIN, ERR_LIMIT, ERR_INVALID (the URL; the last voter's removal). `done`: 0 when it is committed,
 * ERR_TIMEOUT or ERR_LEADER_CHANGED when its outcome is unknown. A leader that is asked to remove itself hands leadership over and ends
 * with ERR_LEADER_CHANGED: the next leader is to be asked again. Strings are copied. `membership_changed` comes on every
 * member; consensus_members are those of the newest committed membership.
 *
 * A member that was removed is told by the others as soon as it reaches one: it notes that in its folder, and ends in `fatal` with
 * ERR_REMOVED, as does every later consensus_open of that folder. */
int consensus_change(struct consensus *c, const struct consensus_change *change,
                     void (*done)(void *data, int error), void *data) MUST_CHECK;

/* ---- a state that is not to be believed --------------------------------------------------------- */

/* What this member holds was found to be wrong (a scrub, a comparison with the others). Noted durably, then `fatal`
 * with ERR_RESTART and `why`: the next consensus_open sets log and snapshots aside and begins without them; the
 * others bring them back (docs/raft.md: healing). A single member stops with ERR_CORRUPT instead. */
void consensus_distrust(struct consensus *c, const char *why);

/* Whether the member's log and snapshots were set aside and are not all back, as it has told this one; of this one, as it is. What
 * was never heard of it is not known: false. */
bool consensus_heals(const struct consensus *c, uint64_t member_id);

/* Takes a snapshot now, whatever the log's size; ERR_BUSY while one is under way. */
int consensus_snapshot(struct consensus *c) MUST_CHECK;

/* Offline: fills an empty data folder so that a member of a new cluster starts from this state: a snapshot at
 * index 2, term 1, whose configuration is `config->members`. `read` brings the store's stream piece by piece
 * (0 bytes = the end). */
int consensus_write_restored(const struct consensus_config *config, struct env *env,
                             int (*read)(void *ctx, struct buf *out, struct err *e), void *ctx,
                             struct err *e) MUST_CHECK;

/* Ids as etcd makes them: 8 bytes of a SHA-1 over sorted peer URLs, the cluster token (and the name's place).
 * The same flags on all members give the same ids everywhere. */
uint64_t consensus_member_id(const char *const *peer_urls, size_t n, const char *cluster_token);
uint64_t consensus_cluster_id(const uint64_t *member_ids, size_t n);

#endif
