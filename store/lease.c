#include "store/lease_int.h"

#include "base/check.h"
#include "base/mem.h"

static void free_lease(struct lease *l)
{
    index_release(&l->keys);
    mem_free(l);
}

void lease_table_release(struct lease_table *t)
{
    for (size_t i = 0; i < t->n_chunks; i++) {
        for (size_t k = 0; k < t->chunks[i]->n; k++) free_lease(t->chunks[i]->leases[k]);
        mem_free(t->chunks[i]);
    }
    mem_free(t->chunks);
    *t = (struct lease_table){0};
}

/* Where `id` is or would be; false when the table is empty. */
static bool locate(const struct lease_table *t, int64_t id, size_t *ret_chunk, size_t *ret_at)
{
    if (t->n_chunks == 0) return false;
    size_t lo = 0, hi = t->n_chunks; /* the last chunk that starts at or before id */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->chunks[mid]->leases[0]->id <= id) lo = mid + 1;
        else hi = mid;
    }
    *ret_chunk = lo ? lo - 1 : 0;
    const struct lease_chunk *c = t->chunks[*ret_chunk];
    lo = 0;
    hi = c->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c->leases[mid]->id < id) lo = mid + 1;
        else hi = mid;
    }
    *ret_at = lo;
    return true;
}

struct lease *lease_find(const struct lease_table *t, int64_t id)
{
    size_t chunk, at;
    if (!locate(t, id, &chunk, &at)) return NULL;
    const struct lease_chunk *c = t->chunks[chunk];
    return at < c->n && c->leases[at]->id == id ? c->leases[at] : NULL;
}

struct lease *lease_after(const struct lease_table *t, int64_t after)
{
    size_t chunk, at;
    if (!locate(t, after ? after : INT64_MIN, &chunk, &at)) return NULL;
    if (after && at < t->chunks[chunk]->n && t->chunks[chunk]->leases[at]->id == after) at++;
    if (at == t->chunks[chunk]->n) {
        chunk++;
        at = 0;
    }
    return chunk < t->n_chunks ? t->chunks[chunk]->leases[at] : NULL;
}

static struct lease_chunk *add_chunk(struct lease_table *t, size_t at)
{
    if (t->n_chunks == t->size) {
        t->size = t->size ? t->size * 2 : 4;
        t->chunks = mem_must_realloc(t->chunks, t->size * sizeof(*t->chunks));
    }
    memmove(t->chunks + at + 1, t->chunks + at, (t->n_chunks - at) * sizeof(*t->chunks));
    t->n_chunks++;
    t->chunks[at] = mem_must_alloc(sizeof(struct lease_chunk));
    t->chunks[at]->n = 0;
    return t->chunks[at];
}

struct lease *lease_add(struct lease_table *t, int64_t id, int64_t ttl)
{
    size_t chunk = 0, at = 0;
    if (!locate(t, id, &chunk, &at)) add_chunk(t, 0);
    struct lease_chunk *c = t->chunks[chunk];
    CHECK(at == c->n || c->leases[at]->id != id);
    if (c->n == LEASE_CHUNK) {
        size_t keep = at == c->n ? c->n : c->n / 2; /* ascending ids leave full chunks */
        struct lease_chunk *right = add_chunk(t, chunk + 1);
        right->n = c->n - keep;
        memcpy(right->leases, c->leases + keep, right->n * sizeof(right->leases[0]));
        c->n = keep;
        if (at > keep || keep == LEASE_CHUNK) {
            c = right;
            at -= keep;
        }
    }
    struct lease *l = mem_must_calloc(1, sizeof(*l));
    l->id = id;
    l->ttl = ttl;
    memmove(c->leases + at + 1, c->leases + at, (c->n - at) * sizeof(c->leases[0]));
    c->leases[at] = l;
    c->n++;
    t->n++;
    return l;
}

void lease_remove(struct lease_table *t, struct lease *l)
{
    size_t chunk, at;
    CHECK(locate(t, l->id, &chunk, &at) && at < t->chunks[chunk]->n &&
          t->chunks[chunk]->leases[at] == l);
    struct lease_chunk *c = t->chunks[chunk];
    c->n--;
    memmove(c->leases + at, c->leases + at + 1, (c->n - at) * sizeof(c->leases[0]));
    t->n--;
    free_lease(l);
    if (c->n) return;
    mem_free(c);
    t->n_chunks--;
    memmove(t->chunks + chunk, t->chunks + chunk + 1, (t->n_chunks - chunk) * sizeof(*t->chunks));
}

void lease_attach(struct lease *l, struct record *r)
{
    struct index_path path;
    index_find(&l->keys, record_key(r), &path);
    index_store(&l->keys, &path, r);
}

void lease_detach(struct lease *l, struct slice key)
{
    struct index_path path;
    if (index_find(&l->keys, key, &path)) index_erase(&l->keys, &path);
}
