/* Private: what can be done with a kind besides the object itself; for discovery and OpenAPI. */
#ifndef PINTLE_SCHEMAS_KUBE_VERBS_H
#define PINTLE_SCHEMAS_KUBE_VERBS_H

#include "schemas/kube/kinds.h"

struct kind_sub {
    unsigned bit;
    const char *name;
    const char *group, *version, *kind; /* NULL: the kind's own */
    const char *verbs;                  /* as JSON */
};

/* The i-th subresource of the kind, in the order of names; NULL beyond the last. */
const struct kind_sub *kind_subresource_at(const struct kind *k, size_t i);

#endif
