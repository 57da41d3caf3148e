/* Between protobuf.c and its data. */
#ifndef PINTLE_API_KUBE_PROTOBUF_INT_H
#define PINTLE_API_KUBE_PROTOBUF_INT_H

#include <stddef.h>

struct proto_type {
    const char *name;
    const char *fields; /* see protobuf_fields.c */
};

extern const struct proto_type proto_types[];
extern const size_t n_proto_types;

#endif
