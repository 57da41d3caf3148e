/* What runs where: ports, files and command lines, all derived from the few flags of `up`. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clients/up/up.h"
#include "clients/up/up_int.h"

#define UP_FILE_MAX 65536

static const char *path(struct up_plan *p, const char *tail)
{
    return arena_printf(&p->arena, "%s/%s", p->dir, tail);
}

static const char *pki(struct up_plan *p, const char *tail)
{
    return arena_printf(&p->arena, "%s/pki/%s", p->dir, tail);
}

static struct up_process *add(struct up_plan *p, const char *name)
{
    struct up_process *x = &p->processes[p->n_processes++];
    x->name = name;
    x->log = arena_printf(&p->arena, "%s/log/%s.log", p->dir, name);
    x->argv[0] = p->binary;
    return x;
}

static void arg(struct up_process *x, const char *value)
{
    size_t n = 0;
    while (x->argv[n]) n++;
    if (n + 1 < UP_ARGS_MAX) x->argv[n] = value;
}

static void arg2(struct up_process *x, const char *flag, const char *value)
{
    arg(x, flag);
    arg(x, value);
}

static int port_of(const struct up_plan *p, int64_t member, int offset)
{
    return (int)(p->base_port + 10 * member + offset);
}

static void join(struct up_plan *p, const char **list, const char *item)
{
    *list = *list ? arena_printf(&p->arena, "%s,%s", *list, item) : item;
}

static void plan_member(struct up_plan *p, int64_t i, const char *cluster)
{
    struct arena *a = &p->arena;
    const char *scheme = p->secure ? "https" : "http";
    struct up_process *x = add(p, arena_printf(a, "n%d", (int)i + 1));
    x->member = true;
    x->client_url = arena_printf(a, "%s://127.0.0.1:%d", scheme, port_of(p, i, 0));
    x->peer_url = arena_printf(a, "%s://127.0.0.1:%d", scheme, port_of(p, i, 1));
    x->kube_url = arena_printf(a, "https://127.0.0.1:%d", port_of(p, i, UP_KUBE_PORT_OFFSET));
    join(p, &p->client_urls, x->client_url);
    join(p, &p->kube_urls, x->kube_url);
    arg(x, "server");
    arg2(x, "--name", x->name);
    arg2(x, "--data-dir", path(p, x->name));
    arg2(x, "--listen-client-urls", x->client_url);
    arg2(x, "--listen-peer-urls", x->peer_url);
    arg2(x, "--initial-cluster", cluster);
    arg2(x, "--initial-cluster-token", "pintle-up");
    arg2(x, "--kube-listen", x->kube_url);
    arg2(x, "--kube-cert-file", pki(p, "server.crt"));
    arg2(x, "--kube-key-file", pki(p, "server.key"));
    arg2(x, "--kube-client-ca-file", pki(p, "ca.crt"));
    if (!p->secure) return;
    arg2(x, "--cert-file", pki(p, "server.crt"));
    arg2(x, "--key-file", pki(p, "server.key"));
    arg2(x, "--trusted-ca-file", pki(p, "ca.crt"));
    arg(x, "--client-cert-auth");
    arg2(x, "--peer-cert-file", pki(p, "server.crt"));
    arg2(x, "--peer-key-file", pki(p, "server.key"));
    arg2(x, "--peer-trusted-ca-file", pki(p, "ca.crt"));
    arg(x, "--peer-client-cert-auth");
}

static void plan_members(struct up_plan *p)
{
    const char *cluster = NULL;
    for (int64_t i = 0; i < p->members; i++)
        join(p, &cluster, arena_printf(&p->arena, "n%d=%s://127.0.0.1:%d", (int)i + 1, p->secure ? "https" : "http", port_of(p, i, 1)));
    for (int64_t i = 0; i < p->members; i++) plan_member(p, i, cluster);
}

static struct up_process *plan_client(struct up_plan *p, const char *command, const char *name)
{
    struct up_process *x = add(p, name);
    arg(x, command);
    arg2(x, "--kubeconfig", path(p, arena_printf(&p->arena, "%s.kubeconfig", command)));
    return x;
}

static void plan_agents(struct up_plan *p)
{
    if (p->nodes > UP_AGENT_PROCESSES_MAX) { /* many nodes: one process carries them all */
        struct up_process *x = plan_client(p, "agent", "agent");
        arg2(x, "--hollow-nodes", arena_printf(&p->arena, "%d", (int)p->nodes));
        arg2(x, "--name-prefix", "node-");
        return;
    }
    for (int64_t i = 0; i < p->nodes; i++) {
        struct up_process *x = plan_client(p, "agent", arena_printf(&p->arena, "agent-%d", (int)i + 1));
        arg2(x, "--node-name", arena_printf(&p->arena, "node-%d", (int)i + 1));
    }
}

int up_plan_make(struct up_plan *p, struct err *e)
{
    char real[4096];
    struct stat st;
    if (p->members < 1 || p->members > UP_MEMBERS_MAX || p->members % 2 == 0)
        return err_set(e, ERR_INVALID, "--members must be 1, 3, 5 or 7");
    if (p->nodes < 0 || p->nodes > 10000) return err_set(e, ERR_INVALID, "--nodes must be between 0 and 10000");
    if (p->base_port < 1 || p->base_port + UP_KUBE_PORT_OFFSET + 100 > 65535)
        return err_set(e, ERR_INVALID, "--base-port must be between 1 and %d", 65535 - UP_KUBE_PORT_OFFSET - 100);
    if (mkdir(p->dir, 0755) != 0 && errno != EEXIST)
        return err_set(e, ERR_IO, "cannot create folder %s: %s (choose another with --dir)", p->dir, strerror(errno));
    if (stat(p->dir, &st) == 0 && !S_ISDIR(st.st_mode)) return err_set(e, ERR_IO, "%s is not a folder (choose another with --dir)", p->dir);
    if (!realpath(p->dir, real)) return err_set(e, ERR_IO, "cannot use folder %s: %s", p->dir, strerror(errno));
    p->dir = arena_strdup(&p->arena, slice_str(real));
    ssize_t n = readlink("/proc/self/exe", real, sizeof(real) - 1);
    p->binary = n > 0 ? arena_strdup(&p->arena, slice_make(real, (size_t)n)) : "pintle";
    p->admin_kubeconfig = path(p, "admin.kubeconfig");
    p->lock_path = path(p, "up.lock");
    p->state_path = path(p, "state.json");
    p->settings_path = path(p, "settings.json");
    p->ca = pki(p, "ca.crt");
    p->client_cert = pki(p, "admin.crt");
    p->client_key = pki(p, "admin.key");
    plan_members(p);
    plan_client(p, "scheduler", "scheduler-1");
    plan_client(p, "scheduler", "scheduler-2");
    plan_client(p, "controllers", "controllers-1");
    plan_client(p, "controllers", "controllers-2");
    plan_agents(p);
    return 0;
}

/* ---- settings -------------------------------------------------------------------------------------------- */

struct json *up_read_json(struct arena *a, const char *path)
{
    struct json *v = NULL;
    FILE *f = fopen(path, "re");
    if (!f) return NULL;
    char *text = arena_alloc(a, UP_FILE_MAX);
    size_t n = fread(text, 1, UP_FILE_MAX, f);
    fclose(f);
    return json_parse(a, slice_make(text, n), 0, &v, NULL) == 0 ? v : NULL;
}

int up_plan_recall(struct up_plan *p, struct err *e)
{
    const struct json *v = up_read_json(&p->arena, arena_printf(&p->arena, "%s/settings.json", p->dir));
    p->has_data = access(arena_printf(&p->arena, "%s/n1", p->dir), F_OK) == 0;
    if (!v || !p->has_data) return 0;
    int64_t members = json_path_int(v, "members", UP_MEMBERS), base_port = json_path_int(v, "base_port", UP_BASE_PORT);
    bool secure = json_path_bool(v, "secure", false);
    if ((p->given.members && p->members != members) || (p->given.base_port && p->base_port != base_port) || (p->given.secure && p->secure != secure))
        return err_set(e, ERR_INVALID, "the data in %s was made with --members %lld --base-port %lld%s and keeps to that; choose another folder with --dir",
                       p->dir, (long long)members, (long long)base_port, secure ? " --secure" : "");
    p->members = members;
    p->base_port = base_port;
    p->secure = secure;
    return 0;
}

static int write_settings(struct up_plan *p, struct err *e)
{
    FILE *f = fopen(p->settings_path, "we");
    bool ok = f && fprintf(f, "{\"members\":%lld,\"base_port\":%lld,\"secure\":%s}\n", (long long)p->members, (long long)p->base_port,
                           p->secure ? "true" : "false") > 0;
    if (f && fclose(f) != 0) ok = false;
    return ok ? 0 : err_set(e, ERR_IO, "cannot write %s: %s", p->settings_path, strerror(errno));
}

/* ---- files -------------------------------------------------------------------------------------------- */

static int make_dir(const char *dir, struct err *e)
{
    if (mkdir(dir, 0755) == 0 || errno == EEXIST) return 0;
    return err_set(e, ERR_IO, "cannot create folder %s: %s (choose another with --dir)", dir, strerror(errno));
}

/* One context per member, so that `kubectl --context n2` reaches the second when the first is down; our own programs take
 * all of them as servers. */
static int write_kubeconfig(struct up_plan *p, const char *file, const char *user, struct err *e)
{
    struct buf out = {0};
    const char *servers = p->processes[0].kube_url;
    for (size_t i = 1; i < (size_t)p->members; i++)
        servers = arena_printf(&p->arena, "%s\", \"%s", servers, p->processes[i].kube_url);
    buf_append_str(&out, "apiVersion: v1\nkind: Config\ncurrent-context: n1\nclusters:\n");
    for (size_t i = 0; i < (size_t)p->members; i++)
        buf_printf(&out,
                   "- name: %s\n  cluster:\n    server: %s\n    certificate-authority: %s\n    extensions:\n"
                   "    - name: pintle/servers\n      extension: {servers: [\"%s\"]}\n",
                   p->processes[i].name, p->processes[i].kube_url, p->ca, servers);
    buf_printf(&out, "users:\n- name: %s\n  user:\n    client-certificate: %s\n    client-key: %s\ncontexts:\n", user,
               pki(p, arena_printf(&p->arena, "%s.crt", user)), pki(p, arena_printf(&p->arena, "%s.key", user)));
    for (size_t i = 0; i < (size_t)p->members; i++)
        buf_printf(&out, "- name: %s\n  context:\n    cluster: %s\n    user: %s\n", p->processes[i].name,
                   p->processes[i].name, user);
    FILE *f = out.failed ? NULL : fopen(file, "we");
    bool ok = f && fwrite(out.data, 1, out.len, f) == out.len;
    if (f && fclose(f) != 0) ok = false;
    buf_release(&out);
    return ok ? 0 : err_set(e, ERR_IO, "cannot write %s: %s", file, strerror(errno));
}

bool (*up_read_folder)(struct arena *a, const char *data_dir, const char **ret_peer_url, size_t *ret_members);

/* Members that were made elsewhere (restored) would wait for each other where nobody listens. */
static int check_folder(struct up_plan *p, const struct up_process *x, struct err *e)
{
    const char *dir = path(p, x->name), *url;
    size_t n;
    if (!up_read_folder || !up_read_folder(&p->arena, dir, &url, &n)) return 0;
    if (strcmp(url, x->peer_url) != 0)
        return err_set(e, ERR_INVALID, "%s belongs to the member at %s, not %s: give the --base-port and --secure that it was made for, or restore it for these",
                       dir, url, x->peer_url);
    if ((size_t)p->members <= n && 2 * (size_t)p->members > n) return 0; /* who was added by hand is not ours */
    return err_set(e, ERR_INVALID, "%s belongs to one of %zu members, not of %lld: give --members, or restore it for these", dir, n, (long long)p->members);
}

static int check_port(const struct up_plan *p, const char *url, struct err *e)
{
    int port = atoi(strrchr(url, ':') + 1), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_set(e, ERR_IO, "cannot open a socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    int rv = bind(fd, (struct sockaddr *)&a, sizeof(a));
    int number = errno;
    close(fd);
    if (rv == 0) return 0;
    return err_set(e, ERR_EXISTS, "port %d cannot be used: %s (%s)", port, strerror(number),
                   p->has_data ? "the data is bound to its ports: stop what uses it" : "choose others with --base-port");
}

int up_plan_prepare(struct up_plan *p, struct err *e)
{
    static const struct {
        const char *name, *common_name, *organization;
    } users[] = {{"admin", "admin", "system:masters"},
                 {"scheduler", "system:kube-scheduler", NULL},
                 {"controllers", "system:kube-controller-manager", NULL},
                 {"agent", "system:node:hollow", "system:nodes"}};
    const char *dir = path(p, "pki");
    int rv = 0;
    for (size_t i = 0; rv == 0 && i < (size_t)p->members; i++) rv = check_folder(p, &p->processes[i], e);
    for (size_t i = 0; rv == 0 && i < (size_t)p->members; i++) {
        rv = check_port(p, p->processes[i].client_url, e);
        if (rv == 0) rv = check_port(p, p->processes[i].peer_url, e);
        if (rv == 0) rv = check_port(p, p->processes[i].kube_url, e);
    }
    if (rv == 0) rv = make_dir(dir, e);
    if (rv == 0) rv = make_dir(path(p, "log"), e);
    if (rv == 0) rv = write_settings(p, e);
    if (rv == 0) rv = pki_ca(dir, e);
    if (rv == 0) rv = pki_issue(dir, "server", "pintle-server", NULL, true, e);
    for (size_t i = 0; rv == 0 && i < sizeof(users) / sizeof(users[0]); i++) {
        rv = pki_issue(dir, users[i].name, users[i].common_name, users[i].organization, false, e);
        if (rv == 0)
            rv = write_kubeconfig(p, path(p, arena_printf(&p->arena, "%s.kubeconfig", users[i].name)), users[i].name, e);
    }
    return rv;
}
