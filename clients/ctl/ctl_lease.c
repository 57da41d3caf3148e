/* lease grant, revoke, timetolive, list, keep-alive. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/ctl/ctl_int.h"

static const struct pbj_field grant_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                               {2, "ID", PBJ_INT64},
                                               {3, "TTL", PBJ_INT64},
                                               {4, "error", PBJ_STRING},
                                               {0}};
static const struct pbj_field header_only[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields}, {0}};
static const struct pbj_field ttl_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                             {2, "ID", PBJ_INT64},
                                             {3, "TTL", PBJ_INT64},
                                             {4, "grantedTTL", PBJ_INT64},
                                             {5, "keys", PBJ_BYTES, .repeated = true},
                                             {0}};
static const struct pbj_field id_fields[] = {{1, "ID", PBJ_INT64}, {0}};
static const struct pbj_field list_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                              {2, "leases", PBJ_MESSAGE, .repeated = true, .message = id_fields},
                                              {0}};
static const struct pbj_field alive_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                               {2, "ID", PBJ_INT64},
                                               {3, "TTL", PBJ_INT64},
                                               {0}};

static int id_argument(struct ctl *c, const char *command, int64_t *ret)
{
    if (c->argc != 2) return ctl_fail("%s command needs lease ID argument", command);
    if (ctl_parse_lease(c->argv[1], ret)) return 0;
    return ctl_fail("bad lease ID arg (strconv.ParseInt: parsing \"%s\": invalid syntax), expecting ID in Hex", c->argv[1]);
}

static int call(struct ctl *c, const char *method, struct buf *r, const struct pbj_field *fields, struct json **ret)
{
    int rv = ctl_call(c, method, r, fields, ret);
    buf_release(r);
    if (rv == 0 && c->output == CTL_JSON) ctl_print_json(*ret);
    return rv;
}

static int cmd_grant(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    char *end = "x";
    long long ttl = c->argc == 2 ? strtoll(c->argv[1], &end, 10) : 0;
    if (c->argc != 2) return ctl_fail("lease grant command needs TTL argument");
    if (*end) return ctl_fail("bad TTL (strconv.ParseInt: parsing \"%s\": invalid syntax)", c->argv[1]);
    pb_uint(&r, 1, (uint64_t)ttl);
    int rv = call(c, "/etcdserverpb.Lease/LeaseGrant", &r, grant_fields, &a);
    if (rv == 0 && c->output != CTL_JSON)
        printf("lease %016llx granted with TTL(%llds)\n", (unsigned long long)ctl_int(a, "ID"), (long long)ctl_int(a, "TTL"));
    return rv;
}

static int cmd_revoke(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    int64_t id;
    if (id_argument(c, "lease revoke", &id)) return 1;
    pb_uint(&r, 1, (uint64_t)id);
    int rv = call(c, "/etcdserverpb.Lease/LeaseRevoke", &r, header_only, &a);
    if (rv == 0 && c->output != CTL_JSON) printf("lease %016llx revoked\n", (unsigned long long)id);
    return rv;
}

static int cmd_timetolive(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    int64_t id;
    if (id_argument(c, "lease timetolive", &id)) return 1;
    pb_uint(&r, 1, (uint64_t)id);
    pb_bool(&r, 2, ctl_flags.keys);
    int rv = call(c, "/etcdserverpb.Lease/LeaseTimeToLive", &r, ttl_fields, &a);
    if (rv != 0 || c->output == CTL_JSON) return rv;
    const struct json *keys = json_get(a, "keys");
    if (ctl_int(a, "grantedTTL") == 0 && ctl_int(a, "TTL") == -1) {
        printf("lease %016llx already expired\n", (unsigned long long)id);
        return 0;
    }
    printf("lease %016llx granted with TTL(%llds), remaining(%llds)", (unsigned long long)id, (long long)ctl_int(a, "grantedTTL"),
           (long long)ctl_int(a, "TTL"));
    if (ctl_flags.keys) {
        printf(", attached keys([");
        for (size_t i = 0; keys && i < keys->count; i++) {
            if (i) putchar(' ');
            ctl_put_bytes(c, json_at(keys, i));
        }
        printf("])");
    }
    putchar('\n');
    return 0;
}

static int cmd_list(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    int rv = call(c, "/etcdserverpb.Lease/LeaseLeases", &r, list_fields, &a);
    if (rv != 0 || c->output == CTL_JSON) return rv;
    const struct json *leases = json_get(a, "leases");
    printf("found %zu leases\n", leases ? leases->count : 0);
    for (size_t i = 0; leases && i < leases->count; i++) printf("%016llx\n", (unsigned long long)ctl_int(json_at(leases, i), "ID"));
    return 0;
}

/* ---- keep-alive ---------------------------------------------------------------------------------------- */

struct keeping {
    struct grpc_client_call call;
    struct ctl *ctl;
    int64_t id, ttl;
    uv_timer_t timer;
    bool done;
    int rv;
};

static void send_keepalive(struct keeping *k)
{
    struct buf r = {0};
    pb_uint(&r, 1, (uint64_t)k->id);
    if (grpc_client_send(&k->call, buf_slice(&r)) != 0) k->done = true;
    buf_release(&r);
}

static void on_timer(uv_timer_t *t)
{
    send_keepalive(t->data);
}

static void on_alive(struct grpc_client_call *call, struct slice message)
{
    struct keeping *k = call->data;
    struct json *a;
    if (pb_to_json(&k->ctl->arena, message, alive_fields, &a) != 0) {
        k->rv = ctl_fail("the server's answer cannot be decoded");
        k->done = true;
        return;
    }
    k->ttl = ctl_int(a, "TTL");
    if (k->ttl <= 0) printf("lease %016llx expired or revoked.\n", (unsigned long long)k->id);
    else if (k->ctl->output == CTL_JSON) ctl_print_json(a);
    else printf("lease %016llx keepalived with TTL(%lld)\n", (unsigned long long)k->id, (long long)k->ttl);
    fflush(stdout);
    k->done = ctl_flags.once || k->ttl <= 0;
    if (!k->done) uv_timer_start(&k->timer, on_timer, (uint64_t)k->ttl * 1000 / 3, 0);
}

static void on_alive_done(struct grpc_client_call *call, int status, const char *text)
{
    struct keeping *k = call->data;
    if (!k->done) k->rv = ctl_fail("%s: %s", grpc_status_name(status), text);
    k->done = true;
}

static int cmd_keep_alive(struct ctl *c)
{
    struct keeping k = {.ctl = c, .call = {.message = on_alive, .done = on_alive_done}};
    struct buf r = {0};
    if (id_argument(c, "lease keep-alive", &k.id)) return 1;
    c->client = ctl_connect(c, NULL);
    if (!c->client) return 1;
    k.call.data = &k;
    uv_timer_init(&c->loop, &k.timer);
    k.timer.data = &k;
    pb_uint(&r, 1, (uint64_t)k.id);
    int rv = grpc_client_start(&k.call, c->client, "/etcdserverpb.Lease/LeaseKeepAlive", buf_slice(&r), true, 0);
    buf_release(&r);
    if (rv != 0) return ctl_fail("out of memory");
    ctl_wait(c, &k.done);
    grpc_client_cancel(&k.call);
    uv_close((uv_handle_t *)&k.timer, NULL);
    uv_run(&c->loop, UV_RUN_NOWAIT);
    return k.rv;
}

const struct ctl_command ctl_lease_commands[] = {
    {"lease grant", "TTL", "a lease of so many seconds", cmd_grant},
    {"lease revoke", "ID", "end a lease and delete its keys", cmd_revoke},
    {"lease timetolive", "ID", "how long it still has", cmd_timetolive},
    {"lease list", "", "all leases", cmd_list},
    {"lease keep-alive", "ID", "renew until interrupted", cmd_keep_alive},
    {0}};
