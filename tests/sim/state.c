/* A member's whole state, compared after every entry that it has applied and after every snapshot that
 * it has taken in:
 *
 *  - digests of all that it holds, with those of the member that was there first: the index of the keys,
 *    leases (with what is left of them, and their keys), alarms, what members published, revisions;
 *  - what the entry wrote, byte by byte, with the model: so histories are compared, too;
 *  - every so often, and whenever the state came out of a snapshot, all of it: the whole history and all
 *    keys with their values with the model, the leases where the model is no further; and every so often
 *    store_check and HashKV with the first member's.
 *
 * It looks into the store and not at it: what readers are told is judged elsewhere, and what a member
 * does not show now (who raised an alarm, what a lease would take along) decides what it does next. How
 * far compaction has freed memory may differ, and is passed over. */
#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

#include "base/limits.h"
#include "base/mem.h"
#include "harness.h"
#include "store/store_int.h"

enum { ALL_EVERY = 100 /* entries of the log */ };

/* Whose state is looked at. */
struct whose {
    struct run *run;
    uint64_t id, applied;
    bool backup; /* that was made of the member's then */
};

static bool wrong(const struct whose *w, const struct store *s, const char *what)
{
    return verdict_fail(&w->run->verdict,
                        "%safter entry %" PRIu64 " member %" PRIu64 " (revision %" PRId64
                        ", compacted at %" PRId64 "): %s",
                        w->backup ? "a backup: " : "", w->applied, w->id, s->revision, s->compact_rev, what);
}

/* ---- digests --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint64_t mix_bytes(uint64_t h, struct slice s)
{
    return mix(mix(h, s.len), XXH3_64bits(s.data, s.len));
}

/* The value was compared when it was written, and is with all the rest. */
static uint64_t mix_record(uint64_t h, const struct record *r)
{
    h = mix(mix(mix(h, (uint64_t)r->mod_rev), r->sub), (uint64_t)r->create_rev);
    h = mix(mix(mix(h, (uint64_t)r->version), (uint64_t)r->lease), r->value_len);
    return mix_bytes(h, record_key(r));
}

static uint64_t mix_index(uint64_t h, const struct index *ix)
{
    struct index_path path;
    for (const struct record *r = index_seek(ix, (struct slice){0}, &path); r;
         r = index_next(ix, &path)) {
        if (!r->tombstone) h = mix_record(h, r); /* the others are freed some time */
    }
    return mix(h, ix->live);
}

static uint64_t digest_lease(const struct lease *l)
{
    uint64_t h = mix(mix(mix(0, (uint64_t)l->id), (uint64_t)l->ttl), (uint64_t)l->remaining_ttl);
    return l->keys.entries ? mix_index(h, &l->keys) : h;
}

/* They are many: chunk by chunk, without looking for the next one; and a sum, so that none waits
 * for the one before. */
static uint64_t digest_leases(const struct store *s)
{
    uint64_t h = s->leases.n;
    for (size_t i = 0; i < s->leases.n_chunks; i++) {
        const struct lease_chunk *c = s->leases.chunks[i];
        for (size_t k = 0; k < c->n; k++) h += digest_lease(c->leases[k]);
    }
    return h;
}

static uint64_t digest_alarms(const struct store *s)
{
    uint64_t h = s->n_alarms;
    for (size_t i = 0; i < s->n_alarms; i++) {
        const struct alarm_record *a = &s->alarms[i];
        h = mix(mix(mix(h, a->alarm.member_id), a->alarm.alarm), a->automatic);
    }
    return h;
}

static uint64_t digest_members(const struct store *s)
{
    uint64_t h = s->n_members;
    for (size_t i = 0; i < s->n_members; i++) {
        const struct member_record *m = &s->members[i];
        h = mix_bytes(mix(mix(h, m->id), m->n_urls), m->name);
        for (size_t k = 0; k < m->n_urls; k++) h = mix_bytes(h, m->urls[k]);
    }
    return h;
}

static uint64_t digest_check(struct store *s)
{
    struct store_check *c = store_check_open(s);
    while (!store_check_step(c, SIZE_MAX)) continue;
    uint64_t h = store_check_value(c);
    store_check_close(c);
    return h;
}

static uint64_t digest_hash_kv(struct store *s)
{
    struct store_hash *c;
    if (store_hash_open(s, 0, &c)) return 0;
    while (!store_hash_step(c, SIZE_MAX)) continue;
    uint64_t h = store_hash_value(c);
    store_hash_close(c);
    return h;
}

static const char *const part_names[STATE_PARTS] = {
    [STATE_REVISION] = "revision", [STATE_COMPACTED] = "compact revision",
    [STATE_KEYS] = "keys",         [STATE_LEASES] = "leases",
    [STATE_ALARMS] = "alarms",     [STATE_MEMBERS] = "members",
    [STATE_CHECK] = "store_check", [STATE_HASH_KV] = "HashKV",
};

/* The last two, which take longest, not always. */
static void take(struct store *s, bool all, uint64_t parts[STATE_PARTS])
{
    parts[STATE_REVISION] = (uint64_t)s->revision;
    parts[STATE_COMPACTED] = (uint64_t)s->compact_rev;
    parts[STATE_KEYS] = mix_index(0, &s->index);
    parts[STATE_LEASES] = digest_leases(s);
    parts[STATE_ALARMS] = digest_alarms(s);
    parts[STATE_MEMBERS] = digest_members(s);
    parts[STATE_CHECK] = all ? digest_check(s) : 0;
    parts[STATE_HASH_KV] = all ? digest_hash_kv(s) : 0;
}

/* What the first one was like after so many entries of the log. */
static struct run_state *first_at(struct run *r, size_t entries)
{
    if (entries >= r->states_size) {
        size_t size = 2 * entries + 1024;
        r->states = mem_must_realloc(r->states, size * sizeof *r->states);
        memset(r->states + r->states_size, 0, (size - r->states_size) * sizeof *r->states);
        r->states_size = size;
    }
    return &r->states[entries];
}

static bool as_the_first(const struct whose *w, struct store *s, struct run_state *first, bool all)
{
    struct run_state now = {.member = w->id};
    take(s, all, now.parts);
    if (!first->member) {
        *first = now;
        return true;
    }
    w->run->result->counts.states++;
    for (unsigned i = 0; i < STATE_PARTS; i++) {
        if (now.parts[i] == first->parts[i]) continue;
        char what[128];
        snprintf(what, sizeof what, "its %s: %016" PRIx64 ", member %" PRIu64 " had %016" PRIx64,
                 part_names[i], now.parts[i], first->member, first->parts[i]);
        return wrong(w, s, what);
    }
    return true;
}

/* ---- the model ------------------------------------------------------------------------------- */

static bool same(const struct record *r, const struct model_event *ev)
{
    return r->mod_rev == ev->rev && r->sub == ev->sub && r->tombstone == ev->tombstone &&
           r->create_rev == ev->create_rev && r->version == ev->version && r->lease == ev->lease &&
           slice_eq(record_value(r), buf_slice(&ev->value));
}

struct lockstep {
    const struct model *model;
    const struct rlog *log;
    struct rlog_iter it;
    const struct record *next;
};

static bool step(void *ctx, const struct model_event *ev)
{
    struct lockstep *k = ctx;
    const struct record *r = k->next;
    if (!r || !same(r, ev) || !slice_eq(record_key(r), model_key_name(k->model, ev->key)))
        return false;
    k->next = rlog_next(k->log, &k->it);
    return true;
}

/* The history behind revision `after`: what compaction leaves whole. */
static bool history_as_modelled(const struct whose *w, const struct store *s, int64_t after)
{
    const struct slice all = SLICE_LIT("\0");
    struct lockstep k = {.model = w->run->model, .log = &s->log};
    k.next = rlog_seek(&s->log, after + 1, 0, &k.it);
    if (model_events(k.model, all, all, after + 1, s->revision, step, &k) && !k.next) return true;
    return wrong(w, s, "its history is not what the log makes");
}

/* All keys as they are at a revision, found in the index. */
static bool keys_as_modelled(const struct whose *w, const struct store *s, int64_t rev)
{
    const struct model *m = w->run->model;
    const struct slice all = SLICE_LIT("\0");
    struct index_path path;
    size_t n = 0;
    for (struct record *r = index_seek(&s->index, (struct slice){0}, &path); r;
         r = index_next(&s->index, &path)) {
        const struct record *at = version_at(r, rev);
        if (!at || at->tombstone) continue;
        const struct model_event *ev = model_get(m, record_key(at), rev);
        if (!ev || !same(at, ev)) return wrong(w, s, "a key does not hold what the log makes");
        n++;
    }
    return n == model_count(m, all, all, rev) ||
           wrong(w, s, "it does not have the keys that the log makes");
}

static bool lease_as_modelled(const struct store *s, const struct model_lease *as, size_t *keys)
{
    const struct lease *l = lease_find(&s->leases, as->id);
    int64_t ttl = as->ttl < LIMIT_LEASE_MIN_TTL ? LIMIT_LEASE_MIN_TTL : as->ttl;
    if (!l || l->ttl != ttl || l->remaining_ttl != as->remaining) return false;
    struct index_path path;
    for (struct record *r = index_seek(&l->keys, (struct slice){0}, &path); r;
         r = index_next(&l->keys, &path)) {
        if (index_get(&s->index, record_key(r)) != r || r->lease != l->id) return false;
        ++*keys;
    }
    return true;
}

static bool leases_as_modelled(const struct whose *w, const struct store *s)
{
    const struct model_lease *all;
    size_t n = model_leases(w->run->model, &all), alive = 0, keys = 0;
    for (size_t i = 0; i < n; i++) {
        if (!all[i].alive) continue;
        if (!lease_as_modelled(s, &all[i], &keys))
            return wrong(w, s, "a lease is not what the log makes");
        alive++;
    }
    return (s->leases.n == alive && keys == model_leased_keys(w->run->model)) ||
           wrong(w, s, "it does not have the leases, or keys of leases, that the log makes");
}

static bool all_as_modelled(const struct whose *w, const struct store *s)
{
    int64_t from = s->compact_rev > 1 ? s->compact_rev : 1; /* itself is there for watches, too */
    w->run->result->counts.whole_states++;
    return history_as_modelled(w, s, from - 1) && keys_as_modelled(w, s, s->revision) &&
           keys_as_modelled(w, s, from) &&
           (w->applied < model_last_index(w->run->model) || leases_as_modelled(w, s));
}

/* What counts against the quota, and whether that is used up. */
static bool size_as_modelled(const struct whose *w, const struct store *s)
{
    struct run *r = w->run;
    int64_t size = model_size_at(r->model, w->applied);
    bool no_space = false;
    for (size_t i = 0; i < s->n_alarms; i++)
        no_space = no_space || s->alarms[i].alarm.alarm == ALARM_NOSPACE;
    if (store_size_in_use(s) == size &&
        (!r->o.quota_bytes || no_space == model_no_space_at(r->model, w->applied)))
        return true;
    return verdict_fail(&r->verdict,
                        "after entry %" PRIu64 " member %" PRIu64 " has %" PRId64
                        " bytes in use, not %" PRId64 ", the alarm is %s",
                        w->applied, w->id, store_size_in_use(s), size,
                        no_space ? "raised" : "not raised");
}

/* ---- all ------------------------------------------------------------------------------------- */

void state_check(struct life *l, struct store *s, bool restored)
{
    struct run *r = l->run;
    const struct whose w = {.run = r, .id = l->id, .applied = l->applied};
    size_t entries = model_entries(r->model, l->applied);
    bool all = entries % ALL_EVERY == 0;
    l->compared = l->applied;
    if (run_failed(r) || r->lying == l->id) return;
    int64_t from = l->seen > s->compact_rev ? l->seen : s->compact_rev;
    l->seen = s->revision;
    if (!size_as_modelled(&w, s) || !as_the_first(&w, s, first_at(r, entries), all)) return;
    if (all || restored) all_as_modelled(&w, s);
    else history_as_modelled(&w, s, from);
}

/* ---- backups --------------------------------------------------------------------------------- */

/* In which part it differs from the state after so many entries; STATE_CHECK: in none. */
static unsigned differs_in(const uint64_t parts[STATE_PARTS], const struct run_state *first)
{
    unsigned i = 0;
    while (i < STATE_CHECK && parts[i] == first->parts[i]) i++;
    return i;
}

bool state_backup(struct life *l, struct store *s, uint64_t from, uint64_t to)
{
    struct run *r = l->run;
    struct whose w = {.run = r, .id = l->id, .backup = true};
    uint64_t parts[STATE_PARTS], nearest = to;
    unsigned same = 0;
    char what[160];
    take(s, false, parts);
    for (uint64_t index = from; index <= to; index++) {
        const struct run_state *first = first_at(r, model_entries(r->model, index));
        if (!first->member) return true; /* nobody has compared that yet */
        unsigned part = differs_in(parts, first);
        w.applied = index;
        if (part == STATE_CHECK) return size_as_modelled(&w, s) && all_as_modelled(&w, s);
        if (part >= same) same = part, nearest = index;
    }
    w.applied = nearest;
    snprintf(what, sizeof what, "its %s are not those of any entry from %" PRIu64 " to %" PRIu64, part_names[same], from, to);
    return wrong(&w, s, what);
}

static bool same_lease(const struct lease *a, const struct lease *b)
{
    return digest_lease(a) == digest_lease(b);
}

bool state_restored(struct run *r, uint64_t id, const struct store *s, const struct store *backup, uint64_t since_us)
{
    for (const struct lease *l = lease_after(&backup->leases, 0); l; l = lease_after(&backup->leases, l->id)) {
        const struct lease *has = lease_find(&s->leases, l->id);
        int64_t left = l->remaining_ttl ? l->remaining_ttl : l->ttl;
        if (has ? same_lease(has, l) : since_us >= (uint64_t)left * 1000000) continue;
        return verdict_fail(&r->verdict, "member %" PRIu64 " of a restored cluster, %.3f s old: lease %" PRId64 " (ttl %" PRId64 " s, %" PRId64
                                         " s left) %s", id, (double)since_us / 1e6, l->id, l->ttl, left, has ? "is another" : "is gone");
    }
    for (const struct lease *l = lease_after(&s->leases, 0); l; l = lease_after(&s->leases, l->id))
        if (!lease_find(&backup->leases, l->id))
            return verdict_fail(&r->verdict, "member %" PRIu64 " of a restored cluster has a lease %" PRId64 " that the backup lacks", id, l->id);
    for (size_t i = 0; i < backup->n_alarms; i++) {
        const struct alarm_record *a = &backup->alarms[i];
        bool there = a->automatic || a->alarm.member_id; /* the quota's may go by itself, and a member's with it */
        for (size_t k = 0; k < s->n_alarms; k++) there = there || s->alarms[k].alarm.alarm == a->alarm.alarm;
        if (!there) return verdict_fail(&r->verdict, "member %" PRIu64 " of a restored cluster has lost alarm %d", id, (int)a->alarm.alarm);
    }
    return true;
}
