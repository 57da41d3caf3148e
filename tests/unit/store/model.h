/* A plain model of etcd's semantics: all versions ever written in one array, every question
 * answered by looking at all of it. Slow, and short enough to be believed. Tests run it beside the
 * store and compare every answer. */
#ifndef PINTLE_TESTS_STORE_MODEL_H
#define PINTLE_TESTS_STORE_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "store/store_int.h"

enum { MODEL_KEY = 24, MODEL_VALUE = 24, MODEL_LEASES = 16 };

struct version {
    int64_t rev, create, number, lease;
    uint32_t sub;
    bool deleted;
    uint8_t key_len, value_len;
    uint8_t key[MODEL_KEY], value[MODEL_VALUE];
};

struct model {
    struct version *versions;
    size_t n, size;
    int64_t rev, compact;
    uint32_t sub;
    struct {
        int64_t id, ttl, remaining;
    } leases[MODEL_LEASES];
    size_t n_leases;
};

static inline struct slice v_key(const struct version *v)
{
    return slice_make(v->key, v->key_len);
}

static inline struct slice v_value(const struct version *v)
{
    return slice_make(v->value, v->value_len);
}

static inline struct model model_copy(const struct model *m)
{
    struct model c = *m;
    c.versions = malloc(m->size * sizeof(*c.versions) + 1);
    if (m->n) memcpy(c.versions, m->versions, m->n * sizeof(*c.versions));
    return c;
}

static inline void model_free(struct model *m)
{
    free(m->versions);
    m->versions = NULL;
}

/* The newest version of the key at `rev`, deleted or not. */
static inline const struct version *newest(const struct model *m, struct slice key, int64_t rev)
{
    for (size_t i = m->n; i-- > 0;)
        if (m->versions[i].rev <= rev && slice_eq(v_key(&m->versions[i]), key))
            return &m->versions[i];
    return NULL;
}

static inline const struct version *shown(const struct model *m, struct slice key, int64_t rev)
{
    const struct version *v = newest(m, key, rev);
    return v && !v->deleted ? v : NULL;
}

static inline bool in_range(struct slice key, struct slice from, struct slice end)
{
    if (end.len == 0) return slice_eq(key, from);
    if (slice_cmp(key, from) < 0) return false;
    return (end.len == 1 && end.data[0] == 0) || slice_cmp(key, end) < 0;
}

/* All keys shown at `rev` in the range, sorted. The result is malloc'ed. */
static inline const struct version **all_shown(const struct model *m, struct slice from,
                                               struct slice end, int64_t rev, size_t *ret_n)
{
    const struct version **out = malloc((m->n + 1) * sizeof(*out));
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct version *v = &m->versions[i];
        if (!in_range(v_key(v), from, end) || shown(m, v_key(v), rev) != v) continue;
        size_t k = n++;
        for (; k > 0 && slice_cmp(v_key(out[k - 1]), v_key(v)) > 0; k--) out[k] = out[k - 1];
        out[k] = v;
    }
    *ret_n = n;
    return out;
}

static inline void same_record(const struct record *r, const struct version *v)
{
    assert_true((r != NULL) == (v != NULL));
    if (!v) return;
    assert_true(slice_eq(record_key(r), v_key(v)));
    assert_true(slice_eq(record_value(r), v_value(v)));
    assert_true(r->mod_rev == v->rev && r->sub == v->sub && r->tombstone == v->deleted);
    assert_true(r->create_rev == v->create && r->version == v->number && r->lease == v->lease);
}

/* ---- ranges --------------------------------------------------------------------------------- */

static inline int64_t sort_number(enum sort_target t, const struct version *v)
{
    return t == SORT_VERSION ? v->number : t == SORT_CREATE ? v->create : v->rev;
}

static inline int sort_cmp(enum sort_target t, const struct version *a, const struct version *b)
{
    if (t == SORT_KEY) return slice_cmp(v_key(a), v_key(b));
    if (t == SORT_VALUE) return slice_cmp(v_value(a), v_value(b));
    int64_t x = sort_number(t, a), y = sort_number(t, b);
    return (x > y) - (x < y);
}

static inline void same_range(const struct model *m, const struct range_op *op, int64_t view,
                              const struct range_result *r)
{
    size_t n, kept = 0;
    const struct version **v = all_shown(m, op->key, op->range_end, view, &n);
    bool filtered = op->min_mod_revision || op->max_mod_revision || op->min_create_revision ||
                    op->max_create_revision;
    assert_int_equal(r->count, n);
    if (op->count_only) n = 0;
    if (op->limit > 0 && op->sort_order == SORT_NONE && !filtered && n > (size_t)op->limit + 1)
        n = (size_t)op->limit + 1;
    for (size_t i = 0; i < n; i++) {
        if (op->max_mod_revision && v[i]->rev > op->max_mod_revision) continue;
        if (op->min_mod_revision && v[i]->rev < op->min_mod_revision) continue;
        if (op->max_create_revision && v[i]->create > op->max_create_revision) continue;
        if (op->min_create_revision && v[i]->create < op->min_create_revision) continue;
        v[kept++] = v[i];
    }
    if (op->sort_order != SORT_NONE || op->sort_target != SORT_KEY) {
        int sign = op->sort_order == SORT_DESCEND ? -1 : 1;
        for (size_t i = 1; i < kept; i++) {
            const struct version *x = v[i];
            size_t k = i;
            for (; k > 0 && sign * sort_cmp(op->sort_target, v[k - 1], x) > 0; k--) v[k] = v[k - 1];
            v[k] = x;
        }
    }
    bool more = op->limit > 0 && kept > (size_t)op->limit;
    if (more) kept = (size_t)op->limit;
    assert_int_equal(r->n, kept);
    assert_true(r->more == more);
    for (size_t i = 0; i < kept; i++) same_record(r->records[i], v[i]);
    free(v);
}

/* ---- leases --------------------------------------------------------------------------------- */

static inline size_t lease_at(const struct model *m, int64_t id)
{
    size_t i = 0;
    while (i < m->n_leases && m->leases[i].id != id) i++;
    return i;
}

static inline bool has_lease(const struct model *m, int64_t id)
{
    return lease_at(m, id) < m->n_leases;
}

/* ---- changes -------------------------------------------------------------------------------- */

static inline void model_write(struct model *m, const struct version *v)
{
    if (m->n == m->size) {
        m->size = m->size ? m->size * 2 : 64;
        m->versions = realloc(m->versions, m->size * sizeof(*m->versions));
    }
    m->versions[m->n] = *v;
    m->versions[m->n].rev = m->rev + 1;
    m->versions[m->n].sub = m->sub++;
    m->n++;
}

static inline void model_put(struct model *m, const struct put_op *op, const struct op_result *r)
{
    const struct version *old = shown(m, op->key, m->rev + 1);
    struct slice value = op->ignore_value ? v_value(old) : op->value;
    struct version v = {.key_len = (uint8_t)op->key.len, .value_len = (uint8_t)value.len};
    memcpy(v.key, op->key.data, op->key.len);
    if (value.len) memcpy(v.value, value.data, value.len);
    v.create = old ? old->create : m->rev + 1;
    v.number = old ? old->number + 1 : 1;
    v.lease = op->ignore_lease ? old->lease : op->lease;
    same_record(r->put.prev, op->prev_kv ? old : NULL);
    model_write(m, &v);
}

static inline void model_tombstone(struct model *m, const struct version *v)
{
    struct version t = {.key_len = v->key_len, .deleted = true};
    memcpy(t.key, v->key, v->key_len);
    model_write(m, &t);
}

static inline void model_delete(struct model *m, const struct delete_op *op,
                                const struct op_result *r)
{
    size_t n;
    const struct version **v = all_shown(m, op->key, op->range_end, m->rev + 1, &n);
    size_t *places = malloc((n + 1) * sizeof(*places)); /* the array moves as it grows */
    assert_int_equal(r->del.deleted, n);
    assert_int_equal(r->del.n_prevs, op->prev_kv ? n : 0);
    for (size_t i = 0; i < n; i++) {
        if (op->prev_kv) same_record(r->del.prevs[i], v[i]);
        places[i] = (size_t)(v[i] - m->versions);
    }
    for (size_t i = 0; i < n; i++) {
        struct version copy = m->versions[places[i]];
        model_tombstone(m, &copy);
    }
    free(places);
    free(v);
}

/* ---- txns ----------------------------------------------------------------------------------- */

static inline bool compare_version(const struct compare *c, const struct version *v)
{
    int o;
    if (c->target == COMPARE_VALUE) {
        if (!v) return false;
        o = slice_cmp(v_value(v), c->value);
    } else {
        int64_t x = !v                             ? 0
                    : c->target == COMPARE_VERSION ? v->number
                    : c->target == COMPARE_CREATE  ? v->create
                    : c->target == COMPARE_MOD     ? v->rev
                                                   : v->lease;
        o = (x > c->number) - (x < c->number);
    }
    return c->result == COMPARE_EQUAL     ? o == 0
           : c->result == COMPARE_GREATER ? o > 0
           : c->result == COMPARE_LESS    ? o < 0
                                          : o != 0;
}

/* On the state before the txn, also while it runs. */
static inline bool model_compare(const struct model *m, const struct txn_op *t)
{
    bool ok = true;
    for (size_t i = 0; i < t->n_compares && ok; i++) {
        size_t n;
        const struct version **v =
            all_shown(m, t->compares[i].key, t->compares[i].range_end, m->rev, &n);
        if (n == 0) ok = compare_version(&t->compares[i], NULL);
        for (size_t k = 0; k < n && ok; k++) ok = compare_version(&t->compares[i], v[k]);
        free(v);
    }
    return ok;
}

static inline int check_put_op(const struct model *m, const struct put_op *op)
{
    if ((op->ignore_value || op->ignore_lease) && !shown(m, op->key, m->rev))
        return ERR_KEY_NOT_FOUND;
    return op->lease && !has_lease(m, op->lease) ? ERR_LEASE_NOT_FOUND : 0;
}

static inline int model_check(const struct model *m, const struct txn_op *t, enum op_type what)
{
    bool then = model_compare(m, t);
    const struct op *ops = then ? t->success : t->failure;
    size_t n = then ? t->n_success : t->n_failure;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        if (ops[i].type == OP_TXN) rc = model_check(m, ops[i].txn, what);
        else if (ops[i].type != what) continue;
        else if (what == OP_PUT) rc = check_put_op(m, &ops[i].put);
        else if (ops[i].range.revision > m->rev) rc = ERR_FUTURE_REV;
        else if (ops[i].range.revision && ops[i].range.revision < m->compact) rc = ERR_COMPACTED;
    }
    return rc;
}

static inline void model_run(struct model *m, const struct txn_op *t, const struct op_result *r)
{
    bool then = model_compare(m, t);
    const struct op *ops = then ? t->success : t->failure;
    size_t n = then ? t->n_success : t->n_failure;
    assert_int_equal(r->type, OP_TXN);
    assert_true(r->txn.succeeded == then);
    assert_int_equal(r->txn.n, n);
    for (size_t i = 0; i < n; i++) {
        const struct op_result *ri = &r->txn.results[i];
        assert_int_equal(ri->type, ops[i].type);
        switch (ops[i].type) {
        case OP_RANGE:
            same_range(m, &ops[i].range,
                       ops[i].range.revision > 0 ? ops[i].range.revision : m->rev + 1, &ri->range);
            break;
        case OP_PUT: model_put(m, &ops[i].put, ri); break;
        case OP_DELETE: model_delete(m, &ops[i].del, ri); break;
        case OP_TXN: model_run(m, ops[i].txn, ri); break;
        }
    }
}

/* ---- commands ------------------------------------------------------------------------------- */

static inline void model_revoke(struct model *m, int64_t id)
{
    size_t n;
    const struct version **v = all_shown(m, SLICE_LIT("\0"), SLICE_LIT("\0"), m->rev, &n);
    struct version *copies = malloc((n + 1) * sizeof(*copies));
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (v[i]->lease == id) copies[kept++] = *v[i];
    for (size_t i = 0; i < kept; i++) model_tombstone(m, &copies[i]);
    size_t at = lease_at(m, id);
    m->leases[at] = m->leases[--m->n_leases];
    free(copies);
    free(v);
}

/* Does the command and compares the store's result with it. */
static inline void model_apply(struct model *m, const struct command *c, const struct result *r)
{
    int rc = 0;
    size_t at;
    if (c->type == COMMAND_OP && c->op.type == OP_PUT) {
        rc = c->op.put.lease && !has_lease(m, c->op.put.lease) ? ERR_LEASE_NOT_FOUND
                                                               : check_put_op(m, &c->op.put);
    } else if (c->type == COMMAND_OP && c->op.type == OP_TXN) {
        rc = txn_op_read_only(c->op.txn) ? 0 : model_check(m, c->op.txn, OP_PUT);
        if (!rc) rc = model_check(m, c->op.txn, OP_RANGE);
    } else if (c->type == COMMAND_COMPACT) {
        rc = c->compact.revision <= m->compact ? ERR_COMPACTED
             : c->compact.revision > m->rev    ? ERR_FUTURE_REV
                                               : 0;
    } else if (c->type == COMMAND_LEASE_GRANT) {
        rc = has_lease(m, c->lease_grant.id) ? ERR_LEASE_EXISTS : 0;
    } else if (c->type == COMMAND_LEASE_REVOKE) {
        rc = has_lease(m, c->lease_revoke.id) ? 0 : ERR_LEASE_NOT_FOUND;
    }
    assert_int_equal(r->code, rc);
    m->sub = 0;
    if (!rc) {
        switch (c->type) {
        case COMMAND_OP:
            if (c->op.type == OP_PUT) model_put(m, &c->op.put, &r->op);
            else if (c->op.type == OP_DELETE) model_delete(m, &c->op.del, &r->op);
            else model_run(m, c->op.txn, &r->op);
            break;
        case COMMAND_COMPACT: m->compact = c->compact.revision; break;
        case COMMAND_LEASE_GRANT:
            assert_true(m->n_leases < MODEL_LEASES);
            m->leases[m->n_leases].id = c->lease_grant.id;
            m->leases[m->n_leases].remaining = 0;
            m->leases[m->n_leases++].ttl = c->lease_grant.ttl < 2 ? 2 : c->lease_grant.ttl;
            assert_true(r->lease.id == c->lease_grant.id &&
                        r->lease.ttl == m->leases[m->n_leases - 1].ttl);
            break;
        case COMMAND_LEASE_REVOKE: model_revoke(m, c->lease_revoke.id); break;
        case COMMAND_LEASE_CHECKPOINT:
            at = lease_at(m, c->checkpoint.leases[0].id);
            if (at < m->n_leases) m->leases[at].remaining = c->checkpoint.leases[0].remaining_ttl;
            break;
        default: break;
        }
    }
    if (m->sub) m->rev++;
    m->sub = 0;
    assert_int_equal(r->revision, m->rev);
}

/* ---- history -------------------------------------------------------------------------------- */

/* Whether compaction leaves the version (3.5.16 and later keep a deletion at the compact revision).
 */
static inline bool survives(const struct model *m, const struct version *v)
{
    if (v->rev > m->compact) return true;
    return newest(m, v_key(v), m->compact) == v && (!v->deleted || v->rev == m->compact);
}

static inline const struct version *model_prev(const struct model *m, const struct version *v)
{
    return v->rev > m->compact ? shown(m, v_key(v), v->rev - 1) : NULL;
}

static inline void same_events(const struct model *m, int64_t from, int64_t to,
                               const struct event_batch *b)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++) {
        const struct version *v = &m->versions[i];
        if (v->rev < from || v->rev > to || !survives(m, v)) continue;
        assert_true(b && n < b->count);
        if (n == 0) assert_int_equal(b->first_rev, v->rev);
        same_record(b->events[n].record, v);
        same_record(b->events[n].prev, model_prev(m, v));
        n++;
    }
    assert_int_equal(b ? b->count : 0, n);
    if (n) assert_int_equal(b->last_rev, b->events[n - 1].record->mod_rev);
}

/* ---- etcd's hash ---------------------------------------------------------------------------- */

static inline uint32_t crc_varint(uint32_t crc, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        crc = crc32c(crc, &byte, 1);
    } while (v >>= 7);
    return crc;
}

static inline uint32_t crc_int(uint32_t crc, unsigned field, int64_t v)
{
    return v ? crc_varint(crc_varint(crc, field * 8), (uint64_t)v) : crc;
}

static inline uint32_t crc_bytes(uint32_t crc, unsigned field, struct slice s)
{
    return s.len ? crc32c(crc_varint(crc_varint(crc, field * 8 + 2), s.len), s.data, s.len) : crc;
}

static inline uint32_t crc_version(uint32_t crc, const struct version *v)
{
    uint8_t key[18];
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)((uint64_t)v->rev >> (56 - 8 * i));
        key[9 + i] = (uint8_t)((uint64_t)v->sub >> (56 - 8 * i));
    }
    key[8] = '_';
    key[17] = 't';
    crc = crc_bytes(crc32c(crc, key, v->deleted ? 18 : 17), 1, v_key(v));
    if (v->deleted) return crc;
    crc = crc_int(crc_int(crc_int(crc, 2, v->create), 3, v->rev), 4, v->number);
    return crc_int(crc_bytes(crc, 5, v_value(v)), 6, v->lease);
}

static inline uint32_t model_hash(const struct model *m, int64_t rev)
{
    size_t n_keep;
    free(all_shown(m, SLICE_LIT("\0"), SLICE_LIT("\0"), rev, &n_keep));
    uint32_t crc = crc32c(0, "key", 3);
    for (size_t i = 0; i < m->n && m->versions[i].rev <= rev; i++) {
        const struct version *v = &m->versions[i];
        if (!survives(m, v)) continue;
        if (v->rev <= m->compact && n_keep && shown(m, v_key(v), rev) != v) continue;
        if (v->rev == m->compact && v->deleted) continue;
        crc = crc_version(crc, v);
    }
    return crc;
}

#endif
