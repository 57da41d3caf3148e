/* Checks of types that need more than one field: everything but Pods (checks_pod.c). Each is named
 * by `check=` in the data. */
#include "schemas/kube/checks.h"

#include <arpa/inet.h>
#include <stdio.h>

#define SECRET_BYTES ((size_t)1024 * 1024) /* of all values of a Secret or ConfigMap */

#define SLICE_ENDPOINTS 1000 /* of an EndpointSlice, as Kubernetes */
#define SLICE_PORTS 100
#define SLICE_ADDRESSES 100 /* of one endpoint */

#define INVALID(at, v, ...) kind_complain(c, PROBLEM_INVALID, at, v, __VA_ARGS__)
#define FORBIDDEN(at, ...) kind_complain(c, PROBLEM_FORBIDDEN, at, NULL, __VA_ARGS__)
#define REQUIRED(at, ...) kind_complain(c, PROBLEM_REQUIRED, at, NULL, __VA_ARGS__)

int name_set_add(struct kind_check *c, struct name_set *s, struct slice name)
{
    static struct json present = {.type = JSON_BOOL, .boolean = true};
    if (!s->names && !(s->names = json_object(c->a))) return ERR_NOMEM;
    if (json_get_slice(s->names, name)) return 1;
    return json_set(c->a, s->names, name, &present);
}

int check_unique(struct kind_check *c, const struct kind_path *list, const struct json *items,
                 const char *member, struct name_set *seen)
{
    int rc = 0;
    for (size_t i = 0; i < check_count(items) && rc >= 0; i++) {
        const struct json *name = json_get(json_at(items, i), member);
        if (!json_text(name).len) continue;
        rc = name_set_add(c, seen, name->text);
        if (rc > 0)
            rc = kind_complain(c, PROBLEM_DUPLICATE, PATH_STR(PATH_IN(list, i), member), name, "%s",
                               "");
    }
    return rc < 0 ? rc : 0;
}

/* ---- metadata and selectors -------------------------------------------------------------------
 */

static int check_metadata(struct kind_check *c, const struct kind_path *at, const struct json *meta,
                          const struct json *old)
{
    const struct json *owners = json_get(meta, "ownerReferences");
    struct slice first = {0};
    (void)old;
    for (size_t i = 0; i < check_count(owners); i++) {
        const struct json *o = json_at(owners, i);
        if (!json_path_bool(o, "controller", false)) continue;
        struct slice name = json_text(json_get(o, "name"));
        if (first.data)
            return INVALID(PATH_STR(at, "ownerReferences"), owners,
                           "Only one reference can have Controller set to true. Found \"true\" in "
                           "references for %.*s and %.*s",
                           (int)first.len, (const char *)first.data, (int)name.len,
                           (const char *)name.data);
        first = name.data ? name : SLICE_LIT("");
    }
    return 0;
}

static int check_selector_requirement(struct kind_check *c, const struct kind_path *at,
                                      const struct json *r, const struct json *old)
{
    const struct json *op = json_get(r, "operator"), *values = json_get(r, "values");
    (void)old;
    bool in = json_is_str(op, "In") || json_is_str(op, "NotIn");
    if (in && !check_count(values))
        return REQUIRED(PATH_STR(at, "values"),
                        "must be specified when `operator` is 'In' or 'NotIn'");
    if (!in && check_count(values) &&
        (json_is_str(op, "Exists") || json_is_str(op, "DoesNotExist")))
        return FORBIDDEN(PATH_STR(at, "values"),
                         "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    return 0;
}

static int check_node_requirement(struct kind_check *c, const struct kind_path *at,
                                  const struct json *r, const struct json *old)
{
    const struct json *op = json_get(r, "operator"), *values = json_get(r, "values");
    if ((json_is_str(op, "Gt") || json_is_str(op, "Lt")) && check_count(values) != 1)
        return REQUIRED(PATH_STR(at, "values"),
                        "must be specified single value when `operator` is 'Lt' or 'Gt'");
    return check_selector_requirement(c, at, r, old);
}

/* ---- workloads --------------------------------------------------------------------------------
 */

static bool listed(const struct json *values, struct slice text)
{
    for (size_t i = 0; i < check_count(values); i++)
        if (slice_eq(json_text(json_at(values, i)), text)) return true;
    return false;
}

static bool requirement_matches(const struct json *r, const struct json *labels)
{
    const struct json *op = json_get(r, "operator");
    const struct json *value = json_get_slice(labels, json_text(json_get(r, "key")));
    if (json_is_str(op, "Exists")) return value != NULL;
    if (json_is_str(op, "DoesNotExist")) return value == NULL;
    bool in = value && listed(json_get(r, "values"), json_text(value));
    return json_is_str(op, "NotIn") ? !in : in;
}

static bool selector_matches(const struct json *selector, const struct json *labels)
{
    const struct json *want = json_get(selector, "matchLabels");
    const struct json *expressions = json_get(selector, "matchExpressions");
    for (size_t i = 0; i < check_members(want); i++) {
        const struct json *have = json_get_slice(labels, want->members[i].name);
        if (!have || !json_equal(have, want->members[i].value)) return false;
    }
    for (size_t i = 0; i < check_count(expressions); i++)
        if (!requirement_matches(json_at(expressions, i), labels)) return false;
    return true;
}

static int check_template(struct kind_check *c, const struct kind_path *at, const struct json *spec)
{
    const struct json *selector = json_get(spec, "selector"),
                      *template = json_get(spec, "template");
    const struct json *labels = json_path(template, "metadata.labels");
    const struct json *policy = json_path(template, "spec.restartPolicy");
    const struct kind_path *here = PATH_STR(at, "template");
    struct json empty = {.type = JSON_OBJECT};
    int rc = 0;
    if (selector && !selector_matches(selector, labels))
        rc = INVALID(PATH_STR(PATH_STR(here, "metadata"), "labels"), labels ? labels : &empty,
                     "`selector` does not match template `labels`");
    if (!rc && policy && !json_is_str(policy, "Always"))
        rc = kind_complain(c, PROBLEM_NOT_SUPPORTED,
                           PATH_STR(PATH_STR(here, "spec"), "restartPolicy"), policy,
                           "supported values: \"Always\"");
    if (!rc && json_path(template, "spec.activeDeadlineSeconds"))
        rc = FORBIDDEN(PATH_STR(PATH_STR(here, "spec"), "activeDeadlineSeconds"),
                       "activeDeadlineSeconds in %s is not Supported", c->kind->kind.kind);
    return rc;
}

static int check_workload(struct kind_check *c, const struct kind_path *at, const struct json *spec,
                          const struct json *old)
{
    const struct json *selector = json_get(spec, "selector");
    (void)old;
    int rc = 0;
    if (selector && !check_count(json_get(selector, "matchLabels")) &&
        !check_count(json_get(selector, "matchExpressions")))
        rc = INVALID(PATH_STR(at, "selector"), selector, "empty selector is invalid for %s",
                     c->kind->kind.singular);
    else rc = check_template(c, at, spec);
    int64_t ready = json_path_int(spec, "minReadySeconds", 0);
    const struct json *deadline = json_get(spec, "progressDeadlineSeconds");
    if (!rc && deadline && json_path_int(spec, "progressDeadlineSeconds", 0) <= ready)
        rc = INVALID(PATH_STR(at, "progressDeadlineSeconds"), deadline,
                     "must be greater than minReadySeconds");
    return rc;
}

/* A count, or the digits of a percentage; -1 when it is neither. */
static int64_t count_of(const struct json *v, bool *ret_percent)
{
    int64_t n = -1;
    *ret_percent = v && v->type == JSON_STRING;
    if (!v) return -1;
    if (v->type == JSON_NUMBER) return json_to_int(v, &n) ? n : -1;
    struct json digits = {.type = JSON_NUMBER, .text = slice_sub(v->text, 0, v->text.len - 1)};
    return v->text.len > 1 && json_to_int(&digits, &n) ? n : -1;
}

static int check_strategy(struct kind_check *c, const struct kind_path *at, const struct json *v,
                          const struct json *old)
{
    const struct json *rolling = json_get(v, "rollingUpdate");
    const struct kind_path *here = PATH_STR(at, "rollingUpdate");
    (void)old;
    if (json_is_str(json_get(v, "type"), "Recreate"))
        return rolling ? FORBIDDEN(here, "may not be specified when strategy `type` is 'Recreate'")
                       : 0;
    const struct json *down = json_get(rolling, "maxUnavailable"),
                      *up = json_get(rolling, "maxSurge");
    bool down_percent, up_percent;
    int64_t n_down = count_of(down, &down_percent), n_up = count_of(up, &up_percent);
    if (n_down == 0 && n_up == 0)
        return INVALID(PATH_STR(here, "maxUnavailable"), down, "may not be 0 when `maxSurge` is 0");
    if (down_percent && n_down > 100)
        return INVALID(PATH_STR(here, "maxUnavailable"), down, "must not be greater than 100%%");
    return 0;
}

/* ---- Services and Endpoints -------------------------------------------------------------------
 */

static int check_service_port(struct kind_check *c, const struct kind_path *at,
                              const struct json *port, const struct json *spec,
                              struct name_set *seen, struct name_set *nodes)
{
    const struct json *type = json_get(spec, "type"), *node = json_get(port, "nodePort");
    const struct json *protocol = json_get(port, "protocol"), *number = json_get(port, "port");
    int rc = 0;
    if (check_count(json_get(spec, "ports")) > 1 && !check_has(port, "name"))
        rc = REQUIRED(PATH_STR(at, "name"), "%s", "");
    if (rc || !number) return rc;
    const char *key = arena_printf(c->a, "%.*s/%.*s", (int)json_text(protocol).len,
                                   (const char *)json_text(protocol).data, (int)number->text.len,
                                   (const char *)number->text.data);
    rc = key ? name_set_add(c, seen, slice_str(key)) : ERR_NOMEM;
    if (rc > 0) rc = kind_complain(c, PROBLEM_DUPLICATE, at, port, "%s", "");
    if (rc || !node || json_path_int(port, "nodePort", 0) == 0) return rc;
    if (json_is_str(type, "ClusterIP") || json_is_str(type, "ExternalName"))
        return FORBIDDEN(PATH_STR(at, "nodePort"), "may not be used when `type` is '%.*s'",
                         (int)json_text(type).len, (const char *)json_text(type).data);
    key = arena_printf(c->a, "%.*s/%.*s", (int)json_text(protocol).len,
                       (const char *)json_text(protocol).data, (int)node->text.len,
                       (const char *)node->text.data);
    rc = key ? name_set_add(c, nodes, slice_str(key)) : ERR_NOMEM;
    if (rc > 0) rc = kind_complain(c, PROBLEM_DUPLICATE, PATH_STR(at, "nodePort"), node, "%s", "");
    return rc;
}

static int check_service_ports(struct kind_check *c, const struct kind_path *at,
                               const struct json *spec)
{
    const struct json *ports = json_get(spec, "ports");
    const struct kind_path *here = PATH_STR(at, "ports");
    bool external = json_is_str(json_get(spec, "type"), "ExternalName");
    bool headless = json_is_str(json_get(spec, "clusterIP"), "None");
    struct name_set names = {0}, numbers = {0}, nodes = {0};
    if (!check_count(ports)) return external || headless ? 0 : REQUIRED(here, "%s", "");
    int rc = check_unique(c, here, ports, "name", &names);
    for (size_t i = 0; i < ports->count && !rc; i++)
        rc = check_service_port(c, PATH_IN(here, i), json_at(ports, i), spec, &numbers, &nodes);
    return rc;
}

static int check_cluster_ip(struct kind_check *c, const struct kind_path *at,
                            const struct json *spec, const struct json *old)
{
    const struct json *ip = json_get(spec, "clusterIP"), *before = json_get(old, "clusterIP");
    const struct kind_path *here = PATH_IN(PATH_STR(at, "clusterIPs"), 0);
    if (json_is_str(json_get(spec, "type"), "ExternalName"))
        return json_text(ip).len && !json_is_str(ip, "None")
                   ? FORBIDDEN(PATH_STR(at, "clusterIPs"),
                               "may not be set for ExternalName services")
                   : 0;
    if (json_text(ip).len && !json_is_str(ip, "None")) {
        size_t problems = c->problems->count;
        int rc = kind_format_by_name(SLICE_LIT("ip"))(c, here, ip);
        if (rc || c->problems->count > problems) return rc;
    }
    if (json_text(before).len && json_text(ip).len && !json_equal(ip, before) &&
        !json_is_str(json_get(old, "type"), "ExternalName"))
        return INVALID(here, ip, "may not change once set");
    return 0;
}

static int check_service_spec(struct kind_check *c, const struct kind_path *at,
                              const struct json *spec, const struct json *old)
{
    int rc = check_service_ports(c, at, spec);
    if (!rc) rc = check_cluster_ip(c, at, spec, old);
    const struct json *type = json_get(spec, "type"), *name = json_get(spec, "externalName");
    if (!rc && json_is_str(type, "ExternalName")) {
        if (!json_text(name).len) return REQUIRED(PATH_STR(at, "externalName"), "%s", "");
        if (!name_is_dns1123_subdomain(name->text))
            return kind_format_by_name(SLICE_LIT("dns-subdomain"))(c, PATH_STR(at, "externalName"),
                                                                   name);
    }
    return rc;
}

static int check_subset(struct kind_check *c, const struct kind_path *at, const struct json *subset,
                        const struct json *old)
{
    const struct json *ports = json_get(subset, "ports");
    struct name_set names = {0};
    (void)old;
    if (!check_count(json_get(subset, "addresses")) &&
        !check_count(json_get(subset, "notReadyAddresses")))
        return REQUIRED(at, "must specify `addresses` or `notReadyAddresses`");
    int rc = check_unique(c, PATH_STR(at, "ports"), ports, "name", &names);
    for (size_t i = 0; check_count(ports) > 1 && i < ports->count && !rc; i++)
        if (!check_has(json_at(ports, i), "name"))
            rc = REQUIRED(PATH_STR(PATH_IN(PATH_STR(at, "ports"), i), "name"), "%s", "");
    return rc;
}

static int check_at_most(struct kind_check *c, const struct kind_path *at, const struct json *list,
                         size_t most)
{
    if (check_count(list) <= most) return 0;
    const struct json *n = json_int(c->a, (int64_t)check_count(list));
    return n ? kind_complain(c, PROBLEM_TOO_MANY, at, n, "must have at most %zu items", most)
             : ERR_NOMEM;
}

static int check_slice_address(struct kind_check *c, const struct kind_path *at,
                               const struct json *type, const struct json *v)
{
    char text[INET6_ADDRSTRLEN + 1] = {0};
    uint8_t bytes[16];
    struct slice s = json_text(v);
    bool v6 = json_is_str(type, "IPv6");
    if (json_is_str(type, "FQDN"))
        return kind_format_by_name(SLICE_LIT("dns-subdomain"))(c, at, v);
    if (!v6 && !json_is_str(type, "IPv4")) return 0; /* told already */
    if (s.len < sizeof(text)) memcpy(text, s.data, s.len);
    if (inet_pton(v6 ? AF_INET6 : AF_INET, text, bytes) == 1) return 0;
    return INVALID(at, v, "must be a valid %s address", v6 ? "IPv6" : "IPv4");
}

static int check_slice_endpoint(struct kind_check *c, const struct kind_path *at,
                                const struct json *type, const struct json *endpoint)
{
    const struct json *addresses = json_get(endpoint, "addresses");
    const struct kind_path *here = PATH_STR(at, "addresses");
    if (!check_count(addresses)) return REQUIRED(here, "must contain at least 1 address");
    int rc = check_at_most(c, here, addresses, SLICE_ADDRESSES);
    for (size_t i = 0; i < addresses->count && i < SLICE_ADDRESSES && !rc; i++)
        rc = check_slice_address(c, PATH_IN(here, i), type, json_at(addresses, i));
    return rc;
}

static int check_endpoint_slice(struct kind_check *c, const struct kind_path *at,
                                const struct json *v, const struct json *old)
{
    const struct json *endpoints = json_get(v, "endpoints"), *ports = json_get(v, "ports");
    const struct kind_path *here = PATH_STR(at, "endpoints"), *of_ports = PATH_STR(at, "ports");
    struct name_set names = {0};
    (void)old;
    int rc = check_at_most(c, here, endpoints, SLICE_ENDPOINTS);
    for (size_t i = 0; i < check_count(endpoints) && i < SLICE_ENDPOINTS && !rc; i++)
        rc = check_slice_endpoint(c, PATH_IN(here, i), json_get(v, "addressType"),
                                  json_at(endpoints, i));
    if (!rc) rc = check_at_most(c, of_ports, ports, SLICE_PORTS);
    for (size_t i = 0; i < check_count(ports) && i < SLICE_PORTS && !rc; i++) {
        const struct json *name = json_get(json_at(ports, i), "name"); /* "" is a name here */
        rc = name_set_add(c, &names, name ? json_text(name) : SLICE_LIT(""));
        if (rc > 0)
            rc = kind_complain(c, PROBLEM_DUPLICATE, PATH_STR(PATH_IN(of_ports, i), "name"), name,
                               "%s", "");
    }
    return rc;
}

/* ---- configuration ----------------------------------------------------------------------------
 */

/* Keys, and the sum of the sizes. */
static int check_data(struct kind_check *c, const struct kind_path *at, const struct json *data,
                      bool encoded, size_t *total)
{
    kind_format_fn key_format = kind_format_by_name(SLICE_LIT("config-key"));
    int rc = 0;
    for (size_t i = 0; i < check_members(data) && !rc; i++) {
        const struct json_member *m = &data->members[i];
        struct json key = {.type = JSON_STRING, .text = m->name};
        rc = key_format(c, PATH_OF(at, m->name), &key);
        *total += encoded ? base64_decoded_length(json_text(m->value)) : json_text(m->value).len;
    }
    return rc;
}

static int check_frozen(struct kind_check *c, const struct kind_path *at, const struct json *v,
                        const struct json *old)
{
    static const char *const fields[] = {"data", "binaryData"};
    if (!json_path_bool(old, "immutable", false)) return 0;
    int rc = 0;
    if (!json_path_bool(v, "immutable", false))
        rc = FORBIDDEN(PATH_STR(at, "immutable"), "field is immutable when `immutable` is set");
    for (size_t i = 0; i < 2 && !rc; i++)
        if (!json_equal(json_get(v, fields[i]), json_get(old, fields[i])))
            rc = FORBIDDEN(PATH_STR(at, fields[i]), "field is immutable when `immutable` is set");
    return rc;
}

static int check_config_map(struct kind_check *c, const struct kind_path *at, const struct json *v,
                            const struct json *old)
{
    const struct json *data = json_get(v, "data"), *binary = json_get(v, "binaryData");
    size_t total = 0;
    int rc = check_data(c, PATH_STR(at, "data"), data, false, &total);
    if (!rc) rc = check_data(c, PATH_STR(at, "binaryData"), binary, true, &total);
    for (size_t i = 0; i < check_members(binary) && !rc; i++) {
        struct slice name = binary->members[i].name;
        struct json key = {.type = JSON_STRING, .text = name};
        if (json_get_slice(data, name))
            rc = INVALID(PATH_OF(PATH_STR(at, "data"), name), &key,
                         "duplicate of key present in binaryData");
    }
    if (!rc && total > SECRET_BYTES)
        rc = kind_complain(c, PROBLEM_TOO_LONG, at, NULL, "may not be more than %zu bytes",
                           SECRET_BYTES);
    return rc ? rc : check_frozen(c, at, v, old);
}

static int check_secret_type(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    static const struct {
        const char *type;
        const char *keys[2];
    } needs[] = {
        {"kubernetes.io/dockerconfigjson", {".dockerconfigjson", NULL}},
        {"kubernetes.io/dockercfg", {".dockercfg", NULL}},
        {"kubernetes.io/ssh-auth", {"ssh-privatekey", NULL}},
        {"kubernetes.io/tls", {"tls.crt", "tls.key"}},
    };
    const struct json *type = json_get(v, "type"), *data = json_get(v, "data");
    int rc = 0;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        for (size_t k = 0; k < 2 && needs[i].keys[k] && !rc; k++)
            if (json_is_str(type, needs[i].type) && !json_get(data, needs[i].keys[k]))
                rc = REQUIRED(PATH_OF(PATH_STR(at, "data"), slice_str(needs[i].keys[k])), "%s", "");
    const struct json *annotations = json_path(v, "metadata.annotations");
    if (!rc && json_is_str(type, "kubernetes.io/service-account-token") &&
        !check_has(annotations, "kubernetes.io/service-account.name"))
        rc = REQUIRED(PATH_OF(PATH_STR(PATH_STR(at, "metadata"), "annotations"),
                              SLICE_LIT("kubernetes.io/service-account.name")),
                      "%s", "");
    if (!rc && json_is_str(type, "kubernetes.io/basic-auth") && !json_get(data, "username") &&
        !json_get(data, "password"))
        rc = REQUIRED(PATH_OF(PATH_STR(at, "data"), SLICE_LIT("username")), "%s", "");
    return rc;
}

static int check_secret(struct kind_check *c, const struct kind_path *at, const struct json *v,
                        const struct json *old)
{
    size_t total = 0;
    int rc = check_data(c, PATH_STR(at, "data"), json_get(v, "data"), true, &total);
    if (!rc && total > SECRET_BYTES)
        rc = kind_complain(c, PROBLEM_TOO_LONG, PATH_STR(at, "data"), NULL,
                           "may not be more than %zu bytes", SECRET_BYTES);
    if (!rc) rc = check_secret_type(c, at, v);
    return rc ? rc : check_frozen(c, at, v, old);
}

/* ---- cluster ----------------------------------------------------------------------------------
 */

static int check_namespace(struct kind_check *c, const struct kind_path *at, const struct json *v,
                           const struct json *old)
{
    const struct json *finalizers = json_path(v, "spec.finalizers");
    const struct kind_path *here = PATH_STR(PATH_STR(at, "spec"), "finalizers");
    (void)old;
    int rc = 0;
    for (size_t i = 0; i < check_count(finalizers) && !rc; i++) {
        const struct json *f = json_at(finalizers, i);
        if (!name_is_qualified(json_text(f)))
            rc = kind_format_by_name(SLICE_LIT("qualified"))(c, PATH_IN(here, i), f);
        else if (slice_index(f->text, '/') < 0 && !json_is_str(f, "kubernetes"))
            rc = INVALID(PATH_IN(here, i), f,
                         "name is neither a standard finalizer name nor is it fully qualified");
    }
    return rc;
}

static int check_node(struct kind_check *c, const struct kind_path *at, const struct json *v,
                      const struct json *old)
{
    static const char *const fixed[] = {"podCIDR", "providerID"};
    const struct json *spec = json_get(v, "spec"), *before = json_get(old, "spec");
    const struct json *taints = json_get(spec, "taints");
    const struct kind_path *here = PATH_STR(at, "spec");
    struct name_set seen = {0};
    int rc = 0;
    for (size_t i = 0; i < 2 && !rc; i++)
        if (check_has(before, fixed[i]) &&
            !json_equal(json_get(spec, fixed[i]), json_get(before, fixed[i])))
            rc = FORBIDDEN(PATH_STR(here, fixed[i]),
                           "node updates may not change %s except from \"\" to valid", fixed[i]);
    for (size_t i = 0; i < check_count(taints) && !rc; i++) {
        struct slice key = json_text(json_get(json_at(taints, i), "key"));
        struct slice effect = json_text(json_get(json_at(taints, i), "effect"));
        const char *both = arena_printf(c->a, "%.*s:%.*s", (int)key.len, (const char *)key.data,
                                        (int)effect.len, (const char *)effect.data);
        rc = both ? name_set_add(c, &seen, slice_str(both)) : ERR_NOMEM;
        if (rc > 0)
            rc = kind_complain(c, PROBLEM_DUPLICATE, PATH_IN(PATH_STR(here, "taints"), i),
                               json_at(taints, i), "taints must be unique by key and effect pair");
    }
    return rc;
}

static int check_taint(struct kind_check *c, const struct kind_path *at, const struct json *v,
                       const struct json *old)
{
    (void)old;
    return check_has(v, "effect") ? 0 : REQUIRED(PATH_STR(at, "effect"), "%s", "");
}

static int check_event(struct kind_check *c, const struct kind_path *at, const struct json *v,
                       const struct json *old)
{
    const struct json *ns = json_path(v, "involvedObject.namespace");
    struct slice own = json_path_text(v, "metadata.namespace");
    struct json empty = {.type = JSON_STRING};
    (void)old;
    bool matches = json_text(ns).len ? slice_eq(json_text(ns), own) : slice_eq_str(own, "default");
    if (matches) return 0;
    return INVALID(PATH_STR(PATH_STR(at, "involvedObject"), "namespace"), ns ? ns : &empty,
                   "does not match event.namespace");
}

static int check_lease(struct kind_check *c, const struct kind_path *at, const struct json *v,
                       const struct json *old)
{
    const struct json *seconds = json_get(v, "leaseDurationSeconds");
    const struct json *moves = json_get(v, "leaseTransitions");
    const struct json *strategy = json_get(v, "strategy");
    const struct json *preferred = json_get(v, "preferredHolder");
    int rc = 0;
    (void)old;
    if (seconds && json_path_int(v, "leaseDurationSeconds", 0) <= 0)
        rc = INVALID(PATH_STR(at, "leaseDurationSeconds"), seconds, "must be greater than 0");
    if (!rc && moves && json_path_int(v, "leaseTransitions", 0) < 0)
        rc = INVALID(PATH_STR(at, "leaseTransitions"), moves, "must be greater than or equal to 0");
    if (!rc && json_text(preferred).len && !json_text(strategy).len)
        rc = FORBIDDEN(PATH_STR(at, "preferredHolder"),
                       "may only be specified if `strategy` is defined");
    return rc;
}

kind_check_fn kind_check_by_name(struct slice name)
{
    static const struct check_entry checks[] = {
        {"metadata", check_metadata},
        {"selector-requirement", check_selector_requirement},
        {"node-requirement", check_node_requirement},
        {"workload", check_workload},
        {"strategy", check_strategy},
        {"service-spec", check_service_spec},
        {"subset", check_subset},
        {"endpoint-slice", check_endpoint_slice},
        {"config-map", check_config_map},
        {"secret", check_secret},
        {"namespace", check_namespace},
        {"node", check_node},
        {"taint", check_taint},
        {"event", check_event},
        {"lease", check_lease},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (slice_eq_str(name, checks[i].name)) return checks[i].fn;
    return kind_pod_check_by_name(name);
}
