#include "base/blob.h"

#include "base/mem.h"

struct blob *blob_new(size_t len)
{
    if (len > UINT32_MAX) return NULL;
    struct blob *b = mem_alloc(sizeof(*b) + len);
    if (!b) return NULL;
    atomic_init(&b->refs, 1);
    b->len = (uint32_t)len;
    return b;
}

struct blob *blob_copy(struct slice s)
{
    struct blob *b = blob_new(s.len);
    if (b && s.len) memcpy(b->data, s.data, s.len);
    return b;
}

struct blob *blob_ref(struct blob *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void blob_unref(struct blob *b)
{
    if (b && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) mem_free(b);
}
