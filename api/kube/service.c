/* Addresses of Services. An allocation is a key of its own,
 *
 *   /registry/ranges/serviceips/10.96.0.10          -> the service's key
 *   /registry/ranges/servicenodeports/30080
 *
 * written by the same txn as the service, on the condition that it is free, and deleted with it: two services can never hold one
 * address, on whichever members they were created at the same moment. Addresses are drawn at random and drawn again when taken. */
#include <stdio.h>

#include "api/kube/kube_int.h"

#define SERVICE_NET 0x0a600000u /* 10.96.0.0/12 */
#define SERVICE_NET_BITS 12u
#define SERVICE_STATIC 256u     /* the low part is left for addresses that are asked for */
#define NODE_PORT_FIRST 30000
#define NODE_PORT_LAST 32767
#define NODE_PORTS (NODE_PORT_LAST - NODE_PORT_FIRST + 1)

static const char *ip_key(struct kube_request *q, struct slice ip)
{
    return arena_printf(&q->arena, KUBE_REGISTRY "ranges/serviceips/%.*s", (int)ip.len, (const char *)ip.data);
}

static const char *port_key(struct kube_request *q, int64_t port)
{
    return arena_printf(&q->arena, KUBE_REGISTRY "ranges/servicenodeports/%lld", (long long)port);
}

static int invalid(struct kube_request *q, const struct json *service, const char *field, const char *bad, const char *text)
{
    struct kind_problems problems;
    kind_problems_init(&problems, &q->arena);
    if (kind_problem_add(&problems, PROBLEM_INVALID, field, bad, "%s", text)) return status_nomem(&q->status);
    return status_invalid(&q->status, q->route.kind, json_path_text(service, "metadata.name"), &problems);
}

/* ---- cluster IPs ------------------------------------------------------------------------------ */

static bool parse_ip(struct slice text, uint32_t *ret)
{
    uint32_t v = 0, part = 0;
    unsigned parts = 0, digits = 0;
    for (size_t i = 0; i <= text.len; i++) {
        uint8_t c = i < text.len ? text.data[i] : '.';
        if (c == '.') {
            if (!digits || part > 255 || ++parts > 4) return false;
            v = v << 8 | part;
            part = digits = 0;
        } else if (c >= '0' && c <= '9' && digits < 3) {
            if (digits == 1 && part == 0) return false; /* a leading zero */
            part = part * 10 + (uint32_t)(c - '0');
            digits++;
        } else {
            return false;
        }
    }
    *ret = v;
    return parts == 4;
}

static bool is_headless(struct slice ip)
{
    return slice_eq_str(ip, "None");
}

static int draw_ip(struct kube_request *q, struct slice *ret)
{
    uint32_t span = (1u << (32 - SERVICE_NET_BITS)) - SERVICE_STATIC - 1;
    uint32_t v = SERVICE_NET + SERVICE_STATIC + (uint32_t)(kube_random(q->api) % span);
    const char *text = arena_printf(&q->arena, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
    if (!text) return status_nomem(&q->status);
    *ret = slice_str(text);
    return 0;
}

static int take_given_ip(struct kube_request *q, const struct json *service, struct slice ip)
{
    uint32_t v;
    const char *bad = arena_printf(&q->arena, "[\"%.*s\"]", (int)ip.len, (const char *)ip.data);
    uint32_t mask = ~0u << (32 - SERVICE_NET_BITS);
    if (!parse_ip(ip, &v)) {
        return invalid(q, service, "spec.clusterIPs[0]", bad, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    const char *text = NULL;
    if ((v & mask) != SERVICE_NET || v == SERVICE_NET || v == (SERVICE_NET | ~mask)) {
        text = arena_printf(&q->arena, "failed to allocate IP %.*s: the provided IP is not in the valid range. The range of "
                            "valid IPs is 10.96.0.0/12", (int)ip.len, (const char *)ip.data);
    } else if (mutate_claim_was_taken(q, ip_key(q, ip))) {
        text = arena_printf(&q->arena, "failed to allocate IP %.*s: provided IP is already allocated", (int)ip.len,
                            (const char *)ip.data);
    } else {
        return mutate_claim(q, ip_key(q, ip));
    }
    return text ? invalid(q, service, "spec.clusterIPs", bad, text) : status_nomem(&q->status);
}

static int set_ip(struct kube_request *q, struct json *spec, struct slice ip)
{
    struct arena *a = &q->arena;
    struct json *list = json_array(a);
    if (!list || json_push(a, list, json_string(a, ip)) ||
        json_set_str(a, spec, "clusterIP", json_string(a, ip)) || json_set_str(a, spec, "clusterIPs", list)) {
        return status_nomem(&q->status);
    }
    return 0;
}

static int set_families(struct kube_request *q, struct json *spec)
{
    struct arena *a = &q->arena;
    if (!json_get(spec, "ipFamilies")) {
        struct json *list = json_array(a);
        if (!list || json_push(a, list, json_str(a, "IPv4")) || json_set_str(a, spec, "ipFamilies", list)) {
            return status_nomem(&q->status);
        }
    }
    if (!json_get(spec, "ipFamilyPolicy") &&
        json_set_str(a, spec, "ipFamilyPolicy", json_str(a, "SingleStack"))) {
        return status_nomem(&q->status);
    }
    return 0;
}

static struct slice given_ip(const struct json *spec)
{
    struct slice ip = json_text(json_get(spec, "clusterIP"));
    return ip.len ? ip : json_text(json_at(json_get(spec, "clusterIPs"), 0));
}

static bool is_external_name(const struct json *spec)
{
    return json_is_str(json_get(spec, "type"), "ExternalName");
}

static int allocate_ip(struct kube_request *q, const struct json *service, struct json *spec, const struct json *old_spec)
{
    struct slice ip = given_ip(spec);
    struct slice had = old_spec && !is_external_name(old_spec) ? given_ip(old_spec) : (struct slice){0};
    bool owned = had.len && !is_headless(had);
    if (is_external_name(spec)) {
        json_remove(spec, SLICE_LIT("clusterIP"));
        json_remove(spec, SLICE_LIT("clusterIPs"));
        json_remove(spec, SLICE_LIT("ipFamilies"));
        json_remove(spec, SLICE_LIT("ipFamilyPolicy"));
        return owned ? mutate_unclaim(q, ip_key(q, had)) : 0;
    }
    int code = set_families(q, spec);
    if (code) return code;
    if (had.len) {
        if (ip.len && !slice_eq(ip, had)) {
            const char *bad = arena_printf(&q->arena, "[\"%.*s\"]", (int)ip.len, (const char *)ip.data);
            return invalid(q, service, "spec.clusterIPs[0]", bad, "may not change once set");
        }
        return set_ip(q, spec, had);
    }
    if (is_headless(ip)) return set_ip(q, spec, ip);
    if (ip.len) {
        code = take_given_ip(q, service, ip);
    } else {
        code = draw_ip(q, &ip);
        if (!code) code = mutate_claim(q, ip_key(q, ip));
    }
    return code ? code : set_ip(q, spec, ip);
}

/* ---- node ports ------------------------------------------------------------------------------- */

/* Types whose node ports are theirs: drawn for them, or given by the client. */
static bool has_node_ports(const struct json *spec)
{
    return json_is_str(json_get(spec, "type"), "NodePort") || json_is_str(json_get(spec, "type"), "LoadBalancer");
}

static bool draws_node_ports(const struct json *spec)
{
    return !json_is_str(json_get(spec, "type"), "LoadBalancer") || json_path_bool(spec, "allocateLoadBalancerNodePorts", true);
}

static int64_t port_number(const struct json *port)
{
    int64_t v = 0;
    return json_to_int(json_get(port, "nodePort"), &v) ? v : 0;
}

static bool has_port(const struct json *ports, size_t upto, int64_t number)
{
    for (size_t i = 0; ports && i < ports->count && i < upto; i++) {
        if (port_number(json_at(ports, i)) == number) return true;
    }
    return false;
}

static void mark_ports(const struct json *ports, bool used[NODE_PORTS])
{
    for (size_t i = 0; ports && i < ports->count; i++) {
        int64_t number = port_number(json_at(ports, i));
        if (number >= NODE_PORT_FIRST && number <= NODE_PORT_LAST) used[number - NODE_PORT_FIRST] = true;
    }
}

/* One that the service names nowhere; 0 if it names them all. */
static int64_t draw_port(struct kube_request *q, const struct json *ports, const struct json *old_ports)
{
    bool used[NODE_PORTS] = {0};
    size_t start = (size_t)(kube_random(q->api) % NODE_PORTS);
    mark_ports(ports, used);
    mark_ports(old_ports, used);
    for (size_t i = 0; i < NODE_PORTS; i++) {
        size_t at = (start + i) % NODE_PORTS;
        if (!used[at]) return NODE_PORT_FIRST + (int64_t)at;
    }
    return 0;
}

/* The port that this one, by name or number, had before: an update that leaves nodePort out keeps it. */
static int64_t former_port(const struct json *old_ports, const struct json *port)
{
    for (size_t i = 0; old_ports && i < old_ports->count; i++) {
        const struct json *o = json_at(old_ports, i);
        int64_t a = 0, b = 0;
        bool numbers = json_to_int(json_get(o, "port"), &a) && json_to_int(json_get(port, "port"), &b);
        if (numbers && a == b && slice_eq(json_text(json_get(o, "protocol")), json_text(json_get(port, "protocol")))) {
            return port_number(o);
        }
    }
    return 0;
}

static int allocate_port(struct kube_request *q, const struct json *service, struct json *ports, size_t i,
                         const struct json *old_ports)
{
    struct json *port = json_at(ports, i);
    int64_t number = port_number(port);
    bool given = number != 0;
    if (!given && !draws_node_ports(json_get(service, "spec"))) return 0;
    if (!given) {
        number = former_port(old_ports, port);
        if (!number || has_port(ports, SIZE_MAX, number)) number = draw_port(q, ports, old_ports);
        if (!number) return status_internal(&q->status, "no node port is left for port %zu of the service", i);
        if (json_set_str(&q->arena, port, "nodePort", json_int(&q->arena, number))) return status_nomem(&q->status);
    }
    if (has_port(old_ports, SIZE_MAX, number) || has_port(ports, i, number)) return 0; /* ours, or shared by two protocols */
    const char *field = arena_printf(&q->arena, "spec.ports[%zu].nodePort", i);
    const char *bad = arena_printf(&q->arena, "%lld", (long long)number);
    if (number < NODE_PORT_FIRST || number > NODE_PORT_LAST) {
        return invalid(q, service, field, bad, "provided port is not in the valid range. The range of valid ports is 30000-32767");
    }
    const char *key = port_key(q, number);
    if (given && key && mutate_claim_was_taken(q, key)) return invalid(q, service, field, bad, "provided port is already allocated");
    return mutate_claim(q, key);
}

static int allocate_ports(struct kube_request *q, const struct json *service, struct json *spec, const struct json *old_spec)
{
    struct json *ports = json_get(spec, "ports");
    const struct json *old_ports = old_spec && has_node_ports(old_spec) ? json_get(old_spec, "ports") : NULL;
    bool wants = has_node_ports(spec);
    int code = 0;
    for (size_t i = 0; wants && !code && ports && i < ports->count; i++) {
        code = allocate_port(q, service, ports, i, old_ports);
    }
    for (size_t i = 0; !wants && ports && i < ports->count; i++) {
        json_remove(json_at(ports, i), SLICE_LIT("nodePort"));
    }
    for (size_t i = 0; !code && old_ports && i < old_ports->count; i++) {
        int64_t number = port_number(json_at(old_ports, i));
        bool kept = wants && has_port(ports, SIZE_MAX, number);
        if (number && !kept && !has_port(old_ports, i, number)) code = mutate_unclaim(q, port_key(q, number));
    }
    return code;
}

/* ---- the service ------------------------------------------------------------------------------ */

int service_allocate(struct kube_request *q, struct json *service, const struct json *old)
{
    struct json *spec = json_get(service, "spec");
    if (!spec || spec->type != JSON_OBJECT) return 0; /* validation says so */
    const struct json *old_spec = old ? json_get(old, "spec") : NULL;
    int code = allocate_ip(q, service, spec, old_spec);
    return code ? code : allocate_ports(q, service, spec, old_spec);
}

int service_release(struct kube_request *q, const struct json *service)
{
    const struct json *spec = json_get(service, "spec");
    const struct json *ports = has_node_ports(spec) ? json_get(spec, "ports") : NULL;
    struct slice ip = given_ip(spec);
    int code = 0;
    if (ip.len && !is_headless(ip) && !is_external_name(spec)) code = mutate_unclaim(q, ip_key(q, ip));
    for (size_t i = 0; !code && ports && i < ports->count; i++) {
        int64_t number = port_number(json_at(ports, i));
        if (number && !has_port(ports, i, number)) code = mutate_unclaim(q, port_key(q, number));
    }
    return code;
}
