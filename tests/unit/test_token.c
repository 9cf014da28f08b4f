#include "tests/unit/token_verdict.h"

#include "common/codec/base64.h"

/* The token of these claims under the secret "a". */
static enum token_fault claim(struct fixture *f, const char *claims)
{
	if (token_keys_count(f->keys) == 0)
		assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET),
				 0);
	token_make(f->token, claims);
	return verdict(f);
}

/* --- good ones --------------------------------------------------------- */

static void test_token_claims(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(
		claim(f, "{\"exp\":1700000100,\"nbf\":1699999000,"
			 "\"iat\":1699999001,\"sub\":\"user 42\","
			 "\"jti\":\"x-1\",\"iss\":\"who\",\"aud\":\"me\","
			 "\"admin\":true,\"subscribe\":[\"score:*\","
			 "\"user:42\"],\"publish\":[\"*\"],\"more\":[{}]}"),
		TOKEN_OK);
	assert_string_equal(f->claims->sub, "user 42");
	assert_string_equal(f->claims->jti, "x-1");
	assert_int_equal(f->claims->exp_s, 1700000130);
	assert_int_equal(f->claims->iat_s, 1699999001);
	assert_true(f->claims->admin);
	assert_int_equal(f->claims->subscribe_count, 2);
	assert_string_equal(f->claims->subscribe[1], "user:42");
	assert_true(token_may_subscribe(f->claims, "score:"));
	assert_true(token_may_subscribe(f->claims, "score:7"));
	assert_true(token_may_subscribe(f->claims, "user:42"));
	assert_false(token_may_subscribe(f->claims, "user:421"));
	assert_false(token_may_subscribe(f->claims, "user:4"));
	assert_false(token_may_subscribe(f->claims, "score"));
	assert_true(token_may_publish(f->claims, "anything"));

	assert_int_equal(claim(f, "{\"exp\":1700000100}"), TOKEN_OK);
	assert_string_equal(f->claims->sub, "");
	assert_string_equal(f->claims->jti, "");
	assert_int_equal(f->claims->iat_s, 0);
	assert_false(f->claims->admin);
	assert_false(token_may_subscribe(f->claims, "a"));
	assert_false(token_may_publish(f->claims, "a"));
	assert_int_equal(claim(f, "{\"exp\":1700000100,\"subscribe\":[],"
				  "\"admin\":false}"),
			 TOKEN_OK);
	assert_false(f->claims->admin);
	assert_false(token_may_subscribe(f->claims, "a"));
}

static void test_token_every_algorithm(void **state)
{
	static const char *const headers[] = {
		"{\"alg\":\"HS256\",\"kid\":\"HS256\",\"typ\":\"JWT\"}",
		"{\"alg\":\"RS256\",\"kid\":\"RS256\"}",
		"{\"alg\":\"PS256\",\"kid\":\"PS256\"}",
		"{\"kid\":\"ES256\",\"alg\":\"ES256\"}",
	};
	struct fixture *f = *state;
	EVP_PKEY *const keys[] = {NULL, f->rsa, f->rsa, f->ec};

	assert_int_equal(add(f, "HS256", TOKEN_HS256, TOKEN_TEST_SECRET), 0);
	for (enum token_alg alg = TOKEN_RS256; alg <= TOKEN_ES256; alg++)
		assert_int_equal(
			add_key(f, token_alg_names[alg], alg, keys[alg]), 0);
	assert_int_equal(token_keys_count(f->keys), 4);
	for (enum token_alg alg = TOKEN_HS256; alg <= TOKEN_ES256; alg++) {
		char *last;

		sign(f, alg, keys[alg], headers[alg]);
		assert_int_equal(verdict(f), TOKEN_OK);
		/* A bit of the signature, then of the claims. */
		last = strrchr(f->token, '.') + 1;
		*last = *last == 'A' ? 'B' : 'A';
		assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
		sign(f, alg, keys[alg], headers[alg]);
		last = strchr(f->token, '.') + 5;
		*last = *last == 'A' ? 'B' : 'A';
		assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
		/* Another key of the same kind. */
		for (enum token_alg k = TOKEN_HS256; k <= TOKEN_ES256; k++) {
			sign(f, k, keys[k], headers[alg]);
			assert_int_equal(verdict(f),
					 k == alg ? TOKEN_OK
						  : TOKEN_BAD_SIGNATURE);
		}
	}
}

static char *certificate(EVP_PKEY *key)
{
	X509 *cert = X509_new();
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text;
	long len;

	X509_gmtime_adj(X509_getm_notBefore(cert), -20);
	X509_gmtime_adj(X509_getm_notAfter(cert), -10); /* just a wrapping */
	assert_int_equal(X509_set_pubkey(cert, key), 1);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	assert_int_equal(PEM_write_bio_X509(bio, cert), 1);
	len = BIO_get_mem_data(bio, &bytes);
	text = strndup(bytes, (size_t)len);
	BIO_free(bio);
	X509_free(cert);
	return text;
}

static void test_token_key_in_a_certificate(void **state)
{
	struct fixture *f = *state;
	char *rsa = certificate(f->rsa), *ec = certificate(f->ec);

	assert_int_equal(add(f, "r", TOKEN_PS256, rsa), 0);
	assert_int_equal(add(f, "e", TOKEN_ES256, ec), 0);
	sign(f, TOKEN_PS256, f->rsa, "{\"alg\":\"PS256\",\"kid\":\"r\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	sign(f, TOKEN_ES256, f->ec, "{\"alg\":\"ES256\",\"kid\":\"e\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	free(rsa);
	free(ec);
}

/* A coordinate that begins with a zero byte is shorter than the others. */
static void test_token_short_coordinates(void **state)
{
	struct fixture *f = *state;
	size_t bits = 256;

	for (int i = 0; i < 5000 && bits > 248; i++) {
		BIGNUM *x = NULL;

		EVP_PKEY_free(f->ec);
		f->ec = EVP_EC_gen("P-256");
		EVP_PKEY_get_bn_param(f->ec, OSSL_PKEY_PARAM_EC_PUB_X, &x);
		bits = (size_t)BN_num_bits(x);
		BN_free(x);
	}
	assert_true(bits <= 248);
	assert_int_equal(add_key(f, "e", TOKEN_ES256, f->ec), 0);
	sign(f, TOKEN_ES256, f->ec, "{\"alg\":\"ES256\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
}

static void test_token_without_kid_fits_a_single_key(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET), 0);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\",\"kid\":\"b\"}");
	assert_int_equal(verdict(f), TOKEN_UNKNOWN_KEY);
	assert_int_equal(add_key(f, "b", TOKEN_ES256, f->ec), 0);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\"}");
	assert_int_equal(verdict(f), TOKEN_UNKNOWN_KEY);
}

/* --- forged ones ------------------------------------------------------- */

static void test_token_algorithm_is_the_keys(void **state)
{
	struct fixture *f = *state;
	char *pem = token_pem(f->rsa), *at;
	uint8_t mac[64];
	size_t n;

	assert_int_equal(add_key(f, "r", TOKEN_RS256, f->rsa), 0);
	/* The public key as a secret. */
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\",\"kid\":\"r\"}");
	at = strrchr(f->token, '.');
	n = token_hmac(pem, strlen(pem), f->token, (size_t)(at - f->token),
		       mac);
	token_b64url(at + 1, mac, n);
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	/* Good signatures of an algorithm that the key is not for. */
	sign(f, TOKEN_PS256, f->rsa, "{\"alg\":\"PS256\",\"kid\":\"r\"}");
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	sign(f, TOKEN_PS256, f->rsa, "{\"alg\":\"RS256\",\"kid\":\"r\"}");
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	/* None at all. */
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"none\"}");
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	strrchr(f->token, '.')[1] = '\0';
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	sign(f, TOKEN_RS256, f->rsa, "{\"alg\":\"RS256\"}");
	strrchr(f->token, '.')[1] = '\0';
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	sign(f, TOKEN_RS256, f->rsa, "{\"alg\":\"rs256\"}");
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	free(pem);
}

static void test_token_keys_in_the_header_count_for_nothing(void **state)
{
	struct fixture *f = *state;
	char jwk[2048], header[2200];

	assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET), 0);
	token_jwk(jwk, sizeof(jwk), f->ec, "a", ",\"alg\":\"ES256\"");
	snprintf(header, sizeof(header), "{\"alg\":\"ES256\",\"jwk\":%s}", jwk);
	sign(f, TOKEN_ES256, f->ec, header);
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	sign(f, TOKEN_HS256, NULL,
	     "{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"},"
	     "\"jku\":\"http://127.0.0.1:1/\",\"x5u\":\"http://127.0.0.1:1/\","
	     "\"x5c\":[]}");
	assert_int_equal(verdict(f), TOKEN_OK);
}

static void test_token_signature_has_its_length(void **state)
{
	static const char zeros[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
				    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
				    "AA"; /* 64 bytes */
	struct fixture *f = *state;
	char *signature;
	uint8_t bytes[96];
	size_t len;

	assert_int_equal(add_key(f, "e", TOKEN_ES256, f->ec), 0);
	sign(f, TOKEN_ES256, f->ec, "{\"alg\":\"ES256\"}");
	signature = strrchr(f->token, '.') + 1;
	assert_int_equal(strlen(signature), 86);
	/* r = s = 0, CVE-2022-21449. */
	strcpy(signature, zeros);
	assert_int_equal(strlen(signature), 86);
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	/* A byte more, which a library that halves the length would lose. */
	sign(f, TOKEN_ES256, f->ec, "{\"alg\":\"ES256\"}");
	assert_int_equal(base64_decode(signature, 86, bytes, &len), 0);
	assert_int_equal(len, 64);
	bytes[64] = 0;
	token_b64url(signature, bytes, 65);
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	token_b64url(signature, bytes, 64);
	assert_int_equal(verdict(f), TOKEN_OK);
	strcat(f->token, "AA"); /* 66 bytes, or 65 and a bit */
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	signature[44] = '\0'; /* 33 */
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
}

/* --- form -------------------------------------------------------------- */

static void test_token_headers(void **state)
{
	static const struct {
		const char *header;
		enum token_fault fault;
	} cases[] = {
		{"{\"alg\":\"HS256\",\"kid\":\"a\"}", TOKEN_OK},
		{" {\"alg\" : \"HS256\"}\n", TOKEN_OK},
		{"{\"alg\":\"HS256\",\"kid\":\"b\",\"kid\":\"a\"}",
		 TOKEN_MALFORMED},
		{"{\"alg\":\"none\",\"alg\":\"HS256\"}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"crit\":[]}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}",
		 TOKEN_MALFORMED},
		{"{\"kid\":\"a\"}", TOKEN_MALFORMED},
		{"{\"alg\":null}", TOKEN_MALFORMED},
		{"{\"alg\":[\"HS256\"]}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":1}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":null}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":\"a\\u0000\"}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\\u0000\"}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":\"\\ud800\"}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\"}{}", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\"} x", TOKEN_MALFORMED},
		{"[\"HS256\"]", TOKEN_MALFORMED},
		{"\"HS256\"", TOKEN_MALFORMED},
		{"{", TOKEN_MALFORMED},
		{"", TOKEN_MALFORMED},
		{"{\"alg\":\"HS256\",\"kid\":\"\"}", TOKEN_UNKNOWN_KEY},
		{"{\"alg\":\"HS512\"}", TOKEN_BAD_ALG},
		{"{\"alg\":\"\"}", TOKEN_BAD_ALG},
	};
	struct fixture *f = *state;

	assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET), 0);
	for (size_t i = 0; i < array_len(cases); i++) {
		sign(f, TOKEN_HS256, NULL, cases[i].header);
		if (verdict(f) != cases[i].fault)
			fail_msg("%s", cases[i].header);
	}
}

static void test_token_parts(void **state)
{
	static const char *const texts[] = {
		"", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "e30.e30",
	};
	struct fixture *f = *state;
	char good[1024];
	size_t len;

	assert_int_equal(claim(f, "{\"exp\":1700000100}"), TOKEN_OK);
	strcpy(good, f->token);
	len = strlen(good);
	for (size_t i = 0; i < array_len(texts); i++) {
		strcpy(f->token, texts[i]);
		assert_int_equal(verdict(f), TOKEN_MALFORMED);
	}
	/* One byte more or less, before or behind, and every cut. */
	snprintf(f->token, sizeof(f->token), "%s.", good);
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	snprintf(f->token, sizeof(f->token), ".%s", good);
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	snprintf(f->token, sizeof(f->token), " %s", good);
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	for (const char *c = " =\n+A"; *c; c++) {
		snprintf(f->token, sizeof(f->token), "%s%c", good, *c);
		assert_int_equal(verdict(f), *c == 'A' ? TOKEN_BAD_SIGNATURE
						       : TOKEN_MALFORMED);
	}
	for (size_t i = 0; i < len; i++) {
		snprintf(f->token, sizeof(f->token), "%.*s", (int)i, good);
		assert_int_not_equal(verdict(f), TOKEN_OK);
	}
	memcpy(f->token, good, len + 1);
	assert_int_equal(
		token_check(f->keys, f->token, len + 1, NOW, &f->claims),
		TOKEN_MALFORMED); /* the NUL */
	/* A foreign character anywhere: libraries abort over some of them. */
	for (size_t i = 0; i < len; i++)
		for (const char *c = "=+/. \xff"; *c; c++) {
			memcpy(f->token, good, len + 1);
			f->token[i] = *c;
			if (good[i] != *c)
				assert_int_equal(verdict(f), TOKEN_MALFORMED);
		}
}

static void test_token_base64_has_one_way(void **state)
{
	struct fixture *f = *state;
	char *last;

	assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET), 0);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\"}");
	last = f->token + strlen(f->token) - 1;
	/* 32 bytes: the last digit has two bits that say nothing. */
	check(base64_digit(*last) % 4 == 0);
	*last = base64url_digits[base64_digit(*last) + 1];
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	/* The header's own: {"alg":"HS256"} is 15 bytes, with a blank 16. */
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\"} ");
	assert_int_equal(verdict(f), TOKEN_OK);
	last = strchr(f->token, '.') - 1;
	*last = base64url_digits[base64_digit(*last) + 1];
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	*last = '=';
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
	*last = '+';
	assert_int_equal(verdict(f), TOKEN_MALFORMED);
}

static void test_token_is_bounded(void **state)
{
	struct fixture *f = *state;
	char claims[TOKEN_BYTES_MAX], *at = claims;

	at += sprintf(at, "{\"exp\":1700000100,\"x\":\"");
	memset(at, 'x', 6000);
	strcpy(at + 6000, "\"}");
	assert_int_equal(claim(f, claims), TOKEN_OK);
	assert_true(strlen(f->token) > 8000 &&
		    strlen(f->token) <= TOKEN_BYTES_MAX);
	memset(at, 'x', 6200);
	strcpy(at + 6200, "\"}");
	assert_int_equal(claim(f, claims), TOKEN_MALFORMED);
	assert_true(strlen(f->token) > TOKEN_BYTES_MAX);
	/* Deep. */
	at = claims + sprintf(claims, "{\"exp\":1700000100,\"x\":");
	memset(at, '[', 5900);
	at[5900] = '\0';
	assert_int_equal(claim(f, claims), TOKEN_MALFORMED);
}

/* --- claims ------------------------------------------------------------ */

static void test_token_times(void **state)
{
	static const struct {
		const char *claims;
		enum token_fault fault;
	} cases[] = {
		{"{}", TOKEN_MALFORMED},
		{"{\"exp\":1699999971}", TOKEN_OK}, /* leeway 30 */
		{"{\"exp\":1699999970}", TOKEN_EXPIRED},
		{"{\"exp\":0}", TOKEN_EXPIRED},
		{"{\"exp\":9223372036854775807}", TOKEN_OK},
		{"{\"exp\":9223372036854775808}", TOKEN_MALFORMED},
		{"{\"exp\":18446744073709551616}", TOKEN_MALFORMED},
		{"{\"exp\":-1}", TOKEN_MALFORMED},
		{"{\"exp\":-9223372036854775808}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100.5}", TOKEN_MALFORMED},
		{"{\"exp\":1.7e9}", TOKEN_MALFORMED},
		{"{\"exp\":1e999}", TOKEN_MALFORMED},
		{"{\"exp\":\"1700000100\"}", TOKEN_MALFORMED},
		{"{\"exp\":null}", TOKEN_MALFORMED},
		{"{\"exp\":true}", TOKEN_MALFORMED},
		{"{\"exp\":[1700000100]}", TOKEN_MALFORMED},
		{"{\"exp\":1,\"exp\":1700000100}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"exp\":1700000100}", TOKEN_MALFORMED},
		{"{\"Exp\":1700000100}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"nbf\":1700000030}", TOKEN_OK},
		{"{\"exp\":1700000100,\"nbf\":1700000031}", TOKEN_NOT_YET},
		{"{\"exp\":1700000100,\"nbf\":\"1\"}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"nbf\":1.0}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"iat\":1.0}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"iat\":-5}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100,\"iat\":null}", TOKEN_MALFORMED},
		{"{\"exp\":1700000100} {}", TOKEN_MALFORMED},
		{"[1700000100]", TOKEN_MALFORMED},
		{"1700000100", TOKEN_MALFORMED},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(cases); i++)
		if (claim(f, cases[i].claims) != cases[i].fault)
			fail_msg("%s", cases[i].claims);
	assert_int_equal(claim(f, "{\"exp\":9223372036854775807}"), TOKEN_OK);
	assert_true(f->claims->exp_s == TOKEN_EXP_MAX_S + 30);
}

static void test_token_claims_have_their_types(void **state)
{
	static const char *const bad[] = {
		"\"sub\":5",
		"\"sub\":null",
		"\"sub\":[\"u\"]",
		"\"sub\":\"a\\u0000b\"",
		"\"sub\":\"\xff\"",
		"\"jti\":5",
		"\"jti\":\"\\u0000\"",
		"\"sub\":\"a\",\"sub\":\"b\"",
		"\"iss\":5",
		"\"aud\":5",
		"\"aud\":{}",
		"\"aud\":[\"a\",5]",
		"\"aud\":null",
		"\"admin\":1",
		"\"admin\":\"true\"",
		"\"admin\":null",
		"\"x\":{\"y\":1,\"y\":2}",
		"\"subscribe\":\"a\"",
		"\"subscribe\":{}",
		"\"subscribe\":null",
		"\"subscribe\":[5]",
		"\"subscribe\":[null]",
		"\"subscribe\":[\"\"]",
		"\"subscribe\":[\"a b\"]",
		"\"subscribe\":[\"a*b\"]",
		"\"subscribe\":[\"**\"]",
		"\"subscribe\":[\"a\\u0000\"]",
		"\"subscribe\":[\"\\u00e9\"]",
		"\"subscribe\":[\"a\",\"b?\"]",
		"\"publish\":[\"a,b\"]",
		"\"publish\":[[\"a\"]]",
		"\"publish\":5",
	};
	struct fixture *f = *state;
	char claims[512];

	for (size_t i = 0; i < array_len(bad); i++) {
		snprintf(claims, sizeof(claims), "{\"exp\":1700000100,%s}",
			 bad[i]);
		if (claim(f, claims) != TOKEN_MALFORMED)
			fail_msg("%s", claims);
	}
}

static void test_token_ids_and_patterns_are_bounded(void **state)
{
	struct fixture *f = *state;
	char claims[4096], id[TOKEN_ID_MAX + 2], *at;

	memset(id, 'i', sizeof(id));
	id[TOKEN_ID_MAX + 1] = '\0';
	snprintf(claims, sizeof(claims),
		 "{\"exp\":1700000100,\"sub\":\"%s\",\"jti\":\"%s\","
		 "\"subscribe\":[\"%s\"],\"publish\":[\"%s*\"]}",
		 id + 1, id + 1, id + 1, id + 2);
	assert_int_equal(claim(f, claims), TOKEN_OK);
	assert_string_equal(f->claims->sub, id + 1);
	assert_string_equal(f->claims->jti, id + 1);
	assert_true(token_may_subscribe(f->claims, id + 1));
	for (int i = 0; i < 4; i++) {
		static const char *const formats[] = {
			"\"sub\":\"%s\"", "\"jti\":\"%s\"",
			"\"subscribe\":[\"%s\"]", "\"publish\":[\"%.128s*\"]"};

		at = claims + sprintf(claims, "{\"exp\":1700000100,");
		at += sprintf(at, formats[i], id);
		strcpy(at, "}");
		assert_int_equal(claim(f, claims), TOKEN_MALFORMED);
	}
	for (unsigned count = TOKEN_PATTERNS_MAX;
	     count <= TOKEN_PATTERNS_MAX + 1; count++) {
		at = claims +
		     sprintf(claims, "{\"exp\":1700000100,\"publish\":[");
		for (unsigned i = 0; i < count; i++)
			at += sprintf(at, "%s\"c%u\"", i > 0 ? "," : "", i);
		strcpy(at, "]}");
		assert_int_equal(claim(f, claims), count > TOKEN_PATTERNS_MAX
							   ? TOKEN_MALFORMED
							   : TOKEN_OK);
	}
}

static void test_token_issuer_and_audience(void **state)
{
	static const struct {
		const char *claims;
		enum token_fault fault;
	} cases[] = {
		{"\"iss\":\"me\",\"aud\":\"us\"", TOKEN_OK},
		{"\"iss\":\"me\",\"aud\":[\"them\",\"us\"]", TOKEN_OK},
		{"\"iss\":\"me\"", TOKEN_BAD_AUDIENCE},
		{"\"iss\":\"me\",\"aud\":[]", TOKEN_BAD_AUDIENCE},
		{"\"iss\":\"me\",\"aud\":\"usa\"", TOKEN_BAD_AUDIENCE},
		{"\"iss\":\"me\",\"aud\":[\"u\"]", TOKEN_BAD_AUDIENCE},
		{"\"iss\":\"me\",\"aud\":[\"us\",5]", TOKEN_MALFORMED},
		{"\"aud\":\"us\"", TOKEN_BAD_ISSUER},
		{"\"iss\":\"Me\",\"aud\":\"us\"", TOKEN_BAD_ISSUER},
		{"\"iss\":\"me/\",\"aud\":\"us\"", TOKEN_BAD_ISSUER},
		{"\"iss\":[\"me\"],\"aud\":\"us\"", TOKEN_MALFORMED},
	};
	struct fixture *f = *state;

	token_keys_free(f->keys);
	f->keys = token_keys_new("me", "us", 0);
	for (size_t i = 0; i < array_len(cases); i++) {
		char claims[256];

		snprintf(claims, sizeof(claims), "{\"exp\":1700000001,%s}",
			 cases[i].claims);
		if (claim(f, claims) != cases[i].fault)
			fail_msg("%s", claims);
	}
	/* Without leeway it ends to the second. */
	assert_int_equal(claim(f, "{\"exp\":1700000000,\"iss\":\"me\","
				  "\"aud\":\"us\"}"),
			 TOKEN_EXPIRED);
}

static void test_token_names_are_complete(void **state)
{
	(void)state;
	for (int i = 0; i < TOKEN_FAULTS; i++)
		assert_non_null(token_fault_names[i]);
	assert_null(token_fault_names[TOKEN_FAULTS]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_token_claims),
		CASE(test_token_every_algorithm),
		CASE(test_token_key_in_a_certificate),
		CASE(test_token_short_coordinates),
		CASE(test_token_without_kid_fits_a_single_key),
		CASE(test_token_algorithm_is_the_keys),
		CASE(test_token_keys_in_the_header_count_for_nothing),
		CASE(test_token_signature_has_its_length),
		CASE(test_token_headers),
		CASE(test_token_parts),
		CASE(test_token_base64_has_one_way),
		CASE(test_token_is_bounded),
		CASE(test_token_times),
		CASE(test_token_claims_have_their_types),
		CASE(test_token_ids_and_patterns_are_bounded),
		CASE(test_token_issuer_and_audience),
		CASE(test_token_names_are_complete),
	};

	return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
