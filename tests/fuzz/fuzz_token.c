/* Fuzz target: tokens and keys. The first byte chooses: a token as it comes,
 * one whose header and claims (with a NUL between) are signed well, so that
 * what lies behind the signature is reached, a JWKS document, or a PEM file.
 * What is accepted must be signed with the secret, within its limits and its
 * time. */
#include "common/codec/channel.h"
#include "common/codec/token.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/token_fixture.h"

#include <openssl/err.h>

#define NOW	   1700000000u
#define CLAIMS_MAX 5000 /* so that the fixture's room does for a token */

static void check_patterns(char *const patterns[], size_t count)
{
	check(count <= TOKEN_PATTERNS_MAX);
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(patterns[i]);

		check(len > 0 && len <= CHANNEL_NAME_MAX);
		if (patterns[i][len - 1] == '*')
			len--;
		check(len == 0 || channel_name_valid(patterns[i], len));
	}
}

/* The signature that the token has is the one that we would give it. */
static void check_signed(const char *token, size_t len)
{
	const char *dot = memrchr(token, '.', len);
	char expected[64];
	uint8_t mac[32];

	check(dot != NULL);
	token_hmac(TOKEN_TEST_SECRET, strlen(TOKEN_TEST_SECRET), token,
		   (size_t)(dot - token), mac);
	token_b64url(expected, mac, sizeof(mac));
	check(strlen(expected) == len - (size_t)(dot + 1 - token));
	check(memcmp(expected, dot + 1, strlen(expected)) == 0);
}

static void try_token(const char *token, size_t len)
{
	struct token_keys *keys = token_keys_new("", "", 30);
	struct token_claims *claims = NULL;
	char fault[TOKEN_TEXT];

	check(token_keys_add(keys, "a", TOKEN_HS256, TOKEN_TEST_SECRET,
			     strlen(TOKEN_TEST_SECRET), fault) == 0);
	if (token_check(keys, token, len, NOW, &claims) == TOKEN_OK) {
		check_signed(token, len);
		check(claims->exp_s > NOW);
		check(strlen(claims->sub) <= TOKEN_ID_MAX);
		check(strlen(claims->jti) <= TOKEN_ID_MAX);
		check_patterns(claims->subscribe, claims->subscribe_count);
		check_patterns(claims->publish, claims->publish_count);
		token_may_subscribe(claims, "score:1");
		token_claims_free(claims);
	}
	check(ERR_peek_error() == 0);
	token_keys_free(keys);
}

static void try_signed(const char *text, size_t len)
{
	size_t header_len = strnlen(text, len);
	size_t rest = header_len < len ? header_len + 1 : len;
	char token[TOKEN_TEST_MAX];
	char *header;

	if (len > CLAIMS_MAX)
		return;
	header = xmemdupz(text, header_len);
	token_sign(token, TOKEN_HS256, NULL, header, text + rest, len - rest);
	try_token(token, strlen(token));
	free(header);
}

static void try_keys(const char *text, size_t len, bool jwks)
{
	struct token_keys *keys = token_keys_new("", "", 0);
	char fault[TOKEN_TEXT] = "";
	int rc;

	if (jwks)
		rc = token_keys_add_jwks(keys, text, len, fault);
	else
		rc = token_keys_add(keys, "k", (enum token_alg)(len % 4), text,
				    len, fault);
	check((rc == 0) == (fault[0] == '\0'));
	check(rc != 0 || token_keys_count(keys) > 0);
	check(ERR_peek_error() == 0);
	token_keys_free(keys);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;

	if (size == 0)
		return 0;
	switch (data[0]) {
	case 't':
		try_token(text, size - 1);
		break;
	case 's':
		try_signed(text, size - 1);
		break;
	case 'j':
		try_keys(text, size - 1, true);
		break;
	case 'p':
		try_keys(text, size - 1, false);
		break;
	}
	return 0;
}
