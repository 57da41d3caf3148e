/* Members compare their states. The leader puts a CHECK into the log; each member hashes its state as it is at that place
 * (store_check, in slices, while it goes on) and puts the hash into the log as its REPORT; the leader puts its VERDICT there.
 * So all members see the same reports in the same order, a new leader goes on where the last one was, and nothing is lost or
 * repeated on the way; what is volatile here is only the newest check.
 *
 *   leader:  CHECK ------- REPORT (own) ------------------- VERDICT: b is corrupt
 *   a:          `- walk - REPORT                                |
 *   b:          `- walk ------- REPORT                      refuses its clients; what it reported is what is said
 *                                                           of it: its state is not to be believed (distrust)
 *
 * What a majority of the voters reports is right, and who differs is named: the CORRUPT alarm of that member. Without such a
 * majority it is not known who is wrong: CORRUPT of member 0, as etcd has it, and nobody changes anything. Both are cleared by a
 * later check, once there is a majority and the member is with it. A named member refuses its clients until then.
 *
 * Beside the state's hash goes one of the entries since the check before, so that logs that differ are told from state
 * machines that do; a member that has not seen all of these (it began from a snapshot) leaves it out. */
#include <endian.h>
#include <inttypes.h>
#include <xxhash.h>

#include "api/core/core_int.h"
#include "base/log.h"

#define CHECK_SLICE_BYTES (256 * LIMIT_KiB) /* about 0.2 ms */
#define CHECK_RETRY_MS 2000
#define CHECK_WAIT_MS 60000   /* for reports, at most; and half a period */
#define CHECK_PERIOD_MS 300000 /* where there is none, for what follows from it */
#define CHECK_SOON 10         /* a tenth of the period: after the start, and while an alarm stands */
#define NEVER UINT64_MAX

static uint64_t never_zero(uint64_t hash)
{
    return hash ? hash : 1;
}

/* ---- what every member does ----------------------------------------------------------------------- */

void core_check_entry(struct core *c, uint64_t index, uint64_t term, struct slice entry)
{
    uint64_t place[] = {htole64(index), htole64(term), htole64(c->log_hash)};
    c->log_hash = XXH3_64bits_withSeed(entry.data, entry.len, XXH3_64bits(place, sizeof(place)));
    c->applying_index = index;
}

static void drop_walk(struct core_check *k)
{
    if (!k->walk) return;
    store_check_close(k->walk);
    core_state_unref(k->state);
    k->walk = NULL;
}

void core_check_close(struct core *c)
{
    drop_walk(&c->check);
}

/* The newest check is not one that this member can say anything of; nor has it all entries since. */
static void forget_check(struct core *c)
{
    drop_walk(&c->check);
    c->check = (struct core_check){0};
    c->log_hash = 0;
    c->log_whole = false;
}

static uint64_t period(const struct core *c)
{
    return c->config.check_ms ? c->config.check_ms : CHECK_PERIOD_MS;
}

static uint64_t soon(const struct core *c)
{
    return period(c) / CHECK_SOON + 1;
}

static bool alarmed(const struct core *c)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    bool any = store_member_corrupt(c->state->store, 0);
    for (size_t i = 0; i < n; i++) any |= store_member_corrupt(c->state->store, all[i].id);
    return any;
}

static void begin(struct core *c, uint64_t version)
{
    struct core_check *k = &c->check;
    if (k->index == c->applying_index) return; /* two in one entry */
    drop_walk(k);
    if (version != STORE_CHECK_VERSION) {
        forget_check(c);
        return;
    }
    *k = (struct core_check){.index = c->applying_index,
                             .began_ms = core_now(c),
                             .log = c->log_whole ? never_zero(c->log_hash) : 0,
                             .state = c->state,
                             .walk = store_check_open(c->state->store)};
    core_state_ref(k->state);
    c->log_hash = 0;
    c->log_whole = true;
    c->next_check_ms = alarmed(c) ? k->began_ms + soon(c) : c->config.check_ms ? k->began_ms + c->config.check_ms : NEVER;
    c->n_checks++;
    if (!c->check_work.queued) c->env->ops->defer(c->env, &c->check_work);
}

/* A member believes what is said of it if it is what this very life of it reported: its state in an earlier one was another. */
static void believe(struct core *c)
{
    struct core_check *k = &c->check;
    if (!k->accused || !k->hash || c->distrusted) return;
    k->accused = false;
    if (k->hash != k->accused_state || k->log != k->accused_log) return;
    c->distrusted = true;
    if (!c->check_work.queued) c->env->ops->defer(c->env, &c->check_work);
}

static void report(struct core *c)
{
    const struct core_check *k = &c->check;
    if (!k->hash || k->reported || !c->leader_id || core_now(c) < c->next_report_ms) return;
    struct command command = {.type = COMMAND_CHECK_REPORT,
                              .check = {.member_id = c->config.consensus.id,
                                        .index = k->index,
                                        .state = k->hash,
                                        .log = k->log}};
    c->next_report_ms = core_now(c) + CHECK_RETRY_MS;
    core_propose_own(c, &command);
    core_flush(c);
}

void core_check_work(struct env_task *t)
{
    struct core *c = t->data;
    struct core_check *k = &c->check;
    if (c->closing) return;
    if (c->distrusted) {
        consensus_distrust(c->consensus, "its state differs from that of the other members");
        return;
    }
    if (!k->walk || c->step) return; /* half of a long command is no state */
    if (!store_check_step(k->walk, CHECK_SLICE_BYTES)) {
        c->env->ops->defer(c->env, t);
        return;
    }
    k->hash = never_zero(store_check_value(k->walk));
    log_debug("state hashed index=%" PRIu64 " revision=%" PRId64 " hash=%016" PRIx64 " log=%016" PRIx64, k->index,
              store_check_revision(k->walk), k->hash, k->log);
    drop_walk(k);
    c->next_report_ms = 0;
    believe(c);
    report(c);
}

void core_check_resume(struct core *c)
{
    if (c->check.walk && !c->check_work.queued) c->env->ops->defer(c->env, &c->check_work);
}

/* ---- what the leader makes of it ------------------------------------------------------------------- */

static const struct core_report *report_of(const struct core *c, uint64_t member_id)
{
    for (size_t i = 0; i < c->check.n_reports; i++)
        if (c->check.reports[i].member_id == member_id) return &c->check.reports[i];
    return NULL;
}

/* One of the two hashes, over all voters. */
struct vote {
    uint64_t majority; /* 0 = none */
    bool differ;
};

static struct vote count_votes(const struct core *c, bool of_log)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all), voters = 0;
    uint64_t said[LIMIT_MEMBERS], n_said = 0;
    struct vote v = {0};
    for (size_t i = 0; i < n; i++) {
        const struct core_report *r = report_of(c, all[i].id);
        if (all[i].learner) continue;
        voters++;
        uint64_t hash = !r ? 0 : of_log ? r->log : r->state;
        if (hash && n_said < LIMIT_MEMBERS) said[n_said++] = hash;
    }
    for (size_t i = 0; i < n_said; i++) {
        size_t same = 0;
        for (size_t k = 0; k < n_said; k++) same += said[k] == said[i];
        if (same * 2 > voters) v.majority = said[i];
        v.differ |= same < n_said;
    }
    return v;
}

static void propose_verdict(struct core *c, uint64_t member_id, bool corrupt)
{
    const struct core_report *r = report_of(c, member_id);
    struct command command = {.type = COMMAND_VERDICT,
                              .check = {.member_id = member_id, .index = c->check.index, .corrupt = corrupt}};
    if (r) {
        command.check.state = r->state;
        command.check.log = r->log;
    }
    c->next_verdict_ms = core_now(c) + CHECK_RETRY_MS;
    core_propose_own(c, &command);
}

/* A verdict is proposed again until it shows in the store. */
static void judge_member(struct core *c, const struct core_report *r, struct vote state, struct vote log)
{
    bool corrupt = r->state != state.majority || (log.majority && r->log && r->log != log.majority);
    if (corrupt ? !r->accused : store_member_corrupt(c->state->store, r->member_id))
        propose_verdict(c, r->member_id, corrupt);
}

/* Whether all voters have reported, or had long enough to. */
static bool complete(const struct core *c)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    uint64_t wait = period(c) / 2 < CHECK_WAIT_MS ? period(c) / 2 : CHECK_WAIT_MS;
    if (c->check.index == 0 || core_now(c) >= c->check.began_ms + wait) return true;
    for (size_t i = 0; i < n; i++)
        if (!all[i].learner && !report_of(c, all[i].id)) return false;
    return true;
}

static bool is_member(const struct core *c, uint64_t id)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all), i = 0;
    while (i < n && all[i].id != id) i++;
    return i < n;
}

static void judge(struct core *c)
{
    if (!c->leader || c->check.n_reports == 0 || core_now(c) < c->next_verdict_ms) return;
    struct vote state = count_votes(c, false), log = count_votes(c, true);
    bool doubt = (state.differ && !state.majority) || (log.differ && !log.majority);
    bool doubted = store_member_corrupt(c->state->store, 0);
    if (doubt && !doubted && complete(c)) propose_verdict(c, 0, true);
    if (!doubt && doubted && state.majority) propose_verdict(c, 0, false);
    for (size_t i = 0; i < c->check.n_reports && state.majority; i++) {
        const struct core_report *r = &c->check.reports[i];
        if (is_member(c, r->member_id)) judge_member(c, r, state, log);
    }
}

static void watch_refusal(struct core *c)
{
    struct consensus_status status = {0};
    if (c->consensus) consensus_get_status(c->consensus, &status);
    bool corrupt = store_member_corrupt(c->state->store, c->config.consensus.id);
    bool refusing = corrupt || status.recovering;
    if (refusing == c->refusing) return;
    c->refusing = refusing;
    if (corrupt) log_error("this member was named corrupt: it serves nothing until a check clears it");
    else if (refusing) log_warn("this member heals: it serves nothing until the others have brought back its state");
    else log_info("this member agrees with the others again: it serves");
    if (c->events.refusing) c->events.refusing(c->ctx, refusing);
    if (!refusing) core_read_held(c);
}

/* A member that refuses its clients is no good leader. */
static void transferred(void *data, int error)
{
    (void)data;
    log_info("leadership given away, as this member is named corrupt: %s", error ? err_text(error) : "done");
}

static void give_away(struct core *c, uint64_t now)
{
    const struct consensus_member *all;
    size_t n = consensus_members(c->consensus, &all);
    if (!c->leader || !c->refusing || now < c->next_transfer_ms) return;
    c->next_transfer_ms = now + CHECK_RETRY_MS;
    for (size_t i = 0; i < n; i++)
        if (all[i].id != c->config.consensus.id && !all[i].learner &&
            !store_member_corrupt(c->state->store, all[i].id) &&
            consensus_transfer(c->consensus, all[i].id, transferred, c) == 0)
            return;
}

void core_check_tick(struct core *c)
{
    uint64_t now = core_now(c);
    const struct consensus_member *all;
    watch_refusal(c); /* a member that heals says so nowhere else */
    report(c);
    judge(c);
    give_away(c, now);
    if (c->next_check_ms == NEVER && alarmed(c)) c->next_check_ms = now + soon(c); /* since before the start */
    if (!c->leader || now < c->next_check_ms || !complete(c)) return;
    if (consensus_members(c->consensus, &all) == 1 && !alarmed(c)) return;
    struct command command = {.type = COMMAND_CHECK, .check = {.version = STORE_CHECK_VERSION}};
    c->next_check_ms = now + CHECK_RETRY_MS;
    core_propose_own(c, &command);
}

/* ---- what the log brings --------------------------------------------------------------------------- */

static void take_report(struct core *c, const struct command *command)
{
    struct core_check *k = &c->check;
    struct core_report *r = (struct core_report *)report_of(c, command->check.member_id);
    if (command->check.index != k->index) return;
    if (command->check.member_id == c->config.consensus.id) k->reported = true;
    if (!r && k->n_reports < LIMIT_MEMBERS) r = &k->reports[k->n_reports++];
    if (!r) return;
    *r = (struct core_report){command->check.member_id, command->check.state, command->check.log, false};
    judge(c);
}

static void take_verdict(struct core *c, const struct command *command)
{
    struct core_check *k = &c->check;
    uint64_t id = command->check.member_id;
    struct core_report *r = (struct core_report *)report_of(c, id);
    if (!command->check.corrupt) {
        log_info("states agree again: alarm cleared member=%" PRIx64 " index=%" PRIu64, id, command->check.index);
        return;
    }
    c->n_mismatches++;
    if (c->next_check_ms > core_now(c) + soon(c)) c->next_check_ms = core_now(c) + soon(c);
    if (id == 0) {
        log_error("states differ and no majority agrees: changes are refused index=%" PRIu64, command->check.index);
        return;
    }
    log_error("state differs from the majority's member=%" PRIx64 " index=%" PRIu64 " hash=%016" PRIx64
              " log=%016" PRIx64,
              id, command->check.index, command->check.state, command->check.log);
    if (command->check.index != k->index) return;
    if (r) r->accused = true;
    if (id != c->config.consensus.id) return;
    k->accused = true;
    k->accused_state = command->check.state;
    k->accused_log = command->check.log;
    believe(c);
}

void core_check_command(struct core *c, const struct command *command)
{
    uint64_t now = core_now(c);
    switch (command->type) {
    case COMMAND_COMPACT:
        if (!c->config.compact_check_ms) return;
        now = now > c->check.began_ms + c->config.compact_check_ms ? now
                                                                    : c->check.began_ms + c->config.compact_check_ms;
        if (now < c->next_check_ms) c->next_check_ms = now;
        return;
    case COMMAND_CHECK: begin(c, command->check.version); return;
    case COMMAND_CHECK_REPORT: take_report(c, command); return;
    case COMMAND_VERDICT:
        take_verdict(c, command);
        watch_refusal(c);
        return;
    case COMMAND_ALARM: watch_refusal(c); return;
    default: return;
    }
}

/* What was hashed is gone, and entries were passed over. */
void core_check_restored(struct core *c)
{
    forget_check(c);
    watch_refusal(c);
}

void core_check_opened(struct core *c)
{
    watch_refusal(c);
}

void core_check_open(struct core *c)
{
    c->log_whole = true;
    c->next_check_ms = c->config.check_ms ? core_now(c) + soon(c) : NEVER;
}
