/* get, put, del, txn, watch, compaction. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/ctl/ctl_int.h"

static const struct pbj_field range_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                               {2, "kvs", PBJ_MESSAGE, .repeated = true, .message = ctl_kv_fields},
                                               {3, "more", PBJ_BOOL},
                                               {4, "count", PBJ_INT64},
                                               {0}};
static const struct pbj_field put_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                             {2, "prev_kv", PBJ_MESSAGE, .message = ctl_kv_fields},
                                             {0}};
static const struct pbj_field delete_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                                {2, "deleted", PBJ_INT64},
                                                {3, "prev_kvs", PBJ_MESSAGE, .repeated = true, .message = ctl_kv_fields},
                                                {0}};
static const struct pbj_field response_op_fields[] = {{1, "response_range", PBJ_MESSAGE, .message = range_fields},
                                                     {2, "response_put", PBJ_MESSAGE, .message = put_fields},
                                                     {3, "response_delete_range", PBJ_MESSAGE, .message = delete_fields},
                                                     {0}};
static const struct pbj_field txn_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                             {2, "succeeded", PBJ_BOOL},
                                             {3, "responses", PBJ_MESSAGE, .repeated = true, .message = response_op_fields},
                                             {0}};
static const struct pbj_field event_fields[] = {{1, "type", PBJ_ENUM},
                                               {2, "kv", PBJ_MESSAGE, .message = ctl_kv_fields},
                                               {3, "prev_kv", PBJ_MESSAGE, .message = ctl_kv_fields},
                                               {0}};
static const struct pbj_field watch_fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields},
                                               {2, "watch_id", PBJ_INT64},
                                               {3, "created", PBJ_BOOL},
                                               {4, "canceled", PBJ_BOOL},
                                               {5, "compact_revision", PBJ_INT64},
                                               {6, "cancel_reason", PBJ_STRING},
                                               {7, "fragment", PBJ_BOOL},
                                               {11, "events", PBJ_MESSAGE, .repeated = true, .message = event_fields},
                                               {0}};

/* ---- printing -------------------------------------------------------------------------------------------- */

static void print_kv(struct ctl *c, const struct json *kv)
{
    if (!ctl_flags.print_value_only) {
        ctl_put_bytes(c, json_get(kv, "key"));
        putchar('\n');
    }
    if (!ctl_flags.print_value_only || !ctl_flags.keys_only) {
        ctl_put_bytes(c, json_get(kv, "value"));
        putchar('\n');
    }
}

static void fields_kv(struct ctl *c, const struct json *kv, const char *prefix)
{
    printf("\"%sKey\" : \"", prefix);
    ctl_put_bytes(c, json_get(kv, "key"));
    printf("\"\n\"%sCreateRevision\" : %lld\n\"%sModRevision\" : %lld\n\"%sVersion\" : %lld\n\"%sValue\" : \"", prefix,
           (long long)ctl_int(kv, "create_revision"), prefix, (long long)ctl_int(kv, "mod_revision"), prefix,
           (long long)ctl_int(kv, "version"), prefix);
    ctl_put_bytes(c, json_get(kv, "value"));
    printf("\"\n\"%sLease\" : %lld\n", prefix, (long long)ctl_int(kv, "lease"));
}

static void each_kv(struct ctl *c, const struct json *list, void (*each)(struct ctl *c, const struct json *kv))
{
    for (size_t i = 0; list && i < list->count; i++) each(c, json_at(list, i));
}

static void fields_one(struct ctl *c, const struct json *kv)
{
    fields_kv(c, kv, "");
}

static void print_range(struct ctl *c, const struct json *r)
{
    const struct json *kvs = json_get(r, "kvs");
    if (c->output == CTL_JSON) {
        ctl_print_json(r);
    } else if (c->output == CTL_FIELDS) {
        ctl_fields_header(r);
        each_kv(c, kvs, fields_one);
        printf("\"More\" : %s\n\"Count\" : %lld\n", json_path_bool(r, "more", false) ? "true" : "false", (long long)ctl_int(r, "count"));
    } else {
        each_kv(c, kvs, print_kv);
    }
}

/* ---- get ----------------------------------------------------------------------------------------------------- */

static int sort_number(const char *text, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (text && strcasecmp(text, names[i]) == 0) return i;
    return -1;
}

static int encode_range_key(struct ctl *c, struct buf *out, const char *key, const char *end)
{
    struct slice k = slice_str(key), e = slice_str(end);
    if (ctl_flags.prefix && ctl_flags.from_key) return ctl_fail("`--prefix` and `--from-key` cannot be set at the same time, choose one");
    if (end && (ctl_flags.prefix || ctl_flags.from_key)) return ctl_fail("too many arguments, only accept one argument when `--prefix` or `--from-key` is set");
    if (!k.len && (ctl_flags.prefix || ctl_flags.from_key)) k = slice_make("", 1), e = slice_make("", 1);
    else if (ctl_flags.prefix) e = ctl_prefix_end(c, k);
    else if (ctl_flags.from_key) e = slice_make("", 1);
    pb_bytes(out, 1, k);
    pb_bytes(out, 2, e);
    return 0;
}

static int cmd_get(struct ctl *c)
{
    static const char *const orders[] = {"NONE", "ASCEND", "DESCEND"};
    static const char *const targets[] = {"KEY", "VERSION", "CREATE", "MODIFY", "VALUE"};
    const struct ctl_flags *f = &ctl_flags;
    struct buf r = {0};
    struct json *answer;
    if (c->argc < 2 || c->argc > 3) return ctl_fail("get command needs one argument as key and an optional argument as range_end");
    int order = f->order ? sort_number(f->order, orders, 3) : 0, target = f->sort_by ? sort_number(f->sort_by, targets, 5) : 0;
    if (order < 0 || target < 0) return ctl_fail("bad sort order or target: %s", order < 0 ? f->order : f->sort_by);
    if (f->sort_by && !f->order) order = 1;
    if (strcmp(f->consistency, "l") && strcmp(f->consistency, "s")) return ctl_fail("unknown consistency flag \"%s\"", f->consistency);
    if (f->keys_only && f->count_only) return ctl_fail("`--keys-only` and `--count-only` cannot be set at the same time, choose one");
    if (f->count_only && c->output != CTL_FIELDS && c->output != CTL_JSON) return ctl_fail("--count-only is only for `--write-out=fields` or json");
    if (encode_range_key(c, &r, c->argv[1], c->argc > 2 ? c->argv[2] : NULL)) return 1;
    pb_uint(&r, 3, (uint64_t)f->limit);
    pb_uint(&r, 4, (uint64_t)f->rev);
    pb_uint(&r, 5, (uint64_t)order);
    pb_uint(&r, 6, (uint64_t)target);
    pb_bool(&r, 7, !strcmp(f->consistency, "s"));
    pb_bool(&r, 8, f->keys_only);
    pb_bool(&r, 9, f->count_only);
    int rv = ctl_call(c, "/etcdserverpb.KV/Range", &r, range_fields, &answer);
    if (rv == 0) print_range(c, answer);
    buf_release(&r);
    return rv;
}

/* ---- put, del -------------------------------------------------------------------------------------------------- */

static int read_stdin(struct buf *out)
{
    uint8_t *p;
    size_t n;
    do {
        p = buf_reserve(out, 65536);
        n = p ? fread(p, 1, 65536, stdin) : 0;
        out->len += n;
    } while (n);
    if (ferror(stdin)) return ctl_fail("cannot read the value from standard input: %s", strerror(errno));
    return out->failed ? ctl_fail("out of memory") : 0;
}

static int encode_put(struct buf *r, const char *key, struct slice value)
{
    int64_t lease = 0;
    if (ctl_flags.lease && !ctl_parse_lease(ctl_flags.lease, &lease)) return ctl_fail("bad lease ID (strconv.ParseInt: parsing \"%s\": invalid syntax), expecting ID in Hex", ctl_flags.lease);
    pb_bytes(r, 1, slice_str(key));
    pb_bytes(r, 2, value);
    pb_uint(r, 3, (uint64_t)lease);
    pb_bool(r, 4, ctl_flags.prev_kv);
    pb_bool(r, 5, ctl_flags.ignore_value);
    pb_bool(r, 6, ctl_flags.ignore_lease);
    return 0;
}

static void print_put(struct ctl *c, const struct json *r)
{
    const struct json *prev = json_get(r, "prev_kv");
    if (c->output == CTL_JSON) {
        ctl_print_json(r);
        return;
    }
    if (c->output == CTL_FIELDS) ctl_fields_header(r);
    puts("OK");
    if (prev) print_kv(c, prev);
}

static int cmd_put(struct ctl *c)
{
    struct buf r = {0}, input = {0};
    struct json *answer;
    if (c->argc < 2 || c->argc > 3) return ctl_fail("put command needs 1 argument and input from stdin or 2 arguments");
    int rv = c->argc == 2 && !ctl_flags.ignore_value ? read_stdin(&input) : 0;
    if (rv == 0) rv = encode_put(&r, c->argv[1], c->argc == 3 ? slice_str(c->argv[2]) : buf_slice(&input));
    if (rv == 0) rv = ctl_call(c, "/etcdserverpb.KV/Put", &r, put_fields, &answer);
    if (rv == 0) print_put(c, answer);
    buf_release(&r);
    buf_release(&input);
    return rv;
}

static void print_delete(struct ctl *c, const struct json *r)
{
    if (c->output == CTL_JSON) {
        ctl_print_json(r);
        return;
    }
    if (c->output == CTL_FIELDS) ctl_fields_header(r);
    printf("%lld\n", (long long)ctl_int(r, "deleted"));
    each_kv(c, json_get(r, "prev_kvs"), print_kv);
}

static int cmd_del(struct ctl *c)
{
    struct buf r = {0};
    struct json *answer;
    if (c->argc < 2 || c->argc > 3) return ctl_fail("del command needs one argument as key and an optional argument as range_end");
    if (encode_range_key(c, &r, c->argv[1], c->argc > 2 ? c->argv[2] : NULL)) return 1;
    pb_bool(&r, 3, ctl_flags.prev_kv);
    int rv = ctl_call(c, "/etcdserverpb.KV/DeleteRange", &r, delete_fields, &answer);
    if (rv == 0) print_delete(c, answer);
    buf_release(&r);
    return rv;
}

/* ---- txn --------------------------------------------------------------------------------------------------------- */

static bool is(struct slice word, const char *a, const char *b)
{
    return slice_eq_str(word, a) || slice_eq_str(word, b);
}

/* The bytes of *p that are in `set`, or are not; moves *p behind them and the spaces that follow. */
static struct slice take(const char **p, const char *set, bool in)
{
    struct slice s = slice_make(*p, in ? strspn(*p, set) : strcspn(*p, set));
    *p += s.len;
    *p += strspn(*p, CTL_SPACES);
    return s;
}

/* value("k") = "v", mod("k") > "3" and so on. */
static int encode_compare(struct ctl *c, struct buf *out, const char *line)
{
    static const char *const targets[] = {"ver", "c", "m", "val", "lease"};
    static const char *const alternatives[] = {"version", "create", "mod", "value", "lease"};
    static const char *const results[] = {"=", ">", "<", "!="};
    const char *p = line + strspn(line, CTL_SPACES), *key, *value;
    int t = 4, result = 3;
    struct slice target = take(&p, CTL_SPACES "(", false);
    while (t >= 0 && !is(target, targets[t], alternatives[t])) t--;
    if (take(&p, "(", true).len != 1 || *p != '"') goto malformed;
    if (!(key = ctl_unquote(c, &p))) return 1;
    p += strspn(p, CTL_SPACES);
    if (take(&p, ")", true).len != 1) goto malformed;
    struct slice op = take(&p, "=<>!", true);
    while (result >= 0 && !slice_eq_str(op, results[result])) result--;
    if (*p != '"') value = arena_strdup(&c->arena, take(&p, CTL_SPACES "\"", false));
    else if (!(value = ctl_unquote(c, &p))) return 1;
    p += strspn(p, CTL_SPACES);
    if (*p || t < 0 || result < 0) goto malformed;
    int64_t number = 0;
    char *end;
    errno = 0;
    if (t == 4 && !ctl_parse_lease(value, &number)) goto malformed;
    if (t < 3) {
        number = strtoll(value, &end, 10);
        if (*end || end == value || errno) goto malformed;
    }
    struct buf m = {0};
    pb_uint(&m, 1, (uint64_t)result);
    pb_uint(&m, 2, (uint64_t)t);
    pb_bytes(&m, 3, slice_str(key));
    if (t == 3) pb_message(&m, 7, slice_str(value));
    else pb_varint(&m, (t == 4 ? 8u : 4u + (unsigned)t) << 3), pb_varint(&m, (uint64_t)number);
    pb_message(out, 1, buf_slice(&m));
    buf_release(&m);
    return 0;
malformed:
    return ctl_fail("malformed comparison: %s", line);
}

static int encode_txn_op(struct ctl *c, struct buf *out, unsigned field, const char *line)
{
    char *words[16] = {0};
    struct buf m = {0}, op = {0};
    const struct ctl_flags before = ctl_flags;
    struct flag flags[] = {{"prefix", FLAG_BOOL, &ctl_flags.prefix, 0, 0}, {"from-key", FLAG_BOOL, &ctl_flags.from_key, 0, 0},
                           {"lease", FLAG_STRING, &ctl_flags.lease, 0, 0}, {"prev-kv", FLAG_BOOL, &ctl_flags.prev_kv, 0, 0},
                           {"limit", FLAG_INT, &ctl_flags.limit, 0, 0},    {"rev", FLAG_INT, &ctl_flags.rev, 0, 0}, {0}};
    struct err e = {0};
    int n = ctl_split(c, line, words, sizeof(words) / sizeof(words[0])), rv = 1;
    unsigned kind = 0;
    if (n < 0) return 1;
    if (flags_parse(flags, n, words, &n, &e) != 0) {
        rv = ctl_fail("%s", e.text);
    } else if (n == 3 && !strcmp(words[0], "put")) {
        kind = 2;
        rv = encode_put(&m, words[1], slice_str(words[2]));
    } else if ((n == 2 || n == 3) && (!strcmp(words[0], "get") || !strcmp(words[0], "del"))) {
        kind = words[0][0] == 'g' ? 1 : 3;
        rv = encode_range_key(c, &m, words[1], n == 3 ? words[2] : NULL);
        if (kind == 1) pb_uint(&m, 3, (uint64_t)ctl_flags.limit), pb_uint(&m, 4, (uint64_t)ctl_flags.rev);
        else pb_bool(&m, 3, ctl_flags.prev_kv);
    } else {
        ctl_fail("invalid txn request: %s", n ? words[0] : "");
    }
    pb_message(&op, kind, buf_slice(&m));
    pb_message(out, field, buf_slice(&op));
    buf_release(&m);
    buf_release(&op);
    ctl_flags = before;
    return rv;
}

static void print_txn(struct ctl *c, const struct json *r)
{
    const struct json *list = json_get(r, "responses");
    if (c->output == CTL_JSON) {
        ctl_print_json(r);
        return;
    }
    puts(json_path_bool(r, "succeeded", false) ? "SUCCESS" : "FAILURE");
    for (size_t i = 0; list && i < list->count; i++) {
        const struct json *op = json_at(list, i);
        putchar('\n');
        if (json_get(op, "response_put")) print_put(c, json_get(op, "response_put"));
        else if (json_get(op, "response_delete_range")) print_delete(c, json_get(op, "response_delete_range"));
        else if (json_get(op, "response_range")) print_range(c, json_get(op, "response_range"));
    }
}

static int cmd_txn(struct ctl *c)
{
    static const char *const prompts[] = {"compares:", "success requests (get, put, del):", "failure requests (get, put, del):"};
    char *line = NULL;
    size_t size = 0;
    struct buf r = {0};
    struct json *answer;
    int rv = 0;
    if (c->argc != 1) return ctl_fail("txn command does not accept argument");
    for (unsigned part = 0; part < 3 && rv == 0; part++) {
        ssize_t n;
        if (ctl_flags.interactive) puts(prompts[part]);
        while (rv == 0 && (n = getline(&line, &size, stdin)) > 0) {
            if (line[n - 1] == '\n') line[--n] = 0;
            if (n == 0) break;
            rv = part == 0 ? encode_compare(c, &r, line) : encode_txn_op(c, &r, part + 1, line);
        }
    }
    free(line);
    if (rv == 0) rv = ctl_call(c, "/etcdserverpb.KV/Txn", &r, txn_fields, &answer);
    if (rv == 0) print_txn(c, answer);
    buf_release(&r);
    return rv;
}

/* ---- watch --------------------------------------------------------------------------------------------------------- */

struct watching {
    struct grpc_client_call call;
    struct ctl *ctl;
    bool done;
    int rv;
};

static void print_event(struct ctl *c, const struct json *event)
{
    const struct json *prev = json_get(event, "prev_kv"), *kv = json_get(event, "kv");
    puts(ctl_int(event, "type") ? "DELETE" : "PUT");
    if (prev) print_kv(c, prev);
    print_kv(c, kv);
    fflush(stdout);
}

static void on_watch(struct grpc_client_call *call, struct slice message)
{
    struct watching *w = call->data;
    struct arena keep = w->ctl->arena;
    struct json *r;
    w->ctl->arena = (struct arena){0};
    if (pb_to_json(&w->ctl->arena, message, watch_fields, &r) != 0) {
        w->rv = ctl_fail("the server's answer cannot be decoded");
    } else if (json_path_bool(r, "canceled", false)) {
        const char *why = arena_strdup(&w->ctl->arena, json_path_text(r, "cancel_reason"));
        int64_t compacted = ctl_int(r, "compact_revision");
        if (compacted) w->rv = ctl_fail("watch was canceled (etcdserver: mvcc: required revision has been compacted) compact_revision=%lld", (long long)compacted);
        else w->rv = ctl_fail("watch was canceled (%s)", why && *why ? why : "by the server");
    } else if (w->ctl->output == CTL_JSON) {
        if (!json_path_bool(r, "created", false)) ctl_print_json(r);
    } else {
        const struct json *events = json_get(r, "events");
        for (size_t i = 0; events && i < events->count; i++) print_event(w->ctl, json_at(events, i));
        if (!events && !json_path_bool(r, "created", false))
            printf("progress notify: %lld\n", (long long)json_path_int(r, "header.revision", 0)), fflush(stdout);
    }
    arena_release(&w->ctl->arena);
    w->ctl->arena = keep;
    if (w->rv) {
        w->done = true;
    }
}

static void on_watch_done(struct grpc_client_call *call, int status, const char *text)
{
    struct watching *w = call->data;
    if (!w->rv) w->rv = ctl_fail("watch is canceled by the server: %s: %s", grpc_status_name(status), text);
    w->done = true;
}

static int cmd_watch(struct ctl *c)
{
    struct watching w = {.ctl = c, .call = {.message = on_watch, .done = on_watch_done}};
    struct buf create = {0}, r = {0};
    if (c->argc < 2 || c->argc > 3) return ctl_fail("watch command needs one argument as key and an optional argument as range_end");
    if (encode_range_key(c, &create, c->argv[1], c->argc > 2 ? c->argv[2] : NULL)) return 1;
    pb_uint(&create, 3, (uint64_t)ctl_flags.rev);
    pb_bool(&create, 4, ctl_flags.progress_notify);
    pb_bool(&create, 6, ctl_flags.prev_kv);
    pb_message(&r, 1, buf_slice(&create));
    w.call.data = &w;
    c->client = ctl_connect(c, NULL);
    bool started = c->client && grpc_client_start(&w.call, c->client, "/etcdserverpb.Watch/Watch", buf_slice(&r), true, 0) == 0;
    if (c->client && !started) ctl_fail("out of memory");
    if (started) {
        ctl_wait(c, &w.done);
        grpc_client_cancel(&w.call);
    }
    buf_release(&create);
    buf_release(&r);
    return started ? w.rv : 1;
}

/* ---- compaction -------------------------------------------------------------------------------------------------------- */

static int cmd_compaction(struct ctl *c)
{
    static const struct pbj_field fields[] = {{1, "header", PBJ_MESSAGE, .message = ctl_header_fields}, {0}};
    struct buf r = {0};
    struct json *answer;
    char *end;
    if (c->argc != 2) return ctl_fail("compaction command needs 1 argument");
    long long rev = strtoll(c->argv[1], &end, 10);
    if (*end || end == c->argv[1]) return ctl_fail("bad revision: %s", c->argv[1]);
    pb_uint(&r, 1, (uint64_t)rev);
    pb_bool(&r, 2, ctl_flags.physical);
    int rv = ctl_call(c, "/etcdserverpb.KV/Compact", &r, fields, &answer);
    if (rv == 0) c->output == CTL_JSON ? ctl_print_json(answer) : (void)printf("compacted revision %lld\n", rev);
    buf_release(&r);
    return rv;
}

const struct ctl_command ctl_kv_commands[] = {
    {"get", "KEY [RANGE_END]", "read keys", cmd_get, CTL_WITH_FIELDS},
    {"put", "KEY [VALUE]", "write a key; the value may come from standard input", cmd_put, CTL_WITH_FIELDS},
    {"del", "KEY [RANGE_END]", "delete keys", cmd_del, CTL_WITH_FIELDS},
    {"txn", "", "compares, then requests for success and failure, from standard input", cmd_txn, CTL_WITH_FIELDS},
    {"watch", "KEY [RANGE_END]", "print changes as they happen", cmd_watch},
    {"compaction", "REVISION", "forget history before a revision", cmd_compaction, CTL_PLAIN},
    {"compact", "REVISION", "the same", cmd_compaction, CTL_PLAIN},
    {0}};
