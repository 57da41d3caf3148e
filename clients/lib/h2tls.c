/* The TLS side of the client: a context from PEM files or texts, and sessions that verify the
 * server's name. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "clients/lib/h2_int.h"

/* The last error, unless the system was the first to fail: of a file that cannot be opened the last
 * is only "system lib". */
static int tls_error(struct err *e, const char *what, const char *file)
{
    unsigned long first = ERR_peek_error(), code = ERR_peek_last_error();
    const char *reason = ERR_SYSTEM_ERROR(first) ? strerror(ERR_GET_REASON(first))
                         : code                  ? ERR_reason_error_string(code)
                                                 : NULL;
    ERR_clear_error();
    return err_set(e, ERR_INVALID, "%s %s: %s", what, file ? file : "given as data",
                   reason ? reason : "cannot be used");
}

static int load_ca(SSL_CTX *ctx, const struct h2_tls_options *o, struct err *e)
{
    if (o->ca_pem.len) {
        BIO *bio = BIO_new_mem_buf(o->ca_pem.data, (int)o->ca_pem.len);
        if (!bio) return ERR_NOMEM;
        X509 *cert;
        int n = 0;
        while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
            n += X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1;
            X509_free(cert);
        }
        BIO_free(bio);
        if (!n) return tls_error(e, "CA certificate", NULL);
        ERR_clear_error(); /* the end of the text is an error to PEM_read */
        return 0;
    }
    if (o->ca_file) {
        if (SSL_CTX_load_verify_locations(ctx, o->ca_file, NULL) != 1)
            return tls_error(e, "CA certificate", o->ca_file);
        return 0;
    }
    if (SSL_CTX_set_default_verify_paths(ctx) != 1)
        return tls_error(e, "CA certificates", "of the system");
    return 0;
}

static int load_cert_text(SSL_CTX *ctx, struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    if (!bio) return ERR_NOMEM;
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    int ok = cert && SSL_CTX_use_certificate(ctx, cert) == 1;
    X509_free(cert);
    while (ok && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        ok = SSL_CTX_add0_chain_cert(ctx, cert) == 1;
    BIO_free(bio);
    if (ok) ERR_clear_error();
    return ok ? 0 : ERR_INVALID;
}

static int load_key_text(SSL_CTX *ctx, struct slice pem)
{
    BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
    if (!bio) return ERR_NOMEM;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    int ok = key && SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return ok ? 0 : ERR_INVALID;
}

static int load_identity(SSL_CTX *ctx, const struct h2_tls_options *o, struct err *e)
{
    bool cert = o->cert_pem.len || o->cert_file, key = o->key_pem.len || o->key_file;
    if (!cert && !key) return 0;
    if (cert != key)
        return err_set(e, ERR_INVALID,
                       "a client certificate needs its key, and a key its certificate");
    if (o->cert_pem.len) {
        if (load_cert_text(ctx, o->cert_pem)) return tls_error(e, "client certificate", NULL);
    } else if (SSL_CTX_use_certificate_chain_file(ctx, o->cert_file) != 1) {
        return tls_error(e, "client certificate", o->cert_file);
    }
    if (o->key_pem.len) {
        if (load_key_text(ctx, o->key_pem)) return tls_error(e, "client key", NULL);
    } else if (SSL_CTX_use_PrivateKey_file(ctx, o->key_file, SSL_FILETYPE_PEM) != 1) {
        return tls_error(e, "client key", o->key_file);
    }
    if (SSL_CTX_check_private_key(ctx) != 1)
        return tls_error(e, "client key does not fit the certificate:", o->key_file);
    return 0;
}

int h2_tls_context(const struct h2_tls_options *o, SSL_CTX **ret, struct err *e)
{
    static const struct h2_tls_options none;
    if (!o) o = &none;
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx) return ERR_NOMEM;
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x02h2", 3);
    SSL_CTX_set_verify(ctx, o->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    int rc = o->insecure ? 0 : load_ca(ctx, o, e);
    if (!rc) rc = load_identity(ctx, o, e);
    if (rc) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *ret = ctx;
    return 0;
}

SSL *h2_tls_session(struct h2_client *c, const struct h2_endpoint *ep)
{
    SSL *ssl = SSL_new(c->tls);
    if (!ssl) return NULL;
    const char *name = c->server_name ? c->server_name : ep->host;
    unsigned char ip[16];
    bool is_ip = inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
    int ok = 1;
    if (!is_ip) ok = (int)SSL_set_tlsext_host_name(ssl, name);
    if (ok && c->verify)
        ok = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name)
                   : SSL_set1_host(ssl, name);
    if (ok != 1) {
        SSL_free(ssl);
        return NULL;
    }
    SSL_set_connect_state(ssl);
    return ssl;
}
