/* Private to openapi*.c: a document under construction. Once something failed for lack of memory,
 * `failed` stays set and everything else does nothing. */
#ifndef PINTLE_SCHEMAS_KUBE_OPENAPI_INT_H
#define PINTLE_SCHEMAS_KUBE_OPENAPI_INT_H

#include "schemas/kube/kinds_int.h"

struct doc {
    struct arena a;
    bool v3;
    bool failed;
    struct json *schemas; /* by name */
};

struct json *doc_object(struct doc *d);
struct json *doc_array(struct doc *d);
void doc_put(struct doc *d, struct json *object, const char *name, struct json *value);
void doc_put_str(struct doc *d, struct json *object, const char *name, const char *text);
void doc_push(struct doc *d, struct json *array, struct json *value);
void doc_push_str(struct doc *d, struct json *array, const char *text);
/* {"$ref": ...} to the schema of this full name. */
struct json *doc_ref(struct doc *d, const char *name);
/* {"group":..., "kind":..., "version":...} */
struct json *doc_gvk(struct doc *d, const char *group, const char *version, const char *kind);
const char *doc_type_name(struct doc *d, const struct kind_type *t);
const char *doc_list_name(struct doc *d, const struct kind *k);

/* Adds the schema of a type and of all that it refers to. */
void doc_add_type(struct doc *d, const struct kind_type *t);
void doc_add_kind(struct doc *d, const struct kind *k);
/* The paths of one kind, or of its group version's root. */
void doc_add_paths(struct doc *d, struct json *paths, const struct kind *k);
/* An OpenAPI v2 document as gnostic's openapi.v2.Document. */
void openapi_write_protobuf(struct buf *out, const struct json *document);

#endif
