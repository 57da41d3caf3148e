/* What the files of the core share. core.c: requests, batches, apply. core_read.c: everything that reads. core_lease.c: the
 * clocks of leases. core_apply.c: committed entries. core_member.c: changes of the members. core_check.c: members compare their
 * states. All on the core's thread. */
#ifndef PINTLE_API_CORE_CORE_INT_H
#define PINTLE_API_CORE_CORE_INT_H

#include "api/core/core.h"
#include "base/limits.h"
#include "base/map.h"
#include "schemas/batch.h"

/* A store and how many open handles read it: an installed snapshot retires a store, which lives on until they close. */
struct core_state {
    struct store *store;
    size_t handles;
    bool retired;
};

/* One proposed entry. requests[i] asked for the i-th command, or is NULL once it was answered otherwise. */
struct core_batch {
    struct list node;
    uint64_t tag;
    size_t count;
    struct core_request *requests[];
};

/* Linearizable reads that share one read point. */
struct core_read_group {
    struct consensus_read read;
    struct core *core;
    struct list requests;
    struct list node;
};

#define CORE_COMPACTION_SAMPLES 16

struct core_compaction_sample {
    uint64_t ms;
    int64_t revision;
};

/* What a member says of its state at a check. */
struct core_report {
    uint64_t member_id, state, log; /* log 0 = not all of it seen */
    bool accused;                   /* a verdict has said that it is wrong */
};

/* The newest check in the log. */
struct core_check {
    uint64_t index; /* of its entry; 0 = none yet */
    uint64_t began_ms;
    struct core_state *state; /* what is walked */
    struct store_check *walk; /* NULL = done */
    uint64_t hash, log;       /* of this member; hash 0 = not done */
    bool reported;            /* and that is in the log */
    bool accused;             /* a verdict on this member has come that was not looked at yet */
    uint64_t accused_state, accused_log;
    struct core_report reports[LIMIT_MEMBERS];
    size_t n_reports;
};

struct core {
    struct core_config config;
    struct env *env;
    struct core_events events;
    void *ctx;
    struct consensus *consensus;
    struct core_state *state;

    struct list queued;  /* commands that wait to be proposed */
    struct list reads;   /* linearizable reads that wait for a read point */
    struct list groups;  /* of reads with a read point under way */
    struct map batches;  /* tag -> struct core_batch */
    struct list batch_list;
    struct batch_writer writer;
    uint64_t next_tag;
    size_t pending, pending_bytes;
    struct core_request *transfer; /* of leadership, under way */
    bool blocked; /* consensus said ERR_AGAIN */
    bool closing;

    struct arena scratch; /* decoding of one entry, results nobody asked for */
    struct env_task work; /* deferred work of the store */
    bool leader;          /* and allowed to serve */
    uint64_t leader_id, term, applied_index;
    uint64_t next_publish_ms, next_forget_ms;

    /* core_apply.c */
    struct list backlog; /* struct core_entry: the first has a long command, the others wait for it */
    struct env_task apply_work;
    struct store_apply *step; /* the long command, once it is begun */
    struct command step_command;
    struct core_request *step_request; /* NULL: step_result */
    struct result step_result;
    struct arena step_arena;
    struct list held; /* reads that wait until the present can be seen */

    /* core_read.c */
    size_t n_cursors, n_snapshots, n_hashes; /* open */
    struct list hashes;
    struct env_task hash_work;

    /* core_lease.c */
    struct map leases;     /* id -> struct core_lease */
    struct core_lease **heap;
    size_t heap_len, heap_size;
    struct map forwarded;  /* message id -> struct core_request */
    uint64_t next_message;
    uint64_t next_checkpoint_ms, n_checkpoints;
    uint64_t clocks_at; /* this leader's clocks start when that entry is applied; 0 = they run */

    struct list changes; /* core_member.c: struct member_call */
    bool learner;

    /* core_check.c */
    struct core_check check;
    struct env_task check_work;
    uint64_t log_hash; /* of the entries since the newest check */
    bool log_whole;    /* of all of them */
    bool distrusted;   /* this member believes that its state is wrong */
    bool refusing;     /* ... or the others do: clients are refused */
    uint64_t applying_index;
    uint64_t next_check_ms, next_report_ms, next_verdict_ms, next_transfer_ms;
    uint64_t n_checks, n_mismatches;

    struct core_compaction_sample samples[CORE_COMPACTION_SAMPLES];
    size_t n_samples;
    uint64_t next_compaction_ms;

    void (*closed)(void *ctx);
    void *closed_ctx;

    uint64_t applied_entries, applied_commands, n_batches, slow_applies;
};

/* Fills the fields of every answer and calls `done`. `code` other than 0 wins over what is in r. */
void core_answer(struct core *c, struct core_request *r, int code);
/* Answers what is not to be answered from a state that was found wrong; false: it is not refused. */
bool core_refuse(struct core *c, struct core_request *r);
/* Proposes a command of the core's own; nobody waits for it. Lost if there is no leader: the callers try again. */
void core_propose_own(struct core *c, const struct command *command);
uint64_t core_now(const struct core *c);

/* Answers what is left in a batch and forgets it. */
void core_batch_fail(struct core *c, struct core_batch *b, int error);

/* core_apply.c */
void core_apply_entry(struct core *c, uint64_t index, uint64_t term, uint64_t tag, struct slice entry);
/* The newest entry that consensus takes for applied and that is not yet; 0 = none. */
uint64_t core_apply_last(const struct core *c);
void core_apply_step(struct env_task *t);
/* Ends a long command that is under way, and applies what waits for it, at once. */
void core_apply_finish(struct core *c);
/* Deferred work of the store. */
void core_apply_work(struct env_task *t);

void core_state_ref(struct core_state *s);
void core_state_unref(struct core_state *s);

/* core_read.c */
void core_read_submit(struct core *c, struct core_request *r);
void core_read_flush(struct core *c);
/* Answers what is under way here with ERR_STOPPED. */
void core_read_stop(struct core *c);
void core_read_close(struct core *c);
void core_hash_step(struct env_task *t);

/* Serves what was held back, as far as that is over. */
void core_read_held(struct core *c);

/* core_read.c: fills r->members as they are known here. */
int core_read_members(struct core *c, struct core_request *r);

/* core_member.c */
void core_member_submit(struct core *c, struct core_request *r);
void core_member_tick(struct core *c);
/* Leadership has changed: who was asked will not answer. */
void core_member_leader_changed(struct core *c);
/* A message of its kinds, or false. */
bool core_member_message(struct core *c, uint64_t from_id, struct slice payload);
/* This member was removed: who asked for that is told so. */
void core_member_removed(struct core *c);
void core_member_stop(struct core *c);

/* core_check.c */
void core_check_open(struct core *c);
void core_check_opened(struct core *c); /* ... and consensus too */
void core_check_close(struct core *c);
void core_check_work(struct env_task *t);
void core_check_tick(struct core *c);
/* Goes on after a long command. */
void core_check_resume(struct core *c);
/* An entry is about to be applied; one of its commands was. */
void core_check_entry(struct core *c, uint64_t index, uint64_t term, struct slice entry);
void core_check_command(struct core *c, const struct command *command);
/* The state was replaced by a snapshot. */
void core_check_restored(struct core *c);

/* core_lease.c */
void core_lease_open(struct core *c);
void core_lease_close(struct core *c);
/* The store of `c` was replaced: clocks begin anew. */
void core_lease_reset(struct core *c);
/* So they do for a new leader, and run once all that is committed by now is applied. */
void core_lease_leader_changed(struct core *c);
void core_lease_applied(struct core *c, uint64_t index);
void core_lease_tick(struct core *c);
void core_lease_changed(void *ctx, int64_t id, bool granted);
/* Answered by the leader's clock, through a message if that is not us. */
void core_lease_ask(struct core *c, struct core_request *r);
/* Answers what another member was asked and has not answered: nobody will. */
void core_lease_fail_forwarded(struct core *c, int error);
void core_lease_message(struct core *c, uint64_t from_id, struct slice payload);

#endif
