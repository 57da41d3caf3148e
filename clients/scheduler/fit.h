/* Where a pod fits best: the scheduler's model of nodes and of the pods on them, kept up to date
 * step by step, and the filters and scores over it. No I/O, no clock; one thread.
 *
 * Semantics follow kube-scheduler 1.32's default plugins: NodeUnschedulable, NodeName,
 * TaintToleration, NodeAffinity, NodePorts and NodeResourcesFit as filters; NodeResourcesFit (least
 * allocated), NodeResourcesBalancedAllocation, NodeAffinity, TaintToleration and the default
 * spreading as scores, with their weights. Spreading is by node, among pods of one controller (or,
 * without one, pods of the namespace with the same labels: those that one Service selects). */
#ifndef PINTLE_CLIENTS_SCHEDULER_FIT_H
#define PINTLE_CLIENTS_SCHEDULER_FIT_H

#include "base/list.h"
#include "clients/lib/informer.h"

enum { RESOURCE_CPU, RESOURCE_MEMORY, RESOURCE_EPHEMERAL, RESOURCE_KINDS = 16 };

struct fit;

struct fit_port {
    struct slice ip, protocol;
    int64_t port;
};

struct fit_node {
    struct smap_node node;      /* key: name */
    struct kube_object *object; /* NULL: pods name it, but it is not known */
    int64_t allocatable[RESOURCE_KINDS], requested[RESOURCE_KINDS];
    int64_t nonzero_cpu, nonzero_memory; /* requests with defaults for those who ask for nothing */
    int64_t max_pods, n_pods;
    const struct json *labels, *taints;
    bool unschedulable;
    struct list pods; /* fit_pod.on_node */
    size_t slot;
    char name[];
};

struct fit_group; /* pods to be spread */

/* What a pod asks for, worked out once. Embedded in the caller's own struct. */
struct fit_pod {
    struct kube_object *object; /* one reference */
    int64_t request[RESOURCE_KINDS];
    int64_t nonzero_cpu, nonzero_memory;
    struct fit_port *ports;
    size_t n_ports;
    struct fit_group *group;
    struct fit_node *node; /* assigned; NULL */
    struct list on_node;
};

struct fit *fit_new(void);
void fit_free(struct fit *f); /* after all its pods */

/* Adds or replaces a node. Returns whether something changed by which a waiting pod could fit now.
 */
bool fit_node_set(struct fit *f, struct kube_object *o);
void fit_node_remove(struct fit *f, struct slice name);
struct fit_node *fit_node_get(const struct fit *f, struct slice name);
size_t fit_nodes(const struct fit *f); /* known ones */

void fit_pod_init(struct fit *f, struct fit_pod *p, struct kube_object *o);
void fit_pod_release(struct fit *f, struct fit_pod *p);
/* Counts the pod on that node (which need not be known yet), until unassigned. */
void fit_assign(struct fit *f, struct fit_pod *p, struct slice node);
void fit_unassign(struct fit *f, struct fit_pod *p);

/* The best node, or NULL and why, in Kubernetes' words, in `why` ("0/3 nodes are available: 3
 * Insufficient cpu."). */
struct fit_node *fit_pick(struct fit *f, const struct fit_pod *p, struct buf *why);

/* Requests of a pod: containers, init containers (the largest counts; sidecars add up), overhead.
 */
void fit_pod_requests(struct fit *f, const struct json *spec, int64_t request[RESOURCE_KINDS],
                      bool nonzero);

#endif
