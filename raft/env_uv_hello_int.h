/* How a connection between members begins: a hello, and what is said to it. */
#ifndef PINTLE_RAFT_ENV_UV_HELLO_INT_H
#define PINTLE_RAFT_ENV_UV_HELLO_INT_H

#include "base/slice.h"

#define HELLO_VERSION 2u
#define HELLO_BYTES 60u
#define WELCOME_BYTES 32u
#define FRAME_HEADER_BYTES 8u
#define HELLO_CHANNEL_ASK UINT32_MAX /* by nobody, to whoever answers: who are the members? */

struct hello {
    uint32_t version, channel;
    uint64_t cluster_id, from, to, instance, known;
};

enum welcome_status {
    WELCOME_OK,
    WELCOME_VERSION,
    WELCOME_CLUSTER,
    WELCOME_UNKNOWN,
    WELCOME_WRONG_TARGET,
    WELCOME_OWN_ID,
    WELCOME_TWICE,
    WELCOME_REMOVED,
    WELCOME_NO_ANSWER,
};

struct welcome {
    uint32_t status;
    uint64_t cluster_id, id;
};

/* The version is this one's. */
void hello_encode(struct buf *out, const struct hello *h);
/* False: not one. */
bool hello_decode(struct slice in, struct hello *ret);
void welcome_encode(struct buf *out, const struct welcome *w);
bool welcome_decode(struct slice in, struct welcome *ret);
/* Why the other one refused us. */
const char *welcome_text(uint32_t status);

#endif
