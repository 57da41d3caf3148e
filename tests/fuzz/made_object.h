/* Objects of a kind, as JSON, made of the input: each byte chooses a field that the kind has, or a
 * value of its type; now and then one that it should not have. Bytes alone would hardly ever hit on
 * the names of fields three levels down. */
#ifndef PINTLE_TESTS_FUZZ_MADE_OBJECT_H
#define PINTLE_TESTS_FUZZ_MADE_OBJECT_H

#include "base/slice.h"
#include "schemas/kube/kinds_int.h"

#define MADE_DEPTH 8

struct made {
    struct slice in;
    struct buf *out;
    const struct kind *kind;
    bool patch; /* with the directives of strategic merge patches */
};

static inline uint8_t made_byte(struct made *m)
{
    uint8_t byte = m->in.len ? m->in.data[0] : 0;
    m->in = slice_sub(m->in, 1, m->in.len);
    return byte;
}

static inline void made_pick(struct made *m, const char *const *texts, size_t n)
{
    buf_append_str(m->out, texts[made_byte(m) % n]);
}
#define MADE_PICK(m, ...)                                                                          \
    made_pick(m, (const char *const[]){__VA_ARGS__},                                               \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static inline void made_text(struct made *m)
{
    uint8_t byte = made_byte(m);
    if (byte < 0xc0) {
        static const char *const texts[] = {"a",
                                            "b",
                                            "web",
                                            "http",
                                            "80",
                                            "TCP",
                                            "",
                                            "100m",
                                            "1Gi",
                                            "0.5",
                                            "1e3",
                                            "50%",
                                            "None",
                                            "a/b",
                                            "A_B",
                                            "a.b.c",
                                            "10.96.0.7",
                                            "fd00::1",
                                            "/",
                                            "../a",
                                            "-",
                                            "true",
                                            "Always",
                                            "Never",
                                            "In",
                                            "Exists",
                                            "=",
                                            "Ready",
                                            "ClusterIP",
                                            "kubernetes.io/hostname",
                                            "YQ==",
                                            "$(A)",
                                            "delete",
                                            "replace",
                                            "Opaque",
                                            "kubernetes.io/tls",
                                            "app",
                                            "a,b",
                                            "9999999999999999999",
                                            "node-role.kubernetes.io/x",
                                            "2024-02-30T25:00:00Z",
                                            "2024-01-02T03:04:05Z",
                                            "2024-01-02T03:04:05.000006+01:00"};
        buf_printf(m->out, "\"%s\"", texts[byte % (sizeof(texts) / sizeof(*texts))]);
        return;
    }
    buf_append_byte(m->out, '"');
    for (unsigned n = byte % 64u * 5; n > 0; n--) { /* up to 315, more than names may have */
        uint8_t c = m->in.len ? (uint8_t)(' ' + made_byte(m) % 95) : 'a';
        if (c == '"' || c == '\\') buf_append_byte(m->out, '\\');
        buf_append_byte(m->out, c);
    }
    buf_append_byte(m->out, '"');
}

static inline void made_object(struct made *m, const struct kind_type *t, unsigned depth);

static inline void made_one(struct made *m, const struct kind_field *f, unsigned depth)
{
    switch (f->shape) {
    case SHAPE_BOOL: MADE_PICK(m, "true", "false"); break;
    case SHAPE_INT32:
    case SHAPE_INT64:
    case SHAPE_DOUBLE:
        MADE_PICK(m, "0", "1", "2", "3", "-1", "80", "443", "30000", "65535", "65536", "100", "1.5",
                  "2147483647", "-2147483648", "9223372036854775807", "1e3");
        break;
    case SHAPE_INT_OR_STRING:
        MADE_PICK(m, "0", "1", "80", "\"50%\"", "\"http\"", "\"101%\"", "-1", "\"\"");
        break;
    case SHAPE_QUANTITY:
        MADE_PICK(m, "\"100m\"", "\"1Gi\"", "1", "\"0.5\"", "\"1e3\"", "\"-1\"", "\"x\"", "\"1n\"",
                  "\"9223372036854775807\"", "\"1E\"", "\"12345678901234567890k\"", "0.1");
        break;
    case SHAPE_RAW: MADE_PICK(m, "{}", "[1,{\"a\":null}]", "\"x\"", "{\"a\":{\"b\":[]}}"); break;
    case SHAPE_OBJECT: made_object(m, f->type, depth + 1); break;
    default:
        if (f->n_enums == 0 || made_byte(m) >= 0xc0) {
            made_text(m);
        } else {
            struct slice s = f->enums[made_byte(m) % f->n_enums];
            buf_printf(m->out, "\"%.*s\"", (int)s.len, s.data);
        }
    }
}

static inline void made_value(struct made *m, const struct kind_field *f, unsigned depth)
{
    uint8_t byte = made_byte(m);
    if (byte >= 0xf0) {
        MADE_PICK(m, "null", "[]", "{}", "\"x\"", "-1", "true", "[null]", "{\"\":1}");
    } else if (f->container == HOLDS_ONE) {
        made_one(m, f, depth);
    } else {
        bool map = f->container == HOLDS_MAP;
        buf_append_byte(m->out, map ? '{' : '[');
        for (unsigned i = 0; i < byte % 4u; i++) {
            if (i) buf_append_byte(m->out, ',');
            if (map) made_text(m);
            if (map) buf_append_byte(m->out, ':');
            made_one(m, f, depth);
        }
        buf_append_byte(m->out, map ? '}' : ']');
    }
}

static inline void made_directive(struct made *m, const struct kind_type *t)
{
    struct slice name = t->fields[made_byte(m) % t->n_fields].name;
    uint8_t byte = made_byte(m);
    if (byte % 4 == 0) {
        buf_append_str(m->out, "\"$patch\":");
        MADE_PICK(m, "\"delete\"", "\"replace\"", "\"merge\"", "\"x\"", "1");
    } else if (byte % 4 == 1) {
        buf_printf(m->out, "\"$retainKeys\":[\"%.*s\"]", (int)name.len, name.data);
    } else {
        buf_printf(m->out, "\"$%s/%.*s\":[",
                   byte % 4 == 2 ? "deleteFromPrimitiveList" : "setElementOrder", (int)name.len,
                   name.data);
        for (unsigned i = 0; i < byte / 4 % 4u; i++) {
            if (i) buf_append_byte(m->out, ',');
            if (byte & 0x80) buf_append_str(m->out, "{\"name\":");
            made_text(m);
            if (byte & 0x80) buf_append_byte(m->out, '}');
        }
        buf_append_byte(m->out, ']');
    }
}

static inline void made_object(struct made *m, const struct kind_type *t, unsigned depth)
{
    unsigned n = depth < MADE_DEPTH ? made_byte(m) % 8u : 0;
    buf_append_byte(m->out, '{');
    if (depth == 0)
        buf_printf(m->out, "\"apiVersion\":\"%s\",\"kind\":\"%s\",\"metadata\":{\"name\":\"a\"}",
                   m->kind->api_version, m->kind->kind);
    for (unsigned i = 0; i < n; i++) {
        uint8_t byte = made_byte(m);
        const struct kind_field *f = t->n_fields ? &t->fields[byte % t->n_fields] : NULL;
        if (i || depth == 0) buf_append_byte(m->out, ',');
        if (!f || byte == 0xff) {
            buf_append_str(m->out, "\"nothing\":1");
        } else if (m->patch && byte >= 0xe0) {
            made_directive(m, t);
        } else {
            buf_printf(m->out, "\"%.*s\":", (int)f->name.len, f->name.data);
            made_value(m, f, depth);
        }
    }
    buf_append_byte(m->out, '}');
}

/* The text of one object of kind `k`; takes what it needs from `in`. */
static inline void made_text_of(struct buf *out, const struct kind *k, struct slice *in, bool patch)
{
    struct made m = {*in, out, k, patch};
    made_object(&m, k->type, 0);
    *in = m.in;
}

#endif
