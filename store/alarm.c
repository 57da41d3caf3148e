/* The quota, alarms and member attributes. The quota is decided by the logical size, which is the
 * same on all members whatever each has freed so far. */
#include "store/store_int.h"

#include "base/limits.h"
#include "base/mem.h"

static struct alarm_record *find(const struct store *s, uint64_t member_id, enum alarm_type type)
{
    for (size_t i = 0; i < s->n_alarms; i++)
        if (s->alarms[i].alarm.member_id == member_id && s->alarms[i].alarm.alarm == type)
            return &s->alarms[i];
    return NULL;
}

void alarm_add(struct store *s, struct alarm alarm, bool automatic)
{
    struct alarm_record *old = find(s, alarm.member_id, alarm.alarm);
    if (old) {
        old->automatic = old->automatic && automatic;
        return;
    }
    s->alarms = mem_must_realloc(s->alarms, (s->n_alarms + 1) * sizeof(*s->alarms));
    s->alarms[s->n_alarms++] = (struct alarm_record){alarm, automatic};
}

static void drop(struct store *s, struct alarm_record *a)
{
    s->n_alarms--;
    memmove(a, a + 1, (size_t)(s->alarms + s->n_alarms - a) * sizeof(*a));
}

/* As etcd: ALARM_NONE activates nothing; deactivating what is not there is no error. */
void alarm_apply(struct store *s, uint64_t member_id, enum alarm_type type, bool activate)
{
    struct alarm_record *a = find(s, member_id, type);
    if (activate && type != ALARM_NONE && s->n_alarms < LIMIT_MEMBER_RECORDS)
        alarm_add(s, (struct alarm){member_id, type}, false);
    else if (!activate && a) drop(s, a);
}

int quota_check(struct store *s, int64_t cost)
{
    if (cost <= s->quota && store_size_in_use(s) <= s->quota - cost) return 0;
    alarm_add(s, (struct alarm){0, ALARM_NOSPACE}, true);
    return ERR_NO_SPACE;
}

/* Not at once after a refusal, however small the quota: what was refused is at most a request. */
void quota_relax(struct store *s)
{
    int64_t room = s->quota / 20, request = (int64_t)LIMIT_REQUEST_BYTES;
    if (room < request) room = request < s->quota / 2 ? request : s->quota / 2;
    if (s->n_alarms == 0 || store_size_in_use(s) > s->quota - room) return;
    struct alarm_record *a = find(s, 0, ALARM_NOSPACE);
    if (a && a->automatic) drop(s, a);
}

void verdict_apply(struct store *s, uint64_t member_id, bool corrupt)
{
    struct alarm_record *a = find(s, member_id, ALARM_CORRUPT);
    if (corrupt) alarm_add(s, (struct alarm){member_id, ALARM_CORRUPT}, true); /* at most one a member */
    else if (!corrupt && a && a->automatic) drop(s, a);
}

bool store_member_corrupt(const struct store *s, uint64_t member_id)
{
    const struct alarm_record *a = find(s, member_id, ALARM_CORRUPT);
    return a && a->automatic;
}

/* An alarm that someone activated works as in etcd: NOSPACE refuses what grows, CORRUPT every change. A comparison that names
 * the member that is wrong leaves the others at work; one that cannot tell (member 0) stops changes. */
int alarm_refusal(const struct store *s, const struct command *c)
{
    if (s->n_alarms == 0 || c->type >= COMMAND_ALARM) return 0;
    bool no_space = false, corrupt = false;
    for (size_t i = 0; i < s->n_alarms; i++) {
        const struct alarm_record *a = &s->alarms[i];
        no_space |= a->alarm.alarm == ALARM_NOSPACE && !a->automatic;
        corrupt |= a->alarm.alarm == ALARM_CORRUPT && (!a->automatic || a->alarm.member_id == 0);
    }
    if (corrupt) return ERR_CORRUPT;
    if (!no_space) return 0;
    bool puts = c->type == COMMAND_OP &&
                (c->op.type == OP_PUT || (c->op.type == OP_TXN && txn_op_puts(c->op.txn)));
    return puts || c->type == COMMAND_LEASE_GRANT ? ERR_NO_SPACE : 0;
}

size_t store_alarms(const struct store *s, struct alarm *alarms, size_t max)
{
    size_t n = s->n_alarms < max ? s->n_alarms : max;
    for (size_t i = 0; i < n; i++) alarms[i] = s->alarms[i].alarm;
    return n;
}

/* ---- members -------------------------------------------------------------------------------- */

static struct slice copy(struct slice s)
{
    uint8_t *p = mem_must_alloc(s.len);
    if (s.len) memcpy(p, s.data, s.len);
    return (struct slice){p, s.len};
}

static void clear_member(struct member_record *m)
{
    mem_free((void *)m->name.data);
    for (size_t i = 0; i < m->n_urls; i++) mem_free((void *)m->urls[i].data);
    mem_free(m->urls);
}

static void forget_member(struct store *s, uint64_t id, size_t at)
{
    for (size_t i = s->n_alarms; i-- > 0;)
        if (s->alarms[i].alarm.member_id == id) drop(s, &s->alarms[i]);
    if (at == s->n_members) return;
    clear_member(&s->members[at]);
    s->n_members--;
    memmove(s->members + at, s->members + at + 1, (s->n_members - at) * sizeof(*s->members));
}

int member_apply(struct store *s, uint64_t id, struct slice name, const struct slice *urls,
                 size_t n)
{
    size_t at = 0;
    while (at < s->n_members && s->members[at].id != id) at++;
    if (name.len == 0 && n == 0) {
        forget_member(s, id, at);
        return 0;
    }
    if (at < s->n_members) {
        clear_member(&s->members[at]);
    } else {
        if (s->n_members >= LIMIT_MEMBER_RECORDS) return ERR_LIMIT;
        s->members = mem_must_realloc(s->members, (s->n_members + 1) * sizeof(*s->members));
        s->n_members++;
    }
    struct member_record *m = &s->members[at];
    *m = (struct member_record){id, copy(name), mem_must_calloc(n, sizeof(*urls)), n};
    for (size_t i = 0; i < n; i++) m->urls[i] = copy(urls[i]);
    return 0;
}

void members_release(struct store *s)
{
    for (size_t i = 0; i < s->n_members; i++) clear_member(&s->members[i]);
    mem_free(s->members);
    s->members = NULL;
    s->n_members = 0;
}

uint64_t store_member_after(const struct store *s, uint64_t id)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < s->n_members; i++)
        if (s->members[i].id > id && s->members[i].id < next) next = s->members[i].id;
    for (size_t i = 0; i < s->n_alarms; i++) {
        const struct alarm_record *a = &s->alarms[i];
        if (a->automatic && a->alarm.member_id > id && a->alarm.member_id < next) next = a->alarm.member_id;
    }
    return next == UINT64_MAX ? 0 : next;
}

bool store_member_attributes(const struct store *s, uint64_t member_id,
                             struct member_attributes *ret)
{
    for (size_t i = 0; i < s->n_members; i++) {
        const struct member_record *m = &s->members[i];
        if (m->id != member_id) continue;
        *ret = (struct member_attributes){m->id, m->name, m->urls, m->n_urls};
        return true;
    }
    return false;
}
