/* The log first: entries with their hashes. Then the state: events in revision order, and for each
 * key the places of its own. */
#include "model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/mem.h"
#include "schemas/batch.h"

/* What counts against the quota: each version of a key since the compaction, and what was live at it; and each lease. */
enum { VERSION_COST = 100 /* and its key and value */, LEASE_COST = 64, REQUEST_BYTES = 1536 * 1024 };

struct log_entry {
    uint64_t index, term, hash, chain, member;
    int64_t revision, size; /* after it */
    bool no_space;
};

struct key {
    struct buf name;
    size_t *events, n, size; /* places in model->events */
    int64_t lease;           /* attached now */
};

struct clock_jump {
    uint64_t at_us, by_us;
};

struct model {
    struct verdict *verdict;
    struct log_entry *log;
    size_t n_log, log_size;
    struct model_event *events;
    size_t n_events, events_size;
    struct key *keys;
    size_t n_keys;
    struct model_lease *leases;
    size_t n_leases;
    int64_t revision, compact_revision, quota, size;
    enum { ALARM_OFF, ALARM_BY_QUOTA, ALARM_BY_CLIENT } no_space;
    uint64_t lease_tolerance_us, lease_tolerance_ppm, now_us;
    struct clock_jump *jumps; /* in order */
    size_t n_jumps;
    struct arena arena;
    struct model_stats stats;
};

bool verdict_fail(struct verdict *v, const char *format, ...)
{
    if (v->failed) return false;
    v->failed = true;
    v->format = format;
    va_list args;
    va_start(args, format);
    vsnprintf(v->text, sizeof v->text, format, args);
    va_end(args);
    return false;
}

struct model *model_new(struct verdict *v)
{
    struct model *m = mem_must_calloc(1, sizeof *m);
    m->verdict = v;
    m->revision = 1;
    m->compact_revision = -1;
    model_quota(m, 0);
    return m;
}

void model_free(struct model *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->n_events; i++) buf_release(&m->events[i].value);
    for (size_t i = 0; i < m->n_keys; i++) {
        buf_release(&m->keys[i].name);
        mem_free(m->keys[i].events);
    }
    mem_free(m->events);
    mem_free(m->keys);
    mem_free(m->log);
    mem_free(m->leases);
    mem_free(m->jumps);
    arena_release(&m->arena);
    mem_free(m);
}

/* ---- keys and versions
 * --------------------------------------------------------------------------- */

bool model_in_range(struct slice key, struct slice from, struct slice range_end)
{
    if (range_end.len == 0) return slice_eq(key, from);
    bool to_end = range_end.len == 1 && range_end.data[0] == 0;
    bool all = to_end && from.len == 1 && from.data[0] == 0;
    return all || (slice_cmp(key, from) >= 0 && (to_end || slice_cmp(key, range_end) < 0));
}

static struct key *find_key(const struct model *m, struct slice name)
{
    for (size_t i = 0; i < m->n_keys; i++) {
        if (slice_eq(buf_slice(&m->keys[i].name), name)) return &m->keys[i];
    }
    return NULL;
}

static struct key *make_key(struct model *m, struct slice name)
{
    struct key *k = find_key(m, name);
    if (k) return k;
    m->keys = mem_must_realloc(m->keys, (m->n_keys + 1) * sizeof *m->keys);
    k = &m->keys[m->n_keys++];
    memset(k, 0, sizeof *k);
    CHECK(buf_append_slice(&k->name, name) == 0);
    return k;
}

static const struct model_event *key_at(const struct model *m, const struct key *k, int64_t rev)
{
    size_t lo = 0, hi = k->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->events[k->events[mid]].rev <= rev) lo = mid + 1;
        else hi = mid;
    }
    if (lo == 0) return NULL;
    const struct model_event *ev = &m->events[k->events[lo - 1]];
    return ev->tombstone ? NULL : ev;
}

const struct model_event *model_get(const struct model *m, struct slice name, int64_t rev)
{
    const struct key *k = find_key(m, name);
    return k ? key_at(m, k, rev) : NULL;
}

size_t model_count(const struct model *m, struct slice key, struct slice range_end, int64_t rev)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_keys; i++) {
        n += model_in_range(buf_slice(&m->keys[i].name), key, range_end) &&
             key_at(m, &m->keys[i], rev);
    }
    return n;
}

size_t model_keys(const struct model *m)
{
    return m->n_keys;
}

struct slice model_key_name(const struct model *m, size_t key)
{
    return buf_slice(&m->keys[key].name);
}

static struct model_event *add_event(struct model *m, struct key *k, uint32_t sub)
{
    if (m->n_events == m->events_size) {
        m->events_size = m->events_size ? 2 * m->events_size : 256;
        m->events = mem_must_realloc(m->events, m->events_size * sizeof *m->events);
    }
    if (k->n == k->size) {
        k->size = k->size ? 2 * k->size : 16;
        k->events = mem_must_realloc(k->events, k->size * sizeof *k->events);
    }
    k->events[k->n++] = m->n_events;
    struct model_event *ev = &m->events[m->n_events++];
    memset(ev, 0, sizeof *ev);
    ev->rev = m->revision + 1;
    ev->sub = sub;
    ev->key = (size_t)(k - m->keys);
    m->stats.events++;
    return ev;
}

/* Place of the first event at or after a revision. */
static size_t first_event(const struct model *m, int64_t from)
{
    size_t lo = 0, hi = m->n_events;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->events[mid].rev < from) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

bool model_events(const struct model *m, struct slice key, struct slice range_end, int64_t from,
                  int64_t to, bool (*each)(void *ctx, const struct model_event *ev), void *ctx)
{
    size_t lo = first_event(m, from);
    for (; lo < m->n_events && m->events[lo].rev <= to; lo++) {
        const struct model_event *ev = &m->events[lo];
        if (!model_in_range(buf_slice(&m->keys[ev->key].name), key, range_end)) continue;
        if (!each(ctx, ev)) return false;
    }
    return true;
}

/* ---- the quota
 * ------------------------------------------------------------------------------------- */

void model_quota(struct model *m, int64_t bytes)
{
    m->quota = bytes ? bytes : (int64_t)1 << 31;
}

static int64_t cost_of(const struct model *m, const struct model_event *ev)
{
    return VERSION_COST + (int64_t)m->keys[ev->key].name.len + (int64_t)ev->value.len;
}

/* What this event has put in the place of something older no longer counts once it is compacted; nor does a tombstone. */
static void uncount(struct model *m, size_t at)
{
    const struct model_event *ev = &m->events[at];
    const struct key *k = &m->keys[ev->key];
    size_t place = 0, hi = k->n;
    while (place < hi) {
        size_t mid = (place + hi) / 2;
        if (k->events[mid] < at) place = mid + 1;
        else hi = mid;
    }
    if (place && !m->events[k->events[place - 1]].tombstone) m->size -= cost_of(m, &m->events[k->events[place - 1]]);
    if (ev->tombstone) m->size -= cost_of(m, ev);
}

static int64_t put_cost(const struct put_op *p)
{
    return VERSION_COST + (int64_t)p->key.len + (int64_t)p->value.len;
}

/* Whether there is room; if not the alarm is raised. */
static bool has_room(struct model *m, int64_t cost)
{
    if (cost == 0 || m->size + cost <= m->quota) return true;
    if (m->no_space == ALARM_OFF) m->no_space = ALARM_BY_QUOTA;
    return false;
}

/* The quota's own alarm goes when the largest request has room, but not at once after what it refused. */
static void relax(struct model *m)
{
    int64_t room = m->quota / 20;
    if (room < REQUEST_BYTES) room = REQUEST_BYTES < m->quota / 2 ? REQUEST_BYTES : m->quota / 2;
    if (m->no_space == ALARM_BY_QUOTA && m->size <= m->quota - room) m->no_space = ALARM_OFF;
}

/* ---- leases
 * -------------------------------------------------------------------------------------- */

/* Where it is or would be: they are in order of their ids. */
static size_t lease_place(const struct model *m, int64_t id)
{
    size_t lo = 0, hi = m->n_leases;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->leases[mid].id < id) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

struct model_lease *model_lease(struct model *m, int64_t id)
{
    size_t at = lease_place(m, id);
    return at < m->n_leases && m->leases[at].id == id ? &m->leases[at] : NULL;
}

static struct model_lease *make_lease(struct model *m, int64_t id)
{
    struct model_lease *l = model_lease(m, id);
    if (l) return l;
    size_t at = lease_place(m, id);
    m->leases = mem_must_realloc(m->leases, (m->n_leases + 1) * sizeof *m->leases);
    l = m->leases + at;
    memmove(l + 1, l, (m->n_leases++ - at) * sizeof *l);
    *l = (struct model_lease){.id = id};
    return l;
}

size_t model_leases(const struct model *m, const struct model_lease **ret)
{
    *ret = m->leases;
    return m->n_leases;
}

size_t model_leased_keys(const struct model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_keys; i++) n += m->keys[i].lease != 0;
    return n;
}

void model_lease_asked(struct model *m, int64_t id)
{
    make_lease(m, id)->asked = true;
}

void model_lease_renewed(struct model *m, int64_t id, uint64_t called_us)
{
    struct model_lease *l = model_lease(m, id);
    if (l && called_us > l->renewed_us) l->renewed_us = called_us;
}

void model_lease_tolerance(struct model *m, uint64_t us, uint64_t ppm)
{
    m->lease_tolerance_us = us;
    m->lease_tolerance_ppm = ppm;
}

void model_clock_jumped(struct model *m, uint64_t now_us, uint64_t by_us)
{
    m->jumps = mem_must_realloc(m->jumps, (m->n_jumps + 1) * sizeof *m->jumps);
    m->jumps[m->n_jumps++] = (struct clock_jump){.at_us = now_us, .by_us = by_us};
}

/* The earliest time at which it may end. */
static uint64_t lease_due(const struct model *m, const struct model_lease *l)
{
    uint64_t ttl_us = (uint64_t)l->ttl * 1000000, early = m->lease_tolerance_us + ttl_us / 1000000 * m->lease_tolerance_ppm;
    for (size_t i = m->n_jumps; i > 0 && m->jumps[i - 1].at_us >= l->renewed_us; i--) early += m->jumps[i - 1].by_us;
    return l->renewed_us + ttl_us > early ? l->renewed_us + ttl_us - early : 0;
}

bool model_lease_may_end(const struct model *m, const struct model_lease *l, uint64_t now_us)
{
    return now_us >= lease_due(m, l);
}

/* ---- commands
 * ------------------------------------------------------------------------------------ */

static void do_put(struct model *m, const struct put_op *p, uint32_t *sub)
{
    struct key *k = make_key(m, p->key);
    const struct model_event *old = key_at(m, k, m->revision + 1);
    int64_t create = old ? old->create_rev : m->revision + 1, version = old ? old->version + 1 : 1;
    struct model_event *ev = add_event(m, k, (*sub)++);
    ev->create_rev = create;
    ev->version = version;
    ev->lease = k->lease = p->lease;
    CHECK(buf_append_slice(&ev->value, p->value) == 0);
    m->size += cost_of(m, ev);
}

static void delete_key(struct model *m, struct key *k, uint32_t *sub)
{
    k->lease = 0;
    struct model_event *ev = add_event(m, k, (*sub)++);
    ev->tombstone = true;
    m->size += cost_of(m, ev);
}

static int by_name(const void *a, const void *b, void *ctx)
{
    const struct model *m = ctx;
    return slice_cmp(buf_slice(&m->keys[*(const size_t *)a].name),
                     buf_slice(&m->keys[*(const size_t *)b].name));
}

/* Deletes what `chosen` says of the live keys, in key order. */
static void delete_keys(struct model *m, bool (*chosen)(const struct key *k, const void *arg),
                        const void *arg, uint32_t *sub)
{
    size_t *keys = mem_must_calloc(m->n_keys + 1, sizeof *keys), n = 0;
    for (size_t i = 0; i < m->n_keys; i++) {
        if (key_at(m, &m->keys[i], m->revision + 1) && chosen(&m->keys[i], arg)) keys[n++] = i;
    }
    if (n) qsort_r(keys, n, sizeof *keys, by_name, m);
    for (size_t i = 0; i < n; i++) delete_key(m, &m->keys[keys[i]], sub);
    mem_free(keys);
}

static bool in_delete(const struct key *k, const void *arg)
{
    const struct delete_op *d = arg;
    return model_in_range(buf_slice(&k->name), d->key, d->range_end);
}

static bool on_lease(const struct key *k, const void *arg)
{
    return k->lease == *(const int64_t *)arg;
}

static bool compare_holds(const struct model *m, const struct compare *c)
{
    const struct model_event *ev = model_get(m, c->key, m->revision);
    int order;
    if (c->target == COMPARE_VALUE) {
        if (!ev) return false;
        order = slice_cmp(buf_slice(&ev->value), c->value);
    } else {
        int64_t have = !ev                            ? 0
                       : c->target == COMPARE_VERSION ? ev->version
                       : c->target == COMPARE_CREATE  ? ev->create_rev
                       : c->target == COMPARE_MOD     ? ev->rev
                                                      : ev->lease;
        order = (have > c->number) - (have < c->number);
    }
    switch (c->result) {
    case COMPARE_EQUAL: return order == 0;
    case COMPARE_GREATER: return order > 0;
    case COMPARE_LESS: return order < 0;
    case COMPARE_NOT_EQUAL: return order != 0;
    }
    return false;
}

static void do_op(struct model *m, const struct op *op, uint32_t *sub);

/* What the puts of the branch that is taken cost. */
static int64_t txn_cost(const struct model *m, const struct txn_op *t)
{
    bool holds = true;
    int64_t cost = 0;
    for (size_t i = 0; i < t->n_compares; i++) holds = holds && compare_holds(m, &t->compares[i]);
    const struct op *ops = holds ? t->success : t->failure;
    size_t n = holds ? t->n_success : t->n_failure;
    for (size_t i = 0; i < n; i++)
        cost += ops[i].type == OP_PUT ? put_cost(&ops[i].put) : ops[i].type == OP_TXN ? txn_cost(m, ops[i].txn) : 0;
    return cost;
}

/* A txn is refused as a whole if a range of the branch that is taken asks for what is compacted or yet to come. */
static bool txn_allowed(const struct model *m, const struct txn_op *t)
{
    bool holds = true;
    for (size_t i = 0; i < t->n_compares; i++) holds = holds && compare_holds(m, &t->compares[i]);
    const struct op *ops = holds ? t->success : t->failure;
    size_t n = holds ? t->n_success : t->n_failure;
    for (size_t i = 0; i < n; i++) {
        int64_t rev = ops[i].type == OP_RANGE ? ops[i].range.revision : 0;
        if (rev && (rev > m->revision || rev < m->compact_revision)) return false;
        if (ops[i].type == OP_TXN && !txn_allowed(m, ops[i].txn)) return false;
    }
    return true;
}

static void do_txn(struct model *m, const struct txn_op *t, uint32_t *sub)
{
    bool holds = true;
    for (size_t i = 0; i < t->n_compares; i++) holds = holds && compare_holds(m, &t->compares[i]);
    const struct op *ops = holds ? t->success : t->failure;
    size_t n = holds ? t->n_success : t->n_failure;
    for (size_t i = 0; i < n; i++) do_op(m, &ops[i], sub);
}

static void do_op(struct model *m, const struct op *op, uint32_t *sub)
{
    if (op->type == OP_PUT) do_put(m, &op->put, sub);
    else if (op->type == OP_DELETE) delete_keys(m, in_delete, &op->del, sub);
    else if (op->type == OP_TXN) do_txn(m, op->txn, sub);
}

static void do_compact(struct model *m, int64_t rev)
{
    if (rev <= m->compact_revision || rev > m->revision) {
        m->stats.refused++;
        return;
    }
    for (size_t at = first_event(m, m->compact_revision + 1); at < m->n_events && m->events[at].rev <= rev; at++) uncount(m, at);
    m->compact_revision = rev;
}

static void do_grant(struct model *m, int64_t id, int64_t ttl)
{
    struct model_lease *l = make_lease(m, id);
    if (l->alive || !has_room(m, LEASE_COST)) {
        m->stats.refused++;
        return;
    }
    m->size += LEASE_COST;
    l->alive = true;
    l->ttl = ttl;
    l->remaining = 0;
    l->granted_us = m->now_us;
    if (l->renewed_us < m->now_us) l->renewed_us = m->now_us;
}

static bool do_revoke(struct model *m, int64_t id, uint32_t *sub)
{
    struct model_lease *l = model_lease(m, id);
    if (!l || !l->alive) {
        m->stats.refused++;
        return true;
    }
    if (!l->asked && !model_lease_may_end(m, l, m->now_us)) {
        return verdict_fail(
            m->verdict, "lease %" PRId64 " (ttl %" PRId64 " s) ended %.3f s too early, at %.3f s",
            id, l->ttl, (double)(lease_due(m, l) - m->now_us) / 1e6, (double)m->now_us / 1e6);
    }
    l->alive = false;
    m->size -= LEASE_COST;
    delete_keys(m, on_lease, &id, sub);
    return true;
}

static void do_checkpoint(struct model *m, const struct command *c)
{
    for (size_t i = 0; i < c->checkpoint.count; i++) {
        struct model_lease *l = model_lease(m, c->checkpoint.leases[i].id);
        if (l && l->alive) l->remaining = c->checkpoint.leases[i].remaining_ttl;
    }
}

/* Whether a put or txn changes the state, or is refused as a whole. */
static bool op_allowed(struct model *m, const struct op *op)
{
    if (op->type == OP_PUT && op->put.lease) {
        const struct model_lease *l = model_lease(m, op->put.lease);
        if (!l || !l->alive) return false;
    }
    if (op->type == OP_TXN && !txn_allowed(m, op->txn)) return false;
    return has_room(m, op->type == OP_PUT ? put_cost(&op->put) : op->type == OP_TXN ? txn_cost(m, op->txn) : 0);
}

/* An alarm that a client has raised refuses all that can grow, until a client clears it. */
static bool is_refused(const struct model *m, const struct command *c)
{
    bool puts = c->type == COMMAND_OP && (c->op.type == OP_PUT || (c->op.type == OP_TXN && txn_op_puts(c->op.txn)));
    return m->no_space == ALARM_BY_CLIENT && (puts || c->type == COMMAND_LEASE_GRANT);
}

static bool do_command(struct model *m, const struct command *c)
{
    uint32_t sub = 0;
    bool ok = true;
    m->stats.commands++;
    if (is_refused(m, c)) {
        m->stats.refused++;
        return true;
    }
    switch (c->type) {
    case COMMAND_OP:
        if (op_allowed(m, &c->op)) do_op(m, &c->op, &sub);
        else m->stats.refused++;
        break;
    case COMMAND_COMPACT: do_compact(m, c->compact.revision); break;
    case COMMAND_LEASE_GRANT: do_grant(m, c->lease_grant.id, c->lease_grant.ttl); break;
    case COMMAND_LEASE_REVOKE: ok = do_revoke(m, c->lease_revoke.id, &sub); break;
    case COMMAND_ALARM:
        if (c->alarm.alarm == ALARM_NOSPACE) m->no_space = c->alarm.activate ? ALARM_BY_CLIENT : ALARM_OFF;
        break;
    case COMMAND_LEASE_CHECKPOINT: do_checkpoint(m, c); break;
    case COMMAND_MEMBER_ATTRIBUTES:
    case COMMAND_CHECK:
    case COMMAND_CHECK_REPORT:
    case COMMAND_VERDICT: break;
    }
    if (sub) m->revision++;
    relax(m);
    return ok;
}

/* ---- the log
 * ------------------------------------------------------------------------------------- */

/* Place of the newest entry with index <= `index`, plus one. */
static size_t log_upto(const struct model *m, uint64_t index)
{
    size_t lo = 0, hi = m->n_log;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->log[mid].index <= index) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t entry_hash(uint64_t index, uint64_t term, struct slice entry)
{
    uint64_t h = mix(index) ^ mix(term + 0x9e3779b97f4a7c15u) * 3;
    return mix(
        h ^ ((uint64_t)crc32c(0, entry.data, entry.len) << 32 | crc32c(77, entry.data, entry.len)) ^
        entry.len);
}

static bool run_entry(struct model *m, uint64_t index, struct slice entry)
{
    struct batch_reader r;
    uint64_t seq;
    struct slice bytes;
    struct command command;
    int rv = batch_open(&r, entry);
    while (rv == 0 && (rv = batch_next(&r, &seq, &bytes)) == 1) {
        rv = command_decode(&m->arena, bytes, &command);
        if (rv == 0 && !do_command(m, &command)) return false;
        arena_reset(&m->arena);
    }
    if (rv < 0)
        return verdict_fail(m->verdict, "entry %" PRIu64 " does not decode: %s", index,
                            err_name(rv));
    return true;
}

static bool define(struct model *m, uint64_t member, uint64_t index, uint64_t term,
                   struct slice entry)
{
    const struct log_entry *last = m->n_log ? &m->log[m->n_log - 1] : NULL;
    if (last && index <= last->index) {
        return verdict_fail(m->verdict,
                            "member %" PRIu64 " applies entry %" PRIu64 " of term %" PRIu64
                            ", which member %" PRIu64 " passed over (it was already at %" PRIu64
                            ")",
                            member, index, term, last->member, last->index);
    }
    if (last && term < last->term) {
        return verdict_fail(m->verdict,
                            "entry %" PRIu64 " has term %" PRIu64 ", the one before it %" PRIu64,
                            index, term, last->term);
    }
    uint64_t hash = entry_hash(index, term, entry), chain = mix((last ? last->chain : 0) ^ hash);
    if (!run_entry(m, index, entry)) return false;
    if (m->n_log == m->log_size) {
        m->log_size = m->log_size ? 2 * m->log_size : 256;
        m->log = mem_must_realloc(m->log, m->log_size * sizeof *m->log);
    }
    m->log[m->n_log++] = (struct log_entry){index, term, hash, chain, member, m->revision, m->size, m->no_space != ALARM_OFF};
    m->stats.entries++;
    return true;
}

bool model_apply(struct model *m, uint64_t member, uint64_t last, uint64_t index, uint64_t term,
                 struct slice entry, uint64_t now_us)
{
    m->now_us = now_us;
    if (m->verdict->failed) return false;
    if (index <= last) {
        return verdict_fail(m->verdict,
                            "member %" PRIu64 " applies entry %" PRIu64 " after %" PRIu64, member,
                            index, last);
    }
    size_t at = log_upto(m, last); /* the entry that must come next, barriers aside */
    if (at == m->n_log) return define(m, member, index, term, entry);
    const struct log_entry *e = &m->log[at];
    if (e->index != index) {
        return verdict_fail(m->verdict,
                            "member %" PRIu64 " applies entry %" PRIu64 " (term %" PRIu64
                            ") after %" PRIu64 ", but member %" PRIu64 " applied %" PRIu64
                            " (term %" PRIu64 ") next",
                            member, index, term, last, e->member, e->index, e->term);
    }
    if (e->hash != entry_hash(index, term, entry)) {
        return verdict_fail(m->verdict,
                            "member %" PRIu64 " applies another entry %" PRIu64 " (term %" PRIu64
                            ") than member %" PRIu64 " did (term %" PRIu64 ")",
                            member, index, term, e->member, e->term);
    }
    return true;
}

uint64_t model_last_index(const struct model *m)
{
    return m->n_log ? m->log[m->n_log - 1].index : 0;
}

size_t model_entries(const struct model *m, uint64_t index)
{
    return log_upto(m, index);
}

uint64_t model_chain(const struct model *m, uint64_t index)
{
    size_t n = log_upto(m, index);
    return n ? m->log[n - 1].chain : 0;
}

int64_t model_revision_at(const struct model *m, uint64_t index)
{
    size_t n = log_upto(m, index);
    return n ? m->log[n - 1].revision : 1;
}

int64_t model_size_at(const struct model *m, uint64_t index)
{
    size_t n = log_upto(m, index);
    return n ? m->log[n - 1].size : 0;
}

bool model_no_space_at(const struct model *m, uint64_t index)
{
    size_t n = log_upto(m, index);
    return n && m->log[n - 1].no_space;
}

int64_t model_revision(const struct model *m)
{
    return m->revision;
}

int64_t model_compact_revision(const struct model *m)
{
    return m->compact_revision;
}

const struct model_stats *model_get_stats(const struct model *m)
{
    return &m->stats;
}
