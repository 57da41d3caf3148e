#include "clients/lib/recorder.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/kjson.h"

#define KNOWN_MAX 4096   /* events remembered, to count repeats */
#define FLYING_MAX 64    /* requests at a time */
#define WAITING_MAX 8192 /* built, not yet sent */

/* An event that was sent, by what makes it the same again. */
struct known {
    struct smap_node node;
    struct list link; /* oldest first */
    struct recorder *recorder;
    unsigned count, sent_count;
    bool flying, waiting, created, orphan; /* orphan: freed when its request ends */
    struct list waiting_link;
    int64_t first_ms, last_ms;
    char *ns, *name, *object, *type, *reason, *message; /* object: JSON of involvedObject */
    char key[];
};

struct recorder {
    struct kube_client *client;
    const char *component, *host;
    struct smap known;
    struct list by_age, waiting;
    size_t n_waiting, n_flying;
    uint64_t sequence;
};

struct recorder *recorder_new(struct kube_client *client, const char *component, const char *host)
{
    struct recorder *r = mem_must_calloc(1, sizeof(*r));
    r->client = client;
    r->component = component;
    r->host = host;
    list_init(&r->by_age);
    list_init(&r->waiting);
    return r;
}

static void known_free(struct known *k)
{
    mem_free(k->ns);
    mem_free(k->name);
    mem_free(k->object);
    mem_free(k->type);
    mem_free(k->reason);
    mem_free(k->message);
    mem_free(k);
}

static void forget(struct recorder *r, struct known *k)
{
    smap_remove(&r->known, &k->node);
    list_remove(&k->link);
    if (k->waiting) {
        list_remove(&k->waiting_link);
        r->n_waiting--;
    }
    if (k->flying) k->orphan = true;
    else known_free(k);
}

void recorder_free(struct recorder *r)
{
    if (!r) return;
    while (!list_empty(&r->by_age)) {
        struct known *k = container_of(r->by_age.next, struct known, link);
        k->flying = false; /* the client is closed: no answer comes */
        forget(r, k);
    }
    smap_release(&r->known);
    mem_free(r);
}

static void send_next(struct recorder *r);

static void wait_in_line(struct recorder *r, struct known *k)
{
    if (k->waiting || k->flying) return;
    if (r->n_waiting >= WAITING_MAX) return;
    k->waiting = true;
    r->n_waiting++;
    list_push_back(&r->waiting, &k->waiting_link);
}

static void on_sent(void *ctx, const struct kube_result *res)
{
    struct known *k = ctx;
    struct recorder *r = k->recorder;
    k->flying = false;
    r->n_flying--;
    if (k->orphan) {
        known_free(k);
    } else {
        if (res->code == ERR_NOT_FOUND) k->created = false;
        if (res->code)
            log_debug("event not recorded reason=%s error=\"%s\"", k->reason, res->message);
        if (!res->code) k->created = true;
        if (!res->code && k->count != k->sent_count) wait_in_line(r, k);
    }
    send_next(r);
}

static struct json *event_body(struct recorder *r, struct known *k, struct arena *a)
{
    const char *last = kjson_time(a, k->last_ms);
    if (k->created) return kjson(a, "{count:i,lastTimestamp:s}", (int64_t)k->count, last);
    struct json *object;
    if (json_parse(a, slice_str(k->object), 0, &object, NULL)) return NULL;
    return kjson(a,
                 "{apiVersion:'v1',kind:'Event',metadata:{name:s,namespace:s},involvedObject:o,"
                 "reason:s,message:s,type:s,"
                 "source:{component:s,host:s?},firstTimestamp:s,lastTimestamp:s,count:i,"
                 "reportingComponent:s,"
                 "reportingInstance:s}",
                 k->name, k->ns, object, k->reason, k->message, k->type, r->component, r->host,
                 kjson_time(a, k->first_ms), last, (int64_t)k->count, r->component,
                 r->host ? r->host : "");
}

static void send_next(struct recorder *r)
{
    while (r->n_flying < FLYING_MAX && !list_empty(&r->waiting)) {
        struct known *k = container_of(list_pop_front(&r->waiting), struct known, waiting_link);
        struct arena a = {0};
        k->waiting = false;
        r->n_waiting--;
        k->flying = true;
        r->n_flying++;
        k->sent_count = k->count;
        struct json *body = event_body(r, k, &a);
        if (k->created)
            kube_patch(r->client, &KUBE_EVENTS, slice_str(k->ns), slice_str(k->name), NULL, body,
                       on_sent, k);
        else kube_create(r->client, &KUBE_EVENTS, slice_str(k->ns), body, on_sent, k);
        arena_release(&a);
    }
}

static char *object_reference(const struct kube_resource *kind, const struct kube_object *o)
{
    struct arena a = {0};
    struct buf out = {0};
    char version[24];
    snprintf(version, sizeof(version), "%lld", (long long)o->resource_version);
    /* Events about a Node carry its name as uid, as the kubelet's do: that is what kubectl describe
     * looks for. */
    struct slice uid = kind == &KUBE_NODES ? o->name : o->uid;
    struct json *ref =
        kjson(&a, "{kind:s,namespace:t?,name:t,uid:t?,apiVersion:s,resourceVersion:s}", kind->kind,
              o->ns, o->name, uid, kind->api_version, version);
    if (ref) json_write(&out, ref);
    arena_release(&a);
    return (char *)buf_cstr(&out);
}

static char *copy(struct slice s)
{
    char *p = mem_must_alloc(s.len + 1);
    if (s.len) memcpy(p, s.data, s.len);
    p[s.len] = 0;
    return p;
}

static struct known *known_new(struct recorder *r, const char *key,
                               const struct kube_resource *kind, const struct kube_object *o)
{
    char *object = object_reference(kind, o);
    if (!object) return NULL;
    size_t size = strlen(key) + 1;
    struct known *k = mem_must_calloc(1, sizeof(*k) + size);
    memcpy(k->key, key, size);
    k->recorder = r;
    k->object = object;
    k->ns = o->ns.len ? copy(o->ns) : mem_must_strdup("default");
    char name[320];
    snprintf(name, sizeof(name), "%.*s.%llx%04llx", (int)(o->name.len > 230 ? 230 : o->name.len),
             o->name.data, (unsigned long long)clock_wall_ms(),
             (unsigned long long)(r->sequence++ & 0xffff));
    k->name = mem_must_strdup(name);
    list_init(&k->waiting_link);
    return k;
}

void recorder_event(struct recorder *r, const struct kube_resource *kind,
                    const struct kube_object *o, const char *type, const char *reason,
                    const char *format, ...)
{
    char message[1025], key[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof(message), format, ap);
    va_end(ap);
    snprintf(key, sizeof(key), "%.*s|%.*s|%s|%s|%s", (int)o->node.key.len, o->node.key.data,
             (int)o->uid.len, o->uid.len ? (const char *)o->uid.data : "", type, reason, message);
    struct known *k = smap_entry(&r->known, slice_str(key), struct known, node);
    if (!k) {
        k = known_new(r, key, kind, o);
        if (!k) return;
        k->type = mem_must_strdup(type);
        k->reason = mem_must_strdup(reason);
        k->message = mem_must_strdup(message);
        k->first_ms = clock_wall_ms();
        smap_insert(&r->known, &k->node, slice_str(k->key));
        if (r->known.count > KNOWN_MAX) forget(r, container_of(r->by_age.next, struct known, link));
    } else {
        list_remove(&k->link);
    }
    list_push_back(&r->by_age, &k->link);
    k->count++;
    k->last_ms = clock_wall_ms();
    wait_in_line(r, k);
    send_next(r);
}
