/* Protobuf's wire format, for messages that are read and written by hand: a bounds-checked reader
 * of fields, and writers into memory whose size was computed before.
 *
 * Source: protobuf.dev/programming-guides/encoding. Groups (long deprecated) are skipped,
 * LIMIT_PROTOBUF_DEPTH deep. */
#ifndef PINTLE_SCHEMAS_ETCD_PB_H
#define PINTLE_SCHEMAS_ETCD_PB_H

#include "base/slice.h"

enum pb_wire { PB_VARINT = 0, PB_FIXED64 = 1, PB_BYTES = 2, PB_FIXED32 = 5 };

struct pb_field {
    uint32_t number;
    enum pb_wire wire;
    uint64_t value;     /* VARINT, FIXED64, FIXED32 */
    struct slice bytes; /* BYTES: borrowed from the message */
};

/* The next field, and moves `in` behind it: 1, 0 = the end, ERR_INVALID (not protobuf, cut off) or
 * ERR_LIMIT. Groups are skipped and not shown. */
int pb_next(struct slice *in, struct pb_field *ret) MUST_CHECK;
/* Appends the numbers of a repeated field, packed or not, to `values`, of which *n are used and at
 * most `max` fit: 0, ERR_INVALID or ERR_LIMIT. */
int pb_numbers(const struct pb_field *f, uint64_t *values, size_t *n, size_t max) MUST_CHECK;

/* ---- writing ----------------------------------------------------------------------------------
 */
/* Fields with numbers below 16 only: their tags are one byte. As in proto3 a zero or empty field is
 * not written, but by pb_put_len. */

static inline size_t pb_varint_size(uint64_t v)
{
    return (size_t)((63 - __builtin_clzll(v | 1)) / 7 + 1);
}

static inline uint8_t *pb_put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static inline uint8_t *pb_put_uint(uint8_t *p, unsigned field, uint64_t v)
{
    if (v == 0) return p;
    *p++ = (uint8_t)(field << 3 | PB_VARINT);
    return pb_put_varint(p, v);
}

static inline size_t pb_uint_size(uint64_t v)
{
    return v ? 1 + pb_varint_size(v) : 0;
}

/* The head of a field of `len` bytes, which the caller writes behind it. */
static inline uint8_t *pb_put_len(uint8_t *p, unsigned field, size_t len)
{
    *p++ = (uint8_t)(field << 3 | PB_BYTES);
    return pb_put_varint(p, len);
}

static inline size_t pb_len_size(size_t len)
{
    return 1 + pb_varint_size(len) + len;
}

static inline uint8_t *pb_put_bytes(uint8_t *p, unsigned field, struct slice s)
{
    if (s.len == 0) return p;
    p = pb_put_len(p, field, s.len);
    memcpy(p, s.data, s.len);
    return p + s.len;
}

static inline size_t pb_bytes_size(size_t len)
{
    return len ? pb_len_size(len) : 0;
}

#endif
