/* What the tests of kinds share. JSON is written with single quotes, for the eye. */
#ifndef PINTLE_TESTS_UNIT_KINDS_TEST_H
#define PINTLE_TESTS_UNIT_KINDS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "schemas/kube/kinds.h"

static struct arena arena;

static inline int load_kinds(void **state)
{
    struct err e = {0};
    (void)state;
    if (kinds_load(&e) == 0) return 0;
    print_error("%s\n", e.text);
    return -1;
}

static inline int release_arena(void **state)
{
    (void)state;
    arena_release(&arena);
    return 0;
}

static inline struct json *parse_in(struct arena *a, const char *text)
{
    struct slice copy = arena_dup(a, slice_str(text));
    struct json *v = NULL;
    struct json_error e = {0};
    if (!copy.data) return NULL;
    for (size_t i = 0; i < copy.len; i++)
        if (copy.data[i] == '\'') ((uint8_t *)(uintptr_t)copy.data)[i] = '"';
    int rc = json_parse(a, copy, 0, &v, &e);
    if (rc && rc != ERR_NOMEM) fail_msg("%s: offset %zu: %s", text, e.offset, e.text);
    return v;
}

static inline struct json *parse(const char *text)
{
    struct json *v = parse_in(&arena, text);
    assert_non_null(v);
    return v;
}

/* JSON with single quotes, to compare with. */
static inline const char *shown(const struct json *v)
{
    struct buf b = {0};
    if (!v) return "nothing";
    json_write(&b, v);
    char *text = (char *)(uintptr_t)arena_strdup(&arena, buf_slice(&b));
    buf_release(&b);
    assert_non_null(text);
    for (char *p = text; *p; p++)
        if (*p == '"') *p = '\'';
    return text;
}

static inline const struct kind *kind_of(const struct json *v)
{
    const struct kind *k = kind_by_name(json_path_text(v, "apiVersion"), json_path_text(v, "kind"));
    assert_non_null(k);
    return k;
}

/* All problems, one a line, with single quotes for JSON's double ones. */
static inline const char *problems_text(const struct kind_problems *p)
{
    struct buf b = {0};
    for (const struct kind_problem *x = p->first; x; x = x->next)
        buf_printf(&b, "%s%s", b.len ? "\n" : "", kind_problem_text(&arena, x));
    buf_append_byte(&b, 0);
    char *text = (char *)(uintptr_t)arena_strdup(&arena, buf_slice(&b));
    buf_release(&b);
    return text;
}

#define TEST(name) cmocka_unit_test_teardown(name, release_arena)

#endif
