/* etcd's guarantees for watches. Each session must be told exactly the changes in its range: in order, none twice, none missing, the
 * changes of a revision together; a bookmark says that nothing before it is missing; a refusal as compacted must be true. */
#include <inttypes.h>

#include "judge_int.h"

struct session {
    bool open;
    size_t at;         /* the next change that it may be told of; those out of its range are passed over */
    int64_t next;      /* nothing before this revision is to come */
    struct slice key, end;
    bool prev, started;
    unsigned line;
};

static void wrong(struct judge *j, const struct watch_line *w, const struct session *s, int64_t rev, const char *what)
{
    violation(j, w->line, "watcher %" PRId64 " on member %" PRId64 " (since line %u), revision %" PRId64 ": %s", w->watcher, w->member + 1, s->line, rev,
              what);
}

static const struct change *next_change(const struct judge *j, struct session *s)
{
    while (s->at < j->n_changes && !in_range(j->changes[s->at].key, s->key, s->end)) s->at++;
    return s->at < j->n_changes ? &j->changes[s->at] : NULL;
}

static void check_prev(struct judge *j, const struct watch_line *w, const struct session *s, const struct watch_event *e, const struct change *c)
{
    bool creates = !c->tombstone && c->create == c->rev;
    const struct change *before = creates ? NULL : timeline_get(j, c->key, (size_t)(c - j->changes));
    if (!s->prev) {
        if (e->has_prev) wrong(j, w, s, c->rev, "a previous value that was not asked for");
    } else if (e->has_prev) {
        if (!before || !same_kv(&e->prev, before, false)) wrong(j, w, s, c->rev, "wrong previous value");
    } else if (before && compacted_by(j, w->t, false) < c->rev - 1) {
        wrong(j, w, s, c->rev, "the previous value is missing");
    }
}

static bool check_event(struct judge *j, const struct watch_line *w, struct session *s, const struct watch_event *e)
{
    const struct change *c = next_change(j, s);
    j->events_checked++;
    if (!c || e->kv.mod > c->rev) {
        wrong(j, w, s, e->kv.mod, c ? "changes before it were not told" : "no such change");
        return false;
    }
    if (e->kv.mod < c->rev) {
        wrong(j, w, s, e->kv.mod, e->kv.mod < s->next ? "told again, or out of order" : "no such change in its range");
        return false;
    }
    if (e->tombstone != c->tombstone || !(c->tombstone ? slice_eq(e->kv.key, c->key) : same_kv(&e->kv, c, false))) {
        wrong(j, w, s, e->kv.mod, "another change than happened");
        return false;
    }
    check_prev(j, w, s, e, c);
    s->at++;
    return true;
}

static void check_told(struct judge *j, const struct watch_line *w, struct session *s)
{
    const struct change *c;
    for (size_t i = 0; i < w->n; i++) {
        if (check_event(j, w, s, &w->events[i])) continue;
        s->open = false; /* one fault is said once */
        return;
    }
    c = next_change(j, s);
    if (w->n) {
        int64_t last = w->events[w->n - 1].kv.mod;
        if (c && c->rev == last && !w->fragment) wrong(j, w, s, last, "the changes of one revision came apart");
        s->next = w->fragment ? last : last + 1;
    } else if (!w->fragment) {
        if (c && c->rev <= w->rev) wrong(j, w, s, w->rev, "a bookmark goes past a change that was not told");
        if (w->rev + 1 > s->next) s->next = w->rev + 1;
    }
}

static void check_canceled(struct judge *j, const struct watch_line *w, struct session *s)
{
    s->open = false;
    if (!w->compact_rev) {
        wrong(j, w, s, 0, show(w->text));
    } else if (w->compact_rev < s->next) {
        wrong(j, w, s, w->compact_rev, "canceled as compacted, but it needed nothing that old");
    } else if (compacted_by(j, w->t, false) < w->compact_rev) {
        wrong(j, w, s, w->compact_rev, "canceled for a compaction that nobody asked for");
    }
}

static void begin(struct judge *j, const struct watch_line *w, struct session *s)
{
    *s = (struct session){.open = true, .key = w->key, .end = w->end, .prev = w->prev, .line = w->line, .started = w->start > 0, .next = w->start};
    s->at = timeline_at(j, w->start);
}

void judge_watch(struct judge *j)
{
    enum { WATCHERS = 1024 };
    struct session *sessions = mem_must_calloc(WATCHERS, sizeof(*sessions));
    for (size_t i = 0; i < j->n_watches; i++) {
        const struct watch_line *w = &j->watches[i];
        struct session *s = &sessions[w->watcher & (WATCHERS - 1)];
        if (w->what == WATCH_CREATE) {
            begin(j, w, s);
        } else if (w->what == WATCH_END) {
            s->open = false;
        } else if (!s->open) {
            continue;
        } else if (w->what == WATCH_CREATED && !s->started) {
            s->started = true;
            s->next = w->rev + 1;
            s->at = timeline_at(j, s->next);
        } else if (w->what == WATCH_TOLD) {
            check_told(j, w, s);
        } else if (w->what == WATCH_CANCELED) {
            check_canceled(j, w, s);
        }
    }
    mem_free(sessions);
}
