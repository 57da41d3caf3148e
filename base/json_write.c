#include "base/json_int.h"

#include <stdio.h>

/* Where the first character is that must be escaped, or the end. */
static size_t plain_length(const uint8_t *p, size_t len)
{
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t hit = json_special(json_load8(p + i));
        if (hit) return i + (size_t)__builtin_ctzll(hit) / 8;
    }
    while (i < len && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') i++;
    return i;
}

static void write_escaped(struct buf *out, uint8_t c)
{
    char text[8] = {'\\', (char)c, 0};
    switch (c) {
    case '"':
    case '\\': break;
    case '\b': text[1] = 'b'; break;
    case '\f': text[1] = 'f'; break;
    case '\n': text[1] = 'n'; break;
    case '\r': text[1] = 'r'; break;
    case '\t': text[1] = 't'; break;
    default: snprintf(text, sizeof(text), "\\u%04x", c); break;
    }
    buf_append_str(out, text);
}

static inline void put(struct buf *out, char c)
{
    if (out->len < out->size && !out->failed) out->data[out->len++] = (uint8_t)c;
    else buf_append_byte(out, (uint8_t)c);
}

static inline void put_text(struct buf *out, struct slice s)
{
    if (s.len > out->size - out->len || out->failed) {
        buf_append(out, s.data, s.len);
        return;
    }
    uint8_t *to = out->data + out->len;
    out->len += s.len;
    if (s.len > 32) memcpy(to, s.data, s.len);
    else
        for (size_t i = 0; i < s.len; i++) to[i] = s.data[i];
}

void json_write_string(struct buf *out, struct slice s)
{
    put(out, '"');
    if (plain_length(s.data, s.len) == s.len) {
        put_text(out, s);
        put(out, '"');
        return;
    }
    while (s.len) {
        size_t n = plain_length(s.data, s.len);
        buf_append(out, s.data, n);
        if (n == s.len) break;
        write_escaped(out, s.data[n]);
        s = slice_sub(s, n + 1, s.len);
    }
    put(out, '"');
}

static void write_scalar(struct buf *out, const struct json *v)
{
    switch (v->type) {
    case JSON_BOOL: buf_append_str(out, v->boolean ? "true" : "false"); break;
    case JSON_NUMBER: put_text(out, v->text); break;
    case JSON_STRING: json_write_string(out, v->text); break;
    default: buf_append_str(out, "null"); break;
    }
}

void json_write(struct buf *out, const struct json *v)
{
    if (v->type != JSON_ARRAY && v->type != JSON_OBJECT) {
        write_scalar(out, v);
        return;
    }
    bool object = v->type == JSON_OBJECT;
    put(out, object ? '{' : '[');
    for (size_t i = 0; i < v->count && !out->failed; i++) {
        if (i) put(out, ',');
        if (object) {
            json_write_string(out, v->members[i].name);
            put(out, ':');
        }
        json_write(out, object ? v->members[i].value : v->items[i]);
    }
    put(out, object ? '}' : ']');
}

static void new_line(struct buf *out, unsigned level)
{
    buf_append_byte(out, '\n');
    for (unsigned i = 0; i < level && !out->failed; i++) buf_append(out, "  ", 2);
}

static void write_pretty(struct buf *out, const struct json *v, unsigned level)
{
    bool object = v->type == JSON_OBJECT;
    if ((!object && v->type != JSON_ARRAY) || v->count == 0) {
        json_write(out, v);
        return;
    }
    buf_append_byte(out, object ? '{' : '[');
    for (size_t i = 0; i < v->count && !out->failed; i++) {
        if (i) buf_append_byte(out, ',');
        new_line(out, level + 1);
        if (object) {
            json_write_string(out, v->members[i].name);
            buf_append(out, ": ", 2);
        }
        write_pretty(out, object ? v->members[i].value : v->items[i], level + 1);
    }
    new_line(out, level);
    buf_append_byte(out, object ? '}' : ']');
}

void json_write_pretty(struct buf *out, const struct json *v)
{
    write_pretty(out, v, 0);
}
