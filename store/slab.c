#include "store/slab_int.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/check.h"
#include "base/list.h"
#include "base/mem.h"

#define SLAB_BYTES ((size_t)256 * 1024)
enum { CLASSES = 96 };

struct slot {
    struct slot *next;
};

struct slab {
    struct slab_heap *heap;
    struct list all;     /* of the heap */
    struct list partial; /* of its class, while it has free slots and is not the current one */
    struct slot *free;   /* the owner's */
    size_t fresh;        /* offset of the first slot never used */
    size_t size;         /* of a slot */
    unsigned klass, used;
    struct slab *next_pending;    /* written by the one who put it on the list */
    _Atomic(struct slot *) freed; /* by any thread, or `orphaned` */
    atomic_size_t references;     /* once orphaned: slots in use and whoever else may touch it */
};

struct klass {
    struct slab *current;
    struct list partial;
};

struct slab_heap {
    struct klass classes[CLASSES];
    struct list all;
    size_t bytes;
    _Atomic(struct slab *) pending; /* slabs with something freed, or `closed` */
    atomic_size_t references;       /* the owner, and each slab */
};

static struct slot orphaned; /* marks: never dereferenced */
static struct slab closed;

/* Steps of 16 bytes to 512, then of 1/32 of the power of two below. */
static unsigned class_of(size_t size, size_t *ret_size)
{
    if (size <= 512) {
        unsigned k = (unsigned)((size + 15) / 16);
        *ret_size = (size_t)k * 16;
        return k ? k - 1 : 0;
    }
    unsigned power = 63u - (unsigned)__builtin_clzl(size - 1); /* 2^power < size <= 2^(power + 1) */
    size_t step = ((size_t)1 << power) / 16, over = (size - 1 - ((size_t)1 << power)) / step;
    *ret_size = ((size_t)1 << power) + (over + 1) * step;
    return 32 + (power - 9) * 16 + (unsigned)over;
}

struct slab_heap *slab_heap_new(void)
{
    struct slab_heap *h = mem_must_calloc(1, sizeof(*h));
    for (unsigned i = 0; i < CLASSES; i++) list_init(&h->classes[i].partial);
    list_init(&h->all);
    atomic_init(&h->references, 1);
    return h;
}

static void heap_unref(struct slab_heap *h)
{
    if (atomic_fetch_sub_explicit(&h->references, 1, memory_order_acq_rel) == 1) mem_free(h);
}

static void give_back(struct slab *s)
{
    struct slab_heap *h = s->heap;
    mem_unmap(s, SLAB_BYTES);
    heap_unref(h);
}

/* ---- the owner ------------------------------------------------------------------------------ */

static struct slab *slab_new(struct slab_heap *h, unsigned k, size_t size)
{
    struct slab *s = mem_map(SLAB_BYTES);
    if (!s) return NULL;
    *s = (struct slab){
        .heap = h, .klass = k, .size = size, .fresh = (sizeof(*s) + 15) & ~(size_t)15};
    list_push_back(&h->all, &s->all);
    list_init(&s->partial);
    h->bytes += SLAB_BYTES;
    atomic_fetch_add_explicit(&h->references, 1, memory_order_relaxed);
    return s;
}

static unsigned take_list(struct slab *s, struct slot *list)
{
    unsigned n = 0;
    while (list) {
        struct slot *next = list->next;
        list->next = s->free;
        s->free = list;
        list = next;
        n++;
    }
    return n;
}

/* A slab that came by the pending list: nobody touches it but through slots still in use. */
static void take_in(struct slab_heap *h, struct slab *s)
{
    s->used -= take_list(s, atomic_exchange_explicit(&s->freed, NULL, memory_order_acq_rel));
    if (s == h->classes[s->klass].current) return;
    if (s->used == 0) {
        list_remove(&s->partial);
        list_remove(&s->all);
        h->bytes -= SLAB_BYTES;
        give_back(s);
    } else if (list_empty(&s->partial)) {
        list_push_back(&h->classes[s->klass].partial, &s->partial);
    }
}

void slab_reclaim(struct slab_heap *h)
{
    if (!atomic_load_explicit(&h->pending, memory_order_relaxed)) return;
    struct slab *s = atomic_exchange_explicit(&h->pending, NULL, memory_order_acq_rel);
    while (s) {
        struct slab *next = s->next_pending;
        take_in(h, s);
        s = next;
    }
}

static bool has_room(const struct slab *s)
{
    return s->free || s->fresh + s->size <= SLAB_BYTES;
}

static struct slab *next_slab(struct slab_heap *h, unsigned k, size_t size)
{
    struct klass *c = &h->classes[k];
    slab_reclaim(h);
    if (c->current && has_room(c->current)) return c->current;
    c->current = NULL;
    struct list *node = list_pop_front(&c->partial);
    c->current = node ? container_of(node, struct slab, partial) : slab_new(h, k, size);
    return c->current;
}

void *slab_alloc(struct slab_heap *h, size_t size)
{
    if (size > SLAB_SLOT_MAX) return NULL;
    unsigned k = class_of(size, &size);
    struct slab *s = h->classes[k].current;
    if ((!s || !has_room(s)) && !(s = next_slab(h, k, size))) return NULL;
    s->used++;
    struct slot *slot = s->free;
    if (slot) {
        s->free = slot->next;
        return slot;
    }
    slot = (struct slot *)(void *)((char *)s + s->fresh);
    s->fresh += s->size;
    return slot;
}

size_t slab_bytes(const struct slab_heap *h)
{
    return h->bytes;
}

/* ---- any thread ----------------------------------------------------------------------------- */

static void unreference(struct slab *s, size_t n)
{
    if (n && atomic_fetch_sub_explicit(&s->references, n, memory_order_acq_rel) == n) give_back(s);
}

/* The slab has something freed and is not on the list. */
static void announce(struct slab *s)
{
    struct slab_heap *h = s->heap;
    struct slab *head = atomic_load_explicit(&h->pending, memory_order_acquire);
    do {
        if (head == &closed) {
            unreference(s, 1);
            return;
        }
        s->next_pending = head;
    } while (!atomic_compare_exchange_weak_explicit(&h->pending, &head, s, memory_order_acq_rel,
                                                    memory_order_acquire));
}

void slab_free(void *p)
{
    struct slab *s = (struct slab *)((uintptr_t)p & ~(uintptr_t)(SLAB_BYTES - 1));
    struct slot *slot = p, *head = atomic_load_explicit(&s->freed, memory_order_acquire);
    do {
        if (head == &orphaned) {
            unreference(s, 1);
            return;
        }
        slot->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&s->freed, &head, slot, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (!head) announce(s);
}

/* Each slab is left to those who still use it. Its references are then: one a slot in use, one for
 * a thread that may be about to announce it, and one of ours until we are done with it. */
void slab_heap_free(struct slab_heap *h)
{
    if (!h) return;
    list_for_each(node, &h->all)
    {
        struct slab *s = container_of(node, struct slab, all);
        atomic_store_explicit(&s->references, s->used + 2, memory_order_relaxed);
        struct slot *list = atomic_exchange_explicit(&s->freed, &orphaned, memory_order_acq_rel);
        unreference(s, list ? take_list(s, list) : 1); /* nothing freed: nobody announces */
    }
    struct slab *s = atomic_exchange_explicit(&h->pending, &closed, memory_order_acq_rel);
    while (s) {
        struct slab *next = s->next_pending;
        unreference(s, 1);
        s = next;
    }
    list_for_each(node, &h->all) unreference(container_of(node, struct slab, all), 1);
    heap_unref(h);
}
