/* Reads the .kinds texts (grammar: docs/kinds.md) into tables: one pass over the lines collects
 * groups, kinds, types and fields; then names of types become pointers, and what is derived is
 * filled in. */
#include <stdio.h>
#include <stdlib.h>

#include "schemas/kube/kinds_int.h"

#define MAX_WORDS 64
#define MAX_FIELDS 250 /* of one type: the hash keeps field numbers in a byte */

struct loader {
    struct arena *a;
    struct kinds_tables *t;
    struct err *e;
    const char *file;
    unsigned line;
    const char *group, *version, *package;
    struct kind_entry *kind; /* the block we are in: one of these two */
    struct kind_type *type;
    struct kind_type **last_type;
    struct slice words[MAX_WORDS];
    size_t n_words;
    /* of the block we are in, growing */
    size_t room_fields, room_columns, room_entries;
    const char **short_names, **categories, **selectable;
    size_t n_short, n_categories, n_selectable;
};

static int bad(struct loader *l, const char *what, struct slice word)
{
    return err_set(l->e, ERR_INVALID, "%s:%u: %s: %.*s", l->file, l->line, what, (int)word.len,
                   (const char *)word.data);
}

static int nomem(struct loader *l)
{
    return err_set(l->e, ERR_NOMEM, "%s", err_text(ERR_NOMEM));
}

/* ---- words ------------------------------------------------------------------------------------
 */

static int split_line(struct loader *l, struct slice line)
{
    size_t i = 0;
    l->n_words = 0;
    for (;;) {
        while (i < line.len && (line.data[i] == ' ' || line.data[i] == '\t')) i++;
        if (i == line.len || line.data[i] == '#') return 0;
        if (l->n_words == MAX_WORDS) return bad(l, "too many words", line);
        size_t from = i;
        if (line.data[i] == '"') {
            for (from = ++i; i < line.len && line.data[i] != '"';) i++;
            if (i == line.len) return bad(l, "quote without its end", line);
            l->words[l->n_words++] = slice_sub(line, from, i++ - from);
            continue;
        }
        while (i < line.len && line.data[i] != ' ' && line.data[i] != '\t') i++;
        l->words[l->n_words++] = slice_sub(line, from, i - from);
    }
}

/* "name=value" or "name"; the value is empty then. */
static struct slice attribute(struct slice word, struct slice *ret_value)
{
    ptrdiff_t at = slice_index(word, '=');
    *ret_value = at < 0 ? (struct slice){0} : slice_sub(word, (size_t)at + 1, word.len);
    return at < 0 ? word : slice_sub(word, 0, (size_t)at);
}

/* Splits at `by` into an array of the arena; *ret_n parts. */
static int split(struct loader *l, struct slice s, char by, struct slice **ret, size_t *ret_n)
{
    size_t n = 1;
    for (size_t i = 0; i < s.len; i++) n += s.data[i] == (uint8_t)by;
    struct slice *parts = arena_alloc(l->a, n * sizeof(*parts));
    if (!parts) return nomem(l);
    for (size_t i = 0; i < n; i++) {
        ptrdiff_t at = slice_index(s, by);
        parts[i] = at < 0 ? s : slice_sub(s, 0, (size_t)at);
        if (at >= 0) s = slice_sub(s, (size_t)at + 1, s.len);
        if (parts[i].len == 0) return bad(l, "empty part", s);
    }
    *ret = parts;
    *ret_n = n;
    return 0;
}

/* Adds a copy of `word` to a NULL-terminated list. */
static int list_add(struct loader *l, const char ***list, size_t *n, struct slice word)
{
    const char **grown = arena_calloc(l->a, *n + 2, sizeof(*grown));
    const char *copy = arena_strdup(l->a, word);
    if (!grown || !copy) return nomem(l);
    if (*n) memcpy(grown, *list, *n * sizeof(*grown));
    grown[(*n)++] = copy;
    *list = grown;
    return 0;
}

static int grow(struct loader *l, void *array, size_t n, size_t *room, size_t width)
{
    void **p = array;
    if (n < *room) return 0;
    size_t more = *room ? *room * 2 : 8;
    void *grown = arena_calloc(l->a, more, width);
    if (!grown) return nomem(l);
    if (n) memcpy(grown, *p, n * width);
    *p = grown;
    *room = more;
    return 0;
}

/* ---- fields -----------------------------------------------------------------------------------
 */

static const char *const shape_names[SHAPE_COUNT] = {
    "string", "bool",      "int32",         "int64", "double", "quantity",
    "time",   "microtime", "int-or-string", "bytes", "raw",    "object",
};

const char *kind_shape_name(enum kind_shape s)
{
    return shape_names[s];
}

static int parse_type(struct loader *l, struct kind_field *f, struct slice w)
{
    if (w.len && w.data[w.len - 1] == '?') {
        f->flags |= FIELD_POINTER;
        w.len--;
    }
    if (slice_has_prefix(w, SLICE_LIT("[]"))) f->container = HOLDS_LIST;
    if (slice_has_prefix(w, SLICE_LIT("{}"))) f->container = HOLDS_MAP;
    if (f->container != HOLDS_ONE) w = slice_sub(w, 2, w.len);
    for (int i = 0; i < SHAPE_OBJECT; i++) {
        if (slice_eq_str(w, shape_names[i])) {
            f->shape = (enum kind_shape)i;
            return 0;
        }
    }
    if (!w.len || w.data[0] < 'A' || w.data[0] > 'Z') return bad(l, "unknown type", w);
    f->shape = SHAPE_OBJECT;
    f->type_name = arena_strdup(l->a, w);
    return f->type_name ? 0 : nomem(l);
}

static int parse_number(struct loader *l, struct slice text, int64_t *ret)
{
    struct json v = {.type = JSON_NUMBER, .text = text};
    size_t digits = text.len && text.data[0] == '-' ? 1 : 0;
    for (size_t i = digits; i < text.len; i++)
        if (text.data[i] < '0' || text.data[i] > '9') return bad(l, "not a number", text);
    return digits < text.len && json_to_int(&v, ret) ? 0 : bad(l, "not a number", text);
}

static int parse_default(struct loader *l, struct kind_field *f, struct slice text)
{
    struct json *v;
    int rc = json_parse(l->a, text, 0, &v, NULL);
    if (rc) return rc == ERR_NOMEM ? nomem(l) : bad(l, "the default is no JSON", text);
    f->fallback = v;
    return 0;
}

static int parse_map_keys(struct loader *l, struct kind_field *f, struct slice value)
{
    struct slice *parts;
    const char **list = NULL;
    size_t n, n_list = 0;
    int rc = split(l, value, ',', &parts, &n);
    for (size_t i = 0; !rc && i < n; i++) rc = list_add(l, &list, &n_list, parts[i]);
    f->map_keys = list;
    return rc;
}

static int parse_attribute(struct loader *l, struct kind_field *f, struct slice word)
{
    static const struct {
        const char *name;
        unsigned flag;
    } flags[] = {{"required", FIELD_REQUIRED},
                 {"nonempty", FIELD_NONEMPTY},
                 {"immutable", FIELD_IMMUTABLE},
                 {"merge", FIELD_MERGE},
                 {"retainkeys", FIELD_RETAIN_KEYS},
                 {"set", FIELD_SET},
                 {"atomic", FIELD_ATOMIC},
                 {"min", FIELD_HAS_MIN},
                 {"max", FIELD_HAS_MAX}};
    struct slice value, name = attribute(word, &value);
    bool known = false;
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (!slice_eq_str(name, flags[i].name)) continue;
        f->flags |= flags[i].flag;
        known = true;
    }
    if (slice_eq_str(name, "min")) return parse_number(l, value, &f->min);
    if (slice_eq_str(name, "max")) return parse_number(l, value, &f->max);
    if (slice_eq_str(name, "keys")) return parse_map_keys(l, f, value);
    if (slice_eq_str(name, "default")) return parse_default(l, f, value);
    if (slice_eq_str(name, "enum"))
        return split(l, value, '|', (struct slice **)(void *)&f->enums, &f->n_enums);
    if (slice_eq_str(name, "format")) {
        f->format = kind_format_by_name(value);
        return f->format ? 0 : bad(l, "unknown format", value);
    }
    if (slice_eq_str(name, "merge") && value.len) {
        f->merge_key = arena_strdup(l->a, value);
        return f->merge_key ? 0 : nomem(l);
    }
    return known && !value.len ? 0 : bad(l, "unknown word", word);
}

static int parse_field(struct loader *l)
{
    struct kind_type *t = l->type;
    if (l->n_words < 2) return bad(l, "a field has a name and a type", l->words[0]);
    if (t->n_fields == MAX_FIELDS) return bad(l, "too many fields", l->words[0]);
    for (size_t i = 0; i < t->n_fields; i++)
        if (slice_eq(t->fields[i].name, l->words[0])) return bad(l, "field twice", l->words[0]);
    int rc = grow(l, &t->fields, t->n_fields, &l->room_fields, sizeof(*t->fields));
    if (rc) return rc;
    struct kind_field *f = &t->fields[t->n_fields];
    *f = (struct kind_field){.name = l->words[0], .min = INT64_MIN, .max = INT64_MAX};
    rc = parse_type(l, f, l->words[1]);
    for (size_t i = 2; !rc && i < l->n_words; i++) rc = parse_attribute(l, f, l->words[i]);
    if (!rc) t->n_fields++;
    return rc;
}

/* ---- kinds ------------------------------------------------------------------------------------
 */

/* column NAME TYPE FORMAT CELL [ARGUMENT...] [wide] */
static int parse_column(struct loader *l)
{
    struct kind_entry *k = l->kind;
    if (l->n_words < 5)
        return bad(l, "a column has a name, a type, a format and a cell", l->words[0]);
    struct kind_column c = {.name = arena_strdup(l->a, l->words[1]),
                            .type = arena_strdup(l->a, l->words[2])};
    c.format = slice_eq_str(l->words[3], "-") ? "" : arena_strdup(l->a, l->words[3]);
    if (!c.name || !c.type || !c.format) return nomem(l);
    c.wide = slice_eq_str(l->words[l->n_words - 1], "wide");
    struct slice cell = l->words[4];
    if (cell.data[0] == '.') {
        c.path = arena_strdup(l->a, slice_sub(cell, 1, cell.len));
        if (!c.path) return nomem(l);
    } else {
        c.cell = cell.data[0] == '@' ? kind_cell_by_name(slice_sub(cell, 1, cell.len)) : NULL;
        if (!c.cell) return bad(l, "unknown cell", cell);
    }
    const char **args = NULL;
    size_t n = 0;
    for (size_t i = 5; i < l->n_words - c.wide; i++) {
        struct slice w = l->words[i];
        if (w.data[0] == '.') w = slice_sub(w, 1, w.len);
        int rc = list_add(l, &args, &n, w);
        if (rc) return rc;
    }
    c.args = args;
    int rc = grow(l, &k->columns, k->n_columns, &l->room_columns, sizeof(c));
    if (!rc) ((struct kind_column *)(uintptr_t)k->columns)[k->n_columns++] = c;
    return rc;
}

static int parse_subresources(struct loader *l)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"status", KIND_STATUS},     {"scale", KIND_SCALE},
                 {"binding", KIND_BINDING},   {"eviction", KIND_EVICTION},
                 {"finalize", KIND_FINALIZE}, {"log", KIND_LOG}};
    for (size_t w = 1; w < l->n_words; w++) {
        unsigned bit = 0;
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            if (slice_eq_str(l->words[w], names[i].name)) bit = names[i].bit;
        if (!bit) return bad(l, "unknown subresource", l->words[w]);
        l->kind->kind.subresources |= bit;
    }
    return 0;
}

static int parse_words(struct loader *l, const char ***list, size_t *n)
{
    int rc = 0;
    for (size_t i = 1; !rc && i < l->n_words; i++) rc = list_add(l, list, n, l->words[i]);
    return rc;
}

static int parse_kind_line(struct loader *l)
{
    struct kind *k = &l->kind->kind;
    struct slice key = l->words[0];
    int rc = 0;
    if (slice_eq_str(key, "column")) return parse_column(l);
    if (slice_eq_str(key, "subresources")) return parse_subresources(l);
    if (slice_eq_str(key, "short")) {
        rc = parse_words(l, &l->short_names, &l->n_short);
        k->short_names = l->short_names;
        return rc;
    }
    if (slice_eq_str(key, "categories")) {
        rc = parse_words(l, &l->categories, &l->n_categories);
        k->categories = l->categories;
        return rc;
    }
    if (slice_eq_str(key, "select")) {
        rc = parse_words(l, &l->selectable, &l->n_selectable);
        k->selectable_fields = l->selectable;
        return rc;
    }
    if (l->n_words != 2) return bad(l, "expected one word behind", key);
    if (slice_eq_str(key, "scope")) {
        k->namespaced = slice_eq_str(l->words[1], "namespaced");
        return k->namespaced || slice_eq_str(l->words[1], "cluster")
                   ? 0
                   : bad(l, "a scope is namespaced or cluster", l->words[1]);
    }
    if (slice_eq_str(key, "names")) {
        l->kind->names = kind_format_by_name(l->words[1]);
        return l->kind->names ? 0 : bad(l, "unknown format", l->words[1]);
    }
    const char *text = arena_strdup(l->a, l->words[1]);
    if (!text) return nomem(l);
    if (slice_eq_str(key, "about")) l->kind->about = text;
    else if (slice_eq_str(key, "plural")) k->plural = text;
    else if (slice_eq_str(key, "storage")) k->storage_prefix = text;
    else return bad(l, "unknown word", key);
    return 0;
}

/* ---- blocks -----------------------------------------------------------------------------------
 */

static const char *lower_case(struct arena *a, struct slice s)
{
    char *copy = (char *)(uintptr_t)arena_strdup(a, s);
    for (char *p = copy; p && *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p + 32);
    return copy;
}

static int begin_kind(struct loader *l)
{
    struct kinds_tables *t = l->t;
    int rc = grow(l, &t->entries, t->n_entries, &l->room_entries, sizeof(*t->entries));
    if (rc) return rc;
    struct kind_entry *k = &t->entries[t->n_entries];
    *k = (struct kind_entry){.package = l->package};
    k->kind.group = l->group;
    k->kind.version = l->version;
    k->kind.api_version =
        l->group[0] ? arena_printf(l->a, "%s/%s", l->group, l->version) : l->version;
    k->kind.kind = arena_strdup(l->a, l->words[1]);
    k->kind.list_kind = arena_printf(l->a, "%sList", k->kind.kind ? k->kind.kind : "");
    k->kind.singular = lower_case(l->a, l->words[1]);
    if (!k->kind.api_version || !k->kind.kind || !k->kind.list_kind || !k->kind.singular)
        return nomem(l);
    l->kind = k;
    l->type = NULL;
    l->room_columns = l->n_short = l->n_categories = l->n_selectable = 0;
    l->short_names = l->categories = l->selectable = NULL;
    t->n_entries++;
    rc = list_add(l, &l->selectable, &l->n_selectable, SLICE_LIT("metadata.name"));
    if (!rc) rc = list_add(l, &l->selectable, &l->n_selectable, SLICE_LIT("metadata.namespace"));
    k->kind.selectable_fields = l->selectable;
    return rc;
}

static int begin_type(struct loader *l)
{
    for (struct kind_type *t = l->t->types; t; t = t->next)
        if (slice_eq_str(l->words[1], t->name)) return bad(l, "type twice", l->words[1]);
    struct kind_type *t = arena_calloc(l->a, 1, sizeof(*t));
    if (!t) return nomem(l);
    t->name = arena_strdup(l->a, l->words[1]);
    if (!t->name) return nomem(l);
    t->package = l->package;
    for (size_t i = 2; i < l->n_words; i++) {
        struct slice value, key = attribute(l->words[i], &value);
        if (slice_eq_str(key, "default-by")) t->default_by = kind_default_by_name(value);
        else if (slice_eq_str(key, "check")) t->check = kind_check_by_name(value);
        else return bad(l, "unknown word", key);
        if (slice_eq_str(key, "check") ? !t->check : !t->default_by)
            return bad(l, "no such function", value);
    }
    *l->last_type = t;
    l->last_type = &t->next;
    l->type = t;
    l->kind = NULL;
    l->room_fields = 0;
    l->t->n_types++;
    return 0;
}

static int parse_head(struct loader *l)
{
    struct slice key = l->words[0];
    if (l->n_words < 2) return bad(l, "a word is missing behind", key);
    if (slice_eq_str(key, "type") || slice_eq_str(key, "kind")) {
        if (!l->group || !l->version || !l->package)
            return bad(l, "group, version and package come first", key);
        return slice_eq_str(key, "type") ? begin_type(l) : begin_kind(l);
    }
    const char *text = arena_strdup(l->a, l->words[1]);
    if (!text) return nomem(l);
    if (slice_eq_str(key, "group")) l->group = slice_eq_str(l->words[1], "core") ? "" : text;
    else if (slice_eq_str(key, "version")) l->version = text;
    else if (slice_eq_str(key, "package")) l->package = text;
    else return bad(l, "unknown word", key);
    l->kind = NULL;
    l->type = NULL;
    return 0;
}

static int parse_source(struct loader *l, const struct kinds_source *s)
{
    struct slice rest = s->text;
    int rc = 0;
    l->file = s->name;
    l->group = l->version = l->package = NULL;
    l->kind = NULL;
    l->type = NULL;
    for (l->line = 1; rest.len && !rc; l->line++) {
        ptrdiff_t end = slice_index(rest, '\n');
        struct slice line = end < 0 ? rest : slice_sub(rest, 0, (size_t)end);
        rest = end < 0 ? (struct slice){0} : slice_sub(rest, (size_t)end + 1, rest.len);
        rc = split_line(l, line);
        if (rc || l->n_words == 0) continue;
        if (line.data[0] != ' ') rc = parse_head(l);
        else if (l->type) rc = parse_field(l);
        else if (l->kind) rc = parse_kind_line(l);
        else rc = bad(l, "an indented line outside of a type or kind", line);
    }
    return rc;
}

/* ---- what is derived --------------------------------------------------------------------------
 */

static unsigned name_hash(struct slice s)
{
    if (s.len == 0) return 0;
    return (unsigned)s.len + s.data[0] * 3u + s.data[s.len - 1] * 7u + s.data[s.len / 2] * 13u;
}

static struct kind_type *find_type(const struct kinds_tables *t, const char *name)
{
    for (struct kind_type *x = t->types; x; x = x->next)
        if (strcmp(x->name, name) == 0) return x;
    return NULL;
}

static int finish_type(struct loader *l, struct kind_type *t)
{
    unsigned size = 4;
    while (size < t->n_fields * 2) size *= 2;
    t->slots = arena_calloc(l->a, size, 1);
    if (!t->slots) return nomem(l);
    t->mask = size - 1;
    t->has_defaults = t->default_by != NULL;
    for (size_t i = 0; i < t->n_fields; i++) {
        struct kind_field *f = &t->fields[i];
        unsigned at = name_hash(f->name) & t->mask;
        while (t->slots[at]) at = (at + 1) & t->mask;
        t->slots[at] = (uint8_t)(i + 1);
        if (f->fallback) t->has_defaults = true;
        if (!f->type_name) continue;
        f->type = find_type(l->t, f->type_name);
        if (!f->type)
            return err_set(l->e, ERR_INVALID, "type %s, field %.*s: unknown type %s", t->name,
                           (int)f->name.len, (const char *)f->name.data, f->type_name);
    }
    return 0;
}

/* Types may refer to each other in circles, so this repeats until nothing changes. */
static void spread_has_defaults(struct kinds_tables *tables)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (struct kind_type *t = tables->types; t; t = t->next) {
            for (size_t i = 0; i < t->n_fields && !t->has_defaults; i++)
                if (t->fields[i].type && t->fields[i].type->has_defaults)
                    changed = t->has_defaults = true;
        }
    }
}

static int finish(struct loader *l)
{
    static const char *const none[] = {NULL};
    int rc = 0;
    for (struct kind_type *t = l->t->types; t && !rc; t = t->next) rc = finish_type(l, t);
    if (rc) return rc;
    spread_has_defaults(l->t);
    for (size_t i = 0; i < l->t->n_entries; i++) {
        struct kind *k = &l->t->entries[i].kind;
        if (!k->short_names) k->short_names = none;
        if (!k->categories) k->categories = none;
        k->type = find_type(l->t, k->kind);
        if (!l->t->entries[i].names)
            l->t->entries[i].names = kind_format_by_name(SLICE_LIT("dns-subdomain"));
        if (!k->type || !k->plural || !k->storage_prefix)
            return err_set(l->e, ERR_INVALID, "kind %s: its type, plural or storage is missing",
                           k->kind);
    }
    return 0;
}

int kinds_load_from(struct arena *a, const struct kinds_source *sources, size_t n,
                    struct kinds_tables *ret, struct err *e)
{
    struct kinds_tables t = {0};
    struct loader l = {.a = a, .t = &t, .e = e, .last_type = &t.types};
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = parse_source(&l, &sources[i]);
    if (!rc) rc = finish(&l);
    if (!rc) *ret = t;
    return rc;
}

const struct kind_field *kind_field_find(const struct kind_type *t, struct slice name)
{
    for (unsigned at = name_hash(name) & t->mask; t->slots[at]; at = (at + 1) & t->mask) {
        const struct kind_field *f = &t->fields[t->slots[at] - 1];
        if (slice_eq(f->name, name)) return f;
    }
    return NULL;
}
