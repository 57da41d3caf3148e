/* Kubernetes kinds as data. One text file per API group (`core.v1.kinds`, `apps.v1.kinds`,
 * `coordination.v1.kinds`, `meta.v1.kinds`) lists types, fields, defaults, checks, merge keys, columns and subresources;
 * everything here is derived from it: discovery, OpenAPI, defaulting, pruning, validation, strategic merge, tables.
 * A kind is added by data, not by code. The grammar stands in docs/kinds.md.
 *
 * The tables are built once (kinds_load, at start, from text embedded in the binary) and are then read-only: any thread may
 * use them. Objects are json trees in the caller's arena. */
#ifndef PINTLE_SCHEMAS_KUBE_KINDS_H
#define PINTLE_SCHEMAS_KUBE_KINDS_H

#include "base/json.h"

struct kind_type; /* one object type: its fields; private */

enum { KIND_STATUS = 1, KIND_SCALE = 2, KIND_BINDING = 4, KIND_EVICTION = 8, KIND_FINALIZE = 16, KIND_LOG = 32 };

struct kind {
    const char *group;       /* "" for core */
    const char *version;     /* "v1" */
    const char *api_version; /* "v1", "apps/v1" */
    const char *kind, *list_kind;
    const char *plural, *singular;
    const char *const *short_names; /* NULL-terminated */
    const char *const *categories;
    const char *storage_prefix; /* below /registry/: "pods", "services/specs", "services/endpoints", "minions", "leases" ... */
    bool namespaced;
    unsigned subresources;
    const char *const *selectable_fields; /* "metadata.name", "spec.nodeName" ...: what a fieldSelector may name */
    const struct kind_type *type;
};

int kinds_load(struct err *e) MUST_CHECK;
size_t kinds_count(void);
const struct kind *kinds_at(size_t i);
/* NULL if there is none. */
const struct kind *kind_by_resource(struct slice group, struct slice version, struct slice plural);
const struct kind *kind_by_name(struct slice api_version, struct slice kind);

/* ---- on the way in ---------------------------------------------------------------------------- */

/* One problem with an object, worded as Kubernetes words field errors. */
enum kind_problem_type { PROBLEM_REQUIRED, PROBLEM_INVALID, PROBLEM_NOT_SUPPORTED, PROBLEM_DUPLICATE, PROBLEM_FORBIDDEN,
                         PROBLEM_TOO_LONG, PROBLEM_TOO_MANY, PROBLEM_TYPE, PROBLEM_UNKNOWN_FIELD, PROBLEM_NOT_FOUND };

struct kind_problem {
    enum kind_problem_type type;
    const char *field; /* "spec.containers[0].name" */
    const char *detail;
    const char *bad_value; /* JSON text, or NULL */
    struct kind_problem *next;
};

struct kind_problems {
    struct arena *arena;
    struct kind_problem *first, **last;
    size_t count;
};
void kind_problems_init(struct kind_problems *p, struct arena *a);
int kind_problem_add(struct kind_problems *p, enum kind_problem_type type, const char *field, const char *bad_value,
                     const char *format, ...) __attribute__((format(printf, 5, 6)));
/* "spec.replicas: Invalid value: -1: must be greater than or equal to 0" */
const char *kind_problem_text(struct arena *a, const struct kind_problem *p);

/* Checks shapes (a wrong JSON type is PROBLEM_TYPE) and removes fields that the type does not know, listing them as
 * PROBLEM_UNKNOWN_FIELD, as are members that stand twice (`detail` says which: unknown field "x", duplicate field "x"); nulls, and
 * zeros of fields that are no pointers, are removed too. Quantities and times get their canonical text. 0 also with problems. */
int kind_prune(struct arena *a, const struct kind *k, struct json *object, struct kind_problems *p) MUST_CHECK;
/* Fills defaults (static ones, and the few computed ones Kubernetes has for the kind). */
int kind_default(struct arena *a, const struct kind *k, struct json *object) MUST_CHECK;
/* Values: names, ranges, enums, required, quantities, label syntax, immutable fields (old != NULL: an update). 0 also with problems; of
 * many only the first LIMIT_KIND_PROBLEMS are listed. */
int kind_validate(struct arena *a, const struct kind *k, const struct json *object, const struct json *old,
                  struct kind_problems *p) MUST_CHECK;
/* A strategic merge patch with the kind's merge keys and directives ($patch, $setElementOrder, $deleteFromPrimitiveList,
 * $retainKeys). `original` is changed in place. ERR_INVALID with a sentence. */
int kind_strategic_merge(struct arena *a, const struct kind *k, struct json *original, const struct json *patch,
                         struct err *e) MUST_CHECK;

/* Resource quantities ("100m", "1Gi"): in thousandths, saturating. */
bool quantity_parse(struct slice text, int64_t *ret_milli);
bool name_is_dns1123_label(struct slice s);
bool name_is_dns1123_subdomain(struct slice s);
bool name_is_qualified(struct slice s); /* label and annotation keys */
bool label_value_is_valid(struct slice s);

/* ---- on the way out --------------------------------------------------------------------------- */

/* Columns of a Table (name, type, format, description, priority) and the cells of one object, as kubectl get prints them; `now_s`:
 * seconds since the epoch, for ages. */
int kind_table_columns(struct arena *a, const struct kind *k, struct json **ret) MUST_CHECK;
int kind_table_cells(struct arena *a, const struct kind *k, const struct json *object, int64_t now_s, struct json **ret) MUST_CHECK;

/* Whether all objects of a kind can be deleted by one request, as discovery says. */
bool kind_has_deletecollection(const struct kind *k);

/* Documents, made once on first use per process by the caller (api/kube caches them); all return ERR_NOMEM, and ERR_NOT_FOUND for a group
 * or version without kinds: discovery of one group version
 * (APIResourceList), /apis (APIGroupList), aggregated discovery (APIGroupDiscoveryList v2) of "api" or "apis". */
int kinds_discovery_resources(struct buf *out, const char *group, const char *version) MUST_CHECK;
int kinds_discovery_groups(struct buf *out) MUST_CHECK;
int kinds_discovery_group(struct buf *out, const char *group) MUST_CHECK; /* ERR_NOT_FOUND */
int kinds_discovery_aggregated(struct buf *out, bool core) MUST_CHECK;
/* OpenAPI v2 as JSON, and as the protobuf that kubectl 1.20 asks for (gnostic openapi.v2.Document); v3: the index with hashes, and one group
 * version as JSON. */
int kinds_openapi_v2_json(struct buf *out) MUST_CHECK;
int kinds_openapi_v2_protobuf(struct buf *out) MUST_CHECK;
int kinds_openapi_v3_index(struct buf *out) MUST_CHECK;
int kinds_openapi_v3(struct buf *out, const char *group, const char *version) MUST_CHECK;

#endif
