/* The plan of a run. A swarm: each seed has its own choice of faults, of whom they hit, how often and when, so
 * that no fault always hides another; and its own choice of stories, short sequences of faults that bring about
 * what chance alone rarely does. */
#include "plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "env_sim_int.h"
#include "harness.h"
#include "raft/frames_int.h"

/* ---- words
 * --------------------------------------------------------------------------------------- */

static const char *const kind_names[FAULT_KINDS] = {
    [FAULT_KILL] = "kill",
    [FAULT_POWER] = "power failure",
    [FAULT_CRASH_AT_IO] = "crash at a disk operation",
    [FAULT_RESTARTS] = "dies again and again",
    [FAULT_STOP] = "orderly stop",
    [FAULT_BLACKOUT] = "blackout of all",
    [FAULT_PAUSE] = "pause",
    [FAULT_CLOCK_JUMP] = "clock jumps",
    [FAULT_CLOCK_DRIFT] = "clock drifts",
    [FAULT_ISOLATE] = "cut off",
    [FAULT_PARTITION] = "partition",
    [FAULT_DEAF] = "deaf",
    [FAULT_MUTE] = "mute",
    [FAULT_FLAP] = "flapping link",
    [FAULT_DELAY] = "delayed frames",
    [FAULT_RESET] = "connections reset",
    [FAULT_HARSH_NET] = "harsh network",
    [FAULT_SLOW_DISK] = "slow disk",
    [FAULT_STALL_DISK] = "disk stalls",
    [FAULT_DISK_ERROR] = "disk error",
    [FAULT_DISK_FULL] = "disk full",
    [FAULT_ROT] = "damaged disk, tried out",
    [FAULT_DAMAGE] = "damaged disk",
    [FAULT_OLD_COPY] = "old copy of the disk",
    [FAULT_LOST_DISK] = "lost disk",
    [FAULT_TRANSFER] = "transfer of leadership",
    [FAULT_SNAPSHOT] = "snapshot",
    [FAULT_TWIN] = "second process",
    [FAULT_NAMESAKE] = "namesake",
    [FAULT_CHANGE] = "change of members",
};

const char *fault_name(enum fault_kind kind)
{
    return kind_names[kind];
}

static const char *const class_names[] = {"writes to its log", "makes or drops a segment",
                                          "writes a snapshot", "renames or drops a snapshot",
                                          "writes term and vote"};

static size_t print_when(const struct fault *f, char *out, size_t size)
{
    double at = (double)f->at_us / 1e6;
    if (f->when == WHEN_TIME) return (size_t)snprintf(out, size, "at %.3f s", at);
    int n = snprintf(out, size, "after %.3f s, %.3f ms after some member %s", at,
                     (double)f->delay_us / 1e3,
                     f->when == WHEN_SENDS     ? "sends "
                     : f->when == WHEN_HEARS   ? "hears "
                     : f->when == WHEN_HISTORY ? "is asked for history"
                                               : class_names[f->detail]);
    if (f->when == WHEN_SENDS || f->when == WHEN_HEARS)
        n += snprintf(out + n, size - (size_t)n, "%s", frame_kind_name(f->detail));
    n += snprintf(out + n, size - (size_t)n, " (time %u)", f->nth);
    return (size_t)n;
}

void fault_print(const struct fault *f, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "%u: ", f->number);
    n += print_when(f, out + n, size - n);
    n += (size_t)snprintf(out + n, size - n, ": %s, ", kind_names[f->kind]);
    if (f->who == WHO_ID) n += (size_t)snprintf(out + n, size - n, "m%" PRIu64, f->id);
    else if (f->who == WHO_FOLLOWER) n += (size_t)snprintf(out + n, size - n, "follower %" PRIu64, f->id);
    else
        n += (size_t)snprintf(out + n, size - n, "%s",
                              f->who == WHO_LEADER    ? "the leader"
                              : f->who == WHO_SUBJECT ? "that member"
                                                      : "the member at the other end");
    if (f->lasts_us) n += (size_t)snprintf(out + n, size - n, ", for %.3f s", (double)f->lasts_us / 1e6);
    if (f->a || f->b) snprintf(out + n, size - n, " (%" PRIu64 ", %" PRIu64 ")", f->a, f->b);
}

enum disk_class disk_class_of(int op, const char *path)
{
    if (op == SIM_OP_WRITE_FILE && strncmp(path, "snap", 4) != 0) return DISK_META;
    bool names = op == ENV_IO_RENAME || op == ENV_IO_UNLINK || op == SIM_OP_UNLINK_FILE;
    bool bytes = op == ENV_IO_WRITE || op == ENV_IO_WRITE_SYNC || op == ENV_IO_SYNC || op == ENV_IO_TRUNCATE;
    if (strncmp(path, "wal/", 4) == 0)
        return names ? DISK_LOG_NAMES : bytes ? DISK_LOG_WRITE : DISK_CLASSES;
    if (strncmp(path, "snap", 4) == 0)
        return names ? DISK_SNAPSHOT_NAMES : bytes ? DISK_SNAPSHOT_WRITE : DISK_CLASSES;
    return DISK_CLASSES;
}

/* ---- making one
 * ---------------------------------------------------------------------------------- */

/* How faults of this seed are. */
struct style {
    const struct run_options *o;
    struct sim_random *r;
    struct plan *p;
    unsigned who;      /* 0: anybody, 1: the leader, 2: a follower, 3: always the same member */
    uint64_t victim;
    unsigned moments_ppm; /* how many are tied to a moment */
};

static struct fault *add(struct style *s, struct fault f)
{
    static struct fault spill; /* the plan is full */
    if (s->p->n == PLAN_FAULTS_MAX) return &spill;
    f.number = s->p->n + 1;
    s->p->faults[s->p->n++] = f;
    return &s->p->faults[s->p->n - 1];
}

static uint64_t some_time(struct style *s)
{
    return sim_random_range(s->r, 1000, 2 * s->o->fault_us);
}

static uint64_t any_member(struct style *s)
{
    return 1 + sim_random_below(s->r, s->o->members);
}

static void choose_who(struct style *s, struct fault *f)
{
    unsigned who = s->who;
    if (who == 0) who = (unsigned)sim_random_below(s->r, 4); /* two of four: anybody */
    f->who = who == 1 ? WHO_LEADER : who == 2 ? WHO_FOLLOWER : WHO_ID;
    f->id = s->who == 3 ? s->victim : any_member(s);
}

static void choose_moment(struct style *s, struct fault *f)
{
    static const unsigned frames[] = {FRAME_VOTE,        FRAME_VOTE_RESULT,    FRAME_APPEND,
                                      FRAME_APPEND,      FRAME_APPEND_RESULT,  FRAME_TIMEOUT_NOW,
                                      FRAME_PROBE,       FRAME_PROBE_ACK,      FRAME_READ_INDEX_RESULT,
                                      FRAME_PROPOSE,     FRAME_SNAPSHOT_OFFER, FRAME_SNAPSHOT_CHUNK,
                                      FRAME_SNAPSHOT_ACK};
    unsigned what = (unsigned)sim_random_below(s->r, 10);
    f->nth = (unsigned)(sim_chance(s->r, 500000) ? 1 : sim_random_range(s->r, 1, 20));
    f->delay_us = sim_chance(s->r, 400000) ? 0 : sim_random_below(s->r, 5000);
    f->who = sim_chance(s->r, 700000) ? WHO_SUBJECT : sim_chance(s->r, 500000) ? WHO_OTHER : WHO_LEADER;
    if (what < 6) {
        f->when = what < 3 ? WHEN_SENDS : WHEN_HEARS;
        f->detail = frames[sim_random_below(s->r, sizeof frames / sizeof *frames)];
    } else if (what < 9) {
        f->when = WHEN_DISK;
        f->detail = (unsigned)sim_random_below(s->r, DISK_CLASSES);
        if (sim_chance(s->r, 500000)) f->delay_us = sim_random_below(s->r, 300);
    } else {
        f->when = WHEN_HISTORY;
    }
}

static uint64_t crash_mode(struct style *s)
{
    return sim_chance(s->r, 700000) ? SIM_POWER : SIM_KILL;
}

/* What a fault of the kind needs beside time and victim. */
static void choose_details(struct style *s, struct fault *f)
{
    struct sim_random *r = s->r;
    uint64_t election_us = 1000ull * s->o->election_ms;
    f->lasts_us = some_time(s);
    switch (f->kind) {
    case FAULT_CRASH_AT_IO:
        f->a = 1 + sim_random_below(r, 60);
        f->b = crash_mode(s);
        break;
    case FAULT_RESTARTS:
        f->a = sim_random_range(r, 2, 8);
        f->b = sim_random_below(r, 3);
        f->lasts_us = sim_random_range(r, 1000, sim_chance(r, 500000) ? 5000 : 300000);
        break;
    case FAULT_BLACKOUT: f->a = crash_mode(s); break;
    case FAULT_CLOCK_JUMP: f->a = sim_random_range(r, 1000, 20000000); break;
    case FAULT_CLOCK_DRIFT: f->a = sim_random_range(r, 1000000 - PLAN_DRIFT_PPM, 1000000 + PLAN_DRIFT_PPM); break;
    case FAULT_FLAP:
        f->a = sim_random_below(r, 2);
        f->b = sim_random_range(r, 2, 12);
        break;
    case FAULT_ISOLATE: /* from all, or from some that hear the rest */
    case FAULT_PARTITION:
    case FAULT_DEAF:
    case FAULT_MUTE:
        f->a = sim_random_below(r, 2);
        f->b = sim_chance(r, 300000) ? UINT64_MAX : sim_random_u64(r) & 0x1ffe;
        break;
    case FAULT_DELAY:
        f->a = sim_random_below(r, 2 * election_us);
        f->b = sim_random_range(r, 1, 3);
        break;
    case FAULT_HARSH_NET:
        f->a = sim_random_below(r, 200000);
        f->b = sim_random_below(r, 200000);
        break;
    case FAULT_SLOW_DISK: f->a = sim_random_range(r, 10, 1000); break;
    case FAULT_STALL_DISK: f->a = sim_random_range(r, election_us / 2, 6 * election_us); break;
    case FAULT_DISK_ERROR: f->a = 1 + sim_random_below(r, 20); break;
    case FAULT_DISK_FULL: f->a = sim_random_below(r, 4 * s->o->segment_bytes); break;
    case FAULT_ROT: f->a = sim_random_below(r, SIM_DAMAGES); break;
    case FAULT_DAMAGE:
        f->a = sim_random_below(r, SIM_DAMAGES);
        f->b = f->a < SIM_DAMAGE_CUT && sim_chance(r, 500000); /* open files keep their length and name */
        break;
    case FAULT_TRANSFER: f->a = any_member(s); break;
    case FAULT_CHANGE: f->a = sim_random_below(r, MEMBERS_CHANGES); break;
    case FAULT_TWIN: f->a = sim_random_below(r, TWIN_HOWS); break;
    case FAULT_NAMESAKE: f->a = sim_random_below(r, NAMESAKE_HOWS); break;
    default: break;
    }
}

static void add_some(struct style *s, enum fault_kind kind, uint64_t at_us)
{
    struct fault f = {.kind = kind, .at_us = at_us};
    choose_who(s, &f);
    if (sim_chance(s->r, s->moments_ppm)) choose_moment(s, &f);
    choose_details(s, &f);
    add(s, f);
}

/* ---- stories
 * ------------------------------------------------------------------------------------- */

static struct fault fault_at(enum fault_kind kind, enum fault_who who, uint64_t at_us, uint64_t lasts_us)
{
    bool cuts = kind == FAULT_ISOLATE || kind == FAULT_DEAF || kind == FAULT_MUTE; /* off from all */
    return (struct fault){.kind = kind, .who = who, .id = 1, .at_us = at_us, .lasts_us = lasts_us, .b = cuts ? UINT64_MAX : 0};
}

/* A follower's disk holds an append for longer than an election takes; meanwhile the leader is lost, and later
 * (or before the append is done) the others hear of another. */
static void story_slow_append(struct style *s, uint64_t at)
{
    uint64_t election_us = 1000ull * s->o->election_ms, n = sim_random_range(s->r, 1, s->o->members - 1);
    for (uint64_t i = 0; i < n; i++) {
        struct fault stall = fault_at(FAULT_STALL_DISK, WHO_FOLLOWER, at + sim_random_below(s->r, 20000), 0);
        stall.id = i + 1;
        stall.a = sim_random_range(s->r, election_us, 5 * election_us);
        add(s, stall);
    }
    static const enum fault_kind losses[] = {FAULT_KILL, FAULT_ISOLATE, FAULT_MUTE, FAULT_PAUSE, FAULT_POWER};
    struct fault loss = fault_at(losses[sim_random_below(s->r, 5)], WHO_LEADER,
                                 at + sim_random_range(s->r, 1000, 100000),
                                 sim_random_range(s->r, election_us, 4 * election_us));
    loss.a = sim_random_below(s->r, 2);
    add(s, loss);
}

/* Leadership is moved to one while the word is still on its way to another. */
static void story_two_transfers(struct style *s, uint64_t at)
{
    uint64_t election_us = 1000ull * s->o->election_ms, to = any_member(s);
    uint64_t late = sim_random_range(s->r, election_us, 3 * election_us);
    struct fault delay = fault_at(FAULT_DELAY, WHO_ID, at, 3 * election_us);
    delay.id = to;
    delay.a = late;
    delay.b = sim_random_range(s->r, 1, 3);
    add(s, delay);
    struct fault first = fault_at(FAULT_TRANSFER, WHO_LEADER, at + 1000, 0);
    first.a = to;
    add(s, first);
    unsigned n = (unsigned)sim_random_range(s->r, 1, 4);
    for (unsigned i = 0; i < n; i++) {
        struct fault next = fault_at(FAULT_TRANSFER, WHO_LEADER,
                                     at + 1000 + late - sim_random_below(s->r, 60000) + i * 20000, 0);
        next.a = 1 + (to + i) % s->o->members;
        add(s, next);
    }
}

/* A leader writes on alone; one that has none of it is elected, writes its own and is lost too; then they meet. */
static void story_stale_suffix(struct style *s, uint64_t at)
{
    unsigned n = (unsigned)sim_random_range(s->r, 1, 5);
    uint64_t election_us = 1000ull * s->o->election_ms;
    for (unsigned i = 0; i < n; i++) {
        uint64_t lasts = sim_random_range(s->r, election_us, 6 * election_us);
        struct fault cut = fault_at(FAULT_ISOLATE, WHO_LEADER, at, lasts);
        cut.a = sim_random_below(s->r, 2);
        if (sim_chance(s->r, 300000)) cut.kind = FAULT_MUTE;
        add(s, cut);
        at += sim_random_range(s->r, election_us, 3 * election_us);
    }
}

/* While a member takes a snapshot in, its disk is slow and the leader goes. */
static void story_install(struct style *s, uint64_t at)
{
    uint64_t election_us = 1000ull * s->o->election_ms;
    struct fault away = fault_at(FAULT_ISOLATE, WHO_FOLLOWER, at, sim_random_range(s->r, 300000, 2000000));
    away.id = any_member(s);
    away.a = 1;
    if (sim_chance(s->r, 500000)) away.kind = FAULT_KILL;
    add(s, away);
    for (unsigned i = 0; i < 3; i++) {
        add(s, fault_at(FAULT_SNAPSHOT, WHO_LEADER, at + 100000 * (i + 1), 0));
    }
    struct fault slow = fault_at(FAULT_SLOW_DISK, WHO_SUBJECT, at, sim_random_range(s->r, election_us, 8 * election_us));
    slow.when = WHEN_HEARS;
    slow.detail = FRAME_SNAPSHOT_CHUNK;
    slow.nth = 1;
    slow.a = sim_random_range(s->r, 100, 1000);
    add(s, slow);
    struct fault stall = fault_at(FAULT_STALL_DISK, WHO_SUBJECT, at, 0);
    stall.when = WHEN_DISK;
    stall.detail = DISK_SNAPSHOT_NAMES;
    stall.nth = (unsigned)sim_random_range(s->r, 1, 3);
    stall.a = sim_random_range(s->r, election_us, 5 * election_us);
    if (sim_chance(s->r, 500000)) add(s, stall);
    static const enum fault_kind ends[] = {FAULT_KILL, FAULT_ISOLATE, FAULT_PAUSE, FAULT_POWER, FAULT_TRANSFER};
    struct fault end = fault_at(ends[sim_random_below(s->r, 5)], sim_chance(s->r, 600000) ? WHO_LEADER : WHO_SUBJECT, at,
                                sim_random_range(s->r, election_us, 4 * election_us));
    end.when = sim_chance(s->r, 500000) ? WHEN_DISK : WHEN_HEARS;
    end.detail = end.when == WHEN_DISK ? DISK_SNAPSHOT_NAMES : FRAME_SNAPSHOT_CHUNK;
    end.nth = (unsigned)sim_random_range(s->r, 1, 4);
    end.delay_us = sim_random_below(s->r, 20000);
    end.a = end.kind == FAULT_TRANSFER ? any_member(s) : 1;
    add(s, end);
}

/* Old frames come late: they wait on a stalled link or overtake each other while logs are cut behind snapshots. */
static void story_late_frames(struct style *s, uint64_t at)
{
    uint64_t lasts = sim_random_range(s->r, 300000, 3000000);
    struct fault harsh = fault_at(FAULT_HARSH_NET, WHO_LEADER, at, lasts);
    harsh.a = 300000;
    harsh.b = 300000;
    add(s, harsh);
    for (unsigned i = 0; i < 4; i++) {
        struct fault jam = fault_at(FAULT_DEAF, WHO_FOLLOWER, at + i * lasts / 4, lasts / 4);
        jam.id = any_member(s);
        add(s, jam);
        struct fault snapshot = fault_at(FAULT_SNAPSHOT, WHO_FOLLOWER, jam.at_us + lasts / 8, 0);
        snapshot.id = jam.id;
        add(s, snapshot);
        snapshot.who = WHO_LEADER;
        add(s, snapshot);
    }
}

/* Dies right after it has answered a vote, and comes back at once: it must not vote again. */
static void story_forgotten_vote(struct style *s, uint64_t at)
{
    struct fault end = fault_at(FAULT_POWER, WHO_SUBJECT, at, sim_random_range(s->r, 1000, 20000));
    end.when = WHEN_SENDS;
    end.detail = FRAME_VOTE_RESULT;
    end.nth = (unsigned)sim_random_range(s->r, 1, 3);
    end.delay_us = sim_random_below(s->r, 1000);
    if (sim_chance(s->r, 500000)) end.kind = FAULT_KILL;
    add(s, end);
    struct fault more = end;
    more.nth++;
    add(s, more);
    /* The votes take their time, so that others stand too. */
    for (unsigned i = 0; i < 2; i++) {
        struct fault late = fault_at(FAULT_DELAY, WHO_FOLLOWER, at, 4000ull * s->o->election_ms);
        late.id = i + 1;
        late.a = sim_random_below(s->r, 1500ull * s->o->election_ms);
        late.b = sim_random_range(s->r, 1, 3);
        add(s, late);
    }
    add(s, fault_at(FAULT_KILL, WHO_LEADER, at + 1000, 100000));
}

/* Killed while a write is under way, up again, and soon after the power fails: what it has read and believed may only
 * have been in the page cache. One member or all of them. */
static void story_page_cache(struct style *s, uint64_t at)
{
    uint64_t downtime = sim_random_range(s->r, 1000, 5000);
    struct fault first = fault_at(FAULT_RESTARTS, WHO_SUBJECT, at, downtime);
    if (sim_chance(s->r, 500000)) first = fault_at(FAULT_BLACKOUT, WHO_SUBJECT, at, downtime);
    first.when = WHEN_DISK;
    first.detail = DISK_LOG_WRITE;
    first.nth = (unsigned)sim_random_range(s->r, 1, 10);
    first.delay_us = sim_random_below(s->r, 300);
    first.a = first.kind == FAULT_BLACKOUT ? SIM_KILL : 2;
    first.b = 2;
    add(s, first);
    struct fault second = fault_at(FAULT_BLACKOUT, WHO_LEADER, at + downtime + sim_random_below(s->r, 1500000), 10000);
    second.a = SIM_POWER;
    if (first.kind == FAULT_BLACKOUT) {
        second.when = sim_chance(s->r, 500000) ? WHEN_SENDS : WHEN_TIME;
        second.detail = FRAME_VOTE_RESULT;
        second.nth = 1;
        second.delay_us = sim_random_below(s->r, 3000);
        add(s, second);
    }
}

static void add_story(struct style *s, uint64_t at)
{
    static void (*const stories[PLAN_STORIES])(struct style *s, uint64_t at) = {
        story_slow_append, story_two_transfers, story_stale_suffix,
        story_install,     story_late_frames,   story_forgotten_vote, story_page_cache};
    if (s->o->members == 1) return story_page_cache(s, at);
    unsigned which = (unsigned)sim_random_below(s->r, PLAN_STORIES);
    for (; !(s->o->stories & 1u << which); which = (which + 1) % PLAN_STORIES) continue;
    stories[which](s, at);
}

/* ---- all of it
 * ----------------------------------------------------------------------------------- */

/* Quiet hours, bursts, and what lies between. */
static void choose_shapes(struct plan *p, const struct run_options *o, struct sim_random *r)
{
    uint64_t at = 0;
    while (at < o->length_us && p->n_shapes < PLAN_SHAPES_MAX) {
        unsigned what = o->shaped ? (unsigned)sim_random_below(r, 5) : 2;
        at += o->shaped ? sim_random_range(r, 1000000, o->length_us / 3) : o->length_us;
        uint64_t think = what == 0   ? 5000000
                         : what == 1 ? 300
                                     : o->think_us;
        p->shapes[p->n_shapes++] = (struct shape){at, think};
    }
}

void plan_make(struct plan *p, const struct run_options *o)
{
    struct sim_random random;
    sim_random_init(&random, o->seed, 0x91a7);
    memset(p, 0, sizeof *p);
    struct style s = {.o = o, .r = &random, .p = p};
    s.who = (unsigned)sim_random_below(&random, 6);
    if (s.who > 3) s.who = 0;
    s.victim = any_member(&s);
    static const unsigned shares[] = {0, 200000, 500000, 900000};
    s.moments_ppm = shares[sim_random_below(&random, 4)];
    enum fault_kind allowed[FAULT_KINDS];
    unsigned n = 0;
    for (unsigned k = 0; k < FAULT_KINDS; k++) {
        if (o->faults >> k & 1) allowed[n++] = (enum fault_kind)k;
    }
    for (uint64_t at = 0; n || o->stories;) {
        at += sim_random_range(&random, 1000, 2 * o->fault_gap_us);
        if (at >= o->length_us) break;
        if (o->stories && (!n || sim_chance(&random, 300000))) {
            add_story(&s, at);
            at += sim_random_range(&random, 0, 4 * o->fault_gap_us);
        } else {
            add_some(&s, allowed[sim_random_below(&random, n)], at);
            if (o->faults >> FAULT_CHANGE & 1 && sim_chance(&random, 300000)) add_some(&s, FAULT_CHANGE, at + 1);
            if (o->faults >> FAULT_NAMESAKE & 1 && sim_chance(&random, 100000)) add_some(&s, FAULT_NAMESAKE, at + 2);
        }
    }
    choose_shapes(p, o, &random);
}

void plan_one_crash(struct plan *p, uint64_t at_us, uint64_t id, unsigned step, enum sim_crash_mode mode)
{
    memset(p, 0, sizeof *p);
    p->n = 1;
    p->faults[0] = (struct fault){.number = 1,
                                  .kind = FAULT_CRASH_AT_IO,
                                  .at_us = at_us,
                                  .who = WHO_ID,
                                  .id = id,
                                  .a = step,
                                  .b = mode,
                                  .lasts_us = 100000};
}

void plan_keep(struct plan *p, const unsigned *numbers, unsigned n)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < p->n; i++) {
        bool keep = false;
        for (unsigned k = 0; k < n; k++) keep = keep || numbers[k] == p->faults[i].number;
        if (keep) p->faults[kept++] = p->faults[i];
    }
    p->n = kept;
}
