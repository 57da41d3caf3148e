/* GET of one object: linearizable, or from this member's own state when resourceVersion allows it. */
#include "api/kube/kube_int.h"

struct get {
    struct slice key;
    int64_t not_older; /* 0 = no demand */
};

static void read_key(struct kube_request *q, bool serializable);

static void get_done(struct kube_request *q)
{
    struct get *g = q->extra;
    struct core_request *c = &q->core;
    const struct range_result *r = &c->result.op.range;
    if (c->code) {
        status_core(&q->status, c->code, false);
        respond_status(q);
        return;
    }
    if (g->not_older > c->ret_revision) {
        if (c->serializable) {
            request_core_reset(q);
            read_key(q, false);
            return;
        }
        status_too_large_rv(&q->status, g->not_older, c->ret_revision);
        respond_status(q);
        return;
    }
    if (!r->n) {
        status_not_found(&q->status, q->route.kind, q->route.name);
        respond_status(q);
        return;
    }
    if (q->st && !http_writable(q->st)) { /* the client asks faster than it reads */
        status_core(&q->status, ERR_TOO_MANY_REQUESTS, false);
        respond_status(q);
        return;
    }
    respond_stored(q, 200, record_value(r->records[0]), r->records[0]->mod_rev);
}

static void read_key(struct kube_request *q, bool serializable)
{
    struct get *g = q->extra;
    q->core.range = (struct range_op){.key = g->key, .serializable = serializable};
    q->core.serializable = serializable;
    request_core(q, CORE_RANGE, get_done);
}

void get_handle(struct kube_request *q)
{
    struct get *g = arena_calloc(&q->arena, 1, sizeof(*g));
    int code = 0;
    bool has_rv = query_get(&q->query, "resourceVersion").len != 0;
    if (!g) {
        code = status_nomem(&q->status);
    } else if (query_int(&q->query, "resourceVersion", &g->not_older) || g->not_older < 0) {
        struct slice v = query_get(&q->query, "resourceVersion");
        code = status_bad_request(&q->status, "resourceVersion: Invalid value: \"%.*s\": strconv.ParseUint: parsing "
                                  "\"%.*s\": invalid syntax", (int)v.len, (const char *)v.data, (int)v.len, (const char *)v.data);
    } else {
        g->key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name);
        if (!g->key.data) code = status_nomem(&q->status);
    }
    if (code) {
        respond_status(q);
        return;
    }
    q->extra = g;
    read_key(q, has_rv);
}
