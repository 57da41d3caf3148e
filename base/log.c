#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"

_Atomic int log_threshold = LOG_INFO;

static const char *const names[] = {"debug", "info", "warn", "error"};
static const char *program = "pintle";
static void (*log_sink)(enum log_level level, const char *line);

void log_set_level(enum log_level level)
{
    log_threshold = (int)level;
}

bool log_level_parse(const char *name, enum log_level *ret_level)
{
    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *ret_level = (enum log_level)i;
        return true;
    }
    return false;
}

void log_set_name(const char *name)
{
    program = name;
}

void log_set_sink(void (*sink)(enum log_level level, const char *line))
{
    log_sink = sink;
}

/* One write(2) a line, so that lines of several threads and processes do not mix. */
__attribute__((format(printf, 2, 0))) static void log_line(enum log_level level, const char *format, va_list ap)
{
    char line[2048];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    size_t at = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    at += (size_t)snprintf(line + at, sizeof(line) - at, ".%03ldZ %-5s %s: ", now.tv_nsec / 1000000,
                           names[level], program);
    int n = vsnprintf(line + at, sizeof(line) - at - 1, format, ap);
    if (n > 0) at += (size_t)n;
    if (at > sizeof(line) - 2) at = sizeof(line) - 2;
    for (size_t i = 0; i < at; i++)
        if (line[i] == '\n' || line[i] == '\r') line[i] = ' ';
    line[at] = 0;
    if (log_sink) {
        log_sink(level, line);
        return;
    }
    line[at++] = '\n';
    if (write(STDERR_FILENO, line, at) < 0) return; /* nowhere left to say it */
}

void log_write(enum log_level level, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    log_line(level, format, ap);
    va_end(ap);
}

void log_fatal(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    log_line(LOG_ERROR, format, ap);
    va_end(ap);
    _exit(1);
}

void check_failed(const char *file, int line, const char *what)
{
    log_write(LOG_ERROR, "bug: check failed: %s at=%s:%d", what, file, line);
    abort();
}
