/* A Raft entry's payload: the commands that one member gathered, as one msgpack array
 * [version, origin member id, [seq, command bytes], [seq, command bytes], ...]: written by appending, read in place. */
#ifndef PINTLE_SCHEMAS_BATCH_H
#define PINTLE_SCHEMAS_BATCH_H

#include "base/slice.h"

struct batch_writer {
    struct buf buf;
    size_t count;
};

/* `cap`: most bytes. */
void batch_begin(struct batch_writer *w, uint64_t origin, size_t cap);
/* `command` is already encoded. ERR_LIMIT when it would not fit (nothing is added). */
int batch_add(struct batch_writer *w, uint64_t seq, struct slice command) MUST_CHECK;
/* The finished bytes, borrowed from the writer until the next begin or release. */
struct slice batch_finish(struct batch_writer *w);
void batch_release(struct batch_writer *w);

struct batch_reader {
    struct reader r;
    uint64_t origin;
    size_t left;
};

/* ERR_CORRUPT or ERR_UNSUPPORTED (a newer version). */
int batch_open(struct batch_reader *r, struct slice entry) MUST_CHECK;
/* 1 = one more, 0 = the end, ERR_CORRUPT. Bytes are borrowed from the entry. */
int batch_next(struct batch_reader *r, uint64_t *ret_seq, struct slice *ret_command) MUST_CHECK;

#endif
