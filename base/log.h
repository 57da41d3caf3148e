/* One line a message on standard error, key=value, as programs (not libraries) write it:
 *   2026-01-02T03:04:05.678Z info  server: became leader term=7
 * The level is checked before anything is formatted. Any thread. */
#ifndef PINTLE_BASE_LOG_H
#define PINTLE_BASE_LOG_H

#include <stdbool.h>
#include <stdatomic.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

extern _Atomic int log_threshold; /* LOG_INFO at start */

void log_set_level(enum log_level level);
/* "debug", "info", "warn", "error"; false if it is none of them. */
bool log_level_parse(const char *name, enum log_level *ret_level);
/* Names the program in each line ("server", "scheduler"); borrowed for good. */
void log_set_name(const char *name);
/* Where messages go instead of standard error, for tests; NULL = back to standard error. */
void log_set_sink(void (*sink)(enum log_level level, const char *line));
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Logs at error and stops the process with exit status 1: for what must not go on (a disk error). */
void log_fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#define log_at(level, ...)                                                                         \
    do {                                                                                           \
        if ((int)(level) >= log_threshold) log_write((level), __VA_ARGS__);                        \
    } while (0)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_at(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)

#endif
