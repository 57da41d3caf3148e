/* Who asks: a client certificate (common name = user, organizations = groups), else a bearer token of the token file, else
 * nobody. Everybody who is authenticated may do everything. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <strings.h>

#include "api/kube/kube_int.h"
#include "base/mem.h"

#define TOKEN_FILE_BYTES (LIMIT_MiB)
#define MAX_TOKENS 10000

struct token {
    struct slice token;
    struct user user;
};

struct token_table {
    struct arena arena;
    struct token *tokens;
    size_t n;
};

/* One CSV field off the front of `line`, unquoted into the arena. */
static int next_field(struct arena *a, struct slice *line, struct slice *ret)
{
    struct slice s = *line;
    while (s.len && s.data[0] == ' ') s = slice_sub(s, 1, s.len);
    if (!s.len || s.data[0] != '"') {
        ptrdiff_t at = slice_index(s, ',');
        *ret = at < 0 ? s : slice_sub(s, 0, (size_t)at);
        while (ret->len && ret->data[ret->len - 1] == ' ') ret->len--;
        *line = at < 0 ? (struct slice){0} : slice_sub(s, (size_t)at + 1, s.len);
        return 0;
    }
    uint8_t *out = arena_alloc(a, s.len);
    size_t n = 0, i = 1;
    if (!out) return ERR_NOMEM;
    for (;; i++) {
        if (i >= s.len) return ERR_INVALID; /* no closing quote */
        if (s.data[i] == '"') {
            if (i + 1 >= s.len || s.data[i + 1] != '"') break;
            i++;
        }
        out[n++] = s.data[i];
    }
    s = slice_sub(s, i + 1, s.len);
    if (s.len && s.data[0] != ',') return ERR_INVALID;
    *ret = slice_make(out, n);
    *line = slice_sub(s, 1, s.len);
    return 0;
}

static int parse_groups(struct arena *a, struct slice text, struct user *u)
{
    size_t most = 2;
    for (size_t i = 0; i < text.len; i++) most += text.data[i] == ',';
    struct slice *groups = arena_calloc(a, most, sizeof(*groups));
    if (!groups) return ERR_NOMEM;
    while (text.len) {
        ptrdiff_t at = slice_index(text, ',');
        struct slice g = at < 0 ? text : slice_sub(text, 0, (size_t)at);
        text = at < 0 ? (struct slice){0} : slice_sub(text, (size_t)at + 1, text.len);
        if (g.len) groups[u->n_groups++] = g;
    }
    groups[u->n_groups++] = SLICE_LIT("system:authenticated");
    u->groups = groups;
    return 0;
}

static int parse_line(struct token_table *t, struct slice line, size_t number, struct err *e)
{
    struct token *k = &t->tokens[t->n];
    struct slice groups = {0};
    int code = next_field(&t->arena, &line, &k->token);
    if (!code) code = next_field(&t->arena, &line, &k->user.name);
    if (!code) code = next_field(&t->arena, &line, &k->user.uid);
    if (!code && line.len) code = next_field(&t->arena, &line, &groups);
    if (code == ERR_NOMEM) return code;
    if (code || !k->token.len || !k->user.name.len) {
        return err_set(e, ERR_INVALID, "token file, line %zu: expected token,user,uid[,\"group1,group2\"]", number);
    }
    code = parse_groups(&t->arena, groups, &k->user);
    if (!code) t->n++;
    return code;
}

int tokens_parse(struct slice text, struct token_table **ret, struct err *e)
{
    struct token_table *t = mem_calloc(1, sizeof(*t));
    if (!t) return ERR_NOMEM;
    arena_init(&t->arena, 16 * LIMIT_MiB);
    text = arena_dup(&t->arena, text);
    size_t lines = 1;
    for (size_t i = 0; i < text.len; i++) lines += text.data[i] == '\n';
    int code = text.data ? 0 : ERR_NOMEM;
    if (!code && lines > MAX_TOKENS) code = err_set(e, ERR_LIMIT, "token file: more than %d lines", MAX_TOKENS);
    if (!code) t->tokens = arena_calloc(&t->arena, lines, sizeof(*t->tokens));
    if (!code && !t->tokens) code = ERR_NOMEM;
    for (size_t number = 1; !code && text.len; number++) {
        ptrdiff_t at = slice_index(text, '\n');
        struct slice line = at < 0 ? text : slice_sub(text, 0, (size_t)at);
        text = at < 0 ? (struct slice){0} : slice_sub(text, (size_t)at + 1, text.len);
        if (line.len && line.data[line.len - 1] == '\r') line.len--;
        if (line.len && line.data[0] != '#') code = parse_line(t, line, number, e);
    }
    if (code) {
        tokens_free(t);
        return code;
    }
    *ret = t;
    return 0;
}

int tokens_load(const char *file, struct token_table **ret, struct err *e)
{
    FILE *f = fopen(file, "re");
    if (!f) return err_set(e, ERR_IO, "token file %s: %m", file);
    struct buf b;
    buf_init(&b, TOKEN_FILE_BYTES);
    size_t n = 0;
    do {
        uint8_t *p = buf_reserve(&b, 4096);
        if (!p) break;
        n = fread(p, 1, 4096, f);
        b.len += n;
    } while (n);
    int code = b.failed;
    if (!code && ferror(f)) code = err_set(e, ERR_IO, "token file %s: cannot be read", file);
    if (code == ERR_LIMIT) err_set(e, code, "token file %s: larger than %zu bytes", file, TOKEN_FILE_BYTES);
    fclose(f);
    if (!code) code = tokens_parse(buf_slice(&b), ret, e);
    if (b.data) OPENSSL_cleanse(b.data, b.len);
    buf_release(&b);
    return code;
}

void tokens_free(struct token_table *t)
{
    if (!t) return;
    arena_release(&t->arena);
    mem_free(t);
}

const struct user *tokens_find(const struct token_table *t, struct slice token)
{
    const struct user *found = NULL;
    for (size_t i = 0; t && i < t->n; i++) {
        struct slice have = t->tokens[i].token;
        if (have.len == token.len && CRYPTO_memcmp(have.data, token.data, token.len) == 0) found = &t->tokens[i].user;
    }
    return found;
}

int authenticate(const struct token_table *t, const struct http_stream *st, struct user *ret)
{
    static const struct slice nobody[] = {{(const uint8_t *)"system:unauthenticated", 22}};
    const struct http_request *r = http_request(st);
    if (r->cert_common_name.len) {
        *ret = (struct user){
            .name = r->cert_common_name, .groups = r->cert_organizations, .n_groups = r->n_cert_organizations};
        return 0;
    }
    struct slice header = http_request_header(st, "authorization");
    if (header.len > 7 && strncasecmp((const char *)header.data, "bearer ", 7) == 0) {
        struct slice token = slice_sub(header, 7, header.len);
        while (token.len && token.data[0] == ' ') token = slice_sub(token, 1, token.len);
        const struct user *u = tokens_find(t, token);
        if (!u) return ERR_AUTH;
        *ret = *u;
        return 0;
    }
    if (header.len) return ERR_AUTH;
    *ret = (struct user){.name = SLICE_LIT("system:anonymous"), .groups = nobody, .n_groups = 1, .anonymous = true};
    return 0;
}
