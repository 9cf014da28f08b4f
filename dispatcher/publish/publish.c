#include "dispatcher/publish/publish.h"

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
	struct list in_late; /* its caller has been answered */
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
	list_init(&p->late);
	slab_init(&p->pending, sizeof(struct pending));
}

static void pending_free(struct pending *m)
{
	frame_release(m->record);
	slab_free(&m->publisher->pending, m);
}

static void late_free(struct pending *m)
{
	list_remove(&m->in_late);
	m->publisher->late_count--;
	pending_free(m);
}

void publisher_fini(struct publisher *p)
{
	while (!list_empty(&p->late))
		late_free(container_of(p->late.next, struct pending, in_late));
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

static bool publish_validate(const struct publisher *p, const Request *q,
			     size_t len, const struct rule *rule,
			     struct publish_result *r)
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
struct audience {
	uint64_t key; /* the channel's */
	const uint16_t *ids;
	size_t count;
};

static struct audience interested(const struct nodes *n, const char *channel)
{
	struct audience a = {
		.key = hash_bytes(&n->key, channel, strlen(channel))};

	a.count = interest_lookup(&n->interest, a.key, &a.ids);
	return a;
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

static void begin_route(struct publisher *p, const struct audience *to)
{
	p->routes++;
	count_fanout(p, to->count);
}

static void count_routed(struct publisher *p, struct node_worker *w,
			 struct publish_result *r)
{
	p->routed++;
	if (w->node->seen != p->routes) {
		w->node->seen = p->routes;
		r->nodes++;
	}
}

static void write_id(const struct publisher *p, char id[PUBLISH_ID_SIZE])
{
	snprintf(id, PUBLISH_ID_SIZE, "%016llx-%llu",
		 (unsigned long long)p->instance,
		 (unsigned long long)p->accepted);
}

/* Why it can't be accepted now; NULL: it can. */
static const char *ephemeral_fault(struct publisher *p,
				   const struct audience *to,
				   const struct frame *delivery,
				   enum priority lane, enum priority class)
{
	if (to->count == 0)
		return p->blind ? "this dispatcher has lost sight of most "
				  "connection nodes; retry with another"
				: NULL;
	if (class == PRIORITY_CRITICAL &&
	    !nodes_reserve(p->nodes, to->ids, to->count, delivery, lane))
		return "a connection node's queue is full; retry";
	return NULL;
}

static void publish_ephemeral(struct publisher *p, const Request *q, size_t len,
			      const struct rule *rule, uint64_t now_us,
			      struct publish_result *r)
{
	struct nodes *n = p->nodes;
	enum priority class = drop_class(q, rule);
	struct audience to = interested(n, q->channel);
	struct frame *delivery = NULL;
	const char *fault;

	if (to.count > 0) {
		LinkDelivery d = delivery_of(p, q, len, class, now_us);

		delivery = link_delivery_encode(&d);
	}
	fault = ephemeral_fault(p, &to, delivery, rule->priority, class);
	if (fault != NULL) {
		fail(r, GRPC_UNAVAILABLE, "%s", fault);
	} else {
		p->accepted++;
		write_id(p, r->message_id);
		begin_route(p, &to);
		for (size_t i = 0; i < to.count; i++) {
			struct node_worker *w = n->by_id[to.ids[i]];

			if (nodes_queue(n, w, delivery, rule->priority,
					class) == 0)
				count_routed(p, w, r);
		}
	}
	if (delivery != NULL)
		frame_release(delivery);
}

/* --- messages that are kept -------------------------------------------- */

/* Sends on what has been appended, at `place`. */
static void route_pending(struct pending *m, struct store_place place,
			  struct publish_result *r)
{
	struct publisher *p = m->publisher;
	struct nodes *n = p->nodes;
	struct audience to = interested(n, m->channel);
	struct frame *delivery;

	begin_route(p, &to);
	if (to.count == 0)
		return;
	delivery = link_delivery_from_record(m->record->bytes, m->record->len,
					     m->channel, place.epoch,
					     place.offset);
	for (size_t i = 0; i < to.count; i++) {
		struct node_worker *w = n->by_id[to.ids[i]];

		if (nodes_queue_kept(n, w, delivery, m->lane, to.key,
				     m->channel,
				     (struct place){place.epoch, place.offset}))
			count_routed(p, w, r);
		else
			p->links_full++;
	}
	frame_release(delivery);
}

static void publish_explain(const struct publisher *p,
			    const struct store_append *a,
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

static void publish_on_appended(struct store_append *a)
{
	struct pending *m = container_of(a, struct pending, append);
	struct publisher *p = m->publisher;
	publish_done_cb done = m->done;
	void *ctx = m->ctx;
	struct publish_result r = {.code = GRPC_OK};

	if (a->rc == 0) {
		r.place = a->place;
		memcpy(r.message_id, a->message_id, sizeof(r.message_id));
		route_pending(m, a->place, &r);
	} else {
		publish_explain(p, a, &r);
	}
	p->total[m->lane][r.code]++;
	if (a->rc == ERR_UNAVAILABLE && !a->definite) {
		list_push_back(&p->late, &m->in_late);
		p->late_count++;
	} else {
		pending_free(m);
	}
	done(ctx, &r);
}

/* Nobody waits for the answer any more, but the message may be there. */
static void publish_on_late(struct store_append *a)
{
	struct pending *m = container_of(a, struct pending, append);
	struct publisher *p = m->publisher;
	struct publish_result unheard = {.code = GRPC_OK};

	if (a->rc == 0)
		route_pending(m, a->place, &unheard);
	else if (p->store.doubt != NULL)
		p->store.doubt(p->store.ctx, m->channel);
	late_free(m);
}

/* Whether a message of a reliable channel may be taken; its record. */
static struct frame *publish_admit(struct publisher *p, const Request *q,
				   size_t len, const struct rule *rule,
				   uint64_t now_us, struct publish_result *r)
{
	const char *fault = p->store.fault(p->store.ctx);
	LinkDelivery d = delivery_of(p, q, len, drop_class(q, rule), now_us);

	if (fault != NULL) {
		fail(r, GRPC_UNAVAILABLE,
		     "the store is not available (%.200s); nothing was "
		     "published, retry",
		     fault);
		return NULL;
	}
	if (p->pending.used >= p->pending_max) {
		fail(r, GRPC_UNAVAILABLE,
		     "%zu messages wait for the store; nothing was published, "
		     "retry",
		     p->pending.used);
		return NULL;
	}
	return link_record_encode(&d);
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

static void publish_append(struct publisher *p, const Request *q,
			   const struct rule *rule, struct frame *record,
			   publish_done_cb done, void *ctx)
{
	struct pending *m = slab_alloc(&p->pending);

	p->accepted++;
	list_init(&m->in_late);
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
		.done = publish_on_appended,
		.late = publish_on_late,
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
	if (!publish_validate(p, q, len, rule, r)) {
		/* refused */
	} else if (!rule_reliable(rule)) {
		publish_ephemeral(p, q, len, rule, now_us, r);
	} else if ((record = publish_admit(p, q, len, rule, now_us, r)) !=
		   NULL) {
		publish_append(p, q, rule, record, done, ctx);
		return false;
	}
	p->total[rule->priority][r->code]++;
	return true;
}
