/* Runs a fuzz target over its corpus, and over many mutations of each file: flips, cuts, repeats,
 * splices, from a fixed seed, so that the same corpus gives the same run. usage: fuzz_X FOLDER
 * [mutations per file]. Prints TAP. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

#define FILE_MAX (1u << 20)

__attribute__((weak)) unsigned fuzz_mutations = 300;

static uint64_t state = 0x2545f4914f6cdd1du;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t mutate(uint8_t *p, size_t n, size_t max)
{
    for (int times = 1 + (int)(next() % 4); times > 0 && n > 0; times--) {
        size_t at = next() % n, len = 1 + next() % (n - at > 16 ? 16 : n - at);
        switch (next() % 6) {
        case 0: p[at] ^= (uint8_t)(1u << (next() % 8)); break;
        case 1: p[at] = (uint8_t)next(); break;
        case 2: n = at; break;
        case 3:
            memmove(p + at, p + at + len, n - at - len);
            n -= len;
            break;
        case 4:
            if (n + len > max) break;
            memmove(p + at + len, p + at, n - at);
            n += len;
            break;
        default: memmove(p + at, p + next() % (n - len + 1), len); break;
        }
    }
    return n;
}

static void try_bytes(const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too many */
    memcpy(exact, p, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

/* The file with one allocation failing, for each of them, as long as `left` lasts; beyond the first
 * hundred with growing steps. */
static size_t starve(const uint8_t *p, size_t n, size_t *left)
{
    size_t runs = 0;
    for (uint64_t nth = 1; *left > 0; nth += 1 + nth / 100) {
        fuzz_fail_at = nth;
        fuzz_fired = false;
        if (!fuzz_arms) fuzz_memory_on();
        LLVMFuzzerTestOneInput(p, n);
        fuzz_memory_off();
        fuzz_fail_at = 0;
        if (!fuzz_fired) break;
        runs++;
        --*left;
    }
    return runs;
}

int main(int argc, char **argv)
{
    static uint8_t file[FILE_MAX], work[FILE_MAX];
    long mutations = argc > 2 ? atol(argv[2]) : (long)fuzz_mutations;
    DIR *d = argc > 1 ? opendir(argv[1]) : NULL;
    const struct dirent *e;
    size_t files = 0, runs = 0, starved = 0,
           left = getenv("PINTLE_LONG") ? SIZE_MAX : 40u * fuzz_mutations;
    if (!d) {
        printf("not ok 1 - no corpus folder %s\n", argc > 1 ? argv[1] : "");
        return 1;
    }
    while ((e = readdir(d)) != NULL) {
        char path[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
        FILE *f = fopen(path, "rb");
        size_t n = f ? fread(file, 1, sizeof(file), f) : 0;
        if (f) fclose(f);
        try_bytes(file, n);
        for (long i = 0; i < mutations; i++) {
            memcpy(work, file, n);
            try_bytes(work, mutate(work, n, sizeof(work)));
            runs++;
        }
        size_t share = left < 4u * fuzz_mutations || left == SIZE_MAX ? left : 4u * fuzz_mutations,
               some = share;
        starved += starve(file, n, &some);
        if (left != SIZE_MAX) left -= share - some;
        files++;
    }
    closedir(d);
    const char *name = strrchr(argv[0], '/');
    printf("%s 1 - %s: %zu files, %zu mutations, %zu times without memory\n1..1\n",
           files ? "ok" : "not ok", name ? name + 1 : argv[0], files, runs, starved);
    return files ? 0 : 1;
}
