/* The one loop by which everything changes.
 *
 *   read --> compute --> txn --> finish
 *     ^         |         |
 *     |         |         +-- somebody was faster: the txn brings what is there now; compute again
 *     +---------+ an answer that needs no txn (an error, a no-op, a dry run) on a read that may be stale: read again
 *                 through consensus, then decide
 *
 * The first read is the local member's own, without a round to the others: what is written is guarded by the mod revisions
 * that were read (of the object, and of its namespace), so a stale read can cost a second attempt and nothing else.
 *
 * When the leader changes under a write, it is not known whether it was applied. The same write is then sent again, with the same
 * guard: it is applied once at most. If the guard fails then, what is there now tells whether our first attempt was the reason; where
 * it does not, computing and writing again could do twice what was asked for once, and the client is told that nobody knows. */
#include <stdio.h>

#include "api/kube/kube_int.h"
#include "base/check.h"
#include "base/clock.h"

#define MUTATE_DEADLINE_MS 15000
#define MUTATE_RETRY_MS 50
#define MUTATE_ATTEMPTS 64

static void run(struct kube_request *q);

void mutate_release(struct mutation *m)
{
    record_unref(m->object);
    record_unref(m->guard);
    m->object = m->guard = NULL;
    buf_release(&m->command);
}

static void set_record(struct record **place, struct record *r)
{
    if (r) record_ref(r);
    record_unref(*place);
    *place = r;
}

static struct record *first_record(const struct op_result *r)
{
    return r->range.n ? r->range.records[0] : NULL;
}

static struct op range_of(struct slice key)
{
    return (struct op){.type = OP_RANGE, .range = {.key = key}};
}

/* ---- read ------------------------------------------------------------------------------------- */

static void read_done(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    struct core_request *c = &q->core;
    if (c->code) {
        status_core(&q->status, c->code, false);
        respond_status(q);
        return;
    }
    const struct op_result *r = c->result.op.txn.results;
    size_t i = 0;
    if (m->key.len) set_record(&m->object, first_record(&r[i++]));
    if (m->guard_key.len) set_record(&m->guard, first_record(&r[i++]));
    m->fresh = !c->serializable;
    request_core_reset(q);
    run(q);
}

static void read_again(struct kube_request *q, bool fresh)
{
    struct mutation *m = &q->mut;
    struct op *ops = arena_calloc(&q->arena, 2, sizeof(*ops));
    struct txn_op *txn = arena_calloc(&q->arena, 1, sizeof(*txn));
    if (!ops || !txn) {
        status_nomem(&q->status);
        respond_status(q);
        return;
    }
    if (m->key.len) ops[txn->n_success++] = range_of(m->key);
    if (m->guard_key.len) ops[txn->n_success++] = range_of(m->guard_key);
    txn->success = ops;
    if (!txn->n_success) {
        m->fresh = true;
        run(q);
        return;
    }
    request_core_reset(q);
    q->core.txn = txn;
    q->core.serializable = !fresh;
    request_core(q, CORE_TXN_READ, read_done);
}

void mutate_start(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    if (!m->max_attempts) m->max_attempts = MUTATE_ATTEMPTS;
    m->deadline_ms = clock_mono_ms() + MUTATE_DEADLINE_MS;
    buf_init(&m->command, LIMIT_REQUEST_BYTES + LIMIT_MiB);
    read_again(q, false);
}

/* ---- write ------------------------------------------------------------------------------------ */

static struct compare guard_of(struct slice key, const struct record *seen)
{
    if (!seen) return (struct compare){.target = COMPARE_VERSION, .key = key, .number = 0};
    return (struct compare){.target = COMPARE_MOD, .key = key, .number = seen->mod_rev};
}

/* Gives back what the object holds: what names another object, or nothing, stays as it is. */
static int build_release(struct kube_request *q, struct slice key, struct op *ret)
{
    struct txn_op *txn = arena_calloc(&q->arena, 1, sizeof(*txn));
    struct compare *held = arena_calloc(&q->arena, 1, sizeof(*held));
    struct op *give = arena_calloc(&q->arena, 1, sizeof(*give));
    if (!txn || !held || !give) return ERR_NOMEM;
    *held = (struct compare){.target = COMPARE_VALUE, .key = key, .value = q->mut.key};
    *give = (struct op){.type = OP_DELETE, .del = {.key = key}};
    *txn = (struct txn_op){.compares = held, .n_compares = 1, .success = give, .n_success = 1};
    *ret = (struct op){.type = OP_TXN, .txn = txn};
    return 0;
}

/* The txn: all guards, then the object and its allocations; else what is there now. */
static int build(struct kube_request *q, struct txn_op *txn)
{
    struct mutation *m = &q->mut;
    size_t most = 2 + m->n_claims + m->n_releases;
    struct compare *compares = arena_calloc(&q->arena, most, sizeof(*compares));
    struct op *success = arena_calloc(&q->arena, most, sizeof(*success));
    struct op *failure = arena_calloc(&q->arena, most, sizeof(*failure));
    if (!compares || !success || !failure) return ERR_NOMEM;
    *txn = (struct txn_op){.compares = compares, .success = success, .failure = failure};
    compares[txn->n_compares++] = guard_of(m->key, m->object);
    failure[txn->n_failure++] = range_of(m->key);
    if (m->guard_key.len) {
        compares[txn->n_compares++] = guard_of(m->guard_key, m->guard);
        failure[txn->n_failure++] = range_of(m->guard_key);
    }
    success[txn->n_success++] =
        m->action == MUTATE_PUT
            ? (struct op){.type = OP_PUT, .put = {.key = m->key, .value = m->value, .lease = m->lease}}
            : (struct op){.type = OP_DELETE, .del = {.key = m->key}};
    for (size_t i = 0; i < m->n_claims; i++) {
        struct slice key = m->claims[i];
        compares[txn->n_compares++] = guard_of(key, NULL);
        failure[txn->n_failure] = range_of(key);
        failure[txn->n_failure++].range.keys_only = true;
        success[txn->n_success++] = (struct op){.type = OP_PUT, .put = {.key = key, .value = m->key}};
    }
    for (size_t i = 0; i < m->n_releases; i++) {
        int code = build_release(q, m->releases[i], &success[txn->n_success++]);
        if (code) return code;
    }
    return 0;
}

/* ---- what became of an attempt whose answer was lost ------------------------------------------ */

enum fate { FATE_APPLIED, FATE_NOT_APPLIED, FATE_UNKNOWN };

static struct slice uid_of(struct kube_request *q, struct slice stored)
{
    struct json *object;
    return object_parse(&q->arena, stored, 0, &object) ? (struct slice){0} : json_path_text(object, "metadata.uid");
}

/* Our uid is random: an object that has it was made by us, whoever has changed it since. */
static enum fate fate_of_create(struct kube_request *q, const struct record *now)
{
    if (!now) return FATE_UNKNOWN; /* made, and deleted again? */
    struct slice uid = uid_of(q, q->mut.value);
    return uid.len && slice_eq(uid_of(q, record_value(now)), uid) ? FATE_APPLIED : FATE_NOT_APPLIED;
}

/* The object that was to go is gone, or it is still there. */
static enum fate fate_of_delete(const struct record *seen, const struct record *now)
{
    return now && now->create_rev == seen->create_rev ? FATE_NOT_APPLIED : FATE_APPLIED;
}

/* Versions are counted: the one behind what was seen is ours or it is not. */
static enum fate fate_of_update(const struct mutation *m, const struct record *seen, const struct record *now)
{
    if (!now || now->create_rev != seen->create_rev) return FATE_UNKNOWN;
    if (now->version > seen->version && slice_eq(record_value(now), m->value)) return FATE_APPLIED;
    return now->version > seen->version + 1 ? FATE_UNKNOWN : FATE_NOT_APPLIED;
}

static enum fate fate_of(struct kube_request *q, const struct record *now)
{
    const struct mutation *m = &q->mut;
    if (!m->object) return fate_of_create(q, now);
    return m->action == MUTATE_DELETE ? fate_of_delete(m->object, now) : fate_of_update(m, m->object, now);
}

/* ---- the answer to the txn -------------------------------------------------------------------- */

/* Somebody was faster: take what the txn saw. */
static void take_failure(struct mutation *m, const struct op_result *r)
{
    size_t i = 0;
    set_record(&m->object, first_record(&r[i++]));
    if (m->guard_key.len) set_record(&m->guard, first_record(&r[i++]));
    m->n_taken = 0;
    for (size_t n = 0; n < m->n_claims; n++) {
        if (first_record(&r[i++])) m->taken[m->n_taken++] = m->claims[n];
    }
    m->fresh = true;
    m->uncertain = false;
}

static void submit(struct kube_request *q);
static void write_out(struct kube_request *q);

static void write_failed(struct kube_request *q, int code)
{
    struct mutation *m = &q->mut;
    if (code == ERR_LEASE_NOT_FOUND && ++m->attempts < m->max_attempts) {
        event_lease_lost(q->api);
        request_core_reset(q);
        write_out(q);
        return;
    }
    bool again = code == ERR_TIMEOUT || code == ERR_LEADER_CHANGED;
    if (again || code == ERR_STOPPED) m->uncertain = true;
    if ((again || code == ERR_NO_LEADER) && clock_mono_ms() + MUTATE_RETRY_MS < m->deadline_ms) {
        request_later(q, MUTATE_RETRY_MS, submit);
        return;
    }
    status_core(&q->status, code, m->uncertain);
    respond_status(q);
}

static void write_done(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    struct core_request *c = &q->core;
    if (c->code) {
        write_failed(q, c->code);
        return;
    }
    const struct op_result *r = c->result.op.txn.results;
    if (c->result.op.txn.succeeded) {
        m->revision = c->result.revision;
        m->finish(q);
        return;
    }
    struct record *now = first_record(&r[0]);
    enum fate fate = m->uncertain ? fate_of(q, now) : FATE_NOT_APPLIED;
    if (fate == FATE_APPLIED) {
        m->revision = !now ? c->result.revision : m->object ? now->mod_rev : now->create_rev;
        m->finish(q);
        return;
    }
    if (fate == FATE_UNKNOWN) {
        status_core(&q->status, ERR_TIMEOUT, true);
        respond_status(q);
        return;
    }
    take_failure(m, r);
    request_core_reset(q);
    if (++m->attempts >= m->max_attempts) {
        status_modified(&q->status, q->route.kind, q->route.name);
        respond_status(q);
        return;
    }
    run(q);
}

static void submit(struct kube_request *q)
{
    request_core_reset(q);
    q->core.command = buf_slice(&q->mut.command);
    q->core.serializable = false;
    request_core(q, CORE_COMMAND, write_done);
}

static void write_out(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    if (!event_lease_ready(q, write_out, &m->lease)) return;
    struct txn_op *txn = arena_calloc(&q->arena, 1, sizeof(*txn));
    int code = txn ? build(q, txn) : ERR_NOMEM;
    struct command command = {.type = COMMAND_OP, .op = {.type = OP_TXN, .txn = txn}};
    if (!code) code = command_check(&command);
    if (!code) {
        buf_clear(&m->command);
        command_encode(&m->command, &command);
        code = m->command.failed;
    }
    if (!code && m->command.len > LIMIT_REQUEST_BYTES) code = ERR_TOO_LARGE;
    if (code) {
        status_core(&q->status, code, false);
        respond_status(q);
        return;
    }
    submit(q);
}

/* ---- compute ---------------------------------------------------------------------------------- */

static void run(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    m->n_claims = m->n_releases = 0;
    int code = m->compute(q);
    bool final_answer = code || m->action == MUTATE_KEEP || q->dry_run;
    if (final_answer && !m->fresh) {
        status_init(&q->status, &q->arena);
        q->n_warnings = 0;
        read_again(q, true);
        return;
    }
    if (code) {
        respond_status(q);
    } else if (final_answer) {
        m->revision = m->object ? m->object->mod_rev : 0;
        m->finish(q);
    } else {
        write_out(q);
    }
}

int mutate_put(struct kube_request *q, struct json *object)
{
    struct mutation *m = &q->mut;
    struct buf b;
    buf_init(&b, LIMIT_KUBE_BODY_BYTES * 2);
    int code = object_store(&q->arena, q->route.kind, object, &b);
    if (!code) {
        m->value = arena_dup(&q->arena, buf_slice(&b));
        if (!m->value.data) code = ERR_NOMEM;
    }
    buf_release(&b);
    if (code) return status_core(&q->status, code, false);
    bool same = m->object && slice_eq(record_value(m->object), m->value);
    m->action = same ? MUTATE_KEEP : MUTATE_PUT;
    return 0;
}

int mutate_current(struct kube_request *q, struct json **ret)
{
    struct mutation *m = &q->mut;
    if (!m->object) return status_not_found(&q->status, q->route.kind, q->route.name);
    int code = object_parse(&q->arena, record_value(m->object), m->object->mod_rev, ret);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) return status_internal(&q->status, "the stored object cannot be decoded");
    return 0;
}

void mutate_finish_object(struct kube_request *q)
{
    struct mutation *m = &q->mut;
    int code = q->verb == VERB_CREATE || (q->verb == VERB_UPDATE && !m->object) ? 201 : 200;
    respond_stored(q, code, m->value, m->revision);
}

/* ---- allocations ------------------------------------------------------------------------------ */

int mutate_claim(struct kube_request *q, const char *key)
{
    struct mutation *m = &q->mut;
    if (!key) return status_nomem(&q->status);
    if (m->n_claims == KUBE_MAX_CLAIMS) return status_internal(&q->status, "too many allocations in one object");
    m->claims[m->n_claims++] = slice_str(key);
    return 0;
}

int mutate_unclaim(struct kube_request *q, const char *key)
{
    struct mutation *m = &q->mut;
    if (!key) return status_nomem(&q->status);
    if (m->n_releases == KUBE_MAX_CLAIMS) return status_internal(&q->status, "too many allocations in one object");
    m->releases[m->n_releases++] = slice_str(key);
    return 0;
}

bool mutate_claim_was_taken(const struct kube_request *q, const char *key)
{
    for (size_t i = 0; i < q->mut.n_taken; i++) {
        if (slice_eq_str(q->mut.taken[i], key)) return true;
    }
    return false;
}
