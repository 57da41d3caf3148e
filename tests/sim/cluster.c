/* The lives of members. A life ends by a crash (its env is a zombie from then on, see env_sim.h),
 * by a fatal error, or by an orderly stop; in each case its core is closed so that its memory comes
 * back, and nothing it still does counts. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "harness.h"

enum { CORE_TICK_US = 100000, RETRY_OPEN_US = 500000 };

const char *const member_names[SIM_MEMBERS_MAX + 1] = {"m0", "m1", "m2", "m3", "m4", "m5", "m6",
                                                              "m7", "m8", "m9", "m10", "m11", "m12"};

void run_trace(struct run *r, const char *format, ...)
{
    if (!r->o.trace) return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    sim_trace_line(r->sim, "%s", line);
}

bool life_gone(const struct life *l)
{
    return l->dead || l->fatal || l->closing || sim_env(l->run->sim, l->id) != l->env;
}

/* ---- what a member tells
 * ------------------------------------------------------------------------- */

static void check_state(struct life *l, bool restored)
{
    if (l->core) state_check(l, (struct store *)(uintptr_t)core_store(l->core), restored); /* else as soon as it is open */
}

static void on_applying(void *ctx, uint64_t index, uint64_t term, struct slice entry)
{
    struct life *l = ctx;
    struct run *r = l->run;
    if (life_gone(l)) return;
    model_apply(r->model, l->id, l->applied, index, term, entry, sim_now_us(r->sim));
    l->applied = index;
    run_trace(r, "m%" PRIu64 " applies %" PRIu64 " term %" PRIu64 " (%zu bytes)", l->id, index,
              term, entry.len);
}

static void on_applied(void *ctx, uint64_t index)
{
    struct life *l = ctx;
    (void)index;
    if (!life_gone(l)) check_state(l, false);
}

static void on_restored(void *ctx, uint64_t index)
{
    struct life *l = ctx;
    struct run *r = l->run;
    if (life_gone(l)) return;
    run_trace(r, "m%" PRIu64 " restores a snapshot at %" PRIu64, l->id, index);
    if (index < l->applied) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 " at %" PRIu64 " restores an older snapshot, of %" PRIu64,
                     l->id, l->applied, index);
    }
    if (index > model_last_index(r->model)) {
        /* A barrier may follow the newest entry, but no more than the terms there were. */
        run_trace(r, "m%" PRIu64 " restores beyond the newest entry %" PRIu64, l->id,
                  model_last_index(r->model));
    }
    l->applied = index;
    check_state(l, true);
}

static void on_live(void *ctx, struct event_batch *batch)
{
    struct life *l = ctx;
    if (life_gone(l) || !l->hub) return;
    watch_hub_live(l->hub, batch);
}

static void on_reset(void *ctx, int64_t revision)
{
    struct life *l = ctx;
    struct run *r = l->run;
    if (life_gone(l)) return;
    int64_t expected = model_revision_at(r->model, l->applied);
    if (revision != expected) {
        verdict_fail(&r->verdict,
                     "member %" PRIu64 ": the snapshot at index %" PRIu64 " is of revision %" PRId64
                     ", not %" PRId64,
                     l->id, l->applied, revision, expected);
    }
    if (l->hub) watch_hub_reset(l->hub, revision);
}

static void run_exit(void *arg);

/* Whether a member may give up with that, or refuse to open. */
static bool may_stop(struct member *m, int error)
{
    if (error == ERR_IO || error == ERR_NO_SPACE) return m->disk_trouble;
    if (error == ERR_RESTART && m->damaged && !m->pending) {
        m->faced = true;
        m->run->result->counts.damages_found++;
        m->run->result->counts.rot_found += m->unread && m->run->twin.of != m->id;
        return true;
    }
    if (m->twin_of) return error == ERR_EXISTS || error == ERR_REMOVED;
    if (error == ERR_EXISTS && m->run->twin.id && m->damaged) return m->run->twin.won = true;
    if (error == ERR_REMOVED && m->may_be_removed) {
        m->wanted = !m->told; /* it is started once more, and must refuse */
        m->told = true;
        return true;
    }
    return false; /* whose disk holds all that it synced may never say ERR_RESTART */
}

static void on_fatal(void *ctx, int error, const char *text)
{
    struct life *l = ctx;
    struct run *r = l->run;
    if (life_gone(l)) return;
    run_trace(r, "m%" PRIu64 " fatal: %s: %s", l->id, err_name(error), text);
    if (!may_stop(&r->members[l->id], error)) {
        verdict_fail(&r->verdict, "member %" PRIu64 " stops: %s: %s", l->id, err_name(error), text);
    }
    l->fatal = true;
    if (l->core) sim_at(r->sim, 0, run_exit, l);
}

static void on_leader(void *ctx, uint64_t leader_id, bool is_self)
{
    struct life *l = ctx;
    if (life_gone(l)) return;
    l->leader_id = leader_id;
    uint64_t twin_of = l->run->members[l->id].twin_of;
    if (twin_of && leader_id) verdict_fail(&l->run->verdict, "a second process of member %" PRIu64 " has a leader", twin_of);
    if (is_self) {
        l->run->result->counts.leader_changes++;
        l->run->led_us = sim_now_us(l->run->sim);
        run_trace(l->run, "m%" PRIu64 " leads", l->id);
    }
}

static void on_refusing(void *ctx, bool on)
{
    struct life *l = ctx;
    l->refusing = on;
    if (!life_gone(l)) run_trace(l->run, "m%" PRIu64 " %s its clients", l->id, on ? "refuses" : "serves");
}

static const struct core_events life_events = {
    .refusing = on_refusing,
    .live = on_live,
    .reset = on_reset,
    .fatal = on_fatal,
    .leader_changed = on_leader,
    .applying = on_applying,
    .applied = on_applied,
    .restored = on_restored,
};

/* ---- the end of a life
 * --------------------------------------------------------------------------- */

static void run_bury(void *arg)
{
    struct life *l = arg;
    struct run *r = l->run;
    sim_release(l->env);
    if (r->members[l->id].life == l) r->members[l->id].life = NULL;
    r->open_lives--;
    mem_free(l);
}

static void on_closed(void *ctx)
{
    struct life *l = ctx;
    run_trace(l->run, "m%" PRIu64 "(dead) has closed", l->id);
    l->core = NULL;
    sim_at(l->run->sim, 0, run_bury, l);
}

static void count_status(struct life *l)
{
    struct consensus_status s;
    consensus_get_status(core_consensus(l->core), &s);
    struct run_result *result = l->run->result;
    l->run->members[l->id].last_index = s.last_index;
    l->run->members[l->id].snapshot_index = s.snapshot_index;
    result->counts.snapshots_taken += s.snapshots_taken;
    result->counts.snapshots_sent += s.snapshots_sent;
    result->counts.snapshots_installed += s.snapshots_installed;
    result->counts.masked_defects += s.masked_defects;
    result->counts.healed += s.healed;
}

/* The process is gone: its clients see a broken connection, its memory comes back when the core has
 * closed. */
static void life_ends(struct life *l)
{
    struct run *r = l->run;
    if (r->members[l->id].life == l) r->members[l->id].life = NULL;
    if (!l->dead) sim_forget_member(r->sim, l->id); /* an orderly stop: its env is still there */
    clients_lost(r, l);
    backup_lost(r, l);
    reader_lost(r, l);
    hub_close(l);
    count_status(l);
    core_close(l->core, on_closed, l);
}

static void run_restart(void *arg)
{
    struct member *m = arg;
    struct run *r = m->run;
    if (m->rotting || sim_env(r->sim, m->id)) { /* still closing */
        sim_at(r->sim, 10000, run_restart, m);
        return;
    }
    bool struck = m->damaged && !m->pending && !m->faced;
    if (struck && !disk_truce(r, m->id) && !run_failed(r)) {
        sim_at(r->sim, 10000, run_restart, m);
        return;
    }
    m->restarting = false;
    if (m->held || !m->wanted) return;
    if (!run_failed(r)) cluster_boot(r, m->id);
}

static void restart_in(struct run *r, uint64_t id, uint64_t us)
{
    struct member *m = &r->members[id];
    if (m->restarting) return;
    m->restarting = true;
    sim_at(r->sim, us, run_restart, m);
}

static uint64_t downtime(struct run *r)
{
    return r->winding_down ? 100000 : sim_random_range(&r->random, 1000, 2 * r->o.fault_us);
}

/* After a crash at a disk operation. */
static uint64_t downtime_after_crash(struct run *r, struct member *m)
{
    uint64_t us = m->downtime_us;
    if (m->deaths == 0) m->downtime_us = 0;
    return us && !r->winding_down ? us : downtime(r);
}

static void run_exit(void *arg)
{
    struct life *l = arg;
    struct run *r = l->run;
    if (l->dead || l->closing) return;
    l->dead = true;
    if (sim_env(r->sim, l->id) == l->env) sim_crash(r->sim, l->id, SIM_KILL);
    life_ends(l);
    restart_in(r, l->id, downtime(r));
}

void cluster_crash(struct run *r, uint64_t id, enum sim_crash_mode mode, uint64_t restart_us)
{
    struct life *l = r->members[id].life;
    if (!l || l->dead || l->closing || l->fatal || sim_env(r->sim, id) != l->env) return;
    l->dead = true;
    sim_crash(r->sim, id, mode);
    r->result->counts.crashes++;
    life_ends(l);
    restart_in(r, id, restart_us);
}

/* sim_crash_after came true. */
void cluster_on_crash(void *ctx, uint64_t id)
{
    struct run *r = ctx;
    struct life *l = r->members[id].life;
    r->result->counts.crashes++;
    if (l && !l->dead && !l->closing && sim_env(r->sim, id) != l->env) { /* not the next life already */
        l->dead = true;
        life_ends(l);
    }
    restart_in(r, id, downtime_after_crash(r, &r->members[id]));
}

void cluster_stop(struct run *r, uint64_t id, uint64_t restart_us)
{
    struct life *l = r->members[id].life;
    if (!l || life_gone(l) || r->members[id].rotting) return; /* what is only tried ends by itself */
    l->closing = true;
    run_trace(r, "m%" PRIu64 " stops", id);
    life_ends(l);
    restart_in(r, id, restart_us);
}

/* ---- the beginning
 * ------------------------------------------------------------------------------- */

static void run_core_tick(void *arg)
{
    struct life *l = arg;
    if (life_gone(l)) return;
    sim_at_member(l->run->sim, l->id, CORE_TICK_US, run_core_tick, l);
    disk_truce_ends(l->run);
    disk_settles(l);
    core_tick(l->core);
}

void cluster_on_turn(void *ctx, uint64_t id)
{
    struct run *r = ctx;
    struct life *l = r->members[id].life;
    if (l && l->core && !life_gone(l)) core_flush(l->core);
}

static void open_failed(struct run *r, struct life *l, int rv, const struct err *e)
{
    run_trace(r, "m%" PRIu64 " does not open: %s: %s", l->id, err_name(rv), e->text);
    bool crashed = sim_env(r->sim, l->id) != l->env;
    struct member *m = &r->members[l->id];
    if (!crashed && !may_stop(m, rv)) {
        verdict_fail(&r->verdict, "member %" PRIu64 " does not open: %s: %s", l->id, err_name(rv),
                     e->text);
    }
    m->life = NULL;
    r->open_lives--;
    sim_release(l->env);
    mem_free(l);
    restart_in(r, m->id, RETRY_OPEN_US);
}

static struct life *life_open(struct run *r, uint64_t id, const struct cluster *told, int *ret_code, struct err *e)
{
    struct consensus_member members[SIM_MEMBERS_MAX];
    char urls[SIM_MEMBERS_MAX][32], url[32];
    struct member *self = &r->members[id];
    uint64_t as = self->twin_of ? self->twin_of : id;
    size_t n_members = joining_flags(r, as, members, urls);
    bool joins = self->joins;
    members_url(self, url);
    sim_listen(r->sim, id, self->url == self->old_url ? url : NULL, NULL); /* at all of them until all know the newest */
    struct core_config config = {
        .consensus = {.id = as,
                      .cluster_id = 77,
                      .members = told ? told->members : members,
                      .n_members = told ? told->n : n_members,
                      .members_index = told ? told->index : 0,
                      .new_cluster = !joins,
                      .heartbeat_ms = r->o.heartbeat_ms,
                      .election_ms = r->o.election_ms,
                      .snapshot_log_bytes = r->o.snapshot_log_bytes,
                      .trailing_log_bytes = r->o.trailing_log_bytes,
                      .max_appends = r->o.max_appends,
                      .segment_bytes = r->o.segment_bytes,
                      .scrub_interval_ms = 2000,
                      .scrub_rate = 1000000},
        .store = {.quota_bytes = r->o.quota_bytes},
        .name = member_names[as],
        .client_urls = &member_names[as],
        .n_client_urls = 1,
        .auto_compaction_revisions = r->o.auto_compaction_revisions,
        .check_ms = r->o.check_ms,
        .compact_check_ms = r->o.check_ms,
        .lease_checkpoint_ms = r->o.lease_checkpoint_ms,
        .long_apply_keys = r->o.long_apply_keys,
        .range_slice_keys = r->o.range_slice_keys,
        .any_reconfig = r->o.any_reconfig,
        .max_learners = r->o.any_reconfig ? SIM_MEMBERS_MAX : 0,
    };
    struct life *l = mem_must_calloc(1, sizeof *l);
    l->run = r;
    l->id = id;
    l->serial = ++r->lives;
    l->url = r->members[id].url;
    list_init(&l->asks);
    list_init(&l->watchers);
    list_init(&l->history);
    l->env = sim_boot(r->sim, id);
    struct member *m = &r->members[id];
    m->life = l;
    m->unread = false;
    if (m->disk_mended) m->disk_trouble = m->disk_mended = false;
    r->open_lives++;
    if (m->deaths && !m->rotting && --m->deaths > 0) {
        bool power = m->death_by == 2 ? m->deaths % 2 : m->death_by == SIM_POWER;
        sim_crash_after(r->sim, id, power ? SIM_POWER : SIM_KILL,
                        1 + (unsigned)sim_random_below(&r->random, sim_chance(&r->random, 500000) ? 12 : 80));
    }
    struct core *core = NULL;
    *ret_code = core_open(&config, l->env, &life_events, l, &core, e);
    l->core = core;
    if (l->applied && !life_gone(l)) check_state(l, true);
    return l;
}

/* It joins, and is not told who it is: it ends, and its operator starts it again or, if it was removed, does not. */
static void not_told(struct run *r, uint64_t id, int error, const struct err *e)
{
    struct member *m = &r->members[id];
    struct members_view v;
    run_trace(r, "m%" PRIu64 " does not start: %s: %s", id, err_name(error), e->text);
    if (error == ERR_EXISTS && !joining_refused(r, id, e))
        verdict_fail(&r->verdict, "member %" PRIu64 " may not start: %s", id, e->text);
    bool gone = m->damaged ? members_in_force(r, &v) && !(v.all >> id & 1) : error != ERR_EXISTS; /* else it has never run, and members_settle knows */
    if (m->may_be_removed && gone) m->wanted = false;
    restart_in(r, id, RETRY_OPEN_US);
}

void cluster_boot(struct run *r, uint64_t id)
{
    struct err e = {{0}};
    struct arena a = {0};
    struct cluster told;
    int rv;
    bool asks = joining_asks(r, id);
    if (asks && (rv = joining_ask(r, id, &a, &told, &e)) != 0) {
        arena_release(&a);
        return not_told(r, id, rv, &e);
    }
    struct life *l = life_open(r, id, asks ? &told : NULL, &rv, &e);
    arena_release(&a);
    if (rv != 0) {
        open_failed(r, l, rv, &e);
        return;
    }
    if (l->fatal) sim_at(r->sim, 0, run_exit, l);
    if (life_gone(l)) return; /* or cluster_on_crash follows */
    hub_open(l);
    run_core_tick(l);
}

int cluster_try(struct run *r, uint64_t id, struct err *e)
{
    int rv;
    struct life *l = life_open(r, id, NULL, &rv, e);
    if (rv == 0) return 0;
    r->members[id].life = NULL;
    r->open_lives--;
    sim_release(l->env);
    mem_free(l);
    return rv;
}

uint64_t cluster_tried(struct run *r, uint64_t id)
{
    struct life *l = r->members[id].life;
    if (!l || l->dead) return UINT64_MAX; /* it has crashed meanwhile */
    l->dead = true;
    if (sim_env(r->sim, id) == l->env) sim_crash(r->sim, id, SIM_KILL);
    life_ends(l);
    return r->members[id].last_index;
}

struct life *cluster_some(struct run *r, struct sim_random *random)
{
    uint64_t at = sim_random_below(random, r->top);
    for (unsigned i = 0; i < r->top; i++) {
        struct life *l = r->members[1 + (at + i) % r->top].life;
        if (l && l->core && !life_gone(l)) return l;
    }
    return NULL;
}

struct life *cluster_by_serial(struct run *r, uint64_t serial)
{
    for (uint64_t id = 1; id <= r->top; id++) {
        struct life *l = r->members[id].life;
        if (l && l->serial == serial) return l;
    }
    return NULL;
}

void cluster_again(struct run *r, uint64_t id)
{
    if (!r->members[id].life) restart_in(r, id, 1000);
}

struct life *cluster_leader(struct run *r)
{
    struct life *best = NULL;
    uint64_t term = 0;
    for (uint64_t id = 1; id <= r->top; id++) {
        struct life *l = r->members[id].life;
        if (!l || !l->core || life_gone(l)) continue;
        struct consensus_status s;
        consensus_get_status(core_consensus(l->core), &s);
        if (s.role == CONSENSUS_LEADER && s.term > term) {
            best = l;
            term = s.term;
        }
    }
    return best;
}
