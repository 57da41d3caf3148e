/* Inside api/etcd: what the services of one worker share. */
#ifndef PINTLE_API_ETCD_ETCD_INT_H
#define PINTLE_API_ETCD_ETCD_INT_H

#include "api/etcd/encode.h"
#include "api/etcd/etcd_api.h"
#include "api/etcd/grpc.h"

/* The version of etcd whose answers these are: what a client that looks for features is told. */
#define ETCD_VERSION "3.5.30"
#define ETCD_CLUSTER_VERSION "3.5.0"

struct etcd_api {
    struct worker *worker;
    struct core_client *core;
    struct watch_hub *hub;
    struct grpc_server *grpc;
    uint64_t cluster_id, member_id;
    uv_timer_t timer;
    uint64_t no_leader_since_ms; /* 0 = there is one */
    uint64_t progress_interval_ms;
    struct list watch_streams; /* struct watch_stream */
    struct list
        leader_calls; /* struct leader_watch: streams that must end when the leader is lost */
    struct watch_cache *watch_cache;
    uint64_t event_cost; /* bytes of events sent, for /metrics */
};

extern const struct grpc_method etcd_kv_methods[], etcd_watch_methods[], etcd_lease_methods[],
    etcd_cluster_methods[], etcd_maintenance_methods[], etcd_auth_methods[], etcd_health_methods[];
extern const size_t etcd_kv_n_methods, etcd_watch_n_methods, etcd_lease_n_methods,
    etcd_cluster_n_methods, etcd_maintenance_n_methods, etcd_auth_n_methods, etcd_health_n_methods;

/* ---- errors (status.c) ------------------------------------------------------------------------
 */

struct etcd_status {
    enum grpc_code code;
    const char *text;
};

/* etcd's code and text for one of ours. */
struct etcd_status etcd_status_of(int error);
void etcd_fail(struct grpc_call *c, int error);
/* A message that could not be read. */
void etcd_fail_decode(struct grpc_call *c, int error);

/* ---- calls with one answer (call.c) -----------------------------------------------------------
 */

/* Whether the client asked to be refused when there is no leader ("hasleader: true"), and there is
 * none: then the call is finished. */
bool etcd_refuse_without_leader(struct grpc_call *c);

/* A learner serves its status, serializable ranges and snapshots, as etcd's (api/v3rpc/util.go); what else it is asked is
 * finished here. */
bool etcd_refuse_learner(struct grpc_call *c);

/* The head of an answer at `revision`. */
struct header etcd_header(const struct etcd_api *api, int64_t revision, uint64_t term);

/* The state of a call that asks the core once. The first member of a method's own state. */
struct core_call {
    struct core_request r;
    struct buf command;
    /* Called when the core has answered without an error and the client is still there. NULL: see
     * `failed`. */
    void (*answer)(struct grpc_call *c, struct core_call *cc);
    /* An error, or NULL for the usual status. */
    void (*failed)(struct grpc_call *c, struct core_call *cc, int error);
    /* Set by `answer` to ask once more: called when `r` is free for it. */
    void (*then)(struct grpc_call *c, struct core_call *cc);
};

/* Sends the request off; the answer comes to `answer`. The call is referenced until then. */
void etcd_submit(struct grpc_call *c, struct core_call *cc, enum core_request_type type,
                 void (*answer)(struct grpc_call *c, struct core_call *cc));
/* Checks the command, encodes it and sends it off; a refused one finishes the call. `size`: of the
 * request, which has etcd's limit. */
void etcd_submit_command(struct grpc_call *c, struct core_call *cc, const struct command *cmd,
                         size_t size, void (*answer)(struct grpc_call *c, struct core_call *cc));

/* protobuf-c through base/mem. */
struct ProtobufCAllocator;
struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;
extern struct ProtobufCAllocator etcd_pb_allocator;
/* Decodes or finishes the call and returns NULL; free with etcd_unpacked_free. */
void *etcd_unpack(struct grpc_call *c, const struct ProtobufCMessageDescriptor *type,
                  struct slice message);
void etcd_unpacked_free(void *message);
/* Encodes a cold answer and finishes with OK. */
void etcd_reply(struct grpc_call *c, const struct ProtobufCMessage *message);

/* ---- streams that need a leader (call.c) -------------------------------------------------------
 */

struct leader_watch {
    struct list node;
    struct grpc_call *call;
};

/* From the head of a stream: keeps it in the list if the client asked for it. The struct lives in
 * the call's state. */
void leader_watch_begin(struct leader_watch *l, struct grpc_call *c);
void leader_watch_end(struct leader_watch *l);

/* ---- watch (watch.c) --------------------------------------------------------------------------
 */

/* Sends progress to the watchers of one worker that are due; called by the timer. */
void etcd_watch_tick(struct etcd_api *api, uint64_t now_ms);
int watch_cache_new(struct watch_cache **ret) MUST_CHECK;
void watch_cache_free(struct watch_cache *cache);
/* Gives back what the last batch left encoded. */
void watch_cache_trim(struct watch_cache *cache);

/* ---- plain HTTP (health.c, metrics.c) ---------------------------------------------------------
 */

void etcd_plain_request(struct etcd_api *api, struct http_stream *st);
/* Writes the metrics page. */
void etcd_metrics_write(struct etcd_api *api, const struct core_status *s, struct buf *out);

/* Counters of one worker, which any worker reads for the metrics page. */
enum etcd_counter {
    COUNT_PUTS,
    COUNT_RANGES,
    COUNT_DELETES,
    COUNT_TXNS,
    COUNT_WATCH_STREAMS,
    COUNT_WATCHERS,
    COUNT_EVENTS,
    COUNT_HEALTH_OK,
    COUNT_HEALTH_FAILED,
    COUNT_LEASE_GRANTED,
    COUNT_LEASE_REVOKED,
    COUNT_LEASE_RENEWED,
    COUNT_ERRORS,
    N_COUNTERS,
};
void etcd_count(const struct etcd_api *api, enum etcd_counter counter, int64_t by);

#endif
