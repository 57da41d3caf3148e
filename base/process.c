#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define RESTARTS_VARIABLE "PINTLE_RESTARTS" /* how many have followed each other, and when the last one was (ms) */
#define ARGUMENTS_BYTES 65536
#define ARGUMENTS_MAX 512
#define PAUSE_MS 100u
#define DOUBLINGS_MAX 8u
#define QUIET_MS 60000u

static char bytes[ARGUMENTS_BYTES];
static char *arguments[ARGUMENTS_MAX + 1];

/* The command line as the kernel has it: words that each end with a 0. */
static int read_arguments(void)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n = 1;
    while (fd >= 0 && n > 0 && len < sizeof bytes) {
        n = read(fd, bytes + len, sizeof bytes - len);
        if (n > 0) len += (size_t)n;
    }
    if (fd >= 0) close(fd);
    if (len == 0 || len == sizeof bytes || bytes[len - 1] != 0) return 0;
    int count = 0;
    for (size_t at = 0; at < len && count < ARGUMENTS_MAX; at++) {
        if (at == 0 || bytes[at - 1] == 0) arguments[count++] = bytes + at;
    }
    return count < ARGUMENTS_MAX ? count : 0;
}

static unsigned count_restart(void)
{
    unsigned n = 0;
    unsigned long long last = 0, now = clock_mono_ms();
    const char *text = getenv(RESTARTS_VARIABLE);
    char next[64];
    if (!text || sscanf(text, "%u %llu", &n, &last) != 2 || now - last > QUIET_MS) n = 0;
    snprintf(next, sizeof next, "%u %llu", n + 1, now);
    setenv(RESTARTS_VARIABLE, next, 1);
    return n < DOUBLINGS_MAX ? n : DOUBLINGS_MAX;
}

/* One that comes later, and is not taken by another thread, ends the process as soon as it is no longer blocked. */
static bool told_to_stop(const sigset_t *signals, unsigned within_ms)
{
    struct timespec pause = {.tv_sec = within_ms / 1000, .tv_nsec = within_ms % 1000 * 1000000};
    int sig;
    while ((sig = sigtimedwait(signals, NULL, &pause)) < 0 && errno == EINTR) continue;
    return sig > 0;
}

_Noreturn void process_restart(const char *why)
{
    unsigned pause_ms = PAUSE_MS << count_restart();
    sigset_t stop, none;
    sigemptyset(&none);
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    log_error("starting again in %u ms: %s", pause_ms, why);
    if (told_to_stop(&stop, pause_ms)) {
        log_info("stopped");
        _exit(0);
    }
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    if (read_arguments()) execv("/proc/self/exe", arguments);
    log_error("cannot start again");
    _exit(1);
}
