/* What fit.c (the model) and pick.c (the choice) share. */
#ifndef PINTLE_CLIENTS_SCHEDULER_FIT_INT_H
#define PINTLE_CLIENTS_SCHEDULER_FIT_INT_H

#include "clients/scheduler/fit.h"

struct fit_group {
    struct smap_node node;
    size_t refs, size;
    int *counts; /* by node slot */
    uint8_t key[];
};

/* A node that passed the filters, and its raw scores. */
struct candidate {
    struct fit_node *node;
    double least, balanced, affinity, taints, spread;
};

struct fit {
    struct smap by_name;
    struct fit_node **slots; /* holes are NULL */
    size_t n_slots, n_known, start;
    struct smap groups;
    char *kinds[RESOURCE_KINDS]; /* names of resources */
    int n_kinds;
    struct candidate *scratch;
    size_t scratch_size;
};

#endif
