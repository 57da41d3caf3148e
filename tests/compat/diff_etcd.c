/* The differential test of the etcd API: sends the same random operations to a real etcd and to us, and compares every answer
 * field by field. test_diff.py starts the servers, which must be fresh; by hand:
 *
 *     diff_etcd --theirs http://127.0.0.1:2379 --ours http://127.0.0.1:3379[,...] --seed 1 --ops 2000 [--peer 305]
 *               [--skip 3-17,20] [--trace] [--all]
 *
 * Ids of members and clusters and raft terms are masked; everything else must be the same: revisions, versions, counts, order,
 * errors with their codes and texts. Unary calls go to both sides at once, and the next one waits for both answers. Watches live on
 * three streams a side; what they send is kept per watch and compared at checkpoints, since how events are packed into messages is
 * free (but for one rule, checked on its own: a revision is not torn apart). A difference ends the run with code 1 and says
 * operation, both answers and seed. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "clients/lib/grpc.h"
#include "diff_gen.h"

#define MAX_ENDPOINTS 8
#define MAX_WATCH_LOGS 512
#define MAX_COMPACTIONS 4096
#define CALL_MS 20000
#define CHECK_MS 8000 /* events that do not come within this time are missing */
#define SETTLE_MS 400  /* etcd looks after watches that start in the past every 100 ms */
#define SENT_MS 100    /* by then etcd has sent what happened */
#define CHECK_EVERY 25
#define SHOWN 3000 /* bytes of an answer in a report */

/* ---- the two sides ------------------------------------------------------------------------------------------ */

/* What one watch has said that was not compared yet. */
struct watch_log {
    int64_t id;
    struct buf lines;
    bool taken;       /* the id, until the client cancels it */
    int64_t torn_rev; /* the last revision of the last message; 0 after a fragment */
};

struct stream {
    struct grpc_client_call call;
    struct side *side;
    bool open;
    size_t n_control, n_compacted, n_watches;
    int64_t max_start; /* of the watches */
    struct watch_log logs[MAX_WATCH_LOGS];
    size_t n_logs;
};

struct side {
    const char *name;
    struct h2_client *clients[MAX_ENDPOINTS];
    size_t n;
    struct stream streams[N_STREAMS];
    struct buf complaints; /* what is wrong whatever the other side says */
};

struct answer {
    struct grpc_client_call call;
    bool done;
    int status;
    size_t n_messages;
    struct buf message, text;
    struct json *json;
};

static uv_loop_t loop;
static uv_timer_t tick;
static struct side theirs = {.name = "etcd"}, ours = {.name = "pintle"};
static struct known known = {.rev = 1, .compact = -1};
static int64_t compactions[MAX_COMPACTIONS];
static size_t n_compactions;
static uint64_t seed = 1, n_ops = 1000, first_op_of_check;
static bool trace, all; /* all: goes on after a difference */
static uint64_t past_watch_ms; /* when the last watch from the past was made */
static struct arena arena;     /* of one operation */

static void on_tick(uv_timer_t *t)
{
    (void)t;
}

static void *must(void *p)
{
    if (!p) abort();
    return p;
}

static const char *text_of(const struct json *j)
{
    struct buf b = {0};
    if (j) json_write(&b, j);
    const char *text = arena_strdup(&arena, buf_slice(&b));
    buf_release(&b);
    return must((void *)(uintptr_t)text);
}

static void shown(const char *title, const char *text)
{
    printf("  %s", title);
    for (size_t i = 0; text[i] && i < SHOWN; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) printf("\\x%02x", (unsigned char)text[i]);
        else putchar(text[i]);
    printf("%s\n", strlen(text) > SHOWN ? "..." : "");
}

/* ---- normal form of answers ---------------------------------------------------------------------------------- */

static void mask(struct json *object, const char *name)
{
    if (json_get(object, name) && json_set_str(&arena, object, name, json_str(&arena, "*"))) abort();
}

static void mask_headers(struct json *v)
{
    for (size_t i = 0; v && v->type == JSON_ARRAY && i < v->count; i++) mask_headers(v->items[i]);
    if (!v || v->type != JSON_OBJECT) return;
    mask(v, "cluster_id");
    mask(v, "member_id");
    mask(v, "raft_term");
    for (size_t i = 0; i < v->count; i++) mask_headers(v->members[i].value);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(text_of(*(struct json *const *)a), text_of(*(struct json *const *)b));
}

static void sort_list(struct json *list)
{
    if (list) qsort(list->items, list->count, sizeof(list->items[0]), by_text);
}

/* The names of the members only. */
static void to_shape(struct json *object)
{
    for (size_t i = 0; object && i < object->count; i++)
        if (!slice_eq_str(object->members[i].name, "header")) object->members[i].value = json_str(&arena, "*");
}

static void normal_status(struct json *v)
{
    static const char *const may_be_zero[] = {"dbSize", "dbSizeInUse", "errors", "raftAppliedIndex", "raftIndex"};
    for (size_t i = 0; i < 5; i++) json_remove(v, slice_str(may_be_zero[i]));
    to_shape(v);
}

static void normal_members(struct json *v)
{
    struct json *list = json_get(v, "members");
    while (list && list->count > 1) json_remove_at(list, list->count - 1);
    to_shape(json_at(list, 0));
}

/* Keys of a sort by anything but the key whose values are equal stay in key order here; etcd leaves their order open when there are
 * more than twelve. So equal ones are put in key order on both sides, and where a limit cut through them only their number counts. */
static const char *sort_value(const struct json *kv_, unsigned target)
{
    static const char *const names[] = {"key", "version", "create_revision", "mod_revision", "value"};
    return text_of(json_get(kv_, names[target < 5 ? target : 0]));
}

static void normal_ties(struct json *v, unsigned target)
{
    struct json *list = json_get(v, "kvs");
    bool cut = json_path_bool(v, "more", false);
    for (size_t from = 0, to; list && from < list->count; from = to) {
        const char *value = sort_value(list->items[from], target);
        for (to = from + 1; to < list->count && !strcmp(value, sort_value(list->items[to], target)); to++) continue;
        qsort(list->items + from, to - from, sizeof(list->items[0]), by_text);
        for (size_t i = from; cut && to == list->count && i < to; i++)
            list->items[i] = json_str(&arena, value);
    }
}

static bool was_compacted_at(int64_t revision)
{
    for (size_t i = 0; i < n_compactions; i++)
        if (compactions[i] == revision) return true;
    return false;
}

static void normal_form(const struct op *op, struct json *v)
{
    mask_headers(v);
    if (op->kind == K_STATUS) normal_status(v);
    if (op->kind == K_ALARM && known.peer < 305) json_remove(v, SLICE_LIT("header")); /* 3.4 sends none */
    if (op->kind == K_MEMBERS) normal_members(v);
    if (op->kind == K_TTL) sort_list(json_get(v, "keys"));
    if (op->kind == K_LEASES) sort_list(json_get(v, "leases"));
    if (op->kind == K_RANGE && op->ties) normal_ties(v, op->sort_target);
    if (op->kind == K_ALARM) sort_list(json_get(v, "alarms"));
}

/* ---- calls ------------------------------------------------------------------------------------------------------ */

static void on_message(struct grpc_client_call *c, struct slice message)
{
    struct answer *a = c->data;
    a->n_messages++;
    buf_append_slice(&a->message, message);
}

static void on_done(struct grpc_client_call *c, int status, const char *text)
{
    struct answer *a = c->data;
    a->done = true;
    a->status = status;
    buf_append_str(&a->text, text);
}

static void start(struct side *s, uint64_t turn, const char *path, struct slice message, struct answer *a)
{
    *a = (struct answer){.call = {.message = on_message, .done = on_done, .data = a}};
    if (grpc_client_start(&a->call, s->clients[turn % s->n], path, message, false, CALL_MS) != 0) abort();
}

static void finish(struct answer *a)
{
    while (!a->done) uv_run(&loop, UV_RUN_ONCE);
}

static void answer_release(struct answer *a)
{
    buf_release(&a->message);
    buf_release(&a->text);
}

/* When this has been answered, the member has applied everything that was acknowledged before. */
static void catch_up(struct side *s, uint64_t turn)
{
    struct answer a;
    if (s->n == 1) return;
    start(s, turn, methods[K_RANGE].path, SLICE_LIT("\x0a\1x\x48\1"), &a);
    finish(&a);
    answer_release(&a);
}

static void decode(const struct op *op, struct answer *a)
{
    if (a->status != 0) return;
    if (pb_to_json(&arena, buf_slice(&a->message), methods[op->kind].answer, &a->json) != 0)
        a->json = json_str(&arena, "not protobuf");
    else normal_form(op, a->json);
}

/* Seconds of remaining life may differ by a little. */
static void agree_on_ttl(struct answer *a, struct answer *b)
{
    int64_t x = json_path_int(a->json, "TTL", 0), y = json_path_int(b->json, "TTL", 0);
    if (x <= 0 || y <= 0 || llabs(x - y) > 5) return;
    mask(a->json, "TTL");
    mask(b->json, "TTL");
}

static bool same(const struct op *op, const struct answer *a, const struct answer *b)
{
    /* 3.5 keeps answers of before its compactions */
    if (op->kind == K_HASHKV && known.peer > 304 && was_compacted_at(op->revision)) return true;
    if (a->status != b->status || a->n_messages != b->n_messages) return false;
    if (op->damaged && a->status) return true;
    return slice_eq(buf_slice(&a->text), buf_slice(&b->text)) && !strcmp(text_of(a->json), text_of(b->json));
}

static void show_answer(const char *who, struct answer *a)
{
    char title[128];
    snprintf(title, sizeof(title), "%-7s %s (%zu messages): ", who, grpc_status_name(a->status), a->n_messages);
    shown(title, a->status ? buf_cstr(&a->text) : text_of(a->json));
}

static void show_op(uint64_t index, const struct op *op)
{
    struct json *request = NULL;
    char title[128];
    if (pb_to_json(&arena, buf_slice(&op->message), methods[op->kind].request, &request) != 0) request = NULL;
    snprintf(title, sizeof(title), "operation %llu, %s%s: ", (unsigned long long)index, methods[op->kind].path,
             op->damaged ? " (cut off)" : "");
    shown(title, request ? text_of(request) : "");
    if (op->kind == K_WATCH || op->kind == K_WATCH_END) printf("  on stream %u\n", op->stream);
}

/* What the answers say about the state that both sides are in now. */
static void learn(const struct op *op, const struct answer *a)
{
    int64_t rev = json_path_int(a->json, "header.revision", 0);
    if (a->status != 0) return;
    if (rev > known.rev) known.rev = rev;
    if (op->kind == K_COMPACT) {
        known.compact = op->revision;
        if (n_compactions < MAX_COMPACTIONS) compactions[n_compactions++] = op->revision;
    }
    if (op->kind == K_ALARM && op->action == 1) *(op->alarm == 1 ? &known.nospace : &known.corrupt) |= op->alarm != 0;
    if (op->kind != K_ALARM || op->action != 0 || op->alarm != 0) return;
    const struct json *alarms = json_get(a->json, "alarms");
    known.nospace = known.corrupt = false;
    for (size_t i = 0; alarms && i < alarms->count; i++)
        *(json_path_int(alarms->items[i], "alarm", 0) == 1 ? &known.nospace : &known.corrupt) = true;
}

static bool call_both(uint64_t index, struct op *op)
{
    struct answer a, b;
    const struct method *m = &methods[op->kind];
    if (m->local || op->serializable || op->kind == K_TXN) catch_up(&ours, op->turn);
    start(&theirs, op->turn, m->path, buf_slice(&op->message), &a);
    start(&ours, op->turn, m->path, buf_slice(&op->message), &b);
    finish(&a);
    finish(&b);
    decode(op, &a);
    decode(op, &b);
    if (op->kind == K_TTL || op->kind == K_KEEPALIVE) agree_on_ttl(&a, &b);
    bool good = same(op, &a, &b);
    if (!good) printf("difference: seed %llu\n", (unsigned long long)seed);
    if (!good || trace) {
        show_op(index, op);
        show_answer(theirs.name, &a);
        show_answer(ours.name, &b);
    }
    learn(op, &a);
    answer_release(&a);
    answer_release(&b);
    return good;
}

/* ---- watches ------------------------------------------------------------------------------------------------------ */

static struct watch_log *log_of(struct stream *s, int64_t id)
{
    for (size_t i = 0; i < s->n_logs; i++)
        if (s->logs[i].id == id) return &s->logs[i];
    if (s->n_logs == MAX_WATCH_LOGS) abort();
    s->logs[s->n_logs] = (struct watch_log){.id = id};
    return &s->logs[s->n_logs++];
}

/* Events, one a line; and that no revision was torn apart. */
static void log_events(struct stream *s, struct watch_log *log, const struct json *v)
{
    const struct json *events = json_get(v, "events");
    for (size_t i = 0; events && i < events->count; i++) {
        int64_t rev = json_path_int(events->items[i], "kv.mod_revision", 0);
        if (i == 0 && rev == log->torn_rev)
            buf_printf(&s->side->complaints, "watch %lld: revision %lld comes in two messages\n", (long long)log->id, (long long)rev);
        buf_append_str(&log->lines, "event ");
        json_write(&log->lines, events->items[i]);
        buf_append_byte(&log->lines, '\n');
        if (i + 1 < events->count) continue;
        log->torn_rev = json_path_bool(v, "fragment", false) ? 0 : rev;
        if (json_path_int(v, "header.revision", 0) < rev)
            buf_printf(&s->side->complaints, "watch %lld: events up to revision %lld under a header of revision %lld\n",
                       (long long)log->id, (long long)rev, (long long)json_path_int(v, "header.revision", 0));
    }
}

static void on_watch(struct grpc_client_call *c, struct slice message)
{
    struct stream *s = c->data;
    struct json *v;
    if (pb_to_json(&arena, message, watch_answer, &v) != 0) {
        buf_append_str(&s->side->complaints, "a watch's answer is not protobuf\n");
        return;
    }
    struct watch_log *log = log_of(s, json_path_int(v, "watch_id", 0));
    if (json_get(v, "events")) {
        log_events(s, log, v);
        return;
    }
    mask_headers(v);
    buf_append_str(&log->lines, "control ");
    json_write(&log->lines, v);
    buf_append_byte(&log->lines, '\n');
    s->n_control++;
    if (json_get(v, "compact_revision")) s->n_compacted++;
    if (json_get(v, "created") && !json_get(v, "canceled")) {
        s->n_watches++;
        log->taken = true;
    } else if (json_get(v, "canceled") && !json_get(v, "compact_revision")) {
        log->taken = false;
    }
}

static void on_watch_done(struct grpc_client_call *c, int status, const char *text)
{
    struct stream *s = c->data;
    s->open = false;
    buf_printf(&log_of(s, INT64_MIN)->lines, "the stream ended: %s: %s\n", grpc_status_name(status), text);
}

static void stream_send(struct side *side, unsigned n, struct slice message)
{
    struct stream *s = &side->streams[n];
    s->side = side;
    if (s->open) {
        if (grpc_client_send(&s->call, message) != 0) abort();
        return;
    }
    s->call = (struct grpc_client_call){.message = on_watch, .done = on_watch_done, .data = s};
    s->open = true;
    if (grpc_client_start(&s->call, side->clients[n % side->n], methods[K_WATCH].path, message, true, 0) != 0) abort();
}

static void stream_end(struct side *side, unsigned n)
{
    struct stream *s = &side->streams[n];
    if (s->open) grpc_client_cancel(&s->call);
    for (size_t i = 0; i < s->n_logs; i++) buf_release(&s->logs[i].lines);
    s->n_logs = s->n_control = s->n_compacted = s->n_watches = 0;
    s->max_start = 0;
    s->open = false;
}

static bool logs_agree(const struct stream *a, struct stream *b)
{
    for (size_t i = 0; i < a->n_logs; i++)
        if (!slice_eq(buf_slice(&a->logs[i].lines), buf_slice(&log_of(b, a->logs[i].id)->lines))) return false;
    return true;
}

static bool watches_agree(void)
{
    for (unsigned i = 0; i < N_STREAMS; i++) {
        if (!logs_agree(&theirs.streams[i], &ours.streams[i]) || !logs_agree(&ours.streams[i], &theirs.streams[i])) return false;
    }
    return true;
}

/* From the first line on that differs. */
static void show_log_difference(unsigned n, const struct watch_log *log)
{
    const char *a = buf_cstr(&log_of(&theirs.streams[n], log->id)->lines), *b = buf_cstr(&log_of(&ours.streams[n], log->id)->lines);
    a = a ? a : "", b = b ? b : "";
    size_t line = 0;
    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '\n') line = i + 1;
    if (!strcmp(a, b)) return;
    printf("  watch %lld of stream %u, from the first difference on:\n", (long long)log->id, n);
    shown("etcd    ", a + line);
    shown("pintle  ", b + line);
}

static void show_watch_differences(uint64_t index)
{
    printf("difference: seed %llu, watches, after operations %llu to %llu\n", (unsigned long long)seed,
           (unsigned long long)first_op_of_check, (unsigned long long)index);
    for (unsigned n = 0; n < N_STREAMS; n++) {
        struct stream *a = &theirs.streams[n];
        logs_agree(&ours.streams[n], a); /* so that both know the same watches */
        for (size_t i = 0; i < a->n_logs; i++) show_log_difference(n, &a->logs[i]);
    }
}

static void forget_logs(struct side *s)
{
    for (unsigned n = 0; n < N_STREAMS; n++)
        for (size_t i = 0; i < s->streams[n].n_logs; i++) buf_clear(&s->streams[n].logs[i].lines);
}

/* Waits until all watches have said the same on both sides. */
static bool checkpoint(uint64_t index)
{
    uint64_t end = clock_mono_ms() + CHECK_MS;
    while (!watches_agree()) {
        if (clock_mono_ms() > end) {
            show_watch_differences(index);
            forget_logs(&theirs);
            forget_logs(&ours);
            return false;
        }
        uv_run(&loop, UV_RUN_ONCE);
    }
    if (ours.complaints.len) {
        printf("wrong: seed %llu\n", (unsigned long long)seed);
        shown("", buf_cstr(&ours.complaints));
        buf_clear(&ours.complaints);
        return false;
    }
    forget_logs(&theirs);
    forget_logs(&ours);
    first_op_of_check = index + 1;
    return true;
}

static void wait_ms(uint64_t ms)
{
    for (uint64_t end = clock_mono_ms() + ms; clock_mono_ms() < end;) uv_run(&loop, UV_RUN_ONCE);
}

/* Until etcd has looked after the watches that start in the past: what happens to them then does not depend on time any more. */
static void settle(void)
{
    uint64_t now = clock_mono_ms();
    if (now < past_watch_ms + SETTLE_MS) wait_ms(past_watch_ms + SETTLE_MS - now);
}

static bool watch_exists(const struct stream *s, int64_t id)
{
    for (size_t i = 0; i < s->n_logs; i++)
        if (s->logs[i].id == id) return s->logs[i].taken;
    return false;
}

static void wait_control(struct side *side, unsigned n, size_t control)
{
    const struct stream *s = &side->streams[n];
    for (uint64_t end = clock_mono_ms() + CHECK_MS; s->n_control < control && clock_mono_ms() < end;) uv_run(&loop, UV_RUN_ONCE);
}

/* Progress is answered for sure only when there are watches and all have caught up; and a stream is opened by a create. */
static bool watch_makes_sense(const struct op *op, const struct stream *s)
{
    if (op->watch == 1) return true;
    if (!s->open || op->watch == 2) return s->open;
    return s->n_watches && !s->n_compacted && s->max_start <= known.rev;
}

static bool watch_both(uint64_t index, struct op *op)
{
    struct stream *s = &theirs.streams[op->stream];
    size_t control = s->n_control;
    if (op->kind == K_WATCH_END || !watch_makes_sense(op, s)) {
        bool good = checkpoint(index);
        if (op->kind == K_WATCH_END) {
            stream_end(&theirs, op->stream);
            stream_end(&ours, op->stream);
        }
        return good;
    }
    if (op->watch != 1) settle();
    if (!checkpoint(index)) return false;
    catch_up(&ours, op->stream);
    bool answered = op->watch != 2 || watch_exists(s, op->id);
    stream_send(&theirs, op->stream, buf_slice(&op->message));
    stream_send(&ours, op->stream, buf_slice(&op->message));
    wait_control(&theirs, op->stream, control + answered);
    wait_control(&ours, op->stream, control + answered);
    if (op->watch == 1 && op->revision && op->revision <= known.rev) past_watch_ms = clock_mono_ms();
    if (op->watch == 1 && op->revision > s->max_start) s->max_start = op->revision;
    if (op->watch == 2 && answered && s->n_watches) s->n_watches--;
    return checkpoint(index);
}

/* ---- a run --------------------------------------------------------------------------------------------------------- */

static bool run_op(uint64_t index)
{
    struct op op;
    bool good;
    gen_op(seed, index, &known, &op);
    if (trace && (op.kind == K_WATCH || op.kind == K_WATCH_END)) show_op(index, &op);
    if (op.kind == K_WATCH || op.kind == K_WATCH_END) {
        good = watch_both(index, &op);
        if (!good) show_op(index, &op);
    } else {
        if (op.kind == K_COMPACT) {
            settle();
            wait_ms(SENT_MS);
        }
        good = (op.kind != K_COMPACT || checkpoint(index)) && call_both(index, &op); /* etcd looks for prev_kv when it sends */
        if (good && index % CHECK_EVERY == 0) good = checkpoint(index);
    }
    buf_release(&op.message);
    arena_reset(&arena);
    return good;
}

/* "3-17,20" */
static bool is_skipped(const char *skip, uint64_t index)
{
    while (skip && *skip) {
        char *end;
        uint64_t from = strtoull(skip, &end, 10), to = from;
        if (*end == '-') to = strtoull(end + 1, &end, 10);
        if (index >= from && index <= to) return true;
        skip = *end ? end + 1 : end;
    }
    return false;
}

static bool run(const char *skip)
{
    bool good = true;
    for (uint64_t i = 0; i < n_ops && (good || all); i++)
        if (!is_skipped(skip, i)) good &= run_op(i);
    if (!good && !all) return false;
    wait_ms(SETTLE_MS); /* for events too many */
    return checkpoint(n_ops) && good;
}

static void connect_side(struct side *s, char *list)
{
    for (char *save = NULL, *url = strtok_r(list, ",", &save); url && s->n < MAX_ENDPOINTS; url = strtok_r(NULL, ",", &save)) {
        const char *endpoints[] = {url};
        struct err e;
        struct h2_client_options o = {.endpoints = endpoints, .n_endpoints = 1, .fail_fast = true, .keepalive_ms = 60000};
        if (h2_client_new(&loop, &o, &s->clients[s->n++], &e) != 0) {
            fprintf(stderr, "%s\n", e.text);
            exit(2);
        }
    }
}

static void disconnect_side(struct side *s)
{
    for (unsigned i = 0; i < N_STREAMS; i++) stream_end(s, i);
    for (size_t i = 0; i < s->n; i++) h2_client_close(s->clients[i], NULL, NULL);
    buf_release(&s->complaints);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"theirs", 1, 0, 't'}, {"ours", 1, 0, 'o'}, {"seed", 1, 0, 's'}, {"ops", 1, 0, 'n'},
                                            {"peer", 1, 0, 'p'},   {"skip", 1, 0, 'k'}, {"trace", 0, 0, 'v'}, {"all", 0, 0, 'a'}, {0}};
    const char *skip = NULL;
    known.peer = 304;
    uv_loop_init(&loop);
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
        case 't': connect_side(&theirs, optarg); break;
        case 'o': connect_side(&ours, optarg); break;
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'n': n_ops = strtoull(optarg, NULL, 10); break;
        case 'p': known.peer = atoi(optarg); break;
        case 'k': skip = optarg; break;
        case 'v': trace = true; break;
        case 'a': all = true; break;
        default: return 2;
        }
    if (!theirs.n || !ours.n) {
        fprintf(stderr, "usage: diff_etcd --theirs URL --ours URL[,URL...] [--seed N] [--ops N] [--peer 304|305] [--skip LIST] [--trace] [--all]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    known.many_keys = seed % 2;
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 5);
    bool good = run(skip);
    if (good) printf("%llu operations agree, up to revision %lld\n", (unsigned long long)n_ops, (long long)known.rev);
    disconnect_side(&theirs);
    disconnect_side(&ours);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    arena_release(&arena);
    return good ? 0 : 1;
}
