#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

#define ARENA_FIRST_CHUNK ((size_t)1024)
#define ARENA_LARGEST_CHUNK ((size_t)256 * 1024)

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    alignas(max_align_t) uint8_t data[];
};

void arena_init(struct arena *a, size_t cap)
{
    *a = (struct arena){.cap = cap};
}

static void free_from(struct arena_chunk *c)
{
    while (c) {
        struct arena_chunk *next = c->next;
        mem_free(c);
        c = next;
    }
}

void arena_release(struct arena *a)
{
    free_from(a->chunks);
    *a = (struct arena){.cap = a->cap};
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = a->chunks;
    if (!keep) return;
    while (keep->next) { /* the first one taken is the last in the chain */
        struct arena_chunk *next = keep->next;
        mem_free(keep);
        keep = next;
    }
    a->chunks = keep;
    a->next = keep->data;
    a->end = keep->data + keep->size;
    a->used = keep->size;
}

static struct arena_chunk *add_chunk(struct arena *a, size_t need)
{
    size_t size = a->used < ARENA_FIRST_CHUNK ? ARENA_FIRST_CHUNK : a->used;
    if (size > ARENA_LARGEST_CHUNK) size = ARENA_LARGEST_CHUNK;
    if (size < need) size = need;
    if (a->cap && (size > a->cap || a->used > a->cap - size)) {
        if (need > a->cap || a->used > a->cap - need) return NULL;
        size = need;
    }
    struct arena_chunk *c = mem_alloc(sizeof(*c) + size);
    if (!c) return NULL;
    c->size = size;
    c->next = a->chunks;
    a->chunks = c;
    a->next = c->data;
    a->end = c->data + size;
    a->used += size;
    return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (size == 0) size = alignof(max_align_t);
    if ((size_t)(a->end - a->next) < size && !add_chunk(a, size)) return NULL;
    void *p = a->next;
    a->next += size;
    return p;
}

void *arena_calloc(struct arena *a, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) return NULL;
    void *p = arena_alloc(a, total);
    return p ? memset(p, 0, total) : NULL;
}

struct slice arena_dup(struct arena *a, struct slice s)
{
    uint8_t *p = arena_alloc(a, s.len + 1);
    if (!p) return (struct slice){0};
    if (s.len) memcpy(p, s.data, s.len);
    p[s.len] = 0;
    return (struct slice){p, s.len};
}

const char *arena_strdup(struct arena *a, struct slice s)
{
    return (const char *)arena_dup(a, s).data;
}

const char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    char *p = len < 0 ? NULL : arena_alloc(a, (size_t)len + 1);
    if (p) vsnprintf(p, (size_t)len + 1, format, again);
    va_end(again);
    return p;
}
