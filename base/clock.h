/* Time of the real machine. The state machine and the consensus glue never include this: they are
 * given the time. */
#ifndef PINTLE_BASE_CLOCK_H
#define PINTLE_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_ms(void); /* CLOCK_MONOTONIC */
uint64_t clock_mono_us(void);
uint64_t clock_mono_ns(void);
int64_t clock_wall_ms(void); /* since the Unix epoch */
/* CPU time used by this process, microseconds. */
uint64_t clock_cpu_us(void);

#endif
