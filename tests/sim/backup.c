/* One more client: it streams snapshots of some member's store, as `snapshot save` does, piece by
 * piece while writes go on, loads them into a store of its own, and compares all of that - keys, history,
 * leases with their keys, alarms, what members published - with what the log makes of it. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

struct backup {
    struct run *run;
    struct life *life; /* NULL between streams */
    struct core_request request;
    struct core_snapshot *snapshot;
    struct store_loader *loader;
    int64_t revision_before;
    uint64_t from, to; /* entries: the stream is of the state after one of these, */
    bool amid;         /* or behind some commands of one that goes on with a long command: no entry ends there */
    struct buf bytes, last; /* of this stream, as it comes; of the last whole one */
    int64_t last_revision;  /* 0 = there is none */
    bool asking;
};

static void backup_begin(void *arg);

static void later(struct backup *b)
{
    struct run *r = b->run;
    if (!r->ending) sim_at(r->sim, sim_random_range(&r->random, 100000, 4000000), backup_begin, b);
}

static void ignore(struct core_request *q)
{
    core_request_release(q);
}

/* Gives the handle back; the stream is over. */
static void backup_end(struct backup *b)
{
    struct life *l = b->life;
    b->life = NULL;
    store_loader_free(b->loader);
    b->loader = NULL;
    if (b->snapshot) {
        struct core_request q = {
            .type = CORE_SNAPSHOT_CLOSE, .snapshot = b->snapshot, .done = ignore};
        b->snapshot = NULL;
        core_submit(l->core, &q);
    }
}

static bool check_store(struct run *r, const struct backup *b, struct store *s)
{
    struct life *l = b->life;
    int64_t rev = store_revision(s);
    if (r->lying == l->id) return true;
    if (rev < b->revision_before || rev > model_revision(r->model)) {
        return verdict_fail(&r->verdict, "a backup of member %" PRIu64 " is of revision %" PRId64,
                            l->id, rev);
    }
    return clients_check_store(r, s, rev, "a backup", l->id) && (b->amid || state_backup(l, s, b->from, b->to));
}

static void backup_finish(struct backup *b)
{
    struct run *r = b->run;
    struct store *s = NULL;
    struct err e = {{0}};
    int rv = store_loader_finish(b->loader, &s, &e);
    if (rv != 0) {
        verdict_fail(&r->verdict, "a backup of member %" PRIu64 " does not load: %s: %s",
                     b->life->id, err_name(rv), e.text);
    } else {
        if (check_store(r, b, s) && r->lying != b->life->id) {
            struct buf old = b->last;
            b->last = b->bytes;
            b->bytes = old;
            b->last_revision = store_revision(s);
        }
        store_free(s);
        r->result->counts.backups++;
    }
    backup_end(b);
    later(b);
}

static void backup_step(void *arg);

static void on_piece(struct core_request *q)
{
    struct backup *b = container_of(q, struct backup, request);
    struct run *r = b->run;
    b->asking = false;
    if (!b->life || life_gone(b->life)) {
        core_request_release(q);
        return; /* backup_lost has been called, or will be */
    }
    struct err e = {{0}};
    int rv = q->code;
    if (rv == 0 && q->type == CORE_SNAPSHOT_OPEN) {
        b->snapshot = q->snapshot;
        b->to = b->life->applied;
        b->amid = b->life->applied != b->life->compared;
    }
    if (rv == 0 && q->piece) rv = store_loader_feed(b->loader, blob_slice(q->piece), &e);
    if (rv == 0 && q->piece) CHECK(buf_append_slice(&b->bytes, blob_slice(q->piece)) == 0);
    bool done = rv == 0 && q->type == CORE_SNAPSHOT_NEXT && q->done_all;
    bool refused = (rv == ERR_UNAVAILABLE || (rv == ERR_CORRUPT && r->members[b->life->id].damaged)) &&
                   q->type == CORE_SNAPSHOT_OPEN && !r->steady_us; /* it is healing */
    core_request_release(q);
    if (refused) {
        backup_end(b);
        later(b);
    } else if (rv != 0) {
        verdict_fail(&r->verdict, "a backup of member %" PRIu64 " fails: %s: %s", b->life->id,
                     err_name(rv), e.text);
    } else if (done) {
        backup_finish(b);
    } else {
        sim_at_member(r->sim, b->life->id, sim_random_range(&r->random, 0, 300000), backup_step, b);
    }
}

static void backup_step(void *arg)
{
    struct backup *b = arg;
    if (!b->life || life_gone(b->life)) return;
    memset(&b->request, 0, sizeof b->request);
    b->request.type = b->snapshot ? CORE_SNAPSHOT_NEXT : CORE_SNAPSHOT_OPEN;
    b->request.snapshot = b->snapshot;
    b->request.done = on_piece;
    b->asking = true;
    if (!b->snapshot) {
        b->revision_before = core_revision(b->life->core);
        b->from = b->life->compared;
    }
    core_submit(b->life->core, &b->request);
}

static void backup_begin(void *arg)
{
    struct backup *b = arg;
    struct run *r = b->run;
    if (b->life || r->ending) return;
    struct life *l = cluster_some(r, &r->random);
    struct store_options options = {.quota_bytes = r->o.quota_bytes};
    if (!l) {
        later(b);
        return;
    }
    b->life = l;
    buf_clear(&b->bytes);
    b->loader = store_loader_new(&options);
    CHECK(b->loader);
    sim_at_member(r->sim, l->id, 0, backup_step, b);
}

void backup_lost(struct run *r, struct life *l)
{
    struct backup *b = r->backup;
    if (!b || b->life != l) return;
    backup_end(b);
    later(b);
}

void backup_start(struct run *r)
{
    struct backup *b = r->backup = mem_must_calloc(1, sizeof *b);
    b->run = r;
    later(b);
}

void backup_restore(struct run *r)
{
    struct backup *b = r->backup;
    if (b && b->last_revision) restore_check(r, buf_slice(&b->last), b->last_revision);
}

void backup_free(struct run *r)
{
    if (r->backup) buf_release(&r->backup->bytes);
    if (r->backup) buf_release(&r->backup->last);
    mem_free(r->backup);
}

bool backup_idle(const struct run *r)
{
    return !r->backup || !r->backup->life;
}
