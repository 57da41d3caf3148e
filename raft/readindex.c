/* Read points (thesis 6.4), by frames of our own. A round on the leader: it must have committed an
 * entry of its own term; it notes its commit index, asks the voters with PROBE(term, seq), and once
 * a majority (itself counted) has said that its term is still that one, nothing that was
 * acknowledged before the round began is beyond the noted index. Any other member asks the leader
 * with READ_INDEX and gets the index. Then all that waited for the round wait until it is applied
 * here. One round at a time; what comes meanwhile shares the next one. */
#include "base/check.h"
#include "raft/consensus_int.h"

static void run_task(struct env_task *t);

void reads_init(struct consensus *c)
{
    struct reads *s = &c->reads;
    list_init(&s->waiting);
    list_init(&s->asked);
    list_init(&s->confirmed);
    s->task.run = run_task;
    s->task.data = c;
}

void consensus_read(struct consensus *c, struct consensus_read *r)
{
    r->deadline_ms = consensus_now(c) + LIMIT_REQUEST_TIMEOUT_MS;
    r->index = 0;
    list_push_back(&c->reads.waiting, &r->node);
    c->env->ops->defer(c->env, &c->reads.task);
}

static void run_task(struct env_task *t)
{
    struct consensus *c = t->data;
    if (c->dead || c->closing) return reads_fail_all(c, ERR_CLOSED);
    if (c->started) guard_poll(&c->guard);
}

static void move_all(struct list *from, struct list *to)
{
    for (struct list *n; (n = list_pop_front(from));) list_push_back(to, n);
}

static void fail_list(struct list *from, int error)
{
    struct list now;
    list_init(&now);
    move_all(from, &now);
    for (struct list *n; (n = list_pop_front(&now));) {
        struct consensus_read *r = container_of(n, struct consensus_read, node);
        r->done(r, error);
    }
}

void reads_fail_all(struct consensus *c, int error)
{
    c->reads.round = false;
    fail_list(&c->reads.waiting, error);
    fail_list(&c->reads.asked, error);
    fail_list(&c->reads.confirmed, error);
}

/* ---- a round --------------------------------------------------------------------------------- */

static bool remote_waits(const struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        if (c->peers[i].read_waiting) return true;
    }
    return false;
}

static void confirm(struct consensus *c, uint64_t index)
{
    struct reads *s = &c->reads;
    list_for_each(node, &s->asked) container_of(node, struct consensus_read, node)->index = index;
    move_all(&s->asked, &s->confirmed);
    s->round = false;
}

static void answer_remote(struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        struct peer *p = &c->peers[i];
        if (!p->read_asked) continue;
        struct frame f = {.kind = FRAME_READ_INDEX_RESULT};
        f.read.life = p->read_life;
        f.read.seq = p->read_asked;
        f.read.index = c->reads.index;
        p->read_asked = 0;
        peers_send(c, p->id, ENV_CHANNEL_RAFT, &f);
    }
}

static void count_acks(struct consensus *c)
{
    struct reads *s = &c->reads;
    unsigned voters = 0, acks = 0;
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        if (p->learner) continue;
        voters++;
        if (p->id == c->id || p->probe_seq >= s->seq) acks++;
    }
    if (acks <= voters / 2) return;
    answer_remote(c);
    confirm(c, s->index);
}

static void send_probes(struct consensus *c)
{
    struct frame f = {.kind = FRAME_PROBE};
    f.probe.term = c->reads.term;
    f.probe.seq = c->reads.seq;
    c->reads.sent_ms = consensus_now(c);
    for (size_t i = 0; i < c->n_peers; i++) {
        const struct peer *p = &c->peers[i];
        if (p->id != c->id && !p->learner && p->probe_seq < c->reads.seq) {
            peers_send(c, p->id, ENV_CHANNEL_RAFT, &f);
        }
    }
}

static void lead_round(struct consensus *c)
{
    struct reads *s = &c->reads;
    if (!guard_may_serve(&c->guard)) return;
    if (s->term != c->raft.current_term) {
        for (size_t i = 0; i < c->n_peers; i++) c->peers[i].probe_seq = 0;
    }
    s->round = true;
    s->rounds++;
    s->seq++;
    s->term = c->raft.current_term;
    s->index = c->raft.commit_index;
    s->asked_leader = 0;
    move_all(&s->waiting, &s->asked);
    for (size_t i = 0; i < c->n_peers; i++) {
        struct peer *p = &c->peers[i];
        if (p->read_waiting) p->read_asked = p->read_waiting;
        p->read_waiting = 0;
    }
    send_probes(c);
    count_acks(c); /* a majority of one */
}

static void send_question(struct consensus *c)
{
    struct frame f = {.kind = FRAME_READ_INDEX};
    f.read.life = c->life;
    f.read.seq = c->reads.seq;
    c->reads.sent_ms = consensus_now(c);
    peers_send(c, c->reads.asked_leader, ENV_CHANNEL_RAFT, &f);
}

static void ask_leader(struct consensus *c, uint64_t leader)
{
    struct reads *s = &c->reads;
    s->round = true;
    s->seq++;
    s->term = c->raft.current_term;
    s->asked_leader = leader;
    move_all(&s->waiting, &s->asked);
    send_question(c);
}

/* The round ends with the leadership that it was begun under; what waited for it waits for the
 * next. */
static void check_round(struct consensus *c, uint64_t leader)
{
    struct reads *s = &c->reads;
    uint64_t led_by = s->asked_leader ? s->asked_leader : c->id;
    if (!s->round || (s->term == c->raft.current_term && led_by == leader)) return;
    s->round = false;
    struct list again;
    list_init(&again);
    move_all(&s->asked, &again);
    move_all(&s->waiting, &again);
    move_all(&again, &s->waiting);
}

static void refuse_remote(struct consensus *c)
{
    for (size_t i = 0; i < c->n_peers; i++) {
        struct peer *p = &c->peers[i];
        uint64_t seqs[2] = {p->read_asked, p->read_waiting};
        p->read_asked = p->read_waiting = 0;
        for (int k = 0; k < 2; k++) {
            if (!seqs[k]) continue;
            struct frame f = {.kind = FRAME_READ_INDEX_RESULT};
            f.read.life = p->read_life;
            f.read.seq = seqs[k];
            f.read.status = ERR_NO_LEADER;
            peers_send(c, p->id, ENV_CHANNEL_RAFT, &f);
        }
    }
}

static void finish_applied(struct consensus *c)
{
    struct reads *s = &c->reads;
    struct list now;
    list_init(&now);
    list_for_each(node, &s->confirmed)
    {
        if (container_of(node, struct consensus_read, node)->index > c->raft.last_applied) continue;
        list_remove(node);
        list_push_back(&now, node);
    }
    for (struct list *n; (n = list_pop_front(&now));) {
        struct consensus_read *r = container_of(n, struct consensus_read, node);
        r->done(r, 0);
    }
}

void reads_poll(struct consensus *c)
{
    struct reads *s = &c->reads;
    uint64_t leader = c->raft.state == RAFT_LEADER ? c->id : consensus_leader(c);
    check_round(c, leader);
    if (leader != c->id) refuse_remote(c);
    if (!s->round && (!list_empty(&s->waiting) || remote_waits(c))) {
        if (leader == c->id) lead_round(c);
        else if (leader) ask_leader(c, leader);
    }
    finish_applied(c);
}

/* ---- frames ---------------------------------------------------------------------------------- */

static void on_probe(struct consensus *c, const struct peer *p, const struct frame *f)
{
    /* Only a voter of that very term may say so. It need not wait for its disk: the term is there
     * already. */
    const struct peer *self = peers_find(c, c->id);
    if (f->probe.term != c->raft.current_term || c->raft.state == RAFT_LEADER || !self ||
        self->learner)
        return;
    struct frame ack = {.kind = FRAME_PROBE_ACK};
    ack.probe.term = f->probe.term;
    ack.probe.seq = f->probe.seq;
    peers_send(c, p->id, ENV_CHANNEL_RAFT, &ack);
}

static void on_probe_ack(struct consensus *c, struct peer *p, const struct frame *f)
{
    struct reads *s = &c->reads;
    if (!s->round || s->asked_leader || f->probe.term != s->term || f->probe.seq > s->seq) return;
    if (c->raft.state != RAFT_LEADER || c->raft.current_term != s->term) return;
    if (f->probe.seq <= p->probe_seq) return;
    p->probe_seq = f->probe.seq;
    count_acks(c);
    guard_poll(&c->guard);
}

static void on_question(struct consensus *c, struct peer *p, const struct frame *f)
{
    if (f->read.seq == 0) return;
    if (p->read_life != f->read.life) {
        p->read_life = f->read.life;
        p->read_asked = p->read_waiting = 0;
    }
    if (p->read_asked == f->read.seq) return; /* asked again while its round is under way */
    if (f->read.seq > p->read_waiting) p->read_waiting = f->read.seq;
    peers_want_commit(c, p);
    guard_poll(&c->guard);
}

static void on_answer(struct consensus *c, const struct peer *p, const struct frame *f)
{
    struct reads *s = &c->reads;
    if (!s->round || s->asked_leader != p->id || f->read.life != c->life || f->read.seq != s->seq)
        return;
    if (f->read.status == 0) {
        confirm(c, f->read.index);
    } else { /* it does not lead (yet, or any more): the next tick asks again */
        s->round = false;
        move_all(&s->asked, &s->waiting);
        return;
    }
    guard_poll(&c->guard);
}

void reads_frame(struct consensus *c, struct peer *p, const struct frame *f)
{
    switch (f->kind) {
    case FRAME_PROBE: on_probe(c, p, f); break;
    case FRAME_PROBE_ACK: on_probe_ack(c, p, f); break;
    case FRAME_READ_INDEX: on_question(c, p, f); break;
    case FRAME_READ_INDEX_RESULT: on_answer(c, p, f); break;
    default: break;
    }
}

/* ---- time ------------------------------------------------------------------------------------ */

static void expire(struct consensus *c, struct list *from)
{
    uint64_t now = consensus_now(c);
    struct list late;
    list_init(&late);
    list_for_each(node, from)
    {
        if (container_of(node, struct consensus_read, node)->deadline_ms > now) continue;
        list_remove(node);
        list_push_back(&late, node);
    }
    int error = consensus_leader(c) ? ERR_TIMEOUT : ERR_NO_LEADER;
    fail_list(&late, error);
}

void reads_tick(struct consensus *c)
{
    struct reads *s = &c->reads;
    expire(c, &s->waiting);
    expire(c, &s->asked);
    expire(c, &s->confirmed);
    if (!s->round || consensus_now(c) - s->sent_ms < c->heartbeat_ms) return;
    if (s->asked_leader) return send_question(c); /* lost on the way */
    send_probes(c);
    /* Whose answer was waited for may be no voter any more. */
    if (s->term == c->raft.current_term && guard_may_serve(&c->guard)) count_acks(c);
}
