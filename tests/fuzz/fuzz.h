/* What a fuzz target is: one function, as libFuzzer calls it. A target must not leak, crash, hang
 * or read beyond its input; sanitizers judge. Built with clang's -fsanitize=fuzzer by `make fuzz`,
 * and with replay.c (which also tries mutations of each corpus file) by `make test`. */
#ifndef PINTLE_TESTS_FUZZ_FUZZ_H
#define PINTLE_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many mutations of each corpus file the replay tries, where a target is too slow for 300. */
extern unsigned fuzz_mutations;

/* The replay also makes each allocation of a run fail once (base/mem.h): nothing may crash, leak or
 * hang then, and what else a target checks does not hold. A target that needs memory to set itself
 * up says that with fuzz_arms, and from where to where it may fail. */
__attribute__((weak)) bool fuzz_arms;
__attribute__((weak)) uint64_t fuzz_fail_at; /* which allocation; 0 = none */
__attribute__((weak)) bool fuzz_fired;

static inline void fuzz_memory_on(void)
{
    if (fuzz_fail_at) mem_fail_nth(fuzz_fail_at);
}

static inline void fuzz_memory_off(void)
{
    if (fuzz_fail_at && mem_fail_nth(0)) fuzz_fired = true;
}

#define FUZZ_CHECK(cond)                                                                           \
    do {                                                                                           \
        if (!(cond) && !fuzz_fail_at) abort();                                                     \
    } while (0)

#endif
