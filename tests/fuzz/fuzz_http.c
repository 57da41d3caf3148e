/* The whole HTTP server with a small application behind it. First byte: bit 0 = HTTP/2 made of
 * frames with right lengths, else bytes as they are (HTTP/1.1, or HTTP/2 if it begins so); bit 1 =
 * the client reads nothing. Second byte: in pieces of how many bytes.
 *
 * Frames: type, flags, stream, two bytes of length, payload. Types from 0x80 on: a turn of the
 * loop; the head of a request for the path that `flags` chooses, bit 7 = without END_STREAM; a
 * header block of one field repeated by reference, `flags` x 256 times. */
#include "tests/fuzz/records.h"
#include "tests/fuzz/wire.h"

#include "tests/unit/http/http_fixture.h"

static bool made_of_frames(uint8_t first)
{
    return first & 1;
}

static bool bare(const uint8_t head[])
{
    return head[0] >= 0x80;
}

const struct record_shape record_shape = {
    .prefix = 2, .head = 3, .applies = made_of_frames, .bare = bare};

static struct wire wire;

static void request_head(uint8_t flags, uint32_t stream)
{
    static const char *const paths[] = {"/",      "/who?a=b", "/count", "/echo", "/size?300000",
                                        "/early", "/nothing", "/x",     "*",     "/size?9"};
    static const char *const methods[] = {"GET", "POST", "HEAD", "CONNECT"};
    struct buf block = {0};
    hpack_field(&block, ":method", slice_str(methods[(flags >> 4) % 4]));
    hpack_field(&block, ":scheme", SLICE_LIT("http"));
    hpack_field(&block, ":authority", SLICE_LIT("h"));
    hpack_field(&block, ":path", slice_str(paths[flags % 16 % 10]));
    wire_frame(&wire, 1, flags & 0x80 ? 4 : 5, stream, buf_slice(&block));
    buf_release(&block);
}

static void bomb(uint8_t times, uint32_t stream)
{
    struct buf block = {0};
    static uint8_t value[3000];
    buf_append_byte(&block, 0x40); /* with indexing: it is entry 62 from now on */
    hpack_number(&block, 1);
    buf_append_byte(&block, 'b');
    hpack_number(&block, sizeof(value));
    memset(value, 'b', sizeof(value));
    buf_append(&block, value, sizeof(value));
    for (unsigned i = 0; i < times * 256u && block.len < 16384; i++)
        buf_append_byte(&block, 0x80 | 62);
    wire_frame(&wire, 1, 5, stream, buf_slice(&block));
    buf_release(&block);
}

static void frames(struct slice in)
{
    wire_preface(&wire);
    while (in.len) {
        uint8_t type = take_byte(&in), flags = take_byte(&in), stream = take_byte(&in);
        if (type >= 0x80) {
            if (type % 4 == 0) wire_turn(&wire);
            if (type % 4 == 1 || type % 4 == 2) request_head(flags, stream);
            if (type % 4 == 3) bomb(flags, stream);
            continue;
        }
        size_t len = (size_t)take_byte(&in) << 8;
        len |= take_byte(&in);
        wire_frame(&wire, type % 12, flags, stream, take_bytes(&in, len));
    }
}

bool fuzz_arms = true;
unsigned fuzz_mutations = 5;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!wire.server) wire_init(&wire, http_app, &wire.loop_ptr);
    if (size < 2) return 0;
    memset(&app_counts, 0, sizeof(app_counts));
    struct slice in = slice_make(data + 2, size - 2);
    size_t piece = data[1] ? data[1] : size;
    wire_open(&wire);
    fuzz_memory_on();
    wire.deaf = data[0] & 2;
    if (data[0] & 1) frames(in);
    while (!(data[0] & 1) && in.len) {
        struct slice now = take_bytes(&in, piece);
        wire_send(&wire, now.data, now.len);
        if (size / piece < 512) wire_turn(&wire);
    }
    wire_settle(&wire);
    fuzz_memory_off();
    wire_close(&wire);
    return 0;
}
