/* Watchers. An oracle watches everything on one member, for ever, from the first revision on; the others watch a part of it, with
 * options by chance, leave after a while, stay away, and go on with another member where they were. */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "load_int.h"

static void watcher_next(uv_timer_t *t);

static struct slice text_or_zero(const char *text)
{
    return *text ? slice_str(text) : slice_make("", 1); /* the key "\0": all there are */
}

static void rec_watch(struct watcher *w, const char *what)
{
    struct rec *r = &w->load->rec;
    rec_open(r, "w");
    rec_int(r, "w", w->number);
    rec_int(r, "m", w->member);
    rec_int(r, "t", (int64_t)clock_mono_ns());
    rec_str(r, "k", what);
}

static void leave(struct watcher *w, const char *why, uint64_t again_ms)
{
    struct load *l = w->load;
    rec_watch(w, "end");
    rec_str(&l->rec, "text", why);
    rec_close(&l->rec);
    w->open = false;
    if (!w->oracle) w->member = load_member(l);
    uv_timer_start(&w->timer, watcher_next, again_ms, 0);
}

/* ---- what it is told --------------------------------------------------------------------------------- */

struct watch_response {
    struct slice header;
    bool created, canceled, fragment;
    int64_t compact_rev;
    char reason[200];
    unsigned events;
    int64_t last_rev;
};

static int event(struct watcher *w, struct slice m, struct watch_response *ret)
{
    struct buf *b = &w->load->rec.line;
    struct pb_field f;
    struct kv_seen kv = {0}, prev;
    uint64_t type = 0;
    bool has_prev = false;
    int rv;
    while ((rv = pb_next(&m, &f)) == 1) {
        if (f.number == 1) type = f.value;
        if (f.number == 2) rv = kv_decode(f.bytes, &kv);
        if (f.number == 3) rv = kv_decode(f.bytes, &prev), has_prev = true;
        if (rv < 0) return rv;
    }
    buf_append_str(b, ret->events++ ? ",[" : "[");
    buf_printf(b, "%d,", (int)type);
    rec_kv(&w->load->rec, &kv);
    if (has_prev) {
        buf_append_byte(b, ',');
        rec_kv(&w->load->rec, &prev);
    }
    buf_append_byte(b, ']');
    ret->last_rev = kv.mod;
    w->load->watch_events++;
    return rv;
}

static int decode(struct watcher *w, struct slice m, struct watch_response *ret)
{
    struct pb_field f;
    struct slice events = m;
    int rv;
    while ((rv = pb_next(&m, &f)) == 1) {
        if (f.number == 1) ret->header = f.bytes;
        if (f.number == 3) ret->created = f.value;
        if (f.number == 4) ret->canceled = f.value;
        if (f.number == 5) ret->compact_rev = (int64_t)f.value;
        if (f.number == 6) snprintf(ret->reason, sizeof(ret->reason), "%.*s", (int)f.bytes.len, (const char *)f.bytes.data);
        if (f.number == 7) ret->fragment = f.value;
    }
    if (rv < 0) return rv;
    rec_watch(w, ret->created ? "created" : ret->canceled ? "canceled" : "told");
    rec_name(&w->load->rec, "ev");
    buf_append_byte(&w->load->rec.line, '[');
    while (rv == 0 && pb_next(&events, &f) == 1)
        if (f.number == 11) rv = event(w, f.bytes, ret);
    buf_append_byte(&w->load->rec.line, ']');
    return rv;
}

static void on_message(struct grpc_client_call *call, struct slice message)
{
    struct watcher *w = call->data;
    struct load *l = w->load;
    struct watch_response told = {0};
    int rv = decode(w, message, &told);
    CHECK(rv == 0);
    int64_t rev = rec_header(&l->rec, told.header);
    if (told.fragment) rec_int(&l->rec, "frag", 1);
    if (told.canceled) {
        rec_int(&l->rec, "crev", told.compact_rev);
        rec_str(&l->rec, "text", told.reason);
    }
    rec_close(&l->rec);
    if (told.created && w->next_rev == 0) w->next_rev = rev + 1;
    if (told.events && !told.fragment) w->next_rev = told.last_rev + 1;
    else if (!told.created && !told.canceled && !told.events && rev + 1 > w->next_rev) w->next_rev = rev + 1; /* progress */
    if (told.canceled) {
        if (told.compact_rev) w->next_rev = told.compact_rev + 1;
        grpc_client_cancel(&w->call);
        leave(w, "canceled", 100);
    }
}

static void on_done(struct grpc_client_call *call, int status, const char *text)
{
    (void)status;
    leave(call->data, text, 100 + load_below(((struct watcher *)call->data)->load, 400));
}

/* ---- coming and going ---------------------------------------------------------------------------------- */

static void choose_range(struct watcher *w)
{
    struct load *l = w->load;
    uint64_t x = load_below(l, 4);
    w->key[0] = w->end[0] = 0;
    if (x == 1) snprintf(w->key, KEY_BYTES, "k/"), snprintf(w->end, KEY_BYTES, "k0");
    else if (x == 2) snprintf(w->key, KEY_BYTES, "l/"), snprintf(w->end, KEY_BYTES, "l0");
    else if (x == 3) {
        unsigned slot = (unsigned)load_below(l, SLOTS);
        snprintf(w->key, KEY_BYTES, "k/%02u/", slot);
        snprintf(w->end, KEY_BYTES, "k/%02u/", slot + 1 + (unsigned)load_below(l, 3));
    }
}

static void encode_create(const struct watcher *w, struct buf *out)
{
    struct buf create = {0};
    pb_bytes(&create, 1, text_or_zero(w->key));
    pb_bytes(&create, 2, text_or_zero(w->end));
    pb_uint(&create, 3, (uint64_t)w->next_rev);
    pb_bool(&create, 4, w->progress);
    pb_bool(&create, 6, w->prev);
    pb_bool(&create, 8, w->fragment);
    pb_message(out, 1, buf_slice(&create));
    buf_release(&create);
}

static void ask_progress(struct watcher *w)
{
    struct buf request = {0};
    pb_message(&request, 3, slice_make("", 0));
    if (grpc_client_send(&w->call, buf_slice(&request)) == 0) {
        rec_watch(w, "ask");
        rec_close(&w->load->rec);
    }
    buf_release(&request);
}

static void watcher_open(struct watcher *w)
{
    struct load *l = w->load;
    struct buf request = {0};
    struct rec *r = &l->rec;
    w->open = true;
    w->until_ns = clock_mono_ns() + (200 + load_below(l, 6000)) * 1000000;
    w->prev = load_chance(l, 50);
    w->fragment = load_chance(l, 50);
    w->progress = load_chance(l, 30);
    rec_watch(w, "create");
    rec_name(r, "key");
    json_write_string(&r->line, text_or_zero(w->key));
    rec_name(r, "end");
    json_write_string(&r->line, text_or_zero(w->end));
    rec_int(r, "start", w->next_rev);
    rec_int(r, "prev", w->prev);
    rec_int(r, "all", w->oracle);
    rec_close(r);
    encode_create(w, &request);
    if (w->connection) h2_client_close(w->connection, NULL, NULL);
    w->connection = load_connect(l, w->member);
    w->call = (struct grpc_client_call){.message = on_message, .done = on_done, .data = w};
    int rv = grpc_client_start(&w->call, w->connection, "/etcdserverpb.Watch/Watch", buf_slice(&request), true, 0);
    CHECK(rv == 0);
    buf_release(&request);
}

static void watcher_next(uv_timer_t *t)
{
    struct watcher *w = t->data;
    struct load *l = w->load;
    uint64_t again_ms = 200 + load_below(l, 400);
    if (l->finished) return;
    if (!w->open && (!w->oracle || l->active[w->member])) {
        if (!l->active[w->member]) w->member = load_member(l);
        watcher_open(w);
    } else if (w->open && ((!w->oracle && clock_mono_ns() > w->until_ns && !l->stopping) || !l->active[w->member])) {
        bool fresh = load_chance(l, 20);
        grpc_client_cancel(&w->call);
        if (fresh && !w->oracle) {
            choose_range(w);
            w->next_rev = load_chance(l, 50) ? 0 : w->next_rev;
        }
        static const unsigned longest_ms[] = {10, 30, 1000, 1000, 15000};
        leave(w, "leaves", load_below(l, longest_ms[load_below(l, 5)]));
        return;
    } else if (w->open && load_chance(l, 20)) {
        ask_progress(w);
    }
    uv_timer_start(&w->timer, watcher_next, again_ms, 0);
}

void watcher_start(struct watcher *w)
{
    uv_timer_init(&w->load->loop, &w->timer);
    w->timer.data = w;
    w->next_rev = w->load->start_rev + 1;
    if (w->oracle) w->member = w->number;
    else choose_range(w), w->member = load_member(w->load);
    uv_timer_start(&w->timer, watcher_next, 0, 0);
}

void watcher_stop(struct watcher *w)
{
    if (w->open) grpc_client_cancel(&w->call);
    if (w->connection) h2_client_close(w->connection, NULL, NULL);
    uv_close((uv_handle_t *)&w->timer, NULL);
}
