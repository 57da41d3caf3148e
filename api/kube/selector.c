/* Label selectors (equality and set based) and field selectors, with apimachinery's syntax (pkg/labels/selector.go,
 * pkg/fields/selector.go). */
#include "api/kube/kube_int.h"

/* ---- label selectors -------------------------------------------------------------------------- */

struct lexer {
    struct slice rest;
    struct slice token; /* a word or punctuation; empty at the end */
};

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_special(uint8_t c)
{
    return c == '=' || c == '!' || c == '(' || c == ')' || c == ',' || c == '>' || c == '<';
}

static void lex(struct lexer *l)
{
    while (l->rest.len && is_space(l->rest.data[0])) l->rest = slice_sub(l->rest, 1, l->rest.len);
    size_t n = 0;
    if (l->rest.len && is_special(l->rest.data[0])) {
        n = 1;
        bool pair = l->rest.len > 1 && l->rest.data[1] == '=' && (l->rest.data[0] == '=' || l->rest.data[0] == '!');
        if (pair) n = 2;
    } else {
        while (n < l->rest.len && !is_space(l->rest.data[n]) && !is_special(l->rest.data[n])) n++;
    }
    l->token = slice_sub(l->rest, 0, n);
    l->rest = slice_sub(l->rest, n, l->rest.len);
}

static bool at(const struct lexer *l, const char *text)
{
    return slice_eq_str(l->token, text);
}

static bool at_word(const struct lexer *l)
{
    return l->token.len && !is_special(l->token.data[0]);
}

#define SHOW(s) (int)(s).len, (const char *)(s).data

static int bad(struct err *e, const struct lexer *l, const char *expected)
{
    return err_set(e, ERR_INVALID, "unable to parse requirement: found '%.*s', expected: %s", SHOW(l->token),
                   expected);
}

static int check_value(struct slice v, struct err *e)
{
    if (label_value_is_valid(v)) return 0;
    return err_set(e, ERR_INVALID,
                   "unable to parse requirement: values[0][label]: Invalid value: \"%.*s\": a valid label must be an "
                   "empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
                   "an alphanumeric character",
                   SHOW(v));
}

static int add_value(struct arena *a, struct requirement *r, struct slice v, struct err *e)
{
    int code = check_value(v, e);
    if (code) return code;
    if (r->n_values >= LIMIT_SELECTOR_REQUIREMENTS) return err_set(e, ERR_LIMIT, "too many values in a selector");
    if ((r->n_values & (r->n_values - 1)) == 0) { /* grow at powers of two */
        struct slice *grown = arena_calloc(a, r->n_values ? r->n_values * 2 : 1, sizeof(*grown));
        if (!grown) return ERR_NOMEM;
        if (r->n_values) memcpy(grown, r->values, r->n_values * sizeof(*grown));
        r->values = grown;
    }
    r->values[r->n_values++] = v;
    return 0;
}

/* `(a, b,c)`; the token is the opening parenthesis. */
static int parse_set(struct arena *a, struct lexer *l, struct requirement *r, struct err *e)
{
    if (!at(l, "(")) return bad(e, l, "'('");
    lex(l);
    for (;;) {
        struct slice v = at_word(l) ? l->token : (struct slice){0};
        if (at_word(l)) lex(l);
        int code = add_value(a, r, v, e);
        if (code) return code;
        if (at(l, ")")) break;
        if (!at(l, ",")) return bad(e, l, "',' or ')'");
        lex(l);
    }
    lex(l);
    return 0;
}

static int parse_single(struct arena *a, struct lexer *l, struct requirement *r, struct err *e)
{
    lex(l);
    struct slice v = at_word(l) ? l->token : (struct slice){0};
    if (at_word(l)) lex(l);
    return add_value(a, r, v, e);
}

static bool to_int(struct slice s, int64_t *ret)
{
    int64_t v = 0;
    size_t i = s.len && s.data[0] == '-' ? 1 : 0;
    if (i == s.len) return false;
    for (; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, s.data[i] - '0', &v)) return false;
    }
    *ret = s.data[0] == '-' ? -v : v;
    return true;
}

static int parse_order(struct arena *a, struct lexer *l, struct requirement *r, struct err *e)
{
    int64_t number;
    r->op = at(l, ">") ? SELECT_GREATER : SELECT_LESS;
    int code = parse_single(a, l, r, e);
    if (code) return code;
    if (to_int(r->values[0], &number)) return 0;
    return err_set(e, ERR_INVALID, "values[0]: Invalid value: \"%.*s\": for 'Gt', 'Lt' operators, the value must be an integer",
                   SHOW(r->values[0]));
}

static int parse_requirement(struct arena *a, struct lexer *l, struct requirement *r, struct err *e)
{
    bool negated = at(l, "!");
    if (negated) lex(l);
    if (!at_word(l)) return bad(e, l, "!, identifier, or 'end of string'");
    r->key = l->token;
    if (!name_is_qualified(r->key)) {
        return err_set(e, ERR_INVALID,
                       "unable to parse requirement: key: Invalid value: \"%.*s\": name part must consist of "
                       "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
                       "character",
                       SHOW(r->key));
    }
    lex(l);
    if (negated || !l->token.len || at(l, ",")) {
        r->op = negated ? SELECT_NOT_EXISTS : SELECT_EXISTS;
        return 0;
    }
    if (at(l, "=") || at(l, "==")) {
        r->op = SELECT_IN;
        return parse_single(a, l, r, e);
    }
    if (at(l, "!=")) {
        r->op = SELECT_NOT_IN;
        return parse_single(a, l, r, e);
    }
    if (at(l, ">") || at(l, "<")) return parse_order(a, l, r, e);
    if (at(l, "in") || at(l, "notin")) {
        r->op = at(l, "in") ? SELECT_IN : SELECT_NOT_IN;
        lex(l);
        return parse_set(a, l, r, e);
    }
    return bad(e, l, "in, notin, =, ==, !=, gt, lt");
}

static size_t count_commas(struct slice text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) n += text.data[i] == ',';
    return n;
}

int selector_parse_labels(struct arena *a, struct slice text, struct selector *s, struct err *e)
{
    struct lexer l = {.rest = text};
    size_t most = count_commas(text) + 1;
    lex(&l);
    if (!l.token.len) return 0;
    if (most > LIMIT_SELECTOR_REQUIREMENTS) return err_set(e, ERR_LIMIT, "a selector of more than %d requirements", LIMIT_SELECTOR_REQUIREMENTS);
    s->labels = arena_calloc(a, most, sizeof(*s->labels));
    if (!s->labels) return ERR_NOMEM;
    for (;;) {
        int code = parse_requirement(a, &l, &s->labels[s->n_labels], e);
        if (code) return code;
        s->n_labels++;
        if (!l.token.len) return 0;
        if (!at(&l, ",")) return bad(e, &l, "',' or 'end of string'");
        lex(&l);
        if (!l.token.len) return bad(e, &l, "identifier after ','");
    }
}

/* ---- field selectors -------------------------------------------------------------------------- */

static int unescape(struct arena *a, struct slice in, struct slice *ret, struct err *e)
{
    uint8_t *out = arena_alloc(a, in.len);
    size_t n = 0;
    if (!out) return ERR_NOMEM;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (c == '\\') {
            uint8_t next = i + 1 < in.len ? in.data[i + 1] : 0;
            if (next != '\\' && next != ',' && next != '=') {
                return err_set(e, ERR_INVALID, "invalid field selector: invalid escape sequence in \"%.*s\"", SHOW(in));
            }
            c = next;
            i++;
        }
        out[n++] = c;
    }
    *ret = slice_make(out, n);
    return 0;
}

/* The next term up to a comma that is not escaped. */
static struct slice next_term(struct slice *rest)
{
    size_t i = 0;
    while (i < rest->len && rest->data[i] != ',') i += rest->data[i] == '\\' && i + 1 < rest->len ? 2 : 1;
    struct slice term = slice_sub(*rest, 0, i);
    *rest = slice_sub(*rest, i + 1, rest->len);
    return term;
}

static int parse_term(struct arena *a, struct slice term, const struct kind *k, struct requirement *r, struct err *e)
{
    size_t i = 0, op_len = 0;
    for (; i < term.len && !op_len; i++) {
        struct slice here = slice_sub(term, i, 2);
        if (here.data[0] == '\\') {
            i++;
        } else if (slice_eq_str(here, "!=") || slice_eq_str(here, "==")) {
            op_len = 2;
        } else if (here.data[0] == '=') {
            op_len = 1;
        }
    }
    if (!op_len) {
        return err_set(e, ERR_INVALID, "invalid selector: '%.*s'; can't understand '%.*s'", SHOW(term), SHOW(term));
    }
    i--;
    r->op = term.data[i] == '!' ? SELECT_NOT_IN : SELECT_IN;
    r->key = slice_sub(term, 0, i);
    r->values = arena_calloc(a, 1, sizeof(*r->values));
    r->n_values = 1;
    if (!r->values) return ERR_NOMEM;
    int code = unescape(a, slice_sub(term, i + op_len, term.len), &r->values[0], e);
    if (code) return code;
    for (const char *const *f = k->selectable_fields; f && *f; f++) {
        if (slice_eq_str(r->key, *f)) return 0;
    }
    if (slice_eq_str(r->key, "metadata.name") || (k->namespaced && slice_eq_str(r->key, "metadata.namespace"))) return 0;
    return err_set(e, ERR_INVALID, "field label not supported: %.*s", SHOW(r->key));
}

int selector_parse_fields(struct arena *a, struct slice text, const struct kind *k, struct selector *s, struct err *e)
{
    size_t most = count_commas(text) + 1;
    if (!text.len) return 0;
    if (most > LIMIT_SELECTOR_REQUIREMENTS) return err_set(e, ERR_LIMIT, "a selector of more than %d requirements", LIMIT_SELECTOR_REQUIREMENTS);
    s->fields = arena_calloc(a, most, sizeof(*s->fields));
    if (!s->fields) return ERR_NOMEM;
    while (text.len) {
        struct slice term = next_term(&text);
        if (!term.len) continue;
        int code = parse_term(a, term, k, &s->fields[s->n_fields], e);
        if (code) return code;
        s->n_fields++;
    }
    return 0;
}

/* ---- matching --------------------------------------------------------------------------------- */

bool selector_empty(const struct selector *s)
{
    return s->n_labels == 0 && s->n_fields == 0;
}

static bool holds(const struct requirement *r, struct slice v)
{
    for (size_t i = 0; i < r->n_values; i++) {
        if (slice_eq(r->values[i], v)) return true;
    }
    return false;
}

static bool label_matches(const struct requirement *r, const struct json *labels)
{
    const struct json *v = json_get_slice(labels, r->key);
    bool there = v && v->type == JSON_STRING;
    struct slice text = json_text(v);
    int64_t have, want;
    switch (r->op) {
    case SELECT_IN: return there && holds(r, text);
    case SELECT_NOT_IN: return !there || !holds(r, text);
    case SELECT_EXISTS: return there;
    case SELECT_NOT_EXISTS: return !there;
    case SELECT_GREATER:
    case SELECT_LESS:
        if (!there || !to_int(text, &have) || !to_int(r->values[0], &want)) return false;
        return r->op == SELECT_GREATER ? have > want : have < want;
    }
    return false;
}

/* What a field that is left out counts as: Go's zero value, as the kind's own selectors print it. */
static struct slice field_zero(struct slice key)
{
    if (slice_eq_str(key, "spec.unschedulable") || slice_eq_str(key, "spec.hostNetwork")) return SLICE_LIT("false");
    if (slice_eq_str(key, "status.replicas") || slice_eq_str(key, "status.successful")) return SLICE_LIT("0");
    return (struct slice){0};
}

/* Who saw it: Events have the old field for that or the new one, and one name for both. */
static struct slice event_source(const struct json *event)
{
    struct slice component = json_path_text(event, "source.component");
    return component.len ? component : json_path_text(event, "reportingComponent");
}

static struct slice field_value(const struct json *object, struct slice key)
{
    char path[256];
    if (slice_eq_str(key, "source")) return event_source(object);
    if (key.len >= sizeof(path)) return (struct slice){0};
    memcpy(path, key.data, key.len);
    path[key.len] = 0;
    const struct json *v = json_path(object, path);
    if (!v || v->type == JSON_NULL) return field_zero(key);
    if (v->type == JSON_BOOL) return v->boolean ? SLICE_LIT("true") : SLICE_LIT("false");
    if (v->type == JSON_STRING || v->type == JSON_NUMBER) return v->text;
    return (struct slice){0};
}

bool selector_matches(const struct selector *s, const struct json *object)
{
    const struct json *labels = s->n_labels ? json_path(object, "metadata.labels") : NULL;
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct requirement *r = &s->fields[i];
        bool same = slice_eq(field_value(object, r->key), r->values[0]);
        if (same != (r->op == SELECT_IN)) return false;
    }
    for (size_t i = 0; i < s->n_labels; i++) {
        if (!label_matches(&s->labels[i], labels)) return false;
    }
    return true;
}

struct slice selector_fixed(const struct selector *s, const char *field)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        if (s->fields[i].op == SELECT_IN && slice_eq_str(s->fields[i].key, field)) return s->fields[i].values[0];
    }
    return (struct slice){0};
}

/* ---- metav1.LabelSelector to text ------------------------------------------------------------- */

static void format_expression(struct buf *out, const struct json *x)
{
    struct slice key = json_text(json_get(x, "key")), op = json_text(json_get(x, "operator"));
    const struct json *values = json_get(x, "values");
    if (slice_eq_str(op, "DoesNotExist")) buf_append_byte(out, '!');
    buf_append_slice(out, key);
    if (slice_eq_str(op, "Exists") || slice_eq_str(op, "DoesNotExist")) return;
    buf_append_str(out, slice_eq_str(op, "In") ? " in (" : " notin (");
    for (size_t i = 0; values && i < values->count; i++) {
        if (i) buf_append_byte(out, ',');
        buf_append_slice(out, json_text(json_at(values, i)));
    }
    buf_append_byte(out, ')');
}

int selector_format(struct buf *out, const struct json *label_selector)
{
    const struct json *labels = json_get(label_selector, "matchLabels");
    const struct json *expressions = json_get(label_selector, "matchExpressions");
    size_t start = out->len;
    for (size_t i = 0; labels && labels->type == JSON_OBJECT && i < labels->count; i++) {
        if (out->len > start) buf_append_byte(out, ',');
        buf_append_slice(out, labels->members[i].name);
        buf_append_byte(out, '=');
        buf_append_slice(out, json_text(labels->members[i].value));
    }
    for (size_t i = 0; expressions && expressions->type == JSON_ARRAY && i < expressions->count; i++) {
        if (out->len > start) buf_append_byte(out, ',');
        format_expression(out, json_at(expressions, i));
    }
    return out->failed;
}
