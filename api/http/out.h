/* Output on its way to the kernel: queues of refcounted pieces (one queue a stream), and the gather that one
 * connection's turn fills and one writev empties. One thread (a server's loop). */
#ifndef PINTLE_API_HTTP_OUT_H
#define PINTLE_API_HTTP_OUT_H

#include <sys/uio.h>

#include "base/slice.h"

enum {
    OUT_COPY_MAX = 2048,        /* parts up to this are copied into the gather, larger ones referenced */
    OUT_SCRATCH = 128 * 1024,   /* bytes of a gather */
    OUT_IOV = 256,              /* parts of a gather */
    OUT_FRAME_IOV = 24,         /* most parts that OUT_FRAME bytes of a queue take */
    OUT_FRAME = 16384,
};

/* Bytes that live until the last reference is gone: own bytes behind the struct, or borrowed with a release. */
struct out_piece {
    struct out_piece *next;
    const uint8_t *data;
    size_t len;
    size_t room; /* of `bytes`; 0 = borrowed */
    unsigned refs;
    void (*release)(void *owner);
    void *owner;
    uint8_t bytes[];
};

void out_piece_unref(struct out_piece *p);

/* All zero is empty. */
struct out_queue {
    struct out_piece *head, *tail;
    size_t consumed; /* of head */
    size_t bytes;
};

/* ERR_NOMEM: nothing was added. */
int out_queue_copy(struct out_queue *q, struct slice data) MUST_CHECK;
/* `release` is called in any case, at once if this fails. */
int out_queue_ref(struct out_queue *q, struct slice data, void (*release)(void *owner), void *owner) MUST_CHECK;
void out_queue_release(struct out_queue *q);

/* What one writev takes. `own[i]` is the referenced piece, or NULL for bytes of `scratch`. */
struct gather {
    size_t used;
    unsigned n;
    size_t bytes;
    bool copy_all; /* for TLS, which wants few long runs */
    struct iovec iov[OUT_IOV];
    struct out_piece *own[OUT_IOV];
    uint8_t scratch[OUT_SCRATCH];
};

/* Whether `copied` bytes and one frame's worth of queue fit. */
static inline bool gather_fits(const struct gather *g, size_t copied)
{
    return g->used + copied + OUT_FRAME <= OUT_SCRATCH && g->n + OUT_FRAME_IOV + 2 <= OUT_IOV;
}

/* The caller has checked with gather_fits. */
void gather_copy(struct gather *g, const void *data, size_t len);
/* Moves up to `len` bytes (at most OUT_FRAME) from the front of the queue. */
void gather_queue(struct gather *g, struct out_queue *q, size_t len);
void gather_reset(struct gather *g);

/* The rest of a gather that the kernel did not take. */
struct out_rest {
    unsigned first, n;
    size_t bytes;
    struct iovec *iov;
    struct out_piece **own;
};

/* Everything of `g` behind the first `written` bytes; g is empty afterwards. NULL when out of memory. */
struct out_rest *out_rest_new(struct gather *g, size_t written);
/* `written` more bytes are gone. */
void out_rest_advance(struct out_rest *r, size_t written);
void out_rest_free(struct out_rest *r);

#endif
