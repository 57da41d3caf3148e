/* For a target whose input is a list of records: after `prefix` bytes, each a head, two bytes of
 * length, so many bytes. libFuzzer knows nothing of that: a byte more in one record would make
 * nonsense of all that follow. Here it changes the bytes of one record, or drops, repeats and moves
 * whole ones, and takes over those of another input. Include it in one file of a target, which says
 * what its records are in `record_shape`. */
#ifndef PINTLE_TESTS_FUZZ_RECORDS_H
#define PINTLE_TESTS_FUZZ_RECORDS_H

#include <string.h>

#include "tests/fuzz/fuzz.h"

#define RECORDS_MAX 128

struct record_shape {
    size_t prefix, head;
    bool (*applies)(uint8_t first);     /* by the input's first byte; NULL = always */
    bool (*bare)(const uint8_t head[]); /* a head without length and bytes; NULL = none is */
};

extern const struct record_shape record_shape;

struct fuzz_record {
    size_t at, len, body; /* where it begins; all of it; its bytes without head and length */
};

__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t max, unsigned seed);

/* The whole records of an input. */
static inline size_t records_find(const uint8_t *data, size_t size, struct fuzz_record out[])
{
    const struct record_shape *s = &record_shape;
    size_t n = 0, at = s->prefix;
    if (size == 0 || (s->applies && !s->applies(data[0]))) return 0;
    while (n < RECORDS_MAX && at + s->head <= size) {
        struct fuzz_record r = {.at = at, .len = s->head};
        if (!s->bare || !s->bare(data + at)) {
            if (at + s->head + 2 > size) break;
            r.body = (size_t)data[at + s->head] << 8 | data[at + s->head + 1];
            if (r.body > size - at - s->head - 2) break;
            r.len += 2 + r.body;
        }
        out[n++] = r;
        at += r.len;
    }
    return n;
}

static inline unsigned records_random(unsigned *state, size_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (unsigned)((*state >> 8) % below);
}

static inline size_t records_change_body(uint8_t *data, size_t size, size_t max,
                                         struct fuzz_record r)
{
    static uint8_t body[65535];
    uint8_t *from = data + r.at + r.len - r.body;
    size_t most = max - (size - r.body), rest = size - r.at - r.len;
    if (r.len == record_shape.head) return size; /* it has none */
    if (most > sizeof(body)) most = sizeof(body);
    memcpy(body, from, r.body);
    size_t n = LLVMFuzzerMutate(body, r.body, most);
    memmove(from + n, from + r.body, rest);
    memcpy(from, body, n);
    from[-2] = (uint8_t)(n >> 8);
    from[-1] = (uint8_t)n;
    return size - r.body + n;
}

/* Puts `len` bytes in at `at`; the source is not within `data`. */
static inline size_t records_insert(uint8_t *data, size_t size, size_t max, size_t at,
                                    const uint8_t *from, size_t len)
{
    if (len > max - size) return size;
    memmove(data + at + len, data + at, size - at);
    memcpy(data + at, from, len);
    return size + len;
}

static inline size_t records_drop(uint8_t *data, size_t size, struct fuzz_record r)
{
    memmove(data + r.at, data + r.at + r.len, size - r.at - r.len);
    return size - r.len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    static uint8_t copy[1 << 20];
    struct fuzz_record rs[RECORDS_MAX];
    size_t n = size <= max ? records_find(data, size, rs) : 0;
    if (n == 0 || records_random(&seed, 8) == 0) return LLVMFuzzerMutate(data, size, max);
    struct fuzz_record r = rs[records_random(&seed, n)];
    size_t to = rs[records_random(&seed, n)].at;
    switch (records_random(&seed, 8)) {
    case 0:
        if (record_shape.head)
            data[r.at + records_random(&seed, record_shape.head)] =
                (uint8_t)records_random(&seed, 256);
        return size;
    case 1: return records_drop(data, size, r);
    case 2:
    case 3:
        if (r.len > sizeof(copy)) return size;
        memcpy(copy, data + r.at, r.len);
        if (seed & 0x1000) return records_insert(data, size, max, to, copy, r.len);
        size = records_drop(data, size, r);
        return records_insert(data, size, max, to > r.at ? to - r.len : to, copy, r.len);
    default: return records_change_body(data, size, max, r);
    }
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t max, unsigned seed)
{
    struct fuzz_record rs[RECORDS_MAX], others[RECORDS_MAX];
    size_t n = records_find(a, a_size, rs), m = records_find(b, b_size, others);
    if (n == 0 || m == 0 || a_size > max) return 0;
    size_t first = records_random(&seed, m), last = first + records_random(&seed, m - first);
    memcpy(out, a, a_size);
    return records_insert(out, a_size, max, rs[records_random(&seed, n)].at, b + others[first].at,
                          others[last].at + others[last].len - others[first].at);
}

#endif
