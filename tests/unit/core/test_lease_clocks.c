/* Leases while leaders come and go: three cores in the simulated world, each with a clock of its own. What a leader promised, or what
 * its clock decided, must not end a lease that another member has in its hands by then (api/core/core_lease.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "api/core/core.h"
#include "base/log.h"
#include "raft/frames_int.h"
#include "tests/sim/env_sim.h"

enum { MEMBERS = 3, SECOND = 1000000, TICK_US = 100000, LEASE = 5, KEYS = 20 };

struct node {
    uint64_t id;
    struct env *env;
    struct core *core;
    bool leads, closed;
};

static struct sim *sim;
static struct node nodes[MEMBERS + 1];

/* ---- three cores ------------------------------------------------------------------------------------ */

static void on_live(void *ctx, struct event_batch *b)
{
    (void)ctx, (void)b;
}

static void on_reset(void *ctx, int64_t revision)
{
    (void)ctx, (void)revision;
}

static void on_fatal(void *ctx, int error, const char *text)
{
    const struct node *n = ctx;
    fail_msg("member %d: %s %s", (int)n->id, err_name(error), text);
}

static void on_leader(void *ctx, uint64_t leader, bool self)
{
    struct node *n = ctx;
    (void)leader;
    n->leads = self;
}

static void on_turn(void *ctx, uint64_t id)
{
    (void)ctx;
    if (nodes[id].core) core_flush(nodes[id].core);
}

static void tick(void *arg)
{
    struct node *n = arg;
    sim_at_member(sim, n->id, TICK_US, tick, n);
    core_tick(n->core);
}

static void open_node(uint64_t id, unsigned election_ms)
{
    static const struct core_events events = {on_live, on_reset, on_fatal, on_leader};
    static const char *const names[] = {"", "n1", "n2", "n3"};
    struct consensus_member members[MEMBERS];
    struct node *n = &nodes[id];
    struct err e = {{0}};
    for (uint64_t i = 1; i <= MEMBERS; i++)
        members[i - 1] = (struct consensus_member){.id = i, .name = names[i], .peer_url = "http://10.0.0.1:2380"};
    struct core_config config = {.consensus = {.id = id, .cluster_id = 77, .members = members, .n_members = MEMBERS,
                                               .new_cluster = true, .election_ms = election_ms, .max_appends = 1,
                                               .segment_bytes = 256 * 1024},
                                 .long_apply_keys = KEYS / 2,
                                 .name = names[id], .client_urls = &names[id], .n_client_urls = 1};
    *n = (struct node){.id = id, .env = sim_boot(sim, id)};
    if (core_open(&config, n->env, &events, n, &n->core, &e) != 0) fail_msg("%s", e.text);
    tick(n);
}

static void set_closed(void *ctx)
{
    ((struct node *)ctx)->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct node *)arg)->closed;
}

static void close_all(void)
{
    for (uint64_t id = 1; id <= MEMBERS; id++) {
        struct node *n = &nodes[id];
        struct core *c = n->core;
        sim_forget_member(sim, id);
        n->core = NULL;
        core_close(c, set_closed, n);
        assert_true(sim_run_until(sim, is_closed, n, 60 * SECOND));
        sim_release(n->env);
    }
    sim_free(sim);
}

static bool another_leads(void *arg)
{
    (void)arg;
    return nodes[2].leads || nodes[3].leads;
}

static bool first_follows(void *arg)
{
    (void)arg;
    return !nodes[1].leads;
}

/* ---- requests --------------------------------------------------------------------------------------- */

struct ask {
    struct core_request request;
    struct buf command;
    bool done;
    int code;
};

static void answered(struct core_request *r)
{
    struct ask *a = container_of(r, struct ask, request);
    a->done = true;
    a->code = r->code;
    core_request_release(r);
    buf_release(&a->command);
}

static bool is_done(void *arg)
{
    return ((struct ask *)arg)->done;
}

static void submit(struct node *n, struct ask *a)
{
    a->request.done = answered;
    core_submit(n->core, &a->request);
    core_flush(n->core);
}

static void submit_command(struct node *n, struct ask *a, const struct command *c)
{
    *a = (struct ask){.request = {.type = CORE_COMMAND}};
    command_encode(&a->command, c);
    assert_int_equal(a->command.failed, 0);
    a->request.command = buf_slice(&a->command);
    submit(n, a);
}

static int finish(struct ask *a)
{
    assert_true(sim_run_until(sim, is_done, a, 60 * SECOND));
    return a->code;
}

static bool has_lease(const struct node *n)
{
    struct lease_info info;
    return store_lease(core_store(n->core), LEASE, &info);
}

static bool all_have_lease(void *arg)
{
    (void)arg;
    for (uint64_t id = 1; id <= MEMBERS; id++)
        if (!has_lease(&nodes[id])) return false;
    return true;
}

/* The first leads, and does not see for a minute that it has been deposed; a lease of so many seconds is granted. */
static void begin(uint64_t seed, int64_t ttl)
{
    struct sim_options o;
    struct ask a;
    sim_options_default(&o, seed, MEMBERS);
    sim = sim_new(&o);
    sim_on_turn(sim, on_turn, NULL);
    log_set_level(LOG_ERROR);
    for (uint64_t id = 1; id <= MEMBERS; id++) open_node(id, id == 1 ? 60000 : 500);
    for (int i = 0; i < 20 && !nodes[1].leads; i++) {
        for (uint64_t id = 2; id <= MEMBERS; id++) {
            if (!nodes[id].leads) continue;
            struct ask move = {.request = {.type = CORE_MOVE_LEADER, .member_id = 1}};
            submit(&nodes[id], &move);
            (void)finish(&move);
        }
        sim_run_for(sim, SECOND);
    }
    assert_true(nodes[1].leads);
    submit_command(&nodes[1], &a, &(struct command){.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE, .ttl = ttl}});
    assert_int_equal(finish(&a), 0);
    assert_true(sim_run_until(sim, all_have_lease, NULL, 20 * SECOND));
}

static bool hears_leader; /* the first one does; otherwise it hears nobody, and nobody hears it */

static bool pass_frame(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    (void)ctx, (void)ch;
    return from != 1 && (to != 1 || (hears_leader && bytes.data[1] == FRAME_APPEND));
}

static struct node *cut_off_first(void)
{
    hears_leader = false;
    sim_on_frame(sim, pass_frame, NULL);
    assert_true(sim_run_until(sim, another_leads, NULL, 20 * SECOND));
    return &nodes[nodes[2].leads ? 2 : 3];
}

/* ---- what goes wrong ---------------------------------------------------------------------------------- */

/* A leader's clock runs ahead, its disk stands still, and so the end of the lease waits in its queue. When it hears of the next
 * leader, for whom the lease goes on, it does not pass that on. */
static void test_decided_by_a_deposed_leader(void **state)
{
    (void)state;
    struct ask put;
    begin(1, 20);
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_PUT}};
    c.op.put = (struct put_op){.key = SLICE_LIT("k"), .value = SLICE_LIT("v")};
    sim_disk_stall(sim, 1, 5 * SECOND);
    submit_command(&nodes[1], &put, &c);
    struct node *next = cut_off_first();
    sim_clock_jump(sim, 1, 21 * SECOND);
    sim_run_for(sim, SECOND / 2);
    assert_true(nodes[1].leads); /* as it believes */
    hears_leader = true;
    assert_true(sim_run_until(sim, first_follows, NULL, 20 * SECOND));
    sim_on_frame(sim, NULL, NULL);
    (void)finish(&put);
    sim_run_for(sim, SECOND);
    assert_true(next->leads);
    assert_true(has_lease(next)); /* it was granted ten seconds ago */
    sim_run_for(sim, 30 * SECOND);
    assert_false(has_lease(next));
    close_all();
}

/* A leader that was deposed is asked to renew the lease: it does not say so, for its successor's clock goes on. */
static void test_renewed_by_a_deposed_leader(void **state)
{
    (void)state;
    begin(2, 8);
    struct node *next = cut_off_first();
    sim_run_for(sim, 4 * SECOND);
    assert_true(nodes[1].leads);
    struct ask renew = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE}};
    submit(&nodes[1], &renew);
    sim_run_for(sim, 6 * SECOND);
    assert_true(!renew.done || renew.code != 0 || has_lease(next)); /* it had eight seconds more */
    sim_on_frame(sim, NULL, NULL);
    (void)finish(&renew);
    sim_run_for(sim, 10 * SECOND);
    assert_false(has_lease(next));
    close_all();
}

static bool has_checkpoint(void *arg)
{
    (void)arg;
    for (uint64_t id = 1; id <= MEMBERS; id++) {
        struct lease_info info;
        if (!store_lease(core_store(nodes[id].core), LEASE, &info) || info.remaining_ttl == 0) return false;
    }
    return true;
}

static void expect_renewed_at_the_next(void)
{
    struct node *next = cut_off_first();
    struct ask left = {.request = {.type = CORE_LEASE_INFO, .lease_id = LEASE}};
    submit(next, &left);
    assert_int_equal(finish(&left), 0);
    assert_true(left.request.ttl > 900);
    sim_on_frame(sim, NULL, NULL);
    close_all();
}

/* A long lease, of which all members know how much is left, is renewed here or there: the next leader does not go by what
 * was left before. */
static void renewed_after_a_checkpoint(uint64_t at)
{
    begin(3, 1000);
    sim_clock_jump(sim, 1, 400ull * SECOND);
    assert_true(sim_run_until(sim, has_checkpoint, NULL, 20 * SECOND));
    struct ask renew = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE}};
    submit(&nodes[at], &renew);
    assert_int_equal(finish(&renew), 0);
    assert_int_equal(renew.request.ttl, 1000);
    expect_renewed_at_the_next();
}

static void test_renewed_after_a_checkpoint(void **state)
{
    (void)state;
    renewed_after_a_checkpoint(1);
    renewed_after_a_checkpoint(2);
}

static uint64_t secret; /* what the first commits from there on it does not tell */

static bool pass_secret(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    struct frame f;
    (void)ctx, (void)to, (void)ch;
    return from != 1 || frame_decode(bytes, &f, NULL) != 0 || f.kind != FRAME_APPEND || f.append.leader_commit < secret;
}

static void put_key(struct node *n, struct ask *a, int number)
{
    char key[16];
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_PUT}};
    snprintf(key, sizeof key, "k%02d", number);
    c.op.put = (struct put_op){.key = slice_str(key), .value = SLICE_LIT("v")};
    submit_command(n, a, &c);
}

/* A renewal takes back what a checkpoint has said, and while it waits for the disk the next checkpoint is due: that one is taken back,
 * too, before the client is told that it has the whole time from then on. */
static void test_checkpoint_during_a_renewal(void **state)
{
    (void)state;
    struct ask put, left = {.request = {.type = CORE_LEASE_INFO, .lease_id = LEASE}};
    struct ask renew = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE}};
    begin(5, 1000);
    sim_clock_jump(sim, 1, 400ull * SECOND);
    assert_true(sim_run_until(sim, has_checkpoint, NULL, 20 * SECOND));
    sim_clock_jump(sim, 1, 298ull * SECOND);
    sim_disk_stall(sim, 1, SECOND);
    put_key(&nodes[1], &put, 1);
    submit(&nodes[1], &renew);
    sim_run_for(sim, SECOND / 10);
    sim_clock_jump(sim, 1, 3 * SECOND + SECOND / 2); /* a disk that stood still for longer, with all clocks, would be as good */
    assert_int_equal(finish(&renew), 0);
    uint64_t renewed_us = sim_now_us(sim);
    struct node *next = cut_off_first();
    submit(next, &left);
    assert_int_equal(finish(&left), 0);
    uint64_t passed_s = (sim_now_us(sim) - renewed_us) / SECOND;
    assert_true((uint64_t)left.request.ttl + passed_s + 1 >= (uint64_t)renew.request.ttl);
    sim_on_frame(sim, NULL, NULL);
    close_all();
}

/* The same, and the next leader learns that the renewal and a deletion that is long to apply before it, in one entry, are committed as it
 * begins to lead: its clocks do not start before they are applied. */
static void test_renewed_behind_a_long_command(void **state)
{
    (void)state;
    struct ask put, delete, renew = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE}};
    struct consensus_status s;
    begin(4, 1000);
    for (int i = 0; i < KEYS; i++) {
        put_key(&nodes[1], &put, i);
        assert_int_equal(finish(&put), 0);
    }
    sim_clock_jump(sim, 1, 400ull * SECOND);
    assert_true(sim_run_until(sim, has_checkpoint, NULL, 20 * SECOND));
    sim_disk_stall(sim, 1, SECOND / 2);
    put_key(&nodes[1], &put, KEYS); /* what comes meanwhile waits, and is one entry */
    consensus_get_status(core_consensus(nodes[1].core), &s);
    secret = s.last_index + 1;
    sim_on_frame(sim, pass_secret, NULL);
    struct command c = {.type = COMMAND_OP, .op = {.type = OP_DELETE}};
    c.op.del = (struct delete_op){.key = SLICE_LIT("k"), .range_end = SLICE_LIT("l")};
    submit_command(&nodes[1], &delete, &c);
    submit(&nodes[1], &renew);
    assert_int_equal(finish(&renew), 0);
    assert_int_equal(renew.request.ttl, 1000);
    assert_true(delete.done);
    consensus_get_status(core_consensus(nodes[1].core), &s);
    assert_int_equal(s.last_index, secret);
    expect_renewed_at_the_next();
}

static bool keeps_acks; /* nobody confirms to a leader that it leads */

static bool pass_no_ack(void *ctx, uint64_t from, uint64_t to, enum env_channel ch, struct slice bytes)
{
    (void)ctx, (void)from, (void)to, (void)ch;
    return !keeps_acks || bytes.data[1] != FRAME_PROBE_ACK;
}

static void crash(struct node *n)
{
    struct core *c = n->core;
    sim_crash(sim, n->id, SIM_KILL);
    sim_forget_member(sim, n->id);
    n->core = NULL;
    core_close(c, set_closed, n);
    assert_true(sim_run_until(sim, is_closed, n, 60 * SECOND));
    sim_release(n->env);
}

static bool knows_leader(void *arg)
{
    struct consensus_status s;
    consensus_get_status(core_consensus(((struct node *)arg)->core), &s);
    return s.leader_id == 1;
}

/* A member asks the leader for a renewal, is started again, and asks for another one: the answer to the first is not taken for that to the
 * second, of a lease that does not exist. */
static void test_answer_to_an_earlier_life(void **state)
{
    (void)state;
    struct node *n = &nodes[2];
    struct ask first = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE}};
    struct ask second = {.request = {.type = CORE_LEASE_RENEW, .lease_id = LEASE + 1}};
    begin(6, 1000);
    keeps_acks = true;
    sim_on_frame(sim, pass_no_ack, NULL);
    submit(n, &first);
    sim_run_for(sim, SECOND / 10);
    crash(n);
    assert_int_equal(first.code, ERR_STOPPED);
    open_node(2, 500);
    assert_true(sim_run_until(sim, knows_leader, n, 3 * SECOND));
    submit(n, &second);
    sim_run_for(sim, SECOND / 10);
    keeps_acks = false;
    assert_int_equal(finish(&second), ERR_LEASE_NOT_FOUND);
    sim_on_frame(sim, NULL, NULL);
    close_all();
}

static void grant(struct node *n, struct ask *a, int64_t ttl)
{
    submit_command(n, a, &(struct command){.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE, .ttl = ttl}});
}

/* The end of a lease waits for the disk for so long that its leader would try again; who had it grants it anew at once. That one does not
 * end by the second try. */
static void test_granted_anew_behind_its_end(void **state)
{
    (void)state;
    struct ask put, again;
    begin(7, 5);
    sim_disk_stall(sim, 1, 3 * SECOND / 2);
    put_key(&nodes[1], &put, 1);
    sim_run_for(sim, SECOND / 20);
    sim_clock_jump(sim, 1, 6 * SECOND);
    sim_run_for(sim, SECOND / 5);
    grant(&nodes[1], &again, 1000);
    sim_clock_jump(sim, 1, 3 * SECOND);
    assert_int_equal(finish(&again), 0);
    sim_run_for(sim, SECOND);
    assert_true(all_have_lease(NULL));
    close_all();
}

/* The end waits for room in the log, while others that have some end the lease and grant it anew. */
static void test_granted_anew_before_its_end(void **state)
{
    (void)state;
    struct ask puts[7], end, again;
    begin(8, 5);
    sim_disk_stall(sim, 1, SECOND);
    put_key(&nodes[1], &puts[0], 0);
    sim_run_for(sim, SECOND / 20);
    submit_command(&nodes[2], &end, &(struct command){.type = COMMAND_LEASE_REVOKE, .lease_revoke = {.id = LEASE}});
    for (int i = 1; i < 7; i++) {
        sim_run_for(sim, SECOND / 50);
        put_key(&nodes[2 + i / 4], &puts[i], i);
    }
    sim_run_for(sim, SECOND / 20);
    sim_disk_slow(sim, 1, 20);
    sim_clock_jump(sim, 1, 6 * SECOND);
    sim_run_for(sim, SECOND / 5);
    assert_int_equal(finish(&end), 0);
    grant(&nodes[2], &again, 1000);
    assert_int_equal(finish(&again), 0);
    sim_disk_slow(sim, 1, 1);
    sim_run_for(sim, SECOND);
    assert_true(all_have_lease(NULL));
    for (int i = 0; i < 7; i++) (void)finish(&puts[i]);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decided_by_a_deposed_leader),
        cmocka_unit_test(test_renewed_by_a_deposed_leader),
        cmocka_unit_test(test_renewed_after_a_checkpoint),
        cmocka_unit_test(test_checkpoint_during_a_renewal),
        cmocka_unit_test(test_renewed_behind_a_long_command),
        cmocka_unit_test(test_answer_to_an_earlier_life),
        cmocka_unit_test(test_granted_anew_behind_its_end),
        cmocka_unit_test(test_granted_anew_before_its_end),
    };
    return cmocka_run_group_tests_name("lease clocks", tests, NULL, NULL);
}
