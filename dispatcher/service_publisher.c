/* stentor.v1.PublisherService */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "dispatcher/dispatcher.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__V1__PublishRequest Request;
typedef Stentor__V1__PublishResponse Response;
typedef Stentor__V1__PublishResult Result;
typedef Stentor__V1__Position Position;

static struct dispatcher *dispatcher_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

/* True: the outcome is known; else done(ctx, outcome) follows. */
static bool publish(struct rpc_call *call, const Request *request,
		    struct publish_result *outcome, publish_done_cb done,
		    void *ctx)
{
	struct publisher *p = &dispatcher_of(call)->publisher;
	const char *why;
	enum grpc_code code = access_publish(call, request->channel, &why);

	if (code == GRPC_OK)
		return publish_message(p, request, clock_wall_us(), outcome,
				       done, ctx);
	publish_refuse(p, request->channel, code, why, outcome);
	return true;
}

static void observe_duration(struct rpc_call *call)
{
	uint64_t us = (clock_monotonic_ns() - call->started_ns) / 1000;

	metric_observe_us(&dispatcher_of(call)->metrics, DM_PUBLISH_DURATION, 0,
			  us, 1);
}

/* What is kept of a publish_result until it is its turn. */
struct outcome {
	enum grpc_code code;
	uint32_t nodes;
	struct store_place place;
	char message_id[PUBLISH_ID_SIZE];
	char *error; /* NULL: none; owned */
};

static void outcome_keep(struct outcome *o, const struct publish_result *r)
{
	o->code = r->code;
	o->nodes = r->nodes;
	o->place = r->place;
	memcpy(o->message_id, r->message_id, sizeof(o->message_id));
	o->error = r->code != GRPC_OK ? xstrdup(r->error) : NULL;
}

/* One message's answer; borrows the texts of its outcome. */
struct answer {
	Position position;
	Response response;
	Result result;
};

static void fill_response(struct answer *a, const char *message_id,
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

static void fill_failure(struct answer *a, enum grpc_code code,
			 const char *error)
{
	stentor__v1__publish_result__init(&a->result);
	a->result.code = code;
	a->result.error = (char *)error;
}

static void fill_result(struct answer *a, const struct outcome *o)
{
	if (o->code != GRPC_OK) {
		fill_failure(a, o->code, o->error);
		return;
	}
	fill_response(a, o->message_id, &o->place, o->nodes);
	stentor__v1__publish_result__init(&a->result);
	a->result.response = &a->response;
}

/* --- Publish ----------------------------------------------------------- */

static void on_published(void *ctx, const struct publish_result *outcome)
{
	struct rpc_call *call = ctx;
	struct answer answer;

	observe_duration(call);
	if (outcome->code != GRPC_OK) {
		rpc_fail(call, outcome->code, "%s", outcome->error);
		return;
	}
	fill_response(&answer, outcome->message_id, &outcome->place,
		      outcome->nodes);
	rpc_reply(call, &answer.response.base);
}

static void on_publish(struct rpc_call *call, const ProtobufCMessage *m)
{
	struct publish_result outcome;

	if (publish(call, (const Request *)m, &outcome, on_published, call))
		on_published(call, &outcome);
}

/* --- PublishBatch ------------------------------------------------------ */

struct batch;

struct batch_item {
	struct batch *batch;
	struct outcome outcome;
};

/* A batch under way; lives until all its messages are answered. */
struct batch {
	struct rpc_call *call;
	size_t pending, count;
	struct batch_item items[];
};

static void batch_finish(struct batch *b)
{
	Stentor__V1__PublishBatchResponse answer =
		STENTOR__V1__PUBLISH_BATCH_RESPONSE__INIT;
	struct answer *answers = xcalloc(b->count, sizeof(*answers));

	dispatcher_of(b->call)->batch_messages -= b->count;
	answer.results = xcalloc(b->count, sizeof(*answer.results));
	for (size_t i = 0; i < b->count; i++) {
		fill_result(&answers[i], &b->items[i].outcome);
		answer.results[answer.n_results++] = &answers[i].result;
	}
	observe_duration(b->call);
	rpc_reply(b->call, &answer.base);
	for (size_t i = 0; i < b->count; i++)
		free(b->items[i].outcome.error);
	free(answer.results);
	free(answers);
	free(b);
}

static void on_batch_published(void *ctx, const struct publish_result *result)
{
	struct batch_item *item = ctx;

	outcome_keep(&item->outcome, result);
	if (--item->batch->pending == 0)
		batch_finish(item->batch);
}

static bool batch_fits(struct rpc_call *call, size_t count)
{
	struct dispatcher *d = dispatcher_of(call);

	if (count > PUBLISH_BATCH_MAX) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "messages: %zu, the limit is %d", count,
			 PUBLISH_BATCH_MAX);
		return false;
	}
	if (d->batch_messages + count > BATCH_MESSAGES_MAX) {
		rpc_fail(call, GRPC_RESOURCE_EXHAUSTED,
			 "batches of %zu messages wait for the store; nothing "
			 "was published",
			 d->batch_messages);
		return false;
	}
	return true;
}

static void on_publish_batch(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Stentor__V1__PublishBatchRequest *request =
		(const Stentor__V1__PublishBatchRequest *)m;
	size_t count = request->n_messages;
	struct publish_result result;
	struct batch *b;

	if (!batch_fits(call, count))
		return;
	b = xmalloc(sizeof(*b) + count * sizeof(b->items[0]));
	b->call = call;
	b->count = count;
	b->pending = 0;
	dispatcher_of(call)->batch_messages += count;
	for (size_t i = 0; i < count; i++) {
		struct batch_item *item = &b->items[i];

		item->batch = b;
		if (publish(call, request->messages[i], &result,
			    on_batch_published, item))
			outcome_keep(&item->outcome, &result);
		else
			b->pending++;
	}
	if (b->pending == 0)
		batch_finish(b);
}

/* --- PublishStream ----------------------------------------------------- */

/* Results leave in the order of requests: one that is known waits behind those
 * that are not. */
struct stream {
	struct list in_dispatcher;
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
	struct dispatcher *d = dispatcher_of(call);
	struct stream *s = call->state;

	if (s != NULL)
		return s;
	s = xcalloc(1, sizeof(*s));
	s->call = call;
	s->text = "";
	list_init(&s->waiting);
	list_push_back(&d->streams, &s->in_dispatcher);
	call->state = s;
	if (call->token != NULL)
		d->token_end_s =
			min_of(d->token_end_s, call->token->claims->exp_s);
	return s;
}

static struct stream_item *item_new(struct stream *s)
{
	struct dispatcher *d = dispatcher_of(s->call);
	struct stream_item *item = slab_alloc(&d->stream_items);

	item->stream = s;
	item->known = false;
	list_push_back(&s->waiting, &item->in_stream);
	s->waiting_count++;
	return item;
}

static void item_free(struct stream_item *item)
{
	struct dispatcher *d = dispatcher_of(item->stream->call);

	list_remove(&item->in_stream);
	item->stream->waiting_count--;
	slab_free(&d->stream_items, item);
}

static bool item_first(const struct stream_item *item)
{
	return item->stream->waiting.next == &item->in_stream;
}

static void send_result(struct rpc_call *call, const struct publish_result *r)
{
	struct answer answer;

	if (r->code != GRPC_OK) {
		fill_failure(&answer, r->code, r->error);
	} else {
		fill_response(&answer, r->message_id, &r->place, r->nodes);
		stentor__v1__publish_result__init(&answer.result);
		answer.result.response = &answer.response;
	}
	rpc_send(call, &answer.result.base);
}

static void stream_limit(struct stream *s)
{
	size_t all = dispatcher_of(s->call)->stream_items.used;

	if (s->paused || (s->waiting_count < STREAM_WAITING_MAX &&
			  all < STREAMS_WAITING_MAX))
		return;
	s->paused = true;
	rpc_pause(s->call);
}

static void stream_end(struct stream *s)
{
	struct rpc_call *call = s->call;
	enum grpc_code code = s->code;
	const char *text = s->text;

	list_remove(&s->in_dispatcher);
	free(s);
	rpc_finish(call, code, "%s", text);
}

/* After a result: sends those behind it that are known. May end the stream. */
static void stream_advance(struct stream *s)
{
	while (!list_empty(&s->waiting)) {
		struct stream_item *item = container_of(
			s->waiting.next, struct stream_item, in_stream);
		struct answer answer;

		if (!item->known)
			break;
		fill_result(&answer, &item->outcome);
		rpc_send(s->call, &answer.result.base);
		free(item->outcome.error);
		item_free(item);
	}
	if (s->paused && s->waiting_count <= STREAM_WAITING_MAX / 2) {
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
	if (access_lasts(s->call))
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
	if (publish(call, (const Request *)m, &result, on_stream_published,
		    item)) {
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

void publisher_service_look(struct dispatcher *d)
{
	d->token_end_s = UINT64_MAX;
	list_for_each_safe (node, &d->streams) {
		struct stream *s =
			container_of(node, struct stream, in_dispatcher);

		if (s->call->token != NULL && !stream_outlived(s))
			d->token_end_s = min_of(d->token_end_s,
						s->call->token->claims->exp_s);
	}
}

void publisher_service_tick(struct dispatcher *d)
{
	if (clock_wall_ms() / 1000 >= d->token_end_s)
		publisher_service_look(d);
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
		.on_half_close = on_stream_over,
		.on_cancel = on_stream_over,
		.on_drain = on_stream_drain,
	},
};

void publisher_service_init(struct dispatcher *d)
{
	list_init(&d->streams);
	d->token_end_s = UINT64_MAX;
	slab_init(&d->stream_items, sizeof(struct stream_item));
}

void publisher_service_fini(struct dispatcher *d)
{
	slab_fini(&d->stream_items);
}

struct rpc_service publisher_service(struct dispatcher *d)
{
	return (struct rpc_service){
		.name = "stentor.v1.PublisherService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = d,
		.auth = d->auth,
	};
}
