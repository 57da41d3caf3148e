/* metav1.Status: the errors of the API, with the reasons, codes and sentences that clients of Kubernetes know
 * (apimachinery's api/errors). */
#include <stdarg.h>
#include <stdio.h>

#include "api/kube/kube_int.h"

void status_init(struct status *s, struct arena *a)
{
    *s = (struct status){.arena = a};
    s->last_cause = NULL;
}

static const char *format_va(struct arena *a, const char *format, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, format, ap);
    char *p = len < 0 ? NULL : arena_alloc(a, (size_t)len + 1);
    if (p) vsnprintf(p, (size_t)len + 1, format, again);
    va_end(again);
    return p ? p : "out of memory";
}

static int fill(struct status *s, int code, const char *reason, const char *message)
{
    struct arena *a = s->arena;
    status_init(s, a);
    s->code = code;
    s->reason = reason;
    s->message = message;
    return ERR_INVALID;
}

int status_set(struct status *s, int code, const char *reason, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *message = format_va(s->arena, format, ap);
    va_end(ap);
    return fill(s, code, reason, message);
}

static const char *dup_text(struct arena *a, struct slice s)
{
    const char *text = s.len ? arena_strdup(a, s) : NULL;
    return text;
}

void status_details(struct status *s, const struct kind *k, struct slice name)
{
    s->has_details = true;
    s->name = dup_text(s->arena, name);
    if (k) {
        s->group = k->group[0] ? k->group : NULL;
        s->kind = k->plural;
    }
}

void status_add_cause(struct status *s, const char *reason, const char *field, const char *format, ...)
{
    struct status_cause *c = arena_calloc(s->arena, 1, sizeof(*c));
    if (!c) return;
    va_list ap;
    va_start(ap, format);
    c->message = format_va(s->arena, format, ap);
    va_end(ap);
    c->reason = reason;
    c->field = field;
    s->has_details = true;
    if (!s->last_cause) s->last_cause = &s->causes;
    *s->last_cause = c;
    s->last_cause = &c->next;
}

const char *kind_qualified(struct arena *a, const struct kind *k)
{
    if (!k->group[0]) return k->plural;
    const char *text = arena_printf(a, "%s.%s", k->plural, k->group);
    return text ? text : k->plural;
}

#define NAME(s) (int)(s).len, (const char *)(s).data

int status_bad_request(struct status *s, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *message = format_va(s->arena, format, ap);
    va_end(ap);
    return fill(s, 400, "BadRequest", message);
}

int status_not_found(struct status *s, const struct kind *k, struct slice name)
{
    status_set(s, 404, "NotFound", "%s \"%.*s\" not found", kind_qualified(s->arena, k), NAME(name));
    status_details(s, k, name);
    return ERR_INVALID;
}

int status_exists(struct status *s, const struct kind *k, struct slice name)
{
    status_set(s, 409, "AlreadyExists", "%s \"%.*s\" already exists", kind_qualified(s->arena, k), NAME(name));
    status_details(s, k, name);
    return ERR_INVALID;
}

int status_conflict(struct status *s, const struct kind *k, struct slice name, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *why = format_va(s->arena, format, ap);
    va_end(ap);
    status_set(s, 409, "Conflict", "Operation cannot be fulfilled on %s \"%.*s\": %s", kind_qualified(s->arena, k),
               NAME(name), why);
    status_details(s, k, name);
    return ERR_INVALID;
}

int status_modified(struct status *s, const struct kind *k, struct slice name)
{
    return status_conflict(s, k, name,
                           "the object has been modified; please apply your changes to the latest version and try again");
}

int status_forbidden(struct status *s, const struct kind *k, struct slice name, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *why = format_va(s->arena, format, ap);
    va_end(ap);
    const char *what = kind_qualified(s->arena, k);
    if (name.len) {
        status_set(s, 403, "Forbidden", "%s \"%.*s\" is forbidden: %s", what, NAME(name), why);
    } else {
        status_set(s, 403, "Forbidden", "%s is forbidden: %s", what, why);
    }
    status_details(s, k, name);
    return ERR_INVALID;
}

static const char *cause_reason(enum kind_problem_type t)
{
    switch (t) {
    case PROBLEM_REQUIRED: return "FieldValueRequired";
    case PROBLEM_NOT_SUPPORTED: return "FieldValueNotSupported";
    case PROBLEM_DUPLICATE: return "FieldValueDuplicate";
    case PROBLEM_FORBIDDEN: return "FieldValueForbidden";
    case PROBLEM_TOO_LONG: return "FieldValueTooLong";
    case PROBLEM_TOO_MANY: return "FieldValueTooMany";
    case PROBLEM_TYPE: return "FieldValueTypeInvalid";
    case PROBLEM_NOT_FOUND: return "FieldValueNotFound";
    case PROBLEM_INVALID:
    case PROBLEM_UNKNOWN_FIELD: break;
    }
    return "FieldValueInvalid";
}

/* The sentence of a problem without the field in front. */
static const char *problem_body(const struct kind_problem *p, const char *text)
{
    size_t len = p->field ? strlen(p->field) : 0;
    if (len && strncmp(text, p->field, len) == 0 && strncmp(text + len, ": ", 2) == 0) return text + len + 2;
    return text;
}

int status_invalid(struct status *s, const struct kind *k, struct slice name, const struct kind_problems *problems)
{
    struct arena *a = s->arena;
    struct buf all;
    buf_init(&all, 64 * LIMIT_KiB);
    if (problems->count > 1) buf_append_str(&all, "[");
    for (const struct kind_problem *p = problems->first; p; p = p->next) {
        const char *text = kind_problem_text(a, p);
        buf_append_str(&all, text ? text : "");
        if (p->next) buf_append_str(&all, ", ");
    }
    if (problems->count > 1) buf_append_str(&all, "]");
    status_set(s, 422, "Invalid", "%s%s%s \"%.*s\" is invalid: %.*s", k->kind, k->group[0] ? "." : "", k->group,
               NAME(name), (int)all.len, (const char *)all.data);
    buf_release(&all);
    status_details(s, k, name);
    s->kind = k->kind;
    for (const struct kind_problem *p = problems->first; p; p = p->next) {
        const char *text = kind_problem_text(a, p);
        if (text) status_add_cause(s, cause_reason(p->type), p->field, "%s", problem_body(p, text));
    }
    return ERR_INVALID;
}

int status_invalid_options(struct status *s, const char *group, const char *kind, const char *reason,
                           const char *field, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *body = format_va(s->arena, format, ap);
    va_end(ap);
    status_set(s, 422, "Invalid", "%s.%s \"\" is invalid: %s: %s", kind, group, field, body);
    s->has_details = true;
    s->group = group;
    s->kind = kind;
    status_add_cause(s, reason, field, "%s", body);
    return ERR_INVALID;
}

int status_method_not_allowed(struct status *s, const struct kind *k, const char *action)
{
    if (!k) return status_set(s, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    status_set(s, 405, "MethodNotAllowed", "%s is not supported on resources of kind \"%s\"", action,
               kind_qualified(s->arena, k));
    status_details(s, k, (struct slice){0});
    return ERR_INVALID;
}

int status_unknown_path(struct status *s)
{
    status_set(s, 404, "NotFound", "the server could not find the requested resource");
    s->has_details = true;
    return ERR_INVALID;
}

int status_internal(struct status *s, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    const char *why = format_va(s->arena, format, ap);
    va_end(ap);
    status_set(s, 500, "InternalError", "Internal error occurred: %s", why);
    status_add_cause(s, NULL, NULL, "%s", why);
    return ERR_INVALID;
}

int status_expired(struct status *s, const char *message)
{
    return status_set(s, 410, "Expired", "%s", message);
}

int status_too_large_rv(struct status *s, int64_t wanted, int64_t current)
{
    status_set(s, 504, "Timeout", "Timeout: Too large resource version: %lld, current: %lld", (long long)wanted,
               (long long)current);
    s->retry_after_s = 1;
    status_add_cause(s, "ResourceVersionTooLarge", NULL, "Too large resource version");
    return ERR_INVALID;
}

int status_nomem(struct status *s)
{
    return fill(s, 500, "InternalError", "Internal error occurred: out of memory");
}

int status_core(struct status *s, int core_code, bool unknown_outcome)
{
    const char *text = err_text(core_code);
    switch (core_code) {
    case ERR_COMPACTED: return status_expired(s, "The resourceVersion for the provided list is too old.");
    case ERR_TOO_MANY_REQUESTS:
    case ERR_BUSY:
        if (unknown_outcome) return status_core(s, ERR_TIMEOUT, true);
        status_set(s, 429, "TooManyRequests", "Too many requests, please try again later.");
        break;
    case ERR_TIMEOUT:
    case ERR_LEADER_CHANGED:
        status_set(s, 504, "Timeout", "Timeout: request did not complete within the allotted timeout: %s", text);
        s->has_details = true;
        if (unknown_outcome) return ERR_INVALID; /* no Retry-After: clients would blindly do it again */
        break;
    case ERR_NO_LEADER:
    case ERR_NOT_LEADER:
    case ERR_UNAVAILABLE:
    case ERR_STOPPED:
        if (unknown_outcome) return status_core(s, ERR_TIMEOUT, true);
        status_set(s, 503, "ServiceUnavailable", "the server is currently unable to handle the request: %s", text);
        break;
    case ERR_NO_SPACE: return status_set(s, 507, "InternalError", "Internal error occurred: %s", text);
    case ERR_TOO_LARGE:
    case ERR_LIMIT: return status_set(s, 413, "RequestEntityTooLarge", "Request entity too large: %s", text);
    case ERR_NOMEM: return status_nomem(s);
    default: return status_internal(s, "%s", text);
    }
    s->has_details = true;
    s->retry_after_s = 1;
    return ERR_INVALID;
}

/* ---- writing ---------------------------------------------------------------------------------- */

static void member(struct buf *out, const char *name, const char *value, bool *first)
{
    if (!value) return;
    if (!*first) buf_append_byte(out, ',');
    *first = false;
    buf_printf(out, "\"%s\":", name);
    json_write_string(out, slice_str(value));
}

static void write_causes(struct buf *out, const struct status *s, bool *first)
{
    if (!s->causes) return;
    buf_printf(out, "%s\"causes\":[", *first ? "" : ",");
    *first = false;
    for (const struct status_cause *c = s->causes; c; c = c->next) {
        bool first_member = true;
        buf_append_byte(out, '{');
        member(out, "reason", c->reason, &first_member);
        member(out, "message", c->message, &first_member);
        member(out, "field", c->field, &first_member);
        buf_append_str(out, c->next ? "}," : "}");
    }
    buf_append_byte(out, ']');
}

static void write_details(struct buf *out, const struct status *s)
{
    bool first = true;
    buf_append_str(out, ",\"details\":{");
    member(out, "name", s->name, &first);
    member(out, "group", s->group, &first);
    member(out, "kind", s->kind, &first);
    member(out, "uid", s->uid, &first);
    write_causes(out, s, &first);
    if (s->retry_after_s) buf_printf(out, "%s\"retryAfterSeconds\":%d", first ? "" : ",", s->retry_after_s);
    buf_append_byte(out, '}');
}

/* What it quotes of a request may be any bytes; JSON is UTF-8. */
static void make_utf8(struct buf *b, size_t from)
{
    if (json_utf8(slice_sub(buf_slice(b), from, SIZE_MAX))) return;
    for (size_t i = from; i < b->len; i++)
        if (b->data[i] >= 0x80) b->data[i] = '?';
}

void status_write(struct buf *out, const struct status *s)
{
    size_t from = out->len;
    buf_append_str(out, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{");
    if (s->list_continue) {
        buf_append_str(out, "\"continue\":");
        json_write_string(out, slice_str(s->list_continue));
    }
    buf_printf(out, "},\"status\":\"%s\"", s->success ? "Success" : "Failure");
    bool first = false;
    member(out, "message", s->message && *s->message ? s->message : NULL, &first);
    member(out, "reason", s->reason, &first);
    if (s->has_details) write_details(out, s);
    if (s->code) buf_printf(out, ",\"code\":%d", s->code);
    buf_append_byte(out, '}');
    make_utf8(out, from);
}
