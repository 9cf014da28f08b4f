/* Keys: from secrets, PEM files and JWKS documents to what cjose verifies with.
 *
 * A key is bound to one algorithm, of the kind that it is good for: an RSA key
 * never becomes a secret. Private keys are refused, because they do not belong
 * where tokens are only checked. */
#include "common/codec/token_internal.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HS256_BYTES   32
#define ES256_BYTES   64 /* r and s */
#define PEM_BYTES_MAX (1u << 20)
#define RSA_BYTES_MAX (16384 / 8) /* OpenSSL verifies with no larger one */

static int refuse(char fault[TOKEN_TEXT], const char *format, ...) PRINTF(2, 3);
static int refuse(char fault[TOKEN_TEXT], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fault, TOKEN_TEXT, format, args);
	va_end(args);
	/* What OpenSSL has noted must not be taken for a fault of who uses it
	 * next on this thread. */
	ERR_clear_error();
	return ERR_MALFORMED;
}

struct token_keys *token_keys_new(const char *issuer, const char *audience,
				  uint64_t leeway_s)
{
	struct token_keys *keys = xcalloc(1, sizeof(*keys));

	keys->issuer = xstrdup(issuer);
	keys->audience = xstrdup(audience);
	keys->leeway_s = leeway_s;
	return keys;
}

void token_keys_free(struct token_keys *keys)
{
	if (keys == NULL)
		return;
	for (size_t i = 0; i < keys->count; i++)
		cjose_jwk_release(keys->key[i].jwk);
	free(keys->issuer);
	free(keys->audience);
	free(keys);
}

size_t token_keys_count(const struct token_keys *keys)
{
	return keys->count;
}

const struct token_key *token_keys_find(const struct token_keys *keys,
					const char *kid)
{
	for (size_t i = 0; i < keys->count; i++)
		if (strcmp(keys->key[i].kid, kid) == 0)
			return &keys->key[i];
	return NULL;
}

/* --- what a key is good for -------------------------------------------- */

/* Sets key->signature_len. */
static int check_kind(struct token_key *key, char fault[TOKEN_TEXT])
{
	cjose_jwk_kty_t kind = cjose_jwk_get_kty(key->jwk, NULL);
	size_t bits = cjose_jwk_get_keysize(key->jwk, NULL);
	const char *alg = token_alg_names[key->alg];

	switch (key->alg) {
	case TOKEN_HS256:
		if (kind != CJOSE_JWK_KTY_OCT)
			return refuse(fault, "%s needs a secret", alg);
		if (bits < TOKEN_SECRET_MIN * 8)
			return refuse(fault, "%s needs a secret of %u bytes",
				      alg, TOKEN_SECRET_MIN);
		key->signature_len = HS256_BYTES;
		return 0;
	case TOKEN_RS256:
	case TOKEN_PS256:
		if (kind != CJOSE_JWK_KTY_RSA)
			return refuse(fault, "%s needs an RSA key", alg);
		if (bits < TOKEN_RSA_BITS_MIN || bits > RSA_BYTES_MAX * 8)
			return refuse(fault, "%s needs a key of %u to %u bits",
				      alg, TOKEN_RSA_BITS_MIN,
				      RSA_BYTES_MAX * 8);
		key->signature_len = (bits + 7) / 8;
		return 0;
	case TOKEN_ES256:
		if (kind != CJOSE_JWK_KTY_EC ||
		    cjose_jwk_EC_get_curve(key->jwk, NULL) !=
			    CJOSE_JWK_EC_P_256)
			return refuse(fault,
				      "%s needs a key on the curve "
				      "P-256",
				      alg);
		key->signature_len = ES256_BYTES;
		return 0;
	}
	return refuse(fault, "unknown algorithm");
}

/* Takes the jwk. */
static int add(struct token_keys *keys, const char *kid, enum token_alg alg,
	       cjose_jwk_t *jwk, char fault[TOKEN_TEXT])
{
	struct token_key key = {.alg = alg, .jwk = jwk};
	int rc = check_kind(&key, fault);

	if (rc == 0 && (*kid == '\0' || strlen(kid) > AUTH_KID_MAX))
		rc = refuse(fault, "its kid is not of 1 to %u bytes",
			    AUTH_KID_MAX);
	if (rc == 0 && token_keys_find(keys, kid) != NULL) {
		refuse(fault, "its kid is there already");
		rc = ERR_EXISTS;
	}
	if (rc == 0 && keys->count == TOKEN_KEYS_MAX) {
		refuse(fault, "more than %u keys", TOKEN_KEYS_MAX);
		rc = ERR_FULL;
	}
	if (rc != 0) {
		cjose_jwk_release(jwk);
		return rc;
	}
	memcpy(key.kid, kid, strlen(kid) + 1);
	keys->key[keys->count++] = key;
	return 0;
}

/* --- PEM --------------------------------------------------------------- */

/* Big-endian bytes of a number, free() them; NULL: there is none. */
static uint8_t *number(const EVP_PKEY *key, const char *name, size_t *len)
{
	BIGNUM *value = NULL;
	uint8_t *bytes;

	if (!EVP_PKEY_get_bn_param(key, name, &value))
		return NULL;
	*len = (size_t)BN_num_bytes(value);
	bytes = xmalloc(*len + 1);
	BN_bn2bin(value, bytes);
	BN_free(value);
	return bytes;
}

static cjose_jwk_t *jwk_of_rsa(const EVP_PKEY *key)
{
	cjose_jwk_rsa_keyspec spec = {0};
	cjose_jwk_t *jwk = NULL;

	spec.n = number(key, OSSL_PKEY_PARAM_RSA_N, &spec.nlen);
	spec.e = number(key, OSSL_PKEY_PARAM_RSA_E, &spec.elen);
	if (spec.n != NULL && spec.e != NULL)
		jwk = cjose_jwk_create_RSA_spec(&spec, NULL);
	free(spec.n);
	free(spec.e);
	return jwk;
}

static cjose_jwk_t *jwk_of_ec(const EVP_PKEY *key)
{
	cjose_jwk_ec_keyspec spec = {.crv = CJOSE_JWK_EC_P_256};
	cjose_jwk_t *jwk = NULL;
	char curve[32] = "";

	EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, curve,
				       sizeof(curve), NULL);
	if (strcmp(curve, "prime256v1") != 0)
		return NULL;
	spec.x = number(key, OSSL_PKEY_PARAM_EC_PUB_X, &spec.xlen);
	spec.y = number(key, OSSL_PKEY_PARAM_EC_PUB_Y, &spec.ylen);
	if (spec.x != NULL && spec.y != NULL)
		jwk = cjose_jwk_create_EC_spec(&spec, NULL);
	free(spec.x);
	free(spec.y);
	return jwk;
}

/* A locked key is no public key; nobody is there to be asked. */
static int no_passphrase(char *text UNUSED, int size UNUSED, int write UNUSED,
			 void *ctx UNUSED)
{
	return -1;
}

static EVP_PKEY *read_pem(const void *bytes, size_t len)
{
	BIO *bio = BIO_new_mem_buf(bytes, (int)len);
	EVP_PKEY *key;
	X509 *cert;

	check(bio != NULL);
	key = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
	if (key == NULL) {
		BIO_reset(bio);
		cert = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
		if (cert != NULL)
			key = X509_get_pubkey(cert);
		X509_free(cert);
	}
	BIO_free(bio);
	return key;
}

/* Is it one that makes sense: an odd exponent, a point on the curve? */
static bool sound(EVP_PKEY *key)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	bool good = ctx != NULL && EVP_PKEY_public_check(ctx) == 1;

	EVP_PKEY_CTX_free(ctx);
	return good;
}

static bool holds(const void *bytes, size_t len, const char *text)
{
	return memmem(bytes, len, text, strlen(text)) != NULL;
}

static int add_pem(struct token_keys *keys, const char *kid, enum token_alg alg,
		   const void *bytes, size_t len, char fault[TOKEN_TEXT])
{
	cjose_jwk_t *jwk = NULL;
	EVP_PKEY *key;

	if (len > PEM_BYTES_MAX)
		return refuse(fault, "too large");
	if (holds(bytes, len, "PRIVATE KEY-----"))
		return refuse(fault, "holds a private key: the public one is "
				     "enough");
	key = read_pem(bytes, len);
	if (key == NULL || !sound(key)) {
		EVP_PKEY_free(key);
		return refuse(fault, "holds no PEM public key or certificate");
	}
	if (EVP_PKEY_is_a(key, "RSA"))
		jwk = jwk_of_rsa(key);
	else if (EVP_PKEY_is_a(key, "EC"))
		jwk = jwk_of_ec(key);
	EVP_PKEY_free(key);
	if (jwk == NULL)
		return refuse(fault,
			      "its key is of a kind that %s can't use "
			      "(RSA, or EC on P-256)",
			      token_alg_names[alg]);
	return add(keys, kid, alg, jwk, fault);
}

static int add_secret(struct token_keys *keys, const char *kid,
		      const void *bytes, size_t len, char fault[TOKEN_TEXT])
{
	cjose_jwk_t *jwk;

	/* A public key taken for a secret is known to everybody. */
	if (holds(bytes, len, "-----BEGIN "))
		return refuse(fault, "HS256 needs a secret, not a PEM file");
	if (len < TOKEN_SECRET_MIN)
		return refuse(fault, "HS256 needs a secret of %u bytes",
			      TOKEN_SECRET_MIN);
	jwk = cjose_jwk_create_oct_spec(bytes, len, NULL);
	check(jwk != NULL);
	return add(keys, kid, TOKEN_HS256, jwk, fault);
}

int token_keys_add(struct token_keys *keys, const char *kid, enum token_alg alg,
		   const void *bytes, size_t len, char fault[TOKEN_TEXT])
{
	int rc = alg == TOKEN_HS256
			 ? add_secret(keys, kid, bytes, len, fault)
			 : add_pem(keys, kid, alg, bytes, len, fault);

	ERR_clear_error();
	return rc;
}

/* --- JWKS (RFC 7517) --------------------------------------------------- */

static const char *text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static int alg_of(const char *name)
{
	for (int i = 0; token_alg_names[i] != NULL; i++)
		if (strcmp(token_alg_names[i], name) == 0)
			return i;
	return -1;
}

/* Keys for other work, or of algorithms that we do not have, stand in many a
 * document; section 5 of the RFC bids us to pass them over. */
static bool meant_for_us(const json_t *jwk)
{
	const char *use = text_of(jwk, "use"), *alg = text_of(jwk, "alg");

	if (use != NULL && strcmp(use, "sig") != 0)
		return false;
	return alg == NULL || alg_of(alg) >= 0;
}

/* Bytes of a base64url member, free() them; NULL: it is not there, or bad. */
static uint8_t *member(const json_t *jwk, const char *name, size_t *len)
{
	const json_t *json = json_object_get(jwk, name);
	size_t text_len = json_string_length(json);
	uint8_t *bytes = xmalloc(text_len / 4 * 3 + 3);

	if (token_base64url(json_string_value(json), text_len, bytes, len))
		return bytes;
	free(bytes);
	return NULL;
}

/* As sound() for those of PEM files: with an exponent of 1, or an even one,
 * everybody can sign. */
static bool rsa_sound(const cjose_jwk_rsa_keyspec *spec)
{
	return spec->n[spec->nlen - 1] % 2 == 1 &&
	       spec->e[spec->elen - 1] % 2 == 1 &&
	       !(spec->elen == 1 && spec->e[0] == 1);
}

static cjose_jwk_t *import_rsa(const json_t *json)
{
	cjose_jwk_rsa_keyspec spec = {0};
	cjose_jwk_t *jwk = NULL;

	spec.n = member(json, "n", &spec.nlen);
	spec.e = member(json, "e", &spec.elen);
	if (spec.n != NULL && spec.e != NULL && rsa_sound(&spec))
		jwk = cjose_jwk_create_RSA_spec(&spec, NULL);
	free(spec.n);
	free(spec.e);
	return jwk;
}

static cjose_jwk_t *import_ec(const json_t *json)
{
	cjose_jwk_ec_keyspec spec = {.crv = CJOSE_JWK_EC_P_256};
	const char *curve = text_of(json, "crv");
	cjose_jwk_t *jwk = NULL;

	spec.x = member(json, "x", &spec.xlen);
	spec.y = member(json, "y", &spec.ylen);
	if (curve != NULL && strcmp(curve, "P-256") == 0 && spec.x != NULL &&
	    spec.y != NULL)
		jwk = cjose_jwk_create_EC_spec(&spec, NULL);
	free(spec.x);
	free(spec.y);
	return jwk;
}

static cjose_jwk_t *import_secret(const json_t *json)
{
	size_t len = 0;
	uint8_t *bytes = member(json, "k", &len);
	cjose_jwk_t *jwk = NULL;

	if (bytes != NULL) {
		jwk = cjose_jwk_create_oct_spec(bytes, len, NULL);
		OPENSSL_cleanse(bytes, len);
	}
	free(bytes);
	return jwk;
}

static cjose_jwk_t *import(const json_t *json)
{
	const char *kind = text_of(json, "kty");

	if (kind == NULL)
		return NULL;
	if (strcmp(kind, "RSA") == 0)
		return import_rsa(json);
	if (strcmp(kind, "EC") == 0)
		return import_ec(json);
	return strcmp(kind, "oct") == 0 ? import_secret(json) : NULL;
}

static int add_jwk(struct token_keys *keys, const json_t *json,
		   char fault[TOKEN_TEXT])
{
	const char *kid = text_of(json, "kid"), *alg = text_of(json, "alg");
	cjose_jwk_t *jwk;

	if (!json_is_object(json))
		return refuse(fault, "it is not an object");
	if (!meant_for_us(json))
		return 0;
	if (kid == NULL)
		return refuse(fault, "it has no kid");
	if (alg == NULL)
		return refuse(fault, "it has no alg");
	if (json_object_get(json, "d") != NULL)
		return refuse(fault, "it is private: the public one is enough");
	jwk = import(json);
	if (jwk == NULL)
		return refuse(fault, "it can't be read");
	return add(keys, kid, (enum token_alg)alg_of(alg), jwk, fault);
}

static int add_all(struct token_keys *keys, const json_t *list,
		   char fault[TOKEN_TEXT])
{
	char why[TOKEN_TEXT / 2 + 1];
	size_t before = keys->count, i;
	json_t *json;
	int rc;

	json_array_foreach(list, i, json)
	{
		rc = add_jwk(keys, json, fault);
		if (rc == 0)
			continue;
		snprintf(why, sizeof(why), "%.100s", fault);
		refuse(fault, "keys[%zu]: %s", i, why);
		return rc;
	}
	if (keys->count == before)
		return refuse(fault, "it holds no key to check signatures with "
				     "that we know");
	return 0;
}

int token_keys_add_jwks(struct token_keys *keys, const void *text, size_t len,
			char fault[TOKEN_TEXT])
{
	json_error_t error;
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	json_t *list = json_object_get(json, "keys");
	int rc;

	/* jansson's text may quote the document, which may hold secrets. */
	if (json == NULL)
		rc = refuse(fault, "is not JSON (line %d)", error.line);
	else if (!json_is_array(list))
		rc = refuse(fault, "is not a JWKS document: it has no list "
				   "of keys");
	else
		rc = add_all(keys, list, fault);
	json_decref(json);
	ERR_clear_error();
	return rc;
}
