/* Requests of etcd's API, by the hand-written decoders; the first byte chooses which. */
#include "schemas/etcd/request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    if (size == 0) return 0;
    struct slice in = slice_make(data + 1, size - 1);
    union {
        struct range_op range;
        struct put_op put;
        struct delete_op del;
        struct txn_op txn;
        struct etcd_watch_request watch;
        int64_t id;
    } r;
    switch (data[0] % 6) {
    case 0:
        if (etcd_range_decode(in, &r.range) == 0 && range_op_check(&r.range) == 0) break;
        break;
    case 1:
        if (etcd_put_decode(in, &r.put) != 0) break;
        break;
    case 2:
        if (etcd_delete_decode(in, &r.del) != 0) break;
        break;
    case 3:
        if (etcd_txn_decode(&a, in, &r.txn) == 0) {
            struct command c = {.type = COMMAND_OP, .op = {.type = OP_TXN, .txn = &r.txn}};
            if (command_check(&c) == 0) (void)txn_op_read_only(&r.txn);
        }
        break;
    case 4:
        if (etcd_watch_decode(in, &r.watch) != 0) break;
        break;
    default:
        if (etcd_keepalive_decode(in, &r.id) != 0) break;
        break;
    }
    arena_release(&a);
    return 0;
}
