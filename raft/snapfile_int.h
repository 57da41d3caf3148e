/* The snapshot file: a header that says which point of which cluster it is and who the members
 * were, the state machine's byte stream in lz4 blocks, a trailer. Every block's checksum continues
 * the one before it, from the header on, so nothing can be missing, repeated or exchanged; the trailer
 * has a digest of all that is before it.
 * docs/formats-raft.md has the layout.
 *
 * Sans-I/O: the encoder appends to a buf, the decoder is fed with pieces of any size. */
#ifndef PINTLE_RAFT_SNAPFILE_INT_H
#define PINTLE_RAFT_SNAPFILE_INT_H

#define XXH_STATIC_LINKING_ONLY /* its state, to have it in a struct */
#include <xxhash.h>

#include "base/slice.h"

#define SNAPFILE_BLOCK_BYTES (256 * 1024)    /* of the stream in one block, as we write them */
#define SNAPFILE_BLOCK_MAX (4 * 1024 * 1024) /* as we accept them */
#define SNAPFILE_HEAD_BYTES 48u
#define SNAPFILE_BLOCK_HEAD 12u
#define SNAPFILE_CONFIGURATION_MAX (64 * 1024)

struct snapfile_header {
    uint64_t cluster_id, index, term, configuration_index;
    struct slice configuration; /* as libraft encodes it */
};

struct snapfile_encoder {
    XXH64_state_t digest;
    uint32_t crc;
    uint64_t raw_bytes, blocks;
};

void snapfile_encode_header(struct snapfile_encoder *s, const struct snapfile_header *h,
                            struct buf *out);
void snapfile_encode_block(struct snapfile_encoder *s, struct slice raw, struct buf *out);
void snapfile_encode_end(struct snapfile_encoder *s, struct buf *out);

struct snapfile_decoder {
    enum { SNAPFILE_HEADER, SNAPFILE_BLOCKS, SNAPFILE_ENDED } state;
    struct snapfile_header
        header; /* once state is past SNAPFILE_HEADER; borrows from `configuration` */
    struct buf configuration, pending, raw;
    XXH64_state_t digest;
    uint32_t crc;
    uint64_t offset, raw_bytes, blocks; /* offset: of the first byte in `pending` */
};

void snapfile_decoder_init(struct snapfile_decoder *d);
void snapfile_decoder_release(struct snapfile_decoder *d);
/* `block` gets the stream; NULL: only the checksums are looked at. ERR_CORRUPT names the offset: "offset 4096: ...". */
int snapfile_feed(struct snapfile_decoder *d, struct slice piece,
                  int (*block)(void *ctx, struct slice raw, struct err *e), void *ctx,
                  struct err *e) MUST_CHECK;
/* That was the end of the file. */
int snapfile_finish(const struct snapfile_decoder *d, struct err *e) MUST_CHECK;

#endif
