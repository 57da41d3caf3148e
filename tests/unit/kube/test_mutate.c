/* A write whose answer was lost with the leader, while others go on writing: it is done once, or the client is told that nobody
 * knows. With a core that applies and says no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <uv.h>

#include "api/kube/kube_int.h"
#include "tests/lib/fake_core.h"

static uv_loop_t loop;
static struct core_client core;
static struct worker worker;
static struct kube_api *api;
static struct kube_request *parent;
static int answered;

static void apply(struct op op)
{
    struct arena a = {0};
    struct result r;
    struct command c = {.type = COMMAND_OP, .op = op};
    store_apply(core.store, &c, &a, &r);
    assert_int_equal(r.code, 0);
    result_release(&r);
    arena_release(&a);
}

static void put(const char *key, const char *value)
{
    apply((struct op){.type = OP_PUT, .put = {.key = slice_str(key), .value = slice_str(value)}});
}

static void del(struct slice key)
{
    apply((struct op){.type = OP_DELETE, .del = {.key = key}});
}

/* What stands below a prefix: how many, and the first. */
static size_t look(const char *prefix, char key[256], char value[4096])
{
    struct arena a = {0};
    struct range_result r;
    struct slice p = slice_str(prefix);
    struct range_op op = {.key = p, .range_end = key_prefix_end(&a, p)};
    assert_int_equal(store_range(core.store, &op, &a, &r), 0);
    size_t n = r.n;
    if (n) {
        snprintf(key, 256, "%.*s", (int)r.records[0]->key_len, (const char *)r.records[0]->data);
        snprintf(value, 4096, "%.*s", (int)r.records[0]->value_len, (const char *)record_value(r.records[0]).data);
    }
    for (size_t i = 0; i < n; i++) record_unref(r.records[i]);
    arena_release(&a);
    return n;
}

static void on_answered(struct kube_request *q)
{
    answered = q->response_code;
    if (answered == 504) assert_int_equal(q->status.retry_after_s, 0);
}

static int setup(void **state)
{
    static const struct kube_config config = {.advertise_host = "127.0.0.1", .advertise_port = 1};
    (void)state;
    worker = (struct worker){.loop = &loop, .core = &core};
    fake_core_open(&core);
    assert_int_equal(kube_api_new(&worker, &config, &api), 0);
    put("/registry/namespaces/default", "{\"kind\":\"Namespace\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"default\"}}");
    parent = request_new(api);
    answered = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    request_unref(parent);
    kube_api_free(api);
    uv_run(&loop, UV_RUN_DEFAULT);
    fake_core_close(&core);
    return 0;
}

/* Up to the txn, which is applied or is not, and of which nobody hears. */
static void lose(bool applied, enum kube_verb verb, const char *name, enum body_type type, const char *body)
{
    static void (*const handlers[VERB_COUNT])(struct kube_request *) = {[VERB_CREATE] = create_handle, [VERB_UPDATE] = update_handle,
                                                                        [VERB_PATCH] = patch_handle, [VERB_DELETE] = delete_handle};
    const struct kind *k = kind_by_resource((struct slice){0}, SLICE_LIT("v1"), SLICE_LIT("configmaps"));
    struct kube_request *q = request_inner(parent, k, verb, SLICE_LIT("default"), slice_str(name), on_answered);
    assert_non_null(q);
    q->body_type = type;
    assert_int_equal(buf_append_str(&q->body, body), 0);
    request_run(q, handlers[verb]);
    fake_core_step(&core); /* what is there */
    *(applied ? &core.lose_next : &core.fail_next) = ERR_LEADER_CHANGED;
    fake_core_run(&core);
    assert_true(!core.lose_next && !core.fail_next && !answered);
}

/* Its second attempt, and the answer. */
static int find_out(void)
{
    uv_run(&loop, UV_RUN_DEFAULT);
    fake_core_run(&core);
    return answered;
}

#define MAPS "/registry/configmaps/default/"
#define MAP(data) "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"a\",\"namespace\":\"default\",\"uid\":\"u\"},\"data\":{" data "}}"

static void test_create_that_somebody_changes(void **state)
{
    char key[256], value[4096];
    (void)state;
    lose(true, VERB_CREATE, "", BODY_JSON, "{\"metadata\":{\"generateName\":\"x-\"}}");
    assert_int_equal(look(MAPS, key, value), 1);
    value[strlen(value) - 1] = 0;
    put(key, strcat(value, ",\"data\":{\"seen\":\"by another\"}}"));
    assert_int_equal(find_out(), 201);
    assert_int_equal(look(MAPS, key, value), 1); /* not another one under another name */
    assert_non_null(strstr(value, "by another"));
}

static void test_create_that_somebody_deletes(void **state)
{
    char key[256], value[4096];
    (void)state;
    lose(true, VERB_CREATE, "a", BODY_JSON, "{}");
    assert_int_equal(look(MAPS, key, value), 1);
    del(SLICE_LIT(MAPS "a"));
    put(MAPS "a", MAP("")); /* and makes again */
    assert_int_equal(find_out(), 409);
}

static void test_patch_that_somebody_builds_on(void **state)
{
    char key[256], value[4096];
    (void)state;
    put(MAPS "a", MAP("\"n\":\"0\""));
    lose(true, VERB_PATCH, "a", BODY_MERGE_PATCH, "{\"data\":{\"n\":\"1\"}}");
    put(MAPS "a", MAP("\"n\":\"2\""));
    assert_int_equal(find_out(), 504);
    look(MAPS, key, value);
    assert_non_null(strstr(value, "\"n\":\"2\"")); /* what came later is not undone */
}

static void test_patch_that_was_not_applied(void **state)
{
    char key[256], value[4096];
    (void)state;
    put(MAPS "a", MAP("\"n\":\"0\""));
    lose(false, VERB_PATCH, "a", BODY_MERGE_PATCH, "{\"data\":{\"m\":\"1\"}}");
    put(MAPS "a", MAP("\"n\":\"2\"")); /* the one newer version, and not ours */
    assert_int_equal(find_out(), 200);
    look(MAPS, key, value);
    assert_true(strstr(value, "\"n\":\"2\"") && strstr(value, "\"m\":\"1\""));
}

static void test_delete_that_somebody_makes_again(void **state)
{
    char key[256], value[4096];
    (void)state;
    put(MAPS "a", MAP(""));
    lose(true, VERB_DELETE, "a", BODY_JSON, "");
    put(MAPS "a", MAP("\"new\":\"1\""));
    assert_int_equal(find_out(), 200);
    assert_int_equal(look(MAPS, key, value), 1); /* one deletion does not take two objects */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(test_create_that_somebody_changes),  TEST(test_create_that_somebody_deletes),
        TEST(test_patch_that_somebody_builds_on), TEST(test_patch_that_was_not_applied),
        TEST(test_delete_that_somebody_makes_again),
    };
    struct err e;
    uv_loop_init(&loop);
    return kinds_load(&e) || cmocka_run_group_tests(tests, NULL, NULL);
}
