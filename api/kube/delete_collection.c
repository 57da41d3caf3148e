/* DELETE of a collection: a cursor over it, and one delete for each object that the selectors let through, a bounded number of them at
 * the same time. The answer is a Status: unlike kube-apiserver's list of what was deleted it needs no memory. */
#include "api/kube/kube_int.h"
#include "base/mem.h"

#define AT_ONCE 64

struct kube_collection {
    struct slice *keys; /* of this slice, relative to the prefix of the kind */
    size_t n, next, running;
    bool more, failed, advancing;
    struct slice prefix;
    struct arena names; /* of this slice */
    struct delete_options *options;
};

static void advance(struct kube_request *q);

static void finish(struct kube_request *q)
{
    struct kube_collection *c = q->extra;
    struct status s;
    struct buf b;
    request_close_cursor(q);
    arena_release(&c->names);
    if (c->failed) {
        respond_status(q);
        return;
    }
    status_init(&s, &q->arena);
    s.success = true;
    status_details(&s, q->route.kind, (struct slice){0});
    buf_init(&b, 4 * LIMIT_KiB);
    status_write(&b, &s);
    respond_bytes(q, 200, "application/json", buf_slice(&b));
    buf_release(&b);
}

/* A delete has been answered: an object that is gone already is as good as deleted. */
static void one_done(struct kube_request *inner)
{
    struct kube_request *q = inner->parent;
    struct kube_collection *c = q->extra;
    c->running--;
    if (inner->response_code >= 300 && inner->response_code != 404 && !c->failed) {
        c->failed = true;
        q->status = inner->status;
        q->status.arena = &q->arena;
        status_set(&q->status, inner->status.code, inner->status.reason, "%s",
                   inner->status.message ? inner->status.message : "");
        status_details(&q->status, q->route.kind, (struct slice){0});
    }
    advance(q);
}

static int start_one(struct kube_request *q, struct slice rest)
{
    struct kube_collection *c = q->extra;
    ptrdiff_t at = q->route.kind->namespaced ? slice_index(rest, '/') : -1;
    struct slice ns = at < 0 ? (struct slice){0} : slice_sub(rest, 0, (size_t)at);
    struct slice name = slice_sub(rest, (size_t)(at + 1), rest.len);
    struct kube_request *inner = request_inner(q, q->route.kind, VERB_DELETE, ns, name, one_done);
    if (!inner) return ERR_NOMEM;
    inner->dry_run = q->dry_run;
    c->running++;
    inner->body_type = BODY_JSON;
    if (buf_append_slice(&inner->body, buf_slice(&q->body)) == 0) {
        inner->query = q->query;
        request_run(inner, delete_handle);
    } else {
        status_nomem(&inner->status);
        request_run(inner, respond_status);
    }
    return 0;
}

static void slice_done(struct kube_request *q);

static void advance(struct kube_request *q)
{
    struct kube_collection *c = q->extra;
    if (c->advancing) return; /* a delete that was answered at once */
    c->advancing = true;
    while (!c->failed && c->next < c->n && c->running < AT_ONCE) {
        if (start_one(q, c->keys[c->next++]) && !c->failed) {
            c->failed = true;
            status_nomem(&q->status);
        }
    }
    c->advancing = false;
    if (c->running) return;
    if (c->failed || !c->more) {
        finish(q);
        return;
    }
    request_core_reset(q);
    request_core(q, CORE_CURSOR_NEXT, slice_done);
}

static int collect(struct kube_request *q, const struct range_result *r)
{
    struct kube_collection *c = q->extra;
    struct arena scratch;
    int code = 0;
    arena_release(&c->names);
    c->n = c->next = 0;
    c->keys = arena_calloc(&c->names, r->n ? r->n : 1, sizeof(*c->keys));
    if (!c->keys) return ERR_NOMEM;
    arena_init(&scratch, 64 * LIMIT_MiB);
    for (size_t i = 0; i < r->n && !code; i++) {
        struct json *object;
        struct slice key = record_key(r->records[i]);
        arena_reset(&scratch);
        if (!selector_empty(&q->selector)) {
            code = object_parse(&scratch, record_value(r->records[i]), 0, &object);
            if (code || !selector_matches(&q->selector, object)) continue;
        }
        c->keys[c->n] = arena_dup(&c->names, slice_sub(key, c->prefix.len, key.len));
        if (!c->keys[c->n++].data) code = ERR_NOMEM;
    }
    arena_release(&scratch);
    return code;
}

static void slice_done(struct kube_request *q)
{
    struct kube_collection *c = q->extra;
    int code = q->core.code ? q->core.code : collect(q, &q->core.result.op.range);
    if (code) {
        c->failed = true;
        c->n = c->next = 0;
        status_core(&q->status, code, false);
    }
    c->more = !code && q->core.result.op.range.more;
    request_ref(q); /* `advance` may answer the last delete, and with it this request */
    advance(q);
    request_unref(q);
}

void delete_collection_handle(struct kube_request *q)
{
    struct kube_collection *c = arena_calloc(&q->arena, 1, sizeof(*c));
    struct json *body = NULL;
    int code = c ? request_selectors(q) : status_nomem(&q->status);
    if (!code && q->body.len) code = request_body(q, &body);
    if (!code) code = delete_options_parse(q, body);
    if (code) {
        respond_status(q);
        return;
    }
    q->extra = c;
    c->prefix = key_prefix(&q->arena, q->route.kind, (struct slice){0});
    struct slice key = key_prefix(&q->arena, q->route.kind, q->route.ns);
    q->core.range = (struct range_op){.key = key, .range_end = key_prefix_end(&q->arena, key)};
    if (!key.data || !c->prefix.data || !q->core.range.range_end.data) {
        status_nomem(&q->status);
        respond_status(q);
        return;
    }
    request_core(q, CORE_CURSOR_OPEN, slice_done);
}
