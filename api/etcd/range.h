/* KV/Range. */
#ifndef PINTLE_API_ETCD_RANGE_H
#define PINTLE_API_ETCD_RANGE_H

#include "api/etcd/etcd_int.h"

struct range_call {
    struct core_request r;
    struct arena arena; /* the request's bytes, until the first answer */
    struct range_op op;
    struct header head;
    struct core_cursor *cursor;
    struct record **records; /* references, ours */
    size_t n, size;
    int64_t count;
    bool more;
    bool sending;
    size_t sent; /* records of an answer that goes out in parts */
};

void etcd_range_message(struct grpc_call *c, struct slice message);
void etcd_range_writable(struct grpc_call *c);
void etcd_range_closed(struct grpc_call *c, int error);

#endif
