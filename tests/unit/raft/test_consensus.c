/* The whole of consensus.h in the simulated world: writing, forwarding, reading, leader change,
 * restart. */
#include "cluster.h"

static void test_one_member(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 1, 1);
    struct node *n = cluster_wait_leader(&k);
    assert_true(sim_now_us(k.sim) < 200000); /* nobody to wait for */
    for (uint64_t v = 1; v <= 20; v++) node_write(n, v);
    assert_int_equal(n->own_tag, 20);
    assert_int_equal(node_read(n), 0);
    node_close(n);
    node_boot(&k, 1);
    assert_true(cluster_wait_value(&k, 20, 0));
    assert_int_equal(n->n, 20);
    cluster_stop(&k);
}

static void test_three_members(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 2);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 50; v++) node_write(n, v);
    assert_true(cluster_wait_value(&k, 50, 0));
    assert_same_logs(&k);
    struct consensus_status s;
    consensus_get_status(n->c, &s);
    assert_int_equal(s.role, CONSENSUS_LEADER);
    assert_int_equal(s.leader_id, n->id);
    assert_int_equal(s.commit_index, s.last_index);
    assert_int_equal(s.proposals, 50);
    const struct consensus_member *m;
    assert_int_equal(consensus_members(n->c, &m), 3);
    assert_string_equal(m[1].name, "n2");
    assert_string_equal(m[1].peer_url, "http://10.0.0.2:2380");
    cluster_stop(&k);
}

static void test_forwarding(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 3);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1];
    sim_run_for(k.sim, SECOND);
    for (uint64_t v = 1; v <= 30; v++) node_write(n, v);
    assert_int_equal(n->own_tag, 30);
    assert_int_equal(leader->own_tag, 0);
    assert_true(cluster_wait_value(&k, 30, 0));
    assert_same_logs(&k);
    assert_int_equal(n->n, 30); /* each once */
    cluster_stop(&k);
}

static void test_reads(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 4);
    struct node *leader = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 20; v++) {
        node_write(leader, v);
        for (uint64_t id = 1; id <= 3; id++) {
            assert_int_equal(node_read(&k.nodes[id]), 0);
            assert_true(node_has(&k.nodes[id], v));
        }
    }
    struct consensus_status s;
    consensus_get_status(leader->c, &s);
    assert_true(s.read_rounds >= 60);
    assert_true(s.ready);
    cluster_stop(&k);
}

static void test_leader_dies(void **state)
{
    (void)state;
    struct cluster k;
    uint64_t worst = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        cluster_start(&k, 3, seed);
        struct node *old = cluster_wait_leader(&k);
        sim_run_for(k.sim, SECOND);
        node_write(old, 1);
        uint64_t id = old->id;
        node_crash(old, SIM_POWER);
        old->leads = false;
        uint64_t start = sim_now_us(k.sim);
        struct node *next = cluster_wait_leader(&k);
        node_write(next, 2);
        uint64_t took = sim_now_us(k.sim) - start;
        if (took > worst) worst = took;
        node_boot(&k, id);
        assert_true(cluster_wait_value(&k, 2, 0));
        node_write(next, 3);
        assert_true(cluster_wait_value(&k, 3, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
    assert_true(worst < SECOND);
}

static void test_restart_all(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 6);
    struct node *n = cluster_wait_leader(&k);
    for (uint64_t v = 1; v <= 200; v++) node_write_sized(n, v, 3000); /* several segments */
    for (unsigned i = 1; i <= 3; i++) node_crash(&k.nodes[i], SIM_POWER);
    cluster_boot(&k);
    n = cluster_wait_leader(&k);
    node_write(n, 201);
    assert_true(cluster_wait_value(&k, 201, 0));
    assert_int_equal(n->n, 201);
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_no_leader(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 7);
    struct node *n = cluster_wait_leader(&k);
    sim_run_for(k.sim, SECOND);
    sim_partition(k.sim, (uint64_t)1 << n->id, false);
    assert_int_equal(node_propose(n, 1, 1), 0); /* it does not know yet */
    uint64_t failed_before = n->failed_tag;
    assert_int_equal(failed_before, 0);
    assert_int_not_equal(node_read(n), 0); /* nobody confirms it */
    assert_int_equal(n->leader, 0);
    assert_int_equal(node_propose(n, 2, 2), ERR_NO_LEADER);
    struct node *other = NULL;
    for (unsigned i = 1; i <= 3; i++) {
        if (k.nodes[i].leads) other = &k.nodes[i];
    }
    assert_non_null(other);
    node_write(other, 3);
    sim_heal_all(k.sim);
    assert_true(cluster_wait_value(&k, 3, 0));
    assert_int_equal(n->failed_tag, 1);
    assert_false(node_has(n, 1));
    cluster_stop(&k);
}

static void transfer_done(void *data, int error)
{
    *(int *)data = error;
}

struct transfer_wait {
    int *result;
};

static bool transferred(void *arg)
{
    return *((struct transfer_wait *)arg)->result != 1;
}

static void test_transfer(void **state)
{
    (void)state;
    struct cluster k;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        cluster_start(&k, 3, seed);
        struct node *n = cluster_wait_leader(&k), *to = &k.nodes[n->id % 3 + 1];
        sim_run_for(k.sim, SECOND);
        node_write(n, 1);
        int result = 1;
        struct transfer_wait w = {&result};
        assert_int_equal(consensus_transfer(to->c, n->id, transfer_done, &result), ERR_NOT_LEADER);
        assert_int_equal(consensus_transfer(n->c, 99, transfer_done, &result),
                         ERR_MEMBER_NOT_FOUND);
        assert_int_equal(consensus_transfer(n->c, to->id, transfer_done, &result), 0);
        assert_int_equal(consensus_transfer(n->c, to->id, transfer_done, &result), ERR_BUSY);
        uint64_t start = sim_now_us(k.sim);
        assert_true(sim_run_until(k.sim, transferred, &w, 5 * SECOND));
        assert_int_equal(result, 0);
        assert_true(sim_now_us(k.sim) - start < SECOND / 2);
        assert_int_equal(n->leader, to->id);
        node_write(to, 2);
        node_write(n, 3);
        assert_true(cluster_wait_value(&k, 3, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
}

static void move_lead(struct node *from, struct node *to)
{
    int result = 1;
    struct transfer_wait w = {&result};
    assert_int_equal(consensus_transfer(from->c, to->id, transfer_done, &result), 0);
    assert_true(sim_run_until(from->cluster->sim, transferred, &w, 5 * SECOND));
    assert_int_equal(result, 0);
}

static bool has_failed(void *arg)
{
    return ((struct node *)arg)->failed_tag != 0;
}

/* A proposal is on its way for long; meanwhile its leader loses the lead and has it again, in a later term. Who made it was told that
 * it will never be there. */
static void test_late_proposal(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 11);
    struct node *leader = cluster_wait_leader(&k), *n = &k.nodes[leader->id % 3 + 1], *other = &k.nodes[n->id % 3 + 1];
    sim_run_for(k.sim, SECOND);
    node_write(leader, 1);
    assert_true(cluster_wait_value(&k, 1, 0));
    sim_link_delay(k.sim, n->id, leader->id, 4 * SECOND);
    assert_int_equal(node_propose(n, 99, 99), 0);
    move_lead(leader, other);
    node_write(other, 2);
    move_lead(other, leader);
    node_write(leader, 3);
    assert_true(sim_run_until(k.sim, has_failed, n, 2 * SECOND));
    assert_int_equal(n->failed_error, ERR_NO_LEADER);
    sim_link_delay(k.sim, n->id, leader->id, 0);
    sim_run_for(k.sim, 10 * SECOND);
    assert_true(leader->leads);
    node_write(n, 4);
    assert_true(cluster_wait_value(&k, 4, 0));
    assert_false(node_has(leader, 99));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static void test_messages(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 9);
    cluster_wait_leader(&k);
    assert_int_equal(consensus_message(k.nodes[1].c, 2, SLICE_LIT("renew")), 0);
    assert_int_equal(consensus_message(k.nodes[1].c, 9, SLICE_LIT("renew")), ERR_CLOSED);
    sim_run_for(k.sim, SECOND);
    assert_int_equal(k.nodes[2].messages, 1);
    assert_int_equal(k.nodes[2].last_message, 1005);
    cluster_stop(&k);
}

static void test_back_pressure(void **state)
{
    (void)state;
    struct cluster k;
    cluster_start(&k, 3, 10);
    struct node *n = cluster_wait_leader(&k);
    uint64_t v = 1;
    while (node_propose(n, v, v) == 0) v++;
    assert_int_equal(v, 5); /* 4 are on their way to the disk */
    assert_int_equal(node_propose(n, v, v), ERR_AGAIN);
    uint64_t before = n->writable;
    sim_run_for(k.sim, SECOND);
    assert_true(n->writable > before);
    assert_int_equal(node_propose(n, v, v), 0);
    assert_true(cluster_wait_value(&k, v, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

static bool node_is_fatal(void *arg)
{
    return ((struct node *)arg)->fatal;
}

/* A disk that fails or fills up stops that member, with a clear last line, and nothing else. */
static void test_disk_fails(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 24; nth++) {
        struct cluster k;
        cluster_start(&k, 3, 50 + nth);
        struct node *n = cluster_wait_leader(&k), *victim = &k.nodes[1 + nth % 3];
        sim_run_for(k.sim, SECOND);
        node_write(n, 1);
        if (nth > 12)
            sim_disk_capacity(k.sim, victim->id, sim_disk_used(k.sim, victim->id) + nth * 1000);
        else sim_disk_fail_nth(k.sim, victim->id, nth);
        uint64_t v = 2;
        for (; !victim->fatal && v < 4000; v++) {
            for (unsigned i = 1; i <= 3; i++) {
                if (!k.nodes[i].fatal)
                    (void)!node_propose_sized(&k.nodes[i], v * 10 + i, v * 10 + i, 3000);
            }
            sim_run_for(k.sim, 3000);
        }
        assert_true(sim_run_until(k.sim, node_is_fatal, victim, 10 * SECOND));
        assert_int_equal(victim->fatal_error, nth > 12 ? ERR_NO_SPACE : ERR_IO);
        assert_non_null(strstr(victim->fatal_text, "write-ahead log"));
        size_t applied = victim->n;
        victim->leads = false;
        struct node *other = NULL;
        for (unsigned i = 1; i <= 3; i++) {
            if (&k.nodes[i] != victim) other = &k.nodes[i];
        }
        sim_run_for(k.sim, 3 * SECOND);
        node_write(other, 100000);
        assert_int_equal(victim->n, applied); /* nothing more is called */
        assert_int_equal(node_propose(victim, 5, 5), ERR_CLOSED);
        node_close(victim);
        sim_disk_capacity(k.sim, victim->id, 0);
        node_boot(&k, victim->id);
        assert_true(cluster_wait_value(&k, 100000, 0));
        assert_same_logs(&k);
        cluster_stop(&k);
    }
}

static void test_flags(void **state)
{
    (void)state;
    struct cluster k;
    struct err e = {{0}};
    cluster_init(&k, 3, 11);
    k.config.cluster_id = 5;
    k.members[1].id = 1;
    assert_int_equal(node_try_boot(&k, 1, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "same id"));
    k.members[1].id = 2;
    k.members[1].peer_url = "";
    assert_int_equal(node_try_boot(&k, 1, &e), ERR_INVALID);
    k.members[1].peer_url = k.urls[1];
    assert_int_equal(node_try_boot(&k, 1, &e), 0);
    node_close(&k.nodes[1]);
    k.config.cluster_id = 6;
    assert_int_equal(node_try_boot(&k, 1, &e), ERR_CLUSTER_MISMATCH);
    cluster_stop(&k);
}

static void test_ids(void **state)
{
    (void)state;
    /* As etcd names them: three members of the default token. */
    const char *u1[] = {"http://127.0.0.1:2380"}, *two[] = {"http://b:1", "http://a:1"},
               *sorted[] = {"http://a:1", "http://b:1"};
    assert_int_equal(consensus_member_id(two, 2, "t"), consensus_member_id(sorted, 2, "t"));
    assert_int_not_equal(consensus_member_id(two, 2, "t"), consensus_member_id(two, 2, "u"));
    uint64_t id = consensus_member_id(u1, 1, "etcd-cluster");
    uint64_t ids[] = {id, 3}, swapped[] = {3, id};
    assert_int_equal(consensus_cluster_id(ids, 2), consensus_cluster_id(swapped, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_member),  cmocka_unit_test(test_three_members),
        cmocka_unit_test(test_forwarding),  cmocka_unit_test(test_reads),
        cmocka_unit_test(test_leader_dies), cmocka_unit_test(test_restart_all),
        cmocka_unit_test(test_no_leader),   cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_late_proposal), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_disk_fails),
        cmocka_unit_test(test_flags), cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
