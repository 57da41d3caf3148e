/* The core on a thread of its own, and the handles by which workers talk to it.
 *
 * A worker submits on its own thread and gets `done` on its own thread (its loop); events and history for its
 * watch hub arrive there too. Queues are lock-free towards the core and wake it once per batch. */
#ifndef PINTLE_API_CORE_CORE_THREAD_H
#define PINTLE_API_CORE_CORE_THREAD_H

#include <uv.h>

#include "api/core/core.h"
#include "raft/env_uv.h"
#include "watch/watch.h"

struct core_thread;
struct core_client;

/* Opens the data folder and replays on the calling thread (so that errors are the caller's to print), then starts the thread. */
int core_thread_start(const struct core_config *config, const struct env_uv_options *env, struct core_thread **ret, struct err *e) MUST_CHECK;
/* What to do when the member has to be started again (its state is to be set aside, and healed from the others). Does not return.
 * Without it that ends the process, as every other fatal error does. */
void core_thread_on_restart(void (*again)(const char *why));
/* Stops and joins; every open request is answered first. Clients must be closed by their workers after this. */
void core_thread_stop(struct core_thread *t);

/* A worker's handle, made on the worker's thread before it takes requests. Creates the worker's watch hub. */
int core_client_open(struct core_thread *t, uv_loop_t *loop, struct core_client **ret) MUST_CHECK;
void core_client_close(struct core_client *c);

/* `done` never comes from inside the call. */
void core_client_submit(struct core_client *c, struct core_request *r);
struct watch_hub *core_client_hub(struct core_client *c);

/* Fixed for the process. */
uint64_t core_client_member_id(const struct core_client *c);
uint64_t core_client_cluster_id(const struct core_client *c);
/* As last published by the core (any thread): 0 = none known. */
uint64_t core_client_leader_id(const struct core_client *c);
uint64_t core_client_term(const struct core_client *c);
/* Whether this member is a learner, which serves reads of what it has itself, and nothing else. */
bool core_client_learner(const struct core_client *c);
/* Whether this member's state was found wrong: requests get ERR_CORRUPT, watches stand still. */
bool core_client_refusing(const struct core_client *c);

#endif
