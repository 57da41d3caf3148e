/* Strategic merge patch: like a JSON merge patch, but lists whose items have a key are merged item
 * by item, and directives say what plain values cannot ($patch, $retainKeys,
 * $setElementOrder/<list>, $deleteFromPrimitiveList/<list>). Which lists, and by which key, is in
 * the data of the kind.
 *
 * The order of a merged list: items that the patch (or its $setElementOrder) names stand in that
 * order; the others keep theirs, and stand before a named item only where they did so before. */
#include <stdio.h>
#include <stdlib.h>

#include "schemas/kube/kinds_int.h"

#define DIRECTIVE "$patch"
#define RETAIN_KEYS "$retainKeys"
#define ELEMENT_ORDER "$setElementOrder/"
#define DELETE_SCALARS "$deleteFromPrimitiveList/"
#define NOWHERE SIZE_MAX

struct merge {
    struct arena *a;
    struct err *e;
};

/* From the key of a list item to where it is; not linear, however long a list a client sends. */
struct key_index {
    struct json *places;
};

static int merge_object(struct merge *m, const struct kind_type *t, struct json *original,
                        const struct json *patch);

static bool is_directive(struct slice name)
{
    return slice_eq_str(name, DIRECTIVE) || slice_eq_str(name, RETAIN_KEYS) ||
           slice_has_prefix(name, SLICE_LIT(ELEMENT_ORDER)) ||
           slice_has_prefix(name, SLICE_LIT(DELETE_SCALARS));
}

static int bad(struct merge *m, const char *what, const struct json *v)
{
    struct buf b;
    buf_init(&b, 4096);
    json_write(&b, v);
    int rc = err_set(m->e, ERR_INVALID, "%s: %.*s", what, (int)(b.len < 160 ? b.len : 160),
                     (const char *)b.data);
    buf_release(&b);
    return rc;
}

/* ---- values that are only in the patch --------------------------------------------------------
 */

/* A copy without directives and nulls; *ret is NULL for an object with $patch: with nothing to
 * delete or replace it says nothing (Kubernetes does the same). */
static int copy_plain(struct merge *m, const struct json *v, struct json **ret)
{
    int rc = 0;
    struct json *kept = NULL, *copy = json_null(m->a);
    if (!copy) return ERR_NOMEM;
    *copy = *v;
    copy->duplicate = false;
    *ret = copy;
    if (v->type < JSON_ARRAY) return 0;
    *copy = (struct json){.type = v->type};
    if (v->type == JSON_OBJECT && json_get(v, DIRECTIVE)) {
        *ret = NULL;
        return 0;
    }
    for (size_t i = 0; i < v->count && !rc; i++) {
        const struct json *x = v->type == JSON_ARRAY ? v->items[i] : v->members[i].value;
        if (v->type == JSON_OBJECT && (x->type == JSON_NULL || is_directive(v->members[i].name)))
            continue;
        rc = copy_plain(m, x, &kept);
        if (rc || !kept) continue;
        rc = v->type == JSON_ARRAY ? json_push(m->a, copy, kept)
                                   : json_set(m->a, copy, v->members[i].name, kept);
    }
    return rc;
}

/* ---- lists ------------------------------------------------------------------------------------
 */

/* What an item is found by: the text of its key, or its own text. Empty if it has none. */
static struct slice key_text(const struct json *item, const char *key)
{
    const struct json *v = key ? json_get(item, key) : item;
    if (!v || v->type >= JSON_ARRAY || v->type == JSON_NULL) return (struct slice){0};
    if (v->type == JSON_BOOL) return v->boolean ? SLICE_LIT("true") : SLICE_LIT("false");
    return v->text.data ? v->text : SLICE_LIT("");
}

static size_t index_find(const struct key_index *x, struct slice key)
{
    const struct json *place = json_get_slice(x->places, key);
    return place ? place->count : NOWHERE;
}

/* The first one of a key stays. */
static int index_add(struct merge *m, struct key_index *x, struct slice key, size_t at)
{
    if (!x->places && !(x->places = json_object(m->a))) return ERR_NOMEM;
    if (index_find(x, key) != NOWHERE) return 0;
    struct json *place = json_null(m->a);
    if (place) place->count = at;
    return json_set(m->a, x->places, key, place);
}

static int index_list(struct merge *m, struct key_index *x, const struct json *list,
                      const char *key)
{
    int rc = 0;
    for (size_t i = 0; list && i < list->count && !rc; i++) {
        struct slice text = key_text(list->items[i], key);
        if (text.data) rc = index_add(m, x, text, i);
        else if (!key) rc = bad(m, "a list of scalars must not hold", list->items[i]);
    }
    return rc;
}

static int no_key(struct merge *m, const struct json *item, const char *key)
{
    char what[128];
    snprintf(what, sizeof(what), "map does not contain declared merge key %s", key);
    return bad(m, what, item);
}

struct removal {
    const struct key_index *gone;
    const char *key;
};

static bool stays(void *ctx, struct slice name, struct json *value)
{
    const struct removal *r = ctx;
    struct slice key = key_text(value, r->key);
    (void)name;
    return !key.data || index_find(r->gone, key) == NOWHERE;
}

/* Items with $patch: deletes from the original, and says whether the rest replaces the list. */
static int apply_item_directives(struct merge *m, struct json *original, const struct json *patch,
                                 const char *key, bool *ret_replace)
{
    struct key_index gone = {0};
    int rc = 0;
    *ret_replace = false;
    for (size_t i = 0; i < patch->count && !rc; i++) {
        const struct json *item = patch->items[i], *directive = json_get(item, DIRECTIVE);
        if (!directive) continue;
        struct slice text = key_text(item, key);
        if (json_is_str(directive, "replace")) *ret_replace = true;
        else if (!json_is_str(directive, "delete")) rc = bad(m, "unknown $patch in a list", item);
        else if (!text.data) rc = no_key(m, item, key);
        else rc = index_add(m, &gone, text, i);
    }
    if (!rc && gone.places) json_filter(original, stays, &(struct removal){&gone, key});
    return rc;
}

static int merge_items(struct merge *m, const struct kind_field *f, struct json *original,
                       const struct json *patch)
{
    struct key_index places = {0};
    int rc = index_list(m, &places, original, f->merge_key);
    for (size_t i = 0; i < patch->count && !rc; i++) {
        const struct json *item = patch->items[i];
        struct slice text = key_text(item, f->merge_key);
        struct json *copy = NULL;
        if (f->merge_key && json_get(item, DIRECTIVE)) continue;
        if (!text.data)
            return f->merge_key ? no_key(m, item, f->merge_key) : bad(m, "no scalar", item);
        size_t at = index_find(&places, text);
        if (at != NOWHERE) {
            if (f->merge_key) rc = merge_object(m, f->type, original->items[at], item);
            continue;
        }
        rc = copy_plain(m, item, &copy);
        if (!rc && copy) rc = json_push(m->a, original, copy);
        if (!rc && copy) rc = index_add(m, &places, text, original->count - 1);
    }
    return rc;
}

/* ---- the order of a merged list ---------------------------------------------------------------
 */

struct placed {
    struct json *value;
    size_t named;  /* its place among the named ones, or NOWHERE */
    size_t before; /* where it was in the original, or NOWHERE */
    size_t now;
};

static int by_named(const void *x, const void *y)
{
    const struct placed *a = x, *b = y;
    if (a->named != b->named) return a->named < b->named ? -1 : 1;
    return (a->now > b->now) - (a->now < b->now);
}

/* `n_before`: how many items at the front of the list stood there before the merge. */
static int order_list(struct merge *m, struct json *list, const struct json *order, const char *key,
                      size_t n_before)
{
    struct key_index named = {0};
    struct placed *items = arena_alloc(m->a, (list->count + 1) * sizeof(*items));
    struct placed *left = arena_alloc(m->a, (list->count + 1) * sizeof(*items));
    size_t n_right = 0, n_left = 0;
    int rc = index_list(m, &named, order, key);
    if (!items || !left) return ERR_NOMEM;
    if (rc) return rc;
    for (size_t i = 0; i < list->count; i++) {
        struct slice text = key_text(list->items[i], key);
        struct placed p = {list->items[i], text.data ? index_find(&named, text) : NOWHERE,
                           i < n_before ? i : NOWHERE, i};
        if (p.named == NOWHERE) left[n_left++] = p;
        else items[n_right++] = p;
    }
    qsort(items, n_right, sizeof(*items), by_named);
    size_t l = 0, r = 0;
    for (size_t i = 0; i < list->count; i++) {
        bool from_left =
            r == n_right || (l < n_left && left[l].before != NOWHERE &&
                             items[r].before != NOWHERE && left[l].before < items[r].before);
        list->items[i] = from_left ? left[l++].value : items[r++].value;
    }
    return 0;
}

/* The patch must name its items in the order that it asks for. */
static int check_order(struct merge *m, const struct json *patch, const struct json *order,
                       const char *key)
{
    struct key_index named = {0};
    size_t last = 0;
    int rc = index_list(m, &named, order, key);
    for (size_t i = 0; i < patch->count && !rc; i++) {
        const struct json *item = patch->items[i];
        if (key && json_get(item, DIRECTIVE)) continue;
        struct slice text = key_text(item, key);
        size_t at = text.data ? index_find(&named, text) : NOWHERE;
        if (at == NOWHERE || at < last)
            return bad(m, "the order in the patch list does not match its $setElementOrder list",
                       patch);
        last = at;
    }
    return rc;
}

/* `patch` or `order` may be NULL, not both. */
static int merge_list(struct merge *m, const struct kind_field *f, struct json *original,
                      const struct json *patch, const struct json *order)
{
    bool replace = false;
    int rc = 0;
    if (patch && order) rc = check_order(m, patch, order, f->merge_key);
    if (!rc && patch && f->merge_key)
        rc = apply_item_directives(m, original, patch, f->merge_key, &replace);
    if (rc) return rc;
    if (replace) original->count = 0;
    size_t n_before = original->count;
    if (patch) rc = merge_items(m, f, original, patch);
    return rc || replace ? rc
                         : order_list(m, original, order ? order : patch, f->merge_key, n_before);
}

static int delete_scalars(struct merge *m, struct json *original, const struct json *gone)
{
    struct key_index x = {0};
    int rc = index_list(m, &x, gone, NULL);
    if (!rc) json_filter(original, stays, &(struct removal){&x, NULL});
    return rc;
}

/* ---- objects ----------------------------------------------------------------------------------
 */

static bool holds(const struct json *list, struct slice text)
{
    return list && json_get_slice(list, text) != NULL;
}

static bool is_retained(void *ctx, struct slice name, struct json *value)
{
    (void)value;
    return holds(ctx, name);
}

static int retain_keys(struct merge *m, struct json *original, const struct json *patch,
                       const struct json *keys)
{
    struct json *set = json_object(m->a), *mark = json_null(m->a);
    int rc = set ? 0 : ERR_NOMEM;
    if (keys->type != JSON_ARRAY) return bad(m, "$retainKeys is no list", keys);
    for (size_t i = 0; i < keys->count && !rc; i++)
        rc = json_set(m->a, set, json_text(keys->items[i]), mark);
    for (size_t i = 0; i < patch->count && !rc; i++) {
        const struct json_member *x = &patch->members[i];
        if (x->value->type != JSON_NULL && !is_directive(x->name) && !holds(set, x->name))
            rc = bad(m, "$retainKeys does not name every field of the patch", keys);
    }
    if (!rc) json_filter(original, is_retained, set);
    return rc;
}

static int set_or_drop(struct merge *m, struct json *original, struct slice name,
                       const struct json *value)
{
    struct json *copy;
    int rc = copy_plain(m, value, &copy);
    if (!rc && copy) rc = json_set(m->a, original, name, copy);
    return rc;
}

static const struct json *prefixed(struct merge *m, const struct json *patch, const char *prefix,
                                   struct slice name)
{
    const char *text = arena_printf(m->a, "%s%.*s", prefix, (int)name.len, (const char *)name.data);
    return text ? json_get(patch, text) : NULL;
}

static struct json deleted; /* stands where a member goes, until all go in one pass */

static bool not_deleted(void *ctx, struct slice name, struct json *value)
{
    (void)ctx, (void)name;
    return value != &deleted;
}

static int merge_member(struct merge *m, const struct kind_field *f, struct json *original,
                        struct slice name, const struct json *value, const struct json *order)
{
    struct json *have = json_get_slice(original, name);
    if (value->type == JSON_NULL) return have ? json_set(m->a, original, name, &deleted) : 0;
    if (!have || have == &deleted || have->type != value->type)
        return set_or_drop(m, original, name, value);
    if (value->type == JSON_OBJECT)
        return merge_object(m, f && f->container == HOLDS_ONE ? f->type : NULL, have, value);
    if (value->type == JSON_ARRAY && f && (f->flags & FIELD_MERGE))
        return merge_list(m, f, have, value, order);
    return set_or_drop(m, original, name, value);
}

/* A directive that stands beside the list it is about. */
static int merge_directive(struct merge *m, const struct kind_type *t, struct json *original,
                           const struct json *patch, const struct json_member *x)
{
    const struct slice order = SLICE_LIT(ELEMENT_ORDER), gone = SLICE_LIT(DELETE_SCALARS);
    bool is_order = slice_has_prefix(x->name, order);
    if (!is_order && !slice_has_prefix(x->name, gone)) return 0;
    struct slice name = slice_sub(x->name, is_order ? order.len : gone.len, x->name.len);
    struct json *have = json_get_slice(original, name);
    const struct kind_field *f = t ? kind_field_find(t, name) : NULL;
    if (x->value->type != JSON_ARRAY) return bad(m, "a directive that is no list", x->value);
    if (!have || have->type != JSON_ARRAY) return 0;
    if (!is_order) return delete_scalars(m, have, x->value);
    if (!f || !(f->flags & FIELD_MERGE) || json_get_slice(patch, name)) return 0;
    return merge_list(m, f, have, NULL, x->value);
}

static int replace_object(struct merge *m, struct json *original, const struct json *patch)
{
    const struct json *directive = json_get(patch, DIRECTIVE);
    struct json *copy = json_object(m->a);
    int rc = copy ? 0 : ERR_NOMEM;
    if (!json_is_str(directive, "replace") && !json_is_str(directive, "delete"))
        return bad(m, "unknown $patch", directive);
    for (size_t i = 0; !rc && json_is_str(directive, "replace") && i < patch->count; i++)
        if (!is_directive(patch->members[i].name) && patch->members[i].value->type != JSON_NULL)
            rc = set_or_drop(m, copy, patch->members[i].name, patch->members[i].value);
    if (!rc) *original = *copy;
    return rc;
}

/* `t` may be NULL: a map, or a field that nobody knows; then lists are replaced. */
static int merge_object(struct merge *m, const struct kind_type *t, struct json *original,
                        const struct json *patch)
{
    const struct json *keys = json_get(patch, RETAIN_KEYS), *directive = json_get(patch, DIRECTIVE);
    int rc = 0;
    if (original->type != JSON_OBJECT || patch->type != JSON_OBJECT)
        return bad(m, "an object can only be merged with an object", patch);
    if (directive && !json_is_str(directive, "merge")) return replace_object(m, original, patch);
    if (keys) rc = retain_keys(m, original, patch, keys);
    for (size_t i = 0; i < patch->count && !rc; i++) {
        const struct json_member *x = &patch->members[i];
        if (is_directive(x->name)) continue;
        const struct json *order =
            x->value->type == JSON_ARRAY ? prefixed(m, patch, ELEMENT_ORDER, x->name) : NULL;
        rc = merge_member(m, t ? kind_field_find(t, x->name) : NULL, original, x->name, x->value,
                          order);
    }
    for (size_t i = 0; i < patch->count && !rc; i++)
        if (is_directive(patch->members[i].name))
            rc = merge_directive(m, t, original, patch, &patch->members[i]);
    if (!rc) json_filter(original, not_deleted, NULL);
    return rc;
}

int kind_strategic_merge(struct arena *a, const struct kind *k, struct json *original,
                         const struct json *patch, struct err *e)
{
    struct merge m = {a, e};
    int rc = merge_object(&m, k->type, original, patch);
    return rc == ERR_NOMEM ? err_set(e, rc, "%s", err_text(rc)) : rc;
}
