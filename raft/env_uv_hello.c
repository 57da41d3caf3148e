#include "raft/env_uv_hello_int.h"

#include "base/check.h"
#include "base/crc32c.h"

static const char magic[8] = {'P', 'N', 'T', 'L', 'P', 'E', 'E', 'R'};

static void append_tail(struct buf *out)
{
    (void)buf_append_u32(out, crc32c(0, out->data, out->len));
}

static bool whole(struct slice in)
{
    struct reader r = reader_make(slice_sub(in, in.len - 4, in.len));
    return memcmp(in.data, magic, sizeof magic) == 0 && reader_u32(&r) == crc32c(0, in.data, in.len - 4);
}

void hello_encode(struct buf *out, const struct hello *h)
{
    (void)buf_append(out, magic, sizeof magic);
    (void)buf_append_u32(out, HELLO_VERSION);
    (void)buf_append_u32(out, h->channel);
    (void)buf_append_u64(out, h->cluster_id);
    (void)buf_append_u64(out, h->from);
    (void)buf_append_u64(out, h->to);
    (void)buf_append_u64(out, h->instance);
    (void)buf_append_u64(out, h->known);
    append_tail(out);
    CHECK(out->failed || out->len == HELLO_BYTES);
}

bool hello_decode(struct slice in, struct hello *ret)
{
    struct reader r = reader_make(in);
    if (in.len != HELLO_BYTES || !whole(in)) return false;
    (void)reader_bytes(&r, sizeof magic);
    ret->version = reader_u32(&r);
    ret->channel = reader_u32(&r);
    ret->cluster_id = reader_u64(&r);
    ret->from = reader_u64(&r);
    ret->to = reader_u64(&r);
    ret->instance = reader_u64(&r);
    ret->known = reader_u64(&r);
    return true;
}

void welcome_encode(struct buf *out, const struct welcome *w)
{
    (void)buf_append(out, magic, sizeof magic);
    (void)buf_append_u32(out, w->status);
    (void)buf_append_u64(out, w->cluster_id);
    (void)buf_append_u64(out, w->id);
    append_tail(out);
    CHECK(out->failed || out->len == WELCOME_BYTES);
}

bool welcome_decode(struct slice in, struct welcome *ret)
{
    struct reader r = reader_make(in);
    if (in.len != WELCOME_BYTES || !whole(in)) return false;
    (void)reader_bytes(&r, sizeof magic);
    ret->status = reader_u32(&r);
    ret->cluster_id = reader_u64(&r);
    ret->id = reader_u64(&r);
    return true;
}

const char *welcome_text(uint32_t status)
{
    static const char *const text[] = {
        "ok",
        "peer protocol version not supported",
        "cluster ID mismatch",
        "we are not a member known to it",
        "another member answers at this address",
        "it has the same member ID as we",
        "another process runs under our member ID",
        "we were removed from the cluster",
        "it does not know the members itself yet",
    };
    return status < sizeof text / sizeof text[0] ? text[status] : "unknown reason";
}
