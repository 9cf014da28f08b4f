/* token.h - signed tokens (JWT, RFC 7519, in JWS compact form) and the keys
 * that they are checked with (pure: time comes as an argument).
 *
 * Signatures are cjose's. What cjose leaves to its user is done here: the
 * header's `alg` must be the one that the key was configured with, and the key
 * is found by `kid` (a token without one fits if there is a single key), so
 * neither `none` nor a public key taken for a secret passes. `exp` is required;
 * `nbf`, `iss` and `aud` are checked where they are there or configured, with
 * the leeway; numbers must be numbers (RFC 7519 4.1.4), texts texts.
 *
 * Limits: TOKEN_BYTES_MAX, TOKEN_PATTERNS_MAX, TOKEN_KEYS_MAX. A refused token
 * is an enum token_fault for counters and logs; clients are told nothing of it.
 */
#ifndef STENTOR_CODEC_TOKEN_H
#define STENTOR_CODEC_TOKEN_H

#include "common/base/check.h"
#include "common/base/config.h" /* enum token_alg */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOKEN_BYTES_MAX	   8192
#define TOKEN_PATTERNS_MAX 64  /* of each list */
#define TOKEN_ID_MAX	   128 /* bytes of sub and of jti */
#define TOKEN_KEYS_MAX	   64
#define TOKEN_SECRET_MIN   32	/* bytes of an HS256 key */
#define TOKEN_RSA_BITS_MIN 2048 /* RFC 7518 3.3 */
/* What ends later ends then (the year 9999): so times can be counted in ms. */
#define TOKEN_EXP_MAX_S 253402300799u

enum token_fault {
	TOKEN_OK,
	TOKEN_MALFORMED,
	TOKEN_UNKNOWN_KEY,
	TOKEN_BAD_ALG,
	TOKEN_BAD_SIGNATURE,
	TOKEN_EXPIRED,
	TOKEN_NOT_YET,
	TOKEN_BAD_ISSUER,
	TOKEN_BAD_AUDIENCE,
	TOKEN_REVOKED, /* found by the caller */
	TOKEN_FAULTS
};
extern const char *const token_fault_names[TOKEN_FAULTS + 1];

struct token_keys; /* opaque; immutable once it is in use */

/* What tokens must say besides; "" for anything. Copied. */
struct token_keys *token_keys_new(const char *issuer, const char *audience,
				  uint64_t leeway_s);
void token_keys_free(struct token_keys *keys);
/* Adds a key: a PEM public key or certificate (RS, PS, ES), or the bytes of a
 * secret of at least 32 bytes (HS256), or a whole JWKS document, whose keys
 * need `kid` and `alg` each. ERR_MALFORMED with a text in `fault` (no secret in
 * it); ERR_FULL; ERR_EXISTS: the kid is there already. */
#define TOKEN_TEXT 200
int token_keys_add(struct token_keys *keys, const char *kid, enum token_alg alg,
		   const void *bytes, size_t len,
		   char fault[TOKEN_TEXT]) MUST_CHECK;
int token_keys_add_jwks(struct token_keys *keys, const void *json, size_t len,
			char fault[TOKEN_TEXT]) MUST_CHECK;
size_t token_keys_count(const struct token_keys *keys);

/* What a good token says. One block of memory. */
struct token_claims {
	char sub[TOKEN_ID_MAX + 1], jti[TOKEN_ID_MAX + 1]; /* "" for none */
	uint64_t exp_s; /* seconds since 1970: good before that, leeway in it */
	uint64_t iat_s; /* 0: none */
	bool admin;
	size_t subscribe_count, publish_count;
	char **subscribe, **publish; /* names, or prefixes that end in '*' */
};

/* Checks; TOKEN_OK and *claims (free it), or why not. */
enum token_fault token_check(const struct token_keys *keys, const char *token,
			     size_t len, uint64_t now_s,
			     struct token_claims **claims) MUST_CHECK;
void token_claims_free(struct token_claims *claims);

/* May it listen to, publish on this channel? */
bool token_may_subscribe(const struct token_claims *claims,
			 const char *channel);
bool token_may_publish(const struct token_claims *claims, const char *channel);

#endif
