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
/* "stentor:{CHANNEL}:k:KEY" */
#define NUMBER_SIZE REDIS_NUMBER_SIZE
#define RUN_LEN	    8 /* of a run_id's 40: enough beside a replid's 16 */
/* Pairs of numbers: a place, and epochs before it. */
#define PLACE_SIZE (42 * (1 + STORE_ERAS_MAX) + 2)

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

struct redis_arg redis_key(char text[REDIS_KEY_SIZE], const char *channel,
			   const char *what, const char *rest)
{
	int len = snprintf(text, REDIS_KEY_SIZE, "stentor:{%s}:%s%s", channel,
			   what, rest);

	check(len > 0 && len < REDIS_KEY_SIZE);
	return (struct redis_arg){text, (size_t)len};
}

static struct redis_arg hex(char text[NUMBER_SIZE], uint64_t value)
{
	int len = snprintf(text, NUMBER_SIZE, "%" PRIx64, value);

	return (struct redis_arg){text, (size_t)len};
}

/* What stands for this run of the server. */
static struct redis_arg run_of(const struct redis_node *node)
{
	return (struct redis_arg){
		node->server.run_id,
		min_of(strlen(node->server.run_id), (size_t)RUN_LEN)};
}

static bool send_append(struct redis_op *op, struct redis_node *node)
{
	const struct store_append *a = op->append;
	struct redis_store *s = op->s;
	char keys[3][REDIS_KEY_SIZE], numbers[6][NUMBER_SIZE];
	struct redis_arg args[16];
	bool answer = a->idempotency_key[0] != 0;
	size_t n = 0;

	args[n++] = redis_arg_text("EVALSHA");
	args[n++] = (struct redis_arg){s->sha[REDIS_SCRIPT_APPEND],
				       REDIS_SHA_SIZE - 1};
	args[n++] = redis_arg_text(answer ? "3" : "2");
	args[n++] = redis_key(keys[0], a->channel, "meta", "");
	args[n++] = redis_key(keys[1], a->channel, "log", "");
	if (answer)
		args[n++] = redis_key(keys[2], a->channel,
				      "k:", a->idempotency_key);
	args[n++] = number(numbers[0], s->epoch_floor);
	args[n++] = run_of(node);
	args[n++] = redis_arg_text(node->durable);
	args[n++] = number(numbers[5], s->term);
	args[n++] = (struct redis_arg){a->record, a->len};
	args[n++] = number(numbers[1], max_of(a->size, 1u));
	args[n++] = number(numbers[2], max_of(a->ttl_ms, 1u));
	args[n++] = redis_arg_text(a->message_id);
	args[n++] = hex(numbers[3], a->digest);
	if (answer)
		args[n++] = number(numbers[4],
				   max_of(s->store.config.idempotency_ms, 1u));
	if (!redis_node_send(node, &op->request, args, n))
		return false;
	node->wait_due = true;
	return true;
}

static bool send_read(struct redis_op *op, struct redis_node *node)
{
	const struct store_read *r = op->read;
	char keys[2][REDIS_KEY_SIZE], numbers[4][NUMBER_SIZE];
	const struct redis_arg args[] = {
		redis_arg_text("EVALSHA"),
		{op->s->sha[REDIS_SCRIPT_READ], REDIS_SHA_SIZE - 1},
		redis_arg_text("2"),
		redis_key(keys[0], r->channel, "meta", ""),
		redis_key(keys[1], r->channel, "log", ""),
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

/* What the caller knows of a channel, unless that is nonsense which Lua could
 * not count on from. */
static struct store_place known_of(const struct store_tops *t, size_t index)
{
	if (t->known == NULL || t->known[index].epoch > STORE_KNOWN_MAX)
		return (struct store_place){0, 0};
	return t->known[index];
}

/* "epoch offset", and the epochs before it in the same way. */
static void write_known(char text[PLACE_SIZE], struct store_place known,
			const struct store_eras *eras)
{
	int len = snprintf(text, PLACE_SIZE, "%" PRIu64 " %" PRIu64,
			   known.epoch, known.offset);

	for (unsigned i = 0; eras != NULL && i < eras->count; i++) {
		if (eras->era[i].epoch > STORE_KNOWN_MAX)
			continue;
		len += snprintf(text + len, PLACE_SIZE - (size_t)len,
				" %" PRIu64 " %" PRIu64, eras->era[i].epoch,
				eras->era[i].offset);
		check(len < PLACE_SIZE);
	}
}

static bool send_tops(struct redis_op *op, struct redis_node *node)
{
	const struct redis_top *order = op->tops->order + op->first;
	const struct store_tops *t = op->tops->tops;
	char(*keys)[REDIS_KEY_SIZE] = xmalloc((op->count + 1) * sizeof(*keys));
	char(*places)[PLACE_SIZE] = xmalloc((op->count + 1) * sizeof(*places));
	struct redis_arg args[7 + 2 * REDIS_TOPS_MAX];
	char numbers[3][NUMBER_SIZE];
	size_t n = 0;
	bool sent;

	args[n++] = redis_arg_text("EVALSHA");
	args[n++] = (struct redis_arg){op->s->sha[REDIS_SCRIPT_TOPS],
				       REDIS_SHA_SIZE - 1};
	args[n++] = number(numbers[0], op->count);
	for (size_t i = 0; i < op->count; i++)
		args[n++] = redis_key(keys[i], t->channels[order[i].index],
				      "meta", "");
	args[n++] = number(numbers[1], op->s->epoch_floor);
	args[n++] = run_of(node);
	args[n++] = redis_arg_text(node->durable);
	args[n++] = number(numbers[2], op->s->term);
	for (size_t i = 0; i < op->count; i++) {
		struct store_place known = known_of(t, order[i].index);

		places[i][0] = 0;
		if (known.epoch != 0)
			write_known(places[i], known,
				    t->known_eras != NULL
					    ? &t->known_eras[order[i].index]
					    : NULL);
		args[n++] = redis_arg_text(places[i]);
	}
	sent = redis_node_send(node, &op->request, args, n);
	free(keys);
	free(places);
	return sent;
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
	switch (op->kind) {
	case REDIS_APPEND:
		return send_append(op, node);
	case REDIS_READ:
		return send_read(op, node);
	case REDIS_TOPS:
		return send_tops(op, node);
	case REDIS_IDENTITY:
		return send_identity(op, node);
	}
	return false;
}

/* --- what an answer means ------------------------------------------------- */

/* New epochs are above it, unless it is nonsense that Lua could not count on
 * from. */
static void note_epoch(struct redis_store *s, uint64_t epoch)
{
	if (epoch <= STORE_KNOWN_MAX)
		s->epoch_floor = max_of(s->epoch_floor, epoch);
}

static void note_last(struct redis_store *s, const struct store_append *a)
{
	size_t size = strlen(a->channel) + 1;

	if (a->duplicate || size > sizeof(s->last_channel))
		return;
	memcpy(s->last_channel, a->channel, size);
	s->last = a->place;
}

/* " epoch offset epoch offset..." */
static bool read_eras(const char *text, struct store_eras *out)
{
	out->count = 0;
	while (*text == ' ')
		text++;
	while (*text != 0) {
		struct store_era *era = &out->era[out->count];

		if (out->count == STORE_ERAS_MAX ||
		    !redis_number(&text, &era->epoch) ||
		    !redis_number(&text, &era->offset))
			return false;
		out->count++;
	}
	return true;
}

/* A log has got a new epoch, because the server may have gone back. */
static const char *count_era(struct redis_store *s, const char *text)
{
	if (text == NULL || *text != '+')
		return text;
	metric_add(&s->store.metrics, SM_ERAS, 0, 1);
	return text + 1;
}

static int take_append(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_append *a = op->append;
	const char *text = count_era(op->s, reply->text);

	if (reply->type != REDIS_REPLY_STRING ||
	    !redis_number(&text, &a->place.epoch) ||
	    !redis_number(&text, &a->place.offset) || a->place.offset == 0)
		return ERR_MALFORMED;
	/* The first one's id follows: it was there already. */
	a->duplicate = *text != 0;
	if (a->duplicate)
		snprintf(a->message_id, sizeof(a->message_id), "%s", text);
	note_epoch(op->s, a->place.epoch);
	if (op->s->mode == REDIS_SINGLE)
		note_last(op->s, a);
	return 0;
}

#define READ_HEAD 4u /* epoch, top, first, former epochs */

/* The head, then offset and record in turn. The records are valid as long as
 * the reply: the caller is told at once. */
static int take_read(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_read *r = op->read;
	const char *eras = redis_element_text(reply, 3);
	struct store_record *records;
	size_t count;

	if (eras == NULL || reply->count % 2 != 0 ||
	    !redis_element_number(reply, 0, &r->top.epoch) ||
	    !redis_element_number(reply, 1, &r->top.offset) ||
	    !redis_element_number(reply, 2, &r->first) ||
	    !read_eras(eras, &r->eras))
		return ERR_MALFORMED;
	note_epoch(op->s, r->top.epoch);
	count = (reply->count - READ_HEAD) / 2;
	records = xcalloc(max_of(count, (size_t)1), sizeof(*records));
	for (size_t i = 0; i < count; i++) {
		size_t at = READ_HEAD + 2 * i;
		const char *bytes = redis_element_text(reply, at + 1);

		if (bytes == NULL ||
		    !redis_element_number(reply, at, &records[i].offset)) {
			free(records);
			return ERR_MALFORMED;
		}
		/* Somebody has taken one out: what follows is read next. */
		if (i == r->records_max ||
		    (i > 0 && records[i].offset != records[i - 1].offset + 1)) {
			count = i;
			break;
		}
		records[i].bytes = (const uint8_t *)bytes;
		records[i].len = reply->elements[at + 1]->len;
	}
	r->records = records;
	r->count = count;
	return 0;
}

/* "" (no log), or the top and the former epochs. */
static int take_top(struct redis_op *op, size_t index, uint64_t time_ms,
		    const char *text)
{
	const struct store_tops *t = op->tops->tops;
	struct store_place *place = &t->places[index];
	struct store_eras eras = {0};

	text = count_era(op->s, text);
	if (text == NULL)
		return ERR_MALFORMED;
	if (*text == 0) {
		uint64_t known = known_of(t, index).epoch;

		*place = (struct store_place){max_of(time_ms, known + 1), 0};
	} else if (!redis_number(&text, &place->epoch) ||
		   !redis_number(&text, &place->offset) ||
		   !read_eras(text, &eras) || place->epoch == 0) {
		return ERR_MALFORMED;
	}
	note_epoch(op->s, place->epoch);
	if (t->eras != NULL)
		t->eras[index] = eras;
	return 0;
}

/* The time, then one for each channel. */
static int take_tops(struct redis_op *op, const struct redis_reply *reply)
{
	uint64_t time_ms;

	if (!redis_element_number(reply, 0, &time_ms) ||
	    reply->count != 1 + (size_t)op->count)
		return ERR_MALFORMED;
	note_epoch(op->s, time_ms);
	for (size_t i = 0; i < op->count; i++) {
		int rc = take_top(op, op->tops->order[op->first + i].index,
				  time_ms, redis_element_text(reply, 1 + i));

		if (rc != 0)
			return rc;
	}
	return 0;
}

static int take_identity(struct redis_op *op, const struct redis_reply *reply)
{
	struct store_state *state = &op->s->store.state;
	const char *text = reply->text;
	uint64_t identity;

	if (reply->type == REDIS_REPLY_NIL) /* it has no room for it */
		return 0;
	if (!redis_number(&text, &identity) || identity == 0)
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
	case REDIS_TOPS:
		return take_tops(op, reply);
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

	if (rc != 0) /* also where a log that has gone back finds no room */
		part->rc = rc == ERR_FULL ? ERR_UNAVAILABLE : rc;
	if (--part->left > 0)
		return;
	t->rc = part->rc;
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
	case REDIS_TOPS:
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

static int by_slot(const void *a, const void *b)
{
	const struct redis_top *x = a, *y = b;

	return (int)x->slot - (int)y->slot;
}

/* How many of `left` channels one script can have, from `top` on: in a Cluster,
 * or in what may be one, those of one slot. */
static uint32_t tops_together(const struct redis_store *s,
			      const struct redis_top *top, size_t left)
{
	uint32_t most = (uint32_t)min_of(left, (size_t)REDIS_TOPS_MAX), n = 1;

	if (s->mode == REDIS_SINGLE || s->mode == REDIS_SENTINEL)
		return most;
	while (n < most && top[n].slot == top->slot)
		n++;
	return min_of(n, most);
}

static void redis_tops(struct store *store, struct store_tops *t)
{
	struct redis_store *s = redis_of(store);
	struct redis_tops *part = xcalloc(
		1, sizeof(*part) + (t->count + 1) * sizeof(part->order[0]));
	struct redis_op *op;
	uint32_t first = 0;

	part->tops = t;
	for (size_t i = 0; i < t->count; i++)
		part->order[i] = (struct redis_top){(uint32_t)i,
						    redis_slot(t->channels[i])};
	qsort(part->order, t->count, sizeof(part->order[0]), by_slot);
	do {
		op = op_new(s, REDIS_TOPS, part->order[first].slot);
		op->tops = part;
		op->first = first;
		op->count =
			tops_together(s, part->order + first, t->count - first);
		first += op->count;
		part->left++;
		op_begin(op);
	} while (first < t->count);
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
