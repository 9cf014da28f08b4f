#include "common/io/tls.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/filestamp.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALPN_MAX      64 /* bytes of our list of protocols */
#define ALPN_NAME_MAX 32
#define FAULT_SIZE    128
#define CERTS_MAX     (32u << 10) /* bytes that a client's chain may have */

/* Of TLS 1.2; those of 1.3 are all of this kind. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"

const char *const tls_outcome_names[TLS_OUTCOMES + 1] = {"ok", "failed",
							 "unfinished", NULL};

enum { CERT, KEY, CA, FILES };

struct tls_context {
	SSL_CTX *ssl;
	BIO_METHOD *wire;
	bool client;
	char *file[FILES]; /* NULL for none */
	struct file_stamp stamp[FILES];
	uint8_t alpn[ALPN_MAX]; /* each with its length in front */
	unsigned alpn_len;
	uint64_t expires_s;
};

struct tls {
	SSL *ssl;
	const uint8_t *in; /* borrowed from who feeds */
	size_t in_len;
	struct buf out;
	bool established, failed;
	char alpn[ALPN_NAME_MAX];
	char fault[FAULT_SIZE];
};

/* --- a context --------------------------------------------------------- */

static const char *last_fault(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason != NULL ? reason : "can't be used";
}

static int config_fault(char fault[TLS_FAULT], const char *file,
			const char *what)
{
	snprintf(fault, TLS_FAULT, "%s: %s", file, what);
	ERR_clear_error();
	return ERR_CONFIG;
}

/* A key that wants a password would have OpenSSL ask for it on a terminal. */
static int no_password(char *buf UNUSED, int size UNUSED, int writing UNUSED,
		       void *ctx UNUSED)
{
	return 0;
}

static int choose_alpn(SSL *ssl UNUSED, const unsigned char **out,
		       unsigned char *out_len, const unsigned char *theirs,
		       unsigned theirs_len, void *ctx)
{
	const struct tls_context *c = ctx;
	unsigned char *chosen;

	/* Ours come first: the order of preference is ours. */
	if (SSL_select_next_proto(&chosen, out_len, c->alpn, c->alpn_len,
				  theirs, theirs_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static void set_protocol(struct tls_context *c, SSL_CTX *ssl)
{
	static const unsigned char session_context[] = "stentor";

	check(SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) == 1);
	check(SSL_CTX_set_cipher_list(ssl, CIPHERS) == 1);
	SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION |
					 SSL_OP_NO_RENEGOTIATION |
					 SSL_OP_CIPHER_SERVER_PREFERENCE |
					 SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
	check(SSL_CTX_set_session_id_context(ssl, session_context,
					     sizeof(session_context) - 1) == 1);
	SSL_CTX_set_max_cert_list(ssl, CERTS_MAX);
	SSL_CTX_set_default_passwd_cb(ssl, no_password);
	if (c->alpn_len > 0)
		SSL_CTX_set_alpn_select_cb(ssl, choose_alpn, c);
}

static int use_client_ca(SSL_CTX *ssl, const char *file, char fault[TLS_FAULT])
{
	STACK_OF(X509_NAME) * names;

	if (SSL_CTX_load_verify_file(ssl, file) != 1)
		return config_fault(fault, file, last_fault());
	names = SSL_load_client_CA_file(file);
	if (names == NULL)
		return config_fault(fault, file, last_fault());
	SSL_CTX_set_client_CA_list(ssl, names);
	SSL_CTX_set_verify(
		ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
	check(SSL_CTX_set_num_tickets(ssl, 0) == 1);
	return 0;
}

/* Whom we believe that it is the server that is meant. */
static int use_server_ca(SSL_CTX *ssl, const char *file, char fault[TLS_FAULT])
{
	SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	if (file == NULL)
		check(SSL_CTX_set_default_verify_paths(ssl) == 1);
	else if (SSL_CTX_load_verify_file(ssl, file) != 1)
		return config_fault(fault, file, last_fault());
	return 0;
}

static int use_files(const struct tls_context *c, SSL_CTX *ssl,
		     char fault[TLS_FAULT])
{
	ERR_clear_error();
	if (c->client && use_server_ca(ssl, c->file[CA], fault) != 0)
		return ERR_CONFIG;
	if (c->file[CERT] == NULL)
		return 0;
	if (SSL_CTX_use_certificate_chain_file(ssl, c->file[CERT]) != 1)
		return config_fault(fault, c->file[CERT], last_fault());
	if (SSL_CTX_use_PrivateKey_file(ssl, c->file[KEY], SSL_FILETYPE_PEM) !=
	    1)
		return config_fault(fault, c->file[KEY], last_fault());
	if (!c->client && c->file[CA] != NULL)
		return use_client_ca(ssl, c->file[CA], fault);
	return 0;
}

static uint64_t end_of(const SSL_CTX *ssl)
{
	const X509 *own = SSL_CTX_get0_certificate(ssl);
	struct tm tm;
	time_t seconds = 0;

	if (own != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(own), &tm) == 1)
		seconds = timegm(&tm);
	return seconds > 0 ? (uint64_t)seconds : 0;
}

/* Exchanges what is in force for what the files hold, if that is good. */
static int load(struct tls_context *c, char fault[TLS_FAULT])
{
	SSL_CTX *ssl = SSL_CTX_new(c->client ? TLS_client_method()
					     : TLS_server_method());
	int rc;

	check(ssl != NULL);
	set_protocol(c, ssl);
	rc = use_files(c, ssl, fault);
	if (rc != 0) {
		SSL_CTX_free(ssl);
		return rc;
	}
	SSL_CTX_free(c->ssl); /* connections hold what they began with */
	c->ssl = ssl;
	c->expires_s = end_of(ssl);
	return 0;
}

/* Seen before they are read, so that a change meanwhile is seen next time. */
static void look(const struct tls_context *c, struct file_stamp stamp[FILES])
{
	for (int i = 0; i < FILES; i++)
		stamp[i] = c->file[i] != NULL ? file_stamp(c->file[i])
					      : (struct file_stamp){0};
}

static bool all_equal(const struct file_stamp a[FILES],
		      const struct file_stamp b[FILES])
{
	for (int i = 0; i < FILES; i++) {
		if (!file_stamp_equal(&a[i], &b[i]))
			return false;
	}
	return true;
}

/* --- the wire: a BIO between OpenSSL and our bytes --------------------- */

static int wire_read(BIO *bio, char *bytes, int len)
{
	struct tls *t = BIO_get_data(bio);
	size_t n = min_of((size_t)len, t->in_len);

	BIO_clear_retry_flags(bio);
	if (n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(bytes, t->in, n);
	t->in += n;
	t->in_len -= n;
	return (int)n;
}

static int wire_write(BIO *bio, const char *bytes, int len)
{
	struct tls *t = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	return buf_append(&t->out, bytes, (size_t)len) == 0 ? len : -1;
}

static long wire_ctrl(BIO *bio UNUSED, int command, long n UNUSED,
		      void *p UNUSED)
{
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *wire_new(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "stentor");

	check(m != NULL);
	check(BIO_meth_set_read(m, wire_read) == 1);
	check(BIO_meth_set_write(m, wire_write) == 1);
	check(BIO_meth_set_ctrl(m, wire_ctrl) == 1);
	return m;
}

/* --- life of a context ------------------------------------------------- */

static int set_alpn(struct tls_context *c, const char *const *names)
{
	for (; names != NULL && *names != NULL; names++) {
		size_t len = strlen(*names);

		if (len == 0 || len >= ALPN_NAME_MAX ||
		    c->alpn_len + 1 + len > ALPN_MAX)
			return ERR_CONFIG;
		c->alpn[c->alpn_len++] = (uint8_t)len;
		memcpy(c->alpn + c->alpn_len, *names, len);
		c->alpn_len += (unsigned)len;
	}
	return 0;
}

static void set_file(struct tls_context *c, int which, const char *file)
{
	if (file != NULL)
		c->file[which] = xstrdup(file);
}

static int context_open(struct tls_context *c, struct tls_context **out,
			char fault[TLS_FAULT])
{
	int rc;

	c->wire = wire_new();
	look(c, c->stamp);
	rc = load(c, fault);
	if (rc != 0) {
		tls_context_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

int tls_context_new(const struct tls_files *files, struct tls_context **out,
		    char fault[TLS_FAULT])
{
	struct tls_context *c = xcalloc(1, sizeof(*c));

	check(set_alpn(c, files->alpn) == 0);
	set_file(c, CERT, files->cert);
	set_file(c, KEY, files->key);
	set_file(c, CA, files->client_ca);
	return context_open(c, out, fault);
}

int tls_client_context_new(const struct tls_client_files *files,
			   struct tls_context **out, char fault[TLS_FAULT])
{
	struct tls_context *c;

	if ((files->cert == NULL) != (files->key == NULL)) {
		snprintf(fault, TLS_FAULT,
			 "needs both a certificate and its key");
		return ERR_CONFIG;
	}
	c = xcalloc(1, sizeof(*c));
	c->client = true;
	set_file(c, CERT, files->cert);
	set_file(c, KEY, files->key);
	set_file(c, CA, files->ca);
	return context_open(c, out, fault);
}

void tls_context_free(struct tls_context *c)
{
	if (c == NULL)
		return;
	SSL_CTX_free(c->ssl);
	BIO_meth_free(c->wire);
	for (int i = 0; i < FILES; i++)
		free(c->file[i]);
	free(c);
}

int tls_files_check(const struct tls_files *files, char fault[TLS_FAULT])
{
	struct tls_context *c;
	int rc;

	if (files->cert == NULL && files->key == NULL &&
	    files->client_ca == NULL)
		return 0;
	if (files->cert == NULL || files->key == NULL) {
		snprintf(fault, TLS_FAULT,
			 "needs both a certificate and its key");
		return ERR_CONFIG;
	}
	rc = tls_context_new(files, &c, fault);
	if (rc == 0)
		tls_context_free(c);
	return rc;
}

bool tls_context_refresh(struct tls_context *c)
{
	struct file_stamp now[FILES];
	char fault[TLS_FAULT];

	look(c, now);
	if (all_equal(now, c->stamp))
		return false;
	memcpy(c->stamp, now, sizeof(now));
	if (load(c, fault) != 0) {
		log_warn("TLS-UNREADABLE",
			 "fault=\"%s\" what=\"the old certificate stays\"",
			 fault);
		return false;
	}
	log_info("TLS-RELOADED", "cert=%s expires=%llu",
		 c->file[CERT] != NULL ? c->file[CERT] : "",
		 (unsigned long long)c->expires_s);
	return true;
}

uint64_t tls_context_expires(const struct tls_context *c)
{
	return c->expires_s;
}

/* --- a connection ------------------------------------------------------ */

static struct tls *connection_new(struct tls_context *c, size_t write_max)
{
	struct tls *t = xcalloc(1, sizeof(*t));
	BIO *wire = BIO_new(c->wire);

	buf_init(&t->out, write_max + TLS_OVERHEAD_MAX);
	t->ssl = SSL_new(c->ssl);
	check(t->ssl != NULL && wire != NULL);
	BIO_set_data(wire, t);
	BIO_set_init(wire, 1);
	SSL_set_bio(t->ssl, wire, wire);
	return t;
}

struct tls *tls_new(struct tls_context *c, size_t write_max)
{
	struct tls *t = connection_new(c, write_max);

	check(!c->client);
	SSL_set_accept_state(t->ssl);
	return t;
}

struct tls *tls_connect(struct tls_context *c, const char *host,
			size_t write_max)
{
	struct tls *t = connection_new(c, write_max);
	X509_VERIFY_PARAM *expected = SSL_get0_param(t->ssl);

	check(c->client);
	SSL_set_connect_state(t->ssl);
	X509_VERIFY_PARAM_set_hostflags(expected,
					X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	ERR_clear_error();
	if (X509_VERIFY_PARAM_set1_ip_asc(expected, host) != 1)
		/* A name that can't be one is in no certificate. */
		t->failed = SSL_set1_host(t->ssl, host) != 1 ||
			    SSL_set_tlsext_host_name(t->ssl, host) != 1;
	if (t->failed)
		snprintf(t->fault, sizeof(t->fault), "no name of a host");
	ERR_clear_error();
	if (!t->failed && SSL_do_handshake(t->ssl) != 1)
		ERR_clear_error(); /* it waits for the answer */
	return t;
}

void tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	SSL_free(t->ssl);
	buf_fini(&t->out);
	free(t);
}

static void explain(struct tls *t)
{
	long verified = SSL_get_verify_result(t->ssl);
	const char *reason = ERR_reason_error_string(ERR_peek_error());

	if (verified != X509_V_OK)
		snprintf(t->fault, sizeof(t->fault), "certificate: %s",
			 X509_verify_cert_error_string(verified));
	else
		snprintf(t->fault, sizeof(t->fault), "%s",
			 reason != NULL ? reason : "faulty");
}

/* What a call of OpenSSL has come to, where it did not succeed. */
static int outcome(struct tls *t, int rv)
{
	switch (SSL_get_error(t->ssl, rv)) {
	case SSL_ERROR_WANT_READ:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		return ERR_CLOSED;
	default:
		explain(t);
		ERR_clear_error();
		t->failed = true;
		t->in_len = 0;
		return ERR_MALFORMED;
	}
}

static void establish(struct tls *t)
{
	const unsigned char *name;
	unsigned len;

	t->established = true;
	SSL_get0_alpn_selected(t->ssl, &name, &len);
	check(len < sizeof(t->alpn)); /* it is one of ours */
	if (len > 0)
		memcpy(t->alpn, name, len);
}

int tls_feed(struct tls *t, const void *bytes, size_t len)
{
	int rv;

	check(t->in_len == 0);
	if (t->failed)
		return ERR_MALFORMED;
	t->in = bytes;
	t->in_len = len;
	if (t->established)
		return 0;
	ERR_clear_error();
	rv = SSL_do_handshake(t->ssl);
	if (rv != 1)
		return outcome(t, rv) == 0 ? 0 : ERR_MALFORMED;
	establish(t);
	return 0;
}

int tls_read(struct tls *t, void *bytes, size_t len)
{
	int n;

	if (t->failed)
		return ERR_MALFORMED;
	if (!t->established)
		return 0;
	ERR_clear_error();
	n = SSL_read(t->ssl, bytes, (int)min_of(len, (size_t)INT32_MAX));
	if (n > 0)
		return n;
	n = outcome(t, n);
	/* After the goodbye nothing is read any more. */
	if (n == ERR_CLOSED)
		t->in_len = 0;
	return n;
}

int tls_write(struct tls *t, const void *bytes, size_t len)
{
	size_t written;

	if (!t->established)
		return ERR_AGAIN;
	if (t->failed)
		return ERR_FULL;
	if (len == 0)
		return 0;
	ERR_clear_error();
	if (SSL_write_ex(t->ssl, bytes, len, &written) != 1) {
		ERR_clear_error();
		t->failed = true;
		return ERR_FULL;
	}
	check(written == len); /* the wire takes all or fails */
	return 0;
}

void tls_close_notify(struct tls *t)
{
	if (!t->established || t->failed ||
	    (SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN) != 0)
		return;
	ERR_clear_error();
	if (SSL_shutdown(t->ssl) < 0)
		ERR_clear_error();
}

size_t tls_pending(struct tls *t, const uint8_t **bytes)
{
	*bytes = t->out.bytes;
	return t->out.len;
}

void tls_sent(struct tls *t, size_t len)
{
	buf_consume(&t->out, len);
	if (t->out.len == 0)
		buf_clear(&t->out, 0);
}

const char *tls_fault(const struct tls *t)
{
	return t->fault;
}

bool tls_established(const struct tls *t)
{
	return t->established;
}

const char *tls_alpn(const struct tls *t)
{
	return t->alpn;
}
