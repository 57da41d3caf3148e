/* Command-line flags as etcd and Kubernetes programs take them: --name value, --name=value, -name value; a boolean flag alone
 * means true. One table makes both the parser and the help. */
#ifndef PINTLE_BASE_FLAGS_H
#define PINTLE_BASE_FLAGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum flag_type { FLAG_STRING, FLAG_INT, FLAG_BOOL, FLAG_DURATION_MS };

struct flag {
    const char *name; /* without dashes; NULL ends the table. A one-letter short form may follow a comma: "write-out,w" */
    enum flag_type type;
    void *value;      /* const char **, int64_t *, bool *, uint64_t * (milliseconds); holds the default before parsing */
    const char *arg;  /* what the help calls the value, or NULL */
    const char *help;
    bool *given;      /* NULL, or set to true when the flag was given, be it with the default */
};

/* Takes flags out of argv[1..); what is left are the arguments, moved to the front: argv[1..*ret_argc). "--" ends the flags.
 * ERR_CANCELED when --help or -h was given (nothing is printed). Durations: "500ms", "5s", "10m", "1h30m", or plain
 * milliseconds. */
int flags_parse(const struct flag *flags, int argc, char **argv, int *ret_argc, struct err *e) MUST_CHECK;
/* The usage line(s), then the flags. */
void flags_help(FILE *out, const char *usage, const struct flag *flags);
int flag_duration_parse(const char *text, uint64_t *ret_ms) MUST_CHECK;

#endif
