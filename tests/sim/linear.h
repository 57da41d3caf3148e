/* Whether a history of reads, writes and compare-and-swaps of registers is linearizable: an order
 * exists in which each operation takes effect at one moment between its call and its return.
 *
 * The search of Wing and Gong with Lowe's memory of visited states ("Testing for linearizability",
 * 2017), one key at a time (a history is linearizable if it is so for each object: Herlihy and
 * Wing, locality). An operation whose outcome is unknown may take effect at any time after its
 * call, or never.
 *
 * Values are numbers; 0 = absent (a delete writes 0). A write that is asked for again is one more operation of the same
 * value. Pure. */
#ifndef PINTLE_TESTS_SIM_LINEAR_H
#define PINTLE_TESTS_SIM_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum linear_kind {
    LINEAR_READ,  /* saw `got` */
    LINEAR_WRITE, /* of `value` */
    LINEAR_CAS,   /* `expect` -> `value`; if it failed it saw `got` */
};

struct linear_op {
    uint64_t key;
    enum linear_kind kind;
    bool known;     /* it returned and said what it did */
    bool succeeded; /* CAS, if known */
    uint64_t value, expect, got;
    uint64_t call,
        ret;      /* any clock that orders all calls and returns, no two alike; ret only if known */
    bool settled; /* ours */
};

enum linear_result { LINEAR_OK, LINEAR_VIOLATION, LINEAR_UNDECIDED };

struct linear_report {
    uint64_t key; /* where it failed */
    const struct linear_op
        *stuck; /* the operation that no order explains, as far as the search came */
    uint64_t steps;
};

/* `ops` in any order. Gives up on a key (LINEAR_UNDECIDED, if no other key is a violation) after
 * `max_steps`. */
enum linear_result linear_check(const struct linear_op *ops, size_t n, uint64_t max_steps,
                                struct linear_report *ret);

#endif
