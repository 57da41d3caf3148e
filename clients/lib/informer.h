/* A local copy of a resource's objects that follows the server: list in pages, then watch with
 * bookmarks, resumed from the last resourceVersion after every disconnect, listed again when that
 * is too old (410). Several controllers of a process share one.
 *
 * Objects are parsed once, trimmed (metadata.managedFields always; more by `trim`), and immutable:
 * a change makes a new `struct kube_object`. The cache holds one reference; whoever keeps an object
 * beyond a callback takes another. Events that a resumed watch repeats, or that are older than what
 * is known, are dropped.
 *
 * One thread, one loop. */
#ifndef PINTLE_CLIENTS_LIB_INFORMER_H
#define PINTLE_CLIENTS_LIB_INFORMER_H

#include <stdio.h>

#include "base/json.h"
#include "base/list.h"
#include "clients/lib/kubeclient.h"
#include "clients/lib/smap.h"

#define INFORMER_INDEXES 4
#define INFORMER_HANDLERS 8

struct informer;

/* Read only. The texts live as long as the object. */
struct kube_object {
    struct smap_node node; /* key: "namespace/name", or "name" of cluster-wide ones */
    struct slice ns, name, uid;
    int64_t resource_version;
    struct json *json;
    /* the informer's */
    unsigned refs;
    uint32_t generation;
    struct arena arena;
    struct {
        struct list link;
        struct informer_bucket *bucket;
    } index[INFORMER_INDEXES];
};

struct kube_object *kube_object_ref(struct kube_object *o);
void kube_object_unref(struct kube_object *o); /* NULL is fine */
/* An object of one's own from a tree (cloned into it); NULL when out of memory, or it has no name.
 */
struct kube_object *kube_object_new(const struct json *json);
static inline struct slice kube_object_key(const struct kube_object *o)
{
    return o->node.key;
}

/* Any may be NULL. `deleted` gets the last state known. All are called during the first list too.
 */
struct informer_handler {
    void (*added)(void *ctx, struct kube_object *o);
    void (*updated)(void *ctx, struct kube_object *old, struct kube_object *o);
    void (*deleted)(void *ctx, struct kube_object *o);
    void (*synced)(void *ctx); /* the first list is complete */
};

struct informer_options {
    const struct kube_resource *resource;
    const char *ns;             /* NULL = all */
    const char *label_selector; /* NULL = none */
    const char *field_selector;
    void (*trim)(
        struct json *object); /* removes what is not needed (json_remove), before it is kept */
    unsigned page;            /* 0 = LIMIT_CLIENT_LIST_PAGE */
};

/* The strings and the resource are borrowed. */
struct informer *informer_new(struct kube_client *client, const struct informer_options *o);
void informer_free(struct informer *inf);
/* Before the start. */
void informer_add_handler(struct informer *inf, const struct informer_handler *h, void *ctx);
/* Objects by one value of theirs; `value` gives an empty slice for none. Returns the index' number.
 */
int informer_add_index(struct informer *inf, struct slice (*value)(const struct kube_object *o));
void informer_start(struct informer *inf);

bool informer_synced(const struct informer *inf);
size_t informer_count(const struct informer *inf);
/* NULL if it is not known. */
struct kube_object *informer_get(const struct informer *inf, struct slice ns, struct slice name);
struct kube_object *informer_get_key(const struct informer *inf, struct slice key);
/* Iterates an index' value: for (o = informer_first(inf, i, v); o; o = informer_next(o, i)).
 * Nothing may change meanwhile. */
struct kube_object *informer_first(const struct informer *inf, int index, struct slice value);
struct kube_object *informer_next(const struct kube_object *o, int index);
size_t informer_index_count(const struct informer *inf, int index, struct slice value);
/* All objects, in no order. */
struct kube_object *informer_first_object(const struct informer *inf);
struct kube_object *informer_next_object(const struct informer *inf, const struct kube_object *o);
const struct kube_resource *informer_resource(const struct informer *inf);

struct informer_stats {
    uint64_t lists, watches, events, dropped;
};
void informer_stats(const struct informer *inf, struct informer_stats *ret);
/* What every informer of this process holds, a line each: "report informer PATH ns= labels= fields= synced= objects=",
 * then "report object KEY RESOURCEVERSION". */
void informer_report_all(FILE *out);

/* Ready-made index values. */
struct slice index_namespace(const struct kube_object *o);
struct slice
index_controller_uid(const struct kube_object *o); /* of the ownerReference with controller: true */
struct slice index_node_name(const struct kube_object *o); /* spec.nodeName */
/* The ownerReference with controller: true, or NULL. */
const struct json *kube_controller_of(const struct json *object);

#endif
