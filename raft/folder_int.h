/* The small files of a data folder, as far as those need to know them who look before it is opened. */
#ifndef PINTLE_RAFT_FOLDER_INT_H
#define PINTLE_RAFT_FOLDER_INT_H

#include "base/slice.h"

#define MEMBERS_PATH "members"
#define META_COPIES 2
extern const char *const meta_paths[META_COPIES];

/* The file of the newest committed members; the configuration is borrowed from it. False: not one, or damaged. */
bool membership_parse(struct slice file, uint64_t *ret_cluster, uint64_t *ret_member,
                      uint64_t *ret_index, struct slice *ret_configuration);
/* Whose file of term and vote it is; only a guess if the file is damaged. */
bool meta_owner(struct slice file, uint64_t *ret_cluster_id, uint64_t *ret_member_id);

#endif
