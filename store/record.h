/* A record is one version of one key: written once by the core, then immutable and shared by the
 * keyspace, replies, events and snapshots through an atomic reference count. Any thread may read a
 * record it holds a reference to (but for `older`) and drop that reference. */
#ifndef PINTLE_STORE_RECORD_H
#define PINTLE_STORE_RECORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

struct record {
    atomic_uint refs;
    uint32_t key_len;
    uint32_t value_len;
    uint32_t sub : 30;    /* place within the revision, from 0 */
    bool in_slab : 1;     /* where its memory comes from */
    bool tombstone : 1;   /* the key was deleted here; value, create_rev, version and lease are 0 */
    int64_t mod_rev;
    int64_t create_rev;
    int64_t version;
    int64_t lease;        /* 0 = none */
    struct record *older; /* the core thread's alone: the version before, or NULL */
    uint8_t data[];       /* key, then value */
};

/* The header counts in each key's memory: see docs/store.md. */
_Static_assert(sizeof(struct record) == 56, "struct record grew");

static inline struct slice record_key(const struct record *r)
{
    return (struct slice){r->data, r->key_len};
}

static inline struct slice record_value(const struct record *r)
{
    return (struct slice){r->data + r->key_len, r->value_len};
}

struct slab_heap;

/* With one reference, `data` and the two lengths set, all else 0. From the heap (the thread must be its owner's), or without one
 * (NULL) from the system. Never fails softly. */
struct record *record_new(struct slab_heap *heap, struct slice key, struct slice value);
/* The same, or NULL when out of memory, with `data` not filled. */
struct record *record_alloc(struct slab_heap *heap, size_t key_len, size_t value_len);
struct record *record_ref(struct record *r);
/* NULL is fine. Frees at the last reference. */
void record_unref(struct record *r);

/* One change as a watcher sees it. */
struct event {
    struct record *record; /* what was put, or the tombstone */
    struct record *prev;   /* the live version before, or NULL: none, or compacted */
};

/* A run of changes in revision order, whole revisions only: shared by all workers, immutable. */
struct event_batch {
    atomic_uint refs;
    int64_t first_rev; /* of the revisions it covers; a batch without events covers none */
    int64_t last_rev;
    size_t count;
    size_t bytes; /* about what the records take together, of a live batch; 0 = not counted */
    struct event events[];
};

struct event_batch *event_batch_ref(struct event_batch *b);
void event_batch_unref(struct event_batch *b);

#endif
