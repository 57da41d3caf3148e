/* JSON Patch (RFC 6902) with JSON Pointer (RFC 6901), and JSON Merge Patch (RFC 7386). */
#include "api/kube/kube_int.h"
#include "base/map.h"

#define SHOW(s) (int)(s).len, (const char *)(s).data

/* ---- pointers --------------------------------------------------------------------------------- */

static int unescape_token(struct arena *a, struct slice in, struct slice *ret)
{
    if (slice_index(in, '~') < 0) {
        *ret = in;
        return 0;
    }
    uint8_t *out = arena_alloc(a, in.len);
    size_t n = 0;
    if (!out) return ERR_NOMEM;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (c == '~') {
            uint8_t next = i + 1 < in.len ? in.data[++i] : 0;
            if (next != '0' && next != '1') return ERR_INVALID;
            c = next == '0' ? '~' : '/';
        }
        out[n++] = c;
    }
    *ret = slice_make(out, n);
    return 0;
}

/* An array index without leading zeros, at most `max`; false if it is none. */
static bool to_index(struct slice token, size_t max, size_t *ret)
{
    size_t v = 0;
    if (!token.len || (token.len > 1 && token.data[0] == '0') || token.len > 9) return false;
    for (size_t i = 0; i < token.len; i++) {
        if (token.data[i] < '0' || token.data[i] > '9') return false;
        v = v * 10 + (size_t)(token.data[i] - '0');
    }
    *ret = v;
    return v <= max;
}

struct place {
    struct json *parent; /* NULL: the whole document */
    struct slice last;   /* the last token, unescaped */
};

static struct json *step(struct json *at, struct slice token)
{
    size_t index;
    if (at->type == JSON_OBJECT) return json_live(json_get_slice(at, token));
    if (at->type == JSON_ARRAY && at->count && to_index(token, at->count - 1, &index)) return json_at(at, index);
    return NULL;
}

/* Finds the container of what `path` names. ERR_NOT_FOUND if that is not there. */
static int locate(struct arena *a, struct json *doc, struct slice path, struct place *ret, struct err *e)
{
    struct slice whole = path;
    *ret = (struct place){0};
    if (!path.len) return 0;
    if (path.data[0] != '/') return err_set(e, ERR_INVALID, "the path \"%.*s\" does not start with '/'", SHOW(whole));
    ret->parent = doc;
    for (;;) {
        path = slice_sub(path, 1, path.len);
        ptrdiff_t at = slice_index(path, '/');
        struct slice token = at < 0 ? path : slice_sub(path, 0, (size_t)at);
        int code = unescape_token(a, token, &ret->last);
        if (code == ERR_INVALID) return err_set(e, code, "bad escape in the path \"%.*s\"", SHOW(whole));
        if (code) return code;
        bool container = ret->parent->type == JSON_OBJECT || ret->parent->type == JSON_ARRAY;
        if (!container) return err_set(e, ERR_NOT_FOUND, "doc is missing path: \"%.*s\": missing value", SHOW(whole));
        if (at < 0) return 0;
        path = slice_sub(path, (size_t)at, path.len);
        ret->parent = step(ret->parent, ret->last);
        if (!ret->parent) return err_set(e, ERR_NOT_FOUND, "doc is missing path: \"%.*s\": missing value", SHOW(whole));
    }
}

/* ---- operations ------------------------------------------------------------------------------- */

#define SWEEP_WORK 16 /* of one element: the index is made again, too */

struct patch {
    struct arena *arena;
    struct json *doc;
    struct err *e;
    size_t copied, work; /* values copied so far: a bound on what `copy` can blow up; elements gone over */
    struct map marked;   /* objects with members that are marked as removed, by address */
};

static int spend(struct patch *p, size_t elements)
{
    p->work += elements;
    return p->work <= LIMIT_KUBE_PATCH_WORK ? 0 : err_set(p->e, ERR_LIMIT, "the patch is too much work: use fewer operations on large lists and maps");
}

/* Before something looks at whole values. */
static int sweep(struct patch *p)
{
    struct json *object;
    size_t at = 0;
    int code = 0;
    while ((object = map_next(&p->marked, &at)) != NULL) {
        if (!code) code = spend(p, SWEEP_WORK * object->count);
        json_sweep(object);
    }
    map_release(&p->marked);
    return code;
}

/* Levels of a value, and how many values that are, all of it. A document that was parsed has no more than LIMIT_JSON_DEPTH. */
static size_t height(const struct json *v, size_t *values)
{
    size_t most = 0;
    ++*values;
    for (size_t i = 0; (v->type == JSON_ARRAY || v->type == JSON_OBJECT) && i < v->count; i++) {
        size_t n = height(v->type == JSON_ARRAY ? v->items[i] : v->members[i].value, values);
        if (n > most) most = n;
    }
    return most + 1;
}

/* So that the document stays as shallow as one that was parsed. */
static int check_depth(struct patch *p, struct slice path, const struct json *value)
{
    size_t values = 0, levels = height(value, &values);
    for (size_t i = 0; i < path.len; i++) levels += path.data[i] == '/';
    if (levels > LIMIT_JSON_DEPTH) return err_set(p->e, ERR_LIMIT, "the patched object is nested more than %d levels deep", LIMIT_JSON_DEPTH);
    return spend(p, 4 * values);
}

static int find(struct patch *p, struct slice path, struct place *where, struct json **ret)
{
    int code = locate(p->arena, p->doc, path, where, p->e);
    if (code) return code;
    *ret = where->parent ? step(where->parent, where->last) : p->doc;
    if (*ret) return 0;
    return err_set(p->e, ERR_NOT_FOUND, "doc is missing key: %.*s: missing value", SHOW(path));
}

static int add(struct patch *p, struct slice path, struct json *value)
{
    struct place where;
    size_t index;
    int code = check_depth(p, path, value);
    if (!code) code = locate(p->arena, p->doc, path, &where, p->e);
    if (code) return code;
    if (!where.parent) {
        p->doc = value;
        return 0;
    }
    if (where.parent->type == JSON_OBJECT) return json_set(p->arena, where.parent, where.last, value);
    if (slice_eq_str(where.last, "-")) return json_push(p->arena, where.parent, value);
    if (!to_index(where.last, where.parent->count, &index)) {
        return err_set(p->e, ERR_NOT_FOUND, "index \"%.*s\" is out of the array's bounds", SHOW(where.last));
    }
    code = spend(p, where.parent->count - index);
    return code ? code : json_insert(p->arena, where.parent, index, value);
}

static int drop(struct patch *p, struct slice path)
{
    struct place where;
    struct json *old;
    size_t index;
    int code = find(p, path, &where, &old);
    if (code) return code;
    if (!where.parent) return err_set(p->e, ERR_INVALID, "the whole document cannot be removed");
    if (where.parent->type == JSON_OBJECT) {
        json_mark_removed(where.parent, where.last);
        map_put(&p->marked, (uint64_t)(uintptr_t)where.parent, where.parent);
    } else if (to_index(where.last, where.parent->count, &index)) {
        code = spend(p, where.parent->count - index);
        json_remove_at(where.parent, index);
    }
    return code;
}

static int replace(struct patch *p, struct slice path, struct json *value)
{
    struct place where;
    struct json *old;
    size_t index;
    int code = check_depth(p, path, value);
    if (!code) code = find(p, path, &where, &old);
    if (code) return code;
    if (!where.parent) {
        p->doc = value;
        return 0;
    }
    if (where.parent->type == JSON_OBJECT) return json_set(p->arena, where.parent, where.last, value);
    if (to_index(where.last, where.parent->count, &index)) where.parent->items[index] = value;
    return 0;
}

static size_t weigh(const struct json *v)
{
    size_t n = 1 + v->text.len;
    if (v->type == JSON_ARRAY) {
        for (size_t i = 0; i < v->count; i++) n += weigh(v->items[i]);
    } else if (v->type == JSON_OBJECT) {
        for (size_t i = 0; i < v->count; i++) n += v->members[i].name.len + weigh(v->members[i].value);
    }
    return n;
}

static int copy(struct patch *p, struct slice from, struct slice path, bool move)
{
    struct place where;
    struct json *value;
    int code = find(p, from, &where, &value);
    if (code) return code;
    bool inside = path.len > from.len && slice_has_prefix(path, from) && path.data[from.len] == '/';
    if (move && inside) return err_set(p->e, ERR_INVALID, "a value cannot be moved into itself");
    if (move) {
        if (slice_eq(from, path)) return 0;
        code = drop(p, from);
        return code ? code : add(p, path, value);
    }
    code = sweep(p);
    if (code) return code;
    p->copied += weigh(value);
    if (p->copied > LIMIT_KUBE_BODY_BYTES) return err_set(p->e, ERR_LIMIT, "the patch copies more than %zu bytes", LIMIT_KUBE_BODY_BYTES);
    value = json_clone(p->arena, value);
    return value ? add(p, path, value) : ERR_NOMEM;
}

static int test(struct patch *p, struct slice path, const struct json *value)
{
    struct place where;
    struct json *have;
    int code = find(p, path, &where, &have);
    if (code == ERR_NOT_FOUND && value->type == JSON_NULL) return 0;
    bool container = !code && (have->type == JSON_ARRAY || have->type == JSON_OBJECT);
    if (container) code = sweep(p);
    if (container && !code) code = spend(p, have->count);
    if (code) return code;
    if (json_equal(have, value)) return 0;
    return err_set(p->e, ERR_CONFLICT, "testing path %.*s failed", SHOW(path));
}

static int apply_one(struct patch *p, const struct json *op)
{
    const struct json *path = json_get(op, "path"), *from = json_get(op, "from"), *value = json_get(op, "value");
    struct slice name = json_text(json_get(op, "op"));
    if (!path || path->type != JSON_STRING) return err_set(p->e, ERR_INVALID, "an operation without a path");
    if (slice_eq_str(name, "remove")) return drop(p, path->text);
    if (slice_eq_str(name, "move") || slice_eq_str(name, "copy")) {
        if (!from || from->type != JSON_STRING) return err_set(p->e, ERR_INVALID, "%.*s without `from`", SHOW(name));
        return copy(p, from->text, path->text, slice_eq_str(name, "move"));
    }
    bool known = slice_eq_str(name, "add") || slice_eq_str(name, "replace") || slice_eq_str(name, "test");
    if (!known) return err_set(p->e, ERR_INVALID, "Unexpected kind: %.*s", SHOW(name));
    if (!value) return err_set(p->e, ERR_INVALID, "%.*s without a value", SHOW(name));
    if (slice_eq_str(name, "test")) return test(p, path->text, value);
    struct json *own = json_clone(p->arena, value);
    if (!own) return ERR_NOMEM;
    return slice_eq_str(name, "add") ? add(p, path->text, own) : replace(p, path->text, own);
}

static int apply_all(struct patch *p, const struct json *patch)
{
    for (size_t i = 0; i < patch->count; i++) {
        const struct json *op = json_at(patch, i);
        if (op->type != JSON_OBJECT) return err_set(p->e, ERR_INVALID, "operation %zu is no object", i);
        int code = apply_one(p, op);
        if (code) return code;
    }
    return sweep(p);
}

int json_patch_apply(struct arena *a, struct json *doc, const struct json *patch, struct json **ret, struct err *e)
{
    struct patch p = {.arena = a, .doc = doc, .e = e};
    if (!patch || patch->type != JSON_ARRAY) return err_set(e, ERR_INVALID, "a JSON patch must be an array of operations");
    if (patch->count > LIMIT_KUBE_PATCH_OPS) {
        return err_set(e, ERR_LIMIT, "The allowed maximum operations in a JSON patch is %d, got %zu", LIMIT_KUBE_PATCH_OPS, patch->count);
    }
    int code = apply_all(&p, patch);
    map_release(&p.marked);
    if (!code) *ret = p.doc;
    return code;
}

int json_merge_apply(struct arena *a, struct json *doc, const struct json *patch, struct json **ret)
{
    struct json *own = json_clone(a, patch);
    *ret = own ? json_merge_patch(a, doc, own) : NULL;
    return *ret ? 0 : ERR_NOMEM;
}
