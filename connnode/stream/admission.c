#include "connnode/stream/admission.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/io/gossip.h"
#include "connnode/stream/session.h"
#include "connnode/stream/stream.h"

#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define COOKIE "stentor_token"

/* --- where tokens stand -------------------------------------------------- */

/* More of them are not looked at. */
#define CREDENTIALS_MAX 4

struct credential {
	const char *text;
	size_t len;
	bool in_url;
};

struct credentials {
	struct credential all[CREDENTIALS_MAX];
	size_t count;
};

static void credential_add(struct credentials *found, const char *text,
			   size_t len, bool in_url)
{
	if (len > 0 && found->count < CREDENTIALS_MAX)
		found->all[found->count++] =
			(struct credential){text, len, in_url};
}

static void find_bearer(struct credentials *found, const char *header)
{
	if (strncasecmp(header, "Bearer ", 7) != 0)
		return;
	header += 7 + strspn(header + 7, " ");
	credential_add(found, header, strcspn(header, " \t"), false);
}

/* RFC 6265 4.2.1: name=value pairs, "; " between them; a name may be there
 * twice, from two paths or domains. */
static void find_cookies(struct credentials *found, const char *header)
{
	size_t name = strlen(COOKIE);

	while (*header != '\0') {
		header += strspn(header, " ;");
		if (strncmp(header, COOKIE, name) == 0 && header[name] == '=')
			credential_add(found, header + name + 1,
				       strcspn(header + name + 1, "; "), false);
		header += strcspn(header, ";");
	}
}

/* What the page says comes before what its browser adds: a cookie may be a
 * left-over of somebody who has gone. */
static void find_credentials(const struct http1_request *r,
			     const struct stream_request *want,
			     struct credentials *found)
{
	const char *header;
	size_t at = 0;

	found->count = 0;
	while ((header = http1_next(r, "authorization", &at)) != NULL)
		find_bearer(found, header);
	if (want->token != NULL)
		credential_add(found, want->token, strlen(want->token), true);
	at = 0;
	while ((header = http1_next(r, "cookie", &at)) != NULL)
		find_cookies(found, header);
}

/* --- what it allows ---------------------------------------------------- */

static bool needs_token(const struct admission *a, const char *channel)
{
	return rules_match(a->use.rules, channel)->access == ACCESS_TOKEN;
}

static bool any_needs_token(const struct admission *a,
			    const struct stream_request *want)
{
	for (size_t i = 0; i < want->count; i++) {
		if (needs_token(a, want->channel[i]))
			return true;
	}
	return false;
}

static bool covers(const struct admission *a, const struct token_claims *claims,
		   const struct stream_request *want)
{
	for (size_t i = 0; i < want->count; i++) {
		if (needs_token(a, want->channel[i]) &&
		    !token_may_subscribe(claims, want->channel[i]))
			return false;
	}
	return true;
}

/* Only what has to be verified costs the budget. 0, or as admission_check().
 */
static int verify(struct admission *a, struct session *s,
		  const struct credential *c)
{
	struct sockaddr_storage peer = {.ss_family = AF_INET};
	const struct sockaddr *address = (struct sockaddr *)&peer;
	socklen_t len = sizeof(peer);
	bool known;

	if (c->len > TOKEN_BYTES_MAX)
		return c->in_url ? 414 : 431;
	known = auth_remembers(a->auth, c->text, c->len);
	if (!known)
		(void)getpeername(s->fd, (struct sockaddr *)&peer, &len);
	if (!known &&
	    !scrutiny_take(&a->scrutiny, address, sessions_now(s->all)))
		return 503;
	if (auth_check(a->auth, c->text, c->len, &s->token) == TOKEN_OK)
		return 0;
	if (!known)
		scrutiny_failed(&a->scrutiny, address);
	return 401;
}

int admission_check(struct admission *a, struct session *s,
		    const struct http1_request *r,
		    const struct stream_request *want)
{
	struct credentials found;
	int status = 401;

	if (a->auth == NULL || !any_needs_token(a, want))
		return 0;
	find_credentials(r, want, &found);
	for (size_t i = 0; i < found.count && s->token == NULL; i++) {
		int fault = verify(a, s, &found.all[i]);

		/* Who has a chance later is not told that there is none. */
		if (status != 503 && fault != 401)
			status = fault;
	}
	if (s->token == NULL)
		return status;
	if (covers(a, s->token->claims, want))
		return 0;
	auth_token_release(a->auth, s->token);
	s->token = NULL;
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
	struct admission *a = ctx;

	/* Else it is remembered, by what the ring tells. */
	if (a->started)
		shared_revoke(a->use.shared, r);
}

void admission_join(struct session *s)
{
	if (s->token != NULL)
		list_push_back(&s->token->users, &s->in_token);
}

void admission_leave(struct admission *a, struct session *s)
{
	list_remove(&s->in_token);
	if (s->token != NULL)
		auth_token_release(a->auth, s->token);
	s->token = NULL;
}

unsigned admission_run(struct admission *a, unsigned budget)
{
	unsigned most = min_of(budget, (unsigned)ADMISSION_SLICE), i;
	struct frame *news;

	if (a->auth == NULL)
		return 0;
	news = gossip_news(a->auth);
	if (news != NULL) {
		announcer_tell(a->use.announcer, NULL, news);
		frame_release(news);
	}
	for (i = 0; i < most; i++) {
		struct auth_token *token = auth_next_revoked(a->auth);
		struct session *s;

		if (token == NULL)
			break;
		s = container_of(token->users.next, struct session, in_token);
		list_remove(&s->in_token);
		if (s->phase == SESSION_STREAM && !s->doomed)
			s->all->ops->send_away(s, "token_revoked",
					       CLOSED_TOKEN);
	}
	return i;
}

bool admission_pending(const struct admission *a)
{
	return a->auth != NULL &&
	       (auth_next_revoked(a->auth) != NULL || auth_has_news(a->auth));
}

/* What earlier processes of this worker have heard of: no dispatcher may be
 * there to tell it again. */
static void remember(struct admission *a)
{
	struct auth_revocation r;
	uint64_t taken = 0, lost = 0, kept = 0;

	while (shared_revoked(a->use.shared, &taken, &lost, &r))
		kept += auth_revoke(a->auth, &r) == 0;
	if (kept + lost > 0)
		log_info("REVOCATIONS-REMEMBERED", "count=%llu lost=%llu",
			 (unsigned long long)kept, (unsigned long long)lost);
}

int admission_start(struct admission *a, uv_loop_t *loop,
		    const struct auth_config *config)
{
	int rc = 0;

	if (config != NULL)
		rc = auth_start(loop, config, on_revoked, a, &a->auth);
	if (rc == 0 && a->auth != NULL)
		remember(a);
	a->started = true;
	return rc;
}

void admission_stop(struct admission *a)
{
	if (a->auth != NULL)
		auth_close(a->auth);
	a->auth = NULL;
}
