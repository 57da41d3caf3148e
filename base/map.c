#include "base/map.h"

#include "base/mem.h"

/* Mixes all bits of an id into the low ones (the finaliser of splitmix64). */
static size_t home(const struct map *m, uint64_t id)
{
    id ^= id >> 30;
    id *= 0xbf58476d1ce4e5b9u;
    id ^= id >> 27;
    id *= 0x94d049bb133111ebu;
    id ^= id >> 31;
    return (size_t)id & (m->size - 1);
}

static struct map_slot *find(const struct map *m, uint64_t id)
{
    size_t i = home(m, id);
    while (m->slots[i].value && m->slots[i].id != id) i = (i + 1) & (m->size - 1);
    return &m->slots[i];
}

void map_release(struct map *m)
{
    mem_free(m->slots);
    *m = (struct map){0};
}

void *map_get(const struct map *m, uint64_t id)
{
    return m->size ? find(m, id)->value : NULL;
}

static void grow(struct map *m)
{
    struct map bigger = {.size = m->size ? m->size * 2 : 16, .count = m->count};
    bigger.slots = mem_must_calloc(bigger.size, sizeof(*bigger.slots));
    for (size_t i = 0; i < m->size; i++)
        if (m->slots[i].value) *find(&bigger, m->slots[i].id) = m->slots[i];
    mem_free(m->slots);
    *m = bigger;
}

void *map_put(struct map *m, uint64_t id, void *value)
{
    if (m->count * 4 >= m->size * 3) grow(m);
    struct map_slot *slot = find(m, id);
    void *before = slot->value;
    *slot = (struct map_slot){id, value};
    if (!before) m->count++;
    return before;
}

void *map_remove(struct map *m, uint64_t id)
{
    if (!m->size) return NULL;
    struct map_slot *slot = find(m, id);
    void *value = slot->value;
    if (!value) return NULL;
    m->count--;
    size_t mask = m->size - 1, hole = (size_t)(slot - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t want = home(m, m->slots[i].id);
        if (((i - want) & mask) < ((i - hole) & mask)) continue; /* it sits between its home and the hole */
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole].value = NULL;
    return value;
}

void *map_next(const struct map *m, size_t *at)
{
    while (*at < m->size) {
        void *value = m->slots[(*at)++].value;
        if (value) return value;
    }
    return NULL;
}
