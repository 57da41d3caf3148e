/* Bytes: `struct slice` borrows them, `struct buf` owns and grows them up to a cap. */
#ifndef PINTLE_BASE_SLICE_H
#define PINTLE_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

/* Borrowed bytes; `data` may be NULL only when `len` is 0. Valid as long as whoever lent them says. */
struct slice {
    const uint8_t *data;
    size_t len;
};

#define SLICE_LIT(text) ((struct slice){(const uint8_t *)(text), sizeof(text) - 1})

static inline struct slice slice_make(const void *data, size_t len)
{
    return (struct slice){(const uint8_t *)data, len};
}

static inline struct slice slice_str(const char *text)
{
    return (struct slice){(const uint8_t *)text, text ? strlen(text) : 0};
}

/* One past the last byte; adding to NULL, even 0, is undefined. */
static inline const uint8_t *slice_end(struct slice a)
{
    return a.len ? a.data + a.len : a.data;
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_eq_str(struct slice a, const char *text)
{
    return slice_eq(a, slice_str(text));
}

static inline bool slice_has_prefix(struct slice a, struct slice prefix)
{
    return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.data, prefix.data, prefix.len) == 0);
}

/* Order of keys: bytewise, a prefix before what it is a prefix of. */
static inline int slice_cmp(struct slice a, struct slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* From byte `from` on, at most `len` bytes; never beyond the end. */
static inline struct slice slice_sub(struct slice a, size_t from, size_t len)
{
    if (from > a.len) from = a.len;
    if (len > a.len - from) len = a.len - from;
    return (struct slice){a.data ? a.data + from : NULL, len};
}

/* Where `c` is first, or -1. */
static inline ptrdiff_t slice_index(struct slice a, char c)
{
    const uint8_t *p = a.len ? memchr(a.data, c, a.len) : NULL;
    return p ? p - a.data : -1;
}

/* Owned, growing bytes. A buf that is all zero is empty and has no cap of its own (SIZE_MAX). Once
 * an append failed, `failed` stays set and later appends do nothing: check once, at the end. */
struct buf {
    uint8_t *data;
    size_t len;
    size_t size;
    size_t cap;
    int failed; /* 0, ERR_NOMEM or ERR_LIMIT */
};

/* `cap` is the most the buf may ever hold. Holds no memory until the first append. */
void buf_init(struct buf *b, size_t cap);
/* Frees the memory; the buf is empty again and keeps its cap. */
void buf_release(struct buf *b);
/* Length 0; keeps the memory. */
void buf_clear(struct buf *b);
/* Room for `more` bytes behind the end; returns where they start, or NULL (and `failed`). The
 * caller adds what it wrote to `len`. */
uint8_t *buf_reserve(struct buf *b, size_t more);
/* Takes `len` bytes away from the front. */
void buf_consume(struct buf *b, size_t len);
int buf_append(struct buf *b, const void *data, size_t len);
int buf_append_slice(struct buf *b, struct slice s);
int buf_append_str(struct buf *b, const char *text);
int buf_append_byte(struct buf *b, uint8_t byte);
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Little-endian integers. */
int buf_append_u32(struct buf *b, uint32_t v);
int buf_append_u64(struct buf *b, uint64_t v);
/* Adds a NUL that is not counted in `len`, and returns the text; NULL when out of memory. */
const char *buf_cstr(struct buf *b);

static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data, b->len};
}

/* The one bounds-checked reader that every parser of binary data uses: after the first read that
 * goes beyond the end `failed` is set, and everything returns zero. */
struct reader {
    const uint8_t *p, *end;
    bool failed;
};

static inline struct reader reader_make(struct slice s)
{
    return (struct reader){s.data, slice_end(s), false};
}

uint8_t reader_u8(struct reader *r);
uint32_t reader_u32(struct reader *r); /* little-endian */
uint64_t reader_u64(struct reader *r);
struct slice reader_bytes(struct reader *r, size_t len);
size_t reader_left(const struct reader *r);

#endif
