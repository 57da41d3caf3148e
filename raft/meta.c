/* Term and vote: one small file, replaced as a whole, durable before the call returns. A member
 * that forgets a vote can vote twice, so a file that cannot be read is never taken for an absent
 * one. */
#include <inttypes.h>

#include "base/crc32c.h"
#include "raft/consensus_int.h"

#define META_PATH "meta"
#define META_MAGIC 0x3141544d544e5000u /* "\0PNTMTA1" */
#define META_BYTES 48u

int meta_write(struct env *env, uint64_t cluster_id, uint64_t member_id, const struct meta *m,
               struct err *e)
{
    struct buf b;
    buf_init(&b, META_BYTES);
    (void)buf_append_u64(&b, META_MAGIC);
    (void)buf_append_u64(&b, cluster_id);
    (void)buf_append_u64(&b, member_id);
    (void)buf_append_u64(&b, m->term);
    (void)buf_append_u64(&b, m->voted_for);
    if (!b.failed) (void)buf_append_u32(&b, crc32c(0, b.data, b.len));
    (void)buf_append_u32(&b, 0);
    int rv = b.failed ? err_set(e, b.failed, META_PATH ": %s", err_text(b.failed))
                      : env->ops->write_file(env, META_PATH, buf_slice(&b), e);
    buf_release(&b);
    return rv;
}

static int parse(struct slice file, uint64_t cluster_id, uint64_t member_id, struct meta *ret,
                 struct err *e)
{
    struct reader r = reader_make(file);
    uint64_t magic = reader_u64(&r), cluster = reader_u64(&r), member = reader_u64(&r);
    struct meta m = {.term = reader_u64(&r)};
    m.voted_for = reader_u64(&r);
    uint32_t crc = reader_u32(&r), zero = reader_u32(&r);
    if (r.failed || reader_left(&r)) {
        return err_set(e, ERR_CORRUPT, META_PATH ": offset %zu: %u bytes expected", file.len,
                       META_BYTES);
    }
    if (magic != META_MAGIC)
        return err_set(e, ERR_CORRUPT, META_PATH ": offset 0: not a file of term and vote");
    if (crc != crc32c(0, file.data, 40) || zero) {
        return err_set(e, ERR_CORRUPT, META_PATH ": offset 40: checksum does not match");
    }
    if (cluster != cluster_id || member != member_id) {
        return err_set(e, ERR_CLUSTER_MISMATCH,
                       META_PATH ": belongs to member %" PRIx64 " of cluster %" PRIx64
                                 ", not to %" PRIx64 " of %" PRIx64,
                       member, cluster, member_id, cluster_id);
    }
    *ret = m;
    return 0;
}

int meta_read(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *ret,
              struct err *e)
{
    struct buf b;
    buf_init(&b, 4096);
    int rv = env->ops->read_file(env, META_PATH, 4096, &b, e);
    if (!rv) rv = parse(buf_slice(&b), cluster_id, member_id, ret, e);
    buf_release(&b);
    return rv;
}
