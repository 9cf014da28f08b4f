#include "dispatcher/service/access.h"

#include "common/base/clock.h"
#include "common/io/gossip.h"

/* What one takes out of a bucket, so that each ms puts in the rate. */
#define MESSAGE 1000

/* --- what a token allows ----------------------------------------------- */

static bool access_allow(struct rpc_call *call, bool allowed)
{
	if (!allowed)
		rpc_fail(call, GRPC_PERMISSION_DENIED,
			 "the token does not allow this");
	return allowed;
}

bool access_admin(struct rpc_call *call)
{
	return access_allow(call,
			    call->token == NULL || call->token->claims->admin);
}

bool access_read(const struct access_control *a, struct rpc_call *call,
		 const char *channel)
{
	const struct rules *rules = a->config.rules;

	return access_allow(
		call,
		call->token == NULL || call->token->claims->admin ||
			token_may_subscribe(call->token->claims, channel) ||
			rules_match(rules, channel)->access == ACCESS_PUBLIC);
}

/* A token bucket, in thousandths of messages. */
static bool access_take(struct auth_token *t, uint64_t rate, uint64_t burst,
			uint64_t now_ms)
{
	uint64_t full = burst * MESSAGE;

	t->bucket = t->bucket_ms == 0
			    ? full
			    : min_of(full, t->bucket + (now_ms - t->bucket_ms) *
							       rate);
	t->bucket_ms = now_ms;
	if (t->bucket < MESSAGE)
		return false;
	t->bucket -= MESSAGE;
	return true;
}

enum grpc_code access_publish(struct access_control *a, struct rpc_call *call,
			      const char *channel, const char **why)
{
	const struct access_config *c = &a->config;

	if (call->token == NULL)
		return GRPC_OK;
	if (!token_may_publish(call->token->claims, channel)) {
		*why = "the token does not allow this";
		return GRPC_PERMISSION_DENIED;
	}
	if (c->rate_max == 0 || access_take(call->token, c->rate_max,
					    c->burst_max, uv_now(a->loop)))
		return GRPC_OK;
	a->rate_limited++;
	*why = "more messages a second than one token may publish; slow down";
	return GRPC_RESOURCE_EXHAUSTED;
}

bool access_lasts(const struct access_control *a, const struct rpc_call *call)
{
	return call->token == NULL ||
	       (call->token->claims->exp_s > clock_wall_ms() / 1000 &&
		!auth_revoked(a->auth, call->token->claims));
}

/* --- revocations ------------------------------------------------------- */

static void access_on_revoked(void *ctx, const struct auth_revocation *r UNUSED)
{
	struct access_control *a = ctx;

	a->revoked = true;
}

bool access_run(struct access_control *a)
{
	struct frame *news;

	if (a->auth == NULL)
		return false;
	news = gossip_news(a->auth);
	if (news != NULL) {
		nodes_tell(a->config.nodes, news);
		frame_release(news);
	}
	if (a->revoked)
		a->config.on_revoked(a->config.ctx);
	a->revoked = false;
	return auth_has_news(a->auth);
}

struct brief {
	struct nodes *nodes;
	struct node_worker *worker;
};

static void access_tell(void *ctx, struct frame *control)
{
	struct brief *b = ctx;

	nodes_tell_worker(b->nodes, b->worker, control);
}

void access_brief(struct access_control *a, struct node_worker *w)
{
	struct brief b = {a->config.nodes, w};

	if (a->auth != NULL)
		gossip_all(a->auth, access_tell, &b);
}

void access_heard(struct access_control *a, const LinkFrame *f)
{
	if (a->auth != NULL)
		gossip_take(a->auth, f);
}

/* --- the whole --------------------------------------------------------- */

int access_start(struct access_control *a, uv_loop_t *loop,
		 const struct access_config *config,
		 const struct auth_config *keys)
{
	*a = (struct access_control){.config = *config, .loop = loop};
	if (keys == NULL)
		return 0;
	return auth_start(loop, keys, access_on_revoked, a, &a->auth);
}

void access_stop(struct access_control *a)
{
	auth_close(a->auth);
	a->auth = NULL;
}
