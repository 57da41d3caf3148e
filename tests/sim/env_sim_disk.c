/* The simulated disk: files with a live and a durable image, names with a live and a durable table,
 * two lanes that take their time, and what a crash leaves of all that. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/mem.h"
#include "env_sim_int.h"

enum { SECTOR = 512, SLOW_MAX_US = 1000000 };

/* ---- files
 * --------------------------------------------------------------------------------------- */

static struct sim_inode *inode_new(void)
{
    struct sim_inode *i = mem_must_calloc(1, sizeof *i);
    buf_init(&i->live, SIZE_MAX);
    buf_init(&i->durable, SIZE_MAX);
    list_init(&i->writes);
    return i;
}

static void write_free(struct sim_write *w)
{
    list_remove(&w->node);
    buf_release(&w->bytes);
    mem_free(w);
}

static void inode_unref(struct sim_inode *i)
{
    if (!i || --i->refs > 0) return;
    list_for_each(n, &i->writes) write_free(container_of(n, struct sim_write, node));
    for (unsigned k = 0; k < SIM_OLD_WRITES; k++) {
        buf_release(&i->old[k].before);
        buf_release(&i->old[k].after);
    }
    buf_release(&i->live);
    buf_release(&i->durable);
    mem_free(i);
}

/* What the disk holds is the world's, whose memory does not fail when a test lets that of the members fail. */
static void image_room(struct buf *b, size_t len)
{
    if (len <= b->size && b->data) return;
    size_t size = b->size ? b->size : 64;
    while (size < len) size *= 2;
    b->data = mem_must_realloc(b->data, size);
    b->size = size;
}

static void image_resize(struct buf *b, size_t len)
{
    image_room(b, len);
    if (len > b->len) memset(b->data + b->len, 0, len - b->len);
    b->len = len;
}

static void image_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0) return;
    image_room(b, b->len + len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void image_write(struct buf *b, uint64_t offset, const uint8_t *data, size_t len)
{
    if (len == 0) return;
    if (offset + len > b->len) image_resize(b, offset + len);
    memcpy(b->data + offset, data, len);
}

static void image_copy(struct buf *to, const struct buf *from)
{
    buf_clear(to);
    image_append(to, from->data, from->len);
}

static void image_apply(struct buf *b, const struct sim_write *w)
{
    if (w->truncate) image_resize(b, w->offset);
    else image_write(b, w->offset, w->bytes.data, w->bytes.len);
}

/* Keeps what the write is about to replace. */
static void remember(struct sim_inode *i, const struct sim_write *w)
{
    struct sim_old *o = &i->old[i->n_old++ % SIM_OLD_WRITES];
    buf_clear(&o->before);
    buf_clear(&o->after);
    o->offset = w->offset;
    size_t have = w->offset < i->live.len ? (size_t)(i->live.len - w->offset) : 0;
    if (have > w->bytes.len) have = w->bytes.len;
    if (have) image_append(&o->before, i->live.data + w->offset, have);
    image_resize(&o->before, w->bytes.len);
    image_append(&o->after, w->bytes.data, w->bytes.len);
}

static void inode_pend(struct sim_disk *d, struct sim_inode *i, struct sim_write *w)
{
    w->seq = ++d->write_seq;
    list_push_back(&i->writes, &w->node);
    image_apply(&i->live, w);
}

static void inode_sync(struct sim_inode *i, uint64_t upto_seq)
{
    list_for_each(n, &i->writes)
    {
        struct sim_write *w = container_of(n, struct sim_write, node);
        if (w->seq > upto_seq) break;
        image_apply(&i->durable, w);
        write_free(w);
    }
}

/* ---- names
 * --------------------------------------------------------------------------------------- */

static size_t names_place(const struct sim_names *t, const char *path, bool *ret_found)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = strcmp(t->names[mid].path, path);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    *ret_found = false;
    return lo;
}

static struct sim_inode *names_get(const struct sim_names *t, const char *path)
{
    bool found;
    size_t i = names_place(t, path, &found);
    return found ? t->names[i].inode : NULL;
}

static void names_set(struct sim_names *t, const char *path, struct sim_inode *inode)
{
    bool found;
    size_t i = names_place(t, path, &found);
    inode->refs++;
    if (found) {
        inode_unref(t->names[i].inode);
        t->names[i].inode = inode;
        return;
    }
    if (t->n == t->size) {
        t->size = t->size ? 2 * t->size : 16;
        t->names = mem_must_realloc(t->names, t->size * sizeof *t->names);
    }
    memmove(t->names + i + 1, t->names + i, (t->n - i) * sizeof *t->names);
    t->names[i] = (struct sim_name){mem_must_strdup(path), inode};
    t->n++;
}

static void names_remove(struct sim_names *t, const char *path)
{
    bool found;
    size_t i = names_place(t, path, &found);
    if (!found) return;
    inode_unref(t->names[i].inode);
    mem_free(t->names[i].path);
    t->n--;
    memmove(t->names + i, t->names + i + 1, (t->n - i) * sizeof *t->names);
}

static void names_release(struct sim_names *t)
{
    while (t->n) names_remove(t, t->names[t->n - 1].path);
    mem_free(t->names);
}

static void names_rename(struct sim_names *t, const char *from, const char *to,
                         struct sim_inode *inode)
{
    names_set(t, to, inode);
    if (strcmp(from, to) != 0) names_remove(t, from);
}

static size_t dir_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

static bool same_dir(const char *a, const char *b)
{
    size_t n = dir_len(a);
    return n == dir_len(b) && memcmp(a, b, n) == 0;
}

/* fsync of the folder that `path` is in. */
static void sync_dir(struct sim_disk *d, const char *path)
{
    for (size_t i = d->durable.n; i-- > 0;) {
        const char *name = d->durable.names[i].path;
        if (same_dir(name, path) && !names_get(&d->live, name)) names_remove(&d->durable, name);
    }
    for (size_t i = 0; i < d->live.n; i++) {
        const struct sim_name *n = &d->live.names[i];
        if (same_dir(n->path, path)) names_set(&d->durable, n->path, n->inode);
    }
}

/* ---- a whole disk
 * -------------------------------------------------------------------------------- */

struct sim_disk *sim_disk_new(void)
{
    return mem_must_calloc(1, sizeof(struct sim_disk));
}

void sim_disk_free(struct sim_disk *d)
{
    if (!d) return;
    names_release(&d->live);
    names_release(&d->durable);
    for (size_t i = 0; i < d->n_dirs; i++) mem_free(d->dirs[i]);
    mem_free(d->dirs);
    mem_free(d->last_write_file);
    mem_free(d);
}

static bool has_dir(const struct sim_disk *d, const char *path, size_t len)
{
    if (len == 0) return true;
    for (size_t i = 0; i < d->n_dirs; i++) {
        if (strlen(d->dirs[i]) == len && memcmp(d->dirs[i], path, len) == 0) return true;
    }
    return false;
}

static void add_dir(struct sim_disk *d, const char *path)
{
    d->dirs = mem_must_realloc(d->dirs, (d->n_dirs + 1) * sizeof *d->dirs);
    d->dirs[d->n_dirs++] = mem_must_strdup(path);
}

static uint64_t disk_used(const struct sim_disk *d)
{
    uint64_t used = 0;
    for (size_t i = 0; i < d->live.n; i++) used += d->live.names[i].inode->live.len;
    return used;
}

static bool disk_full(const struct sim_disk *d, const struct sim_inode *i, uint64_t end)
{
    if (!d->capacity || end <= i->live.len) return false;
    return disk_used(d) + (end - i->live.len) > d->capacity;
}

/* ---- crashes
 * ------------------------------------------------------------------------------------- */

/* What chance keeps of the writes that were not synced. */
enum keep { KEEP_NONE, KEEP_ALL, KEEP_PREFIX, KEEP_SECTORS };

static void keep_sectors(struct sim *s, struct buf *to, const struct buf *now,
                         const struct sim_write *w, unsigned ppm)
{
    if (w->truncate) {
        if (sim_chance(&s->disk_random, ppm)) image_resize(to, w->offset);
        return;
    }
    uint64_t end = w->offset + w->bytes.len;
    for (uint64_t at = w->offset / SECTOR * SECTOR; at < end; at += SECTOR) {
        if (!sim_chance(&s->disk_random, ppm)) continue;
        size_t len = now->len - at < SECTOR ? (size_t)(now->len - at) : SECTOR;
        image_write(to, at, now->data + at, len);
    }
}

/* The file as a power failure leaves it: for each sector one of the states it went through. */
static void image_after_power(struct sim *s, const struct sim_inode *i, const char *path,
                              struct buf *out)
{
    image_copy(out, &i->durable);
    if (list_empty(&i->writes)) return;
    enum keep keep = (enum keep)sim_random_below(&s->disk_random, 4);
    unsigned n = 0;
    list_for_each(node, &i->writes) n++;
    unsigned whole = keep == KEEP_ALL      ? n
                     : keep == KEEP_PREFIX ? (unsigned)sim_random_below(&s->disk_random, n)
                                           : 0;
    static const char *const keeps[] = {"nothing", "everything", "a prefix", "some sectors"};
    sim_trace_line(s, "  %s (%zu bytes): of %u writes that were not synced, %s stays", path,
                   i->durable.len, n, keeps[keep]);
    struct buf now = {0};
    image_copy(&now, &i->durable);
    unsigned at = 0;
    list_for_each(node, &i->writes)
    {
        const struct sim_write *w = container_of(node, struct sim_write, node);
        image_apply(&now, w);
        sim_trace_line(s, "    %s at %" PRIu64 " of %zu bytes", w->truncate ? "truncate" : "write",
                       w->offset, w->bytes.len);
        if (at < whole) image_apply(out, w);
        else if (keep == KEEP_SECTORS || (keep == KEEP_PREFIX && at == whole))
            keep_sectors(s, out, &now, w, 500000);
        at++;
    }
    s->stats.lost_writes += n - whole;
    if (keep == KEEP_PREFIX || keep == KEEP_SECTORS) s->stats.torn_files++;
    buf_release(&now);
}

static struct sim_inode *inode_after(struct sim *s, struct sim_disk *to, struct sim_inode *i,
                                     const char *path, enum sim_crash_mode mode)
{
    if (i->copy) return i->copy;
    struct sim_inode *c = i->copy = inode_new();
    c->n_old = i->n_old;
    c->lost = i->lost;
    for (unsigned k = 0; k < SIM_OLD_WRITES && k < i->n_old; k++) {
        c->old[k].offset = i->old[k].offset;
        image_copy(&c->old[k].before, &i->old[k].before);
        image_copy(&c->old[k].after, &i->old[k].after);
    }
    if (mode == SIM_POWER) {
        image_after_power(s, i, path, &c->live);
        image_copy(&c->durable, &c->live);
        return c;
    }
    image_copy(&c->live, &i->durable);
    image_copy(&c->durable, &i->durable);
    list_for_each(node, &i->writes)
    {
        const struct sim_write *w = container_of(node, struct sim_write, node);
        struct sim_write *copy = mem_must_calloc(1, sizeof *copy);
        copy->offset = w->offset;
        copy->truncate = w->truncate;
        image_append(&copy->bytes, w->bytes.data, w->bytes.len);
        inode_pend(to, c, copy);
    }
    return c;
}

/* A rename or unlink under way has happened, or not. */
static void finish_names(struct sim *s, struct sim_disk *d, const struct env_io *io,
                         struct sim_inode *i)
{
    if (!i || !sim_chance(&s->disk_random, 500000)) return;
    bool synced = sim_chance(&s->disk_random, 500000);
    if (io->op == ENV_IO_RENAME) {
        names_rename(&d->live, io->path, io->path2, i);
        if (synced) names_rename(&d->durable, io->path, io->path2, i);
    } else {
        names_remove(&d->live, io->path);
        if (synced) names_remove(&d->durable, io->path);
    }
}

/* write_file makes a temporary file first; a crash may leave it behind. */
static void leave_temporary(struct sim *s, struct sim_disk *from, struct sim_disk *to)
{
    if (!from->last_write_file || !sim_chance(&s->disk_random, 100000)) return;
    char path[512];
    snprintf(path, sizeof path, "%s.tmp", from->last_write_file);
    if (names_get(&to->live, path)) return;
    struct sim_inode *i = inode_new();
    image_resize(&i->live, sim_random_below(&s->disk_random, 40));
    image_copy(&i->durable, &i->live);
    names_set(&to->live, path, i);
    names_set(&to->durable, path, i);
}

static void names_after(struct sim *s, struct sim_disk *from, struct sim_disk *to,
                        enum sim_crash_mode mode)
{
    for (size_t i = 0; i < from->durable.n; i++) {
        const struct sim_name *n = &from->durable.names[i];
        struct sim_inode *c = inode_after(s, to, n->inode, n->path, mode);
        names_set(&to->durable, n->path, c);
        if (mode == SIM_POWER) names_set(&to->live, n->path, c);
    }
    for (size_t i = 0; i < from->live.n; i++) {
        const struct sim_name *n = &from->live.names[i];
        if (mode == SIM_POWER) {
            if (names_get(&from->durable, n->path) == n->inode) continue;
            if (sim_chance(&s->disk_random, 500000)) {
                s->stats.lost_names++;
                continue;
            }
        }
        struct sim_inode *c = inode_after(s, to, n->inode, n->path, mode);
        names_set(&to->live, n->path, c);
        if (mode == SIM_POWER) names_set(&to->durable, n->path, c);
    }
}

static struct sim_disk *disk_copy(struct sim *s, struct sim_disk *from, enum sim_crash_mode mode)
{
    struct sim_disk *to = sim_disk_new();
    to->capacity = from->capacity;
    for (size_t i = 0; i < from->n_dirs; i++) add_dir(to, from->dirs[i]);
    names_after(s, from, to, mode);
    for (size_t i = 0; i < from->durable.n; i++) from->durable.names[i].inode->copy = NULL;
    for (size_t i = 0; i < from->live.n; i++) from->live.names[i].inode->copy = NULL;
    return to;
}

struct sim_disk *sim_disk_after(struct sim *s, struct sim_env *e, enum sim_crash_mode mode)
{
    struct sim_disk *to = disk_copy(s, e->disk, mode);
    for (int i = 0; i < 2; i++) {
        if (!e->lanes[i].busy) continue;
        const struct env_io *io = container_of(e->lanes[i].queue.next, struct env_io, node);
        if (io->op != ENV_IO_RENAME && io->op != ENV_IO_UNLINK) continue;
        finish_names(s, to, io, names_get(&to->live, io->path));
    }
    if (mode == SIM_POWER) { /* what was found after the restart is what there is */
        while (to->durable.n) names_remove(&to->durable, to->durable.names[to->durable.n - 1].path);
        for (size_t i = 0; i < to->live.n; i++)
            names_set(&to->durable, to->live.names[i].path, to->live.names[i].inode);
    }
    leave_temporary(s, e->disk, to);
    return to;
}

struct sim_disk *sim_disk_save(struct sim *s, uint64_t id)
{
    CHECK(!sim_member(s, id)->env);
    return disk_copy(s, sim_member(s, id)->disk, SIM_KILL);
}

struct sim_disk *sim_disk_copy(struct sim *s, uint64_t id)
{
    CHECK(sim_member(s, id)->env);
    return sim_disk_after(s, sim_member(s, id)->env, SIM_POWER);
}

void sim_disk_put_back(struct sim *s, uint64_t id, struct sim_disk *saved)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(!m->env);
    saved->capacity = m->disk->capacity;
    sim_disk_free(m->disk);
    m->disk = saved;
}

/* ---- operations
 * ---------------------------------------------------------------------------------- */

static bool is_change(const struct env_io *io)
{
    return io->op != ENV_IO_READ && io->op != ENV_IO_CLOSE && io->op != ENV_IO_OPEN;
}

static bool is_sync(const struct env_io *io)
{
    return is_change(io) && io->op != ENV_IO_WRITE;
}

/* Whether the operation is one that fails now. */
static bool fails_now(struct sim_env *e, bool change)
{
    if (e->zombie) return false;
    struct sim_member *m = e->member;
    bool fail = sim_chance(&e->sim->disk_random, m->error_ppm);
    if (change && m->fail_nth && --m->fail_nth == 0) fail = true;
    if (fail) {
        e->sim->stats.io_errors++;
        sim_trace_line(e->sim, "m%d disk error", (int)m->id);
    }
    return fail;
}

static size_t io_bytes(const struct env_io *io)
{
    size_t n = io->op == ENV_IO_READ ? io->len : 0;
    if (io->op == ENV_IO_WRITE || io->op == ENV_IO_WRITE_SYNC) {
        for (unsigned i = 0; i < io->n_iov; i++) n += io->iov[i].len;
    }
    return n;
}

/* Whether a range touches the sector that cannot be read. */
static bool touches_lost(const struct sim_inode *i, uint64_t offset, uint64_t len)
{
    return i->lost && offset < i->lost - 1 + SECTOR && offset + len > i->lost - 1;
}

static int begin_write(struct sim_env *e, struct env_io *io, bool fail)
{
    size_t total = io_bytes(io), keep = total;
    CHECK(io->file && io->file->writable && io->n_iov <= ENV_IOV_MAX);
    if (touches_lost(io->file->inode, io->offset, total)) io->file->inode->lost = 0;
    if (disk_full(e->disk, io->file->inode, io->offset + total)) {
        return err_set(&io->err, ERR_NO_SPACE, "%s: no space left on device", io->file->path);
    }
    if (fail) keep = sim_random_below(&e->sim->disk_random, total + 1);
    struct sim_write *w = mem_must_calloc(1, sizeof *w);
    w->offset = io->offset;
    for (unsigned i = 0; i < io->n_iov; i++) {
        size_t n = io->iov[i].len < keep - w->bytes.len ? io->iov[i].len : keep - w->bytes.len;
        image_append(&w->bytes, io->iov[i].data, n);
    }
    sim_mix(e->sim, w->bytes.data, w->bytes.len < 64 ? w->bytes.len : 64);
    if (e->sim->options.disk.keep_old && w->bytes.len) remember(io->file->inode, w);
    inode_pend(e->disk, io->file->inode, w);
    e->sim->stats.writes++;
    return fail ? err_set(&io->err, ERR_IO, "%s: write failed", io->file->path) : 0;
}

/* What happens as the operation starts: writes reach the cache, from where a crash may take any of
 * it. */
static int io_begin(struct sim_env *e, struct env_io *io, uint64_t *ret_sync_seq)
{
    bool fail = fails_now(e, is_change(io));
    int status = 0;
    if (io->op == ENV_IO_WRITE || io->op == ENV_IO_WRITE_SYNC) {
        status = begin_write(e, io, fail);
    } else if (fail && io->op != ENV_IO_CLOSE) {
        status = err_set(&io->err, ERR_IO, "%s: input/output error",
                         io->file ? io->file->path : io->path);
    } else if (io->op == ENV_IO_TRUNCATE) {
        CHECK(io->file && io->file->writable);
        if (disk_full(e->disk, io->file->inode, io->offset)) {
            status = err_set(&io->err, ERR_NO_SPACE, "%s: no space left on device", io->file->path);
        } else {
            struct sim_write *w = mem_must_calloc(1, sizeof *w);
            w->truncate = true;
            w->offset = io->offset;
            inode_pend(e->disk, io->file->inode, w);
        }
    }
    *ret_sync_seq = e->disk->write_seq;
    sim_disk_begins(e, (int)io->op, io->file ? io->file->path : io->path);
    return status;
}

static int do_open(struct sim_env *e, struct env_io *io)
{
    struct sim_disk *d = e->disk;
    struct sim_inode *i = names_get(&d->live, io->path);
    if (i && (io->flags & ENV_OPEN_CREATE) && (io->flags & ENV_OPEN_EXCLUSIVE)) {
        return err_set(&io->err, ERR_EXISTS, "%s: exists", io->path);
    }
    if (!i) {
        if (!(io->flags & ENV_OPEN_CREATE) || !has_dir(d, io->path, dir_len(io->path))) {
            return err_set(&io->err, ERR_NOT_FOUND, "%s: no such file", io->path);
        }
        i = inode_new();
        names_set(&d->live, io->path, i);
        if (e->sim->options.disk.keep_creates) names_set(&d->durable, io->path, i);
    }
    struct env_file *f = mem_must_calloc(1, sizeof *f);
    f->inode = i;
    i->refs++;
    f->writable = io->flags & ENV_OPEN_WRITE;
    f->path = mem_must_strdup(io->path);
    list_push_back(&e->files, &f->node);
    io->file = f;
    return 0;
}

static void file_close(struct env_file *f)
{
    list_remove(&f->node);
    inode_unref(f->inode);
    mem_free(f->path);
    mem_free(f);
}

/* An open file has its new name in the story, and in messages. */
static void files_renamed(struct sim_env *e, const struct sim_inode *i, const char *path)
{
    list_for_each(n, &e->files)
    {
        struct env_file *f = container_of(n, struct env_file, node);
        if (f->inode != i) continue;
        mem_free(f->path);
        f->path = mem_must_strdup(path);
    }
}

static int do_names(struct sim_env *e, struct env_io *io)
{
    struct sim_disk *d = e->disk;
    struct sim_inode *i = names_get(&d->live, io->path);
    if (!i) return err_set(&io->err, ERR_NOT_FOUND, "%s: no such file", io->path);
    if (io->op == ENV_IO_UNLINK) {
        names_remove(&d->live, io->path);
    } else {
        names_rename(&d->live, io->path, io->path2, i);
        sync_dir(d, io->path2);
        files_renamed(e, i, io->path2);
    }
    sync_dir(d, io->path);
    return 0;
}

static int do_read(struct env_io *io)
{
    const struct buf *b = &io->file->inode->live;
    io->ret_len = io->offset >= b->len            ? 0
                  : b->len - io->offset < io->len ? (size_t)(b->len - io->offset)
                                                  : io->len;
    if (io->ret_len) memcpy(io->buffer, b->data + io->offset, io->ret_len);
    if (!touches_lost(io->file->inode, io->offset, io->ret_len)) return 0;
    uint64_t at = io->file->inode->lost - 1;
    return err_set(&io->err, ERR_CORRUPT, "offset %" PRIu64 ": cannot be read", at > io->offset ? at : io->offset);
}

/* What is now on whose disk, for the story. */
static void tell_io(struct sim_env *e, const struct env_io *io)
{
    if (!e->sim->trace || e->zombie || !is_change(io)) return;
    int id = (int)e->member->id;
    if (io->op == ENV_IO_RENAME)
        sim_trace_line(e->sim, "m%d disk: %s is %s now", id, io->path, io->path2);
    else if (io->op == ENV_IO_UNLINK) sim_trace_line(e->sim, "m%d disk: %s is gone", id, io->path);
    else if (io->op == ENV_IO_TRUNCATE)
        sim_trace_line(e->sim, "m%d disk: %s ends at %" PRIu64, id, io->file->path, io->offset);
    else if (io->op == ENV_IO_SYNC)
        sim_trace_line(e->sim, "m%d disk: %s is durable", id, io->file->path);
    else
        sim_trace_line(e->sim, "m%d disk: %zu bytes at %" PRIu64 " of %s%s", id, io_bytes(io),
                       io->offset, io->file->path, io->op == ENV_IO_WRITE ? "" : ", durable");
}

static int io_finish(struct sim_env *e, struct env_io *io, uint64_t sync_seq)
{
    tell_io(e, io);
    switch (io->op) {
    case ENV_IO_OPEN: return do_open(e, io);
    case ENV_IO_READ: return do_read(io);
    case ENV_IO_CLOSE:
        file_close(io->file);
        io->file = NULL;
        return 0;
    case ENV_IO_RENAME:
    case ENV_IO_UNLINK: return do_names(e, io);
    case ENV_IO_SYNC:
    case ENV_IO_WRITE_SYNC:
    case ENV_IO_TRUNCATE:
        inode_sync(io->file->inode, sync_seq);
        e->sim->stats.syncs++;
        return 0;
    case ENV_IO_WRITE: return 0;
    }
    CHECK(false);
    return ERR_INVALID;
}

static uint64_t io_duration(struct sim_env *e, const struct env_io *io)
{
    if (e->zombie) return 1;
    const struct sim_disk_options *o = &e->sim->options.disk;
    struct sim_random *r = &e->sim->disk_random;
    uint64_t us = sim_random_range(r, o->latency_min_us, o->latency_max_us);
    if (is_sync(io)) us += sim_random_range(r, o->sync_min_us, o->sync_max_us);
    if (o->bytes_per_us) us += io_bytes(io) / o->bytes_per_us;
    us *= e->member->slow;
    if (e->member->slow > 1 && us > SLOW_MAX_US) us = SLOW_MAX_US;
    if (sim_chance(r, o->stall_ppm)) us += o->stall_us;
    if (io->lane == ENV_LANE_LOG) {
        us += e->member->stall_us;
        e->member->stall_us = 0;
    }
    return us;
}

/* ---- lanes
 * --------------------------------------------------------------------------------------- */

static void lane_begin(struct sim_env *e, struct sim_lane *lane);

static void lane_done(struct sim *s, struct sim_env *e, void *arg, uint64_t number)
{
    (void)s, (void)number;
    struct sim_lane *lane = arg;
    struct env_io *io = container_of(list_pop_front(&lane->queue), struct env_io, node);
    lane->busy = false;
    io->status = lane->status ? lane->status : io_finish(e, io, lane->sync_seq);
    lane_begin(e, lane);
    e->ios--;
    io->done(io);
    sim_env_settle(e);
}

/* The system tells of a write that it could not do once for each open file: of two lanes that sync one beside each other, one would
 * take it for written. */
static void check_syncs_alone(const struct sim_env *e, const struct env_file *file)
{
    for (int i = 0; i < 2; i++) {
        if (!e->lanes[i].busy) continue;
        const struct env_io *io = container_of(e->lanes[i].queue.next, struct env_io, node);
        CHECK(io->file != file || !is_sync(io));
    }
}

static void lane_begin(struct sim_env *e, struct sim_lane *lane)
{
    static const char *const names[] = {"open",  "write",  "sync",   "write-sync", "read",
                                        "close", "rename", "unlink", "truncate"};
    if (lane->busy || list_empty(&lane->queue)) return;
    struct env_io *io = container_of(lane->queue.next, struct env_io, node);
    if (is_sync(io) && io->file) check_syncs_alone(e, io->file);
    lane->busy = true;
    lane->status = io_begin(e, io, &lane->sync_seq);
    sim_schedule(e->sim, io_duration(e, io), names[io->op], e, lane_done, lane, io_bytes(io));
}

void sim_disk_submit(struct env *base, struct env_io *io)
{
    struct sim_env *e = sim_env_of(base);
    CHECK(!e->stopped && (unsigned)io->lane < 2);
    io->status = 0;
    io->ret_len = 0;
    e->ios++;
    list_push_back(&e->lanes[io->lane].queue, &io->node);
    lane_begin(e, &e->lanes[io->lane]);
}

int sim_disk_sync_io(struct env *base, struct env_io *io)
{
    struct sim_env *e = sim_env_of(base);
    uint64_t seq;
    CHECK(!e->stopped && (!e->started || e->zombie || e->stopping));
    io->ret_len = 0;
    io->status = io_begin(e, io, &seq);
    if (io->status == 0) io->status = io_finish(e, io, seq);
    return io->status;
}

/* ---- whole files, at once
 * ------------------------------------------------------------------------ */

int sim_disk_list(struct env *base, const char *dir, void (*each)(void *ctx, const char *name),
                  void *ctx, struct err *err)
{
    struct sim_env *e = sim_env_of(base);
    struct sim_disk *d = e->disk;
    if (strcmp(dir, ".") == 0) dir = "";
    size_t len = strlen(dir), n = 0;
    if (!has_dir(d, dir, len)) return err_set(err, ERR_NOT_FOUND, "%s: no such folder", dir);
    char within[300];
    snprintf(within, sizeof within, len ? "%s/x" : "%sx", dir);
    if (!e->zombie) sync_dir(d, within);
    char **found = mem_must_calloc(d->live.n + d->n_dirs + 1, sizeof *found);
    for (size_t i = 0; i < d->live.n + d->n_dirs; i++) {
        const char *path = i < d->live.n ? d->live.names[i].path : d->dirs[i - d->live.n];
        if (dir_len(path) != len || memcmp(path, dir, len) != 0) continue;
        found[n++] = mem_must_strdup(len ? path + len + 1 : path);
    }
    for (size_t i = n; i > 1; i--) { /* a folder has no order */
        size_t j = sim_random_below(&e->sim->disk_random, i);
        char *swap = found[i - 1];
        found[i - 1] = found[j];
        found[j] = swap;
    }
    for (size_t i = 0; i < n; i++) {
        each(ctx, found[i]);
        mem_free(found[i]);
    }
    mem_free(found);
    return 0;
}

int sim_disk_mkdir(struct env *base, const char *dir, struct err *err)
{
    struct sim_disk *d = sim_env_of(base)->disk;
    if (!has_dir(d, dir, dir_len(dir)))
        return err_set(err, ERR_NOT_FOUND, "%s: no such folder", dir);
    if (!has_dir(d, dir, strlen(dir))) add_dir(d, dir);
    return 0;
}

int sim_disk_read_file(struct env *base, const char *path, size_t max, struct buf *out,
                       struct err *err)
{
    struct sim_env *e = sim_env_of(base);
    struct sim_inode *i = names_get(&e->disk->live, path);
    if (!i) return err_set(err, ERR_NOT_FOUND, "%s: no such file", path);
    if (fails_now(e, false)) return err_set(err, ERR_IO, "%s: input/output error", path);
    if (i->live.len > max) return err_set(err, ERR_LIMIT, "%s: larger than %zu bytes", path, max);
    if (touches_lost(i, 0, i->live.len))
        return err_set(err, ERR_CORRUPT, "%s: offset %" PRIu64 ": cannot be read", path, i->lost - 1);
    return buf_append(out, i->live.data, i->live.len);
}

static void put_file(struct sim_disk *d, const char *path, struct slice data)
{
    struct sim_inode *i = inode_new();
    image_write(&i->live, 0, data.data, data.len);
    image_copy(&i->durable, &i->live);
    names_set(&d->live, path, i);
    sync_dir(d, path);
}

int sim_disk_write_file(struct env *base, const char *path, struct slice data, struct err *err)
{
    struct sim_env *e = sim_env_of(base);
    struct sim_disk *d = e->disk;
    bool died = sim_disk_begins(e, SIM_OP_WRITE_FILE, path);
    if (!has_dir(d, path, dir_len(path)))
        return err_set(err, ERR_NOT_FOUND, "%s: no such folder", path);
    /* Whoever dies in it, or is told of a failure, may have the new file all the same. */
    if (died && sim_chance(&e->sim->disk_random, 500000)) put_file(e->member->disk, path, data);
    if (fails_now(e, true)) {
        if (sim_chance(&e->sim->disk_random, 300000)) put_file(d, path, data);
        return err_set(err, ERR_IO, "%s: input/output error", path);
    }
    if (d->capacity && disk_used(d) + data.len > d->capacity) {
        return err_set(err, ERR_NO_SPACE, "%s: no space left on device", path);
    }
    sim_mix(e->sim, data.data, data.len < 64 ? data.len : 64);
    if (!e->zombie) sim_trace_line(e->sim, "m%d writes %s (%zu bytes), whole and durable", (int)e->member->id, path, data.len);
    put_file(d, path, data);
    mem_free(d->last_write_file);
    d->last_write_file = mem_must_strdup(path);
    return 0;
}

int sim_disk_unlink_file(struct env *base, const char *path, struct err *err)
{
    struct sim_env *e = sim_env_of(base);
    (void)sim_disk_begins(e, SIM_OP_UNLINK_FILE, path);
    if (!names_get(&e->disk->live, path))
        return err_set(err, ERR_NOT_FOUND, "%s: no such file", path);
    if (fails_now(e, true)) return err_set(err, ERR_IO, "%s: input/output error", path);
    names_remove(&e->disk->live, path);
    sync_dir(e->disk, path);
    return 0;
}

void sim_disk_close_files(struct sim_env *e)
{
    list_for_each(n, &e->files) file_close(container_of(n, struct env_file, node));
}

/* ---- what tests do to disks
 * ---------------------------------------------------------------------- */

void sim_disk_slow(struct sim *s, uint64_t id, unsigned factor)
{
    sim_member(s, id)->slow = factor;
}

void sim_disk_capacity(struct sim *s, uint64_t id, uint64_t bytes)
{
    sim_member(s, id)->disk->capacity = bytes;
}

uint64_t sim_disk_used(struct sim *s, uint64_t id)
{
    return disk_used(sim_member(s, id)->disk);
}

void sim_disk_error_ppm(struct sim *s, uint64_t id, unsigned ppm)
{
    sim_member(s, id)->error_ppm = ppm;
}

void sim_disk_fail_nth(struct sim *s, uint64_t id, unsigned nth)
{
    sim_member(s, id)->fail_nth = nth;
}

void sim_disk_stall(struct sim *s, uint64_t id, uint64_t us)
{
    sim_trace_line(s, "m%d's disk holds its breath for %.3f s", (int)id, (double)us / 1e6);
    sim_member(s, id)->stall_us = us;
}

bool sim_disk_lose_sector(struct sim *s, uint64_t id, const char *path, uint64_t offset)
{
    struct sim_inode *i = names_get(&sim_member(s, id)->disk->live, path);
    if (i) i->lost = 1 + offset / SECTOR * SECTOR;
    return i != NULL;
}

void sim_disk_forget(struct sim_disk *d, const char *path)
{
    char *copy = mem_must_strdup(path); /* it may be the disk's own */
    names_remove(&d->live, copy);
    names_remove(&d->durable, copy);
    mem_free(copy);
}

int sim_disk_read(struct sim *s, uint64_t id, const char *path, struct buf *out)
{
    struct sim_inode *i = names_get(&sim_member(s, id)->disk->live, path);
    return i ? buf_append(out, i->live.data, i->live.len) : ERR_NOT_FOUND;
}

void sim_disk_write(struct sim *s, uint64_t id, const char *path, struct slice data)
{
    put_file(sim_member(s, id)->disk, path, data);
}

void sim_disk_each(struct sim *s, uint64_t id,
                   void (*each)(void *ctx, const char *path, uint64_t size), void *ctx)
{
    struct sim_disk *d = sim_member(s, id)->disk;
    for (size_t i = 0; i < d->live.n; i++)
        each(ctx, d->live.names[i].path, d->live.names[i].inode->live.len);
}

void sim_disk_wipe(struct sim *s, uint64_t id)
{
    struct sim_member *m = sim_member(s, id);
    CHECK(!m->env);
    uint64_t capacity = m->disk->capacity;
    sim_disk_free(m->disk);
    m->disk = sim_disk_new();
    m->disk->capacity = capacity;
}
