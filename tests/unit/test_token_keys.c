/* Which keys token.c takes, one by one and as JWKS. */
#include "tests/unit/token_verdict.h"

#include "common/base/err.h"

#include <openssl/param_build.h>

static int add_jwks(struct fixture *f, const char *text)
{
	f->fault[0] = '\0';
	return token_keys_add_jwks(f->keys, text, strlen(text), f->fault);
}

/* The RSA key with an exponent of 1, under which everybody can sign. */
static EVP_PKEY *open_to_all(EVP_PKEY *rsa)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
	BIGNUM *n = NULL, *e = BN_new();
	OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
	OSSL_PARAM *params;
	EVP_PKEY *key = NULL;

	EVP_PKEY_get_bn_param(rsa, OSSL_PKEY_PARAM_RSA_N, &n);
	BN_one(e);
	OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n);
	OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e);
	params = OSSL_PARAM_BLD_to_param(build);
	assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
	assert_int_equal(
		EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(build);
	BN_free(n);
	BN_free(e);
	EVP_PKEY_CTX_free(ctx);
	return key;
}

static void test_token_keys_refuse_what_does_not_fit(void **state)
{
	struct fixture *f = *state;
	EVP_PKEY *small = EVP_RSA_gen(1024), *p384 = EVP_EC_gen("P-384");
	EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	EVP_PKEY *e1 = open_to_all(f->rsa);
	char *pem = token_pem(f->rsa);

	assert_int_equal(add(f, "a", TOKEN_HS256, pem), ERR_MALFORMED);
	assert_string_equal(f->fault, "HS256 needs a secret, not a PEM file");
	assert_int_equal(add(f, "a", TOKEN_HS256, TOKEN_TEST_SECRET + 1),
			 ERR_MALFORMED);
	assert_string_equal(f->fault, "HS256 needs a secret of 32 bytes");
	assert_int_equal(add(f, "a", TOKEN_RS256, TOKEN_TEST_SECRET),
			 ERR_MALFORMED);
	assert_string_equal(f->fault, "holds no PEM public key or certificate");
	assert_int_equal(add(f, "a", TOKEN_RS256, ""), ERR_MALFORMED);
	assert_int_equal(add_key(f, "a", TOKEN_ES256, f->rsa), ERR_MALFORMED);
	assert_string_equal(f->fault, "ES256 needs a key on the curve P-256");
	assert_int_equal(add_key(f, "a", TOKEN_PS256, f->ec), ERR_MALFORMED);
	assert_string_equal(f->fault, "PS256 needs an RSA key");
	assert_int_equal(add_key(f, "a", TOKEN_ES256, p384), ERR_MALFORMED);
	assert_int_equal(add_key(f, "a", TOKEN_ES256, ed), ERR_MALFORMED);
	assert_int_equal(add_key(f, "a", TOKEN_RS256, small), ERR_MALFORMED);
	assert_int_equal(add_key(f, "a", TOKEN_RS256, e1), ERR_MALFORMED);
	assert_int_equal(add(f, "a", TOKEN_RS256,
			     "-----BEGIN PRIVATE KEY-----\nAAAA\n"
			     "-----END PRIVATE KEY-----\n"),
			 ERR_MALFORMED);
	assert_string_equal(f->fault,
			    "holds a private key: the public one is enough");
	assert_int_equal(add(f, "a", TOKEN_RS256,
			     "-----BEGIN PUBLIC KEY-----\nAAAA\n"
			     "-----END PUBLIC KEY-----\n"),
			 ERR_MALFORMED);
	assert_int_equal(add(f, "", TOKEN_HS256, TOKEN_TEST_SECRET),
			 ERR_MALFORMED);
	assert_int_equal(token_keys_count(f->keys), 0);
	assert_int_equal(ERR_peek_error(), 0);
	free(pem);
	EVP_PKEY_free(small);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(ed);
	EVP_PKEY_free(e1);
}

static void test_token_keys_are_bounded(void **state)
{
	struct fixture *f = *state;
	char kid[16];

	for (unsigned i = 0; i < TOKEN_KEYS_MAX; i++) {
		snprintf(kid, sizeof(kid), "k%u", i);
		assert_int_equal(add(f, kid, TOKEN_HS256, TOKEN_TEST_SECRET),
				 0);
	}
	assert_int_equal(add(f, "k3", TOKEN_HS256, TOKEN_TEST_SECRET),
			 ERR_EXISTS);
	assert_int_equal(add(f, "more", TOKEN_HS256, TOKEN_TEST_SECRET),
			 ERR_FULL);
	assert_int_equal(token_keys_count(f->keys), TOKEN_KEYS_MAX);
}

static void test_token_jwks(void **state)
{
	struct fixture *f = *state;
	char rsa[2048], ec[1024], text[8192];

	token_jwk(rsa, sizeof(rsa), f->rsa, "r",
		  ",\"alg\":\"RS256\",\"use\":\"sig\",\"x5t\":\"?\"");
	token_jwk(ec, sizeof(ec), f->ec, "e", ",\"alg\":\"ES256\"");
	snprintf(text, sizeof(text),
		 "{\"keys\":[%s,%s,"
		 "{\"kty\":\"oct\",\"kid\":\"o\",\"alg\":\"HS256\",\"k\":"
		 "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},"
		 "{\"kty\":\"RSA\",\"use\":\"enc\",\"n\":\"x\"},"
		 "{\"kty\":\"OKP\",\"alg\":\"EdDSA\",\"kid\":\"ed\"}]}",
		 rsa, ec);
	assert_int_equal(add_jwks(f, text), 0);
	assert_int_equal(token_keys_count(f->keys), 3);
	sign(f, TOKEN_RS256, f->rsa, "{\"alg\":\"RS256\",\"kid\":\"r\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	sign(f, TOKEN_ES256, f->ec, "{\"alg\":\"ES256\",\"kid\":\"e\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\",\"kid\":\"o\"}");
	assert_int_equal(verdict(f), TOKEN_OK);
	sign(f, TOKEN_PS256, f->rsa, "{\"alg\":\"PS256\",\"kid\":\"r\"}");
	assert_int_equal(verdict(f), TOKEN_BAD_ALG);
	sign(f, TOKEN_HS256, NULL, "{\"alg\":\"HS256\",\"kid\":\"ed\"}");
	assert_int_equal(verdict(f), TOKEN_UNKNOWN_KEY);
	assert_int_equal(add_jwks(f, text), ERR_EXISTS);
	assert_string_equal(f->fault, "keys[0]: its kid is there already");
}

static void test_token_jwks_refuses_nonsense(void **state)
{
	static const struct {
		const char *more, *fault;
	} cases[] = {
		{"", "keys[0]: it has no alg"},
		{",\"alg\":\"RS256\"", "keys[0]: RS256 needs an RSA key"},
		{",\"alg\":\"HS256\"", "keys[0]: HS256 needs a secret"},
		{",\"alg\":\"ES256\",\"d\":\"AAAA\"",
		 "keys[0]: it is private: the public one is enough"},
		{",\"alg\":\"ES384\"",
		 "it holds no key to check signatures with that we know"},
		{",\"alg\":\"ES256\",\"alg\":\"ES256\"",
		 "is not JSON (line 1)"},
	};
	static const struct {
		const char *text, *fault;
	} texts[] = {
		{"{\"keys\":[{\"alg\":\"RS256\",\"kid\":\"a\",\"kty\":\"RSA\","
		 "\"n\":\"AAAB\",\"e\":\"AQ\"}]}",
		 "keys[0]: it can't be read"},
		{"{\"keys\":[{\"alg\":\"RS256\",\"kid\":\"a\",\"kty\":\"RSA\","
		 "\"n\":\"AAAB\",\"e\":\"AQAB\"}]}",
		 "keys[0]: RS256 needs a key of 2048 to 16384 bits"},
		{"{\"keys\":[{\"alg\":\"HS256\",\"kid\":\"a\",\"kty\":\"oct\","
		 "\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3=DlhYmNkZWY\"}]}",
		 "keys[0]: it can't be read"},
		{"", "is not JSON (line 1)"},
		{"{\"keys\":[]} x", "is not JSON (line 1)"},
		{"{}", "is not a JWKS document: it has no list of keys"},
		{"[]", "is not a JWKS document: it has no list of keys"},
		{"{\"keys\":{}}", "is not a JWKS document: it has no list of "
				  "keys"},
		{"{\"keys\":[]}", "it holds no key to check signatures with "
				  "that we know"},
		{"{\"keys\":[5]}", "keys[0]: it is not an object"},
		{"{\"keys\":[{\"alg\":\"HS256\"}]}", "keys[0]: it has no kid"},
		{"{\"keys\":[{\"alg\":\"HS256\",\"kid\":\"a\"}]}",
		 "keys[0]: it can't be read"},
		{"{\"keys\":[{\"alg\":\"HS256\",\"kid\":\"a\",\"kty\":\"oct\","
		 "\"k\":\"c2hvcnQ\"}]}",
		 "keys[0]: HS256 needs a secret of 32 bytes"},
		{"{\"keys\":[{\"alg\":\"ES256\",\"kid\":\"a\",\"kty\":\"EC\","
		 "\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}]}",
		 "keys[0]: it can't be read"},
	};
	struct fixture *f = *state;
	char jwk[1024], text[1200];

	for (size_t i = 0; i < array_len(cases); i++) {
		token_jwk(jwk, sizeof(jwk), f->ec, "e", cases[i].more);
		snprintf(text, sizeof(text), "{\"keys\":[%s]}", jwk);
		assert_int_equal(add_jwks(f, text), ERR_MALFORMED);
		assert_string_equal(f->fault, cases[i].fault);
	}
	for (size_t i = 0; i < array_len(texts); i++) {
		assert_int_equal(add_jwks(f, texts[i].text), ERR_MALFORMED);
		assert_string_equal(f->fault, texts[i].fault);
	}
	assert_int_equal(token_keys_count(f->keys), 0);
	assert_int_equal(ERR_peek_error(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_token_keys_refuse_what_does_not_fit),
		CASE(test_token_keys_are_bounded),
		CASE(test_token_jwks),
		CASE(test_token_jwks_refuses_nonsense),
	};

	return cmocka_run_group_tests(tests, group_set_up, group_tear_down);
}
