/* Inside watch/: the groups of watchers with the same range, and the index that finds the groups
 * that a key falls into. */
#ifndef PINTLE_WATCH_WATCH_INT_H
#define PINTLE_WATCH_WATCH_INT_H

#include "watch/watch.h"

#define NO_MATCH SIZE_MAX

/* All watchers of one (key, range_end): matched once, however many they are. In the hash table if
 * the range is one key, else in the tree. It lives as long as it has a watcher or is pinned. */
struct watch_group {
    struct slice begin, end; /* end: only if it is a bounded range */
    bool single, unbounded;
    size_t watchers, pins;
    struct list synced; /* watchers that have seen all up to the hub's revision */
    struct list behind; /* cursors */

    /* the batch that is being matched: its events for this group, chained through watch_hub.matches
     */
    size_t first_match, last_match, n_matches;
    struct list touched;

    union {
        struct watch_group *next; /* single: hash chain */
        struct {                  /* else: treap by (begin, end) */
            struct watch_group *left, *right;
            struct watch_group *furthest; /* of this subtree: the one whose range ends last */
            uint64_t priority;
        };
    };
    uint8_t bytes[]; /* of begin and end */
};

struct range_index {
    struct watch_group **buckets; /* of single keys; a power of two, or none yet */
    size_t n_buckets, n_single, n_ranges;
    struct watch_group *root;
    uint64_t seed;   /* of the hashes, and the first of `random` */
    uint64_t random; /* treap priorities: not from keys, which a client chooses */
};

/* The group of a range, made if there is none: NULL when out of memory. */
struct watch_group *range_index_get(struct range_index *ix, struct slice key,
                                    struct slice range_end);
/* Takes the group out and frees it. */
void range_index_remove(struct range_index *ix, struct watch_group *g);
/* Calls `hit` for every group that holds `key`. */
void range_index_match(struct range_index *ix, struct slice key,
                       void (*hit)(void *ctx, struct watch_group *g), void *ctx);
/* Calls `visit` for every group; it must not change the index. */
void range_index_each(struct range_index *ix, void (*visit)(void *ctx, struct watch_group *g),
                      void *ctx);
/* All groups must be gone. */
void range_index_release(struct range_index *ix);

#endif
