/* Maintenance/Snapshot: the store's snapshot stream, padded and followed by its SHA-256
 * (docs/formats-snapshot.md), in messages of at most 32 KiB as etcd's. The next piece is asked for
 * when the client has taken the last ones, so a slow client holds one piece, and a snapshot that
 * the core keeps open at its revision: not for ever. */
#include "api/etcd/snapshot.h"

#include "base/limits.h"
#include "schemas/etcd/rpc.pb-c.h"

#define MESSAGE_BYTES (32 * LIMIT_KiB)
#define BLOCK                                                                                      \
    512 /* clients tell that a checksum is there by a size that is 32 beyond a multiple of this */
#define DIGEST_BYTES 32

static void ask(struct grpc_call *c, struct snapshot_call *sc, enum core_request_type type);

/* ---- sending -----------------------------------------------------------------------------------
 */

static void unref_blob(void *owner)
{
    blob_unref(owner);
}

/* One SnapshotResponse; `owner` NULL: the bytes are copied. */
static void send_message(struct grpc_call *c, struct slice bytes, uint64_t remaining,
                         struct blob *owner)
{
    uint8_t head[32], *p = pb_put_uint(head, 2, remaining);
    p = pb_put_len(p, 3, bytes.len);
    struct grpc_piece pieces[2] = {{.data = {head, (size_t)(p - head)}}, {.data = bytes}};
    if (owner) {
        pieces[1].owner = blob_ref(owner);
        pieces[1].release = unref_blob;
    }
    grpc_send(c, pieces, 2);
}

/* What is left after the bytes sent so far; never 0 before the end. */
static uint64_t remaining(const struct snapshot_call *sc)
{
    return sc->sent < sc->expected ? sc->expected - sc->sent : 1;
}

static void send_piece(struct grpc_call *c, struct snapshot_call *sc, struct blob *piece)
{
    struct slice left = blob_slice(piece);
    EVP_DigestUpdate(sc->digest, left.data, left.len);
    while (left.len > 0) {
        struct slice part = slice_sub(left, 0, MESSAGE_BYTES);
        left = slice_sub(left, part.len, SIZE_MAX);
        sc->sent += part.len;
        send_message(c, part, remaining(sc), piece);
    }
}

/* The padding, which ends with the length of the stream, then the digest. */
static void send_end(struct grpc_call *c, struct snapshot_call *sc)
{
    uint8_t pad[2 * BLOCK] = {0}, digest[DIGEST_BYTES];
    size_t len = BLOCK - (size_t)((sc->sent + 8) % BLOCK) + 8;
    for (size_t i = 0; i < 8; i++) pad[len - 8 + i] = (uint8_t)(sc->sent >> (8 * i));
    EVP_DigestUpdate(sc->digest, pad, len);
    EVP_DigestFinal_ex(sc->digest, digest, NULL);
    send_message(c, slice_make(pad, len), DIGEST_BYTES, NULL);
    send_message(c, slice_make(digest, sizeof(digest)), 0, NULL);
    grpc_finish(c, GRPC_OK, NULL);
}

/* ---- the core's answers ------------------------------------------------------------------------
 */

static void end(struct grpc_call *c, struct snapshot_call *sc)
{
    EVP_MD_CTX_free(sc->digest);
    sc->digest = NULL;
    if (sc->snapshot) ask(c, sc, CORE_SNAPSHOT_CLOSE);
    sc->snapshot = NULL;
}

static void on_answer(struct core_request *r)
{
    struct snapshot_call *sc = r->data;
    struct grpc_call *c = grpc_call_of(sc);
    enum core_request_type type = r->type;
    struct core_request got = *r;
    sc->asking = false;
    if (type == CORE_SNAPSHOT_OPEN && got.code == 0) {
        sc->snapshot = got.snapshot;
        sc->expected = (uint64_t)got.snapshot_size;
    }
    if (type != CORE_SNAPSHOT_CLOSE && got.code != 0) etcd_fail(c, got.code);
    if (type == CORE_SNAPSHOT_NEXT && got.code == 0 && !grpc_done(c)) {
        if (got.piece) send_piece(c, sc, got.piece);
        if (got.done_all) send_end(c, sc);
    }
    core_request_release(&got);
    if (type == CORE_SNAPSHOT_CLOSE) {
        /* the last one */
    } else if (grpc_done(c)) {
        end(c, sc);
    } else if (grpc_writable(c)) {
        ask(c, sc, CORE_SNAPSHOT_NEXT);
    }
    grpc_unref(c);
}

static void ask(struct grpc_call *c, struct snapshot_call *sc, enum core_request_type type)
{
    const struct etcd_api *api = grpc_ctx(c);
    sc->r = (struct core_request){
        .type = type, .done = on_answer, .data = sc, .snapshot = sc->snapshot};
    sc->asking = true;
    grpc_ref(c);
    core_client_submit(api->core, &sc->r);
}

void etcd_snapshot_message(struct grpc_call *c, struct slice message)
{
    struct snapshot_call *sc = grpc_state(c);
    Etcdserverpb__SnapshotRequest *m =
        etcd_unpack(c, &etcdserverpb__snapshot_request__descriptor, message);
    if (!m) return;
    etcd_unpacked_free(m);
    sc->digest = EVP_MD_CTX_new();
    if (!sc->digest || EVP_DigestInit_ex(sc->digest, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(sc->digest);
        sc->digest = NULL;
        etcd_fail(c, ERR_NOMEM);
        return;
    }
    grpc_set_write_timeout(c, LIMIT_HTTP_STREAM_STALL_MS);
    ask(c, sc, CORE_SNAPSHOT_OPEN);
}

void etcd_snapshot_writable(struct grpc_call *c)
{
    struct snapshot_call *sc = grpc_state(c);
    if (sc->snapshot && !sc->asking && !grpc_done(c)) ask(c, sc, CORE_SNAPSHOT_NEXT);
}

void etcd_snapshot_closed(struct grpc_call *c, int error)
{
    struct snapshot_call *sc = grpc_state(c);
    (void)error;
    if (!sc->asking) end(c, sc);
}
