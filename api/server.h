/* `pintle server`: one member. Owns the threads: the core's, and one for each worker. */
#ifndef PINTLE_API_SERVER_H
#define PINTLE_API_SERVER_H

int cmd_server(int argc, char **argv);

#endif
