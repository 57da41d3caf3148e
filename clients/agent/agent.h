/* `pintle agent`: one node, or many hollow ones, over the wire only. See docs/clients.md. */
#ifndef PINTLE_CLIENTS_AGENT_AGENT_H
#define PINTLE_CLIENTS_AGENT_AGENT_H

int cmd_agent(int argc, char **argv);

#endif
