/* The etcd API of one worker: its services as data, its timer, and the counters that /metrics adds
 * up over all workers. */
#include "api/etcd/etcd_int.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"

#define TICK_MS 500
#define PROGRESS_INTERVAL_MS 600000 /* etcd: 10 minutes */
#define NO_LEADER_MS 3000           /* etcd: three election timeouts of 1 s */

static uint64_t progress_interval_ms = PROGRESS_INTERVAL_MS;

void etcd_api_set_progress_interval(uint64_t ms)
{
    progress_interval_ms = ms < 100 ? 100 : ms;
}

static struct grpc_service services[7];

static void fill_services(void)
{
    struct grpc_service all[] = {
        {"etcdserverpb.KV", etcd_kv_methods, etcd_kv_n_methods},
        {"etcdserverpb.Watch", etcd_watch_methods, etcd_watch_n_methods},
        {"etcdserverpb.Lease", etcd_lease_methods, etcd_lease_n_methods},
        {"etcdserverpb.Cluster", etcd_cluster_methods, etcd_cluster_n_methods},
        {"etcdserverpb.Maintenance", etcd_maintenance_methods, etcd_maintenance_n_methods},
        {"etcdserverpb.Auth", etcd_auth_methods, etcd_auth_n_methods},
        {"grpc.health.v1.Health", etcd_health_methods, etcd_health_n_methods},
    };
    _Static_assert(sizeof(all) == sizeof(services), "as many services as there is room for");
    memcpy(services, all, sizeof(all));
}

/* ---- the timer ---------------------------------------------------------------------------------
 */

/* Streams that asked for it end when there was no leader for a while. */
static void check_leader(struct etcd_api *api, uint64_t now)
{
    if (core_client_leader_id(api->core) != 0) {
        api->no_leader_since_ms = 0;
        return;
    }
    if (api->no_leader_since_ms == 0) api->no_leader_since_ms = now;
    if (now - api->no_leader_since_ms < NO_LEADER_MS) return;
    struct list *node;
    while ((node = list_pop_front(&api->leader_calls)) != NULL) {
        struct leader_watch *l = container_of(node, struct leader_watch, node);
        etcd_fail(l->call, ERR_NO_LEADER);
    }
}

static void on_tick(uv_timer_t *t)
{
    struct etcd_api *api = t->data;
    uint64_t now = clock_mono_ms();
    check_leader(api, now);
    etcd_watch_tick(api, now);
    watch_cache_trim(api->watch_cache);
}

static void on_timer_closed(uv_handle_t *h)
{
    mem_free(h->data);
}

/* ---- life --------------------------------------------------------------------------------------
 */

int etcd_api_new(struct worker *w, struct etcd_api **ret)
{
    struct etcd_api *api = mem_calloc(1, sizeof(*api));
    if (!api) return ERR_NOMEM;
    if (w->index == 0) fill_services(); /* before any worker serves */
    api->worker = w;
    api->core = w->core;
    api->hub = core_client_hub(w->core);
    api->cluster_id = core_client_cluster_id(w->core);
    api->member_id = core_client_member_id(w->core);
    api->progress_interval_ms = progress_interval_ms;
    list_init(&api->watch_streams);
    list_init(&api->leader_calls);
    int rv = watch_cache_new(&api->watch_cache);
    if (rv == 0)
        rv = grpc_server_new(services, sizeof(services) / sizeof(services[0]), 0, api, &api->grpc);
    if (rv != 0 || uv_timer_init(w->loop, &api->timer) != 0) {
        watch_cache_free(api->watch_cache);
        grpc_server_free(api->grpc);
        mem_free(api);
        return rv ? rv : ERR_NOMEM;
    }
    uint64_t tick =
        api->progress_interval_ms / 5 < TICK_MS ? api->progress_interval_ms / 5 : TICK_MS;
    api->timer.data = api;
    uv_timer_start(&api->timer, on_tick, tick, tick);
    *ret = api;
    return 0;
}

void etcd_api_free(struct etcd_api *api)
{
    if (!api) return;
    watch_cache_free(api->watch_cache);
    grpc_server_free(api->grpc);
    uv_close((uv_handle_t *)&api->timer, on_timer_closed);
}

void etcd_api_request(void *ctx, struct http_stream *st)
{
    struct etcd_api *api = ctx;
    if (!grpc_serve(api->grpc, st)) etcd_plain_request(api, st);
}
