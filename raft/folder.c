/* Whose data folder it is and who the members are by it, before anything opens it: nothing is locked, repaired or written. */
#include <stdio.h>

#include "raft/folder_int.h"
#include "raft/join.h"
#include "raft/snapshots_int.h"

static bool read_file(const char *dir, const char *name, struct buf *out)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rbe");
    if (!f) return false;
    buf_clear(out);
    uint8_t *p = buf_reserve(out, 64 * LIMIT_KiB);
    if (p) out->len = fread(p, 1, 64 * LIMIT_KiB, f);
    fclose(f);
    return p != NULL;
}

int join_folder(const char *data_dir, uint64_t *ret_cluster_id, uint64_t *ret_member_id)
{
    struct buf b = {0};
    uint64_t index;
    struct slice conf;
    bool found = read_file(data_dir, MEMBERS_PATH, &b) &&
                 membership_parse(buf_slice(&b), ret_cluster_id, ret_member_id, &index, &conf);
    for (int i = 0; i < META_COPIES && !found; i++) {
        found = read_file(data_dir, meta_paths[i], &b) && meta_owner(buf_slice(&b), ret_cluster_id, ret_member_id);
    }
    buf_release(&b);
    return found ? 0 : ERR_NOT_FOUND;
}

static int take_configuration(struct slice bytes, struct arena *a, struct join_cluster *ret)
{
    struct raft_configuration conf;
    consensus_use_heap();
    if (!peers_decode_configuration(bytes, &conf)) return ERR_NOT_FOUND;
    for (ret->n = 0; ret->n < conf.n && ret->n < LIMIT_MEMBERS; ret->n++) {
        struct consensus_member m;
        peers_member(&conf.servers[ret->n], &m);
        ret->members[ret->n] = (struct consensus_member){.id = m.id,
                                                         .learner = m.learner,
                                                         .promote = m.promote,
                                                         .peer_url = arena_strdup(a, slice_str(m.peer_url)),
                                                         .name = arena_strdup(a, slice_str(m.name))};
        peers_member_release(&m);
    }
    raft_configuration_close(&conf);
    return 0;
}

/* The configuration is in the first bytes: no more of the file is looked at. */
static int take_restored(struct slice start, struct arena *a, struct join_cluster *ret)
{
    struct snapfile_decoder d;
    snapfile_decoder_init(&d);
    int rv = snapfile_feed(&d, start, NULL, NULL, NULL);
    rv = rv == 0 && d.state != SNAPFILE_HEADER ? take_configuration(d.header.configuration, a, ret) : ERR_NOT_FOUND;
    if (rv == 0) ret->cluster_id = d.header.cluster_id, ret->index = d.header.configuration_index;
    snapfile_decoder_release(&d);
    return rv;
}

int join_folder_members(const char *data_dir, struct arena *a, struct join_cluster *ret)
{
    struct buf b = {0};
    char path[SNAP_PATH_BYTES];
    uint64_t member;
    struct slice conf;
    int rv = ERR_NOT_FOUND;
    snap_path(path, RESTORED_INDEX, RESTORED_TERM);
    if (read_file(data_dir, MEMBERS_PATH, &b) &&
        membership_parse(buf_slice(&b), &ret->cluster_id, &member, &ret->index, &conf))
        rv = take_configuration(conf, a, ret);
    else if (read_file(data_dir, path, &b)) rv = take_restored(buf_slice(&b), a, ret);
    buf_release(&b);
    return rv;
}
