/* The release gate: runs seeds, each a whole cluster through faults, and judges what its clients saw.
 *
 *   test_sim [--seeds N] [--seed S]       N seeds, from S on; without S fresh ones, taken from the clock
 *            [--only WHAT]                with less of it, as --shrink prints it
 *            [--trace [2]]                the story to standard error; 2: every event
 *            [--shrink]                   leaves out what a failing seed does not need
 *            [--steps N]                  a small world of each seed N times, with one crash: at the first disk operation
 *                                         of each member, killed and without power, at the second, ...
 *            [--after MS]                 counted from then on (0)
 *            [--step K]                   only the Kth of these
 *            [--hours H]                  until told, or the first failure; a line each minute
 *            [--failures N]               stops after so many (10)
 *            [--unmask BITS]              lets defects of libraft through that the guard masks (the bits of
 *                                         raft/guard_int.h): then seeds must fail
 *
 * Prints TAP; for each failure what was found and the one command that repeats it. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "raft/guard_int.h"
#include "shrink.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, SEEDS_DEFAULT = 40 }; /* many times slower */
#else
enum { SANITIZED = 0, SEEDS_DEFAULT = 300 };
#endif

enum { FAILURES_MAX = 10, SHRINK_TRIES = 400, FAILOVERS_FEW = 40, STEP_LENGTH_US = 4000000 };
/* A third to a half of it: the member may be started again first, or the damage be to what counts no more. */
enum { ROTTED_FEW = 30, ROT_FOUND_SHARE = 20 };
/* The mean of many: about 1.3 with three members, 1.2 with five. */
#define FAILOVER_SHARE_MAX 1.6

struct arguments {
    uint64_t seed, seeds, unmask, trace, failures, steps, step, after_ms, hours;
    bool seed_given, shrink;
    struct only only;
};

struct totals {
    struct run_result sum;
    uint64_t runs, worst_recovery_us, began_cpu_us;
    unsigned failures;
};

/* ---- a run that dies
 * ------------------------------------------------------------------------------ */

/* What runs now, for the line that a crash leaves. */
static uint64_t running_seed, running_step;
static unsigned running_number;
static volatile sig_atomic_t interrupted;

static void crashed(int signal_number)
{
    char text[200];
    int n = snprintf(text, sizeof text,
                     "not ok %u - seed %" PRIu64 " crashed: signal %d\n# repeat with: make sim SEED=%" PRIu64,
                     running_number, running_seed, signal_number, running_seed);
    if (running_step) n += snprintf(text + n, sizeof text - (size_t)n, " STEP=%" PRIu64, running_step);
    text[n++] = '\n';
    if (write(STDOUT_FILENO, text, (size_t)n) != n) _exit(2);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static void catch_signals(bool soak)
{
    if (soak) {
        signal(SIGINT, interrupt);
        signal(SIGTERM, interrupt);
    }
    signal(SIGABRT, crashed);
    if (SANITIZED) return; /* has more to say about the others */
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGFPE, crashed);
}

static void no_log(enum log_level level, const char *line)
{
    (void)level, (void)line;
}

static void trace_log(enum log_level level, const char *line)
{
    (void)level;
    fprintf(stderr, "            | %s\n", line);
}

/* ---- one run
 * -------------------------------------------------------------------------------------- */

static void add(struct totals *t, const struct run_result *r)
{
    uint64_t *to = (uint64_t *)&t->sum.counts;
    const uint64_t *from = (const uint64_t *)&r->counts;
    for (size_t i = 0; i < sizeof r->counts / sizeof *from; i++) to[i] += from[i];
    t->sum.simulated_us += r->simulated_us;
    t->sum.events += r->events;
    t->sum.failover_share += r->failover_share;
    if (r->recovery_us > t->worst_recovery_us) t->worst_recovery_us = r->recovery_us;
    t->runs++;
}

static void print_repeat(const struct arguments *a, uint64_t seed, uint64_t step)
{
    char only[4096];
    only_print(&a->only, only, sizeof only);
    printf("# repeat with: make sim SEED=%" PRIu64, seed);
    if (step) printf(" STEP=%" PRIu64, step);
    if (step && a->after_ms) printf(" AFTER=%" PRIu64, a->after_ms);
    if (only[0]) printf(" ONLY='%s'", only);
    if (a->unmask) printf(" UNMASK=%" PRIu64, a->unmask);
    printf("   (TRACE=1: its story%s)\n", step ? "" : "; SHRINK=1: fewer faults");
}

static void print_failure(const struct arguments *a, const struct run_options *o, const struct run_result *r,
                          uint64_t step)
{
    char text[512];
    run_options_print(o, text, sizeof text);
    printf("# %s\n# %s\n", r->verdict.text, text);
    print_repeat(a, o->seed, step);
}

/* The small world of the enumerating mode: nothing goes wrong but the one crash. Each operation comes twice for each
 * member: the process dies at it, and the power fails. */
static void step_options(const struct arguments *a, struct run_options *o, struct plan *plan, uint64_t step)
{
    o->members = o->members == 1 ? 1 : 3;
    o->sim.members = o->members;
    o->faults = o->stories = o->calm = 0;
    o->length_us = STEP_LENGTH_US + 1000 * a->after_ms;
    o->shaped = false;
    o->think_us = o->think_us < 10000 ? 10000 : o->think_us > 50000 ? 50000 : o->think_us;
    o->snapshot_log_bytes = 2048;
    o->trailing_log_bytes = 512;
    o->segment_bytes = 65536;
    o->sim.net.reset_ppm = 0;
    uint64_t k = step - 1, id = 1 + k % o->members;
    k /= o->members;
    plan_one_crash(plan, 1000 * a->after_ms, id, (unsigned)(k / 2) + 1, k % 2 ? SIM_POWER : SIM_KILL);
    o->plan = plan;
}

/* Its digest. */
static uint64_t run_one(const struct arguments *a, uint64_t seed, uint64_t step, struct totals *t)
{
    static struct plan plan;
    static struct run_result r;
    struct run_options o;
    run_options_from_seed(&o, seed);
    if (step) step_options(a, &o, &plan, step);
    only_apply(&a->only, &o, &plan);
    o.trace = (unsigned)a->trace;
    running_seed = seed;
    running_step = step;
    running_number = (unsigned)t->runs + 1;
    bool ok = run(&o, &r);
    add(t, &r);
    if (a->hours && ok) return r.digest;
    printf("%s %u - seed %" PRIu64, ok ? "ok" : "not ok", running_number, seed);
    if (step) printf(" step %" PRIu64, step);
    printf(" (%u members, %.0f s, %" PRIu64 " acknowledged, %" PRIu64 " faults, digest %016" PRIx64 ")\n", o.members,
           (double)r.simulated_us / 1e6, r.counts.acked, r.counts.faults, r.digest);
    if (!ok) {
        print_failure(a, &o, &r, step);
        t->failures++;
    }
    fflush(stdout);
    return r.digest;
}

/* ---- sums
 * ----------------------------------------------------------------------------------------- */

static void print_totals(const struct totals *t)
{
    const struct run_counts *c = &t->sum.counts;
    double cpu_s = (double)(clock_cpu_us() - t->began_cpu_us) / 1e6, hours = (double)t->sum.simulated_us / 3.6e9;
    printf("# simulated %" PRIu64 " seeds, %.2f hours, %.1f s of CPU (%.1f simulated hours per CPU minute), %" PRIu64
           " events\n",
           t->runs, hours, cpu_s, cpu_s > 0 ? hours / (cpu_s / 60) : 0, t->sum.events);
    printf("# %" PRIu64 " calls: %" PRIu64 " acknowledged, %" PRIu64 " unknown (%" PRIu64 " asked again), %" PRIu64
           " refused, %" PRIu64 " for want of room; %" PRIu64 " reads and %" PRIu64 " slices of long ones checked, %" PRIu64 " watch events checked, %" PRIu64
           " watches compacted away; %" PRIu64 " states compared with another member's, %" PRIu64 " wholly with the model\n",
           c->calls, c->acked, c->unknown, c->retries, c->refused, c->no_space, c->reads_checked, c->slices, c->watch_events, c->watch_cancels,
           c->states, c->whole_states);
    printf("# %" PRIu64 " faults, %" PRIu64 " crashes, %" PRIu64 " changes of leader, %" PRIu64
           " entries, snapshots: %" PRIu64 " taken, %" PRIu64 " sent, %" PRIu64 " installed, %" PRIu64
           " saved; disks damaged: %" PRIu64 ", found: %" PRIu64 " (while in use: %" PRIu64 " of %" PRIu64 "), healed: %" PRIu64
           "; changes of members: %" PRIu64 "; second processes: %" PRIu64 "; namesakes refused: %" PRIu64 "\n",
           c->faults, c->crashes, c->leader_changes, c->entries, c->snapshots_taken, c->snapshots_sent,
           c->snapshots_installed, c->backups, c->damages, c->damages_found, c->rot_found, c->rotted, c->healed, c->changes, c->twins, c->namesakes);
    printf("# worst recovery %.2f s; a silent leader is followed after %.2f election timeouts (mean of %" PRIu64
           "); histories too hard to judge: %" PRIu64 "\n",
           (double)t->worst_recovery_us / 1e6, c->failovers ? t->sum.failover_share / (double)c->failovers : 0,
           c->failovers, c->undecided);
}

/* What only many seeds together show. */
static void check_totals(struct totals *t, unsigned number)
{
    uint64_t n = t->sum.counts.failovers;
    bool ok = n < FAILOVERS_FEW || t->sum.failover_share / (double)n < FAILOVER_SHARE_MAX;
    printf("%s %u - a silent leader is followed in time\n", ok ? "ok" : "not ok", number);
    if (!ok) t->failures++;
    ok = t->sum.counts.rotted < ROTTED_FEW || t->sum.counts.rot_found > t->sum.counts.rotted / ROT_FOUND_SHARE;
    printf("%s %u - what rots while it is in use is found by the scrub\n", ok ? "ok" : "not ok", number + 1);
    if (!ok) t->failures++;
}

/* ---- modes
 * ---------------------------------------------------------------------------------------- */

static int run_seeds(const struct arguments *a)
{
    struct totals totals = {.began_cpu_us = clock_cpu_us()};
    uint64_t steps = a->steps ? a->steps : 1, first = 0, done = 0;
    printf("# seeds from %" PRIu64 " on\n1..%" PRIu64 "\n", a->seed, a->seeds * steps + 3);
    for (; done < a->seeds * steps && totals.failures < a->failures; done++) {
        uint64_t step = a->step ? a->step : a->steps ? 1 + done % steps : 0;
        uint64_t digest = run_one(a, a->seed + done / steps, step, &totals);
        if (done == 0) first = digest;
    }
    if (done == a->seeds * steps) {
        struct arguments quiet = *a;
        struct totals again = {0};
        quiet.trace = 0;
        quiet.hours = 1;
        bool same = run_one(&quiet, a->seed, a->step ? a->step : a->steps ? 1 : 0, &again) == first;
        printf("%s %" PRIu64 " - seed %" PRIu64 " again is the same run\n", same ? "ok" : "not ok", done + 1, a->seed);
        if (!same) totals.failures++;
        check_totals(&totals, (unsigned)done + 2);
    }
    print_totals(&totals);
    if (done < a->seeds * steps) printf("Bail out! %u seeds failed\n", totals.failures);
    return totals.failures ? 1 : 0;
}

static int soak(const struct arguments *a)
{
    struct totals totals = {.began_cpu_us = clock_cpu_us()};
    uint64_t began = clock_mono_ms(), told = began, end = began + a->hours * 3600000;
    uint64_t seed = a->seed;
    printf("# soaking for %" PRIu64 " h, seeds from %" PRIu64 " on\n", a->hours, seed);
    while (clock_mono_ms() < end && !interrupted && totals.failures < a->failures) {
        run_one(a, seed++, 0, &totals);
        if (clock_mono_ms() - told < 60000) continue;
        told = clock_mono_ms();
        printf("# %" PRIu64 " min: %" PRIu64 " seeds, %.1f simulated hours, %.2f CPU hours, %u failed\n",
               (told - began) / 60000, totals.runs, (double)totals.sum.simulated_us / 3.6e9,
               (double)(clock_cpu_us() - totals.began_cpu_us) / 3.6e9, totals.failures);
        fflush(stdout);
    }
    check_totals(&totals, (unsigned)totals.runs + 1);
    printf("# %s: %" PRIu64 " seeds (%" PRIu64 "..%" PRIu64 "), %.1f simulated hours, %.2f CPU hours, %u failed\n",
           interrupted ? "interrupted" : totals.failures ? "failed" : "done", totals.runs, a->seed, seed - 1,
           (double)totals.sum.simulated_us / 3.6e9, (double)(clock_cpu_us() - totals.began_cpu_us) / 3.6e9,
           totals.failures);
    print_totals(&totals);
    return totals.failures ? 1 : 0;
}

static void show_progress(const struct only *o)
{
    printf("# still fails with %u faults\n", o->n_faults);
    fflush(stdout);
}

/* The shortest list of faults that was found, in words, and its story. */
static int shrink_seed(struct arguments *a)
{
    static struct plan plan;
    struct run_options o;
    struct totals totals = {0};
    shrink(a->seed, &a->only, SHRINK_TRIES, show_progress);
    run_options_from_seed(&o, a->seed);
    only_apply(&a->only, &o, &plan);
    printf("# %u faults are left:\n", plan.n);
    for (unsigned i = 0; i < plan.n; i++) {
        char text[256];
        fault_print(&plan.faults[i], text, sizeof text);
        printf("#   %s\n", text);
    }
    if (!a->trace) log_set_sink(no_log);
    run_one(a, a->seed, 0, &totals);
    if (!totals.failures) printf("# it does not fail\n");
    return totals.failures ? 1 : 0;
}

/* ---- arguments
 * ------------------------------------------------------------------------------------ */

static bool number(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = text ? strtoull(text, &end, 10) : 0;
    return text && *text && !*end && !errno;
}

static bool parse(struct arguments *a, char **argv)
{
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"--seeds", &a->seeds},   {"--seed", &a->seed},   {"--unmask", &a->unmask},
                   {"--steps", &a->steps},   {"--step", &a->step},   {"--failures", &a->failures},
                   {"--hours", &a->hours},   {"--after", &a->after_ms}};
    for (char **at = argv + 1; *at; at++) {
        bool known = false;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers && !known; i++) {
            if (strcmp(*at, numbers[i].name) != 0) continue;
            known = true;
            if (numbers[i].to == &a->seed) a->seed_given = true;
            if (!*++at || !number(*at, numbers[i].to)) return false;
        }
        if (known) continue;
        if (strcmp(*at, "--shrink") == 0) a->shrink = true;
        else if (strcmp(*at, "--only") == 0) {
            if (!*++at || !only_parse(&a->only, *at)) return false;
        } else if (strcmp(*at, "--trace") == 0) {
            a->trace = 1;
            if (at[1] && number(at[1], &a->trace)) at++;
        } else return false;
    }
    if (!a->seeds) a->seeds = a->seed_given ? 1 : SEEDS_DEFAULT;
    if (!a->failures) a->failures = a->hours ? 1 : FAILURES_MAX;
    return a->seeds < 100000000 && a->steps < 1000000 && a->after_ms < 1000000 && a->hours < 10000 && (a->seed_given || !a->shrink);
}

int main(int argc, char **argv)
{
    static struct arguments a;
    (void)argc;
    only_init(&a.only);
    if (!parse(&a, argv)) {
        fprintf(stderr, "usage: test_sim [--seeds N] [--seed S [--shrink] [--only WHAT] [--step K]] [--steps N] [--after MS]\n"
                        "                [--trace [2]] [--hours H] [--failures N] [--unmask BITS]\n");
        return 2;
    }
    if (!a.seed_given) a.seed = (uint64_t)clock_wall_ms() * 1000 + clock_mono_us() % 1000;
    catch_signals(a.hours > 0);
    guard_masks &= ~(unsigned)a.unmask;
    log_set_sink(a.trace ? trace_log : no_log);
    if (a.shrink) return shrink_seed(&a);
    return a.hours ? soak(&a) : run_seeds(&a);
}
