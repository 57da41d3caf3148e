/* What the cluster must have done: the one log that all members apply, and a plain model of etcd's
 * semantics that runs over it. Whoever applies an index first defines it; all others, restarts
 * included, must apply the same. Answers and watch events are then compared with the model at their
 * revision.
 *
 * Written for clarity, independent of store/: growing arrays, linear searches. Pure. */
#ifndef PINTLE_TESTS_SIM_MODEL_H
#define PINTLE_TESTS_SIM_MODEL_H

#include "base/slice.h"
#include "schemas/command.h"

/* The first thing found wrong; later ones are not looked at. */
struct verdict {
    bool failed;
    const char *format; /* of the text: which of the checks */
    char text[2048];
};
/* Always false, so that a check can `return verdict_fail(...)`. */
bool verdict_fail(struct verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct model_event {
    int64_t rev, create_rev, version, lease;
    uint32_t sub;
    bool tombstone;
    size_t key; /* place in the model's keys, by first use */
    struct buf value;
};

struct model_lease {
    int64_t id, ttl, remaining; /* remaining: as the last checkpoint says; 0 = there is none */
    bool alive, asked; /* asked: some client wants it revoked */
    uint64_t granted_us;
    uint64_t renewed_us; /* the last renewal that was acknowledged was called then */
};

struct model;

struct model *model_new(struct verdict *v);
void model_free(struct model *m);

/* Member `member`, whose applied index was `last` before, applies this entry. */
bool model_apply(struct model *m, uint64_t member, uint64_t last, uint64_t index, uint64_t term,
                 struct slice entry, uint64_t now_us);
/* The newest index, and the chain of hashes over all entries up to the newest index <= `index`. */
uint64_t model_last_index(const struct model *m);
uint64_t model_chain(const struct model *m, uint64_t index);
/* How many entries there are up to that index. */
size_t model_entries(const struct model *m, uint64_t index);

int64_t model_revision(const struct model *m);
int64_t model_compact_revision(const struct model *m);
/* The revision the store has after the newest entry with index <= `index`; what it counts against its quota then, and
 * whether the alarm is raised. */
int64_t model_revision_at(const struct model *m, uint64_t index);
int64_t model_size_at(const struct model *m, uint64_t index);
bool model_no_space_at(const struct model *m, uint64_t index);
/* What would grow beyond this is refused; 0 = as by default, 2 GiB. */
void model_quota(struct model *m, int64_t bytes);

size_t model_keys(const struct model *m);
struct slice model_key_name(const struct model *m, size_t key);
/* The key's live version at the end of revision `rev`, or NULL. */
const struct model_event *model_get(const struct model *m, struct slice key, int64_t rev);
/* All events of revisions [from, to] on keys in [key, range_end) (as in struct range_op), in order:
 * calls `each` until it says false. */
bool model_events(const struct model *m, struct slice key, struct slice range_end, int64_t from,
                  int64_t to, bool (*each)(void *ctx, const struct model_event *ev), void *ctx);
size_t model_count(const struct model *m, struct slice key, struct slice range_end, int64_t rev);
/* Whether `key` is in the range. */
bool model_in_range(struct slice key, struct slice from, struct slice range_end);

struct model_lease *model_lease(struct model *m, int64_t id); /* NULL if never granted */
/* All that were ever heard of, in order of their ids, also those that are not alive. */
size_t model_leases(const struct model *m, const struct model_lease **ret);
/* How many keys hold one. */
size_t model_leased_keys(const struct model *m);
/* Told by the clients; a lease need not be in the log yet. */
void model_lease_asked(struct model *m, int64_t id);
void model_lease_renewed(struct model *m, int64_t id, uint64_t called_us);
/* A lease must not end sooner than its TTL after the last renewal, less `us`, so many millionths of its TTL, and what any member's
 * clock has jumped ahead since that renewal. */
void model_lease_tolerance(struct model *m, uint64_t us, uint64_t ppm);
void model_clock_jumped(struct model *m, uint64_t now_us, uint64_t by_us);
bool model_lease_may_end(const struct model *m, const struct model_lease *l, uint64_t now_us);

struct model_stats {
    uint64_t entries, commands, events, refused;
};
const struct model_stats *model_get_stats(const struct model *m);

#endif
