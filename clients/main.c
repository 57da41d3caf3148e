/* pintle: one binary, a sub-command for each program. This file alone knows both the server's and the clients' entry
 * points; everything else in clients/ speaks to the server over the wire only. */
#include <stdio.h>
#include <string.h>

#include "api/cluster.h"
#include "api/restore.h"
#include "api/server.h"
#include "base/version.h"
#include "bench/bench.h"
#include "clients/agent/agent.h"
#include "clients/controllers/controllers.h"
#include "clients/ctl/ctl.h"
#include "clients/scheduler/scheduler.h"
#include "clients/up/up.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"up", cmd_up, "start a whole control plane on this machine"},
    {"down", cmd_down, "stop what `pintle up` started"},
    {"status", cmd_status, "say how what `pintle up` started is doing"},
    {"server", cmd_server, "one member: Raft, store, etcd API and Kubernetes API"},
    {"scheduler", cmd_scheduler, "bind pods to nodes"},
    {"controllers", cmd_controllers, "deployments, replica sets, endpoints, namespaces, nodes, garbage"},
    {"agent", cmd_agent, "run pods on a node"},
    {"ctl", cmd_ctl, "talk to the etcd API, in etcdctl's words; save and restore snapshots"},
    {"bench", cmd_bench, "measure any etcd v3 endpoint"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *out)
{
    fprintf(out, "pintle: a Kubernetes control plane's storage and API tier\n\nUsage:\n  pintle COMMAND [flags]\n\nCommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`pintle COMMAND --help` lists a command's flags.\n");
    return out == stdout ? 0 : 2;
}

/* `ctl snapshot restore|status` work on files, without a server: they are the server's own code. */
static int (*file_command(int argc, char **argv))(int, char **)
{
    if (argc < 4 || strcmp(argv[1], "ctl") != 0 || strcmp(argv[2], "snapshot") != 0) return NULL;
    if (strcmp(argv[3], "restore") == 0) return cmd_snapshot_restore;
    if (strcmp(argv[3], "status") == 0) return cmd_snapshot_status;
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2) return usage(stderr);
    if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) return usage(stdout);
    if (!strcmp(argv[1], "version") || !strcmp(argv[1], "--version")) {
        printf("pintle %s\n", PINTLE_VERSION);
        return 0;
    }
    up_read_folder = cluster_folder;
    int (*on_file)(int, char **) = file_command(argc, argv);
    if (on_file) return on_file(argc - 3, argv + 3);
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "pintle: unknown command \"%s\"\n\n", argv[1]);
    return usage(stderr);
}
