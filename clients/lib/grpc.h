/* gRPC calls over an h2_client: frames of five bytes and a message, status in trailers. Same thread
 * and rules as h2client.h. */
#ifndef PINTLE_CLIENTS_LIB_GRPC_H
#define PINTLE_CLIENTS_LIB_GRPC_H

#include "clients/lib/h2client.h"

struct grpc_client_call;

/* Embedded by the caller; it must stay until `done`. */
struct grpc_client_call {
    /* Each message of the answer, borrowed for the call; may be NULL. */
    void (*message)(struct grpc_client_call *c, struct slice message);
    /* The last call. `status`: gRPC's code (0 = OK, 14 = no connection, 4 = time-out ...), `text`
     * its message, borrowed. */
    void (*done)(struct grpc_client_call *c, int status, const char *text);
    void *data;
    /* ours */
    struct h2_stream *stream;
    struct buf in, text;
    int status;
    bool has_status;
};

/* `method`: "/etcdserverpb.KV/Range". `open`: more messages follow by grpc_client_send, until
 * grpc_client_half_close. */
int grpc_client_start(struct grpc_client_call *c, struct h2_client *client, const char *method,
                      struct slice message, bool open, unsigned timeout_ms) MUST_CHECK;
int grpc_client_send(struct grpc_client_call *c, struct slice message) MUST_CHECK;
void grpc_client_half_close(struct grpc_client_call *c);
/* No `done` follows. */
void grpc_client_cancel(struct grpc_client_call *c);
/* "DeadlineExceeded" and so on. */
const char *grpc_status_name(int status);

#endif
