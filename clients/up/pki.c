/* Certificates for a control plane on one machine: a CA, and leaves signed by it. P-256 keys, ten years. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clients/up/up_int.h"

#define PKI_DAYS 3650

static const char server_names[] = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
                                   "DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:::1,IP:10.96.0.1";

static int fail(struct err *e, const char *what, const char *path)
{
    char text[128];
    int number = errno;
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof(text));
    return err_set(e, ERR_IO, "cannot %s %s: %s", what, path, code && !ERR_SYSTEM_ERROR(code) ? text : strerror(number));
}

static void path_of(char *out, size_t size, const char *dir, const char *name, const char *suffix)
{
    snprintf(out, size, "%s/%s.%s", dir, name, suffix);
}

/* Whole, or not there: one of the two, which is not NULL. */
static int save_one(const char *dir, const char *name, X509 *cert, EVP_PKEY *key, struct err *e)
{
    char path[1024], part[1032];
    path_of(path, sizeof(path), dir, name, key ? "key" : "crt");
    snprintf(part, sizeof(part), "%s.part", path);
    unlink(part);
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, key ? 0600 : 0644);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!f) {
        int rv = fail(e, "write", part);
        if (fd >= 0) close(fd);
        return rv;
    }
    bool ok = key ? PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 : PEM_write_X509(f, cert) == 1;
    ok = ok && fflush(f) == 0 && fsync(fd) == 0;
    int rv = ok ? 0 : fail(e, "write", part);
    if (fclose(f) != 0 && rv == 0) rv = fail(e, "write", part);
    if (rv == 0 && rename(part, path) != 0) rv = fail(e, "write", path);
    if (rv != 0) unlink(part);
    return rv;
}

static int save(const char *dir, const char *name, X509 *cert, EVP_PKEY *key, struct err *e)
{
    int rv = save_one(dir, name, NULL, key, e);
    return rv ? rv : save_one(dir, name, cert, NULL, e);
}

static bool exists(const char *dir, const char *name, const char *suffix)
{
    char path[1024];
    path_of(path, sizeof(path), dir, name, suffix);
    return access(path, F_OK) == 0;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = ext && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

static bool set_name(X509 *cert, const char *common_name, const char *organization)
{
    X509_NAME *n = X509_get_subject_name(cert);
    if (organization && X509_NAME_add_entry_by_txt(n, "O", MBSTRING_UTF8, (const unsigned char *)organization, -1, -1, 0) != 1)
        return false;
    return X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1;
}

static X509 *cert_new(EVP_PKEY *key, const char *common_name, const char *organization)
{
    X509 *cert = X509_new();
    uint64_t serial = 0;
    if (!cert || RAND_bytes((unsigned char *)&serial, sizeof(serial)) != 1) goto fail;
    if (X509_set_version(cert, 2) != 1 || ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) != 1 ||
        !X509_gmtime_adj(X509_getm_notBefore(cert), -3600) ||
        !X509_gmtime_adj(X509_getm_notAfter(cert), 86400L * PKI_DAYS) || X509_set_pubkey(cert, key) != 1 ||
        !set_name(cert, common_name, organization))
        goto fail;
    return cert;
fail:
    X509_free(cert);
    return NULL;
}

int pki_ca(const char *dir, struct err *e)
{
    if (exists(dir, "ca", "crt")) return 0; /* its key was there before it, and is read where it is needed */
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? cert_new(key, "pintle-ca", NULL) : NULL;
    int rv = 0;
    if (!cert || X509_set_issuer_name(cert, X509_get_subject_name(cert)) != 1 ||
        !add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE") ||
        !add_extension(cert, cert, NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign") ||
        !add_extension(cert, cert, NID_subject_key_identifier, "hash") || !X509_sign(cert, key, EVP_sha256()))
        rv = fail(e, "make a CA in", dir);
    else
        rv = save(dir, "ca", cert, key, e);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rv;
}

static int load_ca(const char *dir, X509 **ret_cert, EVP_PKEY **ret_key, struct err *e)
{
    char path[1024];
    path_of(path, sizeof(path), dir, "ca", "crt");
    FILE *f = fopen(path, "re");
    *ret_cert = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    if (f) fclose(f);
    if (!*ret_cert) return fail(e, "read", path);
    path_of(path, sizeof(path), dir, "ca", "key");
    f = fopen(path, "re");
    *ret_key = f ? PEM_read_PrivateKey(f, NULL, NULL, NULL) : NULL;
    if (f) fclose(f);
    return *ret_key ? 0 : fail(e, "read", path);
}

int pki_issue(const char *dir, const char *name, const char *common_name, const char *organization, bool server,
              struct err *e)
{
    if (exists(dir, name, "crt") && exists(dir, name, "key")) return 0;
    X509 *ca = NULL, *cert = NULL;
    EVP_PKEY *ca_key = NULL, *key = NULL;
    int rv = load_ca(dir, &ca, &ca_key, e);
    if (rv != 0) goto out;
    key = EVP_EC_gen("P-256");
    cert = key ? cert_new(key, common_name, organization) : NULL;
    if (!cert || X509_set_issuer_name(cert, X509_get_subject_name(ca)) != 1 ||
        !add_extension(cert, ca, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(cert, ca, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(cert, ca, NID_ext_key_usage, server ? "serverAuth,clientAuth" : "clientAuth") ||
        !add_extension(cert, ca, NID_authority_key_identifier, "keyid") ||
        (server && !add_extension(cert, ca, NID_subject_alt_name, server_names)) ||
        !X509_sign(cert, ca_key, EVP_sha256()))
        rv = fail(e, "make a certificate for", name);
    else
        rv = save(dir, name, cert, key, e);
out:
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    return rv;
}
