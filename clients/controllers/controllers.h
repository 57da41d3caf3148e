/* `pintle controllers`: what keeps the objects in step with each other, over the wire only. See
 * docs/clients.md. */
#ifndef PINTLE_CLIENTS_CONTROLLERS_CONTROLLERS_H
#define PINTLE_CLIENTS_CONTROLLERS_CONTROLLERS_H

int cmd_controllers(int argc, char **argv);

#endif
