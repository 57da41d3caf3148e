/* `pintle up`, `down`, `status`: a whole control plane on this machine, as processes under one supervisor.
 *
 * The folder D holds everything: D/n1.. (members' data), D/settings.json (what that data is bound to), D/pki (a CA and certificates
 * made here), D/NAME.kubeconfig, D/log/, and D/state.json, from which `status` and `down` know what runs. The supervisor holds a lock on
 * D/up.lock while it lives; what a killed one left running is stopped by the next `up` or `down`. */
#ifndef PINTLE_CLIENTS_UP_UP_H
#define PINTLE_CLIENTS_UP_UP_H

int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_status(int argc, char **argv);

#endif
