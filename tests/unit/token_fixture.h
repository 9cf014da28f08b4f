/* token_fixture.h - tokens for tests, signed by OpenSSL: what is checked with
 * cjose is made without it. */
#ifndef STENTOR_TESTS_TOKEN_FIXTURE_H
#define STENTOR_TESTS_TOKEN_FIXTURE_H

#include "common/base/check.h"
#include "common/base/config.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_TEST_SECRET "0123456789abcdef0123456789abcdef"
#define TOKEN_TEST_MAX	  16384 /* characters of a token */

/* Returns where the text ends. */
static inline char *token_b64url(char *out, const void *bytes, size_t len)
{
	int n = EVP_EncodeBlock((uint8_t *)out, bytes, (int)len);

	while (n > 0 && out[n - 1] == '=')
		n--;
	out[n] = '\0';
	for (int i = 0; i < n; i++)
		out[i] = (char)(out[i] == '+'	? '-'
				: out[i] == '/' ? '_'
						: out[i]);
	return out + n;
}

static inline size_t token_hmac(const void *secret, size_t secret_len,
				const char *text, size_t len, uint8_t *out)
{
	unsigned n = 0;

	check(HMAC(EVP_sha256(), secret, (int)secret_len, (const uint8_t *)text,
		   len, out, &n) != NULL);
	return n;
}

/* r and s, 32 bytes each, from OpenSSL's DER. */
static inline size_t token_raw_ecdsa(uint8_t *bytes, size_t len)
{
	const uint8_t *at = bytes;
	ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);

	check(sig != NULL);
	check(BN_bn2binpad(ECDSA_SIG_get0_r(sig), bytes, 32) == 32);
	check(BN_bn2binpad(ECDSA_SIG_get0_s(sig), bytes + 32, 32) == 32);
	ECDSA_SIG_free(sig);
	return 64;
}

static inline size_t token_signature(enum token_alg alg, EVP_PKEY *key,
				     const char *text, size_t len, uint8_t *out)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	EVP_PKEY_CTX *options;
	size_t n = 1024;

	check(EVP_DigestSignInit(ctx, &options, EVP_sha256(), NULL, key) == 1);
	if (alg == TOKEN_PS256) {
		check(EVP_PKEY_CTX_set_rsa_padding(options,
						   RSA_PKCS1_PSS_PADDING) == 1);
		check(EVP_PKEY_CTX_set_rsa_pss_saltlen(
			      options, RSA_PSS_SALTLEN_DIGEST) == 1);
	}
	check(EVP_DigestSign(ctx, out, &n, (const uint8_t *)text, len) == 1);
	EVP_MD_CTX_free(ctx);
	return alg == TOKEN_ES256 ? token_raw_ecdsa(out, n) : n;
}

/* Header and claims as they are given; `key` NULL: HS256 with the secret. */
static inline void token_sign(char out[TOKEN_TEST_MAX], enum token_alg alg,
			      EVP_PKEY *key, const char *header,
			      const void *claims, size_t claims_len)
{
	uint8_t signature[1024];
	char *at = token_b64url(out, header, strlen(header));
	size_t n, len;

	*at++ = '.';
	at = token_b64url(at, claims, claims_len);
	len = (size_t)(at - out);
	if (key == NULL)
		n = token_hmac(TOKEN_TEST_SECRET, strlen(TOKEN_TEST_SECRET),
			       out, len, signature);
	else
		n = token_signature(alg, key, out, len, signature);
	*at++ = '.';
	token_b64url(at, signature, n);
}

/* HS256 under the key "a". */
static inline void token_make(char out[TOKEN_TEST_MAX], const char *claims)
{
	token_sign(out, TOKEN_HS256, NULL, "{\"alg\":\"HS256\",\"kid\":\"a\"}",
		   claims, strlen(claims));
}

/* The public key as a PEM text, free() it. */
static inline char *token_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text;
	long len;

	check(PEM_write_bio_PUBKEY(bio, key) == 1);
	len = BIO_get_mem_data(bio, &bytes);
	text = strndup(bytes, (size_t)len);
	BIO_free(bio);
	return text;
}

static inline char *token_b64_number(char *out, EVP_PKEY *key, const char *name)
{
	BIGNUM *value = NULL;
	uint8_t bytes[1024];
	char *end;

	check(EVP_PKEY_get_bn_param(key, name, &value) == 1);
	end = token_b64url(out, bytes, (size_t)BN_bn2bin(value, bytes));
	BN_free(value);
	return end;
}

/* One member of a JWKS document; `more` stands behind its kid. */
static inline void token_jwk(char *out, size_t size, EVP_PKEY *key,
			     const char *kid, const char *more)
{
	bool rsa = EVP_PKEY_is_a(key, "RSA");
	char a[1500], b[1500];

	token_b64_number(
		a, key, rsa ? OSSL_PKEY_PARAM_RSA_N : OSSL_PKEY_PARAM_EC_PUB_X);
	token_b64_number(
		b, key, rsa ? OSSL_PKEY_PARAM_RSA_E : OSSL_PKEY_PARAM_EC_PUB_Y);
	snprintf(out, size,
		 rsa ? "{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"%s\","
		       "\"kid\":\"%s\"%s}"
		     : "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"%s\","
		       "\"y\":\"%s\",\"kid\":\"%s\"%s}",
		 a, b, kid, more);
}

#endif
