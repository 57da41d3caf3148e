/* The clocks of leases. The store knows which leases there are; only the leader knows how long each still has, by its own
 * monotonic clock, and proposes the revocation of those that ran out. A new leader gives every lease its whole TTL again (or
 * what the last checkpoint left of it), so a lease may live longer than its TTL through a change of leader, but never less: as in
 * etcd, a renewal takes back what a checkpoint has said, and is answered once that is in the log.
 *
 * Renewals are not in the log: they go to the leader, by a message of [kind, id, lease, ...] where another member was asked. */
#include "api/core/core_int.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#define LEASE_REVOKES_PER_TICK 100         /* etcd: 1000 a second */
#define LEASE_REVOKE_RETRY_MS 3000
#define LEASE_CHECKPOINT_PERIOD_MS 300000  /* etcd's --experimental-enable-lease-checkpoint interval */
#define LEASE_CHECKPOINTS_AT_ONCE 1000

struct core_lease {
    int64_t id, ttl;
    uint64_t expiry_ms;
    uint64_t checkpoint; /* the number of this leader's last one that speaks of it and was not taken back; 0 = none */
    struct lease_ending *ending; /* it has run out, and that is on its way into the log */
    size_t place;        /* in the heap */
};

/* The revocation of a lease that has run out. Who granted it anew must not lose that one by it: so there is one at a time, none that may
 * be in the log is followed by another, and it does not go on waiting when somebody else has revoked the lease. */
struct lease_ending {
    struct core_request r;
    struct buf command;
    struct core *core;
    struct core_lease *lease; /* NULL: gone */
};

/* ---- a heap ordered by expiry ------------------------------------------------------------------ */

static void heap_set(struct core *c, size_t i, struct core_lease *l)
{
    c->heap[i] = l;
    l->place = i;
}

static void heap_fix(struct core *c, size_t i)
{
    struct core_lease *l = c->heap[i];
    while (i > 0 && c->heap[(i - 1) / 2]->expiry_ms > l->expiry_ms) {
        heap_set(c, i, c->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= c->heap_len) break;
        if (child + 1 < c->heap_len && c->heap[child + 1]->expiry_ms < c->heap[child]->expiry_ms) child++;
        if (c->heap[child]->expiry_ms >= l->expiry_ms) break;
        heap_set(c, i, c->heap[child]);
        i = child;
    }
    heap_set(c, i, l);
}

static void heap_add(struct core *c, struct core_lease *l)
{
    if (c->heap_len == c->heap_size) {
        c->heap_size = c->heap_size ? c->heap_size * 2 : 64;
        c->heap = mem_must_realloc(c->heap, c->heap_size * sizeof(c->heap[0]));
    }
    heap_set(c, c->heap_len++, l);
    heap_fix(c, l->place);
}

static void heap_remove(struct core *c, struct core_lease *l)
{
    struct core_lease *last = c->heap[--c->heap_len];
    if (last == l) return;
    heap_set(c, l->place, last);
    heap_fix(c, last->place);
}

static void lease_set_expiry(struct core *c, struct core_lease *l, uint64_t expiry_ms)
{
    l->expiry_ms = expiry_ms;
    heap_fix(c, l->place);
}

/* ---- following the store ----------------------------------------------------------------------- */

static void lease_free(struct core_lease *l)
{
    if (l->ending) l->ending->lease = NULL;
    mem_free(l);
}

static void forget(struct core *c, int64_t id)
{
    struct core_lease *l = map_remove(&c->leases, (uint64_t)id);
    if (!l) return;
    struct lease_ending *n = l->ending;
    heap_remove(c, l);
    lease_free(l);
    if (!n || list_empty(&n->r.node)) return; /* it is proposed: what is acknowledged from now on comes behind it in the log */
    list_remove(&n->r.node);
    core_answer(c, &n->r, ERR_CANCELED);
}

static void learn(struct core *c, int64_t id)
{
    struct lease_info info;
    forget(c, id);
    if (!store_lease(c->state->store, id, &info)) return;
    struct core_lease *l = mem_must_calloc(1, sizeof(*l));
    int64_t left = info.remaining_ttl > 0 ? info.remaining_ttl : info.ttl;
    l->id = id;
    l->ttl = info.ttl;
    l->expiry_ms = core_now(c) + (uint64_t)left * 1000;
    map_put(&c->leases, (uint64_t)id, l);
    heap_add(c, l);
}

static void learn_all(struct core *c)
{
    int64_t ids[256], after = 0;
    size_t n;
    while ((n = store_leases(c->state->store, after, ids, 256)) > 0) {
        for (size_t i = 0; i < n; i++) learn(c, ids[i]);
        after = ids[n - 1];
    }
}

static void forget_all(struct core *c)
{
    for (size_t i = 0; i < c->heap_len; i++) lease_free(c->heap[i]);
    c->heap_len = 0;
    map_release(&c->leases);
}

void core_lease_changed(void *ctx, int64_t id, bool granted)
{
    struct core *c = ctx;
    if (id == 0)
        core_lease_reset(c);
    else if (granted)
        learn(c, id);
    else
        forget(c, id);
}

void core_lease_open(struct core *c)
{
    c->next_message = c->env->ops->random(c->env); /* an answer to an earlier life of this member finds nobody */
}

void core_lease_close(struct core *c)
{
    forget_all(c);
    mem_free(c->heap);
    map_release(&c->forwarded);
}

static uint64_t checkpoint_period(const struct core *c)
{
    return c->config.lease_checkpoint_ms ? c->config.lease_checkpoint_ms : LEASE_CHECKPOINT_PERIOD_MS;
}

void core_lease_reset(struct core *c)
{
    forget_all(c);
    learn_all(c);
    c->next_checkpoint_ms = core_now(c) + checkpoint_period(c);
}

/* What is committed and not applied yet may take back what a checkpoint has said. */
void core_lease_leader_changed(struct core *c)
{
    core_lease_reset(c);
    c->clocks_at = core_apply_last(c);
}

void core_lease_applied(struct core *c, uint64_t index)
{
    if (index != c->clocks_at) return;
    c->clocks_at = 0;
    core_lease_reset(c);
}

/* ---- expiry and checkpoints --------------------------------------------------------------------- */

/* Tried again only if it is not in the log. Where that is not known (ERR_TIMEOUT), it is in this leader's: it is applied, or clocks begin anew. */
static void ended(struct core_request *r)
{
    struct lease_ending *n = container_of(r, struct lease_ending, r);
    struct core_lease *l = n->lease;
    if (l) l->ending = NULL;
    if (l && r->code != ERR_TIMEOUT) lease_set_expiry(n->core, l, core_now(n->core) + LEASE_REVOKE_RETRY_MS);
    core_request_release(r);
    buf_release(&n->command);
    mem_free(n);
}

static void end_lease(struct core *c, struct core_lease *l)
{
    struct lease_ending *n = mem_must_calloc(1, sizeof(*n));
    struct command command = {.type = COMMAND_LEASE_REVOKE, .lease_revoke = {.id = l->id}};
    *n = (struct lease_ending){.core = c, .lease = l};
    l->ending = n;
    command_encode(&n->command, &command);
    n->r = (struct core_request){.type = CORE_COMMAND, .command = buf_slice(&n->command), .done = ended, .own = true, .code = ERR_NOMEM};
    n->r.timeout_ms = UINT32_MAX; /* in the queue it can wait: a time-out is consensus' */
    if (n->command.failed) ended(&n->r);
    else core_submit(c, &n->r);
}

static void revoke_expired(struct core *c, uint64_t now)
{
    for (int n = 0; n < LEASE_REVOKES_PER_TICK && c->heap_len > 0 && c->heap[0]->expiry_ms <= now; n++) {
        struct core_lease *l = c->heap[0];
        lease_set_expiry(c, l, UINT64_MAX);
        l->ttl = -1; /* it has run out: no renewal any more */
        end_lease(c, l);
    }
}

static uint64_t remaining_s(const struct core *c, const struct core_lease *l)
{
    uint64_t now = core_now(c);
    return l->ttl < 0 || l->expiry_ms <= now ? 0 : (l->expiry_ms - now + 999) / 1000;
}

static void checkpoint(struct core *c, uint64_t now)
{
    if (now < c->next_checkpoint_ms) return;
    c->next_checkpoint_ms = now + checkpoint_period(c);
    c->n_checkpoints++;
    struct lease_checkpoint *list = mem_must_calloc(LEASE_CHECKPOINTS_AT_ONCE, sizeof(*list));
    struct command command = {.type = COMMAND_LEASE_CHECKPOINT, .checkpoint = {.leases = list}};
    for (size_t i = 0; i < c->heap_len; i++) {
        struct core_lease *l = c->heap[i];
        if (l->ttl < 0 || (uint64_t)l->ttl * 1000 <= checkpoint_period(c)) continue;
        l->checkpoint = c->n_checkpoints;
        list[command.checkpoint.count++] =
            (struct lease_checkpoint){l->id, (int64_t)remaining_s(c, l)};
        if (command.checkpoint.count < LEASE_CHECKPOINTS_AT_ONCE) continue;
        core_propose_own(c, &command);
        command.checkpoint.count = 0;
    }
    if (command.checkpoint.count) core_propose_own(c, &command);
    mem_free(list);
}

static void expire_forwarded(struct core *c, uint64_t now)
{
    uint64_t late[2048];
    size_t n = 0;
    for (size_t i = 0; i < c->forwarded.size && n < sizeof(late) / sizeof(late[0]); i++) {
        const struct core_request *r = c->forwarded.slots[i].value;
        if (r && r->deadline_ms <= now) late[n++] = c->forwarded.slots[i].id;
    }
    for (size_t i = 0; i < n; i++) core_answer(c, map_remove(&c->forwarded, late[i]), ERR_TIMEOUT);
}

void core_lease_fail_forwarded(struct core *c, int error)
{
    struct map asked = c->forwarded; /* who is answered may ask again */
    size_t at = 0;
    struct core_request *r;
    c->forwarded = (struct map){0};
    while ((r = map_next(&asked, &at)) != NULL) core_answer(c, r, error);
    map_release(&asked);
}

void core_lease_tick(struct core *c)
{
    uint64_t now = core_now(c);
    expire_forwarded(c, now);
    if (!c->leader || c->clocks_at) return;
    revoke_expired(c, now);
    checkpoint(c, now);
}

/* ---- asking the leader's clock ------------------------------------------------------------------- */

enum { MESSAGE_RENEW = 1, MESSAGE_REMAINING, MESSAGE_ANSWER };

/* Who has asked, and is told once. */
typedef void (*lease_answer)(struct core *c, void *asker, int code, int64_t ttl);

static int find_lease(const struct core *c, int64_t id, struct core_lease **ret)
{
    struct core_lease *l = map_get(&c->leases, (uint64_t)id);
    if (!c->leader) return ERR_LEADER_CHANGED;
    if (!l || l->ttl < 0) return ERR_LEASE_NOT_FOUND;
    *ret = l;
    return 0;
}

static int start_clock(struct core *c, int64_t id, int64_t *ret_ttl)
{
    struct core_lease *l;
    int rv = find_lease(c, id, &l);
    if (rv != 0) return rv;
    lease_set_expiry(c, l, core_now(c) + (uint64_t)l->ttl * 1000);
    *ret_ttl = l->ttl;
    return 0;
}

/* A checkpoint on its way to be taken back. */
struct lease_clearing {
    struct core_request r;
    struct buf command;
    struct core *core;
    int64_t id;
    uint64_t checkpoint;
    lease_answer answer;
    void *asker;
};

static void renew(struct core *c, int64_t id, lease_answer answer, void *asker);

/* The clock starts once more: who asked counts from the answer on. A checkpoint that came meanwhile is taken back in its turn. */
static void cleared(struct core_request *r)
{
    struct lease_clearing *n = container_of(r, struct lease_clearing, r);
    struct core *c = n->core;
    struct core_lease *l = map_get(&c->leases, (uint64_t)n->id);
    int code = r->code;
    if (code == 0 && l && l->checkpoint == n->checkpoint) l->checkpoint = 0;
    core_request_release(r);
    if (code == 0) renew(c, n->id, n->answer, n->asker);
    else n->answer(c, n->asker, code, 0);
    buf_release(&n->command);
    mem_free(n);
}

static void clear_checkpoint(struct core *c, const struct core_lease *l, lease_answer answer, void *asker)
{
    struct lease_clearing *n = mem_must_calloc(1, sizeof(*n));
    struct lease_checkpoint none = {l->id, 0};
    struct command command = {.type = COMMAND_LEASE_CHECKPOINT, .checkpoint = {.leases = &none, .count = 1}};
    *n = (struct lease_clearing){.core = c, .id = l->id, .checkpoint = l->checkpoint, .answer = answer, .asker = asker};
    command_encode(&n->command, &command);
    n->r = (struct core_request){.type = CORE_COMMAND, .command = buf_slice(&n->command), .done = cleared, .code = ERR_NOMEM};
    if (n->command.failed) cleared(&n->r);
    else core_submit(c, &n->r);
}

static void renew(struct core *c, int64_t id, lease_answer answer, void *asker)
{
    struct lease_info info;
    struct core_lease *l;
    int64_t ttl = 0;
    int rv = start_clock(c, id, &ttl);
    bool spoken_of = rv == 0 && find_lease(c, id, &l) == 0 &&
                     (l->checkpoint || (store_lease(c->state->store, id, &info) && info.remaining_ttl > 0));
    if (spoken_of) clear_checkpoint(c, l, answer, asker);
    else answer(c, asker, rv, ttl);
}

/* What the leader says; `again` starts the clock again. */
static void ask_clock(struct core *c, int64_t id, bool again, lease_answer answer, void *asker)
{
    struct core_lease *l;
    if (again) {
        renew(c, id, answer, asker);
        return;
    }
    int rv = find_lease(c, id, &l);
    answer(c, asker, rv, rv ? 0 : (int64_t)remaining_s(c, l));
}

static void answer_request(struct core *c, void *asker, int code, int64_t ttl)
{
    struct core_request *r = asker;
    r->ttl = ttl;
    core_answer(c, r, code);
}

static int send_message(struct core *c, uint64_t to, uint8_t kind, uint64_t id, int64_t a, int64_t b)
{
    uint8_t bytes[25];
    struct buf out = {.data = bytes, .size = sizeof(bytes), .cap = sizeof(bytes)};
    buf_append_byte(&out, kind);
    buf_append_u64(&out, id);
    buf_append_u64(&out, (uint64_t)a);
    buf_append_u64(&out, (uint64_t)b);
    return consensus_message(c->consensus, to, buf_slice(&out));
}

void core_lease_ask(struct core *c, struct core_request *r)
{
    bool again = r->type == CORE_LEASE_RENEW;
    if (c->leader) {
        ask_clock(c, r->lease_id, again, answer_request, r);
        return;
    }
    if (!c->leader_id) {
        core_answer(c, r, ERR_NO_LEADER);
        return;
    }
    uint64_t id = c->next_message++;
    int rv = send_message(c, c->leader_id, again ? MESSAGE_RENEW : MESSAGE_REMAINING, id, r->lease_id, 0);
    if (rv != 0) {
        core_answer(c, r, ERR_NO_LEADER);
        return;
    }
    map_put(&c->forwarded, id, r);
}

/* What another member asked; the leader answers once a majority has confirmed that it still leads: one that was
 * deposed without knowing must not promise a lease time that its successor does not know of. */
struct lease_question {
    struct core_request r; /* a read point */
    struct core *core;
    uint64_t from_id, id;
    int64_t lease;
    uint8_t kind;
};

static void answer_question(struct core *c, void *asker, int code, int64_t ttl)
{
    struct lease_question *q = asker;
    if (code != ERR_STOPPED && send_message(c, q->from_id, MESSAGE_ANSWER, q->id, code, ttl) != 0)
        log_debug("lease answer not sent: it will time out at the member that asked");
    core_request_release(&q->r);
    mem_free(q);
}

static void question_confirmed(struct core_request *r)
{
    struct lease_question *q = container_of(r, struct lease_question, r);
    if (r->code) answer_question(q->core, q, r->code, 0);
    else ask_clock(q->core, q->lease, q->kind == MESSAGE_RENEW, answer_question, q);
}

static void take_question(struct core *c, uint64_t from_id, uint8_t kind, uint64_t id, int64_t lease)
{
    if (!c->leader) {
        if (send_message(c, from_id, MESSAGE_ANSWER, id, ERR_LEADER_CHANGED, 0) != 0)
            log_debug("lease answer not sent: it will time out at the member that asked");
        return;
    }
    struct lease_question *q = mem_must_calloc(1, sizeof(*q));
    *q = (struct lease_question){.core = c, .from_id = from_id, .id = id, .lease = lease, .kind = kind,
                                 .r = {.type = CORE_READ_INDEX, .done = question_confirmed}};
    core_submit(c, &q->r);
}

void core_lease_message(struct core *c, uint64_t from_id, struct slice payload)
{
    struct reader in = reader_make(payload);
    uint8_t kind = reader_u8(&in);
    uint64_t id = reader_u64(&in);
    int64_t a = (int64_t)reader_u64(&in), b = (int64_t)reader_u64(&in);
    if (in.failed || c->closing) return;
    if (kind == MESSAGE_RENEW || kind == MESSAGE_REMAINING) {
        take_question(c, from_id, kind, id, a);
    } else if (kind == MESSAGE_ANSWER) {
        struct core_request *r = map_remove(&c->forwarded, id);
        if (!r) return;
        r->ttl = b;
        core_answer(c, r, (int)a);
    }
}
