/* The leases: a sorted table of chunks, and for each lease an index of the records attached to it.
 * One thread. */
#ifndef PINTLE_STORE_LEASE_INT_H
#define PINTLE_STORE_LEASE_INT_H

#include "store/index_int.h"

struct lease {
    int64_t id, ttl, remaining_ttl;
    struct index keys; /* the newest records of the keys that hold it */
};

enum { LEASE_CHUNK = 256 };

struct lease_chunk {
    size_t n;
    struct lease *leases[LEASE_CHUNK];
};

struct lease_table {
    struct lease_chunk **chunks; /* sorted, none empty */
    size_t n_chunks, size;
    size_t n;
};

void lease_table_release(struct lease_table *t);
struct lease *lease_find(const struct lease_table *t, int64_t id);
/* The lease must not be there yet. */
struct lease *lease_add(struct lease_table *t, int64_t id, int64_t ttl);
/* Frees it; its keys are the caller's care. */
void lease_remove(struct lease_table *t, struct lease *l);
/* The one with the smallest id above `after`; 0, which no lease has, is before all. NULL if none. */
struct lease *lease_after(const struct lease_table *t, int64_t after);

/* `r` is now the newest record of its key and holds lease `l`. */
void lease_attach(struct lease *l, struct record *r);
void lease_detach(struct lease *l, struct slice key);

#endif
