/* Who may join: what a member with an empty folder makes of what the others say of themselves and of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "api/cluster.h"

/* What each member of a cluster of three, n1 to n3, answers to n4; NULL: nothing. */
struct world {
    const struct join_cluster *answers[3];
    unsigned asked;
};

static int ask(void *ctx, const struct consensus_member *member, struct arena *a, struct join_cluster *ret, struct err *e)
{
    struct world *w = ctx;
    (void)a;
    w->asked++;
    assert_in_range(member->id, 1, 3);
    if (!w->answers[member->id - 1]) return err_set(e, ERR_UNAVAILABLE, "%s: cannot connect", member->peer_url);
    *ret = *w->answers[member->id - 1];
    return 0;
}

/* As member n4, under that name. */
static int join(struct world *w, const char *name, struct cluster *ret, struct err *e)
{
    static struct arena a;
    static struct consensus_member flags[] = {{.id = 1, .name = "n1", .peer_url = "http://n1:1"},
                                              {.id = 2, .name = "n2", .peer_url = "http://n2:1"},
                                              {.id = 3, .name = "n3", .peer_url = "http://n3:1"},
                                              {.id = 44, .name = "n4", .peer_url = "http://n4:1"}};
    *ret = (struct cluster){.members = flags, .n = 4, .own_id = 44, .own_peer_url = "http://n4:1"};
    w->asked = 0;
    e->text[0] = 0;
    int rv = cluster_join(&a, ret, name, ask, w, e);
    if (rv == 0) assert_ptr_not_equal(ret->members, flags);
    else arena_release(&a);
    return rv;
}

/* n3 joined, and was given its name later than its URL; n4 was added. */
static struct join_cluster answer(uint64_t index, const char *n3, bool added)
{
    return (struct join_cluster){.cluster_id = 99,
                                 .index = index,
                                 .n = added ? 4 : 3,
                                 .members = {{.id = 1, .name = "n1", .peer_url = "http://n1:1"},
                                             {.id = 2, .name = "n2", .peer_url = "http://n2:1"},
                                             {.id = 3, .name = n3, .peer_url = "http://n3:1"},
                                             {.id = 4, .name = "", .peer_url = "http://n4:1", .learner = true, .promote = true}}};
}

static void test_told(void **state)
{
    (void)state;
    const struct join_cluster now = answer(9, "n3", true);
    struct world w = {.answers = {NULL, &now, NULL}};
    struct cluster c;
    struct err e;
    assert_int_equal(join(&w, "n4", &c, &e), 0);
    assert_true(c.own_id == 4 && c.cluster_id == 99 && c.index == 9 && c.n == 4);
    assert_string_equal(c.members[2].name, "n3");
}

static void test_nobody(void **state)
{
    (void)state;
    struct world w = {0};
    struct cluster c;
    struct err e;
    assert_int_equal(join(&w, "n4", &c, &e), ERR_UNAVAILABLE);
    assert_int_equal(w.asked, 3);
    assert_non_null(strstr(e.text, "cannot connect"));
    assert_true(c.own_id == 44 && c.index == 0);
}

static void test_not_added(void **state)
{
    (void)state;
    const struct join_cluster before = answer(8, "n3", false), now = answer(9, "n3", true);
    struct world w = {.answers = {&before, &before, &before}};
    struct cluster c;
    struct err e;
    assert_int_equal(join(&w, "n4", &c, &e), ERR_MEMBER_NOT_FOUND);
    assert_non_null(strstr(e.text, "member add n4 --peer-urls=http://n4:1"));
    w.answers[2] = &now; /* one of them knows of it */
    assert_int_equal(join(&w, "n4", &c, &e), 0);
    assert_int_equal(c.own_id, 4);
}

static void test_namesake(void **state)
{
    (void)state;
    const struct join_cluster now = answer(9, "n3", true);
    struct world w = {.answers = {&now, &now, &now}};
    struct cluster c;
    struct err e;
    assert_int_equal(join(&w, "n3", &c, &e), ERR_EXISTS);
    assert_non_null(strstr(e.text, "another member, 3 at http://n3:1, is named \"n3\" already"));
}

static void test_has_run(void **state)
{
    (void)state;
    struct join_cluster named = answer(9, "n3", true), voter = answer(10, "n3", true);
    named.members[3].name = "n4";
    voter.members[3].learner = voter.members[3].promote = false;
    const struct join_cluster *const both[] = {&named, &voter};
    for (int i = 0; i < 2; i++) {
        struct world w = {.answers = {both[i], NULL, NULL}};
        struct cluster c;
        struct err e;
        assert_int_equal(join(&w, "n4", &c, &e), ERR_EXISTS);
        assert_non_null(strstr(e.text, "member 4 at http://n4:1 has run before"));
    }
}

/* One of those who answer is behind: has not seen a name yet, or who was replaced. */
static void test_behind(void **state)
{
    (void)state;
    const struct join_cluster now = answer(9, "n3", true), unnamed = answer(9, "", true);
    struct join_cluster replaced = answer(8, "n3", true);
    struct cluster c;
    struct err e;
    for (int i = 0; i < 2; i++) {
        struct world w = {.answers = {i ? &now : &unnamed, i ? &unnamed : &now, NULL}};
        assert_int_equal(join(&w, "n3", &c, &e), ERR_EXISTS);
        assert_int_equal(join(&w, "n4", &c, &e), 0);
    }
    replaced.members[3] = (struct consensus_member){.id = 5, .name = "n4", .peer_url = "http://n4:1"};
    for (int i = 0; i < 2; i++) {
        struct world w = {.answers = {i ? &now : &replaced, i ? &replaced : &now, NULL}};
        assert_int_equal(join(&w, "n4", &c, &e), 0);
        assert_true(c.own_id == 4 && c.index == 9);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told),     cmocka_unit_test(test_nobody),  cmocka_unit_test(test_not_added),
        cmocka_unit_test(test_namesake), cmocka_unit_test(test_has_run), cmocka_unit_test(test_behind),
    };
    return cmocka_run_group_tests_name("cluster", tests, NULL, NULL);
}
