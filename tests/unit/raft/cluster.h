/* Members of a consensus in the simulated world, each with a state machine that is a list of what
 * was applied. For the tests of raft/; header only, because each test is one program. */
#ifndef PINTLE_TESTS_UNIT_RAFT_CLUSTER_H
#define PINTLE_TESTS_UNIT_RAFT_CLUSTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/mem.h"
#include "raft/consensus.h"
#include "tests/sim/env_sim.h"

#define CLUSTER_MAX 5
#define SECOND 1000000u
#define UNUSED __attribute__((unused))

struct applied {
    uint64_t index, value;
};

struct node_restore {
    struct buf bytes;
};

struct node_snapshot {
    struct applied *log;
    size_t n, at;
};

struct node {
    struct cluster *cluster;
    uint64_t id;
    struct env *env;
    struct consensus *c;
    struct applied *log; /* the state machine */
    size_t n, size;
    bool fatal, closed;
    int fatal_error;
    char fatal_text[400];
    uint64_t leader, term;
    bool leads;
    uint64_t own_tag, failed_tag, writable, messages, last_message, memberships;
    int failed_error;
    unsigned restores, opened_snapshots;
    unsigned crash_nth; /* its next life ends at that operation of the disk */
    enum sim_crash_mode crash_mode;
    size_t padding; /* bytes added to each entry of a snapshot, to make it large */
};

struct cluster {
    struct sim *sim;
    unsigned n;
    struct node nodes[CLUSTER_MAX + 1];
    struct consensus_config config;
    struct consensus_member members[CLUSTER_MAX];
    char urls[CLUSTER_MAX][32], names[CLUSTER_MAX][16];
    size_t pad;
};

static void node_apply(void *ctx, uint64_t index, uint64_t term, struct slice entry,
                       uint64_t own_tag)
{
    struct node *n = ctx;
    (void)term;
    uint64_t value = 0;
    assert_true(entry.len >= sizeof value);
    memcpy(&value, entry.data, sizeof value);
    if (n->n == n->size) {
        n->size = n->size ? 2 * n->size : 64;
        n->log = mem_must_realloc(n->log, n->size * sizeof *n->log);
    }
    if (n->n) assert_true(n->log[n->n - 1].index < index);
    n->log[n->n++] = (struct applied){index, value};
    if (own_tag) n->own_tag = own_tag;
}

static void node_failed(void *ctx, uint64_t tag, int error)
{
    struct node *n = ctx;
    n->failed_tag = tag;
    n->failed_error = error;
}

static void node_writable(void *ctx)
{
    ((struct node *)ctx)->writable++;
}

static void node_leader(void *ctx, uint64_t leader, uint64_t term, bool self)
{
    struct node *n = ctx;
    n->leader = leader;
    n->term = term;
    n->leads = self;
}

static void node_members(void *ctx)
{
    ((struct node *)ctx)->memberships++;
}

static int node_snapshot_open(void *ctx, void **ret)
{
    struct node *n = ctx;
    struct node_snapshot *s = mem_must_calloc(1, sizeof *s);
    s->n = n->n;
    s->log = mem_must_alloc((n->n + 1) * sizeof *s->log);
    if (n->n) memcpy(s->log, n->log, n->n * sizeof *s->log);
    n->opened_snapshots++;
    *ret = s;
    return 0;
}

static int node_snapshot_next(void *ctx, void *snapshot, size_t max, struct buf *out, bool *done)
{
    struct node *n = ctx;
    struct node_snapshot *s = snapshot;
    size_t start = out->len;
    while (s->at < s->n && out->len - start < max && !out->failed) {
        (void)buf_append_u64(out, s->log[s->at].index);
        (void)buf_append_u64(out, s->log[s->at].value);
        for (size_t i = 0; i < n->padding; i++)
            (void)buf_append_byte(out, (uint8_t)((s->at * 2654435761u + i * 40503u) >> 7));
        s->at++;
    }
    *done = s->at == s->n;
    return out->failed;
}

static void node_snapshot_close(void *ctx, void *snapshot)
{
    struct node *n = ctx;
    struct node_snapshot *s = snapshot;
    n->opened_snapshots--;
    mem_free(s->log);
    mem_free(s);
}

static int node_restore_begin(void *ctx, void **ret)
{
    (void)ctx;
    *ret = mem_must_calloc(1, sizeof(struct node_restore));
    return 0;
}

static int node_restore_feed(void *ctx, void *restore, struct slice piece, struct err *e)
{
    (void)ctx;
    int rv = buf_append_slice(&((struct node_restore *)restore)->bytes, piece);
    return rv ? err_set(e, rv, "%s", err_text(rv)) : 0;
}

static void node_restore_abort(void *ctx, void *restore)
{
    (void)ctx;
    buf_release(&((struct node_restore *)restore)->bytes);
    mem_free(restore);
}

static int node_restore_finish(void *ctx, void *restore, uint64_t index, struct err *e)
{
    struct node *n = ctx;
    struct node_restore *r = restore;
    (void)e;
    struct reader in = reader_make(buf_slice(&r->bytes));
    n->n = 0;
    while (reader_left(&in)) {
        struct slice unused;
        uint64_t at = reader_u64(&in), value = reader_u64(&in);
        unused = reader_bytes(&in, n->padding);
        (void)unused;
        assert_false(in.failed);
        assert_true(at <= index);
        if (n->n == n->size) {
            n->size = n->size ? 2 * n->size : 64;
            n->log = mem_must_realloc(n->log, n->size * sizeof *n->log);
        }
        n->log[n->n++] = (struct applied){at, value};
    }
    n->restores++;
    node_restore_abort(ctx, restore);
    return 0;
}

static void node_message(void *ctx, uint64_t from, struct slice payload)
{
    struct node *n = ctx;
    n->messages++;
    n->last_message = from * 1000 + payload.len;
}

static void node_fatal(void *ctx, int error, const char *text)
{
    struct node *n = ctx;
    n->fatal = true;
    n->fatal_error = error;
    snprintf(n->fatal_text, sizeof n->fatal_text, "%s", text);
}

static const struct consensus_callbacks node_callbacks = {
    .apply = node_apply,
    .proposal_failed = node_failed,
    .writable = node_writable,
    .leader_changed = node_leader,
    .membership_changed = node_members,
    .snapshot_open = node_snapshot_open,
    .snapshot_next = node_snapshot_next,
    .snapshot_close = node_snapshot_close,
    .restore_begin = node_restore_begin,
    .restore_feed = node_restore_feed,
    .restore_finish = node_restore_finish,
    .restore_abort = node_restore_abort,
    .message = node_message,
    .fatal = node_fatal,
};

/* ---- lives ----------------------------------------------------------------------------------- */

static int node_try_boot(struct cluster *k, uint64_t id, struct err *e)
{
    struct node *n = &k->nodes[id];
    size_t padding = n->padding;
    unsigned crash_nth = n->crash_nth;
    enum sim_crash_mode crash_mode = n->crash_mode;
    mem_free(n->log);
    *n = (struct node){.cluster = k, .id = id, .padding = padding};
    n->env = sim_boot(k->sim, id);
    if (crash_nth) sim_crash_after(k->sim, id, crash_mode, crash_nth);
    k->config.id = id;
    int rv = consensus_open(&k->config, n->env, &node_callbacks, n, &n->c, e);
    if (rv) {
        n->c = NULL;
        sim_release(n->env);
        n->env = NULL;
    }
    return rv;
}

static void node_boot(struct cluster *k, uint64_t id)
{
    struct err e = {{0}};
    int rv = node_try_boot(k, id, &e);
    if (rv) fail_msg("member %d does not open: %s", (int)id, e.text);
}

static void node_closed(void *ctx)
{
    ((struct node *)ctx)->closed = true;
}

static bool node_is_closed(void *arg)
{
    return ((struct node *)arg)->closed;
}

static void node_close(struct node *n)
{
    if (!n->c) return;
    n->closed = false;
    consensus_close(n->c, node_closed, n);
    assert_true(sim_run_until(n->cluster->sim, node_is_closed, n, 60 * SECOND));
    n->c = NULL;
    sim_release(n->env);
    n->env = NULL;
    assert_int_equal(n->opened_snapshots, 0);
}

UNUSED static struct consensus_status status_of(const struct node *n)
{
    struct consensus_status s;
    consensus_get_status(n->c, &s);
    return s;
}

UNUSED static bool is_fatal(void *arg)
{
    return ((struct node *)arg)->fatal;
}

UNUSED static bool is_whole(void *arg)
{
    const struct node *n = arg;
    return n->c && !n->fatal && !status_of(n).recovering && status_of(n).ready;
}

/* Starts it again as often as it asks for that. */
UNUSED static void keep_starting(struct cluster *k, struct node *n)
{
    for (int i = 0; i < 8 && !is_whole(n); i++) {
        if (!n->c) node_boot(k, n->id);
        sim_run_for(k->sim, 5 * SECOND);
        if (!n->fatal) continue;
        assert_int_equal(n->fatal_error, ERR_RESTART);
        node_close(n);
    }
    assert_true(is_whole(n));
}

UNUSED static void node_crash(struct node *n, enum sim_crash_mode mode)
{
    sim_crash(n->cluster->sim, n->id, mode);
    node_close(n);
}

UNUSED static void cluster_init(struct cluster *k, unsigned n, uint64_t seed)
{
    struct sim_options o;
    memset(k, 0, sizeof *k);
    sim_options_default(&o, seed, n);
    k->sim = sim_new(&o);
    k->n = n;
    for (unsigned i = 0; i < n; i++) {
        snprintf(k->urls[i], sizeof k->urls[i], "http://10.0.0.%u:2380", i + 1);
        snprintf(k->names[i], sizeof k->names[i], "n%u", i + 1);
        k->members[i] = (struct consensus_member){i + 1, k->names[i], k->urls[i], false};
    }
    k->config = (struct consensus_config){
        .cluster_id = 77, .members = k->members, .n_members = n, .new_cluster = true};
    k->config.segment_bytes = 256 * 1024;
}

UNUSED static void cluster_boot(struct cluster *k)
{
    for (unsigned i = 1; i <= k->n; i++) node_boot(k, i);
}

UNUSED static void cluster_start(struct cluster *k, unsigned n, uint64_t seed)
{
    cluster_init(k, n, seed);
    cluster_boot(k);
}

UNUSED static void cluster_stop(struct cluster *k)
{
    for (unsigned i = 1; i <= k->n; i++) {
        node_close(&k->nodes[i]);
        mem_free(k->nodes[i].log);
    }
    sim_free(k->sim);
}

/* ---- what happens ---------------------------------------------------------------------------- */

static struct node *cluster_leader(struct cluster *k)
{
    struct node *best = NULL;
    for (unsigned i = 1; i <= k->n; i++) {
        struct node *n = &k->nodes[i];
        if (n->c && n->leads && (!best || n->term > best->term)) best = n;
    }
    return best;
}

static bool has_leader(void *arg)
{
    return cluster_leader(arg) != NULL;
}

UNUSED static struct node *cluster_wait_leader(struct cluster *k)
{
    assert_true(sim_run_until(k->sim, has_leader, k, 30 * SECOND));
    return cluster_leader(k);
}

static int node_propose_sized(struct node *n, uint64_t value, uint64_t tag, size_t size)
{
    uint8_t *bytes = mem_must_calloc(1, size < 8 ? 8 : size);
    memcpy(bytes, &value, sizeof value);
    for (size_t i = 8; i < size; i++) bytes[i] = (uint8_t)(value + i * 131);
    int rv = consensus_propose(n->c, slice_make(bytes, size < 8 ? 8 : size), tag);
    mem_free(bytes);
    return rv;
}

UNUSED static int node_propose(struct node *n, uint64_t value, uint64_t tag)
{
    return node_propose_sized(n, value, tag, 8);
}

struct wait_value {
    struct cluster *k;
    uint64_t value, members; /* bit per id; 0 = all that live */
};

static bool node_has(const struct node *n, uint64_t value)
{
    for (size_t i = n->n; i-- > 0;) {
        if (n->log[i].value == value) return true;
    }
    return false;
}

static bool value_everywhere(void *arg)
{
    struct wait_value *w = arg;
    for (unsigned i = 1; i <= w->k->n; i++) {
        const struct node *n = &w->k->nodes[i];
        if (!n->c || (w->members && !(w->members >> i & 1))) continue;
        if (!node_has(n, w->value)) return false;
    }
    return true;
}

UNUSED static bool cluster_wait_value(struct cluster *k, uint64_t value, uint64_t members)
{
    struct wait_value w = {k, value, members};
    return sim_run_until(k->sim, value_everywhere, &w, 30 * SECOND);
}

/* Proposes at `n` until it is taken, and waits until it is applied there. */
UNUSED static void node_write_sized(struct node *n, uint64_t value, size_t size)
{
    for (int i = 0; node_propose_sized(n, value, value, size) != 0; i++) {
        assert_true(i < 100000);
        sim_step(n->cluster->sim);
    }
    assert_true(cluster_wait_value(n->cluster, value, (uint64_t)1 << n->id));
}

UNUSED static void node_write(struct node *n, uint64_t value)
{
    node_write_sized(n, value, 8);
}

UNUSED static void assert_same_logs(struct cluster *k)
{
    const struct node *a = NULL;
    for (unsigned i = 1; i <= k->n; i++) {
        const struct node *b = &k->nodes[i];
        if (!b->c) continue;
        if (a) {
            assert_int_equal(a->n, b->n);
            assert_memory_equal(a->log, b->log, a->n * sizeof *a->log);
        }
        a = b;
    }
}

struct read_wait {
    struct consensus_read r;
    bool done;
    int error;
};

static void read_done(struct consensus_read *r, int error)
{
    struct read_wait *w = container_of(r, struct read_wait, r);
    w->done = true;
    w->error = error;
}

static bool read_is_done(void *arg)
{
    return ((struct read_wait *)arg)->done;
}

UNUSED static int node_read(struct node *n)
{
    struct read_wait w = {.r = {.done = read_done}};
    consensus_read(n->c, &w.r);
    assert_true(sim_run_until(n->cluster->sim, read_is_done, &w, 20 * SECOND));
    return w.error;
}

#endif
