/* A hash of the whole state, to be compared between members: all that a snapshot holds (history from the compact revision on,
 * leases, alarms, members, sizes), and the index that reads go through. It is read from memory, so that it also sees what
 * rotted there after it was written.
 *
 * It is of the state at `open`, although applies go on between its steps. Records do not change, and a pin keeps them; what is
 * small is read at once; leases are many and do change, so each change of one that the walk has yet to come to is taken out
 * again (store_check_lease). */
#include <endian.h>
#include <xxhash.h>

#include "base/mem.h"
#include "store/store_int.h"

enum stage { STAGE_HISTORY, STAGE_KEYS, STAGE_LEASES, STAGE_DONE };

struct store_check {
    struct pin pin;   /* at the compact revision */
    struct list node; /* in the store's, as long as the pin holds */
    int64_t revision;
    enum stage stage;
    int64_t at_rev; /* the next record */
    uint32_t at_sub;
    struct record *last_key; /* of the key looked at last; a reference */
    int64_t last_lease;      /* 0 = none yet */
    uint64_t others, history, keys, leases;
};

static uint64_t hash_numbers(uint64_t seed, uint64_t *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++) numbers[i] = htole64(numbers[i]);
    return XXH3_64bits_withSeed(numbers, n * sizeof(*numbers), seed);
}

#define HASH(seed, ...)                                                                            \
    hash_numbers(seed, (uint64_t[]){__VA_ARGS__}, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static uint64_t hash_bytes(uint64_t seed, struct slice s)
{
    return XXH3_64bits_withSeed(s.data, s.len, HASH(seed, s.len));
}

static uint64_t hash_record(uint64_t seed, const struct record *r)
{
    return HASH(seed, (uint64_t)r->mod_rev, r->sub, r->tombstone, (uint64_t)r->create_rev, (uint64_t)r->version,
                (uint64_t)r->lease, r->key_len, r->value_len);
}

static uint64_t hash_lease(const struct lease *l)
{
    return HASH(0, (uint64_t)l->id, (uint64_t)l->ttl, (uint64_t)l->remaining_ttl);
}

/* ---- opening -------------------------------------------------------------------------------- */

static uint64_t hash_others(const struct store *s)
{
    uint64_t h = HASH(0, (uint64_t)s->revision, (uint64_t)s->compact_rev, (uint64_t)store_size_in_use(s), s->index.live,
                      s->leases.n, s->n_alarms, s->n_members);
    for (size_t i = 0; i < s->n_alarms; i++)
        h = HASH(h, s->alarms[i].alarm.member_id, s->alarms[i].alarm.alarm, s->alarms[i].automatic);
    for (size_t i = 0; i < s->n_members; i++) {
        const struct member_record *m = &s->members[i];
        h = hash_bytes(HASH(h, m->id, m->n_urls), m->name);
        for (size_t k = 0; k < m->n_urls; k++) h = hash_bytes(h, m->urls[k]);
    }
    return h;
}

struct store_check *store_check_open(struct store *s)
{
    struct store_check *c = mem_must_calloc(1, sizeof(*c));
    c->revision = s->revision;
    c->others = hash_others(s);
    pin_open(&c->pin, s, s->compact_rev);
    list_push_back(&s->checks, &c->node);
    return c;
}

void store_check_close(struct store_check *c)
{
    if (!c) return;
    if (c->pin.store) list_remove(&c->node);
    pin_close(&c->pin);
    record_unref(c->last_key);
    mem_free(c);
}

void store_check_lease(const struct store *s, const struct lease *l, bool after)
{
    list_for_each(node, &s->checks)
    {
        struct store_check *c = container_of(node, struct store_check, node);
        if (c->stage == STAGE_DONE || (c->last_lease && l->id <= c->last_lease)) continue;
        c->leases += after ? -hash_lease(l) : hash_lease(l);
    }
}

/* ---- the walk ------------------------------------------------------------------------------- */

/* What a step may still do, in bytes as sizes are counted. */
static bool spend(size_t *budget, size_t cost)
{
    *budget = *budget > cost ? *budget - cost : 0;
    return *budget > 0;
}

static bool walk_history(struct store_check *c, size_t *budget)
{
    struct rlog_iter it;
    struct record *r = rlog_seek(&c->pin.store->log, c->at_rev, c->at_sub, &it);
    while (r && r->mod_rev <= c->revision) {
        if (pin_holds(&c->pin, r)) {
            c->history = hash_record(c->history, r);
            c->history = XXH3_64bits_withSeed(r->data, (size_t)r->key_len + r->value_len, c->history);
        }
        c->at_rev = r->mod_rev;
        c->at_sub = r->sub + 1u;
        if (!spend(budget, (size_t)record_cost(r))) return false;
        r = rlog_next(&c->pin.store->log, &it);
    }
    return true;
}

/* Whether the key is among those that its lease will take away. */
static bool attached(const struct store *s, const struct record *r)
{
    const struct lease *l = lease_find(&s->leases, r->lease);
    return l && index_get(&l->keys, record_key(r)) == r;
}

/* The keys as a read at the revision finds them. Their values were in the history. */
static bool walk_keys(struct store_check *c, size_t *budget)
{
    const struct store *s = c->pin.store;
    struct index_path path;
    struct slice from = c->last_key ? record_key(c->last_key) : (struct slice){0};
    struct record *r = index_seek(&s->index, from, &path), *last = NULL;
    if (r && c->last_key && slice_eq(record_key(r), from)) r = index_next(&s->index, &path);
    for (bool more = true; r && more; r = index_next(&s->index, &path)) {
        const struct record *at = version_at(r, c->revision);
        if (at && !at->tombstone) {
            c->keys = hash_bytes(hash_record(c->keys, at), record_key(at));
            if (at == r && r->lease && !attached(s, r)) c->keys++;
        }
        last = r;
        more = spend(budget, RECORD_COST + r->key_len);
    }
    if (last) record_ref(last);
    record_unref(c->last_key);
    c->last_key = last;
    return !r;
}

static bool walk_leases(struct store_check *c, size_t *budget)
{
    const struct lease_table *t = &c->pin.store->leases;
    const struct lease *l;
    while ((l = lease_after(t, c->last_lease)) != NULL) {
        c->leases += hash_lease(l);
        c->last_lease = l->id;
        if (!spend(budget, LEASE_COST)) return false;
    }
    return true;
}

bool store_check_step(struct store_check *c, size_t max_bytes)
{
    static bool (*const walks[])(struct store_check *c, size_t *budget) = {walk_history, walk_keys, walk_leases};
    if (!c->pin.store) return true;
    while (c->stage < STAGE_DONE && walks[c->stage](c, &max_bytes)) c->stage++;
    return c->stage == STAGE_DONE;
}

uint64_t store_check_value(const struct store_check *c)
{
    return HASH(0, c->others, c->history, c->keys, c->leases);
}

int64_t store_check_revision(const struct store_check *c)
{
    return c->revision;
}
