/* Starting this very process again, from the one thread that hears its signals. */
#ifndef PINTLE_BASE_PROCESS_H
#define PINTLE_BASE_PROCESS_H

/* Replaces the process by a fresh one of the same binary, arguments, environment and pid, after a pause that grows from
 * 0.1 s to 25 s while such starts follow each other within a minute. Files opened with O_CLOEXEC are closed by it. When that
 * cannot be done, the process exits with 1 and whoever supervises it has to. Told to stop meanwhile (SIGTERM, SIGINT), it exits with 0. */
_Noreturn void process_restart(const char *why);

#endif
