/* OpenAPI v2 and v3 documents, made from the tables: the schemas here, the paths in
 * openapi_paths.c, the protobuf form of v2 in openapi_protobuf.c. What kubectl needs of them: types
 * for `explain` and for checks before it sends, merge keys for `apply`, and which parameters a
 * server knows. */
#include <stdio.h>
#include <xxhash.h>

#include "schemas/kube/openapi_int.h"

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."
#define QUANTITY "io.k8s.apimachinery.pkg.api.resource.Quantity"
#define INT_OR_STRING "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

/* ---- building ---------------------------------------------------------------------------------
 */

static struct json *made(struct doc *d, struct json *v)
{
    if (!v) d->failed = true;
    return v;
}

struct json *doc_object(struct doc *d)
{
    return made(d, json_object(&d->a));
}

struct json *doc_array(struct doc *d)
{
    return made(d, json_array(&d->a));
}

void doc_put(struct doc *d, struct json *object, const char *name, struct json *value)
{
    if (d->failed || !object || !value || !name || json_set_str(&d->a, object, name, value))
        d->failed = true;
}

void doc_put_str(struct doc *d, struct json *object, const char *name, const char *text)
{
    doc_put(d, object, name, text ? json_str(&d->a, text) : NULL);
}

void doc_push(struct doc *d, struct json *array, struct json *value)
{
    if (d->failed || !array || !value || json_push(&d->a, array, value)) d->failed = true;
}

void doc_push_str(struct doc *d, struct json *array, const char *text)
{
    doc_push(d, array, text ? json_str(&d->a, text) : NULL);
}

struct json *doc_ref(struct doc *d, const char *name)
{
    struct json *v = doc_object(d);
    doc_put_str(d, v, "$ref",
                arena_printf(&d->a, "#/%s/%s", d->v3 ? "components/schemas" : "definitions", name));
    return v;
}

struct json *doc_gvk(struct doc *d, const char *group, const char *version, const char *kind)
{
    struct json *v = doc_object(d);
    doc_put_str(d, v, "group", group);
    doc_put_str(d, v, "kind", kind);
    doc_put_str(d, v, "version", version);
    return v;
}

const char *doc_type_name(struct doc *d, const struct kind_type *t)
{
    const char *name = arena_printf(&d->a, "%s.%s", t->package, t->name);
    if (!name) d->failed = true;
    return name ? name : "";
}

const char *doc_list_name(struct doc *d, const struct kind *k)
{
    const char *name = arena_printf(&d->a, "%s.%s", kind_entry_of(k)->package, k->list_kind);
    if (!name) d->failed = true;
    return name ? name : "";
}

static struct json *typed(struct doc *d, const char *type, const char *format)
{
    struct json *v = doc_object(d);
    doc_put_str(d, v, "type", type);
    if (format) doc_put_str(d, v, "format", format);
    return v;
}

/* ---- schemas ----------------------------------------------------------------------------------
 */

static struct json *one_of(struct doc *d, const char *x, const char *y)
{
    struct json *v = doc_object(d), *list = doc_array(d);
    doc_push(d, list, typed(d, x, NULL));
    doc_push(d, list, typed(d, y, NULL));
    doc_put(d, v, "oneOf", list);
    return v;
}

/* The scalars that have a name of their own. */
static struct json *named_scalar(struct doc *d, enum kind_shape shape)
{
    static const struct {
        enum kind_shape shape;
        const char *name, *type, *format, *other; /* other: v3 takes either */
    } scalars[] = {
        {SHAPE_QUANTITY, QUANTITY, "string", NULL, "number"},
        {SHAPE_TIME, META "Time", "string", "date-time", NULL},
        {SHAPE_MICROTIME, META "MicroTime", "string", "date-time", NULL},
        {SHAPE_INT_OR_STRING, INT_OR_STRING, "string", "int-or-string", "integer"},
        {SHAPE_RAW, META "FieldsV1", "object", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof(scalars) / sizeof(scalars[0]); i++) {
        if (scalars[i].shape != shape) continue;
        if (!json_get(d->schemas, scalars[i].name)) {
            struct json *v = d->v3 && scalars[i].other ? one_of(d, scalars[i].other, "string")
                                                       : typed(d, scalars[i].type, NULL);
            if (scalars[i].format) doc_put_str(d, v, "format", scalars[i].format);
            doc_put(d, d->schemas, scalars[i].name, v);
        }
        return doc_ref(d, scalars[i].name);
    }
    return NULL;
}

static struct json *element_schema(struct doc *d, const struct kind_field *f)
{
    switch (f->shape) {
    case SHAPE_STRING: return typed(d, "string", NULL);
    case SHAPE_BOOL: return typed(d, "boolean", NULL);
    case SHAPE_INT32: return typed(d, "integer", "int32");
    case SHAPE_INT64: return typed(d, "integer", "int64");
    case SHAPE_DOUBLE: return typed(d, "number", "double");
    case SHAPE_BYTES: return typed(d, "string", "byte");
    case SHAPE_OBJECT: doc_add_type(d, f->type); return doc_ref(d, doc_type_name(d, f->type));
    default: return named_scalar(d, f->shape);
    }
}

static void add_enum(struct doc *d, const struct kind_field *f, struct json *v)
{
    struct json *list = doc_array(d);
    if (!f->n_enums) return;
    for (size_t i = 0; i < f->n_enums; i++) doc_push(d, list, json_string(&d->a, f->enums[i]));
    doc_put(d, v, "enum", list);
}

static void add_default(struct doc *d, const struct kind_field *f, struct json *v)
{
    if (f->fallback && f->fallback->type < JSON_ARRAY && !json_get(v, "$ref"))
        doc_put(d, v, "default", json_clone(&d->a, f->fallback));
}

static void add_list_words(struct doc *d, const struct kind_field *f, struct json *v)
{
    if (f->container == HOLDS_LIST) {
        const char *type = f->map_keys                 ? "map"
                           : (f->flags & FIELD_SET)    ? "set"
                           : (f->flags & FIELD_ATOMIC) ? "atomic"
                                                       : NULL;
        if (type) doc_put_str(d, v, "x-kubernetes-list-type", type);
    } else if (f->flags & FIELD_ATOMIC) {
        doc_put_str(d, v, "x-kubernetes-map-type", "atomic");
    }
    if (f->map_keys) {
        struct json *keys = doc_array(d);
        for (size_t i = 0; f->map_keys[i]; i++) doc_push_str(d, keys, f->map_keys[i]);
        doc_put(d, v, "x-kubernetes-list-map-keys", keys);
    }
    if (f->merge_key) doc_put_str(d, v, "x-kubernetes-patch-merge-key", f->merge_key);
    bool merge = f->flags & FIELD_MERGE, retain = f->flags & FIELD_RETAIN_KEYS;
    if (merge || retain)
        doc_put_str(d, v, "x-kubernetes-patch-strategy",
                    merge && retain ? "merge,retainKeys"
                    : merge         ? "merge"
                                    : "retainKeys");
}

static struct json *field_schema(struct doc *d, const struct kind_field *f)
{
    struct json *element = element_schema(d, f), *v = element;
    add_enum(d, f, element);
    if (f->container == HOLDS_LIST) {
        v = typed(d, "array", NULL);
        doc_put(d, v, "items", element);
    } else if (f->container == HOLDS_MAP) {
        v = typed(d, "object", NULL);
        doc_put(d, v, "additionalProperties", element);
    }
    add_default(d, f, v);
    add_list_words(d, f, v);
    return v;
}

/* The kinds and the bodies of subresources are found by this extension. */
static void add_gvk(struct doc *d, const struct kind_type *t, struct json *v)
{
    static const struct {
        const char *type, *group;
    } bodies[] = {{"Binding", ""},
                  {"Eviction", "policy"},
                  {"Scale", "autoscaling"},
                  {"Status", ""},
                  {"DeleteOptions", ""}};
    struct json *list = doc_array(d);
    for (size_t i = 0; i < kinds_count(); i++)
        if (kinds_at(i)->type == t)
            doc_push(d, list, doc_gvk(d, kinds_at(i)->group, kinds_at(i)->version, t->name));
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        if (strcmp(bodies[i].type, t->name) == 0)
            doc_push(d, list, doc_gvk(d, bodies[i].group, "v1", t->name));
    if (list && list->count) doc_put(d, v, "x-kubernetes-group-version-kind", list);
}

static const char *about(const struct kind_type *t)
{
    for (size_t i = 0; i < kinds_count(); i++)
        if (kinds_at(i)->type == t) return kind_entry_of(kinds_at(i))->about;
    return NULL;
}

void doc_add_type(struct doc *d, const struct kind_type *t)
{
    const char *name = doc_type_name(d, t);
    if (d->failed || json_get(d->schemas, name)) return;
    struct json *v = doc_object(d), *properties = doc_object(d), *required = doc_array(d);
    doc_put(d, d->schemas, name, v); /* first, because types may contain themselves */
    if (about(t)) doc_put_str(d, v, "description", about(t));
    doc_put_str(d, v, "type", "object");
    for (size_t i = 0; i < t->n_fields && !d->failed; i++) {
        const struct kind_field *f = &t->fields[i];
        const char *field = arena_strdup(&d->a, f->name);
        doc_put(d, properties, field, field_schema(d, f));
        if (f->flags & FIELD_REQUIRED) doc_push_str(d, required, field);
    }
    if (properties && properties->count) doc_put(d, v, "properties", properties);
    if (required && required->count) doc_put(d, v, "required", required);
    add_gvk(d, t, v);
}

static void add_list_type(struct doc *d, const struct kind *k)
{
    struct json *v = typed(d, "object", NULL), *properties = doc_object(d), *items;
    struct json *required = doc_array(d), *gvks = doc_array(d);
    const struct kind_type *meta = kind_type_named("ListMeta");
    doc_put(d, properties, "apiVersion", typed(d, "string", NULL));
    items = typed(d, "array", NULL);
    doc_put(d, items, "items", doc_ref(d, doc_type_name(d, k->type)));
    doc_put(d, properties, "items", items);
    doc_put(d, properties, "kind", typed(d, "string", NULL));
    if (meta) {
        doc_add_type(d, meta);
        doc_put(d, properties, "metadata", doc_ref(d, doc_type_name(d, meta)));
    }
    doc_put(d, v, "properties", properties);
    doc_push_str(d, required, "items");
    doc_put(d, v, "required", required);
    doc_push(d, gvks, doc_gvk(d, k->group, k->version, k->list_kind));
    doc_put(d, v, "x-kubernetes-group-version-kind", gvks);
    doc_put(d, d->schemas, doc_list_name(d, k), v);
}

void doc_add_kind(struct doc *d, const struct kind *k)
{
    static const char *const shared[] = {"Status", "DeleteOptions"};
    doc_add_type(d, k->type);
    add_list_type(d, k);
    for (size_t i = 0; i < 2; i++)
        if (kind_type_named(shared[i])) doc_add_type(d, kind_type_named(shared[i]));
    if (!json_get(d->schemas, META "Patch"))
        doc_put(d, d->schemas, META "Patch", typed(d, "object", NULL));
}

/* ---- documents --------------------------------------------------------------------------------
 */

/* `group` NULL: all of them. */
static struct json *make_document(struct doc *d, const char *group, const char *version)
{
    struct json *root = doc_object(d), *info = doc_object(d), *paths = doc_object(d);
    size_t n = 0;
    d->schemas = doc_object(d);
    doc_put_str(d, root, d->v3 ? "openapi" : "swagger", d->v3 ? "3.0.0" : "2.0");
    doc_put_str(d, info, "title", "Kubernetes");
    doc_put_str(d, info, "version", "v1.32.0");
    doc_put(d, root, "info", info);
    doc_put(d, root, "paths", paths);
    for (size_t i = 0; i < kinds_count() && !d->failed; i++) {
        const struct kind *k = kinds_at(i);
        if (group && (strcmp(group, k->group) != 0 || strcmp(version, k->version) != 0)) continue;
        n++;
        doc_add_kind(d, k);
        doc_add_paths(d, paths, k);
    }
    struct json *components = doc_object(d);
    if (d->v3) doc_put(d, components, "schemas", d->schemas);
    doc_put(d, root, d->v3 ? "components" : "definitions", d->v3 ? components : d->schemas);
    return n && !d->failed ? root : NULL;
}

static int finish(struct doc *d, const struct json *root, struct buf *out, bool protobuf)
{
    int rc = d->failed ? ERR_NOMEM : root ? 0 : ERR_NOT_FOUND;
    if (!rc && protobuf) openapi_write_protobuf(out, root);
    else if (!rc) json_write(out, root);
    arena_release(&d->a);
    return rc ? rc : out->failed;
}

int kinds_openapi_v2_json(struct buf *out)
{
    struct doc d = {0};
    return finish(&d, make_document(&d, NULL, NULL), out, false);
}

int kinds_openapi_v2_protobuf(struct buf *out)
{
    struct doc d = {0};
    return finish(&d, make_document(&d, NULL, NULL), out, true);
}

int kinds_openapi_v3(struct buf *out, const char *group, const char *version)
{
    struct doc d = {.v3 = true};
    return finish(&d, make_document(&d, group, version), out, false);
}

static int write_index_entry(struct buf *out, const struct kind *k, bool first)
{
    struct buf document = {0};
    int rc = kinds_openapi_v3(&document, k->group, k->version);
    const char *root = k->group[0] ? "apis" : "api";
    if (!rc)
        buf_printf(out, "%s\"%s/%s\":{\"serverRelativeURL\":\"/openapi/v3/%s/%s?hash=%016llX\"}",
                   first ? "" : ",", root, k->api_version, root, k->api_version,
                   (unsigned long long)XXH3_64bits(document.data, document.len));
    buf_release(&document);
    return rc;
}

int kinds_openapi_v3_index(struct buf *out)
{
    int rc = 0;
    bool first = true;
    buf_append_str(out, "{\"paths\":{");
    for (size_t i = 0; i < kinds_count() && !rc; i++) {
        const struct kind *k = kinds_at(i);
        bool seen = false;
        for (size_t j = 0; j < i; j++)
            seen |= strcmp(kinds_at(j)->api_version, k->api_version) == 0;
        if (seen) continue;
        rc = write_index_entry(out, k, first);
        first = false;
    }
    buf_append_str(out, "}}\n");
    return rc ? rc : out->failed;
}
