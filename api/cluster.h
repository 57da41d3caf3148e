/* --initial-cluster and the ids that follow from it; shared by `server` and `ctl snapshot restore`. */
#ifndef PINTLE_API_CLUSTER_H
#define PINTLE_API_CLUSTER_H

#include "base/arena.h"
#include "base/err.h"
#include "raft/consensus.h"

struct cluster {
    struct consensus_member *members;
    size_t n;
    uint64_t cluster_id, own_id;
    const char *own_peer_url;
};

/* `text`: "n1=http://host:2380,n2=...". `name` must be one of them. Everything lives in `a`. ERR_INVALID with a sentence: a name
 * or URL twice, a missing own name, a URL that is none. */
int cluster_parse(struct arena *a, const char *text, const char *name, const char *token, struct cluster *ret,
                  struct err *e) MUST_CHECK;

#endif
