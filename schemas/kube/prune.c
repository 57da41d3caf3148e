/* What a decoder does with an object: every value must have the shape that its field has, unknown
 * fields go (and are told), texts with more than one form (quantities, times) get the one that is
 * stored, and what says nothing (null, or the zero of a field that is no pointer) is left out. */
#include <stdio.h>

#include "schemas/kube/kinds_int.h"

struct prune {
    struct arena *a;
    struct kind_problems *problems;
    const struct kind_type *type; /* the innermost, for messages */
};

static int prune_object(struct prune *p, const struct kind_path *at, const struct kind_type *t,
                        struct json *v);

/* ---- messages ---------------------------------------------------------------------------------
 */

static const char *json_type_word(const struct json *v)
{
    switch (v->type) {
    case JSON_BOOL: return "bool";
    case JSON_NUMBER: return "number";
    case JSON_STRING: return "string";
    case JSON_ARRAY: return "array";
    case JSON_OBJECT: return "object";
    default: return "null";
    }
}

static const char *go_type(const struct kind_field *f)
{
    switch (f->shape) {
    case SHAPE_OBJECT: return f->type->name;
    case SHAPE_QUANTITY: return "resource.Quantity";
    case SHAPE_TIME: return "v1.Time";
    case SHAPE_MICROTIME: return "v1.MicroTime";
    case SHAPE_INT_OR_STRING: return "intstr.IntOrString";
    case SHAPE_BYTES: return "[]uint8";
    case SHAPE_DOUBLE: return "float64";
    case SHAPE_RAW: return "object";
    default: return kind_shape_name(f->shape);
    }
}

static int bad_type(struct prune *p, const struct kind_path *at, const struct kind_field *f,
                    bool element, const struct json *v)
{
    const char *path = kind_path_text(p->a, at);
    const char *holds = element || f->container == HOLDS_ONE ? ""
                        : f->container == HOLDS_LIST         ? "[]"
                                                             : "map[string]";
    if (!path) return ERR_NOMEM;
    struct slice number = v->type == JSON_NUMBER ? v->text : (struct slice){0};
    if (number.len > 40) number.len = 40;
    return kind_problem_add(
        p->problems, PROBLEM_TYPE, path, NULL,
        "json: cannot unmarshal %s%s%.*s into Go struct field %s.%s of type %s%s",
        json_type_word(v), number.len ? " " : "", (int)number.len, (const char *)number.data,
        p->type->name, path, holds, go_type(f));
}

/* `before` and `behind` stand around the text in question. */
static int bad_text(struct prune *p, const struct kind_path *at, const char *before,
                    struct slice text, const char *behind)
{
    const char *path = kind_path_text(p->a, at);
    if (!path) return ERR_NOMEM;
    if (text.len > 64) text.len = 64;
    return kind_problem_add(p->problems, PROBLEM_TYPE, path, NULL, "%s \"%.*s\"%s", before,
                            (int)text.len, (const char *)text.data, behind);
}

static int told_unknown(struct prune *p, const struct kind_path *at)
{
    const char *path = kind_path_text(p->a, at);
    if (!path) return ERR_NOMEM;
    return kind_problem_add(p->problems, PROBLEM_UNKNOWN_FIELD, path, NULL, "unknown field \"%s\"",
                            path);
}

static int told_duplicate(struct prune *p, const struct kind_path *at)
{
    const char *path = kind_path_text(p->a, at);
    if (!path) return ERR_NOMEM;
    return kind_problem_add(p->problems, PROBLEM_UNKNOWN_FIELD, path, NULL,
                            "duplicate field \"%s\"", path);
}

/* ---- scalars ----------------------------------------------------------------------------------
 */

static bool is_integer(const struct json *v, bool wide)
{
    int64_t i;
    if (v->type != JSON_NUMBER || !json_to_int(v, &i)) return false;
    for (size_t k = 0; k < v->text.len; k++)
        if (v->text.data[k] != '-' && (v->text.data[k] < '0' || v->text.data[k] > '9'))
            return false;
    return wide || (i >= INT32_MIN && i <= INT32_MAX);
}

/* ERR_INVALID: tell bad_type. */
static int prune_quantity(struct prune *p, const struct kind_path *at, struct json *v)
{
    struct slice text;
    if (v->type != JSON_STRING && v->type != JSON_NUMBER) return ERR_INVALID;
    int rc = quantity_canonical(p->a, v->text, &text);
    if (rc == ERR_NOMEM) return rc;
    if (rc)
        return bad_text(p, at,
                        "quantities must match the regular expression "
                        "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$':",
                        v->text, "");
    v->type = JSON_STRING;
    v->text = text;
    return 0;
}

static int prune_time(struct prune *p, const struct kind_path *at, struct json *v, bool micro)
{
    struct slice text;
    if (v->type != JSON_STRING) return ERR_INVALID;
    int rc = time_canonical(p->a, v->text, micro, &text);
    if (rc == ERR_NOMEM) return rc;
    if (rc) return bad_text(p, at, "parsing time", v->text, ": not an RFC 3339 time");
    v->text = text;
    return 0;
}

static int prune_bytes(struct prune *p, const struct kind_path *at, struct json *v)
{
    size_t offset;
    if (v->type != JSON_STRING) return ERR_INVALID;
    if (base64_is_valid(v->text, &offset)) return 0;
    const char *path = kind_path_text(p->a, at);
    if (!path) return ERR_NOMEM;
    return kind_problem_add(p->problems, PROBLEM_TYPE, path, NULL,
                            "%s: illegal base64 data at input byte %zu", path, offset);
}

static int prune_one(struct prune *p, const struct kind_path *at, const struct kind_field *f,
                     bool element, struct json *v)
{
    bool ok = false;
    int rc = 0;
    switch (f->shape) {
    case SHAPE_STRING: ok = v->type == JSON_STRING; break;
    case SHAPE_BOOL: ok = v->type == JSON_BOOL; break;
    case SHAPE_INT32: ok = is_integer(v, false); break;
    case SHAPE_INT64: ok = is_integer(v, true); break;
    case SHAPE_DOUBLE: ok = v->type == JSON_NUMBER; break;
    case SHAPE_INT_OR_STRING: ok = v->type == JSON_STRING || is_integer(v, false); break;
    case SHAPE_QUANTITY: rc = prune_quantity(p, at, v), ok = rc != ERR_INVALID; break;
    case SHAPE_TIME: rc = prune_time(p, at, v, false), ok = rc != ERR_INVALID; break;
    case SHAPE_MICROTIME: rc = prune_time(p, at, v, true), ok = rc != ERR_INVALID; break;
    case SHAPE_BYTES: rc = prune_bytes(p, at, v), ok = rc != ERR_INVALID; break;
    case SHAPE_OBJECT:
        ok = v->type == JSON_OBJECT;
        if (ok) rc = prune_object(p, at, f->type, v);
        break;
    default: ok = true; break; /* raw */
    }
    return ok ? rc : bad_type(p, at, f, element, v);
}

/* ---- containers -------------------------------------------------------------------------------
 */

/* The zero value that a null stands for inside a list or a map. */
static struct json *zero_of(struct arena *a, const struct kind_field *f)
{
    switch (f->shape) {
    case SHAPE_OBJECT: return json_object(a);
    case SHAPE_BOOL: return json_bool(a, false);
    case SHAPE_INT32:
    case SHAPE_INT64:
    case SHAPE_DOUBLE: return json_int(a, 0);
    case SHAPE_QUANTITY: return json_str(a, "0");
    default: return json_str(a, "");
    }
}

static int prune_list(struct prune *p, const struct kind_path *at, const struct kind_field *f,
                      struct json *v)
{
    int rc = 0;
    if (v->type != JSON_ARRAY) return bad_type(p, at, f, false, v);
    for (size_t i = 0; i < v->count && !rc; i++) {
        if (v->items[i]->type == JSON_NULL && f->shape != SHAPE_RAW &&
            !(v->items[i] = zero_of(p->a, f)))
            return ERR_NOMEM;
        rc = prune_one(p, PATH_IN(at, i), f, true, v->items[i]);
    }
    return rc;
}

static int prune_map(struct prune *p, const struct kind_path *at, const struct kind_field *f,
                     struct json *v)
{
    int rc = 0;
    if (v->type != JSON_OBJECT) return bad_type(p, at, f, false, v);
    for (size_t i = 0; i < v->count && !rc; i++) {
        struct json_member *m = &v->members[i];
        const struct kind_path *here = PATH_OF(at, m->name);
        if (m->value->duplicate) rc = told_duplicate(p, PATH_AT(at, m->name));
        if (m->value->type == JSON_NULL && !(m->value = zero_of(p->a, f))) return ERR_NOMEM;
        if (!rc) rc = prune_one(p, here, f, true, m->value);
    }
    return rc;
}

static bool says_nothing(const struct kind_field *f, const struct json *v)
{
    if (v->type == JSON_NULL) return true;
    if (f->flags & (FIELD_POINTER | FIELD_REQUIRED)) return false;
    if (f->container != HOLDS_ONE) return v->count == 0;
    int64_t i;
    switch (v->type) {
    case JSON_STRING: return v->text.len == 0 && f->shape != SHAPE_INT_OR_STRING;
    case JSON_BOOL: return !v->boolean;
    case JSON_NUMBER: return f->shape != SHAPE_INT_OR_STRING && json_to_int(v, &i) && i == 0;
    default: return false;
    }
}

static int prune_field(struct prune *p, const struct kind_path *at, const struct kind_field *f,
                       struct json *v)
{
    if (v->type == JSON_NULL) return 0;
    if (f->container == HOLDS_LIST) return prune_list(p, at, f, v);
    if (f->container == HOLDS_MAP) return prune_map(p, at, f, v);
    return prune_one(p, at, f, false, v);
}

struct removal {
    const struct kind_type *type;
};

static bool stays(void *ctx, struct slice name, struct json *value)
{
    const struct kind_field *f = kind_field_find(((struct removal *)ctx)->type, name);
    return f && !says_nothing(f, value);
}

static int prune_object(struct prune *p, const struct kind_path *at, const struct kind_type *t,
                        struct json *v)
{
    const struct kind_type *outer = p->type;
    bool remove = false;
    int rc = 0;
    for (size_t i = 0; i < v->count && !rc; i++) {
        struct json_member *m = &v->members[i];
        const struct kind_field *f = kind_field_find(t, m->name);
        const struct kind_path *here = PATH_AT(at, m->name);
        p->type = t;
        if (!f) {
            rc = told_unknown(p, here);
            remove = true;
            continue;
        }
        if (m->value->duplicate) rc = told_duplicate(p, here);
        if (!rc) rc = prune_field(p, here, f, m->value);
        remove |= says_nothing(f, m->value);
    }
    if (remove) json_filter(v, stays, &(struct removal){t});
    p->type = outer;
    return rc;
}

int kind_prune(struct arena *a, const struct kind *k, struct json *object, struct kind_problems *p)
{
    struct prune s = {.a = a, .problems = p, .type = k->type};
    if (object->type != JSON_OBJECT)
        return kind_problem_add(p, PROBLEM_TYPE, "", NULL,
                                "json: cannot unmarshal %s into Go value of type %s",
                                json_type_word(object), k->kind);
    return prune_object(&s, &(struct kind_path){.what = PATH_ROOT}, k->type, object);
}
