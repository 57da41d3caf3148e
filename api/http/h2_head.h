/* What RFC 9113, section 8.1.1 and 8.3 ask of a request, checked by us instead of nghttp2: its check also refuses an :authority such
 * as "http://127.0.0.1:2379", which gRPC clients in Go send when they were given an address with a scheme (etcdctl 3.4 does). */
#ifndef PINTLE_API_HTTP_H2_HEAD_H
#define PINTLE_API_HTTP_H2_HEAD_H

#include "base/slice.h"

/* All zero is a request of which nothing has come yet. */
struct h2_head {
    bool method, scheme, path, authority; /* came */
    bool regular;                         /* a field that is no pseudo-header came */
    bool complete;                        /* what comes now are trailers */
    bool has_length;
    uint64_t length, received; /* content-length; body bytes */
};

/* Each: false = the request is malformed. */
bool h2_head_field(struct h2_head *h, struct slice name, struct slice value);
/* The end of a header block. */
bool h2_head_block_end(struct h2_head *h, bool end_stream);
bool h2_head_data(struct h2_head *h, size_t n);
/* The end of the request. */
bool h2_head_end(const struct h2_head *h);

#endif
