#include "dispatcher/publish.h"

#include "common/base/hash.h"
#include "common/codec/channel.h"
#include "common/codec/sse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef Stentor__V1__PublishRequest Request;

void publisher_init(struct publisher *p, struct nodes *nodes,
		    const struct rules *rules, uint64_t data_max)
{
	*p = (struct publisher){
		.nodes = nodes,
		.rules = rules,
		.data_max = data_max,
		.instance = random_nonzero(),
	};
}

static void fail(struct publish_result *r, enum grpc_code code,
		 const char *format, ...) PRINTF(3, 4);
static void fail(struct publish_result *r, enum grpc_code code,
		 const char *format, ...)
{
	va_list args;

	r->code = code;
	va_start(args, format);
	vsnprintf(r->error, sizeof(r->error), format, args);
	va_end(args);
}

/* Fields of later features: refused by name instead of silently ignored. */
static const char *unsupported_field(const Request *q)
{
	if (q->idempotency_key[0] != '\0')
		return "idempotency_key";
	if (q->conflation_key[0] != '\0')
		return "conflation_key";
	if (q->ttl_ms != 0)
		return "ttl_ms";
	if (q->want_receipt)
		return "want_receipt";
	return NULL;
}

static bool validate(const struct publisher *p, const Request *q, size_t len,
		     struct publish_result *r)
{
	const char *unsupported = unsupported_field(q);

	if (!channel_name_valid(q->channel, strlen(q->channel)))
		fail(r, GRPC_INVALID_ARGUMENT,
		     "channel: must be 1 to %d bytes of [A-Za-z0-9_.:~@/-]",
		     CHANNEL_NAME_MAX);
	else if (len > p->data_max)
		fail(r, GRPC_INVALID_ARGUMENT,
		     "data: %zu bytes, the limit is %llu", len,
		     (unsigned long long)p->data_max);
	else if (!sse_event_valid(q->event))
		fail(r, GRPC_INVALID_ARGUMENT,
		     "event: must be at most %d bytes without control "
		     "characters, and not start with \"stentor.\"",
		     SSE_EVENT_MAX);
	else if (q->priority > STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE)
		fail(r, GRPC_INVALID_ARGUMENT, "priority: unknown value %d",
		     (int)q->priority);
	else if (unsupported != NULL)
		fail(r, GRPC_UNIMPLEMENTED, "%s: not supported by this version",
		     unsupported);
	else if (!p->open)
		fail(r, GRPC_UNAVAILABLE,
		     "the dispatcher is still learning who listens; retry");
	return r->code == GRPC_OK;
}

/* Messages of one channel share a lane, so the request's own priority can only
 * say who is dropped first. */
static enum priority drop_class(const Request *q, const struct rule *rule)
{
	if (q->priority == STENTOR__V1__PRIORITY__PRIORITY_UNSPECIFIED)
		return rule->priority;
	return (enum priority)(q->priority -
			       STENTOR__V1__PRIORITY__PRIORITY_CRITICAL);
}

static struct frame *encode(const struct publisher *p, const Request *q,
			    size_t len, enum priority class, uint64_t now_us)
{
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;

	d.channel = q->channel;
	d.data.data = (uint8_t *)q->data;
	d.data.len = len;
	d.event = q->event;
	d.priority = (uint32_t) class + 1;
	d.published_us = now_us;
	d.message = p->accepted + 1;
	return link_delivery_encode(&d);
}

static bool all_have_room(const struct nodes *n, const uint16_t *ids,
			  size_t count, const struct frame *f)
{
	for (size_t i = 0; i < count; i++) {
		if (!linkq_room(&n->by_id[ids[i]]->queue, PRIORITY_CRITICAL,
				f->len))
			return false;
	}
	return true;
}

static void count_fanout(struct publisher *p, size_t workers)
{
	unsigned bucket = 0;

	while (bucket < PUBLISH_FANOUT_BUCKETS &&
	       workers > (bucket == 0 ? 0u : 1u << (bucket - 1)))
		bucket++;
	p->fanout[bucket]++;
	p->fanout_sum += workers;
}

/* Puts the message on the queue of each interested worker. */
static void route(struct publisher *p, const Request *q, size_t len,
		  const struct rule *rule, uint64_t now_us,
		  struct publish_result *r)
{
	struct nodes *n = p->nodes;
	enum priority class = drop_class(q, rule);
	uint64_t key = hash_bytes(&n->key, q->channel, strlen(q->channel));
	const uint16_t *ids = NULL;
	size_t count = interest_lookup(&n->interest, key, &ids);
	struct frame *delivery = NULL;

	if (count > 0)
		delivery = encode(p, q, len, class, now_us);
	if (class == PRIORITY_CRITICAL &&
	    !all_have_room(n, ids, count, delivery)) {
		frame_release(delivery);
		fail(r, GRPC_UNAVAILABLE,
		     "a connection node's queue is full; retry");
		return;
	}
	p->accepted++;
	count_fanout(p, count);
	for (size_t i = 0; i < count; i++) {
		struct node_worker *w = n->by_id[ids[i]];

		if (nodes_queue(n, w, delivery, rule->priority, class) != 0)
			continue;
		p->routed++;
		if (w->node->seen != p->accepted) {
			w->node->seen = p->accepted;
			r->nodes++;
		}
	}
	if (delivery != NULL)
		frame_release(delivery);
}

void publish_message(struct publisher *p, const Request *q, uint64_t now_us,
		     struct publish_result *r)
{
	const struct rule *rule = rules_match(p->rules, q->channel);
	size_t len = strlen(q->data);

	r->code = GRPC_OK;
	r->error[0] = r->message_id[0] = '\0';
	r->nodes = 0;
	if (validate(p, q, len, r))
		route(p, q, len, rule, now_us, r);
	if (r->code == GRPC_OK)
		snprintf(r->message_id, sizeof(r->message_id), "%016llx-%llu",
			 (unsigned long long)p->instance,
			 (unsigned long long)p->accepted);
	p->total[rule->priority][r->code]++;
}
