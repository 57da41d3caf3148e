/* gRPC calls, server side, over the exchanges of api/http: routing, request checks, message framing, deadlines, trailers.
 *
 * A service is data: names and methods. A method's callbacks see whole messages; the framing, the limits and the status
 * trailers are done here. One thread: that of the exchange's loop.
 *
 * Life of a call: [open] -> message, once for a method without client streaming (as soon as it is whole), else any number
 * of times -> half_closed -> the handler sends 0..n messages and finishes, from inside any of these or
 * from a later turn -> closed, always the last. The client may cancel at any time: `closed` comes with its error then.
 * A handler that waits for someone else (the core) holds a reference: the call's memory, its state included, lives until the
 * last grpc_unref, and sending on a closed call does nothing (what was given is released).
 *
 * Sources: gRPC over HTTP2 (grpc/doc/PROTOCOL-HTTP2.md), grpc-go for texts and codes. */
#ifndef PINTLE_API_ETCD_GRPC_H
#define PINTLE_API_ETCD_GRPC_H

#include "api/http/http.h"
#include "base/err.h"
#include "base/slice.h"

struct grpc_call;
struct grpc_server;

enum grpc_code {
    GRPC_OK,
    GRPC_CANCELLED,
    GRPC_UNKNOWN,
    GRPC_INVALID_ARGUMENT,
    GRPC_DEADLINE_EXCEEDED,
    GRPC_NOT_FOUND,
    GRPC_ALREADY_EXISTS,
    GRPC_PERMISSION_DENIED,
    GRPC_RESOURCE_EXHAUSTED,
    GRPC_FAILED_PRECONDITION,
    GRPC_ABORTED,
    GRPC_OUT_OF_RANGE,
    GRPC_UNIMPLEMENTED,
    GRPC_INTERNAL,
    GRPC_UNAVAILABLE,
    GRPC_DATA_LOSS,
    GRPC_UNAUTHENTICATED,
};

/* ---- services as data ------------------------------------------------------------------------- */

struct grpc_method {
    const char *name;      /* "Put" */
    bool client_streaming; /* else exactly one request message, which is checked */
    size_t state_size;     /* zeroed bytes that come with each call: grpc_state() */

    void (*open)(struct grpc_call *c); /* the head has come; NULL if nothing is to do */
    /* A whole message, borrowed for the call. */
    void (*message)(struct grpc_call *c, struct slice message);
    void (*half_closed)(struct grpc_call *c); /* client_streaming only: no more messages; may be NULL */
    void (*writable)(struct grpc_call *c);    /* grpc_writable() is true again; may be NULL */
    /* The last callback. 0: finished by us and written; else ERR_CANCELED (reset by the client), ERR_TIMEOUT (the client's
     * deadline has passed, or it stalled), ERR_CLOSED (connection lost). Called once for each call that was opened; may be NULL. */
    void (*closed)(struct grpc_call *c, int error);
};

struct grpc_service {
    const char *name; /* "etcdserverpb.KV" */
    const struct grpc_method *methods;
    size_t n_methods;
};

/* `services` are borrowed for the server's life. `max_message_bytes`: 0 = LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES. */
int grpc_server_new(const struct grpc_service *services, size_t n_services, size_t max_message_bytes, void *ctx,
                    struct grpc_server **ret) MUST_CHECK;
/* After the last of its calls was closed (the HTTP server is). */
void grpc_server_free(struct grpc_server *s);
/* Takes the exchange over if it is gRPC by its content-type, and answers it even when it is malformed or unknown; false: it is plain
 * HTTP, and untouched. To be called from the http_handler. */
bool grpc_serve(struct grpc_server *s, struct http_stream *st);

/* ---- a call ----------------------------------------------------------------------------------- */

void *grpc_state(const struct grpc_call *c);      /* the method's state_size bytes */
struct grpc_call *grpc_call_of(const void *state); /* and back */
void *grpc_ctx(const struct grpc_call *c);        /* the server's */
const struct grpc_method *grpc_call_method(const struct grpc_call *c);
struct grpc_call *grpc_ref(struct grpc_call *c);
void grpc_unref(struct grpc_call *c);
/* True from the moment on when sending became pointless: finished, cancelled, or lost. */
bool grpc_done(const struct grpc_call *c);

/* The first value of that (lower-case) header; data NULL if absent or once the call is closed. */
struct slice grpc_metadata(const struct grpc_call *c, const char *name);
/* The request's head: certificates, peer address. NULL once the call is closed. */
const struct http_request *grpc_http_request(const struct grpc_call *c);
/* From grpc-timeout, on clock_mono_ms()'s scale; 0 = none. When it passes the call is finished with DEADLINE_EXCEEDED by itself. */
uint64_t grpc_deadline_ms(const struct grpc_call *c);

/* A part of a message: by reference when `release` is set (called once, when written or dropped), else copied. */
struct grpc_piece {
    struct slice data;
    void (*release)(void *owner);
    void *owner;
};

/* One message made of pieces in that order; an empty message is n = 0. More than UINT32_MAX bytes is a bug. */
void grpc_send(struct grpc_call *c, const struct grpc_piece *pieces, size_t n);
void grpc_send_copy(struct grpc_call *c, struct slice message);
/* Takes the bytes over without a copy; the buf is empty afterwards. If it had failed (out of memory, over its cap) the call
 * is finished with INTERNAL or RESOURCE_EXHAUSTED instead. */
void grpc_send_buf(struct grpc_call *c, struct buf *message);
/* Takes a reference of its own. */
void grpc_send_blob(struct grpc_call *c, struct blob *message);
/* One message piece by piece, over several turns: begin says its whole length, the parts must add up to it before anything else is
 * sent. What cannot be completed must be aborted. */
void grpc_send_begin(struct grpc_call *c, size_t len);
void grpc_send_part(struct grpc_call *c, const struct grpc_piece *piece);

/* The status. `message` may be NULL; it is percent-encoded here. Without a message sent before, trailers only. Later calls do nothing. */
void grpc_finish(struct grpc_call *c, enum grpc_code code, const char *message);
void grpc_finishf(struct grpc_call *c, enum grpc_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A whole unary answer: one message and OK. */
void grpc_reply(struct grpc_call *c, const struct grpc_piece *pieces, size_t n);
void grpc_reply_buf(struct grpc_call *c, struct buf *message);
/* Gives up without a status: RST_STREAM. */
void grpc_abort(struct grpc_call *c);

bool grpc_writable(const struct grpc_call *c); /* less than LIMIT_HTTP_OUT_BYTES queued */
void grpc_set_write_timeout(struct grpc_call *c, unsigned ms); /* as http_set_write_timeout */
/* No messages are delivered, and the client's window closes, until resumed. */
void grpc_pause(struct grpc_call *c);
void grpc_resume(struct grpc_call *c);

#endif
