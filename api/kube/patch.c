/* PATCH: an update whose object is made from the one that is there. When somebody is faster, it is made again from what is there
 * then; a patch that names a resourceVersion fails instead. */
#include "api/kube/kube_int.h"

#define SHOW(s) (int)(s).len, (const char *)(s).data

/* As kube-apiserver words a patch that does not fit its object, and why. */
static int rejected(struct kube_request *q, const char *why)
{
    return status_set(&q->status, 422, "Invalid", "the server rejected our request due to an error in our request: %s", why);
}

static int apply_json_patch(struct kube_request *q, struct json *old, const struct json *patch, struct json **ret)
{
    struct err e = {0};
    int code = json_patch_apply(&q->arena, old, patch, ret, &e);
    switch (code) {
    case 0: return 0;
    case ERR_NOMEM: return status_nomem(&q->status);
    case ERR_NOT_FOUND:
    case ERR_CONFLICT: return rejected(q, e.text);
    case ERR_LIMIT: return status_set(&q->status, 413, "RequestEntityTooLarge", "Request entity too large: %s", e.text);
    default: return status_bad_request(&q->status, "error decoding patch: %s", e.text);
    }
}

int patch_apply(struct kube_request *q, struct json *old, const struct json *patch, const struct kind *k, struct json **ret)
{
    struct err e = {0};
    int code;
    struct json *copy = json_clone(&q->arena, old);
    if (!copy) return status_nomem(&q->status);
    if (q->body_type == BODY_JSON_PATCH) return apply_json_patch(q, copy, patch, ret);
    if (patch->type != JSON_OBJECT) return status_bad_request(&q->status, "error decoding patch: it is no object");
    if (q->body_type == BODY_MERGE_PATCH) {
        code = json_merge_apply(&q->arena, copy, patch, ret);
        return code ? status_nomem(&q->status) : 0;
    }
    code = kind_strategic_merge(&q->arena, k, copy, patch, &e);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) return status_bad_request(&q->status, "%s", e.text[0] ? e.text : err_text(code));
    *ret = copy;
    return 0;
}

static int patch_compute(struct kube_request *q)
{
    struct json *old, *object;
    int code = mutate_current(q, &old);
    if (!code) code = patch_apply(q, old, q->body_json, q->route.kind, &object);
    if (code) return code;
    if (object->type != JSON_OBJECT) return status_bad_request(&q->status, "the patched document is no object");
    if (!slice_eq(json_path_text(object, "metadata.name"), q->route.name)) {
        struct slice name = json_path_text(object, "metadata.name");
        return status_bad_request(&q->status, "the name of the object (%.*s) does not match the name on the URL (%.*s)",
                                  SHOW(name), SHOW(q->route.name));
    }
    code = write_prepare_update(q, &object, old, q->route.sub);
    return code ? code : write_finish_update(q, object, old);
}

static int check_type(struct kube_request *q)
{
    switch (q->body_type) {
    case BODY_JSON_PATCH:
    case BODY_MERGE_PATCH:
    case BODY_STRATEGIC_PATCH: return 0;
    case BODY_APPLY_PATCH:
        return status_set(&q->status, 415, "UnsupportedMediaType",
                          "the body of the request was in an unknown format - this server has no server-side apply; accepted "
                          "media types include: application/json-patch+json, application/merge-patch+json, "
                          "application/strategic-merge-patch+json");
    default:
        return status_set(&q->status, 415, "UnsupportedMediaType",
                          "the body of the request was in an unknown format - accepted media types include: "
                          "application/json-patch+json, application/merge-patch+json, "
                          "application/strategic-merge-patch+json");
    }
}

/* The patch itself, read once: applying it copies what it takes. */
static int read_patch(struct kube_request *q)
{
    struct json_error je = {0};
    int code = check_type(q);
    if (code) return code;
    code = json_parse(&q->arena, buf_slice(&q->body), 0, &q->body_json, &je);
    if (code == ERR_NOMEM) return status_nomem(&q->status);
    if (code) return status_bad_request(&q->status, "error decoding patch: %s at offset %zu", je.text, je.offset);
    return 0;
}

void patch_handle(struct kube_request *q)
{
    if (read_patch(q)) {
        respond_status(q);
        return;
    }
    q->mut.key = key_of(&q->arena, q->route.kind, q->route.ns, q->route.name);
    q->mut.compute = q->mut.compute ? q->mut.compute : patch_compute;
    q->mut.finish = q->mut.finish ? q->mut.finish : mutate_finish_object;
    mutate_start(q);
}
