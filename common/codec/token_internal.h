/* token_internal.h - what the files of the token module share. */
#ifndef STENTOR_CODEC_TOKEN_INTERNAL_H
#define STENTOR_CODEC_TOKEN_INTERNAL_H

#include "common/codec/token.h"

#include <cjose/cjose.h>

struct token_key {
	char kid[AUTH_KID_MAX + 1];
	enum token_alg alg;
	cjose_jwk_t *jwk;
	size_t signature_len; /* bytes of any that it can have made */
};

struct token_keys {
	char *issuer, *audience; /* "" for any */
	uint64_t leeway_s;
	size_t count;
	struct token_key key[TOKEN_KEYS_MAX];
};

/* NULL: there is none of this name. */
const struct token_key *token_keys_find(const struct token_keys *keys,
					const char *kid);

/* base64url as RFC 7515 has it: no padding, no other digits, and one way only
 * to write a thing: the bits that are left over are 0. `bytes` has room for
 * len / 4 * 3 + 3. cjose's own decoder aborts the process on some texts, so
 * whatever it is to decode must have passed here. */
bool token_base64url(const char *text, size_t len, uint8_t *bytes,
		     size_t *bytes_len) MUST_CHECK;

#endif
