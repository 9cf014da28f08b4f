/* auth.h - who may come in: the keys of the configuration's `auth:` section,
 * read again when their files change, tokens that were checked lately, and
 * tokens that were revoked.
 *
 * Checked tokens are remembered (AUTH_CACHE_MAX, the longest unused goes) until
 * they expire, because a signature costs 30 us and more. Revocations are kept
 * until no token that they mean can be valid any more, at most
 * AUTH_REVOCATIONS_MAX; processes tell them to one another over the links.
 *
 * A revocation costs what it ends: tokens in use are found by sub and by jti,
 * and what was revoked is collected by the owner of the loop at its own pace
 * (auth_next_revoked(), auth_news_take()), however many come at once.
 *
 * Tokens are never logged, nor kept: the cache knows their keyed hash.
 */
#ifndef STENTOR_IO_AUTH_H
#define STENTOR_IO_AUTH_H

#include "common/base/config.h"
#include "common/codec/token.h"
#include "common/ds/list.h"

#include <uv.h>

#define AUTH_CACHE_MAX	     4096
#define AUTH_REVOCATIONS_MAX 10000
#define AUTH_WATCH_MS	     2000 /* between looks at key files */

struct auth;

/* Claims shared by all who came with the same token; the last release frees.
 * `bucket` is for whoever limits rates by token; `users` are the holders' own
 * list nodes, of those who want to hear that it was revoked. */
struct auth_token {
	uint32_t refs;
	const struct token_claims *claims;
	struct list users;
	uint64_t bucket, bucket_ms;
};

struct auth_revocation {
	char sub[TOKEN_ID_MAX + 1], jti[TOKEN_ID_MAX + 1]; /* one is "" */
	uint64_t before_s; /* sub: tokens issued at or before this */
	uint64_t until_s;  /* forgotten after that */
};

/* Whether all keys can be read, before anything is started. ERR_CONFIG with a
 * text for people. */
#define AUTH_FAULT 768
int auth_config_check(const struct auth_config *config,
		      char fault[AUTH_FAULT]) MUST_CHECK;

/* Reads keys, copies the configuration; on a fault (a file that can't be used,
 * or no keys at all) it is logged, which is on stderr, and ERR_CONFIG.
 * `on_revoked` (or NULL) runs for each new revocation, whoever told it, from
 * within auth_revoke(): it must be cheap, and not revoke others. Does not keep
 * the loop alive. */
int auth_start(uv_loop_t *loop, const struct auth_config *config,
	       void (*on_revoked)(void *ctx, const struct auth_revocation *r),
	       void *ctx, struct auth **out) MUST_CHECK;
/* Gone when the loop has turned; NULL is let be. Tokens that are held stay
 * good to be released. */
void auth_close(struct auth *a);
/* New configuration (SIGHUP); a faulty one is logged and changes nothing. */
void auth_reload(struct auth *a, const struct auth_config *config);

/* TOKEN_OK and a reference in *token, or why not (counted by auth_faults()). */
enum token_fault auth_check(struct auth *a, const char *token, size_t len,
			    struct auth_token **out) MUST_CHECK;
void auth_token_release(struct auth *a, struct auth_token *token);
/* Whether auth_check() would find it among those checked lately, so that no
 * signature would have to be verified. */
bool auth_remembers(const struct auth *a, const char *token, size_t len);

/* One that says more than what is kept of the same sub or jti widens that and
 * is new again. ERR_FULL: too many are kept. ERR_EXISTS: known already.
 * ERR_STALE: its time is over. ERR_MALFORMED: not one of sub and jti. */
int auth_revoke(struct auth *a, const struct auth_revocation *r) MUST_CHECK;
bool auth_revoked(const struct auth *a, const struct token_claims *claims);
/* A token that was revoked and has users, whom the caller is to take off its
 * list; the same one until they are gone. NULL: there is none. */
struct auth_token *auth_next_revoked(struct auth *a);
/* The next revocation that is new since it was taken last; NULL: none. */
const struct auth_revocation *auth_news_take(struct auth *a);
bool auth_has_news(const struct auth *a);
/* All that are kept, the oldest first: start with NULL. The list must not
 * change in between. */
const struct auth_revocation *
auth_revocation_next(const struct auth *a, const struct auth_revocation *after);

/* How often auth_check() came to this; TOKEN_OK: those that were let in. */
uint64_t auth_faults(const struct auth *a, enum token_fault fault);
size_t auth_key_count(const struct auth *a);
size_t auth_cached(const struct auth *a);
size_t auth_revocation_count(const struct auth *a);

#endif
