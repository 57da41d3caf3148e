/* After the faults: all leases run out, every member holds the same at one revision and says the same hash, every oracle has been
 * told of everything. Each of these within --settle-s, or the cluster has not recovered. */
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "load_int.h"

struct final {
    struct load *load;
    struct h2_client *connections[MEMBERS_MAX];
    uint64_t until_ns;
    int64_t rev;
    char why[300];
};

struct final_call {
    struct grpc_client_call call;
    struct buf answer;
    bool done;
    int status;
    char text[200];
};

static void on_message(struct grpc_client_call *call, struct slice message)
{
    struct final_call *f = call->data;
    buf_clear(&f->answer);
    buf_append_slice(&f->answer, message);
}

static void on_done(struct grpc_client_call *call, int status, const char *text)
{
    struct final_call *f = call->data;
    f->done = true;
    f->status = status;
    snprintf(f->text, sizeof(f->text), "%s", text);
}

/* Asks a member and waits; the gRPC status. */
static int ask(struct final *x, unsigned member, const char *method, const struct buf *request, struct buf *ret)
{
    struct final_call f = {.call = {.message = on_message, .done = on_done}};
    f.call.data = &f;
    if (!x->connections[member]) x->connections[member] = load_connect(x->load, member);
    if (grpc_client_start(&f.call, x->connections[member], method, buf_slice(request), false, 5000) != 0) return -1;
    while (!f.done) uv_run(&x->load->loop, UV_RUN_ONCE);
    if (f.status == 0) *ret = f.answer;
    else buf_release(&f.answer);
    if (f.status) snprintf(x->why, sizeof(x->why), "member %u: %s: %s", member + 1, method, f.text);
    return f.status;
}

/* ---- one step each; true when it is done ---------------------------------------------------------------- */

static void no_kv(void *ctx, const struct kv_seen *kv)
{
    (void)ctx, (void)kv;
}

/* A KV request, written down like those of clients if it was answered. Its revision, or -1. */
static int64_t kv(struct final *x, unsigned member, const struct kv_request *q)
{
    struct rec *r = &x->load->rec;
    struct buf request = {0}, answer = {0};
    const char *name;
    uint64_t t0 = clock_mono_ns();
    kv_encode(q, &request);
    int status = ask(x, member, kv_method(q, &name), &request, &answer);
    int64_t rev = -1;
    buf_release(&request);
    rec_open(r, "op");
    rec_int(r, "c", x->load->n_clients);
    rec_int(r, "m", member);
    rec_int(r, "t0", (int64_t)t0);
    rec_int(r, "t1", (int64_t)clock_mono_ns());
    rec_str(r, "k", name);
    rec_str(r, "s", outcome_of(status, x->why));
    kv_record_request(r, q);
    if (status == 0) rev = kv_record_answer(r, q, buf_slice(&answer), no_kv, NULL);
    else rec_str(r, "text", x->why), rec_int(r, "code", status);
    rec_close(r);
    buf_release(&answer);
    return rev;
}

static bool leases_gone(struct final *x, unsigned member)
{
    struct buf request = {0}, answer = {0};
    if (ask(x, member, "/etcdserverpb.Lease/LeaseLeases", &request, &answer) != 0) return false;
    struct slice m = buf_slice(&answer);
    struct pb_field f;
    unsigned n = 0;
    while (pb_next(&m, &f) == 1) n += f.number == 2;
    if (n) snprintf(x->why, sizeof(x->why), "member %u: %u leases have not run out", member + 1, n);
    buf_release(&answer);
    return n == 0;
}

static bool writes(struct final *x, unsigned member)
{
    struct kv_request q = {.n_then = 1, .then = {{.type = KV_PUT, .key = "z/end", .value = ++x->load->next_value}}};
    int64_t rev = kv(x, member, &q);
    if (rev > x->rev) x->rev = rev;
    return rev > 0;
}

static bool holds_all(struct final *x, unsigned member, bool serializable)
{
    struct kv_request q = {.n_then = 1, .then = {{.type = KV_RANGE, .key = "a", .end = "~", .serializable = serializable}}};
    int64_t rev = kv(x, member, &q);
    if (rev >= 0 && rev != x->rev)
        snprintf(x->why, sizeof(x->why), "member %u is at revision %" PRId64 " instead of %" PRId64, member + 1, rev, x->rev);
    return rev == x->rev;
}

static bool holds_stale(struct final *x, unsigned member)
{
    return holds_all(x, member, true);
}

static bool holds_fresh(struct final *x, unsigned member)
{
    return holds_all(x, member, false);
}

static bool hashes(struct final *x, unsigned member)
{
    struct rec *r = &x->load->rec;
    struct buf request = {0}, answer = {0};
    struct pb_field f;
    int64_t hash = 0, compact = 0;
    pb_uint(&request, 1, (uint64_t)x->rev);
    int status = ask(x, member, "/etcdserverpb.Maintenance/HashKV", &request, &answer);
    buf_release(&request);
    if (status != 0) return false;
    struct slice m = buf_slice(&answer);
    while (pb_next(&m, &f) == 1) {
        if (f.number == 2) hash = (int64_t)f.value;
        if (f.number == 3) compact = (int64_t)f.value;
    }
    buf_release(&answer);
    rec_open(r, "final");
    rec_int(r, "m", member);
    rec_int(r, "rev", x->rev);
    rec_int(r, "hash", hash);
    rec_int(r, "crev", compact);
    rec_close(r);
    return true;
}

static bool oracles_told(struct final *x)
{
    const struct load *l = x->load;
    for (int64_t i = 0; i < l->n_watchers; i++) {
        const struct watcher *w = &l->watchers[i];
        if (!w->oracle || !l->active[w->member] || w->next_rev > x->rev) continue;
        snprintf(x->why, sizeof(x->why), "the watcher of everything on member %u waits for revision %" PRId64 " of %" PRId64, w->member + 1,
                 w->next_rev, x->rev);
        return false;
    }
    return true;
}

/* ---- all ---------------------------------------------------------------------------------------------------- */

static void pause_ms(struct final *x, unsigned ms)
{
    uint64_t until = clock_mono_ns() + ms * 1000000ull;
    while (clock_mono_ns() < until) uv_run(&x->load->loop, UV_RUN_ONCE);
}

/* `step` on each member, again and again until it is true of all or the time is over. */
static bool on_all(struct final *x, bool (*step)(struct final *x, unsigned member))
{
    for (unsigned i = 0; i < x->load->n_members; i++) {
        while (x->load->active[i] && !step(x, i)) {
            if (clock_mono_ns() > x->until_ns) return false;
            pause_ms(x, 200);
        }
    }
    return true;
}

int load_final(struct load *l)
{
    struct final x = {.load = l, .until_ns = clock_mono_ns() + (uint64_t)l->settle_s * 1000000000u};
    snprintf(x.why, sizeof(x.why), "nothing happened");
    bool ok = on_all(&x, leases_gone) && on_all(&x, writes) && on_all(&x, holds_fresh) && on_all(&x, holds_stale) && on_all(&x, hashes);
    while (ok && !oracles_told(&x)) {
        if (clock_mono_ns() > x.until_ns) ok = false;
        pause_ms(&x, 100);
    }
    if (!ok) printf("stuck %s\n", x.why);
    for (unsigned i = 0; i < MEMBERS_MAX; i++)
        if (x.connections[i]) h2_client_close(x.connections[i], NULL, NULL);
    return ok ? 0 : 1;
}
