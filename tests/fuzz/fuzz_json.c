/* What is accepted must be written and read back to the same value. */
#include <stdlib.h>

#include "base/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct json *v, *again;
    struct json_error e;
    struct buf out = {0};
    if (json_parse(&a, slice_make(data, size), 0, &v, &e) == 0) {
        json_write(&out, v);
        FUZZ_CHECK(!out.failed && json_parse(&a, buf_slice(&out), JSON_COPY, &again, &e) == 0 &&
                   json_equal(v, again));
        json_write_pretty(&out, v);
    }
    buf_release(&out);
    arena_release(&a);
    return 0;
}
