/* The Lease service. Granting and revoking are commands; renewals go to the leader, whose clock
 * counts. */
#include <sys/random.h>

#include "api/etcd/etcd_int.h"
#include "base/mem.h"
#include "schemas/etcd/request.h"
#include "schemas/etcd/rpc.pb-c.h"

/* The shortest TTL in seconds, as etcd with its default timings: one and a half election timeouts,
 * rounded up. */
#define MIN_TTL 2
/* Renewals of one stream that are under way; beyond it the stream is not read. */
#define MAX_RENEWALS 256

/* Room for the head and two or three numbers. */
#define SMALL_ANSWER_MAX (HEADER_MAX + 48)

static void reply_bytes(struct grpc_call *c, const uint8_t *out, const uint8_t *end)
{
    struct grpc_piece piece = {.data = {out, (size_t)(end - out)}};
    grpc_reply(c, &piece, 1);
}

static struct header answer_head(struct grpc_call *c, const struct core_call *cc)
{
    int64_t revision = cc->r.result.revision ? cc->r.result.revision : cc->r.ret_revision;
    return etcd_header(grpc_ctx(c), revision, cc->r.ret_term);
}

/* ---- grant, revoke -----------------------------------------------------------------------------
 */

/* A positive id that nobody has, as far as chance goes. */
static int64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0) {
        if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id)) id = 0;
        id &= INT64_MAX;
    }
    return (int64_t)id;
}

static void grant_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    uint8_t out[SMALL_ANSWER_MAX], *p = encode_header(out, &h);
    p = pb_put_uint(p, 2, (uint64_t)cc->r.result.lease.id);
    p = pb_put_uint(p, 3, (uint64_t)cc->r.result.lease.ttl);
    etcd_count(grpc_ctx(c), COUNT_LEASE_GRANTED, 1);
    reply_bytes(c, out, p);
}

static void grant_message(struct grpc_call *c, struct slice message)
{
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__LeaseGrantRequest *m =
        etcd_unpack(c, &etcdserverpb__lease_grant_request__descriptor, message);
    if (!m) return;
    struct command cmd = {.type = COMMAND_LEASE_GRANT,
                          .lease_grant = {.id = m->id ? m->id : random_id(),
                                          .ttl = m->ttl < MIN_TTL ? MIN_TTL : m->ttl}};
    etcd_unpacked_free(m);
    etcd_submit_command(c, grpc_state(c), &cmd, message.len, grant_answer);
}

static void revoke_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    uint8_t out[HEADER_MAX];
    etcd_count(grpc_ctx(c), COUNT_LEASE_REVOKED, 1);
    reply_bytes(c, out, encode_header(out, &h));
}

static void revoke_message(struct grpc_call *c, struct slice message)
{
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__LeaseRevokeRequest *m =
        etcd_unpack(c, &etcdserverpb__lease_revoke_request__descriptor, message);
    if (!m) return;
    struct command cmd = {.type = COMMAND_LEASE_REVOKE, .lease_revoke = {.id = m->id}};
    etcd_unpacked_free(m);
    etcd_submit_command(c, grpc_state(c), &cmd, message.len, revoke_answer);
}

/* ---- questions ---------------------------------------------------------------------------------
 */

static void ttl_reply(struct grpc_call *c, struct core_call *cc, int64_t ttl, int64_t granted)
{
    struct header h = answer_head(c, cc);
    const struct core_request *r = &cc->r;
    struct buf out;
    size_t size = SMALL_ANSWER_MAX;
    buf_init(&out, UINT32_MAX);
    for (size_t i = 0; i < r->n_keys; i++) size += pb_len_size(r->keys[i].len);
    uint8_t *p = buf_reserve(&out, size);
    if (p) {
        p = encode_header(p, &h);
        p = pb_put_uint(p, 2, (uint64_t)r->lease_id);
        p = pb_put_uint(p, 3, (uint64_t)ttl);
        p = pb_put_uint(p, 4, (uint64_t)granted);
        for (size_t i = 0; i < r->n_keys; i++) p = pb_put_bytes(p, 5, r->keys[i]);
        out.len = (size_t)(p - out.data);
    }
    grpc_reply_buf(c, &out);
}

static void ttl_answer(struct grpc_call *c, struct core_call *cc)
{
    ttl_reply(c, cc, cc->r.ttl, cc->r.granted_ttl);
}

/* A lease that is not there is no error, but a TTL of -1. */
static void ttl_failed(struct grpc_call *c, struct core_call *cc, int error)
{
    cc->r.n_keys = 0;
    if (error == ERR_LEASE_NOT_FOUND) ttl_reply(c, cc, -1, 0);
    else etcd_fail(c, error);
}

static void ttl_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__LeaseTimeToLiveRequest *m =
        etcd_unpack(c, &etcdserverpb__lease_time_to_live_request__descriptor, message);
    if (!m) return;
    cc->r.lease_id = m->id;
    cc->r.want_keys = m->keys;
    cc->failed = ttl_failed;
    etcd_unpacked_free(m);
    etcd_submit(c, cc, CORE_LEASE_INFO, ttl_answer);
}

static void leases_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = answer_head(c, cc);
    const struct core_request *r = &cc->r;
    struct buf out = {0};
    size_t size = HEADER_MAX;
    for (size_t i = 0; i < r->n_lease_ids; i++)
        size += pb_len_size(pb_uint_size((uint64_t)r->lease_ids[i]));
    uint8_t *p = buf_reserve(&out, size);
    if (p) {
        p = encode_header(p, &h);
        for (size_t i = 0; i < r->n_lease_ids; i++) {
            p = pb_put_len(p, 2, pb_uint_size((uint64_t)r->lease_ids[i]));
            p = pb_put_uint(p, 1, (uint64_t)r->lease_ids[i]);
        }
        out.len = (size_t)(p - out.data);
    }
    grpc_reply_buf(c, &out);
}

static void leases_message(struct grpc_call *c, struct slice message)
{
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__LeaseLeasesRequest *m =
        etcd_unpack(c, &etcdserverpb__lease_leases_request__descriptor, message);
    if (!m) return;
    etcd_unpacked_free(m);
    etcd_submit(c, grpc_state(c), CORE_LEASES, leases_answer);
}

/* ---- keep alive --------------------------------------------------------------------------------
 */

struct keepalive_stream {
    struct leader_watch leader;
    size_t pending;
    bool half_closed, paused;
};

struct renewal {
    struct core_request r;
    struct grpc_call *call;
    int64_t
        revision; /* before the renewal: nothing that the answer seems to include can be newer */
};

static void renewal_reply(const struct renewal *n, int64_t ttl)
{
    struct header h = etcd_header(grpc_ctx(n->call), n->revision, n->r.ret_term);
    uint8_t out[SMALL_ANSWER_MAX], *p = encode_header(out, &h);
    p = pb_put_uint(p, 2, (uint64_t)n->r.lease_id);
    p = pb_put_uint(p, 3, (uint64_t)ttl);
    grpc_send_copy(n->call, slice_make(out, (size_t)(p - out)));
}

static void keepalive_go_on(struct grpc_call *c, struct keepalive_stream *ks)
{
    if (grpc_done(c)) return;
    if (ks->half_closed && ks->pending == 0) grpc_finish(c, GRPC_OK, NULL);
    if (!ks->paused || ks->pending >= MAX_RENEWALS / 2 || !grpc_writable(c)) return;
    ks->paused = false;
    grpc_resume(c);
}

static void on_renewed(struct core_request *r)
{
    struct renewal *n = container_of(r, struct renewal, r);
    struct grpc_call *c = n->call;
    struct keepalive_stream *ks = grpc_state(c);
    ks->pending--;
    if (!grpc_done(c)) {
        if (r->code == 0 || r->code == ERR_LEASE_NOT_FOUND)
            renewal_reply(n, r->code == 0 ? r->ttl : 0);
        else etcd_fail(c, r->code);
        if (r->code == 0) etcd_count(grpc_ctx(c), COUNT_LEASE_RENEWED, 1);
        keepalive_go_on(c, ks);
    }
    core_request_release(r);
    mem_free(n);
    grpc_unref(c);
}

static void keepalive_message(struct grpc_call *c, struct slice message)
{
    struct etcd_api *api = grpc_ctx(c);
    struct keepalive_stream *ks = grpc_state(c);
    int64_t id;
    int rv = etcd_keepalive_decode(message, &id);
    struct renewal *n = rv == 0 ? mem_calloc(1, sizeof(*n)) : NULL;
    if (!n) {
        grpc_finish(c, rv ? GRPC_INTERNAL : GRPC_RESOURCE_EXHAUSTED,
                    rv ? "grpc: failed to unmarshal the received message: malformed protobuf"
                       : "etcdserver: out of memory");
        return;
    }
    n->call = grpc_ref(c);
    n->revision = watch_hub_revision(api->hub);
    n->r = (struct core_request){.type = CORE_LEASE_RENEW, .done = on_renewed, .lease_id = id};
    core_client_submit(api->core, &n->r);
    if (++ks->pending < MAX_RENEWALS && grpc_writable(c)) return;
    ks->paused = true;
    grpc_pause(c);
}

static void keepalive_open(struct grpc_call *c)
{
    struct keepalive_stream *ks = grpc_state(c);
    leader_watch_begin(&ks->leader, c);
    if (!etcd_refuse_learner(c)) etcd_refuse_without_leader(c);
}

static void keepalive_half_closed(struct grpc_call *c)
{
    struct keepalive_stream *ks = grpc_state(c);
    ks->half_closed = true;
    keepalive_go_on(c, ks);
}

static void keepalive_writable(struct grpc_call *c)
{
    keepalive_go_on(c, grpc_state(c));
}

static void keepalive_closed(struct grpc_call *c, int error)
{
    struct keepalive_stream *ks = grpc_state(c);
    (void)error;
    leader_watch_end(&ks->leader);
}

const struct grpc_method etcd_lease_methods[] = {
    {.name = "LeaseGrant", .state_size = sizeof(struct core_call), .message = grant_message},
    {.name = "LeaseRevoke", .state_size = sizeof(struct core_call), .message = revoke_message},
    {.name = "LeaseKeepAlive",
     .client_streaming = true,
     .state_size = sizeof(struct keepalive_stream),
     .open = keepalive_open,
     .message = keepalive_message,
     .half_closed = keepalive_half_closed,
     .writable = keepalive_writable,
     .closed = keepalive_closed},
    {.name = "LeaseTimeToLive", .state_size = sizeof(struct core_call), .message = ttl_message},
    {.name = "LeaseLeases", .state_size = sizeof(struct core_call), .message = leases_message},
};
const size_t etcd_lease_n_methods = sizeof(etcd_lease_methods) / sizeof(etcd_lease_methods[0]);
