#include "clients/lib/pbjson.h"

#include "base/base64.h"
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

/* ---- to JSON
 * ----------------------------------------------------------------------------------------- */

static int to_json(struct arena *a, struct slice in, const struct pbj_field *fields, int depth,
                   struct json **ret);

static struct json *unsigned_number(struct arena *a, uint64_t v)
{
    struct json *j = json_int(a, 0);
    const char *text = arena_printf(a, "%llu", (unsigned long long)v);
    if (!j || !text) return NULL;
    j->text = slice_str(text);
    return j;
}

static int value_to_json(struct arena *a, const struct pbj_field *f, const struct pb_field *v,
                         int depth, struct json **ret)
{
    struct buf text = {0};
    struct json *j = NULL;
    switch (f->type) {
    case PBJ_UINT64: j = unsigned_number(a, v->value); break;
    case PBJ_INT64:
    case PBJ_ENUM: j = json_int(a, (int64_t)v->value); break;
    case PBJ_BOOL: j = json_bool(a, v->value != 0); break;
    case PBJ_STRING: j = json_string_copy(a, v->bytes); break;
    case PBJ_BYTES:
        base64_append(&text, v->bytes);
        j = text.failed ? NULL : json_string_copy(a, buf_slice(&text));
        buf_release(&text);
        break;
    case PBJ_MESSAGE: return to_json(a, v->bytes, f->message, depth + 1, ret);
    }
    *ret = j;
    return j ? 0 : ERR_NOMEM;
}

static int add_value(struct arena *a, struct json *object, const struct pbj_field *f,
                     const struct pb_field *v, int depth)
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

static int to_json(struct arena *a, struct slice in, const struct pbj_field *fields, int depth,
                   struct json **ret)
{
    struct pb_field v;
    int more;
    struct json *object = json_object(a);
    if (!object) return ERR_NOMEM;
    if (depth > LIMIT_PROTOBUF_DEPTH) return ERR_CORRUPT;
    while ((more = pb_next(&in, &v)) == 1) {
        const struct pbj_field *f = fields;
        while (f->number && f->number != v.number) f++;
        if (!f->number) continue;
        bool length = f->type == PBJ_BYTES || f->type == PBJ_STRING || f->type == PBJ_MESSAGE;
        if (length != (v.wire == PB_BYTES)) return ERR_CORRUPT;
        int rv = add_value(a, object, f, &v, depth);
        if (rv != 0) return rv;
    }
    if (more < 0) return ERR_CORRUPT;
    for (const struct pbj_field *f = fields; f->number; f++) {
        if (!f->always || json_get(object, f->name)) continue;
        struct pb_field zero = {0};
        int rv = add_value(a, object, f, &zero, depth);
        if (rv != 0) return rv;
    }
    *ret = object;
    return 0;
}

int pb_to_json(struct arena *a, struct slice in, const struct pbj_field *fields, struct json **ret)
{
    return to_json(a, in, fields, 0, ret);
}
