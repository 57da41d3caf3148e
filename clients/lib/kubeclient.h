/* The Kubernetes REST API without types: requests on resources, JSON bodies, metav1.Status as
 * errors.
 *
 * Every request ends with exactly one call of `done`, never from inside the call that made it, also
 * if it could not be sent. A GET is repeated when its connection is lost; any request is repeated
 * when the server says so (429, or 503 with Retry-After). All else is left to the caller: after
 * ERR_UNAVAILABLE or ERR_TIMEOUT a write may or may not have been carried out.
 *
 * A member that keeps answering 503 or 504, or not in time, is left for the next one.
 *
 * One thread, one loop. */
#ifndef PINTLE_CLIENTS_LIB_KUBECLIENT_H
#define PINTLE_CLIENTS_LIB_KUBECLIENT_H

#include "base/json.h"
#include "clients/lib/kubeconfig.h"

struct kube_client;

struct kube_resource {
    const char *api_version; /* "v1", "apps/v1" */
    const char *plural;
    const char *kind;
    bool namespaced;
};

extern const struct kube_resource KUBE_PODS, KUBE_NODES, KUBE_SERVICES, KUBE_ENDPOINTS,
    KUBE_NAMESPACES, KUBE_EVENTS, KUBE_SERVICEACCOUNTS, KUBE_LEASES, KUBE_REPLICASETS,
    KUBE_DEPLOYMENTS, KUBE_ENDPOINTSLICES;

int kube_client_new(uv_loop_t *loop, const struct kube_config *config, const char *user_agent,
                    struct kube_client **ret, struct err *e) MUST_CHECK;
/* Drops what is under way without a callback; `closed` may be NULL. */
void kube_client_close(struct kube_client *c, void (*closed)(void *ctx), void *ctx);
struct h2_client *kube_client_h2(struct kube_client *c);
uv_loop_t *kube_client_loop(struct kube_client *c);

enum kube_verb {
    KUBE_GET,
    KUBE_CREATE,
    KUBE_UPDATE,
    KUBE_MERGE_PATCH,
    KUBE_STRATEGIC_PATCH,
    KUBE_JSON_PATCH,
    KUBE_DELETE
};

struct kube_request {
    enum kube_verb verb;
    const struct kube_resource *resource;
    struct slice ns;   /* empty: cluster-wide, or all namespaces */
    struct slice name; /* empty: the collection */
    const char *subresource,
        *query;              /* NULL = none; the query is URL-encoded by the caller (kube_query) */
    const struct json *body; /* written out before kube_send returns; or */
    struct slice raw_body;
    const char *path;    /* instead of resource, ns and name */
    unsigned timeout_ms; /* 0 = 30 s; all attempts together */
};

struct kube_result {
    int code;            /* 0; NOT_FOUND, EXISTS, CONFLICT, COMPACTED (410), INVALID, DENIED, AUTH,
                            TOO_MANY_REQUESTS, ... */
    int status;          /* HTTP; 0 = no answer */
    const char *reason;  /* of metav1.Status: "AlreadyExists"; "" if there is none */
    const char *message; /* one sentence; "" on success */
    struct slice body;
    struct kube_client *client;
};

/* The result is valid during the call. */
typedef void kube_done(void *ctx, const struct kube_result *r);

void kube_send(struct kube_client *c, const struct kube_request *r, kube_done *done, void *ctx);
/* The answer's body, parsed; valid during `done`. NULL if it is not JSON or memory is short. */
struct json *kube_result_json(const struct kube_result *r);

/* Short forms. A patch with metadata.resourceVersion in it is refused with ERR_CONFLICT when the
 * object has moved on. */
void kube_get(struct kube_client *c, const struct kube_resource *r, struct slice ns,
              struct slice name, kube_done *done, void *ctx);
void kube_create(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 const struct json *object, kube_done *done, void *ctx);
void kube_update(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 struct slice name, const struct json *object, kube_done *done, void *ctx);
void kube_patch(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                struct slice name, const char *subresource, const struct json *merge_patch,
                kube_done *done, void *ctx);
/* `uid` (may be empty) and, beside it, the resourceVersion `version` (0 = any) are preconditions;
 * grace_s < 0: the object's own; `propagation` NULL: the server's default. */
void kube_delete(struct kube_client *c, const struct kube_resource *r, struct slice ns,
                 struct slice name, struct slice uid, int64_t version, int64_t grace_s,
                 const char *propagation, kube_done *done, void *ctx);

/* A streamed GET (watches), with the client's credentials. */
int kube_stream(struct kube_client *c, struct slice path, const struct h2_callbacks *cb, void *user,
                unsigned timeout_ms, struct h2_stream **ret) MUST_CHECK;
/* "/apis/apps/v1/namespaces/ns/deployments/name"; check out->failed. */
void kube_path(struct buf *out, const struct kube_resource *r, struct slice ns, struct slice name,
               const char *subresource);
/* Appends "name=value" URL-encoded, with '?' or '&' before it as needed. */
void kube_query(struct buf *out, const char *name, struct slice value);
/* What an HTTP status and a Status' reason mean as a code. */
int kube_error_code(int status, struct slice reason);

#endif
