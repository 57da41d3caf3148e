/* Where the API servers are and who we are: a kubeconfig file (v1 Config, YAML or JSON) or flags.
 *
 * Several servers of one control plane: cluster.server may be a comma list, or the cluster has an
 * extension named "pintle/servers" whose `extension` is {servers: [url, ...]}; the latter leaves
 * `server` to kubectl. */
#ifndef PINTLE_CLIENTS_LIB_KUBECONFIG_H
#define PINTLE_CLIENTS_LIB_KUBECONFIG_H

#include "base/arena.h"
#include "base/limits.h"
#include "clients/lib/h2client.h"

struct kube_config {
    struct arena arena;
    const char *servers[LIMIT_CLIENT_ENDPOINTS];
    size_t n_servers;
    struct h2_tls_options
        tls;                /* PEM texts, or file names relative to the kubeconfig made absolute */
    const char *token;      /* NULL = none */
    const char *namespace_; /* of the context; "default" if it has none */
};

/* `context` NULL = the file's current-context. ERR_NOT_FOUND, ERR_INVALID; `e` says what and where.
 */
int kube_config_load(const char *file, const char *context, struct kube_config *ret,
                     struct err *e) MUST_CHECK;
/* The same from text; `dir`: what relative file names are relative to. */
int kube_config_parse(struct slice text, const char *dir, const char *context,
                      struct kube_config *ret, struct err *e) MUST_CHECK;
/* A comma list of URLs instead of those of the file. */
int kube_config_set_servers(struct kube_config *config, const char *list, struct err *e) MUST_CHECK;
void kube_config_release(struct kube_config *config);

#endif
