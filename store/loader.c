/* Taking a snapshot in: checks each block before it looks inside, fills the log of a new store, and
 * at the end links and indexes it (loader_index.c). Every error names the offset of the block it
 * was found in. */
#include "base/limits.h"
#include "base/mem.h"
#include "store/snapshot_int.h"

struct store_loader {
    struct store *store;
    struct buf pending; /* the start of a block whose rest has not come yet */
    uint64_t offset;    /* of the block in `pending` */
    uint64_t chain;
    uint64_t others, leases;
    enum snapshot_block last; /* type of the last block; 0 = only the header, or nothing */
    bool header, ended;
    int failed;
    struct err error;
};

struct store_loader *store_loader_new(const struct store_options *options)
{
    struct store_loader *l = mem_must_calloc(1, sizeof(*l));
    l->store = store_new(options);
    return l;
}

void store_loader_free(struct store_loader *l)
{
    if (!l) return;
    store_free(l->store);
    buf_release(&l->pending);
    mem_free(l);
}

static int corrupt(struct store_loader *l, struct err *e, const char *what)
{
    return err_set(e, ERR_CORRUPT, "snapshot: %s at offset %llu", what,
                   (unsigned long long)l->offset);
}

static uint64_t read_varint(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->p == r->end) break;
        uint8_t byte = *r->p++;
        if (shift == 63 && byte > 1) break;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return v;
    }
    r->failed = true;
    return 0;
}

static struct slice read_bytes(struct reader *r)
{
    uint64_t len = read_varint(r);
    if (len > reader_left(r)) r->failed = true;
    return r->failed ? (struct slice){0} : reader_bytes(r, (size_t)len);
}

/* ---- records -------------------------------------------------------------------------------- */

struct fields {
    uint64_t flags, delta, sub, key_len, age, version, value_len, lease;
};

static struct fields read_fields(struct reader *r)
{
    struct fields f = {0};
    f.flags = read_varint(r);
    f.delta = read_varint(r);
    if (f.flags & RECORD_SUB) f.sub = read_varint(r);
    f.key_len = read_varint(r);
    if (!(f.flags & RECORD_TOMBSTONE)) {
        f.age = read_varint(r);
        f.version = read_varint(r);
        f.value_len = read_varint(r);
    }
    if (f.flags & RECORD_LEASE) f.lease = reader_u64(r);
    return f;
}

/* Whether the numbers can be a record's that follows (rev, sub) in the log. */
static bool plausible(const struct store *s, const struct fields *f, int64_t rev_before,
                      int64_t last_rev, uint32_t last_sub, size_t left)
{
    if (f->flags > 7 || f->key_len == 0 || f->key_len > left || f->value_len > left - f->key_len)
        return false;
    if (f->delta > (uint64_t)(s->revision - rev_before) || f->sub > RECORD_SUB_MAX) return false;
    int64_t rev = rev_before + (int64_t)f->delta;
    if (rev < 1 || rev < last_rev || (rev == last_rev && f->sub <= last_sub)) return false;
    if (f->flags & RECORD_TOMBSTONE) return f->lease == 0 && rev >= s->compact_rev;
    return f->age < (uint64_t)rev && f->version >= 1 && f->version <= f->age + 1;
}

static int load_records(struct store_loader *l, struct slice payload, struct err *e)
{
    struct store *s = l->store;
    struct reader r = reader_make(payload);
    int64_t rev = 0, last_rev = s->work_rev; /* the loader keeps its place there until the end */
    uint32_t last_sub = s->work_sub;
    while (reader_left(&r)) {
        struct fields f = read_fields(&r);
        if (r.failed || !plausible(s, &f, rev, last_rev, last_sub, reader_left(&r)))
            return corrupt(l, e, "a record that cannot be in a block of records");
        struct record *rec = record_alloc(s->slabs, (size_t)f.key_len, (size_t)f.value_len);
        if (!rec) return ERR_NOMEM;
        rev += (int64_t)f.delta;
        rec->tombstone = f.flags & RECORD_TOMBSTONE;
        rec->mod_rev = last_rev = rev;
        rec->sub = (uint32_t)f.sub & RECORD_SUB_MAX;
        last_sub = rec->sub;
        if (!rec->tombstone) rec->create_rev = rev - (int64_t)f.age;
        rec->version = (int64_t)f.version;
        rec->lease = (int64_t)f.lease;
        struct slice data = reader_bytes(&r, (size_t)(f.key_len + f.value_len));
        memcpy(rec->data, data.data, data.len);
        rlog_append(&s->log, rec, (struct rlog_sums){0});
    }
    s->work_rev = last_rev;
    s->work_sub = last_sub;
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------- */

static int load_leases(struct store_loader *l, struct slice payload, struct err *e)
{
    struct reader r = reader_make(payload);
    while (reader_left(&r)) {
        int64_t id = (int64_t)reader_u64(&r);
        uint64_t ttl = read_varint(&r), remaining = read_varint(&r);
        if (r.failed || id == 0 || ttl > LIMIT_LEASE_TTL || remaining > INT64_MAX ||
            lease_find(&l->store->leases, id) || l->leases >= LIMIT_LEASES)
            return corrupt(l, e, "a lease that cannot be");
        lease_add(&l->store->leases, id, (int64_t)ttl)->remaining_ttl = (int64_t)remaining;
        l->leases++;
    }
    return 0;
}

static int load_alarms(struct store_loader *l, struct slice payload, struct err *e)
{
    struct reader r = reader_make(payload);
    while (reader_left(&r)) {
        uint64_t id = reader_u64(&r);
        uint8_t type = reader_u8(&r), automatic = reader_u8(&r);
        if (r.failed || type == ALARM_NONE || type > ALARM_CORRUPT || automatic > 1)
            return corrupt(l, e, "an alarm that cannot be");
        alarm_add(l->store, (struct alarm){id, (enum alarm_type)type}, automatic);
        l->others++;
    }
    return 0;
}

static int load_members(struct store_loader *l, struct slice payload, struct err *e)
{
    struct reader r = reader_make(payload);
    while (reader_left(&r)) {
        uint64_t id = reader_u64(&r);
        struct slice name = read_bytes(&r), urls[LIMIT_MEMBER_URLS];
        uint64_t n = read_varint(&r);
        for (uint64_t i = 0; i < n && i < LIMIT_MEMBER_URLS; i++) urls[i] = read_bytes(&r);
        if (r.failed || n > LIMIT_MEMBER_URLS || member_apply(l->store, id, name, urls, (size_t)n))
            return corrupt(l, e, "a member that cannot be");
        l->others++;
    }
    return 0;
}

static int load_trailer(struct store_loader *l, struct slice payload, struct err *e)
{
    struct reader r = reader_make(payload);
    bool fits = payload.len == SNAPSHOT_TRAILER_BYTES && reader_u64(&r) == l->store->log.records &&
                reader_u64(&r) == l->leases && reader_u64(&r) == l->others &&
                reader_u64(&r) == l->offset && reader_u64(&r) == l->chain;
    if (!fits) return corrupt(l, e, "a trailer that does not fit what came before it");
    l->ended = true;
    return 0;
}

/* ---- blocks --------------------------------------------------------------------------------- */

static int load_header(struct store_loader *l, const uint8_t *p, struct err *e)
{
    struct reader r = reader_make(slice_make(p + 8, SNAPSHOT_HEADER_BYTES - 8));
    if (memcmp(p, SNAPSHOT_MAGIC, 8) != 0) return corrupt(l, e, "not a store snapshot: no magic");
    uint32_t version = reader_u32(&r), flags = reader_u32(&r);
    int64_t revision = (int64_t)reader_u64(&r), compact_rev = (int64_t)reader_u64(&r);
    uint64_t hash = reader_u64(&r);
    if (hash != XXH3_64bits(p, SNAPSHOT_HEADER_BYTES - 8))
        return corrupt(l, e, "checksum mismatch in the header");
    if (version != SNAPSHOT_VERSION || flags)
        return err_set(e, ERR_UNSUPPORTED, "snapshot: version %u is not known here", version);
    if (revision < 1 || compact_rev < -1 || compact_rev > revision)
        return corrupt(l, e, "revisions that cannot be in the header");
    l->store->revision = revision;
    l->store->compact_rev = compact_rev;
    l->chain = snapshot_chain(0, hash);
    l->header = true;
    return 0;
}

static int load_block(struct store_loader *l, const uint8_t *head, struct slice payload,
                      struct err *e)
{
    struct reader r = reader_make(slice_make(head, SNAPSHOT_BLOCK_HEAD));
    uint32_t type = reader_u32(&r);
    reader_u32(&r);
    uint64_t hash = reader_u64(&r);
    if (hash != snapshot_block_hash(l->offset, head, payload))
        return corrupt(l, e, "checksum mismatch in the block");
    if (type < BLOCK_RECORDS || type > BLOCK_END || type < l->last)
        return corrupt(l, e, "an unexpected block");
    int rc;
    l->last = (enum snapshot_block)type;
    switch (l->last) {
    case BLOCK_RECORDS: rc = load_records(l, payload, e); break;
    case BLOCK_LEASES: rc = load_leases(l, payload, e); break;
    case BLOCK_ALARMS: rc = load_alarms(l, payload, e); break;
    case BLOCK_MEMBERS: rc = load_members(l, payload, e); break;
    default: rc = load_trailer(l, payload, e); break;
    }
    l->chain = snapshot_chain(l->chain, hash);
    return rc;
}

/* Bytes from the front of `in` that make up the next unit; 0 = too few to know. */
static int unit_length(struct store_loader *l, struct slice in, size_t *ret, struct err *e)
{
    *ret = 0;
    if (!l->header) {
        *ret = SNAPSHOT_HEADER_BYTES;
        return 0;
    }
    if (l->ended) return in.len ? corrupt(l, e, "bytes after the trailer") : 0;
    if (in.len < SNAPSHOT_BLOCK_HEAD) return 0;
    struct reader r = reader_make(slice_sub(in, 4, 4));
    uint32_t len = reader_u32(&r);
    if (len > LIMIT_SNAPSHOT_BLOCK_BYTES) return corrupt(l, e, "a block that is too long");
    *ret = SNAPSHOT_BLOCK_HEAD + (size_t)len;
    return 0;
}

/* Takes whole units from `in`; *ret_used says how far that went. */
static int take_units(struct store_loader *l, struct slice in, size_t *ret_used, struct err *e)
{
    *ret_used = 0;
    for (;;) {
        struct slice rest = slice_sub(in, *ret_used, SIZE_MAX);
        size_t len;
        int rc = unit_length(l, rest, &len, e);
        if (rc || len == 0 || rest.len < len) return rc;
        rc = !l->header
                 ? load_header(l, rest.data, e)
                 : load_block(l, rest.data,
                              slice_sub(rest, SNAPSHOT_BLOCK_HEAD, len - SNAPSHOT_BLOCK_HEAD), e);
        if (rc) return rc;
        l->offset += len;
        *ret_used += len;
    }
}

static int feed(struct store_loader *l, struct slice piece, struct err *e)
{
    size_t used;
    while (l->pending.len && piece.len) { /* complete the unit that was begun, and no more */
        size_t len;
        int rc = unit_length(l, buf_slice(&l->pending), &len, e);
        if (rc) return rc;
        size_t want = len ? len : SNAPSHOT_BLOCK_HEAD, more = want - l->pending.len;
        if (more > piece.len) more = piece.len;
        rc = buf_append(&l->pending, piece.data, more);
        if (rc) return rc;
        piece = slice_sub(piece, more, SIZE_MAX);
        rc = take_units(l, buf_slice(&l->pending), &used, e);
        if (rc) return rc;
        if (used) buf_clear(&l->pending);
    }
    int rc = take_units(l, piece, &used, e);
    return rc ? rc : buf_append_slice(&l->pending, slice_sub(piece, used, SIZE_MAX));
}

int store_loader_feed(struct store_loader *l, struct slice piece, struct err *e)
{
    if (!l->failed) l->failed = feed(l, piece, &l->error);
    if (l->failed && !l->error.text[0])
        err_set(&l->error, l->failed, "snapshot: %s", err_text(l->failed));
    if (l->failed && e) *e = l->error;
    return l->failed;
}

int store_loader_finish(struct store_loader *l, struct store **ret, struct err *e)
{
    struct store *s = l->store;
    if (l->failed) {
        if (e) *e = l->error;
        return l->failed;
    }
    if (!l->ended)
        return err_set(e, ERR_CORRUPT, "snapshot: it ends at offset %llu, without its trailer",
                       (unsigned long long)(l->offset + l->pending.len));
    s->work_rev = s->work_target = s->compact_rev;
    s->work_sub = 0;
    int rc = loader_index(s, e);
    if (rc) {
        l->failed = rc;
        if (e) l->error = *e;
        return rc;
    }
    l->store = NULL;
    *ret = s;
    return 0;
}
