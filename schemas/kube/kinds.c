/* The loaded tables and the ways to find a kind in them, and the list of problems. */
#include "schemas/kube/kinds.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/limits.h"
#include "schemas/kube/kinds_int.h"

#define MAX_SOURCES 64

static struct arena memory;
static struct kinds_tables tables;
static bool loaded;

int kinds_load(struct err *e)
{
    struct kinds_source sources[MAX_SOURCES];
    size_t n = kinds_embedded_count();
    if (loaded) return 0;
    CHECK(n <= MAX_SOURCES);
    for (size_t i = 0; i < n; i++) sources[i] = kinds_embedded(i);
    int rc = kinds_load_from(&memory, sources, n, &tables, e);
    if (rc) arena_release(&memory);
    loaded = rc == 0;
    return rc;
}

const struct kinds_tables *kinds_tables(void)
{
    return &tables;
}

size_t kinds_count(void)
{
    return tables.n_entries;
}

const struct kind *kinds_at(size_t i)
{
    return i < tables.n_entries ? &tables.entries[i].kind : NULL;
}

const struct kind_entry *kind_entry_of(const struct kind *k)
{
    return (const struct kind_entry *)(const void *)k; /* its first member */
}

const struct kind_type *kind_type_named(const char *name)
{
    for (const struct kind_type *t = tables.types; t; t = t->next)
        if (strcmp(t->name, name) == 0) return t;
    return NULL;
}

const struct kind *kind_by_resource(struct slice group, struct slice version, struct slice plural)
{
    for (size_t i = 0; i < tables.n_entries; i++) {
        const struct kind *k = &tables.entries[i].kind;
        if (slice_eq_str(plural, k->plural) && slice_eq_str(group, k->group) &&
            slice_eq_str(version, k->version))
            return k;
    }
    return NULL;
}

const struct kind *kind_by_name(struct slice api_version, struct slice kind)
{
    for (size_t i = 0; i < tables.n_entries; i++) {
        const struct kind *k = &tables.entries[i].kind;
        if (slice_eq_str(kind, k->kind) && slice_eq_str(api_version, k->api_version)) return k;
    }
    return NULL;
}

/* ---- paths ------------------------------------------------------------------------------------
 */

static void write_path(struct buf *out, const struct kind_path *p)
{
    if (!p || p->what == PATH_ROOT) return;
    write_path(out, p->up);
    if (p->what == PATH_INDEX) {
        buf_printf(out, "[%zu]", p->index);
    } else if (p->what == PATH_KEY) {
        buf_append_byte(out, '[');
        buf_append_slice(out, p->name);
        buf_append_byte(out, ']');
    } else {
        if (out->len) buf_append_byte(out, '.');
        buf_append_slice(out, p->name);
    }
}

const char *kind_path_text(struct arena *a, const struct kind_path *p)
{
    struct buf out = {0};
    write_path(&out, p);
    const char *text = out.failed ? NULL : arena_strdup(a, buf_slice(&out));
    buf_release(&out);
    return text;
}

/* ---- problems ---------------------------------------------------------------------------------
 */

void kind_problems_init(struct kind_problems *p, struct arena *a)
{
    *p = (struct kind_problems){.arena = a};
    p->last = &p->first;
}

int kind_problem_add(struct kind_problems *p, enum kind_problem_type type, const char *field,
                     const char *bad_value, const char *format, ...)
{
    char detail[1024];
    va_list ap;
    /* A client knows enough by now; but unknown fields, which may be all right, leave room for what never is. */
    if (p->count >= LIMIT_KIND_PROBLEMS - (type == PROBLEM_UNKNOWN_FIELD)) return 0;
    va_start(ap, format);
    vsnprintf(detail, sizeof(detail), format, ap);
    va_end(ap);
    struct kind_problem *x = arena_calloc(p->arena, 1, sizeof(*x));
    if (!x) return ERR_NOMEM;
    x->type = type;
    x->field = arena_strdup(p->arena, slice_str(field));
    x->detail = arena_strdup(p->arena, slice_str(detail));
    x->bad_value = bad_value ? arena_strdup(p->arena, slice_str(bad_value)) : NULL;
    if (!x->field || !x->detail || (bad_value && !x->bad_value)) return ERR_NOMEM;
    *p->last = x;
    p->last = &x->next;
    p->count++;
    return 0;
}

static const char *problem_title(enum kind_problem_type type)
{
    switch (type) {
    case PROBLEM_REQUIRED: return "Required value";
    case PROBLEM_NOT_SUPPORTED: return "Unsupported value";
    case PROBLEM_DUPLICATE: return "Duplicate value";
    case PROBLEM_FORBIDDEN: return "Forbidden";
    case PROBLEM_TOO_LONG: return "Too long";
    case PROBLEM_TOO_MANY: return "Too many";
    case PROBLEM_NOT_FOUND: return "Not found";
    default: return "Invalid value";
    }
}

const char *kind_problem_text(struct arena *a, const struct kind_problem *p)
{
    if (p->type == PROBLEM_UNKNOWN_FIELD) return arena_printf(a, "unknown field \"%s\"", p->field);
    if (p->type == PROBLEM_TYPE) return p->detail;
    const char *title = problem_title(p->type);
    bool shows_value = p->bad_value && p->type != PROBLEM_REQUIRED &&
                       p->type != PROBLEM_FORBIDDEN && p->type != PROBLEM_TOO_LONG &&
                       p->type != PROBLEM_TOO_MANY;
    return arena_printf(a, "%s: %s%s%s%s%s", p->field, title, shows_value ? ": " : "",
                        shows_value ? p->bad_value : "", p->detail[0] ? ": " : "", p->detail);
}
