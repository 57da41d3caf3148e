/* LIST: a cursor at one revision, read in slices and written as the client takes it, so that a list of a million objects costs
 * the memory of one slice.
 *
 *   open (local or linearizable) -> slice -> write -> [client took it] -> next slice -> ... -> end
 *
 * The order of members in the answer follows what is known: a whole list starts with its metadata, a page ends with it, because
 * whether there is more, and where, is known only then. Once the head is out an error can only break the exchange off; a half list
 * is never ended as if it were whole. */
#include "api/kube/kube_int.h"
#include "base/clock.h"
#include "base/mem.h"

#define PIECE_BYTES (16 * LIMIT_MiB)

struct kube_list {
    struct slice prefix; /* of the collection: continue tokens are relative to it */
    struct slice key, end;
    int64_t limit;       /* 0 = none */
    int64_t revision;    /* 0 = the newest */
    int64_t not_older;
    int64_t shown;       /* the list's resourceVersion */
    int64_t in_range, returned;
    bool page, continued, full, done, head_sent, reading, linearizable;
    struct buf last_key; /* of the last object looked at */
    struct arena scratch;
};

/* A piece of output on its way. */
struct piece {
    struct buf buf;
};

static void piece_free(void *owner)
{
    struct piece *p = owner;
    buf_release(&p->buf);
    mem_free(p);
}

static void open_cursor(struct kube_request *q);

void list_release(struct kube_request *q)
{
    struct kube_list *l = q->list;
    if (l->reading) return; /* when it comes back */
    request_close_cursor(q);
    buf_release(&l->last_key);
    arena_release(&l->scratch);
    q->list = NULL;
}

static void fail(struct kube_request *q)
{
    if (!q->list->head_sent) {
        respond_status(q);
    } else if (q->st) {
        http_reset(q->st, 2 /* INTERNAL_ERROR */);
    }
    list_release(q);
}

/* ---- writing ---------------------------------------------------------------------------------- */

static void write_metadata(struct buf *out, const struct kube_list *l, const char *token, int64_t remaining)
{
    buf_printf(out, "\"metadata\":{\"resourceVersion\":\"%lld\"", (long long)l->shown);
    if (token) buf_printf(out, ",\"continue\":\"%s\"", token);
    if (remaining > 0) buf_printf(out, ",\"remainingItemCount\":%lld", (long long)remaining);
    buf_append_byte(out, '}');
}

static int write_columns(struct kube_request *q, struct buf *out)
{
    struct json *columns;
    int code = kind_table_columns(&q->arena, q->route.kind, &columns);
    if (code) return code;
    buf_append_str(out, "\"columnDefinitions\":");
    json_write(out, columns);
    buf_append_byte(out, ',');
    return 0;
}

static int write_prologue(struct kube_request *q, struct buf *out)
{
    struct kube_list *l = q->list;
    const struct kind *k = q->route.kind;
    bool table = q->format.media == MEDIA_TABLE;
    if (table) {
        buf_printf(out, "{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/%s\",", q->format.version);
    } else if (q->format.media == MEDIA_PARTIAL) {
        buf_printf(out, "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/%s\",", q->format.version);
    } else {
        buf_printf(out, "{\"kind\":\"%s\",\"apiVersion\":\"%s\",", k->list_kind, k->api_version);
    }
    if (!l->page) {
        write_metadata(out, l, NULL, 0);
        buf_append_byte(out, ',');
    }
    if (table) {
        int code = write_columns(q, out);
        if (code) return code;
    }
    buf_append_str(out, table ? "\"rows\":[" : "\"items\":[");
    return 0;
}

static int write_epilogue(struct kube_request *q, struct buf *out)
{
    struct kube_list *l = q->list;
    const char *token = NULL;
    int64_t remaining = 0;
    buf_append_byte(out, ']');
    if (l->page) {
        if (l->full) {
            struct slice rest = slice_sub(buf_slice(&l->last_key), l->prefix.len, l->last_key.len);
            int code = continue_encode(&q->arena, l->shown, rest, &token);
            if (code) return code;
            if (selector_empty(&q->selector)) remaining = l->in_range - l->returned;
        }
        buf_append_byte(out, ',');
        write_metadata(out, l, token, remaining);
    }
    buf_append_str(out, "}\n");
    return out->failed;
}

/* One object in the list's format; *ret_written tells whether the selectors let it through. */
static int write_object(struct kube_request *q, const struct record *r, struct buf *out, bool *ret_written)
{
    struct kube_list *l = q->list;
    const struct kind *k = q->route.kind;
    struct json *object = NULL, *shown;
    bool plain = q->format.media == MEDIA_JSON;
    int code = 0;
    *ret_written = false;
    if (!plain || !selector_empty(&q->selector)) {
        code = object_parse(&l->scratch, record_value(r), r->mod_rev, &object);
        if (code || !selector_matches(&q->selector, object)) return code;
    }
    *ret_written = true;
    if (l->returned) buf_append_byte(out, ',');
    if (plain) return object_serve(out, k, record_value(r), r->mod_rev, ENCODE_ITEM);
    if (q->format.media == MEDIA_TABLE) {
        code = table_row(&l->scratch, k, &q->format, object, clock_wall_ms() / 1000, &shown);
    } else {
        shown = object_partial(&l->scratch, object, q->format.version);
        if (!shown) code = ERR_NOMEM;
    }
    if (!code) json_write(out, shown);
    return code ? code : out->failed;
}

/* The records of one slice; stops at the page's limit. */
static int write_records(struct kube_request *q, const struct range_result *r, struct buf *out)
{
    struct kube_list *l = q->list;
    for (size_t i = 0; i < r->n; i++) {
        const struct record *record = r->records[i];
        bool written;
        arena_reset(&l->scratch);
        int code = write_object(q, record, out, &written);
        if (code) return code;
        l->returned += written;
        if (l->limit && l->returned == l->limit) {
            bool counted = selector_empty(&q->selector);
            l->full = counted ? l->in_range > l->returned : i + 1 < r->n || r->more;
            l->done = true;
            buf_clear(&l->last_key);
            buf_append_slice(&l->last_key, record_key(record));
            buf_append_byte(&l->last_key, 0); /* the next page starts behind it */
            return l->last_key.failed;
        }
    }
    if (!r->more) l->done = true;
    return 0;
}

static int write_slice(struct kube_request *q, struct buf *out)
{
    struct kube_list *l = q->list;
    const struct range_result *r = &q->core.result.op.range;
    int code = 0;
    if (!l->head_sent) {
        l->in_range = r->count;
        l->shown = l->continued && l->revision ? l->revision : q->core.result.revision;
        code = write_prologue(q, out);
    }
    if (!code) code = write_records(q, r, out);
    if (!code && l->done) code = write_epilogue(q, out);
    return code ? code : out->failed;
}

static void send_piece(struct kube_request *q, struct piece *p)
{
    struct kube_list *l = q->list;
    if (!l->head_sent) {
        respond_head(q, 200, format_content_type(&q->format));
        http_set_write_timeout(q->st, LIMIT_HTTP_STREAM_STALL_MS);
        l->head_sent = true;
    }
    http_write_ref(q->st, buf_slice(&p->buf), piece_free, p);
    if (l->done) {
        request_close_cursor(q);
        http_end(q->st);
    }
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void slice_done(struct kube_request *q);

static void next_slice(struct kube_request *q)
{
    request_core_reset(q);
    q->list->reading = true;
    request_core(q, CORE_CURSOR_NEXT, slice_done);
}

static void expired(struct kube_request *q)
{
    struct kube_list *l = q->list;
    const char *token = NULL;
    if (!l->continued) {
        status_expired(&q->status, "The resourceVersion for the provided list is too old.");
        return;
    }
    struct slice rest = slice_sub(l->key, l->prefix.len, l->key.len);
    if (continue_encode(&q->arena, -1, rest, &token)) token = NULL;
    status_expired(&q->status,
                   "The provided continue parameter is too old to display a consistent list result. You can start a new "
                   "list without the continue parameter, or use the continue token in this response to retrieve the "
                   "remainder of the results. Continuing with the provided token results in an inconsistent list - "
                   "objects that were created, modified, or deleted between the time the first chunk was returned and "
                   "now may show up in the list.");
    q->status.list_continue = token;
}

/* What the core refused. true: it is being asked again. */
static bool refused(struct kube_request *q)
{
    struct kube_list *l = q->list;
    struct core_request *c = &q->core;
    if (c->code == ERR_COMPACTED) {
        expired(q);
    } else if (c->code == ERR_FUTURE_REV) {
        if (!l->linearizable) {
            l->linearizable = true;
            open_cursor(q);
            return true;
        }
        status_too_large_rv(&q->status, l->revision, c->ret_revision);
    } else {
        status_core(&q->status, c->code, false);
    }
    return false;
}

/* The answer is older than the client asked for. true: being asked again. */
static bool too_old(struct kube_request *q)
{
    struct kube_list *l = q->list;
    if (!l->linearizable) {
        l->linearizable = true;
        request_close_cursor(q);
        open_cursor(q);
        return true;
    }
    status_too_large_rv(&q->status, l->not_older, q->core.result.revision);
    return false;
}

static void slice_done(struct kube_request *q)
{
    struct kube_list *l = q->list;
    l->reading = false;
    if (!q->st) {
        list_release(q);
        return;
    }
    if (q->core.code) {
        if (!refused(q)) fail(q);
        return;
    }
    if (!l->head_sent && l->not_older > q->core.result.revision) {
        if (!too_old(q)) fail(q);
        return;
    }
    struct piece *p = mem_calloc(1, sizeof(*p));
    int code = p ? 0 : ERR_NOMEM;
    if (p) {
        buf_init(&p->buf, PIECE_BYTES);
        code = write_slice(q, &p->buf);
    }
    if (code) {
        if (p) piece_free(p);
        status_internal(&q->status, "%s", code == ERR_CORRUPT ? "a stored object cannot be decoded" : err_text(code));
        fail(q);
        return;
    }
    send_piece(q, p);
    if (!l->done && http_writable(q->st)) next_slice(q);
}

void list_writable(struct kube_request *q)
{
    struct kube_list *l = q->list;
    if (l->head_sent && !l->done && !l->reading) next_slice(q);
}

static void open_cursor(struct kube_request *q)
{
    struct kube_list *l = q->list;
    request_core_reset(q);
    q->core.serializable = !l->linearizable;
    q->core.range = (struct range_op){
        .key = l->key, .range_end = l->end, .revision = l->revision, .serializable = !l->linearizable};
    if (selector_empty(&q->selector)) q->core.range.limit = l->limit;
    l->reading = true;
    request_core(q, CORE_CURSOR_OPEN, slice_done);
}

/* ---- what is asked for ------------------------------------------------------------------------ */

static int check_match(struct kube_request *q, struct slice match, bool has_rv, bool is_zero)
{
    struct status *s = &q->status;
    if (!match.len) return 0;
    if (!has_rv) {
        return status_invalid_options(s, "meta.k8s.io", "ListOptions", "FieldValueForbidden", "resourceVersionMatch",
                                      "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if (query_get(&q->query, "continue").len) {
        return status_invalid_options(s, "meta.k8s.io", "ListOptions", "FieldValueForbidden", "resourceVersionMatch",
                                      "Forbidden: resourceVersionMatch is forbidden when continue is provided");
    }
    if (!slice_eq_str(match, "Exact") && !slice_eq_str(match, "NotOlderThan")) {
        return status_invalid_options(s, "meta.k8s.io", "ListOptions", "FieldValueNotSupported", "resourceVersionMatch",
                                      "Unsupported value: \"%.*s\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
                                      (int)match.len, (const char *)match.data);
    }
    if (slice_eq_str(match, "Exact") && is_zero) {
        return status_invalid_options(s, "meta.k8s.io", "ListOptions", "FieldValueForbidden", "resourceVersionMatch",
                                      "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    return 0;
}

static int parse_version(struct kube_request *q, struct kube_list *l)
{
    struct slice rv = query_get(&q->query, "resourceVersion"), match = query_get(&q->query, "resourceVersionMatch");
    int64_t v = 0;
    if (query_int(&q->query, "resourceVersion", &v) || v < 0) {
        return status_bad_request(&q->status, "invalid resource version \"%.*s\"", (int)rv.len, (const char *)rv.data);
    }
    int code = check_match(q, match, rv.len != 0, v == 0);
    if (code) return code;
    if (query_has(&q->query, "sendInitialEvents")) {
        return status_invalid_options(&q->status, "meta.k8s.io", "ListOptions", "FieldValueForbidden", "sendInitialEvents",
                                      "Forbidden: sendInitialEvents is forbidden for list");
    }
    l->linearizable = rv.len == 0;
    if (slice_eq_str(match, "Exact") || (!match.len && v > 0 && l->limit)) {
        l->revision = v;
    } else {
        l->not_older = v;
    }
    return 0;
}

static int parse_continue(struct kube_request *q, struct kube_list *l)
{
    struct slice token = query_get(&q->query, "continue"), start;
    struct err e = {0};
    if (!token.len) return 0;
    if (query_get(&q->query, "resourceVersion").len && !slice_eq_str(query_get(&q->query, "resourceVersion"), "0")) {
        return status_bad_request(&q->status, "specifying resource version is not allowed when using continue");
    }
    int code = continue_decode(&q->arena, token, &l->revision, &start, &e);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) return status_bad_request(&q->status, "%s", e.text);
    struct buf b;
    buf_init(&b, 64 * LIMIT_KiB);
    buf_append_slice(&b, l->prefix);
    buf_append_slice(&b, start);
    l->key = arena_dup(&q->arena, buf_slice(&b));
    bool failed = b.failed || !l->key.data;
    buf_release(&b);
    if (failed) return status_nomem(&q->status);
    l->linearizable = l->revision < 0;
    if (l->revision < 0) l->revision = 0;
    l->continued = l->page = true;
    return 0;
}

/* The keys to read: the collection, or the one object that a field selector names. */
static int set_range(struct kube_request *q, struct kube_list *l)
{
    const struct kind *k = q->route.kind;
    struct slice ns = q->route.ns, name = selector_fixed(&q->selector, "metadata.name");
    if (k->namespaced && !ns.len) ns = selector_fixed(&q->selector, "metadata.namespace");
    if (slice_index(ns, '/') >= 0 || slice_index(name, '/') >= 0) {
        ns = q->route.ns; /* no object is called so: the selector finds none by itself */
        name = (struct slice){0};
    }
    l->prefix = key_prefix(&q->arena, k, q->route.ns);
    l->key = key_prefix(&q->arena, k, ns);
    l->end = key_prefix_end(&q->arena, l->key);
    if (name.len && (ns.len || !k->namespaced)) {
        l->key = key_of(&q->arena, k, ns, name);
        l->end = (struct slice){0};
    }
    return l->prefix.data && l->key.data ? 0 : status_nomem(&q->status);
}

void list_handle(struct kube_request *q)
{
    struct kube_list *l = arena_calloc(&q->arena, 1, sizeof(*l));
    int code = l ? request_selectors(q) : status_nomem(&q->status);
    if (!code && (query_int(&q->query, "limit", &l->limit) || l->limit < 0)) {
        code = status_bad_request(&q->status, "invalid value for limit");
    }
    if (!code) {
        l->page = l->limit > 0;
        code = parse_version(q, l);
    }
    if (!code) code = set_range(q, l);
    if (!code) code = parse_continue(q, l);
    if (code) {
        respond_status(q);
        return;
    }
    arena_init(&l->scratch, 64 * LIMIT_MiB);
    buf_init(&l->last_key, 64 * LIMIT_KiB);
    q->list = l;
    open_cursor(q);
}
