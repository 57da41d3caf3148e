#include "store/record.h"

#include "base/mem.h"
#include "store/slab_int.h"

/* The address sanitizer is to see each record as an allocation of its own. */
#ifdef __SANITIZE_ADDRESS__
enum { USE_SLABS = 0 };
#else
enum { USE_SLABS = 1 };
#endif

static struct record *make(struct slab_heap *heap, size_t key_len, size_t value_len, bool must)
{
    size_t size = sizeof(struct record) + key_len + value_len;
    struct record *r = heap && USE_SLABS ? slab_alloc(heap, size) : NULL;
    bool in_slab = r != NULL;
    if (!r) r = must ? mem_must_alloc(size) : mem_alloc(size);
    if (!r) return NULL;
    memset(r, 0, sizeof(*r));
    atomic_init(&r->refs, 1);
    r->in_slab = in_slab;
    r->key_len = (uint32_t)key_len;
    r->value_len = (uint32_t)value_len;
    return r;
}

struct record *record_alloc(struct slab_heap *heap, size_t key_len, size_t value_len)
{
    return make(heap, key_len, value_len, false);
}

struct record *record_new(struct slab_heap *heap, struct slice key, struct slice value)
{
    struct record *r = make(heap, key.len, value.len, true);
    if (key.len) memcpy(r->data, key.data, key.len);
    if (value.len) memcpy(r->data + key.len, value.data, value.len);
    return r;
}

struct record *record_ref(struct record *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void record_unref(struct record *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    if (r->in_slab) slab_free(r);
    else mem_free(r);
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
