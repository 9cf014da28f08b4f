/* stentor.v1.PublisherService; its batches are in batches.c */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "dispatcher/service/outcome.h"
#include "dispatcher/service/service.h"
#include "dispatcher/service/share.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__V1__PublishRequest Request;

static struct publisher_service *
publisher_service_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

/* --- Publish ----------------------------------------------------------- */

static void answer_publish(struct rpc_call *call,
			   const struct publish_result *outcome)
{
	struct answer answer;

	calls_observe(&publisher_service_of(call)->calls, call);
	if (outcome->code != GRPC_OK) {
		rpc_fail(call, outcome->code, "%s", outcome->error);
		return;
	}
	answer_response(&answer, outcome->message_id, &outcome->place,
			outcome->nodes);
	rpc_reply(call, &answer.response.base);
}

static void publisher_on_published(void *ctx,
				   const struct publish_result *outcome)
{
	calls_published(ctx);
	answer_publish(ctx, outcome);
}

/* May this connection have another message that waits for the store? */
static bool may_wait(const struct rpc_call *call)
{
	const struct publisher *p = publisher_service_of(call)->calls.publisher;

	return share_allows(call->peer->pending, publish_pending(p),
			    p->pending_max, 1);
}

static void on_publish(struct rpc_call *call, const ProtobufCMessage *m)
{
	struct publish_calls *calls = &publisher_service_of(call)->calls;
	struct publisher *p = calls->publisher;
	const Request *request = (const Request *)m;
	struct publish_result outcome;

	if (!may_wait(call) &&
	    rule_reliable(rules_match(p->rules, request->channel))) {
		calls->share_refused++;
		publish_refuse(p, request->channel, GRPC_UNAVAILABLE,
			       "too many messages of this connection wait for "
			       "the store; nothing was published, retry",
			       &outcome);
		answer_publish(call, &outcome);
	} else if (calls_publish(calls, call, request, &outcome,
				 publisher_on_published, call)) {
		answer_publish(call, &outcome);
	}
}

/* --- PublishStream ----------------------------------------------------- */

/* Results leave in the order of requests: one that is known waits behind those
 * that are not. */
struct stream {
	struct publisher_service *service;
	struct list in_service;
	struct rpc_call *call;
	struct list waiting; /* struct stream_item.in_stream, in order */
	size_t waiting_count;
	bool paused; /* a limit is reached: no requests */
	bool ending; /* when nothing waits any more, with: */
	enum grpc_code code;
	const char *text;
};

struct stream_item {
	struct list in_stream;
	struct stream *stream;
	bool known;
	struct outcome outcome;
};

static struct stream *stream_of(struct rpc_call *call)
{
	struct publisher_service *p = publisher_service_of(call);
	struct stream *s = call->state;

	if (s != NULL)
		return s;
	s = xcalloc(1, sizeof(*s));
	s->service = p;
	s->call = call;
	s->text = "";
	list_init(&s->waiting);
	list_push_back(&p->streams, &s->in_service);
	call->state = s;
	if (call->token != NULL)
		p->token_end_s =
			min_of(p->token_end_s, call->token->claims->exp_s);
	return s;
}

static struct stream_item *item_new(struct stream *s)
{
	struct stream_item *item = slab_alloc(&s->service->stream_items);

	item->stream = s;
	item->known = false;
	list_push_back(&s->waiting, &item->in_stream);
	s->waiting_count++;
	s->call->peer->stream_items++;
	return item;
}

static void item_free(struct stream_item *item)
{
	struct stream *s = item->stream;

	list_remove(&item->in_stream);
	s->waiting_count--;
	s->call->peer->stream_items--;
	slab_free(&s->service->stream_items, item);
}

static bool item_first(const struct stream_item *item)
{
	return item->stream->waiting.next == &item->in_stream;
}

static void send_outcome(struct rpc_call *call, const struct outcome *o)
{
	struct answer answer;

	answer_result(&answer, o);
	rpc_send(call, &answer.result.base);
}

static void send_result(struct rpc_call *call, const struct publish_result *r)
{
	struct outcome o = outcome_of(r);

	send_outcome(call, &o);
}

/* Whether its connection may have more under way. */
static bool stream_shares(const struct stream *s)
{
	return may_wait(s->call) && share_allows(s->call->peer->stream_items,
						 s->service->stream_items.used,
						 STREAMS_WAITING_MAX, 1);
}

static void stream_limit(struct stream *s)
{
	if (s->paused ||
	    (s->waiting_count < STREAM_WAITING_MAX && stream_shares(s)))
		return;
	s->paused = true;
	rpc_pause(s->call);
}

/* One of which nothing waits goes on in any case: nothing else would ever
 * resume it. */
static bool stream_may_resume(const struct stream *s)
{
	return s->waiting_count == 0 ||
	       (s->waiting_count <= STREAM_WAITING_MAX / 2 && stream_shares(s));
}

static void stream_end(struct stream *s)
{
	struct rpc_call *call = s->call;
	enum grpc_code code = s->code;
	const char *text = s->text;

	list_remove(&s->in_service);
	free(s);
	rpc_finish(call, code, "%s", text);
}

/* After a result: sends those behind it that are known. May end the stream. */
static void stream_advance(struct stream *s)
{
	while (!list_empty(&s->waiting)) {
		struct stream_item *item = container_of(
			s->waiting.next, struct stream_item, in_stream);

		if (!item->known)
			break;
		send_outcome(s->call, &item->outcome);
		free(item->outcome.error);
		item_free(item);
	}
	if (s->paused && stream_may_resume(s)) {
		s->paused = false;
		if (s->code == GRPC_OK)
			rpc_resume(s->call);
	}
	if (s->ending && s->waiting_count == 0)
		stream_end(s);
}

static void on_stream_published(void *ctx, const struct publish_result *result)
{
	struct stream_item *item = ctx;
	struct stream *s = item->stream;

	calls_published(s->call);
	if (!item_first(item)) {
		item->known = true;
		outcome_keep(&item->outcome, result);
		return;
	}
	item_free(item);
	send_result(s->call, result);
	stream_advance(s);
}

/* No more requests. What waits is published all the same; if the call is
 * cancelled, its answers go nowhere. */
static void on_stream_over(struct rpc_call *call)
{
	struct stream *s = stream_of(call);

	s->ending = true;
	stream_advance(s);
}

/* The same, because of us. */
static void stream_stop(struct stream *s, enum grpc_code code, const char *text)
{
	if (!s->ending) {
		s->code = code;
		s->text = text;
		rpc_pause(s->call);
	}
	on_stream_over(s->call);
}

/* True if the stream has ended with its token. */
static bool stream_outlived(struct stream *s)
{
	if (access_lasts(s->service->calls.access, s->call))
		return false;
	stream_stop(s, GRPC_UNAUTHENTICATED,
		    "the token has expired or was revoked");
	return true;
}

static void on_stream_message(struct rpc_call *call, const ProtobufCMessage *m)
{
	bool first = call->state == NULL;
	struct stream *s = stream_of(call);
	struct stream_item *item;
	struct publish_result result;

	/* The head, with the token, may have come long before. */
	if (first && stream_outlived(s))
		return;
	item = item_new(s);
	if (calls_publish(&s->service->calls, call, (const Request *)m, &result,
			  on_stream_published, item)) {
		if (item_first(item)) { /* and the only one */
			item_free(item);
			send_result(call, &result);
			return;
		}
		item->known = true;
		outcome_keep(&item->outcome, &result);
	}
	stream_limit(s);
}

static void on_stream_drain(struct rpc_call *call, const char *why)
{
	stream_stop(stream_of(call), GRPC_UNAVAILABLE, why);
}

void publisher_service_look(struct publisher_service *p)
{
	p->token_end_s = UINT64_MAX;
	list_for_each_safe (node, &p->streams) {
		struct stream *s =
			container_of(node, struct stream, in_service);

		if (s->call->token != NULL && !stream_outlived(s))
			p->token_end_s = min_of(p->token_end_s,
						s->call->token->claims->exp_s);
	}
}

void publisher_service_tick(struct publisher_service *p)
{
	if (clock_wall_ms() / 1000 >= p->token_end_s)
		publisher_service_look(p);
}

/* --- the service ------------------------------------------------------- */

static void on_batch(struct rpc_call *call, struct items *request)
{
	batches_take(&publisher_service_of(call)->batches, call, request);
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
		.on_list = on_batch,
		.on_cancel = batches_give_up,
	},
	{
		.name = "PublishStream",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_result__descriptor,
		.client_streaming = true,
		.server_streaming = true,
		.on_message = on_stream_message,
		.on_half_close = on_stream_over,
		.on_cancel = on_stream_over,
		.on_drain = on_stream_drain,
	},
};

void publisher_service_init(struct publisher_service *p, uv_loop_t *loop,
			    const struct publish_calls *calls,
			    const struct batches_limits *limits)
{
	p->calls = *calls;
	list_init(&p->streams);
	p->token_end_s = UINT64_MAX;
	slab_init(&p->stream_items, sizeof(struct stream_item));
	batches_init(&p->batches, loop, &p->calls, limits);
}

void publisher_service_close(struct publisher_service *p)
{
	batches_close(&p->batches);
}

void publisher_service_fini(struct publisher_service *p)
{
	slab_fini(&p->stream_items);
}

struct rpc_service publisher_service(struct publisher_service *p)
{
	return (struct rpc_service){
		.name = "stentor.v1.PublisherService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = p,
		.auth = p->calls.access->auth,
	};
}
