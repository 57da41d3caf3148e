/* Answers: a Status, bytes, an object in the negotiated format. Each request is answered once; what comes for an exchange that
 * is gone is dropped. */
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/clock.h"

#define MAX_HEADERS 24

struct head {
    struct http_header headers[MAX_HEADERS];
    size_t n;
};

static void header(struct head *h, const char *name, struct slice value)
{
    if (h->n < MAX_HEADERS) h->headers[h->n++] = (struct http_header){slice_str(name), value};
}

/* RFC 7234's quoted string: quotes and backslashes escaped, control characters left out. */
static const char *quote(struct arena *a, const char *text)
{
    char *out = arena_alloc(a, 2 * strlen(text) + 1);
    size_t n = 0;
    if (!out) return "";
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) continue;
        if (*p == '"' || *p == '\\') out[n++] = '\\';
        out[n++] = *p;
    }
    out[n] = 0;
    return out;
}

static void common_headers(struct kube_request *q, struct head *h, const char *content_type)
{
    header(h, "content-type", slice_str(content_type));
    header(h, "cache-control", SLICE_LIT("no-cache, private"));
    for (size_t i = 0; i < q->n_warnings; i++) {
        const char *text = arena_printf(&q->arena, "299 - \"%s\"", quote(&q->arena, q->warnings[i]));
        if (text) header(h, "warning", slice_str(text));
    }
}

static bool begin(struct kube_request *q, int code)
{
    if (q->responded) return false;
    q->responded = true;
    q->response_code = code;
    if (q->answered) {
        q->answered(q);
        request_unref(q); /* whoever runs the handler still holds it */
        return false;
    }
    metrics_count(q);
    return q->st != NULL;
}

void respond_head(struct kube_request *q, int code, const char *content_type)
{
    struct head h = {.n = 0};
    if (!begin(q, code)) return;
    common_headers(q, &h, content_type);
    http_respond(q->st, code, h.headers, h.n, false);
}

static void send_with(struct kube_request *q, int code, struct head *h, struct slice body)
{
    char length[24];
    snprintf(length, sizeof(length), "%zu", body.len);
    header(h, "content-length", slice_str(length));
    bool head_only = slice_eq_str(http_request(q->st)->method, "HEAD");
    http_respond(q->st, code, h->headers, h->n, head_only || !body.len);
    if (head_only || !body.len) return;
    http_write(q->st, body);
    http_end(q->st);
}

void respond_bytes(struct kube_request *q, int code, const char *content_type, struct slice body)
{
    struct head h = {.n = 0};
    if (!begin(q, code)) return;
    common_headers(q, &h, content_type);
    send_with(q, code, &h, body);
}

void respond_blob(struct kube_request *q, int code, const char *content_type, struct blob *body)
{
    struct head h = {.n = 0};
    char length[24];
    if (!begin(q, code)) return;
    common_headers(q, &h, content_type);
    snprintf(length, sizeof(length), "%u", body->len);
    header(&h, "content-length", slice_str(length));
    bool head_only = slice_eq_str(http_request(q->st)->method, "HEAD");
    http_respond(q->st, code, h.headers, h.n, head_only);
    if (head_only) return;
    http_write_blob(q->st, body);
    http_end(q->st);
}

void respond_status(struct kube_request *q)
{
    struct head h = {.n = 0};
    struct buf b;
    char seconds[16];
    int code = q->status.code ? q->status.code : 500;
    if (!begin(q, code)) return;
    common_headers(q, &h, "application/json");
    if (q->status.retry_after_s) {
        snprintf(seconds, sizeof(seconds), "%d", q->status.retry_after_s);
        header(&h, "retry-after", slice_str(seconds));
    }
    if (code == 401) header(&h, "www-authenticate", SLICE_LIT("Bearer"));
    buf_init(&b, 256 * LIMIT_KiB);
    status_write(&b, &q->status);
    if (b.failed) {
        http_reset(q->st, 2 /* INTERNAL_ERROR */);
    } else {
        send_with(q, code, &h, buf_slice(&b));
    }
    buf_release(&b);
}

static void respond_nomem(struct kube_request *q)
{
    status_nomem(&q->status);
    respond_status(q);
}

void respond_json(struct kube_request *q, int code, const struct json *v)
{
    struct buf b;
    buf_init(&b, 256 * LIMIT_MiB);
    if (q->format.pretty) {
        json_write_pretty(&b, v);
        buf_append_byte(&b, '\n');
    } else {
        json_write(&b, v);
    }
    if (b.failed) {
        respond_nomem(q);
    } else {
        respond_bytes(q, code, format_content_type(&q->format), buf_slice(&b));
    }
    buf_release(&b);
}

/* The object as something else than itself. */
static int transform(struct kube_request *q, struct slice stored, int64_t revision, struct json **ret)
{
    struct arena *a = &q->arena;
    struct json *object, *row, *rows = json_array(a);
    int code = object_parse(a, stored, revision, &object);
    if (code) return code;
    if (q->format.media == MEDIA_PARTIAL) {
        *ret = object_partial(a, object, q->format.version);
        return *ret ? 0 : ERR_NOMEM;
    }
    if (q->format.media != MEDIA_TABLE) {
        *ret = object;
        return 0;
    }
    const char *rv = revision ? arena_printf(a, "%lld", (long long)revision) : NULL;
    struct json *table = table_new(a, q->route.kind, &q->format, true, rv);
    if (!table || !rows) return ERR_NOMEM;
    code = table_row(a, q->route.kind, &q->format, object, clock_wall_ms() / 1000, &row);
    if (!code) code = json_push(a, rows, row);
    if (!code) code = json_set_str(a, table, "rows", rows);
    if (!code) *ret = table;
    return code;
}

void respond_stored(struct kube_request *q, int code, struct slice stored, int64_t revision)
{
    struct buf b;
    struct json *v;
    if (q->format.media == MEDIA_JSON && !q->format.pretty) {
        buf_init(&b, 64 * LIMIT_MiB);
        int failed = object_serve(&b, q->route.kind, stored, revision, 0);
        if (!failed) respond_bytes(q, code, "application/json", buf_slice(&b));
        buf_release(&b);
        if (!failed) return;
    } else if (transform(q, stored, revision, &v) == 0) {
        respond_json(q, code, v);
        return;
    }
    status_internal(&q->status, "the stored object cannot be decoded");
    respond_status(q);
}
