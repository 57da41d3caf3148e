/* The real world for consensus: a libuv loop, two disk threads, and TLS or plain connections to peers.
 *
 * Peer connections: TCP_NODELAY; each starts with a hello (protocol version, cluster id, both member ids,
 * channel) and is closed with one logged reason when that does not fit: garbage, another cluster, a member with our own
 * id, an unknown one. One outgoing connection per peer and channel, re-made with back-off; what we send goes out on
 * ours, what a peer sends comes in on its own. Queues are bounded by LIMIT_PEER_QUEUE_BYTES. */
#ifndef PINTLE_RAFT_ENV_UV_H
#define PINTLE_RAFT_ENV_UV_H

#include <uv.h>

#include "raft/env.h"

struct env_uv_options {
    const char *data_dir;    /* created (0700) if missing; locked against a second process */
    const char *listen_url;  /* http://host:port or https://host:port */
    uint64_t id, cluster_id;
    /* TLS, for https: PEM files, named as etcd names its flags */
    const char *peer_cert_file, *peer_key_file, *peer_trusted_ca_file;
    bool peer_client_cert_auth;
};

struct env_uv;

/* The loop is borrowed and outlives it. ERR_BUSY: the folder is in use; ERR_EXISTS: the port is. */
int env_uv_open(uv_loop_t *loop, const struct env_uv_options *options, struct env **ret, struct err *e) MUST_CHECK;
/* To be called once per loop turn, before the loop waits: writes what was sent in this turn. */
void env_uv_flush(struct env *e);
/* After ops->stop has called back. `closed` runs on the loop once its handles are gone. */
void env_uv_close(struct env *e, void (*closed)(void *ctx), void *ctx);

#endif
