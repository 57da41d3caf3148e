/* Key by key, the checker of the simulation, which knows of no revisions. Here they are only looked at to say which value a compare of one
 * asks for, and which keys were far from being written when a range was read. */
#include <inttypes.h>
#include <stdlib.h>

#include "judge_int.h"
#include "tests/sim/linear.h"

enum { STEPS_MAX = 20000000 };

struct history {
    struct judge *j;
    struct linear_op *ops;
    struct op **from; /* of each */
    size_t n, size;
};

static uint64_t number(struct slice value)
{
    return value.len > 1 ? strtoull((const char *)value.data + 1, NULL, 10) : 0;
}

static bool judged(struct slice key)
{
    return slice_has_prefix(key, SLICE_LIT("k/"));
}

static void add(struct history *h, struct op *op, struct slice key, struct linear_op l)
{
    size_t lo = 0, hi = h->j->n_keys;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (slice_cmp(h->j->keys[mid].name, key) < 0) lo = mid + 1;
        else hi = mid;
    }
    if (lo == h->j->n_keys || !slice_eq(h->j->keys[lo].name, key)) return; /* never written: nothing to order */
    if (h->n == h->size) {
        h->size = h->size ? 2 * h->size : 4096;
        h->ops = mem_must_realloc(h->ops, h->size * sizeof(*h->ops));
        h->from = mem_must_realloc(h->from, h->size * sizeof(struct op *));
    }
    l.key = lo;
    l.known = op->outcome == OUTCOME_OK;
    l.call = op->rank0;
    l.ret = l.known ? op->rank1 : 0;
    h->from[h->n] = op;
    h->ops[h->n++] = l;
}

static uint64_t shown(const struct kv_result *r, struct slice key)
{
    for (size_t i = 0; i < r->n; i++)
        if (slice_eq(r->kvs[i].key, key)) return number(r->kvs[i].value);
    return 0;
}

/* A read of each key in the range, if the answer is whole. */
static void add_range(struct history *h, struct op *op, const struct kv_op *q, const struct kv_result *r)
{
    const struct judge *j = h->j;
    if (q->rev || r->more || q->keys_only || q->count_only) return;
    for (size_t i = 0; i < j->n_keys; i++) {
        struct slice key = j->keys[i].name;
        if (!judged(key) || !in_range(key, q->key, q->end)) continue;
        /* keys that were not written yet, or no more, are what most of a long range is */
        const struct change *last = &j->changes[j->keys[i].changes[j->keys[i].n - 1]], *first = &j->changes[j->keys[i].changes[0]];
        if (first->rev > op->rev + 1000 || last->rev + 1000 < op->rev) continue;
        add(h, op, key, (struct linear_op){.kind = LINEAR_READ, .got = shown(r, key)});
    }
}

static void add_writes(struct history *h, struct op *op, const struct kv_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ops[i].type == KV_RANGE) continue;
        if (!ops[i].end.len) {
            add(h, op, ops[i].key, (struct linear_op){.kind = LINEAR_WRITE, .value = ops[i].type == KV_PUT ? number(ops[i].value) : 0});
            continue;
        }
        for (size_t k = 0; k < h->j->n_keys; k++)
            if (in_range(h->j->keys[k].name, ops[i].key, ops[i].end)) add(h, op, h->j->keys[k].name, (struct linear_op){.kind = LINEAR_WRITE});
    }
}

/* What value the compare asks for, if it asks for one: by value, or by the revision that wrote it. */
static bool expected(const struct judge *j, const struct compare *c, uint64_t *ret)
{
    if (c->result != 0 || c->target < 2 || c->target > 3) return false;
    *ret = number(c->value);
    if (c->target == 3) return *ret != 0;
    *ret = 0;
    if (c->number == 0) return true;
    for (size_t i = timeline_at(j, c->number); i < timeline_at(j, c->number + 1); i++)
        if (slice_eq(j->changes[i].key, c->key) && !j->changes[i].tombstone) *ret = number(j->changes[i].value);
    return *ret != 0;
}

static void add_request(struct history *h, struct op *op)
{
    uint64_t expect;
    if (op->n_compare == 1 && op->n_then == 1 && op->n_else == 1 && expected(h->j, &op->compare[0], &expect)) {
        bool put = op->then[0].type == KV_PUT, known = op->outcome == OUTCOME_OK;
        add(h, op, op->compare[0].key,
            (struct linear_op){.kind = LINEAR_CAS, .expect = expect, .value = put ? number(op->then[0].value) : 0, .succeeded = known && op->ok,
                               .got = known && !op->ok ? shown(&op->results[0], op->compare[0].key) : 0});
    } else if (op->outcome == OUTCOME_UNKNOWN) {
        add_writes(h, op, op->then, op->n_then);
        add_writes(h, op, op->other, op->n_else);
    } else {
        const struct kv_op *ops = op->ok ? op->then : op->other;
        size_t n = op->ok ? op->n_then : op->n_else;
        bool wrote = false;
        add_writes(h, op, ops, n);
        for (size_t i = 0; i < n; i++) wrote = wrote || ops[i].type != KV_RANGE;
        for (size_t i = 0; !wrote && i < n && i < op->n_results; i++) add_range(h, op, &ops[i], &op->results[i]);
    }
}

void judge_linear(struct judge *j)
{
    struct history h = {.j = j};
    struct linear_report report;
    for (size_t i = 0; i < j->n_ops; i++) {
        struct op *op = &j->ops[i];
        if (op->kind == OP_KV && op->lin && op->outcome <= OUTCOME_UNKNOWN && op->n_then && (judged(op->then[0].key) || op->n_then > 1)) add_request(&h, op);
    }
    enum linear_result r = linear_check(h.ops, h.n, STEPS_MAX, &report);
    j->linear_ops = h.n;
    j->linear_steps = report.steps;
    if (r == LINEAR_UNDECIDED) j->undecided++;
    if (r == LINEAR_VIOLATION) {
        unsigned line = 0;
        for (size_t i = 0; i < h.n && report.stuck; i++)
            if (h.ops[i].key == report.key && h.ops[i].call == report.stuck->call) line = h.from[i]->line;
        violation(j, line, "the history of %s is not linearizable; no order explains this line", show(j->keys[report.key].name));
    }
    mem_free(h.ops);
    mem_free(h.from);
}
