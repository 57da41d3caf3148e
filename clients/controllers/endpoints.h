/* What endpoints.c (whose turn it is) and endpointslices.c share. */
#ifndef PINTLE_CLIENTS_CONTROLLERS_ENDPOINTS_H
#define PINTLE_CLIENTS_CONTROLLERS_ENDPOINTS_H

#include "clients/controllers/controllers_int.h"

#define ENDPOINTSLICE_SERVICE "kubernetes.io/service-name"
#define ENDPOINTSLICE_MANAGER "endpointslice.kubernetes.io/managed-by"

struct address {
    struct kube_object *pod;
    struct slice ip;
    bool ready;         /* as Endpoints have it; publishNotReadyAddresses counts */
    bool leaving;       /* being deleted: only slices still show it */
    struct json *ports; /* of the pod, resolved */
};

struct addresses {
    struct address *list;
    size_t n, size;
    bool cut;
};

/* The labels that a Service's Endpoints have. */
struct json *endpoints_labels(struct arena *a, const struct json *service);
/* Adds nulls to `labels` for those of `old` that are no longer wanted: a merge patch removes so. */
void endpoints_drop_labels(struct arena *a, struct json *labels, const struct kube_object *old);
/* Equal, or both empty or absent. */
bool endpoints_same(const struct json *a, const struct json *b);

/* Makes, changes and deletes the Service's slices, so that they hold these addresses. */
void endpointslices_write(struct sync *s, struct kube_object *service, const struct addresses *v);
/* The same for Endpoints that somebody else fills, of a Service without selector. */
void endpointslices_mirror(struct sync *s, struct kube_object *endpoints);

#endif
