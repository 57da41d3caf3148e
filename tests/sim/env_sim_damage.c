/* What a disk does to what it holds: bits that flip, sectors that read as zeroes or not at all, writes that never reached
 * their place or reached another one, ends and whole files that are gone. Always at rest, in what is
 * visible and what is durable alike: the next life finds it so. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/mem.h"
#include "env_sim_int.h"

enum { SECTOR = 512 };

bool sim_disk_flip(struct sim *s, uint64_t id, const char *prefix, const char **ret_path,
                   uint64_t *ret_offset)
{
    struct sim_disk *d = sim_member(s, id)->disk;
    uint64_t total = 0;
    for (size_t i = 0; i < d->live.n; i++) {
        if (strncmp(d->live.names[i].path, prefix, strlen(prefix)) == 0)
            total += d->live.names[i].inode->live.len;
    }
    if (total == 0) return false;
    uint64_t at = sim_random_below(&s->disk_random, total);
    for (size_t i = 0; i < d->live.n; i++) {
        struct sim_inode *inode = d->live.names[i].inode;
        if (strncmp(d->live.names[i].path, prefix, strlen(prefix)) != 0) continue;
        if (at >= inode->live.len) {
            at -= inode->live.len;
            continue;
        }
        uint8_t bit = (uint8_t)(1u << sim_random_below(&s->disk_random, 8));
        inode->live.data[at] ^= bit;
        if (at < inode->durable.len) inode->durable.data[at] ^= bit;
        if (ret_path) *ret_path = d->live.names[i].path;
        if (ret_offset) *ret_offset = at;
        return true;
    }
    return false;
}

static void put_bytes(struct buf *image, uint64_t at, const uint8_t *bytes, size_t len)
{
    if (at >= image->len || len == 0) return;
    memcpy(image->data + at, bytes, len < image->len - at ? len : (size_t)(image->len - at));
}

static void put_both(struct sim_inode *i, uint64_t at, const uint8_t *bytes, size_t len)
{
    put_bytes(&i->live, at, bytes, len);
    put_bytes(&i->durable, at, bytes, len);
}

static bool is_lost(const struct sim_inode *i, const struct sim_old *o)
{
    if (o->after.len == 0 || o->offset + o->after.len > i->live.len) return false;
    return memcmp(i->live.data + o->offset, o->after.data, o->after.len) == 0 &&
           memcmp(o->before.data, o->after.data, o->after.len) != 0;
}

/* One of the writes that are remembered and still there, or NULL. */
static struct sim_old *some_write(struct sim_inode *i, struct sim_random *r)
{
    unsigned from = (unsigned)sim_random_below(r, SIM_OLD_WRITES);
    for (unsigned k = 0; k < SIM_OLD_WRITES; k++) {
        struct sim_old *o = &i->old[(from + k) % SIM_OLD_WRITES];
        if (is_lost(i, o)) return o;
    }
    return NULL;
}

static const char *lose_write(struct sim *s, struct sim_name *n, struct sim_random *r, bool misplace)
{
    struct sim_inode *i = n->inode;
    struct sim_old *o = some_write(i, r);
    if (!o) return NULL;
    uint64_t sectors = i->live.len / SECTOR, to = sectors ? sim_random_below(r, sectors) * SECTOR : 0;
    if (misplace && (!sectors || to / SECTOR == o->offset / SECTOR)) return NULL;
    put_both(i, o->offset, o->before.data, o->before.len);
    if (misplace) put_both(i, to, o->after.data, o->after.len);
    int at = snprintf(s->words, sizeof s->words, "%zu bytes written at %" PRIu64 " of %s never got there",
                      o->after.len, o->offset, n->path);
    if (misplace)
        snprintf(s->words + at, sizeof s->words - (size_t)at, ", but to %" PRIu64, to);
    return s->words;
}

static const char *zero_sector(struct sim *s, struct sim_name *n, struct sim_random *r)
{
    static const uint8_t zeroes[SECTOR];
    uint64_t at = sim_random_below(r, n->inode->live.len) / SECTOR * SECTOR;
    put_both(n->inode, at, zeroes, SECTOR);
    snprintf(s->words, sizeof s->words, "the sector at %" PRIu64 " of %s reads as zeroes", at, n->path);
    return s->words;
}

static const char *lose_sector(struct sim *s, uint64_t id, struct sim_name *n, struct sim_random *r)
{
    uint64_t at = sim_random_below(r, n->inode->live.len) / SECTOR * SECTOR;
    (void)sim_disk_lose_sector(s, id, n->path, at);
    snprintf(s->words, sizeof s->words, "the sector at %" PRIu64 " of %s cannot be read", at, n->path);
    return s->words;
}

static const char *cut_end(struct sim *s, struct sim_name *n, struct sim_random *r)
{
    size_t len = (size_t)sim_random_below(r, n->inode->live.len);
    n->inode->live.len = len;
    if (n->inode->durable.len > len) n->inode->durable.len = len;
    snprintf(s->words, sizeof s->words, "%s ends at %zu", n->path, len);
    return s->words;
}

static const char *damage_file(struct sim *s, uint64_t id, struct sim_name *n,
                               enum sim_damage how, struct sim_random *r)
{
    switch (how) {
    case SIM_DAMAGE_UNREADABLE: return lose_sector(s, id, n, r);
    case SIM_DAMAGE_ZERO: return zero_sector(s, n, r);
    case SIM_DAMAGE_STALE: return lose_write(s, n, r, false);
    case SIM_DAMAGE_MISPLACED: return lose_write(s, n, r, true);
    case SIM_DAMAGE_CUT: return cut_end(s, n, r);
    case SIM_DAMAGE_REMOVED:
        snprintf(s->words, sizeof s->words, "%s is gone", n->path);
        sim_disk_forget(sim_member(s, id)->disk, n->path);
        return s->words;
    default: return NULL;
    }
}

const char *sim_disk_damage(struct sim *s, uint64_t id, enum sim_damage how, struct sim_random *r)
{
    struct sim_disk *d = sim_member(s, id)->disk;
    if (how == SIM_DAMAGE_FLIP) {
        const char *path;
        uint64_t offset;
        if (!sim_disk_flip(s, id, "", &path, &offset)) return NULL;
        snprintf(s->words, sizeof s->words, "a bit flips in %s at %" PRIu64, path, offset);
        return s->words;
    }
    uint64_t from = d->live.n ? sim_random_below(r, d->live.n) : 0;
    for (size_t i = 0; i < d->live.n; i++) {
        struct sim_name *n = &d->live.names[(from + i) % d->live.n];
        const char *words = n->inode->live.len ? damage_file(s, id, n, how, r) : NULL;
        if (words) return words;
    }
    return NULL;
}
