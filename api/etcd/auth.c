/* The Auth service of a server whose gRPC port knows no users (access is decided by TLS client
 * certificates): its status, and a refusal for everything that would change it. */
#include "api/etcd/etcd_int.h"

static void status_answer(struct grpc_call *c, struct core_call *cc)
{
    struct header h = etcd_header(grpc_ctx(c), cc->r.ret_revision, cc->r.ret_term);
    uint8_t out[HEADER_MAX + 16], *p = encode_header(out, &h);
    p = pb_put_uint(p, 3, 1); /* authRevision: that of a cluster where nothing was ever set up */
    struct grpc_piece piece = {.data = {out, (size_t)(p - out)}};
    grpc_reply(c, &piece, 1);
}

static void status_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    if (!etcd_refuse_without_leader(c))
        etcd_submit(c, grpc_state(c), CORE_READ_INDEX, status_answer);
}

static void authenticate_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    grpc_finish(c, GRPC_FAILED_PRECONDITION, "etcdserver: authentication is not enabled");
}

static void change_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    grpc_finish(c, GRPC_UNIMPLEMENTED,
                "etcdserver: users and roles are not supported; use TLS client certificates");
}

const struct grpc_method etcd_auth_methods[] = {
    {.name = "AuthStatus", .state_size = sizeof(struct core_call), .message = status_message},
    {.name = "Authenticate", .message = authenticate_message},
    {.name = "AuthEnable", .message = change_message},
    {.name = "AuthDisable", .message = change_message},
    {.name = "UserAdd", .message = change_message},
    {.name = "UserGet", .message = change_message},
    {.name = "UserList", .message = change_message},
    {.name = "UserDelete", .message = change_message},
    {.name = "UserChangePassword", .message = change_message},
    {.name = "UserGrantRole", .message = change_message},
    {.name = "UserRevokeRole", .message = change_message},
    {.name = "RoleAdd", .message = change_message},
    {.name = "RoleGet", .message = change_message},
    {.name = "RoleList", .message = change_message},
    {.name = "RoleDelete", .message = change_message},
    {.name = "RoleGrantPermission", .message = change_message},
    {.name = "RoleRevokePermission", .message = change_message},
};
const size_t etcd_auth_n_methods = sizeof(etcd_auth_methods) / sizeof(etcd_auth_methods[0]);
