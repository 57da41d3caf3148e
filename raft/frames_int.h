/* What members say to each other: every frame on the wire, its encoder, and the one decoder.
 *
 * Sans-I/O: bytes in, a struct that borrows from them out. The decoder trusts nothing: lengths,
 * counts, kinds, flags, term order inside an append and configurations inside entries are all
 * checked, because libraft (built without asserts) believes what it is given. docs/formats-raft.md
 * has the layouts. */
#ifndef PINTLE_RAFT_FRAMES_INT_H
#define PINTLE_RAFT_FRAMES_INT_H

#include <raft.h>

#include "base/slice.h"

enum frame_kind {
    FRAME_APPEND = 1,
    FRAME_APPEND_RESULT,
    FRAME_VOTE,
    FRAME_VOTE_RESULT,
    FRAME_TIMEOUT_NOW,
    FRAME_PROBE,
    FRAME_PROBE_ACK,
    FRAME_READ_INDEX,
    FRAME_READ_INDEX_RESULT,
    FRAME_PROPOSE,
    FRAME_PROPOSE_REFUSED,
    FRAME_MESSAGE,
    FRAME_HELLO, /* heal.c */
    FRAME_KNOWN,
    FRAME_MEMBERS,
    FRAME_SNAPSHOT_OFFER, /* from here on: ENV_CHANNEL_BULK */
    FRAME_SNAPSHOT_CHUNK,
    FRAME_SNAPSHOT_ACK,
    FRAME_SNAPSHOT_ABORT,
};

#define FRAME_VERSION 1
#define FRAME_HEAD_BYTES 4   /* version, kind, two zero bytes */
#define FRAME_ENTRY_BYTES 16 /* of an append's table: term, type, length */
#define FRAME_ENTRIES_MAX                                                                          \
    60 /* in one frame: the table and each payload are pieces of an env_send */

struct frame_append {
    uint64_t term, prev_index, prev_term, leader_commit;
    uint32_t n;
    struct slice table, data; /* n * FRAME_ENTRY_BYTES; the payloads one after the other */
};

struct frame_snapshot {
    uint64_t id;   /* the sender's, one for each stream */
    uint64_t term; /* the sender's current term */
    uint64_t index, index_term, size;
    uint64_t offset; /* CHUNK: of `data`; ACK: all before it is in the receiver's hands */
    int32_t status;  /* ACK: 0, or 1 = the receiver needs nothing more; ABORT: why, an ERR_ code */
    struct slice data;
};

struct frame {
    enum frame_kind kind;
    union {
        struct frame_append append;
        struct raft_append_entries_result append_result;
        struct raft_request_vote vote;
        struct raft_request_vote_result vote_result;
        struct raft_timeout_now timeout_now;
        struct {
            uint64_t term, seq;
        } probe; /* and its ack */
        struct {
            uint64_t life, seq, index;
            int32_t status;
        } read; /* READ_INDEX (life, seq) and its result */
        struct {
            uint64_t life, seq, term, tag;
            int32_t status;
            struct slice entry;
        } propose; /* and its refusal (life, tag, status) */
        struct {
            uint64_t life, boots, term, applied;
            bool recovering;
        } hello;
        struct {
            uint64_t to_life;             /* whose HELLO it answers */
            uint64_t boots, life;         /* the newest start of the receiver that is known */
            uint64_t term, applied;       /* the highest of its lives before that */
            uint64_t own_term;            /* the sender's */
            uint64_t leader_term, leader_last; /* 0, or the sender leads, and its log ends there */
        } known;
        struct {
            uint64_t index;
            struct slice configuration; /* the committed one, as libraft encodes it */
        } members;
        struct slice message;
        struct frame_snapshot snapshot;
    };
};

/* ERR_CORRUPT with a reason in `e`. `ret` borrows from `bytes`. */
int frame_decode(struct slice bytes, struct frame *ret, struct err *e) MUST_CHECK;
/* One entry of an append's table that frame_decode has accepted; `at` walks through the payloads.
 */
struct raft_entry frame_append_entry(const struct frame_append *a, uint32_t i, size_t *at);

/* Appends the frame to `out`; for APPEND without its payloads, for PROPOSE, MESSAGE and CHUNK
 * without theirs: these follow as pieces of their own. */
void frame_encode(struct buf *out, const struct frame *f);
/* An append's head and table from entries. */
void frame_encode_append(struct buf *out, const struct frame_append *a,
                         const struct raft_entry *entries);

const char *frame_kind_name(unsigned kind);

/* A configuration as libraft encodes it, checked within its bounds, which libraft's own decoder
 * does not do. */
bool frame_configuration_ok(struct slice bytes);

#endif
