#include "dispatcher/store/redis.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/store/redis_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IDENTITY_KEY "stentor:store"
#define NUMBER_SIZE  24
/* "stentor:{CHANNEL}:k:KEY" */
#define KEY_SIZE 320

static struct redis_store *redis_of(struct store *s)
{
	return container_of(s, struct redis_store, store);
}

/* --- what is asked -------------------------------------------------------- */

static struct redis_arg number(char text[NUMBER_SIZE], uint64_t value)
{
	int len = snprintf(text, NUMBER_SIZE, "%" PRIu64, value);

	return (struct redis_arg){text, (size_t)len};
}

static struct redis_arg key(char text[KEY_SIZE], const char *channel,
			    const char *what, const char *rest)
{
	int len = snprintf(text, KEY_SIZE, "stentor:{%s}:%s%s", channel, what,
			   rest);

	check(len > 0 && len < KEY_SIZE);
	return (struct redis_arg){text, (size_t)len};
}

static bool send_append(struct redis_op *op, struct redis_node *node)
{
	const struct store_append *a = op->append;
	struct redis_store *s = op->s;
	char keys[3][KEY_SIZE], numbers[4][NUMBER_SIZE];
	struct redis_arg args[14];
	/* Enough replicas have all that was acknowledged: no log is torn. */
	bool torn = s->store.config.replicas == 0;
	bool answer = a->idempotency_key[0] != 0;
	size_t n = 0;

	args[n++] = redis_arg_text("EVALSHA");
	args[n++] = (struct redis_arg){s->append_sha, REDIS_SHA_SIZE - 1};
	args[n++] = redis_arg_text(answer ? "3" : "2");
	args[n++] = key(keys[0], a->channel, "meta", "");
	args[n++] = key(keys[1], a->channel, "log", "");
	if (answer)
		args[n++] = key(keys[2], a->channel, "k:", a->idempotency_key);
	args[n++] = (struct redis_arg){a->record, a->len};
	args[n++] = number(numbers[0], max_of(a->size, 1u));
	args[n++] = number(numbers[1], max_of(a->ttl_ms, 1u));
	args[n++] = number(numbers[2], s->epoch_floor);
	args[n++] = redis_arg_text(torn ? node->server.history : "");
	args[n++] = redis_arg_text(torn ? node->server.former_history : "");
	args[n++] = redis_arg_text(a->message_id);
	if (answer)
		args[n++] = number(numbers[3],
				   max_of(s->store.config.idempotency_ms, 1u));
	if (!redis_node_send(node, &op->request, args, n))
		return false;
	node->wait_due = true;
	return true;
}

static bool send_read(struct redis_op *op, struct redis_node *node)
{
	const struct store_read *r = op->read;
	char keys[2][KEY_SIZE], numbers[4][NUMBER_SIZE];
	const struct redis_arg args[] = {
		redis_arg_text("EVALSHA"),
		{op->s->read_sha, REDIS_SHA_SIZE - 1},
		redis_arg_text("2"),
		key(keys[0], r->channel, "meta", ""),
		key(keys[1], r->channel, "log", ""),
		number(numbers[0], r->epoch),
		number(numbers[1], r->after),
		number(numbers[2], min_of(r->records_max,
					  (uint32_t)REDIS_READ_RECORDS_MAX)),
		number(numbers[3],
		       min_of(r->bytes_max, (size_t)REDIS_READ_BYTES_MAX)),
		redis_arg_text(r->latest ? "1" : ""),
	};

	return redis_node_send(node, &op->request, args, array_len(args));
}

static bool send_top(struct redis_op *op, struct redis_node *node)
{
	char name[KEY_SIZE];
	const struct redis_arg args[] = {
		redis_arg_text("HMGET"),
		key(name, op->tops->tops->channels[op->index], "meta", ""),
		redis_arg_text("epoch"),
		redis_arg_text("top"),
	};

	return redis_node_send(node, &op->request, args, array_len(args));
}

static bool send_identity(struct redis_op *op, struct redis_node *node)
{
	/* What it is known by already, should the server have lost it. */
	uint64_t identity = op->s->store.state.identity;
	char text[NUMBER_SIZE];
	const struct redis_arg set[] = {
		redis_arg_text("SET"),
		redis_arg_text(IDENTITY_KEY),
		number(text, identity != 0 ? identity : random_nonzero()),
		redis_arg_text("NX"),
	};
	const struct redis_arg get[] = {
		redis_arg_text("GET"),
		redis_arg_text(IDENTITY_KEY),
	};

	redis_node_tell(node, NULL, set, array_len(set));
	return redis_node_send(node, &op->request, get, 2);
}

bool redis_op_send(struct redis_op *op, struct redis_node *node)
{
	const struct redis_arg time = redis_arg_text("TIME");

	switch (op->kind) {
	case REDIS_APPEND:
		return send_append(op, node);
	case REDIS_READ:
		return send_read(op, node);
	case REDIS_TOP:
		return send_top(op, node);
	case REDIS_TIME:
		return redis_node_send(node, &op->request, &time, 1);
	case REDIS_IDENTITY:
		return send_identity(op, node);
	}
	return false;
}

/* --- what an answer means ------------------------------------------------- */

/* A decimal number and what follows it: a space or the end. */
static bool read_number(const char **at, uint64_t *out)
{
	const char *digit = *at;

	*out = 0;
	if (digit == NULL || *digit < '0' || *digit > '9')
		return false;
	for (; *digit >= '0' && *digit <= '9'; digit++)
		if (__builtin_mul_overflow(*out, 10, out) ||
		    __builtin_add_overflow(*out, *digit - '0', out))
			return false;
	if (*digit == ' ')
		digit++;
	else if (*digit != 0)
		return false;
	*at = digit;
	return true;
}

static bool element_number(const struct redis_reply *reply, size_t i,
			   uint64_t *out)
{
	const char *text = redis_element_text(reply, i);

	return text != NULL && read_number(&text, out) && *text == 0;
}

/* New epochs are above it, unless it is nonsense that Lua could not count on
 * from. */
static void note_epoch(struct redis_store *s, uint64_t epoch)
{
	if (epoch < (uint64_t)1 << 52)
		s->epoch_floor = max_of(s->epoch_floor, epoch);
}

static int take_append(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_append *a = op->append;
	const char *text = reply->text;

	if (reply->type != REDIS_REPLY_STRING ||
	    !read_number(&text, &a->place.epoch) ||
	    !read_number(&text, &a->place.offset) || a->place.offset == 0)
		return ERR_MALFORMED;
	/* The first one's id follows: it was there already. */
	a->duplicate = *text != 0;
	if (a->duplicate)
		snprintf(a->message_id, sizeof(a->message_id), "%s", text);
	note_epoch(op->s, a->place.epoch);
	return 0;
}

/* epoch, top, first, then offset and record in turn. The records are valid as
 * long as the reply: the caller is told at once. */
static int take_read(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_read *r = op->read;
	struct store_record *records;
	size_t count;

	if (reply->type != REDIS_REPLY_ARRAY || reply->count < 3 ||
	    reply->count % 2 != 1 || !element_number(reply, 0, &r->top.epoch) ||
	    !element_number(reply, 1, &r->top.offset) ||
	    !element_number(reply, 2, &r->first))
		return ERR_MALFORMED;
	note_epoch(op->s, r->top.epoch);
	count = (reply->count - 3) / 2;
	records = count > 0 ? xcalloc(count, sizeof(*records)) : NULL;
	for (size_t i = 0; i < count; i++) {
		const char *bytes = redis_element_text(reply, 4 + 2 * i);

		if (bytes == NULL ||
		    !element_number(reply, 3 + 2 * i, &records[i].offset)) {
			free(records);
			return ERR_MALFORMED;
		}
		records[i].bytes = (const uint8_t *)bytes;
		records[i].len = reply->elements[4 + 2 * i]->len;
	}
	r->records = records;
	r->count = count;
	return 0;
}

static int take_top(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_place *place = &op->tops->tops->places[op->index];

	if (reply->type != REDIS_REPLY_ARRAY || reply->count != 2)
		return ERR_MALFORMED;
	if (!element_number(reply, 0, &place->epoch) ||
	    !element_number(reply, 1, &place->offset))
		*place = (struct store_place){0, 0}; /* no log */
	note_epoch(op->s, place->epoch);
	return 0;
}

static int take_time(struct redis_op *op, const struct redis_reply *reply)
{
	uint64_t seconds, us;

	if (!element_number(reply, 0, &seconds) ||
	    !element_number(reply, 1, &us))
		return ERR_MALFORMED;
	op->tops->time_ms = seconds * 1000 + us / 1000;
	note_epoch(op->s, op->tops->time_ms);
	return 0;
}

static int take_identity(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_state *state = &op->s->store.state;
	const char *text = reply->text;
	uint64_t identity;

	if (reply->type == REDIS_REPLY_NIL) /* it has no room for it */
		return 0;
	if (!read_number(&text, &identity) || identity == 0)
		return ERR_MALFORMED;
	if (state->identity != 0 && state->identity != identity)
		log_warn("STORE-IDENTITY", "was=%016" PRIx64 " is=%016" PRIx64,
			 state->identity, identity);
	state->identity = identity;
	return 0;
}

int redis_op_take(struct redis_op *op, const struct redis_reply *reply)
{
	switch (op->kind) {
	case REDIS_APPEND:
		return take_append(op, reply);
	case REDIS_READ:
		return take_read(op, reply);
	case REDIS_TOP:
		return take_top(op, reply);
	case REDIS_TIME:
		return take_time(op, reply);
	case REDIS_IDENTITY:
		return take_identity(op, reply);
	}
	return ERR_MALFORMED;
}

/* --- the end of an operation ---------------------------------------------- */

static void tops_part_done(struct redis_store *s, struct redis_tops *part,
			   int rc)
{
	struct store_tops *t = part->tops;

	if (rc != 0)
		part->rc = rc;
	if (--part->left > 0)
		return;
	t->rc = part->rc;
	for (size_t i = 0; i < t->count; i++)
		if (t->places[i].epoch == 0)
			t->places[i].epoch = part->time_ms;
	free(part);
	store_tops_done(&s->store, t);
}

static void read_done(struct redis_store *s, struct store_read *r, int rc)
{
	/* The caller may free its struct in `done`. */
	struct store_record *records = (struct store_record *)r->records;

	r->rc = rc;
	store_read_done(&s->store, r);
	free(records);
}

void redis_append_moved(struct redis_store *s, const struct store_append *a)
{
	static const struct store_place look;

	if (a->rc == 0 && !a->duplicate)
		redis_watch_moved(s, a->channel, a->place);
	else if (a->rc == ERR_UNAVAILABLE && !a->definite)
		redis_watch_moved(s, a->channel, look);
}

static void append_done(struct redis_store *s, struct store_append *a, int rc,
			bool definite)
{
	a->rc = rc;
	a->definite = definite;
	if (rc != 0)
		a->duplicate = false;
	redis_append_moved(s, a);
	store_append_done(&s->store, a);
}

/* Its time is over, its reply may still come. */
static void append_overdue(struct redis_op *op)
{
	struct store_append *a = op->append;

	a->rc = ERR_UNAVAILABLE;
	a->definite = a->duplicate = false;
	op->late = store_append_overdue(&op->s->store, a);
}

void redis_op_end(struct redis_op *op, int rc, bool definite, bool under_way)
{
	struct redis_op ended = *op;
	struct redis_store *s = op->s;

	free(op->ask);
	op->ask = NULL;
	op->answered = true;
	if (under_way && op->kind == REDIS_APPEND) {
		append_overdue(op);
		return;
	}
	if (!under_way)
		slab_free(&s->ops, op);
	switch (ended.kind) {
	case REDIS_APPEND:
		append_done(s, ended.append, rc, rc != 0 && definite);
		return;
	case REDIS_READ:
		read_done(s, ended.read, rc);
		return;
	case REDIS_TOP:
	case REDIS_TIME:
		tops_part_done(s, ended.tops, rc);
		return;
	case REDIS_IDENTITY:
		s->identifying = false;
		s->identify_due = rc != 0 || s->store.state.identity == 0;
		s->identify_at_ms = uv_now(s->store.loop) + REDIS_PROBE_DOWN_MS;
		redis_update(s, NULL);
		return;
	}
}

/* --- the beginning of an operation ---------------------------------------- */

static struct redis_op *op_new(struct redis_store *s, enum redis_op_kind kind,
			       uint16_t slot)
{
	struct redis_op *op = slab_alloc(&s->ops);

	memset(op, 0, sizeof(*op));
	op->s = s;
	op->kind = kind;
	op->slot = slot;
	op->request.done = redis_op_replied;
	list_init(&op->in_slot);
	return op;
}

/* Over the bound an op is refused in the store's next turn. */
static void op_begin(struct redis_op *op)
{
	if (op->s->ops.used <= REDIS_OPS_MAX) {
		redis_op_submit(op);
		return;
	}
	list_push_back(&op->s->refused, &op->in_slot);
	redis_wake(op->s);
}

static void redis_append(struct store *store, struct store_append *a)
{
	struct redis_op *op =
		op_new(redis_of(store), REDIS_APPEND, redis_slot(a->channel));

	op->append = a;
	op_begin(op);
}

static void redis_read(struct store *store, struct store_read *r)
{
	struct redis_op *op =
		op_new(redis_of(store), REDIS_READ, redis_slot(r->channel));

	op->read = r;
	op_begin(op);
}

static void redis_tops(struct store *store, struct store_tops *t)
{
	struct redis_store *s = redis_of(store);
	struct redis_tops *part = xcalloc(1, sizeof(*part));
	struct redis_op *op;

	part->tops = t;
	part->left = t->count + 1;
	op = op_new(s, REDIS_TIME,
		    t->count > 0 ? redis_slot(t->channels[0]) : 0);
	op->tops = part;
	op_begin(op);
	for (size_t i = 0; i < t->count; i++) {
		t->places[i] = (struct store_place){0, 0};
		op = op_new(s, REDIS_TOP, redis_slot(t->channels[i]));
		op->tops = part;
		op->index = (uint32_t)i;
		op_begin(op);
	}
}

/* --- state ---------------------------------------------------------------- */

static void identify(struct redis_store *s)
{
	struct redis_op *op;

	if (s->identifying || uv_now(s->store.loop) < s->identify_at_ms)
		return;
	s->identifying = true;
	op = op_new(s, REDIS_IDENTITY, redis_slot(IDENTITY_KEY));
	op_begin(op);
}

void redis_update(struct redis_store *s, const char *fault)
{
	bool ready = false, enough = true;

	if (s->store.closing)
		return;
	if (fault != NULL)
		snprintf(s->fault, sizeof(s->fault), "%s", fault);
	list_for_each (at, &s->nodes) {
		struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->state != REDIS_NODE_READY || node->slots == 0)
			continue;
		ready = true;
		enough = enough && !node->short_of_replicas;
	}
	if (ready && s->identify_due)
		identify(s);
	if (ready && s->store.state.identity == 0)
		store_set_up(&s->store, "its identity is not known yet");
	else if (ready && !enough)
		store_set_up(&s->store, "a master has fewer replicas than "
					"store-replicas asks for");
	else if (ready)
		store_set_up(&s->store, NULL);
	else
		store_set_up(&s->store, s->fault);
}

/* --- turns and ticks ------------------------------------------------------ */

static void close_now(struct redis_store *s);

static void on_turn(uv_idle_t *idle)
{
	struct redis_store *s = idle->data;
	struct list *at;

	redis_watch_turn(s); /* first: what it queues leaves in this turn */
	uv_idle_stop(idle);
	while ((at = list_pop_front(&s->refused)))
		redis_op_end(container_of(at, struct redis_op, in_slot),
			     ERR_UNAVAILABLE, true, false);
	if (s->store.closing) {
		close_now(s);
		return;
	}
	while ((at = list_pop_front(&s->dirty)))
		redis_node_flush(container_of(at, struct redis_node, in_dirty));
}

void redis_wake(struct redis_store *s)
{
	if (!s->store.closing)
		uv_idle_start(&s->turn, on_turn);
}

static void on_tick(uv_timer_t *tick)
{
	struct redis_store *s = tick->data;
	uint64_t now = uv_now(s->store.loop);

	redis_slots_expire(s, now, false);
	list_for_each_safe (at, &s->nodes)
		redis_node_tick(container_of(at, struct redis_node, in_nodes),
				now);
	if (s->sentinel != NULL)
		redis_sentinel_tick(s, now);
	redis_cluster_tick(s, now);
	redis_watch_tick(s, now);
	redis_tls_tick(s, now);
	redis_slots_kick(s);
	if (s->identify_due)
		redis_update(s, NULL);
}

/* --- life ----------------------------------------------------------------- */

static int redis_open(uv_loop_t *loop, const struct store_config *config,
		      struct store **out, char fault[STORE_FAULT_SIZE])
{
	struct redis_store *s = xcalloc(1, sizeof(*s));
	int rc = redis_url_parse(config->url, &s->url, fault);

	if (rc == 0)
		rc = redis_tls_open(s, config, fault);
	if (rc < 0) {
		free(s);
		return rc;
	}
	store_init(&s->store, &store_redis, loop, config);
	list_init(&s->nodes);
	list_init(&s->dirty);
	list_init(&s->blocked);
	list_init(&s->refused);
	slab_init(&s->ops, sizeof(struct redis_op));
	redis_slots_init(s);
	snprintf(s->replicas, sizeof(s->replicas), "%" PRIu64,
		 config->replicas);
	snprintf(s->wait_ms, sizeof(s->wait_ms), "%" PRIu64,
		 max_of(config->timeout_ms / 2, (uint64_t)1));
	snprintf(s->fault, sizeof(s->fault), "not connected yet");
	uv_timer_init(loop, &s->tick);
	uv_idle_init(loop, &s->turn);
	s->tick.data = s->turn.data = s;
	s->handles = 2;
	uv_timer_start(&s->tick, on_tick, 0, REDIS_TICK_MS);
	store_set_up(&s->store, s->fault);
	if (s->url.sentinel[0] != 0)
		redis_sentinel_open(s);
	else
		for (size_t i = 0; i < s->url.count; i++)
			redis_cluster_node(s, &s->url.addresses[i])->seed =
				true;
	redis_watch_open(s);
	*out = &s->store;
	return 0;
}

void redis_handle_closed(struct redis_store *s)
{
	if (--s->handles > 0)
		return;
	check(s->store.closing && s->ops.used == 0);
	slab_fini(&s->ops);
	tls_context_free(s->tls);
	free(s->slots);
	store_closed(&s->store);
}

static void on_handle_closed(uv_handle_t *handle)
{
	redis_handle_closed(handle->data);
}

/* Nothing is sent any more: dropped nodes give everything back at once. */
static void close_now(struct redis_store *s)
{
	struct list *at;

	redis_watch_close(s);
	while ((at = list_pop_front(&s->nodes)))
		redis_node_free(container_of(at, struct redis_node, in_nodes));
	if (s->sentinel != NULL)
		redis_node_free(s->sentinel);
	s->sentinel = NULL;
	redis_slots_expire(s, 0, true);
	uv_close((uv_handle_t *)&s->tick, on_handle_closed);
	uv_close((uv_handle_t *)&s->turn, on_handle_closed);
}

/* Maybe called from an operation's `done`: the rest is the next turn's. */
static void redis_close(struct store *store)
{
	struct redis_store *s = redis_of(store);

	uv_timer_stop(&s->tick);
	uv_idle_start(&s->turn, on_turn);
}

const struct store_ops store_redis = {
	.scheme = "redis", /* and rediss */
	.open = redis_open,
	.append = redis_append,
	.read = redis_read,
	.tops = redis_tops,
	.close = redis_close,
};
