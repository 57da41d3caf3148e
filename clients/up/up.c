/* The commands `up`, `down` and `status`. */
#include "clients/up/up.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/flags.h"
#include "clients/up/up_int.h"

#define DOWN_TIMEOUT_MS 30000
#define ORPHANS_TIMEOUT_MS 8000

static int complain(const char *command, const struct err *e, int rv)
{
    fprintf(stderr, "pintle %s: %s\n", command, e->text[0] ? e->text : err_text(rv));
    return rv == ERR_INVALID ? 2 : 1;
}

/* What runs in the plan's folder: settings and pids. false if nothing is written there. */
static bool load_state(struct up_plan *p)
{
    struct arena a = {0};
    struct err e;
    const struct json *state = up_read_json(&a, p->state_path);
    bool ok = state != NULL;
    if (ok) {
        p->members = json_path_int(state, "members", p->members);
        p->nodes = json_path_int(state, "nodes", p->nodes);
        p->base_port = json_path_int(state, "base_port", p->base_port);
        p->secure = json_path_bool(state, "secure", p->secure);
        p->restart = json_path_bool(state, "restart", p->restart);
        p->n_processes = 0;
        p->client_urls = p->kube_urls = NULL;
        memset(p->processes, 0, sizeof(p->processes));
        ok = up_plan_make(p, &e) == 0;
        const struct json *list = json_get(state, "processes");
        for (size_t i = 0; ok && list && i < list->count && i < p->n_processes; i++)
            p->processes[i].pid = (int)json_path_int(json_at(list, i), "pid", 0);
    }
    arena_release(&a);
    return ok;
}

static const char default_dir[] = "pintle-data";

static void plan_defaults(struct up_plan *p)
{
    *p = (struct up_plan){.dir = default_dir, .members = UP_MEMBERS, .nodes = 3, .base_port = UP_BASE_PORT, .restart = true};
}

/* Only what follows from the folder, for commands that act on what runs there. */
static int plan_for_dir(struct up_plan *p, struct err *e)
{
    if (access(p->dir, F_OK) != 0) return err_set(e, ERR_NOT_FOUND, "nothing was started in %s (choose the folder with --dir)", p->dir);
    return up_plan_make(p, e);
}

/* ---- processes without a supervisor ----------------------------------------------------------------------- */

/* A pid of the state file still runs our binary, perhaps an older build of it (and was not given to something else meanwhile). */
static bool is_ours(int pid)
{
    char path[64], exe[4096], own[4096];
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    ssize_t n = readlink(path, exe, sizeof(exe) - 1), m = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (pid <= 1 || n < m || m <= 0 || memcmp(exe, own, (size_t)m) != 0) return false;
    exe[n] = 0;
    return exe[m] == 0 || strcmp(exe + m, " (deleted)") == 0;
}

static int signal_orphans(struct up_plan *p, int sig)
{
    int n = 0;
    for (size_t i = p->n_processes; i-- > 0;) {
        if (!is_ours(p->processes[i].pid)) continue;
        if (sig) kill(p->processes[i].pid, sig);
        n++;
    }
    return n;
}

/* Stops what a supervisor left behind that was killed; how many. */
static int stop_orphans(struct up_plan *p)
{
    if (!load_state(p)) return 0;
    int n = signal_orphans(p, SIGTERM);
    uint64_t began = clock_mono_ms();
    while (signal_orphans(p, 0) && clock_mono_ms() - began < ORPHANS_TIMEOUT_MS) usleep(20000);
    signal_orphans(p, SIGKILL);
    unlink(p->state_path);
    return n;
}

/* ---- up ---------------------------------------------------------------------------------------------------- */

struct once {
    struct up_view view;
    bool done;
};

static void on_view(void *ctx, const struct up_view *v)
{
    struct once *o = ctx;
    o->view = *v;
    o->done = true;
}

static int look(struct up_plan *p, struct up_view *ret, struct err *e)
{
    uv_loop_t loop;
    struct up_probe *probe;
    struct once o = {.view = {.leader = -1}};
    if (access(p->client_key, R_OK) != 0) return err_set(e, ERR_IO, "cannot read %s: %s", p->client_key, strerror(errno));
    uv_loop_init(&loop);
    int rv = up_probe_new(&loop, p, &probe, e);
    if (rv == 0) {
        up_probe_run(probe, on_view, &o);
        while (!o.done && uv_run(&loop, UV_RUN_ONCE)) continue;
        up_probe_free(probe);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    *ret = o.view;
    return rv;
}

static int up_detached(struct up_plan *p)
{
    int ends[2];
    char text[1024] = {0};
    if (pipe2(ends, O_CLOEXEC) != 0) return perror("pintle up"), 1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return perror("pintle up"), 1;
    if (pid == 0) {
        char log[4200];
        snprintf(log, sizeof(log), "%s/log/up.log", p->dir);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        close(ends[0]);
        setsid();
        dup2(null, STDIN_FILENO);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        _exit(up_supervise(p, ends[1]));
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n < sizeof(text) - 1 && (got = read(ends[0], text + n, sizeof(text) - 1 - n)) > 0) n += (size_t)got;
    close(ends[0]);
    if (strncmp(text, "ok", 2) == 0) {
        struct up_view v;
        struct err e;
        if (look(p, &v, &e) == 0) up_print_ready(p, &v);
        printf("`%s down --dir %s` stops it.\n", p->binary, p->dir);
        return 0;
    }
    text[strcspn(text, "\n")] = 0;
    fprintf(stderr, "pintle up: %s\n", strncmp(text, "error: ", 7) == 0 ? text + 7 : "the supervisor stopped early");
    return 1;
}

/* Whether what was asked for is what runs. */
static int check_applied(const struct up_plan *asked, const struct up_plan *runs, int pid, struct err *e)
{
    bool same = (!asked->given.members || asked->members == runs->members) && (!asked->given.nodes || asked->nodes == runs->nodes) &&
                (!asked->given.base_port || asked->base_port == runs->base_port) &&
                (!asked->given.secure || asked->secure == runs->secure) && (!asked->given.restart || asked->restart == runs->restart);
    if (same) return 0;
    return err_set(e, ERR_EXISTS, "it runs already (supervisor pid %d) with --members %lld --nodes %lld --base-port %lld --secure=%s --restart=%s; "
                   "for others, `pintle down` first, then the same command again", pid, (long long)runs->members, (long long)runs->nodes,
                   (long long)runs->base_port, runs->secure ? "true" : "false", runs->restart ? "true" : "false");
}

/* Something runs in the folder already: that is what was asked for, once it is ready. */
static int up_already(const struct up_plan *asked, int pid)
{
    static struct up_plan p;
    struct up_view v;
    struct err e = {0};
    bool running = true;
    uint64_t began = clock_mono_ms();
    plan_defaults(&p);
    p.dir = asked->dir;
    int rv = up_plan_make(&p, &e);
    if (rv != 0) return complain("up", &e, rv);
    do {
        bool known = load_state(&p);
        rv = known ? check_applied(asked, &p, pid, &e) : 0;
        if (rv != 0) return complain("up", &e, rv);
        if (known && look(&p, &v, &e) == 0 && up_view_ready(&p, &v)) {
            up_print_ready(&p, &v);
            printf("It was already running (supervisor pid %d).\n", pid);
            return 0;
        }
        usleep(100000);
    } while (clock_mono_ms() - began < 60000 && up_running(&p, &running, &pid, &e) == 0 && running);
    fprintf(stderr, "pintle up: what runs in %s (supervisor pid %d) is not ready; see its logs in %s/log/\n", p.dir, pid, p.dir);
    return 1;
}

/* What runs there without a supervisor gives way: it holds the ports and the members' folders. */
static int clear_orphans(const char *dir, struct err *e)
{
    static struct up_plan old;
    plan_defaults(&old);
    old.dir = dir;
    int rv = up_plan_make(&old, e);
    int n = rv == 0 ? stop_orphans(&old) : 0;
    if (n) printf("Stopped %d processes of an earlier run whose supervisor was gone.\n", n);
    return rv;
}

int cmd_up(int argc, char **argv)
{
    static struct up_plan p;
    struct err e = {0};
    int pid = 0;
    bool running = false;
    plan_defaults(&p);
    struct flag flags[] = {
        {"dir", FLAG_STRING, &p.dir, "DIR", "where data, certificates, kubeconfigs and logs are"},
        {"members", FLAG_INT, &p.members, "N", "servers: 1, 3, 5 or 7", &p.given.members},
        {"nodes", FLAG_INT, &p.nodes, "N", "hollow nodes that run pods", &p.given.nodes},
        {"base-port", FLAG_INT, &p.base_port, "PORT", "member i: etcd API on PORT+10i, peers on PORT+10i+1, Kubernetes API on PORT+10i+4064",
         &p.given.base_port},
        {"secure", FLAG_BOOL, &p.secure, NULL, "TLS with client certificates for the etcd API and between members too", &p.given.secure},
        {"detach", FLAG_BOOL, &p.detach, NULL, "return once all is ready; `pintle down` stops it"},
        {"restart", FLAG_BOOL, &p.restart, NULL, "start a process again when it dies", &p.given.restart},
        {0}};
    static const char usage[] = "pintle up: a whole control plane on this machine\n\nUsage:\n  pintle up [flags]\n\n"
                                "Starts servers, two schedulers, two controllers and node agents on loopback; stays in front until Ctrl-C.\n"
                                "The data is kept: the same command continues where it was.";
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED) return flags_help(stdout, usage, flags), 0;
    if (rv == 0 && argc > 1) rv = err_set(&e, ERR_INVALID, "unexpected argument \"%s\" (see --help)", argv[1]);
    if (rv == 0) rv = up_plan_recall(&p, &e);
    if (rv == 0) rv = up_plan_make(&p, &e);
    if (rv == 0) rv = up_running(&p, &running, &pid, &e);
    if (rv == 0 && running) return up_already(&p, pid);
    if (rv == 0) rv = clear_orphans(p.dir, &e);
    if (rv == 0) rv = up_plan_prepare(&p, &e);
    if (rv != 0) return complain("up", &e, rv);
    printf("Starting %lld member%s, schedulers, controllers and %lld node%s in %s\n", (long long)p.members, p.members == 1 ? "" : "s",
           (long long)p.nodes, p.nodes == 1 ? "" : "s", p.dir);
    fflush(stdout);
    return p.detach ? up_detached(&p) : up_supervise(&p, -1);
}

/* ---- down --------------------------------------------------------------------------------------------------- */

int cmd_down(int argc, char **argv)
{
    static struct up_plan p;
    struct err e = {0};
    int pid = 0;
    bool running = false;
    plan_defaults(&p);
    struct flag flags[] = {{"dir", FLAG_STRING, &p.dir, "DIR", "the folder given to `pintle up`"}, {0}};
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED)
        return flags_help(stdout, "Usage:\n  pintle down --dir D\n\nStops what `pintle up` started there. The data is kept.", flags), 0;
    if (rv == 0) rv = plan_for_dir(&p, &e);
    if (rv != 0) return complain("down", &e, rv);
    rv = up_running(&p, &running, &pid, &e);
    if (rv != 0) return complain("down", &e, rv);
    if (!running) {
        int n = stop_orphans(&p);
        if (n) printf("Its supervisor was gone; stopped %d processes.\n", n);
        else printf("Nothing runs in %s.\n", p.dir);
        return 0;
    }
    if (kill(pid, SIGTERM) != 0) return complain("down", &e, err_set(&e, ERR_IO, "cannot stop the supervisor (pid %d): %s", pid, strerror(errno)));
    uint64_t began = clock_mono_ms();
    while (up_running(&p, &running, NULL, &e) == 0 && running && clock_mono_ms() - began < DOWN_TIMEOUT_MS) usleep(20000);
    if (running) {
        fprintf(stderr, "pintle down: the supervisor (pid %d) still runs after %d s\n", pid, DOWN_TIMEOUT_MS / 1000);
        return 1;
    }
    printf("Stopped. The data stays in %s.\n", p.dir);
    return 0;
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

static void print_json(const struct up_plan *p, const struct up_view *v, bool ready)
{
    printf("{\"members\":[");
    for (size_t i = 0; i < (size_t)p->members; i++) {
        const struct up_process *x = &p->processes[i];
        printf("%s{\"name\":\"%s\",\"pid\":%d,\"client_url\":\"%s\",\"peer_url\":\"%s\",\"kube_url\":\"%s\",\"leader\":%s}", i ? "," : "", x->name,
               x->pid, x->client_url, x->peer_url, x->kube_url, v->leader == (int)i ? "true" : "false");
    }
    printf("],\"nodes\":%lld,\"ready\":%s}\n", (long long)v->nodes_ready, ready ? "true" : "false");
}

static void print_text(const struct up_plan *p, const struct up_view *v, bool ready)
{
    for (size_t i = 0; i < p->n_processes; i++) {
        const struct up_process *x = &p->processes[i];
        const char *state = !x->pid ? "not running" : !x->member ? "running" : !v->member_up[i] ? "not healthy" : v->leader == (int)i ? "healthy, leader" : "healthy";
        printf("%-14s pid %-8d %-16s %s\n", x->name, x->pid, state, x->client_url ? x->client_url : "");
    }
    printf("nodes ready: %lld of %lld\n%s\n", (long long)v->nodes_ready, (long long)p->nodes, ready ? "ready" : "not ready");
}

int cmd_status(int argc, char **argv)
{
    static struct up_plan p;
    struct err e = {0};
    struct up_view v = {.leader = -1};
    const char *output = "text";
    plan_defaults(&p);
    struct flag flags[] = {{"dir", FLAG_STRING, &p.dir, "DIR", "the folder given to `pintle up`"},
                           {"output,o", FLAG_STRING, &output, "FORMAT", "text or json"},
                           {0}};
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED)
        return flags_help(stdout, "Usage:\n  pintle status --dir D [-o json]\n\nSays how what `pintle up` started is doing; exit status 0 if all is ready.", flags), 0;
    if (rv == 0 && strcmp(output, "text") && strcmp(output, "json")) rv = err_set(&e, ERR_INVALID, "--output must be text or json");
    if (rv == 0) rv = plan_for_dir(&p, &e);
    if (rv != 0) return complain("status", &e, rv);
    bool ready = false, running = false;
    rv = up_running(&p, &running, NULL, &e);
    if (rv != 0) return complain("status", &e, rv);
    if (running && load_state(&p)) {
        rv = look(&p, &v, &e);
        if (rv != 0) return complain("status", &e, rv);
        ready = up_view_ready(&p, &v);
        for (size_t i = 0; i < p.n_processes; i++) ready = ready && p.processes[i].pid;
    } else if (!strcmp(output, "text")) {
        int n = load_state(&p) ? signal_orphans(&p, 0) : 0;
        if (n) printf("The supervisor of %s is gone, but %d of its processes still run; `pintle down` stops them, `pintle up` starts anew.\n", p.dir, n);
        else printf("Nothing runs in %s.\n", p.dir);
        return 1;
    }
    if (!strcmp(output, "json")) print_json(&p, &v, ready);
    else print_text(&p, &v, ready);
    return ready ? 0 : 1;
}
