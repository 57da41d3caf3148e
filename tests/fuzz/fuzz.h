/* What a fuzz target is: one function, as libFuzzer calls it. A target must not leak, crash, hang or read beyond its input; sanitizers
 * judge. Built with clang's -fsanitize=fuzzer by `make fuzz`, and with replay.c (which also tries mutations of each corpus file)
 * by `make test`. */
#ifndef PINTLE_TESTS_FUZZ_FUZZ_H
#define PINTLE_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How many mutations of each corpus file the replay tries, where a target is too slow for 300. */
extern unsigned fuzz_mutations;

#endif
