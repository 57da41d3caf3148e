/* The Maintenance service but for Snapshot (snapshot.c). */
#include <inttypes.h>

#include "api/etcd/etcd_int.h"
#include "api/etcd/snapshot.h"
#include "schemas/etcd/rpc.pb-c.h"

static void set_head(Etcdserverpb__ResponseHeader *head, struct grpc_call *c,
                     const struct core_request *r)
{
    const struct etcd_api *api = grpc_ctx(c);
    etcdserverpb__response_header__init(head);
    head->cluster_id = api->cluster_id;
    head->member_id = api->member_id;
    head->revision = r->ret_revision;
    head->raft_term = r->ret_term;
}

/* ---- status ------------------------------------------------------------------------------------
 */

static const char *alarm_name(enum alarm_type type)
{
    return type == ALARM_NOSPACE ? "NOSPACE" : type == ALARM_CORRUPT ? "CORRUPT" : "NONE";
}

static void status_answer(struct grpc_call *c, struct core_call *cc)
{
    struct core_request *r = &cc->r;
    const struct core_status *s = r->status;
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__StatusResponse out = ETCDSERVERPB__STATUS_RESPONSE__INIT;
    char *errors[1 + sizeof(s->alarms) / sizeof(s->alarms[0])];
    set_head(&head, c, r);
    out.header = &head;
    out.version = (char *)(uintptr_t)ETCD_VERSION;
    out.dbsize = s->db_size;
    out.dbsizeinuse = s->db_size_in_use;
    out.leader = s->raft.leader_id;
    out.raftindex = s->raft.commit_index;
    out.raftappliedindex = s->raft.applied_index;
    out.raftterm = s->raft.term;
    out.islearner = s->learner;
    out.errors = errors;
    if (out.leader == 0) errors[out.n_errors++] = (char *)(uintptr_t) "etcdserver: no leader";
    for (size_t i = 0; i < s->n_alarms + s->n_healing; i++) {
        const char *text = arena_printf(&r->arena, "memberID:%" PRIu64 " alarm:%s ",
                                        s->alarms[i].member_id, alarm_name(s->alarms[i].alarm));
        if (text) errors[out.n_errors++] = (char *)(uintptr_t)text;
    }
    etcd_reply(c, &out.base);
}

static void status_message(struct grpc_call *c, struct slice message)
{
    Etcdserverpb__StatusRequest *m =
        etcd_unpack(c, &etcdserverpb__status_request__descriptor, message);
    if (!m) return;
    etcd_unpacked_free(m);
    etcd_submit(c, grpc_state(c), CORE_STATUS, status_answer);
}

/* ---- hashes ------------------------------------------------------------------------------------
 */

static void hash_kv_answer(struct grpc_call *c, struct core_call *cc)
{
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__HashKVResponse out = ETCDSERVERPB__HASH_KVRESPONSE__INIT;
    set_head(&head, c, &cc->r);
    out.header = &head;
    out.hash = cc->r.hash;
    out.compact_revision = cc->r.compact_rev;
    etcd_reply(c, &out.base);
}

static void hash_kv_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    Etcdserverpb__HashKVRequest *m =
        etcd_unpack(c, &etcdserverpb__hash_kvrequest__descriptor, message);
    if (!m) return;
    cc->r.revision = m->revision;
    etcd_unpacked_free(m);
    etcd_submit(c, cc, CORE_HASH_KV, hash_kv_answer);
}

/* etcd hashes its database file here; what we have to compare between members is the keyspace and
 * its history. */
static void hash_answer(struct grpc_call *c, struct core_call *cc)
{
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__HashResponse out = ETCDSERVERPB__HASH_RESPONSE__INIT;
    set_head(&head, c, &cc->r);
    out.header = &head;
    out.hash = cc->r.hash;
    etcd_reply(c, &out.base);
}

static void hash_message(struct grpc_call *c, struct slice message)
{
    Etcdserverpb__HashRequest *m = etcd_unpack(c, &etcdserverpb__hash_request__descriptor, message);
    if (!m) return;
    etcd_unpacked_free(m);
    etcd_submit(c, grpc_state(c), CORE_HASH_KV, hash_answer);
}

/* ---- alarms ------------------------------------------------------------------------------------
 */

enum alarm_action { ALARM_GET, ALARM_ACTIVATE, ALARM_DEACTIVATE };

struct alarm_call {
    struct core_call core;
    enum alarm_action action;
    struct alarm alarm;
};

static void alarm_reply(struct grpc_call *c, struct core_request *r, const struct alarm *alarms,
                        size_t n)
{
    Etcdserverpb__ResponseHeader head;
    Etcdserverpb__AlarmResponse out = ETCDSERVERPB__ALARM_RESPONSE__INIT;
    set_head(&head, c, r);
    out.header = &head;
    out.alarms = arena_calloc(&r->arena, n, sizeof(*out.alarms));
    Etcdserverpb__AlarmMember *members = arena_calloc(&r->arena, n, sizeof(*members));
    if (!out.alarms || !members) {
        etcd_fail(c, ERR_NOMEM);
        return;
    }
    out.n_alarms = n;
    for (size_t i = 0; i < n; i++) {
        etcdserverpb__alarm_member__init(&members[i]);
        members[i].memberid = alarms[i].member_id;
        members[i].alarm = (Etcdserverpb__AlarmType)alarms[i].alarm;
        out.alarms[i] = &members[i];
    }
    etcd_reply(c, &out.base);
}

static void alarm_set_answer(struct grpc_call *c, struct core_call *cc)
{
    const struct alarm_call *ac = (const struct alarm_call *)cc;
    alarm_reply(c, &cc->r, &ac->alarm, 1);
}

static void alarm_set(struct grpc_call *c, struct core_call *cc)
{
    const struct alarm_call *ac = (const struct alarm_call *)cc;
    struct command cmd = {.type = COMMAND_ALARM,
                          .alarm = {.member_id = ac->alarm.member_id,
                                    .alarm = ac->alarm.alarm,
                                    .activate = ac->action == ALARM_ACTIVATE}};
    etcd_submit_command(c, cc, &cmd, 0, alarm_set_answer);
}

/* The list has come: it is the answer (of one kind, or all), or tells whether there is something to
 * clear. As in etcd, clearing what is not set, and setting no alarm, answers with an empty list; so
 * does clearing the alarm of a member that heals, which is not set by anybody. */
static void alarm_list_answer(struct grpc_call *c, struct core_call *cc)
{
    const struct alarm_call *ac = (const struct alarm_call *)cc;
    struct core_request *r = &cc->r;
    size_t n = 0;
    bool is_set = false;
    for (size_t i = 0; i < r->n_alarms + r->n_healing; i++) {
        struct alarm a = r->alarms[i];
        is_set |= i < r->n_alarms && a.alarm == ac->alarm.alarm && a.member_id == ac->alarm.member_id;
        if (ac->alarm.alarm == ALARM_NONE || a.alarm == ac->alarm.alarm) r->alarms[n++] = a;
    }
    if (ac->action == ALARM_GET) alarm_reply(c, r, r->alarms, n);
    else if (ac->alarm.alarm == ALARM_NONE || (ac->action == ALARM_DEACTIVATE && !is_set))
        alarm_reply(c, r, NULL, 0);
    else cc->then = alarm_set;
}

static void alarm_message(struct grpc_call *c, struct slice message)
{
    struct alarm_call *ac = grpc_state(c);
    if (etcd_refuse_without_leader(c)) return;
    Etcdserverpb__AlarmRequest *m =
        etcd_unpack(c, &etcdserverpb__alarm_request__descriptor, message);
    if (!m) return;
    ac->action = (enum alarm_action)m->action;
    ac->alarm = (struct alarm){.member_id = m->memberid, .alarm = (enum alarm_type)m->alarm};
    etcd_unpacked_free(m);
    if ((unsigned)ac->action > ALARM_DEACTIVATE || (unsigned)ac->alarm.alarm > ALARM_CORRUPT)
        etcd_fail(c, ERR_INVALID);
    else etcd_submit(c, &ac->core, CORE_ALARMS, alarm_list_answer);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

static void move_answer(struct grpc_call *c, struct core_call *cc)
{
    (void)cc;
    grpc_reply(c, NULL, 0);
}

static void move_failed(struct grpc_call *c, struct core_call *cc, int error)
{
    (void)cc;
    if (error == ERR_MEMBER_NOT_FOUND || error == ERR_NOT_FOUND || error == ERR_INVALID)
        grpc_finish(c, GRPC_FAILED_PRECONDITION, "etcdserver: bad leader transferee");
    else etcd_fail(c, error);
}

static void move_message(struct grpc_call *c, struct slice message)
{
    struct core_call *cc = grpc_state(c);
    const struct etcd_api *api = grpc_ctx(c);
    Etcdserverpb__MoveLeaderRequest *m =
        etcd_unpack(c, &etcdserverpb__move_leader_request__descriptor, message);
    if (!m) return;
    cc->r.member_id = m->targetid;
    cc->failed = move_failed;
    etcd_unpacked_free(m);
    if (core_client_leader_id(api->core) != api->member_id) etcd_fail(c, ERR_NOT_LEADER);
    else etcd_submit(c, cc, CORE_MOVE_LEADER, move_answer);
}

/* There is nothing to defragment: memory is given back as it becomes free. */
static void defragment_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    grpc_reply(c, NULL, 0);
}

static void downgrade_message(struct grpc_call *c, struct slice message)
{
    (void)message;
    grpc_finish(c, GRPC_UNIMPLEMENTED, "etcdserver: downgrade is not supported");
}

const struct grpc_method etcd_maintenance_methods[] = {
    {.name = "Alarm", .state_size = sizeof(struct alarm_call), .message = alarm_message},
    {.name = "Status", .state_size = sizeof(struct core_call), .message = status_message},
    {.name = "Defragment", .message = defragment_message},
    {.name = "Hash", .state_size = sizeof(struct core_call), .message = hash_message},
    {.name = "HashKV", .state_size = sizeof(struct core_call), .message = hash_kv_message},
    {.name = "Snapshot",
     .state_size = sizeof(struct snapshot_call),
     .message = etcd_snapshot_message,
     .writable = etcd_snapshot_writable,
     .closed = etcd_snapshot_closed},
    {.name = "MoveLeader", .state_size = sizeof(struct core_call), .message = move_message},
    {.name = "Downgrade", .message = downgrade_message},
};
const size_t etcd_maintenance_n_methods =
    sizeof(etcd_maintenance_methods) / sizeof(etcd_maintenance_methods[0]);
