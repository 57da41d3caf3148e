/* What the commands share: global flags, a connection, calls that are waited for, and output. One thread; the process ends
 * with the command, so memory of a command lives in its arena. */
#ifndef PINTLE_CLIENTS_CTL_CTL_INT_H
#define PINTLE_CLIENTS_CTL_CTL_INT_H

#include <uv.h>

#include "base/arena.h"
#include "base/flags.h"
#include "clients/lib/grpc.h"
#include "clients/lib/pbjson.h"

#define CTL_ENDPOINTS_MAX 32
#define CTL_FLAGS_MAX 40

enum ctl_output { CTL_SIMPLE, CTL_JSON, CTL_FIELDS, CTL_TABLE };

struct ctl {
    uv_loop_t loop;
    struct arena arena;
    struct h2_client *client;
    const char *endpoints[CTL_ENDPOINTS_MAX];
    size_t n_endpoints;
    enum ctl_output output;
    bool hex;
    /* flags */
    const char *endpoint_list, *cacert, *cert, *key, *write_out;
    bool insecure_skip_verify, cluster;
    uint64_t dial_timeout_ms, command_timeout_ms;
    int argc; /* arguments after the command's words: argv[1..argc) */
    char **argv;
};

/* Output formats of a command beside simple and json. */
#define CTL_WITH_FIELDS 1u
#define CTL_WITH_TABLE 2u
#define CTL_PLAIN (CTL_WITH_FIELDS | CTL_WITH_TABLE) /* a line that is the same in all, as etcdctl's */

/* A command: its words ("lease grant"), arguments, what it does; `run` returns the exit status. */
struct ctl_command {
    const char *words, *args, *help;
    int (*run)(struct ctl *c);
    unsigned formats;
};

extern const struct ctl_command ctl_kv_commands[], ctl_lease_commands[], ctl_member_commands[], ctl_cluster_commands[];
/* Flags of commands: one table for all, as they do not clash. Its values: */
struct ctl_flags {
    bool prefix, from_key, keys_only, count_only, print_value_only, prev_kv, ignore_value, ignore_lease, interactive,
        progress_notify, keys, once, physical, learner;
    int64_t rev, limit;
    const char *order, *sort_by, *consistency, *lease, *peer_urls;
};
extern struct ctl_flags ctl_flags;

/* Prints "Error: ..." and returns the exit status for it. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Calls and waits. The answer as JSON, by `fields`. 0, or an exit status after the error was printed. */
int ctl_call(struct ctl *c, const char *method, const struct buf *request, const struct pbj_field *fields, struct json **ret);
/* The same on one endpoint. `ret_error` != NULL: the error goes there and is not printed. */
int ctl_call_on(struct ctl *c, const char *endpoint, const char *method, const struct buf *request, const struct pbj_field *fields,
                struct json **ret, const char **ret_error);
/* A client for one endpoint (NULL: for all); NULL after an error was printed. */
struct h2_client *ctl_connect(struct ctl *c, const char *endpoint);
/* Runs the loop until *flag. */
void ctl_wait(struct ctl *c, const bool *flag);

/* The answer of MemberList; a list of texts with commas between; a text, "" if it is not there. */
int ctl_fetch_members(struct ctl *c, bool linearizable, struct json **ret);
const char *ctl_joined(struct ctl *c, const struct json *list);
const char *ctl_text(struct ctl *c, const struct json *v, const char *name);

void ctl_print_json(const struct json *v);
/* Bytes of a base64 field, or hex with --hex. */
struct slice ctl_bytes(struct ctl *c, const struct json *v);
void ctl_put_bytes(struct ctl *c, const struct json *base64);
int64_t ctl_int(const struct json *v, const char *name);
uint64_t ctl_uint(const struct json *v, const char *name);
/* What range_end is for a prefix; "\0" if there is no end. */
struct slice ctl_prefix_end(struct ctl *c, struct slice key);
bool ctl_parse_lease(const char *text, int64_t *ret);
/* Words of a line as etcdctl takes them: what stands between spaces, in 'single quotes' as it is, in double quotes as a
 * string of Go. The second begins at a '"' and moves *p behind the closing one. -1 and NULL after an error was printed: no end,
 * an escape that is none, a NUL byte (which an argument cannot have either), more than `max`. */
#define CTL_SPACES " \t\r\n\v\f"
int ctl_split(struct ctl *c, const char *line, char **words, int max);
char *ctl_unquote(struct ctl *c, const char **p);
/* The header of an answer, with -w fields. */
void ctl_fields_header(const struct json *answer);
void ctl_table(struct ctl *c, const char *const *head, size_t columns, const char *const *cells, size_t rows);

extern const struct pbj_field ctl_header_fields[], ctl_kv_fields[];

#endif
