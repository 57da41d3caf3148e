/* HTTP/2 over nghttp2: its callbacks, what leaves in a turn, and the guards against floods.
 *
 * nghttp2 keeps the states, HPACK and the windows. Bodies never pass through it: it is told how long a DATA frame is (NO_COPY), and
 * the frame's bytes move by reference from the stream's queue to the gather. What a peer can make us do for nothing is
 * counted: resets (its own, and those that its malformed frames provoke) by a token bucket, frames that carry no
 * request or body per second since we last had something to send, and bytes that do not become a frame. */
#include "api/http/http_int.h"
#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"

enum {
    TURN_BYTES = 1024 * 1024, /* a connection's share of a turn */
    RESET_BURST = 5,          /* seconds' worth */
    CONN_WINDOWS = 4,         /* the connection's window, in those of streams */
    STREAM_FRAMES = 4,        /* most that wait for one stream: head, body or trailers, window, reset */
};

/* Debian's 1.52 carries these limits of later versions; with an older build ours are alone. */
#pragma weak nghttp2_option_set_stream_reset_rate_limit
void nghttp2_option_set_stream_reset_rate_limit(nghttp2_option *option, uint64_t burst, uint64_t rate);

/* Callbacks come in runs about one stream: the last one found is remembered, which saves most look-ups (and their cache misses). */
static struct http_stream *find(struct http_conn *c, int32_t id)
{
    if (c->recent && c->recent->id == id) return c->recent;
    struct http_stream *st = nghttp2_session_get_stream_user_data(c->h2, id);
    if (st) c->recent = st;
    return st;
}

/* ---- guards --------------------------------------------------------------------------------------- */

void h2_terminate(struct http_conn *c, uint32_t code, const char *reason)
{
    if (c->dead || c->terminated) return;
    c->terminated = true;
    server_log(c, reason);
    if (nghttp2_session_terminate_session(c->h2, code) != 0) conn_kill(c, ERR_CLOSED);
    conn_dirty(c);
}

static void count_reset(struct http_conn *c)
{
    struct http_server *s = c->server;
    uint64_t now = uv_now(s->loop);
    double rate = s->limits.resets_per_second, most = rate * RESET_BURST;
    stat_add(&s->stats.resets, 1);
    c->reset_tokens += (double)(now - c->reset_ms) * rate / 1000;
    if (c->reset_tokens > most) c->reset_tokens = most;
    c->reset_ms = now;
    c->reset_tokens -= 1;
    if (c->reset_tokens < 0) h2_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many resets");
}

static void count_control(struct http_conn *c)
{
    struct http_server *s = c->server;
    uint64_t now = uv_now(s->loop);
    if (now - c->control_ms >= 1000) {
        c->control_ms = now;
        c->control_frames = 0;
    }
    if (++c->control_frames > s->limits.control_frames)
        h2_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM, "too many control frames");
}

/* ---- receiving ------------------------------------------------------------------------------------ */

static int on_begin_frame(nghttp2_session *h2, const nghttp2_frame_hd *hd, void *user)
{
    (void)h2;
    struct http_conn *c = user;
    c->since_frame = 0;
    switch (hd->type) {
    case NGHTTP2_HEADERS: break;
    case NGHTTP2_RST_STREAM: {
        const struct http_stream *st = find(c, hd->stream_id);
        if (!st || !st->sent) count_reset(c);
        break;
    }
    case NGHTTP2_DATA:
        if (hd->length > 0 || (hd->flags & NGHTTP2_FLAG_END_STREAM)) break;
        count_control(c);
        break;
    default: count_control(c); break;
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct http_conn *c = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    /* After the GOAWAY was made its stream number stands, though it may go out later than this comes in: who sent this is told that
     * nothing was done. */
    bool full = c->closing || c->queued > c->server->limits.conn_out_bytes || (server_full(c->server) && c->n_streams > 0);
    struct http_stream *st = full ? NULL : stream_new(c, frame->hd.stream_id);
    if (!st) {
        stat_add(&c->server->stats.refused, 1);
        return nghttp2_submit_rst_stream(h2, 0, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
    }
    nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, st);
    c->recent = st;
    stream_receiving(st);
    return 0;
}

static bool take_header(struct http_stream *st, struct slice name, struct slice value)
{
    struct slice n = {0}, v = {0};
    if (!stream_text(st, &v, (const char *)value.data, value.len)) return false;
    if (name.data[0] == ':') {
        if (slice_eq(name, SLICE_LIT(":method"))) st->req.method = v;
        if (slice_eq(name, SLICE_LIT(":authority"))) st->req.authority = v;
        if (slice_eq(name, SLICE_LIT(":path"))) stream_set_target(st, v);
        return true;
    }
    if (slice_eq(name, SLICE_LIT("host")) && st->req.authority.len == 0) st->req.authority = v;
    if (!v.data) v.data = (const uint8_t *)""; /* there, though empty */
    return stream_text(st, &n, (const char *)name.data, name.len) && stream_add_header(st, n, v);
}

static int malformed(nghttp2_session *h2, struct http_stream *st)
{
    st->malformed = true;
    return nghttp2_submit_rst_stream(h2, 0, st->id, NGHTTP2_PROTOCOL_ERROR);
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    (void)flags;
    struct http_conn *c = user;
    struct http_stream *st = find(c, frame->hd.stream_id);
    if (!st || st->over_limit || st->malformed) return 0;
    if (!h2_head_field(&st->head, slice_make(name, name_len), slice_make(value, value_len))) return malformed(h2, st);
    const struct http_limits *l = &c->server->limits;
    st->head_bytes += name_len + value_len + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
    if (st->head_bytes > l->header_bytes || ++st->head_fields > l->headers + 4) {
        st->over_limit = true;
        return 0;
    }
    if (st->dispatched) return 0; /* trailers: nobody wants them */
    if (take_header(st, slice_make(name, name_len), slice_make(value, value_len))) return 0;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* out of memory: INTERNAL_ERROR for this stream */
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct http_conn *c = user;
    c->since_frame = 0;
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    struct http_stream *st = find(c, frame->hd.stream_id);
    if (!st || st->malformed) return 0;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (!st->over_limit && frame->hd.type == NGHTTP2_HEADERS && !h2_head_block_end(&st->head, end))
        return malformed(h2, st);
    if (!st->over_limit && end && !h2_head_end(&st->head)) return malformed(h2, st);
    if (!st->dispatched) {
        list_remove(&st->receiving);
        if (!end) {
            st->dispatched = true; /* its limit is that of a body from here on */
            stream_receiving(st);
        }
        stream_dispatch(st);
    }
    if (end) stream_end(st);
    return 0;
}

static int on_data_chunk(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *user)
{
    (void)flags;
    struct http_conn *c = user;
    c->since_frame = 0;
    struct http_stream *st = find(c, id);
    bool fits = st && !st->malformed && h2_head_data(&st->head, len);
    if (fits && !st->sent) {
        stream_body(st, slice_make(data, len));
        return 0;
    }
    nghttp2_session_consume_connection(h2, len);
    if (!st || st->malformed) return 0;
    if (!fits) return malformed(h2, st);
    if (st->reset) return 0;
    st->discarded += len;
    nghttp2_session_consume_stream(h2, id, len);
    if (st->discarded > LIMIT_HTTP_DISCARD_BYTES) h2_enough(st);
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t code, void *user)
{
    (void)h2;
    (void)code;
    struct http_stream *st = find(user, id);
    if (!st) return 0;
    stream_close(st, st->sent ? 0 : ERR_CANCELED);
    return 0;
}

/* Who provokes answers (resets, above all) and reads none of them: a GOAWAY would not get through either. */
static void check_queue(struct http_conn *c)
{
    size_t most = STREAM_FRAMES * c->n_streams + c->server->limits.control_frames;
    if (c->dead || nghttp2_session_get_outbound_queue_size(c->h2) <= most) return;
    server_log(c, "too many frames that the peer does not take");
    conn_kill(c, ERR_CLOSED);
}

void h2_input(struct http_conn *c, struct slice data)
{
    ssize_t n = nghttp2_session_mem_recv(c->h2, data.data, data.len);
    if (n < 0) {
        server_log(c, nghttp2_strerror((int)n));
        conn_kill(c, n == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_CLOSED);
        return;
    }
    /* nghttp2 says nothing between the parts of a header block, nor of frames it ignores: those of unknown types, and the rest of
     * bodies that we have refused, for which there were windows. */
    c->since_frame += data.len;
    bool in_head = !list_empty(&c->receiving) &&
                   !container_of(c->receiving.prev, struct http_stream, receiving)->dispatched;
    size_t most = in_head ? 4 * c->server->limits.header_bytes : CONN_WINDOWS * LIMIT_HTTP2_WINDOW_BYTES;
    if (c->since_frame > most + HTTP_INPUT) h2_terminate(c, NGHTTP2_ENHANCE_YOUR_CALM, "bytes that become no request");
    check_queue(c);
}

void h2_consume(struct http_stream *st, size_t n)
{
    struct http_conn *c = st->conn;
    if (c->proto != PROTO_H2 || !c->h2 || n == 0) return;
    nghttp2_session_consume_connection(c->h2, n);
    if (st->peer_done || st->finished) return;
    nghttp2_session_consume_stream(c->h2, st->id, n); /* fails only for a stream that is gone, or for want of memory */
}

/* ---- sending -------------------------------------------------------------------------------------- */

bool h2_has_window(const struct http_stream *st)
{
    return nghttp2_session_get_stream_remote_window_size(st->conn->h2, st->id) > 0;
}

/* Makes room in the gather; false when the connection takes no more in this turn. */
static bool make_room(struct http_conn *c, size_t copied)
{
    struct gather *g = &c->server->gather;
    if (gather_fits(g, copied)) return true;
    c->turn_bytes += g->bytes;
    if (!conn_write_gather(c)) return false;
    if (c->turn_bytes < TURN_BYTES) return true;
    c->more = true;
    return false;
}

static ssize_t on_send(nghttp2_session *h2, const uint8_t *data, size_t len, int flags, void *user)
{
    (void)h2;
    (void)flags;
    struct http_conn *c = user;
    if (!make_room(c, len)) return NGHTTP2_ERR_WOULDBLOCK;
    gather_copy(&c->server->gather, data, len);
    return (ssize_t)len;
}

static int submit_trailers(nghttp2_session *h2, struct http_stream *st);

static ssize_t on_read(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
                       nghttp2_data_source *source, void *user)
{
    (void)id;
    (void)buf;
    (void)user;
    struct http_stream *st = source->ptr;
    st->conn->recent = st;
    if (st->q.bytes == 0 && !st->ended) {
        st->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = st->q.bytes < len ? st->q.bytes : len;
    if (n > OUT_FRAME) n = OUT_FRAME;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == st->q.bytes && st->ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (st->trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (submit_trailers(h2, st) != 0) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

static int on_send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *head, size_t len,
                        nghttp2_data_source *source, void *user)
{
    (void)h2;
    (void)frame;
    struct http_conn *c = user;
    struct http_stream *st = source->ptr;
    enum { FRAME_HEAD = 9 };
    if (!make_room(c, FRAME_HEAD)) return NGHTTP2_ERR_WOULDBLOCK;
    gather_copy(&c->server->gather, head, FRAME_HEAD);
    gather_queue(&c->server->gather, &st->q, len);
    stream_took(st, len);
    return 0;
}

/* The answer is whole, the rest of the request is not wanted (RFC 9113, section 8.1). Some clients lose an answer that a reset
 * follows at once, so that there is some patience: for a moment, and for some bytes. */
static void h2_drain(struct http_stream *st)
{
    st->paused = false;
    stream_receiving(st);
    http_set_body_timeout(st, st->conn->server->limits.linger_ms);
}

void h2_enough(struct http_stream *st)
{
    st->reset = true;
    h2_reset(st, NGHTTP2_NO_ERROR);
    conn_dirty(st->conn);
}

static int on_frame_send(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)h2;
    struct http_conn *c = user;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: c->control_frames = 0; break;
    case NGHTTP2_RST_STREAM: {
        struct http_stream *st = find(c, frame->hd.stream_id);
        uint32_t code = frame->rst_stream.error_code; /* refused: by us, perhaps for what others hold */
        if (code != NGHTTP2_NO_ERROR && code != NGHTTP2_REFUSED_STREAM && (!st || !st->reset)) count_reset(c);
        return 0;
    }
    default: return 0;
    }
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) return 0;
    struct http_stream *st = find(c, frame->hd.stream_id);
    if (!st) return 0;
    st->sent = true;
    if (!st->peer_done) h2_drain(st);
    return 0;
}

void h2_send(struct http_conn *c)
{
    c->server->gather.copy_all = c->tls != NULL;
    c->turn_bytes = 0;
    int rc = nghttp2_session_send(c->h2);
    if (rc != 0) {
        conn_kill(c, rc == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_CLOSED);
        return;
    }
    if (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2)) c->close_when_flushed = true;
}

/* ---- answering ------------------------------------------------------------------------------------ */

static bool connection_specific(struct slice name)
{
    switch (name.len) {
    case 7: return slice_eq(name, SLICE_LIT("upgrade"));
    case 10: return slice_eq(name, SLICE_LIT("connection")) || slice_eq(name, SLICE_LIT("keep-alive"));
    case 16: return slice_eq(name, SLICE_LIT("proxy-connection"));
    case 17: return slice_eq(name, SLICE_LIT("transfer-encoding"));
    default: return false;
    }
}

static nghttp2_nv nv_make(struct slice name, struct slice value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.data, (uint8_t *)(uintptr_t)value.data, name.len, value.len,
                        NGHTTP2_NV_FLAG_NONE};
}

/* Fills nva (room for n + 2); returns how many. */
static size_t make_fields(nghttp2_nv *nva, const struct http_header *headers, size_t n, bool *ret_grpc)
{
    size_t count = 0;
    *ret_grpc = false;
    for (size_t i = 0; i < n; i++) {
        const struct http_header *h = &headers[i];
        if (connection_specific(h->name)) continue;
        if (!nghttp2_check_header_value(h->value.data, h->value.len)) continue; /* never pass on a line break */
        nva[count++] = nv_make(h->name, h->value);
        if (h->name.len == 12 && slice_eq(h->name, SLICE_LIT("content-type")))
            *ret_grpc = slice_has_prefix(h->value, SLICE_LIT("application/grpc"));
    }
    return count;
}

void h2_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n)
{
    struct http_conn *c = st->conn;
    enum { INLINE = 24 };
    nghttp2_nv space[INLINE + 2], *nva = space;
    if (n > INLINE && !(nva = mem_alloc((n + 2) * sizeof(*nva)))) {
        http_reset(st, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    bool grpc;
    nva[0] = nv_make(SLICE_LIT(":status"), slice_make(digits, 3));
    size_t count = 1 + make_fields(nva + 1, headers, n, &grpc);
    if (!grpc) nva[count++] = nv_make(SLICE_LIT("date"), server_date(c->server));
    nghttp2_data_provider provider = {.source.ptr = st, .read_callback = on_read};
    int rc = nghttp2_submit_response(c->h2, st->id, nva, count, st->ended ? NULL : &provider);
    if (nva != space) mem_free(nva);
    if (rc != 0) http_reset(st, NGHTTP2_INTERNAL_ERROR);
}

static int submit_trailers(nghttp2_session *h2, struct http_stream *st)
{
    const struct http_trailers *t = st->trailers;
    enum { MOST = 16 };
    nghttp2_nv nva[MOST + 2];
    bool grpc;
    size_t count = make_fields(nva, t->headers, t->n < MOST ? t->n : MOST, &grpc);
    return nghttp2_submit_trailer(h2, st->id, nva, count);
}

void h2_data(struct http_stream *st)
{
    if (!st->deferred) return;
    st->deferred = false;
    if (nghttp2_session_resume_data(st->conn->h2, st->id) == NGHTTP2_ERR_NOMEM) conn_kill(st->conn, ERR_NOMEM);
}

void h2_reset(struct http_stream *st, uint32_t code)
{
    if (nghttp2_submit_rst_stream(st->conn->h2, 0, st->id, code) != 0) conn_kill(st->conn, ERR_NOMEM);
}

/* ---- the connection ------------------------------------------------------------------------------- */

void h2_shutdown(struct http_conn *c)
{
    int32_t last = nghttp2_session_get_last_proc_stream_id(c->h2);
    if (nghttp2_submit_goaway(c->h2, 0, last, NGHTTP2_NO_ERROR, NULL, 0) != 0) conn_kill(c, ERR_NOMEM);
}

void h2_ping(struct http_conn *c)
{
    if (nghttp2_submit_ping(c->h2, 0, NULL) != 0) conn_kill(c, ERR_NOMEM);
    conn_dirty(c);
}

int h2_open(struct http_conn *c)
{
    struct http_server *s = c->server;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->limits.streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, LIMIT_HTTP2_WINDOW_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)s->limits.header_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    c->reset_tokens = (double)s->limits.resets_per_second * RESET_BURST;
    c->reset_ms = c->control_ms = uv_now(s->loop);
    if (nghttp2_session_server_new3(&c->h2, s->callbacks, c, s->option, &s->mem) != 0) return ERR_NOMEM;
    if (nghttp2_submit_settings(c->h2, 0, settings, sizeof(settings) / sizeof(settings[0])) != 0 ||
        nghttp2_session_set_local_window_size(c->h2, 0, 0, CONN_WINDOWS * LIMIT_HTTP2_WINDOW_BYTES) != 0)
        return ERR_NOMEM;
    if (c->closing) h2_shutdown(c);
    return 0;
}

int h2_server_init(struct http_server *s)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb) != 0) return ERR_NOMEM;
    s->callbacks = cb;
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    if (nghttp2_option_new(&s->option) != 0) return ERR_NOMEM;
    nghttp2_option_set_no_auto_window_update(s->option, 1);
    nghttp2_option_set_no_http_messaging(s->option, 1); /* h2_head.h */
    nghttp2_option_set_no_closed_streams(s->option, 1);
    nghttp2_option_set_max_outbound_ack(s->option, s->limits.control_frames);
    if (nghttp2_option_set_stream_reset_rate_limit) /* ours comes first */
        nghttp2_option_set_stream_reset_rate_limit(s->option, 2 * s->limits.resets_per_second * RESET_BURST,
                                                   2 * s->limits.resets_per_second);
    return 0;
}
