/* What the files of `up` share. plan.c: what runs where, with which files; pki.c: certificates; probe.c: how it does;
 * supervise.c: the processes; up.c: the commands. One thread. */
#ifndef PINTLE_CLIENTS_UP_UP_INT_H
#define PINTLE_CLIENTS_UP_UP_INT_H

#include <uv.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"

#define UP_MEMBERS_MAX 7
#define UP_AGENT_PROCESSES_MAX 3
#define UP_PROCESSES_MAX (UP_MEMBERS_MAX + 4 + UP_AGENT_PROCESSES_MAX)
#define UP_ARGS_MAX 48
#define UP_KUBE_PORT_OFFSET 4064 /* 2379 + 4064 = 6443 */

/* ---- the plan ------------------------------------------------------------------------------------- */

struct up_process {
    const char *name; /* "n1", "scheduler-1": also its log's name */
    const char *argv[UP_ARGS_MAX];
    const char *log;
    const char *client_url, *peer_url, *kube_url; /* members only */
    bool member;
    /* the supervisor's */
    uv_process_t handle;
    int pid; /* 0 = not running */
    unsigned starts;
    uint64_t started_ms, again_ms; /* when it was started, and is to be again */
};

struct up_plan {
    struct arena arena;
    const char *dir; /* absolute */
    int64_t members, nodes, base_port;
    bool secure, restart, detach;
    struct {
        bool members, nodes, base_port, secure, restart;
    } given; /* by a flag */
    bool has_data; /* members have run in the folder, or were restored into it */
    const char *binary;
    const char *admin_kubeconfig, *lock_path, *state_path, *settings_path;
    const char *kube_urls, *client_urls; /* comma-separated */
    const char *ca, *client_cert, *client_key; /* PEM files of the administrator */
    struct up_process processes[UP_PROCESSES_MAX];
    size_t n_processes;
};

#define UP_MEMBERS 3 /* what `up` makes unless told otherwise */
#define UP_BASE_PORT 2379

/* A data folder keeps the members, ports and TLS that it was made with: takes them for what was not given; another choice is
 * an error. Before up_plan_make. */
int up_plan_recall(struct up_plan *p, struct err *e) MUST_CHECK;
/* A file of ours, parsed; NULL if there is none or it is damaged. */
struct json *up_read_json(struct arena *a, const char *path);
/* Fills everything that follows from dir, members, nodes, base_port and secure. */
int up_plan_make(struct up_plan *p, struct err *e) MUST_CHECK;
/* Folders, certificates and kubeconfigs, where they are not there yet; ports that must be free. */
int up_plan_prepare(struct up_plan *p, struct err *e) MUST_CHECK;

/* ---- certificates ----------------------------------------------------------------------------------- */

/* A CA as dir/ca.crt and dir/ca.key, made if missing. */
int pki_ca(const char *dir, struct err *e) MUST_CHECK;
/* dir/name.crt and dir/name.key, signed by that CA, made if missing. `organization` may be NULL; `server`: also for
 * localhost, 127.0.0.1 and the names of the `kubernetes` Service. */
int pki_issue(const char *dir, const char *name, const char *common_name, const char *organization, bool server,
              struct err *e) MUST_CHECK;

/* ---- probing ------------------------------------------------------------------------------------------ */

struct up_view {
    size_t healthy;       /* members that answer a linearizable read */
    int leader;           /* index among the members, or -1 */
    bool member_up[UP_MEMBERS_MAX];
    int64_t nodes_ready;
    bool kube_ready;
};

struct up_probe;
/* Asks everything once; `done` comes within about 2 s. The plan is borrowed. */
int up_probe_new(uv_loop_t *loop, const struct up_plan *p, struct up_probe **ret, struct err *e) MUST_CHECK;
void up_probe_run(struct up_probe *p, void (*done)(void *ctx, const struct up_view *v), void *ctx);
void up_probe_free(struct up_probe *p);
/* All members and nodes are well. */
bool up_view_ready(const struct up_plan *p, const struct up_view *v);

/* ---- supervising ---------------------------------------------------------------------------------------- */

/* Runs the plan until SIGINT, SIGTERM or, before it was ready, a failure. `ready_fd` >= 0: "ok\n" or "error: ...\n" is
 * written there once. The process's exit status. */
int up_supervise(struct up_plan *p, int ready_fd);
void up_print_ready(const struct up_plan *p, const struct up_view *v);
/* Whether a supervisor holds the folder's lock; its pid if so. An error: another user's folder. */
int up_running(const struct up_plan *p, bool *ret_running, int *ret_pid, struct err *e) MUST_CHECK;

#endif
