/* MessagePack as our own formats use it: written by appending to a buf, read in place. A reader
 * that has failed returns zeros, so callers check `failed` once, at the end.
 *
 * Why not msgpack-c's unpacker: it builds a tree and takes array sizes on trust; a log entry is
 * decoded for each applied command, and its bytes may be damaged. Format: the msgpack spec. */
#ifndef PINTLE_SCHEMAS_MP_INT_H
#define PINTLE_SCHEMAS_MP_INT_H

#include "base/slice.h"

void mp_write_uint(struct buf *out, uint64_t v);
void mp_write_int(struct buf *out, int64_t v);
void mp_write_bin(struct buf *out, struct slice s);
void mp_write_array(struct buf *out, uint32_t count);

uint64_t mp_read_uint(struct reader *r);
int64_t mp_read_int(struct reader *r);
/* Borrowed from the input. */
struct slice mp_read_bin(struct reader *r);
/* An element needs a byte at least, so a count beyond what is left is a failure. */
uint32_t mp_read_array(struct reader *r);
/* Skips `count` values of any type. */
void mp_skip(struct reader *r, uint32_t count);

#endif
