/* What a member does about a state that is not to be believed, and how the others help it to know.
 *
 * Acquaintance. Before a member takes part with another, in each of its lives, it says HELLO (its life, how often
 * it was started on this folder, what it has applied) and waits for KNOWN: what the other knows of it. Until then
 * nothing of that peer reaches libraft (heal_gate). A member of whom somebody knows more than it knows itself -
 * a later start, a higher term, an applied entry beyond its log - runs on an old copy of its folder, or on one that
 * lost what had been synced.
 *
 * Distrust. Damage found at start, by the scrub, by a comparison or by the above is noted in meta (DISTRUSTED);
 * the member stops and is started again. Then log and snapshots are moved to damaged/, and it goes on without
 * them (RECOVERING): it keeps its promises (term and vote are in meta), so it may follow, store and acknowledge; but it
 * may have acknowledged entries that it no longer has, so it grants no vote and stands in no election until it has applied
 * all that a leader's log held when asked. Any leader elected meanwhile was elected without it, by a majority that
 * shares a member with each majority that ever acknowledged anything. The leader forgets what it believed to be stored there.
 *
 * Where term and vote may be lost too (ROLLED_BACK: an old copy, a damaged meta, an empty folder) it also takes no part in
 * anything until every other member has told it what it knows, takes over the highest of their terms, and gives no vote in that term. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

#define SEEN_AGAIN_MS 1000u  /* between two HELLOs to a peer that knows this member */
#define REMIND_MS (60 * 1000u) /* between two lines of a member that cannot heal */
#define DAMAGED "damaged"

static bool has(const struct consensus *c, uint32_t flag)
{
    return c->meta.flags & flag;
}

static int save(struct consensus *c, struct err *e)
{
    return meta_write(c->env, c->cluster_id, c->id, &c->meta, e);
}

static void save_or_stop(struct consensus *c)
{
    struct err e = {{0}};
    int rv = save(c, &e);
    if (rv) consensus_fatal(c, rv, "%s", e.text);
}

bool heal_recovering(const struct consensus *c)
{
    return has(c, META_RECOVERING);
}

/* ---- at open ---------------------------------------------------------------------------------- */

struct names {
    char **name;
    size_t n;
};

static void add_name(void *ctx, const char *name)
{
    struct names *l = ctx;
    l->name = mem_must_realloc(l->name, (l->n + 1) * sizeof *l->name);
    l->name[l->n++] = mem_must_strdup(name);
}

static void names_release(struct names *l)
{
    for (size_t i = 0; i < l->n; i++) mem_free(l->name[i]);
    mem_free(l->name);
}

/* Removes what is in a folder, but for names that begin like this. */
static int drop(struct consensus *c, const char *dir, const char *but, struct err *e)
{
    struct names l = {0};
    char path[300];
    int rv = c->env->ops->list(c->env, dir, add_name, &l, e);
    if (rv == ERR_NOT_FOUND) rv = 0;
    for (size_t i = 0; i < l.n && !rv; i++) {
        if (but && strncmp(l.name[i], but, strlen(but)) == 0) continue;
        snprintf(path, sizeof path, "%s/%s", dir, l.name[i]);
        rv = c->env->ops->unlink_file(c->env, path, e);
    }
    names_release(&l);
    return rv;
}

static int move_dir(struct consensus *c, const char *dir, const char *mine, struct err *e)
{
    struct names l = {0};
    char from[300], to[400];
    int rv = c->env->ops->list(c->env, dir, add_name, &l, e);
    if (rv == ERR_NOT_FOUND) rv = 0;
    for (size_t i = 0; i < l.n && !rv; i++) {
        snprintf(from, sizeof from, "%s/%s", dir, l.name[i]);
        snprintf(to, sizeof to, DAMAGED "/%s%s-%s", mine, dir, l.name[i]);
        struct env_io io = {.op = ENV_IO_RENAME, .path = from, .path2 = to};
        rv = c->env->ops->io_sync(c->env, &io);
        if (rv) (void)err_set(e, rv, "%s: %s", from, io.err.text[0] ? io.err.text : err_text(rv));
    }
    names_release(&l);
    return rv;
}

/* Of what an earlier damage has left only the last is kept. */
static int keep_for_a_look(struct consensus *c, struct err *e)
{
    char mine[32];
    snprintf(mine, sizeof mine, "%" PRIu64 "-", c->meta.boots);
    int rv = c->env->ops->mkdir(c->env, DAMAGED, e);
    if (!rv) rv = drop(c, DAMAGED, mine, e);
    if (!rv) rv = move_dir(c, "wal", mine, e);
    if (!rv) rv = move_dir(c, "snap", mine, e);
    if (!rv)
        log_warn("raft: log and snapshots set aside in " DAMAGED "/%s*, the others bring them back member=%" PRIx64, mine, c->id);
    return rv;
}

/* Again after a crash in the middle: what was moved is no longer there. What a member that heals has got until it has to begin once more
 * came from the others; what it began to heal for is to be looked at. */
static int set_aside(struct consensus *c, struct err *e)
{
    int rv;
    if (heal_recovering(c)) {
        rv = drop(c, "wal", NULL, e);
        if (!rv) rv = drop(c, "snap", NULL, e);
    } else {
        rv = keep_for_a_look(c, e);
    }
    if (rv) return rv;
    c->meta.flags = (c->meta.flags & ~(uint32_t)(META_DISTRUSTED | META_ALONE)) | META_RECOVERING;
    return save(c, e);
}

/* As far as is known before the log is read. */
static size_t other_voters(const struct consensus *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n_members; i++)
        n += !c->members[i].learner && c->members[i].id != c->id;
    return n;
}

bool heal_alone(const struct consensus *c)
{
    return other_voters(c) == 0;
}

static void count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
}

/* Says at each start what is there until somebody removes it: what found it ended a process, whose counters ended with it. */
static void find_set_aside(struct consensus *c)
{
    struct err e = {{0}};
    size_t *n = &c->heal.set_aside;
    int rv = c->env->ops->list(c->env, DAMAGED, count_name, n, &e);
    if (rv && rv != ERR_NOT_FOUND) log_warn("raft: what was set aside cannot be listed: %s", e.text); /* nor is it needed */
    if (*n) log_warn("raft: " DAMAGED "/ holds %zu files that were set aside member=%" PRIx64 ": %s", *n, c->id, c->meta.why);
}

int heal_open(struct consensus *c, struct err *e)
{
    if (has(c, META_DISTRUSTED) && heal_alone(c))
        return err_set(e, ERR_CORRUPT, "damage was found, and there is no other member to heal from; restore a backup: %s", c->meta.why);
    int rv = has(c, META_DISTRUSTED) ? set_aside(c, e) : 0;
    if (!rv) find_set_aside(c);
    return rv;
}

/* The reason stays that of what lies in damaged/. */
static void note_distrust(struct consensus *c, uint32_t flags, const char *why)
{
    if (!heal_recovering(c)) snprintf(c->meta.why, sizeof c->meta.why, "%.127s", why);
    c->meta.flags |= flags;
}

int heal_damaged(struct consensus *c, bool meta_lost, struct err *e)
{
    if (heal_alone(c)) return ERR_CORRUPT;
    log_error("raft: damage found at start member=%" PRIx64 ": %s", c->id, e->text);
    if (meta_lost) {
        c->meta = (struct meta){.voted_for = c->id, .flags = META_ROLLED_BACK};
    }
    note_distrust(c, META_DISTRUSTED, e->text);
    struct err why = *e;
    int rv = save(c, e);
    return rv ? rv : err_set(e, ERR_RESTART, "%s", why.text);
}

int heal_opened(struct consensus *c, struct err *e)
{
    struct heal *h = &c->heal;
    h->open_term = c->meta.term;
    h->open_ms = h->reminded_ms = consensus_now(c);
    uint64_t term;
    h->open_index = c->loaded.n ? c->loaded.first_index + c->loaded.n - 1 : snapshots_restored_index(c, &term);
    h->began_recovering = heal_recovering(c);
    c->guard.abstains = true;
    c->meta.boots++;
    return save(c, e);
}

/* ---- distrust ----------------------------------------------------------------------------------- */

static void distrust(struct consensus *c, uint32_t flags, const char *why)
{
    struct err e = {{0}};
    if (c->dead || c->closing) return;
    note_distrust(c, META_DISTRUSTED | flags, why);
    int rv = save(c, &e);
    if (rv) return consensus_fatal(c, rv, "%s; and that cannot be noted: %s", why, e.text);
    consensus_fatal(c, heal_alone(c) ? ERR_CORRUPT : ERR_RESTART, "%s", why);
}

void consensus_distrust(struct consensus *c, const char *why)
{
    distrust(c, 0, why);
}

void heal_rolled_back(struct consensus *c, const char *why)
{
    c->meta.voted_for = c->id; /* whom it has really voted for may be lost */
    distrust(c, META_ROLLED_BACK, why);
}

/* ---- acquaintance ------------------------------------------------------------------------------- */

static uint64_t durably_applied(const struct consensus *c)
{
    const struct raft *r = &c->raft;
    return r->last_applied < r->last_stored ? r->last_applied : r->last_stored;
}

/* What did not go out is said again: a link may be up before the connection that this needs. */
static void hello_sent(struct out_frame *o, int status)
{
    struct peer *p = peers_find(o->c, o->peer_id);
    if (status && p) p->hello_term = UINT64_MAX;
}

static void say_hello(struct consensus *c, struct peer *p)
{
    struct frame f = {.kind = FRAME_HELLO};
    struct out_frame *o = out_new(c, p->id, ENV_CHANNEL_RAFT);
    membership_tell(c, p->id); /* it may not know where the answer goes */
    f.hello.life = c->life;
    f.hello.boots = c->meta.boots;
    f.hello.term = p->hello_term = c->raft.current_term;
    f.hello.applied = p->hello_applied = durably_applied(c);
    f.hello.recovering = heal_recovering(c);
    p->hello_ms = consensus_now(c);
    frame_encode(&o->head, &f);
    o->done = hello_sent;
    out_send(o);
}

/* The entry of `id`, made if there is none; those of members that are gone make room. */
static struct meta_seen *seen_of(struct consensus *c, uint64_t id)
{
    struct meta *m = &c->meta;
    for (uint32_t i = 0; i < m->n_seen; i++)
        if (m->seen[i].id == id) return &m->seen[i];
    uint32_t at = m->n_seen;
    if (at < LIMIT_MEMBERS) {
        m->n_seen++;
    } else {
        at = 0;
        for (uint32_t i = 0; i < m->n_seen; i++)
            if (!peers_find(c, m->seen[i].id)) at = i;
    }
    m->seen[at] = (struct meta_seen){.id = id};
    return &m->seen[at];
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What it has acknowledged to this leader it must still have, as long as no later leader can have cut that off. */
static void remember_acked(struct consensus *c, struct peer *p)
{
    uint64_t acked = consensus_match_index(c, p->id), term = c->raft.current_term;
    if (acked == 0) return;
    p->acked = p->acked_term == term ? higher(p->acked, acked) : acked;
    p->acked_term = term;
}

/* A life that heals does so from its beginning until it is whole: a word of before that comes late says nothing. */
static void remember_healing(struct peer *p, const struct frame *f)
{
    bool heals = f->hello.recovering && (p->heals || p->life != f->hello.life);
    if (heals && !p->heals) log_warn("raft: another member heals: it has set log and snapshots aside member=%" PRIx64, p->id);
    if (!heals && p->heals) log_info("raft: another member is whole again member=%" PRIx64, p->id);
    p->heals = heals;
}

/* What it says of its present life becomes what is known of an earlier one when the next begins. A word of an earlier life that
 * comes late, or of an old copy, is no news. */
static void remember(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct meta_seen *s = seen_of(c, p->id);
    if (f->hello.boots > s->boots) {
        s->boots = f->hello.boots;
        s->life = f->hello.life;
        save_or_stop(c);
    }
    if (f->hello.boots != s->boots || f->hello.life != s->life) return;
    remember_healing(p, f);
    if (p->life != f->hello.life) {
        p->before_term = higher(p->before_term, p->its_term);
        p->before_applied = higher(p->before_applied, p->its_applied);
        if (!f->hello.recovering) remember_acked(c, p);
        p->its_term = p->its_applied = 0;
        p->life = f->hello.life;
    }
    p->its_term = higher(p->its_term, f->hello.term);
    p->its_applied = f->hello.recovering ? 0 : higher(p->its_applied, f->hello.applied);
}

/* Who begins a life, or heals, may have forgotten this member: it is told of it, so that it would know an old one. */
static bool wants_hello(const struct consensus *c, const struct peer *p, const struct frame *f)
{
    return p->life != f->hello.life || (f->hello.recovering && consensus_now(c) - p->hello_ms >= c->heartbeat_ms);
}

static void heard(struct consensus *c, uint64_t term);

static void on_hello(struct consensus *c, struct peer *p, const struct frame *f)
{
    bool back = wants_hello(c, p, f);
    remember(c, p, f);
    if (c->dead) return;
    const struct meta_seen *s = seen_of(c, p->id);
    struct frame k = {.kind = FRAME_KNOWN};
    k.known.to_life = f->hello.life;
    k.known.boots = s->boots;
    k.known.life = s->life;
    bool present = f->hello.life == p->life;
    k.known.term = present ? p->before_term : higher(p->before_term, p->its_term);
    k.known.applied = present ? p->before_applied : higher(p->before_applied, p->its_applied);
    if (f->hello.term <= p->acked_term) k.known.applied = higher(k.known.applied, p->acked);
    k.known.own_term = c->raft.current_term;
    if (f->hello.applied == 0) membership_tell(c, p->id); /* first: who knows nothing must know whose word it needs */
    if (f->hello.recovering && guard_may_serve(&c->guard)) {
        k.known.leader_term = c->raft.current_term;
        if (p->reset_life != f->hello.life || p->reset_term != c->raft.current_term)
            guard_forget_progress(&c->guard, p->id);
        p->reset_life = f->hello.life;
        p->reset_term = c->raft.current_term;
        k.known.leader_last = consensus_last_index(c);
    }
    peers_send(c, p->id, ENV_CHANNEL_RAFT, &k);
    if (back) say_hello(c, p);
    if (has(c, META_ROLLED_BACK)) heard(c, f->hello.term);
}

/* Somebody has started with this folder or a copy of it since this life began, or when it did. */
static bool knows_another_start(const struct consensus *c, const struct frame *f)
{
    return f->known.boots > c->meta.boots || (f->known.boots == c->meta.boots && f->known.life != c->life);
}

/* What the others know of it that it does not know itself. */
static bool is_old(struct consensus *c, const struct peer *p, const struct frame *f)
{
    const struct heal *h = &c->heal;
    char why[300] = "";
    if (knows_another_start(c, f)) {
        snprintf(why, sizeof why, "start number %" PRIu64 " of this member (this is number %" PRIu64 ")", f->known.boots,
                 c->meta.boots);
    } else if (f->known.term > h->open_term) {
        snprintf(why, sizeof why, "this member in term %" PRIu64 " (its folder has term %" PRIu64 ")", f->known.term,
                 h->open_term);
    } else if (!h->began_recovering && f->known.applied > h->open_index) {
        snprintf(why, sizeof why, "entry %" PRIu64 " applied by this member (its log ends at %" PRIu64 ")",
                 f->known.applied, h->open_index);
    }
    if (!why[0]) return false;
    char text[400];
    snprintf(text, sizeof text, "the data folder is not what this member left: member %" PRIx64 " has seen %s", p->id, why);
    c->meta.boots = higher(c->meta.boots, f->known.boots);
    c->meta.term = higher(c->meta.term, f->known.term);
    heal_rolled_back(c, text);
    return true;
}

/* Who has forgotten what it knew of the others must have been told that, too: it would take the next one that loses its disk for new. And
 * by learners as well: one of them may be a voter in a log that it does not know, and have been promised its vote. */
static bool heard_all(const struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        if (p->id == c->id || (p->learner && !has(c, META_ROLLED_BACK))) continue;
        if (!p->known || (has(c, META_ROLLED_BACK) && p->life == 0)) return false;
    }
    return c->n_peers > 1;
}

/* It takes part in elections when it is whole, and has heard what every other voter knows of it, or has given them time to say it:
 * one that cannot be reached must not stop the others. */
static void decide_elections(struct consensus *c)
{
    bool heard = c->n_peers < 2 || heard_all(c) || consensus_now(c) - c->heal.open_ms >= c->election_ms;
    c->guard.abstains = heal_recovering(c) || !heard;
}

/* Whomever it has voted for in a forgotten life is in that term, or in a later one. */
static void heard(struct consensus *c, uint64_t term)
{
    struct heal *h = &c->heal;
    h->highest_term = higher(h->highest_term, term);
    if (!heard_all(c)) return;
    if (h->highest_term <= c->raft.current_term) {
        c->meta.flags &= ~(uint32_t)META_ROLLED_BACK;
        save_or_stop(c);
        return;
    }
    c->meta.term = h->highest_term;
    c->meta.voted_for = c->id;
    save_or_stop(c);
    if (!c->dead) consensus_fatal(c, ERR_RESTART, "takes over term %" PRIu64 " of the others", h->highest_term);
}

static void on_known(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct heal *h = &c->heal;
    if (f->known.to_life != c->life) return;
    if ((!p->known || knows_another_start(c, f)) && is_old(c, p, f)) return;
    p->known = true;
    decide_elections(c);
    if (has(c, META_ROLLED_BACK)) heard(c, f->known.own_term);
    if (c->dead) return;
    if (f->known.leader_term && f->known.leader_term == c->raft.current_term) {
        h->leader_term = f->known.leader_term;
        h->leader_last = higher(h->leader_last, f->known.leader_last);
    }
}

/* A term that it has spoken in is one that its meta must hold from now on, and what it leads others to commit is on its own
 * disk (libraft commits no further). It says nothing here before it was told what is known of it, so this is of the life whose
 * HELLO was the last - or of an earlier one, comes late, and holds for both. */
void heal_spoke(struct peer *p, const struct frame *f)
{
    uint64_t term = f->kind == FRAME_APPEND          ? f->append.term
                    : f->kind == FRAME_APPEND_RESULT ? f->append_result.term
                    : f->kind == FRAME_VOTE_RESULT && f->vote_result.pre_vote != raft_tribool_true ? f->vote_result.term : 0;
    if (p->life == 0) return;
    p->its_term = higher(p->its_term, term);
    if (f->kind == FRAME_APPEND) p->its_applied = higher(p->its_applied, f->append.leader_commit);
}

void heal_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    if (f->kind == FRAME_HELLO) on_hello(c, p, f);
    else on_known(c, p, f);
    if (!c->dead) guard_poll(&c->guard);
}

bool consensus_heals(const struct consensus *c, uint64_t member_id)
{
    if (member_id == c->id) return heal_recovering(c);
    const struct peer *p = peers_find((struct consensus *)(uintptr_t)c, member_id);
    return p && p->heals;
}

bool heal_gate(const struct consensus *c, const struct peer *p)
{
    return p->known && !has(c, META_ROLLED_BACK);
}

/* ---- turns -------------------------------------------------------------------------------------- */

void heal_link(struct consensus *c, struct peer *p, bool up)
{
    if (up) say_hello(c, p);
}

static void remind(struct consensus *c)
{
    uint64_t now = consensus_now(c);
    if (!heal_recovering(c) || now - c->heal.reminded_ms < REMIND_MS) return;
    c->heal.reminded_ms = now;
    log_warn("raft: still healing member=%" PRIx64 " applied=%" PRIu64 " needed=%" PRIu64 " %s", c->id,
             (uint64_t)c->raft.last_applied, c->heal.leader_last,
             has(c, META_ROLLED_BACK) ? "(every other member must be reachable once)"
             : c->heal.leader_term   ? ""
                                     : "(no leader; if most members are lost, restore a backup)");
}

void heal_tick(struct consensus *c)
{
    uint64_t now = consensus_now(c);
    for (size_t i = 0; i < c->n_peers && !c->dead; i++) {
        struct peer *p = &c->peers[i];
        if (p->id == c->id) continue;
        bool news = p->hello_term != c->raft.current_term || p->hello_applied != durably_applied(c);
        bool soon = !p->known || heal_recovering(c);
        if (now - p->hello_ms >= (soon ? c->heartbeat_ms : SEEN_AGAIN_MS) && (soon || news)) say_hello(c, p);
    }
    remind(c);
    decide_elections(c);
}

/* All that the leader's log held when it was asked is applied, and it still leads. */
void heal_poll(struct consensus *c)
{
    const struct raft *r = &c->raft;
    struct heal *h = &c->heal;
    if (!heal_recovering(c) || h->leader_term == 0) return;
    if (h->leader_term != r->current_term) {
        h->leader_term = h->leader_last = 0;
        return;
    }
    if (r->state != RAFT_FOLLOWER || r->follower_state.current_leader.id == 0 || durably_applied(c) < h->leader_last)
        return;
    c->meta.flags &= ~(uint32_t)META_RECOVERING;
    save_or_stop(c);
    if (c->dead) return;
    c->healed++;
    log_info("raft: healed member=%" PRIx64 " applied=%" PRIu64, c->id, (uint64_t)r->last_applied);
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].id != c->id) say_hello(c, &c->peers[i]);
}
