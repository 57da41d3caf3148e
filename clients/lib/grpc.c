#include "clients/lib/grpc.h"

#include <stdlib.h>

#include "base/limits.h"

#define GRPC_MESSAGE_MAX (512 * LIMIT_MiB) /* etcdctl: math.MaxInt32 */
#define GRPC_UNKNOWN 2
#define GRPC_DEADLINE_EXCEEDED 4
#define GRPC_RESOURCE_EXHAUSTED 8
#define GRPC_INTERNAL 13
#define GRPC_UNAVAILABLE 14

const char *grpc_status_name(int status)
{
    static const char *const names[] = {
        "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
        "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
        "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
        "DataLoss", "Unauthenticated"};
    return status >= 0 && status < (int)(sizeof(names) / sizeof(names[0])) ? names[status]
                                                                           : "Unknown";
}

static int frame(struct buf *out, struct slice message)
{
    uint8_t head[5] = {0, (uint8_t)(message.len >> 24), (uint8_t)(message.len >> 16),
                       (uint8_t)(message.len >> 8), (uint8_t)message.len};
    buf_append(out, head, sizeof(head));
    return buf_append_slice(out, message);
}

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void take_status(struct grpc_client_call *c, const struct h2_header *headers, size_t n)
{
    struct slice code = h2_header_get(headers, n, "grpc-status"),
                 text = h2_header_get(headers, n, "grpc-message");
    if (!code.data) return;
    c->has_status = true;
    c->status = 0;
    for (size_t i = 0; i < code.len && c->status < 1000; i++)
        c->status = c->status * 10 + (code.data[i] - '0');
    for (size_t i = 0; i < text.len; i++) {
        bool escaped = text.data[i] == '%' && i + 2 < text.len && hex(text.data[i + 1]) >= 0 &&
                       hex(text.data[i + 2]) >= 0;
        buf_append_byte(&c->text,
                        escaped ? (uint8_t)(hex(text.data[i + 1]) * 16 + hex(text.data[i + 2]))
                                : text.data[i]);
        if (escaped) i += 2;
    }
}

static void on_head(struct h2_stream *s, int status, const struct h2_header *headers, size_t n)
{
    struct grpc_client_call *c = h2_user(s);
    take_status(c, headers, n);
    if (status == 200 || c->has_status) return;
    c->has_status = true;
    c->status = status == 503 ? GRPC_UNAVAILABLE : GRPC_UNKNOWN;
    buf_printf(&c->text, "the server answered HTTP status %d: no gRPC endpoint", status);
}

static void on_trailers(struct h2_stream *s, const struct h2_header *headers, size_t n)
{
    take_status(h2_user(s), headers, n);
}

/* Whole messages at the front of `in`; how many bytes they took. The call may be over afterwards: canceled in there, or begun again. */
static size_t deliver(struct grpc_client_call *c, struct slice in)
{
    const struct h2_stream *stream = c->stream;
    size_t used = 0;
    while (in.len - used >= 5) {
        const uint8_t *p = in.data + used;
        size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
        if (in.len - used - 5 < len) break;
        used += 5 + len;
        if (c->message) c->message(c, slice_make(p + 5, len));
        if (c->stream != stream) break; /* `in` may be gone */
    }
    return used;
}

static void on_data(struct h2_stream *s, struct slice piece)
{
    struct grpc_client_call *c = h2_user(s);
    if (c->in.failed) return; /* told when the call is done */
    if (c->in.len == 0) {
        size_t used = deliver(c, piece);
        if (c->stream == s) buf_append_slice(&c->in, slice_sub(piece, used, piece.len));
        return;
    }
    if (buf_append_slice(&c->in, piece) != 0) return;
    size_t used = deliver(c, buf_slice(&c->in));
    if (c->stream == s) buf_consume(&c->in, used);
}

static int status_of(int code)
{
    switch (code) {
    case ERR_TIMEOUT: return GRPC_DEADLINE_EXCEEDED;
    case ERR_LIMIT: return GRPC_RESOURCE_EXHAUSTED;
    default: return GRPC_UNAVAILABLE;
    }
}

static void on_done(struct h2_stream *s, int code)
{
    struct grpc_client_call *c = h2_user(s);
    const char *text = h2_stream_error(s);
    int status = c->status;
    struct buf said = c->text;
    c->stream = NULL;
    if (c->in.failed) {
        status = GRPC_RESOURCE_EXHAUSTED;
        text = "a message is larger than the client takes, or than there is memory for";
    } else if (!c->has_status) {
        status = code ? status_of(code) : GRPC_INTERNAL;
        if (code == ERR_TIMEOUT) text = "context deadline exceeded";
        else if (!code) text = "the server ended the call without a status";
    } else {
        text = said.len ? buf_cstr(&said) : "";
    }
    buf_release(&c->in);
    c->text = (struct buf){0};
    c->done(c, status, text ? text : "");
    buf_release(&said);
}

static const struct h2_callbacks callbacks = {
    .head = on_head, .data = on_data, .trailers = on_trailers, .done = on_done};

int grpc_client_start(struct grpc_client_call *c, struct h2_client *client, const char *method,
                      struct slice message, bool open, unsigned timeout_ms)
{
    struct h2_header headers[] = {{SLICE_LIT("content-type"), SLICE_LIT("application/grpc")},
                                  {SLICE_LIT("te"), SLICE_LIT("trailers")}};
    struct buf body = {0};
    buf_init(&c->in, GRPC_MESSAGE_MAX);
    c->text = (struct buf){.cap = 8192};
    c->status = 0;
    c->has_status = false;
    if (frame(&body, message) != 0) {
        buf_release(&body);
        return ERR_NOMEM;
    }
    struct h2_request r = {.method = "POST",
                           .path = slice_str(method),
                           .headers = headers,
                           .n_headers = 2,
                           .body = buf_slice(&body),
                           .more_body = open,
                           .timeout_ms = timeout_ms};
    int rv = h2_request(client, &r, &callbacks, c, &c->stream);
    buf_release(&body);
    return rv;
}

int grpc_client_send(struct grpc_client_call *c, struct slice message)
{
    struct buf body = {0};
    if (!c->stream) return ERR_CLOSED;
    int rv = frame(&body, message);
    if (rv == 0) rv = h2_write(c->stream, buf_slice(&body));
    buf_release(&body);
    return rv;
}

void grpc_client_half_close(struct grpc_client_call *c)
{
    if (c->stream) h2_end(c->stream);
}

void grpc_client_cancel(struct grpc_client_call *c)
{
    if (c->stream) h2_cancel(c->stream);
    c->stream = NULL;
    buf_release(&c->in);
    buf_release(&c->text);
}
