/* Flags, connections, the report. */
#include "bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/flags.h"
#include "base/log.h"
#include "base/mem.h"
#include "bench/bench_int.h"

/* ---- histogram ---------------------------------------------------------------------------------------- */

void histogram_add(struct histogram *h, uint64_t ns)
{
    unsigned power = ns < HISTOGRAM_STEPS ? 0 : 63u - (unsigned)__builtin_clzll(ns) - 5u;
    size_t i = power ? (size_t)power * HISTOGRAM_STEPS / 2 + (ns >> power) : ns;
    h->counts[i < HISTOGRAM_BUCKETS ? i : HISTOGRAM_BUCKETS - 1]++;
    h->total++;
}

uint64_t histogram_at(const struct histogram *h, double quantile)
{
    uint64_t want = (uint64_t)((double)h->total * quantile), seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen <= want || !h->counts[i]) continue;
        if (i < HISTOGRAM_STEPS) return i;
        size_t power = (i - HISTOGRAM_STEPS / 2) / (HISTOGRAM_STEPS / 2);
        return (i - power * HISTOGRAM_STEPS / 2) << power;
    }
    return 0;
}

/* ---- shared ---------------------------------------------------------------------------------------------- */

struct h2_client *bench_connect(struct bench *b, size_t i)
{
    if (b->connections[i]) return b->connections[i];
    struct h2_tls_options tls = {.ca_file = b->cacert, .cert_file = b->cert, .key_file = b->key};
    struct h2_client_options o = {.endpoints = &b->endpoints[i % b->n_endpoints], .n_endpoints = 1, .tls = &tls, .user_agent = "pintle-bench"};
    struct err e = {0};
    if (h2_client_new(&b->loop, &o, &b->connections[i], &e) != 0) bench_error(b, -1, e.text);
    return b->connections[i];
}

void bench_error(struct bench *b, int status, const char *text)
{
    if (!b->errors++) snprintf(b->first_error, sizeof(b->first_error), "%s: %s", grpc_status_name(status), text);
}

void bench_begin(struct bench *b)
{
    b->cpu_us = cpu_used_us(b->server_pids, b->n_server_pids);
    b->client_cpu_us = clock_cpu_us();
    b->began_ns = clock_mono_ns();
}

void bench_end(struct bench *b)
{
    b->ended_ns = clock_mono_ns();
    b->cpu_us = cpu_used_us(b->server_pids, b->n_server_pids) - b->cpu_us;
    b->client_cpu_us = clock_cpu_us() - b->client_cpu_us;
    b->finished = true;
}

void bench_key(struct bench *b, struct buf *out, uint64_t n)
{
    buf_printf(out, "bench/%0*llu", b->key_size > 7 ? (int)b->key_size - 6 : 1, (unsigned long long)n);
}

struct slice bench_value(struct bench *b)
{
    static uint8_t *bytes;
    if (!bytes) {
        uint64_t x = 88172645463325252u;
        bytes = mem_must_alloc((size_t)b->value_size + 1);
        for (int64_t i = 0; i < b->value_size; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            bytes[i] = (uint8_t)(' ' + x % 95);
        }
    }
    return slice_make(bytes, (size_t)b->value_size);
}

struct one_call {
    struct grpc_client_call call;
    struct bench *b;
    int status;
    bool done;
};

static void on_one_done(struct grpc_client_call *call, int status, const char *text)
{
    struct one_call *o = call->data;
    if (status != 0) bench_error(o->b, status, text);
    o->status = status;
    o->done = true;
}

int bench_call(struct bench *b, const char *method, const struct buf *request)
{
    struct one_call o = {.b = b, .call = {.done = on_one_done}};
    o.call.data = &o;
    struct h2_client *c = bench_connect(b, 0);
    if (!c || grpc_client_start(&o.call, c, method, buf_slice(request), false, 30000) != 0) return -1;
    while (!o.done) uv_run(&b->loop, UV_RUN_ONCE);
    return o.status ? -1 : 0;
}

int bench_run_until_finished(struct bench *b)
{
    while (!b->finished && uv_run(&b->loop, UV_RUN_ONCE)) continue;
    return b->finished ? 0 : -1;
}

/* ---- the report --------------------------------------------------------------------------------------------- */

/* So that it can stand in a JSON string. */
static void make_plain(char *text)
{
    for (; *text; text++)
        if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ') *text = '\'';
}

static void report(struct bench *b)
{
    double s = (double)(b->ended_ns - b->began_ns) / 1e9, rate = s > 0 ? (double)b->done / s : 0;
    double cpu = b->done && b->n_server_pids ? (double)b->cpu_us / (double)b->done : -1;
    double p50 = (double)histogram_at(&b->latency, 0.5) / 1e6, p99 = (double)histogram_at(&b->latency, 0.99) / 1e6;
    double rss = (double)cpu_rss(b->server_pids, b->n_server_pids) / 1e6;
    if (!strcmp(b->output, "json")) {
        char durability[200];
        snprintf(durability, sizeof(durability), "%s", b->durability);
        make_plain(durability);
        make_plain(b->first_error);
        printf("{\"row\":\"%s\",\"unit\":\"%s\",\"clients\":%lld,\"connections\":%lld,\"done\":%llu,\"errors\":%llu,\"seconds\":%.3f,\"rate\":%.1f,"
               "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"server_cpu_us_per_op\":%.3f,\"client_cpu_us_per_op\":%.3f,\"servers\":%zu,\"server_rss_mb\":%.1f,"
               "\"durability\":\"%s\",\"first_error\":\"%s\"}\n",
               b->row, b->unit, (long long)b->clients, (long long)b->conns, (unsigned long long)b->done, (unsigned long long)b->errors, s, rate, p50, p99,
               cpu, b->done ? (double)b->client_cpu_us / (double)b->done : 0, b->n_server_pids, rss, durability, b->first_error);
        return;
    }
    char cpu_text[32] = "-";
    if (cpu >= 0) snprintf(cpu_text, sizeof(cpu_text), "%.2f us", cpu);
    printf("%-8s %-8s %-7s %12s %10s %10s %14s %9s %8s %s\n", "ROW", "CLIENTS", "CONNS", "RATE/s", "P50 ms", "P99 ms", "SERVER CPU/op", "RSS MB", "ERRORS", "DURABILITY");
    printf("%-8s %-8lld %-7lld %12.0f %10.3f %10.3f %14s %9.1f %8llu %s\n", b->row, (long long)b->clients, (long long)b->conns, rate, p50, p99, cpu_text, rss,
           (unsigned long long)b->errors, b->durability);
    if (b->errors) printf("first error: %s\n", b->first_error);
}

/* ---- flags ------------------------------------------------------------------------------------------------------ */

static const char usage_text[] = "pintle bench: load on any etcd v3 endpoint, and what it cost\n\n"
                                 "Usage:\n  pintle bench put|range|txn|lease|watch --endpoints LIST [flags]\n\n"
                                 "Prints rate, latency, and the CPU time of the servers per operation (all that listen on the endpoints, if they are\n"
                                 "on this machine).";

static int parse(struct bench *b, int argc, char **argv)
{
    const struct flag flags[] = {
        {"endpoints", FLAG_STRING, &b->endpoint_list, "LIST", "client URLs, separated by commas; connections go round them"},
        {"cacert", FLAG_STRING, &b->cacert, "FILE", "CA of the servers' certificates"},
        {"cert", FLAG_STRING, &b->cert, "FILE", "client certificate"},
        {"key", FLAG_STRING, &b->key, "FILE", "its key"},
        {"clients", FLAG_INT, &b->clients, "N", "requests under way at a time"},
        {"conns", FLAG_INT, &b->conns, "N", "connections"},
        {"total", FLAG_INT, &b->total, "N", "requests in all"},
        {"duration", FLAG_DURATION_MS, &b->duration_ms, "D", "run so long instead of --total"},
        {"key-size", FLAG_INT, &b->key_size, "BYTES", "of keys"},
        {"val-size", FLAG_INT, &b->value_size, "BYTES", "of values"},
        {"key-space-size", FLAG_INT, &b->key_space, "N", "different keys"},
        {"limit", FLAG_INT, &b->limit, "N", "range: read so many keys at a time"},
        {"consistency", FLAG_STRING, &b->consistency, "l|s", "range: linearizable or serializable"},
        {"txn-ops", FLAG_INT, &b->ops, "N", "txn: puts in each"},
        {"watchers", FLAG_INT, &b->watchers, "N", "watch: watchers of one key"},
        {"streams", FLAG_INT, &b->streams, "N", "watch: streams that carry them"},
        {"rate", FLAG_INT, &b->rate, "N", "watch: puts per second; 0 = as fast as the clients can"},
        {"seed", FLAG_INT, &b->seed, "N", "of the sequence of keys"},
        {"pids", FLAG_STRING, &b->pids, "LIST", "server processes to charge, instead of those found by port"},
        {"durability", FLAG_STRING, &b->durability, "TEXT", "what to print as the servers' durability mode"},
        {"output,o", FLAG_STRING, &b->output, "FORMAT", "table or json"},
        {0}};
    struct err e = {0};
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED) return flags_help(stdout, usage_text, flags), 1;
    if (rv == 0 && argc != 2) rv = err_set(&e, ERR_INVALID, "say what to measure: put, range, txn, lease or watch (see --help)");
    if (rv == 0) {
        static const char *const rows[] = {"put", "range", "txn", "lease", "watch"};
        b->row = argv[1];
        rv = err_set(&e, ERR_INVALID, "unknown row \"%s\": use put, range, txn, lease or watch", b->row);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
            if (!strcmp(rows[i], b->row)) rv = 0;
    }
    if (rv == 0 && (b->clients < 1 || b->conns < 1 || b->total < 1 || b->key_space < 1 || b->value_size < 0 || b->streams < 1 || b->watchers < 1 || b->rate < 0 || b->ops < 1))
        rv = err_set(&e, ERR_INVALID, "counts and sizes must be positive");
    if (rv != 0) return fprintf(stderr, "pintle bench: %s\n", e.text), 2;
    if (b->conns > b->clients && strcmp(b->row, "watch")) b->conns = b->clients;
    if (b->streams > b->watchers) b->streams = b->watchers;
    return 0;
}

static void split_lists(struct bench *b)
{
    char *save = NULL, *list = (char *)arena_strdup(&b->arena, slice_str(b->endpoint_list));
    for (char *item = strtok_r(list, ",", &save); item && b->n_endpoints < BENCH_ENDPOINTS_MAX; item = strtok_r(NULL, ",", &save))
        b->endpoints[b->n_endpoints++] = strstr(item, "://") ? item : arena_printf(&b->arena, "%s://%s", b->cacert ? "https" : "http", item);
    if (!b->pids) {
        b->n_server_pids = cpu_find_servers(b, b->server_pids, BENCH_PIDS_MAX);
        return;
    }
    list = (char *)arena_strdup(&b->arena, slice_str(b->pids));
    for (char *item = strtok_r(list, ",", &save); item && b->n_server_pids < BENCH_PIDS_MAX; item = strtok_r(NULL, ",", &save))
        b->server_pids[b->n_server_pids++] = atoi(item);
}

int cmd_bench(int argc, char **argv)
{
    static struct bench b;
    b = (struct bench){.endpoint_list = "http://127.0.0.1:2379", .output = "table", .durability = "fsync (server default)", .consistency = "l",
                       .clients = 1000, .conns = 100, .total = 100000, .key_size = 16, .value_size = 256, .key_space = 10000, .ops = 1,
                       .watchers = 1000, .streams = 10, .unit = ""};
    log_set_name("bench");
    int rv = parse(&b, argc, argv);
    if (rv != 0) return rv == 1 ? 0 : rv;
    split_lists(&b);
    if (!b.n_endpoints) return fprintf(stderr, "pintle bench: no endpoints given\n"), 2;
    uv_loop_init(&b.loop);
    b.connections = mem_must_calloc((size_t)b.conns, sizeof(*b.connections));
    rv = strcmp(b.row, "watch") ? bench_load(&b) : bench_watch(&b);
    if (rv == 0) report(&b);
    else fprintf(stderr, "pintle bench: %s\n", b.first_error[0] ? b.first_error : "failed");
    for (int64_t i = 0; i < b.conns; i++)
        if (b.connections[i]) h2_client_close(b.connections[i], NULL, NULL);
    uv_run(&b.loop, UV_RUN_DEFAULT);
    uv_loop_close(&b.loop);
    mem_free(b.connections);
    arena_release(&b.arena);
    return rv || !b.done ? 1 : 0;
}
