/* Values, lookups and changes; the parser, the writer and comparison have files of their own. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/json_int.h"

/* ---- the index of large objects ---------------------------------------------------------------
 * Open addressing, positions + 1. The hash is seeded at start, so that names cannot be chosen to
 * collide. A removal drops it; the next json_set makes it again. */

struct json_index {
    size_t mask;
    uint32_t slots[];
};

static uint64_t hash_seed;

__attribute__((constructor)) static void choose_seed(void)
{
    if (getrandom(&hash_seed, sizeof(hash_seed), GRND_NONBLOCK) != (ssize_t)sizeof(hash_seed))
        hash_seed = (uintptr_t)&hash_seed;
}

static size_t first_slot(const struct json_index *x, struct slice name)
{
    return (size_t)XXH3_64bits_withSeed(name.data, name.len, hash_seed) & x->mask;
}

static void file_position(struct json_index *x, struct slice name, size_t position)
{
    size_t at = first_slot(x, name);
    while (x->slots[at]) at = (at + 1) & x->mask;
    x->slots[at] = (uint32_t)position + 1;
}

int json_index_build(struct arena *a, struct json *object)
{
    size_t room = 64, most = object->size > object->count ? object->size : object->count;
    while (room < most * 2) room *= 2;
    struct json_index *x = arena_calloc(a, 1, sizeof(*x) + room * sizeof(x->slots[0]));
    if (!x) return ERR_NOMEM;
    x->mask = room - 1;
    for (size_t i = 0; i < object->count; i++) file_position(x, object->members[i].name, i);
    object->index = x;
    return 0;
}

int json_index_add(struct arena *a, struct json *object, size_t position)
{
    if ((position + 1) * 2 > object->index->mask + 1) return json_index_build(a, object);
    file_position(object->index, object->members[position].name, position);
    return 0;
}

ptrdiff_t json_find(const struct json *v, struct slice name)
{
    const struct json_index *x = v->index;
    if (!x) {
        for (size_t i = 0; i < v->count; i++)
            if (slice_eq(v->members[i].name, name)) return (ptrdiff_t)i;
        return -1;
    }
    for (size_t at = first_slot(x, name); x->slots[at]; at = (at + 1) & x->mask) {
        size_t i = x->slots[at] - 1;
        if (slice_eq(v->members[i].name, name)) return (ptrdiff_t)i;
    }
    return -1;
}

/* ---- making values ----------------------------------------------------------------------------
 */

struct json *json_new(struct arena *a, enum json_type type)
{
    struct json *v = arena_alloc(a, sizeof(*v));
    if (v) *v = (struct json){.type = type};
    return v;
}

struct json *json_null(struct arena *a)
{
    return json_new(a, JSON_NULL);
}

struct json *json_bool(struct arena *a, bool b)
{
    struct json *v = json_new(a, JSON_BOOL);
    if (v) v->boolean = b;
    return v;
}

static struct json *new_text(struct arena *a, enum json_type type, struct slice text)
{
    struct json *v = json_new(a, type);
    if (v) v->text = text;
    return v;
}

struct json *json_int(struct arena *a, int64_t i)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%lld", (long long)i);
    struct slice copy = arena_dup(a, slice_make(text, (size_t)len));
    return copy.data ? new_text(a, JSON_NUMBER, copy) : NULL;
}

struct json *json_double(struct arena *a, double d)
{
    char text[32];
    if (!isfinite(d)) return json_null(a);
    int len = 0;
    for (int digits = 15; digits <= 17; digits++) {
        len = snprintf(text, sizeof(text), "%.*g", digits, d);
        double back;
        struct json probe = {.type = JSON_NUMBER, .text = slice_make(text, (size_t)len)};
        if (json_to_double(&probe, &back) && back == d) break;
    }
    struct slice copy = arena_dup(a, slice_make(text, (size_t)len));
    return copy.data ? new_text(a, JSON_NUMBER, copy) : NULL;
}

struct json *json_string(struct arena *a, struct slice s)
{
    return new_text(a, JSON_STRING, s);
}

struct json *json_string_copy(struct arena *a, struct slice s)
{
    struct slice copy = arena_dup(a, s);
    return copy.data ? new_text(a, JSON_STRING, copy) : NULL;
}

struct json *json_str(struct arena *a, const char *text)
{
    return new_text(a, JSON_STRING, slice_str(text));
}

struct json *json_array(struct arena *a)
{
    return json_new(a, JSON_ARRAY);
}

struct json *json_object(struct arena *a)
{
    return json_new(a, JSON_OBJECT);
}

static bool clone_array(struct arena *a, struct json *to, const struct json *from)
{
    to->items = arena_alloc(a, from->count * sizeof(*to->items));
    if (!to->items) return false;
    for (size_t i = 0; i < from->count; i++)
        if (!(to->items[i] = json_clone(a, from->items[i]))) return false;
    return true;
}

static bool clone_object(struct arena *a, struct json *to, const struct json *from)
{
    to->members = arena_alloc(a, from->count * sizeof(*to->members));
    if (!to->members) return false;
    for (size_t i = 0; i < from->count; i++) {
        struct json_member *m = &to->members[i];
        m->name = arena_dup(a, from->members[i].name);
        m->value = json_clone(a, from->members[i].value);
        if (!m->name.data || !m->value) return false;
    }
    return from->count <= JSON_INDEX_FROM || json_index_build(a, to) == 0;
}

struct json *json_clone(struct arena *a, const struct json *from)
{
    struct json *v = json_new(a, from->type);
    if (!v) return NULL;
    v->boolean = from->boolean;
    bool ok = true;
    if (from->type == JSON_STRING || from->type == JSON_NUMBER) {
        v->text = arena_dup(a, from->text);
        ok = v->text.data != NULL;
    } else if (from->count) {
        v->count = v->size = from->count;
        ok = from->type == JSON_ARRAY ? clone_array(a, v, from) : clone_object(a, v, from);
    }
    return ok ? v : NULL;
}

/* ---- lookups ----------------------------------------------------------------------------------
 */

struct json *json_get_slice(const struct json *v, struct slice name)
{
    if (!v || v->type != JSON_OBJECT) return NULL;
    ptrdiff_t at = json_find(v, name);
    return at < 0 ? NULL : v->members[at].value;
}

struct json *json_get(const struct json *v, const char *name)
{
    return json_get_slice(v, slice_str(name));
}

struct json *json_path(const struct json *v, const char *path)
{
    for (;;) {
        const char *dot = strchr(path, '.');
        if (!dot) return json_get(v, path);
        v = json_get_slice(v, slice_make(path, (size_t)(dot - path)));
        if (!v) return NULL;
        path = dot + 1;
    }
}

struct json *json_at(const struct json *v, size_t index)
{
    return v && v->type == JSON_ARRAY && index < v->count ? v->items[index] : NULL;
}

struct slice json_text(const struct json *v)
{
    return v && v->type == JSON_STRING ? v->text : (struct slice){0};
}

struct slice json_path_text(const struct json *v, const char *path)
{
    return json_text(json_path(v, path));
}

bool json_is_str(const struct json *v, const char *text)
{
    return v && v->type == JSON_STRING && slice_eq_str(v->text, text);
}

int64_t json_path_int(const struct json *v, const char *path, int64_t otherwise)
{
    int64_t i;
    return json_to_int(json_path(v, path), &i) ? i : otherwise;
}

bool json_path_bool(const struct json *v, const char *path, bool otherwise)
{
    const struct json *b = json_path(v, path);
    return b && b->type == JSON_BOOL ? b->boolean : otherwise;
}

/* ---- changes ----------------------------------------------------------------------------------
 */

/* Room for one more element of `width` bytes in a container's array. */
static int grow(struct arena *a, struct json *v, void **elements, size_t width)
{
    if (v->count < v->size) return 0;
    size_t size = v->size < 4 ? 4 : v->size * 2;
    void *p = arena_alloc(a, size * width);
    if (!p) return ERR_NOMEM;
    if (v->count) memcpy(p, *elements, v->count * width);
    *elements = p;
    v->size = size;
    return 0;
}

static int ensure_index(struct arena *a, struct json *v)
{
    return v->index || v->count <= JSON_INDEX_FROM ? 0 : json_index_build(a, v);
}

int json_set(struct arena *a, struct json *v, struct slice name, struct json *value)
{
    if (!v || !value) return ERR_NOMEM; /* so that constructors can be nested in the call */
    if (v->type != JSON_OBJECT) return ERR_INVALID;
    if (ensure_index(a, v)) return ERR_NOMEM;
    ptrdiff_t at = json_find(v, name);
    if (at >= 0) {
        v->members[at].value = value;
        return 0;
    }
    void *elements = v->members;
    if (grow(a, v, &elements, sizeof(*v->members))) return ERR_NOMEM;
    v->members = elements;
    v->members[v->count] = (struct json_member){name, value};
    v->count++;
    if (!v->index || json_index_add(a, v, v->count - 1) == 0) return 0;
    v->count--;
    return ERR_NOMEM;
}

int json_set_str(struct arena *a, struct json *v, const char *name, struct json *value)
{
    return json_set(a, v, slice_str(name), value);
}

bool json_remove(struct json *v, struct slice name)
{
    if (!v || v->type != JSON_OBJECT) return false;
    ptrdiff_t at = json_find(v, name);
    if (at < 0) return false;
    v->count--;
    memmove(v->members + at, v->members + at + 1, (v->count - (size_t)at) * sizeof(*v->members));
    v->index = NULL;
    return true;
}

int json_insert(struct arena *a, struct json *v, size_t index, struct json *value)
{
    if (!v || !value) return ERR_NOMEM;
    if (v->type != JSON_ARRAY) return ERR_INVALID;
    void *elements = v->items;
    if (grow(a, v, &elements, sizeof(*v->items))) return ERR_NOMEM;
    v->items = elements;
    if (index > v->count) index = v->count;
    memmove(v->items + index + 1, v->items + index, (v->count - index) * sizeof(*v->items));
    v->items[index] = value;
    v->count++;
    return 0;
}

int json_push(struct arena *a, struct json *v, struct json *value)
{
    return json_insert(a, v, SIZE_MAX, value);
}

void json_remove_at(struct json *v, size_t index)
{
    if (v->type != JSON_ARRAY || index >= v->count) return;
    v->count--;
    memmove(v->items + index, v->items + index + 1, (v->count - index) * sizeof(*v->items));
}

void json_filter(struct json *v, bool (*keep)(void *ctx, struct slice name, struct json *value),
                 void *ctx)
{
    size_t kept = 0, count = v->type == JSON_ARRAY || v->type == JSON_OBJECT ? v->count : 0;
    for (size_t i = 0; i < count; i++) {
        if (v->type == JSON_ARRAY) {
            if (keep(ctx, (struct slice){0}, v->items[i])) v->items[kept++] = v->items[i];
        } else if (keep(ctx, v->members[i].name, v->members[i].value)) {
            v->members[kept++] = v->members[i];
        }
    }
    if (kept == count) return;
    v->count = kept;
    if (v->type == JSON_OBJECT) v->index = NULL;
}

static struct json removed; /* stands where a member goes, until all of them go in one pass */

bool json_mark_removed(struct json *v, struct slice name)
{
    ptrdiff_t at = json_find(v, name);
    if (at < 0 || v->members[at].value == &removed) return false;
    v->members[at].value = &removed;
    return true;
}

struct json *json_live(struct json *value)
{
    return value == &removed ? NULL : value;
}

static bool not_removed(void *ctx, struct slice name, struct json *value)
{
    (void)ctx, (void)name;
    return value != &removed;
}

void json_sweep(struct json *v)
{
    json_filter(v, not_removed, NULL);
}

struct json *json_merge_patch(struct arena *a, struct json *target, struct json *patch)
{
    if (patch->type != JSON_OBJECT) return patch;
    if (!target || target->type != JSON_OBJECT) target = json_object(a);
    if (!target || ensure_index(a, target)) return NULL;
    bool nulls = false;
    for (size_t i = 0; i < patch->count; i++) {
        struct json_member m = patch->members[i];
        if (m.value->type == JSON_NULL) {
            ptrdiff_t at = json_find(target, m.name);
            if (at >= 0) target->members[at].value = &removed, nulls = true;
            continue;
        }
        struct json *merged = json_merge_patch(a, json_get_slice(target, m.name), m.value);
        if (!merged || json_set(a, target, m.name, merged)) return NULL;
    }
    if (nulls) json_sweep(target);
    return target;
}
