/* The etcd v3 methods that the differential test calls, and the fields of their requests and answers. Keys and values are
 * strings here, so that a report can be read. */
#ifndef PINTLE_TESTS_COMPAT_DIFF_TABLES_H
#define PINTLE_TESTS_COMPAT_DIFF_TABLES_H

#include "clients/lib/pbjson.h"

#define MSG(number, name, table) {number, name, PBJ_MESSAGE, .message = table}
#define LIST(number, name, table) {number, name, PBJ_MESSAGE, .repeated = true, .message = table}

/* ---- requests --------------------------------------------------------------------------------------------- */

static const struct pbj_field range_request[] = {
    {1, "key", PBJ_STRING},          {2, "range_end", PBJ_STRING},        {3, "limit", PBJ_INT64},
    {4, "revision", PBJ_INT64},      {5, "sort_order", PBJ_ENUM},         {6, "sort_target", PBJ_ENUM},
    {7, "serializable", PBJ_BOOL},   {8, "keys_only", PBJ_BOOL},          {9, "count_only", PBJ_BOOL},
    {10, "min_mod", PBJ_INT64},      {11, "max_mod", PBJ_INT64},          {12, "min_create", PBJ_INT64},
    {13, "max_create", PBJ_INT64},   {0}};
static const struct pbj_field put_request[] = {{1, "key", PBJ_STRING},       {2, "value", PBJ_STRING},
                                               {3, "lease", PBJ_INT64},      {4, "prev_kv", PBJ_BOOL},
                                               {5, "ignore_value", PBJ_BOOL}, {6, "ignore_lease", PBJ_BOOL},
                                               {0}};
static const struct pbj_field delete_request[] = {
    {1, "key", PBJ_STRING}, {2, "range_end", PBJ_STRING}, {3, "prev_kv", PBJ_BOOL}, {0}};
static const struct pbj_field compare_request[] = {{1, "result", PBJ_ENUM},      {2, "target", PBJ_ENUM},
                                                   {3, "key", PBJ_STRING},       {4, "version", PBJ_INT64},
                                                   {5, "create", PBJ_INT64},     {6, "mod", PBJ_INT64},
                                                   {7, "value", PBJ_STRING},     {8, "lease", PBJ_INT64},
                                                   {64, "range_end", PBJ_STRING}, {0}};
static const struct pbj_field txn_request[4];
static const struct pbj_field op_request[] = {MSG(1, "range", range_request), MSG(2, "put", put_request),
                                              MSG(3, "delete", delete_request), MSG(4, "txn", txn_request),
                                              {0}};
static const struct pbj_field txn_request[4] = {
    LIST(1, "compare", compare_request), LIST(2, "success", op_request), LIST(3, "failure", op_request), {0}};
static const struct pbj_field compact_request[] = {{1, "revision", PBJ_INT64}, {2, "physical", PBJ_BOOL}, {0}};
static const struct pbj_field revision_request[] = {{1, "revision", PBJ_INT64}, {0}};
static const struct pbj_field grant_request[] = {{1, "TTL", PBJ_INT64}, {2, "ID", PBJ_INT64}, {0}};
static const struct pbj_field lease_request[] = {{1, "ID", PBJ_INT64}, {2, "keys", PBJ_BOOL}, {0}};
static const struct pbj_field alarm_request[] = {
    {1, "action", PBJ_ENUM}, {2, "memberID", PBJ_UINT64}, {3, "alarm", PBJ_ENUM}, {0}};
static const struct pbj_field auth_request[] = {{1, "name", PBJ_STRING}, {2, "password", PBJ_STRING}, {0}};
static const struct pbj_field no_request[] = {{0}};
static const struct pbj_field watch_create_request[] = {{1, "key", PBJ_STRING},
                                                        {2, "range_end", PBJ_STRING},
                                                        {3, "start_revision", PBJ_INT64},
                                                        {5, "filters", PBJ_ENUM, .repeated = true},
                                                        {6, "prev_kv", PBJ_BOOL},
                                                        {7, "watch_id", PBJ_INT64},
                                                        {8, "fragment", PBJ_BOOL},
                                                        {0}};
static const struct pbj_field watch_cancel_request[] = {{1, "watch_id", PBJ_INT64}, {0}};
static const struct pbj_field watch_request[] = {MSG(1, "create", watch_create_request),
                                                 MSG(2, "cancel", watch_cancel_request),
                                                 MSG(3, "progress", no_request),
                                                 {0}};

/* ---- answers ---------------------------------------------------------------------------------------------- */

static const struct pbj_field header[] = {{1, "cluster_id", PBJ_UINT64},
                                          {2, "member_id", PBJ_UINT64},
                                          {3, "revision", PBJ_INT64},
                                          {4, "raft_term", PBJ_UINT64},
                                          {0}};
static const struct pbj_field kv[] = {{1, "key", PBJ_STRING},     {2, "create_revision", PBJ_INT64},
                                      {3, "mod_revision", PBJ_INT64}, {4, "version", PBJ_INT64},
                                      {5, "value", PBJ_STRING},   {6, "lease", PBJ_INT64},
                                      {0}};
static const struct pbj_field range_answer[] = {
    MSG(1, "header", header), LIST(2, "kvs", kv), {3, "more", PBJ_BOOL}, {4, "count", PBJ_INT64}, {0}};
static const struct pbj_field put_answer[] = {MSG(1, "header", header), MSG(2, "prev_kv", kv), {0}};
static const struct pbj_field delete_answer[] = {
    MSG(1, "header", header), {2, "deleted", PBJ_INT64}, LIST(3, "prev_kvs", kv), {0}};
static const struct pbj_field txn_answer[4];
static const struct pbj_field op_answer[] = {
    MSG(1, "range", range_answer), MSG(2, "put", put_answer), MSG(3, "delete", delete_answer), MSG(4, "txn", txn_answer), {0}};
static const struct pbj_field txn_answer[4] = {
    MSG(1, "header", header), {2, "succeeded", PBJ_BOOL}, LIST(3, "responses", op_answer), {0}};
static const struct pbj_field header_answer[] = {MSG(1, "header", header), {0}};
static const struct pbj_field hash_answer[] = {
    MSG(1, "header", header), {2, "hash", PBJ_UINT64}, {3, "compact_revision", PBJ_INT64}, {0}};
static const struct pbj_field grant_answer[] = {
    MSG(1, "header", header), {2, "ID", PBJ_INT64}, {3, "TTL", PBJ_INT64}, {4, "error", PBJ_STRING}, {0}};
static const struct pbj_field ttl_answer[] = {MSG(1, "header", header),
                                              {2, "ID", PBJ_INT64},
                                              {3, "TTL", PBJ_INT64},
                                              {4, "grantedTTL", PBJ_INT64},
                                              {5, "keys", PBJ_STRING, .repeated = true},
                                              {0}};
static const struct pbj_field lease_status[] = {{1, "ID", PBJ_INT64}, {0}};
static const struct pbj_field leases_answer[] = {MSG(1, "header", header), LIST(2, "leases", lease_status), {0}};
static const struct pbj_field member[] = {{1, "ID", PBJ_UINT64},
                                          {2, "name", PBJ_STRING},
                                          {3, "peerURLs", PBJ_STRING, .repeated = true},
                                          {4, "clientURLs", PBJ_STRING, .repeated = true},
                                          {5, "isLearner", PBJ_BOOL},
                                          {0}};
static const struct pbj_field members_answer[] = {MSG(1, "header", header), LIST(2, "members", member), {0}};
static const struct pbj_field alarm_member[] = {{1, "memberID", PBJ_UINT64}, {2, "alarm", PBJ_ENUM}, {0}};
static const struct pbj_field alarm_answer[] = {MSG(1, "header", header), LIST(2, "alarms", alarm_member), {0}};
static const struct pbj_field status_answer[] = {MSG(1, "header", header),
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
static const struct pbj_field auth_status_answer[] = {
    MSG(1, "header", header), {2, "enabled", PBJ_BOOL}, {3, "authRevision", PBJ_UINT64}, {0}};
static const struct pbj_field event[] = {{1, "type", PBJ_ENUM}, MSG(2, "kv", kv), MSG(3, "prev_kv", kv), {0}};
static const struct pbj_field watch_answer[] = {MSG(1, "header", header),
                                                {2, "watch_id", PBJ_INT64},
                                                {3, "created", PBJ_BOOL},
                                                {4, "canceled", PBJ_BOOL},
                                                {5, "compact_revision", PBJ_INT64},
                                                {6, "cancel_reason", PBJ_STRING},
                                                {7, "fragment", PBJ_BOOL},
                                                LIST(11, "events", event),
                                                {0}};

/* ---- methods ---------------------------------------------------------------------------------------------- */

enum kind {
    K_RANGE,
    K_PUT,
    K_DELETE,
    K_TXN,
    K_COMPACT,
    K_GRANT,
    K_REVOKE,
    K_TTL,
    K_LEASES,
    K_KEEPALIVE,
    K_HASHKV,
    K_MEMBERS,
    K_STATUS,
    K_ALARM,
    K_AUTHENTICATE,
    K_AUTH_STATUS,
    K_UNKNOWN_METHOD,
    K_UNKNOWN_SERVICE,
    K_WATCH,      /* a message on one of the streams */
    K_WATCH_END,  /* the client gives a stream up */
};

struct method {
    const char *path;
    const struct pbj_field *request, *answer;
    bool local; /* a member answers from what it has: in a cluster it must have caught up before */
};

static const struct method methods[] = {
    [K_RANGE] = {"/etcdserverpb.KV/Range", range_request, range_answer, false},
    [K_PUT] = {"/etcdserverpb.KV/Put", put_request, put_answer, false},
    [K_DELETE] = {"/etcdserverpb.KV/DeleteRange", delete_request, delete_answer, false},
    [K_TXN] = {"/etcdserverpb.KV/Txn", txn_request, txn_answer, false},
    [K_COMPACT] = {"/etcdserverpb.KV/Compact", compact_request, header_answer, false},
    [K_GRANT] = {"/etcdserverpb.Lease/LeaseGrant", grant_request, grant_answer, false},
    [K_REVOKE] = {"/etcdserverpb.Lease/LeaseRevoke", lease_request, header_answer, false},
    [K_TTL] = {"/etcdserverpb.Lease/LeaseTimeToLive", lease_request, ttl_answer, true},
    [K_LEASES] = {"/etcdserverpb.Lease/LeaseLeases", no_request, leases_answer, true},
    [K_KEEPALIVE] = {"/etcdserverpb.Lease/LeaseKeepAlive", lease_request, ttl_answer, true},
    [K_HASHKV] = {"/etcdserverpb.Maintenance/HashKV", revision_request, hash_answer, true},
    [K_MEMBERS] = {"/etcdserverpb.Cluster/MemberList", no_request, members_answer, true},
    [K_STATUS] = {"/etcdserverpb.Maintenance/Status", no_request, status_answer, true},
    [K_ALARM] = {"/etcdserverpb.Maintenance/Alarm", alarm_request, alarm_answer, true},
    [K_AUTHENTICATE] = {"/etcdserverpb.Auth/Authenticate", auth_request, header_answer, true},
    [K_AUTH_STATUS] = {"/etcdserverpb.Auth/AuthStatus", no_request, auth_status_answer, true},
    [K_UNKNOWN_METHOD] = {"/etcdserverpb.KV/Swap", no_request, header_answer, false},
    [K_UNKNOWN_SERVICE] = {"/etcdserverpb.Queue/Push", no_request, header_answer, false},
    [K_WATCH] = {"/etcdserverpb.Watch/Watch", watch_request, watch_answer, true},
    [K_WATCH_END] = {"end of a watch stream", no_request, header_answer, false},
};

#endif
