/* The revision log: all records in order of (revision, sub), and the owner of one reference to
 * each.
 *
 * Records lie in chunks of a page; compaction takes single records out, chunks close up and go
 * away, so that what is left of the past costs 8 bytes a record. Places are named by (revision,
 * sub), never by number. One thread. */
#ifndef PINTLE_STORE_RLOG_INT_H
#define PINTLE_STORE_RLOG_INT_H

#include "store/record.h"

/* Running sums over the history, in bytes as record_cost counts them: of all versions written, and
 * of what was live then. */
struct rlog_sums {
    int64_t written, live;
};

struct rlog_chunk;

struct rlog_entry {
    int64_t rev; /* no record of the chunk is before (rev, sub) */
    uint32_t sub;
    struct rlog_chunk *chunk;
    struct rlog_sums before; /* just before the chunk's first record when it was begun */
};

struct rlog {
    struct rlog_entry *entries;
    size_t n, size;
    size_t records;
};

/* Changes of the log end it. */
struct rlog_iter {
    size_t entry, at;
};

/* Drops all references. */
void rlog_release(struct rlog *log);
/* Takes over the caller's reference. `before`: the sums without this record. */
void rlog_append(struct rlog *log, struct record *r, struct rlog_sums before);
/* Drops the record and its reference; it must be there. */
void rlog_remove(struct rlog *log, struct record *r);

/* The first record not before (rev, sub), NULL if none. */
struct record *rlog_seek(const struct rlog *log, int64_t rev, uint32_t sub, struct rlog_iter *it);
struct record *rlog_next(const struct rlog *log, struct rlog_iter *it);
/* About how many records are from there on; never too few by more than a chunk. */
size_t rlog_records_from(const struct rlog *log, int64_t rev);
/* Sums before the chunk where the records of `rev` begin; *ret_rev and *ret_sub are the chunk's
 * start. false if there is no such chunk. */
bool rlog_checkpoint(const struct rlog *log, int64_t rev, int64_t *ret_rev, uint32_t *ret_sub,
                     struct rlog_sums *ret);

#endif
