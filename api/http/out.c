#include "api/http/out.h"

#include "base/check.h"
#include "base/mem.h"

static struct out_piece *piece_new(size_t room)
{
    struct out_piece *p = mem_alloc(sizeof(*p) + room);
    if (!p) return NULL;
    *p = (struct out_piece){.refs = 1, .room = room};
    p->data = p->bytes;
    return p;
}

void out_piece_unref(struct out_piece *p)
{
    if (!p || --p->refs > 0) return;
    if (p->release) p->release(p->owner);
    mem_free(p);
}

static void append(struct out_queue *q, struct out_piece *p)
{
    if (q->tail)
        q->tail->next = p;
    else
        q->head = p;
    q->tail = p;
}

/* Behind small writes there is room for the next ones: most answers are one piece. */
static size_t room_for(const struct out_queue *q, size_t len)
{
    size_t room = q->bytes == 0 ? 448 : q->bytes < 4096 ? 1024 : 4096;
    return len > room ? len : room;
}

int out_queue_copy(struct out_queue *q, struct slice data)
{
    if (data.len == 0) return 0;
    struct out_piece *p = q->tail;
    if (!p || p->room - (p->room ? p->len : 0) < data.len) {
        p = piece_new(room_for(q, data.len));
        if (!p) return ERR_NOMEM;
        append(q, p);
    }
    memcpy(p->bytes + p->len, data.data, data.len);
    p->len += data.len;
    q->bytes += data.len;
    return 0;
}

int out_queue_ref(struct out_queue *q, struct slice data, void (*release)(void *owner), void *owner)
{
    int rc = 0;
    if (data.len > OUT_COPY_MAX / 4) {
        struct out_piece *p = piece_new(0);
        if (p) {
            p->data = data.data;
            p->len = data.len;
            p->release = release;
            p->owner = owner;
            append(q, p);
            q->bytes += data.len;
            return 0;
        }
        rc = ERR_NOMEM;
    } else {
        rc = out_queue_copy(q, data);
    }
    if (release) release(owner);
    return rc;
}

void out_queue_release(struct out_queue *q)
{
    for (struct out_piece *p = q->head, *next; p; p = next) {
        next = p->next;
        out_piece_unref(p);
    }
    *q = (struct out_queue){0};
}

void gather_copy(struct gather *g, const void *data, size_t len)
{
    if (len == 0) return;
    uint8_t *at = g->scratch + g->used;
    memcpy(at, data, len);
    g->used += len;
    g->bytes += len;
    struct iovec *last = g->n ? &g->iov[g->n - 1] : NULL;
    if (last && !g->own[g->n - 1] && (uint8_t *)last->iov_base + last->iov_len == at) {
        last->iov_len += len;
        return;
    }
    g->iov[g->n] = (struct iovec){at, len};
    g->own[g->n++] = NULL;
}

static void gather_ref(struct gather *g, struct out_piece *p, const uint8_t *data, size_t len)
{
    p->refs++;
    g->iov[g->n] = (struct iovec){(void *)(uintptr_t)data, len};
    g->own[g->n++] = p;
    g->bytes += len;
}

void gather_queue(struct gather *g, struct out_queue *q, size_t len)
{
    CHECK(len <= q->bytes && len <= OUT_FRAME);
    q->bytes -= len;
    while (len > 0) {
        struct out_piece *p = q->head;
        size_t part = p->len - q->consumed;
        if (part > len) part = len;
        if (part <= OUT_COPY_MAX || g->copy_all)
            gather_copy(g, p->data + q->consumed, part);
        else
            gather_ref(g, p, p->data + q->consumed, part);
        len -= part;
        q->consumed += part;
        if (q->consumed < p->len) continue;
        q->consumed = 0;
        q->head = p->next;
        if (!q->head) q->tail = NULL;
        out_piece_unref(p);
    }
}

void gather_reset(struct gather *g)
{
    for (unsigned i = 0; i < g->n; i++) out_piece_unref(g->own[i]);
    g->n = 0;
    g->used = 0;
    g->bytes = 0;
}

struct out_rest *out_rest_new(struct gather *g, size_t written)
{
    CHECK(written < g->bytes);
    /* The first part that is not wholly written, and how many scratch bytes are left from it on. */
    unsigned first = 0;
    while (written >= g->iov[first].iov_len) written -= g->iov[first++].iov_len;
    g->iov[first].iov_base = (uint8_t *)g->iov[first].iov_base + written;
    g->iov[first].iov_len -= written;
    size_t copied = 0, bytes = 0;
    unsigned n = g->n - first;
    for (unsigned i = first; i < g->n; i++) {
        bytes += g->iov[i].iov_len;
        if (!g->own[i]) copied += g->iov[i].iov_len;
    }
    struct out_rest *r =
        mem_alloc(sizeof(*r) + n * (sizeof(struct iovec) + sizeof(struct out_piece *)) + copied);
    if (r) {
        r->first = 0;
        r->n = n;
        r->bytes = bytes;
        r->iov = (struct iovec *)(r + 1);
        r->own = (struct out_piece **)(r->iov + n);
        uint8_t *at = (uint8_t *)(r->own + n);
        for (unsigned i = 0; i < n; i++) {
            r->iov[i] = g->iov[first + i];
            r->own[i] = g->own[first + i];
            g->own[first + i] = NULL; /* the reference moves */
            if (r->own[i]) continue;
            memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
            r->iov[i].iov_base = at;
            at += r->iov[i].iov_len;
        }
    }
    gather_reset(g);
    return r;
}

void out_rest_advance(struct out_rest *r, size_t written)
{
    r->bytes -= written;
    while (written > 0) {
        struct iovec *v = &r->iov[r->first];
        if (written < v->iov_len) {
            v->iov_base = (uint8_t *)v->iov_base + written;
            v->iov_len -= written;
            return;
        }
        written -= v->iov_len;
        out_piece_unref(r->own[r->first]);
        r->own[r->first++] = NULL;
    }
}

void out_rest_free(struct out_rest *r)
{
    if (!r) return;
    for (unsigned i = r->first; i < r->n; i++) out_piece_unref(r->own[i]);
    mem_free(r);
}
