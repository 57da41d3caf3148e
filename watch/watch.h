/* Watchers as cursors into the revision log: a worker's hub holds the watchers of that worker's
 * connections, matches each batch of events against all their ranges at once, and joins history and
 * live without a gap or a repeat.
 *
 * A watcher is never a queue. While its stream can take more it follows the live batches; when it
 * cannot, or starts in the past, it just remembers its next revision and later asks the core for
 * history again; if that was compacted meanwhile it is canceled with ERR_COMPACTED. Memory a
 * watcher costs: its own struct and key.
 *
 * One thread (its worker's). Deterministic: no clock, no I/O; the owner moves messages between hub
 * and core. What the core answers to a history request and the live batches must arrive in the
 * order in which the core made them: then a watcher that has read history up to the core's present
 * is live, and sees every later batch.
 *
 * Out of memory never loses an event: watchers that cannot be told about a batch become cursors and
 * read it again.
 *
 * Guarantees, as etcd words them (docs/learning/api_guarantees): ordered, unique, reliable, atomic
 * (all events of a revision in one delivery, fragments aside), resumable, bookmarkable. */
#ifndef PINTLE_WATCH_WATCH_H
#define PINTLE_WATCH_WATCH_H

#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"
#include "store/record.h"

struct watch_hub;
struct watcher;

enum { WATCH_NO_PUT = 1, WATCH_NO_DELETE = 2 };

/* A group of watchers that share one outgoing stream (an etcd Watch stream, one Kubernetes watch
 * request). The owner embeds it. */
struct watch_sink {
    /* Events of one or more whole revisions, up to `last_rev`, for one watcher: `events[0..n)` are
     * borrowed for the call (take references to keep records). All are > the watcher's previous
     * last_rev. The callback may add and remove watchers. */
    void (*events)(struct watch_sink *sink, struct watcher *w, const struct event *const *events,
                   size_t n, int64_t last_rev);
    /* The watcher ended by itself: ERR_COMPACTED (compact_rev is the revision to say). It is freed
     * after the call: not to be removed again. */
    void (*canceled)(struct watch_sink *sink, struct watcher *w, int code, int64_t compact_rev);
    /* Whether the stream takes more now; false turns the watchers that something is for into
     * cursors until watch_sink_writable(). */
    bool (*ready)(struct watch_sink *sink);
    struct list watchers; /* ours; watch_sink_init */
    struct list waiting;  /* ours */
};

struct watch_options {
    struct slice key, range_end; /* as struct range_op; copied */
    int64_t start_rev;           /* first revision to deliver; 0 = only what comes after `now` */
    unsigned filters;            /* WATCH_NO_ */
    void *data;
};

/* What the hub needs from the core: history from `from_rev` on. The answer comes by
 * watch_hub_history, never from inside the call. At most LIMIT_WATCH_HISTORY_REQUESTS are under
 * way, and one per group of lagging watchers: those near each other share it. */
struct watch_upstream {
    void (*request)(void *ctx, uint64_t request_id, int64_t from_rev);
};

/* `seed` is random where clients choose the keys: nobody can then choose those that are slow to find. */
int watch_hub_new(const struct watch_upstream *up, void *ctx, int64_t revision, uint64_t seed,
                  struct watch_hub **ret) MUST_CHECK;
void watch_hub_free(struct watch_hub *h);

void watch_sink_init(struct watch_sink *sink);
/* Starts a watcher on the sink. 0, ERR_INVALID (a negative start), ERR_LIMIT, ERR_NOMEM. Never
 * delivers from inside the call. A start in the future is fine: the watcher is synced and gets
 * nothing earlier. */
int watch_add(struct watch_hub *h, struct watch_sink *sink, const struct watch_options *o,
              struct watcher **ret) MUST_CHECK;
void watch_remove(struct watch_hub *h, struct watcher *w);
/* Removes all of a sink's watchers. */
void watch_sink_release(struct watch_hub *h, struct watch_sink *sink);
/* The sink takes more again. Does not deliver from inside the call. */
void watch_sink_writable(struct watch_hub *h, struct watch_sink *sink);

void *watcher_data(const struct watcher *w);
/* All revisions <= this were delivered, or hold nothing for this watcher: what a progress
 * notification or a bookmark says. */
int64_t watcher_progress(const struct watch_hub *h, const struct watcher *w);
/* Whether it stands where the hub does: not behind it, and not ahead of it either, as one that starts in the future, or that history
 * has brought further than the live batches have come. Only then may its client be told the hub's revision, which would else be
 * older than what it knows. */
bool watcher_synced(const struct watch_hub *h, const struct watcher *w);
/* Valid inside `events`: a number that is the same for calls with the very same events, one after
 * another (the watchers of one range), and never comes again for others: what was encoded for one
 * watcher serves the next. */
uint64_t watch_hub_run(const struct watch_hub *h);

/* From the core: the next live batch (batches come in order; first_rev follows the last one's
 * last_rev; what the hub has already seen is skipped, a gap is as a reset), or history that was
 * asked for (all changes from from_rev to batch->last_rev; NULL = nothing from from_rev to
 * `upto_rev`; code ERR_COMPACTED with compact_rev). After a snapshot was installed `reset` tells
 * the hub that live batches skip to `revision`: its watchers become cursors again. Batches are
 * borrowed for the call. */
void watch_hub_live(struct watch_hub *h, struct event_batch *batch);
void watch_hub_history(struct watch_hub *h, uint64_t request_id, int code,
                       struct event_batch *batch, int64_t upto_rev, int64_t compact_rev);
void watch_hub_reset(struct watch_hub *h, int64_t revision);
/* The newest revision the hub has seen. */
int64_t watch_hub_revision(const struct watch_hub *h);

struct watch_stats {
    uint64_t watchers, slow_watchers, events, batches, history_requests;
};
void watch_hub_stats(const struct watch_hub *h, struct watch_stats *ret);

#endif
