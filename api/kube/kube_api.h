/* The Kubernetes REST API on one worker: authentication, discovery, OpenAPI, and one generic resource handler over the kinds of
 * schemas/kube; objects live as compact JSON under /registry/ in the store.
 *
 * Sources: kubernetes.io/docs/reference/using-api (API concepts, server-side apply excluded), API conventions, v1.32. */
#ifndef PINTLE_API_KUBE_KUBE_API_H
#define PINTLE_API_KUBE_KUBE_API_H

#include "api/worker.h"

struct kube_api;

struct kube_config {
    const char *token_file;  /* kube-apiserver's --token-auth-file: token,user,uid,"group1,group2"; NULL = none */
    const char *advertise_host; /* for the `kubernetes` Endpoints */
    int advertise_port;
};

int kube_api_new(struct worker *w, const struct kube_config *config, struct kube_api **ret) MUST_CHECK;
void kube_api_free(struct kube_api *api);
/* The http_handler of the Kubernetes port; ctx is the struct kube_api. */
void kube_api_request(void *ctx, struct http_stream *st);
/* Called on one worker of each member once it may serve: makes what a cluster starts with if it is missing (namespaces default, kube-system, kube-public,
 * kube-node-lease; the `kubernetes` Service and this member's address in its Endpoints). */
void kube_api_bootstrap(struct kube_api *api);

#endif
