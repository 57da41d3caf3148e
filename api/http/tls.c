/* TLS by OpenSSL, which sees memory only: what the socket gave goes in, what is to be sent comes out into the server's buffer and
 * leaves in one write. The contexts are per port, shared by the workers (references), and read anew when their files change. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/http/http_int.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"

enum { RELOAD_MS = 1000, REST_MOST = 4 * 1024 * 1024, CIPHER_KEEP = 256 * 1024 };

/* ---- contexts --------------------------------------------------------------------------------------- */

struct file_stamp {
    struct timespec changed;
    off_t size;
    ino_t inode;
};

struct http_tls {
    char *files[3]; /* certificate, key, client CA (may be NULL) */
    bool client_cert_required;
    struct file_stamp stamps[3];
    uint64_t checked_ms;
    SSL_CTX *ctx;
    struct err problem; /* of the last attempt to read the files again */
};

static BIO_METHOD *bio_method;
static uv_once_t bio_once = UV_ONCE_INIT;
static void bio_method_init(void);

/* The last error, unless the system was the first to fail: of a file that cannot be opened the last is only "system lib". */
static const char *ssl_reason(void)
{
    unsigned long first = ERR_peek_error(), code = ERR_peek_last_error();
    if (ERR_SYSTEM_ERROR(first)) return strerror(ERR_GET_REASON(first));
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "unknown reason";
}

/* Never asks on the terminal. */
static int no_password(char *buf, int size, int writing, void *user)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                           unsigned in_len, void *user)
{
    (void)ssl;
    (void)user;
    static const unsigned char ours[] = "\x02h2\x08http/1.1";
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void set_context_options(SSL_CTX *ctx)
{
    static const unsigned char session_context[] = "pintle";
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20"); /* of TLS 1.2, those that HTTP/2 allows */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);     /* tickets only: no state here */
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_session_id_context(ctx, session_context, sizeof(session_context) - 1);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
}

/* What OpenSSL takes from a CA's extensions at its first use, it takes here: the workers' handshakes find it there. */
static void prepare_cas(SSL_CTX *ctx)
{
    const STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(SSL_CTX_get_cert_store(ctx));
    for (int i = 0; i < sk_X509_OBJECT_num(all); i++) {
        X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        if (ca) (void)X509_check_purpose(ca, -1, 0);
    }
}

static int load_client_ca(SSL_CTX *ctx, const struct http_tls *t, struct err *e)
{
    if (!t->files[2]) return 0;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(t->files[2]);
    if (!names || SSL_CTX_load_verify_locations(ctx, t->files[2], NULL) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return err_set(e, ERR_INVALID, "cannot use the client CA file %s: %s", t->files[2], ssl_reason());
    }
    prepare_cas(ctx);
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (t->client_cert_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET); /* who resumes is not verified again, and would outlive its certificate */
    SSL_CTX_set_num_tickets(ctx, 0);
    return 0;
}

static int context_new(const struct http_tls *t, SSL_CTX **ret, struct err *e)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) return err_set(e, ERR_NOMEM, "cannot make a TLS context: %s", ssl_reason());
    set_context_options(ctx);
    int rc = 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, t->files[0]) != 1)
        rc = err_set(e, ERR_INVALID, "cannot use the certificate file %s: %s", t->files[0], ssl_reason());
    else if (SSL_CTX_use_PrivateKey_file(ctx, t->files[1], SSL_FILETYPE_PEM) != 1)
        rc = err_set(e, ERR_INVALID, "cannot use the key file %s: %s", t->files[1], ssl_reason());
    else if (SSL_CTX_check_private_key(ctx) != 1)
        rc = err_set(e, ERR_INVALID, "the key %s does not belong to the certificate %s", t->files[1], t->files[0]);
    else
        rc = load_client_ca(ctx, t, e);
    ERR_clear_error();
    if (rc != 0) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *ret = ctx;
    return 0;
}

static void read_stamps(const struct http_tls *t, struct file_stamp *stamps)
{
    memset(stamps, 0, 3 * sizeof(*stamps));
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (!t->files[i] || stat(t->files[i], &st) != 0) continue;
        stamps[i].changed = st.st_mtim;
        stamps[i].size = st.st_size;
        stamps[i].inode = st.st_ino;
    }
}

int http_tls_new(const struct http_tls_options *o, struct http_tls **ret, struct err *e)
{
    if (!o->cert_file || !o->key_file) return err_set(e, ERR_INVALID, "TLS needs a certificate and a key file");
    if (o->client_cert_required && !o->client_ca_file)
        return err_set(e, ERR_INVALID, "client certificates cannot be required without a client CA file");
    uv_once(&bio_once, bio_method_init);
    struct http_tls *t = mem_must_calloc(1, sizeof(*t));
    t->files[0] = mem_must_strdup(o->cert_file);
    t->files[1] = mem_must_strdup(o->key_file);
    t->files[2] = o->client_ca_file ? mem_must_strdup(o->client_ca_file) : NULL;
    t->client_cert_required = o->client_cert_required;
    t->checked_ms = clock_mono_ms();
    read_stamps(t, t->stamps);
    int rc = context_new(t, &t->ctx, e);
    if (rc != 0) {
        http_tls_free(t);
        return rc;
    }
    *ret = t;
    return 0;
}

void http_tls_free(struct http_tls *t)
{
    if (!t) return;
    for (int i = 0; i < 3; i++) mem_free(t->files[i]);
    SSL_CTX_free(t->ctx);
    mem_free(t);
}

static void reload(struct http_tls *t)
{
    struct file_stamp stamps[3];
    read_stamps(t, stamps);
    if (memcmp(stamps, t->stamps, sizeof(stamps)) == 0) return;
    memcpy(t->stamps, stamps, sizeof(stamps));
    struct err e;
    SSL_CTX *ctx;
    if (context_new(t, &ctx, &e) != 0) {
        memset(t->stamps, 0xff, sizeof(t->stamps)); /* and tried again: perhaps the reason passes */
        if (strcmp(e.text, t->problem.text) != 0) log_warn("http: the changed certificate is not used, the one before stays: %s", e.text);
        t->problem = e;
        return;
    }
    SSL_CTX_free(t->ctx);
    t->ctx = ctx;
    t->problem.text[0] = 0;
    log_info("http: certificate reloaded file=%s", t->files[0]);
}

SSL_CTX *http_tls_context(struct http_tls *t)
{
    uint64_t now = clock_mono_ms();
    if (now - t->checked_ms >= RELOAD_MS) {
        t->checked_ms = now;
        reload(t);
    }
    SSL_CTX_up_ref(t->ctx);
    return t->ctx;
}

/* ---- a connection's state --------------------------------------------------------------------------- */

struct tls_conn {
    SSL *ssl;
    struct slice in; /* encrypted, not taken by OpenSSL yet */
    struct buf rest; /* encrypted, not taken by the kernel yet */
    bool handshaken, failed, said_goodbye;
};

static int bio_read(BIO *bio, char *to, int len)
{
    struct http_conn *c = BIO_get_data(bio);
    struct slice *in = &c->tls->in;
    BIO_clear_retry_flags(bio);
    if (in->len == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t n = in->len < (size_t)len ? in->len : (size_t)len;
    memcpy(to, in->data, n);
    *in = slice_sub(*in, n, in->len);
    return (int)n;
}

static int bio_write(BIO *bio, const char *from, int len)
{
    struct http_conn *c = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    return buf_append(&c->server->cipher, from, (size_t)len) == 0 ? len : -1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static void bio_method_init(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pintle connection");
    if (!bio_method) log_fatal("out of memory: TLS");
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

int tls_open(struct http_conn *c, SSL_CTX *ctx)
{
    struct tls_conn *t = mem_calloc(1, sizeof(*t));
    if (!t) return ERR_NOMEM;
    BIO *bio = BIO_new(bio_method);
    t->ssl = SSL_new(ctx);
    if (!t->ssl || !bio) {
        BIO_free(bio);
        SSL_free(t->ssl);
        mem_free(t);
        return ERR_NOMEM;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_accept_state(t->ssl);
    c->tls = t;
    return 0;
}

void tls_free(struct http_conn *c)
{
    if (!c->tls) return;
    SSL_free(c->tls->ssl);
    buf_release(&c->tls->rest);
    mem_free(c->tls);
    c->tls = NULL;
}

/* ---- out -------------------------------------------------------------------------------------------- */

bool tls_pending(const struct http_conn *c)
{
    return c->tls && c->tls->rest.len > 0;
}

bool tls_flush(struct http_conn *c)
{
    struct buf *rest = &c->tls->rest;
    if (rest->len == 0) return true;
    ssize_t n = conn_send(c, rest->data, rest->len);
    if (n <= 0) return false;
    buf_consume(rest, (size_t)n);
    if (rest->len > 0) return false;
    buf_release(rest);
    return true;
}

/* Sends what OpenSSL has put into the server's buffer. */
static void push_cipher(struct http_conn *c)
{
    struct buf *out = &c->server->cipher, *rest = &c->tls->rest;
    size_t done = 0;
    if (out->failed) conn_kill(c, ERR_NOMEM);
    if (out->len > 0 && rest->len == 0 && !c->dead) {
        ssize_t n = conn_send(c, out->data, out->len);
        done = n > 0 ? (size_t)n : 0;
    }
    if (!c->dead && done < out->len) {
        if (buf_append(rest, out->data + done, out->len - done) != 0 || rest->len > REST_MOST)
            conn_kill(c, ERR_LIMIT);
    }
    if (out->size > CIPHER_KEEP)
        buf_release(out);
    else
        buf_clear(out);
}

bool tls_write_gather(struct http_conn *c)
{
    struct gather *g = &c->server->gather;
    ERR_clear_error();
    for (unsigned i = 0; i < g->n && !c->dead; i++) {
        size_t written;
        if (SSL_write_ex(c->tls->ssl, g->iov[i].iov_base, g->iov[i].iov_len, &written) == 1) continue;
        c->tls->failed = true;
        conn_kill(c, ERR_CLOSED);
    }
    gather_reset(g);
    push_cipher(c);
    return !c->dead && c->tls->rest.len == 0;
}

void tls_shutdown(struct http_conn *c)
{
    struct tls_conn *t = c->tls;
    if (!t || !t->handshaken || t->failed || t->said_goodbye) return;
    t->said_goodbye = true;
    ERR_clear_error();
    SSL_shutdown(t->ssl);
    push_cipher(c);
}

/* ---- in --------------------------------------------------------------------------------------------- */

/* The text of one part of a name, or an empty slice if it has none or one that could be misread. */
static struct slice name_part(X509_NAME *name, int index, unsigned char **ret_utf8)
{
    ASN1_STRING *s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, index));
    int n = ASN1_STRING_to_UTF8(ret_utf8, s);
    if (n <= 0) {
        if (n == 0) OPENSSL_free(*ret_utf8);
        return (struct slice){0};
    }
    if (memchr(*ret_utf8, 0, (size_t)n)) {
        OPENSSL_free(*ret_utf8);
        return (struct slice){0};
    }
    return slice_make(*ret_utf8, (size_t)n);
}

enum { NAME_PARTS = 64 };

/* Keeps subject CN and O in one block: the array of organizations, then all bytes. */
static int keep_subject(struct http_conn *c, X509_NAME *name)
{
    struct slice parts[NAME_PARTS] = {0};
    unsigned char *utf8[NAME_PARTS];
    size_t n = 0, bytes = 0;
    bool has_name = false;
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1), rc = 0;
    if (at >= 0) {
        parts[n] = name_part(name, at, &utf8[n]);
        has_name = parts[n].len > 0;
        n += has_name;
    }
    for (at = -1; n < NAME_PARTS && (at = X509_NAME_get_index_by_NID(name, NID_organizationName, at)) >= 0;) {
        parts[n] = name_part(name, at, &utf8[n]);
        n += parts[n].len > 0;
    }
    for (size_t i = 0; i < n; i++) bytes += parts[i].len;
    struct slice *block = mem_alloc(n * sizeof(*block) + bytes);
    if (block) {
        uint8_t *to = (uint8_t *)(block + n);
        for (size_t i = 0; i < n; i++) {
            memcpy(to, parts[i].data, parts[i].len);
            struct slice kept = {to, parts[i].len};
            if (i == 0 && has_name)
                c->cert_common_name = kept;
            else
                block[c->n_cert_organizations++] = kept;
            to += parts[i].len;
        }
        c->cert_organizations = block;
        c->has_cert = true;
    } else {
        rc = ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) OPENSSL_free(utf8[i]);
    return rc;
}

static int keep_client_cert(struct http_conn *c)
{
    SSL *ssl = c->tls->ssl;
    if (!(SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER) || SSL_get_verify_result(ssl) != X509_V_OK) return 0;
    X509 *cert = SSL_get1_peer_certificate(ssl);
    if (!cert) return 0;
    int rc = keep_subject(c, X509_get_subject_name(cert));
    X509_free(cert);
    return rc;
}

static void handshake_done(struct http_conn *c)
{
    const unsigned char *protocol;
    unsigned len;
    c->tls->handshaken = true;
    SSL_get0_alpn_selected(c->tls->ssl, &protocol, &len);
    c->proto = len == 2 ? PROTO_H2 : len == 8 ? PROTO_H1 : PROTO_DETECT;
    int rc = keep_client_cert(c);
    if (rc == 0 && c->proto == PROTO_H2) rc = h2_open(c);
    if (rc == 0 && c->proto == PROTO_H1) rc = h1_open(c);
    if (rc != 0) conn_kill(c, rc);
}

static void handshake_failed(struct http_conn *c)
{
    static const char plain[] = "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n"
                                "Client sent an HTTP request to an HTTPS server.\n";
    struct tls_conn *t = c->tls;
    unsigned long code = ERR_peek_last_error();
    t->failed = true;
    if (ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST) {
        buf_clear(&c->server->cipher);
        buf_append_str(&c->server->cipher, plain);
    }
    char text[128];
    snprintf(text, sizeof(text), "TLS handshake: %s", ssl_reason());
    server_log(c, text);
    push_cipher(c); /* the alert */
    c->close_when_flushed = true;
}

static void tls_read(struct http_conn *c)
{
    struct tls_conn *t = c->tls;
    uint8_t *plain = c->server->plain;
    while (!c->dead) {
        ERR_clear_error();
        int n = SSL_read(t->ssl, plain, sizeof(c->server->plain));
        if (n > 0) {
            conn_input(c, slice_make(plain, (size_t)n));
            continue;
        }
        int why = SSL_get_error(t->ssl, n);
        if (why == SSL_ERROR_ZERO_RETURN) {
            conn_eof(c);
        } else if (why != SSL_ERROR_WANT_READ) {
            t->failed = true;
            server_log(c, ssl_reason());
            push_cipher(c);
            conn_kill(c, ERR_CLOSED);
        }
        break;
    }
    push_cipher(c); /* answers of TLS itself */
}

void tls_input(struct http_conn *c, struct slice data)
{
    struct tls_conn *t = c->tls;
    if (t->failed || c->proto == PROTO_LINGER) return;
    t->in = data;
    if (!t->handshaken) {
        ERR_clear_error();
        int rc = SSL_do_handshake(t->ssl);
        if (rc == 1)
            handshake_done(c);
        else if (SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ)
            handshake_failed(c);
        if (!t->failed) push_cipher(c);
    }
    if (t->handshaken && !c->dead) tls_read(c);
    t->in = (struct slice){0};
}
