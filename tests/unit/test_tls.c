#include "tests/unit/tls_fixture.h"

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void offer_alpn(struct world *w, const char *wire)
{
	assert_int_equal(SSL_set_alpn_protos(w->client,
					     (const unsigned char *)wire,
					     (unsigned)strlen(wire)),
			 0);
}

static void peer_name(const struct world *w, char name[64])
{
	X509 *x = SSL_get1_peer_certificate(w->client);

	X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName,
				  name, 64);
	X509_free(x);
}

/* --- tests ------------------------------------------------------------- */

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
		TEST(test_tls_client),
		TEST(test_tls_client_authority_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
