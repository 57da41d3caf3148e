#include "clients/lib/selector.h"

static bool is_array(const struct json *v)
{
    return v && v->type == JSON_ARRAY;
}

static bool contains(const struct json *values, struct slice v)
{
    for (size_t i = 0; is_array(values) && i < values->count; i++)
        if (slice_eq(json_text(values->items[i]), v)) return true;
    return false;
}

static bool to_number(struct slice s, int64_t *ret)
{
    bool negative = s.len && s.data[0] == '-';
    int64_t v = 0;
    if (s.len == (size_t)negative || s.len > 18) return false;
    for (size_t i = negative; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') return false;
        v = v * 10 + (s.data[i] - '0');
    }
    *ret = negative ? -v : v;
    return true;
}

static bool compare(const struct json *requirement, const struct json *have, bool greater)
{
    const struct json *values = json_get(requirement, "values");
    int64_t a, b;
    if (!is_array(values) || values->count != 1 || !have) return false;
    if (!to_number(json_text(have), &a) || !to_number(json_text(values->items[0]), &b))
        return false;
    return greater ? a > b : a < b;
}

bool requirement_matches(const struct json *requirement, const struct json *labels)
{
    struct slice op = json_text(json_get(requirement, "operator"));
    const struct json *have = json_get_slice(labels, json_text(json_get(requirement, "key")));
    const struct json *values = json_get(requirement, "values");
    if (slice_eq_str(op, "In")) return have && contains(values, json_text(have));
    if (slice_eq_str(op, "NotIn")) return !have || !contains(values, json_text(have));
    if (slice_eq_str(op, "Exists")) return have != NULL;
    if (slice_eq_str(op, "DoesNotExist")) return have == NULL;
    if (slice_eq_str(op, "Gt")) return compare(requirement, have, true);
    if (slice_eq_str(op, "Lt")) return compare(requirement, have, false);
    return false;
}

static bool all_pairs(const struct json *map, const struct json *labels)
{
    for (size_t i = 0; map && map->type == JSON_OBJECT && i < map->count; i++) {
        const struct json *have = json_get_slice(labels, map->members[i].name);
        if (!have || !slice_eq(json_text(have), json_text(map->members[i].value))) return false;
    }
    return true;
}

bool selector_map_matches(const struct json *map, const struct json *labels)
{
    return map && map->type == JSON_OBJECT && map->count && all_pairs(map, labels);
}

bool label_selector_matches(const struct json *selector, const struct json *labels)
{
    if (!selector || selector->type != JSON_OBJECT) return false;
    if (!all_pairs(json_get(selector, "matchLabels"), labels)) return false;
    const struct json *list = json_get(selector, "matchExpressions");
    for (size_t i = 0; is_array(list) && i < list->count; i++)
        if (!requirement_matches(list->items[i], labels)) return false;
    return true;
}

int selector_check(const struct json *selector, struct err *e)
{
    const struct json *list = json_get(selector, "matchExpressions");
    for (size_t i = 0; is_array(list) && i < list->count; i++) {
        struct slice op = json_text(json_get(list->items[i], "operator"));
        if (!slice_eq_str(op, "In") && !slice_eq_str(op, "NotIn") && !slice_eq_str(op, "Exists") &&
            !slice_eq_str(op, "DoesNotExist"))
            return err_set(e, ERR_INVALID, "\"%.*s\" is not a valid label selector operator",
                           (int)op.len, op.data);
    }
    return 0;
}

/* matchFields knows one field: metadata.name. */
static bool field_matches(const struct json *requirement, struct slice node_name)
{
    if (!json_is_str(json_get(requirement, "key"), "metadata.name")) return false;
    bool in = contains(json_get(requirement, "values"), node_name);
    if (json_is_str(json_get(requirement, "operator"), "In")) return in;
    return json_is_str(json_get(requirement, "operator"), "NotIn") && !in;
}

bool node_term_matches(const struct json *term, const struct json *labels, struct slice node_name)
{
    const struct json *expressions = json_get(term, "matchExpressions"),
                      *fields = json_get(term, "matchFields");
    size_t n = 0;
    for (size_t i = 0; is_array(expressions) && i < expressions->count; i++, n++)
        if (!requirement_matches(expressions->items[i], labels)) return false;
    for (size_t i = 0; is_array(fields) && i < fields->count; i++, n++)
        if (!field_matches(fields->items[i], node_name)) return false;
    return n > 0;
}

bool node_selector_matches(const struct json *selector, const struct json *labels,
                           struct slice node_name)
{
    if (!selector) return true;
    const struct json *terms = json_get(selector, "nodeSelectorTerms");
    for (size_t i = 0; is_array(terms) && i < terms->count; i++)
        if (node_term_matches(terms->items[i], labels, node_name)) return true;
    return false;
}

bool toleration_tolerates(const struct json *toleration, const struct json *taint)
{
    struct slice effect = json_text(json_get(toleration, "effect")),
                 key = json_text(json_get(toleration, "key"));
    if (effect.len && !slice_eq(effect, json_text(json_get(taint, "effect")))) return false;
    if (key.len && !slice_eq(key, json_text(json_get(taint, "key")))) return false;
    struct slice op = json_text(json_get(toleration, "operator"));
    if (slice_eq_str(op, "Exists")) return true;
    if (op.len && !slice_eq_str(op, "Equal")) return false;
    return key.len &&
           slice_eq(json_text(json_get(toleration, "value")), json_text(json_get(taint, "value")));
}

const struct json *tolerations_find(const struct json *tolerations, const struct json *taint)
{
    for (size_t i = 0; is_array(tolerations) && i < tolerations->count; i++)
        if (toleration_tolerates(tolerations->items[i], taint)) return tolerations->items[i];
    return NULL;
}
