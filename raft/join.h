/* What a member finds out about itself before it starts: whose data folder it has, and with an empty one of an existing
 * cluster, which id was given to it. Blocking; for the start of a process. */
#ifndef PINTLE_RAFT_JOIN_H
#define PINTLE_RAFT_JOIN_H

#include "base/arena.h"
#include "base/limits.h"
#include "raft/consensus.h"
#include "raft/env_uv.h"

/* Whose folder it is; ERR_NOT_FOUND if nobody's yet, or if it cannot be told (opening it says why). */
int join_folder(const char *data_dir, uint64_t *ret_cluster_id, uint64_t *ret_member_id) MUST_CHECK;

struct join_cluster {
    uint64_t cluster_id, index; /* of the log, where these became the members */
    struct consensus_member members[LIMIT_MEMBERS]; /* names are those they have published, "" before that; strings in the arena */
    size_t n;
};

/* Who the members are as a folder knows them: by its file of the newest committed ones, or by the snapshot that it was restored from and
 * not started since. ERR_NOT_FOUND if neither can be read. */
int join_folder_members(const char *data_dir, struct arena *a, struct join_cluster *ret) MUST_CHECK;

/* Asks the member at a peer URL who the members are. `tls`: whose certificate, key and CA to use for https. ERR_UNAVAILABLE: it cannot
 * be reached or does not know; ERR_NOMEM. */
int join_ask(const struct env_uv_options *tls, const char *url, struct arena *a, struct join_cluster *ret,
             struct err *e) MUST_CHECK;

/* The answer, on the wire: appended by a member, taken apart by who asked. */
void join_encode(struct buf *out, uint64_t cluster_id, uint64_t index, const struct consensus_member *members, size_t n);
int join_decode(struct slice in, struct arena *a, struct join_cluster *ret) MUST_CHECK;

#endif
