/* Every limit on what a peer, a client or a file can make grow, in one list. Where etcd or
 * Kubernetes has such a limit the value is theirs, and the comment says so. */
#ifndef PINTLE_BASE_LIMITS_H
#define PINTLE_BASE_LIMITS_H

#define LIMIT_KiB ((size_t)1024)
#define LIMIT_MiB ((size_t)1024 * 1024)

/* Requests */
#define LIMIT_REQUEST_BYTES (LIMIT_MiB + LIMIT_MiB / 2)  /* etcd --max-request-bytes, 1.5 MiB */
#define LIMIT_GRPC_OVERHEAD_BYTES (512 * LIMIT_KiB)      /* etcd adds this for the gRPC frame */
#define LIMIT_TXN_OPS 128                                /* etcd --max-txn-ops */
#define LIMIT_TXN_DEPTH 16                               /* nested txns */
#define LIMIT_KUBE_BODY_BYTES (3 * LIMIT_MiB)            /* kube-apiserver's body limit */
#define LIMIT_JSON_DEPTH 128
#define LIMIT_PROTOBUF_DEPTH 64
#define LIMIT_KUBE_PATCH_OPS 10000                       /* kube-apiserver: JSON patch operations */
#define LIMIT_KUBE_PATCH_WORK 200000000u   /* elements of lists and maps that one JSON patch goes over: tenths of a second */
#define LIMIT_SELECTOR_REQUIREMENTS 256

/* HTTP */
#define LIMIT_CONNECTIONS 20000            /* per process, API ports */
#define LIMIT_FILES_KEPT 256               /* of the process's file descriptors: no API connection takes these (or half of them, if
                                              that is less), for the log, snapshots and peers */
#define LIMIT_HTTP2_STREAMS 4096           /* concurrent, per connection (etcd: unlimited) */
#define LIMIT_HTTP_HEADER_BYTES (64 * LIMIT_KiB)
#define LIMIT_HTTP_HEADERS 128
#define LIMIT_HTTP2_RESETS_PER_SECOND 200  /* RST_STREAM a connection may send; beyond it: GOAWAY */
#define LIMIT_HTTP2_CONTROL_FRAMES 1000    /* SETTINGS/PING/PRIORITY queued answers per connection */
#define LIMIT_HTTP_OUT_BYTES (4 * LIMIT_MiB)  /* queued output per stream before its producer waits */
#define LIMIT_HTTP_IDLE_MS 300000          /* a connection without a stream */
#define LIMIT_HTTP_HANDSHAKE_MS 10000      /* TLS handshake, preface or first request line */
#define LIMIT_HTTP_BODY_STALL_MS 30000     /* request body without progress */
#define LIMIT_HTTP_WRITE_STALL_MS 60000    /* peer reads nothing although we have output */
#define LIMIT_HTTP_STREAM_STALL_MS 60000   /* nothing of an answer that keeps a revision from being freed is taken */

/* Watch */
#define LIMIT_WATCHES_PER_STREAM 100000
#define LIMIT_WATCHES_PER_PROCESS 4000000
#define LIMIT_WATCH_BATCH_EVENTS 1000      /* as etcd: events of history in one reply */
#define LIMIT_WATCH_BATCH_BYTES (LIMIT_MiB)
#define LIMIT_WATCH_FRAGMENT_BYTES (LIMIT_REQUEST_BYTES + LIMIT_GRPC_OVERHEAD_BYTES)
#define LIMIT_WATCH_LAG_BATCHES 4096       /* batches a worker keeps for live watchers before they go
                                              back to history */

#define LIMIT_WATCH_LAG_BYTES (64 * LIMIT_MiB) /* ... or so much of them */
#define LIMIT_WATCH_HISTORY_REQUESTS 4     /* under way per worker */

/* Core */
#define LIMIT_CORE_PENDING_REQUESTS 100000 /* waiting for consensus; beyond: too many requests */
#define LIMIT_CORE_PENDING_BYTES (256 * LIMIT_MiB)
#define LIMIT_CORE_CURSORS 4096            /* long reads open at a time; each keeps its revision from being freed */
#define LIMIT_CORE_SNAPSHOTS 32            /* snapshots sent to clients at a time */
#define LIMIT_CORE_HASHES 64               /* HashKV under way or waiting */
#define LIMIT_BATCH_BYTES (4 * LIMIT_MiB)  /* one Raft entry */
#define LIMIT_BATCH_COMMANDS 8192
#define LIMIT_RANGE_SLICE 10000            /* keys the core collects before it looks at its queue again */
#define LIMIT_QUOTA_BYTES_DEFAULT (2048 * LIMIT_MiB) /* etcd --quota-backend-bytes */
#define LIMIT_LEASES 2000000
#define LIMIT_LEASE_TTL 9000000000LL       /* etcd MaxLeaseTTL, seconds */
#define LIMIT_REQUEST_TIMEOUT_MS 5000      /* etcd: 5 s + 2 election timeouts */

/* Peers */
#define LIMIT_MEMBERS 32
#define LIMIT_MEMBER_NAME_BYTES 256
#define LIMIT_PEER_FRAME_BYTES (8 * LIMIT_MiB)
#define LIMIT_PEER_QUEUE_BYTES (64 * LIMIT_MiB)
#define LIMIT_PEER_CONNECTIONS 128
#define LIMIT_SNAPSHOT_CHUNK_BYTES (LIMIT_MiB)

/* Clients */
#define LIMIT_CLIENT_STREAMS 200000                  /* under way or waiting, per client */
#define LIMIT_CLIENT_RESPONSE_BYTES (64 * LIMIT_MiB) /* a whole answer that is kept in memory */
#define LIMIT_CLIENT_OBJECT_BYTES (8 * LIMIT_MiB)    /* one watch event */
#define LIMIT_CLIENT_LIST_PAGE 500                   /* objects asked for in one list request, as client-go */
#define LIMIT_CLIENT_ENDPOINTS 64
#define LIMIT_KUBECONFIG_BYTES (LIMIT_MiB)

/* Store */
#define LIMIT_TXN_TOTAL_OPS 1024           /* of all levels of one txn together */
#define LIMIT_LEASE_MIN_TTL 2              /* seconds; etcd: 1.5 election timeouts of 1 s, rounded up */
#define LIMIT_MEMBER_URLS 64               /* client URLs that one member publishes */
#define LIMIT_MEMBER_BYTES (32 * LIMIT_KiB) /* name and URLs of one member together */
#define LIMIT_MEMBER_RECORDS 1024          /* members whose attributes are remembered */
#define LIMIT_SNAPSHOT_BLOCK_BYTES (64 * LIMIT_MiB) /* one block of a store snapshot */

/* HTTP, more of it */
#define LIMIT_HTTP_CONN_OUT_BYTES (64 * LIMIT_MiB) /* queued by all streams of a connection; beyond it
                                                      new streams are refused */
#define LIMIT_HTTP_LINGER_MS 2000          /* after our last word, for the peer to close */
#define LIMIT_HTTP_DISCARD_BYTES (LIMIT_MiB) /* rest of a request body that nobody wants */
#define LIMIT_HTTP2_WINDOW_BYTES (LIMIT_MiB) /* per stream; a connection has four times that */
#define LIMIT_HTTP_SERVER_BYTES (512 * LIMIT_MiB) /* requests' heads, bodies that wait, queued output, per worker; beyond it
                                                     a connection with a request open gets no other one */
#define LIMIT_KUBE_PARTIAL_BYTES (256 * LIMIT_MiB) /* request bodies of the Kubernetes API, per worker */
#define LIMIT_GRPC_PARTIAL_BYTES (256 * LIMIT_MiB) /* messages still incomplete, per worker */

/* Kubernetes objects */
#define LIMIT_KIND_PROBLEMS 256 /* told of one object */

/* ---- scrub ---- */
#define LIMIT_SCRUB_BYTES_PER_S (16 * LIMIT_MiB) /* read again in the background, if nothing else is said */

#endif
