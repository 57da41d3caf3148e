/* The supervisor: starts the processes, tells when all is ready, starts again what dies, and stops everything in order: what uses the
 * API first, then the members.
 *
 * A process that ends before the control plane was ready once is a failure of `up`: the last line of its log is shown and
 * everything is stopped. Later it is started again, after 1 s, then 2, at most 10; after 1 s again if it ran for 10. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "clients/up/up_int.h"

#define POLL_MS 50
#define STATUS_MS 2000
#define READY_TIMEOUT_MS 60000
#define STOP_TIMEOUT_MS 8000
#define RESTART_LAST_MS 10000

enum phase { STARTING, READY, STOPPING_CLIENTS, STOPPING_MEMBERS };

struct supervisor {
    struct up_plan *p;
    uv_loop_t loop;
    uv_timer_t poll;
    uv_signal_t term, intr, hup;
    struct up_probe *probe;
    struct up_view view;
    enum phase phase;
    uint64_t began_ms, stop_ms, next_probe_ms;
    int ready_fd, lock_fd;
    bool locked, probing, failed, tty, closed, printed_status;
    char shown[160];
    char error[700];
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    fflush(stdout);
}

/* ---- the state file --------------------------------------------------------------------------------------- */

static void write_state(struct supervisor *s)
{
    struct up_plan *p = s->p;
    struct buf out = {0};
    char temporary[4200];
    buf_printf(&out, "{\"pid\":%d,\"members\":%lld,\"nodes\":%lld,\"base_port\":%lld,\"secure\":%s,\"restart\":%s,\"processes\":[", (int)getpid(),
               (long long)p->members, (long long)p->nodes, (long long)p->base_port, p->secure ? "true" : "false", p->restart ? "true" : "false");
    for (size_t i = 0; i < p->n_processes; i++)
        buf_printf(&out, "%s{\"name\":\"%s\",\"pid\":%d}", i ? "," : "", p->processes[i].name, p->processes[i].pid);
    buf_append_str(&out, "]}\n");
    snprintf(temporary, sizeof(temporary), "%s.tmp", p->state_path);
    FILE *f = fopen(temporary, "we");
    if (f && fwrite(out.data, 1, out.len, f) == out.len && fclose(f) == 0) {
        if (rename(temporary, p->state_path) != 0) say("warning: cannot write %s: %s\n", p->state_path, strerror(errno));
    } else {
        say("warning: cannot write %s: %s\n", temporary, strerror(errno));
    }
    buf_release(&out);
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

static void last_line(const char *path, char *out, size_t size)
{
    char tail[2048];
    out[0] = 0;
    FILE *f = fopen(path, "re");
    if (!f) return;
    if (fseek(f, -(long)sizeof(tail) + 1, SEEK_END) != 0) rewind(f);
    size_t n = fread(tail, 1, sizeof(tail) - 1, f);
    fclose(f);
    while (n && (tail[n - 1] == '\n' || tail[n - 1] == '\r')) n--;
    tail[n] = 0;
    const char *line = strrchr(tail, '\n');
    snprintf(out, size, "%.500s", line ? line + 1 : tail);
}

static void stop_all(struct supervisor *s);

static void fail(struct supervisor *s, const char *text)
{
    if (s->failed) return;
    s->failed = true;
    snprintf(s->error, sizeof(s->error), "%s", text); /* said once all is stopped */
    stop_all(s);
}

static void on_process_exit(uv_process_t *h, int64_t status, int sig)
{
    struct up_process *x = h->data;
    struct supervisor *s = h->loop->data;
    char text[700], line[512];
    x->pid = 0;
    uv_close((uv_handle_t *)h, NULL);
    if (s->phase == STARTING) {
        last_line(x->log, line, sizeof(line));
        snprintf(text, sizeof(text), "%s stopped (%s %d): %s (log: %s)", x->name, sig ? "signal" : "exit status",
                 sig ? sig : (int)status, line[0] ? line : "no output", x->log);
        fail(s, text);
    } else if (s->phase == READY) {
        if (clock_mono_ms() - x->started_ms > RESTART_LAST_MS) x->starts = 1;
        uint64_t pause = 1000ull << (x->starts < 5 ? x->starts - 1 : 4);
        x->again_ms = s->p->restart ? clock_mono_ms() + (pause > RESTART_LAST_MS ? RESTART_LAST_MS : pause) : 0;
        say("%s%s stopped (%s %d)%s\n", s->tty ? "\r\033[K" : "", x->name, sig ? "signal" : "exit status", sig ? sig : (int)status,
            s->p->restart ? ", starting it again" : "");
    }
    write_state(s);
}

static void start_process(struct supervisor *s, struct up_process *x)
{
    int log = open(x->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    uv_stdio_container_t stdio[3] = {{.flags = UV_INHERIT_FD, .data.fd = null},
                                     {.flags = UV_INHERIT_FD, .data.fd = log},
                                     {.flags = UV_INHERIT_FD, .data.fd = log}};
    uv_process_options_t o = {.file = x->argv[0], .args = (char **)x->argv, .exit_cb = on_process_exit, .stdio = stdio, .stdio_count = 3,
                              .flags = UV_PROCESS_DETACHED}; /* Ctrl-C goes to the supervisor alone */
    x->handle.data = x;
    x->again_ms = 0;
    x->starts++;
    x->started_ms = clock_mono_ms();
    int rv = log < 0 ? -errno : uv_spawn(&s->loop, &x->handle, &o);
    if (rv == 0) {
        x->pid = x->handle.pid;
    } else {
        char text[300];
        if (log >= 0) uv_close((uv_handle_t *)&x->handle, NULL);
        snprintf(text, sizeof(text), "cannot start %s: %s", x->name, log < 0 ? strerror(errno) : uv_strerror(rv));
        if (s->phase == READY) { /* the others go on: it may work later */
            say("%s%s\n", s->tty ? "\r\033[K" : "", text);
            x->again_ms = clock_mono_ms() + 1000;
        } else {
            fail(s, text);
        }
    }
    if (log >= 0) close(log);
    if (null >= 0) close(null);
}

/* ---- stopping -------------------------------------------------------------------------------------------------- */

static size_t running(const struct supervisor *s, bool members)
{
    size_t n = 0;
    for (size_t i = 0; i < s->p->n_processes; i++) n += s->p->processes[i].pid && s->p->processes[i].member == members;
    return n;
}

static void signal_all(struct supervisor *s, bool members, int sig)
{
    for (size_t i = 0; i < s->p->n_processes; i++) {
        struct up_process *x = &s->p->processes[i];
        if (x->pid && x->member == members) uv_process_kill(&x->handle, sig);
    }
}

static void stop_all(struct supervisor *s)
{
    if (s->phase >= STOPPING_CLIENTS) return;
    s->phase = STOPPING_CLIENTS;
    s->stop_ms = clock_mono_ms();
    signal_all(s, false, SIGTERM);
}

static void close_all(struct supervisor *s)
{
    if (s->closed) return;
    s->closed = true;
    up_probe_free(s->probe);
    s->probe = NULL;
    uv_close((uv_handle_t *)&s->poll, NULL);
    uv_close((uv_handle_t *)&s->term, NULL);
    uv_close((uv_handle_t *)&s->intr, NULL);
    uv_close((uv_handle_t *)&s->hup, NULL);
}

static void step_stopping(struct supervisor *s)
{
    uint64_t now = clock_mono_ms();
    bool members = s->phase == STOPPING_MEMBERS;
    if (running(s, members) == 0) {
        if (members) {
            close_all(s);
            return;
        }
        s->phase = STOPPING_MEMBERS;
        s->stop_ms = now;
        signal_all(s, true, SIGTERM);
    } else if (now - s->stop_ms > STOP_TIMEOUT_MS) {
        signal_all(s, members, SIGKILL);
        s->stop_ms = now;
    }
}

/* ---- getting ready ----------------------------------------------------------------------------------------------- */

static void show_progress(struct supervisor *s)
{
    char line[160];
    snprintf(line, sizeof(line), "members %zu/%lld, leader %s, Kubernetes API %s, nodes ready %lld/%lld", s->view.healthy,
             (long long)s->p->members, s->view.leader >= 0 ? s->p->processes[s->view.leader].name : "none",
             s->view.kube_ready ? "up" : "not ready", (long long)s->view.nodes_ready, (long long)s->p->nodes);
    if (!strcmp(line, s->shown)) return;
    memcpy(s->shown, line, sizeof(line));
    if (s->ready_fd >= 0) return;
    if (s->phase == STARTING) say("  %s\n", line);
    else if (s->tty) say("\r\033[K%s", line);
    else say("%s\n", line);
}

void up_print_ready(const struct up_plan *p, const struct up_view *v)
{
    const char *tls = p->secure ? arena_printf((struct arena *)&p->arena, " --cacert %s --cert %s --key %s", p->ca, p->client_cert, p->client_key) : "";
    printf("\nThe control plane is ready.\n");
    printf("  etcd API        %s\n", p->client_urls);
    printf("  Kubernetes API  %s\n", p->kube_urls);
    printf("  leader          %s\n", v->leader >= 0 ? p->processes[v->leader].name : "(being elected)");
    printf("  kubeconfig      %s\n", p->admin_kubeconfig);
    printf("  logs            %s/log/\n\nTry:\n", p->dir);
    printf("  kubectl --kubeconfig %s get nodes\n", p->admin_kubeconfig);
    printf("  kubectl --kubeconfig %s apply -f examples/guestbook.yaml\n", p->admin_kubeconfig);
    printf("  ETCDCTL_API=3 etcdctl --endpoints %s%s get /registry --prefix --keys-only\n\n", p->client_urls, tls);
    fflush(stdout);
}

static void become_ready(struct supervisor *s)
{
    s->phase = READY;
    s->shown[0] = 0; /* said again as the live status */
    write_state(s);
    if (s->ready_fd >= 0) {
        dprintf(s->ready_fd, "ok\n");
        close(s->ready_fd);
        s->ready_fd = -1;
        return;
    }
    up_print_ready(s->p, &s->view);
    printf("Ready after %.1f s. Ctrl-C stops everything and keeps the data.\n", (double)(clock_mono_ms() - s->began_ms) / 1000);
    fflush(stdout);
}

static void on_probe(void *ctx, const struct up_view *v)
{
    struct supervisor *s = ctx;
    s->probing = false;
    s->view = *v;
    if (s->phase > READY) return;
    show_progress(s);
    if (s->phase == STARTING && up_view_ready(s->p, v)) become_ready(s);
}

static void step_running(struct supervisor *s)
{
    uint64_t now = clock_mono_ms();
    for (size_t i = 0; i < s->p->n_processes; i++) {
        struct up_process *x = &s->p->processes[i];
        if (!x->again_ms || x->again_ms > now || x->pid) continue;
        start_process(s, x);
        write_state(s);
    }
    if (s->phase == STARTING && now - s->began_ms > READY_TIMEOUT_MS) {
        char text[300];
        snprintf(text, sizeof(text), "not ready after %d s: %s (logs: %s/log/)", READY_TIMEOUT_MS / 1000, s->shown, s->p->dir);
        fail(s, text);
        return;
    }
    bool watched = s->phase == STARTING || s->tty;
    if (s->probing || !watched || now < s->next_probe_ms) return;
    s->probing = true;
    s->next_probe_ms = now + (s->phase == STARTING ? POLL_MS : s->p->nodes > 100 ? 10 * STATUS_MS : STATUS_MS);
    up_probe_run(s->probe, on_probe, s);
}

static void on_poll(uv_timer_t *t)
{
    struct supervisor *s = t->data;
    if (s->phase >= STOPPING_CLIENTS) {
        step_stopping(s);
        return;
    }
    step_running(s);
    if (s->phase == READY && uv_timer_get_repeat(t) == POLL_MS) uv_timer_set_repeat(t, 500);
}

static void on_signal(uv_signal_t *h, int sig)
{
    struct supervisor *s = h->data;
    (void)sig;
    if (s->phase >= STOPPING_CLIENTS) return;
    say("%sStopping...\n", s->tty ? "\r\033[K" : "");
    s->failed = s->failed || s->phase == STARTING;
    stop_all(s);
    uv_timer_start(&s->poll, on_poll, 0, POLL_MS);
}

/* ---- the lock ------------------------------------------------------------------------------------------------------ */

int up_running(const struct up_plan *p, bool *ret_running, int *ret_pid, struct err *e)
{
    int fd = open(p->lock_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT) return err_set(e, ERR_IO, "cannot open %s: %s", p->lock_path, strerror(errno));
    *ret_running = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;
    char text[32] = {0};
    if (*ret_running && ret_pid && read(fd, text, sizeof(text) - 1) > 0) *ret_pid = atoi(text);
    if (fd >= 0) close(fd);
    return 0;
}

static int take_lock(struct supervisor *s)
{
    char text[32];
    s->lock_fd = open(s->p->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (s->lock_fd < 0 || flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) return -1;
    s->locked = true;
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    return ftruncate(s->lock_fd, 0) == 0 && pwrite(s->lock_fd, text, (size_t)n, 0) == n ? 0 : -1;
}

int up_supervise(struct up_plan *p, int ready_fd)
{
    struct supervisor *s = mem_must_calloc(1, sizeof(*s));
    struct err e = {0};
    s->p = p;
    s->ready_fd = ready_fd;
    s->tty = ready_fd < 0 && isatty(STDOUT_FILENO);
    s->view.leader = -1;
    s->began_ms = clock_mono_ms();
    uv_loop_init(&s->loop);
    s->loop.data = s;
    uv_timer_init(&s->loop, &s->poll);
    uv_signal_init(&s->loop, &s->term);
    uv_signal_init(&s->loop, &s->intr);
    uv_signal_init(&s->loop, &s->hup);
    s->poll.data = s->term.data = s->intr.data = s->hup.data = s;
    uv_signal_start(&s->term, on_signal, SIGTERM);
    uv_signal_start(&s->intr, on_signal, SIGINT);
    uv_signal_start(&s->hup, on_signal, SIGHUP); /* the terminal was closed */
    if (take_lock(s) != 0) {
        fail(s, "another `pintle up` uses this folder (see `pintle status`)");
    } else if (up_probe_new(&s->loop, p, &s->probe, &e) != 0) {
        fail(s, e.text);
    } else {
        for (size_t i = 0; i < p->n_processes && !s->failed; i++) start_process(s, &p->processes[i]);
        write_state(s);
    }
    uv_timer_start(&s->poll, on_poll, POLL_MS, POLL_MS);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    bool failed = s->failed;
    if (s->error[0] && s->ready_fd >= 0) dprintf(s->ready_fd, "error: %s\n", s->error);
    else if (s->error[0]) fprintf(stderr, "pintle up: %s\n", s->error);
    if (!failed && ready_fd < 0) say("Stopped. The data stays in %s; start again with the same command.\n", p->dir);
    if (s->locked) unlink(p->state_path); /* else it is another's, who is running */
    close(s->lock_fd);
    mem_free(s);
    return failed ? 1 : 0;
}
