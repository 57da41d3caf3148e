/* What the client programs share: flags with --help, the loop, the API client, signals, a clean
 * end.
 *
 *     struct app app;
 *     int rc = app_init(&app, "scheduler", "pintle scheduler [flags]", flags, n, argc, argv);
 *     if (rc >= 0) return rc;         --help was printed, or something is wrong and was said
 *     ... start ...
 *     app.stop = my_stop;             called once at SIGTERM or SIGINT; must end in app_stopped()
 *     app.report = my_report;         SIGUSR1 prints what the program believes: its informers' content, and this
 *     return app_run(&app);
 */
#ifndef PINTLE_CLIENTS_LIB_APP_H
#define PINTLE_CLIENTS_LIB_APP_H

#include "clients/lib/kubeclient.h"
#include "clients/lib/leader.h"

enum app_flag_type { FLAG_STRING, FLAG_INT, FLAG_BOOL, FLAG_DURATION_MS };

struct app_flag {
    const char *name; /* without "--" */
    enum app_flag_type type;
    void *value; /* const char **, int64_t *, bool *, uint64_t *; holds the default */
    const char *meta, *help;
};

/* Parses --name value, --name=value and -h/--help. -1 = go on, 0 = help was printed, 2 = bad usage,
 * said on standard error. */
int app_flags(const char *usage, const struct app_flag *flags, size_t n, int argc, char **argv);
/* "300ms", "10s", "1m30s", "1h", a bare number = seconds. */
bool app_parse_duration(const char *text, uint64_t *ret_ms);

struct app {
    uv_loop_t loop;
    struct kube_config config;
    struct kube_client *client;
    const char *name, *kubeconfig, *server, *context, *log_level;
    uv_signal_t signals[3];
    bool stopping;
    int exit_code;
    void (*stop)(void *ctx);
    void (*report)(void *ctx, FILE *out); /* may be NULL: adds to what SIGUSR1 prints */
    void *ctx;
};

/* Adds --kubeconfig, --server, --context, --log-level to the flags. */
int app_init(struct app *app, const char *name, const char *usage, const struct app_flag *flags,
             size_t n, int argc, char **argv);
int app_run(struct app *app);
void app_stop(struct app *app, int exit_code); /* as a signal would */
void app_stopped(struct app *app); /* closes the client and the signals; app_run returns when all
                                      handles are closed */

/* Flags of leader election, with client-go's names and defaults. */
struct app_leader {
    bool elect;
    const char *ns, *identity;
    uint64_t lease_duration_ms, renew_deadline_ms, retry_period_ms;
    char identity_buf[300];
};
#define APP_LEADER_FLAGS(l)                                                                        \
    {"leader-elect", FLAG_BOOL, &(l)->elect, "true|false", "lead only while holding a Lease"},     \
        {"leader-elect-identity", FLAG_STRING, &(l)->identity, "NAME",                             \
         "who we are (default: host, pid and a random part)"},                                     \
        {"leader-elect-lease-duration", FLAG_DURATION_MS, &(l)->lease_duration_ms, "15s",          \
         "how long others wait"},                                                                  \
        {"leader-elect-renew-deadline", FLAG_DURATION_MS, &(l)->renew_deadline_ms, "10s",          \
         "give up leading after it"},                                                              \
        {"leader-elect-retry-period", FLAG_DURATION_MS, &(l)->retry_period_ms, "2s",               \
         "between tries"},                                                                         \
    {                                                                                              \
        "leader-elect-resource-namespace", FLAG_STRING, &(l)->ns, "NS", "namespace of the Lease"   \
    }
void app_leader_defaults(struct app_leader *l);
/* ERR_INVALID if the durations do not fit together, said on standard error. */
int app_leader_config(struct app_leader *l, const char *lease,
                      struct leader_config *ret) MUST_CHECK;

#endif
