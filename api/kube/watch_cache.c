/* What the watchers of one worker share: an event is encoded once for each format, and parsed once for all selectors. Two small
 * direct-mapped tables whose entries hold a reference to their record, so that an address cannot come to mean another one; they
 * are emptied when nothing has happened for a while. */
#include "api/kube/watch_int.h"
#include "base/mem.h"

#define EVENTS 1024u
#define PARSED 512u

struct cached_event {
    struct record *record;
    unsigned format;
    enum watch_type type;
    struct blob *blob;
};

struct cached_object {
    struct record *record;
    struct arena arena;
    struct json *object;
};

struct kube_cache {
    struct cached_event events[EVENTS];
    struct cached_object parsed[PARSED];
    bool used;
};

int kube_cache_new(struct kube_cache **ret)
{
    struct kube_cache *c = mem_calloc(1, sizeof(*c));
    if (!c) return ERR_NOMEM;
    *ret = c;
    return 0;
}

static void drop_event(struct cached_event *e)
{
    record_unref(e->record);
    blob_unref(e->blob);
    *e = (struct cached_event){0};
}

static void drop_object(struct cached_object *o)
{
    record_unref(o->record);
    arena_release(&o->arena);
    *o = (struct cached_object){0};
}

static void clear(struct kube_cache *c)
{
    for (size_t i = 0; i < EVENTS; i++) drop_event(&c->events[i]);
    for (size_t i = 0; i < PARSED; i++) drop_object(&c->parsed[i]);
}

void kube_cache_idle(struct kube_cache *c)
{
    if (!c->used) return;
    clear(c);
    c->used = false;
}

void kube_cache_free(struct kube_cache *c)
{
    if (!c) return;
    clear(c);
    mem_free(c);
}

static size_t hash(const struct record *r, unsigned salt)
{
    uint64_t x = (uint64_t)(uintptr_t)r + salt * 0x9e3779b97f4a7c15ULL;
    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ULL;
    return (size_t)(x >> 40);
}

struct blob *kube_cache_event(struct kube_cache *c, const struct record *r, enum watch_type type, unsigned format)
{
    struct cached_event *e = &c->events[hash(r, format * 8 + type) % EVENTS];
    return e->record == r && e->type == type && e->format == format ? e->blob : NULL;
}

void kube_cache_put_event(struct kube_cache *c, struct record *r, enum watch_type type, unsigned format,
                           struct blob *blob)
{
    struct cached_event *e = &c->events[hash(r, format * 8 + type) % EVENTS];
    drop_event(e);
    *e = (struct cached_event){record_ref(r), format, type, blob_ref(blob)};
    c->used = true;
}

const struct json *kube_cache_object(struct kube_cache *c, struct record *r)
{
    struct cached_object *o = &c->parsed[hash(r, 0) % PARSED];
    if (o->record == r) return o->object;
    drop_object(o);
    o->record = record_ref(r);
    arena_init(&o->arena, 64 * LIMIT_MiB);
    if (object_parse(&o->arena, record_value(r), 0, &o->object)) o->object = NULL;
    c->used = true;
    return o->object;
}
