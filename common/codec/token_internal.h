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

#endif
