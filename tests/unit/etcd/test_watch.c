/* The Watch service: streams between a real store and clients that read when they like. Every
 * answer is read by protobuf-c. */
#include "tests/unit/etcd/fake_api.h"

#include "api/etcd/watch_encode.h"

static struct grpc_call *open_stream(void)
{
    return call_open(&etcd_watch_methods[0]);
}

static struct slice packed(Etcdserverpb__WatchRequest *m, uint8_t out[256])
{
    return slice_make(out, etcdserverpb__watch_request__pack(m, out));
}

static void watch_create(struct grpc_call *c, Etcdserverpb__WatchCreateRequest *q)
{
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    uint8_t out[256];
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    m.create_request = q;
    call_message(c, packed(&m, out));
}

static Etcdserverpb__WatchCreateRequest on_key(const char *key, const char *end)
{
    Etcdserverpb__WatchCreateRequest q = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    q.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)(uintptr_t)key};
    q.range_end = (ProtobufCBinaryData){strlen(end), (uint8_t *)(uintptr_t)end};
    return q;
}

static void watch_cancel(struct grpc_call *c, int64_t id)
{
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest q = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
    uint8_t out[256];
    q.watch_id = id;
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    m.cancel_request = &q;
    call_message(c, packed(&m, out));
}

static void watch_progress(struct grpc_call *c)
{
    Etcdserverpb__WatchRequest m = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest q = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    uint8_t out[256];
    m.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    m.progress_request = &q;
    call_message(c, packed(&m, out));
}

static Etcdserverpb__WatchResponse *answer(struct grpc_call *c, size_t i)
{
    assert_true(i < c->n_sent);
    Etcdserverpb__WatchResponse *w =
        etcdserverpb__watch_response__unpack(NULL, c->sent[i].len, c->sent[i].data);
    assert_non_null(w);
    assert_non_null(w->header);
    assert_true(w->header->cluster_id == 11 && w->header->member_id == 77 &&
                w->header->raft_term == 5);
    return w;
}

#define FREE(w) etcdserverpb__watch_response__free_unpacked(w, NULL)

/* The last answer is one without events. */
static void expect_control(struct grpc_call *c, int64_t id, bool created, bool canceled,
                           int64_t revision, const char *reason)
{
    Etcdserverpb__WatchResponse *w = answer(c, c->n_sent - 1);
    assert_int_equal(w->watch_id, id);
    assert_int_equal(w->created, created);
    assert_int_equal(w->canceled, canceled);
    assert_int_equal(w->header->revision, revision);
    assert_string_equal(w->cancel_reason, reason);
    assert_int_equal(w->n_events, 0);
    FREE(w);
}

static void test_ids_and_refusals(void **state)
{
    (void)state;
    struct grpc_call *c = open_stream();
    Etcdserverpb__WatchCreateRequest q = on_key("k", "");
    q.watch_id = 1;
    watch_create(c, &q);
    expect_control(c, 1, true, false, 1, "");
    q.watch_id = 0;
    for (int64_t want = 0; want < 5; want++) { /* chosen by us: 1 is taken */
        if (want == 1) continue;
        watch_create(c, &q);
        expect_control(c, want, true, false, 1, "");
    }
    q.watch_id = 3;
    watch_create(c, &q);
    expect_control(c, -1, true, true, 1, "mvcc: duplicate watch ID provided on the WatchStream");
    Etcdserverpb__WatchCreateRequest empty = on_key("k", "a");
    watch_create(c, &empty);
    expect_control(c, -1, true, true, 1, "mvcc: watcher range is empty");
    q = on_key("k", "");
    q.start_revision = -1;
    watch_create(c, &q);
    expect_control(c, -1, true, true, 1, "etcdserver: mvcc: required revision has been compacted");
    size_t before = c->n_sent;
    watch_cancel(c, 99); /* unknown: no answer */
    assert_int_equal(c->n_sent, before);
    watch_cancel(c, 3);
    expect_control(c, 3, false, true, 1, "");
    put("k", SLICE_LIT("v"));
    assert_int_equal(c->n_sent, before + 1 + 4); /* 0, 1, 2, 4 */
    call_message(c, SLICE_LIT("\x0a\x7f"));
    assert_int_equal(c->code, GRPC_INTERNAL);
    call_close(c, 0);
    c = open_stream();
    c->method->half_closed(c);
    assert_int_equal(c->code, GRPC_OK);
    call_close(c, 0);
}

static void test_prev_kv_and_filters(void **state)
{
    (void)state;
    struct grpc_call *c = open_stream();
    Etcdserverpb__WatchCreateRequest q = on_key("", ""); /* the smallest key only */
    watch_create(c, &q);
    q = on_key("k", "");
    q.prev_kv = 1;
    watch_create(c, &q);
    Etcdserverpb__WatchCreateRequest__FilterType no_put[] = {
        ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT};
    q.filters = no_put;
    q.n_filters = 1;
    watch_create(c, &q);
    put("k", SLICE_LIT("one"));
    put("k", SLICE_LIT("two"));
    assert_int_equal(c->n_sent, 5);
    Etcdserverpb__WatchResponse *w = answer(c, 4);
    assert_int_equal(w->watch_id, 1);
    assert_int_equal(w->header->revision, 3);
    assert_memory_equal(w->events[0]->kv->value.data, "two", 3);
    assert_memory_equal(w->events[0]->prev_kv->value.data, "one", 3);
    FREE(w);
    struct grpc_call *del = call_open(KV("DeleteRange"));
    call_message(del, SLICE_LIT("\x0a\x01k"));
    fake_core_run(&core);
    call_close(del, 0);
    assert_int_equal(c->n_sent, 7);
    for (size_t i = 5; i < 7; i++) {
        w = answer(c, i);
        assert_int_equal(w->events[0]->type, MVCCPB__EVENT__EVENT_TYPE__DELETE);
        assert_int_equal(w->events[0]->kv->mod_revision, 4);
        assert_memory_equal(w->events[0]->prev_kv->value.data, "two", 3);
        FREE(w);
    }
    call_close(c, 0);
}

static void test_progress(void **state)
{
    (void)state;
    struct grpc_call *c = open_stream();
    watch_progress(c); /* no watch: no answer */
    assert_int_equal(c->n_sent, 0);
    Etcdserverpb__WatchCreateRequest q = on_key("k", "");
    q.progress_notify = 1;
    watch_create(c, &q);
    put("other", SLICE_LIT("v"));
    watch_progress(c);
    expect_control(c, -1, false, false, 2, "");
    q.start_revision = 100; /* in the future: this one cannot say yet */
    watch_create(c, &q);
    size_t n = c->n_sent;
    watch_progress(c);
    assert_int_equal(c->n_sent, n);
    watch_cancel(c, 1);

    n = c->n_sent;
    uint64_t now = 1000000;
    etcd_watch_tick(&api, now); /* begins to count */
    assert_int_equal(c->n_sent, n);
    etcd_watch_tick(&api, now += 1001);
    assert_int_equal(c->n_sent, n + 1);
    expect_control(c, 0, false, false, 2, "");
    put("k", SLICE_LIT("v")); /* an event tells as much */
    etcd_watch_tick(&api, now += 1001);
    assert_int_equal(c->n_sent, n + 2);
    etcd_watch_tick(&api, now += 1001);
    assert_int_equal(c->n_sent, n + 3);
    call_close(c, 0);
}

static void compact(int64_t revision)
{
    Etcdserverpb__CompactionRequest m = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    struct grpc_call *c = call_open(KV("Compact"));
    m.revision = revision;
    call_send(c, &m.base);
    fake_core_run(&core);
    assert_int_equal(c->code, GRPC_OK);
    call_close(c, 0);
}

static void test_compacted(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) put("k", SLICE_LIT("v"));
    compact(8);
    struct grpc_call *c = open_stream();
    Etcdserverpb__WatchCreateRequest q = on_key("k", "");
    q.start_revision = 3;
    watch_create(c, &q);
    expect_control(c, 0, true, false, 11, "");
    fake_core_run(&core);
    Etcdserverpb__WatchResponse *w = answer(c, 1);
    assert_true(w->canceled && w->compact_revision == 8 && w->watch_id == 0);
    FREE(w);
    q.watch_id = 0;
    watch_cancel(c, 0); /* as etcd: the id is there until the client says so */
    expect_control(c, 0, false, true, 11, "");
    call_close(c, 0);
}

/* A slow client: its watches wait, its requests too, and it gets all in the end. */
static void test_slow_stream(void **state)
{
    (void)state;
    struct grpc_call *c = open_stream();
    Etcdserverpb__WatchCreateRequest q = on_key("k", "");
    watch_create(c, &q);
    c->budget = 0;
    for (int i = 0; i < 200; i++) put("k", SLICE_LIT("v"));
    assert_int_equal(c->n_sent, 1);
    assert_true(list_empty(&core.wishes));
    watch_create(c, &q);
    assert_true(c->paused);
    size_t n = c->n_sent;
    call_writable(c, LONG_MAX);
    assert_false(c->paused);
    fake_core_run(&core);
    size_t events = 0;
    for (size_t i = n; i < c->n_sent; i++) {
        Etcdserverpb__WatchResponse *w = answer(c, i);
        assert_int_equal(w->watch_id, 0);
        for (size_t k = 0; k < w->n_events; k++)
            assert_int_equal(w->events[k]->kv->mod_revision, 2 + events++);
        FREE(w);
    }
    assert_int_equal(events, 200);
    call_close(c, 0);
}

/* A record of the test's own, for batches that do not come from the store: freed with mem_free. */
static struct record *plain_record(struct slice key, struct slice value)
{
    struct record *r = mem_must_calloc(1, sizeof(*r) + key.len + value.len);
    r->key_len = (uint32_t)key.len;
    r->value_len = (uint32_t)value.len;
    memcpy(r->data, key.data, key.len);
    memcpy(r->data + key.len, value.data, value.len);
    return r;
}

/* One revision that is larger than a message may be. */
static void test_fragments(void **state)
{
    (void)state;
    enum { N = 6 };
    static uint8_t value[500000];
    struct grpc_call *streams[2] = {open_stream(), open_stream()};
    for (int i = 0; i < 2; i++) {
        Etcdserverpb__WatchCreateRequest q = on_key("k", "l");
        q.fragment = i;
        watch_create(streams[i], &q);
    }
    struct event_batch *b = mem_must_calloc(1, sizeof(*b) + N * sizeof(struct event));
    *b = (struct event_batch){.first_rev = 2, .last_rev = 2, .count = N};
    for (int i = 0; i < N; i++) {
        struct record *r = plain_record(SLICE_LIT("k"), slice_make(value, sizeof(value)));
        r->mod_rev = r->create_rev = 2;
        r->version = 1;
        b->events[i].record = r;
    }
    watch_hub_live(api.hub, b);
    for (int i = 0; i < N; i++) mem_free(b->events[i].record);
    mem_free(b);
    assert_int_equal(streams[0]->n_sent, 2);
    assert_int_equal(streams[1]->n_sent, 3);
    size_t events = 0;
    for (size_t i = 1; i < 3; i++) {
        Etcdserverpb__WatchResponse *w = answer(streams[1], i);
        assert_int_equal(w->fragment, i == 1);
        assert_int_equal(w->header->revision, 2);
        assert_true(streams[1]->sent[i].len <= LIMIT_WATCH_FRAGMENT_BYTES);
        events += w->n_events;
        FREE(w);
    }
    assert_int_equal(events, N);
    call_close(streams[0], 0);
    call_close(streams[1], 0);
}

/* A large batch of many revisions is cut between them, and says up to where each part goes. */
static void test_parts(void **state)
{
    (void)state;
    enum { N = 40 };
    static uint8_t value[100000];
    char key[32];
    struct grpc_call *c = open_stream();
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(key, slice_make(value, sizeof(value)));
    }
    Etcdserverpb__WatchCreateRequest q = on_key("k", "l");
    q.start_revision = 2;
    watch_create(c, &q);
    fake_core_run(&core);
    assert_true(c->n_sent > 4);
    int64_t next = 2;
    for (size_t i = 1; i < c->n_sent; i++) {
        Etcdserverpb__WatchResponse *w = answer(c, i);
        assert_false(w->fragment);
        assert_true(c->sent[i].len < LIMIT_WATCH_BATCH_BYTES + 200000);
        for (size_t k = 0; k < w->n_events; k++)
            assert_int_equal(w->events[k]->kv->mod_revision, next++);
        assert_int_equal(w->header->revision, next - 1);
        FREE(w);
    }
    assert_int_equal(next, N + 2);
    call_close(c, 0);
}

static void test_without_leader(void **state)
{
    (void)state;
    core.leader = 0;
    struct grpc_call *c =
        calloc(1, sizeof(*c) + sizeof(struct grpc_call) + etcd_watch_methods[0].state_size);
    *c = (struct grpc_call){.api = &api,
                            .method = &etcd_watch_methods[0],
                            .refs = 1,
                            .budget = LONG_MAX,
                            .hasleader = "true"};
    c->method->open(c);
    expect_error(c, GRPC_UNAVAILABLE, "etcdserver: no leader");
    assert_true(list_empty(&api.leader_calls) && list_empty(&api.watch_streams));
}

static void test_without_memory(void **state)
{
    (void)state;
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        struct grpc_call *c = open_stream();
        Etcdserverpb__WatchCreateRequest q = on_key("k", "l");
        mem_fail_nth(nth);
        watch_create(c, &q);
        fired = mem_fail_nth(0);
        if (fired)
            expect_control(c, -1, true, true, watch_hub_revision(api.hub),
                           "etcdserver: out of memory");
        /* Then while an event is sent: the stream ends, or it comes. */
        mem_fail_nth(nth);
        struct event_batch *b = mem_must_calloc(1, sizeof(*b) + sizeof(struct event));
        int64_t rev = watch_hub_revision(api.hub) + 1;
        *b = (struct event_batch){.first_rev = rev, .last_rev = rev, .count = 1};
        b->events[0].record = plain_record(SLICE_LIT("k"), SLICE_LIT("v"));
        b->events[0].record->mod_rev = rev;
        size_t before = c->n_sent;
        watch_hub_live(api.hub, b);
        bool failed = mem_fail_nth(0);
        if (!fired && !failed) assert_true(c->n_sent == before + 1);
        mem_free(b->events[0].record);
        mem_free(b);
        fake_core_drop_wishes(&core);
        call_close(c, 0);
    }
}

/* ---- a model -----------------------------------------------------------------------------------
 */

enum { STREAMS = 4, WATCHES = 6, KEYS = 8 };

struct model_watch {
    bool used, prev_kv;
    char begin, end; /* end 0 = one key */
    int64_t next;    /* the first revision that was not told yet */
};

static struct {
    struct grpc_call *streams[STREAMS];
    size_t seen[STREAMS]; /* answers read */
    struct model_watch watches[STREAMS][WATCHES];
    struct {
        char key;
        bool deleted;
    } log[20000]; /* by revision */
    uint64_t random, events;
} m;

static unsigned rnd(unsigned n)
{
    m.random = m.random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(m.random >> 33) % n;
}

static bool covers(const struct model_watch *w, char key)
{
    return w->end ? key >= w->begin && key < w->end : key == w->begin;
}

static void read_events(struct model_watch *w, const Etcdserverpb__WatchResponse *r)
{
    assert_true(w->used);
    for (size_t i = 0; i < r->n_events; i++) {
        const Mvccpb__Event *e = r->events[i];
        while (!covers(w, m.log[w->next].key)) w->next++;
        assert_int_equal(e->kv->mod_revision, w->next);
        assert_int_equal(e->kv->key.data[0], m.log[w->next].key);
        assert_int_equal(e->type == MVCCPB__EVENT__EVENT_TYPE__DELETE, m.log[w->next].deleted);
        bool had = false; /* the key, before this revision */
        for (int64_t rev = w->next - 1; rev > 1 && !had; rev--) {
            if (m.log[rev].key != m.log[w->next].key) continue;
            had = !m.log[rev].deleted;
            break;
        }
        assert_int_equal(e->prev_kv != NULL, w->prev_kv && had);
        w->next++;
        m.events++;
    }
}

static void read_stream(size_t s)
{
    struct grpc_call *c = m.streams[s];
    for (; m.seen[s] < c->n_sent; m.seen[s]++) {
        Etcdserverpb__WatchResponse *r = answer(c, m.seen[s]);
        if (!r->created && !r->canceled) read_events(&m.watches[s][r->watch_id - 1], r);
        FREE(r);
        buf_release(&c->sent[m.seen[s]]);
    }
}

static void model_watch(size_t s)
{
    size_t i = rnd(WATCHES);
    struct model_watch *w = &m.watches[s][i];
    if (w->used) {
        watch_cancel(m.streams[s], (int64_t)i + 1);
        read_stream(s);
        w->used = false;
        return;
    }
    char key[2] = {(char)('a' + rnd(KEYS)), 0}, end[2] = {(char)(key[0] + 1 + (char)rnd(4)), 0};
    bool range = rnd(2);
    Etcdserverpb__WatchCreateRequest q = on_key(key, range ? end : "");
    int64_t now = store_revision(core.store);
    q.watch_id = (int64_t)i + 1;
    q.prev_kv = (int)rnd(2);
    q.start_revision = rnd(2) ? 0 : 2 + rnd((unsigned)now + 3);
    *w =
        (struct model_watch){true, q.prev_kv, key[0], range ? end[0] : 0,
                             q.start_revision ? q.start_revision : watch_hub_revision(api.hub) + 1};
    watch_create(m.streams[s], &q);
}

static void model_write(void)
{
    char key[2] = {(char)('a' + rnd(KEYS)), 0};
    int64_t before = store_revision(core.store);
    struct grpc_call *c;
    bool deletes = rnd(3) == 0;
    if (deletes) {
        uint8_t bytes[] = {0x0a, 1, (uint8_t)key[0]};
        c = call_open(KV("DeleteRange"));
        call_message(c, slice_make(bytes, sizeof(bytes)));
    } else {
        c = put_start(key, SLICE_LIT("value"));
    }
    while (!c->finished) fake_core_step(&core);
    call_close(c, 0);
    if (store_revision(core.store) == before) return;
    m.log[before + 1].key = key[0];
    m.log[before + 1].deleted = deletes;
}

static void test_model(void **state)
{
    (void)state;
    memset(&m, 0, sizeof(m));
    m.random = 42;
    for (size_t s = 0; s < STREAMS; s++) m.streams[s] = open_stream();
    for (int step = 0; step < 12000; step++) {
        size_t s = rnd(STREAMS);
        unsigned what = rnd(10);
        if (what < 5) model_write();
        if (what == 5) model_watch(s);
        if (what == 6) fake_core_step(&core);
        if (what == 7) m.streams[s]->budget = rnd(3000);
        if (what == 8 && m.streams[s]->paused) call_writable(m.streams[s], 3000);
        if (what == 9) call_writable(m.streams[s], 1 + rnd(3000));
        read_stream(s);
        if (m.streams[s]->n_sent > MAX_SENT - 600) { /* a new stream, as a client that resumes */
            call_close(m.streams[s], 0);
            m.streams[s] = open_stream();
            m.seen[s] = 0;
            memset(m.watches[s], 0, sizeof(m.watches[s]));
        }
    }
    for (size_t s = 0; s < STREAMS; s++) call_writable(m.streams[s], LONG_MAX);
    fake_core_run(&core);
    for (size_t s = 0; s < STREAMS; s++) {
        read_stream(s);
        for (size_t i = 0; i < WATCHES; i++) {
            struct model_watch *w = &m.watches[s][i];
            for (int64_t rev = w->next; w->used && rev <= store_revision(core.store); rev++)
                assert_false(covers(w, m.log[rev].key));
        }
        call_close(m.streams[s], 0);
    }
    assert_true(m.events > 5000);
}

#define T(name) cmocka_unit_test_setup_teardown(name, api_set_up, api_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_ids_and_refusals), T(test_prev_kv_and_filters), T(test_progress), T(test_compacted),
        T(test_slow_stream),      T(test_fragments),           T(test_parts),    T(test_model),
        T(test_without_leader),   T(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
