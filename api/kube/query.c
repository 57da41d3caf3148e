/* Query strings, as Go's net/url reads them. */
#include "api/kube/kube_int.h"

#define QUERY_MAX_PAIRS 64

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

int percent_decode(struct arena *a, struct slice in, bool plus_is_space, struct slice *ret)
{
    bool plain = true;
    for (size_t i = 0; i < in.len && plain; i++) {
        plain = in.data[i] != '%' && !(plus_is_space && in.data[i] == '+');
    }
    if (plain) {
        *ret = in;
        return 0;
    }
    uint8_t *out = arena_alloc(a, in.len);
    if (!out) return ERR_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (c == '%') {
            if (in.len - i < 3) return ERR_INVALID;
            int high = hex_digit(in.data[i + 1]), low = hex_digit(in.data[i + 2]);
            if (high < 0 || low < 0) return ERR_INVALID;
            c = (uint8_t)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        out[n++] = c;
    }
    *ret = slice_make(out, n);
    return 0;
}

static int parse_pair(struct arena *a, struct slice piece, struct query_pair *ret)
{
    ptrdiff_t at = slice_index(piece, '=');
    struct slice name = at < 0 ? piece : slice_sub(piece, 0, (size_t)at);
    struct slice value = at < 0 ? (struct slice){0} : slice_sub(piece, (size_t)at + 1, piece.len);
    int code = percent_decode(a, name, true, &ret->name);
    return code ? code : percent_decode(a, value, true, &ret->value);
}

int query_parse(struct arena *a, struct slice text, struct query *ret)
{
    struct query q = {0};
    if (text.len) {
        q.pairs = arena_calloc(a, QUERY_MAX_PAIRS, sizeof(*q.pairs));
        if (!q.pairs) return ERR_NOMEM;
    }
    while (text.len) {
        ptrdiff_t at = slice_index(text, '&');
        struct slice piece = at < 0 ? text : slice_sub(text, 0, (size_t)at);
        text = at < 0 ? (struct slice){0} : slice_sub(text, (size_t)at + 1, text.len);
        if (!piece.len) continue;
        if (q.n == QUERY_MAX_PAIRS) return ERR_LIMIT;
        int code = parse_pair(a, piece, &q.pairs[q.n]);
        if (code) return code;
        q.n++;
    }
    *ret = q;
    return 0;
}

static const struct query_pair *find(const struct query *q, const char *name)
{
    for (size_t i = 0; i < q->n; i++) {
        if (slice_eq_str(q->pairs[i].name, name)) return &q->pairs[i];
    }
    return NULL;
}

struct slice query_get(const struct query *q, const char *name)
{
    const struct query_pair *p = find(q, name);
    return p ? p->value : (struct slice){0};
}

bool query_has(const struct query *q, const char *name)
{
    return find(q, name) != NULL;
}

int query_bool(const struct query *q, const char *name, bool *ret)
{
    static const char *const yes[] = {"", "1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};
    const struct query_pair *p = find(q, name);
    if (!p) return 0;
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) {
        if (slice_eq_str(p->value, yes[i])) return *ret = true, 0;
    }
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) {
        if (slice_eq_str(p->value, no[i])) return *ret = false, 0;
    }
    return ERR_INVALID;
}

int query_int(const struct query *q, const char *name, int64_t *ret)
{
    struct slice s = query_get(q, name);
    if (!s.len) return 0;
    bool negative = s.data[0] == '-';
    size_t i = negative || s.data[0] == '+' ? 1 : 0;
    if (i == s.len) return ERR_INVALID;
    int64_t v = 0;
    for (; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return ERR_INVALID;
        int64_t digit = s.data[i] - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, digit, &v)) return ERR_INVALID;
    }
    if (!negative && v == INT64_MIN) return ERR_INVALID;
    *ret = negative ? v : -v;
    return 0;
}
