#include "dispatcher/outcome.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "dispatcher/dispatcher.h"

#include <string.h>

void outcome_keep(struct outcome *o, const struct publish_result *r)
{
	o->code = r->code;
	o->nodes = r->nodes;
	o->place = r->place;
	memcpy(o->message_id, r->message_id, sizeof(o->message_id));
	o->error = r->code != GRPC_OK ? xstrdup(r->error) : NULL;
}

void answer_response(struct answer *a, const char *message_id,
		     const struct store_place *place, uint32_t nodes)
{
	stentor__v1__publish_response__init(&a->response);
	a->response.message_id = (char *)message_id;
	a->response.nodes = nodes;
	if (place->epoch == 0)
		return;
	stentor__v1__position__init(&a->position);
	a->position.epoch = place->epoch;
	a->position.offset = place->offset;
	a->response.position = &a->position;
}

void answer_failure(struct answer *a, enum grpc_code code, const char *error)
{
	stentor__v1__publish_result__init(&a->result);
	a->result.code = code;
	a->result.error = (char *)error;
}

void answer_result(struct answer *a, const struct outcome *o)
{
	if (o->code != GRPC_OK) {
		answer_failure(a, o->code, o->error);
		return;
	}
	answer_response(a, o->message_id, &o->place, o->nodes);
	stentor__v1__publish_result__init(&a->result);
	a->result.response = &a->response;
}

/* --- calls ------------------------------------------------------------- */

static struct dispatcher *dispatcher_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

bool call_publish(struct rpc_call *call,
		  const Stentor__V1__PublishRequest *request,
		  struct publish_result *outcome, publish_done_cb done,
		  void *ctx)
{
	struct publisher *p = &dispatcher_of(call)->publisher;
	const char *why;
	enum grpc_code code = access_publish(call, request->channel, &why);

	if (code != GRPC_OK) {
		publish_refuse(p, request->channel, code, why, outcome);
		return true;
	}
	if (publish_message(p, request, clock_wall_us(), outcome, done, ctx))
		return true;
	call->peer->pending++;
	return false;
}

void call_published(struct rpc_call *call)
{
	check(call->peer->pending > 0);
	call->peer->pending--;
}

void call_observe(struct rpc_call *call)
{
	uint64_t us = (clock_monotonic_ns() - call->started_ns) / 1000;

	metric_observe_us(&dispatcher_of(call)->metrics, DM_PUBLISH_DURATION, 0,
			  us, 1);
}
