/* etcd's hot answers, written straight from the store's records: sizes first, then the bytes. */
#ifndef PINTLE_API_ETCD_ENCODE_H
#define PINTLE_API_ETCD_ENCODE_H

#include "schemas/etcd/pb.h"
#include "store/store.h"

struct header {
    uint64_t cluster_id, member_id;
    int64_t revision;
    uint64_t raft_term;
};

/* Most bytes that encode_header writes. */
#define HEADER_MAX 48

/* The header as field 1 of an answer. */
size_t header_size(const struct header *h);
uint8_t *encode_header(uint8_t *p, const struct header *h);

/* mvccpb.KeyValue, without the tag and length before it. */
size_t kv_size(const struct record *r, bool keys_only);
uint8_t *encode_kv(uint8_t *p, const struct record *r, bool keys_only);
/* All of it but the value's bytes, which must follow it directly, and the lease after those
 * (kv_tail). */
uint8_t *encode_kv_head(uint8_t *p, const struct record *r);
uint8_t *encode_kv_tail(uint8_t *p, const struct record *r);
/* Most bytes of both but key and value. */
#define KV_MAX 64

/* mvccpb.Event as field 11 of a WatchResponse, with its tag and length. */
size_t event_size(const struct event *e, bool prev_kv);
uint8_t *encode_event(uint8_t *p, const struct event *e, bool prev_kv);

/* Whole answers, appended to `out` (check out->failed). `keys_only` of ranges inside a txn comes
 * from the request. */
void encode_put_response(struct buf *out, const struct header *h, const struct record *prev);
void encode_delete_response(struct buf *out, const struct header *h, const struct op_result *r);
void encode_range_response(struct buf *out, const struct header *h, const struct range_result *r,
                           bool keys_only);
void encode_txn_response(struct buf *out, const struct header *h, const struct txn_op *request,
                         const struct op_result *r);

#endif
