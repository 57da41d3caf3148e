#include "clients/lib/kjson.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/check.h"

struct builder {
    struct arena *arena;
    const char *p;
    va_list args;
    bool failed;
};

static struct json *build(struct builder *b, bool *ret_skip);

static struct slice member_name(struct builder *b)
{
    if (*b->p == '$') {
        b->p++;
        CHECK(*b->p == ':');
        return slice_str(va_arg(b->args, const char *));
    }
    size_t n = strcspn(b->p, ":");
    CHECK(b->p[n] == ':' && n > 0);
    struct slice name = slice_make(b->p, n);
    b->p += n;
    return name;
}

static struct json *build_object(struct builder *b)
{
    struct json *o = json_object(b->arena);
    if (!o) b->failed = true;
    while (*b->p != '}') {
        struct slice name = member_name(b);
        b->p++;
        bool skip = false;
        struct json *v = build(b, &skip);
        if (!skip && o && v && json_set(b->arena, o, name, v)) b->failed = true;
        if (*b->p == ',') b->p++;
        CHECK(*b->p);
    }
    b->p++;
    return o;
}

static struct json *build_array(struct builder *b)
{
    struct json *array = json_array(b->arena);
    if (!array) b->failed = true;
    while (*b->p != ']') {
        bool skip = false;
        struct json *v = build(b, &skip);
        if (!skip && array && v && json_push(b->arena, array, v)) b->failed = true;
        if (*b->p == ',') b->p++;
        CHECK(*b->p);
    }
    b->p++;
    return array;
}

static struct json *build_text(struct builder *b, struct slice s, bool *ret_skip)
{
    if (*b->p == '?') {
        b->p++;
        *ret_skip = s.len == 0;
    }
    return *ret_skip ? NULL : json_string(b->arena, s);
}

static struct json *build_tree(struct builder *b, struct json *v, bool *ret_skip)
{
    if (*b->p == '?') {
        b->p++;
        *ret_skip = v == NULL;
        return v;
    }
    return v ? v : json_null(b->arena);
}

static struct json *build_literal(struct builder *b)
{
    size_t n = strcspn(b->p, "'");
    CHECK(b->p[n] == '\'');
    struct json *v = json_string(b->arena, slice_make(b->p, n));
    b->p += n + 1;
    return v;
}

static struct json *build(struct builder *b, bool *ret_skip)
{
    struct json *v = NULL;
    switch (*b->p++) {
    case '{': return build_object(b);
    case '[': return build_array(b);
    case '\'': v = build_literal(b); break;
    case 's': v = build_text(b, slice_str(va_arg(b->args, const char *)), ret_skip); break;
    case 't': v = build_text(b, va_arg(b->args, struct slice), ret_skip); break;
    case 'i': v = json_int(b->arena, va_arg(b->args, int64_t)); break;
    case 'b': v = json_bool(b->arena, va_arg(b->args, int)); break;
    case 'o': v = build_tree(b, va_arg(b->args, struct json *), ret_skip); break;
    case 'T': v = json_bool(b->arena, true); break;
    case 'F': v = json_bool(b->arena, false); break;
    case 'N': v = json_null(b->arena); break;
    default: CHECK(!"a known letter in a kjson pattern");
    }
    if (!v && !*ret_skip) b->failed = true;
    return v;
}

struct json *kjson(struct arena *a, const char *pattern, ...)
{
    struct builder b = {.arena = a, .p = pattern};
    va_start(b.args, pattern);
    bool skip = false;
    struct json *v = build(&b, &skip);
    va_end(b.args);
    CHECK(*b.p == 0);
    return b.failed ? NULL : v;
}

void kjson_keep(struct json *object, const char *const *names)
{
    if (!object || object->type != JSON_OBJECT) return;
    size_t i = object->count;
    while (i--) {
        struct slice name = object->members[i].name;
        const char *const *n = names;
        while (*n && !slice_eq_str(name, *n)) n++;
        if (!*n) json_remove(object, name);
    }
}

static const char *format_time(struct arena *a, int64_t wall_ms, bool micro)
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[40];
    gmtime_r(&s, &tm);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    if (micro) snprintf(text + n, sizeof(text) - n, ".%06dZ", (int)(wall_ms % 1000) * 1000);
    else snprintf(text + n, sizeof(text) - n, "Z");
    return arena_strdup(a, slice_str(text));
}

const char *kjson_time(struct arena *a, int64_t wall_ms)
{
    return format_time(a, wall_ms, false);
}

const char *kjson_micro_time(struct arena *a, int64_t wall_ms)
{
    return format_time(a, wall_ms, true);
}

/* The fraction and the zone behind the seconds. */
static bool parse_tail(const char *p, int64_t *ret_ms)
{
    int64_t ms = 0, scale = 100;
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9'; p++) {
            ms += (*p - '0') * scale;
            scale /= 10;
        }
    }
    if ((*p == 'Z' || *p == 'z') && !p[1]) {
        *ret_ms = ms;
        return true;
    }
    int hours, minutes;
    char end;
    if ((*p != '+' && *p != '-') || sscanf(p + 1, "%2d:%2d%c", &hours, &minutes, &end) != 2)
        return false;
    int64_t offset = (hours * 60 + minutes) * 60000LL;
    *ret_ms = *p == '+' ? ms - offset : ms + offset;
    return true;
}

bool kjson_parse_time(struct slice text, int64_t *ret_ms)
{
    char buf[64];
    if (text.len >= sizeof(buf) || text.len < 20) return false;
    memcpy(buf, text.data, text.len);
    buf[text.len] = 0;
    struct tm tm = {0};
    const char *rest = strptime(buf, "%Y-%m-%dT%H:%M:%S", &tm);
    int64_t tail;
    if (!rest || !parse_tail(rest, &tail)) return false;
    *ret_ms = (int64_t)timegm(&tm) * 1000 + tail;
    return true;
}
