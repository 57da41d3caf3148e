/* Memory for records: slots of near sizes in slabs of whole pages, so that a record costs its bytes
 * and little more, and a slab whose records are gone goes back to the system at once.
 *
 * One thread, the owner, allocates. Any thread frees: it pushes the slot on its slab's stack, and
 * whoever makes that stack non-empty also puts the slab on the heap's list of slabs to look at; the
 * owner takes both in when it needs room or is asked to. A slab is given up only after it came by
 * that list, when nobody else can still be touching it. What is still in use when the heap goes
 * lives on; the last one to free a slot of a slab gives the slab back. */
#ifndef PINTLE_STORE_SLAB_INT_H
#define PINTLE_STORE_SLAB_INT_H

#include <stddef.h>

struct slab_heap;

enum { SLAB_SLOT_MAX = 4096 };

struct slab_heap *slab_heap_new(void);
void slab_heap_free(struct slab_heap *h);
/* Aligned to 16. NULL if the size is above SLAB_SLOT_MAX, or there is no memory. */
void *slab_alloc(struct slab_heap *h, size_t size);
/* Any thread. */
void slab_free(void *p);
/* Takes in what was freed, and gives empty slabs back. */
void slab_reclaim(struct slab_heap *h);
/* Memory taken from the system. */
size_t slab_bytes(const struct slab_heap *h);

#endif
