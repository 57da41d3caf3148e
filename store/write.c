/* Changes of the keyspace. Everything was checked before: nothing here can be refused or fail. */
#include "store/store_int.h"

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"

void *apply_alloc(struct arena *a, size_t size)
{
    void *p = arena_alloc(a, size);
    if (!p) apply_out_of_memory();
    return p;
}

void apply_out_of_memory(void)
{
    log_fatal("out of memory for the result of a committed command");
}

struct record *previous_of(const struct store *s, const struct record *r)
{
    if (r->mod_rev <= s->compact_rev) return NULL;
    struct record *prev = version_at(r->older, r->mod_rev - 1);
    return prev && !prev->tombstone ? prev : NULL;
}

static void add_event(struct store *s, struct record *r)
{
    struct event_batch *b = s->events;
    size_t n = b ? b->count : 0;
    if (n == s->events_size) {
        s->events_size = n ? n * 2 : 16;
        b = s->events = mem_must_realloc(b, sizeof(*b) + s->events_size * sizeof(b->events[0]));
        if (n == 0) {
            atomic_init(&b->refs, 1);
            b->first_rev = r->mod_rev;
            b->bytes = 0;
        }
    }
    struct record *prev = previous_of(s, r);
    b->events[n] = (struct event){record_ref(r), prev ? record_ref(prev) : NULL};
    b->count = n + 1;
    b->bytes += (size_t)(record_cost(r) + live_cost(prev));
    b->last_rev = r->mod_rev;
}

struct event_batch *store_take_events(struct store *s)
{
    struct event_batch *b = s->events;
    if (b && s->events_size - b->count > 64)
        b = mem_must_realloc(b, sizeof(*b) + b->count * sizeof(b->events[0]));
    s->events = NULL;
    s->events_size = 0;
    return b;
}

void write_log(struct store *s, struct record *r, struct record *prev)
{
    int64_t cost = record_cost(r);
    rlog_append(&s->log, r, s->sums);
    s->sums.written += cost;
    s->sums.live += live_cost(r) - live_cost(prev);
    s->held += cost;
}

static void move_lease(struct store *s, struct record *r, const struct record *prev)
{
    int64_t from = prev && !prev->tombstone ? prev->lease : 0;
    if (from && from != r->lease) {
        struct lease *l = lease_find(&s->leases, from);
        if (l) lease_detach(l, record_key(r));
    }
    if (r->lease) {
        struct lease *l = lease_find(&s->leases, r->lease);
        if (l) lease_attach(l, r);
    }
}

static void write_record(struct store *s, struct index_path *path, struct record *r,
                         struct record *prev)
{
    r->mod_rev = s->revision + 1;
    CHECK(s->sub < RECORD_SUB_MAX);
    r->sub = s->sub++ & RECORD_SUB_MAX;
    r->older = prev;
    index_store(&s->index, path, r);
    write_log(s, r, prev);
    if (r->lease || (prev && prev->lease)) move_lease(s, r, prev);
    add_event(s, r);
}

void write_put(struct store *s, const struct put_op *op, struct op_result *ret)
{
    struct index_path path;
    struct record *newest = index_find(&s->index, op->key, &path);
    struct record *live = newest && !newest->tombstone ? newest : NULL;
    struct slice value = op->value;
    if (op->ignore_value) value = live ? record_value(live) : (struct slice){0};
    struct record *r = record_new(s->slabs, op->key, value);
    r->create_rev = live ? live->create_rev : s->revision + 1;
    r->version = live ? live->version + 1 : 1;
    r->lease = op->lease;
    if (op->ignore_lease && live) r->lease = live->lease;
    ret->type = OP_PUT;
    ret->put.prev = op->prev_kv && live ? record_ref(live) : NULL;
    write_record(s, &path, r, newest);
}

void write_tombstone(struct store *s, struct index_path *path, struct record *newest)
{
    struct record *r = record_new(s->slabs, record_key(newest), (struct slice){0});
    r->tombstone = true;
    path->found = true;
    write_record(s, path, r, newest);
}

void deletion_begin(struct store *s, struct arena *a, const struct delete_op *op, struct op_result *ret,
                    struct deletion *d)
{
    const struct view v = {s, a, INT64_MAX};
    ret->type = OP_DELETE;
    ret->del.deleted = 0;
    ret->del.prevs = NULL;
    ret->del.n_prevs = 0;
    *d = (struct deletion){.op = op, .ret = ret, .left = range_count(&v, op->key, op->range_end)};
    if (d->left == 0) return;
    if (op->prev_kv) ret->del.prevs = apply_alloc(a, (size_t)d->left * sizeof(struct record *));
    d->next = index_seek(&s->index, op->key, &d->path);
}

bool deletion_step(struct store *s, struct deletion *d, size_t max_keys)
{
    bool single = range_is_single(d->op->range_end);
    for (; d->left > 0 && max_keys > 0; max_keys--) {
        struct record *r = d->next;
        CHECK(r && (single || range_has(d->op->range_end, record_key(r))));
        if (!r->tombstone) {
            if (d->op->prev_kv) d->ret->del.prevs[d->ret->del.n_prevs++] = record_ref(r);
            write_tombstone(s, &d->path, r);
            d->ret->del.deleted++;
            d->left--;
        }
        d->next = index_next(&s->index, &d->path);
    }
    return d->left == 0;
}

void write_delete(struct store *s, struct arena *a, const struct delete_op *op,
                  struct op_result *ret)
{
    struct deletion d;
    deletion_begin(s, a, op, ret, &d);
    deletion_step(s, &d, SIZE_MAX);
}

int64_t write_end(struct store *s)
{
    if (s->sub == 0) return s->revision;
    s->sub = 0;
    return ++s->revision;
}
