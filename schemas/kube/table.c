/* Tables: the columns of a kind and the cells of an object, as `kubectl get` prints them. The cells
 * that are more than a value at a path are functions here, those of Pods in cells_pod.c. */
#include "schemas/kube/table.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- ages -------------------------------------------------------------------------------------
 */

const char *cell_duration(struct arena *a, int64_t s)
{
    long long m = s / 60, h = s / 3600, d = h / 24, y = d / 365;
    if (s < -1) return "<invalid>";
    if (s < 0) return "0s";
    if (s < 120) return arena_printf(a, "%llds", (long long)s);
    if (m < 10)
        return s % 60 ? arena_printf(a, "%lldm%llds", m, (long long)s % 60)
                      : arena_printf(a, "%lldm", m);
    if (m < 180) return arena_printf(a, "%lldm", m);
    if (h < 8)
        return m % 60 ? arena_printf(a, "%lldh%lldm", h, m % 60) : arena_printf(a, "%lldh", h);
    if (h < 48) return arena_printf(a, "%lldh", h);
    if (d < 8)
        return h % 24 ? arena_printf(a, "%lldd%lldh", d, h % 24) : arena_printf(a, "%lldd", d);
    if (y < 2) return arena_printf(a, "%lldd", d);
    if (y < 8)
        return d % 365 ? arena_printf(a, "%lldy%lldd", y, d % 365) : arena_printf(a, "%lldy", y);
    return arena_printf(a, "%lldy", y);
}

const char *cell_since(struct arena *a, const struct json *time, int64_t now_s)
{
    int64_t then;
    if (!time_parse(json_text(time), &then, NULL)) return "<unknown>";
    return cell_duration(a, now_s - then);
}

struct json *cell_text(struct arena *a, const char *text)
{
    return text ? json_str(a, text) : NULL;
}

struct json *cell_buf(struct arena *a, struct buf *b, const char *empty)
{
    struct json *v = NULL;
    if (!b->failed) v = b->len ? json_string_copy(a, buf_slice(b)) : json_str(a, empty);
    buf_release(b);
    return v;
}

static void add_part(struct buf *b, struct slice text, const char *separator)
{
    if (b->len) buf_append_str(b, separator);
    buf_append_slice(b, text);
}

/* ---- plain cells ------------------------------------------------------------------------------
 */

static struct json *value_or(struct arena *a, const struct json *v, const char *otherwise)
{
    if (!v || v->type == JSON_NULL || (v->type == JSON_STRING && v->text.len == 0))
        return json_str(a, otherwise);
    return json_clone(a, v);
}

static struct json *cell_age(struct arena *a, const struct json *o, int64_t now_s,
                             const char *const *args)
{
    return cell_text(a, cell_since(a, json_path(o, args[0]), now_s));
}

static struct json *cell_or_none(struct arena *a, const struct json *o, int64_t now_s,
                                 const char *const *args)
{
    (void)now_s;
    return value_or(a, json_path(o, args[0]), "<none>");
}

static struct json *cell_or_unknown(struct arena *a, const struct json *o, int64_t now_s,
                                    const char *const *args)
{
    (void)now_s;
    return value_or(a, json_path(o, args[0]), "<unknown>");
}

static struct json *cell_number(struct arena *a, const struct json *o, int64_t now_s,
                                const char *const *args)
{
    (void)now_s;
    return json_int(a, json_path_int(o, args[0], 0));
}

/* How many entries the lists and maps at these paths have together. */
static struct json *cell_entries(struct arena *a, const struct json *o, int64_t now_s,
                                 const char *const *args)
{
    size_t n = 0;
    (void)now_s;
    for (; *args; args++) n += cell_count(json_path(o, *args));
    return json_int(a, (int64_t)n);
}

static struct json *cell_ready_of(struct arena *a, const struct json *o, int64_t now_s,
                                  const char *const *args)
{
    (void)now_s;
    return cell_text(a, arena_printf(a, "%lld/%lld", (long long)json_path_int(o, args[0], 0),
                                     (long long)json_path_int(o, args[1], 0)));
}

static struct json *cell_trimmed(struct arena *a, const struct json *o, int64_t now_s,
                                 const char *const *args)
{
    struct slice s = json_path_text(o, args[0]);
    (void)now_s;
    while (s.len && s.data[0] <= ' ') s = slice_sub(s, 1, s.len);
    while (s.len && s.data[s.len - 1] <= ' ') s.len--;
    return json_string(a, s);
}

/* ---- selectors and templates ------------------------------------------------------------------
 */

static int by_name(const void *x, const void *y)
{
    return slice_cmp(((const struct json_member *)x)->name, ((const struct json_member *)y)->name);
}

/* "a=1,b=2" in the order of names. ERR_NOMEM through b->failed. */
static void write_labels(struct arena *a, struct buf *b, const struct json *labels)
{
    size_t n = cell_members(labels);
    if (!n) return;
    struct json_member *sorted = arena_alloc(a, n * sizeof(*sorted));
    if (!sorted) {
        b->failed = ERR_NOMEM;
        return;
    }
    memcpy(sorted, labels->members, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_name);
    for (size_t i = 0; i < n; i++) {
        add_part(b, sorted[i].name, ",");
        buf_append_byte(b, '=');
        buf_append_slice(b, json_text(sorted[i].value));
    }
}

static struct json *cell_labels(struct arena *a, const struct json *o, int64_t now_s,
                                const char *const *args)
{
    struct buf b = {0};
    (void)now_s;
    write_labels(a, &b, json_path(o, args[0]));
    return cell_buf(a, &b, "<none>");
}

static void write_requirement(struct buf *b, const struct json *r)
{
    const struct json *op = json_get(r, "operator"), *values = json_get(r, "values");
    struct slice key = json_text(json_get(r, "key"));
    if (json_is_str(op, "DoesNotExist")) {
        add_part(b, SLICE_LIT("!"), ",");
        buf_append_slice(b, key);
        return;
    }
    add_part(b, key, ",");
    if (json_is_str(op, "Exists")) return;
    buf_append_str(b, json_is_str(op, "NotIn") ? " notin (" : " in (");
    for (size_t i = 0; i < cell_count(values); i++) {
        if (i) buf_append_byte(b, ',');
        buf_append_slice(b, json_text(json_at(values, i)));
    }
    buf_append_byte(b, ')');
}

static struct json *cell_selector(struct arena *a, const struct json *o, int64_t now_s,
                                  const char *const *args)
{
    const struct json *selector = json_path(o, args[0]);
    const struct json *expressions = json_get(selector, "matchExpressions");
    struct buf b = {0};
    (void)now_s;
    write_labels(a, &b, json_get(selector, "matchLabels"));
    for (size_t i = 0; i < cell_count(expressions); i++)
        write_requirement(&b, json_at(expressions, i));
    return cell_buf(a, &b, "<none>");
}

/* One member of each container of the template. */
static struct json *cell_containers(struct arena *a, const struct json *o, int64_t now_s,
                                    const char *const *args)
{
    const struct json *list = json_path(o, "spec.template.spec.containers");
    struct buf b = {0};
    (void)now_s;
    for (size_t i = 0; i < cell_count(list); i++)
        add_part(&b, json_text(json_get(json_at(list, i), args[0])), ",");
    return cell_buf(a, &b, "");
}

/* ---- nodes ------------------------------------------------------------------------------------
 */

static struct json *cell_node_status(struct arena *a, const struct json *o, int64_t now_s,
                                     const char *const *args)
{
    const struct json *conditions = json_path(o, "status.conditions");
    const char *status = "Unknown";
    (void)now_s, (void)args;
    for (size_t i = 0; i < cell_count(conditions); i++) {
        const struct json *c = json_at(conditions, i);
        if (json_is_str(json_get(c, "type"), "Ready"))
            status = json_is_str(json_get(c, "status"), "True") ? "Ready" : "NotReady";
    }
    bool cordoned = json_path_bool(o, "spec.unschedulable", false);
    return cell_text(a, arena_printf(a, "%s%s", status, cordoned ? ",SchedulingDisabled" : ""));
}

static struct json *cell_node_roles(struct arena *a, const struct json *o, int64_t now_s,
                                    const char *const *args)
{
    const struct slice prefix = SLICE_LIT("node-role.kubernetes.io/");
    const struct json *labels = json_path(o, "metadata.labels");
    struct json_member *roles = arena_alloc(a, (cell_members(labels) + 1) * sizeof(*roles));
    struct buf b = {0};
    size_t n = 0;
    (void)now_s, (void)args;
    if (!roles) return NULL;
    for (size_t i = 0; i < cell_members(labels); i++) {
        struct slice name = labels->members[i].name;
        struct slice role = slice_eq_str(name, "kubernetes.io/role")
                                ? json_text(labels->members[i].value)
                            : slice_has_prefix(name, prefix) ? slice_sub(name, prefix.len, name.len)
                                                             : (struct slice){0};
        if (role.len) roles[n++].name = role;
    }
    qsort(roles, n, sizeof(*roles), by_name);
    for (size_t i = 0; i < n; i++) add_part(&b, roles[i].name, ",");
    return cell_buf(a, &b, "<none>");
}

static struct json *cell_node_address(struct arena *a, const struct json *o, int64_t now_s,
                                      const char *const *args)
{
    const struct json *list = json_path(o, "status.addresses");
    (void)now_s;
    for (size_t i = 0; i < cell_count(list); i++)
        if (json_is_str(json_get(json_at(list, i), "type"), args[0]))
            return json_string(a, json_text(json_get(json_at(list, i), "address")));
    return json_str(a, "<none>");
}

/* ---- services ---------------------------------------------------------------------------------
 */

static struct json *cell_service_external_ip(struct arena *a, const struct json *o, int64_t now_s,
                                             const char *const *args)
{
    const struct json *ips = json_path(o, "spec.externalIPs"), *type = json_path(o, "spec.type");
    const struct json *ingress = json_path(o, "status.loadBalancer.ingress");
    struct buf b = {0};
    (void)now_s, (void)args;
    if (json_is_str(type, "ExternalName"))
        return value_or(a, json_path(o, "spec.externalName"), "<none>");
    bool balancer = json_is_str(type, "LoadBalancer");
    for (size_t i = 0; balancer && i < cell_count(ingress); i++) {
        struct slice ip = json_text(json_get(json_at(ingress, i), "ip"));
        add_part(&b, ip.len ? ip : json_text(json_get(json_at(ingress, i), "hostname")), ",");
    }
    for (size_t i = 0; i < cell_count(ips); i++) add_part(&b, json_text(json_at(ips, i)), ",");
    return cell_buf(a, &b, balancer ? "<pending>" : "<none>");
}

static struct json *cell_service_ports(struct arena *a, const struct json *o, int64_t now_s,
                                       const char *const *args)
{
    const struct json *ports = json_path(o, "spec.ports");
    struct buf b = {0};
    (void)now_s, (void)args;
    for (size_t i = 0; i < cell_count(ports); i++) {
        const struct json *p = json_at(ports, i);
        long long node = json_path_int(p, "nodePort", 0);
        struct slice protocol = json_text(json_get(p, "protocol"));
        buf_printf(&b, "%s%lld", i ? "," : "", (long long)json_path_int(p, "port", 0));
        if (node > 0) buf_printf(&b, ":%lld", node);
        buf_append_byte(&b, '/');
        buf_append_slice(&b, protocol);
    }
    return cell_buf(a, &b, "<none>");
}

#define ENDPOINTS_SHOWN 3

static void add_endpoint(struct buf *b, struct slice ip, const struct json *port, size_t *n)
{
    bool v6 = slice_index(ip, ':') >= 0 && port;
    if ((*n)++ >= ENDPOINTS_SHOWN) return;
    add_part(b, v6 ? SLICE_LIT("[") : SLICE_LIT(""), ",");
    buf_append_slice(b, ip);
    if (v6) buf_append_byte(b, ']');
    if (port) buf_printf(b, ":%lld", (long long)json_path_int(port, "port", 0));
}

static struct json *cell_endpoints(struct arena *a, const struct json *o, int64_t now_s,
                                   const char *const *args)
{
    const struct json *subsets = json_get(o, "subsets");
    struct buf b = {0};
    size_t n = 0;
    (void)now_s, (void)args;
    for (size_t s = 0; s < cell_count(subsets); s++) {
        const struct json *addresses = json_get(json_at(subsets, s), "addresses");
        const struct json *ports = json_get(json_at(subsets, s), "ports");
        size_t n_ports = cell_count(ports);
        for (size_t p = 0; p < (n_ports ? n_ports : 1); p++)
            for (size_t i = 0; i < cell_count(addresses); i++)
                add_endpoint(&b, json_text(json_get(json_at(addresses, i), "ip")),
                             json_at(ports, p), &n);
    }
    if (n > ENDPOINTS_SHOWN) buf_printf(&b, " + %zu more...", n - ENDPOINTS_SHOWN);
    return cell_buf(a, &b, "<none>");
}

/* What an EndpointSlice shows of a list: a few, and how many more. */
static struct json *cell_some(struct arena *a, struct buf *b, size_t n)
{
    if (n > ENDPOINTS_SHOWN) buf_printf(b, " + %zu more...", n - ENDPOINTS_SHOWN);
    return cell_buf(a, b, "<unset>");
}

static struct json *cell_slice_ports(struct arena *a, const struct json *o, int64_t now_s,
                                     const char *const *args)
{
    const struct json *ports = json_get(o, "ports");
    struct buf b = {0};
    (void)now_s, (void)args;
    for (size_t i = 0; i < cell_count(ports) && i < ENDPOINTS_SHOWN; i++) {
        const struct json *port = json_get(json_at(ports, i), "port"),
                          *name = json_get(json_at(ports, i), "name");
        bool number = port && port->type == JSON_NUMBER;
        struct slice text = number ? port->text : name ? json_text(name) : SLICE_LIT("*");
        if (i) buf_append_byte(&b, ',');
        buf_append_slice(&b, text);
    }
    return cell_some(a, &b, cell_count(ports));
}

static struct json *cell_slice_endpoints(struct arena *a, const struct json *o, int64_t now_s,
                                         const char *const *args)
{
    const struct json *endpoints = json_get(o, "endpoints");
    struct buf b = {0};
    size_t n = 0;
    (void)now_s, (void)args;
    for (size_t i = 0; i < cell_count(endpoints); i++) {
        const struct json *addresses = json_get(json_at(endpoints, i), "addresses");
        for (size_t j = 0; j < cell_count(addresses); j++)
            if (n++ < ENDPOINTS_SHOWN) add_part(&b, json_text(json_at(addresses, j)), ",");
    }
    return cell_some(a, &b, n);
}

/* ---- events -----------------------------------------------------------------------------------
 */

static const char *first_seen(struct arena *a, const struct json *o, int64_t now_s)
{
    const struct json *first = json_get(o, "firstTimestamp");
    return cell_since(a, first ? first : json_get(o, "eventTime"), now_s);
}

static struct json *cell_event_first_seen(struct arena *a, const struct json *o, int64_t now_s,
                                          const char *const *args)
{
    (void)args;
    return cell_text(a, first_seen(a, o, now_s));
}

static struct json *cell_event_last_seen(struct arena *a, const struct json *o, int64_t now_s,
                                         const char *const *args)
{
    const struct json *last = json_get(o, "lastTimestamp"), *series = json_get(o, "series");
    (void)args;
    if (series) last = json_get(series, "lastObservedTime");
    return cell_text(a, last || series ? cell_since(a, last, now_s) : first_seen(a, o, now_s));
}

static struct json *cell_event_count(struct arena *a, const struct json *o, int64_t now_s,
                                     const char *const *args)
{
    const struct json *series = json_get(o, "series");
    (void)now_s, (void)args;
    int64_t n = series ? json_path_int(series, "count", 0) : json_path_int(o, "count", 0);
    return json_int(a, series || n ? n : 1);
}

static struct json *cell_event_object(struct arena *a, const struct json *o, int64_t now_s,
                                      const char *const *args)
{
    struct slice kind = json_path_text(o, "involvedObject.kind");
    struct slice name = json_path_text(o, "involvedObject.name");
    (void)now_s, (void)args;
    char *text = (char *)(uintptr_t)arena_printf(a, "%.*s%s%.*s", (int)kind.len,
                                                 (const char *)kind.data, name.len ? "/" : "",
                                                 (int)name.len, (const char *)name.data);
    for (size_t i = 0; text && i < kind.len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z') text[i] = (char)(text[i] + 32);
    return cell_text(a, text);
}

static struct json *cell_event_source(struct arena *a, const struct json *o, int64_t now_s,
                                      const char *const *args)
{
    struct slice component = json_path_text(o, "source.component"),
                 host = json_path_text(o, "source.host");
    struct buf b = {0};
    (void)now_s, (void)args;
    buf_append_slice(&b, component.len ? component : json_path_text(o, "reportingComponent"));
    if (!host.len) host = json_path_text(o, "reportingInstance");
    if (host.len) {
        buf_append_str(&b, ", ");
        buf_append_slice(&b, host);
    }
    return cell_buf(a, &b, "");
}

kind_cell_fn kind_cell_by_name(struct slice name)
{
    static const struct cell_entry cells[] = {
        {"age", cell_age},
        {"or-none", cell_or_none},
        {"or-unknown", cell_or_unknown},
        {"number", cell_number},
        {"count", cell_entries},
        {"ready-of", cell_ready_of},
        {"trimmed", cell_trimmed},
        {"labels", cell_labels},
        {"selector", cell_selector},
        {"containers", cell_containers},
        {"node-status", cell_node_status},
        {"node-roles", cell_node_roles},
        {"node-address", cell_node_address},
        {"service-external-ip", cell_service_external_ip},
        {"service-ports", cell_service_ports},
        {"endpoints", cell_endpoints},
        {"slice-ports", cell_slice_ports},
        {"slice-endpoints", cell_slice_endpoints},
        {"event-first-seen", cell_event_first_seen},
        {"event-last-seen", cell_event_last_seen},
        {"event-count", cell_event_count},
        {"event-object", cell_event_object},
        {"event-source", cell_event_source},
    };
    for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++)
        if (slice_eq_str(name, cells[i].name)) return cells[i].fn;
    return kind_pod_cell_by_name(name);
}

/* ---- tables -----------------------------------------------------------------------------------
 */

int kind_table_columns(struct arena *a, const struct kind *k, struct json **ret)
{
    const struct kind_entry *e = kind_entry_of(k);
    struct json *list = json_array(a);
    int rc = list ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < e->n_columns && !rc; i++) {
        const struct kind_column *c = &e->columns[i];
        struct json *column = json_object(a);
        rc = column ? json_push(a, list, column) : ERR_NOMEM;
        if (!rc) rc = json_set_str(a, column, "name", json_str(a, c->name));
        if (!rc) rc = json_set_str(a, column, "type", json_str(a, c->type));
        if (!rc) rc = json_set_str(a, column, "format", json_str(a, c->format));
        if (!rc) rc = json_set_str(a, column, "description", json_str(a, ""));
        if (!rc) rc = json_set_str(a, column, "priority", json_int(a, c->wide ? 1 : 0));
    }
    if (!rc) *ret = list;
    return rc;
}

static struct json *plain_cell(struct arena *a, const struct json *object, const char *path)
{
    struct json *v = json_path(object, path);
    return v && v->type < JSON_ARRAY ? v : json_str(a, "");
}

int kind_table_cells(struct arena *a, const struct kind *k, const struct json *object,
                     int64_t now_s, struct json **ret)
{
    static const char *const no_args[] = {NULL, NULL, NULL};
    const struct kind_entry *e = kind_entry_of(k);
    struct json *cells = json_array(a);
    int rc = cells ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < e->n_columns && !rc; i++) {
        const struct kind_column *c = &e->columns[i];
        rc = json_push(a, cells,
                       c->path ? plain_cell(a, object, c->path)
                               : c->cell(a, object, now_s, c->args ? c->args : no_args));
    }
    if (!rc) *ret = cells;
    return rc;
}
