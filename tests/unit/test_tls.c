#include "common/io/tls.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <malloc.h>
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

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
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

static void offer_alpn(struct world *w, const char *wire)
{
	assert_int_equal(SSL_set_alpn_protos(w->client,
					     (const unsigned char *)wire,
					     (unsigned)strlen(wire)),
			 0);
}

static void connected(struct world *w, int version_max)
{
	dial(w, version_max);
	assert_int_equal(shake_hands(w, 20000), 0);
}

static void peer_name(const struct world *w, char name[64])
{
	X509 *x = SSL_get1_peer_certificate(w->client);

	X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName,
				  name, 64);
	X509_free(x);
}

/* --- tests ------------------------------------------------------------- */

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

static void test_tls_carries_bytes_both_ways(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct world *w = *state;

	serve(w, false);
	for (size_t i = 0; i < array_len(versions); i++) {
		connected(w, versions[i]);
		assert_int_equal(SSL_version(w->client), versions[i]);
		assert_int_equal(SSL_get_verify_result(w->client), X509_V_OK);
		exchange(w, 1);
		exchange(w, 16384);
		exchange(w, WRITE_MAX);
		disconnect(w);
	}
}

static void test_tls_handshake_byte_by_byte(void **state)
{
	struct world *w = *state;

	serve(w, false);
	dial(w, TLS1_3_VERSION);
	assert_int_equal(tls_write(w->server, "x", 1), ERR_AGAIN);
	assert_int_equal(shake_hands(w, 1), 0);
	exchange(w, 100);
}

static void test_tls_agrees_on_a_protocol(void **state)
{
	static const struct {
		const char *offer, *agreed;
	} cases[] = {
		{"\x08http/1.1\x02h2", "h2"}, /* the order is ours */
		{"\x08http/1.1", "http/1.1"},
		{"\x06spdy/1\x08http/1.1", "http/1.1"},
	};
	struct world *w = *state;

	serve(w, false);
	for (size_t i = 0; i < array_len(cases); i++) {
		dial(w, TLS1_3_VERSION);
		offer_alpn(w, cases[i].offer);
		assert_int_equal(shake_hands(w, 20000), 0);
		assert_string_equal(tls_alpn(w->server), cases[i].agreed);
		disconnect(w);
	}
	connected(w, TLS1_3_VERSION);
	assert_string_equal(tls_alpn(w->server), "");
	disconnect(w);
	dial(w, TLS1_3_VERSION);
	offer_alpn(w, "\x06spdy/1");
	assert_true(shake_hands(w, 20000) != 0);
	assert_false(tls_established(w->server));
}

static void test_tls_old_versions_are_refused(void **state)
{
	struct world *w = *state;

	serve(w, false);
	dial(w, TLS1_1_VERSION);
	SSL_set_security_level(w->client, 0);
	SSL_set_cipher_list(w->client, "ALL:@SECLEVEL=0");
	assert_int_equal(shake_hands(w, 20000), ERR_MALFORMED);
	/* It is told so. */
	assert_true(SSL_do_handshake(w->client) != 1);
	assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()),
			 SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
}

static void test_tls_goodbye(void **state)
{
	struct world *w = *state;
	char byte;

	serve(w, false);
	connected(w, TLS1_3_VERSION);
	tls_close_notify(w->server);
	tls_close_notify(w->server);
	carry_to_client(w);
	assert_int_equal(SSL_read(w->client, &byte, 1), 0);
	assert_int_equal(SSL_get_error(w->client, 0), SSL_ERROR_ZERO_RETURN);
	SSL_shutdown(w->client);
	assert_int_equal(carry_to_server(w, 20000, NULL), ERR_CLOSED);
}

/* A certificate for the client: of the world's authority, or of its own. */
static void show_certificate(struct world *w, bool ours)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = certificate(key, "producer", 3600, ours ? w->ca_cert : NULL,
			      ours ? w->ca_key : key);

	assert_int_equal(SSL_use_certificate(w->client, x), 1);
	assert_int_equal(SSL_use_PrivateKey(w->client, key), 1);
	X509_free(x);
	EVP_PKEY_free(key);
}

static void test_tls_client_certificate_is_required(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct world *w = *state;

	serve(w, true);
	for (size_t i = 0; i < array_len(versions); i++) {
		dial(w, versions[i]);
		assert_int_equal(shake_hands(w, 20000), ERR_MALFORMED);
		assert_false(tls_established(w->server));
		disconnect(w);
		dial(w, versions[i]);
		show_certificate(w, false);
		assert_int_equal(shake_hands(w, 20000), ERR_MALFORMED);
		assert_false(tls_established(w->server));
		disconnect(w);
		dial(w, versions[i]);
		show_certificate(w, true);
		assert_int_equal(shake_hands(w, 20000), 0);
		exchange(w, 10);
		/* Each connection shows it anew: there is no ticket. */
		assert_false(
			SSL_SESSION_has_ticket(SSL_get_session(w->client)));
		disconnect(w);
	}
}

static void test_tls_refresh_takes_new_files(void **state)
{
	struct world *w = *state;
	uint64_t expires;
	char name[64];
	struct world old;

	serve(w, false);
	expires = tls_context_expires(w->context);
	assert_in_range(expires, (uint64_t)time(NULL) + 3000,
			(uint64_t)time(NULL) + 3700);
	assert_false(tls_context_refresh(w->context));
	connected(w, TLS1_3_VERSION);
	old = *w;
	issue(w, "two", 7000);
	assert_true(tls_context_refresh(w->context));
	assert_false(tls_context_refresh(w->context));
	assert_true(tls_context_expires(w->context) > expires + 3000);
	connected(w, TLS1_3_VERSION);
	peer_name(w, name);
	assert_string_equal(name, "two");
	disconnect(w);
	/* The connection that stood goes on. */
	peer_name(&old, name);
	assert_string_equal(name, "one");
	exchange(&old, 1000);
	disconnect(&old);
}

static void test_tls_refresh_keeps_what_works(void **state)
{
	struct world *w = *state;
	EVP_PKEY *stray = EVP_EC_gen("P-256");
	char name[64];

	serve(w, false);
	/* The key is exchanged first: it does not fit the certificate. */
	write_pem(w->key, NULL, stray);
	assert_false(tls_context_refresh(w->context));
	write_text(w->cert, "no certificate at all");
	assert_false(tls_context_refresh(w->context));
	unlink(w->cert);
	assert_false(tls_context_refresh(w->context));
	connected(w, TLS1_3_VERSION);
	peer_name(w, name);
	assert_string_equal(name, "one");
	disconnect(w);
	issue(w, "three", 3600);
	assert_true(tls_context_refresh(w->context));
	connected(w, TLS1_3_VERSION);
	peer_name(w, name);
	assert_string_equal(name, "three");
	EVP_PKEY_free(stray);
}

static void test_tls_files_that_do_not_do(void **state)
{
	struct world *w = *state;
	struct tls_files files = files_of(w, true), none = {NULL};
	EVP_PKEY *stray = EVP_EC_gen("P-256");
	char fault[TLS_FAULT], missing[PATH_SIZE];
	FILE *f;

	assert_int_equal(tls_files_check(&none, fault), 0);
	assert_int_equal(tls_files_check(&files, fault), 0);
	files.key = NULL;
	assert_int_equal(tls_files_check(&files, fault), ERR_CONFIG);
	none.client_ca = w->ca;
	assert_int_equal(tls_files_check(&none, fault), ERR_CONFIG);
	files = files_of(w, true);
	snprintf(missing, sizeof(missing), "%s/missing", w->directory);
	files.client_ca = missing;
	assert_int_equal(tls_files_check(&files, fault), ERR_CONFIG);
	assert_non_null(strstr(fault, missing));
	files = files_of(w, false);
	files.cert = missing;
	assert_int_equal(tls_files_check(&files, fault), ERR_CONFIG);
	assert_non_null(strstr(fault, missing));
	files = files_of(w, false);
	write_pem(w->key, NULL, stray);
	assert_int_equal(tls_files_check(&files, fault), ERR_CONFIG);
	assert_non_null(strstr(fault, w->key));
	/* A key with a password: nobody is asked for it. */
	f = fopen(w->key, "w");
	assert_non_null(f);
	PEM_write_PrivateKey(f, stray, EVP_aes_128_cbc(),
			     (const unsigned char *)"secret", 6, NULL, NULL);
	fclose(f);
	assert_int_equal(tls_files_check(&files, fault), ERR_CONFIG);
	EVP_PKEY_free(stray);
}

/* --- hostile peers ----------------------------------------------------- */

static int feed(struct world *w, const void *bytes, size_t len)
{
	char plain[64];
	int rc = tls_feed(w->server, bytes, len);

	if (rc != 0)
		return rc;
	do
		rc = tls_read(w->server, plain, sizeof(plain));
	while (rc > 0);
	return rc;
}

static void test_tls_plain_http_is_a_fault(void **state)
{
	static const char *const texts[] = {
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST /x HTTP/1.0\r\n\r\n",
		"SSH-2.0-OpenSSH_9.2\r\n",
	};
	struct world *w = *state;

	serve(w, false);
	for (size_t i = 0; i < array_len(texts); i++) {
		w->server = tls_new(w->context, WRITE_MAX);
		assert_int_equal(feed(w, texts[i], strlen(texts[i])),
				 ERR_MALFORMED);
		/* And stays one. */
		assert_int_equal(feed(w, "x", 1), ERR_MALFORMED);
		assert_false(tls_established(w->server));
		tls_free(w->server);
	}
	w->server = NULL;
}

static void test_tls_garbage_ends_or_waits(void **state)
{
	struct world *w = *state;
	uint8_t bytes[600];

	serve(w, false);
	srandom(1);
	for (int round = 0; round < 2000; round++) {
		size_t len = (size_t)random() % sizeof(bytes);
		int rc;

		for (size_t i = 0; i < len; i++)
			bytes[i] = (uint8_t)random();
		if (round % 2 == 0 && len > 6)
			memcpy(bytes, "\x16\x03\x01\x02\x00\x01", 6);
		w->server = tls_new(w->context, WRITE_MAX);
		rc = feed(w, bytes, len);
		assert_true(rc == 0 || rc == ERR_MALFORMED);
		assert_false(tls_established(w->server));
		tls_free(w->server);
	}
	w->server = NULL;
}

/* A good hello of which each bit in turn is wrong, or the end is missing. */
static void test_tls_damaged_hello(void **state)
{
	struct world *w = *state;
	uint8_t hello[2048];
	int len;

	serve(w, false);
	dial(w, TLS1_3_VERSION);
	assert_true(SSL_do_handshake(w->client) != 1);
	len = BIO_read(w->to_server, hello, sizeof(hello));
	assert_in_range(len, 100, sizeof(hello) - 1);
	tls_free(w->server);
	for (int i = 0; i < len; i++) {
		int rc;

		w->server = tls_new(w->context, WRITE_MAX);
		assert_int_equal(feed(w, hello, (size_t)i), 0);
		assert_false(tls_established(w->server));
		tls_free(w->server);
		w->server = tls_new(w->context, WRITE_MAX);
		hello[i] ^= (uint8_t)(1 << (i % 8));
		rc = feed(w, hello, (size_t)len);
		hello[i] ^= (uint8_t)(1 << (i % 8));
		assert_true(rc == 0 || rc == ERR_MALFORMED);
		assert_false(tls_established(w->server));
		tls_free(w->server);
	}
	w->server = NULL;
}

static void test_tls_damaged_record(void **state)
{
	struct world *w = *state;
	uint8_t wire[256];
	int len;

	serve(w, false);
	connected(w, TLS1_3_VERSION);
	assert_int_equal(SSL_write(w->client, "hello", 5), 5);
	len = BIO_read(w->to_server, wire, sizeof(wire));
	assert_true(len > 5);
	wire[len - 1] ^= 1;
	assert_int_equal(feed(w, wire, (size_t)len), ERR_MALFORMED);
	assert_int_equal(tls_write(w->server, "x", 1), ERR_FULL);
	tls_close_notify(w->server); /* says nothing more */
	/* The alert is there, then the connection ends. */
	carry_to_client(w);
	assert_true(SSL_read(w->client, wire, sizeof(wire)) <= 0);
	assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()),
			 SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
}

static void test_tls_renegotiation_is_refused(void **state)
{
	struct world *w = *state;
	char byte;

	serve(w, false);
	connected(w, TLS1_2_VERSION);
	assert_int_equal(SSL_renegotiate(w->client), 1);
	assert_true(SSL_do_handshake(w->client) != 1);
	assert_int_equal(carry_to_server(w, 20000, NULL), 0);
	carry_to_client(w);
	assert_true(SSL_read(w->client, &byte, 1) <= 0);
	assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()),
			 SSL_R_NO_RENEGOTIATION);
}

/* New keys for ever, each to be answered, by a peer that reads nothing. */
static void test_tls_answers_are_bounded(void **state)
{
	struct world *w = *state;
	const uint8_t *bytes;
	int rc = 0;

	serve(w, false);
	connected(w, TLS1_3_VERSION);
	for (int i = 0; i < 10000 && rc == 0; i++) {
		SSL_key_update(w->client, SSL_KEY_UPDATE_REQUESTED);
		if (SSL_do_handshake(w->client) != 1)
			break;
		rc = carry_to_server(w, 20000, NULL);
		if (rc == 0)
			rc = tls_write(w->server, "x", 1);
		assert_true(tls_pending(w->server, &bytes) <=
			    WRITE_MAX + TLS_OVERHEAD_MAX);
	}
	assert_int_equal(rc, ERR_FULL);
}

static void test_tls_writes_without_a_reader_are_bounded(void **state)
{
	static const uint8_t block[WRITE_MAX];
	struct world *w = *state;
	const uint8_t *bytes;

	serve(w, false);
	connected(w, TLS1_3_VERSION);
	assert_int_equal(tls_write(w->server, block, sizeof(block)), 0);
	assert_in_range(tls_pending(w->server, &bytes), WRITE_MAX,
			WRITE_MAX + 1024);
	assert_int_equal(tls_write(w->server, block, sizeof(block)), ERR_FULL);
	assert_true(tls_pending(w->server, &bytes) <=
		    WRITE_MAX + TLS_OVERHEAD_MAX);
}

/* What the header promises; mallinfo2() sees nothing under a sanitizer. */
static void test_tls_memory_at_rest(void **state)
{
	struct world *w = *state;
	size_t before, rest;

	serve(w, false);
	connected(w, TLS1_3_VERSION); /* what OpenSSL loads once */
	exchange(w, 1000);
	disconnect(w);
	dial(w, TLS1_3_VERSION);
	before = mallinfo2().uordblks;
	tls_free(w->server);
	w->server = NULL;
	rest = before - mallinfo2().uordblks;
	print_message("before a hello: %zu bytes\n", rest);
	disconnect(w);
	connected(w, TLS1_3_VERSION);
	exchange(w, 1000);
	before = mallinfo2().uordblks;
	tls_free(w->server);
	w->server = NULL;
	rest = before - mallinfo2().uordblks;
	print_message("at rest: %zu bytes\n", rest);
	assert_true(rest < 20u << 10);
}

/* --- connections that we make
 * ------------------------------------------ */

/* What one end has to say is heard by the other, which reads nothing
 * yet. */
static int carry(struct tls *from, struct tls *to)
{
	const uint8_t *bytes;
	size_t n = tls_pending(from, &bytes);
	uint8_t *copy = (uint8_t *)xmemdupz(bytes, n);
	char text[64];
	int rc = 0;

	tls_sent(from, n);
	if (n > 0)
		rc = tls_feed(to, copy, n);
	if (n > 0 && rc == 0)
		rc = tls_read(to, text, sizeof(text));
	free(copy);
	return rc;
}

/* 0, or the client's fault. */
static int meet(struct tls *client, struct tls *server)
{
	for (int turn = 0; turn < 10; turn++) {
		int rc;

		if (carry(client, server) < 0)
			return ERR_REFUSED;
		rc = carry(server, client);
		if (rc < 0)
			return rc;
		if (tls_established(client) && tls_established(server))
			return 0;
	}
	fail_msg("the handshake does not end");
	return 0;
}

/* Dials the world's server, whose certificate is for "one". */
static int call(struct world *w, struct tls_context *ours, const char *host,
		char fault[TLS_FAULT])
{
	struct tls *client = tls_connect(ours, host, WRITE_MAX);
	int rc;

	w->server = tls_new(w->context, WRITE_MAX);
	rc = meet(client, w->server);
	snprintf(fault, TLS_FAULT, "%s", tls_fault(client));
	tls_free(client);
	tls_free(w->server);
	w->server = NULL;
	return rc;
}

static void test_tls_client(void **state)
{
	struct world *w = *state;
	const struct tls_client_files files = {.ca = w->ca};
	const struct tls_client_files half = {.ca = w->ca, .cert = w->cert};
	struct tls_context *ours;
	char fault[TLS_FAULT];

	serve(w, false);
	assert_int_equal(tls_client_context_new(&half, &ours, fault),
			 ERR_CONFIG);
	assert_int_equal(tls_client_context_new(&files, &ours, fault), 0);
	assert_int_equal(call(w, ours, "one", fault), 0);
	assert_string_equal(fault, "");
	assert_int_equal(call(w, ours, "two", fault), ERR_MALFORMED);
	assert_non_null(strstr(fault, "ostname mismatch"));
	assert_int_equal(call(w, ours, "127.0.0.1", fault), ERR_MALFORMED);
	assert_non_null(strstr(fault, "IP address mismatch"));
	tls_context_free(ours);
}

/* Trust that changes while we run. */
static void test_tls_client_authority_changes(void **state)
{
	struct world *w = *state;
	char path[PATH_SIZE], fault[TLS_FAULT];
	const struct tls_client_files files = {.ca = path};
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *other = certificate(key, "other authority", 7200, NULL, key);
	struct tls_context *ours;

	serve(w, false);
	snprintf(path, sizeof(path), "%s/trust.pem", w->directory);
	write_pem(path, other, NULL);
	assert_int_equal(tls_client_context_new(&files, &ours, fault), 0);
	assert_int_equal(call(w, ours, "one", fault), ERR_MALFORMED);
	assert_non_null(strstr(fault, "certificate: "));
	assert_false(tls_context_refresh(ours));
	write_text(path, "nonsense");
	assert_false(tls_context_refresh(ours));
	write_pem(path, w->ca_cert, NULL);
	assert_true(tls_context_refresh(ours));
	assert_int_equal(call(w, ours, "one", fault), 0);
	tls_context_free(ours);
	X509_free(other);
	EVP_PKEY_free(key);
	unlink(path);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_tls_carries_bytes_both_ways),
		TEST(test_tls_handshake_byte_by_byte),
		TEST(test_tls_agrees_on_a_protocol),
		TEST(test_tls_old_versions_are_refused),
		TEST(test_tls_goodbye),
		TEST(test_tls_client_certificate_is_required),
		TEST(test_tls_refresh_takes_new_files),
		TEST(test_tls_refresh_keeps_what_works),
		TEST(test_tls_files_that_do_not_do),
		TEST(test_tls_plain_http_is_a_fault),
		TEST(test_tls_garbage_ends_or_waits),
		TEST(test_tls_damaged_hello),
		TEST(test_tls_damaged_record),
		TEST(test_tls_renegotiation_is_refused),
		TEST(test_tls_answers_are_bounded),
		TEST(test_tls_writes_without_a_reader_are_bounded),
		TEST(test_tls_memory_at_rest),
		TEST(test_tls_client),
		TEST(test_tls_client_authority_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
