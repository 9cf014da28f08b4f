#include "dispatcher/service/access.h"

#include "common/base/clock.h"
#include "common/io/gossip.h"
#include "dispatcher/dispatcher.h"

/* What one takes out of a bucket, so that each ms puts in the rate. */
#define MESSAGE 1000

static struct dispatcher *dispatcher_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

/* --- what a token allows ----------------------------------------------- */

static bool allow(struct rpc_call *call, bool allowed)
{
	if (!allowed)
		rpc_fail(call, GRPC_PERMISSION_DENIED,
			 "the token does not allow this");
	return allowed;
}

bool access_admin(struct rpc_call *call)
{
	return allow(call, call->token == NULL || call->token->claims->admin);
}

bool access_read(struct rpc_call *call, const char *channel)
{
	const struct rules *rules = &dispatcher_of(call)->rules;

	return allow(
		call,
		call->token == NULL || call->token->claims->admin ||
			token_may_subscribe(call->token->claims, channel) ||
			rules_match(rules, channel)->access == ACCESS_PUBLIC);
}

/* A token bucket, in thousandths of messages. */
static bool take(struct auth_token *t, uint64_t rate, uint64_t burst,
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

enum grpc_code access_publish(struct rpc_call *call, const char *channel,
			      const char **why)
{
	struct dispatcher *d = dispatcher_of(call);
	const struct dispatcher_options *o = &d->options;

	if (call->token == NULL)
		return GRPC_OK;
	if (!token_may_publish(call->token->claims, channel)) {
		*why = "the token does not allow this";
		return GRPC_PERMISSION_DENIED;
	}
	if (o->publish_rate_max == 0 ||
	    take(call->token, o->publish_rate_max, o->publish_burst_max,
		 uv_now(d->loop)))
		return GRPC_OK;
	d->rate_limited++;
	*why = "more messages a second than one token may publish; slow down";
	return GRPC_RESOURCE_EXHAUSTED;
}

bool access_lasts(const struct rpc_call *call)
{
	const struct dispatcher *d = dispatcher_of(call);

	return call->token == NULL ||
	       (call->token->claims->exp_s > clock_wall_ms() / 1000 &&
		!auth_revoked(d->auth, call->token->claims));
}

/* --- revocations ------------------------------------------------------- */

static void on_revoked(void *ctx, const struct auth_revocation *r UNUSED)
{
	struct dispatcher *d = ctx;

	d->revoked = true;
}

bool access_run(struct dispatcher *d)
{
	struct frame *news;

	if (d->auth == NULL)
		return false;
	news = gossip_news(d->auth);
	if (news != NULL) {
		nodes_tell(&d->nodes, news);
		frame_release(news);
	}
	if (d->revoked)
		publisher_service_look(d);
	d->revoked = false;
	return auth_has_news(d->auth);
}

struct brief {
	struct dispatcher *dispatcher;
	struct node_worker *worker;
};

static void tell(void *ctx, struct frame *control)
{
	struct brief *b = ctx;

	nodes_tell_worker(&b->dispatcher->nodes, b->worker, control);
}

void access_brief(void *ctx, struct node_worker *w)
{
	struct brief b = {ctx, w};

	if (b.dispatcher->auth != NULL)
		gossip_all(b.dispatcher->auth, tell, &b);
}

void access_heard(void *ctx, const LinkFrame *f)
{
	struct dispatcher *d = ctx;

	if (d->auth != NULL)
		gossip_take(d->auth, f);
}

/* --- the whole --------------------------------------------------------- */

int access_start(struct dispatcher *d)
{
	if (d->options.process.auth == AUTH_NONE)
		return 0;
	return auth_start(d->loop, &d->auth_config, on_revoked, d, &d->auth);
}

void access_stop(struct dispatcher *d)
{
	auth_close(d->auth);
	d->auth = NULL;
}
