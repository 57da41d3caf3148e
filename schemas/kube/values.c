/* Scalar texts: quantities, times, base64, names. Sources: apimachinery's resource.Quantity
 * (canonical form), RFC 3339, RFC 4648, RFC 1123. */
#include <stdio.h>

#include "schemas/kube/kinds_int.h"

/* ---- quantities -------------------------------------------------------------------------------
 * In 10^-9 (the finest step there is), rounded up, at most INT64_MAX whole units. */

typedef __int128 nano;

#define NANO ((nano)1000000000)
#define NANO_MOST ((nano)INT64_MAX * NANO)

struct suffix {
    const char *text;
    int exponent; /* of ten, or with `binary` of two */
    bool binary;
};

static const struct suffix suffixes[] = {
    {"", 0, false},   {"m", -3, false}, {"k", 3, false},  {"M", 6, false},
    {"G", 9, false},  {"Ki", 10, true}, {"Mi", 20, true}, {"Gi", 30, true},
    {"Ti", 40, true}, {"Pi", 50, true}, {"Ei", 60, true}, {"n", -9, false},
    {"u", -6, false}, {"T", 12, false}, {"P", 15, false}, {"E", 18, false},
};

enum quantity_style { STYLE_DECIMAL, STYLE_BINARY, STYLE_EXPONENT };

/* "e3", "E-6": what stands behind the number; false if it is none. */
static bool parse_exponent(struct slice s, int *ret)
{
    if (s.len < 2 || (s.data[0] | 0x20) != 'e') return false;
    size_t i = 1;
    bool negative = s.data[1] == '-';
    if (negative || s.data[1] == '+') i++;
    if (i == s.len || s.len > 6) return false;
    int v = 0;
    for (; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
        v = v * 10 + (s.data[i] - '0');
    }
    *ret = negative ? -v : v;
    return true;
}

static bool parse_suffix(struct slice s, int *ret_ten, int *ret_two, enum quantity_style *ret_style)
{
    *ret_ten = *ret_two = 0;
    *ret_style = STYLE_DECIMAL;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        if (!slice_eq_str(s, suffixes[i].text)) continue;
        if (suffixes[i].binary) *ret_two = suffixes[i].exponent, *ret_style = STYLE_BINARY;
        else *ret_ten = suffixes[i].exponent;
        return true;
    }
    *ret_style = STYLE_EXPONENT;
    return parse_exponent(s, ret_ten);
}

/* mantissa x 10^ten x 2^two in nano units, rounded up, cut at the most. */
static nano scale(nano mantissa, bool inexact, int ten, int two)
{
    ten += 9;
    nano limit = NANO_MOST;
    for (; ten > 0; ten--)
        if (mantissa == 0 || __builtin_mul_overflow(mantissa, (nano)10, &mantissa)) break;
    if (ten > 0) return mantissa == 0 ? 0 : limit;
    for (; two > 0; two--)
        if (__builtin_mul_overflow(mantissa, (nano)2, &mantissa)) return limit;
    for (; ten < 0; ten++) {
        inexact |= mantissa % 10 != 0;
        mantissa /= 10;
        if (mantissa == 0) break;
    }
    mantissa += inexact;
    return mantissa > limit ? limit : mantissa;
}

static bool parse_quantity(struct slice s, nano *ret, enum quantity_style *ret_style)
{
    size_t i = 0, digits = 0;
    bool negative = s.len && s.data[0] == '-', point = false, inexact = false;
    if (negative || (s.len && s.data[0] == '+')) i++;
    nano mantissa = 0;
    int fraction = 0, ten, two;
    for (; i < s.len; i++) {
        uint8_t c = s.data[i];
        if (c == '.' && !point) {
            point = true;
            continue;
        }
        if (c < '0' || c > '9') break;
        digits++;
        if (mantissa > (nano)1000000000000000000ll * 10000000) { /* enough: the rest only rounds */
            inexact |= c != '0';
            fraction -= !point;
            continue;
        }
        mantissa = mantissa * 10 + (c - '0');
        fraction += point;
    }
    if (digits == 0 || !parse_suffix(slice_sub(s, i, s.len), &ten, &two, ret_style)) return false;
    if (fraction > 60) fraction = 60; /* below any rounding step */
    nano v = scale(mantissa, inexact, ten - fraction, two);
    *ret = negative ? -v : v;
    return true;
}

bool quantity_parse(struct slice text, int64_t *ret_milli)
{
    nano v;
    enum quantity_style style;
    if (!parse_quantity(text, &v, &style)) return false;
    nano milli = v / 1000000;
    if (v > 0 && v % 1000000) milli++;
    if (v < 0 && v % 1000000) milli--;
    *ret_milli = milli > INT64_MAX ? INT64_MAX : milli < -INT64_MAX ? -INT64_MAX : (int64_t)milli;
    return true;
}

static const char *decimal_suffix(int exponent)
{
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
        if (!suffixes[i].binary && suffixes[i].exponent == exponent) return suffixes[i].text;
    return "";
}

static int format_decimal(char *out, size_t size, nano v, bool exponent_style)
{
    int exponent = -9;
    while (v % 10 == 0 && exponent < 18) v /= 10, exponent++;
    while (exponent % 3 != 0) v *= 10, exponent--;
    char suffix[16];
    if (!exponent_style) snprintf(suffix, sizeof(suffix), "%s", decimal_suffix(exponent));
    else if (exponent == 0) suffix[0] = 0;
    else snprintf(suffix, sizeof(suffix), "e%d", exponent);
    return snprintf(out, size, "%lld%s", (long long)v, suffix);
}

static int format_binary(char *out, size_t size, nano v)
{
    static const char *const names[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
    int64_t whole = (int64_t)(v / NANO);
    size_t k = 0;
    while (k < 6 && whole % 1024 == 0) whole /= 1024, k++;
    return snprintf(out, size, "%lld%s", (long long)whole, names[k]);
}

int quantity_canonical(struct arena *a, struct slice in, struct slice *ret)
{
    nano v;
    enum quantity_style style;
    char text[64];
    int len;
    if (!parse_quantity(in, &v, &style)) return ERR_INVALID;
    if (style != STYLE_BINARY && (v >= NANO_MOST || v <= -NANO_MOST)) {
        *ret = in; /* beyond what can be calculated with: kept as it is */
        return 0;
    }
    if (v == 0) len = snprintf(text, sizeof(text), "0");
    else if (style == STYLE_BINARY && v % NANO == 0 && (v >= 1024 * NANO || v <= -1024 * NANO))
        len = format_binary(text, sizeof(text), v);
    else len = format_decimal(text, sizeof(text), v, style == STYLE_EXPONENT);
    if (slice_eq(in, slice_make(text, (size_t)len))) {
        *ret = in;
        return 0;
    }
    *ret = arena_dup(a, slice_make(text, (size_t)len));
    return ret->data ? 0 : ERR_NOMEM;
}

/* ---- times ------------------------------------------------------------------------------------
 */

static bool digits(struct slice s, size_t at, size_t n, int *ret)
{
    int v = 0;
    if (at + n > s.len) return false;
    for (size_t i = at; i < at + n; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
        v = v * 10 + (s.data[i] - '0');
    }
    *ret = v;
    return true;
}

/* Days since 1970-01-01 of a date in the Gregorian calendar. */
static int64_t days_of(int y, int m, int d)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int past = m > 2 ? y : y - 1; /* years whose leap day is behind us */
    return 365ll * y + past / 4 - past / 100 + past / 400 + (y == 0 && m <= 2 ? 0 : 1) +
           before[m - 1] + d - 719529;
}

static bool date_exists(int y, int m, int d)
{
    static const int length[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (m < 1 || m > 12 || d < 1) return false;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return d <= length[m - 1] + (m == 2 && leap);
}

static bool parse_zone(struct slice s, size_t at, int *ret_s)
{
    int h, m;
    *ret_s = 0;
    if (at + 1 == s.len && s.data[at] == 'Z') return true;
    if (at + 6 != s.len || (s.data[at] != '+' && s.data[at] != '-') || s.data[at + 3] != ':' ||
        !digits(s, at + 1, 2, &h) || !digits(s, at + 4, 2, &m) || h > 23 || m > 59)
        return false;
    *ret_s = (h * 3600 + m * 60) * (s.data[at] == '-' ? -1 : 1);
    return true;
}

bool time_parse(struct slice s, int64_t *ret_s, int *ret_us)
{
    int y, mo, d, h, mi, sec, zone, us = 0;
    if (s.len < 20 || s.data[4] != '-' || s.data[7] != '-' || s.data[10] != 'T' ||
        s.data[13] != ':' || s.data[16] != ':' || !digits(s, 0, 4, &y) || !digits(s, 5, 2, &mo) ||
        !digits(s, 8, 2, &d) || !digits(s, 11, 2, &h) || !digits(s, 14, 2, &mi) ||
        !digits(s, 17, 2, &sec) || !date_exists(y, mo, d) || h > 23 || mi > 59 || sec > 59)
        return false;
    size_t at = 19;
    if (s.data[at] == '.') {
        int unit = 100000;
        for (at++; at < s.len && s.data[at] >= '0' && s.data[at] <= '9'; at++, unit /= 10)
            us += (s.data[at] - '0') * unit;
        if (at == 20) return false;
    }
    if (at >= s.len || !parse_zone(s, at, &zone)) return false;
    *ret_s = days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec - zone;
    if (ret_us) *ret_us = us;
    return true;
}

static void civil(int64_t days, int *ret_y, int *ret_m, int *ret_d)
{
    int y = (int)(1970 + days / 366), m = 1;
    if (days < 0) y = (int)(1969 + days / 365);
    while (days_of(y + 1, 1, 1) <= days) y++;
    while (days_of(y, 1, 1) > days) y--;
    while (m < 12 && days_of(y, m + 1, 1) <= days) m++;
    *ret_y = y;
    *ret_m = m;
    *ret_d = (int)(days - days_of(y, m, 1)) + 1;
}

int time_canonical(struct arena *a, struct slice in, bool micro, struct slice *ret)
{
    int64_t t;
    int us, y, m, d;
    if (!time_parse(in, &t, &us)) return ERR_INVALID;
    if (in.data[in.len - 1] == 'Z' && in.len == (micro ? 27u : 20u)) {
        *ret = in;
        return 0;
    }
    int64_t days = t / 86400 - (t % 86400 < 0), s = t - days * 86400;
    civil(days, &y, &m, &d);
    if (y < 0 || y > 9999) return ERR_INVALID;
    char fraction[16] = "";
    if (micro) snprintf(fraction, sizeof(fraction), ".%06d", us);
    const char *text = arena_printf(a, "%04d-%02d-%02dT%02d:%02d:%02d%sZ", y, m, d, (int)(s / 3600),
                                    (int)(s / 60 % 60), (int)(s % 60), fraction);
    *ret = slice_str(text);
    return text ? 0 : ERR_NOMEM;
}

/* ---- base64 -----------------------------------------------------------------------------------
 */

static bool base64_digit(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

bool base64_is_valid(struct slice s, size_t *ret_bad_offset)
{
    size_t n = s.len, end = n;
    while (end && n - end < 2 && s.data[end - 1] == '=') end--;
    for (size_t i = 0; i < end; i++) {
        if (base64_digit(s.data[i])) continue;
        *ret_bad_offset = i;
        return false;
    }
    *ret_bad_offset = end;
    return n % 4 == 0;
}

size_t base64_decoded_length(struct slice s)
{
    size_t pad = 0;
    while (pad < 2 && pad < s.len && s.data[s.len - 1 - pad] == '=') pad++;
    return s.len / 4 * 3 - (s.len >= 4 ? pad : 0);
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool lower_or_digit(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alphanumeric(uint8_t c)
{
    return lower_or_digit(c) || (c >= 'A' && c <= 'Z');
}

static bool label_shape(struct slice s)
{
    if (s.len == 0 || !lower_or_digit(s.data[0]) || !lower_or_digit(s.data[s.len - 1]))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (!lower_or_digit(s.data[i]) && s.data[i] != '-') return false;
    return true;
}

bool name_is_dns1123_label(struct slice s)
{
    return s.len <= 63 && label_shape(s);
}

bool name_is_dns1123_subdomain(struct slice s)
{
    if (s.len > 253) return false;
    for (;;) {
        ptrdiff_t dot = slice_index(s, '.');
        if (!label_shape(dot < 0 ? s : slice_sub(s, 0, (size_t)dot))) return false;
        if (dot < 0) return true;
        s = slice_sub(s, (size_t)dot + 1, s.len);
    }
}

/* [A-Za-z0-9] at both ends, also -_. between. */
static bool qualified_part(struct slice s)
{
    if (s.len == 0 || s.len > 63 || !alphanumeric(s.data[0]) || !alphanumeric(s.data[s.len - 1]))
        return false;
    for (size_t i = 0; i < s.len; i++)
        if (!alphanumeric(s.data[i]) && s.data[i] != '-' && s.data[i] != '_' && s.data[i] != '.')
            return false;
    return true;
}

bool name_is_qualified(struct slice s)
{
    ptrdiff_t slash = slice_index(s, '/');
    if (slash < 0) return qualified_part(s);
    return name_is_dns1123_subdomain(slice_sub(s, 0, (size_t)slash)) &&
           qualified_part(slice_sub(s, (size_t)slash + 1, s.len));
}

bool label_value_is_valid(struct slice s)
{
    return s.len == 0 || qualified_part(s);
}
