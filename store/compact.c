/* Compaction. Logically it is done at once: the compact revision moves and the sizes follow. In
 * memory it is done by store_work, record by record in log order, up to the target: the compact
 * revision, or less while something older is pinned.
 *
 * At a record R of the log: what is older than R is superseded and goes; R itself goes if it is a
 * tombstone below the target (one right at the target stays, so that a watch from the compact
 * revision still sees the deletion, as in etcd 3.5.16). Both steps leave all that revisions from
 * the target on show as it was. */
#include "store/store_int.h"

#include "base/check.h"

/* The sums as they were after revision `rev`. All records behind the last compact revision still
 * know the version before them, so at most one chunk of the log is looked at. */
static struct rlog_sums sums_at(const struct store *s, int64_t rev)
{
    int64_t from = s->compact_rev + 1, chunk_rev;
    uint32_t sub = 0, chunk_sub;
    struct rlog_sums sums = s->compacted, chunk_sums;
    if (rlog_checkpoint(&s->log, rev, &chunk_rev, &chunk_sub, &chunk_sums) && chunk_rev >= from) {
        from = chunk_rev;
        sub = chunk_sub;
        sums = chunk_sums;
    }
    struct rlog_iter it;
    for (struct record *r = rlog_seek(&s->log, from, sub, &it); r && r->mod_rev <= rev;
         r = rlog_next(&s->log, &it)) {
        sums.written += record_cost(r);
        sums.live += live_cost(r) - live_cost(r->older);
    }
    return sums;
}

int compact(struct store *s, int64_t rev)
{
    if (rev <= s->compact_rev) return ERR_COMPACTED;
    if (rev > s->revision) return ERR_FUTURE_REV;
    s->compacted = sums_at(s, rev);
    s->compact_rev = rev;
    return 0;
}

/* ---- freeing -------------------------------------------------------------------------------- */

static int64_t allowed_target(const struct store *s)
{
    int64_t rev = s->compact_rev;
    list_for_each(node, &s->pins)
    {
        const struct pin *p = container_of(node, struct pin, node);
        if (p->rev < rev) rev = p->rev;
    }
    return rev;
}

static void drop_record(struct store *s, struct record *r)
{
    s->held -= record_cost(r);
    rlog_remove(&s->log, r);
}

static void drop_older(struct store *s, struct record *r)
{
    struct record *older = r->older;
    r->older = NULL;
    while (older) {
        struct record *next = older->older;
        drop_record(s, older);
        older = next;
    }
}

/* Below a newer version it stays until that one drops what is older: finding the way down to it
 * could be long. */
static void drop_tombstone(struct store *s, struct record *r)
{
    struct index_path path;
    if (index_find(&s->index, record_key(r), &path) != r) return;
    index_erase(&s->index, &path);
    drop_record(s, r);
}

bool store_work(struct store *s, unsigned budget)
{
    slab_reclaim(s->slabs);
    int64_t target = allowed_target(s);
    if (target > s->work_target) {
        if (s->work_rev >= s->work_target) { /* tombstones kept at the old target may go now */
            s->work_rev = s->work_target;
            s->work_sub = 0;
        }
        s->work_target = target;
    }
    if (s->work_rev > s->work_target) return false;
    struct rlog_iter it;
    struct record *r = rlog_seek(&s->log, s->work_rev, s->work_sub, &it);
    for (; budget > 0 && r && r->mod_rev <= s->work_target; budget--) {
        int64_t rev = r->mod_rev;
        uint32_t sub = r->sub;
        drop_older(s, r);
        if (r->tombstone && rev < s->work_target) drop_tombstone(s, r);
        s->work_rev = rev;
        s->work_sub = sub + 1;
        r = rlog_seek(&s->log, rev, sub + 1, &it);
    }
    if (r && r->mod_rev <= s->work_target) return true;
    s->work_rev = s->work_target + 1;
    s->work_sub = 0;
    return allowed_target(s) > s->work_target;
}
