/* Proposals and their fate. On the leader they go into libraft's log; anywhere else they are sent
 * to the leader, once, marked with the term in which it is believed to lead: it accepts them in
 * that term only. So an entry that was proposed in term T can only be in the log at term T, and
 * once an entry of a later term has been applied here, what is still pending of term T is lost for
 * certain. Until then, or until the deadline, its fate is open.
 *
 * An entry carries its origin: the member, a number for that member's present life, and the
 * caller's tag. */
#include "base/check.h"
#include "base/mem.h"
#include "raft/consensus_int.h"

void proposals_init(struct consensus *c)
{
    list_init(&c->proposals.pending);
    list_init(&c->proposals.inbox);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static void put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static struct raft_buffer encode_entry(uint64_t origin, uint64_t life, uint64_t tag,
                                       struct slice payload)
{
    struct raft_buffer b = {.len = CONSENSUS_ENTRY_HEAD + payload.len};
    uint8_t *p = b.base = raft_malloc(b.len);
    p[0] = CONSENSUS_ENTRY_COMMAND;
    put64(p + 1, origin);
    put64(p + 9, life);
    put64(p + 17, tag);
    if (payload.len) memcpy(p + CONSENSUS_ENTRY_HEAD, payload.data, payload.len);
    return b;
}

void consensus_decode_entry(struct slice entry, uint64_t *origin, uint64_t *life, uint64_t *tag,
                            struct slice *payload)
{
    *origin = *life = *tag = 0;
    *payload = (struct slice){0};
    if (entry.len < CONSENSUS_ENTRY_HEAD || entry.data[0] != CONSENSUS_ENTRY_COMMAND) return;
    *origin = get64(entry.data + 1);
    *life = get64(entry.data + 9);
    *tag = get64(entry.data + 17);
    *payload = slice_sub(entry, CONSENSUS_ENTRY_HEAD, SIZE_MAX);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* Few entries may wait for the own disk, so that batches form behind them; and not too much for a
 * quorum. */
static bool leader_has_room(const struct consensus *c)
{
    const struct raft *r = &c->raft;
    uint64_t last = consensus_last_index(c);
    if (r->transfer) return false;
    if (last >= wal_last_index(c->wal) && last - wal_last_index(c->wal) >= c->max_appends)
        return false;
    uint64_t uncommitted = last - r->commit_index, bytes = 0;
    if (uncommitted >= CONSENSUS_UNCOMMITTED_ENTRIES) return false;
    if (uncommitted > r->log.size) return true; /* covered by a snapshot */
    for (uint64_t i = 1; i <= uncommitted; i++) {
        bytes += r->log.entries[(r->log.back + r->log.size - i) % r->log.size].buf.len;
    }
    return bytes < CONSENSUS_UNCOMMITTED_BYTES;
}

static size_t forward_limit(const struct consensus *c)
{
    return (size_t)c->max_appends * 4;
}

/* What consensus_propose would say now. */
static int can_propose(const struct consensus *c, uint64_t *ret_leader)
{
    *ret_leader = 0;
    if (c->dead || c->closing) return ERR_CLOSED;
    if (!c->started) return ERR_NO_LEADER;
    if (c->raft.state == RAFT_LEADER) {
        *ret_leader = c->id;
        if (c->guard.depth) return ERR_AGAIN; /* inside libraft: `writable` comes in this turn */
        return leader_has_room(c) ? 0 : ERR_AGAIN;
    }
    uint64_t leader = consensus_leader(c);
    if (leader == 0) return ERR_NO_LEADER;
    *ret_leader = leader;
    return c->proposals.n_forwarded < forward_limit(c) ? 0 : ERR_AGAIN;
}

/* ---- proposing ------------------------------------------------------------------------------- */

static void request_done(struct raft_apply *req, int status, void *result)
{
    (void)status, (void)result;
    mem_free(req);
}

static int append_to_log(struct consensus *c, struct raft_buffer *entry)
{
    struct raft_apply *req = mem_must_calloc(1, sizeof *req);
    c->guard.depth++;
    int rv = raft_apply(&c->raft, req, entry, 1, request_done);
    c->guard.depth--;
    if (rv == 0) return 0;
    mem_free(req);
    raft_free(entry->base);
    return rv;
}

static void add_pending(struct consensus *c, uint64_t tag)
{
    struct proposal *p = mem_must_alloc(sizeof *p);
    *p = (struct proposal){.tag = tag, .term = c->raft.current_term};
    p->deadline_ms = consensus_now(c) + LIMIT_REQUEST_TIMEOUT_MS;
    list_push_back(&c->proposals.pending, &p->node);
    c->proposals.made++;
}

static struct proposal *find_pending(struct consensus *c, uint64_t tag)
{
    list_for_each(node, &c->proposals.pending)
    {
        struct proposal *p = container_of(node, struct proposal, node);
        if (p->tag == tag) return p;
    }
    return NULL;
}

static void drop_pending(struct consensus *c, struct proposal *p)
{
    list_remove(&p->node);
    if (c->proposals.n_forwarded && p->forwarded) c->proposals.n_forwarded--;
    mem_free(p);
}

static void fail(struct consensus *c, struct proposal *p, int error)
{
    uint64_t tag = p->tag;
    drop_pending(c, p);
    c->proposals.failed++;
    c->cb.proposal_failed(c->ctx, tag, error);
}

static void forward_sent(struct out_frame *o, int status)
{
    struct consensus *c = o->c;
    uint64_t tag;
    memcpy(&tag, &o->arg, sizeof tag);
    if (!status || c->dead) return;
    struct proposal *p = find_pending(c, tag);
    /* A full queue took none of it; of a lost connection it is not known. */
    if (p && p->forwarded)
        fail(c, p, status == ERR_LIMIT ? ERR_TOO_MANY_REQUESTS : ERR_LEADER_CHANGED);
}

static void forward(struct consensus *c, uint64_t leader, struct slice entry, uint64_t tag)
{
    add_pending(c, tag);
    container_of(c->proposals.pending.prev, struct proposal, node)->forwarded = true;
    c->proposals.n_forwarded++;
    struct out_frame *o = out_new(c, leader, ENV_CHANNEL_RAFT);
    struct frame f = {.kind = FRAME_PROPOSE};
    f.propose.life = c->life;
    f.propose.seq = ++c->proposals.forward_seq;
    f.propose.term = c->raft.current_term;
    f.propose.tag = tag;
    frame_encode(&o->head, &f);
    o->payload = mem_must_alloc(entry.len);
    if (entry.len) memcpy(o->payload, entry.data, entry.len);
    out_piece(o, slice_make(o->payload, entry.len));
    o->done = forward_sent;
    memcpy(&o->arg, &tag, sizeof o->arg);
    out_send(o);
}

int consensus_propose(struct consensus *c, struct slice entry, uint64_t tag)
{
    uint64_t leader;
    CHECK(tag != 0);
    if (entry.len > CONSENSUS_ENTRY_MAX) return ERR_LIMIT;
    int rv = can_propose(c, &leader);
    if (rv == ERR_AGAIN) {
        c->proposals.want_writable = true;
        if (!c->reads.task.queued)
            c->env->ops->defer(c->env, &c->reads.task); /* a turn to look again */
    }
    if (rv) return rv;
    if (leader != c->id) {
        forward(c, leader, entry, tag);
        return 0;
    }
    struct raft_buffer b = encode_entry(c->id, c->life, tag, entry);
    if (append_to_log(c, &b)) return ERR_NO_LEADER;
    add_pending(c, tag);
    return 0;
}

/* ---- their fate ------------------------------------------------------------------------------ */

uint64_t proposals_applied(struct consensus *c, uint64_t origin, uint64_t life, uint64_t tag)
{
    if (origin != c->id || life != c->life) return 0;
    struct proposal *p = find_pending(c, tag);
    if (p) drop_pending(c, p);
    return tag;
}

/* Those of a term before the one that has been applied: they are not in the log and never will be.
 */
static void fail_overtaken(struct consensus *c)
{
    uint64_t term = guard_log_term(&c->raft, c->raft.last_applied);
    while (!list_empty(&c->proposals.pending)) {
        struct proposal *p = container_of(c->proposals.pending.next, struct proposal, node);
        if (p->term >= term) break;
        fail(c, p, ERR_NO_LEADER);
    }
}

void proposals_installed(struct consensus *c)
{
    while (!list_empty(&c->proposals.pending)) {
        fail(c, container_of(c->proposals.pending.next, struct proposal, node), ERR_LEADER_CHANGED);
    }
}

void proposals_tick(struct consensus *c)
{
    uint64_t now = consensus_now(c);
    while (!list_empty(&c->proposals.pending)) {
        struct proposal *p = container_of(c->proposals.pending.next, struct proposal, node);
        if (p->deadline_ms > now) break;
        fail(c, p, ERR_TIMEOUT);
    }
}

/* ---- on the leader: what others forward ------------------------------------------------------ */

static void refuse(struct consensus *c, uint64_t origin, uint64_t life, uint64_t tag, int error)
{
    struct frame f = {.kind = FRAME_PROPOSE_REFUSED};
    f.propose.life = life;
    f.propose.tag = tag;
    f.propose.status = error;
    peers_send(c, origin, ENV_CHANNEL_RAFT, &f);
}

/* Each once, whatever the network does: a window of the last 64 numbers of the peer's present life.
 */
static bool seen_before(struct peer *p, uint64_t life, uint64_t seq)
{
    if (p->propose_life != life) {
        p->propose_life = life;
        p->propose_seq = seq;
        p->propose_window = 1;
        return false;
    }
    if (seq > p->propose_seq) {
        uint64_t ahead = seq - p->propose_seq;
        p->propose_window = ahead < 64 ? p->propose_window << ahead | 1 : 1;
        p->propose_seq = seq;
        return false;
    }
    uint64_t behind = p->propose_seq - seq;
    if (behind >= 64 || (p->propose_window >> behind & 1)) return true;
    p->propose_window |= (uint64_t)1 << behind;
    return false;
}

static void on_propose(struct consensus *c, struct peer *p, const struct frame *f)
{
    if (seen_before(p, f->propose.life, f->propose.seq)) return;
    peers_want_commit(c, p);
    struct proposals *s = &c->proposals;
    int error = 0;
    if (c->raft.state != RAFT_LEADER || f->propose.term != c->raft.current_term ||
        c->raft.transfer) {
        error = ERR_NO_LEADER;
    } else if (s->n_inbox >= CONSENSUS_INBOX_ENTRIES ||
               s->inbox_bytes + f->propose.entry.len > CONSENSUS_UNCOMMITTED_BYTES) {
        error = ERR_TOO_MANY_REQUESTS;
    } else if (f->propose.entry.len > CONSENSUS_ENTRY_MAX) {
        error = ERR_LIMIT;
    }
    if (error) return refuse(c, p->id, f->propose.life, f->propose.tag, error);
    struct inbound *in = mem_must_calloc(1, sizeof *in);
    in->origin = p->id;
    in->life = f->propose.life;
    in->tag = f->propose.tag;
    in->term = f->propose.term;
    in->entry = encode_entry(p->id, in->life, in->tag, f->propose.entry);
    list_push_back(&s->inbox, &in->node);
    s->n_inbox++;
    s->inbox_bytes += in->entry.len;
    guard_poll(&c->guard);
}

static void drop_inbound(struct consensus *c, struct inbound *in)
{
    list_remove(&in->node);
    c->proposals.n_inbox--;
    c->proposals.inbox_bytes -= in->entry.len;
    mem_free(in);
}

static void drain_inbox(struct consensus *c)
{
    while (!list_empty(&c->proposals.inbox)) {
        struct inbound *in = container_of(c->proposals.inbox.next, struct inbound, node);
        bool still = c->raft.state == RAFT_LEADER && c->raft.current_term == in->term;
        if (still && !leader_has_room(c)) {
            if (!c->raft.transfer) return;
            still = false;
        }
        int rv = still ? append_to_log(c, &in->entry) : RAFT_NOTLEADER;
        if (!still) raft_free(in->entry.base);
        if (rv) refuse(c, in->origin, in->life, in->tag, ERR_NO_LEADER);
        drop_inbound(c, in);
    }
}

static void on_refused(struct consensus *c, const struct frame *f)
{
    if (f->propose.life != c->life) return;
    struct proposal *p = find_pending(c, f->propose.tag);
    if (p && p->forwarded) {
        bool known =
            f->propose.status == ERR_NO_LEADER || f->propose.status == ERR_TOO_MANY_REQUESTS;
        fail(c, p, known ? f->propose.status : ERR_TOO_MANY_REQUESTS);
    }
}

void proposals_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    if (f->kind == FRAME_PROPOSE) on_propose(c, p, f);
    else on_refused(c, f);
}

void proposals_poll(struct consensus *c)
{
    fail_overtaken(c);
    drain_inbox(c);
    uint64_t leader;
    if (!c->proposals.want_writable || can_propose(c, &leader) == ERR_AGAIN) return;
    c->proposals.want_writable = false;
    c->cb.writable(c->ctx);
}

void proposals_release(struct consensus *c)
{
    for (struct list *n; (n = list_pop_front(&c->proposals.pending));) {
        mem_free(container_of(n, struct proposal, node));
    }
    for (struct list *n; (n = list_pop_front(&c->proposals.inbox));) {
        struct inbound *in = container_of(n, struct inbound, node);
        raft_free(in->entry.base);
        mem_free(in);
    }
}
