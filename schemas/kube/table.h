/* Private to table.c and cells*.c. */
#ifndef PINTLE_SCHEMAS_KUBE_TABLE_H
#define PINTLE_SCHEMAS_KUBE_TABLE_H

#include "schemas/kube/kinds_int.h"

struct cell_entry {
    const char *name;
    kind_cell_fn fn;
};

/* "5m", "3d4h": how long ago as kubectl says it. */
const char *cell_duration(struct arena *a, int64_t seconds);
/* The same for a time value; "<unknown>" if it is none. */
const char *cell_since(struct arena *a, const struct json *time, int64_t now_s);
/* A string cell; NULL stays NULL. */
struct json *cell_text(struct arena *a, const char *text);
/* What was written to `b`, which is released; `empty` if nothing was. */
struct json *cell_buf(struct arena *a, struct buf *b, const char *empty);
kind_cell_fn kind_pod_cell_by_name(struct slice name);

static inline size_t cell_count(const struct json *v)
{
    return v && (v->type == JSON_ARRAY || v->type == JSON_OBJECT) ? v->count : 0;
}

/* Stored objects may have been written by others than this API: never trust a shape. */
static inline size_t cell_members(const struct json *v)
{
    return v && v->type == JSON_OBJECT ? v->count : 0;
}

#endif
