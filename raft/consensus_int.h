/* What the files of raft/ share behind consensus.h. One struct, one thread; each file owns its band
 * of it.
 *
 *   consensus.c  opening, turns, status, closing      io.c        the raft_io under the guard
 *   propose.c    proposals and their fate             peers.c     members, and frames to them
 *   readindex.c  read points                          snapshots.c taking, loading and installing
 *   guard.c      libraft held to the thesis           snapstream.c snapshots to and from peers
 *   heal.c       damaged and old states               scrub.c     reading it all again
 *   membership.c changes of the members
 *   wal*.c       the log on disk                      meta.c      term and vote on disk */
#ifndef PINTLE_RAFT_CONSENSUS_INT_H
#define PINTLE_RAFT_CONSENSUS_INT_H

#include "base/limits.h"
#include "raft/consensus.h"
#include "raft/folder_int.h"
#include "raft/frames_int.h"
#include "raft/guard_int.h"
#include "raft/snapfile_int.h"
#include "raft/wal_int.h"

#define CONSENSUS_ENTRY_HEAD 25u /* kind, origin, its life, tag */
#define CONSENSUS_ENTRY_COMMAND 1u
#define CONSENSUS_ENTRY_MAX (LIMIT_PEER_FRAME_BYTES - 64 * LIMIT_KiB)
#define CONSENSUS_UNCOMMITTED_ENTRIES 256u
#define CONSENSUS_UNCOMMITTED_BYTES (64 * LIMIT_MiB)
#define CONSENSUS_INBOX_ENTRIES 1024u
#define CONSENSUS_FRAME_BYTES (LIMIT_MiB)     /* of entries in one frame, or one entry */
#define CONSENSUS_PROBE_BYTES (LIMIT_MiB)     /* to a peer whose log is not known yet */
#define CONSENSUS_CATCH_UP_BYTES (64 * LIMIT_MiB) /* of log kept for one that is being brought up to it */
#define CONSENSUS_PEER_BYTES (16 * LIMIT_MiB) /* of entries on their way to one peer */

struct snapshots;
struct scrub;

/* ---- peers.c --------------------------------------------------------------------------------- */

struct peer {
    uint64_t id;
    char *name, *url, *address; /* address: what libraft calls it, "<url> <name>" */
    bool learner, up; /* learner: is no voter of the newest configuration in the log */
    bool promote;
    /* membership.c: when it last answered this leader, and how well it keeps up with it */
    uint64_t answered_ms, round_term, round_index, round_ms;
    bool caught_up;
    size_t queued_bytes;
    /* proposals forwarded by it: what has been seen of its present life */
    uint64_t propose_life, propose_seq, propose_window;
    /* its read points: one asked, one waiting for the next round */
    uint64_t read_life, read_waiting, read_asked;
    uint64_t probe_seq; /* highest acknowledged in this term */
    /* heal.c: what it told of its present life, and of those before; whether it told what it knows of this member */
    uint64_t life, its_term, its_applied, before_term, before_applied;
    uint64_t acked, acked_term; /* before its present life, to this member as the leader of that term */
    uint64_t hello_term, hello_applied, hello_ms, reset_life, reset_term; /* told to it */
    bool known, heals;
    /* the commit index it was last sent, in which term; and until when it waits for news of it */
    uint64_t told_commit, told_term, wants_commit_ms;
};

/* A frame under way: owns its bytes. */
struct out_frame {
    struct env_send s;
    struct consensus *c;
    uint64_t peer_id;
    size_t bytes;
    void (*done)(struct out_frame *o, int status); /* may be NULL */
    void *arg;
    struct buf head;
    void *payload; /* mem_free'd with it, or NULL */
};

struct peer *peers_find(struct consensus *c, uint64_t id);
/* The peer has sent a proposal or a read: commits are told to it at once for a while (io.c). */
void peers_want_commit(struct consensus *c, struct peer *p);
void io_tell_commit(struct consensus *c);
/* Takes peers from both configurations, and members from the committed one; true if the latter have changed. Who votes is
 * said by the newest; where a member is, too, unless the committed one is `ahead` of it. */
bool peers_update(struct consensus *c, const struct raft_configuration *newest,
                  const struct raft_configuration *committed, bool ahead);
/* A member as libraft's address has it, and back; the caller frees. */
char *peers_address(const struct consensus_member *m);
void peers_member(const struct raft_server *s, struct consensus_member *ret);
void peers_member_release(struct consensus_member *m);
int peers_check(const struct consensus_member *m, struct err *e);
void peers_release(struct consensus *c);
int peers_configuration(const struct consensus_config *config, struct raft_configuration *ret,
                        struct err *e);
bool peers_decode_configuration(struct slice bytes, struct raft_configuration *ret);
struct out_frame *out_new(struct consensus *c, uint64_t peer_id, enum env_channel channel);
/* Adds bytes that outlive the frame (or belong to its payload), then hands it to the env. */
void out_piece(struct out_frame *o, struct slice s);
void out_send(struct out_frame *o);
/* A frame without pieces, and nobody who waits for it. */
void peers_send(struct consensus *c, uint64_t peer_id, enum env_channel channel,
                const struct frame *f);

/* ---- meta.c ---------------------------------------------------------------------------------- */

enum {
    META_DISTRUSTED = 1,  /* log and snapshots are not to be believed: set aside at the next open */
    META_RECOVERING = 2,  /* they were: no elections until all that was acknowledged is here again */
    META_ROLLED_BACK = 4, /* term and vote may be old, too: nothing until every other member was heard */
    META_REMOVED = 8,     /* the cluster goes on without this member, for good */
    META_RESTORED = 16,   /* made from a backup: what there was before does not count */
    META_ALONE = 32,      /* its log began with this member alone */
};
/* What must survive everything: heal.c has the rules of all but term and vote. */
struct meta {
    uint64_t generation; /* +1 with each write; meta.c's */
    uint64_t term, voted_for;
    uint64_t boots; /* how often this member was started on this folder */
    uint32_t flags, n_seen;
    struct meta_seen {
        uint64_t id, boots, life;
    } seen[LIMIT_MEMBERS]; /* the newest start of each other member, as told by it */
    char why[128];         /* of META_DISTRUSTED: what was found, file and offset */
};
/* ERR_NOT_FOUND if there is none yet; ERR_CORRUPT if no copy is whole. A copy that is damaged, missing or old is
 * written again from the other one. */
int meta_read(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *ret,
              struct err *e);
/* Both copies must hold `m`; they are written again if one does not. */
int meta_check(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *m,
               unsigned *ret_bad, struct err *e);
/* Both copies, durable when it returns. */
int meta_write(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *m,
               struct err *e);

/* ---- heal.c ---------------------------------------------------------------------------------- */

struct heal {
    uint64_t open_term, open_index; /* of the folder, when it was opened */
    uint64_t open_ms;
    bool began_recovering;
    uint64_t highest_term; /* of the other voters; where it may have forgotten its own */
    uint64_t leader_term, leader_last; /* what has to be applied before it votes again */
    uint64_t reminded_ms;
    size_t set_aside; /* files that lay in damaged/ when the folder was opened */
};

/* Whether no other member can give this one its state back. */
bool heal_alone(const struct consensus *c);
/* Opening: sets aside what was noted as damaged. */
int heal_open(struct consensus *c, struct err *e);
/* Opening has failed with ERR_CORRUPT: that again, or ERR_RESTART when it has been noted for healing. */
int heal_damaged(struct consensus *c, bool meta_lost, struct err *e);
/* Opening has succeeded: counts the start. */
int heal_opened(struct consensus *c, struct err *e);
bool heal_recovering(const struct consensus *c);
/* Whether libraft may talk with the peer. */
bool heal_gate(const struct consensus *c, const struct peer *p);
/* libraft is told that by the peer. */
void heal_spoke(struct peer *p, const struct frame *f);
void heal_frame(struct consensus *c, struct peer *p, const struct frame *f);
void heal_link(struct consensus *c, struct peer *p, bool up);
void heal_tick(struct consensus *c);
void heal_poll(struct consensus *c);
/* Others know what this folder has lost, term and vote perhaps as well. */
void heal_rolled_back(struct consensus *c, const char *why);

/* ---- membership.c ---------------------------------------------------------------------------- */

struct membership {
    enum { CHANGE_NONE, CHANGE_WAITING, CHANGE_HANDING_OVER, CHANGE_COMMITTING } state;
    enum consensus_change_op op;
    struct consensus_member member;      /* strings owned */
    void (*done)(void *data, int error); /* NULL: nobody waits (any more) */
    void *data;
    uint64_t deadline_ms;
    struct raft_change request;
    bool ended;
    int status;               /* libraft's, once it has ended */
    struct raft_configuration committed; /* c->members, once they are more than what the flags say: the newest that is known */
    uint64_t committed_index;            /* 0 until then; the own log may not be there yet */
};

/* The peers of before there is a log: those of the last time, or those of the flags. */
int membership_open(struct consensus *c, const struct consensus_config *config, struct err *e);
bool membership_check(struct consensus *c, struct slice file);
/* A new cluster's log begins with its first members, who are committed by that; takes `conf`. */
int membership_begin(struct consensus *c, struct raft_configuration *conf, struct err *e);
/* libraft's configuration has changed, or is committed. */
void membership_changed(struct consensus *c);
void membership_poll(struct consensus *c);
/* Says to another who the members are, if that is known. */
void membership_tell(struct consensus *c, uint64_t to);
/* What somebody says of the members: a peer, or who is one although it is not known here. */
void membership_frame(struct consensus *c, uint64_t from, const struct frame *f);
uint64_t membership_known(void *ctx);
enum env_stranger membership_stranger(void *ctx, uint64_t peer_id, uint64_t known);
void membership_refused(void *ctx, uint64_t peer_id, int error);
bool membership_describe(void *ctx, struct buf *out);
void membership_release(struct consensus *c);

/* ---- scrub.c --------------------------------------------------------------------------------- */

void scrub_open(struct consensus *c);
void scrub_tick(struct consensus *c);
void scrub_cancel(struct consensus *c); /* closing: does not wait for its rate */
bool scrub_idle(const struct consensus *c);
/* A round begins now, if there are rounds at all: another member was given damaged bytes. */
void scrub_soon(struct consensus *c);
/* A log segment or a kept snapshot is damaged; `why` names file and offset. The member stops, unless it does not need the file. */
void scrub_found(struct consensus *c, const char *path, const char *why);
void scrub_release(struct consensus *c);
void scrub_status(const struct consensus *c, struct consensus_status *ret);

/* ---- propose.c ------------------------------------------------------------------------------- */

struct proposal {
    uint64_t tag, term, deadline_ms;
    bool forwarded;
    struct list node;
};

struct inbound { /* forwarded to this leader, waits for room */
    uint64_t origin, life, tag, term;
    struct raft_buffer entry;
    struct list node;
};

struct proposals {
    struct list pending; /* struct proposal, oldest first: in the log, or forwarded */
    size_t n_forwarded;
    uint64_t forward_seq;
    struct list inbox; /* struct inbound */
    size_t n_inbox, inbox_bytes;
    bool want_writable;
    uint64_t made, failed;
};

void proposals_init(struct consensus *c);
/* An entry was applied: the tag if it was proposed here, in this life. */
uint64_t proposals_applied(struct consensus *c, uint64_t origin, uint64_t life, uint64_t tag);
void proposals_poll(struct consensus *c);
void proposals_tick(struct consensus *c);
void proposals_installed(
    struct consensus *c); /* a snapshot came: what it holds of ours is not known */
void proposals_frame(struct consensus *c, struct peer *p, const struct frame *f);
void proposals_release(struct consensus *c);

/* ---- readindex.c ----------------------------------------------------------------------------- */

struct reads {
    struct list waiting, asked, confirmed; /* struct consensus_read */
    struct env_task task;
    bool round; /* one is under way; the fields below are its */
    uint64_t seq, term, index, sent_ms;
    uint64_t asked_leader; /* 0 = this member leads the round */
    uint64_t rounds;
};

void reads_init(struct consensus *c);
void reads_poll(struct consensus *c);
void reads_tick(struct consensus *c);
void reads_frame(struct consensus *c, struct peer *p, const struct frame *f);
void reads_fail_all(struct consensus *c, int error);

/* ---- io.c ------------------------------------------------------------------------------------ */

void io_init(struct consensus *c);
void io_release(struct consensus *c);
/* A libraft message from the wire. */
void io_frame(struct consensus *c, struct peer *p, const struct frame *f);
/* Hands a whole received snapshot to libraft; the ticket is in its data. */
void io_install(struct consensus *c, struct peer *p, const struct frame_snapshot *s,
                const struct raft_snapshot *snapshot);
/* Completes in a later turn, for what needs no disk and no network. */
void io_complete_send(struct consensus *c, struct raft_io_send *req, raft_io_send_cb cb,
                      int status);

/* ---- snapshots.c ----------------------------------------------------------------------------- */

int snapshots_open(struct consensus *c, struct err *e); /* finds and restores the newest */
uint64_t snapshots_restored_index(const struct consensus *c, uint64_t *ret_term);
struct raft_snapshot *
snapshots_newest(struct consensus *c); /* for libraft, NULL if there is none */
int snapshots_fsm_snapshot(struct consensus *c, struct raft_buffer **bufs, unsigned *n_bufs);
int snapshots_fsm_restore(struct consensus *c, const struct raft_buffer *ticket);
int snapshots_put(struct consensus *c, struct raft_io_snapshot_put *req,
                  const struct raft_snapshot *s, raft_io_snapshot_put_cb cb);
int snapshots_get(struct consensus *c, struct raft_io_snapshot_get *req,
                  raft_io_snapshot_get_cb cb);
void snapshots_applied(struct consensus *c, size_t entry_bytes);
void snapshots_poll(struct consensus *c);
void snapshots_tick(struct consensus *c);
bool snapshots_busy(const struct consensus *c);
void snapshots_cancel(struct consensus *c); /* closing: lets go as soon as the disk is done */
bool snapshots_idle(const struct consensus *c);
void snapshots_release(struct consensus *c);
void snapshots_status(const struct consensus *c, struct consensus_status *ret);

/* ---- snapstream.c ---------------------------------------------------------------------------- */

void stream_frame(struct consensus *c, struct peer *p, const struct frame *f);
void stream_link(struct consensus *c, struct peer *p, bool up);
void stream_tick(struct consensus *c);
int stream_send(struct consensus *c, struct raft_io_send *req, const struct raft_message *m,
                raft_io_send_cb cb);

/* ---- consensus.c ----------------------------------------------------------------------------- */

struct completion {
    struct raft_io_send *req;
    raft_io_send_cb cb;
    int status;
    struct list node;
};

struct consensus {
    struct env *env;
    struct consensus_callbacks cb;
    void *ctx;
    uint64_t id, cluster_id, life;
    unsigned heartbeat_ms, election_ms, max_appends;
    uint64_t snapshot_log_bytes, trailing_log_bytes, scrub_interval_ms, scrub_rate;

    struct raft raft;
    struct raft_fsm fsm;
    struct raft_io io;
    struct guard guard;
    bool raft_started, started, dead, closing, env_stopped;

    struct wal *wal;
    struct wal_contents loaded;
    struct meta meta;
    struct heal heal;
    uint64_t healed;

    struct peer *peers;
    size_t n_peers;
    struct consensus_member *members;
    size_t n_members;
    struct membership membership;
    raft_index configuration_index, configuration_uncommitted_index;
    bool configured;

    struct list completions, appends;
    struct env_task completions_task, start_task;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_io_close_cb io_closed;

    struct proposals proposals;
    struct reads reads;
    struct snapshots *snapshots;
    struct scrub *scrub;

    uint64_t seen_leader, seen_term; /* as last told to leader_changed */
    bool seen_self, ready;
    struct consensus_read ready_read;
    bool ready_asked;
    uint64_t leader_changes;

    struct raft_transfer transfer;
    void (*transfer_done)(void *data, int error);
    void *transfer_data;
    uint64_t transfer_to, transfer_deadline_ms;
    bool transferring;

    void (*closed)(void *ctx);
    void *closed_ctx;
    void (*close_disk)(struct consensus *c); /* once snapshots are idle */
};

/* libraft's memory comes from base/mem.h. */
void consensus_use_heap(void);
uint64_t consensus_now(const struct consensus *c);
/* Ends everything: the fatal callback, and then nothing. */
void consensus_fatal(struct consensus *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool consensus_leads(const struct consensus *c);
/* snapshots.c and snapstream.c: nothing of theirs is under way any more. */
void consensus_snapshots_idle(struct consensus *c);
/* The leader as libraft believes, 0 if none; this member only once it may serve. */
uint64_t consensus_leader(const struct consensus *c);
uint64_t consensus_last_index(const struct consensus *c);
void consensus_decode_entry(struct slice entry, uint64_t *origin, uint64_t *life, uint64_t *tag,
                            struct slice *payload);

#endif
