/* Objects as bytes.
 *
 * What is stored starts with {"kind":K,"apiVersion":V,"metadata":{ and carries no resourceVersion, which is the mod
 * revision of its key. Serving it is a splice: these first bytes, "resourceVersion":"N", and the rest as it is, without
 * parsing. What somebody else put there by hand in another order is parsed instead. */
#include <stdio.h>

#include "api/kube/kube_int.h"

static int move_member(struct arena *a, struct json *to, struct json *from, const char *name)
{
    struct json *v = json_get(from, name);
    return v ? json_set(a, to, slice_str(name), v) : 0;
}

static struct json *stored_metadata(struct arena *a, const struct json *meta)
{
    static const char *const first[] = {"name", "generateName", "namespace", "uid", "generation", "creationTimestamp"};
    struct json *out = json_object(a);
    struct json *source = (struct json *)meta;
    if (!out) return NULL;
    for (size_t i = 0; i < sizeof(first) / sizeof(*first); i++) {
        if (move_member(a, out, source, first[i])) return NULL;
    }
    for (size_t i = 0; meta && meta->type == JSON_OBJECT && i < meta->count; i++) {
        struct slice name = meta->members[i].name;
        if (slice_eq_str(name, "resourceVersion") || slice_eq_str(name, "managedFields") ||
            slice_eq_str(name, "selfLink") || meta->members[i].value->type == JSON_NULL) {
            continue;
        }
        if (json_set(a, out, name, meta->members[i].value)) return NULL;
    }
    return out;
}

int object_store(struct arena *a, const struct kind *k, struct json *object, struct buf *out)
{
    struct json *stored = json_object(a);
    struct json *meta = stored_metadata(a, json_get(object, "metadata"));
    if (!stored || !meta) return ERR_NOMEM;
    int code = json_set_str(a, stored, "kind", json_str(a, k->kind));
    if (!code) code = json_set_str(a, stored, "apiVersion", json_str(a, k->api_version));
    if (!code) code = json_set_str(a, stored, "metadata", meta);
    for (size_t i = 0; !code && i < object->count; i++) {
        struct slice name = object->members[i].name;
        if (json_get_slice(stored, name) || object->members[i].value->type == JSON_NULL) continue;
        code = json_set(a, stored, name, object->members[i].value);
    }
    if (code) return code;
    json_write(out, stored);
    return out->failed;
}

/* How long {"kind":K,"apiVersion":V,"metadata":{ is at the start of `stored`; 0 if it does not start so. */
static size_t canonical_head(const struct kind *k, struct slice stored)
{
    char head[256];
    int n = snprintf(head, sizeof(head), "{\"kind\":\"%s\",\"apiVersion\":\"%s\",\"metadata\":{", k->kind, k->api_version);
    if (n < 0 || (size_t)n >= sizeof(head) || stored.len < (size_t)n + 2) return 0;
    return memcmp(stored.data, head, (size_t)n) == 0 ? (size_t)n : 0;
}

static int serve_parsed(struct buf *out, struct slice stored, int64_t revision, unsigned flags)
{
    struct arena a;
    struct json *v;
    arena_init(&a, 64 * LIMIT_MiB);
    int code = object_parse(&a, stored, revision, &v);
    if (!code) {
        if (flags & ENCODE_ITEM) {
            json_remove(v, SLICE_LIT("kind"));
            json_remove(v, SLICE_LIT("apiVersion"));
        }
        json_write(out, v);
        code = out->failed;
    }
    arena_release(&a);
    return code;
}

int object_serve(struct buf *out, const struct kind *k, struct slice stored, int64_t revision, unsigned flags)
{
    size_t head = canonical_head(k, stored);
    if (!head) return serve_parsed(out, stored, revision, flags);
    if (flags & ENCODE_ITEM) {
        buf_append_str(out, "{\"metadata\":{");
    } else {
        buf_append(out, stored.data, head);
    }
    if (revision) {
        bool more = stored.data[head] != '}';
        char text[64];
        int n = snprintf(text, sizeof(text), "\"resourceVersion\":\"%lld\"%s", (long long)revision, more ? "," : "");
        buf_append(out, text, (size_t)n);
    }
    buf_append(out, stored.data + head, stored.len - head);
    return out->failed;
}

int object_parse(struct arena *a, struct slice stored, int64_t revision, struct json **ret)
{
    struct json *v;
    int code = json_parse(a, stored, 0, &v, NULL);
    if (code == ERR_NOMEM) return code;
    if (code || v->type != JSON_OBJECT) return ERR_CORRUPT;
    struct json *meta = json_get(v, "metadata");
    if (!meta || meta->type != JSON_OBJECT) return ERR_CORRUPT;
    if (revision) {
        const char *text = arena_printf(a, "%lld", (long long)revision);
        if (!text) return ERR_NOMEM;
        code = json_set_str(a, meta, "resourceVersion", json_str(a, text));
        if (code) return code;
    }
    *ret = v;
    return 0;
}

struct json *object_partial(struct arena *a, const struct json *object, const char *version)
{
    struct json *out = json_object(a);
    struct json *meta = json_get(object, "metadata");
    if (!out || json_set_str(a, out, "kind", json_str(a, "PartialObjectMetadata"))) return NULL;
    const char *api_version = strcmp(version, "v1") == 0 ? "meta.k8s.io/v1" : "meta.k8s.io/v1beta1";
    if (json_set_str(a, out, "apiVersion", json_str(a, api_version))) return NULL;
    if (meta && json_set_str(a, out, "metadata", meta)) return NULL;
    return out;
}

int table_row(struct arena *a, const struct kind *k, const struct format *f, const struct json *object, int64_t now_s,
              struct json **ret)
{
    struct json *row = json_object(a), *cells;
    if (!row) return ERR_NOMEM;
    int code = kind_table_cells(a, k, object, now_s, &cells);
    if (!code) code = json_set_str(a, row, "cells", cells);
    if (code) return code;
    struct json *shown = NULL;
    if (f->include == INCLUDE_OBJECT) shown = (struct json *)object;
    if (f->include == INCLUDE_METADATA) {
        shown = object_partial(a, object, f->version);
        if (!shown) return ERR_NOMEM;
    }
    if (shown) code = json_set_str(a, row, "object", shown);
    if (!code) *ret = row;
    return code;
}

struct json *table_new(struct arena *a, const struct kind *k, const struct format *f, bool with_columns,
                       const char *revision)
{
    struct json *t = json_object(a), *meta = json_object(a), *columns = json_array(a);
    const char *api_version = strcmp(f->version, "v1") == 0 ? "meta.k8s.io/v1" : "meta.k8s.io/v1beta1";
    if (!t || !meta || !columns) return NULL;
    if (with_columns && kind_table_columns(a, k, &columns)) return NULL;
    if (revision && json_set_str(a, meta, "resourceVersion", json_str(a, revision))) return NULL;
    if (json_set_str(a, t, "kind", json_str(a, "Table")) || json_set_str(a, t, "apiVersion", json_str(a, api_version)) ||
        json_set_str(a, t, "metadata", meta) || json_set_str(a, t, "columnDefinitions", columns)) {
        return NULL;
    }
    return t;
}
