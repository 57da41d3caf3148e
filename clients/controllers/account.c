/* Each namespace has a ServiceAccount named `default`. */
#include "base/mem.h"
#include "clients/controllers/controllers_int.h"
#include "clients/lib/kjson.h"

struct account_controller {
    struct controllers *c;
    struct workqueue *queue;
};

static void on_created(void *ctx, const struct kube_result *r)
{
    struct kube_result ok = *r;
    if (r->code == ERR_EXISTS || r->code == ERR_DENIED)
        ok.code = 0; /* there already, or the namespace is going */
    sync_done(ctx, &ok);
}

static void process(void *ctx, struct slice key)
{
    struct account_controller *ac = ctx;
    struct sync *s = sync_new(ac->c, ac->queue, key);
    struct kube_object *ns = informer_get_key(ac->c->namespaces, key);
    bool wanted =
        ns && !is_deleting(ns) && !json_is_str(json_path(ns->json, "status.phase"), "Terminating");
    if (wanted && !informer_get(ac->c->accounts, ns->name, SLICE_LIT("default"))) {
        struct json *account =
            kjson(&s->arena,
                  "{apiVersion:'v1',kind:'ServiceAccount',metadata:{name:'default',namespace:t}}",
                  ns->name);
        sync_sent(s);
        kube_create(ac->c->app.client, &KUBE_SERVICEACCOUNTS, ns->name, account, on_created, s);
    }
    sync_release(s);
}

static void namespace_added(void *ctx, struct kube_object *o)
{
    workqueue_add(((struct account_controller *)ctx)->queue, o->name);
}

static void namespace_updated(void *ctx, struct kube_object *old, struct kube_object *o)
{
    (void)old;
    namespace_added(ctx, o);
}

static void account_deleted(void *ctx, struct kube_object *o)
{
    if (slice_eq_str(o->name, "default"))
        workqueue_add(((struct account_controller *)ctx)->queue, o->ns);
}

void account_start(struct controllers *c)
{
    static const struct informer_handler namespaces = {namespace_added, namespace_updated, NULL,
                                                       NULL};
    static const struct informer_handler accounts = {NULL, NULL, account_deleted, NULL};
    struct account_controller *ac = mem_must_calloc(1, sizeof(*ac));
    c->account = ac;
    ac->c = c;
    ac->queue = controllers_queue(c, "serviceaccount", process, ac);
    informer_add_handler(c->namespaces, &namespaces, ac);
    informer_add_handler(c->accounts, &accounts, ac);
}

void account_free(struct controllers *c)
{
    mem_free(c->account);
}
