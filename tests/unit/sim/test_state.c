/* The comparison of states judged: members that applied the same pass, also from each other's
 * snapshots; whatever differs in one of them is told at the next entry, or when all is compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/mem.h"
#include "schemas/batch.h"
#include "store/store_int.h"
#include "tests/sim/harness.h"

#define LEASE 70

struct world {
    struct run run;
    struct run_result result;
    struct life lives[3]; /* by member */
    struct store *stores[3];
    uint64_t next; /* index */
};

static struct world *fresh(void)
{
    struct world *w = mem_must_calloc(1, sizeof *w);
    w->run.result = &w->result;
    w->run.model = model_new(&w->run.verdict);
    w->next = 2;
    for (unsigned i = 1; i < 3; i++) {
        w->lives[i] = (struct life){.run = &w->run, .id = i};
        w->stores[i] = store_new(NULL);
    }
    return w;
}

static void release(struct world *w)
{
    for (unsigned i = 1; i < 3; i++) store_free(w->stores[i]);
    model_free(w->run.model);
    mem_free(w->run.states);
    mem_free(w);
}

/* One member applies the entry at `index`. */
static bool apply_one(struct world *w, unsigned member, uint64_t index, const struct command *c)
{
    struct life *l = &w->lives[member];
    struct batch_writer b = {0};
    struct buf bytes = {0};
    struct arena arena = {0};
    struct result result = {0};
    command_encode(&bytes, c);
    batch_begin(&b, 1, 1 << 20);
    assert_int_equal(batch_add(&b, 0, buf_slice(&bytes)), 0);
    assert_true(
        model_apply(w->run.model, member, l->applied, index, 1, batch_finish(&b), 1000 * index));
    l->applied = index;
    store_apply(w->stores[member], c, &arena, &result);
    result_release(&result);
    event_batch_unref(store_take_events(w->stores[member]));
    state_check(l, w->stores[member], false);
    arena_release(&arena);
    batch_release(&b);
    buf_release(&bytes);
    return !run_failed(&w->run);
}

static bool apply(struct world *w, const struct command *c)
{
    uint64_t index = w->next++;
    return apply_one(w, 1, index, c) && apply_one(w, 2, index, c);
}

static struct command put(const char *key, const char *value, int64_t lease)
{
    return (struct command){
        .type = COMMAND_OP,
        .op = {.type = OP_PUT,
               .put = {.key = slice_str(key), .value = slice_str(value), .lease = lease}}};
}

/* Something of everything that a state has. */
static void fill(struct world *w)
{
    static struct lease_checkpoint left = {.id = LEASE, .remaining_ttl = 33};
    static struct slice urls[] = {SLICE_LIT("http://m1:2379"), SLICE_LIT("http://m1:2380")};
    const struct command commands[] = {
        {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE, .ttl = 60}},
        {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE + 1, .ttl = 1}},
        put("a", "first", 0),
        put("b", "leased", LEASE),
        put("a", "second", 0),
        {.type = COMMAND_LEASE_CHECKPOINT, .checkpoint = {.leases = &left, .count = 1}},
        put("c", "gone", 0),
        {.type = COMMAND_OP, .op = {.type = OP_DELETE, .del = {.key = SLICE_LIT("c")}}},
        {.type = COMMAND_COMPACT, .compact = {.revision = 5}},
        {.type = COMMAND_VERDICT, .check = {.member_id = 2, .corrupt = true}},
        {.type = COMMAND_MEMBER_ATTRIBUTES,
         .member =
             {.member_id = 1, .name = SLICE_LIT("m1"), .client_urls = urls, .n_client_urls = 2}},
        {.type = COMMAND_LEASE_REVOKE, .lease_revoke = {.id = LEASE + 1}},
    };
    model_lease_asked(w->run.model, LEASE + 1);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        assert_true(apply(w, &commands[i]));
}

/* Until all is compared. */
static bool fill_up(struct world *w)
{
    uint64_t before = w->result.counts.whole_states;
    const struct command c = put("d", "more", 0);
    while (w->result.counts.whole_states < before + 2)
        if (!apply(w, &c)) return false;
    return true;
}

/* ---- the same ------------------------------------------------------------------------------- */

static struct store *copy(struct store *s)
{
    struct store_snapshot *snap = store_snapshot_open(s);
    struct store_loader *l = store_loader_new(NULL);
    struct store *out = NULL;
    struct err e = {{0}};
    bool done = false;
    while (!done) {
        struct buf b = {0};
        assert_int_equal(store_snapshot_next(snap, 4096, &b, &done), 0);
        assert_int_equal(store_loader_feed(l, buf_slice(&b), &e), 0);
        buf_release(&b);
    }
    assert_int_equal(store_loader_finish(l, &out, &e), 0);
    store_loader_free(l);
    store_snapshot_close(snap);
    return out;
}

static void test_equal(void **state)
{
    (void)state;
    struct world *w = fresh();
    fill(w);
    assert_true(fill_up(w));
    while (store_work(w->stores[1], 10)) continue; /* how much is freed may differ */
    assert_true(fill_up(w));
    assert_true(w->result.counts.states > 100);
    release(w);
}

/* A member that was away goes on from the other's snapshot. */
static void test_snapshot(void **state)
{
    (void)state;
    struct world *w = fresh();
    fill(w);
    const struct command c = put("e", "while it was away", 0);
    for (int i = 0; i < 3; i++) assert_true(apply_one(w, 1, w->next++, &c));
    store_free(w->stores[2]);
    w->stores[2] = copy(w->stores[1]);
    w->lives[2] = (struct life){.run = &w->run, .id = 2, .applied = w->lives[1].applied};
    uint64_t states = w->result.counts.states, whole = w->result.counts.whole_states;
    state_check(&w->lives[2], w->stores[2], true);
    assert_false(run_failed(&w->run));
    assert_true(w->result.counts.states == states + 1 &&
                w->result.counts.whole_states == whole + 1);
    assert_true(fill_up(w));
    release(w);
}

/* ---- what differs --------------------------------------------------------------------------- */

static struct record *newest(struct store *s, const char *key)
{
    struct record *r = index_get(&s->index, slice_str(key));
    assert_non_null(r);
    return r;
}

static void remaining(struct store *s)
{
    lease_find(&s->leases, LEASE)->remaining_ttl = 0;
}

static void ttl(struct store *s)
{
    lease_find(&s->leases, LEASE)->ttl++;
}

static void lease_key(struct store *s)
{
    lease_detach(lease_find(&s->leases, LEASE), SLICE_LIT("b"));
}

static void one_key_more(struct store *s)
{
    lease_attach(lease_find(&s->leases, LEASE), newest(s, "a"));
}

static void alarm_kind(struct store *s)
{
    s->alarms[0].automatic = !s->alarms[0].automatic;
}

static void alarm_lost(struct store *s)
{
    s->n_alarms = 0;
}

static void url(struct store *s)
{
    ((uint8_t *)(uintptr_t)s->members[0].urls[1].data)[3] ^= 1;
}

static void version(struct store *s)
{
    newest(s, "a")->version++;
}

static void key(struct store *s)
{
    newest(s, "b")->data[0]++;
}

static void value(struct store *s)
{
    newest(s, "a")->data[3] ^= 1;
}

static void older_version(struct store *s)
{
    struct rlog_iter it;
    rlog_seek(&s->log, 5, 0, &it)->create_rev++;
}

static void test_different(void **state)
{
    (void)state;
    static const struct {
        void (*harm)(struct store *s);
        bool later; /* found when all is compared */
        const char *what;
    } harms[] = {
        {remaining, false, "its leases"},
        {ttl, false, "its leases"},
        {lease_key, false, "its leases"},
        {one_key_more, false, "its leases"},
        {alarm_kind, false, "its alarms"},
        {alarm_lost, false, "its alarms"},
        {url, false, "its members"},
        {version, false, "its keys"},
        {key, false, "its keys"},
        {value, true, "its store_check"},
        {older_version, true, "its store_check"},
    };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        struct world *w = fresh();
        const struct command nothing = {.type = COMMAND_CHECK};
        fill(w);
        harms[i].harm(w->stores[2]);
        assert_true(apply(w, &nothing) == harms[i].later);
        if (harms[i].later) assert_false(fill_up(w));
        assert_non_null(strstr(w->run.verdict.text, harms[i].what));
        release(w);
    }
}

/* Both members are wrong in the same way. */
static void test_wrong(void **state)
{
    (void)state;
    static const struct {
        void (*harm)(struct store *s);
        const char *what;
    } harms[] = {
        {remaining, "a lease is not"},
        {ttl, "a lease is not"},
        {lease_key, "leases, or keys of leases"},
        {one_key_more, "a lease is not"},
        {version, "does not hold"},
        {value, "does not hold"},
        {older_version, "its history"},
    };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        struct world *w = fresh();
        fill(w);
        for (unsigned m = 1; m < 3; m++) harms[i].harm(w->stores[m]);
        assert_false(fill_up(w));
        assert_non_null(strstr(w->run.verdict.text, harms[i].what));
        release(w);
    }
}

/* What an entry writes is compared at once, also where nobody was before. */
static void test_written(void **state)
{
    (void)state;
    struct world *w = fresh();
    fill(w);
    const struct command c = put("d", "more", 0), other = put("d", "less", 0);
    struct arena arena = {0};
    struct result result = {0};
    struct batch_writer b = {0};
    struct buf bytes = {0};
    command_encode(&bytes, &c);
    batch_begin(&b, 1, 1 << 20);
    assert_int_equal(batch_add(&b, 0, buf_slice(&bytes)), 0);
    assert_true(model_apply(w->run.model, 1, w->lives[1].applied, w->next, 1, batch_finish(&b), 1));
    w->lives[1].applied = w->next;
    store_apply(w->stores[1], &other, &arena, &result);
    state_check(&w->lives[1], w->stores[1], false);
    assert_non_null(strstr(w->run.verdict.text, "its history"));
    result_release(&result);
    arena_release(&arena);
    batch_release(&b);
    buf_release(&bytes);
    release(w);
}

/* Whether a backup that is made now and then harmed counts as one of the entries from..to. */
static bool backup_passes(struct world *w, void (*harm)(struct store *s), uint64_t from, uint64_t to)
{
    struct store *s = copy(w->stores[1]);
    if (harm) harm(s);
    bool ok = state_backup(&w->lives[1], s, from, to);
    store_free(s);
    return ok;
}

static void test_backup(void **state)
{
    (void)state;
    static const struct {
        void (*harm)(struct store *s);
        const char *what;
    } harms[] = {
        {remaining, "its leases"}, {ttl, "its leases"},     {lease_key, "its leases"}, {one_key_more, "its leases"},
        {alarm_kind, "its alarms"}, {alarm_lost, "its alarms"}, {url, "its members"},   {version, "its keys"},
        {value, "does not hold"},  {older_version, "its history"},
    };
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        struct world *w = fresh();
        fill(w);
        uint64_t now = w->lives[1].applied;
        assert_true(backup_passes(w, NULL, now, now));
        assert_true(backup_passes(w, NULL, now - 3, now));
        assert_false(backup_passes(w, harms[i].harm, now - 3, now));
        assert_non_null(strstr(w->run.verdict.text, harms[i].what));
        assert_non_null(strstr(w->run.verdict.text, "a backup"));
        release(w);
    }
}

/* What is not there yet, or any more, is no backup of now: a lease makes no revision. */
static void test_backup_of_another_time(void **state)
{
    (void)state;
    struct world *w = fresh();
    const struct command grant = {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE + 2, .ttl = 60}};
    fill(w);
    uint64_t before = w->lives[1].applied;
    assert_true(apply(w, &grant));
    assert_true(backup_passes(w, NULL, before, before + 1));
    assert_false(backup_passes(w, NULL, before - 1, before));
    release(w);
}

/* While it is cut, a lease is granted and an alarm raised. */
static void test_backup_under_changes(void **state)
{
    (void)state;
    struct world *w = fresh();
    const struct command grant = {.type = COMMAND_LEASE_GRANT, .lease_grant = {.id = LEASE + 2, .ttl = 60}};
    const struct command alarm = {.type = COMMAND_ALARM, .alarm = {.alarm = ALARM_NOSPACE, .activate = true}};
    struct store_loader *l = store_loader_new(NULL);
    struct store *s = NULL;
    struct err e = {{0}};
    bool done = false;
    fill(w);
    uint64_t at = w->lives[1].applied;
    struct store_snapshot *snap = store_snapshot_open(w->stores[1]);
    assert_true(apply(w, &grant) && apply(w, &alarm));
    while (!done) {
        struct buf b = {0};
        assert_int_equal(store_snapshot_next(snap, 4096, &b, &done), 0);
        assert_int_equal(store_loader_feed(l, buf_slice(&b), &e), 0);
        buf_release(&b);
    }
    assert_int_equal(store_loader_finish(l, &s, &e), 0);
    store_loader_free(l);
    store_snapshot_close(snap);
    assert_true(state_backup(&w->lives[1], s, at, at));
    store_free(s);
    release(w);
}

/* A cluster that was made from a backup has its leases until they run out, and its alarms. */
static void test_restored(void **state)
{
    (void)state;
    const struct command alarm = {.type = COMMAND_ALARM, .alarm = {.alarm = ALARM_NOSPACE, .activate = true}};
    static void (*const harms[])(struct store *s) = {ttl, remaining, lease_key, one_key_more, alarm_lost};
    for (size_t i = 0; i < sizeof harms / sizeof *harms; i++) {
        struct world *w = fresh();
        fill(w);
        assert_true(apply(w, &alarm));
        struct store *s = copy(w->stores[1]);
        assert_true(state_restored(&w->run, 1, s, w->stores[1], 1));
        harms[i](s);
        assert_false(state_restored(&w->run, 1, s, w->stores[1], 1));
        store_free(s);
        release(w);
    }
}

/* A member whose memory was made to lie is left alone until it has healed. */
static void test_lying(void **state)
{
    (void)state;
    struct world *w = fresh();
    const struct command c = put("d", "more", 0);
    fill(w);
    version(w->stores[2]);
    w->run.lying = 2;
    assert_true(apply(w, &c));
    w->run.lying = 0;
    assert_false(apply(w, &c));
    release(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),     cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_different), cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_written),   cmocka_unit_test(test_lying),
        cmocka_unit_test(test_backup),    cmocka_unit_test(test_backup_of_another_time),
        cmocka_unit_test(test_backup_under_changes), cmocka_unit_test(test_restored),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
