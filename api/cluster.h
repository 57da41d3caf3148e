/* --initial-cluster and the ids that follow from it; shared by `server` and `ctl snapshot restore`. */
#ifndef PINTLE_API_CLUSTER_H
#define PINTLE_API_CLUSTER_H

#include "base/arena.h"
#include "base/err.h"
#include "raft/consensus.h"
#include "raft/env_uv.h"
#include "raft/join.h"

struct cluster {
    struct consensus_member *members;
    size_t n;
    uint64_t cluster_id, own_id;
    uint64_t index; /* of the membership that was told to one who joins; 0 = `members` are those of the flags */
    const char *own_peer_url;
    bool continued; /* the data folder says who this is; else it is empty */
};

/* `text`: "n1=http://host:2380,n2=...". `name` must be one of them. Everything lives in `a`. ERR_INVALID with a sentence: a name
 * or URL twice, a missing own name, a URL that is none. */
int cluster_parse(struct arena *a, const char *text, const char *name, const char *token, struct cluster *ret,
                  struct err *e) MUST_CHECK;

/* Which member of which cluster this is. The data folder decides if there is one; an empty one of a new cluster follows the flags; for
 * one of an existing cluster its members are asked (each but this one, again for a while): they know which id was given to this peer
 * URL. Changes ids and members of `c`. */
int cluster_identify(struct arena *a, struct cluster *c, const char *data_dir, const char *name, bool existing,
                     const struct env_uv_options *tls, struct err *e) MUST_CHECK;

/* What a data folder says about its member: at which peer URL the others reach it, and how many members there are. False if it says
 * nothing. */
bool cluster_folder(struct arena *a, const char *data_dir, const char **ret_peer_url, size_t *ret_members);

/* One round of that asking, without a folder and a network: `ask` brings what one member of `c` answers, or why there is no answer.
 * ERR_EXISTS: this member must not start (its name is taken, or it has run before), whoever is asked again. */
typedef int cluster_ask_fn(void *ctx, const struct consensus_member *member, struct arena *a, struct join_cluster *ret,
                           struct err *e);
int cluster_join(struct arena *a, struct cluster *c, const char *name, cluster_ask_fn *ask, void *ctx, struct err *e) MUST_CHECK;

#endif
