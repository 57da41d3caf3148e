/* A log that was written as it should be, and then changed: opening it must say what is wrong, or
 * end with a log that opens again to the same entries. Checksums always fit (fake_crc.h).
 *
 * Input: how many records, for each its kind and size; then changes: where (three bytes: file,
 * offset), what, a byte. */
#include "base/mem.h"
#include "raft/wal_format_int.h"
#include "tests/fuzz/fake_crc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_env.h"

static void fatal(void *ctx, int error, const char *text)
{
    (void)ctx, (void)error, (void)text;
    abort(); /* nothing fails on this disk */
}

static int open_log(struct mem_env *m, struct wal **w, struct wal_contents *c)
{
    const struct wal_options o = {
        .env = &m->env, .cluster_id = 7, .member_id = 1, .segment_bytes = 1, .fatal = fatal};
    struct err e = {0};
    return wal_open(&o, w, c, &e);
}

static void write_log(struct mem_env *m, struct reader *in)
{
    struct wal *w;
    struct wal_contents c;
    static uint8_t zeros[256];
    uint64_t index = 1, term = 1;
    CHECK(open_log(m, &w, &c) == 0);
    wal_contents_release(&c);
    for (int n = reader_u8(in) % 8; n > 0; n--) {
        uint8_t kind = reader_u8(in), len = reader_u8(in);
        struct err e;
        term += kind / 64;
        if (kind % 8 == 0) {
            index += len;
            CHECK(wal_reset_sync(w, index, term, &e) == 0);
            index++;
        } else {
            CHECK(wal_append_sync(w, index++, term, kind % 8 == 1 ? RAFT_BARRIER : RAFT_COMMAND,
                                  slice_make(zeros, len), &e) == 0);
        }
    }
    wal_free(w);
}

static void copy_segment(struct mem_env *m, uint8_t to)
{
    char path[WAL_PATH_BYTES];
    const struct env_file *from = &m->files[0];
    if (!from->path[0]) return;
    wal_segment_path(path, to % 4u + 1);
    struct env_file *f = mem_create(m, path);
    if (f == from) return;
    f->len = 0;
    CHECK(mem_put(f, 0, from->data, from->len) == 0);
    if (f->len > 24) f->data[24] = (uint8_t)(to % 4 + 1);
}

static void change(struct mem_env *m, struct reader *in)
{
    struct env_file *f = &m->files[reader_u8(in) % 4];
    size_t at = reader_u8(in);
    at |= (size_t)(reader_u8(in) % 8) << 8;
    uint8_t what = reader_u8(in), value = reader_u8(in);
    if (what % 8 == 7) {
        copy_segment(m, value);
        return;
    }
    if (!f->path[0] || at + 256 > f->len) return;
    switch (what % 8) {
    case 0: f->data[at] = value; break;
    case 1: f->data[at] ^= (uint8_t)(1u << (value % 8)); break;
    case 2: memset(f->data + at, value, 4); break;
    case 3: memset(f->data + at, 0, value); break;
    case 4: memmove(f->data + at, f->data + at + value % 128, f->len - at - value % 128); break;
    case 5: memmove(f->data + at + value % 128, f->data + at, f->len - at - value % 128); break;
    default: f->len = at; break;
    }
}

static void check_same(const struct wal_contents *a, const struct wal_contents *b)
{
    if (a->n != b->n || a->first_index != b->first_index || a->reset_index != b->reset_index ||
        a->reset_term != b->reset_term)
        abort();
    for (size_t i = 0; i < a->n; i++) {
        const struct wal_entry *x = &a->entries[i], *y = &b->entries[i];
        if (x->term != y->term || x->type != y->type || x->len != y->len ||
            (x->len && memcmp(x->data, y->data, x->len) != 0))
            abort();
        if (i && x->term < a->entries[i - 1].term) abort();
    }
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 10;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem_env m;
    struct wal *w;
    struct wal_contents first, second;
    struct reader in = reader_make(slice_make(data, size));
    mem_env_init(&m);
    write_log(&m, &in);
    for (int n = 0; n < 64 && reader_left(&in); n++) change(&m, &in);
    fuzz_memory_on();
    int code = open_log(&m, &w, &first);
    fuzz_memory_off();
    if (code == 0) {
        wal_free(w);
        if (open_log(&m, &w, &second) != 0) abort();
        check_same(&first, &second);
        wal_free(w);
        wal_contents_release(&first);
        wal_contents_release(&second);
    }
    mem_env_release(&m);
    return 0;
}
