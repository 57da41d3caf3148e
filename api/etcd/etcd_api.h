/* etcd's v3 gRPC services on one worker: KV, Watch, Lease, Cluster, Maintenance; and the plain HTTP
 * paths of an etcd client port
 * (/health, /version, /metrics). Auth and the rest answer UNIMPLEMENTED.
 *
 * Sources: etcd's rpc.proto, kv.proto and rpctypes/error.go (codes and texts), gRPC's
 * PROTOCOL-HTTP2.md. */
#ifndef PINTLE_API_ETCD_ETCD_API_H
#define PINTLE_API_ETCD_ETCD_API_H

#include "api/worker.h"

struct etcd_api;

/* How often idle watches that asked for it are told the revision (etcd's
 * --experimental-watch-progress-notify-interval; 10 minutes at first, at least 100 ms). Before the
 * first etcd_api_new. */
void etcd_api_set_progress_interval(uint64_t ms);

int etcd_api_new(struct worker *w, struct etcd_api **ret) MUST_CHECK;
/* After the worker's HTTP server is closed. */
void etcd_api_free(struct etcd_api *api);
/* The http_handler of the client port; ctx is the struct etcd_api. */
void etcd_api_request(void *ctx, struct http_stream *st);

#endif
