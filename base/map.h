/* A hash map from 64-bit ids to pointers: open addressing, linear probing, deletion by shifting back. The id 0
 * is a key like any other. Growing stops the process when out of memory (mem_must). One thread. */
#ifndef PINTLE_BASE_MAP_H
#define PINTLE_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct map_slot {
    uint64_t id;
    void *value; /* NULL = free */
};

/* All zero is an empty map. */
struct map {
    struct map_slot *slots;
    size_t size; /* a power of two, or 0 */
    size_t count;
};

void map_release(struct map *m);
/* NULL if absent. */
void *map_get(const struct map *m, uint64_t id);
/* Adds or replaces; `value` is not NULL. Returns what was there before, or NULL. */
void *map_put(struct map *m, uint64_t id, void *value);
/* Returns what was there, or NULL. */
void *map_remove(struct map *m, uint64_t id);
/* Walks in no order: start with *at = 0; NULL at the end. The map must not change meanwhile. */
void *map_next(const struct map *m, size_t *at);

#endif
