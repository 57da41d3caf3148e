/* What members have told each other of themselves (HELLO), seen from outside: who learns from an answer (KNOWN) that more is
 * known of its earlier lives than its disk held when it started, or of a later start than its own, must say so at once and not go on. */
#include <inttypes.h>

#include "base/mem.h"
#include "harness.h"
#include "raft/consensus_int.h"

/* What a life has heard of one member: of its present life, and of those before. */
struct told {
    uint64_t hearer; /* the life's serial */
    uint64_t boots, life, term, applied, before_term, before_applied;
};

struct doubt {
    struct run *run;
    uint64_t serial, by;
    struct told told;
    uint64_t open_term, open_index;
};

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct told *told(struct run *r, uint64_t hearer, uint64_t of)
{
    return &r->told[hearer * (SIM_MEMBERS_MAX + 1) + of];
}

static void on_hello(struct run *r, const struct life *l, uint64_t from, const struct frame *f)
{
    struct told *t = told(r, l->id, from);
    const struct life *by = r->members[from].life;
    if (!by || !by->core || core_consensus(by->core)->life != f->hello.life) return; /* of an earlier life, on its way for long */
    if (t->hearer != l->serial) *t = (struct told){.hearer = l->serial};
    if (f->hello.boots < t->boots) return; /* of an earlier life and late, or of an old copy */
    t->boots = f->hello.boots;
    if (t->life != f->hello.life) {
        t->before_term = higher(t->before_term, t->term);
        t->before_applied = higher(t->before_applied, t->applied);
        t->term = t->applied = 0;
        t->life = f->hello.life;
    }
    t->term = higher(t->term, f->hello.term);
    t->applied = f->hello.recovering ? 0 : higher(t->applied, f->hello.applied);
}

static void look_again(void *arg)
{
    struct doubt *d = arg;
    struct run *r = d->run;
    const struct life *l = cluster_by_serial(r, d->serial);
    if (l && l->core && !life_gone(l)) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 " opened with term %" PRIu64 " and a log that ends at %" PRIu64 ", is told by member %" PRIu64
                     " of its start %" PRIu64 ", earlier term %" PRIu64 " and applied entry %" PRIu64 ", and goes on",
                     l->id, d->open_term, d->open_index, d->by, d->told.boots, d->told.before_term, d->told.before_applied);
    }
    mem_free(d);
}

static void on_known(struct run *r, const struct life *l, uint64_t from, const struct frame *f)
{
    const struct told *t = told(r, from, l->id);
    const struct life *by = r->members[from].life;
    const struct consensus *c = core_consensus(l->core);
    const struct heal *h = &c->heal;
    if (f->known.to_life != c->life || !by || t->hearer != by->serial) return;
    bool fits = t->life == c->life && t->before_term <= h->open_term &&
                (h->began_recovering || t->before_applied <= h->open_index);
    bool later = f->known.boots > c->meta.boots || (f->known.boots == c->meta.boots && f->known.life != c->life);
    if (!later && (fits || (t->life != c->life && t->boots <= c->meta.boots))) return;
    struct doubt *d = mem_must_calloc(1, sizeof *d);
    *d = (struct doubt){r, l->serial, from, *t, h->open_term, h->open_index};
    if (later) d->told.boots = f->known.boots;
    sim_at(r->sim, 0, look_again, d);
}

void acquaint_start(struct run *r)
{
    r->told = mem_must_calloc((SIM_MEMBERS_MAX + 1) * (SIM_MEMBERS_MAX + 1), sizeof *r->told);
}

void acquaint_heard(struct run *r, uint64_t id, uint64_t from, struct slice bytes)
{
    const struct life *l = r->members[id].life;
    struct frame f;
    struct err e;
    if (bytes.data[1] != FRAME_HELLO && bytes.data[1] != FRAME_KNOWN) return;
    if (!l || !l->core || life_gone(l) || frame_decode(bytes, &f, &e) != 0) return;
    if (f.kind == FRAME_HELLO) on_hello(r, l, from, &f);
    else on_known(r, l, from, &f);
}
