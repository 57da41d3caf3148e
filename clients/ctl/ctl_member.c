/* member list, add, remove, update, promote: etcdctl's words, flags and output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/ctl/ctl_int.h"

static const struct pbj_field member_fields[] = {{1, "ID", PBJ_UINT64},
                                                {2, "name", PBJ_STRING},
                                                {3, "peerURLs", PBJ_STRING, .repeated = true},
                                                {4, "clientURLs", PBJ_STRING, .repeated = true},
                                                {5, "isLearner", PBJ_BOOL},
                                                {0}};
static const struct pbj_field members_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                                 {2, "members", PBJ_MESSAGE, .repeated = true, .message = member_fields},
                                                 {0}};
static const struct pbj_field add_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                             {2, "member", PBJ_MESSAGE, .message = member_fields},
                                             {3, "members", PBJ_MESSAGE, .repeated = true, .message = member_fields},
                                             {0}};

const char *ctl_joined(struct ctl *c, const struct json *list)
{
    const char *s = "";
    for (size_t i = 0; list && i < list->count; i++) {
        struct slice one = json_text(json_at(list, i));
        s = arena_printf(&c->arena, "%s%s%.*s", s, i ? "," : "", (int)one.len, (const char *)one.data);
    }
    return s;
}

const char *ctl_text(struct ctl *c, const struct json *v, const char *name)
{
    const char *s = arena_strdup(&c->arena, json_text(json_get(v, name)));
    return s ? s : "";
}

int ctl_fetch_members(struct ctl *c, bool linearizable, struct json **ret)
{
    struct buf r = {0};
    pb_bool(&r, 1, linearizable);
    int rv = ctl_call(c, "/etcdserverpb.Cluster/MemberList", &r, members_fields, ret);
    buf_release(&r);
    return rv;
}

static int cmd_list(struct ctl *c)
{
    static const char *const head[] = {"ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"};
    const char *how = ctl_flags.consistency;
    struct json *a;
    if (strcmp(how, "l") && strcmp(how, "s")) return ctl_fail("unknown consistency flag \"%s\"", how);
    int rv = ctl_fetch_members(c, how[0] == 'l', &a);
    if (rv != 0) return rv;
    const struct json *list = json_get(a, "members");
    size_t n = list ? list->count : 0;
    const char **cells = arena_calloc(&c->arena, n * 6 + 1, sizeof(*cells));
    for (size_t i = 0; i < n && cells; i++) {
        const struct json *m = json_at(list, i);
        const char *row[] = {arena_printf(&c->arena, "%llx", (unsigned long long)ctl_uint(m, "ID")),
                             json_get(m, "name") ? "started" : "unstarted",
                             ctl_text(c, m, "name"),
                             ctl_joined(c, json_get(m, "peerURLs")),
                             ctl_joined(c, json_get(m, "clientURLs")),
                             json_path_bool(m, "isLearner", false) ? "true" : "false"};
        memcpy(cells + i * 6, row, sizeof(row));
    }
    if (c->output == CTL_JSON) ctl_print_json(a);
    else if (c->output == CTL_TABLE) ctl_table(c, head, 6, cells, n);
    else
        for (size_t i = 0; i < n; i++)
            printf("%s, %s, %s, %s, %s, %s\n", cells[i * 6], cells[i * 6 + 1], cells[i * 6 + 2], cells[i * 6 + 3], cells[i * 6 + 4], cells[i * 6 + 5]);
    return 0;
}

/* ---- changes ---------------------------------------------------------------------------------------- */

static void put_urls(struct ctl *c, struct buf *r, unsigned field, const char *list)
{
    char *copy = (char *)arena_strdup(&c->arena, slice_str(list)), *save = NULL;
    for (char *u = copy ? strtok_r(copy, ",", &save) : NULL; u; u = strtok_r(NULL, ",", &save))
        pb_bytes(r, field, slice_str(u));
}

/* What a new member's environment has to be, as etcdctl prints it. */
static void print_environment(struct ctl *c, const struct json *a, uint64_t id, const char *name)
{
    const struct json *list = json_get(a, "members");
    const char *all = "";
    for (size_t i = 0; list && i < list->count; i++) {
        const struct json *m = json_at(list, i), *urls = json_get(m, "peerURLs");
        const char *called = ctl_uint(m, "ID") == id ? name : ctl_text(c, m, "name");
        for (size_t k = 0; urls && k < urls->count; k++) {
            struct slice url = json_text(json_at(urls, k));
            all = arena_printf(&c->arena, "%s%s%s=%.*s", all, *all ? "," : "", called, (int)url.len, (const char *)url.data);
        }
    }
    printf("\nETCD_NAME=\"%s\"\nETCD_INITIAL_CLUSTER=\"%s\"\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"%s\"\n"
           "ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
           name, all, ctl_flags.peer_urls);
}

static int cmd_add(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    if (c->argc < 2) return ctl_fail("member name not provided");
    if (c->argc > 2) {
        bool url = strncmp(c->argv[2], "http", 4) == 0;
        return ctl_fail("too many arguments%s%s", url ? ", did you mean --peer-urls=" : "", url ? c->argv[2] : "");
    }
    if (!ctl_flags.peer_urls) return ctl_fail("member peer urls not provided");
    put_urls(c, &r, 1, ctl_flags.peer_urls);
    pb_bool(&r, 2, ctl_flags.learner);
    int rv = ctl_call(c, "/etcdserverpb.Cluster/MemberAdd", &r, add_fields, &a);
    buf_release(&r);
    if (rv != 0) return rv;
    uint64_t id = ctl_uint(json_get(a, "member"), "ID");
    if (c->output == CTL_JSON) {
        ctl_print_json(a);
        return 0;
    }
    printf("Member %16llx added to cluster %16llx\n", (unsigned long long)id,
           (unsigned long long)ctl_uint(json_get(a, "header"), "cluster_id"));
    if (c->output == CTL_SIMPLE) print_environment(c, a, id, c->argv[1]);
    return 0;
}

/* remove, update, promote: a member by its ID. */
static int change(struct ctl *c, const char *method, bool urls, const char *what)
{
    struct buf r = {0};
    struct json *a;
    char *end;
    if (c->argc != 2) return ctl_fail("member ID is not provided");
    uint64_t id = strtoull(c->argv[1], &end, 16);
    if (*end || end == c->argv[1])
        return ctl_fail("bad member ID arg (strconv.ParseUint: parsing \"%s\": invalid syntax), expecting ID in Hex", c->argv[1]);
    if (urls && !ctl_flags.peer_urls) return ctl_fail("member peer urls not provided");
    pb_uint(&r, 1, id);
    if (urls) put_urls(c, &r, 2, ctl_flags.peer_urls);
    int rv = ctl_call(c, method, &r, members_fields, &a);
    buf_release(&r);
    if (rv != 0) return rv;
    if (c->output == CTL_JSON) ctl_print_json(a);
    else
        printf("Member %16llx %s cluster %16llx\n", (unsigned long long)id, what,
               (unsigned long long)ctl_uint(json_get(a, "header"), "cluster_id"));
    return 0;
}

static int cmd_remove(struct ctl *c)
{
    return change(c, "/etcdserverpb.Cluster/MemberRemove", false, "removed from");
}

static int cmd_update(struct ctl *c)
{
    return change(c, "/etcdserverpb.Cluster/MemberUpdate", true, "updated in");
}

static int cmd_promote(struct ctl *c)
{
    return change(c, "/etcdserverpb.Cluster/MemberPromote", false, "promoted in");
}

const struct ctl_command ctl_member_commands[] = {
    {"member list", "", "the cluster's members", cmd_list, CTL_WITH_TABLE},
    {"member add", "NAME", "add a member at --peer-urls; --learner: one that does not vote", cmd_add},
    {"member remove", "MEMBER_ID", "remove a member from the cluster", cmd_remove},
    {"member update", "MEMBER_ID", "give a member other --peer-urls", cmd_update},
    {"member promote", "MEMBER_ID", "make a learner that has caught up a voter", cmd_promote},
    {0}};
