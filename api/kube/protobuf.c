/* Bodies in Kubernetes' protobuf form as JSON trees: kubectl 1.32 creates with it. The form is four magic bytes, then a
 * runtime.Unknown with the object's kind and its message (apimachinery's runtime/generated.proto). Fields that are not pointers are
 * sent even when they are empty, and mean the same as left out. Only reading: answers are JSON, which every client takes. */
#include "api/kube/protobuf_int.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "api/kube/kube_int.h"
#include "base/check.h"

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct field {
    uint64_t number;
    enum wire wire;
    uint64_t value;     /* VARINT, 64, 32 */
    struct slice bytes; /* BYTES */
};

struct decoding {
    struct arena *arena;
    struct err *e;
    unsigned depth;
};

static int malformed(struct decoding *d)
{
    return err_set(d->e, ERR_INVALID, "malformed protobuf");
}

static bool read_varint(struct slice *in, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && in->len; shift += 7) {
        uint8_t byte = in->data[0];
        *in = slice_sub(*in, 1, in->len);
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = v;
            return true;
        }
    }
    return false;
}

static bool read_fixed(struct slice *in, size_t size, uint64_t *ret)
{
    uint64_t v = 0;
    if (in->len < size) return false;
    for (size_t i = 0; i < size; i++) v |= (uint64_t)in->data[i] << (8 * i);
    *in = slice_sub(*in, size, in->len);
    *ret = v;
    return true;
}

static bool read_field(struct slice *in, struct field *f)
{
    uint64_t tag, len;
    *f = (struct field){0};
    if (!read_varint(in, &tag) || tag >> 3 == 0) return false;
    f->number = tag >> 3;
    f->wire = (enum wire)(tag & 7);
    switch (f->wire) {
    case WIRE_VARINT: return read_varint(in, &f->value);
    case WIRE_64: return read_fixed(in, 8, &f->value);
    case WIRE_32: return read_fixed(in, 4, &f->value);
    case WIRE_BYTES:
        if (!read_varint(in, &len) || len > in->len) return false;
        f->bytes = slice_sub(*in, 0, (size_t)len);
        *in = slice_sub(*in, (size_t)len, in->len);
        return true;
    }
    return false;
}

/* The bytes of a small message's field, or its number in *ret_value. */
static bool find_field(struct slice in, uint64_t number, struct field *ret)
{
    bool found = false;
    while (in.len) {
        struct field f;
        if (!read_field(&in, &f)) return false;
        if (f.number == number) {
            *ret = f;
            found = true;
        }
    }
    return found;
}

/* ---- the data --------------------------------------------------------------------------------- */

static int compare_names(const void *key, const void *item)
{
    return strcmp(key, ((const struct proto_type *)item)->name);
}

static const struct proto_type *find_type(const char *name)
{
    return bsearch(name, proto_types, n_proto_types, sizeof(*proto_types), compare_names);
}

struct spec {
    struct slice name; /* "-": inlined */
    bool pointer, repeated, map;
    struct slice type;
};

/* Where each type's fields stand in its text, by number: a peer decides how many fields are looked for. */
enum { NUMBERS = 128, TYPES = 512 };
static uint16_t places[TYPES][NUMBERS]; /* 0 = there is none, else one more than the offset */
static pthread_once_t places_once = PTHREAD_ONCE_INIT;

/* The word up to the next space. */
static const char *next_word(const char *p, struct slice *ret)
{
    size_t n = strcspn(p, " ");
    *ret = slice_make(p, n);
    return p[n] ? p + n + 1 : p + n;
}

static void parse_type(struct slice text, struct spec *s)
{
    for (;;) {
        if (text.len && text.data[0] == '*') {
            s->pointer = true;
            text = slice_sub(text, 1, text.len);
        } else if (slice_has_prefix(text, SLICE_LIT("[]"))) {
            s->repeated = true;
            text = slice_sub(text, 2, text.len);
        } else if (slice_has_prefix(text, SLICE_LIT("{}"))) {
            s->map = true;
            text = slice_sub(text, 2, text.len);
        } else {
            s->type = text;
            return;
        }
    }
}

static void find_places(void)
{
    CHECK(n_proto_types <= TYPES);
    for (size_t i = 0; i < n_proto_types; i++) {
        const char *from = proto_types[i].fields, *p = from;
        while (*p) {
            struct slice word;
            uint64_t n = strtoull(p, NULL, 10);
            CHECK(n < NUMBERS && p - from < UINT16_MAX);
            if (!places[i][n]) places[i][n] = (uint16_t)(p - from + 1);
            for (int words = 0; words < 3; words++) p = next_word(p, &word);
        }
    }
}

static bool find_spec(const struct proto_type *t, uint64_t number, struct spec *ret)
{
    struct slice type;
    pthread_once(&places_once, find_places);
    uint16_t at = number < NUMBERS ? places[t - proto_types][number] : 0;
    if (!at) return false;
    const char *p = next_word(t->fields + at - 1, &type);
    *ret = (struct spec){0};
    next_word(next_word(p, &ret->name), &type);
    parse_type(type, ret);
    return true;
}

/* ---- values ----------------------------------------------------------------------------------- */

static int decode_message(struct decoding *d, const struct proto_type *t, struct slice in, struct json *object);

static int time_value(struct decoding *d, struct slice in, bool micro, struct json **ret)
{
    struct field s = {0}, ns = {0};
    char text[64], whole[32];
    if (!find_field(in, 1, &s)) { /* Go's zero time */
        *ret = json_null(d->arena);
        return *ret ? 0 : ERR_NOMEM;
    }
    int64_t unix_s = (int64_t)s.value;
    if (unix_s < KUBE_TIME_MIN || unix_s > KUBE_TIME_MAX) {
        return err_set(d->e, ERR_INVALID, "malformed protobuf: a time outside of the years 1 to 9999");
    }
    find_field(in, 2, &ns);
    kube_time(unix_s, whole);
    size_t n = strlen(whole) - 1;
    snprintf(text, sizeof(text), "%.*s.%06uZ", (int)n, whole, (unsigned)(ns.value / 1000 % 1000000));
    *ret = json_string_copy(d->arena, slice_str(micro ? text : whole));
    return *ret ? 0 : ERR_NOMEM;
}

static int text_value(struct decoding *d, struct slice in, struct json **ret)
{
    if (!json_utf8(in)) return err_set(d->e, ERR_INVALID, "malformed protobuf: a string is not UTF-8");
    *ret = json_string_copy(d->arena, in);
    return *ret ? 0 : ERR_NOMEM;
}

static int int_or_string(struct decoding *d, struct slice in, struct json **ret)
{
    struct field type = {0}, number = {0}, text = {0};
    find_field(in, 1, &type);
    find_field(in, 2, &number);
    find_field(in, 3, &text);
    if (type.value == 1) return text_value(d, text.bytes, ret);
    *ret = json_int(d->arena, (int64_t)number.value);
    return *ret ? 0 : ERR_NOMEM;
}

static int raw_value(struct decoding *d, struct slice in, struct json **ret)
{
    struct field raw = {0};
    find_field(in, 1, &raw);
    if (!raw.bytes.len) {
        *ret = json_null(d->arena);
        return *ret ? 0 : ERR_NOMEM;
    }
    int code = json_parse(d->arena, raw.bytes, 0, ret, NULL);
    return code && code != ERR_NOMEM ? malformed(d) : code;
}

static int bytes_value(struct decoding *d, struct slice in, char type, struct json **ret)
{
    struct arena *a = d->arena;
    struct field inner = {0};
    switch (type) {
    case 's': return text_value(d, in, ret);
    case 'y': *ret = json_str(a, base64_encode(a, in)); break;
    case 'T':
    case 'M': return time_value(d, in, type == 'M', ret);
    case 'Q':
        find_field(in, 1, &inner);
        return text_value(d, inner.bytes, ret);
    case 'D':
        find_field(in, 1, &inner);
        *ret = json_int(a, (int64_t)inner.value);
        break;
    case 'I': return int_or_string(d, in, ret);
    case 'R': return raw_value(d, in, ret);
    default: return malformed(d);
    }
    return *ret ? 0 : ERR_NOMEM;
}

static int number_value(struct decoding *d, uint64_t v, char type, struct json **ret)
{
    double number;
    switch (type) {
    case 'b': *ret = json_bool(d->arena, v != 0); break;
    case 'i': *ret = json_int(d->arena, (int64_t)v); break;
    case 'd':
        memcpy(&number, &v, sizeof(number));
        *ret = json_double(d->arena, number);
        break;
    default: return malformed(d);
    }
    return *ret ? 0 : ERR_NOMEM;
}

static int decode_value(struct decoding *d, const struct spec *s, const struct field *f, struct json **ret)
{
    char name[96];
    if (s->type.len == 1) {
        char type = (char)s->type.data[0];
        return f->wire == WIRE_BYTES ? bytes_value(d, f->bytes, type, ret) : number_value(d, f->value, type, ret);
    }
    if (f->wire != WIRE_BYTES || s->type.len >= sizeof(name)) return malformed(d);
    memcpy(name, s->type.data, s->type.len);
    name[s->type.len] = 0;
    const struct proto_type *t = find_type(name);
    *ret = json_object(d->arena);
    if (!*ret) return ERR_NOMEM;
    return t ? decode_message(d, t, f->bytes, *ret) : 0;
}

/* What Go's JSON leaves out. */
static bool is_zero(const struct json *v)
{
    switch (v->type) {
    case JSON_NULL: return true;
    case JSON_BOOL: return !v->boolean;
    case JSON_NUMBER: return slice_eq_str(v->text, "0");
    case JSON_STRING: return v->text.len == 0;
    default: return v->count == 0;
    }
}

static int put_repeated(struct decoding *d, const struct spec *s, const struct field *f, struct json *object)
{
    struct json *list = json_get_slice(object, s->name), *v;
    bool packed = f->wire == WIRE_BYTES && s->type.len == 1 && (s->type.data[0] == 'i' || s->type.data[0] == 'b');
    if (!list) {
        list = json_array(d->arena);
        if (!list || json_set(d->arena, object, s->name, list)) return ERR_NOMEM;
    }
    struct slice rest = packed ? f->bytes : (struct slice){0};
    struct field one = *f;
    do {
        if (packed) {
            one.wire = WIRE_VARINT;
            if (!rest.len) return 0;
            if (!read_varint(&rest, &one.value)) return malformed(d);
        }
        int code = decode_value(d, s, &one, &v);
        if (!code) code = json_push(d->arena, list, v);
        if (code) return code;
    } while (packed);
    return 0;
}

static int put_entry(struct decoding *d, const struct spec *s, const struct field *f, struct json *object)
{
    struct json *map = json_get_slice(object, s->name), *v;
    struct field key = {0}, value = {.wire = WIRE_BYTES};
    if (f->wire != WIRE_BYTES) return malformed(d);
    if (!map) {
        map = json_object(d->arena);
        if (!map || json_set(d->arena, object, s->name, map)) return ERR_NOMEM;
    }
    find_field(f->bytes, 1, &key);
    find_field(f->bytes, 2, &value);
    struct json *name = NULL;
    int code = text_value(d, key.bytes, &name);
    if (code) return code;
    if (s->repeated) { /* a map of lists of strings: the list is a message of its own */
        struct json *list = json_array(d->arena);
        struct slice rest = value.bytes;
        if (!list) return ERR_NOMEM;
        while (rest.len) {
            struct field item;
            if (!read_field(&rest, &item) || item.wire != WIRE_BYTES) return malformed(d);
            code = text_value(d, item.bytes, &v);
            if (!code) code = json_push(d->arena, list, v);
            if (code) return code;
        }
        return json_set(d->arena, map, name->text, list);
    }
    code = decode_value(d, s, &value, &v);
    return code ? code : json_set(d->arena, map, name->text, v);
}

static int put_field(struct decoding *d, const struct spec *s, const struct field *f, struct json *object)
{
    struct json *v;
    if (s->map) return put_entry(d, s, f, object);
    if (s->repeated) return put_repeated(d, s, f, object);
    int code = decode_value(d, s, f, &v);
    if (code) return code;
    if (slice_eq_str(s->name, "-")) {
        for (size_t i = 0; v->type == JSON_OBJECT && i < v->count; i++) {
            if (json_set(d->arena, object, v->members[i].name, v->members[i].value)) return ERR_NOMEM;
        }
        return 0;
    }
    if (v->type == JSON_NULL || (!s->pointer && is_zero(v))) return 0;
    return json_set(d->arena, object, s->name, v);
}

static int decode_message(struct decoding *d, const struct proto_type *t, struct slice in, struct json *object)
{
    if (d->depth >= LIMIT_PROTOBUF_DEPTH) return err_set(d->e, ERR_LIMIT, "protobuf nested deeper than %d", LIMIT_PROTOBUF_DEPTH);
    d->depth++;
    int code = 0;
    while (in.len && !code) {
        struct field f;
        struct spec s;
        if (!read_field(&in, &f)) {
            code = malformed(d);
        } else if (find_spec(t, f.number, &s)) {
            code = put_field(d, &s, &f, object);
        }
    }
    d->depth--;
    return code;
}

int protobuf_to_json(struct arena *a, struct slice body, struct json **ret, struct err *e)
{
    static const uint8_t magic[] = {'k', '8', 's', 0};
    struct decoding d = {.arena = a, .e = e};
    struct field meta = {0}, raw = {0}, api_version = {0}, kind = {0};
    if (!slice_has_prefix(body, slice_make(magic, sizeof(magic)))) {
        return err_set(e, ERR_INVALID, "provided data does not appear to be a protobuf message, expected prefix");
    }
    body = slice_sub(body, sizeof(magic), body.len);
    if (!find_field(body, 1, &meta) || !find_field(body, 2, &raw)) return malformed(&d);
    find_field(meta.bytes, 1, &api_version);
    find_field(meta.bytes, 2, &kind);
    const char *name = arena_strdup(a, kind.bytes);
    const struct proto_type *t = name ? find_type(name) : NULL;
    if (!t) return err_set(e, ERR_UNSUPPORTED, "no kind \"%.*s\" in its protobuf form", (int)kind.bytes.len, (const char *)kind.bytes.data);
    struct json *object = json_object(a), *version = NULL;
    int code = text_value(&d, api_version.bytes, &version);
    if (code) return code;
    if (!object || json_set_str(a, object, "kind", json_str(a, name)) || json_set_str(a, object, "apiVersion", version)) {
        return ERR_NOMEM;
    }
    code = decode_message(&d, t, raw.bytes, object);
    if (!code) *ret = object;
    return code;
}
