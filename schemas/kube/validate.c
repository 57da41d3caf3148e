/* Validation: one walk that does what the data says of each field (required, ranges, enums,
 * formats, immutability) and calls the checks of types that data cannot express (checks*.c). The
 * wording of messages is that of Kubernetes, because people and scripts know it. */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "schemas/kube/kinds_int.h"

#define SHOWN_BYTES 512 /* of a value in a message */
#define ANNOTATION_BYTES ((size_t)256 * 1024)

static int check_object(struct kind_check *c, const struct kind_path *at, const struct kind_type *t,
                        const struct json *v, const struct json *old);

int kind_complain(struct kind_check *c, enum kind_problem_type type, const struct kind_path *at,
                  const struct json *value, const char *format, ...)
{
    char detail[768];
    struct buf shown;
    va_list ap;
    va_start(ap, format);
    vsnprintf(detail, sizeof(detail), format, ap);
    va_end(ap);
    const char *path = kind_path_text(c->a, at), *text = NULL;
    if (!path) return ERR_NOMEM;
    buf_init(&shown, 64 * 1024);
    if (value) {
        json_write(&shown, value);
        if (shown.failed == ERR_LIMIT) shown.failed = 0;
        if (shown.len > SHOWN_BYTES) {
            shown.len = SHOWN_BYTES;
            while (shown.len && (shown.data[shown.len] & 0xc0) == 0x80) shown.len--;
            buf_append_str(&shown, "...");
        }
        text = buf_cstr(&shown);
        if (!text) {
            buf_release(&shown);
            return ERR_NOMEM;
        }
    }
    int rc = kind_problem_add(c->problems, type, path, text, "%s", detail);
    buf_release(&shown);
    return rc;
}

/* ---- formats ----------------------------------------------------------------------------------
 */

static int invalid(struct kind_check *c, const struct kind_path *at, const struct json *v,
                   const char *text)
{
    return kind_complain(c, PROBLEM_INVALID, at, v, "%s", text);
}

static int too_long(struct kind_check *c, const struct kind_path *at, const struct json *v,
                    int most)
{
    return kind_complain(c, PROBLEM_INVALID, at, v, "must be no more than %d characters", most);
}

#define TEXT_LABEL                                                                                 \
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "   \
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "     \
    "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
#define TEXT_SUBDOMAIN                                                                             \
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "   \
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "  \
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
#define TEXT_1035                                                                                  \
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "   \
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "           \
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
#define TEXT_QUALIFIED                                                                             \
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "  \
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for " \
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
#define TEXT_LABEL_VALUE                                                                           \
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "    \
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value', " \
    " or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
#define TEXT_CONFIG_KEY                                                                            \
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "           \
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"

static int format_dns_label(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    if (v->text.len > 63) return too_long(c, at, v, 63);
    return name_is_dns1123_label(v->text) ? 0 : invalid(c, at, v, TEXT_LABEL);
}

static int format_dns_subdomain(struct kind_check *c, const struct kind_path *at,
                                const struct json *v)
{
    if (v->text.len > 253) return too_long(c, at, v, 253);
    return name_is_dns1123_subdomain(v->text) ? 0 : invalid(c, at, v, TEXT_SUBDOMAIN);
}

static int format_dns_1035(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    if (v->text.len > 63) return too_long(c, at, v, 63);
    bool ok = name_is_dns1123_label(v->text) && v->text.data[0] >= 'a';
    return ok ? 0 : invalid(c, at, v, TEXT_1035);
}

static int format_qualified(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    ptrdiff_t slash = slice_index(v->text, '/');
    struct slice prefix = slash < 0 ? (struct slice){0} : slice_sub(v->text, 0, (size_t)slash);
    struct slice name = slice_sub(v->text, (size_t)(slash + 1), v->text.len);
    if (slash >= 0 && prefix.len == 0) return invalid(c, at, v, "prefix part must be non-empty");
    if (slash >= 0 && slice_index(name, '/') >= 0)
        return invalid(c, at, v,
                       "a qualified name must consist of alphanumeric characters, '-', '_' or '.', "
                       "and must start and end with an alphanumeric character with an optional DNS "
                       "subdomain prefix and '/' (e.g. 'example.com/MyName')");
    if (slash >= 0 && !name_is_dns1123_subdomain(prefix))
        return invalid(c, at, v, "prefix part " TEXT_SUBDOMAIN);
    if (name.len == 0) return invalid(c, at, v, "name part must be non-empty");
    if (name.len > 63) return invalid(c, at, v, "name part must be no more than 63 characters");
    return name_is_qualified(v->text) ? 0 : invalid(c, at, v, TEXT_QUALIFIED);
}

static int format_label_value(struct kind_check *c, const struct kind_path *at,
                              const struct json *v)
{
    if (v->text.len > 63) return too_long(c, at, v, 63);
    return label_value_is_valid(v->text) ? 0 : invalid(c, at, v, TEXT_LABEL_VALUE);
}

static int format_config_key(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    if (v->text.len > 253) return too_long(c, at, v, 253);
    if (slice_eq_str(v->text, ".")) return invalid(c, at, v, "must not be '.'");
    if (slice_eq_str(v->text, "..")) return invalid(c, at, v, "must not be '..'");
    if (slice_has_prefix(v->text, SLICE_LIT("..")))
        return invalid(c, at, v, "must not start with '..'");
    bool ok = v->text.len > 0;
    for (size_t i = 0; i < v->text.len; i++) {
        uint8_t b = v->text.data[i];
        bool letter = (b | 0x20) >= 'a' && (b | 0x20) <= 'z';
        ok &= letter || (b >= '0' && b <= '9') || b == '-' || b == '_' || b == '.';
    }
    return ok ? 0 : invalid(c, at, v, TEXT_CONFIG_KEY);
}

static int format_env_name(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    for (size_t i = 0; i < v->text.len; i++)
        if (v->text.data[i] < ' ' || v->text.data[i] > '~' || v->text.data[i] == '=')
            return invalid(c, at, v,
                           "a valid environment variable name must consist only of printable ASCII "
                           "characters other than '='");
    return 0;
}

static int format_port_name(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    bool letter = false, hyphens = false, legal = true;
    struct slice s = v->text;
    for (size_t i = 0; i < s.len; i++) {
        bool lower = s.data[i] >= 'a' && s.data[i] <= 'z', hyphen = s.data[i] == '-';
        letter |= lower;
        hyphens |= hyphen && i && s.data[i - 1] == '-';
        legal &= lower || hyphen || (s.data[i] >= '0' && s.data[i] <= '9');
    }
    if (s.len > 15) return too_long(c, at, v, 15);
    if (!legal || !s.len)
        return invalid(c, at, v,
                       "must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)");
    if (!letter) return invalid(c, at, v, "must contain at least one letter (a-z)");
    if (hyphens) return invalid(c, at, v, "must not contain consecutive hyphens");
    if (s.data[0] == '-' || s.data[s.len - 1] == '-')
        return invalid(c, at, v, "must not begin or end with a hyphen");
    return 0;
}

static bool is_ip(struct slice s)
{
    char text[64];
    uint8_t bytes[16];
    if (s.len == 0 || s.len >= sizeof(text)) return false;
    memcpy(text, s.data, s.len);
    text[s.len] = 0;
    return inet_pton(AF_INET, text, bytes) == 1 || inet_pton(AF_INET6, text, bytes) == 1;
}

static int format_ip(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    return is_ip(v->text)
               ? 0
               : invalid(c, at, v, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
}

static int format_cidr(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    ptrdiff_t slash = slice_index(v->text, '/');
    struct slice ip = slash < 0 ? v->text : slice_sub(v->text, 0, (size_t)slash);
    struct json bits = {.type = JSON_NUMBER,
                        .text = slice_sub(v->text, (size_t)(slash + 1), v->text.len)};
    int64_t n = -1;
    bool digits = slash >= 0 && bits.text.len > 0 && bits.text.len < 4;
    for (size_t i = 0; digits && i < bits.text.len; i++)
        digits = bits.text.data[i] >= '0' && bits.text.data[i] <= '9';
    bool ok = digits && is_ip(ip) && json_to_int(&bits, &n) && n >= 0 &&
              n <= (slice_index(ip, ':') >= 0 ? 128 : 32);
    return ok ? 0
              : invalid(c, at, v,
                        "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
}

/* A number or a name of a port. */
static int format_port(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    int64_t n;
    if (v->type == JSON_STRING) return format_port_name(c, at, v);
    if (json_to_int(v, &n) && n >= 1 && n <= 65535) return 0;
    return invalid(c, at, v, "must be between 1 and 65535, inclusive");
}

static int format_count_or_percent(struct kind_check *c, const struct kind_path *at,
                                   const struct json *v)
{
    int64_t n;
    if (v->type == JSON_NUMBER)
        return json_to_int(v, &n) && n >= 0
                   ? 0
                   : invalid(c, at, v, "must be greater than or equal to 0");
    bool ok = v->text.len > 1 && v->text.data[v->text.len - 1] == '%';
    for (size_t i = 0; ok && i + 1 < v->text.len; i++)
        ok = v->text.data[i] >= '0' && v->text.data[i] <= '9';
    return ok ? 0
              : invalid(c, at, v,
                        "a valid percent string must be a numeric string followed by an ending '%' "
                        "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
}

/* Relative, and never upwards. */
static int format_local_path(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    struct slice s = v->text;
    if (s.len && s.data[0] == '/') return invalid(c, at, v, "must be a relative path");
    while (s.len) {
        ptrdiff_t slash = slice_index(s, '/');
        struct slice part = slash < 0 ? s : slice_sub(s, 0, (size_t)slash);
        if (slice_eq_str(part, "..")) return invalid(c, at, v, "must not contain '..'");
        s = slash < 0 ? (struct slice){0} : slice_sub(s, (size_t)slash + 1, s.len);
    }
    return 0;
}

static int format_labels(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    int rc = 0;
    for (size_t i = 0; i < v->count && !rc; i++) {
        const struct json_member *m = &v->members[i];
        struct json key = {.type = JSON_STRING, .text = m->name};
        if (!name_is_qualified(m->name)) rc = format_qualified(c, at, &key);
        if (!rc && m->value->type == JSON_STRING && !label_value_is_valid(m->value->text))
            rc = format_label_value(c, at, m->value);
    }
    return rc;
}

/* Keys are compared in lower case, as Kubernetes does here. */
static int format_annotations(struct kind_check *c, const struct kind_path *at,
                              const struct json *v)
{
    size_t total = 0;
    int rc = 0;
    for (size_t i = 0; i < v->count && !rc; i++) {
        const struct json_member *m = &v->members[i];
        struct json key = {.type = JSON_STRING, .text = m->name};
        total += m->name.len + json_text(m->value).len;
        if (name_is_qualified(m->name)) continue;
        struct slice lower = arena_dup(c->a, m->name);
        if (!lower.data) return ERR_NOMEM;
        for (size_t k = 0; k < lower.len; k++)
            if (lower.data[k] >= 'A' && lower.data[k] <= 'Z')
                ((uint8_t *)(uintptr_t)lower.data)[k] |= 0x20;
        if (!name_is_qualified(lower)) rc = format_qualified(c, at, &key);
    }
    if (!rc && total > ANNOTATION_BYTES)
        rc = kind_complain(c, PROBLEM_TOO_LONG, at, NULL, "may not be more than %zu bytes",
                           ANNOTATION_BYTES);
    return rc;
}

kind_format_fn kind_format_by_name(struct slice name)
{
    static const struct {
        const char *name;
        kind_format_fn fn;
    } formats[] = {
        {"dns-label", format_dns_label},
        {"dns-subdomain", format_dns_subdomain},
        {"dns-1035-label", format_dns_1035},
        {"qualified", format_qualified},
        {"label-value", format_label_value},
        {"config-key", format_config_key},
        {"env-name", format_env_name},
        {"port-name", format_port_name},
        {"ip", format_ip},
        {"cidr", format_cidr},
        {"port", format_port},
        {"count-or-percent", format_count_or_percent},
        {"local-path", format_local_path},
        {"labels", format_labels},
        {"annotations", format_annotations},
    };
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (slice_eq_str(name, formats[i].name)) return formats[i].fn;
    return NULL;
}

/* ---- fields -----------------------------------------------------------------------------------
 */

static bool is_empty(const struct json *v)
{
    int64_t i;
    if (!v) return true;
    switch (v->type) {
    case JSON_NULL: return true;
    case JSON_STRING: return v->text.len == 0;
    case JSON_NUMBER: return json_to_int(v, &i) && i == 0;
    case JSON_ARRAY: return v->count == 0;
    default: return false;
    }
}

static int check_enum(struct kind_check *c, const struct kind_path *at, const struct kind_field *f,
                      const struct json *v)
{
    char names[512];
    size_t len = 0;
    if (v->type != JSON_STRING || v->text.len == 0) return 0;
    for (size_t i = 0; i < f->n_enums; i++)
        if (slice_eq(f->enums[i], v->text)) return 0;
    for (size_t i = 0; i < f->n_enums && len < sizeof(names); i++)
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s\"%.*s\"", i ? ", " : "",
                                (int)f->enums[i].len, (const char *)f->enums[i].data);
    return kind_complain(c, PROBLEM_NOT_SUPPORTED, at, v, "supported values: %s", names);
}

static int check_range(struct kind_check *c, const struct kind_path *at, const struct kind_field *f,
                       const struct json *v)
{
    int64_t i;
    if (v->type != JSON_NUMBER || !json_to_int(v, &i) || (i >= f->min && i <= f->max)) return 0;
    if ((f->flags & FIELD_HAS_MIN) && (f->flags & FIELD_HAS_MAX))
        return kind_complain(c, PROBLEM_INVALID, at, v, "must be between %lld and %lld, inclusive",
                             (long long)f->min, (long long)f->max);
    return kind_complain(c, PROBLEM_INVALID, at, v, "must be %s than or equal to %lld",
                         i < f->min ? "greater" : "less",
                         (long long)(i < f->min ? f->min : f->max));
}

static int check_element(struct kind_check *c, const struct kind_path *at,
                         const struct kind_field *f, const struct json *v, const struct json *old)
{
    int rc = 0;
    if (f->n_enums) rc = check_enum(c, at, f, v);
    if (!rc && (f->flags & (FIELD_HAS_MIN | FIELD_HAS_MAX))) rc = check_range(c, at, f, v);
    if (!rc && f->format && f->container != HOLDS_MAP && !is_empty(v)) rc = f->format(c, at, v);
    if (!rc && f->type && v->type == JSON_OBJECT) rc = check_object(c, at, f->type, v, old);
    return rc;
}

static int check_field(struct kind_check *c, const struct kind_path *at, const struct kind_field *f,
                       const struct json *v, const struct json *old)
{
    int rc = 0;
    if (f->container == HOLDS_ONE) return check_element(c, at, f, v, old);
    if (v->type != (f->container == HOLDS_LIST ? JSON_ARRAY : JSON_OBJECT)) return 0;
    if (f->format && f->container == HOLDS_MAP) rc = f->format(c, at, v);
    bool each = f->type || f->n_enums || (f->format && f->container == HOLDS_LIST);
    for (size_t i = 0; each && i < v->count && !rc; i++) {
        if (f->container == HOLDS_LIST)
            rc = check_element(c, PATH_IN(at, i), f, v->items[i], json_at(old, i));
        else
            rc = check_element(c, PATH_OF(at, v->members[i].name), f, v->members[i].value,
                               json_get_slice(old, v->members[i].name));
    }
    return rc;
}

/* What must be there, and what must stay as it was. */
static int check_presence(struct kind_check *c, const struct kind_path *at,
                          const struct kind_field *f, const struct json *v, const struct json *old)
{
    const struct json *now = json_get_slice(v, f->name), *before = json_get_slice(old, f->name);
    if ((f->flags & FIELD_NONEMPTY) && is_empty(now))
        return kind_complain(c, PROBLEM_REQUIRED, PATH_AT(at, f->name), NULL, "%s", "");
    if (!(f->flags & FIELD_IMMUTABLE) || !old || json_equal(now, before)) return 0;
    struct json none = {.type = JSON_NULL};
    return kind_complain(c, PROBLEM_INVALID, PATH_AT(at, f->name), now ? now : &none,
                         "field is immutable");
}

static int check_object(struct kind_check *c, const struct kind_path *at, const struct kind_type *t,
                        const struct json *v, const struct json *old)
{
    int rc = 0;
    for (size_t i = 0; i < t->n_fields && !rc; i++)
        if (t->fields[i].flags & (FIELD_NONEMPTY | FIELD_IMMUTABLE))
            rc = check_presence(c, at, &t->fields[i], v, old);
    for (size_t i = 0; i < v->count && !rc; i++) {
        const struct json_member *m = &v->members[i];
        const struct kind_field *f = kind_field_find(t, m->name);
        if (f && m->value->type != JSON_NULL)
            rc = check_field(c, PATH_AT(at, m->name), f, m->value,
                             old ? json_get_slice(old, m->name) : NULL);
    }
    return rc || !t->check ? rc : t->check(c, at, v, old);
}

/* ---- the object's own metadata ----------------------------------------------------------------
 */

static int check_generate_name(struct kind_check *c, const struct kind_path *at,
                               struct json *prefix)
{
    /* the server adds characters, so a hyphen at the end is fine */
    struct json masked = *prefix;
    struct slice copy = arena_dup(c->a, prefix->text);
    if (!copy.data) return ERR_NOMEM;
    if (copy.len > 1 && copy.data[copy.len - 1] == '-')
        ((uint8_t *)(uintptr_t)copy.data)[copy.len - 1] = 'a';
    masked.text = copy;
    size_t before = c->problems->count;
    int rc = c->kind->names(c, at, &masked);
    return rc || c->problems->count == before ? rc : 0;
}

static int check_unchanged(struct kind_check *c, const struct kind_path *at,
                           const struct json *meta, const struct json *old, const char *name)
{
    const struct json *now = json_get(meta, name), *before = json_get(old, name);
    struct json empty = {.type = JSON_STRING};
    if (!before || json_equal(now, before)) return 0;
    return kind_complain(c, PROBLEM_INVALID, PATH_STR(at, name), now ? now : &empty,
                         "field is immutable");
}

static int check_namespace_of(struct kind_check *c, const struct kind_path *at,
                              const struct json *ns)
{
    const struct kind_path *here = PATH_STR(at, "namespace");
    if (!c->kind->kind.namespaced)
        return is_empty(ns)
                   ? 0
                   : kind_complain(c, PROBLEM_FORBIDDEN, here, NULL, "not allowed on this type");
    if (is_empty(ns)) return kind_complain(c, PROBLEM_REQUIRED, here, NULL, "%s", "");
    return format_dns_label(c, here, ns);
}

static int by_text(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* The texts of a list in order, so that many can be looked up. */
static int sorted_texts(struct arena *a, const struct json *list, struct slice **ret, size_t *ret_n)
{
    size_t n = list ? list->count : 0;
    struct slice *texts = arena_calloc(a, n + 1, sizeof(*texts));
    if (!texts) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) texts[i] = json_text(json_at(list, i));
    if (n) qsort(texts, n, sizeof(*texts), by_text);
    *ret = texts;
    *ret_n = n;
    return 0;
}

/* Those of `now` that are not among `before`, as Go writes a list, each once; empty if there are none. */
static void show_new(struct buf *out, const struct slice *now, size_t n, const struct slice *before,
                     size_t n_before)
{
    for (size_t i = 0; i < n; i++) {
        bool again = i && slice_eq(now[i], now[i - 1]);
        if (again || bsearch(&now[i], before, n_before, sizeof(*before), by_text)) continue;
        if (out->len + now[i].len > SHOWN_BYTES) {
            buf_append_str(out, out->len ? ", ..." : "...");
            return;
        }
        buf_printf(out, "%s\"%.*s\"", out->len ? ", " : "", (int)now[i].len,
                   (const char *)now[i].data);
    }
}

/* Nobody who comes late can hold what is going already. */
static int check_no_new_finalizers(struct kind_check *c, const struct kind_path *at,
                                   const struct json *meta, const struct json *old)
{
    struct slice *now, *before;
    size_t n, n_before;
    struct buf shown;
    if (is_empty(json_get(old, "deletionTimestamp"))) return 0;
    int rc = sorted_texts(c->a, json_get(meta, "finalizers"), &now, &n);
    if (!rc) rc = sorted_texts(c->a, json_get(old, "finalizers"), &before, &n_before);
    if (rc) return rc;
    buf_init(&shown, 2 * SHOWN_BYTES);
    show_new(&shown, now, n, before, n_before);
    rc = shown.failed;
    if (!rc && shown.len)
        rc = kind_complain(c, PROBLEM_FORBIDDEN, PATH_STR(at, "finalizers"), NULL,
                           "no new finalizers can be added if the object is being deleted, found "
                           "new finalizers []string{%.*s}",
                           (int)shown.len, (const char *)shown.data);
    buf_release(&shown);
    return rc;
}

static int check_root_metadata(struct kind_check *c)
{
    const struct kind_path root = {.what = PATH_ROOT}, *at = PATH_STR(&root, "metadata");
    const struct json *meta = json_get(c->root, "metadata"),
                      *old = json_get(c->old_root, "metadata");
    struct json *name = json_get(meta, "name"), *generate = json_get(meta, "generateName");
    int rc = 0;
    if (is_empty(name))
        rc = kind_complain(c, PROBLEM_REQUIRED, PATH_STR(at, "name"), NULL,
                           "name or generateName is required");
    else rc = c->kind->names(c, PATH_STR(at, "name"), name);
    if (!rc && !is_empty(generate) && !c->old_root)
        rc = check_generate_name(c, PATH_STR(at, "generateName"), generate);
    if (!rc) rc = check_namespace_of(c, at, json_get(meta, "namespace"));
    if (!rc && old) rc = check_unchanged(c, at, meta, old, "name");
    if (!rc && old) rc = check_unchanged(c, at, meta, old, "namespace");
    if (!rc && old) rc = check_unchanged(c, at, meta, old, "uid");
    if (!rc && old) rc = check_no_new_finalizers(c, at, meta, old);
    return rc;
}

int kind_validate(struct arena *a, const struct kind *k, const struct json *object,
                  const struct json *old, struct kind_problems *p)
{
    struct kind_check c = {
        .a = a, .problems = p, .kind = kind_entry_of(k), .root = object, .old_root = old};
    if (object->type != JSON_OBJECT) return ERR_INVALID;
    int rc = check_root_metadata(&c);
    return rc ? rc : check_object(&c, &(struct kind_path){.what = PATH_ROOT}, k->type, object, old);
}
