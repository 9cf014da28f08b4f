#include "connnode/admission.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/io/gossip.h"
#include "connnode/session.h"
#include "connnode/stream.h"

#include <string.h>
#include <strings.h>

#define COOKIE "stentor_token"

/* --- where the token stands -------------------------------------------- */

static size_t bearer(const char *header, const char **token)
{
	if (header == NULL || strncasecmp(header, "Bearer ", 7) != 0)
		return 0;
	*token = header + 7 + strspn(header + 7, " ");
	return strcspn(*token, " \t");
}

/* RFC 6265 4.2.1: name=value pairs, "; " between them. */
static size_t cookie(const char *header, const char **token)
{
	size_t name = strlen(COOKIE);

	while (header != NULL && *header != '\0') {
		header += strspn(header, " ;");
		if (strncmp(header, COOKIE, name) == 0 && header[name] == '=') {
			*token = header + name + 1;
			return strcspn(*token, "; ");
		}
		header += strcspn(header, ";");
	}
	return 0;
}

static size_t find_token(const struct http1_request *r,
			 const struct stream_request *want, const char **token)
{
	size_t len = bearer(http1_get(r, "authorization"), token);

	if (len == 0)
		len = cookie(http1_get(r, "cookie"), token);
	if (len == 0 && want->token != NULL) {
		*token = want->token;
		len = strlen(want->token);
	}
	return len;
}

/* --- what it allows ---------------------------------------------------- */

static bool needs_token(const struct worker *w, const char *channel)
{
	return rules_match(w->rules, channel)->access == ACCESS_TOKEN;
}

static bool any_needs_token(const struct worker *w,
			    const struct stream_request *want)
{
	for (size_t i = 0; i < want->count; i++) {
		if (needs_token(w, want->channel[i]))
			return true;
	}
	return false;
}

static bool covers(const struct worker *w, const struct token_claims *claims,
		   const struct stream_request *want)
{
	for (size_t i = 0; i < want->count; i++) {
		if (needs_token(w, want->channel[i]) &&
		    !token_may_subscribe(claims, want->channel[i]))
			return false;
	}
	return true;
}

int admission_check(struct worker *w, const struct http1_request *r,
		    const struct stream_request *want,
		    struct auth_token **token)
{
	const char *text = NULL;
	size_t len;

	*token = NULL;
	if (w->auth == NULL || !any_needs_token(w, want))
		return 0;
	len = find_token(r, want, &text);
	if (len == 0 || auth_check(w->auth, text, len, token) != TOKEN_OK)
		return 401;
	if (covers(w, (*token)->claims, want))
		return 0;
	auth_token_release(w->auth, *token);
	*token = NULL;
	return 403;
}

uint64_t admission_left_ms(const struct session *s)
{
	uint64_t now_ms = clock_wall_ms(), end_ms;

	if (s->token == NULL)
		return UINT64_MAX;
	/* Leeway is in it, else a token of that time would come and go. */
	end_ms = s->token->claims->exp_s * 1000;
	return end_ms > now_ms ? end_ms - now_ms : 0;
}

/* --- revocations ------------------------------------------------------- */

static void on_revoked(void *ctx, const struct auth_revocation *r)
{
	struct worker *w = ctx;

	/* Else it is remembered, by what the ring tells. */
	if (w->uplink != NULL)
		shared_revoke(w->shared, r);
}

void admission_join(struct session *s)
{
	if (s->token != NULL)
		list_push_back(&s->token->users, &s->in_token);
}

unsigned admission_run(struct worker *w, unsigned budget)
{
	unsigned most = min_of(budget, (unsigned)ADMISSION_SLICE), i;
	struct frame *news;

	if (w->auth == NULL)
		return 0;
	news = gossip_news(w->auth);
	if (news != NULL) {
		announcer_tell(&w->announcer, NULL, news);
		frame_release(news);
	}
	for (i = 0; i < most; i++) {
		struct auth_token *token = auth_next_revoked(w->auth);
		struct session *s;

		if (token == NULL)
			break;
		s = container_of(list_pop_front(&token->users), struct session,
				 in_token);
		if (s->phase == SESSION_STREAM && !s->doomed)
			stream_send_away(s, "token_revoked", CLOSED_TOKEN);
	}
	return i;
}

bool admission_pending(const struct worker *w)
{
	return w->auth != NULL &&
	       (auth_next_revoked(w->auth) != NULL || auth_has_news(w->auth));
}

/* What earlier processes of this worker have heard of: no dispatcher may be
 * there to tell it again. */
static void remember(struct worker *w)
{
	struct auth_revocation r;
	uint64_t taken = 0, lost = 0, kept = 0;

	while (shared_revoked(w->shared, &taken, &lost, &r))
		kept += auth_revoke(w->auth, &r) == 0;
	if (kept + lost > 0)
		log_info("REVOCATIONS-REMEMBERED", "count=%llu lost=%llu",
			 (unsigned long long)kept, (unsigned long long)lost);
}

int admission_start(struct worker *w)
{
	int rc;

	if (w->options->process.auth == AUTH_NONE)
		return 0;
	rc = auth_start(w->loop, w->auth_config, on_revoked, w, &w->auth);
	if (rc == 0)
		remember(w);
	return rc;
}

void admission_stop(struct worker *w)
{
	if (w->auth != NULL)
		auth_close(w->auth);
	w->auth = NULL;
}
