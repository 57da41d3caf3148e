#include "api/cluster.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/url.h"
#include "raft/join.h"

#define ASK_MS 10000
#define ASK_PAUSE_US 200000

static int add_member(struct arena *a, struct cluster *c, char *item, struct err *e)
{
    char *eq = strchr(item, '=');
    struct url url;
    if (!eq || eq == item)
        return err_set(e, ERR_INVALID, "--initial-cluster: \"%s\" is not of the form name=http://host:port", item);
    *eq = 0;
    if (c->n == LIMIT_MEMBERS) return err_set(e, ERR_LIMIT, "--initial-cluster: more than %d members", LIMIT_MEMBERS);
    struct err inner;
    if (url_parse(eq + 1, &url, &inner) != 0) return err_set(e, ERR_INVALID, "--initial-cluster: %s", inner.text);
    for (size_t i = 0; i < c->n; i++) {
        if (!strcmp(c->members[i].name, item))
            return err_set(e, ERR_INVALID, "--initial-cluster: two members are named \"%s\"", item);
        if (!strcmp(c->members[i].peer_url, eq + 1))
            return err_set(e, ERR_INVALID, "--initial-cluster: two members have the URL %s", eq + 1);
    }
    c->members[c->n] = (struct consensus_member){
        .name = arena_strdup(a, slice_str(item)), .peer_url = arena_strdup(a, slice_str(eq + 1))};
    return c->members[c->n].name && c->members[c->n++].peer_url ? 0 : ERR_NOMEM;
}

int cluster_parse(struct arena *a, const char *text, const char *name, const char *token, struct cluster *ret,
                  struct err *e)
{
    struct cluster c = {.members = arena_calloc(a, LIMIT_MEMBERS, sizeof(*c.members))};
    char *copy = (char *)arena_strdup(a, slice_str(text)), *save = NULL;
    uint64_t ids[LIMIT_MEMBERS];
    if (!c.members || !copy) return ERR_NOMEM;
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        int rv = add_member(a, &c, item, e);
        if (rv != 0) return rv;
    }
    for (size_t i = 0; i < c.n; i++) {
        const char *urls[] = {c.members[i].peer_url};
        ids[i] = c.members[i].id = consensus_member_id(urls, 1, token);
        if (strcmp(c.members[i].name, name) != 0) continue;
        c.own_id = ids[i];
        c.own_peer_url = c.members[i].peer_url;
    }
    if (!c.own_peer_url)
        return err_set(e, ERR_INVALID, "couldn't find local name \"%s\" in the initial cluster configuration \"%s\"",
                       name, text);
    c.cluster_id = consensus_cluster_id(ids, c.n);
    *ret = c;
    return 0;
}

/* ---- identity --------------------------------------------------------------------------------------- */

/* A folder that belongs to another member of the flags' own list is a mistake that would start that member a second time. */
static int check_folder(const struct cluster *c, const char *data_dir, uint64_t id, struct err *e)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->members[i].id != id || id == c->own_id) continue;
        return err_set(e, ERR_CLUSTER_MISMATCH, "--data-dir %s belongs to member %s (%" PRIx64 ")", data_dir, c->members[i].name, id);
    }
    return 0;
}

/* Takes what the others say, if this member is among them and has not been there before. */
static int take_answer(struct arena *a, struct cluster *c, const struct join_cluster *j, const char *name, struct err *e)
{
    const struct consensus_member *self = NULL;
    for (size_t i = 0; i < j->n; i++)
        if (!strcmp(j->members[i].peer_url, c->own_peer_url)) self = &j->members[i];
    for (size_t i = 0; i < j->n; i++) {
        if (&j->members[i] == self || strcmp(j->members[i].name, name) != 0) continue;
        return err_set(e, ERR_EXISTS, "another member, %" PRIx64 " at %s, is named \"%s\" already: choose another --name",
                       j->members[i].id, j->members[i].peer_url, name);
    }
    if (!self)
        return err_set(e, ERR_MEMBER_NOT_FOUND,
                       "no member of the cluster has the peer URL %s: add it first (member add %s --peer-urls=%s)",
                       c->own_peer_url, name, c->own_peer_url);
    if (self->name[0] || !self->learner)
        return err_set(e, ERR_EXISTS,
                       "member %" PRIx64 " at %s has run before, and this data folder is empty: if its data is lost, "
                       "remove that member and add it again (member remove %" PRIx64 "; member add %s --peer-urls=%s)",
                       self->id, c->own_peer_url, self->id, name, c->own_peer_url);
    struct consensus_member *members = arena_calloc(a, j->n, sizeof(*members));
    if (!members) return ERR_NOMEM;
    memcpy(members, j->members, j->n * sizeof(*members));
    c->members = members;
    c->n = j->n;
    c->own_id = self->id;
    c->cluster_id = j->cluster_id;
    c->index = j->index;
    return 0;
}

/* Names that another has heard of, and who knows the newest members has not yet. */
static void add_names(struct join_cluster *to, const struct join_cluster *from)
{
    for (size_t i = 0; i < to->n; i++) {
        for (size_t k = 0; k < from->n; k++)
            if (to->members[i].id == from->members[k].id && !to->members[i].name[0]) to->members[i].name = from->members[k].name;
    }
}

/* All are asked: any of them may be behind. The newest members count. */
int cluster_join(struct arena *a, struct cluster *c, const char *name, cluster_ask_fn *ask, void *ctx, struct err *e)
{
    struct join_cluster answers[2], *newest = NULL, *next = answers;
    int rv = err_set(e, ERR_UNAVAILABLE, "--initial-cluster names no other member to ask");
    for (size_t i = 0; i < c->n; i++) {
        if (c->members[i].id == c->own_id) continue;
        rv = ask(ctx, &c->members[i], a, next, e);
        if (rv) continue;
        struct join_cluster *before = newest;
        if (!newest || next->index > newest->index) newest = next;
        if (before) add_names(newest, newest == next ? before : next);
        next = newest == answers ? answers + 1 : answers;
    }
    return newest ? take_answer(a, c, newest, name, e) : rv;
}

static int ask_over_network(void *ctx, const struct consensus_member *member, struct arena *a, struct join_cluster *ret,
                            struct err *e)
{
    return join_ask(ctx, member->peer_url, a, ret, e);
}

int cluster_identify(struct arena *a, struct cluster *c, const char *data_dir, const char *name, bool existing,
                     const struct env_uv_options *tls, struct err *e)
{
    uint64_t cluster_id, id, began = clock_mono_ms();
    if (join_folder(data_dir, &cluster_id, &id) == 0) {
        int rv = check_folder(c, data_dir, id, e);
        if (rv) return rv;
        c->cluster_id = cluster_id;
        c->own_id = id;
        c->continued = true;
        return 0;
    }
    if (!existing) return 0;
    for (bool told = false;; told = true) {
        int rv = cluster_join(a, c, name, ask_over_network, (void *)(uintptr_t)tls, e);
        if (rv == 0 || rv == ERR_EXISTS || rv == ERR_NOMEM) return rv;
        if (clock_mono_ms() - began >= ASK_MS)
            return rv;
        if (!told) log_info("asking the members of the cluster who this one is: %s", e->text);
        usleep(ASK_PAUSE_US);
    }
}

bool cluster_folder(struct arena *a, const char *data_dir, const char **ret_peer_url, size_t *ret_members)
{
    struct join_cluster *j = arena_calloc(a, 1, sizeof(*j));
    uint64_t cluster_id, id;
    if (!j || join_folder(data_dir, &cluster_id, &id) != 0 || join_folder_members(data_dir, a, j) != 0) return false;
    for (size_t i = 0; i < j->n; i++) {
        if (j->members[i].id != id || !j->members[i].peer_url) continue;
        *ret_peer_url = j->members[i].peer_url;
        *ret_members = j->n;
        return true;
    }
    return false;
}
