/* The codec of peer frames: a head of four bytes, then fixed little-endian fields, then at most one
 * run of bytes that goes to the end of the frame. */
#include "raft/frames_int.h"

#include "base/limits.h"

#define VOTE_DISRUPT 1u
#define VOTE_PRE 2u
#define VOTE_GRANTED 4u
#define VOTE_PRE_KNOWN 8u

const char *frame_kind_name(unsigned kind)
{
    static const char *const names[] = {
        "?",
        "append",
        "append-result",
        "vote",
        "vote-result",
        "timeout-now",
        "probe",
        "probe-ack",
        "read-index",
        "read-index-result",
        "propose",
        "propose-refused",
        "message",
        "hello",
        "known",
        "members",
        "snapshot-offer",
        "snapshot-chunk",
        "snapshot-ack",
        "snapshot-abort",
    };
    return kind < sizeof names / sizeof *names ? names[kind] : names[0];
}

/* ---- encoding -------------------------------------------------------------------------------- */

static void put_head(struct buf *out, enum frame_kind kind)
{
    uint8_t head[FRAME_HEAD_BYTES] = {FRAME_VERSION, (uint8_t)kind, 0, 0};
    (void)buf_append(out, head, sizeof head);
}

static void put_u64s(struct buf *out, size_t n, const uint64_t *v)
{
    for (size_t i = 0; i < n; i++) (void)buf_append_u64(out, v[i]);
}

#define PUT(out, ...)                                                                              \
    put_u64s((out), sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), (uint64_t[]){__VA_ARGS__})

void frame_encode_append(struct buf *out, const struct frame_append *a,
                         const struct raft_entry *entries)
{
    put_head(out, FRAME_APPEND);
    PUT(out, a->term, a->prev_index, a->prev_term, a->leader_commit);
    (void)buf_append_u32(out, a->n);
    for (uint32_t i = 0; i < a->n; i++) {
        (void)buf_append_u64(out, entries[i].term);
        (void)buf_append_u32(out, entries[i].type);
        (void)buf_append_u32(out, (uint32_t)entries[i].buf.len);
    }
}

static void put_snapshot(struct buf *out, const struct frame *f)
{
    const struct frame_snapshot *s = &f->snapshot;
    PUT(out, s->id, s->term, s->index, s->index_term, s->size, s->offset);
    (void)buf_append_u32(out, (uint32_t)s->status);
}

static void put_vote(struct buf *out, const struct raft_request_vote *v)
{
    PUT(out, v->term, v->candidate_id, v->last_log_index, v->last_log_term);
    (void)buf_append_u32(out,
                         (v->disrupt_leader ? VOTE_DISRUPT : 0) | (v->pre_vote ? VOTE_PRE : 0));
}

static void put_vote_result(struct buf *out, const struct raft_request_vote_result *v)
{
    PUT(out, v->term);
    uint32_t pre = v->pre_vote == raft_tribool_unknown ? 0 : VOTE_PRE_KNOWN;
    if (v->pre_vote == raft_tribool_true) pre |= VOTE_PRE;
    (void)buf_append_u32(out, pre | (v->vote_granted ? VOTE_GRANTED : 0));
}

void frame_encode(struct buf *out, const struct frame *f)
{
    if (f->kind == FRAME_APPEND) return frame_encode_append(out, &f->append, NULL);
    put_head(out, f->kind);
    switch (f->kind) {
    case FRAME_APPEND: break;
    case FRAME_APPEND_RESULT:
        PUT(out, f->append_result.term, f->append_result.rejected, f->append_result.last_log_index);
        break;
    case FRAME_VOTE: put_vote(out, &f->vote); break;
    case FRAME_VOTE_RESULT: put_vote_result(out, &f->vote_result); break;
    case FRAME_TIMEOUT_NOW:
        PUT(out, f->timeout_now.term, f->timeout_now.last_log_index, f->timeout_now.last_log_term);
        break;
    case FRAME_PROBE:
    case FRAME_PROBE_ACK: PUT(out, f->probe.term, f->probe.seq); break;
    case FRAME_READ_INDEX: PUT(out, f->read.life, f->read.seq); break;
    case FRAME_READ_INDEX_RESULT:
        PUT(out, f->read.life, f->read.seq, f->read.index);
        (void)buf_append_u32(out, (uint32_t)f->read.status);
        break;
    case FRAME_PROPOSE:
        PUT(out, f->propose.life, f->propose.seq, f->propose.term, f->propose.tag);
        break;
    case FRAME_PROPOSE_REFUSED:
        PUT(out, f->propose.life, f->propose.tag);
        (void)buf_append_u32(out, (uint32_t)f->propose.status);
        break;
    case FRAME_HELLO:
        PUT(out, f->hello.life, f->hello.boots, f->hello.term, f->hello.applied);
        (void)buf_append_u32(out, f->hello.recovering);
        break;
    case FRAME_KNOWN:
        PUT(out, f->known.to_life, f->known.boots, f->known.life, f->known.term, f->known.applied,
            f->known.own_term, f->known.leader_term, f->known.leader_last);
        break;
    case FRAME_MEMBERS:
        PUT(out, f->members.index);
        (void)buf_append_u32(out, (uint32_t)f->members.configuration.len);
        (void)buf_append_slice(out, f->members.configuration);
        break;
    case FRAME_MESSAGE: break;
    case FRAME_SNAPSHOT_OFFER:
    case FRAME_SNAPSHOT_CHUNK:
    case FRAME_SNAPSHOT_ACK:
    case FRAME_SNAPSHOT_ABORT: put_snapshot(out, f); break;
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

bool frame_configuration_ok(struct slice bytes)
{
    struct reader r = reader_make(bytes);
    if (reader_u8(&r) != 1) return false;
    uint64_t n = reader_u64(&r);
    if (r.failed || n == 0 || n > LIMIT_MEMBERS) return false;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t id = reader_u64(&r);
        const uint8_t *end = reader_left(&r) ? memchr(r.p, 0, reader_left(&r)) : NULL;
        if (!id || !end) return false;
        (void)reader_bytes(&r, (size_t)(end - r.p) + 1);
        if (reader_u8(&r) > RAFT_SPARE || r.failed) return false;
    }
    return reader_left(&r) < 8; /* padded to 8 bytes */
}

static uint32_t table_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t table_u64(const uint8_t *p)
{
    return (uint64_t)table_u32(p) | (uint64_t)table_u32(p + 4) << 32;
}

struct raft_entry frame_append_entry(const struct frame_append *a, uint32_t i, size_t *at)
{
    const uint8_t *p = a->table.data + (size_t)i * FRAME_ENTRY_BYTES;
    struct raft_entry e = {.term = table_u64(p), .type = (unsigned short)table_u32(p + 8)};
    e.buf.len = table_u32(p + 12);
    e.buf.base = (void *)(uintptr_t)(a->data.data + *at);
    *at += e.buf.len;
    return e;
}

static const char *check_append(const struct frame_append *a)
{
    if (a->term == 0) return "term 0";
    if ((a->prev_index == 0) != (a->prev_term == 0)) return "previous index without its term";
    if (a->prev_term > a->term) return "previous term beyond the leader's";
    uint64_t left = a->data.len, term = a->prev_term;
    size_t at = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const uint8_t *p = a->table.data + (size_t)i * FRAME_ENTRY_BYTES;
        uint32_t type = table_u32(p + 8), len = table_u32(p + 12);
        if (len > left) return "entry beyond the frame";
        if (type != RAFT_COMMAND && type != RAFT_BARRIER && type != RAFT_CHANGE)
            return "unknown type of entry";
        if (table_u64(p) < term || table_u64(p) == 0 || table_u64(p) > a->term)
            return "terms out of order";
        term = table_u64(p);
        if (type == RAFT_CHANGE && !frame_configuration_ok(slice_sub(a->data, at, len))) {
            return "malformed configuration";
        }
        left -= len;
        at += len;
    }
    return left ? "bytes behind the last entry" : NULL;
}

static const char *get_append(struct reader *r, struct frame_append *a)
{
    a->term = reader_u64(r);
    a->prev_index = reader_u64(r);
    a->prev_term = reader_u64(r);
    a->leader_commit = reader_u64(r);
    a->n = reader_u32(r);
    if (r->failed) return "too short";
    if (a->n > FRAME_ENTRIES_MAX) return "too many entries";
    a->table = reader_bytes(r, (size_t)a->n * FRAME_ENTRY_BYTES);
    if (r->failed) return "too short";
    a->data = reader_bytes(r, reader_left(r));
    if (a->prev_index > UINT64_MAX / 2) return "index out of range";
    return check_append(a);
}

static const char *get_vote(struct reader *r, struct raft_request_vote *v)
{
    *v = (struct raft_request_vote){.term = reader_u64(r)};
    v->candidate_id = reader_u64(r);
    v->last_log_index = reader_u64(r);
    v->last_log_term = reader_u64(r);
    uint32_t flags = reader_u32(r);
    v->disrupt_leader = flags & VOTE_DISRUPT;
    v->pre_vote = flags & VOTE_PRE;
    if (v->term == 0 || v->candidate_id == 0) return "no term or no candidate";
    return flags & ~(VOTE_DISRUPT | VOTE_PRE) ? "unknown flags" : NULL;
}

static const char *get_vote_result(struct reader *r, struct raft_request_vote_result *v)
{
    *v = (struct raft_request_vote_result){.term = reader_u64(r)};
    uint32_t flags = reader_u32(r);
    v->vote_granted = flags & VOTE_GRANTED;
    v->pre_vote = !(flags & VOTE_PRE_KNOWN) ? raft_tribool_unknown
                  : flags & VOTE_PRE        ? raft_tribool_true
                                            : raft_tribool_false;
    return flags & ~(VOTE_PRE | VOTE_GRANTED | VOTE_PRE_KNOWN) ? "unknown flags" : NULL;
}

static const char *get_snapshot(struct reader *r, struct frame *f)
{
    struct frame_snapshot *s = &f->snapshot;
    s->id = reader_u64(r);
    s->term = reader_u64(r);
    s->index = reader_u64(r);
    s->index_term = reader_u64(r);
    s->size = reader_u64(r);
    s->offset = reader_u64(r);
    s->status = (int32_t)reader_u32(r);
    s->data = (struct slice){0};
    if (r->failed) return "too short";
    if (f->kind != FRAME_SNAPSHOT_CHUNK) {
        if (s->offset > s->size) return "offset beyond the end";
    } else {
        s->data = reader_bytes(r, reader_left(r));
        if (s->data.len == 0 || s->data.len > LIMIT_SNAPSHOT_CHUNK_BYTES) return "size of a chunk";
        if (s->offset > s->size || s->data.len > s->size - s->offset) return "chunk beyond the end";
    }
    if (s->index == 0 || s->index_term == 0 || s->index_term > s->term) return "no index or term";
    return NULL;
}

static const char *get_hello(struct reader *r, struct frame *f)
{
    f->hello.life = reader_u64(r);
    f->hello.boots = reader_u64(r);
    f->hello.term = reader_u64(r);
    f->hello.applied = reader_u64(r);
    uint32_t recovering = reader_u32(r);
    f->hello.recovering = recovering;
    if (!r->failed && (f->hello.life == 0 || f->hello.boots == 0)) return "no life or no start";
    return recovering > 1 ? "unknown flags" : NULL;
}

static const char *get_known(struct reader *r, struct frame *f)
{
    f->known.to_life = reader_u64(r);
    f->known.boots = reader_u64(r);
    f->known.life = reader_u64(r);
    f->known.term = reader_u64(r);
    f->known.applied = reader_u64(r);
    f->known.own_term = reader_u64(r);
    f->known.leader_term = reader_u64(r);
    f->known.leader_last = reader_u64(r);
    return NULL;
}

static const char *get_body(struct reader *r, struct frame *f)
{
    switch (f->kind) {
    case FRAME_APPEND: return get_append(r, &f->append);
    case FRAME_APPEND_RESULT:
        f->append_result.term = reader_u64(r);
        f->append_result.rejected = reader_u64(r);
        f->append_result.last_log_index = reader_u64(r);
        return f->append_result.term == 0 && !r->failed ? "term 0" : NULL;
    case FRAME_VOTE: return get_vote(r, &f->vote);
    case FRAME_VOTE_RESULT: return get_vote_result(r, &f->vote_result);
    case FRAME_TIMEOUT_NOW:
        f->timeout_now.term = reader_u64(r);
        f->timeout_now.last_log_index = reader_u64(r);
        f->timeout_now.last_log_term = reader_u64(r);
        return NULL;
    case FRAME_PROBE:
    case FRAME_PROBE_ACK:
        f->probe.term = reader_u64(r);
        f->probe.seq = reader_u64(r);
        return NULL;
    case FRAME_READ_INDEX:
    case FRAME_READ_INDEX_RESULT:
        f->read.life = reader_u64(r);
        f->read.seq = reader_u64(r);
        if (f->kind == FRAME_READ_INDEX) return NULL;
        f->read.index = reader_u64(r);
        f->read.status = (int32_t)reader_u32(r);
        return NULL;
    case FRAME_PROPOSE:
        f->propose.life = reader_u64(r);
        f->propose.seq = reader_u64(r);
        f->propose.term = reader_u64(r);
        f->propose.tag = reader_u64(r);
        f->propose.entry = reader_bytes(r, reader_left(r));
        return f->propose.tag == 0 && !r->failed ? "tag 0" : NULL;
    case FRAME_PROPOSE_REFUSED:
        f->propose.life = reader_u64(r);
        f->propose.tag = reader_u64(r);
        f->propose.status = (int32_t)reader_u32(r);
        return f->propose.status >= 0 && !r->failed ? "refused without an error" : NULL;
    case FRAME_HELLO: return get_hello(r, f);
    case FRAME_KNOWN: return get_known(r, f);
    case FRAME_MEMBERS:
        f->members.index = reader_u64(r);
        f->members.configuration = reader_bytes(r, reader_u32(r));
        return frame_configuration_ok(f->members.configuration) ? NULL : "malformed configuration";
    case FRAME_MESSAGE: f->message = reader_bytes(r, reader_left(r)); return NULL;
    case FRAME_SNAPSHOT_OFFER:
    case FRAME_SNAPSHOT_CHUNK:
    case FRAME_SNAPSHOT_ACK:
    case FRAME_SNAPSHOT_ABORT: return get_snapshot(r, f);
    }
    return "unknown kind";
}

int frame_decode(struct slice bytes, struct frame *ret, struct err *e)
{
    struct reader r = reader_make(bytes);
    unsigned version = reader_u8(&r), kind = reader_u8(&r), zero1 = reader_u8(&r),
             zero2 = reader_u8(&r);
    if (r.failed) return err_set(e, ERR_CORRUPT, "frame of %zu bytes: too short", bytes.len);
    if (version != FRAME_VERSION) return err_set(e, ERR_CORRUPT, "frame of version %u", version);
    if (zero1 || zero2) return err_set(e, ERR_CORRUPT, "frame with reserved bytes set");
    struct frame f = {.kind = (enum frame_kind)kind};
    const char *why = get_body(&r, &f);
    if (!why && r.failed) why = "too short";
    if (!why && reader_left(&r)) why = "bytes behind the end";
    if (why)
        return err_set(e, ERR_CORRUPT, "%s frame of %zu bytes: %s", frame_kind_name(kind),
                       bytes.len, why);
    *ret = f;
    return 0;
}
