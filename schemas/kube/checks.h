/* Private to checks*.c: small words that the checks of types are written in. */
#ifndef PINTLE_SCHEMAS_KUBE_CHECKS_H
#define PINTLE_SCHEMAS_KUBE_CHECKS_H

#include "schemas/kube/kinds_int.h"

struct check_entry {
    const char *name;
    kind_check_fn fn;
};

/* Names seen so far; looking one up is not linear, however many a client sends. */
struct name_set {
    struct json *names;
};

/* 1 if `name` was there already, 0 if it is new, ERR_NOMEM. */
int name_set_add(struct kind_check *c, struct name_set *s, struct slice name);
/* Complains (Duplicate value) at `at`.`member` of the items whose `member` was there before. */
int check_unique(struct kind_check *c, const struct kind_path *list, const struct json *items,
                 const char *member, struct name_set *seen);

static inline size_t check_count(const struct json *v)
{
    return v && (v->type == JSON_ARRAY || v->type == JSON_OBJECT) ? v->count : 0;
}

/* Stored objects may have been written by others than this API: never trust a shape. */
static inline size_t check_members(const struct json *v)
{
    return v && v->type == JSON_OBJECT ? v->count : 0;
}

static inline bool check_has(const struct json *v, const char *name)
{
    const struct json *x = json_get(v, name);
    return x && x->type != JSON_NULL && !(x->type == JSON_STRING && x->text.len == 0);
}

#endif
