/* `pintle up`, `down`, `status`: a whole control plane on this machine, as processes under one supervisor.
 *
 * The folder D holds everything: D/n1.. (members' data), D/settings.json (what that data is bound to), D/pki (a CA and certificates
 * made here), D/NAME.kubeconfig, D/log/, and D/state.json, from which `status` and `down` know what runs. The supervisor holds a lock on
 * D/up.lock while it lives; what a killed one left running is stopped by the next `up` or `down`. */
#ifndef PINTLE_CLIENTS_UP_UP_H
#define PINTLE_CLIENTS_UP_UP_H

#include <stdbool.h>
#include <stddef.h>

struct arena;

/* What only the server can read: where the member of a data folder is by what the folder says, and of how many members. False if it says
 * nothing. Set by main, which knows both sides. */
extern bool (*up_read_folder)(struct arena *a, const char *data_dir, const char **ret_peer_url, size_t *ret_members);

int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_status(int argc, char **argv);

#endif
