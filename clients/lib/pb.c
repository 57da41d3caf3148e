#include "clients/lib/pb.h"

#include "base/limits.h"

void pb_varint(struct buf *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) buf_append_byte(out, (uint8_t)(v | 0x80));
    buf_append_byte(out, (uint8_t)v);
}

void pb_uint(struct buf *out, unsigned field, uint64_t v)
{
    if (!v) return;
    pb_varint(out, field << 3);
    pb_varint(out, v);
}

void pb_bool(struct buf *out, unsigned field, bool v)
{
    pb_uint(out, field, v);
}

void pb_message(struct buf *out, unsigned field, struct slice v)
{
    pb_varint(out, field << 3 | 2);
    pb_varint(out, v.len);
    buf_append_slice(out, v);
}

void pb_bytes(struct buf *out, unsigned field, struct slice v)
{
    if (v.len) pb_message(out, field, v);
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static uint64_t read_varint(struct pb_reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (!r->in.len) break;
        uint8_t byte = *r->in.data;
        r->in = slice_sub(r->in, 1, r->in.len);
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return v;
    }
    r->failed = true;
    return 0;
}

static struct slice read_bytes(struct pb_reader *r, uint64_t len)
{
    if (len > r->in.len) {
        r->failed = true;
        return (struct slice){0};
    }
    struct slice s = slice_sub(r->in, 0, (size_t)len);
    r->in = slice_sub(r->in, (size_t)len, r->in.len);
    return s;
}

static uint64_t read_fixed(struct pb_reader *r, size_t len)
{
    struct slice s = read_bytes(r, len);
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) v |= (uint64_t)s.data[i] << (8 * i);
    return v;
}

bool pb_next(struct pb_reader *r, struct pb_value *ret)
{
    if (!r->in.len || r->failed) return false;
    uint64_t tag = read_varint(r);
    *ret = (struct pb_value){.field = (unsigned)(tag >> 3), .wire = (unsigned)(tag & 7)};
    switch (ret->wire) {
    case 0: ret->number = read_varint(r); break;
    case 1: ret->number = read_fixed(r, 8); break;
    case 2: ret->bytes = read_bytes(r, read_varint(r)); break;
    case 5: ret->number = read_fixed(r, 4); break;
    default: r->failed = true; break;
    }
    return !r->failed;
}

/* ---- to JSON ----------------------------------------------------------------------------------------- */

static int to_json(struct arena *a, struct slice in, const struct pb_field *fields, int depth, struct json **ret);

static struct json *unsigned_number(struct arena *a, uint64_t v)
{
    struct json *j = json_int(a, 0);
    const char *text = arena_printf(a, "%llu", (unsigned long long)v);
    if (!j || !text) return NULL;
    j->text = slice_str(text);
    return j;
}

static int value_to_json(struct arena *a, const struct pb_field *f, const struct pb_value *v, int depth, struct json **ret)
{
    struct buf text = {0};
    struct json *j = NULL;
    switch (f->type) {
    case PB_UINT64: j = unsigned_number(a, v->number); break;
    case PB_INT64:
    case PB_ENUM: j = json_int(a, (int64_t)v->number); break;
    case PB_BOOL: j = json_bool(a, v->number != 0); break;
    case PB_STRING: j = json_string_copy(a, v->bytes); break;
    case PB_BYTES:
        base64_encode(&text, v->bytes);
        j = text.failed ? NULL : json_string_copy(a, buf_slice(&text));
        buf_release(&text);
        break;
    case PB_MESSAGE: return to_json(a, v->bytes, f->message, depth + 1, ret);
    }
    *ret = j;
    return j ? 0 : ERR_NOMEM;
}

static int add_value(struct arena *a, struct json *object, const struct pb_field *f, const struct pb_value *v, int depth)
{
    struct json *j, *list;
    int rv = value_to_json(a, f, v, depth, &j);
    if (rv != 0) return rv;
    if (!f->repeated) return json_set_str(a, object, f->name, j);
    list = json_get(object, f->name);
    if (!list) {
        list = json_array(a);
        if (!list || json_set_str(a, object, f->name, list) != 0) return ERR_NOMEM;
    }
    return json_push(a, list, j);
}

static int to_json(struct arena *a, struct slice in, const struct pb_field *fields, int depth, struct json **ret)
{
    struct pb_reader r = {.in = in};
    struct pb_value v;
    struct json *object = json_object(a);
    if (!object) return ERR_NOMEM;
    if (depth > LIMIT_PROTOBUF_DEPTH) return ERR_CORRUPT;
    while (pb_next(&r, &v)) {
        const struct pb_field *f = fields;
        while (f->number && f->number != v.field) f++;
        if (!f->number) continue;
        bool length = f->type == PB_BYTES || f->type == PB_STRING || f->type == PB_MESSAGE;
        if (length != (v.wire == 2)) return ERR_CORRUPT;
        int rv = add_value(a, object, f, &v, depth);
        if (rv != 0) return rv;
    }
    if (r.failed) return ERR_CORRUPT;
    for (const struct pb_field *f = fields; f->number; f++) {
        if (!f->always || json_get(object, f->name)) continue;
        struct pb_value zero = {0};
        int rv = add_value(a, object, f, &zero, depth);
        if (rv != 0) return rv;
    }
    *ret = object;
    return 0;
}

int pb_to_json(struct arena *a, struct slice in, const struct pb_field *fields, struct json **ret)
{
    return to_json(a, in, fields, 0, ret);
}

/* ---- base64 (RFC 4648) --------------------------------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_encode(struct buf *out, struct slice in)
{
    for (size_t i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t v = (uint32_t)in.data[i] << 16 | (left > 1 ? (uint32_t)in.data[i + 1] << 8 : 0) | (left > 2 ? in.data[i + 2] : 0);
        char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], left > 1 ? alphabet[v >> 6 & 63] : '=', left > 2 ? alphabet[v & 63] : '='};
        buf_append(out, four, 4);
    }
    return out->failed;
}

int base64_decode(struct buf *out, struct slice text)
{
    uint32_t v = 0;
    unsigned bits = 0;
    while (text.len && text.data[text.len - 1] == '=') text.len--;
    for (size_t i = 0; i < text.len; i++) {
        const char *at = text.data[i] ? strchr(alphabet, text.data[i]) : NULL;
        if (!at) return ERR_INVALID;
        v = v << 6 | (uint32_t)(at - alphabet);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        buf_append_byte(out, (uint8_t)(v >> bits));
    }
    return out->failed;
}
