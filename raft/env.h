/* What consensus needs from the world: time, randomness, a disk, a network. Two implementations: the real
 * one (env_uv.h: libuv loop, disk threads, TLS connections) and the seeded simulation
 * (tests/sim). Everything in raft/ above this line - WAL, snapshot files, frames, guard, consensus
 * - is the same code in both.
 *
 * One thread (the core's). No function here calls back from inside the call: completions come in a
 * later turn. All times are milliseconds of a clock that never goes back and need not be the wall's.
 *
 * Paths are relative to the member's data folder, with '/' between parts. */
#ifndef PINTLE_RAFT_ENV_H
#define PINTLE_RAFT_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blob.h"
#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"

struct env;

/* ---- later turns ----------------------------------------------------------------------------- */

/* Embedded by the caller; may be scheduled again from its own callback. */
struct env_task {
    void (*run)(struct env_task *t);
    void *data;
    struct list node; /* the env's */
    bool queued;
};

/* ---- disk ------------------------------------------------------------------------------------ */

/* Two first-in-first-out lanes that run beside each other: the log never waits for a snapshot. */
enum env_lane { ENV_LANE_LOG, ENV_LANE_BULK };

enum env_io_op {
    ENV_IO_OPEN,      /* path, flags -> file */
    ENV_IO_WRITE,     /* file, offset, iov -> all of it written, or an error */
    ENV_IO_SYNC,      /* file: fdatasync */
    ENV_IO_WRITE_SYNC,/* both */
    ENV_IO_READ,      /* file, offset, buffer of `len` -> ret_len (short at the end of the file) */
    ENV_IO_CLOSE,     /* file */
    ENV_IO_RENAME,    /* path -> path2, replacing; then fsync of the folder */
    ENV_IO_UNLINK,    /* path; then fsync of the folder */
    ENV_IO_TRUNCATE,  /* file, length `offset`; then fdatasync */
};

/* COLD: reads see the disk, not what the system has kept in memory since it was written, as far as it lets go of that. */
enum { ENV_OPEN_WRITE = 1, ENV_OPEN_CREATE = 2, ENV_OPEN_EXCLUSIVE = 4, ENV_OPEN_COLD = 8 };

#define ENV_IOV_MAX 64

struct env_file; /* an open file */

/* One disk operation, embedded by the caller and borrowed until `done`; so are the bytes it points to. */
struct env_io {
    enum env_io_op op;
    enum env_lane lane;
    struct env_file *file; /* in; out of OPEN */
    const char *path, *path2;
    unsigned flags;
    uint64_t offset;
    struct slice iov[ENV_IOV_MAX];
    unsigned n_iov;
    void *buffer;
    size_t len, ret_len;
    /* 0, ERR_IO, ERR_NOT_FOUND, ERR_EXISTS, ERR_NO_SPACE, ERR_NOMEM. ERR_CORRUPT, of OPEN (not to create) and READ: the disk has
     * lost what is there, and `err` begins with the offset; this is damage to the file as if its bytes were wrong. */
    int status;
    struct err err;
    void (*done)(struct env_io *io);
    void *data;
    struct list node; /* the env's */
};

/* ---- network --------------------------------------------------------------------------------- */

/* Two streams of frames to each peer, each ordered while a connection lasts: elections, appends and probes never
 * wait behind a snapshot. */
enum env_channel { ENV_CHANNEL_RAFT, ENV_CHANNEL_BULK, ENV_CHANNELS };

/* One frame on its way, embedded by the caller, borrowed until `done`. The pieces follow each other in
 * the frame. status: 0 = handed to the network (not: received); ERR_CLOSED = connection lost or none;
 * ERR_LIMIT = the peer's queue is full. */
struct env_send {
    uint64_t peer_id;
    enum env_channel channel;
    struct slice iov[ENV_IOV_MAX];
    unsigned n_iov;
    int status;
    void (*done)(struct env_send *s);
    void *data;
    struct list node; /* the env's */
    size_t size;      /* the env's, as is what follows */
    uint8_t header[8];
};

enum env_stranger {
    ENV_STRANGER_UNKNOWN, /* is refused */
    ENV_STRANGER_REMOVED, /* is refused, and told that it was removed */
    ENV_STRANGER_HEARD,   /* may speak: `frame` is called with what it says */
};

struct env_handlers {
    /* A period of the tick has passed. */
    void (*tick)(void *ctx);
    /* A whole frame from a peer of this cluster; the bytes are borrowed for the call. */
    void (*frame)(void *ctx, uint64_t peer_id, enum env_channel channel, struct slice frame);
    /* A connection to (or from) a peer came up or went down. */
    void (*link)(void *ctx, uint64_t peer_id, bool up);
    /* Membership; each may be NULL (0, refused, nothing). What a member says of itself whenever it introduces itself to another: the
     * index of the newest committed membership that it is in. */
    uint64_t (*known)(void *ctx);
    /* Somebody that set_peer does not name introduces itself. */
    enum env_stranger (*stranger)(void *ctx, uint64_t peer_id, uint64_t known);
    /* A peer refuses this member: ERR_REMOVED, it was removed; ERR_EXISTS, another process has run under its id for a while. */
    void (*refused)(void *ctx, uint64_t peer_id, int error);
    /* Somebody asks who the members are, to become one of them: appends the answer (raft/join.h). False: not known yet. */
    bool (*describe)(void *ctx, struct buf *out);
};

/* ---- the interface --------------------------------------------------------------------------- */

struct env_ops {
    uint64_t (*now_ms)(struct env *e);
    uint64_t (*random)(struct env *e); /* 64 uniform bits */
    void (*defer)(struct env *e, struct env_task *t);

    /* Begins to tick and to accept frames. */
    int (*start)(struct env *e, unsigned tick_ms, const struct env_handlers *h, void *ctx);
    /* No handler is called any more; sends and disk operations under way complete (or fail) first, then
     * `stopped` runs. */
    void (*stop)(struct env *e, void (*stopped)(void *ctx), void *ctx);

    void (*io)(struct env *e, struct env_io *io);
    /* Synchronous, for opening and for the few bytes of term and vote, which must be durable before the
     * caller goes on. write_file: to a temporary name, fsync, rename, fsync of the folder. */
    /* What list names stays, whatever a process that died has left half done: the folder is synced first. */
    int (*list)(struct env *e, const char *dir, void (*each)(void *ctx, const char *name), void *ctx,
                struct err *err);
    int (*mkdir)(struct env *e, const char *dir, struct err *err); /* fine if it is there */
    int (*read_file)(struct env *e, const char *path, size_t max, struct buf *out, struct err *err); /* ERR_CORRUPT as above */
    int (*write_file)(struct env *e, const char *path, struct slice data, struct err *err);
    int (*unlink_file)(struct env *e, const char *path, struct err *err);
    /* Any of the asynchronous operations, done before it returns; only before `start`. */
    int (*io_sync)(struct env *e, struct env_io *io);

    /* Where a peer is (`url`: http://host:port or https://...). Again with another URL: moves there.
     * NULL forgets it, and its frames are refused from then on. ERR_INVALID: a URL that cannot be used here; for the own id that is
     * all it says. */
    int (*set_peer)(struct env *e, uint64_t peer_id, const char *url);
    void (*send)(struct env *e, struct env_send *s);
};

struct env {
    const struct env_ops *ops;
};

#endif
