/* Snapshots as files, offline: docs/formats-snapshot.md. A file is read twice: once to check every byte (nothing is written
 * before that is done), once to be copied into the new data folder. The folder gets its name when it is whole and durable. */
#include "api/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/cluster.h"
#include "base/flags.h"
#include "base/limits.h"
#include "base/mem.h"
#include "raft/env_uv.h"
#include "store/store.h"

#define DIGEST_BYTES 32
#define LENGTH_BYTES 8 /* of the stream, at the end of the padding */
#define PIECE_BYTES LIMIT_MiB

struct snapshot_file {
    FILE *f;
    const char *path;
    uint64_t size;   /* of all that the digest is over: stream and padding */
    uint64_t stream; /* of the stream */
    uint64_t left;   /* of the part that is being read */
    uint8_t piece[PIECE_BYTES];
};

static int no_snapshot(const char *path, struct err *e)
{
    return err_set(e, ERR_CORRUPT, "%s is no snapshot of Pintle, or its end is missing", path);
}

static int file_open(const char *path, struct snapshot_file **ret, struct err *e)
{
    struct stat st;
    uint8_t length[LENGTH_BYTES];
    FILE *f = fopen(path, "rbe");
    if (!f || fstat(fileno(f), &st) != 0) {
        int rv = err_set(e, ERR_IO, "cannot read %s: %s", path, strerror(errno));
        if (f) fclose(f);
        return rv;
    }
    uint64_t size = st.st_size > DIGEST_BYTES ? (uint64_t)st.st_size - DIGEST_BYTES : 0, stream = 0;
    if (size > LENGTH_BYTES && fseeko(f, (off_t)(size - LENGTH_BYTES), SEEK_SET) == 0 &&
        fread(length, 1, sizeof(length), f) == sizeof(length)) {
        struct reader r = reader_make(slice_make(length, sizeof(length)));
        stream = reader_u64(&r);
    }
    if (stream == 0 || stream > size - LENGTH_BYTES || size - stream > 1024) {
        fclose(f);
        return no_snapshot(path, e);
    }
    rewind(f);
    struct snapshot_file *s = mem_must_calloc(1, sizeof(*s));
    s->f = f;
    s->path = path;
    s->size = size;
    s->stream = s->left = stream;
    *ret = s;
    return 0;
}

static void file_close(struct snapshot_file *s)
{
    if (!s) return;
    fclose(s->f);
    mem_free(s);
}

/* The next piece of what is left; empty at its end. */
static int file_next(struct snapshot_file *s, struct slice *ret, struct err *e)
{
    size_t want = s->left < sizeof(s->piece) ? (size_t)s->left : sizeof(s->piece);
    if (fread(s->piece, 1, want, s->f) != want)
        return err_set(e, ERR_IO, "cannot read %s at offset %lld", s->path, (long long)ftello(s->f));
    s->left -= want;
    *ret = slice_make(s->piece, want);
    return 0;
}

/* Reads the whole file: digest, and the store in it, which the caller frees. */
static int file_check(const char *path, struct store **ret, uint64_t *ret_size, struct err *e)
{
    struct snapshot_file *s = NULL;
    struct store_loader *loader = NULL;
    uint8_t want[DIGEST_BYTES], have[DIGEST_BYTES];
    struct store_options options = {0};
    struct slice piece;
    struct err inner = {0};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    int rv = digest ? file_open(path, &s, e) : ERR_NOMEM;
    if (rv != 0) goto out;
    loader = store_loader_new(&options);
    EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
    while ((rv = file_next(s, &piece, e)) == 0 && piece.len > 0) {
        EVP_DigestUpdate(digest, piece.data, piece.len);
        rv = store_loader_feed(loader, piece, &inner);
        if (rv != 0) break;
    }
    if (rv == 0) {
        s->left = s->size - s->stream;
        rv = file_next(s, &piece, e);
        if (rv == 0) EVP_DigestUpdate(digest, piece.data, piece.len);
    }
    if (rv == 0) {
        EVP_DigestFinal_ex(digest, have, NULL);
        if (fread(want, 1, sizeof(want), s->f) != sizeof(want) || memcmp(want, have, sizeof(want)) != 0)
            rv = err_set(&inner, ERR_CORRUPT, "SHA-256 over bytes 0 to %llu does not match the one at offset %llu",
                         (unsigned long long)s->size, (unsigned long long)s->size);
    }
    if (rv == 0) rv = store_loader_finish(loader, ret, &inner);
    if (rv != 0 && inner.text[0]) err_set(e, rv, "%s is damaged: %s", path, inner.text);
    if (rv == 0) *ret_size = s->size + DIGEST_BYTES;
out:
    store_loader_free(loader);
    EVP_MD_CTX_free(digest);
    file_close(s);
    return rv;
}

/* ---- status ------------------------------------------------------------------------------------------ */

static uint32_t store_hash_all(struct store *store)
{
    struct store_hash *h;
    if (store_hash_open(store, 0, &h) != 0) return 0;
    while (!store_hash_step(h, 100000)) continue;
    uint32_t value = store_hash_value(h);
    store_hash_close(h);
    return value;
}

static const char *human_size(uint64_t bytes, char *text, size_t size)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1000 && u < 4) v /= 1000, u++;
    snprintf(text, size, u && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return text;
}

static void print_table(uint32_t hash, int64_t revision, int64_t keys, const char *size)
{
    char cells[4][32];
    static const char *const heads[] = {"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"};
    snprintf(cells[0], sizeof(cells[0]), "%x", hash);
    snprintf(cells[1], sizeof(cells[1]), "%lld", (long long)revision);
    snprintf(cells[2], sizeof(cells[2]), "%lld", (long long)keys);
    snprintf(cells[3], sizeof(cells[3]), "%s", size);
    for (int row = 0; row < 5; row++) {
        for (int i = 0; i < 4; i++) {
            int w = (int)strlen(cells[i]) > (int)strlen(heads[i]) ? (int)strlen(cells[i]) : (int)strlen(heads[i]);
            if (row % 2 == 0) printf("+%.*s", w + 2, "----------------------------------");
            else printf("| %*s ", w, row == 1 ? heads[i] : cells[i]);
        }
        printf(row % 2 == 0 ? "+\n" : "|\n");
    }
}

int cmd_snapshot_status(int argc, char **argv)
{
    const char *output = "simple";
    struct flag flags[] = {{"write-out,w", FLAG_STRING, &output, "FORMAT", "simple, json or table"}, {0}};
    static const char usage[] = "Usage:\n  pintle ctl snapshot status FILE [flags]\n\nChecks every byte of a snapshot file and says what is in it.";
    struct err e = {0};
    struct store *store = NULL;
    uint64_t size;
    char human[32];
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED) return flags_help(stdout, usage, flags), 0;
    if (rv == 0 && argc != 2) rv = err_set(&e, ERR_INVALID, "snapshot status requires exactly one file name (see --help)");
    if (rv == 0 && strcmp(output, "simple") && strcmp(output, "json") && strcmp(output, "table"))
        rv = err_set(&e, ERR_INVALID, "%s is not supported as output format of snapshot status: use simple, json or table", output);
    if (rv == 0) rv = file_check(argv[1], &store, &size, &e);
    if (rv != 0) {
        fprintf(stderr, "Error: %s\n", e.text[0] ? e.text : err_text(rv));
        return 1;
    }
    uint32_t hash = store_hash_all(store);
    int64_t revision = store_revision(store), keys = store_keys(store);
    human_size(size, human, sizeof(human));
    if (!strcmp(output, "json"))
        printf("{\"hash\":%u,\"revision\":%lld,\"totalKey\":%lld,\"totalSize\":%llu}\n", hash, (long long)revision,
               (long long)keys, (unsigned long long)size);
    else if (!strcmp(output, "table")) print_table(hash, revision, keys, human);
    else printf("%x, %lld, %lld, %s\n", hash, (long long)revision, (long long)keys, human);
    store_free(store);
    return 0;
}

/* ---- restore ------------------------------------------------------------------------------------------- */

static int read_piece(void *ctx, struct buf *out, struct err *e)
{
    struct slice piece;
    int rv = file_next(ctx, &piece, e);
    return rv ? rv : buf_append_slice(out, piece);
}

struct restore_options {
    const char *name, *data_dir, *initial_cluster, *token, *advertise_peer;
};

static int restore_into(const char *data_dir, const char *path, const struct cluster *cluster, struct err *e)
{
    uv_loop_t loop;
    struct env *env = NULL;
    struct snapshot_file *s = NULL;
    struct env_uv_options options = {.data_dir = data_dir, .id = cluster->own_id, .cluster_id = cluster->cluster_id};
    struct consensus_config config = {.id = cluster->own_id,
                                      .cluster_id = cluster->cluster_id,
                                      .members = cluster->members,
                                      .n_members = cluster->n,
                                      .new_cluster = true};
    if (uv_loop_init(&loop) != 0) return ERR_NOMEM;
    int rv = file_open(path, &s, e);
    if (rv == 0) rv = env_uv_open(&loop, &options, &env, e);
    if (rv == 0) {
        rv = consensus_write_restored(&config, env, read_piece, s, e);
        env_uv_close(env, NULL, NULL);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    file_close(s);
    return rv;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st, (void)type, (void)where;
    return remove(path);
}

static int remove_folder(const char *path)
{
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT ? 0 : -1;
}

/* The rename is durable when the folder that holds the name is. */
static int sync_parent(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *parent = !slash ? "." : slash == path ? "/" : arena_printf(a, "%.*s", (int)(slash - path), path);
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rv = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0) close(fd);
    return rv;
}

/* All of it or nothing: what fails on the way leaves no folder behind. */
static int restore_whole(struct arena *a, const char *data_dir, const char *path, const struct cluster *cluster, struct err *e)
{
    const char *making = arena_printf(a, "%s.restoring", data_dir);
    if (remove_folder(making) != 0) /* what a killed one left */
        return err_set(e, ERR_IO, "cannot remove %s: %s", making, strerror(errno));
    int rv = restore_into(making, path, cluster, e);
    if (rv == 0 && (rename(making, data_dir) != 0 || sync_parent(a, data_dir) != 0))
        rv = err_set(e, ERR_IO, "cannot give %s its name: %s", data_dir, strerror(errno));
    if (rv != 0) (void)remove_folder(making);
    return rv;
}

static int restore(struct restore_options *o, const char *path, struct err *e)
{
    struct arena a = {0};
    struct cluster cluster;
    struct store *store = NULL;
    uint64_t size;
    struct stat st;
    size_t len = o->data_dir ? strlen(o->data_dir) : 0;
    while (len > 1 && o->data_dir[len - 1] == '/') len--;
    o->data_dir = len ? arena_printf(&a, "%.*s", (int)len, o->data_dir) : arena_printf(&a, "%s.pintle", o->name);
    if (!o->initial_cluster) o->initial_cluster = arena_printf(&a, "%s=%s", o->name, o->advertise_peer);
    int rv = cluster_parse(&a, o->initial_cluster, o->name, o->token, &cluster, e);
    if (rv == 0 && stat(o->data_dir, &st) == 0)
        rv = err_set(e, ERR_EXISTS, "data-dir \"%s\" exists: choose another --data-dir or remove it", o->data_dir);
    if (rv == 0) rv = file_check(path, &store, &size, e);
    if (rv == 0) rv = restore_whole(&a, o->data_dir, path, &cluster, e);
    if (rv == 0)
        printf("restored revision %lld, %lld keys into %s: member %s (%llx) of cluster %llx\n",
               (long long)store_revision(store), (long long)store_keys(store), o->data_dir, o->name,
               (unsigned long long)cluster.own_id, (unsigned long long)cluster.cluster_id);
    store_free(store);
    arena_release(&a);
    return rv;
}

int cmd_snapshot_restore(int argc, char **argv)
{
    struct restore_options o = {.name = "default", .token = "etcd-cluster", .advertise_peer = "http://localhost:2380"};
    bool skip = false;
    struct flag flags[] = {
        {"data-dir", FLAG_STRING, &o.data_dir, "DIR", "the new data folder; must not exist (default NAME.pintle)"},
        {"name", FLAG_STRING, &o.name, "NAME", "the member's name in --initial-cluster"},
        {"initial-cluster", FLAG_STRING, &o.initial_cluster, "LIST", "all members of the new cluster: name=peer-url,..."},
        {"initial-cluster-token", FLAG_STRING, &o.token, "TOKEN", "tells clusters with the same URLs apart"},
        {"initial-advertise-peer-urls", FLAG_STRING, &o.advertise_peer, "URL", "of a cluster of one, without --initial-cluster"},
        {"skip-hash-check", FLAG_BOOL, &skip, NULL, "accepted for etcdctl's sake; the file is always checked"},
        {0},
    };
    static const char usage[] = "Usage:\n  pintle ctl snapshot restore FILE --data-dir DIR --name NAME --initial-cluster LIST [flags]\n\n"
                                "Makes a data folder for one member of a new cluster from a snapshot file; once per member, with the same\n"
                                "file. Keys keep their revisions. The file is checked whole before anything is written.";
    struct err e = {0};
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED) return flags_help(stdout, usage, flags), 0;
    if (rv == 0 && argc != 2) rv = err_set(&e, ERR_INVALID, "snapshot restore requires exactly one file name (see --help)");
    if (rv == 0) rv = restore(&o, argv[1], &e);
    if (rv == 0) return 0;
    fprintf(stderr, "Error: %s\n", e.text[0] ? e.text : err_text(rv));
    return 1;
}
