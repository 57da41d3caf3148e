/* The `continue` parameter of a list, in Kubernetes' own form (storage/continue.go): base64url without padding of a small
 * JSON object. A client can make one up, and gains nothing: the start is always put behind the list's own prefix, and a
 * revision that was compacted or is yet to come is refused. */
#include <stdio.h>

#include "api/kube/kube_int.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *encode64(struct arena *a, struct slice in)
{
    char *out = arena_alloc(a, in.len / 3 * 4 + 5);
    if (!out) return NULL;
    size_t n = 0;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t v = (uint32_t)in.data[i] << 16;
        if (left > 1) v |= (uint32_t)in.data[i + 1] << 8;
        if (left > 2) v |= in.data[i + 2];
        out[n++] = alphabet[v >> 18];
        out[n++] = alphabet[v >> 12 & 63];
        if (left > 1) out[n++] = alphabet[v >> 6 & 63];
        if (left > 2) out[n++] = alphabet[v & 63];
    }
    out[n] = 0;
    return out;
}

static int decode64(struct arena *a, struct slice in, struct slice *ret)
{
    if (in.len % 4 == 1) return ERR_INVALID;
    uint8_t *out = arena_alloc(a, in.len);
    if (!out) return ERR_NOMEM;
    size_t n = 0;
    uint32_t v = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < in.len; i++) {
        const char *at = in.data[i] ? strchr(alphabet, in.data[i]) : NULL;
        if (!at) return ERR_INVALID;
        v = v << 6 | (uint32_t)(at - alphabet);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t)(v >> bits);
            v &= (1u << bits) - 1;
        }
    }
    if (v) return ERR_INVALID;
    *ret = slice_make(out, n);
    return 0;
}

int continue_encode(struct arena *a, int64_t revision, struct slice start, const char **ret)
{
    struct buf b;
    buf_init(&b, 64 * LIMIT_KiB);
    buf_printf(&b, "{\"v\":\"meta.k8s.io/v1\",\"rv\":%lld,\"start\":", (long long)revision);
    json_write_string(&b, start);
    buf_append_str(&b, "}");
    int code = b.failed;
    if (!code) {
        *ret = encode64(a, buf_slice(&b));
        if (!*ret) code = ERR_NOMEM;
    }
    buf_release(&b);
    return code;
}

/* No empty, "." or ".." parts: what Kubernetes calls a clean path. */
static bool start_ok(struct slice s)
{
    if (!s.len || s.data[0] == '/') return false;
    while (s.len) {
        ptrdiff_t at = slice_index(s, '/');
        struct slice part = at < 0 ? s : slice_sub(s, 0, (size_t)at);
        if (!part.len || slice_eq_str(part, ".") || slice_eq_str(part, "..")) return false;
        if (at >= 0 && (size_t)at + 1 == s.len) return false;
        s = at < 0 ? (struct slice){0} : slice_sub(s, (size_t)at + 1, s.len);
    }
    return true;
}

int continue_decode(struct arena *a, struct slice token, int64_t *ret_revision, struct slice *ret_start, struct err *e)
{
    struct slice text;
    struct json *v;
    int64_t rv;
    int code = decode64(a, token, &text);
    if (code == ERR_NOMEM) return code;
    if (code || json_parse(a, text, 0, &v, NULL) || v->type != JSON_OBJECT) {
        return err_set(e, ERR_INVALID, "continue key is not valid: it is no token of this server");
    }
    if (!json_is_str(json_get(v, "v"), "meta.k8s.io/v1")) {
        return err_set(e, ERR_INVALID, "continue key is not valid: server does not recognize this encoded version %.*s",
                       (int)json_text(json_get(v, "v")).len, (const char *)json_text(json_get(v, "v")).data);
    }
    if (!json_to_int(json_get(v, "rv"), &rv) || rv == 0 || rv < -1) {
        return err_set(e, ERR_INVALID,
                       "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)");
    }
    struct slice start = json_text(json_get(v, "start"));
    if (!start.len) {
        return err_set(e, ERR_INVALID,
                       "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)");
    }
    if (!start_ok(start)) {
        return err_set(e, ERR_INVALID, "continue key is not valid: %.*s", (int)start.len, (const char *)start.data);
    }
    *ret_revision = rv;
    *ret_start = start;
    return 0;
}
