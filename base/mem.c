#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

static _Thread_local uint64_t fail_at; /* 0 = not armed */
static _Thread_local bool fail_fired;

bool mem_fail_nth(uint64_t nth)
{
    bool fired = fail_fired;
    fail_at = nth;
    fail_fired = false;
    return fired;
}

static bool must_fail(void)
{
    if (__builtin_expect(fail_at == 0, 1)) return false;
    if (--fail_at > 0) return false;
    fail_fired = true;
    return true;
}

void *mem_alloc(size_t size)
{
    return must_fail() ? NULL : malloc(size ? size : 1);
}

void *mem_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *p, size_t size)
{
    return must_fail() ? NULL : realloc(p, size ? size : 1);
}

void mem_free(void *p)
{
    free(p);
}

static void *must(void *p, size_t size)
{
    if (!p) log_fatal("out of memory: %zu bytes", size);
    return p;
}

void *mem_must_alloc(size_t size)
{
    return must(malloc(size ? size : 1), size);
}

void *mem_must_calloc(size_t count, size_t size)
{
    return must(calloc(count ? count : 1, size ? size : 1), size);
}

void *mem_must_realloc(void *p, size_t size)
{
    return must(realloc(p, size ? size : 1), size);
}

char *mem_must_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(mem_must_alloc(size), text, size);
}

void *mem_map(size_t size)
{
    char *p = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    char *from = (char *)(((uintptr_t)p + size - 1) & ~(uintptr_t)(size - 1));
    if (from > p) munmap(p, (size_t)(from - p));
    if (from < p + size) munmap(from + size, (size_t)(p + size - from));
    return from;
}

void mem_unmap(void *p, size_t size)
{
    munmap(p, size);
}

uint64_t mem_rss(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f) return 0;
    unsigned long long total = 0, resident = 0;
    int n = fscanf(f, "%llu %llu", &total, &resident);
    fclose(f);
    return n == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}
