/* Offline: the data folder of a member of a new cluster that starts from a state. A snapshot at
 * index 2, term 1 whose configuration is the new members, and a term; no log. The term's file comes
 * last: without it the folder is not taken for a member's.
 *
 * Index 2, because whoever begins with an empty folder has the members at index 1, term 1, and nothing: it must not match.
 * No log has an entry of term 1 behind that. */
#include <inttypes.h>

#include "base/mem.h"
#include "raft/snapshots_int.h"

static void count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
}

static int check_empty(struct env *env, struct err *e)
{
    static const char *const dirs[] = {"wal", SNAP_DIR};
    struct buf meta = {0};
    for (int i = 0; i < 2; i++) {
        unsigned names = 0;
        int rv = env->ops->mkdir(env, dirs[i], e);
        if (!rv) rv = env->ops->list(env, dirs[i], count_name, &names, e);
        if (rv) return rv;
        if (names)
            return err_set(e, ERR_EXISTS, "the data folder is not empty: there is something in %s/",
                           dirs[i]);
    }
    int rv = env->ops->read_file(env, "meta", 4096, &meta, NULL);
    buf_release(&meta);
    return rv == ERR_NOT_FOUND
               ? 0
               : err_set(e, ERR_EXISTS, "the data folder is not empty: there is a file meta");
}

struct writing {
    struct env *env;
    struct env_file *file;
    struct snapfile_encoder encoder;
    struct buf out, piece;
    uint64_t size;
};

static int write_out(struct writing *w, struct err *e)
{
    if (w->out.failed)
        return err_set(e, w->out.failed, SNAP_TAKING ": %s", err_text(w->out.failed));
    struct env_io io = {.op = ENV_IO_WRITE, .file = w->file, .offset = w->size, .n_iov = 1};
    io.iov[0] = buf_slice(&w->out);
    int rv = w->env->ops->io_sync(w->env, &io);
    if (rv) return err_set(e, rv, SNAP_TAKING ": %.200s", io.err.text);
    w->size += w->out.len;
    buf_clear(&w->out);
    return 0;
}

static int write_header(struct writing *w, const struct consensus_config *config, struct err *e)
{
    struct raft_configuration conf;
    struct raft_buffer buf;
    int rv = peers_configuration(config, &conf, e);
    if (rv) return rv;
    rv = raft_configuration_encode(&conf, &buf);
    raft_configuration_close(&conf);
    if (rv) return err_set(e, ERR_NOMEM, "out of memory");
    struct snapfile_header h = {
        .cluster_id = config->cluster_id, .index = RESTORED_INDEX, .term = RESTORED_TERM, .configuration_index = 1};
    h.configuration = slice_make(buf.base, buf.len);
    snapfile_encode_header(&w->encoder, &h, &w->out);
    raft_free(buf.base);
    return write_out(w, e);
}

static int write_stream(struct writing *w, int (*read)(void *ctx, struct buf *out, struct err *e),
                        void *ctx, struct err *e)
{
    for (;;) {
        buf_clear(&w->piece);
        int rv = read(ctx, &w->piece, e);
        if (rv) return rv;
        if (w->piece.failed) return err_set(e, w->piece.failed, "%s", err_text(w->piece.failed));
        if (w->piece.len == 0) break;
        for (size_t at = 0; at < w->piece.len; at += SNAPFILE_BLOCK_BYTES) {
            snapfile_encode_block(
                &w->encoder, slice_sub(buf_slice(&w->piece), at, SNAPFILE_BLOCK_BYTES), &w->out);
        }
        rv = write_out(w, e);
        if (rv) return rv;
    }
    snapfile_encode_end(&w->encoder, &w->out);
    int rv = write_out(w, e);
    if (rv) return rv;
    struct env_io io = {.op = ENV_IO_SYNC, .file = w->file};
    rv = w->env->ops->io_sync(w->env, &io);
    return rv ? err_set(e, rv, SNAP_TAKING ": %.200s", io.err.text) : 0;
}

static bool is_member(const struct consensus_config *config)
{
    for (size_t i = 0; i < config->n_members; i++) {
        if (config->members[i].id == config->id) return true;
    }
    return false;
}

int consensus_write_restored(const struct consensus_config *config, struct env *env,
                             int (*read)(void *ctx, struct buf *out, struct err *e), void *ctx,
                             struct err *e)
{
    struct writing w = {.env = env};
    char path[SNAP_PATH_BYTES];
    consensus_use_heap();
    if (!is_member(config)) {
        return err_set(e, ERR_INVALID,
                       "member %" PRIx64 " is not among the members of the new cluster",
                       config->id);
    }
    int rv = check_empty(env, e);
    if (rv) return rv;
    struct env_io io = {
        .op = ENV_IO_OPEN, .path = SNAP_TAKING, .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE};
    rv = env->ops->io_sync(env, &io);
    if (rv) return err_set(e, rv, SNAP_TAKING ": %.200s", io.err.text);
    w.file = io.file;
    rv = write_header(&w, config, e);
    if (!rv) rv = write_stream(&w, read, ctx, e);
    io = (struct env_io){.op = ENV_IO_CLOSE, .file = w.file};
    (void)env->ops->io_sync(env, &io);
    buf_release(&w.out);
    buf_release(&w.piece);
    if (rv) {
        (void)env->ops->unlink_file(env, SNAP_TAKING, NULL);
        return rv;
    }
    snap_path(path, RESTORED_INDEX, RESTORED_TERM);
    io = (struct env_io){.op = ENV_IO_RENAME, .path = SNAP_TAKING, .path2 = path};
    rv = env->ops->io_sync(env, &io);
    if (rv) return err_set(e, rv, "%s: %.200s", path, io.err.text);
    return meta_write(env, config->cluster_id, config->id, &(struct meta){.term = 1, .flags = META_RESTORED}, e);
}
