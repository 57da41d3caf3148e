/* What clients ask: requests of each kind, with keys and values by chance. Each value is written at
 * most as often as it was asked for and begins with its number: "v17:....". */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "clients_int.h"

static const struct {
    const char *name;
    unsigned weight;
    bool write;
} kinds[ASK_KINDS] = {
    [ASK_PUT] = {"put", 30, true},
    [ASK_GET] = {"get", 25, false},
    [ASK_STALE_GET] = {"serializable get", 5, false},
    [ASK_OLD_GET] = {"old get", 3, false},
    [ASK_OLD_RANGE] = {"old range", 3, false},
    [ASK_DELETE] = {"delete", 6, true},
    [ASK_DELETE_ALL] = {"delete range", 1, true},
    [ASK_CAS_VALUE] = {"cas by value", 8, true},
    [ASK_CAS_MOD] = {"cas by mod revision", 8, true},
    [ASK_RANGE] = {"range", 5, false},
    [ASK_TXN] = {"txn", 5, true},
    [ASK_TXN_OLD] = {"txn with an old range", 3, true},
    [ASK_TXN_READ] = {"txn read", 2, false},
    [ASK_COMPACT] = {"compact", 1, true},
    [ASK_GRANT] = {"lease grant", 2, true},
    [ASK_LEASE_PUT] = {"lease put", 3, true},
    [ASK_RENEW] = {"lease renew", 3, false},
    [ASK_LEASE_INFO] = {"lease time to live", 2, false},
    [ASK_REVOKE] = {"lease revoke", 1, true},
    [ASK_HASH] = {"hash", 2, false},
    [ASK_ALARM] = {"alarm", 1, true},
};

const char *ask_name(enum ask_kind kind)
{
    return kinds[kind].name;
}

bool ask_is_write(enum ask_kind kind)
{
    return kinds[kind].write;
}

bool ask_may_come_again(enum ask_kind kind)
{
    return kind == ASK_PUT || kind == ASK_CAS_VALUE || kind == ASK_CAS_MOD || kind == ASK_TXN;
}

enum ask_kind ask_choose(struct run *r)
{
    unsigned total = 0, k = 0;
    for (unsigned i = 0; i < ASK_KINDS; i++) total += kinds[i].weight;
    unsigned at = (unsigned)sim_random_below(&r->random, total);
    for (; at >= kinds[k].weight; k++) at -= kinds[k].weight;
    return (enum ask_kind)k;
}

struct slice ask_all_keys(void)
{
    return SLICE_LIT("k/");
}

struct slice ask_all_keys_end(void)
{
    return SLICE_LIT("k0");
}

uint64_t value_number(struct slice bytes)
{
    uint64_t n = 0;
    if (bytes.len < 2 || bytes.data[0] != 'v') return 0;
    for (size_t i = 1; i < bytes.len && bytes.data[i] >= '0' && bytes.data[i] <= '9'; i++) {
        n = n * 10 + (uint64_t)(bytes.data[i] - '0');
    }
    return n;
}

static void value_text(struct run *r, struct buf *out, uint64_t number)
{
    CHECK(buf_printf(out, "v%" PRIu64 ":", number) == 0);
    uint64_t seed = number * 0x9e3779b97f4a7c15u;
    size_t pad = r->o.value_bytes ? (size_t)((seed >> 20) % r->o.value_bytes) : 0;
    uint8_t *p = buf_reserve(out, pad);
    CHECK(p || pad == 0);
    for (size_t i = 0; i < pad; i++) p[i] = (uint8_t)('a' + (seed >> (i % 40)) % 26);
    out->len += pad;
}

/* A new one, unless it is asked for again. */
static void choose_value(struct run *r, uint64_t *number, struct buf *out)
{
    if (!*number) *number = ++r->next_value;
    value_text(r, out, *number);
}

static struct slice key_slice(const struct ask *a)
{
    return slice_str(a->key_text);
}

static struct op put_of(struct slice key, const struct buf *value)
{
    return (struct op){.type = OP_PUT, .put = {.key = key, .value = buf_slice(value)}};
}

static struct op get_of(struct slice key)
{
    return (struct op){.type = OP_RANGE, .range = {.key = key}};
}

static void encode(struct ask *a, const struct command *c)
{
    command_encode(&a->command, c);
    CHECK(!a->command.failed);
    a->request.type = CORE_COMMAND;
    a->request.command = buf_slice(&a->command);
}

static void encode_op(struct ask *a, struct op op)
{
    struct command c = {.type = COMMAND_OP, .op = op};
    CHECK(command_check(&c) == 0);
    encode(a, &c);
}

static void make_delete(struct ask *a)
{
    struct delete_op d = {.key = key_slice(a), .prev_kv = a->prev_kv};
    if (a->kind == ASK_DELETE_ALL) {
        d.key = ask_all_keys();
        d.range_end = ask_all_keys_end();
    }
    encode_op(a, (struct op){.type = OP_DELETE, .del = d});
}

/* If the key is as this client saw it last: put; else get. */
static void make_cas(struct ask *a)
{
    struct run *r = a->run;
    const struct known_value *known = &a->client->known[a->key];
    a->expect = known->value;
    a->expect_mod = known->mod_rev;
    choose_value(r, &a->value, &a->bytes);
    a->compare = (struct compare){.result = COMPARE_EQUAL,
                                  .target = COMPARE_MOD,
                                  .key = key_slice(a),
                                  .number = a->expect_mod};
    if (a->kind == ASK_CAS_VALUE && a->expect) {
        value_text(r, &a->expect_bytes, a->expect);
        a->compare.target = COMPARE_VALUE;
        a->compare.value = buf_slice(&a->expect_bytes);
    } else if (a->kind == ASK_CAS_VALUE) {
        a->compare.target = COMPARE_VERSION; /* absent */
        a->compare.number = 0;
    }
    a->success[0] = put_of(key_slice(a), &a->bytes);
    a->failure[0] = get_of(key_slice(a));
    a->txn = (struct txn_op){.compares = &a->compare,
                             .n_compares = 1,
                             .success = a->success,
                             .n_success = 1,
                             .failure = a->failure,
                             .n_failure = 1};
    encode_op(a, (struct op){.type = OP_TXN, .txn = &a->txn});
}

/* Two puts and a read of both, at once. */
static void make_txn(struct ask *a)
{
    if (!a->value)
        a->key2 = (a->key + 1 + (unsigned)sim_random_below(&a->run->random, a->run->o.keys - 1)) % a->run->o.keys;
    snprintf(a->key2_text, sizeof a->key2_text, "k/%02u", a->key2);
    choose_value(a->run, &a->value, &a->bytes);
    choose_value(a->run, &a->value2, &a->bytes2);
    a->success[0] = put_of(key_slice(a), &a->bytes);
    a->success[1] = put_of(slice_str(a->key2_text), &a->bytes2);
    a->success[2] = (struct op){.type = OP_RANGE,
                                .range = {.key = ask_all_keys(), .range_end = ask_all_keys_end()}};
    a->txn = (struct txn_op){.success = a->success, .n_success = 3};
    encode_op(a, (struct op){.type = OP_TXN, .txn = &a->txn});
}

static void make_txn_read(struct ask *a)
{
    a->success[0] = (struct op){.type = OP_RANGE,
                                .range = {.key = ask_all_keys(), .range_end = ask_all_keys_end()}};
    a->txn = (struct txn_op){.success = a->success, .n_success = 1};
    a->request.type = CORE_TXN_READ;
    a->request.txn = &a->txn;
}

/* Some revision that is not the newest. */
static bool choose_revision(struct ask *a)
{
    int64_t floor = a->run->floor;
    if (floor < 2) return false;
    uint64_t back = sim_random_below(&a->run->random, 200);
    a->revision = floor > (int64_t)back + 1 ? floor - (int64_t)back : 1;
    return true;
}

static bool make_old_range(struct ask *a)
{
    struct sim_random *r = &a->run->random;
    if (!choose_revision(a)) return false;
    a->request.type = CORE_RANGE;
    a->request.range = (struct range_op){.key = ask_all_keys(), .range_end = ask_all_keys_end(), .revision = a->revision};
    a->request.range.limit = (int64_t)sim_random_below(r, 6);
    a->request.range.count_only = sim_chance(r, 200000);
    a->request.range.keys_only = sim_chance(r, 200000);
    a->request.serializable = a->request.range.serializable = sim_chance(r, 300000);
    return true;
}

static bool make_txn_old(struct ask *a)
{
    if (!choose_revision(a)) return false;
    choose_value(a->run, &a->value, &a->bytes);
    struct op range = {.type = OP_RANGE,
                       .range = {.key = ask_all_keys(), .range_end = ask_all_keys_end(), .revision = a->revision}};
    a->success[0] = put_of(key_slice(a), &a->bytes);
    a->success[1] = range;
    a->txn = (struct txn_op){.success = a->success, .n_success = 2};
    encode_op(a, (struct op){.type = OP_TXN, .txn = &a->txn});
    return true;
}

static bool make_range(struct ask *a)
{
    a->request.type = CORE_RANGE;
    a->request.range = (struct range_op){.key = key_slice(a)};
    if (a->kind == ASK_RANGE)
        a->request.range =
            (struct range_op){.key = ask_all_keys(), .range_end = ask_all_keys_end()};
    if (a->kind == ASK_STALE_GET) a->request.serializable = a->request.range.serializable = true;
    if (a->kind != ASK_OLD_GET) return true;
    if (!choose_revision(a)) return false;
    a->request.range.revision = a->revision;
    return true;
}

static bool make_lease(struct ask *a)
{
    struct run *r = a->run;
    int64_t *slot = &r->leases[sim_random_below(&r->random, RUN_LEASES_MAX)];
    struct command c = {.type = COMMAND_LEASE_GRANT};
    if (a->kind == ASK_GRANT) {
        a->lease = *slot = ++r->next_lease;
        c.lease_grant.id = a->lease;
        c.lease_grant.ttl = (int64_t)sim_random_range(&r->random, 2, 15);
        encode(a, &c);
        return true;
    }
    a->lease = *slot;
    if (!a->lease) return false;
    if (a->kind == ASK_RENEW || a->kind == ASK_LEASE_INFO) {
        a->request.type = a->kind == ASK_RENEW ? CORE_LEASE_RENEW : CORE_LEASE_INFO;
        a->request.want_keys = sim_chance(&r->random, 500000);
        a->request.lease_id = a->lease;
        return true;
    }
    c.type = COMMAND_LEASE_REVOKE;
    c.lease_revoke.id = a->lease;
    model_lease_asked(r->model, a->lease);
    *slot = 0;
    encode(a, &c);
    return true;
}

static bool make_lease_put(struct ask *a)
{
    a->lease = a->run->leases[sim_random_below(&a->run->random, RUN_LEASES_MAX)];
    if (!a->lease) return false;
    snprintf(a->key_text, sizeof a->key_text, "l/%02u", a->key);
    choose_value(a->run, &a->value, &a->bytes);
    struct op put = put_of(key_slice(a), &a->bytes);
    put.put.lease = a->lease;
    encode_op(a, put);
    return true;
}

static bool make_compact(struct ask *a)
{
    uint64_t keep = sim_random_below(&a->run->random, 100);
    a->revision = a->run->floor - (int64_t)keep;
    if (a->revision < 1) return false;
    struct command c = {.type = COMMAND_COMPACT, .compact = {.revision = a->revision}};
    encode(a, &c);
    return true;
}

static bool make_alarm(struct ask *a)
{
    struct run *r = a->run;
    struct command c = {.type = COMMAND_ALARM, .alarm = {.alarm = ALARM_NOSPACE}};
    if (!r->o.quota_bytes) return false;
    c.alarm.activate = !r->winding_down && sim_chance(&r->random, 300000);
    encode(a, &c);
    return true;
}

bool ask_make(struct ask *a)
{
    struct run *r = a->run;
    const struct again *again = &a->client->again;
    a->key = (unsigned)sim_random_below(&r->random, r->o.keys);
    if (again->value) {
        a->key = again->key, a->key2 = again->key2;
        a->value = again->value, a->value2 = again->value2;
    }
    a->prev_kv = sim_chance(&r->random, 300000);
    bool calm = r->winding_down; /* nothing may time out then that is answered within a second */
    a->request.timeout_ms = (uint32_t)sim_random_range(&r->random, calm ? 1000 : r->o.timeout_min_ms,
                                                       calm ? 5000 : r->o.timeout_max_ms);
    snprintf(a->key_text, sizeof a->key_text, "k/%02u", a->key);
    switch (a->kind) {
    case ASK_PUT: {
        choose_value(r, &a->value, &a->bytes);
        struct op put = put_of(key_slice(a), &a->bytes);
        put.put.prev_kv = a->prev_kv;
        encode_op(a, put);
        return true;
    }
    case ASK_GET:
    case ASK_STALE_GET:
    case ASK_OLD_GET:
    case ASK_RANGE: return make_range(a);
    case ASK_OLD_RANGE: return make_old_range(a);
    case ASK_TXN_OLD: return make_txn_old(a);
    case ASK_DELETE:
    case ASK_DELETE_ALL: make_delete(a); return true;
    case ASK_CAS_VALUE:
    case ASK_CAS_MOD: make_cas(a); return true;
    case ASK_TXN: make_txn(a); return true;
    case ASK_TXN_READ: make_txn_read(a); return true;
    case ASK_COMPACT: return make_compact(a);
    case ASK_GRANT:
    case ASK_RENEW:
    case ASK_LEASE_INFO:
    case ASK_REVOKE: return make_lease(a);
    case ASK_LEASE_PUT: return make_lease_put(a);
    case ASK_HASH:
        a->request.type = CORE_HASH_KV;
        a->revision = a->request.revision = r->floor;
        return r->floor > 1;
    case ASK_ALARM: return make_alarm(a);
    case ASK_KINDS: break;
    }
    return false;
}
