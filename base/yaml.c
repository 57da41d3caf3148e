/* YAML documents as JSON trees, through libyaml's event parser. Plain scalars become what YAML 1.1 and Kubernetes'
 * own converter make of them; anchors and aliases are refused (they are how a small file becomes a huge one). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/limits.h"
#include "base/yaml.h"

struct reading {
    struct arena *arena;
    yaml_parser_t parser;
    struct err *e;
};

static int next_event(struct reading *r, yaml_event_t *event)
{
    if (yaml_parser_parse(&r->parser, event)) return 0;
    return err_set(r->e, ERR_INVALID, "yaml: line %zu: %s", r->parser.problem_mark.line + 1,
                   r->parser.problem ? r->parser.problem : "malformed document");
}

static bool one_of(struct slice s, const char *const *words)
{
    for (; *words; words++) {
        if (slice_eq_str(s, *words)) return true;
    }
    return false;
}

static bool digits(struct slice s, size_t from)
{
    if (from >= s.len) return false;
    for (size_t i = from; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
    }
    return true;
}

/* A decimal number that is valid JSON text as it stands (a leading zero is octal in YAML 1.1, so none of those). */
static bool json_number(struct slice s)
{
    size_t i = s.len && s.data[0] == '-' ? 1 : 0;
    if (i >= s.len || s.data[i] < '0' || s.data[i] > '9') return false;
    if (s.data[i] == '0' && i + 1 < s.len && s.data[i + 1] >= '0' && s.data[i + 1] <= '9') return false;
    while (i < s.len && s.data[i] >= '0' && s.data[i] <= '9') i++;
    if (i < s.len && s.data[i] == '.') {
        size_t from = ++i;
        while (i < s.len && s.data[i] >= '0' && s.data[i] <= '9') i++;
        if (i == from) return false;
    }
    if (i < s.len && (s.data[i] == 'e' || s.data[i] == 'E')) {
        i++;
        if (i < s.len && (s.data[i] == '+' || s.data[i] == '-')) i++;
        return digits(s, i);
    }
    return i == s.len;
}

/* 0o17, 017, 0x1f, +5: YAML's other integers. */
static bool other_integer(struct slice s, int64_t *ret)
{
    char text[32];
    if (s.len < 2 || s.len >= sizeof(text)) return false;
    memcpy(text, s.data, s.len);
    text[s.len] = 0;
    const char *p = text + (text[0] == '-' || text[0] == '+');
    int base = 10;
    if (p[0] == '0' && (p[1] == 'x' || p[1] == 'o')) {
        base = p[1] == 'x' ? 16 : 8;
        p += 2;
    } else if (p[0] == '0') {
        base = 8;
    }
    if (*p < '0' || *p > 'f') return false;
    char *end;
    errno = 0;
    long long v = strtoll(p, &end, base);
    if (*end || end == p || errno) return false;
    *ret = text[0] == '-' ? -v : v;
    return true;
}

static struct json *plain_scalar(struct arena *a, struct slice s)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL};
    int64_t v;
    if (one_of(s, nulls)) return json_null(a);
    if (one_of(s, yes)) return json_bool(a, true);
    if (one_of(s, no)) return json_bool(a, false);
    if (json_number(s)) {
        struct json *n;
        struct slice text = arena_dup(a, s);
        return text.data && json_parse(a, text, 0, &n, NULL) == 0 ? n : NULL;
    }
    if (other_integer(s, &v)) return json_int(a, v);
    return json_string_copy(a, s);
}

static int read_value(struct reading *r, yaml_event_t *event, unsigned depth, struct json **ret);

static int read_sequence(struct reading *r, unsigned depth, struct json **ret)
{
    struct json *array = json_array(r->arena);
    if (!array) return ERR_NOMEM;
    for (;;) {
        yaml_event_t event;
        struct json *item;
        int code = next_event(r, &event);
        if (code) return code;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            *ret = array;
            return 0;
        }
        code = read_value(r, &event, depth + 1, &item);
        if (!code) code = json_push(r->arena, array, item);
        if (code) return code;
    }
}

static int read_mapping(struct reading *r, unsigned depth, struct json **ret)
{
    struct json *object = json_object(r->arena);
    if (!object) return ERR_NOMEM;
    for (;;) {
        yaml_event_t event;
        struct json *value;
        int code = next_event(r, &event);
        if (code) return code;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            *ret = object;
            return 0;
        }
        if (event.type != YAML_SCALAR_EVENT) {
            yaml_event_delete(&event);
            return err_set(r->e, ERR_INVALID, "yaml: a key must be a plain word");
        }
        struct slice key = arena_dup(r->arena, slice_make(event.data.scalar.value, event.data.scalar.length));
        yaml_event_delete(&event);
        if (!key.data) return ERR_NOMEM;
        if (json_get_slice(object, key)) {
            return err_set(r->e, ERR_INVALID, "yaml: key \"%.*s\" already set in map", (int)key.len, (const char *)key.data);
        }
        code = next_event(r, &event);
        if (!code) code = read_value(r, &event, depth + 1, &value);
        if (!code) code = json_set(r->arena, object, key, value);
        if (code) return code;
    }
}

/* Takes the event over. */
static int read_value(struct reading *r, yaml_event_t *event, unsigned depth, struct json **ret)
{
    yaml_event_type_t type = event->type;
    int code = 0;
    *ret = NULL;
    if (type == YAML_SCALAR_EVENT) {
        struct slice s = slice_make(event->data.scalar.value, event->data.scalar.length);
        bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && event->data.scalar.plain_implicit;
        *ret = plain ? plain_scalar(r->arena, s) : json_string_copy(r->arena, s);
        if (!*ret) code = ERR_NOMEM;
    } else if (type == YAML_ALIAS_EVENT) {
        code = err_set(r->e, ERR_INVALID, "yaml: aliases are not accepted");
    }
    yaml_event_delete(event);
    if (code || *ret) return code;
    if (depth >= LIMIT_JSON_DEPTH) return err_set(r->e, ERR_LIMIT, "yaml: nested deeper than %d", LIMIT_JSON_DEPTH);
    if (type == YAML_SEQUENCE_START_EVENT) return read_sequence(r, depth, ret);
    if (type == YAML_MAPPING_START_EVENT) return read_mapping(r, depth, ret);
    return err_set(r->e, ERR_INVALID, "yaml: expected one document with a value");
}

static int read_document(struct reading *r, struct json **ret)
{
    yaml_event_t event;
    int code;
    do { /* stream start, document start */
        code = next_event(r, &event);
        if (code) return code;
        if (event.type != YAML_STREAM_START_EVENT && event.type != YAML_DOCUMENT_START_EVENT) break;
        yaml_event_delete(&event);
    } while (true);
    code = read_value(r, &event, 0, ret);
    while (!code) { /* document end, then the stream's */
        code = next_event(r, &event);
        if (code) return code;
        yaml_event_type_t type = event.type;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT) return 0;
        if (type != YAML_DOCUMENT_END_EVENT) return err_set(r->e, ERR_INVALID, "yaml: more than one document");
    }
    return code;
}

int yaml_to_json(struct arena *a, struct slice text, struct json **ret, struct err *e)
{
    struct reading r = {.arena = a, .e = e};
    if (!yaml_parser_initialize(&r.parser)) return ERR_NOMEM;
    yaml_parser_set_input_string(&r.parser, text.data ? text.data : (const uint8_t *)"", text.len);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    int code = read_document(&r, ret);
    yaml_parser_delete(&r.parser);
    return code;
}
