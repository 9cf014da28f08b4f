/* token_verdict.h - keys, a token made with token_fixture.h, and the verdict on
 * it. */
#ifndef STENTOR_TESTS_TOKEN_VERDICT_H
#define STENTOR_TESTS_TOKEN_VERDICT_H

#include "common/codec/token.h"
#include "tests/unit/token_fixture.h"
#include "tests/unit/unit.h"

#include <openssl/err.h>

#define NOW 1700000000u

struct fixture {
	EVP_PKEY *rsa, *ec;
	struct token_keys *keys; /* issuer and audience "", leeway 30 */
	struct token_claims *claims;
	char token[TOKEN_TEST_MAX];
	char fault[TOKEN_TEXT];
};

static EVP_PKEY *group_rsa; /* making one takes its time */

static int group_set_up(void **state)
{
	(void)state;
	group_rsa = EVP_RSA_gen(2048);
	return group_rsa != NULL ? 0 : -1;
}

static int group_tear_down(void **state)
{
	(void)state;
	EVP_PKEY_free(group_rsa);
	return 0;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->rsa = group_rsa;
	f->ec = EVP_EC_gen("P-256");
	f->keys = token_keys_new("", "", 30);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	token_keys_free(f->keys);
	token_claims_free(f->claims);
	EVP_PKEY_free(f->ec);
	free(f);
	return 0;
}

static int add(struct fixture *f, const char *kid, enum token_alg alg,
	       const char *text)
{
	f->fault[0] = '\0';
	return token_keys_add(f->keys, kid, alg, text, strlen(text), f->fault);
}

static int add_key(struct fixture *f, const char *kid, enum token_alg alg,
		   EVP_PKEY *key)
{
	char *pem = token_pem(key);
	int rc = add(f, kid, alg, pem);

	free(pem);
	return rc;
}

static enum token_fault verdict_at(struct fixture *f, uint64_t now_s)
{
	enum token_fault fault;

	token_claims_free(f->claims);
	f->claims = NULL;
	fault = token_check(f->keys, f->token, strlen(f->token), now_s,
			    &f->claims);
	assert_true((fault == TOKEN_OK) == (f->claims != NULL));
	assert_int_equal(ERR_peek_error(), 0);
	return fault;
}

static enum token_fault verdict(struct fixture *f)
{
	return verdict_at(f, NOW);
}

static void sign(struct fixture *f, enum token_alg alg, EVP_PKEY *key,
		 const char *header)
{
	const char *claims = "{\"exp\":1700000100,\"sub\":\"u\"}";

	token_sign(f->token, alg, key, header, claims, strlen(claims));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
