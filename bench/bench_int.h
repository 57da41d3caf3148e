/* What the files of bench share. bench.c: flags, connections, the report; load.c: closed loops of unary calls; watch.c: fan-out;
 * cpu.c: what the servers used. One thread. */
#ifndef PINTLE_BENCH_BENCH_INT_H
#define PINTLE_BENCH_BENCH_INT_H

#include <uv.h>

#include "base/arena.h"
#include "clients/lib/grpc.h"
#include "clients/lib/pbjson.h"

#define BENCH_ENDPOINTS_MAX 32
#define BENCH_PIDS_MAX 64

/* Latencies: 64 steps to each power of two of nanoseconds. */
#define HISTOGRAM_STEPS 64
#define HISTOGRAM_BUCKETS (40 * HISTOGRAM_STEPS)

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
};

void histogram_add(struct histogram *h, uint64_t ns);
uint64_t histogram_at(const struct histogram *h, double quantile); /* nanoseconds */

struct bench {
    uv_loop_t loop;
    struct arena arena;
    const char *row;
    /* flags */
    const char *endpoint_list, *cacert, *cert, *key, *output, *durability, *consistency, *pids;
    int64_t clients, conns, total, key_size, value_size, key_space, limit, ops, watchers, streams, rate, seed;
    uint64_t duration_ms;
    bool leader_only;
    /* */
    const char *endpoints[BENCH_ENDPOINTS_MAX];
    size_t n_endpoints;
    struct h2_client **connections;
    int server_pids[BENCH_PIDS_MAX];
    size_t n_server_pids;
    /* results */
    struct histogram latency;
    uint64_t done, errors, began_ns, ended_ns, cpu_us, client_cpu_us;
    const char *unit;
    char first_error[200];
    bool finished;
};

struct h2_client *bench_connect(struct bench *b, size_t i);
void bench_error(struct bench *b, int status, const char *text);
/* Starts and ends the measured time. */
void bench_begin(struct bench *b);
void bench_end(struct bench *b);
void bench_key(struct bench *b, struct buf *out, uint64_t n);
struct slice bench_value(struct bench *b);
/* A unary call that is waited for. 0 or -1 (counted as an error). */
int bench_call(struct bench *b, const char *method, const struct buf *request);
int bench_run_until_finished(struct bench *b);

int bench_load(struct bench *b);  /* put, range, txn, lease */
int bench_watch(struct bench *b);

/* Processes that listen on the local ports of the endpoints. */
size_t cpu_find_servers(const struct bench *b, int *pids, size_t max);
uint64_t cpu_used_us(const int *pids, size_t n);
/* Resident bytes of all. */
uint64_t cpu_rss(const int *pids, size_t n);

#endif
