/* JSON (RFC 8259) as stored objects need it: values live in an arena, members keep their order, and
 * a number keeps its text, so that what was not touched is written back as it came (int64 beyond
 * 2^53, 1.0 against 1, 1e3).
 *
 * Parsed strings point into the input when they hold no escape, so the input must outlive the
 * values; with JSON_COPY they are copied into the arena. Strings are UTF-8 and checked; an escaped
 * surrogate without its other half is an error. Of members with one name the parser keeps the place of
 * the first and the value of the last, and marks that value `duplicate`. Objects of many members
 * carry an index, so that neither parsing nor lookups are quadratic on hostile input.
 * Nothing here is shared between threads.
 * Every constructor and setter returns NULL (or an error code) when the arena is out of memory. */
#ifndef PINTLE_BASE_JSON_H
#define PINTLE_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/slice.h"

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json;
struct json_index;

struct json_member {
    struct slice name;
    struct json *value;
};

/* Read the fields freely; change containers only through the functions below. */
struct json {
    enum json_type type;
    bool boolean;
    bool duplicate; /* parsed member's value: its name stood more than once in the object */
    union {
        struct slice text;        /* STRING: the characters, unescaped. NUMBER: its text as it came */
        struct json_index *index; /* OBJECT, private: of many members; NULL = none */
    };
    size_t count;      /* ARRAY, OBJECT: used elements */
    size_t size;       /* room */
    union {
        struct json **items;         /* ARRAY */
        struct json_member *members; /* OBJECT */
    };
};

enum { JSON_COPY = 1 };

struct json_error {
    size_t offset;
    char text[96]; /* a sentence without the offset: "expected ',' or '}'" */
};

/* One value with nothing but white space around it. Depth is bounded by LIMIT_JSON_DEPTH. `e` may
 * be NULL. ERR_INVALID, ERR_LIMIT (depth) or ERR_NOMEM. */
int json_parse(struct arena *a, struct slice input, unsigned flags, struct json **ret,
               struct json_error *e) MUST_CHECK;

struct json *json_null(struct arena *a);
struct json *json_bool(struct arena *a, bool v);
struct json *json_int(struct arena *a, int64_t v);
struct json *json_double(struct arena *a, double v); /* null when it is no finite number */
/* Whether it may be the text of a string: nothing checks that again. */
bool json_utf8(struct slice text);
/* Writes a code point (no surrogate, at most 0x10ffff) in up to 4 bytes; returns the byte behind it. */
uint8_t *json_put_utf8(uint8_t *out, uint32_t c);
/* The characters are borrowed (they must outlive the arena's values); json_string_copy copies. */
struct json *json_string(struct arena *a, struct slice s);
struct json *json_string_copy(struct arena *a, struct slice s);
struct json *json_str(struct arena *a, const char *text); /* borrowed */
struct json *json_array(struct arena *a);
struct json *json_object(struct arena *a);
/* A deep copy into `a` (text is copied too). */
struct json *json_clone(struct arena *a, const struct json *v);

/* Lookups: NULL / false when absent, or when `v` is NULL or of another type, so they can be chained. */
struct json *json_get(const struct json *v, const char *name);
struct json *json_get_slice(const struct json *v, struct slice name);
/* A dotted path of member names: json_path(pod, "spec.nodeName"). Names with dots: use json_get. */
struct json *json_path(const struct json *v, const char *path);
struct json *json_at(const struct json *v, size_t index);
/* The characters of a string; an empty slice if it is none. */
struct slice json_text(const struct json *v);
struct slice json_path_text(const struct json *v, const char *path);
bool json_is_str(const struct json *v, const char *text);
bool json_to_int(const struct json *v, int64_t *ret);   /* exact integers only: 1e2 is 100, 1.5 is not */
bool json_to_double(const struct json *v, double *ret);
int64_t json_path_int(const struct json *v, const char *path, int64_t otherwise);
bool json_path_bool(const struct json *v, const char *path, bool otherwise);

/* Sets (replaces in place or appends) and removes. The name is borrowed; `value` is adopted and must
 * not be inside another container of the same tree twice. ERR_INVALID when the container is none of
 * its type; ERR_NOMEM, also for a NULL container or value, so that constructors can be nested. */
int json_set(struct arena *a, struct json *object, struct slice name, struct json *value);
int json_set_str(struct arena *a, struct json *object, const char *name, struct json *value);
bool json_remove(struct json *object, struct slice name);
int json_push(struct arena *a, struct json *array, struct json *value);
int json_insert(struct arena *a, struct json *array, size_t index, struct json *value);
void json_remove_at(struct json *array, size_t index);
/* Keeps the members (or items: their name is empty) for which `keep` is true, in one pass: use it where
 * a peer decides how many go. */
void json_filter(struct json *v, bool (*keep)(void *ctx, struct slice name, struct json *value),
                 void *ctx);
/* For many removals: the member stays in its place, with a value that is NULL for who asks with json_live, until json_sweep takes all of
 * those away. Between the two only json_set, json_get*, json_mark_removed and json_live may see the object. */
bool json_mark_removed(struct json *object, struct slice name);
struct json *json_live(struct json *value);
void json_sweep(struct json *object);
/* JSON merge patch (RFC 7396): the new value of `target`, which is changed in place and may be NULL;
 * parts of `patch` are shared, not copied. Linear in both. NULL when out of memory. */
struct json *json_merge_patch(struct arena *a, struct json *target, struct json *patch);

/* Same type and value; numbers by value (1 equals 1.0), objects regardless of order. */
bool json_equal(const struct json *a, const struct json *b);

/* Compact text, no white space. Appends to `out`; check out->failed. */
void json_write(struct buf *out, const struct json *v);
/* With line breaks and two spaces a level, for people. */
void json_write_pretty(struct buf *out, const struct json *v);
/* The characters as a JSON string with quotes. */
void json_write_string(struct buf *out, struct slice s);

/* The YAML subset is not here: kubectl converts before it sends, and servers take `application/yaml`
 * through libyaml in api/kube. */

#endif
