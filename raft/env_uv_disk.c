/* Files of the data folder: synchronous calls for opening, and two threads that each work through a queue.
 *
 * Every failure carries the path and the system's reason. Nothing is retried: the callers stop the member, or, where what is on
 * the disk cannot be read any more, treat the file as damaged. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/env_uv_int.h"

static int code_of_errno(int number)
{
    switch (number) {
    case ENOENT: return ERR_NOT_FOUND;
    case EEXIST: return ERR_EXISTS;
    case ENOSPC:
    case EDQUOT: return ERR_NO_SPACE;
    case ENOMEM: return ERR_NOMEM;
    default: return ERR_IO;
    }
}

/* What disks and file systems answer about a place that they have lost. Too many open files, no memory: that is not it. */
static bool is_damage(int number)
{
    return number == EIO || number == EUCLEAN || number == EBADMSG || number == EILSEQ || number == ENODATA;
}

static int fail(struct err *e, const char *what, const char *path)
{
    int number = errno;
    return err_set(e, code_of_errno(number), "cannot %s %s: %s", what, path, strerror(number));
}

/* ---- single operations --------------------------------------------------------------------------- */

static int sync_parent(struct env_uv *u, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char dir[512] = ".";
    if (slash && snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path) >= (int)sizeof(dir))
        return err_set(e, ERR_INVALID, "path too long: %s", path);
    int fd = openat(u->dir_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail(e, "open", dir);
    int rv = fsync(fd) != 0 ? fail(e, "sync", dir) : 0;
    close(fd);
    return rv;
}

static int io_open(struct env_uv *u, struct env_io *io)
{
    int flags = O_CLOEXEC | (io->flags & ENV_OPEN_WRITE ? O_RDWR : O_RDONLY);
    if (io->flags & ENV_OPEN_CREATE) flags |= O_CREAT;
    if (io->flags & ENV_OPEN_EXCLUSIVE) flags |= O_EXCL;
    int fd = openat(u->dir_fd, io->path, flags, 0600);
    if (fd < 0 && is_damage(errno) && !(io->flags & ENV_OPEN_CREATE))
        return err_set(&io->err, ERR_CORRUPT, "offset 0: cannot be opened: %s", strerror(errno));
    if (fd < 0) return fail(&io->err, "open", io->path);
    if (io->flags & ENV_OPEN_CREATE) {
        int rv = sync_parent(u, io->path, &io->err);
        if (rv != 0) {
            close(fd);
            return rv;
        }
    }
    io->file = mem_must_alloc(sizeof(*io->file));
    io->file->fd = fd;
    io->file->path = mem_must_strdup(io->path);
    io->file->cold = io->flags & ENV_OPEN_COLD;
    return 0;
}

static int io_write(struct env_io *io)
{
    struct iovec iov[ENV_IOV_MAX];
    unsigned n = 0, first = 0;
    off_t at = (off_t)io->offset;
    for (unsigned i = 0; i < io->n_iov; i++)
        if (io->iov[i].len) iov[n++] = (struct iovec){(void *)io->iov[i].data, io->iov[i].len};
    while (first < n) {
        ssize_t done = pwritev(io->file->fd, iov + first, (int)(n - first), at);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return fail(&io->err, "write", io->file->path);
        if (done == 0) return err_set(&io->err, ERR_IO, "cannot write %s: nothing written", io->file->path);
        at += done;
        for (size_t left = (size_t)done; left > 0;) {
            size_t part = left < iov[first].iov_len ? left : iov[first].iov_len;
            iov[first].iov_base = (char *)iov[first].iov_base + part;
            iov[first].iov_len -= part;
            left -= part;
            if (iov[first].iov_len == 0) first++;
        }
    }
    return 0;
}

static int io_sync(struct env_io *io)
{
    return fdatasync(io->file->fd) != 0 ? fail(&io->err, "sync", io->file->path) : 0;
}

/* Whole pages only, and none that waits to be written. */
static void let_go(const struct env_io *io)
{
    if (io->file->cold) (void)posix_fadvise(io->file->fd, (off_t)io->offset, (off_t)io->len, POSIX_FADV_DONTNEED);
}

static int io_read(struct env_io *io)
{
    io->ret_len = 0;
    let_go(io);
    while (io->ret_len < io->len) {
        ssize_t n = pread(io->file->fd, (char *)io->buffer + io->ret_len, io->len - io->ret_len,
                          (off_t)(io->offset + io->ret_len));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && is_damage(errno)) {
            return err_set(&io->err, ERR_CORRUPT, "offset %" PRIu64 ": cannot be read: %s", io->offset + io->ret_len,
                           strerror(errno));
        }
        if (n < 0) return fail(&io->err, "read", io->file->path);
        if (n == 0) break;
        io->ret_len += (size_t)n;
    }
    let_go(io);
    return 0;
}

static int io_close(struct env_io *io)
{
    close(io->file->fd);
    mem_free(io->file->path);
    mem_free(io->file);
    io->file = NULL;
    return 0;
}

static int io_rename(struct env_uv *u, struct env_io *io)
{
    if (renameat(u->dir_fd, io->path, u->dir_fd, io->path2) != 0)
        return fail(&io->err, "rename", io->path);
    return sync_parent(u, io->path2, &io->err);
}

static int io_unlink(struct env_uv *u, struct env_io *io)
{
    if (unlinkat(u->dir_fd, io->path, 0) != 0) return fail(&io->err, "remove", io->path);
    return sync_parent(u, io->path, &io->err);
}

static int io_truncate(struct env_io *io)
{
    if (ftruncate(io->file->fd, (off_t)io->offset) != 0)
        return fail(&io->err, "truncate", io->file->path);
    return io_sync(io);
}

static int run_io(struct env_uv *u, struct env_io *io)
{
    int rv;
    switch (io->op) {
    case ENV_IO_OPEN: return io_open(u, io);
    case ENV_IO_WRITE: return io_write(io);
    case ENV_IO_SYNC: return io_sync(io);
    case ENV_IO_WRITE_SYNC:
        rv = io_write(io);
        return rv ? rv : io_sync(io);
    case ENV_IO_READ: return io_read(io);
    case ENV_IO_CLOSE: return io_close(io);
    case ENV_IO_RENAME: return io_rename(u, io);
    case ENV_IO_UNLINK: return io_unlink(u, io);
    case ENV_IO_TRUNCATE: return io_truncate(io);
    }
    return ERR_INVALID;
}

int disk_io_sync(struct env *e, struct env_io *io)
{
    io->status = run_io(env_uv_of(e), io);
    return io->status;
}

/* ---- the threads ---------------------------------------------------------------------------------- */

static void *lane_main(void *arg)
{
    struct disk_lane *lane = arg;
    pthread_mutex_lock(&lane->lock);
    for (;;) {
        while (list_empty(&lane->queue) && !lane->stop) pthread_cond_wait(&lane->more, &lane->lock);
        struct list *node = list_pop_front(&lane->queue);
        if (!node) break;
        pthread_mutex_unlock(&lane->lock);
        struct env_io *io = container_of(node, struct env_io, node);
        io->status = run_io(lane->env, io);
        pthread_mutex_lock(&lane->lock);
        list_push_back(&lane->done, &io->node);
        uv_async_send(&lane->env->disk_done);
    }
    pthread_mutex_unlock(&lane->lock);
    return NULL;
}

static void complete_lane(struct disk_lane *lane)
{
    struct list done, *node;
    list_init(&done);
    pthread_mutex_lock(&lane->lock);
    while ((node = list_pop_front(&lane->done)) != NULL) list_push_back(&done, node);
    pthread_mutex_unlock(&lane->lock);
    while ((node = list_pop_front(&done)) != NULL) {
        struct env_io *io = container_of(node, struct env_io, node);
        lane->active--;
        io->done(io);
    }
}

static void on_disk_done(uv_async_t *h)
{
    struct env_uv *u = h->data;
    complete_lane(&u->lanes[ENV_LANE_LOG]);
    complete_lane(&u->lanes[ENV_LANE_BULK]);
    env_uv_maybe_stopped(u);
}

/* Started at the first use: a member without snapshots under way has no second thread. */
static void lane_start(struct disk_lane *lane)
{
    lane->started = true;
    if (pthread_create(&lane->thread, NULL, lane_main, lane) != 0)
        log_fatal("raft: cannot start a disk thread");
}

void disk_io(struct env *e, struct env_io *io)
{
    struct disk_lane *lane = &env_uv_of(e)->lanes[io->lane];
    if (!lane->started) lane_start(lane);
    lane->active++;
    pthread_mutex_lock(&lane->lock);
    list_push_back(&lane->queue, &io->node);
    pthread_cond_signal(&lane->more);
    pthread_mutex_unlock(&lane->lock);
}

size_t disk_active(const struct env_uv *u)
{
    return u->lanes[0].active + u->lanes[1].active;
}

static void on_async_closed(uv_handle_t *h)
{
    env_uv_handle_closed(h->data);
}

void disk_stop(struct env_uv *u)
{
    for (int i = 0; i < 2; i++) {
        struct disk_lane *lane = &u->lanes[i];
        if (!lane->started) continue;
        pthread_mutex_lock(&lane->lock);
        lane->stop = true;
        pthread_cond_signal(&lane->more);
        pthread_mutex_unlock(&lane->lock);
        pthread_join(lane->thread, NULL);
        lane->started = false;
    }
    uv_close((uv_handle_t *)&u->disk_done, on_async_closed);
}

/* ---- the data folder ------------------------------------------------------------------------------- */

static int make_dirs(const char *path, struct err *e)
{
    char part[4096];
    size_t len = strlen(path);
    if (len >= sizeof(part)) return err_set(e, ERR_INVALID, "path too long: %s", path);
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST) return fail(e, "create folder", part);
    }
    return 0;
}

static int take_lock(struct env_uv *u, struct err *e)
{
    u->lock_fd = openat(u->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (u->lock_fd < 0) return fail(e, "write in data folder", u->options.data_dir);
    if (flock(u->lock_fd, LOCK_EX | LOCK_NB) == 0) return 0;
    return err_set(e, ERR_BUSY, "data folder %s is in use by another process", u->options.data_dir);
}

int disk_open(struct env_uv *u, struct err *e)
{
    for (int i = 0; i < 2; i++) {
        struct disk_lane *lane = &u->lanes[i];
        lane->env = u;
        list_init(&lane->queue);
        list_init(&lane->done);
        pthread_mutex_init(&lane->lock, NULL);
        pthread_cond_init(&lane->more, NULL);
    }
    uv_async_init(u->loop, &u->disk_done, on_disk_done);
    u->disk_done.data = u;
    u->open_handles++;
    int rv = make_dirs(u->options.data_dir, e);
    if (rv != 0) return rv;
    u->dir_fd = open(u->options.data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (u->dir_fd < 0) return fail(e, "open data folder", u->options.data_dir);
    return take_lock(u, e);
}

void disk_close(struct env_uv *u)
{
    for (int i = 0; i < 2; i++) {
        pthread_mutex_destroy(&u->lanes[i].lock);
        pthread_cond_destroy(&u->lanes[i].more);
    }
    if (u->lock_fd >= 0) close(u->lock_fd);
    if (u->dir_fd >= 0) close(u->dir_fd);
}

/* ---- synchronous calls ------------------------------------------------------------------------------ */

int disk_list(struct env *e, const char *dir, void (*each)(void *ctx, const char *name), void *ctx, struct err *err)
{
    int fd = openat(env_uv_of(e)->dir_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int rv = fail(err, "list", dir);
        if (fd >= 0) close(fd);
        return rv;
    }
    if (fsync(fd) != 0) {
        int rv = fail(err, "sync", dir);
        closedir(d);
        return rv;
    }
    const struct dirent *entry;
    while ((errno = 0, entry = readdir(d)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(ctx, entry->d_name);
    int rv = errno ? fail(err, "list", dir) : 0; /* else what lies behind it would be missing without a word */
    closedir(d);
    return rv;
}

int disk_mkdir(struct env *e, const char *dir, struct err *err)
{
    struct env_uv *u = env_uv_of(e);
    if (mkdirat(u->dir_fd, dir, 0700) != 0 && errno != EEXIST) return fail(err, "create folder", dir);
    return sync_parent(u, dir, err);
}

/* What was said of the operation; of a place that is lost it does not name the file. */
static int read_failed(const struct env_io *io, int rv, struct err *err)
{
    return rv == ERR_CORRUPT ? err_set(err, rv, "%s: %.200s", io->path, io->err.text) : err_set(err, rv, "%s", io->err.text);
}

int disk_read_file(struct env *e, const char *path, size_t max, struct buf *out, struct err *err)
{
    struct env_io io = {.op = ENV_IO_OPEN, .path = path};
    if (disk_io_sync(e, &io) != 0) return read_failed(&io, io.status, err);
    struct stat st;
    int rv = 0;
    if (fstat(io.file->fd, &st) != 0) rv = fail(err, "stat", path);
    else if ((uint64_t)st.st_size > max) rv = err_set(err, ERR_LIMIT, "%s is too large", path);
    else if (!(io.buffer = buf_reserve(out, (size_t)st.st_size + 1))) rv = ERR_NOMEM;
    if (rv == 0) {
        io.len = (size_t)st.st_size;
        rv = io_read(&io);
        if (rv == 0) out->len += io.ret_len;
        else rv = read_failed(&io, rv, err);
    }
    io_close(&io);
    return rv;
}

int disk_write_file(struct env *e, const char *path, struct slice data, struct err *err)
{
    char temporary[512];
    if (snprintf(temporary, sizeof(temporary), "%s.tmp", path) >= (int)sizeof(temporary))
        return err_set(err, ERR_INVALID, "path too long: %s", path);
    struct env_io io = {.op = ENV_IO_OPEN, .path = temporary, .flags = ENV_OPEN_WRITE | ENV_OPEN_CREATE};
    int rv = disk_io_sync(e, &io);
    if (rv == 0) {
        io.iov[0] = data;
        io.n_iov = 1;
        rv = ftruncate(io.file->fd, 0) != 0 ? fail(&io.err, "truncate", temporary) : io_write(&io);
        if (rv == 0) rv = io_sync(&io);
        io_close(&io);
    }
    io.path2 = path;
    if (rv == 0) rv = io_rename(env_uv_of(e), &io);
    if (rv != 0 && err) *err = io.err;
    return rv;
}

int disk_unlink_file(struct env *e, const char *path, struct err *err)
{
    struct env_io io = {.op = ENV_IO_UNLINK, .path = path};
    int rv = disk_io_sync(e, &io);
    if (rv != 0 && err) *err = io.err;
    return rv;
}
