/* The format of a store snapshot, for its writer and its loader: docs/formats.md describes it. */
#ifndef PINTLE_STORE_SNAPSHOT_INT_H
#define PINTLE_STORE_SNAPSHOT_INT_H

#include <xxhash.h>

#include "store/store_int.h"

#define SNAPSHOT_MAGIC "PINTLESS"

enum {
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_HEADER_BYTES = 40, /* magic, version, flags, revision, compact revision, checksum */
    SNAPSHOT_BLOCK_HEAD = 16,   /* type, length, checksum */
    SNAPSHOT_TRAILER_BYTES =
        40, /* records, leases, alarms and members together, offset, chained checksum */
};

/* In the order in which they come. */
enum snapshot_block { BLOCK_RECORDS = 1, BLOCK_LEASES, BLOCK_ALARMS, BLOCK_MEMBERS, BLOCK_END };

enum { RECORD_TOMBSTONE = 1, RECORD_SUB = 2, RECORD_LEASE = 4 };

/* A block's checksum covers its place in the stream, its head and its payload. */
static inline uint64_t snapshot_block_hash(uint64_t offset, const uint8_t *head,
                                           struct slice payload)
{
    uint64_t seed = XXH3_64bits_withSeed(head, 8, offset);
    return XXH3_64bits_withSeed(payload.data, payload.len, seed);
}

/* The trailer chains the checksums of all that was before it. */
static inline uint64_t snapshot_chain(uint64_t chain, uint64_t hash)
{
    return XXH3_64bits_withSeed(&hash, sizeof(hash), chain);
}

/* loader_index.c: links the versions of each key, checks that they follow from each other, builds
 * the index and the sums for a store whose log is filled. ERR_CORRUPT or ERR_NOMEM. */
int loader_index(struct store *s, struct err *e) MUST_CHECK;

#endif
