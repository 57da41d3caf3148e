#include "base/flags.h"

#include <stdlib.h>
#include <string.h>

static size_t long_len(const struct flag *f)
{
    return strcspn(f->name, ",");
}

static const struct flag *find(const struct flag *flags, const char *name, size_t len)
{
    for (const struct flag *f = flags; f->name; f++) {
        size_t n = long_len(f);
        if (n == len && memcmp(f->name, name, n) == 0) return f;
        if (len == 1 && f->name[n] == ',' && f->name[n + 1] == name[0]) return f;
    }
    return NULL;
}

int flag_duration_parse(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"", 1}};
    double total = 0;
    const char *p = text;
    if (!*p) return ERR_INVALID;
    while (*p) {
        char *end;
        double v = strtod(p, &end);
        size_t i = 0, n = strspn(end, "hms");
        if (end == p || v < 0 || v > 1e15) return ERR_INVALID;
        while (i < 5 && (strlen(units[i].unit) != n || memcmp(units[i].unit, end, n) != 0)) i++;
        if (i == 5 || (n == 0 && (p != text || *end))) return ERR_INVALID;
        total += v * units[i].ms;
        p = end + n;
    }
    *ret_ms = (uint64_t)total;
    return 0;
}

static int parse_int(const char *text, int64_t *ret)
{
    char *end;
    long long v = strtoll(text, &end, 0);
    if (end == text || *end) return ERR_INVALID;
    *ret = v;
    return 0;
}

static int parse_bool(const char *text, bool *ret)
{
    if (!strcmp(text, "true") || !strcmp(text, "1")) *ret = true;
    else if (!strcmp(text, "false") || !strcmp(text, "0")) *ret = false;
    else return ERR_INVALID;
    return 0;
}

static int set(const struct flag *f, const char *text, struct err *e)
{
    static const char *const expected[] = {"text", "a number", "true or false", "a duration like 5s or 100ms"};
    int rv = 0;
    switch (f->type) {
    case FLAG_STRING: *(const char **)f->value = text; break;
    case FLAG_INT: rv = parse_int(text, f->value); break;
    case FLAG_BOOL: rv = parse_bool(text, f->value); break;
    case FLAG_DURATION_MS: rv = flag_duration_parse(text, f->value); break;
    }
    if (rv == 0) return 0;
    return err_set(e, rv, "--%.*s: \"%s\" is not %s", (int)long_len(f), f->name, text, expected[f->type]);
}

int flags_parse(const struct flag *flags, int argc, char **argv, int *ret_argc, struct err *e)
{
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (arg[0] != '-' || !arg[1] || (arg[1] >= '0' && arg[1] <= '9')) {
            argv[kept++] = argv[i];
            continue;
        }
        if (!strcmp(arg, "--")) {
            while (++i < argc) argv[kept++] = argv[i];
            break;
        }
        const char *name = arg + (arg[1] == '-' ? 2 : 1);
        if (!strcmp(name, "help") || !strcmp(arg, "-h")) return ERR_CANCELED;
        size_t len = strcspn(name, "=");
        const char *value = name[len] ? name + len + 1 : NULL;
        const struct flag *f = find(flags, name, len);
        if (!f) return err_set(e, ERR_INVALID, "unknown flag: %s (see --help)", arg);
        if (!value && f->type == FLAG_BOOL) value = "true";
        if (!value && ++i < argc) value = argv[i];
        if (!value) return err_set(e, ERR_INVALID, "flag needs a value: %s", arg);
        int rv = set(f, value, e);
        if (rv != 0) return rv;
        if (f->given) *f->given = true;
    }
    *ret_argc = kept;
    return 0;
}

static void print_default(FILE *out, const struct flag *f)
{
    switch (f->type) {
    case FLAG_STRING:
        if (*(const char **)f->value) fprintf(out, " (default %s)", *(const char **)f->value);
        break;
    case FLAG_INT:
        if (*(int64_t *)f->value) fprintf(out, " (default %lld)", (long long)*(int64_t *)f->value);
        break;
    case FLAG_BOOL:
        if (*(bool *)f->value) fprintf(out, " (default true)");
        break;
    case FLAG_DURATION_MS:
        if (*(uint64_t *)f->value) fprintf(out, " (default %llums)", (unsigned long long)*(uint64_t *)f->value);
        break;
    }
}

void flags_help(FILE *out, const char *usage, const struct flag *flags)
{
    fprintf(out, "%s\n\nFlags:\n", usage);
    for (const struct flag *f = flags; f->name; f++) {
        char head[96];
        size_t n = long_len(f);
        int at = snprintf(head, sizeof(head), "  --%.*s", (int)n, f->name);
        if (f->name[n]) at += snprintf(head + at, sizeof(head) - (size_t)at, ", -%c", f->name[n + 1]);
        if (f->arg) snprintf(head + at, sizeof(head) - (size_t)at, " %s", f->arg);
        fprintf(out, "%-44s %s", head, f->help);
        print_default(out, f);
        fputc('\n', out);
    }
}
