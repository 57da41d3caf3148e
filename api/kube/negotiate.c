/* Accept and Content-Type. This server writes JSON: objects, Tables and PartialObjectMetadata; what asks for protobuf first
 * gets JSON, which every client reads. */
#include "api/kube/kube_int.h"

#include <strings.h>

static struct slice trim(struct slice s)
{
    while (s.len && (s.data[0] == ' ' || s.data[0] == '\t')) s = slice_sub(s, 1, s.len);
    while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t')) s.len--;
    return s;
}

/* Cuts the next piece up to `c` off the front, trimmed. */
static struct slice next_piece(struct slice *rest, char c)
{
    ptrdiff_t at = slice_index(*rest, c);
    struct slice piece = at < 0 ? *rest : slice_sub(*rest, 0, (size_t)at);
    *rest = at < 0 ? (struct slice){0} : slice_sub(*rest, (size_t)at + 1, rest->len);
    return trim(piece);
}

static bool eq_nocase(struct slice s, const char *text)
{
    return s.len == strlen(text) && s.len && strncasecmp((const char *)s.data, text, s.len) == 0;
}

struct clause {
    struct slice type, as, group, version;
    bool refused; /* q=0 */
};

static struct clause parse_clause(struct slice text)
{
    struct clause c = {.type = next_piece(&text, ';')};
    while (text.len) {
        struct slice param = next_piece(&text, ';');
        struct slice value = param;
        struct slice name = next_piece(&value, '=');
        value = trim(value);
        if (eq_nocase(name, "as")) c.as = value;
        if (eq_nocase(name, "g")) c.group = value;
        if (eq_nocase(name, "v")) c.version = value;
        if (eq_nocase(name, "q") && (slice_eq_str(value, "0") || slice_eq_str(value, "0.0"))) c.refused = true;
    }
    return c;
}

static const char *known_version(struct slice v, const char *const *known)
{
    for (; *known; known++) {
        if (slice_eq_str(v, *known)) return *known;
    }
    return NULL;
}

/* 1: this clause can be met; 0: it cannot. */
static bool take_clause(const struct clause *c, struct format *f)
{
    static const char *const meta[] = {"v1", "v1beta1", NULL};
    static const char *const discovery[] = {"v2", "v2beta1", NULL};
    bool json = eq_nocase(c->type, "application/json") || eq_nocase(c->type, "*/*") ||
                eq_nocase(c->type, "application/*");
    if (c->refused) return false;
    if (eq_nocase(c->type, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf") ||
        eq_nocase(c->type, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")) {
        f->media = MEDIA_PROTOBUF_OPENAPI;
        return true;
    }
    if (!json) return false;
    if (!c->as.len) {
        f->media = MEDIA_JSON;
        return true;
    }
    bool is_meta = slice_eq_str(c->group, "meta.k8s.io");
    if (is_meta && slice_eq_str(c->as, "Table")) {
        f->version = known_version(c->version, meta);
        f->media = MEDIA_TABLE;
    } else if (is_meta && (slice_eq_str(c->as, "PartialObjectMetadata") ||
                           slice_eq_str(c->as, "PartialObjectMetadataList"))) {
        f->version = known_version(c->version, meta);
        f->media = MEDIA_PARTIAL;
    } else if (slice_eq_str(c->group, "apidiscovery.k8s.io") && slice_eq_str(c->as, "APIGroupDiscoveryList")) {
        f->version = known_version(c->version, discovery);
        f->media = MEDIA_DISCOVERY;
    }
    return f->version != NULL;
}

bool negotiate_accept(struct slice accept, struct format *ret)
{
    bool protobuf = false;
    *ret = (struct format){.media = MEDIA_JSON};
    if (!trim(accept).len) return true;
    while (accept.len) {
        struct clause c = parse_clause(next_piece(&accept, ','));
        struct format f = {.media = MEDIA_JSON};
        if (take_clause(&c, &f)) {
            *ret = f;
            return true;
        }
        if ((eq_nocase(c.type, "application/vnd.kubernetes.protobuf") || eq_nocase(c.type, "application/yaml") ||
             eq_nocase(c.type, "application/cbor")) &&
            !c.as.len) {
            protobuf = true;
        }
    }
    return protobuf;
}

const char *format_content_type(const struct format *f)
{
    if (f->media != MEDIA_DISCOVERY) return "application/json";
    return strcmp(f->version, "v2") == 0
               ? "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
               : "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
}

enum body_type negotiate_body(struct slice content_type)
{
    static const struct {
        const char *name;
        enum body_type type;
    } types[] = {
        {"application/json", BODY_JSON},
        {"application/yaml", BODY_YAML},
        {"application/json-patch+json", BODY_JSON_PATCH},
        {"application/merge-patch+json", BODY_MERGE_PATCH},
        {"application/strategic-merge-patch+json", BODY_STRATEGIC_PATCH},
        {"application/apply-patch+yaml", BODY_APPLY_PATCH},
        {"application/vnd.kubernetes.protobuf", BODY_PROTOBUF},
    };
    struct slice type = next_piece(&content_type, ';');
    if (!type.len) return BODY_JSON;
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (eq_nocase(type, types[i].name)) return types[i].type;
    }
    return BODY_OTHER;
}
