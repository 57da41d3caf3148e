/* Committed entries become changes of the store, in order. One that is short - all but a deletion (also in a txn) or a revocation of very many keys
 * - is applied as it comes. A long command is applied in steps, one in each turn, so that heartbeats go on; nobody sees the
 * half of it: what asks for the present waits, entries that come meanwhile too. Consensus takes them for applied: where that
 * matters (a snapshot is cut or put in, the end) the rest is done at once.
 *
 *   on_apply --+-- run_entry ... --- the next
 *              |       `- long: the entry is kept, from that command on
 *              +-- backlog (while one is long) --- step, step, ... finish --- run_entry */
#include <inttypes.h>

#include "api/core/core_int.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

#define APPLY_LONG_KEYS 20000 /* about 15 ms */
#define APPLY_STEP_KEYS 5000
#define APPLY_SLOW_MS 100
#define WORK_STEPS 2000
#define WHOLE SIZE_MAX /* an entry that is not begun */

/* An entry that waits, from its `skip`-th command on. */
struct core_entry {
    struct list node;
    uint64_t index, term, tag;
    size_t skip, len;
    uint8_t bytes[];
};

/* ---- commands ------------------------------------------------------------------------------------ */

static bool decode(struct core *c, struct arena *a, struct slice bytes, struct command *ret)
{
    int rv = command_decode(a, bytes, ret);
    if (rv == 0) return true;
    log_error("a committed command cannot be decoded: error=%s", err_name(rv));
    c->events.fatal(c->ctx, rv, "a committed command cannot be decoded");
    return false;
}

static void finish_command(struct core *c, const struct command *command)
{
    core_check_command(c, command);
    c->applied_commands++;
}

static void apply_command(struct core *c, const struct command *command, struct core_request *r)
{
    if (r) {
        store_apply(c->state->store, command, &r->arena, &r->result);
        core_answer(c, r, 0);
    } else {
        struct result unasked = {0};
        store_apply(c->state->store, command, &c->scratch, &unasked);
        result_release(&unasked);
    }
    finish_command(c, command);
}

/* Who asked for the i-th command of an entry, if somebody here did. */
static struct core_request *take_request(struct core *c, uint64_t tag, size_t i)
{
    struct core_batch *own = tag ? map_get(&c->batches, tag) : NULL;
    if (!own || i >= own->count) return NULL;
    struct core_request *r = own->requests[i];
    own->requests[i] = NULL;
    return r;
}

/* ---- entries ------------------------------------------------------------------------------------- */

static void schedule_work(struct core *c)
{
    if (!c->work.queued && !c->closing) c->env->ops->defer(c->env, &c->work);
}

void core_apply_work(struct env_task *t)
{
    struct core *c = t->data;
    if (c->closing || c->step) return;
    if (store_work(c->state->store, WORK_STEPS)) schedule_work(c);
}

static void publish_events(struct core *c)
{
    struct event_batch *events = store_take_events(c->state->store);
    if (events) c->events.live(c->ctx, events);
    event_batch_unref(events);
}

static void finish_entry(struct core *c, uint64_t index, uint64_t tag)
{
    struct core_batch *own = tag ? map_get(&c->batches, tag) : NULL;
    if (own) core_batch_fail(c, own, ERR_UNAVAILABLE); /* nothing is left in it but its memory */
    c->applied_index = index;
    c->applied_entries++;
    if (c->events.applied) c->events.applied(c->ctx, index);
    core_lease_applied(c, index);
    publish_events(c);
    schedule_work(c);
}

static struct core_entry *keep(uint64_t index, uint64_t term, uint64_t tag, struct slice entry, size_t skip)
{
    struct core_entry *e = mem_must_alloc(sizeof(*e) + entry.len);
    *e = (struct core_entry){.index = index, .term = term, .tag = tag, .skip = skip, .len = entry.len};
    memcpy(e->bytes, entry.data, entry.len);
    list_init(&e->node);
    return e;
}

static bool is_long(const struct core *c, const struct command *command)
{
    return (command->type == COMMAND_LEASE_REVOKE || command->type == COMMAND_OP) &&
           store_apply_is_long(c->state->store, command, c->config.long_apply_keys ? c->config.long_apply_keys : APPLY_LONG_KEYS);
}

/* From the `skip`-th command on, to the end or to a long one: then the rest is in the backlog. */
static void run_entry(struct core *c, uint64_t index, uint64_t term, uint64_t tag, struct slice entry, size_t skip)
{
    struct batch_reader reader;
    struct slice bytes;
    uint64_t seq, began = core_now(c);
    int rv = batch_open(&reader, entry);
    for (size_t i = 0; rv == 0 && (rv = batch_next(&reader, &seq, &bytes)) == 1; i++, rv = 0) {
        struct command command;
        if (i < skip || !decode(c, &c->scratch, bytes, &command)) continue;
        if (is_long(c, &command)) {
            publish_events(c); /* history has them already: watches must not see it first */
            list_push_front(&c->backlog, &keep(index, term, tag, entry, i)->node);
            if (!c->apply_work.queued) c->env->ops->defer(c->env, &c->apply_work);
            arena_reset(&c->scratch);
            return;
        }
        apply_command(c, &command, take_request(c, tag, i));
        arena_reset(&c->scratch);
    }
    if (rv < 0) {
        c->events.fatal(c->ctx, rv, "a committed entry cannot be read");
        return;
    }
    if (core_now(c) - began > APPLY_SLOW_MS) c->slow_applies++;
    finish_entry(c, index, tag);
}

static void begin_entry(struct core *c, uint64_t index, uint64_t term, uint64_t tag, struct slice entry)
{
    if (c->events.applying) c->events.applying(c->ctx, index, term, entry);
    core_check_entry(c, index, term, entry);
    run_entry(c, index, term, tag, entry, 0);
}

uint64_t core_apply_last(const struct core *c)
{
    return list_empty(&c->backlog) ? 0 : container_of(c->backlog.prev, struct core_entry, node)->index;
}

void core_apply_entry(struct core *c, uint64_t index, uint64_t term, uint64_t tag, struct slice entry)
{
    if (list_empty(&c->backlog)) begin_entry(c, index, term, tag, entry);
    else list_push_back(&c->backlog, &keep(index, term, tag, entry, WHOLE)->node);
}

/* ---- a long command ------------------------------------------------------------------------------- */

static struct core_entry *first_of(struct core *c)
{
    return list_empty(&c->backlog) ? NULL : container_of(c->backlog.next, struct core_entry, node);
}

static struct slice bytes_of(const struct core_entry *e)
{
    return slice_make(e->bytes, e->len);
}

static void begin_long(struct core *c, const struct core_entry *e)
{
    struct batch_reader reader;
    struct slice bytes;
    uint64_t seq;
    CHECK(batch_open(&reader, bytes_of(e)) == 0);
    for (size_t i = 0; i <= e->skip; i++) CHECK(batch_next(&reader, &seq, &bytes) == 1);
    CHECK(command_decode(&c->step_arena, bytes, &c->step_command) == 0); /* as before */
    c->step_request = take_request(c, e->tag, e->skip);
    c->step_result = (struct result){0};
    c->step = c->step_request ? store_apply_begin(c->state->store, &c->step_command, &c->step_request->arena,
                                                  &c->step_request->result)
                              : store_apply_begin(c->state->store, &c->step_command, &c->step_arena, &c->step_result);
}

static void finish_long(struct core *c, struct core_entry *e)
{
    c->step = NULL;
    if (c->step_request) core_answer(c, c->step_request, 0);
    else result_release(&c->step_result);
    finish_command(c, &c->step_command);
    arena_release(&c->step_arena);
    list_remove(&e->node);
    run_entry(c, e->index, e->term, e->tag, bytes_of(e), e->skip + 1);
    mem_free(e);
}

/* About so many keys or commands more of what is in the backlog. */
static void step(struct core *c, size_t most)
{
    uint64_t before = c->applied_commands;
    struct core_entry *e = first_of(c);
    if (e->skip != WHOLE) {
        if (!c->step) begin_long(c, e);
        if (store_apply_step(c->step, most)) finish_long(c, e);
    }
    while ((e = first_of(c)) != NULL && e->skip == WHOLE && c->applied_commands - before < most) {
        list_remove(&e->node);
        begin_entry(c, e->index, e->term, e->tag, bytes_of(e));
        mem_free(e);
    }
    if (e) return;
    core_read_held(c);
    core_check_resume(c);
}

void core_apply_step(struct env_task *t)
{
    struct core *c = t->data;
    if (list_empty(&c->backlog)) return; /* it was finished at once */
    step(c, APPLY_STEP_KEYS);
    if (!list_empty(&c->backlog) && !t->queued) c->env->ops->defer(c->env, t);
}

void core_apply_finish(struct core *c)
{
    while (!list_empty(&c->backlog)) step(c, SIZE_MAX);
}
