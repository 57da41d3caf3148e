/* `pintle scheduler`: binds pods to nodes, over the wire only. See docs/clients.md. */
#ifndef PINTLE_CLIENTS_SCHEDULER_SCHEDULER_H
#define PINTLE_CLIENTS_SCHEDULER_SCHEDULER_H

int cmd_scheduler(int argc, char **argv);

#endif
