/* Random operations of the etcd v3 API from a small key space. Operation `i` of a seed depends on nothing but the two and
 * the revisions reached so far, so that a sequence can be repeated, and shrunk by leaving operations out. */
#ifndef PINTLE_TESTS_COMPAT_DIFF_GEN_H
#define PINTLE_TESTS_COMPAT_DIFF_GEN_H

#include "diff_tables.h"

#define N_STREAMS 3

struct rng {
    uint64_t s;
};

/* What the generator knows of the servers' state. */
struct known {
    int64_t rev, compact; /* compact: -1 = never */
    bool nospace, corrupt;
    bool many_keys; /* more than twelve: ties of a sort are in any order */
    int peer;       /* 304, 305 */
};

struct op {
    enum kind kind;
    struct buf message;
    uint64_t turn;    /* chooses the member */
    unsigned stream;  /* of K_WATCH and K_WATCH_END */
    bool serializable;
    bool damaged;     /* the message is cut: only the code is compared */
    bool sorted, ties; /* K_RANGE by something else than the key */
    unsigned sort_target;
    int64_t revision; /* asked for, if it matters: K_COMPACT, K_HASHKV, start of a watch */
    int64_t id;       /* of a watch */
    unsigned watch;   /* field of the WatchRequest: 1 create, 2 cancel, 3 progress */
    unsigned action, alarm;
};

static uint64_t rnd(struct rng *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint64_t below(struct rng *r, uint64_t n)
{
    return rnd(r) % n;
}

static bool percent(struct rng *r, unsigned p)
{
    return below(r, 100) < p;
}

/* ---- keys, values, revisions ------------------------------------------------------------------------------ */

#define N_FEW 11U
#define N_MORE 40

static const struct slice few_keys[N_FEW] = {SLICE_LIT("a"),    SLICE_LIT("a\0"),     SLICE_LIT("ab"), SLICE_LIT("b"),
                                        SLICE_LIT("ba"),   SLICE_LIT("c"),       SLICE_LIT("\0"), SLICE_LIT("\xff"),
                                        SLICE_LIT("\xff\xff"), SLICE_LIT("/registry/pods/default/web"), SLICE_LIT("k")};

static unsigned n_keys(const struct known *k)
{
    return N_FEW + (k->many_keys ? N_MORE : 0);
}

static struct slice key_at(unsigned i)
{
    static char more[N_MORE][4];
    if (i < N_FEW) return few_keys[i];
    i -= N_FEW;
    more[i][0] = 'k', more[i][1] = (char)('0' + i / 10), more[i][2] = (char)('0' + i % 10);
    return slice_make(more[i], 3);
}

static struct slice pick_key(struct rng *r, const struct known *k)
{
    return percent(r, 1) ? (struct slice){0} : key_at((unsigned)below(r, n_keys(k)));
}

/* Mostly none; else from-key, another key (which may come before), a prefix's end, or everything. */
static void pick_range(struct rng *r, const struct known *k, struct slice *key, struct slice *end)
{
    *key = pick_key(r, k);
    *end = (struct slice){0};
    switch (below(r, 8)) {
    case 0: *end = SLICE_LIT("\0"); break;
    case 1:
    case 2: *end = pick_key(r, k); break;
    case 3: *key = SLICE_LIT("a"), *end = SLICE_LIT("b"); break;
    case 4: *key = SLICE_LIT("\0"), *end = SLICE_LIT("\0"); break;
    case 5: *key = SLICE_LIT("k"), *end = SLICE_LIT("l"); break;
    default: break;
    }
}

static int64_t pick_revision(struct rng *r, const struct known *k)
{
    switch (below(r, 12)) {
    case 0: return k->rev + 1;
    case 1: return k->rev + 1 + (int64_t)below(r, 20);
    case 2: return k->compact;
    case 3: return k->compact - 1;
    case 4: return k->compact + 1;
    case 5: return 1 + (int64_t)below(r, 3);
    case 6: return percent(r, 50) ? -1 - (int64_t)below(r, 9) : INT64_MAX;
    case 7: return k->rev;
    default: return k->rev - (int64_t)below(r, 30);
    }
}

static int64_t pick_lease(struct rng *r)
{
    static const int64_t ids[] = {1, 2, 3, 7, 1234567, -5, INT64_MAX, INT64_MIN};
    return ids[below(r, sizeof(ids) / sizeof(ids[0]))];
}

static void write_value(struct rng *r, struct buf *out)
{
    static const char *const values[] = {"", "x", "y", "1", "10", "9", "zebra", "value"};
    struct buf v = {0};
    buf_append_str(&v, values[below(r, 8)]);
    if (percent(r, 10)) buf_printf(&v, "-%llu", (unsigned long long)below(r, 1000));
    if (percent(r, 2))
        for (uint64_t n = below(r, 40000); n; n--) buf_append_byte(&v, (uint8_t)('a' + n % 26));
    pb_bytes(out, 2, buf_slice(&v));
    buf_release(&v);
}

/* ---- KV ---------------------------------------------------------------------------------------------------- */

static void gen_range(struct rng *r, const struct known *k, struct op *op, struct buf *out, bool in_txn)
{
    struct slice key, end;
    unsigned order = percent(r, 50) ? (unsigned)below(r, 3) : 0, target = percent(r, 50) ? (unsigned)below(r, 5) : 0;
    if (in_txn && k->many_keys) target = 0;
    if (k->peer > 305 && percent(r, 1)) order = 7; /* before 3.6 etcd takes unknown ones, and panics in a txn */
    if (k->peer > 305 && percent(r, 1)) target = 9;
    pick_range(r, k, &key, &end);
    pb_bytes(out, 1, key);
    pb_bytes(out, 2, end);
    if (percent(r, 30)) pb_uint(out, 3, percent(r, 90) ? below(r, 6) : percent(r, 50) ? UINT64_MAX : INT64_MAX);
    if (percent(r, in_txn ? 20 : 50)) pb_uint(out, 4, (uint64_t)pick_revision(r, k));
    pb_uint(out, 5, order);
    pb_uint(out, 6, target);
    bool serializable = percent(r, 30);
    pb_bool(out, 7, serializable);
    pb_bool(out, 8, percent(r, 15));
    pb_bool(out, 9, percent(r, 15));
    for (unsigned f = 10; f <= 13; f++)
        if (percent(r, 8)) pb_uint(out, f, (uint64_t)pick_revision(r, k));
    if (in_txn) return;
    op->serializable = serializable;
    op->sorted = target != 0;
    op->sort_target = target;
}

static void gen_put(struct rng *r, const struct known *k, struct buf *out, struct slice key, bool plain)
{
    bool ignore_value = !plain && percent(r, 8), ignore_lease = !plain && percent(r, 8);
    (void)k;
    pb_bytes(out, 1, key);
    if (!ignore_value || percent(r, 20)) write_value(r, out);
    if (percent(r, 25) && (!ignore_lease || percent(r, 20))) pb_uint(out, 3, (uint64_t)pick_lease(r));
    pb_bool(out, 4, percent(r, 40));
    pb_bool(out, 5, ignore_value);
    pb_bool(out, 6, ignore_lease);
}

static void gen_delete(struct rng *r, const struct known *k, struct buf *out)
{
    struct slice key, end;
    pick_range(r, k, &key, &end);
    if (percent(r, 40)) end = (struct slice){0};
    pb_bytes(out, 1, key);
    pb_bytes(out, 2, end);
    pb_bool(out, 3, percent(r, 40));
}

static void gen_compare(struct rng *r, const struct known *k, struct buf *out)
{
    struct buf c = {0}, value = {0};
    struct slice key, end;
    unsigned target = (unsigned)below(r, 5), of = percent(r, 95) ? target + 4 : 4 + (unsigned)below(r, 5);
    if (target == 3 && of == 7) of = 7;
    pick_range(r, k, &key, &end);
    pb_uint(&c, 1, below(r, 4));
    pb_uint(&c, 2, target);
    pb_bytes(&c, 3, key);
    if (of == 4) pb_uint(&c, 4, below(r, 4));
    if (of == 5 || of == 6) pb_uint(&c, of, (uint64_t)(k->rev - (int64_t)below(r, 40)));
    if (of == 7) {
        write_value(r, &value);
        pb_bytes(&c, 7, value.len ? slice_sub(buf_slice(&value), 2, 3) : (struct slice){0});
    }
    if (of == 8 && percent(r, 60)) pb_uint(&c, 8, (uint64_t)pick_lease(r));
    if (percent(r, 20) && end.len) {
        pb_varint(&c, 64 << 3 | 2);
        pb_varint(&c, end.len);
        buf_append_slice(&c, end);
    }
    pb_message(out, 1, buf_slice(&c));
    buf_release(&c);
    buf_release(&value);
}

struct txn_gen {
    struct rng *r;
    const struct known *k;
    struct op *op;
    unsigned next_key; /* puts of one txn take different keys, mostly */
    bool ignores;      /* puts may ignore value or lease; no range is deleted then: without the key etcd panics */
};

static void gen_txn(struct txn_gen *t, struct buf *out, unsigned depth);

static void gen_txn_op(struct txn_gen *t, struct buf *out, unsigned field, unsigned depth)
{
    struct buf m = {0}, op = {0};
    struct rng *r = t->r;
    unsigned kind = percent(r, 10) && depth < 3 && !t->k->nospace && !t->k->corrupt ? 4 : 1 + (unsigned)below(r, 5) % 3;
    if (kind == 1) gen_range(r, t->k, t->op, &m, true);
    if (kind == 2) {
        struct slice key = percent(r, 90) ? key_at(t->next_key++ % n_keys(t->k)) : pick_key(r, t->k);
        gen_put(r, t->k, &m, key, depth > 0 || !t->ignores);
    }
    if (kind == 3 && (t->ignores || percent(r, 60))) pb_bytes(&m, 1, key_at(t->next_key++ % n_keys(t->k)));
    else if (kind == 3) gen_delete(r, t->k, &m);
    if (kind == 4) gen_txn(t, &m, depth + 1);
    pb_message(&op, kind, buf_slice(&m));
    pb_message(out, field, buf_slice(&op));
    buf_release(&m);
    buf_release(&op);
}

static void gen_txn(struct txn_gen *t, struct buf *out, unsigned depth)
{
    struct rng *r = t->r;
    uint64_t n = below(r, 3);
    for (uint64_t i = 0; i < n; i++) gen_compare(r, t->k, out);
    for (unsigned branch = 2; branch <= 3; branch++) {
        n = below(r, depth ? 3 : 5);
        if (percent(r, 1)) n = 127 + below(r, 4);
        t->next_key = (unsigned)below(r, n_keys(t->k));
        for (uint64_t i = 0; i < n; i++) gen_txn_op(t, out, branch, depth);
    }
}

/* A request near or beyond the limits: 1.5 MiB for a proposal, half a MiB more for a message. Within 512 bytes of the limit the
 * two count differently (docs/differences.md). */
static void gen_oversized(struct rng *r, const struct known *k, struct buf *out)
{
    static const size_t sizes[] = {1572864 - 512, 1572864 + 512, 2097152 - 4096, 2097152 + 4096, 3 << 20};
    size_t n = sizes[below(r, 5)];
    struct slice key = key_at((unsigned)below(r, n_keys(k)));
    uint8_t *bytes = calloc(1, n);
    memset(bytes, 'v', n);
    pb_bytes(out, 1, key);
    pb_bytes(out, 2, slice_make(bytes, n));
    free(bytes);
}

/* ---- watches ------------------------------------------------------------------------------------------------ */

static void gen_watch_create(struct rng *r, const struct known *k, struct op *op, struct buf *out)
{
    struct slice key, end;
    struct buf c = {0};
    pick_range(r, k, &key, &end);
    if (percent(r, 60)) op->revision = 0;
    else op->revision = pick_revision(r, k);
    if (op->revision < 0 && (k->peer < 305 || percent(r, 80))) op->revision = 0; /* 3.4 creates it, and cancels it then */
    if (k->peer < 305 && op->revision == k->compact) op->revision++; /* 3.4 forgets a deletion right there */
    op->id = percent(r, 30) ? 1 + (int64_t)below(r, 12) : 0;
    pb_bytes(&c, 1, key);
    pb_bytes(&c, 2, end);
    pb_uint(&c, 3, (uint64_t)op->revision);
    for (unsigned f = 0; f < 2; f++)
        if (percent(r, 15)) {
            pb_varint(&c, 5 << 3);
            pb_varint(&c, f);
        }
    pb_bool(&c, 6, percent(r, 40));
    pb_uint(&c, 7, (uint64_t)op->id);
    pb_bool(&c, 8, percent(r, 30));
    pb_message(out, 1, buf_slice(&c));
    buf_release(&c);
}

static void gen_watch(struct rng *r, const struct known *k, struct op *op)
{
    struct buf c = {0};
    op->kind = percent(r, 4) ? K_WATCH_END : K_WATCH;
    op->stream = (unsigned)below(r, N_STREAMS);
    if (op->kind == K_WATCH_END) return;
    uint64_t dice = below(r, 100);
    op->watch = dice < 60 ? 1 : dice < 85 ? 2 : 3;
    if (op->watch == 1) gen_watch_create(r, k, op, &op->message);
    if (op->watch == 2) {
        op->id = (int64_t)below(r, 12);
        pb_uint(&c, 1, (uint64_t)op->id);
    }
    if (op->watch > 1) pb_message(&op->message, op->watch, buf_slice(&c));
    buf_release(&c);
}

/* ---- the rest ------------------------------------------------------------------------------------------------ */

static void gen_compact(struct rng *r, const struct known *k, struct op *op)
{
    op->revision = percent(r, 30) ? pick_revision(r, k) : k->rev - (int64_t)below(r, 60);
    pb_uint(&op->message, 1, (uint64_t)op->revision);
    pb_bool(&op->message, 2, true); /* else etcd's hashes depend on how far it is */
}

static void gen_lease(struct rng *r, const struct known *k, struct op *op)
{
    static const enum kind kinds[] = {K_GRANT, K_GRANT, K_GRANT, K_REVOKE, K_TTL, K_TTL, K_LEASES, K_KEEPALIVE};
    struct buf *out = &op->message;
    op->kind = kinds[below(r, 8)];
    if (op->kind == K_LEASES) return;
    if (op->kind == K_GRANT) {
        pb_uint(out, 1, k->nospace || k->corrupt || percent(r, 95) ? 5000 + below(r, 5000) : 9000000000ULL + below(r, 2));
        pb_uint(out, 2, (uint64_t)pick_lease(r));
        return;
    }
    pb_uint(out, 1, (uint64_t)(percent(r, 95) ? pick_lease(r) : (int64_t)below(r, 60)));
    if (op->kind == K_TTL) pb_bool(out, 2, percent(r, 70));
}

/* An alarm does not stay for long, and there is one kind at a time: of two kinds etcd obeys the one that was raised last, and
 * none once one of them is cleared. Etcd 3.4 raises "no alarm" too. */
static void gen_alarm(struct rng *r, const struct known *k, struct op *op)
{
    bool set = k->nospace || k->corrupt;
    op->kind = K_ALARM;
    op->action = set && percent(r, 60) ? 2 : (unsigned)below(r, 3);
    op->alarm = k->corrupt && percent(r, 70) ? 2 : k->nospace && percent(r, 70) ? 1 : (unsigned)below(r, 3);
    if (op->action == 1 && (k->nospace || k->corrupt)) op->alarm = k->nospace ? 1 : 2;
    if (op->action == 1 && op->alarm == 0 && k->peer < 305) op->alarm = 1;
    pb_uint(&op->message, 1, op->action);
    pb_uint(&op->message, 2, percent(r, 80) ? 4660 : 22136);
    pb_uint(&op->message, 3, op->alarm);
}

static void gen_other(struct rng *r, const struct known *k, struct op *op)
{
    static const enum kind kinds[] = {K_HASHKV, K_HASHKV, K_HASHKV, K_MEMBERS, K_STATUS, K_AUTHENTICATE,
                                      K_AUTH_STATUS, K_UNKNOWN_METHOD, K_UNKNOWN_SERVICE};
    op->kind = kinds[below(r, 9)];
    if (op->kind == K_AUTH_STATUS && k->peer < 305) op->kind = K_STATUS;
    if (op->kind == K_HASHKV) {
        op->revision = percent(r, 30) ? 0 : pick_revision(r, k);
        if (k->peer < 305 && op->revision == k->compact) op->revision++; /* 3.4 refuses the compact revision itself */
        pb_uint(&op->message, 1, (uint64_t)op->revision);
    }
    if (op->kind == K_AUTHENTICATE) {
        pb_bytes(&op->message, 1, SLICE_LIT("root"));
        pb_bytes(&op->message, 2, SLICE_LIT("secret"));
    }
}

static void gen_kv(struct rng *r, const struct known *k, struct op *op, uint64_t dice)
{
    struct txn_gen t = {.r = r, .k = k, .op = op};
    op->kind = dice < 28 ? K_RANGE : dice < 54 ? K_PUT : dice < 62 ? K_DELETE : K_TXN;
    if (op->kind == K_RANGE) gen_range(r, k, op, &op->message, false);
    if (op->kind == K_PUT && below(r, 400) == 0) gen_oversized(r, k, &op->message);
    else if (op->kind == K_PUT) gen_put(r, k, &op->message, pick_key(r, k), false);
    if (op->kind == K_DELETE) gen_delete(r, k, &op->message);
    t.ignores = percent(r, 30);
    if (op->kind == K_TXN) gen_txn(&t, &op->message, 0);
    if (op->message.len > 1 && below(r, 150) == 0) {
        op->message.len -= 1 + below(r, op->message.len - 1);
        op->damaged = true;
    }
}

/* Operation `index` of the sequence that `seed` names. The caller releases op->message. */
static void gen_op(uint64_t seed, uint64_t index, const struct known *k, struct op *op)
{
    struct rng rng = {seed * 0x9e3779b97f4a7c15ULL ^ (index + 1) * 0xd1b54a32d192ed03ULL};
    struct rng *r = &rng;
    *op = (struct op){0};
    rnd(r);
    op->turn = rnd(r);
    uint64_t dice = below(r, 100);
    if ((k->nospace || k->corrupt) && percent(r, 15)) gen_alarm(r, k, op);
    else if (dice < 78) gen_kv(r, k, op, dice);
    else if (dice < 80) op->kind = K_COMPACT, gen_compact(r, k, op);
    else if (dice < 88) gen_lease(r, k, op);
    else if (dice < 94) gen_watch(r, k, op);
    else if (dice < 99) gen_other(r, k, op);
    else gen_alarm(r, k, op);
    op->ties = op->sorted && k->many_keys;
}

#endif
