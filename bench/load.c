/* Closed loops: each of --clients has one request under way at a time, spread over --conns connections. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_int.h"

struct loop_client {
    struct grpc_client_call call;
    struct bench *b;
    struct h2_client *connection;
    struct buf request;
    uint64_t sent_ns;
};

static uint64_t random_next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* The requests are spread evenly over the key space by a fixed sequence, so that both sides of a comparison get the same. */
static uint64_t next_key(struct bench *b)
{
    static uint64_t state;
    if (!state) state = 0x9e3779b97f4a7c15u ^ (uint64_t)b->seed;
    return random_next(&state) % (uint64_t)b->key_space;
}

static void encode_put(struct bench *b, struct buf *out)
{
    struct buf key = {0};
    bench_key(b, &key, next_key(b));
    pb_bytes(out, 1, buf_slice(&key));
    pb_bytes(out, 2, bench_value(b));
    buf_release(&key);
}

static void encode_range(struct bench *b, struct buf *out)
{
    struct buf key = {0};
    bench_key(b, &key, b->limit ? 0 : next_key(b));
    pb_bytes(out, 1, buf_slice(&key));
    if (b->limit) {
        pb_bytes(out, 2, slice_make("", 1));
        pb_uint(out, 3, (uint64_t)b->limit);
    }
    pb_bool(out, 7, !strcmp(b->consistency, "s"));
    buf_release(&key);
}

static void encode_txn(struct bench *b, struct buf *out)
{
    for (int64_t i = 0; i < b->ops; i++) {
        struct buf put = {0}, op = {0}, key = {0};
        bench_key(b, &key, (next_key(b) + (uint64_t)i) % (uint64_t)b->key_space);
        buf_printf(&key, "-%lld", (long long)i);
        pb_bytes(&put, 1, buf_slice(&key));
        pb_bytes(&put, 2, bench_value(b));
        pb_message(&op, 2, buf_slice(&put));
        pb_message(out, 2, buf_slice(&op));
        buf_release(&put);
        buf_release(&op);
        buf_release(&key);
    }
}

static void encode_lease(struct bench *b, struct buf *out)
{
    (void)b;
    pb_uint(out, 1, 600);
}

static const struct {
    const char *row, *method, *unit;
    void (*encode)(struct bench *b, struct buf *out);
} kinds[] = {{"put", "/etcdserverpb.KV/Put", "puts", encode_put},
             {"range", "/etcdserverpb.KV/Range", "reads", encode_range},
             {"txn", "/etcdserverpb.KV/Txn", "txns", encode_txn},
             {"lease", "/etcdserverpb.Lease/LeaseGrant", "grants", encode_lease}};

static size_t kind;
static uint64_t started, deadline_ns;
static size_t active;

static bool more(const struct bench *b)
{
    if (b->duration_ms) return clock_mono_ns() < deadline_ns;
    return started < (uint64_t)b->total;
}

static void next(struct loop_client *c)
{
    if (!more(c->b)) {
        if (--active == 0) bench_end(c->b);
        return;
    }
    started++;
    buf_clear(&c->request);
    kinds[kind].encode(c->b, &c->request);
    c->sent_ns = clock_mono_ns();
    if (grpc_client_start(&c->call, c->connection, kinds[kind].method, buf_slice(&c->request), false, 30000) == 0) return;
    bench_error(c->b, -1, "the request could not be sent");
    if (--active == 0) bench_end(c->b);
}

static void on_done(struct grpc_client_call *call, int status, const char *text)
{
    struct loop_client *c = call->data;
    if (status == 0) {
        histogram_add(&c->b->latency, clock_mono_ns() - c->sent_ns);
        c->b->done++;
    } else {
        bench_error(c->b, status, text);
    }
    next(c);
}

/* Reads need something to read: the key space is written first, not measured. */
static int fill(struct bench *b)
{
    struct buf request = {0};
    int rv = 0;
    for (int64_t i = 0; rv == 0 && i < b->key_space; i += 100) {
        buf_clear(&request);
        for (int64_t k = i; k < i + 100 && k < b->key_space; k++) {
            struct buf put = {0}, op = {0}, key = {0};
            bench_key(b, &key, (uint64_t)k);
            pb_bytes(&put, 1, buf_slice(&key));
            pb_bytes(&put, 2, bench_value(b));
            pb_message(&op, 2, buf_slice(&put));
            pb_message(&request, 2, buf_slice(&op));
            buf_release(&put);
            buf_release(&op);
            buf_release(&key);
        }
        rv = bench_call(b, "/etcdserverpb.KV/Txn", &request);
    }
    buf_release(&request);
    return rv;
}

int bench_load(struct bench *b)
{
    for (kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
        if (!strcmp(b->row, kinds[kind].row)) break;
    b->unit = kinds[kind].unit;
    struct loop_client *clients = mem_must_calloc((size_t)b->clients, sizeof(*clients));
    if (!strcmp(b->row, "range") && fill(b) != 0) {
        mem_free(clients);
        return -1;
    }
    active = (size_t)b->clients;
    bench_begin(b);
    deadline_ns = b->began_ns + b->duration_ms * 1000000;
    for (size_t i = 0; i < (size_t)b->clients; i++) {
        struct loop_client *c = &clients[i];
        c->b = b;
        c->call = (struct grpc_client_call){.done = on_done, .data = c};
        c->connection = bench_connect(b, i % (size_t)b->conns);
        if (!c->connection) active--;
        else next(c);
    }
    int rv = bench_run_until_finished(b);
    for (size_t i = 0; i < (size_t)b->clients; i++) {
        grpc_client_cancel(&clients[i].call);
        buf_release(&clients[i].request);
    }
    mem_free(clients);
    return rv;
}
