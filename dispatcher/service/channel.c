/* stentor.v1.ChannelService */
#include "common/codec/channel.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/pbarena.h"
#include "dispatcher/service/service.h"
#include "stentor/v1/channel.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define HISTORY_LIMIT	  100 /* messages of a GetHistory that says nothing */
#define HISTORY_LIMIT_MAX 1000
/* Of records in one answer: most clients take no more than 4 MiB. */
#define HISTORY_ANSWER_BYTES (2u << 20)

typedef Stentor__V1__Position Position;
typedef Stentor__V1__HistoryMessage HistoryMessage;

static struct channel_service *channel_service_of(const struct rpc_call *call)
{
	return call->service->ctx;
}

/* Ends the call if it is not a channel's name. */
static bool check_name(struct rpc_call *call, const char *channel)
{
	if (channel_name_valid(channel, strlen(channel)))
		return true;
	rpc_fail(call, GRPC_INVALID_ARGUMENT,
		 "channel: must be 1 to %d bytes of [A-Za-z0-9_.:~@/-]",
		 CHANNEL_NAME_MAX);
	return false;
}

/* Why the store can't be asked now; NULL: it can. */
static const char *store_fault(const struct channel_service *s)
{
	return s->store.fault(s->store.ctx);
}

/* Ends the call if too many ask the store. */
static bool may_read(struct rpc_call *call)
{
	if (channel_service_of(call)->reads < CHANNEL_READS_MAX)
		return true;
	rpc_fail(call, GRPC_RESOURCE_EXHAUSTED,
		 "more than %d calls read the store", CHANNEL_READS_MAX);
	return false;
}

/* NULL where nothing was published. */
static Position *position_of(Position *p, struct store_place place)
{
	stentor__v1__position__init(p);
	p->epoch = place.epoch;
	p->offset = place.offset;
	return place.offset > 0 ? p : NULL;
}

/* --- GetChannel -------------------------------------------------------- */

/* A call under way: waits for the workers, and for the store if the channel
 * keeps history. */
struct lookup {
	struct rpc_call *call;
	char channel[CHANNEL_NAME_MAX + 1];
	const char *name; /* what `tops` asks for */
	struct store_tops tops;
	struct store_place top;
	struct count_result counted;
	unsigned awaited;
};

static void lookup_finish(struct lookup *q)
{
	const struct rule *rule =
		rules_match(channel_service_of(q->call)->rules, q->channel);
	Stentor__V1__Rule shown = STENTOR__V1__RULE__INIT;
	Stentor__V1__GetChannelResponse response =
		STENTOR__V1__GET_CHANNEL_RESPONSE__INIT;
	Position top;

	shown.pattern = rule->pattern;
	shown.priority = (Stentor__V1__Priority)(rule->priority + 1);
	shown.lagging = (char *)lagging_names[rule->lagging];
	shown.history_size = rule->history_size;
	shown.history_ttl_ms = rule->history_ttl_ms;
	shown.history_latest = rule->history_latest;
	response.channel = q->channel;
	response.subscribers = q->counted.subscribers;
	response.nodes = q->counted.nodes;
	response.workers = q->counted.workers;
	response.complete = q->counted.complete;
	response.rule = &shown;
	response.top = position_of(&top, q->top);
	rpc_reply(q->call, &response.base);
	free(q);
}

static void channel_on_counted(void *ctx, const struct count_result *counted)
{
	struct lookup *q = ctx;

	q->counted = *counted;
	if (--q->awaited == 0)
		lookup_finish(q);
}

static void channel_on_top(struct store_tops *t)
{
	struct lookup *q = container_of(t, struct lookup, tops);

	channel_service_of(q->call)->reads--;
	if (t->rc != 0)
		q->top = (struct store_place){0, 0};
	if (--q->awaited == 0)
		lookup_finish(q);
}

static void on_get_channel(struct rpc_call *call, const ProtobufCMessage *m)
{
	const char *channel =
		((const Stentor__V1__GetChannelRequest *)m)->channel;
	struct channel_service *s = channel_service_of(call);
	struct lookup *q;
	bool reliable; /* and the store can be asked */

	if (!check_name(call, channel) ||
	    !access_read(s->access, call, channel) || !may_read(call))
		return;
	reliable = rule_reliable(rules_match(s->rules, channel)) &&
		   store_fault(s) == NULL;
	q = xcalloc(1, sizeof(*q));
	q->call = call;
	memcpy(q->channel, channel, strlen(channel) + 1);
	q->name = q->channel;
	q->awaited = 1 + reliable;
	if (counts_ask(s->counts, q->channel, uv_now(s->loop),
		       channel_on_counted, q) != 0) {
		free(q);
		rpc_fail(call, GRPC_RESOURCE_EXHAUSTED,
			 "more than %d channels are being counted", COUNTS_MAX);
		return;
	}
	if (!reliable)
		return; /* and it may be gone */
	q->tops = (struct store_tops){
		.channels = &q->name,
		.count = 1,
		.places = &q->top,
		.done = channel_on_top,
	};
	s->reads++;
	s->store.tops(s->store.ctx, &q->tops);
}

/* --- GetHistory -------------------------------------------------------- */

struct history_call {
	struct rpc_call *call;
	char channel[CHANNEL_NAME_MAX + 1];
	struct store_read read;
	struct store_place after; /* as asked */
	bool gap;
};

/* One message of an answer; in the answer's arena. */
struct shown_message {
	HistoryMessage message;
	Position position;
};

/* Adds a record to the answer unless its time is over. False: it can't be
 * read. */
static bool channel_show(struct arena *arena,
			 Stentor__V1__GetHistoryResponse *response,
			 uint64_t epoch, const struct store_record *r)
{
	ProtobufCAllocator allocator = pbarena_allocator(arena);
	LinkDelivery *d = stentor__link__v1__delivery__unpack(&allocator,
							      r->len, r->bytes);
	struct shown_message *shown = arena_alloc(arena, sizeof(*shown));
	char *data;

	if (d == NULL || shown == NULL)
		return false;
	if (d->ttl_ms != 0 &&
	    d->published_us + (uint64_t)d->ttl_ms * 1000 < clock_wall_us())
		return true;
	data = arena_alloc(arena, d->data.len + 1);
	if (data == NULL)
		return false;
	if (d->data.len > 0)
		memcpy(data, d->data.data, d->data.len);
	data[d->data.len] = '\0';
	stentor__v1__history_message__init(&shown->message);
	shown->message.position = position_of(
		&shown->position, (struct store_place){epoch, r->offset});
	shown->message.data = data;
	shown->message.event = d->event;
	shown->message.conflation_key = d->conflation_key;
	shown->message.published_ms = d->published_us / 1000;
	response->messages[response->n_messages++] = &shown->message;
	return true;
}

static void channel_answer(struct history_call *q)
{
	const struct store_read *r = &q->read;
	Stentor__V1__GetHistoryResponse response =
		STENTOR__V1__GET_HISTORY_RESPONSE__INIT;
	HistoryMessage *messages[HISTORY_LIMIT_MAX];
	Position top, first;
	struct arena arena;
	bool readable = true;

	arena_init(&arena, LINK_DECODED_MAX);
	response.channel = q->channel;
	response.top = position_of(&top, r->top);
	if (r->first <= r->top.offset)
		response.first = position_of(
			&first, (struct store_place){r->top.epoch, r->first});
	response.gap = q->gap;
	response.messages = messages;
	for (size_t i = 0; i < r->count && readable; i++)
		readable = channel_show(&arena, &response, r->top.epoch,
					&r->records[i]);
	if (r->count > 0)
		response.more = r->records[r->count - 1].offset < r->top.offset;
	if (readable)
		rpc_reply(q->call, &response.base);
	else
		rpc_fail(q->call, GRPC_INTERNAL,
			 "a message of the log can't be read");
	arena_fini(&arena);
}

/* Whether messages after the asked place are not there any more. */
static bool is_gap(const struct history_call *q)
{
	const struct store_read *r = &q->read;

	if (q->after.epoch != 0 && q->after.epoch != r->top.epoch)
		return true;
	return r->first > q->after.offset + 1 ||
	       q->after.offset > r->top.offset;
}

static void channel_on_history(struct store_read *r)
{
	struct history_call *q = container_of(r, struct history_call, read);
	struct channel_service *s = channel_service_of(q->call);

	if (r->rc != 0) {
		rpc_fail(q->call, GRPC_UNAVAILABLE,
			 "the store is not available; retry");
	} else if (r->epoch != 0 && r->epoch != r->top.epoch &&
		   r->top.offset > 0) {
		/* Another log is there now: from its beginning. */
		q->gap = true;
		r->epoch = r->after = 0;
		s->store.read(s->store.ctx, r);
		return;
	} else {
		if (!r->latest && (q->after.epoch | q->after.offset) != 0)
			q->gap |= is_gap(q);
		channel_answer(q);
	}
	s->reads--;
	free(q);
}

/* Ends the call if the request is not one. */
static bool check_request(struct rpc_call *call,
			  const Stentor__V1__GetHistoryRequest *request)
{
	const struct channel_service *s = channel_service_of(call);
	const struct rule *rule;

	if (!check_name(call, request->channel) ||
	    !access_read(s->access, call, request->channel))
		return false;
	if (request->limit > HISTORY_LIMIT_MAX) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "limit: %u messages, the limit is %d", request->limit,
			 HISTORY_LIMIT_MAX);
		return false;
	}
	if (request->latest && request->after != NULL) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "latest: not together with after");
		return false;
	}
	rule = rules_match(s->rules, request->channel);
	if (!rule_reliable(rule)) {
		rpc_fail(call, GRPC_FAILED_PRECONDITION,
			 "channel: keeps no history (rule \"%.64s\")",
			 rule->pattern);
		return false;
	}
	if (store_fault(s) != NULL) {
		rpc_fail(call, GRPC_UNAVAILABLE,
			 "the store is not available (%.200s); retry",
			 store_fault(s));
		return false;
	}
	return may_read(call);
}

static void on_get_history(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Stentor__V1__GetHistoryRequest *request =
		(const Stentor__V1__GetHistoryRequest *)m;
	struct channel_service *s = channel_service_of(call);
	struct history_call *q;

	if (!check_request(call, request))
		return;
	q = xcalloc(1, sizeof(*q));
	q->call = call;
	memcpy(q->channel, request->channel, strlen(request->channel) + 1);
	if (request->after != NULL)
		q->after = (struct store_place){request->after->epoch,
						request->after->offset};
	q->read = (struct store_read){
		.channel = q->channel,
		.epoch = q->after.epoch,
		.after = q->after.offset,
		.latest = request->latest,
		.records_max =
			request->limit != 0 ? request->limit : HISTORY_LIMIT,
		.bytes_max = HISTORY_ANSWER_BYTES,
		.done = channel_on_history,
	};
	s->reads++;
	s->store.read(s->store.ctx, &q->read);
}

static const struct rpc_method methods[] = {
	{
		.name = "GetChannel",
		.input = &stentor__v1__get_channel_request__descriptor,
		.output = &stentor__v1__get_channel_response__descriptor,
		.no_side_effects = true,
		.on_message = on_get_channel,
	},
	{
		.name = "GetHistory",
		.input = &stentor__v1__get_history_request__descriptor,
		.output = &stentor__v1__get_history_response__descriptor,
		.no_side_effects = true,
		.on_message = on_get_history,
	},
};

struct rpc_service channel_service(struct channel_service *s)
{
	return (struct rpc_service){
		.name = "stentor.v1.ChannelService",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = s,
		.auth = s->access->auth,
	};
}
