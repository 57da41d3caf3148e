/* A client of long answers: it reads all keys through a cursor, slice by slice with pauses, while writes, compactions and
 * snapshots go on, and compares each slice with the model at the revision that the cursor was opened at. */
#include <inttypes.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

enum { SLICE_PAUSE_US = 300000, READER_TIMEOUT_MS = 2000 };

struct reader_client {
    struct run *run;
    struct life *life; /* NULL between reads */
    struct core_request request;
    struct core_cursor *cursor;
    int64_t revision, floor; /* what it reads; what it must not be older than */
    size_t n;                /* keys so far */
    struct buf last;         /* the last of them */
};

static const struct slice all = {(const uint8_t *)"\0", 1};

static void read_begin(void *arg);

static void ignore(struct core_request *q)
{
    core_request_release(q);
    mem_free(q);
}

/* Gives the cursor back, also of a life that has ended: a handle may outlive its core. */
static void read_end(struct reader_client *c)
{
    struct run *r = c->run;
    struct life *l = c->life;
    c->life = NULL;
    if (c->cursor) {
        struct core_request *q = mem_must_calloc(1, sizeof *q);
        *q = (struct core_request){.type = CORE_CURSOR_CLOSE, .cursor = c->cursor, .done = ignore};
        c->cursor = NULL;
        core_submit(l->core, q);
    }
    if (!r->ending) sim_at(r->sim, sim_random_range(&r->random, 10000, 2000000), read_begin, c);
}

static bool bad(struct reader_client *c, const char *what)
{
    return verdict_fail(&c->run->verdict, "a long read on member %" PRIu64 " at revision %" PRId64 ", after %zu keys: %s",
                        c->life->id, c->revision, c->n, what);
}

static bool check_slice(struct reader_client *c, const struct range_result *got)
{
    struct model *m = c->run->model;
    size_t count = model_count(m, all, all, c->revision);
    if (c->n == 0 && got->count != (int64_t)count) return bad(c, "wrong count");
    for (size_t i = 0; i < got->n; i++) {
        const struct record *rec = got->records[i];
        const struct model_event *ev = model_get(m, record_key(rec), c->revision);
        if (c->n && slice_cmp(buf_slice(&c->last), record_key(rec)) >= 0) return bad(c, "keys out of order");
        if (!ev || ev->rev != rec->mod_rev || ev->version != rec->version || ev->create_rev != rec->create_rev)
            return bad(c, "not what a key held at that revision");
        if (c->run->lying != c->life->id && !slice_eq(record_value(rec), buf_slice(&ev->value))) return bad(c, "another value");
        c->n++;
        buf_clear(&c->last);
        CHECK(buf_append_slice(&c->last, record_key(rec)) == 0);
    }
    if (got->more ? c->n >= count : c->n != count) return bad(c, got->more ? "more is to come than there is" : "not all of it");
    return true;
}

static void on_slice(struct core_request *q);

static void read_next(void *arg)
{
    struct reader_client *c = arg;
    if (!c->life || life_gone(c->life)) return;
    memset(&c->request, 0, sizeof c->request);
    c->request.type = c->cursor ? CORE_CURSOR_NEXT : CORE_CURSOR_OPEN;
    c->request.cursor = c->cursor;
    c->request.range = (struct range_op){.key = all, .range_end = all};
    c->request.timeout_ms = READER_TIMEOUT_MS;
    c->request.done = on_slice;
    core_submit(c->life->core, &c->request);
}

/* Until it is opened it waits for others; and a member that heals serves nothing at all. */
static bool may_fail(const struct reader_client *c, int code)
{
    bool waits = code == ERR_TIMEOUT || code == ERR_LEADER_CHANGED || code == ERR_NO_LEADER;
    if (code == ERR_UNAVAILABLE || code == ERR_CORRUPT) return c->life->refusing || c->run->members[c->life->id].damaged;
    return waits && !c->cursor && !c->run->steady_us;
}

static void on_slice(struct core_request *q)
{
    struct reader_client *c = container_of(q, struct reader_client, request);
    struct run *r = c->run;
    const struct range_result *got = &q->result.op.range;
    if (!c->life || life_gone(c->life)) {
        if (c->life) c->cursor = q->cursor;
        core_request_release(q);
        return; /* reader_lost has been called, or will be */
    }
    bool opened = q->type == CORE_CURSOR_OPEN && q->code == 0, more = false;
    if (q->code && !may_fail(c, q->code)) bad(c, err_name(q->code));
    if (opened) {
        c->cursor = q->cursor;
        c->revision = q->result.revision;
        c->n = 0;
    }
    if (q->code == 0) {
        if (opened && (c->revision < c->floor || c->revision > model_revision(r->model))) bad(c, "a wrong revision");
        r->result->counts.slices++;
        more = check_slice(c, got) && got->more;
    }
    core_request_release(q);
    if (more) sim_at_member(r->sim, c->life->id, sim_random_range(&r->random, 0, SLICE_PAUSE_US), read_next, c);
    else read_end(c);
}

static void read_begin(void *arg)
{
    struct reader_client *c = arg;
    struct run *r = c->run;
    if (c->life || r->ending) return;
    c->life = cluster_some(r, &r->random);
    c->floor = r->floor;
    if (c->life) sim_at_member(r->sim, c->life->id, 0, read_next, c);
    else read_end(c);
}

void reader_lost(struct run *r, struct life *l)
{
    if (r->reader && r->reader->life == l) read_end(r->reader);
}

void reader_start(struct run *r)
{
    struct reader_client *c = r->reader = mem_must_calloc(1, sizeof *c);
    c->run = r;
    read_end(c);
}

void reader_free(struct run *r)
{
    if (r->reader) buf_release(&r->reader->last);
    mem_free(r->reader);
}

bool reader_idle(const struct run *r)
{
    return !r->reader || !r->reader->life;
}
