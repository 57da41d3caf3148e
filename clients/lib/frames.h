/* Cuts a streamed body into lines (Kubernetes watches) or gRPC messages. Sans I/O: pieces in,
 * frames out. */
#ifndef PINTLE_CLIENTS_LIB_FRAMES_H
#define PINTLE_CLIENTS_LIB_FRAMES_H

#include "base/slice.h"

/* The rest of an unfinished frame is kept in `rest`, up to its cap. */
struct frames {
    struct buf rest;
    bool stop; /* set by a callback: nothing more is delivered */
};

void frames_init(struct frames *f, size_t cap);
void frames_release(struct frames *f);
/* Calls `line` for each whole non-empty line, without its end. Bytes are borrowed for the call;
 * `line` may set f->stop, and may then release `f` only after the feed has returned. ERR_LIMIT,
 * ERR_NOMEM. */
int frames_feed_lines(struct frames *f, struct slice piece,
                      void (*line)(void *ctx, struct slice line), void *ctx) MUST_CHECK;
/* The same for messages of gRPC's five-byte framing. ERR_CORRUPT for a compressed or malformed one.
 */
int frames_feed_grpc(struct frames *f, struct slice piece,
                     void (*message)(void *ctx, struct slice message), void *ctx) MUST_CHECK;
/* Whether nothing of an unfinished frame is left. */
bool frames_whole(const struct frames *f);
/* Puts gRPC's frame head for a message of `len` bytes; check out->failed. */
void frames_put_grpc_head(struct buf *out, size_t len);

#endif
