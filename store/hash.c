/* etcd's HashKV (server/storage/mvcc/hash.go of 3.5): CRC-32C over the name of the bucket and, in
 * order of revision, each revision's key and value as etcd's backend holds them. The value is a
 * mvccpb.KeyValue.
 *
 * Of the revisions up to the compact revision those count that are live at the revision asked for.
 * If no key is live there, etcd leaves that rule out and hashes all that compaction left; so two
 * sums are kept until it is clear which it is. What compaction has not freed yet is passed over:
 * the hash never shows how far that is. */
#include "store/store_int.h"

#include "base/crc32c.h"
#include "base/mem.h"

struct store_hash {
    struct pin pin; /* at the compact revision */
    int64_t rev;
    int64_t at_rev; /* the next record */
    uint32_t at_sub;
    uint32_t kept, all; /* the sums with and without the rule */
    bool any_kept;
    bool done;
};

int store_hash_open(struct store *s, int64_t revision, struct store_hash **ret)
{
    if (revision > 0 && revision < s->compact_rev) return ERR_COMPACTED;
    if (revision > s->revision) return ERR_FUTURE_REV;
    struct store_hash *h = mem_calloc(1, sizeof(*h));
    if (!h) return ERR_NOMEM;
    h->rev = revision ? revision : s->revision; /* as etcd: below zero there is nothing */
    h->kept = h->all = crc32c(0, "key", 3);
    pin_open(&h->pin, s, s->compact_rev);
    *ret = h;
    return 0;
}

/* ---- etcd's bytes --------------------------------------------------------------------------- */

static uint8_t *put_be64(uint8_t *p, uint64_t v)
{
    for (int shift = 56; shift >= 0; shift -= 8) *p++ = (uint8_t)(v >> shift);
    return p;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* An int64 field, left out when 0 as proto3 does. */
static uint8_t *put_field(uint8_t *p, unsigned number, int64_t v)
{
    if (v == 0) return p;
    *p++ = (uint8_t)(number << 3);
    return put_varint(p, (uint64_t)v);
}

static uint32_t hash_record(uint32_t crc, const struct record *r)
{
    uint8_t head[64], *p = head;
    p = put_be64(p, (uint64_t)r->mod_rev);
    *p++ = '_';
    p = put_be64(p, r->sub);
    if (r->tombstone) *p++ = 't';
    *p++ = 1 << 3 | 2; /* KeyValue.key */
    p = put_varint(p, r->key_len);
    crc = crc32c(crc, head, (size_t)(p - head));
    crc = crc32c(crc, r->data, r->key_len);
    if (r->tombstone) return crc; /* only the key is set */
    p = put_field(head, 2, r->create_rev);
    p = put_field(p, 3, r->mod_rev);
    p = put_field(p, 4, r->version);
    if (r->value_len) {
        *p++ = 5 << 3 | 2;
        p = put_varint(p, r->value_len);
    }
    crc = crc32c(crc, head, (size_t)(p - head));
    crc = crc32c(crc, r->data + r->key_len, r->value_len);
    p = put_field(head, 6, r->lease);
    return crc32c(crc, head, (size_t)(p - head));
}

/* ---- the walk ------------------------------------------------------------------------------- */

static void take(struct store_hash *h, const struct record *r)
{
    const struct store *s = h->pin.store;
    int64_t compact_rev = h->pin.rev;
    bool in_kept = true;
    if (r->mod_rev <= compact_rev) {
        if (r->tombstone || !is_newest_at(s, r, compact_rev)) return;
        in_kept = is_newest_at(s, r, h->rev);
    }
    if (in_kept && !r->tombstone && !h->any_kept) h->any_kept = is_newest_at(s, r, h->rev);
    if (in_kept) h->kept = hash_record(h->kept, r);
    if (!h->any_kept) h->all = hash_record(h->all, r);
}

bool store_hash_step(struct store_hash *h, size_t max_bytes)
{
    if (h->done || !h->pin.store) return true;
    const struct store *s = h->pin.store;
    struct rlog_iter it;
    struct record *r = rlog_seek(&s->log, h->at_rev, h->at_sub, &it);
    for (size_t done = 0; done < max_bytes && r && r->mod_rev <= h->rev;) {
        take(h, r);
        done += (size_t)record_cost(r);
        h->at_rev = r->mod_rev;
        h->at_sub = r->sub + 1u;
        r = rlog_next(&s->log, &it);
    }
    h->done = !r || r->mod_rev > h->rev;
    return h->done;
}

uint32_t store_hash_value(const struct store_hash *h)
{
    return h->any_kept ? h->kept : h->all;
}

int64_t store_hash_revision(const struct store_hash *h)
{
    return h->rev;
}

int64_t store_hash_compact_revision(const struct store_hash *h)
{
    return h->pin.rev;
}

void store_hash_close(struct store_hash *h)
{
    if (!h) return;
    pin_close(&h->pin);
    mem_free(h);
}
