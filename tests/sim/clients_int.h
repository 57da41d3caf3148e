/* Private to clients*.c: a client and what it asks. */
#ifndef PINTLE_TESTS_SIM_CLIENTS_INT_H
#define PINTLE_TESTS_SIM_CLIENTS_INT_H

#include "harness.h"

enum ask_kind {
    ASK_PUT,
    ASK_GET,
    ASK_STALE_GET,
    ASK_OLD_GET,
    ASK_OLD_RANGE,
    ASK_DELETE,
    ASK_DELETE_ALL,
    ASK_CAS_VALUE,
    ASK_CAS_MOD,
    ASK_RANGE,
    ASK_TXN,
    ASK_TXN_OLD, /* a put, and a range at an older revision */
    ASK_TXN_READ,
    ASK_COMPACT,
    ASK_GRANT,
    ASK_LEASE_PUT,
    ASK_RENEW,
    ASK_LEASE_INFO,
    ASK_REVOKE,
    ASK_HASH,
    ASK_ALARM, /* raised or cleared by a client, where there is a quota */
    ASK_KINDS,
};

/* A value as last seen by a client; 0 = the key was absent. */
struct known_value {
    uint64_t value;
    int64_t mod_rev;
};

/* What may have happened and is asked for once more, as it was. */
struct again {
    enum ask_kind kind;
    unsigned key, key2;
    uint64_t value, value2; /* 0 = nothing is */
};

struct client {
    struct run *run;
    unsigned number;
    struct ask *ask; /* waited for, or NULL */
    struct again again;
    struct known_value known[RUN_KEYS_MAX];
};

/* One request on its way. */
struct ask {
    struct core_request request;
    struct list node; /* in its life's asks */
    struct run *run;
    struct life *life;
    struct client *client; /* NULL: nobody waits any more */
    enum ask_kind kind;
    unsigned key, key2;
    uint64_t value, value2, expect, call, called_us, give_up_us;
    int64_t expect_mod, lease, floor, revision;
    bool submitted, prev_kv;
    char key_text[16], key2_text[16];
    struct buf bytes, bytes2, expect_bytes, command;
    struct compare compare;
    struct op success[3], failure[2];
    struct txn_op txn;
};

/* clients.c: this value is asked for once more; once less, for that was certainly not done. */
void clients_asked(struct run *r, uint64_t value);
void clients_refused(struct run *r, uint64_t value);

/* clients_ask.c: makes the request of a kind. */
bool ask_make(struct ask *a);
const char *ask_name(enum ask_kind kind);
bool ask_is_write(enum ask_kind kind); /* travels through the log */
bool ask_may_come_again(enum ask_kind kind); /* a client may ask for it twice: what it writes is in its value, and in no lease */
enum ask_kind ask_choose(struct run *r);
struct slice
ask_all_keys(void); /* the prefix of the keys in the history; its range end is ask_all_keys_end() */
struct slice ask_all_keys_end(void);
/* The number in a value's text; 0 for none. */
uint64_t value_number(struct slice bytes);

/* clients_check.c: an answer with code 0, or the operation's own refusal. */
bool ask_check(struct ask *a);
bool ask_check_refusal(struct ask *a);
/* Adds what is known (or not) to the history. */
void ask_record(struct ask *a, bool known);

#endif
