/* endpoint, alarm, move-leader, snapshot save, defrag, version. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/version.h"
#include "clients/ctl/ctl_int.h"

static const struct pbj_field status_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                                {2, "version", PBJ_STRING},
                                                {3, "dbSize", PBJ_INT64},
                                                {4, "leader", PBJ_UINT64},
                                                {5, "raftIndex", PBJ_UINT64},
                                                {6, "raftTerm", PBJ_UINT64},
                                                {7, "raftAppliedIndex", PBJ_UINT64},
                                                {8, "errors", PBJ_STRING, .repeated = true},
                                                {9, "dbSizeInUse", PBJ_INT64},
                                                {10, "isLearner", PBJ_BOOL},
                                                {0}};
static const struct pbj_field hash_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                              {2, "hash", PBJ_UINT64},
                                              {3, "compact_revision", PBJ_INT64},
                                              {0}};
static const struct pbj_field alarm_fields[] = {{1, "memberID", PBJ_UINT64}, {2, "alarm", PBJ_ENUM}, {0}};
static const struct pbj_field alarms_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                                {2, "alarms", PBJ_MESSAGE, .repeated = true, .message = alarm_fields},
                                                {0}};
static const struct pbj_field header_only[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields}, {0}};
static const struct pbj_field range_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields}, {4, "count", PBJ_INT64}, {0}};

/* ---- endpoints ------------------------------------------------------------------------------------------ */

/* With --cluster, the client URLs of all members instead of --endpoints. */
static int choose_endpoints(struct ctl *c)
{
    struct json *a;
    if (!c->cluster) return 0;
    int rv = ctl_fetch_members(c, true, &a);
    if (rv != 0) return rv;
    const struct json *list = json_get(a, "members");
    c->n_endpoints = 0;
    for (size_t i = 0; list && i < list->count; i++) {
        const struct json *urls = json_get(json_at(list, i), "clientURLs");
        for (size_t k = 0; urls && k < urls->count && c->n_endpoints < CTL_ENDPOINTS_MAX; k++)
            c->endpoints[c->n_endpoints++] = arena_strdup(&c->arena, json_text(json_at(urls, k)));
    }
    return 0;
}

/* As etcdctl shows it: what the user gave. */
static const char *shown(const struct ctl *c, const char *endpoint)
{
    const char *bare = strstr(endpoint, "://");
    return c->cluster || strstr(c->endpoint_list, endpoint) || !bare ? endpoint : bare + 3;
}

static const char *took(struct ctl *c, uint64_t us)
{
    return us < 1000 ? arena_printf(&c->arena, "%lluµs", (unsigned long long)us)
                     : us < 1000000 ? arena_printf(&c->arena, "%.6gms", (double)us / 1000) : arena_printf(&c->arena, "%.9gs", (double)us / 1e6);
}

static int cmd_endpoint_health(struct ctl *c)
{
    static const char *const head[] = {"ENDPOINT", "HEALTH", "TOOK", "ERROR"};
    const char *cells[CTL_ENDPOINTS_MAX][4];
    struct buf r = {0};
    struct json *a;
    int bad = 0;
    if (choose_endpoints(c)) return 1;
    pb_bytes(&r, 1, SLICE_LIT("health"));
    if (c->output == CTL_JSON) putchar('[');
    for (size_t i = 0; i < c->n_endpoints; i++) {
        const char *error = NULL, *name = shown(c, c->endpoints[i]);
        uint64_t began = clock_mono_us();
        int rv = ctl_call_on(c, c->endpoints[i], "/etcdserverpb.KV/Range", &r, range_fields, &a, &error);
        const char *time = took(c, clock_mono_us() - began);
        bad |= rv != 0;
        if (rv && !error) error = "cannot connect";
        const char *row[] = {name, rv ? "false" : "true", time, error ? error : ""};
        memcpy(cells[i], row, sizeof(row));
        if (c->output == CTL_TABLE) continue;
        if (c->output == CTL_JSON)
            printf("%s{\"endpoint\":\"%s\",\"health\":%s,\"took\":\"%s\"%s%s%s}", i ? "," : "", name, rv ? "false" : "true", time,
                   error ? ",\"error\":\"" : "", error ? error : "", error ? "\"" : "");
        else if (c->output == CTL_FIELDS) printf("\"Endpoint\" : \"%s\"\n\"Health\" : %s\n\"Took\" : %s\n\"Error\" : %s\n\n", row[0], row[1], row[2], row[3]);
        else if (rv == 0) printf("%s is healthy: successfully committed proposal: took = %s\n", name, time);
        else printf("%s is unhealthy: failed to commit proposal: %s\n", name, error);
        fflush(stdout);
    }
    if (c->output == CTL_JSON) puts("]");
    if (c->output == CTL_TABLE) ctl_table(c, head, 4, cells[0], c->n_endpoints);
    buf_release(&r);
    return bad ? ctl_fail("unhealthy cluster") : 0;
}

static const char *size_text(struct ctl *c, int64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1000 && u < 4) v /= 1000, u++;
    return arena_printf(&c->arena, u && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

#define COLUMNS_MAX 10

/* How the answers of a method are shown: all under their name in JSON; as cells of a table, or joined to a line; with -w fields, or if there
 * are no cells, in their own words. */
struct shape {
    const char *method;
    const struct pbj_field *fields;
    const char *json_name, *head[COLUMNS_MAX];
    size_t columns;
    void (*cells)(struct ctl *c, const char *name, const struct json *a, const char **ret);
    void (*words)(struct ctl *c, const char *name, const struct json *a);
};

static void print_line(const char *const *cells, size_t n)
{
    for (size_t i = 0; i < n; i++) printf("%s%s", i ? ", " : "", cells[i]);
    putchar('\n');
}

/* One call per endpoint. */
static int each_endpoint(struct ctl *c, const struct shape *s, const struct buf *request)
{
    int bad = choose_endpoints(c);
    struct json *a, *all = json_array(&c->arena);
    const char *cells[CTL_ENDPOINTS_MAX * COLUMNS_MAX];
    size_t rows = 0;
    if (bad) return bad;
    for (size_t i = 0; i < c->n_endpoints; i++) {
        const char *error = NULL, *name = shown(c, c->endpoints[i]);
        if (ctl_call_on(c, c->endpoints[i], s->method, request, s->fields, &a, &error) != 0) {
            fprintf(stderr, "Failed to get the status of endpoint %s (%s)\n", name, error ? error : "cannot connect");
            bad = 1;
            continue;
        }
        struct json *one = json_object(&c->arena);
        if (!all || !one || json_set_str(&c->arena, one, "Endpoint", json_str(&c->arena, name)) != 0 ||
            json_set_str(&c->arena, one, s->json_name, a) != 0 || json_push(&c->arena, all, one) != 0)
            return ctl_fail("out of memory");
        if (c->output == CTL_JSON) continue;
        if (c->output == CTL_FIELDS || !s->cells) {
            s->words(c, name, a);
            continue;
        }
        s->cells(c, name, a, cells + rows * s->columns);
        if (c->output == CTL_SIMPLE) print_line(cells + rows * s->columns, s->columns);
        rows++;
    }
    if (c->output == CTL_JSON) ctl_print_json(all);
    if (c->output == CTL_TABLE && s->cells) ctl_table(c, s->head, s->columns, cells, rows);
    return bad;
}

static void status_cells(struct ctl *c, const char *name, const struct json *a, const char **ret)
{
    uint64_t id = ctl_uint(json_get(a, "header"), "member_id");
    const char *row[] = {name,
                         arena_printf(&c->arena, "%llx", (unsigned long long)id),
                         ctl_text(c, a, "version"),
                         size_text(c, ctl_int(a, "dbSize")),
                         ctl_uint(a, "leader") == id ? "true" : "false",
                         json_path_bool(a, "isLearner", false) ? "true" : "false",
                         arena_printf(&c->arena, "%llu", (unsigned long long)ctl_uint(a, "raftTerm")),
                         arena_printf(&c->arena, "%llu", (unsigned long long)ctl_uint(a, "raftIndex")),
                         arena_printf(&c->arena, "%llu", (unsigned long long)ctl_uint(a, "raftAppliedIndex")),
                         ctl_joined(c, json_get(a, "errors"))};
    memcpy(ret, row, sizeof(row));
}

static void status_words(struct ctl *c, const char *name, const struct json *a)
{
    ctl_fields_header(a);
    printf("\"Version\" : \"%s\"\n\"DBSize\" : %lld\n\"Leader\" : %llu\n\"IsLearner\" : %s\n", ctl_text(c, a, "version"), (long long)ctl_int(a, "dbSize"),
           (unsigned long long)ctl_uint(a, "leader"), json_path_bool(a, "isLearner", false) ? "true" : "false");
    printf("\"RaftIndex\" : %llu\n\"RaftTerm\" : %llu\n\"RaftAppliedIndex\" : %llu\n\"Errors\" : [%s]\n\"Endpoint\" : \"%s\"\n\n",
           (unsigned long long)ctl_uint(a, "raftIndex"), (unsigned long long)ctl_uint(a, "raftTerm"),
           (unsigned long long)ctl_uint(a, "raftAppliedIndex"), ctl_joined(c, json_get(a, "errors")), name);
}

static int cmd_endpoint_status(struct ctl *c)
{
    static const struct shape shape = {
        "/etcdserverpb.Maintenance/Status", status_fields, "Status",
        {"ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER", "RAFT TERM", "RAFT INDEX", "RAFT APPLIED INDEX", "ERRORS"},
        10, status_cells, status_words};
    struct buf r = {0};
    return each_endpoint(c, &shape, &r);
}

static void hash_cells(struct ctl *c, const char *name, const struct json *a, const char **ret)
{
    ret[0] = name;
    ret[1] = arena_printf(&c->arena, "%llu", (unsigned long long)ctl_uint(a, "hash"));
}

static void hash_words(struct ctl *c, const char *name, const struct json *a)
{
    (void)c;
    ctl_fields_header(a);
    printf("\"Endpoint\" : \"%s\"\n\"Hash\" : %llu\n\n", name, (unsigned long long)ctl_uint(a, "hash"));
}

static int cmd_endpoint_hashkv(struct ctl *c)
{
    static const struct shape shape = {"/etcdserverpb.Maintenance/HashKV", hash_fields, "HashKV", {"ENDPOINT", "HASH"}, 2, hash_cells, hash_words};
    struct buf r = {0};
    pb_uint(&r, 1, (uint64_t)ctl_flags.rev);
    int rv = each_endpoint(c, &shape, &r);
    buf_release(&r);
    return rv;
}

static void defrag_words(struct ctl *c, const char *name, const struct json *a)
{
    (void)c;
    (void)a;
    printf("Finished defragmenting etcd member[%s]\n", name);
}

static int cmd_defrag(struct ctl *c)
{
    static const struct shape shape = {"/etcdserverpb.Maintenance/Defragment", header_only, "Defragment", .words = defrag_words};
    struct buf r = {0};
    return each_endpoint(c, &shape, &r);
}

/* ---- alarms, leadership ----------------------------------------------------------------------------------- */

static int alarm_call(struct ctl *c, unsigned action, uint64_t member_id, int64_t kind, struct json **ret)
{
    struct buf r = {0};
    pb_uint(&r, 1, action);
    pb_uint(&r, 2, member_id);
    pb_uint(&r, 3, (uint64_t)kind);
    int rv = ctl_call(c, "/etcdserverpb.Maintenance/Alarm", &r, alarms_fields, ret);
    buf_release(&r);
    return rv;
}

static int show_alarms(struct ctl *c, const struct json *a)
{
    static const char *const names[] = {"NONE", "NOSPACE", "CORRUPT"};
    if (c->output == CTL_JSON) return ctl_print_json(a), 0;
    const struct json *list = json_get(a, "alarms");
    for (size_t i = 0; list && i < list->count; i++) {
        int64_t kind = ctl_int(json_at(list, i), "alarm");
        printf("memberID:%llu alarm:%s \n", (unsigned long long)ctl_uint(json_at(list, i), "memberID"), kind >= 0 && kind < 3 ? names[kind] : "?");
    }
    return 0;
}

static int cmd_alarm_list(struct ctl *c)
{
    struct json *a;
    int rv = alarm_call(c, 0, 0, 0, &a);
    return rv ? rv : show_alarms(c, a);
}

/* A request clears one alarm. Shows those that were cleared: not that of a member that heals. */
static int cmd_alarm_disarm(struct ctl *c)
{
    struct json *a, *answer;
    int rv = alarm_call(c, 0, 0, 0, &a);
    if (rv) return rv;
    struct json *list = json_get(a, "alarms");
    for (size_t i = 0; list && i < list->count;) {
        const struct json *one = json_at(list, i);
        rv = alarm_call(c, 2, ctl_uint(one, "memberID"), ctl_int(one, "alarm"), &answer);
        if (rv) return rv;
        if (json_get(answer, "alarms")) i++;
        else json_remove_at(list, i);
    }
    return show_alarms(c, a);
}

static int cmd_move_leader(struct ctl *c)
{
    struct buf r = {0};
    struct json *a;
    char *end;
    if (c->argc != 2) return ctl_fail("move-leader command needs 1 argument");
    unsigned long long target = strtoull(c->argv[1], &end, 16);
    if (*end || end == c->argv[1]) return ctl_fail("bad member ID: %s", c->argv[1]);
    for (size_t i = 0; i < c->n_endpoints; i++) {
        const char *error = NULL;
        if (ctl_call_on(c, c->endpoints[i], "/etcdserverpb.Maintenance/Status", &r, status_fields, &a, &error) != 0) continue;
        uint64_t leader = ctl_uint(a, "leader");
        if (leader != ctl_uint(json_get(a, "header"), "member_id")) continue;
        pb_uint(&r, 1, target);
        int rv = ctl_call_on(c, c->endpoints[i], "/etcdserverpb.Maintenance/MoveLeader", &r, header_only, &a, NULL);
        buf_release(&r);
        if (rv == 0) printf("Leadership transferred from %llx to %llx\n", (unsigned long long)leader, target);
        return rv;
    }
    return ctl_fail("no leader endpoint given at %s", c->endpoint_list);
}

/* ---- snapshot save -------------------------------------------------------------------------------------------- */

struct saving {
    struct grpc_client_call call;
    const char *text;
    struct ctl *ctl;
    int fd, status;
    uint64_t bytes, shown;
    const char *error;
    bool done;
};

static void on_piece(struct grpc_client_call *call, struct slice message)
{
    struct saving *s = call->data;
    struct pb_field v;
    while (!s->error && pb_next(&message, &v) == 1) {
        if (v.number != 3 || v.wire != PB_BYTES) continue;
        for (struct slice left = v.bytes; left.len && !s->error;) {
            ssize_t n = write(s->fd, left.data, left.len);
            if (n < 0 && errno != EINTR) s->error = strerror(errno);
            else if (n > 0) left = slice_sub(left, (size_t)n, left.len);
        }
        s->bytes += v.bytes.len;
    }
    if (isatty(STDERR_FILENO) && s->bytes - s->shown > 16u << 20) {
        fprintf(stderr, "\r%s ", size_text(s->ctl, (int64_t)s->bytes));
        s->shown = s->bytes;
    }
    if (s->error) s->done = true;
}

static void on_saved(struct grpc_client_call *call, int status, const char *text)
{
    struct saving *s = call->data;
    s->status = status;
    s->text = arena_strdup(&s->ctl->arena, slice_str(text));
    s->done = true;
}

static int cmd_snapshot_save(struct ctl *c)
{
    struct saving s = {.ctl = c, .call = {.message = on_piece, .done = on_saved}};
    if (c->argc != 2) return ctl_fail("snapshot save expects one argument");
    if (c->n_endpoints != 1) return ctl_fail("snapshot must be requested to one selected node, not multiple %s", c->endpoint_list);
    const char *path = c->argv[1], *part = arena_printf(&c->arena, "%s.part", path);
    s.fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s.fd < 0) return ctl_fail("could not open %s (%s)", part, strerror(errno));
    c->client = ctl_connect(c, NULL);
    s.call.data = &s;
    if (!c->client || grpc_client_start(&s.call, c->client, "/etcdserverpb.Maintenance/Snapshot", (struct slice){0}, false, 0) != 0) return 1;
    ctl_wait(c, &s.done);
    grpc_client_cancel(&s.call);
    if (isatty(STDERR_FILENO) && s.shown) fputs("\r\033[K", stderr);
    if (!s.error && s.status) s.error = s.text;
    if (!s.error && fsync(s.fd) != 0) s.error = strerror(errno);
    close(s.fd);
    if (!s.error && rename(part, path) != 0) s.error = strerror(errno);
    if (s.error) {
        unlink(part);
        return ctl_fail("could not save snapshot: %s", s.error);
    }
    printf("Snapshot saved at %s\n", path);
    return 0;
}

static int cmd_version(struct ctl *c)
{
    (void)c;
    printf("pintle ctl version: %s\nAPI version: 3.5\n", PINTLE_VERSION);
    return 0;
}

const struct ctl_command ctl_cluster_commands[] = {
    {"endpoint health", "", "whether each endpoint can commit", cmd_endpoint_health, CTL_WITH_FIELDS | CTL_WITH_TABLE},
    {"endpoint status", "", "version, size, leader, Raft indexes of each endpoint", cmd_endpoint_status, CTL_WITH_FIELDS | CTL_WITH_TABLE},
    {"endpoint hashkv", "", "a hash of each endpoint's history", cmd_endpoint_hashkv, CTL_WITH_FIELDS | CTL_WITH_TABLE},
    {"alarm list", "", "active alarms", cmd_alarm_list},
    {"alarm disarm", "", "clear all alarms", cmd_alarm_disarm},
    {"move-leader", "MEMBER_ID", "hand leadership to another member", cmd_move_leader, CTL_PLAIN},
    {"snapshot save", "FILE", "stream a snapshot of one endpoint into a file", cmd_snapshot_save, CTL_PLAIN},
    {"defrag", "", "nothing to do here; answers as etcd does", cmd_defrag, CTL_PLAIN},
    {"version", "", "of this program", cmd_version, CTL_PLAIN},
    {0}};
