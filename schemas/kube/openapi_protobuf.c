/* An OpenAPI v2 document as protobuf: gnostic's openapi.v2 messages, which old clients ask for.
 * Tables say which member of a JSON object is which field; the messages that JSON does not have (a
 * list or a name around a value) are written by hand. */
#include "schemas/kube/openapi_int.h"

#define VARINT 0
#define BYTES 2

enum form {
    FORM_END,
    FORM_STRING,
    FORM_STRINGS, /* repeated */
    FORM_BOOL,
    FORM_MESSAGE,
    FORM_MESSAGES, /* repeated */
    FORM_NAMED,    /* members as repeated {name = 1, value = 2} inside a message of their own */
    FORM_TYPE,     /* TypeItem {value = 1} */
    FORM_WRAPPED,  /* a message inside a message, as its field 1 */
    FORM_ANY,      /* Any {yaml = 2} */
    FORM_ANYS,
    FORM_PARAMETERS, /* repeated ParametersItem */
};

struct message;
struct pb_field {
    const char *json;
    uint32_t number;
    enum form form;
    const struct message *sub;
    uint32_t inner; /* FORM_NAMED: the number of the repeated field */
};
struct message {
    uint32_t extensions; /* the field of x-... members; 0 = none */
    const struct pb_field *fields;
};

static const struct message schema;

static const struct pb_field schema_fields[] = {
    {"$ref", 1, FORM_STRING, NULL, 0},
    {"format", 2, FORM_STRING, NULL, 0},
    {"description", 4, FORM_STRING, NULL, 0},
    {"default", 5, FORM_ANY, NULL, 0},
    {"required", 19, FORM_STRINGS, NULL, 0},
    {"enum", 20, FORM_ANYS, NULL, 0},
    {"additionalProperties", 21, FORM_WRAPPED, &schema, 0},
    {"type", 22, FORM_TYPE, NULL, 0},
    {"items", 23, FORM_WRAPPED, &schema, 0},
    {"properties", 25, FORM_NAMED, &schema, 1},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message schema = {31, schema_fields};

static const struct pb_field response_fields[] = {
    {"description", 1, FORM_STRING, NULL, 0},
    {"schema", 2, FORM_WRAPPED, &schema, 0},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message response = {5, response_fields};
static const struct pb_field response_value_fields[] = {
    {"", 1, FORM_MESSAGE, &response, 0}, /* the object itself */
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message response_value = {0, response_value_fields};

static const struct pb_field operation_fields[] = {
    {"operationId", 5, FORM_STRING, NULL, 0},         {"produces", 6, FORM_STRINGS, NULL, 0},
    {"consumes", 7, FORM_STRINGS, NULL, 0},           {"parameters", 8, FORM_PARAMETERS, NULL, 0},
    {"responses", 9, FORM_NAMED, &response_value, 1}, {NULL, 0, FORM_END, NULL, 0},
};
static const struct message operation = {13, operation_fields};

static const struct pb_field path_fields[] = {
    {"get", 2, FORM_MESSAGE, &operation, 0},
    {"put", 3, FORM_MESSAGE, &operation, 0},
    {"post", 4, FORM_MESSAGE, &operation, 0},
    {"delete", 5, FORM_MESSAGE, &operation, 0},
    {"patch", 8, FORM_MESSAGE, &operation, 0},
    {"parameters", 9, FORM_PARAMETERS, NULL, 0},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message path_item = {10, path_fields};

static const struct pb_field info_fields[] = {
    {"title", 1, FORM_STRING, NULL, 0},
    {"version", 2, FORM_STRING, NULL, 0},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message info = {7, info_fields};

static const struct pb_field document_fields[] = {
    {"swagger", 1, FORM_STRING, NULL, 0},
    {"info", 2, FORM_MESSAGE, &info, 0},
    {"paths", 8, FORM_NAMED, &path_item, 2},
    {"definitions", 9, FORM_NAMED, &schema, 1},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message document_message = {16, document_fields};

static const struct pb_field query_fields[] = {
    {"required", 1, FORM_BOOL, NULL, 0},
    {"in", 2, FORM_STRING, NULL, 0},
    {"description", 3, FORM_STRING, NULL, 0},
    {"name", 4, FORM_STRING, NULL, 0},
    {"type", 6, FORM_STRING, NULL, 0},
    {"uniqueItems", 20, FORM_BOOL, NULL, 0},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message query_parameter = {23, query_fields};
static const struct pb_field in_path_fields[] = {
    {"required", 1, FORM_BOOL, NULL, 0},
    {"in", 2, FORM_STRING, NULL, 0},
    {"description", 3, FORM_STRING, NULL, 0},
    {"name", 4, FORM_STRING, NULL, 0},
    {"type", 5, FORM_STRING, NULL, 0},
    {"uniqueItems", 19, FORM_BOOL, NULL, 0},
    {NULL, 0, FORM_END, NULL, 0},
};
static const struct message path_parameter = {22, in_path_fields};
static const struct pb_field body_fields[] = {
    {"description", 1, FORM_STRING, NULL, 0}, {"name", 2, FORM_STRING, NULL, 0},
    {"in", 3, FORM_STRING, NULL, 0},          {"required", 4, FORM_BOOL, NULL, 0},
    {"schema", 5, FORM_MESSAGE, &schema, 0},  {NULL, 0, FORM_END, NULL, 0},
};
static const struct message body_parameter = {6, body_fields};

/* ---- writing ----------------------------------------------------------------------------------
 */

static void write_message(struct buf *out, const struct message *m, const struct json *v);

static void put_varint(struct buf *out, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) buf_append_byte(out, (uint8_t)(v | 0x80));
    buf_append_byte(out, (uint8_t)v);
}

static void put_bytes(struct buf *out, uint32_t number, struct slice s)
{
    put_varint(out, number << 3 | BYTES);
    put_varint(out, s.len);
    buf_append_slice(out, s);
}

/* Appends `inner` as a field and releases it. */
static void put_inner(struct buf *out, uint32_t number, struct buf *inner)
{
    if (inner->failed) out->failed = inner->failed;
    else put_bytes(out, number, buf_slice(inner));
    buf_release(inner);
}

static void put_message(struct buf *out, uint32_t number, const struct message *m,
                        const struct json *v)
{
    struct buf inner = {0};
    write_message(&inner, m, v);
    put_inner(out, number, &inner);
}

/* Any {yaml}: JSON is YAML. */
static void put_any(struct buf *out, uint32_t number, const struct json *v)
{
    struct buf text = {0}, any = {0};
    json_write(&text, v);
    put_inner(&any, 2, &text);
    put_inner(out, number, &any);
}

static void put_named(struct buf *out, uint32_t number, struct slice name, const struct message *m,
                      const struct json *v)
{
    struct buf named = {0};
    put_bytes(&named, 1, name);
    if (m) put_message(&named, 2, m, v);
    else put_any(&named, 2, v);
    put_inner(out, number, &named);
}

/* ParametersItem {parameter = 1: {body = 1 | non_body = 2: {query = 3 | path = 4}}} */
static void put_parameter(struct buf *out, uint32_t number, const struct json *v)
{
    struct buf item = {0}, kind = {0}, where = {0};
    if (json_is_str(json_get(v, "in"), "body")) {
        put_message(&kind, 1, &body_parameter, v);
    } else {
        bool path = json_is_str(json_get(v, "in"), "path");
        put_message(&where, path ? 4 : 3, path ? &path_parameter : &query_parameter, v);
        put_inner(&kind, 2, &where);
    }
    put_inner(&item, 1, &kind);
    put_inner(out, number, &item);
}

static void put_list(struct buf *out, const struct pb_field *f, const struct json *v)
{
    for (size_t i = 0; i < v->count; i++) {
        const struct json *x = v->items[i];
        if (f->form == FORM_STRINGS) put_bytes(out, f->number, json_text(x));
        else if (f->form == FORM_ANYS) put_any(out, f->number, x);
        else if (f->form == FORM_PARAMETERS) put_parameter(out, f->number, x);
        else put_message(out, f->number, f->sub, x);
    }
}

static void put_field(struct buf *out, const struct pb_field *f, const struct json *v)
{
    struct buf inner = {0};
    switch (f->form) {
    case FORM_STRING: put_bytes(out, f->number, json_text(v)); break;
    case FORM_BOOL:
        put_varint(out, f->number << 3 | VARINT);
        put_varint(out, v->boolean);
        break;
    case FORM_MESSAGE: put_message(out, f->number, f->sub, v); break;
    case FORM_ANY: put_any(out, f->number, v); break;
    case FORM_TYPE:
        put_bytes(&inner, 1, json_text(v));
        put_inner(out, f->number, &inner);
        break;
    case FORM_WRAPPED:
        put_message(&inner, 1, f->sub, v);
        put_inner(out, f->number, &inner);
        break;
    case FORM_NAMED:
        for (size_t i = 0; i < v->count; i++)
            put_named(&inner, f->inner, v->members[i].name, f->sub, v->members[i].value);
        put_inner(out, f->number, &inner);
        break;
    default: put_list(out, f, v); break;
    }
}

static void write_message(struct buf *out, const struct message *m, const struct json *v)
{
    for (const struct pb_field *f = m->fields; f->form != FORM_END; f++) {
        const struct json *member = f->json[0] ? json_get(v, f->json) : v;
        if (member) put_field(out, f, member);
    }
    for (size_t i = 0; m->extensions && i < v->count; i++)
        if (slice_has_prefix(v->members[i].name, SLICE_LIT("x-")))
            put_named(out, m->extensions, v->members[i].name, NULL, v->members[i].value);
}

void openapi_write_protobuf(struct buf *out, const struct json *document)
{
    write_message(out, &document_message, document);
}
