/* Answers on a Watch stream. The events of a run (watch_hub_run) are encoded once for all watches
 * of this worker that get it, and sent by reference. */
#ifndef PINTLE_API_ETCD_WATCH_ENCODE_H
#define PINTLE_API_ETCD_WATCH_ENCODE_H

#include "api/etcd/encode.h"
#include "api/etcd/grpc.h"

/* A WatchResponse without events. */
struct watch_control {
    struct header head;
    int64_t watch_id, compact_revision;
    bool created, canceled;
    struct slice reason; /* at most WATCH_REASON_MAX bytes */
};

#define WATCH_REASON_MAX 128
#define WATCH_CONTROL_MAX (HEADER_MAX + WATCH_REASON_MAX + 48)

/* Writes at most WATCH_CONTROL_MAX bytes; returns how many. */
size_t encode_watch_control(uint8_t *out, const struct watch_control *w);

struct watch_cache;

struct watch_send {
    struct grpc_call *call;
    struct header head; /* of the last part; earlier ones say the last revision in them */
    int64_t watch_id;
    uint64_t run;
    const struct event *const *events;
    size_t n;
    bool prev_kv, fragment;
};

/* Sends the events in as few answers as possible: whole revisions, up to about
 * LIMIT_WATCH_BATCH_BYTES in one; a single revision that is larger than LIMIT_WATCH_FRAGMENT_BYTES
 * is cut between events if `fragment`. ERR_NOMEM: nothing was sent. */
int watch_send_events(struct watch_cache *cache, const struct watch_send *s) MUST_CHECK;

#endif
