/* A disk in memory behind struct env, for what reads and writes it before `start`: each call is
 * done when it returns. */
#ifndef PINTLE_TESTS_FUZZ_MEM_ENV_H
#define PINTLE_TESTS_FUZZ_MEM_ENV_H

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "raft/env.h"

enum { MEM_FILES = 32, MEM_FILE_MAX = 8 << 20 };

struct env_file {
    char path[64];
    uint8_t *data;
    size_t len;
};

struct mem_env {
    struct env env;
    struct env_file files[MEM_FILES];
    uint64_t random;
};

static inline struct env_file *mem_find(struct mem_env *m, const char *path)
{
    for (int i = 0; i < MEM_FILES; i++)
        if (m->files[i].path[0] && strcmp(m->files[i].path, path) == 0) return &m->files[i];
    return NULL;
}

static inline struct env_file *mem_create(struct mem_env *m, const char *path)
{
    struct env_file *f = mem_find(m, path);
    for (int i = 0; !f && i < MEM_FILES; i++)
        if (!m->files[i].path[0]) f = &m->files[i];
    CHECK(f && strlen(path) < sizeof(f->path));
    strcpy(f->path, path);
    return f;
}

static inline void mem_remove(struct env_file *f)
{
    free(f->data);
    memset(f, 0, sizeof(*f));
}

static inline int mem_put(struct env_file *f, uint64_t at, const void *data, size_t len)
{
    if (at + len > MEM_FILE_MAX) return ERR_NO_SPACE;
    if (at + len > f->len) {
        f->data = realloc(f->data, at + len);
        memset(f->data + f->len, 0, at + len - f->len);
        f->len = at + len;
    }
    if (len) memcpy(f->data + at, data, len);
    return 0;
}

static inline int mem_list(struct env *e, const char *dir,
                           void (*each)(void *ctx, const char *name), void *ctx, struct err *err)
{
    (void)err;
    struct mem_env *m = (struct mem_env *)e;
    size_t n = strlen(dir);
    for (int i = 0; i < MEM_FILES; i++) {
        const char *path = m->files[i].path;
        if (strncmp(path, dir, n) == 0 && path[n] == '/') each(ctx, path + n + 1);
        else if (*path && (!n || strcmp(dir, ".") == 0) && !strchr(path, '/')) each(ctx, path);
    }
    return 0;
}

static inline int mem_mkdir(struct env *e, const char *dir, struct err *err)
{
    (void)e, (void)dir, (void)err;
    return 0;
}

static inline int mem_read_file(struct env *e, const char *path, size_t max, struct buf *out,
                                struct err *err)
{
    struct env_file *f = mem_find((struct mem_env *)e, path);
    if (!f) return err_set(err, ERR_NOT_FOUND, "%s: no such file", path);
    if (f->len > max) return err_set(err, ERR_LIMIT, "%s: too large", path);
    return buf_append(out, f->data, f->len);
}

static inline int mem_write_file(struct env *e, const char *path, struct slice data,
                                 struct err *err)
{
    struct env_file *f = mem_create((struct mem_env *)e, path);
    (void)err;
    f->len = 0;
    return mem_put(f, 0, data.data, data.len);
}

static inline int mem_unlink_file(struct env *e, const char *path, struct err *err)
{
    struct env_file *f = mem_find((struct mem_env *)e, path);
    (void)err;
    if (f) mem_remove(f);
    return f ? 0 : ERR_NOT_FOUND;
}

static inline int mem_open(struct mem_env *m, struct env_io *io)
{
    struct env_file *f = mem_find(m, io->path);
    if (f && (io->flags & ENV_OPEN_EXCLUSIVE)) return ERR_EXISTS;
    if (!f && !(io->flags & ENV_OPEN_CREATE)) return ERR_NOT_FOUND;
    io->file = f ? f : mem_create(m, io->path);
    return 0;
}

static inline int mem_do(struct mem_env *m, struct env_io *io)
{
    struct env_file *f = io->file;
    int code = 0;
    switch (io->op) {
    case ENV_IO_OPEN: return mem_open(m, io);
    case ENV_IO_WRITE:
    case ENV_IO_WRITE_SYNC:
        for (uint64_t i = 0, at = io->offset; !code && i < io->n_iov; at += io->iov[i++].len)
            code = mem_put(f, at, io->iov[i].data, io->iov[i].len);
        return code;
    case ENV_IO_READ:
        io->ret_len = io->offset >= f->len            ? 0
                      : f->len - io->offset < io->len ? f->len - io->offset
                                                      : io->len;
        if (io->ret_len) memcpy(io->buffer, f->data + io->offset, io->ret_len);
        return 0;
    case ENV_IO_TRUNCATE:
        if (io->offset > f->len) return mem_put(f, io->offset, NULL, 0);
        f->len = io->offset;
        return 0;
    case ENV_IO_RENAME:
        f = mem_find(m, io->path);
        if (!f) return ERR_NOT_FOUND;
        if (mem_find(m, io->path2)) mem_remove(mem_find(m, io->path2));
        strcpy(f->path, io->path2);
        return 0;
    case ENV_IO_UNLINK: return mem_unlink_file(&m->env, io->path, NULL);
    default: return 0;
    }
}

static inline int mem_io_sync(struct env *e, struct env_io *io)
{
    return io->status = mem_do((struct mem_env *)e, io);
}

static inline uint64_t mem_now(struct env *e)
{
    (void)e;
    return 1000;
}

static inline uint64_t mem_random(struct env *e)
{
    return ((struct mem_env *)e)->random += 0x9e3779b97f4a7c15u;
}

static inline void mem_env_init(struct mem_env *m)
{
    static const struct env_ops ops = {.now_ms = mem_now,
                                       .random = mem_random,
                                       .list = mem_list,
                                       .mkdir = mem_mkdir,
                                       .read_file = mem_read_file,
                                       .write_file = mem_write_file,
                                       .unlink_file = mem_unlink_file,
                                       .io_sync = mem_io_sync};
    memset(m, 0, sizeof(*m));
    m->env.ops = &ops;
}

static inline void mem_env_release(struct mem_env *m)
{
    for (int i = 0; i < MEM_FILES; i++) free(m->files[i].data);
}

#endif
