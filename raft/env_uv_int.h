/* What the files of the real env share. env_uv.c: loop, tasks, ticks; env_uv_disk.c: files and the disk threads;
 * env_uv_net.c: connections to peers; env_uv_conn.c: one connection, plain or TLS. */
#ifndef PINTLE_RAFT_ENV_UV_INT_H
#define PINTLE_RAFT_ENV_UV_INT_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <uv.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "raft/env_uv.h"

struct env_uv;

/* ---- disk -------------------------------------------------------------------------------------- */

struct env_file {
    int fd;
    char *path; /* as in messages */
    bool cold;
};

struct disk_lane {
    struct env_uv *env;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list queue, done; /* under the lock */
    size_t active;           /* submitted and not yet completed; the loop's thread */
    bool stop, started;
};

int disk_open(struct env_uv *u, struct err *e);
void disk_stop(struct env_uv *u);
void disk_close(struct env_uv *u);
size_t disk_active(const struct env_uv *u);
void disk_io(struct env *e, struct env_io *io);
int disk_io_sync(struct env *e, struct env_io *io);
int disk_list(struct env *e, const char *dir, void (*each)(void *ctx, const char *name), void *ctx, struct err *err);
int disk_mkdir(struct env *e, const char *dir, struct err *err);
int disk_read_file(struct env *e, const char *path, size_t max, struct buf *out, struct err *err);
int disk_write_file(struct env *e, const char *path, struct slice data, struct err *err);
int disk_unlink_file(struct env *e, const char *path, struct err *err);

/* ---- one connection ------------------------------------------------------------------------------ */

struct conn;

struct conn_events {
    /* Connected, and shaken hands if TLS: bytes may be written. */
    void (*up)(struct conn *c);
    void (*read)(struct conn *c, struct slice bytes);
    /* The last call, in a later turn than conn_close. `reason` is a sentence. */
    void (*closed)(struct conn *c, const char *reason);
};

struct conn_write {
    uv_write_t req;
    struct conn *conn;
    struct list sends; /* of struct env_send */
    struct buf copy;   /* what TLS made of them, or small frames of the transport's own */
};

/* Embedded by its owner, which frees it after `closed`. */
struct conn {
    struct env_uv *env;
    uv_tcp_t tcp;
    uv_connect_t connect;
    SSL *ssl;
    BIO *from_peer, *to_peer;
    const struct conn_events *events;
    char reason[160];
    char address[64];
    size_t writing; /* bytes handed to libuv and not yet written */
    bool is_up, closing, eof;
};

int conn_init(struct conn *c, struct env_uv *u, const struct conn_events *events);
int conn_accept(struct conn *c, uv_stream_t *listener);
int conn_connect(struct conn *c, const struct sockaddr *addr, const char *host);
/* Writes copied bytes. */
void conn_write(struct conn *c, struct slice bytes);
/* Writes the frames of a list of sends, taking them all; each is completed later. */
void conn_write_sends(struct conn *c, struct list *sends);
void conn_close(struct conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- peers --------------------------------------------------------------------------------------- */

struct link; /* an outgoing connection to one peer, for one channel */

struct peer {
    uint64_t id;
    char *url, *host;
    int port;
    struct link *links[ENV_CHANNELS];
    unsigned up; /* connections, either way */
    bool removed;
};

struct env_uv {
    struct env env;
    uv_loop_t *loop;
    struct env_uv_options options; /* strings owned */
    uv_timer_t tick;
    uv_timer_t second;
    uv_idle_t idle;
    struct list tasks;
    struct env_handlers handlers;
    void *ctx;
    bool started, stopping;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    void (*closed)(void *ctx);
    void *closed_ctx;
    unsigned open_handles;

    int dir_fd, lock_fd;
    uv_async_t disk_done;
    struct disk_lane lanes[2];

    uv_tcp_t listener;
    bool listening, listener_open;
    SSL_CTX *server_tls, *client_tls;
    uint64_t instance; /* random: tells two processes under one member id apart */
    struct map peers;
    struct list links;   /* all outgoing, also those of forgotten peers while they close */
    struct list inbound; /* accepted connections */
    size_t n_inbound;
    struct list completed; /* sends to be completed in the next turn */
    struct env_task completer;
    uint64_t random_state[2];
};

static inline struct env_uv *env_uv_of(struct env *e)
{
    return container_of(e, struct env_uv, env);
}

void env_uv_defer(struct env *e, struct env_task *t);
/* A handle that env_uv_close has to wait for was closed. */
void env_uv_handle_closed(struct env_uv *u);
void env_uv_maybe_stopped(struct env_uv *u);

int net_open(struct env_uv *u, struct err *e);
int net_start(struct env_uv *u);
void net_stop(struct env_uv *u);
void net_close(struct env_uv *u);
bool net_active(const struct env_uv *u);
void net_second(struct env_uv *u);
int net_set_peer(struct env *e, uint64_t peer_id, const char *url);
void net_send(struct env *e, struct env_send *s);
void net_flush(struct env_uv *u);
/* Completes a send in a later turn. */
void net_complete(struct env_uv *u, struct env_send *s, int status);

int peer_tls_open(struct env_uv *u, struct err *e);
void peer_tls_close(struct env_uv *u);

#endif
