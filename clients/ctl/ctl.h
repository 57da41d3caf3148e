/* `pintle ctl`: the etcd API from the command line, in etcdctl's words: commands, flags, output of -w simple and -w json. */
#ifndef PINTLE_CLIENTS_CTL_CTL_H
#define PINTLE_CLIENTS_CTL_CTL_H

int cmd_ctl(int argc, char **argv);

#endif
