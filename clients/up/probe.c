/* How the control plane does, asked over its own APIs: /health and /metrics of each member, /readyz and the nodes of the
 * Kubernetes API. All of it fresh: without a leader nothing is ready, whatever the caches hold. */
#include <string.h>

#include "base/mem.h"
#include "clients/lib/h2client.h"
#include "clients/up/up_int.h"

#define PROBE_TIMEOUT_MS 2000
#define PROBE_BODY_MAX (64 * LIMIT_MiB)

struct ask {
    struct up_probe *probe;
    void (*answer)(struct ask *a, int status);
    size_t member;
    struct buf body;
    int status;
    bool active;
};

struct up_probe {
    const struct up_plan *plan;
    struct h2_client *members[UP_MEMBERS_MAX], *kube;
    struct ask health[UP_MEMBERS_MAX], metrics[UP_MEMBERS_MAX], ready, nodes;
    struct up_view view;
    size_t waiting;
    void (*done)(void *ctx, const struct up_view *v);
    void *ctx;
};

/* ---- answers ------------------------------------------------------------------------------------------- */

static bool body_has(const struct ask *a, const char *text)
{
    return a->body.len && memmem(a->body.data, a->body.len, text, strlen(text)) != NULL;
}

static void on_health(struct ask *a, int status)
{
    if (status != 200 || !body_has(a, "\"health\":\"true\"")) return;
    a->probe->view.member_up[a->member] = true;
    a->probe->view.healthy++;
}

static void on_metrics(struct ask *a, int status)
{
    if (status == 200 && body_has(a, "\netcd_server_is_leader 1")) a->probe->view.leader = (int)a->member;
}

static void on_ready(struct ask *a, int status)
{
    a->probe->view.kube_ready = status == 200;
}

static bool node_ready(const struct json *node)
{
    const struct json *conditions = json_path(node, "status.conditions");
    for (size_t i = 0; conditions && i < conditions->count; i++) {
        const struct json *c = json_at(conditions, i);
        if (json_is_str(json_get(c, "type"), "Ready")) return json_is_str(json_get(c, "status"), "True");
    }
    return false;
}

static void on_nodes(struct ask *a, int status)
{
    struct arena arena = {0};
    struct json *list;
    if (status == 200 && json_parse(&arena, buf_slice(&a->body), 0, &list, NULL) == 0) {
        const struct json *items = json_get(list, "items");
        for (size_t i = 0; items && i < items->count; i++) a->probe->view.nodes_ready += node_ready(json_at(items, i));
    }
    arena_release(&arena);
}

/* ---- asking ---------------------------------------------------------------------------------------------- */

static void finish_one(struct up_probe *p)
{
    if (--p->waiting == 0) p->done(p->ctx, &p->view);
}

static void on_head(struct h2_stream *s, int status, const struct h2_header *headers, size_t n)
{
    struct ask *a = h2_user(s);
    (void)headers;
    (void)n;
    a->status = status;
}

static void on_data(struct h2_stream *s, struct slice piece)
{
    buf_append_slice(&((struct ask *)h2_user(s))->body, piece);
}

static void on_done(struct h2_stream *s, int code)
{
    struct ask *a = h2_user(s);
    if (code == 0 && !a->body.failed) a->answer(a, a->status);
    buf_release(&a->body);
    finish_one(a->probe);
}

static const struct h2_callbacks callbacks = {.head = on_head, .data = on_data, .done = on_done};

static void ask(struct up_probe *p, struct h2_client *c, struct ask *a, const char *path, size_t member,
                void (*answer)(struct ask *a, int status))
{
    struct h2_header accept = {SLICE_LIT("accept"), SLICE_LIT("application/json")};
    struct h2_request r = {.method = "GET", .path = slice_str(path), .headers = &accept, .n_headers = 1, .timeout_ms = PROBE_TIMEOUT_MS};
    struct h2_stream *s;
    *a = (struct ask){.probe = p, .answer = answer, .member = member};
    buf_init(&a->body, PROBE_BODY_MAX);
    p->waiting++;
    if (h2_request(c, &r, &callbacks, a, &s) != 0) p->waiting--;
}

void up_probe_run(struct up_probe *p, void (*done)(void *ctx, const struct up_view *v), void *ctx)
{
    p->view = (struct up_view){.leader = -1};
    p->done = done;
    p->ctx = ctx;
    p->waiting = 1;
    for (size_t i = 0; i < (size_t)p->plan->members; i++) {
        ask(p, p->members[i], &p->health[i], "/health", i, on_health);
        ask(p, p->members[i], &p->metrics[i], "/metrics", i, on_metrics);
    }
    ask(p, p->kube, &p->ready, "/readyz", 0, on_ready);
    ask(p, p->kube, &p->nodes, "/api/v1/nodes", 0, on_nodes);
    finish_one(p);
}

/* ---- making ------------------------------------------------------------------------------------------------ */

static int client_for(uv_loop_t *loop, const struct up_plan *p, const char *const *urls, size_t n, bool tls,
                      struct h2_client **ret, struct err *e)
{
    struct h2_tls_options t = {.ca_file = p->ca, .cert_file = p->client_cert, .key_file = p->client_key};
    struct h2_client_options o = {.endpoints = urls, .n_endpoints = n, .tls = tls ? &t : NULL, .user_agent = "pintle-up",
                                  .fail_fast = true, .connect_timeout_ms = 1000};
    return h2_client_new(loop, &o, ret, e);
}

int up_probe_new(uv_loop_t *loop, const struct up_plan *plan, struct up_probe **ret, struct err *e)
{
    struct up_probe *p = mem_must_calloc(1, sizeof(*p));
    const char *kube[UP_MEMBERS_MAX];
    int rv = 0;
    p->plan = plan;
    for (size_t i = 0; rv == 0 && i < (size_t)plan->members; i++) {
        kube[i] = plan->processes[i].kube_url;
        rv = client_for(loop, plan, &plan->processes[i].client_url, 1, plan->secure, &p->members[i], e);
    }
    if (rv == 0) rv = client_for(loop, plan, kube, (size_t)plan->members, true, &p->kube, e);
    if (rv != 0) {
        up_probe_free(p);
        return rv;
    }
    *ret = p;
    return 0;
}

void up_probe_free(struct up_probe *p)
{
    if (!p) return;
    for (size_t i = 0; i < UP_MEMBERS_MAX; i++)
        if (p->members[i]) h2_client_close(p->members[i], NULL, NULL);
    if (p->kube) h2_client_close(p->kube, NULL, NULL);
    for (size_t i = 0; i < UP_MEMBERS_MAX; i++) {
        buf_release(&p->health[i].body);
        buf_release(&p->metrics[i].body);
    }
    buf_release(&p->ready.body);
    buf_release(&p->nodes.body);
    mem_free(p);
}

bool up_view_ready(const struct up_plan *p, const struct up_view *v)
{
    return v->healthy == (size_t)p->members && v->leader >= 0 && v->kube_ready && v->nodes_ready >= p->nodes;
}
