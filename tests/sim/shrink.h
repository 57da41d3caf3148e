/* Which faults of a failing seed are needed, and how little of everything else.
 *
 * Zeller and Hildebrandt's ddmin over the list of faults ("Simplifying and isolating failure-inducing input",
 * 2002): leaves out parts of the list as long as the run still fails in the same way. Then watchers, backups and
 * clients. Leaving something out changes the chances of all that follows, so what remains is small, not minimal. */
#ifndef PINTLE_TESTS_SIM_SHRINK_H
#define PINTLE_TESTS_SIM_SHRINK_H

#include "harness.h"

/* What of a run is left: ranges of a plan's faults by number, and fewer clients and watchers. */
struct only {
    bool faults_given;
    unsigned faults[PLAN_FAULTS_MAX], n_faults;
    int clients, watchers; /* -1: as the seed says */
    bool no_backup;
};

void only_init(struct only *o);
/* "faults:3,7,9 clients:2 watchers:0 backup:0" */
bool only_parse(struct only *o, const char *text);
void only_print(const struct only *o, char *out, size_t size);
/* Changes the options and makes the plan that they point to. */
void only_apply(const struct only *o, struct run_options *options, struct plan *plan);

/* `o` fails; shrinks `only`. At most `tries` runs. */
void shrink(uint64_t seed, struct only *only, unsigned tries, void (*progress)(const struct only *o));

#endif
