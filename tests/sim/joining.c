/* Who may start under which name: before a process with an empty folder becomes a member of a cluster that exists, it asks the others who
 * it is (api/cluster.h: the code that ships, over sim_ask instead of the network), and may be refused:
 *
 *  - a member that was added is told its id, and starts;
 *  - one that has lost its folder is told that it has run before, each time that it is started: its operator removes it;
 *  - a namesake, which was added and is called like another member, must be refused as long as anybody who answers knows that name; it is
 *    started again and again, and removed again;
 *  - so must a second process under name and URL of a member that runs be, as long as anybody who answers knows that this one has run.
 *
 * None of those that are refused ever begins a life, so they cannot take part. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"
#include "raft/consensus_int.h"
#include "raft/folder_int.h"

enum { AGAIN_US = 500000 };

/* ---- before it starts ---------------------------------------------------------------------------- */

size_t joining_flags(struct run *r, uint64_t id, struct consensus_member *out, char urls[][32])
{
    size_t n = 0;
    bool joins = r->members[id].joins;
    for (uint64_t i = 1; i <= (joins ? r->top : r->o.members) && n < SIM_MEMBERS_MAX - 1; i++) {
        const struct member *m = &r->members[i];
        if (joins && i != id && (!m->wanted || (m->joins && !m->life))) continue;
        members_url(m, urls[n]);
        if (!joins) snprintf(urls[n], 32, "http://m%u:1", (unsigned)i);
        out[n] = (struct consensus_member){.id = i, .name = member_names[i], .peer_url = urls[n], .learner = joins && i == id};
        n++;
    }
    if (n == 1) out[0].learner = false; /* the others have gone since it joined */
    return n;
}

static bool has_file(struct run *r, uint64_t id, const char *path)
{
    struct buf b;
    buf_init(&b, 64 * LIMIT_KiB);
    bool there = sim_disk_read(r->sim, id, path, &b) == 0;
    buf_release(&b);
    return there;
}

bool joining_asks(struct run *r, uint64_t id)
{
    return r->members[id].joins && !has_file(r, id, "meta") && !has_file(r, id, MEMBERS_PATH);
}

static int ask_member(void *ctx, const struct consensus_member *member, struct arena *a, struct join_cluster *ret, struct err *e)
{
    struct run *r = ctx;
    struct buf b;
    buf_init(&b, LIMIT_MiB);
    int rv = sim_ask(r->sim, member->id, &b) ? join_decode(buf_slice(&b), a, ret)
                                             : err_set(e, ERR_UNAVAILABLE, "m%" PRIu64 " does not answer", member->id);
    buf_release(&b);
    return rv;
}

/* What a process is told that is started for member `id`, at its URL and under that name. `ret_answer`: a bit for each who would answer it. */
static int ask_round(struct run *r, uint64_t id, const char *name, struct arena *a, struct cluster *ret, unsigned *ret_answer,
                     struct err *e)
{
    char urls[SIM_MEMBERS_MAX][32], url[32];
    struct consensus_member flags[SIM_MEMBERS_MAX];
    struct join_cluster j;
    struct err ignored = {{0}};
    members_url(&r->members[id], url);
    *ret = (struct cluster){.members = flags, .own_id = id, .own_peer_url = url};
    ret->n = joining_flags(r, id, flags, urls);
    *ret_answer = 0;
    for (size_t i = 0; i < ret->n; i++)
        if (flags[i].id != id && ask_member(r, &flags[i], a, &j, &ignored) == 0) *ret_answer |= 1u << flags[i].id;
    return cluster_join(a, ret, name, ask_member, r, e);
}

int joining_ask(struct run *r, uint64_t id, struct arena *a, struct cluster *ret, struct err *e)
{
    unsigned answer;
    return ask_round(r, id, member_names[id], a, ret, &answer, e);
}

/* ---- what those who answer know ------------------------------------------------------------------- */

static const struct consensus_member *in_view(const struct life *l, uint64_t id)
{
    const struct consensus_member *list;
    size_t n = consensus_members(core_consensus(l->core), &list);
    for (size_t i = 0; i < n; i++)
        if (list[i].id == id) return &list[i];
    return NULL;
}

/* By its address, as a member of the beginning, or by what it has published. */
static bool knows_name(const struct life *l, uint64_t id)
{
    const struct consensus_member *m = in_view(l, id);
    struct member_attributes have;
    return m && (m->name[0] || (store_member_attributes(core_store(l->core), id, &have) && have.name.len));
}

/* The one of those who answer that knows the newest members. */
static const struct life *newest(const struct run *r, unsigned answer)
{
    const struct life *best = NULL;
    uint64_t index = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        const struct life *l = r->members[id].life;
        if (!(answer >> id & 1) || !l || !l->core) continue;
        uint64_t its = core_consensus(l->core)->membership.committed_index;
        if (its > index) best = l, index = its;
    }
    return best;
}

static bool somebody(const struct run *r, unsigned answer, bool (*knows)(const struct life *l, uint64_t id), uint64_t id)
{
    bool any = false;
    for (uint64_t other = 1; other <= r->top; other++) {
        const struct life *l = r->members[other].life;
        any = any || ((answer >> other & 1) && l && l->core && knows(l, id));
    }
    return any;
}

/* ---- one that has lost its folder ------------------------------------------------------------------ */

static void forget(void *data, int error)
{
    (void)data, (void)error;
}

/* Asks the leader for a change whose outcome is seen in who the members are. */
static void ask_leader(struct run *r, enum consensus_change_op op, uint64_t id)
{
    struct life *l = cluster_leader(r);
    char url[32];
    if (!l) return;
    members_url(&r->members[id], url);
    struct consensus_change change = {op, {.id = id, .name = "", .peer_url = url}};
    int rv = consensus_change((struct consensus *)(uintptr_t)core_consensus(l->core), &change, forget, NULL);
    run_trace(r, "** m%" PRIu64 " is asked for the %s of m%" PRIu64 ": %s", l->id, op == CONSENSUS_ADD ? "addition" : "removal", id,
              rv ? err_name(rv) : "begun");
    if (rv == 0) r->changed = true;
}

bool joining_refused(struct run *r, uint64_t id, const struct err *e)
{
    struct member *m = &r->members[id];
    struct members_view v;
    if (m->damaged && !m->pending && m->url != m->old_url && strstr(e->text, "is named")) {
        m->url = m->old_url; /* it was to move, and nobody knows whether it did: its operator looks where the others see it */
        return true;
    }
    if (!m->damaged || m->pending || !strstr(e->text, "has run before")) return false;
    if (!m->faced) r->result->counts.damages_found++;
    m->faced = true;
    if (!members_in_force(r, &v) || disk_unhealed(r, id) > (v.voters - 2) / 2) return true; /* later */
    m->may_be_removed = true;
    ask_leader(r, CONSENSUS_REMOVE, id);
    return true;
}

/* ---- a namesake ------------------------------------------------------------------------------------ */

static void judge_namesake(struct run *r, unsigned answer, int rv, const struct err *e)
{
    const struct member *m = &r->members[r->namesake.id];
    const struct life *l = newest(r, answer);
    const char *name = member_names[r->namesake.of];
    bool taken = l && in_view(l, r->namesake.of) && somebody(r, answer, knows_name, r->namesake.of);
    char says[64];
    snprintf(says, sizeof says, "is named \"%s\" already", name);
    run_trace(r, "** m%" PRIu64 " is started under the name %s: %s", m->id, name, rv ? e->text : "nobody minds");
    if (rv == ERR_EXISTS && strstr(e->text, says)) {
        r->namesake.refused = true;
        r->result->counts.namesakes++;
    } else if (rv == 0 && taken) {
        verdict_fail(&r->verdict, "member %" PRIu64 " may start under the name of member %" PRIu64 ", %s, which is known", m->id,
                     r->namesake.of, name);
    } else if (rv && rv != ERR_UNAVAILABLE && rv != ERR_MEMBER_NOT_FOUND) {
        verdict_fail(&r->verdict, "member %" PRIu64 ", under the name of member %" PRIu64 ", is refused for another reason: %s", m->id,
                     r->namesake.of, e->text);
    }
}

static void start_namesake(struct run *r)
{
    struct arena a = {0};
    struct cluster told;
    struct err e = {{0}};
    unsigned answer;
    int rv = ask_round(r, r->namesake.id, member_names[r->namesake.of], &a, &told, &answer, &e);
    judge_namesake(r, answer, rv, &e);
    arena_release(&a);
}

/* It is added until it is there, started, and once it was refused, or nobody has the name any more, removed until it is gone. */
static void namesake_goes_on(void *arg)
{
    struct run *r = arg;
    struct members_view v;
    if (r->ending || run_failed(r)) return;
    if (!r->truce && members_in_force(r, &v)) {
        bool in = v.all >> r->namesake.id & 1, over = r->namesake.refused || !(v.all >> r->namesake.of & 1) || r->winding_down;
        if (over && !in) {
            run_trace(r, "** the namesake m%" PRIu64 " is gone", r->namesake.id);
            r->namesake.id = 0;
            return;
        }
        if (in) start_namesake(r);
        if (over == in) ask_leader(r, in ? CONSENSUS_REMOVE : CONSENSUS_ADD, r->namesake.id);
    }
    sim_at(r->sim, AGAIN_US, namesake_goes_on, r);
}

void joining_settle(struct run *r, uint64_t id)
{
    if (id != r->namesake.id) ask_leader(r, CONSENSUS_REMOVE, id); /* its addition came late */
}

static void add_namesake(struct run *r, uint64_t of)
{
    uint64_t id = r->namesake.id ? 0 : members_next(r);
    if (!id) return;
    r->top = id;
    r->namesake.id = id;
    r->namesake.of = of;
    r->namesake.refused = false;
    r->members[id].is_namesake = true;
    namesake_goes_on(r);
}

/* ---- a second process under name and URL of a member that runs ---------------------------------------- */

static bool knows_to_have_run(const struct life *l, uint64_t id)
{
    const struct consensus_member *m = in_view(l, id);
    return m && (!m->learner || knows_name(l, id));
}

static void start_second(struct run *r, uint64_t id)
{
    struct arena a = {0};
    struct cluster told;
    struct err e = {{0}};
    unsigned answer;
    int rv = ask_round(r, id, member_names[id], &a, &told, &answer, &e);
    const struct life *l = newest(r, answer);
    bool known = l && in_view(l, id) && somebody(r, answer, knows_to_have_run, id);
    run_trace(r, "** a second process starts under name and URL of m%" PRIu64 ", with an empty folder: %s", id, rv ? e.text : "nobody minds");
    if (rv == ERR_EXISTS && (strstr(e.text, "has run before") || strstr(e.text, "already"))) r->result->counts.namesakes++;
    else if (rv == 0 && known)
        verdict_fail(&r->verdict, "a second process with an empty folder may start under name and URL of member %" PRIu64
                                  ", which is known to have run", id);
    else if (rv && rv != ERR_UNAVAILABLE && rv != ERR_MEMBER_NOT_FOUND)
        verdict_fail(&r->verdict, "a second process with an empty folder, under name and URL of member %" PRIu64
                                  ", is refused for another reason: %s", id, e.text);
    arena_release(&a);
}

void joining_namesake(struct run *r, uint64_t of, enum namesake_how how)
{
    const struct life *l = r->members[of].life;
    if (!l || !l->core || life_gone(l)) return;
    if (how == NAMESAKE_ADDED) add_namesake(r, of);
    else start_second(r, of);
}
