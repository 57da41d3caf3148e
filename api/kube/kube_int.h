/* The Kubernetes API from the inside: what its files share. Private to api/kube.
 *
 * The way of a request: head -> route.c, auth.c -> body gathered -> dispatch in kube_api.c -> one of get.c, list.c, watch.c,
 * write.c, patch.c, delete.c, subresource.c, discovery.c. Everything that changes an object goes through the one loop of
 * mutate.c: read here, compute, one guarded txn, again if somebody was faster. */
#ifndef PINTLE_API_KUBE_KUBE_INT_H
#define PINTLE_API_KUBE_KUBE_INT_H

#include "api/kube/kube_api.h"
#include "base/base64.h"
#include "base/blob.h"
#include "base/limits.h"
#include "base/json.h"
#include "base/list.h"
#include "base/yaml.h"
#include "schemas/kube/kinds.h"

#define KUBE_GIT_VERSION "v1.32.0+pintle"
#define KUBE_REGISTRY "/registry/"

/* ---- query strings (query.c) ------------------------------------------------------------------ */

struct query_pair {
    struct slice name, value; /* decoded */
};

struct query {
    struct query_pair *pairs;
    size_t n;
};

/* Decodes `a=b&c=d` (percent and '+'). ERR_INVALID, ERR_LIMIT or ERR_NOMEM. */
int query_parse(struct arena *a, struct slice text, struct query *ret) MUST_CHECK;
/* The first of that name; empty if there is none. */
struct slice query_get(const struct query *q, const char *name);
bool query_has(const struct query *q, const char *name);
/* As Go's strconv.ParseBool, an empty value that is present counts as true; ERR_INVALID. */
int query_bool(const struct query *q, const char *name, bool *ret) MUST_CHECK;
/* *ret is untouched when absent or empty. */
int query_int(const struct query *q, const char *name, int64_t *ret) MUST_CHECK;
/* Percent-decoding of one path segment; ERR_INVALID. */
int percent_decode(struct arena *a, struct slice in, bool plus_is_space, struct slice *ret) MUST_CHECK;

/* ---- routes (route.c) ------------------------------------------------------------------------- */

enum route_type {
    ROUTE_UNKNOWN,
    ROUTE_ROOT,
    ROUTE_RESOURCE,
    ROUTE_API_VERSIONS,  /* /api */
    ROUTE_GROUPS,        /* /apis */
    ROUTE_GROUP,         /* /apis/<group> */
    ROUTE_RESOURCES,     /* /api/v1, /apis/<group>/<version> */
    ROUTE_OPENAPI_V2,
    ROUTE_OPENAPI_V3,    /* the index */
    ROUTE_OPENAPI_V3_GROUP,
    ROUTE_VERSION,
    ROUTE_HEALTH,        /* /healthz, /livez, /readyz: `name` is which */
    ROUTE_METRICS,
    ROUTE_ACCESS_REVIEW, /* SelfSubjectAccessReview and its brothers: `name` is which */
};

struct route {
    enum route_type type;
    const struct kind *kind;     /* ROUTE_RESOURCE */
    struct slice group, version;
    struct slice ns, name, sub;  /* empty if absent */
    bool watch;                  /* the deprecated /watch/ prefix */
};

/* Finds what a path (without the query) names; ROUTE_UNKNOWN if nothing. ERR_INVALID for a bad escape, ERR_NOMEM. */
int route_parse(struct arena *a, struct slice path, struct route *ret) MUST_CHECK;

enum kube_verb {
    VERB_OTHER,
    VERB_GET,
    VERB_LIST,
    VERB_WATCH,
    VERB_CREATE,
    VERB_UPDATE,
    VERB_PATCH,
    VERB_DELETE,
    VERB_DELETECOLLECTION,
    VERB_COUNT
};
const char *verb_name(enum kube_verb v);

/* ---- status objects (status.c) ---------------------------------------------------------------- */

struct status_cause {
    const char *reason, *message, *field;
    struct status_cause *next;
};

/* A metav1.Status. Texts live in the arena that was given to the function that filled it. */
struct status {
    struct arena *arena;
    int code; /* 0 = nothing to tell */
    bool success, has_details;
    const char *reason, *message;
    const char *name, *group, *kind, *uid, *list_continue;
    struct status_cause *causes, **last_cause;
    int retry_after_s;
};

/* All return ERR_INVALID, so that a function can end with `return status_...`. `name` may be empty. */
void status_init(struct status *s, struct arena *a);
int status_set(struct status *s, int code, const char *reason, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void status_details(struct status *s, const struct kind *k, struct slice name);
void status_add_cause(struct status *s, const char *reason, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int status_bad_request(struct status *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
int status_not_found(struct status *s, const struct kind *k, struct slice name);
int status_exists(struct status *s, const struct kind *k, struct slice name);
int status_conflict(struct status *s, const struct kind *k, struct slice name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int status_modified(struct status *s, const struct kind *k, struct slice name);
int status_forbidden(struct status *s, const struct kind *k, struct slice name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* 422 with one cause for each problem. */
int status_invalid(struct status *s, const struct kind *k, struct slice name, const struct kind_problems *p);
/* 422 of one problem, for objects that are no kind of schemas/kube ("ListOptions.meta.k8s.io"). */
int status_invalid_options(struct status *s, const char *group, const char *kind, const char *reason,
                           const char *field, const char *format, ...) __attribute__((format(printf, 6, 7)));
int status_method_not_allowed(struct status *s, const struct kind *k, const char *action);
int status_unknown_path(struct status *s);
int status_internal(struct status *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
int status_expired(struct status *s, const char *message);
int status_too_large_rv(struct status *s, int64_t wanted, int64_t current);
/* What the core answered; `unknown_outcome`: a write that may have been done. */
int status_core(struct status *s, int core_code, bool unknown_outcome);
int status_nomem(struct status *s);
void status_write(struct buf *out, const struct status *s);
/* "pods", "deployments.apps" */
const char *kind_qualified(struct arena *a, const struct kind *k);

/* ---- selectors (selector.c) ------------------------------------------------------------------- */

enum selector_op { SELECT_IN, SELECT_NOT_IN, SELECT_EXISTS, SELECT_NOT_EXISTS, SELECT_GREATER, SELECT_LESS };

struct requirement {
    enum selector_op op;
    struct slice key;
    struct slice *values;
    size_t n_values;
};

struct selector {
    struct requirement *labels;
    size_t n_labels;
    struct requirement *fields; /* SELECT_IN or SELECT_NOT_IN with one value */
    size_t n_fields;
};

/* Text as in ?labelSelector= and ?fieldSelector=. ERR_INVALID or ERR_LIMIT with a sentence, ERR_NOMEM. */
int selector_parse_labels(struct arena *a, struct slice text, struct selector *s, struct err *e) MUST_CHECK;
int selector_parse_fields(struct arena *a, struct slice text, const struct kind *k, struct selector *s,
                          struct err *e) MUST_CHECK;
bool selector_empty(const struct selector *s);
bool selector_matches(const struct selector *s, const struct json *object);
/* The name or the namespace that metadata.name / metadata.namespace must equal; empty if free. */
struct slice selector_fixed(const struct selector *s, const char *field);
/* A metav1.LabelSelector as text, as Scale's status.selector wants it. */
int selector_format(struct buf *out, const struct json *label_selector) MUST_CHECK;

/* ---- content negotiation (negotiate.c) -------------------------------------------------------- */

enum media { MEDIA_JSON, MEDIA_TABLE, MEDIA_PARTIAL, MEDIA_DISCOVERY, MEDIA_PROTOBUF_OPENAPI };

struct format {
    enum media media;
    const char *version; /* of Table, PartialObjectMetadata or discovery: "v1", "v1beta1", "v2" ... */
    bool pretty;
    enum { INCLUDE_METADATA, INCLUDE_NONE, INCLUDE_OBJECT } include;
};

/* Picks from an Accept header (empty = anything) what this server can write. false: nothing of it (406). */
bool negotiate_accept(struct slice accept, struct format *ret);
const char *format_content_type(const struct format *f);

enum body_type { BODY_JSON, BODY_YAML, BODY_JSON_PATCH, BODY_MERGE_PATCH, BODY_STRATEGIC_PATCH, BODY_APPLY_PATCH,
                 BODY_PROTOBUF, BODY_OTHER };
enum body_type negotiate_body(struct slice content_type);

/* ---- continue tokens (token.c) ---------------------------------------------------------------- */

/* Base64url of {"v":"meta.k8s.io/v1","rv":..,"start":..}; `start` is the rest of the key behind the list's prefix. */
int continue_encode(struct arena *a, int64_t revision, struct slice start, const char **ret) MUST_CHECK;
/* ERR_INVALID with a sentence. revision -1 = go on at the newest. */
int continue_decode(struct arena *a, struct slice token, int64_t *ret_revision, struct slice *ret_start,
                    struct err *e) MUST_CHECK;

/* ---- objects as bytes (encode.c) -------------------------------------------------------------- */

enum { ENCODE_ITEM = 1 }; /* without kind and apiVersion, as in the items of a list */

/* Writes an object tree as it is stored: kind, apiVersion and metadata first, no resourceVersion or managedFields. The
 * tree is changed. */
int object_store(struct arena *a, const struct kind *k, struct json *object, struct buf *out) MUST_CHECK;
/* Appends stored bytes as served at `revision` (0: without a resourceVersion). ERR_CORRUPT if they are no object. */
int object_serve(struct buf *out, const struct kind *k, struct slice stored, int64_t revision, unsigned flags)
    MUST_CHECK;
/* Parses stored bytes and sets metadata.resourceVersion. */
int object_parse(struct arena *a, struct slice stored, int64_t revision, struct json **ret) MUST_CHECK;
/* The object as PartialObjectMetadata. */
struct json *object_partial(struct arena *a, const struct json *object, const char *version);
/* One row of a Table; columns are separate. */
int table_row(struct arena *a, const struct kind *k, const struct format *f, const struct json *object, int64_t now_s,
              struct json **ret) MUST_CHECK;
struct json *table_new(struct arena *a, const struct kind *k, const struct format *f, bool with_columns,
                       const char *revision);


/* ---- protobuf bodies (protobuf.c) ------------------------------------------------------------- */

/* ERR_INVALID or ERR_LIMIT with a sentence; ERR_UNSUPPORTED: of a kind that is not known. */
int protobuf_to_json(struct arena *a, struct slice body, struct json **ret, struct err *e) MUST_CHECK;

/* ---- JSON patch and merge patch (jsonpatch.c) ------------------------------------------------- */

/* RFC 6902; `doc` is changed in place, *ret is the new root. ERR_INVALID (`e`: a sentence), ERR_NOT_FOUND / ERR_CONFLICT (a
 * path that is not there, a failed test), ERR_LIMIT, ERR_NOMEM. */
int json_patch_apply(struct arena *a, struct json *doc, const struct json *patch, struct json **ret, struct err *e)
    MUST_CHECK;
/* RFC 7386. */
int json_merge_apply(struct arena *a, struct json *doc, const struct json *patch, struct json **ret) MUST_CHECK;

/* ---- users (auth.c) --------------------------------------------------------------------------- */

struct user {
    struct slice name, uid;
    const struct slice *groups;
    size_t n_groups;
    bool anonymous;
};

struct token_table;
/* kube-apiserver's token file: token,user,uid[,"group1,group2"]. */
int tokens_load(const char *file, struct token_table **ret, struct err *e) MUST_CHECK;
int tokens_parse(struct slice text, struct token_table **ret, struct err *e) MUST_CHECK;
void tokens_free(struct token_table *t);
/* Compares in constant time; NULL if there is no such token. */
const struct user *tokens_find(const struct token_table *t, struct slice token);
/* Who asks. ERR_AUTH: credentials that are no good. */
int authenticate(const struct token_table *t, const struct http_stream *st, struct user *ret) MUST_CHECK;

/* ---- requests --------------------------------------------------------------------------------- */

enum field_validation { FIELDS_WARN, FIELDS_IGNORE, FIELDS_STRICT };

#define KUBE_MAX_CLAIMS 32

enum mutate_action { MUTATE_PUT, MUTATE_DELETE, MUTATE_KEEP };

struct kube_request;

/* See mutate.c. */
struct mutation {
    struct slice key, guard_key;
    int (*compute)(struct kube_request *q); /* sets action, value, claims, releases; or fails with q->status */
    void (*finish)(struct kube_request *q);
    struct record *object, *guard; /* as read last; NULL = not there */
    bool fresh;                    /* read through consensus */
    bool uncertain;                /* an earlier attempt may have been applied */
    unsigned attempts, max_attempts;
    uint64_t deadline_ms;
    enum mutate_action action;
    struct slice value;
    struct slice claims[KUBE_MAX_CLAIMS];   /* allocations: keys that must be free, taken by the same txn */
    size_t n_claims;
    struct slice taken[KUBE_MAX_CLAIMS];    /* those of the last attempt that were not free */
    size_t n_taken;
    struct slice releases[KUBE_MAX_CLAIMS]; /* keys given back by the same txn, if they are this object's */
    size_t n_releases;
    int64_t revision; /* of the object after it */
    int64_t lease;    /* to put it with */
    struct buf command;
};

struct kube_list;
struct kube_watch;
struct delete_options;

struct kube_request {
    struct kube_api *api;
    struct http_stream *st; /* NULL once the exchange is over */
    struct list node;       /* in api->retries while it waits for another attempt */
    uint64_t started_ms;
    void (*retry)(struct kube_request *q);
    unsigned refs;          /* one for the exchange, one for a core request under way */
    bool responded;
    int response_code;
    struct arena arena;
    struct route route;
    enum kube_verb verb;
    struct query query;
    struct user user;
    struct format format;
    enum body_type body_type;
    struct buf body;
    size_t body_counted; /* in api->body_bytes */
    struct status status;
    bool dry_run;
    enum field_validation validation;
    const char *warnings[16];
    size_t n_warnings;

    struct core_request core;
    void (*core_done)(struct kube_request *q);
    void (*answered)(struct kube_request *q); /* of an inner request: instead of an exchange */

    struct mutation mut;
    struct selector selector;
    struct delete_options *delete_options;
    struct kube_list *list;
    struct kube_watch *watch;
    void *extra; /* of the handler, in the arena */
    struct kube_request *parent; /* that makes this one inside the server; held, or NULL */
    struct json *body_json;
};

struct kube_counters;
struct kube_cache;

struct kube_api {
    struct worker *worker;
    struct token_table *tokens;
    char *advertise_host;
    int advertise_port;
    struct kube_cache *cache;
    unsigned refs;       /* the owner's, and one for each request */
    struct list watches, retries;
    size_t n_watches;
    size_t body_bytes; /* of all requests */
    uv_timer_t *watch_timer, *retry_timer; /* heap handles: they live until the loop has closed them */
    int64_t event_lease; /* 0 = none yet */
    uint64_t event_lease_until_ms;
    bool event_lease_asked;
    uint64_t random[64];
    size_t random_left;
};

void kube_api_unref(struct kube_api *api);
void request_ref(struct kube_request *q);
void request_unref(struct kube_request *q);
/* Nobody needs it any more, nor what was parsed from it. */
void request_drop_body(struct kube_request *q);
/* Submits q->core; `done` on this thread, never from inside. */
void request_core(struct kube_request *q, enum core_request_type type, void (*done)(struct kube_request *q));
/* Drops the last core answer, so that q->core can be used again; an open cursor stays. */
void request_core_reset(struct kube_request *q);
/* Closes the open cursor, if there is one; nobody waits for it. */
void request_close_cursor(struct kube_request *q);
/* Runs `retry` after a while, on this thread. */
void request_later(struct kube_request *q, unsigned ms, void (*retry)(struct kube_request *q));
void request_warn(struct kube_request *q, const char *text);

struct kube_request *request_new(struct kube_api *api); /* NULL: out of memory */
/* A request that this server makes of itself on behalf of `parent`, which it holds until it is gone: set its body or query, then
 * request_run it. `answered` comes once, with response_code and, for a failure, status; the request is gone after it. NULL: out of
 * memory. */
struct kube_request *request_inner(struct kube_request *parent, const struct kind *k, enum kube_verb verb,
                                   struct slice ns, struct slice name, void (*answered)(struct kube_request *q));

void request_run(struct kube_request *inner, void (*handler)(struct kube_request *q));

uint64_t kube_random(struct kube_api *api);
/* 36 characters and a NUL. */
void kube_uuid(struct kube_api *api, char out[37]);
/* RFC 3339 in UTC with seconds, 20 characters and a NUL. */
#define KUBE_TIME_MIN (-62135596800) /* the first second of the year 1, and the last of 9999: all that RFC 3339 can say */
#define KUBE_TIME_MAX 253402300799
/* A time outside of these is written as the nearest one inside. */
void kube_time(int64_t unix_s, char out[32]);
int kube_time_parse(struct slice text, int64_t *ret_unix_s) MUST_CHECK;

/* ---- keys (request.c) ------------------------------------------------------------------------- */

struct slice key_of(struct arena *a, const struct kind *k, struct slice ns, struct slice name);
/* What a list covers: with a trailing '/'. */
struct slice key_prefix(struct arena *a, const struct kind *k, struct slice ns);
/* The end of the range of keys that start so. */
struct slice key_prefix_end(struct arena *a, struct slice prefix);
struct slice namespace_key(struct arena *a, struct slice ns);

/* ---- answers (respond.c) ---------------------------------------------------------------------- */

void respond_status(struct kube_request *q);
void respond_bytes(struct kube_request *q, int code, const char *content_type, struct slice body);
void respond_blob(struct kube_request *q, int code, const char *content_type, struct blob *body);
/* A stored object in the negotiated format. */
void respond_stored(struct kube_request *q, int code, struct slice stored, int64_t revision);
void respond_json(struct kube_request *q, int code, const struct json *v);
/* The head of a streamed answer. */
void respond_head(struct kube_request *q, int code, const char *content_type);

/* ---- handlers --------------------------------------------------------------------------------- */

void get_handle(struct kube_request *q);
void list_handle(struct kube_request *q);
void list_writable(struct kube_request *q);
void list_release(struct kube_request *q);
void watch_handle(struct kube_request *q);
void watch_writable(struct kube_request *q);
void watch_release(struct kube_request *q);
int kube_cache_new(struct kube_cache **ret) MUST_CHECK;
void kube_cache_free(struct kube_cache *c); /* NULL is fine */
void create_handle(struct kube_request *q);
void update_handle(struct kube_request *q);
void patch_handle(struct kube_request *q);
/* Applies q->body_json, of q->body_type, to a copy of `old`; fails with q->status. */
int patch_apply(struct kube_request *q, struct json *old, const struct json *patch, const struct kind *k, struct json **ret)
    MUST_CHECK;
void delete_handle(struct kube_request *q);
void delete_collection_handle(struct kube_request *q);
void subresource_handle(struct kube_request *q);
void discovery_handle(struct kube_request *q);
void health_handle(struct kube_request *q);
void metrics_handle(struct kube_request *q);
void review_handle(struct kube_request *q);
void discovery_free_documents(void);

/* Parses labelSelector and fieldSelector into q->selector; fails with q->status. */
int request_selectors(struct kube_request *q) MUST_CHECK;
/* The body as a tree, JSON or YAML; fails with q->status. An empty body is an error. */
int request_body(struct kube_request *q, struct json **ret) MUST_CHECK;

/* ---- changing (mutate.c, write.c, strategy.c, service.c) -------------------------------------- */

/* Starts the loop; q->mut.key (may be empty for a name yet to be generated), guard_key, compute and finish are set. */
void mutate_start(struct kube_request *q);
void mutate_release(struct mutation *m);
/* Answers with the object as it was written. */
void mutate_finish_object(struct kube_request *q);
/* Makes m->value of the tree; MUTATE_KEEP if it equals what is stored. */
int mutate_put(struct kube_request *q, struct json *object) MUST_CHECK;
/* The current object as a tree with its resourceVersion; fails with q->status (404). */
int mutate_current(struct kube_request *q, struct json **ret) MUST_CHECK;

/* Takes a tree the client sent to what may be stored: metadata, pruning, defaults, the kind's own rules, validation. */
int write_prepare_create(struct kube_request *q, struct json *object, struct slice ns) MUST_CHECK;
int write_prepare_update(struct kube_request *q, struct json **object, struct json *old, struct slice sub) MUST_CHECK;
/* The last step of both: 422 with all that is wrong. */
int write_validate(struct kube_request *q, const struct json *object, const struct json *old) MUST_CHECK;
/* Fails with 400 when metadata has another name or namespace than the URL. */
int write_check_names(struct kube_request *q, const struct json *meta, struct slice ns) MUST_CHECK;
/* Fails with 409 when the object carries another resourceVersion than `old`. */
int write_check_version(struct kube_request *q, const struct json *object, const struct json *old) MUST_CHECK;
int write_finish_update(struct kube_request *q, struct json *object, const struct json *old) MUST_CHECK;
/* Prune with the request's fieldValidation. */
int write_prune(struct kube_request *q, const struct kind *k, struct json *object) MUST_CHECK;
/* Whether the request's namespace (m->guard) takes new objects. */
int write_check_namespace(struct kube_request *q, struct slice name) MUST_CHECK;

/* What a kind does beyond its data. */
int strategy_create(struct kube_request *q, struct json *object) MUST_CHECK;
int strategy_update(struct kube_request *q, struct json *object, struct json *old, struct slice sub) MUST_CHECK;
bool kind_is(const struct kind *k, const char *group, const char *kind);
bool kind_has_generation(const struct kind *k);
bool kind_allows_create_on_update(const struct kind *k);
bool kind_needs_version_on_update(const struct kind *k);
bool kind_returns_deleted(const struct kind *k);
const char *pod_qos_class(const struct json *pod);

/* Service addresses: allocation on create and update, release on delete. */
int service_allocate(struct kube_request *q, struct json *service, const struct json *old) MUST_CHECK;
int service_release(struct kube_request *q, const struct json *service) MUST_CHECK;
int mutate_claim(struct kube_request *q, const char *key);
int mutate_unclaim(struct kube_request *q, const char *key);
bool mutate_claim_was_taken(const struct kube_request *q, const char *key);

/* event_lease.c: the lease that an Event is written with (0 for other kinds). false: it is being granted, and `again` runs then. */
bool event_lease_ready(struct kube_request *q, void (*again)(struct kube_request *q), int64_t *ret_lease);
void event_lease_lost(struct kube_api *api);

/* delete.c: what else needs to delete. */
int delete_options_parse(struct kube_request *q, const struct json *body) MUST_CHECK;
int delete_compute(struct kube_request *q) MUST_CHECK;
/* An update of an object that is being deleted and lost its last finalizer removes it. */
bool delete_during_update(const struct kind *k, const struct json *object, const struct json *old);

void metrics_count(const struct kube_request *q);

#endif
