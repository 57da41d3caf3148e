/* load --endpoints LIST --history FILE [--clients N] [--watchers N] [--seed N] [--think-ms N] [--settle-s N]
 *
 * Standard input: "members 1 2 3" says which of the endpoints are meant to be there; "stop" ends the requests, and what load_final.c
 * asks for follows. Standard output: each second a line "progress acked unknown refused errors events revision"; at last "done ..."
 * or "stuck <why>". Exit status: 0, 1 = stuck, 2 = cannot be used so. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/flags.h"
#include "base/log.h"
#include "base/mem.h"
#include "load_int.h"

uint64_t load_random(struct load *l)
{
    uint64_t x = l->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

unsigned load_member(struct load *l)
{
    for (;;) {
        unsigned m = (unsigned)load_below(l, l->n_members);
        if (l->active[m]) return m;
    }
}

struct h2_client *load_connect(struct load *l, unsigned member)
{
    struct h2_client *c;
    struct err e;
    struct h2_client_options o = {.endpoints = &l->endpoints[member], .n_endpoints = 1, .connect_timeout_ms = 1000, .keepalive_ms = 1000,
                                  .keepalive_timeout_ms = 2000, .backoff_max_ms = 500};
    int rv = h2_client_new(&l->loop, &o, &c, &e);
    if (rv != 0) fprintf(stderr, "load: %s\n", e.text);
    CHECK(rv == 0);
    return c;
}

void load_saw_revision(struct load *l, int64_t rev)
{
    CHECK(rev >= 0);
    if (rev > l->top_rev) l->top_rev = rev;
}

/* ---- what the harness says ----------------------------------------------------------------------------- */

static void set_members(struct load *l, char *numbers)
{
    bool active[MEMBERS_MAX] = {0}, some = false;
    char *save = NULL;
    for (char *n = strtok_r(numbers, " ", &save); n; n = strtok_r(NULL, " ", &save)) {
        unsigned i = (unsigned)atoi(n) - 1;
        if (i < l->n_members) some = active[i] = true;
    }
    if (some) memcpy(l->active, active, sizeof(active));
}

static void obey(struct load *l, char *line)
{
    if (!strncmp(line, "members ", 8)) set_members(l, line + 8);
    else if (!strcmp(line, "stop")) l->stopping = true;
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *ret)
{
    struct load *l = h->data;
    (void)size;
    *ret = uv_buf_init(l->control_line + l->control_len, (unsigned)(sizeof(l->control_line) - 1 - l->control_len));
}

static void on_control(uv_stream_t *s, ssize_t n, const uv_buf_t *unused)
{
    struct load *l = s->data;
    char *end;
    (void)unused;
    if (n < 0) { /* the harness is gone */
        fprintf(stderr, "load: standard input ended\n");
        exit(2);
    }
    l->control_len += (size_t)n;
    l->control_line[l->control_len] = 0;
    while ((end = strchr(l->control_line, '\n'))) {
        *end = 0;
        obey(l, l->control_line);
        l->control_len -= (size_t)(end + 1 - l->control_line);
        memmove(l->control_line, end + 1, l->control_len + 1);
    }
}

static void on_tick(uv_timer_t *t)
{
    const struct load *l = t->data;
    printf("progress %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 "\n", l->acked, l->unknown, l->refused, l->errors,
           l->watch_events, l->top_rev);
    fflush(stdout);
    fflush(l->rec.file);
}

/* ---- start and end ------------------------------------------------------------------------------------- */

static int parse(struct load *l, int argc, char **argv, const char **ret_history)
{
    const char *endpoints = NULL;
    int64_t seed = 1;
    const struct flag flags[] = {
        {"endpoints", FLAG_STRING, &endpoints, "LIST", "client URLs of the members"},
        {"history", FLAG_STRING, ret_history, "FILE", "where the history goes"},
        {"clients", FLAG_INT, &l->n_clients, "N", "clients"},
        {"watchers", FLAG_INT, &l->n_watchers, "N", "watchers"},
        {"seed", FLAG_INT, &seed, "N", "of what is asked"},
        {"think-ms", FLAG_INT, &l->think_ms, "N", "mean time between an answer and the next request"},
        {"val-size", FLAG_INT, &l->value_bytes, "N", "of the longest values"},
        {"settle-s", FLAG_INT, &l->settle_s, "N", "time for the members to agree after the faults"},
        {0}};
    struct err e = {0};
    int rest, rv = flags_parse(flags, argc, argv, &rest, &e);
    if (rv != 0 || !endpoints || !*ret_history) {
        fprintf(stderr, "load: %s\n", rv ? e.text : "--endpoints and --history are needed");
        return -1;
    }
    char *save = NULL, *list = mem_must_strdup(endpoints);
    for (char *u = strtok_r(list, ",", &save); u && l->n_members < MEMBERS_MAX; u = strtok_r(NULL, ",", &save))
        l->endpoints[l->n_members++] = u;
    for (unsigned i = 0; i < l->n_members; i++) l->active[i] = true;
    l->random = (uint64_t)seed * 0x9e3779b97f4a7c15u;
    value_limit((unsigned)l->value_bytes);
    return 0;
}

static void start_all(struct load *l)
{
    l->clients = mem_must_calloc((size_t)l->n_clients, sizeof(*l->clients));
    l->watchers = mem_must_calloc((size_t)l->n_watchers, sizeof(*l->watchers));
    for (unsigned i = 0; i < l->n_clients; i++) {
        l->clients[i].load = l;
        l->clients[i].number = i;
        client_start(&l->clients[i]);
    }
    for (unsigned i = 0; i < l->n_watchers; i++) {
        struct watcher *w = &l->watchers[i];
        w->load = l;
        w->number = i;
        w->oracle = i < l->n_members && i < ORACLES_MAX;
        watcher_start(w);
    }
}

static bool any_busy(const struct load *l)
{
    for (unsigned i = 0; i < l->n_clients; i++)
        if (l->clients[i].busy) return true;
    return false;
}

static void stop_all(struct load *l)
{
    l->finished = true;
    for (unsigned i = 0; i < l->n_clients; i++) client_stop(&l->clients[i]);
    for (unsigned i = 0; i < l->n_watchers; i++) watcher_stop(&l->watchers[i]);
    uv_close((uv_handle_t *)&l->control, NULL);
    uv_close((uv_handle_t *)&l->tick, NULL);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    uv_loop_close(&l->loop);
    buf_release(&l->rec.line);
    mem_free(l->clients);
    mem_free(l->watchers);
}

int main(int argc, char **argv)
{
    static struct load l = {.n_clients = 9, .n_watchers = 10, .think_ms = 30, .value_bytes = 4000, .settle_s = 180, .top_rev = 1, .start_rev = 1};
    const char *history = NULL;
    log_set_name("load");
    if (parse(&l, argc, argv, &history) != 0) return 2;
    l.rec.file = fopen(history, "w");
    if (!l.rec.file) {
        perror(history);
        return 2;
    }
    uv_loop_init(&l.loop);
    uv_pipe_init(&l.loop, &l.control, 0);
    uv_timer_init(&l.loop, &l.tick);
    l.control.data = l.tick.data = &l;
    CHECK(uv_pipe_open(&l.control, 0) == 0);
    uv_read_start((uv_stream_t *)&l.control, on_alloc, on_control);
    uv_timer_start(&l.tick, on_tick, 1000, 1000);
    start_all(&l);
    while (!l.stopping || any_busy(&l)) uv_run(&l.loop, UV_RUN_ONCE);
    int rv = load_final(&l);
    on_tick(&l.tick);
    if (rv == 0) printf("done lines=%" PRIu64 "\n", l.rec.lines);
    stop_all(&l);
    if (fclose(l.rec.file) != 0) {
        perror(history);
        rv = 2;
    }
    return rv;
}
