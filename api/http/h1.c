/* HTTP/1.1 over http-parser: one exchange at a time; what a client sends ahead (pipelining) waits in a bounded buffer.
 *
 * The parser is built lenient in Debian, so what could be read in two ways is refused here: names with other bytes than
 * tokens, folded values, CR or LF alone in what is not body, Transfer-Encoding beside Content-Length or other than
 * "chunked", more than one Host. A handler is never called from inside the parser but for body pieces: the parser is paused at the
 * end of a head and of a message. */
#include <stdio.h>
#include <strings.h>

#include "api/http/http_int.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

enum { REST_MOST = 64 * 1024, CHUNK_MOST = 1024 * 1024 };

static struct http_conn *conn_of(http_parser *p)
{
    return p->data;
}

/* ---- what the parser must not see ------------------------------------------------------------------ */

/* Bytes that frame messages: each CR has its LF, each LF its CR, there is no NUL, no line is folded, and the first one that is
 * not empty ends in a version. */
static bool framing_ok(struct h1 *h, const uint8_t *upto)
{
    for (const uint8_t *p = h->framing; p < upto; p++) {
        if ((*p == '\n') != (h->last == '\r') || *p == 0) return false;
        if (h->last == '\n' && (*p == ' ' || *p == '\t')) return false; /* a folded line */
        h->last = *p;
        if (h->first_line_done) continue;
        if (*p == '\n') {
            if (h->first_line_len == 0) continue;
            if (memcmp(h->version, "HTTP/", 5) != 0) return false;
            h->first_line_done = true;
        } else if (*p != '\r') {
            h->first_line_len++;
            memmove(h->version, h->version + 1, sizeof(h->version) - 1);
            h->version[sizeof(h->version) - 1] = (char)*p;
        }
    }
    h->framing = upto;
    return true;
}

static bool is_token_byte(uint8_t b)
{
    if ((b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9')) return true;
    return b != 0 && strchr("!#$%&'*+-.^_`|~", b) != NULL;
}

static bool lower_token(struct http_stream *st, struct slice *name, const char *at, size_t len)
{
    char piece[256];
    for (size_t from = 0; from < len; from += sizeof(piece)) {
        size_t n = len - from < sizeof(piece) ? len - from : sizeof(piece);
        for (size_t i = 0; i < n; i++) {
            uint8_t b = (uint8_t)at[from + i];
            if (!is_token_byte(b)) return false;
            piece[i] = (char)(b >= 'A' && b <= 'Z' ? b + 32 : b);
        }
        if (!stream_text(st, name, piece, n)) return false;
    }
    return true;
}

/* ---- parser callbacks: 0, or non-zero to stop with a bad request ----------------------------------- */

static int refuse(struct h1 *h, int status)
{
    if (h->refuse == 0) h->refuse = status;
    return 1;
}

static bool too_large(struct http_conn *c, struct http_stream *st, size_t more)
{
    st->head_bytes += more;
    return st->head_bytes > c->server->limits.header_bytes || st->req.n_headers >= c->server->limits.headers;
}

static int on_message_begin(http_parser *p)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    h->st = stream_new(c, 0);
    if (!h->st) return refuse(h, 503);
    h->name = h->value = (struct slice){0};
    h->head_done = h->message_done = h->in_value = h->host_seen = false;
    stream_receiving(h->st);
    return 0;
}

static int on_url(http_parser *p, const char *at, size_t len)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    for (size_t i = 0; i < len; i++)
        if (at[i] <= 0x20 || at[i] >= 0x7f) return refuse(h, 400);
    if (too_large(c, h->st, len)) return refuse(h, 414);
    return stream_text(h->st, &h->value, at, len) ? 0 : refuse(h, 503);
}

/* The header that was being read is whole. */
static int end_header(struct http_conn *c)
{
    struct h1 *h = c->h1;
    h->in_value = false;
    while (h->value.len && (h->value.data[h->value.len - 1] == ' ' || h->value.data[h->value.len - 1] == '\t'))
        h->value.len--;
    if (!h->value.data) h->value.data = (const uint8_t *)"";
    if (slice_eq(h->name, SLICE_LIT("host"))) {
        if (h->host_seen) return refuse(h, 400);
        h->host_seen = true;
        if (h->st->req.authority.len == 0) h->st->req.authority = h->value;
    }
    if (!stream_add_header(h->st, h->name, h->value)) return refuse(h, 503);
    h->name = h->value = (struct slice){0};
    return 0;
}

/* The request target, when the first header or the end of the head shows that it is whole. */
static int end_url(struct h1 *h)
{
    struct http_stream *st = h->st;
    struct slice t = h->value;
    if (t.len == 0) return 0;
    ptrdiff_t slashes = t.len > 7 && strncasecmp((const char *)t.data, "http://", 7) == 0    ? 7
                        : t.len > 8 && strncasecmp((const char *)t.data, "https://", 8) == 0 ? 8
                                                                                             : 0;
    if (slashes) { /* absolute form */
        struct slice after = slice_sub(t, (size_t)slashes, t.len);
        ptrdiff_t path = slice_index(after, '/');
        st->req.authority = path < 0 ? after : slice_sub(after, 0, (size_t)path);
        t = path < 0 ? SLICE_LIT("/") : slice_sub(after, (size_t)path, after.len);
    } else if (t.data[0] != '/' && !slice_eq(t, SLICE_LIT("*"))) {
        return refuse(h, 400);
    }
    stream_set_target(st, t);
    h->value = (struct slice){0};
    return 0;
}

static int on_field(http_parser *p, const char *at, size_t len)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    if (h->head_done) return 0; /* a chunked trailer */
    if (h->in_value ? end_header(c) != 0 : (!h->name.data && end_url(h) != 0)) return 1;
    if (too_large(c, h->st, len)) return refuse(h, 431);
    return lower_token(h->st, &h->name, at, len) ? 0 : refuse(h, 400);
}

static int on_value(http_parser *p, const char *at, size_t len)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    if (h->head_done) return 0;
    h->in_value = true;
    if (too_large(c, h->st, len)) return refuse(h, 431);
    for (size_t i = 0; i < len; i++)
        if (((uint8_t)at[i] < 0x20 && at[i] != '\t') || at[i] == 0x7f) return refuse(h, 400);
    return stream_text(h->st, &h->value, at, len) ? 0 : refuse(h, 503);
}

static int on_headers_complete(http_parser *p)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    if (h->head_done) return 0; /* seen already: the pause made the parser come here once more */
    if (h->in_value ? end_header(c) != 0 : end_url(h) != 0) return -1; /* 1 would mean: no body */
    h->head_done = true;
    p->upgrade = 0; /* offered protocols are declined by going on in HTTP/1.1 */
    http_parser_pause(p, 1);
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t len)
{
    struct http_conn *c = conn_of(p);
    struct h1 *h = c->h1;
    if (!framing_ok(h, (const uint8_t *)at)) return refuse(h, 400);
    h->framing = (const uint8_t *)at + len;
    h->last = 0;
    struct http_stream *st = h->st;
    if (!st) return 0;
    if (st->ended || st->reset || !st->cb.body) {
        if (st->ended) st->discarded += len;
        if (st->discarded > LIMIT_HTTP_DISCARD_BYTES) h->stopped = h->close_after = true;
        st->progress_ms = uv_now(c->server->loop);
        return 0;
    }
    stream_body(st, slice_make(at, len));
    if (st->paused || c->dead) http_parser_pause(p, 1);
    return 0;
}

static int on_message_complete(http_parser *p)
{
    conn_of(p)->h1->message_done = true;
    http_parser_pause(p, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- the head is whole ----------------------------------------------------------------------------- */

/* Whether, and how, the request is refused: 0 or a status. */
static int check_head(const struct h1 *h)
{
    const struct http_stream *st = h->st;
    const http_parser *p = &h->parser;
    struct slice te = {0};
    bool length = false;
    if (p->http_major != 1 || p->http_minor > 1) return 505;
    if (p->http_minor == 1 && !h->host_seen) return 400;
    if (p->method == HTTP_CONNECT) return 405;
    for (size_t i = 0; i < st->req.n_headers; i++) {
        const struct http_header *k = &st->headers[i];
        if (slice_eq(k->name, SLICE_LIT("content-length"))) {
            if (length) return 400;
            length = true;
        }
        if (!slice_eq(k->name, SLICE_LIT("transfer-encoding"))) continue;
        if (te.data || p->http_minor == 0) return 400;
        te = k->value;
    }
    if (!te.data) return 0;
    if (length) return 400;
    if (te.len != 7 || strncasecmp((const char *)te.data, "chunked", 7) != 0) return 501;
    return p->flags & F_CHUNKED ? 0 : 400; /* it was said in a way that only we understand */
}

/* A client of HTTP/1.0 would take the 100 for the answer. */
static int check_expect(const http_parser *p, struct http_stream *st)
{
    struct slice v = http_request_header(st, "expect");
    if (!v.data || p->http_minor == 0) return 0;
    if (v.len != 12 || strncasecmp((const char *)v.data, "100-continue", 12) != 0) return 417;
    st->expects_continue = true;
    return 0;
}

static bool has_body(const http_parser *p)
{
    return (p->flags & F_CHUNKED) || (p->content_length > 0 && p->content_length != UINT64_MAX);
}

static bool add_line(struct http_conn *c, struct slice line)
{
    if (out_queue_copy(&c->h1->head, line) == 0) return true;
    conn_kill(c, ERR_NOMEM);
    return false;
}

static const char *reason(int status)
{
    switch (status) {
#define XX(number, name, text)                                                                                         \
    case number: return #text;
        HTTP_STATUS_MAP(XX)
#undef XX
    default: return "Status";
    }
}

/* Answers what is no request, and closes. */
static void bad_request(struct http_conn *c, int status)
{
    struct h1 *h = c->h1;
    stat_add(&c->server->stats.refused, 1);
    h->stopped = h->close_after = true;
    c->want_read_off = true;
    if (h->st && h->st->dispatched) {
        /* Its answer is under way: it can only be cut off. */
        server_log(c, "malformed request body");
        conn_kill(c, ERR_CLOSED);
        return;
    }
    if (!h->st) h->st = stream_new(c, 0);
    if (!h->st) {
        conn_kill(c, ERR_NOMEM);
        return;
    }
    struct http_stream *st = h->st;
    char text[64];
    int n = snprintf(text, sizeof(text), "%d %s\n", status, reason(status));
    list_remove(&st->receiving);
    st->dispatched = st->request_done = st->peer_done = true;
    http_reply(st, status, "text/plain", slice_make(text, (size_t)n));
}

static void dispatch(struct http_conn *c)
{
    struct h1 *h = c->h1;
    struct http_stream *st = h->st;
    int status = check_head(h);
    if (status == 0) status = check_expect(&h->parser, st);
    if (status != 0) {
        bad_request(c, status);
        return;
    }
    st->req.method = slice_str(http_method_str((enum http_method)h->parser.method));
    h->keep_alive = http_should_keep_alive(&h->parser) && !c->closing;
    if (!has_body(&h->parser)) {
        list_remove(&st->receiving);
    } else {
        st->dispatched = true;
        list_remove(&st->receiving);
        stream_receiving(st);
    }
    stream_dispatch(st);
    if (st->expects_continue && !st->responded && !st->reset && has_body(&h->parser)) {
        st->expects_continue = false;
        if (add_line(c, slice_str(continue_line))) conn_dirty(c);
    }
}

/* ---- input ------------------------------------------------------------------------------------------ */

static void keep_rest(struct http_conn *c, struct slice data)
{
    struct h1 *h = c->h1;
    if (data.len && buf_append_slice(&h->rest, data) != 0) conn_kill(c, ERR_NOMEM);
    if (h->rest.len >= REST_MOST) c->want_read_off = true;
}

/* Whether bytes may go to the parser now: not while an answer to a whole request is due, nor while the handler has paused. */
static bool may_parse(const struct http_conn *c)
{
    const struct h1 *h = c->h1;
    if (c->dead || h->stopped) return false;
    return h->st ? !h->st->paused && !h->message_done : !h->close_after;
}

static bool parse_stopped(struct http_conn *c)
{
    struct h1 *h = c->h1;
    enum http_errno code = HTTP_PARSER_ERRNO(&h->parser);
    if (code == HPE_OK) return false;
    if (code != HPE_PAUSED) {
        bad_request(c, h->refuse ? h->refuse : code == HPE_HEADER_OVERFLOW ? 431 : 400);
        return true;
    }
    http_parser_pause(&h->parser, 0);
    return false;
}

static void message_done(struct http_conn *c)
{
    struct h1 *h = c->h1;
    if (h->st) stream_end(h->st);
}

/* Returns how many bytes were used. */
static size_t parse_some(struct http_conn *c, struct slice data)
{
    struct h1 *h = c->h1;
    bool head_before = h->head_done && h->st;
    h->framing = data.data;
    size_t used = http_parser_execute(&h->parser, &settings, (const char *)data.data, data.len);
    if (used > data.len) used = data.len;
    if (parse_stopped(c)) return data.len;
    if (h->framing < data.data + used && !framing_ok(h, data.data + used)) {
        bad_request(c, 400);
        return data.len;
    }
    if (h->st && h->head_done && !head_before) dispatch(c);
    if (h->message_done && !c->dead && !h->stopped) message_done(c);
    return used;
}

void h1_input(struct http_conn *c, struct slice data)
{
    struct h1 *h = c->h1;
    if (h->rest.len) {
        keep_rest(c, data);
        h1_run_rest(c);
        return;
    }
    while (data.len && may_parse(c)) {
        size_t used = parse_some(c, data);
        data = slice_sub(data, used, data.len);
    }
    if (data.len && !c->dead && !h->stopped) keep_rest(c, data);
}

void h1_run_rest(struct http_conn *c)
{
    struct h1 *h = c->h1;
    if (!h->rest.len || !may_parse(c)) return;
    struct buf rest = h->rest;
    buf_init(&h->rest, 0);
    h1_input(c, buf_slice(&rest));
    buf_release(&rest);
    if (h->rest.len < REST_MOST && !h->stopped) c->want_read_off = h->st && h->st->paused;
    conn_dirty(c);
}

void h1_eof(struct http_conn *c)
{
    struct h1 *h = c->h1;
    /* A client that asked us to close may have closed its side with the last request, and waits for the answer. */
    if (h->st && h->message_done && (!h->keep_alive || h->st->ended)) {
        h->close_after = true;
        return;
    }
    if (c->rest || tls_pending(c)) {
        h->close_after = true;
        c->close_when_flushed = true;
        return;
    }
    conn_kill(c, ERR_CLOSED);
}

void h1_resume(struct http_stream *st)
{
    struct http_conn *c = st->conn;
    c->want_read_off = false;
    if (st->peer_done && !st->request_done) stream_end(st);
    h1_run_rest(c);
}

/* ---- the answer ------------------------------------------------------------------------------------- */

static void add_value(struct buf *b, struct slice v)
{
    uint8_t *to = buf_reserve(b, v.len);
    if (!to || v.len == 0) return;
    for (size_t i = 0; i < v.len; i++) {
        uint8_t k = v.data[i];
        to[i] = k < 0x20 || k == 0x7f ? ' ' : k; /* never a line break of someone else's making */
    }
    b->len += v.len;
}

static void add_header(struct buf *b, struct slice name, struct slice value)
{
    /* Title case, which old clients expect. */
    size_t from = b->len;
    buf_append_slice(b, name);
    bool up = true;
    for (size_t i = from; i < b->len; i++) {
        if (up && b->data[i] >= 'a' && b->data[i] <= 'z') b->data[i] = (uint8_t)(b->data[i] - 32);
        up = b->data[i] == '-';
    }
    buf_append(b, ": ", 2);
    add_value(b, value);
    buf_append(b, "\r\n", 2);
}

static void add_framing(struct http_conn *c, struct http_stream *st, struct buf *b, bool length_given, bool end)
{
    struct h1 *h = c->h1;
    bool http10 = h->parser.http_minor == 0;
    if (!st->no_body && !length_given) {
        if (end) {
            buf_append_str(b, "Content-Length: 0\r\n");
        } else if (http10) {
            h->close_after = true; /* the end of the connection is the end of the body */
        } else {
            st->chunked = true;
            buf_append_str(b, "Transfer-Encoding: chunked\r\n");
        }
    }
    /* A body that is still to come and that nobody will read: do not wait for it. */
    if (!h->message_done && has_body(&h->parser) && (end || (st->expects_continue && st->whole)))
        h->close_after = true;
    if (!h->keep_alive || c->closing) h->close_after = true;
    if (h->close_after)
        buf_append_str(b, "Connection: close\r\n");
    else if (http10)
        buf_append_str(b, "Connection: keep-alive\r\n");
}

void h1_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n, bool end)
{
    struct http_conn *c = st->conn;
    struct buf b = {0};
    bool length_given = false;
    if (st->expects_continue && !end && !st->whole) { /* the answer has begun, and the body may be part of it */
        st->expects_continue = false;
        buf_append_str(&b, continue_line);
    }
    buf_printf(&b, "HTTP/1.1 %d %s\r\n", status, reason(status));
    for (size_t i = 0; i < n; i++) {
        struct slice name = headers[i].name;
        if (slice_eq(name, SLICE_LIT("connection")) || slice_eq(name, SLICE_LIT("transfer-encoding"))) continue;
        if (slice_eq(name, SLICE_LIT("content-length"))) {
            if (st->no_body && !st->is_head) continue;
            length_given = true;
        }
        add_header(&b, name, headers[i].value);
    }
    add_header(&b, SLICE_LIT("date"), server_date(c->server));
    add_framing(c, st, &b, length_given, end);
    buf_append(&b, "\r\n", 2);
    if (b.failed || out_queue_copy(&c->h1->head, buf_slice(&b)) != 0) http_reset(st, 0);
    buf_release(&b);
}

/* Moves a queue to the gather, up to what fits; false when the connection is full. */
static bool move_bytes(struct http_conn *c, struct out_queue *q, size_t n)
{
    struct gather *g = &c->server->gather;
    while (n > 0) {
        if (!gather_fits(g, 64) && !conn_write_gather(c)) return false;
        size_t part = n < OUT_FRAME ? n : OUT_FRAME;
        gather_queue(g, q, part);
        n -= part;
    }
    return true;
}

/* Body bytes as one chunk a turn. A chunk that has begun goes on where it stopped. */
static bool send_body(struct http_conn *c, struct http_stream *st)
{
    struct h1 *h = c->h1;
    while (st->q.bytes > 0) {
        if (st->chunked && h->chunk_left == 0) {
            char head[24];
            h->chunk_left = st->q.bytes < CHUNK_MOST ? st->q.bytes : CHUNK_MOST;
            int n = snprintf(head, sizeof(head), "%zx\r\n", h->chunk_left);
            if (!add_line(c, slice_make(head, (size_t)n))) return false;
        }
        if (!move_bytes(c, &h->head, h->head.bytes)) return false;
        size_t n = st->chunked && h->chunk_left < st->q.bytes ? h->chunk_left : st->q.bytes;
        size_t before = st->q.bytes;
        bool all = move_bytes(c, &st->q, n);
        size_t moved = before - st->q.bytes;
        stream_took(st, moved);
        if (st->chunked) {
            h->chunk_left -= moved;
            if (h->chunk_left == 0 && !add_line(c, SLICE_LIT("\r\n"))) return false;
        }
        if (!all) return false;
    }
    return move_bytes(c, &h->head, h->head.bytes);
}

static bool queue_end(struct http_conn *c, struct http_stream *st)
{
    struct buf b = {0};
    buf_append_str(&b, "0\r\n");
    for (size_t i = 0; st->trailers && i < st->trailers->n; i++)
        add_header(&b, st->trailers->headers[i].name, st->trailers->headers[i].value);
    buf_append_str(&b, "\r\n");
    if (b.failed) conn_kill(c, ERR_NOMEM);
    bool ok = !b.failed && add_line(c, buf_slice(&b));
    buf_release(&b);
    return ok;
}

/* The answer has gone out whole. */
static void exchange_done(struct http_conn *c)
{
    struct h1 *h = c->h1;
    struct http_stream *st = h->st;
    h->st = NULL;
    bool whole = h->message_done;
    h->message_done = h->head_done = h->first_line_done = false;
    h->first_line_len = 0;
    stream_close(st, 0);
    if (!whole || h->close_after || c->closing) {
        h->close_after = true;
        c->close_when_flushed = true;
        return;
    }
    if (h->rest.len)
        h1_run_rest(c);
    else if (c->eof)
        conn_kill(c, ERR_CLOSED);
}

void h1_send(struct http_conn *c)
{
    struct h1 *h = c->h1;
    c->server->gather.copy_all = c->tls != NULL;
    if (!move_bytes(c, &h->head, h->head.bytes)) return;
    while (h->st && h->st->responded && !c->dead) {
        struct http_stream *st = h->st;
        if (!send_body(c, st)) return;
        if (!st->ended) return;
        if (st->paused) { /* nobody will resume it */
            st->paused = false;
            h1_resume(st);
        }
        /* The body that still comes in is read to its end first, unless we close anyway. */
        if (!h->message_done && !h->close_after) return;
        if (st->chunked && !st->sent && (!queue_end(c, st) || !move_bytes(c, &h->head, h->head.bytes))) return;
        st->sent = true;
        exchange_done(c);
    }
}

/* ---- the connection --------------------------------------------------------------------------------- */

void h1_shutdown(struct http_conn *c)
{
    struct h1 *h = c->h1;
    if (h->st)
        h->keep_alive = false; /* after this one */
    else
        c->close_when_flushed = true;
}

int h1_open(struct http_conn *c)
{
    struct h1 *h = mem_calloc(1, sizeof(*h));
    if (!h) return ERR_NOMEM;
    c->h1 = h;
    http_parser_init(&h->parser, HTTP_REQUEST);
    h->parser.data = c;
    return 0;
}

void h1_free(struct http_conn *c)
{
    if (!c->h1) return;
    buf_release(&c->h1->rest);
    out_queue_release(&c->h1->head);
    mem_free(c->h1);
    c->h1 = NULL;
}
