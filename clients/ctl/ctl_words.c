/* Words of a line, and strings as Go writes them. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "clients/ctl/ctl_int.h"

/* The number that n digits at *p are, or -1; moves *p behind them. */
static int64_t digits(const char **p, int n, int base)
{
    char text[9] = {0};
    for (int i = 0; i < n; i++) {
        text[i] = **p;
        if (base == 16 ? !isxdigit((unsigned char)**p) : **p < '0' || **p > '7') return -1;
        (*p)++;
    }
    return (int64_t)strtoul(text, NULL, base);
}

/* Behind a backslash: writes what the escape stands for. NULL: it is none, or stands for NUL. */
static uint8_t *unescape(const char **p, uint8_t *out)
{
    static const char letters[] = "abfnrtv\\\"", bytes[] = "\a\b\f\n\r\t\v\\\"";
    const char *found = **p ? strchr(letters, **p) : NULL;
    if (found) {
        *out = (uint8_t)bytes[found - letters];
        (*p)++;
        return out + 1;
    }
    int n = **p == 'x' ? 2 : **p == 'u' ? 4 : **p == 'U' ? 8 : 3;
    if (n != 3) (*p)++;
    int64_t v = digits(p, n, n == 3 ? 8 : 16);
    if (v <= 0 || v > (n <= 3 ? 0xff : 0x10ffff) || (n > 3 && v >= 0xd800 && v <= 0xdfff)) return NULL;
    if (n > 3) return json_put_utf8(out, (uint32_t)v);
    *out = (uint8_t)v;
    return out + 1;
}

char *ctl_unquote(struct ctl *c, const char **p)
{
    const char *start = *p;
    uint8_t *text = arena_alloc(&c->arena, strlen(start)), *out = text; /* no escape is shorter than what it stands for */
    if (!text) return ctl_fail("out of memory"), NULL;
    for ((*p)++; **p && **p != '"';) {
        if (**p != '\\') {
            *out++ = (uint8_t)*(*p)++;
            continue;
        }
        (*p)++;
        if (!(out = unescape(p, out))) return ctl_fail("a string with an escape that is none, or for a NUL byte: %s", start), NULL;
    }
    if (!**p) return ctl_fail("a string without its end: %s", start), NULL;
    (*p)++;
    *out = 0;
    return (char *)text;
}

/* What stands in single quotes, or up to a space. */
static char *plain(struct ctl *c, const char **p)
{
    bool quoted = **p == '\'';
    const char *start = *p + quoted;
    size_t n = strcspn(start, quoted ? "'" : CTL_SPACES);
    if (quoted && !start[n]) return ctl_fail("a string without its end: %s", *p), NULL;
    *p = start + n + quoted;
    const char *copy = arena_strdup(&c->arena, slice_make(start, n));
    if (!copy) ctl_fail("out of memory");
    return (char *)copy;
}

int ctl_split(struct ctl *c, const char *line, char **words, int max)
{
    int n = 0;
    for (const char *p = line + strspn(line, CTL_SPACES); *p; p += strspn(p, CTL_SPACES)) {
        if (n == max) return ctl_fail("more than %d words: %s", max, line), -1;
        words[n] = *p == '"' ? ctl_unquote(c, &p) : plain(c, &p);
        if (!words[n++]) return -1;
    }
    return n;
}
