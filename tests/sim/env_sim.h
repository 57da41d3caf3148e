/* A world in one process: members with disks, links between them, one clock, one seed.
 *
 * `sim_boot` gives a member an implementation of struct env (raft/env.h); everything above that
 * line is the code that ships. All that happens comes from one queue of events, ordered by (time,
 * order of scheduling), and all chances from generators derived from the seed: the same seed is the
 * same run, to the byte
 * (`sim_digest` is a hash over all events, to prove it). Nothing here looks at the machine's clock,
 * at addresses or at threads.
 *
 * What the disk does (env_sim_disk.c). A write is visible at once and durable after a sync of the
 * file. When the power fails, each file is put together from what was synced and, by chance, none,
 * all, a prefix, or any 512-byte sectors of what was not, the write under way included. Names: OPEN
 * with CREATE is durable after the next RENAME, UNLINK or write_file in the same folder, as env.h
 * promises a folder sync only there; a RENAME or UNLINK under way happens or does not. When only
 * the process is killed, what was written stays.
 *
 * What the network does (env_sim_net.c). One connection per direction and channel. Frames are
 * delivered in order while it lasts; when it is lost, a suffix of what was in flight is lost with
 * it and it is made again after a back-off. A cut either stalls it (frames wait, and arrive late
 * after the heal) or resets it. `drop`, `duplicate` and `reorder` are harsher than TCP can be.
 *
 * A crash does not unwind the code above. The crashed life keeps a private copy of its disk and a
 * dead network so that its owner can close it as usual ("zombie"); nothing that it still does is
 * seen by anyone.
 *
 * One thread. Everything allocated here is freed by sim_free. */
#ifndef PINTLE_TESTS_SIM_ENV_SIM_H
#define PINTLE_TESTS_SIM_ENV_SIM_H

#include "raft/env.h"

struct sim;
struct sim_disk;

enum { SIM_MEMBERS_MAX = 12 };

/* ---- chance ---------------------------------------------------------------------------------- */

struct sim_random {
    uint64_t s[4];
};
void sim_random_init(struct sim_random *r, uint64_t seed, uint64_t stream);
uint64_t sim_random_u64(struct sim_random *r);
/* Uniform below n (n > 0), or from lo to hi, both included. */
uint64_t sim_random_below(struct sim_random *r, uint64_t n);
uint64_t sim_random_range(struct sim_random *r, uint64_t lo, uint64_t hi);
/* True `ppm` times in a million. */
bool sim_chance(struct sim_random *r, unsigned ppm);

/* ---- knobs ----------------------------------------------------------------------------------- */

struct sim_disk_options {
    unsigned latency_min_us, latency_max_us; /* of each operation */
    unsigned sync_min_us, sync_max_us;       /* on top, of each sync */
    unsigned stall_ppm, stall_us;            /* now and then it takes this much longer */
    unsigned bytes_per_us;                   /* 0 = no limit */
    unsigned error_ppm;                      /* ERR_IO, per operation */
    uint64_t capacity;                       /* bytes; 0 = no limit */
    bool keep_creates;                       /* a created name is durable at once */
    bool keep_old;                           /* remember what writes replaced, for sim_disk_damage */
};

struct sim_net_options {
    unsigned latency_min_us, latency_max_us;
    unsigned spike_ppm,
        spike_us;          /* now and then a frame (and what is behind it) is this much later */
    unsigned bytes_per_us; /* 0 = no limit */
    size_t queue_bytes;    /* per connection; beyond: ERR_LIMIT */
    unsigned reset_ppm;    /* the connection is lost, per frame */
    unsigned connect_min_us, connect_max_us; /* until a lost connection is tried again */
    unsigned stall_limit_us; /* a stalled connection is reset after this; 0 = never */
    unsigned drop_ppm, duplicate_ppm, reorder_ppm; /* harsher than TCP */
};

struct sim_options {
    uint64_t seed;
    unsigned members; /* ids 1..members */
    struct sim_disk_options disk;
    struct sim_net_options net;
    unsigned clock_drift_ppm; /* the members' clocks run up to this much fast or slow */
};

/* A calm world: 1-2 ms disk, 0.2-1 ms network, nothing fails. */
void sim_options_default(struct sim_options *o, uint64_t seed, unsigned members);

struct sim *sim_new(const struct sim_options *o);
/* All lives must have been closed and released. */
void sim_free(struct sim *s);

/* ---- time ------------------------------------------------------------------------------------ */

uint64_t sim_now_us(const struct sim *s);
/* Runs `fn` in `delay_us`, on nobody's behalf (clients, faults). */
void sim_at(struct sim *s, uint64_t delay_us, void (*fn)(void *arg), void *arg);
/* As sim_at, on member `id`'s behalf: not run while it is paused, and never if that life ends
 * before. */
void sim_at_member(struct sim *s, uint64_t id, uint64_t delay_us, void (*fn)(void *arg), void *arg);
/* Forgets what is scheduled on behalf of a member. */
void sim_forget_member(struct sim *s, uint64_t id);
/* Forgets everything scheduled by sim_at and sim_at_member. */
void sim_forget(struct sim *s);
/* The next event; false if there is none. */
bool sim_step(struct sim *s);
void sim_run_for(struct sim *s, uint64_t us);
/* Until `done` says true (looked at after each event): true, or false after `limit_us`. */
bool sim_run_until(struct sim *s, bool (*done)(void *arg), void *arg, uint64_t limit_us);
/* Called after each event that a member's env handled: the end of that member's loop turn. */
void sim_on_turn(struct sim *s, void (*turn)(void *ctx, uint64_t id), void *ctx);
/* Called (in a turn of its own) when sim_crash_after came true. */
void sim_on_crash(struct sim *s, void (*crashed)(void *ctx, uint64_t id), void *ctx);
uint64_t sim_digest(const struct sim *s);
uint64_t sim_events(const struct sim *s);
/* To standard error: 1 = the story (what members send, write, lose and tell), 2 = every event too. */
void sim_trace(struct sim *s, unsigned level);
void sim_trace_line(struct sim *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- members --------------------------------------------------------------------------------- */

enum sim_crash_mode { SIM_KILL, SIM_POWER };

/* A new life for the member, on the disk that the last one left; borrowed until sim_release. */
struct env *sim_boot(struct sim *s, uint64_t id);
/* Its current life, or NULL. */
struct env *sim_env(struct sim *s, uint64_t id);
/* Ends the current life at once. Its owner closes what runs on the env (ops->stop works), then
 * releases it. Not from inside one of that member's own callbacks. */
void sim_crash(struct sim *s, uint64_t id, enum sim_crash_mode mode);
/* The same, when the member begins its `nth` disk operation from now, synchronous ones included. */
void sim_crash_after(struct sim *s, uint64_t id, enum sim_crash_mode mode, unsigned nth);
/* Gives back an env whose `stop` has called back, or that was never started. */
void sim_release(struct env *e);
/* Nothing reaches the member's code for this long (a stopped process, a paused machine). */
void sim_pause(struct sim *s, uint64_t id, uint64_t us);

/* A member's clock goes forward by this at once (a machine that slept), or runs this much fast or slow from
 * now on. Clocks never go back (raft/env.h). */
void sim_clock_jump(struct sim *s, uint64_t id, uint64_t us);
void sim_clock_drift(struct sim *s, uint64_t id, int64_t ppm);

/* ---- disks ----------------------------------------------------------------------------------- */

void sim_disk_slow(struct sim *s, uint64_t id, unsigned factor);    /* 1 = normal */
void sim_disk_capacity(struct sim *s, uint64_t id, uint64_t bytes); /* 0 = no limit */
/* The next operation on the log's lane takes this much longer. */
void sim_disk_stall(struct sim *s, uint64_t id, uint64_t us);
/* How many operations this member's disk has been asked for, over all lives. */
uint64_t sim_disk_operations(struct sim *s, uint64_t id);
uint64_t sim_disk_used(struct sim *s, uint64_t id);
void sim_disk_error_ppm(struct sim *s, uint64_t id, unsigned ppm);
/* The nth write or sync from now fails with ERR_IO, once. */
void sim_disk_fail_nth(struct sim *s, uint64_t id, unsigned nth);
/* Flips one bit at rest in a file whose path has the prefix; false if there is none. `ret_path`
 * (may be NULL) is borrowed until the member's next disk operation. */
bool sim_disk_flip(struct sim *s, uint64_t id, const char *prefix, const char **ret_path,
                   uint64_t *ret_offset);
/* The sector at `offset` cannot be read any more, until it is written to; false: there is no such file. */
bool sim_disk_lose_sector(struct sim *s, uint64_t id, const char *path, uint64_t offset);
/* What else a disk can do to what it holds, in some file by chance; what it did in words (borrowed until the
 * next call), or NULL if there was nothing to do it to. */
enum sim_damage {
    SIM_DAMAGE_FLIP,      /* one bit */
    SIM_DAMAGE_ZERO,      /* one sector reads as zeroes */
    SIM_DAMAGE_STALE,     /* a write that was acknowledged never reached its place (needs keep_old) */
    SIM_DAMAGE_MISPLACED, /* ... but another one */
    SIM_DAMAGE_UNREADABLE,/* one sector cannot be read */
    SIM_DAMAGE_CUT,       /* the end of a file is gone */
    SIM_DAMAGE_REMOVED,   /* a whole file is gone */
    SIM_DAMAGES
};
const char *sim_disk_damage(struct sim *s, uint64_t id, enum sim_damage how, struct sim_random *r);
/* For tests, past the env: whole files; ERR_NOT_FOUND. Writing makes the file durable. */
int sim_disk_read(struct sim *s, uint64_t id, const char *path, struct buf *out);
void sim_disk_write(struct sim *s, uint64_t id, const char *path, struct slice data);
/* Each path on the disk, sorted. */
void sim_disk_each(struct sim *s, uint64_t id,
                   void (*each)(void *ctx, const char *path, uint64_t size), void *ctx);
/* A copy of the whole disk, and that copy back in its place; only between lives. Each saved copy is
 * put back or freed. */
struct sim_disk *sim_disk_save(struct sim *s, uint64_t id);
/* What a power failure would leave just now, of a member that runs. */
struct sim_disk *sim_disk_copy(struct sim *s, uint64_t id);
void sim_disk_put_back(struct sim *s, uint64_t id, struct sim_disk *saved);
void sim_disk_free(struct sim_disk *d);
/* An empty disk in the place of the old one; only between lives. */
void sim_disk_wipe(struct sim *s, uint64_t id);

/* Process `id` is another one of member `as`, at a place where nobody looks for that: it introduces itself under that id, and is
 * refused, or has the member refused, as by env_uv. */
void sim_speak_as(struct sim *s, uint64_t id, uint64_t as);
/* Where it can be reached, up to two URLs (NULL = none); without this, at any. */
void sim_listen(struct sim *s, uint64_t id, const char *url, const char *other_url);
/* What a member answers to somebody who asks who the members are (raft/join.h); false: it is not there, or does not know. */
bool sim_ask(struct sim *s, uint64_t id, struct buf *out);

/* ---- links ----------------------------------------------------------------------------------- */

/* Frames from `from` to `to` do not arrive any more. `reset`: and the connection is lost at once.
 */
void sim_cut(struct sim *s, uint64_t from, uint64_t to, bool reset);
void sim_heal(struct sim *s, uint64_t from, uint64_t to);
void sim_heal_all(struct sim *s);
/* Loses the connections between two members; they are made again if nothing is cut. */
void sim_reset(struct sim *s, uint64_t from, uint64_t to);
/* Members on one side (a bit per id) and on the other no longer hear each other. */
void sim_partition(struct sim *s, uint64_t side, bool reset);
/* Added to each frame's way; 0 = normal. */
void sim_link_delay(struct sim *s, uint64_t from, uint64_t to, uint64_t us);
/* Knobs that may change while it runs. */
struct sim_net_options *sim_net(struct sim *s);
struct sim_disk_options *sim_disk(struct sim *s);

/* Looks at every frame as it is sent (tests of the guard): false = it is lost. */
void sim_on_frame(struct sim *s,
                  bool (*look)(void *ctx, uint64_t from, uint64_t to, enum env_channel ch,
                               struct slice frame),
                  void *ctx);

/* Tells of moments that faults can be tied to: a frame is sent (`other` = to) or arrives (`other` = from), its
 * first bytes; a disk operation begins, with its path. From inside the member's own turn: what follows must be
 * scheduled. */
enum sim_moment { SIM_SENDS, SIM_HEARS, SIM_DISK };
void sim_on_moment(struct sim *s,
                   void (*moment)(void *ctx, enum sim_moment what, uint64_t id, uint64_t other,
                                  struct slice frame, int op, const char *path),
                   void *ctx);
/* Puts a frame into words for the story; false = not worth a line. */
void sim_on_describe(struct sim *s, bool (*describe)(struct slice frame, char *out, size_t size));

struct sim_stats {
    uint64_t frames, frames_lost, frames_duplicated, frames_reordered, resets, crashes, torn_files,
        lost_writes, lost_names, io_errors, writes, syncs;
};
const struct sim_stats *sim_get_stats(const struct sim *s);

#endif
