/* Numbers by value, and equality. A number is brought to the form digits x 10^exponent without
 * zeros at either end, so that nothing is rounded on the way to a comparison. */
#include "base/json_int.h"

#include <stdio.h>
#include <stdlib.h>

/* Significant digits that decide how a double is rounded: 767, and one for "there is more". */
#define DOUBLE_DIGITS 768

struct decimal {
    bool negative;
    bool huge_exponent; /* beyond what can be calculated with: only equal texts are equal */
    struct slice text;  /* from the first to the last significant digit; may hold a point */
    size_t digits;      /* in text, without the point; 0 = the number is zero */
    int64_t exponent;   /* of the last digit */
};

static size_t next_digit(struct slice s, size_t i)
{
    return i < s.len && s.data[i] == '.' ? i + 1 : i;
}

static bool parse_exponent(struct slice s, int64_t *ret)
{
    bool negative = s.len && s.data[0] == '-';
    int64_t v = 0;
    for (size_t i = s.len && (s.data[0] == '-' || s.data[0] == '+'); i < s.len; i++) {
        v = v * 10 + (s.data[i] - '0');
        if (v > INT64_MAX / 1000) return false;
    }
    *ret = negative ? -v : v;
    return true;
}

static struct decimal decimal_of(struct slice s)
{
    struct decimal d = {.negative = s.len && s.data[0] == '-'};
    if (d.negative) s = slice_sub(s, 1, s.len);
    ptrdiff_t e = slice_index(s, 'e');
    if (e < 0) e = slice_index(s, 'E');
    if (e >= 0) {
        d.huge_exponent = !parse_exponent(slice_sub(s, (size_t)e + 1, s.len), &d.exponent);
        s.len = (size_t)e;
    }
    ptrdiff_t point = slice_index(s, '.');
    if (point >= 0) d.exponent -= (int64_t)(s.len - (size_t)point - 1);
    while (s.len && (s.data[0] == '0' || s.data[0] == '.')) s = slice_sub(s, 1, s.len);
    while (s.len && (s.data[s.len - 1] == '0' || s.data[s.len - 1] == '.')) {
        d.exponent += s.data[s.len - 1] == '0';
        s.len--;
    }
    d.text = s;
    d.digits = s.len - (slice_index(s, '.') >= 0);
    if (d.digits == 0) d = (struct decimal){0};
    return d;
}

static bool decimal_equal(struct slice x, struct slice y)
{
    if (slice_eq(x, y)) return true;
    struct decimal a = decimal_of(x), b = decimal_of(y);
    if (a.digits != b.digits || a.negative != b.negative || a.huge_exponent || b.huge_exponent ||
        a.exponent != b.exponent)
        return false;
    for (size_t n = a.digits, i = 0, j = 0; n; n--, i++, j++) {
        i = next_digit(a.text, i);
        j = next_digit(b.text, j);
        if (a.text.data[i] != b.text.data[j]) return false;
    }
    return true;
}

bool json_to_int(const struct json *v, int64_t *ret)
{
    if (!v || v->type != JSON_NUMBER) return false;
    struct decimal d = decimal_of(v->text);
    if (d.huge_exponent || d.exponent < 0 || d.exponent > 18 || d.digits > 19) return false;
    int64_t i = 0; /* built below zero, where there is room for INT64_MIN */
    size_t at = 0;
    for (size_t n = 0; n < d.digits + (size_t)d.exponent; n++) {
        int digit = 0;
        if (n < d.digits) {
            at = next_digit(d.text, at);
            digit = d.text.data[at++] - '0';
        }
        if (__builtin_mul_overflow(i, 10, &i) || __builtin_sub_overflow(i, digit, &i)) return false;
    }
    if (!d.negative && __builtin_sub_overflow(0, i, &i)) return false;
    *ret = i;
    return true;
}

bool json_to_double(const struct json *v, double *ret)
{
    char text[DOUBLE_DIGITS + 40];
    if (!v || v->type != JSON_NUMBER) return false;
    struct decimal d = decimal_of(v->text);
    if (d.huge_exponent) {
        ptrdiff_t e = slice_index(v->text, 'e');
        if (e < 0) e = slice_index(v->text, 'E');
        if (v->text.data[e + 1] != '-') return false; /* beyond the largest double */
        d.digits = 0;
    }
    size_t n = 0, at = 0;
    if (d.negative) text[n++] = '-';
    text[n++] = '0';
    for (size_t i = 0; i < d.digits && i < DOUBLE_DIGITS; i++) {
        at = next_digit(d.text, at);
        text[n++] = (char)d.text.data[at++];
    }
    if (d.digits > DOUBLE_DIGITS) { /* the rest only says "a bit more" */
        text[n++] = '1';
        d.exponent += (int64_t)(d.digits - DOUBLE_DIGITS) - 1;
    }
    if (d.digits == 0 && v->text.data[0] == '-') memcpy(text, "-0", n = 2);
    snprintf(text + n, sizeof(text) - n, "e%lld", (long long)d.exponent);
    double result = strtod(text, NULL);
    if (result > 1.7976931348623157e308 || result < -1.7976931348623157e308) return false;
    *ret = result;
    return true;
}

/* ---- equality ---------------------------------------------------------------------------------
 */

static bool objects_equal_indexed(const struct json *x, const struct json *y)
{
    for (size_t i = 0; i < x->count; i++) {
        const struct json_member *m = &x->members[i];
        if (i < y->count && slice_eq(m->name, y->members[i].name)) {
            if (!json_equal(m->value, y->members[i].value)) return false;
            continue;
        }
        ptrdiff_t at = json_find(y, m->name);
        if (at < 0 || !json_equal(m->value, y->members[at].value)) return false;
    }
    return true;
}

/* Names are unique, so equal counts and every member found is equality. An index is lent to a large
 * object that has none (it was built by hand or had a member removed); without memory for it the
 * search is only slower. */
static bool objects_equal(const struct json *x, const struct json *y)
{
    if (x->count != y->count) return false;
    if (x->index && !y->index) return objects_equal(y, x);
    if (y->index || y->count <= JSON_INDEX_FROM) return objects_equal_indexed(x, y);
    struct arena scratch = {0};
    struct json lent = *y;
    if (json_index_build(&scratch, &lent)) lent.index = NULL;
    bool equal = objects_equal_indexed(x, &lent);
    arena_release(&scratch);
    return equal;
}

static bool arrays_equal(const struct json *x, const struct json *y)
{
    if (x->count != y->count) return false;
    for (size_t i = 0; i < x->count; i++)
        if (!json_equal(x->items[i], y->items[i])) return false;
    return true;
}

bool json_equal(const struct json *x, const struct json *y)
{
    if (x == y) return true;
    if (!x || !y || x->type != y->type) return false;
    switch (x->type) {
    case JSON_NULL: return true;
    case JSON_BOOL: return x->boolean == y->boolean;
    case JSON_NUMBER: return decimal_equal(x->text, y->text);
    case JSON_STRING: return slice_eq(x->text, y->text);
    case JSON_ARRAY: return arrays_equal(x, y);
    default: return objects_equal(x, y);
    }
}
