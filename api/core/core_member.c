/* Changes of the members, from any member: the leader decides and makes them (raft/consensus.h), whoever was asked sends the
 * request on to it and asks again when leadership moves, until the client's time is up. A second attempt at what an
 * earlier one may have done already is no error: the id of a new member is chosen before the first.
 *
 * The leader refuses what etcd's strict reconfiguration check refuses (server/etcdserver/server.go mayAddMember and its
 * neighbours): whatever leaves less than a majority of the voters running. "Started" is who has published its name. */
#include "api/core/core_int.h"

#include "base/log.h"
#include "base/mem.h"

#define MEMBER_RETRY_MS 50
#define MEMBER_FORGET_MS 1000 /* between two that are forgotten */

enum { MESSAGE_CHANGE = 16, MESSAGE_CHANGED };

/* A request at the member that was asked. */
struct member_call {
    struct list node; /* in core.changes, until it is answered */
    struct core *core;
    struct core_request *r;
    uint64_t id, next_ms;
    bool asked;  /* somebody works on it: `id` is told when it is done */
    bool again;  /* an earlier attempt may have done it */
};

/* One at work on the leader, for itself or for another. */
struct member_work {
    struct core *core;
    uint64_t from_id, id;
};

/* ---- on the leader ------------------------------------------------------------------------------- */

static const struct consensus_member *find(const struct core *c, uint64_t id)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    for (size_t i = 0; i < n; i++)
        if (all[i].id == id) return &all[i];
    return NULL;
}

/* What etcd counts as a voter: we have those that are on their way to become one, too. */
static bool is_voter(const struct consensus_member *m)
{
    return !m->learner || m->promote;
}

static bool is_started(const struct core *c, const struct consensus_member *m)
{
    struct member_attributes have;
    return store_member_attributes(c->state->store, m->id, &have) && have.name.len > 0;
}

/* It answers, and could elect a leader: one that heals gives no vote before it holds again what it may have acknowledged. */
static bool is_active(const struct core *c, const struct consensus_member *m)
{
    return consensus_answers(c->consensus, m->id) && !consensus_heals(c->consensus, m->id);
}

struct census {
    size_t voters, started, active, learners;
};

static struct census census_without(const struct core *c, uint64_t but)
{
    const struct consensus_member *all;
    struct census s = {0};
    size_t n = consensus_members(c->consensus, &all);
    for (size_t i = 0; i < n; i++) {
        s.learners += !is_voter(&all[i]);
        if (all[i].id == but || !is_voter(&all[i])) continue;
        s.voters++;
        s.started += is_started(c, &all[i]);
        s.active += is_active(c, &all[i]);
    }
    return s;
}

static size_t majority(size_t n)
{
    return n / 2 + 1;
}

static int may_add(const struct core *c, bool learner)
{
    struct census s = census_without(c, 0);
    size_t most = c->config.max_learners ? c->config.max_learners : 1;
    if (learner && s.learners >= most) return ERR_TOO_MANY_LEARNERS;
    if (c->config.any_reconfig) return 0;
    bool second = s.voters == 1 && s.started == 1;
    if (!learner && !second && s.started < majority(s.voters + 1)) return ERR_NOT_STARTED;
    return s.voters == 1 || s.active >= majority(s.voters + 1) ? 0 : ERR_UNHEALTHY;
}

static int may_remove(const struct core *c, const struct consensus_member *m)
{
    struct census rest = census_without(c, m->id), all = census_without(c, 0);
    if (!is_voter(m)) return 0;
    if (rest.voters == 0) return ERR_NOT_STARTED;
    if (c->config.any_reconfig) return 0;
    if (rest.started < majority(rest.voters)) return ERR_NOT_STARTED;
    if (!is_active(c, m)) return 0;
    return all.active - 1 >= 1 + (all.voters - 1) / 2 ? 0 : ERR_UNHEALTHY;
}

static int may_promote(const struct core *c, const struct consensus_member *m)
{
    struct census s = census_without(c, 0);
    if (is_voter(m)) return ERR_NOT_LEARNER;
    if (c->config.any_reconfig) return 0;
    return s.started + 1 >= majority(s.voters + 1) ? 0 : ERR_NOT_STARTED;
}

static bool is_in_effect(const struct core *c, const struct core_member_change *ch)
{
    const struct consensus_member *m = find(c, ch->member_id);
    switch (ch->op) {
    case CONSENSUS_ADD: return m != NULL;
    case CONSENSUS_REMOVE: return m == NULL;
    case CONSENSUS_PROMOTE: return m && !m->learner;
    case CONSENSUS_UPDATE: return m && slice_eq_str(ch->peer_url, m->peer_url);
    }
    return false;
}

static int check(const struct core *c, const struct core_member_change *ch)
{
    const struct consensus_member *m = find(c, ch->member_id);
    if (ch->op == CONSENSUS_ADD) return may_add(c, ch->learner);
    if (!m) return ERR_MEMBER_NOT_FOUND;
    if (ch->op == CONSENSUS_REMOVE) return may_remove(c, m);
    return ch->op == CONSENSUS_PROMOTE ? may_promote(c, m) : 0;
}

/* What consensus says, in etcd's words. */
static int in_words(int error)
{
    switch (error) {
    case ERR_EXISTS: return ERR_PEER_URL_EXISTS;
    case ERR_INVALID: return ERR_BAD_PEER_URL;
    case ERR_CONFLICT: return ERR_NOT_LEARNER;
    case ERR_AGAIN: return ERR_LEARNER_BEHIND;
    default: return error;
    }
}

/* 0: under way, `done` follows. 1: nothing is left to be done. Or a refusal. */
static int begin(struct core *c, const struct core_member_change *ch, bool again,
                 void (*done)(void *data, int error), void *data)
{
    if (!c->leader) return ERR_NOT_LEADER;
    if (again && is_in_effect(c, ch)) return 1;
    int rv = check(c, ch);
    if (rv) return rv;
    char *url = mem_must_alloc(ch->peer_url.len + 1);
    if (ch->peer_url.len) memcpy(url, ch->peer_url.data, ch->peer_url.len);
    url[ch->peer_url.len] = 0;
    struct consensus_change change = {
        .op = ch->op, .member = {.id = ch->member_id, .name = "", .peer_url = url, .learner = ch->learner}};
    rv = in_words(consensus_change(c->consensus, &change, done, data));
    mem_free(url);
    return rv;
}

/* ---- where it was asked ---------------------------------------------------------------------------- */

static void answer(struct member_call *m, int code)
{
    struct core *c = m->core;
    struct core_request *r = m->r;
    list_remove(&m->node);
    mem_free(m);
    r->member_id = r->change.member_id;
    if (code) core_answer(c, r, code);
    else list_push_back(&c->reads, &r->node); /* the members as they are now: after a read point */
}

static bool is_passing(int code)
{
    return code == ERR_BUSY || code == ERR_NOT_LEADER || code == ERR_NO_LEADER || code == ERR_LEADER_CHANGED ||
           code == ERR_TIMEOUT;
}

static void settle(struct member_call *m, int code)
{
    m->asked = false;
    m->next_ms = core_now(m->core) + MEMBER_RETRY_MS;
    if (!is_passing(code)) answer(m, code < 0 ? code : 0);
}

static struct member_call *call_of(struct core *c, uint64_t id)
{
    list_for_each(node, &c->changes) {
        struct member_call *m = container_of(node, struct member_call, node);
        if (m->asked && m->id == id) return m;
    }
    return NULL;
}

static void done_here(void *data, int error)
{
    struct member_work *w = data;
    struct member_call *m = w->core->closing ? NULL : call_of(w->core, w->id);
    if (m) settle(m, error);
    mem_free(w);
}

static struct member_work *work_new(struct core *c, uint64_t from_id, uint64_t id)
{
    struct member_work *w = mem_must_alloc(sizeof(*w));
    *w = (struct member_work){c, from_id, id};
    return w;
}

static int ask_leader(struct member_call *m)
{
    const struct core_member_change *ch = &m->r->change;
    struct buf out = {0};
    buf_append_byte(&out, MESSAGE_CHANGE);
    buf_append_u64(&out, m->id);
    buf_append_byte(&out, (uint8_t)ch->op);
    buf_append_byte(&out, (uint8_t)(ch->learner | m->again << 1));
    buf_append_u64(&out, ch->member_id);
    buf_append_slice(&out, ch->peer_url);
    int rv = out.failed ? out.failed : consensus_message(m->core->consensus, m->core->leader_id, buf_slice(&out));
    buf_release(&out);
    return rv;
}

static void attempt(struct member_call *m)
{
    struct core *c = m->core;
    if (m->asked || !c->leader_id || core_now(c) < m->next_ms) return;
    m->asked = true;
    m->id = c->next_message++;
    if (!c->leader) {
        m->asked = ask_leader(m) == 0;
        m->again |= m->asked;
        return;
    }
    struct member_work *w = work_new(c, 0, m->id);
    int rv = begin(c, &m->r->change, m->again, done_here, w);
    m->again |= rv == 0;
    if (rv == 0) return;
    mem_free(w);
    settle(m, rv);
}

void core_member_submit(struct core *c, struct core_request *r)
{
    struct member_call *m = mem_must_calloc(1, sizeof(*m));
    *m = (struct member_call){.core = c, .r = r};
    while (r->change.op == CONSENSUS_ADD && r->change.member_id == 0) r->change.member_id = c->env->ops->random(c->env);
    list_push_back(&c->changes, &m->node);
    attempt(m);
}

/* What the store remembers of members that are gone goes as well, through the log. */
static void forget_gone(struct core *c)
{
    uint64_t id = 0, now = core_now(c);
    if (!c->leader || now < c->next_forget_ms) return;
    while ((id = store_member_after(c->state->store, id)) != 0 && find(c, id)) {}
    if (id == 0) return;
    c->next_forget_ms = now + MEMBER_FORGET_MS;
    struct command command = {.type = COMMAND_MEMBER_ATTRIBUTES, .member = {.member_id = id}};
    core_propose_own(c, &command);
}

void core_member_tick(struct core *c)
{
    uint64_t now = core_now(c);
    forget_gone(c);
    list_for_each(node, &c->changes) {
        struct member_call *m = container_of(node, struct member_call, node);
        if (m->r->deadline_ms <= now) answer(m, c->leader_id ? ERR_TIMEOUT : ERR_NO_LEADER);
        else attempt(m);
    }
}

void core_member_leader_changed(struct core *c)
{
    list_for_each(node, &c->changes) container_of(node, struct member_call, node)->asked = false;
}

void core_member_removed(struct core *c)
{
    list_for_each(node, &c->changes) {
        struct member_call *m = container_of(node, struct member_call, node);
        struct core_request *r = m->r;
        bool own = r->change.op == CONSENSUS_REMOVE && r->change.member_id == c->config.consensus.id;
        list_remove(&m->node);
        mem_free(m);
        r->member_id = r->change.member_id;
        core_answer(c, r, own ? core_read_members(c, r) : ERR_STOPPED);
    }
}

void core_member_stop(struct core *c)
{
    list_for_each(node, &c->changes) answer(container_of(node, struct member_call, node), ERR_STOPPED);
}

/* ---- messages ---------------------------------------------------------------------------------------- */

static void tell(struct core *c, uint64_t to, uint64_t id, int code)
{
    struct buf out = {0};
    buf_append_byte(&out, MESSAGE_CHANGED);
    buf_append_u64(&out, id);
    buf_append_u64(&out, (uint64_t)(int64_t)code);
    if (out.failed || consensus_message(c->consensus, to, buf_slice(&out)) != 0)
        log_debug("a change of the members is done, and who asked cannot be told: it will ask again");
    buf_release(&out);
}

static void done_for_other(void *data, int error)
{
    struct member_work *w = data;
    if (!w->core->closing) tell(w->core, w->from_id, w->id, error);
    mem_free(w);
}

static void take_change(struct core *c, uint64_t from_id, uint64_t id, struct reader *in)
{
    uint8_t op = reader_u8(in), flags = reader_u8(in);
    struct core_member_change ch = {.op = (enum consensus_change_op)op, .learner = flags & 1};
    ch.member_id = reader_u64(in);
    if (in->failed || op > CONSENSUS_UPDATE) return;
    ch.peer_url = reader_bytes(in, reader_left(in));
    struct member_work *w = work_new(c, from_id, id);
    int rv = begin(c, &ch, flags & 2, done_for_other, w);
    if (rv == 0) return;
    mem_free(w);
    tell(c, from_id, id, rv < 0 ? rv : 0);
}

bool core_member_message(struct core *c, uint64_t from_id, struct slice payload)
{
    struct reader in = reader_make(payload);
    uint8_t kind = reader_u8(&in);
    uint64_t id = reader_u64(&in);
    if (in.failed || (kind != MESSAGE_CHANGE && kind != MESSAGE_CHANGED)) return false;
    if (c->closing) return true;
    if (kind == MESSAGE_CHANGE) {
        take_change(c, from_id, id, &in);
        return true;
    }
    int64_t code = (int64_t)reader_u64(&in);
    struct member_call *m = in.failed ? NULL : call_of(c, id);
    if (m) settle(m, (int)code);
    return true;
}
