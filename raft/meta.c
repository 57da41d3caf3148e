/* Term and vote: one small file, replaced as a whole, durable before the call returns. A member
 * that forgets a vote can vote twice, so a file that cannot be read is never taken for an absent
 * one. */
#include <inttypes.h>

#include "base/crc32c.h"
#include "raft/consensus_int.h"

#define META_PATH "meta"
#define META_MAGIC 0x3241544d544e5000u /* "\0PNTMTA2" */
#define META_BYTES_MAX (64u + 24u * LIMIT_MEMBERS)

static void encode(struct buf *b, uint64_t cluster_id, uint64_t member_id, const struct meta *m)
{
    (void)buf_append_u64(b, META_MAGIC);
    (void)buf_append_u64(b, cluster_id);
    (void)buf_append_u64(b, member_id);
    (void)buf_append_u64(b, m->term);
    (void)buf_append_u64(b, m->voted_for);
    (void)buf_append_u64(b, m->boots);
    (void)buf_append_u32(b, m->flags);
    (void)buf_append_u32(b, m->n_seen);
    for (uint32_t i = 0; i < m->n_seen; i++) {
        (void)buf_append_u64(b, m->seen[i].id);
        (void)buf_append_u64(b, m->seen[i].boots);
        (void)buf_append_u64(b, m->seen[i].life);
    }
    if (!b->failed) (void)buf_append_u32(b, crc32c(0, b->data, b->len));
}

int meta_write(struct env *env, uint64_t cluster_id, uint64_t member_id, const struct meta *m,
               struct err *e)
{
    struct buf b;
    buf_init(&b, META_BYTES_MAX);
    encode(&b, cluster_id, member_id, m);
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
    m.boots = reader_u64(&r);
    m.flags = reader_u32(&r);
    m.n_seen = reader_u32(&r);
    if (!r.failed && magic != META_MAGIC)
        return err_set(e, ERR_CORRUPT, META_PATH ": offset 0: not a file of term and vote");
    for (uint32_t i = 0; i < m.n_seen && i < LIMIT_MEMBERS; i++) {
        m.seen[i].id = reader_u64(&r);
        m.seen[i].boots = reader_u64(&r);
        m.seen[i].life = reader_u64(&r);
    }
    uint32_t crc = reader_u32(&r);
    if (r.failed || reader_left(&r))
        return err_set(e, ERR_CORRUPT, META_PATH ": offset %zu: the file ends too early or too late",
                       file.len);
    if (crc != crc32c(0, file.data, file.len - 4))
        return err_set(e, ERR_CORRUPT, META_PATH ": offset %zu: checksum does not match",
                       file.len - 4);
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
