/* /metrics: Prometheus text with etcd's names where the meaning is the same. */
#include <inttypes.h>
#include <stdatomic.h>

#include "api/etcd/etcd_int.h"
#include "base/clock.h"
#include "base/mem.h"

/* Each worker adds to its own row, and /metrics, on any worker, adds the rows up. */
#define MAX_WORKERS 64
static _Atomic int64_t counters[MAX_WORKERS][N_COUNTERS];

void etcd_count(const struct etcd_api *api, enum etcd_counter counter, int64_t by)
{
    atomic_fetch_add_explicit(&counters[api->worker->index % MAX_WORKERS][counter], by,
                              memory_order_relaxed);
}

static int64_t total(enum etcd_counter counter)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        sum += atomic_load_explicit(&counters[i][counter], memory_order_relaxed);
    return sum;
}

static void metric(struct buf *out, const char *name, const char *type, const char *help,
                   int64_t value)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRId64 "\n", name, help, name, type, name,
               value);
}

static void raft_metrics(struct etcd_api *api, const struct core_status *s, struct buf *out)
{
    const struct consensus_status *r = &s->raft;
    bool leads = r->leader_id == api->member_id && r->leader_id != 0;
    metric(out, "etcd_server_has_leader", "gauge", "Whether this member knows a leader.",
           r->leader_id != 0);
    metric(out, "etcd_server_is_leader", "gauge", "Whether this member leads.", leads);
    metric(out, "etcd_server_is_learner", "gauge", "Whether this member is a learner.", s->learner);
    metric(out, "etcd_server_leader_changes_seen_total", "counter",
           "Changes of leader that this member saw.", (int64_t)r->leader_changes);
    metric(out, "etcd_server_proposals_committed_total", "gauge",
           "Index of the newest committed entry.", (int64_t)r->commit_index);
    metric(out, "etcd_server_proposals_applied_total", "gauge",
           "Index of the newest applied entry.", (int64_t)r->applied_index);
    metric(out, "etcd_server_proposals_pending", "gauge", "Requests that wait for consensus.",
           (int64_t)s->pending);
    metric(out, "etcd_server_proposals_failed_total", "counter", "Proposals that failed.",
           (int64_t)r->proposals_failed);
    metric(out, "etcd_server_slow_apply_total", "counter", "Entries that took long to apply.",
           (int64_t)s->slow_applies);
    metric(out, "etcd_server_quota_backend_bytes", "gauge", "Quota of the store.", s->quota);
    metric(out, "etcd_server_health_success", "counter", "Health checks that passed.",
           total(COUNT_HEALTH_OK));
    metric(out, "etcd_server_health_failures", "counter", "Health checks that failed.",
           total(COUNT_HEALTH_FAILED));
    metric(out, "pintle_raft_term", "gauge", "Raft term.", (int64_t)r->term);
    metric(out, "pintle_raft_log_bytes", "gauge", "Bytes of the log on disk.",
           (int64_t)r->log_bytes);
    metric(out, "pintle_raft_read_rounds_total", "counter",
           "Read points that were confirmed with a majority.", (int64_t)r->read_rounds);
    metric(out, "pintle_raft_snapshots_taken_total", "counter", "Snapshots taken.",
           (int64_t)r->snapshots_taken);
    metric(out, "pintle_raft_snapshots_sent_total", "counter", "Snapshots sent to other members.",
           (int64_t)r->snapshots_sent);
    metric(out, "pintle_raft_snapshots_installed_total", "counter",
           "Snapshots received and installed.", (int64_t)r->snapshots_installed);
    metric(out, "pintle_raft_scrub_bytes_total", "counter", "Bytes of this member's files read again to find damage.",
           (int64_t)r->scrub_bytes);
    metric(out, "pintle_raft_scrub_rounds_total", "counter", "Rounds of the scrub through all files.",
           (int64_t)r->scrub_rounds);
    metric(out, "pintle_raft_scrub_errors_total", "counter", "Damage that the scrub has found.",
           (int64_t)r->scrub_errors);
    metric(out, "pintle_raft_masked_defects_total", "counter",
           "Times the guard kept a defect of libraft from acting.", (int64_t)r->masked_defects);
    metric(out, "pintle_core_batches_total", "counter", "Entries proposed.", (int64_t)s->batches);
    metric(out, "pintle_core_commands_total", "counter", "Commands applied.",
           (int64_t)s->applied_commands);
    buf_printf(out,
               "# HELP etcd_disk_wal_fsync_duration_seconds Time spent in fdatasync of the log.\n"
               "# TYPE etcd_disk_wal_fsync_duration_seconds summary\n"
               "etcd_disk_wal_fsync_duration_seconds_sum %" PRIu64 ".%06" PRIu64
               "\netcd_disk_wal_fsync_duration_seconds_count %" PRIu64 "\n",
               r->fsync_us_total / 1000000, r->fsync_us_total % 1000000, r->fsyncs);
}

static void check_metrics(const struct core_status *s, struct buf *out)
{
    static const char *const kinds[] = {[ALARM_NOSPACE] = "NOSPACE", [ALARM_CORRUPT] = "CORRUPT"};
    metric(out, "pintle_healed_total", "counter",
           "How often this process was brought back by the others.", (int64_t)s->raft.healed);
    metric(out, "pintle_set_aside_files", "gauge",
           "Files in damaged/ when this process started: what was found damaged, until somebody removes it.",
           (int64_t)s->raft.set_aside);
    metric(out, "pintle_healing", "gauge", "Whether its state is being brought back by the others.",
           s->raft.recovering);
    metric(out, "pintle_state_checks_total", "counter", "Comparisons of the members' states.", (int64_t)s->checks);
    metric(out, "pintle_state_check_index", "gauge", "Index of the newest comparison.", (int64_t)s->check_index);
    metric(out, "pintle_state_mismatches_total", "counter", "Verdicts that a state is wrong.",
           (int64_t)s->check_mismatches);
    metric(out, "pintle_state_refused", "gauge",
           "Whether this member serves nothing because its state was found wrong.", s->refusing);
    buf_printf(out, "# HELP pintle_alarms Alarms that are raised, and members that heal (CORRUPT).\n"
                    "# TYPE pintle_alarms gauge\n");
    for (size_t i = 0; i < s->n_alarms + s->n_healing; i++)
        buf_printf(out, "pintle_alarms{server_id=\"%" PRIx64 "\",alarm=\"%s\"} 1\n", s->alarms[i].member_id,
                   kinds[s->alarms[i].alarm]);
}

static void store_metrics(const struct core_status *s, struct buf *out)
{
    metric(out, "etcd_mvcc_db_total_size_in_bytes", "gauge", "Bytes of the store.", s->db_size);
    metric(out, "etcd_mvcc_db_total_size_in_use_in_bytes", "gauge", "Bytes of the store in use.",
           s->db_size_in_use);
    metric(out, "etcd_debugging_mvcc_keys_total", "gauge", "Live keys.", s->keys);
    metric(out, "etcd_debugging_mvcc_current_revision", "gauge", "Current revision.", s->revision);
    metric(out, "etcd_debugging_mvcc_compact_revision", "gauge", "Revision of the last compaction.",
           s->compact_revision);
    metric(out, "etcd_mvcc_put_total", "counter", "Puts that this member received.",
           total(COUNT_PUTS));
    metric(out, "etcd_mvcc_range_total", "counter", "Ranges that this member received.",
           total(COUNT_RANGES));
    metric(out, "etcd_mvcc_delete_total", "counter", "Deletions that this member received.",
           total(COUNT_DELETES));
    metric(out, "etcd_mvcc_txn_total", "counter", "Transactions that this member received.",
           total(COUNT_TXNS));
    metric(out, "etcd_debugging_mvcc_watch_stream_total", "gauge", "Watch streams.",
           total(COUNT_WATCH_STREAMS));
    metric(out, "etcd_debugging_mvcc_watcher_total", "gauge", "Watchers.", total(COUNT_WATCHERS));
    metric(out, "etcd_debugging_mvcc_events_total", "counter", "Events sent to watchers.",
           total(COUNT_EVENTS));
    metric(out, "pintle_leases", "gauge", "Leases.", (int64_t)s->leases);
    metric(out, "etcd_debugging_lease_granted_total", "counter", "Leases granted here.",
           total(COUNT_LEASE_GRANTED));
    metric(out, "etcd_debugging_lease_revoked_total", "counter", "Leases revoked here.",
           total(COUNT_LEASE_REVOKED));
    metric(out, "etcd_debugging_lease_renewed_total", "counter", "Leases renewed here.",
           total(COUNT_LEASE_RENEWED));
    metric(out, "pintle_etcd_errors_total", "counter", "Calls that ended with an error.",
           total(COUNT_ERRORS));
}

void etcd_metrics_write(struct etcd_api *api, const struct core_status *s, struct buf *out)
{
    uint64_t cpu = clock_cpu_us();
    raft_metrics(api, s, out);
    check_metrics(s, out);
    store_metrics(s, out);
    metric(out, "process_resident_memory_bytes", "gauge", "Resident memory.", (int64_t)mem_rss());
    buf_printf(out,
               "# HELP process_cpu_seconds_total CPU time used.\n# TYPE process_cpu_seconds_total "
               "counter\n"
               "process_cpu_seconds_total %" PRIu64 ".%06" PRIu64 "\n",
               cpu / 1000000, cpu % 1000000);
    buf_printf(
        out, "# HELP etcd_server_version Which version of etcd this server answers like.\n"
             "# TYPE etcd_server_version gauge\netcd_server_version{server_version=\"" ETCD_VERSION
             "\"} 1\n");
    buf_printf(out,
               "# HELP etcd_server_id This member.\n# TYPE etcd_server_id "
               "gauge\netcd_server_id{server_id=\"%" PRIx64 "\"} 1\n",
               api->member_id);
}
