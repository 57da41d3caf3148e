/* The Cluster service: who the members are, and changes of that. */

#include "api/etcd/etcd_int.h"
#include "base/url.h"
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

/* What every answer has: head and members. The responses of Remove, Update, Promote and List are the same on the wire. */
static bool fill_members(struct grpc_call *c, struct core_request *r, Etcdserverpb__ResponseHeader *head,
                         Etcdserverpb__Member ***ret)
{
    const struct etcd_api *api = grpc_ctx(c);
    etcdserverpb__response_header__init(head); /* etcd sends no revision here */
    head->cluster_id = api->cluster_id;
    head->member_id = api->member_id;
    head->raft_term = r->ret_term;
    *ret = arena_calloc(&r->arena, r->n_members, sizeof(**ret));
    Etcdserverpb__Member *members = arena_calloc(&r->arena, r->n_members, sizeof(*members));
    bool ok = *ret && members;
    for (size_t i = 0; ok && i < r->n_members; i++) {
        (*ret)[i] = &members[i];
        ok = fill_member(&r->arena, &r->members[i], &members[i]);
    }
    return ok;
}

static void list_answer(struct grpc_call *c, struct core_call *cc)
{
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__MemberListResponse out = ETCDSERVERPB__MEMBER_LIST_RESPONSE__INIT;
    out.header = &head;
    out.n_members = cc->r.n_members;
    if (fill_members(c, &cc->r, &head, &out.members)) etcd_reply(c, &out.base);
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

/* ---- changes ---------------------------------------------------------------------------------- */

static void add_answer(struct grpc_call *c, struct core_call *cc)
{
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__MemberAddResponse out = ETCDSERVERPB__MEMBER_ADD_RESPONSE__INIT;
    out.header = &head;
    out.n_members = cc->r.n_members;
    if (!fill_members(c, &cc->r, &head, &out.members)) {
        etcd_fail(c, ERR_NOMEM);
        return;
    }
    for (size_t i = 0; i < out.n_members; i++)
        if (out.members[i]->id == cc->r.member_id) out.member = out.members[i];
    if (out.member) etcd_reply(c, &out.base);
    else etcd_fail(c, ERR_MEMBER_NOT_FOUND); /* added, and removed again by somebody else */
}

static void change(struct grpc_call *c, struct core_member_change ch, void (*answer)(struct grpc_call *, struct core_call *))
{
    struct core_call *cc = grpc_state(c);
    cc->r.change = ch;
    etcd_submit(c, cc, CORE_MEMBER_CHANGE, answer);
}

/* One URL: a member of this cluster listens for the others in one place. The bytes go into the call's arena. */
static int take_url(struct grpc_call *c, char *const *urls, size_t n, struct slice *ret)
{
    struct core_call *cc = grpc_state(c);
    struct url url;
    if (n != 1 || url_parse(urls[0], &url, NULL) != 0) return ERR_BAD_PEER_URL;
    *ret = arena_dup(&cc->r.arena, slice_str(urls[0]));
    return ret->data ? 0 : ERR_NOMEM;
}

static void add_message(struct grpc_call *c, struct slice message)
{
    Etcdserverpb__MemberAddRequest *m =
        etcd_unpack(c, &etcdserverpb__member_add_request__descriptor, message);
    if (!m) return;
    struct core_member_change ch = {.op = CONSENSUS_ADD, .learner = m->islearner};
    int rv = take_url(c, m->peerurls, m->n_peerurls, &ch.peer_url);
    etcd_unpacked_free(m);
    if (rv) etcd_fail(c, rv);
    else change(c, ch, add_answer);
}

static void update_message(struct grpc_call *c, struct slice message)
{
    Etcdserverpb__MemberUpdateRequest *m =
        etcd_unpack(c, &etcdserverpb__member_update_request__descriptor, message);
    if (!m) return;
    struct core_member_change ch = {.op = CONSENSUS_UPDATE, .member_id = m->id};
    int rv = take_url(c, m->peerurls, m->n_peerurls, &ch.peer_url);
    etcd_unpacked_free(m);
    if (rv) etcd_fail(c, rv);
    else change(c, ch, list_answer);
}

/* Remove and Promote name a member, and nothing else. */
static void change_named(struct grpc_call *c, struct slice message, enum consensus_change_op op)
{
    Etcdserverpb__MemberRemoveRequest *m =
        etcd_unpack(c, &etcdserverpb__member_remove_request__descriptor, message);
    if (!m) return;
    uint64_t id = m->id;
    etcd_unpacked_free(m);
    change(c, (struct core_member_change){.op = op, .member_id = id}, list_answer);
}

static void remove_message(struct grpc_call *c, struct slice message)
{
    change_named(c, message, CONSENSUS_REMOVE);
}

static void promote_message(struct grpc_call *c, struct slice message)
{
    change_named(c, message, CONSENSUS_PROMOTE);
}

const struct grpc_method etcd_cluster_methods[] = {
    {.name = "MemberList", .state_size = sizeof(struct core_call), .message = list_message},
    {.name = "MemberAdd", .state_size = sizeof(struct core_call), .message = add_message},
    {.name = "MemberRemove", .state_size = sizeof(struct core_call), .message = remove_message},
    {.name = "MemberUpdate", .state_size = sizeof(struct core_call), .message = update_message},
    {.name = "MemberPromote", .state_size = sizeof(struct core_call), .message = promote_message},
};
const size_t etcd_cluster_n_methods =
    sizeof(etcd_cluster_methods) / sizeof(etcd_cluster_methods[0]);
