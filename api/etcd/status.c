/* etcd's gRPC codes and texts, word for word as clients compare them (api/v3rpc/rpctypes/error.go).
 */
#include "api/etcd/etcd_int.h"

struct etcd_status etcd_status_of(int error)
{
    switch (error) {
    case ERR_EMPTY_KEY:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: key is not provided"};
    case ERR_KEY_NOT_FOUND:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: key not found"};
    case ERR_VALUE_PROVIDED:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: value is provided"};
    case ERR_LEASE_PROVIDED:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: lease is provided"};
    case ERR_TOO_MANY_OPS:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT,
                                    "etcdserver: too many operations in txn request"};
    case ERR_DUPLICATE_KEY:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT,
                                    "etcdserver: duplicate key given in txn request"};
    case ERR_INVALID_SORT_OPTION:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: invalid sort option"};
    case ERR_COMPACTED:
        return (struct etcd_status){GRPC_OUT_OF_RANGE,
                                    "etcdserver: mvcc: required revision has been compacted"};
    case ERR_FUTURE_REV:
        return (struct etcd_status){GRPC_OUT_OF_RANGE,
                                    "etcdserver: mvcc: required revision is a future revision"};
    case ERR_NO_SPACE:
        return (struct etcd_status){GRPC_RESOURCE_EXHAUSTED,
                                    "etcdserver: mvcc: database space exceeded"};
    case ERR_LEASE_NOT_FOUND:
        return (struct etcd_status){GRPC_NOT_FOUND, "etcdserver: requested lease not found"};
    case ERR_LEASE_EXISTS:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists"};
    case ERR_LEASE_TTL_TOO_LARGE:
        return (struct etcd_status){GRPC_OUT_OF_RANGE, "etcdserver: too large lease TTL"};
    case ERR_MEMBER_NOT_FOUND:
        return (struct etcd_status){GRPC_NOT_FOUND, "etcdserver: member not found"};
    case ERR_CLUSTER_MISMATCH:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION, "etcdserver: cluster ID mismatch"};
    case ERR_TOO_LARGE:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: request is too large"};
    case ERR_TOO_MANY_REQUESTS:
        return (struct etcd_status){GRPC_RESOURCE_EXHAUSTED, "etcdserver: too many requests"};
    case ERR_NO_LEADER: return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: no leader"};
    case ERR_NOT_LEADER:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION, "etcdserver: not leader"};
    case ERR_LEADER_CHANGED:
        return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: leader changed"};
    case ERR_STOPPED: return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: server stopped"};
    case ERR_TIMEOUT:
        return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: request timed out"};
    case ERR_CORRUPT: return (struct etcd_status){GRPC_DATA_LOSS, "etcdserver: corrupt cluster"};
    case ERR_UNAVAILABLE:
        return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: this member heals, ask another"};
    case ERR_PEER_URL_EXISTS:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION, "etcdserver: Peer URLs already exists"};
    case ERR_NOT_STARTED:
        return (struct etcd_status){
            GRPC_FAILED_PRECONDITION,
            "etcdserver: re-configuration failed due to not enough started members"};
    case ERR_BAD_PEER_URL:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT,
                                    "etcdserver: given member URLs are invalid"};
    case ERR_NOT_LEARNER:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION,
                                    "etcdserver: can only promote a learner member"};
    case ERR_LEARNER_BEHIND:
        return (struct etcd_status){
            GRPC_FAILED_PRECONDITION,
            "etcdserver: can only promote a learner member which is in sync with leader"};
    case ERR_TOO_MANY_LEARNERS:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION,
                                    "etcdserver: too many learner members in cluster"};
    case ERR_UNHEALTHY:
        return (struct etcd_status){GRPC_UNAVAILABLE, "etcdserver: unhealthy cluster"};
    case ERR_LEARNER:
        return (struct etcd_status){GRPC_FAILED_PRECONDITION,
                                    "etcdserver: rpc not supported for learner"};
    case ERR_NOMEM:
        return (struct etcd_status){GRPC_RESOURCE_EXHAUSTED, "etcdserver: out of memory"};
    case ERR_LIMIT:
        return (struct etcd_status){GRPC_RESOURCE_EXHAUSTED, "etcdserver: over a limit"};
    case ERR_BUSY:
        return (struct etcd_status){GRPC_UNAVAILABLE,
                                    "etcdserver: busy with an earlier request of this kind"};
    case ERR_INVALID:
        return (struct etcd_status){GRPC_INVALID_ARGUMENT, "etcdserver: invalid request"};
    default: return (struct etcd_status){GRPC_UNKNOWN, err_text(error)};
    }
}

void etcd_fail(struct grpc_call *c, int error)
{
    struct etcd_status s = etcd_status_of(error);
    etcd_count(grpc_ctx(c), COUNT_ERRORS, 1);
    grpc_finish(c, s.code, s.text);
}

void etcd_fail_decode(struct grpc_call *c, int error)
{
    if (error != ERR_INVALID && error != ERR_LIMIT) {
        etcd_fail(c, error);
        return;
    }
    etcd_count(grpc_ctx(c), COUNT_ERRORS, 1);
    grpc_finish(c, GRPC_INTERNAL,
                error == ERR_LIMIT ? "grpc: error unmarshalling request: nested too deep"
                                   : "grpc: error unmarshalling request: malformed protobuf");
}
