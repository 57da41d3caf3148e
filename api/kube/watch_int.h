/* Between watch.c, watch_event.c and watch_cache.c. */
#ifndef PINTLE_API_KUBE_WATCH_INT_H
#define PINTLE_API_KUBE_WATCH_INT_H

#include "api/kube/kube_int.h"

enum watch_type { WATCH_NOTHING, WATCH_ADDED, WATCH_MODIFIED, WATCH_DELETED, WATCH_BOOKMARK };

struct kube_watch {
    struct watch_sink sink;
    struct list node; /* in api->watches */
    struct kube_request *q;
    struct watcher *watcher; /* NULL until live, and after it ended */
    struct slice key, end;
    int64_t from;            /* resourceVersion to start behind */
    int64_t not_older;
    int64_t initial_rev;     /* of the initial objects */
    int64_t bookmarked;
    bool initial;            /* starts with what is there */
    bool announce_initial;   /* sendInitialEvents: a bookmark ends them */
    bool bookmarks, linearizable, reading, head_sent, ended;
    bool columns_sent;       /* a Table's columns come with its first event only */
    bool corrupt;
    uint64_t deadline_ms, bookmark_at_ms;
    struct arena scratch;
};

/* What `e` means to this watch, and the object's bytes to show (borrowed). */
enum watch_type watch_classify(struct kube_watch *w, const struct event *e, struct record **ret_shown);
/* Whether that cannot be told, because what was there before was compacted: the client must list again. */
bool watch_lost_before(const struct event *e);
/* One event in the watch's format, from the cache if it is there; NULL: out of memory, or the object is no object (then
 * w->corrupt is set). The reference is the caller's. */
struct blob *watch_encode(struct kube_watch *w, enum watch_type type, struct record *event, struct record *shown);
struct blob *watch_encode_bookmark(struct kube_watch *w, int64_t revision, bool initial_end);
struct blob *watch_encode_error(struct kube_watch *w, const struct status *s);

/* Lookups are borrowed. */
struct blob *kube_cache_event(struct kube_cache *c, const struct record *r, enum watch_type type, unsigned format);
void kube_cache_put_event(struct kube_cache *c, struct record *r, enum watch_type type, unsigned format,
                           struct blob *blob);
/* The parsed object without a resourceVersion, until the next call; NULL if it cannot be parsed. */
const struct json *kube_cache_object(struct kube_cache *c, struct record *r);
/* Called about once a second: drops what is held when nothing was used since. */
void kube_cache_idle(struct kube_cache *c);

#endif
