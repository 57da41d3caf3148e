/* The KV service but for Range (range.c): each call is one command, or one read, of the core. */
#include "api/etcd/etcd_int.h"
#include "api/etcd/range.h"
#include "base/limits.h"
#include "schemas/etcd/request.h"
#include "schemas/etcd/rpc.pb-c.h"

static struct header answer_head(struct grpc_call *c, const struct core_call *cc)
{
    int64_t revision = cc->r.result.revision ? cc->r.result.revision : cc->r.ret_revision;
    return etcd_header(grpc_ctx(c), revision, cc->r.ret_term);
}

/* ---- put, delete -------------------------------------------------------------------------------
 */

static void put_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    struct buf out = {0};
    encode_put_response(&out, &h, cc->r.result.op.put.prev);
    grpc_reply_buf(c, &out);
}

static void put_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    struct command cmd = {.type = COMMAND_OP, .op = {.type = OP_PUT}};
    etcd_count(grpc_ctx(c), COUNT_PUTS, 1);
    if (etcd_refuse_without_leader(c)) return;
    int rv = etcd_put_decode(message, &cmd.op.put);
    if (rv != 0) etcd_fail_decode(c, rv);
    else etcd_submit_command(c, cc, &cmd, message.len, put_answer);
}

static void delete_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    struct buf out = {0};
    encode_delete_response(&out, &h, &cc->r.result.op);
    grpc_reply_buf(c, &out);
}

static void delete_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    struct command cmd = {.type = COMMAND_OP, .op = {.type = OP_DELETE}};
    etcd_count(grpc_ctx(c), COUNT_DELETES, 1);
    if (etcd_refuse_without_leader(c)) return;
    int rv = etcd_delete_decode(message, &cmd.op.del);
    if (rv != 0) etcd_fail_decode(c, rv);
    else etcd_submit_command(c, cc, &cmd, message.len, delete_answer);
}

/* ---- txn ---------------------------------------------------------------------------------------
 */

struct txn_call {
    struct core_call core;
    struct txn_op txn; /* needed until the answer is written; in the request's arena */
};

static void txn_answer(struct grpc_call *c, struct core_call *cc)
{
    struct txn_call *t = (struct txn_call *)cc;
    struct header h = answer_head(c, cc);
    struct buf out = {0};
    encode_txn_response(&out, &h, &t->txn, &cc->r.result.op);
    grpc_reply_buf(c, &out);
}

static void txn_start(struct grpc_call *c, struct txn_call *t, size_t size)
{
    struct core_call *cc = &t->core;
    struct command cmd = {.type = COMMAND_OP, .op = {.type = OP_TXN, .txn = &t->txn}};
    if (!txn_op_read_only(&t->txn)) {
        etcd_submit_command(c, cc, &cmd, size, txn_answer);
        return;
    }
    int rv = command_check(&cmd);
    if (rv == 0 && size > LIMIT_REQUEST_BYTES) rv = ERR_TOO_LARGE;
    if (rv != 0) {
        arena_release(&cc->r.arena);
        etcd_fail(c, rv);
        return;
    }
    cc->r.txn = &t->txn;
    cc->r.serializable = txn_op_serializable(&t->txn);
    etcd_submit(c, cc, CORE_TXN_READ, txn_answer);
}

static void txn_message(struct grpc_call *c, struct slice message)
{
    struct txn_call *t = grpc_state(c);
    struct arena *a = &t->core.r.arena;
    etcd_count(grpc_ctx(c), COUNT_TXNS, 1);
    if (etcd_refuse_without_leader(c)) return;
    struct slice own = arena_dup(a, message);
    int rv = own.data ? etcd_txn_decode(a, own, &t->txn) : ERR_NOMEM;
    if (rv == 0) {
        txn_start(c, t, message.len);
        return;
    }
    arena_release(a);
    etcd_fail_decode(c, rv);
}

/* ---- compaction --------------------------------------------------------------------------------
 */

static void compact_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    uint8_t out[HEADER_MAX];
    struct grpc_piece piece = {.data = {out, (size_t)(encode_header(out, &h) - out)}};
    grpc_reply(c, &piece, 1);
}

/* `physical` makes no difference: what was compacted is out of every read, hash and snapshot when
 * the answer goes out, and its memory is given back in slices from then on. */
static void compact_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__CompactionRequest *m =
        etcd_unpack(c, &etcdserverpb__compaction_request__descriptor, message);
    if (!m) return;
    struct command cmd = {.type = COMMAND_COMPACT, .compact = {.revision = m->revision}};
    etcd_unpacked_free(m);
    etcd_submit_command(c, cc, &cmd, message.len, compact_answer);
}

const struct grpc_method etcd_kv_methods[] = {
    {.name = "Range",
     .state_size = sizeof(struct range_call),
     .message = etcd_range_message,
     .writable = etcd_range_writable,
     .closed = etcd_range_closed},
    {.name = "Put", .state_size = sizeof(struct core_call), .message = put_message},
    {.name = "DeleteRange", .state_size = sizeof(struct core_call), .message = delete_message},
    {.name = "Txn", .state_size = sizeof(struct txn_call), .message = txn_message},
    {.name = "Compact", .state_size = sizeof(struct core_call), .message = compact_message},
};
const size_t etcd_kv_n_methods = sizeof(etcd_kv_methods) / sizeof(etcd_kv_methods[0]);
