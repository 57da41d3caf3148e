#include <string.h>

#include "base/err.h"
#include "judge_int.h"

#define GROW(j, what)                                                                                          \
    do {                                                                                                       \
        if ((j)->n_##what < (j)->what##_size) break;                                                           \
        (j)->what##_size = (j)->what##_size ? 2 * (j)->what##_size : 1024;                                     \
        (j)->what = mem_must_realloc((j)->what, (j)->what##_size * sizeof(*(j)->what));                        \
    } while (0)

static int64_t number(const struct json *v)
{
    int64_t n = 0;
    if (v && !json_to_int(v, &n)) n = 0;
    return n;
}

static int64_t field(const struct json *v, const char *name)
{
    return number(json_get(v, name));
}

/* The line's own tree goes away; what is kept is copied. */
static struct slice text(struct judge *j, const struct json *v)
{
    return arena_dup(&j->arena, json_text(v));
}

static size_t count(const struct json *v)
{
    return v && v->type == JSON_ARRAY ? v->count : 0;
}

static struct kv parse_kv(struct judge *j, const struct json *v)
{
    return (struct kv){text(j, json_at(v, 0)),   text(j, json_at(v, 1)),   number(json_at(v, 2)),
                       number(json_at(v, 3)), number(json_at(v, 4)), number(json_at(v, 5))};
}

static struct kv *parse_kvs(struct judge *j, const struct json *v)
{
    struct kv *kvs = arena_calloc(&j->arena, count(v) + 1, sizeof(*kvs));
    for (size_t i = 0; i < count(v); i++) kvs[i] = parse_kv(j, json_at(v, i));
    return kvs;
}

static struct kv_op parse_kv_op(struct judge *j, const struct json *v)
{
    struct kv_op op = {.key = text(j, json_at(v, 1))};
    switch (json_text(json_at(v, 0)).data[0]) {
    case 'p':
        op.type = KV_PUT;
        op.value = text(j, json_at(v, 2));
        op.lease = number(json_at(v, 3));
        op.prev = number(json_at(v, 4));
        return op;
    case 'd':
        op.type = KV_DELETE;
        op.end = text(j, json_at(v, 2));
        op.prev = number(json_at(v, 3));
        return op;
    default: break;
    }
    op.end = text(j, json_at(v, 2));
    op.rev = number(json_at(v, 3));
    op.limit = number(json_at(v, 4));
    op.order = (int)number(json_at(v, 5));
    op.target = (int)number(json_at(v, 6));
    op.keys_only = number(json_at(v, 7));
    op.count_only = number(json_at(v, 8));
    return op;
}

static struct kv_op *parse_branch(struct judge *j, const struct json *v, size_t *ret_n)
{
    struct kv_op *ops = arena_calloc(&j->arena, count(v) + 1, sizeof(*ops));
    *ret_n = count(v);
    for (size_t i = 0; i < *ret_n; i++) ops[i] = parse_kv_op(j, json_at(v, i));
    return ops;
}

static struct kv_result parse_result(struct judge *j, const struct json *v)
{
    struct kv_result r = {0};
    const struct json *one = json_at(v, 1), *list = one;
    switch (json_text(json_at(v, 0)).data[0]) {
    case 'p':
        r.n = one && one->type == JSON_ARRAY;
        r.kvs = arena_calloc(&j->arena, 1, sizeof(*r.kvs));
        if (r.n) r.kvs[0] = parse_kv(j, one);
        return r;
    case 'd':
        r.count = number(one);
        list = json_at(v, 2);
        break;
    default:
        r.more = number(json_at(v, 2));
        r.count = number(json_at(v, 3));
        break;
    }
    r.kvs = parse_kvs(j, list);
    r.n = count(list);
    return r;
}

static void parse_compares(struct judge *j, struct op *op, const struct json *v)
{
    op->n_compare = count(v);
    op->compare = arena_calloc(&j->arena, op->n_compare + 1, sizeof(*op->compare));
    for (size_t i = 0; i < op->n_compare; i++) {
        const struct json *c = json_at(v, i), *operand = json_at(c, 3);
        op->compare[i] = (struct compare){.key = text(j, json_at(c, 0)),
                                          .target = (int)number(json_at(c, 1)),
                                          .result = (int)number(json_at(c, 2)),
                                          .number = number(operand),
                                          .value = text(j, operand && operand->type == JSON_STRING ? operand : NULL)};
    }
}

static enum op_kind kind_of(const struct json *v)
{
    static const char *const names[] = {"compact", "grant", "revoke", "keep", "hash"};
    for (unsigned i = 0; i < 5; i++)
        if (json_is_str(v, names[i])) return (enum op_kind)(OP_COMPACT + i);
    return OP_KV;
}

static void parse_op(struct judge *j, const struct json *v)
{
    GROW(j, ops);
    struct op *op = &j->ops[j->n_ops++];
    const struct json *results = json_get(v, "res");
    switch (json_text(json_get(v, "s")).data[0]) {
    case 'o': j->n_ok++; break;
    case 'u': j->n_unknown++; break;
    case 'r': j->n_refused++; break;
    default: j->n_errors++; break;
    }
    char s = (char)json_text(json_get(v, "s")).data[0];
    *op = (struct op){.kind = kind_of(json_get(v, "k")),
                      .outcome = s == 'o' ? OUTCOME_OK : s == 'u' ? OUTCOME_UNKNOWN : s == 'r' ? OUTCOME_REFUSED : OUTCOME_ERROR,
                      .line = j->lines,
                      .client = field(v, "c"),
                      .member = field(v, "m"),
                      .connection = field(v, "n"),
                      .t0 = field(v, "t0"),
                      .t1 = field(v, "t1"),
                      .code = (int)field(v, "code"),
                      .text = text(j, json_get(v, "text")),
                      .lin = field(v, "lin"),
                      .txn = json_get(v, "cmp") != NULL,
                      .ok = json_get(v, "ok") ? field(v, "ok") : true,
                      .rev = field(v, "rev"),
                      .arg = field(v, "arg"),
                      .lease = field(v, "lease"),
                      .ttl = field(v, "ttl"),
                      .hash = field(v, "hash"),
                      .compact_rev = field(v, "crev")};
    parse_compares(j, op, json_get(v, "cmp"));
    op->then = parse_branch(j, json_get(v, "then"), &op->n_then);
    op->other = parse_branch(j, json_get(v, "else"), &op->n_else);
    op->n_results = count(results);
    op->results = arena_calloc(&j->arena, op->n_results + 1, sizeof(*op->results));
    for (size_t i = 0; i < op->n_results; i++) op->results[i] = parse_result(j, json_at(results, i));
}

static void parse_watch(struct judge *j, const struct json *v)
{
    static const char *const names[] = {"create", "created", "told", "canceled", "end", "ask"};
    const struct json *events = json_get(v, "ev");
    GROW(j, watches);
    struct watch_line *w = &j->watches[j->n_watches++];
    *w = (struct watch_line){.line = j->lines,
                             .watcher = field(v, "w"),
                             .member = field(v, "m"),
                             .t = field(v, "t"),
                             .rev = field(v, "rev"),
                             .start = field(v, "start"),
                             .compact_rev = field(v, "crev"),
                             .key = text(j, json_get(v, "key")),
                             .end = text(j, json_get(v, "end")),
                             .text = text(j, json_get(v, "text")),
                             .prev = field(v, "prev"),
                             .all = field(v, "all"),
                             .fragment = field(v, "frag"),
                             .n = count(events)};
    for (unsigned i = 0; i < 6; i++)
        if (json_is_str(json_get(v, "k"), names[i])) w->what = (enum watch_what)i;
    w->events = arena_calloc(&j->arena, w->n + 1, sizeof(*w->events));
    for (size_t i = 0; i < w->n; i++) {
        const struct json *e = json_at(events, i);
        w->events[i] = (struct watch_event){.tombstone = number(json_at(e, 0)) == 1, .kv = parse_kv(j, json_at(e, 1)), .has_prev = count(e) > 2};
        if (count(e) > 2) w->events[i].prev = parse_kv(j, json_at(e, 2));
    }
}

static void parse_final(struct judge *j, const struct json *v)
{
    GROW(j, finals);
    j->finals[j->n_finals++] =
        (struct final_line){j->lines, field(v, "m"), field(v, "rev"), field(v, "hash"), field(v, "crev")};
}

int judge_read(struct judge *j, struct slice all)
{
    struct arena line = {0};
    while (all.len > 0) {
        ptrdiff_t end = slice_index(all, '\n');
        if (end < 0) break; /* cut off in the middle of a line */
        struct json *v;
        struct json_error e;
        j->lines++;
        arena_reset(&line);
        if (json_parse(&line, slice_sub(all, 0, (size_t)end), 0, &v, &e) != 0) {
            fprintf(stderr, "judge: line %u: %s\n", j->lines, e.text);
            return -1;
        }
        if (json_is_str(json_get(v, "e"), "op")) parse_op(j, v);
        else if (json_is_str(json_get(v, "e"), "w")) parse_watch(j, v);
        else if (json_is_str(json_get(v, "e"), "final")) parse_final(j, v);
        all = slice_sub(all, (size_t)end + 1, all.len);
    }
    arena_release(&line);
    return 0;
}
