/* One member as a process: flags, the core's thread, the workers, signals.
 *
 * Start: everything that can be refused (flags, folders, ports, certificates, damaged files) is tried on the main thread
 * before a thread runs, and ends in one line on standard error and exit status 1. Stop (SIGTERM, SIGINT): the ports
 * close, requests under way get a second, the core answers what waits, disk and peers close, exit status 0. */
#include "api/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/cluster.h"
#include "api/etcd/etcd_api.h"
#include "api/kube/kube_api.h"
#include "api/worker.h"
#include "base/check.h"
#include "base/flags.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/url.h"
#include "schemas/kube/kinds.h"

#define WORKERS_MAX 32
#define GRACE_MS 1000
#define BOOTSTRAP_POLL_MS 20
#define URLS_MAX 8

struct options {
    const char *name, *data_dir, *listen_client, *advertise_client, *listen_peer, *advertise_peer;
    const char *initial_cluster, *initial_cluster_state, *initial_cluster_token;
    uint64_t heartbeat_ms, election_ms;
    const char *strict_reconfig;
    int64_t max_learners;
    int64_t quota, snapshot_log_bytes, segment_bytes;
    const char *compaction_mode, *compaction_retention;
    uint64_t check_ms, compact_check_ms, scrub_ms;
    int64_t scrub_rate;
    bool compact_check;
    const char *cert_file, *key_file, *trusted_ca_file;
    bool client_cert_auth;
    const char *peer_cert_file, *peer_key_file, *peer_trusted_ca_file;
    bool peer_client_cert_auth;
    const char *kube_listen, *kube_cert_file, *kube_key_file, *kube_client_ca_file, *kube_token_file;
    int64_t workers;
    const char *log_level;
};

struct server {
    struct options o;
    struct arena arena;
    struct cluster cluster;
    struct core_thread *core;
    struct worker workers[WORKERS_MAX];
    uv_loop_t loops[WORKERS_MAX];
    uv_async_t signals[WORKERS_MAX]; /* main -> worker: the next phase of stopping */
    pthread_t threads[WORKERS_MAX];
    size_t n_workers;
    uv_timer_t bootstrap;
    struct http_tls *client_tls, *kube_tls;
    struct http_listener *listeners[URLS_MAX + 1];
    size_t n_listeners;
    sem_t done;
    atomic_int phase;
    pthread_t main_thread;
    _Atomic(const char *) again; /* why it has to start again */
    atomic_bool stopping;
};

#define SIGNAL_AGAIN SIGUSR1 /* from another thread to the main one, which alone hears signals: none is lost between the two */

static struct server server; /* the process's one */

/* ---- flags --------------------------------------------------------------------------------------- */

static const char usage_text[] =
    "pintle server: one member of a control plane's store\n\n"
    "Usage:\n  pintle server --name n1 --data-dir D --initial-cluster n1=http://127.0.0.1:2380 [flags]\n\n"
    "Serves the etcd v3 API on --listen-client-urls and, with --kube-listen, the Kubernetes API.\n"
    "A cluster is one server per member, all with the same --initial-cluster.";

static void set_defaults(struct options *o)
{
    *o = (struct options){
        .name = "default",
        .listen_client = "http://127.0.0.1:2379",
        .listen_peer = "http://127.0.0.1:2380",
        .initial_cluster_state = "new",
        .initial_cluster_token = "etcd-cluster",
        .strict_reconfig = "true",
        .max_learners = 1,
        .heartbeat_ms = 100,
        .election_ms = 500,
        .quota = (int64_t)LIMIT_QUOTA_BYTES_DEFAULT,
        .snapshot_log_bytes = 64 << 20,
        .segment_bytes = 16 << 20,
        .compaction_mode = "periodic",
        .check_ms = 300000,
        .scrub_ms = 3600 * 1000,
        .scrub_rate = (int64_t)LIMIT_SCRUB_BYTES_PER_S,
        .compact_check_ms = 60000,
        .compact_check = true,
        .log_level = "info",
    };
}

static int parse_options(struct options *o, int argc, char **argv)
{
    const struct flag flags[] = {
        {"name", FLAG_STRING, &o->name, "NAME", "this member's name in --initial-cluster"},
        {"data-dir", FLAG_STRING, &o->data_dir, "DIR", "where this member keeps its data (default NAME.pintle)"},
        {"listen-client-urls", FLAG_STRING, &o->listen_client, "URLS", "where the etcd API listens, separated by commas"},
        {"advertise-client-urls", FLAG_STRING, &o->advertise_client, "URLS", "what member list shows (default: what it listens on)"},
        {"listen-peer-urls", FLAG_STRING, &o->listen_peer, "URL", "where other members reach this one"},
        {"initial-advertise-peer-urls", FLAG_STRING, &o->advertise_peer, "URL", "as in --initial-cluster; checked against it"},
        {"initial-cluster", FLAG_STRING, &o->initial_cluster, "LIST", "all members: name=peer-url,... (default: this one alone)"},
        {"initial-cluster-state", FLAG_STRING, &o->initial_cluster_state, "new|existing", "whether an empty data folder begins a new cluster"},
        {"initial-cluster-token", FLAG_STRING, &o->initial_cluster_token, "TOKEN", "tells clusters with the same URLs apart"},
        {"strict-reconfig-check", FLAG_STRING, &o->strict_reconfig, "true|false", "refuse changes of the members that could cost the majority"},
        {"max-learners", FLAG_INT, &o->max_learners, "N", "learners at a time"},
        {"heartbeat-interval", FLAG_DURATION_MS, &o->heartbeat_ms, "MS", "between the leader's signs of life"},
        {"election-timeout", FLAG_DURATION_MS, &o->election_ms, "MS", "without a leader until an election; up to twice as long"},
        {"quota-backend-bytes", FLAG_INT, &o->quota, "BYTES", "most data; beyond it only deletes and compactions; the same on all members"},
        {"snapshot-log-bytes", FLAG_INT, &o->snapshot_log_bytes, "BYTES", "a snapshot is taken when the log is larger than this and than the last one"},
        {"wal-segment-bytes", FLAG_INT, &o->segment_bytes, "BYTES", "size of a log file"},
        {"auto-compaction-mode", FLAG_STRING, &o->compaction_mode, "periodic|revision", "what --auto-compaction-retention counts"},
        {"auto-compaction-retention", FLAG_STRING, &o->compaction_retention, "N", "a duration or a number of revisions to keep; 0 = off (default 5m with --kube-listen, else 0)"},
        {"corrupt-check-time", FLAG_DURATION_MS, &o->check_ms, "TIME", "how often members compare their states; 0 = after compactions only"},
        {"compact-hash-check-time", FLAG_DURATION_MS, &o->compact_check_ms, "TIME", "... and after a compaction, but not more often than this"},
        {"experimental-corrupt-check-time", FLAG_DURATION_MS, &o->check_ms, "TIME", "etcd 3.5's name of --corrupt-check-time"},
        {"experimental-compact-hash-check-enabled", FLAG_BOOL, &o->compact_check, NULL, "compare states after compactions"},
        {"experimental-compact-hash-check-time", FLAG_DURATION_MS, &o->compact_check_ms, "TIME", "etcd 3.5's name of --compact-hash-check-time"},
        {"scrub-interval", FLAG_DURATION_MS, &o->scrub_ms, "TIME", "pause between two rounds of reading all of the data folder again, to find damage; 0 = never"},
        {"scrub-rate", FLAG_INT, &o->scrub_rate, "BYTES", "a second that such a round reads at most"},
        {"cert-file", FLAG_STRING, &o->cert_file, "FILE", "TLS certificate of the etcd API"},
        {"key-file", FLAG_STRING, &o->key_file, "FILE", "its key"},
        {"trusted-ca-file", FLAG_STRING, &o->trusted_ca_file, "FILE", "CA of client certificates"},
        {"client-cert-auth", FLAG_BOOL, &o->client_cert_auth, NULL, "refuse clients without a certificate"},
        {"peer-cert-file", FLAG_STRING, &o->peer_cert_file, "FILE", "TLS certificate for other members"},
        {"peer-key-file", FLAG_STRING, &o->peer_key_file, "FILE", "its key"},
        {"peer-trusted-ca-file", FLAG_STRING, &o->peer_trusted_ca_file, "FILE", "CA of other members"},
        {"peer-client-cert-auth", FLAG_BOOL, &o->peer_client_cert_auth, NULL, "refuse members without a certificate"},
        {"kube-listen", FLAG_STRING, &o->kube_listen, "URL", "where the Kubernetes API listens, https://host:port"},
        {"kube-cert-file", FLAG_STRING, &o->kube_cert_file, "FILE", "TLS certificate of the Kubernetes API"},
        {"kube-key-file", FLAG_STRING, &o->kube_key_file, "FILE", "its key"},
        {"kube-client-ca-file", FLAG_STRING, &o->kube_client_ca_file, "FILE", "CA of client certificates: CN is the user, O the groups"},
        {"kube-token-file", FLAG_STRING, &o->kube_token_file, "FILE", "bearer tokens: token,user,uid,\"group1,group2\""},
        {"workers", FLAG_INT, &o->workers, "N", "threads that serve connections (default: one per core, at most 4)"},
        {"log-level", FLAG_STRING, &o->log_level, "LEVEL", "debug, info, warn or error"},
        {0},
    };
    struct err e;
    int rest;
    int rv = flags_parse(flags, argc, argv, &rest, &e);
    if (rv == ERR_CANCELED) flags_help(stdout, usage_text, flags);
    else if (rv != 0) fprintf(stderr, "pintle server: %s\n", e.text);
    else if (rest > 1) rv = ERR_INVALID, fprintf(stderr, "pintle server: unexpected argument \"%s\" (see --help)\n", argv[1]);
    return rv;
}

static int invalid(struct err *e, const char *text)
{
    return err_set(e, ERR_INVALID, "%s", text);
}

static bool is_loopback(const char *host)
{
    struct in_addr a;
    bool ip4 = inet_pton(AF_INET, host, &a) == 1;
    return ip4 ? ntohl(a.s_addr) >> 24 == 127 : !strcmp(host, "localhost") || !strcmp(host, "::1");
}

/* What is meant to keep others out is not left out in silence. (etcd warns of a client URL without TLS, and serves it to all.) */
static int check_security(const struct options *o, struct err *e)
{
    struct url kube;
    if (o->client_cert_auth && strstr(o->listen_client, "http://"))
        return invalid(e, "--client-cert-auth needs https in all --listen-client-urls: over http nobody shows a certificate");
    if (o->peer_client_cert_auth && strstr(o->listen_peer, "http://"))
        return invalid(e, "--peer-client-cert-auth needs https in --listen-peer-urls: over http nobody shows a certificate");
    if (!o->kube_listen) return 0;
    int rv = url_parse(o->kube_listen, &kube, e);
    if (rv != 0) return rv;
    if (kube.tls && (!o->kube_cert_file || !o->kube_key_file))
        return invalid(e, "--kube-listen https://... needs --kube-cert-file and --kube-key-file");
    if (!kube.tls && !is_loopback(kube.host))
        return invalid(e, "--kube-listen http://... sends tokens and secrets in the clear: only on a loopback address; use https");
    return 0;
}

static int check_options(struct options *o, struct err *e)
{
    enum log_level level;
    if (!log_level_parse(o->log_level, &level)) return invalid(e, "--log-level must be debug, info, warn or error");
    log_set_level(level);
    if (strcmp(o->initial_cluster_state, "new") && strcmp(o->initial_cluster_state, "existing"))
        return invalid(e, "--initial-cluster-state must be new or existing");
    if (o->election_ms < 2 * o->heartbeat_ms || o->heartbeat_ms == 0 || o->election_ms > 50000)
        return invalid(e, "--election-timeout must be at least twice --heartbeat-interval and at most 50 s");
    if (o->workers < 0 || o->workers > WORKERS_MAX) return invalid(e, "--workers must be between 1 and 32");
    if (o->quota < 0) return invalid(e, "--quota-backend-bytes must not be negative");
    if (o->segment_bytes < (1 << 16) || o->snapshot_log_bytes < 1)
        return invalid(e, "--wal-segment-bytes must be at least 64 KiB and --snapshot-log-bytes positive");
    if (o->scrub_rate < 1024) return invalid(e, "--scrub-rate must be at least 1024");
    if (strcmp(o->strict_reconfig, "true") && strcmp(o->strict_reconfig, "false"))
        return invalid(e, "--strict-reconfig-check must be true or false");
    if (o->max_learners < 1 || o->max_learners > LIMIT_MEMBERS) return invalid(e, "--max-learners must be between 1 and 32");
    if (strlen(o->name) >= LIMIT_MEMBER_NAME_BYTES) return invalid(e, "--name is too long");
    if (!o->name[0]) return invalid(e, "--name must not be empty");
    return check_security(o, e);
}

static int compaction_options(const struct options *o, struct core_config *c, struct err *e)
{
    const char *retention = o->compaction_retention ? o->compaction_retention : o->kube_listen ? "5m" : "0";
    if (!strcmp(o->compaction_mode, "revision")) {
        char *end;
        c->auto_compaction_revisions = strtoll(retention, &end, 10);
        if (*end || c->auto_compaction_revisions < 0)
            return invalid(e, "--auto-compaction-retention must be a number of revisions");
        return 0;
    }
    if (strcmp(o->compaction_mode, "periodic"))
        return invalid(e, "--auto-compaction-mode must be periodic or revision");
    if (flag_duration_parse(retention, &c->auto_compaction_ms) != 0)
        return invalid(e, "--auto-compaction-retention must be a duration like 5m");
    size_t len = strlen(retention); /* etcd: a plain number means hours */
    if (retention[len - 1] >= '0' && retention[len - 1] <= '9') c->auto_compaction_ms *= 3600000;
    return 0;
}

/* ---- the core ------------------------------------------------------------------------------------- */

static size_t split_urls(struct arena *a, const char *text, const char **ret, size_t max)
{
    char *copy = (char *)arena_strdup(a, slice_str(text)), *save = NULL;
    size_t n = 0;
    for (char *u = copy ? strtok_r(copy, ",", &save) : NULL; u && n < max; u = strtok_r(NULL, ",", &save)) ret[n++] = u;
    return n;
}

static int start_core(struct server *s, struct err *e)
{
    struct options *o = &s->o;
    const char **urls = arena_calloc(&s->arena, URLS_MAX + 1, sizeof(*urls));
    size_t n_urls = split_urls(&s->arena, o->advertise_client ? o->advertise_client : o->listen_client, urls, URLS_MAX + 1);
    if (!o->data_dir) o->data_dir = arena_printf(&s->arena, "%s.pintle", o->name);
    const char *peer_url = o->advertise_peer ? o->advertise_peer : o->listen_peer;
    if (!o->initial_cluster) o->initial_cluster = arena_printf(&s->arena, "%s=%s", o->name, peer_url);
    if (n_urls > URLS_MAX) return err_set(e, ERR_LIMIT, "more than %d %s", URLS_MAX, o->advertise_client ? "--advertise-client-urls" : "--listen-client-urls");
    int rv = cluster_parse(&s->arena, o->initial_cluster, o->name, o->initial_cluster_token, &s->cluster, e);
    if (rv != 0) return rv;
    if (o->advertise_peer && strcmp(o->advertise_peer, s->cluster.own_peer_url) != 0)
        return err_set(e, ERR_INVALID, "--initial-cluster has %s for \"%s\" but --initial-advertise-peer-urls is %s",
                       s->cluster.own_peer_url, o->name, o->advertise_peer);
    struct env_uv_options env = {
        .data_dir = o->data_dir,
        .listen_url = o->listen_peer,
        .peer_cert_file = o->peer_cert_file,
        .peer_key_file = o->peer_key_file,
        .peer_trusted_ca_file = o->peer_trusted_ca_file,
        .peer_client_cert_auth = o->peer_client_cert_auth,
    };
    bool existing = !strcmp(o->initial_cluster_state, "existing");
    rv = cluster_identify(&s->arena, &s->cluster, o->data_dir, o->name, existing, &env, e);
    if (rv != 0) return rv;
    log_info("%s member=%llx cluster=%llx data=%s",
             s->cluster.continued ? "going on with the data folder"
             : existing           ? "joining a cluster with an empty data folder"
                                  : "beginning a new cluster with an empty data folder",
             (unsigned long long)s->cluster.own_id, (unsigned long long)s->cluster.cluster_id, o->data_dir);
    env.id = s->cluster.own_id;
    env.cluster_id = s->cluster.cluster_id;
    struct core_config config = {
        .consensus = {.id = s->cluster.own_id,
                      .cluster_id = s->cluster.cluster_id,
                      .members = s->cluster.members,
                      .n_members = s->cluster.n,
                      .members_index = s->cluster.index,
                      .new_cluster = !existing,
                      .heartbeat_ms = (unsigned)o->heartbeat_ms,
                      .election_ms = (unsigned)o->election_ms,
                      .snapshot_log_bytes = (uint64_t)o->snapshot_log_bytes,
                      .trailing_log_bytes = (uint64_t)o->snapshot_log_bytes / 4 + 1,
                      .segment_bytes = (size_t)o->segment_bytes,
                      .scrub_interval_ms = o->scrub_ms ? o->scrub_ms : CONSENSUS_NO_SCRUB,
                      .scrub_rate = (uint64_t)o->scrub_rate},
        .store = {.quota_bytes = o->quota},
        .check_ms = o->check_ms,
        .compact_check_ms = o->compact_check ? o->compact_check_ms : 0,
        .name = o->name,
        .client_urls = urls,
        .any_reconfig = !strcmp(o->strict_reconfig, "false"),
        .max_learners = (size_t)o->max_learners,
        .n_client_urls = n_urls,
    };
    rv = compaction_options(o, &config, e);
    if (rv != 0) return rv;
    return core_thread_start(&config, &env, &s->core, e);
}

/* ---- workers --------------------------------------------------------------------------------------- */

static void on_http_closed(void *ctx)
{
    (void)ctx;
    sem_post(&server.done);
}

static void on_bootstrap(uv_timer_t *t)
{
    struct worker *w = t->data;
    if (!core_client_leader_id(w->core)) return;
    uv_timer_stop(t);
    kube_api_bootstrap(w->kube);
}

/* Phase 1: no new requests. Phase 2, after the core has stopped: everything of the worker goes. */
static void on_signal(uv_async_t *h)
{
    struct worker *w = h->data;
    if (server.phase == 1) {
        if (w->index == 0)
            for (size_t i = 0; i < server.n_listeners; i++) http_listener_close(server.listeners[i]);
        http_server_close(w->http, GRACE_MS, on_http_closed, NULL);
        return;
    }
    if (w->index == 0) uv_close((uv_handle_t *)&server.bootstrap, NULL);
    core_client_close(w->core);
    kube_api_free(w->kube);
    etcd_api_free(w->etcd);
    http_server_free(w->http);
    uv_close((uv_handle_t *)h, NULL);
}

static int make_worker(struct server *s, size_t i, const struct kube_config *kube, struct err *e)
{
    struct worker *w = &s->workers[i];
    w->index = (unsigned)i;
    w->loop = &s->loops[i];
    if (uv_loop_init(w->loop) != 0 || uv_async_init(w->loop, &s->signals[i], on_signal) != 0)
        return err_set(e, ERR_NOMEM, "cannot make an event loop");
    s->signals[i].data = w;
    int rv = core_client_open(s->core, w->loop, &w->core);
    if (rv == 0) rv = http_server_new(w->loop, &w->http);
    if (rv == 0) rv = etcd_api_new(w, &w->etcd);
    if (rv == 0) rv = kube_api_new(w, kube, &w->kube);
    if (rv != 0) err_set(e, rv, "cannot make a worker: %s", err_text(rv));
    s->n_workers++;
    return rv;
}

static int listen_on(struct server *s, const char *text, struct http_tls *tls, bool kube, struct err *e)
{
    struct url url;
    struct http_server *servers[WORKERS_MAX];
    void *contexts[WORKERS_MAX];
    int rv = url_parse(text, &url, e);
    if (rv != 0) return rv;
    for (size_t i = 0; i < s->n_workers; i++) {
        servers[i] = s->workers[i].http;
        contexts[i] = kube ? (void *)s->workers[i].kube : (void *)s->workers[i].etcd;
    }
    if (!url.tls && tls) log_warn("%s is served without TLS, though there is a certificate", text);
    if (url.tls && !tls) return err_set(e, ERR_INVALID, "%s needs --cert-file and --key-file", text);
    struct http_listen_options o = {.host = url.host,
                                    .port = url.port,
                                    .tls = url.tls ? tls : NULL,
                                    .servers = servers,
                                    .contexts = contexts,
                                    .n_servers = s->n_workers,
                                    .handler = kube ? kube_api_request : etcd_api_request};
    return http_listen(&o, &s->listeners[s->n_listeners++], e);
}

static int make_tls(struct server *s, struct err *e)
{
    const struct options *o = &s->o;
    struct http_tls_options client = {o->cert_file, o->key_file, o->trusted_ca_file, o->client_cert_auth};
    struct http_tls_options kube = {o->kube_cert_file, o->kube_key_file, o->kube_client_ca_file, false};
    int rv = 0;
    if (o->cert_file || o->key_file) rv = http_tls_new(&client, &s->client_tls, e);
    if (rv == 0 && o->kube_listen && o->kube_cert_file) rv = http_tls_new(&kube, &s->kube_tls, e);
    return rv;
}

static int start_workers(struct server *s, struct err *e)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = s->o.workers ? (size_t)s->o.workers : cores > 4 ? 4 : cores > 0 ? (size_t)cores : 1;
    const char *urls[URLS_MAX + 1];
    struct url kube_url = {0};
    int rv = kinds_load(e);
    if (rv == 0) rv = make_tls(s, e);
    if (rv == 0 && s->o.kube_listen) rv = url_parse(s->o.kube_listen, &kube_url, e);
    struct kube_config kube = {.token_file = s->o.kube_token_file,
                               .advertise_host = kube_url.host,
                               .advertise_port = kube_url.port};
    for (size_t i = 0; rv == 0 && i < n; i++) rv = make_worker(s, i, &kube, e);
    size_t n_urls = split_urls(&s->arena, s->o.listen_client, urls, URLS_MAX + 1);
    if (rv == 0 && n_urls > URLS_MAX) rv = err_set(e, ERR_LIMIT, "more than %d --listen-client-urls", URLS_MAX);
    for (size_t i = 0; rv == 0 && i < n_urls; i++) rv = listen_on(s, urls[i], s->client_tls, false, e);
    if (rv == 0 && s->o.kube_listen) rv = listen_on(s, s->o.kube_listen, s->kube_tls, true, e);
    if (rv != 0) return rv;
    uv_timer_init(s->workers[0].loop, &s->bootstrap);
    s->bootstrap.data = &s->workers[0];
    if (s->o.kube_listen) uv_timer_start(&s->bootstrap, on_bootstrap, BOOTSTRAP_POLL_MS, BOOTSTRAP_POLL_MS);
    return 0;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    uv_run(w->loop, UV_RUN_DEFAULT);
    uv_loop_close(w->loop);
    return NULL;
}

static void run_workers(struct server *s)
{
    for (size_t i = 0; i < s->n_workers; i++)
        if (pthread_create(&s->threads[i], NULL, worker_main, &s->workers[i]) != 0)
            log_fatal("cannot start a thread");
}

static void stop(struct server *s)
{
    s->phase = 1;
    for (size_t i = 0; i < s->n_workers; i++) uv_async_send(&s->signals[i]);
    for (size_t i = 0; i < s->n_workers; i++)
        while (sem_wait(&s->done) != 0) continue;
    core_thread_stop(s->core);
    s->phase = 2;
    for (size_t i = 0; i < s->n_workers; i++) uv_async_send(&s->signals[i]);
    for (size_t i = 0; i < s->n_workers; i++) pthread_join(s->threads[i], NULL);
    http_tls_free(s->client_tls);
    http_tls_free(s->kube_tls);
    arena_release(&s->arena);
}

/* Who was told to stop does not start again: the next start does what this one would have done. */
static void end_if_both(const struct server *s)
{
    if (!atomic_load(&s->stopping) || !atomic_load(&s->again)) return;
    log_info("stopped; to be done at the next start: %s", atomic_load(&s->again));
    _exit(0);
}

static void start_again(const char *why)
{
    struct server *s = &server;
    if (pthread_equal(pthread_self(), s->main_thread)) process_restart(why);
    atomic_store(&s->again, why);
    end_if_both(s);
    pthread_kill(s->main_thread, SIGNAL_AGAIN);
    for (;;) pause();
}

/* Until it has to stop. */
static void wait_for_signal(struct server *s, const sigset_t *signals)
{
    int sig = 0;
    while (sigwait(signals, &sig) != 0 || sig == SIGNAL_AGAIN)
        if (atomic_load(&s->again)) process_restart(atomic_load(&s->again));
    log_info("stopping signal=%s", sig == SIGTERM ? "SIGTERM" : "SIGINT");
    atomic_store(&s->stopping, true);
    end_if_both(s);
}

/* As many open files as the system lets us have: a connection is a file. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur == r.rlim_max) return;
    r.rlim_cur = r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) != 0) log_debug("cannot raise the limit of open files");
}

int cmd_server(int argc, char **argv)
{
    struct server *s = &server;
    struct err e = {0};
    sigset_t signals;
    log_set_name("server");
    set_defaults(&s->o);
    int rv = parse_options(&s->o, argc, argv);
    if (rv == ERR_CANCELED) return 0;
    if (rv != 0) return 2;
    raise_file_limit();
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGNAL_AGAIN);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    s->main_thread = pthread_self();
    sem_init(&s->done, 0, 0);
    core_thread_on_restart(start_again);
    rv = check_options(&s->o, &e);
    if (rv == 0) rv = start_core(s, &e);
    if (rv == ERR_RESTART) process_restart(e.text);
    if (rv == 0) rv = start_workers(s, &e);
    if (rv != 0) {
        fprintf(stderr, "pintle server: %s\n", e.text[0] ? e.text : err_text(rv));
        if (rv == ERR_CORRUPT)
            fprintf(stderr, "pintle server: %s is damaged and was left as it is: move it away and restore a backup "
                            "(pintle ctl snapshot restore FILE --data-dir %s --name %s)\n",
                    s->o.data_dir, s->o.data_dir, s->o.name);
        _exit(1); /* threads of a half-made server are not waited for */
    }
    log_info("serving name=%s member=%llx cluster=%llx client=%s kube=%s data=%s workers=%zu", s->o.name,
             (unsigned long long)s->cluster.own_id, (unsigned long long)s->cluster.cluster_id, s->o.listen_client,
             s->o.kube_listen ? s->o.kube_listen : "-", s->o.data_dir, s->n_workers);
    run_workers(s);
    wait_for_signal(s, &signals);
    stop(s);
    log_info("stopped");
    return 0;
}
