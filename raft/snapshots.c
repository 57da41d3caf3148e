#include "raft/consensus_int.h"
int snapshots_open(struct consensus *c, struct err *e){(void)c;(void)e;return 0;}
uint64_t snapshots_restored_index(const struct consensus *c, uint64_t *t){(void)c;*t=0;return 0;}
struct raft_snapshot *snapshots_newest(struct consensus *c){(void)c;return 0;}
int snapshots_fsm_snapshot(struct consensus *c, struct raft_buffer **b, unsigned *n){(void)c;(void)b;(void)n;return RAFT_BUSY;}
int snapshots_fsm_restore(struct consensus *c, const struct raft_buffer *t){(void)c;(void)t;return 0;}
int snapshots_put(struct consensus *c, struct raft_io_snapshot_put *r, const struct raft_snapshot *s, raft_io_snapshot_put_cb cb){(void)c;(void)r;(void)s;(void)cb;return RAFT_BUSY;}
int snapshots_get(struct consensus *c, struct raft_io_snapshot_get *r, raft_io_snapshot_get_cb cb){(void)c;(void)r;(void)cb;return RAFT_BUSY;}
void snapshots_applied(struct consensus *c, size_t n){(void)c;(void)n;}
void snapshots_poll(struct consensus *c){(void)c;}
void snapshots_tick(struct consensus *c){(void)c;}
void snapshots_cancel(struct consensus *c){(void)c;}
bool snapshots_idle(const struct consensus *c){(void)c;return true;}
void snapshots_release(struct consensus *c){(void)c;}
void snapshots_status(const struct consensus *c, struct consensus_status *s){(void)c;(void)s;}
void stream_frame(struct consensus *c, struct peer *p, const struct frame *f){(void)c;(void)p;(void)f;}
void stream_link(struct consensus *c, struct peer *p, bool up){(void)c;(void)p;(void)up;}
void stream_tick(struct consensus *c){(void)c;}
int stream_send(struct consensus *c, struct raft_io_send *r, const struct raft_message *m, raft_io_send_cb cb){(void)c;(void)r;(void)m;(void)cb;return RAFT_NOCONNECTION;}
int consensus_snapshot(struct consensus *c){(void)c;return ERR_BUSY;}
