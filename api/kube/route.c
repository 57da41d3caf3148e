/* What a path names. The grammar is Kubernetes':
 *
 *   /api/<version>[/watch][/namespaces/<ns>]/<plural>[/<name>[/<subresource>]]
 *   /apis/<group>/<version>[/watch][/namespaces/<ns>]/<plural>[/<name>[/<subresource>]]
 *
 * and a few fixed paths beside it. `namespaces/<name>` alone, or with status or finalize, is the namespace itself. */
#include "api/kube/kube_int.h"

#define ROUTE_MAX_PARTS 12

struct parts {
    struct slice at[ROUTE_MAX_PARTS];
    size_t n;
};

/* Cuts at '/', dropping one trailing slash; -1 for too many parts or an empty one. */
static int split(struct arena *a, struct slice path, struct parts *ret)
{
    ret->n = 0;
    if (!path.len || path.data[0] != '/') return ERR_NOT_FOUND;
    path = slice_sub(path, 1, path.len);
    if (path.len && path.data[path.len - 1] == '/') path.len--;
    while (path.len) {
        ptrdiff_t at = slice_index(path, '/');
        struct slice piece = at < 0 ? path : slice_sub(path, 0, (size_t)at);
        path = at < 0 ? (struct slice){0} : slice_sub(path, (size_t)at + 1, path.len);
        if (!piece.len || ret->n == ROUTE_MAX_PARTS) return ERR_NOT_FOUND;
        int code = percent_decode(a, piece, false, &ret->at[ret->n]);
        if (code) return code;
        ret->n++;
    }
    return 0;
}

static bool part_is(const struct parts *p, size_t i, const char *text)
{
    return i < p->n && slice_eq_str(p->at[i], text);
}

static bool known_group(struct slice group, const struct slice *version)
{
    for (size_t i = 0; i < kinds_count(); i++) {
        const struct kind *k = kinds_at(i);
        if (slice_eq_str(group, k->group) && (!version || slice_eq_str(*version, k->version))) return true;
    }
    return false;
}

/* Names in paths may hold anything but what would break out of the key. */
static bool segment_ok(struct slice s)
{
    if (!s.len || slice_eq_str(s, ".") || slice_eq_str(s, "..")) return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] == '/' || s.data[i] == '%' || s.data[i] < 0x20 || s.data[i] == 0x7f) return false;
    }
    return true;
}

static void route_resource(const struct parts *p, size_t i, struct route *r)
{
    if (part_is(p, i, "watch")) {
        r->watch = true;
        i++;
    }
    bool core = r->group.len == 0;
    bool sub_of_namespace = part_is(p, i + 2, "status") || part_is(p, i + 2, "finalize");
    if (part_is(p, i, "namespaces") && p->n - i >= 3 && !(core && p->n - i == 3 && sub_of_namespace)) {
        r->ns = p->at[i + 1];
        i += 2;
    }
    if (i >= p->n || p->n - i > 3) return;
    const struct kind *k = kind_by_resource(r->group, r->version, p->at[i]);
    if (!k || (r->ns.len && !k->namespaced)) return;
    if (p->n - i > 1) r->name = p->at[i + 1];
    if (p->n - i > 2) r->sub = p->at[i + 2];
    if ((r->ns.len && !segment_ok(r->ns)) || (r->name.len && !segment_ok(r->name))) return;
    if (k->namespaced && r->name.len && !r->ns.len) return;
    r->kind = k;
    r->type = ROUTE_RESOURCE;
}

static void route_group_version(const struct parts *p, size_t i, struct route *r)
{
    static const char *const reviews[][3] = {
        {"authorization.k8s.io", "v1", "selfsubjectaccessreviews"},
        {"authorization.k8s.io", "v1", "selfsubjectrulesreviews"},
        {"authorization.k8s.io", "v1", "subjectaccessreviews"},
        {"authentication.k8s.io", "v1", "selfsubjectreviews"},
        {"authentication.k8s.io", "v1", "tokenreviews"},
    };
    if (p->n == i) {
        if (known_group(r->group, &r->version)) r->type = ROUTE_RESOURCES;
        return;
    }
    for (size_t n = 0; n < sizeof(reviews) / sizeof(*reviews); n++) {
        if (slice_eq_str(r->group, reviews[n][0]) && slice_eq_str(r->version, reviews[n][1]) && p->n == i + 1 &&
            part_is(p, i, reviews[n][2])) {
            r->type = ROUTE_ACCESS_REVIEW;
            r->name = p->at[i];
            return;
        }
    }
    route_resource(p, i, r);
}

static void route_openapi(const struct parts *p, struct route *r)
{
    if (part_is(p, 1, "v2") && p->n == 2) {
        r->type = ROUTE_OPENAPI_V2;
    } else if (part_is(p, 1, "v3") && p->n == 2) {
        r->type = ROUTE_OPENAPI_V3;
    } else if (part_is(p, 1, "v3") && part_is(p, 2, "api") && p->n == 4) {
        r->version = p->at[3];
        r->type = ROUTE_OPENAPI_V3_GROUP;
    } else if (part_is(p, 1, "v3") && part_is(p, 2, "apis") && p->n == 5) {
        r->group = p->at[3];
        r->version = p->at[4];
        r->type = ROUTE_OPENAPI_V3_GROUP;
    }
}

static void route_fixed(const struct parts *p, struct route *r)
{
    if (p->n == 0) {
        r->type = ROUTE_ROOT;
    } else if (part_is(p, 0, "version") && p->n == 1) {
        r->type = ROUTE_VERSION;
    } else if (part_is(p, 0, "metrics") && p->n == 1) {
        r->type = ROUTE_METRICS;
    } else if ((part_is(p, 0, "healthz") || part_is(p, 0, "livez") || part_is(p, 0, "readyz")) && p->n <= 2) {
        r->type = ROUTE_HEALTH;
        r->name = p->at[0];
        if (p->n == 2) r->sub = p->at[1];
    } else if (part_is(p, 0, "openapi")) {
        route_openapi(p, r);
    }
}

int route_parse(struct arena *a, struct slice path, struct route *ret)
{
    struct parts p = {0};
    *ret = (struct route){0};
    int code = split(a, path, &p);
    if (code == ERR_NOT_FOUND) return 0;
    if (code) return code;
    if (part_is(&p, 0, "api")) {
        if (p.n == 1) {
            ret->type = ROUTE_API_VERSIONS;
            return 0;
        }
        ret->version = p.at[1];
        route_group_version(&p, 2, ret);
    } else if (part_is(&p, 0, "apis")) {
        if (p.n == 1) {
            ret->type = ROUTE_GROUPS;
            return 0;
        }
        ret->group = p.at[1];
        if (p.n == 2) {
            if (known_group(ret->group, NULL)) ret->type = ROUTE_GROUP;
            return 0;
        }
        ret->version = p.at[2];
        route_group_version(&p, 3, ret);
    } else {
        route_fixed(&p, ret);
    }
    return 0;
}

const char *verb_name(enum kube_verb v)
{
    static const char *const names[VERB_COUNT] = {
        [VERB_OTHER] = "other",   [VERB_GET] = "get",     [VERB_LIST] = "list",
        [VERB_WATCH] = "watch",   [VERB_CREATE] = "create", [VERB_UPDATE] = "update",
        [VERB_PATCH] = "patch",   [VERB_DELETE] = "delete", [VERB_DELETECOLLECTION] = "deletecollection",
    };
    return names[v];
}
