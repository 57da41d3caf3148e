/* judge [--unfinished] [--lease-slack PERCENT] FILE: exit status 0 = nothing wrong, 1 = violations, 2 = no history. */
#include "judge_int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/flags.h"

enum { SHOWN_MAX = 20 };

void violation(struct judge *j, unsigned line, const char *format, ...)
{
    va_list ap;
    if (++j->violations > SHOWN_MAX) return;
    printf("violation: ");
    if (line) printf("line %u: ", line);
    va_start(ap, format);
    vprintf(format, ap);
    va_end(ap);
    printf("\n");
}

const char *show(struct slice s)
{
    static char texts[4][120];
    static unsigned next;
    char *out = texts[next++ % 4];
    snprintf(out, sizeof(texts[0]), "\"%.*s\"", (int)(s.len < 100 ? s.len : 100), s.data ? (const char *)s.data : "");
    return out;
}

static int map_file(const char *path, struct slice *ret)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p = fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0 ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0) close(fd);
    if (p == MAP_FAILED) {
        fprintf(stderr, "judge: %s: %s\n", path, errno ? strerror(errno) : "empty");
        return -1;
    }
    *ret = slice_make(p, (size_t)st.st_size);
    return 0;
}

static void summary(const struct judge *j)
{
    printf("judged %u lines: %zu requests (%" PRIu64 " answered, %" PRIu64 " unknown of which %" PRIu64 " happened, %" PRIu64 " not done, %" PRIu64
           " refused for what they ask), %" PRIu64 " writes and %" PRIu64 " reads against %" PRId64 " revisions, %" PRIu64 " watch events, %" PRIu64
           " lease ends, %" PRIu64 " hashes, %" PRIu64 " operations on %zu keys ordered in %" PRIu64 " steps%s\n",
           j->lines, j->n_ops, j->n_ok, j->n_unknown, j->n_settled, j->n_refused, j->n_errors, j->n_writes, j->n_reads, j->top - j->start,
           j->events_checked, j->lease_ends, j->hashes, j->linear_ops, j->n_keys, j->linear_steps, j->undecided ? " (undecided)" : "");
    if (j->violations) printf("%u violations\n", j->violations);
    else printf("nothing wrong\n");
}

int main(int argc, char **argv)
{
    static struct judge j = {.lease_slack_percent = 5};
    struct slice text;
    struct err e = {0};
    const struct flag flags[] = {{"unfinished", FLAG_BOOL, &j.unfinished, NULL, "the history was cut off: what holds only at its end is not checked"},
                                 {"lease-slack", FLAG_INT, &j.lease_slack_percent, "PERCENT", "of a TTL that clocks may be wrong by"},
                                 {0}};
    if (flags_parse(flags, argc, argv, &argc, &e) != 0 || argc != 2) {
        fprintf(stderr, "judge: %s\n", e.text[0] ? e.text : "judge [--unfinished] [--lease-slack PERCENT] FILE");
        return 2;
    }
    if (map_file(argv[1], &text) != 0 || judge_read(&j, text) != 0) return 2;
    leases_collect(&j);
    timeline_build(&j);
    judge_kv(&j);
    judge_watch(&j);
    judge_leases(&j);
    judge_linear(&j);
    if (!j.unfinished && j.n_finals == 0) violation(&j, j.lines, "the history has no end");
    summary(&j);
    return j.violations ? 1 : 0;
}
