/* Errors of the whole program: one list, so that a code means the same thing everywhere.
 *
 * Functions return 0 or one negative code of this list; whoever has something to add fills an
 * optional `struct err`. gRPC and Kubernetes status codes are chosen from these in api/ only. */
#ifndef PINTLE_BASE_ERR_H
#define PINTLE_BASE_ERR_H

#define ERR_LIST(X)                                                                               \
    X(NOMEM, 1, "out of memory")                                                                  \
    X(INVALID, 2, "invalid input")                                                                \
    X(LIMIT, 3, "over a limit")                                                                   \
    X(IO, 4, "input/output error")                                                                \
    X(CORRUPT, 5, "corrupt data")                                                                 \
    X(NOT_FOUND, 6, "not found")                                                                  \
    X(EXISTS, 7, "already exists")                                                                \
    X(CLOSED, 8, "closed")                                                                        \
    X(AGAIN, 9, "not ready, try again")                                                           \
    X(TIMEOUT, 10, "timed out")                                                                   \
    X(CANCELED, 11, "canceled")                                                                   \
    X(NO_LEADER, 12, "no leader")                                                                 \
    X(LEADER_CHANGED, 13, "leader changed")                                                       \
    X(NOT_LEADER, 14, "not leader")                                                               \
    X(COMPACTED, 15, "mvcc: required revision has been compacted")                                \
    X(FUTURE_REV, 16, "mvcc: required revision is a future revision")                             \
    X(LEASE_NOT_FOUND, 17, "requested lease not found")                                           \
    X(LEASE_EXISTS, 18, "lease already exists")                                                   \
    X(LEASE_TTL_TOO_LARGE, 19, "too large lease TTL")                                             \
    X(NO_SPACE, 20, "mvcc: database space exceeded")                                              \
    X(DUPLICATE_KEY, 21, "duplicate key given in txn request")                                    \
    X(KEY_NOT_FOUND, 22, "key not found")                                                         \
    X(EMPTY_KEY, 23, "key is not provided")                                                       \
    X(VALUE_PROVIDED, 24, "value is provided")                                                    \
    X(LEASE_PROVIDED, 25, "lease is provided")                                                    \
    X(TOO_MANY_OPS, 26, "too many operations in txn request")                                     \
    X(TOO_LARGE, 27, "request is too large")                                                      \
    X(TOO_MANY_REQUESTS, 28, "too many requests")                                                 \
    X(UNSUPPORTED, 29, "not supported")                                                           \
    X(BUSY, 30, "busy")                                                                           \
    X(CONFLICT, 31, "conflict")                                                                   \
    X(UNAVAILABLE, 32, "unavailable")                                                             \
    X(MEMBER_NOT_FOUND, 33, "member not found")                                                   \
    X(STOPPED, 34, "server stopped")                                                              \
    X(AUTH, 35, "not authenticated")                                                              \
    X(DENIED, 36, "permission denied")                                                            \
    X(CLUSTER_MISMATCH, 37, "cluster ID mismatch")                                                \
    X(INVALID_SORT_OPTION, 38, "invalid sort option")                                             \
    X(RESTART, 39, "has to be started again")                                                     \
    X(REMOVED, 40, "this member was removed from the cluster")                                    \
    X(NOT_STARTED, 41, "re-configuration failed due to not enough started members")               \
    X(UNHEALTHY, 42, "unhealthy cluster")                                                         \
    X(TOO_MANY_LEARNERS, 43, "too many learner members in cluster")                               \
    X(NOT_LEARNER, 44, "can only promote a learner member")                                       \
    X(LEARNER_BEHIND, 45, "can only promote a learner member which is in sync with leader")       \
    X(PEER_URL_EXISTS, 46, "Peer URLs already exists")                                            \
    X(BAD_PEER_URL, 47, "given member URLs are invalid")                                          \
    X(LEARNER, 48, "rpc not supported for learner")

enum {
#define X(name, number, text) ERR_##name = -(number),
    ERR_LIST(X)
#undef X
};

#define MUST_CHECK __attribute__((warn_unused_result))

/* What a person is told about an error: a sentence, cut at the end of the array. */
struct err {
    char text[256];
};

/* The name ("COMPACTED") and the default text of a code; never NULL. */
const char *err_name(int code);
const char *err_text(int code);

/* Writes a sentence to `e`, which may be NULL, and returns `code`: `return err_set(e, ERR_IO, ...)`. */
int err_set(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
