/* TLS with peers that break it, or take nothing, and what one costs at rest. */
#include "tests/unit/tls_fixture.h"

#include <malloc.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tls_plain_http_is_a_fault),
		TEST(test_tls_garbage_ends_or_waits),
		TEST(test_tls_damaged_hello),
		TEST(test_tls_damaged_record),
		TEST(test_tls_renegotiation_is_refused),
		TEST(test_tls_answers_are_bounded),
		TEST(test_tls_writes_without_a_reader_are_bounded),
		TEST(test_tls_memory_at_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
