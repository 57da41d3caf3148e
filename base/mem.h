/* All memory of the program: counted, swappable, and made to fail by tests.
 *
 * Two families. `mem_alloc` and friends may return NULL, and the caller turns that into ERR_NOMEM:
 * use them wherever a peer's input decides the size. `mem_must_*` stop the process with one clear
 * line: use them where going on without the memory would make members differ (applying a committed
 * command) and for small fixed structures. Free with `mem_free`, from any thread. */
#ifndef PINTLE_BASE_MEM_H
#define PINTLE_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1)));
void *mem_calloc(size_t count, size_t size) __attribute__((malloc, alloc_size(1, 2)));
void *mem_realloc(void *p, size_t size);
void mem_free(void *p);

void *mem_must_alloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));
void *mem_must_calloc(size_t count, size_t size)
    __attribute__((malloc, alloc_size(1, 2), returns_nonnull));
void *mem_must_realloc(void *p, size_t size) __attribute__((returns_nonnull));
char *mem_must_strdup(const char *text) __attribute__((malloc, returns_nonnull));

/* Whole pages straight from the system: `size` is a power of two, and the memory is aligned to it, zeroed, and gone at
 * once with mem_unmap. NULL when out of memory. */
void *mem_map(size_t size);
void mem_unmap(void *p, size_t size);

/* Tests: the allocation number `nth` from now (1 = the next) fails, and only that; 0 = none fails.
 * `mem_must_*` never fail this way. Returns whether the last one armed has fired. Per thread. */
bool mem_fail_nth(uint64_t nth);

/* Resident set size of this process in bytes, from /proc/self/statm; 0 where there is none. */
uint64_t mem_rss(void);

#endif
