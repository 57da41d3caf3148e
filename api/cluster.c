#include "api/cluster.h"

#include <string.h>

#include "base/limits.h"
#include "base/url.h"

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
