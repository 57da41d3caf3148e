/* The small file of term and vote, configurations, and snapshot files, past their checksums
 * (fake_crc.h); the first byte chooses. */
#include "raft/consensus_int.h"
#include "tests/fuzz/fake_crc.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/mem_env.h"

static void meta(struct slice in)
{
    struct mem_env m;
    struct meta ret, again;
    struct err e = {0};
    mem_env_init(&m);
    (void)mem_write_file(&m.env, "meta", in, &e);
    if (meta_read(&m.env, 7, 1, &ret, &e) == 0) {
        if (meta_write(&m.env, 7, 1, &ret, &e) != 0 || meta_read(&m.env, 7, 1, &again, &e) != 0) {
            FUZZ_CHECK(false);
        } else if (again.term != ret.term || again.voted_for != ret.voted_for) {
            abort();
        }
    }
    mem_env_release(&m);
}

static int count(void *ctx, struct slice raw, struct err *e)
{
    uint64_t *sum = ctx;
    (void)e;
    for (size_t i = 0; i < raw.len; i += 64) *sum += raw.data[i];
    return 0;
}

static void decode(struct slice head, struct slice rest, size_t piece)
{
    struct snapfile_decoder d;
    struct err e = {0};
    uint64_t sum = 0;
    snapfile_decoder_init(&d);
    int code = snapfile_feed(&d, head, count, &sum, &e);
    for (size_t at = 0; code == 0 && at < rest.len; at += piece)
        code = snapfile_feed(&d, slice_sub(rest, at, piece), count, &sum, &e);
    if (code == 0 && snapfile_finish(&d, &e) == 0 && d.state != SNAPFILE_ENDED) abort();
    snapfile_decoder_release(&d);
}

/* A head as it should be, and the input behind it. */
static void blocks(struct slice in, size_t piece)
{
    static const uint8_t configuration[] = "\1\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0a\0\1\0\0\0";
    struct snapfile_encoder s;
    struct buf head = {0};
    const struct snapfile_header h = {7, 5, 2, 1, slice_make(configuration, 24)};
    snapfile_encode_header(&s, &h, &head);
    decode(buf_slice(&head), in, piece);
    buf_release(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    struct slice in = slice_make(data + 2, size - 2);
    struct raft_configuration conf;
    size_t piece = data[1] ? data[1] : size;
    switch (data[0] % 4) {
    case 0: meta(in); break;
    case 1: decode((struct slice){0}, in, piece); break;
    case 2: blocks(in, piece); break;
    default:
        if (!frame_configuration_ok(in)) break;
        if (!peers_decode_configuration(in, &conf)) break;
        raft_configuration_close(&conf);
    }
    return 0;
}
