#include "api/http/h2_head.h"

#include <nghttp2/nghttp2.h>

/* Marks a pseudo-header as come; false if it had. */
static bool once(bool *came)
{
    bool first = !*came;
    *came = true;
    return first;
}

/* Visible characters only: what may stand in an URL, and nothing that ends a line. */
static bool visible(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] <= ' ' || s.data[i] == 0x7f) return false;
    }
    return s.len > 0;
}

static bool pseudo(struct h2_head *h, struct slice name, struct slice value)
{
    if (h->complete || h->regular || !visible(value)) return false;
    if (slice_eq(name, SLICE_LIT(":method"))) return nghttp2_check_method(value.data, value.len) && once(&h->method);
    if (slice_eq(name, SLICE_LIT(":scheme"))) return once(&h->scheme);
    if (slice_eq(name, SLICE_LIT(":path"))) return (value.data[0] == '/' || slice_eq(value, SLICE_LIT("*"))) && once(&h->path);
    if (slice_eq(name, SLICE_LIT(":authority"))) return once(&h->authority);
    return false;
}

static bool take_length(struct h2_head *h, struct slice value)
{
    if (h->has_length || value.len == 0 || value.len > 18) return false;
    h->has_length = true;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') return false;
        h->length = h->length * 10 + (uint64_t)(value.data[i] - '0');
    }
    return true;
}

static bool connection_field(struct slice name)
{
    return slice_eq(name, SLICE_LIT("connection")) || slice_eq(name, SLICE_LIT("keep-alive")) ||
           slice_eq(name, SLICE_LIT("proxy-connection")) || slice_eq(name, SLICE_LIT("transfer-encoding")) ||
           slice_eq(name, SLICE_LIT("upgrade"));
}

bool h2_head_field(struct h2_head *h, struct slice name, struct slice value)
{
    if (name.len == 0) return false;
    if (name.data[0] == ':') return pseudo(h, name, value);
    h->regular = true;
    if (!nghttp2_check_header_name(name.data, name.len) || !nghttp2_check_header_value(value.data, value.len)) return false;
    switch (name.data[0]) {
    case 't':
        if (slice_eq(name, SLICE_LIT("te"))) return slice_eq(value, SLICE_LIT("trailers"));
        return !connection_field(name);
    case 'c':
        if (slice_eq(name, SLICE_LIT("content-length")) && !h->complete) return take_length(h, value);
        return !connection_field(name);
    case 'h':
        if (slice_eq(name, SLICE_LIT("host"))) h->authority = true;
        return true;
    default: return !connection_field(name);
    }
}

bool h2_head_block_end(struct h2_head *h, bool end_stream)
{
    if (h->complete) return end_stream; /* trailers are the end */
    h->complete = true;
    return h->method && h->scheme && h->path && h->authority;
}

bool h2_head_data(struct h2_head *h, size_t n)
{
    h->received += n;
    return !h->has_length || h->received <= h->length;
}

bool h2_head_end(const struct h2_head *h)
{
    return !h->has_length || h->received == h->length;
}
