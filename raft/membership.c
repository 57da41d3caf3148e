/* Who the members are, and how that changes (thesis, chapter 4).
 *
 * A change is one configuration entry of the leader (guard_change), one at a time, and only after the leader's own entry of the
 * term has committed. It counts for majorities from the moment it is in a log; what consensus_members tells is the
 * newest committed one. Who is added as a voter begins as a learner that is marked "to be promoted" in its address;
 * whoever leads promotes it once it has caught up (4.2.1: a round of what the leader had when the round began took less
 * than an election timeout, and it answers). So a member that has not started yet, or is far behind, never holds up a
 * majority, and no restart and no change of leader strands it.
 *
 * A leader that is to be removed hands leadership over first. Who was removed no longer gets anything: the others refuse it, and
 * say why as soon as they know a committed configuration without it that is newer than the one it was in. It notes that in meta
 * and never starts again.
 *
 * The newest committed members are also in a file of their own ("members"), so that a member whose log is lost or
 * damaged, or whose flags are those of long ago, finds the others (heal.c). Members tell each other with each HELLO: one that has no
 * log yet, or whose log is behind, listens to all that are members now, and answers them where they are now. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/consensus_int.h"
#include "raft/join.h"

#define MEMBERS_MAGIC 0x3152424d4d4e5000u /* "\0PNMMBR1" */
#define MEMBERS_BYTES_MAX (64 * LIMIT_KiB)
#define CHANGE_TIMEOUTS 10u /* election timeouts until the outcome of a change is unknown */

/* ---- the file --------------------------------------------------------------------------------- */

static int save(struct consensus *c, uint64_t index, const struct raft_configuration *conf, struct err *e)
{
    struct raft_buffer bytes;
    struct buf b;
    CHECK(raft_configuration_encode(conf, &bytes) == 0);
    buf_init(&b, MEMBERS_BYTES_MAX);
    (void)buf_append_u64(&b, MEMBERS_MAGIC);
    (void)buf_append_u64(&b, c->cluster_id);
    (void)buf_append_u64(&b, c->id);
    (void)buf_append_u64(&b, index);
    (void)buf_append(&b, bytes.base, bytes.len);
    raft_free(bytes.base);
    if (!b.failed) (void)buf_append_u32(&b, crc32c(0, b.data, b.len));
    int rv = b.failed ? err_set(e, b.failed, MEMBERS_PATH ": %s", err_text(b.failed))
                      : c->env->ops->write_file(c->env, MEMBERS_PATH, buf_slice(&b), e);
    buf_release(&b);
    return rv;
}

bool membership_parse(struct slice file, uint64_t *ret_cluster, uint64_t *ret_member, uint64_t *ret_index,
                      struct slice *ret_configuration)
{
    if (file.len < 4 * sizeof(uint64_t) + sizeof(uint32_t)) return false;
    struct reader r = reader_make(file);
    uint64_t magic = reader_u64(&r);
    *ret_cluster = reader_u64(&r);
    *ret_member = reader_u64(&r);
    *ret_index = reader_u64(&r);
    *ret_configuration = reader_bytes(&r, reader_left(&r) - sizeof(uint32_t));
    return magic == MEMBERS_MAGIC && reader_u32(&r) == crc32c(0, file.data, file.len - sizeof(uint32_t)) &&
           frame_configuration_ok(*ret_configuration);
}

/* Takes `conf` as the newest committed members. */
static int know(struct consensus *c, uint64_t index, struct raft_configuration *conf, struct err *e)
{
    struct membership *m = &c->membership;
    raft_configuration_close(&m->committed);
    m->committed = *conf;
    m->committed_index = index;
    return save(c, index, &m->committed, e);
}

/* The scrub has read the file (empty: there is none): it must hold what is committed, else it is written again. */
bool membership_check(struct consensus *c, struct slice file)
{
    const struct membership *m = &c->membership;
    uint64_t cluster, member, index;
    struct slice conf;
    struct err e = {{0}};
    if (m->committed_index == 0) return true;
    /* A newer one may have been written since it was read. */
    if (membership_parse(file, &cluster, &member, &index, &conf) && cluster == c->cluster_id && member == c->id)
        return true;
    int rv = save(c, m->committed_index, &m->committed, &e);
    if (rv) consensus_fatal(c, rv, "%s", e.text);
    return false;
}

/* The flags say who may call; who joins was told whose word that is. */
static int open_config(struct consensus *c, const struct consensus_config *config, struct err *e)
{
    struct raft_configuration conf;
    if (config->n_members == 0) return 0;
    int rv = peers_configuration(config, &conf, e);
    if (rv) return rv;
    (void)peers_update(c, &conf, &conf, false);
    if (config->members_index) return know(c, config->members_index, &conf, e);
    raft_configuration_close(&conf);
    return 0;
}

/* A file that cannot be read is as none: the flags name members, too. */
int membership_open(struct consensus *c, const struct consensus_config *config, struct err *e)
{
    struct membership *m = &c->membership;
    struct buf b;
    uint64_t cluster, member, index;
    struct slice conf;
    buf_init(&b, MEMBERS_BYTES_MAX);
    int rv = c->env->ops->read_file(c->env, MEMBERS_PATH, MEMBERS_BYTES_MAX, &b, e);
    bool ok = rv == 0 && membership_parse(buf_slice(&b), &cluster, &member, &index, &conf) &&
              cluster == c->cluster_id && member == c->id;
    if (ok) {
        CHECK(peers_decode_configuration(conf, &m->committed));
        (void)peers_update(c, &m->committed, &m->committed, false);
        m->committed_index = index;
    }
    bool none = rv == 0 || rv == ERR_NOT_FOUND || rv == ERR_CORRUPT || rv == ERR_LIMIT; /* else it may well be there */
    if (!ok && none && rv != ERR_NOT_FOUND) log_warn("raft: " MEMBERS_PATH " cannot be read: the flags say who the members are");
    buf_release(&b);
    return ok ? 0 : none ? open_config(c, config, e) : rv;
}

int membership_begin(struct consensus *c, struct raft_configuration *conf, struct err *e)
{
    return know(c, 1, conf, e);
}

/* ---- what is committed ------------------------------------------------------------------------- */

static const struct consensus_member *member_of(const struct consensus *c, uint64_t id)
{
    for (size_t i = 0; i < c->n_members; i++)
        if (c->members[i].id == id) return &c->members[i];
    return NULL;
}

static void note_removed(struct consensus *c, uint64_t by)
{
    struct err e = {{0}};
    if (c->dead || c->closing) return;
    c->meta.flags |= META_REMOVED;
    int rv = meta_write(c->env, c->cluster_id, c->id, &c->meta, &e);
    if (rv) return consensus_fatal(c, rv, "this member was removed from the cluster, and that cannot be noted: %s", e.text);
    consensus_fatal(c, ERR_REMOVED, "this member was removed from the cluster (member %" PRIx64 " says so)", by);
}

void membership_tell(struct consensus *c, uint64_t to)
{
    struct raft_buffer bytes;
    if (c->membership.committed_index == 0) return;
    CHECK(raft_configuration_encode(&c->membership.committed, &bytes) == 0);
    struct frame f = {.kind = FRAME_MEMBERS};
    f.members.index = c->membership.committed_index;
    f.members.configuration = slice_make(bytes.base, bytes.len);
    peers_send(c, to, ENV_CHANNEL_RAFT, &f);
    raft_free(bytes.base);
}

/* Any may have no log yet, or none any more: whose disk was lost knows only what its flags say. */
static void tell_all(struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].id != c->id) membership_tell(c, c->peers[i].id);
}

static bool contains(const struct raft_configuration *conf, uint64_t id)
{
    for (unsigned i = 0; i < conf->n; i++)
        if (conf->servers[i].id == id) return true;
    return false;
}

/* Committed members, as `by` says; takes `conf`. Whether they are newer than what was known. That this member is not among them any
 * more is noted first: once they are known, nobody would tell it again. */
static bool learn(struct consensus *c, uint64_t by, uint64_t index, struct raft_configuration *conf)
{
    struct membership *m = &c->membership;
    struct err e = {{0}};
    bool news = index > m->committed_index, removed = contains(&m->committed, c->id) && !contains(conf, c->id);
    if (news && removed) note_removed(c, by);
    if (!news || removed) {
        raft_configuration_close(conf);
        return false;
    }
    int rv = know(c, index, conf, &e);
    if (rv) consensus_fatal(c, rv, "%s", e.text);
    return !c->dead;
}

static void update_peers(struct consensus *c)
{
    const struct membership *m = &c->membership;
    const struct raft_configuration *newest = &c->raft.configuration, *committed = &m->committed;
    bool ahead = m->committed_index && !guard_holds_configuration(&c->guard, m->committed_index);
    bool changed = peers_update(c, newest->n ? newest : committed, m->committed_index ? committed : newest, ahead);
    if (changed && m->committed_index) c->cb.membership_changed(c->ctx);
}

/* A log that was just opened does not know yet how much of it is committed. */
void membership_changed(struct consensus *c)
{
    struct raft_configuration conf;
    uint64_t index = guard_committed_configuration(&c->guard, &conf);
    if (learn(c, c->id, index, &conf)) tell_all(c);
    if (!c->dead) update_peers(c);
}

static size_t voters(const struct consensus *c)
{
    size_t n = 0;
    for (unsigned i = 0; i < c->raft.configuration.n; i++) n += c->raft.configuration.servers[i].role == RAFT_VOTER;
    return n;
}

/* The only voter changes the members in its own log. Where there is a later membership, its log was lost, and the flags, which say that
 * this member begins a cluster alone, have begun a second one (unless that was the purpose: a backup restored). */
static bool is_second_cluster(const struct consensus *c, uint64_t index)
{
    const struct raft *r = &c->raft;
    bool alone = false;
    for (unsigned i = 0; i < r->configuration.n; i++)
        alone |= r->configuration.servers[i].id == c->id && r->configuration.servers[i].role == RAFT_VOTER;
    return alone && voters(c) == 1 && index > r->configuration_index && index > r->configuration_uncommitted_index;
}

void membership_frame(struct consensus *c, uint64_t from, const struct frame *f)
{
    struct raft_configuration conf;
    bool second = is_second_cluster(c, f->members.index);
    if ((c->meta.flags & META_RESTORED) && second) return;
    if (!peers_decode_configuration(f->members.configuration, &conf)) return;
    if (learn(c, from, f->members.index, &conf)) update_peers(c);
    if (second) heal_rolled_back(c, "this folder has lost the members that others know of: what it began was another cluster");
}

/* ---- removed ------------------------------------------------------------------------------------ */

uint64_t membership_known(void *ctx)
{
    struct consensus *c = ctx;
    return member_of(c, c->id) ? c->membership.committed_index : 0;
}

static bool is_gone(const struct consensus *c, uint64_t peer_id, uint64_t known)
{
    return !c->dead && known && c->membership.committed_index > known && !member_of(c, peer_id);
}

static bool has_met(const struct consensus *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->meta.n_seen; i++)
        if (c->meta.seen[i].id == id) return true;
    return false;
}

/* Who was no member where it says it was is of another history, and must not be told anything for good. Where the log does not go back
 * that far any more, who has begun alone has met all that ran, and does not know the members of a cluster before that. */
static bool is_of_this_history(const struct consensus *c, uint64_t peer_id, uint64_t known)
{
    enum guard_history h = guard_was_member(&c->guard, known, peer_id);
    return h == GUARD_HISTORY_SAME || (h == GUARD_HISTORY_UNKNOWN && (!(c->meta.flags & META_ALONE) || has_met(c, peer_id)));
}

/* Who is of a later membership than is known here says who the members are now; of those that are known here perhaps nobody is left. */
enum env_stranger membership_stranger(void *ctx, uint64_t peer_id, uint64_t known)
{
    struct consensus *c = ctx;
    if (is_gone(c, peer_id, known)) return is_of_this_history(c, peer_id, known) ? ENV_STRANGER_REMOVED : ENV_STRANGER_UNKNOWN;
    bool news = !c->dead && known > c->membership.committed_index && !(c->meta.flags & META_RESTORED);
    return news ? ENV_STRANGER_HEARD : ENV_STRANGER_UNKNOWN;
}

void membership_refused(void *ctx, uint64_t peer_id, int error)
{
    struct consensus *c = ctx;
    if (error == ERR_REMOVED) note_removed(c, peer_id);
    else
        consensus_fatal(c, error, "another process runs under the ID of this member, %" PRIx64
                        " (member %" PRIx64 " says so): is it running on another machine, or with a copy of its data?", c->id, peer_id);
}

bool membership_describe(void *ctx, struct buf *out)
{
    struct consensus *c = ctx;
    struct consensus_member *named = NULL;
    char (*names)[LIMIT_MEMBER_NAME_BYTES] = NULL;
    if (c->dead || c->membership.committed_index == 0 || !member_of(c, c->id)) return false;
    named = mem_must_calloc(c->n_members, sizeof *named);
    names = mem_must_calloc(c->n_members, sizeof *names);
    for (size_t i = 0; i < c->n_members; i++) {
        named[i] = c->members[i];
        if (c->cb.member_name && c->cb.member_name(c->ctx, named[i].id, names[i], sizeof *names)) named[i].name = names[i];
    }
    join_encode(out, c->cluster_id, c->membership.committed_index, named, c->n_members);
    mem_free(named);
    mem_free(names);
    return true;
}

/* ---- changes ------------------------------------------------------------------------------------ */

static void keep(struct membership *m, const struct consensus_change *change)
{
    m->op = change->op;
    m->member = change->member;
    m->member.peer_url = mem_must_strdup(change->member.peer_url ? change->member.peer_url : "");
    m->member.name = mem_must_strdup(change->member.name ? change->member.name : "");
}

static void finish(struct consensus *c, int error)
{
    struct membership *m = &c->membership;
    void (*done)(void *data, int error) = m->done;
    m->done = NULL;
    if (m->state != CHANGE_COMMITTING || m->ended) {
        m->state = CHANGE_NONE;
        peers_member_release(&m->member);
    }
    if (done) done(m->data, error);
}

static void change_ended(struct raft_change *req, int status)
{
    struct membership *m = req->data;
    m->ended = true;
    m->status = status;
}

/* The configuration that the change makes; libraft's own order is kept, a new member is last. */
static void make_next(const struct consensus *c, struct raft_configuration *ret)
{
    const struct membership *m = &c->membership;
    raft_configuration_init(ret);
    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        const struct raft_server *s = &c->raft.configuration.servers[i];
        struct consensus_member now;
        if (s->id == m->member.id && m->op == CONSENSUS_REMOVE) continue;
        peers_member(s, &now);
        const char *url = now.peer_url;
        if (s->id == m->member.id && m->op == CONSENSUS_PROMOTE) now.learner = now.promote = false;
        if (s->id == m->member.id && m->op == CONSENSUS_UPDATE) now.peer_url = m->member.peer_url;
        char *address = peers_address(&now);
        CHECK(raft_configuration_add(ret, s->id, address, now.learner ? RAFT_STANDBY : RAFT_VOTER) == 0);
        mem_free(address);
        now.peer_url = url;
        peers_member_release(&now);
    }
    if (m->op != CONSENSUS_ADD) return;
    struct consensus_member added = m->member;
    added.promote = !added.learner;
    char *address = peers_address(&added);
    CHECK(raft_configuration_add(ret, added.id, address, RAFT_STANDBY) == 0);
    mem_free(address);
}

static void start_change(struct consensus *c)
{
    struct membership *m = &c->membership;
    struct raft_configuration next;
    m->request.data = m;
    m->ended = false;
    make_next(c, &next);
    int rv = guard_change(&c->guard, &m->request, &next, change_ended);
    raft_configuration_close(&next);
    if (rv == 0) m->state = CHANGE_COMMITTING; /* else a transfer is in the way: later */
}

static void handed_over(void *data, int error)
{
    struct consensus *c = data;
    if (c->membership.state == CHANGE_HANDING_OVER) finish(c, error ? error : ERR_LEADER_CHANGED);
}

/* To the voter that has most of the log, and answers. */
static int hand_over(struct consensus *c)
{
    const struct peer *best = NULL;
    uint64_t best_match = 0, now = consensus_now(c);
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        uint64_t match = consensus_match_index(c, p->id);
        if (p->learner || p->id == c->id || now - p->answered_ms > c->election_ms) continue;
        if (!best || match > best_match) {
            best = p;
            best_match = match;
        }
    }
    return best ? consensus_transfer(c, best->id, handed_over, c) : ERR_NO_LEADER;
}

static bool url_is_taken(const struct consensus *c, const char *url, uint64_t but_of)
{
    for (size_t i = 0; i < c->n_peers; i++)
        if (c->peers[i].id != but_of && strcmp(c->peers[i].url, url) == 0) return true;
    return false;
}

bool consensus_answers(const struct consensus *c, uint64_t member_id)
{
    const struct peer *p = peers_find((struct consensus *)(uintptr_t)c, member_id);
    if (!consensus_leads(c) || !p) return false;
    return p->id == c->id || (p->answered_ms && consensus_now(c) - p->answered_ms <= c->election_ms);
}

static bool has_caught_up(const struct consensus *c, const struct peer *p)
{
    return p->caught_up && p->round_term == c->raft.current_term && consensus_answers(c, p->id);
}

static int check_change(const struct consensus *c, const struct consensus_change *change)
{
    const struct consensus_member *m = &change->member;
    const struct peer *p = peers_find((struct consensus *)(uintptr_t)c, m->id);
    bool needs_url = change->op == CONSENSUS_ADD || change->op == CONSENSUS_UPDATE;
    if (m->id == 0 || (needs_url && peers_check(m, NULL))) return ERR_INVALID;
    /* In the log it would stop every member for good. */
    if (needs_url && c->env->ops->set_peer(c->env, c->id, m->peer_url) != 0) return ERR_INVALID;
    if (change->op == CONSENSUS_ADD ? p != NULL : needs_url && p && url_is_taken(c, m->peer_url, m->id))
        return ERR_EXISTS;
    if (change->op == CONSENSUS_ADD) {
        if (url_is_taken(c, m->peer_url, m->id)) return ERR_EXISTS;
        return c->raft.configuration.n < LIMIT_MEMBERS ? 0 : ERR_LIMIT;
    }
    if (!p) return ERR_MEMBER_NOT_FOUND;
    if (change->op == CONSENSUS_PROMOTE) return !p->learner ? ERR_CONFLICT : has_caught_up(c, p) ? 0 : ERR_AGAIN;
    if (change->op == CONSENSUS_REMOVE && !p->learner && voters(c) == 1) return ERR_INVALID;
    return 0;
}

int consensus_change(struct consensus *c, const struct consensus_change *change,
                     void (*done)(void *data, int error), void *data)
{
    struct membership *m = &c->membership;
    if (c->dead || c->closing) return ERR_CLOSED;
    if (!consensus_leads(c)) return ERR_NOT_LEADER;
    if (m->state != CHANGE_NONE || c->raft.configuration_uncommitted_index || c->raft.transfer) return ERR_BUSY;
    int rv = check_change(c, change);
    if (rv) return rv;
    bool self = change->op == CONSENSUS_REMOVE && change->member.id == c->id;
    if (self) rv = hand_over(c);
    if (rv) return rv;
    keep(m, change);
    m->state = self ? CHANGE_HANDING_OVER : CHANGE_WAITING;
    m->done = done;
    m->data = data;
    m->deadline_ms = consensus_now(c) + CHANGE_TIMEOUTS * (uint64_t)c->election_ms;
    guard_poll(&c->guard); /* begins at once, if libraft is not on the stack */
    return 0;
}

/* How well a learner keeps up: a round is done when it has what the log held when the round began. */
static void measure(struct consensus *c, struct peer *p)
{
    uint64_t now = consensus_now(c), last = consensus_last_index(c);
    bool fresh = p->round_term != c->raft.current_term;
    bool done = !fresh && consensus_match_index(c, p->id) >= p->round_index;
    if (fresh || (!done && now - p->round_ms > c->election_ms)) p->caught_up = false;
    else if (done) p->caught_up = now - p->round_ms <= c->election_ms;
    if (!fresh && !done) return;
    p->round_term = c->raft.current_term;
    p->round_index = last;
    p->round_ms = now;
}

static void promote_who_is_ready(struct consensus *c)
{
    struct membership *m = &c->membership;
    for (size_t i = 0; i < c->n_peers; i++) {
        struct peer *p = &c->peers[i];
        if (!p->learner || p->id == c->id) continue;
        measure(c, p);
        if (!p->promote || m->state != CHANGE_NONE || c->raft.configuration_uncommitted_index || c->raft.transfer ||
            !has_caught_up(c, p))
            continue;
        log_info("raft: member has caught up and becomes a voter member=%" PRIx64 " peer=%" PRIx64, c->id, p->id);
        keep(m, &(struct consensus_change){CONSENSUS_PROMOTE, {.id = p->id}});
        return start_change(c);
    }
}

void membership_poll(struct consensus *c)
{
    struct membership *m = &c->membership;
    bool leads = consensus_leads(c);
    if (m->state == CHANGE_COMMITTING && m->ended) finish(c, m->status ? ERR_LEADER_CHANGED : 0);
    if (m->state == CHANGE_WAITING && !leads) finish(c, ERR_LEADER_CHANGED);
    if (m->state != CHANGE_NONE && m->done && consensus_now(c) >= m->deadline_ms) finish(c, ERR_TIMEOUT);
    if (c->dead || !leads) return;
    if (m->state == CHANGE_WAITING && !c->raft.configuration_uncommitted_index) start_change(c);
    if (m->state == CHANGE_NONE) promote_who_is_ready(c);
}

void membership_release(struct consensus *c)
{
    if (c->membership.done) c->membership.done(c->membership.data, ERR_CLOSED);
    peers_member_release(&c->membership.member);
    raft_configuration_close(&c->membership.committed);
}
