/* The paths of an OpenAPI document: what can be done with a kind, and with which parameters. */
#include "schemas/kube/openapi_int.h"
#include "schemas/kube/verbs.h"

#include <ctype.h>

#define META "io.k8s.apimachinery.pkg.apis.meta.v1."

struct parameter {
    const char *name, *type;
};

static const struct parameter write_parameters[] = {{"dryRun", "string"},
                                                    {"fieldManager", "string"},
                                                    {"fieldValidation", "string"},
                                                    {"pretty", "string"},
                                                    {NULL, NULL}};
static const struct parameter patch_parameters[] = {
    {"dryRun", "string"}, {"fieldManager", "string"}, {"fieldValidation", "string"},
    {"force", "boolean"}, {"pretty", "string"},       {NULL, NULL}};
static const struct parameter delete_parameters[] = {{"dryRun", "string"},
                                                     {"gracePeriodSeconds", "integer"},
                                                     {"orphanDependents", "boolean"},
                                                     {"propagationPolicy", "string"},
                                                     {"pretty", "string"},
                                                     {NULL, NULL}};
static const struct parameter list_parameters[] = {{"allowWatchBookmarks", "boolean"},
                                                   {"continue", "string"},
                                                   {"fieldSelector", "string"},
                                                   {"labelSelector", "string"},
                                                   {"limit", "integer"},
                                                   {"pretty", "string"},
                                                   {"resourceVersion", "string"},
                                                   {"resourceVersionMatch", "string"},
                                                   {"sendInitialEvents", "boolean"},
                                                   {"timeoutSeconds", "integer"},
                                                   {"watch", "boolean"},
                                                   {NULL, NULL}};
static const struct parameter get_parameters[] = {
    {"pretty", "string"}, {"resourceVersion", "string"}, {NULL, NULL}};

/* What one operation does; everything in it is derived from this. */
struct operation {
    const char *method, *action, *verb; /* "post", "post", "create" */
    const struct parameter *parameters;
    const char *body;  /* full name of a type, or NULL */
    const char *reply; /* the same */
    const char *group, *version, *kind;
    bool all_namespaces;
};

static struct json *parameter(struct doc *d, const char *in, const char *name, const char *type)
{
    struct json *v = doc_object(d), *schema = d->v3 ? doc_object(d) : v;
    doc_put_str(d, v, "name", name);
    doc_put_str(d, v, "in", in);
    doc_put_str(d, schema, "type", type);
    doc_put(d, schema, "uniqueItems", json_bool(&d->a, true));
    if (d->v3) doc_put(d, v, "schema", schema);
    if (strcmp(in, "path") == 0) doc_put(d, v, "required", json_bool(&d->a, true));
    return v;
}

static struct json *content(struct doc *d, const char *type_name, const char *const *media)
{
    struct json *by_type = doc_object(d);
    for (; *media; media++) {
        struct json *v = doc_object(d);
        doc_put(d, v, "schema", doc_ref(d, type_name));
        doc_put(d, by_type, *media, v);
    }
    return by_type;
}

static const char *const json_media[] = {"application/json", NULL};
static const char *const any_media[] = {"application/json", "application/yaml", NULL};
static const char *const patch_media[] = {"application/json-patch+json",
                                          "application/merge-patch+json",
                                          "application/strategic-merge-patch+json", NULL};

static struct json *strings(struct doc *d, const char *const *texts)
{
    struct json *list = doc_array(d);
    for (; *texts; texts++) doc_push_str(d, list, *texts);
    return list;
}

static void add_body(struct doc *d, struct json *operation, struct json *parameters,
                     const struct operation *o)
{
    bool patch = strcmp(o->method, "patch") == 0;
    struct json *v = doc_object(d);
    if (d->v3) {
        doc_put(d, v, "content", content(d, o->body, patch ? patch_media : any_media));
        doc_put(d, operation, "requestBody", v);
        return;
    }
    doc_put_str(d, v, "name", "body");
    doc_put_str(d, v, "in", "body");
    doc_put(d, v, "required", json_bool(&d->a, true));
    doc_put(d, v, "schema", doc_ref(d, o->body));
    doc_push(d, parameters, v);
    doc_put(d, operation, "consumes", strings(d, patch ? patch_media : any_media));
}

static struct json *responses(struct doc *d, const struct operation *o)
{
    bool creates = strcmp(o->method, "post") == 0;
    struct json *all = doc_object(d), *v = doc_object(d);
    doc_put_str(d, v, "description", creates ? "Created" : "OK");
    if (d->v3) doc_put(d, v, "content", content(d, o->reply, json_media));
    else doc_put(d, v, "schema", doc_ref(d, o->reply));
    doc_put(d, all, creates ? "201" : "200", v);
    return all;
}

/* "createCoreV1NamespacedPod" */
static const char *operation_id(struct doc *d, const struct operation *o, const struct kind *k,
                                const char *sub)
{
    char group[32] = "Core", version[16], tail[32] = "";
    size_t n = strcspn(k->group, ".");
    if (n && n < sizeof(group)) {
        memcpy(group, k->group, n);
        group[0] = (char)toupper((unsigned char)group[0]);
        group[n] = 0;
    }
    size_t m = strlen(k->version) < sizeof(version) ? strlen(k->version) : sizeof(version) - 1;
    memcpy(version, k->version, m);
    version[0] = (char)toupper((unsigned char)version[0]);
    version[m] = 0;
    size_t s = sub && strlen(sub) < sizeof(tail) ? strlen(sub) : 0;
    if (s) {
        memcpy(tail, sub, s);
        tail[0] = (char)toupper((unsigned char)tail[0]);
        tail[s] = 0;
    }
    return arena_printf(&d->a, "%s%s%s%s%s%s%s", o->verb, group, version,
                        k->namespaced && !o->all_namespaces ? "Namespaced" : "", k->kind, tail,
                        o->all_namespaces ? "ForAllNamespaces" : "");
}

static void add_operation(struct doc *d, struct json *item, const struct operation *o,
                          const struct kind *k, const char *sub)
{
    struct json *v = doc_object(d), *parameters = doc_array(d);
    for (const struct parameter *p = o->parameters; p->name; p++)
        doc_push(d, parameters, parameter(d, "query", p->name, p->type));
    doc_put_str(d, v, "operationId", operation_id(d, o, k, sub));
    if (o->body) add_body(d, v, parameters, o);
    doc_put(d, v, "parameters", parameters);
    if (!d->v3) doc_put(d, v, "produces", strings(d, json_media));
    doc_put(d, v, "responses", responses(d, o));
    doc_put_str(d, v, "x-kubernetes-action", o->action);
    doc_put(d, v, "x-kubernetes-group-version-kind", doc_gvk(d, o->group, o->version, o->kind));
    doc_put(d, item, o->method, v);
}

/* A path and the parameters in it. */
static struct json *add_path(struct doc *d, struct json *paths, const struct kind *k,
                             bool in_namespace, bool named, const char *sub)
{
    struct json *item = doc_object(d), *parameters = doc_array(d);
    const char *path =
        arena_printf(&d->a, "/%s/%s%s/%s%s%s%s", k->group[0] ? "apis" : "api", k->api_version,
                     in_namespace ? "/namespaces/{namespace}" : "", k->plural,
                     named ? "/{name}" : "", sub ? "/" : "", sub ? sub : "");
    if (named) doc_push(d, parameters, parameter(d, "path", "name", "string"));
    if (in_namespace) doc_push(d, parameters, parameter(d, "path", "namespace", "string"));
    if (parameters && parameters->count) doc_put(d, item, "parameters", parameters);
    doc_put(d, paths, path, item);
    return item;
}

static void add_subresource(struct doc *d, struct json *paths, const struct kind *k,
                            const struct kind_sub *s)
{
    const struct kind_type *t = s->kind ? kind_type_named(s->kind) : k->type;
    struct json *item = add_path(d, paths, k, k->namespaced, true, s->name);
    if (!t) return;
    doc_add_type(d, t);
    const char *type = doc_type_name(d, t);
    struct operation o = {"get",
                          "get",
                          "read",
                          get_parameters,
                          NULL,
                          type,
                          s->kind ? s->group : k->group,
                          s->kind ? s->version : k->version,
                          s->kind ? s->kind : k->kind,
                          false};
    bool get = strstr(s->verbs, "get"), put = strstr(s->verbs, "update");
    if (get) add_operation(d, item, &o, k, s->name);
    o.body = type;
    o.parameters = write_parameters;
    o.method = o.action = "put";
    o.verb = "replace";
    if (put) add_operation(d, item, &o, k, s->name);
    o.method = o.action = "post";
    o.verb = "create";
    if (strstr(s->verbs, "create")) add_operation(d, item, &o, k, s->name);
    o.method = o.action = "patch";
    o.verb = "patch";
    o.body = META "Patch";
    o.parameters = patch_parameters;
    if (strstr(s->verbs, "patch")) add_operation(d, item, &o, k, s->name);
}

void doc_add_paths(struct doc *d, struct json *paths, const struct kind *k)
{
    const char *type = doc_type_name(d, k->type), *list = doc_list_name(d, k);
    const char *g = k->group, *v = k->version, *name = k->kind;
    const struct operation on_list[] = {
        {"get", "list", "list", list_parameters, NULL, list, g, v, name, false},
        {"post", "post", "create", write_parameters, type, type, g, v, name, false},
        {"delete", "deletecollection", "deleteCollection", delete_parameters, META "DeleteOptions",
         META "Status", g, v, name, false},
    };
    const struct operation on_one[] = {
        {"get", "get", "read", get_parameters, NULL, type, g, v, name, false},
        {"put", "put", "replace", write_parameters, type, type, g, v, name, false},
        {"patch", "patch", "patch", patch_parameters, META "Patch", type, g, v, name, false},
        {"delete", "delete", "delete", delete_parameters, META "DeleteOptions", META "Status", g, v,
         name, false},
    };
    struct operation everywhere = on_list[0];
    const struct kind_sub *s;
    struct json *item = add_path(d, paths, k, k->namespaced, false, NULL);
    for (size_t i = 0; i < 2u + kind_has_deletecollection(k); i++)
        add_operation(d, item, &on_list[i], k, NULL);
    item = add_path(d, paths, k, k->namespaced, true, NULL);
    for (size_t i = 0; i < 4; i++) add_operation(d, item, &on_one[i], k, NULL);
    for (size_t i = 0; (s = kind_subresource_at(k, i)); i++) add_subresource(d, paths, k, s);
    everywhere.all_namespaces = true;
    if (k->namespaced)
        add_operation(d, add_path(d, paths, k, false, false, NULL), &everywhere, k, NULL);
}
