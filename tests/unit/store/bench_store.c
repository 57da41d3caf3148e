/* What the store costs by itself: bench_store [keys]. Not part of make test. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "store/store_int.h"

static char value[256];
static int n_keys = 1000000;
static uint64_t began;

static void start(void)
{
    began = clock_cpu_us();
}

static void report(const char *what, double per)
{
    printf("%-44s %10.3f us\n", what, (double)(clock_cpu_us() - began) / per);
}

static struct slice key_of(char *text, int i)
{
    return slice_make(
        text, (size_t)sprintf(text, "/registry/pods/default/pod-%08x", (unsigned)i * 2654435761u));
}

static void apply(struct store *s, const struct command *c)
{
    static struct arena a;
    struct result r;
    store_apply(s, c, &a, &r);
    CHECK(r.code == 0);
    result_release(&r);
    arena_reset(&a);
}

static void put_all(struct store *s)
{
    char text[64];
    for (int i = 0; i < n_keys; i++) {
        struct slice key = key_of(text, i);
        apply(s, &(struct command){
                     COMMAND_OP,
                     .op = {OP_PUT, .put = {.key = key, .value = slice_make(value, 256)}}});
        if (i % 100 == 99) event_batch_unref(store_take_events(s));
    }
    event_batch_unref(store_take_events(s));
}

static void memory(const char *what, uint64_t before, const struct store *s)
{
    double each = (double)(mem_rss() - before) / n_keys - 256 - 35;
    printf("%-44s %10.1f bytes a key beside key and value (index %.1f)\n", what, each,
           (double)s->index.bytes / n_keys);
}

static void read_all(struct store *s)
{
    struct arena a = {0};
    struct range_result r;
    char text[64];
    start();
    for (int i = 0; i < n_keys; i++) {
        CHECK(store_range(s, &(struct range_op){.key = key_of(text, i)}, &a, &r) == 0 && r.n == 1);
        record_unref(r.records[0]);
        arena_reset(&a);
    }
    report("get", n_keys);
    start();
    for (int i = 0; i < 100000; i++) {
        struct range_op op = {
            .key = key_of(text, i), .range_end = SLICE_LIT("0"), .count_only = true};
        CHECK(store_range(s, &op, &a, &r) == 0);
    }
    report("count", 100000);
    struct range_op op = {.key = SLICE_LIT("/registry/pods/"),
                          .range_end = SLICE_LIT("/registry/pods0"),
                          .limit = 10000};
    for (int i = 0; i < 2; i++) {
        start();
        for (int k = 0; k < 50; k++) {
            CHECK(store_range(s, &op, &a, &r) == 0);
            for (size_t j = 0; j < r.n; j++) record_unref(r.records[j]);
            arena_reset(&a);
        }
        report(i ? "list of 10,000, at an older revision" : "list of 10,000", 50);
        op.revision = store_revision(s) - 1000;
    }
    arena_release(&a);
}

static struct buf save(struct store *s)
{
    struct buf out = {0};
    struct store_snapshot *snap = store_snapshot_open(s);
    start();
    for (bool done = false; !done;) CHECK(store_snapshot_next(snap, 1 << 20, &out, &done) == 0);
    report("snapshot, all of it", 1);
    store_snapshot_close(snap);
    return out;
}

static struct store *load(struct slice stream)
{
    struct store *s;
    struct store_loader *l = store_loader_new(NULL);
    start();
    for (size_t at = 0; at < stream.len; at += 1 << 20)
        CHECK(store_loader_feed(l, slice_sub(stream, at, 1 << 20), NULL) == 0);
    CHECK(store_loader_finish(l, &s, NULL) == 0);
    report("load, all of it", 1);
    store_loader_free(l);
    return s;
}

int main(int argc, char **argv)
{
    if (argc > 1) n_keys = atoi(argv[1]);
    if (n_keys < 10000) n_keys = 10000;
    memset(value, 'x', sizeof(value));
    struct store *s = store_new(NULL);
    uint64_t before = mem_rss();
    start();
    put_all(s);
    report("put of a new key", n_keys);
    memory("memory", before, s);
    start();
    put_all(s);
    report("put of an old key", n_keys);
    start();
    apply(s, &(struct command){COMMAND_COMPACT, .compact.revision = store_revision(s)});
    report("compaction, the command", 1);
    start();
    uint64_t slowest = 0;
    for (bool more = true; more;) {
        uint64_t t = clock_mono_us();
        more = store_work(s, 1000);
        t = clock_mono_us() - t;
        if (t > slowest) slowest = t;
    }
    report("compaction, freeing a version", n_keys);
    printf("%-44s %10llu us\n", "slowest slice of 1,000", (unsigned long long)slowest);
    memory("memory", before, s);
    put_all(s);
    read_all(s);
    apply(s, &(struct command){COMMAND_COMPACT, .compact.revision = store_revision(s) - 1000});
    while (store_work(s, 1000)) {
    }
    struct buf stream = save(s);
    store_free(s);
    before = mem_rss();
    s = load(buf_slice(&stream));
    memory("memory after a load", before, s);
    buf_release(&stream);
    struct store_hash *h;
    CHECK(store_hash_open(s, 0, &h) == 0);
    start();
    while (!store_hash_step(h, 1000)) {
    }
    report("hash, all of it", 1);
    store_hash_close(h);
    struct store_check *c = store_check_open(s);
    uint64_t steps = 1;
    start();
    for (; !store_check_step(c, 256 * LIMIT_KiB); steps++) {
    }
    report("check of the state, a step of 256 KiB", (double)steps);
    printf("%llu steps\n", (unsigned long long)steps);
    store_check_close(c);
    store_free(s);
}
