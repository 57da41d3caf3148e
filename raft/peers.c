/* Members, and frames on their way to them. The members of a running cluster are those of libraft's
 * configuration, whose addresses carry peer URL and name: "<url> <name>", and "<url>#promote <name>" for one that is to
 * become a voter by itself (membership.c). Peers are those of the newest configuration and of the newest
 * committed one: who is about to be removed is still listened to (thesis 4.1), and so is who is not in the own log yet. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

struct peer *peers_find(struct consensus *c, uint64_t id)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        if (c->peers[i].id == id) return &c->peers[i];
    }
    return NULL;
}

static void peer_release(struct peer *p)
{
    mem_free(p->name);
    mem_free(p->url);
    mem_free(p->address);
}

#define PROMOTE "#promote"

char *peers_address(const struct consensus_member *m)
{
    const char *name = m->name ? m->name : "", *mark = m->promote ? PROMOTE : "";
    size_t size = strlen(m->peer_url) + strlen(mark) + strlen(name) + 2;
    char *address = mem_must_alloc(size);
    snprintf(address, size, "%s%s %s", m->peer_url, mark, name);
    return address;
}

static char *dup_part(const char *from, size_t len)
{
    char *text = mem_must_alloc(len + 1);
    memcpy(text, from, len);
    text[len] = 0;
    return text;
}

static void split_address(const char *address, char **ret_url, char **ret_name, bool *ret_promote)
{
    size_t len = strcspn(address, " "), url = strcspn(address, "# ");
    *ret_promote = len - url == strlen(PROMOTE) && !memcmp(address + url, PROMOTE, len - url);
    *ret_url = dup_part(address, *ret_promote ? url : len);
    *ret_name = mem_must_strdup(address[len] ? address + len + 1 : "");
}

void peers_member(const struct raft_server *s, struct consensus_member *ret)
{
    char *url, *name;
    *ret = (struct consensus_member){.id = s->id, .learner = s->role != RAFT_VOTER};
    split_address(s->address, &url, &name, &ret->promote);
    ret->peer_url = url;
    ret->name = name;
}

void peers_member_release(struct consensus_member *m)
{
    mem_free((char *)(uintptr_t)m->peer_url);
    mem_free((char *)(uintptr_t)m->name);
    *m = (struct consensus_member){0};
}

static void release_members(struct consensus *c)
{
    for (size_t i = 0; i < c->n_members; i++) peers_member_release(&c->members[i]);
    mem_free(c->members);
    c->members = NULL;
    c->n_members = 0;
}

static bool same_member(const struct consensus_member *a, const struct consensus_member *b)
{
    return a->id == b->id && a->learner == b->learner && a->promote == b->promote &&
           strcmp(a->peer_url, b->peer_url) == 0 && strcmp(a->name, b->name) == 0;
}

/* What consensus_members tells; true if it has changed. */
static bool update_members(struct consensus *c, const struct raft_configuration *committed)
{
    struct consensus_member *now = mem_must_calloc(committed->n + 1, sizeof *now);
    bool changed = committed->n != c->n_members;
    for (unsigned i = 0; i < committed->n; i++) {
        peers_member(&committed->servers[i], &now[i]);
        changed = changed || !same_member(&now[i], &c->members[i]);
    }
    release_members(c);
    c->members = now;
    c->n_members = committed->n;
    return changed;
}

static bool tell_env(struct consensus *c, const struct peer *p, const char *url)
{
    if (p->id == c->id) return true;
    int rv = c->env->ops->set_peer(c->env, p->id, url);
    if (rv && url)
        consensus_fatal(c, rv, "member %" PRIx64 ": peer URL %s: %s", p->id, url, err_text(rv));
    return rv == 0;
}

static const struct raft_server *server_of(const struct raft_configuration *conf, uint64_t id)
{
    for (unsigned i = 0; i < conf->n; i++)
        if (conf->servers[i].id == id) return &conf->servers[i];
    return NULL;
}

/* Moves what is known of it from `old`, and tells the env where it is if that is new. Addresses are kept as long as it is
 * a peer: libraft's messages borrow them. */
static void add_peer(struct consensus *c, const struct raft_server *s, bool voter, struct peer *old,
                     size_t n_old)
{
    struct peer *p = &c->peers[c->n_peers++], *was = NULL;
    for (size_t j = 0; j < n_old && !was; j++) was = old[j].id == s->id ? &old[j] : NULL;
    if (was) {
        *p = *was;
        was->id = 0;
    }
    p->id = s->id;
    p->learner = !voter;
    if (was && strcmp(was->address, s->address) == 0) return;
    struct peer before = *p;
    p->address = mem_must_strdup(s->address);
    split_address(s->address, &p->url, &p->name, &p->promote);
    if (!was || strcmp(before.url, p->url) != 0) (void)tell_env(c, p, p->url);
    if (was) peer_release(&before);
}

bool peers_update(struct consensus *c, const struct raft_configuration *newest,
                  const struct raft_configuration *committed, bool ahead)
{
    struct peer *old = c->peers;
    size_t n_old = c->n_peers;
    c->peers = mem_must_calloc(newest->n + committed->n + 1, sizeof *c->peers);
    c->n_peers = 0;
    for (unsigned i = 0; i < newest->n; i++) {
        const struct raft_server *s = &newest->servers[i];
        const struct raft_server *now = ahead ? server_of(committed, s->id) : NULL;
        add_peer(c, now ? now : s, s->role == RAFT_VOTER, old, n_old);
    }
    for (unsigned i = 0; i < committed->n; i++) {
        const struct raft_server *s = &committed->servers[i];
        if (!server_of(newest, s->id)) add_peer(c, s, false, old, n_old);
    }
    for (size_t j = 0; j < n_old; j++) {
        if (!old[j].id) continue;
        (void)tell_env(c, &old[j], NULL);
        peer_release(&old[j]);
    }
    mem_free(old);
    return update_members(c, committed);
}

int peers_check(const struct consensus_member *m, struct err *e)
{
    const char *name = m->name ? m->name : "", *url = m->peer_url ? m->peer_url : "";
    if (m->id == 0) return err_set(e, ERR_INVALID, "member %s: id 0", name);
    if (!*url || strpbrk(url, " #\t\r\n"))
        return err_set(e, ERR_INVALID, "member %s: peer URL \"%s\"", name, url);
    return 0;
}

static int compare_servers(const void *a, const void *b)
{
    const struct raft_server *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Sorted by id: every member must write the same first entry. */
int peers_configuration(const struct consensus_config *config, struct raft_configuration *ret,
                        struct err *e)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    int rv = config->n_members == 0 || config->n_members > LIMIT_MEMBERS
                 ? err_set(e, ERR_INVALID, "a cluster has 1 to %d members, not %zu", LIMIT_MEMBERS,
                           config->n_members)
                 : 0;
    size_t voters = 0;
    for (size_t i = 0; i < config->n_members && !rv; i++) {
        const struct consensus_member *m = &config->members[i];
        rv = peers_check(m, e);
        if (rv) break;
        voters += !m->learner;
        char *address = peers_address(m);
        int refused =
            raft_configuration_add(&conf, m->id, address, m->learner ? RAFT_STANDBY : RAFT_VOTER);
        mem_free(address);
        if (refused) {
            rv = err_set(e, ERR_INVALID, "member %s (%" PRIx64 ", %s): %s", m->name ? m->name : "",
                         m->id, m->peer_url,
                         refused == RAFT_DUPLICATEID ? "another member has the same id"
                                                     : raft_strerror(refused));
        }
    }
    if (!rv && voters == 0) rv = err_set(e, ERR_INVALID, "a cluster needs a voting member");
    if (rv) {
        raft_configuration_close(&conf);
        return rv;
    }
    qsort(conf.servers, conf.n, sizeof *conf.servers, compare_servers);
    *ret = conf;
    return 0;
}

/* libraft has this too, but does not export it. */
bool peers_decode_configuration(struct slice bytes, struct raft_configuration *ret)
{
    struct raft_configuration conf;
    if (!frame_configuration_ok(bytes)) return false;
    raft_configuration_init(&conf);
    struct reader r = reader_make(bytes);
    (void)reader_u8(&r);
    uint64_t n = reader_u64(&r);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t id = reader_u64(&r);
        const char *address = (const char *)r.p;
        (void)reader_bytes(&r, strlen(address) + 1);
        if (raft_configuration_add(&conf, id, address, reader_u8(&r))) {
            raft_configuration_close(&conf);
            return false;
        }
    }
    *ret = conf;
    return true;
}

void peers_release(struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) peer_release(&c->peers[i]);
    mem_free(c->peers);
    c->peers = NULL;
    c->n_peers = 0;
    release_members(c);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void out_sent(struct env_send *s)
{
    struct out_frame *o = s->data;
    struct consensus *c = o->c;
    struct peer *p = peers_find(c, o->peer_id);
    if (p) p->queued_bytes -= p->queued_bytes < o->bytes ? p->queued_bytes : o->bytes;
    if (o->done) o->done(o, s->status);
    buf_release(&o->head);
    mem_free(o->payload);
    mem_free(o);
}

struct out_frame *out_new(struct consensus *c, uint64_t peer_id, enum env_channel channel)
{
    struct out_frame *o = mem_must_calloc(1, sizeof *o);
    o->c = c;
    o->peer_id = peer_id;
    o->s.peer_id = peer_id;
    o->s.channel = channel;
    o->s.done = out_sent;
    o->s.data = o;
    o->s.n_iov = 1; /* the head, filled in when all of it is there */
    buf_init(&o->head, LIMIT_PEER_FRAME_BYTES);
    return o;
}

void out_piece(struct out_frame *o, struct slice s)
{
    if (s.len == 0) return;
    CHECK(o->s.n_iov < ENV_IOV_MAX);
    o->s.iov[o->s.n_iov++] = s;
    o->bytes += s.len;
}

void out_send(struct out_frame *o)
{
    struct consensus *c = o->c;
    if (o->head.failed) log_fatal("raft: out of memory: a frame to another member");
    o->s.iov[0] = buf_slice(&o->head);
    o->bytes += o->head.len;
    struct peer *p = peers_find(c, o->peer_id);
    if (p) p->queued_bytes += o->bytes;
    c->env->ops->send(c->env, &o->s);
}

void peers_send(struct consensus *c, uint64_t peer_id, enum env_channel channel,
                const struct frame *f)
{
    if (c->env_stopped) return;
    struct out_frame *o = out_new(c, peer_id, channel);
    frame_encode(&o->head, f);
    out_send(o);
}

#define WANTS_COMMIT_MS 1000u

void peers_want_commit(struct consensus *c, struct peer *p)
{
    p->wants_commit_ms = consensus_now(c) + WANTS_COMMIT_MS;
}
