/* Members, and frames on their way to them. The members of a running cluster are those of libraft's
 * configuration, whose addresses carry peer URL and name: "<url> <name>". */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
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

static char *join_address(const char *url, const char *name)
{
    size_t size = strlen(url) + strlen(name) + 2;
    char *address = mem_must_alloc(size);
    snprintf(address, size, "%s %s", url, name);
    return address;
}

static char *dup_part(const char *from, size_t len)
{
    char *text = mem_must_alloc(len + 1);
    memcpy(text, from, len);
    text[len] = 0;
    return text;
}

static void split_address(struct peer *p, const char *address)
{
    const char *space = strchr(address, ' ');
    size_t len = space ? (size_t)(space - address) : strlen(address);
    p->address = mem_must_strdup(address);
    p->url = dup_part(address, len);
    p->name = mem_must_strdup(space ? space + 1 : "");
}

/* Addresses come first: libraft's messages borrow them, so a peer keeps its own as long as it is a
 * member. */
static void rebuild_members(struct consensus *c)
{
    mem_free(c->members);
    c->members = mem_must_calloc(c->n_peers + 1, sizeof *c->members);
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        c->members[i] = (struct consensus_member){p->id, p->name, p->url, p->learner};
    }
}

static bool tell_env(struct consensus *c, const struct peer *p, const char *url)
{
    if (p->id == c->id) return true;
    int rv = c->env->ops->set_peer(c->env, p->id, url);
    if (rv && url)
        consensus_fatal(c, rv, "member %" PRIx64 ": peer URL %s: %s", p->id, url, err_text(rv));
    return rv == 0;
}

static bool same(const struct consensus *c, const struct raft_configuration *conf)
{
    if (c->n_peers != conf->n) return false;
    for (unsigned i = 0; i < conf->n; i++) {
        const struct peer *p = &c->peers[i];
        const struct raft_server *s = &conf->servers[i];
        if (p->id != s->id || strcmp(p->address, s->address) != 0) return false;
        if (p->learner != (s->role != RAFT_VOTER)) return false;
    }
    return true;
}

bool peers_update(struct consensus *c, const struct raft_configuration *conf)
{
    if (same(c, conf)) return false;
    struct peer *old = c->peers;
    size_t n_old = c->n_peers;
    c->peers = mem_must_calloc(conf->n + 1, sizeof *c->peers);
    c->n_peers = conf->n;
    for (unsigned i = 0; i < conf->n; i++) {
        const struct raft_server *s = &conf->servers[i];
        struct peer *p = &c->peers[i], *was = NULL;
        for (size_t j = 0; j < n_old && !was; j++) was = old[j].id == s->id ? &old[j] : NULL;
        bool moved = !was || strcmp(was->address, s->address) != 0;
        if (was) {
            *p = *was;
            was->id = 0;
        }
        p->id = s->id;
        p->learner = s->role != RAFT_VOTER;
        if (!moved) continue;
        peer_release(p);
        split_address(p, s->address);
        (void)tell_env(c, p, p->url);
    }
    for (size_t j = 0; j < n_old; j++) {
        if (!old[j].id) continue;
        (void)tell_env(c, &old[j], NULL);
        peer_release(&old[j]);
    }
    mem_free(old);
    rebuild_members(c);
    return true;
}

static int check_member(const struct consensus_member *m, struct err *e)
{
    const char *name = m->name ? m->name : "", *url = m->peer_url ? m->peer_url : "";
    if (m->id == 0) return err_set(e, ERR_INVALID, "member %s: id 0", name);
    if (!*url || strpbrk(url, " \t\r\n"))
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
        rv = check_member(m, e);
        if (rv) break;
        voters += !m->learner;
        char *address = join_address(m->peer_url, m->name ? m->name : "");
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

/* Who may call before a configuration is known: the members that the flags name. */
int peers_from_config(struct consensus *c, const struct consensus_config *config, struct err *e)
{
    struct raft_configuration conf;
    if (config->n_members == 0) return 0;
    int rv = peers_configuration(config, &conf, e);
    if (rv) return rv;
    (void)peers_update(c, &conf);
    raft_configuration_close(&conf);
    return 0;
}

void peers_release(struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) peer_release(&c->peers[i]);
    mem_free(c->peers);
    mem_free(c->members);
    c->peers = NULL;
    c->members = NULL;
    c->n_peers = 0;
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
    CHECK(!o->head.failed);
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
