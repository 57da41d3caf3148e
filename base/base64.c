#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int base64_append(struct buf *out, struct slice in)
{
    for (size_t i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t v = (uint32_t)in.data[i] << 16 | (left > 1 ? (uint32_t)in.data[i + 1] << 8 : 0) | (left > 2 ? in.data[i + 2] : 0);
        char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], left > 1 ? alphabet[v >> 6 & 63] : '=', left > 2 ? alphabet[v & 63] : '='};
        buf_append(out, four, 4);
    }
    return out->failed;
}

int base64_decode(struct buf *out, struct slice text)
{
    uint32_t v = 0;
    unsigned bits = 0;
    while (text.len && text.data[text.len - 1] == '=') text.len--;
    for (size_t i = 0; i < text.len; i++) {
        const char *at = text.data[i] ? strchr(alphabet, text.data[i]) : NULL;
        if (!at) return ERR_INVALID;
        v = v << 6 | (uint32_t)(at - alphabet);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        buf_append_byte(out, (uint8_t)(v >> bits));
    }
    return out->failed;
}

char *base64_encode(struct arena *a, struct slice in)
{
    size_t size = (in.len + 2) / 3 * 4 + 1;
    uint8_t *bytes = arena_alloc(a, size);
    if (!bytes) return NULL;
    struct buf out = {.data = bytes, .size = size, .cap = size};
    base64_append(&out, in);
    bytes[out.len] = 0;
    return (char *)bytes;
}
