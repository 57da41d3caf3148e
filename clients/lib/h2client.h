/* An asynchronous HTTP/2 client (RFC 9113) on libuv, nghttp2 and OpenSSL: cleartext by prior
 * knowledge or TLS with ALPN h2. It carries the Kubernetes API and gRPC alike: streamed request
 * bodies, streamed answers, trailers.
 *
 * A client owns a list of endpoints (the members of one control plane) and one connection at a time
 * to one of them; a program that wants several connections makes several clients. Any number of
 * streams share the connection. It is opened by the first request. When it cannot be opened or is
 * lost, the next endpoint is tried at once, and after one whole round in vain with exponential
 * back-off; requests that were not sent yet wait meanwhile, up to their own time-outs. Streams that
 * were under way on a lost connection end with ERR_UNAVAILABLE: only the caller knows whether to
 * repeat them. A stream that the server says it never looked at (GOAWAY, REFUSED_STREAM) is
 * repeated here, if its body was given whole. PING keeps watch over a silent connection while it
 * has streams.
 *
 * Threads: everything happens on the loop given; one thread. Nothing calls back from inside a
 * function of this header. Frames go out in the loop's prepare phase: make requests from any other
 * callback (timers, idle, I/O), not from a uv_prepare_t of your own.
 *
 *     struct h2_client_options o = {.endpoints = (const char *[]){"http://127.0.0.1:2379"},
 * .n_endpoints = 1}; h2_client_new(loop, &o, &client, &err); struct h2_request r = {.method =
 * "GET", .path = slice_str("/version"), .timeout_ms = 5000}; h2_request(client, &r, &callbacks,
 * user, &stream);
 *     ...
 *     h2_client_close(client, NULL, NULL);     and run the loop until it has closed
 */
#ifndef PINTLE_CLIENTS_LIB_H2CLIENT_H
#define PINTLE_CLIENTS_LIB_H2CLIENT_H

#include <uv.h>

#include "base/err.h"
#include "base/slice.h"

struct h2_client;
struct h2_stream;

struct h2_header {
    struct slice name; /* lower case */
    struct slice value;
};

/* Each thing as a PEM file or as PEM text; text wins. All are read by h2_client_new and not needed
 * after it. */
struct h2_tls_options {
    const char *ca_file;
    struct slice ca_pem; /* neither: the system's CAs */
    const char *cert_file, *key_file;
    struct slice cert_pem, key_pem;
    const char *server_name; /* to verify instead of the endpoint's host */
    bool insecure;           /* the server's certificate is not verified */
};

struct h2_client_options {
    const char *const *endpoints; /* "http://host:port", "https://[::1]:6443"; copied */
    size_t n_endpoints;
    size_t first_endpoint;            /* where to start */
    const struct h2_tls_options *tls; /* for https endpoints; may be NULL */
    const char *user_agent;           /* NULL = "pintle" */
    bool fail_fast; /* requests do not wait for a connection longer than one round over all
                       endpoints */
    /* 0 = the default */
    unsigned connect_timeout_ms; /* 3,000: TCP and TLS, each endpoint */
    unsigned
        keepalive_ms; /* 3,000: silence after which a PING is sent (only while there are streams) */
    unsigned keepalive_timeout_ms; /* 3,000: no answer to it ends the connection */
    unsigned backoff_min_ms;       /* 50 */
    unsigned backoff_max_ms;       /* 2,000 */
    unsigned
        window_bytes; /* 8 MiB: receive window of a stream; the connection's is four times that */
};

/* ERR_INVALID (an endpoint or PEM that cannot be used; the sentence in `e` says which), ERR_IO,
 * ERR_NOMEM. */
int h2_client_new(uv_loop_t *loop, const struct h2_client_options *o, struct h2_client **ret,
                  struct err *e) MUST_CHECK;
/* Drops all streams without a callback, closes the connection, frees the client, then calls
 * `closed`, which may be NULL. */
void h2_client_close(struct h2_client *c, void (*closed)(void *ctx), void *ctx);

/* All optional. Between h2_request and `done` the stream is valid; `done` is the last call, and the
 * stream is gone after it. */
struct h2_callbacks {
    /* The answer's head (not 1xx). Everything is borrowed for the call. */
    void (*head)(struct h2_stream *s, int status, const struct h2_header *headers, size_t n);
    /* A piece of the body, borrowed for the call. */
    void (*data)(struct h2_stream *s, struct slice piece);
    /* Trailers, before `done`. An answer of one header block only (gRPC "trailers-only") comes by
     * `head`. */
    void (*trailers)(struct h2_stream *s, const struct h2_header *headers, size_t n);
    /* h2_write's queue has drained to below half of LIMIT_HTTP_OUT_BYTES after h2_writable() was
     * false. */
    void (*writable)(struct h2_stream *s);
    /* 0 = the answer is whole. ERR_TIMEOUT, ERR_UNAVAILABLE (no connection, or lost), ERR_CANCELED
     * (reset by the server), ERR_LIMIT. h2_stream_error() has a sentence. */
    void (*done)(struct h2_stream *s, int code);
};

struct h2_request {
    const char *method;
    struct slice path; /* with the query */
    const struct h2_header
        *headers; /* beyond :method, :path, :scheme, :authority, user-agent; copied */
    size_t n_headers;
    struct slice body;   /* copied */
    bool more_body;      /* more comes by h2_write, up to h2_end */
    unsigned timeout_ms; /* until `done`; 0 = none */
};

/* Queues a request. ERR_LIMIT (LIMIT_CLIENT_STREAMS), ERR_NOMEM, ERR_CLOSED. `cb` must live as long
 * as the stream. */
int h2_request(struct h2_client *c, const struct h2_request *r, const struct h2_callbacks *cb,
               void *user, struct h2_stream **ret) MUST_CHECK;

void *h2_user(const struct h2_stream *s);
struct h2_client *h2_stream_client(const struct h2_stream *s);
/* Which endpoint carries it; -1 while it waits. */
int h2_stream_endpoint(const struct h2_stream *s);
/* Why a stream ended; valid inside `done`. Never NULL. */
const char *h2_stream_error(const struct h2_stream *s);

/* Appends to the request body (copied). ERR_LIMIT beyond 4 x LIMIT_HTTP_OUT_BYTES, ERR_NOMEM,
 * ERR_CLOSED after h2_end. */
int h2_write(struct h2_stream *s, struct slice data) MUST_CHECK;
bool h2_writable(const struct h2_stream *s); /* less than LIMIT_HTTP_OUT_BYTES queued */
void h2_end(struct h2_stream *s);
/* Gives the stream up: RST_STREAM(CANCEL). No callback follows; the pointer is invalid. Allowed
 * inside its own callbacks but `done`. */
void h2_cancel(struct h2_stream *s);
/* A new deadline from now on, instead of the one given; 0 = none. */
void h2_set_timeout(struct h2_stream *s, unsigned timeout_ms);

/* Leaves the current endpoint: open streams stay until they end, new ones go to the next endpoint.
 * For servers that answer, but not well (no leader, 503). */
void h2_client_next_endpoint(struct h2_client *c);
/* Cuts the connection: streams under way end with ERR_UNAVAILABLE, new ones go to the next
 * endpoint. */
void h2_client_disconnect(struct h2_client *c);

struct h2_client_stats {
    uint64_t connects, failures, streams_total, bytes_in, bytes_out;
    size_t streams; /* under way or waiting */
    int endpoint;   /* of the current connection; -1 if there is none */
    bool connected;
};
void h2_client_stats(const struct h2_client *c, struct h2_client_stats *ret);
const char *h2_client_endpoint_url(const struct h2_client *c, int endpoint);

/* The value of the first header of that name; data NULL if absent. */
struct slice h2_header_get(const struct h2_header *headers, size_t n, const char *name);

#endif
