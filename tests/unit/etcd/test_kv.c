/* KV, Lease, Maintenance: whole calls against a real store. */
#include "tests/unit/etcd/fake_api.h"

#include <openssl/sha.h>

#include "schemas/etcd/pb.h"

static Etcdserverpb__RangeRequest range_all(void)
{
    static uint8_t zero[1];
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    m.key = m.range_end = (ProtobufCBinaryData){1, zero};
    return m;
}

static Etcdserverpb__RangeResponse *range_answer(struct grpc_call *c)
{
    assert_int_equal(c->code, GRPC_OK);
    assert_int_equal(c->n_sent, 1);
    assert_int_equal(c->left, 0);
    Etcdserverpb__RangeResponse *m =
        etcdserverpb__range_response__unpack(NULL, c->sent[0].len, c->sent[0].data);
    assert_non_null(m);
    return m;
}

static void test_put_and_range(void **state)
{
    (void)state;
    struct grpc_call *c = put_start("k", SLICE_LIT("v"));
    assert_false(c->finished);
    fake_core_run(&core);
    Etcdserverpb__PutResponse *p =
        etcdserverpb__put_response__unpack(NULL, c->sent[0].len, c->sent[0].data);
    assert_non_null(p);
    assert_true(p->header->cluster_id == 11 && p->header->member_id == 77 &&
                p->header->revision == 2 && p->header->raft_term == 5);
    assert_null(p->prev_kv);
    etcdserverpb__put_response__free_unpacked(p, NULL);
    call_close(c, 0);

    Etcdserverpb__RangeRequest m = range_all();
    c = call_open(KV("Range"));
    call_send(c, &m.base);
    fake_core_run(&core);
    Etcdserverpb__RangeResponse *r = range_answer(c);
    assert_int_equal(r->header->revision, 2);
    assert_int_equal(r->count, 1);
    assert_int_equal(r->n_kvs, 1);
    assert_memory_equal(r->kvs[0]->value.data, "v", 1);
    etcdserverpb__range_response__free_unpacked(r, NULL);
    call_close(c, 0);
}

static void test_errors(void **state)
{
    (void)state;
    expect_error(put_start("", SLICE_LIT("v")), GRPC_INVALID_ARGUMENT,
                 "etcdserver: key is not provided");
    struct grpc_call *c = call_open(KV("Put"));
    call_message(c, SLICE_LIT("\x0a\x05x"));
    expect_error(c, GRPC_INTERNAL, "grpc: error unmarshalling request: malformed protobuf");
    c = call_open(KV("Range"));
    call_message(c, (struct slice){0});
    expect_error(c, GRPC_INVALID_ARGUMENT, "etcdserver: key is not provided");
    Etcdserverpb__RangeRequest m = range_all();
    m.revision = 100;
    c = call_open(KV("Range"));
    call_send(c, &m.base);
    expect_error(c, GRPC_OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision");
    static uint8_t big[LIMIT_REQUEST_BYTES + 1];
    expect_error(put_start("big", slice_make(big, sizeof(big))), GRPC_INVALID_ARGUMENT,
                 "etcdserver: request is too large");
    core.fail_next = ERR_TIMEOUT;
    expect_error(put_start("k", SLICE_LIT("v")), GRPC_UNAVAILABLE, "etcdserver: request timed out");
    core.leader = 0;
    c = calloc(1, sizeof(*c) + sizeof(struct core_call));
    *c = (struct grpc_call){
        .api = &api, .method = KV("Put"), .refs = 1, .budget = LONG_MAX, .hasleader = "true"};
    call_message(c, SLICE_LIT("\x0a\x01k"));
    expect_error(c, GRPC_UNAVAILABLE, "etcdserver: no leader");
}

/* A client that goes away before the answer. */
static void test_gone_client(void **state)
{
    (void)state;
    struct grpc_call *c = put_start("k", SLICE_LIT("v"));
    call_close(c, ERR_CANCELED);
    fake_core_run(&core);
    put("k", SLICE_LIT("v2"));
    Etcdserverpb__RangeRequest m = range_all();
    for (int steps = 0; steps < 3;
         steps++) { /* before the first slice, between slices, before the close */
        c = call_open(KV("Range"));
        call_send(c, &m.base);
        for (int i = 0; i < steps; i++) fake_core_step(&core);
        call_close(c, ERR_CANCELED);
        fake_core_run(&core);
    }
}

/* ---- long ranges -------------------------------------------------------------------------------
 */

enum { MANY = 4500 };

static void fill(void)
{
    char key[32];
    static uint8_t value[40000];
    memset(value, 'v', sizeof(value));
    for (int i = 0; i < MANY; i++) {
        snprintf(key, sizeof(key), "key%05d", i);
        put(key, slice_make(value, i % 500 == 7 ? sizeof(value) : 100)); /* some go by reference */
    }
}

static void check_many(struct grpc_call *c, size_t want, bool more, bool keys_only)
{
    Etcdserverpb__RangeResponse *r = range_answer(c);
    assert_int_equal(r->n_kvs, want);
    assert_int_equal(r->count, MANY);
    assert_int_equal(r->more, more);
    assert_int_equal(r->header->revision, MANY + 1);
    for (size_t i = 0; i < r->n_kvs; i++) {
        char key[32];
        snprintf(key, sizeof(key), "key%05zu", i);
        assert_memory_equal(r->kvs[i]->key.data, key, 8);
        assert_int_equal(r->kvs[i]->value.len, keys_only ? 0 : i % 500 == 7 ? 40000 : 100);
        assert_int_equal(r->kvs[i]->mod_revision, (int64_t)i + 2);
        assert_int_equal(r->kvs[i]->version, 1);
    }
    etcdserverpb__range_response__free_unpacked(r, NULL);
}

static void test_long_range(void **state)
{
    (void)state;
    fill();
    Etcdserverpb__RangeRequest m = range_all();
    struct grpc_call *c = call_open(KV("Range"));
    c->budget = 100000;
    call_send(c, &m.base);
    fake_core_run(&core);
    size_t turns = 0;
    while (!c->finished) { /* a client that takes little at a time */
        size_t before = c->sent[0].len;
        call_writable(c, 100000);
        assert_true(c->sent[0].len - before < 100000 + 256 * LIMIT_KiB);
        turns++;
    }
    assert_true(turns > 3);
    check_many(c, MANY, false, false);
    call_close(c, 0);

    m.keys_only = 1;
    c = call_open(KV("Range"));
    call_send(c, &m.base);
    fake_core_run(&core);
    check_many(c, MANY, false, true);
    call_close(c, 0);

    m = range_all();
    m.limit = 1500; /* one question */
    c = call_open(KV("Range"));
    call_send(c, &m.base);
    fake_core_run(&core);
    check_many(c, 1500, true, false);
    call_close(c, 0);

    c = call_open(KV("Range")); /* gone in the middle of the answer */
    m = range_all();
    c->budget = 1;
    call_send(c, &m.base);
    fake_core_run(&core);
    call_close(c, ERR_CANCELED);
}

static void test_long_range_without_memory(void **state)
{
    (void)state;
    fill();
    Etcdserverpb__RangeRequest m = range_all();
    bool fired = true;
    uint64_t nth = 1;
    for (; fired; nth++) {
        struct grpc_call *c = call_open(KV("Range"));
        mem_fail_nth(nth);
        call_send(c, &m.base);
        fake_core_run(&core);
        fired = mem_fail_nth(0);
        assert_true(c->finished);
        if (!fired) check_many(c, MANY, false, false);
        if (c->code == GRPC_OK && fired) check_many(c, MANY, false, false);
        call_close(c, 0);
    }
    assert_true(nth > 5);
}

/* ---- leases ------------------------------------------------------------------------------------
 */

#define LEASE(name) method_of(etcd_lease_methods, etcd_lease_n_methods, name)

static int64_t grant(int64_t id, int64_t ttl, int64_t *ret_ttl)
{
    Etcdserverpb__LeaseGrantRequest m = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    m.id = id;
    m.ttl = ttl;
    struct grpc_call *c = call_open(LEASE("LeaseGrant"));
    call_send(c, &m.base);
    fake_core_run(&core);
    assert_int_equal(c->code, GRPC_OK);
    Etcdserverpb__LeaseGrantResponse *r =
        etcdserverpb__lease_grant_response__unpack(NULL, c->sent[0].len, c->sent[0].data);
    id = r->id;
    *ret_ttl = r->ttl;
    etcdserverpb__lease_grant_response__free_unpacked(r, NULL);
    call_close(c, 0);
    return id;
}

static void test_leases(void **state)
{
    (void)state;
    int64_t ttl, id = grant(0, 0, &ttl);
    assert_true(id > 0);
    assert_int_equal(ttl, 2); /* the shortest */
    assert_int_equal(grant(123, 60, &ttl), 123);
    assert_int_equal(ttl, 60);
    struct grpc_call *c = call_open(LEASE("LeaseGrant"));
    Etcdserverpb__LeaseGrantRequest m = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    m.id = 123;
    m.ttl = 5;
    call_send(c, &m.base);
    expect_error(c, GRPC_FAILED_PRECONDITION, "etcdserver: lease already exists");
    c = call_open(LEASE("LeaseGrant"));
    m.ttl = 9000000001;
    call_send(c, &m.base);
    expect_error(c, GRPC_OUT_OF_RANGE, "etcdserver: too large lease TTL");
    c = call_open(LEASE("LeaseTimeToLive"));
    Etcdserverpb__LeaseTimeToLiveRequest t = ETCDSERVERPB__LEASE_TIME_TO_LIVE_REQUEST__INIT;
    t.id = 999;
    call_send(c, &t.base);
    fake_core_run(&core);
    Etcdserverpb__LeaseTimeToLiveResponse *r =
        etcdserverpb__lease_time_to_live_response__unpack(NULL, c->sent[0].len, c->sent[0].data);
    assert_true(r->id == 999 && r->ttl == -1 && r->grantedttl == 0);
    etcdserverpb__lease_time_to_live_response__free_unpacked(r, NULL);
    call_close(c, 0);
}

static void keepalive(struct grpc_call *c, int64_t id)
{
    Etcdserverpb__LeaseKeepAliveRequest m = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    m.id = id;
    call_send(c, &m.base);
}

static void test_keepalive(void **state)
{
    (void)state;
    int64_t ttl;
    grant(5, 60, &ttl);
    struct grpc_call *c = call_open(LEASE("LeaseKeepAlive"));
    keepalive(c, 5);
    keepalive(c, 6);
    c->method->half_closed(c);
    assert_false(c->finished); /* answers first */
    fake_core_run(&core);
    assert_int_equal(c->code, GRPC_OK);
    assert_int_equal(c->n_sent, 2);
    int64_t want[2][2] = {{5, 60}, {6, 0}};
    for (size_t i = 0; i < 2; i++) {
        Etcdserverpb__LeaseKeepAliveResponse *r =
            etcdserverpb__lease_keep_alive_response__unpack(NULL, c->sent[i].len, c->sent[i].data);
        assert_true(r->id == want[i][0] && r->ttl == want[i][1]);
        etcdserverpb__lease_keep_alive_response__free_unpacked(r, NULL);
    }
    call_close(c, 0);

    c = call_open(LEASE("LeaseKeepAlive")); /* more than it holds */
    for (int i = 0; i < 300 && !c->paused; i++) keepalive(c, 5);
    assert_true(c->paused);
    fake_core_run(&core);
    assert_false(c->paused);
    keepalive(c, 5);
    call_close(c, ERR_CANCELED); /* and gone before the answer */
    fake_core_run(&core);
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

static void test_snapshot(void **state)
{
    (void)state;
    char key[32];
    for (int i = 0; i < 3000; i++) {
        snprintf(key, sizeof(key), "key%05d", i);
        put(key, SLICE_LIT("some value or other"));
    }
    struct grpc_call *c =
        call_open(method_of(etcd_maintenance_methods, etcd_maintenance_n_methods, "Snapshot"));
    struct buf file = {0};
    c->budget = 1;
    call_message(c, (struct slice){0});
    fake_core_run(&core);
    while (!c->finished) {
        call_writable(c, 60000);
        fake_core_run(&core);
    }
    assert_int_equal(c->code, GRPC_OK);
    for (size_t i = 0; i < c->n_sent; i++) {
        Etcdserverpb__SnapshotResponse *r =
            etcdserverpb__snapshot_response__unpack(NULL, c->sent[i].len, c->sent[i].data);
        assert_non_null(r);
        assert_true(r->blob.len <= 32 * LIMIT_KiB);
        assert_int_equal(r->remaining_bytes == 0, i + 1 == c->n_sent);
        buf_append(&file, r->blob.data, r->blob.len);
        etcdserverpb__snapshot_response__free_unpacked(r, NULL);
    }
    call_close(c, 0);
    assert_int_equal(file.len % 512, 32);
    uint8_t digest[32];
    SHA256(file.data, file.len - 32, digest);
    assert_memory_equal(digest, file.data + file.len - 32, 32);
    struct reader r = reader_make(slice_make(file.data + file.len - 40, 8));
    uint64_t len = reader_u64(&r);
    assert_true(len <= file.len - 40 && file.len - 40 - len < 512 + 8);
    struct store_loader *l = store_loader_new(&(struct store_options){0});
    struct store *copy;
    struct err e;
    assert_int_equal(store_loader_feed(l, slice_make(file.data, len), &e), 0);
    assert_int_equal(store_loader_finish(l, &copy, &e), 0);
    assert_int_equal(store_revision(copy), store_revision(core.store));
    store_loader_free(l);
    store_free(copy);
    buf_release(&file);

    c = call_open(method_of(etcd_maintenance_methods, etcd_maintenance_n_methods,
                            "Snapshot")); /* gone in the middle */
    call_message(c, (struct slice){0});
    fake_core_step(&core);
    fake_core_step(&core);
    call_close(c, ERR_CANCELED);
    fake_core_run(&core);
}

/* ---- alarms ------------------------------------------------------------------------------------
 */

static size_t alarm_call(int action, uint64_t member, int alarm)
{
    Etcdserverpb__AlarmRequest m = ETCDSERVERPB__ALARM_REQUEST__INIT;
    m.action = (Etcdserverpb__AlarmRequest__AlarmAction)action;
    m.memberid = member;
    m.alarm = (Etcdserverpb__AlarmType)alarm;
    struct grpc_call *c =
        call_open(method_of(etcd_maintenance_methods, etcd_maintenance_n_methods, "Alarm"));
    call_send(c, &m.base);
    fake_core_run(&core);
    assert_int_equal(c->code, GRPC_OK);
    Etcdserverpb__AlarmResponse *r =
        etcdserverpb__alarm_response__unpack(NULL, c->sent[0].len, c->sent[0].data);
    size_t n = r->n_alarms;
    if (n) assert_int_equal(r->alarms[0]->memberid, 9);
    etcdserverpb__alarm_response__free_unpacked(r, NULL);
    call_close(c, 0);
    return n;
}

static void test_alarms(void **state)
{
    (void)state;
    enum { GET, ACTIVATE, DEACTIVATE, NOSPACE = 1, CORRUPT };
    assert_int_equal(alarm_call(GET, 0, 0), 0);
    assert_int_equal(alarm_call(DEACTIVATE, 9, NOSPACE), 0);
    assert_int_equal(alarm_call(ACTIVATE, 9, 0), 0);
    assert_int_equal(alarm_call(ACTIVATE, 9, NOSPACE), 1);
    assert_int_equal(alarm_call(GET, 0, 0), 1);
    assert_int_equal(alarm_call(GET, 0, CORRUPT), 0);
    expect_error(put_start("k", SLICE_LIT("v")), GRPC_RESOURCE_EXHAUSTED,
                 "etcdserver: mvcc: database space exceeded");
    assert_int_equal(alarm_call(DEACTIVATE, 9, NOSPACE), 1);
    assert_int_equal(alarm_call(GET, 0, 0), 0);
    put("k", SLICE_LIT("v"));
}

static void test_without_memory(void **state)
{
    (void)state;
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        mem_fail_nth(nth);
        struct grpc_call *c = put_start("k", SLICE_LIT("v"));
        fake_core_run(&core);
        fired = mem_fail_nth(0);
        assert_true(c->finished);
        if (!fired) assert_int_equal(c->code, GRPC_OK);
        call_close(c, 0);
    }
    fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        struct grpc_call *c = call_open(KV("Txn"));
        mem_fail_nth(nth);
        call_message(c, SLICE_LIT("\x12\x07\x12\x05\x0a\x01k\x12\x00\x12\x05\x0a\x03\x0a\x01k"));
        fake_core_run(&core);
        fired = mem_fail_nth(0);
        assert_true(c->finished);
        if (!fired) assert_int_equal(c->code, GRPC_OK);
        call_close(c, 0);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, api_set_up, api_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_put_and_range),  T(test_errors),
        T(test_gone_client),    T(test_long_range),
        T(test_leases),         T(test_keepalive),
        T(test_snapshot),       T(test_alarms),
        T(test_without_memory), T(test_long_range_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
