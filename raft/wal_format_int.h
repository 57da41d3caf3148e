/* Layout of WAL files (docs/formats-raft.md), and what wal.c, wal_load.c and wal_segment.c share.
 */
#ifndef PINTLE_RAFT_WAL_FORMAT_INT_H
#define PINTLE_RAFT_WAL_FORMAT_INT_H

#include "base/limits.h"
#include "raft/wal_int.h"

#define WAL_DIR "wal"
#define WAL_SPARE "wal/spare.tmp"
#define WAL_NEW "wal/new.tmp"
#define WAL_MAGIC 0x314c4157544e5000u /* "\0PNTWAL1" */
#define WAL_SEGMENT_HEAD 64u
#define WAL_RECORD_HEAD 56u
#define WAL_TABLE_ENTRY 16u
#define WAL_ALIGN 8u
#define WAL_PREPARE_BYTES (4 * LIMIT_MiB) /* written ahead in one go, at most; or a quarter of the segment */
#define WAL_FIRST_BYTES (LIMIT_MiB)       /* of a new segment, before it is used, at most; or a sixteenth */
#define WAL_SEGMENT_DEFAULT (64 * LIMIT_MiB)
#define WAL_SEGMENT_MIN (64 * LIMIT_KiB)
#define WAL_GROUP_BYTES (8 * LIMIT_MiB) /* of appends gathered into one record */
#define WAL_PATH_BYTES 40

/* SEAL: of an earlier version; it lay where the next record would go. */
enum wal_kind { WAL_ENTRIES = 1, WAL_TRUNCATE, WAL_RESET, WAL_SEAL, WAL_BEGIN };

struct wal_head {
    uint64_t salt;
    uint32_t crc, prev_crc;
    uint64_t seq, index, term;
    uint32_t kind, count, length, check;
};

void wal_head_encode(uint8_t out[WAL_RECORD_HEAD], const struct wal_head *h);
void wal_head_decode(const uint8_t *in, struct wal_head *h);
static inline uint64_t wal_record_bytes(uint64_t length)
{
    return (WAL_RECORD_HEAD + length + WAL_ALIGN - 1) / WAL_ALIGN * WAL_ALIGN;
}

/* A place in the chain: the sequence number of the next record, the checksum of the one before it. */
struct wal_place {
    uint64_t seq;
    uint32_t crc;
};

struct wal_segment {
    uint64_t number, salt;
    uint64_t max_index; /* highest entry in it; it can go when that is not needed */
    uint64_t end;       /* of what is durable in it */
    struct wal_place from, to; /* its records continue the one, and lead to the other */
    char path[WAL_PATH_BYTES];
    struct list node;
};

void wal_segment_head(uint8_t out[WAL_SEGMENT_HEAD], const struct wal_options *o, uint64_t number,
                      uint64_t salt);
int wal_segment_head_check(struct slice file, const struct wal_options *o, uint64_t number,
                           const char *path, uint64_t *ret_salt, struct err *e);
/* Both checksums of a record's head and what follows it, whatever stands in their fields. */
struct wal_sums {
    uint32_t crc, check;
};
/* The second one begins with a seed: the salt, so that a torn write cannot lend its salt to what the file's earlier life
 * left in the same place; an earlier version began with 0. */
uint32_t wal_record_check(const uint8_t head[WAL_RECORD_HEAD], uint64_t seed, const struct slice *pieces, size_t n);
struct wal_sums wal_record_sums(const uint8_t head[WAL_RECORD_HEAD], const struct slice *pieces,
                                size_t n);
void wal_segment_path(char out[WAL_PATH_BYTES], uint64_t number);

/* Making the next segment ready, on the bulk lane beside the appends. */
enum wal_next { WAL_NEXT_NONE, WAL_NEXT_OPEN, WAL_NEXT_HEAD, WAL_NEXT_RENAME, WAL_NEXT_READY };

struct wal {
    struct wal_options o;
    bool failed, closing;

    struct list segments; /* oldest first; the last is written to */
    struct env_file *file;
    uint64_t pos, prepared; /* next record; bytes of the file that exist */

    struct wal_place at; /* the next record's */
    uint64_t last_index;

    struct list queue;  /* struct wal_append that wait */
    struct list flying; /* the ones in the record under way */
    struct env_io io;   /* that record, a close */
    bool writing;
    uint64_t write_started_ms;
    struct buf head, copy;
    uint8_t begin[WAL_RECORD_HEAD];
    struct wal_head record;

    /* wal_mark.c */
    struct env_file *mark_file;
    struct env_io mark_io;
    bool marking, mark_synced;
    uint64_t marked_seq; /* as the file has it, or will */
    uint8_t mark[WAL_MARK_BYTES];

    /* extension of the current segment */
    struct env_io extend_io;
    bool extending;

    /* the next segment */
    enum wal_next next_state;
    struct env_io next_io;
    struct wal_segment *next;
    uint64_t next_prepared;
    uint8_t next_head[WAL_SEGMENT_HEAD];
    struct env_file *next_file;

    /* giving segments back */
    struct env_io free_io;
    struct list freeing; /* of wal_segment */
    bool free_busy, have_spare, spare_coming;
    uint64_t spare_bytes;

    struct env_io close_old_io; /* closing the segment before */
    struct list closing_files;
    unsigned busy; /* operations of all kinds under way */

    void (*closed)(void *ctx);
    void *closed_ctx;
    struct wal_stats stats;
};

extern const uint8_t wal_zeros[256 * 1024];

void wal_fatal(struct wal *w, const struct env_io *io, const char *what);
/* wal_segment.c */
int wal_segment_create_sync(struct wal *w, struct err *e);
void wal_extend(struct wal *w);
void wal_prepare_next(struct wal *w);
/* Switches to the next segment if it is ready. */
bool wal_switch(struct wal *w);
void wal_free_segments(struct wal *w);
/* wal_mark.c: how far the log was durable when it was last noted. Reading makes the file if there is none. */
int wal_mark_open(struct wal *w, struct wal_place *ret, struct err *e);
/* The file anew, and open. */
int wal_mark_make(struct wal *w, struct wal_place at, struct err *e);
/* Notes it, in the background, if there is news; true if a write is on its way. */
bool wal_mark_write(struct wal *w, bool sync);
/* The place it notes, and how many of its two copies are whole; false if none is. */
bool wal_mark_decode(struct slice file, const struct wal_options *o, struct wal_place *ret,
                     unsigned *ret_whole);
/* wal.c */
void wal_flush(struct wal *w);
void wal_maybe_closed(struct wal *w);
/* wal_load.c */
int wal_load(struct wal *w, struct wal_contents *c, struct err *e);

#endif
