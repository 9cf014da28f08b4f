/* stentor.v1.PublisherService */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "dispatcher/dispatcher.h"

#include <stdlib.h>

typedef Stentor__V1__PublishRequest Request;
typedef Stentor__V1__PublishResponse Response;
typedef Stentor__V1__PublishResult Result;

static struct dispatcher *dispatcher_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

static void publish_one(struct dispatcher *d, const Request *request,
			struct publish_result *outcome)
{
	publish_message(&d->publisher, request, clock_wall_us(), outcome);
}

static void observe_duration(struct rpc_call *call)
{
	uint64_t us = (clock_monotonic_ns() - call->started_ns) / 1000;

	metric_observe_us(&dispatcher_of(call)->metrics, DM_PUBLISH_DURATION, 0,
			  us, 1);
}

static void to_response(struct publish_result *outcome, Response *response)
{
	stentor__v1__publish_response__init(response);
	response->message_id = outcome->message_id;
	response->nodes = outcome->nodes;
}

static void to_result(struct publish_result *outcome, Response *response,
		      Result *result)
{
	stentor__v1__publish_result__init(result);
	result->code = outcome->code;
	result->error = outcome->error;
	if (outcome->code == GRPC_OK) {
		to_response(outcome, response);
		result->response = response;
	}
}

static void on_publish(struct rpc_call *call, const ProtobufCMessage *m)
{
	struct publish_result outcome;
	Response response;

	publish_one(dispatcher_of(call), (const Request *)m, &outcome);
	observe_duration(call);
	if (outcome.code != GRPC_OK) {
		rpc_fail(call, outcome.code, "%s", outcome.error);
		return;
	}
	to_response(&outcome, &response);
	rpc_reply(call, &response.base);
}

/* One message's share of a batch's answer. */
struct batch_item {
	struct publish_result outcome;
	Response response;
	Result result;
};

static void on_publish_batch(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Stentor__V1__PublishBatchRequest *batch =
		(const Stentor__V1__PublishBatchRequest *)m;
	Stentor__V1__PublishBatchResponse answer =
		STENTOR__V1__PUBLISH_BATCH_RESPONSE__INIT;
	struct batch_item *items;

	if (batch->n_messages > PUBLISH_BATCH_MAX) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "messages: %zu, the limit is %d", batch->n_messages,
			 PUBLISH_BATCH_MAX);
		return;
	}
	items = xcalloc(batch->n_messages, sizeof(*items));
	answer.results = xcalloc(batch->n_messages, sizeof(*answer.results));
	for (size_t i = 0; i < batch->n_messages; i++) {
		publish_one(dispatcher_of(call), batch->messages[i],
			    &items[i].outcome);
		to_result(&items[i].outcome, &items[i].response,
			  &items[i].result);
		answer.results[answer.n_results++] = &items[i].result;
	}
	observe_duration(call);
	rpc_reply(call, &answer.base);
	free(answer.results);
	free(items);
}

static void on_stream_message(struct rpc_call *call, const ProtobufCMessage *m)
{
	struct publish_result outcome;
	Response response;
	Result result;

	publish_one(dispatcher_of(call), (const Request *)m, &outcome);
	to_result(&outcome, &response, &result);
	rpc_send(call, &result.base);
}

static const struct rpc_method methods[] = {
	{
		.name = "Publish",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_response__descriptor,
		.on_message = on_publish,
	},
	{
		.name = "PublishBatch",
		.input = &stentor__v1__publish_batch_request__descriptor,
		.output = &stentor__v1__publish_batch_response__descriptor,
		.on_message = on_publish_batch,
	},
	{
		.name = "PublishStream",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_result__descriptor,
		.client_streaming = true,
		.server_streaming = true,
		.on_message = on_stream_message,
	},
};

struct rpc_service publisher_service(struct dispatcher *d)
{
	return (struct rpc_service){
		.name = "stentor.v1.PublisherService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = d,
	};
}
