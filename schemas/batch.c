#include "schemas/batch.h"

#include "schemas/mp_int.h"

enum { BATCH_VERSION = 1, HEAD_BYTES = 5, FIXED_FIELDS = 2 };

void batch_begin(struct batch_writer *w, uint64_t origin, size_t cap)
{
    w->buf.cap = cap;
    w->count = 0;
    buf_clear(&w->buf);
    /* The element count is filled in at the end, so its head has the widest form. */
    static const uint8_t head[HEAD_BYTES] = {0xdd};
    buf_append(&w->buf, head, sizeof(head));
    mp_write_uint(&w->buf, BATCH_VERSION);
    mp_write_uint(&w->buf, origin);
}

int batch_add(struct batch_writer *w, uint64_t seq, struct slice command)
{
    size_t before = w->buf.len;
    if (w->buf.failed) return w->buf.failed;
    mp_write_array(&w->buf, 2);
    mp_write_uint(&w->buf, seq);
    mp_write_bin(&w->buf, command);
    if (w->buf.failed) {
        int rc = w->buf.failed;
        w->buf.len = before;
        w->buf.failed = 0;
        return rc;
    }
    w->count++;
    return 0;
}

struct slice batch_finish(struct batch_writer *w)
{
    if (w->buf.failed || w->buf.len < HEAD_BYTES) return (struct slice){0};
    uint64_t n = FIXED_FIELDS + w->count;
    for (unsigned i = 0; i < 4; i++) w->buf.data[1 + i] = (uint8_t)(n >> (8 * (3 - i)));
    return buf_slice(&w->buf);
}

void batch_release(struct batch_writer *w)
{
    buf_release(&w->buf);
    w->count = 0;
}

int batch_open(struct batch_reader *r, struct slice entry)
{
    r->r = reader_make(entry);
    uint32_t n = mp_read_array(&r->r);
    uint64_t version = mp_read_uint(&r->r);
    if (r->r.failed || n < FIXED_FIELDS || version == 0) return ERR_CORRUPT;
    if (version > BATCH_VERSION) return ERR_UNSUPPORTED;
    r->origin = mp_read_uint(&r->r);
    r->left = n - FIXED_FIELDS;
    return r->r.failed ? ERR_CORRUPT : 0;
}

int batch_next(struct batch_reader *r, uint64_t *ret_seq, struct slice *ret_command)
{
    if (r->r.failed) return ERR_CORRUPT;
    if (r->left == 0) return reader_left(&r->r) ? ERR_CORRUPT : 0;
    uint32_t n = mp_read_array(&r->r);
    uint64_t seq = mp_read_uint(&r->r);
    struct slice command = mp_read_bin(&r->r);
    if (n < 2) r->r.failed = true;
    else mp_skip(&r->r, n - 2);
    if (r->r.failed) return ERR_CORRUPT;
    r->left--;
    *ret_seq = seq;
    *ret_command = command;
    return 1;
}
