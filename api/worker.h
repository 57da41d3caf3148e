/* A worker: one thread, one libuv loop, its HTTP server, its handle on the core, and the API handlers of its connections. */
#ifndef PINTLE_API_WORKER_H
#define PINTLE_API_WORKER_H

#include <uv.h>

#include "api/core/core_thread.h"
#include "api/http/http.h"

struct metrics;
struct etcd_api;
struct kube_api;

struct worker {
    unsigned index;
    uv_loop_t *loop;
    struct core_client *core;
    struct http_server *http;
    struct etcd_api *etcd;
    struct kube_api *kube;
};

#endif
