/* What h2client.c (endpoints, requests, time), h2conn.c (one connection) and h2tls.c share. */
#ifndef PINTLE_CLIENTS_LIB_H2_INT_H
#define PINTLE_CLIENTS_LIB_H2_INT_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include "base/list.h"
#include "base/slice.h"
#include "clients/lib/h2client.h"

#define H2_READ_BYTES (64 * 1024)
#define H2_WRITE_BATCH (256 * 1024)
#define H2_REFUSED_PAUSE_MS 50

struct h2_endpoint {
    char *url, *host, *authority;
    int port;
    bool tls;
};

enum h2_conn_state { H2_RESOLVING, H2_CONNECTING, H2_HANDSHAKE, H2_OPEN, H2_CLOSING };

struct h2_conn {
    struct list link; /* client->conns */
    struct h2_client *client;
    int endpoint;
    enum h2_conn_state state;
    bool draining; /* takes no new streams; ends with its last one */
    bool handles_open, resolving, writing, in_recv, dead;
    bool heard; /* a valid frame came */
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    uv_write_t write;
    SSL *ssl;
    BIO *in, *out;
    nghttp2_session *session;
    struct list streams;
    size_t n_streams, n_full; /* n_full: streams with was_full */
    struct buf fields;        /* the header block being received: texts, */
    struct h2_header *got;    /* and fields, whose pointers are set when it is whole */
    size_t n_got, size_got;
    struct buf queue;                               /* frames to be written */
    struct buf in_flight;                           /* being written by libuv */
    uint64_t opened_ms, last_read_ms, ping_sent_ms; /* ping_sent_ms: 0 = none under way */
    int fail_code;
    char fail_text[200];
};

struct h2_stream {
    struct list link; /* client->waiting or conn->streams */
    struct h2_client *client;
    struct h2_conn *conn; /* NULL: waiting */
    int32_t id;
    const struct h2_callbacks *cb;
    void *user;
    struct slice method, path; /* behind the struct, as the headers' texts */
    struct h2_header *headers; /* behind the struct */
    size_t n_headers;
    struct buf body; /* body bytes not yet given up; framed up to body_sent */
    size_t body_sent;
    bool whole_body; /* given whole: may be repeated, so its bytes are kept */
    bool body_end, deferred, was_full;
    uint64_t deadline_ms; /* 0 = none */
    int status;
    bool head_seen, in_callback, canceled;
    int code; /* why it will end, if that is known before the stream closes */
    char error[256];
};

struct h2_client {
    uv_loop_t *loop;
    struct h2_endpoint *endpoints;
    size_t n_endpoints, next;
    SSL_CTX *tls;
    char *server_name, *user_agent;
    bool verify, fail_fast;
    unsigned connect_timeout_ms, keepalive_ms, keepalive_timeout_ms, backoff_min_ms, backoff_max_ms,
        window;
    struct list conns;
    struct h2_conn *current; /* takes new streams; may still be connecting */
    struct list waiting;
    size_t n_streams;
    unsigned failed_in_row;
    uint64_t retry_at_ms;   /* no connection before that; 0 = at once */
    uint64_t hold_until_ms; /* no request before that: the server refused one */
    char last_error[200];
    uv_timer_t timer;
    uint64_t timer_at_ms; /* 0 = not armed */
    uv_prepare_t prepare;
    int open_handles;
    bool closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
    uint64_t connects, failures, streams_total, bytes_in, bytes_out;
    uint8_t read_buf[H2_READ_BYTES];
};

uint64_t h2_now(const struct h2_client *c);

/* h2conn.c */
/* Starts to connect; failure comes by h2_client_conn_lost. NULL when out of memory. */
struct h2_conn *h2_conn_new(struct h2_client *c, int endpoint);
/* Gives the stream to nghttp2; ERR_ when the connection cannot take it. */
int h2_conn_submit(struct h2_conn *conn, struct h2_stream *s);
void h2_conn_flush(struct h2_conn *conn);
void h2_conn_fail(struct h2_conn *conn, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void h2_conn_drain(struct h2_conn *conn);
/* Time-outs and keep-alive; returns when to look again (0 = never). */
uint64_t h2_conn_tick(struct h2_conn *conn, uint64_t now);
void h2_conn_free(struct h2_conn *conn);
void h2_stream_detach(struct h2_conn *conn, struct h2_stream *s);

/* h2client.c: called by the connection */
void h2_client_conn_lost(struct h2_conn *conn);
void h2_conn_close_handles(struct h2_conn *conn);
void h2_client_arm(struct h2_client *c, uint64_t at_ms);
void h2_stream_finish(struct h2_stream *s, int code);
/* Back to the waiting ones, as if it had never been sent. */
void h2_stream_requeue(struct h2_stream *s);
void h2_stream_free(struct h2_stream *s);

/* h2tls.c */
int h2_tls_context(const struct h2_tls_options *o, SSL_CTX **ret, struct err *e);
SSL *h2_tls_session(struct h2_client *c, const struct h2_endpoint *ep);

#endif
