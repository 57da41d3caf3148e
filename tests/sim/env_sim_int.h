/* Private to env_sim*.c: how the world is laid out. */
#ifndef PINTLE_TESTS_SIM_ENV_SIM_INT_H
#define PINTLE_TESTS_SIM_ENV_SIM_INT_H

#include "base/list.h"
#include "env_sim.h"

/* ---- disk ------------------------------------------------------------------------------------ */

/* A write that was not synced yet. */
struct sim_write {
    struct list node;
    uint64_t seq, offset;
    bool truncate; /* to `offset` */
    struct buf bytes;
};

/* What a write replaced. */
struct sim_old {
    uint64_t offset;
    struct buf before, after;
};

enum { SIM_OLD_WRITES = 6 };

struct sim_inode {
    unsigned refs; /* names, durable names, open files */
    struct buf live, durable;
    struct sim_old old[SIM_OLD_WRITES]; /* the newest writes, if they are remembered */
    unsigned n_old;
    uint64_t lost;          /* 1 + offset of a sector that cannot be read; 0 = none */
    struct list writes;     /* of struct sim_write, in order */
    struct sim_inode *copy; /* while a disk is copied */
};

struct sim_name {
    char *path;
    struct sim_inode *inode;
};

struct sim_names {
    struct sim_name *names; /* sorted by path */
    size_t n, size;
};

struct sim_disk {
    struct sim_names live, durable;
    char **dirs;
    size_t n_dirs;
    uint64_t write_seq;
    uint64_t capacity;
    char *last_write_file; /* whose temporary name a crash may leave behind */
};

struct env_file {
    struct list node;
    struct sim_inode *inode;
    bool writable;
    char *path;
};

struct sim_lane {
    struct list queue; /* of struct env_io; the first is under way if `busy` */
    bool busy;
    uint64_t sync_seq; /* what the sync under way covers */
    int status;        /* of the one under way */
};

/* ---- network --------------------------------------------------------------------------------- */

struct sim_frame {
    struct list node; /* in its connection's in_flight or stalled */
    struct sim_conn *conn;
    uint64_t incarnation; /* of the receiver */
    bool lost;
    size_t len;
    uint8_t bytes[];
};

/* One way between two members. */
struct sim_conn {
    uint64_t from, to;
    enum env_channel channel;
    bool up, sending, stranger; /* stranger: `to` does not know `from` as a peer, and hears it all the same */
    uint64_t generation; /* of its state: events of an earlier one are void */
    uint64_t twice_us;   /* since when it is refused because another process speaks under the same id; 0 = it is not */
    uint64_t last_arrival_us;
    struct list queue; /* of struct env_send, the sender's */
    size_t queued_bytes, stalled_bytes;
    struct list in_flight, stalled; /* of struct sim_frame; stalled: behind a cut */
};

struct sim_path {
    bool cut;
    uint64_t delay_us;
    uint64_t told; /* hash of the last line of the story about it */
    struct sim_conn conns[ENV_CHANNELS];
};

/* ---- members --------------------------------------------------------------------------------- */

struct sim_env {
    struct env base; /* first */
    struct sim *sim;
    struct sim_member *member;
    struct list node;
    struct sim_disk *disk;
    struct sim_random random;
    uint64_t incarnation;
    bool zombie, own_disk, started, stopping, stopped, tasks_pending, released;
    unsigned events; /* in the queue on its behalf */
    unsigned ios, sends;
    struct list tasks, files;
    struct sim_lane lanes[2];
    unsigned tick_ms;
    struct env_handlers handlers;
    void *handlers_ctx;
    void (*on_stopped)(void *ctx);
    void *stopped_ctx;
    bool peers[SIM_MEMBERS_MAX + 1];
    uint32_t urls[SIM_MEMBERS_MAX + 1]; /* hash of where it believes each to be */
};

typedef void sim_event_fn(struct sim *s, struct sim_env *env, void *arg, uint64_t number);

struct sim_event {
    uint64_t time_us, seq;
    const char *what;
    struct sim_env *env; /* NULL: nobody's */
    sim_event_fn *fn;
    void *arg;
    uint64_t number;
    void (*user)(void *arg); /* sim_at, sim_at_member */
};

struct sim_member {
    uint64_t id, speaks_as;
    struct sim_env *env; /* the current life, or NULL */
    struct sim_disk *disk;
    uint64_t lives, paused_until_us, operations, stall_us;
    unsigned slow, error_ppm, fail_nth, crash_nth;
    uint32_t listens[2]; /* hashes of URLs; 0 = at any */
    enum sim_crash_mode crash_mode;
    int64_t drift_ppm;
    uint64_t clock_us, clock_at_us; /* its clock said clock_us when it was clock_at_us */
    struct sim_event *held; /* what came while it was paused, in order */
    size_t n_held, held_size;
};

/* ---- the world ------------------------------------------------------------------------------- */

struct sim {
    struct sim_options options;
    uint64_t now_us, next_seq, n_events, digest;
    struct sim_event *heap;
    size_t n_heap, heap_size;
    struct sim_random random, disk_random, net_random;
    struct sim_member members[SIM_MEMBERS_MAX + 1]; /* by id; 0 is unused */
    struct sim_path paths[SIM_MEMBERS_MAX + 1][SIM_MEMBERS_MAX + 1];
    struct list envs;
    void (*turn)(void *ctx, uint64_t id);
    void *turn_ctx;
    void (*crashed)(void *ctx, uint64_t id);
    void *crashed_ctx;
    bool (*look)(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice frame);
    void *look_ctx;
    void (*moment)(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice frame,
                   int op, const char *path);
    void *moment_ctx;
    bool (*describe)(struct slice frame, char *out, size_t size);
    unsigned trace;
    char words[256]; /* of sim_disk_damage */
    struct sim_stats stats;
};

struct sim_member *sim_member(struct sim *s, uint64_t id);
void sim_schedule(struct sim *s, uint64_t delay_us, const char *what, struct sim_env *env,
                  sim_event_fn *fn, void *arg, uint64_t number);
void sim_mix(struct sim *s, const void *data, size_t len);

/* env_sim_disk.c */
struct sim_disk *sim_disk_new(void);
/* What another life finds. */
struct sim_disk *sim_disk_after(struct sim *s, struct sim_env *e, enum sim_crash_mode mode);
void sim_disk_submit(struct env *e, struct env_io *io);
int sim_disk_sync_io(struct env *e, struct env_io *io);
int sim_disk_list(struct env *e, const char *dir, void (*each)(void *ctx, const char *name),
                  void *ctx, struct err *err);
int sim_disk_mkdir(struct env *e, const char *dir, struct err *err);
int sim_disk_read_file(struct env *e, const char *path, size_t max, struct buf *out,
                       struct err *err);
int sim_disk_write_file(struct env *e, const char *path, struct slice data, struct err *err);
int sim_disk_unlink_file(struct env *e, const char *path, struct err *err);
void sim_disk_close_files(struct sim_env *e);

/* A file's name is gone, also the durable one. */
void sim_disk_forget(struct sim_disk *d, const char *path);

/* env_sim_net.c */
void sim_net_init(struct sim *s);
void sim_net_release(struct sim *s);
int sim_net_set_peer(struct env *e, uint64_t peer_id, const char *url);
void sim_net_send(struct env *e, struct env_send *send);
/* The member's code is gone (crash, stop): its queues fail and its connections are lost. */
void sim_net_down(struct sim *s, struct sim_env *e);
void sim_net_started(struct sim_env *e);

/* env_sim.c: as each disk operation begins, for sim_crash_after; true if the member has just died of it */
bool sim_disk_begins(struct sim_env *e, int op, const char *path);
enum { SIM_OP_WRITE_FILE = 100, SIM_OP_UNLINK_FILE }; /* beside enum env_io_op */
/* when nothing is under way any more after stop */
void sim_env_settle(struct sim_env *e);

static inline struct sim_env *sim_env_of(struct env *e)
{
    return (struct sim_env *)e;
}

#endif
