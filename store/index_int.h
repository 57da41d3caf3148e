/* The ordered index: a B+tree from key to the key's newest record, with subtree counts.
 *
 * Entries are borrowed pointers (the revision log owns the records), so a key costs its record, 8
 * bytes of pointer and 4 bytes of "head". A node knows the prefix that all keys between its fences
 * share, and keeps of each entry the 4 bytes behind that prefix; a search touches records only
 * where heads tie.
 *
 * A tombstone stays an entry until compaction erases it, but is not counted as live.
 * One thread. All allocations are must-succeed. */
#ifndef PINTLE_STORE_INDEX_INT_H
#define PINTLE_STORE_INDEX_INT_H

#include "store/record.h"

enum { INDEX_LEAF_MAX = 64, INDEX_INNER_MAX = 64, INDEX_HEIGHT_MAX = 16 };

struct index_leaf;
struct index_inner;

struct index {
    void *root; /* a leaf when height is 0; NULL when empty */
    unsigned height;
    size_t entries, live;
    size_t bytes; /* memory of the nodes */
};

/* The way to an entry, or to where it would be. Any change of the index other than through the path
 * itself ends it. */
struct index_path {
    struct index_inner *inner[INDEX_HEIGHT_MAX];
    uint16_t at[INDEX_HEIGHT_MAX]; /* child taken */
    struct index_leaf *leaf;
    unsigned pos;
    bool found;
};

/* Frees the nodes, not the records. */
void index_release(struct index *ix);

/* The record of `key`, or NULL; `path` is then the place for it. */
struct record *index_find(const struct index *ix, struct slice key, struct index_path *path);
struct record *index_get(const struct index *ix, struct slice key);
/* Puts `r` at the path of its own key: instead of what was found, or as a new entry. */
void index_store(struct index *ix, struct index_path *path, struct record *r);
/* Removes the entry that was found. */
void index_erase(struct index *ix, struct index_path *path);
/* Fills an empty index from records in key order. */
void index_build(struct index *ix, struct record **records, size_t n);

/* Live entries before `key`. */
size_t index_rank(const struct index *ix, struct slice key);

/* From the first entry not before `key`, in order, tombstones too; NULL at the end. */
struct record *index_seek(const struct index *ix, struct slice key, struct index_path *path);
struct record *index_next(const struct index *ix, struct index_path *path);
/* Up to `n` entries from the path's on that lie together; at least one unless at the end. The path
 * stays. */
size_t index_run(const struct index_path *path, struct record *const **ret);
/* Forward by `n`, at most what index_run said. */
struct record *index_skip(const struct index *ix, struct index_path *path, size_t n);

/* Tests: stops on a broken invariant. */
void index_check(const struct index *ix);

#endif
