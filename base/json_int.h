/* Shared between the files of base/json*.c only. */
#ifndef PINTLE_BASE_JSON_INT_H
#define PINTLE_BASE_JSON_INT_H

#include "base/json.h"

/* Objects with more members than this carry an index. */
#define JSON_INDEX_FROM 32

struct json *json_new(struct arena *a, enum json_type type);

/* The position of a member, or -1. */
ptrdiff_t json_find(const struct json *object, struct slice name);
/* Makes the index that an object of this many members should have. ERR_NOMEM. */
int json_index_build(struct arena *a, struct json *object);
/* Files the member at `position`, whose name is not there yet. ERR_NOMEM. */
int json_index_add(struct arena *a, struct json *object, size_t position);

#define JSON_BYTES(c) (0x0101010101010101ull * (uint8_t)(c))

/* The high bit of the first byte of eight that a string must not hold as it is (quote, backslash,
 * control); bytes behind the first hit may be marked wrongly. */
static inline uint64_t json_special(uint64_t x)
{
    uint64_t low = (x - JSON_BYTES(0x20)) & ~x;
    uint64_t quote = x ^ JSON_BYTES('"'), slash = x ^ JSON_BYTES('\\');
    quote = (quote - JSON_BYTES(1)) & ~quote;
    slash = (slash - JSON_BYTES(1)) & ~slash;
    return (low | quote | slash) & JSON_BYTES(0x80);
}

static inline uint64_t json_load8(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof(x));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

#endif
