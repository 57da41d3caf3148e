/* What goes wrong in a run, as data: a list of faults, each independent of the others, made from the seed
 * before the run begins. So a run can be repeated with fewer of them (shrink.c), and the list read.
 *
 * A fault comes at a time, or when something happens after that time: a frame of some kind is sent or arrives,
 * a disk operation begins, a watcher asks for history. Whom it hits is said by role, so that it keeps its meaning
 * when other faults are left out. */
#ifndef PINTLE_TESTS_SIM_PLAN_H
#define PINTLE_TESTS_SIM_PLAN_H

#include "env_sim.h"

enum fault_kind {
    FAULT_KILL,        /* the process dies, its page cache stays */
    FAULT_POWER,       /* the machine dies: writes that were not synced are lost or torn */
    FAULT_CRASH_AT_IO, /* the same, at the `a`th disk operation from now (b: enum sim_crash_mode) */
    FAULT_RESTARTS,    /* dies again and again, `a` times, soon after (or while) it starts (b: how, 2 = by turns) */
    FAULT_STOP,        /* an orderly stop and start */
    FAULT_BLACKOUT,    /* all members die at once (a: enum sim_crash_mode) */
    FAULT_PAUSE,
    FAULT_CLOCK_JUMP,  /* a: us */
    FAULT_CLOCK_DRIFT, /* a: ppm + 1000000 */
    FAULT_ISOLATE,     /* hears nobody and is heard by nobody (of those in b); a: 1 = connections reset, 0 = they stall */
    FAULT_PARTITION,   /* b: the members on one side, a as above */
    FAULT_DEAF,        /* hears nobody (of those in b) */
    FAULT_MUTE,        /* is heard by nobody (of those in b) */
    FAULT_FLAP,        /* cut off and back, `b` times */
    FAULT_DELAY,       /* its frames take `a` us longer; b: 1 = in, 2 = out, 3 = both */
    FAULT_RESET,       /* loses its connections */
    FAULT_HARSH_NET,   /* frames are doubled (a ppm), overtaken (b ppm) and dropped */
    FAULT_SLOW_DISK,   /* by a factor of `a` */
    FAULT_STALL_DISK,  /* the next operation of its log takes `a` us longer */
    FAULT_DISK_ERROR,  /* the `a`th change from now fails */
    FAULT_DISK_FULL,   /* `a` more bytes, and it is full */
    FAULT_ROT,         /* a: enum sim_damage; is opened so, and gets its disk back */
    FAULT_DAMAGE,      /* a: the same, for good; b: 1 = while it runs */
    FAULT_OLD_COPY,    /* its disk is put back to what it was */
    FAULT_LOST_DISK,   /* and comes back empty */
    FAULT_TRANSFER,    /* of leadership, to member `a` */
    FAULT_CHANGE,      /* of the members, a: enum member_change */
    FAULT_SNAPSHOT,
    FAULT_TWIN,        /* a second process on a copy of its disk, a: enum twin_how */
    FAULT_NAMESAKE,    /* a process with an empty folder under its name, a: enum namesake_how */
    FAULT_KINDS,
};

enum fault_who {
    WHO_ID,
    WHO_LEADER,
    WHO_FOLLOWER, /* the `id`th that does not lead */
    WHO_SUBJECT,  /* whom the moment belongs to */
    WHO_OTHER,    /* the other end of its frame */
};

enum fault_when {
    WHEN_TIME,
    WHEN_SENDS, /* a frame of kind `detail` */
    WHEN_HEARS,
    WHEN_DISK,    /* an operation of class `detail` begins */
    WHEN_HISTORY, /* a watcher asks for the past */
};

enum disk_class {
    DISK_LOG_WRITE,
    DISK_LOG_NAMES, /* segments come and go */
    DISK_SNAPSHOT_WRITE,
    DISK_SNAPSHOT_NAMES,
    DISK_META, /* term and vote */
    DISK_CLASSES,
};

struct fault {
    unsigned number; /* from 1 on; also its source of chances */
    enum fault_kind kind;
    enum fault_when when;
    unsigned detail, nth; /* it is the nth such moment */
    uint64_t at_us;       /* not before */
    uint64_t delay_us;    /* after the moment */
    enum fault_who who;
    uint64_t id;
    uint64_t lasts_us;
    uint64_t a, b;
};

enum { PLAN_FAULTS_MAX = 512, PLAN_SHAPES_MAX = 12, PLAN_STORIES = 7, PLAN_DRIFT_PPM = 100000 };

/* A stretch of time with its own load. */
struct shape {
    uint64_t until_us, think_us;
};

struct plan {
    struct fault faults[PLAN_FAULTS_MAX];
    unsigned n;
    struct shape shapes[PLAN_SHAPES_MAX];
    unsigned n_shapes;
};

struct run_options;

/* Depends on o->seed and what else `o` says, and on nothing else. */
void plan_make(struct plan *p, const struct run_options *o);
/* The enumerating mode: one crash, at the `step`th disk operation of member `id` from `at_us` on. */
void plan_one_crash(struct plan *p, uint64_t at_us, uint64_t id, unsigned step, enum sim_crash_mode mode);
/* Keeps only the faults whose numbers are in the list. */
void plan_keep(struct plan *p, const unsigned *numbers, unsigned n);
void fault_print(const struct fault *f, char *out, size_t size);
const char *fault_name(enum fault_kind kind);
enum disk_class disk_class_of(int op, const char *path); /* DISK_CLASSES: none */

#endif
