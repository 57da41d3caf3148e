/* Events about objects (core/v1 Event), as kubectl describe shows them. The same event again raises
 * `count` and `lastTimestamp` of the one that is there. Never in the way: a bounded number is under
 * way, and what does not fit is dropped. One thread. */
#ifndef PINTLE_CLIENTS_LIB_RECORDER_H
#define PINTLE_CLIENTS_LIB_RECORDER_H

#include "clients/lib/informer.h"

struct recorder;

/* `component`: "default-scheduler"; borrowed. `host` may be NULL. */
struct recorder *recorder_new(struct kube_client *client, const char *component, const char *host);
void recorder_free(struct recorder *r);
/* `type`: "Normal" or "Warning". `o` may be gone from the server. */
void recorder_event(struct recorder *r, const struct kube_resource *kind,
                    const struct kube_object *o, const char *type, const char *reason,
                    const char *format, ...) __attribute__((format(printf, 6, 7)));

#endif
