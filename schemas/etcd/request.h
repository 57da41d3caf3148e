/* The hot requests of etcd's API, from protobuf straight into the plain structs of
 * schemas/command.h. Bytes are borrowed from the message. A message that is no protobuf, or has a
 * known field of another wire type, is ERR_INVALID; unknown fields are skipped; a field that comes
 * twice counts as it came last. Nothing is checked that command_check and range_op_check check. */
#ifndef PINTLE_SCHEMAS_ETCD_REQUEST_H
#define PINTLE_SCHEMAS_ETCD_REQUEST_H

#include "base/arena.h"
#include "base/err.h"
#include "schemas/command.h"

int etcd_range_decode(struct slice in, struct range_op *ret) MUST_CHECK;
int etcd_put_decode(struct slice in, struct put_op *ret) MUST_CHECK;
int etcd_delete_decode(struct slice in, struct delete_op *ret) MUST_CHECK;
/* Arrays live in `a`. ERR_TOO_MANY_OPS (also if nested deeper than LIMIT_TXN_DEPTH) or ERR_NOMEM
 * too. An operation that is none of those known has type 0. */
int etcd_txn_decode(struct arena *a, struct slice in, struct txn_op *ret) MUST_CHECK;

enum etcd_watch_kind { ETCD_WATCH_NONE, ETCD_WATCH_CREATE, ETCD_WATCH_CANCEL, ETCD_WATCH_PROGRESS };

struct etcd_watch_request {
    enum etcd_watch_kind kind;
    struct slice key, range_end;
    int64_t start_revision;
    bool progress_notify, prev_kv, fragment;
    bool no_put, no_delete; /* filters; unknown ones are ignored, as etcd does */
    int64_t watch_id;       /* CREATE and CANCEL */
};

int etcd_watch_decode(struct slice in, struct etcd_watch_request *ret) MUST_CHECK;

/* LeaseKeepAliveRequest: the lease's id. */
int etcd_keepalive_decode(struct slice in, int64_t *ret_id) MUST_CHECK;

#endif
