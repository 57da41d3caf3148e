/* JSON patch (RFC 6902), merge patch (RFC 7396) and strategic merge patch on an object: two JSON
 * texts with a NUL between them. First byte: which patch, and from 0xf0 on both are made of the fields
 * that the kind has (made_object.h); second: of which kind the object is. What comes out is a tree
 * that can be written and read. */
#include <stdlib.h>

#include "api/kube/kube_int.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made_object.h"

static void check_tree(struct arena *a, const struct json *v)
{
    struct buf out = {0};
    struct json *again;
    json_write(&out, v);
    FUZZ_CHECK(out.failed || json_parse(a, buf_slice(&out), JSON_COPY, &again, NULL) == 0);
    buf_release(&out);
}

static int apply(struct arena *a, uint8_t which, const struct kind *k, struct json *object,
                 struct json *patch, struct json **ret)
{
    struct err e = {0};
    *ret = object;
    switch (which % 4) {
    case 0: return json_patch_apply(a, object, patch, ret, &e);
    case 1: return json_merge_apply(a, object, patch, ret);
    case 2: return kind_strategic_merge(a, k, object, patch, &e);
    default: {
        struct kube_request q = {.body_type = (enum body_type)(BODY_JSON_PATCH + which / 4 % 3)};
        q.arena = *a;
        status_init(&q.status, &q.arena);
        int code = patch_apply(&q, object, patch, k, ret);
        *a = q.arena;
        return code;
    }
    }
}

unsigned fuzz_mutations = 50;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool loaded;
    struct arena a;
    struct err e;
    struct json *object, *patch, *ret;
    if (!loaded && kinds_load(&e) != 0) abort();
    loaded = true;
    if (size < 2) return 0;
    const struct kind *k = kinds_at(data[1] % kinds_count());
    struct slice in = slice_make(data + 2, size - 2);
    struct buf texts = {0};
    if (data[0] >= 0xf0) {
        made_text_of(&texts, k, &in, false);
        buf_append_byte(&texts, 0);
        made_text_of(&texts, k, &in, true);
        in = buf_slice(&texts);
    }
    ptrdiff_t at = slice_index(in, 0);
    if (at < 0) at = (ptrdiff_t)in.len;
    arena_init(&a, 64 << 20);
    if (json_parse(&a, slice_sub(in, 0, (size_t)at), JSON_COPY, &object, NULL) == 0 &&
        json_parse(&a, slice_sub(in, (size_t)at + 1, in.len), JSON_COPY, &patch, NULL) == 0 &&
        object->type == JSON_OBJECT &&
        (data[0] % 4 == 0 || data[0] % 4 == 3 || patch->type == JSON_OBJECT) &&
        apply(&a, data[0], k, object, patch, &ret) == 0)
        check_tree(&a, ret);
    buf_release(&texts);
    arena_release(&a);
    return 0;
}
