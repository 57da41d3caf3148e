#include "clients/lib/smap.h"

#include <uv.h>
#include <xxhash.h>

#include "base/mem.h"

void smap_release(struct smap *m)
{
    mem_free(m->buckets);
    *m = (struct smap){0};
}

static uint64_t hash_of(const struct smap *m, struct slice key)
{
    return XXH3_64bits_withSeed(key.data, key.len, m->seed);
}

struct smap_node *smap_find(const struct smap *m, struct slice key)
{
    if (!m->count) return NULL;
    uint64_t hash = hash_of(m, key);
    struct smap_node *n = m->buckets[hash & (m->n_buckets - 1)];
    while (n && (n->hash != hash || !slice_eq(n->key, key))) n = n->next;
    return n;
}

static void grow(struct smap *m)
{
    size_t n = m->n_buckets ? m->n_buckets * 2 : 16;
    struct smap_node **buckets = mem_must_calloc(n, sizeof(struct smap_node *));
    /* Random, as who names objects could choose names of one bucket; without randomness they are still found. */
    if (!m->n_buckets) (void)uv_random(NULL, NULL, &m->seed, sizeof(m->seed), 0, NULL);
    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct smap_node *node = m->buckets[i], *next; node; node = next) {
            next = node->next;
            struct smap_node **at = &buckets[node->hash & (n - 1)];
            node->next = *at;
            *at = node;
        }
    }
    mem_free(m->buckets);
    m->buckets = buckets;
    m->n_buckets = n;
}

void smap_insert(struct smap *m, struct smap_node *node, struct slice key)
{
    if (m->count >= m->n_buckets) grow(m);
    node->key = key;
    node->hash = hash_of(m, key);
    struct smap_node **at = &m->buckets[node->hash & (m->n_buckets - 1)];
    node->next = *at;
    *at = node;
    m->count++;
}

void smap_remove(struct smap *m, struct smap_node *node)
{
    struct smap_node **at = &m->buckets[node->hash & (m->n_buckets - 1)];
    while (*at != node) at = &(*at)->next;
    *at = node->next;
    m->count--;
}

static struct smap_node *first_from(const struct smap *m, size_t bucket)
{
    for (; bucket < m->n_buckets; bucket++)
        if (m->buckets[bucket]) return m->buckets[bucket];
    return NULL;
}

struct smap_node *smap_first(const struct smap *m)
{
    return first_from(m, 0);
}

struct smap_node *smap_next(const struct smap *m, const struct smap_node *node)
{
    if (node->next) return node->next;
    return first_from(m, (node->hash & (m->n_buckets - 1)) + 1);
}
