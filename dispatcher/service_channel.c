/* stentor.v1.ChannelService */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/channel.h"
#include "dispatcher/dispatcher.h"
#include "stentor/v1/channel.pb-c.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__V1__GetChannelRequest Request;
typedef Stentor__V1__GetChannelResponse Response;

/* A question under way: the call, and the channel it asks for. */
struct question {
	struct rpc_call *call;
	char *channel;
};

static void on_counted(void *ctx, const struct count_result *counted)
{
	struct question *q = ctx;
	struct dispatcher *d = q->call->service->ctx;
	const struct rule *rule = rules_match(&d->rules, q->channel);
	Stentor__V1__Rule shown = STENTOR__V1__RULE__INIT;
	Response response = STENTOR__V1__GET_CHANNEL_RESPONSE__INIT;

	shown.pattern = rule->pattern;
	shown.priority = (Stentor__V1__Priority)(rule->priority + 1);
	shown.lagging = (char *)lagging_names[rule->lagging];
	response.channel = q->channel;
	response.subscribers = counted->subscribers;
	response.nodes = counted->nodes;
	response.workers = counted->workers;
	response.complete = counted->complete;
	response.rule = &shown;
	rpc_reply(q->call, &response.base);
	free(q->channel);
	free(q);
}

static void on_get_channel(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Request *request = (const Request *)m;
	struct dispatcher *d = call->service->ctx;
	struct question *q;

	if (!channel_name_valid(request->channel, strlen(request->channel))) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "channel: must be 1 to %d bytes of "
			 "[A-Za-z0-9_.:~@/-]",
			 CHANNEL_NAME_MAX);
		return;
	}
	q = xmalloc(sizeof(*q));
	q->call = call;
	q->channel = xstrdup(request->channel);
	if (counts_ask(&d->counts, q->channel, uv_now(d->loop), on_counted,
		       q) != 0) {
		free(q->channel);
		free(q);
		rpc_fail(call, GRPC_RESOURCE_EXHAUSTED,
			 "more than %d channels are being counted", COUNTS_MAX);
	}
}

static const struct rpc_method methods[] = {
	{
		.name = "GetChannel",
		.input = &stentor__v1__get_channel_request__descriptor,
		.output = &stentor__v1__get_channel_response__descriptor,
		.no_side_effects = true,
		.on_message = on_get_channel,
	},
};

struct rpc_service channel_service(struct dispatcher *d)
{
	return (struct rpc_service){
		.name = "stentor.v1.ChannelService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = d,
	};
}
