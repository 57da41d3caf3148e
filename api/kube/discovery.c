/* What the server has: API versions, groups, resources, OpenAPI, its version. The documents are made once in a process, when
 * somebody first asks, and shared by all workers. */
#include <stdatomic.h>
#include <stdio.h>

#include "api/kube/kube_int.h"

#define MAX_GROUP_VERSIONS 32
#define DOCUMENT_BYTES (64 * LIMIT_MiB)

enum document {
    DOC_GROUPS,
    DOC_AGGREGATED_CORE,
    DOC_AGGREGATED_APIS,
    DOC_AGGREGATED_CORE_BETA,
    DOC_AGGREGATED_APIS_BETA,
    DOC_OPENAPI_V2,
    DOC_OPENAPI_V2_PROTOBUF,
    DOC_OPENAPI_V3,
    DOC_RESOURCES,                                      /* one for each group version */
    DOC_OPENAPI_V3_GROUP = DOC_RESOURCES + MAX_GROUP_VERSIONS,
    DOC_COUNT = DOC_OPENAPI_V3_GROUP + MAX_GROUP_VERSIONS
};

static _Atomic(struct blob *) documents[DOC_COUNT];

/* The `n`th distinct group version in order of the kinds, as group and version of one of its kinds; NULL at the end. */
static const struct kind *group_version(size_t n)
{
    size_t seen = 0;
    for (size_t i = 0; i < kinds_count(); i++) {
        const struct kind *k = kinds_at(i);
        bool first = true;
        for (size_t j = 0; j < i && first; j++) {
            const struct kind *o = kinds_at(j);
            first = strcmp(o->group, k->group) != 0 || strcmp(o->version, k->version) != 0;
        }
        if (first && seen++ == n) return k;
    }
    return NULL;
}

static int group_version_index(const struct route *r)
{
    for (int i = 0; i < MAX_GROUP_VERSIONS; i++) {
        const struct kind *k = group_version((size_t)i);
        if (!k) return -1;
        if (slice_eq_str(r->group, k->group) && slice_eq_str(r->version, k->version)) return i;
    }
    return -1;
}

/* The beta form differs by its version alone. */
static int aggregated_beta(struct buf *out, bool core)
{
    static const char from[] = "apidiscovery.k8s.io/v2\"", to[] = "apidiscovery.k8s.io/v2beta1\"";
    struct buf b;
    buf_init(&b, DOCUMENT_BYTES);
    int code = kinds_discovery_aggregated(&b, core);
    if (!code) {
        const uint8_t *at = memmem(b.data, b.len, from, sizeof(from) - 1);
        size_t before = at ? (size_t)(at - b.data) : b.len;
        buf_append(out, b.data, before);
        if (at) {
            buf_append(out, to, sizeof(to) - 1);
            buf_append(out, at + sizeof(from) - 1, b.len - before - (sizeof(from) - 1));
        }
        code = out->failed;
    }
    buf_release(&b);
    return code;
}

static int make(enum document d, struct buf *out)
{
    switch (d) {
    case DOC_GROUPS: return kinds_discovery_groups(out);
    case DOC_AGGREGATED_CORE: return kinds_discovery_aggregated(out, true);
    case DOC_AGGREGATED_APIS: return kinds_discovery_aggregated(out, false);
    case DOC_AGGREGATED_CORE_BETA: return aggregated_beta(out, true);
    case DOC_AGGREGATED_APIS_BETA: return aggregated_beta(out, false);
    case DOC_OPENAPI_V2: return kinds_openapi_v2_json(out);
    case DOC_OPENAPI_V2_PROTOBUF: return kinds_openapi_v2_protobuf(out);
    case DOC_OPENAPI_V3: return kinds_openapi_v3_index(out);
    default: break;
    }
    bool openapi = d >= DOC_OPENAPI_V3_GROUP;
    const struct kind *k = group_version((size_t)(d - (openapi ? DOC_OPENAPI_V3_GROUP : DOC_RESOURCES)));
    if (!k) return ERR_NOT_FOUND;
    return openapi ? kinds_openapi_v3(out, k->group, k->version) : kinds_discovery_resources(out, k->group, k->version);
}

/* Borrowed for good. */
static int get_document(enum document d, struct blob **ret)
{
    struct blob *have = atomic_load_explicit(&documents[d], memory_order_acquire), *none = NULL;
    if (!have) {
        struct buf b;
        buf_init(&b, DOCUMENT_BYTES);
        int code = make(d, &b);
        if (!code) code = b.failed;
        have = code ? NULL : blob_copy(buf_slice(&b));
        buf_release(&b);
        if (!have) return code ? code : ERR_NOMEM;
        if (!atomic_compare_exchange_strong(&documents[d], &none, have)) {
            blob_unref(have);
            have = none; /* another worker was faster */
        }
    }
    *ret = have;
    return 0;
}

void discovery_free_documents(void)
{
    for (size_t i = 0; i < DOC_COUNT; i++) blob_unref(atomic_exchange(&documents[i], NULL));
}

static void respond_document(struct kube_request *q, enum document d, const char *content_type)
{
    struct blob *b = NULL;
    int code = get_document(d, &b);
    if (!code) {
        respond_blob(q, 200, content_type, b);
        return;
    }
    if (code == ERR_NOT_FOUND) {
        status_unknown_path(&q->status);
    } else {
        status_core(&q->status, code, false);
    }
    respond_status(q);
}

/* ---- the small ones --------------------------------------------------------------------------- */

static void respond_group(struct kube_request *q)
{
    struct buf b;
    const char *group = arena_strdup(&q->arena, q->route.group);
    buf_init(&b, DOCUMENT_BYTES);
    int code = group ? kinds_discovery_group(&b, group) : ERR_NOMEM;
    if (!code) {
        respond_bytes(q, 200, "application/json", buf_slice(&b));
    } else {
        status_unknown_path(&q->status);
        respond_status(q);
    }
    buf_release(&b);
}

static void respond_api_versions(struct kube_request *q)
{
    const struct kube_api *api = q->api;
    struct buf b;
    buf_init(&b, 4 * LIMIT_KiB);
    buf_append_str(&b, "{\"kind\":\"APIVersions\",\"versions\":[\"v1\"],\"serverAddressByClientCIDRs\":[");
    if (api->advertise_host) {
        buf_printf(&b, "{\"clientCIDR\":\"0.0.0.0/0\",\"serverAddress\":\"%s:%d\"}", api->advertise_host, api->advertise_port);
    }
    buf_append_str(&b, "]}\n");
    respond_bytes(q, 200, "application/json", buf_slice(&b));
    buf_release(&b);
}

static void respond_version(struct kube_request *q)
{
    static const char text[] =
        "{\n  \"major\": \"1\",\n  \"minor\": \"32\",\n  \"gitVersion\": \"" KUBE_GIT_VERSION "\",\n  \"gitCommit\": \"\",\n"
        "  \"gitTreeState\": \"clean\",\n  \"buildDate\": \"1970-01-01T00:00:00Z\",\n  \"goVersion\": \"\",\n"
        "  \"compiler\": \"gcc\",\n  \"platform\": \"linux/amd64\"\n}\n";
    respond_bytes(q, 200, "application/json", SLICE_LIT(text));
}

static void respond_root(struct kube_request *q)
{
    static const char head[] = "{\"paths\":[\"/api\",\"/api/v1\",\"/apis\",";
    static const char tail[] = "\"/healthz\",\"/livez\",\"/metrics\",\"/openapi/v2\",\"/openapi/v3\",\"/readyz\",\"/version\"]}\n";
    struct buf b;
    buf_init(&b, 64 * LIMIT_KiB);
    buf_append_str(&b, head);
    for (size_t i = 0; i < MAX_GROUP_VERSIONS; i++) {
        const struct kind *k = group_version(i);
        if (!k) break;
        if (k->group[0]) buf_printf(&b, "\"/apis/%s\",\"/apis/%s/%s\",", k->group, k->group, k->version);
    }
    buf_append_str(&b, tail);
    respond_bytes(q, 200, "application/json", buf_slice(&b));
    buf_release(&b);
}

static void respond_aggregated(struct kube_request *q, bool core)
{
    bool beta = strcmp(q->format.version, "v2") != 0;
    enum document d = core ? DOC_AGGREGATED_CORE : DOC_AGGREGATED_APIS;
    if (beta) d = core ? DOC_AGGREGATED_CORE_BETA : DOC_AGGREGATED_APIS_BETA;
    respond_document(q, d, format_content_type(&q->format));
}

void discovery_handle(struct kube_request *q)
{
    const struct route *r = &q->route;
    bool aggregated = q->format.media == MEDIA_DISCOVERY;
    bool protobuf = q->format.media == MEDIA_PROTOBUF_OPENAPI;
    int index = group_version_index(r);
    switch (r->type) {
    case ROUTE_API_VERSIONS:
        if (aggregated) {
            respond_aggregated(q, true);
        } else {
            respond_api_versions(q);
        }
        break;
    case ROUTE_GROUPS:
        if (aggregated) {
            respond_aggregated(q, false);
        } else {
            respond_document(q, DOC_GROUPS, "application/json");
        }
        break;
    case ROUTE_GROUP: respond_group(q); break;
    case ROUTE_ROOT: respond_root(q); break;
    case ROUTE_VERSION: respond_version(q); break;
    case ROUTE_OPENAPI_V2:
        respond_document(q, protobuf ? DOC_OPENAPI_V2_PROTOBUF : DOC_OPENAPI_V2,
                         protobuf ? "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" : "application/json");
        break;
    case ROUTE_OPENAPI_V3: respond_document(q, DOC_OPENAPI_V3, "application/json"); break;
    case ROUTE_RESOURCES:
    case ROUTE_OPENAPI_V3_GROUP:
        if (index >= 0) {
            int base = r->type == ROUTE_RESOURCES ? DOC_RESOURCES : DOC_OPENAPI_V3_GROUP;
            respond_document(q, (enum document)(base + index), "application/json");
            break;
        }
        status_unknown_path(&q->status);
        respond_status(q);
        break;
    default:
        status_unknown_path(&q->status);
        respond_status(q);
        break;
    }
}
