#include "api/etcd/watch_encode.h"

#include "api/etcd/etcd_int.h"
#include "base/blob.h"
#include "base/limits.h"
#include "base/mem.h"

/* Below this many bytes a copy into the connection's buffer is cheaper than a reference. */
#define COPY_BYTES 1024

/* Consecutive whole revisions of a run, encoded. */
struct part {
    struct blob *bytes;
    size_t first, n; /* events */
    int64_t last_rev;
};

/* A run as it is sent: with prev_kv or without. */
struct encoded_run {
    uint64_t run; /* 0 = none */
    struct part *parts;
    size_t n, size;
};

struct watch_cache {
    struct encoded_run runs[2]; /* [prev_kv] */
};

int watch_cache_new(struct watch_cache **ret)
{
    struct watch_cache *cache = mem_calloc(1, sizeof(*cache));
    if (!cache) return ERR_NOMEM;
    *ret = cache;
    return 0;
}

static void run_clear(struct encoded_run *r)
{
    for (size_t i = 0; i < r->n; i++) blob_unref(r->parts[i].bytes);
    r->n = 0;
    r->run = 0;
}

void watch_cache_trim(struct watch_cache *cache)
{
    run_clear(&cache->runs[0]);
    run_clear(&cache->runs[1]);
}

void watch_cache_free(struct watch_cache *cache)
{
    for (size_t i = 0; cache && i < 2; i++) {
        run_clear(&cache->runs[i]);
        mem_free(cache->runs[i].parts);
    }
    mem_free(cache);
}

/* ---- encoding ----------------------------------------------------------------------------------
 */

/* How many events from `first` on go into one part, and their bytes: whole revisions, at least one.
 */
static size_t measure_part(const struct watch_send *s, size_t first, size_t *ret_bytes)
{
    size_t n = 0, bytes = 0;
    while (first + n < s->n) {
        int64_t rev = s->events[first + n]->record->mod_rev;
        size_t more = 0, size = 0;
        while (first + n + more < s->n && s->events[first + n + more]->record->mod_rev == rev)
            size += event_size(s->events[first + n + more++], s->prev_kv);
        if (n > 0 && bytes + size > LIMIT_WATCH_BATCH_BYTES) break;
        n += more;
        bytes += size;
    }
    *ret_bytes = bytes;
    return n;
}

static int add_part(struct encoded_run *r, const struct watch_send *s, size_t first, size_t n,
                    size_t bytes)
{
    if (r->n == r->size) {
        size_t size = r->size ? r->size * 2 : 4;
        struct part *grown = mem_realloc(r->parts, size * sizeof(*grown));
        if (!grown) return ERR_NOMEM;
        r->parts = grown;
        r->size = size;
    }
    struct blob *b = blob_new(bytes);
    if (!b) return ERR_NOMEM;
    uint8_t *p = b->data;
    for (size_t i = 0; i < n; i++) p = encode_event(p, s->events[first + i], s->prev_kv);
    r->parts[r->n++] = (struct part){
        .bytes = b, .first = first, .n = n, .last_rev = s->events[first + n - 1]->record->mod_rev};
    return 0;
}

static int encode_run(struct encoded_run *r, const struct watch_send *s)
{
    if (r->run == s->run) return 0;
    run_clear(r);
    for (size_t first = 0, n, bytes; first < s->n; first += n) {
        n = measure_part(s, first, &bytes);
        int rv = add_part(r, s, first, n, bytes);
        if (rv != 0) {
            run_clear(r);
            return rv;
        }
    }
    r->run = s->run;
    return 0;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static void unref_blob(void *owner)
{
    blob_unref(owner);
}

static void send_one(const struct watch_send *s, int64_t revision, bool fragment, struct blob *b,
                     struct slice events)
{
    struct header head = s->head;
    head.revision = revision;
    uint8_t start[HEADER_MAX + 16], *p = encode_header(start, &head);
    p = pb_put_uint(p, 2, (uint64_t)s->watch_id);
    p = pb_put_uint(p, 7, fragment);
    struct grpc_piece pieces[2] = {{.data = {start, (size_t)(p - start)}}, {.data = events}};
    if (events.len > COPY_BYTES) {
        pieces[1].owner = blob_ref(b);
        pieces[1].release = unref_blob;
    }
    grpc_send(s->call, pieces, 2);
}

/* One part in several answers, cut between events. */
static void send_fragments(const struct watch_send *s, const struct part *part, int64_t revision)
{
    struct slice left = blob_slice(part->bytes);
    for (size_t i = 0; i < part->n;) {
        size_t bytes = 0, n = 0;
        while (i + n < part->n) {
            size_t size = event_size(s->events[part->first + i + n], s->prev_kv);
            if (n > 0 && bytes + size + HEADER_MAX + 16 >= LIMIT_WATCH_FRAGMENT_BYTES) break;
            bytes += size;
            n++;
        }
        i += n;
        send_one(s, revision, i < part->n, part->bytes, slice_sub(left, 0, bytes));
        left = slice_sub(left, bytes, SIZE_MAX);
    }
}

int watch_send_events(struct watch_cache *cache, const struct watch_send *s)
{
    struct encoded_run *r = &cache->runs[s->prev_kv];
    int rv = encode_run(r, s);
    if (rv != 0) return rv;
    for (size_t i = 0; i < r->n; i++) {
        const struct part *part = &r->parts[i];
        int64_t revision = i + 1 == r->n ? s->head.revision : part->last_rev;
        if (s->fragment && part->n > 1 &&
            part->bytes->len + HEADER_MAX + 16 >= LIMIT_WATCH_FRAGMENT_BYTES)
            send_fragments(s, part, revision);
        else send_one(s, revision, false, part->bytes, blob_slice(part->bytes));
    }
    return 0;
}

size_t encode_watch_control(uint8_t *out, const struct watch_control *w)
{
    uint8_t *p = encode_header(out, &w->head);
    p = pb_put_uint(p, 2, (uint64_t)w->watch_id);
    p = pb_put_uint(p, 3, w->created);
    p = pb_put_uint(p, 4, w->canceled);
    p = pb_put_uint(p, 5, (uint64_t)w->compact_revision);
    p = pb_put_bytes(p, 6, slice_sub(w->reason, 0, WATCH_REASON_MAX));
    return (size_t)(p - out);
}
