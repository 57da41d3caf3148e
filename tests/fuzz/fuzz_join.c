/* What who joins a cluster is told by a member: whatever is taken can be said again, and is taken as the same. */
#include <string.h>

#include "raft/join.h"
#include "tests/fuzz/fuzz.h"

static void check_again(const struct join_cluster *j, struct arena *a)
{
    struct buf out = {0};
    struct join_cluster again;
    join_encode(&out, j->cluster_id, j->index, j->members, j->n);
    int rv = join_decode(buf_slice(&out), a, &again);
    FUZZ_CHECK(rv == 0 && again.cluster_id == j->cluster_id && again.index == j->index && again.n == j->n);
    for (size_t i = 0; i < j->n && rv == 0; i++) {
        const struct consensus_member *x = &j->members[i], *y = &again.members[i];
        if (x->id != y->id || x->learner != y->learner || x->promote != y->promote || strcmp(x->peer_url, y->peer_url) != 0 ||
            strcmp(x->name, y->name) != 0)
            abort();
    }
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {0};
    struct join_cluster j;
    if (join_decode(slice_make(data, size), &a, &j) == 0) {
        FUZZ_CHECK(j.index && j.n <= LIMIT_MEMBERS);
        check_again(&j, &a);
    }
    arena_release(&a);
    return 0;
}
