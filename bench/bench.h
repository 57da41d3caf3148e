/* `pintle bench`: load on any etcd v3 endpoint, and what it cost. */
#ifndef PINTLE_BENCH_BENCH_H
#define PINTLE_BENCH_BENCH_H

int cmd_bench(int argc, char **argv);

#endif
