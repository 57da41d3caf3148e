/* Memory that cannot be had, in raft: what a member asks for as it opens its folder, takes pieces of a snapshot, and lives among others.
 * An error, or a process that ends and says why; nothing that was acknowledged is lost, and nothing healthy is taken for damaged. */
#include "cluster.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "raft/frames_int.h"

#define SIZE 500
#define VALUES 120 /* as many as make a snapshot or two */

static void small_limits(struct cluster *k)
{
    k->config.snapshot_log_bytes = 20000;
    k->config.trailing_log_bytes = 2000;
    k->config.segment_bytes = 64 * 1024;
}

/* ---- a folder is opened ------------------------------------------------------------------------- */

/* Each allocation of an open fails once; after that the next open finds all there is, nothing set aside. */
static void test_open(void **state)
{
    (void)state;
    struct cluster k;
    unsigned refused = 0;
    cluster_init(&k, 3, 1);
    small_limits(&k);
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k), *restarted = &k.nodes[n->id % 3 + 1];
    for (uint64_t v = 1; v <= VALUES; v++) node_write_sized(n, v, SIZE);
    assert_true(cluster_wait_value(&k, VALUES, 0));
    sim_run_for(k.sim, SECOND);
    bool reached = true;
    for (uint64_t nth = 1; reached; nth++) {
        struct err e = {{0}};
        node_close(restarted);
        mem_fail_nth(nth);
        int rv = node_try_boot(&k, restarted->id, &e);
        reached = mem_fail_nth(0);
        if (rv) {
            assert_true(reached);
            assert_int_equal(rv, ERR_NOMEM);
            if (e.text[0] && !strstr(e.text, "out of memory")) fail_msg("allocation %d: said: %s", (int)nth, e.text);
            refused++;
            node_boot(&k, restarted->id);
        }
        assert_int_equal(restarted->restores, 1);
        assert_true(cluster_wait_value(&k, VALUES, 0));
        struct consensus_status s = status_of(restarted);
        assert_true(!s.recovering && s.healed == 0 && s.set_aside == 0);
    }
    assert_true(refused > 5);
    node_write(cluster_wait_leader(&k), VALUES + 1);
    assert_true(cluster_wait_value(&k, VALUES + 1, 0));
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* ---- a snapshot comes in pieces ----------------------------------------------------------------- */

struct starved {
    uint64_t id;
    unsigned lost;
};

/* There is no memory for the first pieces that come. */
static void starve(void *ctx, enum sim_moment what, uint64_t id, uint64_t other, struct slice bytes, int op, const char *path)
{
    struct starved *s = ctx;
    struct frame f;
    (void)other, (void)op, (void)path;
    if (mem_fail_nth(0)) s->lost++;
    if (what != SIM_HEARS || id != s->id || frame_decode(bytes, &f, NULL) != 0) return;
    if (f.kind == FRAME_SNAPSHOT_CHUNK && s->lost < 3) mem_fail_nth(1);
}

static void test_pieces(void **state)
{
    (void)state;
    struct cluster k;
    cluster_init(&k, 3, 2);
    small_limits(&k);
    for (unsigned i = 1; i <= 3; i++) k.nodes[i].padding = 3000;
    cluster_boot(&k);
    struct node *n = cluster_wait_leader(&k), *slow = &k.nodes[n->id % 3 + 1];
    sim_run_for(k.sim, SECOND);
    node_crash(slow, SIM_POWER);
    for (uint64_t v = 1; v <= 400; v++) node_write_sized(n, v, SIZE);
    sim_run_for(k.sim, SECOND);
    assert_int_equal(consensus_snapshot(n->c), 0);
    sim_run_for(k.sim, 2 * SECOND);
    assert_true(status_of(n).snapshot_index > 300);
    struct starved s = {slow->id};
    sim_on_moment(k.sim, starve, &s);
    node_boot(&k, slow->id);
    assert_true(cluster_wait_value(&k, 400, 0));
    sim_on_moment(k.sim, NULL, NULL);
    mem_fail_nth(0);
    assert_int_equal(s.lost, 3);
    assert_true(status_of(slow).snapshots_installed > 0);
    assert_true(!slow->fatal && !status_of(slow).recovering);
    assert_same_logs(&k);
    cluster_stop(&k);
}

/* ---- a life among others ------------------------------------------------------------------------ */

enum { EXIT_NOT_REACHED = 10 };

static unsigned down; /* bit per id: is not to run */

static int boot(struct cluster *k, unsigned id, struct err *e)
{
    struct consensus_config was = k->config;
    if (id == 4) { /* which was added: it knows whom its flags name */
        k->config.n_members = 4;
        k->config.new_cluster = false;
    }
    int rv = node_try_boot(k, id, e);
    k->config = was;
    return rv;
}

/* Time passes, and who has stopped for want of memory is started again. */
static void tend(struct cluster *k)
{
    sim_run_for(k->sim, SECOND / 20);
    for (unsigned i = 1; i <= 4; i++) {
        struct node *n = &k->nodes[i];
        struct err e = {{0}};
        if (n->fatal && n->c) {
            if (n->fatal_error != ERR_NOMEM) fail_msg("member %u stops: %s", i, n->fatal_text);
            node_close(n);
        }
        if (!n->c && !(down >> i & 1) && boot(k, i, &e) == ERR_NOMEM) (void)boot(k, i, &e);
        if (!n->c && !(down >> i & 1)) fail_msg("member %u does not open: %s", i, e.text);
    }
}

/* Asked of that member (a follower sends it on) until it is on all that run. */
static void write_at(struct cluster *k, unsigned id, uint64_t value)
{
    struct wait_value w = {k, value, 0};
    bool all = false;
    for (int i = 0; !all; i++) {
        struct node *n = &k->nodes[id];
        if (i > 2000) fail_msg("value %d is not taken", (int)value);
        if (i % 40 == 0 && n->c && !n->fatal) (void)node_propose_sized(n, value, value, SIZE);
        tend(k);
        all = value_everywhere(&w);
        for (unsigned m = 1; m <= 4; m++) all &= k->nodes[m].c || down >> m & 1;
    }
}

static void read_at(struct cluster *k, unsigned id)
{
    int rv = ERR_NO_LEADER;
    for (int i = 0; rv; i++) {
        if (i > 200) fail_msg("no read point: %s", err_text(rv));
        if (k->nodes[id].c && !k->nodes[id].fatal) rv = node_read(&k->nodes[id]);
        tend(k);
    }
}

struct change_wait {
    bool done;
    int error;
};

static void change_done(void *data, int error)
{
    *(struct change_wait *)data = (struct change_wait){true, error};
}

static void add_fourth(struct cluster *k)
{
    struct consensus_change ch = {CONSENSUS_ADD, {.id = 4, .peer_url = k->urls[3]}};
    struct change_wait w;
    for (int i = 0, rv = ERR_BUSY; rv != 0 && rv != ERR_EXISTS; i++) {
        struct node *n = cluster_leader(k);
        w = (struct change_wait){0};
        if (i > 200) fail_msg("nobody is added: %s", err_text(rv));
        rv = n && !n->fatal ? consensus_change(n->c, &ch, change_done, &w) : ERR_NO_LEADER;
        for (int t = 0; rv == 0 && !w.done && t < 400; t++) tend(k);
        if (rv == 0 && w.done) rv = w.error;
        tend(k);
    }
}

/* Forwarding, reads, snapshots that are taken, sent and installed, a member that is added, starts. */
static void life(struct cluster *k)
{
    uint64_t v = 1;
    down = 1u << 4;
    for (; v <= 50; v++) write_at(k, 1 + (unsigned)v % 3, v);
    read_at(k, 1);
    read_at(k, 2);
    down |= 1u << 3;
    node_crash(&k->nodes[3], SIM_POWER);
    for (; v <= 110; v++) write_at(k, 1 + (unsigned)v % 2, v);
    down &= ~(1u << 3);
    write_at(k, 3, v++);
    add_fourth(k);
    down = 0;
    write_at(k, 4, v++);
    node_close(&k->nodes[1]);
    write_at(k, 1, v++);
    bool reached = mem_fail_nth(0);
    write_at(k, 2, v);
    sim_run_for(k->sim, 2 * SECOND);
    for (unsigned i = 1; i <= 4; i++) {
        for (uint64_t had = 1; had <= v; had++) assert_true(node_has(&k->nodes[i], had));
        assert_int_equal(status_of(&k->nodes[i]).set_aside, 0);
    }
    assert_same_logs(k);
    assert_true(status_of(&k->nodes[1]).snapshot_index > 0 && k->nodes[1].restores == 1 && k->nodes[4].restores > 0);
    cluster_stop(k);
    exit(reached ? 0 : EXIT_NOT_REACHED); /* leaks are looked for here */
}

/* A process of its own, since some ways end it. */
static int child(uint64_t nth, FILE *said)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct cluster k;
        dup2(fileno(said), STDOUT_FILENO);
        dup2(fileno(said), STDERR_FILENO);
        log_set_level(LOG_ERROR);
        cluster_init(&k, 4, 3);
        small_limits(&k);
        k.config.n_members = 3;
        for (unsigned i = 1; i <= 4; i++) k.nodes[i].padding = 1000;
        down = 1u << 4;
        mem_fail_nth(nth);
        life(&k);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void test_each_allocation(void **state)
{
    (void)state;
    int tries = 0, ended = 0, code;
    uint64_t nth = 1;
    do {
        char text[4096] = "";
        FILE *said = tmpfile();
        assert_non_null(said);
        code = child(nth, said);
        rewind(said);
        text[fread(text, 1, sizeof text - 1, said)] = 0;
        fclose(said);
        bool told = code == 1 && strstr(text, "out of memory") && !strstr(text, "not ok");
        if (code != 0 && code != EXIT_NOT_REACHED && !told) fail_msg("allocation %d: status %d: %s", (int)nth, code, text);
        tries++;
        ended += told;
        nth += getenv("PINTLE_LONG") ? 1 : 1 + nth / 8;
    } while (code != EXIT_NOT_REACHED && nth < 1000000);
    print_message("# %d allocations failed, one by one, of about %d; %d times the process ended\n", tries, (int)nth, ended);
    assert_int_equal(code, EXIT_NOT_REACHED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_each_allocation), /* the last: its children end here */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
