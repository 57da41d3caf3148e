/* Leader election by a Lease (coordination.k8s.io/v1), as client-go does it and compatible with it:
 * whoever holds the lease renews it; the others watch it stand still for leaseDuration by their own
 * clocks before they take it, so that clocks need not agree. A holder that could not renew for
 * renewDeadline (< leaseDuration) stops to lead before anyone else may start.
 *
 * The decisions are in `struct leader_core`, which has no clock and no I/O. One thread. */
#ifndef PINTLE_CLIENTS_LIB_LEADER_H
#define PINTLE_CLIENTS_LIB_LEADER_H

#include "base/json.h"
#include "clients/lib/kubeclient.h"

struct leader_config {
    const char *ns, *name; /* of the Lease */
    const char *identity;
    uint64_t lease_duration_ms; /* 15,000 */
    uint64_t renew_deadline_ms; /* 10,000 */
    uint64_t retry_period_ms;   /* 2,000 */
};

enum leader_step { LEADER_WAIT, LEADER_READ, LEADER_CREATE, LEADER_UPDATE };

struct leader_core {
    struct leader_config config;
    bool leading;
    uint64_t renewed_ms;                         /* when the last successful renewal was sent */
    char holder[256], version[32], acquired[40]; /* of the lease as last seen */
    char renewed_text[40];
    int64_t transitions, duration_s;
    uint64_t seen_ms; /* when it last looked different */
    bool known;
};

void leader_core_init(struct leader_core *c, const struct leader_config *config);
/* What to do at a try: LEADER_UPDATE (we hold it) or LEADER_READ. */
enum leader_step leader_core_try(const struct leader_core *c, uint64_t now);
/* The lease as read, NULL = there is none: LEADER_CREATE, LEADER_UPDATE (take or renew) or
 * LEADER_WAIT. */
enum leader_step leader_core_read(struct leader_core *c, uint64_t now, const struct json *lease);
/* The object to write; `release`: give it up. NULL when out of memory. */
struct json *leader_core_lease(const struct leader_core *c, struct arena *a, int64_t wall_ms,
                               bool release);
/* A write that was sent at `sent_ms` succeeded, and this is the answer. */
void leader_core_written(struct leader_core *c, uint64_t sent_ms, const struct json *lease);
/* Whether we must stop to lead now; clears `leading` then. */
bool leader_core_lost(struct leader_core *c, uint64_t now);

struct leader;

/* `started` and `stopped` are called whenever leadership changes. Strings are borrowed. */
struct leader *leader_new(struct kube_client *client, const struct leader_config *config,
                          void (*started)(void *ctx), void (*stopped)(void *ctx), void *ctx);
bool leader_is(const struct leader *l);
/* Gives the lease up if we hold it, then calls `released` (once, within a second in any case).
 * `stopped` is not called. */
void leader_release(struct leader *l, void (*released)(void *ctx), void *ctx);
void leader_free(struct leader *l);

#endif
