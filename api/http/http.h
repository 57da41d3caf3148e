/* HTTP/2 (RFC 9113, nghttp2) and HTTP/1.1 (RFC 9112, http-parser) on the same ports, cleartext or TLS
 * (OpenSSL, ALPN h2 and http/1.1; cleartext HTTP/2 by prior knowledge, told apart by the first bytes).
 *
 * One server per worker loop; everything about a connection happens on that loop. Listening: one `http_listener` per port
 * and process accepts on worker 0's loop and hands connections to the servers in turn.
 *
 * A handler sees exchanges (`struct http_stream`): request head, body pieces, end; and answers with head, pieces, trailers. It
 * does not see which HTTP it is, but through http_version(). Output is queued by reference, without a copy, and written with as few
 * system calls as the loop's turn allows. Every limit is in base/limits.h; beyond it the stream is refused with the status that
 * fits (413, 431, RESOURCE_EXHAUSTED by the gRPC layer) or the connection is closed with GOAWAY and one logged reason. */
#ifndef PINTLE_API_HTTP_HTTP_H
#define PINTLE_API_HTTP_HTTP_H

#include <uv.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/slice.h"

struct http_server;
struct http_listener;
struct http_stream;
struct http_tls;

/* ---- what a handler is given ------------------------------------------------------------------ */

struct http_header {
    struct slice name; /* lower case */
    struct slice value;
};

/* The head of a request; valid as long as the stream. `path` is as sent, without the query; `query` has no '?'. */
struct http_request {
    struct slice method, path, query, authority;
    const struct http_header *headers;
    size_t n_headers;
    const char *peer_address; /* "127.0.0.1:4711" */
    /* Of a client certificate that was verified against the port's CA; empty if none. */
    struct slice cert_common_name;
    const struct slice *cert_organizations;
    size_t n_cert_organizations;
    bool tls;
};

/* Set by the `request` handler for its stream; any may be NULL. None is called after `closed`. */
struct http_callbacks {
    /* A piece of the body, borrowed for the call. Flow control follows consumption. */
    void (*body)(struct http_stream *st, struct slice piece);
    void (*end)(struct http_stream *st); /* the request is whole */
    /* The queue went below half of LIMIT_HTTP_OUT_BYTES after http_writable() had been false. */
    void (*writable)(struct http_stream *st);
    /* The last call: the exchange is over (error 0), or was reset by the peer or by us (ERR_CANCELED), timed out (ERR_TIMEOUT), or
     * the connection was lost (ERR_CLOSED). The stream is gone after it; so is what it pointed to. */
    void (*closed)(struct http_stream *st, int error);
};

/* The head of a request arrived (before its body). Must set callbacks, or answer at once. */
typedef void http_handler(void *ctx, struct http_stream *st);

const struct http_request *http_request(const struct http_stream *st);
/* The value of the first header of that (lower-case) name; data NULL if absent. */
struct slice http_request_header(const struct http_stream *st, const char *name);
int http_version(const struct http_stream *st); /* 1 or 2 */
void http_set_callbacks(struct http_stream *st, const struct http_callbacks *cb, void *user);
void *http_user(const struct http_stream *st);
struct http_server *http_stream_server(const struct http_stream *st);

/* ---- answering -------------------------------------------------------------------------------- */

/* The head. Names lower case. Everything is copied. HTTP/1.1 gets Content-Length if `end`, or if such a header is given, else
 * chunked encoding. `end`: nothing follows. */
void http_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n, bool end);
/* Body pieces: copied; or by reference, `release(owner)` is called once, when written or dropped. */
void http_write(struct http_stream *st, struct slice data);
void http_write_ref(struct http_stream *st, struct slice data, void (*release)(void *owner), void *owner);
void http_write_blob(struct http_stream *st, struct blob *b); /* takes a reference of its own */
void http_end(struct http_stream *st);
/* Ends with trailers (HTTP/1.1: chunked trailers). */
void http_end_trailers(struct http_stream *st, const struct http_header *trailers, size_t n);
/* A whole answer in one call. */
void http_reply(struct http_stream *st, int status, const char *content_type, struct slice body);
/* Gives the exchange up: RST_STREAM with that HTTP/2 error code, or closes an HTTP/1.1 connection. `closed` is called later. */
void http_reset(struct http_stream *st, uint32_t http2_error);

bool http_writable(const struct http_stream *st); /* less than LIMIT_HTTP_OUT_BYTES queued */
/* The request body stops being read (the peer's window closes) until resumed. */
void http_pause(struct http_stream *st);
void http_resume(struct http_stream *st);
bool http_paused(const struct http_stream *st);
/* Gives the last `n` bytes of the piece back, to be delivered again when resumed: only from inside `body`, after http_pause. */
void http_unread(struct http_stream *st, size_t n);
/* The request may stand still for so long; LIMIT_HTTP_BODY_STALL_MS at first, 0 = for ever (a stream that the client may write to at
 * any time). Then it is reset and `closed` says ERR_TIMEOUT. */
void http_set_body_timeout(struct http_stream *st, unsigned ms);
/* For an answer that keeps something until it is through: who for so long takes nothing of it, though the connection lives (HTTP/2), is not
 * waited for. The stream is reset and `closed` says ERR_TIMEOUT. 0, as at first = for ever. */
void http_set_write_timeout(struct http_stream *st, unsigned ms);
/* Calls `passed` once, at that time of clock_mono_ms() (some 100 ms later at the latest); 0 = no more. */
void http_set_deadline(struct http_stream *st, uint64_t mono_ms, void (*passed)(struct http_stream *st));

/* ---- servers and listeners -------------------------------------------------------------------- */

struct http_tls_options {
    const char *cert_file, *key_file;  /* PEM */
    const char *client_ca_file;        /* NULL: no client certificates are asked for */
    bool client_cert_required;         /* else a client may come without one */
};

/* One TLS context per port, shared by all workers. Re-reads the files when they change (rotation), checked at accept at most once a second. */
int http_tls_new(const struct http_tls_options *o, struct http_tls **ret, struct err *e) MUST_CHECK;
void http_tls_free(struct http_tls *t);

/* One per worker. `uv_loop_t` is borrowed. */
int http_server_new(uv_loop_t *loop, struct http_server **ret) MUST_CHECK;
/* GOAWAY to all, waits for open exchanges up to `grace_ms`, then closes; `closed` on the loop. */
void http_server_close(struct http_server *s, unsigned grace_ms, void (*closed)(void *ctx), void *ctx);
void http_server_free(struct http_server *s); /* after closed */

/* What a port serves: each server gets the handler's own context (contexts[i] belongs to servers[i]). */
struct http_listen_options {
    const char *host;
    int port;               /* 0 = any free one */
    struct http_tls *tls;   /* NULL = cleartext; borrowed */
    struct http_server **servers;
    void **contexts;
    size_t n_servers;
    http_handler *handler;
};

/* ERR_EXISTS "address already in use: 127.0.0.1:2379" and the like in `e`. Binds at once; accepts on servers[0]'s loop, on whose thread
 * this must be called (or before its loop runs). */
int http_listen(const struct http_listen_options *o, struct http_listener **ret, struct err *e) MUST_CHECK;
int http_listener_port(const struct http_listener *l);
void http_listener_close(struct http_listener *l);

struct http_stats {
    uint64_t connections, connections_total, streams, streams_total, bytes_in, bytes_out, refused, resets;
};
void http_server_stats(const struct http_server *s, struct http_stats *ret);

#endif
