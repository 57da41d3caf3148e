/* Global flags, dispatch, connection, waiting, printing. */
#include "clients/ctl/ctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/log.h"
#include "clients/ctl/ctl_int.h"

struct ctl_flags ctl_flags;

const struct pbj_field ctl_header_fields[] = {
    {1, "cluster_id", PBJ_UINT64}, {2, "member_id", PBJ_UINT64},
    {3, "revision", PBJ_INT64},    {4, "raft_term", PBJ_UINT64},
    {0}};

const struct pbj_field ctl_kv_fields[] = {
    {1, "key", PBJ_BYTES},         {2, "create_revision", PBJ_INT64},
    {3, "mod_revision", PBJ_INT64}, {4, "version", PBJ_INT64},
    {5, "value", PBJ_BYTES},       {6, "lease", PBJ_INT64},
    {0}};

int ctl_fail(const char *format, ...)
{
    va_list ap;
    fflush(stdout);
    fputs("Error: ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 1;
}

/* ---- connections and calls --------------------------------------------------------------------------- */

struct h2_client *ctl_connect(struct ctl *c, const char *endpoint)
{
    struct h2_tls_options tls = {.ca_file = c->cacert, .cert_file = c->cert, .key_file = c->key, .insecure = c->insecure_skip_verify};
    struct h2_client_options o = {.endpoints = endpoint ? &endpoint : c->endpoints,
                                  .n_endpoints = endpoint ? 1 : c->n_endpoints,
                                  .tls = &tls,
                                  .user_agent = "pintle-ctl",
                                  .connect_timeout_ms = (unsigned)c->dial_timeout_ms,
                                  .fail_fast = true,
                                  .window_bytes = 16 << 20};
    struct h2_client *client;
    struct err e = {0};
    if (h2_client_new(&c->loop, &o, &client, &e) == 0) return client;
    ctl_fail("%s", e.text);
    return NULL;
}

void ctl_wait(struct ctl *c, const bool *flag)
{
    while (!*flag && uv_run(&c->loop, UV_RUN_ONCE)) continue;
}

struct waiting {
    struct grpc_client_call call;
    struct ctl *ctl;
    struct buf answer;
    int status;
    const char *text;
    bool done;
};

static void on_message(struct grpc_client_call *call, struct slice message)
{
    struct waiting *w = call->data;
    buf_clear(&w->answer);
    buf_append_slice(&w->answer, message);
}

static void on_done(struct grpc_client_call *call, int status, const char *text)
{
    struct waiting *w = call->data;
    w->status = status;
    w->text = arena_strdup(&w->ctl->arena, slice_str(text));
    w->done = true;
}

static int call_with(struct ctl *c, struct h2_client *client, const char *method, const struct buf *request,
                     const struct pbj_field *fields, struct json **ret, const char **ret_error)
{
    struct waiting w = {.ctl = c, .call = {.message = on_message, .done = on_done}};
    const char *error = NULL;
    w.call.data = &w;
    if (request->failed || grpc_client_start(&w.call, client, method, buf_slice(request), false, (unsigned)c->command_timeout_ms) != 0)
        error = "out of memory";
    if (!error) {
        ctl_wait(c, &w.done);
        if (!w.done) error = "the connection was lost";
        else if (w.status == 4 || (w.status == 14 && !w.text[0])) error = "context deadline exceeded";
        else if (w.status) error = w.text;
        else if (pb_to_json(&c->arena, buf_slice(&w.answer), fields, ret) != 0) error = "the server's answer cannot be decoded";
    }
    buf_release(&w.answer);
    if (!error) return 0;
    if (!ret_error) return ctl_fail("%s", error);
    *ret_error = error;
    return 1;
}

int ctl_call(struct ctl *c, const char *method, const struct buf *request, const struct pbj_field *fields, struct json **ret)
{
    if (!c->client && !(c->client = ctl_connect(c, NULL))) return 1;
    return call_with(c, c->client, method, request, fields, ret, NULL);
}

int ctl_call_on(struct ctl *c, const char *endpoint, const char *method, const struct buf *request, const struct pbj_field *fields,
                struct json **ret, const char **ret_error)
{
    struct h2_client *client = ctl_connect(c, endpoint);
    if (!client) return 1;
    int rv = call_with(c, client, method, request, fields, ret, ret_error);
    h2_client_close(client, NULL, NULL);
    return rv;
}

/* ---- output -------------------------------------------------------------------------------------------- */

void ctl_print_json(const struct json *v)
{
    struct buf out = {0};
    json_write(&out, v);
    fwrite(out.data, 1, out.len, stdout);
    putchar('\n');
    fflush(stdout);
    buf_release(&out);
}

struct slice ctl_bytes(struct ctl *c, const struct json *v)
{
    struct buf out = {0};
    if (base64_decode(&out, json_text(v)) != 0) buf_clear(&out);
    struct slice s = arena_dup(&c->arena, buf_slice(&out));
    buf_release(&out);
    return s;
}

void ctl_put_bytes(struct ctl *c, const struct json *base64)
{
    struct slice s = ctl_bytes(c, base64);
    if (!c->hex) fwrite(s.data, 1, s.len, stdout);
    for (size_t i = 0; c->hex && i < s.len; i++) printf("\\x%02x", s.data[i]);
}

int64_t ctl_int(const struct json *v, const char *name)
{
    return json_path_int(v, name, 0);
}

uint64_t ctl_uint(const struct json *v, const char *name)
{
    struct slice text = json_text(json_get(v, name));
    const struct json *n = json_get(v, name);
    if (n && n->type == JSON_NUMBER) text = n->text;
    uint64_t r = 0;
    for (size_t i = 0; i < text.len && text.data[i] >= '0' && text.data[i] <= '9'; i++) r = r * 10 + (uint64_t)(text.data[i] - '0');
    return r;
}

struct slice ctl_prefix_end(struct ctl *c, struct slice key)
{
    struct slice end = arena_dup(&c->arena, key);
    uint8_t *p = (uint8_t *)end.data;
    for (size_t n = key.len; n-- > 0;) {
        if (p[n] == 0xff) continue;
        p[n]++;
        return slice_make(p, n + 1);
    }
    return slice_make("", 1);
}

bool ctl_parse_lease(const char *text, int64_t *ret)
{
    char *end;
    *ret = (int64_t)strtoull(text, &end, 16);
    return end != text && !*end;
}

void ctl_fields_header(const struct json *answer)
{
    const struct json *h = json_get(answer, "header");
    printf("\"ClusterID\" : %llu\n\"MemberID\" : %llu\n\"Revision\" : %lld\n\"RaftTerm\" : %llu\n",
           (unsigned long long)ctl_uint(h, "cluster_id"), (unsigned long long)ctl_uint(h, "member_id"),
           (long long)ctl_int(h, "revision"), (unsigned long long)ctl_uint(h, "raft_term"));
}

/* Characters, not bytes: the µ of a duration is two. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static void rule(const size_t *widths, size_t columns)
{
    for (size_t i = 0; i < columns; i++) {
        putchar('+');
        for (size_t n = 0; n < widths[i] + 2; n++) putchar('-');
    }
    puts("+");
}

void ctl_table(struct ctl *c, const char *const *head, size_t columns, const char *const *cells, size_t rows)
{
    size_t *widths = arena_calloc(&c->arena, columns, sizeof(*widths));
    if (!widths) return;
    for (size_t i = 0; i < columns; i++) widths[i] = strlen(head[i]);
    for (size_t i = 0; i < rows * columns; i++)
        if (width_of(cells[i]) > widths[i % columns]) widths[i % columns] = width_of(cells[i]);
    rule(widths, columns);
    for (size_t i = 0; i < columns; i++) {
        size_t pad = widths[i] - strlen(head[i]);
        printf("| %*s%s%*s ", (int)(pad / 2), "", head[i], (int)(pad - pad / 2), "");
    }
    puts("|");
    rule(widths, columns);
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < columns; i++) {
            const char *cell = cells[r * columns + i];
            printf("| %*s%s ", (int)(widths[i] - width_of(cell)), "", cell);
        }
        puts("|");
    }
    rule(widths, columns);
}

/* ---- dispatch --------------------------------------------------------------------------------------------- */

/* Without a server: main runs them when they come before all flags. */
static const struct ctl_command file_commands[] = {
    {"snapshot restore", "FILE", "make a member's data folder from a snapshot file", NULL},
    {"snapshot status", "FILE", "check a snapshot file and say what is in it", NULL},
    {0}};

static const struct ctl_command *const groups[] = {ctl_kv_commands, ctl_lease_commands, ctl_member_commands, ctl_cluster_commands, file_commands};

static void usage(FILE *out)
{
    fprintf(out, "pintle ctl: the etcd API from the command line, in etcdctl's words\n\nUsage:\n  pintle ctl COMMAND [flags]\n\nCommands:\n");
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (const struct ctl_command *k = groups[g]; k->words; k++) {
            char left[80];
            snprintf(left, sizeof(left), "%s %s", k->words, k->args);
            fprintf(out, "  %-44s %s\n", left, k->help);
        }
    fprintf(out, "\n`pintle ctl COMMAND --help` lists the flags.\n");
}

/* How many words of argv[1..] are the command's; 0 if it is another one. */
static int match(const char *words, int argc, char **argv)
{
    int n = 0;
    while (*words) {
        size_t len = strcspn(words, " ");
        if (n + 1 >= argc || strlen(argv[n + 1]) != len || strncmp(words, argv[n + 1], len) != 0) return 0;
        n++;
        words += len + (words[len] == ' ');
    }
    return n;
}

static int split_endpoints(struct ctl *c)
{
    char *list = (char *)arena_strdup(&c->arena, slice_str(c->endpoint_list)), *save = NULL;
    for (char *item = strtok_r(list, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        if (c->n_endpoints == CTL_ENDPOINTS_MAX) return ctl_fail("more than %d endpoints", CTL_ENDPOINTS_MAX);
        bool tls = c->cacert || c->cert || c->insecure_skip_verify;
        c->endpoints[c->n_endpoints++] = strstr(item, "://") ? item : arena_printf(&c->arena, "%s://%s", tls ? "https" : "http", item);
    }
    return c->n_endpoints ? 0 : ctl_fail("no endpoints given");
}

static int parse_output(struct ctl *c)
{
    static const char *const names[] = {"simple", "json", "fields", "table"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(c->write_out, names[i])) return c->output = (enum ctl_output)i, 0;
    return ctl_fail("unknown output format \"%s\": use simple, json, fields or table", c->write_out);
}

static void make_flags(struct ctl *c, struct flag *out)
{
    struct ctl_flags *f = &ctl_flags;
    const struct flag flags[] = {
        {"endpoints", FLAG_STRING, &c->endpoint_list, "LIST", "the members' client URLs, separated by commas"},
        {"cacert", FLAG_STRING, &c->cacert, "FILE", "CA of the servers' certificates"},
        {"cert", FLAG_STRING, &c->cert, "FILE", "client certificate"},
        {"key", FLAG_STRING, &c->key, "FILE", "its key"},
        {"insecure-skip-tls-verify", FLAG_BOOL, &c->insecure_skip_verify, NULL, "do not verify the server's certificate"},
        {"write-out,w", FLAG_STRING, &c->write_out, "FORMAT", "simple, json, fields or table"},
        {"hex", FLAG_BOOL, &c->hex, NULL, "print bytes as hex"},
        {"dial-timeout", FLAG_DURATION_MS, &c->dial_timeout_ms, "D", "until a connection must be made"},
        {"command-timeout", FLAG_DURATION_MS, &c->command_timeout_ms, "D", "until a command must be answered"},
        {"cluster", FLAG_BOOL, &c->cluster, NULL, "endpoint: all members of the member list"},
        {"prefix", FLAG_BOOL, &f->prefix, NULL, "keys that start with the key"},
        {"from-key", FLAG_BOOL, &f->from_key, NULL, "keys from the key on"},
        {"rev", FLAG_INT, &f->rev, "N", "get, watch, hashkv: at or from this revision"},
        {"limit", FLAG_INT, &f->limit, "N", "get: at most so many keys"},
        {"order", FLAG_STRING, &f->order, "ASCEND|DESCEND", "get: order of the results"},
        {"sort-by", FLAG_STRING, &f->sort_by, "CREATE|KEY|MODIFY|VALUE|VERSION", "get: what to sort by"},
        {"consistency", FLAG_STRING, &f->consistency, "l|s", "get, member list: linearizable or serializable"},
        {"peer-urls", FLAG_STRING, &f->peer_urls, "URLS", "member add, update: where the member listens for the others"},
        {"learner", FLAG_BOOL, &f->learner, NULL, "member add: one that does not vote until it is promoted"},
        {"keys-only", FLAG_BOOL, &f->keys_only, NULL, "get: no values"},
        {"count-only", FLAG_BOOL, &f->count_only, NULL, "get: only how many (with -w fields or json)"},
        {"print-value-only", FLAG_BOOL, &f->print_value_only, NULL, "get: only values"},
        {"prev-kv", FLAG_BOOL, &f->prev_kv, NULL, "put, del, watch: what was there before"},
        {"ignore-value", FLAG_BOOL, &f->ignore_value, NULL, "put: keep the value"},
        {"ignore-lease", FLAG_BOOL, &f->ignore_lease, NULL, "put: keep the lease"},
        {"lease", FLAG_STRING, &f->lease, "ID", "put: attach to this lease (hex)"},
        {"interactive,i", FLAG_BOOL, &f->interactive, NULL, "txn: prompts"},
        {"progress-notify", FLAG_BOOL, &f->progress_notify, NULL, "watch: periodic progress"},
        {"keys", FLAG_BOOL, &f->keys, NULL, "lease timetolive: the attached keys"},
        {"once", FLAG_BOOL, &f->once, NULL, "lease keep-alive: only once"},
        {"physical", FLAG_BOOL, &f->physical, NULL, "compaction: wait until space is freed"},
        {0},
    };
    _Static_assert(sizeof(flags) / sizeof(flags[0]) <= CTL_FLAGS_MAX, "CTL_FLAGS_MAX");
    memcpy(out, flags, sizeof(flags));
}

/* "alarm" alone, or with a word that is none of its commands. */
static int no_command(struct ctl *c, int argc, char **argv)
{
    const char *list = "";
    size_t len = strlen(argv[1]);
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (const struct ctl_command *k = groups[g]; k->words; k++)
            if (strncmp(k->words, argv[1], len) == 0 && k->words[len] == ' ')
                list = arena_printf(&c->arena, "%s%s%s", list, *list ? ", " : "", k->words + len + 1);
    if (!*list) {
        ctl_fail("unknown command \"%s\"", argv[1]);
        usage(stderr);
    } else if (argc > 2) {
        ctl_fail("unknown command \"%s %s\": %s has %s", argv[1], argv[2], argv[1], list);
    } else {
        ctl_fail("%s needs a command: %s", argv[1], list);
    }
    return 2;
}

/* What etcdctl refuses, too: a table of keys. Nothing is asked of a server for it. */
static int check_format(const struct ctl *c, const struct ctl_command *k)
{
    unsigned needs = c->output == CTL_FIELDS ? CTL_WITH_FIELDS : c->output == CTL_TABLE ? CTL_WITH_TABLE : 0;
    return needs & ~k->formats ? ctl_fail("%s is not supported as output format of %s", c->write_out, k->words) : 0;
}

static int run_command(struct ctl *c, int argc, char **argv)
{
    const struct ctl_command *found = NULL;
    int best = 0;
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (const struct ctl_command *k = groups[g]; k->words; k++) {
            int n = match(k->words, argc, argv);
            if (n > best) best = n, found = k;
        }
    if (!found) return no_command(c, argc, argv);
    if (!found->run) return ctl_fail("%s comes before all flags: pintle ctl %s %s [flags]", found->words, found->words, found->args), 2;
    if (check_format(c, found)) return 2;
    c->argc = argc - best;
    c->argv = argv + best;
    return found->run(c);
}

int cmd_ctl(int argc, char **argv)
{
    static struct ctl c;
    struct flag flags[CTL_FLAGS_MAX];
    struct err e = {0};
    c = (struct ctl){.endpoint_list = getenv("ETCDCTL_ENDPOINTS"), .write_out = "simple", .dial_timeout_ms = 2000, .command_timeout_ms = 5000};
    if (!c.endpoint_list) c.endpoint_list = "127.0.0.1:2379";
    ctl_flags = (struct ctl_flags){.consistency = "l"};
    make_flags(&c, flags);
    log_set_name("ctl");
    int rv = flags_parse(flags, argc, argv, &argc, &e);
    if (rv == ERR_CANCELED) {
        usage(stdout);
        flags_help(stdout, "", flags);
        return 0;
    }
    if (rv != 0) return ctl_fail("%s", e.text), 2;
    if (argc < 2) return usage(stderr), 2;
    if (split_endpoints(&c) || parse_output(&c)) return 2;
    uv_loop_init(&c.loop);
    rv = run_command(&c, argc, argv);
    if (c.client) h2_client_close(c.client, NULL, NULL);
    uv_run(&c.loop, UV_RUN_DEFAULT);
    uv_loop_close(&c.loop);
    arena_release(&c.arena);
    if (fflush(stdout) != 0 || ferror(stdout)) return ctl_fail("standard output could not be written");
    return rv;
}
