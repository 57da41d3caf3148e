#include "clients/lib/kubeconfig.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/yaml.h"

/* ---- kubeconfig ----------------------------------------------------------------------------- */

/* The `what` member of the list's entry of that name. */
static const struct json *named(const struct json *config, const char *list, const char *what,
                                struct slice name)
{
    const struct json *entries = json_get(config, list);
    for (size_t i = 0; entries && entries->type == JSON_ARRAY && i < entries->count; i++)
        if (slice_eq(json_text(json_get(entries->items[i], "name")), name))
            return json_get(entries->items[i], what);
    return NULL;
}

static const char *file_name(struct arena *a, const char *dir, struct slice name)
{
    if (name.len == 0) return NULL;
    if (name.data[0] == '/' || !dir) return arena_strdup(a, name);
    return arena_printf(a, "%s/%.*s", dir, (int)name.len, name.data);
}

static int decode_base64(struct arena *a, struct slice text, const char *what, struct slice *ret,
                         struct err *e)
{
    if (text.len == 0) return 0;
    uint8_t *out = arena_alloc(a, text.len);
    if (!out) return ERR_NOMEM;
    int n = text.len < INT32_MAX ? EVP_DecodeBlock(out, text.data, (int)text.len) : -1;
    if (n < 0) return err_set(e, ERR_INVALID, "kubeconfig: %s is not base64", what);
    while (text.len && text.data[text.len - 1] == '=') {
        text.len--;
        n--;
    }
    *ret = slice_make(out, (size_t)n);
    return 0;
}

static int add_server(struct kube_config *c, struct slice url, struct err *e)
{
    while (url.len && url.data[0] == ' ') url = slice_sub(url, 1, url.len);
    while (url.len && (url.data[url.len - 1] == ' ' || url.data[url.len - 1] == '/')) url.len--;
    if (url.len == 0) return 0;
    if (c->n_servers == LIMIT_CLIENT_ENDPOINTS) return err_set(e, ERR_LIMIT, "too many servers");
    const char *text = arena_strdup(&c->arena, url);
    if (!text) return ERR_NOMEM;
    c->servers[c->n_servers++] = text;
    return 0;
}

static int add_servers(struct kube_config *c, struct slice list, struct err *e)
{
    while (list.len) {
        ptrdiff_t comma = slice_index(list, ',');
        size_t n = comma < 0 ? list.len : (size_t)comma;
        int rc = add_server(c, slice_sub(list, 0, n), e);
        if (rc) return rc;
        list = slice_sub(list, n + 1, list.len);
    }
    return 0;
}

int kube_config_set_servers(struct kube_config *c, const char *list, struct err *e)
{
    c->n_servers = 0;
    int rc = add_servers(c, slice_str(list), e);
    if (!rc && c->n_servers == 0) return err_set(e, ERR_INVALID, "no server in \"%s\"", list);
    return rc;
}

static int take_cluster(struct kube_config *c, const struct json *cluster, const char *dir,
                        struct err *e)
{
    const struct json *more =
        json_get(named(cluster, "extensions", "extension", SLICE_LIT("pintle/servers")), "servers");
    int rc = 0;
    if (more && more->type == JSON_ARRAY)
        for (size_t i = 0; i < more->count && !rc; i++)
            rc = add_servers(c, json_text(more->items[i]), e);
    if (!rc && c->n_servers == 0) rc = add_servers(c, json_text(json_get(cluster, "server")), e);
    if (rc) return rc;
    if (c->n_servers == 0) return err_set(e, ERR_INVALID, "kubeconfig: the cluster has no server");
    struct slice name = json_text(json_get(cluster, "tls-server-name"));
    c->tls.server_name = name.len ? arena_strdup(&c->arena, name) : NULL;
    c->tls.insecure = json_path_bool(cluster, "insecure-skip-tls-verify", false);
    c->tls.ca_file =
        file_name(&c->arena, dir, json_text(json_get(cluster, "certificate-authority")));
    return decode_base64(&c->arena, json_text(json_get(cluster, "certificate-authority-data")),
                         "certificate-authority-data", &c->tls.ca_pem, e);
}

static int read_file(struct arena *a, const char *file, size_t cap, struct slice *ret,
                     struct err *e)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) {
        int rc =
            err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", file, strerror(errno));
        if (fd >= 0) close(fd);
        return rc;
    }
    int rc = 0;
    if (!S_ISREG(st.st_mode) || (size_t)st.st_size > cap) {
        rc = err_set(e, ERR_LIMIT, "%s: not a file of at most %zu bytes", file, cap);
    } else {
        uint8_t *data = arena_alloc(a, (size_t)st.st_size + 1);
        ssize_t n = data ? read(fd, data, (size_t)st.st_size) : 0;
        if (!data) rc = ERR_NOMEM;
        else if (n < 0) rc = err_set(e, ERR_IO, "%s: %s", file, strerror(errno));
        else *ret = slice_make(data, (size_t)n);
    }
    close(fd);
    return rc;
}

static int take_token(struct kube_config *c, const struct json *user, const char *dir,
                      struct err *e)
{
    struct slice token = json_text(json_get(user, "token"));
    struct slice file = json_text(json_get(user, "tokenFile"));
    if (file.len) {
        int rc = read_file(&c->arena, file_name(&c->arena, dir, file), 64 * LIMIT_KiB, &token, e);
        if (rc) return rc;
        while (token.len && (token.data[token.len - 1] == '\n' || token.data[token.len - 1] == ' '))
            token.len--;
    }
    c->token = token.len ? arena_strdup(&c->arena, token) : NULL;
    return 0;
}

static int take_user(struct kube_config *c, const struct json *user, const char *dir, struct err *e)
{
    if (json_get(user, "exec") || json_get(user, "auth-provider") || json_get(user, "username"))
        return err_set(e, ERR_UNSUPPORTED,
                       "kubeconfig: users by exec, auth-provider or password are not supported");
    c->tls.cert_file = file_name(&c->arena, dir, json_text(json_get(user, "client-certificate")));
    c->tls.key_file = file_name(&c->arena, dir, json_text(json_get(user, "client-key")));
    int rc = decode_base64(&c->arena, json_text(json_get(user, "client-certificate-data")),
                           "client-certificate-data", &c->tls.cert_pem, e);
    if (!rc)
        rc = decode_base64(&c->arena, json_text(json_get(user, "client-key-data")),
                           "client-key-data", &c->tls.key_pem, e);
    return rc ? rc : take_token(c, user, dir, e);
}

static int take_config(struct kube_config *c, const struct json *config, const char *dir,
                       const char *context, struct err *e)
{
    struct slice name =
        context ? slice_str(context) : json_text(json_get(config, "current-context"));
    if (name.len == 0) return err_set(e, ERR_INVALID, "kubeconfig: no current-context");
    const struct json *ctx = named(config, "contexts", "context", name);
    if (!ctx)
        return err_set(e, ERR_NOT_FOUND, "kubeconfig: no context \"%.*s\"", (int)name.len,
                       name.data);
    struct slice cluster_name = json_text(json_get(ctx, "cluster")),
                 user_name = json_text(json_get(ctx, "user"));
    const struct json *cluster = named(config, "clusters", "cluster", cluster_name);
    if (!cluster)
        return err_set(e, ERR_NOT_FOUND, "kubeconfig: no cluster \"%.*s\"", (int)cluster_name.len,
                       cluster_name.data);
    int rc = take_cluster(c, cluster, dir, e);
    if (rc) return rc;
    const struct json *user = named(config, "users", "user", user_name);
    if (!user && user_name.len)
        return err_set(e, ERR_NOT_FOUND, "kubeconfig: no user \"%.*s\"", (int)user_name.len,
                       user_name.data);
    struct slice ns = json_text(json_get(ctx, "namespace"));
    c->namespace_ = ns.len ? arena_strdup(&c->arena, ns) : "default";
    return take_user(c, user, dir, e);
}

int kube_config_parse(struct slice text, const char *dir, const char *context,
                      struct kube_config *ret, struct err *e)
{
    *ret = (struct kube_config){0};
    struct json *config;
    int rc = yaml_to_json(&ret->arena, text, &config, e);
    if (!rc && config->type != JSON_OBJECT)
        rc = err_set(e, ERR_INVALID, "kubeconfig: not a mapping");
    if (!rc) rc = take_config(ret, config, dir, context, e);
    if (rc) kube_config_release(ret);
    return rc;
}

int kube_config_load(const char *file, const char *context, struct kube_config *ret, struct err *e)
{
    struct arena scratch = {0};
    struct slice text;
    int rc = read_file(&scratch, file, LIMIT_KUBECONFIG_BYTES, &text, e);
    if (!rc) {
        char *copy = mem_must_strdup(file);
        rc = kube_config_parse(text, dirname(copy), context, ret, e);
        mem_free(copy);
    }
    arena_release(&scratch);
    return rc;
}

void kube_config_release(struct kube_config *c)
{
    arena_release(&c->arena);
    *c = (struct kube_config){0};
}
