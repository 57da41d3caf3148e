/* The parser: one pass, recursive to a bounded depth. Members and items are gathered on a stack
 * that is shared by all open containers, and copied to the arena in their exact number when the
 * container closes. */
#include "base/json_int.h"
#include "base/limits.h"
#include "base/mem.h"

#include <stdio.h>

#define STACK_INLINE 128

struct parser {
    const uint8_t *start, *p, *end;
    struct arena *a;
    struct json_error *e;
    int code;
    unsigned depth;
    struct json_member *stack;
    size_t top, room;
    struct json_member *grown; /* the stack, once it is not the inline one */
};

static struct json *parse_value(struct parser *s);

static void *fail_at(struct parser *s, const uint8_t *at, int code, const char *text)
{
    if (s->code) return NULL;
    s->code = code;
    if (s->e) {
        s->e->offset = (size_t)(at - s->start);
        snprintf(s->e->text, sizeof(s->e->text), "%s", text);
    }
    return NULL;
}

static void *fail(struct parser *s, const char *text)
{
    return fail_at(s, s->p, ERR_INVALID, s->p == s->end ? "unexpected end of JSON input" : text);
}

static void *fail_memory(struct parser *s)
{
    return fail_at(s, s->p, ERR_NOMEM, err_text(ERR_NOMEM));
}

static inline void skip_space(struct parser *s)
{
    const uint8_t *p = s->p;
    while (p < s->end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    s->p = p;
}

static inline struct json *new_value(struct parser *s, enum json_type type)
{
    struct json *v = arena_alloc(s->a, sizeof(*v));
    if (!v) return fail_memory(s);
    *v = (struct json){.type = type};
    return v;
}

static bool push(struct parser *s, struct slice name, struct json *value)
{
    if (s->top == s->room) {
        size_t room = s->room * 2;
        struct json_member *grown = mem_realloc(s->grown, room * sizeof(*grown));
        if (!grown) return fail_memory(s) != NULL;
        if (!s->grown) memcpy(grown, s->stack, s->top * sizeof(*grown));
        s->stack = s->grown = grown;
        s->room = room;
    }
    s->stack[s->top++] = (struct json_member){name, value};
    return true;
}

/* ---- strings ----------------------------------------------------------------------------------
 */

/* The length of the UTF-8 sequence at `p` (Unicode table 3-7: no overlong forms, no surrogates,
 * nothing above 10FFFF); 0 if it is none. */
static size_t utf8_length(const uint8_t *p, const uint8_t *end)
{
    size_t left = (size_t)(end - p);
    uint8_t c = p[0];
    if (c < 0x80) return 1;
    if (c < 0xc2 || c > 0xf4) return 0;
    size_t n = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (left < n) return 0;
    uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return n;
}

bool json_utf8(struct slice text)
{
    const uint8_t *p = text.data, *end = slice_end(text);
    for (size_t n; p < end; p += n)
        if ((n = utf8_length(p, end)) == 0) return false;
    return true;
}

/* From `p` to the first quote, backslash, control character or broken UTF-8. */
static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    for (;;) {
        while (end - p >= 8) {
            uint64_t x = json_load8(p);
            uint64_t hit = json_special(x) | (x & JSON_BYTES(0x80));
            if (hit) {
                p += __builtin_ctzll(hit) / 8;
                break;
            }
            p += 8;
        }
        while (p < end && *p >= 0x20 && *p < 0x80 && *p != '"' && *p != '\\') p++;
        if (p == end || *p < 0x80) return p;
        size_t n;
        while (p < end && *p >= 0x80) {
            n = utf8_length(p, end);
            if (n == 0) return p;
            p += n;
        }
    }
}

static int hex4(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 4) return -1;
    int v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], lower = c | 0x20;
        int digit = c >= '0' && c <= '9'           ? c - '0'
                    : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                   : -1;
        if (digit < 0) return -1;
        v = v << 4 | digit;
    }
    return v;
}

uint8_t *json_put_utf8(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (uint8_t)c;
    } else if (c < 0x800) {
        *out++ = (uint8_t)(0xc0 | c >> 6);
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (uint8_t)(0xe0 | c >> 12);
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | c >> 18);
        *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return out;
}

/* Behind a backslash and `u`: moves on and returns the code point; -1 and an error. */
static int32_t escaped_unicode(struct parser *s)
{
    const uint8_t *escape = s->p - 2;
    int32_t c = hex4(s->p, s->end);
    if (c < 0) return fail(s, "expected four hexadecimal digits behind \\u"), -1;
    s->p += 4;
    if (c < 0xd800 || c > 0xdfff) return c;
    int32_t low = -1;
    if (c < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u')
        low = hex4(s->p + 2, s->end);
    if (low < 0xdc00 || low > 0xdfff)
        return fail_at(s, escape, ERR_INVALID, "surrogate without its other half"), -1;
    s->p += 6;
    return 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
}

/* At a backslash: writes what it stands for; NULL and an error. */
static uint8_t *unescape_one(struct parser *s, uint8_t *out)
{
    s->p++;
    if (s->p == s->end) return fail(s, "");
    uint8_t c = *s->p++;
    switch (c) {
    case '"':
    case '\\':
    case '/': *out++ = c; return out;
    case 'b': *out++ = '\b'; return out;
    case 'f': *out++ = '\f'; return out;
    case 'n': *out++ = '\n'; return out;
    case 'r': *out++ = '\r'; return out;
    case 't': *out++ = '\t'; return out;
    case 'u': {
        int32_t point = escaped_unicode(s);
        return point < 0 ? NULL : json_put_utf8(out, (uint32_t)point);
    }
    default: return fail_at(s, s->p - 2, ERR_INVALID, "unknown escape in a string");
    }
}

static bool bad_character(struct parser *s)
{
    if (s->p < s->end && *s->p >= 0x80) fail(s, "invalid UTF-8 in a string");
    else fail(s, "control character in a string");
    return false;
}

/* The raw length up to the closing quote, to size the copy; the end of input if there is none. */
static size_t raw_length(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *q = p;
    while (q < end && *q != '"') q += *q == '\\' ? 2 : 1;
    return (size_t)((q < end ? q : end) - p);
}

static bool unescape(struct parser *s, const uint8_t *begin, struct slice *ret)
{
    uint8_t *copy = arena_alloc(s->a, raw_length(begin, s->end) + 1), *out = copy;
    if (!copy) return fail_memory(s) != NULL;
    s->p = begin;
    for (;;) {
        const uint8_t *stop = skip_plain(s->p, s->end);
        size_t n = (size_t)(stop - s->p);
        if (n) memcpy(out, s->p, n);
        out += n;
        s->p = stop;
        if (stop < s->end && *stop == '"') break;
        if (stop == s->end || *stop != '\\') return bad_character(s);
        out = unescape_one(s, out);
        if (!out) return false;
    }
    s->p++;
    *ret = slice_make(copy, (size_t)(out - copy));
    return true;
}

/* At the opening quote. */
static inline bool parse_string(struct parser *s, struct slice *ret)
{
    const uint8_t *begin = s->p + 1, *stop = skip_plain(begin, s->end);
    s->p = stop;
    if (stop < s->end && *stop == '"') {
        *ret = slice_make(begin, (size_t)(stop - begin));
        s->p++;
        return true;
    }
    if (stop == s->end || *stop != '\\') return bad_character(s);
    return unescape(s, begin, ret);
}

/* ---- numbers and words ------------------------------------------------------------------------
 */

static inline bool digit_at(const struct parser *s, const uint8_t *p)
{
    return p < s->end && *p >= '0' && *p <= '9';
}

static struct json *parse_number(struct parser *s)
{
    const uint8_t *begin = s->p, *p = begin;
    if (*p == '-') p++;
    if (!digit_at(s, p)) {
        s->p = p;
        return fail(s, "expected a digit");
    }
    bool zero = *p == '0';
    while (digit_at(s, p)) p++;
    if (zero && (size_t)(p - begin) > (*begin == '-' ? 2u : 1u))
        return fail(s, "a number must not start with 0");
    if (p < s->end && *p == '.') {
        s->p = ++p;
        if (!digit_at(s, p)) return fail(s, "expected a digit behind the decimal point");
        while (digit_at(s, p)) p++;
    }
    if (p < s->end && (*p | 0x20) == 'e') {
        p++;
        if (p < s->end && (*p == '+' || *p == '-')) p++;
        s->p = p;
        if (!digit_at(s, p)) return fail(s, "expected a digit in the exponent");
        while (digit_at(s, p)) p++;
    }
    s->p = p;
    struct json *v = new_value(s, JSON_NUMBER);
    if (v) v->text = slice_make(begin, (size_t)(p - begin));
    return v;
}

static struct json *parse_word(struct parser *s, const char *word, enum json_type type, bool value)
{
    size_t len = strlen(word);
    if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return fail(s, "expected a value");
    s->p += len;
    struct json *v = new_value(s, type);
    if (v) v->boolean = value;
    return v;
}

/* ---- containers -------------------------------------------------------------------------------
 */

static struct json *close_array(struct parser *s, struct json *v, size_t base)
{
    size_t n = s->top - base;
    if (n) {
        v->items = arena_alloc(s->a, n * sizeof(*v->items));
        if (!v->items) return fail_memory(s);
        for (size_t i = 0; i < n; i++) v->items[i] = s->stack[base + i].value;
    }
    v->count = v->size = n;
    s->top = base;
    s->depth--;
    s->p++;
    return v;
}

static struct json *parse_array(struct parser *s)
{
    struct json *v = new_value(s, JSON_ARRAY);
    size_t base = s->top;
    if (!v) return NULL;
    s->p++;
    skip_space(s);
    if (s->p < s->end && *s->p == ']') return close_array(s, v, base);
    for (;;) {
        struct json *item = parse_value(s);
        if (!item || !push(s, (struct slice){0}, item)) return NULL;
        skip_space(s);
        if (s->p < s->end && *s->p == ']') return close_array(s, v, base);
        if (s->p == s->end || *s->p != ',') return fail(s, "expected ',' or ']'");
        s->p++;
    }
}

static bool is_last_of_name(const struct json *v, ptrdiff_t at, struct json *value)
{
    value->duplicate = true;
    v->members[at].value = value;
    return true;
}

/* Few members: a filter of one bit per (length, first, last) makes nearly every name cost one test.
 */
static void adopt_few(struct json *v, const struct json_member *from, size_t n)
{
    uint64_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        struct slice name = from[i].name;
        unsigned mix = (unsigned)name.len;
        if (name.len) mix += name.data[0] * 7u + name.data[name.len - 1] * 13u;
        uint64_t bit = 1ull << (mix & 63);
        if (seen & bit) {
            ptrdiff_t at = json_find(v, name);
            if (at >= 0 && is_last_of_name(v, at, from[i].value)) continue;
        }
        seen |= bit;
        v->members[v->count++] = from[i];
    }
}

static int adopt_many(struct arena *a, struct json *v, const struct json_member *from, size_t n)
{
    int rc = json_index_build(a, v);
    for (size_t i = 0; !rc && i < n; i++) {
        ptrdiff_t at = json_find(v, from[i].name);
        if (at >= 0 && is_last_of_name(v, at, from[i].value)) continue;
        v->members[v->count++] = from[i];
        rc = json_index_add(a, v, v->count - 1);
    }
    return rc;
}

static struct json *close_object(struct parser *s, struct json *v, size_t base)
{
    size_t n = s->top - base;
    if (n) {
        v->members = arena_alloc(s->a, n * sizeof(*v->members));
        if (!v->members) return fail_memory(s);
        v->size = n;
        if (n <= JSON_INDEX_FROM) adopt_few(v, s->stack + base, n);
        else if (adopt_many(s->a, v, s->stack + base, n)) return fail_memory(s);
    }
    s->top = base;
    s->depth--;
    s->p++;
    return v;
}

static struct json *parse_object(struct parser *s)
{
    struct json *v = new_value(s, JSON_OBJECT);
    size_t base = s->top;
    if (!v) return NULL;
    s->p++;
    skip_space(s);
    if (s->p < s->end && *s->p == '}') return close_object(s, v, base);
    for (;;) {
        struct slice name;
        skip_space(s);
        if (s->p == s->end || *s->p != '"') return fail(s, "expected a member's name in quotes");
        if (!parse_string(s, &name)) return NULL;
        skip_space(s);
        if (s->p == s->end || *s->p != ':') return fail(s, "expected ':'");
        s->p++;
        struct json *value = parse_value(s);
        if (!value || !push(s, name, value)) return NULL;
        skip_space(s);
        if (s->p < s->end && *s->p == '}') return close_object(s, v, base);
        if (s->p == s->end || *s->p != ',') return fail(s, "expected ',' or '}'");
        s->p++;
    }
}

static struct json *parse_value(struct parser *s)
{
    skip_space(s);
    if (s->p == s->end) return fail(s, "");
    switch (*s->p) {
    case '"': {
        struct slice text;
        struct json *v = parse_string(s, &text) ? new_value(s, JSON_STRING) : NULL;
        if (v) v->text = text;
        return v;
    }
    case '{':
    case '[':
        if (s->depth == LIMIT_JSON_DEPTH) return fail_at(s, s->p, ERR_LIMIT, "nested too deeply");
        s->depth++;
        return *s->p == '{' ? parse_object(s) : parse_array(s);
    case 't': return parse_word(s, "true", JSON_BOOL, true);
    case 'f': return parse_word(s, "false", JSON_BOOL, false);
    case 'n': return parse_word(s, "null", JSON_NULL, false);
    case '-':
    case '0' ... '9': return parse_number(s);
    default: return fail(s, "expected a value");
    }
}

int json_parse(struct arena *a, struct slice input, unsigned flags, struct json **ret,
               struct json_error *e)
{
    struct json_member inline_stack[STACK_INLINE];
    if (flags & JSON_COPY) {
        input = arena_dup(a, input);
        if (!input.data) return ERR_NOMEM;
    }
    if (!input.data) input = SLICE_LIT("");
    struct parser s = {.start = input.data,
                       .p = input.data,
                       .end = input.data + input.len,
                       .a = a,
                       .e = e,
                       .stack = inline_stack,
                       .room = STACK_INLINE};
    struct json *v = parse_value(&s);
    if (v) {
        skip_space(&s);
        if (s.p != s.end) v = fail(&s, "unexpected text behind the value");
    }
    mem_free(s.grown);
    if (!v) return s.code;
    *ret = v;
    return 0;
}
