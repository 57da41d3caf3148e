/* Protobuf for clients of the etcd API: a writer for requests, and a decoder that turns an answer
 * into a JSON tree after a table of fields, named and shaped as etcdctl's `-w json` prints it
 * (bytes as base64, zero values left out). */
#ifndef PINTLE_CLIENTS_LIB_PBJSON_H
#define PINTLE_CLIENTS_LIB_PBJSON_H

#include "base/json.h"
#include "base/slice.h"
#include "schemas/etcd/pb.h"

/* ---- writing: check out->failed at the end
 * ------------------------------------------------------------ */
void pb_varint(struct buf *out, uint64_t v);
void pb_uint(struct buf *out, unsigned field, uint64_t v); /* 0 is left out */
void pb_bool(struct buf *out, unsigned field, bool v);
void pb_bytes(struct buf *out, unsigned field, struct slice v);   /* empty is left out */
void pb_message(struct buf *out, unsigned field, struct slice v); /* an empty one is written */

/* ---- reading (the fields themselves: pb_next of schemas/etcd/pb.h) -------------------------- */

enum pbj_type { PBJ_UINT64, PBJ_INT64, PBJ_BOOL, PBJ_BYTES, PBJ_STRING, PBJ_MESSAGE, PBJ_ENUM };

struct pbj_field {
    unsigned number;
    const char *name;
    enum pbj_type type;
    bool repeated;
    bool always;                     /* shown when zero too */
    const struct pbj_field *message; /* of PBJ_MESSAGE */
};

/* ERR_CORRUPT or ERR_NOMEM. Depth is bounded by LIMIT_PROTOBUF_DEPTH. The table ends with number 0.
 */
int pb_to_json(struct arena *a, struct slice in, const struct pbj_field *fields,
               struct json **ret) MUST_CHECK;

#endif
