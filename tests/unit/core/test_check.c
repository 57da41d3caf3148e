/* Cores that compare their states, over a consensus of this test's own: one log in memory that every core applies at its own
 * pace, and that a test can make differ for one of them. Deterministic: time passes when the test says so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/core/core.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/store_int.h"

enum { NODES = 3, LOG_MAX = 4096, PERIOD = 1000 };

struct consensus {
    struct consensus_callbacks callbacks;
    void *ctx;
    uint64_t id, applied;
    struct list reads;
};

struct node {
    struct env env;
    struct list tasks;
    struct core *core;
    struct consensus *consensus;
    int fatal;
    int64_t live_rev;
    bool refusing, down, learner, closed;
    uint64_t lost;     /* the entry that this member does not get */
    uint64_t term_off; /* ... and the one whose term it has wrong */
};

static struct entry {
    uint64_t origin, tag, term;
    struct buf bytes;
} entries[LOG_MAX];
static uint64_t n_entries, now, term;
static struct node nodes[NODES + 1]; /* by id */
static struct consensus_member members[NODES];
static size_t n_members;
static uint64_t leader, transfer_to, healing;

/* ---- the env ----------------------------------------------------------------------------------------- */

static uint64_t env_now(struct env *e)
{
    (void)e;
    return now;
}

static void env_defer(struct env *e, struct env_task *t)
{
    struct node *n = container_of(e, struct node, env);
    if (t->queued) return;
    t->queued = true;
    list_push_back(&n->tasks, &t->node);
}

static uint64_t env_random(struct env *e)
{
    (void)e;
    return 1;
}

static const struct env_ops env_ops = {.now_ms = env_now, .random = env_random, .defer = env_defer};

/* ---- the consensus ----------------------------------------------------------------------------------- */

int consensus_open(const struct consensus_config *config, struct env *env, const struct consensus_callbacks *callbacks,
                   void *ctx, struct consensus **ret, struct err *e)
{
    struct node *n = container_of(env, struct node, env);
    (void)e;
    *ret = n->consensus = calloc(1, sizeof(**ret));
    **ret = (struct consensus){.callbacks = *callbacks, .ctx = ctx, .id = config->id};
    list_init(&(*ret)->reads);
    return 0;
}

void consensus_close(struct consensus *c, void (*closed)(void *ctx), void *ctx)
{
    nodes[c->id].consensus = NULL;
    free(c);
    closed(ctx);
}

int consensus_propose(struct consensus *c, struct slice entry, uint64_t tag)
{
    if (!leader) return ERR_NO_LEADER;
    assert_true(n_entries + 1 < LOG_MAX);
    struct entry *e = &entries[++n_entries];
    *e = (struct entry){.origin = c->id, .tag = tag, .term = term};
    return buf_append_slice(&e->bytes, entry);
}

void consensus_read(struct consensus *c, struct consensus_read *r)
{
    list_push_back(&c->reads, &r->node);
}

int consensus_message(struct consensus *c, uint64_t to, struct slice payload)
{
    (void)c;
    (void)to;
    (void)payload;
    return ERR_CLOSED;
}

int consensus_transfer(struct consensus *c, uint64_t to, void (*done)(void *data, int error), void *data)
{
    (void)c;
    (void)done;
    (void)data;
    transfer_to = to;
    return 0;
}

void consensus_get_status(const struct consensus *c, struct consensus_status *ret)
{
    *ret = (struct consensus_status){.id = c->id, .leader_id = leader};
}

size_t consensus_members(const struct consensus *c, const struct consensus_member **ret)
{
    (void)c;
    *ret = members;
    return n_members;
}

int consensus_change(struct consensus *c, const struct consensus_change *change,
                     void (*done)(void *data, int error), void *data)
{
    (void)c, (void)change, (void)done, (void)data;
    return ERR_NOT_LEADER;
}

bool consensus_answers(const struct consensus *c, uint64_t member_id)
{
    (void)c, (void)member_id;
    return true;
}

bool consensus_heals(const struct consensus *c, uint64_t member_id)
{
    (void)c;
    return member_id == healing;
}

void consensus_distrust(struct consensus *c, const char *why)
{
    c->callbacks.fatal(c->ctx, ERR_RESTART, why);
}

/* ---- running ------------------------------------------------------------------------------------------ */

static void on_live(void *ctx, struct event_batch *b)
{
    struct node *n = ctx;
    n->live_rev = b->last_rev;
}

static void on_reset(void *ctx, int64_t revision)
{
    (void)ctx;
    (void)revision;
}

static void on_fatal(void *ctx, int error, const char *text)
{
    struct node *n = ctx;
    assert_non_null(strstr(text, "state"));
    n->fatal = error;
}

static void on_leader(void *ctx, uint64_t id, bool self)
{
    (void)ctx;
    (void)id;
    (void)self;
}

static void on_refusing(void *ctx, bool on)
{
    struct node *n = ctx;
    n->refusing = on;
}

static uint64_t period = PERIOD;

static void open_node(uint64_t id)
{
    static const struct core_events events = {.live = on_live, .reset = on_reset, .fatal = on_fatal,
                                              .leader_changed = on_leader, .refusing = on_refusing};
    struct node *n = &nodes[id];
    struct core_config config = {.consensus = {.id = id}, .name = "n", .check_ms = period, .compact_check_ms = PERIOD / 5,
                                 .long_apply_keys = 4};
    *n = (struct node){.env = {.ops = &env_ops}};
    list_init(&n->tasks);
    assert_int_equal(core_open(&config, &n->env, &events, n, &n->core, NULL), 0);
    n->consensus->callbacks.leader_changed(n->consensus->ctx, leader, term, leader == id);
}

static void set_true(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_node(uint64_t id)
{
    struct node *n = &nodes[id];
    if (!n->core) return;
    core_close(n->core, set_true, &n->closed);
    assert_true(n->closed);
    n->core = NULL;
}

static bool runs(const struct node *n)
{
    return n->core && !n->down && !n->fatal;
}

/* Applies what the log has more, answers reads, runs what was deferred. Whether there was anything. */
static bool turn(struct node *n)
{
    struct consensus *c = n->consensus;
    struct list *node;
    bool any = false;
    core_flush(n->core);
    for (; runs(n) && c->applied < n_entries; any = true) {
        uint64_t i = ++c->applied;
        const struct entry *e = &entries[i];
        if (i == n->lost) continue;
        c->callbacks.apply(c->ctx, i, e->term + (i == n->term_off), buf_slice(&e->bytes), e->origin == c->id ? e->tag : 0);
    }
    while (runs(n) && (node = list_pop_front(&c->reads)) != NULL) {
        struct consensus_read *r = container_of(node, struct consensus_read, node);
        r->done(r, 0);
        any = true;
    }
    struct list *last = n->tasks.prev; /* what these defer comes in the next turn */
    while (runs(n) && (node = list_pop_front(&n->tasks)) != NULL) {
        struct env_task *t = container_of(node, struct env_task, node);
        t->queued = false;
        t->run(t);
        any = true;
        if (node == last) break;
    }
    return any;
}

static void settle(void)
{
    for (bool any = true; any;) {
        any = false;
        for (uint64_t id = 1; id <= NODES; id++)
            if (runs(&nodes[id])) any |= turn(&nodes[id]);
    }
}

static void pass(uint64_t ms)
{
    for (uint64_t until = now + ms; now < until;) {
        now += 100;
        for (uint64_t id = 1; id <= NODES; id++)
            if (runs(&nodes[id])) core_tick(nodes[id].core);
        settle();
    }
}

static void elect(uint64_t id)
{
    leader = id;
    term++;
    for (uint64_t i = 1; i <= NODES; i++)
        if (runs(&nodes[i]))
            nodes[i].consensus->callbacks.leader_changed(nodes[i].consensus->ctx, id, term, id == i);
    settle();
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    n_entries = now = term = healing = 0;
    leader = 1;
    n_members = NODES;
    for (size_t i = 0; i < NODES; i++) members[i] = (struct consensus_member){i + 1, "n", "http://x", false};
    for (uint64_t id = 1; id <= NODES; id++) open_node(id);
    elect(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= NODES; id++) close_node(id);
    for (uint64_t i = 1; i <= n_entries; i++) buf_release(&entries[i].bytes);
    return 0;
}

static void only(size_t n)
{
    n_members = n;
    for (uint64_t id = n + 1; id <= NODES; id++) close_node(id);
}

/* ---- calls -------------------------------------------------------------------------------------------- */

static void on_done(struct core_request *r)
{
    *(bool *)r->data = true;
}

static int ask(uint64_t id, struct core_request *r)
{
    bool done = false;
    r->done = on_done;
    r->data = &done;
    core_submit(nodes[id].core, r);
    settle();
    assert_true(done);
    int code = r->code;
    core_request_release(r);
    return code;
}

static int run(uint64_t id, const struct command *command)
{
    struct buf bytes = {0};
    command_encode(&bytes, command);
    int code = ask(id, &(struct core_request){.type = CORE_COMMAND, .command = buf_slice(&bytes)});
    buf_release(&bytes);
    return code;
}

static int put(uint64_t id, const char *key, const char *value)
{
    return run(id, &(struct command){COMMAND_OP, .op = {OP_PUT, .put = {slice_str(key), slice_str(value)}}});
}

static int get(uint64_t id)
{
    return ask(id, &(struct core_request){.type = CORE_RANGE, .range = {.key = SLICE_LIT("k")}});
}

static struct store *store_of(uint64_t id)
{
    return (struct store *)(uintptr_t)core_store(nodes[id].core);
}

/* Whether every running member has just this alarm (`member` of -1: none at all). */
static bool alarm_is(int64_t member)
{
    struct alarm a[4];
    for (uint64_t id = 1; id <= NODES; id++) {
        if (!runs(&nodes[id])) continue;
        size_t n = store_alarms(store_of(id), a, 4);
        if (member < 0 ? n > 0 : n != 1 || a[0].alarm != ALARM_CORRUPT || a[0].member_id != (uint64_t)member) return false;
    }
    return true;
}

static uint64_t checks(uint64_t id)
{
    struct core_request r = {.type = CORE_STATUS};
    bool done = false;
    r.done = on_done;
    r.data = &done;
    core_submit(nodes[id].core, &r);
    assert_true(done);
    uint64_t n = r.status->checks;
    assert_int_equal(r.status->refusing, nodes[id].refusing);
    core_request_release(&r);
    return n;
}

static void fill(void)
{
    assert_int_equal(put(1, "k", "some value"), 0);
    assert_int_equal(put(2, "l", "another"), 0);
    assert_int_equal(run(3, &(struct command){COMMAND_LEASE_GRANT, .lease_grant = {7, 600}}), 0);
}

static void flip(uint64_t id)
{
    struct record *r = index_get(&store_of(id)->index, SLICE_LIT("k"));
    r->data[r->key_len] ^= 1;
}

/* The member was named, stopped, and the others go on. */
static void expect_named(uint64_t id)
{
    uint64_t other = id == 1 ? 2 : 1;
    assert_true(alarm_is((int64_t)id));
    for (uint64_t i = 1; i <= n_members; i++) assert_int_equal(nodes[i].fatal, i == id ? ERR_RESTART : 0);
    assert_int_equal(ask(id, &(struct core_request){.type = CORE_RANGE, .serializable = true, .range = {.key = SLICE_LIT("k")}}),
                     ERR_CORRUPT);
    if (leader == id) elect(other);
    assert_int_equal(put(other, "k", "still at work"), 0);
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static void test_agree(void **state)
{
    (void)state;
    fill();
    pass(5 * PERIOD);
    assert_true(alarm_is(-1));
    for (uint64_t id = 1; id <= NODES; id++) {
        assert_true(checks(id) >= 4 && checks(id) <= 6);
        assert_int_equal(nodes[id].fatal, 0);
    }
    assert_int_equal(get(2), 0);
}

static void test_flipped_bit(void **state)
{
    (void)state;
    fill();
    pass(2 * PERIOD);
    flip(2);
    pass(2 * PERIOD);
    expect_named(2);
}

static void test_flipped_bit_of_leader(void **state)
{
    (void)state;
    fill();
    flip(1);
    pass(2 * PERIOD);
    expect_named(1);
}

static void test_lost_key(void **state)
{
    (void)state;
    fill();
    struct store *s = store_of(3);
    struct index_path path;
    assert_non_null(index_find(&s->index, SLICE_LIT("k"), &path));
    index_erase(&s->index, &path);
    pass(2 * PERIOD);
    expect_named(3);
}

static void test_lost_lease(void **state)
{
    (void)state;
    fill();
    struct store *s = store_of(2);
    lease_remove(&s->leases, lease_find(&s->leases, 7));
    pass(2 * PERIOD);
    expect_named(2);
}

static void test_lost_entry(void **state)
{
    (void)state;
    fill();
    nodes[3].lost = n_entries + 1;
    assert_int_equal(put(1, "m", "a revision that member 3 misses"), 0);
    pass(2 * PERIOD);
    expect_named(3);
}

/* The states are equal, but the logs were not. */
static void test_other_log(void **state)
{
    (void)state;
    fill();
    nodes[2].term_off = n_entries + 1;
    assert_int_equal(put(1, "m", "v"), 0);
    pass(2 * PERIOD);
    expect_named(2);
}

static void test_two_of_two(void **state)
{
    (void)state;
    fill();
    only(2);
    flip(2);
    pass(2 * PERIOD);
    assert_true(alarm_is(0));
    for (uint64_t id = 1; id <= 2; id++) {
        assert_int_equal(nodes[id].fatal, 0);
        assert_int_equal(put(id, "k", "v"), ERR_CORRUPT);
        assert_int_equal(get(id), 0); /* as etcd */
    }
    flip(2); /* whatever made it right: the next check sees it, and that comes soon */
    pass(PERIOD);
    assert_true(alarm_is(-1));
    assert_int_equal(put(2, "k", "v"), 0);
}

/* A third member decides what two could not. */
static void test_third_decides(void **state)
{
    (void)state;
    fill();
    nodes[3].down = true;
    flip(2);
    for (uint64_t at = checks(1); checks(1) == at;) pass(100);
    assert_true(alarm_is(-1)); /* it is waited for */
    pass(PERIOD);
    assert_true(alarm_is(0));
    assert_int_equal(put(1, "k", "v"), ERR_CORRUPT);
    nodes[3].down = false;
    pass(2 * PERIOD);
    expect_named(2);
}

static void name_and_reopen(uint64_t id)
{
    fill();
    flip(id);
    pass(2 * PERIOD);
    expect_named(id);
    close_node(id);
    open_node(id);
}

/* An accused member that comes back with another state does not believe what was said of the old one, serves nothing until a
 * check clears it, and then serves again. */
static void test_healed(void **state)
{
    bool held = false;
    (void)state;
    name_and_reopen(2); /* with nothing: it gets the whole log again, CHECK, reports and verdict too */
    settle();
    assert_int_equal(nodes[2].fatal, 0);
    assert_true(nodes[2].refusing);
    assert_int_equal(get(2), ERR_CORRUPT);
    assert_int_equal(put(2, "k", "v"), ERR_CORRUPT);
    assert_int_equal(ask(2, &(struct core_request){.type = CORE_ALARMS}), 0);
    struct core_request history = {.type = CORE_HISTORY, .from_rev = 2, .done = on_done, .data = &held};
    core_submit(nodes[2].core, &history);
    settle();
    assert_false(held); /* its watches wait */
    pass(PERIOD);
    assert_true(held && history.code == 0 && history.events);
    core_request_release(&history);
    assert_true(alarm_is(-1));
    assert_int_equal(nodes[2].fatal, 0);
    assert_false(nodes[2].refusing);
    assert_int_equal(put(2, "k", "v"), 0);
    assert_int_equal(get(2), 0);
}

/* Nor is a read served that waited while the member learnt it. */
static void test_waiting_read(void **state)
{
    (void)state;
    name_and_reopen(2);
    assert_false(nodes[2].refusing);
    assert_int_equal(get(2), ERR_CORRUPT); /* the log, and the verdict in it, comes before the read point */
    assert_true(nodes[2].refusing);
}

/* What was said of the state of an earlier life is not said of this one. */
static void test_verdict_on_another_life(void **state)
{
    (void)state;
    fill();
    flip(2);
    for (int i = 0; i < 100 && !alarm_is(2); i++) pass(100);
    assert_int_equal(nodes[2].fatal, ERR_RESTART);
    close_node(2);
    open_node(2); /* nothing in the log is newer than the verdict */
    settle();
    assert_true(nodes[2].refusing);
    assert_int_equal(nodes[2].fatal, 0);
}

/* Named again if it is still wrong. */
static void test_not_healed(void **state)
{
    (void)state;
    fill();
    flip(2);
    pass(2 * PERIOD);
    close_node(2);
    open_node(2);
    settle();
    flip(2);
    pass(2 * PERIOD);
    expect_named(2);
}

static void test_refusing_leader_gives_away(void **state)
{
    (void)state;
    fill();
    flip(2);
    pass(2 * PERIOD);
    close_node(2);
    open_node(2);
    settle();
    transfer_to = 0;
    elect(2);
    pass(100);
    assert_true(transfer_to == 1 || transfer_to == 3);
}

static void test_leader_changes(void **state)
{
    (void)state;
    fill();
    flip(3);
    nodes[3].down = true; /* reports late */
    pass(PERIOD);
    elect(2);
    nodes[3].down = false;
    pass(PERIOD);
    expect_named(3);
}

static void test_learner(void **state)
{
    (void)state;
    fill();
    members[2].learner = true;
    flip(3);
    pass(2 * PERIOD);
    expect_named(3);
}

/* Two voters that differ are not decided by a learner. */
static void test_learner_does_not_decide(void **state)
{
    (void)state;
    fill();
    members[2].learner = true;
    flip(2);
    pass(2 * PERIOD);
    assert_true(alarm_is(0));
}

static void test_departed(void **state)
{
    (void)state;
    fill();
    flip(3);
    pass(2 * PERIOD);
    expect_named(3);
    only(2);
    pass(2 * PERIOD);
    assert_true(alarm_is(-1));
}

/* Of two that differed an operator has removed one: the other is what there is. */
static void test_one_is_left(void **state)
{
    (void)state;
    fill();
    only(2);
    flip(2);
    pass(2 * PERIOD);
    assert_true(alarm_is(0));
    only(1);
    pass(2 * PERIOD);
    assert_true(alarm_is(-1));
    assert_int_equal(put(1, "k", "v"), 0);
    uint64_t before = checks(1);
    pass(10 * PERIOD);
    assert_true(checks(1) == before); /* nobody to compare with */
}

static void test_after_compaction(void **state)
{
    (void)state;
    fill();
    pass(PERIOD);
    for (uint64_t at = checks(1); checks(1) == at;) pass(100);
    pass(300);
    uint64_t before = checks(1);
    assert_int_equal(run(1, &(struct command){COMMAND_COMPACT, .compact = {2}}), 0);
    pass(100);
    assert_true(checks(1) == before + 1);
    assert_int_equal(run(1, &(struct command){COMMAND_COMPACT, .compact = {3}}), 0);
    pass(100);
    assert_true(checks(1) == before + 1); /* not at each one */
    assert_true(alarm_is(-1));
}

/* Without a period: after compactions, and as long as an alarm stands. */
static void test_no_period(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= NODES; id++) close_node(id);
    period = 0;
    for (uint64_t id = 1; id <= NODES; id++) open_node(id);
    period = PERIOD;
    fill();
    pass(600 * PERIOD);
    assert_int_equal(checks(1), 0);
    flip(3);
    assert_int_equal(run(1, &(struct command){COMMAND_COMPACT, .compact = {2}}), 0);
    pass(PERIOD);
    assert_int_equal(checks(1), 1);
    expect_named(3);
    pass(100 * PERIOD);
    assert_true(checks(1) > 2);
}

enum { KEYS = 30000 };

/* Half of them with lease 7. Past the consensus, alike on all: that would take long. */
static void fill_many(void)
{
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "%c%05d", i % 2 ? 'd' : 'r', i);
        struct command c = {COMMAND_OP, .op = {OP_PUT, .put = {slice_str(key), SLICE_LIT("v"), i % 2 ? 0 : 7}}};
        for (uint64_t id = 1; id <= NODES; id++) {
            struct arena a = {0};
            struct result r;
            store_apply(store_of(id), &c, &a, &r);
            assert_int_equal(r.code, 0);
            result_release(&r);
            event_batch_unref(store_take_events(store_of(id)));
            arena_release(&a);
        }
    }
}

/* A deletion and a revocation of many keys are applied in steps: nobody sees the half of them, checks neither, and what came behind
 * them is applied in order. */
static void test_long_commands(void **state)
{
    enum { N = 4 };
    bool done[N] = {false};
    (void)state;
    fill();
    fill_many();
    struct command commands[N] = {
        {COMMAND_OP, .op = {OP_PUT, .put = {SLICE_LIT("d"), SLICE_LIT("v")}}},
        {COMMAND_OP, .op = {OP_DELETE, .del = {SLICE_LIT("d"), SLICE_LIT("e"), true}}},
        {COMMAND_LEASE_REVOKE, .lease_revoke = {7}},
        {COMMAND_CHECK, .check = {.version = STORE_CHECK_VERSION}},
    };
    struct buf bytes[N] = {{0}};
    struct core_request r[N] = {{0}};
    int64_t before = core_revision(nodes[1].core);
    uint64_t checked = checks(1);
    for (int i = 0; i < N; i++) {
        command_encode(&bytes[i], &commands[i]);
        r[i].type = CORE_COMMAND;
        r[i].command = buf_slice(&bytes[i]);
        r[i].done = on_done;
        r[i].data = &done[i];
        core_submit(nodes[1].core, &r[i]);
    }
    struct core_request range = {.type = CORE_RANGE, .serializable = true, .done = on_done,
                                 .range = {.key = SLICE_LIT("\0"), .range_end = SLICE_LIT("\0"), .count_only = true}};
    bool read = false;
    range.data = &read;
    turn(&nodes[1]); /* proposed, and as much applied as one turn does */
    assert_true(done[0] && !done[1]);
    core_submit(nodes[1].core, &range);
    assert_false(read);
    for (int i = 0; i < 100 && !done[1]; i++) {
        assert_int_equal(store_revision(store_of(1)), before + 1);
        assert_int_equal(nodes[1].live_rev, before + 1); /* what history shows was told to watches before */
        turn(&nodes[1]);
    }
    settle();
    assert_true(done[1] && done[2] && done[3] && read);
    assert_int_equal(r[1].result.op.del.deleted, KEYS / 2 + 1);
    assert_int_equal(r[1].result.op.del.n_prevs, KEYS / 2 + 1);
    assert_int_equal(range.result.op.range.count, 2);
    assert_int_equal(core_revision(nodes[2].core), before + 3);
    assert_int_equal(nodes[2].live_rev, before + 3);
    assert_int_equal(checks(1), checked + 1);
    for (int i = 0; i < N; i++) {
        core_request_release(&r[i]);
        buf_release(&bytes[i]);
    }
    core_request_release(&range);
    pass(2 * PERIOD);
    assert_true(alarm_is(-1));
}

/* Where consensus takes the entries for applied - a snapshot is cut, the core closes - the rest is done at once. */
static void test_long_command_is_cut_short(void **state)
{
    bool done = false;
    void *snapshot;
    (void)state;
    fill();
    fill_many();
    struct command command = {COMMAND_OP, .op = {OP_DELETE, .del = {SLICE_LIT("d"), SLICE_LIT("e"), false}}};
    struct buf bytes = {0};
    command_encode(&bytes, &command);
    for (int i = 0; i < 2; i++) {
        struct core_request r = {.type = CORE_COMMAND, .command = buf_slice(&bytes), .done = on_done, .data = &done};
        int64_t before = core_revision(nodes[1].core);
        struct consensus *c = nodes[1].consensus;
        done = false;
        core_submit(nodes[1].core, &r);
        turn(&nodes[1]);
        assert_false(done);
        if (i == 0) {
            assert_int_equal(c->callbacks.snapshot_open(c->ctx, &snapshot), 0);
            assert_true(core_revision(nodes[1].core) == before + 1);
            c->callbacks.snapshot_close(c->ctx, snapshot);
        } else {
            close_node(1);
        }
        assert_true(done && r.code == 0 && r.result.op.del.deleted == KEYS / 2);
        core_request_release(&r);
        if (i == 0) run(1, &(struct command){COMMAND_LEASE_GRANT, .lease_grant = {7, 600}});
        if (i == 0) fill_many();
    }
    buf_release(&bytes);
}

/* A newer member leads: it is not known how it hashes, so nothing is said of it, and nothing is believed. */
static void test_other_version(void **state)
{
    (void)state;
    fill();
    flip(2);
    uint64_t before = checks(1), index = n_entries + 1;
    assert_int_equal(run(1, &(struct command){COMMAND_CHECK, .check = {.version = STORE_CHECK_VERSION + 1}}), 0);
    assert_true(checks(1) == before);
    assert_true(n_entries == index); /* no reports */
    pass(2 * PERIOD);
    expect_named(2);
}

/* A check is of the place in the log, whatever is applied while it goes on. */
static void test_under_writes(void **state)
{
    char key[16];
    (void)state;
    fill();
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof(key), "w%03d", i % 500);
        assert_int_equal(put(1 + (uint64_t)i % 3, key, "value"), 0);
        if (i % 10 == 0) pass(100);
        if (i % 300 == 299)
            assert_int_equal(run(1, &(struct command){COMMAND_COMPACT, .compact = {core_revision(nodes[1].core) - 20}}), 0);
    }
    assert_true(alarm_is(-1));
    assert_true(checks(2) > 25);
}

static void expect_alarms(uint64_t id, size_t raised, size_t heal)
{
    bool done = false;
    struct core_request r = {.type = CORE_ALARMS, .done = on_done, .data = &done};
    core_submit(nodes[id].core, &r);
    settle();
    assert_true(done && r.code == 0 && r.n_alarms == raised && r.n_healing == heal);
    for (size_t i = 0; i < raised + heal; i++)
        assert_true(r.alarms[i].member_id == healing && r.alarms[i].alarm == ALARM_CORRUPT);
    core_request_release(&r);
}

/* A member that heals is listed like one that is alarmed, once if it is both, and stops nobody. */
static void test_who_heals(void **state)
{
    (void)state;
    fill();
    expect_alarms(1, 0, 0);
    healing = 2;
    expect_alarms(1, 0, 1);
    expect_alarms(2, 0, 1);
    assert_int_equal(put(1, "k", "v"), 0);
    pass(2 * PERIOD); /* a check takes nothing away: it has raised nothing */
    expect_alarms(1, 0, 1);
    flip(2);
    pass(2 * PERIOD);
    expect_named(2);
    expect_alarms(1, 1, 0);
    healing = 9; /* no member */
    n_members = 1;
    run(1, &(struct command){.type = COMMAND_ALARM, .alarm = {2, ALARM_CORRUPT, false}});
    expect_alarms(1, 0, 0);
}

/* ... and is not counted on where members go or come: it elects nobody before it is whole. */
static void test_changes_while_one_heals(void **state)
{
    struct core_request r = {.type = CORE_MEMBER_CHANGE, .change = {.op = CONSENSUS_REMOVE, .member_id = 3}};
    (void)state;
    pass(PERIOD); /* names are published */
    healing = 2;
    assert_int_equal(ask(1, &r), ERR_UNHEALTHY);
    r = (struct core_request){.type = CORE_MEMBER_CHANGE, .change = {.op = CONSENSUS_ADD, .peer_url = SLICE_LIT("http://y")}};
    assert_int_equal(ask(1, &r), ERR_UNHEALTHY);
    bool done = false;
    r = (struct core_request){.type = CORE_MEMBER_CHANGE, .change = {.op = CONSENSUS_REMOVE, .member_id = 2}, .done = on_done, .data = &done};
    core_submit(nodes[1].core, &r);
    settle();
    assert_false(done); /* whoever heals may go: it is begun (and this consensus never does it) */
    pass(2 * LIMIT_REQUEST_TIMEOUT_MS);
    assert_true(done);
    core_request_release(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_agree), T(test_verdict_on_another_life), T(test_flipped_bit), T(test_flipped_bit_of_leader), T(test_lost_key), T(test_lost_lease),
        T(test_lost_entry), T(test_other_log), T(test_two_of_two), T(test_third_decides), T(test_healed),
        T(test_waiting_read), T(test_not_healed), T(test_refusing_leader_gives_away), T(test_leader_changes), T(test_learner),
        T(test_learner_does_not_decide), T(test_departed), T(test_one_is_left), T(test_after_compaction), T(test_no_period), T(test_other_version), T(test_long_commands), T(test_long_command_is_cut_short), T(test_under_writes),
        T(test_who_heals), T(test_changes_while_one_heals),
    };
    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
