#include "base/slice.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"

static size_t buf_cap(const struct buf *b)
{
    return b->cap ? b->cap : SIZE_MAX;
}

void buf_init(struct buf *b, size_t cap)
{
    *b = (struct buf){.cap = cap};
}

void buf_release(struct buf *b)
{
    mem_free(b->data);
    *b = (struct buf){.cap = b->cap};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = 0;
}

uint8_t *buf_reserve(struct buf *b, size_t more)
{
    if (b->failed) return NULL;
    size_t cap = buf_cap(b);
    if (more > cap || b->len > cap - more) {
        b->failed = ERR_LIMIT;
        return NULL;
    }
    size_t need = b->len + more;
    if (need > b->size || !b->data) {
        size_t size = b->size ? b->size : 64;
        while (size < need) size = size > cap / 2 ? cap : size * 2;
        uint8_t *data = mem_realloc(b->data, size);
        if (!data) {
            b->failed = ERR_NOMEM;
            return NULL;
        }
        b->data = data;
        b->size = size;
    }
    return b->data + b->len;
}

void buf_consume(struct buf *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

int buf_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0) return b->failed;
    uint8_t *p = buf_reserve(b, len);
    if (!p) return b->failed;
    memcpy(p, data, len);
    b->len += len;
    return 0;
}

int buf_append_slice(struct buf *b, struct slice s)
{
    return buf_append(b, s.data, s.len);
}

int buf_append_str(struct buf *b, const char *text)
{
    return buf_append(b, text, strlen(text));
}

int buf_append_byte(struct buf *b, uint8_t byte)
{
    return buf_append(b, &byte, 1);
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list ap, again;
    va_start(ap, format);
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, format, ap);
    va_end(ap);
    uint8_t *p = len < 0 ? NULL : buf_reserve(b, (size_t)len + 1);
    if (p) {
        vsnprintf((char *)p, (size_t)len + 1, format, again);
        b->len += (size_t)len;
    }
    va_end(again);
    return b->failed;
}

int buf_append_u32(struct buf *b, uint32_t v)
{
    uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    return buf_append(b, bytes, sizeof(bytes));
}

int buf_append_u64(struct buf *b, uint64_t v)
{
    buf_append_u32(b, (uint32_t)v);
    return buf_append_u32(b, (uint32_t)(v >> 32));
}

const char *buf_cstr(struct buf *b)
{
    uint8_t *p = buf_reserve(b, 1);
    if (!p) return NULL;
    *p = 0;
    return (const char *)b->data;
}

struct slice reader_bytes(struct reader *r, size_t len)
{
    if (r->failed || len > reader_left(r)) {
        r->failed = true;
        return (struct slice){0};
    }
    struct slice s = {r->p, len};
    r->p += len;
    return s;
}

size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->p);
}

uint8_t reader_u8(struct reader *r)
{
    struct slice s = reader_bytes(r, 1);
    return s.len ? s.data[0] : 0;
}

uint32_t reader_u32(struct reader *r)
{
    struct slice s = reader_bytes(r, 4);
    if (!s.len) return 0;
    return (uint32_t)s.data[0] | (uint32_t)s.data[1] << 8 | (uint32_t)s.data[2] << 16 |
           (uint32_t)s.data[3] << 24;
}

uint64_t reader_u64(struct reader *r)
{
    uint64_t low = reader_u32(r);
    return low | (uint64_t)reader_u32(r) << 32;
}
