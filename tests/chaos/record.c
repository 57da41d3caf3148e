#include <inttypes.h>

#include "base/check.h"
#include "load_int.h"

void rec_open(struct rec *r, const char *what)
{
    buf_clear(&r->line);
    buf_printf(&r->line, "{\"e\":\"%s\"", what);
}

void rec_close(struct rec *r)
{
    buf_append_str(&r->line, "}\n");
    CHECK(!r->line.failed);
    CHECK(fwrite(r->line.data, 1, r->line.len, r->file) == r->line.len);
    r->lines++;
}

void rec_name(struct rec *r, const char *name)
{
    buf_printf(&r->line, ",\"%s\":", name);
}

void rec_int(struct rec *r, const char *name, int64_t v)
{
    buf_printf(&r->line, ",\"%s\":%" PRId64, name, v);
}

void rec_str(struct rec *r, const char *name, const char *text)
{
    rec_name(r, name);
    json_write_string(&r->line, slice_str(text));
}

static unsigned value_max;

void value_limit(unsigned max_bytes)
{
    value_max = max_bytes;
}

/* Mostly short; one in fifty of any length. */
static unsigned padding(uint64_t number)
{
    uint64_t h = number * 0x9e3779b97f4a7c15u >> 20;
    return (unsigned)(h >> 8) % ((h & 63) ? 64 : value_max + 1);
}

void value_make(struct buf *out, uint64_t number)
{
    buf_printf(out, "v%" PRIu64, number);
    for (unsigned n = padding(number); n > 0; n--) buf_append_byte(out, '.');
}

uint64_t value_number(struct slice value)
{
    uint64_t n = 0;
    for (size_t i = 1; i < value.len && value.data[i] >= '0' && value.data[i] <= '9'; i++) n = 10 * n + (value.data[i] - '0');
    return n;
}

void rec_value(struct rec *r, struct slice value)
{
    size_t n = value.len;
    while (n > 0 && value.data[n - 1] == '.') n--;
    bool right = value.len - n == padding(value_number(value));
    json_write_string(&r->line, right ? slice_sub(value, 0, n) : value);
}

int kv_decode(struct slice m, struct kv_seen *ret)
{
    struct pb_field f;
    int rv;
    *ret = (struct kv_seen){0};
    while ((rv = pb_next(&m, &f)) == 1) {
        switch (f.number) {
        case 1: ret->key = f.bytes; break;
        case 2: ret->create = (int64_t)f.value; break;
        case 3: ret->mod = (int64_t)f.value; break;
        case 4: ret->version = (int64_t)f.value; break;
        case 5: ret->value = f.bytes; break;
        case 6: ret->lease = (int64_t)f.value; break;
        default: break;
        }
    }
    return rv;
}

void rec_kv(struct rec *r, const struct kv_seen *kv)
{
    buf_append_byte(&r->line, '[');
    json_write_string(&r->line, kv->key);
    buf_append_byte(&r->line, ',');
    rec_value(r, kv->value);
    buf_printf(&r->line, ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]", kv->create, kv->mod, kv->version, kv->lease);
}

int64_t rec_header(struct rec *r, struct slice header)
{
    struct pb_field f;
    int64_t rev = 0, term = 0, member = 0;
    while (pb_next(&header, &f) == 1) {
        if (f.number == 2) member = (int64_t)f.value;
        if (f.number == 3) rev = (int64_t)f.value;
        if (f.number == 4) term = (int64_t)f.value;
    }
    rec_int(r, "rev", rev);
    rec_int(r, "term", term);
    rec_int(r, "mid", member);
    return rev;
}
