/* A small application for the HTTP tests: what each path does stands in http_app(). */
#ifndef PINTLE_TESTS_UNIT_HTTP_FIXTURE_H
#define PINTLE_TESTS_UNIT_HTTP_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>

#include "api/http/http.h"
#include "base/check.h"
#include "base/list.h"
#include "base/mem.h"

enum { APP_TAKEN_MS = 300 };

struct app_stream {
    struct http_stream *st;
    uint64_t body_bytes, left; /* left: bytes that /size still has to write */
    bool echo, slow, grow;
    uv_timer_t timer;
    bool timer_used;
};

struct app_counts {
    uint64_t requests, ended, closed, closed_error, writable;
    int last_error;
};
static _Thread_local struct app_counts app_counts;

static void app_timer_closed(uv_handle_t *h)
{
    mem_free(container_of((uv_timer_t *)h, struct app_stream, timer));
}

static uint8_t app_block[64 * 1024];

static void app_fill(struct app_stream *a)
{
    while (a->left > 0 && http_writable(a->st)) {
        size_t n = a->left < sizeof(app_block) ? a->left : sizeof(app_block);
        http_write_ref(a->st, slice_make(app_block, n), NULL, NULL);
        a->left -= n;
    }
    if (a->left == 0) http_end(a->st);
}

static void app_body(struct http_stream *st, struct slice piece)
{
    struct app_stream *a = http_user(st);
    a->body_bytes += piece.len;
    if (!a->echo) return;
    http_write(st, piece);
    if (!http_writable(st)) http_pause(st);
}

static void app_end(struct http_stream *st)
{
    struct app_stream *a = http_user(st);
    app_counts.ended++;
    if (a->left) return;
    if (a->echo) {
        const struct http_header trailer = {SLICE_LIT("x-echoed"), SLICE_LIT("yes")};
        http_end_trailers(st, &trailer, 1);
    } else if (!a->slow && !a->grow) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)a->body_bytes);
        http_reply(st, 200, "text/plain", slice_make(text, (size_t)n));
    }
}

static void app_writable(struct http_stream *st)
{
    struct app_stream *a = http_user(st);
    app_counts.writable++;
    if (a->echo) http_resume(st);
    if (a->left) app_fill(a);
}

static void app_closed(struct http_stream *st, int error)
{
    struct app_stream *a = http_user(st);
    app_counts.closed++;
    app_counts.last_error = error;
    if (error) app_counts.closed_error++;
    if (a->timer_used)
        uv_close((uv_handle_t *)&a->timer, app_timer_closed);
    else
        mem_free(a);
}

static void app_slow_timer(uv_timer_t *t)
{
    struct app_stream *a = container_of(t, struct app_stream, timer);
    if (a->grow) {
        http_write(a->st, SLICE_LIT("tick\n"));
        return;
    }
    http_reply(a->st, 200, "text/plain", SLICE_LIT("late\n"));
}

static void app_who(struct http_stream *st)
{
    const struct http_request *r = http_request(st);
    struct buf b = {0};
    buf_printf(&b, "http/%d tls=%d cn=%.*s", http_version(st), r->tls, (int)r->cert_common_name.len,
               (const char *)r->cert_common_name.data);
    for (size_t i = 0; i < r->n_cert_organizations; i++)
        buf_printf(&b, " o=%.*s", (int)r->cert_organizations[i].len, (const char *)r->cert_organizations[i].data);
    buf_printf(&b, " %.*s %.*s ? %.*s @ %.*s n=%zu\n", (int)r->method.len, (const char *)r->method.data,
               (int)r->path.len, (const char *)r->path.data, (int)r->query.len, (const char *)r->query.data,
               (int)r->authority.len, (const char *)r->authority.data, r->n_headers);
    http_reply(st, 200, "text/plain", buf_slice(&b));
    buf_release(&b);
}

static const struct http_callbacks app_callbacks = {app_body, app_end, app_writable, app_closed};

/* /            "hello"                    /who          the request as it was understood
 * /count       how many body bytes came   /echo         the body, and a trailer
 * /size?N      N bytes, by reference      /late?MS      an answer after MS milliseconds
 * /taken?N     the same, with a limit on how long the client may take nothing
 * /ticks?MS    a line every MS            /early        answers before the body */
static void http_app(void *ctx, struct http_stream *st)
{
    (void)ctx;
    const struct http_request *r = http_request(st);
    app_counts.requests++;
    if (slice_eq_str(r->path, "/")) {
        http_reply(st, 200, "text/plain", SLICE_LIT("hello\n"));
        return;
    }
    if (slice_eq_str(r->path, "/who")) {
        app_who(st);
        return;
    }
    if (slice_eq_str(r->path, "/early")) {
        http_reply(st, 413, "text/plain", SLICE_LIT("too much\n"));
        return;
    }
    if (slice_eq_str(r->path, "/nothing")) return; /* a handler's bug */
    char number[24] = "";
    if (r->query.len < sizeof(number)) memcpy(number, r->query.data ? r->query.data : (const uint8_t *)"", r->query.len);
    struct app_stream *a = mem_must_calloc(1, sizeof(*a));
    a->st = st;
    http_set_callbacks(st, &app_callbacks, a);
    if (slice_eq_str(r->path, "/count")) return;
    if (slice_eq_str(r->path, "/echo")) {
        a->echo = true;
        http_respond(st, 200, NULL, 0, false);
    } else if (slice_eq_str(r->path, "/size") || slice_eq_str(r->path, "/taken")) {
        a->left = strtoull(number, NULL, 10);
        if (slice_eq_str(r->path, "/taken")) http_set_write_timeout(st, APP_TAKEN_MS);
        http_respond(st, 200, NULL, 0, false);
        app_fill(a);
    } else if (slice_eq_str(r->path, "/late") || slice_eq_str(r->path, "/ticks")) {
        unsigned ms = (unsigned)strtoul(number, NULL, 10);
        a->slow = true;
        a->grow = slice_eq_str(r->path, "/ticks");
        a->timer_used = true;
        uv_timer_init(*(uv_loop_t **)ctx, &a->timer);
        uv_timer_start(&a->timer, app_slow_timer, ms, a->grow ? ms : 0);
        if (a->grow) {
            http_set_body_timeout(st, 0);
            http_respond(st, 200, NULL, 0, false);
        }
    } else {
        http_reply(st, 404, "text/plain", SLICE_LIT("not found\n"));
    }
}

#endif
