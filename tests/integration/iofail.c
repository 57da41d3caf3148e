/* LD_PRELOAD for test_iofail.py and test_heal.py: makes the nth of chosen calls fail, once. The environment says which:
 *   IOFAIL_CALLS   names, separated by commas: open read write sync rename unlink truncate mkdir close stat list socket accept
 *                  connect recv send
 *   IOFAIL_PATH    only calls on files whose path holds this text; "socket:" for sockets
 *   IOFAIL_INODE   only calls on the file with this number, whatever its name
 *   IOFAIL_NTH     which of them, from 1; with IOFAIL_STICKY also all after it
 *   IOFAIL_ERROR   a number of errno; 0 = a short read or write instead
 *   IOFAIL_ARM     nothing is counted before this file exists
 *   IOFAIL_LOG     "<call> <path>" is written there when one fails; where that is so already (the program has executed itself
 *                  again) none fails any more, unless IOFAIL_STICKY */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static struct {
    const char *calls, *path, *arm, *log;
    long nth;
    unsigned long inode;
    int error;
    bool sticky;
    atomic_bool armed;
    atomic_long count;
} plan;

__attribute__((constructor)) static void start(void)
{
    const char *nth = getenv("IOFAIL_NTH"), *error = getenv("IOFAIL_ERROR"), *inode = getenv("IOFAIL_INODE");
    plan.path = getenv("IOFAIL_PATH");
    plan.arm = getenv("IOFAIL_ARM");
    plan.log = getenv("IOFAIL_LOG");
    plan.nth = nth ? atol(nth) : 0;
    plan.error = error ? atoi(error) : EIO;
    plan.sticky = getenv("IOFAIL_STICKY") != NULL;
    plan.calls = getenv("IOFAIL_CALLS");
    plan.inode = inode ? strtoul(inode, NULL, 10) : 0;
    if (plan.log && !plan.sticky && syscall(SYS_faccessat, AT_FDCWD, plan.log, F_OK) == 0) plan.nth = 0;
}

static bool named(const char *call)
{
    size_t len = strlen(call);
    for (const char *p = plan.calls; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strncmp(p, call, len) == 0 && (p[len] == ',' || p[len] == 0)) return true;
    return false;
}

static void tell(const char *call, const char *path)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "%s %s\n", call, path);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, plan.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                          0600);
    if (fd < 0) return;
    if (syscall(SYS_write, fd, line, n) < 0) abort();
    syscall(SYS_close, fd);
}

static bool is_inode(int fd, const char *path)
{
    struct stat s;
    int flags = path ? 0 : AT_EMPTY_PATH;
    return syscall(SYS_newfstatat, path && fd < 0 ? AT_FDCWD : fd, path ? path : "", &s, flags) == 0 && s.st_ino == plan.inode;
}

/* Whether this call is the one. `path` NULL: that of `fd`. */
static bool hit(const char *call, int fd, const char *path)
{
    char link[64], real[512];
    if (!plan.nth || !named(call)) return false;
    int saved = errno;
    if (!plan.armed && plan.arm && syscall(SYS_faccessat, AT_FDCWD, plan.arm, F_OK) != 0) {
        errno = saved;
        return false;
    }
    plan.armed = true;
    if (plan.inode && !is_inode(fd, path)) {
        errno = saved;
        return false;
    }
    if (!path) {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, real, sizeof(real) - 1);
        real[n > 0 ? n : 0] = 0;
        path = real;
    } else if (path[0] != '/' && fd >= 0) { /* relative to a folder */
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, real, sizeof(real) / 2);
        snprintf(real + (n > 0 ? n : 0), sizeof(real) / 2, "/%s", path);
        path = real;
    }
    errno = saved;
    if (plan.path && !strstr(path, plan.path)) return false;
    long n = atomic_fetch_add(&plan.count, 1) + 1;
    if (n != plan.nth && !(plan.sticky && n > plan.nth)) return false;
    if (plan.log) tell(call, path);
    errno = plan.error;
    return true;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(call, fd, path, value)                                                                \
    if (hit(call, fd, path)) return value

static mode_t open_mode(int flags, va_list ap)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(ap, int) : 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = open_mode(flags, ap);                                                        \
        va_end(ap);                                                                                \
        FAIL("open", -1, path, -1);                                                                \
        return REAL(name)(path, flags, mode);                                                      \
    }
#define OPENAT(name)                                                                               \
    int name(int dir, const char *path, int flags, ...)                                            \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, flags);                                                                       \
        mode_t mode = open_mode(flags, ap);                                                        \
        va_end(ap);                                                                                \
        FAIL("open", dir, path, -1);                                                               \
        return REAL(name)(dir, path, flags, mode);                                                 \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* A short transfer is half of what was asked for, one byte at least. */
static size_t half(size_t n)
{
    return n > 1 ? n / 2 : n;
}

#define TRANSFER(call, whole, part)                                                                \
    if (!hit(call, fd, NULL)) return whole;                                                        \
    return plan.error ? -1 : part

ssize_t read(int fd, void *to, size_t n)
{
    TRANSFER("read", REAL(read)(fd, to, n), REAL(read)(fd, to, half(n)));
}
ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    TRANSFER("read", REAL(pread)(fd, to, n, at), REAL(pread)(fd, to, half(n), at));
}
ssize_t pread64(int fd, void *to, size_t n, off_t at)
{
    TRANSFER("read", REAL(pread64)(fd, to, n, at), REAL(pread64)(fd, to, half(n), at));
}
ssize_t write(int fd, const void *from, size_t n)
{
    TRANSFER("write", REAL(write)(fd, from, n), REAL(write)(fd, from, half(n)));
}
ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
    TRANSFER("write", REAL(pwrite)(fd, from, n, at), REAL(pwrite)(fd, from, half(n), at));
}
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at)
{
    TRANSFER("write", REAL(pwrite64)(fd, from, n, at), REAL(pwrite64)(fd, from, half(n), at));
}
ssize_t writev(int fd, const struct iovec *v, int n)
{
    TRANSFER("write", REAL(writev)(fd, v, n), REAL(write)(fd, v->iov_base, half(v->iov_len)));
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t at)
{
    TRANSFER("write", REAL(pwritev)(fd, v, n, at),
             REAL(pwrite)(fd, v->iov_base, half(v->iov_len), at));
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off_t at)
{
    TRANSFER("write", REAL(pwritev64)(fd, v, n, at),
             REAL(pwrite)(fd, v->iov_base, half(v->iov_len), at));
}
ssize_t recv(int fd, void *to, size_t n, int flags)
{
    TRANSFER("recv", REAL(recv)(fd, to, n, flags), REAL(recv)(fd, to, half(n), flags));
}
ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
    TRANSFER("recv", REAL(recvmsg)(fd, m, flags), REAL(recvmsg)(fd, m, flags));
}
ssize_t send(int fd, const void *from, size_t n, int flags)
{
    TRANSFER("send", REAL(send)(fd, from, n, flags), REAL(send)(fd, from, half(n), flags));
}
ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
    TRANSFER("send", REAL(sendmsg)(fd, m, flags),
             REAL(send)(fd, m->msg_iov->iov_base, half(m->msg_iov->iov_len), flags));
}

int fsync(int fd)
{
    FAIL("sync", fd, NULL, -1);
    return REAL(fsync)(fd);
}
int fdatasync(int fd)
{
    FAIL("sync", fd, NULL, -1);
    return REAL(fdatasync)(fd);
}
int ftruncate(int fd, off_t n)
{
    FAIL("truncate", fd, NULL, -1);
    return REAL(ftruncate)(fd, n);
}
int ftruncate64(int fd, off_t n)
{
    FAIL("truncate", fd, NULL, -1);
    return REAL(ftruncate64)(fd, n);
}
int fstat(int fd, struct stat *s)
{
    FAIL("stat", fd, NULL, -1);
    return REAL(fstat)(fd, s);
}
/* The descriptor is gone all the same, as on Linux. */
int close(int fd)
{
    if (!hit("close", fd, NULL)) return REAL(close)(fd);
    int error = errno;
    REAL(close)(fd);
    errno = error;
    return -1;
}
DIR *fdopendir(int fd)
{
    FAIL("list", fd, NULL, NULL);
    return REAL(fdopendir)(fd);
}
int rename(const char *from, const char *to)
{
    FAIL("rename", -1, from, -1);
    return REAL(rename)(from, to);
}
int renameat(int a, const char *from, int b, const char *to)
{
    FAIL("rename", a, from, -1);
    return REAL(renameat)(a, from, b, to);
}
int unlinkat(int dir, const char *path, int flags)
{
    FAIL("unlink", dir, path, -1);
    return REAL(unlinkat)(dir, path, flags);
}
int mkdir(const char *path, mode_t mode)
{
    FAIL("mkdir", -1, path, -1);
    return REAL(mkdir)(path, mode);
}
int mkdirat(int dir, const char *path, mode_t mode)
{
    FAIL("mkdir", dir, path, -1);
    return REAL(mkdirat)(dir, path, mode);
}
int socket(int domain, int type, int protocol)
{
    FAIL("socket", -1, "socket:", -1);
    return REAL(socket)(domain, type, protocol);
}
int accept4(int fd, struct sockaddr *restrict a, socklen_t *restrict len, int flags)
{
    FAIL("accept", fd, NULL, -1);
    return REAL(accept4)(fd, a, len, flags);
}
int connect(int fd, const struct sockaddr *a, socklen_t len)
{
    FAIL("connect", fd, NULL, -1);
    return REAL(connect)(fd, a, len);
}
