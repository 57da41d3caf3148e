/* The write-ahead log on the simulated disk: what is written comes back; torn ends are cut; every
 * other damage is refused with file and offset. */
#include "cluster.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "raft/consensus_int.h"
#include "raft/wal_format_int.h"
#include "raft/wal_int.h"

struct world {
    struct sim *sim;
    struct env *env;
    struct wal *wal;
    struct wal_contents contents;
    bool closed, failed;
    int fatal_error;
    char fatal_text[300];
    unsigned done;
    size_t segment_bytes;
    bool alone;
};

static void on_fatal(void *ctx, int error, const char *text)
{
    struct world *w = ctx;
    w->failed = true;
    w->fatal_error = error;
    snprintf(w->fatal_text, sizeof w->fatal_text, "%s", text);
}

static void world_init(struct world *w, uint64_t seed)
{
    struct sim_options o;
    memset(w, 0, sizeof *w);
    sim_options_default(&o, seed, 1);
    w->sim = sim_new(&o);
    w->segment_bytes = 64 * 1024;
    consensus_use_heap();
}

static int world_try_open(struct world *w, struct err *e)
{
    w->env = sim_boot(w->sim, 1);
    struct wal_options o = {
        .env = w->env, .cluster_id = 1, .member_id = 1, .segment_bytes = w->segment_bytes};
    o.alone = w->alone;
    o.fatal = on_fatal;
    o.ctx = w;
    w->failed = w->closed = false;
    w->done = 0;
    int rv = wal_open(&o, &w->wal, &w->contents, e);
    if (rv) {
        w->wal = NULL;
        sim_release(w->env);
    }
    return rv;
}

static void world_open(struct world *w)
{
    struct err e = {{0}};
    if (world_try_open(w, &e)) fail_msg("%s", e.text);
}

static void set_flag(void *ctx)
{
    *(bool *)ctx = true;
}

static bool flag_set(void *arg)
{
    return *(bool *)arg;
}

static void world_stop(struct world *w)
{
    bool stopped = false;
    wal_contents_release(&w->contents);
    w->env->ops->stop(w->env, set_flag, &stopped);
    assert_true(sim_run_until(w->sim, flag_set, &stopped, 60 * SECOND));
    sim_release(w->env);
}

static void world_close(struct world *w)
{
    wal_close(w->wal, set_flag, &w->closed);
    assert_true(sim_run_until(w->sim, flag_set, &w->closed, 60 * SECOND));
    w->wal = NULL;
    world_stop(w);
}

/* It has died. */
static void world_gone(struct world *w)
{
    bool stopped = false;
    wal_contents_release(&w->contents);
    w->env->ops->stop(w->env, set_flag, &stopped);
    assert_true(sim_run_until(w->sim, flag_set, &stopped, 60 * SECOND));
    wal_free(w->wal);
    w->wal = NULL;
    sim_release(w->env);
}

/* Not sealed: what is there when the power fails. */
static void world_crash(struct world *w, enum sim_crash_mode mode)
{
    sim_crash(w->sim, 1, mode);
    world_gone(w);
}

static void world_free(struct world *w)
{
    sim_free(w->sim);
}

struct write {
    struct wal_append a;
    struct raft_entry entries[100];
    struct world *world;
    bool done;
};

static void write_done(struct wal_append *a)
{
    struct write *x = a->data;
    x->done = true;
    x->world->done++;
}

static void fill(uint8_t *p, size_t len, uint64_t index)
{
    for (size_t i = 0; i < len; i++) p[i] = (uint8_t)(index * 31 + i * 7);
}

static size_t len_of(uint64_t index, size_t scale)
{
    return (size_t)(index * 37 % 101) * scale / 100;
}

static struct write *begin_write(struct world *w, uint64_t first, unsigned n, uint64_t term,
                                 size_t scale)
{
    struct write *x = mem_must_calloc(1, sizeof *x);
    x->world = w;
    for (unsigned i = 0; i < n; i++) {
        size_t len = len_of(first + i, scale);
        x->entries[i] = (struct raft_entry){
            .term = term, .type = RAFT_COMMAND, .buf = {mem_must_alloc(len), len}};
        fill(x->entries[i].buf.base, len, first + i);
    }
    x->a.first_index = first;
    x->a.entries = x->entries;
    x->a.n = n;
    x->a.done = write_done;
    x->a.data = x;
    wal_append(w->wal, &x->a);
    return x;
}

static void end_write(struct write *x)
{
    for (unsigned i = 0; i < x->a.n; i++) mem_free(x->entries[i].buf.base);
    mem_free(x);
}

static void write_entries(struct world *w, uint64_t first, unsigned n, uint64_t term, size_t scale)
{
    struct write *x = begin_write(w, first, n, term, scale);
    assert_true(sim_run_until(w->sim, flag_set, &x->done, 60 * SECOND));
    end_write(x);
}

static void assert_contents(const struct world *w, uint64_t first, size_t n, size_t scale)
{
    const struct wal_contents *c = &w->contents;
    assert_int_equal(c->n, n);
    if (n) assert_int_equal(c->first_index, first);
    for (size_t i = 0; i < n; i++) {
        uint8_t want[100000];
        size_t len = len_of(first + i, scale);
        assert_int_equal(c->entries[i].len, len);
        fill(want, len, first + i);
        assert_memory_equal(c->entries[i].data, want, len);
    }
}

static void test_comes_back(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 1);
    world_open(&w);
    assert_contents(&w, 0, 0, 0);
    write_entries(&w, 1, 1, 1, 100);
    write_entries(&w, 2, 100, 1, 100); /* too many pieces for one write by reference */
    write_entries(&w, 102, 3, 2, 20000);
    world_close(&w);
    world_open(&w);
    assert_int_equal(w.contents.n, 104);
    world_close(&w);
    world_free(&w);
}

static void test_groups(void **state)
{
    (void)state;
    struct world w;
    struct wal_stats s;
    world_init(&w, 2);
    world_open(&w);
    struct write *x[20];
    for (unsigned i = 0; i < 20; i++) x[i] = begin_write(&w, i + 1, 1, 1, 100);
    sim_run_for(w.sim, SECOND);
    for (unsigned i = 0; i < 20; i++) {
        assert_true(x[i]->done);
        end_write(x[i]);
    }
    wal_get_stats(w.wal, &s);
    assert_int_equal(s.appends, 20);
    assert_int_equal(s.syncs, 2); /* the first alone, the others while it was under way */
    world_close(&w);
    world_open(&w);
    assert_contents(&w, 1, 20, 100);
    world_close(&w);
    world_free(&w);
}

static void test_truncate_reset(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 3);
    world_open(&w);
    write_entries(&w, 1, 10, 1, 100);
    wal_truncate(w.wal, 6);
    write_entries(&w, 6, 2, 2, 100);
    world_close(&w);
    world_open(&w);
    assert_contents(&w, 1, 7, 100);
    assert_int_equal(w.contents.entries[5].term, 2);
    struct wal_append a = {.done = NULL};
    struct write x = {.world = &w};
    a.done = write_done;
    a.data = &x;
    wal_truncate_sync(w.wal, &a, 4);
    assert_true(sim_run_until(w.sim, flag_set, &x.done, SECOND));
    world_close(&w);
    world_open(&w);
    assert_contents(&w, 1, 3, 100);
    x.done = false;
    wal_reset(w.wal, &a, 50, 7);
    assert_true(sim_run_until(w.sim, flag_set, &x.done, SECOND));
    write_entries(&w, 51, 5, 7, 100);
    world_close(&w);
    world_open(&w);
    assert_contents(&w, 51, 5, 100);
    assert_int_equal(w.contents.reset_index, 50);
    assert_int_equal(w.contents.reset_term, 7);
    world_close(&w);
    world_free(&w);
}

#define FIRST_SEGMENT "wal/0000000000000001.wal"

#define MARK "wal/mark"
#define BEGIN_BYTES 56

/* The end of the used part of the first segment. */
static size_t used_bytes(const struct buf *file)
{
    size_t len = file->len;
    while (len && file->data[len - 1] == 0) len--;
    return (len + 7) / 8 * 8;
}

static void small_log(struct world *w, uint64_t seed, bool close)
{
    world_init(w, seed);
    world_open(w);
    for (uint64_t i = 1; i <= 6; i++) write_entries(w, i, 1, 1, 100);
    if (close) world_close(w);
    else world_crash(w, SIM_KILL);
}

static void test_torn_at_every_byte(void **state)
{
    (void)state;
    struct world w;
    struct buf whole = {0}, torn = {0};
    small_log(&w, 4, false);
    assert_int_equal(sim_disk_read(w.sim, 1, FIRST_SEGMENT, &whole), 0);
    size_t used = used_bytes(&whole);
    size_t last_record = (56 + 16 + len_of(6, 100) + 7) / 8 * 8, start = used - last_record;
    unsigned cut = 0;
    uint8_t old[WAL_RECORD_HEAD]; /* of the same record in an earlier life of the file */
    struct wal_head head;
    struct slice rest = slice_make(whole.data + start + WAL_RECORD_HEAD, 16 + len_of(6, 100));
    wal_head_decode(whole.data + start, &head);
    head.salt++;
    head.seq--;
    wal_head_encode(old, &head);
    struct wal_sums sums = wal_record_sums(old, &rest, 1);
    head.crc = sums.crc;
    head.check = sums.check;
    wal_head_encode(old, &head);
    for (size_t at = start; at <= used; at++) {
        for (int stale = 0; stale < 3; stale++) {
            buf_clear(&torn);
            assert_int_equal(buf_append(&torn, whole.data, whole.len), 0);
            for (size_t i = at; i < used && stale < 2; i++) torn.data[i] = stale ? (uint8_t)(i * 89 + 1) : 0;
            for (size_t i = at; i < start + WAL_RECORD_HEAD && stale == 2; i++) torn.data[i] = old[i - start];
            bool intact = memcmp(torn.data, whole.data, whole.len) == 0;
            sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&torn));
            world_open(&w);
            /* The padding at the very end belongs to nothing. */
            bool all = intact || w.contents.n == 6;
            assert_contents(&w, 1, all ? 6 : 5, 100);
            if (!all) cut++;
            if (at % 16 == 0) { /* and the log goes on from there */
                write_entries(&w, all ? 7 : 6, 2, 1, 100);
                world_crash(&w, SIM_POWER);
                world_open(&w);
                assert_contents(&w, 1, all ? 8 : 7, 100);
            }
            world_crash(&w, SIM_KILL);
        }
    }
    assert_true(cut > last_record);
    buf_release(&whole);
    buf_release(&torn);
    world_free(&w);
}

static void read_file(struct world *w, const char *path, struct buf *out)
{
    buf_clear(out);
    assert_int_equal(sim_disk_read(w->sim, 1, path, out), 0);
}

/* Refused, with the file's name and an offset; or nothing was lost. */
static bool refused(struct world *w, const char *path, size_t n, size_t scale)
{
    struct err e = {{0}};
    int rv = world_try_open(w, &e);
    if (rv == 0) {
        assert_contents(w, n ? 1 : 0, n, scale);
        world_crash(w, SIM_KILL);
        return false;
    }
    assert_int_equal(rv, ERR_CORRUPT);
    if (!strstr(e.text, path) || !strstr(e.text, "offset")) fail_msg("%s", e.text);
    return true;
}

/* Every bit of a log that was closed in order, and of one that was killed before its last record was noted. */
static void test_flip_every_bit(void **state)
{
    (void)state;
    for (int close = 0; close < 2; close++) {
        struct world w;
        struct buf file = {0}, mark = {0};
        small_log(&w, 5, close);
        read_file(&w, FIRST_SEGMENT, &file);
        read_file(&w, MARK, &mark);
        size_t end = 64 + BEGIN_BYTES, unseen = 0, last = 0;
        for (uint64_t i = 1; i <= 6; i++) {
            last = 56 + 16 + len_of(i, 100);
            end += (last + 7) / 8 * 8;
            last = end - (last + 7) / 8 * 8 + last - 1;
        }
        for (size_t bit = 0; bit < 8 * (end + 64); bit++) {
            file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
            sim_disk_write(w.sim, 1, MARK, buf_slice(&mark)); /* as it was: opening writes it */
            if (!close && bit / 8 == last) unseen++; /* in the very last byte, it looks like a torn write */
            else unseen += !refused(&w, FIRST_SEGMENT, 6, 100) && bit / 8 < end;
            file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        assert_true(unseen <= 8 * (6 * 7 + 1)); /* padding, which means nothing */
        for (size_t bit = 0; bit < 8 * mark.len; bit++) {
            mark.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
            sim_disk_write(w.sim, 1, MARK, buf_slice(&mark));
            assert_false(refused(&w, MARK, 6, 100)); /* there is the other copy */
            mark.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        buf_release(&file);
        buf_release(&mark);
        world_free(&w);
    }
}

/* The same while the log is open, as the scrub sees it: piece by piece. */
static void test_check_every_bit(void **state)
{
    (void)state;
    struct world w;
    struct buf file = {0};
    struct err e;
    world_init(&w, 11);
    world_open(&w);
    for (uint64_t i = 1; i <= 6; i++) write_entries(&w, i, 1, 1, 100);
    read_file(&w, FIRST_SEGMENT, &file);
    unsigned unseen = 0;
    struct wal_check k;
    for (size_t bit = 0; bit < 8 * used_bytes(&file); bit++) {
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(wal_check_next(w.wal, 0, &k));
        int rv = 0;
        for (size_t step = bit % 90 + 1; !rv && k.offset < k.end;) {
            size_t left = k.end - k.offset;
            rv = wal_check_feed(&k, slice_sub(buf_slice(&file), k.offset, left < step ? left : step), &e);
        }
        assert_true(rv == 0 || (rv == ERR_CORRUPT && strstr(e.text, FIRST_SEGMENT ": offset")));
        unseen += rv == 0;
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(unseen <= 8 * 6 * 7); /* padding */
    assert_true(wal_check_current(w.wal, &k));
    assert_false(wal_check_next(w.wal, k.number, &k));
    buf_release(&file);
    world_close(&w);
    world_free(&w);
}

/* Both copies of the mark are lost. With others to heal from: damage. Alone: made again, if the log ends in order. */
static void test_lost_mark(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        struct world w;
        struct err e = {{0}};
        struct buf mark = {0}, file = {0};
        small_log(&w, 13, true);
        read_file(&w, MARK, &mark);
        read_file(&w, FIRST_SEGMENT, &file);
        if (how == 0) mark.data[100] ^= 1, mark.data[612] ^= 1;
        if (how == 1) mark.len = 700, mark.data[30] ^= 1;
        sim_disk_write(w.sim, 1, MARK, buf_slice(&mark));
        if (how == 2) assert_true(sim_disk_lose_sector(w.sim, 1, MARK, 0));
        assert_true(refused(&w, MARK, 6, 100));
        w.alone = true;
        size_t end = used_bytes(&file);
        file.data[end - 20] ^= 0x55; /* something lies behind the last good record: torn, or damaged too */
        sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
        assert_true(refused(&w, MARK, 6, 100));
        file.data[end - 20] ^= 0x55;
        sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
        world_open(&w);
        assert_contents(&w, 1, 6, 100);
        world_crash(&w, SIM_POWER); /* and what was made is durable, and knows of all */
        memset(file.data + end - 100, 0, 100);
        sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
        assert_int_equal(world_try_open(&w, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "that " MARK " knows of"));
        buf_release(&mark);
        buf_release(&file);
        world_free(&w);
    }
}

/* A process dies anywhere, another goes on with the files whose names no disk has yet, and then the power fails. */
static void test_names_found(void **state)
{
    (void)state;
    unsigned lives = 0;
    for (uint64_t seed = 500; seed < 515; seed++) {
        struct world w;
        world_init(&w, seed);
        sim_disk(w.sim)->keep_creates = false;
        for (unsigned nth = 1; nth <= 12; nth++, lives++) {
            world_open(&w);
            uint64_t last = w.contents.n;
            assert_contents(&w, last ? 1 : 0, last, 30000);
            struct write *x[8];
            sim_crash_after(w.sim, 1, SIM_KILL, nth);
            for (unsigned i = 0; i < 8; i++) x[i] = begin_write(&w, last + 1 + i, 1, 1, 30000);
            sim_run_for(w.sim, SECOND);
            sim_crash_after(w.sim, 1, SIM_KILL, 0);
            if (sim_env(w.sim, 1)) world_crash(&w, SIM_KILL);
            else world_gone(&w);
            for (unsigned i = 0; i < 8; i++) end_write(x[i]);
            world_open(&w);
            last = w.contents.n;
            write_entries(&w, last + 1, 1, 1, 30000);
            write_entries(&w, last + 2, 1, 1, 30000);
            world_crash(&w, SIM_POWER);
            world_open(&w);
            assert_contents(&w, 1, last + 2, 30000);
            world_crash(&w, SIM_KILL);
        }
        world_free(&w);
    }
    assert_int_equal(lives, 180);
}

/* Behind the newest record lie segments that were only made ready: it is not given back, for the mark knows of it. */
static void test_release_keeps_newest(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 14);
    world_open(&w);
    write_entries(&w, 1, 1, 1, 40000);
    write_entries(&w, 2, 1, 1, 40000); /* more than half of the segment: the next one is made ready */
    wal_tick(w.wal);
    sim_run_for(w.sim, SECOND);
    world_crash(&w, SIM_KILL);
    struct buf next = {0};
    read_file(&w, "wal/0000000000000002.wal", &next);
    buf_release(&next);
    world_open(&w);
    wal_release(w.wal, 2);
    sim_run_for(w.sim, SECOND);
    world_crash(&w, SIM_POWER);
    world_open(&w);
    assert_contents(&w, 1, 2, 40000);
    write_entries(&w, 3, 1, 1, 40000); /* into the next segment: now it may go */
    wal_release(w.wal, 2);
    sim_run_for(w.sim, SECOND);
    world_crash(&w, SIM_POWER);
    world_open(&w);
    assert_contents(&w, 3, 1, 40000);
    world_close(&w);
    world_free(&w);
}

/* Damage that no checksum of a single record shows: sectors that are zero, exchanged, of another place, of an earlier time. */
static void test_sectors(void **state)
{
    (void)state;
    struct world w;
    struct buf old = {0}, file = {0}, bad = {0};
    world_init(&w, 9);
    world_open(&w);
    for (uint64_t i = 1; i <= 20; i++) write_entries(&w, i, 1, 1, 1000);
    sim_run_for(w.sim, SECOND);
    read_file(&w, FIRST_SEGMENT, &old);
    for (uint64_t i = 21; i <= 30; i++) write_entries(&w, i, 1, 1, 1000);
    wal_tick(w.wal);
    sim_run_for(w.sim, SECOND);
    world_crash(&w, SIM_KILL);
    read_file(&w, FIRST_SEGMENT, &file);
    size_t sectors = used_bytes(&file) / 512;
    for (size_t k = 0; k < sectors; k++) {
        for (int how = 0; how < 4; how++) {
            buf_clear(&bad);
            assert_int_equal(buf_append(&bad, file.data, file.len), 0);
            uint8_t *at = bad.data + 512 * k;
            if (how == 0) memset(at, 0, 512);
            if (how == 1) memcpy(at, file.data + 512 * (k + 1), 512), memcpy(at + 512, file.data + 512 * k, 512);
            if (how == 2) memcpy(at, file.data + 512 * ((k + 7) % sectors), 512);
            if (how == 3) bad.len = 512 * k;
            sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&bad));
            assert_true(refused(&w, FIRST_SEGMENT, 30, 1000));
        }
    }
    sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&old));
    assert_true(refused(&w, FIRST_SEGMENT, 30, 1000));
    sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
    assert_false(refused(&w, FIRST_SEGMENT, 30, 1000));
    buf_release(&old);
    buf_release(&file);
    buf_release(&bad);
    world_free(&w);
}

/* Where a release leaves one record in a segment that is not the last: its damage is no torn write of an earlier life, also
 * without the mark. */
static void test_only_record(void **state)
{
    (void)state;
    struct world w;
    struct buf file = {0}, mark = {0};
    char path[64];
    world_init(&w, 10);
    world_open(&w);
    read_file(&w, MARK, &mark); /* knows of nothing */
    uint64_t next = 1;
    for (; next <= 3; next++) write_entries(&w, next, 1, 1, 60000);
    for (; next <= 7; next++) write_entries(&w, next, 1, 1, 90000); /* one alone in each */
    wal_release(w.wal, 6);
    sim_run_for(w.sim, SECOND);
    world_close(&w);
    struct err e = {{0}};
    unsigned found = 0;
    for (unsigned number = 2; number < 9; number++) {
        snprintf(path, sizeof path, "wal/%016x.wal", number);
        buf_clear(&file);
        if (sim_disk_read(w.sim, 1, path, &file)) continue;
        size_t used = used_bytes(&file);
        for (size_t at = 64; at < used; at += used / 40 + 1) {
            sim_disk_write(w.sim, 1, MARK, buf_slice(&mark));
            file.data[at] ^= 4;
            sim_disk_write(w.sim, 1, path, buf_slice(&file));
            int rv = world_try_open(&w, &e);
            file.data[at] ^= 4;
            if (rv == 0) world_crash(&w, SIM_KILL);
            else if (!strstr(e.text, path)) fail_msg("%s", e.text);
            assert_true(rv == ERR_CORRUPT || at >= used - 8);
            found++;
        }
        sim_disk_write(w.sim, 1, path, buf_slice(&file));
    }
    assert_true(found > 30);
    buf_release(&mark);
    buf_release(&file);
    world_free(&w);
}

/* A write fails, the next segment is ready, and the log goes on in it: nothing of that is damage in later lives. */
static void test_failed_writes(void **state)
{
    (void)state;
    for (uint64_t seed = 300; seed < 420; seed++) {
        struct world w;
        world_init(&w, seed);
        uint64_t done = 0, random = seed;
        for (int life = 0; life < 8; life++) {
            world_open(&w);
            uint64_t last = w.contents.n ? w.contents.first_index + w.contents.n - 1 : 0;
            assert_true(last >= done);
            assert_contents(&w, last ? 1 : 0, last, 9000);
            done = last;
            random = random * 6364136223846793005u + 1442695040888963407u;
            sim_disk_fail_nth(w.sim, 1, 1 + (unsigned)(random >> 33) % 12);
            struct write *x[12];
            for (unsigned i = 0; i < 12; i++) x[i] = begin_write(&w, last + 1 + i, 1, 1, 9000);
            for (unsigned i = 0; i < 20; i++) {
                wal_tick(w.wal);
                sim_run_for(w.sim, SECOND / 40);
            }
            for (unsigned i = 0; i < 12 && x[i]->done; i++) done = x[i]->a.first_index;
            world_crash(&w, random >> 40 & 1 ? SIM_POWER : SIM_KILL);
            sim_disk_fail_nth(w.sim, 1, 0);
            for (unsigned i = 0; i < 12; i++) end_write(x[i]);
        }
        world_free(&w);
    }
}

static void put(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)(v >> (8 * i));
}

/* A record as an earlier version wrote it: one checksum. Returns its checksum field. */
static uint32_t put_old_record(uint8_t *at, const uint8_t *segment, uint32_t prev, uint64_t seq, uint64_t index, unsigned kind)
{
    size_t len = kind == 4 ? 0 : 16 + len_of(index, 100);
    memset(at, 0, 56);
    memcpy(at, segment + 32, 8);
    put(at + 12, prev, 4);
    put(at + 16, seq, 8);
    put(at + 24, kind == 4 ? 0 : index, 8);
    put(at + 40, kind, 4);
    put(at + 44, kind != 4, 4);
    put(at + 48, len, 4);
    if (len) {
        put(at + 56, 1, 8);
        put(at + 64, RAFT_COMMAND, 4);
        put(at + 68, len - 16, 4);
        fill(at + 72, len - 16, index);
    }
    uint32_t crc = crc32c(0, at + 12, 44 + len);
    put(at + 8, crc, 4);
    return crc;
}

/* A log of an earlier version: no begin, no mark, one checksum, a seal. */
static void test_first_format(void **state)
{
    (void)state;
    struct world w;
    struct buf file = {0};
    world_init(&w, 12);
    world_open(&w);
    world_close(&w);
    assert_int_equal(sim_disk_read(w.sim, 1, FIRST_SEGMENT, &file), 0);
    size_t at = 64;
    uint32_t crc = 0;
    for (uint64_t i = 1; i <= 5; i++) {
        crc = put_old_record(file.data + at, file.data, crc, i, i, 1);
        at += (56 + 16 + len_of(i, 100) + 7) / 8 * 8;
    }
    put_old_record(file.data + at, file.data, crc, 6, 0, 4);
    sim_disk_wipe(w.sim, 1);
    w.env = sim_boot(w.sim, 1);
    assert_int_equal(w.env->ops->mkdir(w.env, "wal", NULL), 0);
    world_stop(&w);
    sim_disk_write(w.sim, 1, FIRST_SEGMENT, buf_slice(&file));
    world_open(&w);
    assert_contents(&w, 1, 5, 100);
    write_entries(&w, 6, 3, 1, 100);
    world_crash(&w, SIM_KILL);
    world_open(&w);
    assert_contents(&w, 1, 8, 100);
    struct wal_check k;
    struct err e;
    buf_clear(&file);
    assert_int_equal(sim_disk_read(w.sim, 1, FIRST_SEGMENT, &file), 0);
    assert_true(wal_check_next(w.wal, 0, &k));
    assert_int_equal(wal_check_feed(&k, slice_sub(buf_slice(&file), 0, k.end), &e), 0);
    world_close(&w);
    buf_release(&file);
    world_free(&w);
}

static void test_missing_segment(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 6);
    world_open(&w);
    for (uint64_t i = 1; i <= 40; i++) write_entries(&w, i, 1, 1, 20000);
    world_close(&w);
    /* Damage to a segment in the middle is refused, whatever lies in it. */
    struct buf file = {0};
    assert_int_equal(sim_disk_read(w.sim, 1, "wal/0000000000000002.wal", &file), 0);
    struct err e = {{0}};
    for (size_t cut = 64; cut < 30000; cut += 3777) {
        sim_disk_write(w.sim, 1, "wal/0000000000000002.wal", slice_sub(buf_slice(&file), 0, cut));
        assert_int_equal(world_try_open(&w, &e), ERR_CORRUPT);
        assert_non_null(strstr(e.text, "wal/0000000000000002.wal: offset"));
    }
    buf_release(&file);
    world_free(&w);
}

static void test_recycled(void **state)
{
    (void)state;
    struct world w;
    for (uint64_t seed = 10; seed < 16; seed++) {
        world_init(&w, seed);
        world_open(&w);
        uint64_t next = 1, first = 1;
        for (int round = 0; round < 6; round++) {
            for (int i = 0; i < 25; i++) write_entries(&w, next++, 1, 1, 20000);
            first = next - 10;
            wal_release(w.wal, first - 1);
            sim_run_for(w.sim, SECOND);
            world_crash(&w, round % 2 ? SIM_POWER : SIM_KILL);
            world_open(&w);
            assert_true(w.contents.n >= 10);
            assert_contents(&w, next - w.contents.n, w.contents.n, 20000);
            assert_true(w.contents.n < 40); /* the others were given back */
        }
        world_close(&w);
        world_free(&w);
    }
}

/* Crashes at every disk operation: what was acknowledged is there, and nothing that was not
 * written. */
static void test_crash_anywhere(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 220; seed++) {
        struct world w;
        world_init(&w, seed);
        sim_disk(w.sim)->keep_creates = seed % 2;
        uint64_t acknowledged = 0, next = 1;
        for (int life = 0; life < 4; life++) {
            world_open(&w);
            assert_true(w.contents.n == 0 || w.contents.first_index <= acknowledged + 1);
            uint64_t last = w.contents.n ? w.contents.first_index + w.contents.n - 1 : 0;
            assert_true(last >= acknowledged);
            if (w.contents.n) assert_contents(&w, w.contents.first_index, w.contents.n, 9000);
            next = last + 1;
            struct write *x[12];
            unsigned n = 0;
            for (; n < 12; n++, next++) x[n] = begin_write(&w, next, 1, 1, 9000);
            sim_run_for(w.sim, (seed * 7919 + (uint64_t)life * 104729) % 40000);
            for (unsigned i = 0; i < n && x[i]->done; i++) acknowledged = x[i]->a.first_index;
            if (acknowledged > 20) wal_release(w.wal, acknowledged - 20);
            if (seed % 3) sim_run_for(w.sim, seed * 131 % 3000);
            for (unsigned i = 0; i < n && x[i]->done; i++) acknowledged = x[i]->a.first_index;
            world_crash(&w, SIM_POWER);
            for (unsigned i = 0; i < n; i++) end_write(x[i]);
        }
        world_free(&w);
    }
}

static void test_full_disk(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, 7);
    world_open(&w);
    write_entries(&w, 1, 1, 1, 20000);
    sim_disk_capacity(w.sim, 1, sim_disk_used(w.sim, 1) + 10000);
    struct write *x[20];
    for (uint64_t i = 0; i < 20; i++) x[i] = begin_write(&w, i + 2, 1, 1, 20000);
    sim_run_for(w.sim, SECOND);
    assert_true(w.failed);
    assert_int_equal(w.fatal_error, ERR_NO_SPACE);
    assert_non_null(strstr(w.fatal_text, "write-ahead log"));
    assert_false(x[19]->done);
    world_crash(&w, SIM_POWER);
    uint64_t done = 1;
    for (unsigned i = 0; i < 20; i++) {
        if (x[i]->done) done = x[i]->a.first_index;
        end_write(x[i]);
    }
    sim_disk_capacity(w.sim, 1, 0);
    world_open(&w);
    assert_true(w.contents.n >= done);
    world_close(&w);
    world_free(&w);
}

static void test_foreign_files(void **state)
{
    (void)state;
    struct world w;
    struct err e = {{0}};
    world_init(&w, 8);
    world_open(&w);
    world_close(&w);
    sim_disk_write(w.sim, 1, "wal/notes.txt", SLICE_LIT("hello"));
    assert_int_equal(world_try_open(&w, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "notes.txt"));
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),         cmocka_unit_test(test_groups),
        cmocka_unit_test(test_truncate_reset),     cmocka_unit_test(test_torn_at_every_byte),
        cmocka_unit_test(test_flip_every_bit),     cmocka_unit_test(test_missing_segment),
        cmocka_unit_test(test_check_every_bit),    cmocka_unit_test(test_lost_mark),
        cmocka_unit_test(test_names_found),        cmocka_unit_test(test_release_keeps_newest),
        cmocka_unit_test(test_sectors),            cmocka_unit_test(test_only_record),
        cmocka_unit_test(test_first_format),
        cmocka_unit_test(test_failed_writes),
        cmocka_unit_test(test_recycled),           cmocka_unit_test(test_crash_anywhere),
        cmocka_unit_test(test_full_disk),          cmocka_unit_test(test_foreign_files),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
