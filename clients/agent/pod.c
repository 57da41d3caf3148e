/* A pod's life on this agent. Everything that happens (the API's view changes, the runtime reports,
 * time passes) ends in pod_step, which looks at the whole pod and does what is next:
 *
 *   seen -> sandbox -> init containers one by one -> containers -> (exits: restart with back-off,
 * or over) -> finished deletionTimestamp -> stop containers with the grace -> remove the sandbox ->
 * DELETE with grace 0 -> gone from the API -> freed */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "clients/agent/agent_int.h"
#include "clients/lib/kjson.h"

#define STATUS_FLYING_MAX 512
#define RETRY_MS 1000
#define RESTART_PAUSE_MS 10000
#define RESTART_PAUSE_MAX_MS 300000
#define RESTART_FORGET_MS 600000

static void pod_step(struct agent_pod *p);

/* ---- time ----------------------------------------------------------------------------------- */

static void on_step_timer(uv_timer_t *t)
{
    pods_step_due(t->data);
}

static void arm(struct agent *a, uint64_t at_ms)
{
    uint64_t now = clock_mono_ms(), ms = at_ms > now ? at_ms - now : 0;
    if (!uv_is_active((uv_handle_t *)&a->step_timer) || uv_timer_get_due_in(&a->step_timer) > ms)
        uv_timer_start(&a->step_timer, on_step_timer, ms, 0);
}

static void look_again(struct agent_pod *p, uint64_t at_ms)
{
    if (p->look_at_ms && p->look_at_ms <= at_ms) return;
    if (!p->look_at_ms) list_push_back(&p->agent->timed, &p->timed);
    p->look_at_ms = at_ms;
    arm(p->agent, at_ms);
}

void pods_step_due(struct agent *a)
{
    uint64_t now = clock_mono_ms(), next = 0;
    struct list due;
    list_init(&due);
    list_for_each(node, &a->timed)
    {
        struct agent_pod *p = container_of(node, struct agent_pod, timed);
        if (p->look_at_ms <= now) {
            list_remove(&p->timed);
            list_push_back(&due, &p->timed);
        } else if (!next || p->look_at_ms < next) {
            next = p->look_at_ms;
        }
    }
    for (struct list *node; (node = list_pop_front(&due));) {
        struct agent_pod *p = container_of(node, struct agent_pod, timed);
        p->look_at_ms = 0;
        pod_step(p);
    }
    if (next) arm(a, next);
}

/* ---- status --------------------------------------------------------------------------------- */

static void on_flush(uv_idle_t *h)
{
    pods_flush(h->data);
}

static void mark_dirty(struct agent_pod *p)
{
    if (p->dirty) return;
    p->dirty = true;
    if (p->flying) return;
    list_push_back(&p->agent->dirty, &p->dirty_link);
    uv_idle_start(&p->agent->flush, on_flush);
}

static void pod_free(struct agent_pod *p);

static void on_status_written(void *ctx, const struct kube_result *r)
{
    struct agent_pod *p = ctx;
    struct agent *a = p->agent;
    p->flying = false;
    a->n_flying--;
    bool again = p->dirty;
    p->dirty = false;
    if (p->gone) {
        pod_free(p);
    } else if (!r->code || r->code == ERR_NOT_FOUND) {
        if (again) mark_dirty(p);
    } else if (r->code == ERR_CONFLICT) {
        log_debug("status not written pod=%s error=\"%s\"", p->key, r->message);
    } else {
        log_warn("status not written pod=%s error=\"%s\"", p->key, r->message);
        p->dirty = true; /* pod_step puts it into the list again */
        look_again(p, clock_mono_ms() + RETRY_MS);
    }
    if (!list_empty(&a->dirty)) uv_idle_start(&a->flush, on_flush);
}

/* Whether the API server has all of that already. */
static bool is_known(const struct agent_pod *p, const struct json *patch)
{
    const struct json *have = json_get(p->object->json, "status"),
                      *want = json_get(patch, "status");
    for (size_t i = 0; i < (want ? want->count : 0); i++) {
        const struct json *old = json_get_slice(have, want->members[i].name);
        if (!old || !json_equal(old, want->members[i].value)) return false;
    }
    return want != NULL;
}

static void write_status(struct agent_pod *p)
{
    struct arena a = {0};
    struct json *patch = pod_status_patch(p, &a);
    p->dirty = false;
    if (!patch || !is_known(p, patch)) {
        p->flying = true;
        p->agent->n_flying++;
        kube_patch(p->agent->app.client, &KUBE_PODS, p->object->ns, p->object->name, "status",
                   patch, on_status_written, p);
    }
    arena_release(&a);
}

void pods_flush(struct agent *a)
{
    for (int i = 0; i < 256 && a->n_flying < STATUS_FLYING_MAX && !list_empty(&a->dirty); i++)
        write_status(container_of(list_pop_front(&a->dirty), struct agent_pod, dirty_link));
    if (list_empty(&a->dirty) || a->n_flying >= STATUS_FLYING_MAX) uv_idle_stop(&a->flush);
}

/* ---- pods and their containers -------------------------------------------------------------- */

static void add_containers(struct agent_pod *p, const struct json *list, bool init)
{
    for (size_t i = 0; i < (list ? list->count : 0); i++) {
        const struct json *c = json_at(list, i);
        p->containers[p->n_containers++] = (struct agent_container){
            .name = json_text(json_get(c, "name")),
            .image = json_text(json_get(c, "image")),
            .init = init,
            .sidecar = init && json_is_str(json_get(c, "restartPolicy"), "Always"),
            .backoff_ms = RESTART_PAUSE_MS,
        };
    }
}

static int64_t time_at(const struct json *v)
{
    int64_t ms;
    return kjson_parse_time(json_text(v), &ms) ? ms : 0;
}

/* What an earlier run of the agent had reported. */
static void adopt_container(struct agent_container *c, const struct json *status)
{
    const struct json *running = json_path(status, "state.running"),
                      *over = json_path(status, "state.terminated");
    struct slice id = json_text(json_get(status, "containerID"));
    snprintf(c->id, sizeof(c->id), "%.*s", (int)id.len, id.len ? (const char *)id.data : "");
    c->restarts = (unsigned)json_path_int(status, "restartCount", 0);
    c->started_ms = time_at(json_get(running ? running : over, "startedAt"));
    if (over) {
        c->phase = CONTAINER_EXITED;
        c->exit_code = (int)json_path_int(over, "exitCode", 0);
        c->finished_ms = time_at(json_get(over, "finishedAt"));
    }
    const struct json *last = json_path(status, "lastState.terminated");
    if (!last) return;
    c->has_last = true;
    c->last_exit_code = (int)json_path_int(last, "exitCode", 0);
    c->last_started_ms = time_at(json_get(last, "startedAt"));
    c->last_finished_ms = time_at(json_get(last, "finishedAt"));
}

static void adopt(struct agent_pod *p)
{
    static const char *const lists[] = {"containerStatuses", "initContainerStatuses"};
    const struct json *status = json_get(p->object->json, "status"),
                      *conditions = json_get(status, "conditions");
    for (int l = 0; l < 2; l++) {
        const struct json *list = json_get(status, lists[l]);
        for (size_t i = 0; i < (list ? list->count : 0); i++) {
            struct slice name = json_text(json_get(json_at(list, i), "name"));
            for (size_t k = 0; k < p->n_containers; k++)
                if (slice_eq(p->containers[k].name, name))
                    adopt_container(&p->containers[k], json_at(list, i));
        }
    }
    for (size_t i = 0; i < (conditions ? conditions->count : 0); i++) {
        const struct json *c = json_at(conditions, i);
        int64_t since = time_at(json_get(c, "lastTransitionTime"));
        bool yes = json_is_str(json_get(c, "status"), "True");
        if (json_is_str(json_get(c, "type"), "Initialized") && yes) p->initialized_ms = since;
        if (json_is_str(json_get(c, "type"), "Ready")) {
            p->ready_ms = since;
            p->ready = yes;
        }
    }
    int64_t start = time_at(json_get(status, "startTime"));
    if (start) p->start_ms = start;
}

static struct agent_pod *pod_new(struct agent *a, struct agent_node *on, struct kube_object *o)
{
    struct slice key = kube_object_key(o);
    struct agent_pod *p = mem_must_calloc(1, sizeof(*p) + key.len + 1);
    memcpy(p->key, key.data, key.len);
    p->agent = a;
    p->on = on;
    p->object = kube_object_ref(o);
    p->spec_object = kube_object_ref(o);
    list_init(&p->timed);
    list_init(&p->dirty_link);
    const struct json *init = json_path(o->json, "spec.initContainers"),
                      *main = json_path(o->json, "spec.containers");
    p->containers = mem_must_calloc((init ? init->count : 0) + (main ? main->count : 0),
                                    sizeof(*p->containers));
    add_containers(p, init, true);
    add_containers(p, main, false);
    p->start_ms = clock_wall_ms();
    struct slice phase = json_path_text(o->json, "status.phase");
    p->finished = slice_eq_str(phase, "Succeeded") || slice_eq_str(phase, "Failed");
    if (json_path(o->json, "status.startTime")) adopt(p);
    int64_t deadline = json_path_int(o->json, "spec.activeDeadlineSeconds", 0);
    if (deadline > 0) {
        int64_t left = p->start_ms + deadline * 1000 - clock_wall_ms();
        p->deadline_at_ms = clock_mono_ms() + (left > 0 ? (uint64_t)left : 0);
    }
    smap_insert(&a->by_pod, &p->node, slice_make(p->key, key.len));
    return p;
}

/* Not in the map any more, and nothing of it is under way. */
static void pod_free(struct agent_pod *p)
{
    if (p->rt || p->flying || p->deleting) return; /* the last one calls again */
    list_remove(&p->timed);
    list_remove(&p->dirty_link);
    kube_object_unref(p->object);
    kube_object_unref(p->spec_object);
    mem_free(p->containers);
    mem_free(p);
}

static void start_sandbox(struct agent_pod *p)
{
    struct runtime_pod_config c = {.pod = p->spec_object->json,
                                   .node = slice_str(p->on->name),
                                   .adopt_ip = json_path_text(p->object->json, "status.podIP")};
    int rc = p->agent->runtime->ops->pod_create(p->agent->runtime, &c, p, &p->rt);
    if (rc) {
        log_warn("sandbox not created pod=%s error=\"%s\"", p->key, err_text(rc));
        look_again(p, clock_mono_ms() + RETRY_MS);
    }
}

static void remove_sandbox(struct agent_pod *p)
{
    if (!p->rt || p->removing) return;
    p->removing = true;
    p->agent->runtime->ops->pod_remove(p->rt);
}

static void start_container(struct agent_pod *p, size_t i)
{
    struct agent_container *c = &p->containers[i];
    uint64_t now = clock_mono_ms();
    if (c->asked || c->phase != CONTAINER_WAITING) return;
    if (c->restart_at_ms > now) {
        look_again(p, c->restart_at_ms);
        return;
    }
    if (c->restart_at_ms) c->restarts++;
    c->restart_at_ms = 0;
    c->asked = true;
    p->agent->runtime->ops->container_start(p->rt, i);
}

static void start_containers(struct agent_pod *p)
{
    for (size_t i = 0; i < p->n_containers; i++) {
        struct agent_container *c = &p->containers[i];
        start_container(p, i);
        if (!c->init) continue;
        bool passed = c->sidecar ? c->phase == CONTAINER_RUNNING
                                 : c->phase == CONTAINER_EXITED && c->exit_code == 0;
        if (!passed) return; /* the ones behind it wait */
    }
}

static bool stop_containers(struct agent_pod *p, uint64_t grace_ms)
{
    bool running = false;
    for (size_t i = 0; i < p->n_containers; i++) {
        if (p->containers[i].phase != CONTAINER_RUNNING) continue;
        running = true;
        p->agent->runtime->ops->container_stop(p->rt, i, grace_ms);
    }
    return running;
}

/* ---- deletion ------------------------------------------------------------------------------- */

static void on_deleted(void *ctx, const struct kube_result *r)
{
    struct agent_pod *p = ctx;
    p->deleting = false;
    if (p->gone) {
        pod_free(p);
    } else if (r->code && r->code != ERR_NOT_FOUND && r->code != ERR_CONFLICT) {
        log_warn("pod not deleted pod=%s error=\"%s\"", p->key, r->message);
        look_again(p, clock_mono_ms() + RETRY_MS);
    }
}

static void step_deletion(struct agent_pod *p)
{
    p->stopping = true;
    if (p->rt && !p->removing) {
        int64_t grace = json_path_int(p->object->json, "metadata.deletionGracePeriodSeconds", 30);
        if (!stop_containers(p, grace > 0 ? (uint64_t)grace * 1000 : 0)) remove_sandbox(p);
    }
    if (p->rt || p->deleting) return;
    p->deleting = true;
    kube_delete(p->agent->app.client, &KUBE_PODS, p->object->ns, p->object->name, p->object->uid, 0,
                0, NULL, on_deleted, p);
}

/* ---- the step ------------------------------------------------------------------------------- */

static void check_deadline(struct agent_pod *p)
{
    if (!p->deadline_at_ms || p->reason) return;
    if (clock_mono_ms() < p->deadline_at_ms) {
        look_again(p, p->deadline_at_ms);
        return;
    }
    p->reason = "DeadlineExceeded";
    p->message = "Pod was active on the node longer than the specified deadline";
    p->dirty = false;
    mark_dirty(p);
}

static void pod_step(struct agent_pod *p)
{
    if (p->dirty && !p->flying && list_empty(&p->dirty_link)) { /* a write that failed */
        p->dirty = false;
        mark_dirty(p);
    }
    if (p->gone) {
        remove_sandbox(p);
        return;
    }
    if (json_path(p->object->json, "metadata.deletionTimestamp")) {
        step_deletion(p);
        return;
    }
    if (p->finished) {
        remove_sandbox(p);
        return;
    }
    check_deadline(p);
    enum pod_phase phase = pod_phase(p);
    if (phase == POD_SUCCEEDED || phase == POD_FAILED) {
        p->stopping = true;
        if (p->rt && stop_containers(p, 30000)) return; /* their exits come back here */
        p->finished = true;
        p->stopping = false;
        mark_dirty(p);
        remove_sandbox(p);
        return;
    }
    if (!p->rt) {
        start_sandbox(p);
    } else if (p->ip[0] && !p->removing) {
        start_containers(p);
    }
}

/* ---- what happens --------------------------------------------------------------------------- */

static void container_exited(struct agent_pod *p, struct agent_container *c, int exit_code)
{
    c->phase = CONTAINER_EXITED;
    c->exit_code = exit_code;
    c->finished_ms = clock_wall_ms();
    if (!pod_will_restart(p, c)) return;
    if (c->finished_ms - c->started_ms > RESTART_FORGET_MS) c->backoff_ms = RESTART_PAUSE_MS;
    c->has_last = true;
    c->last_exit_code = exit_code;
    c->last_started_ms = c->started_ms;
    c->last_finished_ms = c->finished_ms;
    bool first = c->restarts == 0;
    c->restart_at_ms = clock_mono_ms() + (first ? 1 : c->backoff_ms);
    if (!first && (c->backoff_ms *= 2) > RESTART_PAUSE_MAX_MS) c->backoff_ms = RESTART_PAUSE_MAX_MS;
    c->phase = CONTAINER_WAITING;
    snprintf(c->waiting, sizeof(c->waiting), "CrashLoopBackOff");
    c->id[0] = 0;
}

static void container_event(struct agent_pod *p, const struct runtime_event *e)
{
    struct agent_container *c = &p->containers[e->container];
    if (e->type == RUNTIME_CONTAINER_STARTED) {
        bool adopted = c->asked && c->started_ms && !c->finished_ms && c->id[0];
        c->asked = false;
        c->phase = CONTAINER_RUNNING;
        c->finished_ms = 0;
        if (!adopted) {
            snprintf(c->id, sizeof(c->id), "%s", e->text);
            c->started_ms = clock_wall_ms();
        }
    } else if (e->type == RUNTIME_CONTAINER_EXITED) {
        container_exited(p, c, e->exit_code);
    } else {
        c->asked = false;
        c->restart_at_ms = clock_mono_ms() + c->backoff_ms;
        snprintf(c->waiting, sizeof(c->waiting), "CreateContainerError");
        log_warn("container not started pod=%s container=%.*s error=\"%s\"", p->key,
                 (int)c->name.len, c->name.data, e->text);
    }
    mark_dirty(p);
}

void pod_runtime_event(void *ctx, void *owner, const struct runtime_event *e)
{
    struct agent_pod *p = owner;
    (void)ctx;
    if (e->type == RUNTIME_SANDBOX_REMOVED) {
        p->rt = NULL;
        p->removing = false;
        bool failed = p->sandbox_failed;
        p->sandbox_failed = false;
        if (p->gone) pod_free(p);
        else if (failed) look_again(p, clock_mono_ms() + RETRY_MS);
        else pod_step(p);
        return;
    }
    if (p->gone || p->removing) return;
    if (e->type == RUNTIME_SANDBOX_READY) {
        snprintf(p->ip, sizeof(p->ip), "%s", e->text);
        if (!json_path(p->object->json, "status.startTime") && p->n_containers &&
            p->containers[0].init)
            mark_dirty(p);
    } else if (e->type == RUNTIME_SANDBOX_FAILED) {
        log_warn("sandbox failed pod=%s error=\"%s\"", p->key, e->text);
        p->sandbox_failed = true;
        remove_sandbox(p);
        return;
    } else {
        container_event(p, e);
    }
    pod_step(p);
}

static void pod_forget(struct agent_pod *p)
{
    smap_remove(&p->agent->by_pod, &p->node);
    list_remove(&p->dirty_link);
    p->dirty = false;
    p->gone = true;
    if (p->rt) remove_sandbox(p);
    else pod_free(p);
}

/* Whether the API server has it not ready though it is: the node controller says so of all pods of
 * a node that it has not heard of for a while. */
static bool contradicted(const struct agent_pod *p)
{
    const struct json *conditions = json_path(p->object->json, "status.conditions");
    for (size_t i = 0; p->ready && i < (conditions ? conditions->count : 0); i++) {
        const struct json *c = json_at(conditions, i);
        if (json_is_str(json_get(c, "type"), "Ready"))
            return json_is_str(json_get(c, "status"), "False");
    }
    return false;
}

void pod_seen(struct agent *a, struct kube_object *o)
{
    struct agent_node *on =
        smap_entry(&a->by_node, json_path_text(o->json, "spec.nodeName"), struct agent_node, node);
    struct agent_pod *p = smap_entry(&a->by_pod, kube_object_key(o), struct agent_pod, node);
    if (p && !slice_eq(p->object->uid, o->uid)) {
        pod_forget(p);
        p = NULL;
    }
    if (!on) return;
    if (!p) {
        p = pod_new(a, on, o);
    } else {
        kube_object_unref(p->object);
        p->object = kube_object_ref(o);
        if (!p->finished && (pod_is_ready(p) != p->ready || contradicted(p)))
            mark_dirty(p); /* an annotation said so, or another */
    }
    pod_step(p);
}

void pod_gone(struct agent *a, struct kube_object *o)
{
    struct agent_pod *p = smap_entry(&a->by_pod, kube_object_key(o), struct agent_pod, node);
    if (p) pod_forget(p);
}

void pods_free(struct agent *a)
{
    smap_for_each(node, &a->by_pod)
    {
        struct agent_pod *p = container_of(node, struct agent_pod, node);
        smap_remove(&a->by_pod, node);
        p->rt = NULL;
        p->flying = p->deleting = false;
        pod_free(p);
    }
    smap_release(&a->by_pod);
}
