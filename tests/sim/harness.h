/* One simulated run: a cluster of 1, 3 or 5 members that each run the real core (api/core/core.h)
 * on the simulated env, clients that write, read and watch, a nemesis that breaks things, and the
 * checks of all they see.
 *
 *   options.c   what a seed stands for
 *   plan.c      which faults come when, as data; nemesis.c carries them out; rot.c: disks that lie
 *   cluster.c   lives of members: boot, crash, restart, what they tell
 *   state.c     members' states against each other and the model, after each entry
 *   clients.c   requests with unknown outcomes, their answers against the model, the history for linear.h
 *   backup.c    a client that saves snapshots; reader.c: one that reads all keys in slices
 *   watchers.c  watches that move between members, their events against the model
 *   acquaint.c  what members know of each other's earlier lives
 *   members.c   members that are added, promoted, removed, moved and replaced
 *   joining.c   what who joins is told, and who may not: namesakes, lost folders
 *   twin.c      a second process under a member's id
 *   calm.c      what must hold when nothing fails
 *   restore.c   a backup becomes a new cluster
 *   run.c       the phases of a run, the final checks
 *   shrink.c    fewer faults that still make it fail; story.c: frames in words
 *
 * Everything that is found wrong goes to `verdict`; the run stops at the first. */
#ifndef PINTLE_TESTS_SIM_HARNESS_H
#define PINTLE_TESTS_SIM_HARNESS_H

#include "api/cluster.h"
#include "api/core/core.h"
#include "base/map.h"
#include "env_sim.h"
#include "linear.h"
#include "model.h"
#include "plan.h"
#include "watch/watch.h"

enum {
    RUN_KEYS_MAX = 300,
    RUN_HASHES_MAX = 64,
    RUN_CLIENTS_MAX = 24,
    RUN_WATCHERS_MAX = 8,
    RUN_LEASES_MAX = 4,
    RUN_CHANGES_MAX = 64,
    CALM_TRIALS = 5 /* of calm.c */
};

#define RUN_STONE SLICE_LIT("q") /* the key whose value a bit flips in */

struct run_options {
    uint64_t seed;
    unsigned members, clients, keys, watchers;
    unsigned faults;  /* a bit for each enum fault_kind that may come */
    unsigned stories; /* and for each story of plan.c */
    bool shaped;      /* the load has quiet hours and bursts */
    uint64_t fault_gap_us; /* mean time between faults */
    uint64_t fault_us;     /* mean time that one lasts */
    uint64_t length_us;    /* of the time with faults */
    uint64_t think_us;     /* mean time between a client's answer and its next request */
    size_t value_bytes;    /* most */
    uint64_t snapshot_log_bytes, trailing_log_bytes;
    size_t segment_bytes;
    unsigned heartbeat_ms, election_ms, max_appends;
    int64_t auto_compaction_revisions;
    uint64_t check_ms; /* how often members compare their states */
    uint64_t lease_checkpoint_ms;
    int64_t quota_bytes;
    size_t long_apply_keys, range_slice_keys; /* a command, an answer in steps */
    bool any_reconfig;  /* changes of members that endanger the majority are not refused */
    bool restores;      /* the last backup is made a cluster */
    unsigned retry_ppm; /* how often a client asks again for what may have happened */
    unsigned timeout_min_ms, timeout_max_ms; /* of requests */
    unsigned calm;                           /* which of the trials in calm.c it goes through, a bit each */
    struct sim_options sim;
    unsigned trace; /* 1: the story, 2: every event */
    const struct plan *plan; /* instead of the seed's own */
    bool no_backup;
};

/* All uint64_t, so that they can be added up. */
struct run_counts {
    uint64_t calls, acked, unknown, refused, reads_checked, watch_events, watch_cancels, entries, snapshots_taken,
        snapshots_sent, snapshots_installed, states /* compared with another's */, whole_states /* with the model */,
        leader_changes, crashes, faults, undecided, masked_defects, damages,
        damages_found, rotted /* while their members ran */, rot_found /* and they still did */, healed, changes, twins,
        namesakes /* refused */, backups, slices, retries, no_space, failovers /* the leader went silent in calm */;
};

struct run_result {
    struct verdict verdict;
    struct run_counts counts;
    uint64_t digest, events, simulated_us;
    double failover_share; /* after how many election timeouts another led, all failovers together */
    uint64_t recovery_us;  /* from the end of the faults until all members agreed */
};

struct run;

/* One life of a member's process. A dead one lives on until its core has closed. */
struct life {
    struct run *run;
    uint64_t id, serial;
    struct env *env;
    struct core *core; /* NULL while it opens */
    struct watch_hub *hub;
    uint64_t applied, leader_id;
    uint64_t compared; /* the newest entry that it has wholly applied */
    int64_t seen; /* up to this revision state.c has looked at what it wrote */
    unsigned url; /* the newer one that it listens at */
    bool dead, fatal, closing;
    bool refusing; /* its clients: it is not to be believed, or heals */
    struct list asks;     /* of struct ask: what clients asked of it */
    struct list watchers; /* of struct watch_client: on its hub */
    struct list history;  /* of what the hub has asked for and the core has not seen yet */
};

struct member {
    struct run *run;
    uint64_t id;
    uint64_t twin_of; /* this is none, but another process of that member; 0 = no */
    struct life *life; /* NULL while it is down */
    bool disk_trouble; /* a fault was put into its disk: it may stop by itself, until it starts again on one that is mended */
    bool disk_mended;
    bool restarting, rotting;
    bool wanted;         /* it should run: it is a member, or may be one */
    bool held;           /* down until its replacement is decided */
    bool joins;          /* was not there from the beginning */
    bool may_be_removed; /* somebody asked for it */
    bool told;           /* that it was removed */
    bool is_namesake;    /* was added, and is called like another: it never runs */
    unsigned url, old_url; /* where it listens: at both */
    uint64_t last_index;    /* of its log when its last life ended */
    uint64_t snapshot_index; /* what its newest snapshot covers */
    struct sim_disk *saved; /* while it rots */
    enum sim_damage damage_how;
    char damage[256];    /* in words */
    bool damaged;        /* its disk is not what it left: it may stop and heal */
    bool faced;          /* it has said so, or the others have told it what they know */
    bool pending, wipe;  /* its disk will be damaged as soon as it lies still */
    bool unread;         /* it has not been started since it was damaged */
    uint64_t damaged_at; /* what had been applied by then */
    unsigned deaths;        /* it dies so many times more, soon after it starts */
    unsigned death_by; /* enum sim_crash_mode, 2 = by turns */
    uint64_t downtime_us; /* after a crash at a disk operation; 0 = by chance */
};

struct armed;
struct change;
struct ask;
struct client;
struct watch_client;
struct backup;
struct reader_client;
struct told;

/* What a member answered to HashKV. */
struct run_hash {
    int64_t revision, compact_revision;
    uint32_t hash;
    uint64_t member;
};

/* A member's state after an entry, in digests. */
enum state_part {
    STATE_REVISION,
    STATE_COMPACTED,
    STATE_KEYS,
    STATE_LEASES,
    STATE_ALARMS,
    STATE_MEMBERS,
    STATE_CHECK,
    STATE_HASH_KV,
    STATE_PARTS
};
struct run_state {
    uint64_t member; /* 0 = nobody was there yet */
    uint64_t parts[STATE_PARTS];
};

struct run {
    struct run_options o;
    struct sim *sim;
    struct verdict verdict;
    struct model *model;
    struct sim_random random;
    struct member members[SIM_MEMBERS_MAX + 1];
    unsigned open_lives;
    bool winding_down; /* faults have stopped */
    bool ending;       /* clients have stopped too */
    uint64_t
        steady_us;  /* since when everything is calm, and nothing may fail any more; 0 = not yet */
    uint64_t clock; /* orders calls and returns */
    int64_t floor;  /* newest revision that any linearizable answer has shown */
    struct client *clients[RUN_CLIENTS_MAX];
    unsigned n_asks; /* under way */
    struct linear_op *history;
    size_t n_history, history_size;
    uint64_t next_value;
    struct watch_client *watchers[RUN_WATCHERS_MAX];
    struct backup *backup;
    struct reader_client *reader;
    int64_t leases[RUN_LEASES_MAX];
    struct run_hash hashes[RUN_HASHES_MAX]; /* the newest ones */
    unsigned n_hashes;
    struct run_state *states; /* of whoever was there first, by how many entries of the log there are */
    size_t states_size;
    unsigned *asked; /* by value: how often it may be written */
    size_t asked_size;
    int64_t next_lease;
    struct run_result *result;
    struct plan plan;
    struct armed *armed;
    struct told *told; /* by who has heard it, and of whom */
    uint64_t led_us; /* when somebody last began to lead */
    unsigned n_waiting; /* faults that wait for their moment */
    struct surge *surge;
    uint64_t top; /* the highest id that there is */
    uint64_t lives;
    struct change *changes;
    unsigned n_changes;
    bool changed; /* the members, or somebody tried to */
    struct {
        uint64_t id, of; /* its place, 0 = there is none; whose twin runs there, 0 = nobody's */
        bool won;        /* the member was refused, and stops */
    } twin;
    struct {
        uint64_t id, of; /* a member that was added, 0 = there is none; whose name it bears */
        bool refused;
    } namesake;
    uint64_t lying; /* this member's memory is not what it was; 0 = none */
    uint64_t truce; /* for this member, whose disk is not what it left, until it has faced that; 0 = none */
};

void run_options_from_seed(struct run_options *o, uint64_t seed);
/* Runs it; false if something was found wrong (ret->verdict). */
bool run(const struct run_options *o, struct run_result *ret);
/* One line that says what the seed stands for. */
void run_options_print(const struct run_options *o, char *out, size_t size);

static inline bool run_failed(const struct run *r)
{
    return r->verdict.failed;
}
void run_trace(struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* cluster.c */
void cluster_boot(struct run *r, uint64_t id);
void cluster_crash(struct run *r, uint64_t id, enum sim_crash_mode mode, uint64_t restart_us);
/* Opens a member to see whether it opens; that life must be ended by cluster_tried, in a later
 * turn, which says how far its log goes. */
int cluster_try(struct run *r, uint64_t id, struct err *e);
uint64_t cluster_tried(struct run *r, uint64_t id);
/* rot.c: damages a member's disk and gives it back; or for good. */
void disk_try(struct run *r, uint64_t id, enum sim_damage how);
void disk_damage(struct run *r, uint64_t id, enum sim_damage how, bool while_it_runs);
void disk_old_copy(struct run *r, uint64_t id, uint64_t age_us);
void disk_lost(struct run *r, uint64_t id);
bool disk_healed(struct run *r, uint64_t id);
/* How many members are not whole, but for this one: they heal, or are down for good. */
unsigned disk_unhealed(struct run *r, uint64_t but);
/* The others may come to believe that it is not what it was, until it has started again; false: that cannot be borne now. */
bool disk_doubted(struct run *r, uint64_t id);
bool disk_truce(struct run *r, uint64_t id);
void disk_truce_ends(struct run *r);
/* One that has healed is as good as any: it may say nothing of the kind any more. */
void disk_settles(struct life *l);
/* Stops it in an orderly way. */
void cluster_stop(struct run *r, uint64_t id, uint64_t restart_us);
void cluster_on_crash(void *ctx, uint64_t id);
void cluster_on_turn(void *ctx, uint64_t id);
/* A member that runs, by chance, or NULL. */
struct life *cluster_some(struct run *r, struct sim_random *random);
struct life *cluster_leader(struct run *r);
/* NULL if it has ended. */
struct life *cluster_by_serial(struct run *r, uint64_t serial);
/* Starts it again, soon. */
void cluster_again(struct run *r, uint64_t id);
bool life_gone(const struct life *l);

/* state.c: it has applied an entry, or taken in a snapshot. */
void state_check(struct life *l, struct store *s, bool restored);
/* A backup of it holds, in all, what members held after one of the entries from..to, and what the model makes of the log. */
bool state_backup(struct life *l, struct store *s, uint64_t from, uint64_t to);
/* A member of a cluster that was made from a backup, and that is so old: the leases are those, except for any that has run out; and so are
 * the alarms that clients have raised. */
bool state_restored(struct run *r, uint64_t id, const struct store *s, const struct store *backup, uint64_t since_us);

/* clients.c */
void clients_start(struct run *r);
void clients_free(struct run *r);
/* Whatever was asked of this life will not be answered. */
void clients_lost(struct run *r, struct life *l);
bool clients_idle(const struct run *r);
/* The history is linearizable, and nothing that was refused appears. */
bool clients_check_history(struct run *r);
/* Compares all keys of a member with the model. */
bool clients_check_member(struct run *r, struct life *l);

/* The same with any store that should hold what the model has at `rev`. */
bool clients_check_store(struct run *r, struct store *s, int64_t rev, const char *what,
                         uint64_t id);

/* backup.c */
void backup_start(struct run *r);
void backup_free(struct run *r);
void backup_lost(struct run *r, struct life *l);
bool backup_idle(const struct run *r);
/* Makes a cluster of the last one, if there is any. */
void backup_restore(struct run *r);
/* restore.c: a cluster made from a backup holds what the model held at its revision. */
void restore_check(struct run *r, struct slice backup, int64_t revision);

/* reader.c */
void reader_start(struct run *r);
void reader_free(struct run *r);
void reader_lost(struct run *r, struct life *l);
bool reader_idle(const struct run *r);

/* watchers.c */
void watchers_start(struct run *r);
void watchers_free(struct run *r);
/* Whether all have seen everything up to `revision`. */
bool watchers_caught_up(const struct run *r, int64_t revision);
void hub_open(struct life *l);
void hub_close(struct life *l);

/* members.c */
enum member_change {
    MEMBERS_ADD_VOTER,
    MEMBERS_ADD_LEARNER,
    MEMBERS_PROMOTE,
    MEMBERS_REMOVE,
    MEMBERS_UPDATE, /* another URL */
    MEMBERS_REPLACE,
    MEMBERS_CHANGES
};
/* The members as the leader knows them. */
struct members_view {
    unsigned all, voters; /* a bit for each id; how many */
    bool coming;          /* somebody is still to become a voter */
};
void members_start(struct run *r);
bool members_in_force(struct run *r, struct members_view *v);
/* Whether somebody was asked to remove a member, and may still do it. */
bool members_leave(const struct run *r);
/* All members see the same members, and whoever is none has gone. */
bool members_agree(struct run *r);
void members_change(struct run *r, enum member_change what, uint64_t id);
/* After the faults: what was left open is decided. */
void members_settle(struct run *r);
/* All others that this life knows of have moved since, or are gone: it reaches none. */
bool members_knows_nobody(const struct run *r, const struct life *l);
void members_leave_old_urls(struct run *r);
/* The nth of those that should run, counted round and round; and how many they are. */
uint64_t members_pick(const struct run *r, uint64_t n);
unsigned members_count(const struct run *r);
void members_url(const struct member *m, char out[32]);
const char *members_change_name(enum member_change what);

/* The number of one more, ready to be added; 0 if there is no more room. */
uint64_t members_next(struct run *r);
extern const char *const member_names[SIM_MEMBERS_MAX + 1];

/* joining.c */
enum namesake_how { NAMESAKE_ADDED, NAMESAKE_SECOND, NAMESAKE_HOWS };
/* What a member's flags say: those of the beginning, and for one that joins those that are there, and itself. */
size_t joining_flags(struct run *r, uint64_t id, struct consensus_member *out, char urls[][32]);
/* Whether it has to ask the others before it starts; what they say (strings in the arena), ERR_EXISTS: it may not start. */
bool joining_asks(struct run *r, uint64_t id);
int joining_ask(struct run *r, uint64_t id, struct arena *a, struct cluster *ret, struct err *e);
/* It was: whether rightly so, because its folder is lost; then its removal is asked for. */
bool joining_refused(struct run *r, uint64_t id, const struct err *e);
/* A process with an empty folder is started under the name of a member: as one that was added, or at that member's own URL. */
void joining_namesake(struct run *r, uint64_t of, enum namesake_how how);
/* After the faults: one that is still there is removed. */
void joining_settle(struct run *r, uint64_t id);

/* twin.c */
enum twin_how { TWIN_BESIDE, TWIN_WHILE_ASLEEP, TWIN_AT_START, TWIN_HOWS };
void twin_start(struct run *r, uint64_t of, enum twin_how how, uint64_t us);
void twin_stop(struct run *r);

/* calm.c */
void calm_trials(struct run *r);
/* run.c: the verdict that something does not come, with the state of all members. */
void run_stuck(struct run *r, const char *what);

/* story.c: a frame in words. */
bool story_frame(struct slice frame, char *out, size_t size);

/* acquaint.c: a frame arrives. */
void acquaint_start(struct run *r);
void acquaint_heard(struct run *r, uint64_t id, uint64_t from, struct slice frame);

/* nemesis.c */
void nemesis_start(struct run *r);
void nemesis_free(struct run *r);
/* Mends everything but member `but`. */
void nemesis_rest(struct run *r, uint64_t but);
/* A watcher on this member asks for the past. */
void nemesis_history(struct run *r, uint64_t id);
/* Heals everything and starts what is down. */
void nemesis_stop(struct run *r);

#endif
