/* Fan-out: --watchers of one key on --streams streams, while --clients put it as fast as they can or at --rate. Counts events that
 * arrived; the latency is from the put being sent to the event being read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "bench/bench_int.h"

#define DRAIN_MS 5000

struct watch_stream {
    struct grpc_client_call call;
    struct bench *b;
    size_t created;
};

struct putter {
    struct grpc_client_call call;
    struct bench *b;
    struct h2_client *connection;
};

static struct watch_stream *streams;
static struct putter *putters;
static size_t created, active;
static uint64_t puts_started, puts_done, deadline_ns;
static uv_timer_t timer;
static bool writing, all_created;

/* Events in a WatchResponse: field 11; the time a put was sent stands at the front of its value. */
static void count_events(struct watch_stream *s, struct slice message)
{
    struct pb_field v, ev, kv;
    uint64_t now = clock_mono_ns(), sent = 0;
    while (pb_next(&message, &v) == 1) {
        if (v.number == 3 && v.value) {
            s->created++;
            created++;
        }
        if (v.number != 11) continue;
        s->b->done++;
        if (s->b->done % 16) continue; /* one in sixteen is timed: parsing must not be what is measured */
        while (pb_next(&v.bytes, &ev) == 1) {
            if (ev.number != 2) continue;
            while (pb_next(&ev.bytes, &kv) == 1)
                if (kv.number == 5 && kv.bytes.len >= 20) sent = strtoull((const char *)kv.bytes.data, NULL, 10);
        }
        if (sent && sent < now) histogram_add(&s->b->latency, now - sent);
    }
}

static void on_message(struct grpc_client_call *call, struct slice message)
{
    count_events(call->data, message);
    if (created == (size_t)((struct watch_stream *)call->data)->b->watchers) all_created = true;
}

static void on_stream_done(struct grpc_client_call *call, int status, const char *text)
{
    struct watch_stream *s = call->data;
    if (!s->b->finished) bench_error(s->b, status, text);
}

static int open_streams(struct bench *b)
{
    for (int64_t i = 0; i < b->streams; i++) {
        struct watch_stream *s = &streams[i];
        s->b = b;
        s->call = (struct grpc_client_call){.message = on_message, .done = on_stream_done, .data = s};
        for (int64_t w = i; w < b->watchers; w += b->streams) {
            struct buf create = {0}, r = {0};
            pb_bytes(&create, 1, SLICE_LIT("bench-watched"));
            pb_message(&r, 1, buf_slice(&create));
            int rv = w == i ? grpc_client_start(&s->call, bench_connect(b, (size_t)(i % b->conns)), "/etcdserverpb.Watch/Watch", buf_slice(&r), true, 0)
                            : grpc_client_send(&s->call, buf_slice(&r));
            buf_release(&create);
            buf_release(&r);
            if (rv != 0) return -1;
        }
    }
    uint64_t until = clock_mono_ms() + 60000;
    while (!all_created && !b->errors && clock_mono_ms() < until) uv_run(&b->loop, UV_RUN_ONCE);
    return all_created ? 0 : -1;
}

static void put(struct putter *p);

static void on_put(struct grpc_client_call *call, int status, const char *text)
{
    struct putter *p = call->data;
    if (status != 0) bench_error(p->b, status, text);
    else puts_done++;
    active--;
    if (!p->b->rate && writing) put(p);
}

static void put(struct putter *p)
{
    struct bench *b = p->b;
    struct buf r = {0}, value = {0};
    if (b->duration_ms ? clock_mono_ns() >= deadline_ns : puts_started >= (uint64_t)b->total) {
        writing = false;
        return;
    }
    buf_printf(&value, "%019llu ", (unsigned long long)clock_mono_ns());
    buf_append_slice(&value, slice_sub(bench_value(b), 0, b->value_size > 20 ? (size_t)b->value_size - 20 : 0));
    pb_bytes(&r, 1, SLICE_LIT("bench-watched"));
    pb_bytes(&r, 2, buf_slice(&value));
    puts_started++;
    active++;
    if (grpc_client_start(&p->call, p->connection, "/etcdserverpb.KV/Put", buf_slice(&r), false, 30000) != 0) active--;
    buf_release(&r);
    buf_release(&value);
}

/* At a rate: the next free putter sends. */
static void on_timer(uv_timer_t *t)
{
    static uint64_t due;
    struct bench *b = t->data;
    uint64_t now = clock_mono_ns();
    if (!b->rate) { /* it keeps the loop turning, and ends it when no putter could go on */
        if (active == 0) writing = false;
        return;
    }
    if (!due) due = now;
    while (writing && due <= now) {
        for (int64_t i = 0; i < b->clients; i++)
            if (!putters[i].call.stream) {
                put(&putters[i]);
                break;
            }
        due += 1000000000u / (uint64_t)b->rate;
    }
}

int bench_watch(struct bench *b)
{
    int rv = 0;
    b->unit = "events";
    streams = mem_must_calloc((size_t)b->streams, sizeof(*streams));
    putters = mem_must_calloc((size_t)b->clients, sizeof(*putters));
    if (open_streams(b) != 0) {
        fprintf(stderr, "the watchers could not be made: %s\n", b->first_error);
        rv = -1;
        goto out;
    }
    bench_begin(b);
    deadline_ns = b->began_ns + b->duration_ms * 1000000;
    writing = true;
    for (int64_t i = 0; i < b->clients; i++) {
        putters[i] = (struct putter){.b = b, .connection = bench_connect(b, (size_t)(i % b->conns)), .call = {.done = on_put, .data = &putters[i]}};
        if (!b->rate) put(&putters[i]);
    }
    uv_timer_init(&b->loop, &timer);
    timer.data = b;
    uv_timer_start(&timer, on_timer, 1, b->rate ? 1 : 100);
    while (writing || active) uv_run(&b->loop, UV_RUN_ONCE);
    uint64_t until = clock_mono_ms() + DRAIN_MS, want = puts_done * (uint64_t)b->watchers;
    while (b->done < want && clock_mono_ms() < until) uv_run(&b->loop, UV_RUN_ONCE);
    bench_end(b);
    if (b->done != want) {
        snprintf(b->first_error, sizeof(b->first_error), "%llu of %llu events arrived", (unsigned long long)b->done, (unsigned long long)want);
        b->errors++;
    }
    uv_close((uv_handle_t *)&timer, NULL);
out:
    b->finished = true;
    for (int64_t i = 0; i < b->streams; i++) grpc_client_cancel(&streams[i].call);
    for (int64_t i = 0; i < b->clients; i++) grpc_client_cancel(&putters[i].call);
    uv_run(&b->loop, UV_RUN_NOWAIT);
    mem_free(streams);
    mem_free(putters);
    return rv;
}
