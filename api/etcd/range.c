/* KV/Range. An answer is one gRPC message, whose length stands before it; so the records of the
 * whole range are collected first (references, not bytes), in slices for long ranges so that the
 * core is never held up, at one pinned revision. Then a small answer is written at once, and a
 * large one in pieces as the client takes them: memory is bounded by the pointers and what the
 * connection may queue, however large the values are.
 *
 * What fails: the client goes away, or takes nothing for a minute (the references are dropped, the cursor closed), or memory runs
 * out in the middle of an answer, which then ends in a reset of the stream. */
#include "api/etcd/range.h"

#include "base/check.h"
#include "base/limits.h"
#include "base/mem.h"
#include "schemas/etcd/request.h"

#define SMALL_ANSWER (64 * LIMIT_KiB) /* written at once */
#define PIECE_BYTES (128 * LIMIT_KiB) /* of a large one */
#define BIG_VALUE (16 * LIMIT_KiB)    /* sent by reference */

static void drop_records(struct range_call *rc)
{
    for (size_t i = rc->sent; i < rc->n; i++) record_unref(rc->records[i]);
    mem_free(rc->records);
    rc->records = NULL;
    rc->n = rc->size = rc->sent = 0;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static size_t answer_size(const struct range_call *rc)
{
    size_t size = header_size(&rc->head) + (rc->more ? 2 : 0) + pb_uint_size((uint64_t)rc->count);
    for (size_t i = 0; i < rc->n; i++)
        size += pb_len_size(kv_size(rc->records[i], rc->op.keys_only));
    return size;
}

static uint8_t *put_end(uint8_t *p, const struct range_call *rc)
{
    p = pb_put_uint(p, 3, rc->more);
    return pb_put_uint(p, 4, (uint64_t)rc->count);
}

static void unref_record(void *owner)
{
    record_unref(owner);
}

/* Adds records to `out` until it is full, or one comes whose value is better sent by itself
 * (*ret_big). */
static void fill_piece(struct range_call *rc, struct buf *out, struct record **ret_big)
{
    *ret_big = NULL;
    while (rc->sent < rc->n && out->len < PIECE_BYTES && !*ret_big) {
        struct record *r = rc->records[rc->sent];
        size_t size = kv_size(r, rc->op.keys_only);
        bool big = !rc->op.keys_only && r->value_len >= BIG_VALUE;
        uint8_t *p = buf_reserve(out, pb_len_size(size) - (big ? r->value_len : 0));
        if (!p) return;
        p = pb_put_len(p, 2, size);
        p = big ? encode_kv_head(p, r) : encode_kv(p, r, rc->op.keys_only);
        out->len = (size_t)(p - out->data);
        rc->sent++;
        if (big) *ret_big = r;
        else record_unref(r);
    }
}

static void send_buf(struct grpc_call *c, struct buf *b)
{
    struct grpc_piece piece = {.data = buf_slice(b), .release = mem_free, .owner = b->data};
    if (b->len) grpc_send_part(c, &piece);
    buf_init(b, SIZE_MAX);
}

/* One piece, and the big value that ended it. false: out of memory. */
static bool send_piece(struct grpc_call *c, struct range_call *rc)
{
    struct buf out = {0};
    struct record *big;
    uint8_t tail[KV_MAX];
    fill_piece(rc, &out, &big);
    if (out.failed) {
        buf_release(&out);
        return false;
    }
    send_buf(c, &out);
    if (!big) return true;
    size_t tail_len = (size_t)(encode_kv_tail(tail, big) - tail);
    struct grpc_piece value = {.data = record_value(big), .release = unref_record, .owner = big};
    struct grpc_piece rest = {.data = {tail, tail_len}};
    grpc_send_part(c, &value);
    if (tail_len) grpc_send_part(c, &rest);
    return true;
}

static void send_more(struct grpc_call *c, struct range_call *rc)
{
    uint8_t end[KV_MAX];
    while (rc->sent < rc->n) {
        if (grpc_done(c) || !grpc_writable(c)) return;
        if (!send_piece(c, rc)) {
            grpc_abort(c);
            return;
        }
    }
    struct grpc_piece last = {.data = {end, (size_t)(put_end(end, rc) - end)}};
    if (last.data.len) grpc_send_part(c, &last);
    rc->sending = false;
    drop_records(rc);
    grpc_finish(c, GRPC_OK, NULL);
}

static void send_small(struct grpc_call *c, struct range_call *rc)
{
    struct buf out = {0};
    struct range_result all = {
        .records = rc->records, .n = rc->n, .count = rc->count, .more = rc->more};
    encode_range_response(&out, &rc->head, &all, rc->op.keys_only);
    drop_records(rc);
    grpc_reply_buf(c, &out);
}

static void reply(struct grpc_call *c, struct range_call *rc)
{
    size_t size = answer_size(rc);
    if (size > UINT32_MAX) {
        drop_records(rc);
        grpc_finishf(
            c, GRPC_RESOURCE_EXHAUSTED,
            "etcdserver: the answer has %zu bytes, and a gRPC message at most %u: use a limit",
            size, UINT32_MAX);
        return;
    }
    if (size <= SMALL_ANSWER) {
        send_small(c, rc);
        return;
    }
    uint8_t head[HEADER_MAX];
    struct grpc_piece first = {.data = {head, (size_t)(encode_header(head, &rc->head) - head)}};
    grpc_set_write_timeout(c, LIMIT_HTTP_STREAM_STALL_MS);
    grpc_send_begin(c, size);
    grpc_send_part(c, &first);
    rc->sending = true;
    send_more(c, rc);
}

void etcd_range_writable(struct grpc_call *c)
{
    struct range_call *rc = grpc_state(c);
    if (rc->sending) send_more(c, rc);
}

void etcd_range_closed(struct grpc_call *c, int error)
{
    struct range_call *rc = grpc_state(c);
    (void)error;
    if (rc->sending) drop_records(rc);
    rc->sending = false;
}

/* ---- collecting --------------------------------------------------------------------------------
 */

/* Takes the references of an answer over. */
static int take_records(struct range_call *rc)
{
    struct range_result *got = &rc->r.result.op.range;
    if (rc->n + got->n > rc->size) {
        size_t size = rc->n + got->n + (got->more ? rc->n + got->n : 0);
        struct record **grown = mem_realloc(rc->records, size * sizeof(struct record *));
        if (!grown) return ERR_NOMEM;
        rc->records = grown;
        rc->size = size;
    }
    if (got->n) memcpy(rc->records + rc->n, got->records, got->n * sizeof(struct record *));
    rc->n += got->n;
    got->n = 0;
    return 0;
}

static void on_answer(struct core_request *r);

static void ask(struct grpc_call *c, struct range_call *rc, enum core_request_type type)
{
    const struct etcd_api *api = grpc_ctx(c);
    rc->r =
        (struct core_request){.type = type, .done = on_answer, .data = rc, .cursor = rc->cursor};
    if (type == CORE_RANGE || type == CORE_CURSOR_OPEN) {
        rc->r.range = rc->op;
        rc->r.serializable = rc->op.serializable;
    }
    grpc_ref(c);
    core_client_submit(api->core, &rc->r);
}

/* The core has answered a slice, or all of it. */
static void on_records(struct grpc_call *c, struct range_call *rc)
{
    const struct range_result *got = &rc->r.result.op.range;
    bool first = rc->r.type != CORE_CURSOR_NEXT, more = got->more;
    rc->cursor = rc->r.cursor;
    if (first) {
        rc->head = etcd_header(
            grpc_ctx(c), rc->r.type == CORE_RANGE ? rc->r.result.revision : rc->r.ret_revision,
            rc->r.ret_term);
        rc->count = got->count;
    }
    int rv = take_records(rc);
    core_request_release(&rc->r);
    bool go_on = rv == 0 && !grpc_done(c) && more && rc->cursor;
    if (go_on) {
        ask(c, rc, CORE_CURSOR_NEXT);
        return;
    }
    rc->more = rc->cursor ? rc->op.limit > 0 && (int64_t)rc->n < rc->count : more;
    struct core_cursor *cursor = rc->cursor;
    if (cursor) ask(c, rc, CORE_CURSOR_CLOSE);
    rc->cursor = NULL;
    if (rv == 0 && !grpc_done(c)) {
        reply(c, rc);
        return;
    }
    drop_records(rc);
    if (rv != 0) etcd_fail(c, rv);
}

static void on_answer(struct core_request *r)
{
    struct range_call *rc = r->data;
    struct grpc_call *c = grpc_call_of(rc);
    if (r->type == CORE_RANGE || r->type == CORE_CURSOR_OPEN) arena_release(&rc->arena);
    if (r->type == CORE_CURSOR_CLOSE) {
        core_request_release(r);
    } else if (r->code == 0) {
        on_records(c, rc);
    } else {
        int code = r->code;
        core_request_release(r);
        drop_records(rc);
        if (rc->cursor) ask(c, rc, CORE_CURSOR_CLOSE);
        rc->cursor = NULL;
        etcd_fail(c, code);
    }
    grpc_unref(c);
}

/* Long ranges in key order are read in slices; what must be sorted or filtered as a whole, at once.
 */
static bool in_slices(const struct range_op *op)
{
    bool key_order = op->sort_order != SORT_DESCEND && op->sort_target == SORT_KEY;
    bool filtered = op->min_mod_revision || op->max_mod_revision || op->min_create_revision ||
                    op->max_create_revision;
    bool few = op->range_end.len == 0 || op->count_only ||
               (op->limit > 0 && op->limit <= LIMIT_RANGE_SLICE);
    return key_order && !filtered && !few;
}

void etcd_range_message(struct grpc_call *c, struct slice message)
{
    struct range_call *rc = grpc_state(c);
    etcd_count(grpc_ctx(c), COUNT_RANGES, 1);
    if (etcd_refuse_without_leader(c)) return;
    struct slice own = arena_dup(&rc->arena, message);
    int rv = own.data ? etcd_range_decode(own, &rc->op) : ERR_NOMEM;
    if (rv == 0 && !rc->op.serializable && etcd_refuse_learner(c)) {
        arena_release(&rc->arena);
        return;
    }
    if (rv == 0 && (rv = range_op_check(&rc->op)) == 0) {
        ask(c, rc, in_slices(&rc->op) ? CORE_CURSOR_OPEN : CORE_RANGE);
        return;
    }
    arena_release(&rc->arena);
    if (rv == ERR_INVALID) etcd_fail_decode(c, rv);
    else etcd_fail(c, rv);
}
