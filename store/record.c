#include "store/record.h"

#include "base/mem.h"

static void init(struct record *r, size_t key_len, size_t value_len)
{
    memset(r, 0, sizeof(*r));
    atomic_init(&r->refs, 1);
    r->key_len = (uint32_t)key_len;
    r->value_len = (uint32_t)value_len;
}

struct record *record_new(struct slice key, struct slice value)
{
    struct record *r = mem_must_alloc(sizeof(*r) + key.len + value.len);
    init(r, key.len, value.len);
    if (key.len) memcpy(r->data, key.data, key.len);
    if (value.len) memcpy(r->data + key.len, value.data, value.len);
    return r;
}

struct record *record_alloc(uint32_t key_len, uint32_t value_len)
{
    struct record *r = mem_alloc(sizeof(*r) + key_len + value_len);
    if (r) init(r, key_len, value_len);
    return r;
}

struct record *record_ref(struct record *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void record_unref(struct record *r)
{
    if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1) mem_free(r);
}

struct event_batch *event_batch_ref(struct event_batch *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void event_batch_unref(struct event_batch *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < b->count; i++) {
        record_unref(b->events[i].record);
        record_unref(b->events[i].prev);
    }
    mem_free(b);
}
