/* TLS: files and their errors, client certificates and what is read from them, reloading, half-open and damaged handshakes, slow
 * readers. Keys and certificates are made here. */
#include "http_client.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "base/log.h"

static char dir[] = "/tmp/pintle-tls-XXXXXX";
static EVP_PKEY *ca_key;
static X509 *ca_cert;
static struct fixture f;

/* ---- certificates ------------------------------------------------------------------------------------ */

static const char *path_of(const char *name)
{
    static char paths[8][128];
    static int next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
    return p;
}

static void write_pem(const char *name, EVP_PKEY *key, X509 *cert)
{
    char file[64];
    snprintf(file, sizeof(file), "%s.key", name);
    FILE *out = fopen(path_of(file), "w");
    assert_int_equal(PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(out);
    snprintf(file, sizeof(file), "%s.pem", name);
    out = fopen(path_of(file), "w");
    assert_int_equal(PEM_write_X509(out, cert), 1);
    fclose(out);
}

/* names: pairs of field and value, NULL-terminated; signed by the CA, or by itself. A value "\1" stands for bytes with a NUL. */
static void issue(const char *file, const char *const *names, EVP_PKEY **ret_key, X509 **ret_cert)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    static long serial = 1;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    for (; *names; names += 2) {
        bool nul = names[1][0] == 1;
        X509_NAME_add_entry_by_txt(name, names[0], nul ? MBSTRING_ASC : MBSTRING_UTF8,
                                   (const unsigned char *)(nul ? "admin\0x" : names[1]), nul ? 7 : -1, -1, 0);
    }
    X509_set_issuer_name(cert, ca_cert && !ret_cert ? X509_get_subject_name(ca_cert) : name);
    if (ret_cert) {
        X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
        X509_add_ext(cert, e, -1);
        X509_EXTENSION_free(e);
    }
    assert_true(X509_sign(cert, ca_key && !ret_cert ? ca_key : key, EVP_sha256()) > 0);
    write_pem(file, key, cert);
    if (ret_cert) {
        *ret_key = key;
        *ret_cert = cert;
        return;
    }
    EVP_PKEY_free(key);
    X509_free(cert);
}

static int make_certificates(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    assert_non_null(mkdtemp(dir));
    static const char *const ca[] = {"CN", "ca", NULL}, *const server[] = {"CN", "localhost", NULL},
                             *const other[] = {"CN", "other", NULL},
                             *const admin[] = {"O", "system:masters", "CN", "admin", "O", "d\xc3\xa4v", NULL},
                             *const nameless[] = {"OU", "nobody", NULL}, *const nul[] = {"O", "x", "CN", "\1", NULL};
    issue("ca", ca, &ca_key, &ca_cert);
    EVP_PKEY *evil_key;
    X509 *evil_cert;
    issue("evil", admin, &evil_key, &evil_cert);
    EVP_PKEY_free(evil_key);
    X509_free(evil_cert);
    issue("server", server, NULL, NULL);
    issue("other", other, NULL, NULL);
    issue("admin", admin, NULL, NULL);
    issue("nameless", nameless, NULL, NULL);
    issue("nul", nul, NULL, NULL);
    return 0;
}

static int remove_certificates(void **state)
{
    (void)state;
    static const char *const names[] = {"ca", "evil", "server", "other", "admin", "nameless", "nul", "used", "empty"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char file[64];
        snprintf(file, sizeof(file), "%s.key", names[i]);
        unlink(path_of(file));
        snprintf(file, sizeof(file), "%s.pem", names[i]);
        unlink(path_of(file));
    }
    EVP_PKEY_free(ca_key);
    X509_free(ca_cert);
    return rmdir(dir);
}

/* ---- a client ----------------------------------------------------------------------------------------- */

struct tls_client {
    struct raw raw;
    SSL_CTX *ctx;
    SSL *ssl;
};

static void client_open(struct tls_client *c, const char *cert, const char *alpn)
{
    raw_open(&c->raw, &f);
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (cert) {
        char file[64];
        snprintf(file, sizeof(file), "%s.pem", cert);
        assert_int_equal(SSL_CTX_use_certificate_chain_file(c->ctx, path_of(file)), 1);
        snprintf(file, sizeof(file), "%s.key", cert);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(c->ctx, path_of(file), SSL_FILETYPE_PEM), 1);
    }
    c->ssl = SSL_new(c->ctx);
    if (alpn) SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    SSL_set_fd(c->ssl, c->raw.fd);
    SSL_set_connect_state(c->ssl);
}

static void client_close(struct tls_client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    raw_close(&c->raw);
}

/* Sends a request and reads until the server closes; false if it never came to an answer. */
static bool client_ask(struct tls_client *c, const char *request)
{
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    bool sent = false;
    while (clock_mono_ms() < end) {
        ERR_clear_error();
        uint8_t block[16384];
        int n = sent ? SSL_read(c->ssl, block, sizeof(block)) : SSL_write(c->ssl, request, (int)strlen(request));
        if (n > 0 && sent) buf_append(&c->raw.in, block, (size_t)n);
        if (n > 0) {
            sent = true;
            continue;
        }
        int why = SSL_get_error(c->ssl, n);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
            fixture_turn(&f);
            continue;
        }
        return c->raw.in.len > 0;
    }
    return false;
}

static void start(const char *ca, bool required)
{
    const struct http_tls_options o = {.cert_file = path_of("server.pem"),
                                       .key_file = path_of("server.key"),
                                       .client_ca_file = ca ? path_of(ca) : NULL,
                                       .client_cert_required = required};
    struct err e;
    struct http_tls *tls;
    if (http_tls_new(&o, &tls, &e) != 0) fail_msg("%s", e.text);
    fixture_start_with(&f, tls, http_app, NULL);
    f.tls = tls;
    f.server->limits.linger_ms = 50;
}

static void stop(void)
{
    fixture_stop(&f);
    http_tls_free(f.tls);
}

#define WHO "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

static void expect_who(const char *cert, const char *want)
{
    struct tls_client c;
    client_open(&c, cert, NULL);
    bool answered = client_ask(&c, WHO);
    if (want ? !answered || !raw_has(&c.raw, want) : answered)
        fail_msg("certificate %s: wanted %s, got %.*s", cert, want, (int)c.raw.in.len, (char *)c.raw.in.data);
    client_close(&c);
}

/* ---- tests --------------------------------------------------------------------------------------------- */

static void bad_files(const char *cert, const char *key, const char *ca, bool required, const char *want)
{
    const struct http_tls_options o = {cert ? path_of(cert) : NULL, key ? path_of(key) : NULL, ca ? path_of(ca) : NULL, required};
    struct err e = {""};
    struct http_tls *tls;
    assert_int_equal(http_tls_new(&o, &tls, &e), ERR_INVALID);
    if (!strstr(e.text, want)) fail_msg("wanted %s, got %s", want, e.text);
}

static void test_bad_files(void **state)
{
    (void)state;
    fclose(fopen(path_of("empty.pem"), "w"));
    bad_files(NULL, "server.key", NULL, false, "needs a certificate and a key");
    bad_files("missing.pem", "server.key", NULL, false, "missing.pem: No such file or directory");
    bad_files("empty.pem", "server.key", NULL, false, "cannot use the certificate file /tmp/");
    bad_files("server.pem", "missing.key", NULL, false, "missing.key: No such file or directory");
    bad_files("server.pem", "admin.key", NULL, false, "key");
    bad_files("server.pem", "server.key", "empty.pem", false, "cannot use the client CA file /tmp/");
    bad_files("server.pem", "server.key", "missing.pem", false, "missing.pem: No such file or directory");
    bad_files("server.pem", "server.key", NULL, true, "without a client CA");
}

static void test_client_certificates(void **state)
{
    (void)state;
    start("ca.pem", false);
    expect_who(NULL, "http/1 tls=1 cn= GET /who");
    expect_who("admin", "http/1 tls=1 cn=admin o=system:masters o=d\xc3\xa4v GET /who");
    expect_who("nameless", "http/1 tls=1 cn= GET /who");
    expect_who("nul", "http/1 tls=1 cn= o=x GET /who"); /* not "admin" */
    expect_who("evil", NULL);
    stop();
    start("ca.pem", true);
    expect_who(NULL, NULL);
    expect_who("admin", "cn=admin");
    stop();
    start(NULL, false); /* nobody asks for one: what a client would claim is not seen */
    expect_who("evil", "http/1 tls=1 cn= GET /who");
    stop();
}

static bool resumes(SSL_SESSION **session)
{
    struct tls_client c;
    client_open(&c, "admin", NULL);
    if (*session) SSL_set_session(c.ssl, *session);
    assert_true(client_ask(&c, WHO));
    bool reused = SSL_session_reused(c.ssl);
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(c.ssl);
    SSL_shutdown(c.ssl); /* else OpenSSL does not let it be resumed */
    client_close(&c);
    return reused;
}

/* Who resumes a session is not verified again: not where certificates say who somebody is. */
static void test_resumption(void **state)
{
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        SSL_SESSION *session = NULL;
        start(asked ? "ca.pem" : NULL, false);
        assert_false(resumes(&session));
        assert_int_equal(resumes(&session), !asked);
        SSL_SESSION_free(session);
        stop();
    }
}

static void test_alpn(void **state)
{
    (void)state;
    static const struct {
        const char *offered, *want;
    } cases[] = {{"\x02h2", "h2"}, {"\x08http/1.1\x02h2", "h2"}, {"\x08http/1.1", "http/1.1"}, {"\x06spdy/1", NULL}};
    start(NULL, false);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tls_client c;
        client_open(&c, NULL, cases[i].offered);
        bool answered = client_ask(&c, cases[i].want && strcmp(cases[i].want, "h2") == 0
                                           ? "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, and ends the connection"
                                           : WHO);
        const unsigned char *chosen;
        unsigned len;
        SSL_get0_alpn_selected(c.ssl, &chosen, &len);
        assert_int_equal(answered, cases[i].want != NULL);
        assert_int_equal(len, cases[i].want ? strlen(cases[i].want) : 0);
        client_close(&c);
    }
    stop();
}

static void copy_file(const char *from, const char *to)
{
    char block[8192];
    FILE *in = fopen(path_of(from), "r"), *out = fopen(path_of(to), "w");
    size_t n = fread(block, 1, sizeof(block), in);
    assert_int_equal(fwrite(block, 1, n, out), n);
    fclose(in);
    fclose(out);
}

static bool served_by(const char *name)
{
    struct tls_client c;
    client_open(&c, NULL, NULL);
    assert_true(client_ask(&c, WHO));
    char subject[128];
    X509 *cert = SSL_get1_peer_certificate(c.ssl);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, subject, sizeof(subject));
    X509_free(cert);
    client_close(&c);
    return strcmp(subject, name) == 0;
}

static void test_reload(void **state)
{
    (void)state;
    copy_file("server.pem", "used.pem");
    copy_file("server.key", "used.key");
    const struct http_tls_options o = {path_of("used.pem"), path_of("used.key"), NULL, false};
    struct http_tls *tls;
    assert_int_equal(http_tls_new(&o, &tls, NULL), 0);
    fixture_start_with(&f, tls, http_app, NULL);
    f.tls = tls;
    assert_true(served_by("localhost"));
    copy_file("other.pem", "used.pem"); /* half of a rotation: they do not belong together */
    uint64_t until = clock_mono_ms() + 1300;
    while (clock_mono_ms() < until) assert_true(served_by("localhost"));
    copy_file("other.key", "used.key");
    until = clock_mono_ms() + CLIENT_WAIT_MS;
    while (!served_by("other") && clock_mono_ms() < until) continue;
    assert_true(served_by("other"));
    stop();
}

/* A real ClientHello, cut at every place and with every byte changed: the server answers with an alert or waits, and then the
 * connection's time is up. */
static void test_damaged_handshake(void **state)
{
    (void)state;
    uint8_t hello[1024];
    start("ca.pem", false);
    f.server->limits.handshake_ms = 100;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), out);
    SSL_connect(ssl);
    int len = BIO_read(out, hello, sizeof(hello));
    assert_true(len > 100);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    for (int at = 0; at < len; at++) {
        struct raw r;
        raw_open(&r, &f);
        if (at % 2) {
            hello[at] ^= 0x55;
            raw_send(&r, hello, (size_t)len);
            hello[at] ^= 0x55;
        } else {
            raw_send(&r, hello, (size_t)at);
        }
        shutdown(r.fd, SHUT_WR);
        assert_true(raw_wait_eof(&r));
        raw_close(&r);
    }
    struct raw r;
    raw_open(&r, &f);
    raw_send(&r, hello, (size_t)len); /* and then nothing */
    assert_true(raw_wait_eof(&r));
    raw_close(&r);
    raw_open(&r, &f);
    raw_send_str(&r, "GET / HTTP/1.1\r\n\r\n");
    assert_true(raw_wait_for(&r, "Client sent an HTTP request to an HTTPS server."));
    raw_close(&r);
    expect_who("admin", "cn=admin");
    stop();
}

/* Encrypted records that are changed after the handshake end the connection; nothing of them is taken for a request. */
static void test_damaged_record(void **state)
{
    (void)state;
    start(NULL, false);
    struct tls_client c;
    client_open(&c, NULL, NULL);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (SSL_do_handshake(c.ssl) != 1 && clock_mono_ms() < end) fixture_turn(&f);
    raw_send(&c.raw, "\x17\x03\x03\x00\x20this is not what it claims to be", 37);
    assert_true(raw_wait_eof(&c.raw));
    assert_int_equal(app_counts.requests, 0);
    client_close(&c);
    stop();
}

static void test_slow_reader(void **state)
{
    (void)state;
    start(NULL, false);
    f.server->limits.write_stall_ms = 300;
    struct tls_client c;
    client_open(&c, NULL, NULL);
    uint64_t end = clock_mono_ms() + CLIENT_WAIT_MS;
    while (SSL_do_handshake(c.ssl) != 1 && clock_mono_ms() < end) fixture_turn(&f);
    SSL_write(c.ssl, "GET /size?90000000 HTTP/1.1\r\nHost: a\r\n\r\n", 41);
    while (!app_counts.closed && clock_mono_ms() < end) {
        uv_run(&f.loop, UV_RUN_NOWAIT);
        poll(NULL, 0, 1);
        if (list_empty(&f.server->conns)) continue;
        struct http_conn *conn = container_of(f.server->conns.next, struct http_conn, node);
        assert_true(conn->queued <= f.server->limits.out_bytes + sizeof(app_block));
    }
    assert_int_equal(app_counts.last_error, ERR_TIMEOUT);
    client_close(&c);
    stop();
}

static void test_large_both_ways(void **state)
{
    (void)state;
    start(NULL, false);
    struct tls_client c;
    client_open(&c, NULL, NULL);
    assert_true(client_ask(&c, "GET /size?20000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    assert_true(c.raw.in.len > 20000000);
    assert_memory_equal(c.raw.in.data + c.raw.in.len - 5, "0\r\n\r\n", 5);
    client_close(&c);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_files),          cmocka_unit_test(test_client_certificates), cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_alpn),               cmocka_unit_test(test_reload),
        cmocka_unit_test(test_damaged_handshake),  cmocka_unit_test(test_damaged_record),
        cmocka_unit_test(test_slow_reader),        cmocka_unit_test(test_large_both_ways),
    };
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
