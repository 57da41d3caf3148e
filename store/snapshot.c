/* Cutting a snapshot: the log is walked in slices up to the revision of `open`; what is not history
 * (leases, alarms, members) is small and is encoded at once when the snapshot is opened. */
#include "store/snapshot_int.h"

#include "base/mem.h"

enum { BLOCK_BYTES_MIN = 4096, BLOCK_BYTES_MAX = 1024 * 1024 };

struct place {
    int64_t rev;
    uint32_t sub;
};

struct store_snapshot {
    struct pin pin; /* at the compact revision */
    int64_t revision;
    struct place at;           /* the next record */
    enum snapshot_block stage; /* what comes next; 0 = the header */
    uint64_t offset, chain, records, leases, others;
    struct buf tail[BLOCK_END]; /* payloads by block type */
};

static void put_varint(struct buf *b, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    buf_append(b, bytes, n);
}

static void put_bytes(struct buf *b, struct slice s)
{
    put_varint(b, s.len);
    buf_append_slice(b, s);
}

/* ---- what is encoded at once ---------------------------------------------------------------- */

static void encode_tail(const struct store *s, struct store_snapshot *snap)
{
    struct buf *b = &snap->tail[BLOCK_LEASES];
    for (const struct lease *l = lease_after(&s->leases, 0); l;
         l = lease_after(&s->leases, l->id)) {
        buf_append_u64(b, (uint64_t)l->id);
        put_varint(b, (uint64_t)l->ttl);
        put_varint(b, (uint64_t)l->remaining_ttl);
    }
    snap->leases = s->leases.n;
    b = &snap->tail[BLOCK_ALARMS];
    for (size_t i = 0; i < s->n_alarms; i++) {
        buf_append_u64(b, s->alarms[i].alarm.member_id);
        buf_append_byte(b, (uint8_t)s->alarms[i].alarm.alarm);
        buf_append_byte(b, s->alarms[i].automatic);
    }
    b = &snap->tail[BLOCK_MEMBERS];
    for (size_t i = 0; i < s->n_members; i++) {
        const struct member_record *m = &s->members[i];
        buf_append_u64(b, m->id);
        put_bytes(b, m->name);
        put_varint(b, m->n_urls);
        for (size_t k = 0; k < m->n_urls; k++) put_bytes(b, m->urls[k]);
    }
    snap->others = s->n_alarms + s->n_members;
}

struct store_snapshot *store_snapshot_open(struct store *s)
{
    struct store_snapshot *snap = mem_must_calloc(1, sizeof(*snap));
    snap->revision = s->revision;
    encode_tail(s, snap);
    pin_open(&snap->pin, s, s->compact_rev);
    return snap;
}

void store_snapshot_close(struct store_snapshot *snap)
{
    if (!snap) return;
    pin_close(&snap->pin);
    for (unsigned i = 0; i < BLOCK_END; i++) buf_release(&snap->tail[i]);
    mem_free(snap);
}

/* ---- blocks --------------------------------------------------------------------------------- */

static void put_le(uint8_t *p, uint64_t v, unsigned size)
{
    for (unsigned i = 0; i < size; i++, v >>= 8) p[i] = (uint8_t)v;
}

static void put_header(struct store_snapshot *snap, struct buf *out)
{
    size_t from = out->len;
    buf_append(out, SNAPSHOT_MAGIC, 8);
    buf_append_u32(out, SNAPSHOT_VERSION);
    buf_append_u32(out, 0);
    buf_append_u64(out, (uint64_t)snap->revision);
    buf_append_u64(out, (uint64_t)snap->pin.rev);
    if (out->failed) return;
    uint64_t hash = XXH3_64bits(out->data + from, out->len - from);
    buf_append_u64(out, hash);
    snap->chain = snapshot_chain(0, hash);
}

static size_t begin_block(struct buf *out)
{
    static const uint8_t head[SNAPSHOT_BLOCK_HEAD];
    size_t from = out->len;
    buf_append(out, head, sizeof(head));
    return from;
}

/* Fills in the head of the block whose payload now ends the buffer. */
static void end_block(struct store_snapshot *snap, struct buf *out, size_t from,
                      enum snapshot_block type)
{
    if (out->failed) return;
    uint8_t *head = out->data + from;
    size_t len = out->len - from - SNAPSHOT_BLOCK_HEAD;
    put_le(head, type, 4);
    put_le(head + 4, len, 4);
    uint64_t hash =
        snapshot_block_hash(snap->offset, head, slice_make(head + SNAPSHOT_BLOCK_HEAD, len));
    put_le(head + 8, hash, 8);
    snap->chain = snapshot_chain(snap->chain, hash);
}

static void put_tail(struct store_snapshot *snap, struct buf *out, enum snapshot_block type)
{
    if (snap->tail[type].len == 0) return;
    size_t from = begin_block(out);
    buf_append_slice(out, buf_slice(&snap->tail[type]));
    end_block(snap, out, from, type);
}

static void put_trailer(struct store_snapshot *snap, struct buf *out)
{
    size_t from = begin_block(out);
    buf_append_u64(out, snap->records);
    buf_append_u64(out, snap->leases);
    buf_append_u64(out, snap->others);
    buf_append_u64(out, snap->offset);
    buf_append_u64(out, snap->chain);
    end_block(snap, out, from, BLOCK_END);
}

/* ---- records -------------------------------------------------------------------------------- */

bool pin_holds(const struct pin *p, const struct record *r)
{
    const struct store *s = p->store;
    int64_t compact_rev = p->rev;
    if (r->mod_rev > compact_rev) return true;
    if (r->tombstone && r->mod_rev < compact_rev) return false;
    bool freed = s->work_target >= compact_rev && s->work_rev > compact_rev;
    return freed || is_newest_at(s, r, compact_rev);
}

static void put_record(struct buf *out, const struct record *r, int64_t rev_before)
{
    unsigned flags = (r->tombstone ? RECORD_TOMBSTONE : 0u) | (r->sub ? RECORD_SUB : 0u) |
                     (r->lease ? RECORD_LEASE : 0u);
    put_varint(out, flags);
    put_varint(out, (uint64_t)(r->mod_rev - rev_before));
    if (r->sub) put_varint(out, r->sub);
    put_varint(out, r->key_len);
    if (!r->tombstone) {
        put_varint(out, (uint64_t)(r->mod_rev - r->create_rev));
        put_varint(out, (uint64_t)r->version);
        put_varint(out, r->value_len);
    }
    if (r->lease) buf_append_u64(out, (uint64_t)r->lease);
    buf_append(out, r->data, (size_t)r->key_len + r->value_len);
}

/* One block of records from *at on; *at moves. False when there are no more. */
static bool put_records(struct store_snapshot *snap, size_t max_bytes, struct place *at,
                        struct buf *out)
{
    const struct store *s = snap->pin.store;
    size_t from = begin_block(out), steps = max_bytes / 64;
    int64_t rev_before = 0;
    uint64_t n = 0;
    struct rlog_iter it;
    struct record *r = rlog_seek(&s->log, at->rev, at->sub, &it);
    for (; r && r->mod_rev <= snap->revision && steps > 0 && out->len - from < max_bytes; steps--) {
        if (pin_holds(&snap->pin, r)) {
            put_record(out, r, rev_before);
            rev_before = r->mod_rev;
            n++;
        }
        *at = (struct place){r->mod_rev, r->sub + 1u};
        r = rlog_next(&s->log, &it);
    }
    if (n == 0 && !out->failed) out->len = from;
    else end_block(snap, out, from, BLOCK_RECORDS);
    if (!out->failed) snap->records += n;
    return r && r->mod_rev <= snap->revision;
}

int store_snapshot_next(struct store_snapshot *snap, size_t max_bytes, struct buf *out,
                        bool *ret_done)
{
    if (!snap->pin.store) return ERR_CLOSED;
    for (unsigned i = 0; i < BLOCK_END; i++)
        if (snap->tail[i].failed) return snap->tail[i].failed;
    size_t before = out->len;
    struct place at = snap->at;
    bool again = false; /* more of the same stage is to come */
    if (max_bytes < BLOCK_BYTES_MIN) max_bytes = BLOCK_BYTES_MIN;
    if (max_bytes > BLOCK_BYTES_MAX) max_bytes = BLOCK_BYTES_MAX;
    uint64_t chain = snap->chain;
    if (snap->stage == 0) put_header(snap, out);
    else if (snap->stage == BLOCK_RECORDS) again = put_records(snap, max_bytes, &at, out);
    else if (snap->stage < BLOCK_END) put_tail(snap, out, snap->stage);
    else put_trailer(snap, out);
    if (out->failed) { /* nothing happened: it can be asked again */
        int rc = out->failed;
        out->len = before;
        snap->chain = chain;
        return rc;
    }
    snap->at = at;
    snap->offset += out->len - before;
    *ret_done = snap->stage == BLOCK_END;
    if (!again && !*ret_done) snap->stage++;
    return 0;
}
