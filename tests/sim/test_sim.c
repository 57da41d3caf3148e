/* The release gate: runs seeds, each a whole cluster through faults, and judges what its clients
 * saw.
 *
 *   test_sim [--seeds N] [--seed S] [--trace] [--unmask BITS]
 *
 * --seed S repeats exactly that seed (with --seeds N: N seeds from S on). Without it fresh seeds
 * are taken from the clock. Prints TAP; for each failure what was found and the one command that
 * repeats it. --trace prints every event to standard error.
 * --unmask lets defects of libraft through that the guard masks (the bits of raft/guard_int.h):
 * then seeds must fail. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "harness.h"
#include "raft/guard_int.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1, SEEDS_DEFAULT = 40, FAILURES_MAX = 10 }; /* many times slower */
#else
enum { SANITIZED = 0, SEEDS_DEFAULT = 200, FAILURES_MAX = 10 };
#endif

/* What runs now, for the line that a crash leaves. */
static uint64_t running_seed;
static unsigned running_number;

static void crashed(int signal_number)
{
    char text[160];
    int n = snprintf(text, sizeof text,
                     "not ok %u - seed %" PRIu64
                     " crashed: signal %d\n# repeat with: make sim SEED=%" PRIu64 "\n",
                     running_number, running_seed, signal_number, running_seed);
    if (write(STDOUT_FILENO, text, (size_t)n) != n) _exit(2);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void catch_crashes(void)
{
    signal(SIGABRT, crashed);
    if (SANITIZED) return; /* has more to say about the others */
    signal(SIGSEGV, crashed);
    signal(SIGBUS, crashed);
    signal(SIGFPE, crashed);
}

struct totals {
    uint64_t simulated_us, events, calls, acked, unknown, refused, reads, watch_events,
        watch_cancels, entries, snapshots_taken, snapshots_sent, snapshots_installed,
        leader_changes, crashes, faults, undecided, bit_flips, bit_flips_found, backups,
        worst_recovery_us;
    unsigned failures;
};

static void no_log(enum log_level level, const char *line)
{
    (void)level, (void)line;
}

static void trace_log(enum log_level level, const char *line)
{
    (void)level;
    fprintf(stderr, "%s\n", line);
}

static void add(struct totals *t, const struct run_result *r)
{
    t->simulated_us += r->simulated_us;
    t->events += r->events;
    t->calls += r->calls;
    t->acked += r->acked;
    t->unknown += r->unknown;
    t->refused += r->refused;
    t->reads += r->reads_checked;
    t->watch_events += r->watch_events;
    t->watch_cancels += r->watch_cancels;
    t->entries += r->entries;
    t->snapshots_taken += r->snapshots_taken;
    t->snapshots_sent += r->snapshots_sent;
    t->snapshots_installed += r->snapshots_installed;
    t->leader_changes += r->leader_changes;
    t->crashes += r->crashes;
    t->faults += r->faults;
    t->undecided += r->undecided;
    t->bit_flips += r->bit_flips;
    t->backups += r->backups;
    t->bit_flips_found += r->bit_flips_found;
    if (r->recovery_us > t->worst_recovery_us) t->worst_recovery_us = r->recovery_us;
}

static uint64_t run_one(uint64_t seed, unsigned number, bool trace, struct totals *t)
{
    struct run_options o;
    struct run_result r;
    run_options_from_seed(&o, seed);
    o.trace = trace;
    running_seed = seed;
    running_number = number;
    bool ok = run(&o, &r);
    add(t, &r);
    printf("%s %u - seed %" PRIu64 " (%u members, %.0f s, %" PRIu64 " acknowledged, %" PRIu64
           " faults, digest %016" PRIx64 ")\n",
           ok ? "ok" : "not ok", number, seed, o.members, (double)r.simulated_us / 1e6, r.acked,
           r.faults, r.digest);
    if (!ok) {
        char text[512];
        run_options_print(&o, text, sizeof text);
        printf("# %s\n# %s\n# repeat with: make sim SEED=%" PRIu64 "\n", r.verdict.text, text,
               seed);
        t->failures++;
    }
    fflush(stdout);
    return r.digest;
}

/* The first seed once more: its digest must be the same. */
static void run_again(uint64_t seed, uint64_t digest, unsigned number, struct totals *t)
{
    struct run_options o;
    struct run_result r;
    run_options_from_seed(&o, seed);
    run(&o, &r);
    printf("%s %u - seed %" PRIu64 " again is the same run\n", r.digest == digest ? "ok" : "not ok",
           number, seed);
    if (r.digest != digest) t->failures++;
}

static void print_totals(const struct totals *t, unsigned n, double cpu_s)
{
    printf("# simulated %u seeds, %.2f hours, %.1f s of CPU (%.0f times faster), %" PRIu64
           " events\n",
           n, (double)t->simulated_us / 3.6e9, cpu_s,
           cpu_s > 0 ? (double)t->simulated_us / 1e6 / cpu_s : 0, t->events);
    printf("# %" PRIu64 " calls: %" PRIu64 " acknowledged, %" PRIu64 " unknown, %" PRIu64
           " refused; %" PRIu64 " reads checked, %" PRIu64 " watch events checked, %" PRIu64
           " watches compacted away\n",
           t->calls, t->acked, t->unknown, t->refused, t->reads, t->watch_events, t->watch_cancels);
    printf("# %" PRIu64 " faults, %" PRIu64 " crashes, %" PRIu64 " changes of leader, %" PRIu64
           " entries, snapshots: %" PRIu64 " taken, %" PRIu64 " sent, %" PRIu64
           " installed, %" PRIu64 " saved; bits flipped: %" PRIu64 ", refused: %" PRIu64 "\n",
           t->faults, t->crashes, t->leader_changes, t->entries, t->snapshots_taken,
           t->snapshots_sent, t->snapshots_installed, t->backups, t->bit_flips, t->bit_flips_found);
    printf("# worst recovery %.2f s; histories too hard to judge: %" PRIu64 "\n",
           (double)t->worst_recovery_us / 1e6, t->undecided);
}

static bool number(const char *text, uint64_t *ret)
{
    char *end;
    errno = 0;
    *ret = text ? strtoull(text, &end, 10) : 0;
    return text && *text && !*end && !errno;
}

int main(int argc, char **argv)
{
    uint64_t seeds = 0, seed = 0;
    uint64_t unmask = 0;
    bool trace = false, given = false;
    for (int i = 1; i < argc; i++) {
        bool ok = true;
        if (strcmp(argv[i], "--trace") == 0) trace = true;
        else if (strcmp(argv[i], "--seeds") == 0)
            ok = number(argv[++i], &seeds) && seeds > 0 && seeds < 100000000;
        else if (strcmp(argv[i], "--unmask") == 0) ok = number(argv[++i], &unmask);
        else if (strcmp(argv[i], "--seed") == 0) ok = given = number(argv[++i], &seed);
        else ok = false;
        if (!ok) {
            fprintf(stderr, "usage: test_sim [--seeds N] [--seed S] [--trace] [--unmask BITS]\n");
            return 2;
        }
    }
    if (!seeds) seeds = given ? 1 : SEEDS_DEFAULT;
    if (!given) seed = (uint64_t)clock_wall_ms() * 1000 + clock_mono_us() % 1000;
    catch_crashes();
    guard_masks &= ~(unsigned)unmask;
    log_set_sink(trace ? trace_log : no_log);
    printf("# seeds from %" PRIu64 " on\n1..%" PRIu64 "\n", seed, seeds + 1);
    struct totals totals = {0};
    uint64_t began = clock_cpu_us(), done = 0;
    uint64_t first = 0;
    for (; done < seeds && totals.failures < FAILURES_MAX; done++) {
        uint64_t digest = run_one(seed + done, (unsigned)done + 1, trace, &totals);
        if (done == 0) first = digest;
    }
    if (done == seeds) run_again(seed, first, (unsigned)done + 1, &totals);
    print_totals(&totals, (unsigned)done, (double)(clock_cpu_us() - began) / 1e6);
    if (done < seeds) printf("Bail out! %u seeds failed\n", totals.failures);
    return totals.failures ? 1 : 0;
}
