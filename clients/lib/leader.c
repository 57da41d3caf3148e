#include "clients/lib/leader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/lib/kjson.h"

/* ---- decisions ------------------------------------------------------------------------------ */

void leader_core_init(struct leader_core *c, const struct leader_config *config)
{
    *c = (struct leader_core){.config = *config};
}

static bool held_by_us(const struct leader_core *c)
{
    return c->known && !strcmp(c->holder, c->config.identity);
}

enum leader_step leader_core_try(const struct leader_core *c, uint64_t now)
{
    bool valid = held_by_us(c) && now < c->seen_ms + c->config.lease_duration_ms;
    return c->leading && valid ? LEADER_UPDATE : LEADER_READ;
}

/* Cut at the end of `to`; returns whether it changed. */
static bool copy_text(char *to, size_t size, struct slice s)
{
    if (s.len > size - 1) s.len = size - 1;
    if (strlen(to) == s.len && !memcmp(to, s.len ? (const char *)s.data : "", s.len)) return false;
    if (s.len) memcpy(to, s.data, s.len);
    to[s.len] = 0;
    return true;
}

static void observe(struct leader_core *c, uint64_t now, const struct json *lease)
{
    const struct json *spec = json_get(lease, "spec");
    bool changed =
        copy_text(c->holder, sizeof(c->holder), json_text(json_get(spec, "holderIdentity")));
    changed |=
        copy_text(c->renewed_text, sizeof(c->renewed_text), json_text(json_get(spec, "renewTime")));
    changed |=
        copy_text(c->acquired, sizeof(c->acquired), json_text(json_get(spec, "acquireTime")));
    copy_text(c->version, sizeof(c->version), json_path_text(lease, "metadata.resourceVersion"));
    c->transitions = json_path_int(spec, "leaseTransitions", 0);
    c->duration_s = json_path_int(spec, "leaseDurationSeconds", 0);
    if (changed || !c->known) c->seen_ms = now;
    c->known = true;
}

enum leader_step leader_core_read(struct leader_core *c, uint64_t now, const struct json *lease)
{
    if (!lease) {
        c->known = false;
        c->holder[0] = c->version[0] = 0;
        c->transitions = 0;
        return LEADER_CREATE;
    }
    observe(c, now, lease);
    uint64_t hold =
        c->duration_s > 0 ? (uint64_t)c->duration_s * 1000 : c->config.lease_duration_ms;
    if (c->holder[0] && !held_by_us(c) && now < c->seen_ms + hold) return LEADER_WAIT;
    return LEADER_UPDATE;
}

struct json *leader_core_lease(const struct leader_core *c, struct arena *a, int64_t wall_ms,
                               bool release)
{
    const char *now = kjson_micro_time(a, wall_ms);
    bool ours = held_by_us(c);
    int64_t transitions = c->transitions + (c->known && !ours);
    int64_t seconds = (int64_t)(c->config.lease_duration_ms + 999) / 1000;
    if (!now) return NULL;
    return kjson(a,
                 "{apiVersion:'coordination.k8s.io/"
                 "v1',kind:'Lease',metadata:{name:s,namespace:s,resourceVersion:s?},"
                 "spec:{holderIdentity:s,leaseDurationSeconds:i,acquireTime:s,renewTime:s,"
                 "leaseTransitions:i}}",
                 c->config.name, c->config.ns, c->known ? c->version : NULL,
                 release ? "" : c->config.identity, release ? (int64_t)1 : seconds,
                 ours && c->acquired[0] ? c->acquired : now, now, transitions);
}

void leader_core_written(struct leader_core *c, uint64_t sent_ms, const struct json *lease)
{
    observe(c, sent_ms, lease);
    if (!held_by_us(c)) return;
    c->seen_ms = sent_ms;
    c->renewed_ms = sent_ms;
    c->leading = true;
}

bool leader_core_lost(struct leader_core *c, uint64_t now)
{
    if (!c->leading) return false;
    bool taken = c->known && !held_by_us(c);
    if (!taken && now < c->renewed_ms + c->config.renew_deadline_ms) return false;
    c->leading = false;
    return true;
}

/* ---- the wire ------------------------------------------------------------------------------- */

struct leader {
    struct leader_core core;
    struct kube_client *client;
    uv_timer_t *timer;
    bool busy, releasing, again;
    uint64_t sent_ms;
    void (*started)(void *ctx);
    void (*stopped)(void *ctx);
    void *ctx;
    void (*released)(void *ctx);
    void *released_ctx;
};

static void attempt(struct leader *l);

static void check_lost(struct leader *l)
{
    if (!leader_core_lost(&l->core, clock_mono_ms())) return;
    log_warn("stopped leading lease=%s/%s holder=%s", l->core.config.ns, l->core.config.name,
             l->core.holder);
    l->stopped(l->ctx);
}

static void on_timer(uv_timer_t *t)
{
    struct leader *l = t->data;
    check_lost(l);
    attempt(l);
}

static void plan(struct leader *l)
{
    uint64_t ms = l->core.config.retry_period_ms;
    if (!l->core.leading) ms += (uint64_t)random() % (ms / 4 + 1);
    uv_timer_start(l->timer, on_timer, ms, 0);
}

static void finish_release(struct leader *l)
{
    void (*released)(void *ctx) = l->released;
    l->released = NULL;
    uv_timer_stop(l->timer);
    if (released) released(l->released_ctx);
}

static void on_written(void *ctx, const struct kube_result *r)
{
    struct leader *l = ctx;
    l->busy = false;
    if (l->releasing) {
        finish_release(l);
        return;
    }
    bool was = l->core.leading;
    struct json *lease = r->code ? NULL : kube_result_json(r);
    if (lease) {
        leader_core_written(&l->core, l->sent_ms, lease);
    } else {
        log_debug("lease %s/%s not written: %s", l->core.config.ns, l->core.config.name,
                  r->message);
        if (l->core.leading && !l->again) { /* perhaps our view of it is old: read it at once */
            l->again = true;
            l->core.seen_ms = 0;
            attempt(l);
            return;
        }
    }
    l->again = false;
    if (!was && l->core.leading) {
        log_info("became leader lease=%s/%s identity=%s", l->core.config.ns, l->core.config.name,
                 l->core.config.identity);
        l->started(l->ctx);
    }
    check_lost(l);
}

static void write_lease(struct leader *l, bool create, bool release)
{
    struct arena a = {0};
    const struct leader_config *f = &l->core.config;
    struct json *body = leader_core_lease(&l->core, &a, clock_wall_ms(), release);
    struct kube_request r = {.verb = create ? KUBE_CREATE : KUBE_UPDATE,
                             .resource = &KUBE_LEASES,
                             .ns = slice_str(f->ns),
                             .name = slice_str(create ? "" : f->name),
                             .body = body,
                             .timeout_ms = (unsigned)f->renew_deadline_ms / 2};
    l->busy = true;
    l->sent_ms = clock_mono_ms();
    kube_send(l->client, &r, on_written, l);
    arena_release(&a);
}

static void on_read(void *ctx, const struct kube_result *r)
{
    struct leader *l = ctx;
    l->busy = false;
    if (l->releasing) {
        leader_release(l, l->released, l->released_ctx);
        return;
    }
    struct json *lease = r->code ? NULL : kube_result_json(r);
    if (!lease && r->code != ERR_NOT_FOUND) {
        log_debug("lease %s/%s not read: %s", l->core.config.ns, l->core.config.name, r->message);
        return;
    }
    enum leader_step step = leader_core_read(&l->core, clock_mono_ms(), lease);
    check_lost(l);
    if (step != LEADER_WAIT) write_lease(l, step == LEADER_CREATE, false);
}

static void attempt(struct leader *l)
{
    plan(l);
    if (l->busy || l->releasing) return;
    if (leader_core_try(&l->core, clock_mono_ms()) == LEADER_UPDATE) {
        write_lease(l, false, false);
        return;
    }
    l->busy = true;
    struct kube_request r = {.verb = KUBE_GET,
                             .resource = &KUBE_LEASES,
                             .ns = slice_str(l->core.config.ns),
                             .name = slice_str(l->core.config.name),
                             .timeout_ms = (unsigned)l->core.config.renew_deadline_ms / 2};
    kube_send(l->client, &r, on_read, l);
}

struct leader *leader_new(struct kube_client *client, const struct leader_config *config,
                          void (*started)(void *ctx), void (*stopped)(void *ctx), void *ctx)
{
    struct leader *l = mem_must_calloc(1, sizeof(*l));
    leader_core_init(&l->core, config);
    l->client = client;
    l->started = started;
    l->stopped = stopped;
    l->ctx = ctx;
    l->timer = mem_must_calloc(1, sizeof(*l->timer));
    uv_timer_init(kube_client_loop(client), l->timer);
    l->timer->data = l;
    attempt(l);
    return l;
}

bool leader_is(const struct leader *l)
{
    return l->core.leading && !l->releasing;
}

static void release_timeout(uv_timer_t *t)
{
    finish_release(t->data);
}

void leader_release(struct leader *l, void (*released)(void *ctx), void *ctx)
{
    l->releasing = true;
    l->released = released;
    l->released_ctx = ctx;
    if (l->busy) { /* on_written or on_read comes back here, or the time is up */
        uv_timer_start(l->timer, release_timeout, 1000, 0);
        return;
    }
    if (!l->core.leading || !held_by_us(&l->core)) {
        uv_timer_start(l->timer, release_timeout, 0, 0);
        return;
    }
    l->core.leading = false;
    uv_timer_start(l->timer, release_timeout, 1000, 0);
    write_lease(l, false, true);
}

static void timer_closed(uv_handle_t *h)
{
    mem_free(h);
}

void leader_free(struct leader *l)
{
    if (!l) return;
    uv_close((uv_handle_t *)l->timer, timer_closed);
    mem_free(l);
}
