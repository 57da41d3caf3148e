/* Every defect of libraft 0.15 that the guard masks: visible with its mask off, gone with it on.
 * docs/raft.md lists them by the same names. First the ones that need a cluster (raft/fixture.h),
 * then the others on one instance whose disk, network and clock are moved by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <raft.h>
#include <raft/fixture.h>

#include "base/mem.h"
#include "raft/consensus_int.h"

/* ---- three members in the fixture ------------------------------------------------------------ */

static struct raft_fixture fixture;
static struct guard guards[3];
static struct {
    unsigned n;
    uint64_t value[4096];
    raft_index index[4096];
} machines[3];

static int machine_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    int i = (int)(intptr_t)fsm->data;
    uint64_t value;
    memcpy(&value, buf->base, sizeof value);
    machines[i].index[machines[i].n] = raft_last_applied(raft_fixture_get(&fixture, (unsigned)i));
    machines[i].value[machines[i].n++] = value;
    *result = NULL;
    return 0;
}

static int machine_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    (void)fsm, (void)bufs, (void)n;
    return RAFT_BUSY;
}

static int machine_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm;
    raft_free(buf->base);
    return 0;
}

static struct raft *member(unsigned i)
{
    return raft_fixture_get(&fixture, i);
}

static void fixture_start(unsigned masks)
{
    static struct raft_fsm fsms[3];
    memset(&fixture, 0, sizeof fixture);
    memset(machines, 0, sizeof machines);
    for (int i = 0; i < 3; i++) {
        fsms[i] = (struct raft_fsm){.version = 1, .data = (void *)(intptr_t)i};
        fsms[i].apply = machine_apply;
        fsms[i].snapshot = machine_snapshot;
        fsms[i].restore = machine_restore;
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    assert_int_equal(raft_fixture_init(&fixture, 3, fsms), 0);
#pragma GCC diagnostic pop
    struct raft_configuration conf;
    assert_int_equal(raft_fixture_configuration(&fixture, 3, &conf), 0);
    assert_int_equal(raft_fixture_bootstrap(&fixture, &conf), 0);
    raft_configuration_close(&conf);
    guard_masks = masks;
    for (unsigned i = 0; i < 3; i++) {
        guard_init(&guards[i], member(i)->io, member(i));
        guards[i].io.data = member(i);
        member(i)->io = &guards[i].io;
    }
    guard_masks = GUARD_ALL;
    assert_int_equal(raft_fixture_start(&fixture), 0);
}

static bool fixture_stop(bool result)
{
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned j = 0; j < 3; j++) {
            if (i != j) raft_fixture_saturate(&fixture, i, j);
        }
        guards[i].dead = true; /* nothing new is begun */
    }
    raft_fixture_step_until_elapsed(&fixture, 200);
    raft_fixture_close(&fixture);
    return result;
}

static void request_done(struct raft_apply *req, int status, void *result)
{
    (void)status, (void)result;
    free(req);
}

static int propose(unsigned i, uint64_t value)
{
    struct raft_apply *req = calloc(1, sizeof *req);
    struct raft_buffer buf = {raft_malloc(sizeof value), sizeof value};
    memcpy(buf.base, &value, sizeof value);
    int rv = raft_apply(member(i), req, &buf, 1, request_done);
    if (rv) {
        raft_free(buf.base);
        free(req);
    }
    return rv;
}

static void cut(unsigned a, unsigned b)
{
    raft_fixture_saturate(&fixture, a, b);
    raft_fixture_saturate(&fixture, b, a);
}

static void heal(unsigned a, unsigned b)
{
    raft_fixture_desaturate(&fixture, a, b);
    raft_fixture_desaturate(&fixture, b, a);
}

/* 524f735, 29bb302: true if a leader has moved its commit index to an entry of an older term. */
static bool commits_old_term(unsigned masks)
{
    fixture_start(masks);
    raft_fixture_elect(&fixture, 0);
    propose(0, 100);
    raft_fixture_step_until_applied(&fixture, 3, masks & GUARD_BARRIER ? 3 : 2, 2000);
    raft_fixture_step_until_elapsed(&fixture, 300);
    cut(0, 2);
    raft_fixture_saturate(&fixture, 1, 0);
    propose(0, 201); /* reaches 1, whose answer is lost */
    raft_fixture_step_until_elapsed(&fixture, 80);
    cut(0, 1);
    raft_fixture_step_until_state_is(&fixture, 1, RAFT_LEADER, 10000);
    raft_index before = member(1)->commit_index;
    for (raft_time end = fixture.time + 400; fixture.time < end;) {
        raft_fixture_step(&fixture);
        raft_index commit = member(1)->commit_index;
        if (member(1)->state != RAFT_LEADER || commit == before) continue;
        if (guard_log_term(member(1), commit) < member(1)->current_term) return fixture_stop(true);
    }
    assert_true(member(1)->commit_index > before || !(masks & GUARD_BARRIER));
    return fixture_stop(false);
}

static void test_old_term(void **state)
{
    (void)state;
    assert_true(commits_old_term(GUARD_ALL & ~GUARD_BARRIER));
    assert_true(commits_old_term(0));
    assert_false(commits_old_term(GUARD_ALL));
}

/* A stale suffix is acknowledged, and entries that nobody has are committed: true if two members
 * differ. */
static bool diverges(unsigned masks)
{
    fixture_start(masks);
    raft_fixture_elect(&fixture, 0);
    propose(0, 100);
    raft_fixture_step_until_elapsed(&fixture, 300);
    cut(0, 1);
    cut(0, 2);
    propose(0, 201);
    propose(0, 202); /* on 0 only */
    raft_fixture_step_until_elapsed(&fixture, 50);
    raft_fixture_step_until_state_is(&fixture, 1, RAFT_LEADER, 10000);
    cut(1, 2);
    heal(0, 1);
    for (int k = 0; k < 10000 && member(0)->current_term < member(1)->current_term; k++)
        raft_fixture_step(&fixture);
    propose(1, 301); /* before the answer to the first heartbeat comes */
    propose(1, 302);
    for (raft_time end = fixture.time + 3000; fixture.time < end && machines[1].n < 3;)
        raft_fixture_step(&fixture);
    cut(0, 1);
    cut(1, 2);
    heal(0, 2);
    raft_fixture_step_until_elapsed(&fixture, 6000);
    for (unsigned i = 0; i < 3; i += 2) {
        if (raft_state(member(i)) == RAFT_LEADER) propose(i, 400);
    }
    raft_fixture_step_until_elapsed(&fixture, 1500);
    for (unsigned i = 0; i < 3; i++) {
        unsigned n = machines[i].n < machines[1].n ? machines[i].n : machines[1].n;
        if (memcmp(machines[i].value, machines[1].value, n * sizeof *machines[i].value) != 0)
            return fixture_stop(true);
    }
    return fixture_stop(false);
}

static void test_stale_suffix(void **state)
{
    (void)state;
    assert_true(diverges(GUARD_ALL & ~(GUARD_BARRIER | GUARD_CLIP)));
    assert_true(diverges(0));
    assert_false(diverges(GUARD_ALL & ~GUARD_BARRIER)); /* either is enough here */
    assert_false(diverges(GUARD_ALL));
}

/* 1996d32: entries committed in five seconds of steady writing. */
static raft_index committed_under_load(unsigned masks)
{
    fixture_start(masks);
    raft_fixture_elect(&fixture, 0);
    raft_index before = member(0)->commit_index;
    raft_time end = fixture.time + 5000, next = fixture.time;
    while (fixture.time < end) {
        for (; next <= fixture.time; next += 2) {
            if (propose(0, next)) break;
        }
        raft_fixture_step(&fixture);
    }
    raft_index committed = member(0)->commit_index - before;
    fixture_stop(true);
    return committed;
}

static void test_frozen_commit(void **state)
{
    (void)state;
    assert_true(committed_under_load(GUARD_ALL & ~GUARD_HOLD) < 100);
    assert_true(committed_under_load(GUARD_ALL) > 2000);
}

/* What the rest of raft/ relies on: an entry's index is raft_last_applied() + 1 when it is applied.
 */
static void test_index_of_apply(void **state)
{
    (void)state;
    fixture_start(GUARD_ALL);
    raft_fixture_elect(&fixture, 0);
    for (uint64_t v = 1; v <= 5; v++) propose(0, v);
    raft_fixture_step_until_elapsed(&fixture, 1000);
    assert_int_equal(machines[0].n, 5);
    for (unsigned i = 1; i < 5; i++)
        assert_int_equal(machines[0].index[i], machines[0].index[i - 1] + 1);
    fixture_stop(true);
    assert_int_equal(machines[0].index[0] + 1, 3); /* members, barrier, then these */
}

/* ---- one instance, moved by hand ------------------------------------------------------------- */

struct rig_append {
    struct raft_io_append *req;
    raft_io_append_cb cb;
};

struct rig_send {
    struct raft_io_send *req;
    raft_io_send_cb cb;
};

struct rig {
    struct raft raft;
    struct raft_io io;
    struct raft_fsm fsm;
    struct guard guard;
    uint64_t now;
    raft_term term;
    raft_id voted_for;
    struct raft_message sent[256];
    struct rig_send sends[256];
    unsigned n_sent, n_done;
    struct rig_append appends[64];
    unsigned n_appends;
    unsigned truncated_in_flight;
    struct raft_io_snapshot_put *put;
    raft_io_snapshot_put_cb put_cb;
    struct raft_buffer *put_bufs;
    struct raft_io_snapshot_get *get;
    raft_io_snapshot_get_cb get_cb;
    raft_io_tick_cb tick;
    raft_io_recv_cb recv;
    raft_term terms[16]; /* of the log, from index 1 on */
    unsigned n_terms, extra_member_at, same_members_at;
    bool alone; /* it is the only voter */
    raft_index snapshot, trailing; /* entries that the log still has of it */
};

#define RIG(io_) ((struct rig *)(io_)->impl)

static int rig_init(struct raft_io *io, raft_id id, const char *address)
{
    (void)io, (void)id, (void)address;
    return 0;
}

static void rig_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct rig *g = RIG(io);
    for (; g->n_done < g->n_sent; g->n_done++) {
        if (g->sends[g->n_done].cb) g->sends[g->n_done].cb(g->sends[g->n_done].req, RAFT_CANCELED);
    }
    cb(io);
}

static struct raft_buffer rig_configuration(unsigned n)
{
    struct raft_configuration conf;
    struct raft_buffer buf;
    static const char *const names[] = {"1", "2", "3", "4"};
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(raft_configuration_add(&conf, i + 1, names[i], RAFT_VOTER), 0);
    assert_int_equal(raft_configuration_encode(&conf, &buf), 0);
    raft_configuration_close(&conf);
    return buf;
}

static int rig_load(struct raft_io *io, raft_term *term, raft_id *voted_for,
                    struct raft_snapshot **snapshot, raft_index *start,
                    struct raft_entry *entries[], size_t *n)
{
    struct rig *g = RIG(io);
    *term = g->term;
    *voted_for = g->voted_for;
    *snapshot = NULL;
    *start = 1;
    *n = g->n_terms;
    *entries = g->n_terms ? raft_calloc(g->n_terms, sizeof **entries) : NULL;
    for (unsigned i = 0; i < g->n_terms; i++) {
        struct raft_entry *e = &(*entries)[i];
        bool extra = i && i + 1 == g->extra_member_at;
        bool change = i == 0 || extra || i + 1 == g->same_members_at;
        e->term = g->terms[i];
        e->type = change ? RAFT_CHANGE : RAFT_COMMAND;
        e->buf =
            change ? rig_configuration(g->alone ? 1 : extra ? 4 : 3) : (struct raft_buffer){raft_calloc(1, 8), 8};
    }
    if (g->snapshot) {
        struct raft_snapshot *s = *snapshot = raft_calloc(1, sizeof *s);
        struct raft_buffer conf = rig_configuration(3);
        s->index = g->snapshot;
        s->term = 1;
        s->configuration_index = 1;
        assert_true(peers_decode_configuration(slice_make(conf.base, conf.len), &s->configuration));
        raft_free(conf.base);
        s->bufs = raft_malloc(sizeof *s->bufs);
        s->bufs[0] = (struct raft_buffer){raft_calloc(1, 8), 8};
        s->n_bufs = 1;
        *start = g->snapshot + 1 - g->trailing;
    }
    return 0;
}

static int rig_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    (void)msecs;
    RIG(io)->tick = tick;
    RIG(io)->recv = recv;
    return 0;
}

static int rig_set_term(struct raft_io *io, raft_term term)
{
    RIG(io)->term = term;
    return 0;
}

static int rig_set_vote(struct raft_io *io, raft_id id)
{
    RIG(io)->voted_for = id;
    return 0;
}

static int rig_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *m,
                    raft_io_send_cb cb)
{
    struct rig *g = RIG(io);
    assert_true(g->n_sent < 256);
    g->sends[g->n_sent] = (struct rig_send){req, cb};
    g->sent[g->n_sent++] = *m;
    return 0;
}

static int rig_append(struct raft_io *io, struct raft_io_append *req,
                      const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct rig *g = RIG(io);
    (void)entries, (void)n;
    g->appends[g->n_appends++] = (struct rig_append){req, cb};
    return 0;
}

static int rig_truncate(struct raft_io *io, raft_index index)
{
    (void)index;
    if (RIG(io)->n_appends) RIG(io)->truncated_in_flight++;
    return 0;
}

static int rig_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                   const struct raft_snapshot *s, raft_io_snapshot_put_cb cb)
{
    (void)trailing;
    RIG(io)->put_bufs = s->bufs;
    RIG(io)->put = req;
    RIG(io)->put_cb = cb;
    return 0;
}

static int rig_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
    RIG(io)->get = req;
    RIG(io)->get_cb = cb;
    return 0;
}

static raft_time rig_time(struct raft_io *io)
{
    return RIG(io)->now;
}

static int rig_random(struct raft_io *io, int min, int max)
{
    (void)io, (void)min;
    return max - 1;
}

static int rig_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm, (void)buf;
    *result = NULL;
    return 0;
}

/* Member 1 of 3, a follower at `term`, whose log has these terms. */
static struct rig *rig_new(unsigned masks, raft_term term, unsigned n, const raft_term *terms)
{
    struct rig *g = mem_must_calloc(1, sizeof *g);
    consensus_use_heap();
    g->now = 100000;
    g->term = term;
    g->n_terms = n;
    for (unsigned i = 0; i < n; i++) g->terms[i] = terms[i];
    g->io = (struct raft_io){.version = 1,
                             .impl = g,
                             .init = rig_init,
                             .close = rig_close,
                             .load = rig_load,
                             .start = rig_start,
                             .set_term = rig_set_term,
                             .set_vote = rig_set_vote,
                             .send = rig_send,
                             .append = rig_append,
                             .truncate = rig_truncate,
                             .snapshot_put = rig_put,
                             .snapshot_get = rig_get,
                             .time = rig_time,
                             .random = rig_random};
    g->fsm = (struct raft_fsm){
        .version = 1, .apply = rig_apply, .snapshot = machine_snapshot, .restore = machine_restore};
    guard_masks = masks;
    guard_init(&g->guard, &g->io, &g->raft);
    guard_masks = GUARD_ALL;
    g->guard.ctx = g;
    assert_int_equal(raft_init(&g->raft, &g->guard.io, &g->fsm, 1, "1"), 0);
    raft_set_pre_vote(&g->raft, true);
    return g;
}

static struct rig *rig_started(struct rig *g)
{
    assert_int_equal(raft_start(&g->raft), 0);
    return g;
}

static bool rig_free(struct rig *g, bool result)
{
    if (g->put) g->put_cb(g->put, RAFT_CANCELED);
    if (g->get) g->get_cb(g->get, NULL, RAFT_CANCELED);
    for (unsigned i = 0; i < g->n_appends; i++) g->appends[i].cb(g->appends[i].req, 0);
    raft_close(&g->raft, NULL);
    mem_free(g);
    return result;
}

/* The address is gone when the call is over: the member that sent it may be removed, or move. */
static void deliver(struct rig *g, raft_id from, struct raft_message m)
{
    char address[] = {(char)('0' + from), 0};
    m.server_id = from;
    m.server_address = address;
    g->recv(&g->io, &m);
    memset(address, '?', 1);
}

static void append_entries(struct rig *g, raft_id from, raft_term term, raft_index prev,
                           raft_term prev_term, raft_index commit, unsigned n)
{
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES};
    m.append_entries = (struct raft_append_entries){
        .term = term, .prev_log_index = prev, .prev_log_term = prev_term};
    m.append_entries.leader_commit = commit;
    m.append_entries.n_entries = n;
    if (n) {
        uint8_t *batch = raft_calloc(n, 8);
        m.append_entries.entries = raft_calloc(n, sizeof *m.append_entries.entries);
        for (unsigned i = 0; i < n; i++) {
            m.append_entries.entries[i] = (struct raft_entry){
                .term = term, .type = RAFT_COMMAND, .buf = {batch + 8 * i, 8}, .batch = batch};
        }
    }
    deliver(g, from, m);
}

static void append_done(struct rig *g)
{
    struct rig_append a = g->appends[0];
    memmove(g->appends, g->appends + 1, --g->n_appends * sizeof *g->appends);
    a.cb(a.req, 0);
}

static const struct raft_message *last_sent(const struct rig *g, unsigned short type, raft_id to)
{
    for (unsigned i = g->n_sent; i-- > 0;) {
        if (g->sent[i].type == type && g->sent[i].server_id == to) return &g->sent[i];
    }
    return NULL;
}

static unsigned count_sent(const struct rig *g, unsigned short type)
{
    unsigned n = 0;
    for (unsigned i = 0; i < g->n_sent; i++) n += g->sent[i].type == type;
    return n;
}

static void vote(struct rig *g, raft_id from, raft_term term, bool pre)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE_RESULT};
    m.request_vote_result =
        (struct raft_request_vote_result){.term = term,
                                          .vote_granted = true,
                                          .pre_vote = pre ? raft_tribool_true : raft_tribool_false};
    deliver(g, from, m);
}

static void ask_vote(struct rig *g, raft_id from, raft_term term, bool pre, bool disrupt)
{
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE};
    m.request_vote =
        (struct raft_request_vote){.term = term, .candidate_id = from, .last_log_index = 100};
    m.request_vote.last_log_term = term;
    m.request_vote.pre_vote = pre;
    m.request_vote.disrupt_leader = disrupt;
    deliver(g, from, m);
}

static void make_leader(struct rig *g)
{
    g->now += 5000;
    g->tick(&g->io);
    vote(g, 2, g->term + 1, true);
    vote(g, 2, g->term, false);
    assert_int_equal(g->raft.state, RAFT_LEADER);
}

static void acknowledge(struct rig *g, raft_id from, raft_index last, raft_index rejected)
{
    struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT};
    m.append_entries_result =
        (struct raft_append_entries_result){.term = g->term, .last_log_index = last, .rejected = rejected};
    deliver(g, from, m);
}

static const raft_term three[] = {1, 1, 1};

/* Runs a case with its mask off and on: the defect must show in the first and not in the second. */
static void assert_masked(bool (*shows)(unsigned masks), unsigned mask, unsigned without)
{
    assert_true(shows(GUARD_ALL & ~mask & ~without));
    assert_false(shows(GUARD_ALL & ~without));
}

static bool shows_unverified_commit(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 2, 1, 3, 0); /* says nothing of entry 3, which is another history's */
    return rig_free(g, g->raft.commit_index > 2);
}

static bool shows_unverified_ack(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 2, 1, 2, 0);
    const struct raft_message *m = last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 2);
    assert_non_null(m);
    assert_int_equal(m->append_entries_result.rejected, 0);
    return rig_free(g, m->append_entries_result.last_log_index > 2);
}

static bool shows_ack_to_next_leader(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 3, 1, 1, 1);
    append_entries(g, 3, 3, 2, 1, 1, 0); /* another leader, which has no entry 3 */
    append_done(g);
    const struct raft_message *m = last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 3);
    return rig_free(g, m && m->append_entries_result.rejected == 0 &&
                           m->append_entries_result.last_log_index > 2);
}

static bool shows_election_while_appending(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 3, 1, 1, 1);
    g->now += 5000;
    g->tick(&g->io);
    return rig_free(g, g->raft.state == RAFT_CANDIDATE);
}

static bool shows_timeout_now_while_appending(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 3, 1, 1, 1);
    struct raft_message m = {.type = RAFT_IO_TIMEOUT_NOW,
                             .timeout_now = {.term = 2, .last_log_index = 4, .last_log_term = 2}};
    deliver(g, 2, m);
    return rig_free(g, g->raft.state == RAFT_CANDIDATE);
}

static struct rig *installing(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    struct raft_message m = {.type = RAFT_IO_INSTALL_SNAPSHOT};
    struct raft_buffer conf = rig_configuration(3);
    m.install_snapshot = (struct raft_install_snapshot){
        .term = 2, .last_index = 10, .last_term = 2, .conf_index = 1};
    assert_true(
        peers_decode_configuration(slice_make(conf.base, conf.len), &m.install_snapshot.conf));
    raft_free(conf.base);
    m.install_snapshot.data = (struct raft_buffer){raft_calloc(1, 8), 8};
    deliver(g, 2, m);
    assert_non_null(g->put);
    return g;
}

static bool shows_election_while_installing(unsigned masks)
{
    struct rig *g = installing(masks);
    g->now += 5000;
    g->tick(&g->io);
    bool candidate = g->raft.state == RAFT_CANDIDATE;
    struct raft_io_snapshot_put *put = g->put;
    g->put = NULL;
    if (!candidate) { /* with the mask on it goes on as it should */
        g->put_cb(put, 0);
        assert_int_equal(g->raft.last_applied, 10);
        assert_int_equal(
            last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 2)->append_entries_result.last_log_index,
            10);
        return rig_free(g, false);
    }
    raft_free(
        g->raft.candidate_state.votes); /* libraft would now read them as a leader's address */
    g->raft.state = RAFT_FOLLOWER;
    memset(&g->raft.follower_state, 0, sizeof g->raft.follower_state);
    struct raft_buffer *bufs = g->put_bufs;
    g->put_cb(put, RAFT_CANCELED);
    raft_free(bufs);
    return rig_free(g, true);
}

static bool shows_vote_while_installing(unsigned masks)
{
    struct rig *g = installing(masks);
    ask_vote(g, 3, 5, false, true);
    struct raft_io_snapshot_put *put = g->put;
    g->put = NULL;
    bool shows = count_sent(g, RAFT_IO_REQUEST_VOTE_RESULT) > 0;
    g->put_cb(put, 0);
    return rig_free(g, shows);
}

static bool shows_truncate_in_flight(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 2, 3, 1, 1, 1);
    append_entries(g, 3, 3, 3, 1, 1, 1); /* the same place, another term */
    bool shows = g->truncated_in_flight > 0;
    while (g->n_appends) append_done(g);
    assert_string_equal(g->raft.follower_state.current_leader.address, "3");
    assert_int_equal(guard_log_term(&g->raft, 4), 3);
    assert_int_equal(g->raft.last_stored, 4);
    return rig_free(g, shows);
}

static bool shows_second_vote(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    make_leader(g);
    if (g->n_appends) append_done(g);
    struct raft_transfer transfer;
    assert_int_equal(raft_transfer(&g->raft, &transfer, 2, NULL), 0);
    ask_vote(g, 2, g->term, false, true); /* in the term in which we voted for ourselves */
    const struct raft_message *m = last_sent(g, RAFT_IO_REQUEST_VOTE_RESULT, 2);
    return rig_free(g, m && m->request_vote_result.vote_granted);
}

static bool shows_compacted_reject(unsigned masks)
{
    struct rig *g = rig_new(masks, 1, 0, NULL);
    g->snapshot = 5;
    rig_started(g);
    append_entries(g, 2, 2, 3, 1, 5, 0);
    const struct raft_message *m = last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 2);
    assert_non_null(m);
    return rig_free(g, m->append_entries_result.rejected != 0);
}

/* With the mask off libraft damages its log here, so only the other way. */
static void test_compacted_entries(void **state)
{
    (void)state;
    struct rig *g = rig_new(GUARD_ALL, 1, 0, NULL);
    g->snapshot = 5;
    rig_started(g);
    append_entries(g, 2, 1, 0, 0, 5, 3); /* all of it is in the snapshot */
    assert_int_equal(
        last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 2)->append_entries_result.last_log_index, 5);
    append_entries(g, 2, 1, 3, 1, 5, 4); /* half of it is */
    assert_int_equal(raft_last_index(&g->raft), 7);
    append_done(g);
    assert_int_equal(
        last_sent(g, RAFT_IO_APPEND_ENTRIES_RESULT, 2)->append_entries_result.last_log_index, 7);
    rig_free(g, true);
}

static bool shows_stale_leader(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    append_entries(g, 2, 1, 3, 1, 1, 0);
    g->now += 1500; /* beyond the election timeout, before our own timer */
    ask_vote(g, 3, 2, true, false);
    const struct raft_message *m = last_sent(g, RAFT_IO_REQUEST_VOTE_RESULT, 3);
    return rig_free(g, !m || !m->request_vote_result.vote_granted);
}

static bool shows_lost_timeout_now(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    struct raft_transfer transfer;
    make_leader(g);
    append_done(g);
    acknowledge(g, 2, 4, 0);
    assert_int_equal(raft_transfer(&g->raft, &transfer, 2, NULL), 0);
    for (int i = 0; i < 3; i++) {
        g->now += 100;
        g->tick(&g->io);
    }
    return rig_free(g, count_sent(g, RAFT_IO_TIMEOUT_NOW) < 2);
}

static bool shows_probe_from_start(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    make_leader(g);
    for (unsigned i = 0; i < g->n_sent; i++) {
        if (g->sent[i].type != RAFT_IO_APPEND_ENTRIES || !g->sends[i].cb) continue;
        g->sends[i].cb(g->sends[i].req, RAFT_NOCONNECTION);
        g->sends[i].cb = NULL;
    }
    return rig_free(g, g->raft.leader_state.progress[1].next_index == 1);
}

static bool shows_rising_term(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    g->now += 5000;
    g->tick(&g->io);
    vote(g, 2, 2, true); /* then it is cut off */
    assert_int_equal(g->term, 2);
    for (int i = 0; i < 5; i++) {
        g->now += 5000;
        g->tick(&g->io);
    }
    return rig_free(g, g->term > 2);
}

/* A member of term 4 with the longer log asks one of term 6 for a pre-vote. */
static bool shows_hidden_term(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    ask_vote(g, 3, 6, false, false);
    assert_int_equal(g->term, 6);
    unsigned before = g->n_sent;
    ask_vote(g, 2, 5, true, false);
    assert_int_equal(g->n_sent, before + 1);
    const struct raft_request_vote_result *v = &g->sent[before].request_vote_result;
    assert_false(v->vote_granted);
    return rig_free(g, v->term != 6);
}

static bool shows_sole_voter(unsigned masks)
{
    struct rig *g = rig_new(masks, 1, 3, three);
    g->alone = true;
    rig_started(g);
    assert_int_equal(g->raft.state, RAFT_LEADER);
    assert_int_equal(g->raft.current_term, g->term);
    return rig_free(g, g->term == 1);
}

static bool shows_kept_configuration(unsigned masks)
{
    struct rig *g = rig_new(masks, 1, 3, three);
    g->extra_member_at = 3; /* never committed; then a restart */
    rig_started(g);
    append_entries(g, 2, 2, 2, 1, 1, 1);
    return rig_free(g, g->raft.configuration.n == 4);
}

/* A promotion that is in the candidate's log only: this member is a stand-by to its own knowledge. */
static bool shows_refused_vote_of_learner(unsigned masks)
{
    struct rig *g = rig_started(rig_new(masks, 1, 3, three));
    g->raft.configuration.servers[0].role = RAFT_STANDBY;
    g->now += 5000;
    struct raft_message m = {.type = RAFT_IO_REQUEST_VOTE, .server_id = 2, .server_address = "2"};
    m.request_vote = (struct raft_request_vote){.term = 5, .candidate_id = 2, .last_log_index = 9, .last_log_term = 4};
    g->recv(&g->io, &m);
    assert_int_equal(g->raft.configuration.servers[0].role, RAFT_STANDBY);
    return rig_free(g, g->voted_for != 2);
}

/* Two configurations in a log of which only the first entry is known to be committed: when the older of them commits, libraft
 * believes so of the newer one, and keeps that when it is cut off. */
static bool shows_configuration_of_replay(unsigned masks)
{
    static const raft_term terms[] = {1, 1, 1, 1, 1};
    struct rig *g = rig_new(masks, 1, 5, terms);
    g->same_members_at = 3;
    g->extra_member_at = 5;
    rig_started(g);
    append_entries(g, 2, 1, 3, 1, 3, 0);
    assert_int_equal(g->raft.last_applied, 3);
    append_entries(g, 2, 2, 4, 1, 3, 1); /* another leader, another entry 5 */
    return rig_free(g, g->raft.configuration.n == 4);
}

static void test_second_leader(void **state)
{
    (void)state;
    struct rig *g = rig_started(rig_new(GUARD_ALL, 1, 3, three));
    make_leader(g);
    append_entries(g, 2, g->term, 2, 1, 1, 1);
    assert_int_equal(g->raft.state, RAFT_LEADER);
    assert_int_equal(raft_last_index(&g->raft), 4);
    rig_free(g, true);
}

/* The snapshot is of entry 10, the log begins at 6: a peer that has nothing is sent the snapshot until it has 6, whose term is
 * the first that is known. */
static void test_snapshot_not_needed(void **state)
{
    (void)state;
    static const raft_term terms[] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (raft_index has = 3; has <= 13; has++) {
        struct rig *g = rig_new(GUARD_ALL, 1, 8, terms);
        struct guard_progress p;
        g->snapshot = 10;
        g->trailing = 5;
        rig_started(g);
        assert_false(guard_progress(&g->guard, 2, &p));
        make_leader(g);
        append_done(g);
        g->now += 200; /* libraft probes once in a heartbeat */
        acknowledge(g, 2, 0, 13);
        assert_non_null(g->get);
        assert_true(guard_progress(&g->guard, 2, &p));
        assert_int_equal(p.sending, GUARD_SNAPSHOT);
        assert_int_equal(p.has, 10);
        acknowledge(g, 2, has, 0); /* of an older snapshot, or of what it had all along */
        assert_true(guard_progress(&g->guard, 2, &p));
        assert_int_equal(p.sending == GUARD_SNAPSHOT, has < 6);
        assert_int_equal(p.has, has < 6 ? 10 : has);
        const struct raft_message *m = last_sent(g, RAFT_IO_APPEND_ENTRIES, 2);
        assert_int_equal(m->append_entries.prev_log_index, has < 6 ? 13 : has); /* goes on from there */
        assert_false(guard_progress(&g->guard, 9, &p));
        rig_free(g, true);
    }
}

#define MASKED(name, shows, mask, without)                                                         \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        assert_masked(shows, mask, without);                                                       \
    }

MASKED(test_unverified_commit, shows_unverified_commit, GUARD_COMMIT_CLAMP, 0)
MASKED(test_unverified_ack, shows_unverified_ack, GUARD_CLIP, 0)
MASKED(test_ack_to_next_leader, shows_ack_to_next_leader, GUARD_STALE_RESULT, GUARD_DRAIN)
MASKED(test_election_while_appending, shows_election_while_appending, GUARD_APPENDING, 0)
MASKED(test_timeout_now_while_appending, shows_timeout_now_while_appending, GUARD_APPENDING, 0)
MASKED(test_election_while_installing, shows_election_while_installing, GUARD_INSTALLING, 0)
MASKED(test_vote_while_installing, shows_vote_while_installing, GUARD_INSTALLING, 0)
MASKED(test_truncate_in_flight, shows_truncate_in_flight, GUARD_DRAIN, 0)
MASKED(test_second_vote, shows_second_vote, GUARD_DOUBLE_VOTE, 0)
MASKED(test_compacted_reject, shows_compacted_reject, GUARD_COMPACTED, 0)
MASKED(test_stale_leader, shows_stale_leader, GUARD_STALE_LEADER, 0)
MASKED(test_lost_timeout_now, shows_lost_timeout_now, GUARD_TRANSFER, 0)
MASKED(test_probe_from_start, shows_probe_from_start, GUARD_PROBE_BACK, 0)
MASKED(test_rising_term, shows_rising_term, GUARD_PRE_VOTE, 0)
MASKED(test_hidden_term, shows_hidden_term, GUARD_PRE_VOTE_TERM, 0)
MASKED(test_sole_voter, shows_sole_voter, GUARD_SOLE_VOTER, 0)
MASKED(test_kept_configuration, shows_kept_configuration, GUARD_CONFIGURATION, 0)
MASKED(test_refused_vote_of_learner, shows_refused_vote_of_learner, GUARD_LEARNER_VOTE, 0)
MASKED(test_configuration_of_replay, shows_configuration_of_replay, GUARD_CONFIGURATION, 0)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_term),
        cmocka_unit_test(test_stale_suffix),
        cmocka_unit_test(test_frozen_commit),
        cmocka_unit_test(test_index_of_apply),
        cmocka_unit_test(test_unverified_commit),
        cmocka_unit_test(test_unverified_ack),
        cmocka_unit_test(test_ack_to_next_leader),
        cmocka_unit_test(test_election_while_appending),
        cmocka_unit_test(test_timeout_now_while_appending),
        cmocka_unit_test(test_election_while_installing),
        cmocka_unit_test(test_vote_while_installing),
        cmocka_unit_test(test_truncate_in_flight),
        cmocka_unit_test(test_second_vote),
        cmocka_unit_test(test_compacted_reject),
        cmocka_unit_test(test_compacted_entries),
        cmocka_unit_test(test_stale_leader),
        cmocka_unit_test(test_lost_timeout_now),
        cmocka_unit_test(test_probe_from_start),
        cmocka_unit_test(test_rising_term),
        cmocka_unit_test(test_hidden_term),
        cmocka_unit_test(test_sole_voter),
        cmocka_unit_test(test_kept_configuration),
        cmocka_unit_test(test_refused_vote_of_learner),
        cmocka_unit_test(test_configuration_of_replay),
        cmocka_unit_test(test_second_leader),
        cmocka_unit_test(test_snapshot_not_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
