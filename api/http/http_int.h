/* The insides of api/http, shared by its files and its tests.
 *
 * A connection goes through: handshake (TLS only) -> detect (first bytes) -> h2 or h1 -> lingering -> dead. Everything a peer
 * or a handler does only marks the connection dirty; once per loop turn, in server.c's check and prepare hooks, each
 * dirty connection is flushed: there alone nghttp2 is asked for frames, the socket is written, `writable` is called and
 * a dying connection is torn down. So nothing is ever freed under a callback's feet. */
#ifndef PINTLE_API_HTTP_HTTP_INT_H
#define PINTLE_API_HTTP_HTTP_INT_H

#include <http_parser.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <stdatomic.h>

#include "api/http/h2_head.h"
#include "api/http/http.h"
#include "api/http/out.h"
#include "api/http/wheel.h"
#include "base/list.h"

/* base/limits.h, in a struct so that tests can make them small. */
struct http_limits {
    unsigned handshake_ms, idle_ms, body_stall_ms, write_stall_ms, linger_ms;
    unsigned resets_per_second, control_frames, streams;
    size_t header_bytes, headers, out_bytes, conn_out_bytes, server_bytes, connections;
};
extern const struct http_limits http_default_limits;

enum http_proto { PROTO_TLS_HANDSHAKE, PROTO_DETECT, PROTO_H2, PROTO_H1, PROTO_LINGER };

enum { STREAM_TEXT = 320, STREAM_HEADERS = 10, HTTP_INPUT = 64 * 1024, HTTP_FREE_STREAMS = 256 };

struct text_chunk {
    struct text_chunk *next;
    size_t used, size;
    char bytes[];
};

struct http_trailers {
    size_t n;
    struct http_header headers[]; /* the bytes stand behind */
};

struct http_stream {
    struct list node;      /* conn->streams, or the server's free ones */
    struct list receiving; /* conn->receiving: a request whose end has not come */
    struct list waiting;   /* conn->waiting: told not writable */
    struct list resuming;  /* conn->resuming: held body to be delivered */
    struct http_conn *conn;
    int32_t id; /* HTTP/2 */
    bool dispatched : 1;   /* the handler was called */
    bool request_done : 1; /* the end was delivered */
    bool peer_done : 1;    /* the end has arrived */
    bool responded : 1;    /* a head was given */
    bool ended : 1;        /* the handler has said all */
    bool sent : 1;         /* and it has gone out */
    bool deferred : 1;     /* HTTP/2: nghttp2 waits for data */
    bool paused : 1, is_head : 1, no_body : 1;
    bool reset : 1;        /* given up by us */
    bool whole : 1;        /* the answer comes in one call */
    bool over_limit : 1;   /* head too large: 431 */
    bool malformed : 1;    /* HTTP/2: reset for that */
    struct h2_head head;   /* HTTP/2: what has come of the request */
    bool timed_out : 1, chunked : 1;
    bool expects_continue : 1;
    bool finished : 1;     /* `closed` was called */
    int error;             /* for `closed`; 0 = by how it went */
    unsigned stall_ms;     /* body stall limit; 0 = none */
    uint64_t progress_ms;  /* last body bytes */
    unsigned take_ms;      /* HTTP/2: how long the peer may take nothing of what waits; 0 = for ever */
    uint64_t took_ms;      /* when it last did, or when that began to wait */
    uint64_t discarded;    /* body bytes after the answer was whole */
    struct http_callbacks cb;
    void *user;
    struct out_queue q;
    struct buf held; /* body that came while paused */
    struct slice piece; /* the one that `body` was called with */
    size_t unread;      /* of its end, given back */
    struct http_trailers *trailers;
    struct wheel_timer deadline;
    void (*deadline_passed)(struct http_stream *st);

    struct http_request req;
    size_t head_bytes, head_fields;
    struct http_header *headers; /* req.headers: inline or allocated */
    size_t headers_size;
    struct text_chunk *chunks;
    size_t text_used;
    struct http_header inline_headers[STREAM_HEADERS];
    char text[STREAM_TEXT];
};

/* State of an HTTP/1.1 connection, made when one is detected. */
struct h1 {
    http_parser parser;
    struct http_stream *st; /* the exchange under way */
    struct buf rest;        /* bytes behind what was parsed: pipelined, or held by a pause */
    struct out_queue head; /* heads and chunk lines, before what is next of the body */
    size_t chunk_left;
    const uint8_t *framing; /* from here on, up to what the parser has reached, bytes are no body */
    uint8_t last;           /* the framing byte before; 0 behind a body */
    bool in_value, first_line_done;
    char version[8]; /* the last bytes of the request line */
    size_t first_line_len;
    struct slice name, value; /* the header that is being read; in the stream's text */
    bool keep_alive, head_done, message_done, host_seen;
    bool close_after; /* this exchange is the last one */
    bool stopped;     /* nothing more is parsed */
    int refuse; /* status to refuse the head with */
};

struct http_conn {
    struct list node;  /* server->conns */
    struct list dirty; /* server->dirty */
    struct http_server *server;
    uv_poll_t poll;
    int fd;
    int events; /* that poll waits for */
    enum http_proto proto;
    bool dead : 1;       /* to be torn down at the next flush */
    bool torn : 1;       /* streams were closed; only the handle is left */
    bool closing : 1;    /* no new requests; closes when the last stream is gone */
    bool eof : 1;        /* the peer has closed its side */
    bool close_when_flushed : 1;
    bool handle_open : 1;
    bool pinged : 1;
    bool want_read_off : 1; /* HTTP/1.1 back-pressure */
    bool terminated : 1;    /* GOAWAY with an error is on its way */
    bool more : 1;          /* output left over from a turn that had its share */
    int error;              /* what the streams are told at the teardown */
    struct list streams, receiving, waiting, resuming;
    size_t n_streams;
    size_t queued;  /* bytes in all streams' queues */
    size_t holding; /* ... and of bodies that wait for a resume: for HTTP/2 at most its window */
    struct out_rest *rest;
    struct wheel_timer timer;
    uint64_t opened_ms, read_ms, write_ms, idle_since_ms, stalled_since_ms;
    uint64_t took_ms; /* something of an answer */

    nghttp2_session *h2;
    struct http_stream *recent; /* HTTP/2: the stream that was looked up last, or NULL */
    struct h1 *h1;
    struct tls_conn *tls;
    uint8_t preface[24];
    unsigned preface_len;
    /* HTTP/2 flood guards. */
    double reset_tokens;
    uint64_t reset_ms;
    unsigned control_frames;
    uint64_t control_ms;
    size_t turn_bytes;  /* written in this turn */
    size_t since_frame; /* bytes read since the last whole frame or piece of one */

    http_handler *handler;
    void *ctx;
    bool has_cert;
    struct slice cert_common_name;
    struct slice *cert_organizations;
    size_t n_cert_organizations;
    char peer[56];
};

struct stats_atomic {
    _Atomic uint64_t connections, connections_total, streams, streams_total, bytes_in, bytes_out, refused, resets;
};

/* A connection on its way from the accepting thread to its server's. */
struct adoption {
    struct adoption *next;
    int fd;
    http_handler *handler;
    void *ctx;
    SSL_CTX *tls; /* a reference, or NULL */
    char peer[56];
};

struct http_server {
    uv_loop_t *loop;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_async_t async;
    _Atomic(struct adoption *) inbox;
    struct wheel wheel;
    struct http_limits limits;
    struct list conns, dirty;
    size_t n_conns;
    size_t held; /* streams, their heads, bodies that wait, and what is queued on them */
    struct list free_streams;
    size_t n_free_streams;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_mem mem;
    struct stats_atomic stats;
    bool closing, closed;
    int open_handles;
    struct wheel_timer grace;
    void (*on_closed)(void *ctx);
    void *closed_ctx;
    uint64_t log_ms;
    unsigned log_suppressed;
    uint64_t date_s;
    char date[32];
    struct gather gather;
    uint8_t input[HTTP_INPUT];
    uint8_t plain[HTTP_INPUT];
    struct buf cipher;
};

extern _Atomic size_t http_open_connections; /* of the process */

static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
    /* One thread writes, any may read. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- server.c ----------------------------------------------------------------------------------- */

/* Hands a connection to a server, from any thread; takes over the fd and the TLS reference. */
static inline bool server_full(const struct http_server *s)
{
    return s->held > s->limits.server_bytes;
}

void http_server_adopt(struct http_server *s, struct adoption *a);
void server_conn_gone(struct http_server *s);
/* One line about a peer's misbehaviour; at most one a second and server. */
void server_log(struct http_conn *c, const char *reason);
struct slice server_date(struct http_server *s);

/* ---- conn.c --------------------------------------------------------------------------------------- */

/* Takes `a` and what it owns over. */
void conn_open(struct http_server *s, struct adoption *a);
static inline void conn_dirty(struct http_conn *c)
{
    if (list_empty(&c->dirty)) list_push_back(&c->server->dirty, &c->dirty);
}
/* The connection ends at the next flush; its streams are told `error`. */
void conn_kill(struct http_conn *c, int error);
void conn_flush(struct http_conn *c);
/* Graceful: no new requests, closed when the open ones are done. */
void conn_shutdown(struct http_conn *c);
/* Decrypted or cleartext input. */
void conn_input(struct http_conn *c, struct slice data);
/* Writes the server's gather; false when the connection cannot take more now (the rest is kept) or is dead. */
bool conn_write_gather(struct http_conn *c);
/* One write(2): how many bytes it took, 0 if none now; -1: the connection is being killed. */
ssize_t conn_send(struct http_conn *c, const void *data, size_t len);
/* The peer has said that it sends no more. */
void conn_eof(struct http_conn *c);
/* Makes the connection's timer fire no later than that. */
void conn_check_by(struct http_conn *c, uint64_t due_ms);
/* Sends what is queued, then closes without cutting off what the peer still sends. */
void conn_linger(struct http_conn *c);
void conn_poll(struct http_conn *c);

/* ---- stream.c ------------------------------------------------------------------------------------- */

/* NULL when out of memory. */
struct http_stream *stream_new(struct http_conn *c, int32_t id);
/* Calls `closed` if the handler knows the stream, and frees it. */
void stream_close(struct http_stream *st, int error);
/* Adds to a text of the stream, which is moved if it cannot grow where it is; false when out of memory. */
bool stream_text(struct http_stream *st, struct slice *text, const char *data, size_t len);
bool stream_add_header(struct http_stream *st, struct slice name, struct slice value);
void stream_set_target(struct http_stream *st, struct slice target);
/* Calls the handler, or answers 431. */
void stream_dispatch(struct http_stream *st);
void stream_body(struct http_stream *st, struct slice piece);
void stream_end(struct http_stream *st);
void stream_receiving(struct http_stream *st);
/* `n` bytes have left the stream's queue. */
void stream_took(struct http_stream *st, size_t n);
bool conn_run_waiting(struct http_conn *c);
void conn_run_resuming(struct http_conn *c);

/* ---- h2.c ----------------------------------------------------------------------------------------- */

int h2_server_init(struct http_server *s) MUST_CHECK;
int h2_open(struct http_conn *c) MUST_CHECK;
void h2_input(struct http_conn *c, struct slice data);
void h2_send(struct http_conn *c);
void h2_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n);
void h2_data(struct http_stream *st); /* there is more to send, or the end */
bool h2_has_window(const struct http_stream *st);
void h2_reset(struct http_stream *st, uint32_t code);
/* Ends the reading of a request whose answer is whole. */
void h2_enough(struct http_stream *st);
/* Body bytes are done with: the windows of the stream, as long as it is open, and of the connection may go on. */
void h2_consume(struct http_stream *st, size_t n);
void h2_shutdown(struct http_conn *c);
void h2_terminate(struct http_conn *c, uint32_t code, const char *reason);
void h2_ping(struct http_conn *c);

/* ---- h1.c ----------------------------------------------------------------------------------------- */

int h1_open(struct http_conn *c) MUST_CHECK;
void h1_free(struct http_conn *c);
void h1_input(struct http_conn *c, struct slice data);
/* Parses on with what was kept, if that may be. */
void h1_run_rest(struct http_conn *c);
void h1_eof(struct http_conn *c);
void h1_send(struct http_conn *c);
void h1_respond(struct http_stream *st, int status, const struct http_header *headers, size_t n, bool end);
void h1_resume(struct http_stream *st);
void h1_shutdown(struct http_conn *c);

/* ---- tls.c ---------------------------------------------------------------------------------------- */

/* The context to use now, with a reference of the caller's; re-read if the files changed. Not thread-safe: for the
 * accepting thread alone. */
SSL_CTX *http_tls_context(struct http_tls *t);
int tls_open(struct http_conn *c, SSL_CTX *ctx) MUST_CHECK;
void tls_free(struct http_conn *c);
/* Encrypted bytes from the socket. */
void tls_input(struct http_conn *c, struct slice data);
/* Encrypts the gather and writes. */
bool tls_write_gather(struct http_conn *c);
/* Sends what is left from before; false while some still is. */
bool tls_pending(const struct http_conn *c);
bool tls_flush(struct http_conn *c);
void tls_shutdown(struct http_conn *c);

#endif
