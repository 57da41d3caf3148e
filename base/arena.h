/* A region allocator: everything of one request lives here and goes away at once. One thread. */
#ifndef PINTLE_BASE_ARENA_H
#define PINTLE_BASE_ARENA_H

#include <stdalign.h>
#include <stddef.h>

#include "base/slice.h"

struct arena_chunk;

/* All zero is an empty arena without a cap. */
struct arena {
    struct arena_chunk *chunks;
    uint8_t *next, *end;
    size_t used; /* bytes taken from the system */
    size_t cap;  /* most bytes to take; 0 = no cap */
};

void arena_init(struct arena *a, size_t cap);
/* Frees everything; the arena is empty again. */
void arena_release(struct arena *a);
/* Forgets everything but keeps the first chunk for the next request. */
void arena_reset(struct arena *a);
/* Aligned for any type; NULL when out of memory or over the cap. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_calloc(struct arena *a, size_t count, size_t size);
/* A copy with a NUL behind it (not counted); data is NULL when out of memory. */
struct slice arena_dup(struct arena *a, struct slice s);
/* NULL when out of memory. */
const char *arena_strdup(struct arena *a, struct slice s);
const char *arena_printf(struct arena *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
