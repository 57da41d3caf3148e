/* Ids as etcd computes them (server/etcdserver/api/membership): SHA-1 over the sorted peer URLs of
 * a member and the cluster token, over the sorted member ids for the cluster; the first 8 bytes,
 * big-endian. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "raft/consensus.h"

static uint64_t sha1_u64(const struct buf *b)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    CHECK(EVP_Digest(b->data, b->len, digest, &len, EVP_sha1(), NULL) == 1 && len == 20);
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v = v << 8 | digest[i];
    return v;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

uint64_t consensus_member_id(const char *const *peer_urls, size_t n, const char *cluster_token)
{
    const char **sorted = mem_must_alloc((n + 1) * sizeof *sorted);
    for (size_t i = 0; i < n; i++) sorted[i] = peer_urls[i];
    qsort(sorted, n, sizeof *sorted, compare_text);
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < n; i++) (void)buf_append_str(&b, sorted[i]);
    (void)buf_append_str(&b, cluster_token);
    if (b.failed) log_fatal("out of memory: an id");
    uint64_t id = sha1_u64(&b);
    buf_release(&b);
    mem_free(sorted);
    return id;
}

uint64_t consensus_cluster_id(const uint64_t *member_ids, size_t n)
{
    uint64_t *sorted = mem_must_alloc((n + 1) * sizeof *sorted);
    for (size_t i = 0; i < n; i++) sorted[i] = member_ids[i];
    qsort(sorted, n, sizeof *sorted, compare_ids);
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < n; i++) {
        for (int shift = 56; shift >= 0; shift -= 8)
            (void)buf_append_byte(&b, (uint8_t)(sorted[i] >> shift));
    }
    if (b.failed) log_fatal("out of memory: an id");
    uint64_t id = sha1_u64(&b);
    buf_release(&b);
    mem_free(sorted);
    return id;
}
