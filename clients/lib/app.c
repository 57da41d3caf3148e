#include "clients/lib/app.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/informer.h"

/* ---- flags ---------------------------------------------------------------------------------- */

bool app_parse_duration(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    double total = 0;
    if (!*text) return false;
    while (*text) {
        char *end;
        if (*text < '0' || *text > '9') return false;
        double v = strtod(text, &end);
        size_t n = strspn(end, "msh"), i = 0;
        while (i < 4 && !(strlen(units[i].unit) == n && !strncmp(end, units[i].unit, n))) i++;
        if (i == 4 && !(n == 0 && !*end)) return false;
        total += v * (i == 4 ? 1000 : units[i].ms);
        text = end + n;
    }
    if (total > 1e14) return false;
    *ret_ms = (uint64_t)total;
    return true;
}

static bool set_flag(const struct app_flag *f, const char *text)
{
    if (f->type == FLAG_STRING) {
        *(const char **)f->value = text;
        return true;
    }
    if (f->type == FLAG_DURATION_MS) return app_parse_duration(text, f->value);
    if (f->type == FLAG_INT) {
        char *end;
        long long v = strtoll(text, &end, 10);
        if (end == text || *end) return false;
        *(int64_t *)f->value = v;
        return true;
    }
    bool yes = !strcmp(text, "true"), no = !strcmp(text, "false");
    if (yes || no) *(bool *)f->value = yes;
    return yes || no;
}

static void print_default(const struct app_flag *f)
{
    if (f->type == FLAG_STRING && *(const char **)f->value)
        printf(" (default %s)", *(const char **)f->value);
    if (f->type == FLAG_INT) printf(" (default %" PRId64 ")", *(int64_t *)f->value);
    if (f->type == FLAG_BOOL) printf(" (default %s)", *(bool *)f->value ? "true" : "false");
    if (f->type == FLAG_DURATION_MS) printf(" (default %gs)", (double)*(uint64_t *)f->value / 1000);
}

static int print_help(const char *usage, const struct app_flag *flags, size_t n)
{
    printf("Usage: %s\n\nFlags:\n", usage);
    for (size_t i = 0; i < n; i++) {
        char left[80];
        snprintf(left, sizeof(left), "--%s %s", flags[i].name, flags[i].meta);
        printf("  %-42s %s", left, flags[i].help);
        print_default(&flags[i]);
        printf("\n");
    }
    return 0;
}

static const struct app_flag *find_flag(const struct app_flag *flags, size_t n, const char *name,
                                        size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(flags[i].name) == len && !strncmp(flags[i].name, name, len)) return &flags[i];
    return NULL;
}

int app_flags(const char *usage, const struct app_flag *flags, size_t n, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-h") || !strcmp(a, "--help") || !strcmp(a, "help"))
            return print_help(usage, flags, n);
        if (strncmp(a, "--", 2) != 0) {
            fprintf(stderr, "%s: unexpected argument \"%s\" (--help lists the flags)\n", argv[0],
                    a);
            return 2;
        }
        size_t len = strcspn(a + 2, "=");
        const struct app_flag *f = find_flag(flags, n, a + 2, len);
        if (!f) {
            fprintf(stderr, "%s: unknown flag %s (--help lists the flags)\n", argv[0], a);
            return 2;
        }
        const char *value = a[2 + len] ? a + 3 + len : f->type == FLAG_BOOL ? "true" : argv[++i];
        if (!value || !set_flag(f, value)) {
            fprintf(stderr, "%s: flag --%s needs a value like %s%s%s%s\n", argv[0], f->name,
                    f->meta, value ? ", not \"" : "", value ? value : "", value ? "\"" : "");
            return 2;
        }
    }
    return -1;
}

/* ---- the program ---------------------------------------------------------------------------- */

/* For whoever wants to know whether the program believes what is stored. */
static void print_report(struct app *app)
{
    fprintf(stderr, "report begin\n");
    informer_report_all(stderr);
    if (app->report) app->report(app->ctx, stderr);
    fprintf(stderr, "report end\n");
    fflush(stderr);
}

static void on_signal(uv_signal_t *h, int number)
{
    struct app *app = h->data;
    if (number == SIGUSR1) {
        print_report(app);
        return;
    }
    log_info("stopping signal=%d", number);
    app_stop(app, 0);
}

void app_stop(struct app *app, int exit_code)
{
    if (app->stopping) return;
    app->stopping = true;
    app->exit_code = exit_code;
    if (app->stop) app->stop(app->ctx);
    else app_stopped(app);
}

void app_stopped(struct app *app)
{
    kube_client_close(app->client, NULL, NULL);
    app->client = NULL;
    for (int i = 0; i < 3; i++) uv_close((uv_handle_t *)&app->signals[i], NULL);
}

static int load_config(struct app *app, struct err *e)
{
    if (!app->kubeconfig && !app->server) app->kubeconfig = getenv("KUBECONFIG");
    if (!app->kubeconfig && !app->server)
        return err_set(e, ERR_INVALID,
                       "where is the API server? give --kubeconfig FILE or --server URL[,URL...]");
    int rc = app->kubeconfig ? kube_config_load(app->kubeconfig, app->context, &app->config, e) : 0;
    if (!rc && app->server) rc = kube_config_set_servers(&app->config, app->server, e);
    return rc;
}

int app_init(struct app *app, const char *name, const char *usage, const struct app_flag *flags,
             size_t n, int argc, char **argv)
{
    *app = (struct app){.name = name, .log_level = "info"};
    const struct app_flag common[] = {
        {"kubeconfig", FLAG_STRING, &app->kubeconfig, "FILE",
         "cluster and credentials (default: $KUBECONFIG)"},
        {"server", FLAG_STRING, &app->server, "URL,...",
         "API servers, instead of those of the kubeconfig"},
        {"context", FLAG_STRING, &app->context, "NAME", "context of the kubeconfig"},
        {"log-level", FLAG_STRING, &app->log_level, "debug|info|warn|error", "how much to log"},
    };
    struct app_flag all[48];
    size_t n_common = sizeof(common) / sizeof(*common);
    memcpy(all, flags, n * sizeof(*all));
    memcpy(all + n, common, sizeof(common));
    int rc = app_flags(usage, all, n + n_common, argc, argv);
    if (rc >= 0) return rc;
    enum log_level level;
    if (!log_level_parse(app->log_level, &level)) {
        fprintf(stderr, "%s: --log-level: \"%s\" is none of debug, info, warn, error\n", name,
                app->log_level);
        return 2;
    }
    log_set_level(level);
    log_set_name(name);
    signal(SIGPIPE, SIG_IGN);
    srandom((unsigned)(clock_mono_ns() ^ ((uint64_t)getpid() << 16)));
    uv_loop_init(&app->loop);
    struct err e = {{0}};
    rc = load_config(app, &e);
    if (!rc) rc = kube_client_new(&app->loop, &app->config, "pintle", &app->client, &e);
    if (rc) {
        fprintf(stderr, "%s: %s\n", name, e.text[0] ? e.text : err_text(rc));
        kube_config_release(&app->config);
        uv_run(&app->loop, UV_RUN_DEFAULT);
        uv_loop_close(&app->loop);
        return 1;
    }
    static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
    for (int i = 0; i < 3; i++) {
        uv_signal_init(&app->loop, &app->signals[i]);
        app->signals[i].data = app;
        uv_signal_start(&app->signals[i], on_signal, numbers[i]);
    }
    return -1;
}

int app_run(struct app *app)
{
    uv_run(&app->loop, UV_RUN_DEFAULT);
    uv_loop_close(&app->loop);
    kube_config_release(&app->config);
    return app->exit_code;
}

/* ---- leader election ------------------------------------------------------------------------ */

void app_leader_defaults(struct app_leader *l)
{
    *l = (struct app_leader){.elect = true,
                             .ns = "kube-system",
                             .lease_duration_ms = 15000,
                             .renew_deadline_ms = 10000,
                             .retry_period_ms = 2000};
}

int app_leader_config(struct app_leader *l, const char *lease, struct leader_config *ret)
{
    if (l->lease_duration_ms <= l->renew_deadline_ms ||
        l->renew_deadline_ms < l->retry_period_ms * 6 / 5 || l->retry_period_ms == 0) {
        fprintf(stderr, "leader election: the lease duration must be longer than the renew "
                        "deadline, and that longer than 1.2 retry "
                        "periods\n");
        return ERR_INVALID;
    }
    if (!l->identity) {
        char host[200] = "localhost";
        gethostname(host, sizeof(host) - 1);
        snprintf(l->identity_buf, sizeof(l->identity_buf), "%s_%d_%08lx", host, (int)getpid(),
                 random() & 0xffffffff);
        l->identity = l->identity_buf;
    }
    *ret = (struct leader_config){
        l->ns, lease, l->identity, l->lease_duration_ms, l->renew_deadline_ms, l->retry_period_ms};
    return 0;
}
