/* The tables behind kinds.h, shared between the files of schemas/kube only. Built by load.c,
 * read-only afterwards. docs/kinds.md explains the words. */
#ifndef PINTLE_SCHEMAS_KUBE_KINDS_INT_H
#define PINTLE_SCHEMAS_KUBE_KINDS_INT_H

#include "schemas/kube/kinds.h"

/* What one value is. */
enum kind_shape {
    SHAPE_STRING,
    SHAPE_BOOL,
    SHAPE_INT32,
    SHAPE_INT64,
    SHAPE_DOUBLE,
    SHAPE_QUANTITY,
    SHAPE_TIME,
    SHAPE_MICROTIME,
    SHAPE_INT_OR_STRING,
    SHAPE_BYTES,
    SHAPE_RAW,
    SHAPE_OBJECT,
    SHAPE_COUNT
};

/* How many of them: one, a list, a map from strings. */
enum kind_container { HOLDS_ONE, HOLDS_LIST, HOLDS_MAP };

enum {
    FIELD_POINTER = 1,  /* an explicit zero is not the same as nothing */
    FIELD_REQUIRED = 2, /* in the schema's `required` list */
    FIELD_NONEMPTY = 4, /* absent or empty: "Required value" */
    FIELD_IMMUTABLE = 8,
    FIELD_MERGE = 16, /* strategic merge: by key, or as a set of scalars */
    FIELD_RETAIN_KEYS = 32,
    FIELD_SET = 64, /* list type of server-side apply, for OpenAPI */
    FIELD_ATOMIC = 128,
    FIELD_HAS_MIN = 256,
    FIELD_HAS_MAX = 512,
};

struct kind_path;
struct kind_check; /* validate.c: what a check is given */

/* Computed defaults and checks of one type, found by the name that the data gives. */
typedef int (*kind_default_fn)(struct arena *a, const struct json *root, struct json *object);
typedef int (*kind_check_fn)(struct kind_check *c, const struct kind_path *at,
                             const struct json *object, const struct json *old);
/* A check of one string (or one number or map, where the format says so). */
typedef int (*kind_format_fn)(struct kind_check *c, const struct kind_path *at,
                              const struct json *value);
/* One cell of a table: `args` as the column gives them. NULL when out of memory. */
struct kind_cell;
typedef struct json *(*kind_cell_fn)(struct arena *a, const struct json *object, int64_t now_s,
                                     const char *const *args);

struct kind_field {
    struct slice name;
    enum kind_shape shape;
    enum kind_container container;
    unsigned flags;
    const struct kind_type *type; /* of SHAPE_OBJECT */
    const char *merge_key;        /* NULL: scalars are merged as a set */
    const char *const *map_keys;  /* NULL-terminated, or NULL */
    const struct json *fallback;  /* the default */
    const struct slice *enums;
    size_t n_enums;
    int64_t min, max;
    kind_format_fn format;
    const char *type_name; /* while loading */
};

struct kind_type {
    const char *name;    /* "PodSpec" */
    const char *package; /* "io.k8s.api.core.v1" */
    struct kind_field *fields;
    size_t n_fields;
    uint8_t *slots; /* a hash of names: field number + 1 */
    unsigned mask;
    kind_default_fn default_by;
    kind_check_fn check;
    bool has_defaults; /* here or below */
    struct kind_type *next;
};

struct kind_column {
    const char *name, *type, *format;
    const char *path; /* a plain cell: the text at this path; NULL: `cell` makes it */
    kind_cell_fn cell;
    const char *const *args;
    bool wide;
};

/* What stands behind a public struct kind. */
struct kind_entry {
    struct kind kind;
    const char *package;
    const char *about;    /* a sentence, or NULL */
    kind_format_fn names; /* what metadata.name must look like */
    const struct kind_column *columns;
    size_t n_columns;
};

/* One embedded file. */
struct kinds_source {
    const char *name;
    struct slice text;
};
size_t kinds_embedded_count(void);
struct kinds_source kinds_embedded(size_t i);

struct kinds_tables {
    struct kind_entry *entries;
    size_t n_entries;
    struct kind_type *types; /* all of them, in the order of the files */
    size_t n_types;
};
/* Builds tables in `a`; the texts must outlive them. ERR_INVALID with file and line. */
int kinds_load_from(struct arena *a, const struct kinds_source *sources, size_t n,
                    struct kinds_tables *ret, struct err *e) MUST_CHECK;
const struct kinds_tables *kinds_tables(void);
const struct kind_entry *kind_entry_of(const struct kind *k);
/* NULL if there is none of that name. */
const struct kind_type *kind_type_named(const char *name);
const struct kind_field *kind_field_find(const struct kind_type *t, struct slice name);
const char *kind_shape_name(enum kind_shape s); /* as the data writes it */

kind_default_fn kind_default_by_name(struct slice name);
kind_check_fn kind_check_by_name(struct slice name);
kind_check_fn kind_pod_check_by_name(struct slice name); /* those of checks_pod.c */
kind_format_fn kind_format_by_name(struct slice name);
kind_cell_fn kind_cell_by_name(struct slice name);

/* Where we are in an object, as a chain on the stack; its text is made only when something is
 * wrong. */
struct kind_path {
    const struct kind_path *up; /* NULL = this is the object itself */
    struct slice name;          /* a member, or with `key` an entry of a map */
    size_t index;
    enum { PATH_ROOT, PATH_MEMBER, PATH_KEY, PATH_INDEX } what;
};
#define PATH_AT(up_, name_) (&(struct kind_path){(up_), (name_), 0, PATH_MEMBER})
#define PATH_STR(up_, text_) PATH_AT(up_, slice_str(text_))
#define PATH_IN(up_, index_) (&(struct kind_path){(up_), {0}, (index_), PATH_INDEX})
#define PATH_OF(up_, key_) (&(struct kind_path){(up_), (key_), 0, PATH_KEY})
/* "spec.containers[0].name"; "" for the object itself; NULL when out of memory. */
const char *kind_path_text(struct arena *a, const struct kind_path *p);

/* What checks and formats are given. */
struct kind_check {
    struct arena *a;
    struct kind_problems *problems;
    const struct kind_entry *kind;
    const struct json *root, *old_root; /* NULL: a create */
};

/* A problem at `at`; `value` (may be NULL) is shown as JSON, cut when long. 0 or ERR_NOMEM. */
int kind_complain(struct kind_check *c, enum kind_problem_type type, const struct kind_path *at,
                  const struct json *value, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* values.c: texts that have one way to be written. ERR_INVALID or ERR_NOMEM. */
int quantity_canonical(struct arena *a, struct slice in, struct slice *ret) MUST_CHECK;
int time_canonical(struct arena *a, struct slice in, bool micro, struct slice *ret) MUST_CHECK;
/* Seconds since the epoch of an RFC 3339 time. */
bool time_parse(struct slice in, int64_t *ret_s, int *ret_us);
bool base64_is_valid(struct slice s, size_t *ret_bad_offset);
size_t base64_decoded_length(struct slice s);

#endif
