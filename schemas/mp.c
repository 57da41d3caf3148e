#include "schemas/mp_int.h"

static void put_be(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = size; i-- > 0; v >>= 8) p[i] = (uint8_t)v;
}

static void write_tagged(struct buf *out, uint8_t tag, uint64_t v, unsigned size)
{
    uint8_t *p = buf_reserve(out, 1 + size);
    if (!p) return;
    p[0] = tag;
    put_be(p + 1, v, size);
    out->len += 1 + size;
}

void mp_write_uint(struct buf *out, uint64_t v)
{
    if (v < 0x80) write_tagged(out, (uint8_t)v, 0, 0);
    else if (v <= UINT8_MAX) write_tagged(out, 0xcc, v, 1);
    else if (v <= UINT16_MAX) write_tagged(out, 0xcd, v, 2);
    else if (v <= UINT32_MAX) write_tagged(out, 0xce, v, 4);
    else write_tagged(out, 0xcf, v, 8);
}

void mp_write_int(struct buf *out, int64_t v)
{
    if (v >= 0) mp_write_uint(out, (uint64_t)v);
    else if (v >= -32) write_tagged(out, (uint8_t)v, 0, 0);
    else if (v >= INT8_MIN) write_tagged(out, 0xd0, (uint64_t)v, 1);
    else if (v >= INT16_MIN) write_tagged(out, 0xd1, (uint64_t)v, 2);
    else if (v >= INT32_MIN) write_tagged(out, 0xd2, (uint64_t)v, 4);
    else write_tagged(out, 0xd3, (uint64_t)v, 8);
}

void mp_write_bin(struct buf *out, struct slice s)
{
    if (s.len <= UINT8_MAX) write_tagged(out, 0xc4, s.len, 1);
    else if (s.len <= UINT16_MAX) write_tagged(out, 0xc5, s.len, 2);
    else if (s.len <= UINT32_MAX) write_tagged(out, 0xc6, s.len, 4);
    else if (!out->failed) out->failed = ERR_LIMIT;
    buf_append_slice(out, s);
}

void mp_write_array(struct buf *out, uint32_t count)
{
    if (count < 16) write_tagged(out, (uint8_t)(0x90 | count), 0, 0);
    else if (count <= UINT16_MAX) write_tagged(out, 0xdc, count, 2);
    else write_tagged(out, 0xdd, count, 4);
}

static uint64_t read_be(struct reader *r, unsigned size)
{
    struct slice s = reader_bytes(r, size);
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) v = v << 8 | s.data[i];
    return v;
}

/* Either sign; *negative says that the result is two's complement below zero. */
static uint64_t read_number(struct reader *r, bool *negative)
{
    uint8_t tag = reader_u8(r);
    uint64_t v = 0;
    *negative = false;
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) {
        *negative = true;
        return (uint64_t)(int64_t)(int8_t)tag;
    }
    switch (tag) {
    case 0xcc: return read_be(r, 1);
    case 0xcd: return read_be(r, 2);
    case 0xce: return read_be(r, 4);
    case 0xcf: return read_be(r, 8);
    case 0xd0: v = (uint64_t)(int64_t)(int8_t)read_be(r, 1); break;
    case 0xd1: v = (uint64_t)(int64_t)(int16_t)read_be(r, 2); break;
    case 0xd2: v = (uint64_t)(int64_t)(int32_t)read_be(r, 4); break;
    case 0xd3: v = read_be(r, 8); break;
    default: r->failed = true; return 0;
    }
    *negative = (int64_t)v < 0;
    return v;
}

uint64_t mp_read_uint(struct reader *r)
{
    bool negative;
    uint64_t v = read_number(r, &negative);
    if (negative) r->failed = true;
    return r->failed ? 0 : v;
}

int64_t mp_read_int(struct reader *r)
{
    bool negative;
    uint64_t v = read_number(r, &negative);
    if (!negative && v > INT64_MAX) r->failed = true;
    return r->failed ? 0 : (int64_t)v;
}

struct slice mp_read_bin(struct reader *r)
{
    size_t len = 0;
    switch (reader_u8(r)) {
    case 0xc4: len = (size_t)read_be(r, 1); break;
    case 0xc5: len = (size_t)read_be(r, 2); break;
    case 0xc6: len = (size_t)read_be(r, 4); break;
    default: r->failed = true;
    }
    if (r->failed) return (struct slice){0};
    return reader_bytes(r, len);
}

uint32_t mp_read_array(struct reader *r)
{
    uint8_t tag = reader_u8(r);
    uint32_t count = 0;
    if ((tag & 0xf0) == 0x90) count = tag & 0x0f;
    else if (tag == 0xdc) count = (uint32_t)read_be(r, 2);
    else if (tag == 0xdd) count = (uint32_t)read_be(r, 4);
    else r->failed = true;
    if (count > reader_left(r)) r->failed = true;
    return r->failed ? 0 : count;
}

/* What a value's head says about it: bytes that follow at once, and values inside. */
static void skip_head(struct reader *r, uint64_t *ret_bytes, uint64_t *ret_values)
{
    static const uint8_t fixed[32] = {
        /* 0xc0.. nil, -, false, true, bin, ext, floats, uints, ints, fixext, str, array, map */
        [0x0a] = 4, [0x0b] = 8, [0x0c] = 1, [0x0d] = 2, [0x0e] = 4,
        [0x0f] = 8, [0x10] = 1, [0x11] = 2, [0x12] = 4, [0x13] = 8,
        [0x14] = 2, [0x15] = 3, [0x16] = 5, [0x17] = 9, [0x18] = 17,
    };
    uint8_t tag = reader_u8(r);
    *ret_bytes = *ret_values = 0;
    if (tag < 0x80 || tag >= 0xe0) return;
    if (tag < 0x90) *ret_values = 2 * (uint64_t)(tag & 0x0f);
    else if (tag < 0xa0) *ret_values = tag & 0x0f;
    else if (tag < 0xc0) *ret_bytes = tag & 0x1f;
    else if (tag == 0xc1) r->failed = true;
    else if (tag >= 0xc4 && tag <= 0xc6) *ret_bytes = read_be(r, 1u << (tag - 0xc4));
    else if (tag >= 0xc7 && tag <= 0xc9) *ret_bytes = 1 + read_be(r, 1u << (tag - 0xc7));
    else if (tag >= 0xd9 && tag <= 0xdb) *ret_bytes = read_be(r, 1u << (tag - 0xd9));
    else if (tag >= 0xdc && tag <= 0xdd) *ret_values = read_be(r, 2u << (tag - 0xdc));
    else if (tag >= 0xde) *ret_values = 2 * read_be(r, 2u << (tag - 0xde));
    else *ret_bytes = fixed[tag - 0xc0];
}

void mp_skip(struct reader *r, uint32_t count)
{
    for (uint64_t left = count; left > 0 && !r->failed; left--) {
        uint64_t bytes, values;
        skip_head(r, &bytes, &values);
        if (bytes) reader_bytes(r, (size_t)bytes);
        left += values;
        if (left > reader_left(r) + 1) r->failed = true;
    }
}
