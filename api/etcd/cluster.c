/* The Cluster service: who the members are. Changing that is not offered by this server. */

#include "api/etcd/etcd_int.h"
#include "schemas/etcd/rpc.pb-c.h"

/* protobuf-c wants strings with a NUL behind them; the core's have one (arena_dup). */
static char *text_of(struct slice s)
{
    return s.data ? (char *)(uintptr_t)s.data : (char *)(uintptr_t) "";
}

static bool fill_member(struct arena *a, const struct core_member *from, Etcdserverpb__Member *to)
{
    etcdserverpb__member__init(to);
    to->id = from->id;
    to->name = text_of(from->name);
    to->islearner = from->learner;
    to->peerurls = arena_calloc(a, 1, sizeof(char *));
    to->clienturls = arena_calloc(a, from->n_client_urls, sizeof(char *));
    if (!to->peerurls || !to->clienturls) return false;
    to->peerurls[0] = text_of(from->peer_url);
    to->n_peerurls = 1;
    to->n_clienturls = from->n_client_urls;
    for (size_t i = 0; i < from->n_client_urls; i++)
        to->clienturls[i] = text_of(from->client_urls[i]);
    return true;
}

static void list_answer(struct grpc_call *c, struct core_call *cc)
{
    const struct etcd_api *api = grpc_ctx(c);
    struct core_request *r = &cc->r;
    Etcdserverpb__ResponseHeader head =
        ETCDSERVERPB__RESPONSE_HEADER__INIT; /* etcd sends no revision here */
    Etcdserverpb__MemberListResponse out = ETCDSERVERPB__MEMBER_LIST_RESPONSE__INIT;
    head.cluster_id = api->cluster_id;
    head.member_id = api->member_id;
    head.raft_term = r->ret_term;
    out.header = &head;
    out.n_members = r->n_members;
    out.members = arena_calloc(&r->arena, r->n_members, sizeof(*out.members));
    Etcdserverpb__Member *members = arena_calloc(&r->arena, r->n_members, sizeof(*members));
    bool ok = out.members && members;
    for (size_t i = 0; ok && i < r->n_members; i++) {
        out.members[i] = &members[i];
        ok = fill_member(&r->arena, &r->members[i], &members[i]);
    }
    if (ok) etcd_reply(c, &out.base);
    else etcd_fail(c, ERR_NOMEM);
}

static void list_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__MemberListRequest *m =
        etcd_unpack(c, &etcdserverpb__member_list_request__descriptor, message);
    if (!m) return;
    cc->r.serializable = !m->linearizable;
    etcd_unpacked_free(m);
    etcd_submit(c, cc, CORE_MEMBERS, list_answer);
}

static void change_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    grpc_finish(c, GRPC_UNIMPLEMENTED,
                "etcdserver: the members of this cluster are fixed by --initial-cluster and cannot "
                "be changed while it runs");
}

const struct grpc_method etcd_cluster_methods[] = {
    {.name = "MemberList", .state_size = sizeof(struct core_call), .message = list_message},
    {.name = "MemberAdd", .message = change_message},
    {.name = "MemberRemove", .message = change_message},
    {.name = "MemberUpdate", .message = change_message},
    {.name = "MemberPromote", .message = change_message},
};
const size_t etcd_cluster_n_methods =
    sizeof(etcd_cluster_methods) / sizeof(etcd_cluster_methods[0]);
