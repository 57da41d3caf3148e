/* Both APIs from the wire down to the store: one HTTP/2 connection with gRPC calls and Kubernetes
 * requests made of the input.
 *
 * Actions: a byte of kind, one of choice, one of flags, two of length, so many bytes.
 *   0 gRPC call: choice = method, bytes = its message; flags: 1 = the call stays open, 2 = bytes
 * are the framed body as it is 1 Kubernetes request: choice = path, flags = method (low 3 bits) and
 * content type, bytes = body 2 the same, its path is the first line of the bytes 3 more DATA on the
 * newest stream; flags: 1 = the last   4 a frame: choice = type   5 a turn   from 0xf0 on a
 * Kubernetes request: choice = kind, flags as in 1, its body is made of the fields that the kind has
 */
#include "api/etcd/etcd_api.h"
#include "api/kube/kube_int.h"
#include "tests/fuzz/made_object.h"
#include "tests/fuzz/records.h"
#include "tests/fuzz/wire.h"
#include "tests/lib/fake_core.h"

const struct record_shape record_shape = {.head = 3};

static struct wire wire;
static struct worker worker;
static struct core_client core;
static uint32_t stream;

static void handler(void *ctx, struct http_stream *st)
{
    (void)ctx;
    struct slice type = http_request_header(st, "content-type");
    if (slice_has_prefix(type, SLICE_LIT("application/grpc"))) etcd_api_request(worker.etcd, st);
    else kube_api_request(worker.kube, st);
}

static void turned(void *ctx)
{
    (void)ctx;
    fake_core_run(&core);
}

static const char *const grpc_paths[] = {
    "KV/Range",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Watch/Watch",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseKeepAlive",
    "Lease/LeaseTimeToLive",
    "Lease/LeaseLeases",
    "Cluster/MemberAdd",
    "Cluster/MemberRemove",
    "Cluster/MemberUpdate",
    "Cluster/MemberList",
    "Cluster/MemberPromote",
    "Maintenance/Alarm",
    "Maintenance/Status",
    "Maintenance/Defragment",
    "Maintenance/Hash",
    "Maintenance/HashKV",
    "Maintenance/Snapshot",
    "Maintenance/MoveLeader",
    "Auth/Authenticate",
    "Auth/UserAdd",
    "KV/Nothing",
};

static const char *const kube_paths[] = {
    "/api/v1/namespaces/default/pods",
    "/api/v1/namespaces/default/pods/p",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/c",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/services",
    "/api/v1/namespaces/default/services/s",
    "/apis/apps/v1/namespaces/default/deployments",
    "/apis/apps/v1/namespaces/default/deployments/d",
    "/apis/apps/v1/namespaces/default/deployments/d/scale",
    "/apis/apps/v1/namespaces/default/deployments/d/status",
    "/api/v1/nodes",
    "/api/v1/nodes/n",
    "/api/v1/namespaces",
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/default/finalize",
    "/api/v1/namespaces/default/pods/p/binding",
    "/api/v1/namespaces/default/pods/p/eviction",
    "/api/v1/namespaces/default/pods/p/status",
    "/api/v1/namespaces/default/events",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases/l",
    "/api/v1/namespaces/default/pods?watch=1&labelSelector=a%3Db",
    "/api/v1/pods?limit=1&fieldSelector=spec.nodeName%3Dn",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=1&allowWatchBookmarks=1",
    "/apis/discovery.k8s.io/v1/endpointslices",
};

static const char *const kube_methods[] = {"GET",    "POST", "PUT",     "PATCH",
                                           "DELETE", "HEAD", "OPTIONS", "GET"};
static const char *const kube_types[] = {"application/json",
                                         "application/yaml",
                                         "application/json-patch+json",
                                         "application/merge-patch+json",
                                         "application/strategic-merge-patch+json",
                                         "application/vnd.kubernetes.protobuf",
                                         "application/apply-patch+yaml",
                                         ""};

static void grpc_call(uint8_t choice, uint8_t flags, struct slice bytes)
{
    struct buf block = {0}, path = {0};
    buf_printf(&path, "/etcdserverpb.%s",
               grpc_paths[choice % (sizeof(grpc_paths) / sizeof(*grpc_paths))]);
    hpack_field(&block, ":method", SLICE_LIT("POST"));
    hpack_field(&block, ":scheme", SLICE_LIT("http"));
    hpack_field(&block, ":path", buf_slice(&path));
    hpack_field(&block, "te", SLICE_LIT("trailers"));
    hpack_field(&block, "content-type", SLICE_LIT("application/grpc"));
    if (flags & 4) hpack_field(&block, "hasleader", SLICE_LIT("true"));
    wire_frame(&wire, 1, 4, stream += 2, buf_slice(&block));
    buf_clear(&path);
    const uint8_t head[5] = {0, (uint8_t)(bytes.len >> 24), (uint8_t)(bytes.len >> 16),
                             (uint8_t)(bytes.len >> 8), (uint8_t)bytes.len};
    if (!(flags & 2)) buf_append(&path, head, 5);
    buf_append_slice(&path, bytes);
    for (size_t at = 0; at == 0 || at < path.len; at += 16384) {
        bool last = path.len - at <= 16384;
        wire_frame(&wire, 0, last && !(flags & 1), stream, slice_sub(buf_slice(&path), at, 16384));
    }
    buf_release(&block);
    buf_release(&path);
}

static void kube_request(struct slice path, uint8_t flags, struct slice body)
{
    struct buf block = {0};
    hpack_field(&block, ":method", slice_str(kube_methods[flags & 7]));
    hpack_field(&block, ":scheme", SLICE_LIT("http"));
    hpack_field(&block, ":authority", SLICE_LIT("h"));
    hpack_field(&block, ":path", path);
    hpack_field(&block, "authorization", SLICE_LIT("Bearer t"));
    const char *type = kube_types[(flags >> 3) & 7];
    if (*type) hpack_field(&block, "content-type", slice_str(type));
    if (flags & 0x40)
        hpack_field(&block, "accept", SLICE_LIT("application/json;as=Table;v=v1;g=meta.k8s.io"));
    wire_frame(&wire, 1, body.len ? 4 : 5, stream += 2, buf_slice(&block));
    for (size_t at = 0; at < body.len; at += 16384)
        wire_frame(&wire, 0, body.len - at <= 16384, stream, slice_sub(body, at, 16384));
    buf_release(&block);
}

static void made_request(uint8_t choice, uint8_t flags, struct slice bytes)
{
    const struct kind *k = kinds_at(choice % kinds_count());
    struct buf path = {0}, body = {0};
    buf_printf(&path, "/%s/%s/%s%s%s", *k->group ? "apis" : "api", k->api_version,
               k->namespaced ? "namespaces/default/" : "", k->plural,
               (flags & 7) == 1 ? "" : "/a");
    made_text_of(&body, k, &bytes, (flags & 7) == 3);
    kube_request(buf_slice(&path), flags, buf_slice(&body));
    buf_release(&path);
    buf_release(&body);
}

static void act(uint8_t kind, uint8_t choice, uint8_t flags, struct slice bytes)
{
    ptrdiff_t line;
    switch (kind >= 0xf0 ? 6 : kind % 6) {
    case 0: grpc_call(choice, flags, bytes); break;
    case 1:
        kube_request(slice_str(kube_paths[choice % (sizeof(kube_paths) / sizeof(*kube_paths))]),
                     flags, bytes);
        break;
    case 2:
        line = slice_index(bytes, '\n');
        if (line < 0) line = (ptrdiff_t)bytes.len;
        kube_request(slice_sub(bytes, 0, (size_t)line), flags,
                     slice_sub(bytes, (size_t)line + 1, bytes.len));
        break;
    case 3: wire_frame(&wire, 0, flags & 1, stream, slice_sub(bytes, 0, 16384)); break;
    case 4:
        wire_frame(&wire, choice % 10, flags, flags & 0x40 ? 0 : stream,
                   slice_sub(bytes, 0, 16384));
        break;
    case 6: made_request(choice, flags, bytes); break;
    default: break;
    }
    wire_turn(&wire);
}

static void open_apis(void)
{
    static const struct kube_config config = {.advertise_host = "127.0.0.1", .advertise_port = 1};
    struct err e;
    fake_core_open(&core);
    worker = (struct worker){.loop = &wire.loop, .core = &core, .http = wire.server};
    CHECK(etcd_api_new(&worker, &worker.etcd) == 0);
    CHECK(kube_api_new(&worker, &config, &worker.kube) == 0);
    CHECK(tokens_parse(SLICE_LIT("t,admin,1,\"system:masters\"\n"), &worker.kube->tokens, &e) == 0);
    kube_api_bootstrap(worker.kube);
    for (int i = 0; i < 8; i++) fake_core_run(&core);
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 3;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e;
    if (!wire.server) {
        wire_init(&wire, handler, NULL);
        wire.turned = turned;
        CHECK(kinds_load(&e) == 0);
    }
    open_apis();
    wire_open(&wire);
    fuzz_memory_on();
    wire_preface(&wire);
    stream = (uint32_t)-1;
    struct slice in = slice_make(data, size);
    for (int acts = 0; in.len && acts < 64; acts++) {
        uint8_t kind = take_byte(&in), choice = take_byte(&in), flags = take_byte(&in);
        size_t len = (size_t)take_byte(&in) << 8;
        len |= take_byte(&in);
        act(kind, choice, flags, take_bytes(&in, len));
    }
    wire_settle(&wire);
    fuzz_memory_off();
    wire_close(&wire);
    fake_core_run(&core);
    etcd_api_free(worker.etcd);
    kube_api_free(worker.kube);
    fake_core_run(&core);
    uv_run(&wire.loop, UV_RUN_NOWAIT);
    fake_core_close(&core);
    return 0;
}
