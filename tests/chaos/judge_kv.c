/* Each request and its answer against the timeline. An answer names a revision: a write must have made just that revision, a read
 * must have seen just the state at it; and in real time no answer lies before what anyone had been told when it was asked. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "judge_int.h"

enum { CODE_NOT_FOUND = 5, CODE_FAILED_PRECONDITION = 9, CODE_OUT_OF_RANGE = 11 };

static bool has(struct slice s, const char *part)
{
    return memmem(s.data ? (const void *)s.data : "", s.len, part, strlen(part)) != NULL;
}

/* ---- one operation ------------------------------------------------------------------------------------- */

static bool compare_holds(const struct judge *j, const struct compare *c, size_t at)
{
    const struct change *ch = timeline_get(j, c->key, at);
    int order;
    if (c->target == 3) {
        if (!ch) return false;
        order = slice_cmp(ch->value, c->value);
    } else {
        int64_t have = !ch ? 0 : c->target == 0 ? ch->version : c->target == 1 ? ch->create : c->target == 2 ? ch->rev : ch->lease;
        order = (have > c->number) - (have < c->number);
    }
    return c->result == 0 ? order == 0 : c->result == 1 ? order > 0 : c->result == 2 ? order < 0 : order != 0;
}

static int64_t sort_number(const struct kv *kv, int target)
{
    return target == 1 ? kv->version : target == 2 ? kv->create : kv->mod;
}

/* NULL, or what is wrong with the answer. Sorted by anything but the key the order of equal ones is free. */
static const char *check_range(const struct judge *j, const struct kv_op *q, const struct kv_result *r, size_t at)
{
    size_t n;
    const struct change **live = timeline_range(j, q->key, q->end, at, &n);
    size_t want = q->count_only ? 0 : q->limit && (size_t)q->limit < n ? (size_t)q->limit : n;
    bool by_key = q->order == 0 || q->target == 0, down = q->order == 2;
    if (r->count != (int64_t)n) return "wrong count";
    if (r->n != want) return "wrong number of keys";
    if (r->more != (!q->count_only && want < n)) return "wrong \"more\"";
    for (size_t i = 0; i < r->n; i++) {
        const struct kv *kv = &r->kvs[i];
        if (by_key) {
            if (!same_kv(kv, live[down ? n - 1 - i : i], q->keys_only)) return "another value than the state at its revision";
            continue;
        }
        const struct change *c = timeline_get(j, kv->key, at);
        if (!c || !same_kv(kv, c, q->keys_only)) return "a value that is not in the state at its revision";
        if (i == 0) continue;
        int64_t a = sort_number(&r->kvs[i - 1], q->target), b = sort_number(kv, q->target);
        if (down ? a < b : a > b) return "not in the order asked for";
    }
    for (size_t i = 0; !by_key && want < n && want > 0 && i < n; i++) { /* nothing left out that comes before the last one shown */
        struct kv kv = {live[i]->key, live[i]->value, live[i]->create, live[i]->rev, live[i]->version, live[i]->lease};
        int64_t a = sort_number(&kv, q->target), last = sort_number(&r->kvs[r->n - 1], q->target);
        bool shown = false;
        for (size_t k = 0; k < r->n; k++) shown = shown || slice_eq(r->kvs[k].key, kv.key);
        if (!shown && (down ? a > last : a < last)) return "the limit left out the wrong ones";
    }
    return NULL;
}

/* Walks through the changes of one revision as the operations of a request make them. */
struct walk {
    const struct judge *j;
    size_t at, end; /* the next change; the end of its revision. Equal for what makes none. */
};

static const char *walk_put(struct walk *w, const struct kv_op *q, const struct kv_result *r)
{
    if (w->at == w->end) return "its put did not happen";
    const struct change *c = &w->j->changes[w->at], *before = timeline_get(w->j, q->key, w->at);
    if (c->tombstone || !slice_eq(c->key, q->key) || !slice_eq(c->value, q->value) || c->lease != q->lease) return "another change than its put";
    w->at++;
    if (!r) return NULL;
    if (!q->prev || !before) return r->n ? "a previous value that it must not have" : NULL;
    return r->n == 1 && same_kv(&r->kvs[0], before, false) ? NULL : "wrong previous value";
}

static const char *walk_delete(struct walk *w, const struct kv_op *q, const struct kv_result *r)
{
    size_t n;
    const struct change **live = timeline_range(w->j, q->key, q->end, w->at, &n);
    if (r && r->count != (int64_t)n) return "wrong number of deleted keys";
    if (r && r->n != (q->prev ? n : 0)) return "wrong number of previous values";
    for (size_t i = 0; i < n; i++, w->at++) {
        if (w->at == w->end) return "its delete did not happen";
        const struct change *c = &w->j->changes[w->at];
        if (!c->tombstone || !slice_eq(c->key, live[i]->key)) return "another change than its delete";
        if (r && q->prev && !same_kv(&r->kvs[i], live[i], false)) return "wrong previous value";
    }
    return NULL;
}

static const char *walk_op(struct walk *w, const struct kv_op *q, const struct kv_result *r)
{
    switch (q->type) {
    case KV_PUT: return walk_put(w, q, r);
    case KV_DELETE: return walk_delete(w, q, r);
    case KV_RANGE: break;
    }
    return r ? check_range(w->j, q, r, q->rev ? timeline_at(w->j, q->rev + 1) : w->at) : NULL;
}

/* The whole request on the state `at`; it makes the changes [at, end). Without `results` (unknown) only these are looked at. */
static const char *walk_request(const struct judge *j, const struct op *op, size_t at, size_t end, bool results)
{
    struct walk w = {j, at, end};
    bool holds = true;
    for (size_t i = 0; i < op->n_compare; i++) holds = holds && compare_holds(j, &op->compare[i], at);
    if (results && op->txn && holds != op->ok) return holds ? "its compares hold, but it says they do not" : "its compares do not hold, but it says they do";
    const struct kv_op *ops = holds ? op->then : op->other;
    size_t n = holds ? op->n_then : op->n_else;
    if (results && op->n_results != n) return "wrong number of results";
    for (size_t i = 0; i < n; i++) {
        const char *bad = walk_op(&w, &ops[i], results ? &op->results[i] : NULL);
        if (bad) return bad;
    }
    return w.at == end ? NULL : "changes at its revision that it did not ask for";
}

/* ---- those that were answered ------------------------------------------------------------------------------ */

static bool made_changes(const struct op *op)
{
    const struct kv_op *ops = op->ok ? op->then : op->other;
    size_t n = op->ok ? op->n_then : op->n_else;
    for (size_t i = 0; i < n && i < op->n_results; i++)
        if (ops[i].type == KV_PUT || (ops[i].type == KV_DELETE && op->results[i].count > 0)) return true;
    return false;
}

static void check_answered(struct judge *j, struct op *op)
{
    bool wrote = made_changes(op);
    const char *bad;
    if (op->rev > j->top) return; /* said already, or cut off */
    if (wrote) {
        j->n_writes++;
        if (j->owner[op->rev]) {
            violation(j, op->line, "revision %" PRId64 " is that of two writes (the other in line %u)", op->rev, j->owner[op->rev]->line);
            return;
        }
        j->owner[op->rev] = op;
        op->owns = op->rev;
        bad = walk_request(j, op, timeline_at(j, op->rev), timeline_at(j, op->rev + 1), true);
    } else {
        size_t at = timeline_at(j, op->rev + 1);
        j->n_reads++;
        bad = walk_request(j, op, at, at, true);
    }
    if (bad) violation(j, op->line, "%s at revision %" PRId64 ": %s", wrote ? "a write" : "a read", op->rev, bad);
}

static void check_order(struct judge *j, const struct op *op)
{
    if (op->kind == OP_KEEP || op->kind == OP_HASH || (op->kind == OP_KV && !op->lin)) return;
    if (op->owns ? op->rev <= op->floor : op->rev < op->floor)
        violation(j, op->line, "answered with revision %" PRId64 ", but revision %" PRId64 " had been shown before it was asked", op->rev, op->floor);
    if (op->owns && j->seen_ns[op->rev] < op->t0)
        violation(j, op->line, "revision %" PRId64 " was shown before this write of it was asked for", op->rev);
}

/* A refusal for what was asked must be true. */
static void check_error(struct judge *j, const struct op *op)
{
    int64_t wanted = op->kind == OP_KV ? op->n_then ? op->then[0].rev : 0 : op->arg;
    if (op->code == CODE_OUT_OF_RANGE && has(op->text, "compacted") && wanted) {
        int64_t most = compacted_by(j, op->t1, false);
        if (op->kind == OP_COMPACT ? most < wanted : most <= wanted)
            violation(j, op->line, "revision %" PRId64 " was refused as compacted, but compactions went to %" PRId64, wanted, most);
    } else if (op->code == CODE_OUT_OF_RANGE && has(op->text, "future") && wanted) {
        if (op->lin && op->kind == OP_KV && wanted <= op->floor) violation(j, op->line, "revision %" PRId64 " was refused as of the future", wanted);
    } else if (op->code == CODE_NOT_FOUND && has(op->text, "lease")) {
        int64_t lease = op->lease ? op->lease : op->n_then ? op->then[0].lease : 0;
        unsigned line = lease_must_live(j, lease, op->t1);
        if (line) violation(j, op->line, "lease %" PRId64 " was not found, but line %u says that it lives", lease, line);
    } else if (op->code == CODE_FAILED_PRECONDITION && op->kind == OP_GRANT && has(op->text, "exists")) {
        violation(j, op->line, "a new lease id was refused as known");
    } else {
        violation(j, op->line, "an answer that is none: code %d, %s", op->code, show(op->text));
    }
}

/* ---- those whose outcome is unknown --------------------------------------------------------------------------- */

/* By number of the value: who wants to write it. */
static struct op **by_value(const struct judge *j, uint64_t *ret_n)
{
    uint64_t n = 1;
    struct op **writers = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < j->n_ops; i++) {
            struct op *op = &j->ops[i];
            for (size_t k = 0; k < op->n_then + op->n_else; k++) {
                const struct kv_op *q = k < op->n_then ? &op->then[k] : &op->other[k - op->n_then];
                uint64_t v = q->type == KV_PUT && q->value.len > 1 ? strtoull((const char *)q->value.data + 1, NULL, 10) : 0;
                if (pass == 0 && v >= n) n = v + 1;
                if (pass == 1) writers[v] = op;
            }
        }
        if (pass == 0) writers = mem_must_calloc(n, sizeof(struct op *));
    }
    writers[0] = NULL;
    *ret_n = n;
    return writers;
}

static void settle(struct judge *j, struct op *op, int64_t rev, const struct change *c)
{
    if (!op || op->outcome == OUTCOME_OK) {
        violation(j, op ? op->line : 0, "%s of %s at revision %" PRId64 ": %s", show(c->value), show(c->key), rev,
                  op ? "its writer was told another revision" : "nobody wrote that");
    } else if (op->outcome != OUTCOME_UNKNOWN) {
        violation(j, op->line, "was refused (%s), but happened at revision %" PRId64, show(op->text), rev);
    } else if (op->owns) {
        violation(j, op->line, "happened twice, at revisions %" PRId64 " and %" PRId64, op->owns, rev);
    } else {
        const char *bad = walk_request(j, op, timeline_at(j, rev), timeline_at(j, rev + 1), false);
        if (bad) violation(j, op->line, "of unknown outcome, at revision %" PRId64 ": %s", rev, bad);
        if (j->seen_ns[rev] < op->t0) violation(j, op->line, "revision %" PRId64 " was shown before this write of it was asked for", rev);
        op->owns = rev;
        j->owner[rev] = op;
        j->n_settled++;
    }
}

/* Deletes carry no mark: some delete of unknown outcome must explain them. */
static bool some_delete(struct judge *j, int64_t rev)
{
    for (size_t i = 0; i < j->n_ops; i++) {
        struct op *op = &j->ops[i];
        if (op->kind != OP_KV || op->outcome != OUTCOME_UNKNOWN || op->t0 > j->seen_ns[rev] || op->owns) continue;
        if (walk_request(j, op, timeline_at(j, rev), timeline_at(j, rev + 1), false) == NULL) return true;
    }
    return false;
}

static void explain(struct judge *j)
{
    uint64_t n;
    struct op **writers = by_value(j, &n);
    for (int64_t rev = j->start + 1; rev <= j->top; rev++) {
        if (j->owner[rev]) continue;
        const struct change *c = NULL, *first = &j->changes[timeline_at(j, rev)];
        for (size_t i = timeline_at(j, rev); i < timeline_at(j, rev + 1) && !c; i++)
            if (!j->changes[i].tombstone) c = &j->changes[i];
        uint64_t v = c && c->value.len > 1 ? strtoull((const char *)c->value.data + 1, NULL, 10) : 0;
        if (c) settle(j, v < n ? writers[v] : NULL, rev, c);
        else if (!slice_has_prefix(first->key, SLICE_LIT("l/")) && !some_delete(j, rev))
            violation(j, 0, "%s was deleted at revision %" PRId64 ", but nobody can have done it", show(first->key), rev);
    }
    mem_free(writers);
}

/* ---- real time ---------------------------------------------------------------------------------------------------- */

struct moment {
    int64_t t;
    struct op *op;
    int64_t shown; /* a revision that somebody was told of, if it is no call */
    bool call;
};

/* Calls first where two fall together: that excuses more. */
static int by_time(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    if (x->t != y->t) return x->t < y->t ? -1 : 1;
    return (y->call > x->call) - (y->call < x->call);
}

static void find_floors(struct judge *j)
{
    struct moment *m = mem_must_calloc(2 * j->n_ops + j->n_watches + 1, sizeof(*m));
    size_t n = 0;
    int64_t floor = j->start;
    for (size_t i = 0; i < j->n_ops; i++) {
        struct op *op = &j->ops[i];
        m[n++] = (struct moment){op->t0, op, 0, true};
        m[n++] = (struct moment){op->t1, op, op->outcome == OUTCOME_OK ? op->rev : 0, false};
    }
    for (size_t i = 0; i < j->n_watches; i++) {
        const struct watch_line *w = &j->watches[i];
        int64_t rev = w->n ? w->events[w->n - 1].kv.mod : 0;
        m[n++] = (struct moment){w->t, NULL, w->rev > rev ? w->rev : rev, false};
    }
    qsort(m, n, sizeof(*m), by_time);
    for (size_t i = 0; i < n; i++) {
        if (m[i].call) m[i].op->floor = floor, m[i].op->rank0 = i + 1;
        else if (m[i].op) m[i].op->rank1 = i + 1;
        if (m[i].shown > floor) floor = m[i].shown;
    }
    mem_free(m);
}

/* On one connection, to one life of a member, revisions do not go back even in serializable reads. The history is in order of t1. */
static void check_connections(struct judge *j)
{
    enum { CLIENTS = 64, MEMBERS = 16 };
    static struct {
        int64_t connection, rev;
    } last[CLIENTS][MEMBERS];
    for (size_t i = 0; i < j->n_ops; i++) {
        const struct op *op = &j->ops[i];
        if (op->outcome != OUTCOME_OK || op->client >= CLIENTS || op->member >= MEMBERS || !op->connection) continue;
        int64_t *connection = &last[op->client][op->member].connection, *rev = &last[op->client][op->member].rev;
        if (*connection == op->connection && op->rev < *rev)
            violation(j, op->line, "member %" PRId64 " went back from revision %" PRId64 " to %" PRId64 " on one connection", op->member + 1, *rev, op->rev);
        *connection = op->connection;
        *rev = op->rev;
    }
}

/* ---- hashes ------------------------------------------------------------------------------------------------------- */

struct hash {
    int64_t rev, compact_rev, hash;
    unsigned line;
};

static int by_rev(const void *a, const void *b)
{
    const struct hash *x = a, *y = b;
    if (x->rev != y->rev) return x->rev < y->rev ? -1 : 1;
    return (x->compact_rev > y->compact_rev) - (x->compact_rev < y->compact_rev);
}

/* At one revision, with the same compacted, all members have one hash. */
static void check_hashes(struct judge *j)
{
    struct hash *h = mem_must_calloc(j->n_ops + j->n_finals + 1, sizeof(*h));
    size_t n = 0;
    for (size_t i = 0; i < j->n_ops; i++) {
        const struct op *op = &j->ops[i];
        if (op->kind == OP_HASH && op->outcome == OUTCOME_OK) h[n++] = (struct hash){op->arg, op->compact_rev, op->hash, op->line};
    }
    for (size_t i = 0; i < j->n_finals; i++)
        h[n++] = (struct hash){j->finals[i].rev, j->finals[i].compact_rev, j->finals[i].hash, j->finals[i].line};
    if (n) qsort(h, n, sizeof(*h), by_rev);
    for (size_t i = 1; i < n; i++)
        if (by_rev(&h[i - 1], &h[i]) == 0 && h[i - 1].hash != h[i].hash)
            violation(j, h[i].line, "two hashes of revision %" PRId64 " (the other in line %u)", h[i].rev, h[i - 1].line);
    for (size_t i = 1; i < j->n_finals; i++)
        if (j->finals[i].hash != j->finals[0].hash || j->finals[i].rev != j->finals[0].rev || j->finals[i].compact_rev != j->finals[0].compact_rev)
            violation(j, j->finals[i].line, "members %" PRId64 " and %" PRId64 " differ at the end", j->finals[0].member + 1, j->finals[i].member + 1);
    j->hashes = n;
    mem_free(h);
}

void judge_kv(struct judge *j)
{
    find_floors(j);
    for (size_t i = 0; i < j->n_ops; i++)
        if (j->ops[i].kind == OP_KV && j->ops[i].outcome == OUTCOME_OK) check_answered(j, &j->ops[i]);
    for (size_t i = 0; i < j->n_ops; i++) {
        if (j->ops[i].outcome == OUTCOME_OK && j->ops[i].rev <= j->top) check_order(j, &j->ops[i]);
        if (j->ops[i].outcome == OUTCOME_ERROR) check_error(j, &j->ops[i]);
    }
    explain(j);
    check_connections(j);
    check_hashes(j);
}
