#include "schemas/etcd/pb.h"

#include "base/limits.h"

enum { GROUP_START = 3, GROUP_END = 4 };

static bool take_varint(struct slice *in, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 10 && i < in->len; i++) {
        uint8_t b = in->data[i];
        if (i == 9 && b > 1) return false; /* beyond 64 bits */
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (b < 0x80) {
            *ret = v;
            *in = slice_sub(*in, i + 1, SIZE_MAX);
            return true;
        }
    }
    return false;
}

static bool take_fixed(struct slice *in, size_t len, uint64_t *ret)
{
    if (in->len < len) return false;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) v |= (uint64_t)in->data[i] << (8 * i);
    *ret = v;
    *in = slice_sub(*in, len, SIZE_MAX);
    return true;
}

static bool take_bytes(struct slice *in, struct slice *ret)
{
    uint64_t len;
    if (!take_varint(in, &len) || len > in->len) return false;
    *ret = slice_sub(*in, 0, (size_t)len);
    *in = slice_sub(*in, (size_t)len, SIZE_MAX);
    return true;
}

static bool take_value(struct slice *in, unsigned wire, struct pb_field *f)
{
    f->wire = (enum pb_wire)wire;
    f->value = 0;
    f->bytes = (struct slice){0};
    switch (wire) {
    case PB_VARINT: return take_varint(in, &f->value);
    case PB_FIXED64: return take_fixed(in, 8, &f->value);
    case PB_BYTES: return take_bytes(in, &f->bytes);
    case PB_FIXED32: return take_fixed(in, 4, &f->value);
    default: return false;
    }
}

int pb_next(struct slice *in, struct pb_field *ret)
{
    uint64_t open[LIMIT_PROTOBUF_DEPTH]; /* numbers of the groups we are in */
    size_t depth = 0;
    while (in->len > 0) {
        uint64_t tag;
        if (!take_varint(in, &tag) || tag > UINT32_MAX || tag >> 3 == 0) return ERR_INVALID;
        unsigned wire = (unsigned)(tag & 7);
        if (wire == GROUP_START) {
            if (depth == LIMIT_PROTOBUF_DEPTH) return ERR_LIMIT;
            open[depth++] = tag >> 3;
        } else if (wire == GROUP_END) {
            if (depth == 0 || open[--depth] != tag >> 3) return ERR_INVALID;
        } else {
            ret->number = (uint32_t)(tag >> 3);
            if (!take_value(in, wire, ret)) return ERR_INVALID;
            if (depth == 0) return 1;
        }
    }
    return depth ? ERR_INVALID : 0;
}

int pb_numbers(const struct pb_field *f, uint64_t *values, size_t *n, size_t max)
{
    struct slice in = f->bytes;
    if (f->wire != PB_BYTES && f->wire != PB_VARINT) return ERR_INVALID;
    if (f->wire == PB_VARINT) {
        if (*n == max) return ERR_LIMIT;
        values[(*n)++] = f->value;
        return 0;
    }
    while (in.len > 0) {
        uint64_t v;
        if (!take_varint(&in, &v)) return ERR_INVALID;
        if (*n == max) return ERR_LIMIT;
        values[(*n)++] = v;
    }
    return 0;
}
