/* Query strings, selectors, YAML, whole objects, protobuf bodies as they come from Kubernetes
 * clients, and token files; the first byte chooses. */
#include <stdlib.h>

#include "api/kube/kube_int.h"
#include "schemas/kube/kinds.h"
#include "tests/fuzz/fuzz.h"

static void object(struct arena *a, struct slice in, uint8_t which)
{
    struct json *v, *patch;
    struct err e;
    struct kind_problems p;
    const struct kind *k = kinds_at(which % kinds_count());
    if (json_parse(a, in, JSON_COPY, &v, NULL) != 0) return;
    patch = json_clone(a, v);
    kind_problems_init(&p, a);
    if (!patch || kind_prune(a, k, v, &p) != 0 || kind_default(a, k, v) != 0 ||
        kind_validate(a, k, v, NULL, &p) != 0)
        return;
    struct json *cells;
    if (kind_table_cells(a, k, v, 1700000000, &cells) != 0) return;
    if (kind_strategic_merge(a, k, v, patch, &e) != 0) return;
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
    switch (data[0] % 7) {
    case 0:
        if (query_parse(&a, in, &q) != 0) break;
        break;
    case 1:
        if (selector_parse_labels(&a, in, &s, &e) != 0) break;
        break;
    case 2:
        if (selector_parse_fields(&a, in, kinds_at(data[1] % kinds_count()), &s, &e) != 0) break;
        break;
    case 3:
        if (yaml_to_json(&a, in, &v, &e) != 0) break;
        break;
    case 5: protobuf(&a, in); break;
    case 6:
        if (tokens_parse(in, &tokens, &e) == 0) tokens_free(tokens);
        break;
    default: object(&a, in, data[1]); break;
    }
    arena_release(&a);
    return 0;
}
