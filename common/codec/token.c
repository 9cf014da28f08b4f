/* Checking a token, in this order: its form, its key, its signature, what it
 * claims. Claims are not looked at before the signature is known to be good, so
 * a stranger reaches no more than base64 and one JSON object. */
#include "common/codec/token.h"

#include "common/base/mem.h"
#include "common/codec/base64.h"
#include "common/codec/channel.h"
#include "common/codec/token_internal.h"

#include <jansson.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

const char *const token_fault_names[TOKEN_FAULTS + 1] = {
	[TOKEN_OK] = "ok",
	[TOKEN_MALFORMED] = "malformed",
	[TOKEN_UNKNOWN_KEY] = "unknown_key",
	[TOKEN_BAD_ALG] = "bad_alg",
	[TOKEN_BAD_SIGNATURE] = "bad_signature",
	[TOKEN_EXPIRED] = "expired",
	[TOKEN_NOT_YET] = "not_yet",
	[TOKEN_BAD_ISSUER] = "bad_issuer",
	[TOKEN_BAD_AUDIENCE] = "bad_audience",
	[TOKEN_REVOKED] = "revoked",
};

/* --- form -------------------------------------------------------------- */

enum { HEADER, CLAIMS, SIGNATURE, PARTS };

struct part {
	size_t len; /* of the bytes that it decodes to */
	uint8_t bytes[TOKEN_BYTES_MAX];
};

bool token_base64url(const char *text, size_t len, uint8_t *bytes,
		     size_t *bytes_len)
{
	static const int spare_bits[] = {0, 0, 15, 3};
	size_t over = len % 4;

	for (size_t i = 0; i < len; i++)
		if (text[i] == '+' || text[i] == '/' ||
		    base64_digit(text[i]) < 0)
			return false;
	if (len == 0 || over == 1 ||
	    (base64_digit(text[len - 1]) & spare_bits[over]) != 0)
		return false;
	return base64_decode(text, len, bytes, bytes_len) == 0;
}

/* `len` is at most TOKEN_BYTES_MAX. */
static bool split(const char *token, size_t len, struct part parts[PARTS])
{
	const char *end = token + len;

	for (int i = 0; i < PARTS; i++) {
		const char *dot = memchr(token, '.', (size_t)(end - token));
		const char *stop = dot != NULL ? dot : end;

		if ((dot == NULL) != (i == PARTS - 1) ||
		    !token_base64url(token, (size_t)(stop - token),
				     parts[i].bytes, &parts[i].len))
			return false;
		if (dot != NULL)
			token = dot + 1;
	}
	return true;
}

/* A JSON object with each member once; NULL: it is none. */
static json_t *parse(const struct part *part)
{
	json_t *json = json_loadb((const char *)part->bytes, part->len,
				  JSON_REJECT_DUPLICATES, NULL);

	if (json_is_object(json))
		return json;
	json_decref(json);
	return NULL;
}

/* --- key and signature ------------------------------------------------- */

/* What else a header may hold (jwk, jku, x5u, x5c) is the sender's word and
 * counts for nothing; only `crit` says that it must not be passed over. */
static enum token_fault choose_key(const struct token_keys *keys,
				   const json_t *header,
				   const struct token_key **key)
{
	const json_t *kid = json_object_get(header, "kid");
	const json_t *alg = json_object_get(header, "alg");

	if (json_object_get(header, "crit") != NULL || !json_is_string(alg) ||
	    (kid != NULL && !json_is_string(kid)))
		return TOKEN_MALFORMED;
	if (kid != NULL)
		*key = token_keys_find(keys, json_string_value(kid));
	else
		*key = keys->count == 1 ? &keys->key[0] : NULL;
	if (*key == NULL)
		return TOKEN_UNKNOWN_KEY;
	return strcmp(json_string_value(alg), token_alg_names[(*key)->alg]) == 0
		       ? TOKEN_OK
		       : TOKEN_BAD_ALG;
}

/* cjose does not look at the length of every kind of signature itself. */
static bool verify(const struct token_key *key, const char *token, size_t len,
		   const struct part *signature)
{
	cjose_jws_t *jws;
	bool good;

	if (signature->len != key->signature_len)
		return false;
	jws = cjose_jws_import(token, len, NULL);
	good = jws != NULL && cjose_jws_verify(jws, key->jwk, NULL);
	cjose_jws_release(jws);
	/* Else the next TLS connection of this thread would find our fault. */
	ERR_clear_error();
	return good;
}

/* --- claims ------------------------------------------------------------ */

/* A text claim that may be missing ("" then). */
static bool read_id(const json_t *claims, const char *name,
		    char out[TOKEN_ID_MAX + 1])
{
	const json_t *json = json_object_get(claims, name);
	size_t len = json_string_length(json);

	out[0] = '\0';
	if (json == NULL)
		return true;
	if (!json_is_string(json) || len > TOKEN_ID_MAX)
		return false;
	memcpy(out, json_string_value(json), len + 1);
	return true;
}

/* A whole number of seconds that may be missing (`*s` stays). */
static bool read_time(const json_t *claims, const char *name, uint64_t *s)
{
	const json_t *json = json_object_get(claims, name);

	if (json == NULL)
		return true;
	if (!json_is_integer(json) || json_integer_value(json) < 0)
		return false;
	*s = (uint64_t)json_integer_value(json);
	return true;
}

static bool pattern_valid(const char *pattern, size_t len)
{
	if (len == 0 || len > CHANNEL_NAME_MAX)
		return false;
	if (pattern[len - 1] == '*' && --len == 0)
		return true;
	return channel_name_valid(pattern, len);
}

/* Counts patterns and their bytes; false: it is not a list of such. */
static bool measure_patterns(const json_t *list, size_t *count, size_t *bytes)
{
	json_t *json;
	size_t i;

	*count = json_array_size(list);
	if (list == NULL)
		return true;
	if (!json_is_array(list) || *count > TOKEN_PATTERNS_MAX)
		return false;
	json_array_foreach(list, i, json)
	{
		size_t len = json_string_length(json);

		if (!json_is_string(json) ||
		    !pattern_valid(json_string_value(json), len))
			return false;
		*bytes += len + 1;
	}
	return true;
}

/* Copies texts to `at`; returns what is behind them. */
static char *copy_patterns(const json_t *list, char **out, char *at)
{
	json_t *json;
	size_t i;

	json_array_foreach(list, i, json)
	{
		size_t size = json_string_length(json) + 1;

		memcpy(at, json_string_value(json), size);
		out[i] = at;
		at += size;
	}
	return at;
}

/* The lists stand behind the struct: pointers first, then texts. */
static struct token_claims *new_claims(const json_t *json)
{
	const json_t *subscribe = json_object_get(json, "subscribe");
	const json_t *publish = json_object_get(json, "publish");
	size_t subscribes, publishes, bytes = 0;
	struct token_claims *claims;
	char *at;

	if (!measure_patterns(subscribe, &subscribes, &bytes) ||
	    !measure_patterns(publish, &publishes, &bytes))
		return NULL;
	claims = xcalloc(1, sizeof(*claims) +
				    (subscribes + publishes) * sizeof(char *) +
				    bytes);
	claims->subscribe_count = subscribes;
	claims->publish_count = publishes;
	claims->subscribe = (char **)(claims + 1);
	claims->publish = claims->subscribe + subscribes;
	at = (char *)(claims->publish + publishes);
	at = copy_patterns(subscribe, claims->subscribe, at);
	copy_patterns(publish, claims->publish, at);
	return claims;
}

static bool text_is(const json_t *json, const char *text)
{
	return json_is_string(json) &&
	       strcmp(json_string_value(json), text) == 0;
}

/* One text, or a list of texts. */
static enum token_fault check_audience(const json_t *aud, const char *wanted)
{
	bool found = *wanted == '\0' || text_is(aud, wanted);
	json_t *json;
	size_t i;

	if (aud != NULL && !json_is_string(aud) && !json_is_array(aud))
		return TOKEN_MALFORMED;
	json_array_foreach(aud, i, json)
	{
		if (!json_is_string(json))
			return TOKEN_MALFORMED;
		found = found || text_is(json, wanted);
	}
	return found ? TOKEN_OK : TOKEN_BAD_AUDIENCE;
}

static enum token_fault check_issuer(const json_t *iss, const char *wanted)
{
	if (iss != NULL && !json_is_string(iss))
		return TOKEN_MALFORMED;
	return *wanted == '\0' || text_is(iss, wanted) ? TOKEN_OK
						       : TOKEN_BAD_ISSUER;
}

/* `claims` is filled. No time is above INT64_MAX, so sums do not overflow. */
static enum token_fault check_claims(const struct token_keys *keys,
				     const json_t *json, uint64_t now_s,
				     struct token_claims *claims)
{
	const json_t *admin = json_object_get(json, "admin");
	enum token_fault fault;
	uint64_t nbf_s = 0;

	if (json_object_get(json, "exp") == NULL ||
	    !read_time(json, "exp", &claims->exp_s) ||
	    !read_time(json, "nbf", &nbf_s) ||
	    !read_time(json, "iat", &claims->iat_s) ||
	    !read_id(json, "sub", claims->sub) ||
	    !read_id(json, "jti", claims->jti) ||
	    (admin != NULL && !json_is_boolean(admin)))
		return TOKEN_MALFORMED;
	claims->admin = json_is_true(admin);
	claims->exp_s = min_of(claims->exp_s, TOKEN_EXP_MAX_S) + keys->leeway_s;
	if (now_s >= claims->exp_s)
		return TOKEN_EXPIRED;
	if (nbf_s > now_s + keys->leeway_s)
		return TOKEN_NOT_YET;
	fault = check_issuer(json_object_get(json, "iss"), keys->issuer);
	if (fault != TOKEN_OK)
		return fault;
	return check_audience(json_object_get(json, "aud"), keys->audience);
}

static enum token_fault read_claims(const struct token_keys *keys,
				    const json_t *json, uint64_t now_s,
				    struct token_claims **out)
{
	struct token_claims *claims = new_claims(json);
	enum token_fault fault;

	if (claims == NULL)
		return TOKEN_MALFORMED;
	fault = check_claims(keys, json, now_s, claims);
	if (fault != TOKEN_OK) {
		token_claims_free(claims);
		return fault;
	}
	*out = claims;
	return TOKEN_OK;
}

/* --- public ------------------------------------------------------------ */

enum token_fault token_check(const struct token_keys *keys, const char *token,
			     size_t len, uint64_t now_s,
			     struct token_claims **claims)
{
	const struct token_key *key = NULL;
	struct part parts[PARTS];
	enum token_fault fault;
	json_t *json;

	if (len > TOKEN_BYTES_MAX || !split(token, len, parts))
		return TOKEN_MALFORMED;
	json = parse(&parts[HEADER]);
	fault = json != NULL ? choose_key(keys, json, &key) : TOKEN_MALFORMED;
	json_decref(json);
	if (fault != TOKEN_OK)
		return fault;
	if (!verify(key, token, len, &parts[SIGNATURE]))
		return TOKEN_BAD_SIGNATURE;
	json = parse(&parts[CLAIMS]);
	fault = json != NULL ? read_claims(keys, json, now_s, claims)
			     : TOKEN_MALFORMED;
	json_decref(json);
	return fault;
}

void token_claims_free(struct token_claims *claims)
{
	free(claims);
}

static bool any_matches(char *const patterns[], size_t count,
			const char *channel)
{
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(patterns[i]);

		if (patterns[i][len - 1] == '*'
			    ? strncmp(patterns[i], channel, len - 1) == 0
			    : strcmp(patterns[i], channel) == 0)
			return true;
	}
	return false;
}

bool token_may_subscribe(const struct token_claims *claims, const char *channel)
{
	return any_matches(claims->subscribe, claims->subscribe_count, channel);
}

bool token_may_publish(const struct token_claims *claims, const char *channel)
{
	return any_matches(claims->publish, claims->publish_count, channel);
}
