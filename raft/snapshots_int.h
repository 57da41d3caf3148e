/* What snapshots.c (taking, opening), snapinstall.c (receiving, installing) and snapsend.c
 * (sending) share. libraft sees only tickets: which snapshot, never its bytes. */
#ifndef PINTLE_RAFT_SNAPSHOTS_INT_H
#define PINTLE_RAFT_SNAPSHOTS_INT_H

#include "raft/consensus_int.h"

#define SNAP_DIR "snap"
#define SNAP_TAKING "snap/taking.tmp"
#define SNAP_RECEIVED "snap/received.tmp"
#define SNAP_DAMAGED "snap/damaged"
#define SNAP_PATH_BYTES 64
#define RESTORED_INDEX 2u /* of the snapshot that a restored folder begins with; restore.c says why */
#define RESTORED_TERM 1u
#define SNAP_CHUNK_BYTES (256 * LIMIT_KiB)
#define SNAP_WINDOW_BYTES (4 * SNAP_CHUNK_BYTES) /* sent and not yet acknowledged */
#define SNAP_KEEP 2u
#define SNAP_OFFER_AGAIN_MS 300u /* nobody answered */
#define SNAP_STALLED_MS 1000u    /* no progress: offer it again, from where the receiver is */
#define SNAP_GIVE_UP_MS 30000u
#define SNAP_SENDERS_MAX LIMIT_MEMBERS

struct snap_info {
    uint64_t index, term, configuration_index, size;
    struct buf configuration;
    char path[SNAP_PATH_BYTES];
};

/* What libraft carries about in the place of the data; flat. */
struct snap_ticket {
    uint64_t index, term;
};

/* Cutting one from the state machine, a slice for each write. */
struct snap_taking {
    bool active, cancelled;
    void *handle; /* of the callbacks */
    struct snap_info info;
    struct snapfile_encoder encoder;
    struct buf raw, out;
    struct env_file *file;
    struct env_io io;
    bool ended;
    uint64_t log_bytes; /* applied when it was cut */
    struct raft_io_snapshot_put *req;
    raft_io_snapshot_put_cb cb;
};

struct snap_chunk {
    struct list node;
    size_t len;
    uint8_t data[];
};

/* Taking one in from the leader. */
struct snap_receiving {
    enum {
        RECV_NONE,
        RECV_OPENING,
        RECV_WRITING,
        RECV_SYNCING,
        RECV_CHECKING, /* read back, every checksum looked at, fed to the state machine */
        RECV_READY,    /* handed to libraft */
        RECV_RENAMING, /* libraft has taken it: from here on it must succeed */
        RECV_RESETTING,
        RECV_DROPPING,
    } state;
    bool drop; /* once what is under way is done */
    uint64_t peer_id, id, term, index, index_term, size;
    uint64_t queued, written, progress_ms;
    struct list chunks; /* struct snap_chunk */
    struct env_file *file;
    struct env_io io;
    bool io_busy;
    struct snapfile_decoder decoder;
    bool decoding;
    uint8_t *buffer;
    void *restore; /* of the callbacks */
    struct snap_info info;
    struct wal_append reset;
    struct raft_buffer *bufs;
    struct raft_io_snapshot_put *req;
    raft_io_snapshot_put_cb cb;
};

struct snap_waiter {
    struct raft_io_send *req;
    raft_io_send_cb cb;
    struct list node;
};

/* Sending one to a peer. */
struct snap_sender {
    struct consensus *c;
    struct list node;
    uint64_t peer_id, id, term;
    uint64_t index, index_term, size;
    char path[SNAP_PATH_BYTES];
    struct env_file *file;
    struct env_io io;
    bool io_busy, offered, answered, streaming, received, stop;
    uint64_t read, acked, progress_ms, offer_ms;
    uint8_t *buffer;
    struct list waiters;
};

struct snapshots {
    struct consensus *c;
    struct snap_info newest, older; /* index 0 = none */
    uint64_t log_bytes;             /* of entries applied since the newest */
    bool asked;                     /* take one at the next entry */
    struct snap_taking taking;
    struct snap_receiving receiving;
    struct list senders;
    struct env_io unlink_io;
    char unlink_path[SNAP_PATH_BYTES];
    bool unlinking;
    struct list doomed; /* files to remove */
    uint64_t next_stream_id, taken, sent, installed;
};

/* One operation of the bulk lane; path, file, offset and bytes are in it already. */
void bulk_io(struct consensus *c, struct env_io *io, enum env_io_op op, void (*done)(struct env_io *io), void *data);
void snap_path(char out[SNAP_PATH_BYTES], uint64_t index, uint64_t term);
void snap_info_release(struct snap_info *i);
/* A new newest: the third newest goes. Takes what `i` owns. */
void snap_remember(struct consensus *c, struct snap_info *i);
void snap_unlink(struct consensus *c, const char *path);
/* Whether the file is one of the two that are kept. */
bool snap_kept(const struct consensus *c, const char *path);
/* As libraft wants it: configuration, one buffer with the ticket. NULL if the configuration does
 * not decode. */
struct raft_snapshot *snap_for_raft(const struct snap_info *i);
/* How many entries up to `index`, that of a snapshot, stay in the log for slow followers. */
unsigned snap_trailing_entries(const struct consensus *c, uint64_t index);
/* Gives back log memory and segments behind a snapshot. */
void snap_trim_log(struct consensus *c);

/* snapinstall.c */
int install_put(struct consensus *c, struct raft_io_snapshot_put *req,
                const struct raft_snapshot *s, raft_io_snapshot_put_cb cb);
int install_restore(struct consensus *c, const struct snap_ticket *t);
void install_poll(struct consensus *c);
void install_tick(struct consensus *c);
void install_frame(struct consensus *c, struct peer *p, const struct frame *f);
void install_cancel(struct consensus *c);
void install_release(struct consensus *c);
/* snapsend.c */
void sender_frame(struct consensus *c, struct peer *p, const struct frame *f);
void sender_cancel(struct consensus *c);
void sender_release(struct consensus *c);

#endif
