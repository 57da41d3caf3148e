/* Immutable shared bytes with an atomic reference count: written once by one thread, then read and
 * released from any. */
#ifndef PINTLE_BASE_BLOB_H
#define PINTLE_BASE_BLOB_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/slice.h"

struct blob {
    atomic_uint refs;
    uint32_t len;
    uint8_t data[];
};

/* A blob of `len` bytes, not filled, with one reference; NULL when out of memory. */
struct blob *blob_new(size_t len);
/* A copy of `s`. */
struct blob *blob_copy(struct slice s);
struct blob *blob_ref(struct blob *b);
/* NULL is fine. */
void blob_unref(struct blob *b);

static inline struct slice blob_slice(const struct blob *b)
{
    return b ? (struct slice){b->data, b->len} : (struct slice){0};
}

#endif
