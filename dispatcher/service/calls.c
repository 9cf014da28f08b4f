#include "dispatcher/service/calls.h"

#include "common/base/clock.h"
#include "common/base/metrics.h"
#include "dispatcher/service/access.h"

bool calls_publish(struct publish_calls *all, struct rpc_call *call,
		   const Stentor__V1__PublishRequest *request,
		   struct publish_result *outcome, publish_done_cb done,
		   void *ctx)
{
	const char *why;
	enum grpc_code code =
		access_publish(all->access, call, request->channel, &why);

	if (code != GRPC_OK) {
		publish_refuse(all->publisher, request->channel, code, why,
			       outcome);
		return true;
	}
	if (publish_message(all->publisher, request, clock_wall_us(), outcome,
			    done, ctx))
		return true;
	call->peer->pending++;
	return false;
}

void calls_published(struct rpc_call *call)
{
	check(call->peer->pending > 0);
	call->peer->pending--;
}

void calls_observe(struct publish_calls *all, const struct rpc_call *call)
{
	uint64_t us = (clock_monotonic_ns() - call->started_ns) / 1000;

	metric_observe_us(all->metrics, all->duration, 0, us, 1);
}
