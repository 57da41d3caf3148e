/* Decoders of clients (answers as JSON, streams cut into frames and lines, selectors, kubeconfig,
 * addresses), and etcd's messages by protobuf-c. The first byte chooses, the second chooses
 * further. */
#include <stdlib.h>

#include "base/base64.h"
#include "base/mem.h"
#include "base/url.h"
#include "clients/lib/frames.h"
#include "clients/lib/kjson.h"
#include "clients/lib/kubeconfig.h"
#include "clients/lib/pbjson.h"
#include "clients/lib/selector.h"
#include "schemas/etcd/rpc.pb-c.h"
#include "tests/fuzz/fuzz.h"

static const ProtobufCMessageDescriptor *const requests[] = {
    &etcdserverpb__range_request__descriptor,
    &etcdserverpb__txn_request__descriptor,
    &etcdserverpb__watch_request__descriptor,
    &etcdserverpb__compaction_request__descriptor,
    &etcdserverpb__lease_grant_request__descriptor,
    &etcdserverpb__put_request__descriptor,
    &etcdserverpb__lease_time_to_live_response__descriptor,
    &etcdserverpb__alarm_request__descriptor,
    &etcdserverpb__hash_kvrequest__descriptor,
    &etcdserverpb__txn_response__descriptor,
};

static void *take(void *ctx, size_t size)
{
    (void)ctx;
    return size > 64 << 20 ? NULL : mem_alloc(size);
}

static void give(void *ctx, void *p)
{
    (void)ctx;
    mem_free(p);
}

static void etcd_message(struct slice in, uint8_t which)
{
    static ProtobufCAllocator allocator = {take, give, NULL};
    ProtobufCMessage *m = protobuf_c_message_unpack(
        requests[which % (sizeof(requests) / sizeof(*requests))], &allocator, in.len, in.data);
    if (!m) return;
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *out = malloc(n + 1);
    FUZZ_CHECK(protobuf_c_message_pack(m, out) == n);
    free(out);
    protobuf_c_message_free_unpacked(m, &allocator);
}

/* A table that names itself, of all types. */
static const struct pbj_field fields[] = {
    {1, "bytes", PBJ_BYTES, false, false, NULL},   {2, "text", PBJ_STRING, false, true, NULL},
    {3, "number", PBJ_INT64, false, false, NULL},  {4, "unsigned", PBJ_UINT64, true, false, NULL},
    {5, "yes", PBJ_BOOL, false, false, NULL},      {6, "deeper", PBJ_MESSAGE, false, false, fields},
    {7, "many", PBJ_MESSAGE, true, false, fields}, {8, "names", PBJ_STRING, true, false, NULL},
    {9, "which", PBJ_ENUM, false, false, NULL},    {0}};

struct cut {
    struct frames *f;
    size_t frames, stop_at;
};

static void on_frame(void *ctx, struct slice piece)
{
    struct cut *c = ctx;
    for (size_t i = 0; i < piece.len; i++)
        if (piece.data[i] == 0xff) c->stop_at++;
    if (++c->frames == 1000) c->f->stop = true;
}

static void cut(struct slice in, uint8_t how)
{
    struct frames f;
    struct cut c = {.f = &f};
    size_t piece = how / 2 ? how / 2 : in.len + 1;
    frames_init(&f, 4096);
    for (int code = 0; code == 0 && in.len && !f.stop; in = slice_sub(in, piece, in.len))
        code = how % 2 ? frames_feed_lines(&f, slice_sub(in, 0, piece), on_frame, &c)
                       : frames_feed_grpc(&f, slice_sub(in, 0, piece), on_frame, &c);
    (void)frames_whole(&f);
    frames_release(&f);
}

static void selectors(struct arena *a, struct slice in)
{
    struct json *v;
    struct err e;
    if (json_parse(a, in, JSON_COPY, &v, NULL) != 0) return;
    const struct json *selector = json_get(v, "selector"), *labels = json_get(v, "labels");
    if (!selector || selector_check(selector, &e) != 0) return;
    (void)label_selector_matches(selector, labels);
    (void)selector_map_matches(selector, labels);
    (void)node_selector_matches(selector, labels, SLICE_LIT("n"));
    (void)toleration_tolerates(selector, labels);
}

static void texts(struct slice in, uint8_t which)
{
    char text[256];
    size_t n = in.len < sizeof(text) - 1 ? in.len : sizeof(text) - 1;
    memcpy(text, in.data, n);
    text[n] = 0;
    struct url url;
    struct err e;
    struct kube_config config = {0};
    struct buf out = {0};
    int64_t ms;
    switch (which % 4) {
    case 0:
        if (url_parse(text, &url, &e) == 0 && (url.port < 0 || url.port > 65535)) abort();
        break;
    case 1: (void)kjson_parse_time(in, &ms); break;
    case 2:
        if (base64_decode(&out, in) != 0) break;
        break;
    default:
        if (kube_config_parse(in, "/", NULL, &config, &e) == 0) kube_config_release(&config);
    }
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    struct json *v;
    if (size < 2) return 0;
    struct slice in = slice_make(data + 2, size - 2);
    arena_init(&a, 64 << 20);
    switch (data[0] % 5) {
    case 0: etcd_message(in, data[1]); break;
    case 1:
        if (pb_to_json(&a, in, fields, &v) != 0) break;
        break;
    case 2: cut(in, data[1]); break;
    case 3: selectors(&a, in); break;
    default: texts(in, data[1]); break;
    }
    arena_release(&a);
    return 0;
}
