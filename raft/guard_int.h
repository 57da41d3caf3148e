/* Between libraft 0.15 and whatever raft_io it runs on: holds it to the thesis. docs/raft.md has
 * the table of what libraft does wrong, which bit here masks it and which test fails without it.
 *
 * The guard is itself a raft_io. It looks at every message, append, snapshot and tick on its way in
 * either direction, and lets pass, holds back, changes or drops it. It may look into struct raft,
 * which 0.15 makes public. It has no timers and no I/O of its own, so that it runs over
 * raft/fixture.h too. */
#ifndef PINTLE_RAFT_GUARD_INT_H
#define PINTLE_RAFT_GUARD_INT_H

#include <raft.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/list.h"

enum guard_mask {
    GUARD_BARRIER =
        1 << 0, /* an entry of the own term before anything else leaves; no commit by counting */
    GUARD_CLIP = 1 << 1, /* an acknowledgement covers only what was verified */
    GUARD_HOLD = 1 << 2, /* the leader's own appends count when a quorum of peers has them */
    GUARD_STALE_RESULT = 1 << 3, /* no acknowledgement to a leader of another term */
    GUARD_APPENDING = 1 << 4,    /* no election while appends are in flight */
    GUARD_INSTALLING = 1 << 5,   /* no election, no vote while a snapshot is installed */
    GUARD_CONFIGURATION =
        1 << 6, /* which configuration counts, and which is committed, follows the log */
    GUARD_DRAIN = 1 << 7, /* appends finish before another term's entries or a snapshot come */
    GUARD_DOUBLE_VOTE = 1 << 8,  /* one vote a term, also for the target of a transfer */
    GUARD_COMMIT_CLAMP = 1 << 9, /* a follower commits no further than the message verifies */
    GUARD_COMPACTED = 1 << 10,   /* entries that a snapshot already covers are not appended again */
    GUARD_STALE_LEADER =
        1 << 11,              /* a leader not heard from for an election timeout protects no one */
    GUARD_TRANSFER = 1 << 12, /* TimeoutNow is repeated until it is answered */
    GUARD_PROBE_BACK =
        1 << 13, /* a failed send does not send a peer back to index 1 or out of a snapshot */
    GUARD_SAME_TERM = 1 << 14, /* a second leader of the own term is not believed */
    GUARD_PRE_VOTE = 1 << 15,  /* each new attempt of a candidate begins with a pre-vote */
    GUARD_LEARNER_VOTE = 1 << 16, /* a vote for a candidate that knows of this member's promotion */
    GUARD_PRE_VOTE_TERM = 1 << 17, /* who refuses a pre-vote says its own term */
    GUARD_SOLE_VOTER = 1 << 18, /* who elects itself alone does so in a new term */
    GUARD_ALL = (1 << 19) - 1,
};

/* Tests turn masks off with it before guard_init; GUARD_ALL everywhere else. */
extern unsigned guard_masks;

#define GUARD_MESSAGES_MAX 64 /* held back; beyond, they are lost as on a network */

struct guard_ack {
    raft_id id;
    raft_index last_index;
};

struct guard {
    struct raft_io io;  /* what libraft is given */
    struct raft_io *in; /* what really does it */
    struct raft *r;
    unsigned masks;
    void *ctx;
    void (*after)(void *ctx); /* libraft was called: look at its state. May be NULL */
    void (*fatal)(void *ctx, const char *text);

    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    unsigned depth; /* of calls into libraft */
    bool dead, in_after, abandoned;

    raft_term barrier_term; /* the term whose barrier is in the log */
    raft_index barrier_index;
    bool barrier_committed;
    struct raft_barrier barrier;
    struct guard_ack acks[LIMIT_MEMBERS]; /* wait for the barrier to be on the own disk */
    unsigned n_acks;

    struct list appends; /* struct guard_append, in order */
    unsigned n_appends;
    bool draining;
    struct list messages; /* struct guard_message, held back in order */
    unsigned n_messages;

    enum { GUARD_CTX_NONE, GUARD_CTX_REPLY, GUARD_CTX_APPENDED, GUARD_CTX_INSTALLED } context;
    raft_index clip;
    raft_term context_term;

    bool installing;
    bool abstains; /* from votes and elections: heal.c says why */

    struct raft_configuration base; /* of the newest snapshot */
    raft_index base_index;
    raft_io_close_cb close_cb;
    struct raft_io_snapshot_put *put;
    raft_io_snapshot_put_cb put_cb;
    struct raft_io_snapshot_put inner_put;
    uint64_t masked; /* how often a mask did something */
};

/* How libraft sends the log to a peer: raft_progress.state, whose names it does not export. */
enum guard_sending { GUARD_PROBE, GUARD_PIPELINE, GUARD_SNAPSHOT };

/* What a leader knows of another member's log. */
struct guard_progress {
    enum guard_sending sending;
    raft_index has; /* acknowledged, or the index of the snapshot that is on its way; 0 if not known */
    bool heard;     /* in the last election timeout */
};

void guard_init(struct guard *g, struct raft_io *in, struct raft *r);
/* Calls `after` and does what libraft's new state asks for; to be called after every call into
 * libraft that did not come through the guard. */
void guard_poll(struct guard *g);
/* Leader, and an entry of its own term is committed. */
bool guard_may_serve(const struct guard *g);
/* Lets go of what is held back, when the instance is being closed. */
void guard_release(struct guard *g);

/* Gives back an instance that was initialised and never started. */
void guard_abandon(struct guard *g);

/* False if this member does not lead, or `id` is no member. */
bool guard_progress(const struct guard *g, raft_id id, struct guard_progress *ret);

/* On the leader: a peer has lost what it acknowledged. */
void guard_forget_progress(struct guard *g, raft_id id);

/* ---- guard_members.c ---- */
void guard_members_started(struct guard *g);
void guard_members_snapshot(struct guard *g, const struct raft_snapshot *s);
void guard_members_installed(struct guard *g);
/* The log is about to be cut at `first`: whether a configuration goes with it. */
bool guard_members_cut(struct guard *g, raft_index first);
/* Whether libraft has to be told that this member, which is no voter to its own knowledge, may vote. */
bool guard_members_may_vote(struct guard *g, struct raft_server **ret_self);
void guard_members_release(struct guard *g);
/* The newest committed configuration; the caller closes it. Its index, 0 if there is none yet. */
raft_index guard_committed_configuration(const struct guard *g, struct raft_configuration *ret);
/* Whether the log has come to a configuration that was committed at that index. */
bool guard_holds_configuration(const struct guard *g, raft_index index);
/* Whether `member` became or stayed one by what is committed there: so this log says, or that something else is there, or nothing any more. */
enum guard_history { GUARD_HISTORY_SAME, GUARD_HISTORY_OTHER, GUARD_HISTORY_UNKNOWN };
enum guard_history guard_was_member(const struct guard *g, raft_index index, raft_id member);
/* On a leader that may serve: makes `next` the configuration by one entry of the log. ERR_BUSY: one is under way, or a transfer. */
int guard_change(struct guard *g, struct raft_change *req, const struct raft_configuration *next,
                 raft_change_cb cb) MUST_CHECK;

/* The term of an entry of libraft's log, 0 if it is not there. */
raft_term guard_log_term(const struct raft *r, raft_index index);

#endif
