/* Events go away by themselves: they are written with a lease of an hour, as kube-apiserver does. One lease serves all events that a
 * worker writes in five minutes, so that there are few of them. */
#include "api/kube/kube_int.h"
#include "base/clock.h"

#define EVENT_TTL_S 3600
#define SHARED_MS (5 * 60 * 1000)
#define WAIT_MS 20

static void granted(struct kube_request *q)
{
    struct kube_api *api = q->api;
    const struct result *r = &q->core.result;
    api->event_lease_asked = false;
    if (!q->core.code) {
        api->event_lease = r->lease.id;
        api->event_lease_until_ms = clock_mono_ms() + SHARED_MS;
    }
    int code = q->core.code == ERR_LEASE_EXISTS ? 0 : q->core.code;
    request_core_reset(q);
    if (code) {
        status_core(&q->status, code, false);
        respond_status(q);
        return;
    }
    q->retry(q);
}

static void ask(struct kube_request *q)
{
    struct command c = {.type = COMMAND_LEASE_GRANT,
                        .lease_grant = {.id = (int64_t)(kube_random(q->api) >> 1 | 1), .ttl = EVENT_TTL_S + SHARED_MS / 1000}};
    buf_clear(&q->mut.command);
    command_encode(&q->mut.command, &c);
    if (q->mut.command.failed) {
        status_nomem(&q->status);
        respond_status(q);
        return;
    }
    request_core_reset(q);
    q->core.command = buf_slice(&q->mut.command);
    q->api->event_lease_asked = true;
    request_core(q, CORE_COMMAND, granted);
}

bool event_lease_ready(struct kube_request *q, void (*again)(struct kube_request *q), int64_t *ret_lease)
{
    struct kube_api *api = q->api;
    *ret_lease = 0;
    if (!kind_is(q->route.kind, "", "Event")) return true;
    bool old = clock_mono_ms() >= api->event_lease_until_ms;
    if (api->event_lease && (!old || api->event_lease_asked)) {
        *ret_lease = api->event_lease;
        return true;
    }
    if (api->event_lease_asked) {
        request_later(q, WAIT_MS, again);
        return false;
    }
    q->retry = again;
    ask(q);
    return false;
}

void event_lease_lost(struct kube_api *api)
{
    api->event_lease = 0;
}
