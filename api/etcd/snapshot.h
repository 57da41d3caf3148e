/* Maintenance/Snapshot: docs/formats-snapshot.md. */
#ifndef PINTLE_API_ETCD_SNAPSHOT_H
#define PINTLE_API_ETCD_SNAPSHOT_H

#include <openssl/evp.h>

#include "api/etcd/etcd_int.h"

struct snapshot_call {
    struct core_request r;
    struct core_snapshot *snapshot; /* open in the core */
    EVP_MD_CTX *digest;
    uint64_t sent, expected; /* bytes; `expected` is a guess until the end */
    bool asking;             /* a request to the core is under way */
};

void etcd_snapshot_message(struct grpc_call *c, struct slice message);
void etcd_snapshot_writable(struct grpc_call *c);
void etcd_snapshot_closed(struct grpc_call *c, int error);

#endif
