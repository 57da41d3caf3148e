/* TLS contexts for peers: one to be called with, one to call with, from the same certificate, key and CA. */
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "raft/env_uv_int.h"

static int fail(struct err *e, const char *what, const char *file)
{
    char text[160];
    unsigned long code = ERR_get_error();
    if (ERR_SYSTEM_ERROR(code)) return err_set(e, ERR_INVALID, "%s %s: %s", what, file, strerror(ERR_GET_REASON(code)));
    ERR_error_string_n(code, text, sizeof(text));
    return err_set(e, ERR_INVALID, "%s %s: %s", what, file, text);
}

static int load(SSL_CTX *ctx, const struct env_uv_options *o, struct err *e)
{
    ERR_clear_error();
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    if (SSL_CTX_use_certificate_chain_file(ctx, o->peer_cert_file) != 1)
        return fail(e, "cannot use --peer-cert-file", o->peer_cert_file);
    if (SSL_CTX_use_PrivateKey_file(ctx, o->peer_key_file, SSL_FILETYPE_PEM) != 1)
        return fail(e, "cannot use --peer-key-file", o->peer_key_file);
    if (SSL_CTX_check_private_key(ctx) != 1) return fail(e, "the key does not fit the certificate:", o->peer_key_file);
    if (o->peer_trusted_ca_file && SSL_CTX_load_verify_locations(ctx, o->peer_trusted_ca_file, NULL) != 1)
        return fail(e, "cannot use --peer-trusted-ca-file", o->peer_trusted_ca_file);
    return 0;
}

int peer_tls_open(struct env_uv *u, struct err *e)
{
    const struct env_uv_options *o = &u->options;
    if (!o->peer_cert_file || !o->peer_key_file)
        return err_set(e, ERR_INVALID, "https peer URLs need --peer-cert-file and --peer-key-file");
    u->server_tls = SSL_CTX_new(TLS_server_method());
    u->client_tls = SSL_CTX_new(TLS_client_method());
    if (!u->server_tls || !u->client_tls) return err_set(e, ERR_NOMEM, "cannot make a TLS context");
    int rv = load(u->server_tls, o, e);
    if (rv == 0) rv = load(u->client_tls, o, e);
    if (rv != 0) return rv;
    if (!o->peer_trusted_ca_file) SSL_CTX_set_default_verify_paths(u->client_tls);
    SSL_CTX_set_verify(u->client_tls, SSL_VERIFY_PEER, NULL);
    if (o->peer_client_cert_auth)
        SSL_CTX_set_verify(u->server_tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return 0;
}

void peer_tls_close(struct env_uv *u)
{
    SSL_CTX_free(u->server_tls);
    SSL_CTX_free(u->client_tls);
}
