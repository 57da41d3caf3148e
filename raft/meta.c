/* Term and vote, and what a member knows of its own state and of the others' lives: a small file in
 * two copies, each replaced as a whole, one after the other, both durable before the call returns. A
 * member that forgets a vote can vote twice, so a copy that cannot be read is never taken for an
 * absent one while the other is there.
 *
 * Each write has a generation. Whatever moment a crash chooses, the copy of the higher generation
 * holds all that was ever answered: the second copy is begun when the first is durable, and nothing
 * is answered before the second one is. So the higher one counts when both are whole (the other was
 * about to be written, or is an old copy of itself), and one that is damaged or missing is written
 * again from the other. */
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "raft/consensus_int.h"

#define META_MAGIC 0x3241544d544e5000u     /* "\0PNTMTA2" */
#define META_MAGIC_OLD 0x3141544d544e5000u /* "\0PNTMTA1": one copy; term and vote only */
#define META_OLD_BYTES 48u
#define META_MAX_BYTES 4096u

const char *const meta_paths[META_COPIES] = {"meta", "meta2"};

static void encode(struct buf *b, uint64_t cluster_id, uint64_t member_id, const struct meta *m)
{
    struct slice why = slice_str(m->why);
    (void)buf_append_u64(b, META_MAGIC);
    (void)buf_append_u64(b, cluster_id);
    (void)buf_append_u64(b, member_id);
    (void)buf_append_u64(b, m->generation);
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
    (void)buf_append_u32(b, (uint32_t)why.len);
    (void)buf_append_slice(b, why);
    if (!b->failed) (void)buf_append_u32(b, crc32c(0, b->data, b->len));
}

static int write_copy(struct env *env, int copy, struct slice bytes, struct err *e)
{
    return env->ops->write_file(env, meta_paths[copy], bytes, e);
}

int meta_write(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *m,
               struct err *e)
{
    struct buf b;
    buf_init(&b, META_MAX_BYTES);
    m->generation++;
    encode(&b, cluster_id, member_id, m);
    int rv = b.failed ? err_set(e, b.failed, "meta: %s", err_text(b.failed)) : 0;
    for (int i = 0; i < META_COPIES && !rv; i++) rv = write_copy(env, i, buf_slice(&b), e);
    buf_release(&b);
    return rv;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static int corrupt(struct err *e, int copy, size_t offset, const char *why)
{
    return err_set(e, ERR_CORRUPT, "%s: offset %zu: %s", meta_paths[copy], offset, why);
}

static void decode(struct reader *r, uint64_t magic, struct meta *m)
{
    if (magic == META_MAGIC) m->generation = reader_u64(r);
    m->term = reader_u64(r);
    m->voted_for = reader_u64(r);
    if (magic == META_MAGIC_OLD) return;
    m->boots = reader_u64(r);
    m->flags = reader_u32(r);
    m->n_seen = reader_u32(r);
    for (uint32_t i = 0; i < m->n_seen && i < LIMIT_MEMBERS; i++) {
        m->seen[i].id = reader_u64(r);
        m->seen[i].boots = reader_u64(r);
        m->seen[i].life = reader_u64(r);
    }
    struct slice why = reader_bytes(r, reader_u32(r));
    if (r->failed || why.len >= sizeof m->why) r->failed = true;
    else if (why.len) memcpy(m->why, why.data, why.len);
}

static int parse(struct slice file, int copy, uint64_t cluster_id, uint64_t member_id,
                 struct meta *ret, struct err *e)
{
    struct reader r = reader_make(file);
    uint64_t magic = reader_u64(&r), cluster = reader_u64(&r), member = reader_u64(&r);
    struct meta m = {0};
    bool old = magic == META_MAGIC_OLD;
    if (r.failed) return corrupt(e, copy, file.len, "cut short");
    if (!old && magic != META_MAGIC) return corrupt(e, copy, 0, "not a file of term and vote");
    decode(&r, magic, &m);
    size_t at = file.len - reader_left(&r);
    uint32_t crc = reader_u32(&r);
    if (r.failed || m.n_seen > LIMIT_MEMBERS) return corrupt(e, copy, file.len, "cut short");
    if (crc != crc32c(0, file.data, at) || (old && reader_u32(&r) != 0) || reader_left(&r))
        return corrupt(e, copy, at, "checksum does not match");
    if (cluster != cluster_id || member != member_id) {
        return err_set(e, ERR_CLUSTER_MISMATCH,
                       "%s: belongs to member %" PRIx64 " of cluster %" PRIx64 ", not to %" PRIx64
                       " of %" PRIx64,
                       meta_paths[copy], member, cluster, member_id, cluster_id);
    }
    *ret = m;
    return 0;
}

struct copy {
    int status; /* 0, ERR_NOT_FOUND, ERR_CORRUPT */
    bool old;   /* of the format with one copy */
    struct meta m;
    struct buf bytes;
    struct err e;
};

static int read_copy(struct env *env, int i, uint64_t cluster_id, uint64_t member_id,
                     struct copy *c)
{
    buf_init(&c->bytes, META_MAX_BYTES);
    c->status = env->ops->read_file(env, meta_paths[i], META_MAX_BYTES, &c->bytes, &c->e);
    if (c->status == ERR_LIMIT) c->status = corrupt(&c->e, i, META_MAX_BYTES, "too long");
    if (c->status) return c->status;
    struct slice file = buf_slice(&c->bytes);
    c->status = parse(file, i, cluster_id, member_id, &c->m, &c->e);
    c->old = !c->status && file.len == META_OLD_BYTES && c->m.generation == 0;
    return c->status;
}

/* The copy that counts, or negative: there is none. */
static int choose(const struct copy c[META_COPIES])
{
    int best = -1;
    for (int i = 0; i < META_COPIES; i++)
        if (!c[i].status && (best < 0 || c[i].m.generation > c[best].m.generation)) best = i;
    return best;
}

static int heal(struct env *env, const struct copy c[META_COPIES], int best, struct err *e)
{
    int rv = 0;
    for (int i = 0; i < META_COPIES && !rv; i++) {
        struct slice want = buf_slice(&c[best].bytes), have = buf_slice(&c[i].bytes);
        if (i == best || (!c[i].status && slice_eq(want, have))) continue;
        bool expected = c[best].old || (!c[i].status && c[i].m.generation + 1 == c[best].m.generation) ||
                        (c[i].status == ERR_NOT_FOUND && c[best].m.generation == 1);
        if (!expected)
            log_warn("raft: %s, written again from %s",
                     c[i].status ? c[i].e.text : "a copy of term and vote is an old one", meta_paths[best]);
        rv = write_copy(env, i, want, e);
    }
    return rv;
}

int meta_read(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *ret,
              struct err *e)
{
    struct copy c[META_COPIES] = {0};
    int rv = 0;
    for (int i = 0; i < META_COPIES && !rv; i++) {
        rv = read_copy(env, i, cluster_id, member_id, &c[i]);
        if (rv == ERR_CORRUPT || rv == ERR_NOT_FOUND) rv = 0;
        else if (rv && e) *e = c[i].e;
    }
    int best = rv ? -1 : choose(c);
    if (best >= 0) {
        rv = heal(env, c, best, e);
        if (!rv) *ret = c[best].m;
    } else if (!rv) {
        int bad = c[0].status == ERR_CORRUPT ? 0 : 1;
        rv = c[bad].status;
        if (c[1 - bad].status == ERR_CORRUPT)
            (void)err_set(e, rv, "%.110s; and %.110s", c[bad].e.text, c[1 - bad].e.text);
        else if (e) *e = c[bad].e;
    }
    for (int i = 0; i < META_COPIES; i++) buf_release(&c[i].bytes);
    return rv;
}

int meta_check(struct env *env, uint64_t cluster_id, uint64_t member_id, struct meta *m, unsigned *ret_bad,
               struct err *e)
{
    struct copy c[META_COPIES] = {0};
    int rv = 0;
    *ret_bad = 0;
    for (int i = 0; i < META_COPIES && !rv; i++) {
        rv = read_copy(env, i, cluster_id, member_id, &c[i]);
        buf_release(&c[i].bytes);
        bool wrong = rv == ERR_CORRUPT || rv == ERR_NOT_FOUND || rv == ERR_CLUSTER_MISMATCH ||
                     (!rv && c[i].m.generation != m->generation);
        if (!wrong) continue;
        rv = 0;
        ++*ret_bad;
        log_error("raft: scrub: %s, written again member=%" PRIx64,
                  c[i].e.text[0] ? c[i].e.text : "a copy of term and vote is an old one", member_id);
    }
    if (rv && e) *e = c[c[0].status ? 0 : 1].e;
    return rv || !*ret_bad ? rv : meta_write(env, cluster_id, member_id, m, e);
}

bool meta_owner(struct slice file, uint64_t *ret_cluster_id, uint64_t *ret_member_id)
{
    struct reader r = reader_make(file);
    uint64_t magic = reader_u64(&r);
    *ret_cluster_id = reader_u64(&r);
    *ret_member_id = reader_u64(&r);
    return !r.failed && (magic == META_MAGIC || magic == META_MAGIC_OLD) && *ret_member_id != 0;
}
