#include "clients/lib/frames.h"

#define GRPC_HEAD 5

void frames_init(struct frames *f, size_t cap)
{
    buf_init(&f->rest, cap);
    f->stop = false;
}

void frames_release(struct frames *f)
{
    buf_release(&f->rest);
}

bool frames_whole(const struct frames *f)
{
    return f->rest.len == 0;
}

static struct slice without_return(struct slice line)
{
    if (line.len && line.data[line.len - 1] == '\r') line.len--;
    return line;
}

/* Lends the line out of `rest`; a buffer that one large line made is not kept. */
static void deliver_rest(struct frames *f, void (*line)(void *ctx, struct slice line), void *ctx)
{
    struct slice whole = without_return(buf_slice(&f->rest));
    if (whole.len) line(ctx, whole);
    if (f->rest.size > 64 * 1024) buf_release(&f->rest);
    else buf_clear(&f->rest);
}

int frames_feed_lines(struct frames *f, struct slice piece,
                      void (*line)(void *ctx, struct slice line), void *ctx)
{
    while (piece.len && !f->stop) {
        ptrdiff_t at = slice_index(piece, '\n');
        if (at < 0) return buf_append_slice(&f->rest, piece);
        struct slice head = slice_sub(piece, 0, (size_t)at);
        piece = slice_sub(piece, (size_t)at + 1, piece.len);
        if (f->rest.len) {
            int rc = buf_append_slice(&f->rest, head);
            if (rc) return rc;
            deliver_rest(f, line, ctx);
            continue;
        }
        head = without_return(head);
        if (head.len) line(ctx, head);
    }
    return 0;
}

/* 1 = *ret_len is the message's length, 0 = the head is not whole. */
static int grpc_head(struct slice s, size_t cap, size_t *ret_len)
{
    if (s.len < GRPC_HEAD) return 0;
    if (s.data[0] != 0) return ERR_CORRUPT;
    size_t len =
        (size_t)s.data[1] << 24 | (size_t)s.data[2] << 16 | (size_t)s.data[3] << 8 | s.data[4];
    if (cap && len + GRPC_HEAD > cap) return ERR_LIMIT;
    *ret_len = len;
    return 1;
}

/* Completes the message that began in an earlier piece: takes what it needs from `piece`. */
static int grpc_rest(struct frames *f, struct slice *piece,
                     void (*message)(void *ctx, struct slice message), void *ctx)
{
    size_t want = GRPC_HEAD;
    if (f->rest.len >= GRPC_HEAD) {
        size_t len = 0;
        int rc = grpc_head(buf_slice(&f->rest), f->rest.cap, &len);
        if (rc < 0) return rc;
        want += len;
    }
    size_t take = want - f->rest.len;
    if (take > piece->len) take = piece->len;
    int rc = buf_append(&f->rest, piece->data, take);
    if (rc) return rc;
    *piece = slice_sub(*piece, take, piece->len);
    size_t len = 0;
    rc = grpc_head(buf_slice(&f->rest), f->rest.cap, &len);
    if (rc <= 0) return rc;
    if (f->rest.len < GRPC_HEAD + len) return 0;
    message(ctx, slice_sub(buf_slice(&f->rest), GRPC_HEAD, len));
    buf_clear(&f->rest);
    return 0;
}

int frames_feed_grpc(struct frames *f, struct slice piece,
                     void (*message)(void *ctx, struct slice message), void *ctx)
{
    while (piece.len && !f->stop) {
        if (f->rest.len) {
            int rc = grpc_rest(f, &piece, message, ctx);
            if (rc) return rc;
            continue;
        }
        size_t len = 0;
        int rc = grpc_head(piece, f->rest.cap, &len);
        if (rc < 0) return rc;
        if (rc == 0 || piece.len < GRPC_HEAD + len) return buf_append_slice(&f->rest, piece);
        message(ctx, slice_sub(piece, GRPC_HEAD, len));
        piece = slice_sub(piece, GRPC_HEAD + len, piece.len);
    }
    return 0;
}

void frames_put_grpc_head(struct buf *out, size_t len)
{
    uint8_t head[GRPC_HEAD] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                               (uint8_t)len};
    buf_append(out, head, sizeof(head));
}
