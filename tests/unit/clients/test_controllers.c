/* The arithmetic of replicas: rolling updates, scaling in proportion, which pods go first. */
#include "tests/unit/clients/mock_server.h"

#include "clients/controllers/replicas.h"

static struct json *parse(struct arena *a, const char *text)
{
    struct buf b = {0};
    for (const char *p = text; *p; p++) buf_append_byte(&b, *p == '\'' ? '"' : (uint8_t)*p);
    struct json *v = NULL;
    struct json_error e = {0};
    if (json_parse(a, buf_slice(&b), JSON_COPY, &v, &e))
        fail_msg("%s: %s at %zu", text, e.text, e.offset);
    buf_release(&b);
    return v;
}

static void test_limits(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int64_t surge, unavailable;
    } t[] = {
        {"{'replicas':4}", 1, 1}, /* 25% each */
        {"{'replicas':3}", 1, 0}, /* surge up, unavailable down */
        {"{'replicas':10,'strategy':{'rollingUpdate':{'maxSurge':'25%','maxUnavailable':'25%'}}}",
         3, 2},
        {"{'replicas':10,'strategy':{'rollingUpdate':{'maxSurge':0,'maxUnavailable':0}}}", 0,
         1}, /* never both 0 */
        {"{'replicas':10,'strategy':{'rollingUpdate':{'maxSurge':'0%','maxUnavailable':'1%'}}}", 0,
         1},
        {"{'replicas':2,'strategy':{'rollingUpdate':{'maxSurge':5,'maxUnavailable':5}}}", 5, 2},
        {"{'replicas':0}", 0, 0},
        {"{'replicas':10,'strategy':{'rollingUpdate':{'maxSurge':'100%','maxUnavailable':0}}}", 10,
         0},
        {"{'replicas':10,'strategy':{'type':'Recreate'}}", 0, 0},
    };
    struct arena a = {0};
    for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
        struct rolling r = rolling_limits(parse(&a, t[i].spec));
        if (r.max_surge != t[i].surge || r.max_unavailable != t[i].unavailable)
            fail_msg("%s: %lld %lld", t[i].spec, (long long)r.max_surge,
                     (long long)r.max_unavailable);
    }
    arena_release(&a);
}

/* Runs a whole update: after each step all or none of the new pods become available. Returns the
 * number of steps. */
static int run_update(int64_t want, struct rolling limits, struct rollout_set *olds, size_t n,
                      bool one_by_one)
{
    struct rollout_set new_set = {.is_new = true};
    int64_t floor_at_start = 0;
    for (size_t i = 0; i < n; i++) floor_at_start += olds[i].available;
    int steps = 0;
    for (;; steps++) {
        if (steps > 500) fail_msg("the update does not end");
        rollout_step(want, limits, &new_set, olds, n);
        int64_t total = new_set.target,
                available = new_set.available < new_set.target ? new_set.available : new_set.target;
        bool moved = new_set.target != new_set.replicas;
        for (size_t i = 0; i < n; i++) {
            moved = moved || olds[i].target != olds[i].replicas;
            olds[i].available =
                olds[i].available < olds[i].target ? olds[i].available : olds[i].target;
            olds[i].replicas = olds[i].target;
            total += olds[i].replicas;
            available += olds[i].available;
        }
        new_set.replicas = new_set.target;
        assert_true(total <= want + limits.max_surge || new_set.replicas == 0);
        if (floor_at_start >= want - limits.max_unavailable)
            assert_true(available >= want - limits.max_unavailable);
        bool grown = new_set.available < new_set.replicas;
        if (grown) new_set.available = one_by_one ? new_set.available + 1 : new_set.replicas;
        if (!moved && !grown) break;
    }
    assert_int_equal(new_set.replicas, want);
    for (size_t i = 0; i < n; i++) assert_int_equal(olds[i].replicas, 0);
    return steps;
}

static void test_updates_keep_their_promises(void **state)
{
    (void)state;
    for (int64_t want = 0; want <= 12; want++)
        for (int64_t surge = 0; surge <= 5; surge++)
            for (int64_t unavailable = 0; unavailable <= want; unavailable++)
                for (int64_t broken = 0; broken <= want; broken += 3)
                    for (int one = 0; one < 2; one++) {
                        if (surge + unavailable == 0) continue;
                        struct rollout_set olds[2] = {
                            {.replicas = want / 2, .available = want / 2},
                            {.replicas = want - want / 2, .available = want - want / 2}};
                        olds[1].available =
                            olds[1].available > broken ? olds[1].available - broken : 0;
                        run_update(want, (struct rolling){surge, unavailable}, olds, 2, one);
                    }
}

static void test_stuck_update_keeps_the_old(void **state)
{
    (void)state;
    struct rolling limits = {1, 1};
    struct rollout_set old = {.replicas = 4, .available = 4}, new_set = {.is_new = true};
    for (int i = 0; i < 10; i++) { /* no new pod ever becomes available */
        rollout_step(4, limits, &new_set, &old, 1);
        new_set.replicas = new_set.target;
        old.replicas = old.target;
        if (old.available > old.replicas) old.available = old.replicas;
    }
    assert_int_equal(old.replicas, 3);
    assert_int_equal(new_set.replicas, 2);
    /* old pods that are broken make room at once */
    old = (struct rollout_set){.replicas = 4, .available = 0};
    new_set = (struct rollout_set){.is_new = true, .replicas = 1};
    rollout_step(4, limits, &new_set, &old, 1);
    assert_int_equal(new_set.target, 1); /* full: 5 of 5 */
    assert_int_equal(old.target, 3);     /* 5 - 3 - 1 not available yet = 1 of the broken may go */
}

static void test_proportional_scaling(void **state)
{
    (void)state;
    /* the documentation's example: 10 replicas, maxSurge 3, 8 old and 5 new; scaled to 15 */
    struct rollout_set s[2] = {
        {.replicas = 8, .available = 8, .desired = 10, .max = 13, .created_ms = 1},
        {.replicas = 5, .desired = 10, .max = 13, .created_ms = 2, .is_new = true}};
    rollout_scale(15, (struct rolling){3, 2}, 13, true, s, 2);
    assert_int_equal(s[0].target, 11);
    assert_int_equal(s[1].target, 7);
    /* down to nothing */
    rollout_scale(0, (struct rolling){0, 0}, 13, true, s, 2);
    assert_int_equal(s[0].target, 0);
    assert_int_equal(s[1].target, 0);
    /* leftovers go to the largest; equal ones: the newer when it grows, the older when it shrinks
     */
    struct rollout_set even[2] = {
        {.replicas = 5, .desired = 10, .max = 10, .created_ms = 1},
        {.replicas = 5, .desired = 10, .max = 10, .created_ms = 2, .is_new = true}};
    rollout_scale(11, (struct rolling){0, 1}, 10, true, even, 2);
    assert_int_equal(even[0].target + even[1].target, 11);
    assert_int_equal(even[1].target, 6);
    rollout_scale(9, (struct rolling){0, 1}, 10, true, even, 2);
    assert_int_equal(even[0].target + even[1].target, 9);
    /* a single active set takes it all */
    struct rollout_set one[2] = {{.replicas = 0}, {.replicas = 3, .is_new = true}};
    rollout_scale(7, (struct rolling){1, 0}, 3, true, one, 2);
    assert_int_equal(one[0].target, 0);
    assert_int_equal(one[1].target, 7);
    /* saturated: the old ones are done */
    struct rollout_set done[2] = {
        {.replicas = 2, .desired = 4, .max = 5},
        {.replicas = 4, .available = 4, .desired = 4, .max = 5, .is_new = true, .created_ms = 9}};
    rollout_scale(4, (struct rolling){1, 0}, 6, true, done, 2);
    assert_int_equal(done[0].target, 0);
    assert_int_equal(done[1].target, 4);
}

static void test_scaling_never_goes_wrong(void **state)
{
    (void)state;
    for (int64_t a = 0; a <= 9; a++)
        for (int64_t b = 0; b <= 9; b++)
            for (int64_t c = 0; c <= 9; c += 3)
                for (int64_t want = 0; want <= 20; want += 4) {
                    struct rollout_set s[3] = {
                        {.replicas = a, .max = a + b + c, .desired = 9, .created_ms = 1},
                        {.replicas = b, .max = a + b + c, .desired = 9, .created_ms = 2},
                        {.replicas = c,
                         .max = a + b + c,
                         .desired = 9,
                         .created_ms = 3,
                         .is_new = true}};
                    rollout_scale(want, (struct rolling){2, 0}, a + b + c, true, s, 3);
                    int64_t total = 0, active = (a > 0) + (b > 0) + (c > 0);
                    for (int i = 0; i < 3; i++) {
                        assert_true(s[i].target >= 0);
                        total += s[i].target;
                    }
                    assert_int_equal(total, active <= 1 ? want : want ? want + 2 : 0);
                }
}

static void test_first_to_go(void **state)
{
    (void)state;
    static const char *const pods[] = {
        /* in the order in which they are to be deleted */
        "{'metadata':{'name':'unassigned'},'status':{'phase':'Pending'}}",
        "{'metadata':{'name':'pending'},'spec':{'nodeName':'n'},'status':{'phase':'Pending'}}",
        "{'metadata':{'name':'unready'},'spec':{'nodeName':'n'},'status':{'phase':'Running'}}",
        "{'metadata':{'name':'cheap','annotations':{'controller.kubernetes.io/"
        "pod-deletion-cost':'-5'}},'spec':{'nodeName':'n'},"
        "'status':{'phase':'Running','conditions':[{'type':'Ready','status':'True','"
        "lastTransitionTime':'2026-01-01T00:00:00Z'}]}}",
        "{'metadata':{'name':'new'},'spec':{'nodeName':'n'},'status':{'phase':'Running','"
        "conditions':[{'type':'Ready','status':'True',"
        "'lastTransitionTime':'2026-01-03T00:00:00Z'}]}}",
        "{'metadata':{'name':'restarts','creationTimestamp':'2026-01-01T00:00:00Z'},'spec':{'"
        "nodeName':'n'},'status':{'phase':'Running','containerStatuses':[{'restartCount':3}],"
        "'conditions':[{'type':'Ready','status':'True','lastTransitionTime':'2026-01-01T00:00:00Z'}"
        "]}}",
        "{'metadata':{'name':'younger','creationTimestamp':'2026-01-02T00:00:00Z'},'spec':{'"
        "nodeName':'n'},'status':{'phase':'Running',"
        "'conditions':[{'type':'Ready','status':'True','lastTransitionTime':'2026-01-01T00:00:00Z'}"
        "]}}",
        "{'metadata':{'name':'older','creationTimestamp':'2026-01-01T00:00:00Z'},'spec':{'nodeName'"
        ":'n'},'status':{'phase':'Running',"
        "'conditions':[{'type':'Ready','status':'True','lastTransitionTime':'2026-01-01T00:00:00Z'}"
        "]}}",
    };
    enum { N = sizeof(pods) / sizeof(*pods) };
    struct arena a = {0};
    struct kube_object *o[N];
    for (int i = 0; i < N; i++) o[i] = kube_object_new(parse(&a, pods[i]));
    for (int rotation = 0; rotation < N; rotation++) {
        struct objects v = {0};
        for (int i = 0; i < N; i++) objects_add(&v, o[(i + rotation) % N]);
        replicas_sort_for_deletion(&v, NULL, 0, (struct slice){0});
        for (int i = 0; i < N; i++) assert_ptr_equal(v.list[i], o[i]);
        objects_release(&v);
    }
    int64_t wait;
    struct objects v = {0};
    for (int i = 0; i < N; i++) objects_add(&v, o[i]);
    struct json *rs = parse(&a, "{'spec':{'minReadySeconds':60}}");
    /* half a minute after `new` became ready: 2026-01-03T00:00:30Z */
    struct replicas_counts n = replicas_count(rs, &v, 1767398430000, &wait);
    assert_int_equal(n.replicas, N);
    assert_int_equal(n.ready, 5);
    assert_int_equal(n.available, 4);
    assert_int_equal(wait, 30000);
    objects_release(&v);
    for (int i = 0; i < N; i++) kube_object_unref(o[i]);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_updates_keep_their_promises),
        cmocka_unit_test(test_stuck_update_keeps_the_old),
        cmocka_unit_test(test_proportional_scaling),
        cmocka_unit_test(test_scaling_never_goes_wrong),
        cmocka_unit_test(test_first_to_go),
    };
    return cmocka_run_group_tests_name("clients/controllers", tests, NULL, NULL);
}
