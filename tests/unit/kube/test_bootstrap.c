/* What the server asks of itself at its start, with a core that says no, and that goes away. Whether
 * anything is left behind is for the leak sanitizer to say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <uv.h>

#include "api/kube/kube_int.h"
#include "tests/lib/fake_core.h"

static uv_loop_t loop;
static struct core_client core;

static struct kube_api *open_api(struct worker *w)
{
    static const struct kube_config config = {.advertise_host = "127.0.0.1", .advertise_port = 1};
    struct kube_api *api;
    *w = (struct worker){.loop = &loop, .core = &core};
    fake_core_open(&core);
    assert_int_equal(kube_api_new(w, &config, &api), 0);
    return api;
}

static int64_t left_behind(struct kube_api *api)
{
    int64_t revision = store_revision(core.store);
    kube_api_free(api);
    uv_run(&loop, UV_RUN_DEFAULT);
    fake_core_close(&core);
    return revision;
}

static void test_all_is_made(void **state)
{
    struct worker w;
    struct kube_api *api = open_api(&w);
    (void)state;
    kube_api_bootstrap(api);
    fake_core_run(&core);
    assert_true(api->refs == 1);
    assert_true(left_behind(api) > 6); /* four namespaces, a service, its address and endpoints */
}

/* The core answers `n` requests, refuses one, and nobody waits until it is tried again. */
static void test_stops_on_the_way(void **state)
{
    bool done = false;
    (void)state;
    for (int n = 0; !done; n++) {
        struct worker w;
        struct kube_api *api = open_api(&w);
        kube_api_bootstrap(api);
        for (int i = 0; i < n; i++) fake_core_step(&core);
        core.fail_next = ERR_NO_LEADER;
        fake_core_step(&core);
        done = core.fail_next != 0;
        fake_core_run(&core);
        assert_true(done || !list_empty(&api->retries));
        left_behind(api);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_is_made),
        cmocka_unit_test(test_stops_on_the_way),
    };
    struct err e;
    uv_loop_init(&loop);
    return kinds_load(&e) || cmocka_run_group_tests(tests, NULL, NULL);
}
