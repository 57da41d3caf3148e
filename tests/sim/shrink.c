#include "shrink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void only_init(struct only *o)
{
    *o = (struct only){.clients = -1, .watchers = -1};
}

static bool parse_faults(struct only *o, const char *text, size_t len)
{
    o->faults_given = true;
    o->n_faults = 0;
    for (const char *end = text + len; text < end;) {
        char *after;
        unsigned long n = strtoul(text, &after, 10);
        if (after == text || n == 0 || o->n_faults == PLAN_FAULTS_MAX) return false;
        o->faults[o->n_faults++] = (unsigned)n;
        if (after < end && *after != ',') return false;
        text = after + 1;
    }
    return true;
}

bool only_parse(struct only *o, const char *text)
{
    while (text && *text) {
        size_t len = strcspn(text, " ");
        const char *colon = memchr(text, ':', len);
        if (!colon) return false;
        size_t name = (size_t)(colon - text);
        int number = atoi(colon + 1);
        if (strncmp(text, "faults", name) == 0) {
            if (!parse_faults(o, colon + 1, len - name - 1)) return false;
        } else if (strncmp(text, "clients", name) == 0) o->clients = number;
        else if (strncmp(text, "watchers", name) == 0) o->watchers = number;
        else if (strncmp(text, "backup", name) == 0) o->no_backup = number == 0;
        else return false;
        text += len + strspn(text + len, " ");
    }
    return true;
}

void only_print(const struct only *o, char *out, size_t size)
{
    size_t n = 0;
    out[0] = 0;
    if (o->faults_given) n += (size_t)snprintf(out, size, "faults:");
    for (unsigned i = 0; o->faults_given && i < o->n_faults && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%u", i ? "," : "", o->faults[i]);
    if (o->clients >= 0 && n < size) n += (size_t)snprintf(out + n, size - n, " clients:%d", o->clients);
    if (o->watchers >= 0 && n < size) n += (size_t)snprintf(out + n, size - n, " watchers:%d", o->watchers);
    if (o->no_backup && n < size) snprintf(out + n, size - n, " backup:0");
}

void only_apply(const struct only *o, struct run_options *options, struct plan *plan)
{
    if (!options->plan) plan_make(plan, options);
    else if (options->plan != plan) *plan = *options->plan;
    if (o->faults_given) plan_keep(plan, o->faults, o->n_faults);
    options->plan = plan;
    if (o->clients >= 0) options->clients = (unsigned)o->clients;
    if (o->watchers >= 0) options->watchers = (unsigned)o->watchers;
    options->no_backup = o->no_backup;
}

/* ---- ddmin
 * --------------------------------------------------------------------------------------- */

struct shrinking {
    uint64_t seed;
    const char *how; /* the format of the verdict */
    unsigned tries_left;
    struct only *best;
    void (*progress)(const struct only *o);
};

/* Runs it; what the verdict's format is, or NULL if it passes. */
static const char *fails(uint64_t seed, const struct only *only)
{
    struct run_options o;
    struct run_result *ret = malloc(sizeof *ret);
    struct plan *plan = malloc(sizeof *plan);
    run_options_from_seed(&o, seed);
    only_apply(only, &o, plan);
    const char *how = run(&o, ret) ? NULL : ret->verdict.format;
    free(plan);
    free(ret);
    return how;
}

/* Whether it still fails in the same way; then it is the best so far. */
static bool try(struct shrinking *s, const struct only *candidate)
{
    if (s->tries_left == 0) return false;
    s->tries_left--;
    if (fails(s->seed, candidate) != s->how) return false;
    *s->best = *candidate;
    if (s->progress) s->progress(s->best);
    return true;
}

/* Without the part [from, to) of the best list. */
static bool try_without(struct shrinking *s, unsigned from, unsigned to)
{
    struct only c = *s->best;
    c.n_faults = from;
    for (unsigned i = to; i < s->best->n_faults; i++) c.faults[c.n_faults++] = s->best->faults[i];
    return try(s, &c);
}

static void drop_faults(struct shrinking *s)
{
    for (unsigned parts = 2; s->best->n_faults > 0 && s->tries_left;) {
        unsigned n = s->best->n_faults;
        if (parts > n) parts = n;
        bool smaller = false;
        for (unsigned i = 0; i < parts && !smaller; i++)
            smaller = try_without(s, n * i / parts, n * (i + 1) / parts);
        if (smaller) parts = parts > 2 ? parts - 1 : 2;
        else if (parts == n) return;
        else parts *= 2;
    }
}

static void drop_load(struct shrinking *s, unsigned clients)
{
    struct only c = *s->best;
    c.watchers = 0;
    (void)try(s, &c);
    c = *s->best;
    c.no_backup = true;
    (void)try(s, &c);
    for (unsigned n = 1; n < clients; n = n < 4 ? n + 1 : 2 * n) {
        c = *s->best;
        c.clients = (int)n;
        if (try(s, &c)) return;
    }
}

void shrink(uint64_t seed, struct only *only, unsigned tries, void (*progress)(const struct only *o))
{
    struct run_options o;
    struct plan *plan = malloc(sizeof *plan);
    run_options_from_seed(&o, seed);
    if (!only->faults_given) {
        plan_make(plan, &o);
        only->faults_given = true;
        for (unsigned i = 0; i < plan->n; i++) only->faults[only->n_faults++] = plan->faults[i].number;
    }
    free(plan);
    struct shrinking s = {seed, fails(seed, only), tries, only, progress};
    if (!s.how) return;
    drop_faults(&s);
    drop_load(&s, o.clients);
    drop_faults(&s);
}
