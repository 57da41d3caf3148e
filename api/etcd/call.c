/* Calls that ask the core once and answer once, and streams that must end when the leader is lost.
 */
#include <protobuf-c/protobuf-c.h>

#include "api/etcd/etcd_int.h"
#include "base/limits.h"
#include "base/mem.h"

bool etcd_refuse_without_leader(struct grpc_call *c)
{
    const struct etcd_api *api = grpc_ctx(c);
    if (!slice_eq_str(grpc_metadata(c, "hasleader"), "true") ||
        core_client_leader_id(api->core) != 0)
        return false;
    etcd_fail(c, ERR_NO_LEADER);
    return true;
}

bool etcd_refuse_learner(struct grpc_call *c)
{
    const struct etcd_api *api = grpc_ctx(c);
    if (!core_client_learner(api->core)) return false;
    etcd_fail(c, ERR_LEARNER);
    return true;
}

struct header etcd_header(const struct etcd_api *api, int64_t revision, uint64_t term)
{
    return (struct header){.cluster_id = api->cluster_id,
                           .member_id = api->member_id,
                           .revision = revision,
                           .raft_term = term};
}

/* ---- one question to the core ------------------------------------------------------------------
 */

static void on_done(struct core_request *r)
{
    struct core_call *cc = r->data;
    struct grpc_call *c = grpc_call_of(cc);
    if (grpc_done(c)) {
        /* nobody waits any more */
    } else if (r->code == 0) {
        cc->answer(c, cc);
    } else if (cc->failed) {
        cc->failed(c, cc, r->code);
    } else {
        etcd_fail(c, r->code);
    }
    core_request_release(r);
    buf_release(&cc->command);
    void (*then)(struct grpc_call *, struct core_call *) = cc->then;
    cc->then = NULL;
    cc->r = (struct core_request){0};
    if (then && !grpc_done(c)) then(c, cc);
    grpc_unref(c);
}

void etcd_submit(struct grpc_call *c, struct core_call *cc, enum core_request_type type,
                 void (*answer)(struct grpc_call *c, struct core_call *cc))
{
    const struct etcd_api *api = grpc_ctx(c);
    if (type != CORE_STATUS && etcd_refuse_learner(c)) {
        buf_release(&cc->command);
        arena_release(&cc->r.arena);
        return;
    }
    cc->answer = answer;
    cc->r.type = type;
    cc->r.done = on_done;
    cc->r.data = cc;
    grpc_ref(c);
    core_client_submit(api->core, &cc->r);
}

void etcd_submit_command(struct grpc_call *c, struct core_call *cc, const struct command *cmd,
                         size_t size, void (*answer)(struct grpc_call *c, struct core_call *cc))
{
    int rv = command_check(cmd);
    if (rv == 0 && size > LIMIT_REQUEST_BYTES) rv = ERR_TOO_LARGE;
    if (rv == 0) {
        command_encode(&cc->command, cmd);
        rv = cc->command.failed;
    }
    if (rv != 0) {
        buf_release(&cc->command);
        arena_release(&cc->r.arena);
        etcd_fail(c, rv);
        return;
    }
    cc->r.command = buf_slice(&cc->command);
    etcd_submit(c, cc, CORE_COMMAND, answer);
}

/* ---- cold messages -----------------------------------------------------------------------------
 */

static void *pb_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return mem_alloc(size);
}

static void pb_free(void *ctx, void *p)
{
    (void)ctx;
    mem_free(p);
}

ProtobufCAllocator etcd_pb_allocator = {.alloc = pb_alloc, .free = pb_free};

void *etcd_unpack(struct grpc_call *c, const ProtobufCMessageDescriptor *type, struct slice message)
{
    /* No NULL for an empty message: protobuf-c reads nothing from it. */
    static const uint8_t nothing[1];
    void *m = protobuf_c_message_unpack(type, &etcd_pb_allocator, message.len,
                                        message.len ? message.data : nothing);
    if (!m) etcd_fail_decode(c, ERR_INVALID);
    return m;
}

void etcd_unpacked_free(void *message)
{
    if (message) protobuf_c_message_free_unpacked(message, &etcd_pb_allocator);
}

void etcd_reply(struct grpc_call *c, const ProtobufCMessage *message)
{
    struct buf out = {0};
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *p = buf_reserve(&out, size + 1);
    if (p) out.len = protobuf_c_message_pack(message, p);
    grpc_reply_buf(c, &out);
}

/* ---- streams that need a leader ----------------------------------------------------------------
 */

void leader_watch_begin(struct leader_watch *l, struct grpc_call *c)
{
    struct etcd_api *api = grpc_ctx(c);
    list_init(&l->node);
    l->call = c;
    if (slice_eq_str(grpc_metadata(c, "hasleader"), "true"))
        list_push_back(&api->leader_calls, &l->node);
}

void leader_watch_end(struct leader_watch *l)
{
    if (l->call) list_remove(&l->node);
    l->call = NULL;
}
