/* Frames in words, for a trace that a person can follow. */
#include <inttypes.h>
#include <stdio.h>

#include "harness.h"
#include "raft/frames_int.h"

static void say_append(const struct frame_append *a, char *out, size_t size)
{
    if (a->n == 0) {
        snprintf(out, size, "I lead term %" PRIu64 ", log up to %" PRIu64 " (term %" PRIu64 "), committed %" PRIu64,
                 a->term, a->prev_index, a->prev_term, a->leader_commit);
        return;
    }
    size_t at = 0;
    struct raft_entry first = frame_append_entry(a, 0, &at);
    snprintf(out, size,
             "term %" PRIu64 ": append %" PRIu64 "..%" PRIu64 " (of term %llu on) behind %" PRIu64
             " (term %" PRIu64 "), committed %" PRIu64,
             a->term, a->prev_index + 1, a->prev_index + a->n, first.term, a->prev_index, a->prev_term,
             a->leader_commit);
}

static void say_snapshot(const struct frame *f, char *out, size_t size)
{
    const struct frame_snapshot *s = &f->snapshot;
    if (f->kind == FRAME_SNAPSHOT_OFFER)
        snprintf(out, size, "offers a snapshot of index %" PRIu64 " term %" PRIu64 ", %" PRIu64 " bytes",
                 s->index, s->index_term, s->size);
    else if (f->kind == FRAME_SNAPSHOT_CHUNK)
        snprintf(out, size, "snapshot: %zu bytes at %" PRIu64, s->data.len, s->offset);
    else if (f->kind == FRAME_SNAPSHOT_ACK)
        snprintf(out, size, "snapshot: has all before %" PRIu64 "%s", s->offset,
                 s->status ? ", needs no more" : "");
    else snprintf(out, size, "snapshot: given up: %s", err_name(s->status));
}

static void say_vote(const struct raft_request_vote *v, char *out, size_t size)
{
    snprintf(out, size, "%s me in term %llu, my log ends at %llu (term %llu)%s",
             v->pre_vote ? "would you vote for" : "vote for", v->term, v->last_log_index, v->last_log_term,
             v->disrupt_leader ? ", the leader wants it" : "");
}

bool story_frame(struct slice bytes, char *out, size_t size)
{
    struct frame f;
    struct err e = {{0}};
    if (frame_decode(bytes, &f, &e) != 0) {
        snprintf(out, size, "%zu bytes that do not decode: %s", bytes.len, e.text);
        return true;
    }
    switch (f.kind) {
    case FRAME_APPEND: say_append(&f.append, out, size); break;
    case FRAME_APPEND_RESULT:
        snprintf(out, size, "term %llu: %s, log up to %llu", f.append_result.term,
                 f.append_result.rejected ? "REFUSED" : "has it", f.append_result.last_log_index);
        break;
    case FRAME_VOTE: say_vote(&f.vote, out, size); break;
    case FRAME_VOTE_RESULT:
        snprintf(out, size, "term %llu: %s", f.vote_result.term,
                 f.vote_result.vote_granted ? "votes for you" : "does not vote for you");
        break;
    case FRAME_TIMEOUT_NOW:
        snprintf(out, size, "term %llu: stand for election now (log up to %llu)", f.timeout_now.term,
                 f.timeout_now.last_log_index);
        break;
    case FRAME_PROBE:
        snprintf(out, size, "do I still lead term %" PRIu64 "? (read round %" PRIu64 ")", f.probe.term,
                 f.probe.seq);
        break;
    case FRAME_PROBE_ACK:
        snprintf(out, size, "you lead term %" PRIu64 " (read round %" PRIu64 ")", f.probe.term, f.probe.seq);
        break;
    case FRAME_READ_INDEX: snprintf(out, size, "asks for a read point (%" PRIu64 ")", f.read.seq); break;
    case FRAME_READ_INDEX_RESULT:
        snprintf(out, size, "read point %" PRIu64 ": index %" PRIu64 "%s%s", f.read.seq, f.read.index,
                 f.read.status ? " " : "", f.read.status ? err_name(f.read.status) : "");
        break;
    case FRAME_PROPOSE:
        snprintf(out, size, "proposes %zu bytes (its number %" PRIu64 ", for term %" PRIu64 ")",
                 f.propose.entry.len, f.propose.tag, f.propose.term);
        break;
    case FRAME_PROPOSE_REFUSED:
        snprintf(out, size, "refuses proposal %" PRIu64 ": %s", f.propose.tag, err_name(f.propose.status));
        break;
    case FRAME_SNAPSHOT_OFFER:
    case FRAME_SNAPSHOT_CHUNK:
    case FRAME_SNAPSHOT_ACK:
    case FRAME_SNAPSHOT_ABORT: say_snapshot(&f, out, size); break;
    default: snprintf(out, size, "%s", frame_kind_name(f.kind)); break;
    }
    return true;
}
