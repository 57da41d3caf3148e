/* Clients: each asks one thing at a time of some member, waits for the answer or gives up, thinks,
 * and asks again. Every answer is compared with the model at the revision it names, which must not
 * lie before anything that was answered when the question was asked (clients_check.c); and all of
 * them together make the history that linear.h judges, knowing nothing of revisions. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "clients_int.h"

enum { LINEAR_STEPS = 3000000, STEADY_ANSWER_US = 1500000 };

static void client_next(void *arg);

static void ask_free(struct ask *a)
{
    list_remove(&a->node);
    core_request_release(&a->request);
    buf_release(&a->bytes);
    buf_release(&a->bytes2);
    buf_release(&a->expect_bytes);
    buf_release(&a->command);
    a->run->n_asks--;
    mem_free(a);
}

/* How long clients think at this time of the run. */
static uint64_t think_us(const struct run *r)
{
    uint64_t now = sim_now_us(r->sim);
    for (unsigned i = 0; i < r->plan.n_shapes && !r->winding_down; i++) {
        if (now < r->plan.shapes[i].until_us) return r->plan.shapes[i].think_us;
    }
    return r->o.think_us;
}

static void client_rests(struct client *c)
{
    struct run *r = c->run;
    c->ask = NULL;
    if (!r->ending) sim_at(r->sim, sim_random_range(&r->random, 0, 2 * think_us(r)), client_next, c);
}

void clients_asked(struct run *r, uint64_t value)
{
    if (!value) return;
    if (value >= r->asked_size) {
        size_t size = r->asked_size ? 2 * r->asked_size : 1024;
        r->asked = mem_must_realloc(r->asked, size * sizeof *r->asked);
        memset(r->asked + r->asked_size, 0, (size - r->asked_size) * sizeof *r->asked);
        r->asked_size = size;
    }
    r->asked[value]++;
}

void clients_refused(struct run *r, uint64_t value)
{
    if (value) r->asked[value]--;
}

static bool outcome_unknown(int code)
{
    return code == ERR_TIMEOUT || code == ERR_LEADER_CHANGED || code == ERR_STOPPED ||
           code == ERR_UNAVAILABLE;
}

static bool never_sent(int code)
{
    return code == ERR_NO_LEADER || code == ERR_TOO_MANY_REQUESTS;
}

/* After the faults, in calm, nothing may fail or take long. */
static void check_steady(struct ask *a, const char *how)
{
    struct run *r = a->run;
    uint64_t took = sim_now_us(r->sim) - a->called_us;
    if (!r->steady_us || a->called_us < r->steady_us || (!how && took < STEADY_ANSWER_US)) return;
    verdict_fail(&r->verdict, "in calm, %.3f s after a %s was asked of member %" PRIu64 ": %s",
                 (double)took / 1e6, ask_name(a->kind), a->life ? a->life->id : 0,
                 how ? how : "a late answer");
}

/* It may have happened or may yet. Some clients do not wait to see which, and ask again. */
static void ask_unknown(struct ask *a)
{
    struct run *r = a->run;
    r->result->counts.unknown++;
    ask_record(a, false);
    if (ask_may_come_again(a->kind) && sim_chance(&r->random, r->o.retry_ppm))
        a->client->again = (struct again){a->kind, a->key, a->key2, a->value, a->value2}, r->result->counts.retries++;
}

/* What the client makes of the answer. */
static void ask_answered(struct ask *a)
{
    struct run *r = a->run;
    int code = a->request.code;
    run_trace(r, "client %u is told by m%" PRIu64 ": %s %s: %s, revision %" PRId64, a->client->number, a->life->id,
              ask_name(a->kind), a->key_text, code ? err_name(code) : "done", a->request.ret_revision);
    check_steady(a, never_sent(code) || outcome_unknown(code) ? err_name(code) : NULL);
    if (code == 0) {
        r->result->counts.acked++;
        if (ask_check(a)) ask_record(a, true);
    } else if (never_sent(code)) {
        r->result->counts.refused++;
        clients_refused(r, a->value);
        clients_refused(r, a->value2);
    } else if (outcome_unknown(code)) {
        ask_unknown(a);
    } else {
        ask_check_refusal(a);
    }
}

static void on_done(struct core_request *q)
{
    struct ask *a = container_of(q, struct ask, request);
    struct client *c = a->client;
    if (c && a->life && !life_gone(a->life)) {
        ask_answered(a);
        client_rests(c);
    } else if (c) {
        ask_unknown(a);
        client_rests(c);
    }
    ask_free(a);
}

static void ask_submit(void *arg)
{
    struct ask *a = arg;
    if (life_gone(a->life)) return; /* freed with it */
    a->submitted = true;
    core_submit(a->life->core, &a->request);
}

/* The client waits no longer: what it asked may still happen. */
static void ask_abandon(struct ask *a)
{
    struct client *c = a->client;
    check_steady(a, "no answer");
    ask_unknown(a);
    a->client = NULL;
    client_rests(c);
}

static void client_deadline(void *arg)
{
    struct client *c = arg;
    if (c->ask && c->ask->give_up_us <= sim_now_us(c->run->sim)) ask_abandon(c->ask);
}

static void client_next(void *arg)
{
    struct client *c = arg;
    struct run *r = c->run;
    struct life *l = cluster_some(r, &r->random);
    if (r->ending) return;
    struct ask *a = mem_must_calloc(1, sizeof *a);
    list_init(&a->node);
    a->run = r;
    a->client = c;
    a->kind = c->again.value ? c->again.kind : ask_choose(r);
    a->request.done = on_done;
    r->n_asks++;
    if (!l || !ask_make(a)) {
        ask_free(a);
        client_rests(c);
        return;
    }
    clients_asked(r, a->value);
    clients_asked(r, a->value2);
    c->again.value = 0;
    a->life = l;
    a->call = ++r->clock;
    a->called_us = sim_now_us(r->sim);
    a->floor = r->floor;
    uint64_t patience_us = a->request.timeout_ms * 1500;
    a->give_up_us = a->called_us + patience_us;
    sim_at(r->sim, patience_us, client_deadline, c);
    c->ask = a;
    r->result->counts.calls++;
    list_push_back(&l->asks, &a->node);
    run_trace(r, "client %u asks m%" PRIu64 ": %s %s value %" PRIu64, c->number, l->id,
              ask_name(a->kind), a->key_text, a->value);
    sim_at_member(r->sim, l->id, sim_random_range(&r->random, 50, 1000), ask_submit, a);
}

void clients_lost(struct run *r, struct life *l)
{
    (void)r;
    list_for_each(n, &l->asks)
    {
        struct ask *a = container_of(n, struct ask, node);
        list_remove(&a->node);
        if (a->client) ask_abandon(a);
        a->life = NULL;
        if (!a->submitted) ask_free(a);
    }
}

void clients_start(struct run *r)
{
    for (unsigned i = 0; i < r->o.clients; i++) {
        struct client *c = r->clients[i] = mem_must_calloc(1, sizeof *c);
        c->run = r;
        c->number = i;
        client_rests(c);
    }
}

void clients_free(struct run *r)
{
    for (unsigned i = 0; i < r->o.clients; i++) mem_free(r->clients[i]);
    mem_free(r->history);
    mem_free(r->asked);
}

bool clients_idle(const struct run *r)
{
    for (unsigned i = 0; i < r->o.clients; i++) {
        if (r->clients[i]->ask) return false;
    }
    return true;
}

/* ---- at the end
 * ---------------------------------------------------------------------------------- */

static bool was_asked_for(void *ctx, const struct model_event *ev)
{
    struct run *r = ctx;
    uint64_t value = value_number(buf_slice(&ev->value));
    if (value == 0 || (value <= r->next_value && r->asked[value]-- > 0)) return true;
    return verdict_fail(&r->verdict,
                        "value v%" PRIu64 " was written at revision %" PRId64
                        ": its client was told that it was never sent, or once more than it was asked for",
                        value, ev->rev);
}

bool clients_check_history(struct run *r)
{
    struct slice all = slice_make("\0", 1);
    if (!model_events(r->model, all, all, 1, INT64_MAX, was_asked_for, r)) return false;
    struct linear_report report;
    enum linear_result result = linear_check(r->history, r->n_history, LINEAR_STEPS, &report);
    if (result == LINEAR_UNDECIDED) r->result->counts.undecided++;
    if (result != LINEAR_VIOLATION) return true;
    const struct linear_op *op = report.stuck;
    return verdict_fail(&r->verdict,
                        "the history of key k/%02" PRIu64
                        " is not linearizable: no order explains the %s that was called at %" PRIu64
                        " and returned at %" PRIu64 " (value v%" PRIu64 ", expected v%" PRIu64
                        ", saw v%" PRIu64 ")",
                        report.key,
                        op->kind == LINEAR_READ    ? "read"
                        : op->kind == LINEAR_WRITE ? "write"
                                                   : "compare-and-swap",
                        op->call, op->ret, op->value, op->expect, op->got);
}

static bool same_record(const struct range_result *got, const struct model_event *ev)
{
    if (got->n != (ev ? 1u : 0u)) return false;
    if (!ev) return true;
    const struct record *rec = got->records[0];
    return rec->mod_rev == ev->rev && rec->version == ev->version &&
           rec->create_rev == ev->create_rev && rec->lease == ev->lease &&
           slice_eq(record_value(rec), buf_slice(&ev->value));
}

bool clients_check_store(struct run *r, struct store *s, int64_t rev, const char *what, uint64_t id)
{
    struct arena arena = {0};
    struct slice all = slice_make("\0", 1);
    bool ok = true;
    for (size_t k = 0; k < model_keys(r->model) && ok; k++) {
        struct slice key = model_key_name(r->model, k);
        struct range_op op = {.key = key};
        struct range_result got = {0};
        int rv = store_range(s, &op, &arena, &got);
        if (rv != 0 || !same_record(&got, model_get(r->model, key, rev))) {
            ok = verdict_fail(&r->verdict,
                              "%s of member %" PRIu64 " at revision %" PRId64
                              " has another %.*s than the log says",
                              what, id, rev, (int)key.len, (const char *)key.data);
        }
        for (size_t i = 0; rv == 0 && i < got.n; i++) record_unref(got.records[i]);
        arena_reset(&arena);
    }
    arena_release(&arena);
    int64_t keys = (int64_t)model_count(r->model, all, all, rev);
    if (ok && store_keys(s) != keys) {
        ok = verdict_fail(&r->verdict,
                          "%s of member %" PRIu64 " has %" PRId64 " keys, the log makes %" PRId64,
                          what, id, store_keys(s), keys);
    }
    return ok;
}

bool clients_check_member(struct run *r, struct life *l)
{
    struct store *s = (struct store *)(uintptr_t)core_store(l->core);
    int64_t rev = model_revision(r->model);
    if (store_revision(s) != rev) {
        return verdict_fail(&r->verdict,
                            "member %" PRIu64 " ends at revision %" PRId64 ", not %" PRId64, l->id,
                            store_revision(s), rev);
    }
    return clients_check_store(r, s, rev, "the end", l->id);
}
