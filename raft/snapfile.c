/* The codec of snapshot files. */
#include "raft/snapfile_int.h"

#include <inttypes.h>
#include <lz4.h>

#include "base/crc32c.h"
#include "raft/frames_int.h"

#define HEAD_MAGIC 0x31504e53544e5000u /* "\0PNTSNP1" */
#define END_MAGIC 0x32444e45544e5000u  /* "\0PNTEND2" */
#define END_BYTES 32u
#define END_MAGIC_OLD 0x31444e45544e5000u /* without digest */
#define END_BYTES_OLD 24u

/* ---- encoding -------------------------------------------------------------------------------- */

void snapfile_encode_header(struct snapfile_encoder *s, const struct snapfile_header *h,
                            struct buf *out)
{
    size_t start = out->len;
    (void)buf_append_u64(out, HEAD_MAGIC);
    (void)buf_append_u64(out, h->cluster_id);
    (void)buf_append_u64(out, h->index);
    (void)buf_append_u64(out, h->term);
    (void)buf_append_u64(out, h->configuration_index);
    (void)buf_append_u32(out, (uint32_t)h->configuration.len);
    if (out->failed) return;
    uint32_t crc = crc32c(0, out->data + start, out->len - start);
    crc = crc32c(crc, h->configuration.data, h->configuration.len);
    (void)buf_append_u32(out, crc);
    (void)buf_append_slice(out, h->configuration);
    *s = (struct snapfile_encoder){.crc = crc};
    XXH64_reset(&s->digest, 0);
    if (!out->failed) XXH64_update(&s->digest, out->data + start, out->len - start);
}

/* `head` is the place of raw and packed length and checksum, its data lies behind it. */
static void close_block(struct snapfile_encoder *s, uint8_t *head, uint32_t raw, uint32_t packed)
{
    uint32_t values[2] = {raw, packed};
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 4; i++) head[4 * k + i] = (uint8_t)(values[k] >> (8 * i));
    }
    s->crc = crc32c(crc32c(s->crc, head, 8), head + SNAPFILE_BLOCK_HEAD, packed);
    for (int i = 0; i < 4; i++) head[8 + i] = (uint8_t)(s->crc >> (8 * i));
}

void snapfile_encode_block(struct snapfile_encoder *s, struct slice raw, struct buf *out)
{
    if (raw.len == 0) return;
    int bound = LZ4_compressBound((int)raw.len);
    uint8_t *head = buf_reserve(out, SNAPFILE_BLOCK_HEAD + (size_t)bound);
    if (!head) return;
    char *data = (char *)head + SNAPFILE_BLOCK_HEAD;
    int packed = LZ4_compress_default((const char *)raw.data, data, (int)raw.len, bound);
    if (packed <= 0 || (size_t)packed >= raw.len) { /* does not shrink: as it is */
        memcpy(data, raw.data, raw.len);
        packed = (int)raw.len;
    }
    close_block(s, head, (uint32_t)raw.len, (uint32_t)packed);
    s->raw_bytes += raw.len;
    s->blocks++;
    XXH64_update(&s->digest, head, SNAPFILE_BLOCK_HEAD + (size_t)packed);
    out->len += SNAPFILE_BLOCK_HEAD + (size_t)packed;
}

void snapfile_encode_end(struct snapfile_encoder *s, struct buf *out)
{
    size_t start = out->len;
    static const uint8_t nothing[SNAPFILE_BLOCK_HEAD];
    (void)buf_append(out, nothing, sizeof nothing);
    (void)buf_append_u64(out, s->raw_bytes);
    (void)buf_append_u64(out, s->blocks);
    (void)buf_append_u64(out, XXH64_digest(&s->digest));
    (void)buf_append_u64(out, END_MAGIC);
    if (!out->failed) close_block(s, out->data + start, 0, END_BYTES);
}

/* ---- decoding -------------------------------------------------------------------------------- */

void snapfile_decoder_init(struct snapfile_decoder *d)
{
    *d = (struct snapfile_decoder){0};
    XXH64_reset(&d->digest, 0);
    buf_init(&d->configuration, SNAPFILE_CONFIGURATION_MAX);
    buf_init(&d->pending, 0);
    buf_init(&d->raw, SNAPFILE_BLOCK_MAX);
}

void snapfile_decoder_release(struct snapfile_decoder *d)
{
    buf_release(&d->configuration);
    buf_release(&d->pending);
    buf_release(&d->raw);
}

static int corrupt(struct err *e, uint64_t offset, const char *why)
{
    return err_set(e, ERR_CORRUPT, "offset %" PRIu64 ": %s", offset, why);
}

/* 1 = taken, *used bytes; 0 = more bytes are needed; negative = error. */
static int take_header(struct snapfile_decoder *d, struct slice in, size_t *used, struct err *e)
{
    if (in.len < SNAPFILE_HEAD_BYTES) return 0;
    struct reader r = reader_make(in);
    uint64_t magic = reader_u64(&r);
    struct snapfile_header h = {.cluster_id = reader_u64(&r)};
    h.index = reader_u64(&r);
    h.term = reader_u64(&r);
    h.configuration_index = reader_u64(&r);
    uint32_t length = reader_u32(&r), crc = reader_u32(&r);
    if (magic != HEAD_MAGIC) return corrupt(e, 0, "not a snapshot file");
    if (length > SNAPFILE_CONFIGURATION_MAX) return corrupt(e, 40, "configuration is too long");
    if (in.len < SNAPFILE_HEAD_BYTES + length) return 0;
    struct slice configuration = reader_bytes(&r, length);
    d->crc =
        crc32c(crc32c(0, in.data, SNAPFILE_HEAD_BYTES - 4), configuration.data, configuration.len);
    if (d->crc != crc) return corrupt(e, 44, "header checksum does not match");
    if (h.index == 0 || h.term == 0 || !frame_configuration_ok(configuration))
        return corrupt(e, 16, "malformed header");
    if (buf_append_slice(&d->configuration, configuration))
        return err_set(e, ERR_NOMEM, "out of memory");
    h.configuration = buf_slice(&d->configuration);
    d->header = h;
    d->state = SNAPFILE_BLOCKS;
    *used = SNAPFILE_HEAD_BYTES + length;
    return 1;
}

static int take_end(struct snapfile_decoder *d, struct reader *r, struct err *e)
{
    bool old = reader_left(r) == END_BYTES_OLD;
    uint64_t raw = reader_u64(r), blocks = reader_u64(r);
    bool digest = old || reader_u64(r) == XXH64_digest(&d->digest);
    uint64_t magic = reader_u64(r);
    if (raw != d->raw_bytes || blocks != d->blocks || !digest || magic != (old ? END_MAGIC_OLD : END_MAGIC)) {
        return corrupt(e, d->offset, "the trailer does not fit what comes before it");
    }
    d->state = SNAPFILE_ENDED;
    return 1;
}

static int unpack(struct snapfile_decoder *d, uint32_t raw, struct slice packed, struct slice *ret,
                  struct err *e)
{
    *ret = packed;
    if (packed.len == raw) return 0;
    buf_clear(&d->raw);
    uint8_t *to = buf_reserve(&d->raw, raw);
    if (!to) return err_set(e, ERR_NOMEM, "out of memory");
    int n = LZ4_decompress_safe((const char *)packed.data, (char *)to, (int)packed.len, (int)raw);
    if (n != (int)raw) return corrupt(e, d->offset, "block does not decompress");
    *ret = slice_make(to, raw);
    return 0;
}

static int take_block(struct snapfile_decoder *d, struct slice in, size_t *used,
                      int (*block)(void *ctx, struct slice raw, struct err *e), void *ctx,
                      struct err *e)
{
    if (in.len < SNAPFILE_BLOCK_HEAD) return 0;
    struct reader r = reader_make(in);
    uint32_t raw = reader_u32(&r), packed = reader_u32(&r), crc = reader_u32(&r);
    bool end = raw == 0;
    bool fits = end ? packed == END_BYTES || packed == END_BYTES_OLD : packed <= raw;
    if (raw > SNAPFILE_BLOCK_MAX || packed == 0 || !fits) {
        return corrupt(e, d->offset, "impossible length of a block");
    }
    if (reader_left(&r) < packed) return 0;
    d->crc = crc32c(crc32c(d->crc, in.data, 8), r.p, packed);
    if (d->crc != crc) return corrupt(e, d->offset, "block checksum does not match");
    *used = SNAPFILE_BLOCK_HEAD + packed;
    if (end) {
        r = reader_make(slice_make(r.p, packed));
        return take_end(d, &r, e);
    }
    struct slice data = reader_bytes(&r, packed);
    int rv = block ? unpack(d, raw, data, &data, e) : 0;
    if (rv) return rv;
    d->raw_bytes += raw;
    d->blocks++;
    if (block) rv = block(ctx, data, e);
    return rv ? rv : 1;
}

int snapfile_feed(struct snapfile_decoder *d, struct slice piece,
                  int (*block)(void *ctx, struct slice raw, struct err *e), void *ctx,
                  struct err *e)
{
    if (buf_append_slice(&d->pending, piece)) return err_set(e, ERR_NOMEM, "out of memory");
    size_t done = 0;
    int rv = 1;
    while (rv == 1 && done < d->pending.len) {
        struct slice in = slice_sub(buf_slice(&d->pending), done, SIZE_MAX);
        size_t used = 0;
        if (d->state == SNAPFILE_ENDED) return corrupt(e, d->offset, "bytes behind the end");
        rv = d->state == SNAPFILE_HEADER ? take_header(d, in, &used, e)
                                         : take_block(d, in, &used, block, ctx, e);
        if (rv == 1 && d->state != SNAPFILE_ENDED) XXH64_update(&d->digest, in.data, used);
        done += used;
        d->offset += used;
    }
    buf_consume(&d->pending, done);
    return rv < 0 ? rv : 0;
}

int snapfile_finish(const struct snapfile_decoder *d, struct err *e)
{
    if (d->state == SNAPFILE_ENDED && d->pending.len == 0) return 0;
    return corrupt(e, d->offset + d->pending.len, "the file ends too early");
}
