/* A key's history is a list of calls and returns in time order. The search takes calls that can be
 * next, one after another, and goes back when it meets the return of a call that it has not taken.
 */
#include "linear.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"

struct node {
    struct node *prev, *next;
    struct node *match; /* of a call that returned: the return; of a return: NULL */
    const struct linear_op *op, *original;
    bool is_call;
    uint64_t time, mark[2]; /* of the operation, in the hash of a set of operations */
};

struct seen {
    uint64_t a, b;
};

struct search {
    struct node *nodes;
    size_t n_nodes, known_left;
    struct node head;
    struct {
        struct node *node;
        uint64_t state;
    } * stack;
    size_t depth, deepest;
    const struct linear_op *stuck;
    struct seen *table;
    size_t n_seen, table_size;
    uint64_t set[2], steps;
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Whether the operation can take effect on `state`; if so, what it leaves. */
static bool step(const struct linear_op *op, uint64_t state, uint64_t *ret_state)
{
    *ret_state = state;
    switch (op->kind) {
    case LINEAR_READ: return !op->known || op->got == state;
    case LINEAR_WRITE: *ret_state = op->value; return true;
    case LINEAR_CAS:
        if (op->known && op->succeeded != (state == op->expect)) return false;
        if (op->known && !op->succeeded) return op->got == state;
        if (state == op->expect) *ret_state = op->value;
        return true;
    }
    return false;
}

/* Adds (set of operations taken, state); false if it was there. */
static bool see(struct search *s, uint64_t a, uint64_t b, uint64_t state)
{
    if (2 * (s->n_seen + 1) > s->table_size) {
        struct seen *old = s->table;
        size_t old_size = s->table_size;
        s->table_size = old_size ? 2 * old_size : 1024;
        s->table = mem_must_calloc(s->table_size, sizeof *s->table);
        for (size_t i = 0; i < old_size; i++) {
            if (!old[i].a && !old[i].b) continue;
            size_t at = old[i].a & (s->table_size - 1);
            while (s->table[at].a || s->table[at].b) at = (at + 1) & (s->table_size - 1);
            s->table[at] = old[i];
        }
        mem_free(old);
    }
    a = mix(a ^ mix(state));
    b = mix(b + mix(state ^ 0x55)) | 1;
    size_t at = a & (s->table_size - 1);
    for (; s->table[at].a || s->table[at].b; at = (at + 1) & (s->table_size - 1)) {
        if (s->table[at].a == a && s->table[at].b == b) return false;
    }
    s->table[at] = (struct seen){a, b};
    s->n_seen++;
    return true;
}

static void unlink_node(struct node *n)
{
    n->prev->next = n->next;
    if (n->next) n->next->prev = n->prev;
}

static void relink_node(struct node *n)
{
    n->prev->next = n;
    if (n->next) n->next->prev = n;
}

static void take(struct search *s, struct node *n, uint64_t state)
{
    s->stack[s->depth].node = n;
    s->stack[s->depth++].state = state;
    s->set[0] ^= n->mark[0];
    s->set[1] ^= n->mark[1];
    unlink_node(n);
    if (!n->match) return;
    unlink_node(n->match);
    s->known_left--;
}

static struct node *give_back(struct search *s, uint64_t *ret_state)
{
    struct node *n = s->stack[--s->depth].node;
    *ret_state = s->stack[s->depth].state;
    s->set[0] ^= n->mark[0];
    s->set[1] ^= n->mark[1];
    if (n->match) {
        relink_node(n->match);
        s->known_left++;
    }
    relink_node(n);
    return n;
}

static enum linear_result search_run(struct search *s, uint64_t max_steps)
{
    uint64_t state = 0, next;
    struct node *n = s->head.next;
    while (s->known_left > 0) {
        if (++s->steps > max_steps) return LINEAR_UNDECIDED;
        CHECK(n);
        if (n->is_call) {
            if (step(n->op, state, &next) &&
                see(s, s->set[0] ^ n->mark[0], s->set[1] ^ n->mark[1], next)) {
                take(s, n, state);
                state = next;
                n = s->head.next;
            } else {
                n = n->next;
            }
            continue;
        }
        if (s->depth >= s->deepest) {
            s->deepest = s->depth;
            s->stuck = n->original;
        }
        if (s->depth == 0) return LINEAR_VIOLATION;
        n = give_back(s, &state)->next;
    }
    return LINEAR_OK;
}

static int by_time(const void *a, const void *b)
{
    const struct node *x = a, *y = b;
    return (x->time > y->time) - (x->time < y->time);
}

static bool is_seen(const struct linear_op *ops, size_t n, uint64_t value)
{
    for (size_t i = 0; i < n; i++) {
        const struct linear_op *op = &ops[i];
        if (op->known && op->kind == LINEAR_READ && op->got == value) return true;
        if (op->known && op->kind == LINEAR_CAS && (op->succeeded ? op->expect : op->got) == value)
            return true;
        if (!op->known && op->kind == LINEAR_CAS && op->expect == value) return true;
    }
    return false;
}

/* An unknown write of a value that nobody saw need not have happened; an unknown read says nothing.
 */
static bool matters(const struct linear_op *ops, size_t n, const struct linear_op *op)
{
    if (op->known) return true;
    if (op->kind == LINEAR_READ) return false;
    return op->value == 0 || is_seen(ops, n, op->value);
}

/* Clients that got no answer may ask again. */
static bool is_asked_twice(const struct linear_op *ops, size_t n, const struct linear_op *op)
{
    for (size_t i = 0; i < n; i++) {
        if (&ops[i] != op && ops[i].kind != LINEAR_READ && ops[i].value == op->value) return true;
    }
    return false;
}

/* An unknown write whose value some known operation saw, and nobody else wrote, did happen, before that operation
 * returned. */
static void settle(struct linear_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct linear_op *op = &ops[i];
        if (op->known || op->kind == LINEAR_READ || op->value == 0 || is_asked_twice(ops, n, op)) continue;
        uint64_t first = UINT64_MAX;
        for (size_t j = 0; j < n; j++) {
            const struct linear_op *by = &ops[j];
            if (!by->known || by->kind == LINEAR_WRITE || by->ret >= first) continue;
            bool saw = by->kind == LINEAR_READ || !by->succeeded ? by->got == op->value
                                                                 : by->expect == op->value;
            if (saw) first = by->ret;
        }
        if (first == UINT64_MAX || first <= op->call)
            continue; /* seen before it was asked for: the search will say so */
        op->ret = first;
        op->settled = true;
    }
    for (size_t i = 0; i < n; i++) {
        if (ops[i].settled) ops[i].known = ops[i].succeeded = true;
    }
}

static void make_nodes(struct search *s, const struct linear_op *ops,
                       const struct linear_op *const *originals, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct linear_op *op = &ops[i];
        if (!matters(ops, n, op)) continue;
        s->nodes[s->n_nodes++] =
            (struct node){.op = op, .original = originals[i], .is_call = true, .time = op->call};
        if (!op->known) continue;
        s->nodes[s->n_nodes++] = (struct node){.op = op, .original = originals[i], .time = op->ret};
        s->known_left++;
    }
    if (s->n_nodes) qsort(s->nodes, s->n_nodes, sizeof *s->nodes, by_time);
    struct node *last = &s->head;
    for (size_t i = 0; i < s->n_nodes; i++) {
        struct node *x = &s->nodes[i];
        x->prev = last;
        last->next = x;
        last = x;
        if (!x->is_call) continue;
        x->mark[0] = mix(2 * i + 1);
        x->mark[1] = mix(2 * i + 2);
        for (size_t j = i + 1; x->op->known && !x->match; j++) {
            CHECK(j < s->n_nodes); /* a return before its call is the caller's bug */
            if (s->nodes[j].op == x->op) x->match = &s->nodes[j];
        }
    }
}

static enum linear_result check_key(const struct linear_op *const *ops, size_t n,
                                    uint64_t max_steps, struct linear_report *ret)
{
    struct search s = {0};
    struct linear_op *mine = mem_must_calloc(n, sizeof *mine);
    s.nodes = mem_must_calloc(2 * n, sizeof *s.nodes);
    s.stack = mem_must_calloc(n, sizeof *s.stack);
    for (size_t i = 0; i < n; i++) mine[i] = *ops[i];
    settle(mine, n);
    make_nodes(&s, mine, ops, n);
    enum linear_result r = search_run(&s, max_steps);
    if (ret) {
        ret->steps += s.steps;
        if (r == LINEAR_VIOLATION) {
            ret->key = ops[0]->key;
            ret->stuck = s.stuck;
        }
    }
    mem_free(mine);
    mem_free(s.nodes);
    mem_free(s.stack);
    mem_free(s.table);
    return r;
}

static int by_key(const void *a, const void *b)
{
    const struct linear_op *x = *(const struct linear_op *const *)a,
                           *y = *(const struct linear_op *const *)b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->call > y->call) - (x->call < y->call);
}

enum linear_result linear_check(const struct linear_op *ops, size_t n, uint64_t max_steps,
                                struct linear_report *ret)
{
    const struct linear_op **sorted = mem_must_calloc(n + 1, sizeof *sorted);
    enum linear_result worst = LINEAR_OK;
    if (ret) *ret = (struct linear_report){0};
    for (size_t i = 0; i < n; i++) sorted[i] = &ops[i];
    if (n) qsort(sorted, n, sizeof *sorted, by_key);
    for (size_t i = 0, end; i < n && worst != LINEAR_VIOLATION; i = end) {
        for (end = i; end < n && sorted[end]->key == sorted[i]->key;) end++;
        enum linear_result r = check_key(sorted + i, end - i, max_steps, ret);
        if (r != LINEAR_OK) worst = r;
    }
    mem_free(sorted);
    return worst;
}
