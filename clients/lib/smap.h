/* A map from bytes to structs that embed their node, so that nothing is allocated for an entry: the
 * key is borrowed from the owner and must stay as long as the entry is in the map. One thread. All
 * zero is an empty map. */
#ifndef PINTLE_CLIENTS_LIB_SMAP_H
#define PINTLE_CLIENTS_LIB_SMAP_H

#include "base/list.h"
#include "base/slice.h"

struct smap_node {
    struct smap_node *next;
    uint64_t hash;
    struct slice key;
};

struct smap {
    struct smap_node **buckets;
    size_t n_buckets, count;
    uint64_t seed;
};

/* Frees the table, not the entries. */
void smap_release(struct smap *m);
struct smap_node *smap_find(const struct smap *m, struct slice key);
/* The key must not be there yet. Stops the process when out of memory. */
void smap_insert(struct smap *m, struct smap_node *node, struct slice key);
void smap_remove(struct smap *m, struct smap_node *node);
/* In no order. An entry may be removed once its successor is known; inserting ends an iteration. */
struct smap_node *smap_first(const struct smap *m);
struct smap_node *smap_next(const struct smap *m, const struct smap_node *node);

/* The entry that holds `key`, or NULL: smap_entry(&map, key, struct thing, node). */
#define smap_entry(map, key, type, member)                                                         \
    ({                                                                                             \
        struct smap_node *found_ = smap_find((map), (key));                                        \
        found_ ? container_of(found_, type, member) : NULL;                                        \
    })

/* The body may remove `node`. */
#define smap_for_each(node, map)                                                                   \
    for (struct smap_node *node = smap_first(map),                                                 \
                          *node##_next = node ? smap_next((map), node) : NULL;                     \
         node; node = node##_next, node##_next = node ? smap_next((map), node) : NULL)

#endif
