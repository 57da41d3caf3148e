/* Clients: each asks one thing at a time of some member, mostly of the same one, thinks, and asks again. Nothing is ever asked
 * twice: what is not known to have been done or refused is written down as unknown. */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "load_int.h"

enum { GRPC_NOT_FOUND = 5, GRPC_EXHAUSTED = 8, GRPC_OUT_OF_RANGE = 11, GRPC_FAILED_PRECONDITION = 9 };

static void client_next(uv_timer_t *t);

const char *outcome_of(int status, const char *text)
{
    switch (status) {
    case 0: return "ok";
    case 1:
    case 2:
    case 4:
    case 13: return "unknown";
    case 14: return strcmp(text, "etcdserver: no leader") == 0 ? "refused" : "unknown";
    case GRPC_EXHAUSTED: return "refused";
    case GRPC_FAILED_PRECONDITION: return strcmp(text, "etcdserver: rpc not supported for learner") == 0 ? "refused" : "error";
    default: return "error";
    }
}

/* ---- what is asked ---------------------------------------------------------------------------------- */

void slot_key(const struct load *l, unsigned slot, char *out)
{
    snprintf(out, KEY_BYTES, "k/%02u/%05u", slot, l->generation[slot]);
}

static void slot_range(struct load *l, struct kv_op *op)
{
    unsigned from = (unsigned)load_below(l, SLOTS), n = load_chance(l, 10) ? SLOTS : 1 + (unsigned)load_below(l, 2);
    snprintf(op->key, KEY_BYTES, "k/%02u/", from);
    snprintf(op->end, KEY_BYTES, "k/%02u/", from + n);
}

static uint64_t new_value(struct load *l)
{
    return ++l->next_value;
}

static struct kv_op put_op(struct load *l, unsigned slot)
{
    struct kv_op op = {.type = KV_PUT, .value = new_value(l), .prev = load_chance(l, 30)};
    slot_key(l, slot, op.key);
    return op;
}

static struct kv_op get_op(struct load *l, unsigned slot)
{
    struct kv_op op = {.type = KV_RANGE};
    slot_key(l, slot, op.key);
    return op;
}

static struct kv_op delete_op(struct load *l, unsigned slot)
{
    struct kv_op op = {.type = KV_DELETE, .prev = load_chance(l, 50)};
    slot_key(l, slot, op.key);
    if (load_chance(l, 5)) slot_range(l, &op);
    return op;
}

static struct kv_op range_op(struct load *l)
{
    struct kv_op op = {.type = KV_RANGE, .serializable = load_chance(l, 40)};
    slot_range(l, &op);
    if (load_chance(l, 30)) op.limit = 1 + (int64_t)load_below(l, 5);
    if (load_chance(l, 20)) {
        op.order = 1 + (int)load_below(l, 2);
        op.target = (int)load_below(l, 4); /* not by value: the history has values without their padding */
    }
    if (load_chance(l, 10)) op.keys_only = true;
    else if (load_chance(l, 10)) op.count_only = true;
    if (load_chance(l, 20) && l->top_rev > 2) op.rev = l->top_rev - (int64_t)load_below(l, (uint64_t)(l->top_rev < 300 ? l->top_rev : 300));
    return op;
}

/* A compare-and-swap on what this client last saw of the key. */
static void make_cas(struct client *c, struct kv_request *q)
{
    struct load *l = c->load;
    const struct seen_key *seen = &c->seen[c->slot];
    struct kv_compare *m = &q->compare[0];
    bool current = seen->generation == l->generation[c->slot];
    q->txn = true;
    q->n_compare = q->n_then = q->n_else = 1;
    slot_key(l, c->slot, m->key);
    if (current && seen->mod && load_chance(l, 50)) m->target = 3, m->value = seen->value;
    else m->target = 2, m->number = current ? seen->mod : 0;
    q->then[0] = load_chance(l, 10) ? delete_op(l, c->slot) : put_op(l, c->slot);
    snprintf(q->then[0].key, KEY_BYTES, "%s", m->key);
    q->then[0].end[0] = 0;
    q->other[0] = get_op(l, c->slot);
}

/* Several keys at once, and reads that must see what the same txn wrote before. */
static void make_txn(struct client *c, struct kv_request *q)
{
    struct load *l = c->load;
    unsigned second = (c->slot + 1 + (unsigned)load_below(l, SLOTS - 1)) % SLOTS;
    q->txn = true;
    if (load_chance(l, 40)) {
        struct kv_compare *m = &q->compare[q->n_compare++];
        slot_key(l, c->slot, m->key);
        m->target = (int)load_below(l, 2);
        m->result = (int)load_below(l, 4);
        m->number = m->target ? l->top_rev - (int64_t)load_below(l, 100) : (int64_t)load_below(l, 10);
        q->other[q->n_else++] = range_op(l);
        q->other[0].rev = 0;
    }
    q->then[q->n_then++] = put_op(l, c->slot);
    q->then[q->n_then++] = get_op(l, c->slot);
    q->then[q->n_then++] = load_chance(l, 30) ? delete_op(l, second) : put_op(l, second);
    q->then[2].end[0] = 0;
    if (q->then[2].type == KV_DELETE) slot_key(l, second, q->then[2].key);
    q->then[q->n_then++] = range_op(l);
    q->then[3].rev = 0;
}

static void make_reads(struct load *l, struct kv_request *q)
{
    q->txn = true;
    q->n_then = 2;
    q->then[0] = range_op(l);
    q->then[1] = range_op(l);
    q->then[0].rev = q->then[1].rev = 0;
}

static void one(struct kv_request *q, struct kv_op op)
{
    q->n_then = 1;
    q->then[0] = op;
}

static struct client_lease *lease_of(struct client *c, bool live)
{
    for (unsigned i = 0; i < LEASES_PER_CLIENT; i++)
        if ((c->leases[i].id != 0) == live) return &c->leases[i];
    return NULL;
}

static bool make_lease(struct client *c)
{
    struct load *l = c->load;
    struct client_lease *lease = lease_of(c, true), *none = lease_of(c, false);
    uint64_t now = clock_mono_ns();
    if (none && load_chance(l, 30)) {
        c->kind = OP_GRANT;
        c->lease = (int64_t)(1 + (load_random(l) >> 2));
        c->arg = 2 + (int64_t)load_below(l, 6);
        return true;
    }
    if (!lease) return false;
    c->lease = lease->id;
    if (lease->left && now >= lease->next_ns) {
        c->kind = OP_KEEP;
    } else if (lease->keys < 3) {
        struct kv_op op = {.type = KV_PUT, .value = new_value(l), .lease = lease->id};
        snprintf(op.key, KEY_BYTES, "l/%u/%u", c->number, (unsigned)load_below(l, 3));
        one(&c->kv, op);
        lease->keys++;
    } else if (!lease->left && load_chance(l, 30)) {
        c->kind = OP_REVOKE;
    } else {
        return false;
    }
    return true;
}

static int64_t oldest_needed(const struct load *l)
{
    int64_t rev = l->top_rev;
    for (int64_t i = 0; i < l->n_watchers; i++)
        if (l->watchers[i].oracle && l->watchers[i].next_rev - 1 < rev) rev = l->watchers[i].next_rev - 1;
    return rev;
}

static bool make_compaction(struct client *c)
{
    struct load *l = c->load;
    c->arg = oldest_needed(l) - (int64_t)load_below(l, 200);
    c->kind = OP_COMPACT;
    return c->arg > l->compacted && c->arg > 1;
}

/* What is asked next, into `c`; false: nothing this time. */
static bool choose(struct client *c)
{
    struct load *l = c->load;
    struct kv_request *q = &c->kv;
    uint64_t x = load_below(l, 1000);
    memset(q, 0, sizeof(*q));
    c->kind = OP_KV;
    c->lease = 0;
    c->slot = (unsigned)load_below(l, SLOTS);
    if (++l->slot_ops[c->slot] % SLOT_OPS == 0) l->generation[c->slot]++;
    if (x < 300) one(q, put_op(l, c->slot));
    else if (x < 450) one(q, get_op(l, c->slot));
    else if (x < 520) one(q, get_op(l, c->slot)), q->then[0].serializable = true;
    else if (x < 600) one(q, range_op(l));
    else if (x < 660) one(q, delete_op(l, c->slot));
    else if (x < 790) make_cas(c, q);
    else if (x < 850) make_txn(c, q);
    else if (x < 880) make_reads(l, q);
    else if (x < 885) return make_compaction(c);
    else if (x < 900) c->kind = OP_HASH, c->arg = load_chance(l, 50) ? l->top_rev : oldest_needed(l);
    else return make_lease(c);
    return true;
}

/* ---- asking ------------------------------------------------------------------------------------------- */

static const char *encode(struct client *c, struct buf *out, const char **ret_name)
{
    switch (c->kind) {
    case OP_KV: kv_encode(&c->kv, out); return kv_method(&c->kv, ret_name);
    case OP_COMPACT:
        pb_uint(out, 1, (uint64_t)c->arg);
        pb_bool(out, 2, true);
        *ret_name = "compact";
        return "/etcdserverpb.KV/Compact";
    case OP_GRANT:
        pb_uint(out, 1, (uint64_t)c->arg);
        pb_uint(out, 2, (uint64_t)c->lease);
        *ret_name = "grant";
        return "/etcdserverpb.Lease/LeaseGrant";
    case OP_REVOKE:
        pb_uint(out, 1, (uint64_t)c->lease);
        *ret_name = "revoke";
        return "/etcdserverpb.Lease/LeaseRevoke";
    case OP_KEEP:
        pb_uint(out, 1, (uint64_t)c->lease);
        *ret_name = "keep";
        return "/etcdserverpb.Lease/LeaseKeepAlive";
    case OP_HASH:
        pb_uint(out, 1, (uint64_t)c->arg);
        *ret_name = "hash";
        return "/etcdserverpb.Maintenance/HashKV";
    }
    return NULL;
}

static void on_message(struct grpc_client_call *call, struct slice message)
{
    struct client *c = call->data;
    if (c->answered) return;
    c->answered = true;
    buf_clear(&c->answer);
    buf_append_slice(&c->answer, message);
}

static void on_kv(void *ctx, const struct kv_seen *kv)
{
    struct client *c = ctx;
    char key[KEY_BYTES];
    slot_key(c->load, c->slot, key);
    if (!slice_eq_str(kv->key, key) || kv->value.len == 0) return; /* keys only */
    struct seen_key *s = &c->seen[c->slot];
    if (kv->mod <= s->mod && s->generation == c->load->generation[c->slot]) return;
    *s = (struct seen_key){c->load->generation[c->slot], value_number(kv->value), kv->mod};
}

static void record_lease_answer(struct client *c)
{
    struct slice m = buf_slice(&c->answer), header = {0};
    struct pb_field f;
    int64_t ttl = 0;
    while (pb_next(&m, &f) == 1) {
        if (f.number == 1) header = f.bytes;
        if (f.number == 3) ttl = (int64_t)f.value;
    }
    rec_header(&c->load->rec, header);
    if (c->kind != OP_REVOKE) rec_int(&c->load->rec, "ttl", ttl);
    struct client_lease *lease = NULL;
    for (unsigned i = 0; i < LEASES_PER_CLIENT; i++)
        if (c->leases[i].id == c->lease) lease = &c->leases[i];
    if (c->kind == OP_GRANT && (lease = lease_of(c, false))) {
        *lease = (struct client_lease){c->lease, ttl, clock_mono_ns() + (uint64_t)ttl * 300000000, (unsigned)load_below(c->load, 12), 0};
    } else if (c->kind == OP_KEEP && lease) {
        if (ttl == 0) lease->id = 0;
        if (lease->left) lease->left--;
        lease->next_ns = clock_mono_ns() + (uint64_t)lease->ttl * 300000000;
    } else if (c->kind == OP_REVOKE && lease) {
        lease->id = 0;
    }
}

static void record_hash_answer(struct client *c)
{
    struct slice m = buf_slice(&c->answer), header = {0};
    struct pb_field f;
    int64_t hash = 0, compact = 0;
    while (pb_next(&m, &f) == 1) {
        if (f.number == 1) header = f.bytes;
        if (f.number == 2) hash = (int64_t)f.value;
        if (f.number == 3) compact = (int64_t)f.value;
    }
    rec_header(&c->load->rec, header);
    rec_int(&c->load->rec, "hash", hash);
    rec_int(&c->load->rec, "crev", compact);
}

static void record_answer(struct client *c)
{
    struct load *l = c->load;
    struct slice m = buf_slice(&c->answer);
    struct pb_field f;
    if (c->kind == OP_KV) {
        load_saw_revision(l, kv_record_answer(&l->rec, &c->kv, m, on_kv, c));
    } else if (c->kind == OP_HASH) {
        record_hash_answer(c);
    } else if (c->kind == OP_COMPACT) {
        struct slice header = {0};
        while (pb_next(&m, &f) == 1)
            if (f.number == 1) header = f.bytes;
        rec_header(&l->rec, header);
        if (c->arg > l->compacted) l->compacted = c->arg;
    } else {
        record_lease_answer(c);
    }
}

static void record(struct client *c, int status, const char *text)
{
    struct load *l = c->load;
    struct rec *r = &l->rec;
    struct h2_client_stats stats;
    struct buf unused = {0};
    const char *name = "", *outcome = outcome_of(status, text);
    if (status == 0 && !c->answered) outcome = "unknown";
    h2_client_stats(c->connections[c->member], &stats);
    encode(c, &unused, &name);
    buf_release(&unused);
    rec_open(r, "op");
    rec_int(r, "c", c->number);
    rec_int(r, "m", c->member);
    rec_int(r, "n", (int64_t)stats.connects);
    rec_int(r, "t0", (int64_t)c->called_ns);
    rec_int(r, "t1", (int64_t)clock_mono_ns());
    rec_str(r, "k", name);
    rec_str(r, "s", outcome);
    if (c->kind == OP_KV) kv_record_request(r, &c->kv);
    if (c->kind == OP_COMPACT || c->kind == OP_HASH || c->kind == OP_GRANT) rec_int(r, "arg", c->arg);
    if (c->lease) rec_int(r, "lease", c->lease);
    if (*outcome == 'o') {
        record_answer(c);
    } else {
        rec_int(r, "code", status);
        rec_str(r, "text", text);
        if (status == GRPC_NOT_FOUND) {
            for (unsigned i = 0; i < LEASES_PER_CLIENT; i++)
                if (c->leases[i].id == c->lease) c->leases[i].id = 0;
        }
    }
    rec_close(r);
    *(*outcome == 'o' ? &l->acked : *outcome == 'u' ? &l->unknown : *outcome == 'r' ? &l->refused : &l->errors) += 1;
}

static void rest(struct client *c, uint64_t ms)
{
    uv_timer_start(&c->timer, client_next, ms, 0);
}

static void on_done(struct grpc_client_call *call, int status, const char *text)
{
    struct client *c = call->data;
    record(c, status, text);
    c->busy = false;
    if (status == 4 || status == 9 || status == 14 || load_chance(c->load, 3)) c->member = load_member(c->load);
    rest(c, status == 14 ? 20 + load_below(c->load, 200) : load_below(c->load, 2 * (uint64_t)c->load->think_ms + 1));
}

static void client_next(uv_timer_t *t)
{
    struct client *c = t->data;
    struct load *l = c->load;
    struct buf request = {0};
    const char *name;
    if (l->stopping) return;
    if (!l->active[c->member]) c->member = load_member(l);
    if (!choose(c)) {
        rest(c, 10);
        return;
    }
    if (!c->connections[c->member]) c->connections[c->member] = load_connect(l, c->member);
    const char *method = encode(c, &request, &name);
    c->answered = false;
    c->busy = true;
    c->called_ns = clock_mono_ns();
    c->call = (struct grpc_client_call){.message = on_message, .done = on_done, .data = c};
    unsigned timeout_ms = 1000u << load_below(l, 3);
    int rv = grpc_client_start(&c->call, c->connections[c->member], method, buf_slice(&request), false, timeout_ms);
    CHECK(rv == 0);
    buf_release(&request);
}

void client_start(struct client *c)
{
    uv_timer_init(&c->load->loop, &c->timer);
    c->timer.data = c;
    c->member = c->number % c->load->n_members;
    rest(c, load_below(c->load, 1000));
}

void client_stop(struct client *c)
{
    if (c->busy) grpc_client_cancel(&c->call);
    uv_close((uv_handle_t *)&c->timer, NULL);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (c->connections[i]) h2_client_close(c->connections[i], NULL, NULL);
    buf_release(&c->answer);
}
