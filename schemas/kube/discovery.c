/* Discovery: which groups, versions and resources there are and what can be done with them, in the
 * old form (APIResourceList, APIGroupList, APIGroup) and the aggregated one (APIGroupDiscoveryList
 * v2). */
#include "schemas/kube/kinds_int.h"
#include "schemas/kube/verbs.h"

static const struct kind_sub subresources[] = {
    {KIND_BINDING, "binding", "", "v1", "Binding", "\"create\""},
    {KIND_EVICTION, "eviction", "policy", "v1", "Eviction", "\"create\""},
    {KIND_FINALIZE, "finalize", NULL, NULL, NULL, "\"update\""},
    {KIND_LOG, "log", NULL, NULL, NULL, "\"get\""},
    {KIND_SCALE, "scale", "autoscaling", "v1", "Scale", "\"get\",\"patch\",\"update\""},
    {KIND_STATUS, "status", NULL, NULL, NULL, "\"get\",\"patch\",\"update\""},
};

const struct kind_sub *kind_subresource_at(const struct kind *k, size_t i)
{
    for (size_t s = 0; s < sizeof(subresources) / sizeof(subresources[0]); s++)
        if ((k->subresources & subresources[s].bit) && i-- == 0) return &subresources[s];
    return NULL;
}

bool kind_has_deletecollection(const struct kind *k)
{
    return (k->subresources & KIND_FINALIZE) == 0; /* a Namespace goes in steps, one at a time */
}

static const char *verbs_of(const struct kind *k)
{
    return kind_has_deletecollection(k)
               ? "\"create\",\"delete\",\"deletecollection\",\"get\",\"list\",\"patch\",\"update\","
                 "\"watch\""
               : "\"create\",\"delete\",\"get\",\"list\",\"patch\",\"update\",\"watch\"";
}

static void write_names(struct buf *out, const char *field, const char *const *names)
{
    if (!names[0]) return;
    buf_printf(out, ",\"%s\":[", field);
    for (size_t i = 0; names[i]; i++) buf_printf(out, "%s\"%s\"", i ? "," : "", names[i]);
    buf_append_byte(out, ']');
}

static bool is_of(const struct kind *k, const char *group, const char *version)
{
    return strcmp(k->group, group) == 0 && (!version || strcmp(k->version, version) == 0);
}

/* The first kind of each group and version stands for it. */
static bool is_first_of_version(size_t i)
{
    const struct kind *k = kinds_at(i);
    for (size_t j = 0; j < i; j++)
        if (is_of(kinds_at(j), k->group, k->version)) return false;
    return true;
}

static bool is_first_of_group(size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (is_of(kinds_at(j), kinds_at(i)->group, NULL)) return false;
    return true;
}

/* ---- one group version ------------------------------------------------------------------------
 */

static void write_subresource(struct buf *out, const struct kind *k, const struct kind_sub *s)
{
    buf_printf(out, ",{\"name\":\"%s/%s\",\"singularName\":\"\",\"namespaced\":%s,", k->plural,
               s->name, k->namespaced ? "true" : "false");
    if (s->kind && s->group[0])
        buf_printf(out, "\"group\":\"%s\",\"version\":\"%s\",", s->group, s->version);
    buf_printf(out, "\"kind\":\"%s\",\"verbs\":[%s]}", s->kind ? s->kind : k->kind, s->verbs);
}

static void write_resource(struct buf *out, const struct kind *k)
{
    const struct kind_sub *s;
    buf_printf(
        out,
        "{\"name\":\"%s\",\"singularName\":\"%s\",\"namespaced\":%s,\"kind\":\"%s\",\"verbs\":[%s]",
        k->plural, k->singular, k->namespaced ? "true" : "false", k->kind, verbs_of(k));
    write_names(out, "shortNames", k->short_names);
    write_names(out, "categories", k->categories);
    buf_append_byte(out, '}');
    for (size_t i = 0; (s = kind_subresource_at(k, i)); i++) write_subresource(out, k, s);
}

int kinds_discovery_resources(struct buf *out, const char *group, const char *version)
{
    size_t n = 0;
    for (size_t i = 0; i < kinds_count(); i++) {
        const struct kind *k = kinds_at(i);
        if (!is_of(k, group, version)) continue;
        if (n++ == 0)
            buf_printf(
                out,
                "{\"kind\":\"APIResourceList\",\"apiVersion\":\"v1\",\"groupVersion\":\"%s\","
                "\"resources\":[",
                k->api_version);
        else buf_append_byte(out, ',');
        write_resource(out, k);
    }
    if (!n) return ERR_NOT_FOUND;
    buf_append_str(out, "]}\n");
    return out->failed;
}

/* ---- groups -----------------------------------------------------------------------------------
 */

static void write_group(struct buf *out, const char *group)
{
    const struct kind *preferred = NULL;
    buf_printf(out, "\"name\":\"%s\",\"versions\":[", group);
    for (size_t i = 0; i < kinds_count(); i++) {
        const struct kind *k = kinds_at(i);
        if (!is_of(k, group, NULL) || !is_first_of_version(i)) continue;
        buf_printf(out, "%s{\"groupVersion\":\"%s\",\"version\":\"%s\"}", preferred ? "," : "",
                   k->api_version, k->version);
        if (!preferred) preferred = k;
    }
    buf_printf(out, "],\"preferredVersion\":{\"groupVersion\":\"%s\",\"version\":\"%s\"}}",
               preferred->api_version, preferred->version);
}

int kinds_discovery_groups(struct buf *out)
{
    size_t n = 0;
    buf_append_str(out, "{\"kind\":\"APIGroupList\",\"apiVersion\":\"v1\",\"groups\":[");
    for (size_t i = 0; i < kinds_count(); i++) {
        if (!kinds_at(i)->group[0] || !is_first_of_group(i)) continue;
        buf_append_str(out, n++ ? ",{" : "{");
        write_group(out, kinds_at(i)->group);
    }
    buf_append_str(out, "]}\n");
    return out->failed;
}

int kinds_discovery_group(struct buf *out, const char *group)
{
    for (size_t i = 0; i < kinds_count(); i++) {
        if (!group[0] || !is_of(kinds_at(i), group, NULL)) continue;
        buf_append_str(out, "{\"kind\":\"APIGroup\",\"apiVersion\":\"v1\",");
        write_group(out, group);
        buf_append_byte(out, '\n');
        return out->failed;
    }
    return ERR_NOT_FOUND;
}

/* ---- aggregated -------------------------------------------------------------------------------
 */

static void write_response_kind(struct buf *out, const char *group, const char *version,
                                const char *kind)
{
    buf_printf(out, "\"responseKind\":{\"group\":\"%s\",\"version\":\"%s\",\"kind\":\"%s\"}", group,
               version, kind);
}

static void write_aggregated_resource(struct buf *out, const struct kind *k)
{
    const struct kind_sub *s;
    buf_printf(out, "{\"resource\":\"%s\",", k->plural);
    write_response_kind(out, k->group, k->version, k->kind);
    buf_printf(out, ",\"scope\":\"%s\",\"singularResource\":\"%s\",\"verbs\":[%s]",
               k->namespaced ? "Namespaced" : "Cluster", k->singular, verbs_of(k));
    write_names(out, "shortNames", k->short_names);
    write_names(out, "categories", k->categories);
    for (size_t i = 0; (s = kind_subresource_at(k, i)); i++) {
        buf_printf(out, "%s{\"subresource\":\"%s\",", i ? "," : ",\"subresources\":[", s->name);
        if (s->kind) write_response_kind(out, s->group, s->version, s->kind);
        else write_response_kind(out, k->group, k->version, k->kind);
        buf_printf(out, ",\"verbs\":[%s]}", s->verbs);
    }
    buf_append_str(out, k->subresources ? "]}" : "}");
}

static void write_aggregated_version(struct buf *out, const struct kind *first)
{
    size_t n = 0;
    buf_printf(out, "{\"version\":\"%s\",\"resources\":[", first->version);
    for (size_t i = 0; i < kinds_count(); i++) {
        if (!is_of(kinds_at(i), first->group, first->version)) continue;
        if (n++) buf_append_byte(out, ',');
        write_aggregated_resource(out, kinds_at(i));
    }
    buf_append_str(out, "],\"freshness\":\"Current\"}");
}

static void write_aggregated_group(struct buf *out, const char *group)
{
    size_t n = 0;
    buf_append_str(out, "{\"metadata\":{");
    if (group[0]) buf_printf(out, "\"name\":\"%s\",", group);
    buf_append_str(out, "\"creationTimestamp\":null},\"versions\":[");
    for (size_t i = 0; i < kinds_count(); i++) {
        if (!is_of(kinds_at(i), group, NULL) || !is_first_of_version(i)) continue;
        if (n++) buf_append_byte(out, ',');
        write_aggregated_version(out, kinds_at(i));
    }
    buf_append_str(out, "]}");
}

int kinds_discovery_aggregated(struct buf *out, bool core)
{
    size_t n = 0;
    buf_append_str(out,
                   "{\"kind\":\"APIGroupDiscoveryList\",\"apiVersion\":\"apidiscovery.k8s.io/v2\","
                   "\"metadata\":{},\"items\":[");
    for (size_t i = 0; i < kinds_count(); i++) {
        if ((kinds_at(i)->group[0] == 0) != core || !is_first_of_group(i)) continue;
        if (n++) buf_append_byte(out, ',');
        write_aggregated_group(out, kinds_at(i)->group);
    }
    buf_append_str(out, "]}\n");
    return out->failed;
}
