/* Query strings, selectors, YAML, whole objects, protobuf bodies as they come from Kubernetes
 * clients, and token files; the first byte chooses. From 0xf0 on: two objects made of the fields
 * that their kind has, one after the other. */
#include <stdlib.h>

#include "api/kube/kube_int.h"
#include "schemas/kube/kinds.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made_object.h"

/* Else the object goes no further, as in api/kube. */
static bool right_types(const struct kind_problems *p)
{
    for (const struct kind_problem *x = p->first; x; x = x->next)
        if (x->type != PROBLEM_UNKNOWN_FIELD) return false;
    return true;
}

static void object(struct arena *a, struct slice in, const struct kind *k, const struct json *old)
{
    struct json *v, *patch;
    struct err e;
    struct kind_problems p;
    if (json_parse(a, in, JSON_COPY, &v, NULL) != 0) return;
    patch = json_clone(a, v);
    kind_problems_init(&p, a);
    if (!patch || kind_prune(a, k, v, &p) != 0 || !right_types(&p)) return;
    if (kind_default(a, k, v) != 0 || kind_validate(a, k, v, old, &p) != 0) return;
    struct json *cells;
    if (kind_table_cells(a, k, v, 1700000000, &cells) != 0) return;
    if (kind_strategic_merge(a, k, v, patch, &e) != 0) return;
}

static void made_objects(struct arena *a, struct slice in, const struct kind *k)
{
    struct buf text = {0};
    struct json *old;
    made_text_of(&text, k, &in, false);
    object(a, buf_slice(&text), k, NULL);
    if (json_parse(a, buf_slice(&text), JSON_COPY, &old, NULL) == 0) {
        struct kind_problems p;
        kind_problems_init(&p, a);
        buf_clear(&text);
        made_text_of(&text, k, &in, false);
        if (kind_prune(a, k, old, &p) == 0 && right_types(&p) && kind_default(a, k, old) == 0)
            object(a, buf_slice(&text), k, old);
    }
    buf_release(&text);
}

static void protobuf(struct arena *a, struct slice in)
{
    struct json *v;
    struct err e;
    struct buf out = {0};
    if (protobuf_to_json(a, in, &v, &e) != 0) return;
    json_write(&out, v);
    FUZZ_CHECK(out.failed || json_parse(a, buf_slice(&out), JSON_COPY, &v, NULL) == 0);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int loaded;
    struct arena a;
    struct err e;
    struct query q;
    struct selector s = {0};
    struct json *v;
    struct token_table *tokens;
    if (!loaded && kinds_load(&e) != 0) return 0;
    loaded = 1;
    if (size < 2) return 0;
    arena_init(&a, 64 << 20);
    struct slice in = slice_make(data + 2, size - 2);
    const struct kind *k = kinds_at(data[1] % kinds_count());
    switch (data[0] >= 0xf0 ? 7 : data[0] % 7) {
    case 0:
        if (query_parse(&a, in, &q) != 0) break;
        break;
    case 1:
        if (selector_parse_labels(&a, in, &s, &e) != 0) break;
        break;
    case 2:
        if (selector_parse_fields(&a, in, k, &s, &e) != 0) break;
        break;
    case 3:
        if (yaml_to_json(&a, in, &v, &e) != 0) break;
        break;
    case 5: protobuf(&a, in); break;
    case 6:
        if (tokens_parse(in, &tokens, &e) == 0) tokens_free(tokens);
        break;
    case 7: made_objects(&a, in, k); break;
    default: object(&a, in, k, NULL); break;
    }
    arena_release(&a);
    return 0;
}
