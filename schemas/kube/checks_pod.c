/* Checks of Pods, of what is in them, and of what may change in a Pod that exists. */
#include "schemas/kube/checks.h"

#include <stdio.h>

#define INVALID(at, v, ...) kind_complain(c, PROBLEM_INVALID, at, v, __VA_ARGS__)
#define FORBIDDEN(at, ...) kind_complain(c, PROBLEM_FORBIDDEN, at, NULL, __VA_ARGS__)
#define REQUIRED(at, ...) kind_complain(c, PROBLEM_REQUIRED, at, NULL, __VA_ARGS__)

/* ---- containers -------------------------------------------------------------------------------
 */

static int check_ports(struct kind_check *c, const struct kind_path *at, const struct json *ports)
{
    struct name_set names = {0}, hosts = {0};
    int rc = check_unique(c, at, ports, "name", &names);
    for (size_t i = 0; i < check_count(ports) && !rc; i++) {
        const struct json *p = json_at(ports, i), *number = json_get(p, "hostPort");
        struct slice ip = json_text(json_get(p, "hostIP")),
                     protocol = json_text(json_get(p, "protocol"));
        if (!number || json_path_int(p, "hostPort", 0) == 0) continue;
        const char *key = arena_printf(
            c->a, "%.*s/%.*s/%.*s", (int)protocol.len, (const char *)protocol.data, (int)ip.len,
            (const char *)ip.data, (int)number->text.len, (const char *)number->text.data);
        rc = key ? name_set_add(c, &hosts, slice_str(key)) : ERR_NOMEM;
        if (rc > 0)
            rc = kind_complain(c, PROBLEM_DUPLICATE, PATH_STR(PATH_IN(at, i), "hostPort"), number,
                               "%s", "");
    }
    return rc;
}

static int check_mounts(struct kind_check *c, const struct kind_path *at, const struct json *mounts)
{
    struct name_set paths = {0};
    int rc = 0;
    for (size_t i = 0; i < check_count(mounts) && rc >= 0; i++) {
        const struct json *path = json_get(json_at(mounts, i), "mountPath");
        if (!json_text(path).len) continue;
        rc = name_set_add(c, &paths, path->text);
        if (rc > 0) rc = INVALID(PATH_STR(PATH_IN(at, i), "mountPath"), path, "must be unique");
    }
    return rc < 0 ? rc : 0;
}

static int check_container(struct kind_check *c, const struct kind_path *at, const struct json *v,
                           const struct json *old)
{
    const struct json *image = json_get(v, "image");
    struct slice s = json_text(image);
    (void)old;
    int rc = 0;
    if (s.len && (s.data[0] == ' ' || s.data[s.len - 1] == ' '))
        rc = INVALID(PATH_STR(at, "image"), image, "must not have leading or trailing whitespace");
    if (!rc) rc = check_ports(c, PATH_STR(at, "ports"), json_get(v, "ports"));
    if (!rc) rc = check_mounts(c, PATH_STR(at, "volumeMounts"), json_get(v, "volumeMounts"));
    const struct json *probes[] = {json_get(v, "livenessProbe"), json_get(v, "startupProbe")};
    static const char *const names[] = {"livenessProbe", "startupProbe"};
    for (size_t i = 0; i < 2 && !rc; i++)
        if (probes[i] && json_path_int(probes[i], "successThreshold", 1) != 1)
            rc = INVALID(PATH_STR(PATH_STR(at, names[i]), "successThreshold"),
                         json_get(probes[i], "successThreshold"), "must be 1");
    return rc;
}

/* One of the ways to do it, and only one. */
static int check_handler(struct kind_check *c, const struct kind_path *at, const struct json *v,
                         const struct json *old)
{
    static const char *const ways[] = {"exec", "httpGet", "tcpSocket", "grpc", "sleep"};
    size_t n = 0;
    (void)old;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (!json_get(v, ways[i])) continue;
        if (++n > 1)
            return FORBIDDEN(PATH_STR(at, ways[i]), "may not specify more than 1 handler type");
    }
    return n ? 0 : REQUIRED(at, "must specify a handler type");
}

static int check_env(struct kind_check *c, const struct kind_path *at, const struct json *v,
                     const struct json *old)
{
    const struct json *from = json_get(v, "valueFrom");
    const struct kind_path *here = PATH_STR(at, "valueFrom");
    struct json empty = {.type = JSON_STRING};
    (void)old;
    if (!from) return 0;
    if (json_text(json_get(v, "value")).len)
        return INVALID(here, &empty, "may not be specified when `value` is not empty");
    if (check_count(from) == 0)
        return INVALID(here, &empty,
                       "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or "
                       "`secretKeyRef`");
    if (check_count(from) > 1)
        return INVALID(here, &empty, "may not have more than one field specified at a time");
    return 0;
}

/* ---- resources --------------------------------------------------------------------------------
 */

static bool is_standard_resource(struct slice name)
{
    static const char *const names[] = {"cpu", "memory", "ephemeral-storage", "storage"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_eq_str(name, names[i])) return true;
    return slice_has_prefix(name, SLICE_LIT("hugepages-"));
}

static int check_amounts(struct kind_check *c, const struct kind_path *at, const struct json *list)
{
    int rc = 0;
    for (size_t i = 0; i < check_members(list) && !rc; i++) {
        const struct json_member *m = &list->members[i];
        struct json name = {.type = JSON_STRING, .text = m->name};
        const struct kind_path *here = PATH_OF(at, m->name);
        int64_t milli;
        if (!name_is_qualified(m->name))
            rc = kind_format_by_name(SLICE_LIT("qualified"))(c, here, &name);
        else if (slice_index(m->name, '/') < 0 && !is_standard_resource(m->name))
            rc = INVALID(here, &name, "must be a standard resource type or fully qualified");
        else if (!quantity_parse(json_text(m->value), &milli) || milli < 0)
            rc = INVALID(here, m->value, "must be greater than or equal to 0");
    }
    return rc;
}

static int check_resources(struct kind_check *c, const struct kind_path *at, const struct json *v,
                           const struct json *old)
{
    const struct json *limits = json_get(v, "limits"), *requests = json_get(v, "requests");
    const struct kind_path *here = PATH_STR(at, "requests");
    (void)old;
    int rc = check_amounts(c, PATH_STR(at, "limits"), limits);
    if (!rc) rc = check_amounts(c, here, requests);
    for (size_t i = 0; i < check_members(requests) && !rc; i++) {
        const struct json_member *m = &requests->members[i];
        struct slice most = json_text(json_get_slice(limits, m->name));
        int64_t want, limit;
        if (!quantity_parse(most, &limit) || !quantity_parse(json_text(m->value), &want)) continue;
        if (want > limit)
            rc = INVALID(here, m->value, "must be less than or equal to %.*s limit of %.*s",
                         (int)m->name.len, (const char *)m->name.data, (int)most.len,
                         (const char *)most.data);
        else if (want != limit && slice_index(m->name, '/') >= 0)
            rc = INVALID(here, m->value, "must be equal to %.*s limit of %.*s", (int)m->name.len,
                         (const char *)m->name.data, (int)most.len, (const char *)most.data);
    }
    return rc;
}

/* ---- the Pod's spec ---------------------------------------------------------------------------
 */

static int check_volume(struct kind_check *c, const struct kind_path *at, const struct json *v,
                        const struct json *old)
{
    (void)old;
    size_t sources = check_count(v) - (json_get(v, "name") != NULL);
    if (sources == 0) return REQUIRED(at, "must specify a volume type");
    if (sources == 1) return 0;
    for (size_t i = v->count; i-- > 0;)
        if (!slice_eq_str(v->members[i].name, "name"))
            return FORBIDDEN(PATH_AT(at, v->members[i].name),
                             "may not specify more than 1 volume type");
    return 0;
}

static int check_mounted(struct kind_check *c, const struct kind_path *at,
                         const struct json *container, const char *list, struct name_set *volumes)
{
    const struct json *mounts = json_get(container, list);
    int rc = 0;
    for (size_t i = 0; i < check_count(mounts) && !rc; i++) {
        const struct json *name = json_get(json_at(mounts, i), "name");
        if (json_text(name).len && !json_get_slice(volumes->names, name->text))
            rc = kind_complain(c, PROBLEM_NOT_FOUND,
                               PATH_STR(PATH_IN(PATH_STR(at, list), i), "name"), name, "%s", "");
    }
    return rc;
}

static int check_init_container(struct kind_check *c, const struct kind_path *at,
                                const struct json *v)
{
    static const char *const fields[] = {"lifecycle", "livenessProbe", "readinessProbe",
                                         "startupProbe"};
    int rc = 0;
    if (json_is_str(json_get(v, "restartPolicy"), "Always")) return 0;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && !rc; i++)
        if (json_get(v, fields[i]))
            rc = FORBIDDEN(PATH_STR(at, fields[i]),
                           "may not be set for init containers without restartPolicy=Always");
    return rc;
}

static int check_host_ports(struct kind_check *c, const struct kind_path *at, const struct json *v)
{
    const struct json *ports = json_get(v, "ports");
    int rc = 0;
    for (size_t i = 0; i < check_count(ports) && !rc; i++) {
        const struct json *p = json_at(ports, i);
        if (json_path_int(p, "hostPort", 0) != json_path_int(p, "containerPort", 0))
            rc = INVALID(PATH_STR(PATH_IN(PATH_STR(at, "ports"), i), "containerPort"),
                         json_get(p, "containerPort"),
                         "must match `hostPort` when `hostNetwork` is true");
    }
    return rc;
}

static int check_containers(struct kind_check *c, const struct kind_path *at,
                            const struct json *spec, const char *list, struct name_set *names,
                            struct name_set *volumes)
{
    const struct json *containers = json_get(spec, list);
    const struct kind_path *here = PATH_STR(at, list);
    bool init = strcmp(list, "initContainers") == 0, plain = strcmp(list, "containers") == 0;
    bool host = json_path_bool(spec, "hostNetwork", false);
    int rc = check_unique(c, here, containers, "name", names);
    for (size_t i = 0; i < check_count(containers) && !rc; i++) {
        const struct json *v = json_at(containers, i);
        const struct kind_path *one = PATH_IN(here, i);
        rc = check_mounted(c, one, v, "volumeMounts", volumes);
        if (!rc) rc = check_mounted(c, one, v, "volumeDevices", volumes);
        if (!rc && init) rc = check_init_container(c, one, v);
        if (!rc && host) rc = check_host_ports(c, one, v);
        if (!rc && plain && json_get(v, "restartPolicy"))
            rc =
                FORBIDDEN(PATH_STR(one, "restartPolicy"), "may not be set for non-init containers");
    }
    return rc;
}

static int check_pod_spec(struct kind_check *c, const struct kind_path *at, const struct json *spec,
                          const struct json *old)
{
    static const char *const lists[] = {"containers", "initContainers", "ephemeralContainers"};
    struct name_set volumes = {0}, names = {0};
    (void)old;
    int rc = check_unique(c, PATH_STR(at, "volumes"), json_get(spec, "volumes"), "name", &volumes);
    for (size_t i = 0; i < 3 && !rc; i++)
        rc = check_containers(c, at, spec, lists[i], &names, &volumes);
    if (!rc && json_is_str(json_get(spec, "dnsPolicy"), "None") &&
        !check_count(json_path(spec, "dnsConfig.nameservers")))
        rc = REQUIRED(PATH_STR(PATH_STR(at, "dnsConfig"), "nameservers"),
                      "must provide at least one DNS nameserver when `dnsPolicy` is None");
    return rc;
}

static int check_toleration(struct kind_check *c, const struct kind_path *at, const struct json *v,
                            const struct json *old)
{
    const struct json *op = json_get(v, "operator"), *seconds = json_get(v, "tolerationSeconds");
    struct json empty = {.type = JSON_STRING};
    (void)old;
    if (!check_has(v, "key") && !json_is_str(op, "Exists"))
        return INVALID(
            PATH_STR(at, "operator"), op ? op : &empty,
            "operator must be Exists when `key` is empty, which means \"match all values "
            "and all keys\"");
    if (json_is_str(op, "Exists") && check_has(v, "value"))
        return INVALID(PATH_STR(at, "operator"), v,
                       "value must be empty when `operator` is 'Exists'");
    if (seconds && !json_is_str(json_get(v, "effect"), "NoExecute"))
        return INVALID(PATH_STR(at, "effect"),
                       json_get(v, "effect") ? json_get(v, "effect") : &empty,
                       "effect must be 'NoExecute' when `tolerationSeconds` is set");
    return 0;
}

static int check_mount(struct kind_check *c, const struct kind_path *at, const struct json *v,
                       const struct json *old)
{
    static const char *const paths[] = {"subPath", "subPathExpr"};
    int rc = 0;
    (void)old;
    for (size_t i = 0; i < 2 && !rc; i++)
        if (check_has(v, paths[i]))
            rc = kind_format_by_name(SLICE_LIT("local-path"))(c, PATH_STR(at, paths[i]),
                                                              json_get(v, paths[i]));
    if (!rc && check_has(v, "subPath") && check_has(v, "subPathExpr"))
        rc = INVALID(PATH_STR(at, "subPathExpr"), json_get(v, "subPathExpr"),
                     "subPathExpr and subPath are mutually exclusive");
    return rc;
}

/* ---- what may change --------------------------------------------------------------------------
 */

/* Equal but for the image of each container? */
static bool same_containers(const struct json *x, const struct json *y)
{
    if (check_count(x) != check_count(y)) return false;
    for (size_t i = 0; i < check_count(x); i++) {
        const struct json *a = json_at(x, i), *b = json_at(y, i);
        bool image_a = json_get(a, "image") != NULL, image_b = json_get(b, "image") != NULL;
        if (check_count(a) - image_a != check_count(b) - image_b) return false;
        for (size_t k = 0; k < check_members(a); k++) {
            const struct json_member *m = &a->members[k];
            if (!slice_eq_str(m->name, "image") &&
                !json_equal(m->value, json_get_slice(b, m->name)))
                return false;
        }
    }
    return true;
}

#define TOLERATION_SEARCH 1024 /* how far apart two equal tolerations may stand */

/* Is every toleration of `old` still there? Tolerations may be added. */
static bool keeps_tolerations(const struct json *now, const struct json *old)
{
    size_t from = 0;
    for (size_t i = 0; i < check_count(old); i++) {
        bool found = false;
        for (size_t k = 0; k < check_count(now) && k < TOLERATION_SEARCH && !found; k++) {
            size_t at = (from + k) % now->count;
            found = json_equal(json_at(now, at), json_at(old, i));
            if (found) from = at + 1;
        }
        if (!found) return false;
    }
    return true;
}

static bool may_differ(struct slice name, const struct json *now, const struct json *old)
{
    int64_t seconds, before;
    if (slice_eq_str(name, "containers") || slice_eq_str(name, "initContainers"))
        return same_containers(now, old);
    if (slice_eq_str(name, "tolerations")) return keeps_tolerations(now, old);
    if (slice_eq_str(name, "activeDeadlineSeconds")) return now != NULL;
    if (slice_eq_str(name, "schedulingGates")) return check_count(now) < check_count(old);
    if (slice_eq_str(name, "nodeName")) return !json_text(old).len; /* what a binding does */
    if (slice_eq_str(name, "terminationGracePeriodSeconds"))
        return json_to_int(now, &seconds) && json_to_int(old, &before) && seconds == 1 &&
               before < 0;
    return false;
}

static bool spec_may_become(const struct json *now, const struct json *old)
{
    for (size_t i = 0; i < check_members(now); i++) {
        const struct json_member *m = &now->members[i];
        const struct json *before = json_get_slice(old, m->name);
        if (!json_equal(m->value, before) && !may_differ(m->name, m->value, before)) return false;
    }
    for (size_t i = 0; i < check_members(old); i++) {
        const struct json_member *m = &old->members[i];
        if (!json_get_slice(now, m->name) && !may_differ(m->name, NULL, m->value)) return false;
    }
    return true;
}

static int check_pod(struct kind_check *c, const struct kind_path *at, const struct json *pod,
                     const struct json *old)
{
    if (!old || spec_may_become(json_get(pod, "spec"), json_get(old, "spec"))) return 0;
    return FORBIDDEN(
        PATH_STR(at, "spec"),
        "pod updates may not change fields other than "
        "`spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if "
        "it was previously negative)");
}

kind_check_fn kind_pod_check_by_name(struct slice name)
{
    static const struct check_entry checks[] = {
        {"pod", check_pod},
        {"pod-spec", check_pod_spec},
        {"container", check_container},
        {"volume", check_volume},
        {"handler", check_handler},
        {"env", check_env},
        {"resources", check_resources},
        {"toleration", check_toleration},
        {"mount", check_mount},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        if (slice_eq_str(name, checks[i].name)) return checks[i].fn;
    return NULL;
}
