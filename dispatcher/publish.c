#include "dispatcher/publish.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/codec/channel.h"
#include "common/codec/json.h"
#include "common/codec/sse.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef Stentor__V1__PublishRequest Request;

/* A message that the store has not answered for. */
struct pending {
	struct store_append append;
	struct publisher *publisher;
	publish_done_cb done;
	void *ctx;
	struct frame *record;
	enum priority lane; /* its channel's, when it was offered */
	char channel[CHANNEL_NAME_MAX + 1];
	char idempotency_key[STORE_IDEMPOTENCY_KEY_MAX + 1];
};

void publisher_init(struct publisher *p, struct nodes *nodes,
		    const struct rules *rules, uint64_t data_max,
		    const struct publish_store *store)
{
	*p = (struct publisher){
		.nodes = nodes,
		.rules = rules,
		.data_max = data_max,
		.instance = random_nonzero(),
		.pending_max = PUBLISH_PENDING_MAX,
	};
	if (store != NULL)
		p->store = *store;
	slab_init(&p->pending, sizeof(struct pending));
}

void publisher_fini(struct publisher *p)
{
	slab_fini(&p->pending);
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

static bool idempotency_key_valid(const char *key)
{
	size_t len = strnlen(key, STORE_IDEMPOTENCY_KEY_MAX + 1);

	for (size_t i = 0; i < len; i++) {
		if (key[i] < '!' || key[i] > '~')
			return false;
	}
	return len <= STORE_IDEMPOTENCY_KEY_MAX;
}

static bool conflation_key_valid(const char *key)
{
	size_t len = strnlen(key, PUBLISH_CONFLATION_KEY_MAX + 1);

	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)key[i] < 0x20 || key[i] == 0x7f)
			return false;
	}
	return len <= PUBLISH_CONFLATION_KEY_MAX && utf8_valid(key, len);
}

static bool validate(const struct publisher *p, const Request *q, size_t len,
		     const struct rule *rule, struct publish_result *r)
{
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
	else if (!idempotency_key_valid(q->idempotency_key))
		fail(r, GRPC_INVALID_ARGUMENT,
		     "idempotency_key: must be at most %d printable ASCII "
		     "characters without spaces",
		     STORE_IDEMPOTENCY_KEY_MAX);
	else if (q->idempotency_key[0] != '\0' && !rule_reliable(rule))
		fail(r, GRPC_FAILED_PRECONDITION,
		     "idempotency_key: the channel keeps no history in which "
		     "a message could be found again (rule \"%.64s\")",
		     rule->pattern);
	else if (!conflation_key_valid(q->conflation_key))
		fail(r, GRPC_INVALID_ARGUMENT,
		     "conflation_key: must be at most %d bytes of UTF-8 "
		     "without control characters",
		     PUBLISH_CONFLATION_KEY_MAX);
	else if (q->want_receipt)
		fail(r, GRPC_UNIMPLEMENTED,
		     "want_receipt: not supported by this version");
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

static LinkDelivery delivery_of(const struct publisher *p, const Request *q,
				size_t len, enum priority class,
				uint64_t now_us)
{
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;

	d.channel = q->channel;
	d.data.data = (uint8_t *)q->data;
	d.data.len = len;
	d.event = q->event;
	d.priority = (uint32_t) class + 1;
	d.published_us = now_us;
	d.message = p->accepted + 1;
	d.conflation_key = q->conflation_key;
	d.ttl_ms = q->ttl_ms;
	return d;
}

/* The workers that want the channel. */
static size_t interested(const struct nodes *n, const char *channel,
			 const uint16_t **ids)
{
	uint64_t key = hash_bytes(&n->key, channel, strlen(channel));

	*ids = NULL;
	return interest_lookup(&n->interest, key, ids);
}

static bool all_have_room(const struct nodes *n, const uint16_t *ids,
			  size_t count, size_t bytes)
{
	for (size_t i = 0; i < count; i++) {
		if (!linkq_room(&n->by_id[ids[i]]->queue, PRIORITY_CRITICAL,
				bytes))
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

/* Puts a delivery on the queue of each of the workers. `delivery` may be NULL
 * if there are none. */
static void route(struct publisher *p, const uint16_t *ids, size_t count,
		  struct frame *delivery, enum priority lane,
		  enum priority class, struct publish_result *r)
{
	struct nodes *n = p->nodes;

	p->routes++;
	count_fanout(p, count);
	for (size_t i = 0; i < count; i++) {
		struct node_worker *w = n->by_id[ids[i]];

		if (nodes_queue(n, w, delivery, lane, class) != 0)
			continue;
		p->routed++;
		if (w->node->seen != p->routes) {
			w->node->seen = p->routes;
			r->nodes++;
		}
	}
}

static void write_id(const struct publisher *p, char id[PUBLISH_ID_SIZE])
{
	snprintf(id, PUBLISH_ID_SIZE, "%016llx-%llu",
		 (unsigned long long)p->instance,
		 (unsigned long long)p->accepted);
}

static const char queue_full[] = "a connection node's queue is full; retry";

static void publish_ephemeral(struct publisher *p, const Request *q, size_t len,
			      const struct rule *rule, uint64_t now_us,
			      struct publish_result *r)
{
	struct nodes *n = p->nodes;
	enum priority class = drop_class(q, rule);
	const uint16_t *ids;
	size_t count = interested(n, q->channel, &ids);
	struct frame *delivery = NULL;

	if (count > 0) {
		LinkDelivery d = delivery_of(p, q, len, class, now_us);

		delivery = link_delivery_encode(&d);
		if (class == PRIORITY_CRITICAL &&
		    !all_have_room(n, ids, count, delivery->len)) {
			frame_release(delivery);
			fail(r, GRPC_UNAVAILABLE, "%s", queue_full);
			return;
		}
	}
	p->accepted++;
	write_id(p, r->message_id);
	route(p, ids, count, delivery, rule->priority, class, r);
	if (delivery != NULL)
		frame_release(delivery);
}

/* --- messages that are kept -------------------------------------------- */

static void route_pending(struct pending *m, struct publish_result *r)
{
	struct publisher *p = m->publisher;
	const uint16_t *ids;
	size_t count = interested(p->nodes, m->channel, &ids);
	uint64_t routed = p->routed;
	struct frame *delivery = NULL;

	if (count > 0)
		delivery = link_delivery_from_record(
			m->record->bytes, m->record->len, m->channel,
			r->place.epoch, r->place.offset);
	route(p, ids, count, delivery, m->lane, PRIORITY_CRITICAL, r);
	p->links_full += count - (p->routed - routed);
	if (delivery != NULL)
		frame_release(delivery);
}

static void explain(const struct publisher *p, const struct store_append *a,
		    struct publish_result *r)
{
	const char *fault = p->store.fault(p->store.ctx);

	if (a->rc == ERR_EXISTS)
		fail(r, GRPC_ALREADY_EXISTS,
		     "idempotency_key: was used for another message on this "
		     "channel within the last %llu s; nothing was published",
		     (unsigned long long)p->idempotency_s);
	else if (a->rc == ERR_FULL && a->busy)
		fail(r, GRPC_UNAVAILABLE,
		     "too many messages wait for the store; nothing was "
		     "published, retry");
	else if (a->rc == ERR_FULL)
		fail(r, GRPC_RESOURCE_EXHAUSTED,
		     "the store is full; nothing was published");
	else if (a->rc == ERR_IO)
		fail(r, GRPC_UNAVAILABLE,
		     "the store is broken (%.200s); nothing was published",
		     fault != NULL ? fault : "see its log");
	else if (a->definite)
		fail(r, GRPC_UNAVAILABLE,
		     "the store is not available; nothing was published, "
		     "retry");
	else
		fail(r, GRPC_UNAVAILABLE,
		     "the store did not answer: the message may have been "
		     "published; retry with the same idempotency_key");
}

static void on_appended(struct store_append *a)
{
	struct pending *m = container_of(a, struct pending, append);
	struct publisher *p = m->publisher;
	publish_done_cb done = m->done;
	void *ctx = m->ctx;
	struct publish_result r = {.code = GRPC_OK};

	if (a->rc == 0) {
		r.place = a->place;
		memcpy(r.message_id, a->message_id, sizeof(r.message_id));
		if (!a->duplicate)
			route_pending(m, &r);
	} else {
		explain(p, a, &r);
	}
	p->total[m->lane][r.code]++;
	frame_release(m->record);
	slab_free(&p->pending, m);
	done(ctx, &r);
}

/* Whether a message of a reliable channel may be taken; its record. */
static struct frame *admit(struct publisher *p, const Request *q, size_t len,
			   const struct rule *rule, uint64_t now_us,
			   struct publish_result *r)
{
	const char *fault = p->store.fault(p->store.ctx);
	LinkDelivery d = delivery_of(p, q, len, drop_class(q, rule), now_us);
	const uint16_t *ids;
	size_t count;
	struct frame *record;

	if (fault != NULL) {
		fail(r, GRPC_UNAVAILABLE,
		     "the store is not available (%.200s); nothing was "
		     "published, retry",
		     fault);
		return NULL;
	}
	if (publish_pending(p) >= p->pending_max) {
		fail(r, GRPC_UNAVAILABLE,
		     "%zu messages wait for the store; nothing was published, "
		     "retry",
		     publish_pending(p));
		return NULL;
	}
	record = link_record_encode(&d);
	count = interested(p->nodes, q->channel, &ids);
	if (!all_have_room(
		    p->nodes, ids, count,
		    link_delivery_from_record_size(record->len, q->channel,
						   UINT64_MAX, UINT64_MAX))) {
		frame_release(record);
		fail(r, GRPC_UNAVAILABLE, "%s", queue_full);
		return NULL;
	}
	return record;
}

static void put64(uint8_t *to, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

/* What a key stands for: all that a subscriber could see or miss of the
 * message, as the request has it, but for the channel, which the key belongs
 * to. Kept beside keys in stores that dispatchers of several versions share, so
 * it never changes: SipHash, key 0, of the numbers below, each of 8 bytes, the
 * least first. Lengths stand beside hashes, so that fields can't run together.
 */
static uint64_t digest_of(const Request *q)
{
	static const struct hash_key zero;
	const char *texts[] = {q->data, q->event, q->conflation_key};
	uint8_t all[8 * (2 * array_len(texts) + 2)], *at = all;
	uint64_t digest;

	for (size_t i = 0; i < array_len(texts); i++, at += 16) {
		size_t len = strlen(texts[i]);

		put64(at, len);
		put64(at + 8, hash_bytes(&zero, texts[i], len));
	}
	put64(at, q->ttl_ms);
	put64(at + 8, (uint64_t)q->priority);
	digest = hash_bytes(&zero, all, sizeof(all));
	return digest != 0 ? digest : 1; /* 0: none */
}

static void append(struct publisher *p, const Request *q,
		   const struct rule *rule, struct frame *record,
		   publish_done_cb done, void *ctx)
{
	struct pending *m = slab_alloc(&p->pending);

	p->accepted++;
	m->publisher = p;
	m->done = done;
	m->ctx = ctx;
	m->record = record;
	m->lane = rule->priority;
	memcpy(m->channel, q->channel, strlen(q->channel) + 1);
	memcpy(m->idempotency_key, q->idempotency_key,
	       strlen(q->idempotency_key) + 1);
	m->append = (struct store_append){
		.channel = m->channel,
		.record = record->bytes,
		.len = record->len,
		.size = rule->history_size,
		.ttl_ms = rule->history_ttl_ms,
		.idempotency_key = m->idempotency_key,
		.digest = q->idempotency_key[0] != '\0' ? digest_of(q) : 0,
		.done = on_appended,
	};
	write_id(p, m->append.message_id);
	p->store.append(p->store.ctx, &m->append);
}

static void result_init(struct publish_result *r)
{
	r->code = GRPC_OK;
	r->error[0] = r->message_id[0] = '\0';
	r->place = (struct store_place){0, 0};
	r->nodes = 0;
}

void publish_refuse(struct publisher *p, const char *channel,
		    enum grpc_code code, const char *why,
		    struct publish_result *r)
{
	result_init(r);
	fail(r, code, "%s", why);
	p->total[rules_match(p->rules, channel)->priority][code]++;
}

bool publish_message(struct publisher *p, const Request *q, uint64_t now_us,
		     struct publish_result *r, publish_done_cb done, void *ctx)
{
	const struct rule *rule = rules_match(p->rules, q->channel);
	size_t len = strlen(q->data);
	struct frame *record;

	result_init(r);
	if (!validate(p, q, len, rule, r)) {
		/* refused */
	} else if (!rule_reliable(rule)) {
		publish_ephemeral(p, q, len, rule, now_us, r);
	} else if ((record = admit(p, q, len, rule, now_us, r)) != NULL) {
		append(p, q, rule, record, done, ctx);
		return false;
	}
	p->total[rule->priority][r->code]++;
	return true;
}
