/* tls_fixture.h - an authority with its files, and the two ends of a
 * connection: ours, and OpenSSL's as the client. */
#ifndef STENTOR_TESTS_TLS_FIXTURE_H
#define STENTOR_TESTS_TLS_FIXTURE_H

#include "common/io/tls.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIRECTORY "/tmp/stentor-tls-XXXXXX"
#define PATH_SIZE (sizeof(DIRECTORY) + 16)
#define WRITE_MAX (64u << 10)

/* A directory with what an authority made, and the ends of one connection. */
struct world {
	char directory[sizeof(DIRECTORY)];
	char cert[PATH_SIZE], key[PATH_SIZE], ca[PATH_SIZE];
	EVP_PKEY *ca_key;
	X509 *ca_cert;
	struct tls_context *context;
	struct tls *server;
	SSL_CTX *client_context;
	SSL *client;
	BIO *to_client, *to_server; /* as the client sees them: in, out */
};

/* --- certificates ------------------------------------------------------ */

static X509 *certificate(EVP_PKEY *key, const char *name, long seconds,
			 const X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *x = X509_new();
	X509_NAME *subject = X509_get_subject_name(x);
	X509_EXTENSION *basic = X509V3_EXT_conf_nid(
		NULL, NULL, NID_basic_constraints,
		issuer == NULL ? "critical,CA:TRUE" : "CA:FALSE");

	assert_int_equal(X509_set_version(x, X509_VERSION_3), 1);
	ASN1_INTEGER_set(X509_get_serialNumber(x), random());
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), seconds);
	X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	X509_set_issuer_name(x, issuer == NULL ? subject
					       : X509_get_subject_name(issuer));
	X509_set_pubkey(x, key);
	X509_add_ext(x, basic, -1);
	X509_EXTENSION_free(basic);
	assert_true(X509_sign(x, issuer_key, EVP_sha256()) > 0);
	return x;
}

/* Into a file beside, then renamed, as who rotates certificates does it. */
static void write_pem(const char *path, X509 *cert, EVP_PKEY *key)
{
	char fresh[PATH_SIZE + 4];
	FILE *f;

	snprintf(fresh, sizeof(fresh), "%s.new", path);
	f = fopen(fresh, "w");
	assert_non_null(f);
	if (cert != NULL)
		assert_int_equal(PEM_write_X509(f, cert), 1);
	if (key != NULL)
		assert_int_equal(
			PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL),
			1);
	fclose(f);
	assert_int_equal(rename(fresh, path), 0);
}

/* A certificate of the world's authority, into its files. */
static void issue(struct world *w, const char *name, long seconds)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = certificate(key, name, seconds, w->ca_cert, w->ca_key);

	write_pem(w->key, NULL, key);
	write_pem(w->cert, x, NULL);
	X509_free(x);
	EVP_PKEY_free(key);
}

static int setup(void **state)
{
	struct world *w = xcalloc(1, sizeof(*w));

	strcpy(w->directory, DIRECTORY);
	if (mkdtemp(w->directory) == NULL)
		return -1;
	snprintf(w->cert, PATH_SIZE, "%s/cert.pem", w->directory);
	snprintf(w->key, PATH_SIZE, "%s/key.pem", w->directory);
	snprintf(w->ca, PATH_SIZE, "%s/ca.pem", w->directory);
	w->ca_key = EVP_EC_gen("P-256");
	w->ca_cert =
		certificate(w->ca_key, "test authority", 7200, NULL, w->ca_key);
	write_pem(w->ca, w->ca_cert, NULL);
	issue(w, "one", 3600);
	log_init("test", LOG_ERROR, true);
	*state = w;
	return 0;
}

static void disconnect(struct world *w)
{
	tls_free(w->server);
	SSL_free(w->client);
	SSL_CTX_free(w->client_context);
	w->server = NULL;
	w->client = NULL;
	w->client_context = NULL;
}

static int teardown(void **state)
{
	struct world *w = *state;

	disconnect(w);
	tls_context_free(w->context);
	X509_free(w->ca_cert);
	EVP_PKEY_free(w->ca_key);
	unlink(w->cert);
	unlink(w->key);
	unlink(w->ca);
	rmdir(w->directory);
	ERR_clear_error();
	free(w);
	return 0;
}

/* --- two ends ---------------------------------------------------------- */

static const char *const alpn[] = {"h2", "http/1.1", NULL};

static struct tls_files files_of(const struct world *w, bool client_ca)
{
	return (struct tls_files){
		.cert = w->cert,
		.key = w->key,
		.client_ca = client_ca ? w->ca : NULL,
		.alpn = alpn,
	};
}

static void serve(struct world *w, bool client_ca)
{
	struct tls_files files = files_of(w, client_ca);
	char fault[TLS_FAULT];

	assert_int_equal(tls_context_new(&files, &w->context, fault), 0);
}

/* A client that has not said anything yet. */
static void dial(struct world *w, int version_max)
{
	w->server = tls_new(w->context, WRITE_MAX);
	w->client_context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_max_proto_version(w->client_context, version_max);
	SSL_CTX_load_verify_file(w->client_context, w->ca);
	SSL_CTX_set_verify(w->client_context, SSL_VERIFY_PEER, NULL);
	w->client = SSL_new(w->client_context);
	w->to_client = BIO_new(BIO_s_mem());
	w->to_server = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(w->to_client, -1);
	BIO_set_mem_eof_return(w->to_server, -1);
	SSL_set_bio(w->client, w->to_client, w->to_server);
	SSL_set_connect_state(w->client);
}

/* Moves what the server has to say. */
static void carry_to_client(struct world *w)
{
	const uint8_t *bytes;
	size_t n = tls_pending(w->server, &bytes);

	if (n == 0)
		return;
	assert_int_equal(BIO_write(w->to_client, bytes, (int)n), (int)n);
	tls_sent(w->server, n);
}

/* Hands the client's bytes over, `step` at a time; stops at a fault. Whatever
 * is decrypted is appended to `plain`, which may be NULL. */
static int carry_to_server(struct world *w, size_t step, struct buf *plain)
{
	char wire[20000], text[20000];
	int n, rc = 0;

	while (rc == 0 && (n = BIO_read(w->to_server, wire, (int)step)) > 0) {
		rc = tls_feed(w->server, wire, (size_t)n);
		if (rc != 0)
			break;
		while ((rc = tls_read(w->server, text, sizeof(text))) > 0) {
			if (plain != NULL)
				assert_int_equal(
					buf_append(plain, text, (size_t)rc), 0);
		}
	}
	return rc;
}

/* Until both are done or one fails; the server's fault, or the client's as
 * ERR_REFUSED. */
static int shake_hands(struct world *w, size_t step)
{
	for (int turn = 0; turn < 20; turn++) {
		int rv = SSL_do_handshake(w->client);
		int rc;

		if (rv != 1 &&
		    SSL_get_error(w->client, rv) != SSL_ERROR_WANT_READ)
			return ERR_REFUSED;
		rc = carry_to_server(w, step, NULL);
		carry_to_client(w);
		if (rc != 0)
			return rc;
		if (rv == 1 && tls_established(w->server))
			return 0;
	}
	fail_msg("the handshake does not end");
	return 0;
}

static void connected(struct world *w, int version_max)
{
	dial(w, version_max);
	assert_int_equal(shake_hands(w, 20000), 0);
}

static void exchange(struct world *w, size_t len)
{
	uint8_t *sent = xmalloc(len), *got = xmalloc(len);
	struct buf plain;
	size_t have = 0;

	buf_init(&plain, len);
	for (size_t i = 0; i < len; i++)
		sent[i] = (uint8_t)random();
	assert_int_equal(SSL_write(w->client, sent, (int)len), (int)len);
	assert_int_equal(carry_to_server(w, 777, &plain), 0);
	assert_int_equal(plain.len, len);
	assert_memory_equal(plain.bytes, sent, len);
	assert_int_equal(tls_write(w->server, sent, len), 0);
	carry_to_client(w);
	while (have < len) {
		int n = SSL_read(w->client, got + have, (int)(len - have));

		assert_true(n > 0);
		have += (size_t)n;
	}
	assert_memory_equal(got, sent, len);
	buf_fini(&plain);
	free(sent);
	free(got);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
