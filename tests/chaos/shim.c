/* LD_PRELOAD for a member: its clocks and its disk under the control of a file (CHAOS_SHIM=path, mapped shared, of struct control below).
 * The harness writes the file; the member's calls of clock_gettime, pwritev, fdatasync and fsync look at it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Little-endian 64-bit words; the places are known to members.py. */
struct control {
    volatile int64_t wall_offset_ns;
    volatile int64_t drift_ppm;      /* of the monotonic clock, from drift_from_ns on */
    volatile int64_t drift_from_ns;  /* real monotonic time; what it had gained until then is in mono_offset_ns */
    volatile int64_t mono_offset_ns;
    volatile int64_t sync_delay_us, write_delay_us;
    volatile int64_t sync_errno, write_errno; /* the next calls fail so; 0 = none */
    volatile int64_t counted_syncs, failed;
};

static struct control none, *control = &none;
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fdatasync)(int), (*real_fsync)(int);

__attribute__((constructor)) static void start(void)
{
    const char *path = getenv("CHAOS_SHIM");
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    *(void **)&real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) control = p;
    else fprintf(stderr, "shim: no control file\n");
    if (fd >= 0) close(fd);
}

static void add_ns(struct timespec *t, int64_t ns)
{
    ns += t->tv_nsec;
    t->tv_sec += ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    if (t->tv_nsec < 0) t->tv_nsec += 1000000000, t->tv_sec--;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    if (!real_clock_gettime) start();
    int rv = real_clock_gettime(id, t);
    if (rv != 0) return rv;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) add_ns(t, control->wall_offset_ns);
    if (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE || id == CLOCK_BOOTTIME) {
        int64_t drift = control->drift_ppm, now = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
        add_ns(t, control->mono_offset_ns + (drift ? (now - control->drift_from_ns) / 1000000 * drift : 0));
    }
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (ret) *ret = t.tv_sec;
    return t.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

/* Pipes and sockets are not disks. */
static int is_file(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static void wait_us(int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us > 0) nanosleep(&t, NULL);
}

ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at)
{
    wait_us(control->write_delay_us);
    if (control->write_errno && is_file(fd)) {
        control->failed++;
        errno = (int)control->write_errno;
        return -1;
    }
    return real_pwritev(fd, iov, n, at);
}

/* A failed sync has not been one: what it was for stays in memory only. */
static int sync_fails(void)
{
    control->counted_syncs++;
    wait_us(control->sync_delay_us);
    if (!control->sync_errno) return 0;
    control->failed++;
    errno = (int)control->sync_errno;
    return -1;
}

int fdatasync(int fd)
{
    return sync_fails() ? -1 : real_fdatasync(fd);
}

int fsync(int fd)
{
    return sync_fails() ? -1 : real_fsync(fd);
}
