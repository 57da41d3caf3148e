/* Answers against the model at the revision that they name. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/mem.h"
#include "clients_int.h"

static bool bad(struct ask *a, const char *what, int64_t rev)
{
    struct run *r = a->run;
    return verdict_fail(&r->verdict,
                        "client %u: %s of %s on member %" PRIu64
                        " (asked at %.6f s, revision %" PRId64 ", floor %" PRId64 "): %s",
                        a->client->number, ask_name(a->kind), a->key_text, a->life->id,
                        (double)a->called_us / 1e6, rev, a->floor, what);
}

/* ---- records
 * ------------------------------------------------------------------------------------- */

static bool same(const struct record *rec, const struct model_event *ev)
{
    if (!rec || !ev) return !rec && !ev;
    return rec->mod_rev == ev->rev && rec->create_rev == ev->create_rev &&
           rec->version == ev->version && rec->lease == ev->lease && rec->sub == ev->sub &&
           !rec->tombstone && slice_eq(record_value(rec), buf_slice(&ev->value));
}

static bool check_one(struct ask *a, const struct range_result *got, int64_t rev)
{
    struct slice key = slice_str(a->key_text);
    const struct model_event *ev = model_get(a->run->model, key, rev);
    if (got->n > 1 || got->count != (ev ? 1 : 0) || got->n != (ev ? 1u : 0u) || got->more)
        return bad(a, "wrong count", rev);
    if (!same(got->n ? got->records[0] : NULL, ev))
        return bad(a, "not what the key held at that revision", rev);
    return true;
}

static bool check_all(struct ask *a, const struct range_result *got, int64_t rev)
{
    struct model *m = a->run->model;
    if (got->n != model_count(m, ask_all_keys(), ask_all_keys_end(), rev) ||
        got->count != (int64_t)got->n || got->more) {
        return bad(a, "wrong count", rev);
    }
    for (size_t i = 0; i < got->n; i++) {
        struct slice key = record_key(got->records[i]);
        if (i && slice_cmp(record_key(got->records[i - 1]), key) >= 0)
            return bad(a, "keys out of order", rev);
        if (!same(got->records[i], model_get(m, key, rev)))
            return bad(a, "not what a key held at that revision", rev);
    }
    return true;
}

/* A part of the range at an older revision, as it was asked for. */
static bool check_old_range(struct ask *a, const struct range_op *op, const struct range_result *got)
{
    struct model *m = a->run->model;
    int64_t rev = a->revision, count = (int64_t)model_count(m, ask_all_keys(), ask_all_keys_end(), rev);
    int64_t n = op->count_only ? 0 : op->limit && op->limit < count ? op->limit : count;
    if (got->count != count || (int64_t)got->n != n || (!op->count_only && got->more != (n < count)))
        return bad(a, "wrong count at an older revision", rev);
    struct slice last = {0};
    for (size_t i = 0; i < got->n; i++) {
        struct slice key = record_key(got->records[i]);
        if (i && slice_cmp(last, key) >= 0) return bad(a, "keys out of order", rev);
        if ((int64_t)model_count(m, ask_all_keys(), key, rev) != (int64_t)i) return bad(a, "a key was left out", rev);
        if (!same(got->records[i], model_get(m, key, rev)))
            return bad(a, "not what a key held at that revision", rev);
        last = key;
    }
    return true;
}

static bool check_prev(struct ask *a, const struct record *prev, int64_t rev)
{
    const struct model_event *ev =
        a->prev_kv ? model_get(a->run->model, slice_str(a->key_text), rev - 1) : NULL;
    return same(prev, ev) || bad(a, "wrong previous value", rev);
}

/* ---- writes
 * -------------------------------------------------------------------------------------- */

/* The revision is one that this command made: the key holds this value since then. */
static bool wrote(struct ask *a, const char *key, uint64_t value, int64_t rev)
{
    const struct model_event *ev = model_get(a->run->model, slice_str(key), rev);
    if (!ev || ev->rev != rev || value_number(buf_slice(&ev->value)) != value)
        return bad(a, "the write is not in the log", rev);
    return rev > a->floor || bad(a, "a write that is not newer than what was seen before it", rev);
}

static bool check_delete(struct ask *a, int64_t rev)
{
    const struct op_result *got = &a->request.result.op;
    struct slice key = a->kind == ASK_DELETE ? slice_str(a->key_text) : ask_all_keys();
    struct slice end = a->kind == ASK_DELETE ? (struct slice){0} : ask_all_keys_end();
    int64_t before = got->del.deleted ? rev - 1 : rev;
    if (got->del.deleted != (int64_t)model_count(a->run->model, key, end, before))
        return bad(a, "wrong number deleted", rev);
    if (model_count(a->run->model, key, end, rev) != 0)
        return bad(a, "the keys are still there", rev);
    if (got->del.deleted && rev <= a->floor)
        return bad(a, "a write that is not newer than what was seen before it", rev);
    if (got->del.n_prevs != (a->prev_kv ? (size_t)got->del.deleted : 0))
        return bad(a, "wrong number of previous values", rev);
    for (size_t i = 0; i < got->del.n_prevs; i++) {
        struct slice prev_key = record_key(got->del.prevs[i]);
        if (!same(got->del.prevs[i], model_get(a->run->model, prev_key, rev - 1)))
            return bad(a, "wrong previous value", rev);
    }
    return true;
}

static bool compare_held(struct ask *a, int64_t rev)
{
    const struct model_event *ev = model_get(a->run->model, slice_str(a->key_text), rev);
    if (a->kind == ASK_CAS_MOD) return (ev ? ev->rev : 0) == a->expect_mod;
    return (ev ? value_number(buf_slice(&ev->value)) : 0) == a->expect;
}

static bool check_cas(struct ask *a, int64_t rev)
{
    const struct op_result *got = &a->request.result.op;
    if (got->type != OP_TXN || got->txn.n != 1) return bad(a, "not a txn's answer", rev);
    if (got->txn.succeeded) {
        return (compare_held(a, rev - 1) || bad(a, "the compare cannot have held", rev)) &&
               wrote(a, a->key_text, a->value, rev);
    }
    if (compare_held(a, rev)) return bad(a, "the compare must have held", rev);
    return check_one(a, &got->txn.results[0].range, rev);
}

static bool check_txn(struct ask *a, int64_t rev)
{
    const struct op_result *got = &a->request.result.op;
    if (got->type != OP_TXN || !got->txn.succeeded || got->txn.n != 3)
        return bad(a, "not this txn's answer", rev);
    return wrote(a, a->key_text, a->value, rev) && wrote(a, a->key2_text, a->value2, rev) &&
           check_all(a, &got->txn.results[2].range, rev);
}

/* ---- hashes
 * -------------------------------------------------------------------------------------- */

static bool check_hash(struct ask *a)
{
    struct run *r = a->run;
    struct run_hash h = {a->request.hash_revision, a->request.compact_rev, a->request.hash,
                         a->life->id};
    if (r->lying == a->life->id) return true;
    if (h.revision != a->revision) return bad(a, "the hash of another revision", h.revision);
    for (unsigned i = 0; i < r->n_hashes && i < RUN_HASHES_MAX; i++) {
        const struct run_hash *o = &r->hashes[i];
        if (o->revision != h.revision || o->compact_revision != h.compact_revision ||
            o->hash == h.hash)
            continue;
        return verdict_fail(&r->verdict,
                            "HashKV at revision %" PRId64 " (compacted at %" PRId64
                            "): member %" PRIu64 " says %08x, member %" PRIu64 " said %08x",
                            h.revision, h.compact_revision, h.member, h.hash, o->member, o->hash);
    }
    r->hashes[r->n_hashes++ % RUN_HASHES_MAX] = h;
    return true;
}

/* Which keys it has is compared with the model at every entry; here the answer must be of this lease, and one that is there. */
static bool check_lease_info(struct ask *a)
{
    const struct core_request *q = &a->request;
    const struct model_lease *l = model_lease(a->run->model, a->lease);
    if (!l) return bad(a, "the lease is not in the log", 0);
    if (q->granted_ttl != l->ttl) return bad(a, "not the TTL that was granted", 0);
    if (q->ttl < 0 || q->ttl > l->ttl) return bad(a, "more or less than the whole TTL is left", 0);
    for (size_t i = 0; i < q->n_keys; i++)
        if (q->keys[i].len < 2 || memcmp(q->keys[i].data, "l/", 2) != 0) return bad(a, "a key that was never put with a lease", 0);
    return true;
}

/* ---- all
 * ----------------------------------------------------------------------------------------- */

static bool check_body(struct ask *a, int64_t rev)
{
    struct core_request *q = &a->request;
    switch (a->kind) {
    case ASK_PUT:
        return check_prev(a, q->result.op.put.prev, rev) && wrote(a, a->key_text, a->value, rev);
    case ASK_LEASE_PUT: return wrote(a, a->key_text, a->value, rev);
    case ASK_GET:
    case ASK_STALE_GET: return check_one(a, &q->result.op.range, rev);
    case ASK_OLD_GET: return check_one(a, &q->result.op.range, a->revision);
    case ASK_OLD_RANGE: return check_old_range(a, &q->range, &q->result.op.range);
    case ASK_TXN_OLD:
        if (q->result.op.type != OP_TXN || q->result.op.txn.n != 2) return bad(a, "not this txn's answer", rev);
        return wrote(a, a->key_text, a->value, rev) &&
               check_old_range(a, &a->success[1].range, &q->result.op.txn.results[1].range);
    case ASK_RANGE: return check_all(a, &q->result.op.range, rev);
    case ASK_TXN_READ: return check_all(a, &q->result.op.txn.results[0].range, rev);
    case ASK_DELETE:
    case ASK_DELETE_ALL: return check_delete(a, rev);
    case ASK_CAS_VALUE:
    case ASK_CAS_MOD: return check_cas(a, rev);
    case ASK_TXN: return check_txn(a, rev);
    case ASK_HASH: return check_hash(a);
    case ASK_RENEW: model_lease_renewed(a->run->model, a->lease, a->called_us); return true;
    case ASK_LEASE_INFO: return check_lease_info(a);
    case ASK_COMPACT:
        return model_compact_revision(a->run->model) >= a->revision ||
               bad(a, "the compaction is not in the log", rev);
    case ASK_GRANT:
        return model_lease(a->run->model, a->lease) || bad(a, "the lease is not in the log", rev);
    case ASK_REVOKE: {
        const struct model_lease *l = model_lease(a->run->model, a->lease);
        return (l && !l->alive) || bad(a, "the lease is still there", rev);
    }
    case ASK_ALARM: return true; /* every member's is compared at each entry */
    case ASK_KINDS: break;
    }
    return false;
}

/* Reads of one member as it is need not be newer than anything. */
static bool is_linearizable(enum ask_kind kind)
{
    return kind != ASK_STALE_GET && kind != ASK_HASH && kind != ASK_RENEW && kind != ASK_LEASE_INFO && kind != ASK_OLD_RANGE;
}

bool ask_check(struct ask *a)
{
    struct run *r = a->run;
    int64_t rev = a->request.ret_revision;
    if (rev > model_revision(r->model)) return bad(a, "a revision that nobody has applied", rev);
    if (is_linearizable(a->kind)) {
        if (rev < a->floor) return bad(a, "older than what was answered before it was asked", rev);
        if (rev > r->floor) r->floor = rev;
    }
    if (!ask_is_write(a->kind)) r->result->counts.reads_checked++;
    return check_body(a, rev);
}

bool ask_check_refusal(struct ask *a)
{
    struct run *r = a->run;
    int code = a->request.code;
    const struct model_lease *l = a->lease ? model_lease(r->model, a->lease) : NULL;
    switch (code) {
    case ERR_COMPACTED:
        if (a->kind == ASK_TXN_OLD) clients_refused(r, a->value);
        if (a->kind == ASK_TXN_OLD || a->kind == ASK_OLD_RANGE || a->kind == ASK_COMPACT || a->kind == ASK_OLD_GET || a->kind == ASK_HASH) {
            return model_compact_revision(r->model) >= a->revision ||
                   bad(a, "refused as compacted", 0);
        }
        break;
    case ERR_FUTURE_REV:
        if (a->kind == ASK_HASH || (a->kind == ASK_OLD_RANGE && a->request.serializable))
            return true; /* this member is behind */
        break;
    case ERR_LEASE_NOT_FOUND:
        if (a->kind == ASK_RENEW || a->kind == ASK_LEASE_INFO) /* it may have run out, and end in a moment */
            return !l || !l->alive || l->granted_us >= a->called_us || model_lease_may_end(r->model, l, sim_now_us(r->sim)) ||
                   bad(a, "the lease has not run out", 0);
        if (a->kind != ASK_REVOKE && a->kind != ASK_LEASE_PUT) break;
        return !l || !l->alive || l->granted_us >= a->called_us || bad(a, "the lease is there", 0);
        break;
    case ERR_NO_SPACE:
        if (!r->o.quota_bytes || (!a->value && a->kind != ASK_GRANT)) break;
        clients_refused(r, a->value);
        clients_refused(r, a->value2);
        r->result->counts.no_space++;
        return true;
    case ERR_CORRUPT:
        if (!r->members[a->life->id].damaged) break;
        clients_refused(r, a->value); /* nothing goes on before it has healed */
        clients_refused(r, a->value2);
        return true;
    default: break;
    }
    return bad(a, err_name(code), 0);
}

/* ---- the history
 * --------------------------------------------------------------------------------- */

static void add(struct ask *a, struct linear_op op, bool known)
{
    struct run *r = a->run;
    op.known = known;
    op.call = a->call;
    op.ret = known ? ++r->clock : 0;
    if (r->n_history == r->history_size) {
        r->history_size = r->history_size ? 2 * r->history_size : 1024;
        r->history = mem_must_realloc(r->history, r->history_size * sizeof *r->history);
    }
    r->history[r->n_history++] = op;
}

static uint64_t seen(const struct range_result *got, struct slice key)
{
    for (size_t i = 0; i < got->n; i++) {
        if (slice_eq(record_key(got->records[i]), key))
            return value_number(record_value(got->records[i]));
    }
    return 0;
}

static void add_range(struct ask *a, const struct range_result *got)
{
    for (unsigned k = 0; k < a->run->o.keys; k++) {
        char name[16];
        snprintf(name, sizeof name, "k/%02u", k);
        add(a, (struct linear_op){.key = k, .kind = LINEAR_READ, .got = seen(got, slice_str(name))},
            true);
    }
}

static void learn(struct ask *a, const struct range_result *got)
{
    struct known_value *k = &a->client->known[a->key];
    k->value = got->n ? value_number(record_value(got->records[0])) : 0;
    k->mod_rev = got->n ? got->records[0]->mod_rev : 0;
}

static void record_cas(struct ask *a, bool known)
{
    const struct op_result *got = &a->request.result.op;
    struct linear_op op = {
        .key = a->key, .kind = LINEAR_CAS, .expect = a->expect, .value = a->value};
    if (known) {
        op.succeeded = got->txn.succeeded;
        if (!op.succeeded) {
            op.got = seen(&got->txn.results[0].range, slice_str(a->key_text));
            if (a->kind == ASK_CAS_MOD && op.got == op.expect) op.kind = LINEAR_READ; /* written twice, it has another revision */
            learn(a, &got->txn.results[0].range);
        } else {
            a->client->known[a->key] = (struct known_value){a->value, a->request.ret_revision};
        }
    }
    add(a, op, known);
}

void ask_record(struct ask *a, bool known)
{
    const struct core_request *q = &a->request;
    switch (a->kind) {
    case ASK_GET:
        if (!known) return;
        learn(a, &q->result.op.range);
        add(a,
            (struct linear_op){.key = a->key,
                               .kind = LINEAR_READ,
                               .got = seen(&q->result.op.range, slice_str(a->key_text))},
            true);
        return;
    case ASK_RANGE:
        if (known) add_range(a, &q->result.op.range);
        return;
    case ASK_TXN_READ:
        if (known) add_range(a, &q->result.op.txn.results[0].range);
        return;
    case ASK_PUT:
        if (known) a->client->known[a->key] = (struct known_value){a->value, q->ret_revision};
        add(a, (struct linear_op){.key = a->key, .kind = LINEAR_WRITE, .value = a->value}, known);
        return;
    case ASK_TXN_OLD:
        add(a, (struct linear_op){.key = a->key, .kind = LINEAR_WRITE, .value = a->value}, known);
        return;
    case ASK_DELETE: add(a, (struct linear_op){.key = a->key, .kind = LINEAR_WRITE}, known); return;
    case ASK_DELETE_ALL:
        for (unsigned k = 0; k < a->run->o.keys; k++)
            add(a, (struct linear_op){.key = k, .kind = LINEAR_WRITE}, known);
        return;
    case ASK_TXN:
        add(a, (struct linear_op){.key = a->key, .kind = LINEAR_WRITE, .value = a->value}, known);
        add(a, (struct linear_op){.key = a->key2, .kind = LINEAR_WRITE, .value = a->value2}, known);
        return;
    case ASK_CAS_VALUE:
    case ASK_CAS_MOD: record_cas(a, known); return;
    default: return;
    }
}
