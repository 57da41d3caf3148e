/* Leases. An acknowledged grant or renewal that was asked for at time t says that the lease lives until t + TTL at least, unless someone
 * asks to revoke it; when it ends, all its keys go in one revision, and nothing is ever attached to it again. */
#include <inttypes.h>
#include <stdlib.h>

#include "judge_int.h"

struct lease_op {
    int64_t lease, t0, until; /* until 0: a revocation */
    unsigned line;
};

static struct lease_op *leases;
static size_t n_leases;

static int by_lease(const void *a, const void *b)
{
    const struct lease_op *x = a, *y = b;
    if (x->lease != y->lease) return x->lease < y->lease ? -1 : 1;
    return (x->t0 > y->t0) - (x->t0 < y->t0);
}

void leases_collect(struct judge *j)
{
    leases = mem_must_calloc(j->n_ops + 1, sizeof(*leases));
    for (size_t i = 0; i < j->n_ops; i++) {
        const struct op *op = &j->ops[i];
        struct lease_op l = {.lease = op->lease, .t0 = op->t0, .line = op->line};
        if (op->kind == OP_REVOKE && op->outcome <= OUTCOME_UNKNOWN) leases[n_leases++] = l;
        if ((op->kind != OP_GRANT && op->kind != OP_KEEP) || op->outcome != OUTCOME_OK || op->ttl <= 0) continue;
        l.until = op->t0 + op->ttl * (1000000000 - j->lease_slack_percent * 10000000);
        leases[n_leases++] = l;
    }
    if (n_leases) qsort(leases, n_leases, sizeof(*leases), by_lease);
}

unsigned lease_must_live(const struct judge *j, int64_t lease, int64_t t)
{
    (void)j;
    struct lease_op from = {.lease = lease};
    size_t lo = 0, hi = n_leases;
    unsigned line = 0;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (by_lease(&leases[mid], &from) < 0) lo = mid + 1;
        else hi = mid;
    }
    for (; lo < n_leases && leases[lo].lease == lease && leases[lo].t0 <= t; lo++) {
        if (leases[lo].until == 0) return 0;
        if (leases[lo].until > t) line = leases[lo].line;
    }
    return line;
}

/* All keys of one lease, and only those, go at this revision. */
static void check_end(struct judge *j, int64_t rev)
{
    size_t from = timeline_at(j, rev), to = timeline_at(j, rev + 1), n, attached = 0;
    int64_t lease = 0;
    for (size_t i = from; i < to; i++) {
        const struct change *before = j->changes[i].before ? &j->changes[j->changes[i].before - 1] : NULL;
        if (!before || before->tombstone || !before->lease || (lease && before->lease != lease)) {
            violation(j, 0, "%s goes at revision %" PRId64 ", but not with a lease", show(j->changes[i].key), rev);
            return;
        }
        lease = before->lease;
    }
    const struct change **live = timeline_range(j, SLICE_LIT("l/"), SLICE_LIT("l0"), from, &n);
    for (size_t i = 0; i < n; i++) attached += live[i]->lease == lease;
    if (attached != to - from) violation(j, 0, "lease %" PRId64 " ends at revision %" PRId64 " with %zu of its %zu keys", lease, rev, to - from, attached);
    unsigned line = lease_must_live(j, lease, j->seen_ns[rev]);
    if (line) violation(j, line, "says that lease %" PRId64 " lives on, but it ended at revision %" PRId64, lease, rev);
    for (size_t i = to; i < j->n_changes; i++) {
        if (j->changes[i].lease != lease) continue;
        violation(j, 0, "%s is attached to lease %" PRId64 " at revision %" PRId64 ", after its end at %" PRId64, show(j->changes[i].key), lease,
                  j->changes[i].rev, rev);
        break;
    }
    j->lease_ends++;
}

void judge_leases(struct judge *j)
{
    size_t n;
    for (int64_t rev = j->start + 1; rev <= j->top; rev++) {
        const struct change *c = &j->changes[timeline_at(j, rev)];
        if (!j->owner[rev] && c->tombstone && slice_has_prefix(c->key, SLICE_LIT("l/"))) check_end(j, rev);
    }
    const struct change **live = timeline_range(j, SLICE_LIT("l/"), SLICE_LIT("l0"), j->n_changes, &n);
    if (n && !j->unfinished) violation(j, 0, "%s is there at the end, when all leases had run out", show(live[0]->key));
}
