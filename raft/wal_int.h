/* The write-ahead log: entries, truncations and resets, in order, durable when `done` comes.
 *
 * Files: wal/<16 hex digits>.wal, numbered without a gap; wal/spare.tmp, a used segment that waits
 * for its next life; wal/mark. A segment is written ahead (zeros, or what its last life left), so
 * that an append changes no file size and fdatasync has only data to write. A segment's header
 * carries a random salt, each record repeats it, and records are chained by sequence number and
 * checksum: what an earlier life left, or what was written to another place, is never mistaken for a
 * record. The first record of a segment comes with one that says where in the chain it begins.
 *
 * One write + fdatasync is under way at a time and holds one record; appends that arrive meanwhile
 * form the next one. So a crash can tear only the last record. When the log is opened, a bad record
 * is that torn one, and is cut, if nothing valid is behind it, the mark (how far the log was durable
 * at the last tick, wal_mark.c) does not know of it, and it is not whole but for one bit. Every
 * other bad record is damage, and is refused.
 *
 * One thread. Any disk error ends in `fatal`, after which nothing completes any more. */
#ifndef PINTLE_RAFT_WAL_INT_H
#define PINTLE_RAFT_WAL_INT_H

#include <raft.h>

#include "base/list.h"
#include "raft/env.h"

#define WAL_MARK "wal/mark"
#define WAL_MARK_COPY 512u /* one sector each */
#define WAL_MARK_BYTES (2 * WAL_MARK_COPY)

struct wal;

struct wal_options {
    struct env *env;
    uint64_t cluster_id, member_id;
    size_t segment_bytes; /* 0 = 64 MiB */
    bool alone;           /* nobody to heal from: a lost mark is made again if the log ends in order */
    bool begun;           /* there is a log already: one without any segment is lost, and not new */
    void (*fatal)(void *ctx, int error, const char *text);
    void *ctx;
};

struct wal_entry {
    uint64_t term;
    unsigned short type;
    void *data; /* raft_malloc'd */
    size_t len;
};

/* What the log held: entries first_index .. first_index + n - 1. */
struct wal_contents {
    uint64_t first_index;
    size_t n;
    struct wal_entry *entries;
    uint64_t reset_index, reset_term; /* of the last reset, 0 if there is none */
    uint64_t torn_bytes;              /* cut from the end */
};

void wal_contents_release(struct wal_contents *c);

/* Reads all of it and makes it ready to append. `env` must not have been started. */
int wal_open(const struct wal_options *o, struct wal **ret, struct wal_contents *contents,
             struct err *e) MUST_CHECK;

/* Embedded by the caller; entries and their bytes are borrowed until `done`. */
struct wal_append {
    uint64_t first_index;
    const struct raft_entry *entries;
    unsigned n;
    void (*done)(struct wal_append *a);
    void *data;
    /* the log's */
    unsigned kind;
    uint64_t term;
    bool owned;
    struct list node;
};

/* An append at an index that is already there replaces it and all behind it. */
void wal_append(struct wal *w, struct wal_append *a);
/* Before anything else is appended, and before the env has started: one entry, durable when it
 * returns. */
int wal_append_sync(struct wal *w, uint64_t index, uint64_t term, unsigned short type,
                    struct slice data, struct err *e) MUST_CHECK;
/* The same for a reset. */
int wal_reset_sync(struct wal *w, uint64_t index, uint64_t term, struct err *e) MUST_CHECK;
/* Drops `index` and all behind it; ordered with the appends. */
void wal_truncate(struct wal *w, uint64_t index);
/* As wal_truncate, with `done` once it is durable. Sets first_index itself. */
void wal_truncate_sync(struct wal *w, struct wal_append *a, uint64_t index);
/* Forgets everything: the log goes on at index + 1. */
void wal_reset(struct wal *w, struct wal_append *a, uint64_t index, uint64_t term);
/* Entries up to `index` are not needed any more: gives whole segments back. */
void wal_release(struct wal *w, uint64_t index);
/* To be called at each tick: notes how far the log is durable. */
void wal_tick(struct wal *w);

/* ---- checking what was written (wal_check.c) ---- */

/* One segment; `end`: of what is durable in it. */
struct wal_check {
    char path[40];
    uint64_t number, offset, end;
    /* the log's */
    const struct wal_options *o;
    uint64_t salt, seq, to_seq, record, left, padding;
    uint32_t crc, to_crc, sum, want;
    bool begin;
    uint8_t head[64];
    size_t have;
};
/* The oldest segment whose number is above `after`; false if there is none. */
bool wal_check_next(const struct wal *w, uint64_t after, struct wal_check *k);
/* Whether the segment still belongs to the log; if not, what was read of it says nothing. */
bool wal_check_current(const struct wal *w, const struct wal_check *k);
/* Its bytes from `offset` on, never beyond `end`. ERR_CORRUPT names file and offset. */
int wal_check_feed(struct wal_check *k, struct slice piece, struct err *e) MUST_CHECK;
/* The whole of wal/mark, read on the bulk lane; if it is damaged, it is written again. */
bool wal_check_mark(struct wal *w, struct slice file);

bool wal_idle(const struct wal *w);
/* The last entry that is on the disk. */
uint64_t wal_last_index(const struct wal *w);
/* Entry records written, syncs, and the time they took. */
struct wal_stats {
    uint64_t appends, syncs, sync_ms, bytes;
};
void wal_get_stats(const struct wal *w, struct wal_stats *ret);

/* After everything has completed: notes the end, closes the files, frees it, calls back. After a fatal
 * error nothing more is written. */
void wal_close(struct wal *w, void (*closed)(void *ctx), void *ctx);
/* The env has stopped: frees it at once. */
void wal_free(struct wal *w);

#endif
